//! What all rows share: the CRDs, the policies under test, one namespace, and users with their rights.
//! It waits until every policy acts, so that no row sees a policy that is not loaded yet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Error;
use crate::case::Case;
use crate::kubectl::{Answer, Kubectl};

/// The operator, as `deploy/` installs it.
pub(crate) const OPERATOR: &str = "system:serviceaccount:canaryrelease-system:canaryrelease-operator";
/// A developer: writes Deployments, routes and CanaryReleases; has no verb of ours.
pub(crate) const JOE: &str = "policy-tests:joe";
/// On call: a developer with every verb of ours.
pub(crate) const ANNA: &str = "policy-tests:anna";
/// A developer who may abort, and nothing else of ours.
pub(crate) const ABE: &str = "policy-tests:abe";
/// Writes CanaryReleases, and neither Deployments nor routes.
pub(crate) const NORA: &str = "policy-tests:nora";
/// Writes CanaryReleases and Deployments, and no routes.
pub(crate) const DORA: &str = "policy-tests:dora";
/// A tool that syncs from Git, with a developer's rights.
pub(crate) const FLUX: &str = "system:serviceaccount:flux-system:kustomize-controller";
/// A tool that syncs from Git and may do anything in the namespace.
pub(crate) const ARGO: &str = "system:serviceaccount:argocd:argocd-application-controller";

/// The policies of `deploy/`, in the order in which they are applied.
pub(crate) const POLICIES: [&str; 5] = [
    "20-policy-deployment.yaml",
    "21-policy-command.yaml",
    "22-policy-route.yaml",
    "23-policy-writer.yaml",
    "24-policy-record.yaml",
];
const OTHERS: [&str; 2] = ["00-namespace.yaml", "10-rbac.yaml"];
/// The oldest Gateway API whose HTTPRoute we speak.
const GATEWAY_API: &str = "sigs.k8s.io/gateway-api@v1.4.0";
const LOADED_WITHIN: Duration = Duration::from_secs(60);

/// The prepared cluster.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) kubectl: Kubectl,
    pub(crate) namespace: String,
}

/// A file of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

impl World {
    pub(crate) fn prepare(kubectl: Kubectl) -> Result<Self, Error> {
        let world = Self { kubectl, namespace: format!("policy-tests-{}", std::process::id()) };
        let done = world.install().and_then(|()| world.people()).and_then(|()| world.loaded());
        match done {
            Ok(()) => Ok(world),
            Err(why) => {
                world.remove();
                Err(Error::Prepare(why))
            }
        }
    }

    /// Takes away what this run made. The CRDs and `deploy/` stay.
    pub(crate) fn remove(&self) {
        self.admin(&["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"], None);
        self.admin(&["delete", "clusterrole", "-l", &self.mark(), "--ignore-not-found"], None);
    }

    pub(crate) fn admin(&self, args: &[&str], input: Option<&str>) -> Answer {
        self.kubectl.call("", args, input, None)
    }

    /// Applies the policies as they stand in the repository; waits until they act.
    pub(crate) fn install_policies(&self) -> Result<(), String> {
        let mut changed = false;
        for file in OTHERS.iter().chain(&POLICIES) {
            let path = repository(&format!("deploy/{file}"));
            let said = self.admin(&["apply", "-f", &path.to_string_lossy()], None).accepted()?;
            changed |= said.out.lines().any(|line| line.ends_with("configured"));
        }
        if changed {
            // An older policy of the same name acts until the server has read the new one, and nothing tells
            // the two apart: it reads once a second.
            std::thread::sleep(Duration::from_secs(3));
        }
        Ok(())
    }

    fn install(&self) -> Result<(), String> {
        if self.admin(&["get", "crd", "httproutes.gateway.networking.k8s.io"], None).code != 0 {
            let file = gateway_api()?.join("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml");
            self.admin(&["apply", "--server-side", "-f", &file.to_string_lossy()], None).accepted()?;
        }
        self.install_crd()?;
        self.install_policies()
    }

