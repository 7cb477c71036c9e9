//! The cluster: the client, and the few reads, watches and writes that commands make of it. Every call has a deadline;
//! it never repeats a write and never polls.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use canary_api::names::{self, GROUP};
use canary_api::{CanaryRelease, ReleaseRecord};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config};
use serde_json::Value;

use crate::args::Global;
use crate::release::Release;
use crate::{Error, clean};

/// How long the API server may take for one answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// Our field manager. It must not begin with `kubectl`: GitOps tools take such fields away.
const FIELD_MANAGER: &str = "canaryrelease-plugin";

/// A client, and the namespace that is meant.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// The namespace of the command line, or of the context.
    pub namespace: String,
}

/// What came of a look at an object.
#[derive(Debug, Clone)]
pub enum Look {
    /// It is there.
    There(Value),
    /// It is not there.
    Missing,
    /// The cluster knows no objects of this kind.
    NoKind(String),
    /// It could not be read; why.
    Unknown(String),
}

/// What a watch saw.
#[derive(Debug, Clone)]
pub enum Seen {
    /// The object as it is now; none: it is not there.
    Object(Option<Value>),
    /// Nothing for the moment; why. The watch goes on.
    Trouble(String),
}

impl Cluster {
    /// As the flags say. Sends nothing yet.
    ///
    /// # Errors
    /// Where there is no usable configuration.
    pub async fn connect(global: &Global) -> Result<Self, Error> {
        // An error means that a provider is there already, which is what we want.
        let _present = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let fail = |error: &dyn std::error::Error| Error::Kubeconfig(error.to_string());
        let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match (&global.kubeconfig, &global.context) {
            (Some(file), _) => {
                let read = Kubeconfig::read_from(file).map_err(|error| fail(&error))?;
                Config::from_custom_kubeconfig(read, &options).await.map_err(|error| fail(&error))?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| fail(&error))?,
            (None, None) => Config::infer().await.map_err(|error| fail(&error))?,
        };
        config.connect_timeout = Some(DEADLINE);
        let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| fail(&error))?;
        Ok(Self { client, namespace })
    }

    fn releases(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<CanaryRelease>(&()))
    }

    fn deployments(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<Deployment>(&()))
    }

    /// A CanaryRelease.
    ///
    /// # Errors
    /// Where it is not there or cannot be read.
    pub async fn release(&self, name: &str) -> Result<Release, Error> {
        let object = format!("CanaryRelease {}/{name}", self.namespace);
        let found = within(&format!("read {object}"), self.releases().get_opt(name)).await?;
        let found = found.ok_or_else(|| Error::NotFound {
            object,
            hint: format!("kubectl canary list -n {} shows those that do", self.namespace),
        })?;
        Ok(Release::read(untyped(found)?))
    }

    /// CanaryReleases of the namespace, or of all.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn list(&self, all: bool) -> Result<Vec<Release>, Error> {
        let api = if all {
            Api::all_with(self.client.clone(), &ApiResource::erase::<CanaryRelease>(&()))
        } else {
            self.releases()
        };
        let place = if all { "of all namespaces".to_owned() } else { format!("of namespace {}", self.namespace) };
        let found = within(&format!("list the CanaryReleases {place}"), api.list(&ListParams::default())).await?;
        found.items.into_iter().map(|item| Ok(Release::read(untyped(item)?))).collect()
    }

    /// Records of releases in the namespace, as the API server has them; of those with this label, where one is given.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn records(&self, label: Option<&str>) -> Result<Vec<Value>, Error> {
        let resource = ApiResource::erase::<ReleaseRecord>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let wanted = ListParams { label_selector: label.map(str::to_owned), ..ListParams::default() };
        let doing = format!("list the ReleaseRecords of namespace {}", self.namespace);
        let found = within(&doing, api.list(&wanted)).await?;
        // Items of a list have no kind of their own.
        found.items.into_iter().map(untyped).collect()
    }

    /// The record of a CanaryRelease's release, as the API server has it; none where there is none, or it may not be
    /// read: what is shown of it is shown beside more.
    pub async fn record(&self, id: &str, uid: &str) -> Option<Value> {
        let name = names::record(id, uid);
        let resource = ApiResource::erase::<ReleaseRecord>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let found = within("read the release's record", api.get_opt(&name)).await.ok().flatten()?;
        untyped(found).ok()
    }

    /// Some records of releases of the namespace, or of all, and what to give for the next ones; none after the last.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn records_page(
        &self,
        all: bool,
        most: u32,
        next: Option<String>,
    ) -> Result<(Vec<Value>, Option<String>), Error> {
        let resource = ApiResource::erase::<ReleaseRecord>(&());
        let api: Api<DynamicObject> = if all {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        };
        let place = if all { "of all namespaces".to_owned() } else { format!("of namespace {}", self.namespace) };
        let wanted = ListParams { limit: Some(most), continue_token: next, ..ListParams::default() };
        let found = within(&format!("list the ReleaseRecords {place}"), api.list(&wanted)).await?;
        let next = found.metadata.continue_.filter(|token| !token.is_empty());
        Ok((found.items.into_iter().map(untyped).collect::<Result<_, _>>()?, next))
    }

    /// The same cluster, with another namespace meant.
    #[must_use]
    pub fn of_namespace(&self, namespace: &str) -> Self {
        Self { client: self.client.clone(), namespace: namespace.to_owned() }
    }

    /// The data of a ConfigMap; none where it is not there.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn config_map(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
        if !is_name(name) {
            return Ok(None);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let doing = format!("read ConfigMap {}/{name}", self.namespace);
        let found = within(&clean::text(&doing), api.get_opt(name)).await?;
        Ok(found.map(|found| found.data.unwrap_or_default()))
    }

    /// Major and minor version of the API server.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn server_version(&self) -> Result<(String, String), Error> {
        let version = within("read the server's version", self.client.apiserver_version()).await?;
        Ok((version.major, version.minor))
    }

    /// An object of any kind, such as `apps/v1` `Deployment`.
    pub async fn look(&self, version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Look {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        if !is_name(name) {
            return Look::Missing;
        }
        let object = clean::text(&format!("{kind} {name}"));
        match tokio::time::timeout(DEADLINE, api.get_opt(name)).await {
            Ok(Ok(Some(found))) => untyped(found).map_or_else(|error| Look::Unknown(error.to_string()), Look::There),
            Ok(Ok(None)) => Look::Missing,
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                Look::Unknown(format!("you may not read {object}"))
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Look::NoKind(kind.to_owned()),
            Ok(Err(error)) => Look::Unknown(format!("cannot read {object}: {}", explain(&error))),
            Err(_) => Look::Unknown(format!("cannot read {object}: no answer within 30 s")),
        }
    }

    /// Whether the caller may do this to resources of ours in the namespace.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub async fn may(&self, verb: &str, resource: &str) -> Result<bool, String> {
        let asked = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    namespace: Some(self.namespace.clone()),
                    resource: Some(resource.to_owned()),
                    verb: Some(verb.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = within("ask what you may do", api.create(&PostParams::default(), &asked)).await;
        answer.map(|answer| answer.status.is_some_and(|status| status.allowed)).map_err(|error| error.to_string())
    }

    /// A CanaryRelease at every change.
    pub fn watch_release(&self, name: &str) -> impl Stream<Item = Result<Seen, Error>> + Unpin + use<> {
        watch(self.releases(), format!("CanaryRelease {}/{name}", self.namespace), name)
    }

    /// A Deployment at every change.
    pub fn watch_deployment(&self, name: &str) -> impl Stream<Item = Result<Seen, Error>> + Unpin + use<> {
        watch(self.deployments(), format!("Deployment {}/{name}", self.namespace), name)
    }

    /// Writes an annotation to the very object that was read.
    ///
    /// # Errors
    /// With what refused it.
    pub async fn annotate(&self, release: &Release, annotation: &str, text: &str) -> Result<(), kube::Error> {
        let mut annotations = serde_json::Map::new();
        annotations.insert(annotation.to_owned(), text.into());
        // The uid makes it fail where the object was deleted and made anew meanwhile.
        let patch = Patch::Merge(serde_json::json!({"metadata": {"uid": release.uid, "annotations": annotations}}));
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.releases();
        let call = api.patch_metadata(&release.name, &parameters, &patch);
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(kube::Error::Service("no answer within 30 s".into())),
        }
    }
}

