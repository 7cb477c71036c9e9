//! Figures over time: of the whole release thinned, and around a rollback tick by tick. Few enough that a record stays
//! small, whatever the number of gates and however long a release takes. They are what was counted and judged at that
//! tick; a moment at which nothing was read has none.

use canary_api::{Gate, GateSeries, Point, Points, ReleaseRecordStatus, ReleaseStatus, Scope, Step, To};
use canary_stats::{ShareCounts, interval};

use super::{Tick, bound::cut};
use crate::{
    gates::{self, Measure, Reading},
    traffic,
};

/// Of the interval beside a share.
const CONFIDENCE: f64 = 0.95;
/// Moments of the whole release, over all gates; and of one gate, at least and at most.
const WHOLE: (usize, usize, usize) = (300, 24, 60);
/// Moments before a rollback's trigger, and as many after it.
const AROUND: (usize, usize, usize) = (180, 10, 30);
/// Longer than any unit that the definition allows.
const UNIT: usize = 24;

/// Takes this tick's figures in.
pub(super) fn take(record: &mut ReleaseRecordStatus, tick: &Tick<'_>) {
    let (Some(was), Some(started)) = (tick.was, record.started.as_ref()) else { return };
    let seconds = tick.at.0.duration_since(started.0).as_secs();
    let Ok(at) = u32::try_from(seconds.max(0)) else { return };
    let trigger = trigger(record);
    let (whole, around) = (share_of(WHOLE, tick.spec.gates.len()), share_of(AROUND, tick.spec.gates.len()));
    for gate in &tick.spec.gates {
        let Some(reading) = tick.seen.measured.of(&gate.name) else { continue };
        let Some(point) = point(gate, reading, tick, was, at) else { continue };
        if !record.series.iter().any(|series| series.gate == gate.name) {
            let (gate, unit) = (gate.name.clone(), cut(&unit(gate), UNIT));
            record.series.push(GateSeries { gate, unit, ..GateSeries::default() });
        }
        let Some(series) = record.series.iter_mut().find(|series| series.gate == gate.name) else { continue };
        keep_whole(&mut series.whole, &point, whole);
        keep_around(&mut series.around, &point, around, tick, trigger);
    }
}

/// What is kept of a release that was not rolled back: nothing went wrong that is to be looked at closely.
pub(super) fn close(record: &mut ReleaseRecordStatus) {
    if record.frozen && trigger(record).is_none() {
        record.series.iter_mut().for_each(|series| series.around = Points::default());
    }
}

/// Leaves so many moments of each at most; with none, nothing at all.
pub(super) fn thin(record: &mut ReleaseRecordStatus, most: usize) {
    if most == 0 {
        record.series.clear();
        return;
    }
    let trigger = trigger(record);
    for series in &mut record.series {
        series.whole = thinned(series.whole.read(), series.whole.every, most);
        let (before, after) = apart(series.around.read(), trigger);
        let around = [newest(before, most), thinned(after, series.around.every, most).read()].concat();
        series.around = Points::written(&around, series.around.every);
    }
}

fn share_of((all, least, most): (usize, usize, usize), gates: usize) -> usize {
    all.checked_div(gates).unwrap_or(most).clamp(least, most)
}

/// When this release's own rollback was triggered, in seconds since it began.
fn trigger(record: &ReleaseRecordStatus) -> Option<u32> {
    let started = record.started.as_ref()?;
    let own = record.rollbacks.iter().find(|rollback| rollback.id == record.id)?;
    let seconds = own.at.as_ref()?.0.duration_since(started.0).as_secs();
    u32::try_from(seconds.max(0)).ok()
}

fn unit(gate: &Gate) -> String {
    if gates::bounded(gate) {
        return "%".to_owned();
    }
    match (&gate.event_rate, &gate.value) {
        (Some(_), _) => "/min".to_owned(),
        (_, Some(rule)) => rule.unit.clone().unwrap_or_default(),
        _ => " per 1000 requests".to_owned(),
    }
}

