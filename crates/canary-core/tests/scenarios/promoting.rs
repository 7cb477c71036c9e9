//! The end of a good release: the target takes the candidate over, traffic goes back to it, the canary drains, and the
//! soak.

use std::time::Duration;

use canary_api::{Step, names};
use canary_core::{Decision, Fetched, Kind};
use serde_json::{Value, json};

use crate::{
    canary_pods::{crashes, finds_no_node},
    world::{Change, Sight, assert_waits, back, failed, known, not_ready, release, reverted, step, told, unmark},
};

/// The target was let go, and all of its pods run the candidate.
fn rolled() -> Sight {
    let sight = Sight::good((Step::HandBack, 2)).since(1000);
    sight.changed(|current| {
        current.step = Step::Roll;
        current.weight = "100%".to_owned();
    })
}

#[test]
fn traffic_goes_back_to_a_target_that_has_rolled() {
    let done = rolled().decide();
    assert_eq!(
        (step(&done), release(&done).weight.as_str(), done.wake_after),
        (Step::HandBack, "0%", Some(Duration::ZERO))
    );
}

#[test]
fn traffic_stays_on_the_canary_until_all_of_the_target_carries_it() {
    let changed = |change: Change| rolled().seeing(change);
    let mended = "traffic stays on the canary's pods until that is mended";
    let no_selection = format!("Service web does not select the pods of Deployment web: {mended}");
    for (sight, why) in [
        (changed(|seen| seen.target_pods = failed()), "the target's pods could not be read: timeout"),
        (changed(|seen| seen.service = failed()), "the stable Service could not be read: timeout"),
        (changed(|seen| known(&mut seen.service)["spec"]["selector"] = json!({"app": "else"})), no_selection.as_str()),
        (
            changed(|seen| not_ready(&mut known(&mut seen.target_pods)[0])),
            "3 of 4 stable pods are ready: no more traffic is moved until all are",
        ),
        (
            rolled().target(|target| target["status"]["updatedReplicas"] = json!(3)),
            "3 of 4 pods of Deployment web run the candidate",
        ),
        (
            rolled().target(|target| unmark(target, names::ANNOTATION_ROLLING)),
            "4 of 4 pods of Deployment web run the candidate",
        ),
    ] {
        let done = sight.decide();
        assert_eq!((step(&done), release(&done).weight.as_str()), (Step::Roll, "100%"), "{why}");
        assert_waits(&done, why);
    }
    let gone = changed(|seen| seen.service = Fetched::Missing).decide();
    assert_eq!(step(&gone), Step::Roll);
    assert_waits(&gone, &format!("Service web is gone: {mended}"));
}

/// That traffic goes back is written to the status, and not to the route.
fn handing_back() -> Sight {
    Sight::good((Step::HandBack, 2)).since(1000).routes_of((Step::Roll, 2))
}

#[test]
fn traffic_that_was_not_handed_back_yet_stays_on_the_canary_where_the_target_carries_it_no_more() {
    let mended = "traffic stays on the canary's pods until that is mended";
    let gone = format!("Service web is gone: {mended}");
    let changes: [(Change, &str); 4] = [
        (|seen| seen.service = Fetched::Missing, gone.as_str()),
        (|seen| seen.service = failed(), "the stable Service could not be read: timeout"),
        (|seen| seen.target_pods = failed(), "the target's pods could not be read: timeout"),
        (
            |seen| not_ready(&mut known(&mut seen.target_pods)[0]),
            "3 of 4 stable pods are ready: no more traffic is moved until all are",
        ),
    ];
    for (change, why) in changes {
        let done = handing_back().decided(change);
        assert_eq!((step(&done), release(&done).weight.as_str()), (Step::Roll, "100%"), "{why}");
        assert_waits(&done, why);
        assert!(done.effects.iter().all(|effect| effect.kind() != Kind::HttpRoute), "{why}: {:?}", done.effects);
        // A route that has it back stays as it is.
        let written = handing_back().routes_of((Step::Drain, 2)).decided(change);
        assert_eq!((step(&written), release(&written).weight.as_str()), (Step::HandBack, "0%"), "{why}");
    }
}

