//! Every address, flag and file that the lab's components are started with. It decides how they fit
//! together; it starts nothing.

use crate::{Gateway, LabOptions};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The API server, inside the lab's network.
pub const API_SERVER: &str = "https://10.244.0.1:6443";
/// Prometheus, inside the lab's network.
pub const PROMETHEUS: &str = "http://10.244.0.1:9090";
/// Where the lab's first gateway answers HTTP, inside the lab's network.
pub const GATEWAY: &str = "10.244.0.1:80";
/// Namespace and name of the first gateway's Gateway object, for a route's `parentRefs`.
pub const MAIN_GATEWAY: (&str, &str) = ("gateway", "lab");

/// Name of the only node.
pub(crate) const NODE: &str = "lab";
/// The bridge that pods are attached to, and its address, which is the node's.
pub(crate) const BRIDGE: &str = "lab0";
pub(crate) const NODE_ADDRESS: &str = "10.244.0.1";
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
pub(crate) const PAUSE_IMAGE: &str = "docker.io/lab/pause:1";
/// In memory, seen by the lab alone, gone with it.
pub(crate) const SCRATCH: &str = "/run/lab";
/// Where the node keeps the logs of pods, a folder each: `NAMESPACE_POD_UID/CONTAINER/`.
pub const POD_LOGS: &str = "/run/lab/pod-logs";
/// Further gateways have addresses of their own below the pods': 10.244.0.2 to 10.244.0.31.
pub(crate) const GATEWAY_ADDRESSES: std::ops::RangeInclusive<u8> = 2..=31;
const CONTROLLER: &str = "traefik.io/gateway-controller";

/// A program that the supervisor keeps running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Component {
    pub(crate) name: String,
    /// A file of the lab's `bin`.
    pub(crate) program: &'static str,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(&'static str, String)>,
    pub(crate) ready: Ready,
}

