//! One row's own objects and the few things rows do with them. Objects are made by an administrator in the state
//! that a row starts from; policies do not look at a create.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kubectl::Answer;
use crate::world::{FLUX, OPERATOR, World};

/// What a check ends in; the text says what was seen.
pub(crate) type Check = Result<(), String>;

/// One row at work.
pub(crate) struct Case<'a> {
    world: &'a World,
    pub(crate) name: String,
}

/// How a Deployment stands when the row begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Not ours.
    Plain,
    /// Labelled by the operator, serving version 1.
    Armed,
    /// Version 2 was pushed and is held.
    Held,
    /// Version 2 is proven and the operator rolls it.
    Rolling,
}

/// The value at a JSON pointer, null where there is none.
pub(crate) fn at<'v>(object: &'v Value, pointer: &str) -> &'v Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

/// The value of one of our annotations.
pub(crate) fn note<'v>(object: &'v Value, key: &str) -> Option<&'v str> {
    at(object, "/metadata/annotations").get(format!("canaryrelease.dev/{key}"))?.as_str()
}

/// That `seen` is what it must be.
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, must: T) -> Check {
    if seen == must { Ok(()) } else { Err(format!("{what} is {seen:?}, must be {must:?}")) }
}

/// The check once it holds: rights just given and policies just deleted are in force when the API server's own
/// watches have seen them.
pub(crate) fn eventually(check: impl Fn() -> Check) -> Check {
    let started = Instant::now();
    loop {
        match check() {
            Err(_) if started.elapsed() < Duration::from_secs(30) => std::thread::sleep(Duration::from_millis(100)),
            outcome => return outcome,
        }
    }
}

/// That the Deployment is paused and stamped with `user`.
pub(crate) fn held_for(object: &Value, user: &str) -> Check {
    expect("spec.paused", at(object, "/spec/paused"), &json!(true))?;
    expect("changed-by", note(object, "changed-by"), Some(user))
}

/// That the Deployment is not paused.
pub(crate) fn not_paused(object: &Value) -> Check {
    match at(object, "/spec/paused") {
        Value::Null | Value::Bool(false) => Ok(()),
        other => Err(format!("spec.paused is {other}")),
    }
}

impl<'a> Case<'a> {
    pub(crate) fn new(world: &'a World, number: usize) -> Self {
        Self::named(world, format!("row-{number}"))
    }

    pub(crate) fn named(world: &'a World, name: String) -> Self {
        Self { world, name }
    }

    pub(crate) fn world(&self) -> &World {
        self.world
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.world.namespace
    }

    // ---- speaking to the cluster

    /// `kubectl -n <namespace> <args>` as `user`.
    pub(crate) fn kubectl(&self, user: &str, args: &[&str]) -> Answer {
        self.kubectl_with(user, args, None)
    }

    /// The same with standard input.
    pub(crate) fn kubectl_with(&self, user: &str, args: &[&str], input: Option<&str>) -> Answer {
        let mut all = vec!["-n", self.namespace()];
        all.extend_from_slice(args);
        self.world.kubectl.call(user, &all, input, None)
    }

    /// `kubectl edit` where the editor is a sed expression.
    pub(crate) fn edit(&self, user: &str, kind: &str, sed: &str) -> Answer {
        let editor = format!("sed -i -e '{sed}'");
        let args = ["-n", self.namespace(), "edit", kind, &self.name];
        self.world.kubectl.call(user, &args, None, Some(&editor))
    }

    /// `kubectl patch` of type `merge` or `json`, by the field manager of kubectl itself.
    pub(crate) fn patch(&self, user: &str, kind: &str, how: &str, patch: &Value) -> Answer {
        self.patch_by(user, "kubectl-patch", kind, how, patch, &[])
    }

    /// A patch by another field manager, and with further arguments.
    pub(crate) fn patch_by(
        &self,
        user: &str,
        manager: &str,
        kind: &str,
        how: &str,
        patch: &Value,
        more: &[&str],
    ) -> Answer {
        let (how, manager, patch) = (format!("--type={how}"), format!("--field-manager={manager}"), patch.to_string());
        let mut args = vec!["patch", kind, &self.name, &how, &manager, "-p", &patch, "-o", "json"];
        args.extend_from_slice(more);
        self.kubectl(user, &args)
    }

