//! Reads the gates' metrics and keeps, between ticks, what each counter last said and what the counts prove. One
//! question per counter and tick, however many gates ask it; the pods' sides are told apart in the answer. What is
//! kept here may be lost at any time: it is then replayed from a store that keeps the past, or else the sums in the
//! status are gone on from. It never judges.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use canary_api::{CanaryRelease, CanaryReleaseSpec, Gate, ReleaseStatus, Step, names::ANNOTATION_COMMAND};
use canary_core::{
    Fetched, Observed,
    evidence::{self, Accounts, Totals},
    figures::{Durations, Figures},
    gates::{Measure, Reading, Streaks},
    observed::Measured,
    traffic,
};
use canary_counters::{Instant, Meter, PodKnown, Scope, Value, ValueLimit, value};
use canary_metrics::{MetricSource, pods::PodScraper};
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::Value as Json;

use super::{
    figures::{self, Looks},
    pods,
    questions::{Answers, Question, Sides, questions, series_of_pods},
    side::{Look, Others, Side, WarmUps},
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
    baseline: Meter,
    /// The baseline pods as they were last listed.
    beside: Vec<PodKnown>,
    /// The gates' warm-ups on either side, and of the baseline pods.
    warm_ups: (WarmUps, WarmUps, WarmUps),
    accounts: Accounts,
    streaks: Streaks,
    asked: Option<Timestamp>,
    /// When the canary's next sample should be there.
    due: Option<Timestamp>,
    readings: Vec<Reading>,
    /// When all of the stable side's pods were first sampled in this window (milliseconds), and its requests up to then.
    stable_first: Option<(i64, f64)>,
    /// Requests a second of the stable side, once two samples of its counters lie apart.
    stable_rate: Option<f64>,
    durations: Vec<Durations>,
    /// CPU, memory and the queries of `spec.comparison`.
    pub(super) figures: Looks,
}

impl Ledger {
    /// Counts from the window's beginning, or, with `resumed`, goes on from the sums in the status.
    fn new(release: &CanaryRelease, current: &ReleaseStatus, window: Window, resumed: Option<Timestamp>) -> Self {
        let since = resumed.unwrap_or(window.since);
        let meter = || {
            let meter = Meter::new(since.as_millisecond()).with_scrape_interval(window.scrape_ms);
            meter.with_history(window.history)
        };
        Self {
            release: current.id.clone(),
            spec: release.spec.clone(),
            window: window.since,
            since,
            canary: meter(),
            stable: meter(),
            baseline: meter(),
            beside: Vec::new(),
            warm_ups: (WarmUps::new(), WarmUps::new(), WarmUps::new()),
            accounts: Accounts::new(&release.spec, current, window.since, resumed),
            streaks: Streaks::of(current),
            asked: None,
            due: None,
            readings: Vec::new(),
            stable_first: None,
            stable_rate: None,
            durations: Vec::new(),
            figures: Looks::default(),
        }
    }

    /// Whether it counts for this release.
    pub(super) fn counts(&self, release: &str) -> bool {
        self.release == release
    }

    /// When the window that it counts began.
    pub(super) const fn window(&self) -> Timestamp {
        self.window
    }

    /// What is told beside the gates.
    fn told(&self, release: &CanaryRelease) -> Figures {
        Figures {
            since: (self.since > self.window).then_some(self.since),
            durations: self.durations.clone(),
            gauges: self.figures.told(&release.spec.comparison),
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
            self.baseline.begin_window(window.as_millisecond());
            self.accounts = Accounts::new(&release.spec, current, window, None);
            self.streaks = Streaks::default();
            self.asked = None;
            self.due = None;
            self.readings.clear();
            self.stable_first = None;
            self.stable_rate = None;
            self.durations.clear();
            self.figures.begin_window();
        }
        true
    }