/// Whether a text from an object may be an object's name. Anything else could lead a request to another path.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let sound = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit() || matches!(sign, '-' | '.');
    !text.is_empty() && text.len() <= 253 && text.chars().all(sound) && !text.starts_with('.') && !text.contains("..")
}

fn watch(
    api: Api<DynamicObject>,
    object: String,
    name: &str,
) -> impl Stream<Item = Result<Seen, Error>> + Unpin + use<> {
    watcher::watch_object(api, name)
        .default_backoff()
        .map(move |seen| match seen {
            Ok(found) => found.map(untyped).transpose().map(Seen::Object),
            Err(error) => match refused(&error) {
                Some(why) => Err(Error::Api { doing: format!("watch {object}"), why }),
                None => Ok(Seen::Trouble(clean::text(&error.to_string()))),
            },
        })
        .boxed()
}

/// Why a watch will never work, if so.
fn refused(error: &watcher::Error) -> Option<String> {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => match error {
            kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404) => Some(explain(error)),
            _ => None,
        },
        _ => None,
    }
}

async fn within<T>(doing: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    let why = match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => explain(&error),
        Err(_) => "no answer within 30 s; is the API server well?".to_owned(),
    };
    Err(Error::Api { doing: doing.to_owned(), why })
}

/// What the API server said, and what to do about it.
#[must_use]
pub fn explain(error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(deeper) = cause {
            let more = deeper.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = deeper.source();
        }
        return format!("{}; is the cluster up, and is it the right context?", clean::text(&text));
    };
    let said = clean::text(&status.message);
    match status.code {
        401 => format!("{said}; log in to the cluster again"),
        403 if said.contains("canaryreleases") || said.contains("releaserecords") => {
            format!("{said}; ask for ClusterRole canaryrelease-viewer in this namespace")
        }
        403 => format!("{said}; ask for ClusterRole view in this namespace"),
        404 => format!("{said}; are CanaryReleases installed? kubectl apply --server-side -f crds/"),
        _ => said,
    }
}

fn untyped(object: DynamicObject) -> Result<Value, Error> {
    serde_json::to_value(object).map_err(|error| Error::Encode(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn only_names_are_asked_for() {
        assert!(is_name("orders-2.1") && is_name("a"));
        for text in ["", "..", ".", "../secrets/x", "a/b", "a%2fb", "a?b", "A", "a b", "a..b"] {
            assert!(!is_name(text), "{text}");
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        for (code, said, says) in [
            (401, "Unauthorized", "log in"),
            (403, "canaryreleases is forbidden", "ClusterRole canaryrelease-viewer"),
            (403, "deployments.apps is forbidden", "ClusterRole view"),
            (404, "not found", "crds/"),
            (500, "broken", "broken"),
        ] {
            let status = Status { code, message: said.to_owned(), ..Status::default() };
            let text = explain(&kube::Error::Api(Box::new(status)));
            assert!(text.starts_with(said) && text.contains(says), "{code}: {text}");
        }
    }
}