    /// Server-side apply, forced, as a tool that syncs from Git does it.
    pub(crate) fn sync(&self, user: &str, object: &Value) -> Answer {
        let args = ["apply", "--server-side", "--force-conflicts", "--field-manager=sync", "-f", "-", "-o", "json"];
        self.kubectl_with(user, &args, Some(&object.to_string()))
    }

    /// Client-side apply.
    pub(crate) fn apply(&self, user: &str, object: &Value) -> Answer {
        self.kubectl_with(user, &["apply", "-f", "-", "-o", "json"], Some(&object.to_string()))
    }

    /// A full replace by a tool, made again where a controller's write of the status came between.
    pub(crate) fn replace(&self, user: &str, object: &Value) -> Answer {
        loop {
            let answer = self.kubectl_with(user, &["replace", "-f", "-", "-o", "json"], Some(&object.to_string()));
            if !answer.err.contains("the object has been modified") {
                return answer;
            }
        }
    }

    pub(crate) fn annotate(&self, user: &str, kind: &str, what: &[&str]) -> Answer {
        let mut args = vec!["annotate", kind, &self.name, "--overwrite", "-o", "json"];
        args.extend_from_slice(what);
        self.kubectl(user, &args)
    }

    /// The object as it stands.
    pub(crate) fn now(&self, kind: &str) -> Result<Value, String> {
        self.kubectl("", &["get", kind, &self.name, "-o", "json"]).object()
    }

    pub(crate) fn create(&self, object: &Value) -> Result<Value, String> {
        self.kubectl_with("", &["create", "-f", "-", "-o", "json"], Some(&object.to_string())).object()
    }

    // ---- Deployments

