//! The jobs that a release ran: facts for the templates, and their files in the evidence folder under the names of the
//! house's template. Several runs that have one name stand in one file, in order.

use std::fmt::Write as _;

use canary_api::{JobRecord, ReleaseRecord, ReleaseRecordStatus};
use serde::Serialize;

use crate::evidence::{File, part, rollback_names, stamp, version_part};
use crate::facts::{BAD, DOUBT, GOOD, clock, known, span};
use crate::harmless::{line, lines};

/// One run of a job.
#[derive(Debug, Clone, Serialize)]
pub struct JobFacts {
    /// Its name.
    pub name: String,
    /// When it was run: `before the start`, `stage 2 at 25%`, `after the rollback`, `after the promotion`.
    pub place: String,
    /// Which run at that place it is.
    pub attempt: u32,
    /// The Job.
    pub job: Option<String>,
    /// The CronJob it was made from.
    pub cron_job: Option<String>,
    /// Succeeded, Failed, not run, unfinished, running.
    pub result: String,
    /// ✅, ⚠️, ❌ or nothing.
    pub mark: &'static str,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// When it was due.
    pub started: Option<String>,
    /// When its end was seen.
    pub ended: Option<String>,
    /// The time between.
    pub took: Option<String>,
    /// Why the result is what it is.
    pub message: Option<String>,
    /// The end of its log, with its lines.
    pub log: Option<String>,
    /// Of what the log is, or why there is none.
    pub log_note: Option<String>,
    /// Its file in the evidence folder.
    pub file: String,
}

/// The jobs of a record, in order.
#[must_use]
pub fn facts(record: &ReleaseRecord, status: &ReleaseRecordStatus) -> Vec<JobFacts> {
    status.jobs.iter().map(|job| one(record, status, job)).collect()
}

fn one(record: &ReleaseRecord, status: &ReleaseRecordStatus, job: &JobRecord) -> JobFacts {
    let (result, mark) = match job.result.as_str() {
        "Succeeded" => ("succeeded", GOOD),
        "Failed" => ("failed", BAD),
        "NotRun" => ("could not be run", DOUBT),
        "Unfinished" => ("not waited for", DOUBT),
        "Running" => ("running", ""),
        other => (other, ""),
    };
    let (from, to) = (job.started.as_ref().map(|time| time.0), job.ended.as_ref().map(|time| time.0));
    let log = lines(&job.log);
    JobFacts {
        name: line(&job.name),
        place: place(job),
        attempt: job.attempt,
        job: known(&job.job),
        cron_job: known(&job.cron_job),
        result: known(result).unwrap_or_else(|| "unknown".to_owned()),
        mark,
        exit_code: job.exit_code,
        started: from.map(clock),
        ended: to.map(clock),
        took: from.zip(to).and_then(|(from, to)| span(from, to)),
        message: known(&job.message),
        log: Some(log).filter(|log| !log.is_empty()),
        log_note: known(&job.log_note),
        file: name(record, status, job),
    }
}

fn place(job: &JobRecord) -> String {
    let stage = || match (job.stage, known(&job.weight)) {
        (Some(number), Some(weight)) => format!("stage {number} at {weight}"),
        (Some(number), None) => format!("stage {number}"),
        (None, _) => "a stage".to_owned(),
    };
    match job.at.as_str() {
        "BeforeStart" => "before the start".to_owned(),
        "Stage" => stage(),
        "AfterRollback" => "after the rollback".to_owned(),
        "AfterPromotion" => "after the promotion".to_owned(),
        other => line(other),
    }
}

/// The name of a run's file: that of the template where it has one for what the log tells of.
fn name(record: &ReleaseRecord, status: &ReleaseRecordStatus, job: &JobRecord) -> String {
    let short = |text: &str| part(&part(text).chars().take(40).collect::<String>());
    let weight = (job.at == "Stage").then(|| short(job.weight.trim_end_matches('%')));
    match (job.evidence.as_str(), weight) {
        ("DatabaseHealth", Some(weight)) => format!("db_health_stage_{weight}.txt"),
        ("Pooler", Some(weight)) => format!("pgbouncer_stage_{weight}.txt"),
        ("Logs", Some(weight)) => format!("logs_stage_{weight}.txt"),
        ("Scan", _) => format!("blind_spots_scan_{}.txt", version_part(record)),
        ("LsnBefore", _) => "pitr_lsn_before.txt".to_owned(),
        ("LsnAfter", _) => "pitr_lsn_after.txt".to_owned(),
        ("Restore", _) => restore(status, job),
        (_, Some(weight)) => format!("job_{}_stage_{weight}.txt", short(&job.name)),
        (_, None) => {
            format!("job_{}_{}.txt", short(&job.name), short(&place(job).replace("the ", "").replace(' ', "_")))
        }
    }
}

/// By the time of the release's own rollback, as its other files.
fn restore(status: &ReleaseRecordStatus, job: &JobRecord) -> String {
    let own = status.rollbacks.iter().find(|rollback| rollback.id == status.id).and_then(rollback_names);
    let started = || job.started.as_ref().map_or_else(|| "unknown".to_owned(), |time| stamp(time.0));
    own.map_or_else(|| format!("db_restore_{}.txt", started()), |names| names.restore)
}

/// Puts the jobs' files into the folder: in the place of what said that there is none, beside what people gave.
pub(crate) fn add_to(files: &mut Vec<File>, record: &ReleaseRecord, status: &ReleaseRecordStatus) {
    for job in &status.jobs {
        let shown = one(record, status, job);
        let text = sheet(&shown);
        let of_rollback =
            job.at == "AfterRollback" || matches!(job.evidence.as_str(), "LsnBefore" | "LsnAfter" | "Restore");
        match files.iter_mut().find(|file| file.name == shown.file) {
            Some(file) => {
                file.text = Ok(match &file.text {
                    Ok(before) => format!("{before}\n{text}"),
                    Err(_) => text,
                });
            }
            None => {
                let about = format!("what job {} printed, {}", shown.name, shown.place);
                files.push(File { name: shown.file, about, text: Ok(text), of_rollback });
            }
        }
    }
}

fn sheet(job: &JobFacts) -> String {
    let mut text = format!("Job {}, {}\n\n", job.name, job.place);
    let mut row = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<16} {value}");
        }
    };
    row("Result", Some(&job.result));
    row("Exit code", job.exit_code.map(|code| code.to_string()).as_deref());
    row("Because", job.message.as_deref());
    row("Job", job.job.as_deref());
    row("CronJob", job.cron_job.as_deref());
    row("Attempt", Some(&job.attempt.to_string()));
    row("Due", job.started.as_deref());
    row("Ended", job.ended.as_deref());
    row("Log", job.log_note.as_deref());
    text.push('\n');
    match &job.log {
        // Set off, so that nothing a program prints can be taken for a row above.
        Some(log) => log.lines().for_each(|line| {
            let _ = writeln!(text, "    {line}");
        }),
        None => text.push_str("The record holds no log of it.\n"),
    }
    text
}

/// The position in the database's log that a job printed: its last line, of the newest run that succeeded.
#[must_use]
pub fn position(status: &ReleaseRecordStatus, evidence: &str) -> Option<String> {
    let told = |job: &&JobRecord| job.evidence == evidence && job.result == "Succeeded";
    let job = status.jobs.iter().rev().find(told)?;
    let last = job.log.lines().rev().find_map(known)?;
    (last.chars().count() <= 100).then_some(last)
}
