//! The controllers of Deployments and ReplicaSets. A paused Deployment scales the ReplicaSet that is active, or else the
//! newest, and rolls nothing; that is what a hold rests on.

use std::collections::BTreeMap;
use std::time::Duration;

use canary_core::{object, template};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Cluster, Fate, image, keys, owned, owner, replicas};
use crate::api::{Api, seconds};
use crate::resources::{DEPLOYMENTS, PODS, REPLICA_SETS};
use crate::store::Key;

const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const HASH: &str = "pod-template-hash";

impl Cluster {
    pub(super) fn deployments(&mut self, api: &mut Api, due: &mut Timestamp) {
        for key in keys(api, DEPLOYMENTS) {
            let Some(deployment) = api.store.get(&key).map(|version| version.value.clone()) else { continue };
            if !object::deleting(&deployment) {
                self.sync(api, &deployment);
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
        let namespace = object::text(deployment, "/metadata/namespace").to_owned();
        let sets = owned(api, REPLICA_SETS, &namespace, object::uid(deployment));
        let mut new = new_set(deployment, &sets);
        if let Some(set) = &mut new {
            mark(api, deployment, set, &sets);
        }
        if object::truth(deployment, "/spec/paused") {
            return scale(api, deployment, new.as_ref(), &sets);
        }
        match new {
            None => self.make_set(api, deployment, &sets),
            Some(new) => roll(api, deployment, &new, &sets),
        }
    }

    fn make_set(&mut self, api: &mut Api, deployment: &Value, sets: &[Value]) {
        let namespace = object::text(deployment, "/metadata/namespace");
        let mut pods = deployment["spec"]["template"].clone();
        let hash = hash(&pods);
        pods["metadata"]["labels"][HASH] = json!(hash);
        let mut selector = deployment["spec"]["selector"].clone();
        selector["matchLabels"][HASH] = json!(hash);
        let desired = replicas(deployment);
        let all: i64 = sets.iter().map(replicas).sum();
        let first = if sets.is_empty() { desired } else { (desired + surge(deployment) - all).clamp(0, desired) };
        let mut annotations = copied(deployment);
        annotations.insert(REVISION.to_owned(), (newest(sets) + 1).to_string());
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
        let Some(set) = api.store.get(key).map(|version| version.value.clone()) else { return };
        let mut pods = owned(api, PODS, &key.namespace, object::uid(&set));
        let leaving = |pod: &Value| object::deleting(pod);
        let wanted = usize::try_from(replicas(&set)).unwrap_or(0);
        let mut live: Vec<Value> = pods.iter().filter(|pod| !leaving(pod)).cloned().collect();
        live.sort_by_key(|pod| (!canary_core::pods::ready(pod), object::uid(pod).to_owned()));
        while live.len() > wanted {
            let Some(mut pod) = live.pop() else { break };
            pod["metadata"]["deletionTimestamp"] = json!(seconds(api.now));
            pod["metadata"]["annotations"]["world/leaves"] = json!(api.now.to_string());
            api.controller_puts(PODS, pod);
        }
        let version = self.behaviour(image(&set));
        if version.fate != Fate::Quota {
            for _ in live.len()..wanted {
                let suffix = self.suffix();
                let pod = json!({
                    "metadata": {
                        "name": format!("{}-{suffix}", object::name(&set)),
                        "labels": set["spec"]["template"]["metadata"]["labels"],
                        "annotations": set["spec"]["template"]["metadata"].get("annotations").cloned().unwrap_or_else(|| json!({})),
                        "ownerReferences": owner(REPLICA_SETS, &set),
                    },
                    "spec": set["spec"]["template"]["spec"],
                    "status": {"phase": "Pending"},
                });
                let _ = self.create(api, PODS, &key.namespace, pod);
            }
        }
        pods = owned(api, PODS, &key.namespace, object::uid(&set));
        pods.retain(|pod| !leaving(pod));
        let ready: Vec<&Value> = pods.iter().filter(|pod| canary_core::pods::ready(pod)).collect();
        let settle = Duration::from_secs(u64::try_from(object::integer(&set, "/spec/minReadySeconds", 0)).unwrap_or(0));
        let mut available = 0;
        for pod in &ready {
            let since = object::items(pod, "/status/conditions")
                .find(|condition| object::text(condition, "/type") == "Ready")
                .and_then(|condition| object::text(condition, "/lastTransitionTime").parse::<Timestamp>().ok())
                .unwrap_or(api.now);
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
        if version.fate == Fate::Quota && pods.len() < wanted {
            let why = "pods is forbidden: exceeded quota";
            status["conditions"] = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": why}]);
        }
        let mut set = set;
        set["status"] = status;
        api.controller_puts(REPLICA_SETS, set);
    }

    fn deployment_status(&mut self, api: &mut Api, key: &Key, due: &mut Timestamp) {
        let Some(mut deployment) = api.store.get(key).map(|version| version.value.clone()) else { return };
        let sets = owned(api, REPLICA_SETS, &key.namespace, object::uid(&deployment));
        let new = new_set(&deployment, &sets);
        let count = |set: &Value, field: &str| object::integer(set, &format!("/status/{field}"), 0);
        let sum = |field: &str| sets.iter().map(|set| count(set, field)).sum::<i64>();
        let (all, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
        let updated = new.as_ref().map_or(0, |set| count(set, "replicas"));
        let desired = replicas(&deployment);
        let paused = object::truth(&deployment, "/spec/paused");
        let complete = updated == desired && all == desired && available == desired;
        let progressing = self.progressing(api, &deployment, paused, complete, [updated, all, ready, available], due);
        let enough = available >= desired - unavailable(&deployment);
        let minimum = if enough { ("True", "MinimumReplicasAvailable") } else { ("False", "MinimumReplicasUnavailable") };
        let mut conditions = vec![
            self.condition(api, &deployment, "Available", minimum.0, minimum.1),
            self.condition(api, &deployment, "Progressing", progressing.0, progressing.1),
        ];
        let failing = sets.iter().find_map(|set| object::items(set, "/status/conditions").next().cloned());
        if let Some(failing) = failing {
            conditions.push(failing);
        }
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
        deployment["status"] = status;
        if let Some(revision) = new.as_ref().and_then(|set| object::annotation(set, REVISION)) {
            deployment["metadata"]["annotations"][REVISION] = json!(revision);
        }
        api.controller_puts(DEPLOYMENTS, deployment.clone());
        if complete || paused {
            clean_up(api, &deployment, &sets, new.as_ref());
        }
    }

    fn condition(&self, api: &Api, deployment: &Value, kind: &str, status: &str, reason: &str) -> Value {
        let known = object::items(deployment, "/status/conditions").find(|one| object::text(one, "/type") == kind);
        let unchanged = known.filter(|one| object::text(one, "/status") == status);
        let since = unchanged.map_or_else(|| seconds(api.now), |one| object::text(one, "/lastTransitionTime").to_owned());
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
        let (since, last) =
            self.progress.entry(object::uid(deployment).to_owned()).or_insert((api.now, mark));
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
fn new_set(deployment: &Value, sets: &[Value]) -> Option<Value> {
    let wanted = template::for_deployment(&deployment["spec"]["template"]);
    sets.iter().find(|set| template::for_deployment(&set["spec"]["template"]) == wanted).cloned()
}

fn hash(template: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let digest = Sha256::digest(template.to_string());
    digest.iter().take(10).map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

fn revision(set: &Value) -> i64 {
    object::annotation(set, REVISION).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn newest(sets: &[Value]) -> i64 {
    sets.iter().map(revision).max().unwrap_or(0)
}

/// The annotations that a ReplicaSet takes from its Deployment.
fn copied(deployment: &Value) -> BTreeMap<String, String> {
    let own = ["kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED];
    let mut all = object::strings(deployment, "/metadata/annotations");
    all.retain(|key, _| !own.contains(&key.as_str()));
    all
}

/// The newest ReplicaSet carries the Deployment's annotations beside its own, and the highest revision, also while the
/// Deployment is paused.
fn mark(api: &mut Api, deployment: &Value, new: &mut Value, sets: &[Value]) {
    let others: Vec<Value> = sets.iter().filter(|set| object::name(set) != object::name(new)).cloned().collect();
    let highest = newest(&others);
    if revision(new) <= highest && !others.is_empty() {
        new["metadata"]["annotations"][REVISION] = json!((highest + 1).to_string());
    }
    for (key, value) in copied(deployment) {
        new["metadata"]["annotations"][key] = json!(value);
    }
    new["metadata"]["annotations"][DESIRED] = json!(replicas(deployment).to_string());
    api.controller_puts(REPLICA_SETS, new.clone());
}

/// Scaling without a rollout.
fn scale(api: &mut Api, deployment: &Value, new: Option<&Value>, sets: &[Value]) {
    let desired = replicas(deployment);
    let active: Vec<&Value> = sets.iter().filter(|set| replicas(set) > 0).collect();
    let latest = || sets.iter().max_by_key(|set| (object::text(set, "/metadata/creationTimestamp").to_owned(), object::uid(set).to_owned()));
    match active.as_slice() {
        [] => {
            if let Some(set) = new.or_else(latest) {
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
fn roll(api: &mut Api, deployment: &Value, new: &Value, sets: &[Value]) {
    let desired = replicas(deployment);
    let all: i64 = sets.iter().map(replicas).sum();
    let old: Vec<&Value> = sets.iter().filter(|set| object::name(set) != object::name(new)).collect();
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
    let mut removable = removable.min(sets.iter().map(available).sum::<i64>() - least);
    for set in &old {
        let take = removable.min(replicas(set)).max(0);
        if take > 0 {
            removable -= take;
            scale_set(api, set, replicas(set) - take);
        }
    }
}

/// Old ReplicaSets beyond the limit go, those without pods, oldest first.
fn clean_up(api: &mut Api, deployment: &Value, sets: &[Value], new: Option<&Value>) {
    let limit = usize::try_from(object::integer(deployment, "/spec/revisionHistoryLimit", 10)).unwrap_or(10);
    let mut old: Vec<&Value> =
        sets.iter().filter(|set| new.is_none_or(|new| object::name(new) != object::name(set))).collect();
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
