//! A gate's figures as numbers, read from the words of the record, so that they can be drawn against their limit. What
//! can't be read is not drawn; no number is made up.

use canary_api::GateRecord;

/// How a limit ends that is for all of the traffic, where the value is the canary's part alone.
const AT_SHARE: &str = " at the canary's share";

/// A gate's value beside its limits, all in one unit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub value: f64,
    /// The unit, such as `%`, `/min` or ` per 1000 requests`.
    pub unit: String,
    /// Where the share lies with 95 % confidence.
    pub interval: Option<(f64, f64)>,
    /// At most this is allowed.
    pub most: Option<f64>,
    /// At least this is asked for.
    pub least: Option<f64>,
    /// The stable side at the same time.
    pub stable: Option<f64>,
}

/// The figures of a gate at one moment; none where its value or its limit is no number. `share` is the canary's part of the
/// traffic, 0 to 1: some limits hold for all of the traffic, and for the canary's part a part of them.
#[must_use]
pub fn figure(gate: &GateRecord, share: f64) -> Option<Figure> {
    let (value, rest) = number(&gate.value)?;
    let interval = gate.interval.split_once(" to ").and_then(|(low, high)| Some((number(low)?.0, number(high)?.0)));
    // `4.1 against 3.9 per 1000 requests`: the other side is a part of the value.
    if let Some(against) = rest.strip_prefix(" against ") {
        let (other, unit) = number(against)?;
        let margin =
            gate.limit.rsplit_once('+').and_then(|(_, margin)| number(margin)).filter(|(_, unit)| *unit == "%")?.0;
        return Some(Figure {
            value,
            unit: unit.to_owned(),
            interval,
            most: Some(other * (1.0 + margin / 100.0)),
            least: None,
            stable: Some(other),
        });
    }
    let (least, mut most) = limits(&gate.limit, rest)?;
    if gate.limit.ends_with(AT_SHARE) {
        most = most.map(|most| most * share.clamp(0.0, 1.0));
    }
    let stable = number(&gate.stable).filter(|(_, unit)| *unit == rest).map(|(stable, _)| stable);
    Some(Figure { value, unit: rest.to_owned(), interval, most, least, stable })
}

/// Least and most that a limit allows, where it is in this unit.
fn limits(limit: &str, unit: &str) -> Option<(Option<f64>, Option<f64>)> {
    if let Some((quantile, _)) = limit.strip_prefix('P').and_then(|rest| rest.split_once(" < ")) {
        // P95 below a time: at most 5 % are slower.
        let quantile: f64 = quantile.parse().ok().filter(|quantile| unit == "%" && (0.0..=100.0).contains(quantile))?;
        return Some((None, Some(100.0 - quantile)));
    }
    // A limit may say more after its unit, such as `/min in total`.
    let bound =
        |text: &str| number(text).filter(|(_, rest)| rest.split(' ').next() == Some(unit)).map(|(bound, _)| bound);
    let (mut least, mut most) = (None, None);
    for part in limit.split(", ") {
        if let Some(text) = part.strip_prefix("<= ") {
            most = Some(bound(text)?);
        } else if let Some(text) = part.strip_prefix(">= ") {
            least = Some(bound(text)?);
        }
    }
    (least.is_some() || most.is_some()).then_some((least, most))
}

/// The number that a text begins with, and the rest.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|sign: char| !(sign.is_ascii_digit() || matches!(sign, '.' | '-'))).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    let value: f64 = digits.parse().ok()?;
    value.is_finite().then_some((value, rest))
}

/// A share such as `25%`, as a number from 0 to 100.
#[must_use]
pub fn per_cent(text: &str) -> Option<f64> {
    number(text).filter(|(value, rest)| *rest == "%" && (0.0..=100.0).contains(value)).map(|(value, _)| value)
}

