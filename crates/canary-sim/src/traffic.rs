//! What the gates' counters say: totals of both sides that go on with time. Whether they are drawn ([`crate::sampled`])
//! or taken from the past is another's; what they mean is the core's.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Where the requests of a span of time go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split {
    /// The candidate's share of the requests, 0 to 1.
    pub share: f64,
    /// The stage under way, from 0.
    pub stage: usize,
    /// Whether the release still measures its baseline, so that the stable pods are wanted one by one.
    pub baseline: bool,
}

/// Requests, or for a gate all events and the bad ones, since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// Requests.
    pub n: f64,
    /// Bad ones, or events.
    pub k: f64,
}

impl Counts {
    /// Adds to both.
    pub fn add(&mut self, n: f64, k: f64) {
        self.n += n;
        self.k += k;
    }

    /// What came since an earlier time.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self { n: (self.n - before.n).max(0.0), k: (self.k - before.k).max(0.0) }
    }
}

/// A gate's counters on both sides, since the beginning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GateTotals {
    /// The canary's.
    pub canary: Counts,
    /// The stable side's.
    pub stable: Counts,
    /// The stable pods' one by one, during the baseline.
    pub stable_pods: BTreeMap<String, Counts>,
    /// What a value gate reads now.
    pub number: Option<f64>,
}

/// All counters, since the beginning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AllTotals {
    /// Requests of the canary.
    pub canary_requests: f64,
    /// Requests of the stable side.
    pub stable_requests: f64,
    /// By gate, in the order of the spec.
    pub gates: Vec<GateTotals>,
    /// Why the counters say less than there was, where they do.
    pub incomplete: Option<String>,
}

/// A source of counts.
pub trait Traffic {
    /// Time goes on from one instant to a later one, with this split. Called with adjoining spans, in order.
    fn advance(&mut self, from: Timestamp, to: Timestamp, split: &Split);

    /// The counters now.
    fn totals(&self) -> &AllTotals;
}
