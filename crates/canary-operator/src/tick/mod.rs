//! One tick of one release, a straight line: observe, decide, apply, record. The intent is in the
//! status, by compare-and-swap, before any effect; only giving traffic back to stable is done even
//! where the status can't be written.

mod api;
mod apply;
mod figures;
mod measure;
mod observe;
mod pods;
mod questions;
mod record;
mod side;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use canary_api::{CanaryRelease, CanaryReleaseStatus, Gate, Phase};
use canary_core::{
    Decision, Effect, Fetched, Kind, decide,
    observed::Refusal,
    record::{Carried, carried_out},
};
use canary_counters::LabelNames;
use canary_metrics::{
    ConfigError, MetricSource, Prometheus, ProviderConfig, Shared,
    pods::{PodLimits, PodScraper},
};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use self::{
    api::CallError,
    figures::{Asking, Store},
    measure::{Ledger, Source},
    record::{Desk, Journal},
};
use crate::{
    clock::Clock,
    config::Retention,
    events::{EventSink, EventType, Note},
    metrics::Metrics,
    operator::Parts,
    telemetry,
    watches::{PolicyGeneration, Watches},
    workers::{Failure, Next, ObjectKey, Ticker},
};

/// Figures in the status are refreshed at most this often.
const REFRESH: Duration = Duration::from_secs(60);
/// Sentences about what is waited for, at most this often.
const REWORD: Duration = Duration::from_secs(5);
/// After a write, how soon to look at what came of it where nothing wakes us.
const FOLLOW_UP: Duration = Duration::from_millis(300);
/// A Job that could not be created, after this long.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// An object that can't be read, after this long: no watch tells of a status that was put right.
const UNREAD: Duration = Duration::from_secs(60);
/// How many characters of what is wrong with it are said.
const QUOTED: usize = 500;
/// After a conflict.
const AGAIN: Duration = Duration::from_millis(20);

/// The provider that is the pods' own metrics endpoints; also what `default` means where no other is configured.
pub const PODS: &str = "pods";

/// Where metrics may come from, as the admin configured it.
#[derive(Debug)]
pub struct Sources {
    stores: BTreeMap<String, Store>,
    pods: PodScraper,
}

impl Sources {
    /// Clients of the providers that the configuration names, and one for the pods themselves.
    ///
    /// # Errors
    /// A provider whose configuration can't be used.
    pub fn new(configured: &[ProviderConfig], pods: PodLimits) -> Result<Self, ConfigError> {
        let mut stores = BTreeMap::new();
        for config in configured {
            let source = Shared::new(Arc::new(Prometheus::new(config.clone())?));
            stores.insert(config.name.clone(), Store::new(Arc::new(source)));
        }
        Ok(Self { stores, pods: PodScraper::new(pods)? })
    }

    /// Sources that are there already, each under its own name, beside the pods themselves.
    #[must_use]
    pub fn with(stores: impl IntoIterator<Item = Arc<dyn MetricSource>>, pods: PodScraper) -> Self {
        let stores = stores.into_iter().map(|store| (store.name().to_owned(), Store::new(store))).collect();
        Self { stores, pods }
    }

    /// The store that a CanaryRelease names, where it is one.
    fn store(&self, release: &CanaryRelease) -> Option<Store> {
        self.stores.get(&release.spec.provider).cloned()
    }

    /// The source that a CanaryRelease names, or why there is none.
    fn of(&self, release: &CanaryRelease) -> Result<Source<'_>, String> {
        let name = release.spec.provider.as_str();
        if let Some(store) = self.stores.get(name) {
            return match questions::reserved(release, store.source.labels()) {
                Some(why) => Err(why),
                None => Ok(Source::Store(store.source.as_ref())),
            };
        }
        if name != PODS && name != "default" {
            let known = self.stores.keys().map(String::as_str).chain([PODS]).collect::<Vec<_>>().join(", ");
            return Err(format!(
                "the operator has no metrics provider {name:?} (it has: {known}): correct spec.provider, or add it to the operator's configuration"
            ));
        }
        if let Some(why) = questions::reserved(release, &LabelNames::default()) {
            return Err(why);
        }
        match only_of_a_store(release) {
            Some(what) => Err(format!(
                "{what}, which the pods' own metrics can't answer: name a Prometheus in spec.provider, or add a provider {name:?} to the operator's configuration"
            )),
            None => Ok(Source::Pods(&self.pods)),
        }
    }
}

