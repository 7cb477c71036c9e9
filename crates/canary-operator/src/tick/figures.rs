//! Figures beside the gates, for the record: CPU and memory of either side's pods, and the queries of `spec.comparison`.
//! A store is asked about them by a task of its own after a tick has done its work, and the next tick takes what came
//! of it: nothing ever waits for these answers, and nothing is decided by them. The pods' own endpoints are read
//! for the gates anyway. What could not be read says why.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use canary_api::{ComparedQuery, Step};
use canary_core::{Observed, figures::Gauge, traffic};
use canary_counters::{Instant, LabelNames, Scope, Selector, Series};
use canary_metrics::MetricSource;
use canary_stats::{Batches, Estimate};
use futures::future::{join, join_all};
use jiff::Timestamp;
use tokio::{task::JoinSet, time::timeout};

use super::{measure::Ledger, questions::Sides};

/// Longest time for all questions of one look.
const DEADLINE: Duration = Duration::from_secs(5);
/// Samples are asked for at least this far back: many clusters read containers once a minute.
const LOOKBACK: Duration = Duration::from_secs(150);
/// Of the intervals.
const CONFIDENCE: f64 = 0.95;

const CPU: &str = "CPU per pod";
const MEMORY: &str = "Memory per pod";
const BOTH: &str = "CPU and memory per pod";
const QUERIES: &str = "queries of spec.comparison";

/// What CPU and memory are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As the node counts for each container.
    Containers,
    /// As the programs tell of themselves.
    Processes,
}

impl Kind {
    const fn metrics(self) -> (&'static str, &'static str) {
        match self {
            Self::Containers => ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes"),
            Self::Processes => ("process_cpu_seconds_total", "process_resident_memory_bytes"),
        }
    }

    fn selectors(self) -> Option<(Selector, Selector)> {
        let (cpu, memory) = self.metrics();
        // A pod's own group and its sandbox would count everything twice.
        let only = if self == Self::Containers { "{container!~\"|POD\"}" } else { "" };
        let of = |metric: &str| Selector::parse(&format!("{metric}{only}")).ok();
        of(cpu).zip(of(memory))
    }
}

/// The series that pods' own endpoints are to be read for.
pub(super) fn series_of_pods() -> Vec<Selector> {
    Kind::Processes.selectors().map_or_else(Vec::new, |(cpu, memory)| vec![cpu, memory])
}

/// What is to be asked at one look, and of whom.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    release: String,
    window: Timestamp,
    at: Timestamp,
    namespace: String,
    canary: BTreeSet<String>,
    stable: BTreeSet<String>,
    /// Whether `stable` are the pods beside the canary's.
    beside: bool,
    kind: Option<Kind>,
    queries: Vec<ComparedQuery>,
    /// Whether PromQL can be asked.
    promql: bool,
}

impl Plan {
    /// None where nothing is to be looked at: only pods with traffic are compared, and stable before there is any other.
    fn of(observed: &Observed, ledger: &Ledger, promql: bool, at: Timestamp) -> Option<Self> {
        let release = &observed.release;
        let current = release.status.as_ref()?.current.as_ref()?;
        if !matches!(current.step, Step::Baseline | Step::Bake) || !ledger.counts(&current.id) {
            return None;
        }
        let sides = Sides::of(observed);
        let beside = traffic::beside(current) > 0.0;
        let names = |pods: &[canary_counters::PodKnown]| pods.iter().map(|pod| pod.name.clone()).collect();
        let other = sides.baseline.as_ref().filter(|_| beside).unwrap_or(&sides.stable);
        let (canary, stable): (BTreeSet<String>, BTreeSet<String>) = (names(&sides.canary.pods), names(&other.pods));
        (!(canary.is_empty() && stable.is_empty())).then(|| Self {
            release: current.id.clone(),
            window: ledger.window(),
            at,
            namespace: release.metadata.namespace.clone().unwrap_or_default(),
            canary,
            stable,
            beside,
            kind: ledger.figures.kind,
            queries: release.spec.comparison.clone(),
            promql,
        })
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.canary.iter().chain(&self.stable)
    }
}

/// What came of a look.
#[derive(Debug)]
pub(super) struct Answer {
    plan: Plan,
    labels: LabelNames,
    resources: Result<(Kind, Vec<Series>, Vec<Series>), String>,
    /// Of each query: the canary's number, and stable's.
    queries: Vec<(String, Said, Said)>,
}

