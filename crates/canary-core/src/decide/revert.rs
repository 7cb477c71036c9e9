//! The way back: traffic first, then pods, then the target. The first write to anything but the
//! CanaryRelease is the route, and it waits for nothing.

use std::time::Duration;

use canary_api::{GateStatus, OnRevert, ReleaseStatus, RevertStatus, Step, names};
use serde_json::Value;

use super::{
    arm, jobs,
    release::{self, NotSwitched},
    tick::Tick,
};
use crate::{
    object,
    observed::Fetched,
    pods,
    route::{self, Split, WHOLE},
    serving, template,
};

/// Why a release is reverted.
#[derive(Debug, Clone)]
pub(super) struct Cause {
    reason: String,
    message: String,
    by: String,
    outcome: &'static str,
    rejects: bool,
}

impl Cause {
    fn new(reason: &str, message: String, by: impl Into<String>, outcome: &'static str, rejects: bool) -> Self {
        Self { reason: reason.to_owned(), message, by: by.into(), outcome, rejects }
    }

    pub(super) fn canary(reason: &str, message: String, rejects: bool) -> Self {
        Self::new(reason, message, "canary", "RolledBack", rejects)
    }

    pub(super) fn gone(reason: &str, message: String) -> Self {
        Self::new(reason, message, "target", "Aborted", false)
    }

    pub(super) fn overridden(by: &str, reason: &str, rejects: bool) -> Self {
        let message = format!("{by} overrode the hold: {reason}");
        Self::new("Overridden", message, format!("user {by}"), "Overridden", rejects)
    }

    pub(super) fn superseded(by: &str, put_back: bool) -> Self {
        let what =
            if put_back { "the serving version's template was written back" } else { "a newer template was written" };
        Self::new("Superseded", format!("{what} by {by}"), format!("user {by}"), "Superseded", false)
    }

    pub(super) fn job(name: &str, why: String) -> Self {
        Self::new("JobFailed", why, format!("job {name}"), "RolledBack", true)
    }

    pub(super) fn inconclusive(why: String) -> Self {
        Self::new("Inconclusive", why, "gates", "RolledBack", true)
    }

    pub(super) fn command(by: &str) -> Self {
        Self::new("Command", format!("aborted by {by}"), format!("user {by}"), "Aborted", true)
    }

    fn unknown(id: &str) -> Self {
        let why = format!("the status no longer tells of {id}, which has pods");
        Self::new("StatusLost", why, "status", "Aborted", false)
    }

    pub(super) fn deleted() -> Self {
        Self::new("Deleted", "the CanaryRelease is being deleted".to_owned(), "deletion", "Aborted", false)
    }
}

pub(super) fn reverting(tick: &Tick<'_>) -> bool {
    matches!(tick.step(), Step::Revert | Step::RevertDrain | Step::RevertTarget)
}

/// How the message of a breach ends that no stable side was there to compare with.
const NO_CONTROL: &str = "; no stable side had traffic to compare with";

/// The reason of a gate's breach, by its message: a route remembers no more than that.
fn breach_reason(message: &str) -> &'static str {
    if message.ends_with(NO_CONTROL) { "BreachWithoutControl" } else { "GateBreached" }
}

/// A gate broke: the tick that sees it acts on it.
pub(super) fn breached(tick: &mut Tick<'_>, gate: &GateStatus) {
    let at = if tick.step() == Step::Soak {
        "the soak after promotion".to_owned()
    } else {
        format!("stage {}", tick.stage_text())
    };
    let mut message =
        format!("gate {}: {} where {} is allowed, at {at} ({})", gate.gate, gate.value, gate.limit, gate.rests_on);
    if tick.weight() == WHOLE {
        message.push_str(NO_CONTROL);
    }
    begin(tick, Cause::new(breach_reason(&message), message, format!("gate {}", gate.gate), "RolledBack", true));
}

