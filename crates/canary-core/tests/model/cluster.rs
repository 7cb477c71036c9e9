//! The finite cluster of the model check: real objects, each kept once and named by a number, and what Kubernetes,
//! admission and people do to them. Time has three ages: just now, longer than every duration of the spec, longer than
//! every deadline.

use std::{collections::HashMap, rc::Rc};

use canary_api::names;
use canary_core::{Effect, object, template};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// When every tick of the model is.
pub const NOW: &str = "2026-01-01T12:00:00Z";
/// What a time that nothing is decided by is written as.
const SOME_TIME: &str = "2026-01-01T00:00:00Z";
/// Ages that a time can have: past stages, baseline, drain and the gateway's switch, then past the deadlines.
const AGES: [i64; 3] = [0, 50, 7200];

/// Objects of the model, in the order in which a state names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Release,
    Target,
    Canary,
    Service,
    Route,
    Records,
    Sets,
}

pub const SLOTS: usize = 7;

/// An object, by number; 0 is none.
pub type Id = u32;

/// Every value that was met, once.
#[derive(Default)]
pub struct Store {
    by_text: HashMap<String, Id>,
    all: Vec<Rc<Value>>,
}

impl Store {
    pub fn new() -> Self {
        let mut store = Self::default();
        store.id(Value::Null);
        store
    }

    pub fn id(&mut self, value: Value) -> Id {
        let text = value.to_string();
        let next = Id::try_from(self.all.len()).unwrap();
        *self.by_text.entry(text).or_insert_with(|| {
            self.all.push(Rc::new(value));
            next
        })
    }

    pub fn get(&self, id: Id) -> Rc<Value> {
        self.all[usize::try_from(id).unwrap()].clone()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }
}

/// The objects of a state.
pub type Objects = [Id; SLOTS];

/// The spec of the model: three stages, one gate whose verdict is chosen freely, every duration shorter than [`AGES`]' second.
pub fn spec() -> Value {
    json!({
        "target": {"name": "web"},
        "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "requests_total"}},
        "interval": "5s",
        "stages": [{"weight": "10%", "duration": "20s"}, {"weight": "50%", "duration": "20s"}, {"weight": "100%", "duration": "20s"}],
        "gates": [{"name": "errors", "value": {"query": "max(errors{pod=~\"$pods\"})", "max": 10}}],
        "baseline": {"duration": "20s"},
        "drain": "10s",
        "readyDeadline": "60s",
        "onRevert": "Restore",
    })
}

fn meta(name: &str, uid: &str) -> Value {
    json!({"name": name, "namespace": "shop", "uid": uid, "resourceVersion": "1", "generation": 1, "creationTimestamp": SOME_TIME})
}

fn pod_template(version: u8) -> Value {
    json!({"metadata": {"labels": {"app": "web", "team": "shop"}}, "spec": {"containers": [{"name": "app", "image": format!("web:v{version}")}]}})
}

/// The version that a template is.
pub fn version(template: &Value) -> u8 {
    let image = object::text(template, "/spec/containers/0/image");
    image.trim_start_matches("web:v").parse().unwrap_or(0)
}

fn set(name: &str, owner: &str, template: &Value, pods: i64, ready: i64) -> Value {
    let mut own = template.clone();
    own["metadata"]["labels"]["pod-template-hash"] = json!(name);
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1", "creationTimestamp": SOME_TIME, "annotations": {}, "ownerReferences": [{"controller": true, "uid": owner, "kind": "Deployment"}]},
        "spec": {"replicas": pods, "template": own}, "status": {"replicas": pods, "readyReplicas": ready, "availableReplicas": ready},
    })
}

