//! Keeps the records of a CanaryRelease's releases: after a tick's own writes, never before them, and not at all while
//! traffic is on its way back to stable. A record that can't be written stops and delays nothing: what was not written
//! stays in memory and goes with a later tick. What is in a record is [`canary_core::record`]'s to say; this decides only
//! when it is read and written, when the end of a job's log is read for it, and when old ones go.

use std::{collections::BTreeMap, time::Duration};

use canary_api::{ReleaseRecordStatus, ReleaseStatus, Step, names};
use canary_core::{
    Decision, Fetched, Kind, Observed,
    job::{self, TAIL_LINES},
    object,
    record::{self, JobLog, due},
};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{
    api::{self, CallError},
    observe,
};
use crate::{clock::Clock, config::Retention, metrics::Metrics};

/// Longest time for one call about records, and for all of one tick: they may not hold it up.
const DEADLINE: Duration = Duration::from_secs(2);
const DEADLINE_OF_ALL: Duration = Duration::from_secs(3);
/// After the first failure in a row; doubles with each.
const FIRST_DELAY: Duration = Duration::from_secs(5);
/// Longest delay after failures while a release is under way, and at rest.
const LONGEST_DELAY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// Failures in a row after which a release that is over is left without the end of its record.
const GIVE_UP: u32 = 16;
/// Longest time for the logs of the jobs that ended, all together.
const DEADLINE_OF_LOGS: Duration = Duration::from_secs(1);
/// Bytes of a log that are asked for at most, and how often that is tried.
const MOST_OF_LOG: usize = 64 * 1024;
const TRIES: u8 = 3;
/// Old records deleted at once.
const MOST_DELETED: usize = 5;

/// What it takes to write records.
pub(super) struct Desk<'a> {
    pub(super) client: &'a Client,
    pub(super) metrics: &'a Metrics,
    pub(super) retention: Retention,
    pub(super) clock: &'a Clock,
}

/// What is kept of records between ticks; it may be lost.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Of the release under way, and of ones that ended and are not written yet.
    pages: Vec<Page>,
    /// The release whose record is complete, or that gets none.
    settled: String,
    quiet_until: Option<Instant>,
    failures: u32,
}

#[derive(Debug)]
struct Page {
    name: String,
    namespace: String,
    record: ReleaseRecordStatus,
    /// As it stands in the cluster.
    written: Option<ReleaseRecordStatus>,
    at: Instant,
    /// The object's metadata, once it was created or read.
    metadata: Option<Value>,
    /// Whether it is known what became of earlier attempts at the same template.
    knows_earlier: bool,
    /// Whether old records are to be looked for.
    untidy: bool,
    /// How often the log of a Job could not be read.
    tries: BTreeMap<String, u8>,
}

impl Journal {
    /// Folds what was carried out of a tick into the records and, in a `calm` one, writes what is due. When to look
    /// again, where nothing else would and something is still to be written.
    pub(super) async fn keep(
        &mut self,
        desk: &Desk<'_>,
        seen: &Observed,
        done: &Decision,
        calm: bool,
        now: Timestamp,
    ) -> Option<Duration> {
        let current = done.status.current.as_ref().filter(|current| !current.id.is_empty())?;
        let quiet = self.quiet_until.is_some_and(|until| until > Instant::now());
        let may_call = calm && !quiet && !record::waits(current);
        if !self.knows(&current.id) {
            self.open(desk, seen, current, may_call, now).await;
        }
        for page in &mut self.pages {
            page.record = record::next(&page.record, seen, done, now);
        }
        if may_call {
            for page in &mut self.pages {
                page.read_logs(desk, seen).await;
            }
        }
        let over = over(current);
        if may_call && timeout(DEADLINE_OF_ALL, self.write(desk, over)).await.is_err() {
            self.failed(desk, &current.id, "no answers in time", over);
        }
        self.settle(&current.id);
        // What could not be taken up after a restart may lack its end, too.
        let unwritten = over.is_some() && (!self.pages.is_empty() || !self.knows(&current.id));
        let wait = || self.quiet_until.map_or(Duration::ZERO, |until| until.duration_since(Instant::now()));
        unwritten.then(|| wait().max(Duration::from_secs(1)))
    }

