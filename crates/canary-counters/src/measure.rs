//! What a gate's counters come to at one tick: counted, or why not. Decides what may be judged;
//! the verdict is the kernel's.

use crate::counts::{CounterError, PodReading, PodState, Reading};

/// A gate's figures at one tick, since its window began.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    /// Complete and fresh.
    Counted {
        /// Of how many: requests; for `eventRate` minutes.
        n: f64,
        /// How many bad ones.
        k: f64,
    },
    /// There is nothing to judge by.
    NoData(String),
    /// Some pod's samples are late or missing. What is counted is real: it may prove a breach,
    /// and never a pass.
    Stale {
        /// Which pod, and since when.
        why: String,
        /// As in `Counted`, as far as known.
        n: f64,
        /// As in `Counted`, as far as known.
        k: f64,
    },
    /// The answer makes no sense.
    Error(String),
}

impl From<CounterError> for Measured {
    fn from(error: CounterError) -> Self {
        Self::Error(error.to_string())
    }
}

impl Measured {
    /// The counts, where there are any; also of a stale tick.
    #[must_use]
    pub fn counts(&self) -> Option<(f64, f64)> {
        match self {
            Self::Counted { n, k } | Self::Stale { n, k, .. } => Some((*n, *k)),
            Self::NoData(_) | Self::Error(_) => None,
        }
    }

    /// The counts, where a pass may rest on them.
    #[must_use]
    pub fn complete(&self) -> Option<(f64, f64)> {
        match self {
            Self::Counted { n, k } => Some((*n, *k)),
            Self::NoData(_) | Self::Stale { .. } | Self::Error(_) => None,
        }
    }

    /// Why there is nothing to judge by, or not all.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Counted { .. } => None,
            Self::NoData(why) | Self::Stale { why, .. } | Self::Error(why) => Some(why),
        }
    }
}

/// `errorRate`: bad of total. Bad is counted, pod by pod, up to the newest sample of the total, so
/// that two answers that caught different scrapes still speak of the same requests.
#[must_use]
pub fn share(total: &Reading, bad: &Reading) -> Measured {
    let mut n = 0.0;
    let mut k = 0.0;
    for (name, pod) in &total.pods {
        let Some(newest) = pod.newest_ms else { continue };
        let pod_k = bad.pods.get(name).map_or(0.0, |bad| bad.total_at(newest));
        if exceeds(pod_k, pod.total) {
            return Measured::Error(more_bad_than_all(bad, total, name, pod_k, pod.total));
        }
        n += pod.total;
        k += pod_k;
    }
    // A young pod may have been caught by one answer and not yet by the other.
    for (name, pod) in &bad.pods {
        let missing =
            total.pods.get(name).is_none_or(|total| total.newest_ms.is_none() && total.state != PodState::Young);
        if pod.total > 0.0 && missing {
            return Measured::Error(more_bad_than_all(bad, total, name, pod.total, 0.0));
        }
    }
    conclude(total, n, k, n)
}

/// `eventRate`: `k` events in `n` minutes. `witness` is a counter that every pod has, such as the
/// requests: it tells "no event yet" from "no data".
#[must_use]
pub fn event_rate(events: &Reading, witness: Option<&Reading>) -> Measured {
    let present = witness.unwrap_or(events);
    if witness.is_none() && !events.has_series() {
        return Measured::NoData(format!(
            "{} has no series, and without a counter of requests (traffic.requests) no event can't be told from no data",
            events.counter
        ));
    }
    let newest = present.newest_ms().max(events.newest_ms());
    let minutes = newest.map_or(0.0, |at| minutes_of(at.saturating_sub(events.since_ms).max(0)));
    conclude(present, minutes, events.total(), minutes)
}

/// The verdict on freshness, common to all gates: `basis` is the counter that must be there.
pub(crate) fn conclude(basis: &Reading, n: f64, k: f64, enough: f64) -> Measured {
    let expected: Vec<(&String, &PodReading)> =
        basis.pods.iter().filter(|(_, pod)| pod.state != PodState::Gone).collect();
    let late: Vec<String> = late(&expected);
    if !basis.has_series() {
        return Measured::NoData(format!("{} has no series{}", basis.counter, of_pods(&expected)));
    }
    if !late.is_empty() && !(addresses_replaced(basis)) {
        return Measured::Stale { why: format!("{}: {}", basis.counter, some(&late)), n, k };
    }
    if enough <= 0.0 {
        return Measured::NoData(format!("{} counted nothing yet", basis.counter));
    }
    Measured::Counted { n, k }
}

fn late(expected: &[(&String, &PodReading)]) -> Vec<String> {
    expected
        .iter()
        .filter_map(|(name, pod)| match pod.state {
            PodState::Stale { age_ms } => {
                Some(format!("the newest sample of {name} is {} s old", age_ms.saturating_div(1000)))
            }
            PodState::Absent => Some(format!("{name} has no samples")),
            PodState::Fresh | PodState::Young | PodState::Gone => None,
        })
        .collect()
}

/// A gateway's replaced pods leave their address behind; one fresh address is enough there. Pods
/// are told apart from addresses by being expected by name.
fn addresses_replaced(basis: &Reading) -> bool {
    basis.whole && basis.pods.values().any(|pod| pod.state == PodState::Fresh)
}

fn of_pods(expected: &[(&String, &PodReading)]) -> String {
    if expected.is_empty() {
        return String::new();
    }
    let names: Vec<String> = expected.iter().map(|(name, _)| (*name).clone()).collect();
    format!(" of {}", some(&names))
}

/// At most three, and how many more.
fn some(items: &[String]) -> String {
    let shown: Vec<&str> = items.iter().take(3).map(String::as_str).collect();
    let rest = items.len().saturating_sub(shown.len());
    if rest == 0 { shown.join(", ") } else { format!("{} and {rest} more", shown.join(", ")) }
}

/// Greater by more than rounding.
pub(crate) fn exceeds(part: f64, whole: f64) -> bool {
    part > whole + 1e-6 * whole.max(1.0)
}

pub(crate) fn more_bad_than_all(bad: &Reading, total: &Reading, pod: &str, k: f64, n: f64) -> String {
    format!(
        "{pod}: {} counts {k} where {} counts {n}; the first must be a part of the second",
        bad.counter, total.counter
    )
}

fn minutes_of(ms: i64) -> f64 {
    // Exact up to 2^53 ms.
    #[allow(clippy::cast_precision_loss)]
    let ms = ms as f64;
    ms / 60_000.0
}
