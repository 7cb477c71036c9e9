//! Reads the gates' metrics and keeps, between ticks, what each counter last said. One question per
//! counter and tick, however many gates ask it; the pods' sides are told apart in the answer. What
//! is kept here may be lost at any time: the sums in the status are then gone on from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use canary_api::{CanaryRelease, Counted, Gate, ReleaseStatus, Step, names::ANNOTATION_COMMAND};
use canary_core::{
    Observed,
    gates::{self, Measure, Reading},
    object,
};
use canary_counters::{
    Grouping, HistogramUnit, Measured, Meter, PodKnown, Scope, Selector, Series, Tick, Value, ValueLimit, histogram,
    measure, value,
};
use canary_metrics::MetricSource;
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::Value as Json;

/// Samples are asked for at least this far back.
const LOOKBACK: Duration = Duration::from_secs(60);

/// What is remembered of one CanaryRelease between ticks.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Release and window that it counts for.
    release: String,
    window: Timestamp,
    canary: Meter,
    stable: Meter,
    /// Sums from the status that the meters do not know of.
    before: Vec<Counted>,
    streaks: BTreeMap<String, u32>,
    asked: Option<Timestamp>,
    readings: Vec<Reading>,
    share: Option<f64>,
}

impl Ledger {
    fn new(current: &ReleaseStatus, window: Timestamp, now: Timestamp, scrape: Option<Duration>) -> Self {
        let interval = scrape.and_then(|interval| i64::try_from(interval.as_millis()).ok());
        // Sums in the status were counted by an operator that is no more; counting goes on from now.
        let since = if current.counts.is_empty() { window } else { now };
        let meter = || Meter::new(since.as_millisecond()).with_scrape_interval(interval);
        let streaks = current.counts.iter().map(|sums| (sums.gate.clone(), sums.streak)).collect();
        Self {
            release: current.id.clone(),
            window,
            canary: meter(),
            stable: meter(),
            before: current.counts.clone(),
            streaks,
            asked: None,
            readings: Vec::new(),
            share: None,
        }
    }

    /// Goes over to the window that the status speaks of.
    fn follow(&mut self, current: &ReleaseStatus, window: Timestamp) -> bool {
        if self.release != current.id {
            return false;
        }
        if self.window != window {
            self.window = window;
            self.canary.begin_window(window.as_millisecond());
            self.stable.begin_window(window.as_millisecond());
            self.before.clear();
            self.streaks.clear();
            self.asked = None;
            self.readings.clear();
            self.share = None;
        }
        true
    }

    fn before(&self, gate: &str, side: &str) -> Counted {
        self.before.iter().find(|sums| sums.gate == gate && sums.side == side).cloned().unwrap_or_default()
    }
}

/// Whether this step's gates are judged on metrics.
fn measured(release: &CanaryRelease) -> bool {
    let Some(current) = release.status.as_ref().and_then(|status| status.current.as_ref()) else { return false };
    match current.step {
        Step::Baseline | Step::Shift | Step::Bake | Step::Roll | Step::HandBack | Step::Drain | Step::Soak => true,
        Step::Scale => current.stage_index > 0,
        Step::Revert | Step::RevertDrain | Step::RevertTarget | Step::Done => false,
    }
}

/// Fills the readings of what was observed, asking the source where a tick is due.
pub(super) async fn gates(
    ledger: &mut Option<Ledger>,
    source: Result<&dyn MetricSource, String>,
    observed: &mut Observed,
    now: Timestamp,
) {
    let release = &observed.release;
    if !measured(release) {
        *ledger = None;
        return;
    }
    let Some(current) = release.status.as_ref().and_then(|status| status.current.as_ref()) else { return };
    let window = current.window_since.as_ref().map_or(now, |since| since.0);
    let source = match source {
        Ok(source) => source,
        Err(why) => {
            observed.readings =
                release.spec.gates.iter().map(|gate| both(gate, &Measure::Error(why.clone()))).collect();
            return;
        }
    };
    if !ledger.as_mut().is_some_and(|ledger| ledger.follow(current, window)) {
        tracing::debug!(release = current.id, window = %window, sums = current.counts.len(), "counting begins anew");
        *ledger = Some(Ledger::new(current, window, now, source.scrape_interval()));
    }
    let Some(ledger) = ledger.as_mut() else { return };
    let interval = release.spec.interval.std();
    let young = ledger.asked.is_some_and(|asked| since(asked, now) < interval.mul_f64(0.8));
    // A command or a deletion does not wait for a metrics store; its tick goes by what was last read.
    let commanded = release.metadata.deletion_timestamp.is_some()
        || release.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(ANNOTATION_COMMAND));
    if !young && !commanded {
        ask(ledger, source, observed, now).await;
        ledger.asked = Some(now);
    }
    observed.readings.clone_from(&ledger.readings);
    observed.share = ledger.share;
}

