//! The writes of a single tick: what they are, in which order, and what is left alone, whatever the cluster looks like.

use canary_api::{Step, names};
use canary_core::{Decision, Effect, Fetched, Kind, Observed, decide, effect::TRAFFIC_BACK, object};
use serde_json::{Value, json};

use crate::{
    beside,
    changes::{reverting, rolled_back},
    world::{
        Change, JANE, NAMESPACE, World, current, failed, image, known, overridden, route, status, step, stopped,
        target, told, told_of, unmark,
    },
};

const NONE: [&str; 0] = [];
const SET: &str = "set the weight";
const RAISE: &str = "give the canary the candidate and the pods its weight needs";

fn at(place: (Step, i32)) -> World {
    World::with_release(json!({}), "v2", place)
}

fn writes(done: &Decision) -> Vec<(Kind, &str, &str)> {
    done.effects.iter().map(|effect| (effect.kind(), effect.name(), effect.why())).collect()
}

/// Why objects of a kind are written.
fn whys_of(done: &Decision, kind: Kind) -> Vec<&str> {
    done.effects.iter().filter(|effect| effect.kind() == kind).map(Effect::why).collect()
}

/// What a patch does to a field.
fn op(done: &Decision, kind: Kind, path: &str) -> Option<Value> {
    let patches = done.effects.iter().filter(|effect| effect.kind() == kind).filter_map(|effect| match effect {
        Effect::Patch { patch, .. } => patch.as_array(),
        _ => None,
    });
    patches.flatten().find(|operation| operation["path"] == path && operation["op"] != "test").cloned()
}

/// The route as its owner wrote it, and as it was created.
fn plain(seen: &mut Observed) {
    let fresh = World::bare().route().clone();
    let found = route(seen);
    found["spec"] = fresh["spec"].clone();
    found["metadata"]["annotations"] = fresh["metadata"]["annotations"].clone();
    found["metadata"].as_object_mut().unwrap().remove("labels");
}

/// Rewrites the weights of the rules that a split is on, the first so many of them.
fn weigh(seen: &mut Observed, rules: usize, weights: &[(&str, i64)]) {
    for rule in route(seen)["spec"]["rules"].as_array_mut().unwrap().iter_mut().take(rules) {
        for (name, weight) in weights {
            for entry in rule["backendRefs"].as_array_mut().unwrap() {
                if entry["name"] == *name {
                    entry["weight"] = json!(weight);
                }
            }
        }
    }
}

#[test]
fn a_route_is_not_touched_before_there_is_a_weight_to_give() {
    for place in [(Step::Baseline, 0), (Step::Scale, 0)] {
        let world = at(place);
        assert_eq!(whys_of(&world.decide(), Kind::HttpRoute), NONE, "{place:?}");
    }
}

#[test]
fn a_stage_that_is_stopped_gives_the_traffic_back_and_writes_nothing_else() {
    let done = at((Step::Bake, 0)).decided(|seen| {
        seen.measured.due_in_silence = 20.0;
        known(&mut seen.canary)["spec"]["replicas"] = json!(0);
    });
    assert_eq!(stopped(&done).unwrap().0, "CanarySilent");
    assert_eq!(writes(&done), [(Kind::HttpRoute, "web", TRAFFIC_BACK)]);
}

#[test]
fn a_revert_makes_the_canarys_service_again_only_where_that_has_traffic_still() {
    let none = reverting("Restore", (Step::Revert, 1));
    let mut some = at((Step::Roll, 2));
    some.until("half of it is rolled", |world| object::integer(world.target(), "/status/updatedReplicas", 0) > 1);
    some.command("abort");
    some.reach((Step::Revert, 2));
    assert!(some.weight() > 0, "{}", some.describe());
    for (world, expected) in [(none, &[][..]), (some, &["name the canary's pods"])] {
        let done = world.decided(|seen| seen.canary_service = Fetched::Missing);
        assert_eq!(whys_of(&done, Kind::Service), expected);
    }
}

