//! CronJobs, the Jobs made from them, and what becomes of those.

use std::time::Duration;

use canary_api::{JobState, ReleaseStatus, Step, names};
use canary_core::{job, object};
use serde_json::json;

use super::{NAMESPACE, World};

/// What becomes of a CronJob's Jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobFate {
    /// Ends well after so many seconds.
    Succeeds(u64),
    /// Ends with exit code 3 after so many seconds.
    Fails(u64),
    /// Its pod is evicted after so many seconds, and it is not tried again.
    Evicted(u64),
    /// Stopped by its own deadline after so many seconds.
    OutOfTime(u64),
    /// Never ends.
    Hangs,
}

impl World {
    /// A suspended CronJob, whose Jobs fare so.
    pub fn cron_job(&mut self, name: &str, fate: JobFate) {
        let spec =
            json!({"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
        self.create(
            "CronJob",
            json!({
                "apiVersion": "batch/v1", "kind": "CronJob",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"suspend": true, "schedule": "0 0 31 2 *", "jobTemplate": {"metadata": {"labels": {"team": "shop"}}, "spec": spec}},
            }),
        );
        self.job_fates.insert(name.to_owned(), fate);
    }

    /// The Job controller.
    pub(super) fn job(&mut self, name: &str) {
        let mut found = self.get("Job", name).unwrap().clone();
        let from = object::text(&found, "/metadata/ownerReferences/0/name");
        let Some(fate) = self.job_fates.get(from).copied() else { return };
        let created: jiff::Timestamp = object::text(&found, "/metadata/creationTimestamp").parse().unwrap();
        let age = Duration::try_from(self.now.duration_since(created)).unwrap_or_default();
        let over = |seconds: u64| age >= Duration::from_secs(seconds) && job::state(&found) == job::State::Running;
        let (kind, reason) = match fate {
            JobFate::Succeeds(after) if over(after) => ("Complete", "CompletionsReached"),
            JobFate::Fails(after) | JobFate::Evicted(after) if over(after) => ("Failed", "BackoffLimitExceeded"),
            JobFate::OutOfTime(after) if over(after) => ("Failed", "DeadlineExceeded"),
            _ => return,
        };
        let code = if matches!(fate, JobFate::Fails(_)) { json!({"terminated": {"exitCode": 3}}) } else { json!({}) };
        let disturbed = json!([{"type": "DisruptionTarget", "status": "True"}]);
        let conditions =
            if matches!(fate, JobFate::Evicted(_)) { disturbed } else { json!([{"type": "Ready", "status": "True"}]) };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("{name}-x"), "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": object::uid(&found), "controller": true},
            ]},
            "spec": {"containers": [{"name": "c", "image": "job"}]},
            "status": {"phase": "Failed", "conditions": conditions, "containerStatuses": [{"name": "c", "state": code}]},
        });
        if kind == "Failed" && self.get("Pod", &format!("{name}-x")).is_none() {
            self.create("Pod", pod);
        }
        found["status"] =
            json!({"conditions": [{"type": kind, "status": "True", "reason": reason, "message": "told"}]});
        self.store("Job", name, found);
    }

    /// The operator made a Job: its intent was on record, once, and where it may run.
    pub(super) fn job_made(&mut self, release: &ReleaseStatus, name: &str) {
        let run = release.jobs.iter().find(|run| run.job == name);
        let run = run.unwrap_or_else(|| panic!("Job {name} was not in the status\n{}", self.describe()));
        assert_eq!(run.state, JobState::Wanted, "{run:?}\n{}", self.describe());
        assert!(!self.jobs_made.iter().any(|made| made == name), "Job {name} is made twice\n{}", self.describe());
        let forward = matches!(release.step, Step::Baseline | Step::Bake | Step::Scale | Step::Shift | Step::Roll);
        let after = run.at.after();
        assert!(after || forward, "{run:?} in {:?}\n{}", release.step, self.describe());
        assert!(after || (release.paused.is_none() && release.revert.is_none()), "{run:?}\n{}", self.describe());
        assert!(!after || self.weight() == 0, "{run:?} while the candidate has weight\n{}", self.describe());
        let made = self.get("Job", name).unwrap();
        assert_eq!(object::annotation(made, names::ANNOTATION_RELEASE_ID), Some(release.id.as_str()));
        self.jobs_made.push(name.to_owned());
    }
}
