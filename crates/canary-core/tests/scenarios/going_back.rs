//! The way back, tick by tick: why a release is reverted and how a route remembers it, who carries the traffic
//! meanwhile, what each step waits for, and what is written back at its end.

use std::time::Duration;

use canary_api::{JobState, OnRevert, ReleaseStatus, RevertStatus, Step, names};
use canary_core::{Decision, Effect, Fetched, Observed, decide, object};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{
    changes::reverting,
    world::{JANE, JobFate, World},
};

const NO_CONTROL: &str = "; no stable side had traffic to compare with";

/// The release as a tick finds it in the status, to be changed.
pub fn current(seen: &mut Observed) -> &mut ReleaseStatus {
    seen.release.status.as_mut().unwrap().current.as_mut().unwrap()
}

fn revert(seen: &mut Observed) -> &mut RevertStatus {
    current(seen).revert.as_mut().unwrap()
}

/// An object that was read, to be changed.
pub fn known(fetched: &mut Fetched<Value>) -> &mut Value {
    match fetched {
        Fetched::Known(object) => object,
        other => panic!("{other:?}"),
    }
}

fn all(fetched: &mut Fetched<Vec<Value>>) -> &mut Vec<Value> {
    match fetched {
        Fetched::Known(objects) => objects,
        other => panic!("{other:?}"),
    }
}

pub fn image(object: &mut Value, image: &str) {
    object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
}

pub fn step(done: &Decision) -> Step {
    done.status.current.as_ref().unwrap().step
}

/// Why a revert began: reason, by whom, outcome, whether the template is rejected.
type Cause = Option<(String, String, String, bool)>;

fn cause(done: &Decision) -> Cause {
    let revert = done.status.current.clone()?.revert?;
    Some((revert.reason, revert.by, revert.outcome, revert.rejects))
}

fn caused(reason: &str, by: &str, outcome: &str, rejects: bool) -> Cause {
    Some((reason.to_owned(), by.to_owned(), outcome.to_owned(), rejects))
}

/// Whether the serving version's template is written back.
fn writes_back(done: &Decision) -> bool {
    done.effects.iter().any(|effect| effect.why() == "write the serving version's template back")
}

/// What a patch of the decision writes at a path.
pub fn written<'a>(done: &'a Decision, name: &str, path: &str) -> Option<&'a Value> {
    done.effects.iter().find_map(|effect| match effect {
        Effect::Patch { name: of, patch, .. } if of == name => {
            patch.as_array()?.iter().find(|one| one["path"] == path && one["op"] != "test")?.get("value")
        }
        _ => None,
    })
}

fn commanded(seen: &mut Observed, text: &str) {
    let annotations = seen.release.metadata.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_COMMAND.to_owned(), text.to_owned());
    annotations.insert(names::ANNOTATION_COMMAND_BY.to_owned(), JANE.to_owned());
}

/// What a route gives the canary and the baseline pods, of a hundred.
fn give(route: &mut Value, canary: u64, baseline: Option<u64>) {
    for rule in [0, 1] {
        let entry = |name: &str, weight: u64| json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight});
        let mut entries = vec![entry("web", 100 - canary - baseline.unwrap_or(0)), entry("web-canary", canary)];
        entries.extend(baseline.map(|weight| entry("web-baseline", weight)));
        route["spec"]["rules"][rule]["backendRefs"] = json!(entries);
    }
}

fn route(seen: &mut Observed) -> &mut Value {
    known(&mut seen.routes[0].1)
}

fn remembers(world: &World) -> &str {
    object::annotation(world.route(), names::ANNOTATION_BREACHED).unwrap_or_default()
}

#[test]
fn a_breach_says_where_it_was_and_the_route_remembers_it() {
    for (place, reason, at) in [
        ((Step::Bake, 1), "GateBreached", ", at stage 2/3 ("),
        ((Step::Bake, 2), "BreachWithoutControl", ", at stage 3/3 ("),
        ((Step::Soak, 2), "GateBreached", ", at the soak after promotion ("),
    ] {
        let mut world = World::with_release(json!({"soak": "60s"}), "v2", place);
        world.faulty("v2", 0.5);
        world.until("it is reverted", |world| world.place().0 == Step::Revert);
        let revert = world.status().current.unwrap().revert.unwrap();
        assert_eq!((revert.reason.as_str(), revert.by.as_str()), (reason, "gate errors"), "{place:?}");
        let message = &revert.message;
        assert!(message.starts_with("gate errors: ") && message.contains(at), "{message}");
        assert_eq!(message.ends_with(NO_CONTROL), reason == "BreachWithoutControl", "{message}");
        assert_eq!(revert.rolled, place.0 == Step::Soak);
        assert_eq!(remembers(&world), format!("web-1: {message}"));
        let told = format!(" Reverting: {message}; traffic goes back to stable");
        assert!(world.notes.iter().any(|note| note.ends_with(&told)), "{}", world.describe());
    }
}