#[test]
fn a_release_is_not_over_while_something_of_it_is_left_or_could_not_be_read() {
    let mut world = at((Step::Drain, 2));
    world.until("its pods are taken away", |world| world.canary_pods() == 0);
    assert_eq!(world.decide().status.outcome, "Promoted");
    let changes: [(&str, Change); 6] = [
        ("route unread", |seen| seen.routes[0].1 = failed()),
        ("canary unread", |seen| seen.canary = failed()),
        ("baseline unread", |seen| seen.baseline.deployment = failed()),
        ("autoscalers unread", |seen| seen.autoscalers = failed()),
        ("canary has pods", |seen| known(&mut seen.canary)["spec"]["replicas"] = json!(1)),
        ("route is marked", |seen| {
            let uid = seen.release.metadata.uid.clone().unwrap();
            route(seen)["metadata"]["annotations"][names::ANNOTATION_UID] = json!(uid);
        }),
    ];
    for (what, change) in changes {
        let done = world.decided(change).status;
        assert_eq!((done.current.unwrap().step, done.outcome.as_str()), (Step::Drain, ""), "{what}");
        let waits = "; the canary is taken away and the routes are put back as they were";
        assert!(done.message.ends_with(waits), "{what}: {}", done.message);
    }
}

#[test]
fn pods_stay_while_a_route_gives_them_weight_or_could_not_be_read() {
    let soak = World::with_release(json!({"soak": "60s"}), "v2", (Step::Soak, 2));
    let mut rest = at((Step::Bake, 2));
    rest.finish();
    for world in [soak, rest] {
        let mut seen = world.seen("web");
        known(&mut seen.canary)["spec"]["replicas"] = json!(2);
        let gone = decide(&seen, world.now);
        assert_eq!(whys_of(&gone, Kind::Deployment), ["take the canary's pods away"]);
        let mut unread = seen.clone();
        unread.routes[0].1 = failed();
        assert_eq!(whys_of(&decide(&unread, world.now), Kind::Deployment), NONE);
        let mut split = seen.clone();
        let rules = route(&mut split)["spec"]["rules"].as_array_mut().unwrap();
        rules[0]["backendRefs"]
            .as_array_mut()
            .unwrap()
            .push(json!({"kind": "Service", "name": "web-canary", "weight": 5}));
        assert_eq!(whys_of(&decide(&split, world.now), Kind::Deployment), NONE);
    }
}

#[test]
fn a_target_is_not_restored_while_a_route_could_not_be_read() {
    let world = reverting("Restore", (Step::RevertTarget, 1));
    let mut seen = world.seen("web");
    // As it was before the first tick here.
    let held = World::with_release(json!({"onRevert": "Restore"}), "v2", (Step::Bake, 1)).target()["spec"].clone();
    target(&mut seen)["spec"] = held;
    assert_eq!(whys_of(&decide(&seen, world.now), Kind::Deployment), ["write the serving version's template back"]);
    seen.routes[0].1 = failed();
    assert_eq!(whys_of(&decide(&seen, world.now), Kind::Deployment), NONE);
}

#[test]
fn an_autoscaler_is_frozen_from_the_baseline_on() {
    for place in [(Step::Baseline, 0), (Step::Scale, 0)] {
        let world = at(place);
        let scaler = json!({
            "metadata": {"name": "web-scaler", "namespace": NAMESPACE, "uid": "u"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}},
        });
        let done = world.decided(|seen| seen.autoscalers = Fetched::Known(vec![scaler]));
        let why = "freeze scale-down for the release";
        assert_eq!(writes(&done), [(Kind::HorizontalPodAutoscaler, "web-scaler", why)], "{place:?}");
        let frozen = op(&done, Kind::HorizontalPodAutoscaler, "/spec/behavior").unwrap();
        assert_eq!(frozen["value"], json!({"scaleDown": {"selectPolicy": "Disabled"}}));
    }
}

#[test]
fn a_route_that_drifted_is_put_right_and_said_as_it_was_found() {
    let changes: [(&str, Change); 3] = [
        ("5%", |seen| weigh(seen, 2, &[("web", 950), ("web-canary", 50)])),
        ("30%", |seen| weigh(seen, 1, &[("web", 700), ("web-canary", 300)])),
        ("no split", plain),
    ];
    for (place, wanted) in [((Step::Bake, 0), "10%"), ((Step::Scale, 1), "10%"), ((Step::Roll, 2), "100%")] {
        let world = at(place);
        // At 100 % the rule that is left has the larger share, which is the right one.
        for (found, change) in changes.into_iter().filter(|(found, _)| *found != "30%" || wanted == "10%") {
            let done = world.decided(change);
            let told = format!(
                "someone changed HTTPRoute web ({found} where {wanted} is asked for): put back; to end the release give the command abort"
            );
            assert_eq!(told_of(&done, "RouteDrifted"), [told], "{place:?}");
            assert_eq!(whys_of(&done, Kind::HttpRoute), [SET], "{place:?} {found}");
        }
    }
    let world = beside::release(&json!({}), (Step::Bake, 0));
    let done = world.decided(|seen| weigh(seen, 2, &[("web", 700), ("web-canary", 200), ("web-baseline", 100)]));
    assert_eq!(
        told_of(&done, "RouteDrifted"),
        [
            "someone changed HTTPRoute web (20% and 10% where 20% is asked for): put back; to end the release give the command abort"
        ]
    );
}

