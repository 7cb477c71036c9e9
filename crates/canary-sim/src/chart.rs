//! What became of releases, drawn in characters for a terminal of 80 columns: where they end, and how the reverts add
//! up over time. It draws; it counts nothing.

use std::fmt::Write as _;

use canary_api::Duration;

use crate::{backtest, play::Place, simulate::Summary, tally::Part};

/// Columns of a bar and of the plot.
const WIDE: usize = 48;
/// Rows of the plot.
const HIGH: u32 = 8;
/// Releases of a day that are shown on a line, and more.
const MOST_A_DAY: usize = 1440;
const REVERTED: char = '█';
const PAUSED: char = '▒';
const ON: char = '·';
/// A column filled by so many eighths.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `12%`, `0.5%`, `99.5%`.
#[must_use]
pub fn per_cent(share: f64) -> String {
    let percent = share * 100.0;
    // Where all but a few, or only a few are meant, the few count.
    let few = percent.min(100.0 - percent) < 10.0;
    let text = if few { format!("{percent:.1}") } else { format!("{percent:.0}") };
    format!("{}%", text.strip_suffix(".0").unwrap_or(&text))
}

/// `3 of 200 (1.5%, 0.5% to 4.3%)`.
#[must_use]
pub fn part(part: &Part, all: u32) -> String {
    format!(
        "{} of {all} ({}; {} to {} with 95% confidence)",
        part.runs,
        per_cent(part.share),
        per_cent(part.low),
        per_cent(part.high)
    )
}

/// A time as people say it, in whole seconds.
#[must_use]
pub fn time(seconds: f64) -> String {
    Duration::from_secs(seconds.max(0.0).round() as u64).to_string()
}

/// Rows of a picture: a place, and of the releases that came to it those that ended there.
struct Row {
    name: String,
    reached: u32,
    reverted: u32,
    paused: u32,
}

fn rows(summary: &Summary) -> Vec<Row> {
    let row = |name: String, reached: u32, place: Place| Row {
        name,
        reached,
        reverted: summary.ends.reverted_at(place),
        paused: summary.ends.paused_at(place),
    };
    let mut rows = Vec::new();
    let baseline = row("baseline".to_owned(), summary.runs, Place::Baseline);
    if baseline.reverted > 0 || baseline.paused > 0 {
        rows.push(baseline);
    }
    for stage in &summary.stages {
        let name =
            format!("stage {:<2} {:>5} {:>6}", stage.stage, stage.weight.to_string(), stage.duration.to_string());
        rows.push(row(name, stage.reached, Place::Stage(stage.stage)));
    }
    let mut left =
        rows.last().map_or(summary.runs, |row| row.reached.saturating_sub(row.reverted).saturating_sub(row.paused));
    for (name, place) in [("promotion", Place::Promotion), ("soak", Place::Soak)] {
        let row = row(name.to_owned(), left, place);
        left = left.saturating_sub(row.reverted).saturating_sub(row.paused);
        if row.reverted > 0 || row.paused > 0 {
            rows.push(row);
        }
    }
    rows.push(Row { name: "promoted".to_owned(), reached: summary.ends.promoted, reverted: 0, paused: 0 });
    rows
}

