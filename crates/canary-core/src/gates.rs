//! Judging gates: from counts to a verdict. A gate that has no fresh, finite, sufficient data never
//! passes. The kernels here are plain limits behind [`Kernel`], with three standard errors of margin,
//! so that a handful of bad answers is not taken for a bad version.

use canary_api::{Gate, GateStatus, Scope, To};

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
    /// The stable side before the release, for gates relative to the Baseline.
    pub baseline: Option<Measure>,
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
    /// What a reader sees.
    pub shown: GateStatus,
}

/// What a kernel judges: one window of one gate.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// The canary side (or, under test, the side that is asked about).
    pub canary: &'a Measure,
    /// The side it is compared with, for relative gates.
    pub other: &'a Measure,
    /// The canary's share of the traffic, 0 to 1.
    pub share: f64,
    /// Requests below which there is no verdict.
    pub min_requests: f64,
}

/// A rule's arithmetic.
pub trait Kernel {
    /// The measured value and the verdict on a window that has data.
    fn judge(&self, window: &Window<'_>) -> (String, Verdict);
    /// The limit as a reader wants it.
    fn limit(&self) -> String;
}

/// Standard errors by which an estimate must exceed its limit to be a breach.
const MARGIN: f64 = 3.0;
/// Bad events below which nothing is a breach.
const LEAST_BAD: f64 = 3.0;

/// A share of bad events that must not exceed a limit.
struct Share {
    limit: f64,
    text: String,
}

impl Kernel for Share {
    fn judge(&self, window: &Window<'_>) -> (String, Verdict) {
        let Measure::Counted { n, k, .. } = *window.canary else { return (String::new(), Verdict::NoData) };
        if n <= 0.0 {
            return ("no requests".to_owned(), Verdict::NoData);
        }
        let share = k / n;
        // Wilson's interval: it stays sensible for few events and for shares near 0 and 1.
        let z2 = MARGIN * MARGIN;
        let centre = share + z2 / (2.0 * n);
        let spread = MARGIN * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).max(0.0).sqrt();
        let least = (centre - spread) / (1.0 + z2 / n);
        let verdict = if k >= LEAST_BAD && least > self.limit {
            Verdict::Breach
        } else if n < window.min_requests || share > self.limit {
            Verdict::Inconclusive
        } else {
            Verdict::Pass
        };
        (percent(share), verdict)
    }

    fn limit(&self) -> String {
        self.text.clone()
    }
}

/// Events per minute that must not exceed a limit.
struct EventsPerMinute {
    limit: f64,
    scope: Scope,
}

impl Kernel for EventsPerMinute {
    fn judge(&self, window: &Window<'_>) -> (String, Verdict) {
        let Measure::Counted { n, k, seconds } = *window.canary else { return (String::new(), Verdict::NoData) };
        let other = match (self.scope, window.other) {
            (Scope::Canary, _) => 0.0,
            (Scope::Total, Measure::Counted { k, .. }) => *k,
            (Scope::Total, _) => return ("the stable side was not measured".to_owned(), Verdict::NoData),
        };
        let minutes = seconds / 60.0;
        if minutes <= 0.0 {
            return ("no time has passed".to_owned(), Verdict::NoData);
        }
        let scale = if self.scope == Scope::Canary { window.share } else { 1.0 };
        let all = k + other;
        let expected = self.limit * minutes * scale;
        // The whole service may be above its limit without the candidate's doing: then its share of the events is no larger than of the requests.
        let candidates_doing = self.scope == Scope::Canary || k > all * window.share;
        let verdict = if all >= LEAST_BAD && all - MARGIN * all.sqrt() > expected {
            if candidates_doing { Verdict::Breach } else { Verdict::Inconclusive }
        } else if n < window.min_requests {
            // No events of a candidate that got no requests say nothing.
            Verdict::Inconclusive
        } else {
            Verdict::Pass
        };
        (format!("{:.2}/min", all / minutes), verdict)
    }

    fn limit(&self) -> String {
        let scope = if self.scope == Scope::Total { "in total" } else { "at the canary's share" };
        format!("<= {}/min {scope}", trimmed(self.limit))
    }
}

/// Events per request on the canary against another side.
struct Compared {
    margin: f64,
    to: To,
}

