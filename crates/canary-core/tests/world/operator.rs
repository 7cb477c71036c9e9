//! The operator's loop around `decide`, as `canary-operator` has it: read, decide, the status by
//! compare-and-swap, then the effects in order; woken by time and by changes of what it watches. Its
//! memory may be lost at any write.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use canary_api::{CanaryRelease, CanaryReleaseSpec, JobState, ReleaseStatus, Step, names};
use canary_core::{
    Decision, Effect, Fetched, Kind, Observed, decide,
    evidence::{self, Accounts, Paired, Totals},
    gates::{Measure, Reading, Streaks},
    object,
    observed::{BaselineSide, Hold, JobsSeen, Measured, Refusal, Rival},
    record::Carried,
    traffic::{self, Requests},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    GRID, Metrics, Read, World, Write,
    api::Refused,
    record::{Died, Journal},
};

const REFRESH: Duration = Duration::from_secs(60);
const FOLLOW_UP: Duration = Duration::from_millis(300);
const AGAIN: Duration = Duration::from_millis(20);
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How long a dead operator takes to be followed by another.
const SUCCESSION: Duration = Duration::from_secs(7);
/// The policies as they are installed.
const POLICIES: &str = "policies-1";

/// What one operator keeps in memory; all of it may be lost.
#[derive(Debug, Default)]
pub struct Operator {
    counted: Option<Counting>,
    written: Option<Timestamp>,
    /// When it looks again by itself.
    wake: Option<Timestamp>,
    /// What it watches, as last seen.
    watched: String,
    /// The world's serial number when the watches were last compared.
    compared: u64,
    started: bool,
    failures: u32,
    /// Ticks at one instant, against a loop that turns in place.
    at_once: (Option<Timestamp>, u32),
    pub(super) journal: Journal,
    /// Jobs that could not be created lately.
    refused: BTreeMap<String, (Timestamp, Refusal)>,
}

#[derive(Debug)]
struct Counting {
    release: String,
    window: Timestamp,
    base: BTreeMap<String, (f64, f64)>,
    canary: BTreeSet<String>,
    stable: BTreeSet<String>,
    baseline: BTreeSet<String>,
    /// From when the base is.
    since: Timestamp,
    accounts: Accounts,
    streaks: Streaks,
    asked: Option<Timestamp>,
    readings: Vec<Reading>,
    stable_rate: Option<f64>,
}

/// How a tick ended.
enum End {
    Next(Option<Duration>),
    Died,
}

impl World {
    /// Lets the time pass to the next thing that happens, at most to `end`.
    pub fn advance(&mut self, end: Timestamp) {
        for name in self.operators.keys().cloned().collect::<Vec<_>>() {
            if self.due(&name) {
                self.tick(&name);
            }
        }
        let wakes = self.operators.values().filter_map(|operator| operator.wake);
        let grid = if self.at_rest() { GRID * 10 } else { GRID };
        let next = wakes.chain([end]).min().unwrap_or(end).min(self.now + grid);
        let time = Duration::try_from(next.duration_since(self.now)).unwrap_or_default();
        if time > Duration::ZERO {
            self.step(time);
        }
    }

    fn due(&mut self, name: &str) -> bool {
        let operator = &self.operators[name];
        if !operator.started || operator.wake.is_some_and(|wake| wake <= self.now) {
            return true;
        }
        if operator.compared == self.serial {
            return false;
        }
        let changed = operator.watched != self.watched(name);
        self.operators.get_mut(name).unwrap().compared = self.serial;
        changed
    }

