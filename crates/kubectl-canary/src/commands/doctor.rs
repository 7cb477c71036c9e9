//! `doctor`: whether what releases need is there, and how to mend what is not. It reads, and asks what the caller may do;
//! it changes nothing. What may not be read is unknown, never taken for good.

use std::collections::BTreeSet;

use canary_api::CanaryReleaseSpec;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;

use crate::cluster::{Cluster, Look};
use crate::output::{Output, Paint, Tone};
use crate::release::Release;
use crate::table::Table;
use crate::{Error, Exit, args, clean};

/// The first version with MutatingAdmissionPolicy v1.
const LEAST_MINOR: u32 = 36;
/// The policies of `deploy/`; each has a binding of its name.
const MUTATING: [&str; 4] =
    ["canaryrelease-hold", "canaryrelease-override", "canaryrelease-command", "canaryrelease-route"];
const VALIDATING: [&str; 7] = [
    "canaryrelease-guard",
    "canaryrelease-command-check",
    "canaryrelease-job",
    "canaryrelease-record",
    "canaryrelease-route-warning",
    "canaryrelease-status",
    "canaryrelease-writer",
];
/// The operator's rights as this version has them.
const RIGHTS: &str = include_str!("../../../../deploy/10-rbac.yaml");
const RBAC: &str = "rbac.authorization.k8s.io/v1";
const ADMISSION: &str = "admissionregistration.k8s.io/v1";
const OPERATOR: &str = "canaryrelease-operator";

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum State {
    /// As it should be.
    Good,
    /// It works, and should be looked at.
    Doubt,
    /// It does not work.
    Bad,
    /// It could not be looked at.
    Unknown,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub state: State,
    /// In words.
    pub what: String,
    /// What to do; empty where it is good.
    pub mend: String,
}

impl Finding {
    fn new(check: &str, state: State, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check: check.to_owned(), state, what: clean::text(&what.into()), mend: clean::text(&mend.into()) }
    }

    fn good(check: &str, what: impl Into<String>) -> Self {
        Self::new(check, State::Good, what, "")
    }
}

/// Runs `doctor`.
///
/// # Errors
/// Where the cluster does not answer at all, or the CanaryRelease is not there.
pub async fn run(what: &args::Doctor, cluster: &Cluster, output: &Output) -> Result<Exit, Error> {
    let mut found = vec![server(&cluster.server_version().await?)];
    found.extend(installation(cluster, &what.operator_namespace).await);
    found.extend(rights(cluster).await);
    if let Some(name) = &what.name {
        let release = cluster.release(name).await?;
        found.extend(of_release(cluster, &what.operator_namespace, &release).await);
    }
    let bad = found.iter().any(|one| one.state == State::Bad);
    output.answer(&found, |paint| render(&found, paint))?;
    Ok(if bad { Exit::Wrong } else { Exit::Done })
}

fn server((major, minor): &(String, String)) -> Finding {
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().ok();
    let version = format!("Kubernetes {major}.{minor}");
    match (number(major), number(minor)) {
        (Some(1), Some(minor)) if minor >= LEAST_MINOR => Finding::good("server", version),
        (Some(major), Some(_)) if major > 1 => Finding::good("server", version),
        (Some(_), Some(_)) => {
            let mend = format!("use 1.{LEAST_MINOR} or later: before, every CanaryRelease says HoldNotInstalled");
            Finding::new("server", State::Bad, format!("{version} has no MutatingAdmissionPolicy v1"), mend)
        }
        _ => Finding::new("server", State::Unknown, version, "see kubectl version"),
    }
}

/// What came of a look, as a finding: `judge` says it where the object is there.
fn looked(check: &str, look: Look, missing: &str, mend: &str, judge: impl FnOnce(&Value) -> Finding) -> Finding {
    match look {
        Look::There(object) => judge(&object),
        Look::Missing => Finding::new(check, State::Bad, missing, mend),
        Look::NoKind(kind) => Finding::new(
            check,
            State::Bad,
            format!("the cluster knows no {kind}"),
            "install the definition of that resource",
        ),
        Look::Unknown(why) => Finding::new(check, State::Unknown, why, ""),
    }
}

