//! Writes of the objects: whose they are, what they rest on, and what must be so before weight or pods move.

use canary_api::{ReleaseStatus, Step, names};
use canary_core::{object, template};
use serde_json::Value;

use super::{Promises, Write, canary_weight, current, drain, permille, reverting, status_of, weight_of};
use crate::resources::{AUTOSCALERS, CANARY_RELEASES, DEPLOYMENTS, HTTP_ROUTES, REPLICA_SETS};
use crate::store::Key;
use crate::text::is_ours;
use crate::world::NAMESPACE;

impl Promises {
    /// I8 and I10: whose the object is.
    pub(super) fn names(&mut self, write: &Write<'_>) {
        let (api, call) = (write.api, write.call);
        let plural = call.resource.plural;
        let told = matches!(plural, "canaryreleases" | "releaserecords" | "events" | "leases");
        if self.route_first && !told {
            // A route that somebody deletes between the two takes no write.
            let is_there = api.store.all(HTTP_ROUTES.plural, NAMESPACE).next().is_some();
            if plural != "httproutes" && is_there {
                let what = format!("a revert's first write is {plural} {}, not the route", call.name);
                self.break_it(api, "I8", &what);
            }
            self.route_first = false;
        }
        if matches!(plural, "events" | "leases" | "releaserecords") {
            return;
        }
        if call.namespace != NAMESPACE {
            self.break_it(api, "I10", &format!("a write in namespace {}", call.namespace));
        }
        let object = write.after.or(write.before);
        let name = object.map_or("", object::name);
        let uid = api
            .store
            .get(&Key::new(CANARY_RELEASES, NAMESPACE, "web"))
            .map(|release| object::uid(&release.value).to_owned());
        let marked = |object: &Value| object::annotation(object, names::ANNOTATION_UID) == uid.as_deref();
        let ours = match plural {
            "canaryreleases" => name == "web",
            "httproutes" => name == "web",
            "deployments" if name == "web" => true,
            "horizontalpodautoscalers" => {
                object.is_some_and(|object| object::text(object, "/spec/scaleTargetRef/name") == "web")
            }
            "replicasets" => {
                let canary = api.store.get(&Key::new(DEPLOYMENTS, NAMESPACE, "web-canary"));
                let owner = canary.map_or("", |canary| object::uid(&canary.value));
                object.is_some_and(|object| object::controlled_by(object, owner))
            }
            "deployments" | "services" | "poddisruptionbudgets" | "controllerrevisions" => {
                // The uid says whose it is; while the CanaryRelease itself goes, what is left is told by the label.
                let labelled = |object: &Value| object::label(object, names::LABEL_OWNED_BY) == Some("web");
                let known = |object: &Value| if uid.is_some() { marked(object) } else { labelled(object) };
                let key = Key::new(call.resource, NAMESPACE, name);
                let read = || self.meddled && write.then().get(&key).is_some_and(|then| known(&then.value));
                (object.is_some_and(known) && write.before.is_none_or(known) || read())
                    && (write.before.is_some() || object.is_some_and(labelled))
            }
            // The annotation says whose it is: its owner is the CronJob.
            "jobs" => write.before.is_none() && object.is_some_and(marked),
            _ => false,
        };
        if !ours {
            self.break_it(api, "I10", &format!("{plural} {name} is not ours to write"));
        }
        let guarded = match call.verb.word() {
            "patch" => object::items(write.body, "").any(|operation| {
                object::text(operation, "/path") == "/metadata/uid" && object::text(operation, "/op") == "test"
            }),
            "delete" => !object::text(write.body, "/preconditions/uid").is_empty(),
            _ => true,
        };
        if !guarded {
            self.break_it(api, "I10", &format!("a {} of {plural} {name} names no uid", call.verb.word()));
        }
    }

