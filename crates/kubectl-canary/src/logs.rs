//! The whole logs of a release's jobs, as far as their Jobs and pods still stand, as files of the evidence folder beside
//! the ends that the record keeps. It reads a Job only where it was made for this release. What can't be read is
//! named and fails nothing: the record's end of the log is there in any case.

use std::fmt::Write as _;
use std::time::Duration;

use canary_api::names::{ANNOTATION_RELEASE_ID, ANNOTATION_UID, LABEL_OWNED_BY, label_value};
use canary_api::{JobRecord, ReleaseRecord, ReleaseRecordStatus};
use canary_core::{job, object};
use canary_report::evidence::File;
use canary_report::jobs::{JobFacts, facts};
use jiff::Timestamp;
use serde_json::Value;

use crate::cluster::{Cluster, Look, is_name};
use crate::{Error, clean};

/// Bytes of one container's log that are kept: the newest.
pub const MOST: usize = 1024 * 1024;
/// Bytes of a release's logs after which no more are read.
const MOST_OF_RELEASE: usize = 32 * MOST;
/// Containers of one Job that are read.
const CONTAINERS: usize = 10;
/// How long all logs of a release may take.
const DEADLINE: Duration = Duration::from_secs(180);

/// What was read of one run of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Its containers' logs.
    Logs(Vec<Log>),
    /// Nothing; why.
    Nothing(String),
}

/// One container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Of which container and pod it is.
    pub of: String,
    /// Harmless whole lines, or why it could not be read.
    pub text: Result<String, String>,
    /// Whether only its newest part is here.
    pub cut: bool,
    /// Whether its program still ran.
    pub unfinished: bool,
}

/// Reads the logs of each run of a record, in the record's order. Without a cluster there are none.
pub async fn gather(record: &ReleaseRecord, cluster: Option<&Cluster>) -> Vec<Read> {
    within(record, cluster, DEADLINE, MOST_OF_RELEASE).await
}

/// That nothing is to be read, for each run of a record.
#[must_use]
pub fn none(record: &ReleaseRecord, why: &str) -> Vec<Read> {
    record.status.iter().flat_map(|status| &status.jobs).map(|_| Read::Nothing(why.to_owned())).collect()
}

async fn within(record: &ReleaseRecord, cluster: Option<&Cluster>, long: Duration, bytes: usize) -> Vec<Read> {
    let Some(status) = &record.status else { return Vec::new() };
    let Some(cluster) = cluster else { return none(record, "it was written without a cluster") };
    let until = tokio::time::Instant::now().checked_add(long);
    let mut room = bytes;
    let mut all = Vec::new();
    for run in &status.jobs {
        let read = async {
            match until {
                Some(until) => tokio::time::timeout_at(until, of_run(cluster, status, run)).await.ok(),
                None => Some(of_run(cluster, status, run).await),
            }
        };
        let read = match room {
            0 => Read::Nothing(format!("the logs of this release come to more than {bytes} bytes")),
            _ => read.await.unwrap_or_else(|| Read::Nothing(format!("reading took more than {} s", long.as_secs()))),
        };
        if let Read::Logs(logs) = &read {
            let sizes = logs.iter().filter_map(|log| log.text.as_ref().ok()).map(String::len);
            room = sizes.fold(room, usize::saturating_sub);
        }
        all.push(read);
    }
    all
}

async fn of_run(cluster: &Cluster, status: &ReleaseRecordStatus, run: &JobRecord) -> Read {
    match logs_of(cluster, status, run).await {
        Ok(logs) => Read::Logs(logs),
        Err(why) => Read::Nothing(clean::text(&why)),
    }
}

