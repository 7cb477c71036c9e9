//! Starts and ends labs from outside. It decides when a lab counts as up, and what of an ended one is
//! left to clean; the lab's inside is the supervisor's.

use crate::control::{self, ComponentState, Phase};
use crate::{
    Error, Lab, LabInfo, LabOptions, Progress, ProgressState, Result, build, cgroup, config, host, init, pki, state,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Every wait within has a deadline of its own; this one is for a supervisor that is stuck.
const START_DEADLINE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(50);

/// Set by [`crate::hook`]: this program can be a lab's supervisor.
pub(crate) static HOOKED: AtomicBool = AtomicBool::new(false);

pub(crate) fn up(options: &LabOptions, progress: &mut dyn FnMut(&Progress)) -> Result<Lab> {
    state::check_name(&options.name)?;
    host::check_host()?;
    let supervisor = supervisor()?;
    let binaries = build(options, &mut |step| {
        if step.state != ProgressState::Present {
            progress(step);
        }
    })?;
    let dir = state::lab_dir(&options.name)?;
    let _lock = lock(&options.name)?.ok_or_else(|| Error::AlreadyUp(options.name.clone()))?;
    if state::read(&options.name)?.is_some_and(|info| info.is_alive()) {
        return Err(Error::AlreadyUp(options.name.clone()));
    }
    clean(&options.name, &dir)?;
    prepare(options, &dir, &binaries)?;
    let mut child = spawn(options, &dir, &supervisor)?;
    match wait_until_ready(&dir, &mut child, progress) {
        Ok(info) => Ok(Lab { info, lifeline: child.stdin.take() }),
        Err(error) => {
            end(&dir, Some(&mut child))?;
            let error = keep_logs(&options.name, &dir, error);
            clean(&options.name, &dir)?;
            Err(error)
        }
    }
}

/// The program that becomes the lab's supervisor: this one if it called [`crate::hook`], else `lab` beside it.
fn supervisor() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("CANARYRELEASE_LAB") {
        return Ok(PathBuf::from(program));
    }
    let own = std::env::current_exe().map_err(Error::io("find this program"))?;
    if HOOKED.load(Ordering::Relaxed) {
        return Ok(own);
    }
    let beside = own.ancestors().skip(1).take(2).map(|dir| dir.join("lab")).find(|program| program.is_file());
    beside.ok_or_else(|| {
        Error::Usage(format!(
            "{} starts a lab, but did not call lab::hook() first and has no program `lab` beside it: \
             build it (`cargo build -p lab`) or name it in CANARYRELEASE_LAB",
            own.display()
        ))
    })
}

