//! A small deterministic cluster in memory, to try the core on: an API server with optimistic
//! concurrency and the hold by admission, the controllers of Deployments, ReplicaSets and pods, a
//! gateway that splits traffic by weight, counters that tell of it, and the operator's loop around
//! `decide`. Nothing here sleeps, waits or reads a clock. Every write of the operator is checked
//! against the promises as it is made ([`promises`]).

mod api;
mod jobs;
mod kubernetes;
mod operator;
mod promises;
mod record;
mod sight;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use canary_api::{CanaryReleaseStatus, ReleaseRecordStatus, Step, names};
use canary_core::object;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use api::Refused;
pub use jobs::JobFate;
pub use operator::Operator;
pub use sight::*;

/// The namespace of everything.
pub const NAMESPACE: &str = "shop";
/// The operator's user.
pub const OPERATOR: &str = names::OPERATOR_USER;
/// A developer.
pub const JANE: &str = "jane";
/// How long an edited route takes to be accepted by its gateway, and to reach its data plane.
const GATEWAY_LAG: Duration = Duration::from_millis(700);
/// Steps of the world's clock.
const GRID: Duration = Duration::from_millis(500);

/// How the pods of a version fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Ready after two seconds.
    Ready,
    /// Never scheduled.
    Unschedulable,
    /// Ends with an error each time.
    CrashLoop,
    /// Runs, and its probe never passes.
    NeverReady,
    /// Its image can't be pulled.
    NoImage,
    /// Its pods are not even created.
    Quota,
}

/// How a version behaves.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour {
    /// Its true share of bad answers.
    pub errors: f64,
    /// Its gauge.
    pub staleness: f64,
    /// What becomes of its pods.
    pub fate: Fate,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { errors: 0.0, staleness: 1.0, fate: Fate::Ready }
    }
}

/// How the metrics answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    Fine,
    /// They can't be asked.
    Down,
    /// They have no series of the canary.
    Silent,
    /// They have no series of the baseline pods.
    WithoutBaseline,
}

/// Reads that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Read {
    Rivals,
    Target,
    Canary,
    ReplicaSets,
    TargetPods,
    CanaryPods,
    Service,
    CanaryService,
    Routes,
    Autoscalers,
    Budgets,
    NetworkPolicies,
    ServingRecords,
    /// All that there is of baseline pods.
    Baseline,
    /// Jobs and CronJobs.
    Jobs,
    /// The pods of Jobs.
    JobPods,
}

impl Read {
    pub const ALL: [Self; 16] = [
        Self::Rivals,
        Self::Target,
        Self::Canary,
        Self::ReplicaSets,
        Self::TargetPods,
        Self::CanaryPods,
        Self::Service,
        Self::CanaryService,
        Self::Routes,
        Self::Autoscalers,
        Self::Budgets,
        Self::NetworkPolicies,
        Self::ServingRecords,
        Self::Baseline,
        Self::Jobs,
        Self::JobPods,
    ];
}

/// One write of the operator that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub at: Timestamp,
    pub kind: &'static str,
    pub name: String,
    pub what: String,
}

/// A place in a release: what it does, at which stage (from 0).
pub type Place = (Step, i32);

