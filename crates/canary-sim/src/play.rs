//! One release in virtual time: the operator's loop (read, decide, write) without the waiting. It counts, as the
//! operator's tick does, from each window's beginning, and says how the release ended.

use std::collections::BTreeMap;
use std::time::Duration;

use canary_api::{CanaryReleaseSpec, CanaryReleaseStatus, Gate, ReleaseStatus, Step};
use canary_core::{
    Observed, decide,
    evidence::{self, Accounts, LeftOut, Paired, Totals},
    gates::{Measure, Reading, Streaks, Verdict},
    observed::Measured,
    traffic::Requests,
};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cluster::Cluster,
    error::SimError,
    traffic::{AllTotals, Counts, GateTotals, Split, Traffic},
};

/// After a write the operator looks again.
const FOLLOW_UP: Duration = Duration::from_millis(300);
/// The least time between two ticks.
const LEAST: Duration = Duration::from_millis(50);
/// When a simulated world begins; a release begins later.
const ARMED_AT: Timestamp = Timestamp::constant(946_684_800, 0);

/// Where in a release something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Before any traffic moved.
    Baseline,
    /// In this stage, from 1.
    Stage(usize),
    /// While the target took the candidate over.
    Promotion,
    /// While the gates watched on after it.
    Soak,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Baseline => f.write_str("the baseline"),
            Self::Stage(number) => write!(f, "stage {number}"),
            Self::Promotion => f.write_str("the promotion"),
            Self::Soak => f.write_str("the soak"),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a release ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The candidate is live.
    Promoted,
    /// It was reverted: the gate that broke, or why else.
    RolledBack {
        /// Where.
        place: Place,
        /// The gate, or the reason where it was no gate's breach.
        by: String,
    },
    /// It waits for a person.
    Paused {
        /// Where.
        place: Place,
        /// The word of the status, such as Inconclusive, with the gates that had no verdict.
        reason: String,
    },
    /// It was not over after the time in which any release is.
    Unfinished,
}

/// One release that was played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How it ended.
    pub end: End,
    /// How long it took to its end.
    pub took: Duration,
    /// When each stage got its weight, from the beginning; as far as it came.
    pub stages: Vec<Duration>,
    /// Ticks that were decided.
    pub ticks: u32,
}

/// An armed target whose template has just been changed, to begin releases from.
#[derive(Debug, Clone)]
pub struct Start {
    cluster: Cluster,
    longest: Duration,
}

impl Start {
    /// A world for this spec. Approvals are taken to be given at once.
    ///
    /// # Errors
    /// A spec that the operator would refuse.
    pub fn new(spec: &CanaryReleaseSpec) -> Result<Self, SimError> {
        let mut spec = spec.clone();
        for stage in &mut spec.stages {
            stage.approval = false;
        }
        let longest = longest(&spec);
        Ok(Self { cluster: Cluster::with_a_change(spec, ARMED_AT)?, longest })
    }

    /// The time after which no release of this spec goes on by itself.
    #[must_use]
    pub const fn longest(&self) -> Duration {
        self.longest
    }

    /// The spec that is played.
    #[must_use]
    pub const fn spec(&self) -> &CanaryReleaseSpec {
        &self.cluster.observed.release.spec
    }
}

/// Every stage extended, each end looked at once more, and a minute for each of the waits between.
fn longest(spec: &CanaryReleaseSpec) -> Duration {
    let between = Duration::from_secs(60).saturating_add(spec.interval.std().saturating_mul(4));
    let stages = spec.stages.iter().map(|stage| stage.duration.std().saturating_mul(2).saturating_add(between));
    let ends = [spec.baseline.duration.std(), spec.drain.std(), spec.soak.std(), Duration::from_secs(300)];
    stages.chain(ends).fold(Duration::ZERO, Duration::saturating_add)
}

