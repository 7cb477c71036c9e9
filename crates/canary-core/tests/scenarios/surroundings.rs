//! What happens around a release: scaling to zero, deletion and re-creation, overrides, edits of the
//! route, autoscalers, missing policies, a second CanaryRelease.

use canary_api::{Step, names};
use canary_core::{Fetched, decide};
use serde_json::{Value, json};

use crate::{
    changes::{BACKWARD, FORWARD, in_turn, reverting, rolled_back},
    world::{JANE, NAMESPACE, World},
};

#[test]
fn a_target_scaled_to_zero_while_held_comes_back_with_the_serving_version() {
    for (mode, place) in in_turn(FORWARD).filter(|(_, (step, _))| *step < Step::Roll) {
        let mut world = World::with_release(json!({"onRevert": mode}), "v2", place);
        world.scale(0);
        world.until("the release is over", |world| world.place().0 == Step::Done);
        world.run(60);
        assert_eq!((world.image(), world.paused()), ("web:v1", false), "{mode} {place:?}: {}", world.describe());
        world.scale(2);
        world.run(60);
        assert_eq!(world.served(), ["web:v1"], "{mode} {place:?}: {}", world.describe());
        world.assert_plain_route();
        world.assert_rest();
    }
}

#[test]
fn a_rejected_template_held_and_scaled_to_zero_does_not_come_back() {
    let mut world = rolled_back("Hold");
    world.scale(0);
    world.run(60);
    world.scale(3);
    world.run(60);
    assert_eq!((world.served(), world.image()), (vec!["web:v1".to_owned()], "web:v1"), "{}", world.describe());
    world.assert_rest();
}

#[test]
fn a_sleeping_target_takes_a_new_template_without_a_release() {
    let mut world = World::new(json!({}));
    world.arm();
    world.scale(0);
    world.run(30);
    world.assert_rest();
    world.apply("v2").unwrap();
    world.run(60);
    assert_eq!((world.id().as_str(), world.paused()), ("", false), "{}", world.describe());
    world.scale(4);
    world.run(60);
    assert_eq!(world.served(), ["web:v2"], "{}", world.describe());
    world.assert_rest();
    world.apply("v3").unwrap();
    world.reach((Step::Bake, 0));
    assert_eq!(world.finish(), "Promoted");
}

#[test]
fn a_target_deleted_and_created_again_at_every_step_is_a_new_baseline() {
    for (place, pause) in FORWARD.into_iter().zip([0, 45].into_iter().cycle()) {
        let mut world = World::with_release(json!({"soak": "30s"}), "v2", place);
        world.delete("Deployment", "web");
        world.run(pause);
        world.create_target();
        world.until("the release is over", |world| world.place().0 == Step::Done);
        world.run(90);
        assert_eq!(
            (world.served(), world.canary_pods()),
            (vec!["web:v1".to_owned()], 0),
            "{place:?}: {}",
            world.describe()
        );
        assert_eq!(world.condition("Ready").0, "True", "{place:?}: {}", world.describe());
        world.assert_plain_route();
        world.assert_rest();
        world.apply("v9").unwrap();
        world.until("a new release", |world| world.id() == "web-2");
        assert_eq!(world.finish(), "Promoted", "{place:?}: {}", world.describe());
        assert_eq!(world.served(), ["web:v9"]);
    }
}

#[test]
fn a_target_that_is_gone_is_said() {
    let mut world = World::new(json!({}));
    world.arm();
    world.delete("Deployment", "web");
    world.run(60);
    assert_eq!(world.condition("Ready"), ("False".to_owned(), "TargetNotFound".to_owned()));
    world.create_target();
    world.run(60);
    assert_eq!(world.condition("Ready").0, "True", "{}", world.describe());
    world.assert_rest();
}

fn deleted(mut world: World, what: &str) {
    world.delete("CanaryRelease", "web");
    world.until("it is gone", |world| world.get("CanaryRelease", "web").is_none());
    world.run(30);
    assert_eq!(world.unanswered, 0.0, "{what}: {}", world.describe());
    assert_eq!(world.served().len(), 1, "{what}: one version serves");
    world.assert_plain_target();
    world.assert_plain_route();
    world.assert_nothing_left();
}

#[test]
fn deletion_at_every_step_leaves_a_plain_deployment_without_a_failed_answer() {
    for mode in ["Restore", "Hold"] {
        for place in FORWARD {
            let world = World::with_release(json!({"onRevert": mode, "soak": "40s"}), "v2", place);
            deleted(world, &format!("{mode} {place:?}"));
        }
        for place in BACKWARD {
            deleted(reverting(mode, place), &format!("{mode} {place:?}"));
        }
    }
}

