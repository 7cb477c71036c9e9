use clap::Parser as _;

use super::*;
use crate::Cli;
use crate::args::Command;
use crate::store::tests::{NOW, Synthetic};

pub(crate) const RELEASE: &str = "
apiVersion: canaryrelease.dev/v1alpha1
kind: CanaryRelease
metadata: {name: orders, namespace: shop}
spec:
  target: {name: orders}
  traffic: {service: orders, routes: [{kind: HTTPRoute, name: orders}], requests: {counter: http_requests_total}}
  interval: 30s
  baseline: {duration: 5m}
  stages:
  - {weight: 5%, duration: 10m}
  - {weight: 25%, duration: 10m}
  - {weight: 100%, duration: 10m}
  gates:
  - {name: errors, errorRate: {bad: 'http_requests_total{code=~\"5..\"}', total: http_requests_total, limit: 1%}}
  - {name: staleness, value: {query: 'max(age{pod=~\"$pods\"})', max: 30, unit: s}}
";

fn asked(arguments: &[&str]) -> args::Backtest {
    let line = ["kubectl-canary", "backtest", "orders.yaml", "--prometheus=http://127.0.0.1:9"].iter().chain(arguments);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Backtest(what) => what,
        other => panic!("{other:?}"),
    }
}

async fn reported(text: &str, store: &Synthetic) -> Result<Report, Error> {
    let manifest = manifest::parse("orders.yaml", text).unwrap().remove(0);
    let now = Timestamp::from_millisecond(NOW).unwrap();
    report(&manifest, &asked(&["--since=12h"]), None, store, now, false).await
}

#[tokio::test]
async fn a_clean_past_reverts_nothing() {
    let found = reported(RELEASE, &Synthetic::default()).await.unwrap();
    let text = render(&found, Paint::NONE);
    for part in [
        "CanaryRelease shop/orders\n",
        "12 releases, one every 1h, from 2025-12-31T23:59:30Z to 2026-01-01T11:59:30Z",
        "4 pods, 99.9",
        " requests/s on average, samples for 100% of the time",
        "! not replayed: staleness (it reads a value)",
        "would have been reverted  0 of 12 (0%;",
        "would have been paused    0 of 12",
        "  2026-01-01  ············\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[tokio::test]
async fn an_incident_is_shown_in_its_hour() {
    // 04:27 to 04:32: the release of four o'clock has all of the traffic.
    let incident = (NOW - 7 * 3_600_000 - 33 * 60_000, NOW - 7 * 3_600_000 - 28 * 60_000);
    let found = reported(RELEASE, &Synthetic { incident, ..Synthetic::default() }).await.unwrap();
    let text = render(&found, Paint::NONE);
    for part in [
        "would have been reverted  1 of 12",
        "  2026-01-01  ····█·······\n",
        "  stage 3      errors  1\n",
        "  2026-01-01T04:00:00Z  RolledBack after 2",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["reverted"]["runs"], 1);
    assert_eq!(json["releases"][4]["outcome"], "RolledBack");
    assert_eq!(json["notReplayed"][0], "staleness (it reads a value)");
}

#[tokio::test]
async fn a_counter_that_is_not_there_is_an_error_that_says_where_to_look() {
    let other = RELEASE.replace("http_requests_total", "requests_total");
    let error = reported(&other, &Synthetic::default()).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Failed);
    for part in ["requests_total counted no requests", "Deployment orders", "since 12h", "--pod-label"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn requests_by_service_have_no_pods_to_stand_for_a_canary() {
    let by_service = RELEASE.replace("{counter: http_requests_total}", "{counter: http_requests_total, by: Service}");
    let found = reported(&by_service, &Synthetic::default()).await.unwrap();
    assert!(found.summary.is_none() && found.faults_of_spec.len() == 1, "{found:?}");
    assert!(found.faults_of_spec[0].contains("by Service no pods can stand for the canary"), "{found:?}");
}

#[tokio::test]
async fn a_wrong_spec_is_told_before_anything_is_asked() {
    let store = Synthetic::default();
    let found = reported(&RELEASE.replace("weight: 100%", "weight: 90%"), &store).await.unwrap();
    assert!(render(&found, Paint::NONE).contains("wrong: spec.stages"));
    assert!(store.asked.lock().unwrap().is_empty());
}

/// A server that is not there.
#[tokio::test]
async fn a_prometheus_that_does_not_answer_is_an_error() {
    let folder = std::env::temp_dir().join(format!("canary-backtest-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("orders.yaml");
    std::fs::write(&file, RELEASE).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = Output { format: crate::output::Format::Json, paint: Paint::NONE, terminal: false };
    let what = |url: String| args::Backtest { file: file.display().to_string(), prometheus: url, ..asked(&[]) };
    let error = run(&what(format!("http://{closed}")), None, &output).await.unwrap_err();
    assert!(matches!(error, Error::Metrics(_)), "{error}");
    assert!(matches!(run(&what("ftp://x".to_owned()), None, &output).await, Err(Error::Metrics(_))));
    std::fs::remove_dir_all(&folder).unwrap();
}
