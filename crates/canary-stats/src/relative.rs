//! The canary compared with the stable side at the same time. [`Relative`] is evidence that the canary's events per
//! request exceed (1 + margin) times the stable side's. [`Routing`] asks the same of the requests themselves: whether
//! the canary gets the share of them that was configured. What is common to both sides cancels out.
//!
//! Given all events of a tick and the share ρ of its requests that the canary took, an event is the canary's with
//! probability θ(R) = ρR / (ρR + 1 - ρ) where R is the ratio of the sides' rates (conditioning on the total:
//! Przyborowski and Wilenski 1940). The share moves from tick to tick, so each tick's likelihood ratio uses its
//! own: a share pooled over ticks in which the common rate moved too would invent evidence. The ratios multiply, and
//! are mixed over a grid of R (Robbins 1970).

use serde::{Deserialize, Serialize};

use crate::counts::{Tally, count};
use crate::error::StatsError;
use crate::process::{Dispersion, Process};
use crate::special::ln_sum_exp;

const GRID: usize = 5;
const RATIOS: [f64; GRID] = [1.5, 2.0, 3.0, 5.0, 10.0];

/// Both sides' events, and what each alternative makes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawPaired")]
pub struct PairedCounts {
    canary: f64,
    all: f64,
    /// Of the canary, if it were at the limit.
    expected: f64,
    ln_ratios: [f64; GRID],
}

#[derive(Deserialize)]
struct RawPaired {
    canary: f64,
    all: f64,
    expected: f64,
    ln_ratios: [f64; GRID],
}

impl TryFrom<RawPaired> for PairedCounts {
    type Error = StatsError;

    fn try_from(raw: RawPaired) -> Result<Self, StatsError> {
        let (canary, all) = events(raw.canary, raw.all)?;
        if let Some(ln) = raw.ln_ratios.iter().find(|ln| !ln.is_finite()) {
            return Err(StatsError::Count(*ln));
        }
        Ok(Self { canary, all, expected: count(raw.expected)?, ln_ratios: raw.ln_ratios })
    }
}

/// Events of the canary among all.
fn events(canary: f64, all: f64) -> Result<(f64, f64), StatsError> {
    let (canary, all) = (count(canary)?, count(all)?);
    if canary > all { Err(StatsError::MoreBadThanAll { bad: canary, all }) } else { Ok((canary, all)) }
}

impl PairedCounts {
    /// Events of the canary.
    #[must_use]
    pub const fn canary(&self) -> f64 {
        self.canary
    }

    /// Events of both sides.
    #[must_use]
    pub const fn all(&self) -> f64 {
        self.all
    }

    /// Events of the canary, had it been at the limit.
    #[must_use]
    pub const fn expected(&self) -> f64 {
        self.expected
    }
}

impl Tally for PairedCounts {
    fn add(&mut self, tick: &Self) {
        self.canary += tick.canary;
        self.all += tick.all;
        self.expected += tick.expected;
        for (sum, new) in self.ln_ratios.iter_mut().zip(tick.ln_ratios) {
            *sum += new;
        }
    }

    fn bad(&self) -> f64 {
        self.canary
    }
}

/// One tick against a grid of alternatives: `ratio` is the limit, the alternatives are `ratio * factors`.
fn tick(canary: f64, all: f64, share: f64, ratio: f64, factors: [f64; GRID]) -> Result<PairedCounts, StatsError> {
    let (canary, all) = events(canary, all)?;
    if !(share > 0.0 && share < 1.0) {
        return Err(StatsError::Share(share));
    }
    let limit = share * ratio / (share * ratio + 1.0 - share);
    let ln_ratios = factors.map(|factor| canary * factor.ln() - all * (limit * (factor - 1.0)).ln_1p());
    Ok(PairedCounts { canary, all, expected: all * limit, ln_ratios })
}

fn mixture(counts: &PairedCounts, phi: Dispersion) -> f64 {
    if counts.all <= 0.0 {
        return 0.0;
    }
    ln_sum_exp(counts.ln_ratios.iter().map(|ln| ln / phi.get())) - (GRID as f64).ln()
}

