//! What the operator says: `status` of a CanaryRelease. Written for whoever has only `kubectl
//! describe`: values are text with units, and the fields a reader wants sort last, above the Events.
//! It also holds, under `current` and `hold`, all that the operator needs to go on after a restart.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::JobAt;

/// What the operator says: where the release stands, what was measured, what to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryReleaseStatus {
    /// kstatus conditions (Ready, Reconciling, Stalled) and Completed.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The release under way, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<ReleaseStatus>,
    /// Every gate, with value, limit and verdict, of the stage under way or last judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
    /// How the last ten releases ended, newest last, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<String>,
    /// How the target is held, and which version serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
    /// The last command that was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_command: Option<CommandStatus>,
    /// What is going on, in a sentence.
    pub message: String,
    /// The generation of this object that the status speaks of; -1 before the first look.
    pub observed_generation: i64,
    /// Digest of the target's pod template that the status, and `outcome`, speak of.
    pub observed_template: String,
    /// How the release of that template ended: Promoted, RolledBack, Aborted, Superseded, Ungated,
    /// Overridden. Empty while it is under way, and before the first release.
    pub outcome: String,
    /// Where the release stands, in a word.
    pub phase: Phase,
    /// The stage, such as `2/5`.
    pub stage: String,
    /// What a reader needs to know, one sentence a line, with what to do now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub summary: Vec<String>,
}

impl Default for CanaryReleaseStatus {
    fn default() -> Self {
        Self {
            conditions: Vec::new(),
            current: None,
            gates: Vec::new(),
            history: Vec::new(),
            hold: None,
            last_command: None,
            message: String::new(),
            observed_generation: -1,
            observed_template: String::new(),
            outcome: String::new(),
            phase: Phase::default(),
            stage: String::new(),
            summary: Vec::new(),
        }
    }
}

/// Where a CanaryRelease stands, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Not yet armed; the message says what is missing.
    #[default]
    Pending,
    /// Armed: the next change of the target's template starts a release.
    Idle,
    /// The stable version is measured before any traffic moves.
    Baseline,
    /// The canary is scaled up and gets ready.
    Scaling,
    /// The weight is written; the gateway takes it over.
    Shifting,
    /// The stage's gates are judged at every tick.
    Baking,
    /// A person, or an inconclusive gate, stopped the clock.
    Paused,
    /// The target takes over the candidate's template.
    Promoting,
    /// Promoted; the gates watch on.
    Soaking,
    /// Traffic goes back to stable.
    Reverting,
    /// The candidate is live.
    Promoted,
    /// The candidate was rejected; stable serves.
    RolledBack,
    /// A person ended the release; stable serves.
    Aborted,
    /// Being deleted: traffic goes to stable, then everything of ours is taken away.
    Terminating,
}

impl Phase {
    /// The word itself.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Idle => "Idle",
            Self::Baseline => "Baseline",
            Self::Scaling => "Scaling",
            Self::Shifting => "Shifting",
            Self::Baking => "Baking",
            Self::Paused => "Paused",
            Self::Promoting => "Promoting",
            Self::Soaking => "Soaking",
            Self::Reverting => "Reverting",
            Self::Promoted => "Promoted",
            Self::RolledBack => "RolledBack",
            Self::Aborted => "Aborted",
            Self::Terminating => "Terminating",
        }
    }
}

/// What a release is doing. The state machine; `phase` is derived from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Step {
    /// Measure stable.
    #[default]
    Baseline,
    /// Scale the canary for the stage.
    Scale,
    /// Write the stage's weight and wait for the gateway.
    Shift,
    /// Judge.
    Bake,
    /// Un-pause the target and wait until all its pods are the candidate's.
    Roll,
    /// Give the weight back to the stable Service, which now selects the candidate's pods.
    HandBack,
    /// Let the canary's requests end, then take it away.
    Drain,
    /// Watch after promotion.
    Soak,
    /// Weight to stable.
    Revert,
    /// Let the canary's requests end.
    RevertDrain,
    /// Canary to zero, target held or restored, route as it was.
    RevertTarget,
    /// Over; see `outcome`.
    Done,
}

