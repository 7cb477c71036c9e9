//! The place where scenarios play: a cluster with the operator installed as a user would install it,
//! from crds/ and deploy/. It decides what is installed and how; it plays no scenario.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::{Image, Lab};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::cluster::{Cluster, Kind, number, text};
use crate::rights;
use crate::setup::{Entrance, image};

/// The operator's namespace.
pub const SYSTEM: &str = "canaryrelease-system";
/// The operator's Deployment, ServiceAccount, ConfigMap and Lease.
pub const OPERATOR: &str = "canaryrelease-operator";
/// The operator's user.
pub const OPERATOR_USER: &str = "system:serviceaccount:canaryrelease-system:canaryrelease-operator";
/// Its image.
pub const OPERATOR_IMAGE: &str = "docker.io/lab/canary-operator:dev";

/// The image of the load client, for a cluster that is left up.
pub const LOAD_IMAGE: &str = "docker.io/lab/load:dev";

/// Versions of the shop that have an image, with what they are told besides their name.
const VERSIONS: [(&str, &[&str]); 9] = [
    ("v1", &[]),
    ("v2", &[]),
    ("v3", &[]),
    ("v4", &[]),
    ("v5", &[]),
    ("bad", &["--error-rate=0.5"]),
    ("slow", &["--latency-ms=1500"]),
    ("crash", &["--crash-after-ms=300"]),
    ("never", &["--startup-delay-ms=3000000"]),
];

/// A build that this one replaces.
#[derive(Debug, Clone)]
pub struct Previous {
    /// What it is called: a commit.
    pub name: String,
    /// Its checkout, with crds/ and deploy/.
    pub root: PathBuf,
    /// Its program.
    pub operator: PathBuf,
}

/// What is installed and how.
#[derive(Debug, Clone)]
pub struct Install {
    /// The checkout with crds/ and deploy/.
    pub root: PathBuf,
    /// The operator's program.
    pub operator: PathBuf,
    /// The demo shop's program.
    pub shop: PathBuf,
    /// How often Prometheus scrapes, as the operator is told.
    pub scrape_interval: Duration,
    /// The Prometheus that the operator asks.
    pub prometheus: String,
    /// What an upgrade begins with.
    pub previous: Option<Previous>,
}

/// A cluster with the operator in it.
#[derive(Debug)]
pub struct World {
    /// The cluster, as administrator.
    pub cluster: Cluster,
    /// The lab, where it is one of ours.
    pub lab: Option<Lab>,
    entrance: Entrance,
    install: Install,
}

impl World {
    /// In a lab. This process must run inside its network.
    ///
    /// # Errors
    /// If the lab cannot be reached.
    pub async fn in_lab(lab: Lab, install: Install) -> Result<Arc<Self>> {
        if !lab.is_inside() {
            bail!("this process must run inside the lab's network");
        }
        let cluster = Cluster::by_file(&lab.kubeconfig(), &lab.dir().join("bin/kubectl")).await?;
        let gateway = lab.gateway();
        let entrance = entrance(&gateway);
        Ok(Arc::new(Self { cluster, lab: Some(lab), entrance, install }))
    }

    /// In any cluster that has Gateway API, a gateway and Prometheus.
    ///
    /// # Errors
    /// If the context does not exist.
    pub async fn in_context(context: &str, entrance: Entrance, install: Install) -> Result<Arc<Self>> {
        let cluster = Cluster::by_context(context).await?;
        Ok(Arc::new(Self { cluster, lab: None, entrance, install }))
    }

    /// The gateway that serves all namespaces.
    #[must_use]
    pub fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    /// The lab.
    ///
    /// # Errors
    /// If the cluster is not a lab.
    pub fn lab(&self) -> Result<&Lab> {
        self.lab.as_ref().context("this needs a lab, and the cluster is none of ours")
    }

