//! The steps of a release one tick at a time: what ends each of them and when, what it waits for, and what stops it.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use canary_api::{CanaryReleaseSpec, Paused, ReleaseStatus, Step, names};
use canary_core::{
    Decision, Fetched, Observed, decide,
    evidence::{Accounts, LeftOut, Totals},
    gates::{Measure, Reading},
};
use canary_stats::{Dispersion, MeasuredDispersion};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::world::{Place, World, spec};

/// What a tick sees of a release, to be changed.
#[derive(Clone)]
struct Sight {
    seen: Observed,
    now: Timestamp,
}

impl Sight {
    fn of(world: &World) -> Self {
        Self { seen: world.seen("web"), now: world.now }
    }

    /// Of a release that came here by short stages, as if they were of the usual length.
    fn of_brief(world: &World) -> Self {
        Self::of(world).with(spec())
    }

    /// A good release that is at this place.
    fn at(place: Place) -> Self {
        static FOUND: Mutex<BTreeMap<Place, Sight>> = Mutex::new(BTreeMap::new());
        if let Some(sight) = FOUND.lock().unwrap().get(&place) {
            return sight.clone();
        }
        let sight = Self::of_brief(&World::with_release(brief(), "v2", place));
        FOUND.lock().unwrap().insert(place, sight.clone());
        sight
    }

    fn with(mut self, over: Value) -> Self {
        let mut spec = json!(self.seen.release.spec);
        for (key, value) in over.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.seen.release.spec = serde_json::from_value(spec).unwrap();
        self
    }

    /// With the gate alone that reads a number, which is this, outside its limits so many ticks in a row.
    fn gauge(mut self, value: f64, streak: u32) -> Self {
        self.seen.release.spec.gates.retain(|gate| gate.name == "staleness");
        self.seen.measured.readings = vec![number(value, streak)];
        self
    }

    /// With the gate of errors alone, and what it counted on both sides: requests and bad ones.
    fn errors(mut self, canary: Measure, stable: Measure) -> Self {
        self.seen.release.spec.gates.retain(|gate| gate.name == "errors");
        self.seen.measured.readings = vec![self.reading("errors", canary, stable)];
        self
    }

    fn reading(&mut self, gate: &str, canary: Measure, stable: Measure) -> Reading {
        let (spec, current) = (self.spec().clone(), self.current().clone());
        let window = self.now - SignedDuration::from_secs(60);
        let totals = Totals::new(gate, canary, stable);
        Accounts::new(&spec, &current, window, None).absorb(&spec, current.step, &[totals], None, self.now).remove(0)
    }

    fn spec(&mut self) -> &mut CanaryReleaseSpec {
        &mut self.seen.release.spec
    }

    fn current(&mut self) -> &mut ReleaseStatus {
        self.seen.release.status.as_mut().unwrap().current.as_mut().unwrap()
    }

    fn ago(&self, millis: i64) -> Time {
        Time(self.now - SignedDuration::from_millis(millis))
    }

    /// The step began so long ago.
    fn since(mut self, millis: i64) -> Self {
        self.current().step_since = Some(self.ago(millis));
        self
    }

    fn changed(mut self, change: impl FnOnce(&mut ReleaseStatus)) -> Self {
        change(self.current());
        self
    }

    fn paused(mut self, without_weight: bool) -> Self {
        let since = self.ago(1000);
        self.current().paused =
            Some(Paused { by: "user jane".to_owned(), reason: "Command".to_owned(), since, without_weight });
        self
    }

    /// Jane gives a command that this tick takes.
    fn command(mut self, text: &str) -> Self {
        let annotations = self.seen.release.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_COMMAND.to_owned(), text.to_owned());
        annotations.insert(names::ANNOTATION_COMMAND_BY.to_owned(), "jane".to_owned());
        self
    }

    fn target(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(known(&mut self.seen.target));
        self
    }

    fn canary(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(known(&mut self.seen.canary));
        self
    }

    fn route(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(known(&mut self.seen.routes[0].1));
        self
    }

    fn canary_pods(mut self, change: impl Fn(&mut Value)) -> Self {
        known(&mut self.seen.canary_pods).iter_mut().for_each(change);
        self
    }

    fn target_pods(mut self, change: impl Fn(&mut Value)) -> Self {
        known(&mut self.seen.target_pods).iter_mut().for_each(change);
        self
    }

    fn decide(&self) -> Decision {
        decide(&self.seen, self.now)
    }
}

/// A spec by which every place is soon reached.
fn brief() -> Value {
    let stages = ["10%", "50%", "100%"].map(|weight| json!({"weight": weight, "duration": "1s"}));
    let gates = json!([{"name": "staleness", "value": {"query": "max(staleness{pod=~\"$pods\"})", "max": 30}}]);
    let baseline = json!({"duration": "1s"});
    json!({"soak": "60s", "interval": "1s", "baseline": baseline, "stages": stages, "gates": gates})
}

fn known<T>(fetched: &mut Fetched<T>) -> &mut T {
    match fetched {
        Fetched::Known(known) => known,
        Fetched::Missing | Fetched::Failed(_) => panic!("it is there"),
    }
}

fn number(value: f64, streak: u32) -> Reading {
    Reading {
        gate: "staleness".to_owned(),
        canary: Measure::Number { value, streak },
        stable: Measure::NoData("a value gate".to_owned()),
        proof: None,
        baseline_pods: None,
        baseline: None,
        evidence: None,
        bursts: None,
        left_out: LeftOut::default(),
    }
}

fn counted(n: f64, k: f64) -> Measure {
    Measure::Counted { n, k, seconds: 60.0 }
}

fn late(n: f64, k: f64) -> Measure {
    Measure::Partial { n, k, seconds: 60.0, why: "pod a: 30s old".to_owned() }
}

fn failed<T>() -> Fetched<T> {
    Fetched::Failed("timeout".to_owned())
}

fn current(decision: &Decision) -> &ReleaseStatus {
    decision.status.current.as_ref().unwrap()
}

fn step(decision: &Decision) -> Step {
    current(decision).step
}

/// Reason and sentence of each thing that is told.
fn told(decision: &Decision) -> Vec<(&str, &str)> {
    decision.notes.iter().map(|note| (note.reason, note.text.as_str())).collect()
}

/// Why the release stands: the reason, the sentence, and whether traffic went back to stable.
fn stopped(decision: &Decision) -> Option<(&str, &str, bool)> {
    let paused = current(decision).paused.as_ref()?;
    Some((paused.reason.as_str(), paused.by.as_str(), paused.without_weight))
}

/// Why the release is reverted, by whom, and whether its candidate is rejected.
fn reverted(decision: &Decision) -> Option<(&str, &str, bool)> {
    let revert = current(decision).revert.as_ref()?;
    assert_eq!(step(decision), Step::Revert);
    Some((revert.reason.as_str(), revert.by.as_str(), revert.rejects))
}

/// What is waited for, at the end of the message.
fn assert_waits(decision: &Decision, why: &str) {
    assert!(decision.status.message.ends_with(&format!("; {why}")), "{}", decision.status.message);
}

