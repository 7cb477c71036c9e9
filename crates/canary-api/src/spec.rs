//! What a user asks for: `spec` of a CanaryRelease. It says what fits together by schema and CEL;
//! it never says what the cluster holds (that is validation against live objects, in the core).

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CanaryReleaseStatus, Duration, Percent, Rate};

/// Takes a Deployment live in stages of traffic, judged by gates at every tick, reverted by itself.
#[allow(clippy::duplicated_attributes)] // each printcolumn has a type and a path of its own
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "canaryrelease.dev",
    version = "v1alpha1",
    kind = "CanaryRelease",
    plural = "canaryreleases",
    shortname = "crel",
    namespaced,
    status = "CanaryReleaseStatus",
    derive = "PartialEq",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Stage", type_ = "string", json_path = ".status.stage"),
    printcolumn(name = "Weight", type_ = "string", json_path = ".status.current.weight"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.target.name"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("self.gates.all(g, !has(g.relative) || g.relative.to != 'Baseline' || duration(self.baseline.duration) > duration('0s'))", "a gate relative to the Baseline needs baseline.duration above 0s"))]
#[x_kube(validation = ("!has(self.baseline.pods) || !self.baseline.pods || self.gates.exists(g, has(g.relative) && g.relative.to == 'Stable')", "baseline.pods needs a gate relative to Stable: nothing else is compared with them"))]
#[x_kube(validation = ("!has(self.traffic.requests.by) || self.traffic.requests.by != 'Service' || self.gates.all(g, !has(g.warmUp) || !(has(g.eventRate) || has(g.relative)))", "warmUp of an eventRate or relative gate begins with a pod's first request: traffic.requests must be by Pod"))]
#[x_kube(validation = ("!has(self.jobs) || self.jobs.all(j, !has(j.stages) || j.stages.all(w, self.stages.exists(s, double(s.weight.replace('%', '')) == double(w.replace('%', '')))))", "each of a job's stages must be the weight of a stage, such as 5%"))]
pub struct CanaryReleaseSpec {
    /// The Deployment, in this namespace, whose changes are released in stages.
    #[x_kube(validation = ("self == oldSelf", "the target can't be changed: delete this CanaryRelease and create one for the other Deployment"))]
    pub target: Target,
    /// Where the traffic is split, and how requests are counted.
    pub traffic: Traffic,
    /// One tick: how often the gates are asked and judged.
    #[serde(default = "defaults::interval")]
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('10m')", "interval must be from 1s to 10m"))]
    pub interval: Duration,
    /// Weights and how long each is held, ascending; the last is 100%.
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(
        validation = ("self.map(s, double(s.weight.replace('%', ''))).isSorted() && self.all(a, self.exists_one(b, double(b.weight.replace('%', '')) == double(a.weight.replace('%', ''))))", "stage weights must ascend strictly, such as 1%, 5%, 25%, 100%"),
        validation = ("double(self[size(self) - 1].weight.replace('%', '')) == 100.0", "the last stage must have weight 100%")
    )]
    pub stages: Vec<Stage>,
    /// Rules on metrics; every one must allow a stage to end, and any one can end the release.
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(validation = ("self.all(a, self.exists_one(b, b.name == a.name))", "gate names must be unique"))]
    pub gates: Vec<Gate>,
    /// Queries whose answers for both versions stand side by side in the release's record, with the change. They are told
    /// and decide nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(validation = ("self.all(a, self.exists_one(b, b.name == a.name))", "names of compared queries must be unique"))]
    pub comparison: Vec<ComparedQuery>,
    /// Name of the metrics provider in the operator's configuration; `pods` reads the pods' own metrics
    /// endpoints, and so does `default` where no other is configured.
    #[serde(default = "defaults::provider")]
    #[schemars(length(min = 1, max = 63))]
    pub provider: String,
    /// Where the pods' own metrics are, for the provider `pods`. Not given: by the pods' annotations
    /// `prometheus.io/port` and `prometheus.io/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_metrics: Option<PodMetrics>,
    /// What the candidate is compared with: the stable version before any traffic moves, and pods of it beside the
    /// canary's.
    #[serde(default)]
    pub baseline: Baseline,
    /// How long a side that lost its weight keeps its pods, for requests under way.
    #[serde(default = "defaults::drain")]
    #[x_kube(validation = ("duration(self) <= duration('1h')", "drain must be at most 1h"))]
    pub drain: Duration,
    /// How long the gates watch the target's pods on after promotion; a breach then writes the version
    /// before back. 0s: not at all.
    #[serde(default)]
    #[x_kube(validation = ("duration(self) <= duration('168h')", "soak must be at most 168h"))]
    pub soak: Duration,
    /// How long the canary's pods may take to become ready at each stage. After that a fault of the
    /// candidate (crash, image, configuration, probe) reverts the release; anything else pauses it
    /// with the traffic on stable.
    #[serde(default = "defaults::ready_deadline")]
    #[x_kube(validation = ("duration(self) >= duration('5s') && duration(self) <= duration('24h')", "readyDeadline must be from 5s to 24h"))]
    pub ready_deadline: Duration,
    /// What happens when a gate has no verdict at the end of an extended stage. Pause: the weight stays
    /// and a person decides. Revert: the release is reverted and the candidate rejected.
    #[serde(default)]
    pub on_inconclusive: OnInconclusive,
    /// What becomes of the target's template after a revert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_revert: Option<OnRevert>,
    /// Jobs that a release runs: smoke tests, database checks, restore hooks. Each is made from a CronJob of this
    /// namespace, as `kubectl create job --from` does; its exit code is the verdict, the end of its log the evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(validation = ("self.all(a, self.exists_one(b, b.name == a.name))", "job names must be unique"))]
    pub jobs: Vec<Job>,
    /// The canary's own objects.
    #[serde(default)]
    pub canary: Canary,
}

