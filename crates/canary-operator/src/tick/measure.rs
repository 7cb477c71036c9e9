//! Reads the gates' metrics and keeps, between ticks, what each counter last said and what the counts prove. One
//! question per counter and tick, however many gates ask it; the pods' sides are told apart in the answer. What is
//! kept here may be lost at any time: it is then replayed from a store that keeps the past, or else the sums in the
//! status are gone on from. It never judges.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use canary_api::{CanaryRelease, CanaryReleaseSpec, Gate, ReleaseStatus, Step, names::ANNOTATION_COMMAND};
use canary_core::{
    Fetched, Observed,
    evidence::{Accounts, LeftOut, Totals},
    gates::{self, Measure, Reading},
    object,
};
use canary_counters::{Grouping, Instant, Meter, PodKnown, Scope, Selector, Series, Tick, Value, ValueLimit, value};
use canary_metrics::{MetricSource, pods::PodScraper};
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::Value as Json;

use super::{
    pods,
    side::{Side, WarmUps},
};

/// Samples are asked for at least this far back.
const LOOKBACK: Duration = Duration::from_secs(60);
/// Of a window younger than this nothing was lost if nothing is in the status.
const YOUNG: Duration = Duration::from_secs(30);
/// A window longer than this is not replayed after a restart.
const REPLAY: Duration = Duration::from_secs(2 * 3600);
/// Nor one of more ticks than this.
const MOST_TICKS: u32 = 1500;
/// Of the requests in the status, at least this part must be found again, or the replay is not believed.
const FOUND: f64 = 0.9;
/// How long after a sample's time a store is taken to answer with it.
const STORED: Duration = Duration::from_millis(300);

/// Where a release's metrics come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// A store that scrapes the pods and answers PromQL.
    Store(&'a dyn MetricSource),
    /// The pods themselves, read each tick.
    Pods(&'a PodScraper),
}

impl Source<'_> {
    /// Whether a query of a value gate must name the candidate's pods.
    pub(super) fn names_pods(&self) -> bool {
        match self {
            Self::Store(store) => store.requires_pods(),
            Self::Pods(_) => true,
        }
    }

    fn sampled_every(&self, release: &CanaryRelease) -> Option<Duration> {
        match self {
            Self::Store(store) => store.scrape_interval(),
            Self::Pods(_) => Some(release.spec.interval.std()),
        }
    }
}

/// What is remembered of one CanaryRelease between ticks.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Release and window that it counts for.
    release: String,
    /// The spec that it counts for.
    spec: CanaryReleaseSpec,
    window: Timestamp,
    /// From when the meters count.
    since: Timestamp,
    canary: Meter,
    stable: Meter,
    /// The gates' warm-ups on either side.
    warm_ups: (WarmUps, WarmUps),
    accounts: Accounts,
    streaks: BTreeMap<String, u32>,
    asked: Option<Timestamp>,
    /// When the canary's next sample should be there.
    due: Option<Timestamp>,
    readings: Vec<Reading>,
    /// Requests a second of the stable side.
    stable_rate: Option<f64>,
}

impl Ledger {
    /// Counts from the window's beginning, or, with `resumed`, goes on from the sums in the status.
    fn new(release: &CanaryRelease, current: &ReleaseStatus, window: Window, resumed: Option<Timestamp>) -> Self {
        let since = resumed.unwrap_or(window.since);
        let meter = || {
            let meter = Meter::new(since.as_millisecond()).with_scrape_interval(window.scrape_ms);
            meter.with_history(window.history)
        };
        let streaks = current.counts.iter().map(|sums| (sums.gate.clone(), sums.streak));
        Self {
            release: current.id.clone(),
            spec: release.spec.clone(),
            window: window.since,
            since,
            canary: meter(),
            stable: meter(),
            warm_ups: (WarmUps::new(), WarmUps::new()),
            accounts: Accounts::new(&release.spec, current, window.since, resumed),
            streaks: streaks.collect(),
            asked: None,
            due: None,
            readings: Vec::new(),
            stable_rate: None,
        }
    }

