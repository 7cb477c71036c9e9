//! The records that stand in docs/examples: one release that is promoted and one that is taken back, with jobs, a
//! compared query and what people wrote, played on a lab. It makes them; it judges nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cluster::{Kind, text};
use crate::scenarios::jobs::smoke;
use crate::scene::{RELEASE, SOON, Scene};
use crate::setup::{Setup, host};
use crate::world::World;

/// Namespace and Gateway of the examples.
const PLACE: &str = "shop";

/// Plays both releases and writes their records into a folder, with the specs that stand there.
///
/// # Errors
/// If one does not end as it should, or a file cannot be read or written.
pub async fn write(world: &Arc<World>, folder: &Path) -> Result<()> {
    let mut scene = Scene::new(world, PLACE, true, true).await?;
    let (own, nobody) = (host(PLACE), "nobody.lab".to_owned());
    let crons = [
        smoke(&scene, "orders-scan", &own),
        smoke(&scene, "orders-db-health", &own),
        smoke(&scene, "orders-lsn", &nobody),
    ];
    scene.cluster().apply(&crons.iter().collect::<Vec<_>>()).await?;
    scene.open(setup(&scene)).await?;
    scene.answered_by("v1", SOON).await?;

    release(&mut scene, "v2", "v2.1.0").await?;
    let end = scene.ended("Promoted").await?;
    keep(&mut scene, end.release(), folder, "promoted").await?;

    scene.from_now();
    release(&mut scene, "v3", "v2.2.0").await?;
    scene.until("stage 2 is judged", RELEASE, |seen| seen.number() == 2 && seen.baking(2)).await?;
    scene.fault("orders-canary", "error_rate=0.08").await?;
    let end = scene.until("ended RolledBack", RELEASE, |seen| seen.number() == 2 && seen.ended("RolledBack")).await?;
    keep(&mut scene, end.release(), folder, "rolled-back").await?;
    scene.close().await;
    Ok(())
}

fn setup(scene: &Scene) -> Setup {
    let gates = json!([
        {"name": "errors", "errorRate": {"bad": "http_requests_total{code=~\"5..\"}", "total": "http_requests_total", "limit": "1.5%"}},
        {"name": "latency", "latency": {"histogram": "http_request_duration_seconds", "quantile": "95%", "limit": "250ms"}},
        {"name": "risk", "eventRate": {"counter": "risk_blocks_total", "limit": "5/min"}},
        {"name": "csp", "relative": {"counter": "csp_violations_total", "to": "Stable", "margin": "100%"}},
        {"name": "staleness", "value": {"query": "max by (pod) (ws_staleness_seconds{pod=~\"$pods\"})", "max": 30, "unit": "s"}},
    ]);
    let jobs = json!([
        {"name": "scan", "cronJob": "orders-scan", "at": "BeforeStart", "evidence": "Scan"},
        {"name": "db-health", "cronJob": "orders-db-health", "at": "Stage", "stages": ["25%", "100%"], "evidence": "DatabaseHealth"},
        {"name": "lsn", "cronJob": "orders-lsn", "at": "AfterRollback", "evidence": "LsnAfter"},
    ]);
    let compared = json!([{"name": "staleness", "query": "ws_staleness_seconds{pod=~\"$pods\"}", "unit": "s"}]);
    Setup::new(PLACE, "orders", &scene.entrance)
        .stages(&[("5%", "30s"), ("25%", "30s"), ("50%", "30s"), ("100%", "30s")])
        .spec("baseline", json!({"duration": "20s"}))
        .spec("drain", "10s")
        .spec("gates", gates)
        .spec("jobs", jobs)
        .spec("comparison", compared)
        .rate(100.0)
}

/// A new template: its image, and the version that people call it.
async fn release(scene: &mut Scene, image: &str, version: &str) -> Result<()> {
    let image = crate::setup::image(image);
    let patch = json!({"spec": {"template": {
        "metadata": {"annotations": {"canaryrelease.dev/version": version}},
        "spec": {"containers": [{"name": "shop", "image": image}]},
    }}});
    scene.kubectl(&["patch", "deployment", "orders", "--type=strategic", "-p", &patch.to_string()]).await.map(drop)
}

/// Writes what people say into a release's record, and the record into a file.
async fn keep(scene: &mut Scene, id: &str, folder: &Path, name: &str) -> Result<()> {
    let end = std::time::Instant::now() + RELEASE;
    let record = loop {
        let records = scene.cluster().list(Kind::Record, PLACE, "").await?;
        let found = records.into_iter().find(|one| text(one, "/status/id") == id);
        match found.filter(|one| crate::cluster::truth(one, "/status/frozen")) {
            Some(record) => break record,
            None if std::time::Instant::now() > end => anyhow::bail!("the record of {id} is not final"),
            None => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    };
    let file = folder.join(format!("spec-{name}.yaml"));
    let words = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let words: Value = serde_norway::from_str(&words).with_context(|| format!("{} is no YAML", file.display()))?;
    let crec = text(&record, "/metadata/name").to_owned();
    scene.kubectl(&["patch", "releaserecord", &crec, "--type=merge", "-p", &words.to_string()]).await?;
    let yaml = scene.kubectl(&["get", "releaserecord", &crec, "-o", "yaml"]).await?;
    let file = folder.join(format!("record-{name}.yaml"));
    fs::write(&file, yaml).with_context(|| format!("writing {}", file.display()))?;
    println!("wrote {}", file.display());
    Ok(())
}
