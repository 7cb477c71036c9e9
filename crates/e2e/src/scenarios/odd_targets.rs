//! Targets of odd but legal shape.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::promotion::promoted_to;
use crate::cluster::text;
use crate::scene::Scene;
use crate::setup::{Setup, image};

/// Several containers, an init container, no readiness probe, and a name of 63 characters.
pub async fn target_of_odd_but_legal_shape(scene: &mut Scene) -> Result<()> {
    let name = format!("{}-x", "shop-with-a-very-long-name-".repeat(3).get(..61).unwrap_or_default());
    let mut setup = Setup::new(&scene.namespace, &name, &scene.entrance);
    let pod = &mut setup.deployment["spec"]["template"]["spec"];
    if let Some(container) = pod["containers"][0].as_object_mut() {
        container.remove("readinessProbe");
    }
    let side =
        json!({"name": "side", "image": image("v1"), "imagePullPolicy": "IfNotPresent", "args": ["--port=9090"]});
    if let Some(containers) = pod["containers"].as_array_mut() {
        containers.push(side);
    }
    pod["initContainers"] =
        json!([{"name": "first", "image": image("v1"), "imagePullPolicy": "IfNotPresent", "args": ["--help"]}]);
    ensure!(name.len() == 63, "the name has {} characters", name.len());
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.ended("Promoted").await?;
    scene.tidy().await?;
    promoted_to(scene, "v2").await?;
    let target = scene.deployment(&name).await?.context("the target is gone")?;
    ensure!(text(&target, "/spec/template/spec/containers/1/image") == image("v1"), "the other container was changed");
    scene.no_bad_answers()
}
