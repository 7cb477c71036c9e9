//! Programs of this workspace that the lab needs, and cargo's own that checks need: where they are, and how they are
//! built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// The checkout that this program was built in.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The same cargo that runs us, in the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Says what begins, and when it is done; for a person who waits.
pub(crate) fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("{what} ...");
    let started = Instant::now();
    let done = work().with_context(|| what.to_owned())?;
    println!("{what}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(done)
}

/// What a scenario needs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) operator: PathBuf,
    pub(crate) shop: PathBuf,
}

/// The packages that they are built from.
pub(crate) const LAB: [&str; 3] = ["canary-operator", "lab-app", "lab"];

/// Builds them, optimized, as they would be released.
pub(crate) fn build() -> Result<Programs> {
    let folder = release("the operator and the demo shop", &LAB)?;
    Ok(Programs { operator: folder.join("canary-operator"), shop: folder.join("shop") })
}

/// Builds the programs of these packages, optimized; they are in the folder that it returns.
pub(crate) fn release(what: &str, packages: &[&str]) -> Result<PathBuf> {
    release_of(&root(), what, packages)
}

/// The same of another checkout, into the same folder.
pub(crate) fn release_of(checkout: &Path, what: &str, packages: &[&str]) -> Result<PathBuf> {
    timed(&format!("build {what}"), || {
        let (target, mut command) = (target()?, cargo());
        command.current_dir(checkout).args(["build", "--release", "--bins", "--target-dir"]).arg(&target);
        command.args(packages.iter().flat_map(|package| ["--package", package]));
        // Warnings and errors are cargo's to show; its list of crates is a good progress display.
        if !command.status().context("start cargo")?.success() {
            bail!("cargo build failed");
        }
        Ok(target.join("release"))
    })
}

/// Cargo's target directory.
pub(crate) fn target() -> Result<PathBuf> {
    let output = cargo().args(["metadata", "--format-version=1", "--no-deps"]).output().context("start cargo")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    metadata
        .pointer("/target_directory")
        .and_then(serde_json::Value::as_str)
        .map(PathBuf::from)
        .context("cargo metadata names no target directory")
}

/// A tool of cargo's, in the version that is known to work: installed into the cache where it is missing.
pub(crate) fn tool(name: &str, version: &str) -> Result<PathBuf> {
    let tools = lab::cache_dir()?.join("tools");
    let tool = tools.join("bin").join(name);
    if !tool.exists() {
        println!("{name} {version} is built once (a few minutes) ...");
        let mut install = cargo();
        // Not optimized: it works for seconds, and is sooner there.
        install
            .args(["install", "--quiet", "--locked", "--debug", "--root"])
            .arg(&tools)
            .arg(format!("{name}@{version}"));
        // Not into the project's own target directory, which it would grow for nothing.
        if !install.env_remove("CARGO_TARGET_DIR").status().context("start cargo")?.success() {
            bail!("{name} {version} can't be installed");
        }
    }
    Ok(tool)
}
