//! Jobs of a release: what their end does, what waits for them, and what never does.

use canary_api::{JobState, JobStatus, Step};
use serde_json::{Value, json};

use crate::{
    good,
    world::{JobFate, Place, Read, Refused, World},
};

/// A job from the CronJob of its own name.
pub fn job(name: &str, at: &str, more: Value) -> Value {
    let mut job = json!({"name": name, "cronJob": name, "at": at, "deadline": "2m"});
    for (key, value) in more.as_object().unwrap() {
        job[key] = value.clone();
    }
    job
}

pub fn smoke(more: Value) -> Value {
    json!({"jobs": [job("smoke", "Stage", more)]})
}

pub fn world(over: Value, fates: &[(&str, JobFate)]) -> World {
    let mut world = World::new(over);
    for (name, fate) in fates {
        world.cron_job(name, *fate);
    }
    world.arm();
    world.apply("v2").unwrap();
    world
}

pub fn runs(world: &World) -> Vec<JobStatus> {
    world.status().current.map(|current| current.jobs).unwrap_or_default()
}

fn paused(world: &World) -> Option<(String, bool)> {
    let paused = world.status().current?.paused?;
    Some((paused.reason, paused.without_weight))
}

fn trail(world: &World) -> Vec<Place> {
    world.trail.iter().map(|(_, step, stage)| (*step, *stage)).collect()
}

/// Result of each run in the record, with its place and attempt.
fn recorded(world: &World, id: &str) -> Vec<String> {
    let place = |job: &canary_api::JobRecord| job.stage.map_or_else(|| job.at.clone(), |stage| format!("s{stage}"));
    let one = |job: &canary_api::JobRecord| format!("{} {} {} {}", job.name, place(job), job.attempt, job.result);
    world.record(id).jobs.iter().map(one).collect()
}

#[test]
fn a_release_whose_jobs_succeed_goes_its_way_and_each_ran_once_at_its_place() {
    let jobs = json!({"soak": "20s", "jobs": [
        job("scan", "BeforeStart", json!({"evidence": "Scan"})),
        job("smoke", "Stage", json!({})),
        job("late", "Stage", json!({"stages": ["50%", "100%"]})),
        job("tidy", "AfterPromotion", json!({})),
        job("restore", "AfterRollback", json!({})),
    ]});
    let fates = ["scan", "smoke", "late", "tidy", "restore"].map(|name| (name, JobFate::Succeeds(6)));
    let mut world = world(jobs, &fates);
    assert_eq!(world.finish(), "Promoted");
    let ran = [
        "scan BeforeStart 1",
        "smoke s1 1",
        "smoke s2 1",
        "late s2 1",
        "smoke s3 1",
        "late s3 1",
        "tidy AfterPromotion 1",
    ];
    assert_eq!(recorded(&world, "web-1"), ran.map(|run| format!("{run} Succeeded")));
    assert_eq!(world.jobs_made.len(), ran.len());
    let record = world.record("web-1");
    assert_eq!((record.result.as_str(), record.frozen), ("SUCCESS", true));
    let scan = &record.jobs[0];
    assert_eq!((scan.cron_job.as_str(), scan.evidence.as_str()), ("scan", "Scan"));
    assert_eq!(scan.log, format!("log of {}", scan.job));
    assert_eq!((record.jobs[2].weight.as_str(), record.jobs[2].exit_code), ("50%", Some(0)));
    let writes = record.timeline.iter().filter(|entry| entry.text.starts_with("Job web-1-"));
    assert_eq!(writes.count(), ran.len());
    assert!(
        record.timeline.iter().any(|entry| entry.text.starts_with("JobSucceeded: job smoke at stage 2/3 succeeded"))
    );
    world.assert_rest();
}