    /// The CanaryRelease is gone: one more try, then what could not be written is lost.
    pub(super) async fn last_words(&mut self, desk: &Desk<'_>) {
        for page in &mut self.pages {
            if let Err(error) = page.write(desk).await {
                desk.metrics.record_write("failed");
                tracing::warn!(record = page.name, "the record stays as it was last written: {error}");
            }
        }
        self.pages.clear();
    }

    fn knows(&self, id: &str) -> bool {
        self.settled == id || self.pages.iter().any(|page| page.record.id == id)
    }

    /// Begins the record of a release that this tick starts; after a restart takes up the one that is there, and that of
    /// the release before, should its end not have been written.
    async fn open(
        &mut self,
        desk: &Desk<'_>,
        seen: &Observed,
        current: &ReleaseStatus,
        may_call: bool,
        now: Timestamp,
    ) {
        let metadata = &seen.release.metadata;
        let uid = metadata.uid.as_deref().unwrap_or_default();
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let was = seen.release.status.as_ref().and_then(|status| status.current.as_ref());
        if was.is_none_or(|was| was.id != current.id) {
            return self.pages.push(Page::new(names::record(&current.id, uid), namespace));
        }
        if !may_call {
            return;
        }
        let before = format!("{}-{}", metadata.name.as_deref().unwrap_or_default(), current.number.saturating_sub(1));
        let earlier = (current.number > 1 && !self.knows(&before)).then_some(&before);
        for id in earlier.into_iter().chain([&current.id]) {
            let name = names::record(id, uid);
            match bounded(api::get(desk.client, api::records(&namespace), &name)).await {
                Some(Fetched::Known(found)) => {
                    let page = Page::read(name, namespace.clone(), &found, now);
                    if !page.record.frozen {
                        self.pages.push(page);
                    } else if *id == current.id {
                        self.settled.clone_from(id);
                    }
                }
                // A release that was over before records were kept gets none.
                Some(Fetched::Missing) if current.step == Step::Done && *id == current.id => {
                    self.settled.clone_from(id);
                }
                Some(Fetched::Missing) if *id == current.id => self.pages.push(Page::new(name, namespace.clone())),
                Some(Fetched::Missing) => {}
                Some(Fetched::Failed(why)) => return self.failed(desk, &name, &why, over(current)),
                None => return self.failed(desk, &name, "no answer in time", over(current)),
            }
        }
    }

    async fn write(&mut self, desk: &Desk<'_>, over: Option<&str>) {
        let mut failed = None;
        for page in &mut self.pages {
            if !due(page.written.as_ref(), &page.record, page.at.elapsed()) {
                continue;
            }
            match page.write(desk).await {
                Ok(()) => {
                    desk.metrics.record_write("written");
                    self.quiet_until = None;
                    self.failures = 0;
                }
                Err(error) => {
                    failed = Some((page.name.clone(), error.to_string()));
                    break;
                }
            }
        }
        if let Some((name, why)) = failed {
            self.failed(desk, &name, &why, over);
        }
    }

    /// Puts the next try off. The record of a release that is `over` is given up after some.
    fn failed(&mut self, desk: &Desk<'_>, name: &str, why: &str, over: Option<&str>) {
        desk.metrics.record_write("failed");
        if self.failures == 0 {
            tracing::warn!(record = name, "the record can't be written; the release goes on without it for now: {why}");
        }
        let longest = if over.is_some() { LONGEST_DELAY.1 } else { LONGEST_DELAY.0 };
        let delay =
            FIRST_DELAY.saturating_mul(1_u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.quiet_until = Instant::now().checked_add(delay);
        if let Some(id) = over.filter(|_| self.failures >= GIVE_UP) {
            tracing::warn!(record = name, "the record stays as it was last written: {why}");
            id.clone_into(&mut self.settled);
            self.pages.clear();
            self.failures = 0;
        }
    }

    /// What is frozen and written needs no memory.
    fn settle(&mut self, id: &str) {
        let settled = |page: &Page| page.record.frozen && page.written.as_ref() == Some(&page.record);
        if self.pages.iter().any(|page| page.record.id == id && settled(page)) {
            self.settled = id.to_owned();
        }
        self.pages.retain(|page| !settled(page));
    }
}

/// The release, where it is over.
fn over(current: &ReleaseStatus) -> Option<&str> {
    (current.step == Step::Done).then_some(&current.id)
}

impl Page {
    fn new(name: String, namespace: String) -> Self {
        let record = ReleaseRecordStatus::default();
        let at = Instant::now();
        let tries = BTreeMap::new();
        Self { name, namespace, record, written: None, at, metadata: None, knows_earlier: false, untidy: false, tries }
    }

