//! `bench gates`: starts the program that plays simulated releases, built with optimizations, and says where its page
//! goes and what stands at its head. It measures nothing itself.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{inside, programs};

/// How the figures of the gates are made.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Releases of each traffic and bad share
    #[arg(long, default_value_t = 1000)]
    runs: u32,
    /// Seed of all of them
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Budget of false alarms of a whole release
    #[arg(long, default_value_t = 0.05)]
    alpha: f64,
    /// Gates that share the budget; one of them is played
    #[arg(long, default_value_t = 6)]
    gates: u32,
    /// Threads that play
    #[arg(long, default_value = "2")]
    threads: std::num::NonZeroUsize,
    /// Write docs/bench-gates.md and docs/bench-gates.svg
    #[arg(long)]
    write: bool,
}

pub(crate) fn bench(arguments: &Arguments) -> Result<bool> {
    let Arguments { runs, seed, alpha, gates, threads, write } = arguments;
    // All that the counts depend on.
    let counted = format!("--runs {runs} --seed {seed} --alpha {alpha} --gates {gates}");
    let mut command = programs::cargo();
    command.args(["run", "--quiet", "--release", "--package", "gate-bench", "--"]);
    command.args(counted.split(' ')).args(["--threads", &threads.to_string()]);
    command.args(["--header", &inside::made(&format!("cargo xtask bench gates {counted}")).text()]);
    if *write {
        command.arg("--write").arg(programs::root().join("docs"));
    }
    Ok(command.status().context("start cargo")?.success())
}
