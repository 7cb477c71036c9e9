//! The operator is killed at moments left to chance, again and again, while several shops get good and bad releases one
//! after the other: each release must end as it would have, no stage be skipped or repeated, and no answer fail but by the
//! candidate's own fault. It decides when to kill and what to release; it judges no release itself.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lab_app::random::{Random, seed_of};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Options;
use crate::cluster::{Kind, number, text};
use crate::history::{History, Seen};
use crate::scenarios::promotion::{promoted_to, stable_serves};
use crate::scene::{SOON, Scene};
use crate::soak::late::{now, renewed};
use crate::soak::plan::candidate;
use crate::soak::release::{at_rest, next_version};
use crate::soak::{Part, Tell};
use crate::world::{SYSTEM, World};

/// From an operator that leads to its death, at most: a leader seldom lives long enough for a whole stage.
const LONGEST_LIFE_MS: u64 = 15_000;
/// Longest time for one release.
const LONGEST: Duration = Duration::from_secs(12 * 60);
/// How often something is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Where a pod's status names its container.
const CONTAINER: &str = "/status/containerStatuses/0/containerID";
/// In one of so many kills every replica dies.
const ALL_DIE: u64 = 4;
/// A container that was killed so often waits longer and longer to be started again: another pod takes its place.
const RESTARTS: i64 = 2;
/// How often a release that is held for want of numbers is resumed, as a person would.
const RESUMES: usize = 3;
/// Share of a bad candidate's answers that are errors.
const BAD: f64 = 0.5;

/// What is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Candidate {
    /// Good.
    Good,
    /// Bad from its start.
    Bad,
    /// Turns bad when a stage (from 1) is judged.
    Turns(i64),
}

impl Candidate {
    /// In the page.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad from its start",
            Self::Turns(_) => "turns bad in a stage",
        }
    }

    /// Half of them good.
    const fn draw(random: &mut Random) -> Self {
        match random.next_u64() % 6 {
            0..=2 => Self::Good,
            3 => Self::Bad,
            4 => Self::Turns(2),
            _ => Self::Turns(3),
        }
    }
}

/// One release that was played.
#[derive(Debug, Clone)]
pub struct Release {
    /// Where and the how manieth.
    pub name: String,
    /// What was released.
    pub candidate: Candidate,
    /// How often it was resumed because numbers were missing.
    pub resumed: usize,
    /// What went wrong, if anything.
    pub wrong: Option<String>,
    /// Answers of the client meanwhile.
    pub requests: u64,
    /// Failed ones by the candidate's own fault.
    pub own: u64,
    /// All others that failed.
    pub lost: u64,
    /// From the change of the template to rest.
    pub took: Duration,
}

