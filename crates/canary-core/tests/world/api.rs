//! The API server: uids, resourceVersions and generations, JSON patch, finalizers, and the hold by
//! admission as the policies in `deploy/` do it.

use canary_api::names;
use canary_core::{object, template};
use serde_json::{Value, json};

use super::{NAMESPACE, OPERATOR, World, promises};

/// Why the API server did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It changed meanwhile, or exists already.
    Conflict(String),
    /// It is not there.
    Gone(String),
    /// Admission says no.
    Forbidden(String),
    /// The server fails.
    Unavailable(String),
}

/// An update before admission.
pub struct Update<'a> {
    pub kind: &'static str,
    pub user: &'a str,
    pub manager: &'a str,
    pub dry_run: bool,
}

impl World {
    pub(super) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Creates an object.
    pub fn create(&mut self, kind: &'static str, mut object: Value) {
        let name = object::name(&object).to_owned();
        assert!(self.get(kind, &name).is_none(), "{kind} {name} exists");
        let serial = self.serial();
        object["metadata"]["uid"] = json!(format!("uid-{serial}"));
        object["metadata"]["resourceVersion"] = json!(serial.to_string());
        object["metadata"]["generation"] = json!(1);
        object["metadata"]["namespace"] = json!(NAMESPACE);
        object["metadata"]["creationTimestamp"] = json!(self.now.to_string());
        self.objects.insert((kind, name), object);
    }

    pub(super) fn create_new(&mut self, kind: &'static str, object: Value) -> Result<(), Refused> {
        let name = object::name(&object).to_owned();
        if self.get(kind, &name).is_some() {
            return Err(Refused::Conflict(format!("{kind} {name} exists")));
        }
        if self.baseline_refused && name == "web-baseline" {
            return Err(Refused::Forbidden(format!("no {kind} {name} here")));
        }
        if let Some(refused) = self.jobs_refused.clone().filter(|_| kind == "Job") {
            return Err(refused);
        }
        self.create(kind, object);
        Ok(())
    }

