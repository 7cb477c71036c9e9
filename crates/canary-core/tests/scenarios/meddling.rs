//! What others write that is the operator's to write: its status, its marks, its records.

use canary_api::Step;
use serde_json::{Value, json};

use crate::world::{JANE, OPERATOR, World};

/// Writes the status as nobody may: as a restore from a backup, or a hand where the policy is missing, would.
fn forge(world: &mut World, change: impl FnOnce(&mut Value)) {
    world.edit("CanaryRelease", "web", OPERATOR, "restore", |release| change(&mut release["status"])).unwrap();
}

/// The world itself checks that no pod goes before its weight is gone for as long as the drain.
#[test]
fn a_release_that_the_status_lost_is_taken_back_and_its_template_begins_anew() {
    for place in [(Step::Scale, 1), (Step::Shift, 1), (Step::Bake, 0), (Step::Bake, 2)] {
        for mode in ["Hold", "Restore"] {
            let mut world = World::with_release(json!({"onRevert": mode}), "v2", place);
            forge(&mut world, |status| *status = json!({}));
            world.until("it is said", |world| world.notes.iter().any(|note| note.contains("no longer tells of web-1")));
            assert_eq!((world.weight(), world.status().current.unwrap().id.as_str()), (0, "web-1"));
            world.until("it begins anew", |world| world.id() == "web-2");
            assert_eq!(world.finish(), "Promoted", "{place:?} {mode}: {}", world.describe());
            assert_eq!((world.canary_pods(), world.unanswered), (0, 0.0), "{place:?} {mode}: {}", world.describe());
            world.assert_plain_route();
            world.assert_rest();
        }
    }
}

#[test]
fn a_release_that_the_status_calls_over_drains_before_its_pods_go() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    forge(&mut world, |status| status["current"]["step"] = json!("Done"));
    world.until("its pods are gone", |world| world.canary_pods() == 0);
    assert_eq!(world.unanswered, 0.0, "{}", world.describe());
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
}

#[test]
fn a_breach_that_only_the_route_remembers_is_final_when_the_status_is_lost() {
    let mut world = World::with_release(json!({"onRevert": "Restore"}), "v2", (Step::Bake, 1));
    world.faulty("v2", 0.5);
    world.until("it reverts", |world| world.place().0 == Step::RevertDrain);
    forge(&mut world, |status| *status = json!({}));
    assert_eq!(world.finish(), "RolledBack", "{}", world.describe());
    assert_eq!((world.served(), world.paused()), (vec!["web:v1".to_owned()], true), "{}", world.describe());
    assert_eq!((world.canary_pods(), world.id().as_str()), (0, "web-1"));
    world.assert_rest();
}

#[test]
fn a_weight_that_nobody_measured_for_goes_onto_no_more_pods_than_carry_it() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    let weight = world.weight();
    forge(&mut world, |status| status["current"]["weight"] = json!("100%"));
    world.run(30);
    assert!(world.weight() <= weight, "{}", world.describe());
    world.until("it is paused", |world| world.status().current.unwrap().paused.is_some());
    assert_eq!(world.weight(), 0);
}

#[test]
fn a_mark_that_a_hand_took_off_the_canary_is_put_back() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    for kind in ["Deployment", "Service"] {
        let bare = |object: &mut Value| drop(object["metadata"].as_object_mut().unwrap().remove("labels"));
        world.edit(kind, "web-canary", JANE, "kubectl-edit", bare).unwrap();
    }
    world.run(20);
    for kind in ["Deployment", "Service"] {
        let labels = &world.get(kind, "web-canary").unwrap()["metadata"]["labels"];
        assert_eq!(labels["canaryrelease.dev/owned-by"], "web", "{kind}: {}", world.describe());
    }
    assert_eq!(world.finish(), "Promoted");
}

#[test]
fn a_record_that_lost_its_label_is_not_made_again() {
    let mut world = World::new(json!({}));
    world.arm();
    let name = world.status().hold.unwrap().serving_record;
    let bare = |record: &mut Value| drop(record["metadata"].as_object_mut().unwrap().remove("labels"));
    world.edit("ControllerRevision", &name, JANE, "kubectl-edit", bare).unwrap();
    world.run(20);
    world.assert_rest();
    world.apply("v2").unwrap();
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    world.assert_rest();
}

#[test]
fn a_record_of_the_serving_version_that_is_not_ours_stays() {
    let mut world = World::new(json!({}));
    world.arm();
    let name = world.status().hold.unwrap().serving_record;
    let unmark = |record: &mut Value| record["metadata"]["annotations"] = json!({});
    world.edit("ControllerRevision", &name, JANE, "kubectl-edit", unmark).unwrap();
    let before = world.get("ControllerRevision", &name).unwrap().clone();
    world.apply("v2").unwrap();
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    assert_eq!(world.get("ControllerRevision", &name), Some(&before), "{}", world.describe());
}

/// Makes a Deployment run something else.
fn other(canary: &mut Value) {
    canary["spec"]["template"]["spec"]["containers"][0]["image"] = json!("web:v9");
}

/// The target still asks for the candidate, whatever a hand made of the canary.
#[test]
fn a_canary_whose_template_a_hand_changed_is_put_right_without_traffic_and_nothing_is_superseded() {
    for place in [(Step::Scale, 0), (Step::Scale, 1), (Step::Bake, 0), (Step::Bake, 2), (Step::Roll, 2)] {
        let mut world = World::with_release(json!({}), "v2", place);
        world.edit("Deployment", "web-canary", JANE, "kubectl-edit", other).unwrap();
        assert_eq!(world.finish(), "Promoted", "{place:?}: {}", world.describe());
        assert_eq!(world.id(), "web-1", "{place:?}: {}", world.describe());
        let told = world.notes.iter().any(|note| note.contains("CanaryChanged"));
        let weighted = place != (Step::Scale, 0) && place.0 != Step::Roll;
        assert_eq!(told, weighted, "{place:?}: {}", world.describe());
        world.assert_rest();
    }
}

#[test]
fn a_candidate_is_rejected_by_its_own_template_though_a_hand_changed_the_canarys() {
    let mut world = World::with_release(json!({"onRevert": "Hold"}), "v2", (Step::Bake, 0));
    world.faulty("v2", 0.5);
    world.until("it is reverted", |world| world.place().0 == Step::Revert);
    world.edit("Deployment", "web-canary", JANE, "kubectl-edit", other).unwrap();
    assert_eq!(world.finish(), "RolledBack", "{}", world.describe());
    world.assert_rest();
    assert_eq!(world.id(), "web-1", "{}", world.describe());
}