/// A bar for each stage: of all releases, those that were reverted in it, those that were paused in it, those that went
/// on.
#[must_use]
pub fn stages(summary: &Summary) -> String {
    let mut text = String::new();
    for row in rows(summary) {
        let on = row.reached.saturating_sub(row.reverted).saturating_sub(row.paused);
        let parts = [(REVERTED, row.reverted), (PAUSED, row.paused), (ON, on)];
        let bar: String = parts
            .iter()
            .zip(widths(parts.map(|(_, runs)| runs), summary.runs))
            .map(|((sign, _), wide)| sign.to_string().repeat(wide))
            .collect();
        let mut said = Vec::new();
        if row.reverted > 0 {
            said.push(format!("{} reverted", row.reverted));
        }
        if row.paused > 0 {
            said.push(format!("{} paused", row.paused));
        }
        if row.name == "promoted" {
            said.push(row.reached.to_string());
        }
        let line = format!("  {:<21} {bar:<WIDE$}  {}", row.name, said.join(", "));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = writeln!(text, "  {REVERTED} reverted  {PAUSED} paused, for a person to decide  {ON} went on");
    text
}

/// Columns of the parts of a bar: one of many is seen as well, at the cost of the widest.
fn widths(parts: [u32; 3], all: u32) -> [usize; 3] {
    let columns = |runs: u32| (f64::from(runs) / f64::from(all.max(1)) * WIDE as f64).round() as usize;
    let most = columns(parts.iter().fold(0, |sum, runs| sum.saturating_add(*runs))).max(1);
    let mut widths = parts.map(|runs| columns(runs).max(usize::from(runs > 0)));
    while widths.iter().sum::<usize>() > most.max(parts.iter().filter(|runs| **runs > 0).count()) {
        let Some(widest) = widths.iter_mut().max() else { break };
        *widest = widest.saturating_sub(1);
    }
    widths
}

/// The share of all releases that were reverted, over the time since they began.
#[must_use]
pub fn reverted_over_time(summary: &Summary) -> String {
    let (all, longest) = (f64::from(summary.runs.max(1)), axis_end(summary));
    let share_by = |column: usize| {
        let upto = longest * (column.saturating_add(1) as f64) / WIDE as f64;
        summary.reverted_after_seconds.iter().filter(|seconds| **seconds <= upto).count() as f64 / all
    };
    let shares: Vec<f64> = (0..WIDE).map(share_by).collect();
    let mut text = String::new();
    for row in (0..HIGH).rev() {
        let label = match row {
            _ if row.saturating_add(1) == HIGH => "100%",
            0 => "0%",
            _ if row.saturating_mul(2) == HIGH => "50%",
            _ => "",
        };
        let cell = |share: &f64| {
            let eighths = ((share * f64::from(HIGH) - f64::from(row)) * 8.0).ceil().clamp(0.0, 8.0) as usize;
            EIGHTHS.get(eighths).copied().unwrap_or(' ')
        };
        let cells: String = shares.iter().map(cell).collect();
        let _ = writeln!(text, "  {label:>5} ┤{cells}");
    }
    let mut marks: Vec<char> = vec!['─'; WIDE];
    for stage in &summary.stages {
        let Some(began) = stage.began_after_seconds else { continue };
        let column = (began / longest * WIDE as f64).floor() as usize;
        let digit = u32::try_from(stage.stage).ok().and_then(|stage| char::from_digit(stage, 36)).unwrap_or('+');
        if let Some(mark) = marks.get_mut(column) {
            *mark = digit;
        }
    }
    let _ = writeln!(text, "        └{}", marks.into_iter().collect::<String>());
    let end = time(longest);
    let _ = writeln!(text, "         0s{end:>width$}", width = WIDE.saturating_sub(2));
    let _ = writeln!(text, "         time since the beginning; digits: where stages begin");
    text
}

/// Where the axis of time ends: with the longest release, in whole minutes.
pub(crate) fn axis_end(summary: &Summary) -> f64 {
    (summary.longest_seconds / 60.0).ceil().max(1.0) * 60.0
}

/// A sign for each release that would have been, a line for each day (UTC).
#[must_use]
pub fn calendar(summary: &backtest::Summary) -> String {
    let mut text = String::new();
    if summary.every_seconds == 3600 {
        let hours: String = (0..24).step_by(6).map(|hour| format!("{hour:<6}")).collect();
        let _ = writeln!(text, "              {}", hours.trim_end());
    }
    let mut day = String::new();
    for release in &summary.releases {
        let today = release.began.strftime("%Y-%m-%d").to_string();
        if today != day {
            let seconds = release.began.as_second().rem_euclid(86_400);
            let every = i64::try_from(summary.every_seconds).unwrap_or(i64::MAX).max(1);
            let skipped = usize::try_from(seconds.checked_div(every).unwrap_or(0)).unwrap_or(0);
            let line_end = if day.is_empty() { "" } else { "\n" };
            let _ = write!(text, "{line_end}  {today}  {}", " ".repeat(skipped.min(MOST_A_DAY)));
            day = today;
        }
        text.push(match release.outcome {
            "Promoted" => ON,
            "RolledBack" => REVERTED,
            _ => PAUSED,
        });
    }
    let _ = writeln!(text, "\n  {REVERTED} reverted  {PAUSED} paused, for a person to decide  {ON} promoted");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_is_seen_in_a_bar() {
        assert_eq!(widths([198, 2, 0], 200), [47, 1, 0]);
        assert_eq!(widths([1, 1, 998], 1000), [1, 1, 46]);
        assert_eq!(widths([1, 1, 1], 1_000_000), [1, 1, 1]);
        assert_eq!((widths([0, 0, 0], 10), widths([0, 0, 10], 10)), ([0, 0, 0], [0, 0, 48]));
    }

    #[test]
    fn shares_have_no_more_digits_than_they_tell() {
        assert_eq!(
            (per_cent(0.0), per_cent(0.005), per_cent(0.995), per_cent(1.0)),
            ("0%".into(), "0.5%".into(), "99.5%".into(), "100%".into())
        );
        assert_eq!((per_cent(0.123), time(104.4)), ("12%".into(), "1m44s".into()));
    }
}
