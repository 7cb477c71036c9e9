//! One side's counters at one tick, gate by gate: requests and bad ones, pod by pod where that is asked for, and both
//! sides at a common time where they are compared. What a gate's warm-up leaves out is taken away here, and told. It
//! counts; it never judges.

use std::collections::{BTreeMap, BTreeSet};

use canary_api::{CanaryRelease, Gate, Scope, To};
use canary_core::{
    evidence::{LeftOut, Paired, Totals},
    gates::Measure,
    traffic::Requests,
};
use canary_counters::{
    HistogramReading, HistogramUnit, Latency, Measured, Meter, PodState, Reading, Selector, Series, Tick, WarmUp,
    histogram, measure,
};

use super::measure::{Answers, key};

/// The gates' warm-ups on one side, by gate.
pub(super) type WarmUps = BTreeMap<String, WarmUp>;

/// One side's counters at this tick.
pub(super) struct Side {
    /// The requests of `traffic.requests`, all of them.
    requests: Result<Reading, Measured>,
    gates: BTreeMap<String, Counted>,
}

/// What one gate counts on this side.
struct Counted {
    judged: Counts,
    /// Requests and bad ones that its warm-up leaves out.
    left_out: (f64, f64),
    /// The part of the requests that is judged, 0 to 1.
    part: f64,
}

/// A gate's counters.
enum Counts {
    /// `errorRate`.
    Share { total: Reading, bad: Reading },
    /// `latency`; with the failed requests' own counter, where it has one.
    Slow { histogram: HistogramReading, failed: Option<Reading>, latency: Latency },
    /// `eventRate` and `relative`.
    Events { requests: Reading, events: Reading },
    /// They can't be told; why.
    Nothing(Measured),
}

impl Side {
    /// Takes a tick's answers into the side's meter.
    pub(super) fn read(
        meter: &mut Meter,
        warm_ups: &mut WarmUps,
        tick: &Tick,
        answers: &Answers,
        pod_label: &str,
        release: &CanaryRelease,
    ) -> Self {
        let mut taken = Taken::new(meter, tick, answers, pod_label);
        let requests = taken.reading(&release.spec.traffic.requests.counter);
        let mut gates = BTreeMap::new();
        for gate in release.spec.gates.iter().filter(|gate| gate.value.is_none()) {
            let all = taken.counts(gate, &requests);
            let warm_up = warm_ups.entry(gate.name.clone()).or_default();
            let length = gate.warm_up.map_or(0, canary_api::Duration::millis);
            warm_up.set_length(i64::try_from(length).unwrap_or(i64::MAX));
            gates.insert(gate.name.clone(), Counted::new(gate, all, warm_up));
        }
        Self { requests, gates }
    }

    /// Both sides' requests, where all pods' samples are fresh.
    pub(super) fn requests_beside(&self, stable: &Self) -> Option<Requests> {
        let (own, of_stable) = (self.fresh_requests()?, stable.fresh_requests()?);
        let here = own.pods.values().filter(|pod| !matches!(pod.state, PodState::Gone)).map(|pod| pod.newest_ms);
        let sampled: Vec<i64> = here.flatten().collect();
        let known_to = *sampled.iter().min()?;
        Some(Requests {
            canary: own.total(),
            stable: of_stable.total(),
            known_to,
            newest: *sampled.iter().max()?,
            stable_then: of_stable.total_at(known_to),
        })
    }

    /// The requests, where all pods' samples are fresh.
    pub(super) fn fresh_requests(&self) -> Option<&Reading> {
        let requests = self.requests.as_ref().ok()?;
        // None counted is an answer too, where all the counters are there and fresh.
        let fresh = requests.pods.values().all(|pod| matches!(pod.state, PodState::Fresh | PodState::Gone));
        (fresh && requests.has_series()).then_some(requests)
    }

    /// A gate's totals on this side and the stable one, `seconds` into the window; with `by_pod` the stable pods one
    /// by one.
    pub(super) fn totals(&self, stable: &Self, gate: &Gate, seconds: f64, by_pod: bool) -> Totals {
        let (Some(own), Some(other)) = (self.gates.get(&gate.name), stable.gates.get(&gate.name)) else {
            let nothing = Measure::Error("the gate has no counter".to_owned());
            return Totals::new(&gate.name, nothing.clone(), nothing);
        };
        Totals {
            proof: own.judged.proof(gate).map(|proof| as_measure(proof, seconds)),
            paired: own.judged.paired(&other.judged, gate),
            stable_pods: if by_pod { other.judged.pods() } else { BTreeMap::new() },
            left_out: LeftOut { canary: own.left_out, stable: other.left_out },
            ..Totals::new(&gate.name, own.measure(gate, seconds), other.measure(gate, seconds))
        }
    }
}

