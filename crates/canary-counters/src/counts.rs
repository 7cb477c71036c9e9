//! Raw counters into differences. A [`Meter`] remembers each series' last sample and adds up what
//! was counted since its window began, pod by pod: a restarted process is seen by its lower value,
//! a new pod's counter is taken whole, a series of an older pod that was never seen counts from
//! its first sample on. It decides what is fresh and what is not; it never decides what is good.
//!
//! All or nothing: an answer with one impossible value changes nothing and is an error.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::samples::Series;

/// Largest value that is still counted exactly in a double: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Labels that tell who scraped, not what was counted.
const SCRAPER_LABELS: [&str; 4] = ["job", "endpoint", "prometheus", "prometheus_replica"];

/// A pod whose counters are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodKnown {
    /// Its name.
    pub name: String,
    /// When it was created, milliseconds since the Unix epoch.
    pub started_at_ms: i64,
}

/// By what the series of a counter are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grouping {
    /// By the pod, in this label; each must be one of the tick's pods.
    Pod(String),
    /// A gateway's own series, told apart by the scraped address only (`by: Service`).
    Whole,
}

/// One evaluation: when, of whom, and from which time on the answers hold all samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// The instant of the answers, milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// The answers hold every sample after this, up to `now_ms`: `now_ms` less the lookback.
    pub covered_from_ms: i64,
    /// The pods that were asked about.
    pub pods: Vec<PodKnown>,
    /// By what the series are told apart.
    pub grouping: Grouping,
}

/// An answer that can't be counted. Nothing of it was taken.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum CounterError {
    /// NaN, infinite, negative or too large.
    #[error("{counter}: {series} has the value {value}, which no counter can have")]
    Value {
        /// The counter.
        counter: String,
        /// The series.
        series: String,
        /// The value, as text.
        value: String,
    },
    /// Times that don't ascend.
    #[error("{counter}: the samples of {series} are not in ascending order of time")]
    Order {
        /// The counter.
        counter: String,
        /// The series.
        series: String,
    },
    /// A sample after the instant of the question.
    #[error(
        "{counter}: {series} has a sample {ahead_ms} ms in the future; compare the clocks of the operator and of the metrics store"
    )]
    Future {
        /// The counter.
        counter: String,
        /// The series.
        series: String,
        /// How far ahead.
        ahead_ms: i64,
    },
    /// No pod label, or an empty one.
    #[error("{counter}: {series} has no label {label:?}; set the provider's labels, or select series that carry it")]
    NoPod {
        /// The counter.
        counter: String,
        /// The series.
        series: String,
        /// The label that is missing.
        label: String,
    },
    /// A pod that was not asked about.
    #[error("{counter}: {series} is of a pod that was not asked about")]
    UnexpectedPod {
        /// The counter.
        counter: String,
        /// The series.
        series: String,
    },
    /// Two series with the same labels.
    #[error("{counter}: {series} occurs twice in one answer")]
    Duplicate {
        /// The counter.
        counter: String,
        /// The series.
        series: String,
    },
    /// The same counter scraped by two jobs.
    #[error(
        "{counter}: {series} is scraped twice (the series differ only in {labels}); select one of them in the counter's selector, else every request counts twice"
    )]
    ScrapedTwice {
        /// The counter.
        counter: String,
        /// The series.
        series: String,
        /// The labels in which the two differ.
        labels: String,
    },
    /// A histogram whose bucket has no usable boundary.
    #[error("{counter}: {series} has no usable boundary in its label `le`")]
    Boundary {
        /// The counter.
        counter: String,
        /// The series.
        series: String,
    },
}

impl CounterError {
    /// A static word for metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Value { .. } => "value",
            Self::Order { .. } => "order",
            Self::Future { .. } => "future",
            Self::NoPod { .. } => "no_pod",
            Self::UnexpectedPod { .. } => "unexpected_pod",
            Self::Duplicate { .. } => "duplicate",
            Self::ScrapedTwice { .. } => "scraped_twice",
            Self::Boundary { .. } => "boundary",
        }
    }
}

/// How current a pod's samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodState {
    /// Its newest sample is at most two scrape intervals old.
    Fresh,
    /// Its newest sample is older.
    Stale {
        /// Age of the newest sample in milliseconds.
        age_ms: i64,
    },
    /// It has no samples of this counter.
    Absent,
    /// It has no samples of this counter, and is too young to miss them.
    Young,
    /// It is no longer among the pods asked about; what it counted still counts.
    Gone,
}

