//! The control groups that a lab's pods live under: one group per lab in every hierarchy, so that one
//! kubelet never takes another's pods for orphans. It creates and removes them; it moves no process.

use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";

/// The name of a lab's group, directly under the root of each hierarchy.
pub(crate) fn group(lab: &str) -> String {
    format!("canaryrelease-lab-{lab}")
}

/// Every hierarchy: the one of version 2, or each of version 1 (and the version-2 one beside them, if any).
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let mut found: Vec<PathBuf> = fs::read_dir(root)
        .map(|entries| entries.flatten().map(|entry| entry.path()))
        .into_iter()
        .flatten()
        // `cpu` and `cpuacct` may be links to one hierarchy; it is enough to meet it once.
        .filter(|path| path.is_dir() && !path.is_symlink() && path.join("cgroup.procs").exists())
        .collect();
    found.sort();
    found
}

/// Creates the lab's group in every hierarchy.
pub(crate) fn create(lab: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(group(lab));
        fs::create_dir_all(&group).map_err(Error::io(format!("create {}", group.display())))?;
        // A new cpuset takes no process before it has processors and memory nodes.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (hierarchy.join(file), group.join(file));
            if hierarchy.ends_with("cpuset") {
                let value = fs::read(&from).map_err(Error::io(format!("read {}", from.display())))?;
                fs::write(&to, value).map_err(Error::io(format!("write {}", to.display())))?;
            }
        }
        if hierarchy == Path::new(ROOT) {
            enable_controllers(&hierarchy)?;
            enable_controllers(&group)?;
        }
    }
    Ok(())
}

/// Version 2: children have the controllers that the parent hands down.
fn enable_controllers(group: &Path) -> Result<()> {
    let file = group.join("cgroup.controllers");
    let controllers = fs::read_to_string(&file).map_err(Error::io(format!("read {}", file.display())))?;
    let enable: String = controllers.split_whitespace().map(|name| format!("+{name} ")).collect();
    let file = group.join("cgroup.subtree_control");
    fs::write(&file, enable.trim()).map_err(Error::io(format!("write {}", file.display())))
}

/// Removes the lab's group everywhere. The processes in it have ended; the kernel may take a moment to
/// notice, so a busy group is tried again, for at most ten seconds.
pub(crate) fn remove(lab: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(group(lab));
        let deadline = Instant::now() + Duration::from_secs(10);
        while group.exists() {
            match remove_tree(&group) {
                Ok(()) => break,
                Err(error) if Instant::now() >= deadline => {
                    return Err(Error::io(format!("remove {}", group.display()))(error));
                }
                // The kernel announces an emptied group nowhere that all versions share.
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
    Ok(())
}

fn remove_tree(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.path().is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
