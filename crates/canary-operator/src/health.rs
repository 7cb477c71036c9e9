//! What the probes say. Live: the operator makes progress. Ready: it knows its objects and its role.
//! It collects; it never restarts or repairs anything.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, interval};

use crate::lease::Role;
use crate::watches::Watches;
use crate::workers::Wake;

/// From one heartbeat to the next.
const BEAT: Duration = Duration::from_secs(1);
/// Without a heartbeat for this long, the runtime or its timer is stuck.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Collects what the probes need. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

struct Shared {
    beat: Mutex<Instant>,
    watches: OnceLock<Watches>,
    role: watch::Receiver<Role>,
    workers: Mutex<Option<Arc<dyn Wake>>>,
}

/// The answer of `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// Whether the operator is ready.
    pub ready: bool,
    /// `leader`, `standby` or `unknown`.
    pub role: &'static str,
    /// What keeps it from being ready, one sentence each.
    pub waits_for: Vec<String>,
    /// How each watch fares.
    pub watches: Vec<WatchLine>,
}

/// How one watch fares.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct WatchLine {
    /// The kind.
    pub kind: &'static str,
    /// One sentence.
    pub detail: String,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Health {
    /// Nothing is known yet but where our role will stand.
    #[must_use]
    pub fn new(role: watch::Receiver<Role>) -> Self {
        let shared =
            Shared { beat: Mutex::new(Instant::now()), watches: OnceLock::new(), role, workers: Mutex::new(None) };
        Self { shared: Arc::new(shared) }
    }

    /// Reports on these watches from now on.
    pub fn watches(&self, watches: Watches) {
        // Set once, at start.
        let _set_already = self.shared.watches.set(watches);
    }

    /// Reports on these workers from now on, or on none.
    pub fn workers(&self, workers: Option<Arc<dyn Wake>>) {
        *locked(&self.shared.workers) = workers;
    }

    /// Beats for ever. It beats only while the runtime runs tasks and its timer goes.
    pub async fn beat(self) {
        let mut beats = interval(BEAT);
        loop {
            *locked(&self.shared.beat) = beats.tick().await;
        }
    }

    /// Nothing, or what is stuck.
    ///
    /// # Errors
    /// One sentence on what makes no progress.
    pub fn live(&self) -> Result<(), String> {
        let pause = Instant::now().saturating_duration_since(*locked(&self.shared.beat));
        if pause > LONGEST_PAUSE {
            return Err(format!("no heartbeat for {} s: the runtime is stuck", pause.as_secs()));
        }
        let workers = locked(&self.shared.workers).clone();
        match workers.and_then(|workers| workers.stuck()) {
            Some(stuck) => Err(format!("{}: {}, for {} s", stuck.key, stuck.reason, stuck.since.as_secs())),
            None => Ok(()),
        }
    }

    /// Whether the operator knows its objects and its role.
    #[must_use]
    pub fn ready(&self) -> Readiness {
        let role = match *self.shared.role.borrow() {
            Role::Leader => "leader",
            Role::Standby => "standby",
            Role::Unknown => "unknown",
        };
        let reports = self.shared.watches.get().map(Watches::report).unwrap_or_default();
        let mut waits_for: Vec<String> = reports
            .iter()
            .filter(|report| report.blocks)
            .map(|report| format!("{}: {}", report.kind.name(), report.detail))
            .collect();
        if reports.is_empty() {
            waits_for.push("the watches are not started".to_owned());
        }
        if role == "unknown" {
            waits_for.push("the lease can be neither read nor written; see the log".to_owned());
        }
        let watches =
            reports.into_iter().map(|report| WatchLine { kind: report.kind.name(), detail: report.detail }).collect();
        Readiness { ready: waits_for.is_empty(), role, waits_for, watches }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::workers::{ObjectKey, Stuck};

    struct Hung;

    impl Wake for Hung {
        fn wake(&self, _key: &ObjectKey) {}
        fn wake_all(&self) {}
        fn stuck(&self) -> Option<Stuck> {
            Some(Stuck { key: ObjectKey::new("shop", "web"), reason: "its tick does not end", since: BEAT })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_heartbeat_the_operator_is_not_live() {
        let (_sender, role) = watch::channel(Role::Leader);
        let health = Health::new(role);
        let beating = tokio::spawn(health.clone().beat());
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(health.live(), Ok(()));
        beating.abort();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(health.live().unwrap_err().contains("no heartbeat"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_object_is_named() {
        let (_sender, role) = watch::channel(Role::Leader);
        let health = Health::new(role);
        health.workers(Some(Arc::new(Hung)));
        assert!(health.live().unwrap_err().starts_with("shop/web: its tick does not end"));
        health.workers(None);
        assert_eq!(health.live(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_role_the_operator_is_not_ready_and_says_why() {
        let (_sender, role) = watch::channel(Role::Unknown);
        let ready = Health::new(role).ready();
        assert!(!ready.ready);
        assert!(ready.waits_for.iter().any(|line| line.contains("lease")), "{ready:?}");
    }
}
