//! Pods of the serving version beside the canary's: whether they are wanted, and when they may have weight. A release
//! never depends on them: where they are not ready in time, or are lost, the stage goes on without them, and gates
//! compare with the stable pods as they do in a release that has none.

use std::time::Duration;

use canary_api::{BaselinePods, Gate, Percent, Step, To, names};
use serde_json::Value;

use super::{release, tick::Tick};
use crate::{
    gates::{self, Measure, Reading, Verdict},
    object,
    observed::Fetched,
    pods,
    route::{Shares, WHOLE},
};

/// What a release has of baseline pods when it begins, if its spec asks for them.
pub(super) fn at_start(tick: &Tick<'_>) -> Option<BaselinePods> {
    let labels = tick.baseline_overlay()?;
    Some(BaselinePods { labels, weight: Percent::ZERO.to_string(), ..BaselinePods::default() })
}

/// The share that baseline pods have beside a canary with this weight: the same, where that leaves stable something.
const fn share_beside(weight: u32) -> u32 {
    if weight.saturating_mul(2) < WHOLE { weight } else { 0 }
}

/// Whether the stage under way is to have them.
pub(super) fn wanted(tick: &Tick<'_>) -> bool {
    let weight = tick.stage().map_or(0, |stage| stage.weight.permille());
    let present = tick.status.current.as_ref().and_then(|current| current.baseline_pods.as_ref());
    tick.spec.baseline.pods && share_beside(weight) > 0 && present.is_some_and(|beside| beside.left_out.is_empty())
}

/// Keeps how many there should be: as many as the canary needs.
pub(super) fn count(tick: &mut Tick<'_>, needed: i32) {
    if wanted(tick)
        && let Some(beside) = tick.beside()
    {
        beside.pods = beside.pods.max(needed);
    }
}

/// A stage begins: what kept them out of the last one is past.
pub(super) fn next_stage(tick: &mut Tick<'_>) {
    if let Some(beside) = tick.beside() {
        beside.left_out.clear();
        beside.awaited_since = None;
    }
}

/// Takes their weight away as soon as they can't carry it, or are not wanted any more.
pub(super) fn watch(tick: &mut Tick<'_>) {
    let Some(beside) = tick.status.current.as_ref().and_then(|current| current.baseline_pods.clone()) else { return };
    if tick.shares().baseline == 0 || !matches!(tick.step(), Step::Scale | Step::Shift | Step::Bake) {
        return;
    }
    if !tick.spec.baseline.pods {
        tick.note(
            "BaselineLeftOut",
            "spec.baseline.pods was taken away: gates compare with the stable pods".to_owned(),
        );
        leave_out(tick, "spec.baseline.pods was taken away");
        return;
    }
    // What can't be read is neither lost nor ready.
    let Fetched::Known(all) = &tick.seen.baseline.pods else { return };
    let ready = count_ready(all);
    let served = !tick.seen.baseline.service.missing();
    if ready < i64::from(beside.carried_by) || !served {
        let why = match served {
            true => format!("{ready} of {} baseline pods are ready", beside.carried_by),
            false => "the baseline pods' Service is gone".to_owned(),
        };
        return lost(tick, &why);
    }
    // They grew with the canary: what carries the weight now is what must not be lost.
    if ready >= i64::from(beside.pods)
        && let Some(beside) = tick.beside()
    {
        beside.carried_by = beside.pods;
    }
}

/// Traffic leaves what can't carry it; in a stage for as long as that lasts, before one only until it begins.
fn lost(tick: &mut Tick<'_>, why: &str) {
    if tick.step() != Step::Scale {
        return without(tick, "BaselineNotReady", why);
    }
    tick.warn("BaselineNotReady", format!("{why}: their traffic goes to stable"));
    tick.set_shares(Shares::from(tick.weight()));
    tick.wake(Duration::from_millis(500));
}

/// Whether the stage's weight may be written as far as they are concerned: they are ready, or not wanted, or it has
/// been waited for long enough and the stage goes on without them.
pub(super) fn settled(tick: &mut Tick<'_>) -> bool {
    if !wanted(tick) || ready(tick) {
        return true;
    }
    let now = tick.time();
    if let Some(beside) = tick.beside() {
        beside.awaited_since.get_or_insert(now);
    }
    let deadline = tick.spec.ready_deadline;
    let (ready, needed) = (count_ready(tick.seen.baseline.pods.list()), release::needed_for_stage(tick));
    if tick.in_step() >= deadline.std() {
        without(tick, "BaselineNotReady", &format!("{ready} of {needed} baseline pods were ready within {deadline}"));
        return true;
    }
    tick.wake(Duration::from_secs(1));
    tick.waiting = Some(format!(
        "{ready} of {needed} baseline pods are ready; {deadline} after the step began the stage goes on without them"
    ));
    false
}

/// How long a step has waited for others than the baseline pods: their lateness is nobody else's.
pub(super) fn waited(tick: &Tick<'_>) -> Duration {
    let beside = tick.status.current.as_ref().and_then(|current| current.baseline_pods.as_ref());
    match beside.and_then(|beside| beside.awaited_since.as_ref()) {
        Some(since) => tick.in_step().min(tick.since(Some(since))),
        None => tick.in_step(),
    }
}

