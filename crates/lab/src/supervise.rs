//! The supervisor: it lays the lab's network, starts the components in the order of their needs, keeps
//! them running unless told otherwise, and answers the control socket. It decides when each component
//! counts as ready; it knows nothing of what runs in the cluster.

use crate::config::{self, Component, Layout, Ready};
use crate::control::{self, Answer, ComponentState, ComponentStatus, Phase, Request};
use crate::{Error, Gateway, Image, LabOptions, Result, cgroup, http, image, state, up};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const VERB: &str = "lab-process-supervisor";

const READY_DEADLINE: Duration = Duration::from_secs(120);
const STOP_DEADLINE: Duration = Duration::from_secs(10);
const RESTART_AFTER: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

/// Steps of the start beside the components, shown among them.
const STEPS: [&str; 4] = ["network", "cluster objects", "node", "gateway"];

struct Entry {
    name: String,
    /// None for a step.
    component: Option<Component>,
    state: ComponentState,
    pid: Option<Pid>,
    /// Whether it is to run; one that ends unasked is started again.
    wanted: bool,
    started: Instant,
    ready_after: Duration,
}

impl Entry {
    fn new(name: &str, component: Option<Component>) -> Entry {
        Entry {
            name: name.into(),
            component,
            state: ComponentState::Waiting,
            pid: None,
            wanted: false,
            started: Instant::now(),
            ready_after: Duration::ZERO,
        }
    }
}

struct Inner {
    phase: Phase,
    entries: Vec<Entry>,
    gateways: Vec<Gateway>,
}

impl Inner {
    fn entry(&mut self, name: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.name == name)
    }
}

struct Supervisor {
    dir: PathBuf,
    options: LabOptions,
    inner: Mutex<Inner>,
    /// Signalled when a process has ended.
    ended: Condvar,
    /// One change of the gateways at a time.
    gateways: Mutex<()>,
}

pub(crate) fn run(dir: &Path) -> Result<()> {
    let options = fs::read(dir.join("options.json")).map_err(Error::io("read options.json"))?;
    let options: LabOptions =
        serde_json::from_slice(&options).map_err(|error| Error::malformed("options.json", error))?;
    let layout = Layout::new(dir, &options);
    let mut entries: Vec<Entry> = STEPS.iter().map(|step| Entry::new(step, None)).collect();
    entries.extend(layout.components().into_iter().map(|c| Entry::new(&c.name.clone(), Some(c))));
    let main = config::main_gateway();
    entries.push(Entry::new(&main.component, Some(layout.traefik(&main, &[]))));
    let detached = options.detached;
    let supervisor = Arc::new(Supervisor {
        dir: dir.to_owned(),
        options,
        inner: Mutex::new(Inner { phase: Phase::Starting, entries, gateways: vec![main] }),
        ended: Condvar::new(),
        gateways: Mutex::new(()),
    });

    let listener = control::listen(dir)?;
    if !detached {
        // The program that started the lab holds the other end: when it is gone, so is the lab.
        std::thread::spawn(|| {
            let mut nothing = [0; 1];
            while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
            std::process::exit(0);
        });
    }
    let starting = supervisor.clone();
    std::thread::spawn(move || {
        let phase = match starting.bring_up() {
            Ok(()) => Phase::Ready,
            Err(error) => Phase::failed(error),
        };
        let mut inner = starting.lock();
        if inner.phase == Phase::Starting {
            inner.phase = phase;
        }
    });
    for stream in listener.incoming() {
        let stream = stream.map_err(Error::io("accept a caller"))?;
        let supervisor = supervisor.clone();
        std::thread::spawn(move || {
            // A caller that went away needs no answer.
            let _ = control::serve(&stream, |request| supervisor.answer(request));
        });
    }
    Ok(())
}

impl Phase {
    fn failed(error: Error) -> Phase {
        match error {
            Error::Component { component, reason, .. } => Phase::Failed { component, reason },
            other => Phase::Failed { component: "the start".into(), reason: format!("failed: {other}") },
        }
    }
}

impl Supervisor {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves at worst a stale state word behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layout(&self) -> Layout<'_> {
        Layout::new(&self.dir, &self.options)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    fn failed(&self, component: &str, reason: &str) -> Error {
        let log = up::tail(&self.log(component), 15);
        control::failed(&self.dir, component.into(), format!("{reason}; the end of its log:\n{log}"))
    }

