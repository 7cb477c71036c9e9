//! What the record of a release says in figures: both versions side by side, and each gate over time.

use anyhow::{Context as _, Result, ensure};
use canary_api::{GateSeries, ReleaseRecord, ReleaseRecordStatus};
use serde_json::{Value, json};

use crate::scene::Scene;

/// A query for the record of scenarios that look at it.
pub fn compared() -> Value {
    json!([{"name": "staleness", "query": "ws_staleness_seconds{pod=~\"$pods\"}", "unit": "s"}])
}

/// The record of this scenario's only release, once it is over.
pub async fn of_the_release(scene: &mut Scene) -> Result<ReleaseRecordStatus> {
    let label = format!("canaryrelease.dev/record-of={}", scene.name());
    let over = "--for=jsonpath={.status.frozen}=true";
    scene.kubectl(&["wait", over, "--timeout=30s", "releaserecords", "-l", &label]).await?;
    let listed = scene.kubectl(&["get", "releaserecords", "-l", &label, "-o", "json"]).await?;
    let listed: Value = serde_json::from_str(&listed)?;
    let record = listed.pointer("/items/0").context("the release has no record")?;
    let record: ReleaseRecord = serde_json::from_value(record.clone())?;
    record.status.context("the record has no status")
}

/// Both versions were measured, and each change has its interval.
pub fn side_by_side(record: &ReleaseRecordStatus, names: &[&str]) -> Result<()> {
    for name in names {
        let row = record.comparison.iter().find(|row| row.metric.starts_with(&format!("{name} (")));
        let row = row.with_context(|| format!("no row {name}: {:?}", record.comparison))?;
        ensure!(row.metric.contains("at the same time"), "not at the same time: {row:?}");
        for figure in [&row.before, &row.after] {
            ensure!(figure.starts_with(|sign: char| sign.is_ascii_digit()), "not measured: {row:?}");
        }
        ensure!(row.change.contains(" to ") || row.change.starts_with("not to be told"), "no interval: {row:?}");
    }
    Ok(())
}

/// A gate over time.
pub fn over_time<'a>(record: &'a ReleaseRecordStatus, gate: &str) -> Result<&'a GateSeries> {
    let found = record.series.iter().find(|series| series.gate == gate);
    found.with_context(|| format!("gate {gate} has no figures over time: {:?}", record.series))
}