/// What a route is to remember of a revert: it is written in the same patch that takes the weight away, and only a
/// breach is more than a word that the route was written since. So a write that another operator has under way, of a
/// time before, conflicts.
pub(super) fn to_remember(tick: &Tick<'_>) -> Option<String> {
    let current = tick.status.current.as_ref()?;
    let revert = current.revert.as_ref()?;
    let breach = ["gate ", "job "].iter().any(|of| revert.by.starts_with(of));
    let text =
        if breach { format!("{}: {}", current.id, revert.message) } else { format!("{} is taken back", current.id) };
    Some(text.chars().take(500).collect())
}

/// A breach of this release that a route remembers and the status does not: its write failed then.
pub(super) fn forgotten_breach(tick: &Tick<'_>) -> Option<Cause> {
    let id = &tick.status.current.as_ref()?.id;
    let marks =
        tick.seen.routes.iter().filter_map(|(_, route)| object::annotation(route.known()?, names::ANNOTATION_BREACHED));
    let message = marks.into_iter().find_map(|mark| mark.strip_prefix(id.as_str())?.strip_prefix(": "))?;
    let (reason, by) = match message.starts_with("job ") {
        true => ("JobFailed", "job remembered by the route"),
        false => (breach_reason(message), "gate remembered by the route"),
    };
    Some(Cause::new(reason, message.to_owned(), by, "RolledBack", true))
}

/// A release that the cluster has and the status does not, since that was restored from a backup or written by a hand:
/// its traffic goes back and its pods drain as those of any other. What it was is read off the canary; what served
/// before is not known, so nothing is written back, and a template that is held begins anew.
pub(super) fn take_back_unknown(tick: &mut Tick<'_>) {
    let Some(canary) = tick.canary().filter(|canary| object::integer(canary, "/spec/replicas", 0) > 0) else { return };
    let made_for = object::annotation(canary, names::ANNOTATION_MADE_FOR).unwrap_or_default();
    let last = tick.status.current.as_ref().map_or(0, |last| last.number);
    let number = made_for.strip_prefix(tick.name()).and_then(|rest| rest.strip_prefix('-')?.parse::<i64>().ok());
    let number = number.unwrap_or(last).max(1);
    if tick.in_release() || (number <= last && !release::weighted(tick)) {
        return;
    }
    let id = format!("{}-{number}", tick.name());
    let pods = i32::try_from(object::integer(canary, "/spec/replicas", 0)).unwrap_or(i32::MAX);
    let candidate = Tick::version(serving::template_of(canary), "", "");
    tick.status.outcome.clear();
    tick.status.current = Some(ReleaseStatus {
        number,
        candidate,
        started: Some(tick.time()),
        canary_pods: pods,
        canary_labels: tick.overlay.clone(),
        split: true,
        id: id.clone(),
        ..ReleaseStatus::default()
    });
    let cause = forgotten_breach(tick).unwrap_or_else(|| Cause::unknown(&id));
    begin(tick, cause);
}

/// Whether the target runs the candidate, or begins to.
pub(super) fn rolls(tick: &Tick<'_>) -> bool {
    matches!(tick.step(), Step::Roll | Step::HandBack | Step::Drain | Step::Soak)
}

/// Begins to revert, in this tick.
pub(super) fn begin(tick: &mut Tick<'_>, cause: Cause) {
    let rolled = rolls(tick) && cause.outcome != "Overridden" && same_target(tick);
    let (at, stage) = (tick.time(), tick.stage_text());
    tick.warn("Reverting", format!("{}; traffic goes back to stable", cause.message));
    jobs::leave(tick, "the release was reverted");
    let current = tick.current();
    current.paused = None;
    current.revert = Some(RevertStatus {
        at,
        by: cause.by,
        clear_at: None,
        message: cause.message,
        outcome: cause.outcome.to_owned(),
        reason: cause.reason,
        rejects: cause.rejects,
        rolled,
        stage,
    });
    tick.enter(Step::Revert);
    share_out(tick);
    tick.wake(Duration::ZERO);
}

