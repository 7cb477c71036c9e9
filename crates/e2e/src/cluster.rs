//! How the scenarios reach a cluster: a client for what they look at, and `kubectl` for what people and
//! tools do, so that what is tried is what users will type. It decides how long is waited; it judges
//! nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

/// Longest time for one `kubectl`.
const KUBECTL_DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at that no watch tells about.
const LOOK: Duration = Duration::from_millis(200);

/// What one `kubectl` said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code; -1 if it was killed.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Whether it exited 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.code == 0
    }
}

/// A cluster, as one user.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    kubectl: PathBuf,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({:?}, {:?})", self.kubeconfig, self.context)
    }
}

impl Cluster {
    /// By a kubeconfig file.
    ///
    /// # Errors
    /// If the file cannot be read or a client not be made of it.
    pub async fn by_file(kubeconfig: &Path, kubectl: &Path) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let read = Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        Ok(Self {
            client: client(config)?,
            kubectl: kubectl.to_owned(),
            kubeconfig: Some(kubeconfig.to_owned()),
            context: None,
        })
    }

    /// By the name of a context in the user's own kubeconfig.
    ///
    /// # Errors
    /// If there is no such context.
    pub async fn by_context(context: &str) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
        let config = Config::from_kubeconfig(&options).await.with_context(|| {
            format!("the context {context} of your kubeconfig (kubectl config get-contexts lists them)")
        })?;
        Ok(Self {
            client: client(config)?,
            kubectl: "kubectl".into(),
            kubeconfig: None,
            context: Some(context.to_owned()),
        })
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs `kubectl` and says what came of it, whatever it was.
    ///
    /// # Errors
    /// If it cannot be started or takes longer than a minute.
    pub async fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<Said> {
        let mut command = tokio::process::Command::new(&self.kubectl);
        command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(file) = &self.kubeconfig {
            command.env("KUBECONFIG", file);
            command.env("KUBECACHEDIR", file.with_extension("cache"));
        }
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command.args(arguments.iter().map(OsString::from));
        let mut child = command.spawn().with_context(|| format!("starting {}", self.kubectl.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A kubectl that ends early says why on its standard error.
            let _ = stdin.write_all(input.unwrap_or_default().as_bytes()).await;
        }
        let ended = tokio::time::timeout(KUBECTL_DEADLINE, child.wait_with_output())
            .await
            .with_context(|| format!("kubectl {} took longer than {KUBECTL_DEADLINE:?}", arguments.join(" ")))??;
        Ok(Said {
            code: ended.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&ended.stdout).into_owned(),
            err: String::from_utf8_lossy(&ended.stderr).into_owned(),
        })
    }

    /// Runs `kubectl`, which must succeed, and gives its standard output.
    ///
    /// # Errors
    /// With what it said if it fails.
    pub async fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let said = self.kubectl(arguments, input).await?;
        if !said.ok() {
            bail!("kubectl {} failed: {}", arguments.join(" "), said.err.trim());
        }
        Ok(said.out)
    }

    /// Applies objects by server-side apply.
    ///
    /// # Errors
    /// With what `kubectl` said.
    pub async fn apply(&self, objects: &[&Value]) -> Result<()> {
        self.run(
            &["apply", "--server-side", "--force-conflicts", "--field-manager=e2e", "-f", "-"],
            Some(&documents(objects)),
        )
        .await
        .map(drop)
    }

    /// The API of a kind in a namespace.
    #[must_use]
    pub fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client(), namespace, &kind.resource())
    }

    /// An object, or none.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>> {
        let found = self
            .api(kind, namespace)
            .get_opt(name)
            .await
            .with_context(|| format!("reading {kind:?} {namespace}/{name}"))?;
        Ok(found.map(serde_json::to_value).transpose()?)
    }

    /// Objects by label selector, all where it is empty.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn list(&self, kind: Kind, namespace: &str, selector: &str) -> Result<Vec<Value>> {
        let parameters =
            ListParams { label_selector: (!selector.is_empty()).then(|| selector.to_owned()), ..ListParams::default() };
        let found = self
            .api(kind, namespace)
            .list(&parameters)
            .await
            .with_context(|| format!("listing {kind:?} in {namespace}"))?;
        found.items.into_iter().map(|item| Ok(serde_json::to_value(item)?)).collect()
    }

    /// Merges a patch into an object, as the field manager `e2e`.
    ///
    /// # Errors
    /// With the API server's refusal.
    pub async fn merge(&self, kind: Kind, namespace: &str, name: &str, patch: &Value) -> Result<Value> {
        let parameters = PatchParams { field_manager: Some("e2e".to_owned()), ..PatchParams::default() };
        let done = self
            .api(kind, namespace)
            .patch(name, &parameters, &Patch::Merge(patch))
            .await
            .with_context(|| format!("patching {kind:?} {namespace}/{name}"))?;
        Ok(serde_json::to_value(done)?)
    }

    /// Waits until an object is as asked; `None` is asked about too.
    ///
    /// # Errors
    /// After the deadline, with the object's status as it was last.
    pub async fn until(
        &self,
        (kind, namespace, name): (Kind, &str, &str),
        deadline: Duration,
        what: &str,
        mut holds: impl FnMut(Option<&Value>) -> bool,
    ) -> Result<Option<Value>> {
        let end = Instant::now() + deadline;
        let mut last = None;
        loop {
            // An API server that is away for a moment says nothing about the object.
            if let Ok(found) = self.get(kind, namespace, name).await {
                if holds(found.as_ref()) {
                    return Ok(found);
                }
                last = found;
            }
            if Instant::now() > end {
                let seen = last.map_or_else(
                    || "nothing".to_owned(),
                    |object| object.pointer("/status").map(Value::to_string).unwrap_or_default(),
                );
                bail!("{kind:?} {namespace}/{name}: not {what} within {deadline:?}; its status: {seen}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn client(mut config: Config) -> Result<Client> {
    config.read_timeout = None;
    Ok(Client::try_from(config)?)
}

/// Objects as one list.
#[must_use]
pub fn documents(objects: &[&Value]) -> String {
    // A list, not a stream: what separates documents in a stream of JSON is read otherwise by each version of kubectl.
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// Kinds that the scenarios look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// canaryrelease.dev CanaryRelease
    CanaryRelease,
    /// apps Deployment
    Deployment,
    /// apps ReplicaSet
    ReplicaSet,
    /// core Pod
    Pod,
    /// core Service
    Service,
    /// Gateway API HTTPRoute
    HttpRoute,
    /// autoscaling HorizontalPodAutoscaler
    Autoscaler,
    /// coordination Lease
    Lease,
    /// core Event
    Event,
    /// batch Job
    Job,
    /// canaryrelease.dev ReleaseRecord
    Record,
}

impl Kind {
    fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::CanaryRelease => ("canaryrelease.dev", "v1alpha1", "CanaryRelease", "canaryreleases"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::ReplicaSet => ("apps", "v1", "ReplicaSet", "replicasets"),
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::Autoscaler => ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
            Self::Lease => ("coordination.k8s.io", "v1", "Lease", "leases"),
            Self::Event => ("", "v1", "Event", "events"),
            Self::Job => ("batch", "v1", "Job", "jobs"),
            Self::Record => ("canaryrelease.dev", "v1alpha1", "ReleaseRecord", "releaserecords"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }
}

/// Text at a JSON pointer, empty where there is none.
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number at a JSON pointer, 0 where there is none.
#[must_use]
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// Whether a JSON pointer holds `true`.
#[must_use]
pub fn truth(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}
