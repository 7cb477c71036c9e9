//! Jobs by reference: real programs, run from suspended CronJobs, whose exit codes decide.

use anyhow::{Context as _, Result, bail, ensure};
use canary_api::{JobRecord, ReleaseRecord};
use canary_report::evidence;
use serde_json::{Value, json};

use super::promotion::{promoted_to, stable_serves};
use crate::cluster::{Kind, text};
use crate::scene::{RELEASE, SOON, Scene};
use crate::setup::host;
use crate::world::LOAD_IMAGE;

/// A suspended CronJob that sends a few requests through the gateway, and fails where one is not answered well.
fn smoke(scene: &Scene, name: &str, host: &str) -> Value {
    let url = scene.entrance.url.as_str();
    let told = ["--url", url, "--host", host, "--rate", "20", "--duration", "1s", "--fail-on-bad"];
    let container = json!({
        "name": "load", "image": LOAD_IMAGE, "imagePullPolicy": "IfNotPresent", "args": told,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    });
    let pods =
        json!({"metadata": {"labels": {"job": name}}, "spec": {"restartPolicy": "Never", "containers": [container]}});
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": name, "namespace": scene.namespace},
        "spec": {
            "schedule": "0 0 1 1 *", "suspend": true,
            "jobTemplate": {"metadata": {"labels": {"team": "shop"}}, "spec": {"backoffLimit": 0, "template": pods}},
        },
    })
}

/// The record of a release, once it is final.
async fn frozen(scene: &Scene, id: &str) -> Result<ReleaseRecord> {
    let end = std::time::Instant::now() + SOON;
    loop {
        let records = scene.cluster().list(Kind::Record, &scene.namespace, "").await?;
        let found = records.into_iter().find(|record| text(record, "/status/id") == id);
        if let Some(found) = &found
            && crate::cluster::truth(found, "/status/frozen")
        {
            return Ok(serde_json::from_value(found.clone())?);
        }
        if std::time::Instant::now() > end {
            bail!("the record of {id} is not final: {found:?}");
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
}

fn jobs(record: &ReleaseRecord) -> &[JobRecord] {
    record.status.as_ref().map(|status| status.jobs.as_slice()).unwrap_or_default()
}

/// Its only run at a place, with its result, exit code and a log that came from its program.
fn ran<'a>(
    record: &'a ReleaseRecord,
    name: &str,
    stage: Option<i32>,
    result: &str,
    code: i32,
) -> Result<&'a JobRecord> {
    let mut runs = jobs(record).iter().filter(|job| job.name == name && job.stage == stage);
    let (Some(job), None) = (runs.next(), runs.next()) else {
        bail!("job {name} at {stage:?} did not run once: {:?}", jobs(record));
    };
    ensure!(job.result == result, "job {name} at {stage:?} is {}: {}", job.result, job.message);
    ensure!(job.exit_code == Some(code), "job {name} has exit code {:?}", job.exit_code);
    ensure!(job.log.contains("p95_ms"), "job {name} logged {:?}", job.log);
    ensure!(job.log_note.starts_with("container load of pod "), "{}", job.log_note);
    ensure!(job.started.is_some() && job.ended.is_some(), "job {name} has no times");
    Ok(job)
}

/// The text of a file of the evidence folder.
fn file(record: &ReleaseRecord, name: &str) -> Result<String> {
    let files = evidence::files(record);
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let found = files.iter().find(|file| file.name == name).with_context(|| format!("no {name} among {names:?}"))?;
    found.text.clone().map_err(|why| anyhow::anyhow!("{name}: {why}"))
}

