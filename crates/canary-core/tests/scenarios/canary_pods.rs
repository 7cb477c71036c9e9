//! The canary's pods: when they are lost, too few, late or changed, whose fault that is, and what keeps them apart.

use std::time::Duration;

use canary_api::{Step, names};
use canary_core::{Decision, Effect, Fetched};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::world::{
    Place, Sight, World, assert_waits, back, brief, image, known, not_ready, release, reverted, step, stopped, told,
    unmark,
};

fn is_ready(pod: &mut Value) {
    pod["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
}

/// Its container is in this state, and not ready.
fn ails(pod: &mut Value, state: &Value) {
    not_ready(pod);
    pod["status"]["containerStatuses"] = json!([{"name": "app", "ready": false, "restartCount": 0, "state": state}]);
}

fn fails_its_probe(pod: &mut Value) {
    ails(pod, &json!({"running": {}}));
}

pub fn crashes(pod: &mut Value) {
    ails(pod, &json!({"waiting": {"reason": "CrashLoopBackOff"}}));
}

pub fn finds_no_node(pod: &mut Value) {
    pod["status"] = json!({"conditions": [
        {"type": "Ready", "status": "False"},
        {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"},
    ]});
}

const GONE: &str = "no pod of the canary is ready any more";

/// All of the canary's pods are like this, after they were lost so many times in the stage.
fn lost((step, stage): Place, flaps: u32, how: fn(&mut Value)) -> Decision {
    let sight = Sight::good((step, stage)).canary_pods(how);
    sight.changed(|current| current.flaps = flaps).decide()
}

/// The name of the first of the canary's pods.
fn first_pod(mut sight: Sight) -> String {
    known(&mut sight.seen.canary_pods)[0]["metadata"]["name"].as_str().unwrap().to_owned()
}

#[test]
fn pods_that_are_lost_in_a_stage_take_its_weight_three_times() {
    let name = first_pod(Sight::at((Step::Bake, 1)));
    let nodes = format!("pod {name}: 0/1 nodes are available");
    let probe =
        format!("pod {name}, container app: runs and is not ready: its readiness or startup probe does not pass");
    for (place, flaps, how, why) in [
        ((Step::Bake, 1), 0, not_ready as fn(&mut Value), GONE),
        ((Step::Bake, 1), 2, not_ready, GONE),
        ((Step::Bake, 1), 2, fails_its_probe, &probe),
        ((Step::Bake, 1), 2, finds_no_node, &nodes),
        ((Step::Shift, 1), 2, not_ready, GONE),
    ] {
        let done = lost(place, flaps, how);
        assert_eq!((step(&done), release(&done).flaps, stopped(&done)), (Step::Scale, flaps + 1, None));
        assert_eq!((release(&done).weight.as_str(), done.wake_after), ("0%", Some(Duration::from_millis(500))));
        let text = format!("{why}: traffic goes back to stable until the canary is ready again");
        assert_eq!(told(&done), [("CanaryNotReady", text.as_str())]);
    }
    // Before the next stage, where the weight of the one before stands.
    let next = lost((Step::Scale, 1), 0, not_ready);
    assert_eq!((step(&next), release(&next).flaps, release(&next).weight.as_str()), (Step::Scale, 1, "0%"));
}

#[test]
fn pods_that_are_lost_a_fourth_time_or_crash_end_the_stage_by_whose_fault_that_is() {
    let nodes = format!("pod {}: 0/1 nodes are available", first_pod(Sight::at((Step::Bake, 1))));
    for (how, why) in [(not_ready as fn(&mut Value), GONE), (finds_no_node, &nodes)] {
        let why = format!("the canary lost its ready pods 4 times in this stage: {why}");
        assert_eq!(stopped(&lost((Step::Bake, 1), 3, how)), Some(("NotReady", why.as_str(), true)));
    }
    for (done, cause) in [
        (lost((Step::Bake, 1), 3, fails_its_probe), ("ProbeFailing", "canary", true)),
        (lost((Step::Bake, 1), 0, crashes), ("CrashLoop", "canary", true)),
        (lost((Step::Roll, 2), 0, not_ready), ("NotReady", "canary", false)),
        (lost((Step::Roll, 2), 0, fails_its_probe), ("ProbeFailing", "canary", true)),
    ] {
        assert_eq!(reverted(&done), Some(cause));
    }
}

#[test]
fn before_the_first_weight_and_while_traffic_is_on_stable_no_pod_is_lost() {
    let none = |sight: Sight| sight.canary_pods(not_ready).decide();
    let first = none(Sight::good((Step::Scale, 0)));
    assert_eq!((step(&first), release(&first).flaps, told(&first)), (Step::Scale, 0, vec![]));
    let stands = none(Sight::good((Step::Bake, 1)).paused(true).changed(|current| current.weight = "0%".to_owned()));
    assert_eq!((step(&stands), release(&stands).flaps, told(&stands)), (Step::Bake, 0, vec![]));
    let later = none(Sight::good((Step::Scale, 1)).changed(|current| current.weight = "0%".to_owned()));
    assert_eq!((step(&later), release(&later).flaps, told(&later)), (Step::Scale, 0, vec![]));
}

#[test]
fn a_pod_that_came_after_the_weight_and_starts_is_no_fault_of_its_version() {
    let lost = |after: i64, how: fn(&mut Value)| {
        let sight = Sight::good((Step::Bake, 1)).changed(|current| current.flaps = 3);
        let created = sight.clone().current().window_since.clone().unwrap().0 + SignedDuration::from_secs(after);
        let made = |pod: &mut Value| {
            how(pod);
            pod["metadata"]["creationTimestamp"] = json!(created.to_string());
        };
        sight.canary_pods(made).decide()
    };
    assert_eq!(stopped(&lost(1, fails_its_probe)).unwrap().0, "NotReady");
    assert_eq!(reverted(&lost(0, fails_its_probe)), Some(("ProbeFailing", "canary", true)));
    assert_eq!(reverted(&lost(1, crashes)), Some(("CrashLoop", "canary", true)));
}

#[test]
fn too_few_ready_pods_are_borne_for_as_long_as_pods_may_take_to_become_ready() {
    let first = Sight::good((Step::Bake, 1)).short(0).changed(|current| current.short_since = None).decide();
    assert!(release(&first).short_since.is_some());
    assert_waits(&first, "1 of 2 canary pods are ready");
    let borne = Sight::good((Step::Bake, 1)).short(59_999);
    let before = borne.clone().current().short_since.clone();
    let done = borne.decide();
    assert_eq!((step(&done), stopped(&done), release(&done).short_since.clone()), (Step::Bake, None, before));
    let late = Sight::good((Step::Bake, 1)).short(60_000).decide();
    assert_eq!(stopped(&late), Some(("NotReady", "1 of 2 canary pods were ready within 1m", true)));
    let whole = Sight::good((Step::Bake, 1));
    let before = whole.ago(999_000);
    let done = whole.changed(|current| current.short_since = Some(before)).decide();
    assert_eq!((step(&done), stopped(&done), release(&done).short_since.clone()), (Step::Bake, None, None));
}

#[test]
fn a_target_that_was_let_go_needs_no_more_of_the_canarys_pods_than_one() {
    let let_go = |target: &mut Value| {
        target["spec"]["paused"] = json!(false);
        target["metadata"]["annotations"][names::ANNOTATION_ROLLING] = json!("web-1");
    };
    let held = |target: &mut Value| {
        target["spec"]["paused"] = json!(true);
        unmark(target, names::ANNOTATION_ROLLING);
    };
    let at = |place, target: fn(&mut Value)| Sight::good(place).short(99_000).target(target).decide();
    let done = at((Step::Roll, 2), let_go);
    assert_eq!((step(&done), stopped(&done), reverted(&done)), (Step::Roll, None, None));
    let why = "3 of 4 canary pods were ready within 1m";
    assert_eq!(stopped(&at((Step::Roll, 2), held)), Some(("NotReady", why, true)));
    assert_eq!(stopped(&at((Step::Bake, 2), let_go)), Some(("NotReady", why, true)));
}

/// The canary of the first stage was made so many seconds ago.
fn made(seconds: u64) -> Sight {
    let mut world = World::with_release(brief(), "v2", (Step::Scale, 0));
    world.run(seconds);
    Sight::of_brief(&world)
}

#[test]
fn pods_that_are_late_end_or_stop_the_release_by_what_keeps_them() {
    let late = |how: fn(&mut Value)| made(1).canary_pods(how).since(60_000);
    let name = first_pod(made(1));
    let done = late(fails_its_probe).decide();
    assert_eq!(reverted(&done), Some(("ProbeFailing", "canary", true)));
    let probe = "runs and is not ready: its readiness or startup probe does not pass";
    let message = format!("not ready within 1m: pod {name}, container app: {probe}");
    assert_eq!(back(&done).message, message);
    let quota = |canary: &mut Value| {
        canary["status"]["conditions"] =
            json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}]);
    };
    let nodes = format!("not ready within 1m: pod {name}: 0/1 nodes are available");
    let created = "the canary's pods could not be created: FailedCreate";
    for (sight, cause) in [
        (late(finds_no_node), ("Unschedulable", nodes.as_str(), true)),
        (late(not_ready), ("NotReady", "0 of 1 canary pods were ready within 1m", true)),
        (late(not_ready).canary(quota), ("QuotaExceeded", created, true)),
    ] {
        assert_eq!(stopped(&sight.decide()), Some(cause));
        assert_eq!(stopped(&sight.clone().since(59_999).decide()), None);
        assert_eq!(stopped(&sight.paused(false).decide()), Some(("Command", "user jane", false)));
    }
}

