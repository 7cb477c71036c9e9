//! The controller of Jobs: one pod each, and how it ended. What a Job's program does stands in its image:
//! `job:exits-1-after-5` ends with 1 after 5 s.

use std::time::Duration;

use canary_core::{job, object};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Cluster, image, keys, owned, owner};
use crate::api::{Api, seconds};
use crate::resources::{JOBS, PODS};

/// The image of a program that ends so, after so many seconds.
#[must_use]
pub fn program(code: i32, after: u64) -> String {
    format!("job:exits-{code}-after-{after}")
}

/// How a program of this image ends, and when.
pub(super) fn ends(image: &str) -> Option<(i32, Duration)> {
    let (code, after) = image.strip_prefix("job:exits-")?.split_once("-after-")?;
    Some((code.parse().ok()?, Duration::from_secs(after.parse().ok()?)))
}

impl Cluster {
    pub(super) fn jobs(&mut self, api: &mut Api) {
        for key in keys(api, JOBS) {
            let Some(version) = api.store.get(&key).cloned() else { continue };
            let job = &version.value;
            if object::deleting(job) || job::state(job) != job::State::Running {
                continue;
            }
            let pods = owned(api, PODS, &key.namespace, object::uid(job));
            let Some(pod) = pods.first() else {
                let pod = self.pod_of_job(job);
                self.create(api, PODS, &key.namespace, pod);
                continue;
            };
            let code = pod.value.pointer("/status/containerStatuses/0/state/terminated/exitCode");
            if let Some(code) = code.and_then(Value::as_i64) {
                api.controller_says(JOBS, &version, ended(code, api.now));
            }
        }
    }

    fn pod_of_job(&mut self, job: &Value) -> Value {
        let template = &job["spec"]["template"];
        let mut labels = template["metadata"].get("labels").cloned().unwrap_or_else(|| json!({}));
        labels["batch.kubernetes.io/job-name"] = json!(object::name(job));
        json!({
            "metadata": {
                "name": format!("{}-{}", object::name(job), self.suffix()),
                "labels": labels,
                "annotations": template["metadata"].get("annotations"),
                "ownerReferences": owner(JOBS, job),
            },
            "spec": template["spec"],
        })
    }
}

/// A Job's status when its only pod has ended.
fn ended(code: i64, now: Timestamp) -> Value {
    let at = seconds(now);
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at});
    if code == 0 {
        let reached = "Reached expected number of succeeded pods";
        return json!({"succeeded": 1, "completionTime": at, "conditions": [condition("Complete", "CompletionsReached", reached)]});
    }
    let limit = "Job has reached the specified backoff limit";
    json!({"failed": 1, "conditions": [condition("Failed", "BackoffLimitExceeded", limit)]})
}

/// A pod's status when its program has ended.
pub(super) fn pod_ended(pod: &Value, code: i32, now: Timestamp) -> Value {
    let (phase, reason) = if code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    json!({
        "phase": phase,
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "PodCompleted", "lastTransitionTime": seconds(now)},
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": seconds(now)},
        ],
        "podIP": "10.1.0.1",
        "containerStatuses": [{
            "name": object::text(pod, "/spec/containers/0/name"), "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "reason": reason, "finishedAt": seconds(now)}},
        }],
    })
}

/// What a pod's log says.
#[must_use]
pub fn log(pod: &Value) -> String {
    format!("{} has looked\n", image(pod))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_ends_as_its_image_says() {
        assert_eq!(ends(&program(1, 5)), Some((1, Duration::from_secs(5))));
        assert_eq!(ends("web:v1"), None);
    }
}
