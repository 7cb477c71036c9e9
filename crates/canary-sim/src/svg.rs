//! The same as an SVG, for a page that is light or dark: a bar for each stage, and the share that is reverted over time.
//! It draws; it counts nothing.

use std::fmt::Write as _;

use crate::{
    chart::{self, axis_end},
    play::Place,
    simulate::Summary,
};

const WIDTH: f64 = 860.0;
/// Where bars and plot begin and how wide they are.
const LEFT: f64 = 170.0;
const WIDE: f64 = 470.0;
const ROW: f64 = 26.0;
const PLOT: f64 = 180.0;

const STYLE: &str = "\
    .page{fill:#ffffff}.reverted{fill:#cf222e}.paused{fill:#bf8700}.on{fill:#d8dee4}.promoted{fill:#1a7f37}\
    .grid{stroke:#d8dee4}.axis{stroke:#8c959f;fill:none}.stage{stroke:#8c959f;stroke-dasharray:2 3}\
    .line{fill:none;stroke:#cf222e;stroke-width:2.2}.area{fill:#cf222e;fill-opacity:.12}\
    text{font-family:system-ui,sans-serif;font-size:12px;fill:#1f2328}.small{font-size:11px;fill:#57606a}.head{font-size:14px;font-weight:600}\
    @media (prefers-color-scheme:dark){.page{fill:#0d1117}.reverted{fill:#ff7b72}.paused{fill:#d29922}.on{fill:#2b3138}.promoted{fill:#3fb950}\
    .grid{stroke:#2b3138}.axis,.stage{stroke:#6e7681}.line{stroke:#ff7b72}.area{fill:#ff7b72}text{fill:#e6edf3}.small{fill:#9198a1}}";

/// The picture. `title` stands above it, such as the name of the CanaryRelease.
#[must_use]
pub fn svg(title: &str, summary: &Summary) -> String {
    let rows = summary.stages.len().saturating_add(1) as f64;
    let plot_top = 86.0 + rows * ROW + 54.0;
    let height = plot_top + PLOT + 52.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>{}: where {} simulated releases end</title>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
        escaped(title),
        summary.runs
    );
    text(&mut svg, "head", (16.0, 26.0), "start", title);
    text(&mut svg, "small", (16.0, 46.0), "start", &told(summary));
    legend(&mut svg);
    bars(&mut svg, summary);
    over_time(&mut svg, summary, plot_top);
    svg.push_str("</svg>\n");
    svg
}

fn told(summary: &Summary) -> String {
    let faults =
        if summary.faults.is_empty() { "no fault".to_owned() } else { format!("fault {}", summary.faults.join(", ")) };
    format!("{} releases, {} requests/s, {faults}, seed {}", summary.runs, summary.requests_per_second, summary.seed)
}

fn legend(svg: &mut String) {
    let mut x = LEFT;
    for (class, name) in [("reverted", "reverted"), ("paused", "paused"), ("on", "went on"), ("promoted", "promoted")] {
        let _ = writeln!(svg, "<rect class=\"{class}\" x=\"{x}\" y=\"58\" width=\"12\" height=\"12\" rx=\"2\"/>");
        text(svg, "small", (x + 17.0, 68.5), "start", name);
        x += 34.0 + 6.4 * name.len() as f64;
    }
}

fn bars(svg: &mut String, summary: &Summary) {
    let mut y = 86.0;
    let all = f64::from(summary.runs.max(1));
    for stage in &summary.stages {
        let on = stage.reached.saturating_sub(stage.reverted).saturating_sub(stage.paused);
        let name = format!("stage {}: {} for {}", stage.stage, stage.weight, stage.duration);
        text(svg, "", (LEFT - 10.0, y + 14.0), "end", &name);
        let mut x = LEFT;
        for (class, runs) in [("reverted", stage.reverted), ("paused", stage.paused), ("on", on)] {
            let wide = f64::from(runs) / all * WIDE;
            if runs > 0 {
                let _ =
                    writeln!(svg, "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{wide:.1}\" height=\"18\"/>");
            }
            x += wide;
        }
        let mut said = Vec::new();
        if stage.reverted > 0 {
            said.push(format!("{} reverted", chart::per_cent(f64::from(stage.reverted) / all)));
        }
        if stage.paused > 0 {
            said.push(format!("{} paused", chart::per_cent(f64::from(stage.paused) / all)));
        }
        text(svg, "small", (x + 8.0, y + 13.5), "start", &said.join(", "));
        y += ROW;
    }
    let wide = f64::from(summary.ends.promoted) / all * WIDE;
    text(svg, "", (LEFT - 10.0, y + 14.0), "end", "promoted");
    let _ = writeln!(svg, "<rect class=\"promoted\" x=\"{LEFT}\" y=\"{y}\" width=\"{wide:.1}\" height=\"18\"/>");
    let later = [Place::Promotion, Place::Soak];
    let late = later.iter().fold(0_u32, |sum, place| sum.saturating_add(summary.ends.reverted_at(*place)));
    let late = if late > 0 {
        format!("; {} reverted after the last stage", chart::per_cent(f64::from(late) / all))
    } else {
        String::new()
    };
    let said = format!("{}{late}", chart::per_cent(f64::from(summary.ends.promoted) / all));
    text(svg, "small", (LEFT + wide + 8.0, y + 13.5), "start", &said);
}

fn over_time(svg: &mut String, summary: &Summary, top: f64) {
    let (all, longest) = (f64::from(summary.runs.max(1)), axis_end(summary));
    let across = |seconds: f64| LEFT + WIDE * seconds / longest;
    let down = |share: f64| top + PLOT * (1.0 - share);
    text(svg, "", (LEFT, top - 24.0), "start", "reverted, of all releases, by the time since the beginning");
    for (share, name) in [(0.0, "0%"), (0.25, ""), (0.5, "50%"), (0.75, ""), (1.0, "100%")] {
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {:.1}h{WIDE}\"/>", down(share));
        text(svg, "small", (LEFT - 8.0, down(share) + 4.0), "end", name);
    }
    for stage in &summary.stages {
        let Some(began) = stage.began_after_seconds else { continue };
        let x = across(began);
        let _ = writeln!(svg, "<path class=\"stage\" d=\"M{x:.1} {top}v{PLOT}\"/>");
        text(svg, "small", (x + 3.0, top - 5.0), "start", &stage.weight.to_string());
    }
    let mut line = format!("M{LEFT} {:.1}", down(0.0));
    let mut found = 0.0;
    for seconds in &summary.reverted_after_seconds {
        found += 1.0;
        let _ = write!(line, "H{:.1}V{:.1}", across(*seconds), down(found / all));
    }
    let _ = write!(line, "H{:.1}", LEFT + WIDE);
    let _ = writeln!(
        svg,
        "<path class=\"area\" d=\"{line}V{:.1}H{LEFT}Z\"/>\n<path class=\"line\" d=\"{line}\"/>",
        down(0.0)
    );
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {top}V{:.1}h{WIDE}\"/>", down(0.0));
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let seconds = longest * part;
        text(svg, "small", (across(seconds), top + PLOT + 17.0), "middle", &chart::time(seconds));
    }
    let reverted = chart::part(&summary.reverted, summary.runs);
    text(svg, "small", (LEFT, top + PLOT + 38.0), "start", &format!("reverted: {reverted}"));
}

fn text(svg: &mut String, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
    if !text.is_empty() {
        let _ = writeln!(
            svg,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(text)
        );
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for sign in text.chars() {
        match sign {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            sign if sign.is_control() => out.push(' '),
            sign => out.push(sign),
        }
    }
    out
}