    /// I9: what a write rests on was read.
    pub(super) fn reads(&mut self, write: &Write<'_>) {
        let (plural, name) = (write.call.resource.plural, write.call.name.as_str());
        let created = object::name(write.after.unwrap_or(&Value::Null));
        let name = if name.is_empty() { created } else { name };
        let mut needs: Vec<(&str, &str)> = match plural {
            "deployments" | "services" | "httproutes" => vec![(plural, name)],
            "poddisruptionbudgets" | "controllerrevisions" | "horizontalpodautoscalers" | "replicasets" => {
                vec![(plural, "")]
            }
            _ => return,
        };
        let pods = |object: Option<&Value>| object.map_or(0, |object| object::integer(object, "/spec/replicas", 0));
        match (plural, name) {
            ("deployments", "web-canary") if pods(write.after) < pods(write.before) => {
                needs.push(("httproutes", "web"))
            }
            ("deployments", "web") if lets_go(write) => {
                needs.extend([("httproutes", "web"), ("deployments", "web-canary")])
            }
            ("httproutes", _) if raised(write) => {
                needs.extend([("pods", "app=web-canary"), ("deployments", "web-canary")])
            }
            _ => {}
        }
        for (plural, name) in needs {
            let list = |known: &str| name.is_empty() && !known.starts_with("web");
            if write.failed.iter().any(|(failed, of)| *failed == plural && (of == name || list(of))) {
                let what = format!(
                    "{} {} is written after {plural} {name} could not be read",
                    write.call.resource.plural, write.call.name
                );
                self.break_it(write.api, "I9", &what);
            }
        }
    }

    /// I3, I5 and I11 of a route.
    pub(super) fn route(&mut self, write: &Write<'_>) {
        let (api, Some(before), Some(after)) = (write.api, write.before, write.after) else { return };
        if foreign(before, route_ours) != foreign(after, route_ours) {
            self.break_it(api, "I11", "another's field of the route was written");
        }
        for rule in object::items(after, "/spec/rules") {
            let of_pair = |entry: &&Value| object::text(entry, "/name").starts_with("web");
            // Of a rule that others came into ours are only taken away.
            let shared = object::items(rule, "/backendRefs").any(|entry| !of_pair(&entry));
            let ours: Vec<i64> = object::items(rule, "/backendRefs")
                .filter(of_pair)
                .map(|entry| object::integer(entry, "/weight", 1))
                .collect();
            if ours.len() > 1 && !shared && ours.iter().sum::<i64>() != 1000 {
                self.break_it(api, "I5", &format!("weights sum to {}: {rule}", ours.iter().sum::<i64>()));
            }
        }
        if let Some(note) = object::annotation(after, names::ANNOTATION_BREACHED)
            && let Some((id, _)) = note.split_once(':')
        {
            self.breached.insert(id.to_owned());
        }
        let stored = self.stored(write);
        let stored = stored.as_ref().map(|release| &release.value);
        let release = current(stored);
        let (was, now) = (weight_of(before, "web-canary"), weight_of(after, "web-canary"));
        let pods = i64::from(release.target_pods).max(1);
        if now > was && !self.commanded.contains(&release.id) && release.step < Step::Roll {
            let most = stage_weight(stored, release.stage_index);
            if now > most {
                self.break_it(api, "I6", &format!("weight {now} in a stage of {most}"));
            }
        }
        if now > was {
            if reverting(release.step) || release.revert.is_some() {
                self.break_it(api, "I2", &format!("weight rises from {was} to {now} in a revert"));
            }
            if self.breached.contains(&release.id) {
                self.break_it(api, "I2", &format!("weight rises to {now} after a breach of {}", release.id));
            }
            let ready = self.known_behind(write, "web-canary");
            let granted = self.granted.entry(release.id.clone()).or_default();
            // What was given before and taken by another's hand may be given again to what is left.
            let needed = if now <= *granted { 1 } else { (now * pods + 999) / 1000 };
            *granted = (*granted).max(now);
            if ready < needed {
                self.break_it(api, "I3", &format!("weight {now} onto {ready} ready pods where {needed} are needed"));
            }
        }
        if now < was && release.step == Step::HandBack {
            let target = api.store.get(&Key::new(DEPLOYMENTS, NAMESPACE, "web"));
            let wanted = target.map_or(0, |target| object::integer(&target.value, "/spec/replicas", 1)).min(pods);
            let ready = self.known_behind(write, "web");
            // Pods that can't carry what they have are left for what there is.
            let left = ready > 0 && self.known_behind(write, "web-canary") < pods;
            if ready < wanted && !left {
                self.break_it(api, "I3", &format!("weight is handed back to {ready} of {wanted} pods"));
            }
        }
    }

