use serde_json::json;

use super::*;

const OLD: &str = "sha256:old";
const NEW: &str = "sha256:new";
const NEXT: &str = "sha256:next";

fn status(at_rest: bool, serving: &str, observed: &str, outcome: &str) -> CanaryReleaseStatus {
    let mut status = json!({
        "observedGeneration": 1,
        "observedTemplate": observed,
        "outcome": outcome,
        "message": "what goes on",
        "conditions": [{"type": "Reconciling", "status": if at_rest { "False" } else { "True" }, "reason": "r",
            "message": "", "lastTransitionTime": "2026-11-21T12:00:00Z"}],
    });
    if !serving.is_empty() {
        status["hold"] = json!({"armed": true, "targetUid": "u", "serving": {"digest": serving}});
    }
    serde_json::from_value(status).unwrap()
}

#[derive(Debug, PartialEq)]
enum Says {
    NotYet,
    Promoted,
    RolledBack,
    Ended,
}

fn says(deployment: Option<&str>, status: &CanaryReleaseStatus) -> Says {
    match decide(NEW, deployment, status) {
        Waited::NotYet(_) => Says::NotYet,
        Waited::Promoted(_) => Says::Promoted,
        Waited::RolledBack(_) => Says::RolledBack,
        Waited::Ended(_) => Says::Ended,
    }
}

/// Waiting for NEW: the Deployment's template, at rest, what serves, what the status speaks of, its outcome.
#[test]
fn the_decision_case_by_case() {
    use Says::{Ended, NotYet, Promoted, RolledBack};
    let now = Some(NEW);
    for (case, deployment, (at_rest, serving, observed, outcome), expected) in [
        ("the status speaks of the version before", now, (true, OLD, OLD, "Promoted"), NotYet),
        ("as after a rollback of an older template", now, (true, OLD, "sha256:other", "RolledBack"), NotYet),
        ("never released before", now, (true, OLD, "", ""), NotYet),
        ("the release is under way", now, (false, OLD, NEW, ""), NotYet),
        ("the target has rolled, the gates watch on", now, (false, NEW, NEW, ""), NotYet),
        ("live", now, (true, NEW, NEW, "Promoted"), Promoted),
        ("nothing was changed by the apply", now, (true, NEW, "sha256:other", "RolledBack"), Promoted),
        ("got through without stages", now, (true, NEW, NEW, "Ungated"), Promoted),
        ("overridden and rolled out", now, (true, NEW, NEW, "Overridden"), Promoted),
        ("got through, stock is being taken", now, (true, "", NEW, "Ungated"), NotYet),
        ("taken without pods", now, (true, OLD, NEW, "Ungated"), Ended),
        ("rolled back, held", now, (true, OLD, NEW, "RolledBack"), RolledBack),
        ("rolled back, restored", Some(OLD), (true, OLD, NEW, "RolledBack"), RolledBack),
        ("being restored", Some(OLD), (false, OLD, NEW, ""), NotYet),
        ("rejected before, applied again", now, (true, OLD, NEW, "RolledBack"), RolledBack),
        ("aborted", now, (true, OLD, NEW, "Aborted"), Ended),
        ("aborted, restored", Some(OLD), (true, OLD, NEW, "Aborted"), Ended),
        ("overridden and still held", now, (true, OLD, NEW, "Overridden"), Ended),
        ("a newer template, not seen yet", Some(NEXT), (false, OLD, NEW, ""), NotYet),
        ("superseded, the newer under way", Some(NEXT), (false, OLD, NEXT, ""), Ended),
        ("superseded before the operator saw it", Some(NEXT), (false, OLD, NEXT, ""), Ended),
        ("the serving template was applied again", Some(OLD), (true, OLD, OLD, "Promoted"), Ended),
        ("the apply has not reached the status, nor the newer one", Some(NEXT), (true, OLD, OLD, "Promoted"), NotYet),
        ("the Deployment is gone", None, (false, OLD, NEW, ""), Ended),
        ("the Deployment is gone and it was live", None, (true, NEW, NEW, "Promoted"), Promoted),
    ] {
        assert_eq!(says(deployment, &status(at_rest, serving, observed, outcome)), expected, "{case}");
    }
}

#[test]
fn a_status_that_nobody_wrote_says_nothing() {
    assert_eq!(says(Some(NEW), &CanaryReleaseStatus::default()), Says::NotYet);
    let mut without_conditions = status(true, NEW, NEW, "Promoted");
    without_conditions.conditions.clear();
    assert_eq!(says(Some(NEW), &without_conditions), Says::NotYet);
}

#[test]
fn the_digest_is_that_of_the_pipeline_recipe() {
    let deployment = json!({"spec": {"paused": true, "template": {
        "metadata": {"labels": {"app": "web"}, "annotations": {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}},
        "spec": {"containers": [{"name": "app", "image": "web:1"}]},
    }}});
    assert_eq!(digest(&deployment), "sha256:0f8214e142dd57c0de78c06d9d56c94d6587017fdca9dd42006656360f274ccb");
}
