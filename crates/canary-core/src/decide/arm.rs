//! Between releases: whether the target can be held, whether the hold works, which version serves,
//! and whether the target asks for another one. It starts a release; it never moves traffic.

use canary_api::{Counted, Gate, HoldStatus, JobAt, Percent, ReleaseStatus, Step, Version, names};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

use super::{beside, jobs, tick::Tick};
use crate::{
    canary,
    gates::{self, Judged, Measure, Verdict},
    object,
    observed::{Fetched, Hold},
    plan,
    route::{self, Split},
    serving::{self, Serving},
    template,
};

pub(super) fn advance(tick: &mut Tick<'_>) {
    let Some(target) = reachable(tick) else { return };
    forget_another_target(tick, target);
    if let Some(fault) = plan::faults(tick.spec, tick.namespace(), tick.seen.names_pods).into_iter().next() {
        return tick.obstacle("InvalidSpec", fault, true);
    }
    if let Some(problem) = &tick.seen.provider_problem {
        return tick.obstacle("ProviderUnknown", problem.clone(), true);
    }
    if taken_by_another(tick) || !splittable(tick, target) {
        return;
    }
    if tick.status.hold.as_ref().is_none_or(|hold| hold.serving.is_none()) && !take_stock(tick, target) {
        return;
    }
    if prove(tick, target) {
        return look_for_candidate(tick, target);
    }
    notice_ungated(tick, target);
}

/// A hold that does not work does not hide what got through it.
fn notice_ungated(tick: &mut Tick<'_>, target: &Value) {
    let held =
        object::truth(target, "/spec/paused") || object::annotation(target, names::ANNOTATION_OVERRIDE).is_some();
    let Some(served) = tick.serving_template().filter(|_| !held) else { return };
    if template::same(&served, serving::template_of(target)) {
        return;
    }
    let obstacle = tick.obstacle.take();
    ungated(tick, target, "Ungated");
    tick.obstacle = obstacle.or(tick.obstacle.take());
}

/// The target, where it was read and is there.
fn reachable<'a>(tick: &mut Tick<'a>) -> Option<&'a Value> {
    match &tick.seen.target {
        Fetched::Known(target) if !object::deleting(target) => Some(target),
        Fetched::Failed(why) => {
            tick.obstacle(
                "TargetUnreadable",
                format!("Deployment {} could not be read: {why}", tick.spec.target.name),
                false,
            );
            None
        }
        _ => {
            tick.status.hold = None;
            let message = format!(
                "there is no Deployment {} in namespace {}: create it, or correct spec.target.name",
                tick.spec.target.name,
                tick.namespace()
            );
            tick.obstacle("TargetNotFound", message, true);
            None
        }
    }
}

/// A target that was deleted and created again is a new baseline: what it runs now serves.
fn forget_another_target(tick: &mut Tick<'_>, target: &Value) {
    if tick.status.hold.as_ref().is_some_and(|hold| hold.target_uid != object::uid(target)) {
        tick.warn(
            "TargetReplaced",
            format!(
                "Deployment {} was created again: what it runs now is taken for the serving version",
                object::name(target)
            ),
        );
        tick.status.hold = None;
    }
}

fn taken_by_another(tick: &mut Tick<'_>) -> bool {
    let rivals = match &tick.seen.rivals {
        Fetched::Known(rivals) => rivals,
        Fetched::Missing => return false,
        Fetched::Failed(why) => {
            tick.obstacle(
                "RivalsUnreadable",
                format!("the namespace's CanaryReleases could not be listed: {why}"),
                false,
            );
            return true;
        }
    };
    let created =
        tick.seen.release.metadata.creation_timestamp.as_ref().map_or_else(String::new, |time| time.0.to_string());
    let first = rivals
        .iter()
        .filter(|rival| rival.uid != tick.uid())
        .min_by_key(|rival| (rival.created.clone(), rival.name.clone()));
    let Some(first) =
        first.filter(|rival| (rival.created.as_str(), rival.name.as_str()) < (created.as_str(), tick.name()))
    else {
        return false;
    };
    let message = format!(
        "CanaryRelease {} already releases Deployment {}: delete one of the two",
        first.name, tick.spec.target.name
    );
    tick.obstacle("TargetTaken", message, true);
    true
}

