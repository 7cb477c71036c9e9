//! A CanaryRelease is deleted: all traffic on stable, the Deployment plain, nothing of ours left.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Kind, text, truth};
use crate::history::Seen;
use crate::scene::{RELEASE, SOON, Scene, rolled_out};
use crate::setup::image;

/// Deleted at each stage: traffic on stable, the Deployment plain.
pub async fn deleted_at_each_stage_leaves_a_plain_deployment(scene: &mut Scene) -> Result<()> {
    type Moment = (&'static str, fn(&Seen) -> bool, bool);
    let moments: [Moment; 6] = [
        ("the baseline is measured", |seen| seen.step() == "Baseline", false),
        ("the canary is scaled", |seen| seen.step() == "Scale", false),
        ("stage 1 is judged", |seen| seen.baking(1), false),
        ("stage 2 is judged", |seen| seen.baking(2), false),
        ("stage 3 is judged", |seen| seen.baking(3), false),
        // A roll is completed first.
        ("the target rolls", |seen| seen.step() == "Roll", true),
    ];
    let setup = scene.plain().stages(&[("10%", "4s"), ("50%", "4s"), ("100%", "4s")]);
    scene.open(setup).await?;
    for (index, (moment, holds, completed)) in moments.into_iter().enumerate() {
        if index > 0 {
            scene.from_now();
            scene.apply_release().await?;
            scene.until("armed", SOON, Seen::armed).await?;
        }
        scene.set_image("v2").await?;
        scene.until(moment, RELEASE, holds).await?;
        delete(scene, &[]).await?;
        plain(scene, if completed { "v2" } else { "v1" }).await?;
        scene.no_answer_by(if completed { "v1" } else { "v2" }, Duration::from_secs(3)).await?;
    }
    scene.no_bad_answers()
}

/// Deleted in the foreground at weight 50: no answer fails.
pub async fn deleted_in_the_foreground_at_weight_50(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("50%", "120s"), ("100%", "4s")]);
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "shop", "namespace": scene.namespace},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "shop"}}}});
    scene.cluster().apply(&[&budget]).await?;
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("half of the traffic is on the candidate", SOON, |seen| seen.baking(1)).await?;
    scene.answered_by("v2", SOON).await?;
    let budgets = scene.kubectl(&["get", "poddisruptionbudgets", "-o", "name"]).await?;
    ensure!(budgets.contains("/shop-canary"), "the canary has no budget like the target's: {budgets}");
    delete(scene, &["--cascade=foreground"]).await?;
    plain(scene, "v1").await?;
    let budgets = scene.kubectl(&["get", "poddisruptionbudgets", "-o", "name"]).await?;
    ensure!(!budgets.contains("/shop-canary"), "the canary's budget stayed: {budgets}");
    scene.no_answer_by("v2", Duration::from_secs(4)).await?;
    scene.no_bad_answers()
}

/// Deleted after a revert in Hold mode: the serving version's template is written back, no pod changes.
pub async fn deleted_after_a_revert_in_hold_mode(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().spec("onRevert", "Hold");
    scene.open(setup).await?;
    let before = names(&scene.pods_of("shop").await?);
    scene.set_image("bad").await?;
    scene.ended("RolledBack").await?;
    delete(scene, &[]).await?;
    plain(scene, "v1").await?;
    let after = names(&scene.pods_of("shop").await?);
    ensure!(before == after, "the stable pods changed: {before:?}, {after:?}");
    scene.no_answer_by("bad", Duration::from_secs(4)).await?;
    scene.no_bad_answers_but_of("bad")
}

fn names(pods: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = pods.iter().map(|pod| text(pod, "/metadata/name").to_owned()).collect();
    names.sort();
    names
}

/// Deletes the CanaryRelease and waits until it is gone.
async fn delete(scene: &mut Scene, options: &[&str]) -> Result<()> {
    scene.from_now();
    let mut arguments = vec!["delete", "canaryrelease", "shop", "--wait=false"];
    arguments.extend(options);
    scene.kubectl(&arguments).await?;
    scene.until("gone", RELEASE, Seen::gone).await.map(drop)
}

/// Route and Deployment are as a user without us would have them, and nothing of ours is left.
pub(crate) async fn plain(scene: &mut Scene, version: &str) -> Result<()> {
    let namespace = scene.namespace.clone();
    let ours = |object: &Value| {
        object["metadata"]["labels"].to_string().contains("canaryrelease.dev")
            || object["metadata"]["annotations"].to_string().contains("canaryrelease.dev")
    };
    scene
        .cluster()
        .until((Kind::Deployment, &namespace, "shop"), SOON, "rolled out", |found| found.is_some_and(rolled_out))
        .await?;
    let target = scene.deployment("shop").await?.context("the target is gone")?;
    ensure!(!truth(&target, "/spec/paused"), "the target is still paused");
    ensure!(
        text(&target, "/spec/template/spec/containers/0/image") == image(version),
        "the target does not ask for {version}"
    );
    ensure!(!ours(&target), "the target still carries our marks: {}", target["metadata"]);
    let route = scene.cluster().get(Kind::HttpRoute, &namespace, "shop").await?.context("the route is gone")?;
    ensure!(!ours(&route), "the route still carries our marks: {}", route["metadata"]);
    ensure!(
        route["spec"]["rules"][0]["backendRefs"].as_array().is_some_and(|refs| refs.len() == 1),
        "the route is still split: {}",
        route["spec"]
    );
    for kind in [Kind::Deployment, Kind::Service] {
        let gone =
            |found: Option<&Value>| found.is_none_or(|object| object.pointer("/metadata/deletionTimestamp").is_some());
        scene.cluster().until((kind, &namespace, "shop-canary"), SOON, "gone", gone).await?;
    }
    scene.step(format!("plain, asking for {version}"));
    Ok(())
}
