//! What was counted, checked once: after this nothing is negative, not finite, or more bad than all.
//! Counts of ticks add up. They decide nothing.

use serde::{Deserialize, Serialize};

use crate::error::StatsError;

/// The largest count that a double holds exactly.
const MOST: f64 = 9_007_199_254_740_992.0;

/// Counts that add up over ticks.
pub trait Tally: Clone + Default {
    /// Adds the counts of one more tick.
    fn add(&mut self, tick: &Self);
    /// Bad (or counted) events, not corrected for dispersion.
    fn bad(&self) -> f64;
}

/// A count: finite, not negative, at most 2^53.
pub(crate) fn count(value: f64) -> Result<f64, StatsError> {
    if (0.0..=MOST).contains(&value) { Ok(value) } else { Err(StatsError::Count(value)) }
}

/// Requests, and the bad ones among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawShare")]
pub struct ShareCounts {
    n: f64,
    k: f64,
}

#[derive(Deserialize)]
struct RawShare {
    n: f64,
    k: f64,
}

impl TryFrom<RawShare> for ShareCounts {
    type Error = StatsError;

    fn try_from(raw: RawShare) -> Result<Self, StatsError> {
        Self::new(raw.n, raw.k)
    }
}

impl ShareCounts {
    /// `n` requests, `k` bad ones among them.
    ///
    /// # Errors
    /// Where either is no count, or `k > n`.
    pub fn new(n: f64, k: f64) -> Result<Self, StatsError> {
        let (n, k) = (count(n)?, count(k)?);
        if k > n { Err(StatsError::MoreBadThanAll { bad: k, all: n }) } else { Ok(Self { n, k }) }
    }

    /// Requests.
    #[must_use]
    pub const fn n(&self) -> f64 {
        self.n
    }

    /// Bad requests.
    #[must_use]
    pub const fn k(&self) -> f64 {
        self.k
    }
}

impl Tally for ShareCounts {
    fn add(&mut self, tick: &Self) {
        self.n += tick.n;
        self.k += tick.k;
    }

    fn bad(&self) -> f64 {
        self.k
    }
}

/// Events, and how many the limit allows for the same time and traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawEvents")]
pub struct EventCounts {
    k: f64,
    expected: f64,
}

#[derive(Deserialize)]
struct RawEvents {
    k: f64,
    expected: f64,
}

impl TryFrom<RawEvents> for EventCounts {
    type Error = StatsError;

    fn try_from(raw: RawEvents) -> Result<Self, StatsError> {
        Self::new(raw.k, raw.expected)
    }
}

impl EventCounts {
    /// `k` events where the limit allows `expected`: limit × minutes, × the observed share where the limit is the
    /// whole service's and the events are the canary's.
    ///
    /// # Errors
    /// Where either is no count.
    pub fn new(k: f64, expected: f64) -> Result<Self, StatsError> {
        Ok(Self { k: count(k)?, expected: count(expected)? })
    }

    /// Events.
    #[must_use]
    pub const fn k(&self) -> f64 {
        self.k
    }

    /// Events that the limit allows.
    #[must_use]
    pub const fn expected(&self) -> f64 {
        self.expected
    }
}

impl Tally for EventCounts {
    fn add(&mut self, tick: &Self) {
        self.k += tick.k;
        self.expected += tick.expected;
    }

    fn bad(&self) -> f64 {
        self.k
    }
}