/// What a release asks for that pods themselves can't answer.
fn only_of_a_store(release: &CanaryRelease) -> Option<String> {
    if !release.spec.traffic.requests.by.is_pod() {
        return Some("spec.traffic.requests is by Service".to_owned());
    }
    let gates = &release.spec.gates;
    let value = gates.iter().find(|gate| gate.value.is_some()).map(|gate| (gate, "is a PromQL value"));
    let asks = value.or_else(|| gates.iter().find(|gate| !gate.by.is_pod()).map(|gate| (gate, "is by Service")));
    asks.map(|(gate, what)| format!("gate {} {what}", gate.name))
}

/// Drives releases.
pub struct ReleaseTicker {
    client: Client,
    events: EventSink,
    sources: Sources,
    policies: watch::Receiver<PolicyGeneration>,
    watches: Watches,
    metrics: Metrics,
    records: Retention,
    clock: Clock,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
}

/// What is kept of one object between ticks; all of it may be lost.
#[derive(Debug, Default)]
struct Memory {
    ledger: Option<Ledger>,
    written: Option<Instant>,
    journal: Journal,
    asking: Asking,
    /// Jobs that could not be created, and when that was.
    refused: BTreeMap<String, (Instant, Refusal)>,
}

impl Memory {
    /// Jobs that could not be created, of those that are still wanted.
    fn refusals(&mut self, release: &CanaryRelease) -> BTreeMap<String, Refusal> {
        let current = release.status.as_ref().and_then(|status| status.current.as_ref());
        let wanted = |job: &str| {
            current.is_some_and(|current| current.jobs.iter().any(|run| run.job == job && run.state.is_open()))
        };
        self.refused.retain(|job, _| wanted(job));
        let now = |at: &Instant, refusal: &Refusal| Refusal { fresh: at.elapsed() < TRY_AGAIN, ..refusal.clone() };
        self.refused.iter().map(|(job, (at, refusal))| (job.clone(), now(at, refusal))).collect()
    }
}

impl ReleaseTicker {
    /// A ticker on a cluster.
    #[must_use]
    pub fn new(parts: Parts, sources: Sources, records: Retention) -> Self {
        let Parts { client, events, policy_generation, watches, metrics, clock, .. } = parts;
        let memory = Mutex::default();
        Self { client, events, sources, policies: policy_generation, watches, metrics, records, clock, memory }
    }

