//! The plot of docs/: small panels, a column for each traffic, a row for each stage by whose end a release was reverted.
//! It draws what was counted, as SVG that can be read on a light and on a dark page.

use std::fmt::Write as _;

use crate::judge::{GATES, Gate};
use crate::play::{Cell, SHARES, TRAFFIC};

const PANEL: (f64, f64) = (190.0, 120.0);
const GAP: (f64, f64) = (26.0, 44.0);
/// Where the first panel begins.
const CORNER: (f64, f64) = (92.0, 92.0);
/// The stages by whose end is asked, from 0, and what a row is called.
const ROWS: [(usize, &str); 3] =
    [(0, "by the end of stage 1 (1 %)"), (1, "by the end of stage 2 (5 %)"), (4, "by the end of the release")];
const SHARES_SHOWN: [(f64, &str); 5] = [(0.003, "0.3 %"), (0.01, "1 %"), (0.03, "3 %"), (0.1, "10 %"), (0.5, "50 %")];

const STYLE: &str = "\
    .page{fill:#ffffff}.panel{fill:none;stroke:#8c959f}.grid{stroke:#d8dee4}.limit{stroke:#57606a;stroke-dasharray:2 3}\
    text{font-family:system-ui,sans-serif;font-size:12px;fill:#1f2328}.small{font-size:11px;fill:#57606a}.head{font-size:14px;font-weight:600}\
    .line{fill:none;stroke-width:1.8}.g0{stroke:#0550ae;stroke-width:2.8}.g1{stroke:#cf222e}.g2{stroke:#bc4c00;stroke-dasharray:7 3}.g3{stroke:#8250df;stroke-dasharray:2 3}\
    .dot{fill:#0550ae}\
    @media (prefers-color-scheme:dark){.page{fill:#0d1117}.panel{stroke:#6e7681}.grid{stroke:#2b3138}.limit{stroke:#9198a1}\
    text{fill:#e6edf3}.small{fill:#9198a1}.g0{stroke:#58a6ff}.g1{stroke:#ff7b72}.g2{stroke:#f0b072}.g3{stroke:#d2a8ff}.dot{fill:#58a6ff}}";

/// The plot of all cells.
#[must_use]
pub fn svg(cells: &[Cell]) -> String {
    let width = CORNER.0 + TRAFFIC.len() as f64 * (PANEL.0 + GAP.0);
    let height = CORNER.1 + ROWS.len() as f64 * (PANEL.1 + GAP.1) + 14.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>Share of releases reverted, by the canary's bad share</title>\n\
         <desc>A column for each traffic, a row for each stage; up to the limit a revert is a false alarm. The numbers are in bench-gates.md.</desc>\n\
         <style>{STYLE}</style>\n<rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    text(
        &mut svg,
        "head",
        (CORNER.0, 22.0),
        "Releases reverted, by the canary's bad share; up to the limit of 1 % a revert is a false alarm",
    );
    legend(&mut svg);
    for (row, (stage, name)) in (0_u32..).zip(ROWS) {
        let y = CORNER.1 + f64::from(row) * (PANEL.1 + GAP.1);
        let middle = y + PANEL.1 / 2.0;
        let _ = writeln!(
            svg,
            "<text text-anchor=\"middle\" transform=\"translate(16 {middle}) rotate(-90)\">reverted</text>\n\
             <text class=\"small\" text-anchor=\"middle\" transform=\"translate(32 {middle}) rotate(-90)\">{name}</text>"
        );
        for (column, rps) in (0_u32..).zip(TRAFFIC) {
            let x = CORNER.0 + f64::from(column) * (PANEL.0 + GAP.0);
            if row == 0 {
                text(&mut svg, "", (x, y - 10.0), &format!("{} requests/s", grouped(rps)));
            }
            let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.rps == rps).collect();
            panel(&mut svg, (x, y), &cells, stage, column == 0);
        }
    }
    let middle = CORNER.0 + (width - CORNER.0 - GAP.0) / 2.0;
    let _ = writeln!(
        svg,
        "<text text-anchor=\"middle\" x=\"{middle}\" y=\"{}\">bad share of the canary's requests (logarithmic)</text>\n</svg>",
        height - 12.0
    );
    svg
}

