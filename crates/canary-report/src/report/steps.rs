//! The share of the traffic that the new version was given, as steps in time. What the record does not say is left out:
//! a line ends where nothing more is known.

use canary_api::ReleaseRecordStatus;
use jiff::Timestamp;

use crate::facts::known;
use crate::figure::per_cent;

/// From a moment on the share was this.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// The share, 0 to 100.
    pub share: f64,
    /// Why, in a few words.
    pub why: String,
}

/// The steps of a release, and the moment up to which the last one is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Steps {
    /// In order.
    pub steps: Vec<Step>,
    /// Until when the last share held, as far as is known.
    pub until: Option<Timestamp>,
}

/// Reads the steps. They begin with 0 at the release's beginning.
#[must_use]
pub fn steps(status: &ReleaseRecordStatus) -> Steps {
    let mut steps = Vec::new();
    if let Some(started) = &status.started {
        steps.push(Step { at: started.0, share: 0.0, why: "the release began".to_owned() });
    }
    let mut until = status.started.as_ref().map(|time| time.0);
    for stage in &status.stages {
        let (Some(began), Some(share)) = (&stage.started, per_cent(&stage.weight)) else { continue };
        steps.push(Step { at: began.0, share, why: format!("stage {}", stage.number) });
        let ended = stage.ended.as_ref().map_or(began.0, |time| time.0);
        until = until.max(Some(began.0)).max(Some(ended));
    }
    let own = status.rollbacks.iter().rfind(|rollback| rollback.id == status.id);
    if let Some(clear) = own.and_then(|rollback| rollback.clear_at.as_ref()) {
        let by = own.and_then(|rollback| known(&rollback.trigger)).map_or_else(String::new, |by| format!(", by {by}"));
        steps.push(Step { at: clear.0, share: 0.0, why: format!("all traffic back on stable{by}") });
        until = until.max(Some(clear.0));
    }
    // Only of these two is it known what the traffic did up to the end.
    let back = steps.last().is_some_and(|last| last.share <= 0.0);
    if status.outcome == "Promoted" || (back && own.is_some()) {
        until = until.max(status.ended.as_ref().map(|time| time.0));
    }
    steps.sort_by_key(|step| step.at);
    Steps { steps, until }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(status: serde_json::Value) -> Vec<(f64, String)> {
        let read = steps(&serde_json::from_value(status).unwrap());
        let mut shown: Vec<(f64, String)> = read.steps.iter().map(|step| (step.share, step.at.to_string())).collect();
        shown.push((-1.0, read.until.map(|at| at.to_string()).unwrap_or_default()));
        shown
    }

    #[test]
    fn a_rollback_ends_the_steps_at_nothing() {
        let steps = read(json!({
            "id": "a-2", "outcome": "RolledBack", "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:09:00Z",
            "stages": [{"number": 1, "weight": "5%", "started": "2026-01-01T00:01:00Z", "ended": "2026-01-01T00:02:00Z"},
                {"number": 2, "weight": "100%"}],
            "rollbacks": [{"id": "a-1", "clearAt": "2025-01-01T00:00:00Z"}, {"id": "a-2", "clearAt": "2026-01-01T00:02:03Z"}],
        }));
        let of = |share: f64, at: &str| (share, format!("2026-01-01T00:{at}Z"));
        assert_eq!(steps, [of(0.0, "00:00"), of(5.0, "01:00"), of(0.0, "02:03"), of(-1.0, "09:00")]);
    }

    #[test]
    fn where_nothing_more_is_known_the_steps_end() {
        let steps = read(json!({
            "id": "a-1", "outcome": "Superseded", "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:09:00Z",
            "stages": [{"number": 1, "weight": "5%", "started": "2026-01-01T00:01:00Z", "ended": "2026-01-01T00:02:00Z"},
                {"number": 2, "weight": "odd", "started": "2026-01-01T00:03:00Z"}],
        }));
        assert_eq!(steps.last().unwrap().1, "2026-01-01T00:02:00Z");
        assert_eq!(read(json!({})), [(-1.0, String::new())]);
    }
}
