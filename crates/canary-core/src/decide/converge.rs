//! From the status and what is there to the writes, in the order in which they are safe: traffic away
//! from a side before its pods, pods before traffic onto them. What a failed read would have to
//! decide is left alone.

use std::collections::BTreeMap;

use canary_api::{Step, names};
use serde_json::{Value, json};

use super::{arm, beside, release, revert, tick::Tick};
use crate::{
    Effect, Kind,
    canary::{self, Side},
    effect::{BESIDE, TRAFFIC_BACK},
    hpa,
    object::{self, Patch},
    observed::Fetched,
    route::{self, Split},
    serving, template,
};

pub(super) fn effects(tick: &mut Tick<'_>) {
    if tick.in_release() {
        of_release(tick);
    } else {
        at_rest(tick);
    }
}

fn of_release(tick: &mut Tick<'_>) {
    match tick.step() {
        Step::Baseline => freeze(tick),
        Step::Scale => {
            if tick.weight() == 0 {
                weights_down(tick);
            } else {
                weights(tick);
            }
            canary_up(tick);
            freeze(tick);
            budget(tick);
            baseline_up(tick);
        }
        Step::Shift | Step::Bake if tick.weight() == 0 => weights_down(tick),
        Step::Shift | Step::Bake => {
            if baseline_loses_weight(tick) {
                // No pod is waited for by traffic that has to leave one.
                weights(tick);
                canary_up(tick);
            } else {
                // Capacity before weight.
                canary_up(tick);
                weights(tick);
            }
            budget(tick);
            baseline_up(tick);
        }
        Step::Roll => {
            // All of the traffic is theirs until the target has taken it over.
            canary_up(tick);
            weights(tick);
            roll(tick);
        }
        Step::HandBack => weights(tick),
        Step::Drain => {
            if tick.status.current.as_ref().is_some_and(|current| current.canary_pods == 0) {
                clear_away(tick);
                end_roll(tick);
            } else {
                weights_down(tick);
            }
        }
        Step::Soak => {
            clear_away(tick);
            // The version before stays on record: a breach in the soak goes back to it.
            keep_record(tick, false);
        }
        Step::Revert => {
            weights_down(tick);
            if tick.weight() > 0 {
                name_canary(tick);
            }
            let revert = tick.status.current.as_ref().and_then(|current| current.revert.as_ref());
            let rolled = revert.is_some_and(|revert| revert.rolled);
            // One that was not let go after all harms nobody: the route comes first.
            if rolled && !(tick.held() && unread_route(tick)) {
                restore(tick, true);
            }
        }
        Step::RevertDrain => weights_down(tick),
        Step::RevertTarget => {
            clear_away(tick);
            remember_rejection(tick);
            // What is to be remembered is read off the target, so that goes first; and a route that can't be read may
            // still be written by an operator of before.
            if !unread_route(tick) && revert::restores(tick) && revert::remembered(tick) {
                restore(tick, false);
            }
        }
        Step::Done => {}
    }
}

/// Whether nothing of a release is left but canary and baseline at zero: to be asked before it is called over.
pub(super) fn tidy(tick: &Tick<'_>) -> bool {
    let routes = tick.seen.routes.iter().all(|(_, fetched)| match fetched {
        Fetched::Known(route) => tick.with_pair(|pair| route::undo(route, pair)).is_none(),
        Fetched::Missing => true,
        Fetched::Failed(_) => false,
    });
    let none = |fetched: &Fetched<Value>, ours: Option<&Value>| match fetched {
        Fetched::Known(_) => ours.is_none_or(|own| object::integer(own, "/spec/replicas", 0) == 0),
        Fetched::Missing => true,
        Fetched::Failed(_) => false,
    };
    let canary = none(&tick.seen.canary, tick.canary());
    let baseline = none(&tick.seen.baseline.deployment, tick.baseline());
    let scaler = match &tick.seen.autoscalers {
        Fetched::Known(all) => all.iter().all(|hpa| hpa::thaw(hpa, tick.uid()).is_none()),
        Fetched::Missing => true,
        Fetched::Failed(_) => false,
    };
    routes && canary && baseline && scaler
}