/// One pod's part of a [`Reading`].
#[derive(Debug, Clone, PartialEq)]
pub struct PodReading {
    /// How current it is.
    pub state: PodState,
    /// Counted since the last call for this counter.
    pub increase: f64,
    /// Counted since the window began.
    pub total: f64,
    /// Time of its newest sample.
    pub newest_ms: Option<i64>,
    /// How often a value went back, in this window.
    pub resets: u32,
    /// How many series it has had.
    pub series: usize,
    /// The sample that showed its first count, in whichever window; for a pod that had counted before anyone looked,
    /// at the earliest its creation.
    pub traffic_from_ms: Option<i64>,
    base: f64,
    steps: BTreeMap<i64, f64>,
}

impl PodReading {
    /// Counted since the window began, up to and with this time. Exact for times within the
    /// lookback.
    #[must_use]
    pub fn total_at(&self, at_ms: i64) -> f64 {
        self.steps.range(..=at_ms).fold(self.base, |sum, (_, step)| sum + step)
    }

    /// Takes away what was counted up to and with a time, `part` in all.
    pub(crate) fn leave_out(&mut self, up_to_ms: i64, part: f64) {
        let later = self.steps.split_off(&up_to_ms.saturating_add(1));
        let sooner: f64 = std::mem::replace(&mut self.steps, later).values().sum();
        self.base = (self.base + sooner - part).max(0.0);
        self.total = (self.total - part).max(0.0);
        self.increase = self.increase.min(self.total);
    }
}

/// A counter at one tick, pod by pod. Pods that were asked about and have no series are in it too.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The counter's name in messages.
    pub counter: String,
    /// The tick's instant.
    pub now_ms: i64,
    /// When the window began.
    pub since_ms: i64,
    /// The scrape interval, configured or estimated.
    pub interval_ms: Option<i64>,
    /// By pod; for [`Grouping::Whole`] by scraped address.
    pub pods: BTreeMap<String, PodReading>,
    /// Told apart by scraped address, not by pod.
    pub(crate) whole: bool,
    /// [`PodReading::total_at`] is exact from here on.
    pub(crate) exact_from_ms: i64,
}

impl Reading {
    /// Counted since the window began, by all pods, those that are gone included.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.pods.values().map(|pod| pod.total).sum()
    }

    /// The same, up to and with a time: for arms that are compared at a common, lagged time.
    #[must_use]
    pub fn total_at(&self, at_ms: i64) -> f64 {
        self.pods.values().map(|pod| pod.total_at(at_ms)).sum()
    }

    /// Counted since the last call.
    #[must_use]
    pub fn increase(&self) -> f64 {
        self.pods.values().map(|pod| pod.increase).sum()
    }

    /// The newest sample of all.
    #[must_use]
    pub fn newest_ms(&self) -> Option<i64> {
        self.pods.values().filter_map(|pod| pod.newest_ms).max()
    }

    /// Whether any pod has had a series.
    #[must_use]
    pub fn has_series(&self) -> bool {
        self.pods.values().any(|pod| pod.series > 0)
    }
}

#[derive(Debug, Clone, Default)]
struct Counter {
    /// By labels: the last sample taken.
    series: BTreeMap<BTreeMap<String, String>, Last>,
    groups: BTreeMap<String, Group>,
    interval_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    at_ms: i64,
    value: f64,
}

#[derive(Debug, Clone, Default)]
struct Group {
    /// Counted in this window by steps that are no longer kept one by one.
    base: f64,
    /// Counted in this window, by the time of the sample, for the newest samples.
    steps: BTreeMap<i64, f64>,
    newest_ms: Option<i64>,
    resets: u32,
    series: usize,
    /// The earliest time at which the pod was certainly scraped while this counter was asked for:
    /// a series that first appears later was born after it, at zero.
    watched_from_ms: Option<i64>,
    traffic_from_ms: Option<i64>,
}

impl Group {
    fn had_traffic(&mut self, at_ms: i64) {
        self.traffic_from_ms = Some(self.traffic_from_ms.map_or(at_ms, |known| known.min(at_ms)));
    }
}

/// The memory between ticks: what each series last said, and what was counted in this window.
#[derive(Debug, Clone)]
pub struct Meter {
    watching_since_ms: i64,
    since_ms: i64,
    configured_interval_ms: Option<i64>,
    keeps_history: bool,
    known: BTreeMap<String, i64>,
    /// By pod: the times of samples, of whichever counter.
    scraped: BTreeMap<String, BTreeSet<i64>>,
    counters: BTreeMap<String, Counter>,
}

