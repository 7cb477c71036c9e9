//! One actor per CanaryRelease. It decides when a tick of an object runs and how many run at once;
//! it never looks into an object and never decides what a tick does.
//!
//! Invariants: an object never has two ticks at once; wakes that come while its tick runs are kept
//! as one; a failing, panicking or hanging tick delays its own object only; an object that reverts
//! finds a place even when all others are taken.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::metrics::Metrics;

/// Namespace and name of one CanaryRelease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What drives one release: reads what it needs, decides, acts, records.
///
/// A tick is dropped at an `await` when leadership is lost or its deadline passes, so it must be
/// safe to stop between any two calls.
pub trait Ticker: Send + Sync + 'static {
    /// One tick of one object.
    fn tick(&self, key: ObjectKey) -> impl Future<Output = Next> + Send;
}

/// When an object wants its next tick. Every answer but `Gone` may be cut short by a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// After this time, counted from the start of this tick.
    WakeAfter(Duration),
    /// As `WakeAfter`, and the next tick may use the places reserved for objects that move traffic
    /// back. The answer for every phase that reverts.
    Urgent(Duration),
    /// Only when something wakes it.
    Idle,
    /// The object is no more: its actor ends.
    Gone,
    /// The tick could not do its work. It is tried again after a delay that grows with each failure
    /// in a row; the object keeps its lane.
    Failed(Failure),
    /// As `Failed`, of a tick that moves traffic back: tried again soon, in the reserved places.
    UrgentlyFailed(Failure),
}

/// Why a tick failed, in words that fit a metric's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step: `observe`, `decide`, `apply`, `record`.
    pub step: &'static str,
    /// The step's error category.
    pub category: &'static str,
}

/// Bounds on the workers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Ticks at once, for all objects.
    pub ticks: usize,
    /// Further ticks at once, for objects that revert.
    pub urgent_ticks: usize,
    /// A tick that takes longer is dropped and counts as failed.
    pub tick_deadline: Duration,
    /// Least time between two ticks of one object, however often it is woken.
    pub spacing: Duration,
    /// The same for an object that reverts.
    pub urgent_spacing: Duration,
    /// Delay after the first failure; doubles with each one in a row.
    pub first_delay: Duration,
    /// Longest delay after failures or panics.
    pub longest_delay: Duration,
    /// Longest delay after failures of an object that reverts, and the longest that a wake waits
    /// for an object that failed.
    pub short_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ticks: 16,
            urgent_ticks: 8,
            tick_deadline: Duration::from_secs(120),
            spacing: Duration::from_millis(200),
            urgent_spacing: Duration::from_millis(20),
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(60),
            short_delay: Duration::from_secs(2),
        }
    }
}

/// What one actor and those who wake it share.
#[derive(Default)]
struct Slot {
    notify: Notify,
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    /// The first wake that no tick has served yet.
    woken: Option<Instant>,
    /// Since when a tick is due and has not started.
    due: Option<Instant>,
    /// Since when a tick runs.
    running: Option<Instant>,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.state().woken.get_or_insert_with(Instant::now);
        self.notify.notify_one();
    }
}

/// The actors of one term of leadership.
pub struct Workers<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    ticker: Arc<T>,
    limits: Limits,
    metrics: Metrics,
    slots: Mutex<HashMap<ObjectKey, Arc<Slot>>>,
    ordinary: Semaphore,
    reserved: Semaphore,
    /// No new tick is taken.
    closing: CancellationToken,
    /// Ticks in hand are dropped.
    dropped: CancellationToken,
    tasks: TaskTracker,
}

/// Whatever can be woken: the actors, as the watches see them.
pub trait Wake: Send + Sync {
    /// Runs a tick of this object as soon as it may.
    fn wake(&self, key: &ObjectKey);
    /// Runs a tick of every known object.
    fn wake_all(&self);
    /// The object whose tick hangs or never starts, if there is one: `None` means progress.
    fn stuck(&self) -> Option<Stuck>;
}

/// An object that makes no progress, for the liveness probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Which object.
    pub key: ObjectKey,
    /// What it waits for.
    pub reason: &'static str,
    /// For how long.
    pub since: Duration,
}

impl<T: Ticker> Workers<T> {
    /// No actor yet; each comes with its first wake.
    pub fn new(ticker: Arc<T>, limits: Limits, metrics: Metrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                ordinary: Semaphore::new(limits.ticks),
                reserved: Semaphore::new(limits.urgent_ticks),
                ticker,
                limits,
                metrics,
                slots: Mutex::default(),
                closing: CancellationToken::new(),
                dropped: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// What the watches and the probes use.
    #[must_use]
    pub fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(self.clone())
    }