    fn read(name: String, namespace: String, found: &Value, now: Timestamp) -> Self {
        let mut page = Self::new(name, namespace);
        let status = page.adopt(found);
        // One that was created and never written begins now.
        if !status.id.is_empty() {
            page.record = record::taken_up(status, now);
            page.knows_earlier = true;
        }
        page
    }

    /// Reads the end of the log of every job that ended, where that was not done. One that can't be read is tried again
    /// while the record is open; then the record says why there is none.
    async fn read_logs(&mut self, desk: &Desk<'_>, seen: &Observed) {
        let jobs = record::logs_to_read(&self.record);
        if jobs.is_empty() {
            return;
        }
        let uid = seen.release.metadata.uid.as_deref().unwrap_or_default();
        let reads = jobs.iter().map(|job| async {
            let read = timeout(DEADLINE_OF_LOGS, read_log(desk.client, &self.namespace, job, uid)).await;
            read.unwrap_or_else(|_| Err("no answer in time".to_owned()))
        });
        let logs = join_all(reads).await;
        for (job, log) in jobs.iter().zip(logs) {
            let tried = self.tries.entry(job.clone()).or_default();
            *tried = tried.saturating_add(1);
            let log = match log {
                Ok(log) => log,
                Err(why) if self.record.frozen || *tried >= TRIES => {
                    JobLog { note: format!("its log could not be read: {why}"), ..JobLog::default() }
                }
                Err(why) => {
                    tracing::debug!(job, "its log can't be read yet: {why}");
                    continue;
                }
            };
            self.record = record::note_log(std::mem::take(&mut self.record), job, &log);
        }
    }

    /// Takes an object for the one that is written to.
    fn adopt(&mut self, found: &Value) -> ReleaseRecordStatus {
        let status: ReleaseRecordStatus =
            found.get("status").and_then(|status| serde_json::from_value(status.clone()).ok()).unwrap_or_default();
        self.metadata = found.get("metadata").cloned();
        self.written = (!status.id.is_empty()).then(|| status.clone());
        status
    }

    /// Writes it, making the object first where that is not there.
    async fn write(&mut self, desk: &Desk<'_>) -> Result<(), CallError> {
        if !self.knows_earlier {
            self.look_for_earlier(desk).await?;
        }
        if self.metadata.is_none() {
            self.create(desk).await?;
        }
        match self.put(desk).await {
            // People may edit the spec at any time; only the operator writes the status.
            Err(CallError::Conflict { .. }) => self.again(desk).await,
            Err(error @ CallError::Gone { .. }) => {
                self.metadata = None;
                Err(error)
            }
            Ok(()) if std::mem::take(&mut self.untidy) => {
                self.tidy(desk).await;
                Ok(())
            }
            other => other,
        }
    }

    async fn put(&mut self, desk: &Desk<'_>) -> Result<(), CallError> {
        let of = self.metadata.as_ref();
        let field = |name: &str| of.and_then(|metadata| metadata.get(name)).cloned().unwrap_or_default();
        let object = json!({
            "apiVersion": "canaryrelease.dev/v1alpha1",
            "kind": "ReleaseRecord",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "uid": field("uid"),
                "resourceVersion": field("resourceVersion"),
            },
            "spec": {},
            "status": self.record,
        });
        let call = api::put_status(desk.client, api::records(&self.namespace), &object);
        let answer = bounded(call).await.unwrap_or_else(|| Err(unanswered(&self.name)))?;
        self.metadata = answer.get("metadata").cloned();
        self.written = Some(self.record.clone());
        self.at = Instant::now();
        Ok(())
    }

