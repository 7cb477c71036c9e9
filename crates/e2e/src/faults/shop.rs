//! One shop that is brought to a moment of its release, meets a fault there, and must end as if nothing had happened, or,
//! where the CanaryRelease went, as a plain Deployment. What goes wrong first ends it. It makes no fault.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::Trial;
use super::moment::{Lead, Moment};
use crate::history::Seen;
use crate::scenarios::deletion::plain;
use crate::scenarios::promotion::{promoted_to, stable_serves};
use crate::scene::{SOON, Scene};
use crate::world::World;

/// Longest time for the rest of a release after its fault: what it stays for, and an operator that has to come back.
const REST: Duration = Duration::from_secs(6 * 60);
/// How often the status is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often a release that is held for want of numbers is resumed, as a person would.
const RESUMES: usize = 2;

/// How shops are to be found afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Their releases go on to their ends.
    GoesOn,
    /// Their CanaryReleases went.
    Plain,
    /// Their namespaces went, and their pods with them: no answer is expected.
    Gone,
}

/// One shop of a round.
#[derive(Debug)]
pub(super) struct Shop {
    name: String,
    fault: String,
    pub(super) moment: Moment,
    pub(super) scene: Option<Scene>,
    began: Instant,
    /// The step that the fault met.
    met: String,
    /// Whether that was another moment: a machine that is busy with other things is late.
    missed: bool,
    resumed: usize,
    wrong: Option<String>,
}

impl Shop {
    /// In a namespace of its own, which is yet to be made.
    pub(super) fn new(round: &str, fault: &str, moment: Moment) -> Self {
        let name = format!("{round}-{}", moment.name());
        let fault = fault.to_owned();
        let (scene, began, met) = (None, Instant::now(), String::new());
        Self { name, fault, moment, scene, began, met, missed: false, resumed: 0, wrong: None }
    }

    pub(super) fn went_wrong(&mut self, error: &anyhow::Error) {
        self.wrong.get_or_insert_with(|| format!("{error:#}"));
    }

    /// Armed, with a client.
    pub(super) async fn open(&mut self, world: &Arc<World>) {
        let opening = async {
            let mut scene = Scene::new(world, &self.name, true, false).await?;
            let setup = self.moment.setup(&scene);
            scene.open(setup).await?;
            anyhow::Ok(scene)
        };
        match opening.await {
            Ok(scene) => self.scene = Some(scene),
            Err(error) => self.went_wrong(&error),
        }
    }

    /// As near to its moment as it may be before the others.
    pub(super) async fn approach(&mut self) {
        let moment = self.moment;
        let approaching = async {
            match (moment.lead(), self.open_scene()?) {
                (Lead::Long, scene) => {
                    push(scene, moment).await?;
                    scene.until("the last stage is judged", REST, |seen| seen.baking(2)).await?;
                }
                (Lead::Short, scene) => {
                    push(scene, moment).await?;
                    scene.until("the canary is scaled", REST, |seen| seen.step() == "Scale").await?;
                }
                (Lead::None, _) => {}
            }
            anyhow::Ok(())
        };
        if let Err(error) = approaching.await {
            self.went_wrong(&error);
        }
    }

    /// At its moment.
    pub(super) async fn arrive(&mut self) {
        let moment = self.moment;
        let arriving = async {
            let scene = self.open_scene()?;
            if matches!(moment, Moment::Baseline | Moment::Scale) {
                push(scene, moment).await?;
            }
            if moment == Moment::Paused {
                scene.until("stage 1 is judged", REST, |seen| seen.baking(1)).await?;
                scene.command("pause").await?;
            }
            scene.until(moment.name(), REST, |seen| moment.is_at(seen)).await.map(drop)
        };
        if let Err(error) = arriving.await {
            self.went_wrong(&error);
        }
    }

    /// Notes where the fault meets it.
    pub(super) fn meet(&mut self) {
        let Some(seen) = self.scene.as_ref().and_then(Scene::latest) else { return };
        seen.step().clone_into(&mut self.met);
        self.missed = !self.moment.is_at(&seen);
    }

    /// To its end.
    pub(super) async fn finish(&mut self, after: After) {
        if self.wrong.is_some() {
            return;
        }
        let finished = match after {
            After::GoesOn => self.goes_on().await,
            After::Plain => self.is_plain().await,
            After::Gone => self.is_gone().await,
        };
        if let Err(error) = finished {
            self.went_wrong(&error);
        }
    }

    async fn is_plain(&mut self) -> Result<()> {
        let (moment, met) = (self.moment, self.met.clone());
        let scene = self.open_scene()?;
        let version = moment.serves_after_deletion(&met);
        unmarked(scene).await?;
        plain(scene, version).await?;
        scene.answered_by(version, SOON).await?;
        scene.no_answer_by(if version == "v1" { moment.version() } else { "v1" }, Duration::from_secs(3)).await?;
        self.answers_were_good()
    }

    async fn is_gone(&mut self) -> Result<()> {
        let scene = self.open_scene()?;
        // With the pods the answers end.
        scene.close().await;
        namespace_gone(scene).await
    }

