//! The past, counted: raw samples of the gates' counters, chunk by chunk in the order of time, become what each pod
//! counted in each tick. It keeps counts of pods and ticks, no samples; it judges nothing.
//!
//! The differences are [`canary_counters::Meter`]'s: restarts, new pods and late series are seen as the operator sees
//! them. Only what is counted by pod can be taken apart, so that is all that is asked for; a value gate has no counts,
//! a gateway's are of all pods together, and both are left out.

use std::collections::{BTreeMap, BTreeSet};

use canary_api::{CanaryReleaseSpec, Gate};
use canary_counters::{
    Grouping, HistogramUnit, Meter, PodKnown, Reading, Selector, Series, Tick,
    histogram::{self, HistogramReading},
};

use crate::error::SimError;

/// Figures that are kept at most: pods times ticks times counters. So many take about 400 MB.
const MOST_FIGURES: usize = 100_000_000;
/// Newest samples that are older than so many scrape intervals are stale.
const STALE_AFTER: i64 = 2;

/// A gap in the samples, longer than which nobody watched.
const WATCHED_MS: i64 = 300_000;

/// One question to a metrics store.
#[derive(Debug, Clone)]
pub struct Question {
    /// What its answer is called in [`Counting::absorb`].
    pub key: String,
    /// The counter, or a histogram's buckets.
    pub selector: Selector,
}

/// A spec without what no past can be counted for, and the gates that are left out, each with the reason.
#[must_use]
pub fn countable(spec: &CanaryReleaseSpec) -> (CanaryReleaseSpec, Vec<String>) {
    let why = |gate: &Gate| match (gate.value.is_some(), gate.by.is_pod()) {
        (true, _) => Some("it reads a value"),
        (false, false) => Some("it is counted by Service"),
        (false, true) => None,
    };
    let mut kept = spec.clone();
    kept.gates.retain(|gate| why(gate).is_none());
    let left_out = spec.gates.iter().filter_map(|gate| Some(format!("{} ({})", gate.name, why(gate)?)));
    (kept, left_out.collect())
}

/// What has to be asked, each question once.
#[must_use]
pub fn questions(spec: &CanaryReleaseSpec) -> Vec<Question> {
    let mut wanted = BTreeMap::new();
    let mut add = |text: &str, buckets: bool| {
        if let Ok(selector) = Selector::parse(text) {
            wanted.insert(key(text, buckets), if buckets { selector.bucket() } else { selector });
        }
    };
    add(&spec.traffic.requests.counter, false);
    for gate in &spec.gates {
        if let Some(rule) = &gate.error_rate {
            add(&rule.bad, false);
            add(&rule.total, false);
        }
        if let Some(rule) = &gate.latency {
            add(&rule.histogram, true);
            if let Some(failed) = &rule.failed {
                add(failed, false);
            }
        }
        if let Some(counter) = events(gate) {
            add(counter, false);
        }
    }
    wanted.into_iter().map(|(key, selector)| Question { key, selector }).collect()
}

fn key(text: &str, buckets: bool) -> String {
    if buckets { format!("buckets of {text}") } else { text.to_owned() }
}

fn events(gate: &Gate) -> Option<&String> {
    let rate = gate.event_rate.as_ref().map(|rule| &rule.counter);
    rate.or_else(|| gate.relative.as_ref().map(|rule| &rule.counter))
}

/// What one pod counted, tick by tick.
#[derive(Debug, Clone)]
pub(crate) struct PodPast {
    pub(crate) name: String,
    /// Its first tick.
    pub(crate) first: usize,
    /// By tick: requests, and for each gate all and bad.
    cells: Vec<f32>,
}

/// What the pods of a service counted, tick by tick.
#[derive(Debug, Clone)]
pub struct Past {
    from_ms: i64,
    tick_ms: i64,
    ticks: usize,
    gates: usize,
    pods: Vec<PodPast>,
    /// By tick: whether there were fresh samples.
    covered: Vec<bool>,
}

/// One pod's counts of one tick.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell<'a>(&'a [f32]);