async fn logs_of(cluster: &Cluster, status: &ReleaseRecordStatus, run: &JobRecord) -> Result<Vec<Log>, String> {
    let made = match cluster.look("batch/v1", "Job", Some(&cluster.namespace), &run.job).await {
        Look::There(made) => made,
        Look::Missing | Look::NoKind(_) => return Err("the Job is gone".to_owned()),
        Look::Unknown(why) => return Err(why),
    };
    if !is_run(&made, status, run) {
        return Err("the Job is gone; another has its name".to_owned());
    }
    let told = |error: Error| error.to_string();
    let mut pods = cluster.pods_of_job(&run.job).await.map_err(told)?;
    pods.retain(|pod| object::controlled_by(pod, object::uid(&made)));
    pods.sort_by_key(|pod| (object::text(pod, "/metadata/creationTimestamp").to_owned(), object::name(pod).to_owned()));
    let wanted = containers(&pods, &run.log_note);
    if wanted.is_empty() {
        return Err("the Job's pods are gone".to_owned());
    }
    let unfinished = job::state(&made) == job::State::Running;
    let mut logs = Vec::new();
    for (pod, container) in wanted {
        let read = cluster.newest_of_log(&pod, &container, MOST).await;
        let (text, cut) = match read {
            Ok((bytes, cut)) => {
                let (text, more) = harmless(&bytes, cut);
                (Ok(text), more)
            }
            Err(error) => (Err(clean::text(&error.to_string())), false),
        };
        logs.push(Log { of: clean::text(&format!("container {container} of pod {pod}")), text, cut, unfinished });
    }
    Ok(logs)
}

/// Whether a Job is the one that the operator made for this run: it tells the release, and it is not younger than the
/// run's end.
fn is_run(made: &Value, status: &ReleaseRecordStatus, run: &JobRecord) -> bool {
    let created = object::text(made, "/metadata/creationTimestamp").parse::<Timestamp>().ok();
    let ended = run.ended.as_ref().map(|time| time.0);
    let younger = created.zip(ended).is_some_and(|(created, ended)| created > ended);
    object::annotation(made, ANNOTATION_UID) == Some(status.release_uid.as_str())
        && object::annotation(made, ANNOTATION_RELEASE_ID) == Some(status.id.as_str())
        && object::label(made, LABEL_OWNED_BY) == Some(label_value(&status.release).as_str())
        && !younger
}

/// Pods and containers to read: the one that the record's end of the log is of, where its pod still stands, else all.
fn containers(pods: &[Value], note: &str) -> Vec<(String, String)> {
    let all = pods.iter().flat_map(|pod| {
        let lists = ["/spec/initContainers", "/spec/containers"];
        let named = lists.into_iter().flat_map(|list| object::items(pod, list)).map(|one| object::text(one, "/name"));
        named.map(|container| (object::name(pod).to_owned(), container.to_owned()))
    });
    let sound = |(pod, container): &(String, String)| is_name(pod) && is_name(container);
    let all: Vec<_> = all.filter(sound).collect();
    let named = all.iter().find(|(pod, container)| {
        let rest = note.strip_prefix(&format!("container {container} of pod {pod}"));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([',', ' ']))
    });
    match named {
        Some(one) => vec![one.clone()],
        None => {
            // The newest pods tell most.
            let surplus = all.len().saturating_sub(CONTAINERS);
            all.into_iter().skip(surplus).collect()
        }
    }
}

/// A log as whole lines that do nothing on a terminal, its newest [`MOST`] bytes at most; and whether something before
/// them is left out, which it is where `cut` says so.
fn harmless(log: &[u8], cut: bool) -> (String, bool) {
    let log = String::from_utf8_lossy(log);
    // What was cut begins within a line, unless that line is all there is.
    let whole = if cut { log.split_once('\n').map_or(log.as_ref(), |(_, rest)| rest) } else { log.as_ref() };
    let mut text = String::with_capacity(whole.len());
    for line in whole.lines() {
        // Tabs are columns of tables.
        let mut parts = line.trim_end_matches('\r').split('\t');
        text.push_str(&clean::text(parts.next().unwrap_or_default()));
        for part in parts {
            text.push('\t');
            text.push_str(&clean::text(part));
        }
        text.push('\n');
    }
    // Marks are longer than what they stand for.
    let mut from = text.len().saturating_sub(MOST);
    if from == 0 {
        return (text, cut);
    }
    while !text.is_char_boundary(from) {
        from = from.saturating_add(1);
    }
    let rest = text.split_off(from);
    let line = rest.split_once('\n').map(|(_, rest)| rest.to_owned()).filter(|rest| !rest.is_empty());
    (line.unwrap_or(rest), true)
}

