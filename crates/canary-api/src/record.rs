//! The record of one release, `ReleaseRecord` (`crec`): what the operator wrote down as it went, under `status`, and
//! what only people know, under `spec`. The operator never writes a `spec`; once a release is over its `status` is
//! frozen. Nothing is invented: what is unknown is absent or says so.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{GateSeries, Version};

/// All texts of a spec together, so that the object stays small whatever each is allowed to be.
const ALL_TEXTS: &str = concat!(
    "size(bytes(self.summary)) + ",
    "self.changes.breaking.map(t, size(bytes(t))).sum() + ",
    "self.changes.documentation.map(t, size(bytes(t))).sum() + ",
    "self.changes.features.map(t, size(bytes(t))).sum() + ",
    "self.changes.fixes.map(t, size(bytes(t))).sum() + ",
    "self.changes.improvements.map(t, size(bytes(t))).sum() + ",
    "self.changes.infrastructure.map(t, size(bytes(t))).sum() + ",
    "self.changes.knownIssues.map(t, size(bytes(t))).sum() + ",
    "self.changes.migration.map(t, size(bytes(t))).sum() + ",
    "self.changes.performance.map(t, size(bytes(t))).sum() + ",
    "self.changes.security.map(t, size(bytes(t))).sum() + ",
    "self.risks.map(o, size(bytes(o.title)) + size(bytes(o.description)) + size(bytes(o.owner)) + size(bytes(o.due)) + o.mitigation.map(t, size(bytes(t))).sum()).sum() + ",
    "size(bytes(self.rollback.fix)) + ",
    "size(bytes(self.rollback.rootCause)) + ",
    "size(bytes(self.rollback.lsnBefore)) + ",
    "size(bytes(self.rollback.lsnAfter)) + ",
    "self.verification.engineers.map(o, size(bytes(o.command)) + size(bytes(o.expected)) + size(bytes(o.text))).sum() + ",
    "self.verification.users.map(o, size(bytes(o.command)) + size(bytes(o.expected)) + size(bytes(o.text))).sum() + ",
    "self.lessons.improve.map(t, size(bytes(t))).sum() + ",
    "self.lessons.surprises.map(t, size(bytes(t))).sum() + ",
    "self.lessons.wentWell.map(t, size(bytes(t))).sum() + ",
    "self.contacts.issues.map(o, size(bytes(o.name)) + size(bytes(o.to))).sum() + ",
    "self.contacts.rollback.map(o, size(bytes(o.name)) + size(bytes(o.to))).sum() + ",
    "self.links.map(o, size(bytes(o.name)) + size(bytes(o.to))).sum() <= 9000",
);

/// The record of one release. Its status is the operator's and is frozen at the release's end; its spec is yours.
#[allow(clippy::duplicated_attributes)] // each printcolumn has a type and a path of its own
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "canaryrelease.dev",
    version = "v1alpha1",
    kind = "ReleaseRecord",
    plural = "releaserecords",
    shortname = "crec",
    namespaced,
    status = "ReleaseRecordStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Release", type_ = "string", json_path = ".status.id"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Result", type_ = "string", json_path = ".status.result"),
    printcolumn(name = "Started", type_ = "date", json_path = ".status.started"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    selectable = ".status.release"
)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{"rule": ALL_TEXTS, "message": "the texts of a record come to at most 9000 bytes: put long lists of changes into a ConfigMap, see changes.configMap"}]))]
pub struct ReleaseRecordSpec {
    /// The version, where it is not the image's tag.
    #[schemars(length(max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Major, Minor or Patch, where it does not follow from the versions.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ReleaseType>,
    /// What the release is for, in a few sentences.
    #[schemars(length(max = 2000))]
    pub summary: String,
    /// What changed.
    pub changes: Changes,
    /// Risks that remain, and what is done about them.
    #[schemars(length(max = 10))]
    pub risks: Vec<Risk>,
    /// Of a release that was rolled back: why, and what was done.
    pub rollback: RollbackText,
    /// The decision to go live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go_no_go: Option<GoNoGo>,
    /// How anyone can check that the version works.
    pub verification: Verification,
    /// What was learnt.
    pub lessons: Lessons,
    /// Whom to ask.
    pub contacts: Contacts,
    /// Where to read on: dashboard, runbook, pull requests, SBOM, provenance.
    #[schemars(length(max = 20))]
    pub links: Vec<Link>,
    /// Who signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_off: Option<SignOff>,
    /// What comes next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_release: Option<NextRelease>,
}