impl Meter {
    /// A meter whose first window begins at `since_ms`. A pod created at or after it is taken
    /// whole: for the first stage, give the time at which the canary was scaled up; after a
    /// restart of the operator, the time up to which the counts in the status reach.
    #[must_use]
    pub fn new(since_ms: i64) -> Self {
        Self {
            watching_since_ms: since_ms,
            since_ms,
            configured_interval_ms: None,
            keeps_history: false,
            known: BTreeMap::new(),
            scraped: BTreeMap::new(),
            counters: BTreeMap::new(),
        }
    }

    /// With the provider's scrape interval, where the admin has named it; else it is estimated
    /// from the spacing of the samples.
    #[must_use]
    pub fn with_scrape_interval(mut self, interval_ms: Option<i64>) -> Self {
        self.configured_interval_ms = interval_ms.filter(|interval| *interval > 0);
        self
    }

    /// With answers that hold the samples of the past, too: then a pod's first sample, where none was due before
    /// it, was its first count. A source that is only ever asked for now leaves that open.
    #[must_use]
    pub fn with_history(mut self, keeps_history: bool) -> Self {
        self.keeps_history = keeps_history;
        self
    }

    /// When the window began.
    #[must_use]
    pub fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// When a counter was last sampled, and how often it is: milliseconds since the Unix epoch, and the spacing.
    #[must_use]
    pub fn rhythm(&self, counter: &str) -> Option<(i64, i64)> {
        let counter = self.counters.get(counter)?;
        let newest = counter.groups.values().filter_map(|group| group.newest_ms).max()?;
        Some((newest, self.configured_interval_ms.or(counter.interval_ms)?))
    }

    /// Begins a new window: from now on totals count what was sampled after `at_ms`; the base of
    /// each series is its last value at or before it.
    pub fn begin_window(&mut self, at_ms: i64) {
        self.since_ms = at_ms;
        for group in self.counters.values_mut().flat_map(|counter| counter.groups.values_mut()) {
            group.base = 0.0;
            group.resets = 0;
            group.steps.retain(|step_ms, _| *step_ms > at_ms);
        }
    }

    /// Takes note that pods were scraped, without counting. Call it with every answer of a tick
    /// before the first [`Meter::absorb`]; then the order of the counters makes no difference: a
    /// counter that appears late is known to have begun at zero.
    pub fn witness(&mut self, series: &[Series], tick: &Tick) {
        for one in series {
            let group = group_of(one, &tick.grouping).to_owned();
            let times = self.scraped.entry(group).or_default();
            for sample in &one.samples {
                if sample.at_ms > tick.covered_from_ms && sample.at_ms <= tick.now_ms {
                    times.insert(sample.at_ms);
                }
            }
        }
        for times in self.scraped.values_mut() {
            *times = times.split_off(&tick.covered_from_ms.saturating_add(1));
        }
    }

    /// Takes one counter's answer in and returns what it counts. `counter` names it in messages
    /// and tells it from others; the same name must always mean the same selector.
    ///
    /// # Errors
    /// An answer that can't be counted; then nothing of it is taken.
    pub fn absorb(&mut self, counter: &str, series: &[Series], tick: &Tick) -> Result<Reading, CounterError> {
        for pod in &tick.pods {
            self.known.insert(pod.name.clone(), pod.started_at_ms);
        }
        self.check(counter, series, tick)?;
        self.witness(series, tick);

        let mut state = self.counters.remove(counter).unwrap_or_default();
        if let Some(estimate) = estimate_interval(&state, series) {
            state.interval_ms = Some(estimate);
        }
        let mut increases: BTreeMap<String, f64> = BTreeMap::new();
        self.watch(&mut state, tick);
        for one in series {
            let increase = self.take(&mut state, one, tick);
            let group = group_of(one, &tick.grouping).to_owned();
            *increases.entry(group).or_default() += increase;
        }
        for group in state.groups.values_mut() {
            let kept = group.steps.split_off(&tick.covered_from_ms);
            let settled = std::mem::replace(&mut group.steps, kept);
            group.base += settled.values().sum::<f64>();
        }
        let reading = self.read(counter, &state, &increases, tick);
        self.counters.insert(counter.to_owned(), state);
        Ok(reading)
    }

    /// Forgets a counter.
    pub fn forget(&mut self, counter: &str) {
        self.counters.remove(counter);
    }