/// Gives them their share beside the canary's weight, which was just set.
pub(super) fn give(tick: &mut Tick<'_>) {
    let (share, needed) = (share_beside(tick.weight()), release::needed_for_stage(tick));
    let may = wanted(tick);
    let Some(beside) = tick.beside() else { return };
    beside.awaited_since = None;
    if may {
        beside.weight = Percent::from_permille(share).to_string();
        beside.carried_by = i32::try_from(needed).unwrap_or(i32::MAX);
    }
}

/// Leaves them out of a stage whose gates found nothing to compare with: they are not measured. Whether that was so. What
/// could not be read may be there: it is none that they lack before the stage was extended, too.
pub(super) fn unmeasured(tick: &mut Tick<'_>, extended: bool) -> bool {
    let some = |measure: &Measure| gates::counts(measure, false).is_some_and(|(requests, _)| requests > 0.0);
    let lacking = |measure: &Measure| !some(measure) && (extended || !matches!(measure, Measure::Error(_)));
    // Where the canary counts nothing either, it is not for them.
    let without_them =
        |reading: &Reading| some(&reading.canary) && lacking(reading.baseline_pods.as_ref().unwrap_or(&reading.stable));
    let silent = tick.judged.iter().filter(|judged| judged.verdict == Verdict::NoData).any(|judged| {
        let gate = tick.spec.gates.iter().find(|gate| gate.name == judged.shown.gate);
        let reading = tick.seen.measured.of(&judged.shown.gate);
        gate.is_some_and(compares) && reading.is_some_and(without_them)
    });
    let so = silent && tick.shares().baseline > 0;
    if so {
        without(tick, "BaselineNotMeasured", "nothing could be compared with the baseline pods");
    }
    so
}

/// Whether a gate's figures are not complete without those of the baseline pods.
fn compares(gate: &Gate) -> bool {
    gate.relative.as_ref().is_some_and(|rule| rule.to == To::Stable) || gate.event_rate.is_some()
}

/// What gates relative to Stable are compared with, for whoever reads their status. Nothing in a release that never had
/// baseline pods.
pub(super) fn say_compared_with(tick: &mut Tick<'_>) {
    let Some(beside) = tick.status.current.as_ref().and_then(|current| current.baseline_pods.as_ref()) else { return };
    let stable = match beside.left_out.as_str() {
        "" => "compared with all stable pods".to_owned(),
        why => format!("compared with all stable pods: {why}"),
    };
    let pods = beside.carried_by;
    for judged in &mut tick.judged {
        let gate = tick.spec.gates.iter().find(|gate| gate.name == judged.shown.gate);
        if !gate.and_then(|gate| gate.relative.as_ref()).is_some_and(|rule| rule.to == To::Stable) {
            continue;
        }
        let reading = tick.seen.measured.of(&judged.shown.gate);
        let with = match reading.is_some_and(|reading| reading.baseline_pods.is_some()) {
            true if pods == 1 => "compared with stable, 1 baseline pod".to_owned(),
            true => format!("compared with stable, {pods} baseline pods"),
            false => stable.clone(),
        };
        judged.shown.rests_on = format!("{}; {with}", judged.shown.rests_on);
    }
}

/// Whether as many as the stage needs are ready, long enough for gateways to know of them.
fn ready(tick: &Tick<'_>) -> bool {
    let needed = release::needed_for_stage(tick);
    let id = tick.status.current.as_ref().map_or("", |current| current.id.as_str());
    let ours = |object: &&Value| object::annotation(object, names::ANNOTATION_UID) == Some(tick.uid());
    let made = |object: &&Value| object::annotation(object, names::ANNOTATION_MADE_FOR) == Some(id);
    let deployment = tick.seen.baseline.deployment.known().filter(ours).filter(made);
    let settled = tick.seen.baseline.pods.list().iter().filter(|pod| pods::settled(pod, tick.now)).count();
    deployment.is_some_and(|deployment| release::rolled_out(deployment, needed))
        && tick.seen.baseline.service.known().filter(ours).is_some()
        && i64::try_from(settled).unwrap_or(0) >= needed
}

fn count_ready(all: &[Value]) -> i64 {
    i64::try_from(all.iter().filter(|pod| pods::ready(pod)).count()).unwrap_or(i64::MAX)
}

/// The stage goes on without them.
fn without(tick: &mut Tick<'_>, reason: &'static str, why: &str) {
    tick.warn(
        reason,
        format!("{why}: stage {} goes on without them, compared with all stable pods", tick.stage_text()),
    );
    leave_out(tick, why);
}

fn leave_out(tick: &mut Tick<'_>, why: &str) {
    let shares = Shares::from(tick.weight());
    if let Some(beside) = tick.beside() {
        beside.left_out = why.to_owned();
        beside.awaited_since = None;
    }
    tick.set_shares(shares);
    tick.wake(Duration::from_millis(500));
}
