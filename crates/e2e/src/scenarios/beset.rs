//! A short sample of the soak of faults, in every run of the tests: what the operator needs goes away, what it stands on is
//! deleted, a hostile object lies beside good ones, a later build takes over. The soak plays the same at each moment of a
//! release, and for longer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::deletion::plain;
use super::promotion::promoted_to;
use crate::faults::odd::{self, Shape};
use crate::faults::outages::Outage;
use crate::faults::shop::{namespace_gone, unmarked};
use crate::faults::{Options, deletions};
use crate::history::Seen;
use crate::scene::{RELEASE, SOON, Scene};
use crate::soak::Tell;

/// How long each is away: longer than a client's call.
const AWAY: Duration = Duration::from_secs(10);

/// What is away in which stage, and how long that stage is: some seconds are left to prove something in.
const OUTAGES: [(Outage, &str, &str); 6] = [
    (Outage::Etcd, "10%", "15s"),
    (Outage::Cut, "15%", "20s"),
    (Outage::Slow, "20%", "20s"),
    (Outage::Runtime, "25%", "20s"),
    (Outage::Prometheus, "30%", "30s"),
    (Outage::Leaders, "35%", "45s"),
];

/// etcd, the network, containerd, Prometheus and the lease go away in one release, each in a stage of its own: it goes on,
/// no stage repeated or skipped.
pub async fn each_outage_in_turn(scene: &mut Scene) -> Result<()> {
    // One pod of the canary in all of these: Prometheus need not learn of another just after it was away.
    let mut stages: Vec<(&str, &str)> = OUTAGES.map(|(_, weight, time)| (weight, time)).to_vec();
    stages.push(("100%", "8s"));
    let setup = scene.plain().stages(&stages);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    for (stage, (outage, ..)) in (1..).zip(OUTAGES) {
        scene.until(&format!("stage {stage} is judged"), RELEASE, |seen| seen.baking(stage)).await?;
        meanwhile(scene, stage)?;
        let world = Arc::clone(&scene.world);
        outage.happen(&world, AWAY).await.with_context(|| outage.name())?;
        scene.step(format!("{} was away", outage.name()));
    }
    scene.ended("Promoted").await?;
    promoted_to(scene, "v2").await?;
    scene.stages_were(1, &[1, 2, 3, 4, 5, 6, 7])?;
    scene.no_bad_answers()?;
    scene.world.operator_ready().await
}

/// The CRDs are deleted in one release, and all of it is uninstalled in the next: the traffic goes back, and a plain
/// Deployment is left.
pub async fn definitions_deleted_and_all_uninstalled(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("50%", "120s"), ("100%", "4s")]);
    scene.open(setup).await?;
    let world = Arc::clone(&scene.world);
    half_way(scene).await?;
    let deleted = async {
        deletions::delete_definitions(&world).await?;
        left_plain(scene).await
    };
    let deleted = deleted.await;
    world.install().await?;
    deleted?;
    scene.from_now();
    scene.apply_release().await?;
    scene.until("armed again", SOON, Seen::armed).await?;
    half_way(scene).await?;
    let uninstalled = async {
        deletions::uninstall(&world).await?;
        left_plain(scene).await
    };
    let uninstalled = uninstalled.await;
    world.install().await?;
    uninstalled?;
    scene.no_bad_answers()
}

/// Half of the traffic is on the candidate.
async fn half_way(scene: &mut Scene) -> Result<()> {
    scene.set_image("v2").await?;
    scene.until("half of the traffic is on the candidate", RELEASE, |seen| seen.baking(1)).await?;
    scene.answered_by("v2", SOON).await
}

async fn left_plain(scene: &mut Scene) -> Result<()> {
    unmarked(scene).await?;
    plain(scene, "v1").await?;
    scene.no_answer_by("v2", Duration::from_secs(3)).await
}

/// The namespace of a release that is under way is deleted: nothing of ours keeps it.
pub async fn namespace_deleted_in_a_release(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("50%", "120s"), ("100%", "4s")]);
    scene.open(setup).await?;
    half_way(scene).await?;
    scene.no_bad_answers()?;
    let name = scene.namespace.clone();
    scene.kubectl(&["delete", "namespace", &name, "--wait=false"]).await?;
    namespace_gone(scene).await
}

/// A CanaryRelease takes each hostile shape, two of which can't be read, while three others are released beside it.
pub async fn hostile_object_beside_others(scene: &mut Scene) -> Result<()> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let tell: Tell = {
        let said = Arc::clone(&said);
        Arc::new(move |line: &str| said.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned()))
    };
    let options = Options {
        parts: Vec::new(),
        faults: Vec::new(),
        kills: 0,
        outage: Duration::ZERO,
        objects: 4,
        jobs: 3,
        seed: 1,
    };
    let world = Arc::clone(&scene.world);
    let played = odd::run(&world, &options, &tell).await;
    for line in said.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        scene.step(line.as_str());
    }
    let tally = played?;
    ensure!(tally.wrong.is_none(), "the hostile one: {}", tally.wrong.unwrap_or_default());
    ensure!(tally.shapes.len() == Shape::ALL.len(), "{} shapes were taken", tally.shapes.len());
    let wrong: Vec<&str> = tally.others.iter().filter_map(|other| other.wrong.as_deref()).collect();
    ensure!(wrong.is_empty() && tally.others.len() == 3, "of the others: {}", wrong.join("; "));
    Ok(())
}

/// A release that the build before began is gone on with by this one, and by that one again; where none is under way none is
/// started.
pub async fn upgraded_and_back_in_a_release(scene: &mut Scene) -> Result<()> {
    let world = Arc::clone(&scene.world);
    let previous = world.install_previous().await?;
    scene.step(format!("{} is installed", previous.name));
    let mut rests = Scene::new(&world, &format!("{}-rests", scene.namespace), false, false).await?;
    let mut played = upgraded_and_back(scene, &mut rests).await;
    // Whatever came of it: the scenarios after this one are of this build.
    let last = world.upgrade().await;
    if played.is_ok() {
        played = last.and(none_started(scene, &mut rests).await);
    }
    rests.close().await;
    rests.take_away().await;
    played
}

async fn upgraded_and_back(scene: &mut Scene, rests: &mut Scene) -> Result<()> {
    let setup = rests.plain();
    rests.open(setup).await?;
    rests.from_now();
    let setup = scene.plain().stages(&[("20%", "45s"), ("50%", "45s"), ("100%", "8s")]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    let world = Arc::clone(&scene.world);
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;
    world.upgrade().await?;
    meanwhile(scene, 1)?;
    scene.step("this build is installed");
    scene.until("stage 2 is judged", RELEASE, |seen| seen.baking(2)).await?;
    world.install_previous().await?;
    meanwhile(scene, 2)?;
    scene.step("the build before is installed again");
    scene.ended("Promoted").await?;
    promoted_to(scene, "v2").await?;
    scene.stages_were(1, &[1, 2, 3])?;
    scene.no_bad_answers()
}

/// A stage is still judged.
fn meanwhile(scene: &Scene, stage: i64) -> Result<()> {
    let now = scene.latest().context("the CanaryRelease has no status")?;
    ensure!(now.baking(stage), "too late for stage {stage}: {}", now.line());
    Ok(())
}

async fn none_started(scene: &mut Scene, rests: &mut Scene) -> Result<()> {
    scene.from_now();
    scene.never("another release starts", Duration::from_secs(5), |seen| seen.number() > 1).await?;
    rests.never("a release starts", Duration::from_secs(1), |seen| seen.number() > 0).await?;
    rests.no_bad_answers()
}
