//! What there is to say of a release, ready for a template: the record's words, times as people read them, and marks
//! for what is good and bad. Unknown is `none`, never a guess. It escapes nothing: that is done where it is shown.

use canary_api::{
    Changes, Compared, GateRecord, Level, Progress, ReleaseRecord, ReleaseType, Restored, RollbackRecord, StageRecord,
    Standing, TimelineEntry, Version,
};
use canary_api::{Duration, Verify};
use jiff::Timestamp;
use serde::Serialize;

use crate::changes::together;
use crate::evidence;
use crate::figure::said;
use crate::harmless::{address, line};
use crate::jobs::{self, JobFacts};

/// The context of a template. docs/notes.md describes it.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// Name of the ReleaseRecord.
    pub record: String,
    /// Its namespace.
    pub namespace: String,
    /// Id of the release.
    pub id: String,
    /// The CanaryRelease.
    pub release: String,
    /// The Deployment.
    pub target: String,
    /// The version.
    pub version: Option<String>,
    /// The version that served before.
    pub version_before: Option<String>,
    /// Major, Minor or Patch.
    #[serde(rename = "type")]
    pub kind: Option<&'static str>,
    /// Canary, Blue-Green or Standard.
    pub deployment: Option<String>,
    /// Day on which it ended, else on which it began.
    pub date: Option<String>,
    /// When it began.
    pub started: Option<String>,
    /// When it was over.
    pub ended: Option<String>,
    /// From beginning to end.
    pub total: Option<String>,
    /// Whether it is over and nothing will change.
    pub frozen: bool,
    /// Promoted, RolledBack, and so on.
    pub outcome: Option<String>,
    /// What became of it, in a sentence.
    pub message: Option<String>,
    /// SUCCESS, PARTIAL, FAILED.
    pub result: Option<String>,
    /// ✅, ⚠️ or ❌ for it.
    pub mark: &'static str,
    /// Why it is so.
    pub result_because: Option<String>,
    /// The candidate.
    pub candidate: VersionFacts,
    /// What served before.
    pub stable: VersionFacts,
    /// What it is for.
    pub summary: Option<String>,
    /// The stages.
    pub stages: Vec<StageFacts>,
    /// The gates of the release.
    pub gates: Vec<PlanFacts>,
    /// Stable before the release.
    pub baseline: Vec<GateFacts>,
    /// Rollbacks, earlier attempts first.
    pub rollbacks: Vec<RollbackFacts>,
    /// The jobs that it ran, each run by itself.
    pub jobs: Vec<JobFacts>,
    /// What people say of rollbacks.
    pub rollback: RollbackTextFacts,
    /// What changed.
    pub changes: ChangesFacts,
    /// Risks.
    pub risks: Vec<RiskFacts>,
    /// The decision to go live.
    pub go_no_go: Option<GoNoGoFacts>,
    /// Steps for users.
    pub verify_users: Vec<Step>,
    /// Steps for engineers.
    pub verify_engineers: Vec<Step>,
    /// Before and after.
    pub comparison: Vec<Compared>,
    /// What was learnt.
    pub lessons: LessonsFacts,
    /// Whom to ask.
    pub contacts: ContactsFacts,
    /// Where to read on.
    pub links: Vec<LinkFacts>,
    /// Who signs.
    pub sign_off: SignOffFacts,
    /// What comes next.
    pub next_release: NextFacts,
    /// Everything in order.
    pub timeline: Vec<EntryFacts>,
    /// Entries that the record had no room for.
    pub timeline_dropped: u32,
    /// What the record had no room for, a sentence each.
    pub left_out: Vec<String>,
    /// The files of the evidence folder.
    pub evidence: Vec<FileFacts>,
}

/// A version.
#[derive(Debug, Clone, Serialize)]
pub struct VersionFacts {
    /// Its images.
    pub images: Vec<String>,
    /// Digest of its template.
    pub digest: Option<String>,
    /// Who changed the template to it.
    pub changed_by: Option<String>,
}

