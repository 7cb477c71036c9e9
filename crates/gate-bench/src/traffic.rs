//! The canary's requests in a simulated release: a fixed number a tick, each bad with the same chance, independently.
//! It knows no gate.

use canary_sim::sample::{mixed, one_by_one};

/// Stages of so much weight, each held for the same time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// The canary's share of the traffic in each stage, above 0 and at most 1.
    pub weights: &'static [f64],
    /// Ticks of one stage, at least 1.
    pub ticks: u64,
    /// Seconds from one tick to the next.
    pub tick_seconds: u64,
}

impl Plan {
    /// 1, 5, 25, 50 and 100 %, five minutes each, a tick every ten seconds.
    pub const USUAL: Self = Self { weights: &[0.01, 0.05, 0.25, 0.5, 1.0], ticks: 30, tick_seconds: 10 };
}

/// One tick of the canary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tick {
    /// Index of the stage, from 0.
    pub stage: usize,
    /// Index of the tick in its stage, from 0.
    pub tick: u64,
    /// Requests since the tick before.
    pub requests: u64,
    /// Bad ones among them.
    pub bad: u64,
}

/// The ticks of one release, from the first stage to the last; the same for the same seed.
#[derive(Debug, Clone)]
pub struct Release {
    plan: Plan,
    rps: f64,
    share: f64,
    rng: fastrand::Rng,
    /// Of a request that is not whole yet.
    due: f64,
    stage: usize,
    tick: u64,
    /// Ticks of this stage.
    ticks: u64,
}

impl Release {
    /// A release with so many requests a second to both sides together, of which the canary's are bad with the chance
    /// `share`, 0 to 1.
    #[must_use]
    pub fn new(plan: Plan, rps: u32, share: f64, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(mixed(&[seed, u64::from(rps), share.to_bits()]));
        Self { plan, rps: f64::from(rps), share, rng, due: 0.0, stage: 0, tick: 0, ticks: plan.ticks }
    }

    /// Holds the present stage for as long again as was planned.
    pub fn extend(&mut self) {
        self.ticks = self.ticks.saturating_add(self.plan.ticks);
    }
}

impl Iterator for Release {
    type Item = Tick;

    fn next(&mut self) -> Option<Tick> {
        if self.tick == self.ticks {
            (self.stage, self.tick, self.ticks) = (self.stage.saturating_add(1), 0, self.plan.ticks);
        }
        let weight = *self.plan.weights.get(self.stage)?;
        // A sum of tenths that should be whole must not lose a request to rounding.
        self.due += self.rps * weight * self.plan.tick_seconds as f64 + 1e-9;
        let requests = self.due.floor();
        self.due -= requests;
        let requests = requests as u64;
        let tick =
            Tick { stage: self.stage, tick: self.tick, requests, bad: one_by_one(&mut self.rng, requests, self.share) };
        self.tick = self.tick.saturating_add(1);
        Some(tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canary_gets_its_weight_of_the_traffic_in_each_stage() {
        for rps in [10, 100, 10_000] {
            let mut requests = [0_u64; 5];
            let ticks: Vec<Tick> = Release::new(Plan::USUAL, rps, 0.01, 3).collect();
            for tick in &ticks {
                requests[tick.stage] += tick.requests;
            }
            assert_eq!(ticks.len(), 150);
            assert_eq!(requests, [3, 15, 75, 150, 300].map(|n| n * u64::from(rps)));
        }
        // 0.1 requests a tick: one every ten ticks.
        let plan = Plan { tick_seconds: 1, ..Plan::USUAL };
        assert_eq!(Release::new(plan, 10, 0.01, 3).take(30).map(|tick| tick.requests).sum::<u64>(), 3);
    }

    #[test]
    fn a_stage_that_is_extended_lasts_twice_and_the_next_one_as_planned() {
        let mut release = Release::new(Plan::USUAL, 100, 0.01, 3);
        release.next();
        release.extend();
        let ticks: Vec<Tick> = release.collect();
        assert_eq!(ticks.iter().filter(|tick| tick.stage == 0).count(), 59);
        assert_eq!(ticks.iter().filter(|tick| tick.stage == 1).count(), 30);
    }

    #[test]
    fn a_release_is_the_same_for_the_same_seed_and_another_for_another() {
        let release = |seed| Release::new(Plan::USUAL, 1000, 0.02, seed).collect::<Vec<_>>();
        assert_eq!(release(1), release(1));
        assert_ne!(release(1), release(2));
    }
}
