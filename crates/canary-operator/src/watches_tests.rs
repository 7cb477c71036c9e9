#![allow(clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects)]

use std::collections::HashMap;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::client::{Body, ClientBuilder};
use serde_json::json;
use tower::BoxError;

use super::*;
use crate::workers::{ObjectKey, Stuck};

/// Answers lists by plural; watches stay open and silent. A plural without an answer is not served.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<HashMap<&'static str, Answer>>>);

#[derive(Clone)]
enum Answer {
    Items(Vec<serde_json::Value>),
    Refuse(u16),
    Hang,
}

impl Server {
    fn set(&self, plural: &'static str, answer: Answer) {
        self.0.lock().unwrap().insert(plural, answer);
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let plural = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                let accept = request.headers()["accept"].to_str()?.to_owned();
                assert!(accept.contains("PartialObjectMetadata"), "{accept}");
                let watch = request.uri().query().unwrap_or_default().contains("watch=true");
                let answer = server.0.lock().unwrap().get(plural.as_str()).cloned();
                let (code, body) = match answer {
                    Some(Answer::Items(_)) if watch => {
                        let silent = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, BoxError>>());
                        return Ok::<_, BoxError>(Response::new(silent.boxed_unsync()));
                    }
                    Some(Answer::Items(items)) => (
                        200,
                        json!({"kind": "PartialObjectMetadataList",
                        "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "10"}, "items": items}),
                    ),
                    Some(Answer::Refuse(code)) => (code, refusal(code)),
                    Some(Answer::Hang) => std::future::pending().await,
                    None => (404, refusal(404)),
                };
                let mut response =
                    Response::new(Full::new(Bytes::from(body.to_string())).map_err(Into::into).boxed_unsync());
                *response.status_mut() = StatusCode::from_u16(code)?;
                Ok(response)
            }
        });
        ClientBuilder::new(service, "default").build()
    }
}

fn refusal(code: u16) -> serde_json::Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "reason": "No", "code": code})
}

fn release(name: &str) -> serde_json::Value {
    json!({"metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "resourceVersion": "1", "generation": 1}})
}

#[derive(Default)]
struct Woken(Mutex<Vec<(ObjectKey, Instant)>>, Mutex<u32>);

impl Wake for Woken {
    fn wake(&self, key: &ObjectKey) {
        self.0.lock().unwrap().push((key.clone(), Instant::now()));
    }
    fn wake_all(&self) {
        *self.1.lock().unwrap() += 1;
    }
    fn stuck(&self) -> Option<Stuck> {
        None
    }
}

fn start(server: &Server) -> (Watches, watch::Receiver<PolicyGeneration>, CancellationToken) {
    let stop = CancellationToken::new();
    let (watches, generation) = Watches::start(&server.client(), Metrics::new(), &TaskTracker::new(), &stop);
    (watches, generation, stop)
}

fn full() -> Server {
    let server = Server::default();
    server.set("canaryreleases", Answer::Items(vec![release("web")]));
    for plural in [
        "deployments",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    ] {
        server.set(plural, Answer::Items(vec![]));
    }
    server
}

fn blocking(watches: &Watches) -> Vec<Report> {
    watches.report().into_iter().filter(|report| report.blocks).collect()
}

#[tokio::test(start_paused = true)]
async fn a_missing_gateway_api_is_tolerated_and_found_later() {
    let server = full();
    let (watches, _generation, _stop) = start(&server);
    assert!(watches.synced(Duration::from_secs(1)).await);
    assert_eq!(blocking(&watches), []);
    let routes =
        |watches: &Watches| watches.report().into_iter().find(|report| report.kind == Kind::HttpRoutes).unwrap().detail;
    assert!(routes(&watches).contains("Gateway API is not installed"));
    server.set("httproutes", Answer::Items(vec![]));
    watches.shared.until(|inner| inner.states.iter().all(|state| *state == State::Synced)).await;
    assert_eq!(routes(&watches), "follows");
}

#[tokio::test(start_paused = true)]
async fn a_denied_watch_is_named_and_delays_no_other() {
    let server = full();
    server.set("deployments", Answer::Refuse(403));
    let begin = Instant::now();
    let (watches, _generation, _stop) = start(&server);
    assert!(!watches.synced(Duration::from_secs(10)).await);
    let woken = Arc::new(Woken::default());
    watches.attach(woken.clone());
    assert_eq!(woken.0.lock().unwrap().len(), 1, "the CanaryRelease is known all the same");
    let names: Vec<_> = blocking(&watches).into_iter().map(|report| report.kind.name()).collect();
    assert_eq!(names, ["deployments/target", "deployments/canary"]);
    assert_eq!(begin.elapsed().as_secs(), 10, "the wait is bounded");
}

#[tokio::test(start_paused = true)]
async fn without_our_crd_the_operator_is_not_ready_and_says_what_to_do() {
    let server = Server::default();
    let (watches, _generation, _stop) = start(&server);
    watches.synced(Duration::from_secs(10)).await;
    let missing = blocking(&watches);
    assert!(missing.iter().any(|report| report.detail.contains("kubectl apply -f crds/")), "{missing:?}");
    server.set("canaryreleases", Answer::Items(vec![release("web")]));
    let woken = Arc::new(Woken::default());
    watches.attach(woken.clone());
    watches.shared.until(|inner| inner.states.first() == Some(&State::Synced)).await;
    assert_eq!(woken.0.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_hangs_is_named() {
    let server = full();
    server.set("canaryreleases", Answer::Hang);
    let (watches, _generation, _stop) = start(&server);
    assert!(!watches.synced(Duration::from_secs(10)).await);
    assert_eq!(
        blocking(&watches).first().map(|report| report.detail.clone()).as_deref(),
        Some("waits for its first list")
    );
}

#[tokio::test(start_paused = true)]
async fn the_policy_generation_is_published_once_all_policies_are_known() {
    let server = full();
    server.set("mutatingadmissionpolicies", Answer::Hang);
    let (_watches, mut generation, _stop) = start(&server);
    assert!(timeout(Duration::from_secs(30), generation.changed()).await.is_err());
    let server = full();
    let (watches, mut generation, _stop) = start(&server);
    let woken = Arc::new(Woken::default());
    watches.attach(woken.clone());
    generation.changed().await.unwrap();
    assert!(!generation.borrow_and_update().0.is_empty());
    let policy = serde_json::from_value(json!({"name": "canaryrelease-hold", "uid": "p", "generation": 1})).unwrap();
    watches.shared.take(Kind::MutatingPolicies, Change::Applied(&policy));
    let changed = Instant::now();
    generation.changed().await.unwrap();
    assert_eq!(changed.elapsed(), SETTLE, "after the API server had time to obey it");
    assert_eq!(*woken.1.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_synced_watch_that_failed_once_and_resumed_keeps_the_operator_ready() {
    let now = Instant::now();
    let state = State::Failing { reason: "reset".into(), since: now, last: now, synced: true };
    assert!(!report(Kind::Targets, &state, now + Duration::from_secs(59)).blocks);
    assert!(!report(Kind::Targets, &state, now + Duration::from_secs(91)).blocks);
    let again =
        State::Failing { reason: "reset".into(), since: now, last: now + Duration::from_secs(80), synced: true };
    assert!(report(Kind::Targets, &again, now + Duration::from_secs(91)).blocks);
}
