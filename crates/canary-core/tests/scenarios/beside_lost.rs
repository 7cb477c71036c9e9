//! Baseline pods that are lost, not ready or not measured: when a stage goes on without them, and when it does not.

use std::time::Duration;

use canary_api::Step;
use canary_core::{
    Decision, Fetched, Observed, decide,
    evidence::LeftOut,
    gates::{Measure, Reading},
};
use serde_json::json;

use crate::{
    beside::{left_out, release, says, weights},
    world::{Metrics, World},
};

#[test]
fn where_the_canary_counts_nothing_either_the_baseline_pods_are_kept() {
    for metrics in [Metrics::Down, Metrics::Silent] {
        let mut world = release(&json!({}), (Step::Shift, 0));
        world.metrics = metrics;
        world.until("it is paused", |world| world.status().current.unwrap().paused.is_some());
        assert_eq!(world.status().current.unwrap().paused.unwrap().reason, "Inconclusive");
        assert_eq!((weights(&world), left_out(&world).as_str()), ((200, 200), ""), "{metrics:?}");
        assert_eq!(says(&world, "BaselineNotMeasured"), 0, "{metrics:?}");
    }
}

const NONE: [&str; 0] = [];
const SOME: Measure = Measure::Counted { n: 500.0, k: 5.0, seconds: 30.0 };
const ZERO: Measure = Measure::Counted { n: 0.0, k: 0.0, seconds: 30.0 };

fn none() -> Measure {
    Measure::NoData("no series".to_owned())
}

/// A gate that comes to no verdict: what each side counted.
fn reading(gate: &str, canary: Measure, stable: Measure, baseline_pods: Option<Measure>) -> Reading {
    Reading {
        gate: gate.to_owned(),
        canary,
        stable,
        proof: None,
        baseline_pods,
        baseline: None,
        evidence: None,
        bursts: None,
        left_out: LeftOut::default(),
    }
}

/// The tick at the end of a stage in which this was read.
fn at_the_end(world: &World, seen: &mut Observed, readings: Vec<Reading>) -> Decision {
    seen.measured.readings = readings;
    decide(seen, world.now + Duration::from_secs(31))
}

fn words<'d>(done: &'d Decision, reason: &str) -> Vec<&'d str> {
    done.notes.iter().filter(|note| note.reason == reason).map(|note| note.text.as_str()).collect()
}

#[test]
fn baseline_pods_are_left_out_only_where_a_comparison_with_them_is_what_lacks() {
    let world = release(&json!({}), (Step::Bake, 0));
    for (what, readings, out) in [
        ("they count nothing", vec![reading("as-stable", SOME, SOME, Some(none()))], true),
        ("they count no request", vec![reading("as-stable", SOME, SOME, Some(ZERO))], true),
        ("both count nothing", vec![reading("as-stable", none(), SOME, Some(none()))], false),
        ("both count something", vec![reading("as-stable", SOME, none(), Some(SOME))], false),
        (
            "a gate that compares with nothing lacks stable",
            vec![reading("errors", SOME, none(), None), reading("as-stable", SOME, SOME, Some(SOME))],
            false,
        ),
    ] {
        let done = at_the_end(&world, &mut world.seen("web"), readings);
        let told = "nothing could be compared with the baseline pods: stage 1/3 goes on without them, compared with all stable pods";
        assert_eq!(words(&done, "BaselineNotMeasured"), [told][..usize::from(out)], "{what}");
        let beside = done.status.current.unwrap().baseline_pods.unwrap();
        assert_eq!(beside.weight, if out { "0%" } else { "20%" }, "{what}");
        assert_eq!(words(&decide(&world.seen("web"), world.now), "BaselineNotMeasured"), NONE, "{what}");
    }
}

#[test]
fn baseline_pods_without_weight_are_not_what_a_comparison_lacks() {
    let world = release(&json!({}), (Step::Bake, 0));
    let mut seen = world.seen("web");
    let current = seen.release.status.as_mut().unwrap().current.as_mut().unwrap();
    current.baseline_pods.as_mut().unwrap().weight = "0%".to_owned();
    let done = at_the_end(&world, &mut seen, vec![reading("as-stable", SOME, none(), None)]);
    assert_eq!(words(&done, "BaselineNotMeasured"), NONE);
    assert_eq!(words(&done, "StageExtended").len(), 1, "{:?}", done.notes);
    assert_eq!(done.status.current.unwrap().baseline_pods.unwrap().left_out, "");
}

#[test]
fn weight_waits_for_baseline_pods_whose_deployment_service_and_readiness_are_all_there() {
    let world = release(&json!({}), (Step::Shift, 0));
    // As it was before the weight was given.
    let mut ready = world.seen("web");
    let current = ready.release.status.as_mut().unwrap().current.as_mut().unwrap();
    current.step = Step::Scale;
    current.weight = "0%".to_owned();
    current.baseline_pods.as_mut().unwrap().weight = "0%".to_owned();
    let done = decide(&ready, world.now).status.current.unwrap();
    assert_eq!((done.step, done.baseline_pods.unwrap().weight.as_str()), (Step::Shift, "20%"));
    let mut rolling = ready.clone();
    let Fetched::Known(deployment) = &mut rolling.baseline.deployment else { panic!("their Deployment") };
    deployment["status"]["updatedReplicas"] = json!(0);
    let mut nameless = ready.clone();
    nameless.baseline.service = Fetched::Missing;
    let mut fresh = ready.clone();
    let Fetched::Known(pods) = &mut fresh.baseline.pods else { panic!("their pods") };
    for condition in pods[0]["status"]["conditions"].as_array_mut().unwrap() {
        condition["lastTransitionTime"] = json!(world.now.to_string());
    }
    for (what, seen) in [("rolling", rolling), ("without a Service", nameless), ("just ready", fresh)] {
        let done = decide(&seen, world.now);
        let waits = "; 1 of 1 baseline pods are ready; 1m after the step began the stage goes on without them";
        assert!(done.status.message.ends_with(waits), "{what}: {}", done.status.message);
        let current = done.status.current.unwrap();
        assert_eq!((current.step, current.weight.as_str()), (Step::Scale, "0%"), "{what}");
    }
}