#[test]
fn deletion_after_a_revert_in_hold_mode_leaves_the_serving_version() {
    let world = rolled_back("Hold");
    assert_eq!(world.image(), "web:v2");
    deleted(world, "after a revert");
    let mut idle = World::new(json!({}));
    idle.arm();
    deleted(idle, "idle");
}

#[test]
fn deletion_with_everything_else_gone_finishes() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    for (kind, name) in [
        ("HTTPRoute", "web"),
        ("Deployment", "web"),
        ("Deployment", "web-canary"),
        ("Service", "web"),
        ("Service", "web-canary"),
    ] {
        world.delete(kind, name);
    }
    world.delete("CanaryRelease", "web");
    world.until("it is gone", |world| world.get("CanaryRelease", "web").is_none());
    world.assert_nothing_left();
}

fn break_the_glass(world: &mut World) {
    world
        .edit("Deployment", "web", JANE, "kubectl-patch", |target| {
            target["metadata"]["annotations"][names::ANNOTATION_OVERRIDE] = json!("the shop burns");
            target["spec"].as_object_mut().unwrap().remove("paused");
        })
        .unwrap();
}

#[test]
fn an_override_at_every_step_ends_the_release_and_lets_the_template_through() {
    for place in FORWARD {
        let mut world = World::with_release(json!({"soak": "40s"}), "v2", place);
        break_the_glass(&mut world);
        world.until("the release is over", |world| world.place().0 == Step::Done);
        world.run(90);
        assert_eq!(
            (world.outcome().as_str(), world.served()),
            ("Overridden", vec!["web:v2".to_owned()]),
            "{place:?}: {}",
            world.describe()
        );
        assert!(
            world.status().history.iter().any(|line| line.contains("the shop burns") && line.contains("jane")),
            "{:?}",
            world.status().history
        );
        assert_eq!((world.canary_pods(), world.unanswered), (0, 0.0), "{place:?}");
        assert!(!world.target().to_string().contains("override"), "{place:?}: {}", world.target());
        world.assert_plain_route();
        world.assert_rest();
        world.apply("v3").unwrap();
        world.until("a new release", |world| world.id() == "web-2");
        assert_eq!(world.finish(), "Promoted", "{place:?}: {}", world.describe());
    }
}

/// Somebody takes the candidate out of the route, by the verb for it.
fn override_the_route(world: &mut World, edit: impl Fn(&mut Value)) {
    world
        .edit("HTTPRoute", "web", JANE, "kubectl-edit", |route| {
            edit(route);
            route["metadata"]["annotations"][names::ANNOTATION_OVERRIDE] = json!("the shop burns");
            route["metadata"]["annotations"][names::ANNOTATION_OVERRIDE_BY] = json!(JANE);
        })
        .unwrap();
}

#[test]
fn an_override_of_a_route_at_every_step_ends_the_release_for_good() {
    for place in FORWARD {
        let mut world = World::with_release(json!({"soak": "40s"}), "v2", place);
        override_the_route(&mut world, plain);
        world.until("the release is over", |world| world.place().0 == Step::Done);
        let rolls = matches!(place.0, Step::Roll | Step::HandBack | Step::Drain | Step::Soak);
        world.run(300);
        assert_eq!(world.id(), "web-1", "{place:?}: the same template again: {}", world.describe());
        let served = if rolls { "web:v2" } else { "web:v1" };
        assert_eq!(world.served(), vec![served.to_owned()], "{place:?}: {}", world.describe());
        let told = world.status().history.iter().any(|line| line.contains("the shop burns") && line.contains(JANE));
        assert!(told, "{place:?}: {:?}", world.status().history);
        assert!(!world.route().to_string().contains("override"), "{place:?}: {}", world.route());
        assert_eq!((world.canary_pods(), world.unanswered), (0, 0.0), "{place:?}");
        world.assert_plain_route();
        world.apply("v3").unwrap();
        world.until("a new release", |world| world.id() == "web-2");
        assert_eq!(world.finish(), "Promoted", "{place:?}: {}", world.describe());
    }
}

#[test]
fn an_override_that_was_left_on_a_route_stops_no_later_release() {
    let mut world = World::new(json!({}));
    world.arm();
    override_the_route(&mut world, |_| {});
    world.apply("v2").unwrap();
    world.until("a release", |world| world.id() == "web-1");
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    assert!(!world.route().to_string().contains("override"), "{}", world.route());
}