    /// Takes no new tick and lets those in hand end; what is not done after `grace` is dropped.
    /// Returns how many were dropped.
    pub async fn finish(&self, grace: Duration) -> usize {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        if timeout(grace, self.shared.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.shared.tasks.len();
        self.shared.dropped.cancel();
        self.shared.tasks.wait().await;
        left
    }

    /// Drops every tick at its next `await`, because another replica may lead already.
    pub async fn drop_all(&self) {
        self.shared.closing.cancel();
        self.shared.dropped.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl<T> Clone for Workers<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T: Ticker> Wake for Workers<T> {
    fn wake(&self, key: &ObjectKey) {
        let shared = &self.shared;
        if shared.closing.is_cancelled() {
            return;
        }
        let mut slots = shared.slots();
        if let Some(slot) = slots.get(key) {
            slot.wake();
            return;
        }
        let slot = Arc::new(Slot::default());
        slot.wake();
        slots.insert(key.clone(), slot.clone());
        shared.tasks.spawn(actor(shared.clone(), slot, key.clone()));
    }

    fn wake_all(&self) {
        for slot in self.shared.slots().values() {
            slot.wake();
        }
    }

    fn stuck(&self) -> Option<Stuck> {
        self.shared.stuck(Instant::now())
    }
}

impl<T> Shared<T> {
    fn slots(&self) -> MutexGuard<'_, HashMap<ObjectKey, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stuck(&self, now: Instant) -> Option<Stuck> {
        // A tick is dropped at its deadline; one that outlives it does not yield, or the timer is dead.
        let longest = self.limits.tick_deadline.saturating_mul(2);
        // Ticks may queue for a place behind slow ones; this long they may not.
        let longest_wait = self.limits.tick_deadline.saturating_mul(5);
        for (key, slot) in &*self.slots() {
            let state = slot.state();
            for (since, limit, reason) in [
                (state.running, longest, "its tick does not end"),
                (state.due, longest_wait, "its tick does not start"),
            ] {
                let Some(since) = since.map(|since| now.saturating_duration_since(since)) else { continue };
                if since > limit {
                    return Some(Stuck { key: key.clone(), reason, since });
                }
            }
        }
        None
    }

    /// Waits for a place. Places are handed out in the order they are asked for.
    async fn place(&self, urgent: bool) -> Option<SemaphorePermit<'_>> {
        let _waiting = self.metrics.waiting();
        let permit = if urgent {
            tokio::select! {
                biased;
                permit = self.ordinary.acquire() => permit,
                permit = self.reserved.acquire() => permit,
            }
        } else {
            self.ordinary.acquire().await
        };
        // The semaphores are never closed.
        permit.ok()
    }
}

/// When the next tick of one object may start: pure, so that it can be tested by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pace {
    /// When a tick is due without any wake.
    timer: Option<Instant>,
    /// Before this, not even a wake starts one.
    floor: Instant,
    urgent: bool,
    failures: u32,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { timer: None, floor: now, urgent: false, failures: 0 }
    }

    /// When the next tick is due, given the first wake that is not served.
    fn due(&self, woken: Option<Instant>) -> Option<Instant> {
        let woken = woken.map(|at| at.max(self.floor));
        match (woken, self.timer) {
            (Some(woken), Some(timer)) => Some(woken.min(timer)),
            (woken, timer) => woken.or(timer),
        }
    }

    /// Takes in how the tick from `start` to `end` went.
    fn after(&mut self, ended: Ended, start: Instant, end: Instant, limits: &Limits) {
        let spacing = |urgent: bool| if urgent { limits.urgent_spacing } else { limits.spacing };
        match ended {
            Ended::Next(Next::WakeAfter(after)) => self.settle(false, Some(after), start, end, spacing(false)),
            Ended::Next(Next::Urgent(after)) => self.settle(true, Some(after), start, end, spacing(true)),
            Ended::Next(Next::Idle | Next::Gone) => self.settle(false, None, start, end, spacing(false)),
            Ended::Next(Next::Failed(_) | Next::UrgentlyFailed(_)) | Ended::TimedOut => {
                self.urgent |= matches!(ended, Ended::Next(Next::UrgentlyFailed(_)));
                let longest = if self.urgent { limits.short_delay } else { limits.longest_delay };
                let delay = self.failed(longest, limits);
                // What woke it may be the cure, so a wake waits less.
                self.floor = later(end, delay.min(limits.short_delay));
                self.timer = Some(later(end, delay));
            }
            Ended::Panicked => {
                let delay = self.failed(limits.longest_delay, limits);
                self.floor = later(end, delay);
                self.timer = Some(self.floor);
            }
        }
    }

    fn settle(&mut self, urgent: bool, after: Option<Duration>, start: Instant, end: Instant, spacing: Duration) {
        self.urgent = urgent;
        self.failures = 0;
        self.floor = later(start, spacing).max(end);
        // Counted from the start, so that the interval does not grow by the length of the tick.
        self.timer = after.map(|after| later(start, after).max(self.floor));
    }

    fn failed(&mut self, longest: Duration, limits: &Limits) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        limits.first_delay.saturating_mul(factor).min(longest)
    }
}

