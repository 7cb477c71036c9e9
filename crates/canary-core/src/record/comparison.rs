//! Both versions side by side: what the gates counted, how long requests took, CPU and memory, and the queries that the
//! spec names, each with its change and the interval of that. At the same time where the stage had a stable side, else
//! against the baseline, which never takes the place of the former. It tells; it decides nothing.

use canary_api::{Compared, Counted, Figure, Gate, ReleaseRecordStatus, ReleaseStatus, Step};
use canary_stats::{Estimate, ShareCounts, interval};

use super::{
    Tick,
    figures::{compared_with, counted, without_stable},
};
use crate::{
    figures::{Durations, Gauge},
    gates,
};

/// Of every interval here.
const CONFIDENCE: f64 = 0.95;
/// The quantiles that are told of each latency gate.
const QUANTILES: [(&str, f64); 2] = [("P95", 0.95), ("P99", 0.99)];
/// Of a side that has no figure.
const NOT_MEASURED: &str = "not measured";

/// Takes this tick's figures of a stage in; `stage` says which.
pub(super) fn take(record: &mut ReleaseRecordStatus, tick: &Tick<'_>, is: &ReleaseStatus, stage: &str) {
    for gate in &tick.spec.gates {
        of_counts(record, tick, is, gate, stage);
    }
    let figures = &tick.seen.measured.figures;
    let since = figures.since.map_or_else(String::new, |at| format!(", since {} UTC", at.strftime("%H:%M:%S")));
    let place = Place { stage: &format!("{stage}{since}"), alone: without_stable(tick) };
    // A reason may be none any more; one that still is comes again.
    if !figures.gauges.is_empty() {
        let reason = |row: &Compared| row.before == NOT_MEASURED && row.after == NOT_MEASURED;
        record.comparison.retain(|row| row.metric.contains(": ") || !reason(row));
    }
    for durations in &figures.durations {
        of_durations(record, tick, is, durations, place);
    }
    for gauge in &figures.gauges {
        of_gauge(record, gauge, place);
    }
    record.comparison.sort_by_key(|row| position(tick, &row.metric));
}

/// Takes figures of the stable version in before any traffic moves: what stages without a stable side are compared with.
pub(super) fn of_baseline(record: &mut ReleaseRecordStatus, tick: &Tick<'_>) {
    if !tick.was_in(&[Step::Baseline]) {
        return;
    }
    let measured = &tick.seen.measured.figures;
    let mut found = Vec::new();
    for durations in &measured.durations {
        let Ok(buckets) = &durations.stable else { continue };
        for (name, share) in QUANTILES {
            if let Ok(Some(estimate)) = buckets.quantile(share, CONFIDENCE, 1.0) {
                let rests_on = format!("{} requests", gates::trimmed(buckets.requests()));
                found.push(figure(&format!("{} {name}", durations.gate), durations.unit, estimate, rests_on));
            }
        }
    }
    for gauge in &measured.gauges {
        if let Some(estimate) = gauge.stable {
            let rests_on = format!("{}, {} looks", gauge.source, gauge.looks.1);
            found.push(figure(&gauge.name, &gauge.unit, estimate, rests_on));
        }
    }
    if !found.is_empty() {
        record.baseline_figures = found;
    }
}

fn figure(metric: &str, unit: &str, estimate: Estimate, rests_on: String) -> Figure {
    // Six digits: more are none of the figure's.
    let six = |number: f64| format!("{number:.5e}").parse().unwrap_or(number);
    let (value, low, high) = (estimate.value.map(six), estimate.low.map(six), estimate.high.map(six));
    Figure { high, low, metric: metric.to_owned(), rests_on, unit: unit.to_owned(), value }
}

/// Where a row's figures are of.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    stage: &'a str,
    /// Whether stable has no traffic.
    alone: bool,
}

impl Place<'_> {
    fn of(&self, with_baseline: bool) -> String {
        let with = if with_baseline { "against the baseline" } else { "at the same time" };
        format!("{with}, {}", self.stage)
    }
}

/// A metric's name without where its figures are of: by this a row is found again.
fn name(metric: &str) -> &str {
    metric.split_once(" (").map_or(metric, |(name, _)| name)
}

