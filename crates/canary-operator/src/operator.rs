//! The wiring: what starts when, what ends when, and who ticks while we lead. It holds no logic of
//! its own beyond that order.
//!
//! Start: watches first, then ticks, so that the first ticks find the policies' generation known;
//! but no watch that fails keeps them back for long. End: no new tick, the tick in hand to its end,
//! then the lease back, then the last Events. A lost lease drops the ticks and goes on as standby.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use canary_metrics::ProviderConfig;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::Clients;
use crate::clock::Clock;
use crate::config::Settings;
use crate::events::{self, EventSink};
use crate::health::Health;
use crate::http;
use crate::lease::{Elector, Role};
use crate::metrics::Metrics;
use crate::watches::{PolicyGeneration, Watches};
use crate::workers::{Ticker, Workers};

/// Ticks start at the latest this long after we lead, whatever the watches do.
const SYNC_BOUND: Duration = Duration::from_secs(10);

/// What the tick is made of; it outlives terms of leadership.
pub struct Parts {
    /// For reads and writes.
    pub client: Client,
    /// Takes Events, without waiting.
    pub events: EventSink,
    /// Where metrics come from, checked, by unique name.
    pub providers: Vec<ProviderConfig>,
    /// Changes when a hold must be proved again.
    pub policy_generation: watch::Receiver<PolicyGeneration>,
    /// What they have heard of; asked only whether an object is gone for good.
    pub watches: Watches,
    /// For verdicts, outcomes, phases and errors.
    pub metrics: Metrics,
    /// The time of day that ticks decide by.
    pub clock: Clock,
}

/// Runs until `stop` is cancelled. Returns once everything has ended.
pub async fn run<T: Ticker>(
    settings: &Settings,
    clients: Clients,
    metrics: Metrics,
    listener: TcpListener,
    ticker: impl FnOnce(Parts) -> T,
    stop: CancellationToken,
) {
    let background = TaskTracker::new();
    // Ends what runs in the background, after the last tick.
    let ending = CancellationToken::new();
    // Ends the election, after the last tick and before the rest.
    let resigning = CancellationToken::new();

    let identity = identity(settings);
    let namespace = settings.args.namespace.clone().unwrap_or_else(|| clients.namespace.clone());
    let (role, election) = elect(settings, &clients, &namespace, &identity, resigning.clone());
    let health = Health::new(role.clone());
    background.spawn(ending.clone().run_until_cancelled_owned(health.clone().beat()));
    background.spawn(ending.clone().run_until_cancelled_owned(http::serve(listener, health.clone(), metrics.clone())));

    let (watches, policy_generation) = Watches::start(&clients.api, metrics.clone(), &background, &ending);
    health.watches(watches.clone());
    let instance = format!("{namespace}/{identity}");
    let (events, writer) = events::channel(clients.api.clone(), metrics.clone(), &instance);
    background.spawn(writer.run(ending.clone()));
    background.close();

    let ticker = Arc::new(ticker(Parts {
        client: clients.api,
        events,
        providers: settings.providers.clone(),
        policy_generation,
        watches: watches.clone(),
        metrics: metrics.clone(),
        clock: clients.clock.clone(),
    }));
    let mut terms = Terms { settings, watches, health, metrics, role, ticker };
    terms.run(&stop).await;

    resigning.cancel();
    if let Some(election) = election {
        // It panics never; if it did, the lease would run out by itself.
        let _ended = election.await;
    }
    ending.cancel();
    let bound = events::LAST_WRITES.saturating_mul(2);
    if timeout(bound, background.wait()).await.is_err() {
        tracing::warn!("something in the background did not end in time");
    }
    tracing::info!("stopped");
}

/// The terms in which this replica leads.
struct Terms<'a, T> {
    settings: &'a Settings,
    watches: Watches,
    health: Health,
    metrics: Metrics,
    role: watch::Receiver<Role>,
    ticker: Arc<T>,
}

impl<T: Ticker> Terms<'_, T> {
    /// One term after another, until `stop`.
    async fn run(&mut self, stop: &CancellationToken) {
        while stop.run_until_cancelled(self.led()).await.is_some() {
            if stop.run_until_cancelled(self.watches.synced(SYNC_BOUND)).await == Some(false) {
                for report in self.watches.report().iter().filter(|report| report.blocks) {
                    tracing::warn!(kind = report.kind.name(), "starting without this watch: {}", report.detail);
                }
            }
            self.term(stop).await;
        }
    }

    async fn led(&mut self) {
        // The sender lives as long as the election; without it nobody can lead.
        let leads = self.role.wait_for(|role| *role == Role::Leader).await.is_ok();
        if !leads {
            std::future::pending::<()>().await;
        }
    }

    /// One term: ends with `stop`, or when the lease is lost.
    async fn term(&mut self, stop: &CancellationToken) {
        let workers = Workers::new(self.ticker.clone(), self.settings.limits(), self.metrics.clone());
        self.metrics.leader(true);
        self.health.workers(Some(workers.waker()));
        self.watches.attach(workers.waker());
        let kept = {
            let role = &mut self.role;
            let mut lost = pin!(async { role.wait_for(|role| *role != Role::Leader).await.is_ok() });
            tokio::select! {
                biased;
                _ = &mut lost => false,
                () = stop.cancelled() => {
                    tracing::info!(grace = ?self.settings.args.shutdown_grace, "stopping: the ticks in hand end first");
                    // The lease may be lost even now; then there is nothing to finish.
                    tokio::select! {
                        biased;
                        _ = &mut lost => false,
                        dropped = workers.finish(self.settings.args.shutdown_grace) => {
                            if dropped > 0 {
                                tracing::warn!(dropped, "ticks did not end in time and were dropped; the next leader goes on from the status");
                            }
                            true
                        }
                    }
                }
            }
        };
        self.watches.detach();
        if !kept {
            workers.drop_all().await;
            self.metrics.forget_all();
        }
        self.health.workers(None);
        self.metrics.leader(false);
    }
}

/// Starts the election, or declares us the leader where there is none.
fn elect(
    settings: &Settings,
    clients: &Clients,
    namespace: &str,
    identity: &str,
    stop: CancellationToken,
) -> (watch::Receiver<Role>, Option<JoinHandle<()>>) {
    if !settings.args.leader_elect {
        let (sender, role) = watch::channel(Role::Leader);
        // Kept for as long as we run, since a closed channel means that nobody can lead.
        let keep = async move {
            stop.cancelled().await;
            drop(sender);
        };
        return (role, Some(tokio::spawn(keep)));
    }
    let api: Api<Lease> = Api::namespaced(clients.lease.clone(), namespace);
    let (elector, role) = Elector::new(api, &settings.args.lease_name, identity, settings.timing());
    (role, Some(tokio::spawn(elector.run(stop))))
}

/// Who we are in the lease: the pod's name where there is one, because a container that is started
/// again in the same pod may go on at once. Elsewhere a name that no other process has.
fn identity(settings: &Settings) -> String {
    settings.args.identity.clone().unwrap_or_else(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let unique = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        let unique = unique.split('-').next().unwrap_or_default().to_owned();
        let host = if host.trim().is_empty() { "operator" } else { host.trim() };
        format!("{host}-{}{unique}", std::process::id())
    })
}

#[cfg(test)]
#[path = "operator_tests.rs"]
mod tests;
