//! What Kubernetes does by itself: Deployments, ReplicaSets and pods as the controllers handle them
//! (paused: the active ReplicaSet is kept and scaled, nothing rolls), garbage collection, the
//! gateway, and the traffic with its counters.

use std::{collections::BTreeMap, time::Duration};

use canary_core::{object, pods, template};
use serde_json::{Value, json};

use super::{Fate, GATEWAY_LAG, World};

/// How long a pod takes to become ready.
const STARTUP: Duration = Duration::from_secs(2);
/// After how long a container that ends is reported to crash again and again.
const CRASHES: Duration = Duration::from_secs(3);

impl World {
    /// Lets the world go on by itself for so long.
    pub fn step(&mut self, time: Duration) {
        self.traffic(time);
        self.now += time;
        if self.settled == Some(self.serial) {
            return;
        }
        let before = self.serial;
        self.collect();
        for name in self.names("Deployment") {
            self.deployment(&name);
        }
        for name in self.names("ReplicaSet") {
            self.replica_set(&name);
        }
        for name in self.names("Pod") {
            self.pod(&name);
        }
        for name in self.names("ReplicaSet") {
            self.count_pods(&name);
        }
        for name in self.names("Job") {
            self.job(&name);
        }
        for name in self.names("Deployment") {
            self.deployment_status(&name);
        }
        let waits = self.gateway()
            || self.objects.iter().any(|((kind, _), object)| match *kind {
                "Pod" => !pods::ready(object) && !of_job(object),
                "Job" => canary_core::job::state(object) == canary_core::job::State::Running,
                // The deadline of a rollout's progress.
                "Deployment" => object::text(object, "/status/conditions/0/reason") == "ReplicaSetUpdated",
                _ => false,
            });
        self.settled = (!waits && self.serial == before).then_some(self.serial);
        self.find_flow();
    }

    /// Whether time alone changes nothing but counters.
    pub(super) fn at_rest(&self) -> bool {
        self.settled == Some(self.serial)
    }

    pub(super) fn names(&self, of: &'static str) -> Vec<String> {
        self.objects.keys().filter(|(kind, _)| *kind == of).map(|(_, name)| name.clone()).collect()
    }

    pub(super) fn store(&mut self, kind: &'static str, name: &str, mut object: Value) {
        if self.get(kind, name) == Some(&object) {
            return;
        }
        if self.get(kind, name).is_some_and(|before| before["spec"] != object["spec"]) {
            object["metadata"]["generation"] = json!(object::integer(&object, "/metadata/generation", 1) + 1);
        }
        object["metadata"]["resourceVersion"] = json!(self.serial().to_string());
        self.objects.insert((kind, name.to_owned()), object);
    }

    /// Deletes what has lost its owner.
    fn collect(&mut self) {
        loop {
            let uids: Vec<String> = self.objects.values().map(|object| object::uid(object).to_owned()).collect();
            let orphan = self.objects.iter().find(|(_, object)| {
                object::items(object, "/metadata/ownerReferences")
                    .any(|owner| !uids.iter().any(|uid| uid == object::text(owner, "/uid")))
            });
            let Some(key) = orphan.map(|(key, _)| key.clone()) else { return };
            self.objects.remove(&key);
        }
    }

    fn owned(&self, kind: &'static str, uid: &str) -> Vec<Value> {
        let owned = |object: &&Value| object::controlled_by(object, uid);
        let mut found: Vec<Value> = self
            .objects
            .iter()
            .filter(|((of, _), _)| *of == kind)
            .map(|(_, object)| object)
            .filter(owned)
            .cloned()
            .collect();
        found.sort_by_key(serial);
        found
    }

    /// The ReplicaSet with the Deployment's template to the byte: `restartedAt` makes another one.
    fn new_set(deployment: &Value, sets: &[Value]) -> Option<Value> {
        let wanted = template::for_deployment(&deployment["spec"]["template"]);
        sets.iter().find(|set| template::for_deployment(&set["spec"]["template"]) == wanted).cloned()
    }