#[test]
fn pods_come_before_the_weight_that_a_route_lost() {
    let done = at((Step::Bake, 0)).decided(|seen| {
        plain(seen);
        known(&mut seen.canary)["spec"]["replicas"] = json!(0);
    });
    assert_eq!(writes(&done), [(Kind::Deployment, "web-canary", RAISE), (Kind::HttpRoute, "web", SET)]);
}

#[test]
fn traffic_that_leaves_lost_baseline_pods_waits_for_no_pod_and_is_no_drift() {
    let done = beside::release(&json!({}), (Step::Bake, 1)).decided(|seen| {
        seen.baseline.pods = Fetched::Known(Vec::new());
        known(&mut seen.canary)["spec"]["replicas"] = json!(0);
        // Of the canary's pods one is not ready: what it has it keeps.
        known(&mut seen.canary_pods).truncate(1);
    });
    assert_eq!(writes(&done)[..2], [(Kind::HttpRoute, "web", TRAFFIC_BACK), (Kind::Deployment, "web-canary", RAISE)]);
    let text = "0 of 2 baseline pods are ready: stage 2/3 goes on without them, compared with all stable pods";
    assert_eq!(told(&done), [("BaselineNotReady", text)]);
}

#[test]
fn a_weight_that_is_only_just_asked_for_is_no_drift() {
    let done = at((Step::HandBack, 2)).decided(|seen| weigh(seen, 2, &[("web", 0), ("web-canary", 1000)]));
    assert_eq!((writes(&done), done.notes.len()), (vec![(Kind::HttpRoute, "web", SET)], 0), "{:?}", done.notes);
}

#[test]
fn on_the_way_back_a_plain_route_is_written_only_where_a_split_may_be_under_way() {
    let mut early = at((Step::Scale, 0));
    early.command("abort");
    let late = reverting("Restore", (Step::Revert, 1));
    let draining = reverting("Restore", (Step::RevertDrain, 1));
    for (world, expected) in [(early, &[][..]), (late, &[TRAFFIC_BACK]), (draining, &[])] {
        let mut seen = world.seen("web");
        plain(&mut seen);
        assert_eq!(whys_of(&decide(&seen, world.now), Kind::HttpRoute), expected, "{:?}", world.place());
        // A route that has no rule of ours is nobody's to write.
        route(&mut seen)["spec"]["rules"].as_array_mut().unwrap().drain(..2);
        assert_eq!(whys_of(&decide(&seen, world.now), Kind::HttpRoute), NONE, "{:?}", world.place());
    }
}

#[test]
fn the_canary_gets_a_budget_like_the_targets_once() {
    let budget = |name: &str, of: &str| json!({"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": of}}}});
    for place in [(Step::Scale, 0), (Step::Bake, 0)] {
        let world = at(place);
        let mut seen = world.seen("web");
        let made = |seen: &Observed| {
            let done = decide(seen, world.now);
            let budgets = done.effects.into_iter().filter(|effect| effect.kind() == Kind::PodDisruptionBudget);
            budgets.map(|effect| (effect.name().to_owned(), effect.why())).collect::<Vec<_>>()
        };
        assert_eq!(made(&seen), []);
        seen.budgets = Fetched::Known(vec![budget("web", "web"), budget("other", "other")]);
        assert_eq!(made(&seen), [("web-canary".to_owned(), "guard the canary's pods like the target's")]);
        seen.budgets = Fetched::Known(vec![budget("web", "web"), budget("web-canary", "web-canary")]);
        assert_eq!(made(&seen), []);
    }
}

