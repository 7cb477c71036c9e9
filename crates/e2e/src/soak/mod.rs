//! The soak: many healthy releases that must not be reverted, bad ones that must be, where the numbers allow it, and
//! ones that turn bad late. It plays them on a real cluster, each with a client at a fixed rate, and holds what came of
//! them against what [`expect`] computes beforehand. It judges no release itself: that is the operator's.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::scene::Scene;
use crate::world::World;

pub mod expect;
pub mod late;
pub mod page;
pub mod plan;
pub mod release;

use late::Late;
use plan::Source;
use release::{Release, Trial};

/// Releases that one shop gets one after the other, at most.
const IN_A_ROW: usize = 4;
/// Bad shares of the candidate in the part `bad`.
pub const BAD: [f64; 3] = [0.03, 0.05, 0.5];

/// What is told while it runs.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// A part of the soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Both sides half as bad as the limit allows.
    Healthy,
    /// Both sides nearly as slow as the limit allows.
    Latency,
    /// As healthy, under a load that rises and falls.
    Load,
    /// Candidates that are bad from the start.
    Bad,
    /// Candidates that turn bad after a long healthy time.
    Late,
}

impl Part {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 5] = [Self::Healthy, Self::Latency, Self::Load, Self::Bad, Self::Late];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Latency => "latency",
            Self::Load => "load",
            Self::Bad => "bad",
            Self::Late => "late",
        }
    }

    /// How often it is played where nothing else is asked: releases, of `bad` those of each share, of `late` rounds.
    #[must_use]
    pub const fn usual(self) -> usize {
        match self {
            Self::Healthy | Self::Latency | Self::Load => 20,
            Self::Bad => 5,
            Self::Late => 1,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|part| part.name() == name) {
            Some(part) => Ok(part),
            None => bail!("there is no part {name:?}; there are: {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}

/// What is played, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The parts.
    pub parts: Vec<Part>,
    /// How often each; not given: [`Part::usual`].
    pub runs: Option<usize>,
    /// Shops at a time.
    pub jobs: usize,
    /// Healthy time before a late fault.
    pub calm: Duration,
}

impl Options {
    fn runs(&self, part: Part) -> usize {
        if self.parts.contains(&part) { self.runs.unwrap_or(part.usual()) } else { 0 }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Releases of all parts but `late`.
    pub releases: Vec<Release>,
    /// Those of `late`.
    pub late: Vec<Late>,
    /// How long all of it took.
    pub took: Duration,
}

/// Trials of one shop, in a row.
#[derive(Debug)]
struct Row {
    name: String,
    source: Source,
    trials: Vec<Trial>,
}

/// Plays the parts.
///
/// # Errors
/// Where nothing at all could be played; what goes wrong with one release is in its figures.
pub async fn run(world: &Arc<World>, options: &Options, tell: Tell) -> Result<Figures> {
    let started = std::time::Instant::now();
    let places = Arc::new(Semaphore::new(options.jobs.max(1)));
    let mut rows = VecDeque::from(rows(options));
    let mut figures = Figures::default();
    let (mut playing, mut late) = (JoinSet::new(), JoinSet::new());
    // Places are given in the order in which they are asked for. A round of late faults takes many and mostly waits, so
    // the rounds come first, each with as many rows after it as find room beside it.
    for round in 0..options.runs(Part::Late) {
        for killed in [false, true] {
            let wanted = late::SCENES.min(options.jobs.max(1));
            let (played_in, told, calm) = (Arc::clone(world), Arc::clone(&tell), options.calm);
            let asked = Arc::clone(&places).acquire_many_owned(u32::try_from(wanted)?);
            late.spawn(async move {
                let _places = asked.await;
                late::round(&played_in, round, killed, calm, &told).await
            });
            for row in rows.drain(..rows.len().min(options.jobs.saturating_sub(wanted))).collect::<Vec<_>>() {
                playing.spawn(in_turn(Arc::clone(world), Arc::clone(&places), row, Arc::clone(&tell)));
            }
            // A task asks for its places when it first runs.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    for row in rows {
        playing.spawn(in_turn(Arc::clone(world), Arc::clone(&places), row, Arc::clone(&tell)));
    }
    while let Some(ended) = playing.join_next().await {
        figures.releases.extend(ended?);
    }
    while let Some(ended) = late.join_next().await {
        figures.late.extend(ended?);
    }
    figures.releases.sort_by_key(|one| (Part::ALL.iter().position(|part| *part == one.trial.part), one.name.clone()));
    figures.late.sort_by(|one, other| {
        (one.killed, one.source).cmp(&(other.killed, other.source)).then(other.share.total_cmp(&one.share))
    });
    figures.took = started.elapsed();
    Ok(figures)
}

/// Every release that is asked for, in rows for one shop each. Half of the shops are read through Prometheus.
fn rows(options: &Options) -> Vec<Row> {
    let mut rows = Vec::new();
    for part in [Part::Healthy, Part::Latency, Part::Load] {
        let trials = vec![Trial { part, bad: None }; options.runs(part)];
        for (index, trials) in trials.chunks(IN_A_ROW).enumerate() {
            rows.push(Row::new(part, index, trials.to_vec()));
        }
    }
    for index in 0..options.runs(Part::Bad) {
        let trials = BAD.map(|share| Trial { part: Part::Bad, bad: Some(share) });
        rows.push(Row::new(Part::Bad, index, trials.to_vec()));
    }
    rows
}

impl Row {
    fn new(part: Part, index: usize, trials: Vec<Trial>) -> Self {
        let source = if index.is_multiple_of(2) { Source::Prometheus } else { Source::Pods };
        Self { name: format!("soak-{part}-{}", index + 1), source, trials }
    }
}

async fn in_turn(world: Arc<World>, places: Arc<Semaphore>, row: Row, tell: Tell) -> Vec<Release> {
    // The semaphore is never closed.
    let _place = places.acquire().await;
    let mut ended = Vec::new();
    if let Err(error) = play_row(&world, &row, &mut ended, &tell).await {
        tell(&format!("{}: {error:#}", row.name));
        for trial in row.trials.iter().skip(ended.len()) {
            ended.push(Release::failed(&row.name, row.source, trial, &error));
        }
    }
    ended
}

async fn play_row(world: &Arc<World>, row: &Row, ended: &mut Vec<Release>, tell: &Tell) -> Result<()> {
    let mut scene = Scene::new(world, &row.name, true, false).await?;
    let part = row.trials.first().map_or(Part::Healthy, |trial| trial.part);
    let played = async {
        let setup = plan::setup(&scene, part, row.source);
        scene.open(setup).await?;
        for (index, trial) in row.trials.iter().enumerate() {
            let name = format!("{} {}/{}", row.name, index + 1, row.trials.len());
            let release = release::play(&mut scene, &name, row.source, trial).await?;
            tell(&release.line());
            if !release.kept() {
                tell(&scene.story().await);
            }
            ended.push(release);
        }
        anyhow::Ok(())
    }
    .await;
    if played.is_err() {
        tell(&scene.story().await);
    }
    scene.close().await;
    scene.take_away().await;
    played
}
