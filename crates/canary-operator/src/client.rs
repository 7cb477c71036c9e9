//! The clients of the API server: one for the ticks and watches, one for the lease. Each call has a
//! deadline and is counted; none is repeated here, because only the next tick may decide that.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tower::{BoxError, Layer, Service};

use crate::clock::Clock;
use crate::metrics::Metrics;

/// Both clients.
#[derive(Clone)]
pub struct Clients {
    /// For ticks, watches and Events.
    pub api: Client,
    /// For the lease alone, so that nothing queues before a renewal.
    pub lease: Client,
    /// Set by what the API server says the time is.
    pub clock: Clock,
    /// The namespace this process belongs to, from its service account or kubeconfig.
    pub namespace: String,
}

/// No client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a service account nor a kubeconfig.
    #[error("found no way to the API server: {0}; run in a pod with a service account, or set KUBECONFIG")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// What was found cannot be used.
    #[error("cannot use the way to the API server that was found: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// A call of the API server that did not end in time.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer {verb} {resource} within {deadline:?}")]
pub struct DeadlineError {
    verb: &'static str,
    resource: String,
    deadline: Duration,
}

/// Makes rustls use aws-lc-rs in the whole process. Call it once, before anything connects.
pub fn install_crypto() {
    // An error means that a provider is there already, which is what we want.
    let _present = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Connects as the pod's service account, or else as the kubeconfig says. Sends nothing yet.
///
/// # Errors
/// Where there is no usable configuration.
pub async fn connect(metrics: &Metrics, deadline: Duration) -> Result<Clients, ConnectError> {
    let mut config = Config::infer().await.map_err(|error| ConnectError::Config(Box::new(error)))?;
    // A repeated call would hide an outage for minutes; the next tick decides afresh instead.
    config.default_retry = false;
    config.connect_timeout = Some(deadline);
    config.write_timeout = Some(deadline);
    let namespace = config.default_namespace.clone();
    let clock = Clock::default();
    let layer = BoundLayer::new(metrics.clone(), deadline).setting(clock.clone());
    let build = |config: Config| -> Result<Client, ConnectError> {
        let builder = ClientBuilder::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
        Ok(builder.with_layer(&layer).build())
    };
    Ok(Clients { api: build(config.clone())?, lease: build(config)?, clock, namespace })
}

/// The API server's answer in one short line: code, reason and message, without the rest.
#[must_use]
pub fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        other => other.to_string(),
    }
}

/// Bounds and counts calls. The deadline holds for the whole answer, except for watches and logs
/// that follow, where it ends with the header.
#[derive(Clone)]
pub struct BoundLayer {
    metrics: Metrics,
    deadline: Duration,
    clock: Option<Clock>,
}

impl BoundLayer {
    /// A layer with one deadline for every call.
    #[must_use]
    pub fn new(metrics: Metrics, deadline: Duration) -> Self {
        Self { metrics, deadline, clock: None }
    }

    /// The same, with a clock that is told the `Date` of each answer.
    #[must_use]
    pub fn setting(self, clock: Clock) -> Self {
        Self { clock: Some(clock), ..self }
    }
}

impl<S> Layer<S> for BoundLayer {
    type Service = Bound<S>;
    fn layer(&self, inner: S) -> Bound<S> {
        Bound { inner, metrics: self.metrics.clone(), deadline: self.deadline, clock: self.clock.clone() }
    }
}

/// See [`BoundLayer`].
#[derive(Clone)]
pub struct Bound<S> {
    inner: S,
    metrics: Metrics,
    deadline: Duration,
    clock: Option<Clock>,
}

impl<S, B> Service<Request<Body>> for Bound<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<BoundBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = Arc::new(Call::of(&request));
        let metrics = self.metrics.clone();
        let deadline = self.deadline;
        let clock = self.clock.clone();
        let start = Instant::now();
        let end = start.checked_add(deadline).unwrap_or(start);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let took = || (!call.streams).then(|| start.elapsed());
            match timeout_at(end, answer).await {
                Ok(Ok(response)) => {
                    metrics.api_request(call.verb, &call.resource, response.status().as_str(), took());
                    let date = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
                    if let (Some(clock), Some(date)) = (&clock, date) {
                        clock.heard(date, start);
                    }
                    let until = (!call.streams).then(|| Box::pin(sleep_until(end)));
                    Ok(response.map(|body| BoundBody {
                        inner: body.map_err(Into::into).boxed_unsync(),
                        until,
                        call,
                        deadline,
                    }))
                }
                Ok(Err(error)) => {
                    metrics.api_request(call.verb, &call.resource, "error", None);
                    Err(error.into())
                }
                Err(_elapsed) => {
                    metrics.api_request(call.verb, &call.resource, "timeout", None);
                    Err(call.late(deadline).into())
                }
            }
        })
    }
}

/// An answer's body that fails once its deadline has passed.
pub struct BoundBody {
    inner: UnsyncBoxBody<Bytes, BoxError>,
    until: Option<Pin<Box<Sleep>>>,
    call: Arc<Call>,
    deadline: Duration,
}

impl http_body::Body for BoundBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if let Some(until) = &mut this.until
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(this.call.late(this.deadline).into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// What a request asks for, in words that fit a metric's labels: the verbs of RBAC, and the
/// resource with its subresource, never a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    verb: &'static str,
    resource: String,
    /// The answer has no end: no deadline on its body.
    streams: bool,
}