/// Whether the traffic can be split as asked: Service, labels, routes, policies.
fn splittable(tick: &mut Tick<'_>, target: &Value) -> bool {
    if object::integer(target, "/spec/revisionHistoryLimit", 10) == 0 {
        tick.obstacle("NoHistory", format!("Deployment {} has revisionHistoryLimit 0: a version that is scaled to zero would be lost; set it to 1 or more", object::name(target)), true);
        return false;
    }
    let service = match &tick.seen.service {
        Fetched::Known(service) => service,
        Fetched::Missing => {
            tick.obstacle(
                "ServiceNotFound",
                format!("there is no Service {} in namespace {}", tick.spec.traffic.service, tick.namespace()),
                true,
            );
            return false;
        }
        Fetched::Failed(why) => {
            tick.obstacle(
                "ServiceUnreadable",
                format!("Service {} could not be read: {why}", tick.spec.traffic.service),
                false,
            );
            return false;
        }
    };
    if !canary::selects(service, target) {
        tick.obstacle(
            "ServiceSelectsOthers",
            format!(
                "Service {} does not select the pods of Deployment {}",
                object::name(service),
                object::name(target)
            ),
            true,
        );
        return false;
    }
    match canary::overlay(target, service, &tick.spec.canary.labels) {
        Ok(overlay) => tick.overlay = overlay,
        Err(why) => {
            tick.obstacle("CanaryNotApart", why, true);
            return false;
        }
    }
    if tick.spec.baseline.pods
        && let Err(why) = canary::beside(target, service, &tick.overlay)
    {
        tick.obstacle("BaselineNotApart", why, true);
        return false;
    }
    routes_fit(tick) && names_are_free(tick) && policies_reach_the_canary(tick, target)
}

fn routes_fit(tick: &mut Tick<'_>) -> bool {
    for (name, fetched) in &tick.seen.routes {
        let problem = match fetched {
            Fetched::Missing => {
                Some(("RouteNotFound", format!("there is no HTTPRoute {name} in namespace {}", tick.namespace()), true))
            }
            Fetched::Failed(why) => {
                Some(("RouteUnreadable", format!("HTTPRoute {name} could not be read: {why}"), false))
            }
            Fetched::Known(route)
                if object::annotation(route, names::ANNOTATION_UID).is_some_and(|uid| uid != tick.uid()) =>
            {
                let other = object::label(route, names::LABEL_RELEASE).unwrap_or("another");
                Some((
                    "RouteTaken",
                    format!(
                        "HTTPRoute {name} is split by CanaryRelease {other}: it is looked at again when that release is over; if there is no such CanaryRelease, take the label {} off the route in a write with the annotation {}: <reason>, and its marks in another",
                        names::LABEL_RELEASE,
                        names::ANNOTATION_OVERRIDE
                    ),
                    false,
                ))
            }
            Fetched::Known(route) => match tick.with_pair(|pair| route::split(route, pair)) {
                Split::Absent => Some((
                    "RouteWithoutService",
                    format!("HTTPRoute {name} has no rule that sends traffic to Service {}", tick.spec.traffic.service),
                    true,
                )),
                Split::Foreign(what) => Some((
                    "RouteAlreadySplit",
                    format!(
                        "HTTPRoute {name}: {what}; a rule must send its traffic to Service {} alone",
                        tick.spec.traffic.service
                    ),
                    true,
                )),
                Split::Plain | Split::Even(_) | Split::Beside(_) | Split::Uneven(_) => None,
            },
        };
        if let Some((reason, message, stalled)) = problem {
            tick.obstacle(reason, message, stalled);
            return false;
        }
    }
    true
}