/// Puts the logs into the list of the folder's files: each beside the file that has the end of it, which names it.
pub fn lay(record: &ReleaseRecord, read: &[Read], files: &mut Vec<File>) {
    let Some(status) = &record.status else { return };
    for ((run, shown), read) in status.jobs.iter().zip(facts(record, status)).zip(read) {
        match read {
            Read::Logs(logs) => logs_beside(run, &shown, logs, files),
            Read::Nothing(why) => nothing(run, &shown, why, files),
        }
    }
}

/// The file that has the end of a run's log.
fn of<'a>(shown: &JobFacts, files: &'a mut [File]) -> Option<&'a mut File> {
    files.iter_mut().find(|file| file.name == shown.file && file.text.is_ok())
}

fn append(file: &mut File, more: &str) {
    if let Ok(text) = &mut file.text {
        text.push_str(more);
    }
}

/// Says that there is no more than the record has; of a run that never was there is nothing to say.
fn nothing(run: &JobRecord, shown: &JobFacts, why: &str, files: &mut [File]) {
    let Some(file) = of(shown, files).filter(|_| run.result != "NotRun" || !run.log.is_empty()) else { return };
    let left = if run.log.is_empty() { "no log" } else { "only the end of the log" };
    let said = format!("; {left}: {why}");
    if !file.about.contains(&said) {
        file.about.push_str(&said);
    }
    append(file, &format!("\nWhole log of Job {}: not here, {why}\n", clean::text(&run.job)));
}

fn logs_beside(run: &JobRecord, shown: &JobFacts, logs: &[Log], files: &mut Vec<File>) {
    let stem = shown.file.strip_suffix(".txt").unwrap_or(&shown.file).to_owned();
    let mut text = format!("\nWhole log of Job {}\n", clean::text(&run.job));
    let mut said = String::new();
    for log in logs {
        match &log.text {
            Err(why) => {
                let _ = writeln!(text, "  {}: not here, {why}", log.of);
                let left = if run.log.is_empty() { "no log" } else { "only the end of the log" };
                let _ = write!(said, "; {left} of {}: {why}", log.of);
            }
            Ok(whole) if whole.is_empty() => {
                let _ = writeln!(text, "  {}: it wrote nothing", log.of);
            }
            Ok(whole) => {
                let name = free_name(&stem, files);
                let cut = if log.cut { format!(", its newest part: at most {MOST} bytes") } else { String::new() };
                let still = if log.unfinished { ", which still ran" } else { "" };
                let _ = writeln!(text, "  {}{still}: {name}, {} bytes{cut}", log.of, whole.len());
                if run.log.is_empty() {
                    end(&mut text, whole);
                }
                let what = if log.cut { "the log" } else { "the whole log" };
                let about = format!("{what} of job {}, {}: {}{still}{cut}", shown.name, shown.place, log.of);
                put(&stem, File { name, about, text: Ok(whole.clone()), of_rollback: false }, shown, files);
            }
        }
    }
    if let Some(file) = of(shown, files) {
        append(file, &text);
        file.about.push_str(&said);
    }
}

/// The end of a log that the record has not, set off as in the file of one that has.
fn end(text: &mut String, whole: &str) {
    let (last, cut) = job::tail(whole.as_bytes());
    text.push_str(if cut { "  It ends with\n\n" } else { "\n" });
    last.lines().for_each(|line| {
        let _ = writeln!(text, "    {}", clean::text(line));
    });
    text.push('\n');
}

/// Puts a log behind the file that names it and what is beside that already.
fn put(stem: &str, mut log: File, shown: &JobFacts, files: &mut Vec<File>) {
    let beside = |file: &File| file.name == shown.file || is_beside(stem, &file.name);
    let at = files.iter().rposition(beside).map_or(files.len(), |at| at.saturating_add(1));
    log.of_rollback = files.iter().any(|file| file.name == shown.file && file.of_rollback);
    files.insert(at, log);
}

fn is_beside(stem: &str, name: &str) -> bool {
    let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.')).unwrap_or_default();
    rest == "log" || rest.strip_suffix(".log").is_some_and(|number| number.parse::<u32>().is_ok())
}

/// `<stem>.log`, or the next number of it.
fn free_name(stem: &str, files: &[File]) -> String {
    let mut name = format!("{stem}.log");
    let mut number: u32 = 1;
    while files.iter().any(|file| file.name == name) {
        number = number.saturating_add(1);
        name = format!("{stem}.{number}.log");
    }
    name
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
