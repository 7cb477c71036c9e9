//! The effects of the admission policies in `deploy/`, in Rust. Each function names the file it stands for;
//! [`crate::contract::policies`] asks it and the policies themselves, on a real API server, the same.

use canary_api::names;
use canary_core::{object, template};
use serde_json::{Value, json};

use crate::api::Caller;
use crate::refusal::Refusal;
use crate::resources::Resource;
use crate::text::is_ours;

/// Users that run the cluster: every right.
const SYSTEM: &str = "system:";
const VERBS: [&str; 6] = ["abort", "pause", "resume", "approve", "promote", "retry"];

/// Which policies are installed, and who may do what.
#[derive(Debug, Clone)]
pub struct Admission {
    /// `20-policy-deployment.yaml`.
    pub hold: bool,
    /// `21-policy-command.yaml`.
    pub command: bool,
    /// `22-policy-route.yaml`.
    pub route: bool,
    /// `canaryrelease-writer` of `23-policy-writer.yaml`.
    pub writer: bool,
    /// `canaryrelease-status` of `23-policy-writer.yaml`.
    pub status: bool,
    /// `24-policy-record.yaml`.
    pub record: bool,
    /// `25-policy-job.yaml`.
    pub job: bool,
    /// Rights that a user has not: user, verb and resource.
    pub lacking: Vec<(String, &'static str, &'static str)>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            hold: true,
            command: true,
            route: true,
            writer: true,
            status: true,
            record: true,
            job: true,
            lacking: Vec::new(),
        }
    }
}

/// An object that was let in, perhaps changed.
#[derive(Debug)]
pub struct Admitted {
    /// As it goes on.
    pub object: Value,
}

impl Admission {
    /// What becomes of an object that is to be created.
    ///
    /// # Errors
    /// What a policy says.
    pub fn create(&self, caller: &Caller, resource: &'static Resource, object: &mut Value) -> Result<(), Refusal> {
        if caller.user == names::OPERATOR_USER {
            return Ok(());
        }
        if resource.kind == "CanaryRelease" {
            self.command(caller, resource, None, object)?;
            self.writer(caller, resource, None, object)?;
        }
        if resource.kind == "Job" && self.job {
            marked(caller, resource, None, object)?;
        }
        Ok(())
    }

    /// What becomes of a change.
    ///
    /// # Errors
    /// What a policy says.
    pub fn update(
        &self,
        caller: &Caller,
        resource: &'static Resource,
        was: &Value,
        mut object: Value,
        status: bool,
    ) -> Result<Admitted, Refusal> {
        let exempt = caller.user == names::OPERATOR_USER && !caller.dry_run;
        let armed = object::label(was, names::LABEL_RELEASE).map(str::to_owned);
        match resource.kind {
            "Deployment" if !exempt && self.hold => {
                if let Some(release) = armed {
                    self.deployment(caller, resource, &release, was, &mut object, status)?;
                }
            }
            "HTTPRoute" if !exempt && !status => {
                if let Some(release) = armed {
                    self.http_route(caller, resource, &release, was, &mut object)?;
                }
            }
            "CanaryRelease" if caller.user != names::OPERATOR_USER && !status => {
                self.command(caller, resource, Some(was), &mut object)?;
                self.writer(caller, resource, Some(was), &object)?;
            }
            "CanaryRelease" if status && self.status => written_by_the_operator(caller, resource, was)?,
            "ReleaseRecord" if status && self.record => record(caller, resource, was, &object)?,
            "Job" if caller.user != names::OPERATOR_USER && self.job => marked(caller, resource, Some(was), &object)?,
            _ => {}
        }
        Ok(Admitted { object })
    }

    /// Whether a deletion may be.
    ///
    /// # Errors
    /// Never, today: no policy looks at deletions.
    pub fn delete(&self, _caller: &Caller, _resource: &'static Resource, _was: &Value) -> Result<(), Refusal> {
        Ok(())
    }

    fn may(&self, user: &str, verb: &str, resource: &str) -> bool {
        user.starts_with(SYSTEM)
            || !self.lacking.iter().any(|(who, what, on)| who == user && *what == verb && *on == resource)
    }

