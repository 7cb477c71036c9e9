//! One side's counters at one tick, gate by gate: requests and bad ones, pod by pod where that is asked for, and both
//! sides at a common time where they are compared. It counts; it never judges.

use std::collections::{BTreeMap, BTreeSet};

use canary_api::{CanaryRelease, Gate, Scope, To};
use canary_core::{
    evidence::{Paired, Totals},
    gates::Measure,
    traffic::Requests,
};
use canary_counters::{
    HistogramUnit, Latency, Measured, Meter, PodState, Reading, Selector, Series, Tick,
    histogram::{self, HistogramReading},
    measure,
};

use super::measure::{Answers, key};

/// A histogram's figures for one gate.
struct Slow {
    latency: Latency,
    histogram: Option<HistogramReading>,
}

/// One side's counters at this tick.
pub(super) struct Side {
    readings: BTreeMap<String, Result<Reading, String>>,
    slow: BTreeMap<String, Slow>,
    requests: String,
}

impl Side {
    /// Takes a tick's answers into the side's meter.
    pub(super) fn read(
        meter: &mut Meter,
        tick: &Tick,
        answers: &Answers,
        pod_label: &str,
        release: &CanaryRelease,
    ) -> Self {
        let pods: BTreeSet<&str> = tick.pods.iter().map(|pod| pod.name.as_str()).collect();
        let own = |series: &Vec<Series>| -> Vec<Series> {
            series.iter().filter(|one| pods.contains(one.label(pod_label))).cloned().collect()
        };
        let mine: BTreeMap<&String, Result<Vec<Series>, &String>> =
            answers.iter().map(|(key, answer)| (key, answer.as_ref().map(own))).collect();
        for series in mine.values().flatten() {
            meter.witness(series, tick);
        }
        let mut readings = BTreeMap::new();
        for (key, series) in mine.iter().filter(|(key, _)| !key.starts_with("buckets of ")) {
            let reading = match series {
                Ok(series) => meter.absorb(key, series, tick).map_err(|error| error.to_string()),
                Err(why) => Err((*why).clone()),
            };
            readings.insert((*key).clone(), reading);
        }
        let mut slow = BTreeMap::new();
        for (gate, rule) in release.spec.gates.iter().filter_map(|gate| Some((gate, gate.latency.as_ref()?))) {
            let measured = match mine.get(&key(&rule.histogram, true)) {
                Some(Ok(series)) => latency(meter, tick, gate, rule, series, &readings),
                Some(Err(why)) => failed((*why).clone()),
                None => failed(format!("{} is not a histogram's name", rule.histogram)),
            };
            slow.insert(gate.name.clone(), measured);
        }
        Self { readings, slow, requests: release.spec.traffic.requests.counter.clone() }
    }

    fn reading(&self, text: &str) -> Result<&Reading, Measured> {
        match self.readings.get(text) {
            Some(Ok(reading)) => Ok(reading),
            Some(Err(why)) => Err(Measured::Error(why.clone())),
            None => Err(Measured::Error(format!("{text} is not a counter selector"))),
        }
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
        let requests = self.reading(&self.requests).ok()?;
        matches!(measure::share(requests, requests), Measured::Counted { .. }).then_some(requests)
    }

    /// A gate's totals on this side and the stable one, `seconds` into the window; with `by_pod` the stable pods one
    /// by one.
    pub(super) fn totals(&self, stable: &Self, gate: &Gate, seconds: f64, by_pod: bool) -> Totals {
        let proof = self.slow.get(&gate.name).map(|slow| as_measure(slow.latency.proof.clone(), seconds));
        Totals {
            gate: gate.name.clone(),
            canary: as_measure(self.gate(gate), seconds),
            stable: as_measure(stable.gate(gate), seconds),
            proof,
            paired: self.paired(stable, gate),
            stable_pods: if by_pod { stable.pods(gate) } else { BTreeMap::new() },
        }
    }

    /// A gate's counts on this side: k of n, over a time that the caller knows.
    fn gate(&self, gate: &Gate) -> Measured {
        let counted = || -> Result<Measured, Measured> {
            if let Some(rule) = &gate.error_rate {
                return Ok(measure::share(self.reading(&rule.total)?, self.reading(&rule.bad)?));
            }
            if let Some(slow) = self.slow.get(&gate.name) {
                return Ok(slow.latency.breach.clone());
            }
            let Some(counter) = events(gate) else { return Ok(Measured::Error("the gate has no counter".to_owned())) };
            let requests = self.reading(&self.requests)?;
            let events = measure::event_rate(self.reading(counter)?, Some(requests));
            // Events are compared per request; their time is the window's.
            Ok(with_n(events, requests.total()))
        };
        counted().unwrap_or_else(|error| error)
    }

