#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use proptest::prelude::*;
use tokio::time::{advance, sleep};
use tower::BoxError;

use super::*;

const ME: &str = "pod-a";

fn seen(holder: Option<&str>, since: Instant) -> Seen {
    let record = Record {
        version: "1".into(),
        holder: holder.map(ToOwned::to_owned),
        duration: Duration::from_secs(15),
        transitions: 3,
    };
    Seen { record, since }
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_another_runs_out_only_after_its_whole_duration_without_a_change() {
    let (timing, since) = (Timing::default(), Instant::now());
    let other = seen(Some("pod-b"), since);
    assert_eq!(decide(since, Some(&other), ME, &timing), Step::Wait(since + timing.retry));
    assert_eq!(
        decide(since + Duration::from_millis(14_999), Some(&other), ME, &timing),
        Step::Wait(since + Duration::from_secs(15))
    );
    assert_eq!(decide(since + Duration::from_secs(15), Some(&other), ME, &timing), Step::Take);
}

#[tokio::test(start_paused = true)]
async fn a_free_lease_is_taken_and_a_missing_one_created() {
    let (timing, now) = (Timing::default(), Instant::now());
    assert_eq!(decide(now, None, ME, &timing), Step::Create);
    assert_eq!(decide(now, Some(&seen(None, now)), ME, &timing), Step::Take);
    assert_eq!(decide(now, Some(&seen(Some(""), now)), ME, &timing), Step::Take);
}

#[tokio::test(start_paused = true)]
async fn our_own_lease_is_renewed_when_due_and_not_before() {
    let (timing, since) = (Timing::default(), Instant::now());
    let mine = seen(Some(ME), since);
    assert_eq!(decide(since, Some(&mine), ME, &timing), Step::Wait(since + timing.renew));
    assert_eq!(decide(since + timing.renew, Some(&mine), ME, &timing), Step::Renew);
}

/// One Lease behind an API server: compare-and-swap by resourceVersion, delays and faults on demand.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<serde_json::Value>,
    version: u64,
    writes: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Fault {
    /// Before the server looks at it.
    before: Duration,
    /// From the commit to the answer.
    after: Duration,
    /// The answer is lost: an error, whatever happened.
    lost: bool,
}

impl Server {
    fn answer(&self, method: &Method, body: &[u8]) -> Response<Full<Bytes>> {
        let mut state = self.0.lock().unwrap();
        let status = |code: StatusCode, reason: &str| {
            let body = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "reason": reason, "message": reason, "code": code.as_u16()});
            let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
            *response.status_mut() = code;
            response
        };
        if *method != Method::GET {
            let mut sent: serde_json::Value = serde_json::from_slice(body).unwrap();
            match (&state.lease, *method == Method::POST) {
                (Some(_), true) => return status(StatusCode::CONFLICT, "AlreadyExists"),
                (None, false) => return status(StatusCode::NOT_FOUND, "NotFound"),
                (Some(held), false) if held["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] => {
                    return status(StatusCode::CONFLICT, "Conflict");
                }
                _ => {}
            }
            state.version += 1;
            state.writes += 1;
            sent["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.lease = Some(sent);
        }
        match &state.lease {
            Some(lease) => Response::new(Full::new(Bytes::from(lease.to_string()))),
            None => status(StatusCode::NOT_FOUND, "NotFound"),
        }
    }

    /// A client whose n-th call meets the n-th fault.
    fn client(&self, faults: Vec<Fault>) -> Client {
        let server = self.clone();
        let faults = Arc::new(Mutex::new(faults.into_iter()));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, fault) = (server.clone(), faults.lock().unwrap().next().unwrap_or_default());
            async move {
                let method = request.method().clone();
                let body = request.into_body().collect().await?.to_bytes();
                sleep(fault.before).await;
                let response = server.answer(&method, &body);
                sleep(fault.after).await;
                if fault.lost { Err("connection reset".into()) } else { Ok::<_, BoxError>(response) }
            }
        });
        ClientBuilder::new(service, "default").build()
    }

    fn holder(&self) -> Option<String> {
        let state = self.0.lock().unwrap();
        state.lease.as_ref()?["spec"]["holderIdentity"].as_str().map(ToOwned::to_owned)
    }
}

