//! Watches that only wake. What a watch says is never a fact to decide on: each tick reads what it
//! needs live. Nothing of an object is kept but its key, whose it is and a fingerprint, and only its
//! metadata is asked for, so an object that cannot be decoded blocks nothing.
//!
//! Every watch has its own delay after a failure: one that is denied slows no other down.

mod index;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use canary_api::names;
use futures::StreamExt as _;
use kube::core::PartialObjectMeta;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::index::{Change, Effect, Index};
use crate::client::brief;
use crate::metrics::Metrics;
use crate::workers::{ObjectKey, Wake};

/// First delay after a failure of a watch; doubles with each one in a row.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Longest such delay.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Between two looks for a kind that the API server does not serve.
const ABSENT_DELAY: Duration = Duration::from_secs(60);
/// A watch that fails for longer makes the operator not ready.
const FAILING: Duration = Duration::from_secs(60);
/// A watch that failed, and then not again for this long, works.
const RECOVERED: Duration = Duration::from_secs(90);
/// From the last change of a policy until objects are woken: the API server itself takes up to a
/// second to obey a new one, and one `kubectl apply` brings many.
const SETTLE: Duration = Duration::from_secs(2);
/// The same from the first change, however many follow.
const LONGEST_SETTLE: Duration = Duration::from_secs(5);

/// Stands for the state of our admission policies and their bindings: it changes when one of them
/// is created, changed or deleted, and then the hold must be proved again. Empty until known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyGeneration(pub String);

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The resource itself.
    CanaryReleases,
    /// Armed targets.
    Targets,
    /// Our own Deployments.
    Canaries,
    /// Split routes.
    HttpRoutes,
    /// Policies that hold, stamp and keep the split.
    MutatingPolicies,
    /// Their bindings.
    MutatingBindings,
    /// Policies that refuse.
    ValidatingPolicies,
    /// Their bindings.
    ValidatingBindings,
}

impl Kind {
    /// Every kind, in the order of reports.
    pub const ALL: [Self; 8] = [
        Self::CanaryReleases,
        Self::Targets,
        Self::Canaries,
        Self::HttpRoutes,
        Self::MutatingPolicies,
        Self::MutatingBindings,
        Self::ValidatingPolicies,
        Self::ValidatingBindings,
    ];

    /// The name in reports and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CanaryReleases => "canaryreleases",
            Self::Targets => "deployments/target",
            Self::Canaries => "deployments/canary",
            Self::HttpRoutes => "httproutes",
            Self::MutatingPolicies => "mutatingadmissionpolicies",
            Self::MutatingBindings => "mutatingadmissionpolicybindings",
            Self::ValidatingPolicies => "validatingadmissionpolicies",
            Self::ValidatingBindings => "validatingadmissionpolicybindings",
        }
    }

    /// What to do where the API server does not serve the kind.
    fn absence(self) -> &'static str {
        match self {
            Self::CanaryReleases => "the CRD is not installed: kubectl apply -f crds/",
            Self::HttpRoutes => "the Gateway API is not installed; looked for again every minute",
            Self::MutatingPolicies | Self::MutatingBindings => {
                "this API server does not serve it (Kubernetes 1.36 does); nothing can be held"
            }
            _ => "this API server does not serve it",
        }
    }

    /// Whether the operator can be ready without it.
    fn may_be_absent(self) -> bool {
        !matches!(self, Self::CanaryReleases | Self::Targets | Self::Canaries)
    }

    fn policy(self) -> bool {
        matches!(
            self,
            Self::MutatingPolicies | Self::MutatingBindings | Self::ValidatingPolicies | Self::ValidatingBindings
        )
    }

    fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::CanaryReleases => (names::GROUP, "v1alpha1", "CanaryRelease", "canaryreleases"),
            Self::Targets | Self::Canaries => ("apps", "v1", "Deployment", "deployments"),
            Self::HttpRoutes => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::MutatingPolicies => ADMISSION.kind("MutatingAdmissionPolicy", "mutatingadmissionpolicies"),
            Self::MutatingBindings => {
                ADMISSION.kind("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
            }
            Self::ValidatingPolicies => ADMISSION.kind("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            Self::ValidatingBindings => {
                ADMISSION.kind("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
            }
        };
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: format!("{group}/{version}"),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }
    }

    fn selector(self) -> Option<&'static str> {
        match self {
            Self::CanaryReleases => None,
            Self::Targets | Self::HttpRoutes => Some(names::LABEL_RELEASE),
            Self::Canaries => Some(names::LABEL_OWNED_BY),
            _ => Some("app.kubernetes.io/part-of=canaryrelease"),
        }
    }
}