/// The cluster, and the operators on it (one for each CanaryRelease).
pub struct World {
    pub now: Timestamp,
    pub objects: BTreeMap<(&'static str, String), Value>,
    serial: u64,
    /// Whether the policies that hold a target are installed.
    pub hold_installed: bool,
    /// Whether the policy that keeps a split is installed.
    pub split_kept: bool,
    /// By image.
    pub versions: BTreeMap<String, Behaviour>,
    /// Requests per second.
    pub rate: f64,
    /// What the gateway makes of a split: of the canary's weight, this part is obeyed.
    pub obeyed: f64,
    pub metrics: Metrics,
    /// Requests and bad answers, by pod.
    counters: BTreeMap<String, (f64, f64)>,
    /// Answers by image.
    pub answers: BTreeMap<String, f64>,
    /// Requests that reached no ready pod.
    pub unanswered: f64,
    /// What the data plane does: rules by route, and edits under way.
    plane: BTreeMap<String, Value>,
    edits: BTreeMap<String, (i64, Timestamp)>,
    /// New pods with this image are not scheduled.
    blocked: Option<String>,
    /// Names of the pods that were there when the blocking began.
    spared: BTreeSet<String>,
    /// The last serial number at which nothing was left for the controllers to do.
    settled: Option<u64>,
    /// Requests per second to each pod, or to none, while settled.
    flow: Vec<(Option<(String, String)>, f64)>,
    progress: BTreeMap<String, (Timestamp, i64)>,
    pub operators: BTreeMap<String, Operator>,
    pub writes: Vec<Write>,
    pub notes: Vec<String>,
    /// Every place that the status went through.
    pub trail: Vec<(String, Step, i32)>,
    pub unreadable: BTreeSet<Read>,
    /// Whether the API server refuses every new object of baseline pods.
    pub baseline_refused: bool,
    /// What becomes of the Jobs of a CronJob, by its name.
    pub job_fates: BTreeMap<String, JobFate>,
    /// Whether the API server refuses each new Job, and for good or for now.
    pub jobs_refused: Option<Refused>,
    /// Names of the Jobs that the operator made, in order.
    pub jobs_made: Vec<String>,
    /// Whether logs can't be read.
    pub logs_unreadable: bool,
    /// Whether the API server fails each write of the status.
    pub status_refused: bool,
    /// The operator dies after so many more writes.
    pub dies_after: Option<usize>,
    pub deaths: usize,
    /// Writes of the operator so far, records and status included.
    pub written: usize,
    /// Records as they are in the cluster, by name.
    pub records: BTreeMap<String, ReleaseRecordStatus>,
    /// When which record was written.
    pub record_writes: Vec<(Timestamp, String)>,
    /// Whether the API server refuses each write of a record.
    pub records_refused: bool,
    promises: promises::Ledger,
}

/// The spec of the tests' CanaryRelease.
pub fn spec() -> Value {
    json!({
        "target": {"name": "web"},
        "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "requests_total"}},
        "interval": "5s",
        "stages": [{"weight": "10%", "duration": "30s"}, {"weight": "50%", "duration": "30s"}, {"weight": "100%", "duration": "30s"}],
        "gates": [
            {"name": "errors", "errorRate": {"bad": "bad_total", "total": "requests_total", "limit": "1%"}, "minRequests": 50},
            {"name": "staleness", "value": {"query": "max(staleness{pod=~\"$pods\"})", "max": 30}},
        ],
        "baseline": {"duration": "20s"},
        "drain": "10s",
        "readyDeadline": "60s",
        "onRevert": "Restore",
    })
}

impl World {
    /// A cluster with Deployment web (v1, four pods), its Service, a plain route, and a CanaryRelease
    /// whose spec is the usual one with these fields laid over.
    pub fn new(over: Value) -> Self {
        let mut world = Self::bare();
        world.install("web", over);
        world
    }

