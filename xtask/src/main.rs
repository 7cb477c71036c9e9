//! The project's own commands.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod checks;
mod dist;
#[cfg(test)]
mod docs;
mod faults;
mod fields;
mod gates;
mod generate;
mod inside;
mod mutants;
mod outside;
mod previous;
mod programs;

/// CanaryRelease: build, try and prove it
///
/// `demo` shows what it does, `test` says whether a change is good, `proof`, `bench` and `soak` make the
/// pages in docs/. All of them run on a lab: a real Kubernetes that is built from pinned modules into a cache
/// once (about 14 minutes), lives in namespaces of its own and leaves nothing behind. The lab needs
/// Linux, root, Go and gcc; without them, `demo --context NAME` uses a cluster of yours.
#[derive(Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the generated files: crds/, docs/fields.md
    Gen {
        /// Change nothing; fail when a file is not what would be written
        #[arg(long)]
        check: bool,
    },
    /// Play one good release to 100 % and one bad one that is reverted, on a real Kubernetes
    ///
    /// Builds what is missing, starts the lab, installs the operator from deploy/, and shows stage, weight,
    /// gates and the share of traffic as a client measures it. The cluster stays up; the last lines say
    /// how to look around in it and how to stop it.
    Demo {
        /// Take the cluster down again; exit 0 only if both releases ended as they should
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        place: outside::Place,
    },
    /// All that a change must pass: format, clippy, tests, generated files, policies, quick scenarios
    ///
    /// The last line counts what passed and what failed; the exit code is 0 only if nothing failed.
    Test {
        #[command(flatten)]
        play: outside::Play,
    },
    /// Play every scenario of crates/e2e, with the client's view of each
    Proof {
        /// Write docs/proof.md
        #[arg(long)]
        write: bool,
        #[command(flatten)]
        play: outside::Play,
    },
    /// Measure: time and bad answers from fault to revert, API writes, memory
    ///
    /// 100 requests/s, canary at 5 %, scrape and tick 5 s, the canary turning 50 % bad while it runs.
    /// `bench gates` measures the gates alone.
    #[command(args_conflicts_with_subcommands = true)]
    Bench {
        #[command(subcommand)]
        of: Option<BenchOf>,
        /// Releases of each kind
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Seconds for which the idle operator is watched
        #[arg(long, default_value_t = 600)]
        idle: u64,
        /// Write docs/bench.md
        #[arg(long)]
        write: bool,
        #[command(flatten)]
        place: outside::Place,
    },
    /// Play a release that is promoted and one that is taken back, and write their records to docs/examples
    ///
    /// What people wrote comes from `docs/examples/spec-*.yaml`. Notes and reports are made from the records by the
    /// commands in docs/notes.md. About 6 minutes.
    Examples {
        #[command(flatten)]
        place: outside::Place,
    },
    /// Play many releases to see that gates tell bad from noise: healthy ones, bad ones, late faults
    ///
    /// Parts: `healthy` (0.5 % errors on both sides, limit 1 %), `latency` (4 % slow, limit 5 %), `load` (50 to 150
    /// requests/s), `bad` (3, 5 and 50 % errors in the candidate), `late` (50, 10 and 5 % after ten healthy minutes; the
    /// operator alive, and killed about then). Exit code 0 only if no healthy release was reverted, every bad one was,
    /// where it may be, and every late fault was called in time. All of it takes 50 to 60 minutes, on 2 cores that do
    /// nothing else: clients that did not keep their rate are named. `soak faults` plays faults instead.
    #[command(args_conflicts_with_subcommands = true)]
    Soak {
        #[command(subcommand)]
        of: Option<SoakOf>,
        #[command(flatten)]
        soaked: inside::Soaked,
        /// Write docs/soak.md
        #[arg(long)]
        write: bool,
        #[command(flatten)]
        place: outside::Place,
    },
    /// Try faults at the points of every scenario in the simulated cluster
    ///
    /// Deaths of the operator, lost replies, refused and failed requests, stale reads, two leaders, outages, clocks,
    /// watches cut off, what others write into the fields that tie objects together, and any two of these: at as many
    /// points as the time allows, the kinds in turn, in the order that the seed gives. Each must end as the run without a
    /// fault does, or say what is wrong, with every promise kept on the way. The last lines count the points by kind;
    /// what failed is shown as a file that `canary-world play` plays. `cargo xtask test` tries a sample.
    Faults(faults::Arguments),
    /// Try the admission policies of deploy/ on an API server of their own, and the simulated one against it
    ///
    /// Every row of crates/policy-tests, and every answer that the simulated cluster must give as the real API server and
    /// the real policies do. For who edits a policy: about two minutes once the lab is built. Part of `cargo xtask test`.
    Policies,
    /// Build kubectl-canary as one static program for linux/amd64, with its archive and the manifest for krew
    Dist(dist::Arguments),
    /// Start, look at and stop labs by hand: `cargo xtask lab --help`
    #[command(disable_help_flag = true)]
    Lab {
        /// Arguments of the command `lab`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// The part that runs inside a lab's network
    #[command(hide = true)]
    Inside(inside::Arguments),
}

