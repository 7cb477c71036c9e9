//! The page of docs/, and what the terminal shows: tables of what was counted and timed, with what is needed to read
//! them. It formats; it counts nothing.

use std::fmt::Write as _;

use crate::judge::{GATES, Gate, PATIENT, WINDOW_SECONDS};
use crate::play::{Cell, MIN_REQUESTS, Options, SHARES, TRAFFIC};
use crate::plot::grouped;
use crate::speed::Speed;

/// The page's name in docs/.
pub const PAGE: &str = "bench-gates.md";
/// The plot's name in docs/.
pub const PLOT: &str = "bench-gates.svg";
/// Bad shares well within the limit.
const HEALTHY: [f64; 2] = [0.003, 0.005];

/// What the page speaks of.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// By what, when, where: a sentence.
    pub header: &'a str,
    /// What was played.
    pub options: &'a Options<'a>,
    /// The budget of a whole release.
    pub release_alpha: f64,
    /// Gates that share it.
    pub gates: u32,
}

/// The page of all figures.
#[must_use]
pub fn page(made: &Made<'_>, cells: &[Cell], speeds: &[Speed]) -> String {
    let mut page = format!("# Figures of the gates\n\n{}\n\n", made.header);
    how(&mut page, made);
    page.push_str("## Reverted, by stage\n\n");
    let _ = writeln!(page, "![Share of releases reverted, by the canary's bad share]({PLOT})\n");
    page.push_str(
        "Each cell: percent of the releases that were reverted by the end of stage 1, 2, 3, 4, 5. Up to 1 % every revert is a\n\
         false alarm; above it every release should be reverted, early.\n",
    );
    for rps in TRAFFIC {
        let _ = writeln!(page, "\n### {} requests/s\n", grouped(rps));
        by_stage(&mut page, rps, cells);
    }
    patient(&mut page, cells);
    endings(&mut page, cells);
    speed(&mut page, speeds);
    page
}

/// The plan in words: the stages, how long they last, and how often they are judged.
fn how(page: &mut String, made: &Made<'_>) {
    let Options { runs, seed, plan, rule, .. } = made.options;
    let weights: Vec<String> = plan.weights.iter().map(|weight| number(weight * 100.0)).collect();
    let minutes = number(plan.ticks as f64 * plan.tick_seconds as f64 / 60.0);
    let _ = writeln!(
        page,
        "Simulated, without a cluster: stages of {} %, {minutes} minutes each, a tick every {} s, one `errorRate` gate with a\n\
         limit of {} %. {runs} releases for each traffic (both sides together) and each bad share of the canary, seed {seed}; all\n\
         gates judge the same sampled requests. A request is bad independently of the others, the number per tick is drawn\n\
         exactly. Of {runs} releases a share near 50 % is known to ± {} points, near 0 or 100 % to ± {} (95 %).\n",
        weights.join("/"),
        plan.tick_seconds,
        number(rule.limit * 100.0),
        number((200.0 * (0.25 / f64::from(*runs)).sqrt() * 10.0).round() / 10.0),
        number((3000.0 / f64::from(*runs)).round() / 10.0),
    );
    let _ = writeln!(
        page,
        "- *{}*: the operator's test (`canary_stats::Starts` of `AboveLimit`, at least three bad requests). Budget: {} % false\n  \
         alarms a release, split over {} gates and {} stages, so {:.3} % for this gate in a stage (E ≥ {:.0}), {:.2} % in the whole plan.",
        Gate::Ours.name(),
        number(made.release_alpha * 100.0),
        made.gates,
        plan.weights.len(),
        rule.alpha.get() * 100.0,
        rule.alpha.threshold(),
        rule.alpha.get() * 100.0 * plan.weights.len() as f64,
    );
    let _ = writeln!(
        page,
        "- *plain*: \"bad share of the last {WINDOW_SECONDS} s above the limit\", asked at every tick; reverted at the first, the third or the\n  \
         fifth failure in a row. Window and failures begin anew with each stage.\n",
    );
}

fn by_stage(page: &mut String, rps: u32, cells: &[Cell]) {
    let head: Vec<String> = std::iter::once("bad share".to_owned()).chain(GATES.map(Gate::name)).collect();
    let row = |share: f64| {
        let cell = find(cells, rps, share)?;
        let parts = |gate: Gate| cell.by_stage(gate).into_iter().map(percent).collect::<Vec<_>>().join(" ");
        Some(std::iter::once(share_text(share)).chain(GATES.map(parts)).collect())
    };
    table(page, &head, SHARES.into_iter().filter_map(row).collect());
}

fn patient(page: &mut String, cells: &[Cell]) {
    page.push_str(
        "\n## Is it the short windows?\n\n\
         Healthy releases reverted in the whole plan, in percent: as above, then by the same thresholds with a window that goes\n\
         on from stage to stage and that is not judged before it is a full minute.\n\n",
    );
    let pairs = || GATES.iter().skip(1).zip(PATIENT);
    let mut head = vec!["requests/s".to_owned(), "bad share".to_owned(), Gate::Ours.name()];
    head.extend(pairs().map(|(gate, _)| gate.name()));
    let row = |rps: u32, share: f64| {
        let cell = find(cells, rps, share)?;
        let mut row = vec![grouped(rps), share_text(share), percent(cell.part(Gate::Ours))];
        row.extend(pairs().map(|(gate, full)| format!("{}, {}", percent(cell.part(*gate)), percent(cell.part(full)))));
        Some(row)
    };
    table(page, &head, TRAFFIC.iter().flat_map(|rps| HEALTHY.map(|share| row(*rps, share))).flatten().collect());
}

