//! Between releases: when a target can be held, which version serves, and what a changed target is taken for. Mostly one
//! tick, decided on what would be seen.

use std::time::Duration;

use canary_api::{Counted, HoldStatus, Step, names};
use canary_core::{
    Decision, Fetched, Kind, Observed,
    gates::{Measure, Reading},
    object,
    observed::{Hold, Rival},
    template,
};
use serde_json::{Value, json};

use crate::{
    changes::rolled_back,
    world::{Change, JANE, World, current, failed, image, known, overridden, status, target, told},
};

const ROLLING: &str =
    "Deployment web is rolling: it is held once exactly one version runs and all its pods are available";

/// A CanaryRelease of which nothing is done yet but that it has its finalizer.
fn fresh() -> World {
    let mut world = World::new(json!({}));
    world.tick("web");
    world
}

fn hold(seen: &mut Observed) -> &mut HoldStatus {
    status(seen).hold.as_mut().unwrap()
}

fn digest_of(target: &Value) -> String {
    template::digest(&target["spec"]["template"])
}

/// No ReplicaSet has a pod or is asked for one.
fn without_pods(seen: &mut Observed) {
    for set in known(&mut seen.replica_sets) {
        set["spec"]["replicas"] = json!(0);
        set["status"]["replicas"] = json!(0);
    }
}

/// Why there is no release and none can start: reason, message, and whether only a person can mend it.
fn obstacle(done: &Decision) -> Option<(&str, &str, bool)> {
    let condition = |kind: &str| done.status.conditions.iter().find(|found| found.type_ == kind).unwrap();
    let ready = condition("Ready");
    (ready.status == "False")
        .then(|| (ready.reason.as_str(), done.status.message.as_str(), condition("Stalled").status == "True"))
}

fn served(done: &Decision) -> Option<Vec<String>> {
    done.status.hold.as_ref()?.serving.as_ref().map(|version| version.images.clone())
}

#[test]
fn the_tick_that_finds_what_serves_begins_to_label_the_target() {
    let world = fresh();
    let done = world.decide();
    assert_eq!(served(&done), Some(vec!["web:v1".to_owned()]));
    assert_eq!(obstacle(&done), Some(("Arming", "Deployment web is being labelled", false)));
    assert_eq!(done.wake_after, Some(Duration::from_millis(200)));
    let digest = digest_of(world.target());
    let short: String = digest.chars().skip("sha256:".len()).take(8).collect();
    assert_eq!(done.status.hold.unwrap().serving_record, format!("web-serving-{short}"));
}

#[test]
fn a_target_is_not_held_before_one_version_runs_with_all_its_pods() {
    let world = fresh();
    let cases: [(&str, Change); 5] = [
        ("a pod is not available", |seen| target(seen)["status"]["availableReplicas"] = json!(3)),
        ("what runs is not what is asked for", |seen| image(target(seen), "web:v2")),
        ("no pod was created yet", without_pods),
        ("it sleeps, and is paused", |seen| {
            without_pods(seen);
            target(seen)["spec"]["replicas"] = json!(0);
            target(seen)["spec"]["paused"] = json!(true);
        }),
        ("it sleeps, and its version never ran", |seen| {
            without_pods(seen);
            target(seen)["spec"]["replicas"] = json!(0);
            image(target(seen), "web:v2");
        }),
    ];
    for (case, change) in cases {
        let done = world.decided(change);
        assert_eq!(obstacle(&done), Some(("TargetRolling", ROLLING, false)), "{case}");
        assert_eq!((done.status.hold, done.effects), (None, Vec::new()), "{case}");
        assert_eq!(done.wake_after, Some(Duration::from_secs(5)), "{case}");
    }
}

#[test]
fn a_target_that_sleeps_is_held_with_the_version_it_would_wake_to() {
    let done = fresh().decided(|seen| {
        without_pods(seen);
        target(seen)["spec"]["replicas"] = json!(0);
    });
    assert_eq!(served(&done), Some(vec!["web:v1".to_owned()]));
}