/// Routes without our entries, canary and baseline at zero, autoscaler as it was. Pods wait while a route gives them
/// weight, or can't be read.
pub(super) fn clear_away(tick: &mut Tick<'_>) {
    let (canary, baseline) = (tick.canary(), tick.baseline());
    let unloaded = !unread_route(tick) && !release::weighted(tick);
    undo_routes(tick);
    to_zero(tick, canary.filter(|_| unloaded), "take the canary's pods away");
    thaw(tick);
    to_zero(tick, baseline.filter(|_| unloaded), "take the baseline pods away");
}

/// Whether a route could not be read.
fn unread_route(tick: &Tick<'_>) -> bool {
    tick.seen.routes.iter().any(|(_, route)| matches!(route, Fetched::Failed(_)))
}

fn to_zero(tick: &mut Tick<'_>, own: Option<&Value>, why: &'static str) {
    if let Some(own) = own.filter(|own| object::integer(own, "/spec/replicas", 0) != 0) {
        let mut patch = Patch::guarded(own);
        patch.set("/spec/replicas", 0);
        tick.patch(Kind::Deployment, own, patch, why);
    }
}

pub(super) fn undo_routes(tick: &mut Tick<'_>) {
    for (name, fetched) in &tick.seen.routes {
        let Fetched::Known(route) = fetched else { continue };
        if let Some(patch) = tick.with_pair(|pair| route::undo(route, pair)) {
            tick.effects.push(Effect::Patch {
                kind: Kind::HttpRoute,
                name: name.clone(),
                patch,
                why: "put the route back as it was",
            });
        }
    }
}

pub(super) fn thaw(tick: &mut Tick<'_>) {
    for hpa in tick.seen.autoscalers.list() {
        if let Some(patch) = hpa::thaw(hpa, tick.uid()) {
            tick.effects.push(Effect::Patch {
                kind: Kind::HorizontalPodAutoscaler,
                name: object::name(hpa).to_owned(),
                patch,
                why: "give scale-down back",
            });
        }
    }
}

fn freeze(tick: &mut Tick<'_>) {
    let Some(hpa) = hpa::of(tick.seen.autoscalers.list(), &tick.spec.target.name) else { return };
    if let Some(patch) = hpa::freeze(hpa, tick.uid()) {
        tick.effects.push(Effect::Patch {
            kind: Kind::HorizontalPodAutoscaler,
            name: object::name(hpa).to_owned(),
            patch,
            why: "freeze scale-down for the release",
        });
    }
}

/// Whether this tick takes weight from baseline pods, and changes the canary's not.
fn baseline_loses_weight(tick: &Tick<'_>) -> bool {
    let (before, now) = (Tick::shares_of(&tick.before), tick.shares());
    before.canary == now.canary && now.baseline < before.baseline
}

