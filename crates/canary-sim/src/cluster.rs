//! The few live objects that a release needs: Deployment, ReplicaSets, pods, Services, routes. Writes are applied as
//! the API server does, and what controllers and gateways do about them is done at once: pods are ready, routes are
//! accepted. Nothing fails here. It decides nothing.

use canary_api::{
    CanaryRelease, CanaryReleaseSpec,
    names::{self, ANNOTATION_CHANGED_BY, FINALIZER},
};
use canary_core::{
    Effect, Fetched, Kind, Observed, decide, object,
    observed::{BaselineSide, Hold, JobsSeen, Measured},
    route::{self, Pair, Split},
    template,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::SimError;

/// Pods that a simulated target has.
pub(crate) const PODS: i64 = 4;
const NAMESPACE: &str = "default";
const POLICIES: &str = "simulated";
/// Ticks within which a target is armed, or never.
const ARMING: usize = 50;

/// The objects, as one tick observes them.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) observed: Observed,
    serial: u64,
}

impl Cluster {
    /// An armed target whose template has just been changed: the next tick begins a release.
    ///
    /// # Errors
    /// A spec that the operator would refuse.
    pub(crate) fn with_a_change(spec: CanaryReleaseSpec, at: Timestamp) -> Result<Self, SimError> {
        let faults = canary_core::plan::faults(&spec, NAMESPACE, true);
        if !faults.is_empty() {
            return Err(SimError::Spec(faults));
        }
        let mut cluster = Self::new(spec, at);
        cluster.settle();
        let armed = |cluster: &Self| {
            let status = cluster.observed.release.status.as_ref();
            status.and_then(|status| status.hold.as_ref()).is_some_and(|hold| hold.armed)
        };
        for _ in 0..ARMING {
            let decision = decide(&cluster.observed, at);
            let done = decision.effects.is_empty();
            cluster.observed.release.status = Some(decision.status);
            cluster.apply(&decision.effects)?;
            if done && armed(&cluster) {
                cluster.change();
                return Ok(cluster);
            }
        }
        Err(SimError::NotArmed(cluster.observed.release.status.map(|status| status.message).unwrap_or_default()))
    }

