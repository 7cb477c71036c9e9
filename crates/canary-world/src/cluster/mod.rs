//! What a cluster does by itself: the controllers of Deployments, ReplicaSets, Jobs and pods, the garbage collector, an
//! autoscaler, a gateway that takes edits over late, and the traffic with its counters. All of it follows from the
//! objects and the time; it never looks at what the operator thinks.

mod deployment;
pub mod jobs;
mod pods;
mod route;
pub mod traffic;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::object;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Api;
use crate::resources::{
    AUTOSCALERS, BUDGETS, CONTROLLER_REVISIONS, DEPLOYMENTS, JOBS, PODS, RELEASE_RECORDS, REPLICA_SETS, Resource,
    SERVICES,
};
use crate::store::{Key, Store, Version};

use self::traffic::Traffic;

/// How the pods of a version fare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fate {
    /// Ready after the usual time.
    #[default]
    Ready,
    /// Never scheduled.
    Unschedulable,
    /// Ends with an error each time.
    CrashLoop,
    /// Runs, and its probe never passes.
    NeverReady,
    /// Its image can't be pulled.
    NoImage,
    /// Its pods are not even created.
    Quota,
}

/// How a version behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behaviour {
    /// Its true share of bad answers.
    pub errors: f64,
    /// What its gauge shows.
    pub gauge: f64,
    /// Since when, where it is not the first.
    pub gauge_since: Option<Timestamp>,
    /// What becomes of its pods.
    pub fate: Fate,
    /// Whether it counts its requests.
    pub counts: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { errors: 0.0, gauge: 1.0, gauge_since: None, fate: Fate::Ready, counts: true }
    }
}

/// The cluster beside the API server.
#[derive(Debug)]
pub struct Cluster {
    /// By image.
    pub versions: BTreeMap<String, Behaviour>,
    /// How long a pod takes to become ready.
    pub startup: Duration,
    /// How long the gateway takes to obey an edited route, and to learn of a ready pod.
    pub gateway_lag: Duration,
    /// Whether the gateway looks at routes at all.
    pub gateway_works: bool,
    /// What the autoscaler finds right, by autoscaler.
    pub load: BTreeMap<String, i64>,
    /// Requests, and where they go.
    pub traffic: Traffic,
    plane: BTreeMap<Key, Value>,
    edits: BTreeMap<Key, (i64, Timestamp)>,
    progress: BTreeMap<String, (Timestamp, [i64; 4])>,
    scaled: BTreeMap<String, Timestamp>,
    serial: u64,
}

/// An hour from which nothing is due.
const NEVER: Timestamp = Timestamp::MAX;