    /// Somebody edits an object by read and write, as kubectl and the tools do.
    pub fn edit(
        &mut self,
        kind: &'static str,
        name: &str,
        user: &str,
        manager: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<(), Refused> {
        let mut wanted = self.get(kind, name).ok_or_else(|| Refused::Gone(name.to_owned()))?.clone();
        change(&mut wanted);
        self.update(&Update { kind, user, manager, dry_run: false }, name, wanted).map(drop)
    }

    /// Stores an object whose resourceVersion must be the present one; the answer is what was stored.
    pub(super) fn update(&mut self, update: &Update<'_>, name: &str, mut wanted: Value) -> Result<Value, Refused> {
        let kind = update.kind;
        let before = self.get(kind, name).ok_or_else(|| Refused::Gone(format!("{kind} {name}")))?.clone();
        if object::resource_version(&wanted) != object::resource_version(&before)
            || object::uid(&wanted) != object::uid(&before)
        {
            return Err(Refused::Conflict(format!("{kind} {name}: it changed meanwhile")));
        }
        if update.user != OPERATOR || update.dry_run {
            self.admit(update, &before, &mut wanted)?;
        }
        if kind == "HTTPRoute" {
            default_weights(&mut wanted);
        }
        prune(&mut wanted);
        if wanted == before {
            return Ok(before);
        }
        if wanted["spec"] != before["spec"] {
            wanted["metadata"]["generation"] = json!(object::integer(&before, "/metadata/generation", 1) + 1);
        }
        if update.dry_run {
            return Ok(wanted);
        }
        wanted["metadata"]["resourceVersion"] = json!(self.serial().to_string());
        let finalized = object::items(&wanted, "/metadata/finalizers").next().is_none();
        if object::deleting(&wanted) && finalized {
            self.objects.remove(&(kind, name.to_owned()));
        } else {
            self.objects.insert((kind, name.to_owned()), wanted.clone());
        }
        self.weights_written();
        Ok(wanted)
    }

    /// Deletes an object; with a finalizer it stays for now.
    pub fn delete(&mut self, kind: &'static str, name: &str) {
        let serial = self.serial();
        let now = self.now.to_string();
        let Some(object) = self.objects.get_mut(&(kind, name.to_owned())) else { return };
        if object::items(object, "/metadata/finalizers").next().is_some() {
            object["metadata"]["deletionTimestamp"] = json!(now);
            object["metadata"]["resourceVersion"] = json!(serial.to_string());
        } else {
            self.objects.remove(&(kind, name.to_owned()));
        }
        self.weights_written();
    }

    pub(super) fn delete_exactly(&mut self, kind: &'static str, name: &str, uid: &str) -> Result<(), Refused> {
        let present = self.get(kind, name).ok_or_else(|| Refused::Gone(format!("{kind} {name}")))?;
        if object::uid(present) != uid {
            return Err(Refused::Conflict(format!("{kind} {name} is another one")));
        }
        self.delete(kind, name);
        Ok(())
    }

    /// The operator's JSON patch. A stale one is a conflict; one that fits and can't be applied is a fault.
    pub(super) fn patch(&mut self, kind: &'static str, name: &str, operations: &Value) -> Result<(), Refused> {
        let before = self.get(kind, name).ok_or_else(|| Refused::Gone(format!("{kind} {name}")))?.clone();
        let operations = operations.as_array().expect("a JSON patch");
        let guards = |path: &str| {
            operations.iter().find(|operation| operation["path"] == path).map(|operation| &operation["value"])
        };
        let uid = guards("/metadata/uid").expect("a patch is guarded by uid");
        let version = guards("/metadata/resourceVersion");
        // Only the taking away of a command goes without: it tests the very text that it takes away.
        let command = format!("/metadata/annotations/{}", object::escape(names::ANNOTATION_COMMAND));
        assert!(version.is_some() || guards(&command).is_some(), "a patch is guarded by resourceVersion");
        let moved = guards(&command).is_some_and(|text| before.pointer(&command) != Some(text));
        if uid != &before["metadata"]["uid"]
            || version.is_some_and(|version| version != &before["metadata"]["resourceVersion"])
            || moved
        {
            return Err(Refused::Conflict(format!("{kind} {name}: it changed meanwhile")));
        }
        let mut wanted = before.clone();
        for operation in operations {
            json_patch(&mut wanted, operation)
                .unwrap_or_else(|why| panic!("{kind} {name}: {operation}: {why}\npatch {operations:?}\nof {before}"));
        }
        let update = Update { kind, user: OPERATOR, manager: names::FIELD_MANAGER, dry_run: false };
        let after = self.update(&update, name, wanted)?;
        assert_ne!(
            after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"],
            "{kind} {name}: a write that changes nothing: {operations:?}"
        );
        Ok(())
    }

    /// `deploy/20-policy-deployment.yaml` and `deploy/22-policy-route.yaml`.
    fn admit(&self, update: &Update<'_>, before: &Value, wanted: &mut Value) -> Result<(), Refused> {
        let Some(release) = object::label(before, names::LABEL_RELEASE).map(str::to_owned) else { return Ok(()) };
        match update.kind {
            "Deployment" if self.hold_installed => hold(update, &release, before, wanted),
            "HTTPRoute" if self.split_kept => {
                keep_marks(before, wanted);
                wanted["metadata"]["labels"][names::LABEL_RELEASE] = json!(release);
                stamp_override(update, before, wanted);
                if !overridden(update, before, wanted) {
                    keep_split(before, wanted);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn weights_written(&mut self) {
        let routes = || self.objects.iter().filter(|((kind, _), _)| *kind == "HTTPRoute").map(|(_, route)| route);
        let canary = routes().map(promises::canary_weight).max().unwrap_or(0);
        let baseline = routes().map(promises::baseline_weight).max().unwrap_or(0);
        self.promises.weights_are(canary, baseline, self.now);
    }
}

fn note<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object::annotation(object, key)
}

fn overridden(update: &Update<'_>, before: &Value, wanted: &Value) -> bool {
    let (was, now) = (note(before, names::ANNOTATION_OVERRIDE), note(wanted, names::ANNOTATION_OVERRIDE));
    now.is_some_and(|now| !now.trim().is_empty())
        && (was != now || note(before, names::ANNOTATION_OVERRIDE_BY) == Some(update.user))
}

fn stamp_override(update: &Update<'_>, before: &Value, wanted: &mut Value) {
    let (was, now) = (
        note(before, names::ANNOTATION_OVERRIDE).map(str::to_owned),
        note(wanted, names::ANNOTATION_OVERRIDE).map(str::to_owned),
    );
    match (was, now) {
        (Some(was), None) => {
            wanted["metadata"]["annotations"][names::ANNOTATION_OVERRIDE] = json!(was);
            wanted["metadata"]["annotations"][names::ANNOTATION_OVERRIDE_BY] =
                before["metadata"]["annotations"][names::ANNOTATION_OVERRIDE_BY].clone();
        }
        (was, Some(now)) if was.as_deref() != Some(&now) => {
            wanted["metadata"]["annotations"][names::ANNOTATION_OVERRIDE_BY] = json!(update.user);
        }
        _ => {}
    }
}

/// Our annotations are the operator's: whatever another writer does to them is undone.
fn keep_marks(before: &Value, wanted: &mut Value) {
    let ours = |key: &str| {
        key.starts_with("canaryrelease.dev/")
            && key != names::ANNOTATION_OVERRIDE
            && key != names::ANNOTATION_OVERRIDE_BY
    };
    if let Some(entries) = wanted.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        entries.retain(|key, _| !ours(key));
    }
    for (key, value) in object::strings(before, "/metadata/annotations").into_iter().filter(|(key, _)| ours(key)) {
        wanted["metadata"]["annotations"][key] = json!(value);
    }
}

fn hold(update: &Update<'_>, release: &str, before: &Value, wanted: &mut Value) -> Result<(), Refused> {
    let (was, now) = (&before["spec"]["template"], &wanted["spec"]["template"]);
    let changed = !template::same(was, now);
    let rolling = note(before, names::ANNOTATION_ROLLING).is_some();
    let overridden = overridden(update, before, wanted);
    let paused = |object: &Value| object::truth(object, "/spec/paused");
    let resumed = paused(before) && !paused(wanted) && note(before, names::ANNOTATION_CHANGED_BY).is_some();
    let person = ["kubectl-rollout", "kubectl-patch", "kubectl-edit"].contains(&update.manager);
    let pause = !rolling && !overridden && (changed || (resumed && !person));
    keep_marks(before, wanted);
    stamp_override(update, before, wanted);
    if !overridden {
        wanted["metadata"]["labels"][names::LABEL_RELEASE] = json!(release);
    }
    if changed {
        wanted["metadata"]["annotations"][names::ANNOTATION_CHANGED_BY] = json!(update.user);
    }
    if pause {
        wanted["spec"]["paused"] = json!(true);
    }
    let resumed = paused(before) && !paused(wanted) && note(before, names::ANNOTATION_CHANGED_BY).is_some();
    if resumed && !rolling && !overridden {
        return Err(Refused::Forbidden(format!(
            "deployment {} is held by CanaryRelease {release}",
            object::name(before)
        )));
    }
    if rolling && changed && !overridden {
        return Err(Refused::Forbidden(format!("deployment {} is being promoted or restored", object::name(before))));
    }
    Ok(())
}

/// The weights in force stay, whatever is applied.
fn keep_split(before: &Value, wanted: &mut Value) {
    let Some(mark) = note(before, names::ANNOTATION_SPLIT) else { return };
    let ours: Vec<&str> = mark.split('/').collect();
    let stable = ours[0];
    let entry = |rule: &Value, name: &str| {
        object::items(rule, "/backendRefs").find(|entry| object::text(entry, "/name") == name).cloned()
    };
    let force = object::items(before, "/spec/rules").find_map(|rule| {
        ours.iter().map(|name| Some(entry(rule, name)?["weight"].clone())).collect::<Option<Vec<Value>>>()
    });
    let Some(force) = force else { return };
    for rule in wanted["spec"]["rules"].as_array_mut().unwrap() {
        let Some(own) = entry(rule, stable) else { continue };
        let partners = ours.iter().skip(1).filter(|name| entry(rule, name).is_some()).count();
        let entries = rule["backendRefs"].as_array_mut().unwrap();
        let alone = entries.len() == partners + 1;
        for (name, weight) in ours.iter().zip(&force) {
            match entries.iter_mut().find(|entry| entry["name"] == **name) {
                Some(entry) => entry["weight"] = weight.clone(),
                None if alone => {
                    let mut added = own.clone();
                    added["name"] = json!(name);
                    added["weight"] = weight.clone();
                    entries.push(added);
                }
                None => {}
            }
        }
    }
}

fn default_weights(route: &mut Value) {
    for rule in route["spec"]["rules"].as_array_mut().into_iter().flatten() {
        for entry in rule["backendRefs"].as_array_mut().into_iter().flatten() {
            if entry.get("weight").is_none() {
                entry["weight"] = json!(1);
            }
        }
    }
}

/// The server drops empty maps of labels and annotations, and `paused: false`.
fn prune(object: &mut Value) {
    for field in ["labels", "annotations", "finalizers"] {
        let metadata = object["metadata"].as_object_mut().unwrap();
        let empty = metadata.get(field).is_some_and(|entries| {
            entries.as_object().is_some_and(serde_json::Map::is_empty)
                || entries.as_array().is_some_and(Vec::is_empty)
                || entries.is_null()
        });
        if empty {
            metadata.remove(field);
        }
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
        && spec.get("paused") == Some(&json!(false))
    {
        spec.remove("paused");
    }
}

/// One operation of RFC 6902, of the four that the operator uses.
fn json_patch(document: &mut Value, operation: &Value) -> Result<(), String> {
    let (path, what) = (object::text(operation, "/path"), object::text(operation, "/op"));
    if what == "test" {
        let found = document.pointer(path).unwrap_or(&Value::Null);
        return if found == &operation["value"] { Ok(()) } else { Err(format!("the test fails: {found}")) };
    }
    let (parent, last) = path.rsplit_once('/').ok_or("no path")?;
    let last = last.replace("~1", "/").replace("~0", "~");
    let parent = document.pointer_mut(parent).ok_or("the parent is not there")?;
    match parent {
        Value::Object(fields) => match what {
            "add" => drop(fields.insert(last, operation["value"].clone())),
            "replace" if fields.contains_key(&last) => drop(fields.insert(last, operation["value"].clone())),
            "remove" if fields.contains_key(&last) => drop(fields.remove(&last)),
            _ => return Err("the field is not there".to_owned()),
        },
        Value::Array(items) => {
            let end = items.len();
            let index = if last == "-" { end } else { last.parse::<usize>().map_err(|error| error.to_string())? };
            match what {
                "add" if index <= end => items.insert(index, operation["value"].clone()),
                "replace" if index < end => items[index] = operation["value"].clone(),
                "remove" if index < end => drop(items.remove(index)),
                _ => return Err("the element is not there".to_owned()),
            }
        }
        _ => return Err("the parent holds nothing".to_owned()),
    }
    Ok(())
}
