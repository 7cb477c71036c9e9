//! Where counters and values come from. One trait, [`MetricSource`]; one source so far,
//! [`Prometheus`], a client that trusts nothing: every answer is bounded in size and time, parsed
//! by our own types, and refused where it is not exactly what was asked for.
//!
//! This crate does the I/O and nothing else: what may be asked is decided by `canary-counters`,
//! whose [`canary_counters::Scoped`] is the only kind of query that can be sent; what an answer
//! means is decided there, too.
#![deny(missing_docs)]

mod config;
mod envelope;
mod error;
pub mod fake;
mod prometheus;
mod source;

pub use config::{ConfigError, HeaderSource, ProviderConfig, Secret};
pub use error::{FetchError, Problem};
pub use prometheus::Prometheus;
pub use source::MetricSource;
