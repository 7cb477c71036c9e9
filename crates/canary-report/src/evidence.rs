//! The evidence folder of a release: what of it a record can fill, as texts under the names of the house's template, and
//! of the rest why it is not there. It writes no file.

use std::fmt::Write as _;

use canary_api::{
    GateRecord, GateSeries, Point, ReleaseRecord, ReleaseRecordStatus, Restored, RollbackRecord, StageRecord,
};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::facts::{FileFacts, clock, facts, known, span, version};
use crate::harmless::{line, lines};
use crate::over_time;

/// The list of the folder's files, and of what is not there.
pub const MANIFEST: &str = "MANIFEST.txt";
/// Digests of all files but itself and the signature, as `sha256sum -c` reads them.
pub const SUMS: &str = "SHA256SUMS";

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name: letters, digits, `.`, `_` and `-` only.
    pub name: String,
    /// What is in it, in a few words.
    pub about: String,
    /// Its text; or why it is not written.
    pub text: Result<String, String>,
    /// Whether it is about a rollback.
    pub of_rollback: bool,
}

/// Names of a rollback's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackNames {
    /// The decision and what followed.
    pub decision: String,
    /// Figures of the canary when it happened.
    pub before: String,
    /// Figures of stable afterwards.
    pub after: String,
    /// The report of the incident.
    pub incident: String,
    /// What a restore of the database printed.
    pub restore: String,
}

/// Names of a rollback's files, by its time in UTC, such as `rollback_20261121T120004Z.txt`; none where that is unknown.
#[must_use]
pub fn rollback_names(rollback: &RollbackRecord) -> Option<RollbackNames> {
    let at = stamp(rollback.at.as_ref()?.0);
    Some(RollbackNames {
        decision: format!("rollback_{at}.txt"),
        before: format!("metrics_before_rollback_{at}.txt"),
        after: format!("metrics_after_rollback_{at}.txt"),
        incident: format!("incident_{at}.md"),
        restore: format!("db_restore_{at}.txt"),
    })
}

