//! What a gate says of a stage, from the evidence of its test. A breach may be called at any tick; the other verdicts
//! are those of a stage that ends. What is missing is never a pass.

use crate::budget::Alpha;

/// Bad events below which nothing is a breach: the first error of a canary would be "significant" at small limits.
pub const LEAST_BAD: f64 = 3.0;

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The limit is exceeded: the chance of this on a healthy release is at most the budget.
    Breach,
    /// Nothing was counted.
    NoData,
    /// Too little was counted, or the estimate is above the limit and may be noise.
    Inconclusive,
    /// Within the limit, as far as is known.
    Pass {
        /// Whether the mirror test shows that the limit is kept; else it is only not seen to be exceeded.
        proved: bool,
    },
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// ln E of the mixture over starts; of the counts that may show a breach.
    pub ln_e: f64,
    /// The budget of this gate in this stage.
    pub alpha: Alpha,
    /// Bad events of the stage, not divided by the dispersion.
    pub bad: f64,
    /// Requests of the stage; 0 is no data.
    pub requests: f64,
    /// Whether the estimate over the stage is above the limit.
    pub above_limit: bool,
    /// ln E of the mirror test from the stage's start, where there is one.
    pub ln_e_proved: Option<f64>,
    /// The level at which the mirror test has proved the limit.
    pub alpha_proved: Alpha,
}

impl Evidence {
    /// Whether it is a breach, at any tick.
    #[must_use]
    pub fn is_breach(&self) -> bool {
        self.ln_e >= self.alpha.ln_threshold() && self.bad >= LEAST_BAD
    }

    /// The verdict at the end of a stage that wants at least so many requests.
    #[must_use]
    pub fn verdict(&self, min_requests: f64) -> Verdict {
        if self.is_breach() {
            return Verdict::Breach;
        }
        if self.requests.is_nan() || self.requests <= 0.0 {
            return Verdict::NoData;
        }
        // Written so that NaN anywhere is inconclusive.
        let enough = self.requests >= min_requests && self.ln_e < f64::INFINITY;
        if !enough || self.above_limit {
            return Verdict::Inconclusive;
        }
        let proved = self.ln_e_proved.is_some_and(|ln_e| ln_e >= self.alpha_proved.ln_threshold());
        Verdict::Pass { proved }
    }
}

/// What is said of events of the whole service above their limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WholeService {
    /// Not above.
    Within,
    /// Above, and the candidate has more of the events than of the requests.
    Candidate,
    /// Above, and nothing shows that it is the candidate's doing.
    Confounded,
}

/// Whether a service above its limit is the candidate's doing: only where its share of the events is shown to be above
/// its share of the requests ([`crate::Relative`] without margin) at the same budget.
#[must_use]
pub fn whole_service(total: &Evidence, ln_e_candidate: f64) -> WholeService {
    match (total.is_breach(), ln_e_candidate >= total.alpha.ln_threshold()) {
        (false, _) => WholeService::Within,
        (true, true) => WholeService::Candidate,
        (true, false) => WholeService::Confounded,
    }
}
