//! Process 1 of a lab: it makes the lab's own mounts, records who it is, starts the supervisor and
//! collects every process that loses its parent. When it ends, or is killed, the kernel ends all
//! processes of the lab and drops its mounts and network. It decides nothing else.

use crate::{Error, LabInfo, LabOptions, Result, state, supervise};
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::process::{WaitOptions, wait};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Settings of the whole machine that the kubelet changes at its start.
const SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

pub(crate) const VERB: &str = "lab-process-init";

pub(crate) fn run(dir: &Path) -> Result<()> {
    record(dir)?;
    own_mounts()?;
    let program = std::env::current_exe().map_err(Error::io("find this program"))?;
    let mut command = Command::new(program);
    let supervisor = command.arg(supervise::VERB).arg(dir).spawn().map_err(Error::io("start the supervisor"))?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_pid().cast_unsigned() == supervisor.id() => {
                return match status.exit_status() {
                    Some(0) => Ok(()),
                    _ => Err(Error::Host(format!("the supervisor ended: {status:?}"))),
                };
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::io("wait for processes")(error.into())),
        }
    }
}

/// Makes the places where components write by habit the lab's own, in memory.
fn own_mounts() -> Result<()> {
    let tmpfs = ("tmpfs", Some(c"mode=0755"));
    for (place, (kind, data)) in [("/proc", ("proc", None)), ("/run", tmpfs), ("/var/log", tmpfs), ("/var/lib", tmpfs)]
    {
        let mounted = mount("lab", place, kind, MountFlags::NOSUID | MountFlags::NODEV, data);
        mounted.map_err(|error| Error::io(format!("mount {kind} on {place}"))(error.into()))?;
    }
    // The kubelet sets these for the whole machine: let it set a copy.
    for name in SETTINGS {
        let real = Path::new("/proc/sys").join(name);
        let copy = Path::new("/run").join(name.replace('/', "."));
        // A kernel without the setting has none to protect.
        let Ok(value) = fs::read(&real) else { continue };
        fs::write(&copy, value).map_err(Error::io(format!("write {}", copy.display())))?;
        mount_bind(&copy, &real).map_err(|error| Error::io(format!("cover {}", real.display()))(error.into()))?;
    }
    Ok(())
}

/// Writes the lab's identity, while `/proc` still shows the processes as they are seen from outside.
fn record(dir: &Path) -> Result<()> {
    let unknown = || Error::Host("/proc does not tell this process's number outside the lab".into());
    let own = fs::read_link("/proc/self").map_err(Error::io("read /proc/self"))?;
    let init_pid: i32 = own.to_string_lossy().parse().map_err(|_| unknown())?;
    let outer_pid = state::parent(init_pid).ok_or_else(unknown)?;
    let options = fs::read(dir.join("options.json")).map_err(Error::io("read options.json"))?;
    let options: LabOptions =
        serde_json::from_slice(&options).map_err(|error| Error::malformed("options.json", error))?;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let info = LabInfo {
        name: options.name.clone(),
        dir: dir.to_owned(),
        options,
        init_pid,
        init_start: state::start_time(init_pid).ok_or_else(unknown)?,
        outer_pid,
        outer_start: state::start_time(outer_pid).ok_or_else(unknown)?,
        boot: state::boot_id(),
        since: since.unwrap_or_default().as_secs(),
    };
    let text = serde_json::to_vec_pretty(&info).map_err(|error| Error::malformed("lab.json", error))?;
    state::write_whole(&dir.join("lab.json"), &text)
}
