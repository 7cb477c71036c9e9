//! What a release can find out at the traffic it gets, stage by stage and gate by gate: what would be detected, whether
//! a limit can be proved, and how long a stage would have to be. For people who write a spec. It decides nothing and
//! never looks at what was measured.

use std::collections::BTreeMap;

use canary_api::{CanaryReleaseSpec, Duration, EventRate, Gate, Percent, Relative, Scope, Stage, To};
use canary_stats::{Alpha, Dispersion, Historical, StatsError, know};
use serde::Serialize;

/// The powers that are asked about: in so many of a hundred releases it is detected.
const OFTEN: f64 = 0.80;
const NEARLY_ALWAYS: f64 = 0.95;
/// The longest a stage may be, in seconds: 168 h.
const LONGEST: f64 = 168.0 * 3600.0;

/// What is expected to come in. A number that makes no sense counts as nothing expected.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traffic {
    /// Requests a second of the whole service.
    pub requests_per_second: f64,
    /// By gate: events a minute that its counter shows with all traffic on stable. Only gates that compare with stable
    /// need it.
    pub events_per_minute: BTreeMap<String, f64>,
}

impl Traffic {
    /// So many requests a second, and nothing known of events.
    #[must_use]
    pub fn of(requests_per_second: f64) -> Self {
        Self { requests_per_second, events_per_minute: BTreeMap::new() }
    }

    fn rate(&self) -> f64 {
        if self.requests_per_second.is_finite() { self.requests_per_second.max(0.0) } else { 0.0 }
    }

    fn events(&self, gate: &str) -> Option<f64> {
        self.events_per_minute.get(gate).copied().filter(|events| events.is_finite() && *events >= 0.0)
    }
}

/// What one stage can know.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageKnowledge {
    /// Which stage, from 1.
    pub stage: usize,
    /// Of how many.
    pub stages: usize,
    /// The canary's share of the traffic.
    pub weight: Percent,
    /// How long the stage is, without an extension.
    pub duration: Duration,
    /// Requests a second of the whole service, as expected.
    pub requests_per_second: f64,
    /// Requests that the canary gets in the stage.
    pub requests: f64,
    /// What its gates can know, in the order of the spec.
    pub gates: Vec<GateKnowledge>,
}

/// What one gate can know in a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateKnowledge {
    /// The gate's name.
    pub gate: String,
    /// Its limit, as the status shows it.
    pub limit: String,
    /// Requests below which it has no verdict; 0 for gates that do not look at requests.
    pub min_requests: f64,
    /// What it can know.
    pub knows: Knows,
    /// What that does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a gate can know, by what it tests.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "tests")]
pub enum Knows {
    /// A share of bad requests (`errorRate`, `latency`), as fractions of one.
    Share {
        /// The largest share that is still good.
        limit: f64,
        /// The share that is detected in 80 of 100 releases; none: not even a total failure is.
        detects80: Option<f64>,
        /// The share that is detected in 95 of 100 releases.
        detects95: Option<f64>,
        /// The least limit that these requests would prove, if none of them were bad.
        proves: Option<f64>,
        /// Whether these requests, none of them bad, would prove the limit.
        can_prove: bool,
        /// Requests, none of them bad, that prove the limit.
        clean_requests_to_prove: f64,
    },
    /// Events a minute (`eventRate`), of the whole service or as if it were all the candidate's.
    Rate {
        /// What the rate speaks of.
        scope: Scope,
        /// The largest rate that is still good.
        limit: f64,
        /// The rate that is detected in 80 of 100 releases.
        detects80: Option<f64>,
        /// The rate that is detected in 95 of 100 releases.
        detects95: Option<f64>,
    },
    /// Events per request as a multiple of the other side's (`relative`).
    Ratio {
        /// What is compared with.
        to: To,
        /// The largest multiple that is still good.
        limit: f64,
        /// The multiple that is detected in 80 of 100 releases.
        detects80: Option<f64>,
        /// The multiple that is detected in 95 of 100 releases.
        detects95: Option<f64>,
    },
    /// A number against a limit (`value`): no statistics are claimed for it.
    NoStatistics,
    /// The gate is left out at this stage: at 100 % there is no stable side.
    LeftOut,
    /// It can't be said.
    Unknown {
        /// What is missing, or wrong.
        why: String,
    },
}