    fn overridden(&self, caller: &Caller, was: &Value, now: &Value) -> bool {
        let (was, by, now) = (
            object::annotation(was, names::ANNOTATION_OVERRIDE),
            object::annotation(was, names::ANNOTATION_OVERRIDE_BY),
            object::annotation(now, names::ANNOTATION_OVERRIDE),
        );
        now.is_some_and(|reason| !reason.trim().is_empty())
            && (was != now || by == Some(caller.user.as_str()))
            && self.may(&caller.user, "override", "canaryreleases")
    }

    /// `20-policy-deployment.yaml`: the hold, the guard and the stamp of an override.
    fn deployment(
        &self,
        caller: &Caller,
        resource: &'static Resource,
        release: &str,
        was: &Value,
        now: &mut Value,
        status: bool,
    ) -> Result<(), Refusal> {
        let paused = |object: &Value| object::truth(object, "/spec/paused");
        let rolling = object::annotation(was, names::ANNOTATION_ROLLING).is_some();
        let overridden = self.overridden(caller, was, now);
        let changed = !status && !template::same(&was["spec"]["template"], &now["spec"]["template"]);
        let held = object::annotation(was, names::ANNOTATION_CHANGED_BY).is_some();
        let resumed = |now: &Value| !status && paused(was) && !paused(now) && held;
        let person = ["kubectl-rollout", "kubectl-patch", "kubectl-edit"].contains(&caller.manager.as_str());
        let pause = !rolling && !overridden && (changed || (resumed(now) && !person));
        keep_marks(was, now);
        if !overridden {
            now["metadata"]["labels"][names::LABEL_RELEASE] = json!(release);
        }
        if changed {
            now["metadata"]["annotations"][names::ANNOTATION_CHANGED_BY] = json!(caller.user);
        }
        if pause {
            now["spec"]["paused"] = json!(true);
        }
        self.stamp_override(caller, was, now);
        self.guard_override(caller, resource, release, was, now)?;
        // An override that was taken off is back by now.
        let overridden = self.overridden(caller, was, now);
        let name = object::name(was);
        if resumed(now) && !rolling && !overridden {
            return Err(denied(
                resource,
                name,
                "canaryrelease-guard",
                &format!(
                    "deployment {name} is held by CanaryRelease {release}, which takes its new template live in stages."
                ),
            ));
        }
        if rolling && changed && !overridden {
            return Err(denied(
                resource,
                name,
                "canaryrelease-guard",
                &format!(
                    "deployment {name} is being promoted or restored by CanaryRelease {release}: apply this again when it is done"
                ),
            ));
        }
        Ok(())
    }

    /// `22-policy-route.yaml`, and the parts of `20-policy-deployment.yaml` that look at routes.
    fn http_route(
        &self,
        caller: &Caller,
        resource: &'static Resource,
        release: &str,
        was: &Value,
        now: &mut Value,
    ) -> Result<(), Refusal> {
        let overridden = self.overridden(caller, was, now);
        if self.route {
            keep_marks(was, now);
            if !overridden {
                now["metadata"]["labels"][names::LABEL_RELEASE] = json!(release);
                keep_split(was, now);
            }
        }
        if self.hold {
            self.stamp_override(caller, was, now);
            self.guard_override(caller, resource, release, was, now)?;
        }
        Ok(())
    }

