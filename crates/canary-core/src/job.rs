//! Jobs as objects: one made from a CronJob as `kubectl create job --from` makes it, how far one is, which of its
//! containers tells what happened, and the end of a log made harmless and small. It decides nothing about a release.

use std::collections::BTreeMap;

use canary_api::names;
use serde_json::{Map, Value, json};

use crate::{canary::Owner, object};

/// For how long an ended Job is kept where its template does not say: a week.
const KEPT_SECONDS: u32 = 7 * 24 * 3600;
/// Lines and bytes of a log that are kept.
pub const TAIL_LINES: usize = 40;
/// Bytes of a log's end that are kept.
pub const TAIL_BYTES: usize = 2048;

/// What a Job is made for.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The CanaryRelease.
    pub owner: Owner<'a>,
    /// The release's id.
    pub release: &'a str,
    /// Number and weight of the stage, where it is a stage's.
    pub stage: Option<(i32, &'a str)>,
}

/// A Job from a CronJob's template: its labels, annotations and spec, the CronJob as its owner, and for whoever looks,
/// on Job and pods, which release and stage it is for. It is kept for a week where the template does not say.
#[must_use]
pub fn from_cron_job(cron_job: &Value, run: &Run<'_>) -> Value {
    let mut annotations = object::strings(cron_job, "/spec/jobTemplate/metadata/annotations");
    let mut labels = object::strings(cron_job, "/spec/jobTemplate/metadata/labels");
    let told = told(run);
    annotations.insert("cronjob.kubernetes.io/instantiate".to_owned(), "manual".to_owned());
    annotations.insert(names::ANNOTATION_UID.to_owned(), run.owner.uid.to_owned());
    annotations.extend(told.clone());
    labels.insert(names::LABEL_OWNED_BY.to_owned(), names::label_value(run.owner.name));
    let mut spec = cron_job.pointer("/spec/jobTemplate/spec").cloned().unwrap_or_else(|| json!({}));
    if let Some(fields) = spec.as_object_mut() {
        fields.entry("ttlSecondsAfterFinished").or_insert_with(|| json!(KEPT_SECONDS));
        annotate(fields, &told);
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": run.name,
            "namespace": run.namespace,
            "labels": labels,
            "annotations": annotations,
            // As kubectl does it: no blockOwnerDeletion, which would need a right on the CronJob.
            "ownerReferences": [{
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "name": object::name(cron_job),
                "uid": object::uid(cron_job),
                "controller": true,
            }],
        },
        "spec": spec,
    })
}

/// What a Job's program can read of its release, by the downward API.
fn told(run: &Run<'_>) -> BTreeMap<String, String> {
    let mut told = BTreeMap::from([(names::ANNOTATION_RELEASE_ID.to_owned(), run.release.to_owned())]);
    if let Some((number, weight)) = run.stage {
        told.insert(names::ANNOTATION_STAGE.to_owned(), number.to_string());
        told.insert(names::ANNOTATION_WEIGHT.to_owned(), weight.to_owned());
    }
    told
}

/// An object's field that is an object; made where it is none.
fn entry<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let slot = fields.entry(name).or_insert_with(|| json!({}));
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut()
}

/// Puts what is told on the pods of a Job's spec.
fn annotate(spec: &mut Map<String, Value>, told: &BTreeMap<String, String>) {
    let metadata = entry(spec, "template").and_then(|template| entry(template, "metadata"));
    if let Some(annotations) = metadata.and_then(|metadata| entry(metadata, "annotations")) {
        annotations.extend(told.iter().map(|(key, value)| (key.clone(), json!(value))));
    }
}

/// How far a Job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has not ended.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly; what Kubernetes says of it.
    Failed(String),
    /// It was stopped by its own deadline; what Kubernetes says of it.
    OutOfTime(String),
}

/// How far a Job is, by its conditions.
#[must_use]
pub fn state(job: &Value) -> State {
    let truth = |kind: &str| object::condition(job, "/status/conditions", kind) == "True";
    if truth("Complete") {
        return State::Succeeded;
    }
    if !truth("Failed") {
        return State::Running;
    }
    let reason = object::condition_reason(job, "/status/conditions", "Failed");
    let said = object::items(job, "/status/conditions").find(|one| object::text(one, "/type") == "Failed");
    let text = said.map_or("", |condition| object::text(condition, "/message"));
    let text: String = format!("{reason}: {text}").chars().take(300).collect();
    if reason == "DeadlineExceeded" { State::OutOfTime(text) } else { State::Failed(text) }
}

/// Whether pods of a failed Job show that no program of it ended by itself: they were evicted, lost, or never started. That
/// is no verdict on anything. Where no pod is left the Job's own word stands.
#[must_use]
pub fn only_disturbed(pods: &[Value]) -> bool {
    let disturbed = |pod: &Value| object::condition(pod, "/status/conditions", "DisruptionTarget") == "True";
    let spoke = |pod: &Value| !disturbed(pod) && ended(pod).any(|container| container.code != 0);
    !pods.is_empty() && !pods.iter().any(spoke)
}

