//! What a single tick answers to a command, and what it leaves as it was.

use canary_api::Step;
use canary_core::{Decision, Fetched, Observed};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{
    changes::{reverting, rolled_back},
    world::{Change, Sight, World, failed, pause, told_of},
};

fn answer(done: &Decision) -> &str {
    &done.status.last_command.as_ref().unwrap().result
}

fn refusals(done: &Decision) -> Vec<&str> {
    told_of(done, "CommandRefused")
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
            let done = Sight::of(world).command(text).decide();
            assert_eq!(answer(&done), format!("refused: {why}"), "{text}");
            assert_eq!(refusals(&done), [format!("{text:?} by jane: {why}")]);
            let after = done.status.current.unwrap();
            assert_eq!((after.step, after.revert, after.paused), (before.step, before.revert.clone(), None), "{text}");
        }
    }
}

#[test]
fn a_retry_that_meets_an_obstacle_is_refused_with_it() {
    let world = rolled_back("Hold");
    let no_service = |seen: &mut Observed| seen.service = Fetched::Missing;
    for (change, why) in [
        (no_service as Change, "there is no Service web in namespace shop"),
        (|seen| seen.replica_sets = failed(), "the release could not start"),
    ] {
        let done = Sight::of(&world).command("retry web-1").decided(change);
        assert_eq!(answer(&done), format!("refused: {why}"));
        assert_eq!(refusals(&done), [format!("retry: {why}")]);
        assert_eq!(done.status.current.unwrap().id, "web-1");
    }
}

#[test]
fn a_retry_that_starts_a_release_is_not_refused_and_nothing_is_where_none_was_given() {
    let world = rolled_back("Hold");
    let done = Sight::of(&world).command("retry web-1").decide();
    assert_eq!(answer(&done), "the rejection is lifted and a release started");
    assert!(refusals(&done).is_empty(), "{:?}", done.notes);
    assert_eq!(done.status.current.unwrap().id, "web-2");
    let done = world.decide();
    assert!(done.notes.is_empty(), "{:?}", done.notes);
}

#[test]
fn only_a_rejected_template_that_is_held_can_be_retried() {
    let none = "refused: the target holds no rejected template: apply it again, then retry";
    let retry = |world: &World, change: fn(&mut Value)| Sight::of(world).target(change).command("retry web-1").decide();
    // Rejected, and let go by somebody.
    let world = rolled_back("Hold");
    let let_go = |target: &mut Value| drop(target["spec"].as_object_mut().unwrap().remove("paused"));
    assert_eq!(answer(&retry(&world, let_go)), none);
    // Held by somebody, and never rejected.
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 2));
    world.finish();
    assert_eq!(answer(&retry(&world, |target| target["spec"]["paused"] = json!(true))), none);
}

/// A release that is paused, with its weight or without, as a tick sees it.
fn paused(world: &World, without_weight: bool) -> Sight {
    Sight::of(world).seeing(|seen| pause(seen, Time(world.now), "Test", without_weight))
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
        let stopped = paused(&world, true).changed(|current| current.weight = "0%".to_owned());
        let done = stopped.command("resume web-1").decide();
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
        let mut sight = paused(&world, false);
        let before = sight.current().clone();
        let done = sight.command("resume web-1").decide();
        assert_eq!(answer(&done), "the stage's clock starts again");
        let after = done.status.current.unwrap();
        assert_eq!(after.window_since == before.window_since, !anew, "{place:?}: {:?}", after.window_since);
        assert_eq!(after.counts, if anew { Vec::new() } else { before.counts }, "{place:?}");
        assert_eq!((after.step, after.paused), (place.0, None));
    }
}
