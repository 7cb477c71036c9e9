//! The workbench of one decision: what was observed, the status as it is being drafted, and what has
//! been decided so far.

use std::{collections::BTreeMap, time::Duration};

use canary_api::{
    BaselinePods, CanaryReleaseSpec, CanaryReleaseStatus, JobStatus, Percent, ReleaseStatus, Step, Version,
    names::{self, FINALIZER},
};
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::Decision;
use crate::{
    Effect, Kind, Observed,
    canary::{self, Owner},
    gates::Judged,
    object::{self, Patch},
    observed::Fetched,
    route::{Pair, Shares},
    template,
};

/// Something to tell as an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// `Normal` is false.
    pub warning: bool,
    /// A CamelCase word.
    pub reason: &'static str,
    /// The sentence.
    pub text: String,
}

/// Why there is no release and none can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// Whether only a person can mend it.
    pub(super) stalled: bool,
}

pub(super) struct Tick<'a> {
    pub(super) seen: &'a Observed,
    pub(super) spec: &'a CanaryReleaseSpec,
    pub(super) now: Timestamp,
    pub(super) status: CanaryReleaseStatus,
    pub(super) before: CanaryReleaseStatus,
    pub(super) effects: Vec<Effect>,
    pub(super) notes: Vec<Note>,
    pub(super) obstacle: Option<Obstacle>,
    /// What the release waits for, in words.
    pub(super) waiting: Option<String>,
    /// The gates, judged in this tick.
    pub(super) judged: Vec<Judged>,
    /// Labels that keep canary pods apart, once known.
    pub(super) overlay: BTreeMap<String, String>,
    pub(super) gone: bool,
    /// Who asked in this tick to release a rejected template again.
    pub(super) retry: Option<String>,
    /// Whether the clock was started again in this tick.
    pub(super) resumed: bool,
    /// Jobs whose end this tick saw.
    pub(super) ended_jobs: Vec<JobStatus>,
    /// A command's text whose annotations are to be taken away.
    pub(super) taken: Option<String>,
    /// Whether something that must be read first keeps a deletion back.
    pub(super) holds_back: bool,
    wake: Option<Duration>,
}

impl<'a> Tick<'a> {
    pub(super) fn new(seen: &'a Observed, now: Timestamp) -> Self {
        let status = seen.release.status.clone().unwrap_or_default();
        let mut tick = Self {
            seen,
            spec: &seen.release.spec,
            now,
            before: status.clone(),
            status,
            effects: Vec::new(),
            notes: Vec::new(),
            obstacle: None,
            waiting: None,
            judged: Vec::new(),
            overlay: BTreeMap::new(),
            gone: false,
            retry: None,
            resumed: false,
            ended_jobs: Vec::new(),
            taken: None,
            holds_back: false,
            wake: None,
        };
        tick.overlay = tick.recorded_overlay();
        tick
    }