    /// The cluster without a CanaryRelease.
    pub fn bare() -> Self {
        let mut world = Self {
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            objects: BTreeMap::new(),
            serial: 0,
            hold_installed: true,
            split_kept: true,
            versions: BTreeMap::new(),
            rate: 100.0,
            metrics: Metrics::Fine,
            obeyed: 1.0,
            counters: BTreeMap::new(),
            answers: BTreeMap::new(),
            unanswered: 0.0,
            plane: BTreeMap::new(),
            edits: BTreeMap::new(),
            blocked: None,
            spared: BTreeSet::new(),
            settled: None,
            flow: Vec::new(),
            progress: BTreeMap::new(),
            operators: BTreeMap::new(),
            writes: Vec::new(),
            notes: Vec::new(),
            trail: Vec::new(),
            unreadable: BTreeSet::new(),
            baseline_refused: false,
            job_fates: BTreeMap::new(),
            jobs_refused: None,
            jobs_made: Vec::new(),
            logs_unreadable: false,
            status_refused: false,
            dies_after: None,
            deaths: 0,
            written: 0,
            records: BTreeMap::new(),
            record_writes: Vec::new(),
            records_refused: false,
            promises: promises::Ledger::default(),
        };
        world.create_target();
        world.create("Service", json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": NAMESPACE, "labels": {"app": "web"}},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.0.0.7", "type": "ClusterIP", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }));
        world.create_route();
        for _ in 0..10 {
            world.step(GRID);
        }
        world.unanswered = 0.0;
        world.answers.clear();
        world
    }

    /// Deployment web, as its owner writes it.
    pub fn create_target(&mut self) {
        self.create("Deployment", json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": NAMESPACE, "labels": {"app": "web", "team": "shop"}, "annotations": {"shop.example/owner": "jane"}},
            "spec": {
                "replicas": 4, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "minReadySeconds": 0,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {
                    "metadata": {"labels": {"app": "web", "team": "shop"}, "annotations": {"shop.example/tier": "front"}},
                    "spec": {"restartPolicy": "Always", "containers": [{"name": "app", "image": "web:v1", "ports": [{"containerPort": 8080}]}]},
                },
            },
        }));
    }

    /// Route web, plain.
    pub fn create_route(&mut self) {
        self.create("HTTPRoute", json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": NAMESPACE, "annotations": {"shop.example/owner": "jane"}},
            "spec": {"parentRefs": [{"name": "gate"}], "hostnames": ["shop.example"], "rules": [
                {"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}], "timeouts": {"request": "3s"}, "backendRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1}]},
                {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1}]},
                {"matches": [{"path": {"type": "PathPrefix", "value": "/static"}}], "backendRefs": [{"group": "", "kind": "Service", "name": "assets", "port": 80, "weight": 1}]},
            ]},
        }));
    }

    /// Creates a CanaryRelease, with an operator for it.
    pub fn install(&mut self, name: &str, over: Value) {
        let mut spec = spec();
        for (key, value) in over.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.create(
            "CanaryRelease",
            json!({
                "apiVersion": "canaryrelease.dev/v1alpha1", "kind": "CanaryRelease",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": spec,
                "status": {"observedGeneration": -1},
            }),
        );
        self.operators.insert(name.to_owned(), Operator::default());
    }

    pub fn get(&self, kind: &'static str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind, name.to_owned()))
    }

    pub fn target(&self) -> &Value {
        self.get("Deployment", "web").expect("Deployment web")
    }

    pub fn route(&self) -> &Value {
        self.get("HTTPRoute", "web").expect("HTTPRoute web")
    }

    pub fn image(&self) -> &str {
        self.target()["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap()
    }

    pub fn paused(&self) -> bool {
        self.target()["spec"].get("paused") == Some(&json!(true))
    }

    /// Images of the target's ready pods, each once.
    pub fn served(&self) -> Vec<String> {
        self.images_behind(&json!({"matchLabels": {"app": "web"}}))
    }

    /// Pods that the canary Deployment is asked for; none where there is no canary.
    pub fn canary_pods(&self) -> i64 {
        self.get("Deployment", "web-canary").map_or(0, |canary| canary["spec"]["replicas"].as_i64().unwrap())
    }

    /// Pods that the baseline Deployment is asked for; none where there is none.
    pub fn baseline_pods(&self) -> i64 {
        self.get("Deployment", "web-baseline").map_or(0, |own| own["spec"]["replicas"].as_i64().unwrap())
    }

    /// The largest weight, in thousandths, that the route gives the baseline pods.
    pub fn baseline_weight(&self) -> i64 {
        self.get("HTTPRoute", "web").map_or(0, promises::baseline_weight)
    }

    pub fn status_of(&self, name: &str) -> CanaryReleaseStatus {
        let status = self.get("CanaryRelease", name).map_or(Value::Null, |object| object["status"].clone());
        serde_json::from_value(status).unwrap_or_default()
    }

    pub fn status(&self) -> CanaryReleaseStatus {
        self.status_of("web")
    }

    pub fn place(&self) -> Place {
        let current = self.get("CanaryRelease", "web").and_then(|release| release.pointer("/status/current"));
        current.map_or((Step::Done, 0), |current| {
            let step = serde_json::from_value(current["step"].clone()).unwrap();
            (step, i32::try_from(current["stageIndex"].as_i64().unwrap_or(0)).unwrap())
        })
    }

    /// How the last release ended.
    pub fn outcome(&self) -> String {
        self.get("CanaryRelease", "web").map_or("", |release| object::text(release, "/status/outcome")).to_owned()
    }

    pub fn condition(&self, kind: &str) -> (String, String) {
        let status = self.status();
        let found = status.conditions.iter().find(|condition| condition.type_ == kind).expect("the condition");
        (found.status.clone(), found.reason.clone())
    }

    /// The largest weight, in thousandths, that the route gives the canary.
    pub fn weight(&self) -> i64 {
        self.get("HTTPRoute", "web").map_or(0, promises::canary_weight)
    }

    /// Jane applies a version.
    pub fn apply(&mut self, version: &str) -> Result<(), Refused> {
        let image = format!("web:{version}");
        self.edit("Deployment", "web", JANE, "kubectl-client-side-apply", |target| {
            target["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        })
    }

    /// Jane scales the target.
    pub fn scale(&mut self, pods: i64) {
        self.edit("Deployment", "web", JANE, "kubectl", |target| target["spec"]["replicas"] = json!(pods)).unwrap();
    }

    /// Jane gives a command, stamped as admission does.
    pub fn command(&mut self, text: &str) {
        self.edit("CanaryRelease", "web", JANE, "kubectl-annotate", |release| {
            release["metadata"]["annotations"][names::ANNOTATION_COMMAND] = json!(text);
            release["metadata"]["annotations"][names::ANNOTATION_COMMAND_BY] = json!(JANE);
        })
        .unwrap();
        if text.starts_with("retry") {
            self.promises.retried();
        }
    }

    /// The id of the release under way, or of the last one.
    pub fn id(&self) -> String {
        self.status().current.map_or_else(String::new, |current| current.id)
    }

    /// A version that answers with so many errors.
    pub fn faulty(&mut self, version: &str, errors: f64) {
        self.versions.entry(format!("web:{version}")).or_default().errors = errors;
    }

    /// What becomes of a version's pods from now on.
    pub fn fate(&mut self, version: &str, fate: Fate) {
        self.versions.entry(format!("web:{version}")).or_default().fate = fate;
        self.settled = None;
    }

    /// Something that the controllers and the traffic do not see by themselves was changed.
    pub fn fate_changed(&mut self) {
        self.settled = None;
    }

    /// Lets the time pass.
    pub fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.advance(end);
        }
    }

    /// Lets the time pass until something is so, or panics after an hour.
    pub fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(3600);
        while !so(self) {
            assert!(self.now < end, "not within an hour: {what}\n{}", self.describe());
            self.advance(end);
        }
    }

    /// Lets the time pass until the status says that the release is there.
    pub fn reach(&mut self, place: Place) {
        self.until(&format!("{place:?}"), |world| {
            world.place() == place && world.get("CanaryRelease", "web").is_some()
        });
    }

    /// Lets the time pass until the target is armed and nothing is under way.
    pub fn arm(&mut self) {
        self.until("armed", |world| world.get("CanaryRelease", "web").unwrap()["status"]["hold"]["armed"] == true);
        self.run(5);
    }

    /// Whether the last release is over.
    pub fn is_over(&self) -> bool {
        self.place().0 == Step::Done && !self.outcome().is_empty()
    }

    /// Lets the time pass until the release is over, and then rests.
    pub fn finish(&mut self) -> String {
        self.until("the release is over", Self::is_over);
        self.run(60);
        self.outcome()
    }

    /// An armed world with a release of `version` at the place.
    pub fn with_release(over: Value, version: &str, place: Place) -> Self {
        let mut world = Self::new(over);
        world.arm();
        world.apply(version).unwrap();
        world.reach(place);
        world
    }

    /// Rest is silent: a hundred ticks, a minute apart, without a write and without a wish to wake.
    pub fn assert_rest(&mut self) {
        self.run(120);
        let (writes, last) = (self.writes.len(), self.writes.last().cloned());
        let records = self.record_writes.len();
        for _ in 0..100 {
            self.step(Duration::from_secs(60));
            for name in self.operators.keys().cloned().collect::<Vec<_>>() {
                let wake = self.tick(&name);
                let silent = self.status_of(&name).conditions.iter().any(|c| {
                    c.type_ == "Ready"
                        && c.reason != "Armed"
                        && c.status == "False"
                        && c.reason != "RolledBack"
                        && c.reason != "Aborted"
                });
                assert!(
                    wake.is_none() || silent,
                    "{name} wants to be woken at rest, after {wake:?}\n{}",
                    self.describe()
                );
            }
            assert_eq!(
                self.writes.len(),
                writes,
                "a write at rest: {:?} after {last:?}\n{}",
                self.writes.last(),
                self.describe()
            );
            assert_eq!(self.record_writes.len(), records, "a record is written at rest\n{}", self.describe());
        }
    }

    /// The record of a release, as it is in the cluster.
    pub fn record(&self, id: &str) -> &ReleaseRecordStatus {
        self.records.values().find(|record| record.id == id).unwrap_or_else(|| panic!("no record of {id}"))
    }

    /// Few writes in a quarter of an hour: nothing turns in place, whatever it waits for.
    pub fn assert_no_turning(&mut self) {
        let before = self.writes.len();
        self.run(900);
        let writes = self.writes.len() - before;
        assert!(writes <= 17, "{writes} writes while waiting\n{}", self.describe());
    }

    /// The route is as its owner wrote it, byte for byte.
    pub fn assert_plain_route(&self) {
        let mut found = self.route().clone();
        let mut fresh = Self::bare().route().clone();
        for route in [&mut found, &mut fresh] {
            route.as_object_mut().unwrap().remove("status");
            for field in ["resourceVersion", "uid", "generation", "creationTimestamp"] {
                route["metadata"].as_object_mut().unwrap().remove(field);
            }
        }
        assert_eq!(found.to_string(), fresh.to_string());
    }

    /// The target is un-paused and carries nothing of ours; only the template may be another.
    pub fn assert_plain_target(&self) {
        let text = self.target().to_string();
        assert!(!text.contains("canaryrelease.dev"), "{text}");
        assert!(!self.paused());
    }

    /// No object of ours is left; a ReplicaSet keeps a copy of its Deployment's annotations.
    pub fn assert_nothing_left(&self) {
        for ((kind, name), object) in &self.objects {
            assert!(
                matches!(*kind, "CanaryRelease" | "ReplicaSet" | "Job")
                    || !object.to_string().contains("canaryrelease.dev"),
                "{kind} {name} is left: {object}"
            );
        }
    }

    /// For a failed assertion.
    pub fn describe(&self) -> String {
        let writes: Vec<String> = self
            .writes
            .iter()
            .rev()
            .take(12)
            .rev()
            .map(|write| format!("  {} {} {}: {}", write.at, write.kind, write.name, write.what))
            .collect();
        let status = self.status();
        format!(
            "at {}: {:?} {}, message: {}\nweight {}, target {} paused {}, canary {}\nlast writes:\n{}\nnotes: {:#?}",
            self.now,
            self.place(),
            status.outcome,
            status.message,
            self.weight(),
            self.get("Deployment", "web").map_or("gone", |_| self.image()),
            self.get("Deployment", "web").is_some_and(|_| self.paused()),
            self.canary_pods(),
            writes.join("\n"),
            self.notes.iter().rev().take(8).rev().collect::<Vec<_>>()
        )
    }
}