#[test]
fn a_target_that_someone_else_keeps_paused_is_not_held() {
    let world = fresh();
    let seen_with = |manager: &str, field: &str, paused: bool| {
        world.decided(|seen| {
            target(seen)["spec"]["paused"] = json!(paused);
            let fields = json!([{"manager": manager, "fieldsV1": {"f:spec": {field: {}}}}]);
            target(seen)["metadata"]["managedFields"] = fields;
        })
    };
    let done = seen_with("argocd", "f:paused", true);
    let message = "Deployment web is paused by argocd: resume it, or take `paused` out of its manifest";
    assert_eq!(obstacle(&done), Some(("PausedByAnother", message, true)));
    assert_eq!(served(&done), None);
    for (manager, field, paused) in
        [("argocd", "f:replicas", true), ("argocd", "f:paused", false), (names::FIELD_MANAGER, "f:paused", true)]
    {
        let done = seen_with(manager, field, paused);
        assert_eq!(served(&done), Some(vec!["web:v1".to_owned()]), "{manager} {field} {paused}");
    }
}

#[test]
fn a_target_that_can_not_be_read_stays_held() {
    let world = World::armed();
    let done = world.decided(|seen| seen.target = failed());
    assert_eq!(obstacle(&done), Some(("TargetUnreadable", "Deployment web could not be read: timeout", false)));
    assert_eq!(done.status.hold, world.status().hold);
}

#[test]
fn a_target_that_is_being_deleted_is_no_target() {
    let done =
        World::armed().decided(|seen| target(seen)["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    let message = "there is no Deployment web in namespace shop: create it, or correct spec.target.name";
    assert_eq!(obstacle(&done), Some(("TargetNotFound", message, true)));
    assert_eq!(done.status.hold, None);
}

#[test]
fn a_target_that_was_created_again_serves_what_it_runs_now_and_that_is_said() {
    let mut world = World::armed();
    world.delete("Deployment", "web");
    world.create_target();
    for _ in 0..20 {
        world.step(Duration::from_millis(500));
    }
    let done = world.decide();
    let text = "Deployment web was created again: what it runs now is taken for the serving version";
    assert_eq!(told(&done), [("TargetReplaced", text)]);
    assert_eq!(done.status.hold.unwrap().target_uid, object::uid(world.target()));
}

#[test]
fn of_two_releases_of_a_target_the_elder_has_it_and_in_one_second_the_first_by_name() {
    let world = World::armed();
    let release = world.get("CanaryRelease", "web").unwrap();
    let (uid, created) = (object::uid(release), object::text(release, "/metadata/creationTimestamp"));
    let rival = |name: &str, uid: &str, created: &str| Rival {
        name: name.to_owned(),
        uid: uid.to_owned(),
        created: created.to_owned(),
    };
    let cases = [
        (rival("zoo", "other", "2025-01-01T00:00:00Z"), true),
        (rival("api", "other", "2027-01-01T00:00:00Z"), false),
        (rival("api", "other", created), true),
        (rival("zoo", "other", created), false),
        // It was deleted and created again, and one of the two reads is older than that.
        (rival("web", "other", created), false),
    ];
    for (other, taken) in cases {
        let case = format!("{other:?}");
        let message = format!("CanaryRelease {} already releases Deployment web: delete one of the two", other.name);
        let done = world.decided(|seen| seen.rivals = Fetched::Known(vec![rival("web", uid, created), other]));
        assert_eq!(obstacle(&done), taken.then_some(("TargetTaken", message.as_str(), true)), "{case}");
    }
    let done = world.decided(|seen| seen.rivals = failed());
    let message = "the namespace's CanaryReleases could not be listed: timeout";
    assert_eq!(obstacle(&done), Some(("RivalsUnreadable", message, false)));
}

#[test]
fn a_route_that_can_not_be_split_is_named_with_its_reason() {
    let world = World::armed();
    let seen_with = |route: Fetched<Value>| world.decided(|seen| seen.routes[0].1 = route);
    let edited = |change: &dyn Fn(&mut Value)| {
        let mut route = world.route().clone();
        change(&mut route);
        Fetched::Known(route)
    };
    let split_by = |uid: &str| {
        edited(&|route| {
            route["metadata"]["labels"] = json!({names::LABEL_RELEASE: "shop"});
            route["metadata"]["annotations"] = json!({names::ANNOTATION_UID: uid});
        })
    };
    let cases = [
        (Fetched::Missing, "RouteNotFound", "there is no HTTPRoute web in namespace shop", true),
        (failed(), "RouteUnreadable", "HTTPRoute web could not be read: timeout", false),
        (
            split_by("of another"),
            "RouteTaken",
            "HTTPRoute web is split by CanaryRelease shop: it is looked at again when that release is over; if there is no such CanaryRelease, take the label canaryrelease.dev/release off the route in a write with the annotation canaryrelease.dev/override: <reason>, and its marks in another",
            false,
        ),
        (
            edited(&|route| route["spec"]["rules"] = json!([])),
            "RouteWithoutService",
            "HTTPRoute web has no rule that sends traffic to Service web",
            true,
        ),
        (
            edited(&|route| {
                let entries = route["spec"]["rules"][0]["backendRefs"].as_array_mut().unwrap();
                entries.push(json!({"group": "", "kind": "Service", "name": "legacy", "port": 80, "weight": 1}));
            }),
            "RouteAlreadySplit",
            "HTTPRoute web: rule 0 also sends traffic to legacy; a rule must send its traffic to Service web alone",
            true,
        ),
    ];
    for (route, reason, message, stalled) in cases {
        assert_eq!(obstacle(&seen_with(route)), Some((reason, message, stalled)));
    }
    let own = object::uid(world.get("CanaryRelease", "web").unwrap());
    assert_eq!(obstacle(&seen_with(split_by(own))), None, "its own marks, left behind");
}

#[test]
fn network_policies_that_would_not_reach_the_canary_keep_a_release_from_starting() {
    let world = World::armed();
    let fenced = |seen: &mut Observed| {
        let policy = json!({"metadata": {"name": "web"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}}}});
        seen.network_policies = Fetched::Known(vec![policy]);
    };
    let message = "NetworkPolicy web would not reach the canary's pods (app=web-canary): give spec.canary.labels that it selects, or set spec.canary.allowUnselected";
    assert_eq!(obstacle(&world.decided(fenced)), Some(("CanaryNotSelected", message, true)));
    let allowed = world.decided(|seen| {
        fenced(seen);
        seen.release.spec.canary.allow_unselected = true;
    });
    assert_eq!(obstacle(&allowed), None);
    assert_eq!(allowed.status.hold.unwrap().canary_not_selected, ["NetworkPolicy web"]);
}

