//! One build of a crate with all its mutants, and the trial of each: the tests that come by it, the quickest first, until
//! one fails. It decides nothing of what a mutant is, and never touches the checkout: all is done in a copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::weave::{self, ASKED, Mutant, Woven};
use crate::programs;

/// Which mutant runs.
const CHOSEN: &str = "CANARYRELEASE_MUTANT";
/// Where the mutants are noted that a run comes by.
const SEEN: &str = "CANARYRELEASE_MUTANTS_SEEN";
/// Tests that are run before all others are, as long as they take no longer than this together.
const FIRST: Duration = Duration::from_secs(2);
/// Memory of a trial: a mutant may go round for ever and collect.
const MOST_BYTES: u64 = 6 << 30;

/// The module that the woven code asks, but for the names of the two variables.
const MODULE: &str = r#"//! Which mutant runs. For trials only.
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::sync::{LazyLock, Mutex};

static CHOSEN: LazyLock<usize> =
    LazyLock::new(|| std::env::var("{CHOSEN}").ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX));
static SEEN: LazyLock<Option<Mutex<(BTreeSet<usize>, File)>>> = LazyLock::new(|| {
    let file = File::create(std::env::var_os("{SEEN}")?).ok()?;
    Some(Mutex::new((BTreeSet::new(), file)))
});

/// Whether it is this one.
pub fn on(number: usize) -> bool {
    if let Some(seen) = &*SEEN
        && let Ok(mut seen) = seen.lock()
        && seen.0.insert(number)
    {
        let _unheard = writeln!(seen.1, "{number}");
    }
    *CHOSEN == number
}
"#;

/// A crate with its mutants, built, and what its tests come by.
pub(super) struct Bench {
    binaries: Vec<PathBuf>,
    folder: PathBuf,
    tests: Vec<Test>,
    /// The tests that come by a mutant, the quickest first.
    reach: BTreeMap<usize, Vec<usize>>,
    /// Mutants that do not compile.
    pub(super) unviable: BTreeSet<usize>,
    /// Mutants that can't be chosen at run time.
    pub(super) left: BTreeSet<usize>,
}

struct Test {
    binary: usize,
    name: String,
    took: Duration,
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A test failed.
    Caught,
    /// The tests took too long.
    Late,
    /// Every test passed that comes by it.
    Missed,
    /// No test comes by it.
    Unreached,
}

impl Bench {
    /// Weaves the mutants into a copy of the checkout, builds it, and runs each test once.
    pub(super) async fn new(package: &str, tests: &[&str], mutants: &[Mutant], folder: &Path) -> Result<Self> {
        let tree = folder.join("tree");
        let alone = alone()?;
        copy(&tree)?;
        let mut bench = Self {
            binaries: Vec::new(),
            folder: tree.join("crates").join(package),
            tests: Vec::new(),
            reach: BTreeMap::new(),
            unviable: BTreeSet::new(),
            left: BTreeSet::new(),
        };
        bench.declare()?;
        bench.weave(&tree, mutants)?;
        println!("{package}: its tests are built with {} mutants", bench.woven(mutants));
        let arguments = ["test", "--no-run", "--package", package].into_iter().chain(tests.iter().copied());
        let built = messages(cargo(&tree)?.args(arguments))?;
        if let Some(error) = errors(&built).next() {
            bail!("{package} does not compile: {}", error.pointer("/rendered").and_then(Value::as_str).unwrap_or("?"));
        }
        let executables = built.iter().filter_map(|message| message.get("executable")?.as_str());
        bench.binaries = executables.map(|built| kept(Path::new(built), folder)).collect::<Result<_>>()?;
        drop(alone);
        bench.look(folder).await?;
        Ok(bench)
    }

    fn woven(&self, mutants: &[Mutant]) -> usize {
        mutants.len().saturating_sub(self.left.len()).saturating_sub(self.unviable.len())
    }

    /// Adds the module to the crate that its files ask: at the end of `lib.rs`, where it moves no mutant.
    fn declare(&self) -> Result<()> {
        let source = self.folder.join("src");
        let library = source.join("lib.rs");
        let text = fs::read_to_string(&library).with_context(|| library.display().to_string())?;
        fs::write(&library, format!("{text}\n#[doc(hidden)]\npub mod {ASKED};\n"))?;
        let module = MODULE.replace("{CHOSEN}", CHOSEN).replace("{SEEN}", SEEN);
        fs::write(source.join(ASKED).with_extension("rs"), module)?;
        Ok(())
    }

