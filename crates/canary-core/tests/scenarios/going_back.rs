//! The way back of the traffic: who carries it meanwhile, what each step waits for, and how long the canary's pods stay.

use std::time::Duration;

use canary_api::{RevertStatus, Step, names};
use canary_core::{Decision, Effect, Fetched, Kind, Observed, decide, object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{
    changes::reverting,
    world::{
        Change, Sight, World, assert_waits, back, current, failed, image, known, release, revert, route, step, target,
    },
};

/// What a route gives the canary and the baseline pods, of a hundred.
fn give(route: &mut Value, canary: u64, baseline: Option<u64>) {
    for rule in [0, 1] {
        let entry = |name: &str, weight: u64| json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight});
        let mut entries = vec![entry("web", 100 - canary - baseline.unwrap_or(0)), entry("web-canary", canary)];
        entries.extend(baseline.map(|weight| entry("web-baseline", weight)));
        route["spec"]["rules"][rule]["backendRefs"] = json!(entries);
    }
}

/// A target that rolls, as the tick after a breach sees it; of the version before no pod is ready any more.
fn rolled() -> Sight {
    let mut sight = Sight::of(&World::with_release(json!({}), "v2", (Step::Roll, 2)));
    let at = Time(sight.now);
    let release = sight.current();
    release.step = Step::Revert;
    release.step_since = Some(at.clone());
    release.revert = Some(RevertStatus {
        at,
        by: "gate errors".to_owned(),
        clear_at: None,
        message: "why".to_owned(),
        outcome: "RolledBack".to_owned(),
        reason: "GateBreached".to_owned(),
        rejects: true,
        rolled: true,
        stage: "3/3".to_owned(),
    });
    ready(&mut sight.seen, "web:v1", 0);
    sight
}

fn hold(seen: &mut Observed) {
    target(seen)["spec"]["paused"] = json!(true);
}

/// So many pods of a version are ready in the target's ReplicaSet.
fn ready(seen: &mut Observed, of: &str, pods: i64) {
    let uid = object::uid(target(seen)).to_owned();
    for set in known(&mut seen.replica_sets).iter_mut().filter(|set| object::controlled_by(set, &uid)) {
        if set["spec"]["template"]["spec"]["containers"][0]["image"] == of {
            set["status"]["readyReplicas"] = json!(pods);
        }
    }
}

fn weight(sight: &Sight) -> String {
    release(&sight.decide()).weight.clone()
}

#[test]
fn where_the_target_has_rolled_the_canary_keeps_what_ready_serving_pods_can_not_carry() {
    let mut look = rolled();
    for (pods, expected) in [(0, "100%"), (1, "75%"), (2, "50%"), (3, "25%"), (4, "0%"), (9, "0%")] {
        ready(&mut look.seen, "web:v1", pods);
        assert_eq!(weight(&look), expected, "{pods} ready");
    }
    ready(&mut look.seen, "web:v1", 1);
    ready(&mut look.seen, "web:v2", 3);
    assert_eq!(weight(&look), "75%", "pods of the candidate carry nothing");
    let served = look.current().stable.replica_set.clone();
    let sets = known(&mut look.seen.replica_sets);
    let mut restarted = sets.iter().find(|set| object::name(set) == served).unwrap().clone();
    restarted["metadata"]["name"] = json!("web-restarted");
    restarted["spec"]["template"]["metadata"]["annotations"][names::ANNOTATION_RESTARTED_AT] = json!("1");
    sets.push(restarted);
    assert_eq!(weight(&look), "50%", "a restart is the same version");
    look.current().stable.replica_set = "gone".to_owned();
    assert_eq!(weight(&look), "100%", "a ReplicaSet that is gone has no pods");
}

#[test]
fn all_traffic_goes_to_stable_where_the_canary_can_not_or_need_not_carry_it() {
    let cases: [(&str, &str, Change); 17] = [
        ("nothing of it", "100%", |_| {}),
        ("the target did not roll", "0%", |seen| revert(seen).rolled = false),
        ("the target is gone", "0%", |seen| seen.target = Fetched::Missing),
        ("the target can't be read", "0%", |seen| seen.target = failed()),
        ("the target is another", "0%", |seen| target(seen)["metadata"]["uid"] = json!("another")),
        ("the target has no pods", "0%", |seen| target(seen)["spec"]["replicas"] = json!(0)),
        ("the canary has no pods", "0%", |seen| seen.canary_pods = Fetched::Known(Vec::new())),
        ("no pod of the canary is ready", "0%", |seen| {
            known(&mut seen.canary_pods).iter_mut().for_each(|pod| pod["status"]["conditions"] = json!([]));
        }),
        ("one pod of the canary is ready", "100%", |seen| {
            known(&mut seen.canary_pods).iter_mut().skip(1).for_each(|pod| pod["status"]["conditions"] = json!([]));
        }),
        ("the canary's pods can't be read", "100%", |seen| seen.canary_pods = failed()),
        ("the target is restored", "0%", |seen| restored(target(seen), "web:v1", 4)),
        ("the target is restored in part", "100%", |seen| restored(target(seen), "web:v1", 3)),
        ("the target runs another version", "100%", |seen| restored(target(seen), "web:v3", 4)),
        ("less was asked for", "30%", |seen| current(seen).weight = "30%".to_owned()),
        ("nothing was asked for", "0%", |seen| current(seen).weight = "0%".to_owned()),
        ("the ReplicaSets can't be read", "100%", |seen| seen.replica_sets = failed()),
        ("the release has no target's pods on record", "100%", |seen| current(seen).target_pods = 0),
    ];
    let found = rolled();
    for (what, expected, change) in cases {
        assert_eq!(weight(&found.clone().seeing(change)), expected, "{what}");
    }
}

