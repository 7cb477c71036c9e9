//! What starts a release, what does not, and the one write that is refused.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::promotion::{promoted_to, stable_serves};
use crate::cluster::{Kind, text, truth};
use crate::scene::{RELEASE, SOON, Scene};

/// Time in which something that must not happen would have shown.
const WATCH: Duration = Duration::from_secs(5);

/// `kubectl set image`, `kubectl apply`, server-side apply by another manager and a full replace each
/// start a release; the same again is silent.
pub async fn every_way_to_write_starts_a_release_and_the_same_again_is_silent(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("100%", "3s")]).spec("baseline", serde_json::json!({"duration": "1s"}));
    scene.open(setup).await?;
    for (number, (way, version)) in
        [("set image", "v2"), ("apply", "v3"), ("server-side apply", "v4"), ("replace", "v5")].into_iter().enumerate()
    {
        let number = i64::try_from(number)? + 1;
        write(scene, way, version).await?;
        scene.until(&format!("a release by {way}"), SOON, move |seen| seen.number() == number).await?;
        scene.until("ended Promoted", RELEASE, move |seen| seen.number() == number && seen.ended("Promoted")).await?;
        promoted_to(scene, version).await?;
        scene.from_now();
        write(scene, way, version).await?;
        scene.never("a release begins", WATCH, move |seen| seen.number() > number).await?;
        let target = scene.deployment("shop").await?.context("the target is gone")?;
        ensure!(!truth(&target, "/spec/paused"), "the same again by {way} paused the target");
    }
    scene.no_bad_answers()
}

async fn write(scene: &mut Scene, way: &str, version: &str) -> Result<()> {
    let manifest = scene.objects().deployment_with(version).to_string();
    scene.step(format!("{version} by {way}"));
    let namespace = scene.namespace.clone();
    let arguments: &[&str] = match way {
        "set image" => return scene.set_image(version).await,
        "apply" => &["apply", "-f", "-"],
        "server-side apply" => &["apply", "--server-side", "--force-conflicts", "--field-manager=flux", "-f", "-"],
        _ => &["replace", "-f", "-"],
    };
    let mut all = vec!["--namespace", namespace.as_str()];
    all.extend(arguments);
    scene.cluster().run(&all, Some(&manifest)).await.map(drop)
}

/// The one write that would un-pause is refused, with a text that names the way out; a tool's full
/// replace with the same template is not, and changes nothing.
pub async fn unpausing_by_hand_is_refused_with_the_way_out(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("10%", "120s"), ("100%", "5s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    let said = scene.try_kubectl(&["rollout", "resume", "deployment/shop"]).await?;
    ensure!(!said.ok(), "a resume by hand was let through");
    for word in
        ["held by CanaryRelease shop", "canaryrelease.dev/command", "promote", "abort", "canaryrelease.dev/override"]
    {
        ensure!(said.err.contains(word), "the refusal does not name {word}: {}", said.err);
    }
    let said =
        scene.try_kubectl(&["patch", "deployment/shop", "--type=merge", "-p", r#"{"spec":{"paused":false}}"#]).await?;
    ensure!(!said.ok(), "an un-pausing patch was let through");
    write(scene, "replace", "v2").await?;
    let target = scene.deployment("shop").await?.context("the target is gone")?;
    ensure!(truth(&target, "/spec/paused"), "a full replace un-paused the target");
    scene.command("abort").await?;
    scene.ended("Aborted").await?;
    stable_serves(scene, "v1").await?;
    scene.no_bad_answers()
}

/// A new template in the middle of a release supersedes it and starts again from stage 1.
pub async fn new_template_supersedes_and_starts_again(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain();
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("stage 2 is judged", RELEASE, |seen| seen.baking(2)).await?;
    scene.answered_by("v2", SOON).await?;
    scene.set_image("v3").await?;
    scene.until("a second release", SOON, |seen| seen.number() == 2).await?;
    scene.until("its stage 1 is judged", RELEASE, |seen| seen.number() == 2 && seen.baking(1)).await?;
    scene.no_answer_by("v2", Duration::from_secs(2)).await?;
    scene.until("ended Promoted", RELEASE, |seen| seen.number() == 2 && seen.ended("Promoted")).await?;
    promoted_to(scene, "v3").await?;
    scene.stages_were(2, &[1, 2, 3])?;
    let release =
        scene.cluster().get(Kind::CanaryRelease, &scene.namespace, "shop").await?.context("no CanaryRelease")?;
    let history = release["status"]["history"].to_string();
    ensure!(history.contains("Superseded"), "the record does not say Superseded: {history}");
    ensure!(
        text(&release, "/status/current/stable/images/0").ends_with(":v1"),
        "the second release did not start from v1"
    );
    scene.no_bad_answers()
}