    fn stamp_override(&self, caller: &Caller, was: &Value, now: &mut Value) {
        let note = |of: &Value, key: &str| object::annotation(of, key).map(str::to_owned);
        let had = note(was, names::ANNOTATION_OVERRIDE);
        let by = note(was, names::ANNOTATION_OVERRIDE_BY);
        let has = note(now, names::ANNOTATION_OVERRIDE);
        if let (Some(had), None) = (&had, &has) {
            now["metadata"]["annotations"][names::ANNOTATION_OVERRIDE] = json!(had);
        }
        let by = if has.is_some() && has != had { Some(caller.user.clone()) } else { by };
        match by {
            Some(by) => now["metadata"]["annotations"][names::ANNOTATION_OVERRIDE_BY] = json!(by),
            None => {
                if let Some(notes) = now.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
                    notes.remove(names::ANNOTATION_OVERRIDE_BY);
                }
            }
        }
    }

    fn guard_override(
        &self,
        caller: &Caller,
        resource: &'static Resource,
        release: &str,
        was: &Value,
        now: &Value,
    ) -> Result<(), Refusal> {
        let name = object::name(was);
        let (had, has) =
            (object::annotation(was, names::ANNOTATION_OVERRIDE), object::annotation(now, names::ANNOTATION_OVERRIDE));
        let Some(reason) = has.filter(|_| had != has) else { return Ok(()) };
        if reason.trim().is_empty() {
            let why = format!("canaryrelease.dev/override on {name} needs a reason as its value");
            return Err(denied(resource, name, "canaryrelease-guard", &why));
        }
        if !self.may(&caller.user, "override", "canaryreleases") {
            let why = format!("{} may not override CanaryRelease {release}", caller.user);
            return Err(denied(resource, name, "canaryrelease-guard", &why));
        }
        Ok(())
    }

    /// `21-policy-command.yaml`.
    fn command(
        &self,
        caller: &Caller,
        resource: &'static Resource,
        was: Option<&Value>,
        now: &mut Value,
    ) -> Result<(), Refusal> {
        if !self.command {
            return Ok(());
        }
        let of = |object: Option<&Value>, key: &str| {
            object.and_then(|object| object::annotation(object, key)).map(str::to_owned)
        };
        let pending = of(was, names::ANNOTATION_COMMAND).unwrap_or_default();
        let pending_by = of(was, names::ANNOTATION_COMMAND_BY);
        let given = of(Some(now), names::ANNOTATION_COMMAND);
        let command = given.clone().unwrap_or_default();
        if pending.is_empty()
            && pending_by.is_none()
            && given.is_none()
            && of(Some(now), names::ANNOTATION_COMMAND_BY).is_none()
        {
            return Ok(());
        }
        if !pending.is_empty() && command.is_empty() {
            now["metadata"]["annotations"][names::ANNOTATION_COMMAND] = json!(pending);
        }
        let by = if !command.is_empty() && command != pending {
            Some(caller.user.clone())
        } else if !pending.is_empty() {
            pending_by
        } else {
            None
        };
        match by {
            Some(by) => now["metadata"]["annotations"][names::ANNOTATION_COMMAND_BY] = json!(by),
            None => {
                if let Some(notes) = now.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
                    notes.remove(names::ANNOTATION_COMMAND_BY);
                }
            }
        }
        // What is looked at is what the stamp has made of it.
        let had = of(was, names::ANNOTATION_COMMAND);
        let given = of(Some(now), names::ANNOTATION_COMMAND);
        let Some(command) = given.filter(|command| Some(command) != had.as_ref()) else { return Ok(()) };
        let name = object::name(now).to_owned();
        let deny = |why: String| Err(denied(resource, &name, "canaryrelease-command-check", &why));
        let verb = command.split(' ').next().unwrap_or_default();
        if !VERBS.contains(&verb) {
            return deny(format!("unknown command {command:?}"));
        }
        if command != "abort" && !well_formed(&command) {
            return deny(format!("command {command:?} is not of the form \"{verb} <release id> [<stage>]\""));
        }
        if !pending.is_empty() && verb != "abort" {
            return deny(format!("it has the command {pending:?}, which the operator has not taken yet"));
        }
        if !self.may(&caller.user, verb, "canaryreleases") {
            return deny(format!("{} may not {verb} it", caller.user));
        }
        Ok(())
    }

    /// `23-policy-writer.yaml`.
    fn writer(
        &self,
        caller: &Caller,
        resource: &'static Resource,
        was: Option<&Value>,
        now: &Value,
    ) -> Result<(), Refusal> {
        let written = was.is_none_or(|was| was.get("spec") != now.get("spec"));
        let may = self.may(&caller.user, "update", "deployments") && self.may(&caller.user, "update", "httproutes");
        if self.writer && written && !may {
            let name = object::name(now);
            let why = format!("{} may not write CanaryRelease {name}", caller.user);
            return Err(denied(resource, name, "canaryrelease-writer", &why));
        }
        Ok(())
    }
}

/// `canaryrelease-status` of `23-policy-writer.yaml`.
fn written_by_the_operator(caller: &Caller, resource: &'static Resource, was: &Value) -> Result<(), Refusal> {
    if caller.user == names::OPERATOR_USER {
        return Ok(());
    }
    let name = object::name(was);
    let why = format!("the status of CanaryRelease {name} is written by the operator alone");
    Err(denied(resource, name, "canaryrelease-status", &why))
}

