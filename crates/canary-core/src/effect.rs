//! What is to be written, as data: an effect can be printed, compared and replayed. Each is
//! idempotent and guarded; the order in which they stand is the order in which they are done.

use serde_json::Value;

/// Kinds of object that the operator writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `canaryrelease.dev` CanaryRelease: finalizer and command annotations.
    CanaryRelease,
    /// The target, the canary, or the baseline pods'.
    Deployment,
    /// A ReplicaSet of the canary, to remember a rejection.
    ReplicaSet,
    /// The canary's Service, or the baseline pods'.
    Service,
    /// The canary's budget.
    PodDisruptionBudget,
    /// A route of the user's.
    HttpRoute,
    /// The target's autoscaler.
    HorizontalPodAutoscaler,
    /// The serving template, kept.
    ControllerRevision,
    /// A job of the release.
    Job,
}

impl Kind {
    /// The kind's name, as Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CanaryRelease => "CanaryRelease",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::Service => "Service",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::HttpRoute => "HTTPRoute",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::ControllerRevision => "ControllerRevision",
            Self::Job => "Job",
        }
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Create an object; that it exists already is a conflict.
    Create {
        /// Its kind.
        kind: Kind,
        /// The whole object.
        object: Value,
        /// What for, in a few words.
        why: &'static str,
    },
    /// A JSON patch guarded by uid and resourceVersion; an object that is gone stays gone.
    Patch {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// The operations.
        patch: Value,
        /// What for, in a few words.
        why: &'static str,
    },
    /// Delete exactly the object with this uid, in the background.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// What for, in a few words.
        why: &'static str,
    },
}

/// Why a route is written when it is to give traffic back: see [`Effect::gives_traffic_back`].
pub const TRAFFIC_BACK: &str = "give traffic back to stable";

/// Why baseline pods are written: see [`Effect::may_fail`].
pub const BESIDE: &str = "run pods of the serving version beside the canary's";

/// Why a Job is created.
pub const JOB: &str = "run a job of the release";

impl Effect {
    /// Whether the tick goes on whatever becomes of this write: a release does without baseline pods, and of a Job that
    /// can't be created the next tick is told.
    #[must_use]
    pub fn may_fail(&self) -> bool {
        self.why() == BESIDE || self.kind() == Kind::Job
    }

    /// Whether the write takes weight from the candidate: safe and idempotent, it is done even where
    /// the status can't be written.
    #[must_use]
    pub fn gives_traffic_back(&self) -> bool {
        self.why() == TRAFFIC_BACK
    }

    /// Whether a release goes on where this write is refused: guards that the user may have none of.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        matches!(self.kind(), Kind::PodDisruptionBudget | Kind::HorizontalPodAutoscaler)
            && !matches!(self, Self::Delete { .. })
    }

    /// The kind of object written.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Create { kind, .. } | Self::Patch { kind, .. } | Self::Delete { kind, .. } => *kind,
        }
    }

    /// The name of the object written.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Create { object, .. } => crate::object::name(object),
            Self::Patch { name, .. } | Self::Delete { name, .. } => name,
        }
    }

    /// What for, in a few words.
    #[must_use]
    pub const fn why(&self) -> &'static str {
        match self {
            Self::Create { why, .. } | Self::Patch { why, .. } | Self::Delete { why, .. } => why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_guard_that_is_refused_stops_nothing_and_one_that_can_not_go_does() {
        let name = || "web".to_owned();
        let every = |kind| {
            let why = "for a test";
            [
                Effect::Create { kind, object: json!({"metadata": {"name": "web"}}), why },
                Effect::Patch { kind, name: name(), patch: json!([]), why },
                Effect::Delete { kind, name: name(), uid: "u".to_owned(), why },
            ]
        };
        for kind in [Kind::PodDisruptionBudget, Kind::HorizontalPodAutoscaler] {
            assert_eq!(every(kind).map(|effect| effect.is_optional()), [true, true, false], "{kind:?}");
        }
        for kind in [Kind::Deployment, Kind::Service, Kind::HttpRoute, Kind::ControllerRevision] {
            assert_eq!(every(kind).map(|effect| effect.is_optional()), [false; 3], "{kind:?}");
        }
    }
}
