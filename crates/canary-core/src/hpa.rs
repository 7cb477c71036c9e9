//! The target's HorizontalPodAutoscaler: its scale-down is frozen for the release, so that traffic can
//! go back at once, and given back as it was. Scale-up is never touched.

use canary_api::names::{ANNOTATION_BEHAVIOR, ANNOTATION_UID, FIELD_MANAGER, LABEL_OWNED_BY};
use serde_json::{Value, json};

use crate::object::{self, Patch};

/// The autoscaler of this Deployment, if one is.
#[must_use]
pub fn of<'a>(autoscalers: &'a [Value], deployment: &str) -> Option<&'a Value> {
    autoscalers.iter().find(|hpa| {
        object::text(hpa, "/spec/scaleTargetRef/kind") == "Deployment"
            && object::text(hpa, "/spec/scaleTargetRef/name") == deployment
    })
}

/// Who else owns `spec.behavior`, by field manager.
#[must_use]
pub fn owner(hpa: &Value) -> Option<String> {
    object::items(hpa, "/metadata/managedFields")
        .find(|entry| {
            object::text(entry, "/manager") != FIELD_MANAGER
                && entry.pointer("/fieldsV1/f:spec/f:behavior/f:scaleDown").is_some()
        })
        .map(|entry| object::text(entry, "/manager").to_owned())
}

/// Whether we froze it.
#[must_use]
pub fn frozen(hpa: &Value) -> bool {
    object::annotation(hpa, ANNOTATION_BEHAVIOR).is_some()
}

/// The edit that freezes scale-down, or `None` where it is frozen or the field is another's.
#[must_use]
pub fn freeze(hpa: &Value, uid: &str) -> Option<Value> {
    if frozen(hpa) || owner(hpa).is_some() {
        return None;
    }
    let before = hpa.pointer("/spec/behavior").cloned().unwrap_or(Value::Null);
    let mut behavior = if before.is_object() { before.clone() } else { json!({}) };
    let fields = behavior.as_object_mut()?;
    let down = fields.entry("scaleDown").or_insert_with(|| json!({}));
    down.as_object_mut()?.insert("selectPolicy".to_owned(), json!("Disabled"));
    let mut patch = Patch::guarded(hpa);
    patch.set_entries(hpa, "annotations", &[(ANNOTATION_BEHAVIOR, &before.to_string()), (ANNOTATION_UID, uid)]);
    patch.set("/spec/behavior", behavior);
    Some(patch.into_value())
}

/// The edit that gives scale-down back, or `None` where we did not freeze it.
#[must_use]
pub fn thaw(hpa: &Value, uid: &str) -> Option<Value> {
    if object::annotation(hpa, ANNOTATION_UID) != Some(uid) {
        return None;
    }
    let before: Value = serde_json::from_str(object::annotation(hpa, ANNOTATION_BEHAVIOR)?).unwrap_or(Value::Null);
    let mut patch = Patch::guarded(hpa);
    if before.is_object() {
        patch.set("/spec/behavior", before);
    } else if hpa.pointer("/spec/behavior").is_some() {
        patch.remove("/spec/behavior");
    }
    patch.remove_entries(hpa, "annotations", &[ANNOTATION_BEHAVIOR, ANNOTATION_UID]);
    patch.remove_entries(hpa, "labels", &[LABEL_OWNED_BY]);
    Some(patch.into_value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_down_is_frozen_and_given_back_as_it_was() {
        let hpa = json!({"metadata": {"uid": "h", "resourceVersion": "1"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
        let patch = freeze(&hpa, "u").unwrap();
        let operations = patch.as_array().unwrap();
        assert_eq!(
            operations.last().unwrap(),
            &json!({"op": "add", "path": "/spec/behavior", "value": {"scaleDown": {"selectPolicy": "Disabled"}}})
        );
        let frozen = json!({"metadata": {"uid": "h", "resourceVersion": "2", "annotations": {"canaryrelease.dev/behavior-before": "null", "canaryrelease.dev/uid": "u"}}, "spec": {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}});
        assert_eq!(freeze(&frozen, "u"), None);
        assert_eq!(thaw(&frozen, "other"), None);
        assert!(
            thaw(&frozen, "u")
                .unwrap()
                .as_array()
                .unwrap()
                .contains(&json!({"op": "remove", "path": "/spec/behavior"}))
        );
    }

    #[test]
    fn a_field_that_another_owns_is_left_alone() {
        let hpa = json!({"metadata": {"managedFields": [{"manager": "helm", "fieldsV1": {"f:spec": {"f:behavior": {"f:scaleDown": {}}}}}]}});
        assert_eq!(owner(&hpa), Some("helm".to_owned()));
        assert_eq!(freeze(&hpa, "u"), None);
    }
}
