#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Mutex;

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use clap::Parser as _;
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::client::{Body, ClientBuilder};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tower::BoxError;

use super::*;
use crate::clock::Clock;
use crate::config::Args;
use crate::workers::{Next, ObjectKey};

/// One CanaryRelease, one Lease, no Gateway API.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<serde_json::Value>,
    version: u64,
    /// Lease calls are answered with 500.
    broken: bool,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let path = request.uri().path().to_owned();
                if request.uri().query().unwrap_or_default().contains("watch=true") {
                    let silent = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, BoxError>>());
                    return Ok::<_, BoxError>(Response::new(silent.boxed_unsync()));
                }
                let method = request.method().clone();
                let body = request.into_body().collect().await?.to_bytes();
                let (code, body) = server.answer(&method, &path, &body);
                let body = Full::new(Bytes::from(body.to_string())).map_err(Into::into).boxed_unsync();
                let mut response = Response::new(body);
                *response.status_mut() = StatusCode::from_u16(code)?;
                Ok(response)
            }
        });
        ClientBuilder::new(service, "system").build()
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (u16, serde_json::Value) {
        let refuse = |code: u16| {
            (
                code,
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "reason": "NotFound", "code": code}),
            )
        };
        let mut state = self.0.lock().unwrap();
        if path.contains("/leases") {
            if state.broken {
                return refuse(500);
            }
            if *method != Method::GET {
                state.version += 1;
                let mut lease: serde_json::Value = serde_json::from_slice(body).unwrap();
                lease["metadata"]["resourceVersion"] = state.version.to_string().into();
                state.lease = Some(lease);
            }
            return state.lease.clone().map_or_else(|| refuse(404), |lease| (200, lease));
        }
        if path.ends_with("/httproutes") {
            return refuse(404);
        }
        let items = if path.ends_with("/canaryreleases") {
            vec![
                json!({"metadata": {"namespace": "shop", "name": "web", "uid": "u", "resourceVersion": "1", "generation": 1}}),
            ]
        } else {
            vec![]
        };
        (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": items}))
    }

    fn holder(&self) -> Option<String> {
        let state = self.0.lock().unwrap();
        state.lease.as_ref()?["spec"]["holderIdentity"].as_str().map(ToOwned::to_owned)
    }
}

/// Records when ticks start and end; each takes three seconds.
#[derive(Clone, Default)]
struct NoopTicker(Arc<Mutex<Vec<(&'static str, Instant)>>>);

impl NoopTicker {
    fn all(&self, what: &str) -> Vec<Instant> {
        self.0.lock().unwrap().iter().filter(|(of, _)| *of == what).map(|(_, at)| *at).collect()
    }
}

impl Ticker for NoopTicker {
    async fn tick(&self, key: ObjectKey) -> Next {
        assert_eq!(key, ObjectKey::new("shop", "web"));
        self.0.lock().unwrap().push(("start", Instant::now()));
        sleep(Duration::from_secs(3)).await;
        self.0.lock().unwrap().push(("end", Instant::now()));
        Next::WakeAfter(Duration::from_secs(5))
    }
}

async fn start(server: &Server, arguments: &[&str]) -> (NoopTicker, CancellationToken, JoinHandle<()>) {
    let mut all = vec!["canary-operator", "--identity", "pod-a"];
    all.extend_from_slice(arguments);
    let settings = Settings {
        args: Args::parse_from(all),
        file: None,
        providers: vec![],
        pods: canary_metrics::pods::PodLimits::default(),
        records: crate::config::Retention::default(),
    };
    let clients =
        Clients { api: server.client(), lease: server.client(), clock: Clock::default(), namespace: "system".into() };
    let listener = http::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (ticker, stop) = (NoopTicker::default(), CancellationToken::new());
    let (plugged, stopped) = (ticker.clone(), stop.clone());
    let task = tokio::spawn(async move {
        run(&settings, clients, Metrics::new(), listener, |_parts| plugged, stopped).await;
    });
    (ticker, stop, task)
}

#[tokio::test(start_paused = true)]
async fn sigterm_finishes_the_tick_in_hand_and_then_gives_the_lease_back() {
    let server = Server::default();
    let (ticker, stop, task) = start(&server, &[]).await;
    sleep(Duration::from_secs(11)).await;
    assert_eq!(server.holder().as_deref(), Some("pod-a"));
    let started = ticker.all("start").len();
    assert!(started > ticker.all("end").len(), "a tick is in hand");
    stop.cancel();
    task.await.unwrap();
    assert_eq!(ticker.all("end").len(), started);
    assert_eq!(server.holder(), None);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_stops_the_ticks_and_the_process_goes_on_when_it_leads_again() {
    let server = Server::default();
    let (ticker, stop, task) = start(&server, &[]).await;
    sleep(Duration::from_secs(6)).await;
    server.0.lock().unwrap().broken = true;
    sleep(Duration::from_secs(60)).await;
    let last = *ticker.all("start").last().unwrap();
    assert!(last.elapsed() > Duration::from_secs(40), "no tick without the lease");
    assert!(!task.is_finished());
    server.0.lock().unwrap().broken = false;
    sleep(Duration::from_secs(10)).await;
    assert!(ticker.all("start").last().unwrap().elapsed() < Duration::from_secs(6));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_election_it_ticks_at_once_and_writes_no_lease() {
    let server = Server::default();
    let (ticker, stop, task) = start(&server, &["--leader-elect", "false"]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(ticker.all("start").len(), 1);
    assert_eq!(server.holder(), None);
    stop.cancel();
    task.await.unwrap();
}
