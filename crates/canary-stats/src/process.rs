//! What every sequential test here is: a process that starts at 1 and, while the limit holds, is a non-negative
//! supermartingale, so that the chance of it ever reaching 1/α is at most α (Ville's inequality; Ville 1939). It may
//! be looked at as often as one likes. It knows no time and decides nothing by itself.

use crate::counts::Tally;
use crate::error::StatsError;

/// An e-process as a function of summed counts.
pub trait Process {
    /// What it is a function of.
    type Counts: Tally;

    /// The logarithm of the process; 0 for no counts, never NaN.
    fn log_e(&self, counts: &Self::Counts) -> f64;

    /// Whether the plain estimate is above the limit.
    fn above_limit(&self, counts: &Self::Counts) -> bool;
}

/// By how much counts are divided because their events come in bursts: 1 to 10.
///
/// With a dispersion above 1 the rate of false alarms is calibrated, no longer guaranteed: bursts break the
/// independence of requests, and dividing the counts (quasi-likelihood; Wedderburn 1974, McCullagh and Nelder 1989)
/// mends the variance, not the whole distribution.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Dispersion(f64);

impl Dispersion {
    /// Independent events.
    pub const NONE: Self = Self(1.0);
    /// The greatest that is believed.
    pub const MOST: Self = Self(10.0);

    /// A dispersion that someone chose.
    ///
    /// # Errors
    /// Outside 1 to 10.
    pub fn new(phi: f64) -> Result<Self, StatsError> {
        if (Self::NONE.0..=Self::MOST.0).contains(&phi) { Ok(Self(phi)) } else { Err(StatsError::Dispersion(phi)) }
    }

    /// A measured dispersion, brought into 1 to 10.
    #[must_use]
    pub fn measured(phi: f64) -> Self {
        if phi.is_nan() { Self::NONE } else { Self(phi.clamp(Self::NONE.0, Self::MOST.0)) }
    }

    /// The divisor.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Whether the rate of false alarms is guaranteed, not just calibrated.
    #[must_use]
    pub fn guaranteed(self) -> bool {
        self.0 <= 1.0
    }
}

impl Default for Dispersion {
    fn default() -> Self {
        Self::NONE
    }
}
