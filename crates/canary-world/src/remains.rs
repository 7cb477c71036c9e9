//! What a release that is over may not leave behind, whatever went wrong on its way: weight, pods, an autoscaler that may
//! not shrink, a target that is held for nothing. It knows nothing of how the release went.

use canary_api::{ReleaseStatus, Step};
use canary_core::{object, template};
use serde_json::Value;

use crate::api::Api;
use crate::promises::{status_of, weight_of};
use crate::resources::{
    AUTOSCALERS, CANARY_RELEASES, CONTROLLER_REVISIONS, DEPLOYMENTS, HTTP_ROUTES, RELEASE_RECORDS, SERVICES,
};
use crate::text::is_ours;
use crate::world::NAMESPACE;

/// What is left, in words; nothing where the release is not `over`. Where the CanaryRelease is gone nothing of ours is.
pub(crate) fn of(api: &Api, end: &str) -> Vec<String> {
    if matches!(end, "underway" | "Paused" | "") {
        return Vec::new();
    }
    let mut left = Vec::new();
    for (key, route) in api.store.all(HTTP_ROUTES.plural, NAMESPACE) {
        let weight = weight_of(&route.value, "web-canary");
        if weight > 0 {
            left.push(format!("route {} gives the canary {weight} thousandths", key.name));
        }
    }
    if let Some(canary) = api.object(DEPLOYMENTS, NAMESPACE, "web-canary")
        && object::integer(canary, "/spec/replicas", 0) > 0
    {
        left.push("the canary has pods".to_owned());
    }
    for (key, autoscaler) in api.store.all(AUTOSCALERS.plural, NAMESPACE) {
        let noted = marks(&autoscaler.value).next().is_some();
        if noted || object::text(&autoscaler.value, "/spec/behavior/scaleDown/selectPolicy") == "Disabled" {
            left.push(format!("autoscaler {} may not shrink its target", key.name));
        }
    }
    left.extend(held_for_nothing(api));
    left.extend(unrecorded(api));
    left.extend(undone(api));
    if end == "gone" {
        left.extend(ours(api));
    }
    left
}

/// A target that is held, but for a template that does not serve.
fn held_for_nothing(api: &Api) -> Option<String> {
    let target = api.object(DEPLOYMENTS, NAMESPACE, "web")?;
    if !object::truth(target, "/spec/paused") {
        return None;
    }
    let serving = status_of(api.object(CANARY_RELEASES, NAMESPACE, "web")).hold.and_then(|hold| hold.serving)?;
    let asked = template::digest(&target["spec"]["template"]);
    (serving.digest == asked).then(|| "the target is paused with the template that serves".to_owned())
}

/// Jobs of a release that is over which nobody looks after any more.
fn undone(api: &Api) -> Vec<String> {
    let status = status_of(api.object(CANARY_RELEASES, NAMESPACE, "web"));
    let Some(over) = status.current.filter(|current| current.step == Step::Done) else { return Vec::new() };
    let open = over.jobs.iter().filter(|run| run.state.is_open());
    open.map(|run| format!("job {} of {} is still {:?}", run.name, over.id, run.state)).collect()
}

/// How a release ended, by the lines of the history: when, how, and which.
fn told_of<'a>(history: &'a [String], id: &str) -> Option<&'a str> {
    history.iter().rev().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let outcome = words.next()?;
        (words.next()?.trim_end_matches(':') == id).then_some(outcome)
    })
}

/// A release whose record is not there, or does not say how it ended.
fn unrecorded(api: &Api) -> Option<String> {
    let status = status_of(api.object(CANARY_RELEASES, NAMESPACE, "web"));
    // Where the serving version was written back since, the outcome is that one's.
    let ended = |current: &ReleaseStatus| {
        current.step == Step::Done && !current.id.is_empty() && current.candidate.digest == status.observed_template
    };
    let id = status.current.as_ref().filter(|current| ended(current))?.id.clone();
    // What came after it may have an outcome, too.
    let outcome = told_of(&status.history, &id).unwrap_or(&status.outcome);
    let records = api.store.all(RELEASE_RECORDS.plural, NAMESPACE).map(|(_, record)| &record.value);
    let of = records.filter(|record| object::text(record, "/status/id") == id);
    let said: Vec<(bool, &str)> =
        of.map(|record| (object::truth(record, "/status/frozen"), object::text(record, "/status/outcome"))).collect();
    let wanted = (true, outcome);
    (!outcome.is_empty() && !said.contains(&wanted)).then(|| format!("{id} is {wanted:?}, and recorded {said:?}"))
}

