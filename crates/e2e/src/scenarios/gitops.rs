//! Tools that apply from Git again and again, and pipelines that wait on the status.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::promotion::{promoted_to, stable_serves};
use crate::cluster::{Cluster, documents, text};
use crate::scene::{RELEASE, SOON, Scene};

const TOOL: [&str; 5] = ["apply", "--server-side", "--force-conflicts", "--field-manager=flux", "-f"];

/// Git holds a plain route and the Deployment, and a tool applies both every 5 s through the whole
/// release: no difference at any stage, the split stays.
pub async fn a_tool_that_applies_every_5_s_sees_no_difference(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain();
    scene.open(setup).await?;
    let git = documents(&[&scene.objects().deployment_with("v2"), &scene.objects().route]);
    let tool = tokio::spawn(apply_for_ever(scene.cluster().clone(), git.clone()));
    let played = release_under_sync(scene, &git).await;
    tool.abort();
    played?;
    promoted_to(scene, "v2").await?;
    scene.stages_were(1, &[1, 2, 3])?;
    scene.no_bad_answers()
}

async fn release_under_sync(scene: &mut Scene, git: &str) -> Result<()> {
    scene.until("the tool's first apply starts a release", SOON, |seen| seen.number() == 1).await?;
    for (stage, weights) in [(1, (900, Some(100))), (2, (500, Some(500))), (3, (0, Some(1000)))] {
        scene.until(&format!("stage {stage} is judged"), RELEASE, move |seen| seen.baking(stage)).await?;
        let mut arguments = TOOL.to_vec();
        arguments.push("-");
        scene.cluster().run(&arguments, Some(git)).await?;
        let diff = ["diff", "--server-side", "--force-conflicts", "--field-manager=flux", "-f", "-"];
        let said = scene.cluster().kubectl(&diff, Some(git)).await?;
        ensure!(said.ok(), "kubectl diff sees a difference at stage {stage}: {}{}", said.out, said.err);
        let seen = scene.weights().await?;
        let still = scene.latest().is_some_and(|seen| seen.baking(stage));
        ensure!(seen == weights || !still, "the tool moved the split at stage {stage}: {seen:?}, not {weights:?}");
    }
    scene.ended("Promoted").await.map(drop)
}

async fn apply_for_ever(cluster: Cluster, git: String) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    let mut arguments = TOOL.to_vec();
    arguments.push("-");
    loop {
        every.tick().await;
        // A refusal while the target rolls is the tool's to try again.
        let _ = cluster.kubectl(&arguments, Some(&git)).await;
    }
}

/// A pipeline applies, then waits until the status speaks of a new template, then for its outcome: it
/// is told right in both cases, and never the old outcome with the new template.
pub async fn a_pipeline_that_waits_on_the_status_ends_right(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("30%", "5s"), ("100%", "5s")]);
    scene.open(setup).await?;
    for (version, right) in [("v2", "Promoted"), ("bad", "RolledBack"), ("v3", "Promoted")] {
        let before =
            scene.latest().map(|seen| text(&seen.object, "/status/observedTemplate").to_owned()).unwrap_or_default();
        scene.from_now();
        let manifest = scene.objects().deployment_with(version);
        scene.cluster().apply(&[&manifest]).await?;
        let digest = move |object: &Value| text(object, "/status/observedTemplate").to_owned();
        let first = scene
            .until("the status speaks of the new template", SOON, move |seen| digest(&seen.object) != before)
            .await?;
        ensure!(first.outcome().is_empty(), "the old outcome {} with the new template", first.outcome());
        let (outcome, digest) = (text(&first.object, "/status/observedTemplate").to_owned(), digest);
        let end = scene
            .until("an outcome", RELEASE, move |seen| !seen.outcome().is_empty() && digest(&seen.object) == outcome)
            .await?;
        ensure!(end.outcome() == right, "{version}: the pipeline was told {}, not {right}", end.outcome());
        scene.until("at rest", SOON, |seen| seen.condition("Reconciling").1 == "False").await?;
    }
    stable_serves(scene, "v3").await.context("after the pipeline")?;
    scene.no_bad_answers_but_of("bad")
}