/// What shows that a component does its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ready {
    /// An address answers 200 on a path, without TLS.
    Http(String, &'static str),
    /// An address accepts connections.
    Accepts(String),
    /// A unix socket accepts connections.
    Socket(&'static str),
    /// The API server answers an administrator on a path.
    Api(&'static str),
}

fn component(name: &str, ready: Ready, args: Vec<String>) -> Component {
    let program = PROGRAMS.iter().find(|program| **program == name).copied().unwrap_or("traefik");
    Component { name: name.into(), program, args, env: Vec::new(), ready }
}

const PROGRAMS: [&str; 10] = [
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "prometheus",
    "metrics-server",
    "traefik",
];

/// Where the kernel's switch stands that shows bridged packets to iptables.
pub(crate) const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// The lab's directory, and names of the files in it.
pub(crate) struct Layout<'a> {
    dir: &'a Path,
    options: &'a LabOptions,
}

impl<'a> Layout<'a> {
    pub(crate) fn new(dir: &'a Path, options: &'a LabOptions) -> Layout<'a> {
        Layout { dir, options }
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn flag(&self, flag: &str, file: &str) -> String {
        format!("--{flag}={}", self.file(file))
    }

    /// All components but the gateways, in the order of starting.
    pub(crate) fn components(&self) -> Vec<Component> {
        let mut all = vec![
            self.etcd(),
            self.containerd(),
            self.api_server(),
            self.controller_manager(),
            self.scheduler(),
            self.kubelet(),
            self.kube_proxy(),
            self.prometheus(),
        ];
        if self.options.metrics_server {
            all.push(self.metrics_server());
        }
        all
    }

    fn etcd(&self) -> Component {
        let args = [
            "--name=lab",
            "--data-dir=/run/lab/etcd",
            "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=lab=http://127.0.0.1:2380",
            "--log-level=warn",
        ];
        component("etcd", Ready::Http("127.0.0.1:2379".into(), "/health"), args.map(String::from).to_vec())
    }

    fn containerd(&self) -> Component {
        component("containerd", Ready::Socket(CONTAINERD_SOCKET), vec![self.flag("config", "config/containerd.toml")])
    }

    fn api_server(&self) -> Component {
        let mut args = vec![
            self.flag("tls-cert-file", "pki/apiserver.crt"),
            self.flag("tls-private-key-file", "pki/apiserver.key"),
            self.flag("client-ca-file", "pki/ca.crt"),
            self.flag("service-account-key-file", "pki/service-accounts.pub"),
            self.flag("service-account-signing-key-file", "pki/service-accounts.key"),
            self.flag("kubelet-certificate-authority", "pki/ca.crt"),
            self.flag("kubelet-client-certificate", "pki/apiserver-kubelet.crt"),
            self.flag("kubelet-client-key", "pki/apiserver-kubelet.key"),
            self.flag("requestheader-client-ca-file", "pki/front-proxy-ca.crt"),
            self.flag("proxy-client-cert-file", "pki/front-proxy.crt"),
            self.flag("proxy-client-key-file", "pki/front-proxy.key"),
            self.flag("audit-policy-file", "config/audit-policy.json"),
            self.flag("audit-log-path", "audit.log"),
        ];
        args.extend(
            [
                "--etcd-servers=http://127.0.0.1:2379",
                "--bind-address=10.244.0.1",
                "--advertise-address=10.244.0.1",
                "--secure-port=6443",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--endpoint-reconciler-type=lease",
                // Else `kubectl logs` looks for the node's name in DNS.
                "--kubelet-preferred-address-types=InternalIP",
                "--requestheader-allowed-names=front-proxy",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                "--enable-aggregator-routing=true",
                "--allow-privileged=true",
                "--profiling=false",
                "--v=1",
            ]
            .map(String::from),
        );
        component("kube-apiserver", Ready::Api("/readyz"), args)
    }

    fn controller_manager(&self) -> Component {
        let mut args = vec![
            self.flag("kubeconfig", "kube-controller-manager.kubeconfig"),
            self.flag("authentication-kubeconfig", "kube-controller-manager.kubeconfig"),
            self.flag("authorization-kubeconfig", "kube-controller-manager.kubeconfig"),
            self.flag("service-account-private-key-file", "pki/service-accounts.key"),
            self.flag("root-ca-file", "pki/ca.crt"),
        ];
        args.extend(
            [
                "--bind-address=127.0.0.1",
                // Each controller under its own name: policies and the audit log tell them apart.
                "--use-service-account-credentials=true",
                "--leader-elect=false",
                "--flex-volume-plugin-dir=/run/lab/volume-plugins",
                "--horizontal-pod-autoscaler-sync-period=5s",
                "--horizontal-pod-autoscaler-cpu-initialization-period=20s",
                "--horizontal-pod-autoscaler-initial-readiness-delay=10s",
                "--v=1",
            ]
            .map(String::from),
        );
        component("kube-controller-manager", Ready::Accepts("127.0.0.1:10257".into()), args)
    }

    fn scheduler(&self) -> Component {
        let mut args = vec![
            self.flag("kubeconfig", "kube-scheduler.kubeconfig"),
            self.flag("authentication-kubeconfig", "kube-scheduler.kubeconfig"),
            self.flag("authorization-kubeconfig", "kube-scheduler.kubeconfig"),
        ];
        args.extend(["--bind-address=127.0.0.1", "--leader-elect=false", "--v=1"].map(String::from));
        component("kube-scheduler", Ready::Accepts("127.0.0.1:10259".into()), args)
    }

    fn kubelet(&self) -> Component {
        let args = vec![
            self.flag("config", "config/kubelet.json"),
            self.flag("kubeconfig", "kubelet.kubeconfig"),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={NODE_ADDRESS}"),
            format!("--root-dir={SCRATCH}/kubelet"),
            format!("--cert-dir={SCRATCH}/kubelet-pki"),
            "--v=1".into(),
        ];
        component("kubelet", Ready::Http("127.0.0.1:10248".into(), "/healthz"), args)
    }

    fn kube_proxy(&self) -> Component {
        let args = vec![self.flag("config", "config/kube-proxy.json"), "--v=1".into()];
        component("kube-proxy", Ready::Http("127.0.0.1:10256".into(), "/healthz"), args)
    }

    fn prometheus(&self) -> Component {
        let args = vec![
            self.flag("config.file", "config/prometheus.json"),
            "--web.listen-address=10.244.0.1:9090".into(),
            format!("--storage.tsdb.path={SCRATCH}/prometheus"),
            "--storage.tsdb.retention.time=6h".into(),
            "--log.level=warn".into(),
            // How long a new pod stays unknown: five seconds by default, too long where scrapes are quick.
            format!("--scrape.discovery-reload-interval={}ms", self.scrape_milliseconds().min(5000)),
        ];
        component("prometheus", Ready::Http("10.244.0.1:9090".into(), "/-/ready"), args)
    }

    fn metrics_server(&self) -> Component {
        let mut args = vec![
            self.flag("kubeconfig", "metrics-server.kubeconfig"),
            self.flag("authentication-kubeconfig", "metrics-server.kubeconfig"),
            self.flag("authorization-kubeconfig", "metrics-server.kubeconfig"),
            self.flag("tls-cert-file", "pki/metrics-server.crt"),
            self.flag("tls-private-key-file", "pki/metrics-server.key"),
            self.flag("kubelet-certificate-authority", "pki/ca.crt"),
        ];
        args.extend(
            [
                "--bind-address=10.244.0.1",
                "--secure-port=4443",
                "--kubelet-preferred-address-types=InternalIP",
                "--kubelet-request-timeout=5s",
                "--metric-resolution=10s",
            ]
            .map(String::from),
        );
        component("metrics-server", Ready::Accepts("10.244.0.1:4443".into()), args)
    }

    /// A gateway's data plane. One that is given namespaces watches only those, so that what happens
    /// elsewhere never makes it wait in its throttle.
    pub(crate) fn traefik(&self, gateway: &Gateway, namespaces: &[String]) -> Component {
        let address = ip(gateway);
        let mut args = vec![
            format!("--entrypoints.web.address={address}:80"),
            format!("--entrypoints.metrics.address={address}:8082"),
            format!("--providers.kubernetesgateway.statusaddress.ip={address}"),
            format!("--providers.kubernetesgateway.labelselector=canaryrelease.dev/lab-gateway={}", gateway.component),
            "--ping=true".into(),
            "--ping.entrypoint=metrics".into(),
            "--metrics.prometheus=true".into(),
            "--metrics.prometheus.entrypoint=metrics".into(),
            "--metrics.prometheus.addserviceslabels=true".into(),
            "--global.checknewversion=false".into(),
            "--global.sendanonymoususage=false".into(),
            "--log.level=INFO".into(),
        ];
        if !namespaces.is_empty() {
            args.push(format!("--providers.kubernetesgateway.namespaces={}", namespaces.join(",")));
        }
        let mut component = component(&gateway.component, Ready::Http(format!("{address}:8082"), "/ping"), args);
        component.env.push(("KUBECONFIG", self.file("traefik.kubeconfig")));
        component
    }

    /// The files of the lab's `config`, by name.
    pub(crate) fn files(&self) -> Vec<(PathBuf, String)> {
        let json = |value: Value| format!("{value:#}\n");
        vec![
            ("config/containerd.toml".into(), self.containerd_toml()),
            ("config/cni/10-lab.conflist".into(), json(cni())),
            ("config/kubelet.json".into(), json(self.kubelet_config())),
            ("config/kube-proxy.json".into(), json(self.kube_proxy_config())),
            ("config/audit-policy.json".into(), json(audit_policy())),
            ("config/prometheus.json".into(), self.prometheus_config(&[main_gateway()])),
            // Names resolve nowhere in the lab: an empty file fails at once where the machine's would time out.
            ("config/resolv.conf".into(), String::new()),
        ]
    }

    fn containerd_toml(&self) -> String {
        let (bin, cni) = (self.file("bin"), self.file("config/cni"));
        format!(
            r#"version = 3
root = "{SCRATCH}/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.nri.v1.nri"]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
path = "{SCRATCH}/opt"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
# Without CAP_SYS_RESOURCE nothing may become harder to kill than this process.
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{bin}"]
conf_dir = "{cni}"
"#
        )
    }

    fn kubelet_config(&self) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_ADDRESS,
            "readOnlyPort": 0,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": 10248,
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.file("pki/ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self.file("pki/kubelet.crt"),
            "tlsPrivateKeyFile": self.file("pki/kubelet.key"),
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
            "cgroupDriver": "cgroupfs",
            // Another lab's kubelet must not take our pods for orphans.
            "cgroupRoot": format!("/{}", crate::cgroup::group(&self.options.name)),
            "failCgroupV1": false,
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            "oomScoreAdj": 0,
            "podLogsDir": POD_LOGS,
            "volumePluginDir": format!("{SCRATCH}/volume-plugins"),
            "resolvConf": self.file("config/resolv.conf"),
            "maxPods": 200,
            // The disk is the machine's, not ours to tidy; images can be had from nowhere again.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                             "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
        })
    }

    fn kube_proxy_config(&self) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "bindAddress": NODE_ADDRESS,
            "clusterCIDR": "10.244.0.0/24",
            "hostnameOverride": NODE,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "clientConnection": {"kubeconfig": self.file("kube-proxy.kubeconfig")},
            "conntrack": {"maxPerCore": 0, "min": 0},
            // Without the bridge's filter an answer from pod to pod would bypass the node; so it comes back by it.
            "iptables": {"masqueradeAll": !Path::new(BRIDGE_FILTER).exists()},
            "oomScoreAdj": 0,
        })
    }

    fn scrape_milliseconds(&self) -> u128 {
        self.options.scrape_interval.max(Duration::from_millis(100)).as_millis()
    }

    /// Prometheus scrapes the gateways and every running pod that asks for it by annotation.
    pub(crate) fn prometheus_config(&self, gateways: &[Gateway]) -> String {
        let annotation = |name: &str| format!("__meta_kubernetes_pod_annotation_prometheus_io_{name}");
        let interval = format!("{}ms", self.scrape_milliseconds());
        let traefiks: Vec<Value> = gateways
            .iter()
            .map(|gateway| json!({"targets": [format!("{}:8082", ip(gateway))], "labels": {"gateway": gateway.component}}))
            .collect();
        let config = json!({
            "global": {"scrape_interval": interval, "scrape_timeout": interval},
            "scrape_configs": [
                {"job_name": "traefik", "static_configs": traefiks},
                {
                    "job_name": "pods",
                    "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": self.file("prometheus.kubeconfig")}],
                    "relabel_configs": [
                        {"action": "keep", "source_labels": [annotation("scrape")], "regex": "true"},
                        {"action": "keep", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running"},
                        {"action": "drop", "source_labels": ["__meta_kubernetes_pod_container_init"], "regex": "true"},
                        {"source_labels": ["__meta_kubernetes_pod_ip", annotation("port")], "separator": ":",
                         "regex": "([^:]+):([0-9]+)", "target_label": "__address__", "replacement": "$1:$2"},
                        {"source_labels": [annotation("path")], "regex": "(.+)", "target_label": "__metrics_path__"},
                        {"source_labels": [annotation("interval")], "regex": "(.+)", "target_label": "__scrape_interval__"},
                        {"source_labels": [annotation("interval")], "regex": "(.+)", "target_label": "__scrape_timeout__"},
                        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
                    ],
                },
            ],
        });
        format!("{config:#}\n")
    }
}

