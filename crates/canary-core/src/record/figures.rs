//! Figures: of the gates in a stage, and of stable before it and after a revert. They are what the status shows and what
//! it counted; where a figure was not measured there is none.

use canary_api::{Counted, Gate, GateRecord, GateStatus, ReleaseRecordStatus, ReleaseStatus, Step};

use super::{Tick, comparison, stages};
use crate::{
    gates::{self, Measure, Reading},
    traffic,
};

/// Takes this tick's figures for the stage, the baseline and the comparison.
pub(super) fn take(record: &mut ReleaseRecordStatus, tick: &Tick<'_>, is: &ReleaseStatus) {
    baseline(record, tick, is);
    comparison::of_baseline(record, tick);
    // A breach that ends the release while the next stage is scaled is that stage's.
    let held = tick.was_in(&stages::HELD) || (tick.was_in(&[Step::Scale]) && tick.begins_to_revert());
    let Some(was) = tick.was.filter(|was| held && was.split) else { return };
    let shown = of_candidate(tick, is);
    let index = usize::try_from(was.stage_index).unwrap_or(0);
    let Some(stage) = record.stages.get_mut(index).filter(|_| !shown.is_empty()) else { return };
    if stage.result == stages::PLANNED {
        return;
    }
    stage.extended |=
        was.extended_since.is_some() || (is.stage_index == was.stage_index && is.extended_since.is_some());
    if !is.observed_share.is_empty() {
        stage.observed_share.clone_from(&is.observed_share);
    }
    let passed = shown.iter().filter(|gate| gate.verdict == "Pass").count();
    stage.passed = format!("{passed}/{}", shown.len());
    stage.gates = shown;
    let held = format!("stage {}, {}", stage.number, stage.weight);
    comparison::take(record, tick, is, &held);
}

fn baseline(record: &mut ReleaseRecordStatus, tick: &Tick<'_>, is: &ReleaseStatus) {
    if is.baseline.is_empty() {
        if is.step == Step::Baseline {
            record.baseline = with_counts(tick, tick.decision.status.gates.iter(), &[], "stable");
        }
        return;
    }
    let of_gate = |sums: &Counted| {
        let gate = tick.spec.gates.iter().find(|gate| gate.name == sums.gate)?;
        Some(GateRecord {
            events: Some(figure(sums.k)),
            gate: sums.gate.clone(),
            limit: gates::limit(gate),
            requests: (sums.n > 0.0).then(|| figure(sums.n)),
            rests_on: rests_on(sums),
            value: gates::of_one_side(gate, sums.n, sums.k, sums.seconds).unwrap_or_else(|| "none".to_owned()),
            verdict: "Baseline".to_owned(),
            ..GateRecord::default()
        })
    };
    // What is captured stays; a gate that was taken out of the spec since can't be told any more.
    let captured: Vec<GateRecord> = is.baseline.iter().filter_map(of_gate).collect();
    if captured.len() >= record.baseline.len() || is.step == Step::Baseline || tick.was_in(&[Step::Baseline]) {
        record.baseline = captured;
    }
}

/// The candidate's gates as the status shows them, with what they rest on.
pub(super) fn of_candidate(tick: &Tick<'_>, is: &ReleaseStatus) -> Vec<GateRecord> {
    let shown = tick.decision.status.gates.iter().filter(|gate| gate.verdict != "Baseline");
    with_counts(tick, shown, &is.counts, "canary")
}

/// Whether all of the traffic is the candidate's: what stable still counted is from before the gateway had switched.
pub(super) fn without_stable(tick: &Tick<'_>) -> bool {
    let alone = |release: &ReleaseStatus| {
        let reverted = release.revert.as_ref().is_some_and(|revert| revert.reason == "BreachWithoutControl");
        reverted || traffic::weight(release) >= 1.0
    };
    tick.was.is_some_and(alone) || tick.is.is_some_and(alone)
}

fn with_counts<'a>(
    tick: &Tick<'_>,
    shown: impl Iterator<Item = &'a GateStatus>,
    counts: &[Counted],
    side: &str,
) -> Vec<GateRecord> {
    shown.map(|gate| one_gate(tick, gate, counts, side)).collect()
}

fn one_gate(tick: &Tick<'_>, shown: &GateStatus, counts: &[Counted], side: &str) -> GateRecord {
    let rule = tick.spec.gates.iter().find(|gate| gate.name == shown.gate);
    let own = counted(counts, &shown.gate, side);
    let beside = rule.and_then(|rule| {
        let sums = compared_with(rule, counts).filter(|_| !without_stable(tick))?;
        gates::of_one_side(rule, sums.n, sums.k, sums.seconds)
    });
    GateRecord {
        events: own.map(|sums| figure(sums.k)),
        gate: shown.gate.clone(),
        interval: shown.interval.clone(),
        limit: shown.limit.clone(),
        proved: shown.proved,
        requests: own.map(|sums| sums.n).filter(|n| *n > 0.0).map(figure),
        rests_on: shown.rests_on.clone(),
        stable: beside.unwrap_or_default(),
        value: shown.value.clone(),
        verdict: shown.verdict.clone(),
    }
}

