//! The budget of false alarms: how often a healthy release may be rejected, split evenly over gates and stages. By
//! the union bound (Boole) the parts add up to no more than the whole, however the gates depend on each other.

use crate::error::StatsError;

/// A probability of a false alarm, strictly between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Alpha(f64);

impl Alpha {
    /// The usual budget of one release: 5 %.
    pub const RELEASE: Self = Self(0.05);

    /// A probability.
    ///
    /// # Errors
    /// Where it is not strictly between 0 and 1.
    pub fn new(alpha: f64) -> Result<Self, StatsError> {
        if alpha > 0.0 && alpha < 1.0 { Ok(Self(alpha)) } else { Err(StatsError::Probability(alpha)) }
    }

    /// The probability.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Half of it, for a test in two parts.
    #[must_use]
    pub fn half(self) -> Self {
        Self(self.0 / 2.0)
    }

    /// What an e-process must reach: 1/α.
    #[must_use]
    pub fn threshold(self) -> f64 {
        1.0 / self.0
    }

    /// The logarithm of the threshold.
    #[must_use]
    pub fn ln_threshold(self) -> f64 {
        -self.0.ln()
    }

    /// The share of one gate in one stage. Count the gates that claim a probability: a `value` gate takes no share.
    /// Where a gate runs in fewer stages than others its part there stays unspent.
    ///
    /// # Errors
    /// Where there is no gate or no stage.
    pub fn split(self, gates: u32, stages: u32) -> Result<Self, StatsError> {
        if gates == 0 || stages == 0 {
            return Err(StatsError::NothingToSplit);
        }
        Ok(Self(self.0 / (f64::from(gates) * f64::from(stages))))
    }
}