    /// Whether the spec still asks what this ledger counts.
    fn asks_the_same(&self, release: &CanaryRelease) -> bool {
        let (then, now) = (&self.spec, &release.spec);
        then.gates == now.gates
            && then.traffic.requests == now.traffic.requests
            && then.interval == now.interval
            && then.stages == now.stages
            && then.soak == now.soak
            && then.provider == now.provider
    }

    /// The status with the sums of those gates only that the spec asks for as before.
    fn unchanged(&self, release: &CanaryRelease, current: &ReleaseStatus) -> ReleaseStatus {
        let mut kept = current.clone();
        let same = self.spec.traffic.requests == release.spec.traffic.requests;
        let unchanged = |name: &str| {
            same && self.spec.gates.iter().any(|gate| gate.name == name && release.spec.gates.contains(gate))
        };
        kept.counts.retain(|sums| unchanged(&sums.gate));
        kept
    }

    /// Goes over to the window that the status speaks of.
    fn follow(&mut self, release: &CanaryRelease, current: &ReleaseStatus, window: Timestamp) -> bool {
        if self.release != current.id {
            return false;
        }
        if self.window != window {
            self.window = window;
            self.since = window;
            self.canary.begin_window(window.as_millisecond());
            self.stable.begin_window(window.as_millisecond());
            self.accounts = Accounts::new(&release.spec, current, window, None);
            self.streaks.clear();
            self.asked = None;
            self.due = None;
            self.readings.clear();
        }
        true
    }

    /// Whether this tick goes by what was last read: a command or a deletion does not wait for a metrics store, while
    /// that is fresh, or where the release is given up anyway.
    fn hurried(&self, release: &CanaryRelease, current: &ReleaseStatus, now: Timestamp) -> bool {
        let rolls = matches!(current.step, Step::Roll | Step::HandBack | Step::Drain | Step::Soak);
        if release.metadata.deletion_timestamp.is_some() && !rolls {
            return true;
        }
        let commanded = release.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(ANNOTATION_COMMAND));
        let fresh = release.spec.interval.std().saturating_mul(2);
        commanded && self.asked.is_some_and(|asked| since(asked, now) < fresh)
    }

    /// Whether the time has not come to ask again.
    fn young(&self, interval: Duration, now: Timestamp) -> bool {
        let recent = self.asked.is_some_and(|asked| since(asked, now) < interval.mul_f64(0.8));
        recent && self.due.is_none_or(|due| now < due)
    }
}

/// The window that gates count in, and what is known of its samples.
#[derive(Debug, Clone, Copy)]
struct Window {
    since: Timestamp,
    /// How often they come.
    scrape_ms: Option<i64>,
    /// Whether an answer holds those of the past, too.
    history: bool,
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
    source: Result<Source<'_>, String>,
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
    let edited = ledger.as_ref().is_some_and(|ledger| ledger.release == current.id && !ledger.asks_the_same(release));
    // What was counted under another rule is not held against this one.
    let kept = ledger.as_ref().filter(|_| edited).map(|ledger| ledger.unchanged(release, current));
    if edited || !ledger.as_mut().is_some_and(|ledger| ledger.follow(release, current, window)) {
        let scrape_ms = source.sampled_every(release).and_then(|interval| i64::try_from(interval.as_millis()).ok());
        let history = matches!(source, Source::Store(store) if store.keeps_history());
        let window = Window { since: window, scrape_ms, history };
        *ledger = Some(begin(source, observed, kept.as_ref().unwrap_or(current), window, now).await);
    }
    let Some(ledger) = ledger.as_mut() else { return };
    let interval = release.spec.interval.std();
    if !ledger.young(interval, now) && !ledger.hurried(release, current, now) {
        match source {
            Source::Store(store) => look(ledger, store, observed, now).await,
            Source::Pods(scraper) => {
                let samples = pods::scrape(scraper, observed, &selectors(release), now).await;
                look(ledger, &samples, observed, samples.at()).await;
                pods::explain(&mut ledger.readings, samples.failures());
            }
        }
        ledger.asked = Some(now);
    }
    observed.readings.clone_from(&ledger.readings);
    let traffic = ledger.accounts.traffic();
    observed.share = traffic.share();
    observed.misrouted = traffic.misrouted();
    observed.due_in_silence = traffic.due_in_silence();
    observed.stable_rate = ledger.stable_rate;
    observed.next_look = ledger.due.filter(|due| *due > now).map(|due| since(now, due));
}

