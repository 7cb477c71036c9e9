//! A gate's last figures as a line of blocks: how high each stood against its limit. It reads the release's record, and
//! shows what that holds; where there is none there is no line.

use canary_api::{GateSeries, Point, ReleaseRecordStatus};
use serde::Serialize;

/// Moments that are shown.
const SHOWN: usize = 12;
/// From nothing to the limit; what is above it has a sign of its own.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Outside the limit.
const OUTSIDE: char = '!';
/// Not measured.
const NONE: char = '·';

/// The last figures of a gate, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trend {
    /// The gate.
    pub gate: String,
    /// The canary's value at each moment; none where it was not measured.
    pub values: Vec<Option<f64>>,
    /// The most that was allowed, where there is such a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<f64>,
    /// The least that was asked for, where there is such a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least: Option<f64>,
    /// Unit of the figures.
    pub unit: String,
}

impl Trend {
    /// As blocks.
    #[must_use]
    pub fn line(&self) -> String {
        let top = self.most.or_else(|| self.values.iter().flatten().copied().reduce(f64::max)).unwrap_or(0.0);
        self.values.iter().map(|value| self.sign(*value, top)).collect()
    }

    fn sign(&self, value: Option<f64>, top: f64) -> char {
        let Some(value) = value else { return NONE };
        if self.most.is_some_and(|most| value > most) || self.least.is_some_and(|least| value < least) {
            return OUTSIDE;
        }
        let share = if top > 0.0 { (value / top).clamp(0.0, 1.0) } else { 0.0 };
        // At most 8, and none is below 0.
        let level = (share * 8.0).ceil() as usize;
        BLOCKS.get(level.saturating_sub(1)).copied().unwrap_or(NONE)
    }
}

/// The trends that a record holds of this release; none where it is another's.
#[must_use]
pub fn trends(record: &ReleaseRecordStatus, id: &str) -> Vec<Trend> {
    if record.id != id || id.is_empty() {
        return Vec::new();
    }
    record.series.iter().filter_map(trend).collect()
}

fn trend(series: &GateSeries) -> Option<Trend> {
    let newest = if series.around.is_empty() { &series.whole } else { &series.around };
    let of_canary = |point: &Point| point.stage > 0 && point.verdict != Some('s');
    let points: Vec<Point> = newest.read().into_iter().filter(of_canary).collect();
    let shown = points.get(points.len().saturating_sub(SHOWN)..)?;
    let last = shown.last()?;
    Some(Trend {
        gate: series.gate.clone(),
        values: shown.iter().map(|point| point.value).collect(),
        most: last.most,
        least: last.least,
        unit: series.unit.clone(),
    })
}

#[cfg(test)]
mod tests {
    use canary_api::Points;

    use super::*;

    fn series(values: &[Option<f64>], most: Option<f64>, least: Option<f64>) -> GateSeries {
        let point = |(at, value): (usize, &Option<f64>)| Point {
            at: u32::try_from(at).unwrap(),
            stage: 1,
            value: *value,
            most,
            least,
            verdict: Some('P'),
            ..Point::default()
        };
        let points: Vec<Point> = values.iter().enumerate().map(point).collect();
        GateSeries {
            gate: "errors".to_owned(),
            unit: "%".to_owned(),
            around: Points::written(&points, 0),
            ..GateSeries::default()
        }
    }

    fn line(values: &[Option<f64>], most: Option<f64>, least: Option<f64>) -> String {
        trend(&series(values, most, least)).map_or_else(String::new, |trend| trend.line())
    }

    #[test]
    fn the_limit_is_the_top_and_what_is_beyond_it_stands_out() {
        assert_eq!(line(&[Some(0.0), Some(0.1), Some(0.5), None, Some(1.0), Some(1.2)], Some(1.0), None), "▁▁▄·█!");
        assert_eq!(line(&[Some(3.0), Some(1.0)], None, Some(2.0)), "█!");
        assert_eq!(line(&[Some(0.0)], Some(0.0), None), "▁");
        assert_eq!(line(&[], Some(1.0), None), "");
    }

    #[test]
    fn only_the_last_moments_of_the_canary_are_shown() {
        let many: Vec<Option<f64>> = (0..40).map(|number| Some(f64::from(number))).collect();
        let shown = trend(&series(&many, Some(100.0), None)).unwrap();
        assert_eq!((shown.values.len(), shown.values[0]), (SHOWN, Some(28.0)));
        let mut of_stable = series(&[Some(1.0)], Some(1.0), None);
        of_stable.around.verdict = "s".to_owned();
        assert_eq!(trend(&of_stable), None);
    }

    #[test]
    fn a_record_of_another_release_has_no_trends_of_this_one() {
        let record = ReleaseRecordStatus {
            id: "orders-3".to_owned(),
            series: vec![series(&[Some(1.0)], Some(1.0), None)],
            ..ReleaseRecordStatus::default()
        };
        assert_eq!(trends(&record, "orders-3").len(), 1);
        assert!(trends(&record, "orders-4").is_empty() && trends(&ReleaseRecordStatus::default(), "").is_empty());
    }
}
