//! The source `pods`: the operator reads the pods' own metrics endpoints, where no Prometheus is.
//! [`endpoint()`] decides where a pod is read, [`PodScraper`] reads it within [`PodLimits`], and
//! [`PodSamples`] answers from what was read in one round.
//!
//! A pod's owner says which port and path are read, so nothing here can be led away from the pod's
//! own address, and no message quotes what came back: else a status would show what only the
//! pod's neighbours may read.

mod endpoint;
mod error;
pub mod exposition;
mod limits;
mod samples;
mod scraper;

pub use endpoint::{EndpointError, PodEndpoint, endpoint};
pub use error::{PodFailure, PodProblem};
pub use limits::PodLimits;
pub use samples::PodSamples;
pub use scraper::PodScraper;
