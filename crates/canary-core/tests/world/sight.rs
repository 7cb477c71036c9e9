//! What one tick sees, to be changed before it decides; and what it decided, in few words.

use std::{collections::BTreeMap, sync::Mutex};

use canary_api::{CanaryReleaseStatus, Paused, ReleaseStatus, RevertStatus, Step, names};
use canary_core::{
    Decision, Effect, Fetched, Observed, decide,
    gates::{Measure, Reading},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{JANE, Place, World, spec};

/// Makes something be seen otherwise than it is.
pub type Change = fn(&mut Observed);

/// What one tick sees, and when.
#[derive(Clone)]
pub struct Sight {
    pub seen: Observed,
    pub now: Timestamp,
}

impl World {
    /// An armed target at rest.
    pub fn armed() -> Self {
        let mut world = Self::new(json!({}));
        world.arm();
        world
    }

    /// What a tick decides now.
    pub fn decide(&self) -> Decision {
        Sight::of(self).decide()
    }

    /// What is decided where something is seen otherwise than it is.
    pub fn decided(&self, change: impl FnOnce(&mut Observed)) -> Decision {
        Sight::of(self).seeing(change).decide()
    }
}

impl Sight {
    pub fn of(world: &World) -> Self {
        Self { seen: world.seen("web"), now: world.now }
    }

    /// Of a release that came here by short stages, as if they were of the usual length.
    pub fn of_brief(world: &World) -> Self {
        Self::of(world).with(spec())
    }

    /// A good release that is at this place.
    pub fn at(place: Place) -> Self {
        static FOUND: Mutex<BTreeMap<Place, Sight>> = Mutex::new(BTreeMap::new());
        if let Some(sight) = FOUND.lock().unwrap().get(&place) {
            return sight.clone();
        }
        let sight = Self::of_brief(&World::with_release(brief(), "v2", place));
        FOUND.lock().unwrap().insert(place, sight.clone());
        sight
    }

    /// The same, with its gauge alone, which has a good number.
    pub fn good(place: Place) -> Self {
        Self::at(place).gauge(1.0, 0)
    }

    pub fn decide(&self) -> Decision {
        let decision = decide(&self.seen, self.now);
        super::promises::what_goes_on_is_looked_at_again(&self.seen, &decision);
        decision
    }

    /// What is decided where something is seen otherwise than here.
    pub fn decided(&self, change: impl FnOnce(&mut Observed)) -> Decision {
        self.clone().seeing(change).decide()
    }

    pub fn status(&mut self) -> &mut CanaryReleaseStatus {
        status(&mut self.seen)
    }

    pub fn current(&mut self) -> &mut ReleaseStatus {
        current(&mut self.seen)
    }

    pub fn ago(&self, millis: i64) -> Time {
        Time(self.now - SignedDuration::from_millis(millis))
    }

    pub fn seeing(mut self, change: impl FnOnce(&mut Observed)) -> Self {
        change(&mut self.seen);
        self
    }

    /// With these fields laid over the spec.
    pub fn with(mut self, over: Value) -> Self {
        let mut spec = json!(self.seen.release.spec);
        for (key, value) in over.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.seen.release.spec = serde_json::from_value(spec).unwrap();
        self
    }

    /// With the gate alone that reads a number, which is this, outside its limits so many ticks in a row.
    pub fn gauge(mut self, value: f64, streak: u32) -> Self {
        self.seen.release.spec.gates.retain(|gate| gate.name == "staleness");
        let none = Measure::NoData("a value gate".to_owned());
        self.seen.measured.readings = vec![Reading::new("staleness", Measure::Number { value, streak }, none)];
        self
    }

    pub fn changed(mut self, change: impl FnOnce(&mut ReleaseStatus)) -> Self {
        change(self.current());
        self
    }

    /// The step began so long ago.
    pub fn since(self, millis: i64) -> Self {
        let since = Some(self.ago(millis));
        self.changed(|current| current.step_since = since)
    }

    /// The stage was extended so long ago.
    pub fn extended(self, millis: i64) -> Self {
        let since = Some(self.ago(millis));
        self.changed(|current| current.extended_since = since)
    }

    pub fn paused(mut self, without_weight: bool) -> Self {
        let since = self.ago(1000);
        pause(&mut self.seen, since, "Command", without_weight);
        self
    }

    /// Jane gives a command that this tick takes.
    pub fn command(self, text: &str) -> Self {
        self.seeing(|seen| command(seen, text))
    }

    pub fn target(self, change: impl FnOnce(&mut Value)) -> Self {
        self.seeing(|seen| change(target(seen)))
    }

    pub fn canary(self, change: impl FnOnce(&mut Value)) -> Self {
        self.seeing(|seen| change(known(&mut seen.canary)))
    }

    pub fn route(self, change: impl FnOnce(&mut Value)) -> Self {
        self.seeing(|seen| change(route(seen)))
    }

    /// With the routes that a good release has at another place.
    pub fn routes_of(self, place: Place) -> Self {
        self.seeing(|seen| seen.routes = Self::at(place).seen.routes)
    }

    pub fn canary_pods(self, change: impl Fn(&mut Value)) -> Self {
        self.seeing(|seen| known(&mut seen.canary_pods).iter_mut().for_each(change))
    }

    /// One of the canary's pods is not ready, for so long.
    pub fn short(self, millis: i64) -> Self {
        let since = Some(self.ago(millis));
        let short = self.seeing(|seen| not_ready(&mut known(&mut seen.canary_pods)[0]));
        short.changed(|current| current.short_since = since)
    }
}

/// A spec by which every place is soon reached.
pub fn brief() -> Value {
    let stages = ["10%", "50%", "100%"].map(|weight| json!({"weight": weight, "duration": "1s"}));
    let gates = json!([{"name": "staleness", "value": {"query": "max(staleness{pod=~\"$pods\"})", "max": 30}}]);
    let baseline = json!({"duration": "1s"});
    json!({"soak": "60s", "interval": "1s", "baseline": baseline, "stages": stages, "gates": gates})
}

/// What was read, to be changed.
#[track_caller]
pub fn known<T>(fetched: &mut Fetched<T>) -> &mut T {
    match fetched {
        Fetched::Known(known) => known,
        Fetched::Missing | Fetched::Failed(_) => panic!("it was not read"),
    }
}

pub fn failed<T>() -> Fetched<T> {
    Fetched::Failed("timeout".to_owned())
}

pub fn target(seen: &mut Observed) -> &mut Value {
    known(&mut seen.target)
}

pub fn route(seen: &mut Observed) -> &mut Value {
    known(&mut seen.routes[0].1)
}

/// The status as the tick finds it.
pub fn status(seen: &mut Observed) -> &mut CanaryReleaseStatus {
    seen.release.status.as_mut().unwrap()
}

/// The release as the tick finds it in the status.
pub fn current(seen: &mut Observed) -> &mut ReleaseStatus {
    status(seen).current.as_mut().unwrap()
}

/// Its revert as the tick finds it.
pub fn revert(seen: &mut Observed) -> &mut RevertStatus {
    current(seen).revert.as_mut().unwrap()
}

pub fn pause(seen: &mut Observed, since: Time, reason: &str, without_weight: bool) {
    let paused = Paused { by: "user jane".to_owned(), reason: reason.to_owned(), since, without_weight };
    current(seen).paused = Some(paused);
}

/// Jane gives a command.
pub fn command(seen: &mut Observed, text: &str) {
    let annotations = seen.release.metadata.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_COMMAND.to_owned(), text.to_owned());
    annotations.insert(names::ANNOTATION_COMMAND_BY.to_owned(), JANE.to_owned());
}