#[test]
fn pods_that_are_ready_or_were_not_asked_for_are_not_late() {
    let ready = made(1).canary_pods(is_ready).since(99_000);
    let before = ready.clone().current().step_since.clone();
    let done = ready.decide();
    assert_waits(&done, "1 of 1 canary pods are ready; the deadline is 1m after the step began");
    assert_eq!((step(&done), stopped(&done), release(&done).step_since.clone()), (Step::Scale, None, before));
    let fewer = |canary: &mut Value| canary["spec"]["replicas"] = json!(0);
    let anothers = |canary: &mut Value| canary["metadata"]["annotations"][names::ANNOTATION_MADE_FOR] = json!("web-0");
    for change in [fewer as fn(&mut Value), anothers] {
        let sight = made(1).canary_pods(not_ready).canary(change).since(99_000);
        let done = sight.decide();
        assert_eq!((step(&done), stopped(&done), release(&done).revert.is_none()), (Step::Scale, None, true));
        assert!(release(&done).step_since.as_ref().unwrap().0 >= sight.now, "its time begins anew");
    }
}

#[test]
fn a_changed_canary_is_put_right_three_times_in_a_stage_and_then_stops_it() {
    let changed = |sight: Sight, flaps| {
        let sight = sight.gauge(1.0, 0).canary(|canary| image(canary, "web:v9"));
        sight.changed(|current| current.flaps = flaps).decide()
    };
    let why = "someone changed the template of Deployment web-canary, which is the canary's";
    for place in [(Step::Scale, 1), (Step::Shift, 1), (Step::Bake, 1)] {
        for flaps in [0, 2] {
            let done = changed(Sight::at(place), flaps);
            assert_eq!((step(&done), release(&done).flaps, stopped(&done)), (Step::Scale, flaps + 1, None));
            assert_eq!(release(&done).weight, "0%");
            let text = format!(
                "{why}: it is put right, and traffic goes back to stable until the candidate's pods are ready again"
            );
            assert_eq!(told(&done), [("CanaryChanged", text.as_str())]);
        }
        let done = changed(Sight::at(place), 3);
        assert_eq!(stopped(&done), Some(("CanaryChanged", format!("{why}, 4 times in this stage").as_str(), true)));
    }
    for sight in [made(1), Sight::at((Step::Roll, 2))] {
        assert_eq!(told(&changed(sight, 3)), []);
    }
    let untouched = Sight::good((Step::Bake, 1)).decide();
    assert_eq!((step(&untouched), told(&untouched)), (Step::Bake, vec![]));
}