impl Cell<'_> {
    pub(crate) fn requests(&self) -> f64 {
        self.0.first().copied().map_or(0.0, f64::from)
    }

    /// All and bad ones of a gate.
    pub(crate) fn gate(&self, index: usize) -> (f64, f64) {
        let at = index.saturating_mul(2).saturating_add(1);
        let of = |at: usize| self.0.get(at).copied().map_or(0.0, f64::from);
        (of(at), of(at.saturating_add(1)))
    }
}

impl PodPast {
    pub(crate) fn cell(&self, tick: usize, width: usize) -> Option<Cell<'_>> {
        let at = tick.checked_sub(self.first)?.saturating_mul(width);
        self.cells.get(at..at.saturating_add(width)).map(Cell)
    }

    /// The tick after its last one.
    pub(crate) fn end(&self, width: usize) -> usize {
        self.first.saturating_add(self.cells.len().checked_div(width).unwrap_or(0))
    }
}

impl Past {
    /// When it begins, milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_ms(&self) -> i64 {
        self.from_ms
    }

    /// When it ends, milliseconds since the Unix epoch.
    #[must_use]
    pub fn to_ms(&self) -> i64 {
        let ticks = i64::try_from(self.ticks).unwrap_or(i64::MAX);
        self.from_ms.saturating_add(ticks.saturating_mul(self.tick_ms))
    }

    /// Pods that counted anything.
    #[must_use]
    pub const fn pods(&self) -> usize {
        self.pods.len()
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> f64 {
        let width = self.width();
        self.pods.iter().flat_map(|pod| pod.cells.iter().step_by(width)).map(|n| f64::from(*n)).sum()
    }

    /// Requests a second while there were samples.
    #[must_use]
    pub fn requests_per_second(&self) -> f64 {
        self.requests() / self.watched_seconds()
    }

    /// Bad or counted events a minute of each gate of the spec, in its order, while there were samples.
    #[must_use]
    pub fn events_per_minute(&self) -> Vec<f64> {
        let (width, minutes) = (self.width(), self.watched_seconds() / 60.0);
        let of = |index: usize| -> f64 {
            let cells = self.pods.iter().flat_map(|pod| pod.cells.chunks(width));
            cells.map(|cell| Cell(cell).gate(index).1).sum()
        };
        (0..self.gates).map(|index| of(index) / minutes).collect()
    }

    fn watched_seconds(&self) -> f64 {
        let ticks = self.covered.iter().filter(|covered| **covered).count().max(1);
        ticks as f64 * self.tick_ms as f64 / 1000.0
    }

    /// The part of the time for which there are samples, 0 to 1.
    #[must_use]
    pub fn coverage(&self) -> f64 {
        self.covered.iter().filter(|covered| **covered).count() as f64 / self.ticks.max(1) as f64
    }

    pub(crate) const fn tick_ms(&self) -> i64 {
        self.tick_ms
    }

    pub(crate) const fn gates(&self) -> usize {
        self.gates
    }

    pub(crate) fn width(&self) -> usize {
        width(self.gates)
    }

    pub(crate) fn all(&self) -> &[PodPast] {
        &self.pods
    }

    pub(crate) fn covered(&self, tick: usize) -> bool {
        self.covered.get(tick).copied().unwrap_or(false)
    }

    /// The first tick that ends after a time.
    pub(crate) fn tick_after(&self, at_ms: i64) -> usize {
        let since = at_ms.saturating_sub(self.from_ms).max(0);
        usize::try_from(since.checked_div(self.tick_ms).unwrap_or(0)).unwrap_or(usize::MAX)
    }
}

fn width(gates: usize) -> usize {
    gates.saturating_mul(2).saturating_add(1)
}

/// Counts a past as it is read.
#[derive(Debug)]
pub struct Counting {
    spec: CanaryReleaseSpec,
    label: String,
    meter: Meter,
    past: Past,
    index: BTreeMap<String, usize>,
    /// The tick after the last one in which each pod was sampled.
    seen_to: Vec<usize>,
    to_ms: i64,
    newest_ms: Option<i64>,
    scrape_ms: Option<i64>,
    figures: usize,
}