/// Gates in their order, each with its quantiles behind it; then CPU and memory, then queries in their order.
fn position(tick: &Tick<'_>, metric: &str) -> (usize, usize) {
    let name = name(metric);
    let gates = &tick.spec.gates;
    if let Some(at) =
        gates.iter().position(|gate| name.strip_prefix(&gate.name).is_some_and(|rest| rest.starts_with(": ")))
    {
        return (at, 0);
    }
    let quantile = |gate: &Gate| name.strip_prefix(&gate.name).and_then(|rest| rest.strip_prefix(" P"));
    if let Some(at) = gates.iter().position(|gate| quantile(gate).is_some()) {
        return (at, if name.ends_with("P95") { 1 } else { 2 });
    }
    let query = tick.spec.comparison.iter().position(|query| query.name == name);
    (gates.len(), query.map_or(0, |at| at.saturating_add(1)))
}

/// Puts a row in the place of the one of this name.
fn put(record: &mut ReleaseRecordStatus, row: Compared) {
    let known = record.comparison.iter_mut().find(|one| name(&one.metric) == name(&row.metric));
    match known {
        Some(before) => *before = row,
        None => record.comparison.push(row),
    }
}

fn known(record: &ReleaseRecordStatus, metric: &str) -> bool {
    record.comparison.iter().any(|row| name(&row.metric) == metric)
}

/// What a gate counted on both sides.
fn of_counts(record: &mut ReleaseRecordStatus, tick: &Tick<'_>, is: &ReleaseStatus, gate: &Gate, stage: &str) {
    let some = |sums: &&Counted| sums.n > 0.0;
    let canary = counted(&is.counts, &gate.name, "canary").filter(some);
    let prefix = format!("{}: ", gate.name);
    let known = record.comparison.iter().position(|one| one.metric.starts_with(&prefix));
    let baseline = is.baseline.iter().find(|sums| sums.gate == gate.name && sums.n > 0.0);
    let phi = dispersion(gate, is);
    let stable = compared_with(gate, &is.counts).filter(some).filter(|_| !without_stable(tick));
    let row = match (canary, stable, baseline) {
        (Some(canary), Some(stable), _) => compared(gate, canary, stable, phi, &format!("at the same time, {stage}")),
        (Some(canary), None, Some(before)) if known.is_none() => {
            compared(gate, canary, before, phi, &format!("against the baseline, {stage}"))
        }
        _ if gate.value.is_some() => unmeasured(gate, tick),
        _ => return,
    };
    match known.and_then(|at| record.comparison.get_mut(at)) {
        Some(before) => *before = row,
        None => record.comparison.push(row),
    }
}

/// By how much counts are divided because events come in bursts.
fn dispersion(gate: &Gate, is: &ReleaseStatus) -> f64 {
    let measured = is.baseline.iter().find(|sums| sums.gate == gate.name).and_then(|sums| sums.dispersion);
    gate.dispersion.or(measured).unwrap_or(1.0).max(1.0)
}

/// How long requests took, by the histogram of a latency gate.
fn of_durations(
    record: &mut ReleaseRecordStatus,
    tick: &Tick<'_>,
    is: &ReleaseStatus,
    durations: &Durations,
    place: Place<'_>,
) {
    let Some(gate) = tick.spec.gates.iter().find(|gate| gate.name == durations.gate) else { return };
    let phi = dispersion(gate, is);
    let canary = match &durations.canary {
        Ok(canary) => canary,
        Err(why) => {
            let metric = format!("{} P95 and P99", gate.name);
            let measured = QUANTILES.iter().any(|(quantile, _)| known(record, &format!("{} {quantile}", gate.name)));
            if !measured {
                put(record, not_measured(metric, why));
            }
            return;
        }
    };
    for (quantile, share) in QUANTILES {
        let estimate = |buckets: &canary_stats::Buckets| buckets.quantile(share, CONFIDENCE, phi).ok().flatten();
        let name = format!("{} {quantile}", gate.name);
        let Some(after) = estimate(canary) else { continue };
        let stable = durations.stable.as_ref().ok().filter(|_| !place.alone).and_then(estimate);
        side_by_side(record, &name, "", durations.unit, (stable, after), place);
    }
    let reason = format!("{} P95 and P99", gate.name);
    if QUANTILES.iter().any(|(quantile, _)| known(record, &format!("{} {quantile}", gate.name))) {
        record.comparison.retain(|row| row.metric != reason);
    }
}