    /// The manifest of the Deployment as Git holds it.
    pub(crate) fn manifest(&self, version: u32) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": self.namespace()},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": self.name}},
                "template": {"metadata": {"labels": {"app": self.name}},
                    "spec": {"containers": [{"name": "app", "image": format!("shop:{version}")}]}}}})
    }

    /// Makes the row's Deployment and returns it.
    pub(crate) fn target(&self, state: Target) -> Result<Value, String> {
        let mut object = self.manifest(if state == Target::Plain || state == Target::Armed { 1 } else { 2 });
        if state != Target::Plain {
            merge(
                &mut object,
                &json!({"metadata": {"labels": {"canaryrelease.dev/release": self.name},
                "annotations": {"canaryrelease.dev/uid": "uid-1"}}}),
            );
        }
        match state {
            Target::Plain | Target::Armed => {}
            Target::Held => merge(
                &mut object,
                &json!({"metadata": {"annotations": {"canaryrelease.dev/changed-by": "git"}},
                "spec": {"paused": true}}),
            ),
            Target::Rolling => merge(
                &mut object,
                &json!({"metadata": {"annotations": {
                "canaryrelease.dev/changed-by": "git", "canaryrelease.dev/rolling": format!("{}-3", self.name)}}}),
            ),
        }
        self.create(&object)
    }

    /// A merge patch that pushes a version.
    pub(crate) fn push(&self, version: u32) -> Value {
        json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": format!("shop:{version}")}]}}}})
    }

    /// What the operator does when it takes a Deployment: server-side apply of label and uid, guarded by the uid.
    pub(crate) fn arm(&self, deployment: &Value) -> Answer {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": self.namespace(), "uid": at(deployment, "/metadata/uid"),
                "labels": {"canaryrelease.dev/release": self.name}, "annotations": {"canaryrelease.dev/uid": "uid-1"}}});
        let args = ["apply", "--server-side", "--field-manager=canaryrelease-operator", "-f", "-", "-o", "json"];
        self.kubectl_with(OPERATOR, &args, Some(&object.to_string()))
    }

    // ---- routes

    /// The manifest of the route as Git holds it: plain, one backend in each rule.
    pub(crate) fn plain_route(&self) -> Value {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": self.name, "namespace": self.namespace()},
            "spec": {"parentRefs": [{"name": "gateway"}], "hostnames": ["shop.example"], "rules": [
                {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": [{"name": "web", "port": 80}]},
                {"matches": [{"path": {"type": "PathPrefix", "value": "/static"}}], "backendRefs": [{"name": "files", "port": 80}]}]}})
    }

    /// Makes the row's route, applied from Git and then split by the operator; returns it.
    pub(crate) fn split_route(&self, stable: u32, canary: u32) -> Result<Value, String> {
        self.sync(FLUX, &self.plain_route()).accepted()?;
        self.split(stable, canary)
    }

    /// The operator's own write of the split: label, annotations and weights in one JSON patch.
    pub(crate) fn split(&self, stable: u32, canary: u32) -> Result<Value, String> {
        let patch = json!([
            {"op": "test", "path": "/spec/rules/0/backendRefs/0/name", "value": "web"},
            {"op": "add", "path": "/metadata/labels", "value": {"canaryrelease.dev/release": self.name}},
            {"op": "add", "path": "/metadata/annotations", "value": {"canaryrelease.dev/uid": "uid-1",
                "canaryrelease.dev/split": "web/web-canary", "canaryrelease.dev/weights-before": "[1]"}},
            {"op": "add", "path": "/spec/rules/0/backendRefs/0/weight", "value": stable},
            {"op": "add", "path": "/spec/rules/0/backendRefs/-",
                "value": {"group": "", "kind": "Service", "name": "web-canary", "port": 80, "weight": canary}}]);
        self.patch_by(OPERATOR, "canaryrelease-operator", "httproute", "json", &patch, &[]).object()
    }

    /// As [`Case::split_route`], with baseline pods: their Service has as much as the canary's.
    pub(crate) fn split_in_three(&self, stable: u32, each: u32) -> Result<Value, String> {
        self.split_route(stable.saturating_add(each), each)?;
        let patch = json!([
            {"op": "test", "path": "/spec/rules/0/backendRefs/0/name", "value": "web"},
            {"op": "add", "path": "/metadata/annotations/canaryrelease.dev~1split", "value": "web/web-canary/web-baseline"},
            {"op": "add", "path": "/spec/rules/0/backendRefs/0/weight", "value": stable},
            {"op": "add", "path": "/spec/rules/0/backendRefs/-",
                "value": {"group": "", "kind": "Service", "name": "web-baseline", "port": 80, "weight": each}}]);
        self.patch_by(OPERATOR, "canaryrelease-operator", "httproute", "json", &patch, &[]).object()
    }

    // ---- CanaryReleases

    /// The manifest of a CanaryRelease.
    pub(crate) fn canary_release(&self) -> Value {
        json!({"apiVersion": "canaryrelease.dev/v1alpha1", "kind": "CanaryRelease",
            "metadata": {"name": self.name, "namespace": self.namespace()},
            "spec": {"target": {"name": self.name},
                "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": self.name}],
                    "requests": {"counter": "http_requests_total"}},
                "interval": "10s",
                "stages": [{"weight": "10%", "duration": "1m"}, {"weight": "100%", "duration": "1m"}],
                "gates": [{"name": "errors", "errorRate": {"bad": "http_requests_total{code=~\"5..\"}",
                    "total": "http_requests_total", "limit": "1%"}}]}})
    }

    /// Makes the row's CanaryRelease.
    pub(crate) fn release(&self) -> Result<Value, String> {
        self.create(&self.canary_release())
    }

    /// A write of its status.
    pub(crate) fn status_by(&self, user: &str, status: &Value, more: &[&str]) -> Answer {
        let mut object = self.now("canaryrelease").unwrap_or_default();
        merge(&mut object, &json!({"status": status}));
        let mut args = vec!["replace", "--subresource=status", "-f", "-", "-o", "json"];
        args.extend_from_slice(more);
        self.kubectl_with(user, &args, Some(&object.to_string()))
    }

    /// Gives it a command as a person does.
    pub(crate) fn command(&self, user: &str, command: &str) -> Answer {
        self.annotate(user, "canaryrelease", &[&format!("canaryrelease.dev/command={command}")])
    }
}

/// Lays `over` over `object`; null removes.
pub(crate) fn merge(object: &mut Value, over: &Value) {
    let (Value::Object(base), Value::Object(fields)) = (&mut *object, over) else {
        *object = over.clone();
        return;
    };
    for (key, value) in fields {
        if value.is_null() {
            base.remove(key);
        } else {
            merge(base.entry(key.clone()).or_insert_with(|| json!({})), value);
        }
    }
}
