//! Candidates that turn bad after a long healthy time: several shops at once, read through Prometheus and from the pods,
//! with an operator that lives, or one that is killed about the time of the fault. It measures the time from the fault
//! to the breach in the status, and holds it against the same fault, simulated.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use lab_app::load::Snapshot;

use super::expect::{Delay, Fault};
use super::plan::{self, Source};
use super::{Part, Tell, page};
use crate::cluster::{Kind, text};
use crate::scene::{RELEASE, SOON, Scene};
use crate::world::{OPERATOR, SYSTEM, World};

/// True shares of bad requests after the fault.
pub const SHARES: [f64; 3] = [0.5, 0.1, 0.05];
/// Shops of one round.
pub const SCENES: usize = 2 * SHARES.len();
/// The operator is killed so long after the fault where that is no catastrophe, which is called sooner.
pub(super) const KILLED_AFTER: Duration = Duration::from_secs(5);
/// No fault takes longer than the rest of the stage.
const LONGEST: Duration = Duration::from_secs(9 * 60);
/// How often the lease is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Seconds that may pass between a bad answer and its count in a tick: the scrape, the tick, the write of the status.
const fn reading(source: Source) -> f64 {
    match source {
        Source::Prometheus => 4.0,
        Source::Pods => 3.0,
    }
}

/// After its return an operator lists what there is, and reads the past again where it can.
const RETURN_SECONDS: f64 = 4.0;

/// One late fault that was played.
#[derive(Debug, Clone)]
pub struct Late {
    /// Where.
    pub name: String,
    /// Where the counters came from.
    pub source: Source,
    /// The true share of bad requests after the fault.
    pub share: f64,
    /// Whether the operator was killed.
    pub killed: bool,
    /// What was measured, or what went wrong.
    pub called: Result<Called, String>,
}

/// A late fault that was called.
#[derive(Debug, Clone, Copy)]
pub struct Called {
    /// Healthy seconds before.
    pub calm: f64,
    /// Seconds from the fault to the breach in the status.
    pub seconds: f64,
    /// Seconds from the fault to the operator's return, where it was killed: its lease is renewed.
    pub back: Option<f64>,
    /// What was simulated: seconds from the fault, or from the return of an operator that knows only the status.
    pub expected: Delay,
    /// Seconds that come to it: the way of the numbers, and the operator's absence.
    pub more: f64,
    /// Bad answers that the client got of the candidate from the fault on.
    pub bad: u64,
    /// The part of the client's requests that was sent.
    pub rate_kept: f64,
}

impl Called {
    /// Whether it took longer than 19 of 20 would.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.seconds > self.expected.most + self.more
    }

    /// Whether it took longer than chance explains.
    #[must_use]
    pub fn is_too_late(&self) -> bool {
        self.seconds > self.expected.longest + self.more
    }
}

impl Late {
    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let killed = if self.killed { ", operator killed" } else { "" };
        let head = format!("{} ({} bad, by {}{killed})", self.name, page::percent(self.share), self.source.name());
        match &self.called {
            Err(why) => format!("FAIL {head}: {why}"),
            Ok(called) => {
                let mark = if called.is_too_late() { "FAIL" } else { "ok  " };
                let rate = if called.rate_kept < page::RATE_KEPT { "; THE RATE WAS NOT KEPT" } else { "" };
                let back = called.back.map_or(String::new(), |back| format!(", operator back after {back:.1} s"));
                format!(
                    "{mark} {head}: called {:.1} s after the fault{back}; expected {:.0} s, at most {:.0} s in 95 of 100; {} bad answers{rate}",
                    called.seconds,
                    called.expected.median + called.more,
                    called.expected.most + called.more,
                    called.bad
                )
            }
        }
    }
}

