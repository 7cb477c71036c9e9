//! Seeded traffic, and how far a simulated share may be from the true one.
#![allow(dead_code, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use canary_stats::special::ln_lower_tail;

/// Requests that are bad with a chance each, drawn by the gaps between bad ones.
pub struct Traffic {
    rng: fastrand::Rng,
}

impl Traffic {
    pub fn seeded(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed) }
    }

    /// Good requests before the next bad one.
    pub fn gap(&mut self, share: f64) -> u64 {
        if share <= 0.0 {
            return u64::MAX / 4;
        }
        if share >= 1.0 {
            return 0;
        }
        ((1.0 - self.rng.f64()).ln() / (-share).ln_1p()) as u64
    }

    /// Bad ones of n requests.
    pub fn bad(&mut self, n: u64, share: f64) -> u64 {
        let (mut at, mut bad) = (self.gap(share), 0);
        while at < n {
            bad += 1;
            at += 1 + self.gap(share);
        }
        bad
    }

    /// Events of a Poisson distribution with a small mean.
    pub fn events(&mut self, mean: f64) -> u64 {
        let (mut time, mut events) = (0.0, 0);
        loop {
            time -= (1.0 - self.rng.f64()).ln();
            if time > mean {
                return events;
            }
            events += 1;
        }
    }

    pub fn uniform(&mut self) -> f64 {
        self.rng.f64()
    }
}

/// Chance of a wrong alarm of each assertion below, had the seed not been fixed.
const MISTAKE: f64 = 1e-5;

/// The most of so many runs that are compatible with a true share of at most this.
pub fn at_most(runs: u32, share: f64) -> u32 {
    let n = f64::from(runs);
    (0..runs).find(|k| ln_lower_tail(f64::from(*k) + 1.0, n - f64::from(*k), share) < MISTAKE.ln()).unwrap_or(runs)
}

/// The fewest of so many runs that are compatible with a true share of at least this.
pub fn at_least(runs: u32, share: f64) -> u32 {
    runs - at_most(runs, 1.0 - share)
}

/// How far a simulated share may be from one that was itself simulated, with `runs` and `theirs` runs: 4.4 standard
/// deviations, as `MISTAKE`.
pub fn tolerance(share: f64, runs: u32, theirs: u32) -> f64 {
    4.4 * (share * (1.0 - share) * (1.0 / f64::from(runs) + 1.0 / f64::from(theirs))).sqrt()
}

/// Asserts that `at` is the `share` quantile of the times, up to the tolerance; a time of `None` is never.
pub fn assert_quantile(what: &str, times: &[Option<u64>], share: f64, at: (f64, f64), theirs: u32) {
    let runs = times.len() as u32;
    let part = |holds: &dyn Fn(f64) -> bool| {
        times.iter().flatten().filter(|time| holds(**time as f64)).count() as f64 / f64::from(runs)
    };
    let (before, until) = (part(&|time| time < at.0), part(&|time| time <= at.1));
    let tolerance = tolerance(share, runs, theirs);
    println!("{what}: {before:.3} before {}, {until:.3} until {}, should be {share} ± {tolerance:.3}", at.0, at.1);
    assert!(before <= share + tolerance && until >= share - tolerance, "{what}");
}

/// The quantile of the times.
pub fn quantile(times: &[Option<u64>], share: f64) -> Option<u64> {
    let mut sorted: Vec<u64> = times.iter().map(|time| time.unwrap_or(u64::MAX)).collect();
    sorted.sort_unstable();
    let at = (share * times.len() as f64).ceil() as usize;
    sorted.get(at.max(1) - 1).copied().filter(|time| *time < u64::MAX)
}
