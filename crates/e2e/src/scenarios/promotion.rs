//! A good release goes live.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::figures;
use crate::cluster::{number, text, truth};
use crate::scene::{SOON, Scene, rolled_out};
use crate::setup::{Setup, image};

/// A good release passes every stage once and ends promoted; the client sees no error.
pub async fn good_release_promoted(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().spec("comparison", figures::compared());
    scene.open(setup).await?;
    scene.answered_by("v1", SOON).await?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    scene.answered_by("v2", SOON).await?;
    scene.ended("Promoted").await?;
    promoted_to(scene, "v2").await?;
    scene.stages_were(1, &[1, 2, 3])?;
    let record = figures::of_the_release(scene).await?;
    figures::side_by_side(&record, &["latency P95", "latency P99", "CPU per pod", "Memory per pod", "staleness"])?;
    let errors = figures::over_time(&record, "errors")?;
    let stages: BTreeSet<u32> = errors.whole.read().iter().map(|point| point.stage).collect();
    ensure!([1, 2, 3].iter().all(|stage| stages.contains(stage)), "not of each stage: {errors:?}");
    ensure!(errors.around.is_empty(), "a good release keeps no ticks: {errors:?}");
    scene.no_bad_answers()
}

/// The README's example is released as it stands there; only its times are shorter.
pub async fn the_readmes_example_is_released(scene: &mut Scene) -> Result<()> {
    let mut example = readmes_example()?;
    example["metadata"]["namespace"] = scene.namespace.clone().into();
    let spec = example.get_mut("spec").context("the README's example has no spec")?;
    spec["interval"] = "2s".into();
    spec["baseline"] = json!({"duration": "5s"});
    spec["drain"] = "2s".into();
    // 1 % of 200 requests/s: 50 requests, the fewest that a gate judges by default, take 25 s.
    let durations = ["45s", "10s", "6s", "6s", "6s"];
    let stages = spec["stages"].as_array_mut().context("the README's example has no stages")?;
    ensure!(stages.len() == durations.len(), "the README's example has {} stages", stages.len());
    for (stage, duration) in stages.iter_mut().zip(durations) {
        stage["duration"] = duration.into();
    }
    let name = text(&example, "/metadata/name").to_owned();
    let mut setup = Setup::new(&scene.namespace, &name, &scene.entrance).rate(200.0);
    setup.release = example;
    scene.open(setup).await?;
    scene.answered_by("v1", SOON).await?;
    scene.set_image("v2").await?;
    scene.ended("Promoted").await?;
    promoted_to(scene, "v2").await?;
    scene.stages_were(1, &[1, 2, 3, 4, 5])?;
    scene.no_bad_answers()
}

/// The CanaryRelease that stands in the README under "A first CanaryRelease".
fn readmes_example() -> Result<Value> {
    let readme = include_str!("../../../../README.md");
    let (_, after) = readme.split_once("## A first CanaryRelease").context("the README has no first CanaryRelease")?;
    let block: Vec<&str> = after
        .lines()
        .skip_while(|line| !line.starts_with("    "))
        .take_while(|line| line.starts_with("    "))
        .collect();
    serde_norway::from_str(&block.join("\n")).context("the README's example is no YAML")
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_holds_an_example() {
        let example = super::readmes_example().unwrap();
        assert_eq!(example["kind"], "CanaryRelease");
        assert_eq!(example["spec"]["gates"].as_array().unwrap().len(), 6);
    }
}
