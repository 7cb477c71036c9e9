//! Writes of the CanaryRelease's status: stages go up one by one, on evidence, and a breach stays.

use std::time::Duration;

use canary_api::{Gate, Job, JobAt, OnJobFailure, ReleaseStatus, Step, names};
use canary_core::job::State;
use canary_core::object;
use jiff::Timestamp;
use serde_json::Value;

use crate::cluster::selected;
use crate::prometheus::{SCRAPE, STORED};
use crate::resources::{JOBS, SERVICES};
use crate::store::{Key, Store};
use crate::world::NAMESPACE;

use super::{Promises, Write, canary_weight, current, permille, ready_behind, release, reverting};

/// What happened so long ago is seen by whoever looks.
const SEEN: Duration = SCRAPE.saturating_add(STORED);
/// Seconds that a bake may be shorter than its duration: times in the status are cut to whole seconds.
const ROUNDING: f64 = 1.001;

impl Promises {
    pub(super) fn status(&mut self, write: &Write<'_>) {
        let api = write.api;
        let (was, now) = (current(write.before), current(write.after));
        let place = (now.id.clone(), now.step, now.stage_index);
        if !now.id.is_empty() && self.trail.last() != Some(&place) {
            self.trail.push(place);
        }
        let stage = |release: &ReleaseStatus| i64::from(release.stage_index) + 1;
        let tell = format!("{:?}/{} -> {:?}/{} of {}", was.step, stage(&was), now.step, stage(&now), now.id);
        if was.id == now.id && was.step != Step::Done {
            self.goes_on(write, &was, &now, &tell);
        }
        if was.id != now.id && !now.id.is_empty() {
            // A retry that was written before the template, and is taken after it.
            if takes_retry(write) && self.rejected.remove(&now.candidate.digest).is_some() {
                self.promoted.remove(&now.candidate.digest);
            }
            if let Some(by) = self.rejected.get(&now.candidate.digest).cloned() {
                self.break_it(
                    api,
                    "I2",
                    &format!("a template that {by} rejected is released again without a retry: {tell}"),
                );
            }
            // What never had pods has none that remember the rejection, once another template was applied.
            let had_pods = |by: &String| {
                self.trail.iter().any(|(id, step, _)| id == by && (Step::Scale..=Step::Soak).contains(step))
            };
            self.rejected.retain(|digest, by| *digest == now.candidate.digest || had_pods(by));
            self.granted.clear();
        }
        if now.step == Step::Bake
            && (was.step != Step::Bake || was.stage_index != now.stage_index || was.paused.is_some())
        {
            // The process may have stood still before it wrote down what it saw: the stage had begun by then.
            self.bake = Some(write.began);
        }
        if now.window_since != was.window_since {
            self.window = answered(write, &now);
        }
        if reverting(now.step) && !reverting(was.step) {
            self.route_first = canary_weight(api) > permille(&now.weight);
        }
        if let Some(revert) = &now.revert {
            if revert.rejects {
                self.rejected.insert(now.candidate.digest.clone(), now.id.clone());
            }
            if revert.reason == "GateBreached" || revert.reason == "BreachWithoutControl" {
                self.breached.insert(now.id.clone());
            }
        }
        // What a hand writes on the route of a release that is promoted already is no breach of it.
        if let Some(id) = promoted(write.after).filter(|id| promoted(write.before).as_ref() != Some(id))
            && self.breached.contains(&id)
        {
            self.break_it(api, "I12", &format!("{id} had a breach and ends Promoted"));
        }
    }

