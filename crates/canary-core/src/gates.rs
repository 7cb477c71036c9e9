//! Judging gates: from counts and what they prove to a verdict, and to what a reader sees of it. A gate that has no
//! fresh, finite, sufficient data never passes. It decides nothing about the release.

use std::collections::BTreeMap;

use canary_api::{Gate, GateStatus, ReleaseStatus, Scope, To};
use canary_stats::{
    Alpha, Consecutive, Evidence as Proof, MeasuredDispersion, ShareCounts, ValueGate, Verdict as Said, WholeService,
    interval, whole_service,
};

use crate::evidence::{Evidence, LeftOut};

/// Of the interval that is shown beside a share.
const CONFIDENCE: f64 = 0.95;

/// What was measured on one side.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// Counted since the window began.
    Counted {
        /// All events (requests); for event counters the requests, or 0 where they were not counted.
        n: f64,
        /// Bad or counted events.
        k: f64,
        /// Length of the window in seconds.
        seconds: f64,
    },
    /// As `Counted`, but some pod's samples are late or missing: it may show a breach, never a pass.
    Partial {
        /// As in `Counted`, as far as known.
        n: f64,
        /// As in `Counted`, as far as known.
        k: f64,
        /// Length of the window in seconds.
        seconds: f64,
        /// What is missing.
        why: String,
    },
    /// A number, with the ticks in a row that it was outside the limits.
    Number {
        /// The worst value of any pod.
        value: f64,
        /// Ticks in a row outside the limits, this one included.
        streak: u32,
    },
    /// There is no data; why.
    NoData(String),
    /// The data can't be trusted; why.
    Error(String),
}

/// What a gate's metric says.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The gate.
    pub gate: String,
    /// The canary.
    pub canary: Measure,
    /// The stable side at the same time.
    pub stable: Measure,
    /// The canary, counted so that it may prove the limit to be kept, where that differs.
    pub proof: Option<Measure>,
    /// The pods of the serving version beside the canary's, where a gate relative to Stable compares with those.
    pub baseline_pods: Option<Measure>,
    /// The stable side before the release, for gates relative to the Baseline.
    pub baseline: Option<Measure>,
    /// What the counts prove; nothing for gates that read a number, and where nothing can be tested.
    pub evidence: Option<Evidence>,
    /// How bursty the stable side's events are.
    pub bursts: Option<MeasuredDispersion>,
    /// What the gate's warm-up keeps out of all of these.
    pub left_out: LeftOut,
}

impl Reading {
    /// What both sides show, and nothing beside it: no test, no comparison, nothing left out.
    #[must_use]
    pub fn new(gate: impl Into<String>, canary: Measure, stable: Measure) -> Self {
        Self {
            gate: gate.into(),
            canary,
            stable,
            proof: None,
            baseline_pods: None,
            baseline: None,
            evidence: None,
            bursts: None,
            left_out: LeftOut::default(),
        }
    }
}

/// What a gate says of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It allows the stage to end.
    Pass,
    /// It ends the release.
    Breach,
    /// Too little is known, or the estimate is above the limit without being a breach.
    Inconclusive,
    /// Nothing is known.
    NoData,
}

impl Verdict {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "Pass",
            Self::Breach => "Breach",
            Self::Inconclusive => "Inconclusive",
            Self::NoData => "NoData",
        }
    }
}

/// A gate judged, ready to be shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// Why nothing follows from a breach for the candidate: the stable side is as bad.
    pub confounded: Option<String>,
    /// What a reader sees.
    pub shown: GateStatus,
}

/// Ticks in a row in which each value gate's number was outside its limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streaks(BTreeMap<String, u32>);

impl Streaks {
    /// As a status has them.
    #[must_use]
    pub fn of(current: &ReleaseStatus) -> Self {
        Self(current.counts.iter().map(|sums| (sums.gate.clone(), sums.streak)).collect())
    }

    /// Takes the number of one tick. A tick without a number is not to be told here: it neither adds nor ends.
    pub fn push(&mut self, gate: &Gate, value: f64) -> Measure {
        let streak = self.0.entry(gate.name.clone()).or_default();
        let limits = gate.value.as_ref().and_then(|rule| ValueGate::new(rule.min, rule.max, rule.consecutive).ok());
        match limits.map(|limits| limits.resumed(*streak).push([value])) {
            Some(Consecutive::Outside(now) | Consecutive::Breach(now)) => *streak = now,
            Some(Consecutive::Inside) => *streak = 0,
            Some(Consecutive::NoData) | None => {}
        }
        Measure::Number { value, streak: *streak }
    }
}

