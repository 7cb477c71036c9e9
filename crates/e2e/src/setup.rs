//! The objects of one scenario: a demo shop with Deployment, Service and plain route, and the
//! CanaryRelease that takes its changes live. Plain JSON, so that a scenario changes what it needs.

use serde_json::{Value, json};

/// Where the gateway is, for `parentRefs` and for the client.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// Namespace of the Gateway.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `http://ADDRESS:PORT`, reachable by the load client.
    pub url: String,
}

/// The objects of one scenario, and the client's rate.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The target.
    pub deployment: Value,
    /// The stable Service.
    pub service: Value,
    /// The plain route.
    pub route: Value,
    /// The CanaryRelease.
    pub release: Value,
    /// Requests per second through the gateway.
    pub rate: f64,
}

/// The image of a version of the shop.
#[must_use]
pub fn image(version: &str) -> String {
    format!("docker.io/lab/shop:{version}")
}

impl Setup {
    /// Two pods of v1, three short stages, gates on errors and latency.
    #[must_use]
    pub fn new(namespace: &str, name: &str, entrance: &Entrance) -> Self {
        let labels = json!({"app": name});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {
                        "labels": labels,
                        "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/interval": "1s"},
                    },
                    "spec": {
                        "terminationGracePeriodSeconds": 20,
                        "containers": [{
                            "name": "shop", "image": image("v1"), "imagePullPolicy": "IfNotPresent",
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1},
                            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                        }],
                    },
                },
            },
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        });
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "parentRefs": [{"name": entrance.name, "namespace": entrance.namespace}],
                "hostnames": [host(namespace)],
                "rules": [{"backendRefs": [{"name": name, "port": 80}]}],
            },
        });
        let errors = json!({"name": "errors", "minRequests": 5,
            "errorRate": {"bad": "http_requests_total{code=~\"5..\"}", "total": "http_requests_total", "limit": "2%"}});
        let latency = json!({"name": "latency", "minRequests": 5,
            "latency": {"histogram": "http_request_duration_seconds", "quantile": "90%", "limit": "1s"}});
        let release = json!({
            "apiVersion": "canaryrelease.dev/v1alpha1", "kind": "CanaryRelease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "target": {"name": name},
                "traffic": {"service": name, "routes": [{"kind": "HTTPRoute", "name": name}], "requests": {"counter": "http_requests_total"}},
                "interval": "1s",
                "baseline": {"duration": "3s"},
                "drain": "2s",
                "readyDeadline": "60s",
                "stages": [
                    {"weight": "10%", "duration": "6s"},
                    {"weight": "50%", "duration": "6s"},
                    {"weight": "100%", "duration": "6s"},
                ],
                "gates": [errors, latency],
            },
        });
        Self { deployment, service, route, release, rate: 50.0 }
    }

    /// The name that everything has.
    #[must_use]
    pub fn name(&self) -> String {
        crate::cluster::text(&self.release, "/metadata/name").to_owned()
    }

    /// The namespace that everything is in.
    #[must_use]
    pub fn namespace(&self) -> String {
        crate::cluster::text(&self.release, "/metadata/namespace").to_owned()
    }

    /// Other stages: weight and duration of each.
    #[must_use]
    pub fn stages(mut self, stages: &[(&str, &str)]) -> Self {
        self.release["spec"]["stages"] =
            stages.iter().map(|(weight, duration)| json!({"weight": weight, "duration": duration})).collect();
        self
    }

    /// Another number of pods.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.deployment["spec"]["replicas"] = replicas.into();
        self
    }

    /// A field of the CanaryRelease's spec.
    #[must_use]
    pub fn spec(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.release["spec"][field] = value.into();
        self
    }

    /// Another rate of requests.
    #[must_use]
    pub fn rate(mut self, rate: f64) -> Self {
        self.rate = rate;
        self
    }

    /// The Deployment's manifest with another version's image.
    #[must_use]
    pub fn deployment_with(&self, version: &str) -> Value {
        let mut deployment = self.deployment.clone();
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image(version).into();
        deployment
    }
}

/// The host name of a namespace's route.
#[must_use]
pub fn host(namespace: &str) -> String {
    format!("{namespace}.lab")
}