    /// I4, I7 and I11 of a Deployment.
    pub(super) fn deployment(&mut self, write: &Write<'_>) {
        let name = write.before.or(write.after).map_or("", object::name);
        if name == "web" { self.target(write) } else { self.own(write, name) }
    }

    fn target(&mut self, write: &Write<'_>) {
        let (api, Some(before), Some(after)) = (write.api, write.before, write.after) else { return };
        if foreign(before, target_ours) != foreign(after, target_ours) {
            self.break_it(api, "I11", "another's field of the target was written");
        }
        let stored = self.stored(write);
        let stored = stored.as_ref().map(|release| &release.value);
        let release = current(stored);
        let serving = status_of(stored).hold.and_then(|hold| hold.serving).unwrap_or_default();
        let known = [&serving.digest, &release.stable.digest];
        let (was, now) = (&before["spec"]["template"], &after["spec"]["template"]);
        let digest = template::digest(now);
        if was != now && !known.contains(&&digest) {
            self.break_it(api, "I10", "a template that did not serve was written");
        }
        if !lets_go(write) || known.contains(&&digest) {
            return;
        }
        let asleep = object::integer(after, "/spec/replicas", 1) == 0;
        if asleep {
            return;
        }
        if release.step != Step::Roll {
            self.break_it(api, "I1", &format!("the candidate is let go in step {:?}", release.step));
        }
        let unproved = self.unproved(&release, stages(stored), &digest);
        if !unproved.is_empty() {
            self.break_it(api, "I1", &format!("{} is let go, and {}", release.id, unproved.join(", ")));
        }
        // After another was promoted it is a candidate again.
        self.promoted.retain(|known, _| *known == digest);
        let times = self.promoted.entry(digest).or_default();
        *times += 1;
        if *times > 1 {
            let what = format!("a candidate is promoted for the {times}. time");
            self.break_it(api, "I7", &what);
        }
        if self.breached.contains(&release.id) {
            self.break_it(api, "I2", &format!("{} is promoted after its breach", release.id));
        }
        if canary_weight(api) != 1000 {
            self.break_it(api, "I4", "the target rolls under traffic");
        }
        let ready = self.known_behind(write, "web-canary");
        if ready < i64::from(release.target_pods) {
            self.break_it(api, "I3", &format!("the target rolls while {ready} canary pods carry all of the traffic"));
        }
    }

    /// What is missing for a promotion: a command, or each stage passed on evidence; and for this template.
    fn unproved(&self, release: &ReleaseStatus, stages: usize, digest: &str) -> Vec<String> {
        let mut unproved = Vec::new();
        if release.candidate.digest != digest {
            unproved.push("the template is another".to_owned());
        }
        if !self.commanded.contains(&release.id) {
            let missing = |stage: &i32| !self.passed.contains(&(release.id.clone(), *stage));
            let missing = (0..i32::try_from(stages).unwrap_or(i32::MAX)).filter(missing);
            unproved.extend(missing.map(|stage| format!("stage {} never passed", stage + 1)));
        }
        unproved
    }