/// The Deployment under release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Name of the Deployment.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// Where the traffic is split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traffic {
    /// The stable Service, which the routes name and which selects the target's pods.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = ("self == oldSelf", "traffic.service can't be changed: delete this CanaryRelease and create a new one"))]
    pub service: String,
    /// The routes, in this namespace, that send traffic to the Service.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(validation = ("self == oldSelf", "traffic.routes can't be changed: delete this CanaryRelease and create a new one"))]
    pub routes: Vec<Route>,
    /// How requests are counted.
    pub requests: Requests,
}

/// A route that sends traffic to the stable Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The route's kind.
    pub kind: RouteKind,
    /// The route's name, in this namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// Kinds of route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteKind {
    /// `gateway.networking.k8s.io` HTTPRoute.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
}

/// The counter of all requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// Counter selector of all requests, such as `http_requests_total` or
    /// `http_requests_total{job="web"}`: for the canary's share and for gates that compare by request.
    #[schemars(length(min = 1, max = 500))]
    pub counter: String,
    /// Whose the counter is, as a gate's `by`. Not given: Pod.
    #[serde(default, skip_serializing_if = "By::is_pod")]
    pub by: By,
}

/// Whose raw counters are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum By {
    /// Each pod's own.
    #[default]
    Pod,
    /// A gateway's, of the stable and of the canary's Service.
    Service,
}

impl By {
    /// Whether they are the pods' own.
    #[must_use]
    pub fn is_pod(&self) -> bool {
        *self == Self::Pod
    }
}

/// A weight held for a duration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stage {
    /// The canary's share of the traffic, in steps of 0.1%.
    #[x_kube(validation = ("self.matches('^(100([.]0+)?|[0-9]{1,2}([.][0-9]0*)?)%$') && double(self.replace('%', '')) > 0.0", "a stage's weight is from 0.1% to 100%, in steps of 0.1%"))]
    pub weight: Percent,
    /// How long it is held at least, from when the gateway has taken the weight over. Where a gate has no
    /// verdict at its end, once as long again.
    #[x_kube(validation = ("duration(self) > duration('0s') && duration(self) <= duration('168h')", "a stage's duration is above 0s and at most 168h"))]
    pub duration: Duration,
    /// Whether a person must give the command `approve` before the stage ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
}

/// Where the pods' own metrics are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct PodMetrics {
    /// A port that the pods declare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The path, such as `/metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = ("self.startsWith('/')", "path begins with /"))]
    pub path: Option<String>,
}

/// What the candidate is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Baseline {
    /// How long the stable version is measured before any traffic moves. 0s: not at all; then no gate may compare with
    /// the Baseline.
    #[serde(default = "defaults::baseline")]
    #[x_kube(validation = ("duration(self) <= duration('24h')", "baseline.duration must be at most 24h"))]
    pub duration: Duration,
    /// Run pods of the serving version beside the canary's, as many and as old, with as much traffic, and let gates
    /// relative to Stable compare with those: like with like. In stages below 50%, where there is traffic enough for
    /// both; a release then runs twice the canary's pods. Set during a release, it is for the next one; taken away, it
    /// acts at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pods: bool,
}

