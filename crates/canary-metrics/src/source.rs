//! The trait that every source of metrics fills. It asks for raw samples, never for rates: the
//! differences are taken by `canary_counters::Meter`.

use std::time::Duration;

use canary_counters::{Histogram, Instant, LabelNames, NativeSeries, Scope, Selector, Series};
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
    fn scrape_interval(&self) -> Option<Duration> {
        None
    }

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

    /// All raw samples of a native histogram, by its name. A source that knows of none has none.
    fn natives<'a>(
        &'a self,
        _selector: &'a Selector,
        _scope: &'a Scope,
        _lookback: Duration,
        _at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<NativeSeries>, FetchError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    /// A histogram, by its name: its classic buckets, or, where there are none, its native form.
    fn histogram<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Histogram, FetchError>> {
        let (buckets, native) = (selector.bucket(), selector.native());
        async move {
            let classic = self.counters(&buckets, scope, lookback, at).await?;
            if !classic.is_empty() {
                return Ok(Histogram::Classic(classic));
            }
            let natives = self.natives(&native, scope, lookback, at).await?;
            Ok(if natives.is_empty() { Histogram::Classic(classic) } else { Histogram::Native(natives) })
        }
        .boxed()
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
