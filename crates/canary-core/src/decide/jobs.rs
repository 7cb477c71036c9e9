//! Jobs of a release: when one is due, how far it is, and what its end does to the release. What is due is in the status
//! before anything is created; a name says which run it is, so that nothing runs twice. A failed job of a stage is a
//! verdict on the candidate, one that could not be run is none. It never holds up a breach, a revert, or any write of
//! traffic, and it ends no Job.

use std::time::Duration;

use canary_api::{Job, JobAt, JobState, JobStatus, OnJobFailure, Paused, ReleaseStatus, Step, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{release, revert, tick::Tick};
use crate::{
    Effect, Kind,
    effect::JOB,
    job::{self, State},
    object,
    observed::Fetched,
};

/// How soon to look at a job again that something waits for, and at one that nothing does.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_LATER: Duration = Duration::from_secs(5);
/// After this many the words about jobs of other places are dropped from the status.
const IN_FULL: usize = 30;

/// A job's end as this tick saw it.
struct End {
    state: JobState,
    message: String,
}

impl End {
    fn not_run(message: impl Into<String>) -> Self {
        Self { state: JobState::NotRun, message: message.into() }
    }
}

/// Takes what was seen of Jobs into the status.
pub(super) fn look(tick: &mut Tick<'_>) {
    let Some(current) = &tick.status.current else { return };
    let ends: Vec<(usize, Option<End>)> = (0_usize..)
        .zip(&current.jobs)
        .filter(|(_, run)| run.state.is_open())
        .map(|(index, run)| (index, end(tick, run)))
        .collect();
    for (index, end) in ends {
        match end {
            Some(end) => close(tick, index, end),
            None => keep_open(tick, index),
        }
    }
}

/// How a job that was open ended, if it did.
fn end(tick: &Tick<'_>, run: &JobStatus) -> Option<End> {
    let seen = tick.seen.jobs.jobs.get(&run.job);
    match seen {
        Some(Fetched::Known(found)) => {
            if object::annotation(found, names::ANNOTATION_UID) != Some(tick.uid()) {
                return Some(End::not_run(format!("a Job {} is there that is not of this release", run.job)));
            }
            if let Some(end) = ended(tick, run, found) {
                return Some(end);
            }
        }
        Some(Fetched::Missing) if run.state == JobState::Running => {
            return Some(End::not_run("it was deleted before its end was seen"));
        }
        Some(Fetched::Missing) => {
            if let Some(end) = can_not_be_made(tick, run) {
                return Some(end);
            }
        }
        Some(Fetched::Failed(_)) | None => {}
    }
    let Some(planned) = spec_of(tick, run) else {
        return Some(End { state: JobState::Unfinished, message: "it was taken out of the spec".to_owned() });
    };
    if tick.since(run.started.as_ref()) < planned.deadline.std() {
        return None;
    }
    if run.state == JobState::Running {
        let message = format!("it had not ended within {}", planned.deadline);
        return Some(End { state: JobState::Unfinished, message });
    }
    // One that nobody tried to create, since no operator was there or the release was paused, is not late.
    let why = in_the_way(tick, run, planned)?;
    Some(End::not_run(format!("it could not be created within {}: {why}", planned.deadline)))
}

fn ended(tick: &Tick<'_>, run: &JobStatus, found: &Value) -> Option<End> {
    match job::state(found) {
        State::Running => None,
        State::Succeeded => Some(End { state: JobState::Succeeded, message: String::new() }),
        State::OutOfTime(why) => Some(End::not_run(why)),
        State::Failed(why) => match tick.seen.jobs.pods.get(&run.job) {
            Some(Fetched::Known(pods)) if job::only_disturbed(pods) => {
                Some(End::not_run(format!("no program of it ended by itself: {why}")))
            }
            Some(Fetched::Known(pods)) => Some(End { state: JobState::Failed, message: said(pods, found, why) }),
            // Its pods are asked once more.
            Some(Fetched::Failed(_)) => None,
            Some(Fetched::Missing) | None => Some(End { state: JobState::Failed, message: why }),
        },
    }
}

/// `exit code 3 of container check`, where that is known.
fn said(pods: &[Value], found: &Value, why: String) -> String {
    let told = job::teller(pods, object::uid(found)).and_then(|told| Some((told.exit_code?, told.container)));
    told.map_or(why, |(code, container)| format!("exit code {code} of container {container}"))
}

/// Why a Job that is not there will not be: its CronJob is gone, or the API server refuses it.
fn can_not_be_made(tick: &Tick<'_>, run: &JobStatus) -> Option<End> {
    let cron_job = &spec_of(tick, run)?.cron_job;
    if let Some(refusal) = tick.seen.jobs.refused.get(&run.job).filter(|refusal| refusal.last) {
        return Some(End::not_run(format!("it could not be created: {}", refusal.why)));
    }
    match tick.seen.jobs.cron_jobs.get(cron_job)? {
        Fetched::Missing => Some(End::not_run(format!("there is no CronJob {cron_job}"))),
        Fetched::Known(found) if object::deleting(found) => {
            Some(End::not_run(format!("CronJob {cron_job} is being deleted")))
        }
        Fetched::Known(_) | Fetched::Failed(_) => None,
    }
}

/// What keeps a Job from being created just now.
fn in_the_way(tick: &Tick<'_>, run: &JobStatus, planned: &Job) -> Option<String> {
    let seen = &tick.seen.jobs;
    let refused = seen.refused.get(&run.job).map(|refusal| refusal.why.clone());
    let unread = |fetched: Option<&Fetched<Value>>| match fetched {
        Some(Fetched::Failed(why)) => Some(why.clone()),
        _ => None,
    };
    refused.or_else(|| unread(seen.cron_jobs.get(&planned.cron_job))).or_else(|| unread(seen.jobs.get(&run.job)))
}

fn keep_open(tick: &mut Tick<'_>, index: usize) {
    let now = tick.time();
    let Some(run) = tick.status.current.as_ref().and_then(|current| current.jobs.get(index)) else { return };
    let there = matches!(tick.seen.jobs.jobs.get(&run.job), Some(Fetched::Known(_)));
    let deadline = spec_of(tick, run).map(|planned| planned.deadline.std()).unwrap_or_default();
    let overdue = run.state == JobState::Wanted && !there && tick.since(run.started.as_ref()) >= deadline;
    tick.wake(if run.at.after() { LOOK_LATER } else { LOOK });
    let Some(run) = tick.current().jobs.get_mut(index) else { return };
    if there {
        run.state = JobState::Running;
    } else if overdue {
        run.started = Some(now);
    }
}

fn close(tick: &mut Tick<'_>, index: usize, end: End) {
    let now = tick.time();
    let Some(run) = tick.current().jobs.get_mut(index) else { return };
    run.state = end.state;
    run.message = end.message;
    run.ended = Some(now);
    let run = run.clone();
    tell(tick, &run);
    tick.ended_jobs.push(run);
}

fn tell(tick: &mut Tick<'_>, run: &JobStatus) {
    let text = sentence(tick, run);
    match run.state {
        JobState::Succeeded => tick.note("JobSucceeded", text),
        JobState::Failed => tick.warn("JobFailed", text),
        JobState::Wanted | JobState::Running | JobState::NotRun | JobState::Unfinished => {
            tick.warn("JobNotRun", text);
        }
    }
}

/// `job smoke at stage 2/5 failed: exit code 1 of container smoke (Job web-7-smoke-s2-1-4f0c2)`.
fn sentence(tick: &Tick<'_>, run: &JobStatus) -> String {
    let how = match run.state {
        JobState::Wanted | JobState::Running => "has not ended",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::NotRun => "could not be run",
        JobState::Unfinished => "is not waited for any longer",
    };
    let why = if run.message.is_empty() { String::new() } else { format!(": {}", run.message) };
    format!("job {} {} {how}{why} (Job {})", run.name, place(tick, run), run.job)
}

/// `at stage 2/5`.
pub(super) fn place(tick: &Tick<'_>, run: &JobStatus) -> String {
    let again = if run.attempt > 1 { format!(", attempt {},", run.attempt) } else { String::new() };
    match run.at {
        JobAt::BeforeStart => format!("before the start{again}"),
        JobAt::Stage => format!("at stage {}/{}{again}", run.stage, tick.spec.stages.len()),
        JobAt::AfterRollback => format!("after the rollback{again}"),
        JobAt::AfterPromotion => format!("after the promotion{again}"),
    }
}

fn spec_of<'a>(tick: &Tick<'a>, run: &JobStatus) -> Option<&'a Job> {
    tick.spec.jobs.iter().find(|planned| planned.name == run.name && planned.at == run.at)
}

