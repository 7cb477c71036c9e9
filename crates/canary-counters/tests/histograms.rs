//! Slow requests: boundaries, failed requests, disagreeing pods.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use canary_counters::histogram::latency;
use canary_counters::value::worst;
use canary_counters::{CounterError, HistogramUnit, Instant, Measured, Meter, Selector, Series, Value, ValueLimit};
use common::{series, tick};
use std::collections::{BTreeMap, BTreeSet};

const A: &[(&str, i64)] = &[("web-a", 0)];

/// A histogram's series from cumulative counts.
fn buckets(labels: &str, at: i64, counts: &[(&str, f64)]) -> Vec<Series> {
    counts.iter().map(|(le, count)| series(&format!("{labels},le={le}"), &[(at - 5, 0.0), (at, *count)])).collect()
}

fn k(measured: &Measured) -> f64 {
    measured.complete().unwrap_or_else(|| panic!("{measured:?}")).1
}

#[test]
fn a_limit_on_a_boundary_is_judged_there_however_it_is_spelled() {
    for spelling in ["0.2", "0.20", "0.200000", "2e-1", "2.0E-1"] {
        let mut meter = Meter::new(0);
        let answer = buckets("pod=web-a", 10, &[("0.1", 50.0), (spelling, 90.0), ("0.5", 99.0), ("+Inf", 100.0)]);
        let reading = meter.absorb_histogram("h", &answer, None, &tick(10, A)).unwrap();
        let latency = latency(&reading, HistogramUnit::Seconds.limit(200), None);
        assert_eq!(k(&latency.breach), 10.0, "{spelling}");
        assert_eq!(k(&latency.proof), 10.0, "{spelling}");
        assert_eq!((latency.breach_le, latency.proof_le), (Some(0.2), Some(0.2)), "{spelling}");
        assert_eq!(latency.note, None, "{spelling}");
    }
}

#[test]
fn between_boundaries_a_breach_uses_the_upper_and_a_proof_the_lower() {
    let mut meter = Meter::new(0);
    let answer = buckets("pod=web-a", 10, &[("0.1", 50.0), ("0.25", 90.0), ("0.5", 99.0), ("+Inf", 100.0)]);
    let reading = meter.absorb_histogram("h", &answer, None, &tick(10, A)).unwrap();
    let measured = latency(&reading, 0.2, None);
    assert_eq!((k(&measured.breach), measured.breach_le), (10.0, Some(0.25)));
    assert_eq!((k(&measured.proof), measured.proof_le), (50.0, Some(0.1)));
    assert!(measured.note.unwrap().contains("0.25"));
}

#[test]
fn a_limit_beyond_the_boundaries_says_so() {
    let mut meter = Meter::new(0);
    let answer = buckets("pod=web-a", 10, &[("0.1", 50.0), ("0.5", 99.0), ("+Inf", 100.0)]);
    let reading = meter.absorb_histogram("h", &answer, None, &tick(10, A)).unwrap();
    let high = latency(&reading, 2.0, None);
    assert!(matches!(&high.breach, Measured::NoData(why) if why.contains("no boundary at or above 2")));
    assert_eq!(k(&high.proof), 1.0);
    let low = latency(&reading, 0.01, None);
    assert_eq!(k(&low.breach), 50.0);
    assert!(matches!(&low.proof, Measured::NoData(why) if why.contains("no boundary at or below")));
}