/// Whether a gate has something to compare with at this share: the stable side has no traffic at 100 %.
#[must_use]
pub fn applies(gate: &Gate, share: f64) -> bool {
    !gate.relative.as_ref().is_some_and(|rule| rule.to == To::Stable && share >= 1.0)
}

/// Whether the gate's events are a part of all events.
pub(crate) fn bounded(gate: &Gate) -> bool {
    gate.error_rate.is_some() || gate.latency.is_some()
}

/// The counts of a measure (requests, bad ones), if they make sense.
pub(crate) fn counts(measure: &Measure, bounded: bool) -> Option<(f64, f64)> {
    let (Measure::Counted { n, k, seconds } | Measure::Partial { n, k, seconds, .. }) = *measure else { return None };
    let sound = [n, k, seconds].iter().all(|value| value.is_finite() && *value >= 0.0) && !(bounded && k > n);
    sound.then_some((n, k))
}

/// Judges a gate on what was read at this share of the traffic; no reading is no data.
#[must_use]
pub fn judge(gate: &Gate, reading: Option<&Reading>, share: f64) -> Judged {
    let missing = Measure::NoData("not measured yet".to_owned());
    let canary = reading.map_or(&missing, |reading| &reading.canary);
    let mut shown = GateStatus { gate: gate.name.clone(), limit: limit(gate), ..GateStatus::default() };
    let mut confounded = None;
    let verdict = match (canary, reading) {
        (Measure::Number { value, streak }, _) => number(gate, *value, *streak, &mut shown),
        (Measure::Counted { .. } | Measure::Partial { .. }, Some(reading)) => {
            let (verdict, why) = counted(gate, reading, share, &mut shown);
            confounded = why;
            verdict
        }
        (Measure::NoData(why), _) => nothing(&mut shown, why.clone()),
        (Measure::Error(why), _) => nothing(&mut shown, format!("error: {why}")),
        (_, None) => nothing(&mut shown, "not measured yet".to_owned()),
    };
    shown.verdict = verdict.as_str().to_owned();
    shown.rests_on.push_str(&in_warm_up(reading.map_or((0.0, 0.0), |reading| reading.left_out.canary)));
    Judged { verdict, confounded, shown }
}

/// What a gate says of the stable side, where that breaks the limit too.
#[must_use]
pub fn stable_in_breach(gate: &Gate, reading: &Reading) -> Option<String> {
    let evidence = reading.evidence?;
    let (n, k) = counts(&reading.stable, bounded(gate))?;
    let proof = proof_of(&evidence, evidence.stable, n, k);
    proof.is_breach().then(|| value(gate, n, k, seconds(&reading.stable), None))
}

/// The stable side as a reader sees it before the release: value and limit of a gate that counts.
#[must_use]
pub fn stable_shown(gate: &Gate, reading: &Reading) -> Option<GateStatus> {
    let mut shown = GateStatus { gate: gate.name.clone(), limit: limit(gate), ..GateStatus::default() };
    match &reading.stable {
        Measure::Counted { .. } | Measure::Partial { .. } => {
            let Some((n, k)) = counts(&reading.stable, bounded(gate)) else {
                nothing(&mut shown, "error: the numbers make no sense".to_owned());
                return Some(shown);
            };
            shown.value = value(gate, n, k, seconds(&reading.stable), None);
            shown.rests_on = rests_on(&reading.stable);
            shown.verdict = "Baseline".to_owned();
        }
        Measure::NoData(why) if gate.value.is_none() => {
            nothing(&mut shown, why.clone());
        }
        Measure::Error(why) => {
            nothing(&mut shown, format!("error: {why}"));
        }
        Measure::NoData(_) | Measure::Number { .. } => return None,
    }
    shown.rests_on.push_str(&in_warm_up(reading.left_out.stable));
    Some(shown)
}