/// Where the release is, as far as jobs may hold it up there.
fn here(tick: &Tick<'_>) -> Option<(JobAt, i32)> {
    let stage = tick.status.current.as_ref()?.stage_index.saturating_add(1);
    match tick.step() {
        Step::Baseline => Some((JobAt::BeforeStart, 0)),
        Step::Bake => Some((JobAt::Stage, stage)),
        _ => None,
    }
}

/// The jobs that are due at a place.
fn due<'a>(tick: &Tick<'a>, at: JobAt) -> Vec<&'a Job> {
    let weight = tick.stage().map(|stage| stage.weight);
    let meant = |planned: &&Job| {
        planned.at == at
            && (at != JobAt::Stage
                || planned.stages.is_empty()
                || planned.stages.iter().any(|one| Some(*one) == weight))
    };
    tick.spec.jobs.iter().filter(meant).collect()
}

fn run_at<'s>(current: &'s ReleaseStatus, name: &str, (at, stage): (JobAt, i32)) -> Option<&'s JobStatus> {
    current.jobs.iter().find(|run| run.name == name && run.at == at && run.stage == stage)
}

/// Acts on jobs that ended; whether that ended or stopped the release.
pub(super) fn act(tick: &mut Tick<'_>) -> bool {
    let paused = tick.status.current.as_ref().and_then(|current| current.paused.as_ref());
    // Traffic has left the candidate: its jobs are run again when the release goes on.
    if paused.is_some_and(|paused| paused.without_weight) {
        return false;
    }
    let (stopped, here) = (paused.is_some(), here(tick));
    let mut found: Vec<JobStatus> = tick.ended_jobs.iter().filter(|run| !run.at.after()).cloned().collect();
    if let (Some(here), Some(current)) = (here, &tick.status.current) {
        let names = due(tick, here.0).into_iter().map(|planned| &planned.name);
        let more = names.filter_map(|name| run_at(current, name, here)).filter(|run| !run.state.is_open());
        found.extend(more.cloned());
    }
    let does = |run: &JobStatus| spec_of(tick, run).map_or(OnJobFailure::Record, Job::on_failure);
    let failed = |run: &&JobStatus| run.state == JobState::Failed;
    if let Some(run) = found.iter().filter(failed).find(|run| does(run) == OnJobFailure::Revert) {
        revert::begin(tick, revert::Cause::job(&run.name, sentence(tick, run)));
        return true;
    }
    let goes_on = tick.status.current.as_ref().is_some_and(|current| current.partial);
    let stops = |run: &&JobStatus| match run.state {
        JobState::Failed => does(run) == OnJobFailure::Pause,
        // Once a person has said that the candidate is to be promoted, nothing is waited for that is no verdict.
        JobState::NotRun | JobState::Unfinished => does(run) != OnJobFailure::Record && !goes_on,
        JobState::Succeeded | JobState::Wanted | JobState::Running => false,
    };
    let may = matches!(tick.step(), Step::Baseline | Step::Scale | Step::Shift | Step::Bake) && !stopped;
    let Some(run) = found.iter().find(stops).filter(|_| may).cloned() else { return false };
    pause(tick, &run);
    true
}