/// Asks a source, and takes what it says.
async fn look(ledger: &mut Ledger, source: &dyn MetricSource, observed: &Observed, now: Timestamp) {
    let release = &observed.release;
    let lookback = LOOKBACK.max(release.spec.interval.std().saturating_mul(4));
    let sides = Sides::of(observed);
    match answers(source, release, &sides, lookback, now).await {
        Ok(answers) => {
            let numbers = numbers(source, release, &sides, now).await;
            let covered_from = before(now, lookback);
            take(ledger, observed, &Read { source, sides: &sides, answers, numbers, covered_from, at: now });
            // Only what is sampled by others is worth waiting for; the pods themselves were read just now.
            ledger.due = if source.keeps_history() { sampled_next(ledger, source, release, now) } else { None };
        }
        Err(why) => {
            let nothing = Measure::NoData(why);
            ledger.readings = release.spec.gates.iter().map(|gate| both(gate, &nothing)).collect();
        }
    }
}

fn since(earlier: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(earlier)).unwrap_or(Duration::ZERO)
}

fn before(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_sub(by).unwrap_or(Timestamp::MIN)
}

fn both(gate: &Gate, measure: &Measure) -> Reading {
    Reading {
        gate: gate.name.clone(),
        canary: measure.clone(),
        stable: measure.clone(),
        proof: None,
        baseline: None,
        evidence: None,
        bursts: None,
        left_out: LeftOut::default(),
    }
}

/// The two sides' pods.
struct Sides {
    canary: Vec<PodKnown>,
    stable: Vec<PodKnown>,
}