/// What a reader sees of the counts that a warm-up leaves out.
fn in_warm_up((requests, bad): (f64, f64)) -> String {
    if requests <= 0.0 && bad <= 0.0 {
        return String::new();
    }
    format!("; {} of {} in warm-up not judged", trimmed(bad), trimmed(requests))
}

fn nothing(shown: &mut GateStatus, why: String) -> Verdict {
    "none".clone_into(&mut shown.value);
    shown.rests_on = why;
    shown.verdict = Verdict::NoData.as_str().to_owned();
    Verdict::NoData
}

fn number(gate: &Gate, value: f64, streak: u32, shown: &mut GateStatus) -> Verdict {
    let Some(rule) = gate.value.as_ref().filter(|_| value.is_finite()) else {
        return nothing(shown, "error: the numbers make no sense".to_owned());
    };
    shown.value = format!("{}{}", trimmed(value), rule.unit.as_deref().unwrap_or_default());
    shown.rests_on =
        if streak > 0 { format!("{streak} ticks in a row outside") } else { "the newest sample".to_owned() };
    if streak >= rule.consecutive.max(1) {
        Verdict::Breach
    } else if streak > 0 {
        Verdict::Inconclusive
    } else {
        Verdict::Pass
    }
}

fn counted(gate: &Gate, reading: &Reading, share: f64, shown: &mut GateStatus) -> (Verdict, Option<String>) {
    let Some((n, k)) = counts(&reading.canary, bounded(gate)) else {
        return (nothing(shown, "error: the numbers make no sense".to_owned()), None);
    };
    let Some(evidence) = reading.evidence else {
        let why =
            if gate.relative.is_some() { "nothing was captured to compare with" } else { "the limit can't be tested" };
        return (nothing(shown, why.to_owned()), None);
    };
    if n <= 0.0 {
        return (nothing(shown, "no requests".to_owned()), None);
    }
    let other = match &gate.relative {
        Some(rule) if rule.to == To::Baseline => reading.baseline.as_ref(),
        Some(_) => Some(reading.baseline_pods.as_ref().unwrap_or(&reading.stable)),
        None => Some(&reading.stable),
    };
    let alone = share >= 1.0 && total_scope(gate);
    if (gate.relative.is_some() || total_scope(gate))
        && !alone
        && other.and_then(|other| counts(other, false)).is_none()
    {
        return (nothing(shown, "nothing to compare with: the other side was not measured".to_owned()), None);
    }
    shown.value = value(gate, n, k, seconds(&reading.canary), other);
    shown.rests_on = rests_on(&reading.canary);
    shown.evidence = in_words(&evidence);
    shown.dispersion = dispersion(gate, &evidence);
    if bounded(gate)
        && let Ok(interval) = ShareCounts::new(n, k).and_then(|counts| interval::wilson(&counts, CONFIDENCE))
    {
        shown.interval = format!("{} to {}", percent(interval.low), percent(interval.high));
    }
    // What a comparison rests on is what was compared, not what was counted.
    let requests = match evidence.compared {
        Some((canary, stable)) if canary <= 0.0 || stable <= 0.0 => {
            return (nothing(shown, "nothing was compared yet".to_owned()), None);
        }
        Some((canary, _)) => n.min(canary),
        None => n,
    };
    let proof = proof_of(&evidence, evidence.canary, requests, all_events(gate, reading, k));
    let (mut verdict, proved) = match proof.verdict(f64::from(gate.min_requests)) {
        Said::Breach => (Verdict::Breach, false),
        Said::NoData => (Verdict::NoData, false),
        Said::Inconclusive => (Verdict::Inconclusive, false),
        Said::Pass { proved } => (Verdict::Pass, proved),
    };
    shown.proved = proved;
    // What was counted is real, but what is missing may be worse.
    if verdict == Verdict::Pass && matches!(reading.canary, Measure::Partial { .. }) {
        (verdict, shown.proved) = (Verdict::Inconclusive, false);
    }
    let confounded =
        (verdict == Verdict::Breach).then(|| both_sides(gate, reading, &evidence, &proof, share)).flatten();
    (verdict, confounded)
}