/// A number, or why there is none; nothing where there is no pod to ask about.
type Said = Option<Result<f64, String>>;

/// A look that is under way.
#[derive(Debug, Default)]
pub(super) struct Asking(JoinSet<Option<Answer>>);

impl Asking {
    /// Takes what has come since the last tick.
    pub(super) fn collect(&mut self, ledger: Option<&mut Ledger>) {
        let mut come = Vec::new();
        while let Some(done) = self.0.try_join_next() {
            come.extend(done.ok().flatten());
        }
        if let Some(ledger) = ledger {
            come.into_iter().for_each(|answer| ledger.take_figures(answer));
        }
    }

    /// Begins the next look at a store, where one is due and none is under way.
    pub(super) fn begin(
        &mut self,
        ledger: Option<&mut Ledger>,
        store: Arc<dyn MetricSource>,
        observed: &Observed,
        now: Timestamp,
    ) {
        let Some(ledger) = ledger.filter(|_| self.0.is_empty()) else { return };
        let spacing =
            observed.release.spec.interval.std().max(store.scrape_interval().unwrap_or_default()).mul_f64(0.8);
        let recent = |asked: Timestamp| Duration::try_from(now.duration_since(asked)).unwrap_or_default() < spacing;
        if ledger.figures.asked.is_some_and(recent) {
            return;
        }
        let Some(plan) = Plan::of(observed, ledger, true, now) else { return };
        ledger.figures.asked = Some(now);
        self.0.spawn(async move {
            let late = Answer {
                labels: store.labels().clone(),
                resources: Err("no answer in time".to_owned()),
                queries: plan.queries.iter().map(|query| nothing(query, "no answer in time")).collect(),
                plan: plan.clone(),
            };
            Some(timeout(DEADLINE, ask(store.as_ref(), plan)).await.unwrap_or(late))
        });
    }
}

fn nothing(query: &ComparedQuery, why: &str) -> (String, Said, Said) {
    (query.name.clone(), Some(Err(why.to_owned())), None)
}

/// Looks at what the pods' own endpoints were just read for.
pub(super) async fn of_pods(samples: &dyn MetricSource, ledger: &mut Ledger, observed: &Observed, at: Timestamp) {
    if let Some(plan) = Plan::of(observed, ledger, false, at) {
        let answer = ask(samples, plan).await;
        ledger.take_figures(answer);
    }
}

async fn ask(source: &dyn MetricSource, plan: Plan) -> Answer {
    let (resources, queries) = join(resources(source, &plan), queries(source, &plan)).await;
    Answer { labels: source.labels().clone(), resources, queries, plan }
}

async fn resources(source: &dyn MetricSource, plan: &Plan) -> Result<(Kind, Vec<Series>, Vec<Series>), String> {
    let scope =
        Scope::pods(&plan.namespace, plan.all().cloned(), source.labels()).map_err(|error| error.to_string())?;
    let wanted = match plan.kind {
        Some(kind) => vec![kind],
        None if plan.promql => vec![Kind::Containers, Kind::Processes],
        None => vec![Kind::Processes],
    };
    let mut missing = Vec::new();
    for kind in wanted {
        let Some((cpu, memory)) = kind.selectors() else { continue };
        let found = source.counters(&memory, &scope, LOOKBACK, plan.at).await.map_err(|error| error.to_string())?;
        let pods: BTreeSet<&str> = found.iter().map(|one| one.label(&source.labels().pod)).collect();
        // Of both sides from one source, or of none.
        let of = |side: &BTreeSet<String>| side.is_empty() || side.iter().any(|pod| pods.contains(pod.as_str()));
        if of(&plan.canary) && of(&plan.stable) {
            let used = source.counters(&cpu, &scope, LOOKBACK, plan.at).await.map_err(|error| error.to_string())?;
            return Ok((kind, used, found));
        }
        missing.push(kind.metrics().1);
    }
    Err(format!("there is no {} of the pods of both sides", missing.join(" and no ")))
}

async fn queries(source: &dyn MetricSource, plan: &Plan) -> Vec<(String, Said, Said)> {
    if !plan.promql {
        let why = "the provider `pods` can't answer PromQL: name a Prometheus in spec.provider";
        return plan.queries.iter().map(|query| nothing(query, why)).collect();
    }
    let asked = plan.queries.iter().map(|query| async move {
        let (canary, stable) =
            join(number(source, plan, query, &plan.canary), number(source, plan, query, &plan.stable)).await;
        (query.name.clone(), canary, stable)
    });
    join_all(asked).await
}