/// Plays one release that begins at a time, on this traffic.
///
/// # Errors
/// Only where this program is wrong.
pub fn play(start: &Start, traffic: &mut dyn Traffic, at: Timestamp) -> Result<Run, SimError> {
    let mut cluster = start.cluster.clone();
    let mut ledger: Option<Ledger> = None;
    let mut split = Split { share: 0.0, stage: 0, baseline: true };
    let (mut now, mut counted_to) = (at, at);
    let mut run = Run { end: End::Unfinished, took: Duration::ZERO, stages: Vec::new(), ticks: 0 };
    while run.took <= start.longest {
        traffic.advance(counted_to, now, &split);
        counted_to = now;
        measure(&mut ledger, &mut cluster.observed, traffic.totals(), now);
        let place = place(&cluster.observed);
        let decision = decide(&cluster.observed, now);
        run.ticks = run.ticks.saturating_add(1);
        let quiet = decision.effects.is_empty();
        cluster.observed.release.status = Some(decision.status);
        cluster.apply(&decision.effects)?;
        let Some(status) = &cluster.observed.release.status else { break };
        if let Some(end) = ended(status, place) {
            run.end = end;
            return Ok(run);
        }
        split = split_of(&cluster, status);
        if split.share > 0.0 && run.stages.len() <= split.stage {
            run.stages.push(run.took);
        }
        let interval = cluster.observed.release.spec.interval.std();
        let wait = decision.wake_after.unwrap_or(interval);
        let wait = if quiet { wait } else { wait.min(FOLLOW_UP) }.max(LEAST);
        run.took = run.took.saturating_add(wait);
        now = now.checked_add(wait).map_err(|error| SimError::Past(error.to_string()))?;
    }
    Ok(run)
}

fn current(observed: &Observed) -> Option<&ReleaseStatus> {
    observed.release.status.as_ref()?.current.as_ref()
}

fn stage_index(current: &ReleaseStatus) -> usize {
    usize::try_from(current.stage_index).unwrap_or(0)
}

fn place(observed: &Observed) -> Place {
    let Some(current) = current(observed) else { return Place::Baseline };
    match current.step {
        Step::Baseline => Place::Baseline,
        Step::Roll | Step::HandBack | Step::Drain => Place::Promotion,
        Step::Soak => Place::Soak,
        _ => Place::Stage(stage_index(current).saturating_add(1)),
    }
}

fn ended(status: &CanaryReleaseStatus, place: Place) -> Option<End> {
    let current = status.current.as_ref()?;
    if let Some(revert) = &current.revert {
        let by = revert.by.strip_prefix("gate ").unwrap_or(&revert.reason).to_owned();
        return Some(End::RolledBack { place, by });
    }
    if let Some(paused) = &current.paused {
        return Some(End::Paused { place, reason: reason(&paused.reason, status) });
    }
    (current.step == Step::Done).then_some(End::Promoted)
}

/// The word, and for a stage without a verdict the gates that had none.
fn reason(word: &str, status: &CanaryReleaseStatus) -> String {
    let open = status.gates.iter().filter(|gate| gate.verdict != Verdict::Pass.as_str());
    let open: Vec<&str> = open.map(|gate| gate.gate.as_str()).collect();
    if word == "Inconclusive" && !open.is_empty() { format!("{word} ({})", open.join(", ")) } else { word.to_owned() }
}

fn split_of(cluster: &Cluster, status: &CanaryReleaseStatus) -> Split {
    let Some(current) = &status.current else { return Split { share: 0.0, stage: 0, baseline: true } };
    // Once the traffic is handed back, the target's pods are the candidate's.
    let rolled = matches!(current.step, Step::HandBack | Step::Drain | Step::Soak);
    Split {
        share: if rolled { 1.0 } else { cluster.share() },
        stage: stage_index(current),
        baseline: current.step == Step::Baseline,
    }
}

/// What is kept between ticks: where the window's counts begin, and what they prove.
struct Ledger {
    window: Timestamp,
    base: AllTotals,
    accounts: Accounts,
    streaks: Streaks,
    asked: Option<Timestamp>,
    readings: Vec<Reading>,
}

