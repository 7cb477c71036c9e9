//! Counters as the world spells them, through a store on the loopback that keeps what exporters expose: gateways' own
//! request metrics by Service, recorded sums, and the labels that people give to a failed request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary_counters::histogram::latency;
use canary_counters::measure::share;
use canary_counters::{Grouping, HistogramUnit, LabelNames, Measured, Meter, PodKnown, Scope, Selector, Series, Tick};
use canary_metrics::pods::exposition::{Format, Keep, Room, parse};
use canary_metrics::{MetricSource, Prometheus, ProviderConfig};
use common::{Act, Server};
use jiff::Timestamp;
use regex::Regex;
use serde_json::json;

/// All samples in these tests are from before this time.
const AT: i64 = 1_700_000_000;

/// A store that has scraped an exposition three times: at its beginning, when all was zero, half way, and now.
#[derive(Default)]
struct Store {
    series: Vec<(BTreeMap<String, String>, f64)>,
}

impl Store {
    /// With what an exporter exposes, and the labels that the scrape adds.
    fn scraping(mut self, exposition: &str, target: &[(&str, &str)]) -> Self {
        let keep = Keep { names: None, max_series: 1000, max_line_bytes: 4000, room: Room::new(1 << 20) };
        for exposed in parse(exposition.as_bytes(), Format::Text, keep).unwrap() {
            let mut labels: BTreeMap<String, String> = exposed.labels.into_iter().collect();
            labels.insert("__name__".into(), exposed.name);
            labels.extend(target.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            self.series.push((labels, exposed.value));
        }
        self
    }

    /// A rule as in `metric_relabel_configs`, action replace.
    fn relabelled(mut self, source: &str, regex: &str, target: &str, replacement: &str) -> Self {
        let regex = Regex::new(&format!("^(?:{regex})$")).unwrap();
        for (labels, _) in &mut self.series {
            let value = labels.get(source).cloned().unwrap_or_default();
            if regex.is_match(&value) {
                labels.insert(target.to_owned(), regex.replace(&value, replacement).into_owned());
            }
        }
        self
    }

    fn answer(&self, query: &str) -> String {
        let (selector, range) = query.rsplit_once('[').unwrap();
        assert_eq!(range, "60000ms]");
        let selector = Selector::parse(selector).unwrap();
        let rows: Vec<_> = self
            .series
            .iter()
            .filter(|(labels, _)| selector.matches(&Series { labels: labels.clone(), samples: Vec::new() }))
            .map(|(labels, value)| {
                let samples = [(AT - 12, 0.0), (AT - 7, (value / 2.0).floor()), (AT - 2, *value)];
                json!({"metric": labels, "values": samples.map(|(at, value)| json!([at, value.to_string()]))})
            })
            .collect();
        json!({"status": "success", "data": {"resultType": "matrix", "result": rows}}).to_string()
    }
}

/// A provider with such a store, one side's meter, and of whom it counts.
struct Asked {
    prometheus: Prometheus,
    meter: Meter,
    scope: Scope,
    tick: Tick,
    _server: Server,
}

impl Asked {
    async fn new(store: Store, labels: &LabelNames, scope: Scope, grouping: Grouping) -> Self {
        let store = Arc::new(store);
        let server = Server::start(Act::Ask(Arc::new(move |query: &str| store.answer(query)))).await;
        let mut config = ProviderConfig::new("default", &format!("http://{}", server.address));
        config.labels = labels.clone();
        let tick = Tick {
            now_ms: AT * 1000,
            covered_from_ms: (AT - 60) * 1000,
            pods: vec![PodKnown { name: "web-canary-a".to_owned(), started_at_ms: (AT - 300) * 1000 }],
            grouping,
        };
        let prometheus = Prometheus::new(config).unwrap();
        Self { prometheus, meter: Meter::new((AT - 15) * 1000), scope, tick, _server: server }
    }

    async fn service(store: Store, labels: &LabelNames, service: &str) -> Self {
        let scope = Scope::service("shop", service, labels).unwrap();
        let grouping = Grouping::Service { label: labels.service.clone(), names: vec![service.to_owned()] };
        Self::new(store, labels, scope, grouping).await
    }

    async fn pods(store: Store) -> Self {
        let labels = LabelNames::default();
        let scope = Scope::pods("shop", ["web-canary-a"], &labels).unwrap();
        Self::new(store, &labels, scope, Grouping::Pod("pod".to_owned())).await
    }

    async fn ask(&self, selector: &Selector) -> Vec<Series> {
        let at = Timestamp::from_second(AT).unwrap();
        self.prometheus.counters(selector, &self.scope, Duration::from_secs(60), at).await.unwrap()
    }

