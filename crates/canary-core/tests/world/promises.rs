//! The promises, checked at every write of the operator from the world's own truth, not from what
//! the core says of itself.

use std::{collections::BTreeMap, time::Duration};

use canary_api::{CanaryReleaseStatus, GateStatus, JobState, OnJobFailure, Percent, ReleaseStatus, Step, names};
use canary_core::{
    Decision, Effect, Kind, Observed,
    gates::{Measure, Reading},
    object, template,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Read, World};

/// What has to be remembered to judge a write.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Since when no route gives the canary any weight; `None` while one does.
    weightless: Option<Timestamp>,
    /// The same of baseline pods.
    baseline_weightless: Option<Timestamp>,
    /// The largest weight that was given, by release, while enough pods were ready.
    granted: BTreeMap<String, i64>,
    /// A revert has begun and the route was not written yet.
    route_first: bool,
    /// Digests of rejected templates, with the release.
    rejected: BTreeMap<String, String>,
    /// Gates of the last decision that truly passed, and all gates.
    passed: usize,
    gates: usize,
    last: (Vec<Reading>, Vec<GateStatus>),
}

impl Ledger {
    pub(super) fn weights_are(&mut self, canary: i64, baseline: i64, now: Timestamp) {
        for (weight, weightless) in [(canary, &mut self.weightless), (baseline, &mut self.baseline_weightless)] {
            *weightless = if weight > 0 { None } else { weightless.or(Some(now)) };
        }
    }

    /// A person lifts every rejection.
    pub(super) fn retried(&mut self) {
        self.rejected.clear();
    }

    /// Judges the gates once more, independently: enough requests, finite, within the limit.
    pub(super) fn decided(&mut self, observed: &Observed, decision: &Decision) {
        no_verdict_of_a_job_is_lost(observed, decision);
        what_goes_on_is_looked_at_again(observed, decision);
        let spec = &observed.release.spec;
        let current = observed.release.status.as_ref().and_then(|status| status.current.as_ref());
        let weight = current.map_or(0, permille);
        let passes = |gate: &&canary_api::Gate| {
            let reading = observed.measured.of(&gate.name);
            if let (Some(rule), Some(reading)) = (&gate.relative, reading) {
                let stable = reading.baseline_pods.as_ref().unwrap_or(&reading.stable);
                let (Measure::Counted { n, k, .. }, Measure::Counted { n: of, k: events, .. }) =
                    (&reading.canary, stable)
                else {
                    return false;
                };
                return *n >= f64::from(gate.min_requests)
                    && k / n <= events / of * (1.0 + rule.margin.fraction()) + 1e-9;
            }
            match (reading.map(|reading| &reading.canary), &gate.error_rate, &gate.value) {
                (Some(Measure::Counted { n, k, .. }), Some(rule), _) => {
                    *n >= f64::from(gate.min_requests) && *k / *n <= rule.limit.fraction()
                }
                (Some(Measure::Number { value, .. }), _, Some(rule)) => rule.max.is_none_or(|max| *value <= max),
                _ => false,
            }
        };
        // At 100 % there is no stable side to compare with.
        let applies = |gate: &&canary_api::Gate| gate.relative.is_none() || weight < 1000;
        self.passed = spec.gates.iter().filter(applies).filter(passes).count();
        self.gates = spec.gates.iter().filter(applies).count();
        self.last = (observed.measured.readings.clone(), decision.status.gates.clone());
    }
}

/// A release under way is looked at again within a tick, or two seconds where that is longer, whatever it waits for: else
/// nobody would see its breach. A drain, in which nothing is judged, is looked at when it is over.
pub(super) fn what_goes_on_is_looked_at_again(observed: &Observed, decision: &Decision) {
    let current = decision.status.current.as_ref().filter(|current| current.step != Step::Done);
    let Some(current) = current.filter(|_| !decision.gone) else { return };
    let spec = &observed.release.spec;
    let drains = matches!(current.step, Step::Drain | Step::RevertDrain);
    let most = if drains { spec.drain.std() } else { Duration::from_secs(2) }.max(spec.interval.std());
    assert!(
        decision.wake_after.is_some_and(|after| after <= most),
        "at {:?}/{} nobody looks again within {most:?}: {:?}: {}",
        current.step,
        current.stage_index,
        decision.wake_after,
        decision.status.message
    );
}