fn is_ready(pod: &mut Value) {
    pod["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
}

/// Not ready, for no reason that is known.
fn not_ready(pod: &mut Value) {
    pod["status"] = json!({"conditions": [{"type": "Ready", "status": "False"}]});
}

/// Its container is in this state, and not ready.
fn ails(pod: &mut Value, state: &Value) {
    not_ready(pod);
    pod["status"]["containerStatuses"] = json!([{"name": "app", "ready": false, "restartCount": 0, "state": state}]);
}

fn fails_its_probe(pod: &mut Value) {
    ails(pod, &json!({"running": {}}));
}

fn crashes(pod: &mut Value) {
    ails(pod, &json!({"waiting": {"reason": "CrashLoopBackOff"}}));
}

fn finds_no_node(pod: &mut Value) {
    pod["status"] = json!({"conditions": [
        {"type": "Ready", "status": "False"},
        {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"},
    ]});
}

fn image(deployment: &mut Value, image: &str) {
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
}

#[test]
fn a_breach_is_none_before_the_candidate_has_traffic() {
    for place in [(Step::Baseline, 0), (Step::Scale, 0)] {
        let mut sight = Sight::at(place).gauge(99.0, 9);
        sight.seen.measured.next_look = Some(Duration::from_millis(1));
        let done = sight.decide();
        assert_eq!((step(&done), reverted(&done)), (place.0, None), "{}", done.status.message);
        assert_ne!(done.wake_after, Some(Duration::from_millis(1)));
        assert_eq!(current(&done).counts, []);
    }
}

#[test]
fn readings_of_before_a_resume_end_nothing() {
    let sight = Sight::at((Step::Bake, 0)).gauge(99.0, 9);
    assert_eq!(reverted(&sight.decide()), Some(("GateBreached", "gate staleness", true)));
    let resumed = sight.paused(false).command("resume web-1").decide();
    assert_eq!((step(&resumed), reverted(&resumed), stopped(&resumed)), (Step::Bake, None, None));
}

/// A sight with a job of the stage that failed.
fn with_a_failed_job(sight: Sight) -> Sight {
    let mut sight = sight.with(json!({"jobs": [{"name": "smoke", "cronJob": "smoke", "at": "Stage"}]}));
    let run = json!([{"name": "smoke", "at": "Stage", "attempt": 1, "stage": 1, "job": "j", "state": "Failed"}]);
    sight.current().jobs = serde_json::from_value(run).unwrap();
    sight
}

#[test]
fn a_breach_of_the_candidates_own_comes_before_a_failed_job_and_one_of_both_sides_after_it() {
    let sight = || Sight::at((Step::Bake, 0));
    let own = with_a_failed_job(sight()).gauge(99.0, 9).decide();
    assert_eq!(reverted(&own), Some(("GateBreached", "gate staleness", true)));
    let (canary, stable) = (counted(100.0, 50.0), counted(1000.0, 500.0));
    let both = with_a_failed_job(sight()).errors(canary, stable).decide();
    assert_eq!(reverted(&both), Some(("JobFailed", "job smoke", true)));
}

#[test]
fn a_breach_of_both_sides_stops_a_stage_and_rejects_nothing() {
    for place in [(Step::Scale, 1), (Step::Shift, 1), (Step::Bake, 1)] {
        let done = Sight::at(place).errors(counted(100.0, 50.0), counted(1000.0, 500.0)).decide();
        let why = "gate errors: 50% where <= 1% is allowed, and stable has 50% at the same time: both sides are bad";
        assert_eq!(stopped(&done), Some(("Confounded", why, true)), "{place:?}");
        assert_eq!((current(&done).weight.as_str(), reverted(&done)), ("0%", None));
    }
}

#[test]
fn a_breach_of_both_sides_outside_of_a_stage_is_a_breach() {
    let forged = Sight::at((Step::Baseline, 0)).changed(|current| current.weight = "50%".to_owned());
    let done = forged.errors(counted(100.0, 50.0), counted(1000.0, 500.0)).decide();
    assert_eq!(reverted(&done), Some(("GateBreached", "gate errors", true)));
}

#[test]
fn a_canary_that_counts_nothing_of_twenty_requests_that_were_due_stops_its_stage() {
    let due = |sight: Sight, requests: f64| {
        let mut sight = sight.gauge(1.0, 0);
        sight.seen.measured.due_in_silence = requests;
        sight.decide()
    };
    let at = |step| Sight::at((step, 1));
    let why = "the canary counted no request while about 20 were due to it at 50%";
    assert_eq!(stopped(&due(at(Step::Bake), 20.0)), Some(("CanarySilent", why, true)));
    assert_eq!(stopped(&due(at(Step::Bake), 19.9)), None);
    assert_eq!(stopped(&due(at(Step::Shift), 99.0)), None);
    assert_eq!(stopped(&due(at(Step::Bake).paused(false), 99.0)), Some(("Command", "user jane", false)));
    assert_eq!(stopped(&due(at(Step::Bake).paused(false).command("resume web-1"), 99.0)), None);
}

#[test]
fn a_stage_whose_route_lost_the_weight_begins_anew() {
    let lost = |sight: Sight| {
        sight.gauge(1.0, 0).route(|route| route["spec"]["rules"][0]["backendRefs"][1]["weight"] = json!(0))
    };
    let at = |place| Sight::at(place).since(9000);
    let done = lost(at((Step::Bake, 1))).decide();
    assert_eq!((step(&done), done.wake_after), (Step::Shift, Some(Duration::from_millis(500))));
    assert_waits(&done, "HTTPRoute web does not give the canary 500/1000");
    assert_eq!(step(&lost(at((Step::Bake, 1)).paused(false)).decide()), Step::Bake);
    assert_eq!(step(&lost(at((Step::Scale, 1))).decide()), Step::Scale);
    for (route, found) in [(Fetched::Missing, Step::Shift), (failed(), Step::Bake)] {
        let mut sight = at((Step::Bake, 1)).gauge(1.0, 0);
        sight.seen.routes[0].1 = route;
        let done = sight.decide();
        assert_eq!(step(&done), found);
        assert_eq!(done.status.message.ends_with("; HTTPRoute web is gone"), found == Step::Shift);
    }
}

#[test]
fn a_target_that_can_not_be_read_is_said_and_ends_nothing() {
    let mut sight = Sight::at((Step::Bake, 1)).gauge(1.0, 0);
    sight.seen.target = failed();
    let done = sight.decide();
    assert_eq!((step(&done), done.wake_after), (Step::Bake, Some(Duration::from_secs(5))));
    assert_waits(&done, "Deployment web could not be read: timeout");
}

#[test]
fn a_target_that_is_not_the_releases_any_more_ends_it() {
    let at = || Sight::at((Step::Bake, 1)).gauge(1.0, 0);
    let mut gone = at();
    gone.seen.target = Fetched::Missing;
    let cases = [
        (gone, ("TargetDeleted", "target", false), "Deployment web was deleted"),
        (
            at().target(|target| target["metadata"]["uid"] = json!("other")),
            ("TargetReplaced", "target", false),
            "Deployment web was deleted and created again",
        ),
        (
            at().target(|target| target["spec"]["replicas"] = json!(0)),
            ("ScaledToZero", "target", false),
            "Deployment web was scaled to zero during the release: the serving version's template is written back, so that it is what comes back",
        ),
        (
            at().target(|target| image(target, "web:v3")),
            ("Superseded", "user jane", false),
            "a newer template was written by jane",
        ),
        (
            at().target(|target| image(target, "web:v1")),
            ("Superseded", "user jane", false),
            "the serving version's template was written back by jane",
        ),
    ];
    for (sight, cause, message) in cases {
        let done = sight.decide();
        assert_eq!(reverted(&done), Some(cause), "{message}");
        assert_eq!(current(&done).revert.as_ref().unwrap().message, message);
    }
}

#[test]
fn an_override_of_the_target_or_of_a_route_ends_the_release_and_says_who_gave_it() {
    let burns = |object: &mut Value| object["metadata"]["annotations"][names::ANNOTATION_OVERRIDE] = json!("it burns");
    let signed = |object: &mut Value| {
        burns(object);
        object["metadata"]["annotations"][names::ANNOTATION_OVERRIDE_BY] = json!("jane");
    };
    let bake = || Sight::at((Step::Bake, 1)).gauge(1.0, 0);
    let soak = || Sight::at((Step::Soak, 2)).gauge(1.0, 0);
    for (sight, by, rejects) in [
        (bake().target(signed), "jane", false),
        (bake().target(burns), "someone unknown", false),
        (bake().route(signed), "jane", true),
        (bake().route(burns), "someone unknown", true),
        (soak().route(signed), "jane", false),
    ] {
        let done = sight.decide();
        assert_eq!(reverted(&done), Some(("Overridden", format!("user {by}").as_str(), rejects)));
        assert_eq!(current(&done).revert.as_ref().unwrap().message, format!("{by} overrode the hold: it burns"));
    }
}

#[test]
fn a_newer_template_ends_a_release_until_its_canary_has_drained_and_then_only_its_soak() {
    let newer = |sight: Sight| sight.gauge(1.0, 0).target(|target| image(target, "web:v3")).decide();
    let drains = newer(Sight::at((Step::Drain, 2)));
    assert_eq!(reverted(&drains), Some(("Superseded", "user someone unknown", false)));
    let drained = newer(Sight::at((Step::Drain, 2)).changed(|current| current.canary_pods = 0));
    assert_eq!((step(&drained), told(&drained)), (Step::Drain, vec![]));
    let before = newer(Sight::at((Step::Baseline, 0)).changed(|current| current.canary_pods = 0));
    assert_eq!(reverted(&before), Some(("Superseded", "user jane", false)));
    let soaks = newer(Sight::at((Step::Soak, 2)));
    assert_eq!(told(&soaks)[0], ("SoakCutShort", "a newer template was written during the soak"));
    assert_eq!(told(&soaks)[1], ("Promoted", "web-1: web:v2 is live"));
    let same = Sight::at((Step::Soak, 2)).gauge(1.0, 0).decide();
    assert_eq!((step(&same), told(&same)), (Step::Soak, vec![]));
}

const GONE: &str = "no pod of the canary is ready any more";

/// All of the canary's pods are like this, after they were lost so many times in the stage.
fn lost((step, stage): Place, flaps: u32, how: fn(&mut Value)) -> Decision {
    let sight = Sight::at((step, stage)).gauge(1.0, 0).canary_pods(how);
    sight.changed(|current| current.flaps = flaps).decide()
}

/// The name of the first of the canary's pods.
fn first_pod(mut sight: Sight) -> String {
    known(&mut sight.seen.canary_pods)[0]["metadata"]["name"].as_str().unwrap().to_owned()
}

#[test]
fn pods_that_are_lost_in_a_stage_take_its_weight_three_times() {
    let name = first_pod(Sight::at((Step::Bake, 1)));
    let nodes = format!("pod {name}: 0/1 nodes are available");
    let probe =
        format!("pod {name}, container app: runs and is not ready: its readiness or startup probe does not pass");
    for (place, flaps, how, why) in [
        ((Step::Bake, 1), 0, not_ready as fn(&mut Value), GONE),
        ((Step::Bake, 1), 2, not_ready, GONE),
        ((Step::Bake, 1), 2, fails_its_probe, &probe),
        ((Step::Bake, 1), 2, finds_no_node, &nodes),
        ((Step::Shift, 1), 2, not_ready, GONE),
    ] {
        let done = lost(place, flaps, how);
        assert_eq!((step(&done), current(&done).flaps, stopped(&done)), (Step::Scale, flaps + 1, None));
        assert_eq!((current(&done).weight.as_str(), done.wake_after), ("0%", Some(Duration::from_millis(500))));
        let text = format!("{why}: traffic goes back to stable until the canary is ready again");
        assert_eq!(told(&done), [("CanaryNotReady", text.as_str())]);
    }
    // Before the next stage, where the weight of the one before stands.
    let next = lost((Step::Scale, 1), 0, not_ready);
    assert_eq!((step(&next), current(&next).flaps, current(&next).weight.as_str()), (Step::Scale, 1, "0%"));
}

#[test]
fn pods_that_are_lost_a_fourth_time_or_crash_end_the_stage_by_whose_fault_that_is() {
    let nodes = format!("pod {}: 0/1 nodes are available", first_pod(Sight::at((Step::Bake, 1))));
    for (how, why) in [(not_ready as fn(&mut Value), GONE), (finds_no_node, &nodes)] {
        let why = format!("the canary lost its ready pods 4 times in this stage: {why}");
        assert_eq!(stopped(&lost((Step::Bake, 1), 3, how)), Some(("NotReady", why.as_str(), true)));
    }
    for (done, cause) in [
        (lost((Step::Bake, 1), 3, fails_its_probe), ("ProbeFailing", "canary", true)),
        (lost((Step::Bake, 1), 0, crashes), ("CrashLoop", "canary", true)),
        (lost((Step::Roll, 2), 0, not_ready), ("NotReady", "canary", false)),
        (lost((Step::Roll, 2), 0, fails_its_probe), ("ProbeFailing", "canary", true)),
    ] {
        assert_eq!(reverted(&done), Some(cause));
    }
}

#[test]
fn before_the_first_weight_and_while_traffic_is_on_stable_no_pod_is_lost() {
    let none = |sight: Sight| sight.gauge(1.0, 0).canary_pods(not_ready).decide();
    let first = none(Sight::at((Step::Scale, 0)));
    assert_eq!((step(&first), current(&first).flaps, told(&first)), (Step::Scale, 0, vec![]));
    let stands = none(Sight::at((Step::Bake, 1)).paused(true).changed(|current| current.weight = "0%".to_owned()));
    assert_eq!((step(&stands), current(&stands).flaps, told(&stands)), (Step::Bake, 0, vec![]));
    let later = none(Sight::at((Step::Scale, 1)).changed(|current| current.weight = "0%".to_owned()));
    assert_eq!((step(&later), current(&later).flaps, told(&later)), (Step::Scale, 0, vec![]));
}

#[test]
fn a_pod_that_came_after_the_weight_and_starts_is_no_fault_of_its_version() {
    let lost = |after: i64, how: fn(&mut Value)| {
        let sight = Sight::at((Step::Bake, 1)).gauge(1.0, 0).changed(|current| current.flaps = 3);
        let created = sight.clone().current().window_since.clone().unwrap().0 + SignedDuration::from_secs(after);
        let made = |pod: &mut Value| {
            how(pod);
            pod["metadata"]["creationTimestamp"] = json!(created.to_string());
        };
        sight.canary_pods(made).decide()
    };
    assert_eq!(stopped(&lost(1, fails_its_probe)).unwrap().0, "NotReady");
    assert_eq!(reverted(&lost(0, fails_its_probe)), Some(("ProbeFailing", "canary", true)));
    assert_eq!(reverted(&lost(1, crashes)), Some(("CrashLoop", "canary", true)));
}

/// One of the canary's pods is not ready, for so long.
fn short(sight: Sight, millis: i64) -> Sight {
    let mut sight = sight.gauge(1.0, 0);
    not_ready(&mut known(&mut sight.seen.canary_pods)[0]);
    sight.current().short_since = Some(sight.ago(millis));
    sight
}

#[test]
fn too_few_ready_pods_are_borne_for_as_long_as_pods_may_take_to_become_ready() {
    let first = short(Sight::at((Step::Bake, 1)), 0).changed(|current| current.short_since = None).decide();
    assert!(current(&first).short_since.is_some());
    assert_waits(&first, "1 of 2 canary pods are ready");
    let borne = short(Sight::at((Step::Bake, 1)), 59_999);
    let before = borne.clone().current().short_since.clone();
    let done = borne.decide();
    assert_eq!((step(&done), stopped(&done), current(&done).short_since.clone()), (Step::Bake, None, before));
    let late = short(Sight::at((Step::Bake, 1)), 60_000).decide();
    assert_eq!(stopped(&late), Some(("NotReady", "1 of 2 canary pods were ready within 1m", true)));
    let whole = Sight::at((Step::Bake, 1)).gauge(1.0, 0);
    let before = whole.ago(999_000);
    let done = whole.changed(|current| current.short_since = Some(before)).decide();
    assert_eq!((step(&done), stopped(&done), current(&done).short_since.clone()), (Step::Bake, None, None));
}

#[test]
fn a_target_that_was_let_go_needs_no_more_of_the_canarys_pods_than_one() {
    let let_go = |target: &mut Value| {
        target["spec"]["paused"] = json!(false);
        target["metadata"]["annotations"][names::ANNOTATION_ROLLING] = json!("web-1");
    };
    let held = |target: &mut Value| {
        target["spec"]["paused"] = json!(true);
        target["metadata"]["annotations"].as_object_mut().unwrap().remove(names::ANNOTATION_ROLLING);
    };
    let at = |place, target: fn(&mut Value)| short(Sight::at(place), 99_000).target(target).decide();
    let done = at((Step::Roll, 2), let_go);
    assert_eq!((step(&done), stopped(&done), reverted(&done)), (Step::Roll, None, None));
    let why = "3 of 4 canary pods were ready within 1m";
    assert_eq!(stopped(&at((Step::Roll, 2), held)), Some(("NotReady", why, true)));
    assert_eq!(stopped(&at((Step::Bake, 2), let_go)), Some(("NotReady", why, true)));
}

/// The canary of the first stage was made so many seconds ago.
fn made(seconds: u64) -> Sight {
    let mut world = World::with_release(brief(), "v2", (Step::Scale, 0));
    world.run(seconds);
    Sight::of_brief(&world)
}

#[test]
fn pods_that_are_late_end_or_stop_the_release_by_what_keeps_them() {
    let late = |how: fn(&mut Value)| made(1).canary_pods(how).since(60_000);
    let name = first_pod(made(1));
    let done = late(fails_its_probe).decide();
    assert_eq!(reverted(&done), Some(("ProbeFailing", "canary", true)));
    let probe = "runs and is not ready: its readiness or startup probe does not pass";
    let message = format!("not ready within 1m: pod {name}, container app: {probe}");
    assert_eq!(current(&done).revert.as_ref().unwrap().message, message);
    let quota = |canary: &mut Value| {
        canary["status"]["conditions"] =
            json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}]);
    };
    let nodes = format!("not ready within 1m: pod {name}: 0/1 nodes are available");
    let created = "the canary's pods could not be created: FailedCreate";
    for (sight, cause) in [
        (late(finds_no_node), ("Unschedulable", nodes.as_str(), true)),
        (late(not_ready), ("NotReady", "0 of 1 canary pods were ready within 1m", true)),
        (late(not_ready).canary(quota), ("QuotaExceeded", created, true)),
    ] {
        assert_eq!(stopped(&sight.decide()), Some(cause));
        assert_eq!(stopped(&sight.clone().since(59_999).decide()), None);
        assert_eq!(stopped(&sight.paused(false).decide()), Some(("Command", "user jane", false)));
    }
}

