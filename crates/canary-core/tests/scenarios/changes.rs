//! New templates in the middle of a release, old ones put back, rejected ones applied again.

use canary_api::{Step, names};
use serde_json::json;

use crate::world::{JANE, Refused, World};

/// Every step of a good release.
pub const FORWARD: [(Step, i32); 14] = [
    (Step::Baseline, 0),
    (Step::Scale, 0),
    (Step::Shift, 0),
    (Step::Bake, 0),
    (Step::Scale, 1),
    (Step::Shift, 1),
    (Step::Bake, 1),
    (Step::Scale, 2),
    (Step::Shift, 2),
    (Step::Bake, 2),
    (Step::Roll, 2),
    (Step::HandBack, 2),
    (Step::Drain, 2),
    (Step::Soak, 2),
];

pub const BACKWARD: [(Step, i32); 3] = [(Step::Revert, 1), (Step::RevertDrain, 1), (Step::RevertTarget, 1)];

/// Every place, in the one mode and the other by turns.
pub fn in_turn(places: impl IntoIterator<Item = (Step, i32)>) -> impl Iterator<Item = (&'static str, (Step, i32))> {
    ["Restore", "Hold"].into_iter().cycle().zip(places)
}

/// A release that is being reverted after a breach at its second stage.
pub fn reverting(mode: &str, place: (Step, i32)) -> World {
    let mut world = World::with_release(json!({"onRevert": mode}), "v2", (Step::Bake, 1));
    world.faulty("v2", 0.5);
    world.reach(place);
    world
}

/// A release that was rolled back after a breach at its second stage.
pub fn rolled_back(mode: &str) -> World {
    let mut world = reverting(mode, (Step::Revert, 1));
    assert_eq!(world.finish(), "RolledBack");
    world
}

#[test]
fn a_new_template_at_every_step_supersedes_and_starts_from_stage_1() {
    for (mode, place) in in_turn(FORWARD) {
        let mut world = World::with_release(json!({"onRevert": mode, "soak": "40s"}), "v2", place);
        let answer = world.apply("v3");
        if matches!(place.0, Step::Roll | Step::HandBack | Step::Drain) && answer.is_err() {
            // "Apply it again when it is done."
            assert!(matches!(answer, Err(Refused::Forbidden(_))), "{place:?}: {answer:?}");
            world.until("the roll is over", |world| !world.target().to_string().contains(names::ANNOTATION_ROLLING));
            world.apply("v3").unwrap();
        }
        world.until("the second release", |world| world.id() == "web-2");
        assert!(world.place().1 == 0, "from stage 1");
        assert_eq!(world.finish(), "Promoted", "{mode} {place:?}: {}", world.describe());
        assert_eq!(world.served(), ["web:v3"], "{mode} {place:?}: {}", world.describe());
        assert_eq!(world.unanswered, 0.0, "{mode} {place:?}");
        let seen: Vec<i32> = world
            .trail
            .iter()
            .filter(|(id, step, _)| id == "web-2" && *step == Step::Bake)
            .map(|(_, _, stage)| *stage)
            .collect();
        assert_eq!(seen, [0, 1, 2]);
        world.assert_plain_route();
        world.assert_rest();
    }
}

#[test]
fn a_fix_pushed_while_reverting_is_released_after() {
    for mode in ["Restore", "Hold"] {
        for place in BACKWARD {
            let mut world = reverting(mode, place);
            world.apply("v3").unwrap();
            world.until("the second release", |world| world.id() == "web-2");
            assert_eq!(world.finish(), "Promoted", "{mode} {place:?}: {}", world.describe());
            assert_eq!(world.served(), ["web:v3"], "{mode} {place:?}");
            world.assert_rest();
        }
    }
}

#[test]
fn a_fix_pushed_after_a_revert_is_a_new_release() {
    for mode in ["Restore", "Hold"] {
        let mut world = rolled_back(mode);
        world.apply("v3").unwrap();
        world.until("the second release", |world| world.id() == "web-2");
        assert_eq!(world.finish(), "Promoted", "{mode}: {}", world.describe());
        assert_eq!(world.served(), ["web:v3"]);
        world.assert_rest();
    }
}

