//! `gate-bench`: plays the releases, times the evaluations, prints the page and writes it where it is asked to.
//! `cargo xtask bench gates` runs it, built with optimizations.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use canary_stats::Alpha;
use clap::Parser;
use gate_bench::judge::{GATES, Gate, PATIENT, Rule};
use gate_bench::page::{self, Made, PAGE, PLOT};
use gate_bench::play::{self, Options, SHARES, TRAFFIC};
use gate_bench::traffic::Plan;
use gate_bench::{plot, speed};

/// What gates make of simulated releases, ours and plain thresholds, and how fast it is
#[derive(Parser)]
#[command(name = "gate-bench", max_term_width = 100)]
struct Arguments {
    /// Releases of each traffic and bad share
    #[arg(long, default_value_t = 1000)]
    runs: u32,
    /// Seed of all of them
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Budget of false alarms of a whole release, above 0 and below 1
    #[arg(long, default_value_t = Alpha::RELEASE.get())]
    alpha: f64,
    /// Gates that share the budget; one of them is played
    #[arg(long, default_value_t = 6)]
    gates: u32,
    /// Threads that play
    #[arg(long, default_value = "2")]
    threads: NonZeroUsize,
    /// The sentence at the head of the page: by what, when and where it was made
    #[arg(long, default_value = "Made by `gate-bench`.")]
    header: String,
    /// Write the page and the plot into this folder
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gate-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let plan = Plan::USUAL;
    let rule = Rule::one_percent(Alpha::new(arguments.alpha)?, arguments.gates, &plan)?;
    let gates: Vec<Gate> = GATES.into_iter().chain(PATIENT).collect();
    let (runs, seed, threads) = (arguments.runs, arguments.seed, arguments.threads);
    let options = Options { runs, seed, plan, rule, gates: &gates, threads };

    let speeds = speed::measure()?;
    println!("timed {} evaluations", speeds.len());
    let (started, all) = (Instant::now(), TRAFFIC.len().saturating_mul(SHARES.len()));
    let mut played = 0_usize;
    let cells = play::grid(&options, |cell| {
        played = played.saturating_add(1);
        let (rps, share, seconds) = (cell.rps, cell.share * 100.0, started.elapsed().as_secs_f64());
        println!("played {played:2} of {all}: {runs} releases at {rps} requests/s, {share} % bad; {seconds:.1} s");
    })?;
    let made =
        Made { header: &arguments.header, options: &options, release_alpha: arguments.alpha, gates: arguments.gates };
    let text = page::page(&made, &cells, &speeds);
    println!("\n{text}");
    if let Some(folder) = arguments.write {
        for (name, content) in [(PAGE, text), (PLOT, plot::svg(&cells))] {
            let file = folder.join(name);
            fs::write(&file, content).with_context(|| format!("writing {}", file.display()))?;
            println!("wrote {}", file.display());
        }
    }
    Ok(())
}
