//! The end of a revert: what it waits for, when the serving version is written back and what of, and what is told of it.

use std::time::Duration;

use canary_api::{OnRevert, Step, names};
use canary_core::{Decision, Fetched, Observed, object};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{
    changes::rolled_back,
    world::{
        Change, Sight, assert_waits, current, failed, image, known, revert, route, status, step, target, unmark, whys,
        written,
    },
};

/// Whether the serving version's template is written back.
fn writes_back(done: &Decision) -> bool {
    whys(done).contains(&"write the serving version's template back")
}

/// What the last tick of a revert sees: all that it waits for is done.
fn last_tick(mode: &str) -> Sight {
    let mut sight = Sight::of(&rolled_back(mode)).since(0);
    sight.status().outcome.clear();
    sight.current().step = Step::RevertTarget;
    // The release ends, and nothing is looked at beyond that.
    sight.seen.rivals = failed();
    sight
}

fn canary_set(seen: &mut Observed) -> &mut Value {
    known(&mut seen.replica_sets)
        .iter_mut()
        .find(|set| object::annotation(set, names::ANNOTATION_REJECTED).is_some())
        .unwrap()
}

fn delete(seen: &mut Observed) {
    seen.release.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
}

#[test]
fn a_revert_is_over_once_all_is_put_back_and_the_rejection_is_written_down() {
    let forget = |seen: &mut Observed| unmark(canary_set(seen), names::ANNOTATION_REJECTED);
    let cases: [(&str, bool, Change); 13] = [
        ("nothing is left", true, |_| {}),
        ("the canary has pods", false, |seen| known(&mut seen.canary)["spec"]["replicas"] = json!(1)),
        ("a route is not put back", false, |seen| {
            route(seen)["metadata"]["annotations"][names::ANNOTATION_UID] =
                json!(seen.release.metadata.uid.clone().unwrap());
        }),
        ("the rejection is not remembered", false, forget),
        ("nothing is rejected", true, |seen| {
            unmark(canary_set(seen), names::ANNOTATION_REJECTED);
            revert(seen).rejects = false;
        }),
        ("the CanaryRelease is deleted, so nobody will ask", true, |seen| {
            unmark(canary_set(seen), names::ANNOTATION_REJECTED);
            delete(seen);
        }),
        ("no canary ran what the target asks for", false, |seen| seen.canary = Fetched::Missing),
        ("the canary was made for another release", false, |seen| {
            known(&mut seen.canary)["metadata"]["annotations"][names::ANNOTATION_MADE_FOR] = json!("web-0");
        }),
        ("nothing is left to remember it by", true, |seen| {
            seen.canary = Fetched::Missing;
            image(target(seen), "web:v3");
        }),
        ("the canary's set alone remembers what is asked for no more", false, |seen| {
            unmark(canary_set(seen), names::ANNOTATION_REJECTED);
            image(target(seen), "web:v3");
        }),
        ("a hand changed the canary", false, |seen| image(known(&mut seen.canary), "web:v9")),
        ("the serving version is to be written back", false, |seen| {
            seen.release.spec.on_revert = Some(OnRevert::Restore);
        }),
        ("a route is gone", true, |seen| seen.routes[0].1 = Fetched::Missing),
    ];
    let ready = last_tick("Hold");
    for (what, expected, change) in cases {
        let done = ready.decided(change);
        assert_eq!(step(&done) == Step::Done, expected, "{what}: {}", done.status.message);
        assert_eq!(done.status.outcome, if expected { "RolledBack" } else { "" }, "{what}");
        let said = "; the canary is taken away, the routes are put back as they were, the target is held or restored";
        assert_eq!(done.status.message.ends_with(said), !expected, "{what}: {}", done.status.message);
    }
}

#[test]
fn a_revert_is_not_over_while_something_can_not_be_read() {
    let ready = last_tick("Hold");
    for (what, change) in [
        ("the target", (|seen| seen.target = Fetched::Failed("why".to_owned())) as Change),
        ("the canary", |seen| seen.canary = Fetched::Failed("why".to_owned())),
        ("the ReplicaSets", |seen| seen.replica_sets = Fetched::Failed("why".to_owned())),
    ] {
        let done = ready.decided(change);
        assert_eq!(step(&done), Step::RevertTarget);
        assert_waits(&done, &format!("{what} could not be read: why"));
    }
}