#[test]
fn a_template_that_came_meanwhile_is_not_kept_for_the_rejected_one() {
    let mut world = at((Step::Baseline, 0));
    world.command("abort");
    world.reach((Step::RevertTarget, 0));
    let done = world.decided(|seen| {
        // The canary's ReplicaSet is not there yet.
        known(&mut seen.replica_sets).retain(|set| !object::name(set).starts_with("web-canary-"));
        image(target(seen), "web:v3");
    });
    assert_eq!(step(&done), Step::RevertTarget);
    assert!(!writes(&done).contains(&(Kind::Deployment, "web-canary", RAISE)), "{:?}", writes(&done));
}

#[test]
fn an_object_of_another_with_the_canarys_name_is_not_written_in_a_release_either() {
    let world = at((Step::Scale, 0));
    let mut seen = world.seen("web");
    known(&mut seen.canary)["spec"]["replicas"] = json!(0);
    known(&mut seen.canary_service)["spec"]["selector"] = json!({"app": "else"});
    let mut other = seen.clone();
    for object in [&mut other.canary, &mut other.canary_service] {
        known(object)["metadata"]["annotations"][names::ANNOTATION_UID] = json!("another's");
    }
    let select = "select the canary's pods and no others";
    assert_eq!(
        writes(&decide(&seen, world.now)),
        [(Kind::Deployment, "web-canary", RAISE), (Kind::Service, "web-canary", select)]
    );
    assert_eq!(writes(&decide(&other, world.now)), []);
}

#[test]
fn the_canarys_service_follows_the_stable_one_where_that_was_read() {
    let world = at((Step::Bake, 0));
    let mut seen = world.seen("web");
    known(&mut seen.service)["spec"]["ports"][0]["targetPort"] = json!(9090);
    let done = decide(&seen, world.now);
    assert_eq!(
        op(&done, Kind::Service, "/spec/ports").unwrap()["value"],
        json!([{"name": "http", "port": 80, "targetPort": 9090}])
    );
    known(&mut seen.canary_service)["spec"]["selector"] = json!({"app": "else"});
    assert_eq!(whys_of(&decide(&seen, world.now), Kind::Service).len(), 1);
    seen.service = failed();
    assert_eq!(whys_of(&decide(&seen, world.now), Kind::Service), NONE);
}

fn rejections(world: &World) -> Vec<&Value> {
    let sets = world.objects.iter().filter(|((kind, _), _)| *kind == "ReplicaSet").map(|(_, set)| set);
    sets.filter_map(|set| set["metadata"]["annotations"].get(names::ANNOTATION_REJECTED)).collect()
}

#[test]
fn a_retry_takes_the_rejection_off_the_template() {
    let mut world = rolled_back("Hold");
    let verdict = world.status().current.unwrap().revert.unwrap();
    assert_eq!(rejections(&world), [&json!(format!("web-1: GateBreached: {}", verdict.message))]);
    world.faulty("v2", 0.0);
    world.command("retry web-1");
    world.reach((Step::Bake, 0));
    assert!(rejections(&world).is_empty(), "{}", world.describe());
}

fn canary_set(seen: &mut Observed) -> &mut Value {
    let mut sets = known(&mut seen.replica_sets).iter_mut();
    sets.find(|set| object::name(set).starts_with("web-canary-")).unwrap()
}

#[test]
fn a_verdict_that_is_remembered_is_not_written_over() {
    let world = reverting("Hold", (Step::RevertTarget, 1));
    let mut seen = world.seen("web");
    unmark(canary_set(&mut seen), names::ANNOTATION_REJECTED);
    assert_eq!(whys_of(&decide(&seen, world.now), Kind::ReplicaSet), ["remember the rejected template"]);
    let before = json!("web-0: GateBreached: as in the last release");
    canary_set(&mut seen)["metadata"]["annotations"][names::ANNOTATION_REJECTED] = before;
    // Something else keeps the release from being over.
    seen.routes[0].1 = failed();
    assert_eq!(whys_of(&decide(&seen, world.now), Kind::ReplicaSet), NONE);
}

