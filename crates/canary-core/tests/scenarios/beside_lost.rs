//! Baseline pods that are lost, not ready or not measured: when a stage goes on without them, and when it does not.

use std::time::Duration;

use canary_api::{ReleaseStatus, Step};
use canary_core::{
    Decision, Fetched, Observed,
    gates::{Measure, Reading},
};
use serde_json::json;

use crate::{
    beside::{left_out, release, says, weights},
    world::{Metrics, Sight, known, told_of},
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

fn unread() -> Measure {
    Measure::Error("timeout".to_owned())
}

/// A gate that compares with the baseline pods, which counted this.
fn compared(canary: Measure, stable: Measure, baseline_pods: Measure) -> Reading {
    Reading { baseline_pods: Some(baseline_pods), ..Reading::new("as-stable", canary, stable) }
}

/// The tick at the end of a stage, looked at once more, in which this was read.
fn at_the_end(mut sight: Sight, readings: Vec<Reading>) -> Decision {
    sight.now += Duration::from_secs(36);
    sight.decided(|seen| seen.measured.readings = readings)
}

#[test]
fn baseline_pods_are_left_out_only_where_a_comparison_with_them_is_what_lacks() {
    let world = release(&json!({}), (Step::Bake, 0));
    for (what, readings, out) in [
        ("they count nothing", vec![compared(SOME, SOME, none())], true),
        ("they count no request", vec![compared(SOME, SOME, ZERO)], true),
        ("they can't be read", vec![compared(SOME, SOME, unread())], false),
        ("both count nothing", vec![compared(none(), SOME, none())], false),
        ("both count something", vec![compared(SOME, none(), SOME)], false),
        (
            "a gate that compares with nothing lacks stable",
            vec![Reading::new("errors", SOME, none()), compared(SOME, SOME, SOME)],
            false,
        ),
    ] {
        let done = at_the_end(Sight::of(&world), readings);
        let told = "nothing could be compared with the baseline pods: stage 1/3 goes on without them, compared with all stable pods";
        assert_eq!(told_of(&done, "BaselineNotMeasured"), [told][..usize::from(out)], "{what}");
        let beside = done.status.current.unwrap().baseline_pods.unwrap();
        assert_eq!(beside.weight, if out { "0%" } else { "20%" }, "{what}");
        assert_eq!(told_of(&world.decide(), "BaselineNotMeasured"), NONE, "{what}");
    }
}

#[test]
fn baseline_pods_that_can_not_be_read_until_an_extensions_end_are_left_out() {
    let world = release(&json!({}), (Step::Bake, 0));
    let sight = Sight::of(&world);
    let begun = world.status().current.unwrap().step_since;
    let mut sight = sight.changed(|current| current.extended_since = begun);
    sight.now += Duration::from_secs(36);
    let done = sight.decided(|seen| seen.measured.readings = vec![compared(SOME, SOME, unread())]);
    assert_eq!(told_of(&done, "BaselineNotMeasured").len(), 1, "{:?}", done.notes);
    let current = done.status.current.unwrap();
    assert_eq!((current.step, current.extended_since), (Step::Bake, None));
}

#[test]
fn baseline_pods_without_weight_are_not_what_a_comparison_lacks() {
    let world = release(&json!({}), (Step::Bake, 0));
    let without_weight = |current: &mut ReleaseStatus| {
        current.baseline_pods.as_mut().unwrap().weight = "0%".to_owned();
    };
    let done = at_the_end(Sight::of(&world).changed(without_weight), vec![Reading::new("as-stable", SOME, none())]);
    assert_eq!(told_of(&done, "BaselineNotMeasured"), NONE);
    assert_eq!(told_of(&done, "StageExtended").len(), 1, "{:?}", done.notes);
    assert_eq!(done.status.current.unwrap().baseline_pods.unwrap().left_out, "");
}

#[test]
fn weight_waits_for_baseline_pods_whose_deployment_service_and_readiness_are_all_there() {
    let world = release(&json!({}), (Step::Shift, 0));
    // As it was before the weight was given.
    let ready = Sight::of(&world).changed(|current| {
        current.step = Step::Scale;
        current.weight = "0%".to_owned();
        current.baseline_pods.as_mut().unwrap().weight = "0%".to_owned();
    });
    let done = ready.decide().status.current.unwrap();
    assert_eq!((done.step, done.baseline_pods.unwrap().weight.as_str()), (Step::Shift, "20%"));
    let rolling = |seen: &mut Observed| known(&mut seen.baseline.deployment)["status"]["updatedReplicas"] = json!(0);
    let nameless = |seen: &mut Observed| seen.baseline.service = Fetched::Missing;
    let fresh = |seen: &mut Observed| {
        let conditions = known(&mut seen.baseline.pods)[0]["status"]["conditions"].as_array_mut().unwrap();
        conditions.iter_mut().for_each(|one| one["lastTransitionTime"] = json!(world.now.to_string()));
    };
    for (what, done) in [
        ("rolling", ready.decided(rolling)),
        ("without a Service", ready.decided(nameless)),
        ("just ready", ready.decided(fresh)),
    ] {
        let waits = "; 1 of 1 baseline pods are ready; 1m after the step began the stage goes on without them";
        assert!(done.status.message.ends_with(waits), "{what}: {}", done.status.message);
        let current = done.status.current.unwrap();
        assert_eq!((current.step, current.weight.as_str()), (Step::Scale, "0%"), "{what}");
    }
}
