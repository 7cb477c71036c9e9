//! A source whose answers are set by hand, for tests of what asks; and pods' endpoints wherever a
//! test has its server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use canary_counters::{Instant, LabelNames, NativeSeries, Scope, Selector, Series, Subject, scope_query};
use futures::future::{BoxFuture, FutureExt};
use jiff::Timestamp;

use crate::error::{FetchError, Problem};
use crate::pods::{EndpointError, PodEndpoint};
use crate::source::MetricSource;

/// An endpoint at any address, the loopback included, which a pod's own never is.
///
/// # Errors
/// A path that can't be used.
pub fn pod_endpoint(namespace: &str, pod: &str, at: SocketAddr, path: &str) -> Result<PodEndpoint, EndpointError> {
    PodEndpoint::new(namespace, pod, at, path)
}

/// Answers from memory: counters by the selector's own text, values by the query's. What was never
/// set is an empty answer. The questions are confined as for a real source, and refused alike.
#[derive(Debug, Default)]
pub struct FakeSource {
    labels: LabelNames,
    history: bool,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    asked: Vec<String>,
    counters: BTreeMap<String, Result<Vec<Series>, Problem>>,
    natives: BTreeMap<String, Vec<NativeSeries>>,
    values: BTreeMap<String, Result<Instant, Problem>>,
}

impl FakeSource {
    /// A source without answers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A source that says it can be asked for the past.
    #[must_use]
    pub fn with_history(mut self) -> Self {
        self.history = true;
        self
    }

    /// With other names of labels.
    #[must_use]
    pub fn with_labels(mut self, labels: LabelNames) -> Self {
        self.labels = labels;
        self
    }

    /// Every question about a counter so far, as PromQL.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.answers.lock().map(|answers| answers.asked.clone()).unwrap_or_default()
    }

    /// Sets the answer to a counter selector, as text. Of a Service only its own series are told, and of pods only
    /// those that have a pod.
    pub fn set_counter(&self, selector: &str, answer: Result<Vec<Series>, Problem>) {
        if let Ok(mut answers) = self.answers.lock() {
            answers.counters.insert(selector.to_owned(), answer);
        }
    }

    /// Sets a native histogram, by its selector's text.
    pub fn set_native(&self, selector: &str, answer: Vec<NativeSeries>) {
        if let Ok(mut answers) = self.answers.lock() {
            answers.natives.insert(selector.to_owned(), answer);
        }
    }

    /// Sets the answer to a query.
    pub fn set_value(&self, query: &str, answer: Result<Instant, Problem>) {
        if let Ok(mut answers) = self.answers.lock() {
            answers.values.insert(query.to_owned(), answer);
        }
    }
}

impl MetricSource for FakeSource {
    fn name(&self) -> &str {
        "fake"
    }

    fn labels(&self) -> &LabelNames {
        &self.labels
    }

    fn keeps_history(&self) -> bool {
        self.history
    }

    fn counters<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Series>, FetchError>> {
        let confined = selector.scoped(scope).map_err(Problem::from);
        let answer = confined.and_then(|confined| {
            let mut answers = self.answers.lock().map_err(|_| Problem::Partial)?;
            answers.asked.push(confined.to_string());
            answers.counters.get(&selector.to_string()).cloned().unwrap_or_else(|| Ok(Vec::new()))
        });
        let from = at.as_millisecond().saturating_sub(i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX));
        let answer = answer.map(|mut series| {
            for one in &mut series {
                one.samples.retain(|sample| sample.at_ms > from && sample.at_ms <= at.as_millisecond());
            }
            let asked = |one: &Series| match scope.subject() {
                Subject::Pods(_) | Subject::PodsOf(_) => !one.label(&self.labels.pod).is_empty(),
                Subject::Service(service) => one.label(&self.labels.service) == service,
                Subject::Total => true,
            };
            series.retain(|one| !one.samples.is_empty() && asked(one));
            series
        });
        async move { answer.map_err(|problem| problem.of("fake")) }.boxed()
    }

    fn natives<'a>(
        &'a self,
        selector: &'a Selector,
        _scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<NativeSeries>, FetchError>> {
        let native = self.answers.lock().ok().and_then(|answers| answers.natives.get(&selector.to_string()).cloned());
        let mut native = native.unwrap_or_default();
        let from = at.as_millisecond().saturating_sub(i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX));
        for one in &mut native {
            one.samples.retain(|sample| sample.at_ms > from && sample.at_ms <= at.as_millisecond());
        }
        native.retain(|one| !one.samples.is_empty());
        async move { Ok(native) }.boxed()
    }

    fn value<'a>(
        &'a self,
        query: &'a str,
        scope: &'a Scope,
        require_pods: bool,
        _at: Timestamp,
    ) -> BoxFuture<'a, Result<Instant, FetchError>> {
        let confined = scope_query(query, scope, require_pods).map_err(Problem::from);
        let answer = confined.and_then(|_| {
            let answers = self.answers.lock().map_err(|_| Problem::Partial)?;
            answers.values.get(query).cloned().unwrap_or_else(|| Ok(Instant::Vector(Vec::new())))
        });
        async move { answer.map_err(|problem| problem.of("fake")) }.boxed()
    }
}