/// Somebody writes the route as Git has it.
fn plain(route: &mut Value) {
    for rule in route["spec"]["rules"].as_array_mut().unwrap() {
        let entries = rule["backendRefs"].as_array_mut().unwrap();
        entries.retain(|entry| entry["name"] != "web-canary");
        entries.iter_mut().for_each(|entry| entry["weight"] = json!(1));
    }
}

/// The world itself checks that no pod goes before its weight is gone for as long as the drain.
#[test]
fn weight_that_a_hand_gives_back_while_the_canary_drains_is_drained_again() {
    for (faulty, step) in [(true, Step::RevertDrain), (false, Step::Drain)] {
        for seconds in [0, 5, 9] {
            let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
            world.split_kept = false;
            if faulty {
                world.faulty("v2", 0.5);
            }
            world.until("it drains", |world| world.place().0 == step);
            world.run(seconds);
            world
                .edit("HTTPRoute", "web", JANE, "kubectl-edit", |route| {
                    for entry in route["spec"]["rules"][0]["backendRefs"].as_array_mut().unwrap() {
                        entry["weight"] = json!(1);
                    }
                })
                .unwrap();
            assert_eq!(world.weight(), 500);
            world.run(5);
            assert_eq!((world.weight(), world.canary_pods() > 0), (0, true), "{step:?}: {}", world.describe());
            let outcome = if faulty { "RolledBack" } else { "Promoted" };
            assert_eq!(world.finish(), outcome, "{step:?}: {}", world.describe());
            assert_eq!((world.canary_pods(), world.unanswered), (0, 0.0), "{step:?}: {}", world.describe());
            world.assert_plain_route();
            world.assert_rest();
        }
    }
}

#[test]
fn a_route_edited_by_hand_is_put_back_and_said() {
    for place in [(Step::Bake, 0), (Step::Scale, 1), (Step::Bake, 1), (Step::Bake, 2)] {
        for kept in [false, true] {
            let mut world = World::with_release(json!({}), "v2", place);
            world.split_kept = kept;
            let weight = world.weight();
            world.edit("HTTPRoute", "web", JANE, "kubectl-edit", plain).unwrap();
            assert_eq!(world.weight(), if kept { weight } else { 0 });
            world.run(1);
            assert!(world.weight() >= weight, "{place:?}: {}", world.describe());
            assert!(
                kept || world.notes.iter().any(|note| note.contains("RouteDrifted")),
                "{place:?}: {}",
                world.describe()
            );
            assert_eq!(world.finish(), "Promoted", "{place:?} {kept}: {}", world.describe());
            world.assert_plain_route();
            world.assert_rest();
        }
    }
}

#[test]
fn edits_of_the_route_that_are_not_ours_stay() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world
        .edit("HTTPRoute", "web", JANE, "kubectl-edit", |route| {
            route["spec"]["hostnames"] = json!(["shop.example", "www.shop.example"]);
            route["metadata"]["annotations"]["shop.example/edited"] = json!("yes");
        })
        .unwrap();
    assert_eq!(world.finish(), "Promoted");
    assert_eq!(world.route()["spec"]["hostnames"], json!(["shop.example", "www.shop.example"]));
    assert_eq!(object_annotation(world.route(), "shop.example/edited"), Some("yes"));
    assert!(!world.route().to_string().contains("canary"));
}

fn object_annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    canary_core::object::annotation(object, key)
}

#[test]
fn a_route_that_is_deleted_holds_the_release_until_it_is_back() {
    for place in [(Step::Bake, 0), (Step::Bake, 1), (Step::Bake, 2)] {
        let mut world = World::with_release(json!({}), "v2", place);
        world.delete("HTTPRoute", "web");
        world.run(300);
        assert_ne!(world.outcome(), "Promoted");
        assert_eq!(world.served(), ["web:v1"], "{place:?}: {}", world.describe());
        world.create_route();
        world.run(30);
        let paused = world.status().current.is_some_and(|current| current.paused.is_some());
        if paused {
            world.command(&format!("resume {}", world.id()));
        }
        assert_eq!(world.finish(), "Promoted", "{place:?}: {}", world.describe());
        world.assert_plain_route();
        world.assert_rest();
    }
}

#[test]
fn a_route_that_is_deleted_stops_no_abort() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.delete("HTTPRoute", "web");
    world.run(10);
    world.command("abort");
    assert_eq!(world.finish(), "Aborted", "{}", world.describe());
}