    /// The start of the lab, from nothing to a ready cluster.
    fn bring_up(self: &Arc<Self>) -> Result<()> {
        self.step("network", || {
            lay_network()?;
            cgroup::create(&self.options.name)
        })?;
        self.begin("etcd")?;
        self.begin("containerd")?;
        let runtime = {
            let this = self.clone();
            std::thread::spawn(move || this.start_runtime())
        };
        self.await_ready("etcd")?;
        self.begin("kube-apiserver")?;
        self.await_ready("kube-apiserver")?;
        for name in ["kube-controller-manager", "kube-scheduler", "kube-proxy", "prometheus"] {
            self.begin(name)?;
            self.observe(name);
        }
        let panicked = |_| Error::Host("starting containerd panicked".into());
        runtime.join().map_err(panicked)??;
        self.begin("kubelet")?;
        self.observe("kubelet");
        self.step("cluster objects", || self.create_objects())?;
        self.begin("traefik")?;
        self.observe("traefik");
        if self.options.metrics_server {
            self.begin("metrics-server")?;
            self.observe("metrics-server");
        }
        self.step("node", || {
            // One at a time: where two are missing at once, kubectl takes the two 404s for an error and does not wait.
            for object in ["node/lab", "serviceaccount/default"] {
                self.kubectl(&["wait", "--for=create", "--timeout=120s", object])?;
            }
            self.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "node/lab"])
        })?;
        let all: Vec<String> =
            self.lock().entries.iter().filter(|e| e.component.is_some()).map(|e| e.name.clone()).collect();
        for name in all {
            self.await_ready(&name)?;
        }
        self.step("gateway", || self.await_gateway(&config::main_gateway()))
    }

    /// Notes when a component is ready, beside other work. Whoever needs it waits for it all the same.
    fn observe(self: &Arc<Self>, name: &'static str) {
        let this = self.clone();
        std::thread::spawn(move || {
            // The one who needs it gets the same error, and says it.
            let _ = this.await_ready(name);
        });
    }

    fn start_runtime(&self) -> Result<()> {
        self.await_ready("containerd")?;
        let pause = Image {
            files: vec![image::File { from: self.dir.join("bin/pause"), to: "/pause".into() }],
            entrypoint: vec!["/pause".into()],
        };
        let archive = Path::new(config::SCRATCH).join("pause.tar");
        pause.write(config::PAUSE_IMAGE, &archive)?;
        let mut import = self.command("ctr");
        import.args(["--address", config::CONTAINERD_SOCKET, "--namespace", "k8s.io", "images", "import"]);
        crate::run(import.arg(archive), None).map(|_| ())
    }

    fn create_objects(&self) -> Result<()> {
        let crds = self.dir.join("bin/gateway-api").display().to_string();
        self.kubectl(&["apply", "--server-side", "--field-manager=lab", "-f", &format!("{crds}/")])?;
        self.apply(&config::base_manifests())?;
        if self.options.metrics_server {
            let file = self.dir.join("pki/ca.crt");
            let ca = fs::read_to_string(&file).map_err(Error::io(format!("read {}", file.display())))?;
            self.apply(&config::metrics_manifests(&ca))?;
        }
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])?;
        self.apply(&config::gateway_manifests(&config::main_gateway()))
    }

    fn await_gateway(&self, gateway: &Gateway) -> Result<()> {
        let object = format!("gateways.gateway.networking.k8s.io/{}", gateway.name);
        let arguments =
            ["wait", "--for=condition=Programmed", "--timeout=60s", "--namespace", &gateway.namespace, &object];
        self.kubectl(&arguments)
    }

    /// Runs a step of the start and shows it among the components.
    fn step(&self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let set = |state| {
            if let Some(entry) = self.lock().entry(name) {
                if state == ComponentState::Starting {
                    entry.started = Instant::now();
                }
                entry.ready_after = entry.started.elapsed();
                entry.state = state;
            }
        };
        set(ComponentState::Starting);
        work()?;
        set(ComponentState::Ready);
        Ok(())
    }

    /// A program of the lab, or of the machine, with what all components have in common.
    fn command(&self, program: &str) -> Command {
        let carried = self.dir.join("bin").join(program);
        let mut command = Command::new(if carried.exists() { carried } else { program.into() });
        let mut path = vec![self.dir.join("bin")];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        path.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        let path = std::env::join_paths(path).unwrap_or_else(|_| OsString::from("/usr/sbin:/usr/bin:/sbin:/bin"));
        // Components take flags and proxies from the environment too: they get one that we know.
        command.env_clear().env("PATH", path).env("KUBECONFIG", self.dir.join("admin.kubeconfig"));
        for (name, place) in [("HOME", "home"), ("TMPDIR", "tmp"), ("KUBECACHEDIR", "kubectl")] {
            command.env(name, Path::new(config::SCRATCH).join(place));
        }
        command.stdin(Stdio::null());
        command
    }

    fn kubectl(&self, args: &[&str]) -> Result<()> {
        crate::run(self.command("kubectl").args(args), None).map(|_| ())
    }

    fn apply(&self, manifests: &str) -> Result<()> {
        let mut command = self.command("kubectl");
        command.args(["apply", "--server-side", "--force-conflicts", "--field-manager=lab", "-f", "-"]);
        crate::run(&mut command, Some(manifests)).map(|_| ())
    }

    /// Starts a component's process, if it does not run.
    fn begin(self: &Arc<Self>, name: &str) -> Result<()> {
        let mut inner = self.lock();
        let Some(entry) = inner.entry(name) else { return Err(unknown(name)) };
        let Some(component) = entry.component.clone() else { return Err(unknown(name)) };
        entry.wanted = true;
        if entry.pid.is_some() {
            return Ok(());
        }
        let file = self.log(name);
        let log = fs::OpenOptions::new().create(true).append(true).open(&file);
        let log = log.map_err(Error::io(format!("open {}", file.display())))?;
        let errors = log.try_clone().map_err(Error::io(format!("open {} twice", file.display())))?;
        let mut command = self.command(component.program);
        command.args(&component.args).envs(component.env).current_dir(config::SCRATCH).stdout(log).stderr(errors);
        // A signal to the supervisor's group is not meant for the components.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(Error::io(format!("start {name}")))?;
        entry.pid = Pid::from_raw(child.id().cast_signed());
        entry.state = ComponentState::Starting;
        entry.started = Instant::now();
        drop(inner);
        let this = self.clone();
        let name = name.to_owned();
        std::thread::spawn(move || this.watch(&name, child));
        Ok(())
    }

    /// Waits for a component's end, and starts it again if nobody asked for it.
    fn watch(self: &Arc<Self>, name: &str, mut child: Child) {
        let status = child.wait();
        let mut inner = self.lock();
        let starting = inner.phase == Phase::Starting;
        let Some(entry) = inner.entry(name) else {
            self.ended.notify_all();
            return;
        };
        entry.pid = None;
        let unasked = entry.wanted;
        entry.state = if unasked { ComponentState::Ended } else { ComponentState::Stopped };
        self.ended.notify_all();
        drop(inner);
        if !unasked {
            return;
        }
        let ended = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        if starting {
            let phase = Phase::failed(self.failed(name, &format!("ended by itself ({ended})")));
            self.lock().phase = phase;
            return;
        }
        eprintln!("{name} ended by itself ({ended}) and is started again");
        std::thread::sleep(RESTART_AFTER);
        let still = self.lock().entry(name).is_some_and(|entry| entry.wanted && entry.pid.is_none());
        if still && let Err(error) = self.begin(name).and_then(|()| self.await_ready(name)) {
            eprintln!("{error}");
        }
    }

    /// Waits until a running component does its work.
    fn await_ready(&self, name: &str) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            let ready = {
                let mut inner = self.lock();
                let Some(entry) = inner.entry(name) else { return Err(unknown(name)) };
                match entry.state {
                    ComponentState::Ready => return Ok(()),
                    ComponentState::Ended | ComponentState::Stopped => {
                        drop(inner);
                        return Err(self.failed(name, "ended before it was ready"));
                    }
                    ComponentState::Waiting | ComponentState::Starting => {}
                }
                entry.component.as_ref().map(|component| component.ready.clone())
            };
            if ready.is_none_or(|ready| self.is_ready(&ready)) {
                let mut inner = self.lock();
                if let Some(entry) = inner.entry(name).filter(|entry| entry.state == ComponentState::Starting) {
                    entry.state = ComponentState::Ready;
                    entry.ready_after = entry.started.elapsed();
                }
                continue;
            }
            if Instant::now() >= deadline {
                return Err(self.failed(name, &format!("is not ready after {} s", READY_DEADLINE.as_secs())));
            }
            std::thread::sleep(POLL);
        }
    }

    fn is_ready(&self, ready: &Ready) -> bool {
        let accepts = |address: &str| {
            let socket = address.parse().ok();
            socket.is_some_and(|socket| std::net::TcpStream::connect_timeout(&socket, Duration::from_secs(1)).is_ok())
        };
        match ready {
            Ready::Http(address, path) => http::answers_ok(address, path),
            Ready::Accepts(address) => accepts(address),
            Ready::Socket(path) => UnixStream::connect(path).is_ok(),
            // Asking by kubectl is dear: first see whether anyone is there.
            Ready::Api(path) => {
                let address = config::API_SERVER.trim_start_matches("https://");
                accepts(address) && self.kubectl(&["get", "--raw", path, "--request-timeout=2s"]).is_ok()
            }
        }
    }

    /// Signals a component and waits for its end.
    fn end(&self, name: &str, signal: Signal) -> Result<()> {
        let mut inner = self.lock();
        let entry = inner.entry(name).filter(|entry| entry.component.is_some()).ok_or_else(|| unknown(name))?;
        entry.wanted = false;
        let Some(pid) = entry.pid else {
            entry.state = ComponentState::Stopped;
            return Ok(());
        };
        for signal in [signal, Signal::KILL] {
            // Under the lock the process, even if it has ended, is not collected: the number is its own.
            let sent = kill_process(pid, signal);
            sent.map_err(|error| Error::io(format!("signal {name}"))(error.into()))?;
            let running = |inner: &mut Inner| inner.entry(name).is_some_and(|entry| entry.pid == Some(pid));
            let waited = self.ended.wait_timeout_while(inner, STOP_DEADLINE, running);
            let (after, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if !timeout.timed_out() {
                return Ok(());
            }
            inner = after;
        }
        drop(inner);
        Err(self.failed(name, "does not end, not even by SIGKILL"))
    }

    /// Signals a running component without an end in mind.
    fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let mut inner = self.lock();
        let entry = inner.entry(name).filter(|entry| entry.component.is_some()).ok_or_else(|| unknown(name))?;
        let Some(pid) = entry.pid else { return Err(Error::Usage(format!("{name} does not run: start it first"))) };
        kill_process(pid, signal).map_err(|error| Error::io(format!("signal {name}"))(error.into()))
    }

    fn add_gateway(self: &Arc<Self>, name: &str, namespaces: &[String]) -> Result<Gateway> {
        state::check_name(name)?;
        let Some(namespace) = namespaces.first() else {
            return Err(Error::Usage(format!("gateway {name} serves no namespace: name at least one")));
        };
        let _one = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        let used: BTreeSet<String> = self.lock().gateways.iter().map(|gateway| gateway.address.clone()).collect();
        let free = config::GATEWAY_ADDRESSES
            .map(|byte| config::further_gateway(name, namespace, byte))
            .find(|gateway| !used.contains(&gateway.address));
        let gateway = free.ok_or_else(|| Error::Usage("no gateway address is free: remove a gateway".into()))?;
        if self.lock().entry(&gateway.component).is_some() {
            return Err(Error::Usage(format!("gateway {name} is there already")));
        }
        let address = gateway.address.replace(":80", "/32");
        ip(&["address", "replace", &address, "dev", "lo"])?;
        {
            let component = self.layout().traefik(&gateway, namespaces);
            let mut inner = self.lock();
            inner.gateways.push(gateway.clone());
            inner.entries.push(Entry::new(&gateway.component, Some(component)));
        }
        let started = self
            .apply(&config::gateway_manifests(&gateway))
            .and_then(|()| self.begin(&gateway.component))
            .and_then(|()| self.await_ready(&gateway.component))
            .and_then(|()| self.await_gateway(&gateway))
            .and_then(|()| self.reload_prometheus());
        match started {
            Ok(()) => Ok(gateway),
            Err(error) => {
                // What failed to start is said; that its remains are there no more matters less.
                let _ = self.forget_gateway(&gateway);
                Err(error)
            }
        }
    }

    fn remove_gateway(&self, name: &str) -> Result<()> {
        let _one = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        let further = |gateway: &&Gateway| gateway.component == format!("traefik-{name}");
        let found = self.lock().gateways.iter().find(further).cloned();
        let gateway = found.ok_or_else(|| Error::Usage(format!("there is no gateway {name} to remove")))?;
        self.forget_gateway(&gateway)
    }

    fn forget_gateway(&self, gateway: &Gateway) -> Result<()> {
        self.end(&gateway.component, Signal::KILL)?;
        let object = format!("gateways.gateway.networking.k8s.io/{}", gateway.name);
        let class = format!("gatewayclasses.gateway.networking.k8s.io/{}", gateway.class);
        let quietly = ["--ignore-not-found", "--wait=false"];
        let deleted = self
            .kubectl(&[&["delete", "--namespace", &gateway.namespace, &object], quietly.as_slice()].concat())
            .and_then(|()| self.kubectl(&[&["delete", &class], quietly.as_slice()].concat()));
        {
            let mut inner = self.lock();
            inner.entries.retain(|entry| entry.name != gateway.component);
            inner.gateways.retain(|known| known.component != gateway.component);
        }
        ip(&["address", "delete", &gateway.address.replace(":80", "/32"), "dev", "lo"])?;
        self.reload_prometheus()?;
        deleted
    }

    fn reload_prometheus(&self) -> Result<()> {
        let gateways = self.lock().gateways.clone();
        let text = self.layout().prometheus_config(&gateways);
        state::write_whole(&self.dir.join("config/prometheus.json"), text.as_bytes())?;
        match self.signal("prometheus", Signal::HUP) {
            // One that was stopped reads the file when it is started.
            Err(Error::Usage(_)) => Ok(()),
            other => other,
        }
    }

    fn answer(self: &Arc<Self>, request: Request) -> Answer {
        let done = |result: Result<()>| result.map(|()| Answer::Done);
        let result = match request {
            Request::Components => {
                let inner = self.lock();
                let components = inner.entries.iter().map(|entry| ComponentStatus {
                    name: entry.name.clone(),
                    state: entry.state,
                    ready_after_ms: entry.ready_after.as_millis().try_into().unwrap_or(u64::MAX),
                });
                Ok(Answer::Components { phase: inner.phase.clone(), components: components.collect() })
            }
            Request::Start { component } => done(self.begin(&component).and_then(|()| self.await_ready(&component))),
            Request::Stop { component } => done(self.end(&component, Signal::TERM)),
            Request::Kill { component } => done(self.end(&component, Signal::KILL)),
            Request::Freeze { component } => done(self.signal(&component, Signal::STOP)),
            Request::Thaw { component } => done(self.signal(&component, Signal::CONT)),
            Request::AddGateway { name, namespaces } => {
                self.add_gateway(&name, &namespaces).map(|gateway| Answer::Gateway { gateway })
            }
            Request::RemoveGateway { name } => done(self.remove_gateway(&name)),
        };
        result.unwrap_or_else(|error| match error {
            Error::Component { component, reason, .. } => Answer::Failed { component, reason },
            Error::Command { command, reason } => Answer::Command { command, reason },
            other => Answer::Refused { reason: other.to_string() },
        })
    }
}

