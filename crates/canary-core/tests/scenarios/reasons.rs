//! Why a release is taken back: how that is said and a route remembers it, what others do to the target and the routes,
//! a status that was lost, and what a revert finds under way.

use std::time::Duration;

use canary_api::{JobState, ReleaseStatus, Step, names};
use canary_core::{Decision, Fetched, object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::world::{
    Change, JobFate, Sight, World, back, command, current, failed, image, known, overridden, release, revert, reverted,
    route, step, target, told, written,
};

const NO_CONTROL: &str = "; no stable side had traffic to compare with";

/// Why a revert began: reason, by whom, outcome, whether the template is rejected.
type Cause<'d> = Option<(&'d str, &'d str, &'d str, bool)>;

fn cause(done: &Decision) -> Cause<'_> {
    let revert = done.status.current.as_ref()?.revert.as_ref()?;
    Some((&revert.reason, &revert.by, &revert.outcome, revert.rejects))
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

    let done = world.decided(|seen| revert(seen).message = "é".repeat(600));
    let mark = written(&done, "web", "/metadata/annotations/canaryrelease.dev~1breached").unwrap().as_str().unwrap();
    assert_eq!((mark.chars().count(), mark.starts_with("web-1: éé")), (500, true));
}

#[test]
fn a_breach_that_a_route_remembers_of_this_release_reverts_it() {
    let world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    let remembering = |text: &str| {
        world.decided(|seen| route(seen)["metadata"]["annotations"][names::ANNOTATION_BREACHED] = json!(text))
    };
    let blind = format!("gate errors: 50%{NO_CONTROL}");
    let (gate, job) = ("gate remembered by the route", "job remembered by the route");
    for (text, expected) in [
        ("gate errors: 50%", Some(("GateBreached", gate, "RolledBack", true))),
        (&blind, Some(("BreachWithoutControl", gate, "RolledBack", true))),
        ("job smoke at stage 1/3 failed", Some(("JobFailed", job, "RolledBack", true))),
    ] {
        let done = remembering(&format!("web-1: {text}"));
        assert_eq!((step(&done), cause(&done)), (Step::Revert, expected), "{text}");
        assert_eq!(back(&done).message, text);
    }
    for other in ["web-1 is taken back", "web-2: gate errors: 50%", "web-10: gate errors: 50%", "gate errors"] {
        assert_eq!(cause(&remembering(other)), None, "{other}");
    }
}

#[test]
fn what_others_do_to_the_target_ends_a_release_and_is_said_with_who_did_it() {
    let superseded = Some(("Superseded", "user jane", "Superseded", false));
    let world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    let cases: [(&str, Cause, Change); 5] = [
        ("a newer template was written by jane", superseded, |seen| image(target(seen), "web:v3")),
        ("the serving version's template was written back by jane", superseded, |seen| {
            image(target(seen), "web:v1");
        }),
        ("Deployment web was deleted", Some(("TargetDeleted", "target", "Aborted", false)), |seen| {
            seen.target = Fetched::Missing;
        }),
        (
            "Deployment web was deleted and created again",
            Some(("TargetReplaced", "target", "Aborted", false)),
            |seen| {
                target(seen)["metadata"]["uid"] = json!("another");
            },
        ),
        (
            "Deployment web was scaled to zero during the release: the serving version's template is written back, so that it is what comes back",
            Some(("ScaledToZero", "target", "Aborted", false)),
            |seen| target(seen)["spec"]["replicas"] = json!(0),
        ),
    ];
    for (message, expected, change) in cases {
        let done = world.decided(change);
        assert_eq!(cause(&done), expected, "{message}");
        assert_eq!(back(&done).message, message);
    }
}

#[test]
fn an_override_of_the_target_or_of_a_route_ends_the_release_and_says_who_gave_it() {
    let burns = |object: &mut Value| object["metadata"]["annotations"][names::ANNOTATION_OVERRIDE] = json!("it burns");
    let signed = |object: &mut Value| overridden(object, "it burns");
    let bake = || Sight::good((Step::Bake, 1));
    for (sight, by, rejects) in [
        (bake().target(signed), "jane", false),
        (bake().target(burns), "someone unknown", false),
        (bake().route(signed), "jane", true),
        (bake().route(burns), "someone unknown", true),
        (Sight::good((Step::Soak, 2)).route(signed), "jane", false),
    ] {
        let done = sight.decide();
        assert_eq!(reverted(&done), Some(("Overridden", format!("user {by}").as_str(), rejects)));
        assert_eq!(back(&done).message, format!("{by} overrode the hold: it burns"));
    }
}