/// A stage.
#[derive(Debug, Clone, Serialize)]
pub struct StageFacts {
    /// From 1.
    pub number: i32,
    /// Its weight.
    pub weight: Option<String>,
    /// The share of the requests that was counted.
    pub observed: Option<String>,
    /// How long it was to be held.
    pub planned: Option<String>,
    /// How long it was.
    pub took: Option<String>,
    /// When its weight was asked for.
    pub started: Option<String>,
    /// When it was over.
    pub ended: Option<String>,
    /// Passed, Failed, and so on.
    pub result: Option<String>,
    /// The same in words: PASS, FAIL, not reached, and so on.
    pub status: String,
    /// ✅, ⚠️, ❌ or nothing.
    pub mark: &'static str,
    /// Gates that passed, of how many.
    pub passed: Option<String>,
    /// Whether it was extended.
    pub extended: bool,
    /// Its gates.
    pub gates: Vec<GateFacts>,
}

/// A gate of the plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlanFacts {
    /// Its name.
    pub gate: String,
    /// Its kind.
    pub kind: String,
    /// Its limit.
    pub limit: String,
}

/// A gate's figures.
#[derive(Debug, Clone, Serialize)]
pub struct GateFacts {
    /// Its name.
    pub gate: String,
    /// What it measured, in words.
    pub value: String,
    /// Its limit.
    pub limit: Option<String>,
    /// Its verdict in words: Pass, Breach, Inconclusive, No data, Baseline.
    pub verdict: String,
    /// ✅, ⚠️, ❌ or nothing.
    pub mark: &'static str,
    /// The interval of a share.
    pub interval: Option<String>,
    /// Whether the limit was proved.
    pub proved: bool,
    /// What it rests on.
    pub rests_on: Option<String>,
    /// The stable side.
    pub stable: Option<String>,
}

/// A rollback.
#[derive(Debug, Clone, Serialize)]
pub struct RollbackFacts {
    /// From 1.
    pub number: usize,
    /// The release it belongs to.
    pub id: Option<String>,
    /// Whether that is an earlier attempt at the same template.
    pub earlier: bool,
    /// Gate or person.
    pub trigger: Option<String>,
    /// The stage.
    pub stage: Option<String>,
    /// The canary's weight.
    pub weight: Option<String>,
    /// When the reason was seen.
    pub at: Option<String>,
    /// When all traffic was on stable.
    pub clear_at: Option<String>,
    /// From one to the other.
    pub recovery: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Whether stable was well afterwards.
    pub verified: Option<String>,
    /// Figures of the canary.
    pub before: Vec<GateFacts>,
    /// Figures of stable.
    pub after: Vec<GateFacts>,
    /// Name of its file of evidence.
    pub file: Option<String>,
    /// Name of its incident file.
    pub incident: Option<String>,
}

/// What people say of rollbacks.
#[derive(Debug, Clone, Serialize)]
pub struct RollbackTextFacts {
    /// Why.
    pub root_cause: Option<String>,
    /// How it was mended.
    pub fix: Option<String>,
    /// Whether it is said what was rolled back.
    pub said: bool,
    /// The application alone.
    pub application: bool,
    /// The database alone.
    pub database: bool,
    /// Both.
    pub both: bool,
    /// Neither.
    pub neither: bool,
    /// Position in the database's log before: as people gave it, else as a job printed it.
    pub lsn_before: Option<String>,
    /// The same after.
    pub lsn_after: Option<String>,
}

/// A change.
#[derive(Debug, Clone, Serialize)]
pub struct ChangeFacts {
    /// What stands before the first colon.
    pub title: Option<String>,
    /// The rest.
    pub text: String,
}

/// What changed.
#[derive(Debug, Clone, Serialize)]
pub struct ChangesFacts {
    /// What no longer works as before.
    pub breaking: Vec<ChangeFacts>,
    /// Documents.
    pub documentation: Vec<ChangeFacts>,
    /// New.
    pub features: Vec<ChangeFacts>,
    /// Mended.
    pub fixes: Vec<ChangeFacts>,
    /// Better.
    pub improvements: Vec<ChangeFacts>,
    /// What it runs on.
    pub infrastructure: Vec<ChangeFacts>,
    /// Known and not mended.
    pub known_issues: Vec<ChangeFacts>,
    /// What must be done.
    pub migration: Vec<ChangeFacts>,
    /// Faster.
    pub performance: Vec<ChangeFacts>,
    /// Safer.
    pub security: Vec<ChangeFacts>,
}

