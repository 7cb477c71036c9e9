//! Figures of a gate over time, as a record keeps them: short, and readable as they stand. It says how they are written
//! and read; which moments are kept is the operator's to decide.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A gate's figures over a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GateSeries {
    /// Tick by tick around a rollback: the last ticks before its trigger, and what followed. While a release is under
    /// way, its newest ticks; of one that was not rolled back, none.
    #[serde(skip_serializing_if = "Points::is_empty")]
    pub around: Points,
    /// The gate.
    pub gate: String,
    /// Unit of value, interval, limits and stable figure, such as `%`, `/min` or ` per 1000 requests`.
    pub unit: String,
    /// The whole release, thinned: the first and the last moment of each stage are kept.
    #[serde(skip_serializing_if = "Points::is_empty")]
    pub whole: Points,
}

/// Moments in order of time. Each field holds one word for every moment, with a blank between two; `-` stands where there
/// is none, and a field is empty where no moment has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Points {
    /// Seconds since the release's `started`.
    pub at: String,
    /// Seconds between two moments, at least; 0 where nothing was thinned.
    #[serde(skip_serializing_if = "crate::record::is_nothing")]
    pub every: u32,
    /// Bad or counted events of the canary since the stage began.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub events: String,
    /// Upper end of the value's 95% interval.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub high: String,
    /// At least this was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub least: String,
    /// Lower end of the value's 95% interval.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub low: String,
    /// At most this was allowed, at the canary's share where the limit is for all traffic.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub most: String,
    /// Requests of the canary since the stage began.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub requests: String,
    /// The same figure of the stable side at the same time.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stable: String,
    /// Events of the stable side since the stage began, for gates on errors.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stable_events: String,
    /// Requests of the stable side since the stage began, for gates on errors.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stable_requests: String,
    /// The stage, from 1; 0 before the first.
    pub stage: String,
    /// The canary's value since the stage began; of a value gate the newest one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `P`ass, `B`reach, `I`nconclusive, `N`o data; `s` where stable alone was measured.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verdict: String,
}

/// One moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// Seconds since the release's `started`.
    pub at: u32,
    /// Bad or counted events of the canary since the stage began.
    pub events: Option<f64>,
    /// Where the value lies with 95% confidence.
    pub interval: Option<(f64, f64)>,
    /// At least this was asked for.
    pub least: Option<f64>,
    /// At most this was allowed.
    pub most: Option<f64>,
    /// Requests of the canary since the stage began.
    pub requests: Option<f64>,
    /// The stable side's figure.
    pub stable: Option<f64>,
    /// Events of the stable side since the stage began.
    pub stable_events: Option<f64>,
    /// Requests of the stable side since the stage began.
    pub stable_requests: Option<f64>,
    /// The stage, from 1; 0 before the first.
    pub stage: u32,
    /// The canary's value.
    pub value: Option<f64>,
    /// `P`, `B`, `I`, `N` or `s`.
    pub verdict: Option<char>,
}

impl Points {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The moments. What can't be read is none: a moment without a time is left out.
    #[must_use]
    pub fn read(&self) -> Vec<Point> {
        let (mut low, mut high) = (numbers(&self.low), numbers(&self.high));
        let (mut least, mut most) = (numbers(&self.least), numbers(&self.most));
        let (mut requests, mut events) = (numbers(&self.requests), numbers(&self.events));
        let (mut stable, mut value) = (numbers(&self.stable), numbers(&self.value));
        let (mut stable_requests, mut stable_events) = (numbers(&self.stable_requests), numbers(&self.stable_events));
        let (mut stage, mut verdict) = (self.stage.split_whitespace(), self.verdict.split_whitespace());
        let read = self.at.split_whitespace().map(|at| {
            let interval = (low.next().flatten(), high.next().flatten());
            let point = Point {
                at: 0,
                events: events.next().flatten(),
                interval: interval.0.zip(interval.1),
                least: least.next().flatten(),
                most: most.next().flatten(),
                requests: requests.next().flatten(),
                stable: stable.next().flatten(),
                stable_events: stable_events.next().flatten(),
                stable_requests: stable_requests.next().flatten(),
                stage: stage.next().and_then(|word| word.parse().ok()).unwrap_or(0),
                value: value.next().flatten(),
                verdict: verdict.next().and_then(|word| word.chars().next()).filter(|sign| "PBINs".contains(*sign)),
            };
            Some(Point { at: at.parse().ok()?, ..point })
        });
        read.flatten().collect()
    }