    /// Writes the files with their mutants, without those that the compiler refuses.
    fn weave(&mut self, tree: &Path, mutants: &[Mutant]) -> Result<()> {
        const ROUNDS: usize = 40;
        let package = self.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let files: BTreeSet<String> = mutants.iter().map(|mutant| mutant.file.clone()).collect();
        let sources: BTreeMap<&String, String> =
            files.iter().map(|file| Ok((file, fs::read_to_string(tree.join(file))?))).collect::<Result<_>>()?;
        for round in 1..=ROUNDS {
            let mut woven: BTreeMap<&String, Woven> = BTreeMap::new();
            for (file, source) in &sources {
                let chosen = mutants.iter().enumerate().filter(|(number, mutant)| {
                    mutant.file == **file && !self.unviable.contains(number) && !self.left.contains(number)
                });
                let one = weave::weave(source, &chosen.collect()).with_context(|| (*file).clone())?;
                self.left.extend(&one.left);
                self.unviable.extend(&one.unviable);
                fs::write(tree.join(file), &one.text)?;
                woven.insert(file, one);
            }
            let said = messages(cargo(tree)?.args(["check", "--lib", "--package", &package]))?;
            let before = self.unviable.len();
            for error in errors(&said) {
                self.unviable.extend(meant(error, &woven));
            }
            let Some(error) = errors(&said).next() else { return Ok(()) };
            if self.unviable.len() == before {
                let rendered = error.pointer("/rendered").and_then(Value::as_str).unwrap_or("?");
                bail!("no mutant is to blame for what the compiler says of {package}: {rendered}");
            }
            println!("{package}: round {round}, {} mutants do not compile", self.unviable.len());
        }
        bail!("{package} does not compile after {ROUNDS} rounds")
    }

    /// Runs each test by itself: how long it takes, and which mutants it comes by.
    async fn look(&mut self, folder: &Path) -> Result<()> {
        let mut found = Vec::new();
        for (binary, path) in self.binaries.iter().enumerate() {
            let output = Command::new(path).args(["--list", "--format", "terse"]).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
            found.extend(names.map(|name| (binary, name.to_owned())));
        }
        let many = found.len();
        println!("{many} tests are run one by one, without a mutant");
        for (binary, name) in found {
            let seen = folder.join("seen");
            let _none = fs::remove_file(&seen);
            let started = Instant::now();
            let mut run = self.command(binary, &[name.as_str()], Duration::from_secs(600));
            run.env(SEEN, &seen);
            if ended(run).await? != Some(true) {
                bail!("{name} fails without any mutant");
            }
            let took = started.elapsed();
            let text = fs::read_to_string(&seen).unwrap_or_default();
            for number in text.lines().filter_map(|line| line.parse::<usize>().ok()) {
                self.reach.entry(number).or_default().push(self.tests.len());
            }
            self.tests.push(Test { binary, name, took });
        }
        for reaching in self.reach.values_mut() {
            reaching.sort_by_key(|test| self.tests.get(*test).map(|test| test.took));
        }
        Ok(())
    }

    /// Tries one mutant, with tests that take no longer than this together.
    pub(super) async fn trial(&self, number: usize, patience: Option<Duration>) -> Result<Verdict> {
        let Some(reaching) = self.reach.get(&number) else { return Ok(Verdict::Unreached) };
        let all: Vec<&Test> = reaching.iter().filter_map(|test| self.tests.get(*test)).collect();
        let tests = all.get(..patience.map_or(all.len(), |patience| within(&all, patience))).unwrap_or(&all);
        let (quick, slow) = tests.split_at(within(tests, FIRST));
        for part in [quick, slow] {
            for binary in 0..self.binaries.len() {
                let own: Vec<&&Test> = part.iter().filter(|test| test.binary == binary).collect();
                if own.is_empty() {
                    continue;
                }
                let names: Vec<&str> = own.iter().map(|test| test.name.as_str()).collect();
                let usual: Duration = own.iter().map(|test| test.took).sum();
                let mut run = self.command(binary, &names, usual * 4 + Duration::from_secs(30));
                run.env(CHOSEN, number.to_string());
                match ended(run).await? {
                    Some(true) => {}
                    Some(false) => return Ok(Verdict::Caught),
                    None => return Ok(Verdict::Late),
                }
            }
        }
        Ok(Verdict::Missed)
    }

    /// These tests of a binary, until one fails or they have computed for so long: of a clock's time a busy machine takes
    /// as much as it likes.
    fn command(&self, binary: usize, names: &[&str], most: Duration) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("prlimit");
        let seconds = most.as_secs();
        command.arg(format!("--cpu={seconds}:{}", seconds.saturating_add(5)));
        command.arg(format!("--as={MOST_BYTES}")).args(self.binaries.get(binary)).args(names);
        command.args(["--exact", "--test-threads=1", "-Z", "unstable-options", "--fail-fast"]);
        command.current_dir(&self.folder).env("RUSTC_BOOTSTRAP", "1").env("RUST_BACKTRACE", "0");
        // What one mutant makes a property test find is nothing to the next.
        command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command
    }
}

/// How many of the first tests take no longer than this together; the first is always one of them.
fn within(tests: &[&Test], limit: Duration) -> usize {
    let mut spent = Duration::ZERO;
    let quick = tests.iter().take_while(|test| {
        spent += test.took;
        spent <= limit
    });
    quick.count().max(1).min(tests.len())
}