/// Holds off others who start or end the same lab. None if someone holds it already.
fn lock(name: &str) -> Result<Option<fs::File>> {
    let file = state::labs_dir()?.join(format!("{name}.lock"));
    let parent = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(Error::io(format!("create {}", parent.display())))?;
    let opened = fs::File::create(&file).map_err(Error::io(format!("create {}", file.display())))?;
    match opened.try_lock() {
        Ok(()) => Ok(Some(opened)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(Error::io(format!("lock {}", file.display()))(error)),
    }
}

fn prepare(options: &LabOptions, dir: &Path, binaries: &crate::Binaries) -> Result<()> {
    for sub in ["", "bin", "config/cni", "logs"] {
        let sub = dir.join(sub);
        fs::create_dir_all(&sub).map_err(Error::io(format!("create {}", sub.display())))?;
    }
    // Keys and certificates are within.
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(dir, private).map_err(Error::io(format!("protect {}", dir.display())))?;
    for (name, path) in binaries.iter() {
        let link = dir.join("bin").join(name);
        std::os::unix::fs::symlink(path, &link).map_err(Error::io(format!("link {}", link.display())))?;
    }
    let layout = config::Layout::new(dir, options);
    for (name, text) in layout.files() {
        let file = dir.join(name);
        fs::write(&file, text).map_err(Error::io(format!("write {}", file.display())))?;
    }
    let text = serde_json::to_vec_pretty(options).map_err(|error| Error::malformed("options", error))?;
    state::write_whole(&dir.join("options.json"), &text)?;
    pki::create(dir, config::NODE)
}

fn spawn(options: &LabOptions, dir: &Path, supervisor: &Path) -> Result<Child> {
    let file = dir.join("logs/supervisor.log");
    let log = fs::File::create(&file).map_err(Error::io(format!("create {}", file.display())))?;
    let errors = log.try_clone().map_err(Error::io(format!("open {} twice", file.display())))?;
    // A session of its own: a Ctrl-C or a closed terminal does not reach the lab.
    let mut command = Command::new("setsid");
    command.args(["unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child"]);
    command.arg("--").arg(supervisor).arg(init::VERB).arg(dir).current_dir("/");
    command.stdin(if options.detached { Stdio::null() } else { Stdio::piped() }).stdout(log).stderr(errors);
    command.spawn().map_err(Error::io("start the lab's namespaces"))
}

/// Follows the start until the supervisor says that all is ready, or that something failed.
fn wait_until_ready(dir: &Path, child: &mut Child, progress: &mut dyn FnMut(&Progress)) -> Result<LabInfo> {
    let deadline = Instant::now() + START_DEADLINE;
    let mut told = BTreeSet::new();
    loop {
        if let Some(status) = child.try_wait().map_err(Error::io("look after the supervisor"))? {
            let log = tail(&dir.join("logs/supervisor.log"), 15);
            return Err(control::failed(dir, "supervisor".into(), format!("ended ({status}):\n{log}")));
        }
        // Until the supervisor listens there is nobody to ask.
        if let Ok((phase, components)) = control::status(dir) {
            let of = components.len();
            for component in components.into_iter().filter(|c| c.state == ComponentState::Ready) {
                if told.insert(component.name.clone()) {
                    let state = ProgressState::Done(Duration::from_millis(component.ready_after_ms));
                    progress(&Progress { name: component.name, number: told.len(), of, state });
                }
            }
            match phase {
                Phase::Starting => {}
                Phase::Failed { component, reason } => return Err(control::failed(dir, component, reason)),
                Phase::Ready => {
                    let name = dir.file_name().unwrap_or_default().to_string_lossy();
                    return state::read(&name)?.ok_or_else(|| Error::NotUp(name.into_owned()));
                }
            }
        }
        if Instant::now() >= deadline {
            let reason = format!("is not ready after {} s", START_DEADLINE.as_secs());
            return Err(control::failed(dir, "supervisor".into(), reason));
        }
        std::thread::sleep(POLL);
    }
}

/// The last lines of a log.
pub(crate) fn tail(file: &Path, lines: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

pub(crate) fn down(name: &str) -> Result<bool> {
    let dir = state::lab_dir(name)?;
    if !dir.exists() {
        return Ok(false);
    }
    let Some(_lock) = lock(name)? else {
        return Err(Error::Usage(format!("lab {name} is being started or ended by someone else: wait for that")));
    };
    end(&dir, None)?;
    clean(name, &dir)?;
    Ok(true)
}

/// Cleans what a crashed lab left, unless someone starts or ends it right now.
pub(crate) fn clean_remains(name: &str) -> Result<()> {
    let Ok(dir) = state::lab_dir(name) else { return Ok(()) };
    let Some(_lock) = lock(name)? else { return Ok(()) };
    if state::read(name)?.is_some_and(|info| info.is_alive()) {
        return Ok(());
    }
    clean(name, &dir)
}

/// Ends the lab's outermost processes, and with them all others, and waits until they are gone.
fn end(dir: &Path, child: Option<&mut Child>) -> Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(info) = state::read(&name)? {
        if info.is_alive() {
            end_process(info.init_pid, "process 1", || info.is_alive())?;
        }
        // It ends by itself after process 1; a lab started by this very process it must be collected by us.
        if child.is_none() && info.is_outer_alive() {
            end_process(info.outer_pid, "the outer process", || info.is_outer_alive())?;
        }
    }
    if let Some(child) = child {
        child.kill().map_err(Error::io("end the outer process"))?;
        child.wait().map_err(Error::io("wait for the outer process"))?;
    }
    Ok(())
}

fn end_process(pid: i32, what: &str, is_it: impl Fn() -> bool) -> Result<()> {
    let doing = || format!("end {what} of the lab ({pid})");
    let Some(number) = Pid::from_raw(pid) else { return Ok(()) };
    let handle = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(Error::io(doing())(error.into())),
    };
    // The handle stands for one process for ever; if that is the lab's now, it will be when it is killed.
    if !is_it() {
        return Ok(());
    }
    match pidfd_send_signal(&handle, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(Error::io(doing())(error.into())),
    }
    let deadline = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
    let mut waited = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    match rustix::event::poll(&mut waited, Some(&deadline)) {
        Ok(0) => Err(Error::io(doing())(std::io::ErrorKind::TimedOut.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(Error::io(doing())(error.into())),
    }
}

fn clean(name: &str, dir: &Path) -> Result<()> {
    cgroup::remove(name)?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}

/// What a failed start logged is kept beside the labs, the last one of each name, and the error says where.
fn keep_logs(name: &str, dir: &Path, error: Error) -> Error {
    let keep = || -> std::io::Result<PathBuf> {
        let labs = state::labs_dir().map_err(std::io::Error::other)?;
        let kept = labs.with_file_name("failed").join(name);
        if kept.exists() {
            fs::remove_dir_all(&kept)?;
        }
        fs::create_dir_all(kept.parent().unwrap_or(&labs))?;
        fs::rename(dir.join("logs"), &kept)?;
        Ok(kept)
    };
    match (error, keep()) {
        (Error::Component { lab, component, reason }, Ok(kept)) => {
            Error::Component { lab, component, reason: format!("{reason}\nall logs of this start: {}", kept.display()) }
        }
        (error, _) => error,
    }
}
