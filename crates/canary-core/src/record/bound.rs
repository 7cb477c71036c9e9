//! Keeps a record small, whatever goes into it: first logs of jobs that succeeded are cut, then the middle of the
//! timeline goes, then figures over time are thinned, then what can be told in fewer words, then the figures of stages
//! that passed and all logs but those of jobs that failed, then texts are cut. What was left out is said in the record.

use canary_api::{GateRecord, ReleaseRecordStatus, TimelineEntry, Version};

use super::{jobs, series, stages::PASSED};

/// The most that a record's status may take, in bytes of JSON as the API server writes it. With the most that a spec
/// comes to and 6 KiB of metadata the object stays under 64 KiB.
pub const LIMIT: usize = 44 * 1024;

/// Entries of the timeline that stay while figures can go instead; then fewer and fewer.
const TIMELINE: [usize; 4] = [60, 24, 12, 6];

/// Moments of a gate's figures over time that stay; then none.
const SERIES: [usize; 3] = [24, 12, 6];

/// Runs of jobs that stay when all else was tried.
const JOBS: usize = 12;

/// The same record within [`LIMIT`]; one that is within it comes back as it is.
#[must_use]
pub fn bound(mut record: ReleaseRecordStatus) -> ReleaseRecordStatus {
    if size(&record) <= LIMIT {
        return record;
    }
    let steps: [fn(&mut ReleaseRecordStatus); 7] = [
        |record| cut_logs(record, 512, 2048),
        |record| thin(record, TIMELINE[0]),
        |record| thin_series(record, SERIES[0]),
        |record| {
            thin_series(record, SERIES[1]);
            cut_logs(record, 0, 1024);
            quieten(record);
            thin(record, TIMELINE[1]);
        },
        |record| {
            cut_logs(record, 0, 512);
            drop_passed(record);
            thin(record, TIMELINE[1]);
        },
        |record| {
            thin_series(record, SERIES[2]);
            cut_logs(record, 0, 160);
            shorten(record, 160, 16);
            drop_figures(record, false);
            thin(record, TIMELINE[2]);
        },
        |record| {
            thin_series(record, 0);
            cut_logs(record, 0, 0);
            jobs::keep(record, JOBS);
            shorten(record, 60, 8);
            drop_figures(record, true);
            thin(record, TIMELINE[3]);
        },
    ];
    for step in steps {
        step(&mut record);
        if size(&record) <= LIMIT {
            break;
        }
    }
    record
}

fn size(record: &ReleaseRecordStatus) -> usize {
    serde_json::to_string(record).map_or(0, |text| written(&text))
}

/// Bytes of a piece of JSON in the API server's hands: it writes some signs as `\u003c`.
pub(super) fn written(json: &str) -> usize {
    let more = |sign: char| match sign {
        '<' | '>' | '&' => 5_usize,
        '\u{2028}' | '\u{2029}' => 3,
        _ => 0,
    };
    json.len().saturating_add(json.chars().map(more).fold(0, usize::saturating_add))
}

pub(super) fn say(record: &mut ReleaseRecordStatus, what: &str) {
    if !record.left_out.iter().any(|said| said == what) {
        record.left_out.push(what.to_owned());
    }
}

/// Keeps the ends of the jobs' logs: so many bytes of those that succeeded, and of the others.
fn cut_logs(record: &mut ReleaseRecordStatus, good: usize, bad: usize) {
    let mut any = false;
    for one in &mut record.jobs {
        let most = if one.result == "Succeeded" { good } else { bad };
        if one.log.len() > most {
            let mut from = one.log.len().saturating_sub(most);
            while !one.log.is_char_boundary(from) {
                from = from.saturating_add(1);
            }
            one.log = one.log.split_off(from);
            any = true;
        }
    }
    if any {
        say(record, "the beginnings of jobs' logs, or the logs as a whole");
    }
}

/// Takes entries out of the timeline's middle until all fits, or so few are left.
fn thin(record: &mut ReleaseRecordStatus, least: usize) {
    let mut over = size(record).saturating_sub(LIMIT);
    let spare = record.timeline.len().saturating_sub(least);
    if over == 0 || spare == 0 {
        return;
    }
    // The number itself may become longer.
    over = over.saturating_add(64);
    // How it began matters, and how it ended more.
    let from = least / 3;
    let weigh = |entry: &TimelineEntry| serde_json::to_string(entry).map_or(0, |text| written(&text).saturating_add(1));
    let mut gone = 0_usize;
    for entry in record.timeline.iter().skip(from).take(spare) {
        if over == 0 {
            break;
        }
        over = over.saturating_sub(weigh(entry));
        gone = gone.saturating_add(1);
    }
    record.timeline.drain(from..from.saturating_add(gone));
    record.timeline_dropped = record.timeline_dropped.saturating_add(u32::try_from(gone).unwrap_or(u32::MAX));
    say(record, "entries in the middle of the timeline");
}