/// The mean over one side's pods.
async fn number(source: &dyn MetricSource, plan: &Plan, query: &ComparedQuery, pods: &BTreeSet<String>) -> Said {
    if pods.is_empty() {
        return None;
    }
    let scope = match Scope::pods(&plan.namespace, pods.iter().cloned(), source.labels()) {
        Ok(scope) => scope,
        Err(error) => return Some(Err(error.to_string())),
    };
    let answer = source.value(&query.query, &scope, true, plan.at).await;
    Some(answer.map_err(|error| error.to_string()).and_then(|answer| mean(&answer, &source.labels().pod, pods)))
}

fn mean(answer: &Instant, label: &str, pods: &BTreeSet<String>) -> Result<f64, String> {
    let values: Vec<f64> = match answer {
        Instant::Scalar(value) => vec![*value],
        Instant::Vector(series) if series.len() <= 1 => series.iter().map(|(_, value)| *value).collect(),
        Instant::Vector(series) => {
            if series.iter().any(|(labels, _)| labels.get(label).is_none_or(|pod| !pods.contains(pod))) {
                return Err(format!(
                    "the query returns {} series; aggregate them to one, or by ({label})",
                    series.len()
                ));
            }
            series.iter().map(|(_, value)| *value).collect()
        }
    };
    if values.is_empty() {
        return Err("the query returns nothing".to_owned());
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    if mean.is_finite() { Ok(mean) } else { Err(format!("the query returns {mean}")) }
}

/// What the looks of one window came to.
#[derive(Debug, Default)]
pub(super) struct Looks {
    kind: Option<Kind>,
    asked: Option<Timestamp>,
    beside: bool,
    cpu: Both,
    memory: Both,
    queries: BTreeMap<String, Both>,
    /// Of each CPU counter what it last said, and when; of each pod when its memory was last sampled.
    last: BTreeMap<Vec<(String, String)>, (i64, f64)>,
    sampled: BTreeMap<String, i64>,
}

/// One figure on both sides.
#[derive(Debug, Default)]
struct Both {
    canary: Batches,
    stable: Batches,
    why: String,
}

impl Both {
    fn push(&mut self, plan: &Plan, pods: &BTreeMap<String, f64>) {
        for (side, batches) in [(&plan.canary, &mut self.canary), (&plan.stable, &mut self.stable)] {
            let values: Vec<f64> = side.iter().filter_map(|pod| pods.get(pod)).copied().collect();
            if !values.is_empty() {
                batches.push(values.iter().sum::<f64>() / values.len() as f64);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.canary.samples() == 0 && self.stable.samples() == 0
    }

    fn told(&self, name: &str, unit: &str, source: &str, least: f64) -> Gauge {
        let of = |batches: &Batches| {
            let found = batches.mean(CONFIDENCE).ok().flatten()?;
            Some(Estimate { low: found.low.map(|low| low.max(least)), ..found })
        };
        Gauge {
            name: name.to_owned(),
            unit: unit.to_owned(),
            source: source.to_owned(),
            canary: of(&self.canary),
            stable: of(&self.stable),
            looks: (self.canary.samples(), self.stable.samples()),
            why: self.why.clone(),
        }
    }
}

impl Looks {
    /// Begins a window; what CPU and memory are read from stays.
    pub(super) fn begin_window(&mut self) {
        *self = Self { kind: self.kind, asked: self.asked, ..Self::default() };
    }

    fn take(&mut self, answer: Answer, since: Timestamp) {
        let Answer { plan, labels, resources, queries } = answer;
        self.beside = plan.beside;
        match resources {
            Ok((kind, cpu, memory)) => {
                self.kind = Some(kind);
                let used = self.rates(&cpu, &labels, since);
                self.cpu.push(&plan, &used);
                let held = self.newest(&memory, &labels);
                self.memory.push(&plan, &held);
            }
            Err(why) => (self.cpu.why, self.memory.why) = (why.clone(), why),
        }
        for (name, canary, stable) in queries {
            let both = self.queries.entry(name).or_default();
            for (said, batches) in [(canary, &mut both.canary), (stable, &mut both.stable)] {
                match said {
                    Some(Ok(number)) => batches.push(number),
                    Some(Err(why)) => both.why = why,
                    None => {}
                }
            }
        }
    }

    /// CPU of each pod since its last sample, in cores; of none that has no new one.
    fn rates(&mut self, series: &[Series], labels: &LabelNames, since: Timestamp) -> BTreeMap<String, f64> {
        let mut cores: BTreeMap<String, f64> = BTreeMap::new();
        for (key, one) in once(series) {
            let Some(newest) = one.samples.last() else { continue };
            let first = one.samples.iter().find(|sample| sample.at_ms >= since.as_millisecond());
            let before = self.last.get(&key).copied().or_else(|| first.map(|first| (first.at_ms, first.value)));
            self.last.insert(key, (newest.at_ms, newest.value));
            let Some((at_ms, value)) = before else { continue };
            let seconds = newest.at_ms.saturating_sub(at_ms) as f64 / 1000.0;
            // Lower than before: the process restarted in between, and nobody knows when.
            if seconds > 0.0 && newest.value >= value {
                *cores.entry(one.label(&labels.pod).to_owned()).or_default() += (newest.value - value) / seconds;
            }
        }
        cores
    }

    /// The newest sum of each pod, where it is newer than the last one that was taken.
    fn newest(&mut self, series: &[Series], labels: &LabelNames) -> BTreeMap<String, f64> {
        let mut pods: BTreeMap<String, (i64, f64)> = BTreeMap::new();
        for (_, one) in once(series) {
            let Some(newest) = one.samples.last() else { continue };
            let pod = pods.entry(one.label(&labels.pod).to_owned()).or_insert((i64::MIN, 0.0));
            *pod = (pod.0.max(newest.at_ms), pod.1 + newest.value);
        }
        pods.retain(|pod, (at_ms, _)| self.sampled.insert(pod.clone(), *at_ms).is_none_or(|before| before < *at_ms));
        pods.into_iter().map(|(pod, (_, value))| (pod, value)).collect()
    }

    /// As the record is told. What was never looked at is not there.
    pub(super) fn told(&self, queries: &[ComparedQuery]) -> Vec<Gauge> {
        let with = if self.beside { " against the baseline pods" } else { "" };
        let source = |of: fn((&'static str, &'static str)) -> &'static str| {
            self.kind.map_or_else(String::new, |kind| format!("{}{with}", of(kind.metrics())))
        };
        let mut told = Vec::new();
        if self.cpu.is_empty() && self.memory.is_empty() {
            if !self.cpu.why.is_empty() {
                told.push(Gauge { name: BOTH.to_owned(), why: self.cpu.why.clone(), ..Gauge::default() });
            }
        } else {
            told.push(self.cpu.told(CPU, " cores", &source(|(cpu, _)| cpu), 0.0));
            told.push(self.memory.told(MEMORY, "B", &source(|(_, memory)| memory), 0.0));
        }
        let asked: Vec<(&ComparedQuery, &Both)> =
            queries.iter().filter_map(|query| Some((query, self.queries.get(&query.name)?))).collect();
        let common = asked.first().map(|(_, both)| both.why.clone()).filter(|why| !why.is_empty());
        if let Some(why) = common
            && asked.len() > 1
            && asked.iter().all(|(_, both)| both.is_empty() && both.why == why)
        {
            told.push(Gauge { name: QUERIES.to_owned(), why, ..Gauge::default() });
            return told;
        }
        let of = |(query, both): (&ComparedQuery, &Both)| {
            both.told(&query.name, query.unit.as_deref().unwrap_or_default(), with.trim_start(), f64::NEG_INFINITY)
        };
        told.extend(asked.into_iter().map(of));
        told
    }
}

/// Each series once, however many scrape it, by the labels that tell what was counted.
fn once(series: &[Series]) -> BTreeMap<Vec<(String, String)>, &Series> {
    let scrapers =
        ["job", "endpoint", "prometheus", "prometheus_replica", "instance", "service", "metrics_path", "node"];
    let counted = |one: &Series| {
        let labels = one.labels.iter().filter(|(name, _)| !scrapers.contains(&name.as_str()));
        labels.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
    };
    let mut all: BTreeMap<Vec<(String, String)>, &Series> = BTreeMap::new();
    for one in series {
        all.entry(counted(one)).or_insert(one);
    }
    all
}

impl Ledger {
    /// Takes a look in, where it is of the window that is counted.
    fn take_figures(&mut self, answer: Answer) {
        if self.counts(&answer.plan.release) && answer.plan.window == self.window() {
            let since = self.window();
            self.figures.take(answer, since);
        }
    }
}

#[cfg(test)]
#[path = "figures_tests.rs"]
mod tests;