fn pause(tick: &mut Tick<'_>, run: &JobStatus) {
    let reason = if run.state == JobState::Failed { "JobFailed" } else { "JobNotRun" };
    let why = sentence(tick, run);
    if tick.step() == Step::Baseline {
        return release::stop(tick, reason, why);
    }
    let since = tick.time();
    let text = "the weight stays, the candidate is not rejected: give the command resume to run it again, promote to go on without it, or abort";
    tick.warn("Paused", format!("{why}; {text}"));
    tick.current().paused = Some(Paused { by: why, reason: reason.to_owned(), since, without_weight: false });
}

/// What the release waits for here, if it waits for a job.
pub(super) fn awaited(tick: &Tick<'_>) -> Option<String> {
    let (here, current) = (here(tick)?, tick.status.current.as_ref()?);
    due(tick, here.0).into_iter().find_map(|planned| {
        let Some(run) = run_at(current, &planned.name, here) else {
            return Some(format!("job {} is to be run", planned.name));
        };
        let since = run.started.as_ref().map_or_else(String::new, |since| format!(" since {}", since.0));
        run.state.is_open().then(|| format!("job {} (Job {}) runs{since}", run.name, run.job))
    })
}

/// Puts what is due into the status.
pub(super) fn plan(tick: &mut Tick<'_>) {
    let Some(current) = &tick.status.current else { return };
    let stopped = current.paused.is_some();
    if let Some(here) = here(tick).filter(|_| !stopped) {
        want(tick, here);
    }
    if just_rolled_back(tick) {
        want(tick, (JobAt::AfterRollback, 0));
    }
    if just_live(tick) {
        leave(tick, "the candidate is live, and it was not waited for");
        want(tick, (JobAt::AfterPromotion, 0));
    }
}

