//! The figures: how long a fault lives, how many bad answers it costs, what a release costs the API
//! server, how much memory the operator takes. It measures on the lab; it asserts nothing.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use canary_api::names::OPERATOR_USER;
use lab::audit_entries;

use crate::history::Seen;
use crate::report::Made;
use crate::scene::{RELEASE, SOON, Scene};
use crate::setup::Setup;
use crate::world::World;

/// How the figures are made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Releases of each kind.
    pub runs: usize,
    /// How long the idle operator is watched.
    pub idle: Duration,
}

/// Writes of the operator, by what they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Writes {
    /// All but Events, records and the lease.
    pub objects: usize,
    /// Records of releases.
    pub records: usize,
    /// Events.
    pub events: usize,
    /// The lease.
    pub lease: usize,
}

/// One reverted release.
#[derive(Debug, Clone, Copy)]
pub struct Reverted {
    /// From the fault to the status that says so, in ms.
    pub verdict_ms: u64,
    /// From the fault to the candidate's last answer at the client, in ms.
    pub fault_ms: u64,
    /// Bad answers that the client got.
    pub bad: u64,
    /// The operator's writes, from the change of the image to the end.
    pub writes: Writes,
    /// The leader's resident memory at its most, in kB.
    pub memory: u64,
}

impl Reverted {
    fn in_words(&self) -> String {
        let Self { verdict_ms, fault_ms, bad, writes, memory } = *self;
        let (verdict, fault) = (seconds(verdict_ms), seconds(fault_ms));
        format!("{fault:.1} s ({verdict:.1} s to the status), {bad} bad answers, {writes:?}, {memory} kB")
    }
}

/// Where the gates' counters come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Prometheus, scrape and tick every 5 s.
    Prometheus,
    /// The pods themselves, tick every second.
    Pods,
}

/// All figures.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Reverted releases, judged through Prometheus.
    pub reverted: Vec<Reverted>,
    /// Reverted releases, judged by the pods' own metrics.
    pub by_pods: Vec<Reverted>,
    /// Writes of promoted releases.
    pub promoted: Vec<Writes>,
    /// Resident memory before any release, in kB.
    pub idle_memory: u64,
    /// Resident memory after all of them, at rest, in kB.
    pub rest_memory: u64,
    /// Writes at rest.
    pub idle: Writes,
    /// Over how long.
    pub idle_seconds: u64,
}

/// Makes the figures.
///
/// # Errors
/// If a release does not end as it should.
pub async fn measure(world: &Arc<World>, options: Options, mut tell: impl FnMut(&str)) -> Result<Figures> {
    let mut figures = Figures { idle_memory: memory(world).await?, ..Figures::default() };
    tell(&format!("resident memory with no CanaryRelease: {} kB", figures.idle_memory));
    for run in 0..options.runs {
        let one = reverted(world, run, Source::Prometheus).await?;
        tell(&format!("reverted {}: {}", run + 1, one.in_words()));
        figures.reverted.push(one);
    }
    for run in 0..options.runs {
        let one = reverted(world, run, Source::Pods).await?;
        tell(&format!("reverted by the pods' own metrics {}: {}", run + 1, one.in_words()));
        figures.by_pods.push(one);
    }
    for run in 0..options.runs {
        let writes = promoted(world, run).await?;
        tell(&format!("promoted {}: {writes:?}", run + 1));
        figures.promoted.push(writes);
    }
    // At rest with an armed CanaryRelease: that is what an idle operator is.
    let mut scene = Scene::new(world, "bench-idle", true, false).await?;
    scene.open(setup(&scene, Source::Prometheus)).await?;
    let from = offset(world)?;
    tell(&format!("the idle operator is watched for {:?}", options.idle));
    tokio::time::sleep(options.idle).await;
    figures.idle = writes(world, from, None)?;
    figures.idle_seconds = options.idle.as_secs();
    figures.rest_memory = memory(world).await?;
    scene.close().await;
    scene.take_away().await;
    tell(&format!("idle: {:?}, {} kB", figures.idle, figures.rest_memory));
    Ok(figures)
}

/// 100 requests/s, canary at 5 %.
fn setup(scene: &Scene, source: Source) -> Setup {
    let mut setup =
        scene.plain().replicas(4).rate(100.0).spec("interval", "5s").stages(&[("5%", "300s"), ("100%", "30s")]);
    setup.deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/interval"] = "5s".into();
    for gate in setup.release["spec"]["gates"].as_array_mut().into_iter().flatten() {
        gate["minRequests"] = 20.into();
        if gate.pointer("/errorRate").is_some() {
            gate["errorRate"]["limit"] = "1%".into();
        }
    }
    match source {
        Source::Prometheus => setup,
        Source::Pods => setup.spec("provider", "pods").spec("interval", "1s"),
    }
}

