//! Our own objects, the canary's and those of the baseline pods beside it: which labels keep their pods apart from the
//! target's and from each other's, and what Deployment, Service and PodDisruptionBudget are. They carry no owner
//! reference: a foreground deletion of the CanaryRelease would kill pods that still have traffic.

use std::collections::BTreeMap;

use canary_api::names::{self, ANNOTATION_OVERLAY, ANNOTATION_UID, LABEL_OWNED_BY, label_value};
use serde_json::{Map, Value, json};

use crate::{object, template};

/// Labels tried first when none is given, most telling first.
const PREFERRED: [&str; 6] =
    ["role", "track", "app.kubernetes.io/component", "app.kubernetes.io/instance", "app.kubernetes.io/name", "app"];

/// Label keys and annotation prefixes by which tools track what they applied.
const TRACKING: [&str; 8] = [
    "kubectl.kubernetes.io/",
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "helm.sh/",
    "deployment.kubernetes.io/",
    "canaryrelease.dev/",
];

/// Who the canary is made for.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// Name of the CanaryRelease.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
}

/// Whose objects: each side has a Deployment and a Service of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The candidate's pods.
    Canary,
    /// Pods of the serving version beside them.
    Baseline,
}

impl Side {
    /// The name of this side's object beside the user's.
    #[must_use]
    pub fn name_of(self, base: &str) -> String {
        match self {
            Self::Canary => names::canary(base),
            Self::Baseline => names::baseline(base),
        }
    }
}

/// The labels laid over the candidate's template.
///
/// # Errors
/// Says why no label keeps the canary's pods apart.
pub fn overlay(
    target: &Value,
    service: &Value,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    let pods = object::strings(target, "/spec/template/metadata/labels");
    let service_selector = object::strings(service, "/spec/selector");
    if service_selector.is_empty() {
        return Err(format!(
            "Service {} has no selector, so nothing tells the canary's pods apart",
            object::name(service)
        ));
    }
    let overlay =
        if given.is_empty() { vec![chosen(target, &service_selector)?].into_iter().collect() } else { given.clone() };
    let mut canary = pods;
    canary.extend(overlay.clone());
    if object::selects(target.pointer("/spec/selector").unwrap_or(&Value::Null), &canary) {
        return Err(format!(
            "with {} the canary's pods would still match the selector of Deployment {}: choose other spec.canary.labels",
            show(&overlay),
            object::name(target)
        ));
    }
    if service_selector.iter().all(|(key, value)| canary.get(key) == Some(value)) {
        return Err(format!(
            "with {} the canary's pods would still match the selector of Service {}: choose other spec.canary.labels",
            show(&overlay),
            object::name(service)
        ));
    }
    Ok(overlay)
}

fn chosen(target: &Value, service: &BTreeMap<String, String>) -> Result<(String, String), String> {
    let selector = object::strings(target, "/spec/selector/matchLabels");
    let shared: Vec<_> = selector.iter().filter(|(key, value)| service.get(*key) == Some(*value)).collect();
    let preferred = PREFERRED.iter().find_map(|wanted| shared.iter().find(|(key, _)| key == wanted));
    let (key, value) = preferred.or_else(|| shared.first()).ok_or_else(|| {
        format!("Deployment {} and its Service select their pods by no common label: give spec.canary.labels that keep the canary's pods apart from both", object::name(target))
    })?;
    Ok(((*key).clone(), names::canary(value)))
}

