//! What people add to a record beside the operator's own account: an incident as they saw it, and figures of their own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An incident, as people saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Incident {
    /// What is to be done so that it does not happen again.
    #[schemars(length(max = 20))]
    pub actions: Vec<Action>,
    /// Rollback or fix forward, and why.
    #[schemars(length(max = 1000))]
    pub decision: String,
    /// Who was affected, and how.
    #[schemars(length(max = 1000))]
    pub impact: String,
    /// Who was told, and when.
    #[schemars(length(max = 15), inner(length(max = 200)))]
    pub notified: Vec<String>,
    /// The meeting that looks back on it.
    pub retrospective: Retrospective,
    /// How bad it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// What people did and saw; it is shown among the operator's entries, in order of time.
    #[schemars(length(max = 30))]
    pub timeline: Vec<Moment>,
}

/// How bad an incident is; what each means is for you to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    /// The worst.
    P0,
    /// Bad.
    P1,
    /// Less bad.
    P2,
    /// The least.
    P3,
}

/// Something that is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Action {
    /// By when, such as 2026-12-01.
    #[schemars(length(max = 40))]
    pub due: String,
    /// Who does it.
    #[schemars(length(max = 100))]
    pub owner: String,
    /// What.
    #[schemars(length(max = 400))]
    pub text: String,
}

/// A meeting that looks back on an incident.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Retrospective {
    /// When, such as 2026-11-23.
    #[schemars(length(max = 40))]
    pub date: String,
    /// Whether it was held.
    pub done: bool,
}

/// Something that people did or saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Moment {
    /// When: RFC 3339, or as `2026-11-21 14:05` in UTC. What is neither stands after all others.
    #[schemars(length(max = 40))]
    pub at: String,
    /// What.
    #[schemars(length(max = 400))]
    pub text: String,
}

/// A figure of your own, before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OwnFigure {
    /// Of the candidate, with unit.
    #[schemars(length(max = 100))]
    pub after: String,
    /// Of the version before, with unit.
    #[schemars(length(max = 100))]
    pub before: String,
    /// What.
    #[schemars(length(max = 100))]
    pub metric: String,
}
