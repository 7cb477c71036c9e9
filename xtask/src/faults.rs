//! Faults in the simulated cluster: at the points of every scenario, and random walks, by `canary-world`. It decides how
//! many are tried; what a point is, and what must hold there, is `canary-world`'s.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{checks, programs};

/// What the simulated cluster plays.
const SCENARIOS: &str = "crates/canary-world/scenarios";
/// How long points are tried where nothing else is asked for, and with every test at the most.
const SECONDS: u64 = 240;
/// The order in which they are tried then.
const SEED: u64 = 1;
/// How many of them a test tries: the same ones everywhere, as far as the time suffices.
const POINTS: usize = 540;
/// How many actions random walks have where all is asked for.
const ACTIONS: usize = 1_000_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Every point there is, or with `--walk` a million actions, however long it takes: hours
    #[arg(long)]
    full: bool,
    /// Random walks: people, tools and faults in any order
    #[arg(long)]
    walk: bool,
    /// For how long, the runs without a fault included; 240 where not `--full`
    #[arg(long)]
    seconds: Option<u64>,
    /// Which points come first, or which walks are walked
    #[arg(long, default_value_t = SEED)]
    seed: u64,
}

/// Whether all that was tried passed; it is shown as it comes.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let Arguments { full, walk, seconds, seed } = *arguments;
    let bounds = Bounds { seconds: seconds.or_else(|| (!full).then_some(SECONDS)), seed, optimized: full };
    let status = if walk { walks(&bounds) } else { every(&bounds, None)? }.status().context("start canary-world")?;
    Ok(status.success())
}

/// A sample for `cargo xtask test`, always in the same order: the figures are shown, and what failed is handed back.
pub(crate) fn sample() -> Result<Option<String>> {
    let bounds = Bounds { seconds: Some(SECONDS), seed: SEED, optimized: false };
    let output = every(&bounds, Some(POINTS))?.output().context("start canary-world")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for line in said.lines().filter(|line| line.contains(" points tried")) {
        println!("     {line}");
    }
    Ok((!output.status.success()).then(|| checks::tail(&said)))
}

struct Bounds {
    seconds: Option<u64>,
    seed: u64,
    /// Whether it is worth a build of its own.
    optimized: bool,
}

/// A command of `canary-world`.
fn world(word: &str, bounds: &Bounds) -> Command {
    let mut world = programs::cargo();
    world.args(["run", "--quiet", "--package", "canary-world"]);
    if bounds.optimized {
        world.arg("--release");
    }
    world.args(["--", word, "--seed", &bounds.seed.to_string()]);
    if let Some(seconds) = bounds.seconds {
        world.args(["--seconds", &seconds.to_string()]);
    }
    world
}

/// The command that walks at random.
fn walks(bounds: &Bounds) -> Command {
    let mut world = world("walk", bounds);
    world.args(["--actions", &ACTIONS.to_string()]);
    world
}

/// The command that tries faults at the points.
fn every(bounds: &Bounds, points: Option<usize>) -> Result<Command> {
    let folder = programs::root().join(SCENARIOS);
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    let mut world = world("every", bounds);
    if let Some(points) = points {
        world.args(["--points", &points.to_string()]);
    }
    world.arg("all").args(files);
    Ok(world)
}