async fn installation(cluster: &Cluster, namespace: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for plural in ["canaryreleases", "releaserecords"] {
        let name = format!("{plural}.canaryrelease.dev");
        let look = cluster.look("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, &name).await;
        let mend = "kubectl apply --server-side -f crds/";
        found.push(looked("resources", look, &format!("{name} is not installed"), mend, |object| {
            if condition(object, "Established").is_some_and(|(status, _)| status == "True") {
                Finding::good("resources", format!("{name} is installed"))
            } else {
                Finding::new(
                    "resources",
                    State::Bad,
                    format!("{name} is not established"),
                    format!("kubectl describe crd {name}"),
                )
            }
        }));
    }
    found.push(policies(cluster).await);
    let look = cluster.look(RBAC, "ClusterRole", None, OPERATOR).await;
    let mend = "kubectl apply -f deploy/10-rbac.yaml";
    found.push(looked("operator", look, &format!("ClusterRole {OPERATOR} is not there"), mend, role));
    let look = cluster.look(RBAC, "ClusterRoleBinding", None, OPERATOR).await;
    found.push(looked("operator", look, &format!("ClusterRoleBinding {OPERATOR} is not there"), mend, |object| {
        binding(object, namespace)
    }));
    let look = cluster.look("apps/v1", "Deployment", Some(namespace), OPERATOR).await;
    let mend = format!("kubectl apply -f deploy/; or say where it is by --operator-namespace (looked in {namespace})");
    found.push(looked("operator", look, "the operator is not there", &mend, |object| operator(object, namespace)));
    found
}

async fn policies(cluster: &Cluster) -> Finding {
    let kinds: [(&str, &[&str]); 4] = [
        ("MutatingAdmissionPolicy", &MUTATING),
        ("MutatingAdmissionPolicyBinding", &MUTATING),
        ("ValidatingAdmissionPolicy", &VALIDATING),
        ("ValidatingAdmissionPolicyBinding", &VALIDATING),
    ];
    let mut missing = Vec::new();
    for (kind, names) in kinds {
        for name in names {
            match cluster.look(ADMISSION, kind, None, name).await {
                Look::There(_) => {}
                Look::Missing | Look::NoKind(_) => missing.push(format!("{kind} {name}")),
                Look::Unknown(why) => {
                    let mend = "ask who may read admission policies, or give doctor NAME: the CanaryRelease says whether it holds";
                    return Finding::new("policies", State::Unknown, why, mend);
                }
            }
        }
    }
    if missing.is_empty() {
        Finding::good("policies", "the admission policies and their bindings are there")
    } else {
        Finding::new("policies", State::Bad, format!("missing: {}", missing.join(", ")), "kubectl apply -f deploy/")
    }
}

/// Whether the operator's role grants all that this version's does.
fn role(object: &Value) -> Finding {
    let granted = rights_of(object);
    let lacks: Vec<String> = wanted()
        .into_iter()
        .filter(|right| !granted.contains(right))
        .map(
            |[group, resource, verb]| {
                if group.is_empty() { format!("{verb} {resource}") } else { format!("{verb} {resource}.{group}") }
            },
        )
        .collect();
    if lacks.is_empty() {
        return Finding::good("operator", "its role grants what this version needs");
    }
    let what = format!("ClusterRole {OPERATOR} lacks: {}", lacks.join(", "));
    Finding::new("operator", State::Bad, what, "kubectl apply -f deploy/10-rbac.yaml, of the operator's version")
}

fn binding(object: &Value, namespace: &str) -> Finding {
    let subjects = object.get("subjects").and_then(Value::as_array);
    let text = |subject: &Value, field: &str| {
        subject.get(field).and_then(Value::as_str)
            == Some(match field {
                "namespace" => namespace,
                _ => OPERATOR,
            })
    };
    if subjects.into_iter().flatten().any(|subject| text(subject, "name") && text(subject, "namespace")) {
        return Finding::good("operator", "its role is bound to it");
    }
    let what = format!("ClusterRoleBinding {OPERATOR} does not name the ServiceAccount {namespace}/{OPERATOR}");
    Finding::new("operator", State::Bad, what, "kubectl apply -f deploy/10-rbac.yaml")
}

/// Group, resource and verb of each right that this version's manifests give the operator in every namespace.
fn wanted() -> BTreeSet<[String; 3]> {
    let documents =
        serde_norway::Deserializer::from_str(RIGHTS).filter_map(|document| Value::deserialize(document).ok());
    let own = |object: &Value| {
        object.get("kind").and_then(Value::as_str) == Some("ClusterRole")
            && object.pointer("/metadata/name").and_then(Value::as_str) == Some(OPERATOR)
    };
    documents.filter(own).flat_map(|object| rights_of(&object)).collect()
}

fn rights_of(role: &Value) -> BTreeSet<[String; 3]> {
    let words = |rule: &Value, field: &str| -> Vec<String> {
        let all = rule.get(field).and_then(Value::as_array);
        all.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role.get("rules").and_then(Value::as_array).into_iter().flatten() {
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                let verbs = words(rule, "verbs").into_iter();
                rights.extend(verbs.map(|verb| [group.clone(), resource.clone(), verb]));
            }
        }
    }
    rights
}