/// Whether a Service selects the pods of a Deployment's template.
#[must_use]
pub fn selects(service: &Value, target: &Value) -> bool {
    let labels = object::strings(target, "/spec/template/metadata/labels");
    let selector = object::strings(service, "/spec/selector");
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The labels laid over the serving version's template for baseline pods, from the canary's: the same keys with values
/// that neither the target, nor the stable Service, nor the canary has.
///
/// # Errors
/// Says whose selector would select them all the same.
pub fn beside(
    target: &Value,
    service: &Value,
    canary: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    let value = |value: &String| match value.strip_suffix("canary") {
        Some("") => "baseline".to_owned(),
        Some(base) if base.ends_with('-') => names::baseline(base.trim_end_matches('-')),
        _ => names::baseline(value),
    };
    let overlay: BTreeMap<String, String> = canary.iter().map(|(key, own)| (key.clone(), value(own))).collect();
    let mut pods = object::strings(target, "/spec/template/metadata/labels");
    pods.extend(overlay.clone());
    let selected_by =
        |selector: &BTreeMap<String, String>| selector.iter().all(|(key, own)| pods.get(key) == Some(own));
    let by = if object::selects(target.pointer("/spec/selector").unwrap_or(&Value::Null), &pods) {
        format!("Deployment {}", object::name(target))
    } else if selected_by(&object::strings(service, "/spec/selector")) {
        format!("Service {}", object::name(service))
    } else if selected_by(canary) {
        "the canary".to_owned()
    } else {
        return Ok(overlay);
    };
    Err(format!(
        "with {} the baseline pods would match the selector of {by}: choose other spec.canary.labels, which theirs are made of",
        show(&overlay)
    ))
}

/// `key=value, key=value`.
#[must_use]
pub fn show(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

/// A version's template as canary or baseline pods run it: the overlay's labels, no tracking metadata.
#[must_use]
pub fn template(candidate: &Value, overlay: &BTreeMap<String, String>) -> Value {
    let mut template = template::version_of(candidate);
    if !template.is_object() {
        return template;
    }
    let metadata = template.as_object_mut().map(|fields| fields.entry("metadata").or_insert_with(|| json!({})));
    let Some(metadata) = metadata.and_then(Value::as_object_mut) else { return template };
    for field in ["labels", "annotations"] {
        strip(metadata, field);
    }
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.extend(overlay.iter().map(|(key, value)| (key.clone(), json!(value))));
    }
    template
}

fn strip(metadata: &mut Map<String, Value>, field: &str) {
    let Some(entries) = metadata.get_mut(field).and_then(Value::as_object_mut) else { return };
    entries.retain(|key, _| !TRACKING.iter().any(|prefix| key.starts_with(prefix)));
    if entries.is_empty() {
        metadata.remove(field);
    }
}

fn metadata(owner: Owner<'_>, of: &Value, name: &str, overlay: &BTreeMap<String, String>) -> Value {
    let mut labels = object::strings(of, "/metadata/labels");
    // Trackers by label would take the copy for their own and prune it.
    labels
        .retain(|key, _| key != "app.kubernetes.io/instance" && !TRACKING.iter().any(|prefix| key.starts_with(prefix)));
    labels.extend(overlay.clone());
    labels.insert(LABEL_OWNED_BY.to_owned(), label_value(owner.name));
    json!({
        "name": name,
        "namespace": object::text(of, "/metadata/namespace"),
        "labels": labels,
        "annotations": {ANNOTATION_UID: owner.uid},
    })
}

/// The canary Deployment with so many pods.
#[must_use]
pub fn deployment(owner: Owner<'_>, target: &Value, overlay: &BTreeMap<String, String>, replicas: i32) -> Value {
    let candidate = target.pointer("/spec/template").unwrap_or(&Value::Null);
    deployment_of(Side::Canary, owner, target, candidate, overlay, replicas)
}

/// A side's Deployment beside the target, with so many pods of this version's template.
#[must_use]
pub fn deployment_of(
    side: Side,
    owner: Owner<'_>,
    target: &Value,
    version: &Value,
    overlay: &BTreeMap<String, String>,
    replicas: i32,
) -> Value {
    let template = template(version, overlay);
    let mut selector = object::strings(target, "/spec/selector/matchLabels");
    selector.extend(overlay.clone());
    let mut metadata = metadata(owner, target, &side.name_of(object::name(target)), overlay);
    if let Some(annotations) = metadata.pointer_mut("/annotations").and_then(Value::as_object_mut) {
        annotations.insert(ANNOTATION_OVERLAY.to_owned(), json!(json!(overlay).to_string()));
    }
    let mut spec = json!({
        "replicas": replicas,
        "revisionHistoryLimit": 10,
        "selector": {"matchLabels": selector},
        "template": template,
    });
    for field in ["minReadySeconds", "progressDeadlineSeconds"] {
        if let (Some(value), Some(fields)) = (target.pointer(&format!("/spec/{field}")), spec.as_object_mut()) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
}

/// The canary Service: the stable one's ports and behaviour, its selector with the overlay.
#[must_use]
pub fn service(owner: Owner<'_>, stable: &Value, overlay: &BTreeMap<String, String>) -> Value {
    service_of(Side::Canary, owner, stable, overlay)
}

/// As [`service`], of a side.
#[must_use]
pub fn service_of(side: Side, owner: Owner<'_>, stable: &Value, overlay: &BTreeMap<String, String>) -> Value {
    let mut selector = object::strings(stable, "/spec/selector");
    selector.extend(overlay.clone());
    let ports: Vec<Value> = object::items(stable, "/spec/ports")
        .map(|port| {
            let mut port = port.clone();
            if let Some(fields) = port.as_object_mut() {
                fields.remove("nodePort");
            }
            port
        })
        .collect();
    let mut spec = json!({"selector": selector, "ports": ports, "type": "ClusterIP"});
    for field in [
        "sessionAffinity",
        "sessionAffinityConfig",
        "publishNotReadyAddresses",
        "ipFamilyPolicy",
        "ipFamilies",
        "internalTrafficPolicy",
        "trafficDistribution",
    ] {
        if let (Some(value), Some(fields)) = (stable.pointer(&format!("/spec/{field}")), spec.as_object_mut()) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    if object::text(stable, "/spec/clusterIP") == "None"
        && let Some(fields) = spec.as_object_mut()
    {
        fields.insert("clusterIP".to_owned(), json!("None"));
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(owner, stable, &side.name_of(object::name(stable)), overlay), "spec": spec})
}

/// The canary's PodDisruptionBudget, like the one that guards the target's pods, if one does.
#[must_use]
pub fn budget(
    owner: Owner<'_>,
    budgets: &[Value],
    target: &Value,
    overlay: &BTreeMap<String, String>,
) -> Option<Value> {
    let pods = object::strings(target, "/spec/template/metadata/labels");
    let like = budgets.iter().find(|budget| {
        object::label(budget, LABEL_OWNED_BY).is_none()
            && object::selects(budget.pointer("/spec/selector").unwrap_or(&Value::Null), &pods)
    })?;
    let mut selector = object::strings(target, "/spec/selector/matchLabels");
    selector.extend(overlay.clone());
    let mut spec = json!({"selector": {"matchLabels": selector}});
    for field in ["minAvailable", "maxUnavailable", "unhealthyPodEvictionPolicy"] {
        if let (Some(value), Some(fields)) = (like.pointer(&format!("/spec/{field}")), spec.as_object_mut()) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    Some(json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(owner, target, &names::canary(object::name(target)), overlay),
        "spec": spec,
    }))
}

/// NetworkPolicies that select the target's pods, or name them as peer, and not the canary's.
#[must_use]
pub fn not_selected(policies: &[Value], target: &Value, overlay: &BTreeMap<String, String>) -> Vec<String> {
    let stable = object::strings(target, "/spec/template/metadata/labels");
    let mut canary = stable.clone();
    canary.extend(overlay.clone());
    let misses = |selector: &Value| object::selects(selector, &stable) && !object::selects(selector, &canary);
    let concerned = |policy: &&Value| {
        let peers = ["/spec/ingress", "/spec/egress"].into_iter().flat_map(|list| object::items(policy, list));
        let selectors = peers.flat_map(|rule| object::items(rule, "/from").chain(object::items(rule, "/to")));
        let own =
            |peer: &Value| peer.get("namespaceSelector").is_none() && peer.get("podSelector").is_some_and(&misses);
        policy.pointer("/spec/podSelector").is_some_and(&misses) || selectors.into_iter().any(own)
    };
    policies.iter().filter(concerned).map(|policy| format!("NetworkPolicy {}", object::name(policy))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web", "argocd.argoproj.io/instance": "x", "app.kubernetes.io/instance": "shop"}},
            "spec": {"minReadySeconds": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web", "team": "a"}, "annotations": {"kubectl.kubernetes.io/restartedAt": "t", "prometheus.io/scrape": "true"}},
                "spec": {"containers": [{"name": "app", "image": "web:2"}]}}},
        })
    }

    fn stable_service() -> Value {
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30001}]}})
    }

    #[test]
    fn canary_pods_match_neither_selector() {
        let overlay = overlay(&target(), &stable_service(), &BTreeMap::new()).unwrap();
        assert_eq!(show(&overlay), "app=web-canary");
        let owner = Owner { name: "web", uid: "u" };
        let canary = deployment(owner, &target(), &overlay, 2);
        assert_eq!(canary["metadata"]["name"], "web-canary");
        assert_eq!(canary["spec"]["template"]["metadata"]["labels"], json!({"app": "web-canary", "team": "a"}));
        assert_eq!(canary["spec"]["template"]["metadata"]["annotations"], json!({"prometheus.io/scrape": "true"}));
        assert_eq!(canary["spec"]["selector"]["matchLabels"], json!({"app": "web-canary"}));
        assert_eq!(canary["spec"]["minReadySeconds"], 3);
        assert!(canary["metadata"].get("ownerReferences").is_none());
        assert_eq!(canary["metadata"]["labels"], json!({"app": "web-canary", "canaryrelease.dev/owned-by": "web"}));
        let service = service(owner, &stable_service(), &overlay);
        assert_eq!(service["spec"]["selector"], json!({"app": "web-canary"}));
        assert_eq!(service["spec"]["ports"], json!([{"name": "http", "port": 80, "targetPort": 8080}]));
        assert!(service["spec"].get("clusterIP").is_none());
    }

    #[test]
    fn baseline_pods_match_no_selector_but_their_own() {
        let canary = overlay(&target(), &stable_service(), &BTreeMap::new()).unwrap();
        let own = beside(&target(), &stable_service(), &canary).unwrap();
        assert_eq!(show(&own), "app=web-baseline");
        let owner = Owner { name: "web", uid: "u" };
        let mut serving = target()["spec"]["template"].clone();
        serving["spec"]["containers"][0]["image"] = json!("web:1");
        let made = deployment_of(Side::Baseline, owner, &target(), &serving, &own, 2);
        assert_eq!(made["metadata"]["name"], "web-baseline");
        assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["image"], "web:1");
        assert_eq!(made["spec"]["template"]["metadata"]["labels"], json!({"app": "web-baseline", "team": "a"}));
        assert_eq!(made["spec"]["selector"]["matchLabels"], json!({"app": "web-baseline"}));
        let service = service_of(Side::Baseline, owner, &stable_service(), &own);
        assert_eq!(service["metadata"]["name"], "web-baseline");
        assert_eq!(service["spec"]["selector"], json!({"app": "web-baseline"}));
    }

    #[test]
    fn baseline_labels_are_made_of_the_canarys_and_never_equal_others() {
        let made = |given: &[(&str, &str)]| {
            let given = given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            beside(&target(), &stable_service(), &given)
        };
        assert_eq!(show(&made(&[("app", "canary"), ("track", "new")]).unwrap()), "app=baseline, track=new-baseline");
        let mut odd = target();
        odd["spec"]["selector"]["matchLabels"]["app"] = json!("x-baseline");
        odd["spec"]["template"]["metadata"]["labels"]["app"] = json!("x-baseline");
        let given = [("app".to_owned(), "x".to_owned())].into();
        assert!(beside(&odd, &stable_service(), &given).unwrap_err().contains("Deployment web"));
    }

    #[test]
    fn labels_that_do_not_keep_apart_are_refused() {
        let given = [("team".to_owned(), "b".to_owned())].into();
        let error = overlay(&target(), &stable_service(), &given).unwrap_err();
        assert!(error.contains("Deployment web") && error.contains("spec.canary.labels"), "{error}");
        let mut service = stable_service();
        service["spec"]["selector"] = json!({"other": "x"});
        assert!(overlay(&target(), &service, &BTreeMap::new()).unwrap_err().contains("no common label"));
        service["spec"]["selector"] = json!({});
        assert!(overlay(&target(), &service, &BTreeMap::new()).unwrap_err().contains("no selector"));
    }

    #[test]
    fn a_network_policy_that_misses_the_canary_is_named() {
        let overlay = [("app".to_owned(), "web-canary".to_owned())].into();
        let policies = [
            json!({"metadata": {"name": "all"}, "spec": {"podSelector": {}}}),
            json!({"metadata": {"name": "web-only"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}}}}),
            json!({"metadata": {"name": "db"}, "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}}),
        ];
        assert_eq!(not_selected(&policies, &target(), &overlay), ["NetworkPolicy web-only", "NetworkPolicy db"]);
    }

    #[test]
    fn a_budget_like_the_targets_guards_the_canary() {
        let overlay = [("app".to_owned(), "web-canary".to_owned())].into();
        let budgets = [
            json!({"metadata": {"name": "web"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
        ];
        let made = budget(Owner { name: "web", uid: "u" }, &budgets, &target(), &overlay).unwrap();
        assert_eq!(made["spec"], json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web-canary"}}}));
        assert_eq!(budget(Owner { name: "web", uid: "u" }, &[], &target(), &overlay), None);
    }
}
