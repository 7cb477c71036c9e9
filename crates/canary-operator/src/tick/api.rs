//! The Kubernetes API as the tick uses it: raw JSON in, raw JSON out, so that no field is dropped.
//! Paths are built only from names that are names; what is not one is not there.

use std::fmt::Write as _;

use canary_core::{Fetched, Kind};
use http::{Method, Request};
use kube::Client;
use serde_json::Value;

use canary_api::names::FIELD_MANAGER;

use crate::client::brief;

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The object changed since it was read, or exists already: the next tick decides afresh.
    #[error("{what}: it changed meanwhile: {why}")]
    Conflict { what: String, why: String },
    /// The object, or its namespace, is gone.
    #[error("{what}: it is gone: {why}")]
    Gone { what: String, why: String },
    /// RBAC or admission refused it.
    #[error("{what}: refused: {why}")]
    Forbidden { what: String, why: String },
    /// The API server took it for nonsense.
    #[error("{what}: invalid: {why}")]
    Invalid { what: String, why: String },
    /// No answer, or one that blames the server.
    #[error("{what}: {why}")]
    Unavailable { what: String, why: String },
}

impl CallError {
    /// A static word for metrics.
    pub(super) const fn category(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::Gone { .. } => "gone",
            Self::Forbidden { .. } => "forbidden",
            Self::Invalid { .. } => "invalid",
            Self::Unavailable { .. } => "unavailable",
        }
    }

    fn of(what: String, error: &kube::Error) -> Self {
        let why = brief(error);
        let kube::Error::Api(status) = error else { return Self::Unavailable { what, why } };
        match status.code {
            404 => Self::Gone { what, why },
            403 if status.message.contains("being terminated") => Self::Gone { what, why },
            409 => Self::Conflict { what, why },
            403 => Self::Forbidden { what, why },
            // A JSON patch whose `test` fails answers 422, as a wrong path does: the object changed.
            422 if status.message.contains("rejected our request due to an error in our request") => {
                Self::Conflict { what, why }
            }
            400 | 422 => Self::Invalid { what, why },
            _ => Self::Unavailable { what, why },
        }
    }
}

/// The folder of a kind's objects in a namespace.
pub(super) fn folder(kind: Kind, namespace: &str) -> Option<String> {
    let namespace = segment(namespace)?;
    let (group, plural) = match kind {
        Kind::CanaryRelease => ("apis/canaryrelease.dev/v1alpha1", "canaryreleases"),
        Kind::Deployment => ("apis/apps/v1", "deployments"),
        Kind::ReplicaSet => ("apis/apps/v1", "replicasets"),
        Kind::ControllerRevision => ("apis/apps/v1", "controllerrevisions"),
        Kind::Service => ("api/v1", "services"),
        Kind::Job => ("apis/batch/v1", "jobs"),
        Kind::PodDisruptionBudget => ("apis/policy/v1", "poddisruptionbudgets"),
        Kind::HttpRoute => ("apis/gateway.networking.k8s.io/v1", "httproutes"),
        Kind::HorizontalPodAutoscaler => ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    };
    Some(format!("/{group}/namespaces/{namespace}/{plural}"))
}

/// The folder of pods.
pub(super) fn pods(namespace: &str) -> Option<String> {
    Some(format!("/api/v1/namespaces/{}/pods", segment(namespace)?))
}

/// The folder of CronJobs.
pub(super) fn cron_jobs(namespace: &str) -> Option<String> {
    Some(format!("/apis/batch/v1/namespaces/{}/cronjobs", segment(namespace)?))
}

/// The end of a container's log: so many lines, at most so many bytes.
pub(super) async fn log(
    client: &Client,
    namespace: &str,
    pod: &str,
    container: &str,
    (lines, bytes): (usize, usize),
) -> Result<String, CallError> {
    let what = format!("log of pod {pod}");
    let (Some(folder), Some(segment)) = (pods(namespace), segment(pod)) else { return Err(nameless(pod)) };
    let container = encode(container);
    let path = format!("{folder}/{segment}/log?container={container}&tailLines={lines}&limitBytes={bytes}");
    let request = Request::builder().method(Method::GET).uri(path).body(Vec::new());
    let request = request.map_err(|error| CallError::Invalid { what: what.clone(), why: error.to_string() })?;
    client.request_text(request).await.map_err(|error| CallError::of(what, &error))
}