impl Call {
    fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
        let known = match parts.next() {
            Some("api") => parts.next().is_some(),
            Some("apis") => parts.next().is_some() && parts.next().is_some(),
            _ => false,
        };
        let rest: Vec<&str> = parts.collect();
        // A namespaced resource, unless the path is about the namespace itself.
        let rest = match rest.as_slice() {
            ["namespaces", _, inner @ ..] if !inner.is_empty() => inner,
            all => all,
        };
        let (resource, named) = match (known, rest) {
            (true, [resource, _, subresource, ..]) => (format!("{resource}/{subresource}"), true),
            (true, [resource, _]) => ((*resource).to_owned(), true),
            (true, [resource]) => ((*resource).to_owned(), false),
            _ => ("other".to_owned(), false),
        };
        let asks = |name: &str| {
            uri.query().unwrap_or_default().split('&').any(|pair| {
                pair.split_once('=').is_some_and(|(key, value)| key == name && matches!(value, "true" | "1"))
            })
        };
        let watch = asks("watch");
        let verb = match (request.method().as_str(), named) {
            ("GET", _) if watch => "watch",
            ("GET", true) => "get",
            ("GET", false) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "delete",
            ("DELETE", false) => "deletecollection",
            _ => "other",
        };
        Self { verb, resource, streams: watch || asks("follow") }
    }

    fn late(&self, deadline: Duration) -> DeadlineError {
        DeadlineError { verb: self.verb, resource: self.resource.clone(), deadline }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use http_body::Frame;
    use http_body_util::{Empty, Full, StreamBody};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;

    use super::*;

    fn call(method: &str, uri: &str) -> Call {
        Call::of(&Request::builder().method(method).uri(uri).body(()).unwrap())
    }

    #[test]
    fn calls_are_named_by_verb_and_resource_never_by_object() {
        let cases = [
            ("GET", "/api/v1/namespaces/shop/pods/web-1", "get", "pods"),
            ("GET", "/api/v1/namespaces/shop/pods?limit=5", "list", "pods"),
            ("GET", "/api/v1/namespaces/shop", "get", "namespaces"),
            (
                "PUT",
                "/apis/canaryrelease.dev/v1alpha1/namespaces/shop/canaryreleases/web/status",
                "update",
                "canaryreleases/status",
            ),
            ("PATCH", "/apis/apps/v1/namespaces/shop/deployments/web/scale", "patch", "deployments/scale"),
            ("POST", "/apis/events.k8s.io/v1/namespaces/shop/events", "create", "events"),
            ("GET", "/apis/apps/v1/deployments?watch=true&labelSelector=a", "watch", "deployments"),
            ("DELETE", "/apis/apps/v1/namespaces/shop/deployments/web", "delete", "deployments"),
            ("GET", "/version", "list", "other"),
        ];
        for (method, uri, verb, resource) in cases {
            let call = call(method, uri);
            assert_eq!((call.verb, call.resource.as_str()), (verb, resource), "{method} {uri}");
        }
    }

    fn client<F, R, B>(metrics: &Metrics, answer: F) -> Client
    where
        F: Fn(Request<Body>) -> R + Clone + Send + 'static,
        R: Future<Output = Result<Response<B>, BoxError>> + Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        ClientBuilder::new(tower::service_fn(answer), "default")
            .with_layer(&BoundLayer::new(metrics.clone(), Duration::from_secs(8)))
            .build()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_ends_at_its_deadline() {
        let metrics = Metrics::new();
        let client = client(&metrics, |_| std::future::pending::<Result<Response<Empty<Bytes>>, BoxError>>());
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let start = Instant::now();
        let error = api.get("any").await.expect_err("nothing answers");
        assert!(error.to_string().contains("did not answer get configmaps within 8s"), "{error}");
        assert_eq!(start.elapsed().as_secs(), 8);
        assert_eq!(metrics.api_requests("get", "configmaps", "timeout"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stops_in_the_middle_ends_at_its_deadline() {
        let metrics = Metrics::new();
        let client = client(&metrics, |_| async {
            let half = futures::stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"{\"kind\":")))]);
            let body = StreamBody::new(futures::StreamExt::chain(half, futures::stream::pending()));
            Ok(Response::new(body))
        });
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let error = tokio::time::timeout(Duration::from_secs(60), api.get("any")).await.expect("ends by itself");
        assert!(error.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_may_stay_open_longer_than_the_deadline() {
        let metrics = Metrics::new();
        let client = client(&metrics, |_| async {
            let body = futures::stream::once(async {
                tokio::time::sleep(Duration::from_secs(100)).await;
                let event =
                    br#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"late"}}}"#;
                Ok::<_, BoxError>(Frame::data(Bytes::from_static(event)))
            });
            Ok(Response::new(StreamBody::new(body)))
        });
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let mut stream = Box::pin(api.watch(&kube::api::WatchParams::default(), "0").await.expect("starts"));
        let event = futures::StreamExt::next(&mut stream).await.expect("one event").expect("a good one");
        assert!(matches!(event, kube::api::WatchEvent::Added(found) if found.metadata.name.as_deref() == Some("late")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_call_is_sent_once() {
        let metrics = Metrics::new();
        let client = client(&metrics, |_| async {
            let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            Ok::<_, BoxError>(response)
        });
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        assert!(api.get("any").await.is_err());
        assert_eq!(metrics.api_requests("get", "configmaps", "503"), 1);
    }
}