    /// What the operator's watches show of this CanaryRelease and its objects.
    fn watched(&self, name: &str) -> String {
        let Some(release) = self.get("CanaryRelease", name) else { return "gone".to_owned() };
        let uid = object::uid(release);
        let mut seen = format!(
            "{} {} {}",
            release["metadata"]["generation"],
            release["metadata"]["annotations"],
            object::deleting(release)
        );
        for ((kind, name), object) in &self.objects {
            let ours =
                object::label(object, names::LABEL_RELEASE).or(object::label(object, names::LABEL_OWNED_BY)).is_some();
            if matches!(*kind, "Deployment" | "HTTPRoute")
                && ours
                && object::annotation(object, names::ANNOTATION_UID) == Some(uid)
            {
                seen.push_str(&format!(" {name}@{}", object::resource_version(object)));
            }
        }
        seen
    }

    /// One tick; when it wishes to look again.
    pub fn tick(&mut self, name: &str) -> Option<Duration> {
        let now = self.now;
        let (watched, serial) = (self.watched(name), self.serial);
        let operator = self.operators.get_mut(name).unwrap();
        operator.watched = watched;
        operator.compared = serial;
        operator.started = true;
        operator.at_once =
            if operator.at_once.0 == Some(now) { (Some(now), operator.at_once.1 + 1) } else { (Some(now), 1) };
        assert!(operator.at_once.1 < 60, "the operator turns in place\n{}", self.describe());
        match self.run_tick(name) {
            End::Next(after) => {
                let operator = self.operators.get_mut(name).unwrap();
                operator.wake = after.map(|after| now + after);
                after
            }
            End::Died => {
                self.deaths += 1;
                let wake = Some(now + SUCCESSION);
                let dead = Operator { wake, watched: self.watched(name), started: true, ..Operator::default() };
                self.operators.insert(name.to_owned(), dead);
                Some(SUCCESSION)
            }
        }
    }

    fn run_tick(&mut self, name: &str) -> End {
        let Some(raw) = self.get("CanaryRelease", name).cloned() else { return End::Next(None) };
        let release: CanaryRelease = serde_json::from_value(raw.clone()).expect("a CanaryRelease");
        let mut observed = self.observe(release);
        observed.jobs.refused = self.refusals(name);
        self.measure(name, &mut observed);
        let decision = decide(&observed, self.now);
        if self.serial.is_multiple_of(7) {
            assert_eq!(decision, decide(&observed, self.now), "decide is deterministic");
        }
        self.promises.decided(&observed, &decision);
        let mut carried = Carried::default();
        let end = self.carry_out(name, &raw, &decision, &mut carried);
        if matches!(end, End::Died) {
            return end;
        }
        match self.keep_record(name, &observed, decision, &carried) {
            Ok(()) => end,
            Err(Died) => End::Died,
        }
    }

    fn carry_out(&mut self, name: &str, raw: &Value, decision: &Decision, carried: &mut Carried) -> End {
        let written = self.operators[name].written;
        let stale = written
            .is_none_or(|written| self.now.duration_since(written) >= jiff::SignedDuration::try_from(REFRESH).unwrap());
        let differs = raw["status"] != json!(decision.status);
        let in_motion = decision.status.current.as_ref().is_some_and(|current| current.step != Step::Done);
        let write = decision.decisive || (differs && stale && in_motion);
        if write {
            match self.write_status(name, raw, decision) {
                Ok(()) => {}
                Err(None) => return End::Died,
                Err(Some(Refused::Conflict(_) | Refused::Gone(_))) => return End::Next(Some(AGAIN)),
                Err(Some(_)) => {
                    // The status could not be written: traffic goes back all the same, and nothing else is done.
                    let back = decision.effects.iter().enumerate().filter(|(_, effect)| effect.gives_traffic_back());
                    for (index, effect) in back {
                        match self.write(name, effect) {
                            Ok(()) => carried.effects.push(index),
                            Err(None) => return End::Died,
                            Err(Some(_)) => {}
                        }
                    }
                    return self.failed(name);
                }
            }
            self.operators.get_mut(name).unwrap().written = Some(self.now);
            self.tell(decision);
            carried.told = true;
        }
        carried.status = true;
        for (index, effect) in decision.effects.iter().enumerate() {
            match self.write(name, effect) {
                Ok(()) => carried.effects.push(index),
                Err(None) => return End::Died,
                Err(Some(refused)) if effect.may_fail() => self.remember_refusal(name, effect, &refused),
                Err(Some(Refused::Conflict(_) | Refused::Gone(_))) => return End::Next(Some(AGAIN)),
                Err(Some(_)) => return self.failed(name),
            }
        }
        self.operators.get_mut(name).unwrap().failures = 0;
        if !write {
            self.tell(decision);
            carried.told = true;
        }
        if decision.gone && decision.effects.is_empty() {
            return End::Next(None);
        }
        let follow_up = (!decision.effects.is_empty()).then_some(FOLLOW_UP);
        End::Next(decision.wake_after.into_iter().chain(follow_up).min())
    }