pub(crate) fn stamp(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// A text as part of a file's name.
pub(crate) fn part(text: &str) -> String {
    let sign = |sign: char| if sign.is_ascii_alphanumeric() || "._-".contains(sign) { sign } else { '-' };
    let shown: String = line(text).chars().map(sign).take(60).collect();
    let shown = shown.trim_matches(['-', '.']).to_owned();
    if shown.is_empty() { "unknown".to_owned() } else { shown }
}

/// Whether it can be the name of a file of the folder, and of nothing outside of it.
fn is_name(text: &str) -> bool {
    let sound = |sign: char| sign.is_ascii_alphanumeric() || "._-".contains(sign);
    !text.is_empty() && text.len() <= 250 && text.chars().all(sound) && text == text.trim_matches(['-', '.'])
}

/// `v2.1.0`, also of `2.1.0`.
#[must_use]
pub fn version_part(record: &ReleaseRecord) -> String {
    let version = part(&version(record).unwrap_or_default());
    let numbered = version.strip_prefix('v').is_some_and(|rest| rest.starts_with(|sign: char| sign.is_ascii_digit()));
    if numbered { version } else { format!("v{version}") }
}

/// The folder's files in the order of the template, without [`MANIFEST`] and [`SUMS`].
#[must_use]
pub fn files(record: &ReleaseRecord) -> Vec<File> {
    let mut files = listed(record);
    let rollbacks = record.status.as_ref().map(|status| status.rollbacks.as_slice()).unwrap_or_default();
    for rollback in rollbacks {
        let name = rollback_names(rollback).map(|names| names.incident);
        if let Some(file) = files.iter_mut().find(|file| Some(&file.name) == name.as_ref()) {
            file.text = incident(record, rollback).map_err(|error| error.to_string());
        }
    }
    files
}

/// The names alone, for the notes.
pub(crate) fn names(record: &ReleaseRecord) -> Vec<FileFacts> {
    let facts = |file: File| FileFacts {
        name: file.name,
        about: file.about,
        missing: file.text.err(),
        of_rollback: file.of_rollback,
    };
    listed(record).into_iter().map(facts).collect()
}

/// The files, but for the texts of incidents: those are written from facts, of which this list is a part.
fn listed(record: &ReleaseRecord) -> Vec<File> {
    let empty = ReleaseRecordStatus::default();
    let status = record.status.as_ref().unwrap_or(&empty);
    let mut files = of_deployment(record, status, &version_part(record));
    let mut more: Vec<File> =
        status.rollbacks.iter().flat_map(|rollback| of_rollback(record, status, rollback)).collect();
    if !status.rollbacks.is_empty() {
        more.extend(of_database(record));
    }
    // Two rollbacks within a second would have one name.
    for file in more {
        if !files.iter().any(|other| other.name == file.name) {
            files.push(file);
        }
    }
    crate::jobs::add_to(&mut files, record, status);
    files
}

fn file(name: String, about: &str, text: Result<String, String>, of_rollback: bool) -> File {
    File { name, about: about.to_owned(), text, of_rollback }
}

fn of_deployment(record: &ReleaseRecord, status: &ReleaseRecordStatus, version: &str) -> Vec<File> {
    let linked = |what: &str| -> Result<String, String> {
        let named = record.spec.links.iter().find(|link| link.name.to_lowercase().contains(&what.to_lowercase()));
        Err(match named {
            Some(link) => format!("it is at {}", line(&link.to)),
            None => format!("the record holds no {what}; name where it is under spec.links"),
        })
    };
    let mut files = vec![
        file(
            "release_tag.txt".to_owned(),
            "what was released: version, images, digests, times",
            Ok(tag(record, status)),
            false,
        ),
        file(format!("sbom_{version}.json"), "software bill of materials", linked("SBOM"), false),
        file(format!("build_provenance_{version}.json"), "build provenance", linked("provenance"), false),
        file(
            format!("go_nogo_signed_{version}.txt"),
            "the decision to go live: by whom, when, on which checklist",
            go_no_go(record),
            false,
        ),
        file(
            format!("blind_spots_scan_{version}.txt"),
            "pre-flight scan",
            Err("the record holds no output of a job".to_owned()),
            false,
        ),
        file(
            format!("baseline_metrics_{version}.txt"),
            "figures of the stable version before any traffic moved",
            baseline(status).ok_or_else(|| "no baseline was measured".to_owned()),
            false,
        ),
        file(
            format!("canary_plan_{version}.txt"),
            "the stages and gates as the release began",
            Ok(plan(status)),
            false,
        ),
    ];
    for stage in &status.stages {
        let weight = part(stage.weight.trim_end_matches('%'));
        files.push(file(
            format!("rollout_stage_{weight}.txt"),
            &format!("stage {} at {}", stage.number, line(&stage.weight)),
            stage_text(status, stage),
            false,
        ));
    }
    for (kind, about) in [("db_health", "database health"), ("pgbouncer", "pooler statistics"), ("logs", "logs")] {
        for stage in &status.stages {
            let weight = part(stage.weight.trim_end_matches('%'));
            let why = "the record holds no output of a job".to_owned();
            let about = format!("{about} at stage {}", stage.number);
            files.push(file(format!("{kind}_stage_{weight}.txt"), &about, Err(why), false));
        }
    }
    files
}

fn of_rollback(record: &ReleaseRecord, status: &ReleaseRecordStatus, rollback: &RollbackRecord) -> Vec<File> {
    let Some(names) = rollback_names(rollback) else { return Vec::new() };
    // Only of its own rollback does a record hold what came around it.
    let own = rollback.id == status.id;
    let trigger = rollback.at.as_ref().map(|time| time.0);
    let later = |point: &Point| over_time::moment(status, point.at) > trigger;
    let around = |after: bool| moments(status, |series| series.around.read(), |point| own && later(point) == after);
    let figures = |title: &str, gates: &[GateRecord], over_time: String| match figures(title, gates) {
        Some(text) => Ok(format!("{text}{over_time}")),
        None if !over_time.is_empty() => Ok(format!("{title}\n{over_time}")),
        None => Err("the record holds no figures of that moment".to_owned()),
    };
    let (before, after) = (
        figures("Canary before the rollback", &rollback.before, around(false)),
        figures("Stable after the rollback", &rollback.after, around(true)),
    );
    let mut files = vec![
        file(names.decision, "the decision to roll back, and what followed", Ok(decision(status, rollback)), true),
        file(names.before, "the canary's figures when it happened", before, true),
        file(names.after, "stable's figures once all traffic was back", after, true),
        file(
            names.incident,
            "the incident: what happened, in order, and what people say of it",
            Ok(String::new()),
            true,
        ),
    ];
    files.extend(restore_file(record, names.restore));
    files
}

fn restore_file(record: &ReleaseRecord, name: String) -> Option<File> {
    let restored = matches!(record.spec.rollback.restored, Some(Restored::Database | Restored::Both));
    let why = "the record does not hold what the restore printed".to_owned();
    restored.then(|| file(name, "what the restore of the database printed", Err(why), true))
}

fn of_database(record: &ReleaseRecord) -> Vec<File> {
    let text = &record.spec.rollback;
    let position = |name: &str, when: &str, lsn: &str| {
        let asked = format!(
            "not given; spec.rollback.lsn{} of the record holds it",
            if when == "before" { "Before" } else { "After" }
        );
        let text = known(lsn).map(|lsn| format!("{lsn}\n")).ok_or(asked);
        file(name.to_owned(), &format!("position in the database's log {when} a restore"), text, true)
    };
    match text.restored {
        Some(Restored::Application | Restored::Neither) => Vec::new(),
        None if text.lsn_before.is_empty() && text.lsn_after.is_empty() => Vec::new(),
        _ => vec![
            position("pitr_lsn_before.txt", "before", &text.lsn_before),
            position("pitr_lsn_after.txt", "after", &text.lsn_after),
        ],
    }
}

/// `Name:  value` lines.
struct Sheet(String);

impl Sheet {
    fn new(title: &str) -> Self {
        Self(format!("{title}\n\n"))
    }

    fn row(&mut self, name: &str, value: Option<String>) {
        let _ = writeln!(self.0, "{name:<16} {}", value.unwrap_or_else(|| "unknown".to_owned()));
    }
}

fn tag(record: &ReleaseRecord, status: &ReleaseRecordStatus) -> String {
    let mut sheet = Sheet::new("Release");
    let images = |version: &canary_api::Version| known(&version.images.join(", "));
    sheet.row("Version", version(record));
    sheet.row("Before", known(&status.version_before));
    sheet.row("Release", known(&status.id));
    sheet.row("CanaryRelease", known(&status.release));
    sheet.row("uid", known(&status.release_uid));
    sheet.row("Namespace", record.metadata.namespace.as_deref().and_then(known));
    sheet.row("Deployment", known(&status.target));
    sheet.row("Images", images(&status.candidate));
    sheet.row("Template", known(&status.candidate.digest));
    sheet.row("Changed by", known(&status.candidate.changed_by));
    sheet.row("Images before", images(&status.stable));
    sheet.row("Template before", known(&status.stable.digest));
    sheet.row("Started", status.started.as_ref().map(|time| clock(time.0)));
    sheet.row("Ended", status.ended.as_ref().map(|time| clock(time.0)));
    sheet.row("Outcome", known(&status.outcome));
    sheet.row("Result", known(&status.result));
    sheet.0
}

fn go_no_go(record: &ReleaseRecord) -> Result<String, String> {
    let said = record.spec.go_no_go.as_ref().ok_or("nobody wrote it down; spec.goNoGo of the record holds it")?;
    let mut sheet = Sheet::new("Go or no-go");
    sheet.row("Decision", known(&said.decision));
    sheet.row("By", known(&said.by));
    sheet.row("At", known(&said.at));
    sheet.0.push_str("\nChecklist\n");
    for item in &said.checklist {
        let _ = writeln!(sheet.0, "[{}] {}", if item.done { 'x' } else { ' ' }, line(&item.text));
    }
    Ok(sheet.0)
}

fn plan(status: &ReleaseRecordStatus) -> String {
    let mut sheet = Sheet::new("Plan");
    sheet.row("Deployment", known(&status.deployment));
    sheet.0.push_str("\nStages\n");
    for stage in &status.stages {
        let planned = known(&stage.planned).unwrap_or_else(|| "unknown".to_owned());
        let _ = writeln!(sheet.0, "{:>2}. {:>6} for {planned}", stage.number, line(&stage.weight));
    }
    sheet.0.push_str("\nGates\n");
    for gate in &status.gates {
        let _ = writeln!(sheet.0, "{} ({}): {}", line(&gate.gate), line(&gate.kind), line(&gate.limit));
    }
    sheet.0
}

fn stage_text(status: &ReleaseRecordStatus, stage: &StageRecord) -> Result<String, String> {
    if stage.started.is_none() {
        return Err("the release did not come to it".to_owned());
    }
    let mut sheet = Sheet::new(&format!("Stage {} at {}", stage.number, line(&stage.weight)));
    let (from, to) = (stage.started.as_ref().map(|time| time.0), stage.ended.as_ref().map(|time| time.0));
    sheet.row("Result", known(&stage.result));
    sheet.row("Observed share", known(&stage.observed_share));
    sheet.row("Started", from.map(clock));
    sheet.row("Ended", to.map(clock));
    sheet.row("Planned", known(&stage.planned));
    sheet.row("Took", from.zip(to).and_then(|(from, to)| span(from, to)));
    if stage.extended {
        sheet.row("Extended", Some("once".to_owned()));
    }
    sheet.row("Gates passed", known(&stage.passed));
    sheet.0.push('\n');
    sheet.0.push_str(&gates_text(&stage.gates));
    let own = |point: &Point| i32::try_from(point.stage) == Ok(stage.number) && point.verdict != Some('s');
    sheet.0.push_str(&moments(status, |series| series.whole.read(), own));
    for run in &stage.earlier {
        let (from, to) = (run.started.as_ref().map(|time| clock(time.0)), run.ended.as_ref().map(|time| clock(time.0)));
        sheet.0.push_str("\nAn earlier run\n");
        sheet.row("Result", known(&run.result));
        sheet.row("Started", from);
        sheet.row("Ended", to);
        sheet.row("Gates passed", known(&run.passed));
        sheet.row("Figures", known(&run.figures));
    }
    let unkept = usize::try_from(stage.earlier_runs).unwrap_or(0).saturating_sub(stage.earlier.len());
    if unkept > 0 {
        let _ = writeln!(sheet.0, "\nThere were {unkept} runs before, of which nothing is kept.");
    }
    Ok(sheet.0)
}

/// Each gate over time, at the moments that are wanted.
fn moments(
    status: &ReleaseRecordStatus,
    points: impl Fn(&GateSeries) -> Vec<Point>,
    wanted: impl Fn(&Point) -> bool,
) -> String {
    let mut text = String::new();
    for series in &status.series {
        let mut points = points(series);
        points.retain(|point| wanted(point));
        if let Some(table) = over_time::table(&over_time::rows(status, series, &points)) {
            let _ = write!(text, "\n{} over time, counted since the stage began\n\n{table}", line(&series.gate));
        }
    }
    text
}

fn figures(title: &str, gates: &[GateRecord]) -> Option<String> {
    (!gates.is_empty()).then(|| format!("{title}\n\n{}", gates_text(gates)))
}

/// What was measured before any traffic moved.
fn baseline(status: &ReleaseRecordStatus) -> Option<String> {
    let title = "Stable before the release";
    let mut text = figures(title, &status.baseline);
    for figure in &status.baseline_figures {
        let text = text.get_or_insert_with(|| format!("{title}\n\n"));
        let unit = line(&figure.unit);
        let value = match (figure.value, figure.low) {
            (Some(value), _) => format!("{value}{unit}"),
            (None, Some(low)) => format!("> {low}{unit}"),
            (None, None) => "unknown".to_owned(),
        };
        let _ = writeln!(text, "{}: {value}", line(&figure.metric));
        if let (Some(low), Some(high)) = (figure.low, figure.high) {
            let _ = writeln!(text, "    95% interval: {low}{unit} to {high}{unit}");
        }
        let _ = writeln!(text, "    rests on: {}", line(&figure.rests_on));
    }
    text
}

fn gates_text(gates: &[GateRecord]) -> String {
    let mut text = String::new();
    for gate in gates {
        let shown = crate::facts::gate(gate);
        let proved = if gate.proved { ", proved" } else { "" };
        let limit = shown.limit.as_deref().unwrap_or("no limit");
        let _ = writeln!(text, "{}: {}; limit {limit}; {}{proved}", shown.gate, shown.value, shown.verdict);
        for (name, value) in
            [("95% interval", &shown.interval), ("rests on", &shown.rests_on), ("stable", &shown.stable)]
        {
            if let Some(value) = value {
                let _ = writeln!(text, "    {name}: {value}");
            }
        }
        for (name, value) in [("requests", gate.requests), ("events", gate.events)] {
            if let Some(value) = value {
                let _ = writeln!(text, "    {name}: {value}");
            }
        }
    }
    if text.is_empty() { "No figures of gates.\n".to_owned() } else { text }
}

fn decision(status: &ReleaseRecordStatus, rollback: &RollbackRecord) -> String {
    let mut sheet = Sheet::new("Rollback");
    let (at, clear) = (rollback.at.as_ref().map(|time| time.0), rollback.clear_at.as_ref().map(|time| time.0));
    sheet.row("Release", known(&rollback.id));
    sheet.row("Trigger", known(&rollback.trigger));
    sheet.row("Stage", known(&rollback.stage));
    sheet.row("Weight", known(&rollback.weight));
    sheet.row("At", at.map(clock));
    sheet.row("Reason", known(&rollback.reason));
    sheet.row("Traffic back at", clear.map(clock));
    sheet.row("Recovery time", at.zip(clear).and_then(|(from, to)| span(from, to)));
    sheet.row("Verified", known(&rollback.verified));
    if rollback.id == status.id {
        sheet.0.push_str("\nFrom then on\n");
        let later = status.timeline.iter().filter(|entry| at.is_some_and(|at| entry.at.0 >= at));
        for entry in later {
            let by = known(&entry.by).map_or_else(String::new, |by| format!(" by {by}"));
            let _ = writeln!(sheet.0, "{}  {}{by}: {}", clock(entry.at.0), line(&entry.kind), line(&entry.text));
        }
    }
    sheet.0
}

fn incident(record: &ReleaseRecord, rollback: &RollbackRecord) -> Result<String, crate::Error> {
    let mut facts = facts(record, &canary_api::Changes::default());
    let names = rollback_names(rollback);
    facts.rollbacks.retain(|one| one.incident == names.as_ref().map(|names| names.incident.clone()));
    crate::notes::incident(&facts)
}

/// The list of the folder, with what is not in it and why. `written` are the files of [`files`] and any others, by name.
#[must_use]
pub fn manifest(record: &ReleaseRecord, files: &[File]) -> String {
    let status = record.status.as_ref();
    let id = status.and_then(|status| known(&status.id)).unwrap_or_else(|| "(no id)".to_owned());
    let mut text = format!("Evidence of release {id}\n");
    if !status.is_some_and(|status| status.frozen) {
        text.push_str("The release was not over when this was collected: figures may still change.\n");
    }
    text.push_str("\nCollected\n");
    for file in files.iter().filter(|file| file.text.is_ok()) {
        let _ = writeln!(text, "  {}  {}", file.name, line(&file.about));
    }
    text.push_str("\nNot collected\n");
    for file in files {
        if let Err(why) = &file.text {
            let _ = writeln!(text, "  {}  {}: {}", file.name, line(&file.about), line(why));
        }
    }
    text
}

/// `<SHA-256>  <name>` lines by name, as `sha256sum` writes and checks them.
#[must_use]
pub fn sums<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut lines: Vec<(&str, String)> = files.into_iter().map(|(name, bytes)| (name, sha256(bytes))).collect();
    lines.sort_unstable();
    lines.into_iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect()
}

