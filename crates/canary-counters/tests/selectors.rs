//! What a counter selector may be, and how it is confined.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use canary_counters::{LabelNames, MatchKind, Sample, Scope, ScopeError, Selector, SelectorError, Series};

fn pods(names: &[&str]) -> Scope {
    Scope::pods("shop", names.iter().copied(), &LabelNames::default()).unwrap()
}

#[test]
fn selectors_as_people_write_them_are_read() {
    let table = [
        ("http_requests_total", "http_requests_total"),
        (r#"http_requests_total{code=~"5.."}"#, r#"http_requests_total{code=~"5.."}"#),
        ("http_requests_total{code=~'5..'}", r#"http_requests_total{code=~"5.."}"#),
        ("http_requests_total{code=~`5..`}", r#"http_requests_total{code=~"5.."}"#),
        (
            r#" http_requests_total { code = "500" , method != "GET", } "#,
            r#"http_requests_total{code="500",method!="GET"}"#,
        ),
        (
            r#"job:requests:sum{status=~"5..",path!~"/health.*"}"#,
            r#"job:requests:sum{status=~"5..",path!~"/health.*"}"#,
        ),
        ("http_requests_total{}", "http_requests_total"),
        (
            r#"istio_requests_total{response_code=~"5.*",reporter="destination"}"#,
            r#"istio_requests_total{response_code=~"5.*",reporter="destination"}"#,
        ),
        (r#"x_total{path="a\"b\\c\nd"}"#, r#"x_total{path="a\"b\\c\nd"}"#),
        ("sum_total", "sum_total"),
    ];
    for (text, canonical) in table {
        let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selector.to_string(), canonical, "{text}");
        assert_eq!(Selector::parse(canonical).unwrap(), selector, "{text}: canonical text reads back");
    }
    let selector = Selector::parse(r#"a_total{code=~"5.."}"#).unwrap();
    assert_eq!(selector.metric(), "a_total");
    assert_eq!(selector.matchers()[0].kind, MatchKind::Regex);
}

#[test]
fn whatever_is_more_than_a_selector_is_refused_with_the_reason() {
    let table = [
        ("", "empty"),
        ("   ", "empty"),
        ("rate(http_requests_total[1m])", "function call"),
        ("http_requests_total[1m]", "range of samples"),
        ("http_requests_total offset 5m", "offset"),
        ("http_requests_total offset -5m", "offset"),
        ("http_requests_total @ 1700000000", "fixed time"),
        ("http_requests_total @ end()", "fixed time"),
        ("sum(http_requests_total)", "aggregation"),
        ("sum by (pod) (http_requests_total)", "aggregation"),
        ("http_requests_total + http_requests_total", "arithmetic"),
        ("http_requests_total or up", "arithmetic"),
        ("-http_requests_total", "arithmetic"),
        ("(http_requests_total)", "parentheses"),
        ("http_requests_total[5m:1m]", "subquery"),
        ("42", "number"),
        ("'text'", "string"),
        (r#"{code="500"}"#, "no metric name"),
        (r#"{__name__="http_requests_total"}"#, "no metric name"),
        (r#"{__name__=~"http_.*"}"#, "no metric name"),
        (r#"{"http_requests_total"}"#, "no metric name"),
        (r#"http_requests_total{__name__="x"}"#, ""),
        (r#"http_requests_total{a="b" or c="d"}"#, "or"),
        (r#"http_requests_total{code=~"["}"#, ""),
        (r#"http_requests_total{code="500""#, ""),
        (r#"http_requests_total}"#, ""),
        ("http_requests_total{code}", ""),
        ("http_requests_total{code=500}", ""),
        ("http-requests", "arithmetic"),
        ("http_requests_total # {", ""),
        ("$pods", ""),
    ];
    for (text, part) in table {
        match Selector::parse(text) {
            // A comment is not a part of the selector.
            Ok(selector) => {
                assert_eq!((text, selector.to_string().as_str()), ("http_requests_total # {", "http_requests_total"))
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(part), "{text}: {message}");
                assert!(!error.category().is_empty());
            }
        }
    }
}

#[test]
fn oversized_selectors_are_refused() {
    let long = format!("x_total{{a=\"{}\"}}", "b".repeat(5000));
    assert!(Selector::parse(&long).unwrap_err().to_string().contains("longer than"));
    let deep = format!("{}x{}", "(".repeat(1000), ")".repeat(1000));
    assert!(Selector::parse(&deep).unwrap_err().to_string().contains("operators"));
    let minus = "-".repeat(2000);
    assert!(Selector::parse(&minus).is_err());
    let huge_regex = r#"x_total{a=~"((((a{100}){100}){100}){100})"}"#;
    assert!(Selector::parse(huge_regex).is_err());
}

#[test]
fn a_selector_is_confined_to_namespace_and_pods() {
    let selector = Selector::parse(r#"http_requests_total{code=~"5.."}"#).unwrap();
    assert_eq!(
        selector.scoped(&pods(&["web-7d9-a", "web-7d9-b"])).unwrap().as_str(),
        r#"http_requests_total{namespace="shop",pod=~"web-7d9-a|web-7d9-b",code=~"5.."}"#
    );
    assert_eq!(
        selector.scoped(&pods(&["web.v2-a"])).unwrap().as_str(),
        r#"http_requests_total{namespace="shop",pod=~"web\\.v2-a",code=~"5.."}"#,
        "a dot in a pod's name is a dot"
    );
    let labels = LabelNames {
        namespace: "k8s_ns".into(),
        pod: "k8s_pod".into(),
        service: "svc".into(),
        ..LabelNames::default()
    };
    let scope = Scope::service("shop", "orders", &labels).unwrap();
    assert_eq!(
        selector.scoped(&scope).unwrap().as_str(),
        r#"http_requests_total{k8s_ns="shop",svc="orders",code=~"5.."}"#
    );
    let scope = Scope::total("shop", &labels).unwrap();
    assert_eq!(selector.scoped(&scope).unwrap().as_str(), r#"http_requests_total{k8s_ns="shop",code=~"5.."}"#);
}

#[test]
fn a_gateways_own_labels_for_a_service_are_the_admins() {
    let labels = LabelNames {
        service: "destination_service_name".into(),
        service_namespace: Some("destination_service_namespace".into()),
        ..LabelNames::default()
    };
    let service = Scope::service("shop", "orders-canary", &labels).unwrap();
    let of = |text: &str, scope: &Scope| Selector::parse(text).unwrap().scoped(scope).map(|query| query.to_string());
    assert_eq!(
        of(r#"istio_requests_total{reporter="source"}"#, &service).unwrap(),
        r#"istio_requests_total{destination_service_namespace="shop",destination_service_name="orders-canary",reporter="source"}"#
    );
    // The gateway's own namespace may narrow the question further; whose requests they are is the operator's to say.
    assert!(of(r#"istio_requests_total{namespace="istio-ingress"}"#, &service).is_ok());
    for text in [r#"x_total{destination_service_namespace="a"}"#, r#"x_total{destination_service_name="a"}"#] {
        assert!(matches!(of(text, &service), Err(SelectorError::Reserved { .. })), "{text}");
    }
    assert_eq!(
        of("x_total", &Scope::pods("shop", ["web-1"], &labels).unwrap()).unwrap(),
        r#"x_total{namespace="shop",pod=~"web-1"}"#
    );
    for clash in ["pod", "destination_service_name"] {
        let labels = LabelNames { service_namespace: Some(clash.into()), ..labels.clone() };
        assert_eq!(labels.check(), Err(ScopeError::LabelsEqual), "{clash}");
    }
}

#[test]
fn histograms_have_buckets_and_a_count() {
    let selector = Selector::parse(r#"http_request_duration_seconds{path="/"}"#).unwrap();
    assert_eq!(selector.bucket().to_string(), r#"http_request_duration_seconds_bucket{path="/"}"#);
    assert_eq!(selector.count().to_string(), r#"http_request_duration_seconds_count{path="/"}"#);
    assert_eq!(selector.bucket().bucket(), selector.bucket());
    assert_eq!(selector.bucket().count(), selector.count());
}

#[test]
fn a_users_matcher_on_the_operators_labels_is_refused() {
    for text in [
        r#"x_total{namespace="shop"}"#,
        r#"x_total{namespace=~".*"}"#,
        r#"x_total{namespace!="shop"}"#,
        r#"x_total{pod="web-1"}"#,
        r#"x_total{pod!~"web-.*"}"#,
    ] {
        let error = Selector::parse(text).unwrap().scoped(&pods(&["web-1"])).unwrap_err();
        assert!(matches!(error, SelectorError::Reserved { .. }), "{text}: {error}");
    }
    let service = Scope::service("shop", "orders", &LabelNames::default()).unwrap();
    assert!(Selector::parse(r#"x_total{service="other"}"#).unwrap().scoped(&service).is_err());
    // By pods the service label is an ordinary one.
    assert!(Selector::parse(r#"x_total{service="orders"}"#).unwrap().scoped(&pods(&["web-1"])).is_ok());
}

#[test]
fn a_scope_never_sees_nothing_or_everything() {
    let labels = LabelNames::default();
    assert_eq!(Scope::pods("shop", Vec::<String>::new(), &labels), Err(ScopeError::NoPods));
    for pod in ["", ".*", "web-1|.*", "web\"}", "Web-1", "web 1", "web_1", &"a".repeat(254)] {
        assert!(Scope::pods("shop", [pod], &labels).is_err(), "{pod}");
    }
    for namespace in ["", "shop\",pod=\"", "shop|x", "*"] {
        assert!(Scope::total(namespace, &labels).is_err(), "{namespace}");
    }
    for label in ["", "a-b", "0a", "__name__", "a=\"b\",c", "po d"] {
        let labels = LabelNames { pod: label.into(), ..LabelNames::default() };
        assert!(Scope::total("shop", &labels).is_err(), "{label}");
    }
    let same = LabelNames { pod: "namespace".into(), ..LabelNames::default() };
    assert_eq!(Scope::total("shop", &same), Err(ScopeError::LabelsEqual));
}

fn series(labels: &[(&str, &str)]) -> Series {
    let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Series { labels, samples: vec![Sample { at_ms: 1, value: 1.0 }] }
}

#[test]
fn a_series_belongs_to_a_selector_as_in_prometheus() {
    let one = series(&[("__name__", "x_total"), ("code", "503"), ("method", "GET")]);
    let table = [
        ("x_total", true),
        ("y_total", false),
        (r#"x_total{code="503"}"#, true),
        (r#"x_total{code=~"5.."}"#, true),
        (r#"x_total{code=~"5."}"#, false),
        (r#"x_total{code=~"50|51"}"#, false),
        (r#"x_total{code!="503"}"#, false),
        (r#"x_total{code!~"4..",method="GET"}"#, true),
        (r#"x_total{absent=""}"#, true),
        (r#"x_total{absent!=""}"#, false),
        (r#"x_total{absent=~".*"}"#, true),
        (r#"x_total{absent=~".+"}"#, false),
    ];
    for (text, expected) in table {
        assert_eq!(Selector::parse(text).unwrap().matches(&one), expected, "{text}");
    }
    let misspelt = Selector::parse(r#"x_total{status=~"5..",code="503"}"#).unwrap();
    assert_eq!(misspelt.unknown_labels(&[one]), ["status"]);
}

/// Pods that are long gone are in no list; the canary's and another Deployment's have names of another shape.
#[test]
fn the_pods_that_a_deployment_has_had_are_told_by_the_shape_of_their_names() {
    let scope = Scope::pods_of("shop", "web.v1", &LabelNames::default()).unwrap();
    let scoped = Selector::parse("a_total").unwrap().scoped(&scope).unwrap();
    assert_eq!(scoped.as_str(), r#"a_total{namespace="shop",pod=~"web\\.v1-[a-z0-9]{1,16}-[a-z0-9]{5}"}"#);
    let pods = regex::Regex::new(&format!("^(?:{})$", scope.pods_regex().unwrap())).unwrap();
    for (name, one) in [
        ("web.v1-5d9c7bf4c8-abc12", true),
        ("web.v1-canary-5d9c7bf4c8-abc12", false),
        ("web.v1-api-5d9c7bf4c8-abc12", false),
        ("webxv1-5d9c7bf4c8-abc12", false),
        ("web.v1-0", false),
    ] {
        assert_eq!(pods.is_match(name), one, "{name}");
    }
    assert!(Scope::pods_of("shop", "web|x", &LabelNames::default()).is_err());
}