async fn reverted(world: &Arc<World>, run: usize, source: Source) -> Result<Reverted> {
    let name = match source {
        Source::Prometheus => format!("bench-revert-{run}"),
        Source::Pods => format!("bench-pods-{run}"),
    };
    let mut scene = Scene::new(world, &name, true, false).await?;
    scene.open(setup(&scene, source)).await?;
    let from = offset(world)?;
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", RELEASE, |seen| seen.baking(1)).await?;
    // Well into the stage, and at another moment of scrape and tick in every run.
    let offset = u64::try_from(run).unwrap_or(0) * 1_700 % 5_000;
    tokio::time::sleep(Duration::from_millis(20_000 + offset)).await;
    let fault = scene.fault("shop-canary", "error_rate=0.5").await?;
    let mut most = 0;
    let ended = loop {
        most = most.max(memory(world).await?);
        let ended = scene.until("ended RolledBack", Duration::from_secs(1), |seen| seen.ended("RolledBack")).await;
        match ended {
            Ok(_) => break Ok(()),
            Err(error)
                if scene.latest().is_some_and(|seen| seen.number() == 1)
                    && scene.client().at.unix_ms > fault + 120_000 =>
            {
                break Err(error);
            }
            Err(_) => {}
        }
    };
    ended?;
    scene.tidy().await?;
    let client = scene.client();
    let last = client.last_answer("v2").context("the candidate never answered")?;
    let bad = client.answers.bad_of("v2");
    // The release's writes are over when its status says so and nothing of it is left.
    scene.until("at rest", SOON, |seen: &Seen| seen.condition("Reconciling").1 == "False").await?;
    let namespace = scene.namespace.clone();
    let writes = writes(world, from, Some(&namespace))?;
    scene.close().await;
    scene.take_away().await;
    let verdict =
        scene.history().all().into_iter().find(|seen| seen.step() == "Revert").context("no revert in the history")?;
    let verdict_ms = verdict.unix_ms.saturating_sub(fault);
    Ok(Reverted { verdict_ms, fault_ms: last.unix_ms.saturating_sub(fault), bad, writes, memory: most })
}

async fn promoted(world: &Arc<World>, run: usize) -> Result<Writes> {
    let mut scene = Scene::new(world, &format!("bench-promote-{run}"), true, false).await?;
    let setup =
        setup(&scene, Source::Prometheus).stages(&[("5%", "20s"), ("25%", "20s"), ("50%", "20s"), ("100%", "20s")]);
    scene.open(setup).await?;
    let from = offset(world)?;
    scene.set_image("v2").await?;
    scene.until("ended Promoted", Duration::from_secs(420), |seen| seen.ended("Promoted")).await?;
    scene.tidy().await?;
    let namespace = scene.namespace.clone();
    let writes = writes(world, from, Some(&namespace))?;
    scene.close().await;
    scene.take_away().await;
    Ok(writes)
}

fn offset(world: &World) -> Result<u64> {
    Ok(audit_entries(&world.lab()?.audit_log(), 0)?.1)
}

/// The operator's writes since an offset of the audit log; the lease's are in the operator's own namespace.
fn writes(world: &World, from: u64, namespace: Option<&str>) -> Result<Writes> {
    let (entries, _) = audit_entries(&world.lab()?.audit_log(), from)?;
    let mut writes = Writes::default();
    for entry in entries.iter().filter(|entry| entry.user == OPERATOR_USER && entry.is_write()) {
        match entry.resource.as_str() {
            "leases" => writes.lease += 1,
            _ if namespace.is_some_and(|namespace| namespace != entry.namespace) => {}
            "events" => writes.events += 1,
            "releaserecords" => writes.records += 1,
            _ => writes.objects += 1,
        }
    }
    Ok(writes)
}

/// Resident memory of the leader, in kB.
async fn memory(world: &Arc<World>) -> Result<u64> {
    let leader = world.leader().await?.context("no pod of the operator leads")?;
    let process = world.process_of(&leader)?;
    let status = world.inside("cat", &[&format!("/proc/{process}/status")])?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches("kB").trim().parse().context("VmRSS")
}

