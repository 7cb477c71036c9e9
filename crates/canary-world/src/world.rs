//! The world as one value that everything in it shares: the API server, the cluster, the clocks, the processes of the
//! operator, what is wrong with any of them, and a journal of all that was asked. Time is tokio's paused clock, so it
//! passes only when nobody has anything to do.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use canary_api::{CanaryReleaseStatus, Step};
use canary_core::object;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::Api;
use crate::branches::Branches;
use crate::cluster::Cluster;
use crate::fault::{Planned, Struck};
use crate::promises::Promises;
use crate::resources::{CANARY_RELEASES, Resource};

/// The namespace of everything.
pub const NAMESPACE: &str = "shop";
/// When every run begins.
pub const START: &str = "2026-01-01T00:00:00Z";

/// A handle; clones share the world.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    changed: Notify,
    died: Notify,
    origin: Instant,
    start: Timestamp,
}

/// What is in the world.
#[derive(Debug)]
pub struct Inner {
    /// The API server.
    pub api: Api,
    /// What the cluster does by itself.
    pub cluster: Cluster,
    /// The operator's processes, in the order in which they were started.
    pub processes: Vec<Process>,
    /// What will go wrong.
    pub plan: Vec<Planned>,
    /// The same of runs that begin alike.
    pub(crate) branches: Option<Branches>,
    /// Until when the API server answers nobody.
    pub server_down: Option<Instant>,
    /// Until when the metrics can't be asked.
    pub metrics_down: Option<Instant>,
    /// How long a watch event takes.
    pub watch_lag: Duration,
    /// Revisions that no watch tells of.
    pub untold: Vec<u64>,
    /// All that was asked, in order.
    pub journal: Vec<Entry>,
    /// Requests of ticks, and writes, so far.
    pub requests: usize,
    /// Writes of the operator so far.
    pub writes: usize,
    /// Those of them that are more than words: no status, record or Event.
    pub acts: usize,
    /// What is checked at every write.
    pub promises: Promises,
    /// Faults that came to pass.
    pub struck: Vec<Struck>,
    /// Writes of other users that a fault asked for, and that changed something.
    pub corrupted: usize,
    /// The same, refused or undone by admission.
    pub refused: usize,
    /// Something was changed that is no object.
    pub dirty: bool,
}

/// One process of the operator, as the world sees it.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// It makes no request any more, and gets no answer.
    pub dead: bool,
    /// Its requests wait until then.
    pub frozen: Option<Instant>,
    /// Its time of day.
    pub skew: Skew,
    /// Ticks that it began.
    pub ticks: usize,
    /// When the last one began.
    pub began: Option<Timestamp>,
    /// The store's revision then.
    pub began_at: u64,
    /// Whether a tick runs.
    pub in_tick: bool,
    /// Reads that failed in the tick that runs: resource and name, or an empty name for a list.
    pub failed_reads: Vec<(&'static str, String)>,
    /// Whether a write of the tick that runs met a conflict: it decides afresh, and so has decided nothing.
    pub outrun: bool,
    /// Whether its last tick wished for no other.
    pub idle: bool,
}

/// How a clock is off.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Skew {
    from: Option<Timestamp>,
    offset: SignedDuration,
    /// Added to a rate of one.
    faster: f64,
}

impl Skew {
    /// What it shows when the server's clock shows `now`.
    #[must_use]
    pub fn shows(&self, now: Timestamp) -> Timestamp {
        let passed = self.from.map_or(0.0, |from| now.duration_since(from).as_secs_f64());
        let drift = SignedDuration::from_millis((passed * self.faster * 1000.0) as i64);
        now + self.offset + drift
    }

    /// The same clock, from `now` on set off by `by` and going at `rate`.
    #[must_use]
    pub fn set(self, now: Timestamp, by: SignedDuration, rate: f64) -> Self {
        let offset = self.shows(now).duration_since(now) + by;
        Self { from: Some(now), offset, faster: rate - 1.0 }
    }
}

