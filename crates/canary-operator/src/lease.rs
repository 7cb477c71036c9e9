//! Who ticks. One replica holds the Lease and the others stand by, so that no work is done twice.
//! It never makes anything safe: two leaders at once are stopped by the compare-and-swap of each
//! status, and a lost lease only costs time.
//!
//! Another's lease counts as run out when *this* process has seen no change of it for its duration,
//! by its own monotonic clock; the times in the lease are for people. A holder gives up earlier than
//! that, counted from when it *sent* its last renewal that succeeded. So two hold it at once only
//! where two monotonic clocks run at very different speeds. Every write carries the resourceVersion.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::client::brief;

/// The longest another's lease is believed without a sign of life, whatever it says.
const LONGEST: Duration = Duration::from_secs(300);

/// Times of the election. `renew_deadline` must be shorter than `duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long the others believe in a holder that they see no sign of.
    pub duration: Duration,
    /// How long a holder believes in itself without a renewal.
    pub renew_deadline: Duration,
    /// From one renewal to the next.
    pub renew: Duration,
    /// From one look at another's lease, or one failed call, to the next.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            renew: Duration::from_secs(5),
            retry: Duration::from_secs(2),
        }
    }
}

/// What the Lease said when it was last read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its resourceVersion.
    pub version: String,
    /// Who holds it; `None` when it was given back.
    pub holder: Option<String>,
    /// How long it is believed without a change.
    pub duration: Duration,
    /// How often it went from one holder to another.
    pub transitions: i32,
}

/// A record, and since when this process knows it in this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The record.
    pub record: Record,
    /// For another's record, when the answer came in; for our own, when the write was sent.
    pub since: Instant,
}

/// What to do about the lease now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none: create it, held by us.
    Create,
    /// It is free or has run out: write us into this very version.
    Take,
    /// It is ours: write a sign of life into this very version.
    Renew,
    /// Nothing until then; another's lease is read again then.
    Wait(Instant),
}

/// The next step, from nothing but the arguments.
#[must_use]
pub fn decide(now: Instant, seen: Option<&Seen>, me: &str, timing: &Timing) -> Step {
    let Some(Seen { record, since }) = seen else { return Step::Create };
    match record.holder.as_deref() {
        None | Some("") => Step::Take,
        Some(holder) if holder == me => {
            let due = later(*since, timing.renew);
            if now >= due { Step::Renew } else { Step::Wait(due) }
        }
        Some(_) => {
            let expires = later(*since, record.duration.min(LONGEST));
            if now >= expires { Step::Take } else { Step::Wait(expires.min(later(now, timing.retry))) }
        }
    }
}

fn later(from: Instant, after: Duration) -> Instant {
    from.checked_add(after).unwrap_or(from)
}

/// What this replica is to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The lease could not be read or written: nobody can say.
    #[default]
    Unknown,
    /// Another one leads.
    Standby,
    /// This one leads.
    Leader,
}

/// Takes part in the election until told to stop, then gives the lease back.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    me: String,
    timing: Timing,
    role: watch::Sender<Role>,
    seen: Option<Seen>,
    /// Until when we lead, if we do.
    held_until: Option<Instant>,
}

impl Elector {
    /// Takes part as `me` in the election at the Lease `name`. The receiver says our role.
    #[must_use]
    pub fn new(api: Api<Lease>, name: &str, me: &str, timing: Timing) -> (Self, watch::Receiver<Role>) {
        let (role, receiver) = watch::channel(Role::Unknown);
        let elector =
            Self { api, name: name.to_owned(), me: me.to_owned(), timing, role, seen: None, held_until: None };
        (elector, receiver)
    }

    /// Runs until `stop`. Cancel it only after the last tick has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut known = false;
        loop {
            let round = async {
                if known {
                    known = self.act().await;
                } else {
                    known = self.read().await;
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = round => {}
            }
        }
        self.give_back().await;
    }

    /// Reads the lease. Returns whether what we have seen is good to act on.
    async fn read(&mut self) -> bool {
        let end = self.call_deadline();
        match timeout_at(end, self.api.get_opt(&self.name)).await {
            Ok(Ok(found)) => {
                let record = found.map(|lease| self.record(&lease));
                match record {
                    // An unchanged record keeps the time it was first seen at, or it would never run out.
                    Some(record) if self.seen.as_ref().is_some_and(|seen| seen.record.version == record.version) => {
                        if self.held_until.is_none() {
                            self.role.send_replace(Role::Standby);
                        }
                    }
                    Some(record) => {
                        let mine = record.holder.as_deref() == Some(self.me.as_str());
                        let now = Instant::now();
                        // Ours from before a restart, or from a write whose answer was lost: renewed at once.
                        let since = if mine { now.checked_sub(self.timing.renew).unwrap_or(now) } else { now };
                        if !mine {
                            self.lose("another replica holds the lease");
                        }
                        self.seen = Some(Seen { record, since });
                    }
                    None => self.seen = None,
                }
                true
            }
            Ok(Err(error)) => self.failed(&format!("the lease cannot be read: {}", brief(&error))).await,
            Err(_elapsed) => self.failed("the lease cannot be read in time").await,
        }
    }

