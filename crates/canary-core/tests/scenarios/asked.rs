//! What a single tick answers to a command, and what it leaves as it was.

use canary_api::{Paused, ReleaseStatus, Step, names};
use canary_core::{Decision, Fetched, Observed, decide};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::{
    changes::reverting,
    world::{JANE, World},
};

/// The tick that takes a command of Jane's.
fn given(mut seen: Observed, now: Timestamp, text: &str) -> Decision {
    let annotations = seen.release.metadata.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_COMMAND.to_owned(), text.to_owned());
    annotations.insert(names::ANNOTATION_COMMAND_BY.to_owned(), JANE.to_owned());
    decide(&seen, now)
}

fn answer(done: &Decision) -> &str {
    &done.status.last_command.as_ref().unwrap().result
}

fn refusals(done: &Decision) -> Vec<&str> {
    done.notes.iter().filter(|note| note.reason == "CommandRefused").map(|note| note.text.as_str()).collect()
}

fn current(seen: &mut Observed) -> &mut ReleaseStatus {
    seen.release.status.as_mut().unwrap().current.as_mut().unwrap()
}

#[test]
fn a_command_that_does_not_fit_is_refused_with_the_reason() {
    let over = "no release is under way";
    let reverted = "the release is being reverted already";
    let promoted = "the candidate is being promoted; abort would still revert it";
    let mut rest = World::with_release(json!({}), "v2", (Step::Bake, 2));
    assert_eq!(rest.finish(), "Promoted");
    let back = reverting("Restore", (Step::Revert, 1));
    let roll = World::with_release(json!({}), "v2", (Step::Roll, 2));
    for (world, commands, why) in [
        (&rest, &["abort", "pause web-1", "resume web-1", "approve web-1", "promote web-1"][..], over),
        (&back, &["abort", "pause web-1", "resume web-1", "approve web-1", "promote web-1"], reverted),
        (&roll, &["pause web-1", "approve web-1", "promote web-1"], promoted),
    ] {
        let before = world.status().current.unwrap();
        for text in commands {
            let done = given(world.seen("web"), world.now, text);
            assert_eq!(answer(&done), format!("refused: {why}"), "{text}");
            assert_eq!(refusals(&done), [format!("{text:?} by jane: {why}")]);
            let after = done.status.current.unwrap();
            assert_eq!((after.step, after.revert, after.paused), (before.step, before.revert.clone(), None), "{text}");
        }
    }
}

/// A release that was rolled back, its template held.
fn rejected() -> World {
    let mut world = reverting("Hold", (Step::Revert, 1));
    assert_eq!(world.finish(), "RolledBack");
    world
}

#[test]
fn a_retry_that_meets_an_obstacle_is_refused_with_it() {
    let world = rejected();
    let mut no_service = world.seen("web");
    no_service.service = Fetched::Missing;
    let mut unread = world.seen("web");
    unread.replica_sets = Fetched::Failed("timeout".to_owned());
    for (seen, why) in
        [(no_service, "there is no Service web in namespace shop"), (unread, "the release could not start")]
    {
        let done = given(seen, world.now, "retry web-1");
        assert_eq!(answer(&done), format!("refused: {why}"));
        assert_eq!(refusals(&done), [format!("retry: {why}")]);
        assert_eq!(done.status.current.unwrap().id, "web-1");
    }
}

#[test]
fn a_retry_that_starts_a_release_is_not_refused_and_nothing_is_where_none_was_given() {
    let world = rejected();
    let done = given(world.seen("web"), world.now, "retry web-1");
    assert_eq!(answer(&done), "the rejection is lifted and a release started");
    assert!(refusals(&done).is_empty(), "{:?}", done.notes);
    assert_eq!(done.status.current.unwrap().id, "web-2");
    let done = decide(&world.seen("web"), world.now);
    assert!(done.notes.is_empty(), "{:?}", done.notes);
}

#[test]
fn only_a_rejected_template_that_is_held_can_be_retried() {
    let none = "refused: the target holds no rejected template: apply it again, then retry";
    // Rejected, and let go by somebody.
    let world = rejected();
    let mut seen = world.seen("web");
    let Fetched::Known(target) = &mut seen.target else { panic!("the target") };
    target["spec"].as_object_mut().unwrap().remove("paused");
    assert_eq!(answer(&given(seen, world.now, "retry web-1")), none);
    // Held by somebody, and never rejected.
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 2));
    world.finish();
    let mut seen = world.seen("web");
    let Fetched::Known(target) = &mut seen.target else { panic!("the target") };
    target["spec"]["paused"] = json!(true);
    assert_eq!(answer(&given(seen, world.now, "retry web-1")), none);
}

/// A release that is paused, with its weight or without, as a tick sees it.
fn paused(world: &World, without_weight: bool) -> Observed {
    let mut seen = world.seen("web");
    let current = current(&mut seen);
    let since = Time(world.now);
    current.paused = Some(Paused { by: "a test".to_owned(), reason: "Test".to_owned(), since, without_weight });
    seen
}

#[test]
fn a_release_that_was_stopped_starts_again_with_its_baseline_where_that_was_not_over() {
    for (place, step) in [
        ((Step::Baseline, 0), Step::Baseline),
        ((Step::Scale, 1), Step::Scale),
        // Its pods are ready, so that the weight comes at once.
        ((Step::Bake, 1), Step::Shift),
    ] {
        let world = World::with_release(json!({}), "v2", place);
        let mut seen = paused(&world, true);
        current(&mut seen).weight = "0%".to_owned();
        let done = given(seen, world.now, "resume web-1");
        assert_eq!(answer(&done), "the release starts again at stage 1");
        let after = done.status.current.unwrap();
        assert_eq!((after.step, after.stage_index, after.paused), (step, 0, None), "{place:?}");
    }
}

#[test]
fn only_a_stage_that_is_being_judged_is_counted_anew_when_it_goes_on() {
    for (place, anew) in [((Step::Scale, 1), false), ((Step::Shift, 1), false), ((Step::Bake, 1), true)] {
        let mut world = World::with_release(json!({}), "v2", place);
        if anew {
            world.run(12);
        }
        let mut seen = paused(&world, false);
        let before = current(&mut seen).clone();
        let done = given(seen, world.now, "resume web-1");
        assert_eq!(answer(&done), "the stage's clock starts again");
        let after = done.status.current.unwrap();
        assert_eq!(after.window_since == before.window_since, !anew, "{place:?}: {:?}", after.window_since);
        assert_eq!(after.counts, if anew { Vec::new() } else { before.counts }, "{place:?}");
        assert_eq!((after.step, after.paused), (place.0, None));
    }
}