impl Release {
    fn line(&self) -> String {
        let Self { name, candidate, resumed, wrong, requests, own, lost, took } = self;
        let mark = if wrong.is_none() { "ok  " } else { "FAIL" };
        let wrong = wrong.as_ref().map_or(String::new(), |wrong| format!(": {wrong}"));
        format!(
            "{mark} {name}, {}: {requests} answers, {own} failed by the candidate's fault, {lost} others, resumed {resumed} times, {} s{wrong}",
            candidate.name(),
            took.as_secs()
        )
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// SIGKILLs with a release under way.
    pub kills: usize,
    /// Those that took every replica.
    pub all_died: usize,
    /// How many releases they met in each step.
    pub met: BTreeMap<String, usize>,
    /// Seconds from a kill to an operator that leads, of each.
    pub away: Vec<f64>,
    /// The releases.
    pub releases: Vec<Release>,
    /// The seed.
    pub seed: u64,
    /// Shops at a time.
    pub shops: usize,
}

/// Plays releases in several shops until the operator was killed often enough.
///
/// # Errors
/// If the operator cannot be killed, or none leads afterwards.
pub async fn run(world: &Arc<World>, options: &Options, tell: &Tell) -> Result<Tally> {
    let (enough, over) = watch::channel(false);
    let mut shops = JoinSet::new();
    let names: Vec<String> = (1..=options.jobs.max(1)).map(|number| format!("kills-{number}")).collect();
    for name in &names {
        let random = Random::new(options.seed ^ seed_of(name));
        shops.spawn(shop(Arc::clone(world), name.clone(), random, over.clone(), Arc::clone(tell)));
    }
    let mut tally = Tally { seed: options.seed, shops: names.len(), ..Tally::default() };
    let killed = kill_often(world, &names, options, &mut tally, tell).await;
    enough.send_replace(true);
    while let Some(played) = shops.join_next().await {
        tally.releases.extend(played?);
    }
    killed?;
    world.operator_ready().await?;
    Ok(tally)
}

async fn kill_often(world: &World, names: &[String], options: &Options, tally: &mut Tally, tell: &Tell) -> Result<()> {
    let histories: Vec<History> = names.iter().map(|name| History::watch(&world.cluster, name, "shop")).collect();
    let mut random = Random::new(options.seed);
    let mut dead = HashSet::new();
    let begun = Instant::now();
    while tally.kills < options.kills {
        sleep(Duration::from_millis(random.next_u64() % LONGEST_LIFE_MS)).await;
        let steps: Vec<String> = histories.iter().filter_map(|history| under_way(history.latest()?)).collect();
        if steps.is_empty() {
            ensure!(begun.elapsed() < LONGEST || tally.kills > 0, "no release began within {LONGEST:?}");
            continue;
        }
        let all = random.next_u64().is_multiple_of(ALL_DIE);
        kill(world, all, &mut dead).await?;
        // A renewal after this is nobody's who died.
        let at = now();
        tally.kills += 1;
        tally.all_died += usize::from(all);
        for step in &steps {
            *tally.met.entry(step.clone()).or_default() += 1;
        }
        let back = led_again(world, at, &dead).await?;
        tally.away.push(back);
        let which = if all { "every replica" } else { "the leader" };
        tell(&format!("kill {}: {which}, in {}; led again after {back:.1} s", tally.kills, steps.join(", ")));
    }
    Ok(())
}

/// The step of a release that is under way.
fn under_way(seen: Seen) -> Option<String> {
    let step = seen.step();
    (!step.is_empty() && step != "Done").then(|| step.to_owned())
}

/// Kills the leader, or every replica that runs. Says nothing where none runs just now. Whose container is `dead` already
/// is left out: a pod's status calls it running for a moment longer.
async fn kill(world: &World, all: bool, dead: &mut HashSet<String>) -> Result<()> {
    let leader = world.leader().await?.context("no pod of the operator leads")?;
    let leads = text(&leader, "/metadata/name").to_owned();
    let pods = world.cluster.list(Kind::Pod, SYSTEM, "app.kubernetes.io/component=operator").await?;
    for pod in pods.iter().filter(|pod| all || text(pod, "/metadata/name") == leads) {
        if runs(pod, dead) {
            world.signal(pod, "SIGKILL")?;
            dead.insert(text(pod, CONTAINER).to_owned());
        }
        replace_worn_out(world, pod).await?;
    }
    Ok(())
}

/// Whether it has a process. One that crashed a moment ago has none.
fn runs(pod: &Value, dead: &HashSet<String>) -> bool {
    pod.pointer("/status/containerStatuses/0/state/running").is_some() && !dead.contains(text(pod, CONTAINER))
}

async fn replace_worn_out(world: &World, pod: &Value) -> Result<()> {
    if number(pod, "/status/containerStatuses/0/restartCount") < RESTARTS {
        return Ok(());
    }
    let name = text(pod, "/metadata/name");
    let arguments = ["delete", "pod", name, "-n", SYSTEM, "--force", "--grace-period=0", "--ignore-not-found"];
    world.cluster.run(&arguments, None).await.map(drop)
}

/// Waits until an operator that was not killed has renewed the lease since, and runs: seconds until then.
async fn led_again(world: &World, since: u64, dead: &HashSet<String>) -> Result<f64> {
    let end = Instant::now() + SOON * 3;
    loop {
        let leads = renewed(world).await.is_some_and(|renewed| renewed > since)
            && matches!(world.leader().await, Ok(Some(pod)) if runs(&pod, dead));
        if leads {
            return Ok(Duration::from_millis(now().saturating_sub(since)).as_secs_f64());
        }
        ensure!(Instant::now() < end, "no operator leads {:?} after its kill", SOON * 3);
        sleep(LOOK).await;
    }
}

/// One shop with a client, and its releases until it was enough.
async fn shop(
    world: Arc<World>,
    name: String,
    mut random: Random,
    over: watch::Receiver<bool>,
    tell: Tell,
) -> Vec<Release> {
    let mut releases = Vec::new();
    let opened = async {
        let mut scene = Scene::new(&world, &name, true, false).await?;
        let setup = scene.plain().rate(30.0).spec("readyDeadline", "180s");
        scene.open(setup).await?;
        anyhow::Ok(scene)
    };
    let mut scene = match opened.await {
        Ok(scene) => scene,
        Err(error) => {
            let wrong = Some(format!("not opened: {error:#}"));
            let took = Duration::ZERO;
            releases.push(Release {
                name,
                candidate: Candidate::Good,
                resumed: 0,
                wrong,
                requests: 0,
                own: 0,
                lost: 0,
                took,
            });
            return releases;
        }
    };
    while !*over.borrow() {
        let candidate = Candidate::draw(&mut random);
        let release = play(&mut scene, &format!("{name} {}", releases.len() + 1), candidate).await;
        tell(&release.line());
        let wrong = release.wrong.is_some();
        releases.push(release);
        if wrong {
            tell(&scene.story().await);
            break;
        }
    }
    scene.close().await;
    scene.take_away().await;
    releases
}

/// One release, to its end and to rest.
async fn play(scene: &mut Scene, name: &str, candidate: Candidate) -> Release {
    let (began, client) = (Instant::now(), scene.client());
    let (mut resumed, mut version) = (0, "");
    let played = release(scene, candidate, &mut version, &mut resumed).await;
    let answers = scene.client().since(&client).answers;
    let own = if candidate == Candidate::Good { 0 } else { answers.bad_of(version) };
    let lost = answers.bad() - own;
    let wrong = match played {
        Err(error) => Some(format!("{error:#}")),
        Ok(()) if lost > 0 => Some(format!("{lost} answers failed: {answers:?}")),
        Ok(()) => None,
    };
    let name = name.to_owned();
    Release { name, candidate, resumed, wrong, requests: answers.total(), own, lost, took: began.elapsed() }
}

async fn release(scene: &mut Scene, kind: Candidate, version: &mut &'static str, resumed: &mut usize) -> Result<()> {
    let before = scene.latest().context("the CanaryRelease has no status")?.number();
    *version = next_version(scene, before).await?;
    let bad = (kind == Candidate::Bad).then_some(BAD);
    let serves =
        text(&scene.deployment("shop").await?.context("there is no target")?, "/spec/template/spec/containers/0/image")
            .to_owned();
    scene.cluster().apply(&[&candidate(scene.objects(), Part::Bad, version, before + 1, bad)]).await?;
    scene.step(format!("release {}: {version}, {kind:?}", before + 1));
    scene.from_now();
    if let Candidate::Turns(stage) = kind {
        scene.until("it turns bad", LONGEST, |seen| seen.number() > before && seen.baking(stage)).await?;
        scene.fault("shop-canary", &format!("error_rate={BAD}")).await?;
    }
    let outcome = if kind == Candidate::Good { "Promoted" } else { "RolledBack" };
    until_over(scene, before + 1, outcome, resumed).await?;
    if kind == Candidate::Good {
        promoted_to(scene, version).await?;
        // To resume is to begin a stage again.
        if *resumed == 0 {
            scene.stages_were(before + 1, &[1, 2, 3])?;
        }
    } else {
        let old = serves.rsplit(':').next().unwrap_or_default();
        stable_serves(scene, old).await?;
    }
    at_rest(scene).await
}

/// Waits for the end of a release; one that is good and held for want of numbers is resumed.
async fn until_over(scene: &mut Scene, number: i64, outcome: &str, resumed: &mut usize) -> Result<()> {
    let (end, mut since) = (Instant::now() + LONGEST, String::new());
    loop {
        let seen = scene.latest().context("the CanaryRelease has no status")?;
        ensure!(seen.number() <= number, "another release was started: {}", seen.line());
        if seen.number() == number {
            if seen.ended(outcome) {
                return Ok(());
            }
            if !seen.outcome().is_empty() && seen.condition("Completed").1 == "True" && seen.step() == "Done" {
                bail!("ended otherwise than {outcome}: {}", seen.line());
            }
            let held = text(&seen.object, "/status/current/paused/since");
            if !held.is_empty() && held != since && outcome == "Promoted" {
                ensure!(*resumed < RESUMES, "held again and again: {}", seen.line());
                *resumed += 1;
                held.clone_into(&mut since);
                scene.command("resume").await?;
            }
        }
        ensure!(Instant::now() < end, "not over within {LONGEST:?}: {}", seen.line());
        sleep(LOOK).await;
    }
}
