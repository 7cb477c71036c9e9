//! The lab: a real Kubernetes on this machine, for the demo, the end-to-end tests and the figures.
//!
//! It builds etcd, Kubernetes, containerd, Traefik and Prometheus from pinned Go modules into a cache,
//! starts them in network, mount, pid and ipc namespaces of their own, and takes them down again. It
//! decides how a lab is built, started, found, reached and cleaned. It never touches a cluster that it
//! has not started, never ends a process that it cannot prove to be its own, binds nothing outside its
//! own network namespace, and knows nothing of canary releases.
//!
//! A program that starts labs calls [`hook`] as the first thing in `main`: the lab's supervisor is that
//! same program, started again.
//!
//! ```no_run
//! # fn main() -> Result<(), lab::Error> {
//! lab::hook();
//! let options = lab::LabOptions::named("demo");
//! lab::build(&options, &mut |step| println!("{step}"))?;
//! let lab = lab::Lab::up(&options, &mut |step| println!("{step}"))?;
//! lab.import_image("docker.io/lab/shop:1", &lab::Image::program("target/debug/shop")?)?;
//! lab.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")?;
//! let status = lab.command("curl").arg("http://10.244.0.1/").status();
//! lab.stop("prometheus")?;
//! lab.start("prometheus")?;
//! lab.down()
//! # }
//! ```

mod audit;
mod build;
mod cgroup;
mod config;
mod control;
mod host;
mod http;
mod image;
mod init;
mod pki;
mod state;
mod supervise;
mod up;

pub use audit::{AuditEntry, audit_entries};
pub use build::{Binaries, build, build_servers};
pub use config::{API_SERVER, GATEWAY, MAIN_GATEWAY, POD_LOGS, PROMETHEUS};
pub use control::{ComponentState, ComponentStatus};
pub use host::{cache_dir, check_host};
pub use image::{File, Image};
pub use state::LabInfo;

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What went wrong in the lab: what happened, to which part, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine cannot run a lab at all.
    #[error("{0}")]
    Host(String),
    /// A part could not be built.
    #[error("cannot build {part}: {reason}")]
    Build {
        /// The part, for example `kube-apiserver`.
        part: String,
        /// The last lines of the compiler, or the reason.
        reason: String,
    },
    /// A component did not become ready, or ended at once.
    #[error("{component} of lab {lab} {reason}")]
    Component {
        /// Name of the lab.
        lab: String,
        /// The component, for example `etcd`.
        component: String,
        /// What happened, with the end of its log.
        reason: String,
    },
    /// A lab of that name runs already.
    #[error("lab {0} is up already: use it (`lab kubectl {0} -- ...`) or take it down (`lab down {0}`)")]
    AlreadyUp(String),
    /// No lab of that name runs.
    #[error("no lab {0} is up: start it (`lab up {0}`)")]
    NotUp(String),
    /// A name, option or component that does not exist.
    #[error("{0}")]
    Usage(String),
    /// A command inside the lab failed.
    #[error("{command} failed: {reason}")]
    Command {
        /// The command, shortened.
        command: String,
        /// What it said.
        reason: String,
    },
    /// A file, socket or process operation failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to which path.
        doing: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file of a lab's state or a message cannot be read as what it should be.
    #[error("{what} cannot be understood: {reason}")]
    Malformed {
        /// The file or message.
        what: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// A short constant word per kind of error.
    pub fn category(&self) -> &'static str {
        match self {
            Error::Host(_) => "host",
            Error::Build { .. } => "build",
            Error::Component { .. } => "component",
            Error::AlreadyUp(_) => "already-up",
            Error::NotUp(_) => "not-up",
            Error::Usage(_) => "usage",
            Error::Command { .. } => "command",
            Error::Io { .. } => "io",
            Error::Malformed { .. } => "malformed",
        }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }

    pub(crate) fn malformed(what: impl fmt::Display, reason: impl fmt::Display) -> Error {
        Error::Malformed { what: what.to_string(), reason: reason.to_string() }
    }
}

/// Result with the lab's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One line of progress of a build or a start. Prints as a line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The part built, or the component started.
    pub name: String,
    /// Which one this is, from 1.
    pub number: usize,
    /// Of how many.
    pub of: usize,
    /// How far it is.
    pub state: ProgressState,
}

