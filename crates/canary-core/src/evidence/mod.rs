//! What a window's counts prove. [`Accounts`] takes each tick's totals, turns them into what is new since the tick
//! before, and runs every gate's sequential test over it, on both sides, as a mixture over starts. It knows neither
//! where the totals come from nor what follows from them: that is [`crate::gates::judge`].
//!
//! Accounts are lost with the process that holds them. The sums in the status are then gone on from, which may call a
//! breach later and never falsely; where the past can be read again, it is replayed into new ones.

mod bursts;
mod running;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::BTreeMap};

use canary_api::{CanaryReleaseSpec, Counted, Gate, ReleaseStatus, Step};
use canary_stats::{Alpha, Dispersion};
use jiff::Timestamp;

use self::{
    bursts::Bursts,
    running::{Look, Running, Sums, With},
};
use crate::{
    gates::{self, Measure, Reading, Verdict},
    traffic::{Requests, Traffic},
};

/// What a gate's counters come to since the window began, as one tick reads them.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// The gate.
    pub gate: String,
    /// The canary.
    pub canary: Measure,
    /// The stable side at the same time.
    pub stable: Measure,
    /// The canary, for the question whether the limit is proved to be kept, where that counts otherwise (latency
    /// between two boundaries).
    pub proof: Option<Measure>,
    /// Both sides at one common time, for gates that compare them.
    pub paired: Option<Paired>,
    /// The baseline pods, where a gate relative to Stable compares with those: `paired` then speaks of them too.
    pub baseline_pods: Option<Measure>,
    /// The stable pods one by one, requests and bad ones: how bursty events are is measured pod by pod.
    pub stable_pods: BTreeMap<String, (f64, f64)>,
    /// What the gate's warm-up keeps out of all of these.
    pub left_out: LeftOut,
}

impl Totals {
    /// Totals of both sides and nothing else.
    #[must_use]
    pub fn new(gate: &str, canary: Measure, stable: Measure) -> Self {
        Self {
            gate: gate.to_owned(),
            canary,
            stable,
            proof: None,
            paired: None,
            baseline_pods: None,
            stable_pods: BTreeMap::new(),
            left_out: LeftOut::default(),
        }
    }
}

/// Requests and bad ones of each side that its pods counted while they warmed up. Shown, never judged.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LeftOut {
    /// The canary's.
    pub canary: (f64, f64),
    /// The stable side's.
    pub stable: (f64, f64),
}

/// Events and requests of both sides up to one common time, since the window began. The stable side is all its pods, or
/// the baseline pods alone, where a gate compares with those.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Paired {
    /// Events of the canary.
    pub canary_events: f64,
    /// Events of the stable side.
    pub stable_events: f64,
    /// Requests of the canary.
    pub canary_requests: f64,
    /// Requests of the stable side.
    pub stable_requests: f64,
}

/// What the counts of a window prove: logarithms of e-processes, each to be held against `ln_threshold`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// That the canary exceeds the limit; for events of the whole service, that the service does.
    pub canary: f64,
    /// That the stable side exceeds it.
    pub stable: f64,
    /// That the canary keeps it, where the mirror test is defined.
    pub proved: Option<f64>,
    /// For events of the whole service: that the candidate has more than its part of them.
    pub candidate: Option<f64>,
    /// For a comparison of both sides: the requests of the canary and of stable that were compared.
    pub compared: Option<(f64, f64)>,
    /// Whether the canary's plain estimate is above the limit.
    pub above: bool,
    /// The budget of this gate in this stage.
    pub alpha: Alpha,
    /// By how much counts were divided because events come in bursts.
    pub dispersion: Dispersion,
}

/// The budget of false alarms of one gate in one stage: the release's, split over the gates that claim a probability
/// and the stages, the soak counted as one.
#[must_use]
pub fn budget(spec: &CanaryReleaseSpec) -> Alpha {
    let gates = spec.gates.iter().filter(|gate| gate.value.is_none()).count();
    let stages = spec.stages.len().saturating_add(usize::from(!spec.soak.std().is_zero()));
    let count = |number: usize| u32::try_from(number.max(1)).unwrap_or(u32::MAX);
    Alpha::RELEASE.split(count(gates), count(stages)).unwrap_or(Alpha::RELEASE)
}