/// The cluster before any operator came: Deployment web with two pods of v1, its Service's route, a CanaryRelease.
pub fn initial(store: &mut Store) -> Objects {
    let mut release = json!({"metadata": meta("web", "uid-release"), "status": {"observedGeneration": -1}});
    release["metadata"]["finalizers"] = json!([names::FINALIZER]);
    let mut target = json!({"metadata": meta("web", "uid-target"), "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": pod_template(1)}});
    deployed(&mut target, 2, 2, 2, "NewReplicaSetAvailable");
    let entry = json!({"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1});
    let condition = |kind: &str| json!({"type": kind, "status": "True", "observedGeneration": 1});
    let route = json!({
        "metadata": meta("web", "uid-route"), "spec": {"parentRefs": [{"name": "gate"}], "rules": [{"backendRefs": [entry]}]},
        "status": {"parents": [{"parentRef": {"name": "gate"}, "conditions": [condition("Accepted"), condition("ResolvedRefs")]}]},
    });
    let sets = json!([set("web-v1", "uid-target", &pod_template(1), 2, 2)]);
    [release, target, Value::Null, Value::Null, route, json!([]), sets].map(|value| store.id(value))
}

/// The user's Service; nobody changes it.
pub fn stable_service() -> Value {
    json!({"metadata": meta("web", "uid-service"), "spec": {"selector": {"app": "web"}, "type": "ClusterIP", "ports": [{"name": "http", "port": 80}]}})
}

fn deployed(deployment: &mut Value, pods: i64, updated: i64, ready: i64, reason: &str) {
    deployment["metadata"]["generation"] = json!(1);
    deployment["status"] = json!({
        "observedGeneration": 1, "replicas": pods, "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": ready,
        "conditions": [{"type": "Progressing", "status": "True", "reason": reason}],
    });
}

/// Pods of the ReplicaSets of an owner.
pub fn pods(sets: &Value, owner: &str) -> Vec<Value> {
    let own = sets.as_array().unwrap().iter().filter(|set| object::controlled_by(set, owner));
    own.flat_map(|set| {
        let ready = object::integer(set, "/status/readyReplicas", 0);
        (0..object::integer(set, "/status/replicas", 0)).map(move |number| {
            let truth = if number < ready { "True" } else { "False" };
            json!({
                "metadata": {"name": format!("{}-{number}", object::name(set)), "creationTimestamp": SOME_TIME, "labels": set["spec"]["template"]["metadata"]["labels"]},
                "status": {"conditions": [{"type": "Ready", "status": truth, "lastTransitionTime": SOME_TIME}, {"type": "PodScheduled", "status": "True"}]},
            })
        })
    })
    .collect()
}

/// What Kubernetes does by itself, one move at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Times grow one age older.
    TimePasses,
    /// The canary has the pods it is asked for, all ready.
    CanarySettles,
    /// None of the canary's pods is ready.
    CanaryPodsLost,
    /// The target begins to roll: one pod of each version.
    RollBegins,
    /// It has rolled, or what is paused settled.
    RollEnds,
    /// The rollout passes its deadline.
    RollStuck,
}

pub const NATURE: [Nature; 6] = [
    Nature::TimePasses,
    Nature::CanarySettles,
    Nature::CanaryPodsLost,
    Nature::RollBegins,
    Nature::RollEnds,
    Nature::RollStuck,
];