#[test]
fn pods_that_are_ready_or_were_not_asked_for_are_not_late() {
    let ready = made(1).canary_pods(is_ready).since(99_000);
    let before = ready.clone().current().step_since.clone();
    let done = ready.decide();
    assert_waits(&done, "1 of 1 canary pods are ready; the deadline is 1m after the step began");
    assert_eq!((step(&done), stopped(&done), current(&done).step_since.clone()), (Step::Scale, None, before));
    let fewer = |canary: &mut Value| canary["spec"]["replicas"] = json!(0);
    let anothers = |canary: &mut Value| canary["metadata"]["annotations"][names::ANNOTATION_MADE_FOR] = json!("web-0");
    for change in [fewer as fn(&mut Value), anothers] {
        let sight = made(1).canary_pods(not_ready).canary(change).since(99_000);
        let done = sight.decide();
        assert_eq!((step(&done), stopped(&done), current(&done).revert.is_none()), (Step::Scale, None, true));
        assert!(current(&done).step_since.as_ref().unwrap().0 >= sight.now, "its time begins anew");
    }
}

#[test]
fn a_changed_canary_is_put_right_three_times_in_a_stage_and_then_stops_it() {
    let changed = |sight: Sight, flaps| {
        let sight = sight.gauge(1.0, 0).canary(|canary| image(canary, "web:v9"));
        sight.changed(|current| current.flaps = flaps).decide()
    };
    let why = "someone changed the template of Deployment web-canary, which is the canary's";
    for place in [(Step::Scale, 1), (Step::Shift, 1), (Step::Bake, 1)] {
        for flaps in [0, 2] {
            let done = changed(Sight::at(place), flaps);
            assert_eq!((step(&done), current(&done).flaps, stopped(&done)), (Step::Scale, flaps + 1, None));
            assert_eq!(current(&done).weight, "0%");
            let text = format!(
                "{why}: it is put right, and traffic goes back to stable until the candidate's pods are ready again"
            );
            assert_eq!(told(&done), [("CanaryChanged", text.as_str())]);
        }
        let done = changed(Sight::at(place), 3);
        assert_eq!(stopped(&done), Some(("CanaryChanged", format!("{why}, 4 times in this stage").as_str(), true)));
    }
    for sight in [made(1), Sight::at((Step::Roll, 2))] {
        assert_eq!(told(&changed(sight, 3)), []);
    }
    let untouched = Sight::at((Step::Bake, 1)).gauge(1.0, 0).decide();
    assert_eq!((step(&untouched), told(&untouched)), (Step::Bake, vec![]));
}

