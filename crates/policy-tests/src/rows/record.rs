//! Records: the status is the operator's, and nobody's once its release is over; the spec is people's.

use serde_json::{Value, json};

use super::Row;
use crate::case::{Case, at, expect, merge};
use crate::kubectl::Answer;
use crate::world::{ARGO, OPERATOR};

/// Makes the row's record.
pub(super) fn make(case: &Case<'_>) -> Result<Value, String> {
    case.create(&json!({"apiVersion": "canaryrelease.dev/v1alpha1", "kind": "ReleaseRecord",
        "metadata": {"name": case.name, "namespace": case.namespace()}, "spec": {}}))
}

/// A write of its status.
pub(super) fn state(case: &Case<'_>, user: &str, status: &Value, more: &[&str]) -> Answer {
    let mut object = case.now("releaserecord").unwrap_or_default();
    merge(&mut object, &json!({"status": status}));
    let mut args = vec!["replace", "--subresource=status", "-f", "-", "-o", "json"];
    args.extend_from_slice(more);
    case.kubectl_with(user, &args, Some(&object.to_string()))
}

fn status_of(case: &Case<'_>) -> Result<Value, String> {
    Ok(at(&case.now("releaserecord")?, "/status").clone())
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            promise: "what the operator wrote down is nobody else's to change",
            who: "argo, who may do anything in the namespace",
            what: "a replace of a record's status",
            expected: "refused, with what to edit instead; the spec is accepted",
            check: |case| {
                make(case)?;
                let words = ["is written by the operator alone", "edit releaserecord"];
                state(case, ARGO, &json!({"result": "SUCCESS"}), &[]).refused(&words)?;
                let spec =
                    json!({"spec": {"summary": "what it is for", "changes": {"features": ["Search: finds more"]}}});
                let seen = case.patch(ARGO, "releaserecord", "merge", &spec).object()?;
                expect("summary", at(&seen, "/spec/summary"), &json!("what it is for"))?;
                expect("status", at(&seen, "/status"), &Value::Null)
            },
        },
        Row {
            promise: "a record whose release is over stays as it is",
            who: "the operator; argo",
            what: "the status once more after it is frozen; the spec",
            expected: "accepted until frozen, then refused; the spec stays open",
            check: |case| {
                make(case)?;
                state(case, OPERATOR, &json!({"id": "web-1", "message": "under way"}), &[]).accepted()?;
                state(case, OPERATOR, &json!({"message": "over", "frozen": true}), &[]).accepted()?;
                let before = status_of(case)?;
                for again in [json!({"message": "otherwise"}), json!({"frozen": false}), json!({"id": null})] {
                    state(case, OPERATOR, &again, &[]).refused(&["is frozen: its release is over"])?;
                }
                expect("status", status_of(case)?, before)?;
                let spec = json!({"spec": {"rollback": {"rootCause": "an index was missing"}}});
                case.patch(ARGO, "releaserecord", "merge", &spec).accepted().map(drop)
            },
        },
        Row {
            promise: "no text makes a record too large",
            who: "argo",
            what: "texts, lists and a sum beyond the limits",
            expected: "refused by name of the field; the sum too",
            check: |case| {
                make(case)?;
                let write = |spec: Value| case.patch(ARGO, "releaserecord", "merge", &json!({"spec": spec}));
                write(json!({"summary": "x".repeat(2001)})).refused(&["spec.summary"])?;
                write(json!({"changes": {"fixes": vec!["x"; 31]}})).refused(&["spec.changes.fixes"])?;
                let many = vec!["x".repeat(400); 30];
                let most = "at most 12000 bytes";
                write(json!({"changes": {"fixes": many, "features": many}})).refused(&[most])?;
                write(json!({"changes": {"fixes": vec!["\"".repeat(400); 20]}})).refused(&[most])?;
                write(json!({"changes": {"fixes": vec!["<".repeat(400); 6]}})).refused(&[most])?;
                let item = json!({"text": "x".repeat(80), "done": true});
                write(json!({"goNoGo": {"by": "x".repeat(101)}})).refused(&["spec.goNoGo.by"])?;
                write(json!({"goNoGo": {"checklist": vec![item.clone(); 41]}})).refused(&["spec.goNoGo.checklist"])?;
                let fixes = vec!["x".repeat(400); 20];
                write(json!({"changes": {"fixes": fixes}, "goNoGo": {"checklist": vec![item; 40]}}))
                    .refused(&[most])?;
                write(json!({"changes": {"fixes": fixes}})).accepted()?;
                // 30 entries of 3 bytes beside their texts: 11,600 + 310 + 90 are 12,000.
                let full = |last: usize| {
                    let mut fixes = vec!["x".repeat(400); 29];
                    fixes.push("x".repeat(last));
                    write(json!({"changes": {"fixes": fixes}}))
                };
                full(311).refused(&[most])?;
                full(310).accepted()?;
                write(json!({"incident": {"timeline": vec![json!({"at": "now", "text": "x".repeat(200)}); 20]}}))
                    .refused(&[most])
            },
        },
        Row {
            promise: "texts of a record hold no control characters",
            who: "argo",
            what: "control characters in texts of any depth; line breaks and tabs",
            expected: "the former refused, the latter accepted",
            check: |case| {
                make(case)?;
                let write = |spec: Value| case.patch(ARGO, "releaserecord", "merge", &json!({"spec": spec}));
                let odd = "a\u{1b}[31m";
                for spec in [
                    json!({"summary": odd}),
                    json!({"version": odd}),
                    json!({"changes": {"fixes": ["x", odd]}}),
                    json!({"changes": {"configMap": odd}}),
                    json!({"risks": [{"mitigation": ["\u{0}"]}]}),
                    json!({"goNoGo": {"decision": odd}}),
                    json!({"signOff": {"approvers": [odd]}}),
                    json!({"nextRelease": {"date": odd}}),
                    json!({"incident": {"actions": [{"owner": "\u{85}"}]}}),
                ] {
                    write(spec).refused(&["a control character"])?;
                }
                write(json!({"summary": "a\n\tb\r\n", "goNoGo": {"by": "jane"}})).accepted().map(drop)
            },
        },
    ]
}