/// The objects after a move of Kubernetes; unchanged where there is nothing for it to do.
pub fn nature(store: &mut Store, objects: &Objects, what: Nature) -> Objects {
    let mut next = *objects;
    let [release, target, canary, .., sets] = objects.map(|id| store.get(id));
    match what {
        Nature::TimePasses => next[Slot::Release as usize] = store.id(aged(&release)),
        Nature::CanarySettles | Nature::CanaryPodsLost if !canary.is_null() => {
            let wanted = object::integer(&canary, "/spec/replicas", 0);
            let ready = if what == Nature::CanarySettles { wanted } else { 0 };
            let (mut canary, mut sets) = ((*canary).clone(), (*sets).clone());
            scaled(&mut sets, "canary", &canary, wanted, ready);
            if ready < wanted && canary["status"].is_null() {
                return next;
            }
            deployed(&mut canary, wanted, wanted, ready, "NewReplicaSetAvailable");
            next[Slot::Canary as usize] = store.id(canary);
            next[Slot::Sets as usize] = store.id(sets);
        }
        Nature::RollBegins | Nature::RollEnds | Nature::RollStuck => {
            let paused = object::truth(&target, "/spec/paused");
            let (mut target, mut sets) = ((*target).clone(), (*sets).clone());
            let name = format!("web-v{}", version(&target["spec"]["template"]));
            let settled = sets
                .as_array()
                .unwrap()
                .iter()
                .any(|set| object::name(set) == name && object::integer(set, "/spec/replicas", 0) == 2);
            match what {
                _ if paused => return next,
                Nature::RollEnds => {
                    scaled(&mut sets, "web", &target, 2, 2);
                    deployed(&mut target, 2, 2, 2, "NewReplicaSetAvailable");
                }
                _ if settled => return next,
                Nature::RollBegins => {
                    let before = active(&sets).filter(|own| *own != name);
                    scaled(&mut sets, "web", &target, 1, 1);
                    if let Some(before) = before {
                        resize(&mut sets, &before, 1);
                    }
                    deployed(&mut target, 2, 1, 2, "ReplicaSetUpdated");
                }
                _ => {
                    target["status"]["conditions"] =
                        json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
                }
            }
            next[Slot::Target as usize] = store.id(target);
            next[Slot::Sets as usize] = store.id(sets);
        }
        _ => {}
    }
    next
}

/// The target's ReplicaSet with most pods.
fn active(sets: &Value) -> Option<String> {
    let own = sets.as_array().unwrap().iter().filter(|set| object::controlled_by(set, "uid-target"));
    own.filter(|set| object::integer(set, "/spec/replicas", 0) > 0)
        .max_by_key(|set| object::integer(set, "/spec/replicas", 0))
        .map(|set| object::name(set).to_owned())
}

fn resize(sets: &mut Value, name: &str, pods: i64) {
    let own = sets.as_array_mut().unwrap().iter_mut().find(|set| object::name(set) == name).unwrap();
    own["spec"]["replicas"] = json!(pods);
    own["status"] = json!({"replicas": pods, "readyReplicas": pods, "availableReplicas": pods});
}

/// The Deployment's ReplicaSet has so many pods, its others none.
fn scaled(sets: &mut Value, prefix: &str, deployment: &Value, wanted: i64, ready: i64) {
    let (owner, template) = (object::uid(deployment), &deployment["spec"]["template"]);
    let name = format!("{prefix}-v{}", version(template));
    let list = sets.as_array_mut().unwrap();
    if !list.iter().any(|own| object::name(own) == name) {
        let mut own = set(&name, owner, &template::for_deployment(template), 0, 0);
        own["metadata"]["annotations"] = deployment["metadata"]["annotations"].clone();
        list.push(own);
        list.sort_by_key(|own| object::name(own).to_owned());
    }
    for own in list.iter_mut().filter(|own| object::controlled_by(own, owner)) {
        let (pods, ready) = if object::name(own) == name { (wanted, ready) } else { (0, 0) };
        own["spec"]["replicas"] = json!(pods);
        own["status"] = json!({"replicas": pods, "readyReplicas": ready, "availableReplicas": ready});
    }
}

/// What a person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Writes a version's template to the target.
    Push(u8),
    Abort,
    Pause,
    Resume,
    Promote,
    Retry,
    /// Applies the route as it was written first, where no policy keeps the split.
    ResetRoute,
}

pub const EDITS: [Edit; 9] = [
    Edit::Push(1),
    Edit::Push(2),
    Edit::Push(3),
    Edit::Abort,
    Edit::Pause,
    Edit::Resume,
    Edit::Promote,
    Edit::Retry,
    Edit::ResetRoute,
];

