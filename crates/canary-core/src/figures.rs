//! Figures beside the gates: how long requests took, CPU and memory of the pods, and the queries that a spec names, of
//! both sides at the same time. They are told in the record, and nothing is ever decided by them.

use canary_stats::{Buckets, Estimate};
use jiff::Timestamp;

/// What was measured in the window under way, beside the gates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// From when on, where that is later than the window's beginning: what came before an operator's restart is unknown.
    pub since: Option<Timestamp>,
    /// Of each latency gate, how long its requests took.
    pub durations: Vec<Durations>,
    /// CPU, memory, queries.
    pub gauges: Vec<Gauge>,
}

/// How long the requests of a latency gate took, without those that its warm-up leaves out.
#[derive(Debug, Clone, PartialEq)]
pub struct Durations {
    /// The gate.
    pub gate: String,
    /// The histogram's own unit: `s` or `ms`.
    pub unit: &'static str,
    /// The canary's, or why they are not known.
    pub canary: Result<Buckets, String>,
    /// The stable side's, or why they are not known.
    pub stable: Result<Buckets, String>,
}

/// Something that is measured pod by pod at every look: the mean over a side's pods, and over the looks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gauge {
    /// What, such as `CPU per pod`; no two of a tick have one name.
    pub name: String,
    /// Its unit: ` cores`, `B` for bytes, or that of the query.
    pub unit: String,
    /// What it was read from.
    pub source: String,
    /// The canary's pods.
    pub canary: Option<Estimate>,
    /// The stable version's pods.
    pub stable: Option<Estimate>,
    /// How often it was looked at on either side: the canary's, stable's.
    pub looks: (u32, u32),
    /// Why it was not measured, where it was not.
    pub why: String,
}
