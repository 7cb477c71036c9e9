//! `soak mutants`: small changes to what decides, each of which a test must notice. `cargo-mutants` makes them
//! (`.cargo/mutants.toml` says where) in a copy of the checkout; this says which are tried, with which tests, and counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::programs;

/// Of a hundred mutants so many must be caught, those with a reason apart.
const CAUGHT: usize = 95;
/// Survivors with the reason why no test can or should tell them from the original.
const REASONS: &str = "docs/mutants.md";
/// The crates that are changed, each with the tests that must notice: no others are built.
const CRATES: [(&str, &[&str]); 2] =
    [("canary-core", &["--lib", "--test=scenarios", "--test=record_size"]), ("canary-stats", &["--lib", "--tests"])];
/// The first test that fails tells enough; without this a mutant that is caught takes as long as one that is not.
const FIRST: [&str; 3] = ["-Z", "unstable-options", "--fail-fast"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the K-th of N equal parts, spread over all files: 0/50 is a sample of one in fifty
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Only mutants of these files, such as `crates/canary-core/src/decide/command.rs`
    #[arg(long, value_name = "GLOB")]
    only: Option<String>,
    /// Mutants at a time, each with a copy of the checkout and a target directory
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Where logs and lists are left [default: a directory of the temporary ones]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// What came of the mutants, by name.
#[derive(Debug, Default)]
struct Tally {
    caught: Vec<String>,
    timeout: Vec<String>,
    missed: Vec<String>,
    unviable: Vec<String>,
}

impl Tally {
    fn add(&mut self, folder: &Path) {
        for (name, list) in [
            ("caught", &mut self.caught),
            ("timeout", &mut self.timeout),
            ("missed", &mut self.missed),
            ("unviable", &mut self.unviable),
        ] {
            let file = folder.join("mutants.out").join(name).with_extension("txt");
            // Where no mutant of the crate was asked for there are no lists.
            let text = fs::read_to_string(&file).unwrap_or_default();
            list.extend(text.lines().map(str::to_owned));
        }
    }

    /// The survivors without a reason.
    fn unexplained<'a>(&'a self, reasons: &BTreeMap<String, String>) -> Vec<&'a str> {
        self.missed.iter().map(String::as_str).filter(|name| !reasons.contains_key(&lasting(name))).collect()
    }

    /// Whether enough were caught.
    fn suffices(&self, reasons: &BTreeMap<String, String>) -> bool {
        let caught = self.caught.len().saturating_add(self.timeout.len());
        let tried = caught.saturating_add(self.unexplained(reasons).len());
        caught.saturating_mul(100) >= tried.saturating_mul(CAUGHT) && tried > 0
    }
}

/// Whether enough mutants were caught; all of it is shown.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let tool = programs::tool("cargo-mutants", "27.1.0")?;
    let reasons = reasons(&fs::read_to_string(programs::root().join(REASONS)).with_context(|| REASONS.to_owned())?);
    let output = arguments
        .output
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("canaryrelease-mutants-{}", std::process::id())));
    let mut tally = Tally::default();
    for (package, tests) in CRATES {
        let folder = output.join(package);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        println!("{package}: mutants, into {}", folder.display());
        let mut mutants = Command::new(&tool);
        mutants.current_dir(programs::root()).args(["mutants", "--no-shuffle", "--colors=never", "--package", package]);
        mutants.args(["--jobs", &arguments.jobs.to_string(), "--output"]).arg(&folder);
        if let Some(shard) = &arguments.shard {
            mutants.args(["--sharding=round-robin", "--shard", shard]);
        }
        if let Some(only) = &arguments.only {
            mutants.args(["--file", only]);
        }
        mutants.args(tests.iter().map(|test| format!("--cargo-arg={test}"))).args(["--", "--"]).args(FIRST);
        // Each copy has a target directory of its own: cargo would take a mutant's artefacts for ours by their times.
        mutants.env_remove("CARGO_TARGET_DIR");
        // The stable test harness has that too, and asks for this word.
        mutants.env("RUSTC_BOOTSTRAP", "1");
        let status = mutants.status().context("start cargo-mutants")?;
        // 2 and 3 say that mutants were missed or ended by time, which is counted here.
        if !matches!(status.code(), Some(0 | 2 | 3)) {
            bail!("cargo-mutants failed for {package}: {status}; its logs are in {}", folder.display());
        }
        tally.add(&folder);
    }
    Ok(tell(&tally, &reasons))
}

fn tell(tally: &Tally, reasons: &BTreeMap<String, String>) -> bool {
    let unexplained = tally.unexplained(reasons);
    for name in &tally.missed {
        match reasons.get(&lasting(name)) {
            Some(reason) => println!("missed, {reason}: {name}"),
            None => println!("MISSED {name}"),
        }
    }
    let (caught, timeout, missed) = (tally.caught.len(), tally.timeout.len(), tally.missed.len());
    let whole = caught.saturating_add(timeout);
    let share = |of: usize| whole.saturating_mul(1000).checked_div(whole.saturating_add(of)).unwrap_or_default();
    let percent = |of: usize| format!("{}.{} %", share(of) / 10, share(of) % 10);
    println!(
        "mutants: {caught} caught, {timeout} ended by time, {missed} missed ({} with a reason), {} do not compile: \
         {} caught, {} of those without a reason",
        missed.saturating_sub(unexplained.len()),
        tally.unviable.len(),
        percent(missed),
        percent(unexplained.len()),
    );
    tally.suffices(reasons)
}

/// `file:line:column: what` without line and column, which every edit moves.
fn lasting(name: &str) -> String {
    let Some((place, what)) = name.split_once(": ") else { return name.to_owned() };
    format!("{}: {what}", place.split(':').next().unwrap_or(place))
}

/// The reasons of the page: lines ``- `mutant`: reason``.
fn reasons(page: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (mutant, reason) = line.strip_prefix("- `")?.split_once("`: ")?;
        (!reason.trim().is_empty()).then(|| (mutant.to_owned(), reason.trim().to_owned()))
    };
    page.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survivor_counts_unless_the_page_gives_its_reason() {
        let name = |number: usize| format!("crates/a/src/b.rs:{number}:5: replace + with - in f");
        let mut tally = Tally { caught: (0..94).map(name).collect(), ..Tally::default() };
        tally.timeout.push(name(94));
        tally.missed.extend((95..100).map(name));
        let none = reasons("# Mutants\n\n- `crates/a/src/b.rs: replace + with - in g`: another\n- `x`: \n");
        assert_eq!(none.len(), 1);
        assert!(tally.suffices(&none), "95 of 100");
        tally.missed.push("crates/a/src/c.rs:1:1: replace h with ()".to_owned());
        assert!(!tally.suffices(&none) && tally.unexplained(&none).len() == 6);
        let one = reasons("- `crates/a/src/c.rs: replace h with ()`: nobody can tell\n");
        assert!(tally.suffices(&one) && tally.unexplained(&one).len() == 5);
    }

    #[test]
    fn nothing_tried_is_no_success() {
        assert!(!Tally::default().suffices(&BTreeMap::new()));
    }

    #[test]
    fn every_reason_is_about_a_file_that_is_there() {
        let page = fs::read_to_string(programs::root().join(REASONS)).unwrap();
        for mutant in reasons(&page).keys() {
            let file = mutant.split(':').next().unwrap();
            assert!(programs::root().join(file).exists(), "{mutant}");
        }
    }
}