/// How far one part or component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgressState {
    /// It was there already; nothing to do.
    Present,
    /// Work on it has begun.
    Begun,
    /// Built, or ready, after so long.
    Done(Duration),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { name, number, of, state } = self;
        match state {
            ProgressState::Present => write!(f, "[{number:>2}/{of}] {name:<26} present"),
            ProgressState::Begun => write!(f, "[{number:>2}/{of}] {name:<26} ..."),
            ProgressState::Done(took) => write!(f, "[{number:>2}/{of}] {name:<26} {:.1} s", took.as_secs_f64()),
        }
    }
}

/// How a lab is to be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LabOptions {
    /// Name of the lab: lower-case letters, digits and `-`, at most 32 characters.
    pub name: String,
    /// How often Prometheus scrapes a pod that does not say otherwise by the annotation
    /// `prometheus.io/interval` (for example `1s`).
    pub scrape_interval: Duration,
    /// Whether metrics-server runs, so that `kubectl top` and a HorizontalPodAutoscaler work.
    pub metrics_server: bool,
    /// Whether the lab outlives this process. If not, it ends when the [`Lab`] is dropped or the
    /// process dies, however it dies.
    pub detached: bool,
}

impl Default for LabOptions {
    fn default() -> LabOptions {
        LabOptions { name: "lab".into(), scrape_interval: Duration::from_secs(5), metrics_server: true, detached: true }
    }
}

impl LabOptions {
    /// The defaults (scrapes every 5 s, metrics-server, outlives this process) under a name.
    pub fn named(name: &str) -> LabOptions {
        LabOptions { name: name.into(), ..LabOptions::default() }
    }
}

/// A gateway with a data plane of its own, see [`Lab::add_gateway`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Gateway {
    /// Name of the Gateway object, for a route's `parentRefs`.
    pub name: String,
    /// Namespace of the Gateway object, for a route's `parentRefs`.
    pub namespace: String,
    /// Name of the GatewayClass.
    pub class: String,
    /// Where it listens for HTTP, inside the lab's network: an address and port.
    pub address: String,
    /// The component's name, for [`Lab::kill`] and others.
    pub component: String,
}