    fn refusals(&self, name: &str) -> BTreeMap<String, Refusal> {
        let fresh = |at: &Timestamp| Duration::try_from(self.now.duration_since(*at)).unwrap() < TRY_AGAIN;
        let refused = self.operators[name].refused.iter();
        refused.map(|(job, (at, refusal))| (job.clone(), Refusal { fresh: fresh(at), ..refusal.clone() })).collect()
    }

    fn remember_refusal(&mut self, name: &str, effect: &Effect, refused: &Refused) {
        if effect.kind() == Kind::Job && !matches!(refused, Refused::Conflict(_)) {
            let refusal =
                Refusal { why: format!("{refused:?}"), last: matches!(refused, Refused::Forbidden(_)), fresh: true };
            let operator = self.operators.get_mut(name).unwrap();
            operator.refused.insert(effect.name().to_owned(), (self.now, refusal));
        }
    }

    /// The jobs whose end the status does not know.
    fn observe_jobs(&self, release: &CanaryRelease) -> JobsSeen {
        let current = release.status.as_ref().and_then(|status| status.current.as_ref());
        let Some(current) = current.filter(|current| current.step != Step::Revert) else { return JobsSeen::default() };
        let mut seen = JobsSeen::default();
        if release.metadata.deletion_timestamp.is_some() {
            return seen;
        }
        for run in current.jobs.iter().filter(|run| run.state.is_open()) {
            let job = self.fetch(Read::Jobs, "Job", &run.job);
            if let Some(found) =
                job.known().filter(|job| matches!(canary_core::job::state(job), canary_core::job::State::Failed(_)))
            {
                seen.pods.insert(run.job.clone(), self.pods_of_job(found));
            }
            seen.jobs.insert(run.job.clone(), job);
            let planned = release.spec.jobs.iter().find(|job| job.name == run.name);
            if let Some(planned) = planned.filter(|_| run.state == JobState::Wanted) {
                let found = self.fetch(Read::Jobs, "CronJob", &planned.cron_job);
                seen.cron_jobs.insert(planned.cron_job.clone(), found);
            }
        }
        seen
    }

    fn pods_of_job(&self, job: &Value) -> Fetched<Vec<Value>> {
        self.list(Read::JobPods, "Pod", |pod| object::controlled_by(pod, object::uid(job)))
    }

    fn tell(&mut self, decision: &Decision) {
        for note in &decision.notes {
            self.notes.push(format!("{} {}: {}", self.now, note.reason, note.text));
        }
    }

    fn failed(&mut self, name: &str) -> End {
        let operator = self.operators.get_mut(name).unwrap();
        operator.failures += 1;
        End::Next(Some(Duration::from_millis(500) * operator.failures.min(60)))
    }

