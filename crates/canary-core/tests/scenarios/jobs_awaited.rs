//! One tick's word on a job: how long it is waited for, what becomes of it when something is in its way, and what its
//! end does to the release at that moment.

use std::time::Duration;

use canary_api::{JobAt, JobState, JobStatus, OnJobFailure, Step, names};
use canary_core::{Decision, Effect, Fetched, Kind, observed::Refusal};
use serde_json::{Value, json};

use crate::{
    jobs::{job, runs, smoke, world},
    world::{JobFate, Sight, World, pause, release, step},
};

impl Sight {
    fn run(&mut self) -> &mut JobStatus {
        &mut self.current().jobs[0]
    }

    /// So long after the job was due.
    fn after(mut self, seconds: u64) -> Self {
        self.now = self.run().started.as_ref().unwrap().0 + Duration::from_secs(seconds);
        self
    }

    /// The first job's Job, as it is read.
    fn job(&mut self, read: Fetched<Value>) {
        let name = self.run().job.clone();
        self.seen.jobs.jobs.insert(name, read);
    }

    /// The first job's Job has ended, badly or well.
    fn ended(&mut self, kind: &str) {
        let name = self.run().job.clone();
        let mut found = self.seen.jobs.jobs[&name].known().unwrap().clone();
        found["status"] = json!({"conditions": [{"type": kind, "status": "True", "reason": "Told", "message": "m"}]});
        self.job(Fetched::Known(found));
    }

    /// Nothing was created of the first job yet, and its CronJob is there.
    fn wanted(mut self) -> Self {
        self.run().state = JobState::Wanted;
        self.job(Fetched::Missing);
        let spec = json!({"template": {"spec": {"containers": [{"name": "c"}]}}});
        let found = json!({"metadata": {"name": "smoke", "uid": "c-1"}, "spec": {"jobTemplate": {"spec": spec}}});
        self.cron_job(Fetched::Known(found));
        self
    }

    fn cron_job(&mut self, read: Fetched<Value>) {
        let name = self.seen.release.spec.jobs[0].cron_job.clone();
        self.seen.jobs.cron_jobs.insert(name, read);
    }

    fn pause(&mut self, reason: &str, without_weight: bool) {
        let since = self.run().started.clone().unwrap();
        pause(&mut self.seen, since, reason, without_weight);
    }
}

/// Stage 1, whose job runs.
fn stage_1(over: Value) -> Sight {
    let mut world = world(over, &[("smoke", JobFate::Hangs), ("late", JobFate::Hangs), ("scan", JobFate::Succeeds(1))]);
    world.reach((Step::Bake, 0));
    world.until("the jobs run", |world| {
        let stage = runs(world).into_iter().filter(|run| run.at == JobAt::Stage).collect::<Vec<_>>();
        !stage.is_empty() && stage.iter().all(|run| run.state == JobState::Running)
    });
    Sight::of(&world)
}

fn first(done: &Decision) -> (JobState, &str) {
    let run = &release(done).jobs[0];
    (run.state, &run.message)
}

fn pause_reason(done: &Decision) -> Option<&str> {
    release(done).paused.as_ref().map(|paused| paused.reason.as_str())
}

/// The Jobs that are created.
fn made(done: &Decision) -> Vec<&Value> {
    let made = done.effects.iter().filter_map(|effect| match effect {
        Effect::Create { kind: Kind::Job, object, .. } => Some(object),
        _ => None,
    });
    made.collect()
}

#[test]
fn a_job_that_was_deleted_is_not_made_again_and_is_no_verdict() {
    let mut view = stage_1(smoke(json!({"onFailure": "Record"}))).wanted();
    view.run().state = JobState::Running;
    let done = view.decide();
    assert_eq!(first(&done), (JobState::NotRun, "it was deleted before its end was seen"));
    assert!(made(&done).is_empty());
    assert_eq!(pause_reason(&done), None, "what became of it is only recorded");
}

#[test]
fn a_job_is_late_when_its_deadline_is_over_and_not_before() {
    let view = stage_1(smoke(json!({"onFailure": "Record"})));
    assert_eq!(first(&view.clone().after(119).decide()), (JobState::Running, ""));
    assert_eq!(first(&view.after(120).decide()), (JobState::Unfinished, "it had not ended within 2m"));
}