impl Default for Baseline {
    fn default() -> Self {
        Self { duration: defaults::baseline(), pods: false }
    }
}

/// A query that is asked of the pods of either version, for the record alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ComparedQuery {
    /// Its name in the record, unique in this CanaryRelease.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = ("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "a compared query's name is lower case letters, digits and '-'"))]
    pub name: String,
    /// PromQL that gives one number, or one for each pod, of which the mean is taken. `$pods` stands for a regular
    /// expression of the pods of one version; the namespace is added to every selector.
    #[schemars(length(min = 1, max = 2000))]
    #[x_kube(validation = ("self.contains('$pods')", "a compared query names the pods of one version: add a matcher such as pod=~\"$pods\""))]
    pub query: String,
    /// Unit shown behind the value, such as `ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub unit: Option<String>,
}

/// What happens when a gate has no verdict at the end of an extended stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnInconclusive {
    /// The weight stays and a person decides.
    #[default]
    Pause,
    /// The release is reverted and the candidate rejected; `retry` lifts that.
    Revert,
}

/// What becomes of the target's template after a revert. Hold: it stays as it was written, paused, so
/// that no tool sees a difference. Restore: the serving version's template is written back. Not given:
/// Hold where Argo CD or Flux owns the Deployment, else Restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnRevert {
    /// It stays as it was written, paused, so that no tool sees a difference.
    Hold,
    /// The serving version's template is written back.
    Restore,
}

/// A Job that a release runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("!has(self.stages) || self.at == 'Stage'", "stages is for a job at Stage"))]
#[x_kube(validation = ("!has(self.onFailure) || self.onFailure == 'Record' || self.at == 'BeforeStart' || self.at == 'Stage'", "a job at AfterRollback or AfterPromotion delays and ends nothing: its onFailure can only be Record"))]
pub struct Job {
    /// The job's name, unique in this CanaryRelease.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = ("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "a job's name is lower case letters, digits and '-'"))]
    pub name: String,
    /// The CronJob, in this namespace and usually suspended, whose template is run.
    #[schemars(length(min = 1, max = 253))]
    pub cron_job: String,
    /// When it is run. BeforeStart: while the stable version is measured. Stage: as soon as the stage's weight is in
    /// force. AfterRollback: once all traffic is on stable again. AfterPromotion: once the candidate is live.
    pub at: JobAt,
    /// Weights of the stages that it is run at. Not given: every stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 20))]
    pub stages: Vec<Percent>,
    /// What its log tells of: decides the file's name in the evidence folder.
    #[serde(default, skip_serializing_if = "JobEvidence::is_other")]
    pub evidence: JobEvidence,
    /// How long it may take, from when it is due. What has not ended by then is no verdict: the release is paused.
    #[serde(default = "defaults::job_deadline")]
    #[x_kube(validation = ("duration(self) >= duration('5s') && duration(self) <= duration('24h')", "a job's deadline must be from 5s to 24h"))]
    pub deadline: Duration,
    /// What its failure does. Not given: Revert at Stage, Pause at BeforeStart, Record after the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnJobFailure>,
}

impl Job {
    /// What its failure does, where the spec does not say so too.
    #[must_use]
    pub fn on_failure(&self) -> OnJobFailure {
        match (self.at, self.on_failure) {
            (JobAt::AfterRollback | JobAt::AfterPromotion, _) => OnJobFailure::Record,
            (_, Some(given)) => given,
            (JobAt::Stage, None) => OnJobFailure::Revert,
            (JobAt::BeforeStart, None) => OnJobFailure::Pause,
        }
    }
}

/// When a job is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum JobAt {
    /// While the stable version is measured; no weight moves before it has succeeded.
    #[default]
    BeforeStart,
    /// As soon as a stage's weight is in force; the stage does not end before it has succeeded.
    Stage,
    /// Once all traffic is on stable again.
    AfterRollback,
    /// Once the candidate is live.
    AfterPromotion,
}

impl JobAt {
    /// The word itself.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeStart => "BeforeStart",
            Self::Stage => "Stage",
            Self::AfterRollback => "AfterRollback",
            Self::AfterPromotion => "AfterPromotion",
        }
    }

    /// Whether it is after the release, so that nothing waits for it.
    #[must_use]
    pub const fn after(self) -> bool {
        matches!(self, Self::AfterRollback | Self::AfterPromotion)
    }
}