#[test]
fn a_route_remembers_a_failed_job_whole_and_of_a_command_only_that_the_release_is_taken_back() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.command("abort");
    world.until("it is reverted", |world| world.place().0 == Step::Revert);
    assert_eq!(remembers(&world), "web-1 is taken back");

    let mut world =
        World::new(json!({"jobs": [{"name": "smoke", "cronJob": "smoke", "at": "Stage", "deadline": "2m"}]}));
    world.cron_job("smoke", JobFate::Fails(5));
    world.arm();
    world.apply("v2").unwrap();
    world.until("it is reverted", |world| world.place().0 == Step::Revert);
    let message = world.status().current.unwrap().revert.unwrap().message;
    assert!(message.starts_with("job smoke at stage 1/3 failed: "), "{message}");
    assert_eq!(remembers(&world), format!("web-1: {message}"));

    let mut seen = world.seen("web");
    revert(&mut seen).message = "é".repeat(600);
    let done = decide(&seen, world.now);
    let mark = written(&done, "web", "/metadata/annotations/canaryrelease.dev~1breached").unwrap().as_str().unwrap();
    assert_eq!((mark.chars().count(), mark.starts_with("web-1: éé")), (500, true));
}

#[test]
fn a_breach_that_a_route_remembers_of_this_release_reverts_it() {
    let world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    let blind = format!("gate errors: 50%{NO_CONTROL}");
    let (gate, job) = ("gate remembered by the route", "job remembered by the route");
    for (text, expected) in [
        ("gate errors: 50%", caused("GateBreached", gate, "RolledBack", true)),
        (&blind, caused("BreachWithoutControl", gate, "RolledBack", true)),
        ("job smoke at stage 1/3 failed", caused("JobFailed", job, "RolledBack", true)),
    ] {
        let mut seen = world.seen("web");
        route(&mut seen)["metadata"]["annotations"][names::ANNOTATION_BREACHED] = json!(format!("web-1: {text}"));
        let done = decide(&seen, world.now);
        assert_eq!((step(&done), cause(&done)), (Step::Revert, expected), "{text}");
        assert_eq!(done.status.current.unwrap().revert.unwrap().message, text);
    }
    for other in ["web-1 is taken back", "web-2: gate errors: 50%", "web-10: gate errors: 50%", "gate errors"] {
        let mut seen = world.seen("web");
        route(&mut seen)["metadata"]["annotations"][names::ANNOTATION_BREACHED] = json!(other);
        assert_eq!(cause(&decide(&seen, world.now)), None, "{other}");
    }
}

#[test]
fn what_others_do_to_the_target_ends_a_release_and_is_said_with_who_did_it() {
    type Edit = fn(&mut Observed);
    let burns = |object: &mut Value| {
        let metadata = &mut object["metadata"]["annotations"];
        metadata[names::ANNOTATION_OVERRIDE] = json!("the shop burns");
        metadata[names::ANNOTATION_OVERRIDE_BY] = json!(JANE);
    };
    let (jane, target) = ("user jane", "target");
    let superseded = || caused("Superseded", jane, "Superseded", false);
    let world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    let cases: [(&str, Cause, Edit); 5] = [
        ("a newer template was written by jane", superseded(), |seen| image(known(&mut seen.target), "web:v3")),
        ("the serving version's template was written back by jane", superseded(), |seen| {
            image(known(&mut seen.target), "web:v1");
        }),
        ("Deployment web was deleted", caused("TargetDeleted", target, "Aborted", false), |seen| {
            seen.target = Fetched::Missing;
        }),
        ("Deployment web was deleted and created again", caused("TargetReplaced", target, "Aborted", false), |seen| {
            known(&mut seen.target)["metadata"]["uid"] = json!("another");
        }),
        (
            "Deployment web was scaled to zero during the release: the serving version's template is written back, so that it is what comes back",
            caused("ScaledToZero", target, "Aborted", false),
            |seen| known(&mut seen.target)["spec"]["replicas"] = json!(0),
        ),
    ];
    for (message, expected, edit) in cases {
        let mut seen = world.seen("web");
        edit(&mut seen);
        let done = decide(&seen, world.now);
        assert_eq!(cause(&done), expected, "{message}");
        assert_eq!(done.status.current.unwrap().revert.unwrap().message, message);
    }
    for of_route in [false, true] {
        let mut seen = world.seen("web");
        burns(if of_route { route(&mut seen) } else { known(&mut seen.target) });
        let done = decide(&seen, world.now);
        assert_eq!(cause(&done), caused("Overridden", jane, "Overridden", of_route));
        assert_eq!(done.status.current.unwrap().revert.unwrap().message, "jane overrode the hold: the shop burns");
    }
}

/// What a tick sees of a release at its second stage whose status is lost but for this.
fn lost(world: &World, last: Option<ReleaseStatus>) -> Observed {
    let mut seen = world.seen("web");
    let status = seen.release.status.as_mut().unwrap();
    status.current = last;
    status.outcome = "Promoted".to_owned();
    seen
}

/// A release that is over, by number.
fn last(number: i64) -> Option<ReleaseStatus> {
    Some(ReleaseStatus { number, step: Step::Done, id: format!("web-{number}"), ..ReleaseStatus::default() })
}