    /// What an `errorRate` gate counts.
    async fn errors(&mut self, bad: &str, total: &str) -> Measured {
        let mut readings = Vec::new();
        for text in [total, bad] {
            let series = self.ask(&Selector::parse(text).unwrap()).await;
            readings.push(self.meter.absorb(text, &series, &self.tick).unwrap());
        }
        share(&readings[0], &readings[1])
    }

    /// What a `latency` gate counts whose failed requests the histogram's own labels tell.
    async fn slow(&mut self, histogram: &str, limit_ms: u32, failed: Option<&str>) -> Measured {
        let histogram = Selector::parse(histogram).unwrap();
        let series = self.ask(&histogram.bucket()).await;
        let failed = failed.map(|text| Selector::parse(text).unwrap());
        let reading = self.meter.absorb_histogram("h", &series, failed.as_ref(), &self.tick).unwrap();
        latency(&reading, HistogramUnit::of(histogram.metric()).limit(limit_ms), None).breach
    }
}

fn counted(n: f64, k: f64) -> Measured {
    Measured::Counted { n, k }
}

const GATEWAY: &[(&str, &str)] =
    &[("job", "gateway"), ("namespace", "gateways"), ("pod", "gateway-a"), ("instance", "10.0.0.9:15020")];

#[tokio::test]
async fn istio_counts_by_its_own_labels_of_the_destination() {
    let labels = LabelNames {
        service: "destination_service_name".into(),
        service_namespace: Some("destination_service_namespace".into()),
        ..LabelNames::default()
    };
    let store = || Store::default().scraping(include_str!("data/istio_gateway.txt"), GATEWAY);
    let total = r#"istio_requests_total{reporter="source"}"#;
    let bad = r#"istio_requests_total{reporter="source",response_code=~"5.."}"#;
    let mut canary = Asked::service(store(), &labels, "web-canary").await;
    assert_eq!(canary.errors(bad, total).await, counted(105.0, 5.0));
    let slow = r#"istio_request_duration_milliseconds{reporter="source"}"#;
    assert_eq!(canary.slow(slow, 250, None).await, counted(105.0, 3.0));
    assert_eq!(canary.slow(slow, 250, Some(bad)).await, counted(105.0, 8.0), "3 slow, 5 failed");
    let mut stable = Asked::service(store(), &labels, "web").await;
    assert_eq!(stable.errors(bad, total).await, counted(19_012.0, 12.0));
}

/// Labels that the provider's scrape makes of a gateway's names for its backends.
fn backends() -> LabelNames {
    LabelNames {
        service: "backend_service".into(),
        service_namespace: Some("backend_namespace".into()),
        ..LabelNames::default()
    }
}

#[tokio::test]
async fn envoys_clusters_count_where_their_names_hold_the_service() {
    let store = || {
        Store::default()
            .scraping(include_str!("data/contour_envoy.txt"), GATEWAY)
            .relabelled("envoy_cluster_name", "([^_]+)_([^_]+)_[0-9]+", "backend_namespace", "$1")
            .relabelled("envoy_cluster_name", "([^_]+)_([^_]+)_[0-9]+", "backend_service", "$2")
    };
    let bad = r#"envoy_cluster_upstream_rq_xx{envoy_response_code_class="5"}"#;
    let mut canary = Asked::service(store(), &backends(), "web-canary").await;
    assert_eq!(canary.errors(bad, "envoy_cluster_upstream_rq_total").await, counted(105.0, 5.0));
    assert_eq!(canary.slow("envoy_cluster_upstream_rq_time", 250, None).await, counted(105.0, 6.0), "milliseconds");
    let mut stable = Asked::service(store(), &backends(), "web").await;
    assert_eq!(stable.errors(bad, "envoy_cluster_upstream_rq_total").await, counted(1900.0, 4.0));
}

#[tokio::test]
async fn traefiks_services_count_once_their_names_are_taken_apart() {
    let plain = || Store::default().scraping(include_str!("data/traefik_gateway.txt"), GATEWAY);
    let total = "traefik_service_requests_total";
    let bad = r#"traefik_service_requests_total{code=~"5.."}"#;
    // By its own label it has no such Service, and that is no pass.
    let labels = LabelNames { service_namespace: Some("backend_namespace".into()), ..LabelNames::default() };
    let mut unknown = Asked::service(plain(), &labels, "web-canary").await;
    assert!(matches!(unknown.errors(bad, total).await, Measured::NoData(_)));

    let store =
        || {
            plain()
                .relabelled("service", "shop-(.+)-http-[0-9]+@kubernetesgateway", "backend_service", "$1")
                .relabelled("service", "shop-(.+)-http-[0-9]+@kubernetesgateway", "backend_namespace", "shop")
        };
    let mut canary = Asked::service(store(), &backends(), "web-canary").await;
    assert_eq!(canary.errors(bad, total).await, counted(105.0, 5.0));
    let histogram = "traefik_service_request_duration_seconds";
    assert_eq!(canary.slow(histogram, 300, None).await, counted(105.0, 1.0));
    assert_eq!(canary.slow(histogram, 300, Some(bad)).await, counted(105.0, 6.0), "1 slow, 5 failed");
    let mut stable = Asked::service(store(), &backends(), "web").await;
    assert_eq!(stable.errors(bad, total).await, counted(1900.0, 0.0));
}

#[tokio::test]
async fn recorded_sums_of_raw_counters_count_by_pod_and_by_service() {
    let recorded = "\
namespace_pod_code:http_requests:sum{namespace=\"shop\",pod=\"web-canary-a\",code=\"200\"} 100
namespace_pod_code:http_requests:sum{namespace=\"shop\",pod=\"web-canary-a\",code=\"500\"} 5
namespace_pod_code:http_requests:sum{namespace=\"shop\",pod=\"web-a\",code=\"500\"} 70
service_code:gateway_requests:sum{namespace=\"shop\",service=\"web-canary\",code=\"200\"} 200
service_code:gateway_requests:sum{namespace=\"shop\",service=\"web-canary\",code=\"500\"} 2
";
    let store = || Store::default().scraping(recorded, &[]);
    let total = "namespace_pod_code:http_requests:sum";
    let bad = r#"namespace_pod_code:http_requests:sum{code="500"}"#;
    assert_eq!(Asked::pods(store()).await.errors(bad, total).await, counted(105.0, 5.0));
    let (total, bad) = ("service_code:gateway_requests:sum", r#"service_code:gateway_requests:sum{code="500"}"#);
    let mut canary = Asked::service(store(), &LabelNames::default(), "web-canary").await;
    assert_eq!(canary.errors(bad, total).await, counted(202.0, 2.0));
}

#[tokio::test]
async fn a_failed_request_is_spelled_in_many_ways() {
    let pod: &[(&str, &str)] = &[("namespace", "shop"), ("pod", "web-canary-a"), ("instance", "10.0.0.1:8080")];
    let exposed = "\
http_requests_total{code=\"200\",method=\"get\"} 90
http_requests_total{code=\"404\",method=\"get\"} 3
http_requests_total{code=\"500\",method=\"get\"} 4
http_requests_total{code=\"503\",method=\"post\"} 3
http_server_requests_seconds_count{status=\"200\",outcome=\"SUCCESS\",uri=\"/api/{id}\"} 95
http_server_requests_seconds_count{status=\"502\",outcome=\"SERVER_ERROR\",uri=\"/api/{id}\"} 5
requests_total{status_class=\"2xx\"} 99
requests_total{status_class=\"5xx\"} 1
grpc_server_handled_total{grpc_code=\"OK\"} 40
grpc_server_handled_total{grpc_code=\"Unavailable\"} 2
handled_total 50
failed_total 7
";
    for (bad, total, expected) in [
        (r#"http_requests_total{code="500"}"#, "http_requests_total", (100.0, 4.0)),
        (r#"http_requests_total{code=~"5.."}"#, "http_requests_total", (100.0, 7.0)),
        (r#"http_requests_total{code=~"500|503",method="post"}"#, r#"http_requests_total{method="post"}"#, (3.0, 3.0)),
        (r#"http_requests_total{code!~"2..|3..|4.."}"#, "http_requests_total", (100.0, 7.0)),
        (
            r#"http_server_requests_seconds_count{status=~"5.."}"#,
            r#"http_server_requests_seconds_count{uri="/api/{id}"}"#,
            (100.0, 5.0),
        ),
        (r#"requests_total{status_class="5xx"}"#, "requests_total", (100.0, 1.0)),
        (r#"grpc_server_handled_total{grpc_code!="OK"}"#, "grpc_server_handled_total", (42.0, 2.0)),
        ("failed_total", "handled_total", (50.0, 7.0)),
        (r#"http_requests_total{code="599"}"#, "http_requests_total", (100.0, 0.0)),
    ] {
        let mut asked = Asked::pods(Store::default().scraping(exposed, pod)).await;
        assert_eq!(asked.errors(bad, total).await, counted(expected.0, expected.1), "{bad}");
    }
}
