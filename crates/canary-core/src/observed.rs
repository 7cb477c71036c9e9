//! What was seen of the cluster in one tick. A read that failed is told apart from an object that is
//! not there: what depends on a failed read waits, nothing else does.

use std::{collections::BTreeMap, time::Duration};

use canary_api::CanaryRelease;
use serde_json::Value;

use crate::{figures::Figures, gates::Reading, traffic::Traffic};

/// The answer to one read.
#[derive(Debug, Clone, PartialEq)]
pub enum Fetched<T> {
    /// It is there.
    Known(T),
    /// It is not there.
    Missing,
    /// The read failed; why.
    Failed(String),
}

impl<T> Fetched<T> {
    /// The value, if it was read.
    #[must_use]
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Missing | Self::Failed(_) => None,
        }
    }

    /// Whether the object is surely not there.
    #[must_use]
    pub const fn missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
}

impl<T> Fetched<Vec<T>> {
    /// The elements of a list that was read; none otherwise.
    #[must_use]
    pub fn list(&self) -> &[T] {
        self.known().map_or(&[], Vec::as_slice)
    }
}

/// Whether a changed template of the target comes back paused, tried by a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Not tried in this tick: the target is not labelled yet, or the policies are as they were proved.
    NotTried,
    /// It came back paused; the state of the policies it was tried with.
    Works(String),
    /// It did not, or could not be tried; why.
    Fails(String),
}

/// Another CanaryRelease for the same target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its `metadata.creationTimestamp`.
    pub created: String,
}

/// What was seen of the pods of the serving version that run beside the canary's. A release goes on without them, so
/// nothing waits for these reads but them and what takes them away.
#[derive(Debug, Clone)]
pub struct BaselineSide {
    /// Their Deployment.
    pub deployment: Fetched<Value>,
    /// The pods.
    pub pods: Fetched<Vec<Value>>,
    /// Their Service.
    pub service: Fetched<Value>,
}

impl BaselineSide {
    /// None of it is there.
    #[must_use]
    pub const fn none() -> Self {
        Self { deployment: Fetched::Missing, pods: Fetched::Known(Vec::new()), service: Fetched::Missing }
    }
}

/// Why a Job was not created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the API server said.
    pub why: String,
    /// Whether it would say so again: the right lacks, a quota is spent, the object is not valid.
    pub last: bool,
    /// Whether it is too early to try again.
    pub fresh: bool,
}

/// What was seen of the jobs of a release: of those alone whose end the status does not know yet.
#[derive(Debug, Clone, Default)]
pub struct JobsSeen {
    /// Jobs, by name.
    pub jobs: BTreeMap<String, Fetched<Value>>,
    /// Pods of Jobs that failed, by the Job's name.
    pub pods: BTreeMap<String, Fetched<Vec<Value>>>,
    /// CronJobs of Jobs that are still to be created, by name.
    pub cron_jobs: BTreeMap<String, Fetched<Value>>,
    /// Jobs that could not be created, by name.
    pub refused: BTreeMap<String, Refusal>,
}

/// Everything a tick decides on, read live.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The CanaryRelease itself.
    pub release: CanaryRelease,
    /// Others that name the same target.
    pub rivals: Fetched<Vec<Rival>>,
    /// The target.
    pub target: Fetched<Value>,
    /// The canary Deployment.
    pub canary: Fetched<Value>,
    /// The namespace's ReplicaSets of target and canary.
    pub replica_sets: Fetched<Vec<Value>>,
    /// Pods of the target.
    pub target_pods: Fetched<Vec<Value>>,
    /// Pods of the canary.
    pub canary_pods: Fetched<Vec<Value>>,
    /// The stable Service.
    pub service: Fetched<Value>,
    /// The canary Service.
    pub canary_service: Fetched<Value>,
    /// The pods of the serving version beside the canary's.
    pub baseline: BaselineSide,
    /// The routes, in the order of `spec.traffic.routes`.
    pub routes: Vec<(String, Fetched<Value>)>,
    /// The namespace's autoscalers.
    pub autoscalers: Fetched<Vec<Value>>,
    /// The namespace's PodDisruptionBudgets.
    pub budgets: Fetched<Vec<Value>>,
    /// The namespace's NetworkPolicies.
    pub network_policies: Fetched<Vec<Value>>,
    /// ControllerRevisions that we keep for this CanaryRelease; with the one that the status names, whosever it is.
    pub serving_records: Fetched<Vec<Value>>,
    /// The jobs of the release.
    pub jobs: JobsSeen,
    /// Whether the hold works.
    pub hold: Hold,
    /// The state of the admission policies now: equal text, equal policies.
    pub policies: String,
    /// Why the metrics provider that the spec names can't be asked, if it can't.
    pub provider_problem: Option<String>,
    /// Whether that provider wants every query of a value gate to name the candidate's pods.
    pub names_pods: bool,
    /// What was counted.
    pub measured: Measured,
}

impl Observed {
    /// A CanaryRelease of which nothing else is there, and nothing was measured.
    #[must_use]
    pub fn alone(release: CanaryRelease) -> Self {
        Self {
            release,
            rivals: Fetched::Missing,
            target: Fetched::Missing,
            canary: Fetched::Missing,
            replica_sets: Fetched::Missing,
            target_pods: Fetched::Missing,
            canary_pods: Fetched::Missing,
            service: Fetched::Missing,
            canary_service: Fetched::Missing,
            baseline: BaselineSide::none(),
            routes: Vec::new(),
            autoscalers: Fetched::Missing,
            budgets: Fetched::Missing,
            network_policies: Fetched::Missing,
            serving_records: Fetched::Missing,
            jobs: JobsSeen::default(),
            hold: Hold::NotTried,
            policies: String::new(),
            provider_problem: None,
            names_pods: true,
            measured: Measured::default(),
        }
    }
}

/// What was counted in the window under way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// What the gates' metrics say since the window began.
    pub readings: Vec<Reading>,
    /// The canary's share of the requests, where enough were counted.
    pub share: Option<f64>,
    /// Why the traffic can't be what was asked for.
    pub misrouted: Option<String>,
    /// Requests that were due to the canary since it last counted one.
    pub due_in_silence: f64,
    /// Requests a second of the stable side.
    pub stable_rate: Option<f64>,
    /// What was measured beside the gates.
    pub figures: Figures,
    /// When the canary's counters are next worth looking at, where that is before the next interval.
    pub next_look: Option<Duration>,
}

impl Measured {
    /// What a window's accounts, and the readings last taken from them, come to.
    #[must_use]
    pub fn new(readings: &[Reading], traffic: &Traffic) -> Self {
        Self {
            readings: readings.to_vec(),
            share: traffic.share(),
            misrouted: traffic.misrouted(),
            due_in_silence: traffic.due_in_silence(),
            stable_rate: None,
            figures: Figures::default(),
            next_look: None,
        }
    }

    /// The reading of a gate.
    #[must_use]
    pub fn of(&self, gate: &str) -> Option<&Reading> {
        self.readings.iter().find(|reading| reading.gate == gate)
    }
}
