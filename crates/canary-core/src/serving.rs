//! Which version of the target serves: read from ReplicaSets with replicas, never from a revision
//! annotation, which moves while a Deployment is paused.

use serde_json::Value;

use crate::{object, template};

/// What the target's ReplicaSets say.
#[derive(Debug, Clone, PartialEq)]
pub enum Serving<'a> {
    /// One version has replicas; its newest ReplicaSet.
    One(&'a Value),
    /// No ReplicaSet has replicas.
    None,
    /// Several versions have replicas.
    Mixed,
}

/// The ReplicaSets that the Deployment with this uid controls.
#[must_use]
pub fn of<'a>(replica_sets: &'a [Value], owner: &str) -> Vec<&'a Value> {
    replica_sets.iter().filter(|set| object::controlled_by(set, owner)).collect()
}

/// Whether a ReplicaSet has, or is asked for, pods.
#[must_use]
pub fn active(set: &Value) -> bool {
    object::integer(set, "/spec/replicas", 0) > 0 || object::integer(set, "/status/replicas", 0) > 0
}

/// Which version serves. ReplicaSets that differ only in `restartedAt` are one version.
#[must_use]
pub fn serving<'a>(replica_sets: &'a [Value], owner: &str) -> Serving<'a> {
    let mut active: Vec<_> = of(replica_sets, owner).into_iter().filter(|set| active(set)).collect();
    active.sort_by_key(|set| object::text(set, "/metadata/creationTimestamp").to_owned());
    let Some(newest) = active.last() else { return Serving::None };
    let one = active.iter().all(|set| template::same(template_of(set), template_of(newest)));
    if one { Serving::One(newest) } else { Serving::Mixed }
}

/// The ReplicaSet of the Deployment that has this template, the newest if several have.
#[must_use]
pub fn with_template<'a>(replica_sets: &'a [Value], owner: &str, wanted: &Value) -> Option<&'a Value> {
    of(replica_sets, owner)
        .into_iter()
        .filter(|set| template::same(template_of(set), wanted))
        .max_by_key(|set| object::text(set, "/metadata/creationTimestamp").to_owned())
}

/// `spec.template`, or null.
#[must_use]
pub fn template_of(object: &Value) -> &Value {
    object.pointer("/spec/template").unwrap_or(&Value::Null)
}

/// Ready pods of a ReplicaSet.
#[must_use]
pub fn ready(set: &Value) -> i64 {
    object::integer(set, "/status/readyReplicas", 0)
}

/// Whether a Deployment runs its template and nothing else, all of it available.
#[must_use]
pub fn rolled_out(deployment: &Value) -> bool {
    let wanted = object::integer(deployment, "/spec/replicas", 1);
    let status = |field: &str| object::integer(deployment, &format!("/status/{field}"), 0);
    status("observedGeneration") >= object::integer(deployment, "/metadata/generation", 0)
        && status("updatedReplicas") == wanted
        && status("replicas") == wanted
        && status("availableReplicas") == wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(name: &str, created: &str, replicas: i64, image: &str, restarted: &str) -> Value {
        json!({
            "metadata": {"name": name, "creationTimestamp": created, "ownerReferences": [{"controller": true, "uid": "d"}]},
            "spec": {"replicas": replicas, "template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": restarted}}, "spec": {"containers": [{"image": image}]}}},
        })
    }

    #[test]
    fn a_restart_in_progress_is_one_version_and_a_mix_is_not() {
        let sets = [
            set("a", "2026-01-01T00:00:00Z", 1, "v1", "1"),
            set("b", "2026-01-02T00:00:00Z", 1, "v1", "2"),
            set("c", "2026-01-03T00:00:00Z", 0, "v2", "2"),
        ];
        assert!(matches!(serving(&sets, "d"), Serving::One(one) if object::name(one) == "b"));
        let mixed = [sets[0].clone(), set("c", "2026-01-03T00:00:00Z", 2, "v2", "2")];
        assert_eq!(serving(&mixed, "d"), Serving::Mixed);
        assert_eq!(serving(&sets, "other"), Serving::None);
    }
}