fn before_of_same<'s>(tick: &'s Tick<'_>) -> Option<&'s ReleaseStatus> {
    let id = &tick.status.current.as_ref()?.id;
    tick.before.current.as_ref().filter(|before| before.id == *id)
}

/// Whether this tick saw all traffic on stable again, after the candidate had been started.
fn just_rolled_back(tick: &Tick<'_>) -> bool {
    let Some(current) = &tick.status.current else { return false };
    let Some(revert) = current.revert.as_ref().filter(|revert| revert.clear_at.is_some()) else { return false };
    let known = before_of_same(tick).and_then(|before| before.revert.as_ref());
    let news = known.is_none_or(|before| before.clear_at.is_none());
    let taken_back = matches!(revert.outcome.as_str(), "RolledBack" | "Aborted");
    news && taken_back && (current.split || current.canary_pods > 0)
}

fn is_live(current: &ReleaseStatus) -> bool {
    current.step == Step::Soak || (current.step == Step::Done && current.revert.is_none())
}

/// Whether this tick saw the candidate live.
fn just_live(tick: &Tick<'_>) -> bool {
    tick.status.current.as_ref().is_some_and(is_live) && before_of_same(tick).is_some_and(|before| !is_live(before))
}

/// Wants every job that is due at a place and has not been run there.
fn want(tick: &mut Tick<'_>, here: (JobAt, i32)) {
    let Some(current) = &tick.status.current else { return };
    let missing: Vec<&Job> =
        due(tick, here.0).into_iter().filter(|planned| run_at(current, &planned.name, here).is_none()).collect();
    for planned in missing {
        let (at, stage) = here;
        let run = JobStatus { at, stage, name: planned.name.clone(), ..JobStatus::default() };
        tick.current().jobs.push(run);
        let index = tick.current().jobs.len().saturating_sub(1);
        once_more(tick, index);
    }
    shorten(tick, here);
}

/// Wants the next attempt of a job.
fn once_more(tick: &mut Tick<'_>, index: usize) {
    let (now, uid) = (tick.time(), tick.uid());
    let current = tick.current();
    let id = current.id.clone();
    let Some(run) = current.jobs.get_mut(index) else { return };
    run.attempt = run.attempt.saturating_add(1);
    let place = match run.at {
        JobAt::BeforeStart => "before".to_owned(),
        JobAt::Stage => format!("s{}", run.stage),
        JobAt::AfterRollback => "rollback".to_owned(),
        JobAt::AfterPromotion => "promotion".to_owned(),
    };
    run.job = names::job(&id, uid, &run.name, &format!("{place}-{}", run.attempt));
    run.state = JobState::Wanted;
    run.started = Some(now);
    run.ended = None;
    run.message.clear();
    tick.wake(Duration::ZERO);
}