/// A risk.
#[derive(Debug, Clone, Serialize)]
pub struct RiskFacts {
    /// From 1.
    pub number: usize,
    /// In a few words.
    pub title: Option<String>,
    /// What may happen.
    pub description: Option<String>,
    /// Low, Medium, High.
    pub likelihood: Option<&'static str>,
    /// Low, Medium, High.
    pub impact: Option<&'static str>,
    /// Who deals with it.
    pub owner: Option<String>,
    /// By when.
    pub due: Option<String>,
    /// What is done.
    pub mitigation: Vec<String>,
    /// Not started, In progress, Done.
    pub status: Option<&'static str>,
}

/// The decision to go live.
#[derive(Debug, Clone, Serialize)]
pub struct GoNoGoFacts {
    /// Go or NoGo.
    pub decision: Option<String>,
    /// By whom.
    pub by: Option<String>,
    /// When.
    pub at: Option<String>,
    /// The checklist.
    pub checklist: Vec<CheckFacts>,
}

/// An item of a checklist.
#[derive(Debug, Clone, Serialize)]
pub struct CheckFacts {
    /// Whether it was met.
    pub done: bool,
    /// What.
    pub text: String,
}

/// A step of a verification.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// What is checked.
    pub text: Option<String>,
    /// A command.
    pub command: Option<String>,
    /// What is to be seen.
    pub expected: Option<String>,
}

/// What was learnt.
#[derive(Debug, Clone, Serialize)]
pub struct LessonsFacts {
    /// Good.
    pub went_well: Vec<String>,
    /// To be better.
    pub improve: Vec<String>,
    /// Unexpected.
    pub surprises: Vec<String>,
}

/// Whom to ask.
#[derive(Debug, Clone, Serialize)]
pub struct ContactsFacts {
    /// When something is wrong.
    pub issues: Vec<LinkFacts>,
    /// To roll back.
    pub rollback: Vec<LinkFacts>,
}

/// A name and where it leads.
#[derive(Debug, Clone, Serialize)]
pub struct LinkFacts {
    /// The name.
    pub name: String,
    /// As it was written.
    pub to: String,
    /// The address of a link, where it is one.
    pub address: Option<String>,
}

/// Who signs.
#[derive(Debug, Clone, Serialize)]
pub struct SignOffFacts {
    /// The release manager.
    pub manager: Option<String>,
    /// Who approved.
    pub approvers: Vec<String>,
    /// When.
    pub date: Option<String>,
    /// STABLE, MONITORING, ROLLED BACK.
    pub status: Option<&'static str>,
    /// ✅, ⚠️, ❌ or nothing.
    pub mark: &'static str,
}

/// What comes next.
#[derive(Debug, Clone, Serialize)]
pub struct NextFacts {
    /// Its version.
    pub version: Option<String>,
    /// When.
    pub date: Option<String>,
}

/// An entry of the timeline.
#[derive(Debug, Clone, Serialize)]
pub struct EntryFacts {
    /// When.
    pub at: String,
    /// Decision, Write, Command or Notification.
    pub kind: String,
    /// Who.
    pub by: Option<String>,
    /// What.
    pub text: String,
}

/// A file of the evidence folder.
#[derive(Debug, Clone, Serialize)]
pub struct FileFacts {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub about: String,
    /// Why it is not written.
    pub missing: Option<String>,
    /// Whether it is about a rollback.
    pub of_rollback: bool,
}

pub(crate) const GOOD: &str = "✅";
pub(crate) const DOUBT: &str = "⚠️";
pub(crate) const BAD: &str = "❌";