#[test]
fn a_release_that_the_status_does_not_know_is_read_off_its_canary() {
    let world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    let before = world.status().current.unwrap();
    let done = decide(&lost(&world, None), world.now);
    assert_eq!(cause(&done), caused("StatusLost", "status", "Aborted", false));
    assert_eq!(done.status.outcome, "");
    let back = done.status.current.unwrap();
    assert_eq!((back.step, back.id.as_str(), back.number, back.split), (Step::Revert, "web-1", 1, true));
    assert_eq!(back.candidate.images, ["web:v2"]);
    assert_eq!((back.canary_pods, back.started), (2, Some(Time(world.now))));
    assert_eq!(back.canary_labels, before.canary_labels);
    assert_eq!(back.revert.unwrap().message, "the status no longer tells of web-1, which has pods");
}

#[test]
fn the_number_of_an_unknown_release_is_the_canarys_or_else_the_last_ones() {
    let world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    for (mark, before, id) in [
        ("web-7", None, "web-7"),
        ("web-7", last(3), "web-7"),
        ("web-x", last(3), "web-3"),
        ("other-7", last(3), "web-3"),
        ("web-7-8", None, "web-1"),
        ("", None, "web-1"),
    ] {
        let mut seen = lost(&world, before);
        known(&mut seen.canary)["metadata"]["annotations"][names::ANNOTATION_MADE_FOR] = json!(mark);
        assert_eq!(decide(&seen, world.now).status.current.unwrap().id, id, "{mark}");
    }
}

#[test]
fn pods_of_a_release_that_is_over_are_its_own_unless_they_have_weight_and_none_are_no_release() {
    let world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    let plain = World::bare().route().clone();
    for (before, weighted, pods, taken_back) in [
        (last(1), true, 2, true),
        (last(1), false, 2, false),
        (last(2), false, 2, false),
        (last(2), true, 2, true),
        (last(0), false, 2, true),
        (None, false, 2, true),
        (None, true, 1, true),
        (None, true, 0, false),
    ] {
        let what = format!("{before:?}, weighted {weighted}, {pods} pods");
        let mut seen = lost(&world, before);
        known(&mut seen.canary)["spec"]["replicas"] = json!(pods);
        if !weighted {
            *route(&mut seen) = plain.clone();
        }
        // Nothing else may begin.
        seen.rivals = Fetched::Failed("timeout".to_owned());
        let begun = decide(&seen, world.now).status.current.is_some_and(|current| current.step == Step::Revert);
        assert_eq!(begun, taken_back, "{what}");
    }
}

#[test]
fn a_release_has_rolled_from_the_roll_on_unless_it_is_overridden_or_the_target_is_another() {
    for (place, rolled) in [
        ((Step::Baseline, 0), false),
        ((Step::Bake, 2), false),
        ((Step::Roll, 2), true),
        ((Step::HandBack, 2), true),
        ((Step::Drain, 2), true),
        ((Step::Soak, 2), true),
    ] {
        let world = World::with_release(json!({"soak": "60s"}), "v2", place);
        let mut seen = world.seen("web");
        commanded(&mut seen, "abort");
        let done = decide(&seen, world.now);
        assert_eq!(cause(&done), caused("Command", "user jane", "Aborted", true), "{place:?}");
        let begun = done.status.current.unwrap().revert.unwrap();
        assert_eq!((begun.rolled, begun.message.as_str()), (rolled, "aborted by jane"), "{place:?}");
        assert_eq!((begun.stage, done.wake_after), (format!("{}/3", place.1 + 1), Some(Duration::ZERO)));

        known(&mut seen.target)["metadata"]["uid"] = json!("another");
        assert!(!decide(&seen, world.now).status.current.unwrap().revert.unwrap().rolled, "{place:?}: another target");
        seen.target = Fetched::Missing;
        assert!(!decide(&seen, world.now).status.current.unwrap().revert.unwrap().rolled, "{place:?}: no target");
        seen.target = Fetched::Failed("timeout".to_owned());
        let begun = decide(&seen, world.now).status.current.unwrap().revert.unwrap();
        assert_eq!(begun.rolled, rolled, "{place:?}: a target that can't be read is taken to be the same");

        let mut seen = world.seen("web");
        known(&mut seen.target)["metadata"]["annotations"][names::ANNOTATION_OVERRIDE] = json!("the shop burns");
        let done = decide(&seen, world.now);
        assert_eq!(cause(&done), caused("Overridden", "user someone unknown", "Overridden", false), "{place:?}");
        assert!(!done.status.current.unwrap().revert.unwrap().rolled, "{place:?}: overridden");
    }
}

#[test]
fn a_revert_ends_a_pause_and_leaves_the_jobs_that_run() {
    let mut world =
        World::new(json!({"jobs": [{"name": "smoke", "cronJob": "smoke", "at": "Stage", "deadline": "2m"}]}));
    world.cron_job("smoke", JobFate::Hangs);
    world.arm();
    world.apply("v2").unwrap();
    world.reach((Step::Bake, 0));
    world.run(3);
    world.command("pause web-1");
    world.run(3);
    let mut seen = world.seen("web");
    assert!(current(&mut seen).paused.is_some());
    seen.release.metadata.annotations = None;
    commanded(&mut seen, "abort");
    let back = decide(&seen, world.now).status.current.unwrap();
    assert_eq!(back.paused, None);
    assert_eq!((back.jobs[0].state, back.jobs[0].message.as_str()), (JobState::Unfinished, "the release was reverted"));
}