/// What one side counted of a gate, where it did.
pub(super) fn counted<'a>(counts: &'a [Counted], gate: &str, side: &str) -> Option<&'a Counted> {
    counts.iter().find(|sums| sums.gate == gate && sums.side == side && (sums.n > 0.0 || sums.k > 0.0))
}

/// The serving version's counts at the same time: of its pods beside the canary's where a gate compares with those.
pub(super) fn compared_with<'a>(gate: &Gate, counts: &'a [Counted]) -> Option<&'a Counted> {
    let beside = counted(counts, &gate.name, "baseline").filter(|_| gate.relative.is_some());
    beside.or_else(|| counted(counts, &gate.name, "stable"))
}

/// Counts are whole, but for what was extrapolated: three decimals are kept.
fn figure(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn rests_on(sums: &Counted) -> String {
    format!("{} of {} in {}s", gates::trimmed(sums.k), gates::trimmed(sums.n), sums.seconds.round())
}

/// The stable side since all traffic was back on it, and whether it keeps the limits: `yes`, `no: ...` or `not known:
/// ...`. Nothing where this tick measured nothing. Only gates that count one side by itself can tell.
pub(super) fn of_stable_after(tick: &Tick<'_>) -> Option<(Vec<GateRecord>, String)> {
    if tick.seen.measured.readings.is_empty() {
        return None;
    }
    let mut after = Vec::new();
    let (mut broken, mut open) = (Vec::new(), Vec::new());
    for gate in tick.spec.gates.iter().filter(|gate| gate.value.is_none() && gate.relative.is_none()) {
        let reading = tick.seen.measured.of(&gate.name);
        let (shown, keeps) = keeps(gate, reading);
        match keeps {
            Keeps::Yes => {}
            Keeps::No => broken.push(format!("gate {}: {} where {} is allowed", gate.name, shown.value, shown.limit)),
            Keeps::Unknown(why) => open.push(format!("gate {}: {why}", gate.name)),
        }
        after.push(shown);
    }
    let verified = match (broken.is_empty(), open.is_empty(), after.is_empty()) {
        (_, _, true) => "not known: no gate tells of the stable side by itself".to_owned(),
        (false, ..) => format!("no: {}", broken.join("; ")),
        (true, false, _) => format!("not known: {}", open.join("; ")),
        (true, true, _) => "yes".to_owned(),
    };
    Some((after, verified))
}

enum Keeps {
    Yes,
    No,
    Unknown(String),
}

fn keeps(gate: &Gate, reading: Option<&Reading>) -> (GateRecord, Keeps) {
    let shown = reading.and_then(|reading| gates::stable_shown(gate, reading)).unwrap_or_default();
    let counted = reading.and_then(|reading| {
        let (n, k) = gates::counts(&reading.stable, gates::bounded(gate))?;
        Some((n, k, gates::seconds(&reading.stable), matches!(reading.stable, Measure::Partial { .. })))
    });
    let mut record = GateRecord {
        gate: gate.name.clone(),
        limit: gates::limit(gate),
        rests_on: shown.rests_on.clone(),
        value: if shown.value.is_empty() { "none".to_owned() } else { shown.value },
        ..GateRecord::default()
    };
    let (verdict, keeps) = match counted {
        None => {
            let why = if shown.rests_on.is_empty() { "not measured".to_owned() } else { shown.rests_on };
            ("NoData", Keeps::Unknown(why))
        }
        Some((n, k, seconds, partial)) => {
            record.requests = (n > 0.0).then(|| figure(n));
            record.events = Some(figure(k));
            let enough = f64::from(gate.min_requests);
            if reading.is_some_and(|reading| gates::stable_in_breach(gate, reading).is_some()) {
                ("Breach", Keeps::No)
            } else if n < enough || n <= 0.0 {
                let why = format!("{} of the {enough} requests that it takes", gates::trimmed(n));
                (if n > 0.0 { "Inconclusive" } else { "NoData" }, Keeps::Unknown(why))
            } else if partial || !within(gate, n, k, seconds) {
                ("Inconclusive", Keeps::Unknown(format!("{} proves nothing yet", record.value)))
            } else {
                ("Pass", Keeps::Yes)
            }
        }
    };
    verdict.clone_into(&mut record.verdict);
    (record, keeps)
}

/// Whether the plain estimate is within the limit.
fn within(gate: &Gate, n: f64, k: f64, seconds: f64) -> bool {
    if let Some(rule) = &gate.error_rate {
        return k <= n * rule.limit.fraction();
    }
    if let Some(rule) = &gate.latency {
        return k <= n * (1.0 - rule.quantile.fraction());
    }
    gate.event_rate.as_ref().is_some_and(|rule| seconds > 0.0 && k <= rule.limit.per_minute() * seconds / 60.0)
}