#[test]
fn the_serving_version_is_written_back_where_it_was_asked_for_or_the_candidate_ran_and_nowhere_else() {
    fn restore(seen: &mut Observed) {
        seen.release.spec.on_revert = Some(OnRevert::Restore);
    }
    let ready = last_tick("Hold");
    let check = |what: &str, written: bool, over: bool, change: Change| {
        let done = ready.decided(change);
        assert_eq!((writes_back(&done), step(&done) == Step::Done), (written, over), "{what}: {:?}", done.effects);
    };
    let writes: [(&str, Change); 5] = [
        ("it was asked for", restore),
        ("nothing else was asked for", |seen| seen.release.spec.on_revert = None),
        ("the target had rolled", |seen| revert(seen).rolled = true),
        ("the target was scaled to zero", |seen| revert(seen).reason = "ScaledToZero".to_owned()),
        ("the target had rolled, and all is deleted", |seen| {
            delete(seen);
            revert(seen).rolled = true;
        }),
    ];
    for (what, change) in writes {
        check(what, true, false, change);
    }
    let leaves: [(&str, Change); 7] = [
        ("the target is to be held", |_| {}),
        ("it was superseded", |seen| {
            restore(seen);
            revert(seen).outcome = "Superseded".to_owned();
        }),
        ("it was overridden", |seen| {
            revert(seen).rolled = true;
            revert(seen).outcome = "Overridden".to_owned();
        }),
        ("all is deleted, which ends the hold by itself", |seen| {
            restore(seen);
            delete(seen);
        }),
        ("the target is another", |seen| {
            revert(seen).rolled = true;
            target(seen)["metadata"]["uid"] = json!("another");
        }),
        ("what served is not known", |seen| {
            revert(seen).rolled = true;
            current(seen).stable.digest.clear();
        }),
        ("another template was written meanwhile", |seen| {
            restore(seen);
            image(target(seen), "web:v3");
        }),
    ];
    for (what, change) in leaves {
        check(what, false, true, change);
    }
    let waits: [(&str, Change); 2] = [
        ("the rejection is not remembered yet", |seen| {
            restore(seen);
            unmark(canary_set(seen), names::ANNOTATION_REJECTED);
        }),
        ("a route can't be read", |seen| {
            restore(seen);
            seen.routes[0].1 = failed();
        }),
    ];
    for (what, change) in waits {
        check(what, false, false, change);
    }
}

#[test]
fn a_target_that_gitops_owns_is_held_where_nothing_is_asked_for() {
    let ready = last_tick("Hold");
    for (field, key, held) in [
        ("annotations", "argocd.argoproj.io/tracking-id", true),
        ("labels", "kustomize.toolkit.fluxcd.io/name", true),
        ("labels", "helm.toolkit.fluxcd.io/name", true),
        ("labels", "helm.sh/chart", false),
        ("manager", "argocd-controller", true),
        ("manager", "kustomize-controller", true),
        ("manager", "helm-controller", true),
        ("manager", "helm", false),
    ] {
        let done = ready.decided(|seen| {
            seen.release.spec.on_revert = None;
            let metadata = &mut target(seen)["metadata"];
            if field == "manager" {
                metadata["managedFields"] = json!([{"manager": "kubectl"}, {"manager": key}]);
            } else {
                metadata[field][key] = json!("x");
            }
        });
        assert_eq!(writes_back(&done), !held, "{field} {key}");
    }
}

#[test]
fn a_target_that_rolled_is_restored_once_it_is_un_paused_and_unmarked() {
    let ready = last_tick("Restore").seeing(|seen| revert(seen).rolled = true);
    for (what, expected, change) in [
        ("it is", true, (|_| {}) as Change),
        ("it is paused", false, |seen| target(seen)["spec"]["paused"] = json!(true)),
        ("it rolls", false, |seen| {
            target(seen)["metadata"]["annotations"][names::ANNOTATION_ROLLING] = json!("web-1");
        }),
        ("it asks for another", false, |seen| image(target(seen), "web:v3")),
    ] {
        let done = ready.decided(change);
        assert_eq!((step(&done) == Step::Done, writes_back(&done)), (expected, !expected), "{what}");
    }
}