/// One gate at this tick; none where nothing was counted on either side.
fn point(gate: &Gate, reading: &Reading, tick: &Tick<'_>, was: &ReleaseStatus, at: u32) -> Option<Point> {
    let reverting = matches!(was.step, Step::Revert | Step::RevertDrain | Step::RevertTarget | Step::Done);
    let alone = was.step == Step::Baseline || reverting;
    let mut point = Point { at, stage: stage(was), ..Point::default() };
    if !alone {
        of_canary(&mut point, gate, reading);
        let shown = tick.decision.status.gates.iter().find(|shown| shown.gate == gate.name);
        point.verdict = shown.and_then(|shown| shown.verdict.chars().next()).filter(|sign| "PBIN".contains(*sign));
    }
    let compared = gate.relative.as_ref().and(reading.baseline_pods.as_ref()).unwrap_or(&reading.stable);
    if (alone || traffic::weight(was) < 1.0)
        && let Some((n, k)) = gates::counts(compared, gates::bounded(gate))
    {
        point.stable = of_side(gate, n, k, gates::seconds(compared));
        if gate.error_rate.is_some() {
            (point.stable_requests, point.stable_events) = (Some(n), Some(k));
        }
    }
    if alone {
        point.verdict = point.stable.map(|_| 's');
    }
    limits(&mut point, gate, reading, tick, was);
    (point.value.is_some() || point.stable.is_some() || point.verdict.is_some_and(|sign| sign != 's')).then_some(point)
}

fn stage(was: &ReleaseStatus) -> u32 {
    let index = u32::try_from(was.stage_index).unwrap_or(0);
    match was.step {
        Step::Baseline => 0,
        // The stage before keeps its weight until the next one is given.
        Step::Scale => index,
        _ => index.saturating_add(1),
    }
}

fn of_canary(point: &mut Point, gate: &Gate, reading: &Reading) {
    if let Measure::Number { value, .. } = reading.canary {
        point.value = value.is_finite().then_some(value);
        return;
    }
    let bounded = gates::bounded(gate);
    let Some((n, k)) = gates::counts(&reading.canary, bounded) else { return };
    (point.requests, point.events) = ((n > 0.0).then_some(n), Some(k));
    let total = gate.event_rate.as_ref().is_some_and(|rule| rule.scope == Scope::Total);
    let others = gates::counts(&reading.stable, false).filter(|_| total).map_or(0.0, |(_, k)| k);
    point.value = of_side(gate, n, k + others, gates::seconds(&reading.canary));
    if bounded && n > 0.0 {
        let found = ShareCounts::new(n, k).and_then(|counts| interval::wilson(&counts, CONFIDENCE));
        point.interval = found.ok().map(|found| (found.low * 100.0, found.high * 100.0));
    }
}

/// The plain figure of one side, in the gate's unit.
fn of_side(gate: &Gate, n: f64, k: f64, seconds: f64) -> Option<f64> {
    let figure = if gate.event_rate.is_some() {
        k / seconds * 60.0
    } else if gates::bounded(gate) {
        k / n * 100.0
    } else {
        k / n * 1000.0
    };
    figure.is_finite().then_some(figure)
}

fn limits(point: &mut Point, gate: &Gate, reading: &Reading, tick: &Tick<'_>, was: &ReleaseStatus) {
    if let Some(rule) = &gate.error_rate {
        point.most = Some(rule.limit.fraction() * 100.0);
    } else if let Some(rule) = &gate.latency {
        point.most = Some((1.0 - rule.quantile.fraction()) * 100.0);
    } else if let Some(rule) = &gate.event_rate {
        let weight = traffic::weight(was);
        let share = if weight >= 1.0 { 1.0 } else { tick.seen.measured.share.unwrap_or(weight) };
        // Before any weight is given the limit is the whole service's.
        let part = if rule.scope == Scope::Total || share <= 0.0 { 1.0 } else { share };
        point.most = Some(rule.limit.per_minute() * part);
    } else if let Some(rule) = &gate.relative {
        let baseline = reading.baseline.as_ref().filter(|_| rule.to == To::Baseline);
        let before = baseline.and_then(|measure| gates::counts(measure, false));
        let other = before.and_then(|(n, k)| of_side(gate, n, k, 0.0)).or(point.stable);
        point.most = other.map(|other| other * (1.0 + rule.margin.fraction()));
    } else if let Some(rule) = &gate.value {
        (point.least, point.most) = (rule.min, rule.max);
    }
}