/// A job that failed, where that is to revert, has reverted.
fn no_verdict_of_a_job_is_lost(observed: &Observed, decision: &Decision) {
    let Some(current) = &decision.status.current else { return };
    let live = current.step == Step::Soak || current.step == Step::Done;
    for run in current.jobs.iter().filter(|run| run.state == JobState::Failed) {
        let mut planned = observed.release.spec.jobs.iter();
        let planned = planned.find(|planned| planned.name == run.name && planned.at == run.at);
        let reverts = planned.is_some_and(|planned| planned.on_failure() == OnJobFailure::Revert);
        assert!(!reverts || live || current.revert.is_some(), "{run:?} is forgotten in {:?}", current.step);
    }
}

/// The largest weight that a route gives the canary, in thousandths.
pub(super) fn canary_weight(route: &Value) -> i64 {
    weight_of(route, "web-canary")
}

/// The largest weight that a route gives the baseline pods, in thousandths.
pub(super) fn baseline_weight(route: &Value) -> i64 {
    weight_of(route, "web-baseline")
}

fn weight_of(route: &Value, service: &str) -> i64 {
    let of_rule = |rule: &Value| {
        let entries: Vec<&Value> = object::items(rule, "/backendRefs").collect();
        let all: i64 = entries.iter().map(|entry| object::integer(entry, "/weight", 1)).sum();
        let ours: i64 = entries
            .iter()
            .filter(|entry| object::text(entry, "/name") == service)
            .map(|entry| object::integer(entry, "/weight", 1))
            .sum();
        if all == 0 { 0 } else { (ours * 1000 + all - 1) / all }
    };
    object::items(route, "/spec/rules").map(of_rule).max().unwrap_or(0)
}

fn current(status: &Value) -> ReleaseStatus {
    let status: CanaryReleaseStatus = serde_json::from_value(status.clone()).unwrap_or_default();
    status.current.unwrap_or_else(|| ReleaseStatus { step: Step::Done, ..ReleaseStatus::default() })
}

fn permille(release: &ReleaseStatus) -> i64 {
    release.weight.parse::<Percent>().map_or(0, |weight| i64::from(weight.permille()))
}

fn reverting(step: Step) -> bool {
    matches!(step, Step::Revert | Step::RevertDrain | Step::RevertTarget)
}

