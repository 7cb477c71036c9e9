//! What a CanaryRelease said over time: every status that a watch delivered, in order, so that a short
//! stage is not missed and a repeated one is noticed. It decides nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::runtime::{utils::Backoff, watcher};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, Kind, number, text, truth};

/// One status.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it arrived.
    pub at: Instant,
    /// The same, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The whole object; `null` once it is gone.
    pub object: Value,
}

impl Seen {
    /// `status.phase`.
    #[must_use]
    pub fn phase(&self) -> &str {
        text(&self.object, "/status/phase")
    }

    /// `status.current.step`.
    #[must_use]
    pub fn step(&self) -> &str {
        text(&self.object, "/status/current/step")
    }

    /// `status.outcome`.
    #[must_use]
    pub fn outcome(&self) -> &str {
        text(&self.object, "/status/outcome")
    }

    /// `status.message`.
    #[must_use]
    pub fn message(&self) -> &str {
        text(&self.object, "/status/message")
    }

    /// `status.current.id`.
    #[must_use]
    pub fn release(&self) -> &str {
        text(&self.object, "/status/current/id")
    }

    /// `status.current.number`.
    #[must_use]
    pub fn number(&self) -> i64 {
        number(&self.object, "/status/current/number")
    }

    /// The stage, from 1.
    #[must_use]
    pub fn stage(&self) -> i64 {
        number(&self.object, "/status/current/stageIndex") + 1
    }

    /// `status.current.weight`.
    #[must_use]
    pub fn weight(&self) -> &str {
        text(&self.object, "/status/current/weight")
    }

    /// Reason and status of a condition.
    #[must_use]
    pub fn condition(&self, kind: &str) -> (&str, &str) {
        let conditions = self.object.pointer("/status/conditions").and_then(Value::as_array);
        conditions
            .into_iter()
            .flatten()
            .find(|condition| text(condition, "/type") == kind)
            .map_or(("", ""), |condition| (text(condition, "/reason"), text(condition, "/status")))
    }

    /// Whether it is armed and ready for a change.
    #[must_use]
    pub fn armed(&self) -> bool {
        truth(&self.object, "/status/hold/armed") && self.condition("Ready").1 == "True"
    }

    /// Whether the release in hand is judged at this stage (from 1).
    #[must_use]
    pub fn baking(&self, stage: i64) -> bool {
        self.phase() == "Baking" && self.stage() == stage
    }

    /// Whether the last release ended this way and nothing is under way.
    #[must_use]
    pub fn ended(&self, outcome: &str) -> bool {
        self.outcome() == outcome && self.condition("Completed") == (outcome, "True")
    }

    /// Whether the object is gone.
    #[must_use]
    pub fn gone(&self) -> bool {
        self.object.is_null()
    }

    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        if self.gone() {
            return "gone".to_owned();
        }
        format!(
            "{} {} {} {}: {}",
            self.phase(),
            text(&self.object, "/status/stage"),
            self.weight(),
            self.outcome(),
            self.message()
        )
    }
}

#[derive(Debug)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    more: watch::Sender<usize>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, object: Value) {
        let mut seen = self.seen();
        if seen.last().is_none_or(|last| last.object != object) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let unix_ms = u64::try_from(now.as_millis()).unwrap_or_default();
            seen.push(Seen { at: Instant::now(), unix_ms, object });
        }
        self.more.send_replace(seen.len());
    }
}

/// A pause after each failure, always the same.
struct Steady;

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(500))
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {}
}

/// The history of one CanaryRelease, growing.
#[derive(Debug)]
pub struct History {
    shared: Arc<Shared>,
    mark: usize,
    task: JoinHandle<()>,
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl History {
    /// Watches a CanaryRelease, there or not yet.
    #[must_use]
    pub fn watch(cluster: &Cluster, namespace: &str, name: &str) -> Self {
        let shared = Arc::new(Shared { seen: Mutex::new(Vec::new()), more: watch::Sender::new(0) });
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let stream = watcher(cluster.api(Kind::CanaryRelease, namespace), config);
        let told = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            // An API server that is away comes back: a watch that then waited long would miss a stage.
            let stream = kube::runtime::WatchStreamExt::backoff(stream, Steady).into_stream();
            futures::pin_mut!(stream);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                        told.push(serde_json::to_value(object).unwrap_or_default());
                    }
                    Ok(watcher::Event::Delete(_)) => told.push(Value::Null),
                    Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => {}
                }
            }
        });
        Self { shared, mark: 0, task }
    }

    /// Everything so far.
    #[must_use]
    pub fn all(&self) -> Vec<Seen> {
        self.shared.seen().clone()
    }

    /// The latest.
    #[must_use]
    pub fn latest(&self) -> Option<Seen> {
        self.shared.seen().last().cloned()
    }

    /// Goes on to the first status, after the one that was last waited for, that is as asked.
    ///
    /// # Errors
    /// After the deadline, with the statuses that came instead.
    pub async fn until(&mut self, what: &str, deadline: Duration, holds: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let mut more = self.shared.more.subscribe();
        let from = self.mark;
        let waiting = async {
            let mut looked = from;
            loop {
                let found = {
                    let seen = self.shared.seen();
                    let found = seen
                        .iter()
                        .enumerate()
                        .skip(looked)
                        .find(|(_, seen)| holds(seen))
                        .map(|(index, seen)| (index, seen.clone()));
                    looked = seen.len();
                    found
                };
                if let Some(found) = found {
                    return found;
                }
                // The sender lives as long as this value.
                let _ = more.changed().await;
            }
        };
        match tokio::time::timeout(deadline, waiting).await {
            Ok((index, seen)) => {
                self.mark = index;
                Ok(seen)
            }
            Err(_) => {
                let all = self.all();
                let lines: Vec<String> = all.iter().skip(from).map(Seen::line).collect();
                let tail = lines.iter().rev().take(12).rev().cloned().collect::<Vec<_>>().join("\n    ");
                bail!("not seen within {deadline:?}: {what}. The status said meanwhile:\n    {tail}")
            }
        }
    }

    /// Takes only what comes from now on.
    pub fn forget(&mut self) {
        self.mark = self.shared.seen().len().saturating_sub(1);
    }

    /// The stages that release `number` was judged at, in order, each once for every time it began.
    #[must_use]
    pub fn stages(&self, number: i64) -> Vec<i64> {
        let mut stages = Vec::new();
        let mut since = String::new();
        for seen in self.all().iter().filter(|seen| seen.number() == number && seen.step() == "Bake") {
            let began = text(&seen.object, "/status/current/stepSince").to_owned();
            if stages.last() != Some(&seen.stage()) || since != began {
                stages.push(seen.stage());
            }
            since = began;
        }
        stages
    }
}