/// One request, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// Which process asked.
    pub process: usize,
    /// The number of the tick it belongs to.
    pub tick: usize,
    /// The number among the requests of ticks, from 1; 0 for others.
    pub request: usize,
    /// The number among writes, from 1; 0 for reads.
    pub write: usize,
    /// `get`, `list`, `create`, `patch`, `status`, `delete`, ...
    pub verb: &'static str,
    /// The plural.
    pub plural: &'static str,
    /// The name, or a list's query.
    pub name: String,
    /// The HTTP code, 0 where there was no answer.
    pub code: u16,
    /// What was written, in a few words.
    pub what: String,
    /// Where the release stood: step and stage.
    pub place: Option<(Step, i32)>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.strftime("%H:%M:%S%.3f");
        let Self { process, tick, request, write, verb, plural, name, code, what, .. } = self;
        write!(f, "{at} {process}.{tick} r{request}")?;
        if *write > 0 {
            write!(f, " w{write}")?;
        }
        write!(f, " {verb} {plural} {name} {code}")?;
        if let Some((step, stage)) = self.place {
            write!(f, " [{step:?}/{}]", i64::from(stage) + 1)?;
        }
        if what.is_empty() { Ok(()) } else { write!(f, " {what}") }
    }
}

impl World {
    /// An empty world. Call it inside a runtime whose clock is paused.
    #[must_use]
    pub fn new() -> Self {
        let start: Timestamp = START.parse().unwrap();
        Self(Arc::new(Shared {
            inner: Mutex::new(Inner {
                api: Api::new(start),
                cluster: Cluster::new(start),
                processes: Vec::new(),
                plan: Vec::new(),
                branches: None,
                server_down: None,
                metrics_down: None,
                watch_lag: Duration::from_millis(20),
                untold: Vec::new(),
                journal: Vec::new(),
                requests: 0,
                writes: 0,
                acts: 0,
                promises: Promises::default(),
                struck: Vec::new(),
                corrupted: 0,
                refused: 0,
                dirty: false,
            }),
            changed: Notify::new(),
            died: Notify::new(),
            origin: Instant::now(),
            start,
        }))
    }

    /// What is in it, with its clock set. Never held across an `await`.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        let now = self.now();
        let mut inner = self.0.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.api.now = now;
        inner
    }

    /// The server's time of day.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.start + self.0.origin.elapsed()
    }

    /// When that will be.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        let after = Duration::try_from(at.duration_since(self.0.start)).unwrap_or_default();
        self.0.origin + after.min(Duration::from_secs(400 * 24 * 3600))
    }

    /// Tells everybody that something changed.
    pub fn tell(&self) {
        self.0.changed.notify_waiters();
    }

    /// Waits until something changes after this call.
    pub fn changes(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.changed.notified()
    }

    /// A process died: whoever follows it up is told.
    pub fn tell_of_death(&self) {
        self.0.died.notify_waiters();
        self.tell();
    }

    /// Lets the cluster work for ever.
    pub async fn run_cluster(self) {
        const REACTION: Duration = Duration::from_millis(50);
        loop {
            let due = {
                let mut guard = self.lock();
                let inner = &mut *guard;
                let before = inner.api.store.revision();
                inner.dirty = false;
                let due = inner.cluster.step(&mut inner.api);
                let changed = inner.api.store.revision() != before;
                if changed {
                    inner.promises.moved(&inner.api);
                }
                drop(guard);
                if changed {
                    self.tell();
                }
                due
            };
            let revision = self.lock().api.store.revision();
            loop {
                let changed = self.changes();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let moved = {
                    let inner = self.lock();
                    inner.dirty || inner.api.store.revision() != revision
                };
                if moved {
                    tokio::time::sleep(REACTION).await;
                    break;
                }
                tokio::select! {
                    biased;
                    () = &mut changed => {}
                    () = tokio::time::sleep_until(self.instant(due)) => break,
                }
            }
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    /// An object.
    #[must_use]
    pub fn get(&self, resource: &Resource, name: &str) -> Option<&Value> {
        self.api.object(resource, NAMESPACE, name)
    }

    /// The status of the CanaryRelease.
    #[must_use]
    pub fn status(&self) -> CanaryReleaseStatus {
        crate::promises::status_of(self.get(CANARY_RELEASES, "web"))
    }

    /// Where the release stands.
    #[must_use]
    pub fn place(&self) -> Option<(Step, i32)> {
        let release = self.get(CANARY_RELEASES, "web")?;
        let step = release.pointer("/status/current/step")?;
        let stage = object::integer(release, "/status/current/stageIndex", 0);
        Some((serde_json::from_value(step.clone()).ok()?, i32::try_from(stage).ok()?))
    }
}