fn since(earlier: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(earlier)).unwrap_or(Duration::ZERO)
}

fn both(gate: &Gate, measure: &Measure) -> Reading {
    Reading { gate: gate.name.clone(), canary: measure.clone(), stable: measure.clone(), baseline: None }
}

/// The two sides' pods.
struct Sides {
    canary: Vec<PodKnown>,
    stable: Vec<PodKnown>,
}

impl Sides {
    fn of(observed: &Observed) -> Self {
        let known = |pods: &[Json]| pods.iter().map(pod).collect::<Vec<_>>();
        let step =
            observed.release.status.as_ref().and_then(|status| status.current.as_ref()).map(|current| current.step);
        // Once traffic is handed back, the target's pods are the candidate's too.
        if matches!(step, Some(Step::HandBack | Step::Drain | Step::Soak)) {
            let all = [observed.canary_pods.list(), observed.target_pods.list()].concat();
            return Self { canary: known(&all), stable: Vec::new() };
        }
        Self { canary: known(observed.canary_pods.list()), stable: known(observed.target_pods.list()) }
    }

    fn names(&self) -> Vec<String> {
        self.canary.iter().chain(&self.stable).map(|pod| pod.name.clone()).collect()
    }
}

fn pod(pod: &Json) -> PodKnown {
    let created = object::text(pod, "/metadata/creationTimestamp").parse::<Timestamp>();
    PodKnown { name: object::name(pod).to_owned(), started_at_ms: created.map_or(0, Timestamp::as_millisecond) }
}

/// Answers to the counters of one tick, by the selector's text.
type Answers = BTreeMap<String, Result<Vec<Series>, String>>;

/// The selectors that the spec's gates need, each once. Histograms are asked by their buckets.
fn selectors(release: &CanaryRelease) -> BTreeMap<String, Selector> {
    let mut wanted = BTreeMap::new();
    let mut add = |text: &str, buckets: bool| {
        if let Ok(selector) = Selector::parse(text) {
            let selector = if buckets { selector.bucket() } else { selector };
            wanted.insert(key(text, buckets), selector);
        }
    };
    add(&release.spec.traffic.requests.counter, false);
    for gate in &release.spec.gates {
        if let Some(rule) = &gate.error_rate {
            add(&rule.bad, false);
            add(&rule.total, false);
        }
        if let Some(rule) = &gate.latency {
            add(&rule.histogram, true);
            if let Some(failed) = &rule.failed {
                add(failed, false);
            }
        }
        if let Some(rule) = &gate.event_rate {
            add(&rule.counter, false);
        }
        if let Some(rule) = &gate.relative {
            add(&rule.counter, false);
        }
    }
    wanted
}

fn key(text: &str, buckets: bool) -> String {
    if buckets { format!("buckets of {text}") } else { text.to_owned() }
}

async fn ask(ledger: &mut Ledger, source: &dyn MetricSource, observed: &Observed, now: Timestamp) {
    let release = &observed.release;
    let namespace = release.metadata.namespace.as_deref().unwrap_or_default();
    let sides = Sides::of(observed);
    let lookback = LOOKBACK.max(release.spec.interval.std().saturating_mul(4));
    let scope = match Scope::pods(namespace, sides.names(), source.labels()) {
        Ok(scope) => scope,
        Err(error) => {
            let none = Measure::NoData(error.to_string());
            ledger.readings = release.spec.gates.iter().map(|gate| both(gate, &none)).collect();
            return;
        }
    };
    let wanted = selectors(release);
    let counters = join_all(wanted.iter().map(|(key, selector)| {
        let scope = &scope;
        async move {
            (key.clone(), source.counters(selector, scope, lookback, now).await.map_err(|error| error.to_string()))
        }
    }));
    let values = join_all(release.spec.gates.iter().filter_map(|gate| Some((gate, gate.value.as_ref()?))).map(
        |(gate, rule)| {
            let sides = &sides;
            async move { (gate.name.clone(), number(source, namespace, rule, sides, now).await) }
        },
    ));
    let (answers, values): (Answers, BTreeMap<String, Result<f64, Measure>>) = {
        let (answers, values) = futures::join!(counters, values);
        (answers.into_iter().collect(), values.into_iter().collect())
    };
    let lookback_ms = i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX);
    let tick = |pods: &[PodKnown]| Tick {
        now_ms: now.as_millisecond(),
        covered_from_ms: now.as_millisecond().saturating_sub(lookback_ms),
        pods: pods.to_vec(),
        grouping: Grouping::Pod(source.labels().pod.clone()),
    };
    let seconds = since(ledger.window, now).as_secs_f64();
    let canary = Side::read(&mut ledger.canary, &tick(&sides.canary), &answers, &source.labels().pod, release);
    let stable = Side::read(&mut ledger.stable, &tick(&sides.stable), &answers, &source.labels().pod, release);
    let mut readings = Vec::new();
    for gate in &release.spec.gates {
        let baseline = release
            .status
            .as_ref()
            .and_then(|status| status.current.as_ref())
            .and_then(|current| current.baseline.iter().find(|sums| sums.gate == gate.name));
        let baseline = baseline.map(|sums| Measure::Counted { n: sums.n, k: sums.k, seconds: sums.seconds });
        let (canary, stable) = match values.get(&gate.name) {
            Some(answer) => (
                streak(&mut ledger.streaks, gate, answer),
                Measure::NoData("a value gate looks at the candidate only".to_owned()),
            ),
            None => (
                with_before(canary.gate(gate), &ledger.before(&gate.name, "canary"), seconds),
                with_before(stable.gate(gate), &ledger.before(&gate.name, "stable"), seconds),
            ),
        };
        readings.push(Reading { gate: gate.name.clone(), canary, stable, baseline });
    }
    tracing::debug!(?readings, "gates read");
    ledger.share = share(canary.requests(), stable.requests());
    ledger.readings = readings;
}

