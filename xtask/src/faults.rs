//! Faults in the simulated cluster: at the points of every scenario, by `canary-world`. It decides how many are tried;
//! what a point is, and what must hold there, is `canary-world`'s.

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
const POINTS: usize = 480;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Every point there is, however long it takes: some 70,000, in hours
    #[arg(long)]
    full: bool,
    /// For how long points are tried, the runs without a fault included; 240 where not `--full`
    #[arg(long)]
    seconds: Option<u64>,
    /// Which points come first
    #[arg(long, default_value_t = SEED)]
    seed: u64,
}

/// Whether all that was tried passed; it is shown as it comes.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let seconds = arguments.seconds.or_else(|| (!arguments.full).then_some(SECONDS));
    let status = every(seconds, None, arguments.seed)?.status().context("start canary-world")?;
    Ok(status.success())
}

/// A sample for `cargo xtask test`, always in the same order: the figures are shown, and what failed is handed back.
pub(crate) fn sample() -> Result<Option<String>> {
    let output = every(Some(SECONDS), Some(POINTS), SEED)?.output().context("start canary-world")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for line in said.lines().filter(|line| line.contains(" points tried")) {
        println!("     {line}");
    }
    Ok((!output.status.success()).then(|| checks::tail(&said)))
}

/// The command that tries them.
fn every(seconds: Option<u64>, points: Option<usize>, seed: u64) -> Result<Command> {
    let folder = programs::root().join(SCENARIOS);
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    let mut world = programs::cargo();
    world.args(["run", "--quiet", "--package", "canary-world", "--", "every", "--seed", &seed.to_string()]);
    if let Some(seconds) = seconds {
        world.args(["--seconds", &seconds.to_string()]);
    }
    if let Some(points) = points {
        world.args(["--points", &points.to_string()]);
    }
    world.arg("all").args(files);
    Ok(world)
}
