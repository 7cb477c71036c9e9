//! Intervals for a share, to be shown beside a verdict. They hold for one look at a number of requests fixed before,
//! so they never decide anything here.

use crate::counts::ShareCounts;
use crate::error::StatsError;
use crate::special::{ln_lower_tail, ln_upper_tail, normal_deviate};

/// A two-sided interval of a share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end, 0 to 1.
    pub low: f64,
    /// The upper end, 0 to 1.
    pub high: f64,
}

impl Interval {
    const ALL: Self = Self { low: 0.0, high: 1.0 };
}

fn tail(confidence: f64) -> Result<f64, StatsError> {
    if confidence > 0.0 && confidence < 1.0 {
        Ok((1.0 - confidence) / 2.0)
    } else {
        Err(StatsError::Probability(confidence))
    }
}

/// Wilson's score interval (Wilson 1927), `confidence` such as 0.95. The whole line for no requests.
///
/// # Errors
/// Where the confidence is not strictly between 0 and 1.
pub fn wilson(counts: &ShareCounts, confidence: f64) -> Result<Interval, StatsError> {
    let z = normal_deviate(tail(confidence)?);
    let (n, k) = (counts.n(), counts.k());
    if n <= 0.0 {
        return Ok(Interval::ALL);
    }
    let z2 = z * z;
    let share = k / n;
    let centre = share + z2 / (2.0 * n);
    let spread = z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    let low = if k <= 0.0 { 0.0 } else { ((centre - spread) / scale).max(0.0) };
    let high = if k >= n { 1.0 } else { ((centre + spread) / scale).min(1.0) };
    Ok(Interval { low, high })
}

/// The exact interval (Clopper and Pearson 1934), `confidence` such as 0.95. The whole line for no requests.
///
/// # Errors
/// Where the confidence is not strictly between 0 and 1.
pub fn clopper_pearson(counts: &ShareCounts, confidence: f64) -> Result<Interval, StatsError> {
    let level = tail(confidence)?.ln();
    let (n, k) = (counts.n(), counts.k());
    if n <= 0.0 {
        return Ok(Interval::ALL);
    }
    let low = if k <= 0.0 { 0.0 } else { share_where(|p| ln_lower_tail(k, n - k + 1.0, p) < level) };
    let high = if k >= n { 1.0 } else { share_where(|p| ln_upper_tail(k + 1.0, n - k, p) > level) };
    Ok(Interval { low, high })
}

/// The share up to which something holds, by bisection of the log odds.
pub(crate) fn share_where(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (-60.0_f64, 36.0_f64);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if holds(share(middle)) {
            low = middle;
        } else {
            high = middle;
        }
    }
    share(0.5 * (low + high))
}

fn share(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}
