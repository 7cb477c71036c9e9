//! Pods that do not come, that go, and that are too few.

use canary_api::Step;
use serde_json::json;

use crate::world::{Fate, JANE, World};

#[test]
fn a_candidate_that_can_not_run_is_rejected_at_its_deadline() {
    for (fate, reason) in
        [(Fate::CrashLoop, "CrashLoop"), (Fate::NoImage, "ImageUnavailable"), (Fate::NeverReady, "ProbeFailing")]
    {
        let mut world = World::new(json!({}));
        world.arm();
        world.fate("v2", fate);
        world.apply("v2").unwrap();
        world.reach((Step::Scale, 0));
        let since = world.now;
        assert_eq!(world.finish(), "RolledBack", "{fate:?}");
        assert!(world.now.duration_since(since).as_secs() <= 150);
        assert_eq!(world.status().current.unwrap().revert.unwrap().reason, reason);
        assert!(!world.answers.contains_key("web:v2"));
        world.assert_plain_route();
        world.assert_rest();
        world.fate("v2", Fate::Ready);
        world.apply("v2").unwrap();
        world.run(200);
        assert!(!world.answers.contains_key("web:v2"), "a rejected template is not released again");
    }
}

#[test]
fn a_cluster_without_room_pauses_and_rejects_nothing() {
    for (fate, reason) in [(Fate::Unschedulable, "Unschedulable"), (Fate::Quota, "QuotaExceeded")] {
        let mut world = World::new(json!({}));
        world.arm();
        world.fate("v2", fate);
        world.apply("v2").unwrap();
        world.until("paused", |world| world.status().current.is_some_and(|current| current.paused.is_some()));
        let paused = world.status().current.unwrap().paused.unwrap();
        assert_eq!((paused.reason.as_str(), paused.without_weight, world.weight()), (reason, true, 0));
        world.assert_no_turning();
        world.fate("v2", Fate::Ready);
        world.run(60);
        world.command(&format!("resume {}", world.id()));
        assert_eq!(world.finish(), "Promoted", "{fate:?}: {}", world.describe());
        world.assert_rest();
    }
}

#[test]
fn no_room_at_a_later_stage_takes_the_weight_and_resumes_at_stage_1() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    // The one pod of stage 1 stays; the second of stage 2 does not come.
    world.until("the second pod is asked for", |world| world.canary_pods() == 2);
    world.block_new_pods("v2");
    world.until("paused", |world| world.status().current.is_some_and(|current| current.paused.is_some()));
    world.run(5);
    assert_eq!(world.weight(), 0);
    assert_eq!(world.place(), (Step::Scale, 1));
    world.unblock_pods();
    world.run(30);
    world.command(&format!("resume {}", world.id()));
    world.until("it has begun again", |world| world.place() == (Step::Bake, 0));
    assert_eq!(world.finish(), "Promoted");
    world.assert_rest();
}

#[test]
fn pods_lost_while_baking_take_the_weight_until_others_are_ready() {
    for place in [(Step::Bake, 0), (Step::Bake, 1), (Step::Bake, 2)] {
        let mut world = World::with_release(json!({}), "v2", place);
        world.run(7);
        world.lose_canary_pods();
        world.run(10);
        assert_eq!(world.finish(), "Promoted", "{place:?}: {}", world.describe());
        assert!(world.notes.iter().any(|note| note.contains("CanaryNotReady")), "{place:?}: {}", world.describe());
        world.assert_rest();
    }
}

#[test]
fn pods_lost_again_and_again_stop_the_clock_and_reject_nothing() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    for _ in 0..40 {
        if world.place().0 == Step::Bake && world.weight() > 0 {
            world.lose_canary_pods();
        }
        world.run(10);
    }
    let paused = world.status().current.unwrap().paused.unwrap_or_else(|| panic!("not paused: {}", world.describe()));
    assert_eq!(
        (paused.reason.as_str(), paused.without_weight, world.weight()),
        ("NotReady", true, 0),
        "{}",
        world.describe()
    );
    world.command(&format!("resume {}", world.id()));
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    world.assert_rest();
}

#[test]
fn a_candidate_that_crashes_while_baking_is_rejected() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.fate("v2", Fate::CrashLoop);
    assert_eq!(world.finish(), "RolledBack", "{}", world.describe());
    assert_eq!(world.status().current.unwrap().revert.unwrap().reason, "CrashLoop");
    world.assert_rest();
}

#[test]
fn a_stable_side_that_shrank_gets_no_less_traffic_to_carry_until_it_has_its_size_again() {
    for (place, next) in [((Step::Bake, 0), (Step::Scale, 1)), ((Step::Bake, 1), (Step::Scale, 2))] {
        let mut world = World::with_release(json!({}), "v2", place);
        world.scale(2);
        world.until("the next stage", |world| world.place() == next);
        let weight = world.weight();
        world.run(600);
        assert_eq!((world.place(), world.weight()), (next, weight), "{}", world.describe());
        assert!(world.status().message.contains("from 4 to 2"), "{}", world.status().message);
        assert_eq!(world.status().current.unwrap().paused.unwrap().reason, "StableTooSmall");
        world.assert_no_turning();
        world.scale(4);
        world.run(30);
        world.command(&format!("resume {}", world.id()));
        assert_eq!(world.finish(), "Promoted", "{}", world.describe());
        world.assert_rest();
    }
}

#[test]
fn a_target_that_grows_grows_its_canary() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world
        .edit("Deployment", "web", JANE, "kube-controller-manager", |target| target["spec"]["replicas"] = json!(10))
        .unwrap();
    world.run(10);
    assert_eq!(world.canary_pods(), 5);
    assert_eq!(world.finish(), "Promoted");
    assert_eq!(world.unanswered, 0.0);
    world.assert_rest();
}

#[test]
fn a_target_that_can_not_finish_its_roll_is_rolled_back() {
    let mut world = World::with_release(json!({}), "v2", (Step::Roll, 2));
    world.run(2);
    world.block_new_pods("v2");
    assert_eq!(world.finish(), "RolledBack", "{}", world.describe());
    assert_eq!(world.served(), ["web:v1"]);
    assert_eq!(world.unanswered, 0.0);
    world.unblock_pods();
    world.run(60);
    world.assert_rest();
}