/// Jane overrides the hold.
pub fn overridden(object: &mut Value, why: &str) {
    object["metadata"]["annotations"][names::ANNOTATION_OVERRIDE] = json!(why);
    object["metadata"]["annotations"][names::ANNOTATION_OVERRIDE_BY] = json!(JANE);
}

pub fn unmark(object: &mut Value, annotation: &str) {
    object["metadata"]["annotations"].as_object_mut().unwrap().remove(annotation);
}

pub fn image(object: &mut Value, image: &str) {
    object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
}

/// Not ready, for no reason that is known.
pub fn not_ready(pod: &mut Value) {
    pod["status"] = json!({"conditions": [{"type": "Ready", "status": "False"}]});
}

/// The release as it was decided.
pub fn release(done: &Decision) -> &ReleaseStatus {
    done.status.current.as_ref().unwrap()
}

pub fn step(done: &Decision) -> Step {
    release(done).step
}

/// Its revert as it was decided.
pub fn back(done: &Decision) -> &RevertStatus {
    release(done).revert.as_ref().unwrap()
}

/// Why the release stands: the reason, the sentence, and whether traffic went back to stable.
pub fn stopped(done: &Decision) -> Option<(&str, &str, bool)> {
    let paused = release(done).paused.as_ref()?;
    Some((paused.reason.as_str(), paused.by.as_str(), paused.without_weight))
}

/// Why the release is reverted, by whom, and whether its candidate is rejected.
pub fn reverted(done: &Decision) -> Option<(&str, &str, bool)> {
    let revert = release(done).revert.as_ref()?;
    assert_eq!(step(done), Step::Revert);
    Some((revert.reason.as_str(), revert.by.as_str(), revert.rejects))
}

/// Reason and text of each thing that is told.
pub fn told(done: &Decision) -> Vec<(&str, &str)> {
    done.notes.iter().map(|note| (note.reason, note.text.as_str())).collect()
}

/// What is told for a reason.
pub fn told_of<'d>(done: &'d Decision, reason: &str) -> Vec<&'d str> {
    told(done).into_iter().filter(|note| note.0 == reason).map(|note| note.1).collect()
}

/// What is waited for, at the end of the message.
#[track_caller]
pub fn assert_waits(done: &Decision, why: &str) {
    assert!(done.status.message.ends_with(&format!("; {why}")), "{}", done.status.message);
}

/// Why each thing is written.
pub fn whys(done: &Decision) -> Vec<&str> {
    done.effects.iter().map(Effect::why).collect()
}

/// What a patch writes at a path.
pub fn written<'d>(done: &'d Decision, name: &str, path: &str) -> Option<&'d Value> {
    done.effects.iter().find_map(|effect| match effect {
        Effect::Patch { name: of, patch, .. } if of == name => {
            patch.as_array()?.iter().find(|one| one["path"] == path && one["op"] != "test")?.get("value")
        }
        _ => None,
    })
}
