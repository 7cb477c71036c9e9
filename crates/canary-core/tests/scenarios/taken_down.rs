//! A CanaryRelease that is being deleted, tick by tick: what is given back first, what goes, what is said of a target
//! that is held, and what keeps the finalizer.

use std::time::Duration;

use canary_api::{Phase, Step, names};
use canary_core::{Decision, Effect, Fetched, Kind, Observed, decide, object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{
    changes::{FORWARD, rolled_back},
    world::{Change, Sight, World, assert_waits, current, image, known, step, target, unmark, whys, written},
};

const PLAIN: &str = "leave a plain Deployment";
const GONE: &str = "everything of ours is taken away";

fn deleted(world: &World) -> Sight {
    Sight::of(world).seeing(|seen| seen.release.metadata.deletion_timestamp = Some(Time(world.now)))
}

fn failed<T>() -> Fetched<T> {
    Fetched::Failed("why".to_owned())
}

/// A target that is held for a rejected template, when the CanaryRelease is deleted.
fn held() -> Sight {
    deleted(&rolled_back("Hold"))
}

/// The same with the target given back, and nothing of ours left.
fn nothing_left() -> Sight {
    held().seeing(|seen| {
        seen.target = Fetched::Known(World::bare().target().clone());
        (seen.canary, seen.canary_service) = (Fetched::Missing, Fetched::Missing);
        seen.serving_records = Fetched::Known(Vec::new());
    })
}

/// An object of this CanaryRelease.
fn own(seen: &Observed, name: &str) -> Value {
    let uid = seen.release.metadata.uid.clone();
    json!({"metadata": {"name": name, "uid": format!("uid-of-{name}"), "annotations": {names::ANNOTATION_UID: uid}}})
}

#[test]
fn a_deletion_reverts_before_the_roll_lets_a_roll_end_and_ends_a_soak() {
    let mut world = World::new(json!({"soak": "60s"}));
    world.arm();
    world.apply("v2").unwrap();
    for place in FORWARD {
        world.reach(place);
        let done = deleted(&world).decide();
        let expected = match place.0 {
            Step::Soak => Step::Done,
            before if before < Step::Roll => Step::Revert,
            rolling => rolling,
        };
        assert_eq!(step(&done), expected, "{place:?}: {}", done.status.message);
        assert!(done.wake_after <= Some(Duration::from_millis(500)), "{place:?}");
        assert!(!done.gone && !whys(&done).contains(&GONE), "{place:?}");
        let phase = match expected {
            Step::Done => Phase::Terminating,
            Step::Revert => Phase::Reverting,
            _ => Phase::Promoting,
        };
        assert_eq!(done.status.phase, phase, "{place:?}");
        let revert = done.status.current.unwrap().revert;
        assert_eq!(revert.is_some(), expected == Step::Revert, "{place:?}");
        let Some(revert) = revert else { continue };
        assert_eq!((revert.reason.as_str(), revert.by.as_str()), ("Deleted", "deletion"));
        assert_eq!((revert.outcome.as_str(), revert.rejects), ("Aborted", false));
        assert_eq!(revert.message, "the CanaryRelease is being deleted");
    }
}

#[test]
fn the_finalizer_goes_last_and_from_its_own_place() {
    let mut sight = nothing_left();
    let finalizers = vec!["shop.example/keep".to_owned(), names::FINALIZER.to_owned()];
    for (finalizers, place) in [(vec![names::FINALIZER.to_owned()], 0), (finalizers, 1)] {
        sight.seen.release.metadata.finalizers = Some(finalizers);
        let done = sight.decide();
        let [Effect::Patch { kind: Kind::CanaryRelease, name, patch, why: GONE }] = &done.effects[..] else {
            panic!("{:?}", done.effects)
        };
        assert_eq!((name.as_str(), done.gone), ("web", true));
        let path = format!("/metadata/finalizers/{place}");
        let operations = patch.as_array().unwrap();
        assert!(operations.contains(&json!({"op": "test", "path": path, "value": names::FINALIZER})), "{patch}");
        assert!(operations.contains(&json!({"op": "remove", "path": path})), "{patch}");
        assert_eq!(done.wake_after, Some(Duration::from_millis(500)));
    }
    for none in [None, Some(vec!["shop.example/keep".to_owned()])] {
        let done = sight.decided(|seen| seen.release.metadata.finalizers = none);
        assert_eq!((done.gone, whys(&done)), (true, Vec::new()), "it is not ours to keep");
    }
}

#[test]
fn the_finalizer_stays_while_a_read_fails_that_would_tell_of_something_left() {
    let ready = nothing_left();
    assert_eq!(whys(&ready.decide()), [GONE]);
    let reads: [(&str, Change); 9] = [
        ("the target", |seen| seen.target = failed()),
        ("the canary", |seen| seen.canary = failed()),
        ("the canary's Service", |seen| seen.canary_service = failed()),
        ("the baseline pods' Deployment", |seen| seen.baseline.deployment = failed()),
        ("the baseline pods' Service", |seen| seen.baseline.service = failed()),
        ("the PodDisruptionBudgets", |seen| seen.budgets = failed()),
        ("the autoscalers", |seen| seen.autoscalers = failed()),
        ("the serving records", |seen| seen.serving_records = failed()),
        ("HTTPRoute web", |seen| seen.routes[0].1 = failed()),
    ];
    for (what, fail) in reads {
        for together in [false, true] {
            let done = ready.decided(|seen| {
                fail(seen);
                if together {
                    seen.target = failed();
                    seen.routes.push(("other".to_owned(), failed()));
                }
            });
            assert_eq!((whys(&done), done.gone), (Vec::new(), false), "{what} {together}");
            let said = if together { "HTTPRoute other" } else { what };
            let message = format!(
                "being deleted: traffic is on stable, what is ours is taken away; {said} could not be read: why"
            );
            assert_eq!(done.status.message, message);
        }
    }
}

#[test]
fn nothing_of_ours_goes_before_routes_autoscaler_and_target_are_given_back() {
    let Sight { mut seen, now } = held();
    let done = decide(&seen, now);
    assert_eq!((whys(&done), done.gone), (vec![PLAIN], false));
    seen.target = Fetched::Known(World::bare().target().clone());
    let done = decide(&seen, now);
    let left: Vec<_> = done.effects.iter().map(|effect| (effect.kind(), effect.name())).collect();
    let record = object::name(&seen.serving_records.list()[0]).to_owned();
    let ours =
        [(Kind::Deployment, "web-canary"), (Kind::Service, "web-canary"), (Kind::ControllerRevision, record.as_str())];
    assert_eq!(left, ours);
    let uid = seen.release.metadata.uid.clone();
    let marked = json!({"metadata": {"name": "web", "annotations": {names::ANNOTATION_UID: uid, names::ANNOTATION_BEHAVIOR: "null"}}});
    seen.autoscalers = Fetched::Known(vec![marked]);
    assert_eq!(whys(&decide(&seen, now)), ["give scale-down back"]);
    seen.autoscalers = Fetched::Missing;
    known(&mut seen.routes[0].1)["metadata"]["annotations"][names::ANNOTATION_UID] = json!(uid);
    assert_eq!(whys(&decide(&seen, now)), ["put the route back as it was"]);
}

#[test]
fn each_object_of_ours_is_deleted_by_its_uid_and_no_other() {
    type Put = fn(&mut Observed, Value);
    let Sight { seen: ready, now } = nothing_left();
    let places: [(Kind, Put); 6] = [
        (Kind::Deployment, |seen, object| seen.canary = Fetched::Known(object)),
        (Kind::Service, |seen, object| seen.canary_service = Fetched::Known(object)),
        (Kind::Deployment, |seen, object| seen.baseline.deployment = Fetched::Known(object)),
        (Kind::Service, |seen, object| seen.baseline.service = Fetched::Known(object)),
        (Kind::PodDisruptionBudget, |seen, object| seen.budgets = Fetched::Known(vec![object])),
        (Kind::ControllerRevision, |seen, object| seen.serving_records = Fetched::Known(vec![object])),
    ];
    for (kind, put) in places {
        let mut seen = ready.clone();
        put(&mut seen, own(&ready, "mine"));
        let done = decide(&seen, now);
        let (name, uid, why) = ("mine".to_owned(), "uid-of-mine".to_owned(), "the CanaryRelease is deleted");
        assert_eq!((done.effects, done.gone), (vec![Effect::Delete { kind, name, uid, why }], false));
        let mut another = own(&ready, "mine");
        another["metadata"]["annotations"][names::ANNOTATION_UID] = json!("another");
        let mut going = own(&ready, "mine");
        going["metadata"]["deletionTimestamp"] = json!(now.to_string());
        for object in [another, going] {
            put(&mut seen, object);
            assert_eq!(whys(&decide(&seen, now)), [GONE], "{kind:?}");
        }
    }
}

fn notes(done: &Decision) -> Vec<(&str, &str, bool)> {
    done.notes.iter().map(|note| (note.reason, note.text.as_str(), note.warning)).collect()
}

/// Whether a patch of the target takes something away.
fn removes(done: &Decision, path: &str) -> bool {
    done.effects.iter().any(|effect| match effect {
        Effect::Patch { kind: Kind::Deployment, patch, why: PLAIN, .. } => {
            patch.as_array().unwrap().contains(&json!({"op": "remove", "path": path}))
        }
        _ => false,
    })
}

fn let_go(target: &mut Value) {
    target["spec"].as_object_mut().unwrap().remove("paused");
}

const STAMP: &str = "/metadata/annotations/canaryrelease.dev~1changed-by";

#[test]
fn a_held_target_goes_on_with_the_serving_version_and_that_is_said() {
    let sight = held();
    let done = sight.decide();
    let text = "Deployment web goes on with the serving version; its manifest still asks for web:v2, which the next apply rolls out at once";
    assert_eq!(notes(&done), [("HoldEnded", text, true)]);
    let template = written(&done, "web", "/spec/template").unwrap();
    assert_eq!(template["spec"]["containers"][0]["image"], "web:v1");
    for path in [
        "/spec/paused",
        STAMP,
        "/metadata/annotations/canaryrelease.dev~1uid",
        "/metadata/labels/canaryrelease.dev~1release",
    ] {
        assert!(removes(&done, path), "{path}: {:?}", done.effects);
    }
    // It asks for the serving version: there is nothing to write, and nothing to say.
    let done = sight.decided(|seen| image(target(seen), "web:v1"));
    assert!(removes(&done, "/spec/paused") && written(&done, "web", "/spec/template").is_none());
    assert_eq!(notes(&done), []);
}

#[test]
fn a_pause_that_is_not_ours_stays_and_a_target_that_is_not_held_is_not_un_paused() {
    let ready = held();
    for (what, change) in [
        ("a pause by hand", (|target| unmark(target, names::ANNOTATION_CHANGED_BY)) as fn(&mut Value)),
        ("a target that runs", let_go),
    ] {
        let done = ready.clone().target(change).decide();
        assert_eq!((whys(&done), notes(&done)), (vec![PLAIN], vec![]), "{what}");
        assert!(!removes(&done, "/spec/paused") && written(&done, "web", "/spec/template").is_none(), "{what}");
        assert!(removes(&done, "/metadata/annotations/canaryrelease.dev~1uid"), "{what}");
    }
    let another =
        ready.clone().target(|target| target["metadata"]["annotations"][names::ANNOTATION_UID] = json!("another"));
    let now = ready.now.to_string();
    let going = ready.target(|target| target["metadata"]["deletionTimestamp"] = json!(now));
    for (what, sight) in [("one that is another's", another), ("one that goes by itself", going)] {
        assert!(!whys(&sight.decide()).contains(&PLAIN), "{what}");
    }
}

#[test]
fn a_hold_stays_where_what_served_is_lost_and_is_waited_for_where_it_could_not_be_read() {
    let ready = held();
    let kept = "the serving version's template of Deployment web is lost: it stays paused as it is; apply the template that should run, then `kubectl rollout resume`";
    let nothing = || Fetched::Known(Vec::new());
    for (sets, records, waits) in [
        (nothing(), nothing(), false),
        (failed(), nothing(), true),
        (nothing(), failed(), true),
        (failed(), failed(), true),
    ] {
        let sight = ready.clone().seeing(|seen| (seen.replica_sets, seen.serving_records) = (sets, records));
        let done = sight.decide();
        if waits {
            assert_eq!((whys(&done), notes(&done), done.gone), (vec![], vec![], false));
            assert_waits(&done, "the serving version's template could not be read");
        } else {
            assert_eq!((whys(&done), notes(&done)), (vec![PLAIN], vec![("HoldKept", kept, true)]));
            assert!(!removes(&done, "/spec/paused") && removes(&done, STAMP));
        }
        // A target that is not held has nothing to be waited for.
        assert_eq!(whys(&sight.target(let_go).decide()), [PLAIN]);
    }
    // The record tells it as well.
    let done = ready.decided(|seen| seen.replica_sets = failed());
    let template = written(&done, "web", "/spec/template").unwrap();
    assert_eq!(template["spec"]["containers"][0]["image"], "web:v1");
}

#[test]
fn what_is_deleted_says_so_and_that_it_is_not_ready() {
    let sight = held();
    let done = sight.decide();
    assert_eq!(done.status.message, "being deleted: traffic is on stable, what is ours is taken away");
    let ready: Vec<_> = done.status.conditions.iter().map(|one| (one.type_.as_str(), one.status.as_str())).collect();
    assert_eq!(ready, [("Ready", "False"), ("Reconciling", "True"), ("Stalled", "False"), ("Completed", "True")]);
    assert_eq!(done.status.conditions[0].reason, "Terminating");
    let reverts = sight.decided(|seen| current(seen).step = Step::RevertTarget);
    assert_eq!(reverts.status.conditions[0].reason, "Terminating");
}