    /// After a conflict: once more on what is there now. Where another operator wrote meanwhile, its word stands, and
    /// the next tick goes on from it.
    async fn again(&mut self, desk: &Desk<'_>) -> Result<(), CallError> {
        let found = match bounded(api::get(desk.client, api::records(&self.namespace), &self.name)).await {
            Some(Fetched::Known(found)) => found,
            Some(Fetched::Missing) => {
                self.metadata = None;
                return Err(CallError::Gone { what: self.name.clone(), why: "it was deleted".to_owned() });
            }
            Some(Fetched::Failed(why)) => return Err(CallError::Unavailable { what: self.name.clone(), why }),
            None => return Err(unanswered(&self.name)),
        };
        let expected = self.written.take();
        let status = self.adopt(&found);
        if self.written == expected {
            return self.put(desk).await;
        }
        self.record = status;
        Ok(())
    }

    async fn create(&mut self, desk: &Desk<'_>) -> Result<(), CallError> {
        let object = json!({
            "apiVersion": "canaryrelease.dev/v1alpha1",
            "kind": "ReleaseRecord",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": {
                names::LABEL_RECORD_OF: names::label_value(&self.record.release),
                names::LABEL_TEMPLATE: names::template_label(&self.record.candidate.digest),
            }},
            "spec": {},
        });
        let call = api::create(desk.client, api::records(&self.namespace), &object);
        match bounded(call).await.unwrap_or_else(|| Err(unanswered(&self.name))) {
            Ok(created) => {
                self.metadata = created.get("metadata").cloned();
                self.untidy = true;
                Ok(())
            }
            // It was created and the answer was lost, or by an operator before us.
            Err(CallError::Conflict { .. }) => {
                match bounded(api::get(desk.client, api::records(&self.namespace), &self.name)).await {
                    Some(Fetched::Known(found)) => {
                        let status = self.adopt(&found);
                        if status.frozen {
                            self.record = status;
                        }
                        Ok(())
                    }
                    _ => Err(unanswered(&self.name)),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Rollbacks of earlier attempts at the same template, before the first write.
    async fn look_for_earlier(&mut self, desk: &Desk<'_>) -> Result<(), CallError> {
        let labels = [
            (names::LABEL_RECORD_OF.to_owned(), names::label_value(&self.record.release)),
            (names::LABEL_TEMPLATE.to_owned(), names::template_label(&self.record.candidate.digest)),
        ];
        let query = api::label_selector(&labels.into());
        let found = match bounded(api::list(desk.client, api::records(&self.namespace), &query)).await {
            Some(Fetched::Known(found)) => found,
            Some(Fetched::Failed(why)) => {
                return Err(CallError::Unavailable { what: "earlier records".to_owned(), why });
            }
            Some(Fetched::Missing) | None => return Err(unanswered("earlier records")),
        };
        let uid = self.record.release_uid.as_str();
        let statuses = found.into_iter().filter_map(|mut found| found.get_mut("status").map(Value::take));
        let records: Vec<ReleaseRecordStatus> = statuses
            .filter_map(|status| serde_json::from_value::<ReleaseRecordStatus>(status).ok())
            .filter(|record| record.release_uid == uid)
            .collect();
        let mut rollbacks = record::earlier(&records, &self.record.id, &self.record.candidate.digest);
        rollbacks.append(&mut self.record.rollbacks);
        self.record.rollbacks = rollbacks;
        self.record = record::bound(std::mem::take(&mut self.record));
        self.knows_earlier = true;
        Ok(())
    }

    /// Deletes records of this CanaryRelease that are too many or too old. What can't be deleted now goes another time.
    async fn tidy(&self, desk: &Desk<'_>) {
        let labels = [(names::LABEL_RECORD_OF.to_owned(), names::label_value(&self.record.release))];
        let query = api::label_selector(&labels.into());
        let folder = || api::records(&self.namespace);
        let Some(Ok(found)) = bounded(api::list_metadata(desk.client, folder(), &query)).await else { return };
        for old in surplus(&found, &self.name, desk.retention, desk.clock.now()).into_iter().take(MOST_DELETED) {
            let name = object::name(old);
            match bounded(api::delete(desk.client, folder(), name, object::uid(old))).await {
                Some(Ok(())) => tracing::info!(record = name, "deleted an old record"),
                Some(Err(error)) => tracing::debug!("{error}"),
                None => return,
            }
        }
    }
}

/// The end of the log of that container of a Job which tells what became of it.
async fn read_log(client: &Client, namespace: &str, name: &str, uid: &str) -> Result<JobLog, String> {
    let job = match api::get(client, api::folder(Kind::Job, namespace), name).await {
        Fetched::Known(job) if object::annotation(&job, names::ANNOTATION_UID) == Some(uid) => job,
        Fetched::Known(_) | Fetched::Missing => return Err("the Job is gone".to_owned()),
        Fetched::Failed(why) => return Err(why),
    };
    let pods = match observe::pods_of_job(client, namespace, &job).await {
        Fetched::Known(pods) => pods,
        Fetched::Missing => Vec::new(),
        Fetched::Failed(why) => return Err(why),
    };
    let told = job::teller(&pods, object::uid(&job)).ok_or("the Job has no pod any more")?;
    let (mut log, mut asked, mut short) = (String::new(), TAIL_LINES, true);
    // Where lines are so long that only the beginning of them came, fewer of them are asked for, to see the end.
    for lines in [TAIL_LINES, 4, 1] {
        let answer = api::log(client, namespace, &told.pod, &told.container, (lines, MOST_OF_LOG)).await;
        (log, asked) = (answer.map_err(|error| error.to_string())?, lines);
        short = log.len() >= MOST_OF_LOG;
        if !short {
            break;
        }
    }
    let (text, cut) = job::tail(log.as_bytes());
    // So many lines came as were asked for: there may be more before them.
    let cut = cut || log.lines().count() >= asked;
    let of = format!("container {} of pod {}", told.container, told.pod);
    let note = match (text.is_empty(), cut) {
        (true, _) => format!("{of} wrote nothing"),
        (false, _) if short => format!("{of}, of its last line, which is too long, a piece in the middle"),
        (false, true) => format!("{of}, its last lines"),
        (false, false) => of,
    };
    Ok(JobLog { exit_code: told.exit_code, text, note })
}

/// Records beyond the newest that are kept, and those that are too old; never the one just written.
fn surplus<'a>(found: &'a [Value], own: &str, retention: Retention, now: Timestamp) -> Vec<&'a Value> {
    let created = |record: &Value| object::text(record, "/metadata/creationTimestamp").parse::<Timestamp>().ok();
    let oldest = now.checked_sub(SignedDuration::from_hours(i64::from(retention.days).saturating_mul(24))).ok();
    let mut all: Vec<&Value> = found.iter().filter(|record| object::name(record) != own).collect();
    all.sort_by_key(|record| std::cmp::Reverse((created(record), object::name(record).to_owned())));
    // The own one is the newest.
    let kept = usize::from(retention.keep).saturating_sub(1);
    let too_old = |record: &Value| oldest.zip(created(record)).is_some_and(|(oldest, created)| created < oldest);
    all.into_iter()
        .enumerate()
        .filter(|(index, record)| *index >= kept || too_old(record))
        .map(|(_, record)| record)
        .collect()
}

async fn bounded<T>(call: impl Future<Output = T>) -> Option<T> {
    timeout(DEADLINE, call).await.ok()
}

fn unanswered(what: &str) -> CallError {
    CallError::Unavailable { what: what.to_owned(), why: format!("no answer within {DEADLINE:?}") }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