/// A stage's weight came into force: what was run in it before is run again.
pub(super) fn stage_begins(tick: &mut Tick<'_>) {
    again(tick, |_| true);
}

/// The clock of where the release is starts again: what has ended is run again, what runs goes on.
pub(super) fn resumed(tick: &mut Tick<'_>) {
    let now = tick.time();
    let here = here(tick);
    for run in tick.current().jobs.iter_mut().filter(|run| Some((run.at, run.stage)) == here) {
        if run.state == JobState::Wanted {
            run.started = Some(now.clone());
        }
    }
    again(tick, |run| !run.state.is_open());
}

fn again(tick: &mut Tick<'_>, wanted: impl Fn(&JobStatus) -> bool) {
    let Some(here) = here(tick) else { return };
    let Some(current) = &tick.status.current else { return };
    let due: Vec<&str> = due(tick, here.0).into_iter().map(|planned| planned.name.as_str()).collect();
    let meant = |run: &JobStatus| (run.at, run.stage) == here && due.contains(&run.name.as_str()) && wanted(run);
    let indices: Vec<usize> = (0..).zip(&current.jobs).filter(|(_, run)| meant(run)).map(|(index, _)| index).collect();
    for index in indices {
        once_more(tick, index);
    }
}

/// Jobs that were open are not waited for any longer; they are left to end by themselves.
pub(super) fn leave(tick: &mut Tick<'_>, why: &str) {
    let now: Time = tick.time();
    let Some(current) = &mut tick.status.current else { return };
    for run in current.jobs.iter_mut().filter(|run| run.state.is_open() && !run.at.after()) {
        run.state = JobState::Unfinished;
        why.clone_into(&mut run.message);
        run.ended = Some(now.clone());
    }
}

/// The same of a stage's jobs alone: its weight is taken away, and they are run again with the stage.
pub(super) fn leave_stage(tick: &mut Tick<'_>, why: &str) {
    if tick.step() != Step::Baseline {
        leave(tick, why);
    }
}

/// Keeps the status small: of jobs of other places, long ended, only what a later attempt has to know.
fn shorten(tick: &mut Tick<'_>, here: (JobAt, i32)) {
    let Some(current) = &mut tick.status.current else { return };
    if current.jobs.len() <= IN_FULL {
        return;
    }
    for run in current.jobs.iter_mut().filter(|run| !run.state.is_open() && (run.at, run.stage) != here) {
        run.message.clear();
        run.job.clear();
        (run.started, run.ended) = (None, None);
    }
}

/// Creates what is wanted; the last writes of a tick, and none that anything waits for.
pub(super) fn effects(tick: &mut Tick<'_>) {
    let Some(current) = &tick.status.current else { return };
    let stopped = current.paused.is_some() || current.revert.is_some();
    let wanted = current.jobs.iter().filter(|run| run.state == JobState::Wanted && (run.at.after() || !stopped));
    let made: Vec<Value> = wanted.filter_map(|run| made(tick, current, run)).collect();
    for object in made {
        tick.effects.push(Effect::Create { kind: Kind::Job, object, why: JOB });
    }
}

fn made(tick: &Tick<'_>, current: &ReleaseStatus, run: &JobStatus) -> Option<Value> {
    let seen = &tick.seen.jobs;
    // Its intent stands in the status that was read, and it is known not to be there.
    if !seen.jobs.get(&run.job)?.missing() || seen.refused.get(&run.job).is_some_and(|refusal| refusal.fresh) {
        return None;
    }
    let cron_job = seen.cron_jobs.get(&spec_of(tick, run)?.cron_job)?.known()?;
    let weight = tick.stage().map(|stage| stage.weight.to_string()).unwrap_or_default();
    let stage = (run.at == JobAt::Stage).then_some((run.stage, weight.as_str()));
    let (namespace, owner) = (tick.namespace(), tick.owner());
    Some(job::from_cron_job(cron_job, &job::Run { name: &run.job, namespace, owner, release: &current.id, stage }))
}
