use canary_api::GatePlan;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::store::tests::{NOW, Synthetic};

const MINUTE: i64 = 60_000;

fn spec() -> CanaryReleaseSpec {
    let manifest = crate::manifest::parse("orders.yaml", crate::commands::backtest::tests::RELEASE).unwrap();
    manifest[0].spec.clone().unwrap()
}

fn time(millis: i64) -> Time {
    Time(Timestamp::from_millisecond(millis).unwrap())
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(NOW).unwrap()
}

/// Of a release that took two hours, by the gates of a spec and one that the spec has no more.
fn status(spec: &CanaryReleaseSpec) -> ReleaseRecordStatus {
    let names = spec.gates.iter().map(|gate| gate.name.clone()).chain(["gone".to_owned()]);
    ReleaseRecordStatus {
        target: "orders".to_owned(),
        started: Some(time(NOW - 180 * MINUTE)),
        ended: Some(time(NOW - 60 * MINUTE)),
        gates: names.map(|gate| GatePlan { gate, ..GatePlan::default() }).collect(),
        ..ReleaseRecordStatus::default()
    }
}

#[tokio::test]
async fn every_sample_is_written_from_before_the_start_until_after_the_end() {
    let spec = spec();
    let store = Synthetic { most_ms: Some(30 * MINUTE), ..Synthetic::default() };
    let files = of(&status(&spec), &spec, "shop", &store, now()).await.unwrap();
    let gate = spec.gates.iter().find(|gate| gate.error_rate.is_some()).unwrap();
    let file = files.iter().find(|file| file.name == format!("series_{}.csv", gate.name)).unwrap();
    let text = file.text.as_ref().unwrap();
    let mut rows = text.lines();
    assert_eq!(rows.next(), Some("time,deployment,pod,series,value"));
    let first = rows.next().unwrap();
    assert!(first.starts_with("2026-01-01T08:50:") && first.contains(",orders,orders-5d9c7bf4c8-aaaaa,"), "{first}");
    assert!(text.contains(r#","http_requests_total{code=""200""}","#), "{first}");
    // Ten minutes, two hours and five minutes of a sample in 15 s.
    let of_series = |deployment: &str| {
        let start = format!(",{deployment},orders-5d9c7bf4c8-aaaaa,\"http_requests_total{{code=\"\"500\"\"}}\"");
        text.lines().filter(|row| row.contains(&start)).count()
    };
    for deployment in ["orders", "orders-canary", "orders-baseline"] {
        assert_eq!(of_series(deployment), 135 * 4, "{deployment}");
    }
    let gone = files.iter().find(|file| file.name == "series_gone.csv").unwrap();
    assert_eq!(gone.text, Err("the CanaryRelease has no such gate any more".to_owned()));
}

#[tokio::test]
async fn what_is_too_much_is_left_out_and_said() {
    let spec = spec();
    let mut room = 100;
    let span = span(&status(&spec), now()).unwrap();
    let file = of_gate(&spec.gates[0], &spec, "orders", "shop", &Synthetic::default(), &span, &mut room).await.unwrap();
    assert!(matches!(file.text, Err(why) if why.contains("more than")));
}

#[tokio::test]
async fn without_the_gates_counters_nothing_is_invented() {
    let record = ReleaseRecord { status: Some(status(&spec())), ..ReleaseRecord::default() };
    let files = gather(&record, None, &Synthetic::default(), now()).await.unwrap();
    assert!(!files.is_empty());
    assert!(files.iter().all(|file| matches!(&file.text, Err(why) if why.contains("without a cluster"))));
    let open = ReleaseRecordStatus { ended: None, ..status(&spec()) };
    assert_eq!(span(&open, now()), Some(Span::between(NOW - 190 * MINUTE, NOW)));
    assert_eq!(span(&ReleaseRecordStatus::default(), now()), None);
}

#[test]
fn a_cell_is_no_formula_and_ends_where_it_ends() {
    assert_eq!(cell("=1+1"), "'=1+1");
    assert_eq!(cell("a\",\n\"b"), "\"a\"\", \"\"b\"");
    assert_eq!(cell("plain{}"), "plain{}");
}
