//! Which object a change is about: a synchronous reducer from watch events to the keys to wake. It
//! keeps no object, and it does no I/O.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};

use canary_api::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest as _, Sha256};

use super::Kind;
use crate::workers::ObjectKey;

/// One event of a watch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    /// A list begins.
    Init,
    /// An object of the list.
    Listed(&'a ObjectMeta),
    /// The list is complete: what it did not name is gone.
    InitDone,
    /// An object was created or changed.
    Applied(&'a ObjectMeta),
    /// An object was deleted, or no longer carries our label.
    Deleted(&'a ObjectMeta),
}

/// What follows from it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Objects to wake, each once.
    pub(super) wake: BTreeSet<ObjectKey>,
    /// A policy or a binding changed.
    pub(super) policies: bool,
}

/// What is known of every watched object.
#[derive(Default)]
pub(super) struct Index {
    releases: HashMap<ObjectKey, Release>,
    by_uid: HashMap<String, ObjectKey>,
    others: HashMap<(Kind, ObjectKey), Other>,
    policies: BTreeMap<(Kind, String), String>,
    /// While a list is under way: what it has not named yet.
    unlisted: HashMap<Kind, HashSet<ObjectKey>>,
}

struct Release {
    uid: String,
    print: u64,
}

/// A Deployment or a route of ours.
#[derive(Clone, PartialEq, Eq)]
struct Other {
    owner_uid: String,
    owner_name: String,
    version: String,
}

impl Index {
    /// Every known CanaryRelease.
    pub(super) fn keys(&self) -> Vec<ObjectKey> {
        self.releases.keys().cloned().collect()
    }

    /// Whether a CanaryRelease is known.
    pub(super) fn knows(&self, key: &ObjectKey) -> bool {
        self.releases.contains_key(key)
    }

    pub(super) fn take(&mut self, kind: Kind, change: Change<'_>) -> Effect {
        let mut effect = Effect::default();
        match change {
            Change::Init => {
                let known = self.known(kind);
                self.unlisted.insert(kind, known);
            }
            Change::Listed(meta) | Change::Applied(meta) => {
                let key = key(meta);
                if let Some(unlisted) = self.unlisted.get_mut(&kind) {
                    unlisted.remove(&key);
                }
                self.applied(kind, key, meta, &mut effect);
            }
            Change::Deleted(meta) => self.gone(kind, &key(meta), &mut effect),
            Change::InitDone => {
                for key in self.unlisted.remove(&kind).unwrap_or_default() {
                    self.gone(kind, &key, &mut effect);
                }
            }
        }
        effect
    }

    fn known(&self, kind: Kind) -> HashSet<ObjectKey> {
        if kind == Kind::CanaryReleases {
            return self.releases.keys().cloned().collect();
        }
        if kind.policy() {
            let names = self.policies.keys().filter(|(of, _)| *of == kind);
            return names.map(|(_, name)| ObjectKey::new("", name)).collect();
        }
        self.others.keys().filter(|(of, _)| *of == kind).map(|(_, key)| key.clone()).collect()
    }

    fn applied(&mut self, kind: Kind, key: ObjectKey, meta: &ObjectMeta, effect: &mut Effect) {
        if kind == Kind::CanaryReleases {
            let uid = meta.uid.clone().unwrap_or_default();
            let print = print(meta);
            if let Some(known) = self.releases.get(&key) {
                if known.print == print {
                    // Only its status changed, or its finalizers: we wrote that ourselves.
                    return;
                }
                if known.uid != uid {
                    self.by_uid.remove(&known.uid);
                }
            }
            self.by_uid.insert(uid.clone(), key.clone());
            self.releases.insert(key.clone(), Release { uid, print });
            effect.wake.insert(key);
        } else if kind.policy() {
            let state = policy_state(meta);
            let before = self.policies.insert((kind, key.name), state.clone());
            effect.policies |= before.as_ref() != Some(&state);
        } else {
            let label = if kind == Kind::Canaries { names::LABEL_OWNED_BY } else { names::LABEL_RELEASE };
            let of = |map: &Option<BTreeMap<String, String>>, name: &str| {
                map.as_ref().and_then(|map| map.get(name)).cloned().unwrap_or_default()
            };
            let other = Other {
                owner_uid: of(&meta.annotations, names::ANNOTATION_UID),
                owner_name: of(&meta.labels, label),
                version: meta.resource_version.clone().unwrap_or_default(),
            };
            let before = self.others.insert((kind, key.clone()), other.clone());
            if before.as_ref() == Some(&other) {
                return;
            }
            effect.wake.extend(self.owner(&key, &other));
            // It may have been moved from one to another.
            effect.wake.extend(before.and_then(|before| self.owner(&key, &before)));
        }
    }

    fn gone(&mut self, kind: Kind, key: &ObjectKey, effect: &mut Effect) {
        if kind == Kind::CanaryReleases {
            if let Some(release) = self.releases.remove(key) {
                self.by_uid.remove(&release.uid);
                effect.wake.insert(key.clone());
                // Another one may have waited for the same target.
                effect.wake.extend(self.releases.keys().filter(|other| other.namespace == key.namespace).cloned());
            }
        } else if kind.policy() {
            effect.policies |= self.policies.remove(&(kind, key.name.clone())).is_some();
        } else if let Some(other) = self.others.remove(&(kind, key.clone())) {
            effect.wake.extend(self.owner(key, &other));
        }
    }

    /// The CanaryRelease an object belongs to: by the uid it carries, or else by the name in its
    /// label. Unknown ones wake nobody; a CanaryRelease that appears is woken for itself.
    fn owner(&self, key: &ObjectKey, other: &Other) -> Option<ObjectKey> {
        let by_uid = self.by_uid.get(&other.owner_uid).filter(|owner| owner.namespace == key.namespace);
        by_uid.cloned().or_else(|| {
            let named = ObjectKey::new(&key.namespace, &other.owner_name);
            self.releases.contains_key(&named).then_some(named)
        })
    }

    /// A short name for the state of all policies and bindings, and of which kinds are `absent`.
    pub(super) fn policy_generation(&self, absent: impl Iterator<Item = Kind>) -> String {
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            hash.update(part);
            hash.update([0]);
        };
        for ((kind, name), state) in &self.policies {
            add(kind.name());
            add(name);
            add(state);
        }
        for kind in absent {
            add("absent");
            add(kind.name());
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

fn key(meta: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// What people change of a CanaryRelease; what only the operator writes is left out.
fn print(meta: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&meta.uid, meta.generation, &meta.labels, &meta.annotations, meta.deletion_timestamp.is_some()).hash(&mut hasher);
    hasher.finish()
}

/// A policy's uid and generation. Where the API server counts no generation, its version.
fn policy_state(meta: &ObjectMeta) -> String {
    let uid = meta.uid.as_deref().unwrap_or_default();
    let deleting = if meta.deletion_timestamp.is_some() { "-" } else { "" };
    match meta.generation {
        Some(generation) if generation > 0 => format!("{uid}/{generation}{deleting}"),
        _ => format!("{uid}@{}{deleting}", meta.resource_version.as_deref().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(namespace: &str, name: &str, version: &str) -> ObjectMeta {
        ObjectMeta {
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            uid: Some(format!("uid-of-{name}")),
            resource_version: Some(version.into()),
            generation: Some(1),
            ..ObjectMeta::default()
        }
    }

    fn owned(namespace: &str, name: &str, version: &str, owner: &str) -> ObjectMeta {
        ObjectMeta {
            annotations: Some([(names::ANNOTATION_UID.to_owned(), format!("uid-of-{owner}"))].into()),
            labels: Some([(names::LABEL_RELEASE.to_owned(), "cut".to_owned())].into()),
            ..meta(namespace, name, version)
        }
    }

    fn woken(effect: &Effect) -> Vec<String> {
        effect.wake.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn our_own_status_writes_wake_nobody_and_every_edit_of_a_person_does() {
        let mut index = Index::default();
        let mut release = meta("shop", "web", "1");
        assert_eq!(woken(&index.take(Kind::CanaryReleases, Change::Applied(&release))), ["shop/web"]);
        release.resource_version = Some("2".into());
        release.finalizers = Some(vec![names::FINALIZER.into()]);
        assert!(index.take(Kind::CanaryReleases, Change::Applied(&release)).wake.is_empty());
        release.annotations = Some([(names::ANNOTATION_COMMAND.to_owned(), "abort".to_owned())].into());
        assert_eq!(woken(&index.take(Kind::CanaryReleases, Change::Applied(&release))), ["shop/web"]);
        release.generation = Some(2);
        assert_eq!(woken(&index.take(Kind::CanaryReleases, Change::Applied(&release))), ["shop/web"]);
        release.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(woken(&index.take(Kind::CanaryReleases, Change::Applied(&release))), ["shop/web"]);
    }

    #[test]
    fn every_change_of_a_target_wakes_its_owner_and_no_other() {
        let mut index = Index::default();
        index.take(Kind::CanaryReleases, Change::Applied(&meta("shop", "web", "1")));
        index.take(Kind::CanaryReleases, Change::Applied(&meta("shop", "api", "1")));
        let one = |version| owned("shop", "target", version, "web");
        assert_eq!(woken(&index.take(Kind::Targets, Change::Applied(&one("1")))), ["shop/web"]);
        assert!(index.take(Kind::Targets, Change::Applied(&one("1"))).wake.is_empty(), "the same version again");
        assert_eq!(woken(&index.take(Kind::Targets, Change::Applied(&one("2")))), ["shop/web"], "status churn counts");
        let moved = owned("shop", "target", "3", "api");
        assert_eq!(woken(&index.take(Kind::Targets, Change::Applied(&moved))), ["shop/api", "shop/web"]);
        assert_eq!(woken(&index.take(Kind::Targets, Change::Deleted(&moved))), ["shop/api"]);
    }

    #[test]
    fn a_uid_from_another_namespace_wakes_nobody_there() {
        let mut index = Index::default();
        index.take(Kind::CanaryReleases, Change::Applied(&meta("shop", "web", "1")));
        assert!(index.take(Kind::Targets, Change::Applied(&owned("evil", "target", "1", "web"))).wake.is_empty());
    }

    #[test]
    fn without_the_uid_the_label_names_the_owner() {
        let mut index = Index::default();
        index.take(Kind::CanaryReleases, Change::Applied(&meta("shop", "web", "1")));
        let mut canary = meta("shop", "web-canary", "1");
        canary.labels = Some([(names::LABEL_OWNED_BY.to_owned(), "web".to_owned())].into());
        assert_eq!(woken(&index.take(Kind::Canaries, Change::Applied(&canary))), ["shop/web"]);
    }

    #[test]
    fn what_a_new_list_does_not_name_counts_as_deleted() {
        let mut index = Index::default();
        index.take(Kind::CanaryReleases, Change::Applied(&meta("shop", "web", "1")));
        index.take(Kind::Targets, Change::Applied(&owned("shop", "target", "1", "web")));
        assert!(index.take(Kind::Targets, Change::Init).wake.is_empty());
        assert_eq!(woken(&index.take(Kind::Targets, Change::InitDone)), ["shop/web"]);
        index.take(Kind::CanaryReleases, Change::Init);
        index.take(Kind::CanaryReleases, Change::Listed(&meta("shop", "other", "1")));
        assert_eq!(woken(&index.take(Kind::CanaryReleases, Change::InitDone)), ["shop/other", "shop/web"]);
        assert_eq!(index.keys(), [ObjectKey::new("shop", "other")]);
    }

    #[test]
    fn one_that_goes_wakes_those_who_may_wait_for_its_target() {
        let mut index = Index::default();
        for (namespace, name) in [("shop", "a"), ("shop", "b"), ("other", "c")] {
            index.take(Kind::CanaryReleases, Change::Applied(&meta(namespace, name, "1")));
        }
        let effect = index.take(Kind::CanaryReleases, Change::Deleted(&meta("shop", "a", "2")));
        assert_eq!(woken(&effect), ["shop/a", "shop/b"]);
    }

    #[test]
    fn the_policy_generation_changes_with_every_change_that_could_break_the_hold() {
        let mut index = Index::default();
        let none = || std::iter::empty();
        let mut seen = vec![index.policy_generation(none())];
        let mut policy = meta("", "canaryrelease-hold", "1");
        assert!(index.take(Kind::MutatingPolicies, Change::Applied(&policy)).policies);
        seen.push(index.policy_generation(none()));
        policy.resource_version = Some("2".into());
        assert!(!index.take(Kind::MutatingPolicies, Change::Applied(&policy)).policies, "only its status");
        policy.generation = Some(2);
        assert!(index.take(Kind::MutatingPolicies, Change::Applied(&policy)).policies);
        seen.push(index.policy_generation(none()));
        let mut binding = meta("", "canaryrelease-hold", "1");
        binding.generation = None;
        assert!(index.take(Kind::MutatingBindings, Change::Applied(&binding)).policies);
        seen.push(index.policy_generation(none()));
        binding.resource_version = Some("2".into());
        assert!(index.take(Kind::MutatingBindings, Change::Applied(&binding)).policies);
        seen.push(index.policy_generation(none()));
        seen.push(index.policy_generation([Kind::ValidatingPolicies].into_iter()));
        let distinct: HashSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
        assert!(index.take(Kind::MutatingPolicies, Change::Deleted(&policy)).policies);
    }
}