#[test]
fn the_hold_is_proved_again_when_the_policies_are_others_than_it_was_proved_with() {
    let world = World::armed();
    for (armed, proved_with, policies, stands) in [
        (true, "policies-1", "policies-1", true),
        // Right after a start.
        (true, "policies-1", "", true),
        (true, "policies-1", "policies-2", false),
        (false, "policies-1", "policies-1", false),
        (false, "", "", false),
    ] {
        let done = world.decided(|seen| {
            (hold(seen).armed, hold(seen).proved_with) = (armed, proved_with.to_owned());
            (seen.hold, seen.policies) = (Hold::NotTried, policies.to_owned());
        });
        let expected = (!stands).then_some(("ProvingHold", "the hold is being proved", false));
        assert_eq!(obstacle(&done), expected, "{armed} {proved_with:?} {policies:?}");
    }
}

#[test]
fn that_a_target_is_held_is_told_once() {
    let world = World::armed();
    let proved = |armed: bool| {
        world.decided(|seen| {
            hold(seen).armed = armed;
            seen.hold = Hold::Works("policies-2".to_owned());
        })
    };
    let text = "Deployment web is held from now on: the next change of its template starts a release";
    assert_eq!(told(&proved(false)), [("Armed", text)]);
    let again = proved(true);
    assert_eq!(told(&again), []);
    assert_eq!(again.status.hold.unwrap().proved_with, "policies-2");
}

#[test]
fn a_target_with_our_label_and_the_mark_of_another_is_labelled_anew() {
    let done = World::armed()
        .decided(|seen| target(seen)["metadata"]["annotations"][names::ANNOTATION_UID] = json!("of another"));
    assert_eq!(obstacle(&done), Some(("Arming", "Deployment web is being labelled", false)));
    assert!(!done.status.hold.unwrap().armed);
}