fn operator(object: &Value, namespace: &str) -> Finding {
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64);
    let (wanted, there) = (count("/spec/replicas").unwrap_or(1), count("/status/availableReplicas").unwrap_or(0));
    let what = format!("{there} of {wanted} replicas are available");
    let mend = format!(
        "kubectl -n {namespace} describe deployment {OPERATOR}; kubectl -n {namespace} logs deployment/{OPERATOR}"
    );
    match there {
        0 => Finding::new("operator", State::Bad, what, mend),
        some if some < wanted => Finding::new("operator", State::Doubt, what, mend),
        _ => Finding::good("operator", what),
    }
}

/// What the caller may do here, and the role that allows it.
async fn rights(cluster: &Cluster) -> Vec<Finding> {
    let asked: [(&str, &str, &[&str], &str); 4] = [
        ("look", "canaryreleases", &["get", "list", "watch"], "ClusterRole canaryrelease-viewer"),
        (
            "give commands",
            "canaryreleases",
            &["patch", "abort", "pause", "resume", "approve", "promote", "retry"],
            "ClusterRole canaryrelease-releaser",
        ),
        ("read records", "releaserecords", &["get", "list"], "ClusterRole canaryrelease-viewer"),
        ("fill in records", "releaserecords", &["update", "patch"], "ClusterRole canaryrelease-record-editor"),
    ];
    let mut found = Vec::new();
    for (to, resource, verbs, role) in asked {
        let mut refused = Vec::new();
        let mut failed = None;
        for verb in verbs {
            match cluster.may(verb, resource).await {
                Ok(true) => {}
                Ok(false) => refused.push(*verb),
                Err(why) => failed = Some(why),
            }
        }
        let place = &cluster.namespace;
        found.push(match failed {
            Some(why) => Finding::new("rights", State::Unknown, why, ""),
            None if refused.is_empty() => Finding::good("rights", format!("you may {to} in {place}")),
            None => {
                let what = format!("you may not {to} in {place}: {} {resource}", refused.join(", "));
                Finding::new("rights", State::Doubt, what, format!("ask for {role}, where you need it"))
            }
        });
    }
    found
}

/// Status and message of a condition.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str)> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    let one = all.iter().find(|one| one.get("type").and_then(Value::as_str) == Some(kind))?;
    let text = |name: &str| one.get(name).and_then(Value::as_str).unwrap_or_default();
    Some((text("status"), text("message")))
}