/// Reads a record, and changes from elsewhere that its own list lacks.
#[must_use]
pub fn facts(record: &ReleaseRecord, changes: &Changes) -> Facts {
    let empty = canary_api::ReleaseRecordStatus::default();
    let (spec, status) = (&record.spec, record.status.as_ref().unwrap_or(&empty));
    let (started, ended) = (status.started.as_ref().map(|time| time.0), status.ended.as_ref().map(|time| time.0));
    let of = |text: &Option<String>| text.as_deref().and_then(known);
    Facts {
        record: of(&record.metadata.name).unwrap_or_else(|| "(no name)".to_owned()),
        namespace: of(&record.metadata.namespace).unwrap_or_else(|| "(no namespace)".to_owned()),
        id: known(&status.id).unwrap_or_else(|| "(no id)".to_owned()),
        release: known(&status.release).unwrap_or_else(|| "(no name)".to_owned()),
        target: known(&status.target).unwrap_or_else(|| "(no name)".to_owned()),
        version: version(record),
        version_before: known(&status.version_before),
        kind: kind(record),
        deployment: known(&status.deployment)
            .map(|kind| if kind == "BlueGreen" { "Blue-Green".to_owned() } else { kind }),
        date: ended.or(started).map(day),
        started: started.map(clock),
        ended: ended.map(clock),
        total: started.zip(ended).and_then(|(from, to)| span(from, to)),
        frozen: status.frozen,
        outcome: known(&status.outcome),
        message: known(&status.message),
        result: known(&status.result),
        mark: match status.result.as_str() {
            "SUCCESS" => GOOD,
            "PARTIAL" => DOUBT,
            "FAILED" => BAD,
            _ => "",
        },
        result_because: known(&status.result_because),
        candidate: version_facts(&status.candidate),
        stable: version_facts(&status.stable),
        summary: known(&spec.summary),
        stages: status.stages.iter().map(stage).collect(),
        gates: status
            .gates
            .iter()
            .map(|gate| PlanFacts { gate: line(&gate.gate), kind: line(&gate.kind), limit: line(&gate.limit) })
            .collect(),
        baseline: status.baseline.iter().map(gate).collect(),
        rollbacks: rollbacks(&status.rollbacks, &status.id),
        jobs: jobs::facts(record, status),
        rollback: rollback_text(&spec.rollback, status),
        changes: changes_facts(&together(&spec.changes, changes)),
        risks: risks(&spec.risks),
        go_no_go: spec.go_no_go.as_ref().map(|said| GoNoGoFacts {
            decision: known(&said.decision)
                .map(|decision| if decision == "NoGo" { "No-go".to_owned() } else { decision }),
            by: known(&said.by),
            at: known(&said.at),
            checklist: said
                .checklist
                .iter()
                .map(|item| CheckFacts { done: item.done, text: line(&item.text) })
                .collect(),
        }),
        verify_users: spec.verification.users.iter().map(step).collect(),
        verify_engineers: spec.verification.engineers.iter().map(step).collect(),
        comparison: status.comparison.iter().map(compared).collect(),
        lessons: LessonsFacts {
            went_well: texts(&spec.lessons.went_well),
            improve: texts(&spec.lessons.improve),
            surprises: texts(&spec.lessons.surprises),
        },
        contacts: ContactsFacts { issues: links(&spec.contacts.issues), rollback: links(&spec.contacts.rollback) },
        links: links(&spec.links),
        sign_off: sign_off(spec.sign_off.as_ref()),
        next_release: NextFacts {
            version: spec.next_release.as_ref().and_then(|next| known(&next.version)),
            date: spec.next_release.as_ref().and_then(|next| known(&next.date)),
        },
        timeline: status.timeline.iter().map(entry).collect(),
        timeline_dropped: status.timeline_dropped,
        left_out: texts(&status.left_out),
        evidence: evidence::names(record),
    }
}

/// A text, where there is one.
pub(crate) fn known(text: &str) -> Option<String> {
    Some(line(text)).filter(|text| !text.is_empty())
}

fn texts(texts: &[String]) -> Vec<String> {
    texts.iter().filter_map(|text| known(text)).collect()
}

/// The version, as people gave it, else by the image's tag.
#[must_use]
pub fn version(record: &ReleaseRecord) -> Option<String> {
    let given = record.spec.version.as_deref().and_then(known);
    given.or_else(|| record.status.as_ref().and_then(|status| known(&status.version)))
}