#[test]
fn the_most_pods_that_the_target_wanted_are_kept_until_it_rolls() {
    let scaled = |place, pods| {
        let sight = Sight::good(place).target(|target| target["spec"]["replicas"] = json!(pods));
        let done = sight.decide();
        (release(&done).target_pods, release(&done).canary_pods)
    };
    let cases = [
        ((Step::Baseline, 0), (8, 0)),
        ((Step::Scale, 1), (8, 4)),
        ((Step::Shift, 1), (8, 4)),
        ((Step::Bake, 1), (8, 4)),
    ];
    for (place, counted) in cases {
        assert_eq!(scaled(place, 8), counted, "{place:?}");
    }
    assert_eq!((scaled((Step::Bake, 1), 2), scaled((Step::Roll, 2), 8)), ((4, 2), (4, 4)));
}

#[test]
fn labels_that_keep_the_canary_apart_are_chosen_where_the_status_has_none() {
    let first = || Sight::at((Step::Scale, 0)).seeing(|seen| seen.canary = Fetched::Missing);
    let unlabelled = || first().changed(|current| current.canary_labels.clear());
    let made = |sight: &Sight| {
        let effects = sight.decide().effects;
        let of_canary = |effect: &&Effect| effect.kind().as_str() == "Deployment" && effect.name() == "web-canary";
        effects.iter().find(of_canary).cloned()
    };
    for sight in [first(), unlabelled()] {
        let Some(Effect::Create { object, .. }) = made(&sight) else { panic!("the canary is made") };
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        assert_eq!((&labels["app"], &labels["team"]), (&json!("web-canary"), &json!("shop")));
    }
    let no_service = unlabelled().seeing(|seen| seen.service = Fetched::Missing);
    assert_eq!(made(&no_service), None);
    let no_selector = unlabelled().seeing(|seen| known(&mut seen.service)["spec"]["selector"] = json!({}));
    assert_eq!(made(&no_selector), None);
    assert_waits(&no_selector.decide(), "Service web has no selector, so nothing tells the canary's pods apart");
}