    /// Both sides up to the same time, for a gate that compares them: events of one side must not be held against
    /// requests that the other has not been asked about.
    fn paired(&self, stable: &Self, gate: &Gate) -> Option<Paired> {
        let compares = gate.relative.as_ref().is_some_and(|rule| rule.to == To::Stable)
            || gate.event_rate.as_ref().is_some_and(|rule| rule.scope == Scope::Total);
        let counter = events(gate).filter(|_| compares)?;
        let (requests, of_stable) = (self.reading(&self.requests).ok()?, stable.reading(&self.requests).ok()?);
        let at = requests.newest_ms()?.min(of_stable.newest_ms()?);
        Some(Paired {
            canary_events: self.reading(counter).ok()?.total_at(at),
            stable_events: stable.reading(counter).ok()?.total_at(at),
            canary_requests: requests.total_at(at),
            stable_requests: of_stable.total_at(at),
        })
    }

    /// Requests and bad ones, pod by pod.
    fn pods(&self, gate: &Gate) -> BTreeMap<String, (f64, f64)> {
        let paired = |all: &Reading, bad: &dyn Fn(&str) -> f64| -> BTreeMap<String, (f64, f64)> {
            all.pods.iter().map(|(name, pod)| (name.clone(), (pod.total, bad(name)))).collect()
        };
        let of = |reading: &Reading, name: &str| reading.pods.get(name).map_or(0.0, |pod| pod.total);
        let counted = || -> Result<BTreeMap<String, (f64, f64)>, Measured> {
            if let Some(rule) = &gate.error_rate {
                let bad = self.reading(&rule.bad)?;
                return Ok(paired(self.reading(&rule.total)?, &|name| of(bad, name)));
            }
            if let Some(slow) = self.slow.get(&gate.name) {
                let Some(histogram) = &slow.histogram else { return Ok(BTreeMap::new()) };
                let limit = slow.latency.breach_le;
                let fast = histogram.boundaries.iter().find(|boundary| Some(boundary.le) == limit);
                let Some(fast) = fast else { return Ok(BTreeMap::new()) };
                return Ok(paired(&histogram.total, &|name| of(&histogram.total, name) - of(&fast.fast, name)));
            }
            let Some(counter) = events(gate) else { return Ok(BTreeMap::new()) };
            let counter = self.reading(counter)?;
            Ok(paired(self.reading(&self.requests)?, &|name| of(counter, name)))
        };
        counted().unwrap_or_default()
    }
}

/// The counter of a gate on events.
fn events(gate: &Gate) -> Option<&String> {
    let rate = gate.event_rate.as_ref().map(|rule| &rule.counter);
    rate.or_else(|| gate.relative.as_ref().map(|rule| &rule.counter))
}

fn with_n(measured: Measured, requests: f64) -> Measured {
    match measured {
        Measured::Counted { k, .. } => Measured::Counted { n: requests, k },
        Measured::Stale { why, k, .. } => Measured::Stale { why, n: requests, k },
        other => other,
    }
}

fn failed(why: String) -> Slow {
    let error = Measured::Error(why);
    let latency = Latency { breach: error.clone(), breach_le: None, proof: error, proof_le: None, note: None };
    Slow { latency, histogram: None }
}

fn latency(
    meter: &mut Meter,
    tick: &Tick,
    gate: &Gate,
    rule: &canary_api::Latency,
    series: &[Series],
    readings: &BTreeMap<String, Result<Reading, String>>,
) -> Slow {
    let not_good = rule.failed.as_deref().and_then(|text| Selector::parse(text).ok());
    let name = format!("{} ({})", rule.histogram, gate.name);
    let histogram = match meter.absorb_histogram(&name, series, not_good.as_ref(), tick) {
        Ok(histogram) => histogram,
        Err(error) => return failed(error.to_string()),
    };
    let limit_ms = u32::try_from(rule.limit.millis()).unwrap_or(u32::MAX);
    let limit = Selector::parse(&rule.histogram)
        .map_or(HistogramUnit::Seconds, |selector| HistogramUnit::of(selector.metric()))
        .limit(limit_ms);
    let failed = rule.failed.as_ref().and_then(|text| readings.get(text)).and_then(|reading| reading.as_ref().ok());
    Slow { latency: histogram::latency(&histogram, limit, failed), histogram: Some(histogram) }
}

fn as_measure(measured: Measured, seconds: f64) -> Measure {
    match measured {
        Measured::Counted { n, k } => Measure::Counted { n, k, seconds },
        Measured::Stale { why, n, k } => Measure::Partial { n, k, seconds, why },
        Measured::NoData(why) => Measure::NoData(why),
        Measured::Error(why) => Measure::Error(why),
    }
}