#[test]
fn jobs_that_take_no_time_delay_nothing() {
    let jobs = json!({"jobs": [job("scan", "BeforeStart", json!({})), job("smoke", "Stage", json!({}))]});
    let mut world = world(jobs, &[("scan", JobFate::Succeeds(1)), ("smoke", JobFate::Succeeds(1))]);
    assert_eq!(world.finish(), "Promoted");
    assert_eq!(trail(&world), good::WHOLE);
}

#[test]
fn no_weight_moves_before_the_jobs_before_the_start_have_succeeded() {
    for baseline in ["20s", "0s"] {
        let over = json!({"baseline": {"duration": baseline}, "jobs": [job("scan", "BeforeStart", json!({}))]});
        let mut world = world(over, &[("scan", JobFate::Succeeds(90))]);
        world.run(80);
        assert_eq!((world.place(), world.canary_pods()), ((Step::Baseline, 0), 0), "{baseline}");
        assert!(world.status().message.contains("job scan"), "{}", world.status().message);
        assert_eq!(world.finish(), "Promoted", "{baseline}");
    }
}

#[test]
fn a_failure_before_the_start_pauses_without_weight_and_resume_runs_it_again() {
    let mut world = world(json!({"jobs": [job("scan", "BeforeStart", json!({}))]}), &[("scan", JobFate::Fails(5))]);
    world.until("paused", |world| paused(world).is_some());
    assert_eq!(paused(&world), Some(("JobFailed".to_owned(), true)));
    assert!(world.status().message.contains("exit code 3 of container c"), "{}", world.status().message);
    world.assert_no_turning();
    assert_eq!(world.canary_pods(), 0);
    world.job_fates.insert("scan".to_owned(), JobFate::Succeeds(5));
    world.command("resume web-1");
    assert_eq!(world.finish(), "Promoted");
    assert_eq!(recorded(&world, "web-1"), ["scan BeforeStart 1 Failed", "scan BeforeStart 2 Succeeded"]);
    assert_eq!(world.record("web-1").result, "SUCCESS");
}

#[test]
fn a_failure_before_the_start_may_reject_the_candidate() {
    let over = json!({"onRevert": "Hold", "jobs": [
        job("scan", "BeforeStart", json!({"onFailure": "Revert"})),
        job("restore", "AfterRollback", json!({})),
    ]});
    let mut world = world(over, &[("scan", JobFate::Fails(5)), ("restore", JobFate::Succeeds(5))]);
    assert_eq!(world.finish(), "RolledBack");
    let revert = world.status().current.unwrap().revert.unwrap();
    assert_eq!((revert.reason.as_str(), revert.by.as_str(), revert.rejects), ("JobFailed", "job scan", true));
    // Nothing of the candidate ever ran: there is nothing to restore.
    assert_eq!(recorded(&world, "web-1"), ["scan BeforeStart 1 Failed"]);
    world.assert_rest();
    world.assert_plain_route();
}

#[test]
fn a_job_that_fails_at_a_stage_reverts_in_the_tick_that_sees_it() {
    for stage in 0..3 {
        let mut world = world(smoke(json!({})), &[("smoke", JobFate::Succeeds(1))]);
        world.reach((Step::Bake, stage));
        world.job_fates.insert("smoke".to_owned(), JobFate::Fails(5));
        world.until("it failed", |world| runs(world).iter().any(|run| run.state == JobState::Failed));
        assert_eq!(world.place().0, Step::Revert, "stage {stage}");
        let revert = world.status().current.unwrap().revert.unwrap();
        assert_eq!((revert.reason.as_str(), revert.by.as_str(), revert.rejects), ("JobFailed", "job smoke", true));
        assert!(revert.message.contains("exit code 3 of container c"), "{}", revert.message);
        assert_eq!(world.finish(), "RolledBack");
        assert_eq!((world.served(), world.unanswered), (vec!["web:v1".to_owned()], 0.0));
        let record = world.record("web-1");
        assert_eq!((record.rollbacks[0].trigger.as_str(), record.result.as_str()), ("job smoke", "FAILED"));
        assert!(record.rollbacks[0].reason.starts_with("job smoke at stage"), "{}", record.rollbacks[0].reason);
        world.assert_rest();
        world.assert_plain_route();
        // The same template is not released again.
        world.apply("v2").unwrap();
        world.run(60);
        assert_eq!(world.id(), "web-1");
    }
}

