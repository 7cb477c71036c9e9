//! A new template is held, by whatever way it comes; what is no new template is not touched.

use serde_json::{Value, json};

use super::Row;
use crate::case::{Case, Check, Target, at, eventually, expect, held_for, merge, not_paused, note};
use crate::world::{ANNA, ARGO, FLUX, JOE, OPERATOR};

const WAY_OUT: [&str; 4] = ["held by CanaryRelease", "command=promote", "abort", "canaryrelease.dev/override"];

fn generation(object: &Value) -> &Value {
    at(object, "/metadata/generation")
}

fn version(object: &Value) -> &Value {
    at(object, "/metadata/resourceVersion")
}

fn image(object: &Value) -> &Value {
    at(object, "/spec/template/spec/containers/0/image")
}

/// Pushes version 2 onto an armed Deployment in some way; it must be held for `user`.
fn pushed(case: &Case<'_>, user: &str, push: impl Fn(&Case<'_>) -> Result<Value, String>) -> Check {
    case.target(Target::Armed)?;
    let seen = push(case)?;
    held_for(&seen, user)?;
    expect("image", image(&seen), &json!("shop:2"))
}

/// Writes to an idle Deployment what is no new template; it must be neither paused nor stamped.
fn passes(case: &Case<'_>, write: impl Fn(&Case<'_>) -> Result<Value, String>) -> Check {
    case.target(Target::Armed)?;
    let seen = write(case)?;
    not_paused(&seen)?;
    expect("changed-by", note(&seen, "changed-by"), None)
}

/// That the write changes nothing when it is made again. (Where controllers run, they write the status meanwhile.)
fn silent(write: impl Fn() -> Result<Value, String>) -> Check {
    eventually(|| {
        let (first, second) = (write()?, write()?);
        expect("resourceVersion", version(&second), version(&first))
    })
}

/// A restart, as `kubectl rollout restart` writes it.
fn restart(when: &str) -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": when}}}}})
}

/// That a write to a held Deployment came to nothing.
fn unmoved(before: &Value, after: &Value) -> Check {
    expect("spec.paused", at(after, "/spec/paused"), &json!(true))?;
    expect("changed-by", note(after, "changed-by"), note(before, "changed-by"))?;
    expect("generation", generation(after), generation(before))
}

/// A write by a person or a tool that must leave label and annotations as they were.
fn kept(case: &Case<'_>, write: impl Fn(&Case<'_>) -> Result<Value, String>) -> Check {
    let before = case.target(Target::Held)?;
    let after = write(case)?;
    for key in ["uid", "changed-by", "rolling", "override-by", "weights-before", "mine"] {
        expect(key, note(&after, key), note(&before, key))?;
    }
    expect("label", at(&after, "/metadata/labels/canaryrelease.dev~1release"), &json!(case.name))?;
    expect("spec.paused", at(&after, "/spec/paused"), &json!(true))
}

