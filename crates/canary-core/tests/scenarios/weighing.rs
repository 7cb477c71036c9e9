//! How a stage gets its weight: the pods, the reads and the routes that it waits for, what takes it away again, and how
//! the weight goes back.

use std::time::Duration;

use canary_api::{ReleaseStatus, Step};
use canary_core::{Decision, Fetched, Observed};
use serde_json::{Value, json};

use crate::world::{
    Change, Sight, World, assert_waits, brief, failed, known, not_ready, release, reverted, step, stopped, told,
};

/// Before the second stage, whose pods are there; nothing but a stable side that is too small kept it.
fn before_stage_2() -> Sight {
    let mut world = World::with_release(brief(), "v2", (Step::Bake, 0));
    world.scale(2);
    world.reach((Step::Scale, 1));
    world.run(10);
    world.scale(4);
    for _ in 0..8 {
        world.step(Duration::from_millis(500));
    }
    Sight::of_brief(&world).gauge(1.0, 0).since(10_000)
}

#[test]
fn a_stage_begins_when_its_pods_are_there() {
    let done = before_stage_2().decide();
    assert_eq!((step(&done), done.wake_after), (Step::Shift, Some(Duration::ZERO)), "{}", done.status.message);
    assert_eq!((release(&done).weight.as_str(), &release(&done).counts), ("50%", &vec![]));
    assert_eq!(release(&done).window_since, release(&done).step_since);
    assert_eq!(told(&done), [("StageStarted", "stage 2/3: 50% of the traffic for 30s")]);
}

#[test]
fn a_stage_does_not_begin_before_what_it_needs_was_read() {
    let before = before_stage_2();
    let unread = |change: Change| before.decided(change);
    for (done, what) in [
        (unread(|seen| seen.canary_pods = failed()), "the canary's pods"),
        (unread(|seen| seen.canary = failed()), "the canary"),
        (unread(|seen| seen.canary_service = failed()), "the canary's Service"),
        (unread(|seen| seen.target = failed()), "the target"),
        (unread(|seen| seen.target_pods = failed()), "the target's pods"),
    ] {
        assert_eq!((step(&done), release(&done).weight.as_str()), (Step::Scale, "10%"));
        assert_waits(&done, &format!("{what} could not be read: timeout"));
    }
}

#[test]
fn a_stage_does_not_begin_before_its_pods_are_of_the_candidate_available_and_known_to_gateways() {
    let before = before_stage_2();
    let few = |ready: usize| format!("{ready} of 2 canary pods are ready; the deadline is 1m after the step began");
    let status = |field: &'static str, value: i64| {
        let done = before.clone().canary(|canary| canary["status"][field] = json!(value)).decide();
        (step(&done), done)
    };
    let generation = known(&mut before.clone().seen.canary)["metadata"]["generation"].as_i64().unwrap();
    for (field, value) in [("observedGeneration", generation - 1), ("updatedReplicas", 1), ("availableReplicas", 1)] {
        let (at, done) = status(field, value);
        assert_eq!(at, Step::Scale, "{field}");
        assert_waits(&done, &few(2));
    }
    for (field, value) in
        [("observedGeneration", generation), ("observedGeneration", generation + 1), ("availableReplicas", 3)]
    {
        assert_eq!(status(field, value).0, Step::Shift, "{field} {value}");
    }
    let uncounted = before.clone().canary(|canary| {
        canary["status"]["updatedReplicas"] = json!(1);
        canary["status"].as_object_mut().unwrap().remove("replicas");
    });
    assert_waits(&uncounted.decide(), &few(2));
    let one_short = before.decided(|seen| not_ready(&mut known(&mut seen.canary_pods)[0]));
    assert_waits(&one_short, &few(1));
    let no_service = before.decided(|seen| seen.canary_service = Fetched::Missing);
    assert_waits(&no_service, "the canary's pods are ready, and its Service is not there yet");
    let young = before.now.to_string();
    let fresh = |pod: &mut Value| pod["status"]["conditions"][0]["lastTransitionTime"] = json!(young);
    let done = before.canary_pods(fresh).decide();
    assert_eq!((step(&done), done.wake_after), (Step::Scale, Some(Duration::from_secs(1))));
    assert_waits(&done, "the canary's pods are ready; gateways are given a moment to learn of them");
}

