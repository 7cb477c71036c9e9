//! A bad release comes back, and stays back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::figures;
use super::promotion::{promoted_to, stable_serves};
use crate::cluster::{number, text, truth};
use crate::scene::{RELEASE, SOON, Scene};
use crate::setup::image;

/// Time in which something that must not happen would have shown.
const WATCH: Duration = Duration::from_secs(6);

/// A release that is bad from the start is reverted at stage 1; only its own answers are bad.
pub async fn bad_release_reverted_at_stage_1(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain();
    scene.open(setup).await?;
    scene.set_image("bad").await?;
    let end = scene.ended("RolledBack").await?;
    ensure!(text(&end.object, "/status/current/revert/reason") == "GateBreached", "not by a gate: {}", end.line());
    ensure!(text(&end.object, "/status/current/revert/stage") == "1/3", "not at stage 1: {}", end.line());
    for word in ["errors", "2%", "1/3"] {
        ensure!(end.message().contains(word), "the message does not say {word}: {}", end.message());
    }
    scene.no_answer_by("bad", WATCH).await?;
    stable_serves(scene, "v1").await?;
    let target = scene.target();
    let target = scene.deployment(&target).await?.context("the target is gone")?;
    ensure!(
        text(&target, "/spec/template/spec/containers/0/image") == image("v1") && !truth(&target, "/spec/paused"),
        "the serving template was not restored"
    );
    let record = figures::of_the_release(scene).await?;
    let errors = figures::over_time(&record, "errors")?;
    let around = errors.around.read();
    ensure!(around.iter().any(|point| point.verdict == Some('B') && point.value > point.most), "no breach: {errors:?}");
    ensure!(around.last().is_some_and(|point| point.stable.is_some()), "stable was not looked at after it: {errors:?}");
    scene.no_bad_answers_but_of("bad")
}

/// Without a Prometheus the operator reads the pods' own metrics: it promotes a good release and reverts a bad one.
pub async fn judged_by_the_pods_own_metrics(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().spec("provider", "pods").stages(&[("20%", "5s"), ("100%", "5s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    let end = scene.ended("Promoted").await?;
    ensure!(end.number() == 1, "not the first release: {}", end.line());
    promoted_to(scene, "v2").await?;
    scene.from_now();
    scene.set_image("bad").await?;
    let end = scene.until("ended RolledBack", RELEASE, |seen| seen.number() == 2 && seen.ended("RolledBack")).await?;
    ensure!(text(&end.object, "/status/current/revert/reason") == "GateBreached", "not by a gate: {}", end.line());
    stable_serves(scene, "v2").await?;
    scene.no_bad_answers_but_of("bad")
}

/// A release that turns bad at stage 3, with all of the traffic on it, is reverted.
pub async fn turns_bad_at_stage_3_reverted(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("10%", "5s"), ("50%", "5s"), ("100%", "30s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("stage 3 is judged", RELEASE, |seen| seen.baking(3)).await?;
    scene.fault("shop-canary", "error_rate=0.5").await?;
    let end = scene.ended("RolledBack").await?;
    ensure!(text(&end.object, "/status/current/revert/stage") == "3/3", "not at stage 3: {}", end.line());
    scene.stages_were(1, &[1, 2, 3])?;
    scene.no_answer_by("v2", WATCH).await?;
    stable_serves(scene, "v1").await?;
    scene.no_bad_answers_but_of("v2")
}

/// A candidate that crashes again and again never gets traffic for long, and is reverted.
pub async fn crash_loop_reverted_on_its_deadline(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().spec("readyDeadline", "20s");
    scene.open(setup).await?;
    scene.set_image("crash").await?;
    let end = scene.ended("RolledBack").await?;
    let reason = text(&end.object, "/status/current/revert/reason").to_owned();
    ensure!(reason != "GateBreached" && !reason.is_empty(), "not for its pods: {reason}");
    stable_serves(scene, "v1").await?;
    // What the gateway could not hand to the crashed pod has no version; stable's own answers are all good.
    let after = scene.client();
    scene.no_answer_by("crash", WATCH).await?;
    let since = scene.client().since(&after).answers;
    ensure!(since.bad() == 0, "bad answers after the revert: {since:?}");
    let answers = scene.client().answers;
    ensure!(answers.bad_of("v1") == 0, "bad answers of v1: {answers:?}");
    let budget = answers.total() / 20;
    ensure!(answers.bad() <= budget, "{} bad answers, more than {budget}", answers.bad());
    Ok(())
}

/// The same rejected manifest, applied again, starts no release and no pod; a fix does.
pub async fn rejected_again_stays_rejected_and_a_fix_is_released(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("20%", "5s"), ("100%", "5s")]);
    scene.open(setup).await?;
    scene.set_image("bad").await?;
    scene.ended("RolledBack").await?;
    scene.tidy().await?;
    let bad = scene.objects().deployment_with("bad");
    scene.step("the rejected manifest is applied again");
    scene.cluster().apply(&[&bad]).await?;
    held_without_pods(scene, 1).await?;
    scene.no_answer_by("bad", WATCH).await?;
    scene.from_now();
    scene.set_image("v3").await?;
    scene.until("the fix is released", SOON, |seen| seen.number() == 2).await?;
    scene.ended("Promoted").await?;
    promoted_to(scene, "v3").await?;
    scene.no_bad_answers_but_of("bad")
}

/// After a revert v2, v3 (rejected too) and v2 again are applied: none is released again.
pub async fn rejected_versions_in_turn_none_released(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("30%", "10s"), ("100%", "5s")]);
    scene.open(setup).await?;
    for (number, version) in [(1, "v2"), (2, "v3")] {
        scene.from_now();
        scene.set_image(version).await?;
        scene.until("stage 1 is judged", RELEASE, move |seen| seen.baking(1) && seen.number() == number).await?;
        scene.fault("shop-canary", "error_rate=0.5").await?;
        scene
            .until("ended RolledBack", RELEASE, move |seen| seen.number() == number && seen.ended("RolledBack"))
            .await?;
        scene.tidy().await?;
    }
    for version in ["v2", "v3", "v2"] {
        scene.set_image(version).await?;
        held_without_pods(scene, 2).await?;
        scene.no_answer_by(version, Duration::from_secs(3)).await?;
    }
    stable_serves(scene, "v1").await?;
    let answers = scene.client().answers;
    let others = answers.bad() - answers.bad_of("v2") - answers.bad_of("v3");
    ensure!(others == 0, "{others} bad answers that are not of v2 or v3");
    Ok(())
}

