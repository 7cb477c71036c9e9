//! A Prometheus that scrapes the world's pods, each in its own rhythm, and answers a little later with what it has. It
//! stands where the real one's client stands, so a question is confined as a real one is.

use std::collections::BTreeMap;
use std::time::Duration;

use canary_counters::{Instant, LabelNames, Sample, Scope, Selector, Series, Subject, scope_query};
use canary_metrics::{FetchError, MetricSource, Problem};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::world::World;

/// How often pods are scraped.
pub const SCRAPE: Duration = Duration::from_secs(5);
/// How long a sample takes until it can be asked for.
pub const STORED: Duration = Duration::from_millis(200);

/// The counters that pods have: all requests, and bad ones.
pub const REQUESTS: &str = "requests_total";
/// See [`REQUESTS`].
pub const BAD: &str = "bad_total";

/// See above.
pub struct Prometheus {
    world: World,
    labels: LabelNames,
}

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prometheus of the world")
    }
}

impl Prometheus {
    /// The Prometheus of this world.
    #[must_use]
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), labels: LabelNames::default() }
    }

    fn up(&self) -> Result<(), Problem> {
        let down = self.world.lock().metrics_down.is_some_and(|until| until > tokio::time::Instant::now());
        if down { Err(Problem::Unreachable("connection refused".to_owned())) } else { Ok(()) }
    }

    fn series(&self, selector: &Selector, scope: &Scope, lookback: Duration, at: Timestamp) -> Vec<Series> {
        let now = self.world.now();
        let mut guard = self.world.lock();
        let inner = &mut *guard;
        inner.promises.metrics_answered = Some(now);
        let from = at.checked_sub(lookback).unwrap_or(Timestamp::MIN);
        let until = at.min(now - STORED);
        let counters = &inner.cluster.traffic.counters;
        let asked = |pod: &str| match scope.subject() {
            Subject::Pods(pods) => pods.contains(pod),
            Subject::PodsOf(deployment) => of_deployment(pod, deployment),
            Subject::Total => true,
            Subject::Service(_) => false,
        };
        let mut found = Vec::new();
        for (pod, counter) in counters.iter().filter(|(pod, _)| asked(pod)) {
            let value = |at: Timestamp| {
                let (all, bad) = counter.at(at)?;
                match selector.metric() {
                    REQUESTS => Some(all.floor()),
                    BAD => Some(bad.floor()),
                    _ => None,
                }
            };
            let samples: Vec<Sample> = inner
                .cluster
                .traffic
                .scrapes(pod, SCRAPE, from, until)
                .into_iter()
                .filter_map(|at| Some(Sample { at_ms: at.as_millisecond(), value: value(at)? }))
                .collect();
            let labels = BTreeMap::from(
                [("__name__", selector.metric()), ("namespace", scope.namespace()), ("pod", pod)]
                    .map(|(key, value)| (key.to_owned(), value.to_owned())),
            );
            let series = Series { labels, samples };
            if !series.samples.is_empty() && selector.matches(&series) {
                found.push(series);
            }
        }
        found
    }
}

/// `<deployment>-<hash>-<five letters>`
fn of_deployment(pod: &str, deployment: &str) -> bool {
    let Some(rest) = pod.strip_prefix(deployment).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let parts: Vec<&str> = rest.split('-').collect();
    parts.len() == 2 && parts[1].len() == 5
}

impl MetricSource for Prometheus {
    fn name(&self) -> &str {
        "default"
    }

    fn labels(&self) -> &LabelNames {
        &self.labels
    }

    fn keeps_history(&self) -> bool {
        true
    }

    fn counters<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Series>, FetchError>> {
        let confined = self.up().and_then(|()| selector.scoped(scope).map(drop).map_err(Problem::from));
        let answer = confined.map(|()| self.series(selector, scope, lookback, at));
        async move { answer.map_err(|problem| FetchError { provider: "default".to_owned(), problem }) }.boxed()
    }

    fn value<'a>(
        &'a self,
        query: &'a str,
        scope: &'a Scope,
        require_pods: bool,
        _at: Timestamp,
    ) -> BoxFuture<'a, Result<Instant, FetchError>> {
        let confined =
            self.up().and_then(|()| scope_query(query, scope, require_pods).map(drop).map_err(Problem::from));
        let answer = confined.map(|()| {
            let inner = self.world.lock();
            let counters = &inner.cluster.traffic.counters;
            let Subject::Pods(pods) = scope.subject() else { return Instant::Vector(Vec::new()) };
            let one = |pod: &String| {
                let counter = counters.get(pod)?;
                counter.at(inner.api.now)?;
                let labels = BTreeMap::from([("pod".to_owned(), pod.clone())]);
                Some((labels, inner.cluster.behaviour(&counter.image).gauge))
            };
            Instant::Vector(pods.iter().filter_map(one).collect())
        });
        async move { answer.map_err(|problem| FetchError { provider: "default".to_owned(), problem }) }.boxed()
    }
}