struct Group(&'static str, &'static str);
const ADMISSION: Group = Group("admissionregistration.k8s.io", "v1");

impl Group {
    fn kind(
        &self,
        kind: &'static str,
        plural: &'static str,
    ) -> (&'static str, &'static str, &'static str, &'static str) {
        (self.0, self.1, kind, plural)
    }
}

/// How one watch fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its first list is not there yet.
    Starting,
    /// It has its list and follows.
    Synced,
    /// The API server does not serve this kind.
    Absent,
    /// It fails, with the reason; `synced` says whether it once had its list.
    Failing {
        /// What the API server said.
        reason: String,
        /// Since when.
        since: Instant,
        /// The last failure. A watch that is resumed says nothing until something happens, so one
        /// that has not failed for a while works.
        last: Instant,
        /// Whether it once had its list.
        synced: bool,
    },
}

impl State {
    /// It had its list, failed later, and has not failed for a while.
    fn recovered(&self, now: Instant) -> bool {
        matches!(self, Self::Failing { last, synced: true, .. } if now.saturating_duration_since(*last) > RECOVERED)
    }
}

/// One line of the readiness report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which watch.
    pub kind: Kind,
    /// Whether it keeps the operator from being ready.
    pub blocks: bool,
    /// One sentence.
    pub detail: String,
}

/// All watches together.
#[derive(Clone)]
pub struct Watches {
    shared: Arc<Shared>,
}

struct Shared {
    metrics: Metrics,
    inner: Mutex<Inner>,
    /// Some state changed.
    changed: Notify,
    policies_changed: Notify,
}

struct Inner {
    index: Index,
    states: [State; Kind::ALL.len()],
    workers: Option<Arc<dyn Wake>>,
}