/// How much a version changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReleaseType {
    /// Breaking, or much that is new.
    Major,
    /// New things, nothing broken.
    Minor,
    /// Mended faults.
    Patch,
}

/// What changed, one entry a line. `<title>: <description>` is shown with the title set off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Changes {
    /// What no longer works as before.
    #[schemars(length(max = 30), inner(length(max = 400)))]
    pub breaking: Vec<String>,
    /// A ConfigMap of this namespace whose key `changes` holds more, in the format of docs/record.md.
    #[schemars(length(max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<String>,
    /// Guides and manuals that were written or changed.
    #[schemars(length(max = 30), inner(length(max = 400)))]
    pub documentation: Vec<String>,
    /// New features.
    #[schemars(length(max = 30), inner(length(max = 400)))]
    pub features: Vec<String>,
    /// Mended faults.
    #[schemars(length(max = 30), inner(length(max = 400)))]
    pub fixes: Vec<String>,
    /// Things that work better.
    #[schemars(length(max = 30), inner(length(max = 400)))]
    pub improvements: Vec<String>,
    /// Changes of what it runs on.
    #[schemars(length(max = 30), inner(length(max = 400)))]
    pub infrastructure: Vec<String>,
    /// Faults that are known and not mended.
    #[schemars(length(max = 30), inner(length(max = 400)))]
    pub known_issues: Vec<String>,
    /// What users or operators must do.
    #[schemars(length(max = 30), inner(length(max = 400)))]
    pub migration: Vec<String>,
    /// What is faster or smaller.
    #[schemars(length(max = 30), inner(length(max = 400)))]
    pub performance: Vec<String>,
    /// What is safer.
    #[schemars(length(max = 30), inner(length(max = 400)))]
    pub security: Vec<String>,
}

/// A risk that remains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Risk {
    /// What may happen.
    #[schemars(length(max = 1000))]
    pub description: String,
    /// By when it is dealt with, such as 2026-12-01.
    #[schemars(length(max = 40))]
    pub due: String,
    /// How bad it would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impact: Option<Level>,
    /// How likely it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub likelihood: Option<Level>,
    /// What is done about it, in order.
    #[schemars(length(max = 10), inner(length(max = 400)))]
    pub mitigation: Vec<String>,
    /// Who deals with it.
    #[schemars(length(max = 100))]
    pub owner: String,
    /// How far that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Progress>,
    /// The risk in a few words.
    #[schemars(length(max = 100))]
    pub title: String,
}

/// Low, medium or high.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Level {
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
}

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Progress {
    /// Not begun.
    NotStarted,
    /// Under way.
    InProgress,
    /// Done.
    Done,
}

/// What only people know of a rollback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RollbackText {
    /// How it was mended.
    #[schemars(length(max = 2000))]
    pub fix: String,
    /// What was rolled back beside the traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// Position in the database's log before a restore, such as an LSN.
    #[schemars(length(max = 100))]
    pub lsn_before: String,
    /// The same after it.
    #[schemars(length(max = 100))]
    pub lsn_after: String,
    /// Why it happened.
    #[schemars(length(max = 2000))]
    pub root_cause: String,
}

/// What was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Restored {
    /// The application.
    Application,
    /// The database, to a point in time.
    Database,
    /// Both.
    Both,
    /// Neither: it was resolved without.
    Neither,
}

/// The decision to go live: by whom, when, on which checklist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GoNoGo {
    /// When, as RFC 3339.
    #[schemars(length(max = 40))]
    pub at: String,
    /// By whom.
    #[schemars(length(max = 100))]
    pub by: String,
    /// What was looked at.
    #[schemars(length(max = 20))]
    pub checklist: Vec<Check>,
    /// Go or NoGo.
    #[schemars(length(max = 20))]
    pub decision: String,
}

/// One item of a checklist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Check {
    /// Whether it was met.
    pub done: bool,
    /// What.
    #[schemars(length(max = 80))]
    pub text: String,
}

/// How to check that the version works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Verification {
    /// For engineers.
    #[schemars(length(max = 15))]
    pub engineers: Vec<Verify>,
    /// For users.
    #[schemars(length(max = 15))]
    pub users: Vec<Verify>,
}

/// A step of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Verify {
    /// A command, where there is one.
    #[schemars(length(max = 400))]
    pub command: String,
    /// What is to be seen.
    #[schemars(length(max = 400))]
    pub expected: String,
    /// What is checked.
    #[schemars(length(max = 400))]
    pub text: String,
}