/// The weight on the way back: none, but for a target that already runs the candidate, which gets
/// what its ready pods of the serving version can carry.
fn share_out(tick: &mut Tick<'_>) {
    let rolled =
        tick.status.current.as_ref().and_then(|current| current.revert.as_ref()).is_some_and(|revert| revert.rolled);
    let mut weight = 0;
    let gone =
        !same_target(tick) || tick.target().is_none_or(|target| object::integer(target, "/spec/replicas", 1) == 0);
    // Pods that are gone carry nothing: whatever stable has is better.
    let dead = tick.seen.canary_pods.known().is_some_and(|all| !all.iter().any(pods::ready));
    if rolled && tick.weight() > 0 && !gone && !dead && !restored(tick) {
        let whole = tick.status.current.as_ref().map_or(1, |current| i64::from(current.target_pods)).max(1);
        let ready = serving_ready(tick).min(whole);
        let carried = ready.saturating_mul(i64::from(WHOLE)).checked_div(whole).unwrap_or(0);
        let left = WHOLE.saturating_sub(u32::try_from(carried).unwrap_or(WHOLE));
        weight = left.min(tick.weight()).min(given(tick));
    }
    tick.set_weight(weight);
}

/// The most that a route gives the canary now: another leader may have taken its weight away and not have been able to
/// say so, and a revert raises none.
fn given(tick: &Tick<'_>) -> u32 {
    let of = |fetched: &Fetched<Value>| match fetched {
        Fetched::Known(route) => match tick.with_pair(|pair| route::split(route, pair)) {
            Split::Even(share) | Split::Uneven(share) => share,
            Split::Beside(shares) => shares.canary,
            Split::Plain | Split::Absent => 0,
            Split::Foreign(_) => WHOLE,
        },
        Fetched::Missing => 0,
        Fetched::Failed(_) => WHOLE,
    };
    tick.seen.routes.iter().map(|(_, fetched)| of(fetched)).max().unwrap_or(WHOLE)
}

/// Whether the target is there, and is the one that the release began with. Where it could not be
/// read, it is taken to be.
fn same_target(tick: &Tick<'_>) -> bool {
    let Some(target) = tick.target() else { return !tick.seen.target.missing() };
    tick.status.hold.as_ref().is_none_or(|hold| hold.target_uid == object::uid(target))
}

/// Ready pods of the version that served before.
fn serving_ready(tick: &Tick<'_>) -> i64 {
    let Some(target) = tick.target() else { return 0 };
    let Some(served) = tick.status.current.as_ref().map(|current| current.stable.replica_set.clone()) else { return 0 };
    let sets = serving::of(tick.seen.replica_sets.list(), object::uid(target));
    let Some(old) = sets.iter().find(|set| object::name(set) == served) else { return 0 };
    sets.iter()
        .filter(|set| template::same(serving::template_of(set), serving::template_of(old)))
        .map(|set| serving::ready(set))
        .sum()
}

/// The template to write back: of the version that served when the release began.
pub(super) fn template_before(tick: &Tick<'_>) -> Option<Value> {
    let (target, current) = (tick.target()?, tick.status.current.as_ref()?);
    let sets = serving::of(tick.seen.replica_sets.list(), object::uid(target));
    let set = sets.into_iter().find(|set| object::name(set) == current.stable.replica_set);
    let served_before = |template: &Value| template::digest(template) == current.stable.digest;
    match set {
        Some(set) => Some(template::for_deployment(serving::template_of(set))),
        None => tick.serving_template().filter(served_before).or_else(|| {
            let name = arm::record_name(tick.name(), &current.stable);
            let record = tick.seen.serving_records.list().iter().find(|record| object::name(record) == name)?;
            record.pointer("/data/template").filter(|template| served_before(template)).cloned()
        }),
    }
}