/// The canary's share of the requests, where enough were counted to say.
fn share(canary: Option<f64>, stable: Option<f64>) -> Option<f64> {
    let (canary, stable) = (canary?, stable?);
    let all = canary + stable;
    (all >= 100.0).then(|| canary / all)
}

/// One side's counters at this tick.
struct Side {
    readings: BTreeMap<String, Result<canary_counters::Reading, String>>,
    latencies: BTreeMap<String, Measured>,
    requests: String,
}

impl Side {
    fn read(meter: &mut Meter, tick: &Tick, answers: &Answers, pod_label: &str, release: &CanaryRelease) -> Self {
        let pods: BTreeSet<&str> = tick.pods.iter().map(|pod| pod.name.as_str()).collect();
        let own = |series: &Vec<Series>| -> Vec<Series> {
            series.iter().filter(|one| pods.contains(one.label(pod_label))).cloned().collect()
        };
        let mine: BTreeMap<&String, Result<Vec<Series>, &String>> =
            answers.iter().map(|(key, answer)| (key, answer.as_ref().map(own))).collect();
        for series in mine.values().flatten() {
            meter.witness(series, tick);
        }
        let mut readings = BTreeMap::new();
        for (key, series) in mine.iter().filter(|(key, _)| !key.starts_with("buckets of ")) {
            let reading = match series {
                Ok(series) => meter.absorb(key, series, tick).map_err(|error| error.to_string()),
                Err(why) => Err((*why).clone()),
            };
            readings.insert((*key).clone(), reading);
        }
        let mut latencies = BTreeMap::new();
        for (gate, rule) in release.spec.gates.iter().filter_map(|gate| Some((gate, gate.latency.as_ref()?))) {
            let measured = match mine.get(&key(&rule.histogram, true)) {
                Some(Ok(series)) => latency(meter, tick, gate, rule, series, &readings),
                Some(Err(why)) => Measured::Error((*why).clone()),
                None => Measured::Error(format!("{} is not a histogram's name", rule.histogram)),
            };
            latencies.insert(gate.name.clone(), measured);
        }
        Self { readings, latencies, requests: release.spec.traffic.requests.counter.clone() }
    }

    fn reading(&self, text: &str) -> Result<&canary_counters::Reading, Measured> {
        match self.readings.get(text) {
            Some(Ok(reading)) => Ok(reading),
            Some(Err(why)) => Err(Measured::Error(why.clone())),
            None => Err(Measured::Error(format!("{text} is not a counter selector"))),
        }
    }

    fn requests(&self) -> Option<f64> {
        self.reading(&self.requests).ok().map(canary_counters::Reading::total)
    }

