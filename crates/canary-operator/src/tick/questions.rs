//! What is asked of a metrics source at one tick, and of whom: each counter once, whatever gates use it. By pod it is
//! one question for both sides, who are told apart in the answer; by Service each Service of a gateway is asked about by
//! itself. It never looks into an answer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use canary_api::{By, CanaryRelease, Gate, Step, names};
use canary_core::{Observed, object};
use canary_counters::{Grouping, Histogram, LabelNames, NativeSeries, PodKnown, Scope, ScopeError, Selector, Series};
use canary_metrics::MetricSource;
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::Value as Json;

/// A counter, or a histogram by its buckets, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    text: String,
    by: By,
    buckets: bool,
}

impl Question {
    pub(super) fn counter(text: &str, by: By) -> Self {
        Self { text: text.to_owned(), by, buckets: false }
    }

    pub(super) fn histogram(text: &str, by: By) -> Self {
        Self { text: text.to_owned(), by, buckets: true }
    }

    /// The requests that the canary's share is told by.
    pub(super) fn requests(release: &CanaryRelease) -> Self {
        let requests = &release.spec.traffic.requests;
        Self::counter(&requests.counter, requests.by)
    }

    pub(super) fn by(&self) -> By {
        self.by
    }

    pub(super) fn is_histogram(&self) -> bool {
        self.buckets
    }

    /// Its name in messages, and the one that a meter knows it by.
    pub(super) fn name(&self) -> String {
        match self.by {
            By::Pod => self.text.clone(),
            By::Service => format!("{} by Service", self.text),
        }
    }

    fn selector(&self) -> Option<Selector> {
        Selector::parse(&self.text).ok()
    }

