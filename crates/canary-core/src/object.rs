//! Reading untyped Kubernetes objects. Nothing here fails: what is absent reads as empty or zero.

use std::collections::BTreeMap;

use canary_api::names::FIELD_MANAGER;
use serde_json::{Value, json};

/// `metadata.name`.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.uid`.
#[must_use]
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// `metadata.resourceVersion`.
#[must_use]
pub fn resource_version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// What is at a JSON pointer. As [`Value::pointer`], which copies each of its steps; a tick asks hundreds of times.
fn at<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    if pointer.contains('~') {
        return object.pointer(pointer);
    }
    pointer.split('/').skip(1).try_fold(object, |value, step| match value {
        Value::Object(fields) => fields.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

/// A string at a JSON pointer, or `""`.
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    at(object, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// An integer at a JSON pointer, or `otherwise`.
#[must_use]
pub fn integer(object: &Value, pointer: &str, otherwise: i64) -> i64 {
    at(object, pointer).and_then(Value::as_i64).unwrap_or(otherwise)
}

/// A boolean at a JSON pointer, or `false`.
#[must_use]
pub fn truth(object: &Value, pointer: &str) -> bool {
    at(object, pointer).and_then(Value::as_bool).unwrap_or(false)
}

/// The elements of an array at a JSON pointer.
pub fn items<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    at(object, pointer).and_then(Value::as_array).into_iter().flatten()
}

/// A map of strings at a JSON pointer.
#[must_use]
pub fn strings(object: &Value, pointer: &str) -> BTreeMap<String, String> {
    let fields = at(object, pointer).and_then(Value::as_object);
    fields.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// An annotation, where it is set.
#[must_use]
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, "/metadata/annotations")?.get(key)?.as_str()
}

/// A label, where it is set.
#[must_use]
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, "/metadata/labels")?.get(key)?.as_str()
}

/// Whether the object's controller is the one with this uid.
#[must_use]
pub fn controlled_by(object: &Value, owner: &str) -> bool {
    !owner.is_empty()
        && items(object, "/metadata/ownerReferences")
            .any(|reference| truth(reference, "/controller") && text(reference, "/uid") == owner)
}

/// Whether the object is being deleted.
#[must_use]
pub fn deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// A condition's status, such as `True`, or `""`.
#[must_use]
pub fn condition<'a>(object: &'a Value, pointer: &str, kind: &str) -> &'a str {
    items(object, pointer)
        .find(|condition| text(condition, "/type") == kind)
        .map_or("", |condition| text(condition, "/status"))
}

/// A condition's reason, or `""`.
#[must_use]
pub fn condition_reason<'a>(object: &'a Value, pointer: &str, kind: &str) -> &'a str {
    items(object, pointer)
        .find(|condition| text(condition, "/type") == kind)
        .map_or("", |condition| text(condition, "/reason"))
}

