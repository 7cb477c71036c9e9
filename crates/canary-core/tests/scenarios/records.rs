//! What is recorded of whole releases. (That a record agrees with the status after every tick is checked in every
//! scenario, by the world.)

use canary_api::{ReleaseRecordStatus, Step};
use serde_json::json;

use crate::world::{Fate, JANE, Metrics, World};

fn results(record: &ReleaseRecordStatus) -> Vec<&str> {
    record.stages.iter().map(|stage| stage.result.as_str()).collect()
}

fn texts(record: &ReleaseRecordStatus, kind: &str) -> Vec<String> {
    record.timeline.iter().filter(|entry| entry.kind == kind).map(|entry| entry.text.clone()).collect()
}

fn finished(over: serde_json::Value, errors: f64) -> World {
    let mut world = World::new(over);
    world.arm();
    world.faulty("v2", errors);
    world.apply("v2").unwrap();
    world.finish();
    world
}

/// The candidate turns bad in the middle of its release.
fn broken_at_stage_2() -> World {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.faulty("v2", 0.2);
    assert_eq!(world.finish(), "RolledBack");
    world
}

#[test]
fn a_good_release_leaves_a_whole_record_in_few_writes() {
    let world = finished(json!({}), 0.0);
    let record = world.record("web-1");
    assert_eq!((record.result.as_str(), record.outcome.as_str()), ("SUCCESS", "Promoted"));
    assert_eq!(results(record), ["Passed", "Passed", "Passed"]);
    assert_eq!((record.version.as_str(), record.version_before.as_str()), ("v2", "v1"));
    assert_eq!(record.deployment, "Canary");
    assert!(record.frozen && record.rollbacks.is_empty() && record.result_because.is_empty());
    for stage in &record.stages {
        assert_eq!(stage.passed, "2/2");
        let held = stage.ended.as_ref().unwrap().0.duration_since(stage.started.as_ref().unwrap().0);
        assert!(held.as_secs() >= 30, "{stage:?}");
        let errors = &stage.gates[0];
        assert!(errors.requests.is_some_and(|requests| requests >= 50.0), "{errors:?}");
        assert_eq!((errors.limit.as_str(), errors.events), ("<= 1%", Some(0.0)));
        assert_eq!(errors.stable.is_empty(), stage.weight == "100%", "{errors:?}");
    }
    assert_eq!(record.baseline[0].verdict, "Baseline");
    assert!(record.baseline[0].requests.is_some_and(|requests| requests > 1000.0), "{:?}", record.baseline);
    assert_eq!(record.comparison.len(), 2);
    assert_eq!(record.comparison[0].metric, "errors: share of bad requests (at the same time, stage 2, 50%)");
    let decisions = texts(record, "Decision");
    for told in ["ReleaseStarted: ", "StageStarted: stage 1/3", "StagePassed: stage 3/3", "Promoting: ", "Promoted: "] {
        assert!(decisions.iter().any(|text| text.starts_with(told)), "{told}: {decisions:#?}");
    }
    assert!(texts(record, "Write").iter().any(|text| text.starts_with("HTTPRoute web: ")));
    let writes = world.record_writes.len();
    assert!(writes <= 12, "{writes} writes of records: {:?}", world.record_writes);
}

#[test]
fn versions_and_type_come_from_the_templates_annotations_where_they_have_such() {
    let mut world = World::new(json!({}));
    world.arm();
    let push = |world: &mut World, version: &str, kind: &str| {
        let annotations = json!({"canaryrelease.dev/version": version, "canaryrelease.dev/release-type": kind});
        world
            .edit("Deployment", "web", JANE, "kubectl-edit", |target| {
                target["spec"]["template"]["metadata"]["annotations"] = annotations;
            })
            .unwrap();
        world.finish();
    };
    push(&mut world, "2026.11", "Major");
    let first = world.record("web-1");
    assert_eq!((first.version.as_str(), first.kind.as_str()), ("2026.11", "Major"));
    push(&mut world, "2026.12", "huge");
    let second = world.record("web-2");
    assert_eq!((second.version.as_str(), second.version_before.as_str()), ("2026.12", "2026.11"));
    assert_eq!(second.kind, "", "neither a type that there is nor semantic versions");
}

