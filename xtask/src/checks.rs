//! `cargo xtask test`: everything that a change must pass, the cheap first. What fails is shown with
//! the end of what it said; all the rest is tried all the same, and the last line counts.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use policy_tests::server::ApiServer;

use crate::outside::{self, Play, Wanted};
use crate::previous::Previous;
use crate::{faults, generate, programs};

/// Lines of a failed command that are shown.
const SHOWN: usize = 80;

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed = self.passed.saturating_add(other.passed);
        self.failed = self.failed.saturating_add(other.failed);
    }

    fn one(good: bool) -> Self {
        Self { passed: u64::from(good), failed: u64::from(!good) }
    }
}

/// Set in the copy of this program that runs the tests.
const COPY: &str = "CANARYRELEASE_XTASK_COPY";

pub(crate) fn test(play: &Play) -> Result<bool> {
    let Some(copy) = std::env::var_os(COPY) else { return as_copy() };
    let good = all(play);
    // Only a file of a temporary directory would be left.
    let _ = fs::remove_file(copy);
    good
}

/// `cargo test` may write this very program anew while it runs, and the lab is started by path.
fn as_copy() -> Result<bool> {
    use std::os::unix::process::CommandExt as _;
    let copy = std::env::temp_dir().join(format!("canaryrelease-xtask-{}", std::process::id()));
    fs::copy("/proc/self/exe", &copy).with_context(|| format!("copy this program to {}", copy.display()))?;
    Err(Command::new(&copy).args(std::env::args_os().skip(1)).env(COPY, &copy).exec())
        .context("start the copy of this program")
}