fn legend(svg: &mut String) {
    let mut x = CORNER.0;
    for (at, gate) in GATES.iter().enumerate() {
        let name = gate.name();
        let end = x + 30.0;
        let _ = writeln!(svg, "<path class=\"line g{at}\" d=\"M{x} 46H{end}\"/>");
        if *gate == Gate::Ours {
            let _ = writeln!(svg, "<circle class=\"dot\" cx=\"{}\" cy=\"46\" r=\"3.2\"/>", x + 15.0);
        }
        text(svg, "", (end + 6.0, 50.0), &name);
        x = end + 6.0 + 6.6 * name.len() as f64 + 22.0;
    }
    let _ = writeln!(svg, "<path class=\"limit\" d=\"M{x} 46H{}\"/>", x + 30.0);
    text(svg, "", (x + 36.0, 50.0), "the limit");
}

fn panel(svg: &mut String, (x, y): (f64, f64), cells: &[&Cell], stage: usize, labels: bool) {
    let (wide, high) = PANEL;
    let down = |part: f64| y + high * (1.0 - part);
    let right = |share: f64| x + wide * along(share);
    for (part, name) in [(0.0, "0"), (0.5, "50 %"), (1.0, "100 %")] {
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{x} {}h{wide}\"/>", down(part));
        if labels {
            let _ = writeln!(
                svg,
                "<text class=\"small\" text-anchor=\"end\" x=\"{}\" y=\"{}\">{name}</text>",
                x - 6.0,
                down(part) + 4.0
            );
        }
    }
    for (share, name) in SHARES_SHOWN {
        let _ = writeln!(
            svg,
            "<text class=\"small\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{}\">{name}</text>",
            right(share),
            y + high + 16.0
        );
    }
    let _ = writeln!(svg, "<path class=\"limit\" d=\"M{:.1} {y}v{high}\"/>", right(0.01));
    let _ = writeln!(svg, "<rect class=\"panel\" x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{high}\"/>");
    // Ours is drawn last, over the others.
    for (at, gate) in GATES.iter().enumerate().rev() {
        let points: Vec<(f64, f64)> =
            cells.iter().map(|cell| (right(cell.share), down(cell.part_by(*gate, stage)))).collect();
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(svg, "<polyline class=\"line g{at}\" points=\"{}\"/>", line.join(" "));
        if *gate == Gate::Ours {
            for (x, y) in points {
                let _ = writeln!(svg, "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\"/>");
            }
        }
    }
}

/// Where a share stands on the logarithmic axis, 0 to 1, with a little room at both ends.
fn along(share: f64) -> f64 {
    let (first, last) = (SHARES.first().copied().unwrap_or(share), SHARES.last().copied().unwrap_or(share));
    0.05 + 0.9 * (share / first).ln() / (last / first).ln()
}

fn text(svg: &mut String, class: &str, (x, y): (f64, f64), text: &str) {
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>");
}

/// With a comma for thousands.
pub(crate) fn grouped(number: u32) -> String {
    match (number.checked_div(1000), number.checked_rem(1000)) {
        (Some(thousands), Some(rest)) if thousands > 0 => format!("{thousands},{rest:03}"),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::play::Endings;

    fn cells() -> Vec<Cell> {
        let reverted = |stage: usize| {
            let mut stages = vec![0; 5];
            stages[stage] = 10;
            stages
        };
        let cell = |rps: u32, share: f64| Cell {
            rps,
            share,
            runs: 10,
            reverted: GATES.iter().map(|gate| (*gate, reverted(usize::from(*gate == Gate::Ours)))).collect(),
            endings: Endings::default(),
        };
        TRAFFIC.iter().flat_map(|rps| SHARES.map(|share| cell(*rps, share))).collect()
    }

    #[test]
    fn every_panel_has_a_line_of_every_gate_with_a_point_for_every_share() {
        let svg = svg(&cells());
        let lines: Vec<&str> = svg.lines().filter(|line| line.starts_with("<polyline")).collect();
        assert_eq!(lines.len(), TRAFFIC.len() * ROWS.len() * GATES.len());
        for line in lines {
            assert_eq!(line.matches(',').count(), SHARES.len(), "{line}");
        }
    }

    #[test]
    fn what_was_reverted_in_stage_2_is_at_the_bottom_of_the_first_row_and_at_the_top_of_the_second() {
        let svg = svg(&cells());
        let ours: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("polyline class=\"line g0\""))
            .map(|line| line.split([',', ' ']).nth(4).unwrap().parse().unwrap())
            .collect();
        let (first, second) = (CORNER.1, CORNER.1 + PANEL.1 + GAP.1);
        assert_eq!((ours[0], ours[TRAFFIC.len()]), (first + PANEL.1, second));
    }

    #[test]
    fn every_element_is_closed() {
        let svg = svg(&cells());
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }
}