#[test]
fn a_breach_is_recorded_with_its_figures_and_stable_is_measured_once_more() {
    let world = broken_at_stage_2();
    let record = world.record("web-1");
    assert_eq!((record.result.as_str(), results(record)), ("FAILED", vec!["Passed", "Failed", "Planned"]));
    let [rollback] = record.rollbacks.as_slice() else { panic!("{:?}", record.rollbacks) };
    assert_eq!((rollback.trigger.as_str(), rollback.stage.as_str()), ("gate errors", "2/3"));
    assert_eq!((rollback.weight.as_str(), rollback.verified.as_str()), ("50%", "yes"));
    assert!(rollback.reason.starts_with("gate errors: "), "{}", rollback.reason);
    assert!(rollback.before.iter().any(|gate| gate.verdict == "Breach" && gate.stable == "0%"), "{rollback:?}");
    assert!(rollback.after.iter().any(|gate| gate.verdict == "Pass" && gate.requests.unwrap() > 200.0), "{rollback:?}");
    assert!(rollback.clear_at.as_ref().unwrap().0 >= rollback.at.as_ref().unwrap().0);
    assert!(record.message.contains("all traffic on stable"), "{}", record.message);
    let writes = world.record_writes.len();
    assert!(writes <= 9, "{writes} writes of records: {:?}", world.record_writes);
}

#[test]
fn a_rollback_keeps_its_ticks_and_a_promotion_keeps_the_whole() {
    let world = broken_at_stage_2();
    let record = world.record("web-1");
    let errors = record.series.iter().find(|series| series.gate == "errors").unwrap();
    assert_eq!(errors.unit, "%");
    let around = errors.around.read();
    let started = record.started.as_ref().unwrap().0;
    let at = record.rollbacks[0].at.as_ref().unwrap().0.duration_since(started).as_secs();
    let trigger = around.iter().find(|point| i64::from(point.at) == at).unwrap_or_else(|| panic!("{at}: {errors:?}"));
    assert_eq!((trigger.verdict, trigger.stage, trigger.most), (Some('B'), 2, Some(1.0)), "{trigger:?}");
    assert!(trigger.value.unwrap() > 1.0 && trigger.interval.is_some_and(|(low, _)| low > 0.0), "{trigger:?}");
    assert!(around.iter().filter(|point| i64::from(point.at) < at).count() >= 8, "{around:?}");
    let after: Vec<_> = around.iter().filter(|point| i64::from(point.at) > at).collect();
    assert!(!after.is_empty() && after.iter().all(|point| point.verdict == Some('s') && point.value.is_none()));
    let whole = errors.whole.read();
    assert!(whole.len() <= 60 && whole.is_sorted_by_key(|point| point.at), "{whole:?}");
    assert_eq!(whole[0].stage, 0, "the baseline is told too");

    let promoted = finished(json!({}), 0.0);
    let record = promoted.record("web-1");
    for series in &record.series {
        assert!(series.around.is_empty() && !series.whole.is_empty(), "{series:?}");
        let stages: std::collections::BTreeSet<u32> = series.whole.read().iter().map(|point| point.stage).collect();
        assert!([1, 2, 3].iter().all(|stage| stages.contains(stage)), "{series:?}");
    }
}

#[test]
fn a_stage_that_begins_once_more_keeps_what_it_came_to_before() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.run(10);
    world.fate("v2", Fate::Unschedulable);
    world.lose_canary_pods();
    world.until("it is paused without weight", |world| {
        let paused = world.status().current.and_then(|current| current.paused);
        paused.is_some_and(|paused| paused.without_weight)
    });
    world.fate("v2", Fate::Ready);
    world.command(&format!("resume {}", world.id()));
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    let record = world.record("web-1");
    assert_eq!(results(record), ["Passed", "Passed", "Passed"]);
    let [first, second, third] = record.stages.as_slice() else { panic!("{:?}", record.stages) };
    assert_eq!((first.earlier_runs, second.earlier_runs, third.earlier_runs), (1, 1, 0));
    let (before, stopped) = (&first.earlier[0], &second.earlier[0]);
    assert_eq!((before.result.as_str(), before.passed.as_str(), stopped.result.as_str()), ("Passed", "2/2", "Stopped"));
    assert!(before.figures.starts_with("errors 0% of "), "{before:?}");
    assert!(before.ended.as_ref().unwrap().0 <= first.started.as_ref().unwrap().0);
}

#[test]
fn a_person_who_aborts_stands_in_the_record_by_name() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    world.run(10);
    world.command("abort");
    assert_eq!(world.finish(), "Aborted");
    let record = world.record("web-1");
    assert_eq!(results(record), ["Stopped", "Planned", "Planned"]);
    assert_eq!(record.rollbacks[0].trigger, format!("user {JANE}"));
    let command = record.timeline.iter().find(|entry| entry.kind == "Command").unwrap();
    assert_eq!((command.by.as_str(), command.text.as_str()), (JANE, "abort: the release is being reverted"));
}

