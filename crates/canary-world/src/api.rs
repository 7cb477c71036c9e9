//! The API server's rules for one object: what may be created, changed and deleted, what the server itself writes into
//! it, and in what order: preconditions, defaults, admission, validation, storage. It sends and receives nothing.

use std::sync::Arc;

use canary_core::object;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::admission::{Admission, Admitted};
use crate::defaults;
use crate::managed;
use crate::refusal::Refusal;
use crate::resources::Resource;
use crate::store::{Key, Store, Version};

/// Who asks, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The authenticated user.
    pub user: String,
    /// The field manager.
    pub manager: String,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
}

impl Caller {
    /// A caller that means it.
    #[must_use]
    pub fn new(user: &str, manager: &str) -> Self {
        Self { user: user.to_owned(), manager: manager.to_owned(), dry_run: false }
    }
}

/// How a patch's body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
}

/// An API server's state.
#[derive(Debug)]
pub struct Api {
    /// What it stores.
    pub store: Store,
    /// What admission does.
    pub admission: Admission,
    /// The server's clock.
    pub now: Timestamp,
    /// Namespaces that are being deleted.
    pub terminating: Vec<String>,
    uids: u64,
}

impl Api {
    /// A server without objects.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { store: Store::default(), admission: Admission::default(), now, terminating: Vec::new(), uids: 0 }
    }

    /// The object there, or that it is not there.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Arc<Version>, Refusal> {
        let key = Key::new(resource, namespace, name);
        self.store.get(&key).cloned().ok_or_else(|| Refusal::not_found(resource, name))
    }

    /// What stands there.
    #[must_use]
    pub fn object(&self, resource: &Resource, namespace: &str, name: &str) -> Option<&Value> {
        self.store.get(&Key::new(resource, namespace, name)).map(|version| &version.value)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// What the server refuses.
    pub fn create(
        &mut self,
        caller: &Caller,
        resource: &'static Resource,
        namespace: &str,
        mut object: Value,
    ) -> Result<Arc<Version>, Refusal> {
        let mut name = object::name(&object).to_owned();
        let prefix = object::text(&object, "/metadata/generateName").to_owned();
        if name.is_empty() && !prefix.is_empty() {
            name = format!("{prefix}{:05x}", self.uids + 1);
            object["metadata"]["name"] = json!(name);
        }
        if name.is_empty() {
            return Err(Refusal::invalid(
                resource,
                "",
                "metadata.name: Required value: name or generateName is required",
            ));
        }
        if self.terminating.iter().any(|ending| ending == namespace) {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            return Err(Refusal::forbidden(resource, &name, &why));
        }
        if !object::resource_version(&object).is_empty() {
            return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let key = Key::new(resource, namespace, &name);
        self.uids += 1;
        object["apiVersion"] = json!(resource.api_version());
        object["kind"] = json!(resource.kind);
        let metadata = object["metadata"].as_object_mut().unwrap();
        for field in ["resourceVersion", "managedFields", "selfLink", "deletionTimestamp", "generation"] {
            metadata.remove(field);
        }
        if resource.namespaced {
            metadata.insert("namespace".into(), json!(namespace));
        }
        metadata.insert("uid".into(), json!(format!("00000000-0000-4000-8000-{:012x}", self.uids)));
        metadata.insert("creationTimestamp".into(), json!(seconds(self.now)));
        if resource.generation {
            metadata.insert("generation".into(), json!(1));
        }
        if resource.status && resource.custom && resource.kind != "HTTPRoute" {
            object.as_object_mut().unwrap().remove("status");
            if resource.kind == "CanaryRelease" {
                // The definition's own default.
                object["status"] = json!({"observedGeneration": -1});
            }
        }
        defaults::apply(resource, &mut object, self.uids);
        self.admission.create(caller, resource, &mut object)?;
        if self.store.get(&key).is_some() {
            return Err(Refusal::already_exists(resource, &name));
        }
        defaults::prune(resource, &mut object);
        defaults::check(resource, None, &object)?;
        managed::created(&mut object, caller, self.now, resource);
        if caller.dry_run {
            return Ok(Store::default().put(key, object, self.now));
        }
        Ok(self.store.put(key, object, self.now))
    }

    /// Replaces an object, or its status alone.
    ///
    /// # Errors
    /// What the server refuses.
    pub fn replace(
        &mut self,
        caller: &Caller,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        status: bool,
        object: Value,
    ) -> Result<Arc<Version>, Refusal> {
        let before = self.get(resource, namespace, name)?;
        let custom = resource.custom;
        if custom && object::resource_version(&object).is_empty() {
            let why = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
            return Err(Refusal::invalid(resource, name, why));
        }
        self.update(caller, resource, &before, object, status)
    }

    /// Patches an object, or its status alone.
    ///
    /// # Errors
    /// What the server refuses.
    pub fn patch(
        &mut self,
        caller: &Caller,
        resource: &'static Resource,
        (namespace, name): (&str, &str),
        status: bool,
        kind: PatchKind,
        patch: &Value,
    ) -> Result<Arc<Version>, Refusal> {
        let before = self.get(resource, namespace, name)?;
        let mut object = before.value.clone();
        match kind {
            PatchKind::Json => {
                let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                    .map_err(|error| Refusal::bad_request(&format!("error decoding patch: {error}")))?;
                json_patch::patch(&mut object, &patch).map_err(|_| Refusal::patch_does_not_fit())?;
            }
            PatchKind::Merge => json_patch::merge(&mut object, patch),
        }
        self.update(caller, resource, &before, object, status)
    }

    /// All that an update goes through.
    fn update(
        &mut self,
        caller: &Caller,
        resource: &'static Resource,
        before: &Arc<Version>,
        mut object: Value,
        status: bool,
    ) -> Result<Arc<Version>, Refusal> {
        let was = &before.value;
        let name = object::name(was).to_owned();
        let wrong_uid = !object::uid(&object).is_empty() && object::uid(&object) != object::uid(was);
        if wrong_uid && !(status && resource.custom) {
            let why = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                object::uid(&object),
                object::uid(was)
            );
            return Err(Refusal::conflict_because(resource, &name, &why));
        }
        let version = object::resource_version(&object);
        if !version.is_empty() && version != object::resource_version(was) {
            return Err(Refusal::conflict(resource, &name));
        }
        if object::name(&object) != name {
            return Err(Refusal::bad_request("the name of the object does not match the name on the URL"));
        }
        self.server_owned(resource, was, &mut object, status);
        defaults::apply(resource, &mut object, 0);
        // What admission changes afterwards is owned by nobody.
        managed::updated(was, &mut object, caller, self.now, resource, status);
        let Admitted { mut object } = self.admission.update(caller, resource, was, object, status)?;
        // Of a Deployment, annotations count as well.
        let noted = resource.plural == "deployments"
            && object.pointer("/metadata/annotations") != was.pointer("/metadata/annotations");
        if !status && (noted || object.get("spec") != was.get("spec")) && resource.generation {
            object["metadata"]["generation"] = json!(object::integer(was, "/metadata/generation", 1) + 1);
        }
        defaults::prune(resource, &mut object);
        defaults::check(resource, Some(was), &object)?;
        if same(was, &object) {
            return Ok(before.clone());
        }
        let key = Key::new(resource, object::text(was, "/metadata/namespace"), &name);
        if caller.dry_run {
            object["metadata"]["resourceVersion"] = was["metadata"]["resourceVersion"].clone();
            return Ok(Store::default().put(key, object, self.now));
        }
        if object::deleting(&object) && object::items(&object, "/metadata/finalizers").next().is_none() {
            let _ = self.store.remove(&key, self.now);
            return Ok(Store::default().put(key, object, self.now));
        }
        Ok(self.store.put(key, object, self.now))
    }

    /// What a writer can't change, put back.
    fn server_owned(&self, resource: &Resource, was: &Value, object: &mut Value, status: bool) {
        object["apiVersion"] = was["apiVersion"].clone();
        object["kind"] = was["kind"].clone();
        if status {
            let written = object.get("status").cloned();
            let managed = object.pointer("/metadata/managedFields").cloned();
            *object = was.clone();
            match written {
                Some(written) => object["status"] = written,
                None => {
                    object.as_object_mut().unwrap().remove("status");
                }
            }
            if let Some(managed) = managed {
                object["metadata"]["managedFields"] = managed;
            }
        } else {
            if resource.status {
                match was.get("status") {
                    Some(status) => object["status"] = status.clone(),
                    None => {
                        object.as_object_mut().unwrap().remove("status");
                    }
                }
            }
            let metadata = object["metadata"].as_object_mut().unwrap();
            for field in [
                "uid",
                "creationTimestamp",
                "deletionTimestamp",
                "generation",
                "namespace",
                "deletionGracePeriodSeconds",
            ] {
                match was["metadata"].get(field) {
                    Some(value) => metadata.insert(field.to_owned(), value.clone()),
                    None => metadata.remove(field),
                };
            }
        }
        object["metadata"]["resourceVersion"] = was["metadata"]["resourceVersion"].clone();
    }

    /// Deletes an object, or marks it where something has still to be done.
    ///
    /// # Errors
    /// What the server refuses.
    pub fn delete(
        &mut self,
        caller: &Caller,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: &Value,
    ) -> Result<Deleted, Refusal> {
        let before = self.get(resource, namespace, name)?;
        let uid = object::text(options, "/preconditions/uid");
        if !uid.is_empty() && uid != object::uid(&before.value) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::uid(&before.value)
            );
            return Err(Refusal::conflict_because(resource, name, &why));
        }
        self.admission.delete(caller, resource, &before.value)?;
        let key = Key::new(resource, namespace, name);
        let mut object = before.value.clone();
        let foreground = object::text(options, "/propagationPolicy") == "Foreground";
        if foreground && !object::items(&object, "/metadata/finalizers").any(|one| one == "foregroundDeletion") {
            let mut finalizers: Vec<Value> = object::items(&object, "/metadata/finalizers").cloned().collect();
            finalizers.push(json!("foregroundDeletion"));
            object["metadata"]["finalizers"] = json!(finalizers);
        }
        if caller.dry_run {
            return Ok(Deleted::Gone(before));
        }
        if object::items(&object, "/metadata/finalizers").next().is_none() {
            let _ = self.store.remove(&key, self.now);
            return Ok(Deleted::Gone(before));
        }
        if object::deleting(&object) {
            return Ok(Deleted::Marked(before));
        }
        object["metadata"]["deletionTimestamp"] = json!(seconds(self.now));
        object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        if resource.generation {
            object["metadata"]["generation"] = json!(object::integer(&object, "/metadata/generation", 1) + 1);
        }
        Ok(Deleted::Marked(self.store.put(key, object, self.now)))
    }

    /// A controller writes a status, where that changes.
    pub fn controller_says(&mut self, resource: &'static Resource, of: &Arc<Version>, status: Value) {
        if of.value.get("status") != Some(&status) {
            let mut object = of.value.clone();
            object["status"] = status;
            self.controller_puts(resource, object);
        }
    }

    /// A controller of the cluster's own writes an object as it wants it: no admission, no managed fields.
    pub fn controller_puts(&mut self, resource: &'static Resource, object: Value) {
        let key = Key::new(resource, object::text(&object, "/metadata/namespace"), object::name(&object));
        let Some(before) = self.store.get(&key).cloned() else { return };
        let mut object = object;
        if object.get("spec") != before.value.get("spec") && resource.generation {
            object["metadata"]["generation"] = json!(object::integer(&before.value, "/metadata/generation", 1) + 1);
        }
        if !same(&before.value, &object) {
            self.store.put(key, object, self.now);
        }
    }
}