pub(super) fn advance(tick: &mut Tick<'_>) {
    tick.wake(Duration::from_millis(500));
    match tick.step() {
        Step::Revert => traffic(tick),
        Step::RevertDrain => drain(tick),
        _ => target(tick),
    }
}

fn traffic(tick: &mut Tick<'_>) {
    share_out(tick);
    let rolled =
        tick.status.current.as_ref().and_then(|current| current.revert.as_ref()).is_some_and(|revert| revert.rolled);
    match release::switched(tick) {
        Ok(()) => {}
        // The route says it; a gateway that never answers keeps nobody from cleaning up.
        Err(NotSwitched::Unaccepted(_)) if tick.in_step() > Duration::from_secs(30) => {}
        Err(not) => {
            tick.waiting = Some(not.into_text());
            return;
        }
    }
    if rolled && same_target(tick) && !restored(tick) {
        tick.waiting = Some(format!("Deployment {} goes back to the serving version", tick.spec.target.name));
        return;
    }
    if tick.weight() > 0 {
        return;
    }
    if !super::converge::weights_back(tick).is_empty() {
        tick.waiting = Some("the routes are written, so that no write of before comes after".to_owned());
        return;
    }
    let now = tick.time();
    if let Some(revert) = &mut tick.current().revert {
        revert.clear_at = Some(now);
    }
    tick.enter(Step::RevertDrain);
}

/// Whether a target that ran the candidate runs the serving version again, all of it.
fn restored(tick: &Tick<'_>) -> bool {
    let (Some(target), Some(before)) = (tick.target(), template_before(tick)) else {
        return tick.seen.target.missing();
    };
    template::same(serving::template_of(target), &before) && serving::rolled_out(target)
}

fn drain(tick: &mut Tick<'_>) {
    if release::may_get_requests(tick) {
        return;
    }
    let due = tick.spec.drain.std();
    if tick.in_step() < due {
        tick.wake(due.saturating_sub(tick.in_step()));
        tick.waiting = Some(format!("the canary's requests end ({})", tick.spec.drain));
        return;
    }
    tick.current().canary_pods = 0;
    tick.enter(Step::RevertTarget);
    tick.wake(Duration::ZERO);
}

/// Whether pods that are being drained have weight on a route again: by a hand, or by a write that was under way when
/// the revert began. Then the drain begins again.
fn drains_again(tick: &mut Tick<'_>) -> bool {
    let again = release::weighted(tick);
    if again {
        tick.enter(Step::RevertDrain);
        tick.waiting = Some("a route gave the canary weight again: its requests have to end once more".to_owned());
    }
    again
}

fn target(tick: &mut Tick<'_>) {
    let kept = tick.canary().is_some_and(|canary| object::integer(canary, "/spec/replicas", 0) > 0);
    if kept && drains_again(tick) {
        return;
    }
    // What can't be seen is neither restored nor remembered, and it must not be called over.
    let seen = tick.seen;
    if tick.unread("the target", &seen.target)
        || tick.unread("the canary", &seen.canary)
        || tick.unread("the ReplicaSets", &seen.replica_sets)
    {
        return;
    }
    let done = super::converge::tidy(tick) && remembered(tick) && target_is_as_wanted(tick);
    if !done {
        tick.waiting = Some(
            "the canary is taken away, the routes are put back as they were, the target is held or restored".to_owned(),
        );
        return;
    }
    over(tick);
}

/// Whether the rejection is written down, where there is one.
pub(super) fn remembered(tick: &Tick<'_>) -> bool {
    let rejects =
        tick.status.current.as_ref().and_then(|current| current.revert.as_ref()).is_some_and(|revert| revert.rejects);
    // Where the canary never ran it and the target no longer asks for it, nothing is left to remember it by.
    let lost = tick.canary_made().is_none() && !tick.asks_for_candidate();
    !rejects
        || lost
        || tick.deleting()
        || canary_set(tick).is_some_and(|set| object::annotation(set, names::ANNOTATION_REJECTED).is_some())
}