/// The release as its window is to be counted, where its step is judged, or told of, by what is counted: after a revert
/// from when all traffic was back, and from nothing.
#[must_use]
pub fn windowed(current: &ReleaseStatus) -> Option<Cow<'_, ReleaseStatus>> {
    match current.step {
        Step::Baseline | Step::Shift | Step::Bake | Step::Roll | Step::HandBack | Step::Drain | Step::Soak => {}
        Step::Scale if current.stage_index > 0 => {}
        // Stable, once all traffic is back on it, while nothing but time is waited for.
        Step::RevertDrain => {
            let clear_at = current.revert.as_ref().and_then(|revert| revert.clear_at.clone())?;
            let after = ReleaseStatus { window_since: Some(clear_at), counts: Vec::new(), ..current.clone() };
            return Some(Cow::Owned(after));
        }
        Step::Scale | Step::Revert | Step::RevertTarget | Step::Done => return None,
    }
    Some(Cow::Borrowed(current))
}

/// Ticks that the window of a status was planned for, at least 1.
#[must_use]
pub fn planned_ticks(spec: &CanaryReleaseSpec, current: &ReleaseStatus) -> u64 {
    let stage = usize::try_from(current.stage_index).ok().and_then(|index| spec.stages.get(index));
    let length = match current.step {
        Step::Baseline => spec.baseline.duration.std(),
        Step::Soak => spec.soak.std(),
        _ => stage.or_else(|| spec.stages.last()).map_or(spec.interval.std(), |stage| stage.duration.std()),
    };
    let ticks = length.as_millis().checked_div(spec.interval.std().as_millis()).unwrap_or(1);
    u64::try_from(ticks).unwrap_or(u64::MAX).max(1)
}

/// The accounts of one window: every gate's tests, and where the traffic goes.
#[derive(Debug)]
pub struct Accounts {
    window: Timestamp,
    interval_ms: i64,
    gates: BTreeMap<String, Account>,
    traffic: Traffic,
}

impl Accounts {
    /// The accounts of the window that `current` is in. With `resumed`, totals count from that time on, and the sums
    /// in the status are gone on from; else they count from the window's beginning.
    #[must_use]
    pub fn new(
        spec: &CanaryReleaseSpec,
        current: &ReleaseStatus,
        window: Timestamp,
        resumed: Option<Timestamp>,
    ) -> Self {
        let interval_ms = i64::try_from(spec.interval.std().as_millis()).unwrap_or(i64::MAX).max(1);
        let plan =
            Plan { ticks: planned_ticks(spec, current), from: resumed.map(|now| tick_index(window, now, interval_ms)) };
        let account = |gate: &Gate| (gate.name.clone(), Account::new(spec, gate, current, plan));
        let gates = spec.gates.iter().map(account).collect();
        Self { window, interval_ms, gates, traffic: Traffic::new(current) }
    }

    /// Takes one tick's totals in, read during a step. A gate that is not among them has no reading.
    pub fn absorb(
        &mut self,
        spec: &CanaryReleaseSpec,
        step: Step,
        totals: &[Totals],
        requests: Option<Requests>,
        now: Timestamp,
    ) -> Vec<Reading> {
        let tick = tick_index(self.window, now, self.interval_ms);
        self.traffic.absorb(requests, step == Step::Bake);
        let share = self.traffic.share_or_weight();
        let mut readings = Vec::new();
        for total in totals {
            let gate = spec.gates.iter().find(|gate| gate.name == total.gate);
            if let (Some(gate), Some(account)) = (gate, self.gates.get_mut(&total.gate)) {
                readings.push(account.absorb(gate, total, tick, share));
            }
        }
        readings
    }

    /// Whether a gate was in breach at any tick that was taken in.
    #[must_use]
    pub fn breached(&self, gate: &str) -> bool {
        self.gates.get(gate).is_some_and(|account| account.breach.is_some())
    }

    /// Where the traffic goes, as counted in this window.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

/// Which tick of the window an instant is in.
fn tick_index(window: Timestamp, now: Timestamp, interval_ms: i64) -> u64 {
    let elapsed = now.as_millisecond().saturating_sub(window.as_millisecond()).max(0);
    u64::try_from(elapsed.checked_div(interval_ms).unwrap_or(0)).unwrap_or(0)
}

/// When a window's tests begin.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Planned ticks.
    ticks: u64,
    /// After a restart, the tick at which counting goes on.
    from: Option<u64>,
}