/// Whether it ended well; `None` where it did not end in time, and was ended.
async fn ended(mut command: tokio::process::Command) -> Result<Option<bool>> {
    const SIGXCPU: i32 = 24;
    // One that waits for ever computes nothing.
    const LONGEST: Duration = Duration::from_secs(3600);
    let mut child = command.spawn().context("start a test (by prlimit)")?;
    match tokio::time::timeout(LONGEST, child.wait()).await {
        Ok(status) => {
            let status = status?;
            Ok((status.signal() != Some(SIGXCPU)).then_some(status.success()))
        }
        Err(_) => {
            child.kill().await?;
            Ok(None)
        }
    }
}

/// The mutants that an error is about.
fn meant(error: &Value, woven: &BTreeMap<&String, Woven>) -> Vec<usize> {
    let spans = error.pointer("/spans").and_then(Value::as_array).into_iter().flatten();
    let mutant = |span: &Value| {
        let file = span.get("file_name")?.as_str()?.to_owned();
        let offset = usize::try_from(span.get("byte_start")?.as_u64()?).ok()?;
        woven.get(&file)?.at(offset)
    };
    let (first, others): (Vec<&Value>, Vec<&Value>) =
        spans.partition(|span| span.get("is_primary").and_then(Value::as_bool) == Some(true));
    let found: Vec<usize> = first.into_iter().filter_map(mutant).collect();
    if found.is_empty() { others.into_iter().filter_map(mutant).collect() } else { found }
}

/// What the compiler calls an error.
fn errors(messages: &[Value]) -> impl Iterator<Item = &Value> {
    let said = messages.iter().filter_map(|message| message.get("message"));
    said.filter(|message| message.get("level").and_then(Value::as_str) == Some("error")).filter(|message| {
        // The last one counts the others.
        message.get("spans").and_then(Value::as_array).is_some_and(|spans| !spans.is_empty())
    })
}

/// Nobody else copies and builds meanwhile: cargo takes what was built of another copy for this one's where it is newer.
fn alone() -> Result<fs::File> {
    let path = lab::cache_dir()?.join("mutants.lock");
    let file = fs::File::create(&path).with_context(|| path.display().to_string())?;
    file.lock().with_context(|| path.display().to_string())?;
    Ok(file)
}

/// A program that was built, where no other run builds its own.
fn kept(built: &Path, folder: &Path) -> Result<PathBuf> {
    let place = folder.join(built.file_name().unwrap_or_default());
    fs::copy(built, &place).with_context(|| format!("copy {} to {}", built.display(), place.display()))?;
    Ok(place)
}

/// Cargo in the copy, with a target directory that the next run finds again.
fn cargo(tree: &Path) -> Result<Command> {
    let mut cargo = programs::cargo();
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", lab::cache_dir()?.join("mutants"));
    // The woven code is not to be pretty.
    cargo.env("RUSTFLAGS", "--cap-lints=allow");
    Ok(cargo)
}

/// Runs cargo, and returns what it says.
fn messages(cargo: &mut Command) -> Result<Vec<Value>> {
    let output = cargo.arg("--message-format=json").stderr(Stdio::inherit()).output().context("start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let said: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if !output.status.success() && errors(&said).next().is_none() {
        bail!("cargo failed: {}", output.status);
    }
    Ok(said)
}

/// A copy of the checkout as it is, without what git ignores.
fn copy(tree: &Path) -> Result<()> {
    let _none = fs::remove_dir_all(tree);
    let root = programs::root();
    let mut list = Command::new("git");
    list.current_dir(&root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = list.output().context("start git")?;
    for file in String::from_utf8_lossy(&output.stdout).split('\0').filter(|file| !file.is_empty()) {
        let (from, to) = (root.join(file), tree.join(file));
        if !from.is_file() {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(tree))?;
        fs::copy(&from, &to).with_context(|| format!("copy {file}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_are_run_as_long_as_they_fit() {
        let took = |millis| Test { binary: 0, name: String::new(), took: Duration::from_millis(millis) };
        let (one, two, three) = (took(100), took(200), took(400));
        let tests = [&one, &two, &three];
        for (limit, fits) in [(50, 1), (100, 1), (300, 2), (699, 2), (700, 3), (9000, 3)] {
            assert_eq!(within(&tests, Duration::from_millis(limit)), fits, "{limit}");
        }
        assert_eq!(within(&[], FIRST), 0);
    }

    #[tokio::test]
    async fn what_computes_for_too_long_is_told_from_what_fails() {
        let shell = |script: &str| {
            let mut command = tokio::process::Command::new("prlimit");
            command.args(["--cpu=1:6", "sh", "-c", script]).stdin(Stdio::null()).stderr(Stdio::null());
            ended(command)
        };
        assert_eq!(shell("exit 0").await.unwrap(), Some(true));
        assert_eq!(shell("exit 1").await.unwrap(), Some(false));
        assert_eq!(shell("kill -SEGV $$").await.unwrap(), Some(false));
        assert_eq!(shell("while :; do :; done").await.unwrap(), None);
    }
}
