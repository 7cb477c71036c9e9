//! Decides how latencies are kept: counts in buckets whose width grows with the value, so that memory
//! is bounded and a percentile is at most 1/32 (3.2 %) above the true one, never below.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets for each doubling.
const STEPS: u64 = 32;
const STEPS_LOG2: u32 = 5;

/// Latencies of many answers. Microseconds; anything above about 71 minutes counts as that.
#[derive(Debug, Clone, Default)]
pub struct Latency {
    counts: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Latency {
    /// Adds one answer's latency.
    pub fn add(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
        let bucket = bucket_of(us);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket.saturating_add(1), 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        self.max_us = self.max_us.max(us);
    }

    /// How many were added.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The percentiles; `None` without an answer.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        Some(Percentiles {
            p50_ms: self.quantile_ms(50)?,
            p95_ms: self.quantile_ms(95)?,
            p99_ms: self.quantile_ms(99)?,
            max_ms: milliseconds(self.max_us),
        })
    }

    /// The value that `percent` of the answers did not exceed, in milliseconds, rounded up.
    fn quantile_ms(&self, percent: u64) -> Option<f64> {
        let rank = self.count.checked_mul(percent)?.div_ceil(100).max(1);
        let mut below = 0_u64;
        for (bucket, count) in self.counts.iter().enumerate() {
            below = below.saturating_add(*count);
            if below >= rank {
                return Some(milliseconds(upper_bound(bucket).min(self.max_us)));
            }
        }
        None
    }
}

/// Percentiles of the answers' latencies, in milliseconds from the time the request was due.
/// The timer that sends wakes once a millisecond, so about 1 ms of each is the client's own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// Values below [`STEPS`] have a bucket each; above, each doubling has [`STEPS`] buckets.
fn bucket_of(us: u64) -> usize {
    let octave = us.checked_ilog2().unwrap_or(0).saturating_sub(STEPS_LOG2);
    let within = us >> octave;
    let bucket = u64::from(octave).saturating_mul(STEPS).saturating_add(within);
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

/// Largest value that falls into `bucket`.
fn upper_bound(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
    let octave = bucket.div_euclid(STEPS).saturating_sub(1);
    let within = bucket.saturating_sub(octave.saturating_mul(STEPS));
    let octave = u32::try_from(octave).unwrap_or(u32::MAX);
    within.saturating_add(1).checked_shl(octave).unwrap_or(u64::MAX).saturating_sub(1)
}

fn milliseconds(us: u64) -> f64 {
    // At most u32::MAX: exact.
    #[allow(clippy::cast_precision_loss)]
    let us = us as f64;
    us / 1000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_percentile_is_never_below_and_at_most_a_thirty_second_above() {
        for us in (0..5_000).chain((1..32).map(|bit| (1_u64 << bit) + 7)) {
            let bucket = bucket_of(us);
            let upper = upper_bound(bucket);
            assert!(upper >= us, "{us} {upper}");
            assert!(upper - us <= us / 32, "{us} {upper}");
            assert_eq!(bucket_of(upper + 1), bucket + 1, "{us}");
        }
    }

    #[test]
    fn percentiles_are_ranks() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentiles(), None);
        for ms in 1..=100 {
            latency.add(Duration::from_millis(ms));
        }
        let found = latency.percentiles().unwrap();
        assert!((50.0..=51.6).contains(&found.p50_ms), "{found:?}");
        assert!((95.0..=98.0).contains(&found.p95_ms), "{found:?}");
        assert!((99.0..=100.0).contains(&found.p99_ms), "{found:?}");
        assert_eq!(found.max_ms, 100.0);
    }

    #[test]
    fn an_endless_latency_stays_finite() {
        let mut latency = Latency::default();
        latency.add(Duration::MAX);
        assert!(latency.percentiles().unwrap().max_ms.is_finite());
        assert!(latency.counts.len() < 1_000);
    }
}
