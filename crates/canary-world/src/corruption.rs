//! Another user writes the fields that tie our objects together: labels, marks, selectors, owners, weights, our own
//! status. It knows which fields there are and what may be written there; the write itself goes the way of any other,
//! through admission and the schema. What must hold afterwards is said in [`wrong`].

use std::fmt;
use std::str::FromStr;

use canary_core::object;
use serde_json::{Value, json};

use crate::acts::middles;
use crate::api::{Api, Caller};
use crate::defaults;
use crate::fault::{Fault, Planned, Point};
use crate::resources::{
    CANARY_RELEASES, CONTROLLER_REVISIONS, DEPLOYMENTS, HTTP_ROUTES, RELEASE_RECORDS, REPLICA_SETS, Resource, SERVICES,
};
use crate::run::{OTHER_END, Outcome};
use crate::scenario::Scenario;
use crate::store::{Key, Store};
use crate::text;
use crate::world::NAMESPACE;

/// Who writes.
const MALLORY: &str = "mallory";

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The field is taken away.
    Removed,
    /// It gets a value that means something else.
    Wrong,
    /// It gets an odd text or an extreme number.
    Odd,
}

impl How {
    const ALL: [(&'static str, Self); 3] = [("removed", Self::Removed), ("wrong", Self::Wrong), ("odd", Self::Odd)];
}

/// Which object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Target,
    Canary,
    /// The canary's newest ReplicaSet.
    CanarySet,
    Service,
    CanaryService,
    Route,
    /// What keeps the serving template.
    Serving,
    Record,
    Release,
    Status,
}

/// A field, with what may be written there, as JSON; an empty text stands for nothing.
#[derive(Debug)]
struct Field {
    word: &'static str,
    of: Of,
    pointer: &'static str,
    wrong: &'static str,
    odd: &'static str,
    /// Whether the field itself carries traffic, so that requests may be lost by the write alone.
    carries: bool,
}

const fn field(word: &'static str, of: Of, pointer: &'static str, wrong: &'static str, odd: &'static str) -> Field {
    Field { word, of, pointer, wrong, odd, carries: false }
}

const fn carrying(word: &'static str, of: Of, pointer: &'static str, wrong: &'static str, odd: &'static str) -> Field {
    Field { word, of, pointer, wrong, odd, carries: true }
}

const OTHER: &str = r#""other""#;
const NO_LABEL: &str = r#""""#;
const ODD: &str = "\"\u{202e}\\u0007{\\\"[ \u{fffd}\"";
const UID: &str = r#""00000000-0000-4000-8000-0000000fffff""#;
/// An owner that is not there.
const GHOST: &str =
    r#"[{"apiVersion":"apps/v1","kind":"Deployment","name":"ghost","uid":"00000000-0000-4000-8000-0000000fffff"}]"#;
const LONG_AGO: &str = r#""2001-01-01T00:00:00Z""#;
const FAR_OFF: &str = r#""2101-01-01T00:00:00Z""#;

static FIELDS: &[Field] = &[
    field("target.label.release", Of::Target, "/metadata/labels/canaryrelease.dev~1release", OTHER, NO_LABEL),
    field("target.uid-mark", Of::Target, "/metadata/annotations/canaryrelease.dev~1uid", UID, ODD),
    field("target.rolling", Of::Target, "/metadata/annotations/canaryrelease.dev~1rolling", r#""web-9""#, ODD),
    field("target.changed-by", Of::Target, "/metadata/annotations/canaryrelease.dev~1changed-by", OTHER, ODD),
    field("target.paused", Of::Target, "/spec/paused", "true", ""),
    field("target.revisions", Of::Target, "/spec/revisionHistoryLimit", "0", "2147483647"),
    field("canary.label.owned-by", Of::Canary, "/metadata/labels/canaryrelease.dev~1owned-by", OTHER, NO_LABEL),
    field("canary.uid-mark", Of::Canary, "/metadata/annotations/canaryrelease.dev~1uid", UID, ODD),
    field("canary.overlay", Of::Canary, "/metadata/annotations/canaryrelease.dev~1overlay", r#""{}""#, ODD),
    field("canary.made-for", Of::Canary, "/metadata/annotations/canaryrelease.dev~1made-for", r#""web-9""#, ODD),
    carrying("canary.replicas", Of::Canary, "/spec/replicas", "0", "50"),
    field("canary.paused", Of::Canary, "/spec/paused", "true", ""),
    field("canary.image", Of::Canary, "/spec/template/spec/containers/0/image", r#""web:v9""#, r#""web:v1""#),
    carrying("canary.owners", Of::Canary, "/metadata/ownerReferences", GHOST, ""),
    field(
        "canary-set.rejected",
        Of::CanarySet,
        "/metadata/annotations/canaryrelease.dev~1rejected",
        r#""web-9: none""#,
        ODD,
    ),
    field("canary-set.overlay", Of::CanarySet, "/metadata/annotations/canaryrelease.dev~1overlay", r#""{}""#, ODD),
    carrying("canary-set.owners", Of::CanarySet, "/metadata/ownerReferences", GHOST, ""),
    carrying("service.selector", Of::Service, "/spec/selector/app", r#""other""#, r#""web-canary""#),
    field(
        "canary-service.label.owned-by",
        Of::CanaryService,
        "/metadata/labels/canaryrelease.dev~1owned-by",
        OTHER,
        NO_LABEL,
    ),
    field("canary-service.uid-mark", Of::CanaryService, "/metadata/annotations/canaryrelease.dev~1uid", UID, ODD),
    carrying("canary-service.selector", Of::CanaryService, "/spec/selector/app", r#""web""#, r#""other""#),
    carrying("canary-service.owners", Of::CanaryService, "/metadata/ownerReferences", GHOST, ""),
    field("route.label.release", Of::Route, "/metadata/labels/canaryrelease.dev~1release", OTHER, NO_LABEL),
    field("route.uid-mark", Of::Route, "/metadata/annotations/canaryrelease.dev~1uid", UID, ODD),
    field("route.split", Of::Route, "/metadata/annotations/canaryrelease.dev~1split", r#""web/other""#, ODD),
    field("route.before", Of::Route, "/metadata/annotations/canaryrelease.dev~1weights-before", r#""7,7""#, ODD),
    field(
        "route.breached",
        Of::Route,
        "/metadata/annotations/canaryrelease.dev~1breached",
        r#""web-1: errors broke""#,
        ODD,
    ),
    field("route.canary-weight", Of::Route, "/spec/rules/1/backendRefs/1/weight", "1000", "1000000"),
    field("route.stable-weight", Of::Route, "/spec/rules/1/backendRefs/0/weight", "0", "1000000"),
    carrying("route.canary-entry", Of::Route, "/spec/rules/1/backendRefs/1", r#"{"name":"assets","port":80}"#, ""),
    carrying("route.stable-entry", Of::Route, "/spec/rules/1/backendRefs/0", r#"{"name":"assets","port":80}"#, ""),
    field("serving.label.owned-by", Of::Serving, "/metadata/labels/canaryrelease.dev~1owned-by", OTHER, NO_LABEL),
    field("serving.uid-mark", Of::Serving, "/metadata/annotations/canaryrelease.dev~1uid", UID, ODD),
    field("serving.owners", Of::Serving, "/metadata/ownerReferences", GHOST, ""),
    field("record.label.record-of", Of::Record, "/metadata/labels/canaryrelease.dev~1record-of", OTHER, NO_LABEL),
    field("record.label.template", Of::Record, "/metadata/labels/canaryrelease.dev~1template", OTHER, NO_LABEL),
    field("record.uid-mark", Of::Record, "/metadata/annotations/canaryrelease.dev~1uid", UID, ODD),
    field("record.owners", Of::Record, "/metadata/ownerReferences", GHOST, ""),
    field("release.command", Of::Release, "/metadata/annotations/canaryrelease.dev~1command", OTHER, ODD),
    field("release.command-by", Of::Release, "/metadata/annotations/canaryrelease.dev~1command-by", OTHER, ODD),
    field("release.finalizers", Of::Release, "/metadata/finalizers", r#"["other.example/one"]"#, ""),
    field("status", Of::Status, "/status", "{}", ""),
    field("status.phase", Of::Status, "/status/phase", r#""Idle""#, r#""Promoted""#),
    field("status.outcome", Of::Status, "/status/outcome", r#""Promoted""#, ODD),
    field("status.conditions", Of::Status, "/status/conditions", "[]", ""),
    field("status.generation", Of::Status, "/status/observedGeneration", "99", "-9223372036854775808"),
    field("status.template", Of::Status, "/status/observedTemplate", r#""sha256:00""#, ODD),
    field("status.history", Of::Status, "/status/history", r#"["web-9 Promoted"]"#, ""),
    field("status.gates", Of::Status, "/status/gates", "[]", ""),
    field("status.hold", Of::Status, "/status/hold", "{}", ""),
    field("status.armed", Of::Status, "/status/hold/armed", "false", ""),
    field("status.target-uid", Of::Status, "/status/hold/targetUid", UID, ODD),
    field("status.serving", Of::Status, "/status/hold/serving", "{}", ""),
    field("status.serving.digest", Of::Status, "/status/hold/serving/digest", r#""sha256:00""#, ODD),
    field("status.serving.set", Of::Status, "/status/hold/serving/replicaSet", r#""web-other""#, ODD),
    field("status.serving-record", Of::Status, "/status/hold/servingRecord", r#""web-serving-other""#, ODD),
    field("status.proved-with", Of::Status, "/status/hold/provedWith", r#""other""#, ODD),
    field("status.fence", Of::Status, "/status/hold/fence", r#""other""#, ODD),
    field("status.current", Of::Status, "/status/current", "{}", ""),
    field("status.id", Of::Status, "/status/current/id", r#""web-9""#, ODD),
    field("status.number", Of::Status, "/status/current/number", "9", "9223372036854775807"),
    field("status.step", Of::Status, "/status/current/step", r#""Scale""#, r#""Done""#),
    field("status.step-reverting", Of::Status, "/status/current/step", r#""Revert""#, r#""Drain""#),
    field("status.stage", Of::Status, "/status/current/stageIndex", "0", "2147483647"),
    field("status.weight", Of::Status, "/status/current/weight", r#""100%""#, ODD),
    field("status.candidate", Of::Status, "/status/current/candidate/digest", r#""sha256:00""#, ODD),
    field("status.candidate.set", Of::Status, "/status/current/candidate/replicaSet", r#""web-other""#, ODD),
    field("status.stable", Of::Status, "/status/current/stable/digest", r#""sha256:00""#, ODD),
    field("status.stable.set", Of::Status, "/status/current/stable/replicaSet", r#""web-other""#, ODD),
    field("status.canary-pods", Of::Status, "/status/current/canaryPods", "0", "-2147483648"),
    field("status.target-pods", Of::Status, "/status/current/targetPods", "1", "-2147483648"),
    field("status.canary-labels", Of::Status, "/status/current/canaryLabels", r#"{"app":"web"}"#, r#"{"":"-"}"#),
    field("status.counts", Of::Status, "/status/current/counts", "[]", ""),
    field("status.window-since", Of::Status, "/status/current/windowSince", LONG_AGO, FAR_OFF),
    field("status.step-since", Of::Status, "/status/current/stepSince", LONG_AGO, FAR_OFF),
    field("status.paused", Of::Status, "/status/current/paused/reason", r#""other""#, ODD),
    field("status.paused-all", Of::Status, "/status/current/paused", "null", ""),
    field("status.revert", Of::Status, "/status/current/revert", "null", ""),
    field("status.revert.reason", Of::Status, "/status/current/revert/reason", r#""other""#, ODD),
    field("status.split", Of::Status, "/status/current/split", "false", ""),
];

/// One such write. Two are equal when they write the same to the same field.
#[derive(Clone, Copy)]
pub struct Corruption {
    field: &'static Field,
    how: How,
}

impl PartialEq for Corruption {
    fn eq(&self, other: &Self) -> bool {
        self.field.word == other.field.word && self.how == other.how
    }
}

impl fmt::Debug for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field.word, text::word(&How::ALL, &self.how))
    }
}

impl FromStr for Corruption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("unknown corruption {text:?}");
        let (word, how) = text.split_once(' ').ok_or_else(unknown)?;
        let field = FIELDS.iter().find(|field| field.word == word).ok_or_else(unknown)?;
        let how = text::named(&How::ALL, how).ok_or_else(unknown)?;
        Ok(Self { field, how })
    }
}

impl Of {
    /// The object, as it stands in a store.
    fn find(self, store: &Store) -> Option<(&'static Resource, &Value)> {
        let named = |resource: &'static Resource, name: &str| {
            store.get(&Key::new(resource, NAMESPACE, name)).map(|version| (resource, &version.value))
        };
        let newest = |resource: &'static Resource, fits: &dyn Fn(&Value) -> bool| {
            let all = store.all(resource.plural, NAMESPACE).map(|(_, version)| &version.value);
            all.filter(|object| fits(object)).max_by_key(|object| object::uid(object)).map(|object| (resource, object))
        };
        match self {
            Self::Target => named(DEPLOYMENTS, "web"),
            Self::Canary => named(DEPLOYMENTS, "web-canary"),
            Self::Service => named(SERVICES, "web"),
            Self::CanaryService => named(SERVICES, "web-canary"),
            Self::Route => named(HTTP_ROUTES, "web"),
            Self::Release | Self::Status => named(CANARY_RELEASES, "web"),
            Self::CanarySet => newest(REPLICA_SETS, &|set| object::name(set).starts_with("web-canary-")),
            Self::Serving => newest(CONTROLLER_REVISIONS, &|_| true),
            Self::Record => newest(RELEASE_RECORDS, &|_| true),
        }
    }
}

impl Corruption {
    /// All that there are.
    fn all() -> impl Iterator<Item = Self> {
        FIELDS.iter().flat_map(|field| How::ALL.into_iter().map(move |(_, how)| Self { field, how }))
    }

    /// What an object becomes by it, where that is another.
    fn applied(self, object: &Value) -> Option<Value> {
        let mut changed = object.clone();
        let value = match self.how {
            How::Removed => None,
            How::Wrong => Some(self.field.wrong),
            How::Odd => Some(self.field.odd),
        };
        let noted = self.field.pointer.starts_with("/metadata/");
        match value {
            Some("") => return None,
            // What is not there can't be replaced; a label or a note can be added.
            Some(value) if noted || object.pointer(self.field.pointer).is_some() => {
                set(&mut changed, self.field.pointer, Some(serde_json::from_str(value).unwrap()));
            }
            Some(_) => return None,
            None => set(&mut changed, self.field.pointer, None),
        }
        (changed != *object).then_some(changed)
    }

    /// Writes it. `None` where there is nothing to write; else whether the server stored it.
    pub(crate) fn strike(self, api: &mut Api) -> Option<bool> {
        let (resource, object) = self.field.of.find(&api.store)?;
        let (name, changed) = (object::name(object).to_owned(), self.applied(object)?);
        if !defaults::conforms(resource, &changed) {
            return Some(false);
        }
        let caller = Caller::new(MALLORY, "tool");
        let before = object.pointer(self.field.pointer).cloned();
        let status = self.field.of == Of::Status;
        let done = api.replace(&caller, resource, NAMESPACE, &name, status, changed).ok();
        Some(done.is_some_and(|stored| stored.value.pointer(self.field.pointer) != before.as_ref()))
    }
}

/// Sets or takes away what a pointer leads to, with the maps on its way.
pub(crate) fn set(object: &mut Value, pointer: &str, value: Option<Value>) {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    let last = last.replace("~1", "/").replace("~0", "~");
    if object.pointer(parent).is_none_or(Value::is_null) && value.is_some() {
        set(object, parent, Some(json!({})));
    }
    match (object.pointer_mut(parent), value) {
        (Some(Value::Object(fields)), Some(value)) => {
            fields.insert(last, value);
        }
        (Some(Value::Object(fields)), None) => {
            fields.remove(&last);
        }
        (Some(Value::Array(items)), value) => {
            if let Some(index) = last.parse::<usize>().ok().filter(|index| *index < items.len()) {
                match value {
                    Some(value) => items[index] = value,
                    None => drop(items.remove(index)),
                }
            }
        }
        _ => {}
    }
}

/// Each such write in the middle of each place of the run, where the field is there at that time.
pub(crate) fn points(base: &Outcome) -> Vec<Planned> {
    let mut points = Vec::new();
    for entry in middles(base) {
        let then = base.store.as_of(base.store.revision_at(entry.at));
        for corruption in Corruption::all() {
            let there = corruption.field.of.find(&then);
            if there.is_some_and(|(_, object)| corruption.applied(object).is_some()) {
                points.push(Planned { at: Point::Request(entry.request), fault: Fault::Corrupt(corruption) });
            }
        }
    }
    points
}

/// What is wrong with a run in which somebody wrote such a field: a promise broken, a panic, writes without end, an end
/// that is neither the scenario's nor said, or the candidate live where it must not be.
pub(crate) fn wrong(scenario: &Scenario, base: &Outcome, outcome: &Outcome) -> Vec<String> {
    const PATIENCE: usize = 40;
    let carries = scenario.faults.iter().any(|planned| match planned.fault {
        Fault::Corrupt(corruption) => corruption.field.carries,
        _ => false,
    });
    let excused = |line: &str| line.starts_with(OTHER_END) || (carries && line.contains("requests found no pod"));
    let mut wrong: Vec<String> = outcome.wrong.iter().filter(|line| !excused(line)).cloned().collect();
    if outcome.acts > base.acts * 2 + PATIENCE {
        wrong.push(format!("{} writes where the undisturbed run has {}", outcome.acts, base.acts));
    }
    let served = outcome.serves.join("+");
    let usual = scenario.ends.contains(&outcome.end) && scenario.serves.contains(&served);
    let carried = carries && served.is_empty();
    if !usual && !carried && outcome.end == "Promoted" && !scenario.ends.contains(&outcome.end) {
        wrong.push(format!("it ends Promoted, and not {}", scenario.ends.join(" or ")));
    }
    if !usual && !carried && outcome.told.is_empty() {
        wrong.push(format!("it ends {:?} with {served:?} serving, and nothing says so", outcome.end));
    }
    let stays = scenario.serves.contains(&served) || served == "v1";
    // What a Service selects is the doing of whoever wrote its selector, as long as that is said.
    let theirs = carries && !outcome.told.is_empty();
    if !stays && !carried && !theirs {
        wrong.push(format!("it leaves {served:?} serving"));
    }
    wrong
}

/// What a CanaryRelease says where it is not well: the reason of its condition Ready, or Stalled, or how a release ended
/// that was not promoted. For one that is gone its Events speak.
pub(crate) fn told<'a>(release: Option<&Value>, events: impl Iterator<Item = &'a Value>) -> String {
    let Some(release) = release else {
        let back = events.filter(|event| object::text(event, "/reason") == "RolledBack").last();
        return back.map_or_else(String::new, |event| format!("RolledBack: {}", object::text(event, "/note")));
    };
    let of = |kind: &str, truth: &str| {
        let found = object::items(release, "/status/conditions").find(|condition| {
            object::text(condition, "/type") == kind && object::text(condition, "/status") == truth
        })?;
        let (reason, message) = (object::text(found, "/reason"), object::text(found, "/message"));
        (!message.is_empty()).then(|| format!("{kind}={truth} {reason}: {message}"))
    };
    let paused = object::text(release, "/status/current/paused/reason").to_owned();
    let ended = of("Completed", "True").filter(|said| !said.contains(" Promoted"));
    of("Ready", "False").or_else(|| of("Stalled", "True")).or(ended).unwrap_or(paused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reads_as_it_is_written_and_writes_json() {
        for corruption in Corruption::all() {
            assert_eq!(corruption.to_string().parse::<Corruption>().unwrap(), corruption);
            let Field { wrong, odd, .. } = corruption.field;
            for value in [wrong, odd].into_iter().filter(|value| !value.is_empty()) {
                assert!(serde_json::from_str::<Value>(value).is_ok(), "{corruption}: {value}");
            }
        }
    }

    #[test]
    fn a_mark_is_taken_replaced_or_added_and_nothing_else_is_touched() {
        let corruption = |text: &str| text.parse::<Corruption>().unwrap();
        let bare = json!({"metadata": {"name": "web"}, "spec": {}});
        let marked = json!({"metadata": {"name": "web", "labels": {"canaryrelease.dev/release": "web"}}, "spec": {}});
        let other = json!({"metadata": {"name": "web", "labels": {"canaryrelease.dev/release": "other"}}, "spec": {}});
        let gone = json!({"metadata": {"name": "web", "labels": {}}, "spec": {}});
        assert_eq!(corruption("target.label.release wrong").applied(&marked), Some(other.clone()));
        assert_eq!(corruption("target.label.release wrong").applied(&bare), Some(other));
        assert_eq!(corruption("target.label.release removed").applied(&marked), Some(gone));
        assert_eq!(corruption("target.label.release removed").applied(&bare), None);
        assert_eq!(corruption("canary.replicas odd").applied(&bare), None);
    }
}
