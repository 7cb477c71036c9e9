//! What is known of a lab from outside: its directory, its two outermost processes, and whether they
//! still are the ones that were started. It never ends a process: a number with another start time, or
//! from before a reboot, is somebody else.

use crate::{Error, LabOptions, Result, cache_dir};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// A lab's identity. It stays true when the lab's processes are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabInfo {
    /// Name of the lab.
    pub name: String,
    /// Directory with kubeconfigs, logs and certificates.
    pub dir: PathBuf,
    /// How it was started.
    pub options: LabOptions,
    /// Process that holds the namespaces (process 1 inside), as seen from outside.
    pub init_pid: i32,
    /// When that process started, in clock ticks since boot.
    pub init_start: u64,
    /// The process around it: when it ends, the lab ends.
    pub outer_pid: i32,
    /// When that process started, in clock ticks since boot.
    pub outer_start: u64,
    /// The boot of the machine in which it was started.
    pub boot: String,
    /// When it was started, in seconds since 1970.
    pub since: u64,
}

impl LabInfo {
    /// Whether the lab's processes run.
    pub fn is_alive(&self) -> bool {
        self.boot == boot_id() && start_time(self.init_pid) == Some(self.init_start)
    }

    pub(crate) fn is_outer_alive(&self) -> bool {
        self.boot == boot_id() && start_time(self.outer_pid) == Some(self.outer_start)
    }
}

/// Parses the start time (field 22) and parent (field 4) out of `/proc/PID/stat`. A program's name may
/// hold spaces and parentheses, so fields count from the last `)`. A process that has ended and only
/// waits to be collected counts as gone.
fn parse_stat(stat: &str) -> Option<(i32, u64)> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

pub(crate) fn start_time(pid: i32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|(_, start)| start)
}

pub(crate) fn parent(pid: i32) -> Option<i32> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|(parent, _)| parent)
}

pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Where labs keep their directories.
pub(crate) fn labs_dir() -> Result<PathBuf> {
    Ok(cache_dir()?.join("labs"))
}

/// The directory of a lab, for a name that is fit to be one.
pub(crate) fn lab_dir(name: &str) -> Result<PathBuf> {
    check_name(name)?;
    Ok(labs_dir()?.join(name))
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 32 || !name.chars().all(fit) || name.starts_with('-') || name.ends_with('-') {
        return Err(Error::Usage(format!(
            "{name:?} is no name: use lower-case letters, digits and `-` within, at most 32 characters"
        )));
    }
    Ok(())
}

/// The recorded state of a lab, alive or not; none if there is no such lab or it never got that far.
pub(crate) fn read(name: &str) -> Result<Option<LabInfo>> {
    read_dir(&lab_dir(name)?)
}

fn read_dir(dir: &Path) -> Result<Option<LabInfo>> {
    let file = dir.join("lab.json");
    match fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| Error::malformed(file.display(), e)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("read {}", file.display()))(error)),
    }
}

/// Writes a file as a whole or not at all.
pub(crate) fn write_whole(file: &Path, content: &[u8]) -> Result<()> {
    let unfinished = file.with_extension("unfinished");
    fs::write(&unfinished, content).map_err(Error::io(format!("write {}", unfinished.display())))?;
    fs::rename(&unfinished, file).map_err(Error::io(format!("write {}", file.display())))
}

pub(crate) fn list() -> Result<Vec<LabInfo>> {
    let labs = labs_dir()?;
    let entries = match fs::read_dir(&labs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("read {}", labs.display()))(error)),
    };
    let mut running = Vec::new();
    for entry in entries.flatten() {
        if !entry.path().is_dir() {
            continue;
        }
        match read_dir(&entry.path())? {
            Some(info) if info.is_alive() => running.push(info),
            // Whoever starts or ends that lab right now holds its lock; then it is not ours to clean.
            _ => crate::up::clean_remains(&entry.file_name().to_string_lossy())?,
        }
    }
    running.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(running)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn info() -> LabInfo {
        let own = std::process::id() as i32;
        let start = start_time(own).unwrap();
        LabInfo {
            name: "x".into(),
            dir: "/x".into(),
            options: LabOptions::named("x"),
            init_pid: own,
            init_start: start,
            outer_pid: own,
            outer_start: start,
            boot: boot_id(),
            since: 0,
        }
    }

    #[test]
    fn a_process_is_known_by_number_start_and_boot_together() {
        assert!(info().is_alive());
        assert!(!LabInfo { init_start: 1, ..info() }.is_alive());
        assert!(!LabInfo { boot: "earlier".into(), ..info() }.is_alive());
    }

    #[test]
    fn a_program_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let tail = "S 7 4 4 0 -1 1 2 3 4 5 6 7 8 9 20 0 1 0 4711 5 6";
        assert_eq!(parse_stat(&format!("4 (a) b (c)) {tail}")), Some((7, 4711)));
        assert_eq!(parse_stat(&format!("4 (dead) {}", tail.replacen('S', "Z", 1))), None);
        assert_eq!(parse_stat("4 (cut"), None);
    }

    #[test]
    fn a_state_file_survives_a_round_trip() {
        let text = serde_json::to_vec(&info()).unwrap();
        assert_eq!(serde_json::from_slice::<LabInfo>(&text).unwrap(), info());
    }

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for name in ["", "../x", "A", "a/b", "-a", "a-", &"a".repeat(33)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("demo-1").is_ok());
    }
}