#[derive(Subcommand)]
enum BenchOf {
    /// What gates make of simulated releases, ours and plain thresholds, and how fast it is; needs no lab
    Gates(gates::Arguments),
}

// Read once.
#[allow(clippy::large_enum_variant)]
#[derive(Subcommand)]
enum SoakOf {
    /// Play faults that meet releases under traffic at every moment: each must end as it should, and no answer fail
    ///
    /// Parts: `kills` (SIGKILLs of the operator at random moments), `outages` (`api`, `etcd`, `prometheus`, `cut`, `slow`,
    /// `runtime`, `leaders`), `deletions` (`release`, `uninstall`, `definition`, `files`, `namespace`), `upgrade` (from a
    /// previous build), `odd` (one hostile CanaryRelease among many). Exit code 0 only if every promise was kept. All of it
    /// takes about 3 hours; a sample of one part, such as `--only outages --fault etcd`, about 4 minutes.
    Faults {
        #[command(flatten)]
        faulted: inside::Faulted,
        /// The commit that the part `upgrade` begins with [default: before the last that changed the operator]
        #[arg(long, value_name = "COMMIT")]
        from: Option<String>,
        /// Its operator, instead of building it
        #[arg(long, value_name = "FILE")]
        from_operator: Option<std::path::PathBuf>,
        /// Write docs/soak-faults.md
        #[arg(long)]
        write: bool,
        #[command(flatten)]
        place: outside::Place,
    },
    /// Change the core and the statistics in thousands of small ways: a test must notice each
    ///
    /// Needs no lab. Exit code 0 only if 95 % were caught; survivors that docs/mutants.md gives a reason for do not count.
    /// It works in a copy of the checkout, where all are built at once and chosen at run time. All of it takes hours on 2
    /// cores; `--only`, `--shard` and `--seconds` take a part.
    Mutants(mutants::Arguments),
    /// Walk at random in the simulated cluster: people, tools and faults in any order, a million actions
    ///
    /// Needs no lab. Every promise must hold at every write, and each walk must come to rest. One that does not is shown as
    /// a file that `canary-world play` plays, as short as it could be made. All of it takes about three hours on 2 cores;
    /// `cargo xtask test` walks 10,000 actions.
    Walks(faults::Walks),
}

fn main() -> ExitCode {
    lab::hook();
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well; what could not be tried at all is an error.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Gen { check } => generate::run(check).map(|()| true),
        Command::Policies => Ok(checks::only_policies()),
        Command::Demo { once, place } => outside::demo(once, &place),
        Command::Test { play } => checks::test(&play),
        Command::Proof { write, play } => outside::proof(write, &play),
        Command::Bench { of: Some(BenchOf::Gates(arguments)), .. } => gates::bench(&arguments),
        Command::Bench { of: None, runs, idle, write, place } => outside::bench(runs, idle, write, &place),
        Command::Examples { place } => outside::examples(&place),
        Command::Soak { of: Some(SoakOf::Faults { faulted, from, from_operator, write, place }), .. } => {
            previous::faults(faulted, from.as_deref(), from_operator, write, &place)
        }
        Command::Soak { of: Some(SoakOf::Mutants(arguments)), .. } => mutants::run(&arguments),
        Command::Soak { of: Some(SoakOf::Walks(arguments)), .. } => faults::walk(&arguments),
        Command::Soak { of: None, soaked, write, place } => outside::soak(&soaked, write, &place),
        Command::Faults(arguments) => faults::run(&arguments),
        Command::Dist(arguments) => dist::run(&arguments),
        Command::Lab { arguments } => outside::lab(&arguments),
        Command::Inside(arguments) => inside::run(arguments),
    }
}
