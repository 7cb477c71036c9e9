//! A gate's figures over time, as the record's series hold them: as rows in words, and as shares of bad answers among
//! all answers of the service between two moments. What the series does not say is not said.

use std::fmt::Write as _;

use canary_api::{GateSeries, Point, ReleaseRecordStatus};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::facts::clock;
use crate::harmless::line;

/// A moment in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MomentRow {
    /// When.
    pub at: String,
    /// `stage 2`; or before the first one.
    pub stage: String,
    /// The canary's value, with its unit.
    pub value: Option<String>,
    /// Where it lies with 95 % confidence.
    pub interval: Option<String>,
    /// What was allowed.
    pub limit: Option<String>,
    /// Requests of the canary since the stage began.
    pub requests: Option<String>,
    /// Bad ones among them.
    pub events: Option<String>,
    /// Stable at the same time.
    pub stable: Option<String>,
    /// The verdict.
    pub verdict: &'static str,
}

/// Bad answers among all answers of the service, both versions together, from one moment to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Seconds since the release began.
    pub from: u32,
    /// Seconds since the release began.
    pub to: u32,
    /// Bad answers.
    pub bad: f64,
    /// All answers; more than none.
    pub all: f64,
}

/// When a moment was; none where the release's beginning is unknown.
#[must_use]
pub fn moment(status: &ReleaseRecordStatus, at: u32) -> Option<Timestamp> {
    status.started.as_ref()?.0.checked_add(SignedDuration::from_secs(i64::from(at))).ok()
}

/// Moments in words.
#[must_use]
pub fn rows(status: &ReleaseRecordStatus, series: &GateSeries, points: &[Point]) -> Vec<MomentRow> {
    let unit = line_of(&series.unit);
    let told = |number: f64| format!("{}{unit}", number_text(number));
    let count = |number: f64| number_text(number.round());
    points
        .iter()
        .map(|point| MomentRow {
            at: moment(status, point.at).map_or_else(|| format!("{}s after the beginning", point.at), clock),
            stage: if point.stage == 0 { "before".to_owned() } else { format!("stage {}", point.stage) },
            value: point.value.map(told),
            interval: point.interval.map(|(low, high)| format!("{} to {}", told(low), told(high))),
            limit: match (point.least, point.most) {
                (Some(least), Some(most)) => Some(format!(">= {}, <= {}", told(least), told(most))),
                (Some(least), None) => Some(format!(">= {}", told(least))),
                (None, most) => most.map(|most| format!("<= {}", told(most))),
            },
            requests: point.requests.map(count),
            events: point.events.map(count),
            stable: point.stable.map(told),
            verdict: verdict(point.verdict),
        })
        .collect()
}

/// A unit keeps the blank that it begins with.
fn line_of(unit: &str) -> String {
    let text = line(unit);
    if unit.starts_with(' ') && !text.is_empty() { format!(" {}", text.trim_start()) } else { text }
}

fn number_text(number: f64) -> String {
    let number = (number * 1000.0).round() / 1000.0;
    format!("{number}")
}

fn verdict(sign: Option<char>) -> &'static str {
    match sign {
        Some('P') => "Pass",
        Some('B') => "Breach",
        Some('I') => "Inconclusive",
        Some('N') => "No data",
        Some('s') => "stable alone",
        _ => "no verdict",
    }
}

/// Rows as a table of plain text; none without a row.
#[must_use]
pub fn table(rows: &[MomentRow]) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let heads = ["Time", "Stage", "Value", "95% interval", "Limit", "Requests", "Events", "Stable", "Verdict"];
    let cells = |row: &MomentRow| {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let texts = [&row.value, &row.interval, &row.limit, &row.requests, &row.events, &row.stable];
        let mut all = vec![row.at.clone(), row.stage.clone()];
        all.extend(texts.into_iter().map(or));
        all.push(row.verdict.to_owned());
        all
    };
    let all: Vec<Vec<String>> =
        std::iter::once(heads.map(str::to_owned).to_vec()).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| {
        all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let mut written = String::new();
        for (cell, wide) in row.iter().zip(&widths) {
            let _ = write!(written, "{cell:<wide$}  ");
        }
        let _ = writeln!(text, "{}", written.trim_end());
    }
    Some(text)
}