/// Gives the target a template that so many of its four pods run.
fn restored(target: &mut Value, version: &str, pods: i64) {
    image(target, version);
    target["status"]["observedGeneration"] = target["metadata"]["generation"].clone();
    for field in ["replicas", "updatedReplicas", "availableReplicas"] {
        target["status"][field] = json!(4);
    }
    target["status"]["availableReplicas"] = json!(pods);
}

#[test]
fn a_revert_raises_no_weight_above_what_a_route_gives() {
    let found = rolled();
    let given = |change: Change| weight(&found.clone().seeing(change));
    assert_eq!(given(|seen| give(route(seen), 30, None)), "30%");
    assert_eq!(given(|seen| give(route(seen), 0, None)), "0%");
    assert_eq!(given(|seen| *route(seen) = World::bare().route().clone()), "0%", "a plain route");
    assert_eq!(given(|seen| seen.routes[0].1 = Fetched::Missing), "0%");
    assert_eq!(given(|seen| seen.routes[0].1 = failed()), "100%");
    assert_eq!(given(|seen| seen.routes.clear()), "100%");
    let uneven = |seen: &mut Observed| {
        give(route(seen), 30, None);
        route(seen)["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(70);
    };
    assert_eq!(given(uneven), "50%", "the largest share of a rule");
    let foreign = |seen: &mut Observed| {
        let mut other = route(seen)["spec"]["rules"][0]["backendRefs"][0].clone();
        other["name"] = json!("other");
        route(seen)["spec"]["rules"][0]["backendRefs"].as_array_mut().unwrap().push(other);
    };
    assert_eq!(given(foreign), "100%", "what others added to a route is not known to be less");
    let beside = |seen: &mut Observed| {
        give(route(seen), 20, Some(30));
        route(seen)["metadata"]["annotations"][names::ANNOTATION_SPLIT] = json!("web/web-canary/web-baseline");
    };
    assert_eq!(given(beside), "20%", "baseline pods' share is not the canary's");
    let two = |seen: &mut Observed| {
        let mut second = seen.routes[0].clone();
        give(route(seen), 30, None);
        give(known(&mut second.1), 40, None);
        seen.routes.push(second);
    };
    assert_eq!(given(two), "40%");
}

#[test]
fn a_target_that_was_not_let_go_is_written_after_the_route_and_one_that_rolls_waits_for_no_route() {
    let written = |done: &Decision| -> Vec<Kind> {
        done.effects.iter().filter(|effect| effect.name() == "web").map(Effect::kind).collect()
    };
    for (what, change, expected) in [
        ("held", hold as Change, vec![Kind::HttpRoute, Kind::Deployment]),
        (
            "held, and the route can't be read",
            |seen| {
                hold(seen);
                seen.routes[0].1 = failed();
            },
            vec![],
        ),
        ("it rolls", |_| {}, vec![Kind::HttpRoute, Kind::Deployment]),
        ("it rolls, and the route can't be read", |seen| seen.routes[0].1 = failed(), vec![Kind::Deployment]),
    ] {
        let done = rolled().route(|route| give(route, 100, None)).decided(change);
        assert_eq!(written(&done), expected, "{what}");
    }
}

#[test]
fn traffic_is_on_stable_once_the_target_that_rolled_runs_the_serving_version_again() {
    let waiting = "; Deployment web goes back to the serving version";
    let given = rolled().route(|route| {
        route["metadata"]["annotations"][names::ANNOTATION_BREACHED] = json!("web-1: why");
        give(route, 0, None);
        for rule in [0, 1] {
            route["spec"]["rules"][rule]["backendRefs"][0]["weight"] = json!(1000);
        }
    });
    for (what, expected, change) in [
        ("it rolls", Step::Revert, (|_| {}) as Change),
        ("it can't be read", Step::Revert, |seen| seen.target = failed()),
        ("in part", Step::Revert, |seen| restored(target(seen), "web:v1", 3)),
        ("it runs the candidate", Step::Revert, |seen| restored(target(seen), "web:v2", 4)),
        ("it runs the serving version", Step::RevertDrain, |seen| restored(target(seen), "web:v1", 4)),
        ("it is gone", Step::RevertDrain, |seen| seen.target = Fetched::Missing),
        ("it is another", Step::RevertDrain, |seen| target(seen)["metadata"]["uid"] = json!("another")),
        ("it did not roll", Step::RevertDrain, |seen| revert(seen).rolled = false),
    ] {
        let done = given.decided(change);
        assert_eq!(step(&done), expected, "{what}: {}", done.status.message);
        assert_eq!(back(&done).clear_at.is_some(), expected == Step::RevertDrain, "{what}");
        assert_eq!(done.status.message.ends_with(waiting), expected == Step::Revert, "{what}: {}", done.status.message);
    }
}

#[test]
fn a_gateway_that_does_not_answer_keeps_nobody_from_cleaning_up_for_longer_than_half_a_minute() {
    let world = reverting("Hold", (Step::Revert, 1));
    let mut seen = world.seen("web");
    let begun = current(&mut seen).step_since.clone().unwrap().0;
    for (milliseconds, expected) in [(0, Step::Revert), (30_000, Step::Revert), (30_001, Step::RevertDrain)] {
        let done = decide(&seen, begun + Duration::from_millis(milliseconds));
        assert_eq!(step(&done), expected, "after {milliseconds} ms: {}", done.status.message);
    }
    // One that does not have the weight is waited for.
    let mut unwritten = seen.clone();
    give(route(&mut unwritten), 50, None);
    let done = decide(&unwritten, begun + Duration::from_secs(31));
    assert_eq!(step(&done), Step::Revert);
    assert_waits(&done, "HTTPRoute web does not have weight 0/1000 yet");
    // One that a hand made plain is written all the same, so that a write of before can't come after.
    *route(&mut seen) = World::bare().route().clone();
    let done = decide(&seen, begun + Duration::from_secs(31));
    assert_eq!((step(&done), done.wake_after), (Step::Revert, Some(Duration::from_millis(500))));
    assert_waits(&done, "the routes are written, so that no write of before comes after");
    assert!(done.effects.iter().any(Effect::gives_traffic_back), "{:?}", done.effects);
}

#[test]
fn the_canary_keeps_its_pods_for_exactly_as_long_as_its_requests_may_take() {
    let world = reverting("Hold", (Step::RevertDrain, 1));
    let mut seen = world.seen("web");
    let begun = current(&mut seen).step_since.clone().unwrap().0;
    for (milliseconds, wake) in [(0, 500), (9_500, 500), (9_800, 200), (9_999, 1)] {
        let done = decide(&seen, begun + Duration::from_millis(milliseconds));
        assert_eq!((step(&done), done.wake_after), (Step::RevertDrain, Some(Duration::from_millis(wake))));
        assert_waits(&done, "the canary's requests end (10s)");
    }
    let done = decide(&seen, begun + Duration::from_secs(10));
    assert_eq!((step(&done), done.wake_after), (Step::RevertTarget, Some(Duration::ZERO)));
    assert_eq!(done.status.current.unwrap().canary_pods, 0);
    give(route(&mut seen), 50, None);
    let done = decide(&seen, begun + Duration::from_secs(10));
    assert_eq!(step(&done), Step::RevertDrain, "weight that came back is drained anew");
    assert_eq!(done.status.current.unwrap().step_since, Some(Time(begun + Duration::from_secs(10))));
}

#[test]
fn pods_that_are_kept_drain_again_where_a_route_gave_them_weight() {
    let weighted = World::with_release(json!({}), "v2", (Step::Bake, 1)).route().clone();
    let world = reverting("Hold", (Step::RevertTarget, 1));
    for (pods, back, expected) in [
        (1, true, Step::RevertDrain),
        (2, true, Step::RevertDrain),
        (0, true, Step::RevertTarget),
        (1, false, Step::RevertTarget),
    ] {
        let done = world.decided(|seen| {
            known(&mut seen.canary)["spec"]["replicas"] = json!(pods);
            if back {
                *route(seen) = weighted.clone();
            }
        });
        let half = Some(Duration::from_millis(500));
        assert_eq!((step(&done), done.wake_after), (expected, half), "{pods} pods, {back}: {}", done.status.message);
        let said = "; a route gave the canary weight again: its requests have to end once more";
        assert_eq!(done.status.message.ends_with(said), expected == Step::RevertDrain, "{}", done.status.message);
    }
}