impl World {
    /// The status was written: stages go up one by one, on passes, and a breach stays.
    pub(super) fn status_written(&mut self, before: &Value, decision: &Decision) {
        let was = current(before);
        let Some(now) = decision.status.current.clone() else { return };
        let place = (now.id.clone(), now.step, now.stage_index);
        if self.trail.last() != Some(&place) {
            self.trail.push(place);
        }
        let tell = || {
            format!(
                "{:?}/{} -> {:?}/{}\n{:?}\n{}",
                was.step,
                was.stage_index,
                now.step,
                now.stage_index,
                self.promises.last,
                self.describe()
            )
        };
        if was.id == now.id && was.step != Step::Done {
            let commanded = now.partial && !was.partial;
            let up = now.stage_index - was.stage_index;
            assert!(up <= 1 || commanded, "a stage is skipped: {}", tell());
            assert!(up >= 0 || now.stage_index == 0, "back to a stage in the middle: {}", tell());
            // What was not handed back yet may stay with the canary after all.
            let rolls = now.step == Step::Roll && !matches!(was.step, Step::Roll | Step::HandBack);
            let passed = up == 1 && !commanded || rolls && !now.partial;
            if passed {
                assert_eq!(was.step, Step::Bake, "only a baked stage passes: {}", tell());
                assert_eq!(
                    self.promises.passed,
                    self.promises.gates,
                    "a stage passed without each gate's pass: {}",
                    tell()
                );
                assert!(was.paused.is_none(), "a paused stage passed: {}", tell());
            }
            if now.step == Step::Roll && was.step != Step::Roll {
                assert_eq!(self.weight(), 1000, "the target rolls while stable has traffic: {}", tell());
            }
            if was.revert.is_some() {
                assert!(
                    now.revert.is_some() && (reverting(now.step) || now.step == Step::Done),
                    "a revert is forgotten: {}",
                    tell()
                );
                // Where a route gave the canary weight again, the drain begins again.
                let again = was.step == Step::RevertTarget && now.step == Step::RevertDrain;
                assert!(now.step >= was.step || again, "a revert goes back: {}", tell());
            }
            if was.revert.is_none() && permille(&now) > permille(&was) {
                assert!(!reverting(now.step), "more weight while reverting: {}", tell());
            }
        }
        if was.id != now.id && !now.id.is_empty() {
            let rejected = self.promises.rejected.get(&now.candidate.digest);
            assert!(
                rejected.is_none(),
                "a rejected template is released again without a retry: {rejected:?} {}",
                tell()
            );
            self.promises.granted.clear();
        }
        if reverting(now.step) && !reverting(was.step) {
            self.promises.route_first = self.weight() > permille(&now) && !self.unreadable.contains(&Read::Routes);
        }
        if let Some(revert) = now.revert.as_ref().filter(|revert| revert.rejects) {
            self.promises.rejected.insert(now.candidate.digest.clone(), format!("{} {}", now.id, revert.reason));
        }
    }

    /// Before an effect: nothing that depends on a failed read is written.
    pub(super) fn may_be_written(&self, effect: &Effect) {
        let reads: &[Read] = match (effect.kind(), effect.name()) {
            (Kind::Deployment, "web") => &[Read::Target],
            (Kind::Deployment | Kind::Service, "web-baseline") => &[Read::Baseline],
            (Kind::Deployment, _) => &[Read::Canary],
            (Kind::HttpRoute, _) => &[Read::Routes],
            (Kind::HorizontalPodAutoscaler, _) => &[Read::Autoscalers],
            (Kind::Service, _) => &[Read::CanaryService],
            (Kind::PodDisruptionBudget, _) => &[Read::Budgets],
            (Kind::ControllerRevision, _) => &[Read::ServingRecords],
            (Kind::ReplicaSet, _) => &[Read::ReplicaSets],
            (Kind::Job, _) => &[Read::Jobs],
            (Kind::CanaryRelease, _) => &[],
        };
        for read in reads {
            assert!(
                !self.unreadable.contains(read),
                "{effect:?} rests on {read:?}, which was not read\n{}",
                self.describe()
            );
        }
    }

    /// An effect was made.
    pub(super) fn written(&mut self, effect: &Effect, before: Option<&Value>, after: Option<&Value>) {
        let release =
            current(&self.get("CanaryRelease", "web").map_or(Value::Null, |release| release["status"].clone()));
        if self.promises.route_first && effect.kind() != Kind::CanaryRelease {
            assert_eq!(
                effect.kind(),
                Kind::HttpRoute,
                "the revert's first write is the route, not {effect:?}\n{}",
                self.describe()
            );
            self.promises.route_first = false;
        }
        match (effect.kind(), effect.name()) {
            (Kind::Job, name) => self.job_made(&release, name),
            (Kind::HttpRoute, _) => self.route_written(&release, before.unwrap(), after.unwrap()),
            (Kind::Deployment, "web") => self.target_written(&release, before.unwrap(), after.unwrap()),
            (Kind::Deployment, "web-baseline") => {
                self.own_written("baseline", self.promises.baseline_weightless, before, after);
            }
            (Kind::Deployment, _) => self.own_written("canary", self.promises.weightless, before, after),
            (Kind::HorizontalPodAutoscaler, _) => {
                assert_eq!(
                    foreign(before.unwrap(), hpa_ours),
                    foreign(after.unwrap(), hpa_ours),
                    "another's field of the autoscaler was written"
                );
            }
            _ => {}
        }
    }

