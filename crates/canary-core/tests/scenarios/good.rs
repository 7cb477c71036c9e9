//! Releases that are good, and clusters at rest.

use canary_api::Step;
use serde_json::json;

use crate::world::World;

/// The places of a whole good release, in order.
pub const WHOLE: [(Step, i32); 14] = [
    (Step::Baseline, 0),
    (Step::Scale, 0),
    (Step::Shift, 0),
    (Step::Bake, 0),
    (Step::Scale, 1),
    (Step::Shift, 1),
    (Step::Bake, 1),
    (Step::Scale, 2),
    (Step::Shift, 2),
    (Step::Bake, 2),
    (Step::Roll, 2),
    (Step::HandBack, 2),
    (Step::Drain, 2),
    (Step::Done, 2),
];

fn a_good_release_is_promoted(over: serde_json::Value) {
    let mut world = World::new(over);
    world.arm();
    let at_rest = world.writes.len();
    world.apply("v2").unwrap();
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    let trail: Vec<_> = world.trail.iter().map(|(_, step, stage)| (*step, *stage)).collect();
    assert_eq!(trail, WHOLE);
    assert_eq!(world.served(), ["web:v2"]);
    assert_eq!(world.image(), "web:v2");
    assert!(!world.paused());
    assert_eq!(world.unanswered, 0.0);
    assert_eq!(world.canary_pods(), 0);
    world.assert_plain_route();
    let writes = world.writes.len() - at_rest;
    assert!(writes <= 45, "{writes} writes: {:#?}", world.writes);
    world.assert_rest();
}

#[test]
fn a_good_release_is_promoted_in_restore_mode() {
    a_good_release_is_promoted(json!({"onRevert": "Restore"}));
}

#[test]
fn a_good_release_is_promoted_in_hold_mode() {
    a_good_release_is_promoted(json!({"onRevert": "Hold"}));
}

#[test]
fn arming_writes_little_and_then_rests() {
    let mut world = World::new(json!({}));
    world.arm();
    assert!(world.writes.len() <= 8, "{:#?}", world.writes);
    assert_eq!(world.condition("Ready").0, "True");
    world.assert_rest();
    world.assert_plain_route();
}