#[test]
fn the_most_pods_that_the_target_wanted_are_kept_until_it_rolls() {
    let scaled = |place, pods| {
        let sight = Sight::at(place).gauge(1.0, 0).target(|target| target["spec"]["replicas"] = json!(pods));
        let done = sight.decide();
        (current(&done).target_pods, current(&done).canary_pods)
    };
    let cases = [
        ((Step::Baseline, 0), (8, 0)),
        ((Step::Scale, 1), (8, 4)),
        ((Step::Shift, 1), (8, 4)),
        ((Step::Bake, 1), (8, 4)),
    ];
    for (place, counted) in cases {
        assert_eq!(scaled(place, 8), counted, "{place:?}");
    }
    assert_eq!((scaled((Step::Bake, 1), 2), scaled((Step::Roll, 2), 8)), ((4, 2), (4, 4)));
}

/// At the baseline for so long, with what stable counted of errors.
fn measured(stable: Measure, millis: i64) -> Sight {
    Sight::at((Step::Baseline, 0)).errors(Measure::NoData("no pods".to_owned()), stable).since(millis)
}

#[test]
fn a_stable_version_in_breach_stops_a_release_that_takes_a_baseline() {
    let bad = || measured(counted(1000.0, 500.0), 5000);
    let why = "the stable version itself breaks gate errors: 50% where <= 1% is allowed";
    assert_eq!(stopped(&bad().decide()), Some(("StableInBreach", why, true)));
    assert_eq!(stopped(&bad().paused(false).command("resume web-1").decide()), None);
    let none = bad().with(json!({"baseline": {"duration": "0s"}}));
    let done = none.clone().decide();
    assert_eq!((stopped(&done), step(&done), &current(&done).baseline), (None, Step::Scale, &vec![]));
    let resumed = none.paused(false).command("resume web-1").decide();
    assert_eq!((stopped(&resumed), step(&resumed)), (None, Step::Scale));
}

#[test]
fn a_baseline_lasts_its_time_and_is_kept() {
    let before = measured(counted(1000.0, 1.0), 19_999).decide();
    assert_eq!((step(&before), before.wake_after), (Step::Baseline, Some(Duration::from_millis(1))));
    let done = measured(counted(1000.0, 1.0), 20_000).decide();
    assert_eq!((step(&done), done.wake_after), (Step::Scale, Some(Duration::ZERO)));
    let kept = &current(&done).baseline[0];
    assert_eq!((kept.gate.as_str(), kept.side.as_str()), ("errors", "stable"));
    assert_eq!((kept.n, kept.k, kept.seconds, kept.dispersion), (1000.0, 1.0, 60.0, None));
    assert_eq!((current(&done).canary_pods, &current(&done).counts), (1, &vec![]));
}

#[test]
fn a_baseline_keeps_how_bursty_stable_is_where_it_is() {
    for (phi, kept) in [(1.0, None), (2.5, Some(2.5))] {
        let mut sight = measured(counted(1000.0, 1.0), 20_000);
        let bursts =
            MeasuredDispersion { phi: Dispersion::measured(phi), statistic: phi, events: 9.0, pods: 1, freedom: 9.0 };
        sight.seen.measured.readings[0].bursts = Some(bursts);
        assert_eq!(current(&sight.decide()).baseline[0].dispersion, kept);
    }
}

#[test]
fn a_baseline_waits_once_its_length_for_figures_that_are_late() {
    let why = "the stable version's figures for gate errors are not all there yet";
    for millis in [20_000, 39_999] {
        let done = measured(late(1000.0, 1.0), millis).decide();
        assert_eq!(step(&done), Step::Baseline);
        assert_waits(&done, why);
    }
    let done = measured(late(1000.0, 1.0), 40_000).decide();
    assert_eq!((step(&done), current(&done).baseline[0].n), (Step::Scale, 1000.0));
}

#[test]
fn a_baseline_waits_for_figures_that_are_missing_where_a_gate_compares_with_them() {
    let none = || Measure::NoData("no series".to_owned());
    let error = || Measure::Error("it does not answer".to_owned());
    for (to, stable, waits) in [
        (Some("Baseline"), none(), true),
        (Some("Baseline"), error(), true),
        (Some("Baseline"), counted(1000.0, 1.0), false),
        (Some("Stable"), none(), false),
        (Some("Stable"), error(), false),
        (None, none(), false),
        (None, error(), false),
    ] {
        let what = format!("{to:?} {stable:?}");
        let rule = match to {
            Some(to) => json!({"name": "g", "relative": {"counter": "bad_total", "to": to, "margin": "50%"}}),
            None => json!({"name": "g", "errorRate": {"bad": "bad_total", "total": "requests_total", "limit": "1%"}}),
        };
        let mut sight = Sight::at((Step::Baseline, 0)).with(json!({"gates": [rule]})).since(20_000);
        sight.seen.measured.readings = vec![Reading { gate: "g".to_owned(), stable, ..number(0.0, 0) }];
        assert_eq!(step(&sight.decide()) == Step::Baseline, waits, "{what}");
    }
}

#[test]
fn stages_that_will_learn_too_little_are_told_when_the_traffic_is_known() {
    let told_of = |stages: usize, rate: Option<f64>| {
        let stages = vec![json!({"weight": "10%", "duration": "30s"}); stages];
        let mut sight = measured(counted(1000.0, 1.0), 20_000).with(json!({"stages": stages}));
        sight.seen.measured.stable_rate = rate;
        sight.decide()
    };
    let few = told_of(2, Some(1.0));
    let blind = &current(&few).blind;
    assert_eq!(
        (blind.len(), blind[0].starts_with("stage 1/2"), blind[1].starts_with("stage 2/2")),
        (2, true, true),
        "{blind:?}"
    );
    let text = format!("web-1: {}; see status.current.blind", blind[0]);
    assert_eq!(told(&few), [("BlindStage", text.as_str())]);
    let many = told_of(11, Some(1.0));
    let blind = &current(&many).blind;
    assert_eq!((blind.len(), blind[8].as_str()), (9, "and 3 more: `kubectl canary plan` shows all"));
    assert_eq!(current(&told_of(8, Some(1.0))).blind.len(), 8);
    assert_eq!(current(&told_of(60, Some(1.0))).blind.len(), 9);
    for done in [told_of(2, None), told_of(2, Some(1e6)), told_of(61, Some(1.0))] {
        assert_eq!((told(&done), &current(&done).blind), (vec![], &vec![]));
    }
}

