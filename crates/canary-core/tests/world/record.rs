//! The operator's part of a record, and what must be so of every record after every tick: it says what the status says,
//! it stays small, the same tick twice changes nothing, and nothing is written while traffic is on its way back.

use std::time::Duration;

use canary_api::{ReleaseRecordStatus, Step, names};
use canary_core::{
    Decision, Observed,
    record::{self, Carried, JobLog, LIMIT},
};
use jiff::Timestamp;

use super::World;

/// The operator died right after the write.
pub struct Died;

/// What an operator keeps of records.
#[derive(Debug, Default)]
pub struct Journal {
    pages: Vec<Page>,
    /// The release whose record is complete, or that none is made for.
    settled: String,
}

#[derive(Debug)]
struct Page {
    name: String,
    record: ReleaseRecordStatus,
    written: Option<ReleaseRecordStatus>,
    at: Timestamp,
}

impl World {
    /// Folds a tick into the records, and writes those that are due.
    pub(super) fn keep_record(
        &mut self,
        name: &str,
        observed: &Observed,
        decision: Decision,
        carried: &Carried,
    ) -> Result<(), Died> {
        let Some(done) = record::carried_out(observed, decision, carried) else { return Ok(()) };
        let Some(current) = done.status.current.clone() else { return Ok(()) };
        let mut journal = std::mem::take(&mut self.operators.get_mut(name).unwrap().journal);
        let uid = observed.release.metadata.uid.clone().unwrap_or_default();
        if journal.settled != current.id && !journal.pages.iter().any(|page| page.record.id == current.id) {
            self.open(&mut journal, observed, &done, &uid);
        }
        for page in &mut journal.pages {
            let next = record::next(&page.record, observed, &done, self.now);
            assert_eq!(record::next(&next, observed, &done, self.now), next, "a tick folded in twice changes a record");
            self.is_sound(&next, &done);
            page.record = next;
            let waits = record::waits(&current);
            for job in record::logs_to_read(&page.record).into_iter().filter(|_| !waits) {
                let (text, note) = match self.logs_unreadable {
                    true => (String::new(), "its log could not be read: no".to_owned()),
                    false => (format!("log of {job}"), "container c of pod p".to_owned()),
                };
                let log = JobLog { exit_code: Some(0), text, note };
                page.record = record::note_log(page.record.clone(), &job, &log);
            }
        }
        let mut died = Ok(());
        if !record::waits(&current) && !self.records_refused {
            for page in &mut journal.pages {
                let age = Duration::try_from(self.now.duration_since(page.at)).unwrap_or_default();
                if died.is_ok() && record::due(page.written.as_ref(), &page.record, age) {
                    self.records.insert(page.name.clone(), page.record.clone());
                    self.record_writes.push((self.now, page.name.clone()));
                    page.written = Some(page.record.clone());
                    page.at = self.now;
                    if self.dies_now() {
                        died = Err(Died);
                    }
                }
            }
        }
        let settled = |page: &Page| page.record.frozen && page.written.as_ref() == Some(&page.record);
        if journal.pages.iter().any(|page| page.record.id == current.id && settled(page)) {
            journal.settled = current.id;
        }
        journal.pages.retain(|page| !settled(page));
        self.operators.get_mut(name).unwrap().journal = journal;
        died
    }

    /// The page of the release that the status speaks of; after a restart that of the one before it, too.
    fn open(&mut self, journal: &mut Journal, observed: &Observed, done: &Decision, uid: &str) {
        let current = done.status.current.as_ref().unwrap();
        let was = observed.release.status.as_ref().and_then(|status| status.current.as_ref());
        let starts = was.is_none_or(|was| was.id != current.id);
        let before = current.id.rsplit_once('-').map(|(of, _)| format!("{of}-{}", current.number - 1));
        let wanted = if starts { vec![] } else { vec![before, Some(current.id.clone())] };
        for id in wanted.into_iter().flatten() {
            let name = names::record(&id, uid);
            if let Some(found) = self.records.get(&name).filter(|record| !record.frozen) {
                let record = record::taken_up(found.clone(), self.now);
                journal.pages.push(Page { name, record, written: Some(found.clone()), at: self.now });
            }
        }
        let name = names::record(&current.id, uid);
        let known = self.records.contains_key(&name);
        if known || current.step == Step::Done {
            if !journal.pages.iter().any(|page| page.record.id == current.id) {
                journal.settled.clone_from(&current.id);
            }
            return;
        }
        let others: Vec<ReleaseRecordStatus> =
            self.records.values().filter(|record| record.release_uid == uid).cloned().collect();
        let rollbacks = record::earlier(&others, &current.id, &current.candidate.digest);
        let record = ReleaseRecordStatus { rollbacks, ..ReleaseRecordStatus::default() };
        journal.pages.push(Page { name, record, written: None, at: self.now });
    }

