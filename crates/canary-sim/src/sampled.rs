//! Traffic drawn at random: requests that come evenly, of which each is bad with the same chance, and events that come
//! by chance (Poisson). It knows the gates' levels and no limit.

use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;

use crate::{
    cluster::PODS,
    level::{Amount, Levels, Since},
    sample,
    traffic::{AllTotals, GateTotals, Split, Traffic},
};

/// Requests that come evenly, in whole numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Arrivals {
    /// Of a request that is not whole yet.
    due: f64,
}

impl Arrivals {
    fn take(&mut self, requests: f64) -> u64 {
        // A sum of tenths that should be whole must not lose a request to rounding.
        self.due += requests + 1e-9;
        let whole = self.due.floor();
        self.due -= whole;
        whole as u64
    }
}

/// Sampled traffic of one release.
#[derive(Debug, Clone)]
pub struct Sampled {
    rng: Rng,
    rps: f64,
    levels: Levels,
    began: Timestamp,
    canary: Arrivals,
    stable: Arrivals,
    pods: Vec<(String, Arrivals)>,
    totals: AllTotals,
    /// When the candidate first had traffic with a fault in it.
    faulty_since: Option<Duration>,
}

impl Sampled {
    pub(crate) fn new(levels: Levels, rps: f64, seed: u64, began: Timestamp) -> Self {
        let gates = levels.healthy.iter().map(|healthy| {
            let number = if let Amount::Number(number) = healthy { Some(*number) } else { None };
            GateTotals { number, ..GateTotals::default() }
        });
        Self {
            rng: Rng::with_seed(seed),
            rps,
            began,
            canary: Arrivals::default(),
            stable: Arrivals::default(),
            pods: (0..PODS).map(|number| (format!("stable-{number}"), Arrivals::default())).collect(),
            totals: AllTotals { gates: gates.collect(), ..AllTotals::default() },
            faulty_since: None,
            levels,
        }
    }

    /// When, after the release began, the candidate first had traffic with a fault in it.
    #[must_use]
    pub const fn faulty_since(&self) -> Option<Duration> {
        self.faulty_since
    }

    fn elapsed(&self, at: Timestamp) -> Duration {
        Duration::try_from(at.duration_since(self.began)).unwrap_or(Duration::ZERO)
    }

    /// The first instant within the span at which a fault begins by the clock.
    fn next_fault(&self, from: Timestamp, to: Timestamp) -> Option<Timestamp> {
        let begins = self.levels.faults.iter().flatten().filter_map(|(since, _)| match since {
            Since::After(time) => self.began.checked_add(*time).ok(),
            Since::Stage(_) => None,
        });
        begins.filter(|at| *at > from && *at < to).min()
    }

    fn span(&mut self, from: Timestamp, to: Timestamp, split: &Split) {
        let seconds = Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO).as_secs_f64();
        let elapsed = self.elapsed(from);
        let begun = |since: &Since| match since {
            Since::Stage(stage) => split.share > 0.0 && split.stage.saturating_add(1) >= *stage,
            Since::After(time) => elapsed >= *time,
        };
        let requests = self.rps * seconds;
        let to_canary = self.canary.take(requests * split.share);
        self.totals.canary_requests += to_canary as f64;
        let to_pods: Vec<u64> = if split.baseline {
            let each = requests * (1.0 - split.share) / self.pods.len().max(1) as f64;
            self.pods.iter_mut().map(|(_, arrivals)| arrivals.take(each)).collect()
        } else {
            vec![self.stable.take(requests * (1.0 - split.share))]
        };
        self.totals.stable_requests += to_pods.iter().fold(0_u64, |sum, n| sum.saturating_add(*n)) as f64;
        for ((totals, healthy), faults) in
            self.totals.gates.iter_mut().zip(&self.levels.healthy).zip(&self.levels.faults)
        {
            let fault = faults.iter().rev().find(|(since, _)| begun(since)).map(|(_, amount)| *amount);
            if fault.is_some() && split.share > 0.0 && self.faulty_since.is_none() {
                self.faulty_since = Some(elapsed);
            }
            let of_canary = fault.unwrap_or(*healthy);
            if let Amount::Number(number) = of_canary {
                totals.number = Some(number);
            }
            let k = drawn(&mut self.rng, of_canary, to_canary, seconds * split.share);
            totals.canary.add(to_canary as f64, k);
            let part = seconds * (1.0 - split.share) / to_pods.len().max(1) as f64;
            for ((pod, _), n) in self.pods.iter().zip(&to_pods) {
                let k = drawn(&mut self.rng, *healthy, *n, part);
                totals.stable.add(*n as f64, k);
                if split.baseline {
                    totals.stable_pods.entry(pod.clone()).or_default().add(*n as f64, k);
                }
            }
        }
    }
}

fn drawn(rng: &mut Rng, amount: Amount, requests: u64, seconds: f64) -> f64 {
    match amount {
        Amount::Share(share) => sample::bad(rng, requests, share) as f64,
        Amount::PerSecond(rate) => sample::events(rng, rate * seconds) as f64,
        Amount::Number(_) => 0.0,
    }
}

impl Traffic for Sampled {
    fn advance(&mut self, from: Timestamp, to: Timestamp, split: &Split) {
        let mut from = from;
        while let Some(begins) = self.next_fault(from, to) {
            self.span(from, begins, split);
            from = begins;
        }
        if to > from {
            self.span(from, to, split);
        }
    }

    fn totals(&self) -> &AllTotals {
        &self.totals
    }
}
