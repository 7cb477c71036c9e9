//! Breaches: traffic goes back at once, whatever the release is doing; and missing data, which is
//! never a pass.

use canary_api::Step;
use serde_json::json;

use crate::world::{Metrics, World};

/// Every place of a release at which the candidate has traffic, or had it just now.
pub const WITH_TRAFFIC: [(Step, i32); 12] = [
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
    (Step::Soak, 2),
];

fn soaking(mode: &str) -> serde_json::Value {
    json!({"onRevert": mode, "soak": "60s"})
}

fn breach_at(mode: &str, place: (Step, i32)) {
    let mut world = World::with_release(soaking(mode), "v2", place);
    world.faulty("v2", 0.5);
    let since = world.now;
    world.until("no traffic on the candidate", |world| {
        world.weight() == 0
            && world.place().0 >= Step::Revert
            && world.status().current.unwrap().revert.unwrap().clear_at.is_some()
    });
    let took = world.now.duration_since(since).as_secs();
    // One interval to see it, and what the gateway takes; for a target that rolled also its pods.
    assert!(took <= 25, "{place:?}: {took}s\n{}", world.describe());
    assert_eq!(world.finish(), "RolledBack", "{place:?}: {}", world.describe());
    let status = world.status();
    let revert = status.current.clone().unwrap().revert.unwrap();
    assert!(revert.message.contains("gate errors") && revert.message.contains("<= 1%"), "{}", revert.message);
    assert_eq!(world.condition("Stalled").0, "True");
    assert_eq!(world.served(), ["web:v1"], "{place:?}: {}", world.describe());
    let held = mode == "Hold" && place.0 < Step::Roll;
    assert_eq!(world.image(), if held { "web:v2" } else { "web:v1" }, "{place:?}");
    assert_eq!(world.paused(), held, "{place:?}: {}", world.describe());
    assert_eq!(world.canary_pods(), 0);
    assert_eq!(world.unanswered, 0.0, "{place:?}");
    world.assert_plain_route();
    world.assert_rest();
}

#[test]
fn a_breach_reverts_at_every_step_and_restores_the_template() {
    WITH_TRAFFIC.into_iter().for_each(|place| breach_at("Restore", place));
}

#[test]
fn a_breach_reverts_at_every_step_and_holds_the_template() {
    WITH_TRAFFIC.into_iter().for_each(|place| breach_at("Hold", place));
}

#[test]
fn a_breach_while_paused_reverts() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.command(&format!("pause {}", world.id()));
    world.run(20);
    assert!(world.status().current.unwrap().paused.is_some());
    world.faulty("v2", 0.3);
    assert_eq!(world.finish(), "RolledBack");
    assert_eq!(world.served(), ["web:v1"]);
    world.assert_rest();
}

#[test]
fn a_gauge_out_of_bounds_reverts() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    world.versions.entry("web:v2".to_owned()).or_default().staleness = 99.0;
    assert_eq!(world.finish(), "RolledBack");
    assert!(world.status().current.unwrap().revert.unwrap().message.contains("gate staleness"));
    world.assert_rest();
}

#[test]
fn a_breach_is_final_although_the_candidate_is_good_again() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.faulty("v2", 0.5);
    world.until("the breach is seen", |world| world.place().0 == Step::Revert);
    world.faulty("v2", 0.0);
    assert_eq!(world.finish(), "RolledBack");
    // Applied again, it is known, held or not, and gets neither pods nor traffic.
    let pods = world.answers.get("web:v2").copied();
    world.apply("v2").unwrap();
    world.run(300);
    assert_eq!(world.answers.get("web:v2").copied(), pods);
    assert_eq!((world.served(), world.canary_pods()), (vec!["web:v1".to_owned()], 0));
    assert!(world.notes.iter().any(|note| note.contains("RejectedTemplateReapplied")), "{}", world.describe());
    world.assert_rest();
}

#[test]
fn traffic_goes_back_although_the_status_cannot_be_written() {
    for place in [(Step::Bake, 0), (Step::Bake, 1), (Step::Bake, 2)] {
        let mut world = World::with_release(json!({}), "v2", place);
        world.status_refused = true;
        world.faulty("v2", 0.5);
        world.run(15);
        assert_eq!(world.weight(), 0, "{place:?}: {}", world.describe());
        assert_eq!(world.place(), place, "no status could be written");
        let (writes, pods) = (world.writes.len(), world.canary_pods());
        world.run(120);
        assert_eq!(
            (world.writes.len(), world.canary_pods(), world.weight()),
            (writes, pods, 0),
            "{}",
            world.describe()
        );
        world.status_refused = false;
        assert_eq!(world.finish(), "RolledBack", "{}", world.describe());
        world.assert_rest();
    }
}