/// Gives every route the weights that the status asks for.
fn weights(tick: &mut Tick<'_>) {
    let shares = tick.shares();
    // What drifted was right in the tick before: the steps that change the weight are not drift.
    let held = |before: Step, now: Step| match before {
        Step::Bake => matches!(now, Step::Bake | Step::Shift),
        Step::Scale | Step::Roll => now == before,
        _ => false,
    };
    let steady = Tick::shares_of(&tick.before) == shares
        && tick.before.current.as_ref().is_some_and(|before| {
            tick.status.current.as_ref().is_some_and(|now| now.weight == before.weight && held(before.step, now.step))
        });
    // The canary's weight is on record: what only leaves pods that can't carry it needs no other.
    let why = if baseline_loses_weight(tick) { TRAFFIC_BACK } else { "set the weight" };
    let carried = release::carries(tick, shares.canary);
    for (name, fetched) in &tick.seen.routes {
        let Fetched::Known(route) = fetched else { continue };
        let Some(patch) = tick.with_pair(|pair| route::set(route, pair, shares)) else { continue };
        if !carried && tick.with_pair(|pair| route::least(route, pair)) < shares.canary {
            continue;
        }
        if steady {
            let found = match tick.with_pair(|pair| route::split(route, pair)) {
                Split::Even(share) | Split::Uneven(share) => format!("{}%", f64::from(share) / 10.0),
                Split::Beside(found) => {
                    format!("{}% and {}%", f64::from(found.canary) / 10.0, f64::from(found.baseline) / 10.0)
                }
                _ => "no split".to_owned(),
            };
            let wanted = tick.status.current.as_ref().map_or_else(String::new, |current| current.weight.clone());
            tick.warn("RouteDrifted", format!("someone changed HTTPRoute {name} ({found} where {wanted} is asked for): put back; to end the release give the command abort"));
        }
        tick.effects.push(Effect::Patch { kind: Kind::HttpRoute, name: name.clone(), patch, why });
    }
}

/// As [`weights`], but a route that was never split stays as it is.
fn weights_down(tick: &mut Tick<'_>) {
    for (name, patch) in weights_back(tick) {
        tick.effects.push(Effect::Patch { kind: Kind::HttpRoute, name, patch, why: TRAFFIC_BACK });
    }
}

/// The routes that still have to be written on the way back, each with its patch.
pub(super) fn weights_back(tick: &Tick<'_>) -> Vec<(String, Value)> {
    let (shares, remembered) = (tick.shares(), revert::to_remember(tick));
    // A plain route is written all the same where the split was ever asked for: a write that is
    // still under way must not come after this.
    let asked = tick.status.current.as_ref().is_some_and(|current| current.split) && tick.step() == Step::Revert;
    let patch = |route: &Value| {
        tick.with_pair(|pair| match route::split(route, pair) {
            Split::Plain if !asked => None,
            Split::Absent => None,
            _ => route::set_marked(route, pair, shares, remembered.as_deref()),
        })
    };
    let known = tick.seen.routes.iter().filter_map(|(name, route)| Some((name, route.known()?)));
    known.filter_map(|(name, route)| Some((name.clone(), patch(route)?))).collect()
}

/// The canary's Deployment, Service and budget, with the pods that the stage needs.
fn canary_up(tick: &mut Tick<'_>) {
    let replicas = tick.status.current.as_ref().map_or(0, |current| current.canary_pods);
    canary_deployment(tick, replicas);
    name_canary(tick);
}

/// The canary's Service.
fn name_canary(tick: &mut Tick<'_>) {
    let (seen, overlay) = (tick.seen, tick.overlay.clone());
    keep_service(tick, &CANARY, &seen.canary_service, &overlay);
}

/// The Deployment and Service of the baseline pods, where the stage is to have them. The last writes of a tick, and
/// none that anything waits for.
fn baseline_up(tick: &mut Tick<'_>) {
    let Some(beside) = tick.status.current.as_ref().and_then(|current| current.baseline_pods.clone()) else { return };
    if beside.pods == 0 {
        return;
    }
    let seen = tick.seen;
    if beside::wanted(tick)
        && let (Some(target), Some(serving)) = (tick.target(), tick.serving_template())
    {
        let (side, labels) = (BASELINE.side, &beside.labels);
        let wanted = canary::deployment_of(side, tick.owner(), target, &serving, labels, beside.pods);
        keep_deployment(tick, &BASELINE, &seen.baseline.deployment, wanted, beside.pods);
    }
    // A route may name it still.
    keep_service(tick, &BASELINE, &seen.baseline.service, &beside.labels);
}

/// Why the objects of a side are written.
struct Whys {
    side: Side,
    start: &'static str,
    raise: &'static str,
    again: &'static str,
    name: &'static str,
    select: &'static str,
}