/// Why a breach of the canary says nothing of the candidate.
fn both_sides(gate: &Gate, reading: &Reading, evidence: &Evidence, proof: &Proof, share: f64) -> Option<String> {
    if share >= 1.0 {
        return None;
    }
    if let Some(candidate) = evidence.candidate {
        let confounded = whole_service(proof, candidate) == WholeService::Confounded;
        return confounded.then(|| {
            "the whole service is above the limit, and nothing shows that it is the candidate's doing".to_owned()
        });
    }
    stable_in_breach(gate, reading).map(|value| format!("stable has {value} at the same time: both sides are bad"))
}

fn proof_of(evidence: &Evidence, ln_e: f64, requests: f64, bad: f64) -> Proof {
    Proof {
        ln_e,
        alpha: evidence.alpha,
        bad,
        requests,
        above_limit: evidence.above,
        ln_e_proved: evidence.proved,
        alpha_proved: Alpha::RELEASE,
    }
}

fn total_scope(gate: &Gate) -> bool {
    gate.event_rate.as_ref().is_some_and(|rule| rule.scope == Scope::Total)
}

/// Events that a breach rests on.
fn all_events(gate: &Gate, reading: &Reading, canary: f64) -> f64 {
    if total_scope(gate) { canary + counts(&reading.stable, false).map_or(0.0, |(_, k)| k) } else { canary }
}

/// `E 12.4 of 600`: how much speaks for a breach, and what makes one.
fn in_words(evidence: &Evidence) -> String {
    let most = evidence.alpha.threshold();
    if evidence.canary >= evidence.alpha.ln_threshold() {
        return format!("E {most:.0} of {most:.0} reached");
    }
    format!("E {} of {most:.0}", trimmed(evidence.canary.exp()))
}

fn dispersion(gate: &Gate, evidence: &Evidence) -> String {
    if evidence.dispersion.guaranteed() {
        return String::new();
    }
    let from = if gate.dispersion.is_some() { "given" } else { "measured on stable" };
    let phi = trimmed(evidence.dispersion.get());
    format!("{phi}, {from}: the rate of false alarms is calibrated, not guaranteed")
}

/// The time that a measure was counted over.
pub(crate) fn seconds(measure: &Measure) -> f64 {
    match measure {
        Measure::Counted { seconds, .. } | Measure::Partial { seconds, .. } => *seconds,
        Measure::Number { .. } | Measure::NoData(_) | Measure::Error(_) => 0.0,
    }
}

fn rests_on(measure: &Measure) -> String {
    match measure {
        Measure::Counted { n, k, seconds } => format!("{} of {} in {}s", trimmed(*k), trimmed(*n), seconds.round()),
        Measure::Partial { n, k, seconds, why } => {
            format!("{} of {} in {}s; {why}", trimmed(*k), trimmed(*n), seconds.round())
        }
        Measure::Number { .. } => "the newest sample".to_owned(),
        Measure::NoData(why) => why.clone(),
        Measure::Error(why) => format!("error: {why}"),
    }
}

/// The measured value with its unit.
fn value(gate: &Gate, n: f64, k: f64, seconds: f64, other: Option<&Measure>) -> String {
    let other = other.and_then(|other| counts(other, false));
    if gate.event_rate.is_some() {
        let minutes = seconds / 60.0;
        let all = if total_scope(gate) { k + other.map_or(0.0, |(_, k)| k) } else { k };
        return if minutes > 0.0 { format!("{:.2}/min", all / minutes) } else { "no time has passed".to_owned() };
    }
    let per_thousand = |n: f64, k: f64| if n > 0.0 { trimmed(k / n * 1000.0) } else { "none".to_owned() };
    if gate.relative.is_some() {
        let against = other.map_or_else(|| "nothing".to_owned(), |(n, k)| per_thousand(n, k));
        return format!("{} against {against} per 1000 requests", per_thousand(n, k));
    }
    if n > 0.0 { percent(k / n) } else { "no requests".to_owned() }
}

/// One side's figure by itself, with its unit; `None` where nothing was counted.
pub(crate) fn of_one_side(gate: &Gate, n: f64, k: f64, seconds: f64) -> Option<String> {
    if gate.value.is_some() || (n <= 0.0 && (k <= 0.0 || gate.event_rate.is_none())) {
        return None;
    }
    if gate.relative.is_some() {
        return Some(format!("{} per 1000 requests", trimmed(k / n * 1000.0)));
    }
    (seconds > 0.0 || gate.event_rate.is_none()).then(|| value(gate, n, k, seconds, None))
}

