//! Pod templates: when two are the same version, and what a version is called. Templates are
//! compared as the API server returns them now, untyped; a digest is a name and never a test.

use canary_api::names::{ANNOTATION_RESTARTED_AT, LABEL_TEMPLATE_HASH};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// The template without what does not make a version: the ReplicaSet's hash label and the time of a
/// `kubectl rollout restart`.
#[must_use]
pub fn version_of(template: &Value) -> Value {
    let mut template = template.clone();
    remove(&mut template, "labels", LABEL_TEMPLATE_HASH);
    remove(&mut template, "annotations", ANNOTATION_RESTARTED_AT);
    // The server drops this zero value now and wrote it as null before.
    if let Some(metadata) = template.pointer_mut("/metadata").and_then(Value::as_object_mut)
        && metadata.get("creationTimestamp").is_some_and(Value::is_null)
    {
        metadata.remove("creationTimestamp");
    }
    template
}

fn remove(template: &mut Value, field: &str, key: &str) {
    let Some(metadata) = template.pointer_mut("/metadata").and_then(Value::as_object_mut) else { return };
    let Some(entries) = metadata.get_mut(field).and_then(Value::as_object_mut) else { return };
    entries.remove(key);
    if entries.is_empty() {
        metadata.remove(field);
    }
}

/// Whether two templates are the same version.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    // Mostly they are the same to the byte, and then nothing needs to be copied.
    a == b || version_of(a) == version_of(b)
}

/// A name for a version: `sha256:` and the hexadecimal SHA-256 of its canonical JSON (sorted keys, no spaces).
#[must_use]
pub fn digest(template: &Value) -> String {
    let canonical = sorted(&version_of(template)).to_string();
    let hash: String = Sha256::digest(canonical.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

/// The same JSON with sorted keys, whatever order the map of this build keeps.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<_> = fields.iter().collect();
            keys.sort_by_key(|(key, _)| key.as_str());
            Value::Object(keys.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect::<Map<_, _>>())
        }
        Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// The images of a template's containers, in order.
#[must_use]
pub fn images(template: &Value) -> Vec<String> {
    crate::object::items(template, "/spec/containers")
        .map(|container| crate::object::text(container, "/image").to_owned())
        .collect()
}

/// The template to write to a Deployment: as its ReplicaSet has it, without the hash label.
#[must_use]
pub fn for_deployment(replica_set_template: &Value) -> Value {
    let mut template = replica_set_template.clone();
    remove(&mut template, "labels", LABEL_TEMPLATE_HASH);
    template
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_restart_and_a_hash_label_make_no_version() {
        let bare = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": "a:1", "unknownToUs": 1}]}});
        let mut served = bare.clone();
        served["metadata"]["labels"]["pod-template-hash"] = json!("abc");
        served["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
        assert!(same(&bare, &served));
        assert_eq!(digest(&bare), digest(&served));
        served["metadata"]["annotations"]["team"] = json!("x");
        assert!(!same(&bare, &served));
    }

    #[test]
    fn fields_this_build_does_not_know_count() {
        let a = json!({"spec": {"containers": [{"image": "a:1", "fieldOfTheFuture": true}]}});
        let b = json!({"spec": {"containers": [{"image": "a:1"}]}});
        assert!(!same(&a, &b));
    }

    /// The figure is what `jq -cS .spec.template | tr -d '\n' | sha256sum` gives for the same template.
    #[test]
    fn the_digest_is_the_one_a_pipeline_can_compute() {
        let template = json!({"spec": {"containers": [{"name": "app", "image": "web:1"}]}, "metadata": {"labels": {"app": "web"}}});
        assert_eq!(digest(&template), "sha256:0f8214e142dd57c0de78c06d9d56c94d6587017fdca9dd42006656360f274ccb");
    }
}