/// An object of a name that we would use and that is not ours is refused, never adopted.
fn names_are_free(tick: &mut Tick<'_>) -> bool {
    let uid = tick.uid();
    let seen = tick.seen;
    let beside = [&seen.baseline.deployment, &seen.baseline.service].map(|object| (object, "BaselineNameTaken"));
    let canary = [&seen.canary, &seen.canary_service].map(|object| (object, "CanaryNameTaken"));
    let beside = beside.into_iter().filter(|_| tick.spec.baseline.pods);
    let kinds = ["Deployment", "Service", "Deployment", "Service"];
    for (kind, (fetched, reason)) in kinds.into_iter().zip(canary.into_iter().chain(beside)) {
        if let Some(object) = fetched.known()
            && object::annotation(object, names::ANNOTATION_UID) != Some(uid)
        {
            tick.obstacle(
                reason,
                format!("{kind} {} exists and is not this CanaryRelease's: delete or rename it", object::name(object)),
                true,
            );
            return false;
        }
    }
    true
}

fn policies_reach_the_canary(tick: &mut Tick<'_>, target: &Value) -> bool {
    let Fetched::Known(policies) = &tick.seen.network_policies else { return true };
    if tick.spec.canary.allow_unselected {
        return true;
    }
    let beside = tick.baseline_overlay().map(|overlay| (overlay, "baseline", "BaselineNotSelected"));
    let all = [(tick.overlay.clone(), "canary's", "CanaryNotSelected")].into_iter().chain(beside);
    for (overlay, whose, reason) in all {
        let missed = canary::not_selected(policies, target, &overlay);
        if !missed.is_empty() {
            let message = format!(
                "{} would not reach the {whose} pods ({}): give spec.canary.labels that it selects, or set spec.canary.allowUnselected",
                missed.join(", "),
                canary::show(&overlay)
            );
            tick.obstacle(reason, message, true);
            return false;
        }
    }
    true
}

/// Finds out which version serves, before anything else is done.
fn take_stock(tick: &mut Tick<'_>, target: &Value) -> bool {
    if let Some(owner) = paused_by(target) {
        tick.obstacle(
            "PausedByAnother",
            format!(
                "Deployment {} is paused by {owner}: resume it, or take `paused` out of its manifest",
                object::name(target)
            ),
            true,
        );
        return false;
    }
    if tick.unread("the ReplicaSets", &tick.seen.replica_sets) {
        tick.obstacle("ReplicaSetsUnreadable", tick.waiting.clone().unwrap_or_default(), false);
        return false;
    }
    let held = object::truth(target, "/spec/paused");
    let sets = tick.seen.replica_sets.list();
    let set = match serving::serving(sets, object::uid(target)) {
        Serving::One(set)
            if held
                || (serving::rolled_out(target)
                    && template::same(serving::template_of(set), serving::template_of(target))) =>
        {
            set
        }
        Serving::None if object::integer(target, "/spec/replicas", 1) == 0 && !held => {
            match serving::with_template(sets, object::uid(target), serving::template_of(target)) {
                Some(set) => set,
                None => return wait_for_rollout(tick, target),
            }
        }
        _ => return wait_for_rollout(tick, target),
    };
    let version = Tick::version(
        serving::template_of(set),
        object::name(set),
        object::annotation(target, names::ANNOTATION_CHANGED_BY).unwrap_or_default(),
    );
    // A new baseline: how an earlier release ended says nothing of it.
    if matches!(tick.status.outcome.as_str(), "RolledBack" | "Aborted" | "Superseded") {
        tick.status.outcome.clear();
        tick.status.observed_template.clone_from(&version.digest);
    }
    tick.status.hold = Some(HoldStatus {
        serving_record: record_name(tick.name(), &version),
        serving: Some(version),
        target_uid: object::uid(target).to_owned(),
        ..HoldStatus::default()
    });
    true
}

/// The name of the ControllerRevision that keeps a version's template.
pub(super) fn record_name(release: &str, version: &Version) -> String {
    let digest = version.digest.chars().skip("sha256:".len());
    let short: String = digest.filter(|c| c.is_ascii_digit() || ('a'..='f').contains(c)).take(8).collect();
    names::derived(release, &format!("-serving-{short}"))
}

