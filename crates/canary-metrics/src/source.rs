//! The trait that every source of metrics fills. It asks for raw samples, never for rates: the
//! differences are taken by `canary_counters::Meter`.

use std::time::Duration;

use canary_counters::{Histogram, Instant, LabelNames, Scope, Selector, Series};
use futures::future::{BoxFuture, FutureExt};
use jiff::Timestamp;

use crate::error::FetchError;

/// A source of raw counters and of values.
pub trait MetricSource: Send + Sync + std::fmt::Debug {
    /// Its name, by which a CanaryRelease refers to it.
    fn name(&self) -> &str;

    /// What its labels are called.
    fn labels(&self) -> &LabelNames;

    /// How often it samples, where that is known.
    fn scrape_interval(&self) -> Option<Duration>;

    /// Whether samples of the past can be asked for.
    fn keeps_history(&self) -> bool {
        false
    }

    /// Whether a query must name the candidate's pods (`scope: Total` aside).
    fn requires_pods(&self) -> bool {
        true
    }

    /// All raw samples of a counter from `at - lookback` to `at`, each with its own time, oldest
    /// first, series by series. An empty list is an answer: there is no such series.
    fn counters<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Series>, FetchError>>;

    /// All raw samples of a histogram, by its name: of its classic buckets, or, where there are none and the source
    /// knows of such, of the native histogram.
    fn histogram<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Histogram, FetchError>> {
        let buckets = selector.bucket();
        async move { self.counters(&buckets, scope, lookback, at).await.map(Histogram::Classic) }.boxed()
    }

    /// The value of a user's query at `at`, confined to the scope. `require_pods` is false for
    /// `scope: Total`.
    fn value<'a>(
        &'a self,
        query: &'a str,
        scope: &'a Scope,
        require_pods: bool,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Instant, FetchError>>;
}
