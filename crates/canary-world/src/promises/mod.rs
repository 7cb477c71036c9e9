//! What must hold at every write of the operator, whatever went wrong before. It is judged from the objects, the traffic
//! and the answers that the operator had, not from what the operator says of itself. The numbers are those of
//! docs/reliability.md.
//!
//! | | |
//! |---|---|
//! | I1 | no promotion without complete evidence for that template, a `promote` command excepted |
//! | I2 | a breach is final until a retry |
//! | I3 | weight only onto ready capacity, and off dead capacity within a tick |
//! | I4 | capacity goes only after zero weight and drain |
//! | I5 | weights sum right |
//! | I6 | one stage at most per tick, upwards by one |
//! | I7 | one promotion per candidate |
//! | I8 | a revert's first write to any object but the CanaryRelease is the route |
//! | I9 | no write that depends on a failed read |
//! | I10 | only our own or named objects, same namespace, same UID |
//! | I11 | foreign fields byte-equal |
//! | I12 | no breach forgotten |

mod objects;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use canary_api::{CanaryRelease, CanaryReleaseStatus, Percent, ReleaseStatus, Step};
use canary_core::object;
use jiff::Timestamp;
use serde_json::Value;

use crate::api::Api;
use crate::cluster::{Cluster, selected};
use crate::request::Call;
use crate::resources::{CANARY_RELEASES, HTTP_ROUTES, SERVICES};
use crate::store::{Key, Store, Version};
use crate::world::NAMESPACE;

/// Seconds that a clock may be off when it has heard the server's time: a second is not mended, and another is cut off.
const CLOCK: f64 = 3.0;

/// For how long a candidate may answer badly under everybody's eyes: many intervals and scrapes.
const MINUTE: Duration = Duration::from_secs(60);
/// How long ago the metrics answered, or a tick ended, at the most, where somebody looks.
const SIGHT: Duration = Duration::from_secs(15);

/// For how long what a tick has read may hold for its writes: nobody can look again before each.
const BRIEF: Duration = Duration::from_secs(1);

/// Reads that failed in the tick that writes: plural, and name or, for a list, its selectors.
pub(crate) type Failed = [(&'static str, String)];

/// One write.
pub(crate) struct Write<'a> {
    pub(crate) api: &'a Api,
    pub(crate) cluster: &'a Cluster,
    pub(crate) call: &'a Call,
    pub(crate) body: &'a Value,
    pub(crate) before: Option<&'a Value>,
    pub(crate) after: Option<&'a Value>,
    pub(crate) failed: &'a Failed,
    /// When the tick that writes began: what it read was so then.
    pub(crate) began: Timestamp,
    /// The store's revision then.
    pub(crate) began_at: u64,
}

impl Write<'_> {
    /// The objects as they were when the tick that writes began: what came later it may not have read.
    fn then(&self) -> Store {
        self.api.store.as_of(self.began_at)
    }
}

/// What has to be remembered to judge a write.
#[derive(Debug, Default)]
pub struct Promises {
    /// What was broken, in words.
    pub broken: Vec<String>,
    /// Steps and stages that the status went through, by release.
    pub trail: Vec<(String, Step, i32)>,
    /// Whether some clock of the operator is off: what it does is as much too early as it needs to hear the server's time.
    pub clocks_off: bool,
    /// Whether somebody else wrote fields that tie our objects together: what a tick had read by then holds for it.
    pub meddled: bool,
    /// When the metrics last answered.
    pub metrics_answered: Option<Timestamp>,
    /// The weight that the routes give the canary, and since when.
    weight: Option<(i64, Timestamp)>,
    /// Since when the canary has weight and no ready pod.
    dead: Option<Timestamp>,
    /// Since when the canary's Service has a ready pod that is not the candidate's, with weight on it.
    stray: Option<Timestamp>,
    /// The largest weight given, by release, while enough pods were ready.
    granted: BTreeMap<String, i64>,
    /// A revert has begun, and the route was not written yet.
    route_first: bool,
    /// Digests of rejected templates, with the release that was told.
    rejected: BTreeMap<String, String>,
    /// Releases of which a breach was told, in the status or on a route.
    breached: BTreeSet<String>,
    /// Stages that passed on evidence, by release.
    passed: BTreeSet<(String, i32)>,
    /// Releases that a person promoted.
    commanded: BTreeSet<String>,
    /// Times the target was let go on to a candidate, by template.
    promoted: BTreeMap<String, usize>,
    /// What the candidate had answered when the stage's window began: all and bad.
    window: (f64, f64),
    /// When the stage's bake began.
    bake: Option<Timestamp>,
    /// A candidate that answers badly, as a tick after the other left it.
    ill: Option<Ill>,
}

/// A candidate that answers badly.
#[derive(Debug)]
struct Ill {
    /// Of which release.
    id: String,
    since: Timestamp,
    /// When a tick last ended.
    seen: Timestamp,
    /// What it had answered when it began: all and bad.
    answered: (f64, f64),
}