/// Lower-case hex of a SHA-256. That of [`SUMS`] is the digest of the whole set.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a file's bytes are those that [`sums`] were made of: names that are missing, changed or not listed.
///
/// # Errors
/// Where the list is not one that [`sums`] writes.
pub fn differences<'a>(
    sums: &str,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Vec<String>, String> {
    let mut listed = std::collections::BTreeMap::new();
    for (number, row) in (1..).zip(sums.lines()) {
        let (digest, name) =
            row.split_once("  ").ok_or_else(|| format!("{SUMS} line {number} is no digest and name"))?;
        let hex = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex || !is_name(name) || listed.insert(name, digest).is_some() {
            return Err(format!("{SUMS} line {number} is no digest and name of a file of its own"));
        }
    }
    if listed.is_empty() {
        return Err(format!("{SUMS} lists nothing"));
    }
    let mut wrong = Vec::new();
    for (name, bytes) in files {
        match listed.remove(name) {
            None => wrong.push(format!("{} is not listed", lines(name))),
            Some(digest) if digest != sha256(bytes) => wrong.push(format!("{name} was changed")),
            Some(_) => {}
        }
    }
    wrong.extend(listed.keys().map(|name| format!("{name} is missing")));
    wrong.sort();
    Ok(wrong)
}