fn cni() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [{
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": format!("{SCRATCH}/cni"),
                "ranges": [[{"subnet": "10.244.0.0/24", "rangeStart": "10.244.0.40", "rangeEnd": "10.244.0.254",
                             "gateway": NODE_ADDRESS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "Metadata", "userGroups": ["system:serviceaccounts:canaryrelease-system"]},
            {"level": "None"},
        ],
    })
}

/// The gateway that every lab has; it serves all namespaces.
pub(crate) fn main_gateway() -> Gateway {
    let (namespace, name) = MAIN_GATEWAY;
    Gateway {
        name: name.into(),
        namespace: namespace.into(),
        class: "lab".into(),
        address: GATEWAY.into(),
        component: "traefik".into(),
    }
}

/// A further gateway at one of [`GATEWAY_ADDRESSES`].
pub(crate) fn further_gateway(name: &str, namespace: &str, last_byte: u8) -> Gateway {
    Gateway {
        name: name.into(),
        namespace: namespace.into(),
        class: format!("lab-{name}"),
        address: format!("10.244.0.{last_byte}:80"),
        component: format!("traefik-{name}"),
    }
}

fn ip(gateway: &Gateway) -> &str {
    gateway.address.split(':').next().unwrap_or(NODE_ADDRESS)
}