    async fn goes_on(&mut self) -> Result<()> {
        let moment = self.moment;
        if moment == Moment::Rest {
            let scene = self.open_scene()?;
            scene.from_now();
            scene.never("a release starts", Duration::from_secs(15), |seen| seen.number() > 0).await?;
            stable_serves(scene, "v1").await?;
            return self.answers_were_good();
        }
        if moment == Moment::Paused {
            let scene = self.open_scene()?;
            let seen = scene.latest().context("the CanaryRelease has no status")?;
            ensure!(moment.is_at(&seen) && seen.weight() == "20%", "it did not stay paused: {}", seen.line());
            scene.command("resume").await?;
        }
        let ends = if moment == Moment::Revert { "RolledBack" } else { "Promoted" };
        self.ended(ends).await?;
        let resumed = self.resumed;
        let scene = self.open_scene()?;
        ensure!(scene.latest().is_some_and(|seen| seen.number() == 1), "another release was started");
        if moment == Moment::Revert {
            stable_serves(scene, "v1").await?;
            scene.no_answer_by("bad", Duration::from_secs(3)).await?;
        } else {
            promoted_to(scene, "v2").await?;
            // To resume is to begin a stage again.
            if resumed == 0 && moment != Moment::Paused {
                scene.stages_were(1, &[1, 2])?;
            }
        }
        self.answers_were_good()
    }

    /// Waits for the end; a release that is held for want of numbers is resumed.
    async fn ended(&mut self, outcome: &str) -> Result<()> {
        let (end, mut since) = (Instant::now() + REST, String::new());
        // What a person paused has just been resumed: that is not to be answered again.
        let mut settled = self.moment != Moment::Paused;
        loop {
            let scene = self.open_scene()?;
            let seen = scene.latest().context("the CanaryRelease has no status")?;
            if seen.ended(outcome) {
                scene.step(format!("ended {outcome} ({})", seen.line()));
                return Ok(());
            }
            let held = crate::cluster::text(&seen.object, "/status/current/paused/since").to_owned();
            settled |= held.is_empty();
            if settled && !held.is_empty() && held != since {
                ensure!(self.resumed < RESUMES, "held again and again: {}", seen.line());
                self.resumed += 1;
                since = held;
                self.open_scene()?.command("resume").await?;
            } else if over(&seen) {
                bail!("ended otherwise than {outcome}: {}", seen.line());
            } else if Instant::now() > end {
                bail!("not over within {REST:?}: {}", seen.line());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn answers_were_good(&mut self) -> Result<()> {
        let moment = self.moment;
        let scene = self.open_scene()?;
        if moment == Moment::Revert { scene.no_bad_answers_but_of("bad") } else { scene.no_bad_answers() }
    }

    fn open_scene(&mut self) -> Result<&mut Scene> {
        self.scene.as_mut().context("it was not opened")
    }

    /// Takes it away and says what came of it.
    pub(super) async fn close(mut self, tell: &super::Tell) -> Trial {
        let mut trial = Trial {
            fault: self.fault,
            moment: self.moment.name().to_owned(),
            met: self.met,
            missed: self.missed,
            resumed: self.resumed,
            wrong: self.wrong,
            requests: 0,
            own: 0,
            lost: 0,
            took: self.began.elapsed(),
        };
        if let Some(scene) = &mut self.scene {
            let story = if trial.wrong.is_some() { scene.story().await } else { String::new() };
            trial.count(&scene.close().await, self.moment.version());
            tell(&trial.line());
            if !story.is_empty() {
                tell(&story);
            }
            scene.take_away().await;
        } else {
            tell(&trial.line());
        }
        trial
    }
}

/// Whether the release is over, whatever way.
fn over(seen: &Seen) -> bool {
    !seen.outcome().is_empty() && seen.condition("Completed").1 == "True"
}

/// Applies the candidate.
async fn push(scene: &mut Scene, moment: Moment) -> Result<()> {
    let mut deployment = scene.objects().deployment_with(moment.version());
    if moment.starts_in_ms() > 0 {
        deployment["spec"]["template"]["spec"]["containers"][0]["env"] =
            json!([{"name": "STARTUP_DELAY_MS", "value": moment.starts_in_ms().to_string()}]);
    }
    scene.step(format!("{} is applied", moment.version()));
    scene.cluster().apply(&[&deployment]).await
}

/// Waits until its namespace is gone.
///
/// # Errors
/// If it stays.
pub(crate) async fn namespace_gone(scene: &mut Scene) -> Result<()> {
    let named = format!("namespace/{}", scene.namespace);
    let end = Instant::now() + REST;
    loop {
        let said = scene.try_kubectl(&["wait", "--for=delete", "--timeout=50s", &named]).await?;
        if said.ok() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the namespace is still there after {REST:?}: {}", said.err.trim());
    }
}

/// Waits until nobody has a hand on the target any more.
///
/// # Errors
/// If somebody keeps it.
pub(crate) async fn unmarked(scene: &mut Scene) -> Result<()> {
    let namespace = scene.namespace.clone();
    scene
        .cluster()
        .until((crate::cluster::Kind::Deployment, &namespace, "shop"), REST, "left to itself", |found| {
            found.is_some_and(|target| !target["metadata"]["labels"].to_string().contains("canaryrelease.dev"))
        })
        .await
        .map(drop)
}