async fn of_release(cluster: &Cluster, operator_namespace: &str, release: &Release) -> Vec<Finding> {
    let mut found = vec![hold(release)];
    let Some(spec) = &release.spec else {
        let mend = "use the plugin of the operator's version, or kubectl describe";
        found.push(Finding::new(
            "spec",
            State::Unknown,
            "this version of the plugin does not understand the spec",
            mend,
        ));
        return found;
    };
    let place = Some(release.namespace.as_str());
    let look = cluster.look("apps/v1", "Deployment", place, &spec.target.name).await;
    let missing = format!("Deployment {} is not there", spec.target.name);
    found.push(looked("target", look, &missing, "create it, or mend spec.target.name", |object| target(object, spec)));
    let look = cluster.look("v1", "Service", place, &spec.traffic.service).await;
    let missing = format!("Service {} is not there", spec.traffic.service);
    found.push(looked("service", look, &missing, "create it, or mend spec.traffic.service", |object| {
        service(object, spec)
    }));
    for one in &spec.traffic.routes {
        let look = cluster.look("gateway.networking.k8s.io/v1", "HTTPRoute", place, &one.name).await;
        let missing = format!("HTTPRoute {} is not there", one.name);
        found.push(looked("route", look, &missing, "create it, or mend spec.traffic.routes", |object| {
            route(object, &one.name)
        }));
    }
    for job in &spec.jobs {
        let look = cluster.look("batch/v1", "CronJob", place, &job.cron_job).await;
        let missing = format!("CronJob {} of job {} is not there", job.cron_job, job.name);
        found.push(looked(
            "job",
            look,
            &missing,
            "create it, or mend spec.jobs: a release pauses where it can't run",
            |_| Finding::good("job", format!("CronJob {} is there", job.cron_job)),
        ));
    }
    found.push(provider(cluster, operator_namespace, &spec.provider).await);
    found.extend(gates(release));
    found
}

/// Whether the target is held: the operator proves it, and says why not.
fn hold(release: &Release) -> Finding {
    let describe = format!("kubectl describe crel {} -n {}", release.name, release.namespace);
    let Ok(status) = release.status() else {
        return Finding::new(
            "hold",
            State::Unknown,
            "this version of the plugin does not understand the status",
            describe,
        );
    };
    if status.observed_generation < 0 {
        return Finding::new(
            "hold",
            State::Bad,
            "no operator has looked at it yet",
            "see the line on the operator; it looks within seconds",
        );
    }
    if status.hold.as_ref().is_some_and(|hold| hold.armed) {
        return Finding::good("hold", format!("a changed template of Deployment {} is held", release.target));
    }
    let why = status.message.clone();
    let why = if why.is_empty() { "the target is not held".to_owned() } else { why };
    Finding::new("hold", State::Bad, why, describe)
}

fn target(object: &Value, spec: &CanaryReleaseSpec) -> Finding {
    let name = &spec.target.name;
    if object.pointer("/spec/revisionHistoryLimit").and_then(Value::as_u64) == Some(0) {
        let what = format!("Deployment {name} keeps no ReplicaSets (revisionHistoryLimit 0)");
        return Finding::new("target", State::Bad, what, "set revisionHistoryLimit to 1 or more");
    }
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let (wanted, there) = (count("/spec/replicas"), count("/status/availableReplicas"));
    let what = format!("Deployment {name}: {there} of {wanted} pods are available");
    if wanted == 0 || there < wanted {
        return Finding::new("target", State::Doubt, what, format!("kubectl describe deployment {name}"));
    }
    Finding::good("target", what)
}

fn service(object: &Value, spec: &CanaryReleaseSpec) -> Finding {
    let name = &spec.traffic.service;
    let selects = object.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|labels| !labels.is_empty());
    if selects {
        Finding::good("service", format!("Service {name} selects pods"))
    } else {
        let mend = "give it a selector: the canary's Service gets one beside it";
        Finding::new("service", State::Bad, format!("Service {name} has no selector"), mend)
    }
}