/// Bad answers among all, span by span. Counts begin anew with each stage, and where stable alone is counted.
#[must_use]
pub fn spans(points: &[Point]) -> Vec<Span> {
    let counts = |point: &Point| {
        let of = |one: Option<f64>, other: Option<f64>| {
            (one.is_some() || other.is_some()).then(|| one.unwrap_or(0.0) + other.unwrap_or(0.0))
        };
        of(point.requests, point.stable_requests).zip(of(point.events, point.stable_events))
    };
    let mut spans = Vec::new();
    let mut before: Option<(&Point, (f64, f64))> = None;
    for point in points {
        let Some(now) = counts(point) else { continue };
        let same =
            |known: &Point| known.stage == point.stage && (known.verdict == Some('s')) == (point.verdict == Some('s'));
        let base = before.filter(|(known, (all, bad))| same(known) && *all <= now.0 && *bad <= now.1);
        let from = before.map_or(point.at, |(known, _)| known.at);
        let (all, bad) = base.map_or(now, |(_, (all, bad))| (now.0 - all, now.1 - bad));
        if all > 0.0 && (0.0..=all).contains(&bad) && from < point.at {
            spans.push(Span { from, to: point.at, bad, all });
        }
        before = Some((point, now));
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use canary_api::Points;

    fn at(at: u32, stage: u32, all: (f64, f64), bad: (f64, f64)) -> Point {
        Point {
            at,
            stage,
            requests: Some(all.0),
            stable_requests: Some(all.1),
            events: Some(bad.0),
            stable_events: Some(bad.1),
            verdict: Some('P'),
            ..Point::default()
        }
    }

    #[test]
    fn bad_answers_are_told_among_all_of_the_service_and_each_once() {
        let points = [
            at(10, 1, (10.0, 90.0), (1.0, 0.0)),
            at(20, 1, (20.0, 180.0), (6.0, 1.0)),
            at(30, 2, (50.0, 50.0), (5.0, 0.0)),
            Point {
                stable: Some(0.0),
                stable_requests: Some(100.0),
                stable_events: Some(0.0),
                at: 40,
                stage: 2,
                verdict: Some('s'),
                ..Point::default()
            },
        ];
        let told: Vec<(u32, u32, f64, f64)> =
            spans(&points).into_iter().map(|span| (span.from, span.to, span.bad, span.all)).collect();
        assert_eq!(told, [(10, 20, 6.0, 100.0), (20, 30, 5.0, 100.0), (30, 40, 0.0, 100.0)]);
        assert_eq!(spans(&[]), []);
    }

    #[test]
    fn a_table_says_what_is_there_and_marks_what_is_not() {
        let series = GateSeries { gate: "errors".to_owned(), unit: "%".to_owned(), ..GateSeries::default() };
        let status = ReleaseRecordStatus {
            started: serde_json::from_str("\"2026-01-01T10:00:00Z\"").unwrap(),
            ..ReleaseRecordStatus::default()
        };
        let point = Point {
            value: Some(6.4),
            interval: Some((5.2, 7.87)),
            most: Some(1.0),
            verdict: Some('B'),
            ..at(62, 2, (1297.0, 0.0), (83.0, 0.0))
        };
        let text = table(&rows(&status, &series, &[point])).unwrap();
        let row: Vec<&str> =
            text.lines().nth(1).unwrap().split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(
            row,
            ["2026-01-01 10:01:02 UTC", "stage 2", "6.4%", "5.2% to 7.87%", "<= 1%", "1297", "83", "-", "Breach"]
        );
        assert_eq!(table(&rows(&status, &series, &Points::default().read())), None);
    }
}
