//! Policies or the CRD gone, or installed by half: nothing is blocked, and what is left keeps working.

use serde_json::json;

use super::Row;
use crate::case::{Case, Check, Target, at, eventually, expect, held_for, merge, not_paused, note};
use crate::world::{ANNA, JOE, OPERATOR};

fn without(case: &Case<'_>, objects: &[&str], check: impl Fn() -> Check) -> Check {
    // One that does not go (an object with a finalizer keeps its CRD) is said, not waited for without end.
    let gone = objects
        .iter()
        .try_for_each(|object| case.kubectl("", &["delete", object, "--timeout=60s"]).accepted().map(drop));
    let outcome = gone.and_then(|()| check());
    case.world().install_crd()?;
    case.world().install_policies()?;
    case.world().loaded()?;
    outcome
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            promise: "no hold: said by the dry run, nothing blocked",
            who: "the operator, joe",
            what: "the hold's binding is gone: dry run of the operator, push by joe, resume by joe",
            expected: "comes back un-paused; passes un-held; still refused for a held one",
            check: |case| {
                case.target(Target::Armed)?;
                let held = Case::named(case.world(), format!("{}-held", case.name));
                held.target(Target::Held)?;
                without(case, &["mutatingadmissionpolicybinding/canaryrelease-hold"], || {
                    eventually(|| {
                        let dry = ["--dry-run=server"];
                        not_paused(
                            &case
                                .patch_by(
                                    OPERATOR,
                                    "canaryrelease-operator",
                                    "deployment",
                                    "strategic",
                                    &case.push(2),
                                    &dry,
                                )
                                .object()?,
                        )
                    })?;
                    not_paused(&case.patch(JOE, "deployment", "strategic", &case.push(2)).object()?)?;
                    held.kubectl(JOE, &["rollout", "resume", &format!("deployment/{}", held.name)])
                        .refused(&["held by CanaryRelease"])?;
                    let mut patch = json!({"spec": {"paused": false}});
                    merge(&mut patch, &json!({"metadata": {"annotations": {"canaryrelease.dev/override": "INC-42"}}}));
                    not_paused(&held.patch(ANNA, "deployment", "merge", &patch).object()?)
                })
            },
        },
        Row {
            promise: "no guard: nothing blocked",
            who: "joe",
            what: "the guard is gone: push, resume",
            expected: "held; passes",
            check: |case| {
                case.target(Target::Armed)?;
                without(case, &["validatingadmissionpolicy/canaryrelease-guard"], || {
                    held_for(&case.patch(JOE, "deployment", "strategic", &case.push(2)).object()?, JOE)?;
                    eventually(|| {
                        case.kubectl(JOE, &["rollout", "resume", &format!("deployment/{}", case.name)])
                            .accepted()
                            .map(drop)
                    })
                })
            },
        },
        Row {
            promise: "no CRD: nothing blocked, the hold stays",
            who: "joe, anna",
            what: "the CRD of CanaryRelease is deleted: push, scale, resume, override",
            expected: "held; passes; refused; passes",
            check: |case| {
                case.target(Target::Armed)?;
                without(case, &["crd/canaryreleases.canaryrelease.dev"], || {
                    let seen = case.patch(JOE, "deployment", "strategic", &case.push(2)).object()?;
                    held_for(&seen, JOE)?;
                    let target = format!("deployment/{}", case.name);
                    case.kubectl(JOE, &["scale", &target, "--replicas=0"]).accepted()?;
                    case.kubectl(JOE, &["rollout", "resume", &target]).refused(&["held by CanaryRelease"])?;
                    case.annotate(ANNA, "deployment", &["canaryrelease.dev/override=INC-42"]).accepted()?;
                    case.kubectl(ANNA, &["rollout", "resume", &target]).accepted()?;
                    expect("override-by", note(&case.now("deployment")?, "override-by"), Some(ANNA))
                })
            },
        },
        Row {
            promise: "no policies: as without us",
            who: "joe",
            what: "all policies deleted: push, resume, a route applied, a command",
            expected: "passes, unstamped",
            check: |case| {
                case.target(Target::Armed)?;
                case.split_route(950, 50)?;
                case.release()?;
                let all = [
                    "mutatingadmissionpolicy/canaryrelease-hold",
                    "mutatingadmissionpolicy/canaryrelease-override",
                    "mutatingadmissionpolicy/canaryrelease-route",
                    "mutatingadmissionpolicy/canaryrelease-command",
                    "validatingadmissionpolicy/canaryrelease-guard",
                    "validatingadmissionpolicy/canaryrelease-command-check",
                    "validatingadmissionpolicy/canaryrelease-writer",
                    "validatingadmissionpolicy/canaryrelease-route-warning",
                    "validatingadmissionpolicy/canaryrelease-record",
                    "validatingadmissionpolicy/canaryrelease-status",
                    "validatingadmissionpolicy/canaryrelease-job",
                ];
                without(case, &all, || {
                    eventually(|| {
                        not_paused(
                            &case
                                .patch_by(JOE, "ci", "deployment", "strategic", &case.push(2), &["--dry-run=server"])
                                .object()?,
                        )
                    })?;
                    not_paused(&case.patch(JOE, "deployment", "strategic", &case.push(2)).object()?)?;
                    eventually(|| {
                        let seen = case.sync(JOE, &case.plain_route()).object()?;
                        expect("backends", at(&seen, "/spec/rules/0/backendRefs").as_array().map(Vec::len), Some(1))
                    })?;
                    eventually(|| case.command(JOE, "abort").accepted().map(drop))
                })
            },
        },
    ]
}