/// How long a stage must be for a gate to know something. `None`: it does not apply, or 168 h are not enough.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateDurations {
    /// The gate's name.
    pub gate: String,
    /// Until it has the requests that it wants for a verdict.
    pub verdict: Option<Duration>,
    /// Until the named bad share is detected in 80 of 100 releases.
    pub detect: Option<Duration>,
    /// Until requests, none of them bad, prove the limit.
    pub prove: Option<Duration>,
}

/// Durations of one stage that would suffice.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageDurations {
    /// Which stage, from 1.
    pub stage: usize,
    /// By gate, those that test a share.
    pub gates: Vec<GateDurations>,
}

/// The error budget of one gate in one stage: that of a release, split over the gates that claim a probability and
/// over the stages, of which the soak is one. `None` where every gate is a `value`.
#[must_use]
pub fn budget(spec: &CanaryReleaseSpec) -> Option<Alpha> {
    spec.gates.iter().any(|gate| gate.value.is_none()).then(|| crate::evidence::budget(spec))
}

/// What every stage of a spec can know, from the requests a second of the whole service.
#[must_use]
pub fn stages(spec: &CanaryReleaseSpec, requests_per_second: f64) -> Vec<StageKnowledge> {
    stages_of(spec, &Traffic::of(requests_per_second))
}

/// What every stage of a spec can know from the traffic that is expected.
#[must_use]
pub fn stages_of(spec: &CanaryReleaseSpec, traffic: &Traffic) -> Vec<StageKnowledge> {
    let alpha = budget(spec);
    let mut shares = Shares::default();
    let of_stage = |(index, stage): (usize, &Stage)| {
        let requests = requests(stage, traffic);
        let known = spec.gates.iter().map(|gate| {
            let at = At { stage, traffic, requests, spec };
            of_gate(gate, alpha, &at, &mut shares)
        });
        StageKnowledge {
            stage: index.saturating_add(1),
            stages: spec.stages.len(),
            weight: stage.weight,
            duration: stage.duration,
            requests_per_second: traffic.rate(),
            requests,
            gates: known.collect(),
        }
    };
    spec.stages.iter().enumerate().map(of_stage).collect()
}

/// Requests of the canary in a stage, whole ones.
fn requests(stage: &Stage, traffic: &Traffic) -> f64 {
    // A product such as 0.07 × 10,000 falls short of its whole number by a rounding.
    (traffic.rate() * stage.duration.secs_f64() * stage.weight.fraction() + 1e-6).floor()
}

/// What a gate's knowledge depends on, beside itself.
struct At<'a> {
    stage: &'a Stage,
    traffic: &'a Traffic,
    requests: f64,
    spec: &'a CanaryReleaseSpec,
}

impl At<'_> {
    fn minutes(&self) -> f64 {
        self.stage.duration.secs_f64() / 60.0
    }
}

fn of_gate(gate: &Gate, alpha: Option<Alpha>, at: &At<'_>, shares: &mut Shares) -> GateKnowledge {
    let min_requests = if gate.value.is_some() { 0.0 } else { f64::from(gate.min_requests) };
    let knows = match alpha {
        _ if gate.value.is_some() => Ok(Knows::NoStatistics),
        _ if left_out(gate, at.stage.weight) => Ok(Knows::LeftOut),
        Some(alpha) => tested(gate, alpha, at, shares),
        None => Err(StatsError::NothingToSplit),
    };
    let knows = knows.unwrap_or_else(|error| Knows::Unknown { why: error.to_string() });
    let note = other_total(gate, &at.spec.traffic.requests.counter);
    GateKnowledge { gate: gate.name.clone(), limit: limit_of(gate), min_requests, knows, note }
}

/// A share of something else than the requests rests on other numbers than those.
fn other_total(gate: &Gate, requests: &str) -> Option<String> {
    let total = gate.error_rate.as_ref().map(|rule| rule.total.trim()).filter(|total| *total != requests.trim())?;
    Some(format!("reckoned as if {total} counted every request; where it counts fewer, less is detected"))
}