    /// Capacity of ours goes only after its weight and its drain.
    fn own(&mut self, write: &Write<'_>, name: &str) {
        let (api, Some(before)) = (write.api, write.before) else { return };
        let pods = |own: &Value| object::integer(own, "/spec/replicas", 0);
        // What a hand made of the canary under way is no capacity of the candidate's.
        let stored = self.stored(write);
        let id = current(stored.as_ref().map(|release| &release.value)).id;
        let own = |canary: &Value| object::annotation(canary, names::ANNOTATION_MADE_FOR) == Some(&id);
        let put_right = |after: &Value| own(before) && own(after);
        let less = pods(before) > 0
            && write.after.is_none_or(|after| {
                let other = after["spec"]["template"] != before["spec"]["template"];
                pods(after) < pods(before) || (other && !put_right(after))
            });
        if !less || name != "web-canary" {
            return;
        }
        let since = self.weight.filter(|(weight, _)| *weight == 0).map(|(_, since)| since);
        let drained = since.map(|since| api.now.duration_since(since).as_secs_f64());
        let wanted = drain(api).as_secs_f64();
        if drained.is_none_or(|drained| drained + 1.001 + self.leeway() < wanted) {
            let ready = write.cluster.traffic.flows_to(name);
            self.break_it(
                api,
                "I4",
                &format!(
                    "the canary's pods go {drained:?} s after their weight; they get {ready:.1} requests a second"
                ),
            );
        }
    }

    /// I11 of an autoscaler.
    pub(super) fn autoscaler(&mut self, write: &Write<'_>) {
        let (Some(before), Some(after)) = (write.before, write.after) else { return };
        if foreign(before, hpa_ours) != foreign(after, hpa_ours) {
            self.break_it(write.api, "I11", &format!("another's field of {} was written", AUTOSCALERS.kind));
        }
        let _ = REPLICA_SETS;
    }
}

/// The weight of a stage, in thousandths.
fn stage_weight(release: Option<&Value>, index: i32) -> i64 {
    release.map_or(0, |release| permille(object::text(release, &format!("/spec/stages/{index}/weight"))))
}

/// How many stages a CanaryRelease has.
fn stages(release: Option<&Value>) -> usize {
    release.map_or(0, |release| object::items(release, "/spec/stages").count())
}

/// Whether the write lets a paused target go.
fn lets_go(write: &Write<'_>) -> bool {
    let paused = |object: Option<&Value>| object.is_some_and(|object| object::truth(object, "/spec/paused"));
    paused(write.before) && !paused(write.after) && write.after.is_some()
}

fn raised(write: &Write<'_>) -> bool {
    let weight = |route: Option<&Value>| route.map_or(0, |route| weight_of(route, "web-canary"));
    weight(write.after) > weight(write.before)
}

/// An object without what is ours in it.
fn foreign(object: &Value, take_ours: fn(&mut Value)) -> String {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["resourceVersion", "generation", "managedFields"] {
            metadata.remove(field);
        }
        for field in ["labels", "annotations"] {
            let Some(entries) = metadata.get_mut(field).and_then(Value::as_object_mut) else { continue };
            entries.retain(|key, _| !is_ours(key));
            if entries.is_empty() {
                metadata.remove(field);
            }
        }
    }
    take_ours(&mut object);
    object.to_string()
}

fn route_ours(route: &mut Value) {
    for rule in route["spec"]["rules"].as_array_mut().into_iter().flatten() {
        let Some(entries) = rule.get_mut("backendRefs").and_then(Value::as_array_mut) else { continue };
        entries.retain(|entry| entry["name"] != "web-canary" && entry["name"] != "web-baseline");
        for entry in entries.iter_mut().filter(|entry| entry["name"] == "web") {
            if let Some(fields) = entry.as_object_mut() {
                fields.remove("weight");
            }
        }
    }
}

fn target_ours(target: &mut Value) {
    if let Some(spec) = target["spec"].as_object_mut() {
        spec.remove("paused");
        spec.remove("template");
    }
}

fn hpa_ours(hpa: &mut Value) {
    if let Some(spec) = hpa["spec"].as_object_mut() {
        // What the server fills in beside it comes and goes with it.
        spec.remove("behavior");
    }
}
