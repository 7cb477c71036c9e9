//! A record stays under 64 KiB, whatever people write into its spec: the worst that the definition's rules accept, beside
//! the largest status and what the API server keeps of writers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use canary_api::{ReleaseRecordSpec, record_crd, texts};
use canary_core::record::LIMIT;
use serde_json::{Value, json};

/// Names, labels, and the fields of a few writers.
const METADATA: usize = 6 * 1024;

fn schema() -> Value {
    let crd = serde_json::to_value(record_crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// Everything given: the longest words, lists of at most `entries`, texts as `text` tells for their limit.
fn filled(schema: &Value, entries: usize, text: &dyn Fn(usize) -> String) -> Value {
    match schema["type"].as_str().unwrap() {
        "object" => {
            let fields = schema["properties"].as_object().unwrap();
            fields.iter().map(|(name, field)| (name.clone(), filled(field, entries, text))).collect::<Value>()
        }
        "array" => {
            let most = usize::try_from(schema["maxItems"].as_u64().unwrap()).unwrap();
            Value::Array(vec![filled(&schema["items"], entries, text); most.min(entries)])
        }
        "boolean" => json!(false),
        "string" => match schema["enum"].as_array() {
            Some(words) => {
                words.iter().filter_map(Value::as_str).max_by_key(|word| word.len()).map_or(Value::Null, Value::from)
            }
            None => text(usize::try_from(schema["maxLength"].as_u64().unwrap()).unwrap()).into(),
        },
        other => panic!("{other}"),
    }
}

/// Bytes as the API server writes them: it is Go's way to write some signs as `\u003c`.
fn written(value: &Value) -> usize {
    let text = value.to_string();
    let more = |sign: char| match sign {
        '<' | '>' | '&' => 5,
        '\u{2028}' | '\u{2029}' => 3,
        _ => 0,
    };
    text.len() + text.chars().map(more).sum::<usize>()
}

fn weight(spec: &Value) -> usize {
    texts::weight(&serde_json::from_value::<ReleaseRecordSpec>(spec.clone()).unwrap())
}

/// What a spec takes beside what the rules count.
fn bare(schema: &Value) -> usize {
    written(&filled(schema, 0, &|_| String::new()))
}

#[test]
fn the_rules_count_all_that_a_spec_takes_but_for_its_frame() {
    let schema = schema();
    let bare = bare(&schema);
    for entries in [0, 1, 2, 7, 40] {
        for sign in ["", "x", "é", "\"", "\\", "\n", "\t", "\r", "<", "&", "\u{2028}", "a\"b<\n"] {
            for share in [1, 3, 50] {
                let text = |most: usize| sign.repeat(most / share / sign.chars().count().max(1));
                let spec = filled(&schema, entries, &text);
                let (takes, counted) = (written(&spec), weight(&spec));
                assert!(takes <= bare + counted, "{entries} of {sign:?}: {takes} > {bare} + {counted}");
            }
        }
    }
}

#[test]
fn the_worst_that_is_accepted_is_under_64_kib() {
    let schema = schema();
    // All structures, then as much of the most that is left as whole entries take, then one text to the last byte.
    let mut spec = filled(&schema, 0, &|_| String::new());
    let lists = schema["properties"]["changes"]["properties"].as_object().unwrap();
    'full: for name in lists.keys().filter(|name| lists[*name]["type"] == "array") {
        for _ in 0..30 {
            let room = texts::MOST - weight(&spec);
            if room < 3 {
                break 'full;
            }
            let text = "<".repeat(((room - 3) / 6).min(60)) + &"x".repeat(if room < 369 { (room - 3) % 6 } else { 0 });
            spec["changes"][name].as_array_mut().unwrap().push(text.into());
        }
    }
    assert_eq!(weight(&spec), texts::MOST);
    let mut record = json!({
        "apiVersion": "canaryrelease.dev/v1alpha1", "kind": "ReleaseRecord", "metadata": {"managedFields": ""},
        "spec": spec, "status": {"message": ""},
    });
    record["status"]["message"] = "x".repeat(LIMIT - written(&record["status"])).into();
    record["metadata"]["managedFields"] = "x".repeat(METADATA - written(&record["metadata"])).into();
    let takes = written(&record);
    assert!(takes < 65_536 && takes > 60_000, "{takes} bytes, of which {} frame", bare(&schema));
}

#[test]
fn no_text_of_a_spec_is_left_out_of_the_rules() {
    let rules = schema()["x-kubernetes-validations"].clone();
    assert_eq!(rules.as_array().unwrap().len(), 2);
    for rule in [&rules[0], &rules[1]] {
        let rule = rule["rule"].as_str().unwrap();
        for field in [
            "self.version.",
            "self.summary.",
            "self.changes.configMap.",
            "self.goNoGo.by.",
            "self.goNoGo.checklist.",
            "self.signOff.manager.",
            "self.nextRelease.date.",
            "self.incident.retrospective.date.",
            "self.incident.timeline.",
            "self.comparison.",
            "t.matches(",
        ] {
            let field = if rule.contains("findAll") { field.replace("matches", "findAll") } else { field.to_owned() };
            assert!(rule.contains(&field), "{field} in {rule}");
        }
    }
}