    /// A gate's counts on this side: k of n, over a time that the caller knows.
    fn gate(&self, gate: &Gate) -> Measured {
        let counted = || -> Result<Measured, Measured> {
            if let Some(rule) = &gate.error_rate {
                return Ok(measure::share(self.reading(&rule.total)?, self.reading(&rule.bad)?));
            }
            if gate.latency.is_some() {
                return Ok(self
                    .latencies
                    .get(&gate.name)
                    .cloned()
                    .unwrap_or_else(|| Measured::Error("not read".to_owned())));
            }
            let rule = gate
                .event_rate
                .as_ref()
                .map(|rule| &rule.counter)
                .or_else(|| gate.relative.as_ref().map(|rule| &rule.counter));
            let Some(counter) = rule else { return Ok(Measured::Error("the gate has no counter".to_owned())) };
            let requests = self.reading(&self.requests)?;
            let events = measure::event_rate(self.reading(counter)?, Some(requests));
            // Events are compared per request; their time is the window's.
            Ok(with_n(events, requests.total()))
        };
        counted().unwrap_or_else(|error| error)
    }
}

fn with_n(measured: Measured, requests: f64) -> Measured {
    match measured {
        Measured::Counted { k, .. } => Measured::Counted { n: requests, k },
        Measured::Stale { why, k, .. } => Measured::Stale { why, n: requests, k },
        other => other,
    }
}

fn latency(
    meter: &mut Meter,
    tick: &Tick,
    gate: &Gate,
    rule: &canary_api::Latency,
    series: &[Series],
    readings: &BTreeMap<String, Result<canary_counters::Reading, String>>,
) -> Measured {
    let failed = rule.failed.as_deref().and_then(|text| Selector::parse(text).ok());
    let histogram =
        match meter.absorb_histogram(&format!("{} ({})", rule.histogram, gate.name), series, failed.as_ref(), tick) {
            Ok(histogram) => histogram,
            Err(error) => return Measured::Error(error.to_string()),
        };
    let limit_ms = u32::try_from(rule.limit.millis()).unwrap_or(u32::MAX);
    let limit = Selector::parse(&rule.histogram)
        .map_or(HistogramUnit::Seconds, |selector| HistogramUnit::of(selector.metric()))
        .limit(limit_ms);
    let failed = rule.failed.as_ref().and_then(|text| readings.get(text)).and_then(|reading| reading.as_ref().ok());
    histogram::latency(&histogram, limit, failed).breach
}

fn with_before(measured: Measured, before: &Counted, seconds: f64) -> Measure {
    match measured {
        Measured::Counted { n, k } => Measure::Counted { n: n + before.n, k: k + before.k, seconds },
        Measured::Stale { why, n, k } => Measure::Partial { n: n + before.n, k: k + before.k, seconds, why },
        Measured::NoData(why) => Measure::NoData(why),
        Measured::Error(why) => Measure::Error(why),
    }
}

/// The worst value of the candidate's pods.
async fn number(
    source: &dyn MetricSource,
    namespace: &str,
    rule: &canary_api::spec::Value,
    sides: &Sides,
    now: Timestamp,
) -> Result<f64, Measure> {
    let names: Vec<String> = sides.canary.iter().map(|pod| pod.name.clone()).collect();
    let scope =
        Scope::pods(namespace, names.clone(), source.labels()).map_err(|error| Measure::NoData(error.to_string()))?;
    let answer = source
        .value(&rule.query, &scope, source.requires_pods(), now)
        .await
        .map_err(|error| Measure::Error(error.to_string()))?;
    let pods: BTreeSet<String> = names.into_iter().collect();
    let limits = [rule.max.map(ValueLimit::Max), rule.min.map(ValueLimit::Min)];
    let mut shown = None;
    for limit in limits.into_iter().flatten() {
        match value::worst(&answer, limit, &source.labels().pod, &pods) {
            // The value that breaks a limit is the one to show.
            Value::Measured { value, within: false, .. } => return Ok(value),
            Value::Measured { value, missing, .. } if missing.is_empty() => shown = Some(value),
            Value::Measured { missing, .. } => {
                return Err(Measure::NoData(format!("no value of {}", missing.join(", "))));
            }
            Value::NoData(why) => return Err(Measure::NoData(why)),
            Value::Error(why) => return Err(Measure::Error(why)),
        }
    }
    shown.ok_or_else(|| Measure::Error("the gate has neither max nor min".to_owned()))
}