impl Watches {
    /// Starts every watch; they end with `stop`.
    #[must_use]
    pub fn start(
        client: &Client,
        metrics: Metrics,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> (Self, watch::Receiver<PolicyGeneration>) {
        let inner = Inner { index: Index::default(), states: std::array::from_fn(|_| State::Starting), workers: None };
        let shared = Arc::new(Shared {
            metrics,
            inner: Mutex::new(inner),
            changed: Notify::new(),
            policies_changed: Notify::new(),
        });
        for kind in Kind::ALL {
            let following = follow(shared.clone(), client.clone(), kind);
            tasks.spawn(stop.clone().run_until_cancelled_owned(following));
        }
        let (sender, receiver) = watch::channel(PolicyGeneration::default());
        tasks.spawn(stop.clone().run_until_cancelled_owned(publish(shared.clone(), sender)));
        (Self { shared }, receiver)
    }

    /// Waits until every watch has its first list or is known to be absent, at most for `bound`.
    /// Returns whether all have.
    pub async fn synced(&self, bound: Duration) -> bool {
        let all =
            self.shared.until(|inner| inner.states.iter().all(|state| matches!(state, State::Synced | State::Absent)));
        timeout(bound, all).await.is_ok()
    }

    /// From now on wakes go to these workers, beginning with one for every known object.
    pub fn attach(&self, workers: Arc<dyn Wake>) {
        let mut inner = self.shared.inner();
        let keys = inner.index.keys();
        inner.workers = Some(workers.clone());
        drop(inner);
        for key in keys {
            workers.wake(&key);
        }
    }

    /// From now on nobody is woken.
    pub fn detach(&self) {
        self.shared.inner().workers = None;
    }

    /// Whether a CanaryRelease is there, as far as its watch has heard. An answer 404 alone does not say that it is gone:
    /// while its definition is replaced the API server answers so for objects that it has.
    #[must_use]
    pub fn knows(&self, key: &ObjectKey) -> bool {
        self.shared.inner().index.knows(key)
    }

    /// How the watches fare, in the order of [`Kind::ALL`].
    #[must_use]
    pub fn report(&self) -> Vec<Report> {
        let inner = self.shared.inner();
        Kind::ALL.into_iter().zip(&inner.states).map(|(kind, state)| report(kind, state, Instant::now())).collect()
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until(&self, holds: impl Fn(&Inner) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change between the two is missed.
            changed.as_mut().enable();
            if holds(&self.inner()) {
                return;
            }
            changed.await;
        }
    }

    fn state(&self, kind: Kind, state: State) {
        let mut inner = self.inner();
        if let Some((_, known)) = Kind::ALL.into_iter().zip(&mut inner.states).find(|(known, _)| *known == kind) {
            if *known == state {
                return;
            }
            *known = state;
        }
        drop(inner);
        self.changed.notify_waiters();
        if kind.policy() {
            self.policies_changed.notify_one();
        }
    }

    fn state_of(&self, kind: Kind) -> State {
        let inner = self.inner();
        Kind::ALL
            .into_iter()
            .zip(&inner.states)
            .find(|(known, _)| *known == kind)
            .map_or(State::Starting, |(_, state)| state.clone())
    }

    fn take(&self, kind: Kind, change: Change<'_>) {
        let mut inner = self.inner();
        let effect = inner.index.take(kind, change);
        let workers = inner.workers.clone();
        drop(inner);
        let Effect { wake, policies } = effect;
        if policies {
            self.policies_changed.notify_one();
        }
        if let Some(workers) = workers {
            for key in wake {
                tracing::trace!(object = %key, kind = kind.name(), "woken");
                workers.wake(&key);
            }
        }
    }
}

/// Follows one kind for ever.
async fn follow(shared: Arc<Shared>, client: Client, kind: Kind) {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &kind.resource());
    let config = match kind.selector() {
        Some(labels) => watcher::Config::default().labels(labels),
        None => watcher::Config::default(),
    };
    let mut delay = FIRST_DELAY;
    let mut events = std::pin::pin!(watcher(api, config));
    while let Some(event) = events.next().await {
        let change = match &event {
            Ok(Event::Init) => Change::Init,
            Ok(Event::InitApply(object)) => Change::Listed(&object.metadata),
            Ok(Event::InitDone) => Change::InitDone,
            Ok(Event::Apply(object)) => Change::Applied(&object.metadata),
            Ok(Event::Delete(object)) => Change::Deleted(&object.metadata),
            Err(error) => {
                if shared.state_of(kind).recovered(Instant::now()) {
                    delay = FIRST_DELAY;
                }
                let wait = failed(&shared, kind, error, delay);
                delay = delay.saturating_mul(2).min(LONGEST_DELAY);
                // The stream does nothing until it is asked, so this is its delay.
                sleep(wait).await;
                continue;
            }
        };
        if matches!(change, Change::InitDone | Change::Applied(_) | Change::Deleted(_)) {
            delay = FIRST_DELAY;
            shared.metrics.watch_synced(kind.name(), true);
            shared.take(kind, change);
            shared.state(kind, State::Synced);
        } else {
            shared.take(kind, change);
        }
    }
    tracing::error!(kind = kind.name(), "the watch ended by itself");
    shared.metrics.error("watch", "ended");
}