#[test]
fn what_keeps_a_job_from_being_created_is_said() {
    let wanted = stage_1(smoke(json!({}))).wanted();
    let mut deleted = wanted.clone();
    let going = json!({"metadata": {"name": "smoke", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    deleted.cron_job(Fetched::Known(going));
    assert_eq!(first(&deleted.decide()), (JobState::NotRun, "CronJob smoke is being deleted"));
    let late = wanted.after(120);
    let why = || Fetched::Failed("the server fails".to_owned());
    let (mut cron_job, mut own) = (late.clone(), late);
    cron_job.cron_job(why());
    own.job(why());
    for view in [cron_job, own] {
        let done = view.decide();
        assert_eq!(first(&done), (JobState::NotRun, "it could not be created within 2m: the server fails"));
        assert_eq!(pause_reason(&done), Some("JobNotRun"));
    }
}

#[test]
fn a_job_that_nobody_tried_to_create_has_its_time_from_now_on() {
    let mut view = stage_1(smoke(json!({}))).wanted();
    let due = view.run().started.clone();
    let early = view.clone().after(119).decide();
    assert_eq!((release(&early).jobs[0].started.clone(), first(&early).0), (due, JobState::Wanted));
    let view = view.after(120);
    let done = view.decide();
    assert_eq!(release(&done).jobs[0].started.as_ref().unwrap().0, view.now);
    assert_eq!(first(&done).0, JobState::Wanted);
}

#[test]
fn a_job_that_is_waited_for_is_looked_at_again_soon() {
    let mut view = stage_1(smoke(json!({}))).wanted();
    view.seen.jobs.cron_jobs.clear();
    let done = view.after(4).decide();
    assert_eq!((first(&done).0, done.wake_after), (JobState::Wanted, Some(Duration::from_secs(2))));
}

#[test]
fn a_job_that_was_created_just_before_a_pause_is_seen_to_run() {
    let mut view = stage_1(smoke(json!({})));
    view.run().state = JobState::Wanted;
    view.pause("Command", false);
    assert_eq!(first(&view.decide()).0, JobState::Running);
}

#[test]
fn what_is_told_of_a_job_names_its_place_and_a_repeated_attempt() {
    for (attempt, again) in [(1, ""), (2, ", attempt 2,")] {
        let mut view = stage_1(smoke(json!({})));
        view.run().attempt = attempt;
        view.ended("Complete");
        let done = view.decide();
        let told = done.notes.iter().find(|note| note.reason == "JobSucceeded").unwrap();
        let name = &release(&done).jobs[0].job;
        assert_eq!(told.text, format!("job smoke at stage 1/3{again} succeeded (Job {name})"));
    }
}

#[test]
fn each_job_of_a_stage_has_its_own_deadline_and_is_due_by_itself() {
    let over = json!({"jobs": [job("smoke", "Stage", json!({})), job("late", "Stage", json!({"deadline": "30s"}))]});
    let mut view = stage_1(over);
    let done = view.clone().after(40).decide();
    let jobs: Vec<_> = release(&done).jobs.iter().map(|run| (run.state, run.message.as_str())).collect();
    assert_eq!(jobs, [(JobState::Running, ""), (JobState::Unfinished, "it had not ended within 30s")]);
    view.current().jobs.pop();
    let done = view.decide();
    let jobs: Vec<_> = release(&done).jobs.iter().map(|run| (run.name.as_str(), run.state)).collect();
    assert_eq!(jobs, [("smoke", JobState::Running), ("late", JobState::Wanted)]);
}

#[test]
fn a_job_before_the_start_that_fails_after_promote_pauses_the_release() {
    let mut world = world(json!({"jobs": [job("scan", "BeforeStart", json!({}))]}), &[("scan", JobFate::Hangs)]);
    world.until("it runs", |world| runs(world).iter().any(|run| run.state == JobState::Running));
    world.command("promote web-1");
    world.reach((Step::Scale, 2));
    let mut view = Sight::of(&world);
    view.ended("Failed");
    let done = view.decide();
    assert_eq!((first(&done), pause_reason(&done)), ((JobState::Failed, "Told: m"), Some("JobFailed")));
    assert_eq!(step(&done), Step::Scale);
}

#[test]
fn a_failure_that_was_only_recorded_pauses_once_the_spec_says_so() {
    let mut view = stage_1(smoke(json!({"onFailure": "Record"})));
    view.run().state = JobState::Failed;
    view.seen.jobs = Default::default();
    assert_eq!(pause_reason(&view.decide()), None);
    view.seen.release.spec.jobs[0].on_failure = Some(OnJobFailure::Pause);
    assert_eq!(pause_reason(&view.decide()), Some("JobFailed"));
}

#[test]
fn a_job_pauses_no_release_that_is_paused_or_promoted() {
    let mut view = stage_1(smoke(json!({"onFailure": "Pause"})));
    view.ended("Failed");
    assert_eq!(pause_reason(&view.decide()), Some("JobFailed"));
    let mut paused = view.clone();
    paused.pause("Command", false);
    assert_eq!(pause_reason(&paused.decide()), Some("Command"));
    view.current().step = Step::Roll;
    let done = view.decide();
    assert_eq!((first(&done).0, pause_reason(&done)), (JobState::Failed, None));
}

#[test]
fn what_is_waited_for_is_said() {
    let mut world = world(json!({"jobs": [job("scan", "BeforeStart", json!({}))]}), &[("scan", JobFate::Hangs)]);
    world.until("it runs", |world| runs(world).iter().any(|run| run.state == JobState::Running));
    let mut view = Sight::of(&world);
    let (name, since) = (view.run().job.clone(), view.run().started.clone().unwrap().0);
    let until = world.status().current.unwrap().step_since.unwrap().0 + Duration::from_secs(20);
    let said = |what: &str| format!("web-1: the stable version is measured until {until}; {what}");
    assert_eq!(view.decide().status.message, said(&format!("job scan (Job {name}) runs since {since}")));
    view.current().jobs.clear();
    assert_eq!(view.decide().status.message, said("job scan is to be run"));
}

fn restoring() -> Value {
    json!({"jobs": [job("restore", "AfterRollback", json!({}))]})
}

fn next(world: &World) -> Step {
    world.decide().status.current.map_or(Step::Done, |current| current.step)
}

/// A revert whose next tick sees all traffic on stable.
fn clearing() -> Sight {
    let mut world = World::with_release(restoring(), "v2", (Step::Bake, 0));
    world.command("abort");
    world.until("traffic is back", |world| world.place().0 == Step::Revert && next(world) == Step::RevertDrain);
    Sight::of(&world)
}

#[test]
fn jobs_after_a_rollback_are_due_once_a_candidate_that_was_started_is_rolled_back() {
    let cases = [
        ("Aborted", true, 1, true),
        ("RolledBack", true, 0, true),
        ("Aborted", false, 1, true),
        ("RolledBack", false, 0, false),
        ("Superseded", true, 1, false),
        ("Overridden", true, 1, false),
    ];
    for (outcome, split, pods, due) in cases {
        let mut view = clearing();
        let current = view.current();
        (current.split, current.canary_pods) = (split, pods);
        current.revert.as_mut().unwrap().outcome = outcome.to_owned();
        let done = view.decide();
        let jobs: Vec<_> = release(&done).jobs.iter().map(|run| (run.at, run.state)).collect();
        let wanted = if due { vec![(JobAt::AfterRollback, JobState::Wanted)] } else { vec![] };
        assert_eq!((step(&done), jobs), (Step::RevertDrain, wanted), "{outcome} {split} {pods}");
    }
}

#[test]
fn jobs_that_the_spec_gets_after_a_release_are_not_run_for_it() {
    let mut back = clearing();
    back.seen.release.status = Some(back.decide().status);
    back.current().jobs.clear();
    let mut live = World::with_release(json!({}), "v2", (Step::Bake, 0));
    assert_eq!(live.finish(), "Promoted");
    let mut live = Sight::of(&live);
    live.seen.release.spec.jobs = vec![serde_json::from_value(job("tidy", "AfterPromotion", json!({}))).unwrap()];
    for view in [back, live] {
        assert_eq!(release(&view.decide()).jobs, []);
    }
}

/// What a release that is stopped at stage 1 starts again with; of its job before the start this is known.
fn starts_again_with(over: Value, state: Option<JobState>) -> Step {
    let mut view = stage_1(over);
    if let Some(state) = state {
        view.run().state = state;
    }
    let stage = view.current().jobs.last_mut().unwrap();
    stage.state = JobState::Unfinished;
    view.pause("CanarySilent", true);
    view.current().weight = "0%".to_owned();
    let annotations = view.seen.release.metadata.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_COMMAND.to_owned(), "resume web-1".to_owned());
    let done = view.decide();
    assert_eq!(done.status.last_command.as_ref().unwrap().result, "the release starts again at stage 1");
    step(&done)
}

#[test]
fn a_release_starts_again_with_what_is_owed_before_the_start_and_else_with_stage_1() {
    let scan = |on: &str| json!({"jobs": [job("scan", "BeforeStart", json!({"onFailure": on})), job("smoke", "Stage", json!({}))]});
    let cases = [
        (smoke(json!({})), None, false),
        (scan("Pause"), Some(JobState::Succeeded), false),
        (scan("Record"), Some(JobState::NotRun), false),
        (scan("Pause"), Some(JobState::NotRun), true),
        (scan("Revert"), Some(JobState::Unfinished), true),
    ];
    for (over, state, owed) in cases {
        let step = starts_again_with(over.clone(), state);
        assert_eq!(step == Step::Baseline, owed, "{step:?} after {state:?} of {over}");
    }
}

#[test]
fn a_job_of_a_stage_that_lost_its_weight_is_not_waited_for() {
    let mut view = stage_1(smoke(json!({})));
    view.seen.routes[0].1 = Fetched::Missing;
    let done = view.decide();
    let why = "a route lost the canary's weight; it is run again with the stage";
    assert_eq!((step(&done), first(&done)), (Step::Shift, (JobState::Unfinished, why)));
}

/// Stage 1 after so many runs: all but the last at another stage, of which the first has not ended.
fn after_many(runs: i32) -> Sight {
    let mut view = stage_1(smoke(json!({})));
    let here = view.run().clone();
    let one =
        |state| JobStatus { stage: 9, job: "named".to_owned(), message: "told".to_owned(), state, ..here.clone() };
    let mut all: Vec<JobStatus> = (1..runs).map(|_| one(JobState::NotRun)).collect();
    all[0] = one(JobState::Running);
    all.push(JobStatus { state: JobState::Succeeded, message: "told".to_owned(), ..here });
    view.current().jobs = all;
    view
}

#[test]
fn of_more_than_thirty_runs_only_those_elsewhere_that_ended_are_shortened() {
    let mut view = after_many(30);
    let before = view.current().jobs.clone();
    assert_eq!(release(&view.decide()).jobs, before);
    let mut view = after_many(31);
    let before = view.current().jobs.clone();
    let done = view.decide();
    let jobs = &release(&done).jobs;
    assert_eq!((&jobs[0], &jobs[30]), (&before[0], &before[30]));
    let short = |run: &JobStatus| JobStatus {
        message: String::new(),
        job: String::new(),
        started: None,
        ended: None,
        ..run.clone()
    };
    assert_eq!(jobs[1..30], before[1..30].iter().map(short).collect::<Vec<_>>());
}

#[test]
fn a_stage_s_job_is_told_its_stage_and_any_other_is_not() {
    let told = |done: &Decision| {
        let made = made(done);
        assert_eq!(made.len(), 1);
        assert_eq!(made[0]["metadata"]["namespace"], "shop");
        let annotation = |name| canary_core::object::annotation(made[0], name).map(str::to_owned);
        (annotation(names::ANNOTATION_STAGE), annotation(names::ANNOTATION_WEIGHT))
    };
    let mut view = stage_1(smoke(json!({}))).wanted();
    assert_eq!(told(&view.decide()), (Some("1".to_owned()), Some("10%".to_owned())));
    view.seen.release.spec.jobs[0].at = JobAt::BeforeStart;
    (view.run().at, view.run().stage) = (JobAt::BeforeStart, 0);
    assert_eq!(told(&view.decide()), (None, None));
}

#[test]
fn no_job_is_created_while_paused_nor_before_it_is_known_to_lack_nor_too_soon_after_a_refusal() {
    let view = stage_1(smoke(json!({}))).wanted();
    let (mut paused, mut unread, mut refused) = (view.clone(), view.clone(), view);
    paused.pause("Command", false);
    unread.job(Fetched::Failed("the server fails".to_owned()));
    let mut refuse = |fresh| {
        let name = refused.run().job.clone();
        let refusal = Refusal { why: "a webhook does not answer".to_owned(), last: false, fresh };
        refused.seen.jobs.refused.insert(name, refusal);
        refused.clone()
    };
    for view in [paused, unread, refuse(true)] {
        let done = view.decide();
        assert_eq!((made(&done).len(), first(&done).0), (0, JobState::Wanted));
    }
    assert_eq!(made(&refuse(false).decide()).len(), 1);
}