const CANARY: Whys = Whys {
    side: Side::Canary,
    start: "start the canary",
    raise: "give the canary the candidate and the pods its weight needs",
    again: "its labels changed, which a Deployment can't",
    name: "name the canary's pods",
    select: "select the canary's pods and no others",
};

const BASELINE: Whys =
    Whys { side: Side::Baseline, start: BESIDE, raise: BESIDE, again: BESIDE, name: BESIDE, select: BESIDE };

/// The canary's budget: wished for, and nothing waits for it.
fn budget(tick: &mut Tick<'_>) {
    let (Some(target), Fetched::Known(budgets)) = (tick.target(), &tick.seen.budgets) else { return };
    let name = names::canary(object::name(target));
    if let Some(budget) = canary::budget(tick.owner(), budgets, target, &tick.overlay)
        && !budgets.iter().any(|present| object::name(present) == name)
    {
        tick.effects.push(Effect::Create {
            kind: Kind::PodDisruptionBudget,
            object: budget,
            why: "guard the canary's pods like the target's",
        });
    }
}

fn canary_deployment(tick: &mut Tick<'_>, replicas: i32) {
    if !release::overlay_or_chosen(tick) || !tick.asks_for_candidate() {
        return;
    }
    let Some(target) = tick.target() else { return };
    let (seen, wanted) = (tick.seen, canary::deployment(tick.owner(), target, &tick.overlay, replicas));
    if keep_deployment(tick, &CANARY, &seen.canary, wanted, replicas) {
        lift_rejection(tick);
    }
}

/// A side's Deployment as it should be, with so many pods at least; whether it is there and of the right labels.
fn keep_deployment(
    tick: &mut Tick<'_>,
    whys: &Whys,
    fetched: &Fetched<Value>,
    mut wanted: Value,
    replicas: i32,
) -> bool {
    let id = tick.status.current.as_ref().map_or_else(String::new, |current| current.id.clone());
    if let Some(annotations) = wanted.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.insert(names::ANNOTATION_MADE_FOR.to_owned(), json!(id));
    }
    let kind = Kind::Deployment;
    let present = match fetched {
        Fetched::Missing => {
            tick.effects.push(Effect::Create { kind, object: wanted, why: whys.start });
            return false;
        }
        Fetched::Known(present) if object::annotation(present, names::ANNOTATION_UID) == Some(tick.uid()) => present,
        Fetched::Known(_) | Fetched::Failed(_) => return false,
    };
    if present.pointer("/spec/selector") != wanted.pointer("/spec/selector") {
        let (name, uid) = (object::name(present).to_owned(), object::uid(present).to_owned());
        tick.effects.push(Effect::Delete { kind, name, uid, why: whys.again });
        return false;
    }
    let mut patch = Patch::guarded(present);
    own(tick, present, &mut patch);
    let overlay = object::annotation(&wanted, names::ANNOTATION_OVERLAY).unwrap_or_default().to_owned();
    patch.set_entries(
        present,
        "annotations",
        &[(names::ANNOTATION_MADE_FOR, &id), (names::ANNOTATION_OVERLAY, &overlay)],
    );
    if !template::same(serving::template_of(present), serving::template_of(&wanted)) {
        patch.set("/spec/template", serving::template_of(&wanted).clone());
    }
    // Raised within a release, never lowered; someone's hand that lowered it is put right.
    if object::integer(present, "/spec/replicas", 0) < i64::from(replicas) {
        patch.set("/spec/replicas", replicas);
    }
    tick.patch(kind, present, patch, whys.raise);
    true
}

/// The label by which an object of ours is watched, where a hand took it away; the uid says that it is ours.
fn own(tick: &Tick<'_>, present: &Value, patch: &mut Patch) {
    patch.set_entries(present, "labels", &[(names::LABEL_OWNED_BY, &names::label_value(tick.name()))]);
}

