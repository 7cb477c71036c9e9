//! `soak mutants`: small changes to what decides, each of which a test must notice. `cargo-mutants` lists them
//! (`.cargo/mutants.toml` says where); here all are built into one copy of the checkout and chosen at run time, since to
//! build each by itself takes days. This says which are tried, with which tests, and counts.

mod trial;
mod weave;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::trial::{Bench, Verdict};
use self::weave::Mutant;
use crate::programs;

/// Of a hundred mutants so many must be caught, those with a reason apart.
const CAUGHT: usize = 95;
/// Survivors with the reason why no test can or should tell them from the original.
const REASONS: &str = "docs/mutants.md";
/// The crates that are changed, each with the tests that must notice: no others are built.
const CRATES: [(&str, &[&str]); 2] =
    [("canary-core", &["--lib", "--test=scenarios", "--test=record_size"]), ("canary-stats", &["--lib", "--tests"])];

#[derive(Default, clap::Args)]
pub(crate) struct Arguments {
    /// Only the K-th of N equal parts, spread over all files: 0/50 is a sample of one in fifty
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Only mutants of files whose path has this in it, such as `decide/` or `src/route.rs`
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// None of files whose path has this in it
    #[arg(long, value_name = "PART")]
    except: Option<String>,
    /// Only those that an earlier run missed, by its `tried.txt`; tests may have come since, the code must not have changed
    #[arg(long, value_name = "FILE")]
    again: Option<PathBuf>,
    /// Only of this crate
    #[arg(long, value_name = "CRATE")]
    package: Option<String>,
    /// For how long mutants are tried, the building not counted
    #[arg(long)]
    seconds: Option<u64>,
    /// Of the tests that come by a mutant only the quickest, which take no longer than so many seconds together; what only
    /// slower ones would notice counts as missed [default: all]
    #[arg(long, value_name = "SECONDS")]
    patience: Option<u64>,
    /// Where logs and lists are left [default: a directory of the temporary ones]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl Arguments {
    /// Whether the mutants of a file are asked for.
    fn want(&self, file: &str) -> bool {
        self.only.as_deref().is_none_or(|part| file.contains(part))
            && !self.except.as_deref().is_some_and(|part| file.contains(part))
    }
}

/// What came of the mutants, by name.
#[derive(Debug, Default)]
struct Tally {
    caught: Vec<String>,
    timeout: Vec<String>,
    missed: Vec<String>,
    unviable: Vec<String>,
    /// Those that can't be chosen at run time.
    left: Vec<String>,
}