fn thin_series(record: &mut ReleaseRecordStatus, most: usize) {
    if !record.series.is_empty() {
        series::thin(record, most);
        say(record, if most == 0 { "figures over time" } else { "moments of the figures over time" });
    }
}

/// What a passed gate rests on, in words, is in its numbers too.
fn quieten(record: &mut ReleaseRecordStatus) {
    let passed = record.stages.iter_mut().flat_map(|stage| &mut stage.gates).filter(|gate| gate.verdict == "Pass");
    passed.chain(&mut record.baseline).for_each(|gate| {
        gate.rests_on.clear();
        gate.interval.clear();
    });
    say(record, "the words beside the figures of gates that passed");
}

/// Of stages that passed, all but the last keep how many gates passed, not which.
fn drop_passed(record: &mut ReleaseRecordStatus) {
    let last = record.stages.iter().rposition(|stage| !stage.gates.is_empty());
    for (index, stage) in record.stages.iter_mut().enumerate() {
        if stage.result == PASSED && Some(index) != last {
            stage.gates.clear();
        }
    }
    say(record, "the figures of gates in stages that passed, but for the last one");
}

/// Figures of all stages; with `all` every figure but those of gates that did not pass in the rollback.
fn drop_figures(record: &mut ReleaseRecordStatus, all: bool) {
    record.stages.iter_mut().for_each(|stage| stage.gates.retain(|gate| !all && gate.verdict != "Pass"));
    let own = record.id.clone();
    for rollback in &mut record.rollbacks {
        let kept = |gate: &GateRecord| rollback.id == own && (!all || gate.verdict != "Pass");
        rollback.before.retain(kept);
        rollback.after.retain(kept);
    }
    let surplus = record.rollbacks.len().saturating_sub(4);
    record.rollbacks.drain(..surplus);
    if all {
        record.baseline.clear();
        record.baseline_figures.clear();
        record.comparison.clear();
        record.stages.iter_mut().for_each(|stage| stage.earlier.clear());
    }
    say(record, if all { "all figures but those of gates that did not pass" } else { "figures of gates that passed" });
}

/// Cuts every text that others wrote, and lists of images.
fn shorten(record: &mut ReleaseRecordStatus, characters: usize, images: usize) {
    let trim = |text: &mut String| *text = cut(text, characters);
    for version in [&mut record.candidate, &mut record.stable] {
        let Version { changed_by, digest, images: all, replica_set } = version;
        all.truncate(images);
        [changed_by, digest, replica_set].into_iter().chain(all).for_each(trim);
    }
    let heads = [
        &mut record.message,
        &mut record.result_because,
        &mut record.version,
        &mut record.version_before,
        &mut record.target,
        &mut record.outcome,
    ];
    heads.into_iter().for_each(trim);
    for one in &mut record.jobs {
        [&mut one.message, &mut one.log_note, &mut one.cron_job].into_iter().for_each(trim);
    }
    for plan in &mut record.gates {
        [&mut plan.gate, &mut plan.limit].into_iter().for_each(trim);
    }
    for entry in &mut record.timeline {
        [&mut entry.text, &mut entry.by].into_iter().for_each(trim);
    }
    for row in &mut record.comparison {
        [&mut row.after, &mut row.before, &mut row.change, &mut row.metric].into_iter().for_each(trim);
    }
    for figure in &mut record.baseline_figures {
        [&mut figure.metric, &mut figure.rests_on, &mut figure.unit].into_iter().for_each(trim);
    }
    record.stages.iter_mut().flat_map(|stage| &mut stage.earlier).for_each(|run| trim(&mut run.figures));
    for rollback in &mut record.rollbacks {
        [&mut rollback.reason, &mut rollback.trigger, &mut rollback.verified].into_iter().for_each(trim);
    }
    let gate_lists = record.stages.iter_mut().map(|stage| &mut stage.gates);
    let rollbacks = record.rollbacks.iter_mut().flat_map(|one| [&mut one.before, &mut one.after]);
    for gate in gate_lists.chain(rollbacks).chain([&mut record.baseline]).flatten() {
        let GateRecord { gate, interval, limit, rests_on, stable, value, .. } = gate;
        [gate, interval, limit, rests_on, stable, value].into_iter().for_each(trim);
    }
    say(record, "the ends of long texts");
}

/// A text of at most so many characters; where it was cut, that shows.
pub(super) fn cut(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(characters.saturating_sub(1)).collect();
    format!("{kept}…")
}
