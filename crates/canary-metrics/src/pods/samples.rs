//! What one round of reading pods brought, as a source of counters. Decides whose series they are
//! by whom we asked, never by what the answer says; remembers nothing from round to round, so a
//! pod that could not be read has no series and goes stale.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use canary_counters::{Instant, LabelNames, Sample, Scope, Selector, Series, Subject};
use futures::future::{BoxFuture, FutureExt};
use jiff::Timestamp;

use super::endpoint::{EndpointError, PodEndpoint};
use super::error::PodFailure;
use super::exposition::Exposed;
use crate::error::{FetchError, Problem};
use crate::source::MetricSource;

/// The source's name.
pub(super) const NAME: &str = "pods";

/// Labels that the meter takes for the scraper's and leaves aside when it looks for doubles. Here
/// no scraper sets any, so these are the application's own and must keep its series apart.
const SCRAPERS: [&str; 4] = ["job", "endpoint", "prometheus", "prometheus_replica"];

/// The series of the pods that were read in one round, and the failures of the others. Answers for
/// pods by name only. Each series has one sample, at the time at which its pod's answer had come in.
pub struct PodSamples {
    labels: LabelNames,
    interval: Option<Duration>,
    at: Timestamp,
    names: Option<Arc<BTreeSet<String>>>,
    /// By namespace and pod.
    read: BTreeMap<String, BTreeMap<String, Answer>>,
    failures: Vec<PodFailure>,
    refused: Option<Problem>,
}

/// One pod's series by name.
pub(super) struct Answer {
    received_ms: i64,
    series: BTreeMap<String, Vec<Exposed>>,
}

impl Answer {
    pub(super) fn new(received_ms: i64, all: Vec<Exposed>) -> Self {
        let mut series: BTreeMap<String, Vec<Exposed>> = BTreeMap::new();
        for one in all {
            match series.get_mut(&one.name) {
                Some(same) => same.push(one),
                None => {
                    series.insert(one.name.clone(), vec![one]);
                }
            }
        }
        Self { received_ms, series }
    }
}

impl fmt::Debug for PodSamples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodSamples")
            .field("at", &self.at)
            .field("read", &self.read.values().map(BTreeMap::len).sum::<usize>())
            .field("failures", &self.failures)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

impl PodSamples {
    pub(super) fn new(at: Timestamp, names: Option<Arc<BTreeSet<String>>>) -> Self {
        Self {
            labels: LabelNames::default(),
            interval: None,
            at,
            names,
            read: BTreeMap::new(),
            failures: Vec::new(),
            refused: None,
        }
    }

    pub(super) fn add(&mut self, pod: &PodEndpoint, answer: Answer) {
        if let Ok(received) = Timestamp::from_millisecond(answer.received_ms) {
            self.at = self.at.max(received);
        }
        self.read.entry(pod.namespace().to_owned()).or_default().insert(pod.pod().to_owned(), answer);
    }

    pub(super) fn fail(&mut self, failure: PodFailure) {
        self.failures.push(failure);
        self.failures.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
    }

    pub(super) fn refuse(&mut self, problem: Problem) {
        self.refused = Some(problem);
    }

    /// With the interval at which rounds are made: how old a pod's last sample may be follows
    /// from it.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// With the pods for which there is no endpoint, so that they are among the failures.
    #[must_use]
    pub fn with_refused(mut self, refused: impl IntoIterator<Item = (String, String, EndpointError)>) -> Self {
        for (namespace, pod, why) in refused {
            self.fail(PodFailure { namespace, pod, url: None, problem: why.into() });
        }
        self
    }

    /// The instant of the answers: when the last one had come in. Ask, and judge, at this time or
    /// later; a meter takes no samples from after its tick.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The pods that could not be read, and why, by namespace and name.
    #[must_use]
    pub fn failures(&self) -> &[PodFailure] {
        &self.failures
    }

