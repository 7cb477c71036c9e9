//! What etcd holds: objects by resource, namespace and name, one revision for each change, and all changes in their
//! order, so that watches can be resumed and the past be read. It knows nothing of Kubernetes' rules.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use canary_core::object;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resources::Resource;

/// Where an object is: plural, namespace (empty where there is none), name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The resource's plural.
    pub plural: &'static str,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// The place of an object.
    #[must_use]
    pub fn new(resource: &Resource, namespace: &str, name: &str) -> Self {
        let namespace = if resource.namespaced { namespace } else { "" };
        Self { plural: resource.plural, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// One version of an object. It never changes.
#[derive(Debug)]
pub struct Version {
    /// The object.
    pub value: Value,
    bytes: OnceLock<Bytes>,
    item: OnceLock<Bytes>,
}

impl Version {
    fn new(value: Value) -> Arc<Self> {
        Arc::new(Self { value, bytes: OnceLock::new(), item: OnceLock::new() })
    }

    /// The object as JSON in a list of a built-in kind: without its kind.
    #[must_use]
    pub fn item_bytes(&self) -> Bytes {
        let item = || {
            let mut value = self.value.clone();
            if let Some(fields) = value.as_object_mut() {
                fields.remove("kind");
                fields.remove("apiVersion");
            }
            Bytes::from(value.to_string())
        };
        self.item.get_or_init(item).clone()
    }

    /// The object as JSON.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.bytes.get_or_init(|| Bytes::from(self.value.to_string())).clone()
    }
}

/// One change.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its number, from 1; the resourceVersion of what was written.
    pub revision: u64,
    /// When, by the server's clock.
    pub at: Timestamp,
    /// Where.
    pub key: Key,
    /// What was there.
    pub before: Option<Arc<Version>>,
    /// What is there; of a deleted object, its last state is in `before`.
    pub after: Option<Arc<Version>>,
}

/// All objects, and all changes.
#[derive(Debug, Default, Clone)]
pub struct Store {
    objects: BTreeMap<Key, Arc<Version>>,
    changes: Vec<Change>,
    uids: HashSet<String>,
    /// Changes up to this one can't be watched any more.
    pub compacted: u64,
}

impl Store {
    /// The last change's number.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.changes.len() as u64
    }

    /// The object there.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Version>> {
        self.objects.get(key)
    }

    /// The object that was there before the last change.
    #[must_use]
    pub fn last(&self, key: &Key) -> Option<Arc<Version>> {
        self.changes.iter().rev().find(|change| change.key == *key)?.before.clone()
    }

    /// The objects of a resource, in a namespace or (empty) in all.
    pub fn all<'a>(
        &'a self,
        plural: &'static str,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Version>)> {
        let first = Key { plural, namespace: namespace.to_owned(), name: String::new() };
        self.objects
            .range(first..)
            .take_while(move |(key, _)| key.plural == plural && (namespace.is_empty() || key.namespace == namespace))
    }

    /// Every object.
    pub fn everything(&self) -> impl Iterator<Item = (&Key, &Arc<Version>)> {
        self.objects.iter()
    }

    /// Writes an object, with a new resourceVersion.
    pub fn put(&mut self, key: Key, mut value: Value, at: Timestamp) -> Arc<Version> {
        let revision = self.revision() + 1;
        value["metadata"]["resourceVersion"] = json!(revision.to_string());
        let version = Version::new(value);
        let before = self.objects.insert(key.clone(), version.clone());
        if before.is_none() {
            self.uids.insert(object::uid(&version.value).to_owned());
        }
        self.changes.push(Change { revision, at, key, before, after: Some(version.clone()) });
        version
    }

    /// Takes an object away.
    pub fn remove(&mut self, key: &Key, at: Timestamp) -> Option<Arc<Version>> {
        let before = self.objects.remove(key)?;
        self.uids.remove(object::uid(&before.value));
        let revision = self.revision() + 1;
        self.changes.push(Change { revision, at, key: key.clone(), before: Some(before.clone()), after: None });
        Some(before)
    }

    /// The changes after a revision.
    #[must_use]
    pub fn since(&self, revision: u64) -> &[Change] {
        self.changes.get(usize::try_from(revision).unwrap_or(usize::MAX)..).unwrap_or_default()
    }

    /// The last change's number at a time.
    #[must_use]
    pub fn revision_at(&self, at: Timestamp) -> u64 {
        self.changes.partition_point(|change| change.at <= at) as u64
    }

    /// Everything as it was after the change of this number, without the changes that led to it.
    #[must_use]
    pub fn as_of(&self, revision: u64) -> Self {
        let mut objects = self.objects.clone();
        for change in self.since(revision).iter().rev() {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
            };
        }
        Self { objects, ..Self::default() }
    }

    /// The objects that `wanted` names, as they were before the last `age` changes of any of them; and that revision.
    #[must_use]
    pub fn past(&self, wanted: impl Fn(&Key) -> bool, age: usize) -> (u64, BTreeMap<Key, Arc<Version>>) {
        let mut found: BTreeMap<Key, Arc<Version>> = self
            .objects
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(key, version)| (key.clone(), version.clone()))
            .collect();
        let mut revision = self.revision();
        for change in self.changes.iter().rev().filter(|change| wanted(&change.key)).take(age) {
            match &change.before {
                Some(before) => found.insert(change.key.clone(), before.clone()),
                None => found.remove(&change.key),
            };
            revision = change.revision - 1;
        }
        (revision, found)
    }

    /// Whether any object has this uid.
    #[must_use]
    pub fn has_uid(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }
}