#[test]
fn a_target_is_let_go_only_while_every_route_that_is_there_has_all_traffic_on_the_canary() {
    let world = at((Step::Bake, 2));
    let mut seen = world.seen("web");
    current(&mut seen).step = Step::Roll;
    let lets_go = |change: Change| {
        let mut seen = seen.clone();
        change(&mut seen);
        whys_of(&decide(&seen, world.now), Kind::Deployment).contains(&"let the target take the candidate over")
    };
    assert!(lets_go(|_| {}));
    assert!(lets_go(|seen| seen.routes[0].1 = Fetched::Missing));
    assert!(!lets_go(|seen| seen.routes[0].1 = failed()));
    assert!(!lets_go(|seen| weigh(seen, 2, &[("web", 500), ("web-canary", 500)])));
    assert!(!lets_go(|seen| weigh(seen, 1, &[("web", 1), ("web-canary", 999)])));
}

#[test]
fn an_override_is_taken_off_once_it_is_told_and_the_target_is_let_go() {
    let world = World::armed();
    for (outcome, paused, gone) in [
        ("Overridden", false, true),
        ("Overridden", true, false),
        ("Promoted", false, false),
        ("Promoted", true, false),
    ] {
        let done = world.decided(|seen| {
            status(seen).outcome = outcome.to_owned();
            target(seen)["spec"]["paused"] = json!(paused);
            overridden(target(seen), "it burns");
        });
        let path = format!("/metadata/annotations/{}", object::escape(names::ANNOTATION_OVERRIDE));
        let removed = op(&done, Kind::Deployment, &path).map(|operation| operation["op"].clone());
        assert_eq!(removed, gone.then(|| json!("remove")), "{outcome} {paused}");
    }
}

#[test]
fn an_override_from_before_we_came_is_taken_off_as_the_target_is_armed() {
    let done = World::armed().decided(|seen| {
        let metadata = &mut target(seen)["metadata"];
        metadata.as_object_mut().unwrap().remove("labels");
        metadata["annotations"][names::ANNOTATION_OVERRIDE] = json!("it burnt");
    });
    let path = format!("/metadata/annotations/{}", object::escape(names::ANNOTATION_OVERRIDE));
    assert_eq!(op(&done, Kind::Deployment, &path).unwrap()["op"], "remove");
}

#[test]
fn ownership_of_what_was_put_back_is_given_up_in_a_write_of_its_own() {
    let world = World::armed();
    let mut seen = world.seen("web");
    let owned = json!([{"manager": names::FIELD_MANAGER, "fieldsV1": {"f:spec": {}}}, {"manager": "kubectl"}]);
    route(&mut seen)["metadata"]["managedFields"] = owned.clone();
    target(&mut seen)["metadata"]["managedFields"] = owned;
    let give_up = "give up ownership of what was put back";
    let done = decide(&seen, world.now);
    assert_eq!(writes(&done), [(Kind::HttpRoute, "web", give_up), (Kind::Deployment, "web", give_up)]);
    for kind in [Kind::HttpRoute, Kind::Deployment] {
        assert_eq!(op(&done, kind, "/metadata/managedFields").unwrap()["value"], json!([{"manager": "kubectl"}]));
    }
    // Another write goes first.
    target(&mut seen)["metadata"]["annotations"][names::ANNOTATION_ROLLING] = json!("web-1");
    let arm = "arm the target, or end a hold that holds nothing";
    assert_eq!(writes(&decide(&seen, world.now)), [(Kind::Deployment, "web", arm)]);
}

#[test]
fn a_persons_own_pause_is_theirs_to_end() {
    let world = World::armed();
    let mut seen = world.seen("web");
    target(&mut seen)["spec"]["paused"] = json!(true);
    assert_eq!(writes(&decide(&seen, world.now)), []);
    target(&mut seen)["metadata"]["annotations"][names::ANNOTATION_CHANGED_BY] = json!(JANE);
    let done = decide(&seen, world.now);
    assert_eq!(op(&done, Kind::Deployment, "/spec/paused").unwrap()["op"], "remove");
}

#[test]
fn a_record_is_kept_under_the_name_it_must_have_whatever_the_status_says() {
    let world = World::armed();
    let name = world.status().hold.unwrap().serving_record;
    let mut seen = world.seen("web");
    status(&mut seen).hold.as_mut().unwrap().serving_record = "web-serving-another".to_owned();
    let done = decide(&seen, world.now);
    assert_eq!(writes(&done), []);
    assert_eq!(done.status.hold.unwrap().serving_record, name);
    seen.serving_records = Fetched::Known(Vec::new());
    let done = decide(&seen, world.now);
    assert_eq!(writes(&done), [(Kind::ControllerRevision, name.as_str(), "keep the serving version's template")]);
}
