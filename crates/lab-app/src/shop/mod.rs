//! The demo service: answers every path, counts what it answered in the metrics of an ordinary
//! service, and fails, is slow, or misbehaves otherwise at rates that can be switched while it runs.

mod config;
mod faults;
mod metrics;
mod server;

pub use config::{Config, FLAGS};
pub use faults::{FaultError, Faults};
pub use metrics::{BUCKETS, Metrics};
pub use server::{Outcome, Shop, ShopError, State};

/// The header that carries the version of whoever answered.
pub const VERSION_HEADER: &str = "x-version";