/// The objects after an edit and its admission; `None` where it is refused or changes nothing.
pub fn edit(store: &mut Store, objects: &Objects, what: Edit) -> Option<Objects> {
    let mut next = *objects;
    let verb = match what {
        Edit::Push(version) => {
            let mut target = (*store.get(objects[Slot::Target as usize])).clone();
            let wanted = pod_template(version);
            let held = object::label(&target, names::LABEL_RELEASE).is_some();
            let rolling = object::annotation(&target, names::ANNOTATION_ROLLING).is_some();
            if target["spec"]["template"] == wanted || rolling || !held {
                return None;
            }
            target["spec"]["template"] = wanted;
            target["spec"]["paused"] = json!(true);
            target["metadata"]["annotations"][names::ANNOTATION_CHANGED_BY] = json!("jane");
            next[Slot::Target as usize] = store.id(target);
            return Some(next);
        }
        Edit::ResetRoute => {
            let mut route = (*store.get(objects[Slot::Route as usize])).clone();
            let entries = route["spec"]["rules"][0]["backendRefs"].as_array_mut().unwrap();
            entries.truncate(1);
            entries[0]["weight"] = json!(1);
            next[Slot::Route as usize] = store.id(route);
            return (next != *objects).then_some(next);
        }
        Edit::Abort => "abort",
        Edit::Pause => "pause",
        Edit::Resume => "resume",
        Edit::Promote => "promote",
        Edit::Retry => "retry",
    };
    let mut release = (*store.get(objects[Slot::Release as usize])).clone();
    let id = object::text(&release, "/status/current/id").to_owned();
    let pending = object::annotation(&release, names::ANNOTATION_COMMAND).is_some();
    if id.is_empty() || (pending && what != Edit::Abort) {
        return None;
    }
    release["metadata"]["annotations"] =
        json!({names::ANNOTATION_COMMAND: format!("{verb} {id}"), names::ANNOTATION_COMMAND_BY: "jane"});
    next[Slot::Release as usize] = store.id(release);
    (next != *objects).then_some(next)
}

/// Makes one write of the operator; `None` where it conflicts.
pub fn write(store: &mut Store, objects: &Objects, effect: &Effect) -> Option<Objects> {
    let slot = slot(effect);
    let before = store.get(objects[slot as usize]);
    let after = match (slot, effect) {
        (Slot::Records, Effect::Create { object: created, .. }) => {
            let mut list = (*before).clone();
            let mut created = created.clone();
            created["metadata"]["uid"] = json!(format!("uid-{}", object::name(&created)));
            list.as_array_mut().unwrap().push(created);
            list.as_array_mut().unwrap().sort_by_key(|own| object::name(own).to_owned());
            list
        }
        (Slot::Records, Effect::Delete { name, .. }) => {
            let mut list = (*before).clone();
            list.as_array_mut().unwrap().retain(|own| object::name(own) != name);
            list
        }
        (Slot::Sets, Effect::Patch { name, patch, .. }) => {
            let mut list = (*before).clone();
            let own = list.as_array_mut().unwrap().iter_mut().find(|own| object::name(own) == name)?;
            *own = patched(own, patch)?;
            list
        }
        (_, Effect::Create { object: created, .. }) => {
            if !before.is_null() {
                return None;
            }
            let mut created = created.clone();
            for (key, value) in meta(object::name(&created), "uid-web-canary").as_object().unwrap() {
                created["metadata"][key] = value.clone();
            }
            if slot == Slot::Canary {
                created["metadata"]["generation"] = json!(2);
            }
            created
        }
        (_, Effect::Patch { patch, .. }) => {
            let mut after = patched(&before, patch)?;
            if matches!(slot, Slot::Target | Slot::Canary) && after["spec"] != before["spec"] {
                after["metadata"]["generation"] = json!(2);
            }
            after
        }
        (_, Effect::Delete { .. }) => Value::Null,
    };
    let mut next = *objects;
    next[slot as usize] = store.id(after);
    Some(next)
}