#[test]
fn a_newer_template_ends_a_release_until_its_canary_has_drained_and_then_only_its_soak() {
    let newer = |sight: Sight| sight.target(|target| image(target, "web:v3")).decide();
    let drains = newer(Sight::good((Step::Drain, 2)));
    assert_eq!(reverted(&drains), Some(("Superseded", "user someone unknown", false)));
    let drained = newer(Sight::good((Step::Drain, 2)).changed(|current| current.canary_pods = 0));
    assert_eq!((step(&drained), told(&drained)), (Step::Drain, vec![]));
    let before = newer(Sight::good((Step::Baseline, 0)).changed(|current| current.canary_pods = 0));
    assert_eq!(reverted(&before), Some(("Superseded", "user jane", false)));
    let soaks = newer(Sight::good((Step::Soak, 2)));
    assert_eq!(told(&soaks)[0], ("SoakCutShort", "a newer template was written during the soak"));
    assert_eq!(told(&soaks)[1], ("Promoted", "web-1: web:v2 is live"));
    let same = Sight::good((Step::Soak, 2)).decide();
    assert_eq!((step(&same), told(&same)), (Step::Soak, vec![]));
}

/// A release at its second stage whose status is lost but for this.
fn lost(world: &World, last: Option<ReleaseStatus>) -> Sight {
    let mut sight = Sight::of(world);
    sight.status().current = last;
    sight.status().outcome = "Promoted".to_owned();
    sight
}

/// A release that is over, by number.
fn last(number: i64) -> Option<ReleaseStatus> {
    Some(ReleaseStatus { number, step: Step::Done, id: format!("web-{number}"), ..ReleaseStatus::default() })
}

#[test]
fn a_release_that_the_status_does_not_know_is_read_off_its_canary() {
    let world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    let before = world.status().current.unwrap();
    let done = lost(&world, None).decide();
    assert_eq!(cause(&done), Some(("StatusLost", "status", "Aborted", false)));
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
        let marked = |canary: &mut Value| canary["metadata"]["annotations"][names::ANNOTATION_MADE_FOR] = json!(mark);
        assert_eq!(release(&lost(&world, before).canary(marked).decide()).id, id, "{mark}");
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
        let done = lost(&world, before).decided(|seen| {
            known(&mut seen.canary)["spec"]["replicas"] = json!(pods);
            if !weighted {
                *route(seen) = plain.clone();
            }
            // Nothing else may begin.
            seen.rivals = failed();
        });
        let begun = done.status.current.is_some_and(|current| current.step == Step::Revert);
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
        let aborted = Sight::of(&world).command("abort");
        let done = aborted.decide();
        assert_eq!(cause(&done), Some(("Command", "user jane", "Aborted", true)), "{place:?}");
        let begun = back(&done);
        assert_eq!((begun.rolled, begun.message.as_str()), (rolled, "aborted by jane"), "{place:?}");
        assert_eq!((&begun.stage, done.wake_after), (&format!("{}/3", place.1 + 1), Some(Duration::ZERO)));

        let of_another = aborted.decided(|seen| target(seen)["metadata"]["uid"] = json!("another"));
        assert!(!back(&of_another).rolled, "{place:?}: another target");
        assert!(!back(&aborted.decided(|seen| seen.target = Fetched::Missing)).rolled, "{place:?}: no target");
        let unread = aborted.decided(|seen| seen.target = failed());
        assert_eq!(back(&unread).rolled, rolled, "{place:?}: a target that can't be read is taken to be the same");

        let done = world.decided(|seen| {
            target(seen)["metadata"]["annotations"][names::ANNOTATION_OVERRIDE] = json!("the shop burns");
        });
        assert_eq!(cause(&done), Some(("Overridden", "user someone unknown", "Overridden", false)), "{place:?}");
        assert!(!back(&done).rolled, "{place:?}: overridden");
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
    let done = world.decided(|seen| {
        assert!(current(seen).paused.is_some());
        seen.release.metadata.annotations = None;
        command(seen, "abort");
    });
    let back = release(&done);
    assert_eq!(back.paused, None);
    assert_eq!((back.jobs[0].state, back.jobs[0].message.as_str()), (JobState::Unfinished, "the release was reverted"));
}