/// One release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReleaseStatus {
    /// Whether the stage's approval was given.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub approved: bool,
    /// Counts of the stable side before the release, per gate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub baseline: Vec<Counted>,
    /// The pods of the serving version beside the canary's, where the release has such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline_pods: Option<BaselinePods>,
    /// Stages that get too little traffic for some gate to judge, as reckoned from the traffic before the release.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blind: Vec<String>,
    /// Labels laid over the candidate's template, as chosen when the release began.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub canary_labels: BTreeMap<String, String>,
    /// Pods the canary should have.
    pub canary_pods: i32,
    /// The version that is released.
    pub candidate: Version,
    /// Counts since `windowSince`, per gate and side, up to the last write of the status.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<Counted>,
    /// How often the canary lost its ready pods in this stage.
    #[serde(skip_serializing_if = "is_zero")]
    pub flaps: u32,
    /// When the stage was given its one extension, which lasts as long as the stage was planned to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extended_since: Option<Time>,
    /// `<name>-<number>`; commands name it.
    pub id: String,
    /// The jobs of the release, each with its newest attempt at its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobStatus>,
    /// Which release of this CanaryRelease it is, from 1.
    pub number: i64,
    /// The canary's share of the requests as counted since `windowSince`, such as `4.8%`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub observed_share: String,
    /// Whether the command `promote` skipped stages; the history then says PARTIAL.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Set while the clock is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// Why and how the release is reverted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revert: Option<RevertStatus>,
    /// Since when fewer of the canary's pods are ready than the weight needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short_since: Option<Time>,
    /// Whether a split of the traffic was ever asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub split: bool,
    /// The version that served when the release began.
    pub stable: Version,
    /// Index of the stage, from 0.
    pub stage_index: i32,
    /// When the release began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// What the release is doing.
    pub step: Step,
    /// Since when it does that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_since: Option<Time>,
    /// The most pods that the target wanted during this release.
    pub target_pods: i32,
    /// The canary's share of the traffic that is asked for, such as `5%`.
    pub weight: String,
    /// Since when the gates count: the stage's weight was asked for then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_since: Option<Time>,
}

/// A job of a release, at one place of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    /// When it is run.
    pub at: JobAt,
    /// Which run of it at this place it is, from 1.
    pub attempt: u32,
    /// When it was seen to have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Name of the Job.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job: String,
    /// Why it is in that state, where that is not plain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Its name in the spec.
    pub name: String,
    /// Number of the stage, from 1; 0 where it is not a stage's.
    #[serde(skip_serializing_if = "no_pods")]
    pub stage: i32,
    /// Since when it is due; its deadline counts from then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// How far it is.
    pub state: JobState,
}

/// How far a job of a release is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JobState {
    /// To be created.
    #[default]
    Wanted,
    /// Created, and not ended.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// It could not be run: that says nothing of the candidate.
    NotRun,
    /// It was not waited for any longer.
    Unfinished,
}

impl JobState {
    /// The word itself.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wanted => "Wanted",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::NotRun => "NotRun",
            Self::Unfinished => "Unfinished",
        }
    }

    /// Whether its end is still to be seen.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Wanted | Self::Running)
    }
}

/// Pods of the serving version that run beside the canary's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BaselinePods {
    /// Since when nothing but these pods is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaited_since: Option<Time>,
    /// Ready pods below which their weight is taken away.
    #[serde(skip_serializing_if = "no_pods")]
    pub carried_by: i32,
    /// Labels laid over the serving version's template, as chosen when the release began.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Why the stage goes on without them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub left_out: String,
    /// How many there should be.
    pub pods: i32,
    /// Their share of the traffic that is asked for, such as `5%`.
    pub weight: String,
}

/// A version of the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Version {
    /// Who changed the template to it, as admission saw it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub changed_by: String,
    /// Digest of its pod template: a name, never a test.
    pub digest: String,
    /// Images of its containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Its ReplicaSet of the target, where it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub replica_set: String,
}