/// The object that a write is to.
pub fn slot(effect: &Effect) -> Slot {
    use canary_core::Kind;
    match (effect.kind(), effect.name()) {
        (Kind::CanaryRelease, _) => Slot::Release,
        (Kind::Deployment, "web") => Slot::Target,
        (Kind::Deployment, _) => Slot::Canary,
        (Kind::Service, _) => Slot::Service,
        (Kind::HttpRoute, _) => Slot::Route,
        (Kind::ControllerRevision, _) => Slot::Records,
        (Kind::ReplicaSet, _) => Slot::Sets,
        (kind, name) => panic!("the model has no {kind:?} {name}"),
    }
}

fn patched(before: &Value, operations: &Value) -> Option<Value> {
    let operations: json_patch::Patch = serde_json::from_value(operations.clone()).unwrap();
    let mut after = before.clone();
    json_patch::patch(&mut after, &operations).ok()?;
    for key in [names::ANNOTATION_BREACHED, names::ANNOTATION_REJECTED] {
        if let Some(text) = after.pointer_mut(&format!("/metadata/annotations/{}", object::escape(key))) {
            let kept = if key == names::ANNOTATION_BREACHED { 1 } else { 2 };
            let parts: Vec<&str> = text.as_str().unwrap().split(": ").collect();
            if parts.len() > kept {
                *text = json!([&parts[..kept], &["words"]].concat().join(": "));
            }
        }
    }
    for field in ["labels", "annotations"] {
        if after["metadata"][field].as_object().is_some_and(serde_json::Map::is_empty) {
            after["metadata"].as_object_mut().unwrap().remove(field);
        }
    }
    Some(after)
}

/// A status whose times have one of three ages, without what nothing is decided by.
pub fn canonical(status: &Value) -> Value {
    let mut status = status.clone();
    for field in ["message", "summary", "gates", "history", "stage"] {
        status.as_object_mut().unwrap().remove(field);
    }
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["message"] = json!("");
        condition["lastTransitionTime"] = json!(SOME_TIME);
    }
    for path in ["/current/started", "/current/revert/at", "/current/revert/clearAt", "/lastCommand/at"] {
        if let Some(time) = status.pointer_mut(path) {
            *time = json!(SOME_TIME);
        }
    }
    let step = object::text(&status, "/current/step").to_owned();
    // Where nothing rests on how long a step has lasted, and on when its window began.
    let timeless = matches!(step.as_str(), "Roll" | "Revert" | "RevertTarget" | "Done");
    let cleared = [("stepSince", timeless), ("windowSince", step != "Shift"), ("paused/since", true)];
    for (path, _) in cleared.iter().filter(|(_, cleared)| *cleared) {
        if let Some(time) = status.pointer_mut(&format!("/current/{path}")) {
            *time = json!(SOME_TIME);
        }
    }
    // Of what reverts or stops a release only its kind counts.
    for path in ["/current/revert/message", "/current/revert/stage", "/current/paused/by"] {
        if let Some(text) = status.pointer_mut(path) {
            *text = json!("words");
        }
    }
    if let Some(current) = status.get_mut("current").and_then(Value::as_object_mut) {
        let forward = matches!(step.as_str(), "Scale" | "Shift" | "Bake");
        let of_stage = ["extendedSince", "flaps", "shortSince"].into_iter().filter(|_| !forward);
        for field in ["counts", "observedShare", "baseline", "blind"].into_iter().chain(of_stage) {
            current.remove(field);
        }
    }
    status
}

/// The CanaryRelease with the times of its status one age older.
fn aged(release: &Value) -> Value {
    let mut release = release.clone();
    let now: Timestamp = NOW.parse().unwrap();
    for path in ["stepSince", "extendedSince", "windowSince", "shortSince", "paused/since"] {
        let Some(time) = release.pointer_mut(&format!("/status/current/{path}")) else { continue };
        let Some(since) = time.as_str().and_then(|text| text.parse::<Timestamp>().ok()) else { continue };
        let age = now.duration_since(since).as_secs();
        // What is as old as it gets, or of no age, stays.
        let Some(older) = AGES.into_iter().find(|older| *older > age) else { continue };
        *time = json!((now - SignedDuration::from_secs(older)).to_string());
    }
    release
}