impl Counted {
    fn new(gate: &Gate, all: Counts, warm_up: &mut WarmUp) -> Self {
        if warm_up.is_none() {
            return Self { judged: all, left_out: (0.0, 0.0), part: 1.0 };
        }
        let judged = all.warm(gate, warm_up);
        let (n, k) = all.measured().counts().unwrap_or_default();
        let (judged_n, judged_k) = judged.measured().counts().unwrap_or_default();
        let left_out = ((n - judged_n).max(0.0), (k - judged_k).max(0.0));
        Self { judged, left_out, part: if n > 0.0 { judged_n / n } else { 1.0 } }
    }

    fn measure(&self, gate: &Gate, seconds: f64) -> Measure {
        // Events are held against the time in which they were counted, less what is not judged of it.
        let seconds = match &self.judged {
            Counts::Events { requests, .. } if gate.event_rate.is_some() => {
                covered(requests).unwrap_or(seconds) * self.part
            }
            _ => seconds,
        };
        as_measure(self.judged.measured(), seconds)
    }
}

/// Seconds that a counter's samples cover: from the window's beginning to the newest sample, in the mean of the pods
/// that are there; and one interval more, since a window's first sample also counts what came just before it. A look
/// that brings no sample brings no time either.
fn covered(reading: &Reading) -> Option<f64> {
    let there = reading.pods.values().filter(|pod| !matches!(pod.state, PodState::Gone));
    let newest: Vec<f64> = there
        .filter_map(|pod| pod.newest_ms)
        .map(|newest| newest.saturating_sub(reading.since_ms).max(0) as f64)
        .collect();
    if newest.is_empty() {
        return None;
    }
    let mean = newest.iter().sum::<f64>() / newest.len() as f64;
    Some((mean + reading.interval_ms.unwrap_or(0) as f64) / 1000.0)
}

impl Counts {
    fn slow(gate: &Gate, histogram: HistogramReading, failed: Option<Reading>) -> Self {
        let Some(rule) = &gate.latency else { return Self::none() };
        let limit_ms = u32::try_from(rule.limit.millis()).unwrap_or(u32::MAX);
        let limit = Selector::parse(&rule.histogram)
            .map_or(HistogramUnit::Seconds, |selector| HistogramUnit::of(selector.metric()))
            .limit(limit_ms);
        let latency = histogram::latency(&histogram, limit, failed.as_ref());
        Self::Slow { histogram, failed, latency }
    }

    fn none() -> Self {
        Self::Nothing(Measured::Error("the gate has no counter".to_owned()))
    }

    /// The same without what its pods counted while they warmed up.
    fn warm(&self, gate: &Gate, warm_up: &mut WarmUp) -> Self {
        match self {
            Self::Share { total, bad } => {
                Self::Share { bad: warm_up.judged(total, bad), total: warm_up.judged(total, total) }
            }
            Self::Slow { histogram, failed, .. } => {
                let failed = failed.as_ref().map(|failed| warm_up.judged(&histogram.total, failed));
                Self::slow(gate, warm_up.judged_histogram(histogram), failed)
            }
            Self::Events { requests, events } => {
                Self::Events { events: warm_up.judged(requests, events), requests: warm_up.judged(requests, requests) }
            }
            Self::Nothing(why) => Self::Nothing(why.clone()),
        }
    }

    /// k of n, over a time that the caller knows.
    fn measured(&self) -> Measured {
        match self {
            Self::Share { total, bad } => measure::share(total, bad),
            Self::Slow { latency, .. } => latency.breach.clone(),
            // Events are compared per request; their time is the window's.
            Self::Events { requests, events } => with_n(measure::event_rate(events, Some(requests)), requests.total()),
            Self::Nothing(why) => why.clone(),
        }
    }

    /// For the question whether a limit is proved to be kept, where that counts otherwise.
    fn proof(&self, gate: &Gate) -> Option<Measured> {
        match self {
            Self::Slow { latency, .. } => Some(latency.proof.clone()),
            Self::Nothing(why) if gate.latency.is_some() => Some(why.clone()),
            Self::Share { .. } | Self::Events { .. } | Self::Nothing(_) => None,
        }
    }

    /// Both sides up to the same time, for a gate that compares them: events of one side must not be held against
    /// requests that the other has not been asked about.
    fn paired(&self, stable: &Self, gate: &Gate) -> Option<Paired> {
        let compares = gate.relative.as_ref().is_some_and(|rule| rule.to == To::Stable)
            || gate.event_rate.as_ref().is_some_and(|rule| rule.scope == Scope::Total);
        let (Self::Events { requests, events }, Self::Events { requests: of_stable, events: stable_events }) =
            (self, stable)
        else {
            return None;
        };
        let at = requests.newest_ms()?.min(of_stable.newest_ms()?);
        compares.then(|| Paired {
            canary_events: events.total_at(at),
            stable_events: stable_events.total_at(at),
            canary_requests: requests.total_at(at),
            stable_requests: of_stable.total_at(at),
        })
    }

