//! Pods of the serving version beside the canary's.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::promotion::{promoted_to, stable_serves};
use crate::cluster::text;
use crate::history::Seen;
use crate::scene::{RELEASE, SOON, Scene};

/// Requests by which two equal shares are told to be equal.
const ENOUGH: f64 = 250.0;

/// A release is compared with baseline pods that get as much as the canary, goes on when they are lost, and leaves
/// nothing of them; the next one is worse and reverted by that comparison.
pub async fn compared_with_pods_beside_the_canarys(scene: &mut Scene) -> Result<()> {
    let bad = "http_requests_total{code=~\"5..\"}";
    let errors = json!({"name": "errors", "errorRate": {"bad": bad, "total": "http_requests_total", "limit": "60%"}});
    let compared = json!({"name": "as-stable", "relative": {"counter": bad, "to": "Stable", "margin": "50%"}});
    let setup = scene
        .plain()
        .stages(&[("20%", "30s"), ("100%", "6s")])
        .spec("baseline", json!({"duration": "3s", "pods": true}))
        .spec("gates", json!([errors, compared]))
        .replicas(6)
        .rate(100.0);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    judged_beside(scene, 1).await?;
    as_many_requests(scene).await?;
    // One of the two: the other answers until the gateway has the new weights.
    let pods = scene.pods_of("shop-baseline").await?;
    let first = text(pods.first().context("no baseline pod")?, "/metadata/name").to_owned();
    scene.kubectl(&["delete", "pod", &first, "--wait=false"]).await?;
    scene.until("left out of the stage", SOON, |seen| !left_out(&seen.object).is_empty()).await?;
    weights_become(scene, &[("shop", 800), ("shop-canary", 200), ("shop-baseline", 0)]).await?;
    let end = scene.ended("Promoted").await?;
    ensure!(end.number() == 1, "not the first release: {}", end.line());
    promoted_to(scene, "v2").await?;
    scene.stages_were(1, &[1, 2])?;
    scene.no_bad_answers()?;

    scene.from_now();
    scene.set_image("v3").await?;
    judged_beside(scene, 2).await?;
    scene.fault("shop-canary", "error_rate=0.3").await?;
    let end = scene.until("ended RolledBack", RELEASE, |seen| seen.number() == 2 && seen.ended("RolledBack")).await?;
    let revert = text(&end.object, "/status/current/revert/by").to_owned();
    ensure!(revert == "gate as-stable", "not by the comparison: {revert}: {}", end.line());
    stable_serves(scene, "v2").await?;
    scene.no_bad_answers_but_of("v3")
}

fn left_out(object: &Value) -> &str {
    text(object, "/status/current/baselinePods/leftOut")
}

/// The status is written before the route.
async fn weights_become(scene: &mut Scene, expected: &[(&str, i64)]) -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        let weights = scene.split().await?;
        if weights.iter().map(|(name, weight)| (name.as_str(), *weight)).eq(expected.iter().copied()) {
            scene.step(format!("weights {weights:?}"));
            return Ok(());
        }
        ensure!(Instant::now() < end, "weights {weights:?} where {expected:?} are expected");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until stage 1 is judged against two baseline pods, with three weights on the route.
async fn judged_beside(scene: &mut Scene, number: i64) -> Result<()> {
    let compares = move |seen: &Seen| {
        let gates = seen.object.pointer("/status/gates").and_then(Value::as_array);
        let says = |gate: &Value| text(gate, "/restsOn").ends_with("compared with stable, 2 baseline pods");
        seen.number() == number && seen.baking(1) && gates.is_some_and(|gates| gates.iter().any(says))
    };
    scene.until("stage 1 is compared with baseline pods", RELEASE, compares).await?;
    weights_become(scene, &[("shop", 600), ("shop-canary", 200), ("shop-baseline", 200)]).await
}

/// The baseline pods answer about as many requests as the canary.
async fn as_many_requests(scene: &mut Scene) -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        let canary = scene.requests_of("shop-canary").await.context("the canary's requests")?;
        let baseline = scene.requests_of("shop-baseline").await.context("the baseline pods' requests")?;
        if canary.min(baseline) >= ENOUGH {
            let ratio = baseline / canary;
            ensure!((0.75..=1.33).contains(&ratio), "{baseline} requests of the baseline pods, {canary} of the canary");
            scene.step(format!("{baseline} requests of the baseline pods, {canary} of the canary"));
            return Ok(());
        }
        if Instant::now() > end {
            bail!("{baseline} requests of the baseline pods, {canary} of the canary after {SOON:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