/// A stopped clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Paused {
    /// Who or what stopped it.
    pub by: String,
    /// A word: Command, Inconclusive, StableTooSmall, JobFailed, JobNotRun; with the weight at 0 Unschedulable,
    /// QuotaExceeded, NotReady, RouteNotAccepted, StableInBreach, Confounded, CanarySilent, CanaryChanged, and of jobs
    /// before the start JobFailed, JobNotRun.
    pub reason: String,
    /// Since when.
    pub since: Time,
    /// Whether the traffic went back to stable meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_weight: bool,
}

/// Why and how a release is reverted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevertStatus {
    /// When the reason was seen.
    pub at: Time,
    /// Who or what asked for it: `gate errors`, `job smoke`, `user jane`, `canary`, ...
    pub by: String,
    /// When the routes were seen to give the candidate nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_at: Option<Time>,
    /// The sentence that stands in Events, conditions and the history.
    pub message: String,
    /// How the release ends: RolledBack, Aborted, Superseded, Overridden.
    pub outcome: String,
    /// A word: GateBreached, JobFailed, CrashLoop, NotReady, Command, Superseded, Deleted, ...
    pub reason: String,
    /// Whether the template stays rejected until a person retries it.
    pub rejects: bool,
    /// Whether the target had begun to run the candidate, so that its template must be written back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolled: bool,
    /// The stage it happened at, such as `2/5`.
    pub stage: String,
}

/// Counts of a gate on one side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Counted {
    /// How bursty the events are, measured before the release: the variance over what independent events have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dispersion: Option<f64>,
    /// The gate's name.
    pub gate: String,
    /// Bad or counted events.
    #[serde(rename = "events")]
    pub k: f64,
    /// All events, or requests.
    // Named n it would be read as false where the definition is applied as YAML 1.1, and be dropped.
    #[serde(rename = "requests")]
    pub n: f64,
    /// Time they were counted over, in seconds.
    pub seconds: f64,
    /// `canary`, `stable`, `baseline` (the pods of the serving version beside the canary's), or `proof`: the canary,
    /// counted so that it may prove the limit to be kept.
    pub side: String,
    /// Ticks in a row outside the limits (value gates).
    #[serde(skip_serializing_if = "is_zero")]
    pub streak: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn no_pods(pods: &i32) -> bool {
    *pods == 0
}

/// A gate as a reader wants it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GateStatus {
    /// By how much counts are divided because events come in bursts, where that is more than 1, and by whom.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dispersion: String,
    /// How much the counts speak for a breach, and how much makes one, such as `E 3.2 of 600`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// The gate's name.
    pub gate: String,
    /// Where the share lies with 95% confidence (Wilson), for gates on a share. Shown, never deciding.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interval: String,
    /// Its limit, with unit.
    pub limit: String,
    /// Whether the limit is proved to be kept, not only not seen to be exceeded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub proved: bool,
    /// What the value rests on, or why there is none.
    pub rests_on: String,
    /// The measured value, with unit; `none` where there is none.
    pub value: String,
    /// Pass, Breach, Inconclusive, NoData; Baseline while the stable version is measured before a release.
    pub verdict: String,
}

/// How the target is held, and which version serves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HoldStatus {
    /// Whether the target carries our label and the hold was proved to work.
    pub armed: bool,
    /// Whether the target was seen at zero pods with nothing held: a change is then taken without a
    /// release.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub asleep: bool,
    /// Whether the target asks for a template that was rejected, and is held for that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub holds_rejected: bool,
    /// NetworkPolicies that select the target's pods, or name them as peer, and not the canary's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub canary_not_selected: Vec<String>,
    /// The label that keeps canary pods apart, such as `app=web-canary`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fence: String,
    /// A name for the state of the admission policies that the hold was proved with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub proved_with: String,
    /// Name of the ControllerRevision that keeps the serving template.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serving_record: String,
    /// The version that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<Version>,
    /// uid of the target.
    pub target_uid: String,
}

/// A command that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandStatus {
    /// When it was taken.
    pub at: Time,
    /// Who gave it, as admission stamped it.
    pub by: String,
    /// The annotation's text.
    pub command: String,
    /// Whether the annotation still has to be taken away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// What came of it.
    pub result: String,
}
