//! What every tick keeps to, whatever it decides: what must be written at once, what it takes for its own, and where it
//! reads the serving version, the candidate and their shares.

use std::{collections::BTreeMap, time::Duration};

use canary_api::{CanaryReleaseStatus, Phase, Step, names};
use canary_core::{Effect, Fetched, Kind};
use serde_json::{Value, json};

use crate::{
    beside,
    world::{Read, Sight, World, assert_waits, back, known, release, step, whys},
};

/// A release of v2 at a place.
fn at(step: Step, stage: i32) -> Sight {
    Sight::of(&World::with_release(json!({}), "v2", (step, stage)))
}

/// The last tick before the release goes over to a step.
fn before(world: &mut World, step: Step) -> Sight {
    let next = |world: &World| world.decide().status.current.map(|current| current.step);
    world.until(&format!("{step:?}"), |world| next(world) == Some(step));
    Sight::of(world)
}

fn change(fetched: &mut Fetched<Value>, pointer: &str, to: Value) {
    *known(fetched).pointer_mut(pointer).unwrap() = to;
}

/// Makes an object another CanaryRelease's.
fn give_away(fetched: &mut Fetched<Value>) {
    let uid = canary_core::object::escape(names::ANNOTATION_UID);
    change(fetched, &format!("/metadata/annotations/{uid}"), json!("another's"));
}

fn image(object: &mut Value, pointer: &str, image: &str) {
    object.pointer_mut(pointer).unwrap()["spec"]["containers"][0]["image"] = json!(image);
}

#[test]
fn sentences_are_told_from_what_must_be_written_at_once() {
    let mut view = at(Step::Bake, 1);
    view.seen.release.status = Some(view.decide().status);
    type Change = fn(&mut CanaryReleaseStatus);
    let cases: [(&str, Change, (bool, bool)); 6] = [
        ("nothing", |_| {}, (false, false)),
        ("the message", |status| status.message.push('!'), (false, true)),
        ("the summary", |status| status.summary.push("more".to_owned()), (false, true)),
        ("a condition's message", |status| status.conditions[0].message.push('!'), (false, false)),
        ("a condition's reason", |status| status.conditions[0].reason.push('!'), (true, false)),
        ("the phase", |status| status.phase = Phase::Idle, (true, false)),
    ];
    for (what, differs, expected) in cases {
        let mut view = view.clone();
        differs(view.status());
        let done = view.decide();
        assert_eq!((done.decisive, done.words), expected, "{what}");
    }
}

#[test]
fn an_object_without_our_finalizer_gets_it_and_nothing_else() {
    let view = Sight::of(&World::new(json!({})));
    for (present, path, value) in [
        (None, "/metadata/finalizers", json!([names::FINALIZER])),
        (Some(vec![]), "/metadata/finalizers", json!([names::FINALIZER])),
        (Some(vec!["another.example/keep".to_owned()]), "/metadata/finalizers/-", json!(names::FINALIZER)),
    ] {
        let mut view = view.clone();
        view.seen.release.metadata.finalizers = present;
        let done = view.decide();
        let [Effect::Patch { kind: Kind::CanaryRelease, name, patch, why }] = &done.effects[..] else {
            panic!("{:?}", done.effects)
        };
        assert_eq!((name.as_str(), *why), ("web", "set the finalizer"));
        let last = patch.as_array().unwrap().last().unwrap();
        assert_eq!((&last["path"], &last["value"]), (&json!(path), &value));
        assert_eq!((done.decisive, done.wake_after), (false, Some(Duration::ZERO)));
    }
}

#[test]
fn a_finalizer_of_another_beside_ours_changes_nothing() {
    let mut view = at(Step::Bake, 1);
    let plain = view.decide();
    view.seen.release.metadata.finalizers.as_mut().unwrap().insert(0, "another.example/keep".to_owned());
    assert_eq!(view.decide(), plain);
}

#[test]
fn pods_are_taken_away_where_they_are_ours_alone() {
    let mut world = beside::release(&json!({}), (Step::Bake, 0));
    world.command("abort");
    let view = before(&mut world, Step::RevertTarget);
    let (canary, baseline) = ("take the canary's pods away", "take the baseline pods away");
    for (ours, others, which) in [(canary, baseline, 1), (baseline, canary, 0)] {
        let mut view = view.clone();
        let both = view.decide();
        assert!([ours, others].iter().all(|why| whys(&both).contains(why)), "{:?}", whys(&both));
        give_away([&mut view.seen.canary, &mut view.seen.baseline.deployment][which]);
        let done = view.decide();
        assert!(whys(&done).contains(&ours) && !whys(&done).contains(&others), "{:?}", whys(&done));
    }
}

#[test]
fn traffic_stays_on_the_canary_while_the_stable_service_selects_other_pods() {
    let mut world = World::with_release(json!({}), "v2", (Step::Roll, 2));
    let mut view = before(&mut world, Step::HandBack);
    change(&mut view.seen.service, "/spec/selector", json!({"app": "else"}));
    let done = view.decide();
    assert_eq!((step(&done), release(&done).weight.as_str()), (Step::Roll, "100%"));
    let why = "Service web does not select the pods of Deployment web: traffic stays on the canary's pods until that is mended";
    assert_waits(&done, why);
}

#[test]
fn a_release_has_baseline_pods_with_labels_of_their_own_where_the_spec_asks_for_them() {
    for asked in [true, false] {
        let over = json!({"baseline": {"duration": "20s", "pods": asked}});
        let mut view = Sight::of(&beside::release(&over, (Step::Baseline, 0)));
        let labels = view.current().baseline_pods.clone().map(|beside| beside.labels);
        let own = BTreeMap::from([("app".to_owned(), "web-baseline".to_owned())]);
        assert_eq!(labels, asked.then_some(own));
    }
}