fn kind(record: &ReleaseRecord) -> Option<&'static str> {
    let seen = record.status.as_ref().map_or("", |status| status.kind.as_str());
    match (record.spec.kind, seen) {
        (Some(ReleaseType::Major), _) | (None, "Major") => Some("Major"),
        (Some(ReleaseType::Minor), _) | (None, "Minor") => Some("Minor"),
        (Some(ReleaseType::Patch), _) | (None, "Patch") => Some("Patch"),
        (None, _) => None,
    }
}

/// `2026-11-21 12:00:00 UTC`.
#[must_use]
pub fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// The time between, in whole seconds; none where the second is the earlier.
#[must_use]
pub fn span(from: Timestamp, to: Timestamp) -> Option<String> {
    let seconds = u64::try_from(to.duration_since(from).as_secs()).ok()?;
    Some(Duration::from_secs(seconds).to_string())
}

fn version_facts(version: &Version) -> VersionFacts {
    VersionFacts {
        images: texts(&version.images),
        digest: known(&version.digest),
        changed_by: known(&version.changed_by),
    }
}

fn stage(stage: &StageRecord) -> StageFacts {
    let (status, mark) = match stage.result.as_str() {
        "Passed" => ("PASS", GOOD),
        "Failed" => ("FAIL", BAD),
        "Skipped" => ("skipped", DOUBT),
        "Stopped" => ("stopped", DOUBT),
        "Running" => ("running", ""),
        "Planned" => ("not reached", ""),
        "Unknown" => ("unknown: the operator was away when it ended", DOUBT),
        other => (other, ""),
    };
    let (started, ended) = (stage.started.as_ref().map(|time| time.0), stage.ended.as_ref().map(|time| time.0));
    StageFacts {
        number: stage.number,
        weight: known(&stage.weight),
        observed: known(&stage.observed_share),
        planned: known(&stage.planned),
        took: started.zip(ended).and_then(|(from, to)| span(from, to)),
        started: started.map(clock),
        ended: ended.map(clock),
        result: known(&stage.result),
        status: known(status).unwrap_or_else(|| "unknown".to_owned()),
        mark,
        passed: known(&stage.passed),
        extended: stage.extended,
        gates: stage.gates.iter().map(gate).collect(),
    }
}

/// A gate's figures in words.
#[must_use]
pub fn gate(gate: &GateRecord) -> GateFacts {
    let (verdict, mark) = match gate.verdict.as_str() {
        "Pass" => ("Pass", GOOD),
        "Breach" => ("Breach", BAD),
        "Inconclusive" => ("Inconclusive", DOUBT),
        "NoData" => ("No data", DOUBT),
        "" => ("no verdict", ""),
        other => (other, ""),
    };
    GateFacts {
        gate: line(&gate.gate),
        value: line(&said(gate)),
        limit: known(&gate.limit),
        verdict: line(verdict),
        mark,
        interval: known(&gate.interval),
        proved: gate.proved,
        rests_on: known(&gate.rests_on),
        stable: known(&gate.stable),
    }
}

fn rollbacks(all: &[RollbackRecord], own: &str) -> Vec<RollbackFacts> {
    let one = |(number, rollback): (usize, &RollbackRecord)| {
        let (at, clear) = (rollback.at.as_ref().map(|time| time.0), rollback.clear_at.as_ref().map(|time| time.0));
        let names = evidence::rollback_names(rollback);
        RollbackFacts {
            number,
            id: known(&rollback.id),
            earlier: !rollback.id.is_empty() && rollback.id != own,
            trigger: known(&rollback.trigger),
            stage: known(&rollback.stage),
            weight: known(&rollback.weight),
            at: at.map(clock),
            clear_at: clear.map(clock),
            recovery: at.zip(clear).and_then(|(from, to)| span(from, to)),
            reason: known(&rollback.reason),
            verified: known(&rollback.verified),
            before: rollback.before.iter().map(gate).collect(),
            after: rollback.after.iter().map(gate).collect(),
            file: names.as_ref().map(|names| names.decision.clone()),
            incident: names.map(|names| names.incident),
        }
    };
    (1..).zip(all).map(one).collect()
}