/// What became of an object that was to be deleted.
#[derive(Debug)]
pub enum Deleted {
    /// It is gone; so it was.
    Gone(Arc<Version>),
    /// It stays until its finalizers are done.
    Marked(Arc<Version>),
}

/// A time as objects carry it.
#[must_use]
pub fn seconds(at: Timestamp) -> String {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string()
}

/// How long ago that was.
#[must_use]
pub fn age(now: Timestamp, at: &str) -> SignedDuration {
    at.parse::<Timestamp>().map_or(SignedDuration::ZERO, |at| now.duration_since(at))
}

/// Whether nothing is to be written: equal but for the resourceVersion, and the times of managed fields.
fn same(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    a.len() == b.len()
        && a.iter().all(|(field, value)| match (field.as_str(), b.get(field)) {
            ("metadata", Some(other)) => same_metadata(value, other),
            (_, other) => other == Some(value),
        })
}

fn same_metadata(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let count = |of: &serde_json::Map<String, Value>| of.keys().filter(|key| *key != "resourceVersion").count();
    count(a) == count(b)
        && a.iter().filter(|(field, _)| *field != "resourceVersion").all(|(field, value)| {
            match (field.as_str(), b.get(field)) {
                ("managedFields", Some(other)) => managed::same(value, other),
                (_, other) => other == Some(value),
            }
        })
}