    /// One step. Returns whether what we have seen is still good to act on.
    async fn act(&mut self) -> bool {
        let now = Instant::now();
        let step = decide(now, self.seen.as_ref(), &self.me, &self.timing);
        if let Step::Wait(until) = step {
            sleep_until(until.min(self.held_until.unwrap_or(until))).await;
            self.check();
            // Ours needs no reading: every renewal proves it. Another's may have changed.
            return self.seen.as_ref().is_some_and(|seen| seen.record.holder.as_deref() == Some(self.me.as_str()));
        }
        let lease = self.lease(step);
        let write = async {
            match step {
                Step::Create => self.api.create(&PostParams::default(), &lease).await,
                _ => self.api.replace(&self.name, &PostParams::default(), &lease).await,
            }
        };
        match timeout_at(self.call_deadline(), write).await {
            Ok(Ok(written)) => {
                self.seen = Some(Seen { record: self.record(&written), since: now });
                self.held_until = Some(later(now, self.timing.renew_deadline));
                if self.role.send_replace(Role::Leader) != Role::Leader {
                    tracing::info!(identity = self.me, lease = self.name, "this replica leads");
                }
                self.check();
                true
            }
            // Someone else wrote first, or the lease came or went: look again.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                self.seen = self.seen.take().filter(|_| status.code == 409);
                false
            }
            Ok(Err(error)) => self.failed(&format!("the lease cannot be written: {}", brief(&error))).await,
            Err(_elapsed) => self.failed("the lease cannot be written in time").await,
        }
    }

    /// A holder stops waiting for an answer when it has to stop leading.
    fn call_deadline(&self) -> Instant {
        let now = Instant::now();
        let end = later(now, self.timing.renew_deadline.saturating_sub(self.timing.retry).max(self.timing.retry));
        self.held_until.map_or(end, |until| until.min(end).max(now))
    }

    async fn failed(&mut self, what: &str) -> bool {
        tracing::warn!(lease = self.name, "{what}; trying again");
        if self.held_until.is_none() {
            self.role.send_replace(Role::Unknown);
        }
        let until = later(Instant::now(), self.timing.retry);
        while let Some(held) = self.held_until.filter(|held| *held <= until) {
            sleep_until(held).await;
            self.check();
        }
        sleep_until(until).await;
        // The write may have been made all the same.
        false
    }

    /// Stops leading once our own deadline has passed.
    fn check(&mut self) {
        if self.held_until.is_some_and(|until| Instant::now() >= until) {
            self.lose("the lease was not renewed in time");
        }
    }

    fn lose(&mut self, why: &str) {
        self.held_until = None;
        if self.role.send_replace(Role::Standby) == Role::Leader {
            tracing::warn!(identity = self.me, lease = self.name, "this replica stops leading: {why}");
        }
    }

    async fn give_back(mut self) {
        let Some(seen) = self.seen.take().filter(|seen| self.held_until.is_some() && seen.record.holder.is_some())
        else {
            return;
        };
        self.role.send_replace(Role::Standby);
        let mut lease = self.lease_at(&seen, None);
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        let params = PostParams::default();
        let write = self.api.replace(&self.name, &params, &lease);
        match timeout_at(later(Instant::now(), self.timing.retry), write).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "gave the lease back"),
            _ => tracing::warn!(lease = self.name, "could not give the lease back; it runs out by itself"),
        }
    }

    fn record(&self, lease: &Lease) -> Record {
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Record {
            version: lease.metadata.resource_version.clone().unwrap_or_default(),
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            duration: seconds.map_or(self.timing.duration, Duration::from_secs),
            transitions: spec.lease_transitions.unwrap_or_default(),
        }
    }

    /// The lease as the step writes it.
    fn lease(&self, step: Step) -> Lease {
        match &self.seen {
            Some(seen) => self.lease_at(seen, Some(step)),
            None => self.spec(None, 0, true),
        }
    }

    fn lease_at(&self, seen: &Seen, step: Option<Step>) -> Lease {
        let takes = step == Some(Step::Take);
        let transitions = if takes { seen.record.transitions.saturating_add(1) } else { seen.record.transitions };
        self.spec(Some(seen.record.version.clone()), transitions, takes)
    }

    fn spec(&self, version: Option<String>, transitions: i32, acquired: bool) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), resource_version: version, ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: Some(i32::try_from(self.timing.duration.as_secs()).unwrap_or(i32::MAX)),
                lease_transitions: Some(transitions),
                acquire_time: acquired.then(|| now.clone()),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