#[test]
fn what_got_past_a_hold_that_fails_is_told_and_what_it_still_keeps_is_not() {
    let world = World::armed();
    let seen_with = |paused: bool, overridden: bool| {
        world.decided(|seen| {
            seen.hold = Hold::Fails("it came back un-paused".to_owned());
            image(target(seen), "web:v2");
            target(seen)["spec"]["paused"] = json!(paused);
            if overridden {
                target(seen)["metadata"]["annotations"][names::ANNOTATION_OVERRIDE] = json!("the shop burns");
            }
        })
    };
    let past = seen_with(false, false);
    assert_eq!(told(&past), [("Ungated", "Deployment web runs a template that was not released in stages")]);
    assert_eq!(obstacle(&past).unwrap().0, "HoldNotInstalled");
    for (paused, overridden) in [(true, false), (false, true)] {
        let done = seen_with(paused, overridden);
        assert_eq!(told(&done), [], "{paused} {overridden}");
        assert_eq!(served(&done), Some(vec!["web:v1".to_owned()]));
    }
}

#[test]
fn a_pause_of_a_persons_own_is_left_and_one_for_a_template_that_was_put_back_is_lifted() {
    let world = World::armed();
    let paused = |changed: bool, noticed: &str| {
        world.decided(|seen| {
            target(seen)["spec"]["paused"] = json!(true);
            if changed {
                target(seen)["metadata"]["annotations"][names::ANNOTATION_CHANGED_BY] = json!(JANE);
            }
            status(seen).observed_template = noticed.to_owned();
        })
    };
    let own = paused(false, "sha256:before");
    assert_eq!((told(&own), own.effects.len(), own.wake_after), (Vec::new(), 0, None));
    assert_eq!(own.status.outcome, "");

    let digest = digest_of(world.target());
    let text = "the serving version's template was written back: nothing to release";
    for (noticed, told_now) in [("sha256:before", vec![("PutBack", text)]), (digest.as_str(), Vec::new())] {
        let done = paused(true, noticed);
        assert_eq!(told(&done), told_now, "{noticed}");
        assert_eq!(done.status.outcome, if told_now.is_empty() { "" } else { "Promoted" });
        assert_eq!(done.status.observed_template, digest);
        let written: Vec<_> = done.effects.iter().map(|effect| (effect.kind(), effect.name())).collect();
        assert_eq!(written, [(Kind::Deployment, "web")], "{noticed}");
        assert_eq!(done.wake_after, Some(Duration::from_millis(500)), "{noticed}");
    }
}

#[test]
fn at_rest_the_status_keeps_up_with_the_target() {
    let world = World::armed();
    let set = world.status().hold.unwrap().serving.unwrap().replica_set;
    let stale = |pods: i64| {
        world.decided(|seen| {
            target(seen)["spec"]["replicas"] = json!(pods);
            hold(seen).holds_rejected = true;
            hold(seen).serving.as_mut().unwrap().replica_set = "of-a-restart-before".to_owned();
            status(seen).observed_template = "sha256:before".to_owned();
        })
    };
    for (pods, asleep) in [(4, false), (0, true)] {
        let status = stale(pods).status;
        assert_eq!(status.observed_template, digest_of(world.target()));
        let hold = status.hold.unwrap();
        assert_eq!((hold.asleep, hold.holds_rejected), (asleep, false));
        assert_eq!(hold.serving.unwrap().replica_set, set);
    }
}

#[test]
fn what_was_rolled_back_last_is_spoken_of_until_another_template_comes() {
    let world = rolled_back("Restore");
    assert_eq!(world.image(), "web:v1");
    let done = world.decide();
    let candidate = done.status.current.unwrap().candidate.digest;
    assert_eq!(done.status.observed_template, candidate);
    assert!(done.status.message.starts_with("web-1 RolledBack at stage 2/3: "), "{}", done.status.message);
}