    pub(crate) fn install_crd(&self) -> Result<(), String> {
        let folder = repository("crds");
        self.admin(&["apply", "--server-side", "--force-conflicts", "-f", &folder.to_string_lossy()], None)
            .accepted()?;
        for crd in [
            "canaryreleases.canaryrelease.dev",
            "releaserecords.canaryrelease.dev",
            "httproutes.gateway.networking.k8s.io",
        ] {
            self.admin(&["wait", "--for=condition=Established", "--timeout=60s", "crd", crd], None).accepted()?;
        }
        Ok(())
    }

    fn mark(&self) -> String {
        format!("policy-tests={}", self.namespace)
    }

    fn people(&self) -> Result<(), String> {
        let all = json!(["get", "list", "watch", "create", "update", "patch", "delete"]);
        let ours =
            |verbs: Value| json!({"apiGroups": ["canaryrelease.dev"], "resources": ["canaryreleases"], "verbs": verbs});
        let apps = json!({"apiGroups": ["apps"],
            "resources": ["deployments", "deployments/scale", "deployments/status", "replicasets"], "verbs": all});
        let routes = json!({"apiGroups": ["gateway.networking.k8s.io"], "resources": ["httproutes"], "verbs": all});
        // For the jobs of a release: one Role may have them all.
        let jobs = json!({"apiGroups": ["batch", ""], "resources": ["jobs", "cronjobs", "pods/log"], "verbs": all});
        let verbs = json!(["abort", "pause", "resume", "approve", "promote", "retry", "override"]);
        let objects = [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}),
            self.role("developer", &json!([apps, routes, jobs, ours(all.clone())])),
            self.role("releaser", &json!([ours(verbs)])),
            self.role("aborter", &json!([ours(json!(["abort"]))])),
            self.role("writer", &json!([ours(all.clone())])),
            self.role("deployer", &json!([apps])),
            self.role("everything", &json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])),
            self.binding("developer", &[JOE, ANNA, ABE, FLUX]),
            self.binding("releaser", &[ANNA]),
            self.binding("aborter", &[ABE]),
            self.binding("writer", &[NORA, DORA]),
            self.binding("deployer", &[DORA]),
            self.binding("everything", &[ARGO]),
        ];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.admin(&["create", "-f", "-"], Some(&list.to_string())).accepted().map(drop)
    }

    fn role(&self, name: &str, rules: &Value) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": format!("{}-{name}", self.namespace), "labels": {"policy-tests": self.namespace}},
            "rules": rules})
    }

    fn binding(&self, name: &str, users: &[&str]) -> Value {
        let subjects: Vec<Value> = users.iter().map(|user| subject(user)).collect();
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": self.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": format!("{}-{name}", self.namespace)},
            "subjects": subjects})
    }

    /// Waits until each policy has been seen to act, by writes whose outcome only it can bring about.
    pub(crate) fn loaded(&self) -> Result<(), String> {
        let started = Instant::now();
        for (number, (policy, acts)) in crate::rows::PROBES.iter().enumerate() {
            let case = Case::named(self, format!("probe-{}-{number}", std::process::id()));
            loop {
                match acts(&case) {
                    Ok(()) => break,
                    Err(why) if started.elapsed() > LOADED_WITHIN => {
                        return Err(format!(
                            "{policy} does not act {}s after it was applied: {why}",
                            LOADED_WITHIN.as_secs()
                        ));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(200)),
                }
            }
        }
        Ok(())
    }
}

fn subject(user: &str) -> Value {
    let mut parts = user.split(':').skip(2);
    match (user.starts_with("system:serviceaccount:"), parts.next(), parts.next()) {
        (true, Some(namespace), Some(name)) => {
            json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
        }
        _ => json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}),
    }
}

/// The Gateway API's directory in Go's module cache, fetched if it is not there.
fn gateway_api() -> Result<PathBuf, String> {
    let output = Command::new("go")
        .args(["mod", "download", "-json", GATEWAY_API])
        .current_dir(std::env::temp_dir())
        .output()
        .map_err(|error| format!("cannot run go to fetch {GATEWAY_API}: {error}"))?;
    let answer: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("go mod download {GATEWAY_API}: {error}"))?;
    match answer.pointer("/Dir").and_then(Value::as_str) {
        Some(dir) => Ok(dir.into()),
        None => Err(format!("go mod download {GATEWAY_API}: {answer}")),
    }
}
