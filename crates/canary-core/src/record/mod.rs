//! The record of one release, as a fold over its ticks: [`next`] takes what is recorded and one tick that was carried
//! out, and gives what is to be recorded. The same tick twice changes nothing, and what no operator saw is not made up:
//! it is caught up from the CanaryRelease's status as far as that tells, and is called unknown where it does not. It
//! decides nothing about a release, never touches a record's spec, and never grows one beyond [`LIMIT`].

mod bound;
mod comparison;
mod ending;
mod figures;
mod head;
mod jobs;
mod rollback;
mod series;
mod stages;
#[cfg(test)]
mod tests;
mod timeline;

use std::time::Duration;

use canary_api::{CanaryReleaseSpec, ReleaseRecordStatus, ReleaseStatus, RollbackRecord, Step, TimelineEntry};
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{Decision, Observed};

pub use bound::{LIMIT, bound};
pub use jobs::{JobLog, logs_to_read, note_log};

/// Figures and sentences alone are written at most this often.
const REFRESH: Duration = Duration::from_secs(60);
/// Entries of the timeline, at most this often: what an operator has not written dies with it.
const SOON: Duration = Duration::from_secs(10);

/// One tick as a record sees it.
struct Tick<'a> {
    seen: &'a Observed,
    spec: &'a CanaryReleaseSpec,
    decision: &'a Decision,
    /// The release as the tick found it, where it is this record's.
    was: Option<&'a ReleaseStatus>,
    /// The release as the tick left it, where it is this record's.
    is: Option<&'a ReleaseStatus>,
    at: Time,
}

impl<'a> Tick<'a> {
    fn new(id: &str, seen: &'a Observed, decision: &'a Decision, now: Timestamp) -> Self {
        let was = seen.release.status.as_ref().and_then(|status| status.current.as_ref());
        let is = decision.status.current.as_ref();
        let own = |release: &&ReleaseStatus| release.id == id;
        Self {
            seen,
            spec: &seen.release.spec,
            decision,
            was: was.filter(own),
            is: is.filter(own),
            at: Time(whole_second(now)),
        }
    }

    /// Whether the release reverts since this very tick.
    fn begins_to_revert(&self) -> bool {
        self.was.is_some_and(|was| was.revert.is_none()) && self.is.is_some_and(|is| is.revert.is_some())
    }

    fn was_in(&self, steps: &[Step]) -> bool {
        self.was.is_some_and(|was| steps.contains(&was.step))
    }
}

/// In whole seconds, never earlier, as the times of a status are.
fn whole_second(now: Timestamp) -> Timestamp {
    let second = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil);
    now.round(second).unwrap_or(now)
}

/// What is to be recorded after a tick. The record of a release that is over is final (`frozen`) once the jobs that it runs
/// afterwards have ended too.
///
/// `decision` is what was carried out: its status as it was written, its effects those that were done, its notes those
/// that were told. An empty `before` begins a record for the release that the decision's status speaks of; rollbacks of
/// earlier attempts ([`earlier`]) may stand in it. A record for another release than that is over, and is closed. What
/// is frozen comes back as it is.
#[must_use]
pub fn next(before: &ReleaseRecordStatus, seen: &Observed, decision: &Decision, now: Timestamp) -> ReleaseRecordStatus {
    let mut record = before.clone();
    let current = decision.status.current.as_ref();
    let id = if record.id.is_empty() { current.map_or("", |current| current.id.as_str()) } else { record.id.as_str() };
    if record.frozen || id.is_empty() {
        return record;
    }
    let tick = Tick::new(id, seen, decision, now);
    if let Some(is) = tick.is {
        if record.id.is_empty() {
            head::begin(&mut record, &tick, is);
        }
        decision.status.message.clone_into(&mut record.message);
        stages::follow(&mut record, &tick, is);
        figures::take(&mut record, &tick, is);
        rollback::follow(&mut record, &tick, is);
        series::take(&mut record, &tick);
        jobs::follow(&mut record, &tick, is);
    }
    timeline::append(&mut record, &tick);
    ending::close(&mut record, &tick);
    series::close(&mut record);
    bound(record)
}