/// A gate's limit as a reader wants it.
#[must_use]
pub fn limit(gate: &Gate) -> String {
    if let Some(rule) = &gate.error_rate {
        return format!("<= {}", rule.limit);
    }
    if let Some(rule) = &gate.latency {
        return format!("P{} < {}", trimmed(rule.quantile.fraction() * 100.0), rule.limit);
    }
    if let Some(rule) = &gate.event_rate {
        let scope = if rule.scope == Scope::Total { "in total" } else { "at the canary's share" };
        return format!("<= {}/min {scope}", trimmed(rule.limit.per_minute()));
    }
    if let Some(rule) = &gate.relative {
        let to = if rule.to == To::Baseline { "historical baseline" } else { "stable" };
        return format!("<= {to} +{}", percent(rule.margin.fraction()));
    }
    let Some(rule) = &gate.value else { return String::new() };
    let unit = rule.unit.as_deref().unwrap_or_default();
    let side = |sign: &str, bound: Option<f64>| bound.map(|bound| format!("{sign} {}{unit}", trimmed(bound)));
    [side(">=", rule.min), side("<=", rule.max)].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A share as per cent with two decimals at most.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{}%", trimmed(share * 100.0))
}

/// A number with two decimals at most.
#[must_use]
pub fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Accounts, Paired, Totals};
    use canary_api::{CanaryReleaseSpec, Counted, ReleaseStatus, Step};
    use proptest::prelude::*;
    use serde_json::json;

    fn gate(rule: serde_json::Value) -> Gate {
        let mut gate = json!({"name": "g", "minRequests": 50});
        gate.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        serde_json::from_value(gate).unwrap()
    }

    fn errors() -> Gate {
        gate(json!({"errorRate": {"bad": "b", "total": "t", "limit": "1%"}}))
    }

    /// A release of one stage of a tick, with this gate alone.
    fn spec(gate: &Gate) -> CanaryReleaseSpec {
        serde_json::from_value(json!({
            "target": {"name": "web"}, "interval": "60s",
            "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "r"}},
            "stages": [{"weight": "100%", "duration": "60s"}], "gates": [gate],
        }))
        .unwrap()
    }

    /// What one tick's totals come to.
    fn reading(gate: &Gate, canary: Measure, stable: Measure) -> Reading {
        let start = "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap();
        let current = ReleaseStatus {
            step: Step::Bake,
            weight: "5%".to_owned(),
            baseline: vec![Counted { gate: "g".to_owned(), n: 1000.0, k: 10.0, seconds: 60.0, ..Counted::default() }],
            ..ReleaseStatus::default()
        };
        let mut accounts = Accounts::new(&spec(gate), &current, start, None);
        let (of_canary, of_stable) = (counts(&canary, false), counts(&stable, false));
        let paired = of_canary.zip(of_stable).map(|(canary, stable)| Paired {
            canary_events: canary.1,
            stable_events: stable.1,
            canary_requests: canary.0,
            stable_requests: stable.0,
        });
        let totals = Totals { paired, ..Totals::new("g", canary, stable) };
        let later = start.checked_add(jiff::SignedDuration::from_secs(59)).unwrap();
        accounts.absorb(&spec(gate), Step::Bake, &[totals], None, later).remove(0)
    }

    fn counted(k: f64, n: f64) -> Measure {
        Measure::Counted { n, k, seconds: 60.0 }
    }

    fn verdict(gate: &Gate, canary: Measure) -> Verdict {
        judge(gate, Some(&reading(gate, canary, counted(0.0, 1000.0))), 0.05).verdict
    }

    #[test]
    fn missing_data_is_never_a_pass() {
        let gate = errors();
        assert_eq!(judge(&gate, None, 0.05).verdict, Verdict::NoData);
        for measure in [
            Measure::NoData("silent".into()),
            Measure::Error("NaN".into()),
            counted(0.0, 0.0),
            counted(f64::NAN, 100.0),
            counted(0.0, f64::INFINITY),
            counted(-1.0, 100.0),
            counted(101.0, 100.0),
        ] {
            assert_ne!(verdict(&gate, measure.clone()), Verdict::Pass, "{measure:?}");
            assert_ne!(verdict(&gate, measure.clone()), Verdict::Breach, "{measure:?}");
        }
    }

    #[test]
    fn a_share_of_errors_is_judged_by_count() {
        assert_eq!(verdict(&errors(), counted(0.0, 100.0)), Verdict::Pass);
        assert_eq!(verdict(&errors(), counted(0.0, 49.0)), Verdict::Inconclusive);
        assert_eq!(verdict(&errors(), counted(2.0, 2.0)), Verdict::Inconclusive);
        assert_eq!(verdict(&errors(), counted(3.0, 6.0)), Verdict::Breach);
        assert_eq!(verdict(&errors(), counted(2.0, 150.0)), Verdict::Inconclusive);
        let shown = judge(&errors(), Some(&reading(&errors(), counted(3.0, 6.0), counted(0.0, 1.0))), 0.05).shown;
        assert_eq!(
            (shown.value.as_str(), shown.limit.as_str(), shown.rests_on.as_str()),
            ("50%", "<= 1%", "3 of 6 in 60s")
        );
    }

    #[test]
    fn late_samples_may_show_a_breach_and_never_a_pass() {
        let partial = |k: f64, n: f64| Measure::Partial { n, k, seconds: 60.0, why: "pod a: 30s old".into() };
        assert_eq!(verdict(&errors(), partial(0.0, 1000.0)), Verdict::Inconclusive);
        assert_eq!(verdict(&errors(), partial(30.0, 100.0)), Verdict::Breach);
    }

    #[test]
    fn a_gauge_needs_its_ticks_in_a_row() {
        let gate = gate(json!({"value": {"query": "q", "max": 30.0, "unit": "s"}}));
        assert_eq!(verdict(&gate, Measure::Number { value: 12.0, streak: 0 }), Verdict::Pass);
        assert_eq!(verdict(&gate, Measure::Number { value: 31.0, streak: 1 }), Verdict::Inconclusive);
        assert_eq!(verdict(&gate, Measure::Number { value: 31.0, streak: 2 }), Verdict::Breach);
        assert_eq!(verdict(&gate, Measure::Number { value: f64::NAN, streak: 0 }), Verdict::NoData);
        let shown = |value, streak| {
            judge(&gate, Some(&reading(&gate, Measure::Number { value, streak }, counted(0.0, 1.0))), 0.05).shown
        };
        assert_eq!((shown(12.0, 0).value.as_str(), shown(12.0, 0).rests_on.as_str()), ("12s", "the newest sample"));
        assert_eq!(shown(31.0, 1).rests_on, "1 ticks in a row outside");
        let current = ReleaseStatus {
            counts: vec![Counted { gate: "g".to_owned(), streak: 1, ..Counted::default() }],
            ..ReleaseStatus::default()
        };
        let gone_on = Streaks::of(&current).push(&gate, 31.0);
        assert!(matches!(gone_on, Measure::Number { streak: 2, .. }), "what a status has is gone on from: {gone_on:?}");
        let mut streaks = Streaks::default();
        for (value, streak) in [(30.1, 1), (31.0, 2), (f64::NAN, 2), (30.0, 0), (30.1, 1)] {
            assert!(
                matches!(streaks.push(&gate, value), Measure::Number { streak: now, .. } if now == streak),
                "{value}"
            );
        }
    }

    #[test]
    fn what_was_captured_is_compared_with_whatever_stable_shows_now() {
        let gate = gate(json!({"relative": {"counter": "c", "margin": "10%", "to": "Baseline"}}));
        let of = |stable: Measure| judge(&gate, Some(&reading(&gate, counted(10.0, 1000.0), stable)), 0.05).shown;
        let beside = of(counted(500.0, 1000.0));
        assert_eq!(beside.value, of(Measure::NoData("silent".into())).value);
        assert!(beside.value.contains('1') && !beside.value.contains("500"), "{}", beside.value);
    }

    #[test]
    fn events_in_total_reject_only_what_the_candidate_did() {
        let gate = gate(json!({"eventRate": {"counter": "c", "limit": "0.5/min", "scope": "Total"}}));
        let of = |canary: f64, stable: f64| {
            judge(&gate, Some(&reading(&gate, counted(canary, 100.0), counted(stable, 1900.0))), 0.05)
        };
        assert_eq!(of(0.0, 0.0).verdict, Verdict::Pass);
        assert_eq!((of(30.0, 0.0).verdict, of(30.0, 0.0).confounded), (Verdict::Breach, None));
        let common = of(0.0, 30.0);
        assert!(common.verdict == Verdict::Breach && common.confounded.is_some());
    }

    #[test]
    fn events_in_total_need_both_sides_until_all_traffic_is_the_candidates() {
        let gate = gate(json!({"eventRate": {"counter": "c", "limit": "0.5/min", "scope": "Total"}}));
        let reading = reading(&gate, counted(0.0, 100.0), Measure::NoData("silent".into()));
        let at = |share: f64| judge(&gate, Some(&reading), share);
        assert_eq!(at(0.05).verdict, Verdict::NoData);
        assert!(at(0.05).shown.rests_on.contains("the other side was not measured"), "{}", at(0.05).shown.rests_on);
        assert!(!at(1.0).shown.rests_on.contains("the other side"), "{}", at(1.0).shown.rests_on);
    }

    #[test]
    fn one_sides_figure_is_that_sides_alone() {
        let one = |rule, n: f64, k: f64, seconds: f64| of_one_side(&gate(rule), n, k, seconds);
        let errors = || json!({"errorRate": {"bad": "b", "total": "t", "limit": "1%"}});
        assert_eq!(one(errors(), 200.0, 3.0, 0.0).as_deref(), Some("1.5%"));
        assert_eq!(one(errors(), 0.0, 3.0, 60.0), None);
        let relative = || json!({"relative": {"counter": "c", "margin": "10%"}});
        assert_eq!(one(relative(), 200.0, 3.0, 0.0).as_deref(), Some("15 per 1000 requests"));
        let events = || json!({"eventRate": {"counter": "c", "limit": "0.5/min"}});
        assert_eq!(one(events(), 0.0, 3.0, 120.0).as_deref(), Some("1.50/min"));
        assert_eq!(one(events(), 0.0, 0.0, 120.0), None);
        assert_eq!(one(events(), 10.0, 3.0, 0.0), None);
    }

    #[test]
    fn no_events_of_a_candidate_without_requests_are_no_pass() {
        let gate = gate(json!({"eventRate": {"counter": "c", "limit": "0.5/min"}}));
        assert_eq!(verdict(&gate, counted(0.0, 0.0)), Verdict::NoData);
        assert_eq!(verdict(&gate, counted(0.0, 49.0)), Verdict::Inconclusive);
        assert_eq!(verdict(&gate, counted(0.0, 50.0)), Verdict::Pass);
    }

    #[test]
    fn a_relative_gate_needs_two_sides() {
        let gate = gate(json!({"relative": {"counter": "c", "margin": "10%"}}));
        let of = |canary: Measure, stable: Measure| judge(&gate, Some(&reading(&gate, canary, stable)), 0.05).verdict;
        assert_eq!(of(counted(1.0, 100.0), counted(10.0, 1000.0)), Verdict::Pass);
        assert_eq!(of(counted(50.0, 100.0), counted(10.0, 1000.0)), Verdict::Breach);
        assert_eq!(of(counted(1.0, 100.0), Measure::NoData(String::new())), Verdict::NoData);
        assert!(!applies(&gate, 1.0) && applies(&gate, 0.5));
    }

    proptest! {
        #[test]
        fn no_numbers_make_a_gate_panic_or_pass_on_nonsense(k in proptest::num::f64::ANY, n in proptest::num::f64::ANY) {
            let verdict = verdict(&errors(), counted(k, n));
            if !(k.is_finite() && n.is_finite() && k >= 0.0 && n >= 50.0) {
                prop_assert_ne!(verdict, Verdict::Pass);
            }
        }

        #[test]
        fn more_errors_never_look_better(k in 0u32..200, n in 200u32..5000) {
            let rank = |verdict| match verdict { Verdict::Pass => 0, Verdict::NoData | Verdict::Inconclusive => 1, Verdict::Breach => 2 };
            let a = verdict(&errors(), counted(f64::from(k), f64::from(n)));
            let b = verdict(&errors(), counted(f64::from(k) + 1.0, f64::from(n)));
            prop_assert!(rank(b) >= rank(a));
        }
    }
}