impl Sides {
    fn of(observed: &Observed) -> Self {
        // A pod that has ended counts no more, however long its object stays.
        let ended = |pod: &Json| matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed");
        let known = |pods: &[Json]| pods.iter().filter(|one| !ended(one)).map(pod).collect::<Vec<_>>();
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
pub(super) type Answers = BTreeMap<String, Result<Vec<Series>, String>>;

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

pub(super) fn key(text: &str, buckets: bool) -> String {
    if buckets { format!("buckets of {text}") } else { text.to_owned() }
}

/// A ledger for a window that is not known yet. After a restart the past is replayed where the store keeps it, so that
/// nothing is lost but time.
async fn begin(
    source: Source<'_>,
    observed: &Observed,
    current: &ReleaseStatus,
    window: Window,
    now: Timestamp,
) -> Ledger {
    let release = &observed.release;
    let elapsed = since(window.since, now);
    // A window that has just begun holds nothing that could have been lost.
    if current.counts.is_empty() && elapsed < YOUNG {
        return Ledger::new(release, current, window, None);
    }
    if let Source::Store(source) = source
        && source.keeps_history()
        && elapsed <= REPLAY.min(release.spec.interval.std().saturating_mul(MOST_TICKS))
        && known(&observed.canary_pods)
        && known(&observed.target_pods)
    {
        let sides = Sides::of(observed);
        if let Ok(answers) = answers(source, release, &sides, elapsed.saturating_add(LOOKBACK), now).await {
            let ledger = replay(source, observed, current, window, &sides, &answers, now).await;
            if found_again(&ledger, current) {
                tracing::info!(release = current.id, "the window's counts were read again from the metrics store");
                return ledger;
            }
        }
    }
    tracing::info!(release = current.id, "counting goes on from the sums in the status");
    Ledger::new(release, current, window, Some(now))
}

/// Whether pods could be listed.
fn known(pods: &Fetched<Vec<Json>>) -> bool {
    matches!(pods, Fetched::Known(_))
}

/// The ledger as it would be had it been there all the time: tick after tick on the samples that were there then.
async fn replay(
    source: &dyn MetricSource,
    observed: &Observed,
    current: &ReleaseStatus,
    window: Window,
    sides: &Sides,
    answers: &Answers,
    now: Timestamp,
) -> Ledger {
    let mut ledger = Ledger::new(&observed.release, current, window, None);
    let interval = observed.release.spec.interval.std();
    let lookback = LOOKBACK.max(interval.saturating_mul(4));
    let (mut at, mut ticks) = (window.since, 0_u32);
    while let Ok(next) = at.checked_add(interval) {
        at = next;
        if at >= now {
            break;
        }
        // Each tick sees what it would have seen; others go on meanwhile.
        let covered_from = before(at, lookback);
        let then: Answers = answers.iter().map(|(key, answer)| (key.clone(), cut(answer, covered_from, at))).collect();
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(8) {
            tokio::task::yield_now().await;
        }
        let numbers = Numbers::new();
        take(&mut ledger, observed, &Read { source, sides, answers: then, numbers, covered_from, at });
    }
    ledger
}

/// The samples that a question at a time would have brought.
fn cut(answer: &Result<Vec<Series>, String>, from: Timestamp, at: Timestamp) -> Result<Vec<Series>, String> {
    let (from, until) = (from.as_millisecond(), at.as_millisecond());
    let part = |one: &Series| {
        let first = one.samples.partition_point(|sample| sample.at_ms <= from);
        let last = one.samples.partition_point(|sample| sample.at_ms <= until);
        let samples = one.samples.get(first..last).filter(|samples| !samples.is_empty())?;
        Some(Series { labels: one.labels.clone(), samples: samples.to_vec() })
    };
    Ok(answer.as_ref().map_err(Clone::clone)?.iter().filter_map(part).collect())
}

/// Whether a replay found what the status says was counted.
fn found_again(ledger: &Ledger, current: &ReleaseStatus) -> bool {
    current.counts.iter().filter(|sums| sums.side == "canary").all(|sums| {
        let reading = ledger.readings.iter().find(|reading| reading.gate == sums.gate).map(|reading| &reading.canary);
        match reading {
            // What was a breach then is told as it was then.
            _ if ledger.accounts.breached(&sums.gate) => true,
            Some(Measure::Counted { n, k, .. } | Measure::Partial { n, k, .. }) => {
                *n >= sums.n * FOUND && *k >= sums.k * FOUND
            }
            _ => sums.n <= 0.0,
        }
    })
}

/// Asks for every counter once.
async fn answers(
    source: &dyn MetricSource,
    release: &CanaryRelease,
    sides: &Sides,
    lookback: Duration,
    now: Timestamp,
) -> Result<Answers, String> {
    let namespace = release.metadata.namespace.as_deref().unwrap_or_default();
    let scope = Scope::pods(namespace, sides.names(), source.labels()).map_err(|error| error.to_string())?;
    let wanted = selectors(release);
    let asked = wanted.iter().map(|(key, selector)| {
        let scope = &scope;
        async move {
            let answer = source.counters(selector, scope, lookback, now).await;
            (key.clone(), answer.map_err(|error| error.to_string()))
        }
    });
    Ok(join_all(asked).await.into_iter().collect())
}

/// Answers to the queries of value gates, by gate.
type Numbers = BTreeMap<String, Result<f64, Measure>>;

async fn numbers(source: &dyn MetricSource, release: &CanaryRelease, sides: &Sides, now: Timestamp) -> Numbers {
    let namespace = release.metadata.namespace.as_deref().unwrap_or_default();
    let asked = release.spec.gates.iter().filter_map(|gate| Some((gate, gate.value.as_ref()?)));
    let asked =
        asked.map(|(gate, rule)| async move { (gate.name.clone(), number(source, namespace, rule, sides, now).await) });
    join_all(asked).await.into_iter().collect()
}

/// What was read for one tick.
struct Read<'a> {
    source: &'a dyn MetricSource,
    sides: &'a Sides,
    answers: Answers,
    numbers: Numbers,
    /// The answers hold every sample from then on.
    covered_from: Timestamp,
    at: Timestamp,
}

impl Read<'_> {
    fn tick(&self, pods: &[PodKnown]) -> Tick {
        Tick {
            now_ms: self.at.as_millisecond(),
            covered_from_ms: self.covered_from.as_millisecond(),
            pods: pods.to_vec(),
            grouping: Grouping::Pod(self.source.labels().pod.clone()),
        }
    }
}