/// A target that rolls, as the tick after a breach sees it; of the version before no pod is ready any more.
fn rolled() -> (Observed, Timestamp) {
    let world = World::with_release(json!({}), "v2", (Step::Roll, 2));
    let mut seen = world.seen("web");
    let at = Time(world.now);
    let release = current(&mut seen);
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
    ready(&mut seen, "web:v1", 0);
    (seen, world.now)
}

/// So many pods of a version are ready in the target's ReplicaSet.
fn ready(seen: &mut Observed, of: &str, pods: i64) {
    let uid = object::uid(known(&mut seen.target)).to_owned();
    for set in all(&mut seen.replica_sets).iter_mut().filter(|set| object::controlled_by(set, &uid)) {
        if set["spec"]["template"]["spec"]["containers"][0]["image"] == of {
            set["status"]["readyReplicas"] = json!(pods);
        }
    }
}

fn weight((seen, now): &(Observed, Timestamp)) -> String {
    decide(seen, *now).status.current.unwrap().weight
}

#[test]
fn where_the_target_has_rolled_the_canary_keeps_what_ready_serving_pods_can_not_carry() {
    let mut look = rolled();
    for (pods, expected) in [(0, "100%"), (1, "75%"), (2, "50%"), (3, "25%"), (4, "0%"), (9, "0%")] {
        ready(&mut look.0, "web:v1", pods);
        assert_eq!(weight(&look), expected, "{pods} ready");
    }
    ready(&mut look.0, "web:v1", 1);
    ready(&mut look.0, "web:v2", 3);
    assert_eq!(weight(&look), "75%", "pods of the candidate carry nothing");
    let served = current(&mut look.0).stable.replica_set.clone();
    let sets = all(&mut look.0.replica_sets);
    let mut restarted = sets.iter().find(|set| object::name(set) == served).unwrap().clone();
    restarted["metadata"]["name"] = json!("web-restarted");
    restarted["spec"]["template"]["metadata"]["annotations"][names::ANNOTATION_RESTARTED_AT] = json!("1");
    sets.push(restarted);
    assert_eq!(weight(&look), "50%", "a restart is the same version");
    current(&mut look.0).stable.replica_set = "gone".to_owned();
    assert_eq!(weight(&look), "100%", "a ReplicaSet that is gone has no pods");
}