    fn route_written(&mut self, release: &ReleaseStatus, before: &Value, after: &Value) {
        assert_eq!(foreign(before, route_ours), foreign(after, route_ours), "another's field of the route was written");
        for rule in object::items(after, "/spec/rules") {
            let weights: Vec<i64> = object::items(rule, "/backendRefs")
                .filter(|entry| object::text(entry, "/name").starts_with("web"))
                .map(|entry| object::integer(entry, "/weight", 1))
                .collect();
            assert!(weights.len() < 2 || weights.iter().sum::<i64>() == 1000, "weights sum to 1000: {rule}");
        }
        self.baseline_weight_written(release, before, after);
        let (was, now) = (canary_weight(before), canary_weight(after));
        let pods = i64::from(release.target_pods).max(1);
        if now > was {
            assert!(
                !reverting(release.step) && release.revert.is_none(),
                "weight rises in a revert\n{}",
                self.describe()
            );
            let selector = json!({"matchLabels": self.get("Service", "web-canary").expect("the canary's Service")["spec"]["selector"]});
            let ready = i64::try_from(self.ready_pods(&selector).len()).unwrap();
            let granted = self.promises.granted.entry(release.id.clone()).or_default();
            // What was given before and taken by another's hand may be given again to what is left.
            let needed = if now <= *granted { 1 } else { (now * pods + 999) / 1000 };
            *granted = (*granted).max(now);
            assert!(
                ready >= needed,
                "weight {now} onto {ready} ready pods where {needed} are needed\n{}",
                self.describe()
            );
        }
        if now < was && release.step == Step::HandBack {
            let ready = i64::try_from(self.ready_pods(&json!({"matchLabels": {"app": "web"}})).len()).unwrap();
            let wanted = pods.min(object::integer(self.target(), "/spec/replicas", 1));
            assert!(ready >= wanted, "weight is handed back to {ready} of {wanted} pods\n{}", self.describe());
        }
    }

    /// Baseline pods have the canary's weight or none, never more than is left beside it, and only where they are ready.
    fn baseline_weight_written(&self, release: &ReleaseStatus, before: &Value, after: &Value) {
        let (was, now) = (baseline_weight(before), baseline_weight(after));
        if now <= was {
            return;
        }
        let canary = canary_weight(after);
        assert!(now == canary && now * 2 < 1000, "baseline weight {now} beside {canary}\n{}", self.describe());
        let service = self.get("Service", "web-baseline").expect("the baseline pods' Service");
        let ready = self.ready_pods(&json!({"matchLabels": service["spec"]["selector"]}));
        let needed = (now * i64::from(release.target_pods).max(1) + 999) / 1000;
        assert!(
            i64::try_from(ready.len()).unwrap() >= needed,
            "baseline weight {now} onto {} ready pods where {needed} are needed\n{}",
            ready.len(),
            self.describe()
        );
        let served = self.status().hold.and_then(|hold| hold.serving).unwrap_or_default().images;
        let images: Vec<&str> = ready.iter().map(super::kubernetes::image_of_pod).collect();
        assert!(images.iter().all(|image| served.contains(&(*image).to_owned())), "baseline pods run {images:?}");
    }