/// What is ours, or marked so, where nobody is left to whom it belongs.
fn ours(api: &Api) -> Vec<String> {
    let mut left = Vec::new();
    if api.object(DEPLOYMENTS, NAMESPACE, "web").is_some_and(|target| object::truth(target, "/spec/paused")) {
        left.push("the target is paused, and nobody lets it go".to_owned());
    }
    for resource in [DEPLOYMENTS, SERVICES, HTTP_ROUTES, AUTOSCALERS, CONTROLLER_REVISIONS] {
        for (key, version) in api.store.all(resource.plural, NAMESPACE) {
            for mark in marks(&version.value) {
                left.push(format!("{} {} has {mark}", resource.kind, key.name));
            }
        }
    }
    left
}

/// Labels and annotations of ours.
fn marks(object: &Value) -> impl Iterator<Item = &str> {
    let all = ["/metadata/labels", "/metadata/annotations"].into_iter().filter_map(|field| object.pointer(field));
    let keys = all.filter_map(Value::as_object).flat_map(|entries| entries.keys().map(String::as_str));
    keys.filter(|key| is_ours(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Caller;
    use crate::resources::Resource;

    fn left(end: &str, objects: &[(&'static Resource, Value)]) -> Vec<String> {
        let mut api = Api::new("2026-01-01T00:00:00Z".parse().unwrap());
        for (resource, object) in objects {
            api.create(&Caller::new("jane", "kubectl"), resource, NAMESPACE, object.clone()).unwrap();
        }
        of(&api, end)
    }

    fn deployment(name: &str, over: &Value) -> (&'static Resource, Value) {
        let mut object = crate::manifests::target("v1");
        object["metadata"]["name"] = json!(name);
        json_patch::merge(&mut object, over);
        (DEPLOYMENTS, object)
    }

    fn route(canary: i64) -> (&'static Resource, Value) {
        let mut route = crate::manifests::route();
        route["spec"]["rules"][1]["backendRefs"] = json!([
            {"name": "web", "port": 80, "weight": 1000 - canary}, {"name": "web-canary", "port": 80, "weight": canary},
        ]);
        (HTTP_ROUTES, route)
    }

    #[test]
    fn weight_and_pods_are_left_only_where_the_release_is_over() {
        let objects = [route(10), deployment("web-canary", &json!({"spec": {"replicas": 1}}))];
        let both = ["route web gives the canary 10 thousandths", "the canary has pods"];
        assert_eq!(left("RolledBack", &objects), both);
        assert_eq!(left("gone", &objects), both);
        assert_eq!(left("underway", &objects), [""; 0]);
        assert_eq!(left("Paused", &objects), [""; 0]);
        let none = [route(0), deployment("web-canary", &json!({"spec": {"replicas": 0}}))];
        assert_eq!(left("RolledBack", &none), [""; 0]);
    }

    #[test]
    fn an_autoscaler_that_may_not_shrink_is_left() {
        let mut autoscaler = crate::manifests::autoscaler(2, 8);
        assert_eq!(left("Aborted", &[(AUTOSCALERS, autoscaler.clone())]), [""; 0]);
        autoscaler["spec"]["behavior"] = json!({"scaleDown": {"selectPolicy": "Disabled"}});
        assert_eq!(left("Aborted", &[(AUTOSCALERS, autoscaler)]), ["autoscaler web may not shrink its target"]);
    }

    #[test]
    fn nothing_of_ours_is_left_where_the_release_is_gone() {
        let marked = json!({"metadata": {"labels": {"canaryrelease.dev/release": "web"}}, "spec": {"paused": true}});
        let objects = [deployment("web", &marked)];
        assert_eq!(left("Promoted", &objects), [""; 0]);
        assert_eq!(
            left("gone", &objects),
            ["the target is paused, and nobody lets it go", "Deployment web has canaryrelease.dev/release"]
        );
    }

    #[test]
    fn a_target_is_held_only_for_a_template_that_does_not_serve() {
        let paused = deployment("web", &json!({"spec": {"paused": true}}));
        let mut api = Api::new("2026-01-01T00:00:00Z".parse().unwrap());
        let jane = Caller::new("jane", "kubectl");
        api.create(&jane, DEPLOYMENTS, NAMESPACE, paused.1).unwrap();
        let template = api.get(DEPLOYMENTS, NAMESPACE, "web").unwrap().value["spec"]["template"].clone();
        let made =
            api.create(&jane, CANARY_RELEASES, NAMESPACE, crate::manifests::release(&serde_json::Map::new())).unwrap();
        for (digest, expected) in [
            (template::digest(&template), &["the target is paused with the template that serves"][..]),
            ("sha256:0".to_owned(), &[]),
        ] {
            let mut release = api.get(CANARY_RELEASES, NAMESPACE, "web").unwrap().value.clone();
            release["status"]["hold"] = json!({"serving": {"digest": digest}});
            let operator = Caller::new(canary_api::names::OPERATOR_USER, "operator");
            api.replace(&operator, CANARY_RELEASES, NAMESPACE, object::name(&made.value), true, release).unwrap();
            assert_eq!(of(&api, "RolledBack"), expected);
        }
    }

    #[test]
    fn a_release_that_is_over_is_recorded_with_its_end() {
        let mut api = Api::new("2026-01-01T00:00:00Z".parse().unwrap());
        let operator = Caller::new(canary_api::names::OPERATOR_USER, "operator");
        let status_is = |api: &mut Api, resource: &'static Resource, name: &str, status: Value| {
            let mut object = api.object(resource, NAMESPACE, name).unwrap().clone();
            object["status"] = status;
            api.replace(&operator, resource, NAMESPACE, name, true, object).unwrap();
        };
        let release = crate::manifests::release(&serde_json::Map::new());
        api.create(&Caller::new("jane", "kubectl"), CANARY_RELEASES, NAMESPACE, release).unwrap();
        let over = json!({
            "outcome": "RolledBack", "observedTemplate": "sha256:2",
            "current": {"id": "web-1", "step": "Done", "candidate": {"digest": "sha256:2"}},
        });
        status_is(&mut api, CANARY_RELEASES, "web", over);
        assert_eq!(of(&api, "RolledBack"), [r#"web-1 is (true, "RolledBack"), and recorded []"#]);
        // A frozen one stays as it is: each says something else.
        let said = [("a", false, "RolledBack", 1), ("b", true, "Promoted", 1), ("c", true, "RolledBack", 0)];
        for (name, frozen, outcome, left) in said {
            let record = json!({"metadata": {"name": name}, "spec": {}});
            api.create(&operator, RELEASE_RECORDS, NAMESPACE, record).unwrap();
            let status = json!({"id": "web-1", "frozen": frozen, "outcome": outcome});
            status_is(&mut api, RELEASE_RECORDS, name, status);
            assert_eq!(of(&api, "RolledBack").len(), left, "{frozen} {outcome}");
        }
        // A change that nothing judged came after it.
        let later = json!({
            "outcome": "Ungated", "observedTemplate": "sha256:2",
            "history": ["2026-01-01T00:00:00Z Promoted web-1: v2 is live", "2026-01-01T00:01:00Z Ungated sha256:2: by jane"],
            "current": {"id": "web-1", "step": "Done", "candidate": {"digest": "sha256:2"}},
        });
        status_is(&mut api, CANARY_RELEASES, "web", later.clone());
        assert_eq!(of(&api, "Ungated"), [""; 0], "as the history says it");
        let mut other = later;
        other["history"][0] = json!("2026-01-01T00:00:00Z Superseded web-1 by sha256:3");
        status_is(&mut api, CANARY_RELEASES, "web", other);
        assert_eq!(of(&api, "Ungated").len(), 1);
    }
}
