//! What is refused: numbers that are no limit, no count and no budget. Nothing here is ever taken
//! for evidence, good or bad.

/// A number that cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum StatsError {
    /// The limit of a share is not between 0 and 1, by at least 1e-9.
    #[error("the limit {0} is not a share between 0 and 1, both excluded; use a limit such as 0.01 (1 %)")]
    Limit(f64),
    /// A count is negative, not finite, or more than 2^53.
    #[error("the count {0} is not a number of events; check the counter")]
    Count(f64),
    /// More bad events than events.
    #[error(
        "{bad} bad of {all} in all: the bad ones are not a part of all; check that both selectors count the same requests"
    )]
    MoreBadThanAll {
        /// Bad events.
        bad: f64,
        /// All events.
        all: f64,
    },
    /// The canary's share of the requests is not between 0 and 1, both excluded.
    #[error("a share of {0} of the requests leaves nothing to compare; both sides need traffic in the tick")]
    Share(f64),
    /// A margin, tolerance or rate is not finite, or negative, or zero where it must not be.
    #[error("{0} is not a margin, tolerance or rate; use a positive number")]
    Rate(f64),
    /// An error budget, level or power is not strictly between 0 and 1.
    #[error("{0} is not a probability between 0 and 1, both excluded")]
    Probability(f64),
    /// A dispersion below 1 or above its bound.
    #[error("a dispersion of {0} is not between 1 and 10; leave it out to have it measured")]
    Dispersion(f64),
    /// A prior's parameter is not positive.
    #[error("{0} is not a parameter of a prior; it must be positive")]
    Prior(f64),
    /// No gate or no stage to split the budget over.
    #[error("an error budget is split over at least one gate and one stage")]
    NothingToSplit,
}

impl StatsError {
    /// A fixed word for metric labels.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Limit(_) => "limit",
            Self::Count(_) => "count",
            Self::MoreBadThanAll { .. } => "more_bad_than_all",
            Self::Share(_) => "share",
            Self::Rate(_) => "rate",
            Self::Probability(_) => "probability",
            Self::Dispersion(_) => "dispersion",
            Self::Prior(_) => "prior",
            Self::NothingToSplit => "nothing_to_split",
        }
    }
}
