//! Warm-up: what a pod counts in its first seconds of traffic is kept out of what is judged. Decides which counts those
//! are, pod by pod and to the sample; it never decides whether a gate has a warm-up, and never whether a pod is good.
//!
//! A pod warms up once. Its first count begins the time, whichever window that was in; a container that restarts does
//! not begin it anew, else one that crashes again and again would never be judged.

use std::collections::BTreeMap;

use crate::counts::Reading;
use crate::histogram::{Boundary, HistogramReading};

/// One gate's warm-up on one side, across ticks and windows.
#[derive(Debug, Clone, Default)]
pub struct WarmUp {
    length_ms: i64,
    since_ms: Option<i64>,
    /// By counter and pod, in this window.
    known: BTreeMap<(String, String), Known>,
}

/// What a pod counted, as far as it is too long ago to be read again.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Before its first request.
    before: f64,
    /// From then to the end of its warm-up.
    left_out: f64,
}

impl WarmUp {
    /// A warm-up of so many milliseconds; 0 leaves nothing out.
    #[must_use]
    pub fn new(length_ms: i64) -> Self {
        Self { length_ms, since_ms: None, known: BTreeMap::new() }
    }

    /// Makes it longer or shorter from now on.
    pub fn set_length(&mut self, length_ms: i64) {
        self.length_ms = length_ms;
    }

    /// Whether it leaves nothing out.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.length_ms <= 0
    }

    /// A counter without what its pods counted while they warmed up. `basis` counts all requests: a pod's time begins
    /// with its first one there, and a pod without any there is left as it is. Give every reading of a counter, tick by
    /// tick: what was counted up to the end is known exactly only while its samples are within the lookback.
    #[must_use]
    pub fn judged(&mut self, basis: &Reading, reading: &Reading) -> Reading {
        if self.is_none() {
            return reading.clone();
        }
        if self.since_ms != Some(reading.since_ms) {
            self.known.clear();
            self.since_ms = Some(reading.since_ms);
        }
        let mut judged = reading.clone();
        for (name, pod) in &mut judged.pods {
            let Some(began) = basis.pods.get(name).and_then(|pod| pod.traffic_from_ms) else { continue };
            let warm_from = began.saturating_add(self.length_ms);
            let known = self.known.entry((reading.counter.clone(), name.clone())).or_default();
            if began > reading.exact_from_ms {
                known.before = pod.total_at(began.saturating_sub(1));
            }
            if warm_from >= reading.exact_from_ms {
                known.left_out = (pod.total_at(warm_from) - known.before).max(0.0);
            }
            pod.leave_out(warm_from, known.left_out);
        }
        judged
    }

    /// The same for a histogram; its own count of all requests is the basis.
    #[must_use]
    pub fn judged_histogram(&mut self, reading: &HistogramReading) -> HistogramReading {
        let boundaries = reading.boundaries.iter().map(|boundary| {
            let not_failed = boundary.fast_and_not_failed.as_ref();
            Boundary {
                le: boundary.le,
                fast: self.judged(&reading.total, &boundary.fast),
                fast_and_not_failed: not_failed.map(|good| self.judged(&reading.total, good)),
            }
        });
        let boundaries = boundaries.collect();
        HistogramReading {
            total: self.judged(&reading.total, &reading.total),
            boundaries,
            needs_failed: reading.needs_failed,
            native: reading.native,
        }
    }
}