/// Takes a failure in; returns how long to wait.
fn failed(shared: &Shared, kind: Kind, error: &watcher::Error, delay: Duration) -> Duration {
    shared.metrics.watch_error(kind.name());
    let before = shared.state_of(kind);
    if status_code(error) == Some(404) && before != State::Synced {
        if before != State::Absent {
            tracing::warn!(kind = kind.name(), "{}", kind.absence());
        }
        shared.metrics.watch_synced(kind.name(), false);
        shared.state(kind, State::Absent);
        // Without our own CRD nothing works: look for it more often.
        return if kind.may_be_absent() { ABSENT_DELAY } else { delay };
    }
    let reason = reason(error);
    let now = Instant::now();
    let (since, synced) = match before {
        State::Failing { synced, .. } if before.recovered(now) => (now, synced),
        State::Failing { since, synced, .. } => (since, synced),
        // The end of a watch is ordinary: it is started again at once and has lost nothing.
        State::Synced => (now, true),
        State::Starting | State::Absent => (now, false),
    };
    if delay == FIRST_DELAY {
        tracing::info!(kind = kind.name(), "the watch failed and is started again: {reason}");
    } else {
        tracing::warn!(kind = kind.name(), "the watch fails: {reason}");
    }
    shared.state(kind, State::Failing { reason, since, last: now, synced });
    delay
}

fn status_code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

fn reason(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("the list: {}", brief(error)),
        watcher::Error::WatchStartFailed(error) => format!("the start: {}", brief(error)),
        watcher::Error::WatchFailed(error) => format!("the stream: {}", brief(error)),
        watcher::Error::WatchError(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        other @ watcher::Error::NoResourceVersion => other.to_string(),
    }
}

fn report(kind: Kind, state: &State, now: Instant) -> Report {
    let (blocks, detail) = match state {
        State::Starting => (true, "waits for its first list".to_owned()),
        State::Synced => (false, "follows".to_owned()),
        State::Absent => (!kind.may_be_absent(), kind.absence().to_owned()),
        State::Failing { .. } if state.recovered(now) => (false, "follows".to_owned()),
        State::Failing { reason, since, synced, .. } => {
            let long = now.saturating_duration_since(*since);
            (!synced || long > FAILING, format!("fails for {} s: {reason}", long.as_secs()))
        }
    };
    Report { kind, blocks, detail }
}

/// Publishes the generation of the policies and wakes every object when it changes.
async fn publish(shared: Arc<Shared>, sender: watch::Sender<PolicyGeneration>) {
    // A generation of policies that are known only in part would prove holds for nothing.
    let known = |inner: &Inner| {
        Kind::ALL.into_iter().zip(&inner.states).all(|(kind, state)| !kind.policy() || *state != State::Starting)
    };
    shared.until(known).await;
    loop {
        let generation = shared.inner().generation();
        let first = sender.borrow().0.is_empty();
        let changed = sender.send_if_modified(|published| {
            let changes = *published != generation;
            published.clone_from(&generation);
            changes
        });
        if changed {
            if !first {
                tracing::info!(generation = generation.0, "the admission policies changed; every hold is proved again");
            }
            let workers = shared.inner().workers.clone();
            if let Some(workers) = workers {
                workers.wake_all();
            }
        }
        shared.policies_changed.notified().await;
        let end = Instant::now().checked_add(LONGEST_SETTLE).unwrap_or_else(Instant::now);
        let quiet = async { while timeout(SETTLE, shared.policies_changed.notified()).await.is_ok() {} };
        // Either way it has settled enough.
        let _settled = timeout_at(end, quiet).await;
    }
}

impl Inner {
    fn generation(&self) -> PolicyGeneration {
        let states = Kind::ALL.into_iter().zip(&self.states).filter(|(kind, _)| kind.policy());
        let absent = states.filter(|(_, state)| matches!(state, State::Absent)).map(|(kind, _)| kind);
        PolicyGeneration(self.index.policy_generation(absent))
    }
}

#[cfg(test)]
#[path = "watches_tests.rs"]
mod tests;