    fn desk(&self) -> Desk<'_> {
        Desk { client: &self.client, metrics: &self.metrics, retention: self.records, clock: &self.clock }
    }

    fn recall(&self, key: &ObjectKey) -> Memory {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(key).unwrap_or_default()
    }

    fn keep(&self, key: &ObjectKey, memory: Memory) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), memory);
    }

    async fn run(&self, key: &ObjectKey, memory: &mut Memory) -> Next {
        let folder = api::folder(Kind::CanaryRelease, &key.namespace);
        let raw = match api::get(&self.client, folder, &key.name).await {
            Fetched::Known(raw) => raw,
            Fetched::Missing if self.watches.knows(key) => {
                tracing::warn!("the CanaryRelease was not found, and no deletion of it was heard of; looked for again");
                return Next::Failed(Failure { step: "observe", category: "gone" });
            }
            Fetched::Missing => {
                self.metrics.forget(key);
                memory.journal.last_words(&self.desk()).await;
                return Next::Gone;
            }
            Fetched::Failed(why) => {
                tracing::warn!("the CanaryRelease could not be read: {why}");
                return Next::Failed(Failure { step: "observe", category: "unavailable" });
            }
        };
        let release: CanaryRelease = match serde_json::from_value(raw.clone()) {
            Ok(release) => release,
            Err(error) => {
                // Read once more, slowly, for the field.
                let named = serde_path_to_error::deserialize::<_, CanaryRelease>(&raw).err();
                let why = named.map_or_else(|| error.to_string(), |named| named.to_string());
                return self.undecodable(key, &raw, &why).await;
            }
        };
        let policies = self.policies.borrow().0.clone();
        let mut observed = observe::cluster(&self.client, release, &policies).await;
        observed.jobs.refused = memory.refusals(&observed.release);
        let source = self.sources.of(&observed.release);
        observed.provider_problem = source.as_ref().err().cloned();
        observed.names_pods = source.as_ref().is_ok_and(Source::names_pods);
        let now = self.clock.now();
        memory.asking.collect(memory.ledger.as_mut());
        measure::gates(&mut memory.ledger, source, &mut observed, now).await;
        let now = self.clock.now();
        let decision = decide(&observed, now);
        self.count(key, &observed.release, &decision.status);
        let mut carried = Carried::default();
        let next = self.carry_out(key, &raw, memory, &decision, &mut carried).await;
        // Last of all: whatever a record needs, the release has had its writes.
        let store = self.sources.store(&observed.release);
        let Some(done) = carried_out(&observed, decision, &carried) else { return next };
        let again = memory.journal.keep(&self.desk(), &observed, &done, carried.status, now).await;
        if let Some(store) = store {
            memory.asking.begin(memory.ledger.as_mut(), store, &observed, now);
        }
        if next == Next::Idle { again.map_or(next, Next::WakeAfter) } else { next }
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        raw: &Value,
        memory: &mut Memory,
        decision: &Decision,
        carried: &mut Carried,
    ) -> Next {
        let older = |age: Duration| memory.written.is_none_or(|written| written.elapsed() >= age);
        let stale = older(REFRESH);
        // The last word must stand: nothing would come back to write it.
        let words = decision.words && (older(REWORD) || decision.wake_after.is_none());
        let differs = raw.get("status").is_none_or(|status| *status != json!(decision.status));
        // Without our finalizer a deletion no longer waits for us: what is left of it is others'.
        let left = decision.gone && decision.effects.is_empty();
        let write = !left && (decision.decisive || words || (differs && stale && in_motion(&decision.status)));
        if write {
            let mut object = raw.clone();
            if let Some(fields) = object.as_object_mut() {
                fields.insert("status".to_owned(), json!(decision.status));
            }
            match api::put_status(&self.client, api::folder(Kind::CanaryRelease, &key.namespace), &object).await {
                Ok(written) => {
                    memory.written = Some(Instant::now());
                    self.tell(key, &written, raw, decision);
                    carried.told = true;
                }
                Err(CallError::Conflict { .. }) => return again(decision),
                Err(CallError::Gone { .. }) => return Next::WakeAfter(AGAIN),
                Err(error) => return self.despite(key, decision, &error, carried).await,
            }
        } else if decision.effects.iter().any(|effect| effect.kind() != Kind::CanaryRelease) {
            // A status that is written shows that nobody else has decided since this tick read it. Without one that is
            // looked at: what was read of other objects since then must not be put back to what was.
            match api::is_as_read(&self.client, api::folder(Kind::CanaryRelease, &key.namespace), raw).await {
                Ok(()) => {}
                Err(CallError::Conflict { .. }) => return again(decision),
                Err(CallError::Gone { .. }) => return Next::WakeAfter(AGAIN),
                Err(error) => return self.despite(key, decision, &error, carried).await,
            }
        }
        carried.status = true;
        let effects = &decision.effects;
        let done = &mut carried.effects;
        let refused = |name: &str, why: Refusal| {
            memory.refused.insert(name.to_owned(), (Instant::now(), why));
        };
        if let Err(error) = apply::effects(&self.client, &key.namespace, effects, |_| true, done, refused).await {
            return self.ended("apply", decision, &error);
        }
        if !write && !decision.notes.is_empty() {
            // What was put right without a change of the status, such as a route that drifted, is said too.
            self.tell(key, raw, raw, decision);
            carried.told = true;
        }
        if left {
            return Next::Idle;
        }
        next(decision)
    }

    /// The status could not be written: traffic goes back to stable all the same, and nothing else is done.
    async fn despite(&self, key: &ObjectKey, decision: &Decision, error: &CallError, carried: &mut Carried) -> Next {
        let (effects, done) = (&decision.effects, &mut carried.effects);
        let back = Effect::gives_traffic_back;
        let no_job = |_: &str, _: Refusal| {};
        if let Err(second) = apply::effects(&self.client, &key.namespace, effects, back, done, no_job).await {
            tracing::warn!("traffic could not be given back: {second}");
        }
        self.ended("record", decision, error)
    }

    fn ended(&self, step: &'static str, decision: &Decision, error: &CallError) -> Next {
        match error {
            CallError::Conflict { .. } | CallError::Gone { .. } => {
                tracing::info!("{error}; decided afresh");
                again(decision)
            }
            _ => {
                tracing::warn!("{error}");
                let failure = Failure { step, category: error.category() };
                if reverting(decision) { Next::UrgentlyFailed(failure) } else { Next::Failed(failure) }
            }
        }
    }

    /// What this tick found, for the metrics and the tick's span.
    fn count(&self, key: &ObjectKey, release: &CanaryRelease, status: &CanaryReleaseStatus) {
        let phase = status.phase.as_str();
        self.metrics.phase(key, phase);
        let id = status.current.as_ref().map_or("", |current| current.id.as_str());
        telemetry::describe(id, phase, &status.stage);
        if !in_motion(status) {
            return;
        }
        for shown in &status.gates {
            let gate = release.spec.gates.iter().find(|gate| gate.name == shown.gate);
            self.metrics.verdict(gate.map_or("unknown", kind_of), &shown.verdict);
        }
    }

    /// Events and metrics, once the status says the same.
    fn tell(&self, key: &ObjectKey, written: &Value, before: &Value, decision: &Decision) {
        let text = |pointer: &str| Some(canary_core::object::text(written, pointer).to_owned());
        for note in &decision.notes {
            tracing::info!(reason = note.reason, "{}", note.text);
            let regarding = ObjectReference {
                api_version: text("/apiVersion"),
                kind: text("/kind"),
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                uid: text("/metadata/uid"),
                resource_version: text("/metadata/resourceVersion"),
                field_path: None,
            };
            let type_ = if note.warning { EventType::Warning } else { EventType::Normal };
            self.events.publish(&Note {
                regarding,
                type_,
                reason: note.reason.to_owned(),
                action: decision.status.phase.as_str().to_owned(),
                note: note.text.clone(),
            });
        }
        // Each release that ends leaves a line `<time> <outcome> ...`.
        let ended = decision.status.history.last();
        let known = canary_core::object::items(before, "/status/history").last().and_then(Value::as_str);
        if let Some(outcome) = ended.filter(|line| known != Some(line.as_str())).and_then(|line| line.split(' ').nth(1))
        {
            self.metrics.release_ended(outcome);
        }
    }

    /// An object that this build can't read harms itself only: said on the object, where its status can be written.
    async fn undecodable(&self, key: &ObjectKey, raw: &Value, why: &str) -> Next {
        // What it quotes may be as long as an object may be.
        let why: String = why.chars().take(QUOTED).collect();
        let message = format!("this operator can't read the object: {why}; correct it, or upgrade the operator");
        tracing::warn!("{message}");
        if canary_core::object::text(raw, "/status/message") == message {
            return Next::WakeAfter(UNREAD);
        }
        let mut object = raw.clone();
        let status = object.as_object_mut().map(|fields| fields.entry("status").or_insert_with(|| json!({})));
        if let Some(fields) = status.and_then(Value::as_object_mut) {
            let now = self.clock.now().round(jiff::Unit::Second).unwrap_or_default().to_string();
            let condition = |kind: &str, truth: &str| json!({"type": kind, "status": truth, "reason": "Undecodable", "message": message, "lastTransitionTime": now});
            fields.insert("message".to_owned(), json!(message));
            fields.insert("phase".to_owned(), json!(Phase::Pending));
            fields.insert(
                "conditions".to_owned(),
                json!([condition("Ready", "False"), condition("Reconciling", "False"), condition("Stalled", "True")]),
            );
        }
        match api::put_status(&self.client, api::folder(Kind::CanaryRelease, &key.namespace), &object).await {
            Ok(_) => Next::WakeAfter(UNREAD),
            Err(error) => {
                tracing::warn!("{error}");
                Next::Failed(Failure { step: "observe", category: "undecodable" })
            }
        }
    }
}