#[test]
fn a_stage_does_not_end_before_its_jobs_have() {
    let mut world = world(smoke(json!({"stages": ["10%"]})), &[("smoke", JobFate::Succeeds(80))]);
    world.reach((Step::Bake, 0));
    world.run(70);
    assert_eq!(world.place(), (Step::Bake, 0));
    let message = world.status().message;
    assert!(message.contains("job smoke (Job web-1-smoke-s1-1-") && message.contains(") runs since"), "{message}");
    assert_eq!(world.finish(), "Promoted");
    assert_eq!(world.jobs_made.len(), 1);
}

#[test]
fn a_failure_that_pauses_keeps_the_weight_and_resume_runs_it_again() {
    let mut world = world(smoke(json!({"onFailure": "Pause"})), &[("smoke", JobFate::Succeeds(1))]);
    world.reach((Step::Bake, 1));
    world.job_fates.insert("smoke".to_owned(), JobFate::Fails(5));
    world.until("paused", |world| paused(world).is_some());
    assert_eq!((paused(&world), world.weight()), (Some(("JobFailed".to_owned(), false)), 500));
    world.assert_no_turning();
    world.job_fates.insert("smoke".to_owned(), JobFate::Succeeds(5));
    world.command("resume web-1");
    assert_eq!(world.finish(), "Promoted");
    let told = recorded(&world, "web-1");
    assert_eq!(told, ["smoke s1 1 Succeeded", "smoke s2 1 Failed", "smoke s2 2 Succeeded", "smoke s3 1 Succeeded"]);
    assert_eq!(world.record("web-1").result, "SUCCESS");
}

#[test]
fn a_breach_after_a_job_has_paused_a_stage_reverts_it() {
    for fate in [JobFate::Fails(5), JobFate::Evicted(5)] {
        let mut world = world(smoke(json!({"onFailure": "Pause"})), &[("smoke", fate)]);
        world.until("paused", |world| paused(world).is_some());
        assert_eq!(world.weight(), 100);
        world.faulty("v2", 0.3);
        assert_eq!(world.finish(), "RolledBack");
        assert_eq!(world.served(), ["web:v1"]);
        world.assert_rest();
    }
}

#[test]
fn a_failure_that_is_only_recorded_stops_nothing_and_is_not_a_whole_success() {
    let mut world = world(smoke(json!({"onFailure": "Record"})), &[("smoke", JobFate::Fails(5))]);
    assert_eq!(world.finish(), "Promoted");
    let record = world.record("web-1");
    assert_eq!(record.result, "PARTIAL");
    assert!(record.result_because.starts_with("job smoke at stage 1: Failed"), "{}", record.result_because);
}

/// A release at stage 1 whose job comes to no verdict for some reason.
fn without_verdict(fate: JobFate, change: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(smoke(json!({"deadline": "30s"})));
    world.cron_job("smoke", fate);
    change(&mut world);
    world.arm();
    world.apply("v2").unwrap();
    world.until("paused", |world| paused(world).is_some());
    assert_eq!((paused(&world), world.weight()), (Some(("JobNotRun".to_owned(), false)), 100), "{}", world.describe());
    world.assert_no_turning();
    world
}