impl Tally {
    fn add(&mut self, name: &str, verdict: Verdict) {
        let list = match verdict {
            Verdict::Caught => &mut self.caught,
            Verdict::Late => &mut self.timeout,
            Verdict::Missed | Verdict::Unreached => &mut self.missed,
        };
        list.push(name.to_owned());
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
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start a runtime")?;
    let mut tally = Tally::default();
    for (package, tests) in CRATES {
        if arguments.package.as_deref().is_some_and(|wanted| wanted != package) {
            continue;
        }
        let listed = listed(&tool, package, arguments)?;
        if listed.is_empty() {
            println!("{package}: none of its mutants is asked for");
            continue;
        }
        let folder = output.join(package);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        println!("{package}: {} mutants, into {}", listed.len(), folder.display());
        runtime.block_on(tried(package, tests, &listed, arguments, &folder, &mut tally))?;
    }
    Ok(tell(&tally, &reasons))
}

/// The mutants of a crate that are asked for.
fn listed(tool: &Path, package: &str, arguments: &Arguments) -> Result<Vec<Mutant>> {
    let mut list = Command::new(tool);
    list.current_dir(programs::root()).args(["mutants", "--list", "--json", "--colors=never", "--package", package]);
    if let Some(shard) = &arguments.shard {
        list.args(["--sharding=round-robin", "--shard", shard]);
    }
    let output = list.output().context("start cargo-mutants")?;
    if !output.status.success() {
        bail!("cargo-mutants lists nothing for {package}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let entries: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).context("the list of mutants")?;
    let all: Vec<Mutant> = entries.iter().map(Mutant::listed).collect::<Result<_>>()?;
    let earlier = arguments.again.as_deref().map(missed).transpose()?;
    let again = |mutant: &Mutant| earlier.as_ref().is_none_or(|missed| missed.contains(&mutant.name));
    Ok(all.into_iter().filter(|mutant| arguments.want(&mutant.file) && again(mutant)).collect())
}

/// The mutants that a run missed, by its list.
fn missed(tried: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(tried).with_context(|| tried.display().to_string())?;
    let missed = |line: &str| {
        let (verdict, name) = line.split_once(' ')?;
        matches!(verdict, "Missed" | "Unreached").then(|| name.to_owned())
    };
    Ok(text.lines().filter_map(missed).collect())
}

/// Builds a crate with these mutants and tries each, two at a time.
async fn tried(
    package: &str,
    tests: &[&str],
    listed: &[Mutant],
    arguments: &Arguments,
    folder: &Path,
    tally: &mut Tally,
) -> Result<()> {
    let bench = Bench::new(package, tests, listed, folder).await?;
    let name = |number: &usize| listed.get(*number).map(|mutant| mutant.name.clone());
    tally.unviable.extend(bench.unviable.iter().filter_map(name));
    tally.left.extend(bench.left.iter().filter_map(name));
    let out: BTreeSet<usize> = bench.unviable.union(&bench.left).copied().collect();
    let numbers: Vec<usize> = (0..listed.len()).filter(|number| !out.contains(number)).collect();
    let until = arguments.seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let log = Mutex::new(fs::File::create(folder.join("tried.txt")).context("create tried.txt")?);
    let (next, tally, told) = (AtomicUsize::new(0), Mutex::new(tally), Mutex::new(Instant::now()));
    let work = || async {
        while until.is_none_or(|until| Instant::now() < until)
            && let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed))
            && let Some(mutant) = listed.get(*number)
        {
            let verdict = bench.trial(*number, arguments.patience.map(Duration::from_secs)).await?;
            if let Ok(mut log) = log.lock() {
                let _unheard = writeln!(log, "{verdict:?} {}", mutant.name);
            }
            let Ok(mut tally) = tally.lock() else { break };
            tally.add(&mutant.name, verdict);
            if matches!(verdict, Verdict::Missed | Verdict::Unreached) {
                println!("{verdict:?} {}", mutant.name);
            }
            if let Ok(mut told) = told.lock()
                && told.elapsed() > Duration::from_secs(30)
            {
                *told = Instant::now();
                let (caught, late, missed) = (tally.caught.len(), tally.timeout.len(), tally.missed.len());
                println!("{caught} caught, {late} ended by time, {missed} missed of {}", numbers.len());
            }
        }
        Ok::<(), anyhow::Error>(())
    };
    let (one, other) = tokio::join!(work(), work());
    one.and(other)
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
        "mutants: {caught} caught, {timeout} ended by time, {missed} missed ({} with a reason), {} do not compile, {} \
         can't be chosen at run time: {} caught, {} of those without a reason",
        missed.saturating_sub(unexplained.len()),
        tally.unviable.len(),
        tally.left.len(),
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
    fn a_part_of_a_path_says_which_files_are_meant() {
        let file = "crates/canary-core/src/decide/command.rs";
        let want = |only: Option<&str>, except: Option<&str>| {
            let part = |part: Option<&str>| part.map(str::to_owned);
            Arguments { only: part(only), except: part(except), ..Arguments::default() }.want(file)
        };
        assert!(want(None, None) && want(Some("decide/"), None) && want(Some("src/decide/command.rs"), None));
        assert!(!want(Some("src/command.rs"), None));
        assert!(want(None, Some("record/")) && !want(None, Some("decide/")) && !want(Some("src/"), Some("decide/")));
    }

    #[test]
    fn what_a_run_missed_is_tried_again() {
        let file = std::env::temp_dir().join(format!("canaryrelease-tried-{}.txt", std::process::id()));
        fs::write(&file, "Caught a.rs:1:1: b\nMissed a.rs:2:1: c\nUnreached a.rs:3:1: d\nLate a.rs:4:1: e\n").unwrap();
        let found = missed(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(Vec::from_iter(found), ["a.rs:2:1: c", "a.rs:3:1: d"]);
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