/// The folder of records.
pub(super) fn records(namespace: &str) -> Option<String> {
    Some(format!("/apis/canaryrelease.dev/v1alpha1/namespaces/{}/releaserecords", segment(namespace)?))
}

/// The folder of NetworkPolicies.
pub(super) fn network_policies(namespace: &str) -> Option<String> {
    Some(format!("/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies", segment(namespace)?))
}

/// A name as a part of a path, if it is a name.
fn segment(name: &str) -> Option<&str> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    (!name.is_empty() && name.len() <= 253 && name.bytes().all(fits) && !name.starts_with('.')).then_some(name)
}

/// `a=b,c=d` for a query.
pub(super) fn label_selector(labels: &std::collections::BTreeMap<String, String>) -> String {
    let joined = labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    format!("labelSelector={}", encode(&joined))
}

/// `metadata.name=x` and the like for a query.
pub(super) fn field_selector(field: &str, value: &str) -> String {
    format!("fieldSelector={}", encode(&format!("{field}={value}")))
}

fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Reads one object.
pub(super) async fn get(client: &Client, folder: Option<String>, name: &str) -> Fetched<Value> {
    let (Some(folder), Some(name)) = (folder, segment(name)) else { return Fetched::Missing };
    match send(client, Method::GET, format!("{folder}/{name}"), None, Vec::new(), name.to_owned()).await {
        Ok(object) => Fetched::Known(object),
        Err(CallError::Gone { .. }) => Fetched::Missing,
        Err(error) => {
            tracing::warn!("{error}");
            Fetched::Failed(error.to_string())
        }
    }
}

/// Lists objects; a kind that the server does not know has none.
pub(super) async fn list(client: &Client, folder: Option<String>, query: &str) -> Fetched<Vec<Value>> {
    let Some(folder) = folder else { return Fetched::Known(Vec::new()) };
    let what = folder.rsplit('/').next().unwrap_or_default().to_owned();
    match send(client, Method::GET, format!("{folder}?{query}"), None, Vec::new(), what).await {
        Ok(mut list) => match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Fetched::Known(items),
            _ => Fetched::Failed("the answer is not a list".to_owned()),
        },
        Err(CallError::Gone { .. }) => Fetched::Known(Vec::new()),
        Err(error) => {
            tracing::warn!("{error}");
            Fetched::Failed(error.to_string())
        }
    }
}

/// Lists objects' metadata alone.
pub(super) async fn list_metadata(
    client: &Client,
    folder: Option<String>,
    query: &str,
) -> Result<Vec<Value>, CallError> {
    let Some(folder) = folder else { return Ok(Vec::new()) };
    let what = format!("list {}", folder.rsplit('/').next().unwrap_or_default());
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!("{folder}?{query}"))
        .header(http::header::ACCEPT, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let mut list = call(client, request, Vec::new(), what).await?;
    Ok(list.get_mut("items").map(Value::take).and_then(|items| serde_json::from_value(items).ok()).unwrap_or_default())
}

/// Patches an object by JSON patch.
pub(super) async fn patch(
    client: &Client,
    folder: Option<String>,
    name: &str,
    patch: &Value,
    dry_run: bool,
) -> Result<Value, CallError> {
    let (Some(folder), Some(name)) = (folder, segment(name)) else { return Err(nameless(name)) };
    let dry = if dry_run { "&dryRun=All" } else { "" };
    let path = format!("{folder}/{name}?fieldManager={FIELD_MANAGER}{dry}");
    send(
        client,
        Method::PATCH,
        path,
        Some("application/json-patch+json"),
        patch.to_string().into_bytes(),
        format!("patch {name}"),
    )
    .await
}

/// Creates an object.
pub(super) async fn create(client: &Client, folder: Option<String>, object: &Value) -> Result<Value, CallError> {
    let name = canary_core::object::name(object).to_owned();
    let Some(folder) = folder else { return Err(nameless(&name)) };
    let path = format!("{folder}?fieldManager={FIELD_MANAGER}");
    send(
        client,
        Method::POST,
        path,
        Some("application/json"),
        object.to_string().into_bytes(),
        format!("create {name}"),
    )
    .await
}

/// Deletes exactly the object with this uid.
pub(super) async fn delete(client: &Client, folder: Option<String>, name: &str, uid: &str) -> Result<(), CallError> {
    let (Some(folder), Some(name)) = (folder, segment(name)) else { return Err(nameless(name)) };
    let options = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": uid}});
    let path = format!("{folder}/{name}");
    send(
        client,
        Method::DELETE,
        path,
        Some("application/json"),
        options.to_string().into_bytes(),
        format!("delete {name}"),
    )
    .await
    .map(drop)
}

