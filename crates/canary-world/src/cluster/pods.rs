//! What kubelets make of pods: when they are ready, crash, or end.

use std::time::Duration;

use canary_core::object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Cluster, Fate, image, jobs, keys};
use crate::api::{Api, seconds};
use crate::resources::PODS;

/// After how long a container that ends is reported to crash again and again.
const CRASHES: Duration = Duration::from_secs(3);
/// How long a pod that is told to end still answers.
const ENDING: Duration = Duration::from_secs(1);

impl Cluster {
    pub(super) fn pods(&mut self, api: &mut Api, due: &mut Timestamp) {
        for key in keys(api, PODS) {
            let Some(version) = api.store.get(&key).cloned() else { continue };
            let pod = &version.value;
            if object::deleting(pod) {
                let told = object::annotation(pod, "world/leaves").and_then(|at| at.parse::<Timestamp>().ok());
                let end = told.unwrap_or(api.now) + ENDING;
                if end <= api.now {
                    self.traffic.ended(&key.name, api.now);
                    let _ = api.store.remove(&key, api.now);
                } else {
                    *due = (*due).min(end);
                }
                continue;
            }
            if let Some(status) = self.status(api, pod, due) {
                api.controller_says(PODS, &version, status);
            }
        }
    }

    /// A pod's new status, if it changes.
    fn status(&self, api: &Api, pod: &Value, due: &mut Timestamp) -> Option<Value> {
        let fate = self.behaviour(image(pod)).fate;
        let began: Timestamp = object::text(pod, "/metadata/creationTimestamp").parse().unwrap_or(api.now);
        let mut after = |time: Duration| {
            let at = began + time;
            if at > api.now {
                *due = (*due).min(at);
            }
            at <= api.now
        };
        if object::text(pod, "/status/conditions/0/reason") == "PodCompleted" {
            return None;
        }
        if let Some((code, time)) = jobs::ends(image(pod))
            && after(self.startup + time)
        {
            return Some(jobs::pod_ended(pod, code, api.now));
        }
        let was_ready = canary_core::pods::ready(pod);
        let state = match fate {
            // What is scheduled stays scheduled, and an image that was pulled is there.
            Fate::Unschedulable | Fate::NoImage | Fate::Quota if was_ready => State::Ready,
            Fate::Unschedulable => State::Unscheduled,
            Fate::NoImage => State::Waiting("ImagePullBackOff", 0),
            Fate::CrashLoop if after(CRASHES) => State::Waiting("CrashLoopBackOff", 2),
            Fate::Ready | Fate::Quota if after(self.startup) => State::Ready,
            _ => State::Running,
        };
        let now = object::text(pod, "/status/conditions/0/reason");
        let phase = state.word();
        if now == phase {
            return None;
        }
        let at = seconds(api.now);
        let ready = if matches!(state, State::Ready) { "True" } else { "False" };
        let scheduled = if matches!(state, State::Unscheduled) { "False" } else { "True" };
        let message = if scheduled == "True" { "" } else { "0/1 nodes are available: 1 Insufficient cpu." };
        let mut status = json!({
            "phase": if matches!(state, State::Unscheduled | State::Waiting("ImagePullBackOff", _)) { "Pending" } else { "Running" },
            "conditions": [
                {"type": "Ready", "status": ready, "reason": phase, "lastTransitionTime": at},
                {"type": "PodScheduled", "status": scheduled, "message": message, "lastTransitionTime": at},
            ],
        });
        if scheduled == "True" {
            let (restarts, container) = match state {
                State::Waiting(reason, restarts) => {
                    (restarts, json!({"waiting": {"reason": reason, "message": "back-off"}}))
                }
                _ => (0, json!({"running": {"startedAt": at}})),
            };
            status["podIP"] = json!("10.1.0.1");
            status["containerStatuses"] = json!([{
                "name": object::text(pod, "/spec/containers/0/name"), "ready": ready == "True",
                "restartCount": restarts, "state": container,
            }]);
        }
        Some(status)
    }
}

#[derive(Clone, Copy)]
enum State {
    Unscheduled,
    Running,
    Ready,
    Waiting(&'static str, i64),
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Unscheduled => "Unscheduled",
            Self::Running => "Started",
            Self::Ready => "IsReady",
            Self::Waiting(reason, _) => reason,
        }
    }
}