    /// Whether a record says what the status says.
    fn is_sound(&self, record: &ReleaseRecordStatus, done: &Decision) {
        let tell = || format!("{record:#?}\n{}", self.describe());
        assert!(serde_json::to_vec(record).unwrap().len() <= LIMIT, "too large: {}", tell());
        assert!(record.timeline.is_sorted_by_key(|entry| entry.at.0), "{}", tell());
        assert!(!record.frozen || record.ended.is_some(), "{}", tell());
        assert_eq!(record.ended.is_some(), !record.outcome.is_empty(), "{}", tell());
        assert!(!record.frozen || record.jobs.iter().all(|job| job.result != "Running"), "{}", tell());
        let whole = self.deaths == 0 && !self.records_refused;
        for stage in &record.stages {
            assert!(!whole || stage.result != "Unknown", "a stage's end was missed: {}", tell());
            assert!(stage.result != "Passed" || stage.gates.iter().all(|gate| gate.verdict == "Pass"), "{}", tell());
            assert!(stage.result != "Passed" || !whole || !stage.gates.is_empty(), "{}", tell());
            assert!(stage.ended.is_none() || stage.started.is_some(), "{}", tell());
            if let (Some(started), Some(ended)) = (&stage.started, &stage.ended) {
                assert!(started.0 <= ended.0, "{}", tell());
            }
        }
        let Some(current) = done.status.current.as_ref().filter(|current| current.id == record.id) else {
            assert!(record.frozen, "{}", tell());
            return;
        };
        let open = current.jobs.iter().any(|run| run.state.is_open());
        let deleted = self.get("CanaryRelease", &record.release).is_none_or(canary_core::object::deleting);
        assert_eq!(record.ended.is_some(), current.step == Step::Done, "{}", tell());
        assert_eq!(record.frozen, current.step == Step::Done && (!open || deleted), "{}", tell());
        let outcome = current.revert.as_ref().map_or("Promoted", |revert| revert.outcome.as_str());
        let taken_back = current.revert.is_some() && matches!(outcome, "RolledBack" | "Aborted");
        let own = record.rollbacks.iter().filter(|rollback| rollback.id == record.id);
        assert_eq!(own.clone().count(), usize::from(taken_back), "{}", tell());
        for rollback in own {
            assert_eq!(rollback.clear_at, current.revert.as_ref().and_then(|revert| revert.clear_at.clone()));
            assert!(!record.frozen || !rollback.verified.is_empty(), "{}", tell());
        }
        if record.frozen {
            assert_eq!(record.outcome, outcome, "{}", tell());
            let last = |job: &canary_api::JobRecord| {
                let same = |other: &&canary_api::JobRecord| {
                    (&other.name, &other.at, other.stage) == (&job.name, &job.at, job.stage)
                };
                record.jobs.iter().filter(same).all(|other| other.attempt <= job.attempt)
            };
            let held = record.jobs.iter().filter(|job| matches!(job.at.as_str(), "BeforeStart" | "Stage"));
            let without = held.filter(|job| last(job)).any(|job| job.result != "Succeeded");
            let again = record.rollbacks.iter().any(|rollback| rollback.id != record.id);
            let partial = current.partial || again || without;
            let result = match outcome {
                "Promoted" if partial => "PARTIAL",
                "Promoted" => "SUCCESS",
                _ => "FAILED",
            };
            assert_eq!(record.result, result, "{}", tell());
            assert!(record.stages.iter().all(|stage| stage.result != "Running"), "{}", tell());
        }
    }
}
