//! While the operator itself rolls the target, nobody else's template gets in, and nothing pauses it.

use serde_json::{Value, json};

use super::Row;
use crate::case::{Case, Target, at, expect, merge, not_paused, note};
use crate::world::{FLUX, JOE, OPERATOR};

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            promise: "no other template while the target is promoted",
            who: "joe, a GitOps tool",
            what: "set image, forced apply of another version",
            expected: "refused: apply again when done; the release is named",
            check: |case| {
                case.target(Target::Rolling)?;
                let words =
                    ["is being promoted or restored by CanaryRelease", "apply this again when it is done", "-3)"];
                case.kubectl(JOE, &["set", "image", &format!("deployment/{}", case.name), "app=shop:9"])
                    .refused(&words)?;
                case.sync(FLUX, &case.manifest(9)).refused(&words)?;
                let seen = case.now("deployment")?;
                not_paused(&seen)?;
                expect("image", at(&seen, "/spec/template/spec/containers/0/image"), &json!("shop:2"))
            },
        },
        Row {
            promise: "a promotion does not disturb what changes no template",
            who: "joe, a GitOps tool",
            what: "the same manifest, scale, restart, pause and resume, pause and a full replace",
            expected: "passes, not paused by us",
            check: |case| {
                case.target(Target::Rolling)?;
                let target = format!("deployment/{}", case.name);
                case.sync(FLUX, &case.manifest(2)).accepted()?;
                for args in [
                    vec!["scale", &target, "--replicas=0"],
                    vec!["rollout", "restart", &target],
                    vec!["rollout", "pause", &target],
                    vec!["rollout", "resume", &target],
                ] {
                    case.kubectl(JOE, &args).accepted()?;
                }
                case.kubectl(JOE, &["rollout", "pause", &target]).accepted()?;
                let seen = case.replace(FLUX, &case.manifest(2)).object()?;
                not_paused(&seen)?;
                expect("rolling", note(&seen, "rolling"), Some(format!("{}-3", case.name).as_str()))
            },
        },
        Row {
            promise: "rolling cannot be taken off by another",
            who: "joe",
            what: "annotation removed, alone and together with another template",
            expected: "put back; refused",
            check: |case| {
                case.target(Target::Rolling)?;
                let seen = case.annotate(JOE, "deployment", &["canaryrelease.dev/rolling-"]).object()?;
                expect("rolling", note(&seen, "rolling"), Some(format!("{}-3", case.name).as_str()))?;
                let mut patch = case.push(9);
                merge(&mut patch, &json!({"metadata": {"annotations": {}}}));
                if let Some(annotations) = patch.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
                    annotations.insert("canaryrelease.dev/rolling".into(), Value::Null);
                }
                case.patch(JOE, "deployment", "strategic", &patch).refused(&["apply this again when it is done"])
            },
        },
        Row {
            promise: "the operator promotes and ends the promotion",
            who: "the operator",
            what: "rolling and un-pause in one write; another template; rolling and stamp off",
            expected: "as written; the next push is held again",
            check: |case| {
                case.target(Target::Held)?;
                let operator = |patch: &Value| {
                    case.patch_by(OPERATOR, "canaryrelease-operator", "deployment", "strategic", patch, &[]).object()
                };
                let start = json!({"metadata": {"annotations": {"canaryrelease.dev/rolling": "x-3"}}, "spec": {"paused": null}});
                not_paused(&operator(&start)?)?;
                not_paused(&operator(&case.push(1))?)?;
                let end = json!({"metadata": {"annotations": {"canaryrelease.dev/rolling": null, "canaryrelease.dev/changed-by": null}}});
                let seen = operator(&end)?;
                expect("rolling", note(&seen, "rolling"), None)?;
                expect("changed-by", note(&seen, "changed-by"), None)?;
                crate::case::held_for(&case.patch(JOE, "deployment", "strategic", &case.push(2)).object()?, JOE)
            },
        },
        Row {
            promise: "the operator's dry run is refused while it rolls",
            who: "the operator",
            what: "server-side dry run of another template on a rolling target",
            expected: "refused, as anyone's: the self-test waits until the roll is over",
            check: |case: &Case<'_>| {
                case.target(Target::Rolling)?;
                case.patch_by(
                    OPERATOR,
                    "canaryrelease-operator",
                    "deployment",
                    "strategic",
                    &case.push(9),
                    &["--dry-run=server"],
                )
                .refused(&["apply this again when it is done"])
            },
        },
    ]
}