impl Kernel for Compared {
    fn judge(&self, window: &Window<'_>) -> (String, Verdict) {
        let Measure::Counted { n, k, .. } = *window.canary else { return (String::new(), Verdict::NoData) };
        let Measure::Counted { n: other_n, k: other_k, .. } = *window.other else {
            return ("nothing to compare with".to_owned(), Verdict::NoData);
        };
        if n <= 0.0 || other_n <= 0.0 {
            return ("no requests".to_owned(), Verdict::NoData);
        }
        let factor = 1.0 + self.margin;
        let (rate, other) = (k / n, other_k / other_n);
        // Standard error of the difference of two Poisson rates.
        let spread = MARGIN * (k / (n * n) + factor * factor * other_k / (other_n * other_n)).sqrt();
        let verdict = if k >= LEAST_BAD && rate - factor * other > spread {
            Verdict::Breach
        } else if n < window.min_requests || rate > factor * other + spread {
            Verdict::Inconclusive
        } else {
            Verdict::Pass
        };
        (format!("{} against {} per 1000 requests", trimmed(rate * 1000.0), trimmed(other * 1000.0)), verdict)
    }

    fn limit(&self) -> String {
        let to = if self.to == To::Baseline { "baseline" } else { "stable" };
        format!("<= {to} +{}", percent(self.margin))
    }
}

/// A number that must stay within limits.
struct Number {
    min: Option<f64>,
    max: Option<f64>,
    unit: String,
    consecutive: u32,
}

impl Kernel for Number {
    fn judge(&self, window: &Window<'_>) -> (String, Verdict) {
        let Measure::Number { value, streak } = *window.canary else { return (String::new(), Verdict::NoData) };
        let verdict = if streak >= self.consecutive {
            Verdict::Breach
        } else if streak > 0 {
            Verdict::Inconclusive
        } else {
            Verdict::Pass
        };
        (format!("{}{}", trimmed(value), self.unit), verdict)
    }