impl Counting {
    /// Counts from a time on, in ticks of the spec's interval. Series are told apart by this label of theirs; the
    /// scrape interval is estimated where it is not given.
    #[must_use]
    pub fn new(spec: &CanaryReleaseSpec, from_ms: i64, pod_label: &str, scrape_interval_ms: Option<i64>) -> Self {
        let tick_ms = i64::try_from(spec.interval.millis()).unwrap_or(i64::MAX).max(1);
        let gates = spec.gates.len();
        Self {
            spec: spec.clone(),
            label: pod_label.to_owned(),
            meter: Meter::new(from_ms).with_scrape_interval(scrape_interval_ms),
            past: Past { from_ms, tick_ms, ticks: 0, gates, pods: Vec::new(), covered: Vec::new() },
            index: BTreeMap::new(),
            seen_to: Vec::new(),
            to_ms: from_ms,
            newest_ms: None,
            scrape_ms: scrape_interval_ms,
            figures: 0,
        }
    }

    /// Takes the answers to all questions, of all samples from where the last call ended up to `to_ms`, by the
    /// questions' keys. Whole ticks only: `to_ms` is a multiple of the interval after the beginning.
    ///
    /// # Errors
    /// Samples that can't be counted, or too many of them; a time that is none of a tick's end.
    pub fn absorb(&mut self, answers: &BTreeMap<String, Vec<Series>>, to_ms: i64) -> Result<(), SimError> {
        let from_ms = self.to_ms;
        if to_ms <= from_ms || to_ms.saturating_sub(from_ms).checked_rem(self.past.tick_ms) != Some(0) {
            let why = format!("a chunk from {from_ms} to {to_ms} has no whole ticks of {} ms", self.past.tick_ms);
            return Err(SimError::Past(why));
        }
        let watched = self.newest_ms.is_some_and(|newest| newest >= from_ms.saturating_sub(WATCHED_MS));
        let names: BTreeSet<String> = answers
            .values()
            .flatten()
            .map(|one| one.label(&self.label).to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        // A pod that comes while others are seen began at zero. One that is seen first after the beginning of all
        // samples, or after a gap in them, was counting before.
        let started_at_ms = if watched { from_ms } else { self.past.from_ms.saturating_sub(WATCHED_MS) };
        let known = |name: String| PodKnown { name, started_at_ms };
        let tick = Tick {
            now_ms: to_ms,
            covered_from_ms: from_ms,
            pods: names.into_iter().filter(|name| !self.index.contains_key(name)).map(known).collect(),
            grouping: Grouping::Pod(self.label.clone()),
        };
        self.meter.begin_window(from_ms);
        for series in answers.values() {
            self.meter.witness(series, &tick);
        }
        let readings = self.read(answers, &tick)?;
        let requests = answers.get(&self.spec.traffic.requests.counter).into_iter().flatten();
        let sampled = requests.flat_map(|series| series.samples.iter().map(|sample| sample.at_ms)).collect();
        self.cut(&readings, sampled, to_ms)?;
        self.to_ms = to_ms;
        Ok(())
    }

    fn read(&mut self, answers: &BTreeMap<String, Vec<Series>>, tick: &Tick) -> Result<Readings, SimError> {
        let broken = |error: canary_counters::CounterError| SimError::Past(error.to_string());
        let mut readings = Readings { counters: BTreeMap::new(), histograms: BTreeMap::new() };
        for (key, series) in answers.iter().filter(|(key, _)| !key.starts_with("buckets of ")) {
            readings.counters.insert(key.clone(), self.meter.absorb(key, series, tick).map_err(broken)?);
        }
        for (gate, rule) in self.spec.gates.iter().filter_map(|gate| Some((gate, gate.latency.as_ref()?))) {
            let Some(series) = answers.get(&key(&rule.histogram, true)) else { continue };
            let failed = rule.failed.as_deref().and_then(|text| Selector::parse(text).ok());
            let name = format!("{} ({})", rule.histogram, gate.name);
            let histogram = self.meter.absorb_histogram(&name, series, failed.as_ref(), tick).map_err(broken)?;
            readings.histograms.insert(gate.name.clone(), histogram);
        }
        Ok(readings)
    }

    /// Cuts what was counted into ticks.
    fn cut(&mut self, readings: &Readings, mut sampled: BTreeSet<i64>, to_ms: i64) -> Result<(), SimError> {
        let from_ms = self.to_ms;
        let (first, width) = (self.past.ticks, self.past.width());
        let ends: Vec<i64> = (1..)
            .map_while(|tick: i64| from_ms.checked_add(tick.checked_mul(self.past.tick_ms)?))
            .take_while(|end| *end <= to_ms)
            .collect();
        let columns = readings.columns(&self.spec)?;
        sampled.extend(self.newest_ms);
        // A gap is taken for a long interval where little else was sampled: the shortest estimate stands.
        let estimate =
            readings.counters.get(&self.spec.traffic.requests.counter).and_then(|requests| requests.interval_ms);
        self.scrape_ms = self.scrape_ms.into_iter().chain(estimate).min();
        let stale_after = self.scrape_ms.unwrap_or(0).saturating_mul(STALE_AFTER).max(self.past.tick_ms);
        for name in readings.pods() {
            let newest = readings.newest(&name);
            let known = self.index.get(&name).copied();
            let Some(newest) = newest.filter(|newest| known.is_none() || *newest > from_ms) else { continue };
            let index = known.unwrap_or_else(|| self.begin(&name, first));
            self.figures = self.figures.saturating_add(ends.len().saturating_mul(width));
            if self.figures > MOST_FIGURES {
                let why = "there are too many pods for so long a time: look less far back, or give the spec a longer interval";
                return Err(SimError::Past(why.to_owned()));
            }
            let Some(pod) = self.past.pods.get_mut(index) else { continue };
            // Ticks in which it was not there.
            pod.cells.resize(first.saturating_sub(pod.first).saturating_mul(width), 0.0);
            let mut before = vec![0.0; width];
            for end in &ends {
                for (column, before) in columns.iter().zip(&mut before) {
                    let total = column.total_at(&name, *end);
                    pod.cells.push((total - *before).max(0.0) as f32);
                    *before = total.max(*before);
                }
            }
            let last = usize::try_from(newest.saturating_sub(from_ms).checked_div(self.past.tick_ms).unwrap_or(0));
            if let Some(seen) = self.seen_to.get_mut(index) {
                *seen = first.saturating_add(last.unwrap_or(0)).saturating_add(1);
            }
            self.newest_ms = self.newest_ms.max(Some(newest));
        }
        self.past
            .covered
            .extend(ends.iter().map(|end| sampled.range(end.saturating_sub(stale_after)..=*end).next().is_some()));
        self.past.ticks = first.saturating_add(ends.len());
        Ok(())
    }

    fn begin(&mut self, name: &str, first: usize) -> usize {
        let index = self.past.pods.len();
        self.past.pods.push(PodPast { name: name.to_owned(), first, cells: Vec::new() });
        self.seen_to.push(first);
        self.index.insert(name.to_owned(), index);
        index
    }

    /// The past, counted up to the end of the last call.
    #[must_use]
    pub fn finish(mut self) -> Past {
        let width = self.past.width();
        for (pod, seen_to) in self.past.pods.iter_mut().zip(&self.seen_to) {
            pod.cells.truncate(seen_to.saturating_sub(pod.first).saturating_mul(width));
        }
        self.past
    }
}

/// The answers of one chunk, counted.
struct Readings {
    counters: BTreeMap<String, Reading>,
    histograms: BTreeMap<String, HistogramReading>,
}

/// One figure of a cell, by pod and time.
enum Column<'a> {
    Of(&'a Reading),
    /// A counter that has no series counted nothing.
    Nothing,
    Bad {
        all: &'a Reading,
        bad: &'a Reading,
    },
    Slow {
        all: &'a Reading,
        fast: &'a Reading,
        failed: Option<&'a Reading>,
    },
}

fn total_at(reading: &Reading, pod: &str, at_ms: i64) -> f64 {
    reading.pods.get(pod).map_or(0.0, |pod| pod.total_at(at_ms))
}

impl Column<'_> {
    fn total_at(&self, pod: &str, at_ms: i64) -> f64 {
        match self {
            Self::Of(reading) => total_at(reading, pod, at_ms),
            Self::Nothing => 0.0,
            Self::Bad { all, bad } => total_at(bad, pod, at_ms).min(total_at(all, pod, at_ms)),
            Self::Slow { all, fast, failed } => {
                let n = total_at(all, pod, at_ms);
                let slow = (n - total_at(fast, pod, at_ms)).max(0.0);
                failed.map_or(slow, |failed| slow.max(total_at(failed, pod, at_ms))).min(n)
            }
        }
    }
}

