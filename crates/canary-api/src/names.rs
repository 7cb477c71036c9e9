//! Names we give and look for: labels, annotations, the finalizer, and names derived from the user's.
//! It decides how a long name is cut; it never reads an object.

use sha2::{Digest as _, Sha256};

/// API group of every kind we define.
pub const GROUP: &str = "canaryrelease.dev";
/// Label on an armed target and on a split route; its value is the CanaryRelease's name, cut.
pub const LABEL_RELEASE: &str = "canaryrelease.dev/release";
/// Label on every object that we own; its value is the CanaryRelease's name, cut.
pub const LABEL_OWNED_BY: &str = "canaryrelease.dev/owned-by";
/// Annotation on every object that we label: the uid of the CanaryRelease.
pub const ANNOTATION_UID: &str = "canaryrelease.dev/uid";
/// Annotation on the target while the operator itself rolls it: the release's id.
pub const ANNOTATION_ROLLING: &str = "canaryrelease.dev/rolling";
/// Annotation on the target, stamped by admission: who changed the template last.
pub const ANNOTATION_CHANGED_BY: &str = "canaryrelease.dev/changed-by";
/// Annotation on the target or a route: break-glass, with the reason as its value.
pub const ANNOTATION_OVERRIDE: &str = "canaryrelease.dev/override";
/// Annotation of a pod template: the version that it is, for the record; else the image's tag is.
pub const ANNOTATION_VERSION: &str = "canaryrelease.dev/version";
/// Annotation of a pod template: how much the version changes, Major, Minor or Patch, for the record.
pub const ANNOTATION_RELEASE_TYPE: &str = "canaryrelease.dev/release-type";
/// Annotation stamped by admission beside [`ANNOTATION_OVERRIDE`]: who used it.
pub const ANNOTATION_OVERRIDE_BY: &str = "canaryrelease.dev/override-by";
/// Annotation on a split route: `<stable service>/<canary service>`, and where baseline pods have an entry of their
/// own `<stable service>/<canary service>/<baseline service>`.
pub const ANNOTATION_SPLIT: &str = "canaryrelease.dev/split";
/// Annotation on a split route: the weights its stable entries had before, in order of the rules.
pub const ANNOTATION_WEIGHTS: &str = "canaryrelease.dev/weights-before";
/// Annotation on a split route: a breach that took its weight away, `<release id>: <sentence>`, so that
/// it is not forgotten should the status not be writable at that moment. Another revert leaves `<release id> is taken
/// back`: the route was written since it began, so that a write of before conflicts.
pub const ANNOTATION_BREACHED: &str = "canaryrelease.dev/breached";
/// Annotation on the CanaryRelease: a command for the operator.
pub const ANNOTATION_COMMAND: &str = "canaryrelease.dev/command";
/// Annotation stamped by admission beside [`ANNOTATION_COMMAND`]: who gave it.
pub const ANNOTATION_COMMAND_BY: &str = "canaryrelease.dev/command-by";
/// Annotation on a ReplicaSet of the canary whose template was rejected: `<release id>: <reason>`.
pub const ANNOTATION_REJECTED: &str = "canaryrelease.dev/rejected";
/// Annotation on the Deployments of canary and baseline pods and on their ReplicaSets: the labels laid over the
/// template, as JSON.
pub const ANNOTATION_OVERLAY: &str = "canaryrelease.dev/overlay";
/// Annotation on a HorizontalPodAutoscaler whose scale-down is frozen: its `spec.behavior` before, as JSON.
pub const ANNOTATION_BEHAVIOR: &str = "canaryrelease.dev/behavior-before";
/// Annotation on the Deployments of canary and baseline pods: the id of the release their template was made for.
pub const ANNOTATION_MADE_FOR: &str = "canaryrelease.dev/made-for";
/// Annotation on a Job that a release runs and on its pods: the release's id.
pub const ANNOTATION_RELEASE_ID: &str = "canaryrelease.dev/release-id";
/// Annotation on a Job that a stage runs and on its pods: the stage's number, from 1.
pub const ANNOTATION_STAGE: &str = "canaryrelease.dev/stage";
/// Annotation on a Job that a stage runs and on its pods: the stage's weight, such as `5%`.
pub const ANNOTATION_WEIGHT: &str = "canaryrelease.dev/weight";
/// `kubectl rollout restart` writes this into the template; a change of it alone is no release.
pub const ANNOTATION_RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// The label the ReplicaSet controller adds to a template.
pub const LABEL_TEMPLATE_HASH: &str = "pod-template-hash";
/// Label on a record: the name of its CanaryRelease, cut.
pub const LABEL_RECORD_OF: &str = "canaryrelease.dev/record-of";
/// Label on a record: the first sixteen characters of the candidate's digest, by which attempts at one template find
/// each other.
pub const LABEL_TEMPLATE: &str = "canaryrelease.dev/template";
/// Our finalizer on the CanaryRelease.
pub const FINALIZER: &str = "canaryrelease.dev/finalizer";
/// Our field manager. It must not begin with `kubectl`: GitOps tools take such fields away.
pub const FIELD_MANAGER: &str = "canaryrelease-operator";
/// The user the operator is known by where it is installed from `deploy/`.
pub const OPERATOR_USER: &str = "system:serviceaccount:canaryrelease-system:canaryrelease-operator";