fn endings(page: &mut String, cells: &[Cell]) {
    let _ = writeln!(
        page,
        "\n## Not reverted is not promoted\n\n\
         How releases end with *{}*, where a stage that ends needs {MIN_REQUESTS:.0} requests of the canary and an estimate within the\n\
         limit, is held for as long again without that, and then pauses for a person (`minRequests`, `onInconclusive: Pause`).\n\
         Percent reverted / paused / promoted. Stages that are too short for their traffic pause healthy releases.\n",
        Gate::Ours.name()
    );
    let head: Vec<String> = std::iter::once("bad share".to_owned())
        .chain(TRAFFIC.map(|rps| format!("{} requests/s", grouped(rps))))
        .collect();
    let row = |share: f64| {
        let end = |rps: u32| {
            find(cells, rps, share).map_or_else(String::new, |cell| {
                let ends = [cell.endings.reverted, cell.endings.paused, cell.endings.promoted];
                ends.map(|count| percent(f64::from(count) / f64::from(cell.runs.max(1)))).join(" / ")
            })
        };
        std::iter::once(share_text(share)).chain(TRAFFIC.map(end)).collect()
    };
    table(page, &head, SHARES.into_iter().map(row).collect());
}

fn speed(page: &mut String, speeds: &[Speed]) {
    page.push_str(
        "\n## Time of an evaluation\n\n\
         The last tick of a stage taken in and ln E of all starts that are kept, on one thread, median of 25 runs of 100; beside\n\
         it ln E from the stage's start alone. Counts are spread evenly over the ticks.\n\n",
    );
    let head = ["tick", "starts", "requests", "bad", "evaluation", "evaluations/s", "one ln E"].map(str::to_owned);
    let row = |speed: &Speed| {
        vec![
            format!("{} of {}", speed.ticks, speed.ticks),
            speed.starts.to_string(),
            count(speed.requests),
            share_text(speed.share),
            format!("{:.1} µs", speed.evaluation * 1e6),
            format!("{:.0}", 1.0 / speed.evaluation),
            format!("{:.2} µs", speed.one * 1e6),
        ]
    };
    table(page, &head, speeds.iter().map(row).collect());
}

/// A table that reads in a terminal too.
fn table(page: &mut String, head: &[String], rows: Vec<Vec<String>>) {
    let width = |column: usize| {
        let cells = std::iter::once(head).chain(rows.iter().map(Vec::as_slice));
        cells.filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut line = |cells: &[String]| {
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(page, "| {cell:>width$} ");
        }
        page.push_str("|\n");
    };
    line(head);
    line(&widths.iter().map(|width| format!("{}:", "-".repeat(width.saturating_sub(1).max(2)))).collect::<Vec<_>>());
    for row in &rows {
        line(row);
    }
}

fn find(cells: &[Cell], rps: u32, share: f64) -> Option<&Cell> {
    cells.iter().find(|cell| cell.rps == rps && cell.share.to_bits() == share.to_bits())
}

/// A part in whole percent; 0 and 100 are none and all.
#[must_use]
pub fn percent(part: f64) -> String {
    match (part * 100.0).round() {
        _ if part <= 0.0 => "0".to_owned(),
        _ if part >= 1.0 => "100".to_owned(),
        rounded if rounded < 1.0 => "<1".to_owned(),
        rounded if rounded > 99.0 => ">99".to_owned(),
        rounded => format!("{rounded:.0}"),
    }
}

fn share_text(share: f64) -> String {
    format!("{} %", number((share * 1e6).round() / 1e4))
}

fn number(value: f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

fn count(value: f64) -> String {
    if value >= 1e6 { format!("{value:e}").replace('e', "·10^") } else { grouped(value as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_and_all_are_told_from_almost() {
        assert_eq!([0.0, 0.0004, 0.4, 0.994, 0.9999, 1.0].map(percent), ["0", "<1", "40", "99", ">99", "100"]);
    }

    #[test]
    fn shares_and_counts_are_written_as_people_do() {
        assert_eq!(SHARES.map(share_text), ["0.3 %", "0.5 %", "1 %", "1.5 %", "2 %", "3 %", "5 %", "10 %", "50 %"]);
        assert_eq!([300.0, 30_000.0, 1e6, 1e9].map(count), ["300", "30,000", "1·10^6", "1·10^9"]);
        assert_eq!([10, 1000, 10_000].map(grouped), ["10", "1,000", "10,000"]);
    }

    #[test]
    fn a_table_has_columns_of_even_width() {
        let mut page = String::new();
        let cells = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        table(&mut page, &cells(["a", "µs of it"]), vec![cells(["wide one", "1"])]);
        let widths: Vec<usize> = page.lines().map(|line| line.chars().count()).collect();
        assert_eq!((widths.len(), widths.iter().all(|width| *width == widths[0])), (3, true), "{page}");
    }
}
