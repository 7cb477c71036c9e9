//! The objects of every run, as their owners write them.

use serde_json::{Map, Value, json};

/// Deployment web.
pub fn target(version: &str) -> Value {
    json!({
        "metadata": {"name": "web", "labels": {"app": "web", "team": "shop"}, "annotations": {"shop.example/owner": "jane"}},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web", "team": "shop"}, "annotations": {"shop.example/tier": "front"}},
                "spec": {"containers": [{"name": "app", "image": image(version), "ports": [{"containerPort": 8080}]}]},
            },
        },
    })
}

/// A version's image.
pub fn image(version: &str) -> String {
    format!("web:{version}")
}

/// Service web.
pub fn service() -> Value {
    json!({
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

/// Route web, plain; one of its rules is another's.
pub fn route() -> Value {
    let backend = |name: &str| json!([{"name": name, "port": 80}]);
    let path = |path: &str| json!([{"path": {"type": "PathPrefix", "value": path}}]);
    json!({
        "metadata": {"name": "web", "annotations": {"shop.example/owner": "jane"}},
        "spec": {"parentRefs": [{"name": "gate"}], "hostnames": ["shop.example"], "rules": [
            {"matches": path("/api"), "timeouts": {"request": "3s"}, "backendRefs": backend("web")},
            {"matches": path("/"), "backendRefs": backend("web")},
            {"matches": path("/static"), "backendRefs": backend("assets")},
        ]},
    })
}

/// A CronJob that is never due, whose program ends so.
pub fn cron_job(name: &str, code: i32, after: u64) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"schedule": "0 0 31 2 *", "suspend": true, "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "check", "image": crate::cluster::jobs::program(code, after)}],
        }}}}},
    })
}

/// The autoscaler of web.
pub fn autoscaler(least: i64, most: i64) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": least, "maxReplicas": most,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
        },
    })
}

/// CanaryRelease web, with these fields laid over the usual ones.
pub fn release(over: &Map<String, Value>) -> Value {
    let mut spec = json!({
        "target": {"name": "web"},
        "traffic": {
            "service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "requests_total"},
        },
        "interval": "5s",
        "stages": [
            {"weight": "10%", "duration": "20s"}, {"weight": "50%", "duration": "20s"}, {"weight": "100%", "duration": "20s"},
        ],
        "gates": [
            {"name": "errors", "errorRate": {"bad": "bad_total", "total": "requests_total", "limit": "1%"}},
            {"name": "staleness", "value": {"query": "max(staleness{pod=~\"$pods\"})", "max": 30}},
        ],
        "baseline": {"duration": "10s"},
        "drain": "10s",
        "readyDeadline": "60s",
        "onRevert": "Restore",
    });
    for (field, value) in over {
        spec[field] = value.clone();
    }
    json!({"metadata": {"name": "web"}, "spec": spec})
}
