//! Events per minute that must not exceed a limit: a mixture over a grid of ratios of Poisson likelihood ratios.
//! [`EventRate`] is evidence that the rate is above the limit. It never divides by requests; what the limit allows
//! for the time and the traffic is counted beside the events.
//!
//! E = Σ w r^k exp(-(r-1) λ0 T), with r in {1.5, 2, 4, 10}. Each term is the likelihood ratio of rate r λ0 against
//! λ0, a supermartingale for every rate up to λ0 (Wald 1945; Robbins 1970 for the mixture).

use crate::budget::Alpha;
use crate::counts::{EventCounts, count};
use crate::error::StatsError;
use crate::process::{Dispersion, Process};
use crate::special::{ln_sum_exp, normal_deviate, poisson_at_most};

const RATIOS: [f64; 4] = [1.5, 2.0, 4.0, 10.0];
const WEIGHT: f64 = 0.25;

/// Evidence that events come faster than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EventRate {
    phi: Dispersion,
}

impl EventRate {
    /// The test; the limit is in the counts ([`EventCounts::expected`]).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same test on counts divided by a dispersion.
    #[must_use]
    pub fn dispersed(self, phi: Dispersion) -> Self {
        Self { phi }
    }

    pub(crate) fn ln(&self, k: f64, expected: f64) -> f64 {
        if k <= 0.0 && expected <= 0.0 {
            return 0.0;
        }
        let ln_ratio = |ratio: &f64| (k * ratio.ln() - (ratio - 1.0) * expected) / self.phi.get();
        WEIGHT.ln() + ln_sum_exp(RATIOS.iter().map(ln_ratio))
    }
}

impl Process for EventRate {
    type Counts = EventCounts;

    fn log_e(&self, counts: &EventCounts) -> f64 {
        self.ln(counts.k(), counts.expected())
    }

    fn above_limit(&self, counts: &EventCounts) -> bool {
        counts.k() > counts.expected()
    }
}

/// The upper bound, at level `alpha`, of a Poisson mean of which `events` were seen: the mean at which so few or
/// fewer come with probability `alpha` (Garwood 1936). No bound below it can be excluded.
///
/// # Errors
/// Where `events` is no count.
pub fn upper_mean(events: f64, alpha: Alpha) -> Result<f64, StatsError> {
    let events = count(events)?.ceil();
    let level = alpha.get();
    if events > 1e10 {
        // The sum would be slow; Wilson and Hilferty's cube (1931) is exact to double precision for so many.
        let third = 1.0 / (9.0 * (events + 1.0));
        return Ok((events + 1.0) * (1.0 - third + normal_deviate(level) * third.sqrt()).powi(3));
    }
    let so_few = |mean: f64| poisson_at_most(events, mean);
    let (mut low, mut high) = (events, events + 10.0);
    while so_few(high) > level && high.is_finite() {
        high *= 2.0;
    }
    while high - low > 1e-12 * high {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if middle > 0.0 && so_few(middle) <= level {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(high)
}

/// A limit from a baseline captured before the start, where no other arm runs at the same time: `(1 + margin)` times
/// the upper Poisson bound, at half the gate's budget, of the baseline's rate. The other half is the test's.
///
/// A baseline taken as exact would reject a healthy release in one of ten cases: its own noise counts as much as
/// the canary's. A baseline without events does no harm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Historical {
    rate: f64,
    alpha: Alpha,
}

impl Historical {
    /// From `events` in so much `exposure` (requests or minutes, the same unit as later), of a gate with this budget.
    ///
    /// # Errors
    /// Where a number is no count, or the exposure or margin not positive.
    pub fn new(events: f64, exposure: f64, margin: f64, alpha: Alpha, phi: Dispersion) -> Result<Self, StatsError> {
        let exposure = count(exposure)?;
        if exposure <= 0.0 {
            return Err(StatsError::Rate(exposure));
        }
        if !(0.0..=1e6).contains(&margin) {
            return Err(StatsError::Rate(margin));
        }
        let half = alpha.half();
        let mean = upper_mean(count(events)? / phi.get(), half)? * phi.get();
        Ok(Self { rate: (1.0 + margin) * mean / exposure, alpha: half })
    }

    /// The limit, events per unit of exposure.
    #[must_use]
    pub const fn rate(&self) -> f64 {
        self.rate
    }

    /// The budget of the test itself.
    #[must_use]
    pub const fn alpha(&self) -> Alpha {
        self.alpha
    }

    /// `k` events of the canary in a tick with so much exposure, for [`EventRate`].
    ///
    /// # Errors
    /// Where a number is no count.
    pub fn tick(&self, k: f64, exposure: f64) -> Result<EventCounts, StatsError> {
        EventCounts::new(k, self.rate * count(exposure)?)
    }
}