#[test]
fn what_could_not_be_run_is_no_verdict() {
    let gone = without_verdict(JobFate::Hangs, |world| world.delete("CronJob", "smoke"));
    assert!(gone.status().message.contains("there is no CronJob smoke"), "{}", gone.status().message);
    let quota = Refused::Forbidden("exceeded quota: jobs".to_owned());
    let refused = without_verdict(JobFate::Hangs, |world| world.jobs_refused = Some(quota));
    assert!(refused.status().message.contains("exceeded quota"), "{}", refused.status().message);
    let webhook = Refused::Unavailable("a webhook does not answer".to_owned());
    let failing = without_verdict(JobFate::Hangs, |world| world.jobs_refused = Some(webhook));
    assert!(failing.status().message.contains("could not be created within 30s"), "{}", failing.status().message);
    let hangs = without_verdict(JobFate::Hangs, |_| {});
    assert!(hangs.status().message.contains("had not ended within 30s"), "{}", hangs.status().message);
    let late = without_verdict(JobFate::OutOfTime(5), |_| {});
    assert!(late.status().message.contains("DeadlineExceeded"), "{}", late.status().message);
    let evicted = without_verdict(JobFate::Evicted(5), |_| {});
    assert!(evicted.status().message.contains("no program of it ended by itself"), "{}", evicted.status().message);
    let unread = without_verdict(JobFate::Fails(5), |world| _ = world.unreadable.insert(Read::JobPods));
    let why = "it failed, and its pods, which tell why, could not be read: BackoffLimitExceeded";
    assert!(unread.status().message.contains(why), "{}", unread.status().message);
    for mut world in [gone, refused, failing, hangs, late, evicted, unread] {
        world.jobs_refused = None;
        world.unreadable.clear();
        if world.get("CronJob", "smoke").is_none() {
            world.cron_job("smoke", JobFate::Hangs);
        }
        world.job_fates.insert("smoke".to_owned(), JobFate::Succeeds(2));
        world.command("resume web-1");
        assert_eq!(world.finish(), "Promoted", "{}", world.describe());
        assert_eq!(world.record("web-1").result, "SUCCESS");
    }
}

#[test]
fn a_job_of_another_with_our_name_is_no_verdict_and_stays() {
    let mut world = world(smoke(json!({})), &[("smoke", JobFate::Hangs)]);
    world.reach((Step::Shift, 0));
    let uid = canary_core::object::uid(world.get("CanaryRelease", "web").unwrap()).to_owned();
    let name = canary_api::names::job("web-1", &uid, "smoke", "s1-1");
    world.create("Job", json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {}}));
    world.until("paused", |world| paused(world).is_some());
    assert!(world.status().message.contains("not of this release"), "{}", world.status().message);
    assert!(world.jobs_made.is_empty() && world.get("Job", &name).is_some());
}

#[test]
fn a_breach_waits_for_no_job_and_a_running_one_is_left_alone() {
    let mut plain = World::with_release(json!({}), "v2", (Step::Bake, 1));
    let mut jobs = world(smoke(json!({"deadline": "10m"})), &[("smoke", JobFate::Succeeds(1))]);
    jobs.reach((Step::Shift, 1));
    jobs.job_fates.insert("smoke".to_owned(), JobFate::Hangs);
    jobs.reach((Step::Bake, 1));
    let took = |world: &mut World| {
        world.run(7);
        let from = world.now;
        world.faulty("v2", 0.5);
        world.until("no traffic on the candidate", |world| world.weight() == 0);
        world.now.duration_since(from).as_secs()
    };
    let (without, with) = (took(&mut plain), took(&mut jobs));
    assert!(with <= without, "{with}s with a job, {without}s without");
    assert_eq!(jobs.finish(), "RolledBack");
    assert_eq!(recorded(&jobs, "web-1"), ["smoke s1 1 Succeeded", "smoke s2 1 Unfinished"]);
    assert!(jobs.get("Job", &jobs.jobs_made[1]).is_some(), "it is left to end by itself");
    jobs.assert_rest();
}