/// Longest Service name and label value.
const LIMIT: usize = 63;

/// `<base><suffix>`, or, where that is longer than 63 characters, the base cut and given five
/// characters of its hash, so that two long names never meet: `<cut>-<hash><suffix>`.
#[must_use]
pub fn derived(base: &str, suffix: &str) -> String {
    if base.len().saturating_add(suffix.len()) <= LIMIT {
        return format!("{base}{suffix}");
    }
    let room = LIMIT.saturating_sub(suffix.len()).saturating_sub(6);
    let cut: String = base.chars().take(room).collect();
    let hash = hexadecimal(base, 5);
    format!("{}-{hash}{suffix}", cut.trim_end_matches(['-', '.', '_']))
}

/// A label value that stands for an object's name.
#[must_use]
pub fn label_value(name: &str) -> String {
    derived(name, "")
}

/// The name of the canary's Deployment or Service.
#[must_use]
pub fn canary(name: &str) -> String {
    derived(name, "-canary")
}

/// The name of the Deployment or Service of the baseline pods.
#[must_use]
pub fn baseline(name: &str) -> String {
    derived(name, "-baseline")
}

/// The name of a release's record: `<release id>-<five characters of the hash of the CanaryRelease's uid>`, so that a
/// CanaryRelease which is created again never meets the records of its forerunner. At most 253 characters.
#[must_use]
pub fn record(id: &str, uid: &str) -> String {
    let hash = hexadecimal(uid, 5);
    if id.len() <= 240 {
        return format!("{id}-{hash}");
    }
    let cut: String = id.chars().take(200).collect();
    format!("{}-{}-{hash}", cut.trim_end_matches(['-', '.']), hexadecimal(id, 5))
}

/// The name of a Job: `<release id>-<job>-<place>-<five characters of a hash>`, at most 63 characters. `place` is such
/// as `s2-1`. The hash is of all of these and the CanaryRelease's uid, so that no two runs ever meet.
#[must_use]
pub fn job(id: &str, uid: &str, job: &str, place: &str) -> String {
    let hash = hexadecimal(&format!("{uid}/{id}/{job}/{place}"), 5);
    derived(&format!("{id}-{job}"), &format!("-{place}-{hash}")).replace(['.', '_'], "-")
}

/// The value of [`LABEL_TEMPLATE`] for a digest such as `sha256:0f82...`.
#[must_use]
pub fn template_label(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(16).collect()
}

fn hexadecimal(text: &str, characters: usize) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .chars()
        .take(characters)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_named_after_its_release_and_no_two_meet() {
        let name = record("web-12", "uid-1");
        assert!(name.starts_with("web-12-") && name.len() == "web-12-".len() + 5, "{name}");
        assert_ne!(name, record("web-12", "uid-2"));
        let long = format!("{}-1", "a".repeat(253));
        assert!(record(&long, "uid-1").len() <= 253);
        assert_ne!(record(&long, "uid-1"), record(&format!("{}-2", "a".repeat(253)), "uid-1"));
        assert_eq!(template_label("sha256:0f8214e142dd57c0de78"), "0f8214e142dd57c0");
    }

    #[test]
    fn a_job_is_named_after_its_run_and_no_two_meet() {
        let name = job("web-12", "uid-1", "smoke", "s2-1");
        assert!(name.starts_with("web-12-smoke-s2-1-") && name.len() == "web-12-smoke-s2-1-".len() + 5, "{name}");
        // `web` at release 1 with a job `2-x`, and `web-1` at release 2 with a job `x`.
        assert_ne!(job("web-1", "a", "2-x", "s1-1"), job("web-1-2", "a", "x", "s1-1"));
        assert_ne!(name, job("web-12", "uid-2", "smoke", "s2-1"));
        let long = job(&format!("{}.b-1", "a".repeat(250)), "u", &"j".repeat(40), "s20-12");
        assert!(long.len() <= 63 && !long.contains('.'), "{long}");
    }

    #[test]
    fn short_names_stay_as_they_are() {
        assert_eq!(canary("web"), "web-canary");
        assert_eq!(baseline("web"), "web-baseline");
        assert_eq!(label_value("web"), "web");
    }

    #[test]
    fn long_names_fit_and_stay_apart() {
        let a = "a".repeat(63);
        let b = format!("{}b", "a".repeat(62));
        assert_eq!(canary(&a).len(), 63);
        assert_ne!(canary(&a), canary(&b));
        assert_eq!(baseline(&a).len(), 63);
        assert_ne!(baseline(&a), baseline(&b));
        assert!(label_value(&"x".repeat(253)).len() <= 63);
    }

    #[test]
    fn a_cut_never_leaves_a_dangling_separator() {
        let base = format!("{}-{}", "a".repeat(49), "b".repeat(30));
        assert!(!canary(&base).contains("--"));
    }
}