/// Puts a moment behind the others. The newest one gives way where it is nearer to the one before than `every` and no
/// stage ends with it.
fn keep_whole(points: &mut Points, point: &Point, most: usize) {
    let mut kept = points.read();
    match kept.last() {
        Some(last) if last.at > point.at => return,
        Some(last) if last.at == point.at => drop(kept.pop()),
        Some(last) => {
            let before = kept.len().checked_sub(2).and_then(|index| kept.get(index));
            let near = before.is_some_and(|before| last.at.saturating_sub(before.at) < points.every);
            if near && last.stage == point.stage {
                kept.pop();
            }
        }
        None => {}
    }
    kept.push(point.clone());
    *points = if kept.len() > most { thinned(kept, points.every, most) } else { Points::written(&kept, points.every) };
}

/// Takes every second moment away, and again, until few enough are left; the last of each stage stays.
fn thinned(mut kept: Vec<Point>, every: u32, most: usize) -> Points {
    let mut every = every;
    while kept.len() > most {
        let span = kept.last().zip(kept.first()).map_or(0, |(last, first)| last.at.saturating_sub(first.at));
        if every > span {
            kept = newest(kept, most);
            break;
        }
        let fair = span.checked_div(u32::try_from(most).unwrap_or(u32::MAX)).unwrap_or(0);
        every = every.saturating_mul(2).max(fair).max(1);
        kept = spaced(&kept, every);
    }
    Points::written(&kept, every)
}

fn spaced(points: &[Point], every: u32) -> Vec<Point> {
    let mut kept: Vec<Point> = Vec::new();
    for (index, point) in points.iter().enumerate() {
        let ends = points.get(index.saturating_add(1)).is_none_or(|next| next.stage != point.stage);
        let far = kept.last().is_none_or(|last| point.at.saturating_sub(last.at) >= every);
        if ends || far {
            kept.push(point.clone());
        }
    }
    kept
}

fn newest(mut points: Vec<Point>, most: usize) -> Vec<Point> {
    points.drain(..points.len().saturating_sub(most));
    points
}

/// Those up to the trigger, and those after it.
fn apart(points: Vec<Point>, trigger: Option<u32>) -> (Vec<Point>, Vec<Point>) {
    points.into_iter().partition(|point| trigger.is_none_or(|trigger| point.at <= trigger))
}

/// The newest ticks; once a rollback was triggered, those before it stay and those after it are thinned.
fn keep_around(points: &mut Points, point: &Point, most: usize, tick: &Tick<'_>, trigger: Option<u32>) {
    let mut kept = points.read();
    let tick_length = tick.spec.interval.std().as_secs_f64() * 0.8;
    match kept.last() {
        Some(last) if last.at > point.at => return,
        Some(last) if last.at == point.at => drop(kept.pop()),
        // Between two looks nothing new is known.
        Some(last) if last.verdict == point.verdict && f64::from(point.at.saturating_sub(last.at)) < tick_length => {
            return;
        }
        _ => {}
    }
    kept.push(point.clone());
    let (before, after) = apart(kept, trigger);
    let after =
        if after.len() > most { thinned(after, points.every, most) } else { Points::written(&after, points.every) };
    let every = after.every;
    *points = Points::written(&[newest(before, most), after.read()].concat(), every);
}