    /// Requests and bad ones, pod by pod.
    fn pods(&self) -> BTreeMap<String, (f64, f64)> {
        let of = |reading: &Reading, name: &str| reading.pods.get(name).map_or(0.0, |pod| pod.total);
        let paired = |all: &Reading, bad: &dyn Fn(&str) -> f64| -> BTreeMap<String, (f64, f64)> {
            all.pods.iter().map(|(name, pod)| (name.clone(), (pod.total, bad(name)))).collect()
        };
        match self {
            Self::Share { total, bad } => paired(total, &|name| of(bad, name)),
            Self::Slow { histogram, latency, .. } => {
                let limit = latency.breach_le;
                let fast = histogram.boundaries.iter().find(|boundary| Some(boundary.le) == limit);
                let Some(fast) = fast else { return BTreeMap::new() };
                paired(&histogram.total, &|name| of(&histogram.total, name) - of(&fast.fast, name))
            }
            Self::Events { requests, events } => paired(requests, &|name| of(events, name)),
            Self::Nothing(_) => BTreeMap::new(),
        }
    }
}

/// A tick's answers as this side's meter has taken them.
struct Taken<'a> {
    meter: &'a mut Meter,
    tick: &'a Tick,
    series: BTreeMap<&'a String, Result<Vec<Series>, &'a String>>,
    readings: BTreeMap<&'a String, Result<Reading, String>>,
}

impl<'a> Taken<'a> {
    fn new(meter: &'a mut Meter, tick: &'a Tick, answers: &'a Answers, pod_label: &str) -> Self {
        let pods: BTreeSet<&str> = tick.pods.iter().map(|pod| pod.name.as_str()).collect();
        let own = |series: &Vec<Series>| -> Vec<Series> {
            series.iter().filter(|one| pods.contains(one.label(pod_label))).cloned().collect()
        };
        let series: BTreeMap<&String, Result<Vec<Series>, &String>> =
            answers.iter().map(|(key, answer)| (key, answer.as_ref().map(own))).collect();
        for series in series.values().flatten() {
            meter.witness(series, tick);
        }
        let mut readings = BTreeMap::new();
        for (key, series) in series.iter().filter(|(key, _)| !key.starts_with("buckets of ")) {
            let reading = match series {
                Ok(series) => meter.absorb(key, series, tick).map_err(|error| error.to_string()),
                Err(why) => Err((*why).clone()),
            };
            readings.insert(*key, reading);
        }
        Self { meter, tick, series, readings }
    }

    fn reading(&self, text: &String) -> Result<Reading, Measured> {
        match self.readings.get(text) {
            Some(Ok(reading)) => Ok(reading.clone()),
            Some(Err(why)) => Err(Measured::Error(why.clone())),
            None => Err(Measured::Error(format!("{text} is not a counter selector"))),
        }
    }

    fn counts(&mut self, gate: &Gate, requests: &Result<Reading, Measured>) -> Counts {
        self.try_counts(gate, requests).unwrap_or_else(Counts::Nothing)
    }

    fn try_counts(&mut self, gate: &Gate, requests: &Result<Reading, Measured>) -> Result<Counts, Measured> {
        if let Some(rule) = &gate.error_rate {
            return Ok(Counts::Share { total: self.reading(&rule.total)?, bad: self.reading(&rule.bad)? });
        }
        if let Some(rule) = &gate.latency {
            let failed = rule.failed.as_ref().and_then(|text| self.reading(text).ok());
            return Ok(Counts::slow(gate, self.histogram(gate, rule)?, failed));
        }
        let rate = gate.event_rate.as_ref().map(|rule| &rule.counter);
        let Some(counter) = rate.or_else(|| gate.relative.as_ref().map(|rule| &rule.counter)) else {
            return Ok(Counts::none());
        };
        Ok(Counts::Events { requests: requests.clone()?, events: self.reading(counter)? })
    }

    /// A histogram's figures are taken for each gate by itself: which requests failed is the gate's to say.
    fn histogram(&mut self, gate: &Gate, rule: &canary_api::Latency) -> Result<HistogramReading, Measured> {
        let series = match self.series.get(&key(&rule.histogram, true)) {
            Some(Ok(series)) => series,
            Some(Err(why)) => return Err(Measured::Error((*why).clone())),
            None => return Err(Measured::Error(format!("{} is not a histogram's name", rule.histogram))),
        };
        let not_good = rule.failed.as_deref().and_then(|text| Selector::parse(text).ok());
        let name = format!("{} ({})", rule.histogram, gate.name);
        Ok(self.meter.absorb_histogram(&name, series, not_good.as_ref(), self.tick)?)
    }
}

fn with_n(measured: Measured, requests: f64) -> Measured {
    match measured {
        Measured::Counted { k, .. } => Measured::Counted { n: requests, k },
        Measured::Stale { why, k, .. } => Measured::Stale { why, n: requests, k },
        other => other,
    }
}

fn as_measure(measured: Measured, seconds: f64) -> Measure {
    match measured {
        Measured::Counted { n, k } => Measure::Counted { n, k, seconds },
        Measured::Stale { why, n, k } => Measure::Partial { n, k, seconds, why },
        Measured::NoData(why) => Measure::NoData(why),
        Measured::Error(why) => Measure::Error(why),
    }
}