#[test]
fn traffic_is_handed_back_to_what_there_is_where_the_canary_can_not_carry_it() {
    let short: Change = |seen| not_ready(&mut known(&mut seen.canary_pods)[0]);
    let dead: Change = |seen| known(&mut seen.canary_pods).iter_mut().for_each(not_ready);
    let dips: Change = |seen| not_ready(&mut known(&mut seen.target_pods)[0]);
    let unread: Change = |seen| seen.target_pods = failed();
    let gone: Change = |seen| seen.service = Fetched::Missing;
    for (canary, target, expected) in [
        (short, dips, Step::HandBack),
        (short, unread, Step::HandBack),
        (dead, dips, Step::HandBack),
        // Of two places without a pod neither is better.
        (dead, gone, Step::HandBack),
        (short, gone, Step::Roll),
    ] {
        let done = handing_back().seeing(canary).decided(target);
        let written = done.effects.iter().any(|effect| effect.kind() == Kind::HttpRoute);
        assert_eq!((step(&done), written), (expected, expected == Step::HandBack));
        assert_eq!(reverted(&done), None);
    }
}

#[test]
fn of_two_routes_the_one_that_was_handed_back_returns_only_from_a_service_that_is_known_to_lead_nowhere() {
    let half = || {
        let written = handing_back().routes_of((Step::Drain, 2)).seen.routes[0].1.clone();
        handing_back().seeing(|seen| {
            let mut written = written;
            known(&mut written)["metadata"]["name"] = json!("web-2");
            seen.routes.push(("web-2".to_owned(), written));
        })
    };
    let routes = |done: &Decision| -> Vec<String> {
        let routes = done.effects.iter().filter(|effect| effect.kind() == Kind::HttpRoute);
        routes.map(|effect| effect.name().to_owned()).collect()
    };
    let done = half().decide();
    assert_eq!((step(&done), routes(&done)), (Step::HandBack, vec!["web".to_owned()]));
    for change in
        [|seen| seen.service = failed(), |seen| not_ready(&mut known(&mut seen.target_pods)[0])] as [Change; 2]
    {
        let done = half().decided(change);
        assert_eq!((step(&done), routes(&done)), (Step::HandBack, vec!["web".to_owned()]));
    }
    let gone = half().decided(|seen| seen.service = Fetched::Missing);
    assert_eq!((step(&gone), routes(&gone)), (Step::Roll, vec!["web-2".to_owned()]));
    // One that is not there, or no longer names the Service, has nothing.
    let nothing: Change = |seen| seen.routes[1].1 = Fetched::Missing;
    let others: Change = |seen| known(&mut seen.routes[1].1)["spec"]["rules"] = json!([]);
    let failing: Change = |seen| seen.routes[1].1 = failed();
    for (second, expected) in [(nothing, Step::Roll), (others, Step::Roll), (failing, Step::HandBack)] {
        let done = half().seeing(second).decided(|seen| seen.target_pods = failed());
        assert_eq!(step(&done), expected);
    }
}

#[test]
fn a_target_takes_traffic_when_gateways_know_its_pods_but_those_that_go() {
    let now = rolled().now.to_string();
    let fresh = |pod: &mut Value| pod["status"]["conditions"][0]["lastTransitionTime"] = json!(now);
    let done = rolled().decided(|seen| known(&mut seen.target_pods).iter_mut().for_each(fresh));
    assert_eq!(step(&done), Step::Roll);
    assert_waits(&done, "the new pods are ready; gateways are given a moment to learn of them");
    let mut goes = rolled();
    let pods = known(&mut goes.seen.target_pods);
    let mut old = pods[0].clone();
    old["metadata"]["deletionTimestamp"] = json!(now);
    pods.push(old);
    assert_eq!(step(&goes.decide()), Step::HandBack);
}

#[test]
fn a_rollout_that_is_out_of_time_ends_the_release_by_whose_fault_it_is() {
    let stuck = |target: &mut Value| {
        target["status"]["updatedReplicas"] = json!(3);
        target["status"]["conditions"] =
            json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    };
    let late = |how: fn(&mut Value)| rolled().target(stuck).decided(|seen| how(&mut known(&mut seen.target_pods)[0]));
    let why = "Deployment web did not finish its rollout within its progressDeadlineSeconds";
    for (how, rejects) in [(not_ready as fn(&mut Value), true), (crashes, true), (finds_no_node, false)] {
        let done = late(how);
        assert_eq!(reverted(&done), Some(("RolloutFailed", "canary", rejects)));
        assert_eq!(back(&done).message, why);
    }
    let held = |target: &mut Value| target["spec"]["paused"] = json!(true);
    let done = rolled().target(stuck).target(held).decide();
    assert_eq!((step(&done), reverted_by(&done)), (Step::Roll, None));
    let in_time = rolled().target(|target| target["status"]["updatedReplicas"] = json!(3)).decide();
    assert_eq!((step(&in_time), reverted_by(&in_time)), (Step::Roll, None));
}

fn reverted_by(decision: &Decision) -> Option<&str> {
    release(decision).revert.as_ref().map(|revert| revert.by.as_str())
}