fn seconds(ms: u64) -> f64 {
    // Far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    let seconds = ms as f64 / 1000.0;
    seconds
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

impl Figures {
    /// The page for docs/.
    #[must_use]
    pub fn page(&self, made: &Made) -> String {
        let mut page = String::from("# Figures\n\n");
        let _ = writeln!(page, "{}\n", made.text());
        page.push_str(
            "On the lab: 100 requests/s through Traefik, 4 pods, canary at 5 %, tick and scrape every 5 s; 20 s into the stage\n\
             (and a bit later in every run, so that the fault meets scrape and tick at another moment) the canary\n\
             answers half of its requests with 500. In the rows on pods' own metrics no Prometheus is asked: the\n\
             operator reads the pods itself, every second. Writes are counted in the API server's audit log by the operator's user.\n\n",
        );
        let times: Vec<u64> = self.reverted.iter().map(|one| one.fault_ms).collect();
        let _ =
            writeln!(page, "| figure | median | runs | aim | others, at 10 s intervals |\n|---|---:|---|---:|---:|");
        let list = |values: Vec<String>| values.join(", ");
        let _ = writeln!(
            page,
            "| from the fault to the candidate's last answer at the client | {:.1} s | {} | 8 s | 12 to 14 s, 24 s |",
            seconds(median(times.iter().copied())),
            list(times.iter().map(|ms| format!("{:.1}", seconds(*ms))).collect())
        );
        let verdicts: Vec<u64> = self.reverted.iter().map(|one| one.verdict_ms).collect();
        let _ = writeln!(
            page,
            "| of that, until the breach stands in the status | {:.1} s | {} | | |",
            seconds(median(verdicts.iter().copied())),
            list(verdicts.iter().map(|ms| format!("{:.1}", seconds(*ms))).collect())
        );
        let pods: Vec<u64> = self.by_pods.iter().map(|one| one.fault_ms).collect();
        let _ = writeln!(
            page,
            "| from the fault to the last answer, by the pods' own metrics | {:.1} s | {} | 3 s | |",
            seconds(median(pods.iter().copied())),
            list(pods.iter().map(|ms| format!("{:.1}", seconds(*ms))).collect())
        );
        let bad = self.reverted.iter().map(|one| one.bad);
        let _ = writeln!(
            page,
            "| bad answers served | {} | {} | 15 | 30, 65 |",
            median(bad.clone()),
            list(bad.map(|bad| bad.to_string()).collect())
        );
        let bad = self.by_pods.iter().map(|one| one.bad);
        let _ = writeln!(
            page,
            "| bad answers served, by the pods' own metrics | {} | {} | | |",
            median(bad.clone()),
            list(bad.map(|bad| bad.to_string()).collect())
        );
        let objects = self.reverted.iter().map(|one| count(one.writes.objects));
        let _ = writeln!(
            page,
            "| API writes, reverted release (without Events, record and lease) | {} | {} | 20 | 22, several hundred |",
            median(objects.clone()),
            list(objects.map(|writes| writes.to_string()).collect())
        );
        let records = self.reverted.iter().map(|one| count(one.writes.records));
        let _ = writeln!(
            page,
            "| writes of the record, reverted release | {} | {} | | |",
            median(records.clone()),
            list(records.map(|writes| writes.to_string()).collect())
        );
        let events = self.reverted.iter().map(|one| count(one.writes.events));
        let _ = writeln!(
            page,
            "| Events, reverted release | {} | {} | | |",
            median(events.clone()),
            list(events.map(|writes| writes.to_string()).collect())
        );
        let objects = self.promoted.iter().map(|one| count(one.objects));
        let _ = writeln!(
            page,
            "| API writes, promoted release of 4 stages (without Events, record and lease) | {} | {} | | |",
            median(objects.clone()),
            list(objects.map(|writes| writes.to_string()).collect())
        );
        let records = self.promoted.iter().map(|one| count(one.records));
        let _ = writeln!(
            page,
            "| writes of the record, promoted release | {} | {} | | |",
            median(records.clone()),
            list(records.map(|writes| writes.to_string()).collect())
        );
        let events = self.promoted.iter().map(|one| count(one.events));
        let _ = writeln!(
            page,
            "| Events, promoted release | {} | {} | | |",
            median(events.clone()),
            list(events.map(|writes| writes.to_string()).collect())
        );
        let memory = self.reverted.iter().map(|one| one.memory);
        let _ = writeln!(
            page,
            "| resident memory during a release | {} MB | {} kB | 20 MB | 60 MB |",
            median(memory.clone()) / 1024,
            list(memory.map(|kb| kb.to_string()).collect())
        );
        let _ = writeln!(
            page,
            "| resident memory idle, before and after | {} MB | {} kB, {} kB | 20 MB | 60 MB |",
            self.idle_memory / 1024,
            self.idle_memory,
            self.rest_memory
        );
        let _ = writeln!(
            page,
            "| writes in {} idle seconds (without Events and lease) | {} | Events {}, records {}, lease {} | 0 | |",
            self.idle_seconds, self.idle.objects, self.idle.events, self.idle.records, self.idle.lease
        );
        page
    }
}
