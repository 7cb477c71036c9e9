//! Decides what each path answers, when the service is ready, and how it ends: after SIGTERM it is
//! not ready, serves on for the drain (the gateway learns late that the pod goes), asks clients to
//! close their connections, finishes what is under way, and stops. It never ends an answer half-way
//! before its grace is over.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use super::VERSION_HEADER;
use super::config::Config;
use super::faults::{FaultError, Faults};
use super::metrics::Metrics;
use crate::net::{is_lab_address, lab_ranges_text};
use crate::random::{Random, seed_of};

/// Most connections at a time; more wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 1024;
/// An idle connection is kept longer than a gateway keeps it (90 s is usual): whoever closes first
/// while the other sends loses a request, so the client side should be the one.
const IDLE: Duration = Duration::from_secs(150);

/// How the service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Asked to stop; every answer under way was finished.
    Stopped,
    /// Asked to stop; the grace ran out with answers under way.
    CutOff,
    /// Crashed as configured or by a fault: the program should exit 1 at once.
    Crashed,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another --port or --bind")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl ShopError {
    /// A fixed word for this kind of error.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
        }
    }
}

/// What the service knows while it runs.
#[derive(Debug)]
pub struct State {
    config: Config,
    started: Instant,
    faults: Mutex<Faults>,
    random: Mutex<Random>,
    metrics: Mutex<Metrics>,
    in_flight: AtomicUsize,
    draining: AtomicBool,
    crash: Notify,
}

impl State {
    fn new(config: Config) -> Self {
        // The version is mixed in, or two versions with one seed would fail in step.
        let seed = config.seed ^ seed_of(&config.version);
        Self {
            started: Instant::now(),
            faults: Mutex::new(config.faults.clone()),
            random: Mutex::new(Random::new(seed)),
            metrics: Mutex::new(Metrics::default()),
            in_flight: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            crash: Notify::new(),
            config,
        }
    }

    /// The faults in force.
    #[must_use]
    pub fn faults(&self) -> Faults {
        locked(&self.faults).clone()
    }

    /// Replaces the faults in force.
    pub fn set_faults(&self, faults: Faults) {
        *locked(&self.faults) = faults;
    }

    /// Answers counted with this code.
    #[must_use]
    pub fn requests_with(&self, code: u16) -> u64 {
        locked(&self.metrics).requests_with(code)
    }

    /// Requests under way, probes and metrics not counted.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    fn has_started(&self) -> bool {
        self.started.elapsed() >= self.config.startup_delay
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}

/// The service, listening but not yet answering.
#[derive(Debug)]
pub struct Shop {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<State>,
}

impl Shop {
    /// Listens. The start-up delay counts from here.
    ///
    /// # Errors
    /// [`ShopError::Listen`] if the address is taken or not this machine's.
    pub async fn bind(config: Config) -> Result<Self, ShopError> {
        let address = config.listen;
        let failed = |source| ShopError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, state: Arc::new(State::new(config)) })
    }

    /// Where it listens; with the port taken if 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it knows while it runs.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// Serves until `shutdown` is ready, then drains and ends.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Outcome {
        let Self { listener, state, .. } = self;
        let crashed = crash(&state);
        tokio::pin!(crashed, shutdown);
        let (closing, closed) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut connections = JoinSet::new();
        let drained = async {
            shutdown.await;
            state.draining.store(true, Ordering::SeqCst);
            tokio::time::sleep(state.config.drain).await;
        };
        tokio::pin!(drained);
        loop {
            tokio::select! {
                () = &mut crashed => return Outcome::Crashed,
                () = &mut drained => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                (stream, peer, permit) = accept(&listener, &permits) => {
                    let serving = serve(stream, peer, Arc::clone(&state), closed.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(permit);
                    });
                }
            }
        }
        drop(listener);
        // A receiver may be gone already, if no connection is open.
        let _ = closing.send(true);
        let finished = async { while connections.join_next().await.is_some() {} };
        tokio::select! {
            () = &mut crashed => Outcome::Crashed,
            ended = tokio::time::timeout(state.config.grace, finished) => match ended {
                Ok(()) => Outcome::Stopped,
                Err(_) => Outcome::CutOff,
            },
        }
    }
}

/// Ready when the service is to crash.
async fn crash(state: &State) {
    let timer = async {
        match state.config.crash_after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = timer => {}
        () = state.crash.notified() => {}
    }
}