/// Evidence that the canary's rate is more than (1 + margin) times the stable side's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relative {
    ratio: f64,
    phi: Dispersion,
}

impl Relative {
    /// A test with a margin: 0.1 allows 10 % more than stable.
    ///
    /// # Errors
    /// Where the margin is negative or not finite.
    pub fn new(margin: f64) -> Result<Self, StatsError> {
        if !(0.0..=1e6).contains(&margin) {
            return Err(StatsError::Rate(margin));
        }
        Ok(Self { ratio: 1.0 + margin, phi: Dispersion::NONE })
    }

    /// The same test on counts divided by a dispersion.
    #[must_use]
    pub fn dispersed(self, phi: Dispersion) -> Self {
        Self { phi, ..self }
    }

    /// The greatest ratio of the rates that is allowed.
    #[must_use]
    pub const fn ratio(&self) -> f64 {
        self.ratio
    }

    /// One tick: events of the canary, of both sides, and the canary's observed share of the requests, all three
    /// of the same time.
    ///
    /// # Errors
    /// Where a number is no count, the canary has more events than both, or the share is not strictly between 0
    /// and 1: then the tick compares nothing.
    pub fn tick(&self, canary: f64, all: f64, share: f64) -> Result<PairedCounts, StatsError> {
        tick(canary, all, share, self.ratio, RATIOS)
    }
}

impl Process for Relative {
    type Counts = PairedCounts;

    fn log_e(&self, counts: &PairedCounts) -> f64 {
        mixture(counts, self.phi)
    }

    fn above_limit(&self, counts: &PairedCounts) -> bool {
        counts.canary > counts.expected
    }
}

/// Which way the requests miss the configured weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misrouted {
    /// The canary gets less than its weight.
    TooFew,
    /// The canary gets more than its weight.
    TooMany,
}

/// Evidence that the canary's share of the requests is not the configured one: a fault of the routing, not of the candidate.
///
/// A tolerance is needed: with many requests any rounding of weights, or a kept-alive connection, is "significant".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    weight: f64,
    ratio: f64,
    side: Misrouted,
    phi: Dispersion,
}

impl Routing {
    /// A test in one direction: odds up to (1 + tolerance) times those of the weight are fine, either way.
    ///
    /// # Errors
    /// Where the weight is not strictly between 0 and 1 or the tolerance negative or not finite.
    pub fn new(weight: f64, tolerance: f64, side: Misrouted) -> Result<Self, StatsError> {
        if !(weight > 0.0 && weight < 1.0) {
            return Err(StatsError::Share(weight));
        }
        if !(0.0..=1e6).contains(&tolerance) {
            return Err(StatsError::Rate(tolerance));
        }
        let ratio = match side {
            Misrouted::TooMany => 1.0 + tolerance,
            Misrouted::TooFew => 1.0 / (1.0 + tolerance),
        };
        Ok(Self { weight, ratio, side, phi: Dispersion::NONE })
    }

    /// The same test on counts divided by a dispersion; gateways send requests of one connection to one side.
    #[must_use]
    pub fn dispersed(self, phi: Dispersion) -> Self {
        Self { phi, ..self }
    }

    /// One tick: requests of the canary and of both sides.
    ///
    /// # Errors
    /// Where a number is no count or the canary has more requests than both.
    pub fn tick(&self, canary: f64, all: f64) -> Result<PairedCounts, StatsError> {
        let factors = match self.side {
            Misrouted::TooMany => RATIOS,
            Misrouted::TooFew => RATIOS.map(f64::recip),
        };
        tick(canary, all, self.weight, self.ratio, factors)
    }
}

impl Process for Routing {
    type Counts = PairedCounts;

    fn log_e(&self, counts: &PairedCounts) -> f64 {
        mixture(counts, self.phi)
    }

    fn above_limit(&self, counts: &PairedCounts) -> bool {
        match self.side {
            Misrouted::TooMany => counts.canary > counts.expected,
            Misrouted::TooFew => counts.canary < counts.expected,
        }
    }
}