fn autoscaler(behavior: Value) -> Value {
    let mut hpa = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": NAMESPACE, "labels": {"team": "shop"}},
        "spec": {"minReplicas": 2, "maxReplicas": 10, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    });
    if !behavior.is_null() {
        hpa["spec"]["behavior"] = behavior;
    }
    hpa
}

#[test]
fn an_autoscaler_is_frozen_for_the_release_and_given_back_exactly() {
    let behaviors = [
        Value::Null,
        json!({"scaleUp": {"stabilizationWindowSeconds": 5}}),
        json!({"scaleDown": {"selectPolicy": "Min", "stabilizationWindowSeconds": 60, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 30}]}}),
    ];
    for behavior in behaviors {
        for bad in [false, true] {
            let mut world = World::new(json!({}));
            world.create("HorizontalPodAutoscaler", autoscaler(behavior.clone()));
            let before = world.get("HorizontalPodAutoscaler", "web").unwrap().clone();
            world.arm();
            world.apply("v2").unwrap();
            world.reach((Step::Bake, 1));
            assert_eq!(
                world.get("HorizontalPodAutoscaler", "web").unwrap()["spec"]["behavior"]["scaleDown"]["selectPolicy"],
                "Disabled"
            );
            if bad {
                world.faulty("v2", 0.5);
            }
            assert_eq!(world.finish(), if bad { "RolledBack" } else { "Promoted" });
            let mut after = world.get("HorizontalPodAutoscaler", "web").unwrap().clone();
            for field in ["resourceVersion", "generation"] {
                after["metadata"][field] = before["metadata"][field].clone();
            }
            assert_eq!(after.to_string(), before.to_string());
            world.assert_rest();
        }
    }
}

#[test]
fn deletion_thaws_the_autoscaler() {
    let mut world = World::new(json!({}));
    world.create("HorizontalPodAutoscaler", autoscaler(Value::Null));
    world.arm();
    world.apply("v2").unwrap();
    world.reach((Step::Bake, 1));
    deleted(world, "with an autoscaler");
}

#[test]
fn without_the_hold_it_is_said_and_a_change_is_recorded_as_ungated() {
    let mut world = World::new(json!({}));
    world.hold_installed = false;
    world.run(60);
    assert_eq!(world.condition("Ready"), ("False".to_owned(), "HoldNotInstalled".to_owned()));
    assert!(world.status().message.contains("kubectl apply"), "{}", world.status().message);
    world.apply("v2").unwrap();
    world.run(120);
    assert_eq!(world.outcome(), "Ungated", "{}", world.describe());
    assert_eq!((world.served(), world.weight(), world.canary_pods()), (vec!["web:v2".to_owned()], 0, 0));
    world.assert_no_turning();
    world.hold_installed = true;
    world.run(60);
    assert_eq!(world.condition("Ready").0, "True", "{}", world.describe());
    world.assert_rest();
    world.apply("v3").unwrap();
    world.reach((Step::Bake, 0));
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
}

#[test]
fn a_second_canaryrelease_for_the_target_says_so_and_does_nothing() {
    let mut world = World::new(json!({}));
    world.run(10);
    world.install("later", json!({}));
    world.arm();
    world.run(60);
    let later = world.status_of("later");
    assert!(later.conditions.iter().any(|condition| condition.type_ == "Ready"
        && condition.status == "False"
        && condition.reason == "TargetTaken"));
    assert!(later.message.contains("CanaryRelease web already releases"), "{}", later.message);
    world.apply("v2").unwrap();
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    assert!(world.status_of("later").current.is_none());
    world.assert_rest();
    world.delete("CanaryRelease", "later");
    world.until("it is gone", |world| world.get("CanaryRelease", "later").is_none());
    assert_eq!(world.condition("Ready").0, "True");
    world.assert_rest();
}

