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
                write(json!({"changes": {"fixes": many, "features": many}})).refused(&["at most 9000 bytes"])?;
                write(json!({"changes": {"fixes": vec!["x".repeat(400); 20]}})).accepted().map(drop)
            },
        },
    ]
}
