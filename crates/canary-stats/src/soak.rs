//! Watching a version that has been promoted: a change detector. A watch has no end, so it has no chance of a false
//! alarm to keep within a budget, but a mean time between false alarms. It only watches; it knows no stage and no verdict.
//!
//! For each alternative SR ← (SR + 1) · L with the tick's likelihood ratio L (Shiryaev 1963, Roberts 1966). While the
//! limit holds SR less the ticks is a supermartingale, and so is the mean over alternatives; an alarm at A therefore
//! comes after at least A ticks on average (as an e-detector: Shin, Ramdas and Rinaldo 2022).

use crate::counts::{EventCounts, ShareCounts};
use crate::error::StatsError;
use crate::process::Dispersion;
use crate::special::ln_sum_exp;

const GRID: usize = 4;
const RATIOS: [f64; GRID] = [1.5, 2.0, 4.0, 10.0];

/// A change detector of one gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChangeDetector {
    /// ln SR of each alternative.
    ln: [f64; GRID],
    ln_alarm: f64,
    phi: Dispersion,
}

impl ChangeDetector {
    /// A detector with at least so many ticks between false alarms, on average.
    ///
    /// # Errors
    /// Where that is not at least 1 tick.
    pub fn new(ticks_between_false_alarms: f64, phi: Dispersion) -> Result<Self, StatsError> {
        if !(1.0..=1e15).contains(&ticks_between_false_alarms) {
            return Err(StatsError::Rate(ticks_between_false_alarms));
        }
        Ok(Self { ln: [f64::NEG_INFINITY; GRID], ln_alarm: ticks_between_false_alarms.ln(), phi })
    }

    /// One tick of requests against the limit of their bad share, alternatives being multiples of its odds; whether it
    /// is an alarm. After an alarm the detector goes on; a new watch is a new detector.
    ///
    /// # Errors
    /// Where the limit is not strictly between 0 and 1.
    pub fn push_share(&mut self, tick: &ShareCounts, limit: f64) -> Result<bool, StatsError> {
        if !(limit > 0.0 && limit < 1.0) {
            return Err(StatsError::Limit(limit));
        }
        Ok(self.push(|ratio| tick.k() * ratio.ln() - tick.n() * (limit * (ratio - 1.0)).ln_1p()))
    }

    /// One tick of events; whether it is an alarm.
    pub fn push_events(&mut self, tick: &EventCounts) -> bool {
        self.push(|ratio| tick.k() * ratio.ln() - (ratio - 1.0) * tick.expected())
    }

    fn push(&mut self, ln_ratio: impl Fn(f64) -> f64) -> bool {
        for (ln, ratio) in self.ln.iter_mut().zip(RATIOS) {
            // ln(SR + 1), whichever is larger.
            let one_more = if *ln > 0.0 { *ln + (-*ln).exp().ln_1p() } else { ln.exp().ln_1p() };
            *ln = one_more + ln_ratio(ratio) / self.phi.get();
        }
        self.ln_level() >= self.ln_alarm
    }

    /// ln of the mean over alternatives, to be shown beside the alarm's.
    #[must_use]
    pub fn ln_level(&self) -> f64 {
        ln_sum_exp(self.ln.iter().copied()) - (GRID as f64).ln()
    }
}