/// One gate's account.
#[derive(Debug)]
struct Account {
    test: Box<dyn Running>,
    alpha: Alpha,
    phi: Dispersion,
    /// Sums of the status that the totals do not know of.
    before: Vec<Counted>,
    baseline: Option<Measure>,
    bursts: Bursts,
    /// The reading that first was a breach: what comes later does not wash it off.
    breach: Option<Reading>,
}

impl Account {
    fn new(spec: &CanaryReleaseSpec, gate: &Gate, current: &ReleaseStatus, plan: Plan) -> Self {
        let captured = current.baseline.iter().find(|sums| sums.gate == gate.name);
        let measured = captured.and_then(|sums| sums.dispersion);
        let phi = gate.dispersion.or(measured).map_or(Dispersion::NONE, Dispersion::measured);
        let kept = |sums: &&Counted| plan.from.is_some() && sums.gate == gate.name;
        let before: Vec<Counted> = current.counts.iter().filter(kept).cloned().collect();
        let baseline = captured.map(|sums| Measure::Counted { n: sums.n, k: sums.k, seconds: sums.seconds });
        let mut account = Self {
            test: Box::new(running::Nothing),
            alpha: budget(spec),
            phi,
            before,
            baseline,
            bursts: Bursts::default(),
            breach: None,
        };
        let share = crate::traffic::weight(current);
        account.test = running::of(gate, &account, captured, plan, share);
        account
    }

    /// The sums of one side in the status.
    fn sums(&self, side: &str) -> Sums {
        let sums = self.before.iter().find(|sums| sums.side == side);
        sums.map_or(Sums::default(), |sums| Sums { n: sums.n, k: sums.k, seconds: sums.seconds })
    }

    fn absorb(&mut self, gate: &Gate, totals: &Totals, index: u64, share: f64) -> Reading {
        let bounded = gates::bounded(gate);
        let sums = |measure: &Measure| {
            gates::counts(measure, bounded).map(|(n, k)| Sums { n, k, seconds: gates::seconds(measure) })
        };
        let (canary, stable) = (sums(&totals.canary), sums(&totals.stable));
        let proof = totals.proof.as_ref().map_or(canary, sums);
        let with = if totals.baseline_pods.is_some() { With::BaselinePods } else { With::Stable };
        let paired = totals.paired.map(|paired| (with, paired));
        self.test.absorb(&Look { index, canary, stable, proof, paired, share });
        self.bursts.absorb(&totals.stable_pods, bounded);
        let (mut evidence, alpha) = (self.test.evidence(), self.alpha);
        if let Some(evidence) = &mut evidence {
            evidence.dispersion = self.phi;
            evidence.alpha = if evidence.alpha < alpha { evidence.alpha } else { alpha };
        }
        let reading = Reading {
            gate: gate.name.clone(),
            canary: self.with_before(&totals.canary, "canary"),
            stable: self.with_before(&totals.stable, "stable"),
            proof: totals.proof.as_ref().map(|proof| self.with_before(proof, "proof")),
            baseline_pods: totals.baseline_pods.as_ref().map(|pods| self.with_before(pods, "baseline")),
            baseline: self.baseline.clone(),
            evidence,
            bursts: self.bursts.measured(bounded),
            left_out: totals.left_out,
        };
        // Nothing else can be a breach, and the rest of a judgement is what a reader wants.
        let reached = evidence.is_none_or(|evidence| evidence.canary >= evidence.alpha.ln_threshold());
        if self.breach.is_none() && reached && gates::judge(gate, Some(&reading), share).verdict == Verdict::Breach {
            self.breach = Some(reading.clone());
        }
        self.breach.clone().unwrap_or(reading)
    }

    fn with_before(&self, measure: &Measure, side: &str) -> Measure {
        let before = self.sums(side);
        match measure.clone() {
            Measure::Counted { n, k, seconds } => {
                Measure::Counted { n: n + before.n, k: k + before.k, seconds: seconds + before.seconds }
            }
            Measure::Partial { n, k, seconds, why } => {
                Measure::Partial { n: n + before.n, k: k + before.k, seconds: seconds + before.seconds, why }
            }
            other => other,
        }
    }
}
