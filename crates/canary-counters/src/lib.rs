//! Counters as evidence: what may be asked of a metrics store, and what its raw answers count.
//!
//! A gate names counters. This crate parses those names ([`selector`]), confines every question to
//! one namespace and the pods in question ([`scope`], [`query`]), and turns raw samples
//! ([`samples`]) into counted differences ([`counts`]), of which a gate makes its figures
//! ([`measure`], [`histogram`], [`value`]).
//!
//! It never does I/O, never reads a clock, and never lets missing, late or malformed data look
//! like good news: what can't be counted is [`measure::Measured::NoData`], `Stale` or `Error`.
#![deny(missing_docs)]

pub mod counts;
pub mod histogram;
pub mod measure;
pub mod query;
pub mod samples;
pub mod scope;
pub mod selector;
pub mod value;
pub mod warm_up;

mod promql;

pub use counts::{CounterError, Grouping, Meter, PodKnown, PodReading, PodState, Reading, Tick};
pub use histogram::{HistogramReading, HistogramUnit, Latency};
pub use measure::Measured;
pub use query::{QueryError, check_query, scope_query};
pub use samples::{Sample, Series};
pub use scope::{LabelNames, Scope, ScopeError, Scoped, Subject};
pub use selector::{MatchKind, Matcher, Selector, SelectorError};
pub use value::{Instant, Value, ValueLimit};
pub use warm_up::WarmUp;
