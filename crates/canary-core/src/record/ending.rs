//! How a release ended: outcome, result and their sentences; after that the record is frozen. A release is over when
//! its status says so, or when the status speaks of another one; then the history's line tells how.

use canary_api::{ReleaseRecordStatus, Step};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Tick, jobs, stages};

pub(super) fn close(record: &mut ReleaseRecordStatus, tick: &Tick<'_>) {
    if tick.is.is_some_and(|is| is.step != Step::Done) {
        return;
    }
    let told = told(record, tick);
    if let Some(is) = tick.is {
        record.ended.clone_from(&is.step_since);
        record.outcome = is.revert.as_ref().map_or("Promoted", |revert| &revert.outcome).to_owned();
        record.message = is
            .revert
            .as_ref()
            .map_or_else(|| format!("{} is live", is.candidate.images.join(", ")), |revert| revert.message.clone());
    }
    if let Some((at, outcome, text)) = told {
        record.ended = record.ended.take().or(at);
        record.outcome = outcome;
        record.message = text;
    } else if tick.is.is_none() {
        record.outcome = "Unknown".to_owned();
        record.message = "the end of this release was not seen, and nothing tells of it any more".to_owned();
    }
    if tick.is.is_none() {
        leave_open_stages(record);
    }
    record.frozen = !jobs::awaited(tick);
    if record.frozen {
        jobs::seal(record);
    }
    (record.result, record.result_because) = result(record, tick.is.or(tick.was).is_some_and(|last| last.partial));
}

/// The history's line of this release: `<time> <outcome> <id>: <text>`.
fn told(record: &ReleaseRecordStatus, tick: &Tick<'_>) -> Option<(Option<Time>, String, String)> {
    let prefix = format!("{}: ", record.id);
    tick.decision.status.history.iter().rev().find_map(|line| {
        let (at, rest) = line.split_once(' ')?;
        let (outcome, rest) = rest.split_once(' ')?;
        Some((at.parse().ok().map(Time), outcome.to_owned(), rest.strip_prefix(&prefix)?.to_owned()))
    })
}

/// Of a release that is gone, what was under way when it was last seen.
fn leave_open_stages(record: &mut ReleaseRecordStatus) {
    let stopped = matches!(record.outcome.as_str(), "Superseded" | "Aborted" | "Overridden");
    for stage in record.stages.iter_mut().filter(|stage| stage.result == stages::RUNNING) {
        stage.result = if stopped { stages::STOPPED } else { stages::UNKNOWN }.to_owned();
    }
}

fn result(record: &ReleaseRecordStatus, partial: bool) -> (String, String) {
    let (result, because) = match record.outcome.as_str() {
        "Promoted" => {
            let mut why = shortcomings(record, partial);
            let (short, beside) = jobs::shortcomings(record);
            why.extend(short);
            let result = if why.is_empty() { "SUCCESS" } else { "PARTIAL" };
            why.extend(beside);
            why.extend(unseen(record));
            (result, why.join("; "))
        }
        "RolledBack" => ("FAILED", String::new()),
        "Aborted" => ("FAILED", "it was ended before the candidate was promoted".to_owned()),
        "Superseded" => ("FAILED", "another template took its place before it was promoted".to_owned()),
        "Overridden" => ("FAILED", "the hold was overridden: what became live was not released in stages".to_owned()),
        _ => ("", "its end was not seen".to_owned()),
    };
    (result.to_owned(), because)
}

/// Why a promotion is not a whole success.
fn shortcomings(record: &ReleaseRecordStatus, partial: bool) -> Vec<String> {
    let mut why = Vec::new();
    let before: Vec<&str> =
        record.rollbacks.iter().map(|rollback| rollback.id.as_str()).filter(|id| *id != record.id).collect();
    if !before.is_empty() {
        why.push(format!("the same template was taken back before ({})", before.join(", ")));
    }
    let skipped = record.stages.iter().filter(|stage| stage.result == stages::SKIPPED);
    let numbers: Vec<String> = skipped.clone().map(|stage| stage.number.to_string()).collect();
    if partial {
        let which = if numbers.is_empty() { "the rest".to_owned() } else { format!("stage {}", numbers.join(", ")) };
        why.push(format!("the command promote skipped {which}"));
    }
    for stage in skipped {
        let open = stage.gates.iter().filter(|gate| gate.verdict != "Pass");
        let open: Vec<String> = open.map(|gate| format!("{} ({})", gate.gate, gate.verdict)).collect();
        if !open.is_empty() {
            why.push(format!("without a pass in stage {}: {}", stage.number, open.join(", ")));
        }
    }
    why
}

/// What is not known of a release that was promoted all the same: each of its stages passed, or it had not gone on.
fn unseen(record: &ReleaseRecordStatus) -> Option<String> {
    let unknown = record.stages.iter().filter(|stage| stage.result == stages::UNKNOWN);
    let numbers: Vec<String> = unknown.map(|stage| stage.number.to_string()).collect();
    (!numbers.is_empty()).then(|| format!("no operator recorded the end of stage {}", numbers.join(", ")))
}