/// Jobs that succeed let a release go on; one that fails at a stage reverts it although every gate is content; what runs
/// after a rollback or a promotion is recorded. Their logs are in the record and in the evidence folder.
pub async fn exit_codes_decide_and_logs_are_kept(scene: &mut Scene) -> Result<()> {
    let own = host(&scene.namespace);
    let nowhere = format!("nowhere.{own}");
    let (scan, check) = (smoke(scene, "scan", &own), smoke(scene, "smoke", &own));
    scene.cluster().apply(&[&scan, &check]).await?;
    let setup = scene.plain().stages(&[("20%", "5s"), ("50%", "5s"), ("100%", "5s")]).spec(
        "jobs",
        json!([
            {"name": "scan", "cronJob": "scan", "at": "BeforeStart", "evidence": "Scan"},
            {"name": "smoke", "cronJob": "smoke", "at": "Stage", "stages": ["20%", "100%"], "evidence": "DatabaseHealth"},
            {"name": "again", "cronJob": "scan", "at": "AfterRollback"},
            {"name": "last", "cronJob": "scan", "at": "AfterPromotion"},
        ]),
    );
    scene.open(setup).await?;
    scene.answered_by("v1", SOON).await?;
    scene.set_image("v2").await?;
    let end = scene.ended("Promoted").await?;
    promoted_to(scene, "v2").await?;
    let record = frozen(scene, end.release()).await?;
    ran(&record, "scan", None, "Succeeded", 0)?;
    ran(&record, "smoke", Some(1), "Succeeded", 0)?;
    let whole = ran(&record, "smoke", Some(3), "Succeeded", 0)?;
    ensure!(whole.log.contains("v2"), "the candidate did not answer at 100%: {}", whole.log);
    ran(&record, "last", None, "Succeeded", 0)?;
    ensure!(jobs(&record).len() == 4, "other jobs ran: {:?}", jobs(&record));
    ensure!(file(&record, "db_health_stage_100.txt")?.contains(&whole.log), "the log is not in the evidence");
    made_as_kubectl_makes_it(scene, &whole.job, end.release()).await?;

    scene.step("the smoke test fails from now on");
    let check = smoke(scene, "smoke", &nowhere);
    scene.cluster().apply(&[&check]).await?;
    scene.from_now();
    scene.set_image("v3").await?;
    let end = scene.until("ended RolledBack", RELEASE, |seen| seen.number() == 2 && seen.ended("RolledBack")).await?;
    let revert = |field: &str| text(&end.object, &format!("/status/current/revert/{field}")).to_owned();
    ensure!(
        (revert("reason"), revert("by")) == ("JobFailed".into(), "job smoke".into()),
        "not by the job: {}",
        end.line()
    );
    ensure!(revert("stage") == "1/3", "not at stage 1: {}", end.line());
    ensure!(end.message().contains("exit code 1 of container load"), "{}", end.message());
    stable_serves(scene, "v2").await?;
    let record = frozen(scene, end.release()).await?;
    let failed = ran(&record, "smoke", Some(1), "Failed", 1)?;
    ran(&record, "again", None, "Succeeded", 0)?;
    let trigger = record.status.as_ref().and_then(|status| Some(status.rollbacks.last()?.trigger.clone()));
    ensure!(trigger.as_deref() == Some("job smoke"), "{trigger:?}");
    ensure!(file(&record, "db_health_stage_20.txt")?.contains(&failed.log), "the log is not in the evidence");
    ensure!(
        file(&record, "job_again_after_rollback.txt")?.contains("Exit code        0"),
        "no exit code in the evidence"
    );
    scene.no_bad_answers()
}

async fn made_as_kubectl_makes_it(scene: &Scene, name: &str, id: &str) -> Result<()> {
    let job = scene.cluster().get(Kind::Job, &scene.namespace, name).await?.context("the Job is gone")?;
    let note = |key: &str| text(&job, &format!("/metadata/annotations/{key}")).to_owned();
    ensure!(note("cronjob.kubernetes.io~1instantiate") == "manual", "{job}");
    ensure!(note("canaryrelease.dev~1release-id") == id, "{job}");
    let owner = ("/metadata/ownerReferences/0/kind", "/metadata/ownerReferences/0/name");
    ensure!((text(&job, owner.0), text(&job, owner.1)) == ("CronJob", "smoke"), "{job}");
    ensure!(text(&job, "/metadata/labels/team") == "shop", "{job}");
    ensure!(text(&job, "/spec/template/metadata/annotations/canaryrelease.dev~1weight") == "100%", "{job}");
    ensure!(crate::cluster::number(&job, "/spec/ttlSecondsAfterFinished") == 604_800, "{job}");
    Ok(())
}