fn of_gauge(record: &mut ReleaseRecordStatus, gauge: &Gauge, place: Place<'_>) {
    match gauge.canary {
        Some(after) => {
            let source = if gauge.source.is_empty() { String::new() } else { format!("{}, ", gauge.source) };
            let stable = gauge.stable.filter(|_| !place.alone);
            side_by_side(record, &gauge.name, &source, &gauge.unit, (stable, after), place);
        }
        None if !gauge.why.is_empty() && !known(record, &gauge.name) => {
            put(record, not_measured(gauge.name.clone(), &gauge.why));
        }
        None => {}
    }
}

fn not_measured(metric: String, why: &str) -> Compared {
    let none = || NOT_MEASURED.to_owned();
    Compared { after: none(), before: none(), change: format!("not known: {why}"), metric }
}

/// A row of both sides' estimates; of the candidate alone against the baseline, where no stage had a stable side.
fn side_by_side(
    record: &mut ReleaseRecordStatus,
    metric: &str,
    source: &str,
    unit: &str,
    (stable, after): (Option<Estimate>, Estimate),
    place: Place<'_>,
) {
    let baseline = || {
        let found = record.baseline_figures.iter().find(|figure| figure.metric == metric && figure.unit == unit)?;
        Some(Estimate { value: found.value, low: found.low, high: found.high })
    };
    let before = match stable {
        Some(stable) => Some((stable, false)),
        None if !place.alone || known(record, metric) => return,
        None => baseline().map(|before| (before, true)),
    };
    let row = match before {
        Some((before, with_baseline)) => Compared {
            after: shown(&after, unit),
            before: shown(&before, unit),
            change: change_of(&before, &after),
            metric: format!("{metric} ({source}{})", place.of(with_baseline)),
        },
        None => Compared {
            after: shown(&after, unit),
            before: NOT_MEASURED.to_owned(),
            change: "not known: stable had no traffic then, and there is no baseline".to_owned(),
            metric: format!("{metric} ({source}{})", place.stage),
        },
    };
    put(record, row);
}

/// `0.18s (0.1s to 0.25s)`; `> 10s` where only that is known.
fn shown(estimate: &Estimate, unit: &str) -> String {
    let told = |number: f64| in_unit(number, unit);
    match (estimate.value, estimate.low, estimate.high) {
        (Some(value), Some(low), Some(high)) => format!("{} ({} to {})", told(value), told(low), told(high)),
        (Some(value), Some(low), None) => format!("{} ({} or more)", told(value), told(low)),
        (Some(value), None, _) => told(value),
        (None, Some(low), _) => format!("> {}", told(low)),
        (None, None, _) => NOT_MEASURED.to_owned(),
    }
}

/// By how much an estimate differs from another, with the interval that both of theirs leave: from the one's lower end
/// against the other's upper end to the opposite.
fn change_of(before: &Estimate, after: &Estimate) -> String {
    let ratio = |after: Option<f64>, before: Option<f64>| Some(after? / before.filter(|before| *before > 0.0)?);
    let (least, most) = (ratio(after.low, before.high), ratio(after.high, before.low));
    let negative = [before, after].iter().any(|one| one.value.is_some_and(|value| value < 0.0));
    let Some(point) = ratio(after.value, before.value).filter(|_| !negative) else {
        let why = match (before.value, after.value) {
            (Some(_), Some(_)) => "there was nothing before, or a figure is negative",
            _ => "a figure lies above the histogram's last boundary",
        };
        let least = least.filter(|least| *least > 1.0 && !negative);
        return least.map_or_else(
            || format!("not to be told in per cent: {why}"),
            |least| format!("{} or more", signed(least)),
        );
    };
    match (after.low, before.low) {
        (Some(_), Some(_)) => {
            let least = signed(least.unwrap_or(0.0).max(0.0));
            let most = most.map_or_else(|| "no bound".to_owned(), signed);
            format!("{} ({least} to {most})", signed(point))
        }
        _ => format!("{} (looked at too seldom for an interval)", signed(point)),
    }
}

/// A number with its unit, three digits that count; bytes in their multiples.
fn in_unit(number: f64, unit: &str) -> String {
    if unit != "B" {
        return format!("{}{unit}", three_digits(number));
    }
    let mut number = number;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if number.abs() < 1024.0 {
            break;
        }
        (number, unit) = (number / 1024.0, next);
    }
    format!("{}{unit}", three_digits(number))
}