/// The Gateway and GatewayClass of a gateway.
pub(crate) fn gateway_manifests(gateway: &Gateway) -> String {
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": gateway.class, "labels": {"canaryrelease.dev/lab-gateway": gateway.component}},
        "spec": {"controllerName": CONTROLLER},
    });
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": gateway.name, "namespace": gateway.namespace},
        "spec": {
            "gatewayClassName": gateway.class,
            "listeners": [{"name": "web", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}],
        },
    });
    documents(&[class, object])
}

/// What the lab's own clients may do, and the namespace of the first gateway.
pub(crate) fn base_manifests() -> String {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": MAIN_GATEWAY.0}});
    let read = ["get", "list", "watch"];
    let mut all = vec![namespace];
    all.extend(role(
        "lab:traefik",
        &json!([
            {"apiGroups": ["", "discovery.k8s.io", "gateway.networking.k8s.io"], "resources": ["*"], "verbs": read},
            {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["*/status"], "verbs": ["update", "patch"]},
        ]),
    ));
    all.extend(role("lab:prometheus", &json!([{"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": read}])));
    documents(&all)
}

fn role(name: &str, rules: &Value) -> [Value; 2] {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules,
    });
    [role, binding("ClusterRoleBinding", json!({"name": name}), "ClusterRole", name, name)]
}

fn binding(kind: &str, metadata: Value, role_kind: &str, role: &str, user: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}