fn rollback_text(text: &canary_api::RollbackText, status: &canary_api::ReleaseRecordStatus) -> RollbackTextFacts {
    RollbackTextFacts {
        root_cause: known(&text.root_cause),
        fix: known(&text.fix),
        said: text.restored.is_some(),
        application: text.restored == Some(Restored::Application),
        database: text.restored == Some(Restored::Database),
        both: text.restored == Some(Restored::Both),
        neither: text.restored == Some(Restored::Neither),
        lsn_before: known(&text.lsn_before).or_else(|| jobs::position(status, "LsnBefore")),
        lsn_after: known(&text.lsn_after).or_else(|| jobs::position(status, "LsnAfter")),
    }
}

fn changes_facts(changes: &Changes) -> ChangesFacts {
    let list = |entries: &[String]| -> Vec<ChangeFacts> {
        let one = |entry: String| match entry.split_once(": ") {
            Some((title, text)) if !title.is_empty() && !text.trim().is_empty() => {
                ChangeFacts { title: Some(title.to_owned()), text: text.trim().to_owned() }
            }
            _ => ChangeFacts { title: None, text: entry },
        };
        entries.iter().filter_map(|entry| known(entry)).map(one).collect()
    };
    ChangesFacts {
        breaking: list(&changes.breaking),
        documentation: list(&changes.documentation),
        features: list(&changes.features),
        fixes: list(&changes.fixes),
        improvements: list(&changes.improvements),
        infrastructure: list(&changes.infrastructure),
        known_issues: list(&changes.known_issues),
        migration: list(&changes.migration),
        performance: list(&changes.performance),
        security: list(&changes.security),
    }
}

fn risks(risks: &[canary_api::Risk]) -> Vec<RiskFacts> {
    let level = |level: Level| match level {
        Level::Low => "Low",
        Level::Medium => "Medium",
        Level::High => "High",
    };
    let one = |(number, risk): (usize, &canary_api::Risk)| RiskFacts {
        number,
        title: known(&risk.title),
        description: known(&risk.description),
        likelihood: risk.likelihood.map(level),
        impact: risk.impact.map(level),
        owner: known(&risk.owner),
        due: known(&risk.due),
        mitigation: texts(&risk.mitigation),
        status: risk.status.map(|status| match status {
            Progress::NotStarted => "Not started",
            Progress::InProgress => "In progress",
            Progress::Done => "Done",
        }),
    };
    (1..).zip(risks).map(one).collect()
}

fn step(step: &Verify) -> Step {
    // A command keeps its lines: it stands in a block of code.
    let command = crate::harmless::lines(&step.command);
    Step {
        text: known(&step.text),
        command: Some(command).filter(|command| !command.is_empty()),
        expected: known(&step.expected),
    }
}

fn compared(compared: &Compared) -> Compared {
    Compared {
        after: line(&compared.after),
        before: line(&compared.before),
        change: line(&compared.change),
        metric: line(&compared.metric),
    }
}

fn links(links: &[canary_api::Link]) -> Vec<LinkFacts> {
    links
        .iter()
        .map(|link| LinkFacts { name: line(&link.name), to: line(&link.to), address: address(&link.to) })
        .collect()
}

fn sign_off(signed: Option<&canary_api::SignOff>) -> SignOffFacts {
    let (status, mark) = match signed.and_then(|signed| signed.status) {
        Some(Standing::Stable) => (Some("STABLE"), GOOD),
        Some(Standing::Monitoring) => (Some("MONITORING"), DOUBT),
        Some(Standing::RolledBack) => (Some("ROLLED BACK"), BAD),
        None => (None, ""),
    };
    SignOffFacts {
        manager: signed.and_then(|signed| known(&signed.manager)),
        approvers: signed.map(|signed| texts(&signed.approvers)).unwrap_or_default(),
        date: signed.and_then(|signed| known(&signed.date)),
        status,
        mark,
    }
}

fn entry(entry: &TimelineEntry) -> EntryFacts {
    EntryFacts { at: clock(entry.at.0), kind: line(&entry.kind), by: known(&entry.by), text: line(&entry.text) }
}
