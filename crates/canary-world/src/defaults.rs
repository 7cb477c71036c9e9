//! What the API server adds to an object, drops from it and refuses in it, as far as the objects of the scenarios need
//! it. Our own kinds follow the schema that is installed; a route follows the defaults of Gateway API.

use std::sync::OnceLock;

use canary_core::object;
use serde_json::{Map, Value, json};

use crate::refusal::Refusal;
use crate::resources::Resource;

/// Adds the fields that a writer left out. `serial` numbers a new object.
pub fn apply(resource: &Resource, object: &mut Value, serial: u64) {
    match resource.kind {
        "CanaryRelease" => custom(schema(canary_release()), object),
        "ReleaseRecord" => custom(schema(release_record()), object),
        "Deployment" => deployment(&mut object["spec"]),
        "ReplicaSet" => {
            or(&mut object["spec"], "replicas", json!(1));
            template(&mut object["spec"]["template"]);
        }
        "Service" => service(&mut object["spec"], serial),
        "HTTPRoute" => route(&mut object["spec"]),
        "HorizontalPodAutoscaler" => autoscaler(&mut object["spec"]),
        _ => {}
    }
}

/// Whether a CanaryRelease's status is one that its schema lets in, and a Deployment's containers have images; no more
/// is looked at.
#[must_use]
pub fn conforms(resource: &Resource, object: &Value) -> bool {
    let image = |container: &Value| !canary_core::object::text(container, "/image").is_empty();
    if resource.kind == "Deployment" {
        return canary_core::object::items(object, "/spec/template/spec/containers").all(image);
    }
    resource.kind != "CanaryRelease"
        || object.get("status").is_none_or(|status| fits(&schema(canary_release())["properties"]["status"], status))
}

/// Types, enumerations, bounds and required fields; no formats but of a time.
fn fits(schema: &Value, value: &Value) -> bool {
    if value.is_null() {
        return schema["nullable"] == true;
    }
    let kind = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    let listed = schema["enum"].as_array().is_none_or(|list| list.contains(value));
    let bounded = schema["minimum"].as_f64().is_none_or(|least| value.as_f64().is_none_or(|value| value >= least));
    let timed =
        schema["format"] != "date-time" || value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok());
    let complete = schema["required"]
        .as_array()
        .is_none_or(|list| list.iter().all(|field| value.get(field.as_str().unwrap_or_default()).is_some()));
    let below = value.as_object().is_none_or(|fields| {
        fields.iter().all(|(field, value)| schema["properties"].get(field).is_none_or(|schema| fits(schema, value)))
    });
    let items = value.as_array().is_none_or(|items| items.iter().all(|item| fits(&schema["items"], item)));
    kind && listed && bounded && timed && complete && below && items
}

/// Drops what the server does not keep: empty maps and lists of the metadata, and `false` where that is the same as
/// nothing.
pub fn prune(resource: &Resource, object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, value| {
            let listed = matches!(field.as_str(), "labels" | "annotations" | "finalizers" | "ownerReferences");
            !(value.is_null() || listed && is_empty(value))
        });
    }
    if resource.kind == "Deployment" {
        drop_if(&mut object["spec"], "paused", &json!(false));
        drop_if(&mut object["spec"], "minReadySeconds", &json!(0));
    }
    if matches!(resource.kind, "Deployment" | "ReplicaSet") {
        let metadata = object.pointer_mut("/spec/template/metadata").and_then(Value::as_object_mut);
        if let Some(metadata) = metadata {
            metadata.retain(|_, value| !value.is_null() && !is_empty(value));
        }
    }
}