    fn target_written(&self, release: &ReleaseStatus, before: &Value, after: &Value) {
        assert_eq!(
            foreign(before, target_ours),
            foreign(after, target_ours),
            "another's field of the target was written"
        );
        let (was, now) = (&before["spec"]["template"], &after["spec"]["template"]);
        let status = self.status();
        let served = status.hold.and_then(|hold| hold.serving).unwrap_or_default();
        let known = [&served.digest, &release.stable.digest];
        if was != now {
            assert!(
                known.contains(&&template::digest(now)),
                "a template that did not serve was written\n{}",
                self.describe()
            );
        }
        let un_paused = object::truth(before, "/spec/paused") && !object::truth(after, "/spec/paused");
        let asleep = object::integer(after, "/spec/replicas", 1) == 0;
        if un_paused && !asleep && !known.contains(&&template::digest(now)) {
            assert_eq!(release.step, Step::Roll, "the candidate rolls out before its promotion\n{}", self.describe());
        }
        if un_paused && release.step == Step::Roll {
            assert_eq!(self.weight(), 1000, "the target rolls under traffic\n{}", self.describe());
            let ready = self.ready_pods(&json!({"matchLabels": {"app": "web-canary"}})).len();
            assert!(
                ready >= usize::try_from(release.target_pods).unwrap(),
                "the target rolls while {ready} canary pods carry all of the traffic\n{}",
                self.describe()
            );
        }
    }

    /// Capacity goes only from a side that has had no weight for as long as the drain.
    fn own_written(&self, whose: &str, weightless: Option<Timestamp>, before: Option<&Value>, after: Option<&Value>) {
        let Some(before) = before else { return };
        let pods = |canary: &Value| object::integer(canary, "/spec/replicas", 0);
        // What a hand made of the canary under way is no capacity of the candidate's.
        let id = self.id();
        let own = |canary: &Value| object::annotation(canary, names::ANNOTATION_MADE_FOR) == Some(&id);
        let put_right = |after: &Value| own(before) && own(after);
        let other = |after: &Value| after["spec"]["template"] != before["spec"]["template"];
        let less = after.is_none_or(|after| pods(after) < pods(before) || (other(after) && !put_right(after)))
            && pods(before) > 0;
        if less {
            let drained =
                weightless.map(|since| Duration::try_from(self.now.duration_since(since)).unwrap_or_default());
            assert!(
                drained.is_some_and(|drained| drained >= Duration::from_secs(10)),
                "the {whose} pods are taken away {drained:?} after their weight\n{}",
                self.describe()
            );
        }
    }
}

/// An object without what is ours in it.
fn foreign(object: &Value, take_ours: fn(&mut Value)) -> String {
    let mut object = object.clone();
    let metadata = object["metadata"].as_object_mut().unwrap();
    for field in ["resourceVersion", "generation"] {
        metadata.remove(field);
    }
    for field in ["labels", "annotations"] {
        let Some(entries) = metadata.get_mut(field).and_then(Value::as_object_mut) else { continue };
        entries.retain(|key, _| !key.starts_with("canaryrelease.dev/"));
        if entries.is_empty() {
            metadata.remove(field);
        }
    }
    take_ours(&mut object);
    object.to_string()
}

fn route_ours(route: &mut Value) {
    for rule in route["spec"]["rules"].as_array_mut().into_iter().flatten() {
        let entries = rule["backendRefs"].as_array_mut().unwrap();
        entries.retain(|entry| entry["name"] != "web-canary" && entry["name"] != "web-baseline");
        for entry in entries.iter_mut().filter(|entry| entry["name"] == "web") {
            entry.as_object_mut().unwrap().remove("weight");
        }
    }
}

fn target_ours(target: &mut Value) {
    let spec = target["spec"].as_object_mut().unwrap();
    spec.remove("paused");
    spec.remove("template");
}

fn hpa_ours(hpa: &mut Value) {
    let spec = hpa["spec"].as_object_mut().unwrap();
    let Some(behavior) = spec.get_mut("behavior").and_then(Value::as_object_mut) else { return };
    if let Some(down) = behavior.get_mut("scaleDown").and_then(Value::as_object_mut) {
        down.remove("selectPolicy");
        if down.is_empty() {
            behavior.remove("scaleDown");
        }
    }
    if behavior.is_empty() {
        spec.remove("behavior");
    }
}