    async fn ask(
        &self,
        source: &dyn MetricSource,
        selector: &Selector,
        scope: &Scope,
        lookback: Duration,
        now: Timestamp,
    ) -> Answer {
        if !self.buckets {
            let answer = source.counters(selector, scope, lookback, now).await;
            return answer.map(Found::Series).map_err(|error| error.to_string());
        }
        match source.histogram(selector, scope, lookback, now).await {
            Ok(Histogram::Classic(series)) => Ok(Found::Series(series)),
            Ok(Histogram::Native(series)) => Ok(Found::Natives(series)),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The series that pods are to be read for.
pub(super) fn series_of_pods(release: &CanaryRelease) -> Vec<Selector> {
    let all = questions(release).into_iter();
    all.map(|(question, selector)| if question.buckets { selector.bucket() } else { selector }).collect()
}

/// The questions of a spec, each once. What is no selector can't be asked.
pub(super) fn questions(release: &CanaryRelease) -> BTreeMap<Question, Selector> {
    let of_gates = release.spec.gates.iter().flat_map(of_gate);
    let all = std::iter::once(Question::requests(release)).chain(of_gates);
    all.filter_map(|question| question.selector().map(|selector| (question, selector))).collect()
}

/// The first counter with a matcher on a label that the provider's questions set themselves.
pub(super) fn reserved(release: &CanaryRelease, labels: &LabelNames) -> Option<String> {
    let set = |by: By| if by.is_pod() { labels.set_for_pods() } else { labels.set_for_services() };
    let all = questions(release);
    all.iter().find_map(|(question, selector)| selector.leaves(&set(question.by)).err()).map(|error| error.to_string())
}

fn of_gate(gate: &Gate) -> Vec<Question> {
    let counter = |text: &String| Question::counter(text, gate.by);
    let mut all = Vec::new();
    if let Some(rule) = &gate.error_rate {
        all.extend([counter(&rule.bad), counter(&rule.total)]);
    }
    if let Some(rule) = &gate.latency {
        all.push(Question::histogram(&rule.histogram, gate.by));
        all.extend(rule.failed.as_ref().map(counter));
    }
    all.extend(gate.event_rate.as_ref().map(|rule| counter(&rule.counter)));
    all.extend(gate.relative.as_ref().map(|rule| counter(&rule.counter)));
    all
}

/// Whose counters are a side's.
#[derive(Debug, Clone, Default)]
pub(super) struct Subject {
    pub(super) pods: Vec<PodKnown>,
    pub(super) services: Vec<String>,
}

impl Subject {
    /// By what its series are told apart.
    pub(super) fn grouping(&self, by: By, labels: &LabelNames) -> Grouping {
        match by {
            By::Pod => Grouping::Pod(labels.pod.clone()),
            By::Service => Grouping::Service { label: labels.service.clone(), names: self.services.clone() },
        }
    }
}

/// The two sides, and of stable's the pods beside the canary's, where the release has such.
pub(super) struct Sides {
    pub(super) canary: Subject,
    pub(super) stable: Subject,
    pub(super) baseline: Option<Subject>,
}

impl Sides {
    pub(super) fn of(observed: &Observed) -> Self {
        let release = &observed.release;
        let stable = release.spec.traffic.service.clone();
        let canary = names::canary(&stable);
        // A pod that has ended counts no more, however long its object stays.
        let ended = |pod: &Json| matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed");
        let known = |pods: &[Json]| pods.iter().filter(|one| !ended(one)).map(pod).collect::<Vec<_>>();
        let (of_canary, of_target) = (known(observed.canary_pods.list()), known(observed.target_pods.list()));
        let current = release.status.as_ref().and_then(|status| status.current.as_ref());
        let step = current.map(|current| current.step);
        // Once traffic is handed back, the target's pods are the candidate's too.
        if matches!(step, Some(Step::HandBack | Step::Drain | Step::Soak)) {
            let all = Subject { pods: [of_canary, of_target].concat(), services: vec![canary, stable] };
            return Self { canary: all, stable: Subject::default(), baseline: None };
        }
        let beside = current.and_then(|current| current.baseline_pods.as_ref());
        let of_baseline =
            |_| Subject { pods: known(observed.baseline.pods.list()), services: vec![names::baseline(&stable)] };
        Self {
            baseline: beside.map(of_baseline),
            canary: Subject { pods: of_canary, services: vec![canary] },
            stable: Subject { pods: of_target, services: vec![stable] },
        }
    }

    fn all(&self) -> impl Iterator<Item = &Subject> {
        [&self.canary, &self.stable].into_iter().chain(&self.baseline)
    }

    fn pods(&self) -> Vec<String> {
        self.all().flat_map(|side| &side.pods).map(|pod| pod.name.clone()).collect()
    }

    fn services(&self) -> impl Iterator<Item = &String> {
        self.all().flat_map(|side| &side.services)
    }
}

fn pod(pod: &Json) -> PodKnown {
    let created = object::text(pod, "/metadata/creationTimestamp").parse::<Timestamp>();
    PodKnown { name: object::name(pod).to_owned(), started_at_ms: created.map_or(0, Timestamp::as_millisecond) }
}

/// One answer, or why there is none.
pub(super) type Answer = Result<Found, String>;

/// What an answer holds.
#[derive(Debug, Clone)]
pub(super) enum Found {
    /// Counters, or the buckets of classic histograms.
    Series(Vec<Series>),
    /// Native histograms.
    Natives(Vec<NativeSeries>),
}

impl Found {
    /// Whatever it is, as plain counters: who was scraped, and when.
    pub(super) fn counts(&self) -> Cow<'_, [Series]> {
        match self {
            Self::Series(all) => Cow::Borrowed(all),
            Self::Natives(all) => all.iter().map(NativeSeries::counts).collect(),
        }
    }

    /// The series whose labels are wanted.
    fn only(&self, wanted: impl Fn(&BTreeMap<String, String>) -> bool) -> Self {
        match self {
            Self::Series(all) => Self::Series(all.iter().filter(|one| wanted(&one.labels)).cloned().collect()),
            Self::Natives(all) => Self::Natives(all.iter().filter(|one| wanted(&one.labels)).cloned().collect()),
        }
    }

    /// The samples that a question at a time would have brought.
    fn between(&self, from: Timestamp, at: Timestamp) -> Self {
        let (from, at) = (from.as_millisecond(), at.as_millisecond());
        match self {
            Self::Series(all) => Self::Series(
                all.iter()
                    .map(|one| (one, part(&one.samples, |sample| sample.at_ms, from, at)))
                    .filter(|(_, samples)| !samples.is_empty())
                    .map(|(one, samples)| Series { labels: one.labels.clone(), samples })
                    .collect(),
            ),
            Self::Natives(all) => Self::Natives(
                all.iter()
                    .map(|one| (one, part(&one.samples, |sample| sample.at_ms, from, at)))
                    .filter(|(_, samples)| !samples.is_empty())
                    .map(|(one, samples)| NativeSeries { labels: one.labels.clone(), samples })
                    .collect(),
            ),
        }
    }

    /// Both together. Nothing is of either kind.
    fn and(self, other: Self) -> Answer {
        match (self, other) {
            (Self::Series(none), other) | (other, Self::Series(none)) if none.is_empty() => Ok(other),
            (Self::Series(one), Self::Series(other)) => Ok(Self::Series([one, other].concat())),
            (Self::Natives(one), Self::Natives(other)) => Ok(Self::Natives([one, other].concat())),
            _ => Err("one Service has classic buckets and the other a native histogram".to_owned()),
        }
    }
}

/// Samples after `from`, up to and with `until`.
fn part<S: Clone>(samples: &[S], at_ms: fn(&S) -> i64, from: i64, until: i64) -> Vec<S> {
    let first = samples.partition_point(|sample| at_ms(sample) <= from);
    let last = samples.partition_point(|sample| at_ms(sample) <= until);
    samples.get(first..last).unwrap_or_default().to_vec()
}

/// The answers of one tick.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// To questions by pod: of both sides.
    pods: BTreeMap<Question, Answer>,
    /// To questions by Service: Service by Service.
    services: BTreeMap<Question, BTreeMap<String, Answer>>,
}

impl Answers {
    /// Asks everything once. A question about nobody has that for an answer.
    ///
    /// # Errors
    /// There is nobody to ask about at all.
    pub(super) async fn ask(
        source: &dyn MetricSource,
        release: &CanaryRelease,
        sides: &Sides,
        lookback: Duration,
        now: Timestamp,
    ) -> Result<Self, String> {
        let namespace = release.metadata.namespace.as_deref().unwrap_or_default();
        let (mut wanted, mut answers) = (Vec::new(), Self::default());
        for (question, selector) in questions(release) {
            match scopes(question.by, namespace, sides, source.labels()) {
                Ok(scopes) => {
                    wanted.extend(scopes.into_iter().map(|scope| (question.clone(), selector.clone(), scope)))
                }
                Err(error) => drop(answers.pods.insert(question, Err(error.to_string()))),
            }
        }
        if let (true, Some(Err(nobody))) = (wanted.is_empty(), answers.pods.values().next()) {
            return Err(nobody.clone());
        }
        let asked = wanted.into_iter().map(|(question, selector, (of, scope))| async move {
            let answer = question.ask(source, &selector, &scope, lookback, now).await;
            (question, of, answer)
        });
        for (question, of, answer) in join_all(asked).await {
            match of {
                None => drop(answers.pods.insert(question, answer)),
                Some(service) => drop(answers.services.entry(question).or_default().insert(service, answer)),
            }
        }
        Ok(answers)
    }