/// Plays all shares and sources at once.
pub async fn round(world: &Arc<World>, round: usize, killed: bool, calm: Duration, tell: &Tell) -> Vec<Late> {
    let sources = [Source::Prometheus, Source::Pods];
    let mut shops: Vec<Shop> = sources
        .into_iter()
        .flat_map(|source| SHARES.map(|share| Shop::new(round, source, share, killed, calm)))
        .collect();
    join_all(shops.iter_mut().map(|shop| shop.open(world, tell))).await;
    tell(&format!(
        "late, operator {}: {} candidates are in stage 1; they turn bad in {} s",
        if killed { "to be killed" } else { "alive" },
        shops.iter().filter(|shop| shop.wrong.is_none()).count(),
        calm.as_secs()
    ));
    tokio::time::sleep(calm).await;
    let outage = if killed {
        turn_bad_and_kill(world, &mut shops).await
    } else {
        join_all(shops.iter_mut().map(Shop::turn_bad)).await;
        Ok(None)
    };
    match outage {
        Ok(back) => drop(join_all(shops.iter_mut().map(|shop| shop.watch(back))).await),
        Err(error) => shops.iter_mut().for_each(|shop| shop.went_wrong(&error)),
    }
    let mut ended = Vec::new();
    for shop in shops {
        ended.push(shop.close(tell).await);
    }
    ended
}

/// Breaks what takes longer to be called, kills the operator, breaks the rest: when another one leads, in milliseconds
/// since 1970.
async fn turn_bad_and_kill(world: &World, shops: &mut [Shop]) -> Result<Option<u64>> {
    let slow = |shop: &&mut Shop| shop.dies_after() > 0;
    join_all(shops.iter_mut().filter(slow).map(Shop::turn_bad)).await;
    tokio::time::sleep(KILLED_AFTER).await;
    world.kill_leader().await?;
    let killed = now();
    join_all(shops.iter_mut().filter(|shop| !slow(shop)).map(Shop::turn_bad)).await;
    let end = Instant::now() + SOON;
    while renewed(world).await.is_none_or(|renewed| renewed <= killed) {
        ensure!(Instant::now() < end, "no operator leads {SOON:?} after its kill");
        tokio::time::sleep(LOOK).await;
    }
    Ok(Some(now()))
}