/// What came of a decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// Its status stands in the cluster, or did not have to be written.
    pub status: bool,
    /// Its notes were told.
    pub told: bool,
    /// Positions of its effects that were done.
    pub effects: Vec<usize>,
}

/// The part of a decision that was carried out, as [`next`] takes it; nothing where none was. Where the status could not
/// be written and traffic was given back all the same, the record has that write and no more.
#[must_use]
pub fn carried_out(seen: &Observed, decision: Decision, carried: &Carried) -> Option<Decision> {
    if !carried.status && carried.effects.is_empty() {
        return None;
    }
    let mut done = decision;
    if !carried.status {
        done.status = seen.release.status.clone().unwrap_or_default();
    }
    if !carried.told {
        done.notes.clear();
    }
    let mut index = 0_usize;
    done.effects.retain(|_| {
        let kept = carried.effects.contains(&index);
        index = index.saturating_add(1);
        kept
    });
    Some(done)
}

/// The rollbacks that earlier attempts at the same template ended in, oldest first, of records of one CanaryRelease.
#[must_use]
pub fn earlier(records: &[ReleaseRecordStatus], id: &str, digest: &str) -> Vec<RollbackRecord> {
    let attempts = records.iter().filter(|record| record.id != id && record.candidate.digest == digest);
    let mut found: Vec<RollbackRecord> = attempts
        .flat_map(|record| record.rollbacks.iter().filter(|rollback| rollback.id == record.id))
        .cloned()
        .collect();
    found.sort_by_key(|rollback| rollback.at.as_ref().map(|at| at.0));
    found.dedup_by(|a, b| a.id == b.id);
    found
}

/// The record of a release that an operator takes up again, after a restart: what the one before did and did not write
/// is missing from its timeline, and that is said.
#[must_use]
pub fn taken_up(mut record: ReleaseRecordStatus, now: Timestamp) -> ReleaseRecordStatus {
    if !record.frozen && !record.id.is_empty() {
        let text = "an operator took the release up again; what was not recorded before is missing here";
        timeline::add(
            &mut record,
            TimelineEntry {
                at: Time(whole_second(now)),
                by: String::new(),
                kind: "Notification".to_owned(),
                text: text.to_owned(),
            },
        );
    }
    bound(record)
}

/// Whether a record is to be written now: at once where a stage ended, a rollback began or its traffic was back, a
/// command was taken or the release is over. What else was added to the timeline since it was written, `age` ago, waits
/// for at most ten seconds; figures alone for a minute.
#[must_use]
pub fn due(written: Option<&ReleaseRecordStatus>, record: &ReleaseRecordStatus, age: Duration) -> bool {
    let Some(written) = written else { return true };
    bones(written) != bones(record)
        || (age >= SOON && written.timeline != record.timeline)
        || (age >= REFRESH && written != record)
}

/// Whether records wait: traffic is on its way back to stable, and nothing is to stand beside that.
#[must_use]
pub fn waits(current: &ReleaseStatus) -> bool {
    current.step == Step::Revert
}

/// What must be written at once where it changes.
#[derive(PartialEq)]
struct Bones<'a> {
    over: bool,
    frozen: bool,
    stages: Vec<&'a str>,
    rollbacks: Vec<(&'a str, Option<&'a Time>)>,
    commands: Vec<&'a TimelineEntry>,
    jobs: Vec<(&'a str, &'a str, bool)>,
}

fn bones(record: &ReleaseRecordStatus) -> Bones<'_> {
    let ended = |stage: &&canary_api::StageRecord| !matches!(stage.result.as_str(), stages::PLANNED | stages::RUNNING);
    fn job(one: &canary_api::JobRecord) -> (&str, &str, bool) {
        (&one.job, &one.result, one.log_note.is_empty())
    }
    Bones {
        over: record.ended.is_some(),
        frozen: record.frozen,
        stages: record.stages.iter().filter(ended).map(|stage| stage.result.as_str()).collect(),
        rollbacks: record.rollbacks.iter().map(|one| (one.id.as_str(), one.clear_at.as_ref())).collect(),
        jobs: record.jobs.iter().filter(|one| one.result != jobs::RUNNING).map(job).collect(),
        commands: record.timeline.iter().filter(|entry| entry.kind == timeline::COMMAND).collect(),
    }
}