    fn answer(
        &self,
        selector: &Selector,
        scope: &Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> Result<Vec<Series>, Problem> {
        selector.scoped(scope)?;
        if let Some(problem) = &self.refused {
            return Err(problem.clone());
        }
        let Subject::Pods(pods) = scope.subject() else {
            return Err(Problem::Unsupported(
                "answers for pods by name only, not for a Service or a namespace; name a Prometheus provider"
                    .to_owned(),
            ));
        };
        if self.names.as_ref().is_some_and(|names| !names.contains(selector.metric())) {
            return Err(Problem::Unsupported(format!("{} was not read from the pods", selector.metric())));
        }
        let answers = self.read.get(scope.namespace());
        let mut all = Vec::new();
        let mut read = false;
        let millis = i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX);
        let from_ms = at.as_millisecond().saturating_sub(millis);
        for pod in pods {
            let Some(answer) = answers.and_then(|answers| answers.get(pod)) else { continue };
            read = true;
            let ahead = answer.received_ms.saturating_sub(at.as_millisecond());
            if ahead > 0 {
                return Err(Problem::WrongTime(ahead));
            }
            if answer.received_ms > from_ms {
                let matching = answer.series.get(selector.metric()).into_iter().flatten();
                all.extend(matching.filter_map(|one| self.series(one, selector, scope, pod, answer.received_ms)));
            }
        }
        if read { Ok(all) } else { self.none_read(scope.namespace(), pods).map(|()| all) }
    }

    /// One series under the names that we know, where the selector asks for it.
    fn series(&self, exposed: &Exposed, selector: &Selector, scope: &Scope, pod: &str, at_ms: i64) -> Option<Series> {
        let mut labels: BTreeMap<String, String> = exposed.labels.iter().cloned().collect();
        labels.insert("__name__".to_owned(), exposed.name.clone());
        for (name, value) in [(&self.labels.namespace, scope.namespace()), (&self.labels.pod, pod)] {
            set_aside(&mut labels, name);
            labels.insert(name.clone(), value.to_owned());
        }
        let mut series = Series { labels, samples: vec![Sample { at_ms, value: exposed.value }] };
        if !selector.matches(&series) {
            return None;
        }
        for name in SCRAPERS {
            set_aside(&mut series.labels, name);
        }
        Some(series)
    }

    /// Where no pod of the question was read, its first failure is the answer.
    fn none_read(&self, namespace: &str, pods: &BTreeSet<String>) -> Result<(), Problem> {
        let mut failed =
            self.failures.iter().filter(|failure| failure.namespace == namespace && pods.contains(&failure.pod));
        let Some(first) = failed.next() else { return Ok(()) };
        let others = failed.count();
        Err(Problem::NoPodRead { first: Box::new(first.clone()), others })
    }
}

/// Keeps a label of the pod's own under the name that Prometheus would give it.
fn set_aside(labels: &mut BTreeMap<String, String>, name: &str) {
    let Some(value) = labels.remove(name) else { return };
    let mut aside = format!("exported_{name}");
    while labels.contains_key(&aside) {
        aside.insert_str(0, "exported_");
    }
    labels.insert(aside, value);
}

impl MetricSource for PodSamples {
    fn name(&self) -> &str {
        NAME
    }

    fn labels(&self) -> &LabelNames {
        &self.labels
    }

    fn scrape_interval(&self) -> Option<Duration> {
        self.interval
    }

    fn counters<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Series>, FetchError>> {
        async move { self.answer(selector, scope, lookback, at).map_err(|problem| problem.of(NAME)) }.boxed()
    }

    fn value<'a>(
        &'a self,
        _query: &'a str,
        _scope: &'a Scope,
        _require_pods: bool,
        _at: Timestamp,
    ) -> BoxFuture<'a, Result<Instant, FetchError>> {
        let why = "a value gate asks a query, which only a Prometheus can answer; name a Prometheus provider for it";
        async move { Err(Problem::Unsupported(why.to_owned()).of(NAME)) }.boxed()
    }
}