impl Cluster {
    /// A cluster whose clock says `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            versions: BTreeMap::new(),
            startup: Duration::from_secs(2),
            gateway_lag: Duration::from_millis(700),
            gateway_works: true,
            load: BTreeMap::new(),
            traffic: Traffic::new(now),
            plane: BTreeMap::new(),
            edits: BTreeMap::new(),
            progress: BTreeMap::new(),
            scaled: BTreeMap::new(),
            serial: 0,
        }
    }

    /// How a version behaves.
    #[must_use]
    pub fn behaviour(&self, image: &str) -> Behaviour {
        self.versions.get(image).copied().unwrap_or_default()
    }

    /// Does all that is to be done now; when there is something to do again, if nothing else changes.
    pub fn step(&mut self, api: &mut Api) -> Timestamp {
        let mut due;
        loop {
            let before = api.store.revision();
            due = NEVER;
            self.collect(api);
            self.autoscale(api, &mut due);
            self.deployments(api, &mut due);
            self.jobs(api);
            self.pods(api, &mut due);
            self.gateway(api, &mut due);
            if api.store.revision() == before {
                break;
            }
        }
        self.find_flow(api, &mut due);
        due
    }

    /// Deletes what has lost its owner.
    fn collect(&self, api: &mut Api) {
        loop {
            let lost = |version: &Version| {
                object::items(&version.value, "/metadata/ownerReferences")
                    .any(|owner| !api.store.has_uid(object::text(owner, "/uid")))
            };
            let kinds =
                [PODS, JOBS, REPLICA_SETS, DEPLOYMENTS, SERVICES, BUDGETS, CONTROLLER_REVISIONS, RELEASE_RECORDS];
            let owned = kinds.into_iter().flat_map(|resource| api.store.all(resource.plural, ""));
            let orphan = owned.filter(|(_, version)| lost(version)).map(|(key, _)| key.clone()).next();
            let Some(key) = orphan else { return };
            let _ = api.store.remove(&key, api.now);
        }
    }

    /// Scales what an autoscaler looks after, one step each 15 s.
    fn autoscale(&mut self, api: &mut Api, due: &mut Timestamp) {
        const EVERY: Duration = Duration::from_secs(15);
        for key in keys(api, AUTOSCALERS) {
            let Some(hpa) = api.store.get(&key).cloned() else { continue };
            let hpa = &hpa.value;
            let target = Key::new(DEPLOYMENTS, &key.namespace, object::text(hpa, "/spec/scaleTargetRef/name"));
            let (Some(load), Some(deployment)) = (self.load.get(&key.name), api.store.get(&target)) else { continue };
            let (least, most) =
                (object::integer(hpa, "/spec/minReplicas", 1), object::integer(hpa, "/spec/maxReplicas", 10));
            let now = object::integer(&deployment.value, "/spec/replicas", 1);
            let wanted = (*load).clamp(least, most);
            let frozen = object::text(hpa, "/spec/behavior/scaleDown/selectPolicy") == "Disabled";
            if now == 0 || wanted == now || (wanted < now && frozen) {
                continue;
            }
            let next = self.scaled.get(&key.name).map_or(api.now, |last| *last + EVERY);
            if next > api.now {
                *due = (*due).min(next);
                continue;
            }
            let mut scaled = deployment.value.clone();
            scaled["spec"]["replicas"] = json!(wanted);
            self.scaled.insert(key.name.clone(), api.now);
            api.controller_puts(DEPLOYMENTS, scaled);
        }
    }

    /// Creates an object of a controller's.
    fn create(&mut self, api: &mut Api, resource: &'static Resource, namespace: &str, object: Value) -> bool {
        let caller = crate::api::Caller::new("system:kube-controller-manager", "kube-controller-manager");
        api.create(&caller, resource, namespace, object).is_ok()
    }

    /// A suffix as Kubernetes gives to pods.
    fn suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        self.serial += 1;
        let mut rest = self.serial.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        (0..5)
            .map(|_| {
                let letter = LETTERS[usize::try_from(rest % 27).unwrap_or(0)];
                rest /= 27;
                char::from(letter)
            })
            .collect()
    }
}

/// The places of all objects of a resource.
pub(crate) fn keys(api: &Api, resource: &Resource) -> Vec<Key> {
    api.store.all(resource.plural, "").map(|(key, _)| key.clone()).collect()
}

/// The objects that an owner controls, oldest first.
fn owned(api: &Api, resource: &Resource, namespace: &str, uid: &str) -> Vec<Arc<Version>> {
    let mut found: Vec<Arc<Version>> = api
        .store
        .all(resource.plural, namespace)
        .filter(|(_, version)| object::controlled_by(&version.value, uid))
        .map(|(_, version)| version.clone())
        .collect();
    found.sort_by(|a, b| object::uid(&a.value).cmp(object::uid(&b.value)));
    found
}

fn owner(kind: &Resource, of: &Value) -> Value {
    json!([{
        "apiVersion": kind.api_version(), "kind": kind.kind, "name": object::name(of), "uid": object::uid(of),
        "controller": true, "blockOwnerDeletion": true,
    }])
}

fn replicas(of: &Value) -> i64 {
    object::integer(of, "/spec/replicas", 1)
}

/// The image of a pod template's first container.
#[must_use]
pub fn image(of: &Value) -> &str {
    let pointer = if of.pointer("/spec/template").is_some() {
        "/spec/template/spec/containers/0/image"
    } else {
        "/spec/containers/0/image"
    };
    object::text(of, pointer)
}

/// The pods of a namespace that a map of labels selects.
#[must_use]
pub fn selected<'a>(store: &'a Store, namespace: &'a str, labels: &BTreeMap<String, String>) -> Vec<&'a Value> {
    let all = store.all(PODS.plural, namespace).map(|(_, version)| &version.value);
    let fits =
        |pod: &&Value| !labels.is_empty() && labels.iter().all(|(key, value)| object::label(pod, key) == Some(value));
    all.filter(fits).collect()
}