struct Replica {
    leads: watch::Receiver<Role>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn replica(client: Client, me: &str) -> Replica {
    let (elector, leads) = Elector::new(Api::namespaced(client, "system"), "lease", me, Timing::default());
    let stop = CancellationToken::new();
    let task = tokio::spawn(elector.run(stop.clone()));
    Replica { leads, stop, task }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_back_is_taken_within_one_look() {
    let server = Server::default();
    let mut first = replica(server.client(vec![]), "a");
    first.leads.wait_for(|role| *role == Role::Leader).await.unwrap();
    let mut second = replica(server.client(vec![]), "b");
    sleep(Duration::from_secs(60)).await;
    assert_ne!(*second.leads.borrow(), Role::Leader);
    first.stop.cancel();
    first.task.await.unwrap();
    let since = Instant::now();
    second.leads.wait_for(|role| *role == Role::Leader).await.unwrap();
    assert!(since.elapsed() <= Timing::default().retry);
    assert_eq!(server.holder().as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_followed_and_a_restarted_one_goes_on_at_once() {
    let server = Server::default();
    let mut first = replica(server.client(vec![]), "a");
    first.leads.wait_for(|role| *role == Role::Leader).await.unwrap();
    first.task.abort();
    let since = Instant::now();
    let mut again = replica(server.client(vec![]), "a");
    again.leads.wait_for(|role| *role == Role::Leader).await.unwrap();
    assert_eq!(since.elapsed(), Duration::ZERO, "the same pod need not wait for itself");
    again.task.abort();
    let mut second = replica(server.client(vec![]), "b");
    second.leads.wait_for(|role| *role == Role::Leader).await.unwrap();
    assert!(since.elapsed() >= Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_another_may_start() {
    let server = Server::default();
    let hang = Fault { before: Duration::from_secs(3600), ..Fault::default() };
    // read, create, then nothing answers any more.
    let mut faults = vec![Fault::default(), Fault::default()];
    faults.extend(vec![hang; 1000]);
    let mut first = replica(server.client(faults), "a");
    first.leads.wait_for(|role| *role == Role::Leader).await.unwrap();
    let held = Instant::now();
    let mut second = replica(server.client(vec![]), "b");
    first.leads.wait_for(|role| *role != Role::Leader).await.unwrap();
    assert_eq!(held.elapsed(), Timing::default().renew_deadline);
    assert_ne!(*second.leads.borrow(), Role::Leader);
    second.leads.wait_for(|role| *role == Role::Leader).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_quiet_leader_writes_only_its_renewals() {
    let server = Server::default();
    let mut only = replica(server.client(vec![]), "a");
    only.leads.wait_for(|role| *role == Role::Leader).await.unwrap();
    sleep(Duration::from_secs(602)).await;
    assert_eq!(server.0.lock().unwrap().writes, 121);
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault =
        (0_u64..20_000, 0_u64..20_000, any::<bool>(), 0..4_u8).prop_map(|(before, after, lost, kind)| match kind {
            0 => Fault { before: Duration::from_millis(before), after: Duration::from_millis(after), lost },
            1 => Fault { lost, ..Fault::default() },
            _ => Fault::default(),
        });
    prop::collection::vec(fault, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Delays, lost answers and restarts never make two lead at once, and one leads in the end.
    #[test]
    fn never_two_leaders_and_at_last_one(
        plans in prop::collection::vec((faults(), 0_u64..40_000, 0_u64..120_000), 2..4)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let server = Server::default();
            let all: Arc<Mutex<Vec<watch::Receiver<Role>>>> = Arc::default();
            for (number, (faults, start, restart)) in plans.into_iter().enumerate() {
                let (server, all) = (server.clone(), all.clone());
                tokio::spawn(async move {
                    sleep(Duration::from_millis(start)).await;
                    let first = replica(server.client(faults), &format!("pod-{number}"));
                    all.lock().unwrap().push(first.leads.clone());
                    sleep(Duration::from_millis(restart)).await;
                    // Killed: what it held is gone with it, and the same pod comes back.
                    first.task.abort();
                    let _ended = first.task.await;
                    all.lock().unwrap().retain(|leads| !leads.same_channel(&first.leads));
                    let again = replica(server.client(vec![]), &format!("pod-{number}"));
                    all.lock().unwrap().push(again.leads);
                });
            }
            let leaders = || all.lock().unwrap().iter().filter(|leads| *leads.borrow() == Role::Leader).count();
            for _ in 0..1600 {
                advance(Duration::from_millis(200)).await;
                tokio::task::yield_now().await;
                assert!(leaders() <= 1, "two lead at once");
            }
            assert_eq!(leaders(), 1);
        });
    }
}
