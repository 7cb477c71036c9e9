//! The controllers of Deployments and ReplicaSets. A paused Deployment scales the ReplicaSet that is active, or else the
//! newest, and rolls nothing; that is what a hold rests on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::object;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Cluster, Fate, image, keys, owned, owner, replicas};
use crate::api::{Api, seconds};
use crate::resources::{DEPLOYMENTS, PODS, REPLICA_SETS};
use crate::store::{Key, Version};

const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const HASH: &str = "pod-template-hash";

impl Cluster {
    pub(super) fn deployments(&mut self, api: &mut Api, due: &mut Timestamp) {
        for key in keys(api, DEPLOYMENTS) {
            let Some(version) = api.store.get(&key).cloned() else { continue };
            if !object::deleting(&version.value) {
                self.sync(api, &version.value);
            }
        }
        for key in keys(api, REPLICA_SETS) {
            self.replica_set(api, &key, due);
        }
        for key in keys(api, DEPLOYMENTS) {
            self.deployment_status(api, &key, due);
        }
    }

    fn sync(&mut self, api: &mut Api, deployment: &Value) {
        let namespace = object::text(deployment, "/metadata/namespace");
        adopt(api, deployment);
        let mut sets = owned(api, REPLICA_SETS, namespace, object::uid(deployment));
        if let Some(set) = new_set(deployment, &sets)
            && mark(api, deployment, &set.value, &sets)
        {
            sets = owned(api, REPLICA_SETS, namespace, object::uid(deployment));
        }
        let new = new_set(deployment, &sets);
        if object::truth(deployment, "/spec/paused") {
            return scale(api, deployment, new.as_deref().map(|version| &version.value), &sets);
        }
        match new {
            None => self.make_set(api, deployment, &sets),
            Some(new) => roll(api, deployment, &new.value, &sets),
        }
    }

    fn make_set(&mut self, api: &mut Api, deployment: &Value, sets: &[Arc<Version>]) {
        let namespace = object::text(deployment, "/metadata/namespace");
        let mut pods = deployment["spec"]["template"].clone();
        let hash = hash(&pods);
        pods["metadata"]["labels"][HASH] = json!(hash);
        let mut selector = deployment["spec"]["selector"].clone();
        selector["matchLabels"][HASH] = json!(hash);
        let desired = replicas(deployment);
        let all: i64 = sets.iter().map(|set| replicas(&set.value)).sum();
        let first = if sets.is_empty() { desired } else { (desired + surge(deployment) - all).clamp(0, desired) };
        let mut annotations = copied(deployment);
        annotations.insert(REVISION.to_owned(), (newest(sets.iter().map(|set| &set.value)) + 1).to_string());
        annotations.insert(DESIRED.to_owned(), desired.to_string());
        let set = json!({
            "metadata": {
                "name": format!("{}-{hash}", object::name(deployment)),
                "labels": pods["metadata"]["labels"],
                "annotations": annotations,
                "ownerReferences": owner(DEPLOYMENTS, deployment),
            },
            "spec": {
                "replicas": first, "selector": selector, "template": pods,
                "minReadySeconds": deployment["spec"].get("minReadySeconds").cloned().unwrap_or(json!(0)),
            },
        });
        let _ = self.create(api, REPLICA_SETS, namespace, set);
    }