/// A side's Service as it should be.
fn keep_service(tick: &mut Tick<'_>, whys: &Whys, fetched: &Fetched<Value>, overlay: &BTreeMap<String, String>) {
    if overlay.is_empty() || matches!(tick.seen.service, Fetched::Failed(_)) {
        return;
    }
    // One that is gone, or that a hand made select other pods, is nothing to go by.
    let wanted = tick.selecting_service().map(|stable| canary::service_of(whys.side, tick.owner(), stable, overlay));
    let present = match (fetched, wanted.clone()) {
        (Fetched::Missing, Some(object)) => {
            tick.effects.push(Effect::Create { kind: Kind::Service, object, why: whys.name });
            return;
        }
        (Fetched::Known(present), _) if object::annotation(present, names::ANNOTATION_UID) == Some(tick.uid()) => {
            present
        }
        _ => return,
    };
    let mut patch = Patch::guarded(present);
    own(tick, present, &mut patch);
    let selected = object::strings(present, "/spec/selector");
    let mut selector =
        wanted.as_ref().map_or_else(|| selected.clone(), |wanted| object::strings(wanted, "/spec/selector"));
    selector.extend(overlay.clone());
    if selected != selector {
        patch.set("/spec/selector", json!(selector));
    }
    if let Some(wanted) = wanted.filter(|wanted| !same_ports(present, wanted)) {
        patch.set("/spec/ports", wanted.pointer("/spec/ports").cloned().unwrap_or_default());
    }
    tick.patch(Kind::Service, present, patch, whys.select);
}

/// Whether two Services have the same ports, the node's own numbers aside.
fn same_ports(a: &Value, b: &Value) -> bool {
    let ports = |service: &Value| -> Vec<Value> {
        object::items(service, "/spec/ports")
            .map(|port| {
                let mut port = port.clone();
                if let Some(fields) = port.as_object_mut() {
                    fields.remove("nodePort");
                }
                port
            })
            .collect()
    };
    ports(a) == ports(b)
}

/// A release under way is of a template that is no longer rejected: `retry` lifted it.
fn lift_rejection(tick: &mut Tick<'_>) {
    let Some(set) = tick.target_template().and_then(|wanted| arm::rejected_set(tick, wanted)) else { return };
    let mut patch = Patch::guarded(set);
    patch.remove_entries(set, "annotations", &[names::ANNOTATION_REJECTED]);
    tick.patch(Kind::ReplicaSet, set, patch, "lift the rejection");
}

/// Writes the verdict where the rejected template is kept: on the canary's ReplicaSet.
fn remember_rejection(tick: &mut Tick<'_>) {
    let Some(revert) = tick.status.current.as_ref().and_then(|current| current.revert.clone()) else { return };
    if !revert.rejects || tick.deleting() {
        return;
    }
    match revert::canary_set(tick) {
        // Never scaled up: the Deployment at zero keeps the template all the same.
        None => canary_deployment(tick, 0),
        Some(set) if object::annotation(set, names::ANNOTATION_REJECTED).is_none() => {
            let id = tick.status.current.as_ref().map_or_else(String::new, |current| current.id.clone());
            let verdict: String = format!("{id}: {}: {}", revert.reason, revert.message).chars().take(500).collect();
            let mut patch = Patch::guarded(set);
            patch.set_entries(set, "annotations", &[(names::ANNOTATION_REJECTED, &verdict)]);
            tick.patch(Kind::ReplicaSet, set, patch, "remember the rejected template");
        }
        Some(_) => {}
    }
}