/// The next connection, and its share of the connections allowed.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<tokio::sync::OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            // Out of file descriptors, or the peer went: neither must end the service or spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, state: Arc<State>, mut closing: watch::Receiver<bool>) {
    // Without it small answers may wait for the peer's delayed acknowledgement; not fatal.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&state, peer, &request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A connection that fails is the peer's doing; its requests are counted where they are answered.
    let asked_to_close = async {
        // A sender that is gone means the same.
        let _ = closing.wait_for(|closing| *closing).await;
    };
    tokio::select! {
        _ = connection.as_mut() => {}
        () = asked_to_close => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn answer<B>(state: &State, peer: SocketAddr, request: &Request<B>) -> Response<Full<Bytes>> {
    let crash = locked(&state.faults).crash;
    if crash {
        state.crash.notify_one();
        // The program ends here; this connection breaks as in any crash.
        return std::future::pending().await;
    }
    let mut response = match request.uri().path() {
        "/healthz" => probe(locked(&state.faults).live, "ok", "told to fail by /fault"),
        "/readyz" => readiness(state),
        "/metrics" => metrics(state),
        "/fault" => fault(state, peer, request),
        _ => page(state, request.method()).await,
    };
    if let Ok(version) = HeaderValue::from_str(&state.config.version) {
        response.headers_mut().insert(VERSION_HEADER, version);
    }
    if state.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Counts requests under way, also those whose client goes before the answer.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn page(state: &State, method: &Method) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let _in_flight = InFlight::enter(&state.in_flight);
    let faults = state.faults();
    // All five are drawn for every request: one rate's change does not move the other faults.
    let (error, slow, conflict, risk, csp) = {
        let mut random = locked(&state.random);
        (
            random.happens(faults.error_rate),
            random.happens(faults.slow_rate),
            random.happens(faults.conflict_rate),
            random.happens(faults.risk_rate),
            random.happens(faults.csp_rate),
        )
    };
    if faults.cpu_us > 0 {
        let burn = Duration::from_micros(faults.cpu_us);
        while started.elapsed() < burn {
            std::hint::spin_loop();
        }
    }
    let wait = faults.latency_ms.saturating_add(if slow { faults.slow_ms } else { 0 });
    if wait > 0 {
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    let status = if !state.has_started() {
        StatusCode::SERVICE_UNAVAILABLE
    } else if error {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::OK
    };
    {
        let mut metrics = locked(&state.metrics);
        metrics.answered(status.as_u16(), method_label(method), started.elapsed());
        if status.is_success() {
            metrics.ordered(conflict, risk);
        }
        if csp {
            metrics.csp_violation();
        }
    }
    let mut body = serde_json::json!({"version": state.config.version, "pod": state.config.pod});
    if let (false, Some(body)) = (status.is_success(), body.as_object_mut()) {
        let reason = if error { "fault" } else { "starting" };
        body.insert("error".to_owned(), reason.into());
    }
    respond(status, "application/json", body.to_string())
}

/// A bounded set of labels, whatever clients send.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn readiness(state: &State) -> Response<Full<Bytes>> {
    if state.is_draining() {
        probe(false, "", "stopping")
    } else if !state.has_started() {
        probe(false, "", "starting")
    } else {
        let ready = locked(&state.faults).ready;
        probe(ready, "ok", "told to fail by /fault")
    }
}

fn probe(good: bool, yes: &str, no: &str) -> Response<Full<Bytes>> {
    let (status, text) = if good { (StatusCode::OK, yes) } else { (StatusCode::SERVICE_UNAVAILABLE, no) };
    respond(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn metrics(state: &State) -> Response<Full<Bytes>> {
    let staleness = locked(&state.faults).staleness_seconds;
    let text = locked(&state.metrics).text(staleness);
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

fn fault<B>(state: &State, peer: SocketAddr, request: &Request<B>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        let body = serde_json::json!({"error": "use GET or POST"});
        let kind = "application/json";
        return respond(StatusCode::METHOD_NOT_ALLOWED, kind, body.to_string());
    }
    let forwarded =
        ["x-forwarded-for", "forwarded", "x-real-ip"].iter().any(|name| request.headers().contains_key(*name));
    let query = request.uri().query().unwrap_or_default();
    let (status, body) = match switch(state, peer, forwarded, query) {
        Ok(faults) => (
            StatusCode::OK,
            serde_json::json!({
                "version": state.config.version,
                "pod": state.config.pod,
                "unix_ms": unix_ms(),
                "faults": faults,
            }),
        ),
        Err(error) => (
            match error {
                FaultError::Unknown(_) | FaultError::Value { .. } => StatusCode::BAD_REQUEST,
                FaultError::NotForThisPod { .. } => StatusCode::CONFLICT,
                FaultError::ThroughGateway | FaultError::OutsideLab(_) => StatusCode::FORBIDDEN,
            },
            serde_json::json!({"error": error.to_string(), "category": error.category()}),
        ),
    };
    respond(status, "application/json", body.to_string())
}

/// Switches the faults that `query` names, all or none; an empty one only shows them.
fn switch(state: &State, peer: SocketAddr, forwarded: bool, query: &str) -> Result<Faults, FaultError> {
    if !is_lab_address(peer.ip()) {
        return Err(FaultError::OutsideLab(lab_ranges_text()));
    }
    let mut addressed = false;
    let mut faults = state.faults();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
        let not_ours = |name| FaultError::NotForThisPod {
            pod: state.config.pod.clone(),
            version: state.config.version.clone(),
            name,
            value: value.to_owned(),
        };
        match name {
            "pod" if value == state.config.pod => addressed = true,
            "pod" => return Err(not_ours("pod")),
            "version" if value == state.config.version => {}
            "version" => return Err(not_ours("version")),
            "reset" => faults = state.config.faults.clone(),
            _ => faults.set(name, value)?,
        }
    }
    if forwarded && !addressed {
        return Err(FaultError::ThroughGateway);
    }
    state.set_faults(faults.clone());
    Ok(faults)
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in another task leaves plain numbers behind; they stay usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
