//! Where a pod is read: its own annotations and the spec may say a port and a path, and nothing
//! that they say leads anywhere else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use canary_metrics::{EndpointError, endpoint};
use proptest::prelude::*;
use serde_json::{Value, json};

fn pod() -> Value {
    json!({
        "metadata": {"name": "web-a", "namespace": "shop", "annotations": {}},
        "spec": {"containers": [{"name": "web", "ports": [{"containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": "10.244.0.7", "hostIP": "192.168.1.10"}
    })
}

fn annotated(annotations: &[(&str, &str)]) -> Value {
    let mut pod = pod();
    for (name, value) in annotations {
        pod["metadata"]["annotations"][format!("prometheus.io/{name}")] = json!(value);
    }
    pod
}

fn with_ports(ports: &Value) -> Value {
    let mut pod = pod();
    pod["spec"]["containers"] = json!([{"name": "web", "ports": ports}]);
    pod
}

fn url(pod: &Value) -> Result<String, EndpointError> {
    endpoint(pod, None, None).map(|endpoint| endpoint.url().to_owned())
}

#[test]
fn the_spec_goes_before_annotations_and_these_before_declared_ports() {
    let plain = endpoint(&pod(), None, None).unwrap();
    assert_eq!((plain.namespace(), plain.pod(), plain.url()), ("shop", "web-a", "http://10.244.0.7:8080/metrics"));
    let annotated =
        annotated(&[("port", "9102"), ("path", "/stats/prometheus"), ("scrape", "true"), ("scheme", "http")]);
    assert_eq!(url(&annotated).unwrap(), "http://10.244.0.7:9102/stats/prometheus");
    let given = endpoint(&annotated, Some(15020), Some("/other")).unwrap();
    assert_eq!(given.url(), "http://10.244.0.7:15020/other");
    assert_eq!(endpoint(&annotated, Some(80), None).unwrap().url(), "http://10.244.0.7/stats/prometheus");
}

#[test]
fn a_declared_port_is_taken_where_it_is_the_only_one_that_can_be_meant() {
    let on = |port: u16| Ok(format!("http://10.244.0.7:{port}/metrics"));
    let named = |name: &str| json!([{"containerPort": 8080, "name": "http"}, {"containerPort": 9090, "name": name}]);
    assert_eq!(url(&with_ports(&named("metrics"))), on(9090));
    assert_eq!(url(&with_ports(&named("http-metrics"))), on(9090));
    assert_eq!(url(&with_ports(&json!([{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 9153}]))), on(9153));
    assert_eq!(url(&with_ports(&json!([{"containerPort": 8080}, {"containerPort": 8080, "name": "http"}]))), on(8080));
    assert_eq!(url(&with_ports(&named("admin"))), Err(EndpointError::SeveralPorts("8080, 9090".to_owned())));
    let both = json!([{"containerPort": 1, "name": "metrics"}, {"containerPort": 2, "name": "http-metrics"}]);
    assert_eq!(url(&with_ports(&both)), Err(EndpointError::SeveralPorts("1, 2".to_owned())));
    for none in
        [json!([]), json!(null), json!([{"containerPort": 0}]), json!([{"containerPort": 70000}]), json!("8080")]
    {
        assert_eq!(url(&with_ports(&none)), Err(EndpointError::NoPort), "{none}");
    }
    let many: Vec<Value> = (1..=9).map(|port| json!({"containerPort": port})).collect();
    let message = url(&with_ports(&json!(many))).unwrap_err().to_string();
    assert!(message.contains("1, 2, 3, 4, 5, …") && message.contains("prometheus.io/port"), "{message}");
}

#[test]
fn a_pod_that_says_no_is_not_read_whatever_the_spec_says() {
    for value in ["false", "False", " false "] {
        assert_eq!(endpoint(&annotated(&[("scrape", value)]), Some(80), Some("/m")), Err(EndpointError::OptedOut));
    }
    for scheme in ["https", "HTTPS", "ftp", "http://evil/", ""] {
        let error = endpoint(&annotated(&[("scheme", scheme)]), Some(80), None).unwrap_err();
        assert_eq!(error.category(), "scheme", "{scheme}");
    }
    assert!(endpoint(&annotated(&[("scheme", "https")]), None, None).unwrap_err().to_string().contains("\"https\""));
}

#[test]
fn ports_are_numbers_and_nothing_else() {
    for port in ["", "0", "65536", "-1", "+80", "80 ", "0x50", "8080@evil", "80/../", "http", "٨٠", "1e3"] {
        assert_eq!(url(&annotated(&[("port", port)])).unwrap_err().category(), "port", "{port}");
    }
    assert_eq!(endpoint(&pod(), Some(0), None), Err(EndpointError::PortZero));
}

#[test]
fn paths_stay_on_the_pod() {
    let long = format!("/{}", "a".repeat(256));
    for path in [
        "",
        "metrics",
        "http://evil/metrics",
        "//evil/metrics",
        "/..",
        "/a/../b",
        "/./a",
        "/a/.",
        "/a?b=c",
        "/a#b",
        "/a b",
        "/a\r\nHost: evil",
        "/%2e%2e/a",
        "/a\\b",
        "\\\\evil",
        "/é",
        "/a\0",
        "@evil",
        ":80",
        &long,
    ] {
        assert_eq!(url(&annotated(&[("path", path)])).unwrap_err().category(), "path", "{path}");
        assert_eq!(endpoint(&pod(), None, Some(path)).unwrap_err().category(), "path", "{path}");
    }
    for path in ["/", "/metrics", "/metrics/", "/actuator/prometheus", "/a//b", "/a:b@c", "/...", "/a..b", "/~x/$y;z=1"]
    {
        assert_eq!(url(&annotated(&[("path", path)])).unwrap(), format!("http://10.244.0.7:8080{path}"));
    }
}

#[test]
fn the_address_is_one_that_only_a_pod_has() {
    for ip in [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "evil.example",
        "10.0.0.7:80",
        "10.0.0",
        "010.0.0.7",
        "10.0.0.7/8",
        " 10.0.0.7",
        "[fd00::7]",
    ] {
        let mut pod = pod();
        pod["status"]["podIP"] = json!(ip);
        assert_eq!(url(&pod).unwrap_err().category(), "address", "{ip}");
    }
    let mut pod = pod();
    pod["status"]["podIP"] = json!("fd00::7");
    assert_eq!(url(&pod).unwrap(), "http://[fd00::7]:8080/metrics");
    for none in [json!(null), json!(""), json!(7)] {
        pod["status"]["podIP"] = none;
        let error = url(&pod).unwrap_err();
        assert_eq!(error, EndpointError::NoAddress);
        assert!(error.is_transient(), "it will have one soon");
    }
}

#[test]
fn ports_of_nodes_are_not_read() {
    let mut on_host = pod();
    on_host["spec"]["hostNetwork"] = json!(true);
    assert_eq!(url(&on_host), Err(EndpointError::HostNetwork));
    let mut like_host = pod();
    like_host["status"]["podIP"] = json!("192.168.1.10");
    assert_eq!(url(&like_host), Err(EndpointError::HostNetwork));
    let mut like_other = pod();
    like_other["status"]["hostIPs"] = json!([{"ip": "192.168.1.10"}, {"ip": "10.244.0.7"}]);
    assert_eq!(url(&like_other), Err(EndpointError::HostNetwork));
}

#[test]
fn the_address_of_a_pod_that_has_ended_may_be_anothers() {
    for phase in ["Succeeded", "Failed"] {
        let mut pod = pod();
        pod["status"]["phase"] = json!(phase);
        assert_eq!(url(&pod), Err(EndpointError::Ended));
    }
}

#[test]
fn what_is_no_pod_is_refused() {
    for odd in [json!(null), json!([]), json!("pod"), json!({"metadata": {"name": "a"}}), json!({"metadata": []})] {
        assert_eq!(url(&odd), Err(EndpointError::Nameless), "{odd}");
    }
}

proptest! {
    #[test]
    fn no_annotation_leads_away_from_the_pod(port in ".{0,8}", path in "/?.{0,40}", scheme in "(http|https|.{0,6})") {
        let pod = annotated(&[("port", &port), ("path", &path), ("scheme", &scheme)]);
        for (port, path) in [(None, None), (Some(8080), None), (None, Some(path.as_str()))] {
            if let Ok(endpoint) = endpoint(&pod, port, path) {
                let url = reqwest::Url::parse(endpoint.url()).unwrap();
                prop_assert_eq!(url.scheme(), "http");
                prop_assert_eq!(url.host_str(), Some("10.244.0.7"));
                prop_assert!(url.username().is_empty() && url.password().is_none());
                prop_assert!(url.query().is_none() && url.fragment().is_none());
            }
        }
    }
}