/// metrics-server runs beside the cluster: a Service without selector leads the API server to it.
pub(crate) fn metrics_manifests(ca: &str) -> String {
    use base64::Engine as _;
    let user = "lab:metrics-server";
    let read = ["get", "list", "watch"];
    let meta = json!({"name": "metrics-server", "namespace": "kube-system"});
    let mut all = role(
        user,
        &json!([
            {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods", "nodes", "namespaces", "configmaps"], "verbs": read},
        ]),
    )
    .to_vec();
    let delegator = json!({"name": "lab:metrics-server-delegator"});
    all.push(binding("ClusterRoleBinding", delegator, "ClusterRole", "system:auth-delegator", user));
    all.push(binding("RoleBinding", meta.clone(), "Role", "extension-apiserver-authentication-reader", user));
    all.push(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 4443}]},
    }));
    all.push(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "metrics-server", "namespace": "kube-system",
                     "labels": {"kubernetes.io/service-name": "metrics-server"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": 4443, "protocol": "TCP"}],
    }));
    all.push(json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"name": "metrics-server", "namespace": "kube-system"},
            "caBundle": base64::engine::general_purpose::STANDARD.encode(ca),
        },
    }));
    documents(&all)
}

fn documents(all: &[Value]) -> String {
    all.iter().map(|value| format!("---\n{value:#}\n")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn with<T>(test: impl FnOnce(&Layout<'_>) -> T) -> T {
        test(&Layout::new(Path::new("/labs/x"), &LabOptions::named("x")))
    }

    #[test]
    fn nothing_listens_beyond_the_labs_own_network() {
        with(|layout| {
            let mut all = layout.components();
            all.push(layout.traefik(&main_gateway(), &[]));
            for word in all.iter().flat_map(|component| &component.args) {
                let outside = ["0.0.0.0", "[::]", "=:"].iter().any(|any| word.contains(any));
                assert!(!outside, "{word}");
            }
            for (file, text) in layout.files() {
                let listens = text.replace("\"dst\": \"0.0.0.0/0\"", "");
                assert!(!listens.contains("0.0.0.0"), "{}", file.display());
            }
        });
    }

    #[test]
    fn each_lab_has_a_control_group_of_its_own() {
        let of = |name: &str| {
            let options = LabOptions::named(name);
            let layout = Layout::new(Path::new("/labs"), &options);
            layout.kubelet_config()["cgroupRoot"].as_str().unwrap().to_owned()
        };
        assert_ne!(of("a"), of("b"));
    }

    #[test]
    fn metrics_server_is_optional() {
        let options = LabOptions { metrics_server: false, ..LabOptions::default() };
        let layout = Layout::new(Path::new("/labs"), &options);
        assert!(layout.components().iter().all(|component| component.name != "metrics-server"));
        assert!(with(|layout| layout.components().iter().any(|component| component.name == "metrics-server")));
    }

    #[test]
    fn a_further_gateway_hears_only_its_namespaces_and_its_class() {
        let gateway = further_gateway("s1", "shop-1", 7);
        let args = with(|layout| layout.traefik(&gateway, &["shop-1".into(), "shop-2".into()])).args;
        assert!(args.contains(&"--providers.kubernetesgateway.namespaces=shop-1,shop-2".to_owned()));
        assert!(args.contains(&"--entrypoints.web.address=10.244.0.7:80".to_owned()));
        let selector = args.iter().find(|arg| arg.contains("labelselector")).unwrap();
        assert!(selector.ends_with("canaryrelease.dev/lab-gateway=traefik-s1"));
        assert!(gateway_manifests(&gateway).contains("\"canaryrelease.dev/lab-gateway\": \"traefik-s1\""));
    }

    #[test]
    fn prometheus_scrapes_as_often_as_asked_and_as_a_pod_asks() {
        let options = LabOptions { scrape_interval: Duration::from_secs(1), ..LabOptions::default() };
        let layout = Layout::new(Path::new("/labs"), &options);
        let text = layout.prometheus_config(&[main_gateway(), further_gateway("s1", "a", 2)]);
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["global"]["scrape_interval"], "1000ms");
        assert_eq!(config["scrape_configs"][0]["static_configs"][1]["targets"][0], "10.244.0.2:8082");
        assert!(text.contains("prometheus_io_interval") && text.contains("__scrape_interval__"));
    }

    #[test]
    fn every_manifest_is_a_named_object() {
        let text = base_manifests() + &metrics_manifests("ca") + &gateway_manifests(&main_gateway());
        let documents: Vec<Value> =
            text.split("---\n").skip(1).map(|document| serde_json::from_str(document).unwrap()).collect();
        assert_eq!(documents.len(), 14);
        assert!(documents.iter().all(|d| d["kind"].is_string() && d["metadata"]["name"].is_string()));
    }
}
