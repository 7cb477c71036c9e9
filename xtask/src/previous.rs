//! `soak faults`, and the earlier build that its upgrade begins with: taken from a commit, and built where no program is
//! given. It plays nothing itself.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::faults::Part;

use crate::inside::Faulted;
use crate::outside::{self, Place, Wanted};
use crate::programs;

/// A change of these is another build of the operator.
const OPERATOR: [&str; 8] = [
    "crates/canary-api",
    "crates/canary-core",
    "crates/canary-counters",
    "crates/canary-metrics",
    "crates/canary-operator",
    "crates/canary-stats",
    "crds",
    "deploy",
];

/// A checkout in a temporary directory, gone when this is dropped.
struct Checkout(PathBuf);

impl Drop for Checkout {
    fn drop(&mut self) {
        // Only files of a temporary directory would be left.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn faults(
    faulted: Faulted,
    from: Option<&str>,
    from_operator: Option<PathBuf>,
    write: bool,
    place: &Place,
) -> Result<bool> {
    if place.context.is_some() {
        bail!("faults need a lab: they kill its parts");
    }
    let mut arguments: Vec<OsString> = vec!["faults".into()];
    let mut checkout = None;
    if faulted.parts().contains(&Part::Upgrade) {
        let commit = match from {
            Some(commit) => git(&["rev-parse", "--short", &format!("{commit}^{{commit}}")])?,
            None => before_the_last_change()?,
        };
        let folder = check_out(&commit)?;
        let operator = match from_operator {
            Some(operator) => operator,
            None => build(&folder.0)?,
        };
        arguments.extend(["--from".into(), commit.into(), "--from-root".into(), folder.0.clone().into()]);
        arguments.extend(["--from-operator".into(), operator.into()]);
        checkout = Some(folder);
    }
    arguments.extend(faulted.arguments().into_iter().map(OsString::from));
    if write {
        arguments.extend(["--write".into(), programs::root().join("docs/soak-faults.md").into()]);
    }
    let wanted = Wanted { name: &outside::own_name("faults"), scrape_seconds: 1, detached: false };
    let ground = outside::prepare(place, &wanted)?;
    let good = ground.inside(1, &arguments)?;
    ground.end()?;
    drop(checkout);
    Ok(good)
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git").args(arguments).current_dir(programs::root()).output().context("start git")?;
    ensure!(output.status.success(), "git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn before_the_last_change() -> Result<String> {
    let last = git(&[&["log", "-1", "--format=%H", "--"][..], &OPERATOR[..]].concat())?;
    ensure!(!last.is_empty(), "no commit changed the operator: name one by --from");
    git(&["rev-parse", "--short", &format!("{last}~1")])
}

fn check_out(commit: &str) -> Result<Checkout> {
    let folder = std::env::temp_dir().join(format!("canaryrelease-{commit}-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let checkout = Checkout(folder);
    let archive = checkout.0.join("archive.tar");
    git(&["archive", "--output", &archive.display().to_string(), commit])?;
    let unpacked = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&checkout.0).status();
    ensure!(unpacked.context("start tar")?.success(), "the archive of {commit} cannot be unpacked");
    fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
    Ok(checkout)
}

/// Builds the operator of a checkout, apart from our own artefacts: cargo would take one for the other by their times.
fn build(folder: &Path) -> Result<PathBuf> {
    programs::timed("build the previous operator", || {
        let target = programs::target()?.join("previous");
        let mut command = programs::cargo();
        command.args(["build", "--release", "--package", "canary-operator", "--bins", "--target-dir"]).arg(&target);
        ensure!(command.current_dir(folder).status().context("start cargo")?.success(), "cargo build failed");
        let operator = folder.join("canary-operator");
        let built = target.join("release/canary-operator");
        fs::copy(&built, &operator).with_context(|| format!("copy {}", built.display()))?;
        Ok(operator)
    })
}