/// Takes what was read for one tick in.
fn take(ledger: &mut Ledger, observed: &Observed, read: &Read<'_>) {
    let release = &observed.release;
    let Some(current) = release.status.as_ref().and_then(|status| status.current.as_ref()) else { return };
    let now = read.at;
    let seconds = since(ledger.since, now).as_secs_f64();
    let label = &read.source.labels().pod;
    let (tick, of_stable) = (read.tick(&read.sides.canary), read.tick(&read.sides.stable));
    let canary = Side::read(&mut ledger.canary, &mut ledger.warm_ups.0, &tick, &read.answers, label, release);
    let stable = Side::read(&mut ledger.stable, &mut ledger.warm_ups.1, &of_stable, &read.answers, label, release);
    let totals: Vec<Totals> = release
        .spec
        .gates
        .iter()
        .filter_map(|gate| match (gate.value.is_some(), read.numbers.get(&gate.name)) {
            (true, Some(answer)) => {
                let nothing = Measure::NoData("a value gate looks at the candidate only".to_owned());
                Some(Totals::new(&gate.name, streak(&mut ledger.streaks, gate, answer), nothing))
            }
            (true, None) => None,
            (false, _) => Some(canary.totals(&stable, gate, seconds, current.step == Step::Baseline)),
        })
        .collect();
    let (canary_known, stable_known) = (known(&observed.canary_pods), known(&observed.target_pods));
    let totals = unread(totals, canary_known, stable_known);
    let requests = canary.requests_beside(&stable).filter(|_| canary_known && stable_known);
    ledger.stable_rate =
        stable.fresh_requests().map(|requests| requests.total() / seconds).filter(|rate| rate.is_finite());
    ledger.readings = ledger.accounts.absorb(&release.spec, current.step, &totals, requests, now);
    tracing::debug!(readings = ?ledger.readings, "gates read");
}

/// Where a side's pods could not be listed, its totals are those of nobody knows whom: they count for nothing.
fn unread(mut totals: Vec<Totals>, canary_known: bool, stable_known: bool) -> Vec<Totals> {
    for total in &mut totals {
        if !canary_known {
            total.canary = Measure::Error("the canary's pods could not be listed".to_owned());
            total.proof = None;
        }
        if !stable_known {
            total.stable = Measure::Error("the target's pods could not be listed".to_owned());
        }
        if !(canary_known && stable_known) {
            total.paired = None;
        }
    }
    totals
}

/// When the canary's next sample should be there, if that is before the next interval is over.
fn sampled_next(
    ledger: &Ledger,
    source: &dyn MetricSource,
    release: &CanaryRelease,
    now: Timestamp,
) -> Option<Timestamp> {
    let (newest, spacing) = ledger.canary.rhythm(&release.spec.traffic.requests.counter)?;
    let spacing = source.scrape_interval().and_then(|given| i64::try_from(given.as_millis()).ok()).unwrap_or(spacing);
    let interval = i64::try_from(release.spec.interval.std().as_millis()).ok()?;
    let stored = i64::try_from(STORED.as_millis()).ok()?;
    next_look(newest.saturating_add(stored), spacing, now.as_millisecond(), interval)
        .and_then(|at| Timestamp::from_millisecond(at).ok())
}