#[test]
fn stages_that_a_person_skips_make_a_partial_release() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    world.run(10);
    let id = world.id();
    world.command(&format!("promote {id}"));
    assert_eq!(world.finish(), "Promoted");
    let record = world.record("web-1");
    assert_eq!(results(record), ["Skipped", "Skipped", "Skipped"]);
    assert_eq!(record.result, "PARTIAL");
    assert!(
        record.result_because.starts_with("the command promote skipped stage 1, 2, 3"),
        "{}",
        record.result_because
    );
    assert!(record.stages[0].started.is_some() && record.stages[1].started.is_none());
}

#[test]
fn a_template_that_was_taken_back_before_is_promoted_in_part_only() {
    let mut world = finished(json!({"onRevert": "Hold"}), 0.2);
    assert_eq!(world.outcome(), "RolledBack");
    world.faulty("v2", 0.0);
    let id = world.id();
    world.command(&format!("retry {id}"));
    world.until("the second attempt", |world| world.id() == "web-2");
    assert_eq!(world.finish(), "Promoted");
    let record = world.record("web-2");
    assert_eq!(record.result, "PARTIAL");
    assert_eq!(record.result_because, "the same template was taken back before (web-1)");
    assert_eq!(record.rollbacks.len(), 1);
    assert_eq!(record.rollbacks[0].id, "web-1");
    assert_eq!(texts(record, "Command").len(), 1);
    assert!(world.record("web-1").frozen);
}

#[test]
fn a_release_that_makes_way_is_closed_in_the_tick_that_begins_the_next() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.apply("v3").unwrap();
    world.until("the next release", |world| world.id() == "web-2");
    let old = world.record("web-1").clone();
    assert_eq!((old.outcome.as_str(), old.result.as_str()), ("Superseded", "FAILED"));
    assert_eq!(results(&old), ["Passed", "Stopped", "Planned"]);
    assert!(old.rollbacks.is_empty());
    assert!(!texts(&old, "Decision").iter().any(|text| text.starts_with("ReleaseStarted: web-2")));
    assert_eq!(world.finish(), "Promoted");
    assert_eq!(world.record("web-2").result, "SUCCESS");
    assert!(texts(world.record("web-2"), "Decision")[0].starts_with("ReleaseStarted: web-2"));
}

#[test]
fn a_record_that_can_not_be_written_delays_nothing_and_is_caught_up() {
    let whole = finished(json!({}), 0.0);
    let mut world = World::new(json!({}));
    world.arm();
    world.records_refused = true;
    world.apply("v2").unwrap();
    world.reach((Step::Bake, 1));
    world.records_refused = false;
    assert_eq!(world.finish(), "Promoted");
    assert_eq!(world.trail, whole.trail);
    // What was not written was kept.
    assert_eq!(results(world.record("web-1")), ["Passed", "Passed", "Passed"]);
    assert_eq!(world.record("web-1").stages, whole.record("web-1").stages);
}

#[test]
fn what_no_operator_recorded_is_called_unknown() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    world.records_refused = true;
    world.reach((Step::Bake, 1));
    // It dies with what it had not written.
    world.dies_after = Some(1);
    world.deaths = 0;
    world.until("it is dead", |world| world.deaths == 1);
    world.records_refused = false;
    assert_eq!(world.finish(), "Promoted");
    let record = world.record("web-1");
    assert_eq!(record.stages[0].result, "Unknown");
    assert!(record.stages[0].ended.is_none());
    assert_eq!(record.stages[2].result, "Passed");
    assert_eq!(record.result, "SUCCESS");
    assert!(record.result_because.starts_with("no operator recorded the end of stage 1"), "{}", record.result_because);
    assert!(texts(record, "Notification").iter().any(|text| text.starts_with("an operator took the release up again")));
}

#[test]
fn the_last_word_of_a_deleted_release_is_recorded() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.delete("CanaryRelease", "web");
    world.until("it is gone", |world| world.get("CanaryRelease", "web").is_none());
    let record = world.record("web-1");
    assert!(record.frozen);
    assert_eq!((record.outcome.as_str(), record.rollbacks[0].trigger.as_str()), ("Aborted", "deletion"));
}

#[test]
fn a_stage_that_was_extended_is_recorded_so_and_the_next_is_not() {
    let mut world = World::new(json!({}));
    world.arm();
    world.apply("v2").unwrap();
    world.until("stage 2", |world| world.place() == (Step::Bake, 1));
    world.metrics = Metrics::Down;
    world.until("extended", |world| world.status().current.unwrap().extended_since.is_some());
    world.metrics = Metrics::Fine;
    assert_eq!(world.finish(), "Promoted");
    let record = world.records.values().next().unwrap();
    let extended: Vec<bool> = record.stages.iter().map(|stage| stage.extended).collect();
    assert_eq!(extended, [false, true, false]);
}
