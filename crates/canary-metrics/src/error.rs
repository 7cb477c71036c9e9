//! What can go wrong between a question and its answer. Each is an error on the gate that asked,
//! never a pass; [`Problem::is_transient`] tells a waiting matter from one for a person.

use canary_counters::{QueryError, SelectorError};
use thiserror::Error;

use crate::pods::PodFailure;

/// A failed question, with the source it was asked of. Holds no credential.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{provider}: {problem}")]
pub struct FetchError {
    /// The source's name.
    pub provider: String,
    /// What happened.
    pub problem: Problem,
}

impl FetchError {
    /// A static word for metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        self.problem.category()
    }

    /// Whether it may well pass by itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.problem.is_transient()
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Problem {
    /// No connection.
    #[error("can't be reached: {0}")]
    Unreachable(String),
    /// Not in time.
    #[error("did not answer within {0} ms")]
    Timeout(u128),
    /// The server says it can't, now.
    #[error("is unavailable (HTTP {status}): {message}")]
    Unavailable {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The connection ended inside the answer.
    #[error("the answer broke off: {0}")]
    BrokenOff(String),
    /// The server refuses the question.
    #[error("refuses the query ({kind}): {message}")]
    Rejected {
        /// Its error type.
        kind: String,
        /// What it said.
        message: String,
    },
    /// The question can't be put.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The question can't be put.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// Such a question is not supported by this source.
    #[error("{0}")]
    Unsupported(String),
    /// 401 or 403.
    #[error(
        "refuses our credentials (HTTP {0}); check the provider's token and headers in the operator's configuration"
    )]
    Denied(u16),
    /// A credential can't be read.
    #[error("{0}")]
    Credential(String),
    /// A redirect, which is never followed: it could take the credentials elsewhere.
    #[error(
        "answers with a redirect (HTTP {0}), which is not followed; name the final address in the operator's configuration"
    )]
    Redirect(u16),
    /// Some other HTTP status.
    #[error("answers HTTP {status}; is the address right? {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The beginning of what it said.
        message: String,
    },
    /// Too long an answer.
    #[error("the answer is larger than {0} bytes; narrow the selector")]
    TooLarge(usize),
    /// A compressed answer, though none was asked for.
    #[error("the answer is encoded as {0:?}, which was not asked for")]
    Encoded(String),
    /// Not what the API promises.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
    /// The server has doubts about its own answer.
    #[error("the answer comes with a warning: {0}")]
    Warning(String),
    /// The server knows only a part.
    #[error("the answer is partial")]
    Partial,
    /// Another type than asked for.
    #[error("the answer is {found}, not {expected}")]
    WrongType {
        /// What came.
        found: String,
        /// What was due.
        expected: &'static str,
    },
    /// Native histograms in place of numbers.
    #[error(
        "{0} is a native histogram where a number is due: name a counter, or take the number out of it by histogram_count and the like; a latency gate reads it as it is"
    )]
    NativeHistogram(String),
    /// An answer about another time.
    #[error("the answer speaks of a time {0} ms away from the one asked about")]
    WrongTime(i64),
    /// Clocks differ.
    #[error("its clock is {0} s away from the operator's; samples can't be told fresh from stale")]
    ClockSkew(i64),
    /// More pods than are read in a round.
    #[error("{found} pods are more than the {max} that are read at a time; use a Prometheus provider")]
    TooManyPods {
        /// How many there are.
        found: usize,
        /// How many are read.
        max: usize,
    },
    /// Not one of the pods in question could be read.
    #[error("{first}{}", and_others(*.others))]
    NoPodRead {
        /// The first of them, and why.
        first: Box<PodFailure>,
        /// How many others.
        others: usize,
    },
}

fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => " (and 1 other pod failed)".to_owned(),
        _ => format!(" (and {others} other pods failed)"),
    }
}

impl Problem {
    /// A static word for metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Unavailable { .. } => "unavailable",
            Self::BrokenOff(_) => "broken_off",
            Self::Rejected { .. } => "rejected",
            Self::Query(_) | Self::Selector(_) => "query",
            Self::Unsupported(_) => "unsupported",
            Self::Denied(_) | Self::Credential(_) => "credentials",
            Self::Redirect(_) => "redirect",
            Self::Status { .. } => "status",
            Self::TooLarge(_) => "too_large",
            Self::Encoded(_) => "encoded",
            Self::Malformed(_) => "malformed",
            Self::Warning(_) => "warning",
            Self::Partial => "partial",
            Self::WrongType { .. } => "wrong_type",
            Self::NativeHistogram(_) => "native_histogram",
            Self::WrongTime(_) => "wrong_time",
            Self::ClockSkew(_) => "clock_skew",
            Self::TooManyPods { .. } => "too_many_pods",
            Self::NoPodRead { first, .. } => first.problem.category(),
        }
    }

    /// Whether it may well pass by itself: an outage, not a mistake.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoPodRead { first, .. } => first.problem.is_transient(),
            Self::Unreachable(_)
            | Self::Timeout(_)
            | Self::Unavailable { .. }
            | Self::BrokenOff(_)
            | Self::Warning(_)
            | Self::Partial => true,
            _ => false,
        }
    }

    pub(crate) fn of(self, provider: &str) -> FetchError {
        FetchError { provider: provider.to_owned(), problem: self }
    }
}