/// What a job's log tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JobEvidence {
    /// The database's health.
    DatabaseHealth,
    /// Statistics of a connection pooler.
    Pooler,
    /// Logs.
    Logs,
    /// A scan before the release.
    Scan,
    /// The position in the database's log before a restore.
    LsnBefore,
    /// The same after it.
    LsnAfter,
    /// A restore of the database.
    Restore,
    /// Anything else.
    #[default]
    Other,
}

impl JobEvidence {
    /// Whether it is nothing that the evidence folder has a name for.
    #[must_use]
    pub fn is_other(&self) -> bool {
        *self == Self::Other
    }

    /// The word itself.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DatabaseHealth => "DatabaseHealth",
            Self::Pooler => "Pooler",
            Self::Logs => "Logs",
            Self::Scan => "Scan",
            Self::LsnBefore => "LsnBefore",
            Self::LsnAfter => "LsnAfter",
            Self::Restore => "Restore",
            Self::Other => "Other",
        }
    }
}

/// What a job's failure does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnJobFailure {
    /// The release is reverted and the candidate rejected; `retry` lifts that.
    Revert,
    /// The clock is stopped and a person decides; `resume` runs the job again.
    Pause,
    /// It is recorded, and nothing else.
    Record,
}

/// The canary's own objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Canary {
    /// Labels laid over the candidate's template, so that neither the stable Service nor the target
    /// selects the canary's pods. Not given: one label that both use gets the suffix `-canary`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub labels: BTreeMap<String, String>,
    /// Start although a NetworkPolicy that selects the target's pods does not select the canary's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_unselected: bool,
}

/// A rule on a metric: exactly one of `errorRate`, `latency`, `eventRate`, `relative`, `value`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("[has(self.errorRate), has(self.latency), has(self.eventRate), has(self.relative), has(self.value)].filter(x, x).size() == 1", "a gate has exactly one of errorRate, latency, eventRate, relative, value"))]
#[x_kube(validation = ("!has(self.warmUp) || !has(self.value)", "a value gate has no warmUp: it looks at the newest sample only"))]
#[x_kube(validation = ("!has(self.by) || !has(self.value)", "a value gate has no by: its query names the pods"))]
#[x_kube(validation = ("!has(self.warmUp) || !has(self.by) || self.by != 'Service'", "warmUp is the pods': it needs counters by Pod"))]
pub struct Gate {
    /// The gate's name, unique in this CanaryRelease.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = ("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "a gate's name is lower case letters, digits and '-'"))]
    pub name: String,
    /// The share of bad events among all, against a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<ErrorRate>,
    /// A quantile of the requests' durations against a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Events per time, against a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_rate: Option<EventRate>,
    /// Events per request of the canary against those of the stable version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<Relative>,
    /// A number that PromQL gives, against limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// By how much the counts are divided because events come in bursts, from 1 to 10. Not given: measured on the
    /// stable version before the release. Above 1 the rate of false alarms is calibrated, not guaranteed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub dispersion: Option<f64>,
    /// Requests of the canary below which the gate has no verdict, though it may find a breach. (A
    /// `value` gate does not look at requests.)
    #[serde(default = "defaults::min_requests")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_requests: u32,
    /// Whose counters the gate reads. Pod: raw counters of each pod. Service: a gateway's own request metrics, of the
    /// stable and of the canary's Service, by the provider's labels. Not given: Pod.
    #[serde(default, skip_serializing_if = "By::is_pod")]
    pub by: By,
    /// Counts of a pod's first seconds of traffic are kept apart: shown, not judged. A new pod is slow at first. Not
    /// given: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) <= duration('1h')", "warmUp must be at most 1h"))]
    pub warm_up: Option<Duration>,
}

/// At most this share of the events may be bad.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorRate {
    /// Counter selector of the bad events.
    #[schemars(length(min = 1, max = 500))]
    pub bad: String,
    /// Counter selector of all events.
    #[schemars(length(min = 1, max = 500))]
    pub total: String,
    /// The largest share of bad events that is still good.
    pub limit: Percent,
}

/// A quantile of the requests' durations must stay below a limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Selector of the histogram, by its name without `_bucket`.
    #[schemars(length(min = 1, max = 500))]
    pub histogram: String,
    /// The quantile, such as 95%.
    #[x_kube(validation = ("double(self.replace('%', '')) > 0.0 && double(self.replace('%', '')) < 100.0", "quantile is above 0% and below 100%"))]
    pub quantile: Percent,
    /// The limit of the quantile. Judged at the histogram's lowest bucket boundary at or above it.
    pub limit: Duration,
    /// Counter selector of failed requests, which count as slow however fast they failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub failed: Option<String>,
}