#[test]
fn after_a_promotion_the_template_that_serves_now_is_the_one_spoken_of() {
    let mut world = World::with_release(json!({"baseline": {"duration": "0s"}}), "v2", (Step::Bake, 0));
    world.command(&format!("promote {}", world.id()));
    assert_eq!(world.finish(), "Promoted");
    let done = world.decided(|seen| {
        status(seen).observed_template = "sha256:before".to_owned();
        current(seen).candidate.digest = "sha256:before".to_owned();
    });
    assert_eq!(done.status.observed_template, digest_of(world.target()));
}

#[test]
fn a_template_that_was_put_back_unseen_is_told_once_the_target_runs_it() {
    let world = World::armed();
    let digest = digest_of(world.target());
    let text = "the serving version's template was written back: nothing to release";
    for (outcome, told_now) in [("Superseded", vec![("PutBack", text)]), ("Promoted", Vec::new())] {
        let done = world.decided(|seen| {
            status(seen).observed_template = "sha256:before".to_owned();
            status(seen).outcome = outcome.to_owned();
        });
        assert_eq!(told(&done), told_now, "{outcome}");
        assert_eq!((done.status.outcome.as_str(), done.status.observed_template), ("Promoted", digest.clone()));
    }
}

/// Something that got past the hold with this template is told and recorded the first time it is seen, and not again.
fn assert_told_once(world: &World, event: &str, digest: &str, text: &str, change: impl Fn(&mut Observed)) {
    for (noticed, outcome, said) in [
        (digest, event, false),
        ("sha256:before", event, true),
        (digest, "Promoted", true),
        ("sha256:before", "", true),
    ] {
        let done = world.decided(|seen| {
            change(seen);
            status(seen).observed_template = noticed.to_owned();
            status(seen).outcome = outcome.to_owned();
        });
        let now: &[(&str, &str)] = if said { &[(event, text)] } else { &[] };
        assert_eq!(told(&done), now, "{noticed} {outcome}");
        let line = format!(" {event} {digest}: {text}");
        let recorded = done.status.history.iter().filter(|found| found.ends_with(&line));
        assert_eq!(recorded.count(), usize::from(said), "{noticed} {outcome}");
        assert_eq!((done.status.outcome.as_str(), done.status.observed_template.as_str()), (event, digest));
    }
}

#[test]
fn a_change_that_was_not_held_is_told_and_recorded_once() {
    let world = World::armed();
    let mut changed = world.target().clone();
    image(&mut changed, "web:v2");
    let text = "Deployment web runs a template that was not released in stages";
    assert_told_once(&world, "Ungated", &digest_of(&changed), text, |seen| {
        seen.target = Fetched::Known(changed.clone());
    });
}

#[test]
fn an_override_is_told_and_recorded_once() {
    let world = World::armed();
    let text = "jane overrode the hold of Deployment web: the shop burns";
    assert_told_once(&world, "Overridden", &digest_of(world.target()), text, |seen| {
        overridden(target(seen), "the shop burns");
        target(seen)["spec"]["paused"] = json!(false);
    });
}

#[test]
fn stock_is_taken_again_only_of_an_overridden_target_that_runs_another_template() {
    let world = World::armed();
    let before = world.status().hold;
    for (version, paused, again) in
        [("web:v1", false, false), ("web:v1", true, false), ("web:v2", true, false), ("web:v2", false, true)]
    {
        let done = world.decided(|seen| {
            overridden(target(seen), "the shop burns");
            target(seen)["spec"]["paused"] = json!(paused);
            image(target(seen), version);
        });
        if again {
            assert_eq!(obstacle(&done), Some(("TargetRolling", ROLLING, false)));
            assert_eq!(done.status.hold, None);
        } else {
            assert_eq!(done.status.hold, before, "{version} {paused}");
        }
    }
}

/// A target that is held with a template that was aborted.
fn rejected() -> World {
    let mut world = World::with_release(json!({"onRevert": "Hold"}), "v2", (Step::Baseline, 0));
    world.command("abort");
    assert_eq!(world.finish(), "Aborted");
    assert!(world.paused());
    world
}

