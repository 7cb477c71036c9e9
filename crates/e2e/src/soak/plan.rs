//! The shops of the soak: how bad and slow they are, their stages and their gates. It decides what is played and
//! computes nothing.

use anyhow::Result;
use canary_api::CanaryReleaseSpec;
use serde_json::{Value, json};

use super::Part;
use crate::scene::Scene;
use crate::setup::{Entrance, Setup};

/// Requests per second of the client, and the mean of the load that rises and falls.
pub const RATE: f64 = 100.0;
/// Rates of the load that rises and falls, each held for [`STEP_SECONDS`].
pub const RATES: [f64; 8] = [50.0, 75.0, 100.0, 125.0, 150.0, 125.0, 100.0, 75.0];
/// How long each of them is held.
pub const STEP_SECONDS: u64 = 5;
/// The limit of the gate `errors`.
pub const LIMIT: f64 = 0.01;
/// Share of slow answers that the gate `latency` allows.
pub const SLOW_LIMIT: f64 = 0.05;
/// Share of answers that are errors on a healthy side.
pub const ERRORS: f64 = 0.005;
/// The same in the part `late`.
pub const LATE_ERRORS: f64 = 0.003;
/// Share of slow answers in the part `latency`.
pub const SLOW: f64 = 0.04;

/// Where the gates' counters come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Prometheus, which scrapes every second.
    Prometheus,
    /// The pods themselves.
    Pods,
}

impl Source {
    /// In a table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prometheus => "Prometheus",
            Self::Pods => "pods",
        }
    }
}

/// One stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// Weight in percent.
    pub percent: u32,
    /// Duration in seconds.
    pub seconds: u64,
}

const fn stage(percent: u32, seconds: u64) -> Stage {
    Stage { percent, seconds }
}

/// So that four of five healthy releases are never held: simulated. The longer a stage of few requests, the likelier is
/// one bad one among them, which is no verdict; one of a few hundred must be long enough for a good estimate.
pub const HEALTHY: [Stage; 5] = [stage(1, 20), stage(5, 40), stage(25, 20), stage(50, 20), stage(100, 20)];
/// A release that is held in a stage goes on being judged there, which takes forever at 1 request/s.
pub const BAD: [Stage; 4] = [stage(5, 40), stage(25, 40), stage(50, 30), stage(100, 30)];
/// Only the first is reached.
pub const LATE: [Stage; 5] = [stage(5, 20 * 60), stage(10, 60), stage(25, 60), stage(50, 60), stage(100, 60)];

/// The stages of a part.
#[must_use]
pub const fn stages(part: Part) -> &'static [Stage] {
    match part {
        Part::Healthy | Part::Latency | Part::Load => &HEALTHY,
        Part::Bad => &BAD,
        Part::Late => &LATE,
    }
}

/// Stages in a few words: `1 % for 40 s, 5 % for 30 s`.
#[must_use]
pub fn in_words(stages: &[Stage]) -> String {
    stages.iter().map(|stage| format!("{} % for {} s", stage.percent, stage.seconds)).collect::<Vec<_>>().join(", ")
}

/// The objects of a shop.
#[must_use]
pub fn setup(scene: &Scene, part: Part, source: Source) -> Setup {
    let setup = told(scene.plain(), part);
    match source {
        Source::Prometheus => setup,
        Source::Pods => setup.spec("provider", "pods"),
    }
}

/// The spec that a part's releases have.
///
/// # Errors
/// If it is none: a mistake in the plan.
pub fn spec(part: Part) -> Result<CanaryReleaseSpec> {
    let nowhere = Entrance { namespace: String::new(), name: String::new(), url: String::new() };
    let setup = told(Setup::new("", "shop", &nowhere), part);
    Ok(serde_json::from_value(setup.release["spec"].clone())?)
}

fn told(setup: Setup, part: Part) -> Setup {
    let of_part = match part {
        Part::Late => vec![
            errors(50),
            latency("latency", "95%", "200ms", 50),
            latency("very-slow", "99%", "1s", 50),
            events("conflicts", "idempotency_conflicts_total"),
            events("risk", "risk_blocks_total"),
            events("csp", "csp_violations_total"),
        ],
        // 1 % of what comes in the first stage at the least load.
        _ => vec![errors(10), latency("latency", "95%", "200ms", 10)],
    };
    let mut setup =
        setup.rate(RATE).spec("interval", "1s").spec("baseline", json!({"duration": "8s"})).spec("gates", of_part);
    let stages = stages(part).iter();
    setup.release["spec"]["stages"] = stages
        .map(|stage| json!({"weight": format!("{}%", stage.percent), "duration": format!("{}s", stage.seconds)}))
        .collect();
    let healthy = if part == Part::Late { LATE_ERRORS } else { ERRORS };
    tell_shop(&mut setup.deployment, healthy, if part == Part::Latency { SLOW } else { 0.0 });
    setup
}

/// The Deployment as it asks for the next release: another version, which nothing was ever told of.
#[must_use]
pub fn candidate(setup: &Setup, part: Part, version: &str, release: i64, bad: Option<f64>) -> Value {
    let mut deployment = setup.deployment_with(version);
    deployment["spec"]["template"]["metadata"]["annotations"]["soak/release"] = release.to_string().into();
    if let Some(bad) = bad {
        tell_shop(&mut deployment, bad, if part == Part::Latency { SLOW } else { 0.0 });
    }
    deployment
}

/// Pods of one version must not fail in step, nor those of two releases: each draws by its own name.
fn tell_shop(deployment: &mut Value, errors: f64, slow: f64) {
    deployment["spec"]["template"]["spec"]["containers"][0]["env"] = json!([
        {"name": "SEED", "value": "pod"},
        {"name": "ERROR_RATE", "value": errors.to_string()},
        {"name": "SLOW_RATE", "value": slow.to_string()},
        {"name": "SLOW_MS", "value": "300"},
    ]);
}

fn errors(min_requests: u32) -> Value {
    let limit = format!("{}%", LIMIT * 100.0);
    json!({"name": "errors", "minRequests": min_requests,
        "errorRate": {"bad": "http_requests_total{code=~\"5..\"}", "total": "http_requests_total", "limit": limit}})
}

fn latency(name: &str, quantile: &str, limit: &str, min_requests: u32) -> Value {
    json!({"name": name, "minRequests": min_requests,
        "latency": {"histogram": "http_request_duration_seconds", "quantile": quantile, "limit": limit}})
}

fn events(name: &str, counter: &str) -> Value {
    json!({"name": name, "eventRate": {"counter": counter, "limit": "2/min"}})
}