#[test]
fn objects_of_another_with_our_names_are_left_alone() {
    let mut world = World::bare();
    world.create("Service", json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-canary"}, "spec": {"selector": {"app": "else"}}}));
    world.install("web", json!({}));
    world.run(60);
    assert_eq!(world.condition("Ready"), ("False".to_owned(), "CanaryNameTaken".to_owned()));
    world.apply("v2").unwrap();
    world.run(60);
    assert_eq!(world.get("Service", "web-canary").unwrap()["spec"]["selector"], json!({"app": "else"}));
    world.delete("CanaryRelease", "web");
    world.until("it is gone", |world| world.get("CanaryRelease", "web").is_none());
    assert!(world.get("Service", "web-canary").is_some());
}

#[test]
fn traffic_stays_on_the_canary_while_the_stable_service_is_gone() {
    let mut world = World::with_release(json!({}), "v2", (Step::Roll, 2));
    let service = world.get("Service", "web").unwrap().clone();
    world.delete("Service", "web");
    world.run(120);
    assert_eq!((world.place().0, world.weight()), (Step::Roll, 1000), "{}", world.describe());
    world.create("Service", service);
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
}

#[test]
fn a_target_that_rolls_is_armed_once_one_version_runs() {
    let mut world = World::bare();
    world.apply("v2").unwrap();
    world.install("web", json!({}));
    world.step(std::time::Duration::from_millis(500));
    world.arm();
    assert_eq!(world.status().hold.unwrap().serving.unwrap().images, ["web:v2"]);
    world.assert_rest();
}

#[test]
fn the_target_is_not_let_go_while_no_service_has_the_canarys_pods() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 2));
    let service = world.get("Service", "web").unwrap().clone();
    world.delete("Service", "web");
    world.delete("Service", "web-canary");
    world.until("every stage has passed", |world| world.place().0 == Step::Roll);
    world.run(30);
    assert!(world.place().0 == Step::Roll && world.paused(), "{}", world.describe());
    let message = decide(&world.seen("web"), world.now).status.message;
    assert!(message.contains("waits until all of the canary's pods are ready behind its Service"), "{message}");
    world.create("Service", service);
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    world.assert_plain_route();
}

#[test]
fn a_soak_that_nobody_can_ask_has_its_time_later_and_says_why() {
    let others = |service: &mut Value| service["spec"]["selector"] = json!({"app": "else"});
    for (kind, why) in [
        ("Service", "Service web is gone"),
        ("Service", "Service web does not select the pods of Deployment web"),
        ("HTTPRoute", "HTTPRoute web is gone"),
    ] {
        let mut world = World::with_release(json!({"soak": "60s"}), "v2", (Step::Soak, 2));
        let object = world.get(kind, "web").unwrap().clone();
        if why.ends_with("gone") {
            world.delete(kind, "web");
        } else {
            world.edit(kind, "web", JANE, "kubectl", others).unwrap();
        }
        world.run(300);
        assert_eq!((world.place().0, world.outcome().as_str()), (Step::Soak, ""), "{why}: {}", world.describe());
        let message = decide(&world.seen("web"), world.now).status.message;
        assert!(message.contains(&format!("the gates watch on; {why}: that is no time of the soak")), "{message}");
        if world.get(kind, "web").is_some() {
            world.delete(kind, "web");
        }
        world.create(kind, object);
        let mended = world.now;
        assert_eq!(world.finish(), "Promoted", "{why}: {}", world.describe());
        assert!(world.now >= mended + std::time::Duration::from_secs(45), "{why}: {}", world.describe());
    }
}

#[test]
fn whoever_looks_at_a_stage_learns_that_the_stable_service_is_gone() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    world.delete("Service", "web");
    world.run(5);
    let message = decide(&world.seen("web"), world.now).status.message;
    assert!(message.ends_with("; Service web is gone, put it back"), "{message}");
}

#[test]
fn a_soak_goes_on_though_a_read_fails() {
    let mut world = World::with_release(json!({"soak": "60s"}), "v2", (Step::Soak, 2));
    world.run(30);
    for unread in [true, false] {
        let mut seen = world.seen("web");
        if unread {
            seen.target = Fetched::Failed("timeout".to_owned());
        } else {
            seen.service = Fetched::Failed("timeout".to_owned());
        }
        let before = seen.release.status.clone().unwrap().current.unwrap();
        let after = decide(&seen, world.now).status;
        assert_eq!(after.current.unwrap().step_since, before.step_since, "{}", after.message);
        assert!(after.message.contains("could not be read: timeout"), "{}", after.message);
    }
}

#[test]
fn a_stage_whose_service_can_not_be_made_says_what_is_missing() {
    let mut world = World::with_release(json!({}), "v2", (Step::Baseline, 0));
    world.delete("Service", "web");
    world.until("its pods are asked for", |world| world.place().0 == Step::Scale);
    world.run(120);
    assert_eq!((world.place(), world.weight()), ((Step::Scale, 0), 0), "{}", world.describe());
    let message = decide(&world.seen("web"), world.now).status.message;
    assert!(message.contains("its Service is not there yet; Service web is gone, put it back"), "{message}");
}
