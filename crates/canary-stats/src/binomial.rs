//! A share of bad requests that must not exceed a limit, for error rates and for latency ("P95 below 200 ms" is "at
//! most 5 % slower than 200 ms"). [`AboveLimit`] is evidence that the share is above the limit, [`BelowLimit`],
//! its mirror, that it is below. Neither says how large it is.
//!
//! The likelihood ratio against a fixed alternative is a supermartingale under every share up to the limit, also
//! one that drifts; a mixture of such ratios over a Beta prior cut to the alternatives stays one (Robbins 1970,
//! "Statistical methods related to the law of the iterated logarithm"; de la Peña, Lai and Shao 2009):
//!
//! ```text
//! ln E = ln B(a+k, b+n-k) + ln(1 - I_p0(a+k, b+n-k)) - ln B(a,b) - ln(1 - I_p0(a,b)) - k ln p0 - (n-k) ln(1-p0)
//! ```

use crate::counts::ShareCounts;
use crate::error::StatsError;
use crate::process::{Dispersion, Process};
use crate::special::ln_upper;

/// Parameters of a Beta distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    a: f64,
    b: f64,
}

impl Prior {
    /// A Beta distribution.
    ///
    /// # Errors
    /// Where a parameter is not positive and finite.
    pub fn new(a: f64, b: f64) -> Result<Self, StatsError> {
        for value in [a, b] {
            if !(value > 0.0 && value <= 1e6) {
                return Err(StatsError::Prior(value));
            }
        }
        Ok(Self { a, b })
    }

    /// The prior of alternatives above a limit: weight on shares some times the limit.
    fn above(limit: f64) -> Self {
        Self { a: 0.5, b: if limit <= 0.02 { 10.0 } else { 5.0 } }
    }

    /// The prior of alternatives below a limit.
    const BELOW: Self = Self { a: 0.5, b: 100.0 };
}

/// The nearest that a limit may come to 0 and to 1; counts up to a billion tell nothing finer apart.
const NEAREST: f64 = 1e-9;

/// A limit of a share, between 0 and 1, not too near to either.
fn checked(limit: f64) -> Result<f64, StatsError> {
    if (NEAREST..=1.0 - NEAREST).contains(&limit) { Ok(limit) } else { Err(StatsError::Limit(limit)) }
}

/// Evidence that the share of bad requests is above the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AboveLimit {
    limit: f64,
    prior: Prior,
    phi: f64,
    /// Of no counts.
    base: f64,
}

impl AboveLimit {
    /// A test against a limit, with the prior that suits it.
    ///
    /// # Errors
    /// Where the limit is not between 0 and 1, by at least 1e-9.
    pub fn new(limit: f64) -> Result<Self, StatsError> {
        Self::with_prior(limit, Prior::above(checked(limit)?))
    }

    /// A test with a prior of one's own.
    ///
    /// # Errors
    /// Where the limit is not between 0 and 1, by at least 1e-9.
    pub fn with_prior(limit: f64, prior: Prior) -> Result<Self, StatsError> {
        let limit = checked(limit)?;
        Ok(Self { limit, prior, phi: 1.0, base: ln_upper(prior.a, prior.b, limit, 1.0 - limit) })
    }

    /// The same test on counts divided by a dispersion.
    #[must_use]
    pub fn dispersed(self, phi: Dispersion) -> Self {
        Self { phi: phi.get(), ..self }
    }

    /// The limit.
    #[must_use]
    pub const fn limit(&self) -> f64 {
        self.limit
    }

    pub(crate) fn ln(&self, n: f64, k: f64) -> f64 {
        let x = self.prior.a + k / self.phi;
        let y = self.prior.b + (n - k) / self.phi;
        if n <= 0.0 { 0.0 } else { ln_upper(x, y, self.limit, 1.0 - self.limit) - self.base }
    }
}

impl Process for AboveLimit {
    type Counts = ShareCounts;

    fn log_e(&self, counts: &ShareCounts) -> f64 {
        self.ln(counts.n(), counts.k())
    }

    fn above_limit(&self, counts: &ShareCounts) -> bool {
        counts.k() > counts.n() * self.limit
    }
}

/// Evidence that the share of bad requests is below the limit: "proved good".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BelowLimit {
    limit: f64,
    prior: Prior,
    phi: f64,
    base: f64,
}

impl BelowLimit {
    /// A test against a limit, with the prior that suits small shares.
    ///
    /// # Errors
    /// Where the limit is not between 0 and 1, by at least 1e-9.
    pub fn new(limit: f64) -> Result<Self, StatsError> {
        Self::with_prior(limit, Prior::BELOW)
    }

    /// A test with a prior of one's own.
    ///
    /// # Errors
    /// Where the limit is not between 0 and 1, by at least 1e-9.
    pub fn with_prior(limit: f64, prior: Prior) -> Result<Self, StatsError> {
        let limit = checked(limit)?;
        Ok(Self { limit, prior, phi: 1.0, base: ln_upper(prior.b, prior.a, 1.0 - limit, limit) })
    }

    /// The same test on counts divided by a dispersion.
    #[must_use]
    pub fn dispersed(self, phi: Dispersion) -> Self {
        Self { phi: phi.get(), ..self }
    }

    /// The limit.
    #[must_use]
    pub const fn limit(&self) -> f64 {
        self.limit
    }

    pub(crate) fn ln(&self, n: f64, k: f64) -> f64 {
        let x = self.prior.a + k / self.phi;
        let y = self.prior.b + (n - k) / self.phi;
        if n <= 0.0 { 0.0 } else { ln_upper(y, x, 1.0 - self.limit, self.limit) - self.base }
    }
}

impl Process for BelowLimit {
    type Counts = ShareCounts;

    fn log_e(&self, counts: &ShareCounts) -> f64 {
        self.ln(counts.n(), counts.k())
    }

    fn above_limit(&self, counts: &ShareCounts) -> bool {
        counts.k() > counts.n() * self.limit
    }
}
