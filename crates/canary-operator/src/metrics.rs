//! The operator's own metrics, in OpenMetrics text. It names and counts; it never reads a cluster and
//! never carries an object's name as a label, so the number of series does not grow with the cluster.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::workers::ObjectKey;

/// Seconds; from a tick without work to one that waits for slow calls.
const TICK_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// Seconds; one call of the API server.
const CALL_BUCKETS: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 4.0, 8.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    verb: String,
    resource: String,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabels {
    verb: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    step: &'static str,
    category: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerdictLabels {
    gate: String,
    verdict: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabels {
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// Handles to every metric; cheap to clone, safe to share.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    tick_seconds: Histogram,
    tick_lag_seconds: Histogram,
    ticks_running: Gauge,
    ticks_waiting: Gauge,
    objects: Gauge,
    panics: Counter,
    errors: Family<ErrorLabels, Counter>,
    api_requests: Family<CallLabels, Counter>,
    api_seconds: Family<VerbLabels, Histogram, fn() -> Histogram>,
    watch_errors: Family<KindLabels, Counter>,
    watch_synced: Family<KindLabels, Gauge>,
    verdicts: Family<VerdictLabels, Counter>,
    releases: Family<OutcomeLabels, Counter>,
    phase: Family<PhaseLabels, Gauge>,
    phases: Arc<Mutex<HashMap<ObjectKey, String>>>,
    leader: Gauge,
    events: Family<ResultLabels, Counter>,
    record_writes: Family<ResultLabels, Counter>,
    resident: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A fresh set of metrics, all at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let resident = Gauge::default();
        registry.register("process_resident_memory_bytes", "Resident memory of the operator", resident.clone());
        let own = registry.sub_registry_with_prefix("canaryrelease");
        let call_histogram: fn() -> Histogram = || Histogram::new(CALL_BUCKETS);
        let mut metrics = Self {
            registry: Arc::new(Registry::default()),
            tick_seconds: Histogram::new(TICK_BUCKETS),
            tick_lag_seconds: Histogram::new(TICK_BUCKETS),
            ticks_running: Gauge::default(),
            ticks_waiting: Gauge::default(),
            objects: Gauge::default(),
            panics: Counter::default(),
            errors: Family::default(),
            api_requests: Family::default(),
            api_seconds: Family::new_with_constructor(call_histogram),
            watch_errors: Family::default(),
            watch_synced: Family::default(),
            verdicts: Family::default(),
            releases: Family::default(),
            phase: Family::default(),
            phases: Arc::default(),
            leader: Gauge::default(),
            events: Family::default(),
            record_writes: Family::default(),
            resident,
        };
        own.register("build", "The operator's build", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        own.register("tick_seconds", "Time one tick took", metrics.tick_seconds.clone());
        own.register(
            "tick_lag_seconds",
            "Time from when a tick was due to its start",
            metrics.tick_lag_seconds.clone(),
        );
        own.register("ticks_running", "Ticks in hand", metrics.ticks_running.clone());
        own.register("ticks_waiting", "Ticks that are due and wait for a free place", metrics.ticks_waiting.clone());
        own.register("objects", "CanaryReleases that this replica drives", metrics.objects.clone());
        own.register("tick_panics", "Ticks that panicked", metrics.panics.clone());
        own.register("errors", "Errors by the step they arose in and their category", metrics.errors.clone());
        own.register("api_requests", "Requests to the API server", metrics.api_requests.clone());
        own.register(
            "api_request_seconds",
            "Time to the answer's header, watches left out",
            metrics.api_seconds.clone(),
        );
        own.register("watch_errors", "Failures of a watch", metrics.watch_errors.clone());
        own.register("watch_synced", "1 where the watch of this kind has its first list", metrics.watch_synced.clone());
        own.register("verdicts", "Verdicts of gates by the gate's kind", metrics.verdicts.clone());
        own.register("releases", "Releases that ended, by outcome", metrics.releases.clone());
        own.register("phase", "CanaryReleases by phase", metrics.phase.clone());
        own.register("leader", "1 while this replica leads", metrics.leader.clone());
        own.register("events", "Events by what became of them", metrics.events.clone());
        own.register(
            "record_writes",
            "Writes of release records, and failures to read or write one",
            metrics.record_writes.clone(),
        );
        metrics.registry = Arc::new(registry);
        metrics
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// Only where the encoder itself fails.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes);
        }
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// One tick ended after `took`; it had started `lag` after it was due.
    pub fn tick(&self, took: Duration, lag: Duration) {
        self.tick_seconds.observe(took.as_secs_f64());
        self.tick_lag_seconds.observe(lag.as_secs_f64());
    }

    /// Ticks in hand, as a gauge that follows the returned guard.
    pub(crate) fn running(&self) -> Held {
        Held::new(&self.ticks_running)
    }

    /// Ticks that wait for a place, as a gauge that follows the returned guard.
    pub(crate) fn waiting(&self) -> Held {
        Held::new(&self.ticks_waiting)
    }

    /// Objects with an actor, as a gauge that follows the returned guard.
    pub(crate) fn object(&self) -> Held {
        Held::new(&self.objects)
    }

    /// A tick panicked.
    pub fn panic(&self) {
        self.panics.inc();
    }

    /// An error in `step` of the given category; both static, as in the errors' `category()`.
    pub fn error(&self, step: &'static str, category: &'static str) {
        self.errors.get_or_create(&ErrorLabels { step, category }).inc();
    }

    /// A request to the API server was answered with `code`, or with a word such as `timeout`.
    pub fn api_request(&self, verb: &str, resource: &str, code: &str, took: Option<Duration>) {
        self.api_requests
            .get_or_create(&CallLabels { verb: verb.to_owned(), resource: resource.to_owned(), code: code.to_owned() })
            .inc();
        if let Some(took) = took {
            self.api_seconds.get_or_create(&VerbLabels { verb: verb.to_owned() }).observe(took.as_secs_f64());
        }
    }

    /// Requests so far with this verb, resource and code.
    #[must_use]
    pub fn api_requests(&self, verb: &str, resource: &str, code: &str) -> u64 {
        self.api_requests
            .get_or_create(&CallLabels { verb: verb.to_owned(), resource: resource.to_owned(), code: code.to_owned() })
            .get()
    }

    /// A watch failed.
    pub fn watch_error(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&KindLabels { kind }).inc();
    }

    /// Whether the watch of this kind has its first list.
    pub fn watch_synced(&self, kind: &'static str, synced: bool) {
        self.watch_synced.get_or_create(&KindLabels { kind }).set(i64::from(synced));
    }

    /// A gate of the given kind (`errorRate`, …) came to a verdict (`Pass`, …).
    pub fn verdict(&self, gate: &str, verdict: &str) {
        self.verdicts.get_or_create(&VerdictLabels { gate: gate.to_owned(), verdict: verdict.to_owned() }).inc();
    }

    /// A release ended (`Promoted`, `RolledBack`, …).
    pub fn release_ended(&self, outcome: &str) {
        self.releases.get_or_create(&OutcomeLabels { outcome: outcome.to_owned() }).inc();
    }

    /// This CanaryRelease is now in `phase`.
    pub fn phase(&self, key: &ObjectKey, phase: &str) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        if phases.get(key).is_some_and(|known| known == phase) {
            return;
        }
        self.phase.get_or_create(&PhaseLabels { phase: phase.to_owned() }).inc();
        if let Some(before) = phases.insert(key.clone(), phase.to_owned()) {
            self.phase.get_or_create(&PhaseLabels { phase: before }).dec();
        }
    }

    /// This CanaryRelease is gone; it counts in no phase.
    pub fn forget(&self, key: &ObjectKey) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = phases.remove(key) {
            self.phase.get_or_create(&PhaseLabels { phase: before }).dec();
        }
    }

    /// This replica drives nothing any more: no CanaryRelease counts in a phase here.
    pub fn forget_all(&self) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, before) in phases.drain() {
            self.phase.get_or_create(&PhaseLabels { phase: before }).dec();
        }
    }

    /// Whether this replica leads.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// What became of an Event.
    pub fn event(&self, result: &'static str) {
        self.events.get_or_create(&ResultLabels { result }).inc();
    }

    /// A release's record was `written`, or that `failed`.
    pub fn record_write(&self, result: &'static str) {
        self.record_writes.get_or_create(&ResultLabels { result }).inc();
    }
}

