//! Jobs against an API server that answers late.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use canary_core::effect::{JOB, TRAFFIC_BACK};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kube::client::{Body, ClientBuilder};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tower::BoxError;

use super::*;

/// Longest that the client waits for one answer.
const LATE: Duration = Duration::from_secs(8);

/// A client whose server says of each Job, after a time, this; and what it was asked for.
fn client(after: Duration, code: u16) -> (Client, Arc<Mutex<Vec<String>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&calls);
    let service = tower::service_fn(move |request: Request<Body>| {
        let heard = Arc::clone(&heard);
        async move {
            let path = request.uri().path().to_owned();
            let plural = path.split('/').nth(6).unwrap_or_default().to_owned();
            heard.lock().unwrap().push(plural.clone());
            let is_job = plural == "jobs";
            if is_job {
                sleep(after).await;
            }
            let code = if is_job { code } else { 200 };
            let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "code": code});
            let mut response = Response::new(Full::new(Bytes::from(answer.to_string())).map_err(BoxError::from));
            *response.status_mut() = StatusCode::from_u16(code)?;
            Ok::<_, BoxError>(response)
        }
    });
    (ClientBuilder::new(service, "shop").build(), calls)
}

/// Ten Jobs, and after them the write that nothing may stand before.
fn planned() -> Vec<Effect> {
    let job = |number: usize| Effect::Create {
        kind: Kind::Job,
        object: json!({"metadata": {"name": format!("web-1-smoke-{number}")}}),
        why: JOB,
    };
    let back = Effect::Patch { kind: Kind::HttpRoute, name: "web".to_owned(), patch: json!([]), why: TRAFFIC_BACK };
    (0..10).map(job).chain([back]).collect()
}

async fn run(after: Duration, code: u16) -> (Vec<usize>, Vec<Refusal>, Vec<String>, Duration) {
    let (client, calls) = client(after, code);
    let (mut done, mut refusals) = (Vec::new(), Vec::new());
    let before = Instant::now();
    let all = planned();
    let ended = effects(&client, "shop", &all, |_| true, &mut done, |_, why| refusals.push(why)).await;
    assert!(ended.is_ok(), "a Job fails no tick: {ended:?}");
    let calls = calls.lock().unwrap().clone();
    (done, refusals, calls, before.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_creates_no_job_holds_a_tick_up_for_two_seconds_and_no_other_write() {
    let (done, refusals, calls, took) = run(LATE, 503).await;
    assert_eq!(took.as_secs(), 2);
    assert_eq!((calls.len(), calls[0].as_str(), done), (11, "httproutes", vec![10]));
    assert_eq!(refusals.len(), 10);
    assert!(refusals.iter().all(|why| why.fresh && !why.last && why.why.contains("no answer in time")));
}

#[tokio::test(start_paused = true)]
async fn jobs_are_created_side_by_side_and_a_refusal_is_told() {
    let (done, refusals, _, took) = run(Duration::from_secs(1), 200).await;
    assert_eq!((done.len(), refusals.len(), took.as_secs()), (11, 0, 1));
    let (done, refusals, _, _) = run(Duration::ZERO, 403).await;
    assert!(done == [10] && refusals.len() == 10 && refusals.iter().all(|why| why.last), "{refusals:?}");
    let (done, refusals, _, _) = run(Duration::ZERO, 409).await;
    assert!(done == [10] && refusals.is_empty(), "{refusals:?}");
}
