//! The soak of faults: shops under traffic at every moment of a release, and one fault that meets them all. Each release
//! must end as if nothing had happened, or, where its CanaryRelease went, leave a plain Deployment; and no answer may fail
//! but by the candidate's own fault. It judges no release itself: that is the operator's.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::join_all;

use crate::scene::ClientView;
use crate::soak::Tell;
use crate::world::World;

pub mod deletions;
pub mod kills;
pub mod moment;
pub mod odd;
pub mod outages;
pub mod page;
pub mod shop;
pub mod upgrade;

use moment::{Lead, Moment};
use shop::{After, Shop};

/// A part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The operator is killed at random moments.
    Kills,
    /// What the operator needs is away.
    Outages,
    /// CanaryReleases, their definition or the operator are deleted.
    Deletions,
    /// The operator is replaced by a later build.
    Upgrade,
    /// One hostile CanaryRelease among many.
    Odd,
}

impl Part {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 5] = [Self::Kills, Self::Outages, Self::Deletions, Self::Upgrade, Self::Odd];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kills => "kills",
            Self::Outages => "outages",
            Self::Deletions => "deletions",
            Self::Upgrade => "upgrade",
            Self::Odd => "odd",
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
    /// Of outages and deletions only those whose name contains one of these.
    pub faults: Vec<String>,
    /// SIGKILLs of the operator.
    pub kills: usize,
    /// How long the API server is away.
    pub outage: Duration,
    /// CanaryReleases of the part `odd`, the hostile one included.
    pub objects: usize,
    /// Shops at a time in the parts `kills` and `odd`.
    pub jobs: usize,
    /// Of the order and the moments that are left to chance.
    pub seed: u64,
}

impl Options {
    fn wants(&self, fault: &str) -> bool {
        self.faults.is_empty() || self.faults.iter().any(|text| fault.contains(text.as_str()))
    }
}

/// One release that met a fault.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The fault.
    pub fault: String,
    /// Where it was to meet the release.
    pub moment: String,
    /// The step of the status when it came.
    pub met: String,
    /// Whether that is another moment than it should be.
    pub missed: bool,
    /// How often the release was resumed because numbers were missing.
    pub resumed: usize,
    /// What went wrong, if anything.
    pub wrong: Option<String>,
    /// Answers that the client got, or waited for in vain.
    pub requests: u64,
    /// Failed ones by the candidate's own fault.
    pub own: u64,
    /// All others that failed.
    pub lost: u64,
    /// From the first object to the end.
    pub took: Duration,
}

impl Trial {
    fn count(&mut self, client: &ClientView, candidate: &str) {
        self.requests += client.answers.total();
        let own = if candidate == "bad" { client.answers.bad_of(candidate) } else { 0 };
        self.own += own;
        self.lost += client.answers.bad() - own;
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { fault, moment, met, missed, resumed, wrong, requests, own, lost, took } = self;
        let mark = if wrong.is_none() { "ok  " } else { "FAIL" };
        let late = if *missed { ", too late" } else { "" };
        let met = if met.is_empty() { String::new() } else { format!(" (in {met}{late})") };
        let resumed = if *resumed > 0 { format!(", resumed {resumed} times") } else { String::new() };
        let wrong = wrong.as_ref().map_or(String::new(), |wrong| format!(": {wrong}"));
        let seconds = took.as_secs();
        format!(
            "{mark} {fault} at {moment}{met}: {requests} answers, {own} failed by the candidate's fault, {lost} others{resumed}, {seconds} s{wrong}"
        )
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Of the part `kills`.
    pub kills: kills::Tally,
    /// Of outages.
    pub outages: Vec<Trial>,
    /// Of deletions.
    pub deletions: Vec<Trial>,
    /// Of the upgrade, and what was replaced.
    pub upgrade: Vec<Trial>,
    /// Of the hostile object: each of its shapes, and what the others did beside it.
    pub odd: odd::Tally,
    /// How long all of it took.
    pub took: Duration,
}

/// Plays the parts, one after the other: each disturbs the whole cluster.
///
/// # Errors
/// Where nothing at all could be played; what goes wrong with one release is in its figures.
pub async fn run(world: &Arc<World>, options: &Options, tell: Tell) -> Result<Figures> {
    let started = std::time::Instant::now();
    let mut figures = Figures::default();
    for part in &options.parts {
        tell(&format!("part {part}"));
        match part {
            Part::Kills => figures.kills = kills::run(world, options, &tell).await?,
            Part::Outages => figures.outages = outages::run(world, options, &tell).await?,
            Part::Deletions => figures.deletions = deletions::run(world, options, &tell).await?,
            Part::Upgrade => figures.upgrade = upgrade::run(world, &tell).await?,
            Part::Odd => figures.odd = odd::run(world, options, &tell).await?,
        }
    }
    figures.took = started.elapsed();
    Ok(figures)
}

/// Brings a shop to each moment, lets the fault happen to all of them at once, and sees each to its end.
pub(crate) async fn round(
    world: &Arc<World>,
    (round, fault): (&str, &str),
    after: After,
    happen: impl AsyncFnOnce(&World) -> Result<()>,
    tell: &Tell,
) -> Vec<Trial> {
    let mut shops: Vec<Shop> = Moment::ALL.into_iter().map(|moment| Shop::new(round, fault, moment)).collect();
    tell(&format!("{fault}: {} shops are opened", shops.len()));
    join_all(shops.iter_mut().map(|shop| shop.open(world))).await;
    for lead in [Lead::Long, Lead::Short] {
        join_all(shops.iter_mut().filter(|shop| shop.moment.lead() == lead).map(Shop::approach)).await;
    }
    join_all(shops.iter_mut().map(Shop::arrive)).await;
    shops.iter_mut().for_each(Shop::meet);
    tell(&format!("{fault}: now"));
    if let Err(error) = happen(world).await {
        shops.iter_mut().for_each(|shop| shop.went_wrong(&error));
    }
    tell(&format!("{fault}: over"));
    join_all(shops.iter_mut().map(|shop| shop.finish(after))).await;
    join_all(shops.into_iter().map(|shop| shop.close(tell))).await
}