#[test]
fn a_rejected_template_that_is_held_is_told_once_and_again_when_it_comes_back() {
    let world = rejected();
    let digest = digest_of(world.target());
    for (holds, noticed, said) in
        [(true, digest.as_str(), false), (false, digest.as_str(), true), (true, "sha256:before", true)]
    {
        let done = world.decided(|seen| {
            hold(seen).holds_rejected = holds;
            status(seen).observed_template = noticed.to_owned();
        });
        let reasons: Vec<&str> = done.notes.iter().map(|note| note.reason).collect();
        let now: &[&str] = if said { &["RejectedTemplateReapplied"] } else { &[] };
        assert_eq!(reasons, now, "{holds} {noticed}");
        assert!(done.status.hold.unwrap().holds_rejected);
        assert_eq!(done.status.observed_template, digest);
    }
}

#[test]
fn a_rejected_template_that_comes_back_has_the_outcome_it_was_rejected_with() {
    let world = rejected();
    for (reason, outcome) in [("Command", "Aborted"), ("Overridden", "Overridden"), ("GateBreached", "RolledBack")] {
        let done = world.decided(|seen| {
            status(seen).observed_template = "sha256:before".to_owned();
            status(seen).outcome = "Promoted".to_owned();
            let sets = known(&mut seen.replica_sets).iter_mut();
            for set in sets.filter(|set| object::annotation(set, names::ANNOTATION_REJECTED).is_some()) {
                set["metadata"]["annotations"][names::ANNOTATION_REJECTED] = json!(format!("web-1: {reason}: why"));
            }
        });
        let text = format!(
            "the template is one that was rejected (web-1: {reason}: why): it is held and not released; change it, or give the command retry"
        );
        assert_eq!(told(&done), [("RejectedTemplateReapplied", text.as_str())]);
        assert_eq!(done.status.outcome, outcome, "{reason}");
    }
}

#[test]
fn a_release_measures_stable_first_unless_its_spec_gives_that_no_time() {
    for (time, step) in [("20s", Step::Baseline), ("0s", Step::Scale)] {
        let mut world = World::new(json!({"baseline": {"duration": time}}));
        world.arm();
        world.apply("v2").unwrap();
        let done = world.decide();
        assert_eq!(told(&done), [("ReleaseStarted", "web-1: web:v2 after web:v1, changed by jane")]);
        assert_eq!(done.status.current.unwrap().step, step, "{time}");
        assert_eq!(done.wake_after, Some(Duration::ZERO));
    }
}

#[test]
fn errors_of_both_sides_are_the_candidates_only_where_it_has_all_the_traffic() {
    for (place, ends) in [((Step::Bake, 1), false), ((Step::Bake, 2), true)] {
        let mut world = World::with_release(json!({}), "v2", place);
        world.faulty("v1", 0.5);
        world.faulty("v2", 0.5);
        world.until("it stops", |world| {
            world.status().current.is_some_and(|current| current.paused.is_some() || current.revert.is_some())
        });
        let current = world.status().current.unwrap();
        assert_eq!((current.revert.is_some(), current.paused.is_some()), (ends, !ends), "{}", world.describe());
    }
}

#[test]
fn a_tick_without_data_of_a_side_keeps_what_was_counted_of_it() {
    let world = World::with_release(json!({}), "v2", (Step::Bake, 0));
    let count = |gate: &str, side: &str, n: f64| Counted {
        gate: gate.to_owned(),
        side: side.to_owned(),
        n,
        ..Counted::default()
    };
    let done = world.decided(|seen| {
        current(seen).counts =
            vec![count("errors", "canary", 10.0), count("errors", "stable", 20.0), count("slow", "canary", 30.0)];
        seen.measured.readings = vec![Reading::new(
            "errors",
            Measure::Counted { n: 11.0, k: 0.0, seconds: 1.0 },
            Measure::NoData("no series".to_owned()),
        )];
    });
    let counts = done.status.current.unwrap().counts;
    let counts: Vec<_> = counts.iter().map(|sums| (sums.gate.as_str(), sums.side.as_str(), sums.n)).collect();
    assert_eq!(counts, [("errors", "canary", 11.0), ("errors", "stable", 20.0), ("slow", "canary", 30.0)]);
}
