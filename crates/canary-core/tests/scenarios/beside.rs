//! Baseline pods: pods of the serving version beside the canary's. A release has them where it can, and goes on
//! without them where it can't.

use canary_api::Step;
use serde_json::{Value, json};

use crate::{
    good,
    world::{Fate, JANE, Metrics, Read, World},
};

fn with(over: &Value) -> Value {
    let mut spec = json!({
        "baseline": {"duration": "20s", "pods": true},
        "stages": [{"weight": "20%", "duration": "30s"}, {"weight": "40%", "duration": "30s"}, {"weight": "100%", "duration": "30s"}],
        "gates": [
            {"name": "errors", "errorRate": {"bad": "bad_total", "total": "requests_total", "limit": "10%"}},
            {"name": "as-stable", "relative": {"counter": "bad_total", "to": "Stable", "margin": "50%"}},
        ],
    });
    for (key, value) in over.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

/// A release of v2, as good as v1, at a place.
pub fn release(over: &Value, place: (Step, i32)) -> World {
    let mut world = World::new(with(over));
    world.arm();
    world.faulty("v1", 0.02);
    world.faulty("v2", 0.02);
    world.apply("v2").unwrap();
    world.reach(place);
    world
}

pub fn weights(world: &World) -> (i64, i64) {
    (world.weight(), world.baseline_weight())
}

fn rests_on(world: &World) -> String {
    let gates = world.status().gates;
    gates.iter().find(|gate| gate.gate == "as-stable").map(|gate| gate.rests_on.clone()).unwrap_or_default()
}

pub fn left_out(world: &World) -> String {
    world.status().current.and_then(|current| current.baseline_pods).map(|beside| beside.left_out).unwrap_or_default()
}

pub fn says(world: &World, word: &str) -> usize {
    world.notes.iter().filter(|note| note.contains(word)).count()
}

/// Promoted, by every stage in turn, and nothing is left.
fn assert_promoted(world: &mut World) {
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    let trail: Vec<_> = world.trail.iter().map(|(_, step, stage)| (*step, *stage)).collect();
    assert_eq!(trail, good::WHOLE, "{}", world.describe());
    assert_eq!((world.canary_pods(), world.baseline_pods()), (0, 0));
    world.assert_plain_route();
    world.assert_rest();
}

#[test]
fn like_is_compared_with_like_where_there_is_traffic_for_both() {
    let mut world = release(&json!({}), (Step::Bake, 0));
    world.run(20);
    assert_eq!((weights(&world), world.canary_pods(), world.baseline_pods()), ((200, 200), 1, 1));
    assert!(rests_on(&world).ends_with("compared with stable, 1 baseline pod"), "{}", rests_on(&world));
    world.reach((Step::Scale, 1));
    let share = world.status().current.unwrap().observed_share;
    let share: f64 = share.trim_end_matches('%').parse().unwrap();
    // Some requests were counted before the gateway had the weights.
    assert!((18.5..=20.0).contains(&share), "the share is of all three: {share}");
    world.reach((Step::Bake, 1));
    world.run(20);
    assert_eq!((weights(&world), world.canary_pods(), world.baseline_pods()), ((400, 400), 2, 2));
    assert!(rests_on(&world).ends_with("2 baseline pods"), "{}", rests_on(&world));
    world.reach((Step::Bake, 2));
    assert_eq!(weights(&world), (1000, 0));
    assert_promoted(&mut world);
    assert_eq!(world.unanswered, 0.0);
}

#[test]
fn a_stage_that_leaves_stable_nothing_has_no_baseline_pods() {
    let stages = json!([{"weight": "50%", "duration": "30s"}, {"weight": "100%", "duration": "30s"}]);
    let mut world = release(&json!({"stages": stages}), (Step::Bake, 0));
    world.run(20);
    assert_eq!((weights(&world), world.baseline_pods()), ((500, 0), 0));
    assert!(rests_on(&world).ends_with("compared with all stable pods"), "{}", rests_on(&world));
    assert_eq!(world.finish(), "Promoted");
    assert!(world.get("Deployment", "web-baseline").is_none());
}

#[test]
fn without_the_field_nothing_of_it_is_ever_written() {
    let mut world = release(&json!({"baseline": {"duration": "20s"}}), (Step::Bake, 1));
    assert_eq!(weights(&world), (400, 0));
    assert_promoted(&mut world);
    assert!(world.writes.iter().all(|write| !write.name.contains("baseline")), "{:#?}", world.writes);
    assert!(world.get("Service", "web-baseline").is_none());
}

#[test]
fn a_worse_candidate_is_reverted_by_the_comparison_and_both_lose_their_traffic_in_one_write() {
    let mut world = release(&json!({}), (Step::Bake, 1));
    world.faulty("v2", 0.09);
    world.reach((Step::Revert, 1));
    world.until("the route is written", |world| weights(world) != (400, 400));
    assert_eq!(weights(&world), (0, 0));
    assert_eq!(world.finish(), "RolledBack", "{}", world.describe());
    let revert = world.status().current.unwrap().revert.unwrap();
    assert!(revert.message.contains("as-stable"), "{}", revert.message);
    assert_eq!((world.canary_pods(), world.baseline_pods()), (0, 0));
    assert_eq!(world.unanswered, 0.0);
    world.assert_plain_route();
    world.assert_rest();
}

#[test]
fn common_trouble_reverts_nothing() {
    let mut world = release(&json!({}), (Step::Bake, 0));
    world.faulty("v1", 0.06);
    world.faulty("v2", 0.06);
    assert_promoted(&mut world);
}

#[test]
fn lost_baseline_pods_lose_their_traffic_within_a_tick_and_the_stage_goes_on() {
    for stage in [0, 1] {
        let mut world = release(&json!({}), (Step::Bake, stage));
        world.run(7);
        world.lose_baseline_pods();
        let since = world.now;
        let weight = world.weight();
        world.until("their traffic is on stable", |world| world.baseline_weight() == 0);
        assert!(world.now.duration_since(since).as_secs() <= 5, "{}", world.describe());
        assert_eq!(world.weight(), weight, "the canary keeps its own");
        world.run(15);
        assert_eq!(world.baseline_weight(), 0, "left out until the next stage");
        let why = left_out(&world);
        world.reach((Step::Scale, stage + 1));
        assert!(!why.is_empty() && rests_on(&world).ends_with(&why), "{why}: {}", rests_on(&world));
        if stage == 0 {
            world.reach((Step::Bake, 1));
            assert_eq!(weights(&world), (400, 400), "{}", world.describe());
        }
        assert_promoted(&mut world);
        assert_eq!(says(&world, "BaselineNotReady"), 1);
    }
}

#[test]
fn baseline_pods_that_do_not_become_ready_are_waited_for_and_then_left_out() {
    let mut world = World::new(with(&json!({})));
    world.arm();
    world.block_new_pods("v1");
    world.apply("v2").unwrap();
    world.reach((Step::Scale, 0));
    let since = world.now;
    world.reach((Step::Bake, 0));
    let took = world.now.duration_since(since).as_secs();
    assert!((60..=75).contains(&took), "{took}");
    assert_eq!(weights(&world), (200, 0));
    assert!(left_out(&world).contains("0 of 1 baseline pods"), "{}", left_out(&world));
    assert_promoted(&mut world);
    assert_eq!(world.unanswered, 0.0);
    assert!(says(&world, "BaselineNotReady") == 2, "once a stage: {:#?}", world.notes);
}

#[test]
fn a_canary_pod_that_goes_while_only_baseline_pods_are_waited_for_is_not_late() {
    let mut world = World::new(with(&json!({})));
    world.arm();
    world.block_new_pods("v1");
    world.apply("v2").unwrap();
    world.reach((Step::Scale, 0));
    world.run(59);
    world.lose_canary_pods();
    assert_promoted(&mut world);
}

#[test]
fn baseline_objects_that_are_refused_stop_nothing() {
    let mut world = World::new(with(&json!({})));
    world.arm();
    world.baseline_refused = true;
    world.apply("v2").unwrap();
    assert_promoted(&mut world);
    assert!(world.get("Deployment", "web-baseline").is_none());
}

#[test]
fn an_object_of_another_with_the_baselines_name_is_never_touched() {
    let mut world = World::new(with(&json!({})));
    let other = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-baseline"}, "spec": {"selector": {"app": "x"}}});
    world.create("Service", other);
    world.run(30);
    assert_eq!(world.condition("Ready"), ("False".to_owned(), "BaselineNameTaken".to_owned()), "{}", world.describe());
    world.delete("Service", "web-baseline");
    world.arm();
    world.apply("v2").unwrap();
    assert_promoted(&mut world);
}

#[test]
fn the_field_taken_away_in_a_release_acts_at_once_and_set_in_one_is_for_the_next() {
    let set = |world: &mut World, pods: bool| {
        world
            .edit("CanaryRelease", "web", JANE, "kubectl-edit", |release| {
                release["spec"]["baseline"]["pods"] = json!(pods);
                release["metadata"]["generation"] = json!(7);
            })
            .unwrap();
    };
    for place in [(Step::Scale, 0), (Step::Shift, 0), (Step::Bake, 0), (Step::Scale, 1), (Step::Bake, 1)] {
        let mut world = release(&json!({}), place);
        set(&mut world, false);
        world.run(6);
        assert_eq!(world.baseline_weight(), 0, "{place:?}: {}", world.describe());
        set(&mut world, true);
        assert_promoted(&mut world);
        assert_eq!(world.unanswered, 0.0, "{place:?}");
    }
    let mut world = release(&json!({"baseline": {"duration": "20s"}}), (Step::Bake, 0));
    set(&mut world, true);
    world.reach((Step::Bake, 1));
    assert_eq!((weights(&world), world.baseline_pods()), ((400, 0), 0));
    assert_promoted(&mut world);
    world.faulty("v3", 0.02);
    world.apply("v3").unwrap();
    world.reach((Step::Bake, 1));
    assert_eq!(weights(&world), (400, 400));
    assert_eq!(world.finish(), "Promoted");
}

#[test]
fn a_paused_release_keeps_both_and_takes_weight_from_the_dead() {
    let mut world = release(&json!({}), (Step::Bake, 1));
    let pause = format!("pause {}", world.id());
    world.command(&pause);
    world.run(120);
    assert_eq!(weights(&world), (400, 400));
    world.lose_baseline_pods();
    world.run(6);
    assert_eq!(weights(&world), (400, 0));
    world.run(120);
    assert_eq!(weights(&world), (400, 0));
    world.command(&format!("resume {}", world.id()));
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    world.assert_plain_route();
}

#[test]
fn a_canary_that_loses_its_pods_takes_the_baselines_traffic_with_it() {
    let mut world = release(&json!({}), (Step::Bake, 0));
    world.run(7);
    world.lose_canary_pods();
    world.until("traffic is on stable", |world| world.weight() == 0);
    assert_eq!(weights(&world), (0, 0));
    world.reach((Step::Bake, 0));
    assert_eq!(weights(&world), (200, 200));
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    world.assert_plain_route();
}

#[test]
fn a_route_that_a_tool_resets_is_split_in_three_again() {
    let mut world = release(&json!({}), (Step::Bake, 1));
    let plain = World::bare().route()["spec"].clone();
    world.edit("HTTPRoute", "web", JANE, "kubectl-replace", |route| route["spec"] = plain.clone()).unwrap();
    assert_eq!(weights(&world), (400, 400), "the policy keeps all three");
    world.split_kept = false;
    world.edit("HTTPRoute", "web", JANE, "kubectl-replace", |route| route["spec"] = plain.clone()).unwrap();
    assert_eq!(weights(&world), (0, 0));
    world.run(6);
    assert_eq!(weights(&world), (400, 400), "{}", world.describe());
    assert_eq!(says(&world, "RouteDrifted"), 1);
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    let trail: Vec<_> = world.trail.iter().map(|(_, step, stage)| (*step, *stage)).collect();
    let again = [(Step::Bake, 1), (Step::Shift, 1), (Step::Bake, 1), (Step::Scale, 2)];
    assert!(trail.windows(4).any(|steps| steps == again), "the stage has its whole time once more: {trail:?}");
    assert_eq!((world.canary_pods(), world.baseline_pods()), (0, 0));
    world.assert_plain_route();
    world.assert_rest();
}

#[test]
fn a_target_that_grows_grows_both_and_loses_neither() {
    let mut world = release(&json!({}), (Step::Bake, 1));
    world
        .edit("Deployment", "web", JANE, "kube-controller-manager", |target| target["spec"]["replicas"] = json!(10))
        .unwrap();
    world.run(15);
    assert_eq!((weights(&world), world.canary_pods(), world.baseline_pods()), ((400, 400), 4, 4));
    assert_promoted(&mut world);
    assert_eq!((world.unanswered, says(&world, "BaselineNotReady")), (0.0, 0));
}

#[test]
fn deletion_at_every_place_leaves_nothing_of_them() {
    for (step, stage) in good::WHOLE.into_iter().take(13) {
        let mut world = release(&json!({}), (step, stage));
        world.delete("CanaryRelease", "web");
        world.until("it is gone", |world| world.get("CanaryRelease", "web").is_none());
        world.run(60);
        assert_eq!(world.unanswered, 0.0, "{step:?}/{stage}");
        world.assert_plain_route();
        world.assert_nothing_left();
        assert!(world.get("Deployment", "web-baseline").is_none() && world.get("Service", "web-baseline").is_none());
    }
}

#[test]
fn an_abort_at_every_place_gives_the_traffic_back() {
    for (step, stage) in good::WHOLE.into_iter().take(12) {
        let mut world = release(&json!({}), (step, stage));
        world.command("abort");
        assert_eq!(world.finish(), "Aborted", "{step:?}/{stage}: {}", world.describe());
        assert_eq!((world.unanswered, world.baseline_pods()), (0.0, 0), "{step:?}/{stage}");
        world.assert_plain_route();
        world.assert_rest();
    }
}

#[test]
fn their_reads_may_fail_at_every_step() {
    for (step, stage) in good::WHOLE.into_iter().take(13) {
        let mut world = release(&json!({}), (step, stage));
        world.unreadable.insert(Read::Baseline);
        world.run(20);
        world.unreadable.clear();
        assert_promoted(&mut world);
        assert_eq!(world.unanswered, 0.0, "{step:?}/{stage}");
    }
}

#[test]
fn a_release_whose_baseline_is_never_readable_comes_to_its_last_step() {
    let mut world = World::new(with(&json!({})));
    world.arm();
    world.unreadable.insert(Read::Baseline);
    world.apply("v2").unwrap();
    world.reach((Step::Drain, 2));
    world.run(60);
    assert_eq!(world.served(), ["web:v2"]);
    world.unreadable.clear();
    assert_promoted(&mut world);
}

#[test]
fn traffic_leaves_dead_baseline_pods_although_the_status_cannot_be_written() {
    let mut world = release(&json!({}), (Step::Bake, 1));
    world.run(7);
    world.lose_baseline_pods();
    world.block_new_pods("v1");
    world.status_refused = true;
    world.run(6);
    assert_eq!(weights(&world), (400, 0), "{}", world.describe());
    world.status_refused = false;
    world.unblock_pods();
    assert_promoted(&mut world);
}

#[test]
fn baseline_pods_that_count_nothing_are_left_out_and_the_stage_goes_on() {
    // Even where a stage without a verdict reverts.
    let mut world = release(&json!({"onInconclusive": "Revert"}), (Step::Shift, 0));
    world.metrics = Metrics::WithoutBaseline;
    world.until("left out", |world| !left_out(world).is_empty());
    assert_eq!((world.place(), weights(&world)), ((Step::Bake, 0), (200, 0)));
    assert_eq!(says(&world, "BaselineNotMeasured"), 1);
    assert_promoted(&mut world);
    // So is what falls silent only after the stage was extended.
    let mut world = release(&json!({"onInconclusive": "Revert"}), (Step::Bake, 0));
    world.metrics = Metrics::Down;
    world.until("extended", |world| world.status().current.unwrap().extended_since.is_some());
    world.metrics = Metrics::WithoutBaseline;
    assert_promoted(&mut world);
}

fn whole(bad: bool, dies_after: Option<usize>) -> World {
    let mut world = World::new(with(&json!({})));
    world.dies_after = dies_after;
    world.arm();
    world.faulty("v1", 0.02);
    world.faulty("v2", if bad { 0.5 } else { 0.02 });
    world.apply("v2").unwrap();
    world.finish();
    world
}

#[test]
fn the_operator_may_die_after_every_write() {
    for bad in [false, true] {
        let all = whole(bad, None);
        assert_eq!(all.outcome(), if bad { "RolledBack" } else { "Promoted" });
        for after in 1..=all.writes.len() {
            let mut world = whole(bad, Some(after));
            assert_eq!(world.deaths, 1);
            assert_eq!((world.outcome(), &world.trail), (all.outcome(), &all.trail), "dead after {after}");
            assert_eq!((world.unanswered, world.canary_pods(), world.baseline_pods()), (0.0, 0, 0), "after {after}");
            world.assert_plain_route();
            if after % 5 == 0 {
                world.assert_rest();
            }
        }
    }
}

#[test]
fn a_candidate_that_can_not_run_is_judged_as_ever() {
    let mut world = World::new(with(&json!({})));
    world.arm();
    world.fate("v2", Fate::CrashLoop);
    world.apply("v2").unwrap();
    assert_eq!(world.finish(), "RolledBack");
    assert_eq!(world.status().current.unwrap().revert.unwrap().reason, "CrashLoop");
    assert_eq!(world.baseline_pods(), 0);
    world.assert_rest();
}