    /// One release, from one status to the next.
    fn goes_on(&mut self, write: &Write<'_>, was: &ReleaseStatus, now: &ReleaseStatus, tell: &str) {
        let api = write.api;
        let commanded = now.partial && !was.partial;
        if commanded && !self.commanded.contains(&now.id) {
            self.break_it(api, "I1", &format!("it is promoted as if by command, and nobody gave one: {tell}"));
        }
        let up = i64::from(now.stage_index) - i64::from(was.stage_index);
        if up > 1 && !commanded {
            self.break_it(api, "I6", &format!("a stage is skipped: {tell}"));
        }
        if up < 0 && now.stage_index != 0 {
            self.break_it(api, "I6", &format!("back to a stage in the middle: {tell}"));
        }
        // What was not handed back yet may stay with the canary after all.
        let stays = now.step == Step::Roll && was.step == Step::HandBack;
        let rolls = now.step == Step::Roll && was.step != Step::Roll && !stays;
        if (up == 1 && !commanded) || (rolls && !now.partial) {
            self.passes(write, was, tell);
            self.passed.insert((was.id.clone(), was.stage_index));
        }
        let starts = now.step == Step::Shift && was.step != Step::Shift && now.stage_index == 0 && was.revert.is_none();
        if starts && !now.partial {
            self.jobs_are_done(write, was, JobAt::BeforeStart, tell);
        }
        // Another leader may have handed it back since this one looked.
        let late = stays && self.weight.is_some_and(|(_, since)| since >= write.began);
        if (rolls || stays) && canary_weight(api) != 1000 && !late {
            self.break_it(api, "I4", &format!("the target rolls while stable has traffic: {tell}"));
        }
        if stays {
            self.kept_from_target(write, now, tell);
        }
        if was.revert.is_some() {
            if now.revert.is_none() || !(reverting(now.step) || now.step == Step::Done) {
                self.break_it(api, "I12", &format!("a revert is forgotten: {tell}"));
            }
            // Where a route gave the canary weight again, the drain begins again.
            let again = was.step == Step::RevertTarget && now.step == Step::RevertDrain;
            if now.step < was.step && !again {
                self.break_it(api, "I2", &format!("a revert goes back: {tell}"));
            }
        }
        if self.breached.contains(&now.id) && now.revert.is_none() && now.step != Step::Done {
            self.break_it(api, "I2", &format!("a release with a breach goes on: {tell}"));
        }
    }

    /// The jobs that were to be done by then have ended, and ended well where that is asked for.
    fn jobs_are_done(&mut self, write: &Write<'_>, release: &ReleaseStatus, at: JobAt, tell: &str) {
        let Some(spec) = super::release(write.api).map(|found| found.spec) else { return };
        let stage = usize::try_from(release.stage_index).ok().and_then(|index| spec.stages.get(index));
        let number = (release.stage_index + 1).to_string();
        let due = |job: &&Job| {
            job.at == at && (job.stages.is_empty() || stage.is_some_and(|stage| job.stages.contains(&stage.weight)))
        };
        for job in spec.jobs.iter().filter(due) {
            let of = |found: &Value| {
                object::annotation(found, names::ANNOTATION_RELEASE_ID) == Some(release.id.as_str())
                    && (at != JobAt::Stage
                        || object::annotation(found, names::ANNOTATION_STAGE) == Some(number.as_str()))
                    && object::text(found, "/metadata/ownerReferences/0/name") == job.cron_job
            };
            let well = |found: &Value| match job.on_failure() {
                OnJobFailure::Record => canary_core::job::state(found) != State::Running,
                _ => canary_core::job::state(found) == State::Succeeded,
            };
            let found = write.api.store.all(JOBS.plural, NAMESPACE).map(|(_, found)| &found.value);
            if !found.into_iter().any(|found| of(found) && well(found)) {
                self.break_it(write.api, "I1", &format!("job {} is not done: {tell}", job.name));
            }
        }
    }

    /// Traffic that was to be handed back stays with the canary: for a reason only.
    fn kept_from_target(&mut self, write: &Write<'_>, now: &ReleaseStatus, tell: &str) {
        let (then, key) = (write.then(), Key::new(SERVICES, NAMESPACE, "web"));
        let pods = then.get(&key).map_or_else(Vec::new, |service| {
            selected(&then, NAMESPACE, &object::strings(&service.value, "/spec/selector"))
        });
        let settled = pods.iter().all(|pod| object::deleting(pod) || canary_core::pods::settled(pod, write.began));
        let carried = |store: &Store| ready_behind(store, "web") >= i64::from(now.target_pods).max(1);
        if write.failed.is_empty() && settled && carried(&then) && carried(&write.api.store) {
            self.break_it(write.api, "I6", &format!("the target's pods could carry the traffic: {tell}"));
        }
    }