/// Replaces an object's status; a stale resourceVersion in it is a conflict.
pub(super) async fn put_status(client: &Client, folder: Option<String>, object: &Value) -> Result<Value, CallError> {
    let name = canary_core::object::name(object).to_owned();
    let (Some(folder), Some(segment)) = (folder, segment(&name)) else { return Err(nameless(&name)) };
    let path = format!("{folder}/{segment}/status?fieldManager={FIELD_MANAGER}");
    send(
        client,
        Method::PUT,
        path,
        Some("application/json"),
        object.to_string().into_bytes(),
        format!("status of {name}"),
    )
    .await
}

/// Whether an object is still of the version that was read; another one is a conflict.
pub(super) async fn is_as_read(client: &Client, folder: Option<String>, read: &Value) -> Result<(), CallError> {
    let name = canary_core::object::name(read);
    let (Some(folder), Some(segment)) = (folder, segment(name)) else { return Err(nameless(name)) };
    let now = send(client, Method::GET, format!("{folder}/{segment}"), None, Vec::new(), name.to_owned()).await?;
    let version = canary_core::object::resource_version;
    if version(&now) == version(read) {
        return Ok(());
    }
    Err(CallError::Conflict { what: name.to_owned(), why: "another version was written".to_owned() })
}

fn nameless(name: &str) -> CallError {
    CallError::Invalid { what: name.to_owned(), why: "not a name of Kubernetes".to_owned() }
}

async fn send(
    client: &Client,
    method: Method,
    path: String,
    content: Option<&str>,
    body: Vec<u8>,
    what: String,
) -> Result<Value, CallError> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(content) = content {
        request = request.header(http::header::CONTENT_TYPE, content);
    }
    call(client, request, body, what).await
}

async fn call(
    client: &Client,
    request: http::request::Builder,
    body: Vec<u8>,
    what: String,
) -> Result<Value, CallError> {
    let request =
        request.body(body).map_err(|error| CallError::Invalid { what: what.clone(), why: error.to_string() })?;
    client.request::<Value>(request).await.map_err(|error| CallError::of(what, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_become_paths() {
        assert_eq!(folder(Kind::Deployment, "shop").as_deref(), Some("/apis/apps/v1/namespaces/shop/deployments"));
        for hostile in ["../kube-system", "a/b", "", ".", "..", "A", "a%2fb", "a?x=1", "ä"] {
            assert_eq!(segment(hostile), None, "{hostile}");
        }
    }

    #[tokio::test]
    async fn an_object_that_was_written_since_it_was_read_is_a_conflict() {
        use bytes::Bytes;
        use http_body_util::{BodyExt as _, Full};
        use serde_json::json;

        let read = json!({"metadata": {"name": "web", "resourceVersion": "7"}});
        let answers = [
            (200, "7", None),
            (200, "8", Some("conflict")),
            (404, "", Some("gone")),
            (403, "", Some("forbidden")),
            (503, "", Some("unavailable")),
        ];
        for (code, version, expected) in answers {
            let service = tower::service_fn(move |request: Request<kube::client::Body>| async move {
                assert_eq!(request.uri().path(), "/apis/canaryrelease.dev/v1alpha1/namespaces/shop/canaryreleases/web");
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "code": code});
                let found = json!({"metadata": {"name": "web", "resourceVersion": version}});
                let answer = if code == 200 { found } else { status };
                let mut response =
                    http::Response::new(Full::new(Bytes::from(answer.to_string())).map_err(tower::BoxError::from));
                *response.status_mut() = http::StatusCode::from_u16(code)?;
                Ok::<_, tower::BoxError>(response)
            });
            let client = kube::client::ClientBuilder::new(service, "shop").build();
            let said = is_as_read(&client, folder(Kind::CanaryRelease, "shop"), &read).await;
            assert_eq!(said.err().map(|error| error.category()), expected, "{code} {version}");
        }
    }

    #[test]
    fn selectors_are_encoded() {
        let labels = [("app.kubernetes.io/name".to_owned(), "a b&c".to_owned())].into();
        assert_eq!(label_selector(&labels), "labelSelector=app.kubernetes.io%2Fname%3Da%20b%26c");
    }
}