/// At most so many events per time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventRate {
    /// Counter selector of the events.
    #[schemars(length(min = 1, max = 500))]
    pub counter: String,
    /// The largest rate that is still good, such as 0.5/min.
    pub limit: Rate,
    /// Canary: the canary's events against the limit times its share of the requests. Total: both sides'
    /// events against the whole limit.
    #[serde(default)]
    pub scope: Scope,
}

/// What a rate speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// The canary: the limit is scaled by the share of requests that it took.
    #[default]
    Canary,
    /// The whole service, both sides together.
    Total,
}

/// Events of the canary, per request, against those of the stable version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Relative {
    /// Counter selector of the events.
    #[schemars(length(min = 1, max = 500))]
    pub counter: String,
    /// What is compared with. Stable: the stable pods during the same time, with `baseline.pods` those beside the
    /// canary; at 100% there are none with traffic and the gate is left out, so another gate is needed. Baseline: the
    /// stable pods before the release.
    #[serde(default)]
    pub to: To,
    /// How much more than the other side the canary may have, such as 10%.
    pub margin: Percent,
}

/// What a relative gate compares with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum To {
    /// The stable pods during the same time.
    #[default]
    Stable,
    /// The stable pods before the release.
    Baseline,
}

/// A number that PromQL gives must stay within limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
#[x_kube(validation = ("has(self.max) || has(self.min)", "a value gate needs max or min"))]
pub struct Value {
    /// PromQL that gives one number, or one for each pod, of which the worst counts. `$pods` stands for a
    /// regular expression of the canary's pods; the namespace is added to every selector.
    #[schemars(length(min = 1, max = 2000))]
    pub query: String,
    /// The largest value that is still good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The smallest value that is still good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The unit that is shown after the value, such as `s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub unit: Option<String>,
    /// Canary: the query must name the candidate's pods by `$pods`. Total: it may look at the whole namespace.
    #[serde(default)]
    pub scope: Scope,
    /// Ticks in a row outside the limits that make a breach.
    #[serde(default = "defaults::consecutive")]
    #[schemars(range(min = 1, max = 100))]
    pub consecutive: u32,
}

/// Defaults that the schema carries.
mod defaults {
    use crate::Duration;

    pub(super) fn interval() -> Duration {
        Duration::from_secs(10)
    }
    pub(super) fn provider() -> String {
        "default".to_owned()
    }
    pub(super) fn drain() -> Duration {
        Duration::from_secs(30)
    }
    pub(super) fn ready_deadline() -> Duration {
        Duration::from_secs(600)
    }
    pub(super) fn baseline() -> Duration {
        Duration::from_secs(300)
    }
    pub(super) fn min_requests() -> u32 {
        50
    }
    pub(super) fn consecutive() -> u32 {
        2
    }
    pub(super) fn job_deadline() -> Duration {
        Duration::from_secs(600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_spec_reads_with_its_defaults() {
        let spec: CanaryReleaseSpec = serde_norway::from_str(
            "{target: {name: web}, traffic: {service: web, routes: [{kind: HTTPRoute, name: web}], requests: {counter: http_requests_total}}, \
             stages: [{weight: 100%, duration: 1m}], gates: [{name: e, errorRate: {bad: b, total: t, limit: 1%}}]}",
        )
        .unwrap();
        assert_eq!(spec.interval, Duration::from_secs(10));
        assert_eq!(spec.drain, Duration::from_secs(30));
        assert_eq!(spec.baseline.duration, Duration::from_secs(300));
        assert_eq!(spec.gates[0].min_requests, 50);
        assert_eq!(spec.soak, Duration::ZERO);
    }

    #[test]
    fn the_definition_marks_a_new_object_as_not_looked_at() {
        let crd = crate::crd();
        let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        let status = &schema.properties.unwrap()["status"];
        assert_eq!(status.default.clone().unwrap().0, serde_json::json!({"observedGeneration": -1}));
        assert!(status.properties.as_ref().unwrap().values().all(|field| field.default.is_none()));
    }

    /// YAML 1.1 reads these as true and false, wherever they stand unquoted.
    #[test]
    fn no_field_has_a_name_that_yaml_reads_as_a_boolean() {
        let text = serde_norway::to_string(&crate::crd()).unwrap();
        for line in text.lines() {
            let key = line.trim_start().trim_start_matches("- ").split(':').next().unwrap_or_default().to_lowercase();
            assert!(!["y", "n", "yes", "no", "on", "off"].contains(&key.as_str()), "{line}");
        }
    }
}