    pub(super) fn name(&self) -> &'a str {
        self.seen.release.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> &'a str {
        self.seen.release.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(super) fn uid(&self) -> &'a str {
        self.seen.release.metadata.uid.as_deref().unwrap_or_default()
    }

    pub(super) fn owner(&self) -> Owner<'a> {
        Owner { name: self.name(), uid: self.uid() }
    }

    /// Runs `use_pair` with the Services that are split.
    pub(super) fn with_pair<T>(&self, use_pair: impl FnOnce(&Pair<'_>) -> T) -> T {
        let canary = names::canary(&self.spec.traffic.service);
        let current = self.status.current.as_ref().filter(|_| self.in_release());
        let beside = current.is_some_and(|current| current.baseline_pods.is_some());
        let stable = &self.spec.traffic.service;
        use_pair(&Pair { release: self.name(), uid: self.uid(), stable, canary: &canary, beside })
    }

    pub(super) fn deleting(&self) -> bool {
        self.seen.release.metadata.deletion_timestamp.is_some()
    }

    pub(super) fn has_finalizer(&self) -> bool {
        self.seen.release.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
    }

    pub(super) fn target(&self) -> Option<&'a Value> {
        self.seen.target.known()
    }

    /// Whether the target is there and does not roll.
    pub(super) fn held(&self) -> bool {
        self.target().is_some_and(|target| object::truth(target, "/spec/paused"))
    }

    pub(super) fn target_template(&self) -> Option<&'a Value> {
        self.target()?.pointer("/spec/template")
    }

    pub(super) fn canary(&self) -> Option<&'a Value> {
        self.seen.canary.known().filter(|canary| object::annotation(canary, names::ANNOTATION_UID) == Some(self.uid()))
    }

    /// The stable Service, where it selects the target's pods: a hand may have made it select others.
    pub(super) fn selecting_service(&self) -> Option<&'a Value> {
        let (target, service) = (self.target()?, self.seen.service.known()?);
        canary::selects(service, target).then_some(service)
    }

    /// The baseline pods' Deployment, where it is ours.
    pub(super) fn baseline(&self) -> Option<&'a Value> {
        let ours = |object: &&Value| object::annotation(object, names::ANNOTATION_UID) == Some(self.uid());
        self.seen.baseline.deployment.known().filter(ours)
    }

    /// What the release under way has of baseline pods, to be changed.
    pub(super) fn beside(&mut self) -> Option<&mut BaselinePods> {
        self.status.current.as_mut()?.baseline_pods.as_mut()
    }

    /// The labels of baseline pods, where the spec asks for such and they are kept apart.
    pub(super) fn baseline_overlay(&self) -> Option<BTreeMap<String, String>> {
        let (target, service) = (self.target()?, self.seen.service.known()?);
        canary::beside(target, service, &self.overlay).ok().filter(|_| self.spec.baseline.pods)
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&'a str> {
        self.seen.release.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether a release is under way.
    pub(super) fn in_release(&self) -> bool {
        self.status.current.as_ref().is_some_and(|current| current.step != Step::Done)
    }

    pub(super) fn step(&self) -> Step {
        self.status.current.as_ref().map_or(Step::Done, |current| current.step)
    }

    /// The release under way, to be changed; an empty one where there is none.
    pub(super) fn current(&mut self) -> &mut ReleaseStatus {
        self.status.current.get_or_insert_default()
    }

    /// Now, as a status can hold it: in whole seconds, never earlier, so that no wait is cut short.
    pub(super) fn time(&self) -> Time {
        let second = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil);
        Time(self.now.round(second).unwrap_or(self.now))
    }

    /// Goes over to a step, now.
    pub(super) fn enter(&mut self, step: Step) {
        let now = self.time();
        let current = self.current();
        current.step = step;
        current.step_since = Some(now);
    }

    /// Time since the step began.
    pub(super) fn in_step(&self) -> Duration {
        self.since(self.status.current.as_ref().and_then(|current| current.step_since.as_ref()))
    }

    pub(super) fn since(&self, time: Option<&Time>) -> Duration {
        let seconds = time.map_or(0, |time| self.now.duration_since(time.0).as_millis());
        Duration::from_millis(u64::try_from(seconds).unwrap_or(0))
    }

    /// The weight that is asked for, in thousandths.
    pub(super) fn weight(&self) -> u32 {
        self.status
            .current
            .as_ref()
            .and_then(|current| current.weight.parse::<Percent>().ok())
            .map_or(0, Percent::permille)
    }

    /// The shares that a status asks for. Baseline pods have none where the canary has none.
    pub(super) fn shares_of(status: &CanaryReleaseStatus) -> Shares {
        let parsed = |text: &str| text.parse::<Percent>().map_or(0, Percent::permille);
        let Some(current) = &status.current else { return Shares::from(0) };
        let canary = parsed(&current.weight);
        let beside = current.baseline_pods.as_ref().filter(|_| canary > 0);
        Shares { canary, baseline: beside.map_or(0, |beside| parsed(&beside.weight)) }
    }

    /// The shares that are asked for.
    pub(super) fn shares(&self) -> Shares {
        Self::shares_of(&self.status)
    }

    /// Gives the canary a weight, and baseline pods none.
    pub(super) fn set_weight(&mut self, permille: u32) {
        self.set_shares(Shares::from(permille));
    }

    pub(super) fn set_shares(&mut self, shares: Shares) {
        self.current().weight = Percent::from_permille(shares.canary).to_string();
        if let Some(beside) = self.beside() {
            beside.weight = Percent::from_permille(shares.baseline).to_string();
            if shares.baseline == 0 {
                beside.carried_by = 0;
            }
        }
    }

    /// The stage under way.
    pub(super) fn stage(&self) -> Option<&'a canary_api::Stage> {
        let index = self.status.current.as_ref().map_or(0, |current| current.stage_index);
        self.spec.stages.get(usize::try_from(index).unwrap_or(0)).or_else(|| self.spec.stages.last())
    }

    /// `2/5`.
    pub(super) fn stage_text(&self) -> String {
        let index = self.status.current.as_ref().map_or(0, |current| current.stage_index);
        format!("{}/{}", index.saturating_add(1), self.spec.stages.len())
    }

    pub(super) fn note(&mut self, reason: &'static str, text: impl Into<String>) {
        self.notes.push(Note { warning: false, reason, text: text.into() });
    }

    pub(super) fn warn(&mut self, reason: &'static str, text: impl Into<String>) {
        self.notes.push(Note { warning: true, reason, text: text.into() });
    }

    /// Look again after at most this long.
    pub(super) fn wake(&mut self, after: Duration) {
        self.wake = Some(self.wake.map_or(after, |earlier| earlier.min(after)));
    }

    pub(super) fn obstacle(&mut self, reason: &'static str, message: impl Into<String>, stalled: bool) {
        self.obstacle = Some(Obstacle { reason, message: message.into(), stalled });
        self.wake(Duration::from_secs(15));
    }

    pub(super) fn patch(&mut self, kind: Kind, object: &Value, patch: Patch, why: &'static str) {
        if !patch.is_empty() {
            self.effects.push(Effect::Patch {
                kind,
                name: object::name(object).to_owned(),
                patch: patch.into_value(),
                why,
            });
        }
    }

    /// The version a template is, for the status.
    pub(super) fn version(template: &Value, replica_set: &str, changed_by: &str) -> Version {
        Version {
            changed_by: changed_by.to_owned(),
            digest: template::digest(template),
            images: template::images(template),
            replica_set: replica_set.to_owned(),
        }
    }

    /// The serving version's template: from its ReplicaSet, else from the record we keep.
    pub(super) fn serving_template(&self) -> Option<Value> {
        let hold = self.status.hold.as_ref()?;
        let serving = hold.serving.as_ref()?;
        let digest = &serving.digest;
        let set = self
            .seen
            .replica_sets
            .list()
            .iter()
            .find(|set| object::name(set) == serving.replica_set && object::controlled_by(set, &hold.target_uid));
        if let Some(set) = set {
            return Some(template::for_deployment(set.pointer("/spec/template")?));
        }
        let record =
            self.seen.serving_records.list().iter().find(|record| object::name(record) == hold.serving_record)?;
        record.pointer("/data/template").filter(|template| template::digest(template) == *digest).cloned()
    }

    fn recorded_overlay(&self) -> BTreeMap<String, String> {
        let chosen =
            self.status.current.as_ref().filter(|_| self.in_release()).map(|current| current.canary_labels.clone());
        if let Some(chosen) = chosen.filter(|labels| !labels.is_empty()) {
            return chosen;
        }
        self.canary()
            .and_then(|canary| object::annotation(canary, names::ANNOTATION_OVERLAY))
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// Whether the target still asks for the candidate: by its name, or compared live with what the canary runs, since
    /// another version of the API server may fill in more.
    pub(super) fn asks_for_candidate(&self) -> bool {
        let Some(wanted) = self.target_template() else { return false };
        let Some(current) = &self.status.current else { return false };
        template::digest(wanted) == current.candidate.digest || self.canary_runs(wanted) == Some(true)
    }

    /// The canary, where it was made for this release.
    pub(super) fn canary_made(&self) -> Option<&'a Value> {
        let id = &self.status.current.as_ref()?.id;
        self.canary().filter(|canary| object::annotation(canary, names::ANNOTATION_MADE_FOR) == Some(id))
    }

    /// Whether the canary is of the candidate that the target asks for; none where it was not made for this release. A
    /// hand may have changed it.
    pub(super) fn canary_runs(&self, wanted: &Value) -> Option<bool> {
        let made = self.canary_made()?;
        Some(template::same(crate::serving::template_of(made), &canary::template(wanted, &self.overlay)))
    }

    /// Whether a read that the caller depends on failed; says so.
    pub(super) fn unread<T>(&mut self, what: &str, fetched: &Fetched<T>) -> bool {
        let Fetched::Failed(why) = fetched else { return false };
        self.waiting = Some(format!("{what} could not be read: {why}"));
        self.wake(Duration::from_secs(5));
        true
    }

    /// The decision of an object that is not ours yet: our finalizer, and nothing else.
    pub(super) fn only_finalizer(mut self) -> Decision {
        let metadata =
            json!({"metadata": {"uid": self.uid(), "resourceVersion": self.seen.release.metadata.resource_version}});
        let mut patch = Patch::guarded(&metadata);
        match self.seen.release.metadata.finalizers.as_ref().is_some_and(|present| !present.is_empty()) {
            true => patch.set("/metadata/finalizers/-", FINALIZER),
            false => patch.set("/metadata/finalizers", json!([FINALIZER])),
        };
        self.effects.push(Effect::Patch {
            kind: Kind::CanaryRelease,
            name: self.name().to_owned(),
            patch: patch.into_value(),
            why: "set the finalizer",
        });
        self.wake(Duration::ZERO);
        self.finish()
    }

    pub(super) fn finish(self) -> Decision {
        let words = self.status.message != self.before.message || self.status.summary != self.before.summary;
        // Whatever a release waits for, it is looked at again: nobody else sees its breach.
        let wake_after = self.wake.or_else(|| self.in_release().then(|| self.spec.interval.std()));
        Decision {
            decisive: bones(&self.status) != bones(&self.before),
            words,
            status: self.status,
            effects: self.effects,
            notes: self.notes,
            wake_after,
            gone: self.gone,
        }
    }
}

/// A status without figures and sentences: what must be written at once where it changes.
fn bones(status: &CanaryReleaseStatus) -> CanaryReleaseStatus {
    let mut status = status.clone();
    status.gates.clear();
    status.message.clear();
    status.summary.clear();
    for condition in &mut status.conditions {
        condition.message.clear();
    }
    if let Some(current) = &mut status.current {
        current.counts.clear();
        current.observed_share.clear();
    }
    status
}
