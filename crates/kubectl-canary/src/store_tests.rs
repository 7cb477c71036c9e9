#![allow(clippy::arithmetic_side_effects)]

use canary_counters::{Instant, LabelNames, Sample, Selector};
use futures::future::{BoxFuture, FutureExt as _};
use std::sync::Mutex;

use super::*;

/// 2026-01-01T12:00:00Z.
pub(crate) const NOW: i64 = 1_767_268_800_000;
const SCRAPE_MS: i64 = 15_000;

/// A store with four pods of 25 requests/s each, of which 1 in 200 is bad but for an incident.
#[derive(Debug, Default)]
pub(crate) struct Synthetic {
    pub(crate) labels: LabelNames,
    /// More than so much at once is too much.
    pub(crate) most_ms: Option<i64>,
    /// Between these times all are bad.
    pub(crate) incident: (i64, i64),
    /// What was asked, as PromQL, with the time back.
    pub(crate) asked: Mutex<Vec<(String, Duration)>>,
}

impl Synthetic {
    /// Bad ones up to a time.
    fn bad(&self, at_ms: i64) -> f64 {
        let (from, to) = self.incident;
        let worse = (at_ms.min(to) - from).max(0) as f64;
        (at_ms as f64 * 0.125 + worse * 24.875) / 1000.0
    }

    fn series(&self, selector: &Selector, from_ms: i64, at_ms: i64) -> Vec<Series> {
        let mut all = Vec::new();
        for (offset, pod) in (0..).zip(["aaaaa", "bbbbb", "ccccc", "ddddd"]) {
            for code in ["200", "500"] {
                let labels = [
                    ("__name__", "http_requests_total".to_owned()),
                    ("namespace", "shop".to_owned()),
                    ("pod", format!("orders-5d9c7bf4c8-{pod}")),
                    ("code", code.to_owned()),
                ];
                let first = (from_ms.div_euclid(SCRAPE_MS) + 1) * SCRAPE_MS + offset * 2000;
                let value = |at: i64| if code == "500" { self.bad(at) } else { at as f64 * 0.025 - self.bad(at) };
                let times = (0..).map(|number| first + number * SCRAPE_MS).take_while(|time| *time <= at_ms);
                let samples = times.map(|time| Sample { at_ms: time, value: value(time).round() }).collect();
                all.push(Series { labels: labels.map(|(key, value)| (key.to_owned(), value)).into(), samples });
            }
        }
        all.retain(|one| selector.matches(one) && !one.samples.is_empty());
        all
    }
}

impl MetricSource for Synthetic {
    fn name(&self) -> &str {
        "synthetic"
    }

    fn labels(&self) -> &LabelNames {
        &self.labels
    }

    fn counters<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Series>, FetchError>> {
        let scoped = selector.scoped(scope).unwrap();
        self.asked.lock().unwrap().push((scoped.as_str().to_owned(), lookback));
        let long = i64::try_from(lookback.as_millis()).unwrap();
        let answer = if self.most_ms.is_some_and(|most| long > most) {
            Err(FetchError { provider: "synthetic".to_owned(), problem: Problem::TooLarge(1) })
        } else {
            Ok(self.series(selector, at.as_millisecond() - long, at.as_millisecond()))
        };
        async move { answer }.boxed()
    }

    fn value<'a>(
        &'a self,
        _: &'a str,
        _: &'a Scope,
        _: bool,
        _: Timestamp,
    ) -> BoxFuture<'a, Result<Instant, FetchError>> {
        async { Ok(Instant::Vector(Vec::new())) }.boxed()
    }
}

fn spec() -> CanaryReleaseSpec {
    let manifest = crate::manifest::parse("orders.yaml", crate::commands::backtest::tests::RELEASE).unwrap();
    manifest[0].spec.clone().unwrap()
}

fn span(hours: u64) -> Span {
    Span::of(&spec(), Timestamp::from_millisecond(NOW).unwrap(), Duration::from_secs(hours * 3600))
}

#[tokio::test]
async fn the_past_is_read_hour_by_hour_and_only_of_the_targets_pods() {
    let store = Synthetic::default();
    let mut told = Vec::new();
    let past = read(&store, &spec(), "shop", &span(3), |percent| told.push(percent)).await.unwrap();
    assert_eq!((past.from_ms(), past.to_ms()), (NOW - 3 * CHUNK_MS - LATE_MS, NOW - LATE_MS));
    assert_eq!((past.pods(), told), (4, vec![33, 66, 100]));
    assert!((past.requests() - 100.0 * 3.0 * 3600.0).abs() < 8.0 * 400.0, "{}", past.requests());
    let asked = store.asked.lock().unwrap();
    assert_eq!(asked.len(), 6);
    assert!(asked.iter().all(|(query, long)| {
        query.contains(r#"namespace="shop",pod=~"orders-[a-z0-9]{1,16}-[a-z0-9]{5}""#)
            && *long == Duration::from_secs(3600)
    }));
}

#[tokio::test]
async fn what_is_too_much_at_once_is_asked_for_in_parts() {
    let whole = read(&Synthetic::default(), &spec(), "shop", &span(2), |_| ()).await.unwrap();
    let store = Synthetic { most_ms: Some(1_200_000), ..Synthetic::default() };
    let parts = read(&store, &spec(), "shop", &span(2), |_| ()).await.unwrap();
    assert!((parts.requests() - whole.requests()).abs() < 1e-6);
    assert_eq!((parts.from_ms(), parts.to_ms(), parts.pods()), (whole.from_ms(), whole.to_ms(), whole.pods()));
    // Not even one tick: that is an error, and no endless loop.
    let store = Synthetic { most_ms: Some(1), ..Synthetic::default() };
    let error = read(&store, &spec(), "shop", &span(2), |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("cannot read the metrics"), "{error}");
}

#[tokio::test]
async fn a_histogram_without_buckets_in_the_past_is_an_error() {
    let mut spec = spec();
    let slow = r#"{"name": "p95", "latency": {"histogram": "latency_seconds", "quantile": "95%", "limit": "200ms"}}"#;
    spec.gates.push(serde_json::from_str(slow).unwrap());
    let error = read(&Synthetic::default(), &spec, "shop", &span(2), |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("latency_seconds_bucket has no series in this past"), "{error}");
}