/// `24-policy-record.yaml`.
fn record(caller: &Caller, resource: &'static Resource, was: &Value, now: &Value) -> Result<(), Refusal> {
    let name = object::name(was);
    if caller.user != names::OPERATOR_USER {
        let why = format!("the status of record {name} is written by the operator alone");
        return Err(denied(resource, name, "canaryrelease-record", &why));
    }
    if object::truth(was, "/status/frozen") && was.get("status") != now.get("status") {
        let why = format!("record {name} is frozen: its release is over");
        return Err(denied(resource, name, "canaryrelease-record", &why));
    }
    Ok(())
}

/// `25-policy-job.yaml`.
fn marked(caller: &Caller, resource: &'static Resource, was: Option<&Value>, now: &Value) -> Result<(), Refusal> {
    let mark = |object| object::annotation(object, names::ANNOTATION_UID);
    if mark(now).is_none() || was.is_some_and(|was| mark(was) == mark(now)) {
        return Ok(());
    }
    let name = object::name(now);
    let why = format!("{} may not make Job {name} one of a release", caller.user);
    Err(denied(resource, name, "canaryrelease-job", &why))
}

fn denied(resource: &Resource, name: &str, policy: &str, why: &str) -> Refusal {
    let why = format!("ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {why}");
    Refusal::forbidden(resource, name, &why)
}

/// `<verb> <release id> [<stage>]`
fn well_formed(command: &str) -> bool {
    let parts: Vec<&str> = command.split(' ').collect();
    let ([_, id] | [_, id, _]) = parts.as_slice() else { return false };
    let Some((name, number)) = id.rsplit_once('-') else { return false };
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let named = name.bytes().all(inner) && edge(name.bytes().next()) && edge(name.bytes().last());
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let staged = parts.get(2).is_none_or(|stage| {
        !stage.starts_with('0') && stage.parse::<u8>().is_ok_and(|stage| (1..=20).contains(&stage))
    });
    named && numbered && staged
}

/// Our annotations are the operator's: whatever another writer does to them is undone.
fn keep_marks(was: &Value, now: &mut Value) {
    let ours = |key: &str| is_ours(key) && key != names::ANNOTATION_OVERRIDE && key != names::ANNOTATION_OVERRIDE_BY;
    if let Some(entries) = now.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        entries.retain(|key, _| !ours(key));
    }
    for (key, value) in object::strings(was, "/metadata/annotations").into_iter().filter(|(key, _)| ours(key)) {
        now["metadata"]["annotations"][key] = json!(value);
    }
}

/// The weights in force stay, whatever is applied.
fn keep_split(was: &Value, now: &mut Value) {
    let Some(mark) = object::annotation(was, names::ANNOTATION_SPLIT) else { return };
    let ours: Vec<&str> = mark.split('/').collect();
    let namespace = object::text(was, "/metadata/namespace");
    let entry = |rule: &Value, name: &str| {
        object::items(rule, "/backendRefs").find(|entry| is_service(entry, name, namespace)).cloned()
    };
    let in_force: Vec<Option<Vec<Value>>> = object::items(was, "/spec/rules")
        .map(|rule| ours.iter().map(|name| Some(entry(rule, name)?["weight"].clone())).collect())
        .collect();
    let Some(first) = in_force.iter().flatten().next().cloned() else { return };
    for (index, rule) in now.pointer_mut("/spec/rules").and_then(Value::as_array_mut).into_iter().flatten().enumerate()
    {
        let present: Vec<Value> = ours.iter().filter_map(|name| entry(rule, name)).collect();
        let Some(entries) = rule.get_mut("backendRefs").and_then(Value::as_array_mut) else { continue };
        let partner = present.iter().any(|entry| entry["name"] != ours[0]);
        if !(partner || (present.len() == 1 && entries.len() == 1)) {
            continue;
        }
        let force = in_force.get(index).cloned().flatten().unwrap_or_else(|| first.clone());
        for (name, weight) in ours.iter().zip(&force) {
            match entries.iter_mut().find(|entry| is_service(entry, name, namespace)) {
                Some(entry) => entry["weight"] = weight.clone(),
                None => {
                    let mut added = present[0].clone();
                    added["name"] = json!(name);
                    added["weight"] = weight.clone();
                    entries.push(added);
                }
            }
        }
    }
}

fn is_service(entry: &Value, name: &str, namespace: &str) -> bool {
    entry["name"] == name
        && entry.get("namespace").is_none_or(|elsewhere| elsewhere == namespace)
        && entry.get("kind").is_none_or(|kind| kind == "Service")
        && entry.get("group").is_none_or(|group| group == "")
}