impl Promises {
    /// How many ready pods a Service has, or had for what the tick could know.
    fn known_behind(&self, write: &Write<'_>, service: &str) -> i64 {
        let ready = ready_behind(&write.api.store, service);
        let brief = write.api.now.duration_since(write.began).unsigned_abs() < BRIEF;
        if self.meddled || brief { ready.max(ready_behind(&write.then(), service)) } else { ready }
    }

    /// The CanaryRelease; one that a hand took away within the tick that writes as it was at last.
    fn stored(&self, write: &Write<'_>) -> Option<Arc<Version>> {
        let (store, key) = (&write.api.store, Key::new(CANARY_RELEASES, NAMESPACE, "web"));
        store.get(&key).cloned().or_else(|| store.last(&key).filter(|_| self.meddled))
    }

    fn break_it(&mut self, api: &Api, number: &str, what: &str) {
        let line = format!("{number} at {}: {what}", api.now.strftime("%H:%M:%S%.3f"));
        if self.broken.len() < 20 {
            self.broken.push(line);
        }
    }

    /// The API server took a person's command to this release, while the target had the template of this digest.
    pub fn commanded(&mut self, verb: &str, id: &str, asked: &str) {
        match verb {
            "promote" => drop(self.commanded.insert(id.to_owned())),
            "retry" => {
                let lifted = |digest: &String, by: &mut String| by == id || digest == asked;
                for digest in self.rejected.extract_if(.., lifted).map(|(digest, _)| digest) {
                    self.promoted.remove(&digest);
                }
            }
            _ => {}
        }
    }

    /// What times may be short by, in seconds, where a clock is off.
    const fn leeway(&self) -> f64 {
        if self.clocks_off { CLOCK } else { 0.0 }
    }

    /// The cluster or a person changed something.
    pub fn moved(&mut self, api: &Api) {
        self.weights(api);
        // Where stable's Service is gone as well there is no place for its weight.
        let elsewhere = api.store.get(&Key::new(SERVICES, NAMESPACE, "web")).is_some();
        let dead = canary_weight(api) > 0 && ready_behind(&api.store, "web-canary") == 0 && elsewhere;
        self.dead = if dead { self.dead.or(Some(api.now)) } else { None };
        let stray = canary_weight(api) > 0 && strays(api);
        self.stray = if stray { self.stray.or(Some(api.now)) } else { None };
    }

    /// A tick that began then ended: neither it nor a read of it failed, and no other operator's came between.
    pub fn ticked(&mut self, api: &Api, cluster: &Cluster, began: Timestamp) {
        self.moved(api);
        self.ills(api, cluster);
        if let Some(dead) = self.dead.filter(|dead| *dead < began) {
            let what = format!("the canary has weight and no ready pod since {dead}, and a tick left it so");
            self.break_it(api, "I3", &what);
        }
        if let Some(stray) = self.stray.filter(|stray| *stray < began) {
            let what = format!("pods that are not the candidate's have weight since {stray}, and a tick left it so");
            self.break_it(api, "I3", &what);
        }
    }

    /// Whether the candidate has answered badly for a minute, with weight and under everybody's eyes, and is not taken
    /// back. What it truly answers is asked, not what the operator made of it.
    fn ills(&mut self, api: &Api, cluster: &Cluster) {
        let stored = api.store.get(&Key::new(CANARY_RELEASES, NAMESPACE, "web")).map(|stored| &stored.value);
        let now = current(stored);
        let image = |version: &canary_api::Version| version.images.first().map_or("", String::as_str).to_owned();
        let (candidate, stable) = (image(&now.candidate), image(&now.stable));
        let of = cluster.behaviour(&candidate);
        let answered = cluster.traffic.answered.get(&candidate).copied().unwrap_or_default();
        let fresh = |at: Timestamp| api.now.duration_since(at).unsigned_abs() < SIGHT;
        let ill = matches!(now.step, Step::Scale | Step::Shift | Step::Bake)
            && canary_weight(api) > 0
            && of.counts
            && of.errors >= 0.1
            && cluster.behaviour(&stable).errors == 0.0
            && self.metrics_answered.is_some_and(fresh);
        let kept = self.ill.take().filter(|ill| ill.id == now.id && fresh(ill.seen));
        if !ill {
            return;
        }
        let mut known = kept.unwrap_or_else(|| Ill { id: now.id.clone(), since: api.now, seen: api.now, answered });
        known.seen = api.now;
        let (asked, bad) = (answered.0 - known.answered.0, answered.1 - known.answered.1);
        let long = api.now.duration_since(known.since).unsigned_abs() > MINUTE;
        if long && asked >= 100.0 && bad >= asked * 0.1 {
            let what =
                format!("{} answers badly since {} ({bad:.0} of {asked:.0}), and has weight", now.id, known.since);
            self.break_it(api, "I12", &what);
        }
        self.ill = Some(known);
    }

