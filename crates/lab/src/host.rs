//! What this machine must be and have. It decides whether a lab can run here, and installs missing
//! Debian packages; it never changes anything else on the machine.

use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that the lab takes from the machine, with the Debian package of each.
const PROGRAMS: [(&str, &str); 9] = [
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setsid", "util-linux"),
    ("ldd", "libc-bin"),
];

/// A lab has its own of these.
const HIDDEN: [&str; 5] = ["/run", "/var/run", "/var/lib", "/var/log", "/proc"];

/// Where binaries and the state of labs are kept: `$CANARYRELEASE_CACHE`, else
/// `$XDG_CACHE_HOME/canaryrelease`, else `~/.cache/canaryrelease`.
///
/// # Errors
/// If none of the three is set to an absolute path.
pub fn cache_dir() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let dir = from("CANARYRELEASE_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|dir| dir.join("canaryrelease")))
        .or_else(|| from("HOME").map(|dir| dir.join(".cache/canaryrelease")));
    match dir {
        Some(dir) if HIDDEN.iter().any(|hidden| dir.starts_with(hidden)) => Err(Error::Host(format!(
            "the cache {} would be hidden inside a lab: set CANARYRELEASE_CACHE to a directory outside {}",
            dir.display(),
            HIDDEN.join(", ")
        ))),
        Some(dir) if dir.is_absolute() => Ok(dir),
        _ => Err(Error::Host(
            "no place for the lab's binaries: set HOME or CANARYRELEASE_CACHE to an absolute path".into(),
        )),
    }
}

/// Whether a lab can run here: Linux, root, and the programs it takes from the machine, which are
/// installed if this is Debian.
///
/// # Errors
/// [`Error::Host`] with one sentence that says what is missing.
pub fn check_host() -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Err(Error::Host(
            "the lab needs Linux: on another system use an existing cluster with --context NAME".into(),
        ));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Host(
            "the lab needs root for its namespaces: run as root, or use an existing cluster with --context NAME".into(),
        ));
    }
    let missing = missing_packages(|program| find(program).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !Path::new("/etc/debian_version").exists() || find("apt-get").is_none() {
        return Err(Error::Host(format!("the lab needs programs of these packages, please install them: {list}")));
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
        crate::run(&mut command, None)
    };
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    apt(&["update"]).and_then(|_| apt(&install)).map(|_| ()).map_err(|error| {
        Error::Host(format!("the lab needs these packages, and apt-get cannot install them ({error}): {list}"))
    })
}

fn missing_packages(present: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut missing: Vec<&str> = PROGRAMS.iter().filter(|(program, _)| !present(program)).map(|(_, p)| *p).collect();
    missing.dedup();
    missing
}

/// A program on the search path, and in the places of an administrator's programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(admin).map(|dir| dir.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once() {
        assert_eq!(missing_packages(|p| !matches!(p, "nsenter" | "unshare" | "runc")), ["runc", "util-linux"]);
        assert!(missing_packages(|_| true).is_empty());
    }
}
