//! Why one pod could not be read. Each costs that pod's series for this tick, so that it goes stale;
//! none is ever a pass. No message quotes the answer.

use thiserror::Error;

use super::endpoint::EndpointError;
use super::exposition::ExpositionError;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PodProblem {
    /// It is not known where to read it, or it may not be read.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No connection.
    #[error("can't be reached: {0}; is this the right port, and does every NetworkPolicy let the operator's pods in?")]
    Unreachable(String),
    /// Not in time.
    #[error("did not answer within {0} ms")]
    Timeout(u128),
    /// The round was over before its turn came.
    #[error("was not asked: the other pods took all of the {0} ms of a round")]
    NotAsked(u128),
    /// The connection ended inside the answer.
    #[error("the answer broke off: {0}")]
    BrokenOff(String),
    /// A redirect, which is never followed: it could lead to someone else's port.
    #[error("answers with a redirect (HTTP {0}), which is not followed; name the final path")]
    Redirect(u16),
    /// 401 or 403.
    #[error(
        "asks for credentials (HTTP {0}), and the operator has none for pods; open the endpoint, or use a Prometheus provider"
    )]
    Denied(u16),
    /// Some other HTTP status.
    #[error("answers HTTP {0}; are port and path right?")]
    Status(u16),
    /// Too long an answer.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// A compressed answer, though none was asked for.
    #[error("the answer is encoded as {0:?}, which was not asked for")]
    Encoded(String),
    /// Not metrics.
    #[error("the answer is {0:?}, not metrics as text; is the path right?")]
    ContentType(String),
    /// Metrics that can't be read.
    #[error("the answer is malformed: {0}")]
    Malformed(#[from] ExpositionError),
}

impl PodProblem {
    /// A static word for metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "endpoint",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) | Self::NotAsked(_) => "timeout",
            Self::BrokenOff(_) => "broken_off",
            Self::Redirect(_) => "redirect",
            Self::Denied(_) => "credentials",
            Self::Status(_) if self.is_transient() => "unavailable",
            Self::Status(_) => "status",
            Self::TooLarge(_) => "too_large",
            Self::Encoded(_) => "encoded",
            Self::ContentType(_) => "content_type",
            Self::Malformed(_) => "malformed",
        }
    }

    /// Whether it may well pass by itself: an outage, not a mistake.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Endpoint(why) => why.is_transient(),
            Self::Unreachable(_) | Self::Timeout(_) | Self::NotAsked(_) | Self::BrokenOff(_) => true,
            Self::Status(status) => *status >= 500 || matches!(status, 408 | 429),
            Self::Redirect(_)
            | Self::Denied(_)
            | Self::TooLarge(_)
            | Self::Encoded(_)
            | Self::ContentType(_)
            | Self::Malformed(_) => false,
        }
    }
}

/// A pod that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{pod}{}: {problem}", self.url.as_ref().map(|url| format!(" ({url})")).unwrap_or_default())]
pub struct PodFailure {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Where it was asked, if that is known.
    pub url: Option<String>,
    /// What happened.
    pub problem: PodProblem,
}