    fn new(mut spec: CanaryReleaseSpec, at: Timestamp) -> Self {
        // The labels are of objects that are not here.
        spec.canary = canary_api::spec::Canary::default();
        // Traffic goes to two sides here: a comparison is with all stable pods.
        spec.baseline.pods = false;
        // No program is run here: every job is taken to succeed at once.
        spec.jobs.clear();
        let mut release = CanaryRelease::new("sim", spec);
        release.metadata.namespace = Some(NAMESPACE.to_owned());
        release.metadata.uid = Some("uid-0".to_owned());
        release.metadata.resource_version = Some("0".to_owned());
        release.metadata.generation = Some(1);
        release.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        let spec = &release.spec;
        let labels = json!({"app": "sim"});
        let metadata = |name: &str, serial: u64| {
            json!({
                "name": name, "namespace": NAMESPACE, "uid": format!("uid-{serial}"), "resourceVersion": serial.to_string(),
                "generation": 1, "creationTimestamp": at.to_string(), "labels": labels,
            })
        };
        let service = &spec.traffic.service;
        let route = |(serial, of): (u64, &canary_api::spec::Route)| {
            let route = json!({
                "metadata": metadata(&of.name, serial),
                "spec": {"rules": [{"backendRefs": [{"group": "", "kind": "Service", "name": service, "port": 80, "weight": 1}]}]},
            });
            (of.name.clone(), Fetched::Known(route))
        };
        let target = json!({
            "metadata": metadata(&spec.target.name, 1),
            "spec": {
                "replicas": PODS, "revisionHistoryLimit": 10, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "sim:stable"}]}},
            },
        });
        let observed = Observed {
            rivals: Fetched::Known(Vec::new()),
            target: Fetched::Known(target),
            canary: Fetched::Missing,
            replica_sets: Fetched::Known(Vec::new()),
            target_pods: Fetched::Known(Vec::new()),
            canary_pods: Fetched::Known(Vec::new()),
            service: Fetched::Known(json!({
                "metadata": metadata(service, 2),
                "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
            })),
            canary_service: Fetched::Missing,
            baseline: BaselineSide::none(),
            routes: (3..).zip(&spec.traffic.routes).map(route).collect(),
            autoscalers: Fetched::Known(Vec::new()),
            budgets: Fetched::Known(Vec::new()),
            network_policies: Fetched::Known(Vec::new()),
            serving_records: Fetched::Known(Vec::new()),
            jobs: JobsSeen::default(),
            hold: Hold::Works(POLICIES.to_owned()),
            policies: POLICIES.to_owned(),
            provider_problem: None,
            names_pods: true,
            measured: Measured::default(),
            release,
        };
        Self { observed, serial: 100 }
    }

    /// The canary's part of the traffic by the routes, 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        let release = &self.observed.release;
        let (name, uid) = (release.metadata.name.as_deref(), release.metadata.uid.as_deref());
        let canary = names::canary(&release.spec.traffic.service);
        let pair = Pair {
            release: name.unwrap_or_default(),
            uid: uid.unwrap_or_default(),
            stable: &release.spec.traffic.service,
            canary: &canary,
            beside: false,
        };
        let route = self.observed.routes.first().and_then(|(_, route)| route.known());
        match route.map(|route| route::split(route, &pair)) {
            Some(Split::Even(share) | Split::Uneven(share)) => f64::from(share) / f64::from(route::WHOLE),
            _ => 0.0,
        }
    }

    /// Makes the writes, in their order, and lets the cluster act on them.
    pub(crate) fn apply(&mut self, effects: &[Effect]) -> Result<(), SimError> {
        for effect in effects {
            self.write(effect).map_err(|why| SimError::Cluster(format!("{effect:?}: {why}")))?;
        }
        if !effects.is_empty() {
            self.settle();
        }
        Ok(())
    }

    fn write(&mut self, effect: &Effect) -> Result<(), String> {
        self.serial = self.serial.saturating_add(1);
        let serial = self.serial.to_string();
        match effect {
            Effect::Create { kind, object, .. } => {
                let mut object = object.clone();
                put(&mut object, "/metadata", "uid", json!(format!("uid-{serial}")));
                put(&mut object, "/metadata", "resourceVersion", json!(serial));
                put(&mut object, "/metadata", "generation", json!(1));
                self.store(*kind, object)
            }
            Effect::Patch { kind: Kind::CanaryRelease, patch, .. } => self.patch_release(patch),
            Effect::Patch { kind, name, patch, .. } => {
                let object = self.object_mut(*kind, name).ok_or("there is no such object")?;
                let spec = object.get("spec").cloned();
                patched(object, patch)?;
                if object.get("spec") != spec.as_ref() {
                    let generation = object::integer(object, "/metadata/generation", 1).saturating_add(1);
                    put(object, "/metadata", "generation", json!(generation));
                }
                put(object, "/metadata", "resourceVersion", json!(serial));
                Ok(())
            }
            Effect::Delete { kind, name, .. } => {
                self.remove(*kind, name);
                Ok(())
            }
        }
    }

    fn patch_release(&mut self, patch: &Value) -> Result<(), String> {
        let broken = |error: serde_json::Error| error.to_string();
        let mut object = json!({"metadata": serde_json::to_value(&self.observed.release.metadata).map_err(broken)?});
        patched(&mut object, patch)?;
        let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_default();
        self.observed.release.metadata = serde_json::from_value(metadata).map_err(broken)?;
        Ok(())
    }

    fn store(&mut self, kind: Kind, object: Value) -> Result<(), String> {
        let seen = &mut self.observed;
        let list = match kind {
            Kind::Deployment => {
                seen.canary = Fetched::Known(object);
                return Ok(());
            }
            Kind::Service => {
                seen.canary_service = Fetched::Known(object);
                return Ok(());
            }
            Kind::PodDisruptionBudget => &mut seen.budgets,
            Kind::ControllerRevision => &mut seen.serving_records,
            Kind::CanaryRelease | Kind::ReplicaSet | Kind::HttpRoute | Kind::HorizontalPodAutoscaler | Kind::Job => {
                return Err("nothing of this kind is ever created".to_owned());
            }
        };
        if let Fetched::Known(list) = list {
            list.push(object);
        }
        Ok(())
    }

    fn remove(&mut self, kind: Kind, name: &str) {
        let seen = &mut self.observed;
        let list = match kind {
            Kind::Deployment => return seen.canary = Fetched::Missing,
            Kind::Service => return seen.canary_service = Fetched::Missing,
            Kind::PodDisruptionBudget => &mut seen.budgets,
            Kind::ControllerRevision => &mut seen.serving_records,
            Kind::CanaryRelease | Kind::ReplicaSet | Kind::HttpRoute | Kind::HorizontalPodAutoscaler | Kind::Job => {
                return;
            }
        };
        if let Fetched::Known(list) = list {
            list.retain(|object| object::name(object) != name);
        }
    }

    fn object_mut(&mut self, kind: Kind, name: &str) -> Option<&mut Value> {
        let seen = &mut self.observed;
        let list = match kind {
            Kind::Deployment if seen.release.spec.target.name == name => return known_mut(&mut seen.target),
            Kind::Deployment => return known_mut(&mut seen.canary),
            Kind::Service => return known_mut(&mut seen.canary_service),
            Kind::HttpRoute => {
                return seen.routes.iter_mut().find(|(of, _)| of == name).and_then(|(_, route)| known_mut(route));
            }
            Kind::ReplicaSet => &mut seen.replica_sets,
            Kind::PodDisruptionBudget => &mut seen.budgets,
            Kind::ControllerRevision => &mut seen.serving_records,
            Kind::HorizontalPodAutoscaler => &mut seen.autoscalers,
            Kind::CanaryRelease | Kind::Job => return None,
        };
        known_mut(list)?.iter_mut().find(|object| object::name(object) == name)
    }

    /// The target's template is changed, and comes back held.
    fn change(&mut self) {
        let Some(target) = known_mut(&mut self.observed.target) else { return };
        put(target, "/spec/template/spec/containers/0", "image", json!("sim:candidate"));
        put(target, "/spec", "paused", json!(true));
        put(target, "/metadata/annotations", ANNOTATION_CHANGED_BY, json!("simulation"));
        let generation = object::integer(target, "/metadata/generation", 1).saturating_add(1);
        put(target, "/metadata", "generation", json!(generation));
        self.settle();
    }

    /// What controllers and gateways do about what is written, all of it at once.
    fn settle(&mut self) {
        let seen = &mut self.observed;
        let Fetched::Known(sets) = &mut seen.replica_sets else { return };
        for (deployment, pods) in [(&mut seen.target, &mut seen.target_pods), (&mut seen.canary, &mut seen.canary_pods)]
        {
            let Some(deployment) = known_mut(deployment) else { continue };
            roll(deployment, sets, &mut self.serial);
            *pods = Fetched::Known(pods_of(deployment, sets));
        }
        for route in seen.routes.iter_mut().filter_map(|(_, route)| known_mut(route)) {
            let generation = object::integer(route, "/metadata/generation", 1);
            let says = |kind: &str| json!({"type": kind, "status": "True", "observedGeneration": generation});
            let parent =
                json!({"parentRef": {"name": "gateway"}, "conditions": [says("Accepted"), says("ResolvedRefs")]});
            put(route, "", "status", json!({"parents": [parent]}));
        }
    }
}