#[test]
fn the_template_that_is_written_back_is_of_the_version_that_served_and_of_no_other() {
    let mut ready = last_tick("Hold").seeing(|seen| revert(seen).rolled = true);
    let template = |done: &Decision| written(done, "web", "/spec/template").unwrap().clone();
    let whole = template(&ready.decide());
    assert_eq!(whole["spec"]["containers"][0]["image"], "web:v1");
    assert!(!whole.to_string().contains("pod-template-hash"), "{whole}");
    // The ReplicaSet is gone: the record has it.
    let served = ready.current().stable.replica_set.clone();
    known(&mut ready.seen.replica_sets).retain(|set| object::name(set) != served);
    assert_eq!(template(&ready.decide())["spec"], whole["spec"]);
    // What serves now is another: the record of before has it still.
    let mut later = ready.clone();
    let hold = later.status().hold.as_mut().unwrap();
    hold.serving.as_mut().unwrap().digest = "sha256:another".to_owned();
    let record = std::mem::replace(&mut hold.serving_record, "web-serving-another".to_owned());
    assert_eq!(template(&later.decide())["spec"], whole["spec"]);
    // A record of the right name that holds another template is none.
    for record in known(&mut later.seen.serving_records).iter_mut().filter(|one| object::name(one) == record) {
        record["data"]["template"]["spec"]["containers"][0]["image"] = json!("web:v9");
    }
    let done = later.decide();
    assert!(!writes_back(&done) && step(&done) == Step::RevertTarget, "{:?}", done.effects);
    // What serves now, of which a ReplicaSet is there, is not what served before either.
    let done = ready.decided(|seen| {
        seen.serving_records = Fetched::Known(Vec::new());
        let uid = object::uid(target(seen)).to_owned();
        let mut set = canary_set(seen).clone();
        set["metadata"]["name"] = json!("web-v9");
        set["metadata"]["ownerReferences"][0]["uid"] = json!(uid);
        image(&mut set, "web:v9");
        known(&mut seen.replica_sets).push(set);
        let hold = status(seen).hold.as_mut().unwrap();
        hold.serving.as_mut().unwrap().replica_set = "web-v9".to_owned();
    });
    assert!(!writes_back(&done));
}

#[test]
fn how_a_release_was_taken_back_is_told_by_its_outcome() {
    let ready = last_tick("Hold");
    for (outcome, warning) in [("RolledBack", true), ("Aborted", true), ("Overridden", true), ("Superseded", false)] {
        let done = ready.decided(|seen| {
            let back = revert(seen);
            back.outcome = outcome.to_owned();
            back.message = "why".to_owned();
            back.clear_at = Some(Time(back.at.0 + Duration::from_secs(7)));
        });
        let text = "web-1: why; all traffic on stable 7s after it was seen";
        let notes: Vec<_> = done.notes.iter().map(|note| (note.reason, note.text.as_str(), note.warning)).collect();
        assert_eq!(notes, [(outcome, text, warning)]);
        assert_eq!((step(&done), done.status.outcome.as_str()), (Step::Done, outcome));
        assert_eq!(done.wake_after, Some(Duration::ZERO));
        let line = done.status.history.last().unwrap();
        assert!(line.ends_with(&format!("Z {outcome} {text}")), "{line}");
    }
}

#[test]
fn after_a_revert_the_hold_tells_what_serves_and_whether_a_rejected_template_is_held() {
    let ready = last_tick("Restore");
    for (paused, rejects, rolled) in
        [(true, true, false), (true, false, false), (false, true, false), (false, false, false), (false, true, true)]
    {
        let mut sight = ready.clone().target(|target| target["spec"]["paused"] = json!(paused));
        let (stable, candidate) = (sight.current().stable.clone(), sight.current().candidate.clone());
        let back = revert(&mut sight.seen);
        (back.rejects, back.rolled) = (rejects, rolled);
        let hold = sight.status().hold.as_mut().unwrap();
        let record = std::mem::replace(&mut hold.serving_record, "web-serving-another".to_owned());
        hold.serving = Some(candidate.clone());
        hold.holds_rejected = !(paused && rejects);
        let done = sight.decide();
        assert_eq!(step(&done), Step::Done);
        let hold = done.status.hold.unwrap();
        let what = format!("paused {paused}, rejects {rejects}, rolled {rolled}");
        assert_eq!(hold.holds_rejected, paused && rejects, "{what}");
        assert_eq!(hold.serving, Some(if rolled { stable } else { candidate }), "{what}");
        assert_eq!(hold.serving_record == record, rolled, "{what}");
    }
}