/// A container that tells what became of a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teller {
    /// Its pod.
    pub pod: String,
    /// Its name.
    pub container: String,
    /// Its exit code, where it has ended.
    pub exit_code: Option<i32>,
}

struct Ended<'a> {
    name: &'a str,
    code: i64,
    at: &'a str,
}

/// Containers of a pod that have ended, also those that were started again.
fn ended(pod: &Value) -> impl Iterator<Item = Ended<'_>> {
    let all = ["/status/initContainerStatuses", "/status/containerStatuses"];
    all.into_iter().flat_map(|list| object::items(pod, list)).filter_map(|status| {
        let now = status.pointer("/state/terminated").or_else(|| status.pointer("/lastState/terminated"))?;
        let code = object::integer(now, "/exitCode", 0);
        Some(Ended { name: object::text(status, "/name"), code, at: object::text(now, "/finishedAt") })
    })
}

/// Whose log tells what became of a Job: of its newest pod the container that failed first, else the one that the pod names
/// as its default, else the first.
#[must_use]
pub fn teller(pods: &[Value], job_uid: &str) -> Option<Teller> {
    let own = pods.iter().filter(|pod| object::controlled_by(pod, job_uid));
    let pod = own.max_by_key(|pod| {
        let fails = ended(pod).any(|container| container.code != 0);
        (fails, object::text(pod, "/metadata/creationTimestamp"), object::name(pod))
    })?;
    let failed = ended(pod).filter(|container| container.code != 0).min_by_key(|container| container.at);
    let named = object::annotation(pod, "kubectl.kubernetes.io/default-container");
    let first = || object::items(pod, "/spec/containers").map(|container| object::text(container, "/name")).next();
    let container = failed.map(|container| container.name).or(named).or_else(first)?.to_owned();
    let exit_code = ended(pod).find(|one| one.name == container).and_then(|one| i32::try_from(one.code).ok());
    Some(Teller { pod: object::name(pod).to_owned(), container, exit_code })
}

/// The end of a log: at most [`TAIL_LINES`] lines and [`TAIL_BYTES`] bytes, without control characters; and whether
/// something before it was left out.
#[must_use]
pub fn tail(log: &[u8]) -> (String, bool) {
    let text = String::from_utf8_lossy(log).replace("\r\n", "\n").replace('\r', "\n");
    let text: String = without_escapes(&text).chars().filter(|sign| !harmful(*sign)).collect();
    let text = text.trim_end();
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(TAIL_LINES);
    let mut kept = lines.into_iter().skip(skipped).collect::<Vec<_>>().join("\n");
    let mut from = kept.len().saturating_sub(TAIL_BYTES);
    let cut = skipped > 0 || from > 0;
    while !kept.is_char_boundary(from) {
        from = from.saturating_add(1);
    }
    (kept.split_off(from), cut)
}

/// A text without the sequences that colour a terminal or move its cursor.
fn without_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut signs = text.chars().peekable();
    while let Some(sign) = signs.next() {
        if sign != '\u{1b}' {
            kept.push(sign);
        } else if signs.next_if_eq(&'[').is_some() {
            while signs.next_if(|sign| matches!(sign, ' '..='?')).is_some() {}
            let _end = signs.next_if(|sign| matches!(sign, '@'..='~'));
        }
    }
    kept
}