/// Does the work of a lab's own processes and never returns, when this process was started as one of
/// them; else returns at once. Every program that calls [`Lab::up`] calls this first in `main`.
pub fn hook() {
    up::HOOKED.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut args = std::env::args_os().skip(1);
    let (Some(verb), Some(dir)) = (args.next(), args.next()) else { return };
    let dir = PathBuf::from(dir);
    let result = if verb == OsStr::new(init::VERB) {
        init::run(&dir)
    } else if verb == OsStr::new(supervise::VERB) {
        supervise::run(&dir)
    } else {
        return;
    };
    if let Err(error) = result {
        eprintln!("{error}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    pub(crate) info: LabInfo,
    /// Kept open for a lab that is not detached: it ends when this closes.
    pub(crate) lifeline: Option<std::process::ChildStdin>,
}

impl Lab {
    /// Starts a lab and returns when the cluster is ready: node Ready, gateway and Prometheus answering.
    ///
    /// What a crashed lab of that name left behind is cleaned first.
    ///
    /// # Errors
    /// [`Error::AlreadyUp`] if it runs; [`Error::Host`] without root or off Linux; [`Error::Component`]
    /// with the end of the log of the component that failed.
    pub fn up(options: &LabOptions, progress: &mut dyn FnMut(&Progress)) -> Result<Lab> {
        up::up(options, progress)
    }

    /// The running lab of that name.
    ///
    /// # Errors
    /// [`Error::NotUp`] if there is none.
    pub fn find(name: &str) -> Result<Lab> {
        let info = state::read(name)?.filter(LabInfo::is_alive).ok_or_else(|| Error::NotUp(name.into()))?;
        Ok(Lab { info, lifeline: None })
    }

    /// All running labs. Remains of crashed ones are cleaned on the way.
    ///
    /// # Errors
    /// If the cache directory cannot be read.
    pub fn list() -> Result<Vec<LabInfo>> {
        state::list()
    }

    /// Takes this lab down and removes all that it left.
    ///
    /// # Errors
    /// If a process of it does not end or a directory cannot be removed.
    pub fn down(self) -> Result<()> {
        up::down(&self.info.name).map(|_| ())
    }

    /// Takes the lab of that name down, or cleans what a crashed one left. Says whether there was one.
    ///
    /// # Errors
    /// If a process of it does not end or a directory cannot be removed.
    pub fn take_down(name: &str) -> Result<bool> {
        up::down(name)
    }

    /// Name, processes and directory of this lab.
    pub fn info(&self) -> &LabInfo {
        &self.info
    }

    /// The directory with this lab's kubeconfigs, logs, certificates and audit log.
    pub fn dir(&self) -> &Path {
        &self.info.dir
    }

    /// Kubeconfig of an administrator (`system:masters`). Its server, <https://10.244.0.1:6443>, is
    /// reachable only inside the lab's network: see [`Lab::command`].
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("admin.kubeconfig")
    }

    /// Kubeconfig with a new client certificate for a user of any name, in any groups. What the user
    /// may do is up to RBAC.
    ///
    /// # Errors
    /// If the lab's certificate authority cannot be read or the file cannot be written.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        pki::kubeconfig_for(self.dir(), user, groups)
    }

    /// A command that runs inside the lab's network, where the API server, the gateways, Prometheus and
    /// pods are reachable, and else as this process would: same files, same processes. `KUBECONFIG` is set.
    /// A program that the lab carries (`kubectl`) is found by its bare name.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.info.init_pid));
        command.arg("--").arg(self.resolve(program.as_ref()));
        self.environment(&mut command);
        command
    }

    /// A command that runs in all of the lab's namespaces: it sees the lab's processes and its `/run`
    /// with containerd's socket, and ends with the lab.
    pub fn command_inside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.info.init_pid)).args(["--net", "--mount", "--pid", "--ipc"]);
        command.arg("--").arg(self.resolve(program.as_ref()));
        self.environment(&mut command);
        command
    }

    fn environment(&self, command: &mut Command) {
        command.env("KUBECONFIG", self.kubeconfig());
        // All labs have one address: what kubectl remembers of one must not be believed of another.
        command.env("KUBECACHEDIR", self.dir().join("kubectl-cache"));
        // No proxy is reachable from inside, and none is needed.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
    }

    fn resolve(&self, program: &OsStr) -> PathBuf {
        let carried = self.dir().join("bin").join(program);
        if !Path::new(program).is_absolute() && Path::new(program).components().count() == 1 && carried.exists() {
            carried
        } else {
            PathBuf::from(program)
        }
    }

    /// `kubectl` as administrator, inside the lab's network: add arguments and run it.
    pub fn kubectl(&self) -> Command {
        self.command("kubectl")
    }

    /// Applies manifests (YAML or JSON, several documents) by server-side apply as administrator.
    ///
    /// # Errors
    /// With what `kubectl` said.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut command = self.kubectl();
        command.args(["apply", "--server-side", "--force-conflicts", "--field-manager=lab", "-f", "-"]);
        run(&mut command, Some(manifests)).map(|_| ())
    }

    /// Whether this very process runs inside the lab's network.
    pub fn is_inside(&self) -> bool {
        let own = std::fs::read_link("/proc/self/ns/net").ok();
        own.is_some() && own == std::fs::read_link(format!("/proc/{}/ns/net", self.info.init_pid)).ok()
    }

    /// Makes an image known to the node under `docker.io/lab/NAME:TAG`. Pods name it with
    /// `imagePullPolicy: Never`.
    ///
    /// # Errors
    /// If a file of the image cannot be read or containerd refuses it.
    pub fn import_image(&self, tag: &str, image: &Image) -> Result<()> {
        let file = self.dir().join(format!("image-{}.tar", tag.replace(['/', ':'], "_")));
        image.write(tag, &file)?;
        let mut command = self.command_inside("ctr");
        command.args(["--address", config::CONTAINERD_SOCKET, "--namespace", "k8s.io", "images", "import"]).arg(&file);
        let imported = run(&mut command, None);
        std::fs::remove_file(&file).map_err(Error::io(format!("remove {}", file.display())))?;
        imported.map(|_| ())
    }

    /// State of every component.
    ///
    /// # Errors
    /// If the supervisor does not answer.
    pub fn components(&self) -> Result<Vec<ComponentStatus>> {
        control::components(self.dir())
    }

    /// Ends a component with SIGTERM (SIGKILL after 10 s) and keeps it down until [`Lab::start`].
    ///
    /// # Errors
    /// If there is no such component or the supervisor does not answer.
    pub fn stop(&self, component: &str) -> Result<()> {
        control::ask(self.dir(), &control::Request::Stop { component: component.into() })
    }

    /// Ends a component with SIGKILL and keeps it down until [`Lab::start`].
    ///
    /// # Errors
    /// If there is no such component or the supervisor does not answer.
    pub fn kill(&self, component: &str) -> Result<()> {
        control::ask(self.dir(), &control::Request::Kill { component: component.into() })
    }

    /// Starts a stopped or killed component and returns when it is ready.
    ///
    /// # Errors
    /// [`Error::Component`] if it does not become ready in time.
    pub fn start(&self, component: &str) -> Result<()> {
        control::ask(self.dir(), &control::Request::Start { component: component.into() })
    }

    /// Stops a component's execution (SIGSTOP): it accepts connections and answers none.
    ///
    /// # Errors
    /// If there is no such component or the supervisor does not answer.
    pub fn freeze(&self, component: &str) -> Result<()> {
        control::ask(self.dir(), &control::Request::Freeze { component: component.into() })
    }

    /// Lets a frozen component go on.
    ///
    /// # Errors
    /// If there is no such component or the supervisor does not answer.
    pub fn thaw(&self, component: &str) -> Result<()> {
        control::ask(self.dir(), &control::Request::Thaw { component: component.into() })
    }

    /// The gateway that the lab came up with. It serves all namespaces.
    pub fn gateway(&self) -> Gateway {
        config::main_gateway()
    }

    /// Adds a gateway with a data plane and an address of its own, so that route edits elsewhere do not
    /// disturb it. It serves only the namespaces given (they must exist); its Gateway object stands in
    /// the first of them, under the given name (a DNS label of at most 32 characters, unique in the lab).
    ///
    /// # Errors
    /// If the name is taken, addresses are used up (30), or the data plane does not become ready.
    pub fn add_gateway(&self, name: &str, namespaces: &[&str]) -> Result<Gateway> {
        let namespaces = namespaces.iter().map(|n| n.to_string()).collect();
        control::add_gateway(self.dir(), name, namespaces)
    }

    /// Takes a gateway of [`Lab::add_gateway`] away again, with its Gateway and GatewayClass.
    ///
    /// # Errors
    /// If there is none of that name or the supervisor does not answer.
    pub fn remove_gateway(&self, name: &str) -> Result<()> {
        control::ask(self.dir(), &control::Request::RemoveGateway { name: name.into() })
    }

    /// The log of a component so far (standard output and error).
    pub fn log_file(&self, component: &str) -> PathBuf {
        self.dir().join("logs").join(format!("{component}.log"))
    }

    /// The API server's audit log: all writes by anyone, and all requests of service accounts in
    /// namespaces named `canaryrelease-system`. Read it with [`audit_entries`].
    pub fn audit_log(&self) -> PathBuf {
        self.dir().join("audit.log")
    }
}

impl Drop for Lab {
    /// Ends a lab that is not to outlive this process.
    fn drop(&mut self) {
        if self.lifeline.take().is_some() {
            // Nobody is left to hear of it; what remains is cleaned when labs are next listed or started.
            let _ = up::down(&self.info.name);
        }
    }
}

/// Runs a command to its end and gives its standard output.
pub(crate) fn run(command: &mut Command, input: Option<&str>) -> Result<String> {
    use std::io::Write;
    let shown = shown(command);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Error::io(format!("start {shown}")))?;
    let writer = child.stdin.take().map(|mut stdin| {
        let text = input.unwrap_or_default().to_owned();
        std::thread::spawn(move || {
            // A program that ends without reading all of its input says why on its standard error.
            let _ = stdin.write_all(text.as_bytes());
        })
    });
    let output = child.wait_with_output().map_err(Error::io(format!("wait for {shown}")))?;
    if let Some(writer) = writer {
        let _ = writer.join();
    }
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let reason = if said.is_empty() { output.status.to_string() } else { said };
    Err(Error::Command { command: shown, reason })
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    if line.chars().count() > 200 { line.chars().take(200).chain("...".chars()).collect() } else { line }
}