#[test]
fn a_stable_side_that_is_too_small_keeps_a_stage_for_as_long_as_pods_may_take_and_then_stops_it() {
    let small = || before_stage_2().seeing(|seen| not_ready(&mut known(&mut seen.target_pods)[0]));
    let why = "3 of 4 stable pods are ready: no more traffic is moved until all are";
    for millis in [10_000, 60_000] {
        let done = small().since(millis).decide();
        assert_eq!((step(&done), stopped(&done)), (Step::Scale, None));
        assert_waits(&done, why);
    }
    let done = small().since(60_001).decide();
    assert_eq!((stopped(&done), release(&done).weight.as_str()), (Some(("StableTooSmall", why, false)), "10%"));
    let text = format!("{why}; the weight stays: mend it and give the command resume, or abort");
    assert_eq!(told(&done), [("Paused", text.as_str())]);
}

#[test]
fn whoever_scaled_the_target_down_is_named() {
    let managed = |manager: &str, field: &str, time: &str| json!({"manager": manager, "time": time, "fieldsV1": {"f:spec": {field: {}}}});
    let by = |hpa: Option<Value>, managers: Value| {
        let sight = before_stage_2().target(|target| {
            target["spec"]["replicas"] = json!(3);
            target["metadata"]["managedFields"] = managers;
        });
        sight.decided(|seen| seen.autoscalers = Fetched::Known(hpa.into_iter().collect()))
    };
    let hpa = |managers: Value| {
        Some(json!({
            "metadata": {"name": "web", "managedFields": managers},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}},
        }))
    };
    let ours = json!([]);
    let helms = json!([{"manager": "helm", "fieldsV1": {"f:spec": {"f:behavior": {"f:scaleDown": {}}}}}]);
    let two = json!([
        managed("helm", "f:replicas", "2026-01-01T00:00:00Z"),
        managed("kubectl", "f:replicas", "2026-01-02T00:00:00Z"),
        managed("argocd", "f:template", "2026-01-03T00:00:00Z"),
    ]);
    for (done, owner) in [
        (by(None, two), "kubectl"),
        (by(None, json!([])), "someone"),
        (by(hpa(ours), json!([])), "HorizontalPodAutoscaler web (its scale-down belongs to us)"),
        (by(hpa(helms), json!([])), "HorizontalPodAutoscaler web (its scale-down belongs to helm)"),
    ] {
        let text = "no more traffic is moved until it has 4 again";
        assert_waits(&done, &format!("Deployment web was scaled from 4 to 3 pods by {owner}: {text}"));
    }
}

#[test]
fn weight_is_not_raised_while_nothing_is_known_of_the_candidate() {
    let blind = |millis| before_stage_2().since(millis).seeing(|seen| seen.measured.readings.clear());
    for millis in [10_000, 60_000] {
        let done = blind(millis).decide();
        assert_eq!((step(&done), stopped(&done)), (Step::Scale, None));
        assert_waits(&done, "no data of staleness: the weight is not raised before there are");
    }
    let why = "stage 2/3 does not begin without a verdict from staleness";
    let done = blind(60_001).decide();
    assert_eq!((stopped(&done), release(&done).weight.as_str()), (Some(("Inconclusive", why, false)), "10%"));
    let done = blind(60_001).with(json!({"onInconclusive": "Revert"})).decide();
    assert_eq!(reverted(&done), Some(("Inconclusive", "gates", true)));
    assert_eq!(step(&blind(60_001).changed(|current| current.partial = true).decide()), Step::Shift);
    let without = blind(10_000).changed(|current| current.weight = "0%".to_owned());
    assert_eq!(step(&without.decide()), Step::Shift);
}