fn wait_for_rollout(tick: &mut Tick<'_>, target: &Value) -> bool {
    let message = format!(
        "Deployment {} is rolling: it is held once exactly one version runs and all its pods are available",
        object::name(target)
    );
    tick.obstacle("TargetRolling", message, false);
    tick.wake(Duration::from_secs(5));
    false
}

/// Who else owns `spec.paused`, by field manager. What admission sets is owned by no one.
fn paused_by(target: &Value) -> Option<&str> {
    object::items(target, "/metadata/managedFields")
        .find(|entry| {
            object::text(entry, "/manager") != names::FIELD_MANAGER
                && entry.pointer("/fieldsV1/f:spec/f:paused").is_some()
        })
        .map(|entry| object::text(entry, "/manager"))
        .filter(|_| object::truth(target, "/spec/paused"))
}

/// Whether the target is labelled and the hold is proved with the policies of now.
fn prove(tick: &mut Tick<'_>, target: &Value) -> bool {
    let policies = tick.seen.policies.clone();
    let fence = canary::show(&tick.overlay);
    let missed = tick
        .seen
        .network_policies
        .known()
        .map(|policies| canary::not_selected(policies, target, &tick.overlay))
        .unwrap_or_default();
    let hold = tick.status.hold.get_or_insert_default();
    hold.fence = fence;
    hold.canary_not_selected = missed;
    let labelled = object::label(target, names::LABEL_RELEASE)
        == Some(&names::label_value(tick.seen.release.metadata.name.as_deref().unwrap_or_default()))
        && object::annotation(target, names::ANNOTATION_UID) == tick.seen.release.metadata.uid.as_deref();
    if !labelled {
        hold.armed = false;
        tick.obstacle("Arming", format!("Deployment {} is being labelled", tick.spec.target.name), false);
        tick.wake(Duration::from_millis(200));
        return false;
    }
    match &tick.seen.hold {
        Hold::Works(with) => {
            let first = !hold.armed;
            hold.armed = true;
            hold.proved_with.clone_from(with);
            if first {
                tick.note(
                    "Armed",
                    format!(
                        "Deployment {} is held from now on: the next change of its template starts a release",
                        tick.spec.target.name
                    ),
                );
            }
            true
        }
        // Right after a start the policies are not known yet: the proof stands until they are.
        Hold::NotTried if hold.armed && (hold.proved_with == policies || policies.is_empty()) => true,
        Hold::NotTried => {
            tick.obstacle("ProvingHold", "the hold is being proved", false);
            tick.wake(Duration::from_millis(200));
            false
        }
        Hold::Fails(why) => {
            hold.armed = false;
            hold.proved_with = String::new();
            tick.obstacle("HoldNotInstalled", format!("a changed template of Deployment {} would roll out at once ({why}): install the admission policies with `kubectl apply -f deploy/`", tick.spec.target.name), true);
            false
        }
    }
}

/// Compares what the target asks for with what serves.
fn look_for_candidate(tick: &mut Tick<'_>, target: &Value) {
    // Which version serves stands in the ReplicaSets: without them nothing is judged.
    if tick.unread("the ReplicaSets", &tick.seen.replica_sets) {
        return;
    }
    let held = object::truth(target, "/spec/paused");
    let wanted = serving::template_of(target);
    let Some(served) = tick.serving_template() else {
        // A record that is still being written, or both it and the ReplicaSet were deleted by someone.
        tick.waiting = Some("the serving version's template is not to be found".to_owned());
        tick.wake(Duration::from_secs(2));
        return;
    };
    let same = template::same(wanted, &served);
    if object::annotation(target, names::ANNOTATION_OVERRIDE).is_some() {
        return overridden(tick, target, same);
    }
    match (held, same) {
        (false, true) => at_rest(tick, target),
        (false, false) => ungated(tick, target, "Ungated"),
        // A person's own pause: nothing waits behind it.
        (true, true) if object::annotation(target, names::ANNOTATION_CHANGED_BY).is_none() => at_rest(tick, target),
        // Converge un-pauses: the serving template was put back, which costs no pod.
        (true, true) => put_back(tick, wanted),
        (true, false) => held_back(tick, target, wanted),
    }
}

