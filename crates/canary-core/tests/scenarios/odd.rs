//! What the operator reads back may have been written by anyone: its own status, its annotations, the fields by which it
//! knows its objects. Whatever they hold, a tick ends, writes to nothing but its own and the named objects, and no
//! weight beyond the whole.

use std::sync::OnceLock;

use canary_api::{CanaryRelease, Step};
use canary_core::{Effect, Fetched, Observed, decide};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::World;

/// Releases at different places, as a tick sees them.
fn places() -> &'static [(Observed, Timestamp)] {
    static PLACES: OnceLock<Vec<(Observed, Timestamp)>> = OnceLock::new();
    PLACES.get_or_init(|| {
        let steps = [Step::Baseline, Step::Scale, Step::Shift, Step::Bake, Step::Roll, Step::HandBack, Step::Drain];
        let forward =
            steps.into_iter().map(|step| (step, json!({"soak": "60s", "baseline": {"duration": "20s"}}), 0.0));
        let back = [Step::Revert, Step::RevertDrain, Step::RevertTarget, Step::Done].map(|step| (step, json!({}), 0.5));
        let all = forward.chain(back).map(|(step, over, errors)| {
            let mut world = World::new(over);
            world.arm();
            world.faulty("v2", errors);
            world.apply("v2").unwrap();
            world.until("the step", |world| world.place().0 == step && !world.id().is_empty());
            world.command(&format!("pause {}", world.id()));
            (world.seen("web"), world.now)
        });
        all.collect()
    })
}

/// Every place in a value.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let sure = ["/metadata/name", "/metadata/namespace", "/metadata/uid", "/metadata/resourceVersion"];
    if sure.contains(&at) {
        return;
    }
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                pointers(inner, &format!("{at}/{}", canary_core::object::escape(key)), found);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                pointers(inner, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn odd() -> impl Strategy<Value = Value> {
    let long = "é".repeat(2000);
    let text = prop_oneof![
        "\\PC{0,12}",
        Just(long),
        prop::sample::select(vec![
            "",
            "0",
            "-1",
            "100%",
            "1000%",
            "0.05%",
            "NaN",
            "web-1",
            "web-1: ",
            "web-1: job x: no",
            "{}",
            "{\"app\":7}",
            "{\"app\":\"web\"}",
            "a,b,c",
            "1,1,1,1",
            "-",
            "web/web-canary",
            "2026-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "-9999-01-01T00:00:00Z",
            "abort",
            "promote web-1",
            "retry web-1 2 3",
            "abort web-1\u{0}",
            "Done",
            "Roll",
            "True",
            "sha256:",
        ])
        .prop_map(str::to_owned),
    ];
    prop_oneof![
        4 => text.prop_map(Value::from),
        2 => prop::sample::select(vec![i64::MIN, -1, 0, 1, 7, 1000, i64::from(i32::MAX), i64::MAX]).prop_map(Value::from),
        1 => prop::sample::select(vec![json!(null), json!(true), json!([]), json!({}), json!(1e308), json!([null]), json!({"a": [{}]})]),
    ]
}

/// Puts odd values into an object; how many places it has decides where.
fn spoilt(object: &Value, with: &[(usize, Value)], only: &[&str]) -> Value {
    let mut object = object.clone();
    for (place, value) in with {
        let mut all = Vec::new();
        pointers(&object, "", &mut all);
        all.retain(|at| only.iter().any(|part| at.starts_with(part) && at.len() > part.len()));
        if let Some(at) = all.get(place % all.len().max(1)) {
            *object.pointer_mut(at).unwrap() = value.clone();
        }
    }
    object
}

fn fetched(object: &Fetched<Value>, with: &[(usize, Value)]) -> Fetched<Value> {
    match object {
        Fetched::Known(object) => {
            Fetched::Known(spoilt(object, with, &["/metadata/annotations", "/metadata/labels", "/spec", "/status"]))
        }
        other => other.clone(),
    }
}

fn list(objects: &Fetched<Vec<Value>>, with: &[(usize, Value)]) -> Fetched<Vec<Value>> {
    let every = objects.list().iter().map(|object| fetched(&Fetched::Known(object.clone()), with));
    Fetched::Known(every.filter_map(|object| object.known().cloned()).collect())
}

/// A decision ends, is the same twice, can be stored, and writes nothing that is not ours to write.
fn judge(observed: &Observed, now: Timestamp) -> Result<(), TestCaseError> {
    let decision = decide(observed, now);
    prop_assert_eq!(&decision, &decide(observed, now));
    let status = json!(decision.status).to_string();
    prop_assert!(status.len() < 64 * 1024, "a status of {} bytes", status.len());
    prop_assert!(decision.status.message.chars().count() <= 1000);
    for effect in &decision.effects {
        let ours = effect.name().starts_with("web") && effect.name().len() <= 63;
        prop_assert!(ours, "{effect:?}");
        let Effect::Patch { patch, kind, .. } = effect else { continue };
        for operation in patch.as_array().unwrap() {
            let path = operation["path"].as_str().unwrap();
            if kind.as_str() == "HTTPRoute" && path.ends_with("/weight") && operation["op"] != "remove" {
                let weight = operation["value"].as_u64();
                prop_assert!(weight.is_some_and(|weight| weight <= 1_000_000), "{operation}");
            }
            prop_assert!(
                !path.starts_with("/metadata/name") && !path.starts_with("/metadata/ownerReferences"),
                "{path}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_record_of_the_serving_version_has_a_name_of_ours_whatever_the_status_says() {
    let (observed, now) = places().last().unwrap();
    let mut seen = observed.clone();
    let hold = seen.release.status.as_mut().and_then(|status| status.hold.as_mut()).unwrap();
    hold.serving_record = "another-of-the-namespace".to_owned();
    hold.serving.as_mut().unwrap().digest = "sha256:../../Ab12".to_owned();
    let decision = decide(&seen, *now);
    let created: Vec<&str> =
        decision.effects.iter().filter(|effect| matches!(effect, Effect::Create { .. })).map(Effect::name).collect();
    assert_eq!(created, ["web-serving-b12"]);
    assert_eq!(decision.status.hold.unwrap().serving_record, "web-serving-b12");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn an_odd_status_of_our_own_or_odd_commands_end_in_a_decision(
        place in 0_usize..11, with in prop::collection::vec((any::<usize>(), odd()), 1..4)
    ) {
        let (observed, now) = &places()[place];
        let whole = spoilt(&json!(observed.release), &with, &["/status", "/metadata/annotations"]);
        // What can't be read as a CanaryRelease is told so, and is another path.
        if let Ok(release) = serde_json::from_value::<CanaryRelease>(whole) {
            judge(&Observed { release, ..observed.clone() }, *now)?;
        }
    }

    #[test]
    fn odd_marks_and_fields_of_other_objects_end_in_a_decision(
        place in 0_usize..11, which in 0_usize..7, with in prop::collection::vec((any::<usize>(), odd()), 1..4)
    ) {
        let (observed, now) = &places()[place];
        let mut seen = observed.clone();
        match which {
            0 => seen.target = fetched(&seen.target, &with),
            1 => seen.canary = fetched(&seen.canary, &with),
            2 => seen.routes.iter_mut().for_each(|(_, route)| *route = fetched(route, &with)),
            3 => seen.replica_sets = list(&seen.replica_sets, &with),
            4 => seen.canary_pods = list(&seen.canary_pods, &with),
            5 => seen.service = fetched(&seen.service, &with),
            _ => seen.serving_records = list(&seen.serving_records, &with),
        }
        judge(&seen, *now)?;
    }
}