/// While the second stage's weight is written: for so long, and since another step than the one that the stage began with.
fn shifting(millis: i64) -> Sight {
    Sight::good((Step::Shift, 1)).since(millis).changed(|current| current.window_since = None)
}

/// As `shifting`, and the gateway has taken the weight over.
pub fn shifted(millis: i64) -> Sight {
    shifting(millis).routes_of((Step::Bake, 1))
}

#[test]
fn a_stage_is_judged_from_when_the_gateway_had_time_to_switch() {
    let early = shifted(2499).decide();
    assert_eq!((step(&early), early.wake_after), (Step::Shift, Some(Duration::from_millis(1))));
    assert_waits(&early, "the gateway takes the weight over");
    let before = |current: &mut ReleaseStatus| {
        (current.extended_since, current.approved) = (current.step_since.clone(), true);
    };
    let done = shifted(2500).changed(before).decide();
    assert_eq!((step(&done), done.wake_after), (Step::Bake, Some(Duration::from_millis(500))));
    assert_eq!((&release(&done).extended_since, release(&done).approved), (&None, false));
}

#[test]
fn a_route_that_was_not_written_for_want_of_an_operator_has_its_time_again_and_is_refused_else() {
    let unread = |sight: Sight| sight.seeing(|seen| seen.routes[0].1 = failed());
    let plain = |sight: Sight| sight.routes_of((Step::Baseline, 0));
    let untaken = "gateway gate has not looked at the present form of route web";
    for (sight, why, again) in [
        (unread as fn(Sight) -> Sight, "HTTPRoute web could not be read: timeout", true),
        (plain, "HTTPRoute web does not have weight 500/1000 yet", true),
        (|sight| sight, untaken, false),
    ] {
        let waits = |done: &Decision, anew: bool| {
            assert_eq!((step(done), stopped(done)), (Step::Shift, None), "{why}");
            assert_waits(done, why);
            assert_eq!(release(done).step_since.as_ref().unwrap().0 >= shifting(0).now, anew, "{why}");
        };
        waits(&sight(shifting(60_000)).decide(), false);
        let refused = Some(("RouteNotAccepted", why, true));
        assert_eq!(stopped(&sight(shifting(60_001)).decide()), refused);
        assert_eq!(stopped(&sight(shifting(90_000)).decide()), refused);
        let first =
            sight(shifting(60_001)).changed(|current| current.window_since = current.step_since.clone()).decide();
        let absent = sight(shifting(90_001)).decide();
        for done in [first, absent] {
            match again {
                true => waits(&done, true),
                false => assert_eq!(stopped(&done), refused),
            }
        }
    }
}

#[test]
fn weight_that_the_canarys_pods_can_not_carry_is_not_written_and_that_is_said() {
    let why = "the canary's pods are not all ready behind its Service: its weight is not raised";
    let short = |seen: &mut Observed| not_ready(&mut known(&mut seen.canary_pods)[0]);
    for lacks in [short, (|seen| seen.canary_service = Fetched::Missing) as Change] {
        let before = |millis| {
            let sight = shifting(millis).seeing(lacks).routes_of((Step::Baseline, 0));
            sight.route(|route| route["metadata"]["labels"] = json!({}))
        };
        let done = before(1000).decide();
        assert_eq!((step(&done), stopped(&done)), (Step::Shift, None));
        assert_waits(&done, why);
        assert!(done.effects.iter().all(|effect| effect.name() != "web" || effect.kind().as_str() != "HTTPRoute"));
        assert_eq!(stopped(&before(60_001).decide()), Some(("NotReady", why, true)));
    }
}

