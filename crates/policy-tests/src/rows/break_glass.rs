//! An override passes all our policies, for those who may, with a name on it; and for nobody else.

use serde_json::{Value, json};

use super::Row;
use crate::case::{Case, Target, at, eventually, expect, held_for, merge, not_paused, note};
use crate::world::{ANNA, ARGO, FLUX, JOE, OPERATOR};

const REASON: &str = "INC-42: payments are down";

/// The patch, with an override in it.
fn with_reason(mut patch: Value, reason: &str) -> Value {
    merge(&mut patch, &json!({"metadata": {"annotations": {"canaryrelease.dev/override": reason}}}));
    patch
}

fn resume() -> Value {
    json!({"spec": {"paused": false}})
}

fn override_arg() -> String {
    format!("canaryrelease.dev/override={REASON}")
}

#[expect(clippy::too_many_lines, reason = "one table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            promise: "an override lets the held template through",
            who: "anna, with the verb",
            what: "override and paused: false in one kubectl patch",
            expected: "un-paused, stamped override-by anna",
            check: |case| {
                case.target(Target::Held)?;
                let seen = case.patch(ANNA, "deployment", "merge", &with_reason(resume(), REASON)).object()?;
                not_paused(&seen)?;
                expect("override", note(&seen, "override"), Some(REASON))?;
                expect("override-by", note(&seen, "override-by"), Some(ANNA))
            },
        },
        Row {
            promise: "an override pushes a template past the hold",
            who: "anna, with the verb",
            what: "override and a new template in one write, by kubectl and by apply",
            expected: "not paused, stamped changed-by and override-by anna",
            check: |case| {
                case.target(Target::Armed)?;
                let seen = case.patch(ANNA, "deployment", "strategic", &with_reason(case.push(2), REASON)).object()?;
                not_paused(&seen)?;
                expect("changed-by", note(&seen, "changed-by"), Some(ANNA))?;
                expect("override-by", note(&seen, "override-by"), Some(ANNA))?;
                let seen = case.sync(ANNA, &with_reason(case.manifest(3), "INC-43")).object()?;
                not_paused(&seen)?;
                expect("override", note(&seen, "override"), Some("INC-43"))
            },
        },
        Row {
            promise: "an override without the verb is refused",
            who: "joe, without the verb",
            what: "override with paused: false, with a new template, alone, through /status",
            expected: "refused; the text names the verb",
            check: |case| {
                case.target(Target::Held)?;
                let words = ["policy-tests:joe may not override CanaryRelease", "RBAC verb \"override\""];
                case.patch(JOE, "deployment", "merge", &with_reason(resume(), REASON)).refused(&words)?;
                case.patch(JOE, "deployment", "strategic", &with_reason(case.push(3), REASON)).refused(&words)?;
                case.annotate(JOE, "deployment", &[&override_arg()]).refused(&words)?;
                let alone = with_reason(json!({}), REASON);
                case.patch_by(JOE, "ci", "deployment", "merge", &alone, &["--subresource=status"]).refused(&words)?;
                held_for(&case.now("deployment")?, "git")
            },
        },
        Row {
            promise: "an override needs a reason",
            who: "anna",
            what: "an empty and a blank override",
            expected: "refused; the text asks for a reason",
            check: |case| {
                case.target(Target::Held)?;
                for reason in ["", "  "] {
                    case.patch(ANNA, "deployment", "merge", &with_reason(resume(), reason))
                        .refused(&["needs a reason"])?;
                }
                Ok(())
            },
        },
        Row {
            promise: "an override in two steps",
            who: "anna",
            what: "kubectl annotate, then kubectl rollout resume, then kubectl set image",
            expected: "in force until the operator takes it: both pass",
            check: |case| {
                case.target(Target::Held)?;
                let target = format!("deployment/{}", case.name);
                let seen = case.annotate(ANNA, "deployment", &[&override_arg()]).object()?;
                held_for(&seen, "git")?;
                case.kubectl(ANNA, &["rollout", "resume", &target]).accepted()?;
                case.kubectl(ANNA, &["set", "image", &target, "app=shop:3"]).accepted()?;
                not_paused(&case.now("deployment")?)
            },
        },
        Row {
            promise: "an override speaks for its user only",
            who: "joe, a GitOps tool that may do anything",
            what: "a new template, and a resume, while anna's override is in force",
            expected: "held; refused",
            check: |case| {
                case.target(Target::Held)?;
                case.annotate(ANNA, "deployment", &[&override_arg()]).accepted()?;
                let target = format!("deployment/{}", case.name);
                case.kubectl(JOE, &["rollout", "resume", &target]).refused(&["held by CanaryRelease"])?;
                case.kubectl(ARGO, &["rollout", "resume", &target]).refused(&["held by CanaryRelease"])?;
                held_for(&case.sync(ARGO, &case.manifest(3)).object()?, ARGO)?;
                case.kubectl(ANNA, &["rollout", "resume", &target]).accepted()?;
                held_for(&case.sync(ARGO, &case.manifest(4)).object()?, ARGO)
            },
        },
        Row {
            promise: "an override is over when the operator has taken it",
            who: "anna",
            what: "the operator takes both annotations off; anna pushes again",
            expected: "held",
            check: |case| {
                case.target(Target::Armed)?;
                case.patch(ANNA, "deployment", "strategic", &with_reason(case.push(2), REASON)).accepted()?;
                let off = json!({"metadata": {"annotations": {"canaryrelease.dev/override": null, "canaryrelease.dev/override-by": null,
                    "canaryrelease.dev/changed-by": null}}});
                let seen =
                    case.patch_by(OPERATOR, "canaryrelease-operator", "deployment", "merge", &off, &[]).object()?;
                expect("override-by", note(&seen, "override-by"), None)?;
                held_for(&case.patch(ANNA, "deployment", "strategic", &case.push(3)).object()?, ANNA)
            },
        },
        Row {
            promise: "an override's stamp cannot be forged",
            who: "joe, a GitOps tool",
            what: "override-by set alone, altered, both dropped by a PUT, another reason",
            expected: "taken off, put back, put back, refused",
            check: |case| {
                case.target(Target::Held)?;
                let seen =
                    case.annotate(JOE, "deployment", &["canaryrelease.dev/override-by=policy-tests:joe"]).object()?;
                expect("override-by", note(&seen, "override-by"), None)?;
                case.annotate(ANNA, "deployment", &[&override_arg()]).accepted()?;
                let seen =
                    case.annotate(JOE, "deployment", &["canaryrelease.dev/override-by=policy-tests:joe"]).object()?;
                expect("override-by", note(&seen, "override-by"), Some(ANNA))?;
                let seen = case.replace(FLUX, &case.manifest(2)).object()?;
                expect("override", note(&seen, "override"), Some(REASON))?;
                expect("override-by", note(&seen, "override-by"), Some(ANNA))?;
                case.annotate(JOE, "deployment", &["canaryrelease.dev/override=mine"]).refused(&["may not override"])
            },
        },
        Row {
            promise: "an override beats a promotion in progress",
            who: "anna",
            what: "another template with override while the operator rolls",
            expected: "as written",
            check: |case| {
                case.target(Target::Rolling)?;
                let seen = case.patch(ANNA, "deployment", "strategic", &with_reason(case.push(3), REASON)).object()?;
                not_paused(&seen)?;
                expect("image", at(&seen, "/spec/template/spec/containers/0/image"), &json!("shop:3"))
            },
        },
        Row {
            promise: "an override frees a Deployment when the operator is gone for good",
            who: "anna",
            what: "override, label off and paused: false in one write",
            expected: "plain: the next push is not held",
            check: |case| {
                case.target(Target::Held)?;
                let mut patch = with_reason(resume(), REASON);
                merge(&mut patch, &json!({"metadata": {"labels": {}}}));
                if let Some(labels) = patch.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
                    labels.insert("canaryrelease.dev/release".into(), Value::Null);
                }
                not_paused(&case.patch(ANNA, "deployment", "merge", &patch).object()?)?;
                not_paused(&case.patch(JOE, "deployment", "strategic", &case.push(3)).object()?)
            },
        },
        Row {
            promise: "the verb may be given for one release",
            who: "a user with override on one CanaryRelease by name",
            what: "override on its Deployment and on another",
            expected: "passes; refused",
            check: |case| {
                let user = format!("{}:{}", case.namespace(), case.name);
                let other = Case::named(case.world(), format!("{}-other", case.name));
                let rules = json!([{"apiGroups": ["canaryrelease.dev"], "resources": ["canaryreleases"], "resourceNames": [case.name],
                    "verbs": ["override"]}, {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]}]);
                case.create(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                    "metadata": {"name": case.name, "namespace": case.namespace()}, "rules": rules}))?;
                case.create(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                    "metadata": {"name": case.name, "namespace": case.namespace()},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": case.name},
                    "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]}))?;
                case.target(Target::Held)?;
                other.target(Target::Held)?;
                let patch = with_reason(resume(), REASON);
                eventually(|| {
                    case.patch(&user, "deployment", "merge", &patch).object().and_then(|seen| not_paused(&seen))
                })?;
                other.patch(&user, "deployment", "merge", &patch).refused(&["may not override"])
            },
        },
    ]
}