/// The operator itself rolls the target: un-paused, and marked so that nobody else changes it meanwhile.
fn roll(tick: &mut Tick<'_>) {
    let Some(target) = tick.target() else { return };
    if !tick.asks_for_candidate() || !all_traffic_on_the_canary(tick) || release::kept_from_rolling(tick, target) {
        return;
    }
    let id = tick.status.current.as_ref().map_or_else(String::new, |current| current.id.clone());
    let mut patch = Patch::guarded(target);
    if object::truth(target, "/spec/paused") {
        patch.remove("/spec/paused");
    }
    // The stamp means that we hold it, and that ends here.
    patch.remove_entries(target, "annotations", &[names::ANNOTATION_CHANGED_BY]);
    patch.set_entries(target, "annotations", &[(names::ANNOTATION_ROLLING, &id)]);
    tick.patch(Kind::Deployment, target, patch, "let the target take the candidate over");
}

fn all_traffic_on_the_canary(tick: &Tick<'_>) -> bool {
    tick.seen.routes.iter().all(|(_, fetched)| match fetched {
        Fetched::Known(route) => tick.with_pair(|pair| route::split(route, pair)) == Split::Even(route::WHOLE),
        // No route, no traffic that could be on the wrong side.
        Fetched::Missing => true,
        Fetched::Failed(_) => false,
    })
}

fn end_roll(tick: &mut Tick<'_>) {
    let Some(target) = tick.target() else { return };
    let mut patch = Patch::guarded(target);
    patch.remove_entries(target, "annotations", &[names::ANNOTATION_ROLLING]);
    tick.patch(Kind::Deployment, target, patch, "the target is rolled");
}

/// Writes the serving template back, un-paused, in one write.
fn restore(tick: &mut Tick<'_>, rolling: bool) {
    let (Some(target), Some(before)) = (tick.target(), revert::template_before(tick)) else { return };
    if tick.status.hold.as_ref().is_some_and(|hold| hold.target_uid != object::uid(target)) {
        return;
    }
    let id = tick.status.current.as_ref().map_or_else(String::new, |current| current.id.clone());
    let mut patch = Patch::guarded(target);
    if !template::same(serving::template_of(target), &before) {
        patch.set("/spec/template", before);
    }
    if object::truth(target, "/spec/paused") {
        patch.remove("/spec/paused");
    }
    patch.remove_entries(target, "annotations", &[names::ANNOTATION_CHANGED_BY]);
    if rolling {
        patch.set_entries(target, "annotations", &[(names::ANNOTATION_ROLLING, &id)]);
    } else {
        patch.remove_entries(target, "annotations", &[names::ANNOTATION_ROLLING]);
    }
    tick.patch(Kind::Deployment, target, patch, "write the serving version's template back");
}

/// No release: the target labelled, un-paused where it asks for what serves, and nothing left over.
fn at_rest(tick: &mut Tick<'_>) {
    if tick.obstacle.as_ref().is_some_and(|obstacle| {
        matches!(obstacle.reason, "TargetTaken" | "TargetUnreadable" | "TargetNotFound" | "InvalidSpec")
    }) {
        return;
    }
    clear_away(tick);
    if tick.status.hold.as_ref().is_none_or(|hold| hold.serving.is_none()) {
        return;
    }
    keep_record(tick, true);
    let Some(target) = tick.target() else { return };
    let mut patch = Patch::guarded(target);
    patch.set_entries(target, "labels", &[(names::LABEL_RELEASE, &names::label_value(tick.name()))]);
    patch.set_entries(target, "annotations", &[(names::ANNOTATION_UID, tick.uid())]);
    patch.remove_entries(target, "annotations", &[names::ANNOTATION_ROLLING]);
    // An override goes once the status tells of it and the target is un-paused; one that was left over
    // from before we came goes at once.
    let arming = object::label(target, names::LABEL_RELEASE).is_none();
    let used = tick.before.outcome == "Overridden" && !object::truth(target, "/spec/paused");
    if used || arming {
        patch.remove_entries(target, "annotations", &[names::ANNOTATION_OVERRIDE, names::ANNOTATION_OVERRIDE_BY]);
    }
    if !object::truth(target, "/spec/paused") {
        patch.remove_entries(target, "annotations", &[names::ANNOTATION_CHANGED_BY]);
    }
    un_pause(tick, target, &mut patch);
    tick.patch(Kind::Deployment, target, patch, "arm the target, or end a hold that holds nothing");
    if tick.effects.is_empty() && tick.taken.is_none() {
        disown(tick, target);
    }
}