/// At 100 % there is no stable side to compare with.
fn left_out(gate: &Gate, weight: Percent) -> bool {
    weight >= Percent::HUNDRED && gate.relative.as_ref().is_some_and(|rule| rule.to == To::Stable)
}

/// The limit as a reader wants it.
fn limit_of(gate: &Gate) -> String {
    if let Some(rule) = &gate.error_rate {
        return format!("<= {}", rule.limit);
    }
    if let Some(rule) = &gate.latency {
        return format!("P{} < {}", plain(rule.quantile.fraction() * 100.0), rule.limit);
    }
    if let Some(rule) = &gate.event_rate {
        let scope = if rule.scope == Scope::Total { "in total" } else { "at the canary's share" };
        return format!("<= {} {scope}", rule.limit);
    }
    if let Some(rule) = &gate.relative {
        let to = if rule.to == To::Baseline { "baseline" } else { "stable" };
        return format!("<= {to} +{}", rule.margin);
    }
    let Some(rule) = &gate.value else { return String::new() };
    let unit = rule.unit.as_deref().unwrap_or_default();
    let side = |sign: &str, bound: Option<f64>| bound.map(|bound| format!("{sign} {bound}{unit}"));
    [side(">=", rule.min), side("<=", rule.max)].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn tested(gate: &Gate, alpha: Alpha, at: &At<'_>, shares: &mut Shares) -> Result<Knows, StatsError> {
    if let Some(limit) = share_limit(gate) {
        return shares.of(limit, alpha, at.requests);
    }
    if let Some(rule) = &gate.event_rate {
        return rate(rule, alpha, at);
    }
    match &gate.relative {
        Some(rule) => ratio(gate, rule, alpha, at),
        None => Ok(Knows::Unknown { why: "the gate has no rule".to_owned() }),
    }
}

/// The limit of a gate that tests a share of bad requests.
fn share_limit(gate: &Gate) -> Option<f64> {
    let errors = gate.error_rate.as_ref().map(|rule| rule.limit.fraction());
    errors.or_else(|| {
        let slow = |rule: &canary_api::Latency| {
            f64::from(Percent::HUNDRED.millionths().saturating_sub(rule.quantile.millionths())) / 1e6
        };
        gate.latency.as_ref().map(slow)
    })
}

/// Gates of one limit know the same of one stage, so it is computed once.
#[derive(Default)]
struct Shares(Vec<((f64, f64), Knows)>);

impl Shares {
    fn of(&mut self, limit: f64, alpha: Alpha, requests: f64) -> Result<Knows, StatsError> {
        if let Some((_, known)) = self.0.iter().find(|(of, _)| *of == (limit, requests)) {
            return Ok(known.clone());
        }
        let known = know::share_gate(limit, alpha, Alpha::RELEASE, requests)?;
        let known = Knows::Share {
            limit,
            detects80: known.detects_80,
            detects95: known.detects_95,
            proves: known.proves,
            can_prove: known.can_prove,
            clean_requests_to_prove: known.clean_requests_to_prove,
        };
        self.0.push(((limit, requests), known.clone()));
        Ok(known)
    }
}

fn rate(rule: &EventRate, alpha: Alpha, at: &At<'_>) -> Result<Knows, StatsError> {
    let limit = rule.limit.per_minute();
    let share = if rule.scope == Scope::Canary { at.stage.weight.fraction() } else { 1.0 };
    let expected = limit * at.minutes() * share;
    let detects = |power| Ok(know::detectable_rate(expected, alpha, power)?.map(|multiple| multiple * limit));
    Ok(Knows::Rate { scope: rule.scope, limit, detects80: detects(OFTEN)?, detects95: detects(NEARLY_ALWAYS)? })
}

fn ratio(gate: &Gate, rule: &Relative, alpha: Alpha, at: &At<'_>) -> Result<Knows, StatsError> {
    let Some(events) = at.traffic.events(&gate.name) else {
        return Ok(Knows::Unknown { why: "needs the events a minute that stable shows today".to_owned() });
    };
    let (share, margin) = (at.stage.weight.fraction(), rule.margin.fraction());
    let (detects80, detects95) = if rule.to == To::Stable {
        // Baseline pods have the canary's share, where stable keeps something beside both.
        let beside = at.spec.baseline.pods && share < 0.5;
        let compared = if beside { share } else { 1.0 - share };
        let stable = events * at.minutes() * compared;
        let of_both = if beside { 0.5 } else { share };
        let detects = |power| know::detectable_ratio(margin, of_both, stable, alpha, power);
        (detects(OFTEN)?, detects(NEARLY_ALWAYS)?)
    } else {
        let minutes = at.spec.baseline.duration.secs_f64() / 60.0;
        let before = Historical::new(events * minutes, minutes, margin, alpha, Dispersion::NONE)?;
        let expected = before.rate() * at.minutes() * share;
        let detects = |power| -> Result<Option<f64>, StatsError> {
            let multiple = know::detectable_rate(expected, before.alpha(), power)?;
            Ok(multiple.filter(|_| events > 0.0).map(|multiple| multiple * before.rate() / events))
        };
        (detects(OFTEN)?, detects(NEARLY_ALWAYS)?)
    };
    Ok(Knows::Ratio { to: rule.to, limit: 1.0 + margin, detects80, detects95 })
}

impl StageKnowledge {
    /// What the stage sees, such as `stage 1/5 at 1% of 100 requests/s for 5m sees 300 requests`.
    #[must_use]
    pub fn sees(&self) -> String {
        format!(
            "stage {}/{} at {} of {} requests/s for {} sees {} {}",
            self.stage,
            self.stages,
            self.weight,
            plain(self.requests_per_second),
            self.duration,
            self.requests,
            if self.requests == 1.0 { "request" } else { "requests" },
        )
    }

    /// What keeps a gate from judging this stage: it would not see even a total failure, or has too few requests.
    #[must_use]
    pub fn blind(&self, gate: &GateKnowledge) -> Vec<String> {
        let mut reasons = Vec::new();
        match &gate.knows {
            Knows::Share { detects80: None, .. } => reasons.push("not even a total failure is detected".to_owned()),
            Knows::Rate { detects80: None, .. } => reasons.push("no rate of events is detected".to_owned()),
            Knows::NoStatistics | Knows::LeftOut => return reasons,
            // Of events that never came there is no multiple, but the first few would be seen.
            Knows::Share { .. } | Knows::Rate { .. } | Knows::Ratio { .. } | Knows::Unknown { .. } => {}
        }
        if self.requests < gate.min_requests {
            reasons.push(format!("a verdict wants {}", gate.min_requests));
        }
        reasons
    }
}

impl GateKnowledge {
    /// What it can know, such as `detects 5.08% and worse; proves nothing below 1.2%`.
    #[must_use]
    pub fn sentence(&self) -> String {
        match &self.knows {
            Knows::Share { detects80, proves, can_prove, .. } => {
                let detects = detects80.map_or_else(
                    || "detects nothing, not even a total failure".to_owned(),
                    |share| format!("detects {} and worse", per_cent(share)),
                );
                match proves {
                    _ if *can_prove => format!("{detects}; can prove its limit"),
                    Some(limit) => format!("{detects}; proves nothing below {}", per_cent(*limit)),
                    None => format!("{detects}; proves nothing"),
                }
            }
            Knows::Rate { scope, detects80: Some(rate), .. } => {
                let scope = match scope {
                    Scope::Canary => ", as if all traffic were the candidate's",
                    Scope::Total => " in total, where the candidate has more than its share of them",
                };
                format!("detects {}/min and more{scope}", figures(*rate))
            }
            Knows::Ratio { to, detects80: Some(ratio), .. } => {
                let side = if *to == To::Stable { "the stable side" } else { "the baseline" };
                format!("detects {} times {side} and more", figures(*ratio))
            }
            Knows::Rate { .. } => "detects no rate".to_owned(),
            Knows::Ratio { .. } => "has no events to compare with; a few of the candidate's are seen".to_owned(),
            Knows::NoStatistics => "judged by its limit alone, without statistics".to_owned(),
            Knows::LeftOut => "left out: at 100% there is no stable side".to_owned(),
            Knows::Unknown { why } => why.clone(),
        }
    }
}

/// Where a release would go on without knowing: each blind stage with its gates, one sentence for each reason.
#[must_use]
pub fn warnings(stages: &[StageKnowledge]) -> Vec<String> {
    let mut warnings = Vec::new();
    for stage in stages {
        let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
        for gate in &stage.gates {
            for reason in stage.blind(gate) {
                match reasons.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, names)) => names.push(&gate.gate),
                    None => reasons.push((reason, vec![&gate.gate])),
                }
            }
        }
        let sees = stage.sees();
        warnings.extend(reasons.into_iter().map(|(reason, names)| {
            let gates = if names.len() == 1 { "gate" } else { "gates" };
            format!("{sees}: {reason} ({gates} {})", names.join(", "))
        }));
    }
    warnings
}