fn known_mut<T>(fetched: &mut Fetched<T>) -> Option<&mut T> {
    match fetched {
        Fetched::Known(object) => Some(object),
        Fetched::Missing | Fetched::Failed(_) => None,
    }
}

/// Sets a field of an object inside, which is made where it is missing.
fn put(object: &mut Value, inside: &str, field: &str, value: Value) {
    let mut at = object;
    for key in inside.split('/').skip(1) {
        let next = match at {
            Value::Object(fields) => fields.entry(key).or_insert_with(|| json!({})),
            Value::Array(items) => match key.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                Some(item) => item,
                None => return,
            },
            _ => return,
        };
        at = next;
    }
    if let Some(fields) = at.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

fn patched(object: &mut Value, patch: &Value) -> Result<(), String> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).map_err(|error| error.to_string())?;
    json_patch::patch(object, &patch).map_err(|error| error.to_string())
}

/// A Deployment's ReplicaSets and status: its template runs, and nothing else, unless it is paused.
fn roll(deployment: &mut Value, sets: &mut Vec<Value>, serial: &mut u64) {
    let (uid, wanted) = (object::uid(deployment).to_owned(), object::integer(deployment, "/spec/replicas", 1));
    let own_template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
    let ours = |set: &Value| object::controlled_by(set, &uid);
    let current = |set: &Value| template::same(set.pointer("/spec/template").unwrap_or(&Value::Null), &own_template);
    let paused = object::truth(deployment, "/spec/paused");
    if !paused && !sets.iter().any(|set| ours(set) && current(set)) {
        *serial = serial.saturating_add(1);
        sets.push(json!({
            "metadata": {
                "name": format!("{}-{serial}", object::name(deployment)), "uid": format!("uid-{serial}"), "resourceVersion": serial.to_string(),
                // Later ones sort after earlier ones.
                "creationTimestamp": format!("2000-01-01T00:00:{:02}Z", sets.len().min(59)),
                "annotations": deployment.pointer("/metadata/annotations").cloned().unwrap_or_else(|| json!({})),
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": object::name(deployment), "uid": uid, "controller": true}],
            },
            "spec": {"template": own_template},
        }));
    }
    let mut updated = 0;
    for set in sets.iter_mut().filter(|set| ours(set)) {
        let keep = if paused { object::integer(set, "/spec/replicas", 0) > 0 } else { current(set) };
        let replicas = if keep { wanted } else { 0 };
        if keep && current(set) {
            updated = replicas;
        }
        put(set, "/spec", "replicas", json!(replicas));
        put(set, "", "status", json!({"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}));
    }
    let status = json!({
        "observedGeneration": object::integer(deployment, "/metadata/generation", 1),
        "replicas": wanted, "updatedReplicas": updated, "readyReplicas": wanted, "availableReplicas": wanted,
    });
    put(deployment, "", "status", status);
}

/// The pods of a Deployment, all of them ready.
fn pods_of(deployment: &Value, sets: &[Value]) -> Vec<Value> {
    let mut pods = Vec::new();
    for set in sets.iter().filter(|set| object::controlled_by(set, object::uid(deployment))) {
        for number in 0..object::integer(set, "/spec/replicas", 0) {
            pods.push(json!({
                "metadata": {
                    "name": format!("{}-{number}", object::name(set)), "creationTimestamp": "2000-01-01T00:00:00Z",
                    "ownerReferences": [{"kind": "ReplicaSet", "name": object::name(set), "uid": object::uid(set), "controller": true}],
                },
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            }));
        }
    }
    pods
}