/// The last time of a rhythm (`first`, then every `spacing`) that is after `now` and at most `interval` later.
fn next_look(first: i64, spacing: i64, now: i64, interval: i64) -> Option<i64> {
    if spacing <= 0 {
        return None;
    }
    let last = now.saturating_add(interval).saturating_sub(first).div_euclid(spacing);
    let at = first.saturating_add(last.saturating_mul(spacing));
    (at > now).then_some(at)
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
        .value(&rule.query, &scope, source.requires_pods() && rule.scope == canary_api::Scope::Canary, now)
        .await
        .map_err(|error| Measure::Error(error.to_string()))?;
    let answer = match answer {
        // Of the whole namespace one number is asked for, whatever labels it carries.
        Instant::Vector(series) if rule.scope == canary_api::Scope::Total => match series.as_slice() {
            [(_, value)] => Instant::Scalar(*value),
            [] => Instant::Vector(series),
            many => {
                let why = format!("the query returns {} series; with `scope: Total` aggregate them to one", many.len());
                return Err(Measure::Error(why));
            }
        },
        other => other,
    };
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
            names_pods: true,
            readings: Vec::new(),
            share: None,
            misrouted: None,
            due_in_silence: 0.0,
            stable_rate: None,
            next_look: None,
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
        let reading = tick_on(FakeSource::new(), ledger, release, second).await;
        (reading.canary, reading.stable)
    }

    async fn tick_on(source: FakeSource, ledger: &mut Option<Ledger>, release: CanaryRelease, second: i64) -> Reading {
        source.set_counter("requests_total", Ok(vec![series("s", 10.0, second), series("c", 1.0, second)]));
        source.set_counter("bad_total", Ok(Vec::new()));
        let mut observed = observed(release);
        gates(ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
        observed.readings.remove(0)
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
        let sums = canary_api::Counted {
            gate: "errors".into(),
            side: "canary".into(),
            n: 7.0,
            k: 1.0,
            seconds: 9.0,
            ..Default::default()
        };
        restarted.status.as_mut().unwrap().current.as_mut().unwrap().counts = vec![sums];
        let mut ledger = None;
        let (canary, _) = tick(&mut ledger, restarted.clone(), 20).await;
        assert_eq!(canary, Measure::NoData("requests_total counted nothing yet".into()));
        let (canary, _) = tick(&mut ledger, restarted, 25).await;
        assert_eq!(canary, Measure::Counted { n: 12.0, k: 1.0, seconds: 14.0 });
    }

    #[tokio::test]
    async fn after_a_restart_a_store_that_keeps_the_past_gives_back_every_tick() {
        let mut whole = None;
        let running = release("Bake", "2026-01-01T01:00:10Z");
        let mut all = None;
        for second in (12..=30).step_by(2) {
            all = Some(tick_on(FakeSource::new(), &mut whole, running.clone(), second).await);
        }
        let mut restarted = running;
        let sums = canary_api::Counted {
            gate: "errors".into(),
            side: "canary".into(),
            n: 15.0,
            seconds: 15.0,
            ..Default::default()
        };
        restarted.status.as_mut().unwrap().current.as_mut().unwrap().counts = vec![sums];
        let mut replayed = None;
        let again = tick_on(FakeSource::new().with_history(), &mut replayed, restarted, 30).await;
        assert_eq!(Some(again), all);
    }

    /// The same with a warm-up, a stable pod that has long served, and a canary that gets its first request in second 4.
    fn warming(step: &str, window: &str, warm_up: &str) -> CanaryRelease {
        let mut release = release(step, window);
        release.spec.gates[0].warm_up = Some(warm_up.parse().unwrap());
        release
    }

    async fn warming_tick(
        source: FakeSource,
        ledger: &mut Option<Ledger>,
        release: CanaryRelease,
        second: i64,
    ) -> Reading {
        let late = |rate: f64| {
            let mut series = series("c", rate, second);
            series.samples.iter_mut().for_each(|sample| sample.value = (sample.value - 3.0 * rate).max(0.0));
            series
        };
        let mut stable = series("s", 10.0, second);
        stable.samples.iter_mut().for_each(|sample| sample.value += 5000.0);
        source.set_counter("requests_total", Ok(vec![stable, late(10.0)]));
        source.set_counter("bad_total", Ok(vec![late(1.0)]));
        let mut observed = observed(release);
        gates(ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
        observed.readings.remove(0)
    }

    #[tokio::test]
    async fn the_canarys_first_seconds_of_traffic_are_shown_and_not_judged() {
        let mut ledger = None;
        let window = "2026-01-01T01:00:02Z";
        let first = warming_tick(FakeSource::new(), &mut ledger, warming("Bake", window, "10s"), 10).await;
        assert_eq!(first.canary, Measure::NoData("requests_total counted nothing yet".into()));
        assert_eq!(first.left_out.canary, (70.0, 7.0));
        // The stable pod is an hour old.
        assert_eq!(
            (first.stable, first.left_out.stable),
            (Measure::Counted { n: 80.0, k: 0.0, seconds: 8.0 }, (0.0, 0.0))
        );
        let later = warming_tick(FakeSource::new(), &mut ledger, warming("Bake", window, "10s"), 30).await;
        assert_eq!(later.canary, Measure::Counted { n: 160.0, k: 16.0, seconds: 28.0 });
        assert_eq!(later.left_out.canary, (110.0, 11.0));
        let gate = &warming("Bake", window, "10s").spec.gates[0];
        let shown = gates::judge(gate, Some(&later), 0.5).shown;
        assert_eq!(shown.rests_on, "16 of 160 in 28s; 11 of 110 in warm-up not judged");
        // The next stage's window: nobody is cold again.
        let next = warming("Bake", "2026-01-01T01:00:31Z", "10s");
        let next = warming_tick(FakeSource::new(), &mut ledger, next, 36).await;
        assert_eq!(
            (next.canary, next.left_out.canary),
            (Measure::Counted { n: 50.0, k: 5.0, seconds: 5.0 }, (0.0, 0.0))
        );
    }

    #[tokio::test]
    async fn a_warm_up_is_replayed_as_it_was() {
        let running = warming("Bake", "2026-01-01T01:00:02Z", "10s");
        let (mut whole, mut all) = (None, None);
        for second in (4..=30).step_by(2) {
            all = Some(warming_tick(FakeSource::new().with_history(), &mut whole, running.clone(), second).await);
        }
        let mut restarted = running;
        let sums = canary_api::Counted { gate: "errors".into(), side: "canary".into(), n: 150.0, ..Default::default() };
        restarted.status.as_mut().unwrap().current.as_mut().unwrap().counts = vec![sums];
        let mut replayed = None;
        let again = warming_tick(FakeSource::new().with_history(), &mut replayed, restarted.clone(), 30).await;
        assert_eq!(Some(again), all);
        // Without a past to read, the canary goes on as warm: it served before.
        let mut resumed = None;
        warming_tick(FakeSource::new(), &mut resumed, restarted.clone(), 30).await;
        let resumed = warming_tick(FakeSource::new(), &mut resumed, restarted, 35).await;
        assert_eq!(resumed.canary, Measure::Counted { n: 200.0, k: 5.0, seconds: 5.0 });
    }

    #[tokio::test]
    async fn events_are_held_against_the_time_that_is_judged() {
        let mut release = warming("Bake", "2026-01-01T01:00:02Z", "10s");
        let rule = json!({"counter": "bad_total", "limit": "1/min"});
        release.spec.gates[0].error_rate = None;
        release.spec.gates[0].event_rate = Some(serde_json::from_value(rule).unwrap());
        let mut ledger = None;
        let reading = warming_tick(FakeSource::new(), &mut ledger, release, 30).await;
        // 16 of the canary's 27 seconds of traffic, of 28 seconds in all,
        // and a second more, for what the window's first sample counts of the time before.
        let judged = 29.0 * (16.0 / 27.0);
        assert_eq!(reading.canary, Measure::Counted { n: 160.0, k: 16.0, seconds: judged });
        assert!(matches!(reading.stable, Measure::Counted { seconds, .. } if seconds == 29.0));
    }

    #[tokio::test]
    async fn an_edited_gate_is_judged_by_its_new_limit_at_once() {
        let tick = async |ledger: &mut Option<Ledger>, limit: &str, second: i64| {
            let mut release = release("Bake", "2026-01-01T01:00:10Z");
            release.spec.gates[0].error_rate.as_mut().unwrap().limit = limit.parse().unwrap();
            let source = FakeSource::new().with_history();
            source.set_counter("requests_total", Ok(vec![series("s", 10.0, second), series("c", 10.0, second)]));
            source.set_counter("bad_total", Ok(vec![series("s", 0.0, second), series("c", 0.2, second)]));
            let mut observed = observed(release);
            gates(ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
            observed.readings.remove(0)
        };
        let mut ledger = None;
        let loose = tick(&mut ledger, "5%", 40).await;
        assert!(!loose.evidence.unwrap().above);
        let tight = tick(&mut ledger, "1%", 40).await;
        assert!(tight.evidence.unwrap().above);
        assert_eq!(tight.canary, loose.canary);
    }

    #[tokio::test]
    async fn a_canary_that_counts_nothing_from_the_start_is_heard_to_be_silent() {
        let mut ledger = None;
        let mut due = 0.0;
        for second in (12..=40).step_by(2) {
            let mut release = release("Bake", "2026-01-01T01:00:10Z");
            release.status.as_mut().unwrap().current.as_mut().unwrap().weight = "50%".to_owned();
            let source = FakeSource::new();
            source.set_counter("requests_total", Ok(vec![series("s", 10.0, second), series("c", 0.0, second)]));
            let mut observed = observed(release);
            gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
            due = observed.due_in_silence;
        }
        assert!(due >= 200.0, "{due}");
    }

    #[tokio::test]
    async fn pods_that_could_not_be_listed_pass_nothing() {
        let mut ledger = None;
        let source = FakeSource::new();
        source.set_counter("requests_total", Ok(vec![series("s", 10.0, 20), series("c", 10.0, 20)]));
        let mut observed = observed(release("Bake", "2026-01-01T01:00:10Z"));
        observed.canary_pods = Fetched::Failed("the server fails".to_owned());
        gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(20)).await;
        assert_eq!(observed.readings[0].canary, Measure::Error("the canary's pods could not be listed".to_owned()));
        assert!(matches!(observed.readings[0].stable, Measure::Counted { .. }));
    }

    #[tokio::test]
    async fn events_are_held_against_the_time_that_their_samples_cover() {
        let mut ledger = None;
        let mut most = f64::NEG_INFINITY;
        // Sampled every 15 s, looked at every 2 s; one event a second on the canary, the limit is 60/min for it.
        for second in (12..=58).step_by(2) {
            let mut release = release("Bake", "2026-01-01T01:00:10Z");
            release.status.as_mut().unwrap().current.as_mut().unwrap().weight = "50%".to_owned();
            release.spec.gates[0] = serde_json::from_value(
                json!({"name": "events", "eventRate": {"counter": "events_total", "limit": "120/min"}}),
            )
            .unwrap();
            let every_15 = |pod: &str, rate: f64| {
                let mut series = series(pod, rate, second);
                series.samples.retain(|sample| (sample.at_ms / 1000).rem_euclid(15) == 14);
                series
            };
            let source = FakeSource::new();
            source.set_counter("requests_total", Ok(vec![every_15("s", 10.0), every_15("c", 10.0)]));
            source.set_counter("events_total", Ok(vec![every_15("s", 1.0), every_15("c", 1.0)]));
            let mut observed = observed(release);
            gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
            most = most.max(observed.readings[0].evidence.map_or(0.0, |evidence| evidence.canary));
        }
        assert!(most < 0.5, "{most}");
    }

    #[test]
    fn the_next_look_is_right_after_the_last_sample_of_the_interval() {
        // Samples every 5 s, the newest at 100 s, stored 0.3 s later; one tick is 5 s.
        assert_eq!(next_look(100_300, 5_000, 100_400, 5_000), Some(105_300));
        assert_eq!(next_look(100_300, 5_000, 103_000, 5_000), Some(105_300));
        assert_eq!(next_look(100_300, 1_000, 100_400, 10_000), Some(110_300));
        // Rarer than ticks: sometimes there is none to wait for.
        assert_eq!(next_look(100_300, 15_000, 100_400, 10_000), None);
        assert_eq!(next_look(100_300, 15_000, 110_400, 10_000), Some(115_300));
        assert_eq!(next_look(100_300, 0, 110_400, 10_000), None);
    }
}
