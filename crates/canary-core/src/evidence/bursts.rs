//! How bursty a gate's events are, measured on the stable pods one by one while nothing else happens. It only
//! measures; the tests of the stages divide by it.

use std::collections::BTreeMap;

use canary_stats::{EventCounts, MeasuredDispersion, ShareCounts};

/// Ticks and pods that are kept; more would tell no more.
const MOST_TICKS: usize = 720;
const MOST_PODS: usize = 64;

/// Counts per pod and tick.
#[derive(Debug, Clone, Default)]
pub(super) struct Bursts {
    pods: BTreeMap<String, Pod>,
}

#[derive(Debug, Clone, Default)]
struct Pod {
    n: f64,
    k: f64,
    ticks: Vec<(f64, f64)>,
}

impl Bursts {
    /// Takes the pods' totals of one tick.
    pub(super) fn absorb(&mut self, pods: &BTreeMap<String, (f64, f64)>, bounded: bool) {
        for (name, (n, k)) in pods {
            if self.pods.len() >= MOST_PODS && !self.pods.contains_key(name) {
                continue;
            }
            let pod = self.pods.entry(name.clone()).or_default();
            let (new_n, new_k) = (n - pod.n, k - pod.k);
            // A tick without traffic is part of the next one; a total that went back tells nothing.
            let sound = new_n > 0.0 && new_k >= 0.0 && !(bounded && new_k > new_n);
            if sound && pod.ticks.len() < MOST_TICKS {
                pod.ticks.push((new_n, new_k));
                (pod.n, pod.k) = (*n, *k);
            }
        }
    }

    /// The dispersion, where anything was counted.
    pub(super) fn measured(&self, bounded: bool) -> Option<MeasuredDispersion> {
        if self.pods.is_empty() {
            return None;
        }
        if bounded {
            let pods: Vec<Vec<ShareCounts>> = self.of(|n, k| ShareCounts::new(n, k).ok());
            return Some(MeasuredDispersion::of_shares(&pods));
        }
        let pods: Vec<Vec<EventCounts>> = self.of(|n, k| EventCounts::new(k, n).ok());
        Some(MeasuredDispersion::of_events(&pods))
    }

    fn of<C>(&self, counts: impl Fn(f64, f64) -> Option<C>) -> Vec<Vec<C>> {
        self.pods.values().map(|pod| pod.ticks.iter().filter_map(|(n, k)| counts(*n, *k)).collect()).collect()
    }
}