/// Nothing to do; the ReplicaSet's name and a sleep at zero pods are kept up to date.
fn at_rest(tick: &mut Tick<'_>, target: &Value) {
    let asleep = object::integer(target, "/spec/replicas", 1) == 0;
    let newest = match serving::serving(tick.seen.replica_sets.list(), object::uid(target)) {
        Serving::One(set) => Some(object::name(set).to_owned()),
        Serving::None | Serving::Mixed => None,
    };
    if let Some(hold) = &mut tick.status.hold {
        hold.asleep = asleep;
        hold.holds_rejected = false;
        if let (Some(serving), Some(newest)) = (&mut hold.serving, newest) {
            serving.replica_set = newest;
        }
    }
    let digest = template::digest(serving::template_of(target));
    // It was let go in a tick that could not say so: what superseded the candidate asks for nothing.
    if tick.status.outcome == "Superseded" {
        return nothing_to_release(tick, digest);
    }
    let speaks_of_another =
        tick.status.current.as_ref().is_none_or(|last| last.revert.is_none() && last.candidate.digest != digest);
    if speaks_of_another {
        tick.status.observed_template = digest;
    }
}

fn put_back(tick: &mut Tick<'_>, wanted: &Value) {
    let digest = template::digest(wanted);
    if tick.status.observed_template != digest {
        nothing_to_release(tick, digest);
    }
    tick.wake(Duration::from_millis(500));
}

fn nothing_to_release(tick: &mut Tick<'_>, digest: String) {
    tick.note("PutBack", "the serving version's template was written back: nothing to release");
    tick.status.observed_template = digest;
    tick.status.outcome = "Promoted".to_owned();
}

/// A change that ran without us: said, and taken for the serving version once it is complete.
fn ungated(tick: &mut Tick<'_>, target: &Value, outcome: &'static str) {
    let digest = template::digest(serving::template_of(target));
    if tick.status.observed_template != digest || tick.status.outcome != outcome {
        let text = format!("Deployment {} runs a template that was not released in stages", object::name(target));
        tick.warn(outcome, text.clone());
        tick.status.observed_template = digest.clone();
        tick.status.outcome = outcome.to_owned();
        remember(tick, format!("{outcome} {digest}: {text}"));
    }
    tick.status.hold = None;
    if take_stock(tick, target) {
        tick.wake(Duration::from_millis(200));
    }
}

/// Break-glass: recorded, then the target is taken as it is.
fn overridden(tick: &mut Tick<'_>, target: &Value, same: bool) {
    let reason = object::annotation(target, names::ANNOTATION_OVERRIDE).unwrap_or_default();
    let by = object::annotation(target, names::ANNOTATION_OVERRIDE_BY).unwrap_or("someone unknown");
    let digest = template::digest(serving::template_of(target));
    if tick.status.outcome != "Overridden" || tick.status.observed_template != digest {
        let text = format!("{by} overrode the hold of Deployment {}: {reason}", object::name(target));
        tick.warn("Overridden", text.clone());
        remember(tick, format!("Overridden {digest}: {text}"));
        tick.status.outcome = "Overridden".to_owned();
        tick.status.observed_template = digest;
    }
    // Still paused: whoever overrode it may resume it, which wakes us.
    if !same && !object::truth(target, "/spec/paused") {
        tick.status.hold = None;
        take_stock(tick, target);
    }
}

