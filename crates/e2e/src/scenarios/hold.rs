//! The hold: where it is missing, taken twice, scaled, or its target goes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::promotion::{promoted_to, stable_serves};
use crate::cluster::{Kind, number, text, truth};
use crate::history::Seen;
use crate::scene::{RELEASE, SOON, Scene};
use crate::setup::image;

/// Without the admission policies the CanaryRelease is not Ready and says what to do; with them it is.
pub async fn hold_not_installed_is_said(scene: &mut Scene) -> Result<()> {
    scene.world.remove_policies().await?;
    let setup = scene.plain();
    let said = async {
        scene.open_unreleased(setup).await?;
        scene.apply_release().await?;
        scene
            .until("not Ready: HoldNotInstalled", SOON, |seen| seen.condition("Ready") == ("HoldNotInstalled", "False"))
            .await
    }
    .await;
    // Whatever came of it, the others need the policies.
    scene.world.install_policies().await?;
    let seen = said?;
    ensure!(seen.message().contains("kubectl apply"), "the message names no way out: {}", seen.message());
    scene.until("armed", SOON, Seen::armed).await?;
    scene.no_bad_answers()
}

/// Two CanaryReleases for one target: the second says so, the first goes on.
pub async fn second_release_for_one_target_says_so(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("50%", "4s"), ("100%", "4s")]);
    scene.open(setup).await?;
    let mut second = scene.objects().release.clone();
    second["metadata"]["name"] = "zweite".into();
    scene.cluster().apply(&[&second]).await?;
    let namespace = scene.namespace.clone();
    let said = scene
        .cluster()
        .until((Kind::CanaryRelease, &namespace, "zweite"), SOON, "told that the target is taken", |found| {
            found.is_some_and(|release| release["status"]["conditions"].to_string().contains("TargetTaken"))
        })
        .await?
        .context("the second is gone")?;
    ensure!(
        text(&said, "/status/message").contains("shop"),
        "the second does not name the first: {}",
        text(&said, "/status/message")
    );
    scene.set_image("v2").await?;
    scene.ended("Promoted").await?;
    promoted_to(scene, "v2").await?;
    scene.from_now();
    scene.kubectl(&["delete", "canaryrelease", "zweite", "--timeout=30s"]).await?;
    let target = scene.deployment("shop").await?.context("the target is gone")?;
    ensure!(
        text(&target, "/metadata/labels/canaryrelease.dev~1release") == "shop",
        "the second's deletion disarmed the first"
    );
    scene.no_bad_answers()
}

/// An autoscaler on the target scales it up during the release; its scale-down is frozen meanwhile.
pub async fn autoscaler_scales_during_the_release(scene: &mut Scene) -> Result<()> {
    let mut setup = scene.plain().stages(&[("10%", "90s"), ("50%", "10s"), ("100%", "10s")]).rate(20.0);
    let container = &mut setup.deployment["spec"]["template"]["spec"]["containers"][0];
    container["env"] = json!([{"name": "CPU_US", "value": "3000"}]);
    container["resources"]["requests"]["cpu"] = "100m".into();
    if let Some(spec) = setup.deployment["spec"].as_object_mut() {
        // The autoscaler's field.
        spec.remove("replicas");
    }
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "shop", "namespace": scene.namespace},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
            "minReplicas": 2, "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        },
    });
    scene.cluster().apply(&[&autoscaler]).await?;
    scene.open(setup).await?;
    let (namespace, minutes) = (scene.namespace.clone(), Duration::from_secs(180));
    scene
        .cluster()
        .until((Kind::Deployment, &namespace, "shop"), minutes, "at 2 pods", |found| {
            found.is_some_and(|target| number(target, "/status/availableReplicas") == 2)
        })
        .await?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    scene
        .cluster()
        .until((Kind::Autoscaler, &namespace, "shop"), SOON, "frozen against scaling down", |found| {
            found.is_some_and(|autoscaler| text(autoscaler, "/spec/behavior/scaleDown/selectPolicy") == "Disabled")
        })
        .await?;
    scene.rate(100.0)?;
    scene.step("100 requests/s");
    scene
        .cluster()
        .until((Kind::Deployment, &namespace, "shop"), minutes, "scaled up while held", |found| {
            found.is_some_and(|target| {
                number(target, "/spec/replicas") > 2
                    && truth(target, "/spec/paused")
                    && number(target, "/status/availableReplicas") > 2
            })
        })
        .await?;
    scene.step("scaled up while held");
    let seen = scene.ended("Promoted").await?;
    ensure!(
        number(&seen.object, "/status/current/targetPods") > 2,
        "the release did not count the pods that were added"
    );
    let autoscaler =
        scene.cluster().get(Kind::Autoscaler, &namespace, "shop").await?.context("the autoscaler is gone")?;
    ensure!(
        autoscaler.pointer("/spec/behavior/scaleDown").is_none(),
        "its behavior was not put back: {}",
        autoscaler["spec"]["behavior"]
    );
    scene.no_bad_answers()
}

/// The target is scaled to zero while held and comes back: the stable version serves.
pub async fn scaled_to_zero_while_held_comes_back_as_stable(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("10%", "120s"), ("100%", "4s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    scene.kubectl(&["scale", "deployment/shop", "--replicas=0"]).await?;
    scene.ended("Aborted").await?;
    let namespace = scene.namespace.clone();
    scene
        .cluster()
        .until((Kind::Deployment, &namespace, "shop"), SOON, "back at the serving template", |found| {
            found.is_some_and(|target| {
                text(target, "/spec/template/spec/containers/0/image") == image("v1") && !truth(target, "/spec/paused")
            })
        })
        .await?;
    scene.kubectl(&["scale", "deployment/shop", "--replicas=2"]).await?;
    scene
        .cluster()
        .until((Kind::Deployment, &namespace, "shop"), SOON, "at 2 pods", |found| {
            found.is_some_and(|target| number(target, "/status/availableReplicas") == 2)
        })
        .await?;
    stable_serves(scene, "v1").await?;
    scene.no_answer_by("v2", Duration::from_secs(5)).await
}

/// The target is deleted and created again: a new baseline; what it runs serves, and the next change
/// is released in stages.
pub async fn target_deleted_and_created_again_is_a_new_baseline(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("50%", "60s"), ("100%", "4s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    scene.kubectl(&["delete", "deployment", "shop"]).await?;
    scene.ended("Aborted").await?;
    scene.from_now();
    let again = scene.objects().deployment_with("v3");
    scene.cluster().apply(&[&again]).await?;
    scene.until("armed again", SOON, Seen::armed).await?;
    scene.tidy().await?;
    scene.answered_by("v3", SOON).await?;
    scene.no_answer_by("v2", Duration::from_secs(3)).await?;
    scene.from_now();
    scene.set_image("v4").await?;
    scene.until("the next change is released in stages", RELEASE, |seen| seen.number() == 2 && seen.baking(1)).await?;
    scene.command("abort").await?;
    scene.until("ended Aborted", RELEASE, |seen| seen.number() == 2 && seen.ended("Aborted")).await?;
    stable_serves(scene, "v3").await
}