/// What was learnt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Lessons {
    /// What could be better.
    #[schemars(length(max = 15), inner(length(max = 400)))]
    pub improve: Vec<String>,
    /// What nobody expected.
    #[schemars(length(max = 15), inner(length(max = 400)))]
    pub surprises: Vec<String>,
    /// What went well.
    #[schemars(length(max = 15), inner(length(max = 400)))]
    pub went_well: Vec<String>,
}

/// Whom to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Contacts {
    /// When something is wrong.
    #[schemars(length(max = 10))]
    pub issues: Vec<Link>,
    /// To roll back.
    #[schemars(length(max = 10))]
    pub rollback: Vec<Link>,
}

/// A name and where it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Link {
    /// The name.
    #[schemars(length(max = 100))]
    pub name: String,
    /// A URL, an address, a number.
    #[schemars(length(max = 400))]
    pub to: String,
}

/// Who signs, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SignOff {
    /// Who approved.
    #[schemars(length(max = 10), inner(length(max = 60)))]
    pub approvers: Vec<String>,
    /// When, such as 2026-11-21.
    #[schemars(length(max = 40))]
    pub date: String,
    /// The release manager.
    #[schemars(length(max = 100))]
    pub manager: String,
    /// What they say of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Standing>,
}

/// What is said of a release when it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Standing {
    /// It stays.
    Stable,
    /// It stays and is watched.
    Monitoring,
    /// It was rolled back.
    RolledBack,
}

/// What comes next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NextRelease {
    /// When, as planned.
    #[schemars(length(max = 40))]
    pub date: String,
    /// Its version.
    #[schemars(length(max = 60))]
    pub version: String,
}

/// What the operator wrote down of a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReleaseRecordStatus {
    /// Figures of both versions side by side.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub comparison: Vec<Compared>,
    /// Figures of the stable version before any traffic moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub baseline: Vec<GateRecord>,
    /// Durations, CPU, memory and the queries of `spec.comparison`, of the stable version before any traffic moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub baseline_figures: Vec<Figure>,
    /// The version that was released.
    pub candidate: Version,
    /// Canary, BlueGreen or Standard, by the stages.
    pub deployment: String,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Whether the release is over and this status is final.
    pub frozen: bool,
    /// The gates as the release began, each as a question with its limit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GatePlan>,
    /// `<name>-<number>` of the release.
    pub id: String,
    /// The jobs that the release ran, in the order in which they were due, each attempt by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobRecord>,
    /// What was left out of this record for want of room, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What became of it, in a sentence.
    pub message: String,
    /// How it ended: Promoted, RolledBack, Aborted, Superseded, Overridden.
    pub outcome: String,
    /// Name of the CanaryRelease.
    pub release: String,
    /// uid of the CanaryRelease.
    pub release_uid: String,
    /// SUCCESS, PARTIAL (promoted after a rollback, or with a gate that was ignored or inconclusive, or with skipped
    /// stages) or FAILED; empty while it is under way.
    pub result: String,
    /// Why the result is what it is, where that is not plain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result_because: String,
    /// This release's own rollback, after those of earlier attempts at the same template.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rollbacks: Vec<RollbackRecord>,
    /// Each gate's figures over time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<GateSeries>,
    /// The version that served when it began.
    pub stable: Version,
    /// The stages, planned and as they went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageRecord>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// The target Deployment.
    pub target: String,
    /// Everything in order: decisions, writes, commands, notifications.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<TimelineEntry>,
    /// Entries of the timeline that were dropped for want of room.
    #[serde(skip_serializing_if = "is_nothing")]
    pub timeline_dropped: u32,
    /// Major, Minor or Patch, by the tags' semantic versions; empty where they have none.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The candidate's version: its image's tag, else the template's digest.
    pub version: String,
    /// The same of the version that served before.
    pub version_before: String,
}

/// A gate as it was when the release began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatePlan {
    /// Its name.
    pub gate: String,
    /// errorRate, latency, eventRate, relative or value.
    pub kind: String,
    /// Its limit, with unit.
    pub limit: String,
}

