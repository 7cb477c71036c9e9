//! Why nothing could be played.

use thiserror::Error;

/// Why nothing could be played.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SimError {
    /// The spec can't be released; each fault with the field it is in.
    #[error("the spec is wrong: {}", .0.join("; "))]
    Spec(Vec<String>),
    /// The release can't begin, for another reason than a fault of the spec.
    #[error("no release begins: {0}")]
    NotArmed(String),
    /// A level or a fault that no gate of the spec can have.
    #[error("{0}")]
    Level(String),
    /// A write of the decision code does not fit its cluster: a fault of this program.
    #[error("the decision code and the simulated cluster do not fit together: {0}")]
    Cluster(String),
    /// The past can't be counted.
    #[error("the past can't be counted: {0}")]
    Past(String),
}
