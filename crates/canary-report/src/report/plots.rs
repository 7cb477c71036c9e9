//! The report's pictures: SVG whose widths are per cent and whose heights are pixels, so that text keeps its size on a
//! phone. Colours come from the page's classes; what they say stands in words too.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::steps::Steps;
use crate::facts::{clock, span};
use crate::figure::Figure;
use crate::harmless::html;

/// Where the plot of weights begins and how high it is.
const TOP: f64 = 24.0;
const HIGH: f64 = 150.0;
/// Of a row of gates.
const ROW: f64 = 44.0;
/// Labels nearer to each other than this are left out, in per cent of the width.
const NEAR: f64 = 7.0;

/// A picture under construction.
pub(super) struct Svg(String);

impl Svg {
    pub(super) fn new(id: &str, height: f64, title: &str, about: &str) -> Self {
        Self(format!(
            "<svg class=\"plot\" role=\"img\" height=\"{height:.0}\" aria-labelledby=\"{id}-title {id}-about\">\n\
             <title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-about\">{}</desc>\n",
            html(title),
            html(about)
        ))
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ =
            writeln!(self.0, "<line class=\"{class}\" x1=\"{x1:.2}%\" y1=\"{y1:.1}\" x2=\"{x2:.2}%\" y2=\"{y2:.1}\"/>");
    }

    pub(super) fn area(&mut self, class: &str, (x, y): (f64, f64), width: f64, height: f64) {
        let (width, height) = (width.max(0.0), height.max(0.0));
        let _ = writeln!(
            self.0,
            "<rect class=\"{class}\" x=\"{x:.2}%\" y=\"{y:.1}\" width=\"{width:.2}%\" height=\"{height:.1}\"/>"
        );
    }

    /// Text that ends at `x` where it would else run over the right edge.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let anchor = if x > 60.0 { "end" } else { "start" };
        self.anchored(class, (x, y), anchor, text);
    }

    pub(super) fn anchored(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
        let _ = writeln!(
            self.0,
            "<text class=\"{class}\" x=\"{x:.2}%\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            html(text)
        );
    }

    pub(super) fn circle(&mut self, class: &str, (x, y): (f64, f64)) {
        let _ = writeln!(self.0, "<circle class=\"{class}\" cx=\"{x:.2}%\" cy=\"{y:.1}\" r=\"5\"/>");
    }

    pub(super) fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// The share of the traffic over time, with a mark where each stage begins. None where the record has no times.
#[must_use]
pub fn weight(steps: &Steps) -> Option<String> {
    let (first, until) = (steps.steps.first()?, steps.until?);
    let whole = until.duration_since(first.at).as_secs_f64();
    if steps.steps.len() < 2 || whole <= 0.0 {
        return None;
    }
    let across = |at: Timestamp| (at.duration_since(first.at).as_secs_f64() / whole * 100.0).clamp(0.0, 100.0);
    let down = |share: f64| TOP + HIGH * (1.0 - share / 100.0);
    let mut svg = Svg::new("weight", TOP + HIGH + 26.0, "Share of the traffic given to the new version", &told(steps));
    for (share, name) in [(0.0, "0%"), (50.0, "50%"), (100.0, "100%")] {
        svg.line("grid", (0.0, down(share)), (100.0, down(share)));
        let _ = writeln!(
            svg.0,
            "<text class=\"small\" x=\"0\" dx=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            down(share) + 4.0
        );
    }
    let ends = steps.steps.iter().skip(1).map(|step| step.at).chain([until]);
    let (mut before, mut labelled) = (0.0, f64::NEG_INFINITY);
    for (step, end) in steps.steps.iter().zip(ends) {
        let (from, to, y) = (across(step.at), across(end), down(step.share));
        svg.area("area", (from, y), to - from, down(0.0) - y);
        svg.line("step", (from, down(before)), (from, y));
        svg.line("step", (from, y), (to, y));
        if step.at > first.at {
            svg.line("mark", (from, TOP), (from, down(0.0)));
            if from - labelled >= NEAR {
                svg.text("small", (from, TOP - 8.0), &label(step.share, &step.why));
                labelled = from;
            }
        }
        before = step.share;
    }
    for part in [0.0, 0.5, 1.0] {
        let anchor = if part < 0.25 {
            "start"
        } else if part > 0.75 {
            "end"
        } else {
            "middle"
        };
        svg.anchored("small", (part * 100.0, TOP + HIGH + 18.0), anchor, &elapsed(whole * part));
    }
    Some(svg.end())
}

/// Of a mark: the share alone, or that it was taken back.
fn label(share: f64, why: &str) -> String {
    if share <= 0.0 && !why.starts_with("stage") { "back".to_owned() } else { format!("{share}%") }
}

pub(super) fn elapsed(seconds: f64) -> String {
    // Below a year by the record's own times; a fraction of a second says nothing.
    let coarse = if seconds >= 600.0 { (seconds / 60.0).round() * 60.0 } else { seconds.round() };
    canary_api::Duration::from_secs(coarse.max(0.0) as u64).to_string()
}

/// The picture in words.
fn told(steps: &Steps) -> String {
    let told: Vec<String> =
        steps.steps.iter().map(|step| format!("{}% from {} on ({})", step.share, clock(step.at), step.why)).collect();
    let whole = steps.steps.first().zip(steps.until).and_then(|(first, until)| span(first.at, until));
    format!("{}. The time across is {}.", told.join("; "), whole.unwrap_or_else(|| "unknown".to_owned()))
}

