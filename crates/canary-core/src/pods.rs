//! Why pods are not ready, and whose fault that is.

use jiff::Timestamp;
use serde_json::Value;

use crate::object;

/// What keeps pods from being ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// A word for events and conditions.
    pub reason: &'static str,
    /// The pod, the container and what Kubernetes says.
    pub message: String,
    /// Whether it is the version's own fault, so that the candidate is rejected.
    pub rejects: bool,
}

/// Whether a pod is ready and stays.
#[must_use]
pub fn ready(pod: &Value) -> bool {
    !object::deleting(pod) && object::condition(pod, "/status/conditions", "Ready") == "True"
}

/// How long a pod must have been ready before traffic is moved onto it: endpoints are published after
/// readiness, and a gateway takes them over later still (Traefik gathers changes for 2 s). Times of
/// transitions are cut to whole seconds.
const SETTLE_SECONDS: i64 = 4;
/// The same of a pod whose readiness the API server heard of late, because it was away: a gateway's watches of it begin
/// again one by one, each after a pause of its own that grows up to half a minute and more.
const SETTLE_AFTER_OUTAGE: i64 = 60;
/// A node writes what it sees of a pod sooner.
const LATE_SECONDS: i64 = 10;

/// Whether a pod is ready, and has been for so long that gateways know of it.
#[must_use]
pub fn settled(pod: &Value, now: Timestamp) -> bool {
    let ready_since = object::items(pod, "/status/conditions")
        .find(|condition| object::text(condition, "/type") == "Ready")
        .and_then(|condition| object::text(condition, "/lastTransitionTime").parse::<Timestamp>().ok());
    let Some(since) = ready_since else { return ready(pod) };
    let long_enough = match written(pod) {
        Some(written) if written.duration_since(since).as_secs() >= LATE_SECONDS => {
            now.duration_since(written).as_secs() >= SETTLE_AFTER_OUTAGE
        }
        _ => now.duration_since(since).as_secs() >= SETTLE_SECONDS,
    };
    ready(pod) && long_enough
}

/// When the node last wrote a pod's status, by the API server's clock.
fn written(pod: &Value) -> Option<Timestamp> {
    let of_node = |entry: &&Value| {
        object::text(entry, "/subresource") == "status" && object::text(entry, "/manager") == "kubelet"
    };
    object::items(pod, "/metadata/managedFields")
        .filter(of_node)
        .find_map(|entry| object::text(entry, "/time").parse().ok())
}

/// The worst trouble among the pods, the version's own faults first.
#[must_use]
pub fn trouble(pods: &[&Value]) -> Option<Trouble> {
    let mut found: Vec<Trouble> = pods.iter().filter(|pod| !ready(pod)).filter_map(|pod| of_pod(pod)).collect();
    found.sort_by_key(|trouble| !trouble.rejects);
    found.into_iter().next()
}

fn of_pod(pod: &Value) -> Option<Trouble> {
    let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let containers =
        statuses.iter().flat_map(|list| object::items(pod, list)).filter(|status| !object::truth(status, "/ready"));
    for status in containers {
        if let Some((reason, what)) = of_container(status) {
            return Some(Trouble {
                reason,
                message: format!("pod {}, container {}: {what}", object::name(pod), object::text(status, "/name")),
                rejects: true,
            });
        }
    }
    if object::condition(pod, "/status/conditions", "PodScheduled") == "False" {
        let why = object::items(pod, "/status/conditions").find(|c| object::text(c, "/type") == "PodScheduled");
        let why = why.map_or("", |condition| object::text(condition, "/message"));
        return Some(Trouble {
            reason: "Unschedulable",
            message: format!("pod {}: {why}", object::name(pod)),
            rejects: false,
        });
    }
    None
}

/// What a container that is not ready suffers from. A container that merely starts has no trouble yet.
fn of_container(status: &Value) -> Option<(&'static str, String)> {
    let waiting = object::text(status, "/state/waiting/reason");
    let detail = object::text(status, "/state/waiting/message");
    let restarts = object::integer(status, "/restartCount", 0);
    match waiting {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            Some(("ImageUnavailable", format!("{waiting}: {detail}")))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(("ConfigInvalid", format!("{waiting}: {detail}")))
        }
        "CrashLoopBackOff" => Some(("CrashLoop", format!("CrashLoopBackOff after {restarts} restarts"))),
        _ if restarts > 0 => Some((
            "CrashLoop",
            format!(
                "restarted {restarts} times, last exit code {}",
                object::integer(status, "/lastState/terminated/exitCode", -1)
            ),
        )),
        _ if status.pointer("/state/running").is_some() => {
            Some(("ProbeFailing", "runs and is not ready: its readiness or startup probe does not pass".to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_crash_rejects_and_a_full_node_does_not() {
        let crash = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [{"name": "app", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
        let full = json!({"metadata": {"name": "q"}, "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}});
        let worst = trouble(&[&full, &crash]).unwrap();
        assert_eq!((worst.reason, worst.rejects), ("CrashLoop", true));
        let only = trouble(&[&full]).unwrap();
        assert_eq!((only.reason, only.rejects), ("Unschedulable", false));
        assert!(only.message.contains("0/1 nodes"));
    }

    #[test]
    fn a_pod_that_has_just_become_ready_takes_no_traffic_yet() {
        let pod = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let at = |second: i64| format!("2026-01-01T00:00:{second:02}Z").parse().unwrap();
        assert!(!settled(&pod, at(3)));
        assert!(settled(&pod, at(4)));
        assert!(!settled(&json!({}), at(9)));
    }

    #[test]
    fn a_pod_whose_readiness_was_heard_of_late_settles_when_gateways_have_come_back() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let heard = |second: i64| {
            json!({
                "metadata": {"managedFields": [{"manager": "kubelet", "subresource": "status", "time": at(second).to_string()}]},
                "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(0).to_string()}]},
            })
        };
        assert!(settled(&heard(2), at(4)) && !settled(&heard(2), at(3)));
        assert!(!settled(&heard(300), at(310)) && !settled(&heard(300), at(359)));
        assert!(settled(&heard(300), at(360)));
    }

    #[test]
    fn a_container_that_is_not_ready_says_why() {
        let waiting = |why: &str| json!({"state": {"waiting": {"reason": why, "message": "m"}}});
        let reason = |status: &Value| of_container(status).map(|(reason, _)| reason);
        assert_eq!(of_container(&waiting("ErrImagePull")), Some(("ImageUnavailable", "ErrImagePull: m".to_owned())));
        assert_eq!(reason(&waiting("RunContainerError")), Some("ConfigInvalid"));
        assert_eq!(reason(&waiting("ContainerCreating")), None);
        let running = |restarts: i64| json!({"restartCount": restarts, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137}}});
        assert_eq!(reason(&running(0)), Some("ProbeFailing"));
        assert_eq!(of_container(&running(1)), Some(("CrashLoop", "restarted 1 times, last exit code 137".to_owned())));
    }

    #[test]
    fn a_ready_pod_has_no_trouble() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"name": "app", "ready": true, "restartCount": 2}]}});
        assert_eq!(trouble(&[&pod]), None);
    }
}