#[test]
fn failed_requests_count_as_slow_where_the_buckets_tell_them() {
    let failed = Selector::parse(r#"http_requests_total{code=~"5.."}"#).unwrap();
    let mut meter = Meter::new(0);
    let mut answer = buckets("pod=web-a,code=200", 10, &[("0.2", 90.0), ("+Inf", 95.0)]);
    answer.extend(buckets("pod=web-a,code=500", 10, &[("0.2", 4.0), ("+Inf", 5.0)]));
    let reading = meter.absorb_histogram("h", &answer, Some(&failed), &tick(10, A)).unwrap();
    assert!(!reading.needs_failed);
    let measured = latency(&reading, 0.2, None);
    // 100 requests, 90 of them fast and not failed: 5 slow ones, 4 fast failed, 1 slow failed.
    assert_eq!(measured.breach.complete(), Some((100.0, 10.0)));
    assert_eq!(measured.note, None);
}

#[test]
fn all_failed_requests_are_all_slow() {
    let failed = Selector::parse(r#"http_requests_total{code=~"5.."}"#).unwrap();
    let mut meter = Meter::new(0);
    let answer = buckets("pod=web-a,code=500", 10, &[("0.2", 10.0), ("+Inf", 10.0)]);
    let counter = meter.absorb("f", &[series("pod=web-a,code=500", &[(5, 0.0), (10, 10.0)])], &tick(10, A)).unwrap();
    let reading = meter.absorb_histogram("h", &answer, Some(&failed), &tick(10, A)).unwrap();
    assert_eq!(latency(&reading, 0.2, Some(&counter)).breach.complete(), Some((10.0, 10.0)));
}

/// A counter of its own for failures has no label that tells them in the buckets: else every request would be a slow one.
#[test]
fn a_counter_of_failures_alone_does_not_make_every_request_slow() {
    for failed in ["failures_total", r#"failures_total{job="web"}"#] {
        let failed = Selector::parse(failed).unwrap();
        let mut meter = Meter::new(0);
        let t = tick(10, A);
        let answer = buckets("pod=web-a,job=web", 10, &[("0.2", 98.0), ("+Inf", 100.0)]);
        let counter = meter.absorb("f", &[series("pod=web-a,job=web", &[(5, 0.0), (10, 3.0)])], &t).unwrap();
        let reading = meter.absorb_histogram("h", &answer, Some(&failed), &t).unwrap();
        assert_eq!(latency(&reading, 0.2, Some(&counter)).breach.complete(), Some((100.0, 3.0)), "{failed}");
    }
}

#[test]
fn without_the_label_a_breach_counts_the_certain_and_a_proof_the_possible() {
    let failed = Selector::parse(r#"http_requests_total{code=~"5.."}"#).unwrap();
    let mut meter = Meter::new(0);
    let t = tick(10, A);
    let answer = buckets("pod=web-a", 10, &[("0.2", 90.0), ("+Inf", 100.0)]);
    let counter = meter.absorb("f", &[series("pod=web-a,code=500", &[(10, 7.0)])], &t).unwrap();
    let reading = meter.absorb_histogram("h", &answer, Some(&failed), &t).unwrap();
    assert!(reading.needs_failed);
    let measured = latency(&reading, 0.2, Some(&counter));
    assert_eq!(measured.breach.complete(), Some((100.0, 10.0)), "10 slow, 7 failed: 10 at least");
    assert_eq!(measured.proof.complete(), Some((100.0, 17.0)), "and 17 at most");
    assert!(measured.note.unwrap().contains("labels of the failed"));
    let forgotten = latency(&reading, 0.2, None);
    assert!(matches!(forgotten.breach, Measured::Error(_)), "failed requests are never forgotten silently");
    let more = meter.absorb("m", &[series("pod=web-a,code=500", &[(10, 101.0)])], &t).unwrap();
    assert!(matches!(latency(&reading, 0.2, Some(&more)).breach, Measured::Error(_)));
}

#[test]
fn only_boundaries_that_every_pod_has_are_used() {
    let mut meter = Meter::new(0);
    let pods = &[("web-a", 0), ("web-b", 0)];
    let mut answer = buckets("pod=web-a", 10, &[("0.2", 90.0), ("0.5", 95.0), ("+Inf", 100.0)]);
    answer.extend(buckets("pod=web-b", 10, &[("0.1", 10.0), ("0.5", 40.0), ("+Inf", 50.0)]));
    let reading = meter.absorb_histogram("h", &answer, None, &tick(10, pods)).unwrap();
    let measured = latency(&reading, 0.2, None);
    assert_eq!((measured.breach_le, measured.breach.complete()), (Some(0.5), Some((150.0, 15.0))));
    assert!(matches!(measured.proof, Measured::NoData(_)));
}

#[test]
fn lying_histograms_are_errors() {
    let mut meter = Meter::new(0);
    let t = tick(10, A);
    for (name, answer) in [
        ("le is no number", buckets("pod=web-a", 10, &[("fast", 1.0), ("+Inf", 2.0)])),
        ("le is NaN", buckets("pod=web-a", 10, &[("NaN", 1.0), ("+Inf", 2.0)])),
        ("le is empty", buckets("pod=web-a", 10, &[("", 1.0), ("+Inf", 2.0)])),
        ("no le", vec![series("pod=web-a", &[(10, 1.0)])]),
        ("no +Inf", buckets("pod=web-a", 10, &[("0.1", 1.0), ("0.2", 2.0)])),
    ] {
        let error = meter.absorb_histogram("h", &answer, None, &t).expect_err(name);
        assert!(matches!(error, CounterError::Boundary { .. }), "{name}: {error}");
    }
    let twice = buckets("pod=web-a", 10, &[("0.2", 1.0), ("0.20", 2.0), ("+Inf", 3.0)]);
    assert!(matches!(meter.absorb_histogram("h", &twice, None, &t), Err(CounterError::Duplicate { .. })));
    // A bucket above its total.
    let answer = buckets("pod=web-a", 10, &[("0.2", 11.0), ("+Inf", 10.0)]);
    let reading = meter.absorb_histogram("g", &answer, None, &t).unwrap();
    assert!(matches!(latency(&reading, 0.2, None).breach, Measured::Error(_)));
    // Nothing at all.
    let reading = meter.absorb_histogram("e", &[], None, &t).unwrap();
    let measured = latency(&reading, 0.2, None);
    assert!(matches!(&measured.breach, Measured::NoData(why) if why.contains("no series of web-a")), "{measured:?}");
}

#[test]
fn units_follow_the_metrics_name() {
    for (metric, unit) in [
        ("http_request_duration_seconds", HistogramUnit::Seconds),
        ("http_request_duration_seconds_bucket", HistogramUnit::Seconds),
        ("istio_request_duration_milliseconds_bucket", HistogramUnit::Milliseconds),
        ("envoy_cluster_upstream_rq_time_ms", HistogramUnit::Milliseconds),
        ("envoy_cluster_upstream_rq_time", HistogramUnit::Milliseconds),
        ("envoy_http_downstream_rq_time_bucket", HistogramUnit::Milliseconds),
        ("my_rq_time", HistogramUnit::Seconds),
        ("something", HistogramUnit::Seconds),
    ] {
        assert_eq!(HistogramUnit::of(metric), unit, "{metric}");
    }
    assert_eq!(HistogramUnit::Seconds.limit(200), 0.2);
    assert_eq!(HistogramUnit::Milliseconds.limit(200), 200.0);
}

#[test]
fn of_several_values_the_worst_pod_decides() {
    let pods: BTreeSet<String> = ["web-a", "web-b"].map(str::to_owned).into();
    let row = |labels: &[(&str, &str)], value: f64| {
        let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        (labels, value)
    };
    let max = |answer: &Instant| worst(answer, ValueLimit::Max(30.0), "pod", &pods);
    let two = Instant::Vector(vec![row(&[("pod", "web-a")], 10.0), row(&[("pod", "web-b")], 31.0)]);
    assert_eq!(max(&two), Value::Measured { value: 31.0, pod: Some("web-b".into()), within: false, missing: vec![] });
    assert!(matches!(
        worst(&two, ValueLimit::Min(10.0), "pod", &pods),
        Value::Measured { value: 10.0, within: true, .. }
    ));
    let one = Instant::Vector(vec![row(&[("pod", "web-a")], 10.0)]);
    assert!(matches!(max(&one), Value::Measured { within: true, missing, .. } if missing == ["web-b"]));
    assert!(matches!(max(&Instant::Scalar(30.0)), Value::Measured { within: true, pod: None, .. }));
    assert!(matches!(max(&Instant::Vector(vec![row(&[], 3.0)])), Value::Measured { pod: None, .. }));
    assert!(matches!(max(&Instant::Vector(vec![])), Value::NoData(_)));
    for (name, answer) in [
        ("NaN", Instant::Scalar(f64::NAN)),
        ("infinite", Instant::Scalar(f64::NEG_INFINITY)),
        ("one pod NaN", Instant::Vector(vec![row(&[("pod", "web-a")], 1.0), row(&[("pod", "web-b")], f64::NAN)])),
        ("two without pods", Instant::Vector(vec![row(&[("x", "1")], 1.0), row(&[("x", "2")], 1.0)])),
        ("one without pod", Instant::Vector(vec![row(&[("pod", "web-a")], 1.0), row(&[], 1.0)])),
        ("a stranger", Instant::Vector(vec![row(&[("pod", "db-0")], 1.0)])),
    ] {
        assert!(matches!(max(&answer), Value::Error(_)), "{name}");
    }
}