/// What was edited for a release and put back belongs to whoever owned it before.
fn disown(tick: &mut Tick<'_>, target: &Value) {
    const WHY: &str = "give up ownership of what was put back";
    let routes = tick.seen.routes.iter().filter_map(|(_, route)| Some((Kind::HttpRoute, route.known()?)));
    let scaler =
        hpa::of(tick.seen.autoscalers.list(), object::name(target)).map(|hpa| (Kind::HorizontalPodAutoscaler, hpa));
    let all: Vec<_> = routes.chain(scaler).chain([(Kind::Deployment, target)]).collect();
    for (kind, object) in all {
        if let Some(patch) = object::disown(object) {
            tick.patch(kind, object, patch, WHY);
        }
    }
}

/// Un-pauses a held target that has nothing to hold back: its template is the serving one, or it has no pods.
fn un_pause(tick: &Tick<'_>, target: &Value, patch: &mut Patch) {
    // Without the stamp the pause is a person's own, and theirs to end; an override is theirs as well.
    let ours = object::annotation(target, names::ANNOTATION_CHANGED_BY).is_some()
        && object::label(target, names::LABEL_RELEASE).is_some();
    let overridden = object::annotation(target, names::ANNOTATION_OVERRIDE).is_some();
    if !object::truth(target, "/spec/paused") || !ours || overridden {
        return;
    }
    let Some(served) = tick.serving_template() else { return };
    let same = template::same(&served, serving::template_of(target));
    let no_pods = object::integer(target, "/spec/replicas", 1) == 0;
    let asleep = tick.status.hold.as_ref().is_some_and(|hold| hold.asleep);
    if !same && !no_pods {
        return;
    }
    if !same && !asleep {
        patch.set("/spec/template", served);
    }
    patch.remove("/spec/paused");
    patch.remove_entries(target, "annotations", &[names::ANNOTATION_CHANGED_BY]);
}

/// Keeps the serving version's template where neither history clean-up nor a hand can lose it.
fn keep_record(tick: &mut Tick<'_>, only: bool) {
    let Fetched::Known(records) = &tick.seen.serving_records else { return };
    let release = tick.name();
    let Some(hold) = tick.status.hold.as_mut().filter(|hold| !hold.serving_record.is_empty()) else { return };
    if !records.iter().any(|record| object::name(record) == hold.serving_record) {
        // What is created has a name of ours, whatever was written into the status.
        let Some(serving) = &hold.serving else { return };
        hold.serving_record = arm::record_name(release, serving);
    }
    let name = hold.serving_record.clone();
    if records.iter().any(|record| object::name(record) == name) {
        let ours = |record: &&Value| object::annotation(record, names::ANNOTATION_UID) == Some(tick.uid());
        let old: Vec<_> = records.iter().filter(ours).filter(|record| only && object::name(record) != name).collect();
        for record in old {
            let (name, uid) = (object::name(record).to_owned(), object::uid(record).to_owned());
            tick.effects.push(Effect::Delete {
                kind: Kind::ControllerRevision,
                name,
                uid,
                why: "that version serves no more",
            });
        }
        return;
    }
    let Some(template) = tick.serving_template() else { return };
    let record = json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "namespace": tick.namespace(),
            "labels": {names::LABEL_OWNED_BY: names::label_value(tick.name())},
            "annotations": {names::ANNOTATION_UID: tick.uid()},
        },
        "revision": tick.status.current.as_ref().map_or(0, |current| current.number),
        "data": {"template": template},
    });
    tick.effects.push(Effect::Create {
        kind: Kind::ControllerRevision,
        object: record,
        why: "keep the serving version's template",
    });
}