    fn replica_set(&mut self, api: &mut Api, key: &Key, due: &mut Timestamp) {
        let Some(version) = api.store.get(key).cloned() else { return };
        let set = &version.value;
        let leaving = |pod: &Arc<Version>| object::deleting(&pod.value);
        let wanted = usize::try_from(replicas(set)).unwrap_or(0);
        let mut live = owned(api, PODS, &key.namespace, object::uid(set));
        live.retain(|pod| !leaving(pod));
        live.sort_by_key(|pod| !canary_core::pods::ready(&pod.value));
        while live.len() > wanted {
            let Some(pod) = live.pop() else { break };
            let mut pod = pod.value.clone();
            pod["metadata"]["deletionTimestamp"] = json!(seconds(api.now));
            pod["metadata"]["annotations"]["world/leaves"] = json!(api.now.to_string());
            api.controller_puts(PODS, pod);
        }
        let behaviour = self.behaviour(image(set));
        if behaviour.fate != Fate::Quota {
            for _ in live.len()..wanted {
                let suffix = self.suffix();
                let template = &set["spec"]["template"];
                let pod = json!({
                    "metadata": {
                        "name": format!("{}-{suffix}", object::name(set)),
                        "labels": template["metadata"]["labels"],
                        "annotations": template["metadata"].get("annotations").cloned().unwrap_or_else(|| json!({})),
                        "ownerReferences": owner(REPLICA_SETS, set),
                    },
                    "spec": template["spec"],
                    "status": {"phase": "Pending"},
                });
                let _ = self.create(api, PODS, &key.namespace, pod);
            }
        }
        let mut pods = owned(api, PODS, &key.namespace, object::uid(set));
        pods.retain(|pod| !leaving(pod));
        let ready: Vec<&Arc<Version>> = pods.iter().filter(|pod| canary_core::pods::ready(&pod.value)).collect();
        let settle = Duration::from_secs(u64::try_from(object::integer(set, "/spec/minReadySeconds", 0)).unwrap_or(0));
        let mut available = 0;
        for pod in &ready {
            let since = if settle.is_zero() { api.now } else { ready_since(&pod.value).unwrap_or(api.now) };
            if since + settle <= api.now {
                available += 1;
            } else {
                *due = (*due).min(since + settle);
            }
        }
        let mut status = json!({"replicas": pods.len(), "observedGeneration": set["metadata"]["generation"]});
        for (field, count) in
            [("fullyLabeledReplicas", pods.len()), ("readyReplicas", ready.len()), ("availableReplicas", available)]
        {
            if count > 0 {
                status[field] = json!(count);
            }
        }
        if behaviour.fate == Fate::Quota && pods.len() < wanted {
            let why = "pods is forbidden: exceeded quota";
            status["conditions"] =
                json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": why}]);
        }
        api.controller_says(REPLICA_SETS, &version, status);
    }