fn unknown(name: &str) -> Error {
    Error::Usage(format!("there is no component {name}: `lab list` with the lab's name shows them"))
}

fn ip(args: &[&str]) -> Result<()> {
    let program = crate::host::find("ip").unwrap_or_else(|| "ip".into());
    crate::run(Command::new(program).args(args), None).map(|_| ())
}

/// Loopback, the bridge of the pods with the node's address, and forwarding between them.
fn lay_network() -> Result<()> {
    for place in ["home", "tmp", "kubectl"].map(|name| Path::new(config::SCRATCH).join(name)) {
        fs::create_dir_all(&place).map_err(Error::io(format!("create {}", place.display())))?;
    }
    let address = format!("{}/24", config::NODE_ADDRESS);
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "add", config::BRIDGE, "type", "bridge"])?;
    ip(&["address", "add", &address, "dev", config::BRIDGE])?;
    ip(&["link", "set", config::BRIDGE, "up"])?;
    let set = |file: &str| fs::write(file, "1").map_err(Error::io(format!("write {file}")));
    set("/proc/sys/net/ipv4/ip_forward")?;
    // Else an answer from pod to pod passes the bridge unseen, and a Service's address is not put back.
    if Path::new(config::BRIDGE_FILTER).exists() { set(config::BRIDGE_FILTER) } else { Ok(()) }
}