/// Fills the readings, as the operator's tick does with the answers of a metrics source.
fn measure(ledger: &mut Option<Ledger>, observed: &mut Observed, totals: &AllTotals, now: Timestamp) {
    let Some(current) = current(observed).and_then(evidence::windowed) else {
        *ledger = None;
        return;
    };
    let spec = &observed.release.spec;
    let window = current.window_since.as_ref().map_or(now, |since| since.0);
    if ledger.as_ref().is_none_or(|ledger| ledger.window != window) {
        *ledger = Some(Ledger {
            window,
            base: totals.clone(),
            accounts: Accounts::new(spec, &current, window, None),
            streaks: Streaks::default(),
            asked: None,
            readings: Vec::new(),
        });
    }
    let Some(ledger) = ledger else { return };
    // A window begins at a whole second, which may be to come.
    if now <= window {
        ledger.base = totals.clone();
    }
    let interval = spec.interval.std().mul_f64(0.8);
    if ledger.asked.is_none_or(|asked| since(asked, now) >= interval) {
        ledger.read(spec, current.step, totals, now);
        ledger.asked = Some(now);
    }
    // Only what is said of blind stages rests on the stable side's rate.
    observed.measured = Measured::new(&ledger.readings, ledger.accounts.traffic());
}

fn since(earlier: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(earlier)).unwrap_or(Duration::ZERO)
}

impl Ledger {
    fn read(&mut self, spec: &CanaryReleaseSpec, step: Step, totals: &AllTotals, now: Timestamp) {
        let seconds = since(self.window, now).as_secs_f64();
        let nothing = GateTotals::default();
        let stable = totals.stable_requests - self.base.stable_requests;
        let at = now.as_millisecond();
        // Both sides are known up to now.
        let requests = Requests {
            canary: totals.canary_requests - self.base.canary_requests,
            stable,
            known_to: at,
            newest: at,
            stable_then: stable,
        };
        let mut all = Vec::new();
        for (index, gate) in spec.gates.iter().enumerate() {
            let Some(now) = totals.gates.get(index) else { continue };
            if gate.value.is_some() {
                let measure = self.number(gate, now.number);
                all.push(Totals::new(
                    &gate.name,
                    measure,
                    Measure::NoData("a value gate looks at the candidate only".to_owned()),
                ));
                continue;
            }
            let base = self.base.gates.get(index).unwrap_or(&nothing);
            let (canary, stable) = (now.canary.since(&base.canary), now.stable.since(&base.stable));
            let says = |counts: Counts| counted(gate, counts, seconds, totals.incomplete.as_deref());
            all.push(Totals {
                gate: gate.name.clone(),
                canary: says(canary),
                stable: says(stable),
                proof: None,
                baseline_pods: None,
                paired: Some(Paired {
                    canary_events: canary.k,
                    stable_events: stable.k,
                    canary_requests: requests.canary,
                    stable_requests: requests.stable,
                }),
                stable_pods: pods(now, base, step),
                // Nothing is slow at first here.
                left_out: LeftOut::default(),
            });
        }
        self.readings = self.accounts.absorb(spec, step, &all, Some(requests), now);
    }

    fn number(&mut self, gate: &Gate, value: Option<f64>) -> Measure {
        let Some(value) = value else { return Measure::NoData("no value".to_owned()) };
        self.streaks.push(gate, value)
    }
}

fn pods(now: &GateTotals, base: &GateTotals, step: Step) -> BTreeMap<String, (f64, f64)> {
    if step != Step::Baseline {
        return BTreeMap::new();
    }
    let none = Counts::default();
    let of = |(name, counts): (&String, &Counts)| {
        let counts = counts.since(base.stable_pods.get(name).unwrap_or(&none));
        (name.clone(), (counts.n, counts.k))
    };
    now.stable_pods.iter().map(of).collect()
}

/// No requests are no data for a share; no events are none.
fn counted(gate: &Gate, counts: Counts, seconds: f64, incomplete: Option<&str>) -> Measure {
    let Counts { n, k } = counts;
    let share = gate.error_rate.is_some() || gate.latency.is_some();
    match incomplete {
        Some(why) => Measure::Partial { n, k, seconds, why: why.to_owned() },
        None if share && n <= 0.0 => Measure::NoData("the requests counted nothing yet".to_owned()),
        None => Measure::Counted { n, k, seconds },
    }
}