/// How long each stage would have to be for a verdict, to detect `bad` (a share of one, such as 0.05) in 80 of 100
/// releases, and to prove the limits. For the gates that test a share.
#[must_use]
pub fn durations(spec: &CanaryReleaseSpec, traffic: &Traffic, bad: Option<f64>) -> Vec<StageDurations> {
    let mut wants: Vec<(&Gate, Wants)> = Vec::new();
    if let Some(alpha) = budget(spec) {
        for gate in &spec.gates {
            if let Some(limit) = share_limit(gate) {
                let known = wants.iter().find(|(_, known)| known.limit == limit).map(|(_, known)| *known);
                wants.push((gate, known.unwrap_or_else(|| Wants::of(limit, alpha, bad))));
            }
        }
    }
    let of_stage = |(index, stage): (usize, &Stage)| {
        let per_second = traffic.rate() * stage.weight.fraction();
        let lasts = |requests: f64| long_enough(requests, per_second);
        let gates = wants.iter().map(|(gate, wants)| GateDurations {
            gate: gate.name.clone(),
            verdict: lasts(f64::from(gate.min_requests)),
            detect: wants.detect.and_then(lasts),
            prove: wants.prove.and_then(lasts),
        });
        StageDurations { stage: index.saturating_add(1), gates: gates.collect() }
    };
    spec.stages.iter().enumerate().map(of_stage).collect()
}