#[test]
fn all_traffic_goes_to_stable_where_the_canary_can_not_or_need_not_carry_it() {
    type Edit = fn(&mut Observed);
    let cases: [(&str, &str, Edit); 17] = [
        ("nothing of it", "100%", |_| {}),
        ("the target did not roll", "0%", |seen| revert(seen).rolled = false),
        ("the target is gone", "0%", |seen| seen.target = Fetched::Missing),
        ("the target can't be read", "0%", |seen| seen.target = Fetched::Failed("timeout".to_owned())),
        ("the target is another", "0%", |seen| known(&mut seen.target)["metadata"]["uid"] = json!("another")),
        ("the target has no pods", "0%", |seen| known(&mut seen.target)["spec"]["replicas"] = json!(0)),
        ("the canary has no pods", "0%", |seen| seen.canary_pods = Fetched::Known(Vec::new())),
        ("no pod of the canary is ready", "0%", |seen| {
            all(&mut seen.canary_pods).iter_mut().for_each(|pod| pod["status"]["conditions"] = json!([]));
        }),
        ("one pod of the canary is ready", "100%", |seen| {
            all(&mut seen.canary_pods).iter_mut().skip(1).for_each(|pod| pod["status"]["conditions"] = json!([]));
        }),
        ("the canary's pods can't be read", "100%", |seen| seen.canary_pods = Fetched::Failed("timeout".to_owned())),
        ("the target is restored", "0%", |seen| restored(known(&mut seen.target), "web:v1", 4)),
        ("the target is restored in part", "100%", |seen| restored(known(&mut seen.target), "web:v1", 3)),
        ("the target runs another version", "100%", |seen| restored(known(&mut seen.target), "web:v3", 4)),
        ("less was asked for", "30%", |seen| current(seen).weight = "30%".to_owned()),
        ("nothing was asked for", "0%", |seen| current(seen).weight = "0%".to_owned()),
        ("the ReplicaSets can't be read", "100%", |seen| seen.replica_sets = Fetched::Failed("timeout".to_owned())),
        ("the release has no target's pods on record", "100%", |seen| current(seen).target_pods = 0),
    ];
    let found = rolled();
    for (what, expected, edit) in cases {
        let mut look = found.clone();
        edit(&mut look.0);
        assert_eq!(weight(&look), expected, "{what}");
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
    let given = |edit: &dyn Fn(&mut Observed)| {
        let mut look = found.clone();
        edit(&mut look.0);
        weight(&look)
    };
    assert_eq!(given(&|seen| give(route(seen), 30, None)), "30%");
    assert_eq!(given(&|seen| give(route(seen), 0, None)), "0%");
    assert_eq!(given(&|seen| *route(seen) = World::bare().route().clone()), "0%", "a plain route");
    assert_eq!(given(&|seen| seen.routes[0].1 = Fetched::Missing), "0%");
    assert_eq!(given(&|seen| seen.routes[0].1 = Fetched::Failed("timeout".to_owned())), "100%");
    assert_eq!(given(&|seen| seen.routes.clear()), "100%");
    let uneven = |seen: &mut Observed| {
        give(route(seen), 30, None);
        route(seen)["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(70);
    };
    assert_eq!(given(&uneven), "50%", "the largest share of a rule");
    let foreign = |seen: &mut Observed| {
        let mut other = route(seen)["spec"]["rules"][0]["backendRefs"][0].clone();
        other["name"] = json!("other");
        route(seen)["spec"]["rules"][0]["backendRefs"].as_array_mut().unwrap().push(other);
    };
    assert_eq!(given(&foreign), "100%", "what others added to a route is not known to be less");
    let beside = |seen: &mut Observed| {
        give(route(seen), 20, Some(30));
        route(seen)["metadata"]["annotations"][names::ANNOTATION_SPLIT] = json!("web/web-canary/web-baseline");
    };
    assert_eq!(given(&beside), "20%", "baseline pods' share is not the canary's");
    let two = |seen: &mut Observed| {
        let mut second = seen.routes[0].clone();
        give(route(seen), 30, None);
        give(known(&mut second.1), 40, None);
        seen.routes.push(second);
    };
    assert_eq!(given(&two), "40%");
}

#[test]
fn traffic_is_on_stable_once_the_target_that_rolled_runs_the_serving_version_again() {
    let waiting = "; Deployment web goes back to the serving version";
    let found = rolled();
    let at = |edit: &dyn Fn(&mut Observed)| {
        let (mut seen, now) = found.clone();
        route(&mut seen)["metadata"]["annotations"][names::ANNOTATION_BREACHED] = json!("web-1: why");
        give(route(&mut seen), 0, None);
        for rule in [0, 1] {
            route(&mut seen)["spec"]["rules"][rule]["backendRefs"][0]["weight"] = json!(1000);
        }
        edit(&mut seen);
        decide(&seen, now)
    };
    for (what, expected, edit) in [
        ("it rolls", Step::Revert, (|_| {}) as fn(&mut Observed)),
        ("it can't be read", Step::Revert, |seen| seen.target = Fetched::Failed("timeout".to_owned())),
        ("in part", Step::Revert, |seen| restored(known(&mut seen.target), "web:v1", 3)),
        ("it runs the candidate", Step::Revert, |seen| restored(known(&mut seen.target), "web:v2", 4)),
        ("it runs the serving version", Step::RevertDrain, |seen| restored(known(&mut seen.target), "web:v1", 4)),
        ("it is gone", Step::RevertDrain, |seen| seen.target = Fetched::Missing),
        ("it is another", Step::RevertDrain, |seen| known(&mut seen.target)["metadata"]["uid"] = json!("another")),
        ("it did not roll", Step::RevertDrain, |seen| revert(seen).rolled = false),
    ] {
        let done = at(&edit);
        assert_eq!(step(&done), expected, "{what}: {}", done.status.message);
        let clear = done.status.current.unwrap().revert.unwrap().clear_at;
        assert_eq!(clear.is_some(), expected == Step::RevertDrain, "{what}");
        assert_eq!(done.status.message.ends_with(waiting), expected == Step::Revert, "{what}: {}", done.status.message);
    }
}

fn since(seen: &mut Observed) -> Timestamp {
    current(seen).step_since.clone().unwrap().0
}

#[test]
fn a_gateway_that_does_not_answer_keeps_nobody_from_cleaning_up_for_longer_than_half_a_minute() {
    let world = reverting("Hold", (Step::Revert, 1));
    let mut seen = world.seen("web");
    let begun = since(&mut seen);
    for (milliseconds, expected) in [(0, Step::Revert), (30_000, Step::Revert), (30_001, Step::RevertDrain)] {
        let done = decide(&seen, begun + Duration::from_millis(milliseconds));
        assert_eq!(step(&done), expected, "after {milliseconds} ms: {}", done.status.message);
    }
    // One that does not have the weight is waited for.
    let mut unwritten = seen.clone();
    give(route(&mut unwritten), 50, None);
    let done = decide(&unwritten, begun + Duration::from_secs(31));
    assert_eq!(step(&done), Step::Revert);
    assert!(
        done.status.message.ends_with("; HTTPRoute web does not have weight 0/1000 yet"),
        "{}",
        done.status.message
    );
    // One that a hand made plain is written all the same, so that a write of before can't come after.
    *route(&mut seen) = World::bare().route().clone();
    let done = decide(&seen, begun + Duration::from_secs(31));
    assert_eq!((step(&done), done.wake_after), (Step::Revert, Some(Duration::from_millis(500))));
    let message = &done.status.message;
    assert!(message.ends_with("; the routes are written, so that no write of before comes after"), "{message}");
    assert!(done.effects.iter().any(Effect::gives_traffic_back), "{:?}", done.effects);
}

#[test]
fn the_canary_keeps_its_pods_for_exactly_as_long_as_its_requests_may_take() {
    let world = reverting("Hold", (Step::RevertDrain, 1));
    let mut seen = world.seen("web");
    let begun = since(&mut seen);
    for (milliseconds, wake) in [(0, 500), (9_500, 500), (9_800, 200), (9_999, 1)] {
        let done = decide(&seen, begun + Duration::from_millis(milliseconds));
        assert_eq!((step(&done), done.wake_after), (Step::RevertDrain, Some(Duration::from_millis(wake))));
        assert!(done.status.message.ends_with("; the canary's requests end (10s)"), "{}", done.status.message);
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
        let mut seen = world.seen("web");
        known(&mut seen.canary)["spec"]["replicas"] = json!(pods);
        if back {
            *route(&mut seen) = weighted.clone();
        }
        let done = decide(&seen, world.now);
        let half = Some(Duration::from_millis(500));
        assert_eq!((step(&done), done.wake_after), (expected, half), "{pods} pods, {back}: {}", done.status.message);
        let said = "; a route gave the canary weight again: its requests have to end once more";
        assert_eq!(done.status.message.ends_with(said), expected == Step::RevertDrain, "{}", done.status.message);
    }
}

/// What the last tick of a revert sees: all that it waits for is done.
fn last_tick(mode: &str) -> (Observed, Timestamp) {
    let mut world = reverting(mode, (Step::Revert, 1));
    assert_eq!(world.finish(), "RolledBack");
    let mut seen = world.seen("web");
    let status = seen.release.status.as_mut().unwrap();
    status.outcome.clear();
    let release = status.current.as_mut().unwrap();
    release.step = Step::RevertTarget;
    release.step_since = Some(Time(world.now));
    // The release ends, and nothing is looked at beyond that.
    seen.rivals = Fetched::Failed("timeout".to_owned());
    (seen, world.now)
}

fn canary_set(seen: &mut Observed) -> &mut Value {
    let sets = all(&mut seen.replica_sets);
    sets.iter_mut().find(|set| object::annotation(set, names::ANNOTATION_REJECTED).is_some()).unwrap()
}

fn unmark(object: &mut Value, key: &str) {
    object["metadata"]["annotations"].as_object_mut().unwrap().remove(key);
}

fn delete(seen: &mut Observed) {
    seen.release.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
}

#[test]
fn a_revert_is_over_once_all_is_put_back_and_the_rejection_is_written_down() {
    type Edit = fn(&mut Observed);
    let forget = |seen: &mut Observed| unmark(canary_set(seen), names::ANNOTATION_REJECTED);
    let cases: [(&str, bool, Edit); 13] = [
        ("nothing is left", true, |_| {}),
        ("the canary has pods", false, |seen| known(&mut seen.canary)["spec"]["replicas"] = json!(1)),
        ("a route is not put back", false, |seen| {
            route(seen)["metadata"]["annotations"][names::ANNOTATION_UID] =
                json!(seen.release.metadata.uid.clone().unwrap());
        }),
        ("the rejection is not remembered", false, forget),
        ("nothing is rejected", true, |seen| {
            unmark(canary_set(seen), names::ANNOTATION_REJECTED);
            revert(seen).rejects = false;
        }),
        ("the CanaryRelease is deleted, so nobody will ask", true, |seen| {
            unmark(canary_set(seen), names::ANNOTATION_REJECTED);
            delete(seen);
        }),
        ("no canary ran what the target asks for", false, |seen| seen.canary = Fetched::Missing),
        ("the canary was made for another release", false, |seen| {
            known(&mut seen.canary)["metadata"]["annotations"][names::ANNOTATION_MADE_FOR] = json!("web-0");
        }),
        ("nothing is left to remember it by", true, |seen| {
            seen.canary = Fetched::Missing;
            image(known(&mut seen.target), "web:v3");
        }),
        ("the canary's set alone remembers what is asked for no more", false, |seen| {
            unmark(canary_set(seen), names::ANNOTATION_REJECTED);
            image(known(&mut seen.target), "web:v3");
        }),
        ("a hand changed the canary", false, |seen| image(known(&mut seen.canary), "web:v9")),
        ("the serving version is to be written back", false, |seen| {
            seen.release.spec.on_revert = Some(OnRevert::Restore);
        }),
        ("a route is gone", true, |seen| seen.routes[0].1 = Fetched::Missing),
    ];
    let ready = last_tick("Hold");
    for (what, expected, edit) in cases {
        let (mut seen, now) = ready.clone();
        edit(&mut seen);
        let done = decide(&seen, now);
        assert_eq!(step(&done) == Step::Done, expected, "{what}: {}", done.status.message);
        assert_eq!(done.status.outcome, if expected { "RolledBack" } else { "" }, "{what}");
        let said = "; the canary is taken away, the routes are put back as they were, the target is held or restored";
        assert_eq!(done.status.message.ends_with(said), !expected, "{what}: {}", done.status.message);
    }
}

#[test]
fn a_revert_is_not_over_while_something_can_not_be_read() {
    let ready = last_tick("Hold");
    for (what, edit) in [
        ("the target", (|seen| seen.target = Fetched::Failed("why".to_owned())) as fn(&mut Observed)),
        ("the canary", |seen| seen.canary = Fetched::Failed("why".to_owned())),
        ("the ReplicaSets", |seen| seen.replica_sets = Fetched::Failed("why".to_owned())),
    ] {
        let (mut seen, now) = ready.clone();
        edit(&mut seen);
        let done = decide(&seen, now);
        assert_eq!(step(&done), Step::RevertTarget);
        let said = format!("; {what} could not be read: why");
        assert!(done.status.message.ends_with(&said), "{}", done.status.message);
    }
}

#[test]
fn the_serving_version_is_written_back_where_it_was_asked_for_or_the_candidate_ran_and_nowhere_else() {
    type Edit = fn(&mut Observed);
    fn restore(seen: &mut Observed) {
        seen.release.spec.on_revert = Some(OnRevert::Restore);
    }
    let ready = last_tick("Hold");
    let check = |what: &str, written: bool, over: bool, edit: Edit| {
        let (mut seen, now) = ready.clone();
        edit(&mut seen);
        let done = decide(&seen, now);
        assert_eq!((writes_back(&done), step(&done) == Step::Done), (written, over), "{what}: {:?}", done.effects);
    };
    let writes: [(&str, Edit); 5] = [
        ("it was asked for", restore),
        ("nothing else was asked for", |seen| seen.release.spec.on_revert = None),
        ("the target had rolled", |seen| revert(seen).rolled = true),
        ("the target was scaled to zero", |seen| revert(seen).reason = "ScaledToZero".to_owned()),
        ("the target had rolled, and all is deleted", |seen| {
            delete(seen);
            revert(seen).rolled = true;
        }),
    ];
    for (what, edit) in writes {
        check(what, true, false, edit);
    }
    let leaves: [(&str, Edit); 7] = [
        ("the target is to be held", |_| {}),
        ("it was superseded", |seen| {
            restore(seen);
            revert(seen).outcome = "Superseded".to_owned();
        }),
        ("it was overridden", |seen| {
            revert(seen).rolled = true;
            revert(seen).outcome = "Overridden".to_owned();
        }),
        ("all is deleted, which ends the hold by itself", |seen| {
            restore(seen);
            delete(seen);
        }),
        ("the target is another", |seen| {
            revert(seen).rolled = true;
            known(&mut seen.target)["metadata"]["uid"] = json!("another");
        }),
        ("what served is not known", |seen| {
            revert(seen).rolled = true;
            current(seen).stable.digest.clear();
        }),
        ("another template was written meanwhile", |seen| {
            restore(seen);
            image(known(&mut seen.target), "web:v3");
        }),
    ];
    for (what, edit) in leaves {
        check(what, false, true, edit);
    }
    let waits: [(&str, Edit); 2] = [
        ("the rejection is not remembered yet", |seen| {
            restore(seen);
            unmark(canary_set(seen), names::ANNOTATION_REJECTED);
        }),
        ("a route can't be read", |seen| {
            restore(seen);
            seen.routes[0].1 = Fetched::Failed("timeout".to_owned());
        }),
    ];
    for (what, edit) in waits {
        check(what, false, false, edit);
    }
}

#[test]
fn a_target_that_gitops_owns_is_held_where_nothing_is_asked_for() {
    let ready = last_tick("Hold");
    for (field, key, held) in [
        ("annotations", "argocd.argoproj.io/tracking-id", true),
        ("labels", "kustomize.toolkit.fluxcd.io/name", true),
        ("labels", "helm.toolkit.fluxcd.io/name", true),
        ("labels", "helm.sh/chart", false),
        ("manager", "argocd-controller", true),
        ("manager", "kustomize-controller", true),
        ("manager", "helm-controller", true),
        ("manager", "helm", false),
    ] {
        let (mut seen, now) = ready.clone();
        seen.release.spec.on_revert = None;
        let metadata = &mut known(&mut seen.target)["metadata"];
        if field == "manager" {
            metadata["managedFields"] = json!([{"manager": "kubectl"}, {"manager": key}]);
        } else {
            metadata[field][key] = json!("x");
        }
        assert_eq!(writes_back(&decide(&seen, now)), !held, "{field} {key}");
    }
}

#[test]
fn a_target_that_rolled_is_restored_once_it_is_un_paused_and_unmarked() {
    let ready = last_tick("Restore");
    for (what, expected, edit) in [
        ("it is", true, (|_| {}) as fn(&mut Observed)),
        ("it is paused", false, |seen| known(&mut seen.target)["spec"]["paused"] = json!(true)),
        ("it rolls", false, |seen| {
            known(&mut seen.target)["metadata"]["annotations"][names::ANNOTATION_ROLLING] = json!("web-1");
        }),
        ("it asks for another", false, |seen| image(known(&mut seen.target), "web:v3")),
    ] {
        let (mut seen, now) = ready.clone();
        revert(&mut seen).rolled = true;
        edit(&mut seen);
        let done = decide(&seen, now);
        assert_eq!((step(&done) == Step::Done, writes_back(&done)), (expected, !expected), "{what}");
    }
}

#[test]
fn the_template_that_is_written_back_is_of_the_version_that_served_and_of_no_other() {
    let (mut ready, now) = last_tick("Hold");
    revert(&mut ready).rolled = true;
    let path = "/spec/template";
    let whole = written(&decide(&ready, now), "web", path).unwrap().clone();
    assert_eq!(whole["spec"]["containers"][0]["image"], "web:v1");
    assert!(!whole.to_string().contains("pod-template-hash"), "{whole}");
    // The ReplicaSet is gone: the record has it.
    let served = current(&mut ready).stable.replica_set.clone();
    all(&mut ready.replica_sets).retain(|set| object::name(set) != served);
    assert_eq!(written(&decide(&ready, now), "web", path).unwrap()["spec"], whole["spec"]);
    // What serves now is another: the record of before has it still.
    let mut later = ready.clone();
    let hold = later.release.status.as_mut().unwrap().hold.as_mut().unwrap();
    hold.serving.as_mut().unwrap().digest = "sha256:another".to_owned();
    let record = std::mem::replace(&mut hold.serving_record, "web-serving-another".to_owned());
    assert_eq!(written(&decide(&later, now), "web", path).unwrap()["spec"], whole["spec"]);
    // A record of the right name that holds another template is none.
    for record in all(&mut later.serving_records).iter_mut().filter(|one| object::name(one) == record) {
        record["data"]["template"]["spec"]["containers"][0]["image"] = json!("web:v9");
    }
    let done = decide(&later, now);
    assert!(!writes_back(&done) && step(&done) == Step::RevertTarget, "{:?}", done.effects);
    // What serves now, of which a ReplicaSet is there, is not what served before either.
    let mut other = ready.clone();
    other.serving_records = Fetched::Known(Vec::new());
    let uid = object::uid(known(&mut other.target)).to_owned();
    let mut set = canary_set(&mut other).clone();
    set["metadata"]["name"] = json!("web-v9");
    set["metadata"]["ownerReferences"][0]["uid"] = json!(uid);
    image(&mut set, "web:v9");
    all(&mut other.replica_sets).push(set);
    let hold = other.release.status.as_mut().unwrap().hold.as_mut().unwrap();
    hold.serving.as_mut().unwrap().replica_set = "web-v9".to_owned();
    assert!(!writes_back(&decide(&other, now)));
}

#[test]
fn how_a_release_was_taken_back_is_told_by_its_outcome() {
    let ready = last_tick("Hold");
    for (outcome, warning) in [("RolledBack", true), ("Aborted", true), ("Overridden", true), ("Superseded", false)] {
        let (mut seen, now) = ready.clone();
        let back = revert(&mut seen);
        back.outcome = outcome.to_owned();
        back.message = "why".to_owned();
        back.clear_at = Some(Time(back.at.0 + Duration::from_secs(7)));
        let done = decide(&seen, now);
        let text = "web-1: why; all traffic on stable 7s after it was seen";
        let notes: Vec<_> = done.notes.iter().map(|note| (note.reason, note.text.as_str(), note.warning)).collect();
        assert_eq!(notes, [(outcome, text, warning)]);
        assert_eq!((step(&done), done.status.outcome.as_str()), (Step::Done, outcome));
        assert_eq!(done.wake_after, Some(Duration::ZERO));
        let line = done.status.history.last().unwrap();
        assert!(line.ends_with(&format!("Z {outcome} {text}")), "{line}");
    }
}

#[test]
fn after_a_revert_the_hold_tells_what_serves_and_whether_a_rejected_template_is_held() {
    let ready = last_tick("Restore");
    for (paused, rejects, rolled) in
        [(true, true, false), (true, false, false), (false, true, false), (false, false, false), (false, true, true)]
    {
        let (mut seen, now) = ready.clone();
        let stable = current(&mut seen).stable.clone();
        let back = revert(&mut seen);
        (back.rejects, back.rolled) = (rejects, rolled);
        known(&mut seen.target)["spec"]["paused"] = json!(paused);
        let candidate = current(&mut seen).candidate.clone();
        let hold = seen.release.status.as_mut().unwrap().hold.as_mut().unwrap();
        let record = std::mem::replace(&mut hold.serving_record, "web-serving-another".to_owned());
        hold.serving = Some(candidate.clone());
        hold.holds_rejected = !(paused && rejects);
        let done = decide(&seen, now);
        assert_eq!(step(&done), Step::Done);
        let hold = done.status.hold.unwrap();
        let what = format!("paused {paused}, rejects {rejects}, rolled {rolled}");
        assert_eq!(hold.holds_rejected, paused && rejects, "{what}");
        assert_eq!(hold.serving, Some(if rolled { stable } else { candidate }), "{what}");
        assert_eq!(hold.serving_record == record, rolled, "{what}");
    }
}
