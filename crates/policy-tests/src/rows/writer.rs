//! Who writes a CanaryRelease must be allowed to do by hand what it makes the operator do.

use serde_json::{Value, json};

use super::Row;
use crate::case::{Case, at, eventually, expect, merge, note};
use crate::kubectl::Answer;
use crate::world::{ARGO, DORA, JOE, NORA, OPERATOR};

fn create(case: &Case<'_>, user: &str, object: &Value) -> Answer {
    case.kubectl_with(user, &["create", "-f", "-", "-o", "json"], Some(&object.to_string()))
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            promise: "no escalation by a CanaryRelease: the Deployment",
            who: "nora, who may not update Deployments",
            what: "create; an edit of another's spec; apply",
            expected: "refused; the text names the right that lacks",
            check: |case| {
                let words = ["policy-tests:nora may not write CanaryRelease", "verb \"update\" on deployments.apps"];
                create(case, NORA, &case.canary_release()).refused(&words)?;
                case.release()?;
                case.patch(NORA, "canaryrelease", "merge", &json!({"spec": {"interval": "20s"}})).refused(&words)
            },
        },
        Row {
            promise: "no escalation by a CanaryRelease: the routes",
            who: "dora, who may update Deployments and no routes; joe for one route only",
            what: "create with a route; with a second route in the list",
            expected: "refused by name of the route",
            check: |case| {
                let words = [
                    "policy-tests:dora may not write CanaryRelease",
                    "verb \"update\" on httproutes.gateway.networking.k8s.io",
                ];
                create(case, DORA, &case.canary_release()).refused(&words)?;
                let user = format!("{}:{}", case.namespace(), case.name);
                let all = json!(["get", "create", "update", "patch"]);
                let rules = json!([{"apiGroups": ["canaryrelease.dev"], "resources": ["canaryreleases"], "verbs": all},
                    {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": [case.name], "verbs": ["update"]},
                    {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["httproutes"], "resourceNames": [case.name], "verbs": ["update"]}]);
                case.create(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                    "metadata": {"name": case.name, "namespace": case.namespace()}, "rules": rules}))?;
                case.create(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                    "metadata": {"name": case.name, "namespace": case.namespace()},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": case.name},
                    "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]}))?;
                eventually(|| create(case, &user, &case.canary_release()).accepted().map(drop))?;
                let mut two = case.canary_release();
                merge(
                    &mut two,
                    &json!({"metadata": {"name": format!("{}-two", case.name)}, "spec": {"traffic": {"routes": [
                    {"kind": "HTTPRoute", "name": case.name}, {"kind": "HTTPRoute", "name": "pay"}]}}}),
                );
                create(case, &user, &two)
                    .refused(&["it sets the weights of its routes", "httproutes.gateway.networking.k8s.io \"pay\""])?;
                let other = Case::named(case.world(), format!("{}-other", case.name));
                create(&other, &user, &other.canary_release()).refused(&["deployments.apps"])
            },
        },
        Row {
            promise: "no escalation by a CanaryRelease: the jobs",
            who: "a user who gains the rights one by one",
            what: "a spec with a job; the same without jobs",
            expected: "refused by name of the right that lacks, until none does; without jobs never",
            check: |case| {
                let user = format!("{}:{}", case.namespace(), case.name);
                let all = json!(["get", "create", "update", "patch"]);
                let mut rules = vec![
                    json!({"apiGroups": ["canaryrelease.dev"], "resources": ["canaryreleases"], "verbs": all}),
                    json!({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["update"]}),
                    json!({"apiGroups": ["gateway.networking.k8s.io"], "resources": ["httproutes"], "verbs": ["update"]}),
                ];
                let role = |rules: &[Value]| {
                    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                        "metadata": {"name": case.name, "namespace": case.namespace()}, "rules": rules})
                };
                case.create(&role(&rules))?;
                case.create(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                    "metadata": {"name": case.name, "namespace": case.namespace()},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": case.name},
                    "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]}))?;
                eventually(|| create(case, &user, &case.canary_release()).accepted().map(drop))?;
                let mut with = case.canary_release();
                let jobs = json!([{"name": "smoke", "cronJob": "smoke", "at": "Stage"}]);
                merge(&mut with, &json!({"metadata": {"name": format!("{}-jobs", case.name)}, "spec": {"jobs": jobs}}));
                let lacks = [
                    (
                        "verb \"create\" on jobs.batch",
                        json!({"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}),
                    ),
                    (
                        "verb \"get\" on cronjobs.batch \"smoke\"",
                        json!({"apiGroups": ["batch"], "resources": ["cronjobs"], "resourceNames": ["smoke"], "verbs": ["get"]}),
                    ),
                    (
                        "verb \"get\" on pods/log",
                        json!({"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}),
                    ),
                ];
                for (words, rule) in lacks {
                    eventually(|| {
                        create(case, &user, &with)
                            .refused(&["it runs jobs", words])
                            .or_else(|_| create(case, &user, &with).refused(&["may not write CanaryRelease", words]))
                    })?;
                    rules.push(rule);
                    let granted = role(&rules).to_string();
                    case.kubectl_with("", &["apply", "-f", "-"], Some(&granted)).accepted()?;
                }
                eventually(|| create(case, &user, &with).accepted().map(drop))
            },
        },
        Row {
            promise: "who may do it by hand may write it",
            who: "joe, a GitOps tool",
            what: "create, update of the spec, apply",
            expected: "accepted",
            check: |case| {
                create(case, JOE, &case.canary_release()).accepted()?;
                case.patch(JOE, "canaryrelease", "merge", &json!({"spec": {"interval": "20s"}})).accepted()?;
                case.sync(ARGO, &case.canary_release()).accepted().map(drop)
            },
        },
        Row {
            promise: "the longest lists are within what the API server lets a policy ask",
            who: "joe; nora, who lacks every right; a user who lacks that of the last route and of the last CronJob",
            what: "creation with eight routes and ten jobs",
            expected: "accepted; refused by name of the right that lacks, never by the cost of an expression",
            check: |case| {
                let routes: Vec<Value> =
                    (0..8).map(|n| json!({"kind": "HTTPRoute", "name": format!("{}-{n}", case.name)})).collect();
                let jobs: Vec<Value> = (0..10)
                    .map(|n| json!({"name": format!("j{n}"), "cronJob": format!("c{n}"), "at": "Stage"}))
                    .collect();
                let mut most = case.canary_release();
                let spec = json!({"traffic": {"routes": routes}, "jobs": jobs});
                merge(&mut most, &json!({"spec": spec}));
                create(case, NORA, &most).refused(&["verb \"update\" on deployments.apps"])?;
                let user = format!("{}:{}", case.namespace(), case.name);
                let all = json!(["get", "create", "update", "patch"]);
                let first = |many: usize, of: &str| (0..many).map(|n| format!("{of}{n}")).collect::<Vec<_>>();
                let role = |routes: usize, cron_jobs: usize| {
                    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                    "metadata": {"name": case.name, "namespace": case.namespace()}, "rules": [
                        {"apiGroups": ["canaryrelease.dev"], "resources": ["canaryreleases"], "verbs": all},
                        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["update"]},
                        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]},
                        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
                        {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["httproutes"], "verbs": ["update"],
                            "resourceNames": first(routes, &format!("{}-", case.name))},
                        {"apiGroups": ["batch"], "resources": ["cronjobs"], "verbs": ["get"], "resourceNames": first(cron_jobs, "c")},
                    ]})
                };
                case.create(&role(8, 9))?;
                case.create(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                    "metadata": {"name": case.name, "namespace": case.namespace()},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": case.name},
                    "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]}))?;
                eventually(|| create(case, &user, &most).refused(&["verb \"get\" on cronjobs.batch", "\"c9\""]))?;
                let granted = role(7, 10).to_string();
                case.kubectl_with("", &["apply", "-f", "-"], Some(&granted)).accepted()?;
                eventually(|| create(case, &user, &most).refused(&["it sets the weights of its routes", "-7\""]))?;
                create(case, JOE, &most).accepted().map(drop)
            },
        },
        Row {
            promise: "what is no spec needs no more rights",
            who: "nora, the operator",
            what: "annotations and the same spec again; finalizer, status; deletion",
            expected: "accepted",
            check: |case| {
                let made = case.release()?;
                let seen = case.annotate(NORA, "canaryrelease", &["note=x"]).object()?;
                expect("note", at(&seen, "/metadata/annotations/note"), &json!("x"))?;
                case.sync(NORA, &case.canary_release()).accepted()?;
                let finalizers = json!({"metadata": {"uid": at(&made, "/metadata/uid"), "finalizers": ["canaryrelease.dev/finalizer"]}});
                let operator = |patch: &Value| {
                    case.patch_by(OPERATOR, "canaryrelease-operator", "canaryrelease", "merge", patch, &[]).object()
                };
                operator(&finalizers)?;
                let written = case.status_by(OPERATOR, &json!({"phase": "Idle"}), &[]).object();
                case.kubectl(NORA, &["delete", "canaryrelease", &case.name, "--wait=false"]).accepted()?;
                // Whatever came before: a finalizer left behind would keep the CRD from going.
                operator(&json!({"metadata": {"finalizers": null}}))?;
                expect("phase", at(&written?, "/status/phase"), &json!("Idle"))
            },
        },
        Row {
            promise: "where a release stands is the operator's to write",
            who: "argo, who may do anything in the namespace; an administrator; the operator",
            what: "a replace of a CanaryRelease's status; a patch that empties it",
            expected: "refused, with what to do instead; the operator's is accepted and stays",
            check: |case| {
                case.release()?;
                let words = ["is written by the operator alone", "kubectl canary abort"];
                case.status_by(OPERATOR, &json!({"phase": "Idle"}), &[]).accepted()?;
                for user in [ARGO, ""] {
                    case.status_by(user, &json!({"phase": "Promoting"}), &[]).refused(&words)?;
                    let empty = json!({"status": null});
                    case.patch_by(user, "ci", "canaryrelease", "merge", &empty, &["--subresource=status"])
                        .refused(&words)?;
                }
                expect("phase", at(&case.now("canaryrelease")?, "/status/phase"), &json!("Idle"))
            },
        },
        Row {
            promise: "a kind of route that is not known is refused",
            who: "an administrator",
            what: "a route of kind Ingress",
            expected: "refused",
            check: |case| {
                let mut object = case.canary_release();
                merge(&mut object, &json!({"spec": {"traffic": {"routes": [{"kind": "Ingress", "name": "x"}]}}}));
                create(case, "", &object).refused(&["Ingress"])?;
                expect("made", case.now("canaryrelease").is_err(), true)
            },
        },
        Row {
            promise: "a spec that cannot be read is refused as such, not by a broken policy",
            who: "joe",
            what: "a CanaryRelease without a spec; with an empty one",
            expected: "refused by the schema or the right that lacks, never by an error of an expression",
            check: |case| {
                let mut object = case.canary_release();
                for spec in [Value::Null, json!({})] {
                    if let Some(fields) = object.as_object_mut() {
                        fields.insert("spec".into(), spec);
                    }
                    let answer = create(case, JOE, &object);
                    answer.refused(&["spec"])?;
                    if answer.err.contains("resulted in error") {
                        return Err(answer.err);
                    }
                }
                expect("override", note(&object, "override"), None)
            },
        },
    ]
}