    fn deployment_status(&mut self, api: &mut Api, key: &Key, due: &mut Timestamp) {
        let Some(version) = api.store.get(key).cloned() else { return };
        let deployment = &version.value;
        let sets = owned(api, REPLICA_SETS, &key.namespace, object::uid(deployment));
        let new = new_set(deployment, &sets);
        let count = |set: &Arc<Version>, field: &str| object::integer(&set.value, &format!("/status/{field}"), 0);
        let sum = |field: &str| sets.iter().map(|set| count(set, field)).sum::<i64>();
        let (all, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
        let updated = new.as_ref().map_or(0, |set| count(set, "replicas"));
        let desired = replicas(deployment);
        let paused = object::truth(deployment, "/spec/paused");
        let complete = updated == desired && all == desired && available == desired;
        let progressing = self.progressing(api, deployment, paused, complete, [updated, all, ready, available], due);
        let enough = available >= desired - unavailable(deployment);
        let minimum =
            if enough { ("True", "MinimumReplicasAvailable") } else { ("False", "MinimumReplicasUnavailable") };
        let mut conditions = vec![
            self.condition(api, deployment, "Available", minimum.0, minimum.1),
            self.condition(api, deployment, "Progressing", progressing.0, progressing.1),
        ];
        let failing = sets.iter().find_map(|set| object::items(&set.value, "/status/conditions").next().cloned());
        conditions.extend(failing);
        let mut status = json!({"observedGeneration": deployment["metadata"]["generation"], "conditions": conditions});
        for (field, value) in [
            ("replicas", all),
            ("updatedReplicas", updated),
            ("readyReplicas", ready),
            ("availableReplicas", available),
            ("unavailableReplicas", (all.max(desired) - available).max(0)),
        ] {
            if value > 0 {
                status[field] = json!(value);
            }
        }
        let revision = new.as_ref().and_then(|set| object::annotation(&set.value, REVISION));
        if revision.is_some() && revision != object::annotation(deployment, REVISION) {
            let mut marked = deployment.clone();
            marked["status"] = status;
            marked["metadata"]["annotations"][REVISION] = json!(revision);
            api.controller_puts(DEPLOYMENTS, marked);
        } else {
            api.controller_says(DEPLOYMENTS, &version, status);
        }
        if complete || paused {
            clean_up(api, deployment, &sets, new.as_deref());
        }
    }

    fn condition(&self, api: &Api, deployment: &Value, kind: &str, status: &str, reason: &str) -> Value {
        let known = object::items(deployment, "/status/conditions").find(|one| object::text(one, "/type") == kind);
        let unchanged = known.filter(|one| object::text(one, "/status") == status);
        let since =
            unchanged.map_or_else(|| seconds(api.now), |one| object::text(one, "/lastTransitionTime").to_owned());
        json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": since})
    }

    /// How the rollout stands, and when it will have taken too long.
    fn progressing(
        &mut self,
        api: &Api,
        deployment: &Value,
        paused: bool,
        complete: bool,
        mark: [i64; 4],
        due: &mut Timestamp,
    ) -> (&'static str, &'static str) {
        let (since, last) = self.progress.entry(object::uid(deployment).to_owned()).or_insert((api.now, mark));
        let resumed = object::condition_reason(deployment, "/status/conditions", "Progressing") == "DeploymentPaused";
        if *last != mark || complete || paused || resumed {
            (*since, *last) = (api.now, mark);
        }
        let limit = object::integer(deployment, "/spec/progressDeadlineSeconds", 600);
        let late = *since + Duration::from_secs(u64::try_from(limit).unwrap_or(600));
        match (paused, complete) {
            (true, _) => ("Unknown", "DeploymentPaused"),
            (false, true) => ("True", "NewReplicaSetAvailable"),
            (false, false) if late <= api.now => ("False", "ProgressDeadlineExceeded"),
            (false, false) => {
                *due = (*due).min(late);
                ("True", "ReplicaSetUpdated")
            }
        }
    }
}

/// The ReplicaSet with the Deployment's template to the byte: `restartedAt` makes another one.
fn new_set(deployment: &Value, sets: &[Arc<Version>]) -> Option<Arc<Version>> {
    let wanted = &deployment["spec"]["template"];
    sets.iter().find(|set| same_but_hash(wanted, &set.value["spec"]["template"])).cloned()
}

fn same_but_hash(a: &Value, b: &Value) -> bool {
    let labels = |of: &Value| {
        let mut labels = object::strings(of, "/metadata/labels");
        labels.remove(HASH);
        labels
    };
    let annotations = |of: &Value| object::strings(of, "/metadata/annotations");
    a["spec"] == b["spec"] && annotations(a) == annotations(b) && labels(a) == labels(b)
}

/// Since when a pod is ready.
fn ready_since(pod: &Value) -> Option<Timestamp> {
    let ready = object::items(pod, "/status/conditions").find(|one| object::text(one, "/type") == "Ready")?;
    object::text(ready, "/lastTransitionTime").parse().ok()
}

fn hash(template: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let digest = Sha256::digest(template.to_string());
    digest.iter().take(10).map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

fn revision(set: &Value) -> i64 {
    object::annotation(set, REVISION).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn newest<'a>(sets: impl Iterator<Item = &'a Value>) -> i64 {
    sets.map(revision).max().unwrap_or(0)
}

/// The annotations that a ReplicaSet takes from its Deployment.
fn copied(deployment: &Value) -> BTreeMap<String, String> {
    let own = ["kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED];
    let mut all = object::strings(deployment, "/metadata/annotations");
    all.retain(|key, _| !own.contains(&key.as_str()));
    all
}

/// Takes over ReplicaSets that the Deployment selects and that nobody controls, as Kubernetes' controller does.
fn adopt(api: &mut Api, deployment: &Value) {
    let namespace = object::text(deployment, "/metadata/namespace");
    let orphans: Vec<Value> = api
        .store
        .all(REPLICA_SETS.plural, namespace)
        .map(|(_, version)| &version.value)
        .filter(|set| !object::deleting(set))
        .filter(|set| !object::items(set, "/metadata/ownerReferences").any(|owner| object::truth(owner, "/controller")))
        .filter(|set| object::selects(&deployment["spec"]["selector"], &object::strings(set, "/metadata/labels")))
        .cloned()
        .collect();
    for mut set in orphans {
        set["metadata"]["ownerReferences"] = owner(DEPLOYMENTS, deployment);
        api.controller_puts(REPLICA_SETS, set);
    }
}

/// The newest ReplicaSet carries the Deployment's annotations beside its own, and the highest revision, also while the
/// Deployment is paused. Whether that changed it.
fn mark(api: &mut Api, deployment: &Value, new: &Value, sets: &[Arc<Version>]) -> bool {
    let mut wanted = object::strings(new, "/metadata/annotations");
    let others = || sets.iter().map(|set| &set.value).filter(|set| object::name(set) != object::name(new));
    let highest = newest(others());
    if revision(new) <= highest && others().next().is_some() {
        wanted.insert(REVISION.to_owned(), (highest + 1).to_string());
    }
    wanted.extend(copied(deployment));
    wanted.insert(DESIRED.to_owned(), replicas(deployment).to_string());
    if wanted == object::strings(new, "/metadata/annotations") {
        return false;
    }
    let mut marked = new.clone();
    marked["metadata"]["annotations"] = json!(wanted);
    api.controller_puts(REPLICA_SETS, marked);
    true
}

/// Scaling without a rollout.
fn scale(api: &mut Api, deployment: &Value, new: Option<&Value>, sets: &[Arc<Version>]) {
    let desired = replicas(deployment);
    let sets = || sets.iter().map(|set| &set.value);
    let active: Vec<&Value> = sets().filter(|set| replicas(set) > 0).collect();
    let created =
        |set: &&Value| (object::text(set, "/metadata/creationTimestamp").to_owned(), object::uid(set).to_owned());
    match active.as_slice() {
        [] => {
            if let Some(set) = new.or_else(|| sets().max_by_key(created)) {
                scale_set(api, set, desired);
            }
        }
        [one] => scale_set(api, one, desired),
        several => {
            // In proportion, the rest to the largest.
            let all: i64 = several.iter().map(|set| replicas(set)).sum();
            let known: i64 = several
                .iter()
                .filter_map(|set| object::annotation(set, DESIRED)?.parse::<i64>().ok())
                .max()
                .unwrap_or(desired);
            let change = desired - known;
            if change == 0 {
                return;
            }
            let mut left = change;
            for (index, set) in several.iter().enumerate() {
                let part = if index + 1 == several.len() { left } else { (change * replicas(set)) / all.max(1) };
                left -= part;
                let mut scaled = (*set).clone();
                scaled["spec"]["replicas"] = json!((replicas(set) + part).max(0));
                scaled["metadata"]["annotations"][DESIRED] = json!(desired.to_string());
                api.controller_puts(REPLICA_SETS, scaled);
            }
        }
    }
}

fn scale_set(api: &mut Api, set: &Value, to: i64) {
    if replicas(set) != to {
        let mut scaled = set.clone();
        scaled["spec"]["replicas"] = json!(to);
        scaled["metadata"]["annotations"][DESIRED] = json!(to.to_string());
        api.controller_puts(REPLICA_SETS, scaled);
    }
}

fn share(deployment: &Value, field: &str, up: bool) -> i64 {
    let desired = replicas(deployment);
    let value = deployment.pointer(&format!("/spec/strategy/rollingUpdate/{field}"));
    match value {
        Some(Value::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(25);
            if up { (desired * percent + 99) / 100 } else { desired * percent / 100 }
        }
        Some(number) => number.as_i64().unwrap_or(1),
        None => 1,
    }
}

fn surge(deployment: &Value) -> i64 {
    share(deployment, "maxSurge", true)
}

fn unavailable(deployment: &Value) -> i64 {
    let down = share(deployment, "maxUnavailable", false);
    if down == 0 && surge(deployment) == 0 { 1 } else { down }
}

/// One step of a rolling update.
fn roll(api: &mut Api, deployment: &Value, new: &Value, sets: &[Arc<Version>]) {
    let desired = replicas(deployment);
    let sets: Vec<&Value> = sets.iter().map(|set| &set.value).collect();
    let all: i64 = sets.iter().map(|set| replicas(set)).sum();
    let old: Vec<&Value> = sets.iter().copied().filter(|set| object::name(set) != object::name(new)).collect();
    if replicas(new) > desired {
        scale_set(api, new, desired);
        return;
    }
    if replicas(new) < desired && all < desired + surge(deployment) {
        let more = (desired - replicas(new)).min(desired + surge(deployment) - all);
        scale_set(api, new, replicas(new) + more);
        return;
    }
    let available = |set: &Value| object::integer(set, "/status/availableReplicas", 0);
    let least = desired - unavailable(deployment);
    let new_missing = replicas(new) - available(new);
    let removable = all - least - new_missing;
    // Old pods that are not available go first.
    for set in &old {
        let sick = (replicas(set) - available(set)).min(removable).max(0);
        if sick > 0 {
            scale_set(api, set, replicas(set) - sick);
            return;
        }
    }
    let mut removable = removable.min(sets.iter().map(|set| available(set)).sum::<i64>() - least);
    for set in &old {
        let take = removable.min(replicas(set)).max(0);
        if take > 0 {
            removable -= take;
            scale_set(api, set, replicas(set) - take);
        }
    }
}

/// Old ReplicaSets beyond the limit go, those without pods, oldest first.
fn clean_up(api: &mut Api, deployment: &Value, sets: &[Arc<Version>], new: Option<&Version>) {
    let limit = usize::try_from(object::integer(deployment, "/spec/revisionHistoryLimit", 10)).unwrap_or(10);
    let kept = new.map_or("", |new| object::name(&new.value));
    let mut old: Vec<&Value> = sets.iter().map(|set| &set.value).filter(|set| object::name(set) != kept).collect();
    if old.len() <= limit {
        return;
    }
    old.sort_by_key(|set| revision(set));
    let surplus = old.len() - limit;
    for set in old.into_iter().take(surplus) {
        if replicas(set) == 0 && object::integer(set, "/status/replicas", 0) == 0 {
            let key = Key::new(REPLICA_SETS, object::text(set, "/metadata/namespace"), object::name(set));
            let _ = api.store.remove(&key, api.now);
        }
    }
}
