//! The CanaryRelease is being deleted: traffic to stable first, then the canary, then the target as a
//! plain Deployment, then our finalizer. A referent that is gone is done.

use std::time::Duration;

use canary_api::{Step, names};
use serde_json::{Value, json};

use super::{converge, release, revert, tick::Tick};
use crate::{
    Effect, Kind,
    object::{self, Patch},
    observed::Fetched,
    serving, template,
};

pub(super) fn advance(tick: &mut Tick<'_>) {
    tick.wake(Duration::from_millis(500));
    if tick.in_release() {
        match tick.step() {
            Step::Baseline | Step::Scale | Step::Shift | Step::Bake => revert::begin(tick, revert::Cause::deleted()),
            Step::Soak => tick.enter(Step::Done),
            // A roll is completed first; a breach still reverts it.
            _ => release::advance(tick),
        }
    }
    if tick.in_release() {
        return converge::effects(tick);
    }
    if !tick.has_finalizer() {
        tick.gone = true;
        return;
    }
    clear(tick);
    if tick.effects.is_empty() && !tick.holds_back && !unsure(tick) {
        drop_finalizer(tick);
    }
}

/// Whether a read failed that must tell us whether something of ours is left.
fn unsure(tick: &mut Tick<'_>) -> bool {
    let seen = tick.seen;
    let mut unsure = tick.unread("the target", &seen.target);
    unsure |= tick.unread("the canary", &seen.canary);
    unsure |= tick.unread("the canary's Service", &seen.canary_service);
    unsure |= tick.unread("the baseline pods' Deployment", &seen.baseline.deployment);
    unsure |= tick.unread("the baseline pods' Service", &seen.baseline.service);
    unsure |= tick.unread("the PodDisruptionBudgets", &seen.budgets);
    unsure |= tick.unread("the autoscalers", &seen.autoscalers);
    unsure |= tick.unread("the serving records", &seen.serving_records);
    for (name, route) in &seen.routes {
        unsure |= tick.unread(&format!("HTTPRoute {name}"), route);
    }
    unsure
}

fn clear(tick: &mut Tick<'_>) {
    converge::undo_routes(tick);
    converge::thaw(tick);
    release_target(tick);
    // The canary goes only once no route can send anything there, and the target stands on its own.
    if !tick.effects.is_empty() || tick.holds_back {
        return;
    }
    let uid = tick.uid();
    let ours =
        |object: &&Value| object::annotation(object, names::ANNOTATION_UID) == Some(uid) && !object::deleting(object);
    let mut found: Vec<(Kind, &Value)> = Vec::new();
    found.extend(tick.seen.canary.known().into_iter().map(|object| (Kind::Deployment, object)));
    found.extend(tick.seen.canary_service.known().into_iter().map(|object| (Kind::Service, object)));
    found.extend(tick.seen.baseline.deployment.known().into_iter().map(|object| (Kind::Deployment, object)));
    found.extend(tick.seen.baseline.service.known().into_iter().map(|object| (Kind::Service, object)));
    found.extend(tick.seen.budgets.list().iter().map(|object| (Kind::PodDisruptionBudget, object)));
    found.extend(tick.seen.serving_records.list().iter().map(|object| (Kind::ControllerRevision, object)));
    for (kind, object) in found.into_iter().filter(|(_, object)| ours(object)) {
        tick.effects.push(Effect::Delete {
            kind,
            name: object::name(object).to_owned(),
            uid: object::uid(object).to_owned(),
            why: "the CanaryRelease is deleted",
        });
    }
}

/// A plain Deployment again: the serving template, un-paused, without our marks, in one write.
fn release_target(tick: &mut Tick<'_>) {
    let Fetched::Known(target) = &tick.seen.target else { return };
    if object::annotation(target, names::ANNOTATION_UID) != Some(tick.uid()) || object::deleting(target) {
        return;
    }
    let mut patch = Patch::guarded(target);
    let held =
        object::truth(target, "/spec/paused") && object::annotation(target, names::ANNOTATION_CHANGED_BY).is_some();
    let served = tick.serving_template();
    let lists = [&tick.seen.replica_sets, &tick.seen.serving_records];
    if held && served.is_none() && lists.iter().any(|list| matches!(list, Fetched::Failed(_))) {
        // Un-paused now, it would roll out what was held back.
        tick.waiting = Some("the serving version's template could not be read".to_owned());
        tick.wake(Duration::from_secs(2));
        tick.holds_back = true;
        return;
    }
    if held && served.is_none() {
        tick.warn("HoldKept", format!("the serving version's template of Deployment {} is lost: it stays paused as it is; apply the template that should run, then `kubectl rollout resume`", object::name(target)));
    } else if held {
        patch.remove("/spec/paused");
        if let Some(served) = served
            && !template::same(&served, serving::template_of(target))
        {
            let asked = template::images(serving::template_of(target)).join(", ");
            tick.warn("HoldEnded", format!("Deployment {} goes on with the serving version; its manifest still asks for {asked}, which the next apply rolls out at once", object::name(target)));
            patch.set("/spec/template", served);
        }
    }
    patch.remove_entries(target, "labels", &[names::LABEL_RELEASE]);
    let marks = [
        names::ANNOTATION_UID,
        names::ANNOTATION_ROLLING,
        names::ANNOTATION_CHANGED_BY,
        names::ANNOTATION_OVERRIDE,
        names::ANNOTATION_OVERRIDE_BY,
    ];
    patch.remove_entries(target, "annotations", &marks);
    tick.patch(Kind::Deployment, target, patch, "leave a plain Deployment");
}

fn drop_finalizer(tick: &mut Tick<'_>) {
    let finalizers = tick.seen.release.metadata.finalizers.clone().unwrap_or_default();
    let Some(index) = finalizers.iter().position(|finalizer| finalizer == names::FINALIZER) else { return };
    let metadata = json!({"metadata": {"name": tick.name(), "uid": tick.uid(), "resourceVersion": tick.seen.release.metadata.resource_version}});
    let mut patch = Patch::guarded(&metadata);
    let path = format!("/metadata/finalizers/{index}");
    patch.test(&path, names::FINALIZER).remove(&path);
    tick.patch(Kind::CanaryRelease, &metadata, patch, "everything of ours is taken away");
    tick.gone = true;
}
