//! Jobs: the mark by which the operator knows its own is given by the operator alone; Jobs without it are anybody's.

use serde_json::{Value, json};

use super::Row;
use crate::case::{Case, Check, at, expect, merge, note};
use crate::kubectl::Answer;
use crate::world::{ARGO, FLUX, JOE, OPERATOR};

const WORDS: [&str; 2] = ["one of a release", "annotation canaryrelease.dev/uid is given by the operator alone"];
/// Makes Jobs of all CronJobs.
const CRON_JOBS: &str = "system:serviceaccount:kube-system:cronjob-controller";
/// Writes the status of all Jobs.
const JOBS: &str = "system:serviceaccount:kube-system:job-controller";

/// A Job that never makes a pod.
fn plain(case: &Case<'_>) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": case.name, "namespace": case.namespace()},
        "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "true", "image": "example.com/true:1"}]}}}})
}

fn marked(case: &Case<'_>) -> Value {
    let mut job = plain(case);
    let mark =
        json!({"labels": {"canaryrelease.dev/owned-by": "web"}, "annotations": {"canaryrelease.dev/uid": "uid-1"}});
    merge(&mut job, &json!({"metadata": mark}));
    job
}

fn create(case: &Case<'_>, user: &str, job: &Value, more: &[&str]) -> Answer {
    let mut args = vec!["create", "-f", "-", "-o", "json"];
    args.extend_from_slice(more);
    case.kubectl_with(user, &args, Some(&job.to_string()))
}

/// A Job of joe's with the mark, tried only.
pub(super) fn probe(case: &Case<'_>) -> Check {
    create(case, JOE, &marked(case), &["--dry-run=server"]).refused(&WORDS)
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            promise: "nobody forges a Job of a release",
            who: "joe, GitOps tools, an administrator, the controller of CronJobs",
            what: "create of a Job with the mark, also by apply and as a dry run",
            expected: "refused, with what to leave out; there is no Job; the operator is accepted",
            check: |case| {
                let dry: &[&str] = &["--dry-run=server"];
                for user in [JOE, FLUX, ARGO, "", CRON_JOBS] {
                    create(case, user, &marked(case), &[]).refused(&WORDS)?;
                    create(case, user, &marked(case), dry).refused(&WORDS)?;
                }
                case.sync(FLUX, &marked(case)).refused(&WORDS)?;
                expect("the Job is there", case.now("job").is_ok(), false)?;
                let made = create(case, OPERATOR, &marked(case), &[]).object()?;
                expect("uid", note(&made, "uid"), Some("uid-1"))
            },
        },
        Row {
            promise: "no Job becomes one of a release later",
            who: "joe, argo, an administrator",
            what: "the mark put on a plain Job; another mark on one of the operator's, also by way of the status",
            expected: "refused; both stay as they are",
            check: |case| {
                create(case, JOE, &plain(case), &[]).accepted()?;
                let other = Case::named(case.world(), format!("{}-ours", case.name));
                create(&other, OPERATOR, &marked(&other), &[]).accepted()?;
                let forged = json!({"metadata": {"annotations": {"canaryrelease.dev/uid": "uid-2"}}});
                for user in [JOE, ARGO, ""] {
                    for job in [case, &other] {
                        job.patch(user, "job", "merge", &forged).refused(&WORDS)?;
                        job.annotate(user, "job", &["canaryrelease.dev/uid=uid-2"]).refused(&WORDS)?;
                    }
                }
                for job in [case, &other] {
                    job.patch_by(ARGO, "kubectl-patch", "job", "merge", &forged, &["--subresource=status"])
                        .refused(&WORDS)?;
                }
                expect("uid", note(&case.now("job")?, "uid"), None)?;
                expect("uid", note(&other.now("job")?, "uid"), Some("uid-1"))
            },
        },
        Row {
            promise: "all else of Jobs stays as it is without us",
            who: "the controller of Jobs, joe",
            what: "status, finalizers and labels of a Job of the operator's; a Job without the mark; delete",
            expected: "accepted",
            check: |case| {
                create(case, OPERATOR, &marked(case), &[]).accepted()?;
                let mut job = case.now("job")?;
                merge(&mut job, &json!({"status": {"failed": 1}}));
                let args = ["replace", "--subresource=status", "-f", "-", "-o", "json"];
                let seen = case.kubectl_with(JOBS, &args, Some(&job.to_string())).object()?;
                expect("failed", at(&seen, "/status/failed"), &json!(1))?;
                for finalizers in [json!(["example.com/keep"]), json!([])] {
                    let patch = json!({"metadata": {"finalizers": finalizers}});
                    case.patch(JOBS, "job", "merge", &patch).accepted()?;
                }
                case.patch(JOE, "job", "merge", &json!({"metadata": {"labels": {"team": "shop"}}})).accepted()?;
                case.patch(JOE, "job", "merge", &json!({"spec": {"suspend": false}})).accepted()?;
                case.kubectl(JOE, &["delete", "job", &case.name, "--wait=false"]).accepted()?;
                let other = Case::named(case.world(), format!("{}-plain", case.name));
                for user in [JOE, FLUX, ARGO] {
                    create(&other, user, &plain(&other), &["--dry-run=server"]).accepted()?;
                }
                let mut labelled = plain(&other);
                merge(&mut labelled, &json!({"metadata": {"annotations": {"example.com/uid": "uid-1"}}}));
                create(&other, JOE, &labelled, &[]).accepted().map(drop)
            },
        },
    ]
}
