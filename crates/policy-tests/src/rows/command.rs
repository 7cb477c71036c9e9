//! Commands carry the name of who gave them, need the verb, and stay until they are taken.

use serde_json::{Value, json};

use super::Row;
use crate::case::{Case, Check, at, expect, merge, note};
use crate::world::{ABE, ANNA, ARGO, JOE, NORA, OPERATOR};

fn given(object: &Value, command: Option<&str>, by: Option<&str>) -> Check {
    expect("command", note(object, "command"), command)?;
    expect("command-by", note(object, "command-by"), by)
}

fn take(case: &Case<'_>) -> Result<Value, String> {
    let off =
        json!({"metadata": {"annotations": {"canaryrelease.dev/command": null, "canaryrelease.dev/command-by": null}}});
    case.patch_by(OPERATOR, "canaryrelease-operator", "canaryrelease", "merge", &off, &[]).object()
}

#[expect(clippy::too_many_lines, reason = "one table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            promise: "a command carries its user's name",
            who: "anna, with the verbs",
            what: "each verb, bound to the release, some to a stage; abort alone",
            expected: "accepted, stamped anna; the operator takes both annotations off",
            check: |case| {
                case.release()?;
                for verb in ["abort", "pause", "resume", "approve", "promote", "retry"] {
                    for tail in ["-7", "-7 2"] {
                        let command = format!("{verb} {}{tail}", case.name);
                        given(&case.command(ANNA, &command).object()?, Some(&command), Some(ANNA))?;
                        given(&take(case)?, None, None)?;
                    }
                }
                given(&case.command(ANNA, "abort").object()?, Some("abort"), Some(ANNA))
            },
        },
        Row {
            promise: "abort by a user without the verb is refused, with it done",
            who: "joe without, abe with abort alone",
            what: "abort; abe: promote",
            expected: "refused by name of the verb; accepted; refused",
            check: |case| {
                case.release()?;
                case.command(JOE, "abort")
                    .refused(&["policy-tests:joe may not abort CanaryRelease", "needs the RBAC verb \"abort\""])?;
                given(&case.now("canaryrelease")?, None, None)?;
                case.command(ABE, &format!("promote {}-1", case.name)).refused(&["may not promote"])?;
                given(&case.command(ABE, "abort").object()?, Some("abort"), Some(ABE))
            },
        },
        Row {
            promise: "only abort may be unbound",
            who: "anna",
            what: "promote, pause, resume, approve, retry without a release id",
            expected: "refused; the text shows the form",
            check: |case| {
                case.release()?;
                for verb in ["promote", "pause", "resume", "approve", "retry"] {
                    case.command(ANNA, verb).refused(&["is not of the form", "<release id>"])?;
                }
                Ok(())
            },
        },
        Row {
            promise: "a command that cannot be understood is refused",
            who: "anna",
            what: "unknown verbs, empty, blanks, stage 0 and 21, four words, a release id without a number",
            expected: "refused; the text says what to say",
            check: |case| {
                case.release()?;
                for command in ["rollback", "", " abort", "Abort", "abort\nx"] {
                    case.command(ANNA, command)
                        .refused(&["unknown command", "abort, pause, resume, approve, promote or retry"])?;
                }
                for tail in [
                    " ",
                    "  web-1",
                    " web",
                    " web-x",
                    " web-1 0",
                    " web-1 21",
                    " web-1 2 3",
                    " Web-1",
                    " web-1 ",
                    " web-1 2/5",
                ] {
                    case.command(ANNA, &format!("promote{tail}"))
                        .refused(&["is not of the form"])
                        .map_err(|why| format!("{tail:?}: {why}"))?;
                }
                given(&case.now("canaryrelease")?, None, None)
            },
        },
        Row {
            promise: "a pending command is replaced only by abort",
            who: "anna",
            what: "pause after promote; abort after promote; promote after abort; abort again, bound",
            expected: "refused by name of the first; accepted; refused; accepted",
            check: |case| {
                case.release()?;
                let promote = format!("promote {}-1", case.name);
                case.command(ANNA, &promote).accepted()?;
                case.command(ANNA, &format!("pause {}-1", case.name)).refused(&[
                    &promote,
                    "of policy-tests:anna",
                    "only abort may replace it",
                ])?;
                given(&case.command(ABE, "abort").object()?, Some("abort"), Some(ABE))?;
                case.command(ANNA, &promote)
                    .refused(&["\"abort\" of policy-tests:abe", "only abort may replace it"])?;
                let bound = format!("abort {}-1", case.name);
                given(&case.command(ANNA, &bound).object()?, Some(&bound), Some(ANNA))
            },
        },
        Row {
            promise: "a pending command stays until the operator takes it",
            who: "joe, a GitOps tool",
            what: "command removed by annotate, by PUT, by annotations: null; spec applied from Git",
            expected: "put back with its stamp",
            check: |case| {
                case.release()?;
                case.command(ANNA, "abort").accepted()?;
                let there = |object: Value| given(&object, Some("abort"), Some(ANNA));
                there(
                    case.annotate(
                        JOE,
                        "canaryrelease",
                        &["canaryrelease.dev/command-", "canaryrelease.dev/command-by-"],
                    )
                    .object()?,
                )?;
                there(case.replace(ARGO, &case.canary_release()).object()?)?;
                there(
                    case.patch(JOE, "canaryrelease", "merge", &json!({"metadata": {"annotations": null}})).object()?,
                )?;
                there(
                    case.patch(
                        JOE,
                        "canaryrelease",
                        "merge",
                        &json!({"metadata": {"annotations": {"canaryrelease.dev/command": ""}}}),
                    )
                    .object()?,
                )?;
                there(case.sync(ARGO, &case.canary_release()).object()?)
            },
        },
        Row {
            promise: "a command's stamp cannot be forged",
            who: "joe, anna",
            what: "command-by alone; command-by with a command; command-by altered; the same command by another",
            expected: "taken off; stamped with the real name; put back; first name stays",
            check: |case| {
                case.release()?;
                let forged = "canaryrelease.dev/command-by=boss";
                given(&case.annotate(JOE, "canaryrelease", &[forged]).object()?, None, None)?;
                let seen =
                    case.annotate(ANNA, "canaryrelease", &[forged, "canaryrelease.dev/command=abort"]).object()?;
                given(&seen, Some("abort"), Some(ANNA))?;
                given(&case.annotate(JOE, "canaryrelease", &[forged]).object()?, Some("abort"), Some(ANNA))?;
                given(&case.command(ABE, "abort").object()?, Some("abort"), Some(ANNA))
            },
        },
        Row {
            promise: "a command given at creation is stamped and checked",
            who: "joe, abe",
            what: "create with abort and a forged stamp; create with a forged stamp alone",
            expected: "refused; stamped abe; taken off",
            check: |case| {
                let create = |user: &str, notes: Value, name: &str| {
                    let mut object = case.canary_release();
                    merge(&mut object, &json!({"metadata": {"name": name, "annotations": notes}}));
                    case.kubectl_with(user, &["create", "-f", "-", "-o", "json"], Some(&object.to_string()))
                };
                let abort = json!({"canaryrelease.dev/command": "abort", "canaryrelease.dev/command-by": "boss"});
                create(JOE, abort.clone(), &case.name).refused(&["may not abort"])?;
                given(&create(ABE, abort, &case.name).object()?, Some("abort"), Some(ABE))?;
                let alone = json!({"canaryrelease.dev/command-by": "boss"});
                given(&create(JOE, alone, &format!("{}-b", case.name)).object()?, None, None)
            },
        },
        Row {
            promise: "the status cannot carry a command",
            who: "an administrator",
            what: "command and stamp through /status",
            expected: "refused, and not taken over",
            check: |case| {
                case.release()?;
                let patch = json!({"metadata": {"annotations": {"canaryrelease.dev/command": "abort", "canaryrelease.dev/command-by": "x"}}});
                case.patch_by("", "ci", "canaryrelease", "merge", &patch, &["--subresource=status"])
                    .refused(&["is written by the operator alone"])?;
                given(&case.now("canaryrelease")?, None, None)
            },
        },
        Row {
            promise: "commands stand in nobody else's way",
            who: "joe, nora",
            what: "other annotations and labels; deletion with a command pending",
            expected: "passes",
            check: |case| {
                case.release()?;
                case.command(ANNA, "abort").accepted()?;
                let seen = case.annotate(NORA, "canaryrelease", &["note=x"]).object()?;
                expect("note", at(&seen, "/metadata/annotations/note"), &json!("x"))?;
                case.kubectl(JOE, &["label", "canaryrelease", &case.name, "team=a"]).accepted()?;
                case.kubectl(JOE, &["delete", "canaryrelease", &case.name]).accepted().map(drop)
            },
        },
        Row {
            promise: "a name with dots may be commanded",
            who: "anna",
            what: "promote of release shop.web-12 by its id",
            expected: "accepted",
            check: |case| {
                let case = Case::named(case.world(), format!("{}.web", case.name));
                case.release()?;
                let command = format!("promote {}-12", case.name);
                given(&case.command(ANNA, &command).object()?, Some(&command), Some(ANNA))
            },
        },
    ]
}