#[test]
fn traffic_goes_back_while_jobs_can_not_be_read() {
    let mut world = world(smoke(json!({})), &[("smoke", JobFate::Hangs)]);
    world.reach((Step::Bake, 0));
    world.run(5);
    world.unreadable.insert(Read::Jobs);
    world.faulty("v2", 0.5);
    world.until("no traffic on the candidate", |world| world.weight() == 0);
    assert_eq!(world.finish(), "RolledBack");
}

#[test]
fn abort_waits_for_no_job() {
    let mut world = world(smoke(json!({"deadline": "10m"})), &[("smoke", JobFate::Hangs)]);
    world.reach((Step::Bake, 0));
    world.run(5);
    world.command("abort");
    world.run(3);
    assert_eq!(world.weight(), 0);
    assert_eq!(world.finish(), "Aborted");
    assert_eq!(recorded(&world, "web-1"), ["smoke s1 1 Unfinished"]);
}

#[test]
fn nothing_is_started_while_a_release_is_paused() {
    let mut world = world(smoke(json!({})), &[("smoke", JobFate::Succeeds(1))]);
    world.reach((Step::Shift, 1));
    world.command("pause web-1");
    world.run(300);
    assert_eq!((paused(&world).unwrap().0.as_str(), world.jobs_made.len()), ("Command", 1));
    world.command("resume web-1");
    assert_eq!(world.finish(), "Promoted");
}

#[test]
fn a_failure_reverts_a_release_that_a_person_paused() {
    let mut world = world(smoke(json!({})), &[("smoke", JobFate::Fails(20))]);
    world.reach((Step::Bake, 0));
    world.run(3);
    world.command("pause web-1");
    assert_eq!(world.finish(), "RolledBack");
}

/// A verdict that comes while traffic waits on stable for another reason is no less one.
#[test]
fn a_failure_before_the_start_rejects_also_a_release_that_is_stopped() {
    for command in [None, Some("promote web-1"), Some("resume web-1")] {
        let over = json!({"jobs": [job("scan", "BeforeStart", json!({"onFailure": "Revert"}))]});
        let mut world = World::new(over);
        world.cron_job("scan", JobFate::Hangs);
        world.arm();
        world.faulty("v1", 0.3);
        world.apply("v2").unwrap();
        world.until("stopped", |world| paused(world).is_some());
        assert_eq!(paused(&world), Some(("StableInBreach".to_owned(), true)));
        world.faulty("v1", 0.0);
        world.job_fates.insert("scan".to_owned(), JobFate::Fails(1));
        // It has failed when the command is read.
        world.fate_changed();
        world.step(std::time::Duration::from_secs(1));
        if let Some(command) = command {
            world.command(command);
        }
        assert_eq!(world.finish(), "RolledBack", "{command:?}: {}", world.describe());
        assert_eq!(world.status().current.unwrap().revert.unwrap().by, "job scan", "{command:?}");
    }
}

#[test]
fn a_failure_reverts_in_the_tick_in_which_the_canary_also_loses_its_pods() {
    let mut world = world(smoke(json!({})), &[("smoke", JobFate::Hangs)]);
    world.reach((Step::Bake, 0));
    world.run(5);
    world.job_fates.insert("smoke".to_owned(), JobFate::Fails(1));
    world.lose_canary_pods();
    world.step(std::time::Duration::from_millis(1));
    world.tick("web");
    assert_eq!((runs(&world)[0].state, world.place().0), (JobState::Failed, Step::Revert), "{}", world.describe());
    assert_eq!(world.finish(), "RolledBack");
}