    /// A stage passes: it was baked for its time, the metrics answered meanwhile, and the candidate truly had enough
    /// requests and few enough bad answers.
    fn passes(&mut self, write: &Write<'_>, was: &ReleaseStatus, tell: &str) {
        let api = write.api;
        if was.step != Step::Bake || was.paused.is_some() {
            self.break_it(api, "I1", &format!("only a baked stage passes, and not while it is paused: {tell}"));
            return;
        }
        let Some(release) = release(api) else { return };
        let (Some(bake), Some((_, weighted))) = (self.bake, self.weight) else {
            self.break_it(api, "I1", &format!("a stage passes that never baked: {tell}"));
            return;
        };
        self.jobs_are_done(write, was, JobAt::Stage, tell);
        // Time without the stage's weight is none of the stage's.
        let since = bake.max(weighted);
        let stage = usize::try_from(was.stage_index).ok().and_then(|index| release.spec.stages.get(index));
        let wanted = stage.map_or(0.0, |stage| stage.duration.std().as_secs_f64());
        let baked = api.now.duration_since(since).as_secs_f64();
        if baked + ROUNDING + self.leeway() < wanted {
            self.break_it(api, "I1", &format!("a stage of {wanted} s passes after {baked:.3} s: {tell}"));
        }
        if self.metrics_answered.is_none_or(|answered| answered < since) {
            self.break_it(api, "I1", &format!("a stage passes without any answer of the metrics: {tell}"));
        }
        let (all_now, bad_now) = answered(write, was);
        // What turned bad since the last sample that anybody can have is seen with the next.
        let turned = write.cluster.traffic.turned.get(image(was));
        let unseen = turned.filter(|(at, _)| *at + SEEN > api.now);
        let bad_now = unseen.map_or(bad_now, |(_, bad)| *bad);
        let (n, k) = (all_now - self.window.0, (bad_now - self.window.1).max(0.0));
        for gate in &release.spec.gates {
            let gauge = || {
                let of = write.cluster.behaviour(image(was));
                let seen = |at: &Timestamp| *at < since && *at + SEEN < api.now;
                of.gauge_since.as_ref().is_none_or(seen).then_some(of.gauge)
            };
            if let Some(why) = fails(gate, n, k).or_else(|| off_limits(gate, gauge()?)) {
                self.break_it(api, "I1", &format!("gate {}: {why}: {tell}", gate.name));
            }
        }
    }
}

/// Whether a status takes a person's `retry` that is on the CanaryRelease.
fn takes_retry(write: &Write<'_>) -> bool {
    let given =
        write.before.and_then(|before| object::annotation(before, names::ANNOTATION_COMMAND)).unwrap_or_default();
    let taken =
        |object: Option<&Value>| object.map(|object| object["status"]["lastCommand"].clone()).unwrap_or_default();
    let (was, now) = (taken(write.before), taken(write.after));
    given.starts_with("retry ") && was != now && now["command"] == given
}

/// The release that was promoted; where the serving version was written back since, the outcome is that one's.
fn promoted(object: Option<&Value>) -> Option<String> {
    let status = super::status_of(object);
    let current = status.current.filter(|current| current.step == Step::Done)?;
    (status.outcome == "Promoted" && status.observed_template == current.candidate.digest).then_some(current.id)
}

/// Why a gate on a gauge can't have passed: the candidate's shows this, and did for as long as the stage.
fn off_limits(gate: &Gate, gauge: f64) -> Option<String> {
    let rule = gate.value.as_ref()?;
    let above = rule.max.as_ref().is_some_and(|max| gauge > *max);
    let below = rule.min.as_ref().is_some_and(|min| gauge < *min);
    (above || below).then(|| format!("{gauge} is past what is allowed"))
}

/// What the candidate answered so far: all and bad.
fn answered(write: &Write<'_>, release: &ReleaseStatus) -> (f64, f64) {
    write.cluster.traffic.answered.get(image(release)).copied().unwrap_or_default()
}

fn image(release: &ReleaseStatus) -> &str {
    release.candidate.images.first().map_or("", String::as_str)
}

/// Why a gate can't have passed on this.
fn fails(gate: &Gate, n: f64, k: f64) -> Option<String> {
    let rule = gate.error_rate.as_ref()?;
    let least = f64::from(gate.min_requests);
    if n < least {
        return Some(format!("{n:.0} requests where {least:.0} are wanted"));
    }
    // What was sampled is a part of what happened: twice the limit can't pass by chance of sampling, in a world without
    // chance.
    let limit = rule.limit.fraction();
    (k / n > limit * 2.0).then(|| format!("{:.2}% bad answers where {:.2}% are allowed", 100.0 * k / n, 100.0 * limit))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gauge_passes_up_to_its_limits_and_not_past_them() {
        let gate = |rule| serde_json::from_value(json!({"name": "staleness", "value": rule})).unwrap();
        let most: Gate = gate(json!({"query": "x", "max": 30.0}));
        let least: Gate = gate(json!({"query": "x", "min": 2.0}));
        assert!(off_limits(&most, 30.0).is_none() && off_limits(&least, 2.0).is_none());
        assert!(off_limits(&most, 30.5).is_some() && off_limits(&least, 1.5).is_some());
    }
}
