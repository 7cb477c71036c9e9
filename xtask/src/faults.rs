//! Faults in the simulated cluster: at the points of every scenario, and random walks, by `canary-world`. It decides how
//! many are tried; what a point is, and what must hold there, is `canary-world`'s.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::{checks, programs};

/// What the simulated cluster plays.
const SCENARIOS: &str = "crates/canary-world/scenarios";
/// How long points are tried where nothing else is asked for, and with every test at the most.
const SECONDS: u64 = 240;
/// The order in which they are tried then.
const SEED: u64 = 1;
/// How many of them a test tries: the same ones everywhere, as far as the time suffices.
const POINTS: usize = 3_000;
/// How many actions random walks have with every test, and for how long at the most.
const ACTIONS: (usize, u64) = (10_000, 240);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Every point there is, however long it takes: hours
    #[arg(long)]
    full: bool,
    /// For how long, the runs without a fault included; 240 where not `--full`
    #[arg(long)]
    seconds: Option<u64>,
    /// Which points come first
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Leave out so many of the first points: with `--full`, the same seed and `--seconds` all are so played in parts
    #[arg(long, default_value_t = 0)]
    skip: usize,
    /// Only these groups: crashes, answers, stale, leaders, outages, clocks, watch, corruption, acts, pairs
    #[arg(long, value_delimiter = ',', default_value = "all")]
    groups: Vec<String>,
}

#[derive(clap::Args)]
pub(crate) struct Walks {
    /// How many actions, in walks of 40 each
    #[arg(long, default_value_t = 1_000_000)]
    actions: usize,
    /// For how long at the most
    #[arg(long)]
    seconds: Option<u64>,
    /// Which walks are walked
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Leave out so many of the first walks: with the same seed and `--seconds` all are so walked in parts
    #[arg(long, default_value_t = 0)]
    skip: usize,
}

/// Whether all that was tried passed; it is shown as it comes.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let Arguments { full, seconds, seed, skip, ref groups } = *arguments;
    let seconds = seconds.or_else(|| (!full).then_some(SECONDS));
    let mut command = world(&built()?, "every", seed, seconds);
    command.args(["--skip", &skip.to_string(), &groups.join(",")]).args(scenarios()?);
    Ok(command.status().context("start canary-world")?.success())
}

/// Whether all that was walked passed; it is shown as it comes.
pub(crate) fn walk(arguments: &Walks) -> Result<bool> {
    let Walks { actions, seconds, seed, skip } = *arguments;
    let mut command = walks(&built()?, seed, actions, seconds);
    command.args(["--skip", &skip.to_string()]);
    Ok(command.status().context("start canary-world")?.success())
}

/// A sample for `cargo xtask test`, always in the same order: the figures are shown, and what failed is handed back.
pub(crate) fn sample() -> Result<Option<String>> {
    let built = built()?;
    let mut points = world(&built, "every", SEED, Some(SECONDS));
    points.args(["--points", &POINTS.to_string(), "all"]).args(scenarios()?);
    for command in [points, walks(&built, SEED, ACTIONS.0, Some(ACTIONS.1))] {
        if let Some(wrong) = shown(command)? {
            return Ok(Some(wrong));
        }
    }
    Ok(None)
}

/// Runs it: its progress is shown as it comes, its figures at its end, and what failed is handed back.
fn shown(mut world: Command) -> Result<Option<String>> {
    let output = world.stderr(Stdio::inherit()).output().context("start canary-world")?;
    let said = String::from_utf8_lossy(&output.stdout);
    for line in said.lines().filter(|line| line.contains(" points tried") || line.contains(" actions in ")) {
        println!("     {line}");
    }
    Ok((!output.status.success()).then(|| checks::tail(&said)))
}

/// `canary-world`, optimized: the more points in the same time.
fn built() -> Result<PathBuf> {
    Ok(programs::release("the simulated cluster", &["canary-world"])?.join("canary-world"))
}

/// A command of `canary-world`.
fn world(program: &Path, word: &str, seed: u64, seconds: Option<u64>) -> Command {
    let mut world = Command::new(program);
    world.args([word, "--seed", &seed.to_string()]);
    if let Some(seconds) = seconds {
        world.args(["--seconds", &seconds.to_string()]);
    }
    world
}

/// The command that walks at random.
fn walks(program: &Path, seed: u64, actions: usize, seconds: Option<u64>) -> Command {
    let mut world = world(program, "walk", seed, seconds);
    world.args(["--actions", &actions.to_string()]);
    world
}

/// The files of all scenarios, in order.
fn scenarios() -> Result<Vec<PathBuf>> {
    let folder = programs::root().join(SCENARIOS);
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