/// Counts one in a gauge for as long as it lives, so that a dropped future counts itself out.
pub(crate) struct Held(Gauge);

impl Held {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Resident memory from /proc, where there is one.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_object_counts_in_one_phase_only() {
        let metrics = Metrics::new();
        let key = ObjectKey::new("shop", "web");
        metrics.phase(&key, "Baking");
        metrics.phase(&key, "Baking");
        metrics.phase(&key, "Reverting");
        let text = metrics.encode().unwrap();
        assert!(text.contains("canaryrelease_phase{phase=\"Baking\"} 0"), "{text}");
        assert!(text.contains("canaryrelease_phase{phase=\"Reverting\"} 1"), "{text}");
        metrics.forget(&key);
        assert!(metrics.encode().unwrap().contains("canaryrelease_phase{phase=\"Reverting\"} 0"));
    }

    #[test]
    fn the_text_is_open_metrics() {
        let metrics = Metrics::new();
        metrics.error("observe", "not_found");
        metrics.verdict("errorRate", "Pass");
        metrics.release_ended("Promoted");
        let text = metrics.encode().unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(text.contains("canaryrelease_errors_total{step=\"observe\",category=\"not_found\"} 1"), "{text}");
        assert!(text.contains("canaryrelease_verdicts_total{gate=\"errorRate\",verdict=\"Pass\"} 1"), "{text}");
        assert!(text.contains("canaryrelease_releases_total{outcome=\"Promoted\"} 1"), "{text}");
    }
}