fn three_digits(number: f64) -> String {
    let size = number.abs();
    let text = match size {
        _ if size >= 100.0 => format!("{number:.0}"),
        _ if size >= 10.0 => format!("{number:.1}"),
        _ if size >= 1.0 => format!("{number:.2}"),
        _ if size >= 0.1 => format!("{number:.3}"),
        _ if size >= 0.01 => format!("{number:.4}"),
        _ => format!("{number:.6}"),
    };
    if !text.contains('.') {
        return text;
    }
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A value gate looks at the candidate alone.
fn unmeasured(gate: &Gate, tick: &Tick<'_>) -> Compared {
    let shown = tick.decision.status.gates.iter().find(|shown| shown.gate == gate.name);
    Compared {
        after: shown.map_or_else(|| "none".to_owned(), |shown| shown.value.clone()),
        before: NOT_MEASURED.to_owned(),
        change: "not known: a value gate looks at the candidate only".to_owned(),
        metric: format!("{}: the value", gate.name),
    }
}

fn compared(gate: &Gate, canary: &Counted, stable: &Counted, phi: f64, place: &str) -> Compared {
    let what = match (&gate.error_rate, &gate.latency) {
        (Some(_), _) => "share of bad requests".to_owned(),
        (_, Some(rule)) => format!("share of requests slower than {}", rule.limit),
        _ => "events per 1000 requests".to_owned(),
    };
    let figure = |sums: &Counted| {
        let share = sums.k / sums.n;
        if gates::bounded(gate) { gates::percent(share) } else { gates::trimmed(share * 1000.0) }
    };
    Compared {
        after: figure(canary),
        before: figure(stable),
        change: change(canary, stable, phi),
        metric: format!("{}: {what} ({place})", gate.name),
    }
}

/// By how much the candidate's rate differs from stable's, with its interval. Of two counts of rare events, one's part
/// of their sum is binomial; the exact interval of that part (Clopper and Pearson) is one of the ratio of the rates.
/// Where events come in bursts, counts are divided by the dispersion first.
fn change(canary: &Counted, stable: &Counted, phi: f64) -> String {
    let (after, before) = (canary.k / phi, stable.k / phi);
    if after + before <= 0.0 {
        return "none on either side".to_owned();
    }
    let exposure = stable.n / canary.n;
    let part =
        ShareCounts::new(after + before, after).and_then(|counts| interval::clopper_pearson(&counts, CONFIDENCE));
    let Ok(part) = part else { return "not known: the counts make no sense".to_owned() };
    let ratio = |part: f64| part / (1.0 - part) * exposure;
    if before <= 0.0 {
        return format!("not to be told in per cent: none before (at least {})", signed(ratio(part.low)));
    }
    let high = if part.high < 1.0 { signed(ratio(part.high)) } else { "no bound".to_owned() };
    format!("{} ({} to {high})", signed(after / before * exposure), signed(ratio(part.low)))
}

/// A ratio as a change in per cent.
fn signed(ratio: f64) -> String {
    let percent = (ratio - 1.0) * 100.0;
    let percent = if percent.abs() < 0.05 { 0.0 } else { percent };
    format!("{percent:+.1}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(k: f64, n: f64) -> Counted {
        Counted { k, n, seconds: 60.0, ..Counted::default() }
    }

    #[test]
    fn a_change_has_an_interval_that_holds_it_and_says_where_there_is_none() {
        // The exact interval of 10 in 20 is 0.2720 to 0.7280.
        assert_eq!(change(&counted(10.0, 1000.0), &counted(10.0, 1000.0), 1.0), "+0.0% (-62.6% to +167.7%)");
        assert_eq!(change(&counted(0.0, 1000.0), &counted(0.0, 9000.0), 1.0), "none on either side");
        assert!(
            change(&counted(5.0, 100.0), &counted(0.0, 900.0), 1.0).starts_with("not to be told in per cent: none")
        );
        let none = change(&counted(0.0, 1000.0), &counted(50.0, 1000.0), 1.0);
        assert!(none.starts_with("-100.0% (-100.0% to -9"), "{none}");
        let (tight, wide) = (counted(100.0, 1e4), counted(100.0, 1e4));
        let width = |phi: f64| {
            let text = change(&tight, &wide, phi);
            let (low, high) = text.split_once('(').unwrap().1.trim_end_matches(')').split_once(" to ").unwrap();
            let number = |text: &str| text.trim_end_matches('%').parse::<f64>().unwrap();
            number(high) - number(low)
        };
        assert!(width(4.0) > 1.5 * width(1.0), "bursts make it wider");
    }
}