fn all(play: &Play) -> Result<bool> {
    let started = Instant::now();
    let mut tally = Tally::default();
    // Go builds the lab while Rust compiles; the policies are tried as soon as it is there.
    let with_lab = play.place.context.is_none()
        && lab::check_host().map_err(|error| println!("no lab on this machine: {error}")).is_ok();
    let policies = with_lab.then(|| std::thread::spawn(policies));

    tally.add(check("format", || command(programs::cargo().args(["fmt", "--all", "--check"]))));
    tally.add(check("generated files", || Ok(generate::run(true).err().map(|error| format!("{error:#}")))));
    tally.add(check("the core needs no cluster", core_is_pure));
    tally.add(check("clippy", || {
        command(programs::cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    }));
    tally.add(unit_tests());
    tally.add(check("faults in the simulated cluster", faults::sample));
    tally.add(check("evidence with a real registry and a real bucket", evidence));
    tally.add(check("dependencies: licences, sources, bans", dependencies));
    // Ours last: each build leaves its programs in the same place.
    let previous = if with_lab { Previous::of_scenarios(play) } else { Ok(None) };
    let built = previous.and_then(|previous| Ok((programs::build()?, previous)));
    if let Some(policies) = policies {
        tally.add(policies.join().unwrap_or_else(|_| Tally::one(false)));
    }
    match built {
        Err(error) => {
            println!("FAIL build: {error:#}");
            tally.failed = tally.failed.saturating_add(1);
        }
        Ok((built, previous)) if with_lab || play.place.context.is_some() => {
            tally.add(scenarios(built, previous.as_ref(), play)?);
        }
        Ok(_) => {
            println!("FAIL scenarios: they need the lab, or --context");
            tally.failed = tally.failed.saturating_add(1);
        }
    }
    println!("all of it took {:.0} s", started.elapsed().as_secs_f64());
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// What may be among the dependencies: `deny.toml`.
fn dependencies() -> Result<Option<String>> {
    let deny = programs::tool("cargo-deny", "0.20.2")?;
    // It reads the manifests of all crates, those of other platforms too, which no build here has fetched.
    if let Some(wrong) = command(programs::cargo().args(["fetch", "--locked"]))? {
        return Ok(Some(wrong));
    }
    command(Command::new(&deny).current_dir(programs::root()).args([
        "--offline",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}

/// Runs one check: `None` is good, else what is wrong.
fn check(name: &str, work: impl FnOnce() -> Result<Option<String>>) -> Tally {
    let started = Instant::now();
    println!("{name} ...");
    let wrong = work().unwrap_or_else(|error| Some(format!("{error:#}")));
    let mark = if wrong.is_none() { "ok  " } else { "FAIL" };
    println!("{mark} {name} {:.1} s", started.elapsed().as_secs_f64());
    if let Some(wrong) = &wrong {
        println!("{wrong}");
    }
    Tally::one(wrong.is_none())
}

fn command(command: &mut Command) -> Result<Option<String>> {
    let output = command.output().context("start it")?;
    Ok((!output.status.success()).then(|| {
        tail(&format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }))
}

pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(SHOWN);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// What the tests that failed said, of all that `cargo test` printed; its end where it says of none.
fn failures(out: &str) -> String {
    let mut said = Vec::new();
    let mut within = false;
    for line in out.lines() {
        within = (within || line == "failures:") && !line.starts_with("test result:");
        if within {
            said.push(line);
        }
    }
    if said.is_empty() { tail(out) } else { said.join("\n") }
}

/// The core decides without I/O, so nothing that does I/O may be among its dependencies.
fn core_is_pure() -> Result<Option<String>> {
    let output = programs::cargo()
        .args(["tree", "--package", "canary-core", "--edges", "normal", "--prefix", "none"])
        .output()
        .context("cargo tree")?;
    if !output.status.success() {
        return Ok(Some(tail(&String::from_utf8_lossy(&output.stderr))));
    }
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: Vec<&str> = ["kube-client", "kube-runtime", "tokio", "hyper", "reqwest"]
        .into_iter()
        .filter(|forbidden| tree.lines().any(|line| line.split_whitespace().next() == Some(forbidden)))
        .collect();
    Ok((!found.is_empty()).then(|| format!("canary-core depends on {}: it must decide without I/O", found.join(", "))))
}

/// Unit and property tests, counted one by one.
fn unit_tests() -> Tally {
    let started = Instant::now();
    println!("unit and property tests ...");
    let output = match programs::cargo().args(["test", "--quiet", "--workspace", "--no-fail-fast"]).output() {
        Ok(output) => output,
        Err(error) => {
            println!("FAIL cargo test: {error}");
            return Tally::one(false);
        }
    };
    let out = String::from_utf8_lossy(&output.stdout);
    let number = |line: &str, word: &str| {
        let words: Vec<&str> = line.split([' ', ';', '.']).filter(|part| !part.is_empty()).collect();
        words
            .windows(2)
            .find(|pair| pair.get(1) == Some(&word))
            .and_then(|pair| pair.first()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let mut tally = Tally::default();
    for line in out.lines().filter(|line| line.starts_with("test result:")) {
        tally.add(Tally { passed: number(line, "passed"), failed: number(line, "failed") });
    }
    if !output.status.success() {
        // A test that does not compile fails too.
        tally.failed = tally.failed.max(1);
        println!("{}\n{}", failures(&out), tail(&String::from_utf8_lossy(&output.stderr)));
    }
    let mark = if tally.failed == 0 { "ok  " } else { "FAIL" };
    println!(
        "{mark} unit and property tests: {} passed, {} failed, {:.1} s",
        tally.passed,
        tally.failed,
        started.elapsed().as_secs_f64()
    );
    tally
}

/// `kubectl canary evidence` against servers that are built into the lab's cache where they are missing.
fn evidence() -> Result<Option<String>> {
    let servers = lab::build_servers(&mut |step| {
        if step.state != lab::ProgressState::Present {
            println!("{step}");
        }
    })?;
    let mut tests = programs::cargo();
    for (variable, name) in [("CANARYRELEASE_REGISTRY", "registry"), ("CANARYRELEASE_S3", "versitygw")] {
        tests.env(variable, servers.path(name).with_context(|| format!("there is no {name}"))?);
    }
    let package = ["test", "--quiet", "--package", "kubectl-canary", "--test", "servers", "--", "--ignored"];
    command(tests.args(package))
}

/// The programs of an API server in one directory: the lab's cache keeps each in its own.
fn together(binaries: &lab::Binaries) -> Result<std::path::PathBuf> {
    let folder = std::env::temp_dir().join(format!("canaryrelease-policies-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for name in ["etcd", "kube-apiserver", "kubectl"] {
        let program = binaries.path(name).with_context(|| format!("the lab has no {name}"))?;
        std::os::unix::fs::symlink(program, folder.join(name)).with_context(|| format!("link {name}"))?;
    }
    Ok(folder)
}

/// [`policies`] without the rest: whether all of it is as it must be.
pub(crate) fn only_policies() -> bool {
    let Tally { passed, failed } = policies();
    println!("{passed} passed, {failed} failed");
    failed == 0
}

/// Builds the lab and tries every rule of the admission policies on an API server of their own.
fn policies() -> Tally {
    let tried = || -> Result<Tally> {
        // None of the quick scenarios autoscales.
        let options = lab::LabOptions { metrics_server: false, ..lab::LabOptions::default() };
        let binaries = lab::build(&options, &mut |step| {
            if step.state != lab::ProgressState::Present {
                println!("{step}");
            }
        })?;
        let folder = together(&binaries)?;
        let server = ApiServer::start(&folder)?;
        let mut tally =
            check("the simulated API server answers as a real one", || contract(&server, &folder.join("kubectl")));
        let rows = Instant::now();
        let report = policy_tests::run_alone(&server.kubeconfig(), &folder.join("kubectl"));
        let rows = rows.elapsed();
        // They leave the policies installed.
        if report.is_ok() {
            tally.add(check("the simulated policies do as the real ones", || {
                ask(&server, &folder.join("kubectl"), "policies")
            }));
        }
        drop(server);
        // Links only, in a temporary directory.
        let _ = fs::remove_dir_all(&folder);
        let report = report?;
        let failed = report.failures().count();
        let passed = report.outcomes.len().saturating_sub(failed);
        if !report.passed() {
            for outcome in report.failures() {
                println!("FAIL policy: {} ({}): {:?}", outcome.promise, outcome.what, outcome.seen);
            }
        }
        println!(
            "{} admission policies: {passed} rows passed, {failed} failed, {:.1} s",
            if report.passed() { "ok  " } else { "FAIL" },
            rows.as_secs_f64()
        );
        tally.add(Tally { passed: u64::try_from(passed)?, failed: u64::try_from(failed)? });
        Ok(tally)
    };
    tried().unwrap_or_else(|error| {
        println!("FAIL admission policies: {error:#}");
        Tally::one(false)
    })
}

/// Asks a real API server what `canary-world` asks its own in its tests.
fn contract(server: &ApiServer, kubectl: &std::path::Path) -> Result<Option<String>> {
    for arguments in [
        &["apply", "--server-side", "-f", "crds/"][..],
        &["wait", "--for=condition=Established", "--timeout=30s", "-f", "crds/"],
    ] {
        if let Some(wrong) = command(administer(server, kubectl).args(arguments))? {
            return Ok(Some(wrong));
        }
    }
    ask(server, kubectl, "contract")
}

/// Has `canary-world` ask a real API server what it asks its own, in a namespace of that name.
fn ask(server: &ApiServer, kubectl: &std::path::Path, what: &str) -> Result<Option<String>> {
    if let Some(wrong) = command(administer(server, kubectl).args(["create", "namespace", what]))? {
        return Ok(Some(wrong));
    }
    let world = ["run", "--quiet", "--package", "canary-world", "--", what];
    command(programs::cargo().args(world).arg(server.kubeconfig()).arg(what))
}

fn administer(server: &ApiServer, kubectl: &std::path::Path) -> Command {
    let mut command = Command::new(kubectl);
    command.current_dir(programs::root()).arg("--kubeconfig").arg(server.kubeconfig());
    command
}

fn scenarios(built: programs::Programs, previous: Option<&Previous>, play: &Play) -> Result<Tally> {
    let ground = outside::start(
        built,
        &play.place,
        &Wanted { name: &outside::own_name("test"), scrape_seconds: 1, detached: play.keep, metrics_server: false },
    )?;
    let count = std::env::temp_dir().join(format!("canaryrelease-test-{}", std::process::id()));
    let mut arguments: Vec<std::ffi::OsString> =
        vec!["scenarios".into(), "--quick".into(), "--count".into(), count.clone().into()];
    arguments.extend(play.arguments());
    arguments.extend(previous.into_iter().flat_map(Previous::arguments));
    let good = ground.inside(1, &arguments);
    let counted = fs::read_to_string(&count).unwrap_or_default();
    let _ = fs::remove_file(&count);
    let numbers: Vec<u64> = counted.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let good = match good {
        Ok(good) => good,
        Err(error) => {
            println!("FAIL scenarios: {error:#}");
            false
        }
    };
    outside::leave(ground, play.keep && !good)?;
    Ok(match numbers.as_slice() {
        [passed, failed] => Tally { passed: *passed, failed: *failed },
        _ => Tally::one(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_failed_is_named_however_much_comes_after_it() {
        let out = format!(
            "running 2 tests\nF.\nfailures:\n\n---- it_holds stdout ----\nit does not\n\nfailures:\n    it_holds\n\ntest result: FAILED. 1 passed; 1 failed\n{}",
            "running 0 tests\n".repeat(500)
        );
        assert_eq!(failures(&out), "failures:\n\n---- it_holds stdout ----\nit does not\n\nfailures:\n    it_holds\n");
        assert!(failures("error: could not compile").contains("could not compile"));
    }
}
