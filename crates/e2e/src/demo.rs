//! The demo: one good release goes to 100 %, one bad release comes back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use crate::live;
use crate::scene::Scene;
use crate::setup::{Setup, host};
use crate::world::{LOAD_IMAGE, World};

/// Longest time for one release of the demo.
const DEADLINE: Duration = Duration::from_secs(300);

/// Plays both and prints `kubectl describe` of both.
///
/// # Errors
/// If one does not end as it should.
pub async fn play(world: &Arc<World>, stays: bool) -> Result<()> {
    let mut good = open(world, "demo-good", "orders").await?;
    println!("\nA good release: kubectl -n demo-good set image deployment/orders shop=docker.io/lab/shop:v2\n");
    good.set_image_of("orders", "v2").await?;
    let first = live::show(&good, "orders", ("v1", "v2"), DEADLINE).await?;

    let mut bad = open(world, "demo-bad", "payments").await?;
    println!(
        "\nA bad release, half of its answers are 500: kubectl -n demo-bad set image deployment/payments shop=docker.io/lab/shop:bad\n"
    );
    bad.set_image_of("payments", "bad").await?;
    let second = live::show(&bad, "payments", ("v1", "bad"), DEADLINE).await?;

    for (scene, name) in [(&mut good, "orders"), (&mut bad, "payments")] {
        if stays {
            // Without traffic no gate would have data, and the next release would wait for it.
            leave_client(scene, name).await?;
        }
        let client = scene.close().await;
        let namespace = scene.namespace.clone();
        println!("\n$ kubectl -n {namespace} describe canaryrelease {name}");
        println!("{}", world.cluster.run(&["describe", "canaryrelease", name, "-n", &namespace], None).await?);
        println!("The client's view of {name}: {}", client.text());
        if name == "orders" && client.answers.bad() > 0 {
            bail!("the client saw {} bad answers in the good release", client.answers.bad());
        }
    }
    if !first.ended("Promoted") {
        bail!("the good release should have been promoted: {}", first.line());
    }
    if !second.ended("RolledBack") {
        bail!("the bad release should have been rolled back: {}", second.line());
    }
    Ok(())
}

/// A client that goes on in the cluster when this process has ended.
async fn leave_client(scene: &Scene, name: &str) -> Result<()> {
    let labels = json!({"app": "client"});
    let client = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "client", "namespace": scene.namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                "name": "load", "image": LOAD_IMAGE, "imagePullPolicy": "IfNotPresent",
                "args": ["--url", scene.entrance.url, "--host", host(&scene.namespace), "--rate", "50", "--until-signal", "--quiet"],
            }]}},
        },
    });
    scene.cluster().apply(&[&client]).await?;
    println!("a client in the cluster goes on to send 50 requests/s to {name}");
    Ok(())
}

async fn open(world: &Arc<World>, namespace: &str, name: &str) -> Result<Scene> {
    let mut scene = Scene::new(world, namespace, false, false).await?;
    println!("{namespace}: a shop, its route, its CanaryRelease");
    // A demo that runs again in a cluster that was left up starts from nothing.
    let before = ["delete", "canaryrelease,deployment,service,httproute", "--all", "-n", namespace, "--timeout=50s"];
    world.cluster.run(&before, None).await?;
    let setup = Setup::new(namespace, name, &scene.entrance)
        .stages(&[("5%", "8s"), ("25%", "8s"), ("50%", "8s"), ("100%", "8s")])
        .rate(100.0);
    scene.open(setup).await?;
    Ok(scene)
}