    /// A gateway with a data plane of its own for one namespace.
    ///
    /// # Errors
    /// If the data plane does not become ready.
    pub fn own_entrance(&self, namespace: &str) -> Result<Entrance> {
        let Some(lab) = &self.lab else { return Ok(self.entrance.clone()) };
        let name: String = namespace.chars().take(32).collect();
        let gateway = block_in_place(|| lab.add_gateway(name.trim_end_matches('-'), &[namespace]))?;
        Ok(entrance(&gateway))
    }

    /// Takes a gateway of [`World::own_entrance`] away.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove_entrance(&self, entrance: &Entrance) -> Result<()> {
        let Some(lab) = &self.lab else { return Ok(()) };
        Ok(block_in_place(|| lab.remove_gateway(&entrance.name))?)
    }

    /// Makes the images of the operator and of every version of the shop known to the lab's node.
    ///
    /// # Errors
    /// If a program is missing or containerd refuses it.
    pub fn import_images(&self) -> Result<()> {
        let Some(lab) = &self.lab else { return Ok(()) };
        self.import_operator(&self.install.operator)?;
        block_in_place(|| {
            let load = self.install.shop.with_file_name("load");
            if load.exists() {
                lab.import_image(LOAD_IMAGE, &Image::program(load)?)?;
            }
            let shop = Image::program(&self.install.shop)?;
            for (version, told) in VERSIONS {
                let mut one = shop.clone();
                one.entrypoint.extend(["--version".to_owned(), version.to_owned()]);
                one.entrypoint.extend(told.iter().map(|word| (*word).to_owned()));
                lab.import_image(&image(version), &one)?;
            }
            Ok(())
        })
    }

    /// Makes a program the operator that pods start from now on.
    ///
    /// # Errors
    /// If it is missing or containerd refuses it.
    pub fn import_operator(&self, program: &Path) -> Result<()> {
        let Some(lab) = &self.lab else { return Ok(()) };
        Ok(block_in_place(|| lab.import_image(OPERATOR_IMAGE, &Image::program(program)?))?)
    }

    /// What the operator was granted and did not use since the lab began; nothing where the cluster is none of our labs.
    ///
    /// # Errors
    /// If manifests or the audit log cannot be read.
    pub fn unused_rights(&self) -> Result<Vec<rights::Right>> {
        let Some(lab) = &self.lab else { return Ok(Vec::new()) };
        let file = self.install.root.join("deploy/10-rbac.yaml");
        let manifests = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let used = rights::used(&lab::audit_entries(&lab.audit_log(), 0)?.0);
        Ok(rights::granted(&manifests)?
            .into_keys()
            .filter(|right| !used.contains(right) && !rights::seldom(right))
            .collect())
    }

    /// Installs definitions, policies and operator, and waits until the operator is ready.
    ///
    /// # Errors
    /// With what `kubectl` said, or what the operator's Deployment says after two minutes.
    pub async fn install(&self) -> Result<()> {
        self.install_from(&self.install.root).await
    }

    /// The same from another checkout.
    ///
    /// # Errors
    /// With what `kubectl` said, or what the operator's Deployment says after two minutes.
    pub async fn install_from(&self, root: &Path) -> Result<()> {
        let before = self.cluster.get(Kind::Deployment, SYSTEM, OPERATOR).await?;
        self.apply_files(&root.join("crds"), |_| true).await?;
        self.apply_files(&root.join("deploy"), |object| {
            object["kind"] != "ConfigMap" && object["kind"] != "Deployment"
        })
        .await?;
        self.cluster.apply(&[&config(&self.file())]).await?;
        if before.is_some() {
            // The image has the same name and may be another one.
            self.cluster.run(&["rollout", "restart", "deployment", OPERATOR, "-n", SYSTEM], None).await?;
        }
        self.apply_files(&root.join("deploy"), |object| object["kind"] == "Deployment").await?;
        self.operator_ready().await
    }

    /// Installs the build that this one replaces.
    ///
    /// # Errors
    /// If there is none, or with what `kubectl` or the operator's Deployment said.
    pub async fn install_previous(&self) -> Result<&Previous> {
        let previous = self.install.previous.as_ref().context("an upgrade needs a previous build")?;
        self.import_operator(&previous.operator)?;
        self.install_from(&previous.root).await?;
        Ok(previous)
    }

    /// Installs this build in place of whatever is there.
    ///
    /// # Errors
    /// With what `kubectl` or the operator's Deployment said.
    pub async fn upgrade(&self) -> Result<()> {
        self.import_operator(&self.install.operator)?;
        self.install().await
    }

    /// The operator anew, with this configuration file and its Deployment changed; [`World::install`] undoes it.
    ///
    /// # Errors
    /// With what `kubectl` said, or what the Deployment says after two minutes.
    pub async fn install_with(&self, file: &str, change: &(dyn Fn(&mut Value) + Sync)) -> Result<()> {
        self.cluster.apply(&[&config(file)]).await?;
        for mut operator in self.objects(&self.install.root.join("deploy"), |object| object["kind"] == "Deployment")? {
            change(&mut operator);
            self.cluster.apply(&[&operator]).await?;
        }
        self.operator_ready().await
    }

    /// The checkout that the operator is installed from.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.install.root
    }

    /// The definitions of crds/.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn definitions(&self) -> Result<Vec<Value>> {
        self.objects(&self.install.root.join("crds"), |_| true)
    }

    /// Installs the operator's Deployment alone, and waits until it is ready.
    ///
    /// # Errors
    /// With what `kubectl` said, or what the Deployment says after two minutes.
    pub async fn start_operator(&self) -> Result<()> {
        self.apply_files(&self.install.root.join("deploy"), |object| object["kind"] == "Deployment").await?;
        self.operator_ready().await
    }

    /// Installs the policies alone.
    ///
    /// # Errors
    /// With what `kubectl` said.
    pub async fn install_policies(&self) -> Result<()> {
        self.apply_files(&self.install.root.join("deploy"), is_policy).await
    }

    /// Takes the policies away.
    ///
    /// # Errors
    /// With what `kubectl` said.
    pub async fn remove_policies(&self) -> Result<()> {
        let objects = self.objects(&self.install.root.join("deploy"), is_policy)?;
        let objects: Vec<&Value> = objects.iter().collect();
        self.cluster
            .run(&["delete", "--ignore-not-found", "-f", "-"], Some(&crate::cluster::documents(&objects)))
            .await
            .map(drop)
    }

    /// Waits until every replica of the operator is ready and one leads.
    ///
    /// # Errors
    /// With what its Deployment says after two minutes.
    pub async fn operator_ready(&self) -> Result<()> {
        let deadline = Duration::from_secs(120);
        self.cluster
            .until((Kind::Deployment, SYSTEM, OPERATOR), deadline, "ready", |found| {
                found.is_some_and(|operator| {
                    let wanted = number(operator, "/spec/replicas");
                    number(operator, "/status/observedGeneration") == number(operator, "/metadata/generation")
                        && number(operator, "/status/readyReplicas") == wanted
                        && number(operator, "/status/updatedReplicas") == wanted
                        && number(operator, "/status/replicas") == wanted
                })
            })
            .await?;
        self.cluster
            .until((Kind::Lease, SYSTEM, OPERATOR), deadline, "held", |found| {
                found.is_some_and(|lease| !text(lease, "/spec/holderIdentity").is_empty())
            })
            .await?;
        Ok(())
    }

    /// Name of the pod that leads, where the lease names one that exists.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn leader(&self) -> Result<Option<Value>> {
        let Some(lease) = self.cluster.get(Kind::Lease, SYSTEM, OPERATOR).await? else { return Ok(None) };
        let holder = text(&lease, "/spec/holderIdentity").to_owned();
        let pods = self.cluster.list(Kind::Pod, SYSTEM, "app.kubernetes.io/component=operator").await?;
        Ok(pods.into_iter().find(|pod| holder.starts_with(text(pod, "/metadata/name"))))
    }

    /// Ends the leader's process with SIGKILL, as a crash or the kernel would.
    ///
    /// # Errors
    /// If nobody leads or the process cannot be found.
    pub async fn kill_leader(&self) -> Result<()> {
        let leader = self.leader().await?.context("no pod of the operator leads")?;
        self.signal(&leader, "SIGKILL")
    }

    /// Signals the process of a pod's first container.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn signal(&self, pod: &Value, signal: &str) -> Result<()> {
        let id = text(pod, "/status/containerStatuses/0/containerID").trim_start_matches("containerd://").to_owned();
        self.ctr(&["tasks", "kill", "--signal", signal, &id]).map(drop)
    }

    /// The process of a container, as the lab counts processes.
    ///
    /// # Errors
    /// If there is no such container.
    pub fn process_of(&self, pod: &Value) -> Result<u32> {
        let id = text(pod, "/status/containerStatuses/0/containerID").trim_start_matches("containerd://").to_owned();
        let listed = self.ctr(&["tasks", "ls"])?;
        let line = listed
            .lines()
            .find(|line| line.starts_with(&id))
            .with_context(|| format!("no process of container {id}"))?;
        line.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).context("ctr's list of processes")
    }

    /// What a program prints inside all of the lab's namespaces.
    ///
    /// # Errors
    /// With what it said if it fails.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.lab()?.command_inside(program);
        let output = block_in_place(|| command.args(arguments).output())?;
        if !output.status.success() {
            bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io"];
        all.extend(arguments);
        self.inside("ctr", &all)
    }

    /// The last lines of every replica's log that speak of a namespace, all lines where it is empty.
    pub async fn operator_logs(&self, namespace: &str) -> String {
        let said = self
            .cluster
            .kubectl(
                &["logs", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--tail=2000", "--prefix"],
                None,
            )
            .await;
        let text = said.map_or_else(|error| error.to_string(), |said| said.out + &said.err);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(namespace)).collect();
        lines.iter().rev().take(40).rev().copied().collect::<Vec<_>>().join("\n")
    }

    /// The operator's configuration file.
    fn file(&self) -> String {
        let seconds = self.install.scrape_interval.as_secs();
        format!("providers:\n- name: default\n  url: {}\n  scrapeInterval: {seconds}s\n", self.install.prometheus)
    }

    async fn apply_files(&self, folder: &Path, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        let objects = self.objects(folder, wanted)?;
        let objects: Vec<&Value> = objects.iter().collect();
        self.cluster.apply(&objects).await
    }

    /// The objects of a folder's manifests, in the order of their files.
    fn objects(&self, folder: &Path, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let mut files = Vec::new();
        manifests(folder, &mut files)?;
        files.sort();
        let mut objects = Vec::new();
        for file in files {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            for document in serde_norway::Deserializer::from_str(&text) {
                let object: Value =
                    serde::Deserialize::deserialize(document).with_context(|| format!("reading {}", file.display()))?;
                if object.is_object() && object["kind"] != "Kustomization" && wanted(&object) {
                    objects.push(object);
                }
            }
        }
        if objects.is_empty() {
            bail!("there are no such manifests in {}", folder.display());
        }
        Ok(objects)
    }
}

fn config(file: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": OPERATOR, "namespace": SYSTEM, "labels": {"app.kubernetes.io/part-of": "canaryrelease"}},
        "data": {"config.yaml": file},
    })
}

fn is_policy(object: &Value) -> bool {
    text(object, "/apiVersion").starts_with("admissionregistration.k8s.io/")
}

fn manifests(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            manifests(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    Ok(())
}

fn entrance(gateway: &lab::Gateway) -> Entrance {
    Entrance {
        namespace: gateway.namespace.clone(),
        name: gateway.name.clone(),
        url: format!("http://{}/", gateway.address),
    }
}