/// The target is held and the canary has no pods; no release after number `last` began.
async fn held_without_pods(scene: &mut Scene, last: i64) -> Result<()> {
    let (namespace, target) = (scene.namespace.clone(), scene.target());
    scene
        .cluster()
        .until((crate::cluster::Kind::Deployment, &namespace, &target), SOON, "held", |found| {
            found.is_some_and(|target| truth(target, "/spec/paused"))
        })
        .await?;
    scene.from_now();
    scene.never("a release begins", WATCH, move |seen| seen.number() > last).await?;
    let canary = scene.deployment("shop-canary").await?;
    let pods = canary.as_ref().map_or(0, |canary| number(canary, "/status/replicas"));
    ensure!(pods == 0, "the canary has {pods} pods");
    let latest = scene.latest().context("no status")?;
    ensure!(
        latest.phase() == "RolledBack",
        "phase {} where RolledBack is expected: {}",
        latest.phase(),
        latest.message()
    );
    Ok(())
}

/// In Hold mode the target keeps what was written, paused, and stable serves.
pub async fn hold_mode_keeps_the_template_and_stable_serves(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().spec("onRevert", "Hold").stages(&[("20%", "5s"), ("100%", "5s")]);
    scene.open(setup).await?;
    scene.set_image("bad").await?;
    scene.ended("RolledBack").await?;
    let name = scene.target();
    let target = scene.deployment(&name).await?.context("the target is gone")?;
    ensure!(text(&target, "/spec/template/spec/containers/0/image") == image("bad"), "the template was changed");
    ensure!(truth(&target, "/spec/paused"), "the target is not held");
    stable_serves(scene, "v1").await?;
    // Scaling still works, from the version that serves.
    scene.kubectl(&["scale", "deployment/shop", "--replicas=3"]).await?;
    let namespace = scene.namespace.clone();
    scene
        .cluster()
        .until((crate::cluster::Kind::Deployment, &namespace, &name), SOON, "at 3 pods", |found| {
            found.is_some_and(|target| number(target, "/status/availableReplicas") == 3)
        })
        .await?;
    stable_serves(scene, "v1").await?;
    scene.no_bad_answers_but_of("bad")
}

/// A pushed template, a breach or an abort while the promoted target rolls: the old version serves
/// again, or the new template is refused until the roll is done.
pub async fn breach_push_and_abort_while_the_target_rolls(scene: &mut Scene) -> Result<()> {
    // Six pods, one at a time, that take a while to become ready: the roll lasts long enough.
    let mut setup = scene.plain().replicas(4).stages(&[("50%", "4s"), ("100%", "4s")]);
    setup.deployment["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    setup.deployment["spec"]["minReadySeconds"] = 3.into();
    scene.open(setup).await?;

    scene.set_image("v2").await?;
    scene.until("the target rolls", RELEASE, |seen| seen.step() == "Roll").await?;
    let (namespace, name) = (scene.namespace.clone(), scene.target());
    scene
        .cluster()
        .until((crate::cluster::Kind::Deployment, &namespace, &name), SOON, "rolling", |found| {
            found.is_some_and(|target| !truth(target, "/spec/paused") && number(target, "/status/updatedReplicas") > 0)
        })
        .await?;
    let said = scene.try_kubectl(&["set", "image", "deployment/shop", &format!("shop={}", image("v3"))]).await?;
    ensure!(
        !said.ok() && said.err.contains("promoted"),
        "a push while the target rolls must be refused and say why: {} {}",
        said.out,
        said.err
    );
    scene.command("abort").await?;
    scene.ended("Aborted").await?;
    stable_serves(scene, "v1").await?;
    scene.no_answer_by("v2", WATCH).await?;
    scene.no_bad_answers()?;

    scene.from_now();
    scene.set_image("v4").await?;
    scene.until("the target rolls again", RELEASE, |seen| seen.number() == 2 && seen.step() == "Roll").await?;
    scene.fault("shop-canary", "error_rate=0.5").await?;
    scene.until("ended RolledBack", RELEASE, |seen| seen.number() == 2 && seen.ended("RolledBack")).await?;
    stable_serves(scene, "v1").await?;
    scene.no_answer_by("v4", WATCH).await?;
    scene.no_bad_answers_but_of("v4")
}