/// Whether each gateway takes the route, at its present generation.
fn route(object: &Value, name: &str) -> Finding {
    let mend = format!("kubectl describe httproute {name}");
    let empty = Vec::new();
    let parents = object.pointer("/status/parents").and_then(Value::as_array).unwrap_or(&empty);
    if parents.is_empty() {
        return Finding::new("route", State::Bad, format!("no gateway has taken HTTPRoute {name}"), mend);
    }
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    for kind in ["Accepted", "ResolvedRefs"] {
        for parent in parents {
            let all = parent.get("conditions").and_then(Value::as_array).unwrap_or(&empty);
            let one = all.iter().find(|one| one.get("type").and_then(Value::as_str) == Some(kind));
            let text = |field: &str| one.and_then(|one| one.get(field)).and_then(Value::as_str).unwrap_or_default();
            let old = one.and_then(|one| one.get("observedGeneration")).and_then(Value::as_i64) != generation;
            if text("status") != "True" || old {
                let why =
                    if text("message").is_empty() || !old { text("message") } else { "not of its present generation" };
                return Finding::new("route", State::Bad, format!("HTTPRoute {name} is not {kind}: {why}"), mend);
            }
        }
    }
    Finding::good("route", format!("HTTPRoute {name} is accepted by {} gateway(s)", parents.len()))
}

async fn provider(cluster: &Cluster, namespace: &str, wanted: &str) -> Finding {
    let name = if wanted.is_empty() { "default" } else { wanted };
    if name == "pods" {
        return Finding::good("provider", "the pods themselves are asked for metrics");
    }
    match cluster.look("v1", "ConfigMap", Some(namespace), OPERATOR).await {
        Look::There(object) => configured(&object, namespace, name),
        Look::Missing | Look::NoKind(_) => {
            let what = format!("the operator's ConfigMap is not in {namespace}");
            Finding::new("provider", State::Unknown, what, "say where it is by --operator-namespace")
        }
        Look::Unknown(why) => Finding::new("provider", State::Unknown, why, ""),
    }
}

/// Whether the operator's configuration names the provider.
fn configured(object: &Value, namespace: &str, name: &str) -> Finding {
    let text = object.pointer("/data/config.yaml").and_then(Value::as_str).unwrap_or_default();
    let Ok(config) = serde_norway::from_str::<Value>(text) else {
        let what = format!("the operator's configuration in {namespace} is no YAML");
        return Finding::new("provider", State::Bad, what, "deploy/30-config.yaml shows its form");
    };
    let providers = config.get("providers").and_then(Value::as_array);
    let named = providers.into_iter().flatten().find(|one| one.get("name").and_then(Value::as_str) == Some(name));
    match named {
        Some(one) => {
            let url = one.get("url").and_then(Value::as_str).unwrap_or("an address that is not given");
            Finding::good("provider", format!("{name} is {url}; whether it answers shows in the gates of a release"))
        }
        None if name == "default" => {
            Finding::good("provider", "no provider is named default, so the pods themselves are asked for metrics")
        }
        None => {
            let what = format!("the operator knows no provider {name}");
            let mend = "name it in the operator's configuration and restart it, or mend spec.provider";
            Finding::new("provider", State::Bad, what, mend)
        }
    }
}

/// Gates whose data can't be read, where the status shows some.
fn gates(release: &Release) -> Option<Finding> {
    let status = release.status().ok().filter(|status| !status.gates.is_empty())?;
    let broken: Vec<String> = status
        .gates
        .iter()
        .filter(|gate| gate.rests_on.starts_with("error:"))
        .map(|gate| format!("{}: {}", gate.gate, gate.rests_on))
        .collect();
    Some(if broken.is_empty() {
        Finding::good("gates", format!("{} gates could be read", status.gates.len()))
    } else {
        Finding::new(
            "gates",
            State::Bad,
            broken.join("; "),
            "mend the gate's counters or the provider; see docs/gates.md",
        )
    })
}

fn render(found: &[Finding], paint: Paint) -> String {
    let mut table = Table::new(&["CHECK", "STATE", "WHAT"]);
    for one in found {
        let (tone, state) = match one.state {
            State::Good => (Tone::Good, "good"),
            State::Doubt => (Tone::Doubt, "look"),
            State::Bad => (Tone::Bad, "bad"),
            State::Unknown => (Tone::Doubt, "unknown"),
        };
        table.row([(Tone::Plain, one.check.clone()), (tone, state.to_owned()), (Tone::Plain, one.what.clone())]);
        if !one.mend.is_empty() {
            table.row([
                (Tone::Plain, String::new()),
                (Tone::Plain, String::new()),
                (Tone::Quiet, format!("to mend: {}", one.mend)),
            ]);
        }
    }
    table.render("", paint)
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