/// Requests that a gate wants, whatever the stage.
#[derive(Clone, Copy)]
struct Wants {
    limit: f64,
    detect: Option<f64>,
    prove: Option<f64>,
}

impl Wants {
    fn of(limit: f64, alpha: Alpha, bad: Option<f64>) -> Self {
        let detect = bad.and_then(|bad| know::requests_to_detect(limit, alpha, bad, OFTEN).ok().flatten());
        Self { limit, detect, prove: know::clean_requests_to_prove(limit, Alpha::RELEASE).ok() }
    }
}

/// The time for so many requests, rounded up as people write it; `None` beyond 168 h.
fn long_enough(requests: f64, per_second: f64) -> Option<Duration> {
    let seconds = requests / per_second;
    if !(0.0..=LONGEST).contains(&seconds) {
        return None;
    }
    let step = if seconds <= 60.0 {
        1.0
    } else if seconds <= 600.0 {
        10.0
    } else if seconds <= 6.0 * 3600.0 {
        60.0
    } else {
        600.0
    };
    // At most 604,800.
    Some(Duration::from_secs(((seconds / step).ceil() * step).max(1.0) as u64))
}

/// A share as per cent, three figures, rounded up: what is promised is kept.
#[must_use]
pub fn per_cent(share: f64) -> String {
    format!("{}%", figures((share * 100.0).min(100.0)))
}

/// A number with two decimals at most.
fn plain(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A positive number with three figures, rounded up.
#[must_use]
pub fn figures(value: f64) -> String {
    if !value.is_finite() || value <= 0.0 {
        return "0".to_owned();
    }
    let decimals = (2.0 - value.log10().floor()).clamp(-15.0, 15.0);
    let scale = 10_f64.powf(decimals);
    // A rounding in the last bits is no reason to go up.
    let up = (value * scale - 1e-6).ceil() / scale;
    let text = format!("{up:.*}", decimals.max(0.0) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
#[path = "know_tests.rs"]
mod tests;