    /// The operator wrote.
    pub(crate) fn written(&mut self, write: &Write<'_>) {
        self.weights(write.api);
        self.names(write);
        self.reads(write);
        match write.call.resource.plural {
            "canaryreleases" if write.call.status => self.status(write),
            "httproutes" => self.route(write),
            "deployments" => self.deployment(write),
            "horizontalpodautoscalers" => self.autoscaler(write),
            _ => {}
        }
    }

    /// Since when the canary has its weight.
    fn weights(&mut self, api: &Api) {
        let now = canary_weight(api);
        if self.weight.is_none_or(|(weight, _)| weight != now) {
            self.weight = Some((now, api.now));
        }
    }
}

/// The CanaryRelease, as it stands.
fn release(api: &Api) -> Option<CanaryRelease> {
    let found = api.store.get(&Key::new(CANARY_RELEASES, NAMESPACE, "web"))?;
    serde_json::from_value(found.value.clone()).ok()
}

pub(crate) fn status_of(object: Option<&Value>) -> CanaryReleaseStatus {
    let status = object.and_then(|object| object.get("status"));
    status.and_then(|status| serde_json::from_value(status.clone()).ok()).unwrap_or_default()
}

fn current(object: Option<&Value>) -> ReleaseStatus {
    status_of(object).current.unwrap_or_else(|| ReleaseStatus { step: Step::Done, ..ReleaseStatus::default() })
}

/// A weight in thousandths.
fn permille(weight: &str) -> i64 {
    weight.parse::<Percent>().map_or(0, |weight| i64::from(weight.permille()))
}

const fn reverting(step: Step) -> bool {
    matches!(step, Step::Revert | Step::RevertDrain | Step::RevertTarget)
}

fn drain(api: &Api) -> Duration {
    release(api).map_or(Duration::ZERO, |release| release.spec.drain.std())
}

/// The largest weight that any route gives the canary, in thousandths.
pub(crate) fn canary_weight(api: &Api) -> i64 {
    let routes = api.store.all(HTTP_ROUTES.plural, NAMESPACE);
    routes.map(|(_, route)| weight_of(&route.value, "web-canary")).max().unwrap_or(0)
}

/// The largest weight that a route gives a Service, in thousandths.
pub(crate) fn weight_of(route: &Value, service: &str) -> i64 {
    let of_rule = |rule: &Value| {
        let weight = |entry: &Value| object::integer(entry, "/weight", 1);
        let all: i64 = object::items(rule, "/backendRefs").map(weight).sum();
        let named = object::items(rule, "/backendRefs").filter(|entry| object::text(entry, "/name") == service);
        let ours: i64 = named.map(weight).sum();
        if all == 0 { 0 } else { (ours * 1000 + all - 1) / all }
    };
    object::items(route, "/spec/rules").map(of_rule).max().unwrap_or(0)
}

/// Whether the canary's Service has a ready pod of another image than the candidate's.
fn strays(api: &Api) -> bool {
    let stored = api.store.get(&Key::new(CANARY_RELEASES, NAMESPACE, "web"));
    let candidate = current(stored.map(|release| &release.value)).candidate;
    let (Some(image), Some(service)) =
        (candidate.images.first(), api.store.get(&Key::new(SERVICES, NAMESPACE, "web-canary")))
    else {
        return false;
    };
    let pods = selected(&api.store, NAMESPACE, &object::strings(&service.value, "/spec/selector"));
    pods.iter().any(|pod| canary_core::pods::ready(pod) && crate::cluster::image(pod) != image)
}

/// Ready pods that a Service selects.
pub(crate) fn ready_behind(store: &Store, service: &str) -> i64 {
    let Some(service) = store.get(&Key::new(SERVICES, NAMESPACE, service)) else { return 0 };
    let pods = selected(store, NAMESPACE, &object::strings(&service.value, "/spec/selector"));
    i64::try_from(pods.iter().filter(|pod| canary_core::pods::ready(pod)).count()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_lifts_what_it_asks_for_and_nothing_else() {
        let mut promises = Promises::default();
        for (digest, by) in [("sha256:a", "web-1"), ("sha256:b", "web-2"), ("sha256:c", "web-3")] {
            promises.rejected.insert(digest.to_owned(), by.to_owned());
            promises.promoted.insert(digest.to_owned(), 1);
        }
        promises.commanded("pause", "web-3", "sha256:c");
        promises.commanded("retry", "web-1", "sha256:b");
        assert_eq!(promises.rejected.into_keys().collect::<Vec<_>>(), ["sha256:c"]);
        assert_eq!(promises.promoted.into_keys().collect::<Vec<_>>(), ["sha256:c"]);
        assert!(promises.commanded.is_empty());
    }
}