/// Before the second stage, whose pods are there; nothing but a stable side that is too small kept it.
fn before_stage_2() -> Sight {
    let mut world = World::with_release(brief(), "v2", (Step::Bake, 0));
    world.scale(2);
    world.reach((Step::Scale, 1));
    world.run(10);
    world.scale(4);
    for _ in 0..8 {
        world.step(Duration::from_millis(500));
    }
    Sight::of_brief(&world).gauge(1.0, 0).since(10_000)
}

#[test]
fn a_stage_begins_when_its_pods_are_there() {
    let done = before_stage_2().decide();
    assert_eq!((step(&done), done.wake_after), (Step::Shift, Some(Duration::ZERO)), "{}", done.status.message);
    assert_eq!((current(&done).weight.as_str(), &current(&done).counts), ("50%", &vec![]));
    assert_eq!(current(&done).window_since, current(&done).step_since);
    assert_eq!(told(&done), [("StageStarted", "stage 2/3: 50% of the traffic for 30s")]);
}

#[test]
fn a_stage_does_not_begin_before_what_it_needs_was_read() {
    let before = before_stage_2();
    let unread = |change: fn(&mut Observed)| {
        let mut sight = before.clone();
        change(&mut sight.seen);
        sight.decide()
    };
    for (done, what) in [
        (unread(|seen| seen.canary_pods = failed()), "the canary's pods"),
        (unread(|seen| seen.canary = failed()), "the canary"),
        (unread(|seen| seen.canary_service = failed()), "the canary's Service"),
        (unread(|seen| seen.target = failed()), "the target"),
        (unread(|seen| seen.target_pods = failed()), "the target's pods"),
    ] {
        assert_eq!((step(&done), current(&done).weight.as_str()), (Step::Scale, "10%"));
        assert_waits(&done, &format!("{what} could not be read: timeout"));
    }
}

#[test]
fn a_stage_does_not_begin_before_its_pods_are_of_the_candidate_available_and_known_to_gateways() {
    let before = before_stage_2();
    let few = |ready: usize| format!("{ready} of 2 canary pods are ready; the deadline is 1m after the step began");
    let status = |field: &'static str, value: i64| {
        let done = before.clone().canary(|canary| canary["status"][field] = json!(value)).decide();
        (step(&done), done)
    };
    let generation = known(&mut before.clone().seen.canary)["metadata"]["generation"].as_i64().unwrap();
    for (field, value) in [("observedGeneration", generation - 1), ("updatedReplicas", 1), ("availableReplicas", 1)] {
        let (at, done) = status(field, value);
        assert_eq!(at, Step::Scale, "{field}");
        assert_waits(&done, &few(2));
    }
    for (field, value) in
        [("observedGeneration", generation), ("observedGeneration", generation + 1), ("availableReplicas", 3)]
    {
        assert_eq!(status(field, value).0, Step::Shift, "{field} {value}");
    }
    let uncounted = before.clone().canary(|canary| {
        canary["status"]["updatedReplicas"] = json!(1);
        canary["status"].as_object_mut().unwrap().remove("replicas");
    });
    assert_waits(&uncounted.decide(), &few(2));
    let mut one_short = before.clone();
    not_ready(&mut known(&mut one_short.seen.canary_pods)[0]);
    assert_waits(&one_short.decide(), &few(1));
    let mut no_service = before.clone();
    no_service.seen.canary_service = Fetched::Missing;
    assert_waits(&no_service.decide(), "the canary's pods are ready, and its Service is not there yet");
    let young = Time(before.now).0.to_string();
    let fresh = |pod: &mut Value| pod["status"]["conditions"][0]["lastTransitionTime"] = json!(young);
    let done = before.canary_pods(fresh).decide();
    assert_eq!((step(&done), done.wake_after), (Step::Scale, Some(Duration::from_secs(1))));
    assert_waits(&done, "the canary's pods are ready; gateways are given a moment to learn of them");
}

#[test]
fn a_stable_side_that_is_too_small_keeps_a_stage_for_as_long_as_pods_may_take_and_then_stops_it() {
    let small = || {
        let mut sight = before_stage_2();
        not_ready(&mut known(&mut sight.seen.target_pods)[0]);
        sight
    };
    let why = "3 of 4 stable pods are ready: no more traffic is moved until all are";
    for millis in [10_000, 60_000] {
        let done = small().since(millis).decide();
        assert_eq!((step(&done), stopped(&done)), (Step::Scale, None));
        assert_waits(&done, why);
    }
    let done = small().since(60_001).decide();
    assert_eq!((stopped(&done), current(&done).weight.as_str()), (Some(("StableTooSmall", why, false)), "10%"));
    let text = format!("{why}; the weight stays: mend it and give the command resume, or abort");
    assert_eq!(told(&done), [("Paused", text.as_str())]);
}

#[test]
fn whoever_scaled_the_target_down_is_named() {
    let managed = |manager: &str, field: &str, time: &str| json!({"manager": manager, "time": time, "fieldsV1": {"f:spec": {field: {}}}});
    let by = |hpa: Option<Value>, managers: Value| {
        let mut sight = before_stage_2().target(|target| {
            target["spec"]["replicas"] = json!(3);
            target["metadata"]["managedFields"] = managers;
        });
        sight.seen.autoscalers = Fetched::Known(hpa.into_iter().collect());
        sight.decide()
    };
    let hpa = |managers: Value| {
        Some(json!({
            "metadata": {"name": "web", "managedFields": managers},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}},
        }))
    };
    let ours = json!([]);
    let helms = json!([{"manager": "helm", "fieldsV1": {"f:spec": {"f:behavior": {"f:scaleDown": {}}}}}]);
    let two = json!([
        managed("helm", "f:replicas", "2026-01-01T00:00:00Z"),
        managed("kubectl", "f:replicas", "2026-01-02T00:00:00Z"),
        managed("argocd", "f:template", "2026-01-03T00:00:00Z"),
    ]);
    for (done, owner) in [
        (by(None, two), "kubectl"),
        (by(None, json!([])), "someone"),
        (by(hpa(ours), json!([])), "HorizontalPodAutoscaler web (its scale-down belongs to us)"),
        (by(hpa(helms), json!([])), "HorizontalPodAutoscaler web (its scale-down belongs to helm)"),
    ] {
        let text = "no more traffic is moved until it has 4 again";
        assert_waits(&done, &format!("Deployment web was scaled from 4 to 3 pods by {owner}: {text}"));
    }
}

#[test]
fn weight_is_not_raised_while_nothing_is_known_of_the_candidate() {
    let blind = |millis| {
        let mut sight = before_stage_2().since(millis);
        sight.seen.measured.readings.clear();
        sight
    };
    for millis in [10_000, 60_000] {
        let done = blind(millis).decide();
        assert_eq!((step(&done), stopped(&done)), (Step::Scale, None));
        assert_waits(&done, "no data of staleness: the weight is not raised before there are");
    }
    let why = "stage 2/3 does not begin without a verdict from staleness";
    let done = blind(60_001).decide();
    assert_eq!((stopped(&done), current(&done).weight.as_str()), (Some(("Inconclusive", why, false)), "10%"));
    let done = blind(60_001).with(json!({"onInconclusive": "Revert"})).decide();
    assert_eq!(reverted(&done), Some(("Inconclusive", "gates", true)));
    assert_eq!(step(&blind(60_001).changed(|current| current.partial = true).decide()), Step::Shift);
    let without = blind(10_000).changed(|current| current.weight = "0%".to_owned());
    assert_eq!(step(&without.decide()), Step::Shift);
}

/// While the second stage's weight is written: for so long, and since another step than the one that the stage began with.
fn shifting(millis: i64) -> Sight {
    Sight::at((Step::Shift, 1)).gauge(1.0, 0).since(millis).changed(|current| current.window_since = None)
}

/// As `shifting`, and the gateway has taken the weight over.
fn shifted(millis: i64) -> Sight {
    let mut sight = shifting(millis);
    sight.seen.routes = Sight::at((Step::Bake, 1)).seen.routes;
    sight
}

