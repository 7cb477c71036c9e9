//! Prometheus, the operator, or a hand on the route fail a release: traffic stays where it was.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::promotion::{promoted_to, stable_serves};
use crate::cluster::{Kind, number, text, truth};
use crate::faults::odd::{self, Shape};
use crate::faults::outages::api_server_away;
use crate::history::Seen;
use crate::scene::{RELEASE, SOON, Scene};
use crate::setup::image;
use crate::world::{OPERATOR, SYSTEM};

/// Prometheus is down: the weight stays, nothing is promoted, a revert by command still works.
pub async fn prometheus_down_keeps_the_weight_and_abort_works(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("20%", "8s"), ("100%", "8s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    tokio::task::block_in_place(|| scene.world.lab()?.stop("prometheus").map_err(anyhow::Error::from))?;
    scene.step("Prometheus is stopped");
    let played = without_prometheus(scene).await;
    tokio::task::block_in_place(|| scene.world.lab()?.start("prometheus").map_err(anyhow::Error::from))?;
    played
}

async fn without_prometheus(scene: &mut Scene) -> Result<()> {
    scene
        .never("the weight moves or the stage ends", Duration::from_secs(25), |seen| {
            seen.number() == 1
                && (seen.stage() > 1 || (seen.baking(1) && seen.weight() != "20%") || !seen.outcome().is_empty())
        })
        .await?;
    ensure!(scene.weights().await? == (800, Some(200)), "the route's weights moved: {:?}", scene.weights().await?);
    scene.answered_by("v2", SOON).await?;
    scene.from_now();
    scene.command("abort").await?;
    scene.ended("Aborted").await?;
    scene.no_answer_by("v2", Duration::from_secs(4)).await?;
    stable_serves(scene, "v1").await?;
    scene.no_bad_answers()
}

/// A split edited by hand stays as it is, and whoever edits is told the right way.
pub async fn route_edited_by_hand_is_put_back_and_said(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("10%", "120s"), ("100%", "4s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    let patch = r#"[{"op":"replace","path":"/spec/rules/0/backendRefs/0/weight","value":0},{"op":"replace","path":"/spec/rules/0/backendRefs/1/weight","value":1000}]"#;
    let said = scene.try_kubectl(&["patch", "httproute", "shop", "--type=json", "-p", patch]).await?;
    ensure!(said.err.contains("abort"), "the warning does not name the way: {}{}", said.out, said.err);
    ensure!(scene.weights().await? == (900, Some(100)), "the split moved: {:?}", scene.weights().await?);
    let plain = json!({"spec": {"rules": scene.objects().route["spec"]["rules"]}}).to_string();
    scene.try_kubectl(&["patch", "httproute", "shop", "--type=merge", "-p", &plain]).await?;
    ensure!(scene.weights().await? == (900, Some(100)), "a plain route moved the split: {:?}", scene.weights().await?);
    scene.command("abort").await?;
    scene.ended("Aborted").await?;
    stable_serves(scene, "v1").await?;
    scene.no_bad_answers()
}

/// Where the route policy is missing, the operator itself puts a drifted split back and says so.
pub async fn drifted_route_without_the_policy_is_put_back_and_said(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("10%", "120s"), ("100%", "4s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    scene.cluster().run(&["delete", "mutatingadmissionpolicybinding", "canaryrelease-route"], None).await?;
    let played = drift(scene).await;
    scene.world.install_policies().await?;
    played
}

async fn drift(scene: &mut Scene) -> Result<()> {
    let plain = json!({"spec": {"rules": scene.objects().route["spec"]["rules"]}});
    let namespace = scene.namespace.clone();
    // The API server forgets a binding within a second: until then the edit changes nothing.
    let end = tokio::time::Instant::now() + SOON;
    loop {
        let patched = scene.cluster().merge(Kind::HttpRoute, &namespace, "shop", &plain).await?;
        if patched["spec"]["rules"][0]["backendRefs"].as_array().is_some_and(|refs| refs.len() == 1) {
            break;
        }
        ensure!(tokio::time::Instant::now() < end, "the policy is still there");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    scene.step("the route is plain: the edit went through");
    scene
        .cluster()
        .until((Kind::HttpRoute, &namespace, "shop"), SOON, "split again", |found| {
            found.is_some_and(|route| number(route, "/spec/rules/0/backendRefs/1/weight") == 100)
        })
        .await?;
    let end = tokio::time::Instant::now() + SOON;
    loop {
        let events = scene.kubectl(&["events", "--for=canaryrelease/shop"]).await?;
        if events.to_lowercase().contains("httproute") && events.contains("Drift") {
            break;
        }
        ensure!(tokio::time::Instant::now() < end, "no Event says that the route was put back: {events}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    scene.no_bad_answers()
}

/// The operator is killed at each stage: the release goes on, no stage repeated or skipped.
pub async fn operator_killed_at_each_stage_goes_on(scene: &mut Scene) -> Result<()> {
    type Moment = (&'static str, fn(&Seen) -> bool);
    let moments: [Moment; 6] = [
        ("the baseline is measured", |seen| seen.step() == "Baseline"),
        ("stage 1 is judged", |seen| seen.baking(1)),
        ("stage 2 is shifted", |seen| seen.step() == "Shift" && seen.stage() == 2),
        ("stage 2 is judged", |seen| seen.baking(2)),
        ("stage 3 is judged", |seen| seen.baking(3)),
        ("the target rolls", |seen| seen.step() == "Roll"),
    ];
    let setup = scene.plain();
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    for (moment, holds) in moments {
        scene.until(moment, RELEASE, holds).await?;
        scene.world.kill_leader().await?;
        scene.step("the leader is killed");
    }
    scene.ended("Promoted").await?;
    promoted_to(scene, "v2").await?;
    scene.stages_were(1, &[1, 2, 3])?;
    scene.no_bad_answers()?;
    scene.world.operator_ready().await
}

/// The API server is away while a stage is judged, and every replica of the operator is replaced in the next: the weight
/// stays, and the release goes on, no stage repeated or skipped.
pub async fn api_server_away_and_operator_replaced(scene: &mut Scene) -> Result<()> {
    // Prometheus takes up its watches again as late as a minute after the API server is back, and knows the second stage's
    // new pod no sooner: until then nothing is proved, and a stage that is over by then, extended once, is held.
    let setup = scene.plain().stages(&[("20%", "12s"), ("100%", "40s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    api_server_away(&scene.world, Duration::from_secs(8)).await?;
    scene.step("the API server was away for 8 s");
    scene.until("stage 2 is judged", RELEASE, |seen| seen.baking(2)).await?;
    scene.cluster().run(&["rollout", "restart", "deployment", OPERATOR, "-n", SYSTEM], None).await?;
    scene.step("the operator's pods are replaced");
    scene.ended("Promoted").await?;
    promoted_to(scene, "v2").await?;
    scene.stages_were(1, &[1, 2])?;
    scene.no_bad_answers()?;
    scene.world.operator_ready().await
}

/// Nonsense in its annotations, in our marks, in its spec and in its status harms a CanaryRelease no longer than it stands
/// there.
pub async fn nonsense_harms_no_longer_than_it_stands(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("50%", "6s"), ("100%", "6s")]);
    scene.open(setup).await?;
    for shape in [Shape::Annotations, Shape::Marks, Shape::Spec, Shape::Status] {
        let (taken, refused) = odd::take(scene, shape).await?;
        scene.step(format!("{}: {taken} writes taken, {refused} refused", shape.name()));
        ensure!(taken + refused > 0, "nothing was written");
        if shape == Shape::Spec {
            let says = |seen: &Seen| seen.message().contains("canaryrelease.dev/override");
            scene.until("it names the way out of a route that bears another's marks", SOON, says).await?;
        }
    }
    odd::mend(scene).await?;
    scene.from_now();
    scene.set_image("v2").await?;
    scene.ended("Promoted").await?;
    promoted_to(scene, "v2").await?;
    scene.no_bad_answers()
}

/// The operator is uninstalled in the middle: traffic stays where it was; the documented way out works
/// without it.
pub async fn operator_uninstalled_in_the_middle(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("50%", "120s"), ("100%", "4s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("half of the traffic is on the candidate", SOON, |seen| seen.baking(1)).await?;
    remove_operator(scene).await?;
    let played = way_out(scene).await;
    scene.world.start_operator().await?;
    played
}

async fn remove_operator(scene: &mut Scene) -> Result<()> {
    scene
        .cluster()
        .run(&["delete", "deployment", OPERATOR, "-n", SYSTEM, "--cascade=foreground", "--timeout=50s"], None)
        .await?;
    scene.step("the operator is gone");
    Ok(())
}

async fn way_out(scene: &mut Scene) -> Result<()> {
    let before = scene.client();
    scene.never("the status changes", Duration::from_secs(10), |seen| !seen.baking(1)).await?;
    let seen = scene.client().since(&before);
    let share = seen.answers.share("v2").unwrap_or_default();
    ensure!((0.4..0.6).contains(&share), "half of the traffic should stay on the candidate: {share}");
    ensure!(seen.answers.bad() == 0, "bad answers while the operator is gone: {:?}", seen.answers);

    // docs/uninstall: the route first, then the Deployment, each with a reason, then our objects.
    let rules = scene.objects().route["spec"]["rules"].clone();
    let reason = "the operator is gone";
    let route = json!({"metadata": {"annotations": {"canaryrelease.dev/override": reason}}, "spec": {"rules": rules}})
        .to_string();
    scene.kubectl(&["patch", "httproute", "shop", "--type=merge", "-p", &route]).await?;
    ensure!(scene.weights().await?.1.is_none(), "the route is still split: {:?}", scene.weights().await?);
    scene.no_answer_by_soon("v2", Duration::from_secs(5)).await?;
    let template = scene.objects().deployment["spec"]["template"].clone();
    let target = json!({"metadata": {"annotations": {"canaryrelease.dev/override": reason}}, "spec": {"paused": false, "template": template}}).to_string();
    scene.kubectl(&["patch", "deployment", "shop", "--type=merge", "-p", &target]).await?;
    stable_pods(scene).await?;
    scene
        .kubectl(&["patch", "canaryrelease", "shop", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#])
        .await?;
    scene.kubectl(&["delete", "canaryrelease", "shop", "--timeout=30s"]).await?;
    scene
        .kubectl(&[
            "delete",
            "deployment,service,poddisruptionbudget",
            "-l",
            "canaryrelease.dev/owned-by=shop",
            "--timeout=50s",
        ])
        .await?;
    scene.answered_by("v1", SOON).await?;
    scene.no_answer_by("v2", Duration::from_secs(3)).await?;
    scene.no_bad_answers()
}

async fn stable_pods(scene: &mut Scene) -> Result<()> {
    let target = scene.deployment("shop").await?.context("the target is gone")?;
    ensure!(
        !truth(&target, "/spec/paused") && text(&target, "/spec/template/spec/containers/0/image") == image("v1"),
        "the override was not let through: {}",
        target["spec"]
    );
    for pod in scene.pods_of("shop").await? {
        ensure!(text(&pod, "/spec/containers/0/image") == image("v1"), "a pod of the target does not run v1");
    }
    Ok(())
}

/// Break-glass while the operator is dead: who has the verb gets the change through at once, others do
/// not; the operator records it when it is back.
pub async fn override_with_the_operator_dead(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain();
    scene.open(setup).await?;
    remove_operator(scene).await?;
    let played = override_it(scene).await;
    scene.world.start_operator().await?;
    played?;
    let seen = scene.until("recorded as Overridden", SOON, |seen| seen.outcome() == "Overridden").await?;
    ensure!(
        seen.object["status"]["history"].to_string().contains("INC-42"),
        "the record does not hold the reason: {}",
        seen.object["status"]["history"]
    );
    scene.answered_by("v3", SOON).await?;
    scene.no_bad_answers()
}

async fn override_it(scene: &mut Scene) -> Result<()> {
    let change = |version: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "shop", "image": image(version)}]}}}});
    // Without the annotation the hold holds, operator or not.
    scene.kubectl(&["patch", "deployment", "shop", "-p", &change("v2").to_string()]).await?;
    let target = scene.deployment("shop").await?.context("the target is gone")?;
    ensure!(truth(&target, "/spec/paused"), "the hold does not work without the operator");
    scene.no_answer_by("v2", Duration::from_secs(3)).await?;
    let mut patch = change("v3");
    patch["metadata"] = json!({"annotations": {"canaryrelease.dev/override": "INC-42"}});
    patch["spec"]["paused"] = false.into();
    scene.kubectl(&["patch", "deployment", "shop", "-p", &patch.to_string()]).await?;
    let namespace = scene.namespace.clone();
    scene
        .cluster()
        .until((Kind::Deployment, &namespace, "shop"), SOON, "rolled out", |found| {
            found.is_some_and(crate::scene::rolled_out)
        })
        .await?;
    scene.answered_by("v3", SOON).await
}