    /// Err(None): the operator died right after the write.
    fn write_status(&mut self, name: &str, raw: &Value, decision: &Decision) -> Result<(), Option<Refused>> {
        let present = self.get("CanaryRelease", name).ok_or(Some(Refused::Gone(name.to_owned())))?.clone();
        if object::resource_version(&present) != object::resource_version(raw) {
            return Err(Some(Refused::Conflict(name.to_owned())));
        }
        if self.status_refused {
            return Err(Some(Refused::Unavailable("etcd".to_owned())));
        }
        let mut wanted = present.clone();
        wanted["status"] = json!(decision.status);
        assert_ne!(present["status"], wanted["status"], "a write of the status that changes nothing");
        let text = wanted["status"].to_string();
        assert!(text.len() < 16 * 1024, "the status has grown to {} bytes: {text}", text.len());
        wanted["metadata"]["resourceVersion"] = json!(self.serial().to_string());
        self.objects.insert(("CanaryRelease", name.to_owned()), wanted);
        self.status_written(&present["status"], decision);
        let what = decision.status.current.as_ref().map_or_else(
            || format!("{:?}", decision.status.phase),
            |current| format!("{:?} {} {}", current.step, current.stage_index, decision.status.message),
        );
        self.noted("CanaryRelease", name, &format!("status: {what}"))
    }

    fn write(&mut self, _: &str, effect: &Effect) -> Result<(), Option<Refused>> {
        let kind = effect.kind().as_str();
        let before = self.get(kind, effect.name()).cloned();
        self.may_be_written(effect);
        let done = match effect {
            Effect::Create { object, .. } => self.create_new(kind, object.clone()),
            Effect::Patch { name, patch, .. } => self.patch(kind, name, patch),
            Effect::Delete { name, uid, .. } => match self.delete_exactly(kind, name, uid) {
                Err(Refused::Gone(_)) => Ok(()),
                other => other,
            },
        };
        done.map_err(Some)?;
        let after = self.get(kind, effect.name()).cloned();
        self.written(effect, before.as_ref(), after.as_ref());
        self.noted(kind, effect.name(), effect.why())
    }

    fn noted(&mut self, kind: &'static str, name: &str, what: &str) -> Result<(), Option<Refused>> {
        self.writes.push(Write { at: self.now, kind, name: name.to_owned(), what: what.to_owned() });
        if self.dies_now() { Err(None) } else { Ok(()) }
    }