    fn deployment(&mut self, name: &str) {
        let deployment = self.get("Deployment", name).unwrap().clone();
        if object::deleting(&deployment) {
            return;
        }
        let sets = self.owned("ReplicaSet", object::uid(&deployment));
        let desired = object::integer(&deployment, "/spec/replicas", 1);
        let new = Self::new_set(&deployment, &sets);
        let active: Vec<&Value> = sets.iter().filter(|set| replicas(set) > 0).collect();
        if object::truth(&deployment, "/spec/paused") {
            let one = match active.as_slice() {
                [] => new.as_ref().or(sets.last()),
                [one] => Some(*one),
                _ => None,
            };
            if let Some(one) = one.filter(|one| replicas(one) != desired) {
                self.scale_set(object::name(one), desired);
            }
            return;
        }
        let Some(new) = new else {
            let hash = template::digest(&deployment["spec"]["template"])[7..17].to_owned();
            let hash = format!("{hash}{}", self.serial());
            let mut pods = deployment["spec"]["template"].clone();
            pods["metadata"]["labels"]["pod-template-hash"] = json!(hash);
            let first = if active.is_empty() { desired } else { 0 };
            let set = json!({
                "apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {
                    "name": format!("{name}-{hash}"), "labels": pods["metadata"]["labels"], "annotations": deployment["metadata"]["annotations"],
                    "ownerReferences": [owner("Deployment", &deployment)],
                },
                "spec": {"replicas": first, "selector": {"matchLabels": pods["metadata"]["labels"]}, "template": pods},
            });
            return self.create("ReplicaSet", set);
        };
        // The newest ReplicaSet carries the Deployment's annotations, beside its own.
        let mut marked = new.clone();
        for (key, value) in object::strings(&deployment, "/metadata/annotations") {
            marked["metadata"]["annotations"][key] = json!(value);
        }
        let name = object::name(&marked).to_owned();
        self.store("ReplicaSet", &name, marked);
        self.roll(&deployment, &new, &sets, desired);
    }

    /// One step of a rolling update with a surge and an unavailability of a quarter.
    fn roll(&mut self, deployment: &Value, new: &Value, sets: &[Value], desired: i64) {
        let (surge, unavailable) = ((desired + 3) / 4, desired / 4);
        let all: i64 = sets.iter().map(replicas).sum();
        let old: Vec<&Value> = sets.iter().filter(|set| object::name(set) != object::name(new)).collect();
        if replicas(new) > desired {
            self.scale_set(object::name(new), desired);
        } else if replicas(new) < desired && all < desired + surge {
            self.scale_set(object::name(new), (replicas(new) + desired + surge - all).min(desired));
        }
        let available: i64 = sets.iter().map(|set| object::integer(set, "/status/availableReplicas", 0)).sum();
        let new_missing = replicas(new) - object::integer(new, "/status/availableReplicas", 0);
        let mut removable = all - (desired - unavailable) - new_missing;
        let _ = available;
        for set in &old {
            let take = removable.min(replicas(set)).max(0);
            if take > 0 {
                self.scale_set(object::name(set), replicas(set) - take);
                removable -= take;
            }
        }
        let limit = usize::try_from(object::integer(deployment, "/spec/revisionHistoryLimit", 10)).unwrap();
        let empty: Vec<&&Value> =
            old.iter().filter(|set| replicas(set) == 0 && object::integer(set, "/status/replicas", 0) == 0).collect();
        if empty.len() > limit && empty.len() == old.len() {
            let name = object::name(empty[0]).to_owned();
            self.delete("ReplicaSet", &name);
        }
    }

    fn scale_set(&mut self, name: &str, to: i64) {
        let mut set = self.get("ReplicaSet", name).unwrap().clone();
        set["spec"]["replicas"] = json!(to);
        self.store("ReplicaSet", name, set);
    }

    fn fate_of(&self, image: &str) -> Fate {
        self.versions.get(image).copied().unwrap_or_default().fate
    }

    fn replica_set(&mut self, name: &str) {
        let set = self.get("ReplicaSet", name).unwrap().clone();
        let mut pods = self.owned("Pod", object::uid(&set));
        let wanted = usize::try_from(replicas(&set)).unwrap();
        pods.sort_by_key(|pod| !pods::ready(pod));
        while pods.len() > wanted {
            let pod = pods.pop().unwrap();
            self.delete("Pod", object::name(&pod));
        }
        if self.fate_of(image(&set)) == Fate::Quota {
            return;
        }
        for _ in pods.len()..wanted {
            let serial = self.serial();
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("{name}-{serial}"), "labels": set["spec"]["template"]["metadata"]["labels"], "ownerReferences": [owner("ReplicaSet", &set)]},
                "spec": set["spec"]["template"]["spec"],
                "status": {"phase": "Pending"},
            });
            self.create("Pod", pod);
        }
    }

    fn pod(&mut self, name: &str) {
        let mut pod = self.get("Pod", name).unwrap().clone();
        if of_job(&pod) {
            return;
        }
        let created: jiff::Timestamp = object::text(&pod, "/metadata/creationTimestamp").parse().unwrap();
        let age = Duration::try_from(self.now.duration_since(created)).unwrap_or_default();
        let app = |ready: bool, restarts: i64, state: Value| json!([{"name": "app", "ready": ready, "restartCount": restarts, "state": state}]);
        let conditions = |ready: &str, scheduled: &str| json!([{"type": "Ready", "status": ready}, {"type": "PodScheduled", "status": scheduled, "message": if scheduled == "True" { "" } else { "0/1 nodes are available: 1 Insufficient cpu." }}]);
        let running = || json!({"running": {"startedAt": created.to_string()}});
        let blocked = self.blocked.as_deref() == Some(image_of_pod(&pod)) && !self.spared.contains(name);
        let fate = if blocked { Fate::Unschedulable } else { self.fate_of(image_of_pod(&pod)) };
        pod["status"] = match fate {
            Fate::Unschedulable => json!({"phase": "Pending", "conditions": conditions("False", "False")}),
            Fate::NoImage => {
                json!({"phase": "Pending", "conditions": conditions("False", "True"), "containerStatuses": app(false, 0, json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}))})
            }
            Fate::CrashLoop if age >= CRASHES => {
                json!({"phase": "Running", "conditions": conditions("False", "True"), "containerStatuses": app(false, 2, json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}))})
            }
            Fate::Ready if age >= STARTUP => {
                json!({"phase": "Running", "conditions": conditions("True", "True"), "containerStatuses": app(true, 0, running())})
            }
            _ => {
                json!({"phase": "Running", "conditions": conditions("False", "True"), "containerStatuses": app(false, 0, running())})
            }
        };
        self.store("Pod", name, pod);
    }

    fn count_pods(&mut self, name: &str) {
        let mut set = self.get("ReplicaSet", name).unwrap().clone();
        let pods = self.owned("Pod", object::uid(&set));
        let ready = pods.iter().filter(|pod| pods::ready(pod)).count();
        let mut status = json!({"observedGeneration": set["metadata"]["generation"], "replicas": pods.len()});
        if ready > 0 {
            status["readyReplicas"] = json!(ready);
            status["availableReplicas"] = json!(ready);
        }
        set["status"] = status;
        self.store("ReplicaSet", name, set);
    }

    fn deployment_status(&mut self, name: &str) {
        let mut deployment = self.get("Deployment", name).unwrap().clone();
        let sets = self.owned("ReplicaSet", object::uid(&deployment));
        let new = Self::new_set(&deployment, &sets);
        let count = |set: &Value, field: &str| object::integer(set, &format!("/status/{field}"), 0);
        let sum = |field: &str| sets.iter().map(|set| count(set, field)).sum::<i64>();
        let (all, ready) = (sum("replicas"), sum("readyReplicas"));
        let updated = new.as_ref().map_or(0, |set| count(set, "replicas"));
        let paused = object::truth(&deployment, "/spec/paused");
        let desired = object::integer(&deployment, "/spec/replicas", 1);
        let done = updated == desired && all == desired && ready == desired;
        let uid = object::uid(&deployment).to_owned();
        let mark = updated * 1000 + ready * 10 - all;
        let now = self.now;
        let (since, last) = self.progress.entry(uid).or_insert((now, mark));
        let resumed = object::text(&deployment, "/status/conditions/0/reason") == "DeploymentPaused";
        if *last != mark || done || paused || resumed {
            (*since, *last) = (now, mark);
        }
        let stuck = Duration::try_from(now.duration_since(*since)).unwrap_or_default();
        let deadline = u64::try_from(object::integer(&deployment, "/spec/progressDeadlineSeconds", 600)).unwrap();
        let reason = match (paused, done) {
            (true, _) => ("Unknown", "DeploymentPaused"),
            (false, true) => ("True", "NewReplicaSetAvailable"),
            (false, false) if stuck >= Duration::from_secs(deadline) => ("False", "ProgressDeadlineExceeded"),
            (false, false) => ("True", "ReplicaSetUpdated"),
        };
        let mut conditions = vec![json!({"type": "Progressing", "status": reason.0, "reason": reason.1})];
        if self.fate_of(image(&deployment)) == Fate::Quota && all < desired {
            conditions.push(json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}));
        }
        let mut status = json!({"observedGeneration": deployment["metadata"]["generation"], "conditions": conditions});
        for (field, value) in
            [("replicas", all), ("updatedReplicas", updated), ("readyReplicas", ready), ("availableReplicas", ready)]
        {
            if value > 0 {
                status[field] = json!(value);
            }
        }
        deployment["status"] = status;
        self.store("Deployment", name, deployment);
    }

    /// The gateway takes an edited route over after a while; a deleted one at once.
    fn gateway(&mut self) -> bool {
        let mut waits = false;
        let names = self.names("HTTPRoute");
        self.plane.retain(|name, _| names.contains(name));
        for name in names {
            let mut route = self.get("HTTPRoute", &name).unwrap().clone();
            let generation = object::integer(&route, "/metadata/generation", 1);
            let (seen, since) = *self.edits.entry(name.clone()).or_insert((0, self.now));
            if seen != generation {
                self.edits.insert(name.clone(), (generation, self.now));
                waits = true;
            } else if Duration::try_from(self.now.duration_since(since)).unwrap_or_default() >= GATEWAY_LAG {
                self.plane.insert(name.clone(), route["spec"]["rules"].clone());
                let condition = |kind: &str| json!({"type": kind, "status": "True", "observedGeneration": generation});
                route["status"] = json!({"parents": [{"parentRef": {"name": "gate"}, "conditions": [condition("Accepted"), condition("ResolvedRefs")]}]});
                self.store("HTTPRoute", &name, route);
            } else {
                waits = true;
            }
        }
        waits
    }

    /// Where the data plane sends each second's requests.
    fn find_flow(&mut self) {
        let names_web =
            |rule: &Value| object::items(rule, "/backendRefs").any(|entry| object::text(entry, "/name") == "web");
        let rules: Vec<&Value> =
            self.plane.values().flat_map(|rules| object::items(rules, "")).filter(|rule| names_web(rule)).collect();
        let mut services: BTreeMap<&str, f64> = BTreeMap::new();
        for rule in &rules {
            let obeyed =
                |entry: &Value| if object::text(entry, "/name").ends_with("-canary") { self.obeyed } else { 1.0 };
            let weight = |entry: &Value| entry["weight"].as_f64().unwrap_or(1.0) * obeyed(entry);
            let all: f64 = object::items(rule, "/backendRefs").map(weight).sum();
            for entry in object::items(rule, "/backendRefs").filter(|entry| weight(entry) > 0.0) {
                *services.entry(object::text(entry, "/name")).or_default() +=
                    self.rate / rules.len() as f64 * weight(entry) / all;
            }
        }
        let mut flow = Vec::new();
        for (service, rate) in services {
            let selector =
                self.get("Service", service).map(|service| json!({"matchLabels": service["spec"]["selector"]}));
            let ready = selector.map_or_else(Vec::new, |selector| self.ready_pods(&selector));
            if ready.is_empty() {
                flow.push((None, rate));
            }
            for pod in &ready {
                let to = (object::name(pod).to_owned(), image_of_pod(pod).to_owned());
                flow.push((Some(to), rate / ready.len() as f64));
            }
        }
        self.flow = flow;
    }

    /// Requests of so long a time, answered by ready pods, and counted.
    fn traffic(&mut self, time: Duration) {
        for (to, rate) in &self.flow {
            let requests = rate * time.as_secs_f64();
            let Some((pod, image)) = to else {
                self.unanswered += requests;
                continue;
            };
            let errors = self.versions.get(image).copied().unwrap_or_default().errors;
            let (all, bad) = self.counters.entry(pod.clone()).or_default();
            *all += requests;
            *bad += requests * errors;
            *self.answers.entry(image.clone()).or_default() += requests;
        }
    }

    pub(super) fn ready_pods(&self, selector: &Value) -> Vec<Value> {
        self.objects
            .iter()
            .filter(|((kind, _), pod)| {
                *kind == "Pod"
                    && pods::ready(pod)
                    && object::selects(selector, &object::strings(pod, "/metadata/labels"))
            })
            .map(|(_, pod)| pod.clone())
            .collect()
    }

    pub(super) fn images_behind(&self, selector: &Value) -> Vec<String> {
        let mut images: Vec<String> =
            self.ready_pods(selector).iter().map(|pod| image_of_pod(pod).to_owned()).collect();
        images.sort();
        images.dedup();
        images
    }

    /// There is no room for further pods of a version; what is ready stays.
    pub fn block_new_pods(&mut self, version: &str) {
        self.blocked = Some(format!("web:{version}"));
        self.spared = self
            .objects
            .iter()
            .filter(|((kind, _), pod)| *kind == "Pod" && pods::ready(pod))
            .map(|((_, name), _)| name.clone())
            .collect();
        self.settled = None;
    }

    /// There is room again.
    pub fn unblock_pods(&mut self) {
        self.blocked = None;
        self.settled = None;
    }

    /// All pods of the canary go at once, as when their node is lost.
    pub fn lose_canary_pods(&mut self) {
        self.lose_pods("web-canary-");
    }

    /// All baseline pods go at once.
    pub fn lose_baseline_pods(&mut self) {
        self.lose_pods("web-baseline-");
    }

    fn lose_pods(&mut self, of: &str) {
        for name in self.names("Pod").into_iter().filter(|name| name.starts_with(of)) {
            self.delete("Pod", &name);
        }
    }
}

fn of_job(pod: &Value) -> bool {
    object::text(pod, "/metadata/ownerReferences/0/kind") == "Job"
}

fn serial(object: &Value) -> u64 {
    object::uid(object).trim_start_matches("uid-").parse().unwrap_or_default()
}

fn replicas(set: &Value) -> i64 {
    object::integer(set, "/spec/replicas", 0)
}

fn image(set: &Value) -> &str {
    object::text(set, "/spec/template/spec/containers/0/image")
}

pub(super) fn image_of_pod(pod: &Value) -> &str {
    object::text(pod, "/spec/containers/0/image")
}

fn owner(kind: &str, of: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": object::name(of), "uid": object::uid(of), "controller": true})
}