    /// Takes the stable side's requests in. From samples' own times: a window in which nothing was sampled yet, or only
    /// once, tells no rate, and least of all none.
    fn tell_rate(&mut self, stable: &Side) {
        let Some(requests) = stable.fresh_requests() else { return };
        // Pods are sampled each at a moment of its own: up to this one all are known.
        let Some(at) = requests.sampled_ms().into_iter().min().filter(|at| *at >= requests.since_ms) else { return };
        let total = requests.total_at(at);
        let (first, then) = *self.stable_first.get_or_insert((at, total));
        let seconds = at.saturating_sub(first) as f64 / 1000.0;
        if seconds > 0.0 {
            self.stable_rate = Some((total - then).max(0.0) / seconds).filter(|rate| rate.is_finite());
        }
    }

    /// Whom to ask about. A release does without the list of its baseline pods for a while.
    fn sides(&mut self, observed: &Observed) -> Sides {
        let mut sides = Sides::of(observed);
        match &mut sides.baseline {
            Some(subject) if known(&observed.baseline.pods) => self.beside.clone_from(&subject.pods),
            Some(subject) => subject.pods.clone_from(&self.beside),
            None => {}
        }
        sides
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

/// Fills the readings of what was observed, asking the source where a tick is due.
pub(super) async fn gates(
    ledger: &mut Option<Ledger>,
    source: Result<Source<'_>, String>,
    observed: &mut Observed,
    now: Timestamp,
) {
    let release = &observed.release;
    let Some(current) = release.status.as_ref().and_then(|status| status.current.as_ref()) else {
        *ledger = None;
        return;
    };
    let Some(current) = evidence::windowed(current) else {
        // What was counted before traffic went back is where counting after it goes on from.
        if current.step != Step::Revert {
            *ledger = None;
        }
        return;
    };
    let current = current.as_ref();
    let window = current.window_since.as_ref().map_or(now, |since| since.0);
    let source = match source {
        Ok(source) => source,
        Err(why) => {
            observed.measured.readings =
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
                let wanted = [series_of_pods(release), figures::series_of_pods()].concat();
                let samples = pods::scrape(scraper, observed, &wanted, now).await;
                look(ledger, &samples, observed, samples.at()).await;
                figures::of_pods(&samples, ledger, observed, samples.at()).await;
                pods::explain(&mut ledger.readings, samples.failures());
            }
        }
        ledger.asked = Some(now);
    }
    observed.measured = Measured {
        stable_rate: ledger.stable_rate,
        figures: ledger.told(release),
        next_look: ledger.due.filter(|due| *due > now).map(|due| since(now, due)),
        ..Measured::new(&ledger.readings, ledger.accounts.traffic())
    };
}

/// Asks a source, and takes what it says.
async fn look(ledger: &mut Ledger, source: &dyn MetricSource, observed: &Observed, now: Timestamp) {
    let release = &observed.release;
    let lookback = LOOKBACK.max(release.spec.interval.std().saturating_mul(4));
    let sides = ledger.sides(observed);
    match Answers::ask(source, release, &sides, lookback, now).await {
        Ok(answers) => {
            let numbers = numbers(source, release, &sides, now).await;
            let covered_from = before(now, lookback);
            take(ledger, observed, &Read { source, sides: &sides, answers, numbers, covered_from, at: now });
            // Only what is sampled by others is worth waiting for; the pods themselves were read just now.
            ledger.due = if source.keeps_history() { sampled_next(ledger, release, now) } else { None };
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
    Reading::new(&gate.name, measure.clone(), measure.clone())
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
        && tells_whose(observed, current)
    {
        let sides = Sides::of(observed);
        if let Ok(answers) = Answers::ask(source, release, &sides, elapsed.saturating_add(LOOKBACK), now).await {
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

/// Whether the window's past can be told apart by what is there now: pods must have been listed; and within one window
/// the stable Service was stable's and is now the candidate's, where pods are not handed over.
fn tells_whose(observed: &Observed, current: &ReleaseStatus) -> bool {
    let asked = questions(&observed.release);
    let by_pod = asked.keys().any(|question| question.by().is_pod());
    let by_service = asked.keys().any(|question| !question.by().is_pod());
    let handed_over = matches!(current.step, Step::HandBack | Step::Drain);
    let listed = known(&observed.canary_pods) && known(&observed.target_pods);
    !(by_service && handed_over) && (!by_pod || listed)
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
        let then = answers.between(covered_from, at);
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(8) {
            tokio::task::yield_now().await;
        }
        let numbers = Numbers::new();
        take(&mut ledger, observed, &Read { source, sides, answers: then, numbers, covered_from, at });
    }
    ledger
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
    fn look(&self) -> Look<'_> {
        Look { answers: &self.answers, labels: self.source.labels(), covered_from: self.covered_from, at: self.at }
    }
}

/// Takes what was read for one tick in.
fn take(ledger: &mut Ledger, observed: &Observed, read: &Read<'_>) {
    let release = &observed.release;
    let Some(current) = release.status.as_ref().and_then(|status| status.current.as_ref()) else { return };
    let now = read.at;
    let seconds = since(ledger.since, now).as_secs_f64();
    let canary = Side::read(&mut ledger.canary, &mut ledger.warm_ups.0, read.look(), &read.sides.canary, release);
    let stable = Side::read(&mut ledger.stable, &mut ledger.warm_ups.1, read.look(), &read.sides.stable, release);
    let baseline = read.sides.baseline.as_ref();
    let baseline =
        baseline.map(|subject| Side::read(&mut ledger.baseline, &mut ledger.warm_ups.2, read.look(), subject, release));
    let others = Others { stable: &stable, baseline: baseline.as_ref(), beside: traffic::beside(current) > 0.0 };
    let totals: Vec<Totals> = release
        .spec
        .gates
        .iter()
        .filter_map(|gate| match (gate.value.is_some(), read.numbers.get(&gate.name)) {
            (true, Some(answer)) => {
                let nothing = Measure::NoData("a value gate looks at the candidate only".to_owned());
                Some(Totals::new(
                    &gate.name,
                    answer.as_ref().map_or_else(Clone::clone, |value| ledger.streaks.push(gate, *value)),
                    nothing,
                ))
            }
            (true, None) => None,
            (false, _) => Some(canary.totals(others, gate, seconds, current.step == Step::Baseline)),
        })
        .collect();
    let (canary_known, stable_known) = (known(&observed.canary_pods), known(&observed.target_pods));
    let totals = unread(&release.spec, totals, canary_known, stable_known);
    let listed = !release.spec.traffic.requests.by.is_pod() || (canary_known && stable_known);
    let requests = canary.requests_beside(others).filter(|_| listed);
    ledger.tell_rate(&stable);
    let timed = release.spec.gates.iter().filter(|gate| gate.latency.is_some());
    ledger.durations = timed
        .map(|gate| Durations {
            gate: gate.name.clone(),
            unit: Side::unit(gate),
            canary: canary.durations(gate),
            stable: stable.durations(gate),
        })
        .collect();
    ledger.readings = ledger.accounts.absorb(&release.spec, current.step, &totals, requests, now);
    tracing::debug!(readings = ?ledger.readings, "gates read");
}

/// Where a side's pods could not be listed, its totals are those of nobody knows whom: they count for nothing. A gateway
/// needs no list.
fn unread(spec: &CanaryReleaseSpec, mut totals: Vec<Totals>, canary_known: bool, stable_known: bool) -> Vec<Totals> {
    let of_pods = |name: &str| spec.gates.iter().any(|gate| gate.name == name && rests_on_pods(spec, gate));
    for total in totals.iter_mut().filter(|total| of_pods(&total.gate)) {
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

fn rests_on_pods(spec: &CanaryReleaseSpec, gate: &Gate) -> bool {
    let per_request = gate.event_rate.is_some() || gate.relative.is_some();
    gate.by.is_pod() || (per_request && spec.traffic.requests.by.is_pod())
}

/// When the canary's next sample should be there, if that is before the next interval is over.
fn sampled_next(ledger: &Ledger, release: &CanaryRelease, now: Timestamp) -> Option<Timestamp> {
    let (newest, spacing) = ledger.canary.rhythm(&Question::requests(release).name())?;
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
    let names: Vec<String> = sides.canary.pods.iter().map(|pod| pod.name.clone()).collect();
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

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