#[test]
fn baseline_pods_have_no_share_where_the_canary_has_none() {
    let mut view = Sight::of(&beside::release(&json!({}), (Step::Scale, 0)));
    let beside = view.current().baseline_pods.as_mut().unwrap();
    (beside.weight, beside.carried_by) = ("20%".to_owned(), 9);
    let done = view.decide();
    assert!(!done.notes.iter().any(|note| note.reason == "BaselineNotReady"), "{:?}", done.notes);
    assert!(!done.effects.iter().any(|effect| effect.kind() == Kind::HttpRoute), "{:?}", whys(&done));
}

#[test]
fn baseline_pods_that_lose_their_weight_carry_nothing() {
    let mut view = Sight::of(&beside::release(&json!({}), (Step::Scale, 1)));
    let beside = view.current().baseline_pods.clone().unwrap();
    assert_eq!((beside.weight.as_str(), beside.carried_by), ("20%", 1));
    let done = view.decided(|seen| seen.baseline.pods = Fetched::Known(Vec::new()));
    let beside = release(&done).baseline_pods.as_ref().unwrap();
    assert_eq!((beside.weight.as_str(), beside.carried_by, release(&done).weight.as_str()), ("0%", 0, "20%"));
}

#[test]
fn which_labels_keep_the_canary_apart_is_read_from_the_status_and_else_from_the_canary() {
    let mut view = at(Step::Bake, 1);
    let labelled = |view: &Sight| {
        let lines = view.decide().status.summary;
        lines.into_iter().find_map(|line| line.strip_prefix("Canary: 2 pods, labelled ").map(str::to_owned))
    };
    assert_eq!(labelled(&view).as_deref(), Some("app=web-canary"));
    view.current().canary_labels.clear();
    assert_eq!(labelled(&view).as_deref(), Some("app=web-canary"));
    view.current().canary_labels.insert("kept".to_owned(), "apart".to_owned());
    assert_eq!(labelled(&view).as_deref(), Some("kept=apart"));
}

/// Why a release ends whose target asks for v1 again.
fn taken_back(view: &Sight) -> String {
    back(&view.decide()).message.clone()
}

fn sets(view: &mut Sight) -> &mut Vec<Value> {
    known(&mut view.seen.replica_sets)
}

fn records(view: &mut Sight) -> &mut Vec<Value> {
    known(&mut view.seen.serving_records)
}

#[test]
fn the_serving_template_is_known_by_its_replica_set_or_by_the_record_kept_of_it() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.apply("v1").unwrap();
    let mut view = Sight::of(&world);
    let serving = view.status().hold.as_ref().unwrap().serving.as_ref().unwrap().replica_set.clone();
    let (known, unknown) =
        ("the serving version's template was written back by jane", "a newer template was written by jane");

    let mut by_set = view.clone();
    records(&mut by_set).clear();
    let own = sets(&mut by_set).iter().find(|set| set["metadata"]["name"] == json!(serving)).unwrap().clone();
    let (mut renamed, mut of_another) = (own.clone(), own);
    image(&mut renamed, "/spec/template", "web:v0");
    image(&mut of_another, "/spec/template", "web:v0");
    renamed["metadata"]["name"] = json!("web-renamed");
    of_another["metadata"]["ownerReferences"][0]["uid"] = json!("another's");
    sets(&mut by_set).splice(0..0, [renamed, of_another]);
    assert_eq!(taken_back(&by_set), known);

    let mut by_record = view.clone();
    sets(&mut by_record).retain(|set| set["metadata"]["name"] != json!(serving));
    let mut renamed = records(&mut by_record)[0].clone();
    renamed["metadata"]["name"] = json!("web-renamed");
    image(&mut renamed, "/data/template", "web:v0");
    records(&mut by_record).insert(0, renamed);
    assert_eq!(taken_back(&by_record), known);

    let mut by_nothing = by_record.clone();
    records(&mut by_nothing).clear();
    let mut by_a_changed_record = by_record;
    image(&mut records(&mut by_a_changed_record)[1], "/data/template", "web:v0");
    for view in [by_nothing, by_a_changed_record] {
        assert_eq!(taken_back(&view), unknown);
    }
}

#[test]
fn the_target_asks_for_the_candidate_by_its_name_or_by_what_the_canary_runs() {
    let view = at(Step::Bake, 1);
    let (mut by_name, mut by_canary) = (view.clone(), view.clone());
    by_name.seen.canary = Fetched::Missing;
    by_canary.current().candidate.digest = "sha256:as another version of the API server has it".to_owned();
    for view in [&view, &by_name, &by_canary] {
        assert_eq!(step(&view.decide()), Step::Bake);
    }
    let made_for = canary_core::object::escape(names::ANNOTATION_MADE_FOR);
    change(&mut by_canary.seen.canary, &format!("/metadata/annotations/{made_for}"), json!("web-7"));
    let mut newer = view;
    change(&mut newer.seen.target, "/spec/template/spec/containers/0/image", json!("web:v3"));
    for view in [by_canary, newer] {
        assert_eq!(back(&view.decide()).reason, "Superseded");
    }
}

#[test]
fn a_read_that_failed_is_waited_for_and_said() {
    let mut world = World::with_release(json!({}), "v2", (Step::Scale, 0));
    for (read, what) in [(Read::CanaryPods, "the canary's pods"), (Read::CanaryService, "the canary's Service")] {
        world.unreadable.insert(read);
        let done = world.decide();
        assert_waits(&done, &format!("{what} could not be read: the server fails"));
        assert_eq!(step(&done), Step::Scale);
        world.unreadable.clear();
    }
}