#[test]
fn a_stage_is_judged_from_when_the_gateway_had_time_to_switch() {
    let early = shifted(2499).decide();
    assert_eq!((step(&early), early.wake_after), (Step::Shift, Some(Duration::from_millis(1))));
    assert_waits(&early, "the gateway takes the weight over");
    let before = |current: &mut ReleaseStatus| (current.extended, current.approved) = (true, true);
    let done = shifted(2500).changed(before).decide();
    assert_eq!((step(&done), done.wake_after), (Step::Bake, Some(Duration::from_millis(500))));
    assert_eq!((current(&done).extended, current(&done).approved), (false, false));
}

#[test]
fn a_route_that_was_not_written_for_want_of_an_operator_has_its_time_again_and_is_refused_else() {
    let unread = |sight: Sight| {
        let mut sight = sight;
        sight.seen.routes[0].1 = failed();
        sight
    };
    let plain = |sight: Sight| {
        let mut sight = sight;
        sight.seen.routes = Sight::at((Step::Baseline, 0)).seen.routes;
        sight
    };
    let untaken = "gateway gate has not looked at the present form of route web";
    for (sight, why, again) in [
        (unread as fn(Sight) -> Sight, "HTTPRoute web could not be read: timeout", true),
        (plain, "HTTPRoute web does not have weight 500/1000 yet", true),
        (|sight| sight, untaken, false),
    ] {
        let waits = |done: &Decision, anew: bool| {
            assert_eq!((step(done), stopped(done)), (Step::Shift, None), "{why}");
            assert_waits(done, why);
            assert_eq!(current(done).step_since.as_ref().unwrap().0 >= shifting(0).now, anew, "{why}");
        };
        waits(&sight(shifting(60_000)).decide(), false);
        let refused = Some(("RouteNotAccepted", why, true));
        assert_eq!(stopped(&sight(shifting(60_001)).decide()), refused);
        assert_eq!(stopped(&sight(shifting(90_000)).decide()), refused);
        let first =
            sight(shifting(60_001)).changed(|current| current.window_since = current.step_since.clone()).decide();
        let absent = sight(shifting(90_001)).decide();
        for done in [first, absent] {
            match again {
                true => waits(&done, true),
                false => assert_eq!(stopped(&done), refused),
            }
        }
    }
}

#[test]
fn weight_that_the_canarys_pods_can_not_carry_is_not_written_and_that_is_said() {
    let why = "the canary's pods are not all ready behind its Service: its weight is not raised";
    let short = |sight: Sight| {
        let mut sight = sight;
        not_ready(&mut known(&mut sight.seen.canary_pods)[0]);
        sight
    };
    let no_service = |sight: Sight| {
        let mut sight = sight;
        sight.seen.canary_service = Fetched::Missing;
        sight
    };
    for lacks in [short as fn(Sight) -> Sight, no_service] {
        let before = |millis| {
            let mut sight = lacks(shifting(millis));
            sight.seen.routes = Sight::at((Step::Baseline, 0)).seen.routes;
            sight.route(|route| route["metadata"]["labels"] = json!({}))
        };
        let done = before(1000).decide();
        assert_eq!((step(&done), stopped(&done)), (Step::Shift, None));
        assert_waits(&done, why);
        assert!(done.effects.iter().all(|effect| effect.name() != "web" || effect.kind().as_str() != "HTTPRoute"));
        assert_eq!(stopped(&before(60_001).decide()), Some(("NotReady", why, true)));
    }
}