/// What a gate measured, in words that a reader without the gate's spec understands.
#[must_use]
pub fn said(gate: &GateRecord) -> String {
    let slower = gate.limit.strip_prefix('P').and_then(|rest| rest.split_once(" < ")).map(|(_, time)| time);
    match slower {
        Some(time) if per_cent(&gate.value).is_some() => format!("{} slower than {time}", gate.value),
        _ if gate.value.is_empty() || gate.value == "none" => "no value".to_owned(),
        _ => gate.value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canary_api::Gate;
    use proptest::prelude::*;
    use serde_json::json;

    fn record(value: &str, limit: &str) -> GateRecord {
        GateRecord { value: value.to_owned(), limit: limit.to_owned(), ..GateRecord::default() }
    }

    /// The limit as the operator words it.
    fn limit(rule: serde_json::Value) -> String {
        let mut gate = json!({"name": "g"});
        gate.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        canary_core::gates::limit(&serde_json::from_value::<Gate>(gate).unwrap())
    }

    #[test]
    fn every_kind_of_gate_is_read_in_the_operators_own_words() {
        let errors = GateRecord {
            interval: "0.02% to 0.4%".to_owned(),
            stable: "0.1%".to_owned(),
            ..record("0.12%", &limit(json!({"errorRate": {"bad": "b", "total": "t", "limit": "1%"}})))
        };
        let read = figure(&errors, 0.05).unwrap();
        assert_eq!(
            (read.value, read.most, read.interval, read.stable),
            (0.12, Some(1.0), Some((0.02, 0.4)), Some(0.1))
        );
        let latency = limit(json!({"latency": {"histogram": "h", "quantile": "95%", "limit": "200ms"}}));
        assert_eq!(figure(&record("1%", &latency), 0.05).unwrap().most, Some(5.0));
        assert_eq!(said(&record("1%", &latency)), "1% slower than 200ms");
        let rate = limit(json!({"eventRate": {"counter": "c", "limit": "0.5/min", "scope": "Total"}}));
        let read = figure(&record("0.33/min", &rate), 0.05).unwrap();
        assert_eq!((read.value, read.most, read.unit.as_str()), (0.33, Some(0.5), "/min"));
        let rate = limit(json!({"eventRate": {"counter": "c", "limit": "0.5/min"}}));
        let at = |share: f64| figure(&record("0.02/min", &rate), share).unwrap().most.unwrap();
        assert!((at(0.05) - 0.025).abs() < 1e-9 && (at(1.0) - 0.5).abs() < 1e-9);
        let value = limit(json!({"value": {"query": "q", "max": 30.0, "min": 2.0, "unit": "s"}}));
        let read = figure(&record("12s", &value), 0.05).unwrap();
        assert_eq!((read.least, read.most, read.unit.as_str()), (Some(2.0), Some(30.0), "s"));
        for rule in [
            json!({"relative": {"counter": "c", "margin": "10%"}}),
            json!({"relative": {"counter": "c", "margin": "10%", "to": "Baseline"}}),
        ] {
            let read = figure(&record("4.1 against 4 per 1000 requests", &limit(rule)), 0.05).unwrap();
            assert!((read.most.unwrap() - 4.4).abs() < 1e-9 && read.stable == Some(4.0));
            assert_eq!(read.unit, " per 1000 requests");
        }
    }

    #[test]
    fn what_is_no_number_is_not_drawn() {
        for (value, limit) in [
            ("none", "<= 1%"),
            ("", ""),
            ("1%", ""),
            ("4 against nothing per 1000 requests", "<= stable +10%"),
            ("4 against none per 1000 requests", "<= stable +10%"),
            ("1e999", "<= 1"),
            ("12ms", "<= 30s"),
            ("4s", "P95 < 200ms"),
            ("-", "<= 1"),
            ("1%", "P < 2ms"),
        ] {
            assert_eq!(figure(&record(value, limit), 0.05), None, "{value} {limit}");
        }
        assert_eq!(said(&record("none", "<= 1%")), "no value");
    }

    proptest! {
        #[test]
        fn no_words_make_it_panic(value in ".{0,30}", limit in ".{0,30}", interval in ".{0,20}") {
            let gate = GateRecord { interval, ..record(&value, &limit) };
            prop_assert!(figure(&gate, 0.5).is_none_or(|figure| figure.value.is_finite()));
            prop_assert!(!said(&gate).is_empty() || value.is_empty());
        }
    }
}