    /// Writes moments down, with `every` as it is to stand.
    #[must_use]
    pub fn written(points: &[Point], every: u32) -> Self {
        let column = |of: fn(&Point) -> Option<f64>| words(points.iter().map(|point| of(point).map(short)));
        Self {
            at: all(points.iter().map(|point| point.at.to_string())),
            every,
            events: column(|point| point.events),
            high: column(|point| point.interval.map(|(_, high)| high)),
            least: column(|point| point.least),
            low: column(|point| point.interval.map(|(low, _)| low)),
            most: column(|point| point.most),
            requests: column(|point| point.requests),
            stable: column(|point| point.stable),
            stable_events: column(|point| point.stable_events),
            stable_requests: column(|point| point.stable_requests),
            stage: all(points.iter().map(|point| point.stage.to_string())),
            value: column(|point| point.value),
            verdict: words(points.iter().map(|point| point.verdict.map(String::from))),
        }
    }
}

fn numbers(column: &str) -> impl Iterator<Item = Option<f64>> {
    column.split_whitespace().map(|word| word.parse::<f64>().ok().filter(|number| number.is_finite()))
}

fn all(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

/// Nothing, where every word is missing.
fn words(words: impl Iterator<Item = Option<String>>) -> String {
    let words: Vec<Option<String>> = words.collect();
    if words.iter().all(Option::is_none) {
        return String::new();
    }
    all(words.into_iter().map(|word| word.unwrap_or_else(|| "-".to_owned())))
}

/// Four digits that count are enough to draw a figure; counts are whole.
fn short(number: f64) -> String {
    if !number.is_finite() {
        return "-".to_owned();
    }
    if number.abs() >= 1000.0 {
        return format!("{}", number.round());
    }
    let text = format!("{number:.3}");
    let text = if number != 0.0 && number.abs() < 0.1 { format!("{number:.5}") } else { text };
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_can_be_read_and_what_is_missing_stays_missing() {
        let first = Point { at: 3, stage: 0, stable: Some(0.25), verdict: Some('s'), ..Point::default() };
        let second = Point {
            at: 60,
            events: Some(2.0),
            interval: Some((0.0241, 0.7252)),
            least: None,
            most: Some(1.0),
            requests: Some(1000.0),
            stable: None,
            stable_events: Some(12.0),
            stable_requests: Some(123_456.0),
            stage: 2,
            value: Some(0.2),
            verdict: Some('P'),
        };
        let points = Points::written(&[first.clone(), second.clone()], 4);
        assert_eq!((points.at.as_str(), points.value.as_str(), points.low.as_str()), ("3 60", "- 0.2", "- 0.0241"));
        assert_eq!((points.least.as_str(), points.verdict.as_str()), ("", "s P"));
        assert_eq!(points.read(), [first, Point { interval: Some((0.0241, 0.725)), ..second }]);
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic_or_yields_a_number_that_is_none(text in ".{0,40}", at in "[0-9 x]{0,20}") {
            let points = Points { at, value: text.clone(), low: text.clone(), high: text.clone(), verdict: text.clone(),
                stage: text, ..Points::default() };
            for point in points.read() {
                prop_assert!(point.value.is_none_or(f64::is_finite));
            }
        }

        #[test]
        fn numbers_come_back_within_four_digits(value in -1e6..1e6f64) {
            let points = Points::written(&[Point { value: Some(value), ..Point::default() }], 0);
            let back = points.read()[0].value.unwrap();
            prop_assert!((back - value).abs() <= 0.001 * value.abs().max(0.005), "{value} {back}");
        }
    }
}