/// A template that waits: rejected before, or the next candidate.
fn held_back(tick: &mut Tick<'_>, target: &Value, wanted: &Value) {
    let digest = template::digest(wanted);
    if object::integer(target, "/spec/replicas", 1) == 0 {
        let asleep = tick.status.hold.as_ref().is_some_and(|hold| hold.asleep);
        if asleep {
            tick.note(
                "TakenAsleep",
                format!("Deployment {} has no pods: its new template is taken without a release", object::name(target)),
            );
            tick.status.outcome = "Ungated".to_owned();
        } else {
            tick.warn("ScaledToZero", format!("Deployment {} was scaled to zero while held: the serving version's template is written back, so that it is what comes back; apply {digest} again when pods run", object::name(target)));
            tick.status.outcome = "Aborted".to_owned();
        }
        tick.status.observed_template = digest;
        tick.waiting = Some("the target has no pods".to_owned());
        tick.wake(Duration::from_millis(500));
        return;
    }
    if tick.unread("the ReplicaSets", &tick.seen.replica_sets) {
        return;
    }
    let rejected = rejection(tick, wanted);
    if let (Some(_), Some(by)) = (&rejected, tick.retry.clone()) {
        tick.note("Retried", format!("by {by}: the rejection is lifted"));
    } else if let Some(verdict) = rejected {
        let again = tick.status.hold.as_mut().is_some_and(|hold| !std::mem::replace(&mut hold.holds_rejected, true));
        if again || tick.status.observed_template != digest {
            tick.warn(
                "RejectedTemplateReapplied",
                format!("the template is one that was rejected ({verdict}): it is held and not released; change it, or give the command retry"),
            );
            tick.status.observed_template = digest;
            let outcome = match &verdict {
                verdict if verdict.contains(": Command:") => "Aborted",
                verdict if verdict.contains(": Overridden:") => "Overridden",
                _ => "RolledBack",
            };
            tick.status.outcome = outcome.to_owned();
        }
        return;
    }
    if super::release::overridden_route(tick).is_some() {
        tick.waiting = Some("an override that was left on a route is taken off".to_owned());
        tick.wake(Duration::from_millis(500));
        return;
    }
    start(tick, target, wanted);
}

/// The verdict on this template, where a ReplicaSet of the canary remembers one.
pub(super) fn rejection(tick: &Tick<'_>, wanted: &Value) -> Option<String> {
    let kept = rejected_set(tick, wanted).and_then(|set| object::annotation(set, names::ANNOTATION_REJECTED));
    // The last release's own verdict stands in the status too, should someone delete the canary.
    let last = tick.status.current.as_ref().filter(|last| last.candidate.digest == template::digest(wanted));
    let last = last.and_then(|last| Some((last, last.revert.as_ref().filter(|revert| revert.rejects)?)));
    kept.map(str::to_owned)
        .or_else(|| last.map(|(last, revert)| format!("{}: {}: {}", last.id, revert.reason, revert.message)))
}

/// The canary's ReplicaSet that remembers a rejection of this template.
pub(super) fn rejected_set<'a>(tick: &Tick<'a>, wanted: &Value) -> Option<&'a Value> {
    let canary = tick.canary()?;
    let remembers = |set: &&Value| object::annotation(set, names::ANNOTATION_REJECTED).is_some();
    serving::of(tick.seen.replica_sets.list(), object::uid(canary)).into_iter().filter(remembers).find(|set| {
        let overlay = object::annotation(set, names::ANNOTATION_OVERLAY)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        template::same(serving::template_of(set), &canary::template(wanted, &overlay))
    })
}

/// Starts a release of what the target asks for.
pub(super) fn start(tick: &mut Tick<'_>, target: &Value, wanted: &Value) {
    jobs::give_up(tick);
    let number = tick.status.current.as_ref().map_or(0, |last| last.number).saturating_add(1);
    let stable = tick.status.hold.as_ref().and_then(|hold| hold.serving.clone()).unwrap_or_default();
    let changed_by = object::annotation(target, names::ANNOTATION_CHANGED_BY).unwrap_or_default();
    let candidate = Tick::version(wanted, "", changed_by);
    let pods = i32::try_from(object::integer(target, "/spec/replicas", 1)).unwrap_or(i32::MAX);
    let id = format!("{}-{number}", tick.name());
    let by = if changed_by.is_empty() { "someone unknown" } else { changed_by };
    let (from, to) = (stable.images.join(", "), candidate.images.join(", "));
    tick.note("ReleaseStarted", format!("{id}: {to} after {from}, changed by {by}"));
    let first = tick.spec.jobs.iter().any(|job| job.at == JobAt::BeforeStart);
    let measures = tick.spec.baseline.duration.millis() > 0;
    let step = if measures || first { Step::Baseline } else { Step::Scale };
    tick.status.observed_template.clone_from(&candidate.digest);
    tick.status.outcome = String::new();
    tick.status.gates.clear();
    tick.status.current = Some(ReleaseStatus {
        id,
        number,
        candidate,
        stable,
        started: Some(tick.time()),
        target_pods: pods,
        canary_labels: tick.overlay.clone(),
        baseline_pods: beside::at_start(tick),
        weight: Percent::ZERO.to_string(),
        window_since: Some(tick.time()),
        ..ReleaseStatus::default()
    });
    tick.enter(step);
    super::release::count_pods(tick);
    tick.wake(Duration::ZERO);
}