    pub(crate) fn check(&self, counter: &str, series: &[Series], tick: &Tick) -> Result<(), CounterError> {
        let mut labels_seen = BTreeSet::new();
        let mut scraped_seen: BTreeMap<Vec<(&str, &str)>, &Series> = BTreeMap::new();
        for one in series {
            let counter = || counter.to_owned();
            let shown = || one.describe();
            if let Grouping::Pod(label) = &tick.grouping {
                let pod = one.label(label);
                if pod.is_empty() {
                    return Err(CounterError::NoPod { counter: counter(), series: shown(), label: label.clone() });
                }
                if !self.known.contains_key(pod) && !tick.pods.iter().any(|p| p.name == pod) {
                    return Err(CounterError::UnexpectedPod { counter: counter(), series: shown() });
                }
            }
            if !labels_seen.insert(&one.labels) {
                return Err(CounterError::Duplicate { counter: counter(), series: shown() });
            }
            let counted: Vec<(&str, &str)> = one
                .labels
                .iter()
                .filter(|(name, _)| !SCRAPER_LABELS.contains(&name.as_str()))
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            if let Some(other) = scraped_seen.insert(counted, one) {
                let differing: Vec<&str> =
                    SCRAPER_LABELS.into_iter().filter(|name| one.label(name) != other.label(name)).collect();
                return Err(CounterError::ScrapedTwice {
                    counter: counter(),
                    series: shown(),
                    labels: differing.join(", "),
                });
            }
            let mut before = None;
            for sample in &one.samples {
                let value = sample.value;
                if !(0.0..=EXACT).contains(&value) {
                    return Err(CounterError::Value { counter: counter(), series: shown(), value: value.to_string() });
                }
                if before.is_some_and(|before| sample.at_ms <= before) {
                    return Err(CounterError::Order { counter: counter(), series: shown() });
                }
                if sample.at_ms > tick.now_ms {
                    return Err(CounterError::Future {
                        counter: counter(),
                        series: shown(),
                        ahead_ms: sample.at_ms.saturating_sub(tick.now_ms),
                    });
                }
                before = Some(sample.at_ms);
            }
        }
        Ok(())
    }

    /// Notes for every pod since when this counter has certainly been looked at.
    fn watch(&self, state: &mut Counter, tick: &Tick) {
        // An answer that covers no time, or one that ends before it begins, has seen no one.
        let from = tick.covered_from_ms.saturating_add(1);
        if from > tick.now_ms {
            return;
        }
        for (pod, times) in &self.scraped {
            let covered = times.range(from..=tick.now_ms).next();
            if let Some(first) = covered {
                let group = state.groups.entry(pod.clone()).or_default();
                if group.watched_from_ms.is_none() {
                    group.watched_from_ms = Some(*first);
                }
            }
        }
    }

    /// Takes one series in and returns what it adds to this window.
    fn take(&self, state: &mut Counter, series: &Series, tick: &Tick) -> f64 {
        let name = group_of(series, &tick.grouping);
        let interval_ms = self.configured_interval_ms.or(state.interval_ms);
        let group = state.groups.entry(name.to_owned()).or_default();
        let mut last = state.series.get(&series.labels).copied();
        if last.is_none() && !series.samples.is_empty() {
            group.series = group.series.saturating_add(1);
        }
        let mut increase = 0.0;
        for sample in &series.samples {
            let step = match last {
                Some(last) if sample.at_ms <= last.at_ms => continue,
                Some(last) if sample.value >= last.value => sample.value - last.value,
                Some(_) => {
                    if sample.at_ms > self.since_ms {
                        group.resets = group.resets.saturating_add(1);
                    }
                    sample.value
                }
                None if self.born_under_watch(name, group, sample.at_ms) => sample.value,
                None => {
                    if sample.value > 0.0 {
                        group.had_traffic(self.began_before_us(name, sample.at_ms, interval_ms, tick));
                    }
                    0.0
                }
            };
            if step > 0.0 {
                group.had_traffic(sample.at_ms);
            }
            // What was sampled at or before the window's beginning is its base.
            if sample.at_ms > self.since_ms && step > 0.0 {
                *group.steps.entry(sample.at_ms).or_default() += step;
                increase += step;
            }
            last = Some(Last { at_ms: sample.at_ms, value: sample.value });
            group.newest_ms = group.newest_ms.max(Some(sample.at_ms));
        }
        if let Some(last) = last {
            state.series.insert(series.labels.clone(), last);
        }
        increase
    }