#[expect(clippy::too_many_lines, reason = "one table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            promise: "set image starts a release",
            who: "joe",
            what: "kubectl set image",
            expected: "held, stamped",
            check: |case| {
                pushed(case, JOE, |case| {
                    let target = format!("deployment/{}", case.name);
                    case.kubectl(JOE, &["set", "image", &target, "app=shop:2"]).accepted()?;
                    case.now("deployment")
                })
            },
        },
        Row {
            promise: "apply starts a release",
            who: "joe",
            what: "kubectl apply of version 2 over version 1",
            expected: "held; applying it again is silent, kubectl diff empty",
            check: |case| {
                let first = case.apply(JOE, &case.manifest(1)).object()?;
                case.arm(&first).accepted()?;
                let held = case.apply(JOE, &case.manifest(2)).object()?;
                held_for(&held, JOE)?;
                silent(|| case.apply(JOE, &case.manifest(2)).object())?;
                let diff = case.kubectl_with(JOE, &["diff", "-f", "-"], Some(&case.manifest(2).to_string()));
                expect("rc of kubectl diff", diff.code, 0)
            },
        },
        Row {
            promise: "server-side apply by another manager starts a release",
            who: "a GitOps tool",
            what: "forced apply of version 2, then the same again and again",
            expected: "held; the rest silent, server-side diff empty, paused and the stamp owned by nobody",
            check: |case| {
                let first = case.sync(FLUX, &case.manifest(1)).object()?;
                case.arm(&first).accepted()?;
                let held = case.sync(FLUX, &case.manifest(2)).object()?;
                held_for(&held, FLUX)?;
                silent(|| case.sync(FLUX, &case.manifest(2)).object())?;
                let args = ["diff", "--server-side", "--force-conflicts", "--field-manager=sync", "-f", "-"];
                let diff = case.kubectl_with(FLUX, &args, Some(&case.manifest(2).to_string()));
                expect("rc of kubectl diff --server-side", diff.code, 0)?;
                let shown = case
                    .kubectl("", &["get", "deployment", &case.name, "-o", "json", "--show-managed-fields"])
                    .object()?;
                let fields = at(&shown, "/metadata/managedFields").to_string();
                expect("paused has an owner", fields.contains("f:paused"), false)?;
                expect("the stamp has an owner", fields.contains("changed-by"), false)
            },
        },
        Row {
            promise: "a full replace starts a release",
            who: "a GitOps tool",
            what: "PUT of version 2 without paused, label and annotations",
            expected: "held, label and uid kept",
            check: |case| {
                pushed(case, ARGO, |case| case.replace(ARGO, &case.manifest(2)).object())?;
                let seen = case.now("deployment")?;
                expect("label", at(&seen, "/metadata/labels/canaryrelease.dev~1release"), &json!(case.name))?;
                expect("uid", note(&seen, "uid"), Some("uid-1"))
            },
        },
        Row {
            promise: "kubectl edit starts a release",
            who: "joe",
            what: "kubectl edit of the image",
            expected: "held, stamped",
            check: |case| {
                pushed(case, JOE, |case| {
                    case.edit(JOE, "deployment", "s/shop:1/shop:2/").accepted()?;
                    case.now("deployment")
                })
            },
        },
        Row {
            promise: "an undo is a new template",
            who: "joe",
            what: "kubectl rollout undo, idle and held",
            expected: "held; refused by kubectl itself",
            check: |case| {
                let made = case.target(Target::Armed)?;
                for (revision, version) in [(1, 0), (2, 1)] {
                    let mut set = case.manifest(version);
                    let hash = format!("hash-{revision}");
                    let labels = json!({"app": case.name, "pod-template-hash": hash});
                    merge(
                        &mut set,
                        &json!({"kind": "ReplicaSet", "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}},
                        "metadata": {"name": format!("{}-{hash}", case.name), "labels": labels,
                            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
                            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": case.name,
                                "uid": at(&made, "/metadata/uid"), "controller": true}]}}),
                    );
                    case.create(&set)?;
                }
                let target = format!("deployment/{}", case.name);
                case.kubectl(JOE, &["rollout", "undo", &target, "--to-revision=1"]).accepted()?;
                let seen = case.now("deployment")?;
                held_for(&seen, JOE)?;
                expect("image", image(&seen), &json!("shop:0"))?;
                case.kubectl(JOE, &["rollout", "undo", &target]).refused(&["cannot rollback a paused deployment"])
            },
        },
        Row {
            promise: "any change of the template is a new template",
            who: "joe",
            what: "a pod label; a pod annotation; an environment variable; restartedAt and another annotation",
            expected: "held",
            check: |case| {
                let patches = [
                    json!({"metadata": {"labels": {"tier": "gold"}}}),
                    json!({"metadata": {"annotations": {"note": "new"}}}),
                    json!({"spec": {"containers": [{"name": "app", "env": [{"name": "A", "value": "b"}]}]}}),
                    json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now", "note": "newer"}}}),
                ];
                case.target(Target::Armed)?;
                for template in patches {
                    let patch = json!({"spec": {"template": template}});
                    let args = ["--dry-run=server"];
                    let seen = case.patch_by(JOE, "ci", "deployment", "strategic", &patch, &args).object()?;
                    held_for(&seen, JOE).map_err(|why| format!("{patch}: {why}"))?;
                }
                Ok(())
            },
        },
        Row {
            promise: "a restart is no release",
            who: "joe",
            what: "kubectl rollout restart, a second one, restartedAt taken away",
            expected: "passes un-held and un-stamped",
            check: |case| {
                passes(case, |case| {
                    let target = format!("deployment/{}", case.name);
                    case.kubectl(JOE, &["rollout", "restart", &target]).accepted()?;
                    not_paused(&case.now("deployment")?)?;
                    case.patch(JOE, "deployment", "strategic", &restart("2026-01-01T00:00:00Z")).accepted()?;
                    not_paused(&case.now("deployment")?)?;
                    let none = json!({"spec": {"template": {"metadata": {"annotations": null}}}});
                    case.patch(JOE, "deployment", "merge", &none).object()
                })
            },
        },
        Row {
            promise: "what is no template is not held",
            who: "joe",
            what: "kubectl scale, /scale, strategy, labels and annotations of the Deployment",
            expected: "passes un-held and un-stamped",
            check: |case| {
                passes(case, |case| {
                    case.kubectl(JOE, &["scale", "deployment", &case.name, "--replicas=0"]).accepted()?;
                    let strategy = json!({"spec": {"replicas": 0, "minReadySeconds": 3, "strategy": {"type": "Recreate", "rollingUpdate": null}}});
                    case.patch(JOE, "deployment", "merge", &strategy).accepted()?;
                    case.kubectl(JOE, &["label", "deployment", &case.name, "team=a"]).accepted()?;
                    let seen = case.annotate(JOE, "deployment", &["note=x"]).object()?;
                    expect("the annotation", at(&seen, "/metadata/annotations/note"), &json!("x"))?;
                    expect("the label", at(&seen, "/metadata/labels/team"), &json!("a"))?;
                    expect("minReadySeconds", at(&seen, "/spec/minReadySeconds"), &json!(3))?;
                    Ok(seen)
                })
            },
        },
        Row {
            promise: "a held Deployment still scales",
            who: "joe",
            what: "kubectl scale while held",
            expected: "passes, stays held",
            check: |case| {
                case.target(Target::Held)?;
                let seen = case
                    .patch(JOE, "deployment", "merge", &json!({"spec": {"replicas": 0, "minReadySeconds": 7}}))
                    .object()?;
                held_for(&seen, "git")?;
                case.kubectl(JOE, &["scale", "deployment", &case.name, "--replicas=0"]).accepted()?;
                expect("minReadySeconds", at(&seen, "/spec/minReadySeconds"), &json!(7))
            },
        },
        Row {
            promise: "never paused on create",
            who: "joe",
            what: "create with the arming label in the manifest",
            expected: "not paused",
            check: |case| {
                let mut object = case.manifest(1);
                merge(&mut object, &json!({"metadata": {"labels": {"canaryrelease.dev/release": case.name}}}));
                not_paused(
                    &case
                        .kubectl_with(JOE, &["create", "-f", "-", "-o", "json"], Some(&object.to_string()))
                        .object()?,
                )
            },
        },
        Row {
            promise: "a Deployment that is not ours is not touched",
            who: "joe",
            what: "a new template, a pause, a resume on a plain Deployment",
            expected: "as without us",
            check: |case| {
                case.target(Target::Plain)?;
                let seen = case.patch(JOE, "deployment", "strategic", &case.push(2)).object()?;
                not_paused(&seen)?;
                expect("annotations", note(&seen, "changed-by"), None)?;
                for verb in ["pause", "resume"] {
                    case.kubectl(JOE, &["rollout", verb, &format!("deployment/{}", case.name)]).accepted()?;
                }
                Ok(())
            },
        },
        Row {
            promise: "the operator arms and disarms",
            who: "the operator",
            what: "server-side apply of label and uid; a merge patch that takes them away",
            expected: "held in between, plain afterwards; a wrong uid creates nothing",
            check: |case| {
                let plain = case.target(Target::Plain)?;
                let armed = case.arm(&plain).object()?;
                not_paused(&armed)?;
                let dry = ["--dry-run=server"];
                held_for(&case.patch_by(JOE, "ci", "deployment", "strategic", &case.push(2), &dry).object()?, JOE)?;
                let off = json!({"metadata": {"labels": {"canaryrelease.dev/release": null},
                    "annotations": {"canaryrelease.dev/uid": null}}});
                case.patch_by(OPERATOR, "canaryrelease-operator", "deployment", "merge", &off, &[]).accepted()?;
                not_paused(&case.patch(JOE, "deployment", "strategic", &case.push(2)).object()?)?;
                let mut gone = plain;
                merge(&mut gone, &json!({"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}}));
                case.arm(&gone).refused(&["uid"])
            },
        },
        Row {
            promise: "the operator is not held",
            who: "the operator",
            what: "the serving template and un-paused, in one write, stamp off",
            expected: "as written",
            check: |case| {
                case.target(Target::Held)?;
                let mut patch = case.push(1);
                merge(&mut patch, &json!({"spec": {"paused": false}}));
                merge(&mut patch, &json!({"metadata": {"annotations": {}}}));
                if let Some(annotations) = patch.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
                    annotations.insert("canaryrelease.dev/changed-by".into(), Value::Null);
                }
                let seen = case
                    .patch_by(OPERATOR, "canaryrelease-operator", "deployment", "strategic", &patch, &[])
                    .object()?;
                not_paused(&seen)?;
                expect("changed-by", note(&seen, "changed-by"), None)?;
                expect("image", image(&seen), &json!("shop:1"))
            },
        },
        Row {
            promise: "the operator proves the hold by a dry run",
            who: "the operator",
            what: "server-side dry run of a new template; of a resume as kubectl-rollout",
            expected: "comes back paused; comes back refused; nothing is written",
            check: |case| {
                let before = case.target(Target::Armed)?;
                let dry = ["--dry-run=server"];
                let seen = case
                    .patch_by(OPERATOR, "canaryrelease-operator", "deployment", "strategic", &case.push(2), &dry)
                    .object()?;
                held_for(&seen, OPERATOR)?;
                expect("generation", generation(&case.now("deployment")?), generation(&before))?;
                let held = Case::named(case.world(), format!("{}-held", case.name));
                held.target(Target::Held)?;
                let resume = json!({"spec": {"paused": false}});
                held.patch_by(OPERATOR, "kubectl-rollout", "deployment", "merge", &resume, &dry).refused(&WAY_OUT)
            },
        },
        Row {
            promise: "a resume is refused with the way out",
            who: "joe, anna, an administrator",
            what: "kubectl rollout resume of a held Deployment",
            expected: "refused; the text names promote, abort and override",
            check: |case| {
                case.target(Target::Held)?;
                let target = format!("deployment/{}", case.name);
                for user in [JOE, ANNA, ""] {
                    case.kubectl(user, &["rollout", "resume", &target]).refused(&WAY_OUT)?;
                }
                held_for(&case.now("deployment")?, "git")
            },
        },
        Row {
            promise: "un-pausing by hand is refused",
            who: "joe",
            what: "kubectl patch, kubectl edit, patch with restartedAt, patch that takes the label off",
            expected: "refused with the way out",
            check: |case| {
                case.target(Target::Held)?;
                let off = json!({"spec": {"paused": false}});
                case.patch(JOE, "deployment", "merge", &off).refused(&WAY_OUT)?;
                let remove = json!([{"op": "remove", "path": "/spec/paused"}]);
                case.patch(JOE, "deployment", "json", &remove).refused(&WAY_OUT)?;
                let mut also = off.clone();
                merge(&mut also, &restart("now"));
                case.patch(JOE, "deployment", "strategic", &also).refused(&WAY_OUT)?;
                let unlabel = json!({"metadata": {"labels": null, "annotations": null}, "spec": {"paused": false}});
                case.patch(JOE, "deployment", "merge", &unlabel).refused(&WAY_OUT)?;
                case.edit(JOE, "deployment", "/paused:/d").refused(&WAY_OUT)?;
                held_for(&case.now("deployment")?, "git")
            },
        },
        Row {
            promise: "a tool that would un-pause stays paused in silence",
            who: "GitOps tools",
            what: "PUT without paused; forced apply and merge patch of paused: false; patch with restartedAt",
            expected: "accepted, still held, generation unmoved",
            check: |case| {
                let before = case.target(Target::Held)?;
                unmoved(&before, &case.replace(ARGO, &case.manifest(2)).object()?)?;
                let mut explicit = case.manifest(2);
                merge(&mut explicit, &json!({"spec": {"paused": false}}));
                unmoved(&before, &case.sync(FLUX, &explicit).object()?)?;
                unmoved(&before, &case.sync(FLUX, &explicit).object()?)?;
                unmoved(
                    &before,
                    &case
                        .patch_by(FLUX, "ci", "deployment", "merge", &json!({"spec": {"paused": false}}), &[])
                        .object()?,
                )?;
                let mut restarted = restart("now");
                merge(&mut restarted, &json!({"spec": {"paused": false}}));
                let seen = case.patch_by(FLUX, "ci", "deployment", "strategic", &restarted, &[]).object()?;
                held_for(&seen, "git")
            },
        },
        Row {
            promise: "un-pause and a new template in one write is held",
            who: "joe",
            what: "JSON patch and merge patch of paused: false with version 3",
            expected: "accepted, still paused, stamped joe",
            check: |case| {
                case.target(Target::Held)?;
                let patch = json!([{"op": "replace", "path": "/spec/paused", "value": false},
                    {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "shop:3"}]);
                let seen = case.patch(JOE, "deployment", "json", &patch).object()?;
                held_for(&seen, JOE)?;
                expect("image", image(&seen), &json!("shop:3"))
            },
        },
        Row {
            promise: "putting the serving template back stays paused",
            who: "joe",
            what: "the old template while held",
            expected: "accepted, still paused, stamped joe: the operator un-pauses",
            check: |case| {
                case.target(Target::Held)?;
                let seen = case.patch(JOE, "deployment", "strategic", &case.push(1)).object()?;
                held_for(&seen, JOE)?;
                expect("image", image(&seen), &json!("shop:1"))
            },
        },
        Row {
            promise: "a person's own pause is theirs to end",
            who: "joe",
            what: "rollout pause and resume with nothing held; then pause, push, resume",
            expected: "the first resume passes, the last is refused",
            check: |case| {
                case.target(Target::Armed)?;
                let target = format!("deployment/{}", case.name);
                case.kubectl(JOE, &["rollout", "pause", &target]).accepted()?;
                case.kubectl(JOE, &["rollout", "resume", &target]).accepted()?;
                not_paused(&case.now("deployment")?)?;
                case.kubectl(JOE, &["rollout", "pause", &target]).accepted()?;
                held_for(&case.patch(JOE, "deployment", "strategic", &case.push(2)).object()?, JOE)?;
                case.kubectl(JOE, &["rollout", "resume", &target]).refused(&WAY_OUT)
            },
        },
        Row {
            promise: "the label stays in place",
            who: "joe and tools",
            what: "label removed, altered, all labels and annotations dropped by a PUT",
            expected: "put back",
            check: |case| {
                kept(case, |case| {
                    let key = "canaryrelease.dev/release";
                    case.kubectl(JOE, &["label", "deployment", &case.name, &format!("{key}-")]).accepted()?;
                    expect(
                        "label",
                        at(&case.now("deployment")?, "/metadata/labels/canaryrelease.dev~1release"),
                        &json!(case.name),
                    )?;
                    case.kubectl(JOE, &["label", "deployment", &case.name, &format!("{key}=other"), "--overwrite"])
                        .accepted()?;
                    expect(
                        "label",
                        at(&case.now("deployment")?, "/metadata/labels/canaryrelease.dev~1release"),
                        &json!(case.name),
                    )?;
                    case.replace(ARGO, &case.manifest(2)).object()
                })
            },
        },
        Row {
            promise: "our annotations cannot be forged",
            who: "joe",
            what: "changed-by, uid, rolling, override-by and others of ours set, altered, removed",
            expected: "put back or taken off",
            check: |case| {
                kept(case, |case| {
                    case.annotate(
                        JOE,
                        "deployment",
                        &[
                            "canaryrelease.dev/changed-by=boss",
                            "canaryrelease.dev/uid=other",
                            "canaryrelease.dev/rolling=x",
                            "canaryrelease.dev/override-by=boss",
                            "canaryrelease.dev/mine=x",
                            "note=mine",
                        ],
                    )
                    .object()
                })?;
                let seen = case
                    .annotate(JOE, "deployment", &["canaryrelease.dev/changed-by-", "canaryrelease.dev/uid-"])
                    .object()?;
                expect("changed-by", note(&seen, "changed-by"), Some("git"))?;
                expect("uid", note(&seen, "uid"), Some("uid-1"))?;
                expect("a foreign annotation", at(&seen, "/metadata/annotations/note"), &json!("mine"))
            },
        },
        Row {
            promise: "our annotations cannot be forged through the status",
            who: "joe, who may write deployments/status",
            what: "PATCH /status with changed-by, rolling and no uid, and another template",
            expected: "put back, no stamp, no pause",
            check: |case| {
                kept(case, |case| {
                    let patch = json!({"metadata": {"annotations": {"canaryrelease.dev/changed-by": "boss",
                        "canaryrelease.dev/rolling": "x", "canaryrelease.dev/uid": null}},
                        "spec": {"template": {"metadata": {"labels": {"x": "y"}}}}, "status": {"replicas": 0}});
                    case.patch_by(JOE, "ci", "deployment", "merge", &patch, &["--subresource=status"]).object()
                })
            },
        },
        Row {
            promise: "every annotation dropped, none missing afterwards",
            who: "joe",
            what: "merge patch of annotations: null, annotations: {} by PUT, with a new template",
            expected: "our annotations are back, stamped joe",
            check: |case| {
                case.target(Target::Held)?;
                let mut patch = case.push(3);
                merge(&mut patch, &json!({"metadata": {}}));
                if let Some(metadata) = patch.pointer_mut("/metadata").and_then(Value::as_object_mut) {
                    metadata.insert("annotations".into(), Value::Null);
                    metadata.insert("labels".into(), Value::Null);
                }
                let seen = case.patch(JOE, "deployment", "merge", &patch).object()?;
                held_for(&seen, JOE)?;
                expect("uid", note(&seen, "uid"), Some("uid-1"))?;
                let mut empty = case.manifest(4);
                merge(&mut empty, &json!({"metadata": {"annotations": {}, "labels": {}}}));
                let seen = case.replace(ARGO, &empty).object()?;
                held_for(&seen, ARGO)?;
                expect("uid", note(&seen, "uid"), Some("uid-1"))
            },
        },
        Row {
            promise: "a write that arms is not held by its own label",
            who: "joe",
            what: "label and new template in one write on a plain Deployment",
            expected: "not paused: only the operator's arming counts, and it looks first",
            check: |case| {
                case.target(Target::Plain)?;
                let mut patch = case.push(2);
                merge(&mut patch, &json!({"metadata": {"labels": {"canaryrelease.dev/release": case.name}}}));
                not_paused(&case.patch(JOE, "deployment", "strategic", &patch).object()?)
            },
        },
        Row {
            promise: "a template of odd but legal shape is held",
            who: "a GitOps tool",
            what: "63-character name, init container, several containers, 1000 environment variables, 1000 annotations",
            expected: "held, restart still passes",
            check: |case| {
                let case = Case::named(case.world(), format!("{:x<63}", case.name));
                let annotations: serde_json::Map<String, Value> =
                    (0..1000).map(|i| (format!("team.example/note-{i}"), json!("some text"))).collect();
                let env: Vec<Value> =
                    (0..1000).map(|i| json!({"name": format!("NAME_{i}"), "value": "some text"})).collect();
                let mut object = case.manifest(1);
                let template = json!({"metadata": {"annotations": annotations},
                    "spec": {"initContainers": [{"name": "init", "image": "init:1"}],
                        "containers": [{"name": "app", "image": "shop:1", "env": env}, {"name": "side", "image": "side:1"}]}});
                merge(&mut object, &json!({"spec": {"template": template}}));
                let plain = case.sync(FLUX, &object).object()?;
                case.arm(&plain).accepted()?;
                not_paused(&case.patch(JOE, "deployment", "strategic", &restart("now")).object()?)?;
                let patch =
                    json!({"spec": {"template": {"spec": {"initContainers": [{"name": "init", "image": "init:2"}]}}}});
                held_for(&case.patch(JOE, "deployment", "strategic", &patch).object()?, JOE)
            },
        },
    ]
}