/// One row of a gate's picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// When, such as `stage 2, 25%`.
    pub name: String,
    /// What was measured, in words.
    pub value: String,
    /// The verdict in words.
    pub verdict: String,
    /// The numbers.
    pub figure: Figure,
}

/// From numbers to per cent of the width.
struct Scale {
    low: f64,
    wide: f64,
}

impl Scale {
    /// One that all numbers of the rows fit on, and zero; none where they are all zero.
    fn of(rows: &[Row]) -> Option<Self> {
        let numbers = rows.iter().flat_map(|row| {
            let figure = &row.figure;
            let interval = figure.interval.map_or([None, None], |(low, high)| [Some(low), Some(high)]);
            [Some(figure.value), figure.most, figure.least, figure.stable].into_iter().chain(interval).flatten()
        });
        let (low, high) = numbers.fold((0.0_f64, 0.0_f64), |(low, high), number| (low.min(number), high.max(number)));
        // Room on the right of the largest, so that its mark is whole.
        (high > low).then_some(Self { low, wide: (high - low) * 1.08 })
    }

    fn across(&self, number: f64) -> f64 {
        ((number - self.low) / self.wide * 100.0).clamp(0.0, 100.0)
    }
}

/// A gate's figures against its limit, a row for each. None without rows, and where all numbers are zero.
#[must_use]
pub fn gate(id: &str, name: &str, rows: &[Row]) -> Option<String> {
    let scale = Scale::of(rows)?;
    let alike = rows.windows(2).all(|pair| match pair {
        [one, other] => one.figure.most == other.figure.most && one.figure.least == other.figure.least,
        _ => true,
    });
    // A limit of its own stands below each row, a common one below all of them.
    let (tall, foot) = if alike { (ROW, 22.0) } else { (ROW + 14.0, 4.0) };
    let height = rows.len() as f64 * tall + foot;
    let about: Vec<String> = rows.iter().map(in_words).collect();
    let mut svg = Svg::new(id, height, &format!("{name} against its limit"), &about.join(" "));
    for (index, row) in rows.iter().enumerate() {
        track(&mut svg, row, index as f64 * tall, &scale, !alike);
    }
    if alike {
        axis(&mut svg, rows, height - 6.0, &scale);
    }
    Some(svg.end())
}

fn track(svg: &mut Svg, row: &Row, top: f64, scale: &Scale, own_limit: bool) {
    let (figure, y) = (&row.figure, top + 30.0);
    let value = with_unit(figure.value, &figure.unit);
    svg.anchored("label", (0.0, top + 14.0), "start", &format!("{}: {value}, {}", row.name, row.verdict));
    svg.line("grid", (0.0, y), (100.0, y));
    if let Some((low, high)) = figure.interval {
        let (from, to) = (scale.across(low), scale.across(high));
        svg.area("interval", (from, y - 5.0), (to - from).max(0.4), 10.0);
    }
    for limit in [figure.least, figure.most].into_iter().flatten() {
        let x = scale.across(limit);
        svg.line("limit", (x, y - 11.0), (x, y + 11.0));
        if own_limit {
            svg.text("small", (x, y + 24.0), &format!("limit {}", with_unit(limit, &figure.unit)));
        }
    }
    if let Some(stable) = figure.stable {
        let x = scale.across(stable);
        svg.line("stable", (x, y - 8.0), (x, y + 8.0));
    }
    svg.circle(shape(&row.verdict), (scale.across(figure.value), y));
}

/// The least number and the limits, below all rows.
fn axis(svg: &mut Svg, rows: &[Row], y: f64, scale: &Scale) {
    let Some(figure) = rows.last().map(|row| &row.figure) else { return };
    let limits: Vec<f64> = [figure.least, figure.most].into_iter().flatten().collect();
    // The axis' beginning gives way to a limit that is near it.
    if !limits.iter().any(|limit| scale.across(*limit) < 15.0) {
        svg.anchored("small", (0.0, y), "start", &with_unit(scale.low, &figure.unit));
    }
    for limit in limits {
        svg.text("small", (scale.across(limit), y), &format!("limit {}", with_unit(limit, &figure.unit)));
    }
}

fn with_unit(number: f64, unit: &str) -> String {
    let number = (number * 1000.0).round() / 1000.0;
    // What is counted per 1000 requests is said in full beside the picture; a phone has no room for it here.
    format!("{number}{}", if unit.starts_with(" per 1000") { "/1000" } else { unit })
}

/// Filled, hollow or crossed out with a thick edge: told apart without colour.
fn shape(verdict: &str) -> &'static str {
    match verdict {
        "Pass" => "point pass",
        "Breach" => "point breach",
        "Baseline" => "point baseline",
        _ => "point doubt",
    }
}

fn in_words(row: &Row) -> String {
    let figure = &row.figure;
    let unit = &figure.unit;
    let mut text = format!("{}: {}, {}", row.name, row.value, row.verdict);
    if let Some((low, high)) = figure.interval {
        let _ = write!(text, ", between {low}{unit} and {high}{unit}");
    }
    if let Some(most) = figure.most {
        let _ = write!(text, ", at most {}{unit} allowed", (most * 1000.0).round() / 1000.0);
    }
    if let Some(least) = figure.least {
        let _ = write!(text, ", at least {least}{unit} asked for");
    }
    if let Some(stable) = figure.stable {
        let _ = write!(text, ", stable {stable}{unit}");
    }
    format!("{text}.")
}