/// A gate at the end of a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GateRecord {
    /// Bad or counted events it rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<f64>,
    /// Its name.
    pub gate: String,
    /// Where the share lies with 95% confidence, for gates on a share.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interval: String,
    /// Its limit, with unit.
    pub limit: String,
    /// Whether the limit was proved to be kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub proved: bool,
    /// Requests it rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<f64>,
    /// What the value rests on, in words.
    pub rests_on: String,
    /// The same figure of the stable side at the same time, with unit; empty where it was not measured.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stable: String,
    /// The value, with unit; `none` where there was none.
    pub value: String,
    /// Pass, Breach, Inconclusive, NoData, Baseline.
    pub verdict: String,
}

/// One stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StageRecord {
    /// Runs of it before this one, the newest four in order: a release that is resumed without weight begins again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<StageRun>,
    /// How many earlier runs there were.
    #[serde(skip_serializing_if = "is_nothing")]
    pub earlier_runs: u32,
    /// When its weight was taken away or the next began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Whether it was given its one extension.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub extended: bool,
    /// The gates when it ended, or now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateRecord>,
    /// From 1.
    pub number: i32,
    /// The canary's share of the requests as counted; empty where too few were.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub observed_share: String,
    /// Gates that passed, of how many, such as `6/6`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub passed: String,
    /// How long it was to be held, such as `15m`.
    pub planned: String,
    /// Planned, Running, Passed, Failed, Skipped, Stopped; Unknown where the operator was away when it ended.
    pub result: String,
    /// When its weight was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// Its weight, such as `5%`.
    pub weight: String,
}

/// A run of a stage that a later one took the place of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StageRun {
    /// When its weight was taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Each gate in a few words: value, verdict and requests.
    pub figures: String,
    /// The canary's share of the requests as counted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub observed_share: String,
    /// Gates that passed, of how many.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub passed: String,
    /// As of a stage.
    pub result: String,
    /// When its weight was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
}

/// A figure with its interval, as it was measured on one side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Figure {
    /// Upper end of the 95% interval; none where it has no bound, or is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// Lower end of the 95% interval; none where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// What, such as `latency P95` or `CPU per pod`.
    pub metric: String,
    /// What it rests on, in words.
    pub rests_on: String,
    /// Its unit.
    pub unit: String,
    /// The value; none where only `low` is known: it is above that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}

/// One run of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobRecord {
    /// BeforeStart, Stage, AfterRollback or AfterPromotion.
    pub at: String,
    /// Which run of it at this place it is, from 1.
    pub attempt: u32,
    /// The CronJob it was made from.
    pub cron_job: String,
    /// When it was seen to have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// What its log tells of: DatabaseHealth, Pooler, Logs, Scan, LsnBefore, LsnAfter, Restore or Other.
    pub evidence: String,
    /// Exit code of the container that decided, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Name of the Job.
    pub job: String,
    /// The end of its log: at most 40 lines and 2 KiB, without control characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log: String,
    /// Of which pod and container the log is, whether its beginning is cut off, or why there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_note: String,
    /// Why the result is what it is, where that is not plain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Its name in the CanaryRelease.
    pub name: String,
    /// Succeeded, Failed, NotRun (it could not be run) or Unfinished (it was not waited for); Running until then.
    pub result: String,
    /// Number of the stage, from 1; absent where it was not run at a stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<i32>,
    /// When it was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// Weight of that stage, such as `5%`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub weight: String,
}

/// One rollback.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RollbackRecord {
    /// When the reason was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Figures of the canary when it happened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<GateRecord>,
    /// Figures of stable once all traffic was back on it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<GateRecord>,
    /// When all traffic was on stable again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clear_at: Option<Time>,
    /// The release it belongs to: this one, or an earlier attempt at the same template.
    pub id: String,
    /// Why, in one sentence.
    pub reason: String,
    /// The stage, such as `2/5`.
    pub stage: String,
    /// Gate or person, by name, such as `gate errors`, `user jane`.
    pub trigger: String,
    /// Whether stable was measured and kept its limits afterwards: `yes`, `no`, or why that is not known.
    pub verified: String,
    /// The canary's weight when it happened, such as `25%`.
    pub weight: String,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    /// When.
    pub at: Time,
    /// Who, where it was a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Decision, Write, Command or Notification.
    pub kind: String,
    /// What.
    pub text: String,
}

/// One figure before and after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Compared {
    /// Of the candidate.
    pub after: String,
    /// Of the version before.
    pub before: String,
    /// By how much, such as `+3.1% (-2.0% to +8.4%)`; why not, where that can't be said.
    pub change: String,
    /// What.
    pub metric: String,
}

pub(crate) fn is_nothing(value: &u32) -> bool {
    *value == 0
}
