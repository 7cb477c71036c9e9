//! The stages as they went. A stage ends when the next begins, when the target rolls, or when its weight is taken away;
//! where no tick saw it end, its result is Unknown and its figures are those that were seen. One that begins once more
//! keeps what its earlier runs came to.

use canary_api::{ReleaseRecordStatus, ReleaseStatus, StageRecord, StageRun, Step};

use super::{Tick, bound::cut};

pub(super) const PLANNED: &str = "Planned";
pub(super) const RUNNING: &str = "Running";
pub(super) const PASSED: &str = "Passed";
pub(super) const FAILED: &str = "Failed";
pub(super) const SKIPPED: &str = "Skipped";
pub(super) const STOPPED: &str = "Stopped";
pub(super) const UNKNOWN: &str = "Unknown";

/// Steps in which a stage's weight is held and its gates are its own.
pub(super) const HELD: [Step; 2] = [Step::Shift, Step::Bake];
/// Earlier runs of a stage that are kept, and characters of what each came to.
const MOST_RUNS: usize = 4;
const MOST_WORDS: usize = 400;
const ROLLING: [Step; 4] = [Step::Roll, Step::HandBack, Step::Drain, Step::Soak];

pub(super) fn follow(record: &mut ReleaseRecordStatus, tick: &Tick<'_>, is: &ReleaseStatus) {
    plan(record, tick);
    let at = usize::try_from(is.stage_index).unwrap_or(0);
    if starts_again(record, tick, is, at) {
        let begun = |stage: &&mut StageRecord| stage.started.is_none() || stage.started != is.window_since;
        record.stages.iter_mut().filter(begun).for_each(begin_anew);
    }
    for index in 0..at {
        leave(record, tick, is, index);
    }
    let Some(stage) = record.stages.get_mut(at) else { return };
    if HELD.contains(&is.step) && stage.started.is_none() {
        stage.started.clone_from(&is.window_since);
        stage.result = RUNNING.to_owned();
    }
    if !open(stage) {
        return;
    }
    if let Some(revert) = &is.revert {
        // One that is reverted before any stage began, in the baseline, has none that failed.
        let begun = tick.begins_to_revert() && !tick.was_in(&[Step::Baseline]);
        if revert.rolled || tick.was_in(&ROLLING) {
            // Its last tick was not seen, or it would not be open.
            stage.result = UNKNOWN.to_owned();
        } else if begun || is.split || at > 0 {
            stage.result = if revert.outcome == "RolledBack" { FAILED } else { STOPPED }.to_owned();
            stage.ended = stage.started.as_ref().map(|_| revert.at.clone());
        }
    } else if ROLLING.contains(&is.step) || is.step == Step::Done {
        let seen = tick.was_in(&HELD);
        let result = match (is.partial, seen) {
            (true, _) => SKIPPED,
            (false, true) => PASSED,
            (false, false) => UNKNOWN,
        };
        end(stage, result, is, seen);
    } else if let Some(paused) = is.paused.as_ref().filter(|paused| paused.without_weight)
        && stage.started.is_some()
    {
        stage.result = STOPPED.to_owned();
        stage.ended = Some(paused.since.clone());
    }
}

/// Stages follow the spec for as long as they have not begun: the plan is not frozen.
fn plan(record: &mut ReleaseRecordStatus, tick: &Tick<'_>) {
    for (index, planned) in tick.spec.stages.iter().enumerate() {
        if record.stages.len() <= index {
            let number = i32::try_from(index).unwrap_or(i32::MAX).saturating_add(1);
            record.stages.push(StageRecord { number, result: PLANNED.to_owned(), ..StageRecord::default() });
        }
        if let Some(stage) = record.stages.get_mut(index).filter(|stage| stage.result == PLANNED) {
            stage.weight = planned.weight.to_string();
            stage.planned = planned.duration.to_string();
        }
    }
    let kept = tick.spec.stages.len();
    let mut index = 0_usize;
    record.stages.retain(|stage| {
        index = index.saturating_add(1);
        index <= kept || stage.result != PLANNED
    });
}

fn open(stage: &StageRecord) -> bool {
    stage.result == PLANNED || stage.result == RUNNING
}

/// Whether the release goes from stage 1 once more: a person resumed one whose weight had been taken away.
fn starts_again(record: &ReleaseRecordStatus, tick: &Tick<'_>, is: &ReleaseStatus, at: usize) -> bool {
    let stopped = |was: &ReleaseStatus| was.paused.as_ref().is_some_and(|paused| paused.without_weight);
    let resumed = tick.was.is_some_and(stopped) && is.paused.is_none() && is.revert.is_none();
    let unseen = record.stages.iter().skip(at.saturating_add(1)).any(|stage| stage.started.is_some());
    (resumed && !is.partial) || unseen
}

/// Makes a stage one that is still to come, and its run so far an earlier one.
fn begin_anew(stage: &mut StageRecord) {
    let mut earlier = std::mem::take(&mut stage.earlier);
    let mut runs = stage.earlier_runs;
    if stage.started.is_some() {
        earlier.push(run(stage));
        runs = runs.saturating_add(1);
        earlier.drain(..earlier.len().saturating_sub(MOST_RUNS));
    }
    *stage = StageRecord {
        earlier,
        earlier_runs: runs,
        number: stage.number,
        planned: std::mem::take(&mut stage.planned),
        weight: std::mem::take(&mut stage.weight),
        result: PLANNED.to_owned(),
        ..StageRecord::default()
    };
}

fn run(stage: &mut StageRecord) -> StageRun {
    let figures = stage.gates.iter().map(|gate| {
        let requests = gate.requests.map_or_else(String::new, |requests| format!(" of {requests}"));
        format!("{} {}{requests} ({})", gate.gate, gate.value, gate.verdict)
    });
    StageRun {
        ended: stage.ended.take(),
        figures: cut(&figures.collect::<Vec<_>>().join(", "), MOST_WORDS),
        observed_share: std::mem::take(&mut stage.observed_share),
        passed: std::mem::take(&mut stage.passed),
        // Nobody saw the end of one that still runs.
        result: if open(stage) { UNKNOWN.to_owned() } else { std::mem::take(&mut stage.result) },
        started: stage.started.take(),
    }
}

/// A stage before the one that the release is at.
fn leave(record: &mut ReleaseRecordStatus, tick: &Tick<'_>, is: &ReleaseStatus, index: usize) {
    let before = tick.was.filter(|was| was.stage_index < is.stage_index);
    let from = before.and_then(|was| usize::try_from(was.stage_index).ok());
    let Some(stage) = record.stages.get_mut(index).filter(|stage| open(stage)) else { return };
    let jumps = is.partial && before.is_some_and(|was| !was.partial);
    match from {
        Some(from) if jumps && index >= from => end(stage, SKIPPED, is, stage.started.is_some()),
        Some(from) if !jumps && index == from => end(stage, PASSED, is, true),
        _ => stage.result = UNKNOWN.to_owned(),
    }
}

fn end(stage: &mut StageRecord, result: &str, is: &ReleaseStatus, seen: bool) {
    stage.result = result.to_owned();
    stage.ended = is.step_since.clone().filter(|_| seen);
}
