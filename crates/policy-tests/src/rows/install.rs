//! The manifests themselves: applied again they change nothing, and the operator's rights are what they should be.

use super::Row;
use crate::case::{at, expect};
use crate::world::{OPERATOR, POLICIES, repository};

/// What the operator may do in any namespace.
const MAY: [&str; 20] = [
    "update canaryreleases.canaryrelease.dev/status",
    "patch canaryreleases.canaryrelease.dev",
    "create releaserecords.canaryrelease.dev",
    "list releaserecords.canaryrelease.dev",
    "delete releaserecords.canaryrelease.dev",
    "update releaserecords.canaryrelease.dev/status",
    "create deployments.apps",
    "patch deployments.apps",
    "delete deployments.apps",
    "patch replicasets.apps",
    "list pods",
    "get pods/log",
    "create jobs.batch",
    "get jobs.batch",
    "get cronjobs.batch",
    "create services",
    "patch httproutes.gateway.networking.k8s.io",
    "patch horizontalpodautoscalers.autoscaling",
    "create events.events.k8s.io",
    "watch mutatingadmissionpolicies.admissionregistration.k8s.io",
];
/// What it may not, although others of its kind can.
const MAY_NOT: [&str; 16] = [
    "get secrets",
    "get configmaps",
    "create pods",
    "create pods/exec",
    "delete pods",
    "delete jobs.batch",
    "patch jobs.batch",
    "list jobs.batch",
    "create cronjobs.batch",
    "delete canaryreleases.canaryrelease.dev",
    "update releaserecords.canaryrelease.dev",
    "patch releaserecords.canaryrelease.dev",
    "delete httproutes.gateway.networking.k8s.io",
    "patch mutatingadmissionpolicies.admissionregistration.k8s.io",
    "create roles.rbac.authorization.k8s.io",
    "create leases.coordination.k8s.io",
];

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            promise: "every policy is found by its label",
            who: "the operator",
            what: "list of policies and bindings of part-of=canaryrelease",
            expected: "four mutating and seven validating policies, each with its binding",
            check: |case| {
                for (kind, names) in [
                    (
                        "mutatingadmissionpolicy",
                        vec![
                            "canaryrelease-command",
                            "canaryrelease-hold",
                            "canaryrelease-override",
                            "canaryrelease-route",
                        ],
                    ),
                    (
                        "validatingadmissionpolicy",
                        vec![
                            "canaryrelease-command-check",
                            "canaryrelease-guard",
                            "canaryrelease-job",
                            "canaryrelease-record",
                            "canaryrelease-route-warning",
                            "canaryrelease-status",
                            "canaryrelease-writer",
                        ],
                    ),
                ] {
                    for kind in [kind.to_owned(), format!("{kind}binding")] {
                        let args = ["get", &kind, "-l", "app.kubernetes.io/part-of=canaryrelease", "-o", "json"];
                        let list = case.kubectl(OPERATOR, &args).object()?;
                        let mut seen: Vec<&str> = at(&list, "/items")
                            .as_array()
                            .into_iter()
                            .flatten()
                            .filter_map(|item| at(item, "/metadata/name").as_str())
                            .collect();
                        seen.sort_unstable();
                        expect(&kind, seen, names.clone())?;
                    }
                }
                Ok(())
            },
        },
        Row {
            promise: "the type checker finds nothing in the policies",
            who: "the API server",
            what: "status.typeChecking of the validating policies",
            expected: "no warnings",
            check: |case| {
                let args =
                    ["get", "validatingadmissionpolicy", "-l", "app.kubernetes.io/part-of=canaryrelease", "-o", "json"];
                let list = case.kubectl("", &args).object()?;
                for item in at(&list, "/items").as_array().into_iter().flatten() {
                    let warnings = at(item, "/status/typeChecking/expressionWarnings");
                    if !warnings.is_null() {
                        return Err(format!("{}: {warnings}", at(item, "/metadata/name")));
                    }
                }
                Ok(())
            },
        },
        Row {
            promise: "applying the policies again changes nothing",
            who: "an administrator",
            what: "kubectl apply of deploy/, twice, client-side",
            expected: "unchanged",
            check: |case| {
                for file in POLICIES {
                    let path = repository(&format!("deploy/{file}"));
                    let said = case.kubectl("", &["apply", "-f", &path.to_string_lossy()]).accepted()?;
                    if let Some(line) = said.out.lines().find(|line| !line.ends_with("unchanged")) {
                        return Err(line.to_owned());
                    }
                }
                Ok(())
            },
        },
        Row {
            promise: "every manifest is valid, in order",
            who: "an administrator",
            what: "server-side dry run of kubectl apply -f deploy/ and of -k deploy/",
            expected: "accepted, no warning; both name the same objects",
            check: |case| {
                let directory = repository("deploy").to_string_lossy().into_owned();
                // They live in a namespace of their own: no -n here.
                let plain = case.world().admin(&["apply", "-f", &directory, "--dry-run=server"], None).accepted()?;
                if plain.err.contains("Warning") {
                    return Err(plain.err);
                }
                let kustomized =
                    case.world().admin(&["apply", "-k", &directory, "--dry-run=server"], None).accepted()?;
                let count = |said: &str| said.lines().count();
                expect("objects", count(&kustomized.out), count(&plain.out))
            },
        },
        Row {
            promise: "the operator's rights are enough and no more",
            who: "the operator",
            what: "kubectl auth can-i for what it does and what it must not",
            expected: "yes; no; the lease only in its own namespace",
            check: |case| {
                let may = |what: &str, namespace: &str| -> Result<bool, String> {
                    let (verb, resource) = what.split_once(' ').ok_or("a row is misspelt")?;
                    let mut args = vec!["auth", "can-i", verb];
                    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                    let subresource = format!("--subresource={subresource}");
                    args.extend([resource, &subresource, "-n", namespace]);
                    Ok(case.world().kubectl.call(OPERATOR, &args, None, None).out.trim() == "yes")
                };
                for what in MAY {
                    expect(what, may(what, case.namespace())?, true)?;
                }
                for what in MAY_NOT {
                    expect(what, may(what, case.namespace())?, false)?;
                }
                expect("lease", may("update leases.coordination.k8s.io", "canaryrelease-system")?, false)?;
                expect("lease", may("create leases.coordination.k8s.io", "canaryrelease-system")?, true)?;
                Ok(())
            },
        },
    ]
}
