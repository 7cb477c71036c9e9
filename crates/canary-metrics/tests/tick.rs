//! One tick from question to figures, for each kind of gate: how the parts are put together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeSet;
use std::time::Duration;

use canary_counters::histogram::latency;
use canary_counters::measure::{event_rate, share};
use canary_counters::value::worst;
use canary_counters::{
    Grouping, HistogramUnit, Instant, Measured, Meter, PodKnown, Sample, Scope, Selector, Series, Tick, Value,
    ValueLimit,
};
use canary_metrics::fake::FakeSource;
use canary_metrics::{MetricSource, Problem};
use jiff::Timestamp;

/// When the canary was scaled up, in seconds.
const SCALED_UP: i64 = 1_700_000_000;
const LOOKBACK: Duration = Duration::from_secs(60);
const TOTAL: &str = "http_requests_total";
const BAD: &str = r#"http_requests_total{code=~"5.."}"#;
const HISTOGRAM: &str = "http_request_duration_seconds";
const EVENTS: &str = "risk_blocks_total";
const QUERY: &str = r#"max by (pod) (ws_staleness_seconds{pod=~"$pods"})"#;

fn series(name: &str, labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Series {
    let mut series = Series::default();
    series.labels.insert("__name__".into(), name.into());
    series.labels.insert("namespace".into(), "shop".into());
    series.labels.insert("pod".into(), "web-canary-a".into());
    for (label, value) in labels {
        series.labels.insert((*label).into(), (*value).into());
    }
    series.samples =
        samples.iter().map(|(at, value)| Sample { at_ms: (SCALED_UP + at) * 1000, value: *value }).collect();
    series
}

/// What the gates come to at one tick.
struct Figures {
    errors: Measured,
    latency: canary_counters::Latency,
    risk: Measured,
    staleness: Value,
}

/// The tick: ask, take in, measure. All questions are of one instant.
async fn figures(source: &dyn MetricSource, meter: &mut Meter, at: i64) -> Figures {
    let at = Timestamp::from_second(SCALED_UP + at).unwrap();
    let pods = [PodKnown { name: "web-canary-a".to_owned(), started_at_ms: SCALED_UP * 1000 }];
    let names: BTreeSet<String> = pods.iter().map(|pod| pod.name.clone()).collect();
    let scope = Scope::pods("shop", names.clone(), source.labels()).unwrap();
    let tick = Tick {
        now_ms: at.as_millisecond(),
        covered_from_ms: at.as_millisecond() - 60_000,
        pods: pods.to_vec(),
        grouping: Grouping::Pod(source.labels().pod.clone()),
    };
    let bad = Selector::parse(BAD).unwrap();
    let histogram = Selector::parse(HISTOGRAM).unwrap().bucket();
    let ask = async |selector: &Selector| source.counters(selector, &scope, LOOKBACK, at).await;
    let total_answer = ask(&Selector::parse(TOTAL).unwrap()).await;
    let bad_answer = ask(&bad).await;
    let histogram_answer = ask(&histogram).await;
    let events_answer = ask(&Selector::parse(EVENTS).unwrap()).await;
    for answer in [&total_answer, &bad_answer, &histogram_answer, &events_answer].into_iter().flatten() {
        meter.witness(answer, &tick);
    }
    let mut absorb = |name: &str, answer: Result<Vec<Series>, canary_metrics::FetchError>| match answer {
        Ok(series) => meter.absorb(name, &series, &tick).map_err(Measured::from),
        Err(error) => Err(Measured::Error(error.to_string())),
    };
    let total = absorb(TOTAL, total_answer);
    let failed = absorb(BAD, bad_answer);
    let events = absorb(EVENTS, events_answer);

    let errors = match (&total, &failed) {
        (Ok(total), Ok(failed)) => share(total, failed),
        (Err(why), _) | (_, Err(why)) => why.clone(),
    };
    let risk = match (&events, &total) {
        (Ok(events), Ok(total)) => event_rate(events, Some(total)),
        (Err(why), _) | (_, Err(why)) => why.clone(),
    };
    let reading = meter.absorb_histogram(HISTOGRAM, &histogram_answer.unwrap(), Some(&bad), &tick).unwrap();
    let limit = HistogramUnit::of(HISTOGRAM).limit(200);
    let latency = latency(&reading, limit, failed.as_ref().ok());
    let staleness = match source.value(QUERY, &scope, true, at).await {
        Ok(answer) => worst(&answer, ValueLimit::Max(30.0), &source.labels().pod, &names),
        Err(error) => Value::Error(error.to_string()),
    };
    Figures { errors, latency, risk, staleness }
}

#[tokio::test]
async fn one_tick_measures_every_kind_of_gate() {
    let source = FakeSource::new();
    source.set_counter(
        TOTAL,
        Ok(vec![
            series(TOTAL, &[("code", "200")], &[(50, 80.0), (55, 90.0), (60, 98.0)]),
            series(TOTAL, &[("code", "500")], &[(60, 2.0)]),
        ]),
    );
    source.set_counter(BAD, Ok(vec![series(TOTAL, &[("code", "500")], &[(60, 2.0)])]));
    let bucket = format!("{HISTOGRAM}_bucket");
    source.set_counter(
        &bucket,
        Ok(vec![
            series(&bucket, &[("le", "0.1")], &[(55, 70.0), (60, 80.0)]),
            series(&bucket, &[("le", "0.25")], &[(55, 85.0), (60, 95.0)]),
            series(&bucket, &[("le", "+Inf")], &[(55, 90.0), (60, 100.0)]),
        ]),
    );
    let labels = [("pod".to_owned(), "web-canary-a".to_owned())].into();
    source.set_value(QUERY, Ok(Instant::Vector(vec![(labels, 12.0)])));

    let mut meter = Meter::new(SCALED_UP * 1000);
    let first = figures(&source, &mut meter, 60).await;
    assert_eq!(first.errors, Measured::Counted { n: 100.0, k: 2.0 });
    assert_eq!(first.latency.breach, Measured::Counted { n: 100.0, k: 5.0 });
    assert_eq!(first.latency.proof, Measured::Counted { n: 100.0, k: 22.0 });
    assert_eq!((first.latency.breach_le, first.latency.proof_le), (Some(0.25), Some(0.1)));
    assert_eq!(first.risk, Measured::Counted { n: 1.0, k: 0.0 });
    assert!(matches!(first.staleness, Value::Measured { value: 12.0, within: true, .. }));

    // The next stage counts anew.
    meter.begin_window((SCALED_UP + 60) * 1000);
    source.set_counter(
        TOTAL,
        Ok(vec![
            series(TOTAL, &[("code", "200")], &[(60, 98.0), (65, 118.0)]),
            series(TOTAL, &[("code", "500")], &[(60, 2.0), (65, 12.0)]),
        ]),
    );
    source.set_counter(BAD, Ok(vec![series(TOTAL, &[("code", "500")], &[(60, 2.0), (65, 12.0)])]));
    let second = figures(&source, &mut meter, 65).await;
    assert_eq!(second.errors, Measured::Counted { n: 30.0, k: 10.0 });

    // An outage is an error that says so; what was counted before is not lost.
    source.set_counter(TOTAL, Err(Problem::Timeout(5000)));
    let third = figures(&source, &mut meter, 70).await;
    assert!(matches!(&third.errors, Measured::Error(why) if why == "fake: did not answer within 5000 ms"));
    source.set_counter(
        TOTAL,
        Ok(vec![
            series(TOTAL, &[("code", "200")], &[(60, 98.0), (65, 118.0), (70, 138.0)]),
            series(TOTAL, &[("code", "500")], &[(60, 2.0), (65, 12.0), (70, 12.0)]),
        ]),
    );
    let fourth = figures(&source, &mut meter, 70).await;
    assert_eq!(fourth.errors, Measured::Counted { n: 50.0, k: 10.0 });
}