    /// Whether a series that is seen for the first time began at zero while we were looking.
    fn born_under_watch(&self, pod: &str, group: &Group, first_sample_ms: i64) -> bool {
        // Creation times are cut to whole seconds by the API server.
        let created = self.known.get(pod).is_some_and(|started| started.saturating_add(1000) > self.watching_since_ms);
        let appeared = group.watched_from_ms.is_some_and(|watched| watched < first_sample_ms);
        created || appeared
    }

    /// When a pod may have begun to count whose first known sample shows that it had: at that sample, where earlier
    /// ones would be known; else at its creation.
    fn began_before_us(&self, pod: &str, first_sample_ms: i64, interval_ms: Option<i64>, tick: &Tick) -> i64 {
        let asked_before = first_sample_ms.saturating_sub(tick.covered_from_ms);
        let silent_before = interval_ms.is_some_and(|interval| asked_before > interval.saturating_mul(2));
        if self.keeps_history && silent_before {
            return first_sample_ms;
        }
        self.known.get(pod).map_or(first_sample_ms, |created| first_sample_ms.min(*created))
    }

    fn read(&self, counter: &str, state: &Counter, increases: &BTreeMap<String, f64>, tick: &Tick) -> Reading {
        let interval_ms = self.configured_interval_ms.or(state.interval_ms);
        let lookback = tick.now_ms.saturating_sub(tick.covered_from_ms).max(0);
        let stale_after = interval_ms.map_or(lookback, |interval| interval.saturating_mul(2));
        let mut names: BTreeSet<&str> = tick.pods.iter().map(|pod| pod.name.as_str()).collect();
        if tick.grouping == Grouping::Whole {
            names.clear();
        }
        let expected = names.clone();
        names.extend(state.groups.iter().filter(|(_, group)| group.series > 0).map(|(name, _)| name.as_str()));
        let whole = tick.grouping == Grouping::Whole;
        let nothing = Group::default();
        let pods = names
            .into_iter()
            .map(|name| {
                let group = state.groups.get(name).unwrap_or(&nothing);
                let age = group.newest_ms.map(|at| tick.now_ms.saturating_sub(at));
                let state = match age {
                    _ if !whole && !expected.contains(name) => PodState::Gone,
                    Some(age_ms) if age_ms > stale_after => PodState::Stale { age_ms },
                    Some(_) => PodState::Fresh,
                    None if self.is_young(name, interval_ms, tick) => PodState::Young,
                    None => PodState::Absent,
                };
                let reading = PodReading {
                    state,
                    increase: increases.get(name).copied().unwrap_or(0.0),
                    total: group.steps.values().fold(group.base, |sum, step| sum + step),
                    newest_ms: group.newest_ms,
                    resets: group.resets,
                    series: group.series,
                    traffic_from_ms: group.traffic_from_ms,
                    base: group.base,
                    steps: group.steps.clone(),
                };
                (name.to_owned(), reading)
            })
            .collect();
        Reading {
            counter: counter.to_owned(),
            now_ms: tick.now_ms,
            since_ms: self.since_ms,
            interval_ms,
            pods,
            whole,
            exact_from_ms: tick.covered_from_ms,
        }
    }

    /// A new pod must be discovered and scraped first: three intervals and ten seconds.
    fn is_young(&self, pod: &str, interval_ms: Option<i64>, tick: &Tick) -> bool {
        let allowed = interval_ms.unwrap_or(15_000).saturating_mul(3).saturating_add(10_000);
        self.known.get(pod).is_some_and(|started| tick.now_ms.saturating_sub(*started) < allowed)
    }
}

fn group_of<'a>(series: &'a Series, grouping: &Grouping) -> &'a str {
    match grouping {
        Grouping::Pod(label) => series.label(label),
        Grouping::Whole => series.label("instance"),
    }
}

/// The median distance between two samples of a series, the last one taken before included.
fn estimate_interval(state: &Counter, series: &[Series]) -> Option<i64> {
    let mut gaps = Vec::new();
    for one in series {
        let mut before = state.series.get(&one.labels).map(|last| last.at_ms);
        for sample in &one.samples {
            if let Some(gap) = before.map(|before| sample.at_ms.saturating_sub(before)).filter(|gap| *gap > 0) {
                gaps.push(gap);
            }
            before = before.max(Some(sample.at_ms));
        }
    }
    gaps.sort_unstable();
    let middle = gaps.len().checked_sub(1)? / 2;
    gaps.get(middle).copied()
}