/// Whichever of both is seen first: where the job's end is known, so is its verdict.
#[test]
fn a_failure_reverts_whatever_else_stops_the_release_about_then() {
    let mut ends = std::collections::BTreeSet::new();
    for after in 1..30 {
        for silent in [true, false] {
            let mut world = world(smoke(json!({})), &[("smoke", JobFate::Fails(after))]);
            world.reach((Step::Bake, 0));
            if silent {
                world.obeyed = 0.0;
                world.fate_changed();
            } else {
                world.faulty("v1", 0.5);
                world.faulty("v2", 0.5);
            }
            let failed = |world: &World| runs(world).iter().any(|run| run.state == JobState::Failed);
            world.until("an end", |world| paused(world).is_some() || world.place().0 == Step::Revert || failed(world));
            ends.insert((silent, paused(&world).map_or_else(|| format!("{:?}", world.place().0), |(why, _)| why)));
            assert!(!failed(&world) || world.place().0 == Step::Revert, "{after}: {}", world.describe());
        }
    }
    let ends: Vec<_> = ends.iter().map(|(silent, end)| (*silent, end.as_str())).collect();
    assert_eq!(ends, [(false, "Confounded"), (false, "Revert"), (true, "CanarySilent"), (true, "Revert")]);
}

#[test]
fn a_job_that_waits_while_a_release_is_paused_is_not_late_and_its_clock_is_left_alone() {
    let mut world = world(smoke(json!({"deadline": "30s"})), &[("smoke", JobFate::Succeeds(1))]);
    world.jobs_refused = Some(Refused::Unavailable("a webhook does not answer".to_owned()));
    world.reach((Step::Bake, 0));
    world.run(3);
    world.command("pause web-1");
    world.run(3);
    let before = runs(&world);
    assert_eq!(before[0].state, JobState::Wanted);
    world.run(300);
    assert_eq!(runs(&world), before);
    world.jobs_refused = None;
    world.command("resume web-1");
    assert_eq!(world.finish(), "Promoted");
    assert_eq!(recorded(&world, "web-1")[0], "smoke s1 1 Succeeded");
}

#[test]
fn a_release_that_starts_again_after_promote_starts_with_what_never_succeeded() {
    let mut world = world(json!({"jobs": [job("scan", "BeforeStart", json!({}))]}), &[("scan", JobFate::Fails(5))]);
    world.until("paused", |world| paused(world).is_some());
    world.block_new_pods("v2");
    world.command("promote web-1");
    world.until("stopped", |world| paused(world).is_some_and(|(why, _)| why == "Unschedulable"));
    world.unblock_pods();
    world.job_fates.insert("scan".to_owned(), JobFate::Succeeds(5));
    world.command("resume web-1");
    world.run(3);
    assert_eq!((world.place().0, world.weight()), (Step::Baseline, 0), "{}", world.describe());
    assert_eq!(world.finish(), "Promoted");
    assert_eq!(recorded(&world, "web-1"), ["scan BeforeStart 1 Failed", "scan BeforeStart 2 Succeeded"]);
}

#[test]
fn a_stage_that_begins_again_runs_its_jobs_again() {
    let mut world = world(smoke(json!({})), &[("smoke", JobFate::Succeeds(1))]);
    world.reach((Step::Bake, 1));
    world.run(5);
    world.lose_canary_pods();
    assert_eq!(world.finish(), "Promoted");
    let told = recorded(&world, "web-1");
    assert_eq!(told, ["smoke s1 1 Succeeded", "smoke s2 1 Succeeded", "smoke s2 2 Succeeded", "smoke s3 1 Succeeded"]);
}

#[test]
fn promote_waits_for_no_job_and_the_record_says_so() {
    let mut world = world(smoke(json!({"deadline": "10m"})), &[("smoke", JobFate::Hangs)]);
    world.reach((Step::Bake, 0));
    world.run(5);
    world.command("promote web-1");
    assert_eq!(world.finish(), "Promoted");
    let record = world.record("web-1");
    assert_eq!(record.result, "PARTIAL");
    assert!(record.result_because.contains("job smoke at stage 1: Unfinished"), "{}", record.result_because);
}

