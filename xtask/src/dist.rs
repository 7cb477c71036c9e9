//! `cargo xtask dist`: the plugin as one static program for linux/amd64, in an archive with its licence, and the manifest
//! by which krew installs it. It publishes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::programs::{cargo, root, target, timed};

/// What the program is built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const NAME: &str = "kubectl-canary";

/// Where to, and from where krew will fetch it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder for the archive and the manifest
    #[arg(long, default_value = "target/dist")]
    to: PathBuf,
    /// Address of the folder that the archive will be fetched from
    #[arg(long, value_name = "URL", default_value = "https://example.com/canaryrelease")]
    url: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let program = timed("build the plugin", build)?;
    check(&program)?;
    let to = root().join(&arguments.to);
    fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
    let archive = to.join(format!("{NAME}-linux-amd64.tar.gz"));
    pack(&program, &archive)?;
    let digest = said(Command::new("sha256sum").arg(&archive))?;
    let digest = digest.split_whitespace().next().context("sha256sum says nothing")?.to_owned();
    let file = archive.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let manifest = manifest(&format!("{}/{file}", arguments.url.trim_end_matches('/')), &digest);
    let place = to.join("canary.yaml");
    fs::write(&place, manifest).with_context(|| format!("write {}", place.display()))?;
    println!("wrote {} ({digest}) and {}", archive.display(), place.display());
    println!("try it: kubectl krew install --manifest={} --archive={}", place.display(), archive.display());
    Ok(true)
}

/// Statically linked with the C library of this machine, which resolves names without plugins of its own since glibc 2.34.
fn build() -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "--package", NAME, "--target", TARGET]);
    // With a target named, build scripts and macros stay as they are.
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    ensure!(command.status().context("start cargo")?.success(), "cargo build failed");
    Ok(target()?.join(TARGET).join("release").join(NAME))
}

/// That it needs no library of the machine that it runs on, and runs.
fn check(program: &Path) -> Result<()> {
    // It says of a static program that it is none of its own, and fails.
    let output = Command::new("ldd").arg(program).output().context("start ldd")?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !text.contains("statically linked") && !text.contains("not a dynamic executable") {
        bail!("{} is not static: {text}", program.display());
    }
    let version = said(Command::new(program).arg("--version"))?;
    ensure!(version.trim() == format!("{NAME} {}", env!("CARGO_PKG_VERSION")), "--version says {version}");
    let help = said(Command::new(program).args(["completion", "bash"]))?;
    ensure!(help.contains(NAME), "completion says {help}");
    Ok(())
}

/// The same archive from the same program, whoever makes it, and when.
fn pack(program: &Path, archive: &Path) -> Result<()> {
    let folder = program.parent().context("the program has no folder")?;
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--mode=a+rX,u+w,go-w"]);
    tar.args(["--use-compress-program=gzip -9n", "--create", "--file"]).arg(archive);
    tar.arg("--directory").arg(folder).arg(NAME).arg("--directory").arg(root()).arg("LICENSE");
    said(&mut tar).map(drop)
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What krew reads.
fn manifest(uri: &str, digest: &str) -> String {
    format!(
        "\
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: canary
spec:
  version: v{version}
  homepage: https://example.com/canaryrelease
  shortDescription: Watch, command and document canary releases
  description: |
    What a release of a CanaryRelease can know before it runs, where it stands,
    the commands to it, and what is left of it: notes, report, evidence.
  caveats: |
    It needs the CanaryRelease operator in the cluster. Begin with:
      kubectl canary doctor
  platforms:
  - selector:
      matchLabels: {{os: linux, arch: amd64}}
    uri: {uri}
    sha256: {digest}
    files:
    - {{from: {NAME}, to: .}}
    - {{from: LICENSE, to: .}}
    bin: {NAME}
",
        version = env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_norway::Value;

    #[test]
    fn the_manifest_names_the_archive_its_digest_and_the_program() {
        let digest = "0".repeat(64);
        let read: Value = serde_norway::from_str(&manifest("https://host/x.tar.gz", &digest)).unwrap();
        assert_eq!(read["metadata"]["name"], "canary");
        assert_eq!(read["spec"]["version"], format!("v{}", env!("CARGO_PKG_VERSION")).as_str());
        let platform = &read["spec"]["platforms"][0];
        assert_eq!(platform["uri"], "https://host/x.tar.gz");
        assert_eq!(platform["sha256"], digest.as_str());
        assert_eq!(platform["bin"], NAME);
        assert_eq!(platform["files"][0]["from"], NAME);
    }
}