#[test]
fn a_held_target_is_not_let_go_before_the_canary_carries_everything() {
    let held = || Sight::good((Step::Roll, 2)).target(|target| target["spec"]["paused"] = json!(true));
    let changed = |change: Change| held().decided(change);
    let waits = "Deployment web waits until all of the canary's pods are ready behind its Service";
    for (done, why) in [
        (changed(|seen| seen.canary_service = Fetched::Missing), waits),
        (changed(|seen| seen.canary_service = failed()), "the canary's Service could not be read: timeout"),
        (changed(|seen| seen.canary_pods = failed()), "the canary's pods could not be read: timeout"),
        (held().short(0).decide(), "3 of 4 canary pods are ready"),
    ] {
        assert_eq!(step(&done), Step::Roll);
        assert_waits(&done, why);
        assert!(done.effects.iter().all(|effect| effect.name() != "web" || effect.kind().as_str() != "Deployment"));
    }
    let let_go = || rolled().target(|target| target["status"]["updatedReplicas"] = json!(3));
    for done in [let_go().short(0).decide(), let_go().decided(|seen| seen.canary_service = Fetched::Missing)] {
        assert_waits(&done, "3 of 4 pods of Deployment web run the candidate");
    }
}

#[test]
fn the_canary_drains_from_when_the_gateway_had_time_to_switch_back() {
    let sight = Sight::good((Step::HandBack, 2)).routes_of((Step::Drain, 2));
    let early = sight.clone().since(2499).decide();
    assert_eq!((step(&early), early.wake_after), (Step::HandBack, Some(Duration::from_millis(1))));
    assert_eq!(step(&sight.clone().since(2500).decide()), Step::Drain);
    let unread = sight.since(9000).decided(|seen| seen.routes[0].1 = failed());
    assert_eq!(step(&unread), Step::HandBack);
    assert_waits(&unread, "HTTPRoute web could not be read: timeout");
}

fn draining(millis: i64) -> Sight {
    Sight::good((Step::Drain, 2)).since(millis)
}

/// A hand gives the canary weight.
fn weighted(route: &mut Value) {
    route["spec"]["rules"][0]["backendRefs"][1]["weight"] = json!(500);
}

#[test]
fn the_canarys_pods_stay_for_the_drain_and_go_then() {
    let early = draining(9_999).decide();
    assert_eq!((release(&early).canary_pods, early.wake_after), (4, Some(Duration::from_millis(1))));
    assert_waits(&early, "the canary's requests end (10s)");
    let done = draining(10_000).decide();
    assert_eq!((step(&done), release(&done).canary_pods), (Step::Drain, 0));
    assert_waits(&done, "the canary is taken away and the routes are put back as they were");
}

#[test]
fn a_drain_begins_again_while_a_route_gives_the_canary_weight_or_can_not_be_read() {
    let done = draining(10_000).route(weighted).decide();
    assert_eq!(
        (step(&done), release(&done).canary_pods, done.wake_after),
        (Step::Drain, 4, Some(Duration::from_millis(500)))
    );
    assert!(release(&done).step_since.as_ref().unwrap().0 >= draining(0).now);
    assert_waits(&done, "HTTPRoute web does not have weight 0/1000 yet");
    let scaled = draining(10_000).route(weighted).canary(|canary| canary["spec"]["replicas"] = json!(6)).decide();
    assert_eq!(release(&scaled).canary_pods, 4, "what a hand makes of the canary is no wish of the release");
    let mut unread = draining(10_000);
    let before = unread.current().step_since.clone();
    let done = unread.decided(|seen| seen.routes[0].1 = failed());
    assert_eq!((release(&done).canary_pods, release(&done).step_since.clone()), (4, before));
    assert_waits(&done, "HTTPRoute web could not be read: timeout");
    let untaken = draining(10_000).route(|route| route["metadata"]["generation"] = json!(99)).decide();
    assert_eq!(release(&untaken).canary_pods, 0);
}

#[test]
fn pods_that_get_weight_once_more_after_the_drain_drain_once_more() {
    let drained = |route: fn(&mut Value), pods: i64| {
        let sight = draining(10_000).changed(|current| current.canary_pods = 0);
        let done = sight.route(route).canary(|canary| canary["spec"]["replicas"] = json!(pods)).decide();
        release(&done).canary_pods
    };
    let anothers = |route: &mut Value| {
        weighted(route);
        route["metadata"]["annotations"][names::ANNOTATION_UID] = json!("other");
    };
    assert_eq!([drained(weighted, 4), drained(weighted, 0), drained(|_| {}, 4), drained(anothers, 4)], [4, 0, 0, 0]);
}

