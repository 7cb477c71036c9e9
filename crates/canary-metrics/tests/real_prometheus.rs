//! What we ask, a real Prometheus understands, and what it answers, we understand. Needs its
//! binary: `PROMETHEUS=/path/to/prometheus cargo test -p canary-metrics -- --ignored`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

use canary_counters::histogram::latency;
use canary_counters::measure::share;
use canary_counters::{Grouping, Histogram, Instant, LabelNames, Meter, PodKnown, Scope, Selector, Tick};
use canary_metrics::{MetricSource, Prometheus, ProviderConfig};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::process::Command;

const QUERIES: &[&str] = &[
    r#"max(process_start_time_seconds{pod=~"$pods"})"#,
    r#"max by (pod) (up{pod=~"$pods"})"#,
    r#"sum(rate(prometheus_http_requests_total{pod=~"$pods",code=~"2.."}[10s])) / sum(rate(prometheus_http_requests_total{pod=~"$pods"}[10s]))"#,
    r#"max_over_time((up{pod=~"$pods"} * 2)[5s:1s])"#,
    r#"histogram_quantile(0.95, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket{pod=~"$pods"}[10s])))"#,
    r#"up{pod=~"$pods"} + on (pod) group_left (job) up"#,
    r#"up{pod=~"$pods"} unless on (pod) (up == 0)"#,
    r#"-up{pod=~"$pods"} ^ 2 ^ 0.5 % 1e3 > bool -Inf"#,
    r#"topk(1, up{pod=~"$pods",x!="a\"b\\c\n\t💥"})"#,
    r#"count_values("v", up{pod=~"$pods"})"#,
    r#"scalar(up{pod=~"$pods"}) + time() - vector(1)"#,
    r#"label_replace(up{pod=~"$pods"}, "x", "$1", "pod", "(.*)-a")"#,
    r#"{__name__=~"up",pod=~"$pods"}"#,
    r#"{"up",pod=~"$pods"}"#,
    r#"up{pod=~"$pods"} or absent(up offset 1m)"#,
    r#"sum without (instance) (up{pod=~"$pods"}) atan2 0x1f"#,
];

#[tokio::test]
#[ignore = "needs a Prometheus binary"]
async fn a_real_prometheus_understands_and_is_understood() {
    let binary = std::env::var("PROMETHEUS").expect("PROMETHEUS names the binary");
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let directory = std::env::temp_dir().join(format!("canary-real-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let config = directory.join("prometheus.yml");
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 500ms}}\nscrape_configs:\n- job_name: self\n  static_configs:\n  - targets: ['{address}']\n    labels: {{namespace: shop, pod: web-a}}\n\
             - job_name: native\n  scrape_native_histograms: true\n  static_configs:\n  - targets: ['{address}']\n    labels: {{namespace: shop, pod: web-n}}\n"
        ),
    )
    .unwrap();
    let mut server = Command::new(binary)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    let prometheus = Prometheus::new(ProviderConfig::new("default", &format!("http://{address}"))).unwrap();
    let scope = Scope::pods("shop", ["web-a"], &LabelNames::default()).unwrap();
    let lookback = Duration::from_secs(60);
    let total = Selector::parse("prometheus_http_requests_total").unwrap();
    let bad = Selector::parse(r#"prometheus_http_requests_total{code=~"5.."}"#).unwrap();
    let buckets = Selector::parse("prometheus_http_request_duration_seconds").unwrap().bucket();
    let mut meter = Meter::new(Timestamp::now().as_millisecond() - 1000);
    let started_at_ms = meter.since_ms();
    // Until it has come up and scraped itself a few times.
    let (n, reading, tick) = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let at = Timestamp::now();
            let answer = prometheus.counters(&total, &scope, lookback, at).await.unwrap_or_default();
            let histogram = prometheus.counters(&buckets, &scope, lookback, at).await.unwrap_or_default();
            if answer.iter().any(|series| series.samples.len() > 4) && !histogram.is_empty() {
                let tick = Tick {
                    now_ms: at.as_millisecond(),
                    covered_from_ms: at.as_millisecond() - 60_000,
                    pods: vec![PodKnown { name: "web-a".into(), started_at_ms }],
                    grouping: Grouping::Pod("pod".into()),
                };
                let n = meter.absorb("n", &answer, &tick).unwrap();
                let reading = meter.absorb_histogram("h", &histogram, None, &tick).unwrap();
                break (n, reading, tick);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    let k = meter.absorb("k", &prometheus.counters(&bad, &scope, lookback, Timestamp::now()).await.unwrap(), &tick);
    let (n_counted, k_counted) = share(&n, &k.unwrap()).complete().unwrap();
    assert!(n_counted > 4.0, "it has answered scrapes");
    assert!(k_counted <= n_counted, "it refuses while it starts, and counts that too");
    assert_eq!(n.interval_ms, Some(500));
    assert!(latency(&reading, 0.2, None).breach.complete().is_some_and(|(n, k)| n > 0.0 && k <= n));

    native(&prometheus, n_counted).await;

    for query in QUERIES {
        let answer = prometheus.value(query, &scope, true, Timestamp::now()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{query}: {error}"));
        let empty = matches!(&answer, Instant::Vector(series) if series.is_empty());
        assert!(!empty, "{query}");
    }
    let other = Scope::pods("other", ["web-a"], &LabelNames::default()).unwrap();
    let nothing = prometheus.counters(&total, &other, lookback, Timestamp::now()).await.unwrap();
    assert!(nothing.is_empty(), "another namespace sees nothing");
    let error = prometheus.value(
        "sum(rate(up{pod=~\"$pods\"}[10s])) by (x) > on (y) group_left (z) 1",
        &scope,
        true,
        Timestamp::now(),
    );
    assert!(matches!(error.await.unwrap_err().category(), "query" | "rejected"));

    server.kill().await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The same server's durations, scraped as a native histogram: about as many as were counted otherwise.
async fn native(prometheus: &Prometheus, counted: f64) {
    let scope = Scope::pods("shop", ["web-n"], &LabelNames::default()).unwrap();
    let durations = Selector::parse("prometheus_http_request_duration_seconds").unwrap();
    let at = Timestamp::now();
    let answer = prometheus.histogram(&durations, &scope, Duration::from_secs(60), at).await.unwrap();
    let Histogram::Native(series) = answer else { panic!("{answer:?}") };
    let tick = Tick {
        now_ms: at.as_millisecond(),
        covered_from_ms: at.as_millisecond() - 60_000,
        pods: vec![PodKnown { name: "web-n".into(), started_at_ms: at.as_millisecond() - 30_000 }],
        grouping: Grouping::Pod("pod".into()),
    };
    let mut meter = Meter::new(at.as_millisecond() - 60_000);
    for limit in [0.000_001, 0.2, 100.0] {
        let reading = meter.absorb_native("h", &series, limit, None, &tick).unwrap();
        let (n, k) = latency(&reading, limit, None).breach.counts().unwrap();
        assert!(n >= counted / 2.0, "{n} of {counted}");
        assert!(if limit < 0.1 { k > 0.0 } else { k <= n }, "{k} of {n} above {limit}");
    }
}
