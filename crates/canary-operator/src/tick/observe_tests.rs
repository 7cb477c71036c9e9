//! Jobs read from an API server that takes its time.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::client::{Body, ClientBuilder};
use tokio::time::sleep;
use tower::BoxError;

use super::*;

#[tokio::test(start_paused = true)]
async fn all_that_is_read_of_jobs_takes_two_seconds_together() {
    let service = tower::service_fn(|request: Request<Body>| async move {
        let pods = request.uri().path().ends_with("/pods");
        sleep(Duration::from_millis(1500)).await;
        let failed = json!({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]});
        let answer = if pods {
            json!({"items": []})
        } else {
            json!({"metadata": {"name": "web-1-smoke", "uid": "j"}, "status": failed})
        };
        Ok::<_, BoxError>(Response::new(Full::new(Bytes::from(answer.to_string())).map_err(BoxError::from)))
    });
    let client = ClientBuilder::new(service, "shop").build();
    let release: CanaryRelease = serde_json::from_value(json!({
        "apiVersion": "canaryrelease.dev/v1alpha1", "kind": "CanaryRelease",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "target": {"name": "web"}, "stages": [{"weight": "100%", "duration": "1m"}], "gates": [],
            "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "r"}},
        },
        "status": {"current": {"id": "web-1", "step": "Bake", "jobs": [
            {"name": "smoke", "at": "Stage", "stage": 1, "attempt": 1, "job": "web-1-smoke", "state": "Running"},
        ]}},
    }))
    .unwrap();
    let before = Instant::now();
    let seen = jobs(&client, "shop", &release).await;
    assert_eq!(before.elapsed().as_secs(), 2);
    assert!(seen.jobs["web-1-smoke"].known().is_some(), "what came in time is known");
    assert!(matches!(seen.pods["web-1-smoke"], Fetched::Failed(_)));
}