/// Refuses what breaks a rule.
///
/// # Errors
/// 422.
pub fn check(resource: &Resource, was: Option<&Value>, object: &Value) -> Result<(), Refusal> {
    let name = object::name(object);
    let deleting = was.is_some_and(object::deleting);
    if deleting {
        let had: Vec<&Value> = was.into_iter().flat_map(|was| object::items(was, "/metadata/finalizers")).collect();
        let new: Vec<&Value> = object::items(object, "/metadata/finalizers").filter(|one| !had.contains(one)).collect();
        if !new.is_empty() {
            let listed: Vec<String> = new.iter().map(|one| one.to_string()).collect();
            let why = format!(
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                listed.join(", ")
            );
            return Err(Refusal::invalid(resource, name, &why));
        }
    }
    if let Some(was) = was
        && matches!(resource.kind, "Deployment" | "ReplicaSet")
        && was.pointer("/spec/selector") != object.pointer("/spec/selector")
    {
        return Err(Refusal::invalid(resource, name, "spec.selector: Invalid value: field is immutable"));
    }
    if matches!(resource.kind, "Deployment" | "ReplicaSet") {
        let selector = object.pointer("/spec/selector").unwrap_or(&Value::Null);
        if !object::selects(selector, &object::strings(object, "/spec/template/metadata/labels")) {
            let why = "spec.template.metadata.labels: Invalid value: `selector` does not match template `labels`";
            return Err(Refusal::invalid(resource, name, why));
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn drop_if(of: &mut Value, field: &str, value: &Value) {
    if of.get(field) == Some(value)
        && let Some(fields) = of.as_object_mut()
    {
        fields.remove(field);
    }
}

fn or(of: &mut Value, field: &str, value: Value) {
    if of.is_object() && of.get(field).is_none_or(Value::is_null) {
        of[field] = value;
    }
}

fn deployment(spec: &mut Value) {
    or(spec, "replicas", json!(1));
    or(spec, "progressDeadlineSeconds", json!(600));
    or(spec, "revisionHistoryLimit", json!(10));
    or(spec, "strategy", json!({}));
    or(&mut spec["strategy"], "type", json!("RollingUpdate"));
    if spec["strategy"]["type"] == "RollingUpdate" {
        or(&mut spec["strategy"], "rollingUpdate", json!({}));
        or(&mut spec["strategy"]["rollingUpdate"], "maxSurge", json!("25%"));
        or(&mut spec["strategy"]["rollingUpdate"], "maxUnavailable", json!("25%"));
    }
    template(&mut spec["template"]);
}

fn template(template: &mut Value) {
    or(template, "metadata", json!({}));
    let spec = &mut template["spec"];
    for (field, value) in [
        ("dnsPolicy", json!("ClusterFirst")),
        ("restartPolicy", json!("Always")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("terminationGracePeriodSeconds", json!(30)),
    ] {
        or(spec, field, value);
    }
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        let tag = object::text(container, "/image").rsplit('/').next().unwrap_or_default().to_owned();
        let pull = if tag.ends_with(":latest") || !tag.contains(':') { "Always" } else { "IfNotPresent" };
        for (field, value) in [
            ("imagePullPolicy", json!(pull)),
            ("resources", json!({})),
            ("terminationMessagePath", json!("/dev/termination-log")),
            ("terminationMessagePolicy", json!("File")),
        ] {
            or(container, field, value);
        }
        for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            or(port, "protocol", json!("TCP"));
        }
    }
}

fn service(spec: &mut Value, serial: u64) {
    or(spec, "type", json!("ClusterIP"));
    or(spec, "sessionAffinity", json!("None"));
    or(spec, "internalTrafficPolicy", json!("Cluster"));
    or(spec, "ipFamilies", json!(["IPv4"]));
    or(spec, "ipFamilyPolicy", json!("SingleStack"));
    let address = format!("10.96.0.{}", serial % 250 + 2);
    or(spec, "clusterIP", json!(address));
    let address = spec["clusterIP"].clone();
    or(spec, "clusterIPs", json!([address]));
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        or(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        or(port, "targetPort", number);
    }
}

fn route(spec: &mut Value) {
    for parent in spec.get_mut("parentRefs").and_then(Value::as_array_mut).into_iter().flatten() {
        or(parent, "group", json!("gateway.networking.k8s.io"));
        or(parent, "kind", json!("Gateway"));
    }
    for rule in spec.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
        or(rule, "matches", json!([{"path": {"type": "PathPrefix", "value": "/"}}]));
        for entry in rule["matches"].as_array_mut().into_iter().flatten() {
            or(entry, "path", json!({"type": "PathPrefix", "value": "/"}));
            or(&mut entry["path"], "type", json!("PathPrefix"));
            or(&mut entry["path"], "value", json!("/"));
        }
        for backend in rule.get_mut("backendRefs").and_then(Value::as_array_mut).into_iter().flatten() {
            or(backend, "group", json!(""));
            or(backend, "kind", json!("Service"));
            or(backend, "weight", json!(1));
        }
    }
}

fn autoscaler(spec: &mut Value) {
    or(spec, "minReplicas", json!(1));
    if spec.get("behavior").is_none_or(Value::is_null) {
        return;
    }
    or(&mut spec["behavior"], "scaleUp", json!({}));
    or(&mut spec["behavior"], "scaleDown", json!({}));
    let policies = json!([
        {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}
    ]);
    let up = &mut spec["behavior"]["scaleUp"];
    or(up, "stabilizationWindowSeconds", json!(0));
    or(up, "selectPolicy", json!("Max"));
    or(up, "policies", policies);
    let down = &mut spec["behavior"]["scaleDown"];
    or(down, "selectPolicy", json!("Max"));
    or(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
}

fn canary_release() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| serde_json::to_value(canary_api::crd()).unwrap())
}

fn release_record() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| serde_json::to_value(canary_api::record_crd()).unwrap())
}

fn schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

fn custom(schema: &Value, object: &mut Value) {
    for part in ["spec", "status"] {
        if let Some(value) = object.get_mut(part) {
            by_schema(&schema["properties"][part], value);
        }
    }
}

/// Defaults of a structural schema, and pruning of what it does not name.
fn by_schema(schema: &Value, value: &mut Value) {
    if let (Some(properties), Some(fields)) = (schema["properties"].as_object(), value.as_object_mut()) {
        if schema["x-kubernetes-preserve-unknown-fields"] != true {
            fields.retain(|field, _| properties.contains_key(field));
        }
        for (field, of) in properties {
            if let Some(default) = of.get("default")
                && fields.get(field).is_none_or(|value| value.is_null() && of["nullable"] != true)
            {
                fields.insert(field.clone(), default.clone());
            }
            if let Some(value) = fields.get_mut(field) {
                by_schema(of, value);
            }
        }
    }
    if let (Some(of), Some(fields)) = (schema.get("additionalProperties"), value.as_object_mut()) {
        for value in fields.values_mut() {
            by_schema(of, value);
        }
    }
    if let (Some(of), Some(items)) = (schema.get("items"), value.as_array_mut()) {
        for value in items {
            by_schema(of, value);
        }
    }
}