/// One line for `history`, of which the last ten are kept.
pub(super) fn remember(tick: &mut Tick<'_>, line: String) {
    let at: Timestamp = tick.now;
    let seconds = at.round(jiff::Unit::Second).unwrap_or(at);
    tick.status.history.push(format!("{seconds} {line}"));
    let extra = tick.status.history.len().saturating_sub(10);
    tick.status.history.drain(..extra);
}

/// Judges the gates of the stage under way on this tick's readings.
pub(super) fn judge(tick: &mut Tick<'_>) {
    let weight = tick.status.current.as_ref().map_or(0.0, crate::traffic::weight);
    let share = if weight >= 1.0 { 1.0 } else { tick.seen.measured.share.unwrap_or(weight) };
    let judged = |gate: &Gate| {
        let reading = tick.seen.measured.of(&gate.name);
        gates::judge(gate, reading, share)
    };
    let applying = tick.spec.gates.iter().filter(|gate| gates::applies(gate, weight));
    tick.judged = applying.map(judged).collect();
    if let Some(why) = &tick.seen.measured.misrouted {
        misrouted(&mut tick.judged, why);
    }
    beside::say_compared_with(tick);
    tick.status.gates = tick.judged.iter().map(|judged| judged.shown.clone()).collect();
    let counts = tick.seen.measured.readings.iter().flat_map(|reading| {
        let side = |side: &str, measure: &Measure| counted(&reading.gate, side, measure);
        let proof = reading.proof.as_ref().and_then(|proof| side("proof", proof));
        let beside = reading.baseline_pods.as_ref().and_then(|measure| side("baseline", measure));
        [side("canary", &reading.canary), side("stable", &reading.stable), beside, proof]
    });
    let mut counts: Vec<Counted> = counts.flatten().collect();
    // A tick without data says nothing of what was counted before.
    let current = tick.current();
    let told = |sums: &Counted| counts.iter().any(|new| new.gate == sums.gate && new.side == sums.side);
    let kept: Vec<Counted> = current.counts.iter().filter(|sums| !told(sums)).cloned().collect();
    counts.extend(kept);
    counts.sort_by(|a, b| (&a.gate, &a.side).cmp(&(&b.gate, &b.side)));
    current.counts = counts;
    tick.current().observed_share = tick.seen.measured.share.map(gates::percent).unwrap_or_default();
}

/// A canary that does not get the traffic that was asked for has not been tried as was asked: nothing passes.
fn misrouted(judged: &mut [Judged], why: &str) {
    for judged in judged.iter_mut().filter(|judged| judged.verdict == Verdict::Pass) {
        judged.verdict = Verdict::Inconclusive;
        judged.shown.proved = false;
        judged.shown.verdict = judged.verdict.as_str().to_owned();
        judged.shown.rests_on = format!("{}; {why}", judged.shown.rests_on);
    }
}

/// A reading's sums for the status, from which a restarted operator goes on.
fn counted(gate: &str, side: &str, measure: &Measure) -> Option<Counted> {
    let sums = Counted { gate: gate.to_owned(), side: side.to_owned(), ..Counted::default() };
    match measure {
        Measure::Counted { n, k, seconds } | Measure::Partial { n, k, seconds, .. } => {
            Some(Counted { n: *n, k: *k, seconds: *seconds, ..sums })
        }
        Measure::Number { streak, .. } => Some(Counted { streak: *streak, ..sums }),
        Measure::NoData(_) | Measure::Error(_) => None,
    }
}