#[test]
fn a_route_is_switched_where_it_says_so_and_on_the_way_back_where_nothing_of_ours_has_weight() {
    let of = |place| Sight::at(place).seen.routes[0].1.clone();
    let foreign = |weight: i64| {
        let mut route = of((Step::Bake, 1));
        let entries = &mut known(&mut route)["spec"]["rules"][0]["backendRefs"];
        entries[1]["weight"] = json!(weight);
        entries.as_array_mut().unwrap().push(json!({"name": "shadow", "weight": 1}));
        known(&mut route)["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(weight);
        route
    };
    let absent = || {
        let mut route = of((Step::Baseline, 0));
        known(&mut route)["spec"]["rules"] = json!([]);
        route
    };
    for (route, there, back) in [
        (of((Step::Bake, 1)), true, false),
        (of((Step::Bake, 0)), false, false),
        (of((Step::Drain, 2)), false, true),
        (of((Step::Baseline, 0)), false, true),
        (absent(), false, true),
        (foreign(500), false, false),
        (foreign(0), false, true),
        (Fetched::Missing, false, true),
    ] {
        let done = shifted(9000).decided(|seen| seen.routes[0].1 = route.clone());
        assert_eq!(step(&done) == Step::Bake, there, "{}", done.status.message);
        let done = Sight::good((Step::HandBack, 2)).since(9000).decided(|seen| seen.routes[0].1 = route);
        assert_eq!(step(&done) == Step::Drain, back, "{}", done.status.message);
        if !back {
            assert_waits(&done, "HTTPRoute web does not have weight 0/1000 yet");
        }
    }
}

#[test]
fn a_route_that_shares_with_baseline_pods_is_named_so_until_it_does() {
    let over = json!({
        "baseline": {"duration": "20s", "pods": true},
        "stages": [{"weight": "20%", "duration": "30s"}, {"weight": "100%", "duration": "30s"}],
        "gates": [
            {"name": "staleness", "value": {"query": "max(staleness{pod=~\"$pods\"})", "max": 30}},
            {"name": "as-stable", "relative": {"counter": "bad_total", "to": "Stable", "margin": "50%"}},
        ],
    });
    let at = |step| Sight::of(&World::with_release(over.clone(), "v2", (step, 0))).gauge(1.0, 0).since(9000);
    let mut shift = at(Step::Shift).routes_of((Step::Baseline, 0));
    assert_waits(&shift.decide(), "HTTPRoute web does not have weight 200/1000 for canary and baseline pods yet");
    shift.seen.routes = at(Step::Bake).seen.routes;
    assert_eq!(step(&shift.decide()), Step::Bake);
    let less = |route: &mut Value| {
        for rule in 0..2 {
            let entries = &mut route["spec"]["rules"][rule]["backendRefs"];
            (entries[0]["weight"], entries[2]["weight"]) = (json!(700), json!(100));
        }
    };
    assert_eq!(step(&shift.route(less).decide()), Step::Shift);
}

#[test]
fn a_stage_whose_route_lost_the_weight_begins_anew() {
    let lost = |sight: Sight| sight.route(|route| route["spec"]["rules"][0]["backendRefs"][1]["weight"] = json!(0));
    let at = |place| Sight::good(place).since(9000);
    let done = lost(at((Step::Bake, 1))).decide();
    assert_eq!((step(&done), done.wake_after), (Step::Shift, Some(Duration::from_millis(500))));
    assert_waits(&done, "HTTPRoute web does not give the canary 500/1000");
    assert_eq!(step(&lost(at((Step::Bake, 1)).paused(false)).decide()), Step::Bake);
    assert_eq!(step(&lost(at((Step::Scale, 1))).decide()), Step::Scale);
    for (route, found) in [(Fetched::Missing, Step::Shift), (failed(), Step::Bake)] {
        let done = at((Step::Bake, 1)).decided(|seen| seen.routes[0].1 = route);
        assert_eq!(step(&done), found);
        assert_eq!(done.status.message.ends_with("; HTTPRoute web is gone"), found == Step::Shift);
    }
}

#[test]
fn a_target_that_can_not_be_read_is_said_and_ends_nothing() {
    let done = Sight::good((Step::Bake, 1)).decided(|seen| seen.target = failed());
    assert_eq!((step(&done), done.wake_after), (Step::Bake, Some(Duration::from_secs(5))));
    assert_waits(&done, "Deployment web could not be read: timeout");
}