    /// Whether the operator dies right after the write that was made.
    pub(super) fn dies_now(&mut self) -> bool {
        self.written += 1;
        match &mut self.dies_after {
            Some(0 | 1) => {
                self.dies_after = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn fetch(&self, read: Read, kind: &'static str, name: &str) -> Fetched<Value> {
        if self.unreadable.contains(&read) {
            return Fetched::Failed("the server fails".to_owned());
        }
        self.get(kind, name).map_or(Fetched::Missing, |object| Fetched::Known(object.clone()))
    }

    fn list(&self, read: Read, kind: &'static str, keep: impl Fn(&Value) -> bool) -> Fetched<Vec<Value>> {
        if self.unreadable.contains(&read) {
            return Fetched::Failed("the server fails".to_owned());
        }
        Fetched::Known(
            self.objects
                .iter()
                .filter(|((of, _), object)| *of == kind && keep(object))
                .map(|(_, object)| object.clone())
                .collect(),
        )
    }

    /// What a tick sees of the cluster, without what is measured.
    pub fn seen(&self, name: &str) -> Observed {
        let raw = self.get("CanaryRelease", name).unwrap().clone();
        self.observe(serde_json::from_value(raw).expect("a CanaryRelease"))
    }

    fn observe(&self, release: CanaryRelease) -> Observed {
        let spec = &release.spec;
        let name = release.metadata.name.clone().unwrap_or_default();
        let active = release
            .status
            .as_ref()
            .and_then(|status| status.current.as_ref())
            .is_some_and(|current| current.step != Step::Done);
        let target = self.fetch(Read::Target, "Deployment", &spec.target.name);
        let canary = self.fetch(Read::Canary, "Deployment", &names::canary(&spec.target.name));
        let rivals = match self
            .list(Read::Rivals, "CanaryRelease", |other| object::text(other, "/spec/target/name") == spec.target.name)
        {
            _ if active => Fetched::Missing,
            Fetched::Known(all) => Fetched::Known(
                all.iter()
                    .map(|other| Rival {
                        name: object::name(other).to_owned(),
                        uid: object::uid(other).to_owned(),
                        created: object::text(other, "/metadata/creationTimestamp").to_owned(),
                    })
                    .collect(),
            ),
            Fetched::Missing => Fetched::Missing,
            Fetched::Failed(why) => Fetched::Failed(why),
        };
        let pods = |read: Read, deployment: &Fetched<Value>| match deployment {
            Fetched::Known(deployment) => {
                let sets: Vec<String> = self
                    .list(Read::ReplicaSets, "ReplicaSet", |set| object::controlled_by(set, object::uid(deployment)))
                    .list()
                    .iter()
                    .map(|set| object::uid(set).to_owned())
                    .collect();
                if self.unreadable.contains(&Read::ReplicaSets) {
                    return Fetched::Failed("the server fails".to_owned());
                }
                self.list(read, "Pod", |pod| sets.iter().any(|set| object::controlled_by(pod, set)))
            }
            Fetched::Missing => Fetched::Known(Vec::new()),
            Fetched::Failed(why) => Fetched::Failed(why.clone()),
        };
        let failed = matches!((&target, &canary), (Fetched::Failed(_), _) | (_, Fetched::Failed(_)));
        let replica_sets = if failed {
            Fetched::Failed("the server fails".to_owned())
        } else {
            self.list(Read::ReplicaSets, "ReplicaSet", |_| true)
        };
        let owned = |object: &Value| object::label(object, names::LABEL_OWNED_BY) == Some(&names::label_value(&name));
        let hold = release.status.as_ref().and_then(|status| status.hold.clone()).unwrap_or_default();
        let named = |object: &Value| object::name(object) == hold.serving_record;
        let current = release.status.as_ref().and_then(|status| status.current.as_ref());
        let had = current.is_some_and(|current| current.baseline_pods.is_some());
        let beside = had || spec.baseline.pods || release.metadata.deletion_timestamp.is_some();
        let baseline = if beside {
            let deployment = self.fetch(Read::Baseline, "Deployment", &names::baseline(&spec.target.name));
            let service = self.fetch(Read::Baseline, "Service", &names::baseline(&spec.traffic.service));
            let pods = pods(Read::Baseline, &deployment);
            BaselineSide { deployment, pods, service }
        } else {
            BaselineSide::none()
        };
        let jobs = self.observe_jobs(&release);
        Observed {
            baseline,
            jobs,
            rivals,
            target_pods: pods(Read::TargetPods, &target),
            canary_pods: pods(Read::CanaryPods, &canary),
            replica_sets,
            service: self.fetch(Read::Service, "Service", &spec.traffic.service),
            canary_service: self.fetch(Read::CanaryService, "Service", &names::canary(&spec.traffic.service)),
            routes: spec
                .traffic
                .routes
                .iter()
                .map(|route| (route.name.clone(), self.fetch(Read::Routes, "HTTPRoute", &route.name)))
                .collect(),
            autoscalers: self.list(Read::Autoscalers, "HorizontalPodAutoscaler", |_| true),
            budgets: self.list(Read::Budgets, "PodDisruptionBudget", |_| true),
            network_policies: if active {
                Fetched::Missing
            } else {
                self.list(Read::NetworkPolicies, "NetworkPolicy", |_| true)
            },
            serving_records: self
                .list(Read::ServingRecords, "ControllerRevision", |record| owned(record) || named(record)),
            hold: self.prove(&release, &target, active),
            policies: POLICIES.to_owned(),
            provider_problem: None,
            names_pods: true,
            measured: Measured::default(),
            target,
            canary,
            release,
        }
    }

    /// The dry run by which the hold is proved, and when it is tried.
    fn prove(&self, release: &CanaryRelease, target: &Fetched<Value>, active: bool) -> Hold {
        let proved = release
            .status
            .as_ref()
            .and_then(|status| status.hold.as_ref())
            .is_some_and(|hold| hold.armed && hold.proved_with == POLICIES);
        let Some(target) = target.known() else { return Hold::NotTried };
        let labelled = object::label(target, names::LABEL_RELEASE).is_some()
            && object::annotation(target, names::ANNOTATION_UID) == release.metadata.uid.as_deref();
        let others = object::annotation(target, names::ANNOTATION_OVERRIDE).is_some()
            || object::annotation(target, names::ANNOTATION_ROLLING).is_some();
        if proved || !labelled || others || active || release.metadata.deletion_timestamp.is_some() {
            return Hold::NotTried;
        }
        if self.hold_installed {
            Hold::Works(POLICIES.to_owned())
        } else {
            Hold::Fails("it came back un-paused".to_owned())
        }
    }

    fn pod_names(&self, pods: &Fetched<Vec<Value>>) -> BTreeSet<String> {
        pods.list().iter().map(|pod| object::name(pod).to_owned()).collect()
    }

    /// Fills the readings from the pods' counters, as differences since the window began.
    fn measure(&mut self, name: &str, observed: &mut Observed) {
        let Some(current) = observed.release.status.as_ref().and_then(|status| status.current.clone()) else { return };
        let measured = evidence::windowed(&current).map(Cow::into_owned);
        let mut counted = self.operators.get_mut(name).unwrap().counted.take();
        let Some(current) = measured else { return };
        let window = current.window_since.as_ref().map_or(self.now, |since| since.0);
        match &mut counted {
            Some(counting) if counting.release == current.id && counting.window == window => {}
            Some(counting) if counting.release == current.id => {
                *counting = Counting::new(&observed.release.spec, &current, window, None, &self.counters);
            }
            _ => {
                let resumed = (!current.counts.is_empty()).then_some(self.now);
                counted = Some(Counting::new(&observed.release.spec, &current, window, resumed, &self.counters));
            }
        }
        let Some(mut counting) = counted else { return };
        let interval = observed.release.spec.interval.std().mul_f64(0.8);
        let young = counting
            .asked
            .is_some_and(|asked| Duration::try_from(self.now.duration_since(asked)).unwrap_or_default() < interval);
        if !young {
            self.ask(&mut counting, observed, &current);
        }
        observed.measured = Measured {
            stable_rate: counting.stable_rate,
            ..Measured::new(&counting.readings, counting.accounts.traffic())
        };
        self.operators.get_mut(name).unwrap().counted = Some(counting);
    }

    fn ask(&self, counting: &mut Counting, observed: &Observed, current: &ReleaseStatus) {
        let (mut canary, mut stable) = (self.pod_names(&observed.canary_pods), self.pod_names(&observed.target_pods));
        // From the hand-back on, the candidate's pods are the target's as well.
        if matches!(current.step, Step::HandBack | Step::Drain | Step::Soak) {
            canary.append(&mut stable);
        }
        counting.canary.extend(canary.iter().cloned());
        counting.stable.extend(stable);
        counting.baseline.extend(self.pod_names(&observed.baseline.pods));
        let beside = traffic::beside(current) > 0.0;
        counting.asked = Some(self.now);
        let seconds = self.now.duration_since(counting.since).as_secs_f64();
        let side = |pods: &BTreeSet<String>| {
            pods.iter().fold((0.0, 0.0), |(n, k), pod| {
                let (all, bad) = self.counters.get(pod).copied().unwrap_or_default();
                let (all_before, bad_before) = counting.base.get(pod).copied().unwrap_or_default();
                (n + all - all_before, k + bad - bad_before)
            })
        };
        let counted = |of: &str, pods: &BTreeSet<String>| {
            let (n, k) = side(pods);
            match self.metrics {
                Metrics::Down => Measure::Error("Prometheus does not answer".to_owned()),
                Metrics::WithoutBaseline if of == "baseline" => Measure::NoData("no series".to_owned()),
                Metrics::Silent if of == "canary" => Measure::NoData("no series".to_owned()),
                _ if pods.is_empty() => Measure::NoData("no pods".to_owned()),
                _ => Measure::Counted { n, k, seconds },
            }
        };
        let (of_canary, of_stable) = (side(&counting.canary), side(&counting.stable));
        let of_baseline = side(&counting.baseline);
        let mut totals = Vec::new();
        for gate in &observed.release.spec.gates {
            let (canary_says, stable_says) = if gate.value.is_some() {
                (self.gauge(&mut counting.streaks, gate, &canary), Measure::NoData("a value gate".to_owned()))
            } else {
                (counted("canary", &counting.canary), counted("stable", &counting.stable))
            };
            let with = if beside { of_baseline } else { of_stable };
            let paired = Paired {
                canary_events: of_canary.1,
                stable_events: with.1,
                canary_requests: of_canary.0,
                stable_requests: with.0,
            };
            let told = self.metrics == Metrics::Fine || self.metrics == Metrics::WithoutBaseline && !beside;
            let paired = told.then_some(paired);
            let baseline_pods = (beside && gate.relative.is_some()).then(|| counted("baseline", &counting.baseline));
            totals.push(Totals { paired, baseline_pods, ..Totals::new(&gate.name, canary_says, stable_says) });
        }
        let now = self.now.as_millisecond();
        let (canary, stable) = (of_canary.0, of_stable.0 + of_baseline.0);
        let requests = Requests { canary, stable, known_to: now, newest: now, stable_then: stable };
        let known = |pods: &Fetched<Vec<Value>>| matches!(pods, Fetched::Known(pods) if !pods.is_empty());
        let known = known(&observed.canary_pods) && known(&observed.target_pods);
        let requests = (self.metrics == Metrics::Fine && known).then_some(requests);
        counting.stable_rate = (self.metrics == Metrics::Fine && seconds > 0.0).then(|| stable / seconds);
        let spec = &observed.release.spec;
        counting.readings = counting.accounts.absorb(spec, current.step, &totals, requests, self.now);
    }

    fn gauge(&self, streaks: &mut Streaks, gate: &canary_api::Gate, pods: &BTreeSet<String>) -> Measure {
        let worst = pods
            .iter()
            .filter_map(|pod| self.get("Pod", pod))
            .filter(|pod| canary_core::pods::ready(pod))
            .map(|pod| self.versions.get(super::kubernetes::image_of_pod(pod)).copied().unwrap_or_default().staleness)
            .fold(None, |worst: Option<f64>, value| Some(worst.map_or(value, |worst| worst.max(value))));
        match (self.metrics, worst) {
            (Metrics::Down, _) => Measure::Error("Prometheus does not answer".to_owned()),
            (Metrics::Silent, _) | (_, None) => Measure::NoData("no series".to_owned()),
            (Metrics::Fine | Metrics::WithoutBaseline, Some(value)) => streaks.push(gate, value),
        }
    }
}

impl Counting {
    fn new(
        spec: &CanaryReleaseSpec,
        current: &ReleaseStatus,
        window: Timestamp,
        resumed: Option<Timestamp>,
        counters: &BTreeMap<String, (f64, f64)>,
    ) -> Self {
        Self {
            release: current.id.clone(),
            window,
            base: counters.clone(),
            canary: BTreeSet::new(),
            stable: BTreeSet::new(),
            baseline: BTreeSet::new(),
            since: resumed.unwrap_or(window),
            accounts: Accounts::new(spec, current, window, resumed),
            streaks: if resumed.is_some() { Streaks::of(current) } else { Streaks::default() },
            asked: None,
            readings: Vec::new(),
            stable_rate: None,
        }
    }
}