/// The canary is gone, and the routes and the target are plain.
fn drained() -> Sight {
    let sight = Sight::good((Step::Soak, 2)).since(10_000);
    sight.changed(|current| {
        current.step = Step::Drain;
        current.canary_pods = 0;
    })
}

#[test]
fn a_drained_release_is_promoted_once_everything_is_as_it_was() {
    let soaks = drained().decide();
    assert_eq!((step(&soaks), soaks.status.outcome.as_str()), (Step::Soak, ""));
    let current = release(&soaks);
    assert_eq!((&current.window_since, &current.counts), (&current.step_since, &vec![]));
    let promoted = drained().with(json!({"soak": "0s"})).decide();
    assert_eq!(
        (promoted.status.outcome.as_str(), told(&promoted)[0]),
        ("Promoted", ("Promoted", "web-1: web:v2 is live"))
    );
    let partial = drained().with(json!({"soak": "0s"})).changed(|current| current.partial = true).decide();
    assert_eq!(told(&partial)[0].1, "web-1: web:v2 is live (PARTIAL: stages were skipped by command)");
    let tidying = "the canary is taken away and the routes are put back as they were";
    let rolls = |target: &mut Value| target["metadata"]["annotations"][names::ANNOTATION_ROLLING] = json!("web-1");
    let pods_left = drained().seeing(|seen| seen.canary = Sight::at((Step::Drain, 2)).seen.canary);
    let unknown = drained().seeing(|seen| seen.replica_sets = Fetched::Known(vec![]));
    for (sight, why) in [
        (drained().target(rolls), tidying),
        (pods_left, tidying),
        (unknown, "the ReplicaSet of the new version is not to be found yet"),
    ] {
        let done = sight.decide();
        assert_eq!(step(&done), Step::Drain);
        assert_waits(&done, why);
    }
}

#[test]
fn the_candidate_is_what_serves_from_the_end_of_the_drain() {
    let mut sight = drained();
    let hold = sight.status().hold.as_mut().unwrap();
    (hold.serving, hold.serving_record) = (None, String::new());
    let candidate = sight.current().candidate.clone();
    let hold = sight.decide().status.hold.unwrap();
    let serving = hold.serving.unwrap();
    assert_eq!((serving.digest, serving.images), (candidate.digest, vec!["web:v2".to_owned()]));
    let sets = known(&mut sight.seen.replica_sets);
    let own = sets.iter().find(|set| set["spec"]["replicas"] == json!(4)).unwrap();
    assert_eq!(json!(serving.replica_set), own["metadata"]["name"]);
    assert!(hold.serving_record.starts_with("web-serving-"), "{}", hold.serving_record);
}

#[test]
fn a_soak_lasts_its_time() {
    let soaking = |millis| Sight::good((Step::Soak, 2)).since(millis).decide();
    let early = soaking(59_999);
    assert_eq!((step(&early), early.wake_after), (Step::Soak, Some(Duration::from_millis(1))));
    assert_eq!(soaking(60_000).status.outcome, "Promoted");
}

#[test]
fn the_clock_of_a_soak_that_nobody_can_ask_is_set_again_now_and_then() {
    let gone = |millis, soak: &str| {
        let sight = Sight::good((Step::Soak, 2)).with(json!({"soak": soak})).since(millis);
        let done = sight.decided(|seen| seen.service = Fetched::Missing);
        assert_eq!(step(&done), Step::Soak);
        release(&done).step_since.as_ref().unwrap().0 >= sight.now
    };
    assert_eq!([gone(14_999, "60s"), gone(15_000, "60s")], [false, true]);
    assert_eq!([gone(59_999, "10m"), gone(60_000, "10m")], [false, true]);
}

#[test]
fn a_soak_is_asked_as_long_as_one_route_is_there() {
    let routes = |routes: &[(&str, bool)]| {
        let mut sight = Sight::good((Step::Soak, 2)).since(60_000);
        let there = sight.seen.routes[0].1.clone();
        let fetched = |there: &Fetched<Value>, is: bool| if is { there.clone() } else { Fetched::Missing };
        sight.seen.routes = routes.iter().map(|(name, is)| ((*name).to_owned(), fetched(&there, *is))).collect();
        sight.decide()
    };
    for routes_left in [&[("web", true), ("api", false)][..], &[("web", true)], &[]] {
        assert_eq!(routes(routes_left).status.outcome, "Promoted");
    }
    let gone = routes(&[("web", false), ("api", false)]);
    assert_eq!(step(&gone), Step::Soak);
    assert_waits(&gone, "HTTPRoute web and api is gone: that is no time of the soak");
}