/// Ticks in a row outside the limits; a tick without an answer neither adds to them nor ends them.
fn streak(streaks: &mut BTreeMap<String, u32>, gate: &Gate, answer: &Result<f64, Measure>) -> Measure {
    let value = match answer {
        Ok(value) => *value,
        Err(measure) => return measure.clone(),
    };
    let outside = gate.value.as_ref().is_some_and(|rule| gates::outside(rule, value));
    let streak = streaks.entry(gate.name.clone()).or_default();
    *streak = if outside { streak.saturating_add(1) } else { 0 };
    Measure::Number { value, streak: *streak }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canary_core::{Fetched, observed::Hold};
    use canary_counters::{Sample, Series};
    use canary_metrics::fake::FakeSource;
    use serde_json::json;

    fn release(step: &str, window: &str) -> CanaryRelease {
        serde_json::from_value(json!({
            "apiVersion": "canaryrelease.dev/v1alpha1", "kind": "CanaryRelease",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "target": {"name": "web"}, "interval": "2s",
                "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "requests_total"}},
                "stages": [{"weight": "100%", "duration": "10s"}],
                "gates": [{"name": "errors", "errorRate": {"bad": "bad_total", "total": "requests_total", "limit": "1%"}}],
            },
            "status": {"current": {"id": "web-1", "step": step, "stageIndex": 0, "windowSince": window}},
        }))
        .unwrap()
    }

    fn observed(release: CanaryRelease) -> Observed {
        let pod = |name: &str| json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}});
        Observed {
            release,
            rivals: Fetched::Missing,
            target: Fetched::Missing,
            canary: Fetched::Missing,
            replica_sets: Fetched::Missing,
            target_pods: Fetched::Known(vec![pod("s")]),
            canary_pods: Fetched::Known(vec![pod("c")]),
            service: Fetched::Missing,
            canary_service: Fetched::Missing,
            routes: Vec::new(),
            autoscalers: Fetched::Missing,
            budgets: Fetched::Missing,
            network_policies: Fetched::Missing,
            serving_records: Fetched::Missing,
            hold: Hold::NotTried,
            policies: String::new(),
            provider_problem: None,
            readings: Vec::new(),
            share: None,
        }
    }

    /// A counter of one pod, sampled each second, that rises by `rate` from second 0 of the minute on.
    fn series(pod: &str, rate: f64, until: i64) -> Series {
        let zero = "2026-01-01T01:00:00Z".parse::<Timestamp>().unwrap().as_millisecond();
        let samples = (0..=until)
            .map(|second| Sample {
                at_ms: zero.saturating_add(second.saturating_mul(1000)),
                value: rate * second as f64,
            })
            .collect();
        Series { labels: [("pod".to_owned(), pod.to_owned()), ("code".to_owned(), "200".to_owned())].into(), samples }
    }

    fn at(second: i64) -> Timestamp {
        format!("2026-01-01T01:00:{second:02}Z").parse().unwrap()
    }

    async fn tick(ledger: &mut Option<Ledger>, release: CanaryRelease, second: i64) -> (Measure, Measure) {
        let source = FakeSource::new();
        source.set_counter("requests_total", Ok(vec![series("s", 10.0, second), series("c", 1.0, second)]));
        source.set_counter("bad_total", Ok(Vec::new()));
        let mut observed = observed(release);
        gates(ledger, Ok(&source), &mut observed, at(second)).await;
        let reading = observed.readings.remove(0);
        (reading.canary, reading.stable)
    }

    #[tokio::test]
    async fn each_window_counts_from_its_own_beginning_on_both_sides() {
        let mut ledger = None;
        let since = "2026-01-01T01:00:10Z";
        let (canary, stable) = tick(&mut ledger, release("Baseline", since), 20).await;
        assert_eq!(canary, Measure::Counted { n: 10.0, k: 0.0, seconds: 10.0 });
        assert_eq!(stable, Measure::Counted { n: 100.0, k: 0.0, seconds: 10.0 });
        let next = "2026-01-01T01:00:22Z";
        let (canary, _) = tick(&mut ledger, release("Shift", next), 24).await;
        assert_eq!(canary, Measure::Counted { n: 2.0, k: 0.0, seconds: 2.0 });
        let (canary, _) = tick(&mut ledger, release("Bake", next), 30).await;
        assert_eq!(canary, Measure::Counted { n: 8.0, k: 0.0, seconds: 8.0 });
    }

    #[tokio::test]
    async fn after_a_restart_the_sums_of_the_status_are_gone_on_from() {
        let mut restarted = release("Bake", "2026-01-01T01:00:10Z");
        let sums = Counted { gate: "errors".into(), side: "canary".into(), n: 7.0, k: 1.0, seconds: 9.0, streak: 0 };
        restarted.status.as_mut().unwrap().current.as_mut().unwrap().counts = vec![sums];
        let mut ledger = None;
        let (canary, _) = tick(&mut ledger, restarted.clone(), 20).await;
        assert_eq!(canary, Measure::NoData("requests_total counted nothing yet".into()));
        let (canary, _) = tick(&mut ledger, restarted, 25).await;
        assert_eq!(canary, Measure::Counted { n: 12.0, k: 1.0, seconds: 15.0 });
    }
}