#[test]
fn a_job_that_fails_after_promote_still_counts() {
    let mut world = world(smoke(json!({"deadline": "10m"})), &[("smoke", JobFate::Hangs)]);
    world.reach((Step::Bake, 0));
    world.run(5);
    world.command("promote web-1");
    world.reach((Step::Roll, 2));
    world.job_fates.insert("smoke".to_owned(), JobFate::Fails(1));
    world.fate_changed();
    assert_eq!(world.finish(), "RolledBack", "{}", world.describe());
    assert_eq!(world.served(), ["web:v1"]);
    world.assert_plain_route();
}

#[test]
fn jobs_after_a_rollback_start_when_traffic_is_back_and_delay_nothing() {
    let over = json!({"jobs": [job("restore", "AfterRollback", json!({"evidence": "Restore"}))]});
    let mut world = world(over, &[("restore", JobFate::Succeeds(60))]);
    world.reach((Step::Bake, 1));
    world.faulty("v2", 0.5);
    world.until("the release is over", World::is_over);
    assert_eq!(runs(&world)[0].state, JobState::Running, "the end does not wait for it");
    let record = world.record("web-1");
    assert!(!record.frozen && record.result == "FAILED", "{record:?}");
    world.run(90);
    assert!(world.record("web-1").frozen);
    assert_eq!(recorded(&world, "web-1"), ["restore AfterRollback 1 Succeeded"]);
    world.assert_rest();
}

#[test]
fn jobs_after_a_promotion_change_nothing_whatever_becomes_of_them() {
    let over = json!({"jobs": [job("tidy", "AfterPromotion", json!({"deadline": "1m"}))]});
    for (fate, result) in
        [(JobFate::Fails(5), "Failed"), (JobFate::Hangs, "Unfinished"), (JobFate::Evicted(5), "NotRun")]
    {
        let mut world = world(over.clone(), &[("tidy", fate)]);
        assert_eq!(world.finish(), "Promoted");
        world.run(90);
        let record = world.record("web-1");
        assert_eq!((record.result.as_str(), record.jobs[0].result.as_str(), record.frozen), ("SUCCESS", result, true));
        assert!(record.result_because.contains("job tidy after the promotion"), "{}", record.result_because);
        assert!(world.status().summary.iter().any(|line| line.starts_with("Job tidy after the promotion")));
        world.assert_rest();
    }
}

#[test]
fn a_newer_release_closes_the_record_of_the_one_whose_job_still_runs() {
    let over = json!({"jobs": [job("tidy", "AfterPromotion", json!({"deadline": "1h"}))]});
    let mut world = world(over, &[("tidy", JobFate::Hangs)]);
    assert_eq!(world.finish(), "Promoted");
    assert!(!world.record("web-1").frozen);
    world.apply("v3").unwrap();
    world.until("the next release", |world| world.id() == "web-2");
    let record = world.record("web-1");
    assert_eq!(
        (record.frozen, record.jobs[0].result.as_str(), record.result.as_str()),
        (true, "Unfinished", "SUCCESS")
    );
    let told = "job tidy after the promotion was not waited for: a newer release begins";
    assert!(world.notes.iter().any(|note| note.contains(told)), "{:?}", world.notes);
}

#[test]
fn deletion_starts_no_job_and_leaves_what_runs() {
    let over = json!({"jobs": [job("smoke", "Stage", json!({})), job("restore", "AfterRollback", json!({}))]});
    let mut world = world(over, &[("smoke", JobFate::Hangs), ("restore", JobFate::Hangs)]);
    world.reach((Step::Bake, 0));
    world.run(5);
    world.delete("CanaryRelease", "web");
    world.until("it is gone", |world| world.get("CanaryRelease", "web").is_none());
    assert_eq!(world.jobs_made.len(), 1);
    assert!(world.get("Job", &world.jobs_made[0]).is_some());
    assert!(world.record("web-1").frozen);
    world.assert_plain_target();
    world.assert_nothing_left();
}