    fn limit(&self) -> String {
        let side =
            |sign: &str, bound: Option<f64>| bound.map(|bound| format!("{sign} {}{}", trimmed(bound), self.unit));
        [side(">=", self.min), side("<=", self.max)].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Whether a number is outside a value gate's limits.
#[must_use]
pub fn outside(gate: &canary_api::spec::Value, value: f64) -> bool {
    gate.max.is_some_and(|max| value > max) || gate.min.is_some_and(|min| value < min)
}

fn kernel(gate: &Gate) -> Option<Box<dyn Kernel>> {
    if let Some(rule) = &gate.error_rate {
        return Some(Box::new(Share { limit: rule.limit.fraction(), text: format!("<= {}", rule.limit) }));
    }
    if let Some(rule) = &gate.latency {
        let text = format!("P{} < {}", trimmed(rule.quantile.fraction() * 100.0), rule.limit);
        return Some(Box::new(Share { limit: 1.0 - rule.quantile.fraction(), text }));
    }
    if let Some(rule) = &gate.event_rate {
        return Some(Box::new(EventsPerMinute { limit: rule.limit.per_minute(), scope: rule.scope }));
    }
    if let Some(rule) = &gate.relative {
        return Some(Box::new(Compared { margin: rule.margin.fraction(), to: rule.to }));
    }
    let rule = gate.value.as_ref()?;
    let unit = rule.unit.clone().unwrap_or_default();
    Some(Box::new(Number { min: rule.min, max: rule.max, unit, consecutive: rule.consecutive.max(1) }))
}

/// Whether a gate has something to compare with at this share: the stable side has no traffic at 100 %.
#[must_use]
pub fn applies(gate: &Gate, share: f64) -> bool {
    !gate.relative.as_ref().is_some_and(|rule| rule.to == To::Stable && share >= 1.0)
}

/// Judges a gate on what was read; no reading is no data.
#[must_use]
pub fn judge(gate: &Gate, reading: Option<&Reading>, share: f64) -> Judged {
    let missing = Measure::NoData("not measured yet".to_owned());
    let canary = reading.map_or(&missing, |reading| &reading.canary);
    let to_baseline = gate.relative.as_ref().is_some_and(|rule| rule.to == To::Baseline);
    let other = match reading {
        Some(reading) if to_baseline => reading.baseline.as_ref().unwrap_or(&missing),
        Some(reading) => &reading.stable,
        None => &missing,
    };
    let window = Window { canary, other, share, min_requests: f64::from(gate.min_requests) };
    judge_window(gate, &window)
}

/// Judges the stable side alone, as at baseline: counts against absolute limits.
#[must_use]
pub fn judge_stable(gate: &Gate, reading: Option<&Reading>) -> Option<Judged> {
    let reading = reading?;
    if gate.relative.is_some() || gate.value.is_some() {
        return None;
    }
    let nothing = Measure::Counted { n: 0.0, k: 0.0, seconds: 0.0 };
    Some(judge_window(gate, &Window { canary: &reading.stable, other: &nothing, share: 1.0, min_requests: 0.0 }))
}

fn judge_window(gate: &Gate, window: &Window<'_>) -> Judged {
    let Some(kernel) = kernel(gate) else {
        return Judged {
            verdict: Verdict::NoData,
            shown: GateStatus { gate: gate.name.clone(), ..GateStatus::default() },
        };
    };
    let (value, verdict, rests_on) = match window.canary {
        Measure::NoData(why) => ("none".to_owned(), Verdict::NoData, why.clone()),
        Measure::Error(why) => ("none".to_owned(), Verdict::NoData, format!("error: {why}")),
        Measure::Counted { n, k, seconds }
            if finite(&[*n, *k, *seconds]) && *k >= 0.0 && *n >= 0.0 && !(bounded(gate) && k > n) =>
        {
            let (value, verdict) = kernel.judge(window);
            (value, verdict, format!("{} of {} in {}s", trimmed(*k), trimmed(*n), seconds.round()))
        }
        Measure::Number { value: number, streak } if number.is_finite() => {
            let (value, verdict) = kernel.judge(window);
            (
                value,
                verdict,
                if *streak > 0 { format!("{streak} ticks in a row outside") } else { "the newest sample".to_owned() },
            )
        }
        Measure::Partial { n, k, seconds, why } => {
            let whole = Measure::Counted { n: *n, k: *k, seconds: *seconds };
            let judged = judge_window(gate, &Window { canary: &whole, ..*window });
            // What was counted is real, but what is missing may be worse.
            let verdict = if judged.verdict == Verdict::Pass { Verdict::Inconclusive } else { judged.verdict };
            (judged.shown.value, verdict, format!("{}; {why}", judged.shown.rests_on))
        }
        Measure::Counted { .. } | Measure::Number { .. } => {
            ("none".to_owned(), Verdict::NoData, "error: the numbers make no sense".to_owned())
        }
    };
    let shown = GateStatus {
        gate: gate.name.clone(),
        limit: kernel.limit(),
        rests_on,
        value,
        verdict: verdict.as_str().to_owned(),
    };
    Judged { verdict, shown }
}

/// Whether the gate's events are a part of all events.
fn bounded(gate: &Gate) -> bool {
    gate.error_rate.is_some() || gate.latency.is_some()
}

fn finite(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite())
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
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn reading(canary: Measure, stable: Measure) -> Reading {
        Reading { gate: "g".to_owned(), canary, stable, baseline: None }
    }

    fn counted(k: f64, n: f64) -> Measure {
        Measure::Counted { n, k, seconds: 60.0 }
    }

    fn verdict(gate: &Gate, canary: Measure) -> Verdict {
        judge(gate, Some(&reading(canary, counted(0.0, 1000.0))), 0.05).verdict
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
        let shown = judge(&errors(), Some(&reading(counted(3.0, 6.0), counted(0.0, 1.0))), 0.05).shown;
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
        assert!(outside(gate.value.as_ref().unwrap(), 30.1) && !outside(gate.value.as_ref().unwrap(), 30.0));
    }

    #[test]
    fn events_in_total_reject_only_what_the_candidate_did() {
        let gate = gate(json!({"eventRate": {"counter": "c", "limit": "0.5/min", "scope": "Total"}}));
        let of = |canary: f64, stable: f64| {
            judge(&gate, Some(&reading(counted(canary, 100.0), counted(stable, 1900.0))), 0.05).verdict
        };
        assert_eq!(of(0.0, 0.0), Verdict::Pass);
        assert_eq!(of(30.0, 0.0), Verdict::Breach);
        assert_eq!(of(0.0, 30.0), Verdict::Inconclusive);
    }

    #[test]
    fn no_events_of_a_candidate_without_requests_are_no_pass() {
        let gate = gate(json!({"eventRate": {"counter": "c", "limit": "0.5/min"}}));
        assert_eq!(verdict(&gate, counted(0.0, 0.0)), Verdict::Inconclusive);
        assert_eq!(verdict(&gate, counted(0.0, 50.0)), Verdict::Pass);
    }

    #[test]
    fn a_relative_gate_needs_two_sides() {
        let gate = gate(json!({"relative": {"counter": "c", "margin": "10%"}}));
        let of = |canary: Measure, stable: Measure| judge(&gate, Some(&reading(canary, stable)), 0.05).verdict;
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