/// Signs that are not shown and do something: controls, and those that turn the direction of a text.
fn harmful(sign: char) -> bool {
    (sign.is_control() && sign != '\n' && sign != '\t')
        || matches!(sign, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron_job(template: Value) -> Value {
        json!({"metadata": {"name": "smoke", "uid": "c-1"}, "spec": {"suspend": true, "jobTemplate": template}})
    }

    fn run() -> Run<'static> {
        let owner = Owner { name: "web", uid: "u-1" };
        Run { name: "web-1-smoke", namespace: "shop", owner, release: "web-1", stage: Some((2, "5%")) }
    }

    #[test]
    fn a_job_is_made_as_kubectl_makes_it() {
        let pods = json!({"metadata": {"labels": {"app": "smoke"}}, "spec": {"containers": [{"name": "c", "new": 1}]}});
        let template = json!({
            "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"backoffLimit": 0, "ttlSecondsAfterFinished": 9, "template": pods},
        });
        let made = from_cron_job(&cron_job(template), &run());
        assert_eq!(made["metadata"]["labels"], json!({"a": "b", "canaryrelease.dev/owned-by": "web"}));
        assert_eq!(made["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"], "manual");
        assert_eq!(made["metadata"]["annotations"]["c"], "d");
        assert_eq!(made["metadata"]["annotations"][names::ANNOTATION_UID], "u-1");
        let owner =
            json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "smoke", "uid": "c-1", "controller": true}]);
        assert_eq!(made["metadata"]["ownerReferences"], owner);
        assert_eq!((&made["spec"]["backoffLimit"], &made["spec"]["ttlSecondsAfterFinished"]), (&json!(0), &json!(9)));
        let told = &made["spec"]["template"]["metadata"]["annotations"];
        assert_eq!(told[names::ANNOTATION_RELEASE_ID], "web-1");
        assert_eq!((&told[names::ANNOTATION_STAGE], &told[names::ANNOTATION_WEIGHT]), (&json!("2"), &json!("5%")));
        // What this build does not know is kept.
        assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["new"], 1);
        assert_eq!(made["spec"]["template"]["metadata"]["labels"], json!({"app": "smoke"}));
    }

    #[test]
    fn ended_jobs_do_not_pile_up_and_an_odd_template_harms_nothing() {
        let made = from_cron_job(&cron_job(json!({"spec": {"template": {"metadata": null}}})), &run());
        assert_eq!(made["spec"]["ttlSecondsAfterFinished"], KEPT_SECONDS);
        let annotations = &made["spec"]["template"]["metadata"]["annotations"];
        assert_eq!(annotations[names::ANNOTATION_RELEASE_ID], "web-1");
        assert_eq!(from_cron_job(&json!({}), &run())["metadata"]["name"], "web-1-smoke");
    }

    fn job(kind: &str, reason: &str) -> Value {
        let condition = json!({"type": kind, "status": "True", "reason": reason, "message": "m"});
        json!({"status": {"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, condition]}})
    }

    #[test]
    fn a_job_ends_by_its_conditions() {
        assert_eq!(state(&json!({})), State::Running);
        assert_eq!(state(&job("Suspended", "")), State::Running);
        assert_eq!(state(&job("FailureTarget", "BackoffLimitExceeded")), State::Running);
        assert_eq!(state(&job("Complete", "")), State::Succeeded);
        let failed = state(&job("Failed", "BackoffLimitExceeded"));
        assert_eq!(failed, State::Failed("BackoffLimitExceeded: m".to_owned()));
        assert_eq!(state(&job("Failed", "DeadlineExceeded")), State::OutOfTime("DeadlineExceeded: m".to_owned()));
    }

    fn pod(name: &str, of: &str, codes: &[(&str, i64, &str)]) -> Value {
        let statuses: Vec<Value> = codes
            .iter()
            .map(
                |(name, code, at)| json!({"name": name, "state": {"terminated": {"exitCode": code, "finishedAt": at}}}),
            )
            .collect();
        let containers: Vec<Value> = codes.iter().map(|(name, _, _)| json!({"name": name})).collect();
        json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len()),
                "ownerReferences": [{"uid": of, "controller": true}]},
            "spec": {"containers": containers},
            "status": {"containerStatuses": statuses},
        })
    }

    #[test]
    fn the_container_that_failed_first_tells_of_a_job() {
        let early = pod("a", "j", &[("one", 0, "2026-01-01T00:00:01Z"), ("two", 3, "2026-01-01T00:00:02Z")]);
        let late = pod("bb", "j", &[("one", 9, "2026-01-01T00:00:07Z"), ("two", 4, "2026-01-01T00:00:05Z")]);
        let others = pod("ccc", "another", &[("one", 7, "2026-01-01T00:00:09Z")]);
        let told = teller(&[early.clone(), late, others.clone()], "j").unwrap();
        assert_eq!(told, Teller { pod: "bb".to_owned(), container: "two".to_owned(), exit_code: Some(4) });
        let good = pod("dddd", "j", &[("one", 0, "2026-01-01T00:00:01Z")]);
        assert_eq!(teller(std::slice::from_ref(&good), "j").unwrap().exit_code, Some(0));
        assert_eq!(teller(&[early, good], "j").unwrap().pod, "a");
        assert_eq!(teller(&[others], "j"), None);
    }

    #[test]
    fn an_evicted_pod_is_no_verdict() {
        let failed = pod("a", "j", &[("one", 1, "")]);
        let mut evicted = failed.clone();
        evicted["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
        assert!(only_disturbed(&[evicted.clone()]));
        assert!(!only_disturbed(&[evicted, failed]));
        assert!(only_disturbed(&[pod("b", "j", &[])]));
        assert!(!only_disturbed(&[]));
    }

    #[test]
    fn a_log_keeps_its_end_and_does_nothing() {
        let (text, cut) = tail(b"\x1b[31mred\x1b[0m\r\n\x07bell\x1b]0;title\x07\n\xff\xe2\x80\xaeevil\n\n");
        assert_eq!((text.as_str(), cut), ("red\nbell]0;title\n\u{fffd}evil", false));
        let long = (0..200).map(|line| format!("line {line}\n")).collect::<String>();
        let (text, cut) = tail(long.as_bytes());
        assert!(cut && text.starts_with("line 160\n") && text.ends_with("line 199"), "{text}");
        let (text, cut) = tail("ä".repeat(5000).as_bytes());
        assert!(cut && text.len() <= TAIL_BYTES && text.chars().all(|sign| sign == 'ä'));
        assert_eq!(tail(b""), (String::new(), false));
    }
}
