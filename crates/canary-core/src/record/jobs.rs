//! The jobs as they ran: an entry for each attempt, by the name of its Job. What a Job's log says comes apart from that,
//! when an operator has read it ([`note_log`]).

use canary_api::{JobAt, JobRecord, JobState, JobStatus, ReleaseRecordStatus, ReleaseStatus, Step};

use super::{Tick, bound};

/// Entries of one record.
const MOST: usize = 60;
/// What a record says when [`keep`] took such entries out.
const SETTLED: &str = "runs of jobs that succeeded or were run again";
const OPEN: &str = "the first runs of jobs that did not succeed";
/// What an entry says of a job that has not ended.
pub(super) const RUNNING: &str = "Running";

pub(super) fn follow(record: &mut ReleaseRecordStatus, tick: &Tick<'_>, is: &ReleaseStatus) {
    // A next attempt takes the place of one whose end no tick told.
    let newer = |one: &JobRecord| {
        one.result == RUNNING
            && is.jobs.iter().any(|run| one.job != run.job && !run.job.is_empty() && same_place(one, run))
    };
    for one in &mut record.jobs {
        if newer(one) {
            unfinished(one, "it was not waited for: the job was run again");
        }
    }
    // Of those whose names were dropped from the status, the record knows what it saw.
    for run in is.jobs.iter().filter(|run| !run.job.is_empty()) {
        if let Some(one) = record.jobs.iter_mut().find(|one| one.job == run.job) {
            update(one, run);
        } else if !was_left_out(record, run) {
            record.jobs.push(entry(tick, run));
        }
    }
    keep(record, MOST);
}

/// Keeps so many entries: first the oldest go of those that decide nothing any more, then the oldest.
pub(super) fn keep(record: &mut ReleaseRecordStatus, most: usize) {
    let settled = |record: &ReleaseRecordStatus| {
        record.jobs.iter().position(|one| one.result == JobState::Succeeded.as_str() || run_again(record, one))
    };
    while record.jobs.len() > most {
        let (index, what) = settled(record).map_or((0, OPEN), |index| (index, SETTLED));
        record.jobs.remove(index);
        bound::say(record, what);
    }
}

/// Whether a run that has ended is missing because it was taken out, and is not to come back at every tick.
fn was_left_out(record: &ReleaseRecordStatus, run: &JobStatus) -> bool {
    let what = if run.state == JobState::Succeeded { SETTLED } else { OPEN };
    !run.state.is_open() && record.left_out.iter().any(|said| said == what)
}

fn same_place(one: &JobRecord, run: &JobStatus) -> bool {
    one.name == run.name && one.at == run.at.as_str() && one.stage.unwrap_or(0) == run.stage
}

fn entry(tick: &Tick<'_>, run: &JobStatus) -> JobRecord {
    let planned = tick.spec.jobs.iter().find(|planned| planned.name == run.name);
    let stage = (run.at == JobAt::Stage).then_some(run.stage);
    let index = usize::try_from(run.stage.saturating_sub(1)).ok().filter(|_| stage.is_some());
    let weight = index.and_then(|index| tick.spec.stages.get(index)).map(|stage| stage.weight.to_string());
    let mut one = JobRecord {
        at: run.at.as_str().to_owned(),
        attempt: run.attempt,
        cron_job: planned.map(|planned| planned.cron_job.clone()).unwrap_or_default(),
        evidence: planned.map_or("Other", |planned| planned.evidence.as_str()).to_owned(),
        job: run.job.clone(),
        name: run.name.clone(),
        stage,
        weight: weight.unwrap_or_default(),
        ..JobRecord::default()
    };
    update(&mut one, run);
    one
}

fn update(one: &mut JobRecord, run: &JobStatus) {
    if run.state.is_open() {
        one.started.clone_from(&run.started);
        one.result = RUNNING.to_owned();
        return;
    }
    // Words that were dropped from the status for want of room stay here.
    if run.ended.is_some() {
        one.started.clone_from(&run.started);
        one.ended.clone_from(&run.ended);
        one.message = bound::cut(&run.message, 300);
    }
    one.result = run.state.as_str().to_owned();
}

fn unfinished(one: &mut JobRecord, why: &str) {
    one.result = JobState::Unfinished.as_str().to_owned();
    why.clone_into(&mut one.message);
}

/// Whether the end of a job is still to come, so that a record is not final though its release is over.
pub(super) fn awaited(tick: &Tick<'_>) -> bool {
    let deleted = tick.seen.release.metadata.deletion_timestamp.is_some();
    let over = |is: &&ReleaseStatus| is.step == Step::Done;
    !deleted && tick.is.filter(over).is_some_and(|is| is.jobs.iter().any(|run| run.state.is_open()))
}

/// A record is final: nobody looks at what had not ended.
pub(super) fn seal(record: &mut ReleaseRecordStatus) {
    for one in record.jobs.iter_mut().filter(|one| one.result == RUNNING) {
        unfinished(one, "its end was not waited for");
    }
}

/// Why a promotion is not a whole success, as far as jobs show it, and what there is to say beside that.
pub(super) fn shortcomings(record: &ReleaseRecordStatus) -> (Vec<String>, Vec<String>) {
    let (mut short, mut beside) = (Vec::new(), Vec::new());
    let counts = record.jobs.iter().filter(|one| one.result != "Succeeded" && one.result != RUNNING);
    for one in counts.filter(|one| !run_again(record, one)) {
        let place = one.stage.map_or_else(|| place(&one.at).to_owned(), |stage| format!("at stage {stage}"));
        let text = format!("job {} {place}: {}", one.name, one.result);
        let held = matches!(one.at.as_str(), "BeforeStart" | "Stage");
        if held { short.push(text) } else { beside.push(text) }
    }
    (short, beside)
}

/// Whether the same job was run again at its place, and that is what counts.
fn run_again(record: &ReleaseRecordStatus, of: &JobRecord) -> bool {
    let same = |one: &JobRecord| one.name == of.name && one.at == of.at && one.stage == of.stage;
    record.jobs.iter().any(|one| same(one) && one.attempt > of.attempt)
}

fn place(at: &str) -> &str {
    match at {
        "BeforeStart" => "before the start",
        "AfterRollback" => "after the rollback",
        "AfterPromotion" => "after the promotion",
        other => other,
    }
}

/// What was read of a Job's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobLog {
    /// Exit code of the container that decided, where it has one.
    pub exit_code: Option<i32>,
    /// The end of its log.
    pub text: String,
    /// Of which container, whether something is cut off, or why there is none.
    pub note: String,
}

/// Names of the Jobs whose log is to be read: those that ran and have ended, and of which nothing is noted.
#[must_use]
pub fn logs_to_read(record: &ReleaseRecordStatus) -> Vec<String> {
    let ran = |one: &&JobRecord| matches!(one.result.as_str(), "Succeeded" | "Failed" | "Unfinished");
    let unread = record.jobs.iter().filter(ran).filter(|one| one.log.is_empty() && one.log_note.is_empty());
    unread.map(|one| one.job.clone()).collect()
}

/// Puts what was read of a Job's log into a record, also into one that is final and not written yet. Only once.
#[must_use]
pub fn note_log(mut record: ReleaseRecordStatus, job: &str, log: &JobLog) -> ReleaseRecordStatus {
    let Some(one) = record.jobs.iter_mut().find(|one| one.job == job && one.log_note.is_empty()) else { return record };
    one.exit_code = log.exit_code;
    one.log.clone_from(&log.text);
    one.log_note = bound::cut(&log.note, 300);
    super::bound(record)
}
