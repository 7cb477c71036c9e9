//! Where counters and values come from. One trait, [`MetricSource`]; two sources: [`Prometheus`],
//! and the pods' own endpoints ([`pods`]). Both are clients that trust nothing: every answer is
//! bounded in size and time, parsed by our own types, and refused where it is not exactly what was
//! asked for.
//!
//! This crate does the I/O and nothing else: what may be asked is decided by `canary-counters`,
//! whose [`canary_counters::Scoped`] is the only kind of query that can be sent; what an answer
//! means is decided there, too.
#![deny(missing_docs)]

mod config;
mod envelope;
mod error;
pub mod fake;
pub mod pods;
mod prometheus;
mod shared;
mod source;

pub use config::{ConfigError, HeaderSource, ProviderConfig, Secret};
pub use error::{FetchError, Problem};
pub use pods::{EndpointError, PodEndpoint, PodFailure, PodLimits, PodProblem, PodSamples, PodScraper, endpoint};
pub use prometheus::Prometheus;
pub use shared::Shared;
pub use source::MetricSource;