#[test]
fn a_route_is_switched_where_it_says_so_and_on_the_way_back_where_nothing_of_ours_has_weight() {
    let of = |place| Sight::at(place).seen.routes[0].1.clone();
    let foreign = |weight: i64| {
        let mut route = of((Step::Bake, 1));
        let entries = &mut known(&mut route)["spec"]["rules"][0]["backendRefs"];
        entries[1]["weight"] = json!(weight);
        entries.as_array_mut().unwrap().push(json!({"name": "shadow", "weight": 1}));
        known(&mut route)["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(weight);
        route
    };
    let absent = || {
        let mut route = of((Step::Baseline, 0));
        known(&mut route)["spec"]["rules"] = json!([]);
        route
    };
    for (route, there, back) in [
        (of((Step::Bake, 1)), true, false),
        (of((Step::Bake, 0)), false, false),
        (of((Step::Drain, 2)), false, true),
        (of((Step::Baseline, 0)), false, true),
        (absent(), false, true),
        (foreign(500), false, false),
        (foreign(0), false, true),
        (Fetched::Missing, false, true),
    ] {
        let mut way = shifted(9000);
        way.seen.routes[0].1 = route.clone();
        let done = way.decide();
        assert_eq!(step(&done) == Step::Bake, there, "{}", done.status.message);
        let mut way_back = Sight::at((Step::HandBack, 2)).gauge(1.0, 0).since(9000);
        way_back.seen.routes[0].1 = route;
        let done = way_back.decide();
        assert_eq!(step(&done) == Step::Drain, back, "{}", done.status.message);
        if !back {
            assert_waits(&done, "HTTPRoute web does not have weight 0/1000 yet");
        }
    }
}

#[test]
fn a_route_that_shares_with_baseline_pods_is_named_so_until_it_does() {
    let over = json!({
        "baseline": {"duration": "20s", "pods": true},
        "stages": [{"weight": "20%", "duration": "30s"}, {"weight": "100%", "duration": "30s"}],
        "gates": [
            {"name": "staleness", "value": {"query": "max(staleness{pod=~\"$pods\"})", "max": 30}},
            {"name": "as-stable", "relative": {"counter": "bad_total", "to": "Stable", "margin": "50%"}},
        ],
    });
    let at = |step| Sight::of(&World::with_release(over.clone(), "v2", (step, 0))).gauge(1.0, 0).since(9000);
    let mut shift = at(Step::Shift);
    shift.seen.routes = Sight::at((Step::Baseline, 0)).seen.routes;
    assert_waits(&shift.decide(), "HTTPRoute web does not have weight 200/1000 for canary and baseline pods yet");
    shift.seen.routes = at(Step::Bake).seen.routes;
    assert_eq!(step(&shift.decide()), Step::Bake);
    let less = |route: &mut Value| {
        for rule in 0..2 {
            let entries = &mut route["spec"]["rules"][rule]["backendRefs"];
            (entries[0]["weight"], entries[2]["weight"]) = (json!(700), json!(100));
        }
    };
    assert_eq!(step(&shift.route(less).decide()), Step::Shift);
}

/// In the second stage for so long.
fn baking(millis: i64) -> Sight {
    Sight::at((Step::Bake, 1)).since(millis)
}

#[test]
fn a_stage_lasts_its_time_and_twice_that_where_it_was_extended() {
    let extended = |current: &mut ReleaseStatus| current.extended = true;
    for (before, at) in [(baking(29_999), 30_000), (baking(59_999).changed(extended), 60_000)] {
        let early = before.gauge(1.0, 0);
        let done = early.decide();
        assert_eq!((step(&done), done.wake_after), (Step::Bake, Some(Duration::from_millis(1))));
        let done = early.since(at).changed(|current| current.flaps = 2).decide();
        assert_eq!((step(&done), done.wake_after), (Step::Scale, Some(Duration::ZERO)));
        assert_eq!((current(&done).stage_index, current(&done).flaps, current(&done).canary_pods), (2, 0, 4));
        assert_eq!(told(&done), [("StagePassed", "stage 2/3: every gate passed")]);
    }
    let last = Sight::at((Step::Bake, 2)).gauge(1.0, 0).since(30_000).decide();
    assert_eq!(step(&last), Step::Roll);
    let text = "Deployment web takes the candidate over; traffic stays on the canary's pods until it has";
    assert_eq!(told(&last), [("StagePassed", "stage 3/3: every gate passed"), ("Promoting", text)]);
}

#[test]
fn a_stage_without_a_verdict_is_extended_once_and_then_stopped_or_reverted() {
    let done = baking(30_000).gauge(31.0, 1).decide();
    assert_eq!((step(&done), current(&done).extended, current(&done).stage_index), (Step::Bake, true, 1));
    let text = "stage 2/3 goes on for at most 30s more: no verdict from staleness (Inconclusive)";
    assert_eq!(told(&done), [("StageExtended", text)]);
    let extended = || baking(60_000).gauge(31.0, 1).changed(|current| current.extended = true);
    let why = "stage 2/3 ended without a verdict from staleness (Inconclusive)";
    let done = extended().decide();
    assert_eq!((stopped(&done), current(&done).weight.as_str()), (Some(("Inconclusive", why, false)), "50%"));
    let text = format!(
        "{why}: the weight stays; give the command resume to judge the stage again, promote to go on, or abort"
    );
    assert_eq!(told(&done), [("Paused", text.as_str())]);
    let done = extended().with(json!({"onInconclusive": "Revert"})).decide();
    assert_eq!(reverted(&done), Some(("Inconclusive", "gates", true)));
}

#[test]
fn a_stage_that_has_passed_does_not_end_while_something_else_is_awaited() {
    let passed = || baking(30_000).gauge(1.0, 0);
    let mut unread = passed();
    unread.seen.target = failed();
    let untaken = passed().route(|route| route["metadata"]["generation"] = json!(99));
    let mut route_unread = passed();
    route_unread.seen.routes[0].1 = failed();
    let job = passed().with(json!({"jobs": [{"name": "smoke", "cronJob": "smoke", "at": "Stage"}]}));
    let approval = || {
        let mut sight = passed();
        sight.spec().stages[1].approval = true;
        sight
    };
    for (sight, why) in [
        (unread, "Deployment web could not be read: timeout"),
        (short(passed(), 0), "1 of 2 canary pods are ready"),
        (untaken, "gateway gate has not looked at the present form of route web"),
        (route_unread, "HTTPRoute web could not be read: timeout"),
        (job, "job smoke is to be run"),
        (approval(), "stage 2/3 has passed and waits for approval"),
    ] {
        let done = sight.decide();
        assert_eq!((step(&done), current(&done).stage_index), (Step::Bake, 1), "{why}");
        assert_waits(&done, why);
        assert!(told(&done).is_empty(), "{why}");
    }
    assert_eq!(step(&approval().changed(|current| current.approved = true).decide()), Step::Scale);
}

#[test]
fn stages_that_end_short_of_all_traffic_are_followed_by_all_of_it() {
    let fewer = |spec: &mut CanaryReleaseSpec| spec.stages.truncate(2);
    let mut sight = baking(30_000).gauge(1.0, 0);
    fewer(sight.spec());
    let done = sight.decide();
    assert_eq!((step(&done), current(&done).stage_index, done.wake_after), (Step::Scale, 1, Some(Duration::ZERO)));
    let partial = shifted(9000).changed(|current| current.partial = true).decide();
    assert_eq!((step(&partial), current(&partial).stage_index), (Step::Scale, 2));
    assert_eq!(current(&partial).canary_pods, 4);
}

/// The target was let go, and all of its pods run the candidate.
fn rolled() -> Sight {
    let sight = Sight::at((Step::HandBack, 2)).gauge(1.0, 0).since(1000);
    sight.changed(|current| {
        current.step = Step::Roll;
        current.weight = "100%".to_owned();
    })
}

#[test]
fn traffic_goes_back_to_a_target_that_has_rolled() {
    let done = rolled().decide();
    assert_eq!(
        (step(&done), current(&done).weight.as_str(), done.wake_after),
        (Step::HandBack, "0%", Some(Duration::ZERO))
    );
}

#[test]
fn traffic_stays_on_the_canary_until_all_of_the_target_carries_it() {
    let changed = |change: fn(&mut Sight)| {
        let mut sight = rolled();
        change(&mut sight);
        sight
    };
    let one_unready = |sight: &mut Sight| not_ready(&mut known(&mut sight.seen.target_pods)[0]);
    let mended = "traffic stays on the canary's pods until that is mended";
    let no_selection = format!("Service web does not select the pods of Deployment web: {mended}");
    for (sight, why) in [
        (changed(|sight| sight.seen.target_pods = failed()), "the target's pods could not be read: timeout"),
        (changed(|sight| sight.seen.service = failed()), "the stable Service could not be read: timeout"),
        (
            changed(|sight| known(&mut sight.seen.service)["spec"]["selector"] = json!({"app": "else"})),
            no_selection.as_str(),
        ),
        (changed(one_unready), "3 of 4 stable pods are ready: no more traffic is moved until all are"),
        (
            rolled().target(|target| target["status"]["updatedReplicas"] = json!(3)),
            "3 of 4 pods of Deployment web run the candidate",
        ),
        (
            rolled().target(|target| {
                target["metadata"]["annotations"].as_object_mut().unwrap().remove(names::ANNOTATION_ROLLING);
            }),
            "4 of 4 pods of Deployment web run the candidate",
        ),
    ] {
        let done = sight.decide();
        assert_eq!((step(&done), current(&done).weight.as_str()), (Step::Roll, "100%"), "{why}");
        assert_waits(&done, why);
    }
    let gone = changed(|sight| sight.seen.service = Fetched::Missing).decide();
    assert_eq!(step(&gone), Step::Roll);
    assert_waits(&gone, &format!("Service web is gone: {mended}"));
}

#[test]
fn a_target_takes_traffic_when_gateways_know_its_pods_but_those_that_go() {
    let now = rolled().now.to_string();
    let fresh = |pod: &mut Value| pod["status"]["conditions"][0]["lastTransitionTime"] = json!(now);
    let done = rolled().target_pods(fresh).decide();
    assert_eq!(step(&done), Step::Roll);
    assert_waits(&done, "the new pods are ready; gateways are given a moment to learn of them");
    let mut goes = rolled();
    let pods = known(&mut goes.seen.target_pods);
    let mut old = pods[0].clone();
    old["metadata"]["deletionTimestamp"] = json!(now);
    pods.push(old);
    assert_eq!(step(&goes.decide()), Step::HandBack);
}

#[test]
fn a_rollout_that_is_out_of_time_ends_the_release_by_whose_fault_it_is() {
    let stuck = |target: &mut Value| {
        target["status"]["updatedReplicas"] = json!(3);
        target["status"]["conditions"] =
            json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    };
    let late = |how: fn(&mut Value)| {
        let mut sight = rolled().target(stuck);
        how(&mut known(&mut sight.seen.target_pods)[0]);
        sight.decide()
    };
    let why = "Deployment web did not finish its rollout within its progressDeadlineSeconds";
    for (how, rejects) in [(not_ready as fn(&mut Value), true), (crashes, true), (finds_no_node, false)] {
        let done = late(how);
        assert_eq!(reverted(&done), Some(("RolloutFailed", "canary", rejects)));
        assert_eq!(current(&done).revert.as_ref().unwrap().message, why);
    }
    let held = |target: &mut Value| target["spec"]["paused"] = json!(true);
    let done = rolled().target(stuck).target(held).decide();
    assert_eq!((step(&done), reverted_by(&done)), (Step::Roll, None));
    let in_time = rolled().target(|target| target["status"]["updatedReplicas"] = json!(3)).decide();
    assert_eq!((step(&in_time), reverted_by(&in_time)), (Step::Roll, None));
}

fn reverted_by(decision: &Decision) -> Option<&str> {
    current(decision).revert.as_ref().map(|revert| revert.by.as_str())
}

#[test]
fn a_held_target_is_not_let_go_before_the_canary_carries_everything() {
    let held = || Sight::at((Step::Roll, 2)).gauge(1.0, 0).target(|target| target["spec"]["paused"] = json!(true));
    let changed = |change: fn(&mut Observed)| {
        let mut sight = held();
        change(&mut sight.seen);
        sight.decide()
    };
    let waits = "Deployment web waits until all of the canary's pods are ready behind its Service";
    for (done, why) in [
        (changed(|seen| seen.canary_service = Fetched::Missing), waits),
        (changed(|seen| seen.canary_service = failed()), "the canary's Service could not be read: timeout"),
        (changed(|seen| seen.canary_pods = failed()), "the canary's pods could not be read: timeout"),
        (short(held(), 0).decide(), "3 of 4 canary pods are ready"),
    ] {
        assert_eq!(step(&done), Step::Roll);
        assert_waits(&done, why);
        assert!(done.effects.iter().all(|effect| effect.name() != "web" || effect.kind().as_str() != "Deployment"));
    }
    let let_go = short(rolled().target(|target| target["status"]["updatedReplicas"] = json!(3)), 0);
    assert_waits(&let_go.decide(), "3 of 4 pods of Deployment web run the candidate");
    let mut no_service = rolled().target(|target| target["status"]["updatedReplicas"] = json!(3));
    no_service.seen.canary_service = Fetched::Missing;
    assert_waits(&no_service.decide(), "3 of 4 pods of Deployment web run the candidate");
}

#[test]
fn the_canary_drains_from_when_the_gateway_had_time_to_switch_back() {
    let mut sight = Sight::at((Step::HandBack, 2)).gauge(1.0, 0);
    sight.seen.routes = Sight::at((Step::Drain, 2)).seen.routes;
    let early = sight.clone().since(2499).decide();
    assert_eq!((step(&early), early.wake_after), (Step::HandBack, Some(Duration::from_millis(1))));
    assert_eq!(step(&sight.clone().since(2500).decide()), Step::Drain);
    sight.seen.routes[0].1 = failed();
    let unread = sight.since(9000).decide();
    assert_eq!(step(&unread), Step::HandBack);
    assert_waits(&unread, "HTTPRoute web could not be read: timeout");
}

fn draining(millis: i64) -> Sight {
    Sight::at((Step::Drain, 2)).gauge(1.0, 0).since(millis)
}

/// A hand gives the canary weight.
fn weighted(route: &mut Value) {
    route["spec"]["rules"][0]["backendRefs"][1]["weight"] = json!(500);
}

#[test]
fn the_canarys_pods_stay_for_the_drain_and_go_then() {
    let early = draining(9_999).decide();
    assert_eq!((current(&early).canary_pods, early.wake_after), (4, Some(Duration::from_millis(1))));
    assert_waits(&early, "the canary's requests end (10s)");
    let done = draining(10_000).decide();
    assert_eq!((step(&done), current(&done).canary_pods), (Step::Drain, 0));
    assert_waits(&done, "the canary is taken away and the routes are put back as they were");
}

#[test]
fn a_drain_begins_again_while_a_route_gives_the_canary_weight_or_can_not_be_read() {
    let done = draining(10_000).route(weighted).decide();
    assert_eq!(
        (step(&done), current(&done).canary_pods, done.wake_after),
        (Step::Drain, 4, Some(Duration::from_millis(500)))
    );
    assert!(current(&done).step_since.as_ref().unwrap().0 >= draining(0).now);
    assert_waits(&done, "HTTPRoute web does not have weight 0/1000 yet");
    let scaled = draining(10_000).route(weighted).canary(|canary| canary["spec"]["replicas"] = json!(6)).decide();
    assert_eq!(current(&scaled).canary_pods, 4, "what a hand makes of the canary is no wish of the release");
    let mut unread = draining(10_000);
    let before = unread.current().step_since.clone();
    unread.seen.routes[0].1 = failed();
    let done = unread.decide();
    assert_eq!((current(&done).canary_pods, current(&done).step_since.clone()), (4, before));
    assert_waits(&done, "HTTPRoute web could not be read: timeout");
    let untaken = draining(10_000).route(|route| route["metadata"]["generation"] = json!(99)).decide();
    assert_eq!(current(&untaken).canary_pods, 0);
}

#[test]
fn pods_that_get_weight_once_more_after_the_drain_drain_once_more() {
    let drained = |route: fn(&mut Value), pods: i64| {
        let sight = draining(10_000).changed(|current| current.canary_pods = 0);
        let done = sight.route(route).canary(|canary| canary["spec"]["replicas"] = json!(pods)).decide();
        current(&done).canary_pods
    };
    let anothers = |route: &mut Value| {
        weighted(route);
        route["metadata"]["annotations"][names::ANNOTATION_UID] = json!("other");
    };
    assert_eq!([drained(weighted, 4), drained(weighted, 0), drained(|_| {}, 4), drained(anothers, 4)], [4, 0, 0, 0]);
}

/// The canary is gone, and the routes and the target are plain.
fn drained() -> Sight {
    let sight = Sight::at((Step::Soak, 2)).gauge(1.0, 0).since(10_000);
    sight.changed(|current| {
        current.step = Step::Drain;
        current.canary_pods = 0;
    })
}

#[test]
fn a_drained_release_is_promoted_once_everything_is_as_it_was() {
    let soaks = drained().decide();
    assert_eq!((step(&soaks), soaks.status.outcome.as_str()), (Step::Soak, ""));
    let current = current(&soaks);
    assert_eq!((&current.window_since, &current.counts), (&current.step_since, &vec![]));
    let promoted = drained().with(json!({"soak": "0s"})).decide();
    assert_eq!(
        (promoted.status.outcome.as_str(), told(&promoted)[0]),
        ("Promoted", ("Promoted", "web-1: web:v2 is live"))
    );
    let partial = drained().with(json!({"soak": "0s"})).changed(|current| current.partial = true).decide();
    assert_eq!(told(&partial)[0].1, "web-1: web:v2 is live (PARTIAL: stages were skipped by command)");
    let tidying = "the canary is taken away and the routes are put back as they were";
    let rolls = |target: &mut Value| target["metadata"]["annotations"][names::ANNOTATION_ROLLING] = json!("web-1");
    let mut pods_left = drained();
    pods_left.seen.canary = Sight::at((Step::Drain, 2)).seen.canary;
    let mut unknown = drained();
    unknown.seen.replica_sets = Fetched::Known(vec![]);
    for (sight, why) in [
        (drained().target(rolls), tidying),
        (pods_left, tidying),
        (unknown, "the ReplicaSet of the new version is not to be found yet"),
    ] {
        let done = sight.decide();
        assert_eq!(step(&done), Step::Drain);
        assert_waits(&done, why);
    }
}

#[test]
fn the_candidate_is_what_serves_from_the_end_of_the_drain() {
    let mut sight = drained();
    let hold = sight.seen.release.status.as_mut().unwrap().hold.as_mut().unwrap();
    (hold.serving, hold.serving_record) = (None, String::new());
    let candidate = sight.current().candidate.clone();
    let hold = sight.decide().status.hold.unwrap();
    let serving = hold.serving.unwrap();
    assert_eq!((serving.digest, serving.images), (candidate.digest, vec!["web:v2".to_owned()]));
    let sets = known(&mut sight.seen.replica_sets);
    let own = sets.iter().find(|set| set["spec"]["replicas"] == json!(4)).unwrap();
    assert_eq!(json!(serving.replica_set), own["metadata"]["name"]);
    assert!(hold.serving_record.starts_with("web-serving-"), "{}", hold.serving_record);
}

#[test]
fn a_soak_lasts_its_time() {
    let soaking = |millis| Sight::at((Step::Soak, 2)).gauge(1.0, 0).since(millis).decide();
    let early = soaking(59_999);
    assert_eq!((step(&early), early.wake_after), (Step::Soak, Some(Duration::from_millis(1))));
    assert_eq!(soaking(60_000).status.outcome, "Promoted");
}

#[test]
fn the_clock_of_a_soak_that_nobody_can_ask_is_set_again_now_and_then() {
    let gone = |millis, soak: &str| {
        let mut sight = Sight::at((Step::Soak, 2)).gauge(1.0, 0).with(json!({"soak": soak})).since(millis);
        sight.seen.service = Fetched::Missing;
        let done = sight.decide();
        assert_eq!(step(&done), Step::Soak);
        current(&done).step_since.as_ref().unwrap().0 >= sight.now
    };
    assert_eq!([gone(14_999, "60s"), gone(15_000, "60s")], [false, true]);
    assert_eq!([gone(59_999, "10m"), gone(60_000, "10m")], [false, true]);
}

#[test]
fn a_soak_is_asked_as_long_as_one_route_is_there() {
    let routes = |routes: &[(&str, bool)]| {
        let mut sight = Sight::at((Step::Soak, 2)).gauge(1.0, 0).since(60_000);
        let there = sight.seen.routes[0].1.clone();
        let fetched = |there: &Fetched<Value>, is: bool| if is { there.clone() } else { Fetched::Missing };
        sight.seen.routes = routes.iter().map(|(name, is)| ((*name).to_owned(), fetched(&there, *is))).collect();
        sight.decide()
    };
    for routes_left in [&[("web", true), ("api", false)][..], &[("web", true)], &[]] {
        assert_eq!(routes(routes_left).status.outcome, "Promoted");
    }
    let gone = routes(&[("web", false), ("api", false)]);
    assert_eq!(step(&gone), Step::Soak);
    assert_waits(&gone, "HTTPRoute web and api is gone: that is no time of the soak");
}

#[test]
fn labels_that_keep_the_canary_apart_are_chosen_where_the_status_has_none() {
    let first = || {
        let mut sight = Sight::at((Step::Scale, 0));
        sight.seen.canary = Fetched::Missing;
        sight
    };
    let unlabelled = || first().changed(|current| current.canary_labels.clear());
    let made = |sight: &Sight| {
        let effects = sight.decide().effects;
        let of_canary =
            |effect: &&canary_core::Effect| effect.kind().as_str() == "Deployment" && effect.name() == "web-canary";
        effects.iter().find(of_canary).cloned()
    };
    for sight in [first(), unlabelled()] {
        let Some(canary_core::Effect::Create { object, .. }) = made(&sight) else { panic!("the canary is made") };
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        assert_eq!((&labels["app"], &labels["team"]), (&json!("web-canary"), &json!("shop")));
    }
    let mut no_service = unlabelled();
    no_service.seen.service = Fetched::Missing;
    assert_eq!(made(&no_service), None);
    let mut no_selector = unlabelled();
    known(&mut no_selector.seen.service)["spec"]["selector"] = json!({});
    assert_eq!(made(&no_selector), None);
    assert_waits(&no_selector.decide(), "Service web has no selector, so nothing tells the canary's pods apart");
}
