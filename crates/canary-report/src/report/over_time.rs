//! Pictures of figures over time: a gate against its limit, with its interval and the marks of the stages; and the share
//! of bad answers among all answers of the service. SVG as in [`super::plots`].

use canary_api::{GateSeries, Point, ReleaseRecordStatus};

use super::plots::{Svg, elapsed};
use crate::harmless::line;
use crate::over_time::Span;

const TOP: f64 = 22.0;
const HIGH: f64 = 120.0;
/// Labels nearer to each other than this are left out, in per cent of the width.
const NEAR: f64 = 9.0;

/// Where times and numbers are.
struct Field {
    whole: f64,
    most: f64,
    least: f64,
}

impl Field {
    fn across(&self, at: u32) -> f64 {
        (f64::from(at) / self.whole * 100.0).clamp(0.0, 100.0)
    }

    fn down(&self, number: f64) -> f64 {
        let part = ((number - self.least) / (self.most - self.least)).clamp(0.0, 1.0);
        TOP + HIGH * (1.0 - part)
    }

    /// Lines of the grid with their numbers, and the time across.
    fn frame(&self, svg: &mut Svg, unit: &str) {
        for number in [self.least, self.most] {
            svg.line("grid", (0.0, self.down(number)), (100.0, self.down(number)));
        }
        svg.anchored("small", (0.0, TOP - 8.0), "start", &format!("{}{unit}", short(self.most)));
        for (part, anchor) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
            svg.anchored("small", (part * 100.0, TOP + HIGH + 18.0), anchor, &elapsed(self.whole * part));
        }
    }

    fn stages(&self, svg: &mut Svg, status: &ReleaseRecordStatus) {
        let mut labelled = f64::NEG_INFINITY;
        for (number, at) in begun(status) {
            let x = self.across(at);
            svg.line("mark", (x, TOP), (x, TOP + HIGH));
            // The number on top of the axis has the left edge.
            if x - labelled >= NEAR && x > 2.0 * NEAR {
                svg.text("small", (x, TOP - 8.0), &format!("stage {number}"));
                labelled = x;
            }
        }
    }
}

/// Stages that began, each with the seconds since the release did.
fn begun(status: &ReleaseRecordStatus) -> Vec<(i32, u32)> {
    let Some(started) = &status.started else { return Vec::new() };
    let since = |stage: &canary_api::StageRecord| {
        let seconds = stage.started.as_ref()?.0.duration_since(started.0).as_secs();
        Some((stage.number, u32::try_from(seconds).ok()?))
    };
    status.stages.iter().filter_map(since).collect()
}

fn short(number: f64) -> String {
    let digits = if number.abs() >= 10.0 { 1.0 } else { 1000.0 };
    format!("{}", (number * digits).round() / digits)
}

/// A gate over the release. None with fewer than two moments, and where all of its numbers are zero.
#[must_use]
pub fn gate(
    id: &str,
    name: &str,
    status: &ReleaseRecordStatus,
    series: &GateSeries,
    points: &[Point],
) -> Option<String> {
    let last = points.last().filter(|_| points.len() > 1)?;
    // An interval of a handful of requests reaches far; it would press everything else to the ground.
    let numbers = points.iter().flat_map(|point| [point.value, point.most, point.least, point.stable]).flatten();
    let (least, most) = numbers.fold((0.0_f64, 0.0_f64), |(least, most), one| (least.min(one), most.max(one)));
    if most <= least || last.at == 0 {
        return None;
    }
    let field = Field { whole: f64::from(last.at), most: most * 1.1, least };
    let unit = line(&series.unit);
    let mut svg = Svg::new(id, TOP + HIGH + 26.0, &format!("{} over time", line(name)), &about(points, &unit));
    field.frame(&mut svg, &unit);
    field.stages(&mut svg, status);
    let pairs = points.windows(2).filter_map(|pair| match pair {
        [one, next] => Some((one, next, one.stage == next.stage)),
        _ => None,
    });
    for (one, next, same) in pairs.clone() {
        let (from, to) = (field.across(one.at), field.across(next.at));
        if let (true, Some((low, high))) = (same, next.interval) {
            let (top, foot) = (field.down(high), field.down(low));
            svg.area("interval", (from, top), to - from, (foot - top).max(1.0));
        }
        for limit in [next.most, next.least].into_iter().flatten().filter(|_| next.verdict != Some('s')) {
            svg.line("limit", (from, field.down(limit)), (to, field.down(limit)));
        }
    }
    for (one, next, same) in pairs.filter(|(.., same)| *same) {
        let ends = (field.across(one.at), field.across(next.at));
        for (class, from, to) in [("stable thin", one.stable, next.stable), ("step", one.value, next.value)] {
            if let (Some(from), Some(to)) = (from, to) {
                svg.line(class, (ends.0, field.down(from)), (ends.1, field.down(to)));
            }
        }
        debug_assert!(same, "figures of two stages are not joined");
    }
    // One that broke its limit is marked once.
    if let Some((point, value)) =
        points.iter().find_map(|point| Some((point, point.value.filter(|_| point.verdict == Some('B'))?)))
    {
        svg.circle("point breach", (field.across(point.at), field.down(value)));
    }
    Some(svg.end())
}

fn about(points: &[Point], unit: &str) -> String {
    let values = points.iter().filter_map(|point| point.value);
    let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), one| (a.min(one), b.max(one)));
    let breach = if points.iter().any(|point| point.verdict == Some('B')) { " It broke its limit." } else { "" };
    if least > most {
        return format!("{} moments, none with a value of the new version.{breach}", points.len());
    }
    format!(
        "{} moments, from {}{unit} to {}{unit}.{breach} The table below holds them.",
        points.len(),
        short(least),
        short(most)
    )
}

/// Bad answers among all answers of the service. None without a span.
#[must_use]
pub fn errors(id: &str, name: &str, status: &ReleaseRecordStatus, spans: &[Span]) -> Option<String> {
    let last = spans.last()?;
    let share = |span: &Span| span.bad / span.all * 100.0;
    let highest = spans.iter().map(share).fold(0.0_f64, f64::max);
    let (bad, all) = spans.iter().fold((0.0, 0.0), |(bad, all), span| (bad + span.bad, all + span.all));
    let field =
        Field { whole: f64::from(last.to.max(1)), most: if highest > 0.0 { highest * 1.1 } else { 1.0 }, least: 0.0 };
    let about = format!(
        "{} bad of {} answers of both versions together; {}% at most between two moments.",
        bad.round(),
        all.round(),
        short(highest)
    );
    let title = format!("Bad answers among all, by gate {}", line(name));
    let mut svg = Svg::new(id, TOP + HIGH + 26.0, &title, &about);
    field.frame(&mut svg, "%");
    field.stages(&mut svg, status);
    for span in spans.iter().filter(|span| span.bad > 0.0) {
        let (from, to) = (field.across(span.from), field.across(span.to));
        let top = field.down(share(span));
        svg.area("bad", (from, top), (to - from).max(0.3), field.down(0.0) - top);
    }
    Some(svg.end())
}
