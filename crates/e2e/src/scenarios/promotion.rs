//! A good release goes live.

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{number, text, truth};
use crate::scene::{SOON, Scene, rolled_out};
use crate::setup::image;

/// A good release passes every stage once and ends promoted; the client sees no error.
pub async fn good_release_promoted(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain();
    scene.open(setup).await?;
    scene.answered_by("v1", SOON).await?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    scene.answered_by("v2", SOON).await?;
    scene.ended("Promoted").await?;
    promoted_to(scene, "v2").await?;
    scene.stages_were(1, &[1, 2, 3])?;
    scene.no_bad_answers()
}

/// What a promotion leaves: the target runs the new version, whole, and nothing of the release is left.
pub async fn promoted_to(scene: &mut Scene, version: &str) -> Result<()> {
    scene.tidy().await?;
    let name = scene.target();
    let target = scene.deployment(&name).await?.context("the target is gone")?;
    ensure!(
        text(&target, "/spec/template/spec/containers/0/image") == image(version),
        "the target does not ask for {version}"
    );
    ensure!(
        !truth(&target, "/spec/paused") && rolled_out(&target),
        "the target has not rolled out: {}",
        target["status"]
    );
    let before = scene.client();
    scene.answered_by(version, SOON).await?;
    let after = scene.client().since(&before);
    ensure!(after.answers.version(version) > 0, "the client has no answer of {version}");
    Ok(())
}

/// What a revert leaves: the target runs the old version, whole, and nothing of the release is left.
pub async fn stable_serves(scene: &mut Scene, version: &str) -> Result<()> {
    scene.tidy().await?;
    let name = scene.target();
    let target = scene.deployment(&name).await?.context("the target is gone")?;
    let (wanted, available) = (number(&target, "/spec/replicas"), number(&target, "/status/availableReplicas"));
    ensure!(available == wanted, "{available} of {wanted} pods of the target are available");
    for pod in scene.pods_of(&name).await? {
        let runs = text(&pod, "/spec/containers/0/image").to_owned();
        ensure!(runs == image(version), "pod {} of the target runs {runs}", text(&pod, "/metadata/name"));
    }
    scene.answered_by(version, SOON).await
}