impl Readings {
    fn readings(&self) -> impl Iterator<Item = &Reading> {
        self.counters.values().chain(self.histograms.values().map(|histogram| &histogram.total))
    }

    fn pods(&self) -> BTreeSet<String> {
        self.readings().flat_map(|reading| reading.pods.keys().cloned()).collect()
    }

    fn newest(&self, pod: &str) -> Option<i64> {
        self.readings().filter_map(|reading| reading.pods.get(pod)?.newest_ms).max()
    }

    /// The figures of a cell, in their order.
    fn columns(&self, spec: &CanaryReleaseSpec) -> Result<Vec<Column<'_>>, SimError> {
        let of = |text: &str| self.counters.get(text);
        let column = |text: &str| of(text).map_or(Column::Nothing, Column::Of);
        let requests = &spec.traffic.requests.counter;
        let mut columns = vec![column(requests)];
        for gate in &spec.gates {
            let (all, bad) = if let Some(rule) = &gate.error_rate {
                let bad = match (of(&rule.total), of(&rule.bad)) {
                    (Some(all), Some(bad)) => Column::Bad { all, bad },
                    _ => Column::Nothing,
                };
                (column(&rule.total), bad)
            } else if let Some(rule) = &gate.latency {
                match self.histograms.get(&gate.name) {
                    Some(histogram) if histogram.total.total() > 0.0 => {
                        slow(gate, rule, histogram, rule.failed.as_deref().and_then(of))?
                    }
                    _ => (Column::Nothing, Column::Nothing),
                }
            } else {
                (column(requests), events(gate).map_or(Column::Nothing, |counter| column(counter)))
            };
            columns.push(all);
            columns.push(bad);
        }
        Ok(columns)
    }
}

