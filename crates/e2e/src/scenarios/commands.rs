//! Commands: who may give them, what they do, and that the record names who did.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::promotion::{promoted_to, stable_serves};
use crate::cluster::{Cluster, text};
use crate::scene::{RELEASE, SOON, Scene};

/// Abort by a user without the verb is refused; with it, it is done, and the name recorded.
pub async fn abort_needs_the_verb_and_records_the_name(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("20%", "120s"), ("100%", "4s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    let namespace = scene.namespace.clone();
    grant(scene, "writer", &["get", "list", "patch", "update"]).await?;
    let lab = scene.world.lab()?;
    let joe = Cluster::by_file(&lab.kubeconfig_for("joe", &[])?, &lab.dir().join("bin/kubectl")).await?;
    let abort = [
        "--namespace",
        namespace.as_str(),
        "annotate",
        "canaryrelease",
        "shop",
        "canaryrelease.dev/command=abort",
        "--overwrite",
    ];
    let refused = joe.kubectl(&abort, None).await?;
    ensure!(
        !refused.ok() && refused.err.contains("joe may not abort") && refused.err.contains("verb"),
        "not refused as it must be: {}{}",
        refused.out,
        refused.err
    );
    scene.step("joe's abort is refused");
    scene.from_now();
    scene
        .never("aborted all the same", Duration::from_secs(3), |seen| {
            seen.phase() == "Reverting" || seen.outcome() == "Aborted"
        })
        .await?;
    grant(scene, "aborter", &["abort"]).await?;
    let end = tokio::time::Instant::now() + SOON;
    while !joe.kubectl(&abort, None).await?.ok() {
        // The API server learns of a new role within half a second.
        ensure!(tokio::time::Instant::now() < end, "joe may still not abort");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let seen = scene.ended("Aborted").await?;
    ensure!(seen.message().contains("joe"), "the message does not name joe: {}", seen.message());
    let release = scene.kubectl(&["describe", "canaryrelease", "shop"]).await?;
    ensure!(
        text(&seen.object, "/status/lastCommand/by") == "joe" && release.contains("joe"),
        "the record does not name joe"
    );
    scene
        .until("the annotation is taken away", SOON, |seen| {
            seen.object.pointer("/metadata/annotations/canaryrelease.dev~1command").is_none()
        })
        .await?;
    stable_serves(scene, "v1").await?;
    scene.no_bad_answers()
}

async fn grant(scene: &mut Scene, name: &str, verbs: &[&str]) -> Result<()> {
    let namespace = scene.namespace.clone();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name, "namespace": namespace},
        "rules": [{"apiGroups": ["canaryrelease.dev"], "resources": ["canaryreleases"], "verbs": verbs}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "joe"}],
    });
    scene.step(format!("joe gets {}", verbs.join(", ")));
    scene.cluster().apply(&[&role, &binding]).await
}

/// A stage that wants approval waits for it; pause keeps weight and stage; promote goes on at once and
/// is called partial; retry lifts a rejection.
pub async fn approve_pause_resume_promote_and_retry(scene: &mut Scene) -> Result<()> {
    let mut setup = scene.plain().stages(&[("20%", "4s"), ("50%", "5s"), ("100%", "5s")]);
    setup.release["spec"]["stages"][0]["approval"] = true.into();
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene
        .until("stage 1 waits for approval", SOON, |seen| seen.baking(1) && seen.message().contains("approval"))
        .await?;
    scene.never("stage 2 without approval", Duration::from_secs(5), |seen| seen.stage() == 2).await?;
    scene.command("approve").await?;
    scene.until("stage 2 is judged", SOON, |seen| seen.baking(2)).await?;
    scene.command("pause").await?;
    scene.until("paused", SOON, |seen| seen.phase() == "Paused").await?;
    scene
        .never("stage 3 while paused", Duration::from_secs(9), |seen| seen.stage() == 3 || seen.weight() != "50%")
        .await?;
    scene.command("resume").await?;
    scene.until("stage 3 is judged", SOON, |seen| seen.baking(3)).await?;
    scene.ended("Promoted").await?;
    scene.no_bad_answers()?;

    scene.from_now();
    scene.set_image("v3").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.number() == 2 && seen.baking(1)).await?;
    scene.command("promote").await?;
    let seen = scene.until("ended Promoted", RELEASE, |seen| seen.number() == 2 && seen.ended("Promoted")).await?;
    ensure!(
        seen.object["status"]["history"].to_string().contains("PARTIAL"),
        "the record does not say PARTIAL: {}",
        seen.object["status"]["history"]
    );
    promoted_to(scene, "v3").await?;
    scene.no_bad_answers()?;

    scene.from_now();
    scene.set_image("v4").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.number() == 3 && seen.baking(1)).await?;
    scene.command("abort").await?;
    scene.until("ended Aborted", RELEASE, |seen| seen.number() == 3 && seen.ended("Aborted")).await?;
    scene.tidy().await?;
    scene.set_image("v4").await?;
    scene.from_now();
    scene.never("a rejected template is released", Duration::from_secs(4), |seen| seen.number() == 4).await?;
    scene.command("retry").await?;
    scene.until("released again", SOON, |seen| seen.number() == 4 && seen.baking(1)).await?;
    scene.command("promote").await?;
    scene.until("ended Promoted", RELEASE, |seen| seen.number() == 4 && seen.ended("Promoted")).await?;
    promoted_to(scene, "v4").await.context("after retry")?;
    scene.no_bad_answers()
}
