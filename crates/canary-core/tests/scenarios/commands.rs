//! Commands: each verb at each step is taken once, answered, and bounded in its writes.

use canary_api::Step;
use serde_json::json;

use crate::{
    changes::{BACKWARD, FORWARD},
    world::World,
};

const VERBS: [&str; 6] = ["abort", "pause", "resume", "approve", "promote", "retry"];

/// Whether the verb is to be accepted at a place of a release that is not paused.
fn accepted(verb: &str, step: Step) -> bool {
    match verb {
        "abort" => step < Step::Revert,
        "pause" | "promote" => step < Step::Roll,
        _ => false,
    }
}

fn give(world: &mut World, verb: &str) -> String {
    let id = world.id();
    let before = world.writes.len();
    let refused = world.notes.iter().filter(|note| note.contains("CommandRefused")).count();
    world.command(&format!("{verb} {id}"));
    let text = format!("{verb} {id}");
    world.until("the command is taken", |world| {
        let last = world.status().last_command;
        last.is_some_and(|last| last.command == text && !last.pending)
            && !world.get("CanaryRelease", "web").unwrap()["metadata"].to_string().contains("dev/command")
    });
    let commands = world.notes.iter().filter(|note| note.contains("CommandRefused")).count();
    assert_eq!(
        commands - refused,
        usize::from(world.status().last_command.unwrap().result.starts_with("refused")),
        "said once: {}",
        world.describe()
    );
    assert!(world.writes.len() - before <= 12, "{verb}: {} writes: {}", world.writes.len() - before, world.describe());
    let last = world.status().last_command.unwrap();
    assert_eq!(last.by, "jane");
    last.result
}

/// A release at the place, on its way forward or, after a breach, back.
fn release_at(place: (Step, i32)) -> World {
    let mut world = World::new(json!({"soak": "40s"}));
    world.arm();
    world.apply("v2").unwrap();
    if place.0 >= Step::Revert {
        world.reach((Step::Bake, 1));
        world.faulty("v2", 0.5);
    }
    world.reach(place);
    world
}

fn ends(mut world: World, outcome: &str, what: &str) {
    assert_eq!(world.finish(), outcome, "{what}: {}", world.describe());
    let version = if outcome == "Promoted" { "web:v2" } else { "web:v1" };
    assert_eq!(world.served(), [version], "{what}: {}", world.describe());
    assert_eq!(world.unanswered, 0.0, "{what}");
    world.run(30);
    world.assert_plain_route();
}

#[test]
fn every_command_at_every_step_is_taken_once_and_answered() {
    for place in FORWARD.into_iter().chain(BACKWARD) {
        let (fit, unfit): (Vec<&str>, Vec<&str>) = VERBS.into_iter().partition(|verb| accepted(verb, place.0));
        for verb in fit {
            let what = format!("{verb} at {place:?}");
            let mut world = release_at(place);
            let answer = give(&mut world, verb);
            assert!(!answer.starts_with("refused"), "{what}: {answer}");
            if verb == "pause" {
                let paused_at = world.place();
                world.run(600);
                assert_eq!(world.place(), paused_at, "a paused release stands");
                let answer = give(&mut world, "resume");
                assert!(!answer.starts_with("refused"), "{what}: {answer}");
            }
            assert_eq!(world.status().current.unwrap().partial, verb == "promote");
            ends(world, if verb == "abort" { "Aborted" } else { "Promoted" }, &what);
        }
        let mut world = release_at(place);
        for verb in unfit {
            if world.place() == place {
                let answer = give(&mut world, verb);
                assert!(answer.starts_with("refused"), "{verb} at {place:?}: {answer}");
            }
        }
        ends(
            world,
            if place.0 >= Step::Revert { "RolledBack" } else { "Promoted" },
            &format!("all that is refused at {place:?}"),
        );
    }
}

#[test]
fn a_command_for_another_release_is_refused() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    for (text, why) in [
        ("promote web-7", "it is for release web-7"),
        ("abort web-0", "it is for release web-0"),
        ("promote", "write `promote web-1`"),
        ("destroy web-1", "the commands are"),
        ("approve web-1 2", "it is for stage 2"),
        ("approve web-1 1", "needs no approval"),
        ("", "the commands are"),
    ] {
        let place = world.place();
        world.command(text);
        world.run(2);
        let last = world.status().last_command.unwrap();
        assert!(
            last.result.starts_with("refused") && last.result.contains(why) || text.is_empty(),
            "{text}: {}",
            last.result
        );
        assert_eq!(world.place(), place);
    }
    assert_eq!(world.finish(), "Promoted");
}

#[test]
fn abort_needs_no_release_id() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    world.command("abort");
    assert_eq!(world.finish(), "Aborted");
    assert!(world.status().current.unwrap().revert.unwrap().message.contains("jane"));
    world.assert_rest();
}

#[test]
fn the_same_command_given_again_is_taken_again() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    for expected in ["paused", "refused"] {
        let answer = give(&mut world, "pause");
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[test]
fn a_command_at_rest_is_refused_and_rest_follows() {
    for verb in VERBS {
        let mut world = World::new(json!({}));
        world.arm();
        world.command(&format!("{verb} web-1"));
        world.run(10);
        assert!(world.status().last_command.unwrap().result.starts_with("refused"));
        world.assert_rest();
    }
}

#[test]
fn a_stage_that_wants_approval_waits_for_it() {
    let stages = json!([{"weight": "10%", "duration": "30s", "approval": true}, {"weight": "100%", "duration": "30s"}]);
    let mut world = World::with_release(json!({"stages": stages}), "v2", (Step::Bake, 0));
    world.run(300);
    assert_eq!(world.place(), (Step::Bake, 0));
    assert!(world.status().message.contains("waits for approval"), "{}", world.status().message);
    world.assert_no_turning();
    world.command(&format!("approve {} 1", world.id()));
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    world.assert_rest();
}

#[test]
fn promote_goes_through_full_capacity_and_never_past_a_breach() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    world.faulty("v2", 0.5);
    world.command(&format!("promote {}", world.id()));
    assert_eq!(world.finish(), "RolledBack", "{}", world.describe());
    assert_eq!(world.served(), ["web:v1"]);
}

#[test]
fn a_paused_release_can_be_promoted_or_aborted() {
    for (verb, outcome) in [("promote", "Promoted"), ("abort", "Aborted")] {
        let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
        give(&mut world, "pause");
        world.run(600);
        give(&mut world, verb);
        assert_eq!(world.finish(), outcome);
        world.assert_rest();
    }
}