/// A gauge comes back to its bounds by itself, where a count does not: the breach must stand all the same.
#[test]
fn weight_that_went_back_does_not_return_while_the_status_cannot_be_written() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.status_refused = true;
    world.versions.entry("web:v2".to_owned()).or_default().staleness = 99.0;
    world.until("no traffic on the candidate", |world| world.weight() == 0);
    world.versions.entry("web:v2".to_owned()).or_default().staleness = 1.0;
    world.run(60);
    assert_eq!(world.weight(), 0, "{}", world.describe());
}

#[test]
fn a_bad_stable_version_starts_no_release() {
    let mut world = World::new(json!({}));
    world.arm();
    world.faulty("v1", 0.3);
    world.apply("v2").unwrap();
    world.run(120);
    assert_eq!((world.place().0, world.weight(), world.canary_pods()), (Step::Baseline, 0, 0));
    assert_eq!(world.status().current.unwrap().paused.unwrap().reason, "StableInBreach");
    world.faulty("v1", 0.0);
    world.command(&format!("resume {}", world.id()));
    world.run(120);
    world.assert_no_turning();
}

fn without_data(metrics: Metrics, place: (Step, i32)) {
    let mut world = World::with_release(json!({}), "v2", place);
    let weight = world.weight();
    world.metrics = metrics;
    world.run(600);
    assert_eq!(world.place(), place, "{metrics:?}: {}", world.describe());
    assert_eq!(world.weight(), weight);
    assert_eq!(world.status().current.unwrap().paused.unwrap().reason, "Inconclusive");
    assert!(world.status().gates.iter().all(|gate| gate.verdict == "NoData"), "{:?}", world.status().gates);
    world.assert_no_turning();
    world.metrics = Metrics::Fine;
    world.command(&format!("resume {}", world.id()));
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    world.assert_rest();
}

#[test]
fn missing_data_never_passes_holds_and_goes_on_after() {
    for place in [(Step::Bake, 0), (Step::Bake, 1), (Step::Bake, 2)] {
        without_data(Metrics::Down, place);
        without_data(Metrics::Silent, place);
    }
}

#[test]
fn without_metrics_a_command_still_reverts() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.metrics = Metrics::Down;
    world.run(10);
    world.command("abort");
    assert_eq!(world.finish(), "Aborted");
    world.assert_rest();
}

#[test]
fn missing_data_reverts_where_the_spec_says_so() {
    let mut world = World::with_release(json!({"onInconclusive": "Revert"}), "v2", (Step::Bake, 1));
    world.metrics = Metrics::Silent;
    assert_eq!(world.finish(), "RolledBack");
    assert_eq!(world.status().current.unwrap().revert.unwrap().reason, "Inconclusive");
    world.assert_rest();
}

#[test]
fn a_canary_that_is_silent_where_it_should_not_be_gives_the_traffic_back_and_is_not_rejected() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.obeyed = 0.0;
    world.fate_changed();
    world.run(30);
    assert_eq!(world.weight(), 0, "{}", world.describe());
    assert_eq!(world.status().current.unwrap().paused.unwrap().reason, "CanarySilent");
    world.obeyed = 1.0;
    world.fate_changed();
    world.command(&format!("resume {}", world.id()));
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    world.assert_rest();
}

#[test]
fn a_canary_that_gets_a_fiftieth_of_its_weight_passes_no_stage() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    let weight = world.weight();
    world.obeyed = 0.02;
    world.fate_changed();
    world.run(600);
    assert_eq!((world.place(), world.weight()), ((Step::Bake, 1), weight), "{}", world.describe());
    assert_eq!(world.status().current.unwrap().paused.unwrap().reason, "Inconclusive");
    let said = world.status().gates.iter().find(|gate| gate.gate == "errors").unwrap().rests_on.clone();
    assert!(said.contains("was asked for"), "{said}");
}

#[test]
fn too_few_requests_are_no_verdict() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    world.rate = 0.5;
    world.fate_changed();
    world.run(600);
    assert_eq!(world.place(), (Step::Bake, 0));
    assert!(world.status().current.unwrap().paused.is_some());
}