#[test]
fn the_old_template_put_back_ends_the_release() {
    for (mode, place) in in_turn(FORWARD).filter(|(_, (step, _))| *step < Step::Roll) {
        let mut world = World::with_release(json!({"onRevert": mode}), "v2", place);
        world.apply("v1").unwrap();
        world.until("the release is over", |world| world.place().0 == Step::Done);
        world.run(60);
        assert_eq!(
            (world.id(), world.served(), world.paused()),
            ("web-1".to_owned(), vec!["web:v1".to_owned()], false),
            "{mode} {place:?}: {}",
            world.describe()
        );
        assert_eq!(world.canary_pods(), 0);
        world.assert_plain_route();
        world.assert_rest();
    }
}

#[test]
fn the_old_template_put_back_while_reverting_rests() {
    for mode in ["Restore", "Hold"] {
        for place in BACKWARD {
            let mut world = reverting(mode, place);
            world.apply("v1").unwrap();
            world.finish();
            assert_eq!(
                (world.id(), world.served(), world.paused()),
                ("web-1".to_owned(), vec!["web:v1".to_owned()], false),
                "{mode} {place:?}: {}",
                world.describe()
            );
            world.assert_rest();
        }
    }
}

#[test]
fn a_rejected_template_stays_rejected_after_another_and_retry_lifts_it() {
    for mode in ["Restore", "Hold"] {
        let mut world = rolled_back(mode);
        world.faulty("v3", 0.5);
        world.apply("v3").unwrap();
        world.until("the second release", |world| world.id() == "web-2");
        assert_eq!(world.finish(), "RolledBack");
        world.faulty("v2", 0.0);
        world.faulty("v3", 0.0);
        for version in ["v2", "v3", "v2"] {
            world.apply(version).unwrap();
            world.run(120);
            assert_eq!(
                (world.id().as_str(), world.served(), world.canary_pods()),
                ("web-2", vec!["web:v1".to_owned()], 0),
                "{mode} {version}: {}",
                world.describe()
            );
            assert_eq!(world.outcome(), "RolledBack");
        }
        world.assert_rest();
        world.command("retry web-2");
        world.until("the third release", |world| world.id() == "web-3");
        assert_eq!(world.finish(), "Promoted", "{mode}: {}", world.describe());
        assert_eq!(world.served(), ["web:v2"]);
        world.assert_rest();
    }
}

#[test]
fn an_aborted_template_is_released_again_only_by_retry() {
    let mut world = World::with_release(json!({"onRevert": "Hold"}), "v2", (Step::Bake, 0));
    world.command("abort");
    assert_eq!(world.finish(), "Aborted");
    world.apply("v2").unwrap();
    world.run(60);
    assert_eq!(world.id(), "web-1");
    world.command("retry web-1");
    world.until("the second release", |world| world.id() == "web-2");
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    world.assert_rest();
}

#[test]
fn a_restart_is_no_release_and_ends_none() {
    let restart = |world: &mut World, at: &str| {
        world.edit("Deployment", "web", JANE, "kubectl-rollout", |target| {
            target["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = json!(at);
        })
    };
    let mut world = World::new(json!({}));
    world.arm();
    restart(&mut world, "1").unwrap();
    world.run(120);
    assert_eq!(world.id(), "", "{}", world.describe());
    world.assert_rest();
    world.apply("v2").unwrap();
    world.reach((Step::Bake, 1));
    restart(&mut world, "2").unwrap();
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    world.assert_rest();
}

#[test]
fn the_same_template_applied_again_changes_nothing() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    world.apply("v2").unwrap();
    assert_eq!(world.finish(), "Promoted");
    let id = world.id();
    world.apply("v2").unwrap();
    world.run(60);
    assert_eq!(world.id(), id);
    world.assert_rest();
}

#[test]
fn a_hold_can_not_be_ended_by_hand() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    let answer =
        world.edit("Deployment", "web", JANE, "kubectl-rollout", |target| target["spec"]["paused"] = json!(false));
    assert!(matches!(answer, Err(Refused::Forbidden(_))), "{answer:?}");
    world
        .edit("Deployment", "web", JANE, "argocd-controller", |target| target["spec"]["paused"] = json!(false))
        .unwrap();
    assert!(world.paused());
    assert_eq!(world.finish(), "Promoted");
}
