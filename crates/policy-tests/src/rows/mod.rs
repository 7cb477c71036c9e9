//! The rows: who writes what, and what must come of it.

mod break_glass;
mod command;
mod gone;
mod hold;
mod install;
mod job;
mod record;
mod rolling;
mod route;
mod spec;
mod writer;

use serde_json::json;

use crate::case::{Case, Check, Target, held_for, note};
use crate::world::{ANNA, ARGO, JOE, NORA};

/// One fact about the policies.
pub(crate) struct Row {
    pub(crate) promise: &'static str,
    pub(crate) who: &'static str,
    pub(crate) what: &'static str,
    pub(crate) expected: &'static str,
    pub(crate) check: fn(&Case<'_>) -> Check,
}

/// Every row that leaves the cluster's policies alone.
pub(crate) fn all() -> Vec<Row> {
    [
        hold::rows(),
        rolling::rows(),
        break_glass::rows(),
        command::rows(),
        route::rows(),
        writer::rows(),
        record::rows(),
        job::rows(),
        spec::rows(),
        install::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The rows that take policies or the CRD away.
pub(crate) fn disruptive() -> Vec<Row> {
    gone::rows()
}

type Probe = (&'static str, fn(&Case<'_>) -> Check);

/// One dry run or refusal for each policy that only it can bring about.
pub(crate) const PROBES: [Probe; 10] = [
    ("canaryrelease-hold", |case| {
        present(case, "deployment", |case| case.target(Target::Armed))?;
        let dry = ["--dry-run=server"];
        let seen = case.patch_by(JOE, "kubectl-patch", "deployment", "strategic", &case.push(2), &dry).object()?;
        held_for(&seen, JOE)
    }),
    ("canaryrelease-guard", |case| {
        present(case, "deployment", |case| case.target(Target::Held))?;
        case.patch_by(
            JOE,
            "kubectl-patch",
            "deployment",
            "merge",
            &json!({"spec": {"paused": false}}),
            &["--dry-run=server"],
        )
        .refused(&["held by CanaryRelease"])
    }),
    ("canaryrelease-override", |case| {
        present(case, "deployment", |case| case.target(Target::Armed))?;
        let seen = case.annotate(ANNA, "deployment", &["canaryrelease.dev/override=x", "--dry-run=server"]).object()?;
        if note(&seen, "override-by") == Some(ANNA) { Ok(()) } else { Err("no stamp".into()) }
    }),
    ("canaryrelease-command", |case| {
        present(case, "canaryrelease", |case| case.release())?;
        let seen =
            case.annotate(ANNA, "canaryrelease", &["canaryrelease.dev/command=abort", "--dry-run=server"]).object()?;
        if note(&seen, "command-by") == Some(ANNA) { Ok(()) } else { Err("no stamp".into()) }
    }),
    ("canaryrelease-command-check", |case| {
        present(case, "canaryrelease", |case| case.release())?;
        case.annotate(JOE, "canaryrelease", &["canaryrelease.dev/command=abort", "--dry-run=server"])
            .refused(&["may not abort"])
    }),
    ("canaryrelease-route and its warning", |case| {
        present(case, "httproute", |case| case.split_route(900, 100))?;
        let patch = json!([{"op": "replace", "path": "/spec/rules/0/backendRefs/1/weight", "value": 500}]);
        let answer =
            case.patch_by(JOE, "kubectl-patch", "httproute", "json", &patch, &["--dry-run=server"]).accepted()?;
        if answer.err.contains("is kept as it is") {
            route::split_is(&answer.object()?, 0, 900, 100)
        } else {
            Err("no warning".into())
        }
    }),
    ("canaryrelease-writer", |case| {
        case.kubectl_with(NORA, &["create", "--dry-run=server", "-f", "-"], Some(&case.canary_release().to_string()))
            .refused(&["may not write CanaryRelease"])
    }),
    ("canaryrelease-status", |case| {
        present(case, "canaryrelease", |case| case.release())?;
        case.status_by(ARGO, &json!({"phase": "Idle"}), &["--dry-run=server"]).refused(&["by the operator alone"])
    }),
    ("canaryrelease-record", |case| {
        present(case, "releaserecord", record::make)?;
        record::state(case, ARGO, &json!({"message": "mine"}), &["--dry-run=server"])
            .refused(&["by the operator alone"])
    }),
    ("canaryrelease-job", job::probe),
];

fn present(case: &Case<'_>, kind: &str, make: fn(&Case<'_>) -> Result<serde_json::Value, String>) -> Check {
    if case.now(kind).is_ok() { Ok(()) } else { make(case).map(drop) }
}
