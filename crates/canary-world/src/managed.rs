//! Who owns which field: `metadata.managedFields`, as far as writes by `Update` make it. Lists are one field here; the
//! real server looks into those that have keys. What matters is kept: whoever changes a field owns it and the one before
//! does not, status and the rest have entries of their own, and an empty entry takes all of it away.

use canary_core::object;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::api::{Caller, seconds};
use crate::resources::Resource;

/// The first entry, of whoever created the object.
pub fn created(object: &mut Value, caller: &Caller, now: Timestamp, resource: &Resource) {
    let mut fields = json!({});
    leaves(&Value::Null, object, &mut fields);
    set(object, vec![entry(caller, now, resource, "", fields)]);
}

/// What an update changes of it.
pub fn updated(was: &Value, object: &mut Value, caller: &Caller, now: Timestamp, resource: &Resource, status: bool) {
    let had = was.pointer("/metadata/managedFields").cloned().unwrap_or_else(|| json!([]));
    let asked = object.pointer("/metadata/managedFields").cloned().unwrap_or_else(|| json!([]));
    let mut entries: Vec<Value> = match asked.as_array() {
        // An empty list changes nothing; one empty entry takes all away.
        Some(list) if list.len() == 1 && list[0].as_object().is_some_and(Map::is_empty) => {
            return set(object, Vec::new());
        }
        Some(list) if !list.is_empty() => list.clone(),
        _ => had.as_array().cloned().unwrap_or_default(),
    };
    let mut changed = json!({});
    leaves(was, object, &mut changed);
    if !changed.as_object().is_some_and(Map::is_empty) {
        let subresource = if status { "status" } else { "" };
        for entry in &mut entries {
            remove(&mut entry["fieldsV1"], &changed);
        }
        // A field that was taken away is nobody's.
        let mut owned = json!({});
        present(&changed, object, &mut owned);
        let own = |entry: &Value| {
            object::text(entry, "/manager") == caller.manager && object::text(entry, "/subresource") == subresource
        };
        match entries.iter_mut().find(|entry| own(entry)) {
            Some(entry) => {
                merge(&mut entry["fieldsV1"], &owned);
                entry["time"] = json!(seconds(now));
            }
            None => entries.push(self::entry(caller, now, resource, subresource, owned)),
        }
        entries.retain(|entry| entry["fieldsV1"].as_object().is_some_and(|fields| !fields.is_empty()));
    }
    set(object, entries);
}

/// Whether two lists say the same but for times.
pub fn same(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_array(), b.as_array()) else { return a == b };
    let key =
        |entry: &Value| ["manager", "subresource", "operation", "fieldsV1"].map(|field| entry.get(field).cloned());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| key(a) == key(b))
}

fn entry(caller: &Caller, now: Timestamp, resource: &Resource, subresource: &str, fields: Value) -> Value {
    let mut entry = json!({
        "apiVersion": resource.api_version(), "fieldsType": "FieldsV1", "fieldsV1": fields,
        "manager": caller.manager, "operation": "Update", "time": seconds(now),
    });
    if !subresource.is_empty() {
        entry["subresource"] = json!(subresource);
    }
    entry
}

fn set(object: &mut Value, entries: Vec<Value>) {
    let metadata = object["metadata"].as_object_mut().unwrap();
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

/// Fields of the server's own, owned by nobody.
const NOBODYS: [&str; 9] = [
    "apiVersion",
    "kind",
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
];

/// The fields that differ, as a tree of `f:` keys.
fn leaves(was: &Value, now: &Value, into: &mut Value) {
    let empty = Map::new();
    let (was, now) = (was.as_object().unwrap_or(&empty), now.as_object().unwrap_or(&empty));
    let keys: std::collections::BTreeSet<&String> = was.keys().chain(now.keys()).collect();
    for key in keys {
        if NOBODYS.contains(&key.as_str()) {
            continue;
        }
        let (a, b) = (was.get(key).unwrap_or(&Value::Null), now.get(key).unwrap_or(&Value::Null));
        if a == b {
            continue;
        }
        let mut below = json!({});
        if a.is_object() || b.is_object() {
            leaves(a, b, &mut below);
        }
        into[format!("f:{key}")] = below;
    }
}

/// The part of a tree that is there in the object.
fn present(tree: &Value, object: &Value, into: &mut Value) {
    for (key, below) in tree.as_object().into_iter().flatten() {
        let Some(found) = object.get(key.trim_start_matches("f:")).filter(|found| !found.is_null()) else { continue };
        let mut inner = json!({});
        present(below, found, &mut inner);
        into[key.as_str()] = inner;
    }
}

fn merge(into: &mut Value, from: &Value) {
    if !into.is_object() {
        *into = json!({});
    }
    for (key, below) in from.as_object().into_iter().flatten() {
        match into.get_mut(key) {
            Some(there) => merge(there, below),
            None => into[key.as_str()] = below.clone(),
        }
    }
}

/// Takes the leaves of `gone` out of a tree.
fn remove(tree: &mut Value, gone: &Value) {
    let Some(fields) = tree.as_object_mut() else { return };
    for (key, below) in gone.as_object().into_iter().flatten() {
        let leaf = below.as_object().is_none_or(Map::is_empty);
        let Some(there) = fields.get_mut(key) else { continue };
        if leaf {
            fields.remove(key);
            continue;
        }
        remove(there, below);
        if there.as_object().is_some_and(Map::is_empty) {
            fields.remove(key);
        }
    }
}
