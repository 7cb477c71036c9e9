//! Decides how one request is made: on a kept connection or a new one, once, with one deadline over
//! all of it. It never repeats a request and follows no redirect: what a plain client would have seen
//! is what is counted.

use std::collections::VecDeque;
use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::config::{Config, Target};
use super::record::{ErrorKind, Status};
use crate::shop::VERSION_HEADER;

/// A connection idle for longer is not used again: the server may be closing it just now, and the
/// request lost with it would say nothing about the server. Gateways keep them for a minute or more.
const IDLE: Duration = Duration::from_secs(15);
/// Largest body read.
const LARGEST_BODY: usize = 1024 * 1024;

/// Makes requests to one target.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    timeout: Duration,
    connections: usize,
    requests_per_connection: u32,
    idle: Mutex<VecDeque<Connection>>,
    open: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    requests: u32,
    used: Instant,
    /// Ends the connection when dropped.
    _driver: Driver,
}

/// The task that moves a connection's bytes; counted while it lives, and ended with its owner.
#[derive(Debug)]
struct Driver {
    task: JoinHandle<()>,
    open: Arc<AtomicUsize>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How far a request came; read when the deadline ends it.
#[derive(Debug, Default)]
struct Progress {
    connected: bool,
    version: Option<String>,
}

impl Client {
    pub(super) fn new(config: &Config, target: Target) -> Self {
        Self {
            target,
            timeout: config.timeout,
            connections: config.connections,
            requests_per_connection: config.requests_per_connection.unwrap_or(u32::MAX),
            idle: Mutex::new(VecDeque::new()),
            open: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Makes one request: the version that answered, if any said so, and how it ended.
    pub(super) async fn request(&self) -> (Option<String>, Status) {
        let mut progress = Progress::default();
        let ended = tokio::time::timeout(self.timeout, self.attempt(&mut progress)).await;
        let status = match ended {
            Ok(Ok(code)) => Status::Code(code),
            Ok(Err(kind)) => Status::Error(kind),
            Err(_) if progress.connected => Status::Error(ErrorKind::Timeout),
            Err(_) => Status::Error(ErrorKind::ConnectTimeout),
        };
        (progress.version, status)
    }

    async fn attempt(&self, progress: &mut Progress) -> Result<u16, ErrorKind> {
        let mut connection = self.connection().await?;
        progress.connected = true;
        connection.requests = connection.requests.saturating_add(1);
        let response = connection.sender.send_request(self.message()).await.map_err(|error| kind_of(&error))?;
        progress.version = version_of(&response);
        let code = response.status().as_u16();
        read_whole(response.into_body()).await?;
        self.keep(connection);
        Ok(code)
    }

    fn message(&self) -> Request<Empty<Bytes>> {
        let mut message = Request::new(Empty::new());
        *message.uri_mut() = self.target.path.clone();
        let headers = message.headers_mut();
        headers.insert(HOST, self.target.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("lab-load"));
        message
    }

    /// A kept connection that still stands, else a new one. New ones come first until there are as
    /// many as asked for; nothing has been sent yet, so passing over a closed one repeats no request.
    async fn connection(&self) -> Result<Connection, ErrorKind> {
        while let Some(mut connection) = self.take_idle() {
            if connection.sender.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(self.target.address).await.map_err(|_| ErrorKind::Connect)?;
        // Without it a request may wait for the peer's delayed acknowledgement; not fatal.
        let _ = stream.set_nodelay(true);
        let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| kind_of(&error))?;
        self.open.fetch_add(1, Ordering::SeqCst);
        // The connection's error reaches the request that suffers it.
        let task = tokio::spawn(async {
            let _ = driver.await;
        });
        Ok(Connection {
            sender,
            requests: 0,
            used: Instant::now(),
            _driver: Driver { task, open: Arc::clone(&self.open) },
        })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|connection| connection.used.elapsed() < IDLE && !connection.sender.is_closed());
        if self.open.load(Ordering::SeqCst) < self.connections {
            return None;
        }
        idle.pop_front()
    }

    fn keep(&self, mut connection: Connection) {
        connection.used = Instant::now();
        let worn = connection.requests >= self.requests_per_connection;
        let mut idle = self.idle();
        if !worn && idle.len() < self.connections {
            idle.push_back(connection);
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version_of(response: &Response<Incoming>) -> Option<String> {
    let value = response.headers().get(VERSION_HEADER)?.to_str().ok()?;
    Some(value.to_owned())
}

async fn read_whole(mut body: Incoming) -> Result<(), ErrorKind> {
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| kind_of(&error))?;
        length = length.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        if length > LARGEST_BODY {
            return Err(ErrorKind::TooLarge);
        }
    }
    Ok(())
}

fn kind_of(error: &hyper::Error) -> ErrorKind {
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(io) = found.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                    ErrorKind::Reset
                }
                io::ErrorKind::UnexpectedEof => ErrorKind::Closed,
                _ => ErrorKind::Other,
            };
        }
        cause = found.source();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        ErrorKind::Closed
    } else if error.is_parse() {
        ErrorKind::Protocol
    } else {
        ErrorKind::Other
    }
}
