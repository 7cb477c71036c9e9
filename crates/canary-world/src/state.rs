//! Every object as a line of text, without what differs between two runs that came to the same: versions, uids, times,
//! names of pods.

use std::collections::BTreeMap;

use canary_core::object;
use serde_json::{Value, json};

use crate::api::Api;

/// The end of a run.
#[must_use]
pub fn of(api: &Api) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for (key, version) in api.store.everything() {
        let value = &version.value;
        let shown = match key.plural {
            "events" | "pods" | "releaserecords" | "leases" => continue,
            _ if key.namespace.is_empty() => continue,
            "canaryreleases" => release(value),
            "replicasets" => json!({
                "replicas": object::integer(value, "/spec/replicas", 0),
                "rejected": object::annotation(value, canary_api::names::ANNOTATION_REJECTED).is_some(),
            }),
            _ => plain(value),
        };
        state.insert(format!("{} {}", key.plural, key.name), shown.to_string());
    }
    state
}

fn release(value: &Value) -> Value {
    let status = |pointer: &str| value.pointer(&format!("/status/{pointer}")).cloned().unwrap_or_default();
    let ended = |line: &Value| line.as_str().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let history: Vec<String> = object::items(value, "/status/history").map(ended).collect();
    let revert = |field: &str| status(&format!("current/revert/{field}"));
    json!({
        "spec": value["spec"],
        "finalizers": value["metadata"].get("finalizers"),
        "annotations": value["metadata"].get("annotations"),
        "phase": status("phase"), "outcome": status("outcome"), "history": history,
        "armed": status("hold/armed"), "serving": status("hold/serving/digest"),
        "step": status("current/step"), "number": status("current/number"),
        "revert": [revert("reason"), revert("outcome"), revert("rejects")],
    })
}

fn plain(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|field, value| !matches!(field.as_str(), "clusterIP" | "clusterIPs") || *value == "None");
    }
    if let Some(metadata) = value["metadata"].as_object_mut() {
        for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "ownerReferences"] {
            metadata.remove(field);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            for own in ["deployment.kubernetes.io/revision", canary_api::names::ANNOTATION_UID] {
                annotations.remove(own);
            }
        }
    }
    value
}