    /// The same as they would have been at an earlier time.
    pub(super) fn between(&self, from: Timestamp, at: Timestamp) -> Self {
        let cut = |answer: &Answer| answer.as_ref().map(|found| found.between(from, at)).map_err(Clone::clone);
        let services = self.services.iter().map(|(question, of)| {
            (question.clone(), of.iter().map(|(service, answer)| (service.clone(), cut(answer))).collect())
        });
        Self {
            pods: self.pods.iter().map(|(question, answer)| (question.clone(), cut(answer))).collect(),
            services: services.collect(),
        }
    }

    /// What each question says of a side.
    pub(super) fn of(&self, side: &Subject, labels: &LabelNames) -> BTreeMap<&Question, Answer> {
        let names: BTreeSet<&String> = side.pods.iter().map(|pod| &pod.name).collect();
        let pods = self.pods.iter().map(|(question, answer)| {
            let own = |of: &BTreeMap<String, String>| of.get(&labels.pod).is_some_and(|pod| names.contains(pod));
            (question, answer.as_ref().map(|found| found.only(own)).map_err(Clone::clone))
        });
        let services = self.services.iter().map(|(question, of)| {
            let mut own = side.services.iter().filter_map(|service| of.get(service).cloned());
            (question, own.try_fold(Found::Series(Vec::new()), |all, one| all.and(one?)))
        });
        pods.chain(services).collect()
    }

    /// What gateways were seen to count, of whichever Service.
    pub(super) fn of_gateways(&self) -> impl Iterator<Item = &Found> {
        self.services.values().flat_map(BTreeMap::values).flatten()
    }
}

/// The scopes that a question has, with the Service where it is of one.
fn scopes(
    by: By,
    namespace: &str,
    sides: &Sides,
    labels: &LabelNames,
) -> Result<Vec<(Option<String>, Scope)>, ScopeError> {
    match by {
        By::Pod => Ok(vec![(None, Scope::pods(namespace, sides.pods(), labels)?)]),
        By::Service => sides
            .services()
            .map(|service| Ok((Some(service.clone()), Scope::service(namespace, service, labels)?)))
            .collect(),
    }
}