/// When the lease was last renewed, in milliseconds since 1970.
pub(crate) async fn renewed(world: &World) -> Option<u64> {
    let lease = world.cluster.get(Kind::Lease, SYSTEM, OPERATOR).await.ok().flatten()?;
    let at: jiff::Timestamp = text(&lease, "/spec/renewTime").parse().ok()?;
    u64::try_from(at.as_millisecond()).ok()
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

fn seconds(from: u64, to: u64) -> f64 {
    page::float(to.saturating_sub(from)) / 1000.0
}

/// One shop of a round. What goes wrong first ends it.
struct Shop {
    name: String,
    source: Source,
    share: f64,
    killed: bool,
    calm: Duration,
    scene: Option<Scene>,
    baking: Instant,
    /// When it turned bad, in milliseconds since 1970, and the client's figures then.
    fault: Option<(u64, Snapshot)>,
    called: Option<Called>,
    wrong: Option<String>,
}

impl Shop {
    fn new(round: usize, source: Source, share: f64, killed: bool, calm: Duration) -> Self {
        let short = if source == Source::Pods { "pods" } else { "prom" };
        let name = format!("soak-late-{short}-{:.0}{}-{}", share * 100.0, if killed { "k" } else { "" }, round + 1);
        let (scene, baking, fault, called, wrong) = (None, Instant::now(), None, None, None);
        Self { name, source, share, killed, calm, scene, baking, fault, called, wrong }
    }

    fn went_wrong(&mut self, error: &anyhow::Error) {
        self.wrong.get_or_insert_with(|| format!("{error:#}"));
    }

    /// Seconds from the fault to the operator's death, 0 where it dies before.
    fn dies_after(&self) -> u64 {
        if self.share < 0.3 { KILLED_AFTER.as_secs() } else { 0 }
    }

    async fn open(&mut self, world: &Arc<World>, tell: &Tell) {
        let opening = async {
            let mut scene = Scene::new(world, &self.name, true, false).await?;
            let setup = plan::setup(&scene, Part::Late, self.source);
            scene.open(setup).await?;
            let deployment = plan::candidate(scene.objects(), Part::Late, "v2", 1, None);
            scene.cluster().apply(&[&deployment]).await?;
            scene.until("stage 1 is judged", RELEASE, |seen| seen.baking(1)).await?;
            anyhow::Ok(scene)
        };
        match opening.await {
            Ok(scene) => {
                tell(&format!("{}: stage 1 is judged", self.name));
                (self.scene, self.baking) = (Some(scene), Instant::now());
            }
            Err(error) => self.went_wrong(&error),
        }
    }

    async fn turn_bad(&mut self) {
        if let Err(error) = self.try_turn_bad().await {
            self.went_wrong(&error);
        }
    }

    async fn try_turn_bad(&mut self) -> Result<()> {
        let Some(scene) = &mut self.scene else { return Ok(()) };
        let seen = scene.latest().context("the CanaryRelease has no status")?;
        ensure!(seen.baking(1), "it did not stay in stage 1 while it was healthy: {}", seen.line());
        scene.from_now();
        let client = scene.client();
        let at = scene.fault("shop-canary", &format!("error_rate={}", self.share)).await?;
        self.fault = Some((at, client));
        Ok(())
    }

    async fn watch(&mut self, back: Option<u64>) {
        match self.try_watch(back).await {
            Ok(called) => self.called = called,
            Err(error) => self.went_wrong(&error),
        }
    }

    async fn try_watch(&mut self, back: Option<u64>) -> Result<Option<Called>> {
        let simulated = tokio::task::spawn_blocking({
            // An operator that reads the past again knows all that it knew.
            let dies_after = (self.killed && self.source == Source::Pods).then(|| self.dies_after());
            let fault = Fault { share: self.share, calm: self.calm.as_secs(), dies_after };
            move || fault.simulate()
        });
        let (Some(scene), Some((fault, _))) = (&mut self.scene, &self.fault) else { return Ok(None) };
        let seen =
            scene.until("reverting", LONGEST, |seen| !text(&seen.object, "/status/current/revert/by").is_empty());
        let seen = seen.await?;
        ensure!(
            text(&seen.object, "/status/current/revert/by") == "gate errors",
            "reverted by something else: {}",
            seen.line()
        );
        let back = back.map(|back| seconds(*fault, back));
        let more = reading(self.source) + back.map_or(0.0, |back| back + RETURN_SECONDS);
        Ok(Some(Called {
            calm: self.baking.elapsed().as_secs_f64() - seconds(*fault, now()),
            seconds: seconds(*fault, seen.unix_ms),
            back,
            expected: simulated.await??,
            more,
            // Answers may still come: see `close`.
            bad: 0,
            rate_kept: 1.0,
        }))
    }

    async fn close(mut self, tell: &Tell) -> Late {
        if let (Some(called), Some(scene), Some((_, client))) = (&mut self.called, &self.scene, &self.fault) {
            let window = scene.client().since(client);
            (called.bad, called.rate_kept) =
                (window.answers.bad_of("v2"), page::part(window.sent, window.sent + window.skipped));
        }
        let called = match (self.called, self.wrong.take()) {
            (Some(called), None) => Ok(called),
            (_, wrong) => Err(wrong.unwrap_or_else(|| "it was not played".to_owned())),
        };
        let late = Late { name: self.name, source: self.source, share: self.share, killed: self.killed, called };
        tell(&late.line());
        if let Some(mut scene) = self.scene {
            if late.called.as_ref().map_or(true, Called::is_too_late) {
                tell(&scene.story().await);
            }
            scene.close().await;
            scene.take_away().await;
        }
        late
    }
}