/// The canary's ReplicaSet with the candidate's template.
pub(super) fn canary_set<'a>(tick: &Tick<'a>) -> Option<&'a Value> {
    let canary = tick.canary_made()?;
    // One that a hand changed is put right first: not what it made of it is rejected.
    let asked = tick.target_template().filter(|_| tick.asks_for_candidate());
    if asked.is_some_and(|wanted| tick.canary_runs(wanted) == Some(false)) {
        return None;
    }
    serving::with_template(tick.seen.replica_sets.list(), object::uid(canary), serving::template_of(canary))
}

/// Hold or Restore, as asked for, or as the target's owner suggests.
pub(super) fn mode(tick: &Tick<'_>) -> OnRevert {
    let gitops = tick.target().is_some_and(owned_by_gitops);
    tick.spec.on_revert.unwrap_or(if gitops { OnRevert::Hold } else { OnRevert::Restore })
}

fn owned_by_gitops(target: &Value) -> bool {
    let marks = ["argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/"];
    let metadata = ["/metadata/annotations", "/metadata/labels"]
        .into_iter()
        .flat_map(|field| object::strings(target, field).into_keys());
    metadata.into_iter().any(|key| marks.iter().any(|mark| key.starts_with(mark)))
        || object::items(target, "/metadata/managedFields").any(|entry| {
            matches!(object::text(entry, "/manager"), "argocd-controller" | "kustomize-controller" | "helm-controller")
        })
}

/// Whether this revert writes the serving template back.
pub(super) fn restores(tick: &Tick<'_>) -> bool {
    let Some(revert) = tick.status.current.as_ref().and_then(|current| current.revert.as_ref()) else { return false };
    let unknown = tick.status.current.as_ref().is_some_and(|current| current.stable.digest.is_empty());
    if tick.target().is_none() || !same_target(tick) || unknown {
        return false;
    }
    match revert.outcome.as_str() {
        "Superseded" | "Overridden" => false,
        _ if revert.rolled || revert.reason == "ScaledToZero" => true,
        _ if tick.deleting() => false,
        // What was written meanwhile is not ours to write over: it is the next candidate.
        _ => mode(tick) == OnRevert::Restore && tick.asks_for_candidate(),
    }
}

fn target_is_as_wanted(tick: &Tick<'_>) -> bool {
    if !restores(tick) {
        return true;
    }
    let (Some(target), Some(before)) = (tick.target(), template_before(tick)) else {
        return matches!(tick.seen.target, Fetched::Missing);
    };
    template::same(serving::template_of(target), &before)
        && !object::truth(target, "/spec/paused")
        && object::annotation(target, names::ANNOTATION_ROLLING).is_none()
}

fn over(tick: &mut Tick<'_>) {
    let Some(current) = tick.status.current.clone() else { return };
    let Some(revert) = current.revert else { return };
    let took = revert.clear_at.as_ref().map_or(0, |clear| clear.0.duration_since(revert.at.0).as_secs());
    let text = format!("{}: {}; all traffic on stable {took}s after it was seen", current.id, revert.message);
    tick.enter(Step::Done);
    tick.status.outcome.clone_from(&revert.outcome);
    match revert.outcome.as_str() {
        "RolledBack" => tick.warn("RolledBack", text.clone()),
        "Aborted" => tick.warn("Aborted", text.clone()),
        "Overridden" => tick.warn("Overridden", text.clone()),
        _ => tick.note("Superseded", text.clone()),
    }
    let name = tick.name();
    let held = tick.held();
    if let Some(hold) = &mut tick.status.hold {
        hold.holds_rejected = held && revert.rejects;
    }
    if revert.rolled
        && let Some(hold) = &mut tick.status.hold
    {
        hold.serving_record = arm::record_name(name, &current.stable);
        hold.serving = Some(current.stable);
    }
    arm::remember(tick, format!("{} {text}", revert.outcome));
    tick.wake(Duration::ZERO);
}