/// A time that far ahead; where the clock cannot hold it, far enough.
fn later(from: Instant, after: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 24 * 3600);
    from.checked_add(after.min(FAR)).unwrap_or(from)
}

#[derive(Clone, Copy, Debug)]
enum Ended {
    Next(Next),
    TimedOut,
    Panicked,
}

/// The life of one object: wait until a tick is due, wait for a place, tick, and again.
async fn actor<T: Ticker>(shared: Arc<Shared<T>>, slot: Arc<Slot>, key: ObjectKey) {
    let _counted = shared.metrics.object();
    let mut pace = Pace::new(Instant::now());
    loop {
        let Some(due) = wait_until_due(&shared, &slot, &pace).await else { break };
        slot.state().due = Some(due);
        let place = tokio::select! {
            biased;
            () = shared.closing.cancelled() => None,
            place = shared.place(pace.urgent) => place,
        };
        let Some(_place) = place else { break };
        let start = Instant::now();
        {
            let mut state = slot.state();
            // Wakes up to here are served by this tick, which reads everything live.
            *state = SlotState { woken: None, due: None, running: Some(start) };
        }
        let ended = tokio::select! {
            biased;
            () = shared.dropped.cancelled() => break,
            ended = one_tick(&shared, &key) => ended,
        };
        let end = Instant::now();
        slot.state().running = None;
        shared.metrics.tick(end.saturating_duration_since(start), start.saturating_duration_since(due));
        pace.after(ended, start, end, &shared.limits);
        if matches!(ended, Ended::Next(Next::Gone)) && retire(&shared, &slot, &key) {
            shared.metrics.forget(&key);
            return;
        }
    }
    shared.slots().remove(&key);
}

/// The time the tick is due, once it has come; `None` when no tick is to be taken any more.
async fn wait_until_due<T>(shared: &Shared<T>, slot: &Slot, pace: &Pace) -> Option<Instant> {
    loop {
        let woken = slot.state().woken;
        let due = pace.due(woken);
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return None,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => return due,
            () = slot.notify.notified() => {}
        }
    }
}

/// Takes the actor off the map unless a wake came meanwhile: then the object may be there again.
fn retire<T>(shared: &Shared<T>, slot: &Slot, key: &ObjectKey) -> bool {
    let mut slots = shared.slots();
    // Whoever wakes holds the map, so none can come between the look and the removal.
    if slot.state().woken.is_some() {
        return false;
    }
    slots.remove(key);
    true
}

async fn one_tick<T: Ticker>(shared: &Shared<T>, key: &ObjectKey) -> Ended {
    let _running = shared.metrics.running();
    let span = crate::telemetry::tick_span(key);
    // Inside the async block, so that a panic before the first `await` is caught as well.
    let tick = async { shared.ticker.tick(key.clone()).await };
    let caught = AssertUnwindSafe(timeout(shared.limits.tick_deadline, tick)).catch_unwind().instrument(span).await;
    match caught {
        Ok(Ok(next)) => {
            if let Next::Failed(Failure { step, category }) | Next::UrgentlyFailed(Failure { step, category }) = next {
                shared.metrics.error(step, category);
            }
            Ended::Next(next)
        }
        Ok(Err(_elapsed)) => {
            shared.metrics.error("tick", "deadline");
            tracing::error!(object = %key, deadline = ?shared.limits.tick_deadline, "a tick took too long and was dropped; it is tried again");
            Ended::TimedOut
        }
        // The panic hook has said where and why.
        Err(_panic) => {
            shared.metrics.panic();
            tracing::error!(object = %key, "a tick panicked; only this object is delayed");
            Ended::Panicked
        }
    }
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