#[test]
fn a_log_that_can_not_be_read_delays_nothing_and_is_said() {
    let mut world = world(smoke(json!({})), &[("smoke", JobFate::Succeeds(1))]);
    world.logs_unreadable = true;
    assert_eq!(world.finish(), "Promoted");
    assert!(
        world.record("web-1").jobs.iter().all(|job| job.log.is_empty() && job.log_note.contains("could not be read"))
    );
}

#[test]
fn a_release_without_jobs_reads_none() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    world.unreadable.insert(Read::Jobs);
    assert_eq!(world.finish(), "Promoted");
}

fn whole(bad: bool, dies_after: Option<usize>) -> World {
    let over = json!({"jobs": [
        job("scan", "BeforeStart", json!({})),
        job("smoke", "Stage", json!({"stages": ["50%"]})),
        job("restore", "AfterRollback", json!({})),
        job("tidy", "AfterPromotion", json!({})),
    ]});
    let mut world = World::new(over);
    for name in ["scan", "restore", "tidy"] {
        world.cron_job(name, JobFate::Succeeds(9));
    }
    world.cron_job("smoke", if bad { JobFate::Fails(9) } else { JobFate::Succeeds(9) });
    world.dies_after = dies_after;
    world.arm();
    world.apply("v2").unwrap();
    world.finish();
    world
}

#[test]
fn the_operator_may_die_after_every_write_and_each_job_runs_once() {
    for bad in [false, true] {
        let known = whole(bad, None);
        for after in 1..=known.written {
            let mut world = whole(bad, Some(after));
            assert_eq!(world.outcome(), known.outcome(), "dead after {after}: {}", world.describe());
            assert_eq!(world.trail, known.trail, "dead after {after}: a step is repeated or skipped");
            let made = |world: &World| {
                let mut made = world.jobs_made.clone();
                made.sort();
                made.len()
            };
            assert_eq!(made(&world), made(&known), "dead after {after}: {:?}", world.jobs_made);
            let jobs = |world: &World| {
                runs(world).iter().map(|run| (run.name.clone(), run.attempt, run.state)).collect::<Vec<_>>()
            };
            assert_eq!(jobs(&world), jobs(&known), "dead after {after}");
            world.run(60);
            assert!(world.record("web-1").frozen, "dead after {after}");
            if after % 7 == 0 {
                world.assert_rest();
            }
        }
    }
}

#[test]
fn an_operator_that_was_away_runs_what_was_due_and_takes_what_ended_meanwhile() {
    for after in 8..24 {
        let mut world =
            World::new(json!({"jobs": [job("scan", "BeforeStart", json!({})), job("smoke", "Stage", json!({}))]}));
        world.cron_job("scan", JobFate::Succeeds(9));
        world.cron_job("smoke", JobFate::Succeeds(9));
        world.arm();
        world.apply("v2").unwrap();
        world.dies_after = Some(after);
        world.until("it is dead", |world| world.deaths == 1);
        let end = world.now + std::time::Duration::from_secs(1800);
        while world.now < end {
            world.step(std::time::Duration::from_secs(10));
        }
        let rests = |world: &World| paused(world).is_some() || world.place().0 == Step::Done;
        world.until("it goes on", rests);
        // What the gates missed meanwhile may leave the stage without a verdict; a job's end is not missed.
        while let Some((reason, _)) = paused(&world) {
            assert_eq!(reason, "Inconclusive", "dead after {after}: {}", world.describe());
            world.command("resume web-1");
            world.run(2);
            world.until("it goes on", rests);
        }
        assert_eq!(world.finish(), "Promoted", "dead after {after}: {}", world.describe());
        let ended = |place: &str| {
            recorded(&world, "web-1").iter().any(|run| run.starts_with(place) && run.ends_with("Succeeded"))
        };
        let all = ["scan BeforeStart", "smoke s1", "smoke s2", "smoke s3"];
        assert!(all.into_iter().all(ended), "dead after {after}: {:?}", recorded(&world, "web-1"));
    }
}