fn kind_of(gate: &Gate) -> &'static str {
    let kinds = [
        (gate.error_rate.is_some(), "errorRate"),
        (gate.latency.is_some(), "latency"),
        (gate.event_rate.is_some(), "eventRate"),
        (gate.relative.is_some(), "relative"),
    ];
    kinds.into_iter().find(|(is, _)| *is).map_or("value", |(_, kind)| kind)
}

fn in_motion(status: &CanaryReleaseStatus) -> bool {
    status.current.as_ref().is_some_and(|current| current.step != canary_api::Step::Done)
}

fn reverting(decision: &Decision) -> bool {
    decision.status.phase == Phase::Reverting
}

fn again(decision: &Decision) -> Next {
    if reverting(decision) { Next::Urgent(AGAIN) } else { Next::WakeAfter(AGAIN) }
}

fn next(decision: &Decision) -> Next {
    let follow_up = (!decision.effects.is_empty()).then_some(FOLLOW_UP);
    let after = match (decision.wake_after, follow_up) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    match after {
        Some(after) if reverting(decision) => Next::Urgent(after),
        Some(after) => Next::WakeAfter(after),
        None => Next::Idle,
    }
}

impl Ticker for ReleaseTicker {
    async fn tick(&self, key: ObjectKey) -> Next {
        let mut memory = self.recall(&key);
        let next = self.run(&key, &mut memory).await;
        if next != Next::Gone {
            self.keep(&key, memory);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(gate: Value, requests: &str) -> CanaryRelease {
        let requests = json!({"counter": "r", "by": requests});
        serde_json::from_value(json!({
            "apiVersion": "canaryrelease.dev/v1alpha1", "kind": "CanaryRelease", "metadata": {"name": "web"},
            "spec": {
                "target": {"name": "web"}, "stages": [{"weight": "100%", "duration": "1m"}], "gates": [gate],
                "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": requests},
            },
        }))
        .unwrap()
    }

    #[test]
    fn what_pods_cannot_answer_is_a_problem_of_the_provider() {
        let sources = Sources::new(&[], PodLimits::default()).unwrap();
        let errors = |by: &str| json!({"name": "e", "by": by, "errorRate": {"bad": "b", "total": "t", "limit": "1%"}});
        let why = |gate: Value, requests: &str| sources.of(&release(gate, requests)).err();
        assert_eq!(why(errors("Pod"), "Pod"), None);
        assert!(
            why(errors("Service"), "Pod").unwrap().starts_with("gate e is by Service, which the pods' own metrics")
        );
        assert!(why(errors("Pod"), "Service").unwrap().starts_with("spec.traffic.requests is by Service, which"));
        let value = json!({"name": "v", "value": {"query": "up", "max": 1.0}});
        assert!(why(value, "Pod").unwrap().starts_with("gate v is a PromQL value, which"));
        let strays = json!({"name": "e", "errorRate": {"bad": "b{namespace=\"theirs\"}", "total": "t", "limit": "1%"}});
        assert!(why(strays, "Pod").unwrap().contains("the label \"namespace\" is set by the operator"));
    }
}