/// All requests and the slow ones, by the boundary that a breach is judged at.
fn slow<'a>(
    gate: &Gate,
    rule: &canary_api::Latency,
    histogram: &'a HistogramReading,
    failed: Option<&'a Reading>,
) -> Result<(Column<'a>, Column<'a>), SimError> {
    let limit_ms = u32::try_from(rule.limit.millis()).unwrap_or(u32::MAX);
    let unit = Selector::parse(&rule.histogram)
        .map_or(HistogramUnit::Seconds, |selector| HistogramUnit::of(selector.metric()));
    let judged = histogram::latency(histogram, unit.limit(limit_ms), failed);
    let boundary = histogram.boundaries.iter().find(|boundary| Some(boundary.le) == judged.breach_le);
    let Some(boundary) = boundary else {
        let why = judged.breach.why().unwrap_or("its limit is no boundary").to_owned();
        return Err(SimError::Past(format!("gate {}: {why}", gate.name)));
    };
    let all = &histogram.total;
    let slow = match &boundary.fast_and_not_failed {
        Some(good) => Column::Slow { all, fast: good, failed: None },
        None => Column::Slow { all, fast: &boundary.fast, failed },
    };
    Ok((Column::Of(all), slow))
}

#[cfg(test)]
#[path = "past_tests.rs"]
mod tests;
