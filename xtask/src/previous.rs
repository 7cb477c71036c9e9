//! `soak faults`, and the earlier build that an upgrade begins with: taken from a commit, and built where no program is
//! given. It plays nothing itself.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::faults::Part;

use crate::inside::Faulted;
use crate::outside::{self, Place, Play, Wanted};
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

/// A build of the operator that an upgrade begins with.
pub(crate) struct Previous {
    commit: String,
    checkout: Checkout,
    operator: PathBuf,
}

impl Previous {
    /// That of a commit, by default the one before the last that changed the operator; built where no program is given.
    pub(crate) fn of(commit: Option<&str>, operator: Option<PathBuf>) -> Result<Self> {
        let commit = match commit {
            Some(commit) => git(&["rev-parse", "--short", &format!("{commit}^{{commit}}")])?,
            None => before_the_last_change()?,
        };
        let checkout = check_out(&commit)?;
        let operator = match operator {
            Some(operator) => operator,
            None => build(&checkout.0, &commit)?,
        };
        Ok(Self { commit, checkout, operator })
    }

    /// That of the commit before the last change, where a scenario needs it; none in a cluster that is not ours, or where
    /// the checkout's history is too short.
    pub(crate) fn of_scenarios(play: &Play) -> Result<Option<Self>> {
        if play.place.context.is_some() || !play.upgrades() {
            return Ok(None);
        }
        match before_the_last_change() {
            Ok(commit) => Self::of(Some(&commit), None).map(Some),
            Err(why) => {
                println!("the scenario upgrade is not played, for want of a build to begin with: {why:#}");
                Ok(None)
            }
        }
    }

    /// What the part inside is told of it.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let Self { commit, checkout, operator } = self;
        let words: [OsString; 6] = [
            "--from".into(),
            commit.into(),
            "--from-root".into(),
            checkout.0.clone().into(),
            "--from-operator".into(),
            operator.into(),
        ];
        words.to_vec()
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
    let upgrades = faulted.parts().contains(&Part::Upgrade);
    let previous = upgrades.then(|| Previous::of(from, from_operator)).transpose()?;
    arguments.extend(previous.iter().flat_map(Previous::arguments));
    arguments.extend(faulted.arguments().into_iter().map(OsString::from));
    if write {
        arguments.extend(["--write".into(), programs::root().join("docs/soak-faults.md").into()]);
    }
    let wanted =
        Wanted { name: &outside::own_name("faults"), scrape_seconds: 1, detached: false, metrics_server: true };
    let ground = outside::prepare(place, &wanted)?;
    let good = ground.inside(1, &arguments)?;
    ground.end()?;
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

/// Builds the operator of a checkout among our own artefacts, so that what both stand on is built once.
fn build(folder: &Path, commit: &str) -> Result<PathBuf> {
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).with_context(|| format!("read {}", manifest.display()))?;
    let apart = named_apart(&text, commit).with_context(|| format!("{} names no version", manifest.display()))?;
    fs::write(&manifest, apart).with_context(|| format!("write {}", manifest.display()))?;
    let built = programs::release_of(folder, "the previous operator", &programs::LAB)?.join("canary-operator");
    let operator = folder.join("canary-operator");
    fs::copy(&built, &operator).with_context(|| format!("copy {}", built.display()))?;
    Ok(operator)
}

/// The manifest of a workspace with a version of its own: by the same one cargo would take its crates for ours.
fn named_apart(manifest: &str, commit: &str) -> Option<String> {
    let (before, package) = manifest.split_once("[workspace.package]")?;
    let (start, rest) = package.split_once("version = \"")?;
    let (version, rest) = rest.split_once('"')?;
    Some(format!("{before}[workspace.package]{start}version = \"{version}-of-{commit}\"{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_workspaces_own_version_is_another() {
        let manifest = "[workspace]\nversion = \"9\"\n[workspace.package]\nedition = \"2024\"\nversion = \"0.1.0\"\n[dependencies]\na = { version = \"1\" }\n";
        let apart = named_apart(manifest, "0123456").unwrap();
        assert_eq!(apart, manifest.replace("0.1.0", "0.1.0-of-0123456"));
        assert_eq!(named_apart("[package]\nversion = \"1\"\n", "0123456"), None);
    }
}