/// Whether a selector (`matchLabels` and `matchExpressions`) selects these labels.
#[must_use]
pub fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let equal = strings(selector, "/matchLabels").iter().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && items(selector, "/matchExpressions").all(|expression| {
            let found = labels.get(text(expression, "/key"));
            let listed = items(expression, "/values")
                .any(|value| found.is_some_and(|label| Some(label.as_str()) == value.as_str()));
            match text(expression, "/operator") {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

/// A key as one step of a JSON pointer.
#[must_use]
pub fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A JSON patch that is refused with a conflict when the object changed or is another one.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch(Vec<Value>);

impl Patch {
    /// A patch of exactly this object, as it was read.
    #[must_use]
    pub fn guarded(object: &Value) -> Self {
        // `test` of the version answers 422 when stale, in the same words as a wrong path; `replace` answers 409.
        Self(vec![
            json!({"op": "test", "path": "/metadata/uid", "value": uid(object)}),
            json!({"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version(object)}),
        ])
    }

    /// A patch of exactly this object, whatever changed in it meanwhile: for what `test` guards by itself.
    #[must_use]
    pub fn of_whatever_version(object: &Value) -> Self {
        Self(vec![json!({"op": "test", "path": "/metadata/uid", "value": uid(object)})])
    }

    /// Whether it would change anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let guards = |operation: &&Value| {
            text(operation, "/path").starts_with("/metadata/resourceVersion") || text(operation, "/op") == "test"
        };
        self.0.iter().filter(|operation| !guards(operation)).count() == 0
    }

    /// Sets a field.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> &mut Self {
        self.0.push(json!({"op": "add", "path": path, "value": value.into()}));
        self
    }

    /// Takes a field away, which must be there.
    pub fn remove(&mut self, path: &str) -> &mut Self {
        self.0.push(json!({"op": "remove", "path": path}));
        self
    }

    /// Refuses the patch unless the field is as given.
    pub fn test(&mut self, path: &str, value: impl Into<Value>) -> &mut Self {
        self.0.push(json!({"op": "test", "path": path, "value": value.into()}));
        self
    }

    /// Sets entries of `metadata.labels` or `metadata.annotations` (`field`) that differ from the object's.
    pub fn set_entries(&mut self, object: &Value, field: &str, entries: &[(&str, &str)]) -> &mut Self {
        let base = format!("/metadata/{field}");
        let present = strings(object, &base);
        let changed: Vec<_> =
            entries.iter().filter(|(key, value)| present.get(*key).map(String::as_str) != Some(*value)).collect();
        let made = self.0.iter().any(|operation| text(operation, "/path") == base);
        if !changed.is_empty() && object.pointer(&base).is_none() && !made {
            self.set(&base, json!({}));
        }
        for (key, value) in changed {
            self.set(&format!("{base}/{}", escape(key)), *value);
        }
        self
    }

    /// Takes entries of `metadata.labels` or `metadata.annotations` (`field`) away where the object has them.
    pub fn remove_entries(&mut self, object: &Value, field: &str, keys: &[&str]) -> &mut Self {
        let base = format!("/metadata/{field}");
        for key in keys {
            if object.pointer(&base).is_some_and(|entries| entries.get(*key).is_some()) {
                self.remove(&format!("{base}/{}", escape(key)));
            }
        }
        self
    }

    /// The operations.
    #[must_use]
    pub fn into_value(self) -> Value {
        Value::Array(self.0)
    }
}

/// The edit that gives up our ownership of the object's `spec`, or `None` where we own nothing of it.
/// What we wrote and took back would else be ours for good, and the next apply of a tool that does
/// not force would be refused with a conflict. It must be a write of its own: one that changes
/// fields makes us their owner again.
#[must_use]
pub fn disown(object: &Value) -> Option<Patch> {
    let entries = object.pointer("/metadata/managedFields")?.as_array()?;
    let ours = |entry: &Value| text(entry, "/manager") == FIELD_MANAGER && entry.pointer("/fieldsV1/f:spec").is_some();
    if !entries.iter().any(ours) {
        return None;
    }
    let others: Vec<Value> = entries.iter().filter(|entry| !ours(entry)).cloned().collect();
    // An empty list changes nothing; one empty entry takes all away.
    let left = if others.is_empty() { json!([{}]) } else { json!(others) };
    let mut patch = Patch::guarded(object);
    patch.0.push(json!({"op": "replace", "path": "/metadata/managedFields", "value": left}));
    Some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_as_by_a_json_pointer() {
        let object = json!({"a": {"b/c": 1, "": 2, "d": [{"e": 3}]}, "": 4});
        for pointer in ["", "/a", "/a/b~1c", "/a/d/0/e", "/a/d/1", "/a/d/x", "/a/b/c", "/a/", "/", "/a/d/0/e/f"] {
            assert_eq!(at(&object, pointer), object.pointer(pointer), "{pointer}");
        }
    }

    #[test]
    fn selectors_select_as_kubernetes_does() {
        let labels: BTreeMap<_, _> = [("app".to_owned(), "web".to_owned())].into();
        assert!(selects(&json!({}), &labels));
        assert!(selects(&json!({"matchLabels": {"app": "web"}}), &labels));
        assert!(!selects(&json!({"matchLabels": {"app": "api"}}), &labels));
        for (operator, values, expected) in [
            ("In", json!(["web"]), true),
            ("In", json!(["api"]), false),
            ("NotIn", json!(["web"]), false),
            ("NotIn", json!(["api"]), true),
            ("Exists", json!([]), true),
            ("DoesNotExist", json!([]), false),
        ] {
            let selector = json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]});
            assert_eq!(selects(&selector, &labels), expected, "{operator}");
        }
    }

    #[test]
    fn ownership_of_a_spec_is_given_up_and_others_keep_theirs() {
        let entry = |manager: &str, fields: Value| json!({"manager": manager, "fieldsV1": fields});
        let git = entry("git", json!({"f:spec": {"f:rules": {}}}));
        let mark = entry(FIELD_MANAGER, json!({"f:metadata": {"f:labels": {}}}));
        let ours = entry(FIELD_MANAGER, json!({"f:spec": {"f:rules": {}}}));
        let with =
            |entries: Vec<&Value>| json!({"metadata": {"uid": "u", "resourceVersion": "1", "managedFields": entries}});
        let patch = disown(&with(vec![&git, &ours, &mark])).unwrap().into_value();
        assert_eq!(patch[2]["value"], json!([git, mark]));
        assert_eq!(disown(&with(vec![&git, &mark])), None);
    }

    #[test]
    fn entries_are_set_only_where_they_differ() {
        let object = json!({"metadata": {"uid": "u", "resourceVersion": "7", "labels": {"a": "1"}}});
        let mut patch = Patch::guarded(&object);
        patch.set_entries(&object, "labels", &[("a", "1")]);
        patch.remove_entries(&object, "annotations", &["x"]);
        assert!(patch.is_empty());
        patch.set_entries(&object, "annotations", &[("a/b", "1")]);
        let operations = patch.into_value();
        assert_eq!(operations[2], json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
        assert_eq!(operations[3]["path"], "/metadata/annotations/a~1b");
    }
}
