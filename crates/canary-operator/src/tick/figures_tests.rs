//! Looks at a source whose answers are set by hand.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use canary_api::CanaryRelease;
use canary_core::Fetched;
use canary_counters::Sample;
use canary_metrics::{FetchError, Problem, fake::FakeSource};
use futures::future::BoxFuture;
use serde_json::json;

use super::super::measure::{self, Source};

fn release(step: &str) -> CanaryRelease {
    serde_json::from_value(json!({
        "apiVersion": "canaryrelease.dev/v1alpha1", "kind": "CanaryRelease",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "target": {"name": "web"}, "interval": "2s",
            "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "requests_total"}},
            "stages": [{"weight": "50%", "duration": "10s"}, {"weight": "100%", "duration": "10s"}],
            "gates": [{"name": "fast", "latency": {"histogram": "took_seconds", "quantile": "95%", "limit": "200ms"}}],
            "comparison": [
                {"name": "db-p95", "query": "q{pod=~\"$pods\"}", "unit": "ms"},
                {"name": "elsewhere", "query": "q{namespace=\"other\",pod=~\"$pods\"}"},
            ],
        },
        "status": {"current": {"id": "web-1", "step": step, "stageIndex": 0, "weight": "50%", "windowSince": "2026-01-01T01:00:00Z"}},
    }))
    .unwrap()
}

fn observed(step: &str) -> Observed {
    let pod = |name: &str| json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}});
    Observed {
        target_pods: Fetched::Known(vec![pod("s-1"), pod("s-2")]),
        canary_pods: Fetched::Known(vec![pod("c")]),
        ..Observed::alone(release(step))
    }
}

fn at(second: i64) -> Timestamp {
    format!("2026-01-01T01:00:{second:02}Z").parse().unwrap()
}

fn series(labels: &[(&str, &str)], until: i64, value: impl Fn(i64) -> f64) -> Series {
    let sample = |second: i64| Sample { at_ms: at(second).as_millisecond(), value: value(second) };
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Series { labels, samples: (0..=until).map(sample).collect() }
}

/// What a cluster with cAdvisor says until a second: twice scraped, and with a pod's own group beside its containers.
fn of_containers(source: &FakeSource, until: i64) {
    let pods = [("c", 0.5), ("s-1", 0.1), ("s-2", 0.3)];
    let each = |value: &dyn Fn(f64, i64) -> f64| {
        let of = |(pod, size): &(&str, f64), job: &str| {
            series(&[("pod", pod), ("container", "web"), ("job", job)], until, |second| value(*size, second))
        };
        pods.iter().flat_map(|pod| [of(pod, "a"), of(pod, "b")]).collect::<Vec<_>>()
    };
    let only = "{container!~\"|POD\"}";
    let used = each(&|cores, second| cores * second as f64);
    source.set_counter(&format!("container_cpu_usage_seconds_total{only}"), Ok(used));
    let held = each(&|size, _| size * 1e6);
    source.set_counter(&format!("container_memory_working_set_bytes{only}"), Ok(held));
    let value = |value: f64| Instant::Vector(vec![(BTreeMap::new(), value)]);
    source.set_value("q{pod=~\"$pods\"}", Ok(value(4.0)));
}

async fn looked(
    source: &Arc<FakeSource>,
    observed: &Observed,
    seconds: std::ops::RangeInclusive<i64>,
    fill: impl Fn(&FakeSource, i64),
) -> Observed {
    let (mut ledger, mut asking, mut observed) = (None, Asking::default(), observed.clone());
    for second in seconds.step_by(2) {
        fill(source, second);
        asking.collect(ledger.as_mut());
        measure::gates(&mut ledger, Ok(Source::Store(source.as_ref())), &mut observed, at(second)).await;
        asking.begin(ledger.as_mut(), Store::new(Arc::clone(source) as Arc<dyn MetricSource>), &observed, at(second));
        while let Some(answer) = asking.0.join_next().await {
            ledger.as_mut().unwrap().take_figures(answer.unwrap().unwrap());
        }
    }
    observed
}

fn gauge<'a>(observed: &'a Observed, name: &str) -> &'a Gauge {
    let gauges = &observed.measured.figures.gauges;
    gauges.iter().find(|gauge| gauge.name == name).unwrap_or_else(|| panic!("no {name}: {gauges:#?}"))
}

fn close(estimate: Option<Estimate>, value: f64) -> bool {
    estimate.and_then(|found| found.value).is_some_and(|found| (found - value).abs() < 1e-9)
}

#[tokio::test]
async fn cpu_and_memory_are_the_means_of_each_sides_pods_and_each_container_counts_once() {
    let seen = looked(&Arc::new(FakeSource::new()), &observed("Bake"), 2..=20, of_containers).await;
    let (cpu, memory) = (gauge(&seen, CPU), gauge(&seen, MEMORY));
    assert!(close(cpu.canary, 0.5) && close(cpu.stable, 0.2), "{cpu:?}");
    assert!(close(memory.canary, 5e5) && close(memory.stable, 2e5), "{memory:?}");
    assert_eq!((cpu.source.as_str(), memory.unit.as_str()), ("container_cpu_usage_seconds_total", "B"));
    assert!(cpu.canary.unwrap().low.is_some() && cpu.looks.0 >= 8, "{cpu:?}");
    let query = gauge(&seen, "db-p95");
    assert!(close(query.canary, 4.0) && close(query.stable, 4.0) && query.unit == "ms", "{query:?}");
    let refused = gauge(&seen, "elsewhere");
    assert!(refused.canary.is_none() && refused.why.contains("own namespace \"shop\""), "{refused:?}");
}

#[tokio::test]
async fn where_no_node_tells_the_programs_themselves_do_and_else_the_reason_stands_once() {
    let fill = |source: &FakeSource, until: i64| {
        let of = |pod| series(&[("pod", pod)], until, |second| 0.25 * second as f64);
        source.set_counter("process_cpu_seconds_total", Ok(["c", "s-1", "s-2"].map(of).to_vec()));
        source.set_counter("process_resident_memory_bytes", Ok(["c", "s-1", "s-2"].map(of).to_vec()));
    };
    let seen = looked(&Arc::new(FakeSource::new()), &observed("Bake"), 2..=8, fill).await;
    assert!(close(gauge(&seen, CPU).canary, 0.25) && gauge(&seen, CPU).source == "process_cpu_seconds_total");
    let none = looked(&Arc::new(FakeSource::new()), &observed("Bake"), 2..=8, |_, _| {}).await;
    let names: Vec<&str> = none.measured.figures.gauges.iter().map(|gauge| gauge.name.as_str()).collect();
    assert_eq!(names, [BOTH, "db-p95", "elsewhere"]);
    assert!(gauge(&none, BOTH).why.starts_with("there is no container_memory_working_set_bytes and no process_"));
    assert_eq!(gauge(&none, "db-p95").why, "the query returns nothing");
    let broken = |source: &FakeSource, _: i64| {
        source.set_counter("container_memory_working_set_bytes{container!~\"|POD\"}", Err(Problem::Partial));
        source.set_value("q{pod=~\"$pods\"}", Err(Problem::Partial));
    };
    let broken = looked(&Arc::new(FakeSource::new()), &observed("Bake"), 2..=4, broken).await;
    assert!(!gauge(&broken, BOTH).why.is_empty() && broken.measured.readings.len() == 1);
}

#[tokio::test]
async fn before_any_traffic_moves_stable_alone_is_looked_at_and_a_window_begins_anew() {
    let seen = looked(
        &Arc::new(FakeSource::new()),
        &Observed { canary_pods: Fetched::Known(vec![]), ..observed("Baseline") },
        2..=10,
        of_containers,
    )
    .await;
    assert!(gauge(&seen, CPU).canary.is_none() && close(gauge(&seen, CPU).stable, 0.2));
    for step in ["Scale", "Roll", "RevertTarget", "Soak"] {
        let source = Arc::new(FakeSource::new());
        let seen = looked(&source, &observed(step), 2..=10, of_containers).await;
        assert_eq!(seen.measured.figures.gauges, [], "{step}");
        assert!(!source.asked().iter().any(|asked| asked.contains("cpu")), "{step}: {:?}", source.asked());
    }
}

#[tokio::test]
async fn how_long_requests_took_is_told_by_the_buckets_that_the_gate_reads() {
    let fill = |source: &FakeSource, until: i64| {
        let of = |pod: &str, le: &str, part: f64| {
            series(&[("pod", pod), ("le", le)], until, |second| part * 10.0 * second as f64)
        };
        let buckets = |pod| [of(pod, "0.1", 0.5), of(pod, "0.2", 0.9), of(pod, "+Inf", 1.0)];
        source.set_counter("took_seconds_bucket", Ok([buckets("c"), buckets("s-1"), buckets("s-2")].concat()));
    };
    let seen = looked(&Arc::new(FakeSource::new()), &observed("Bake"), 2..=20, fill).await;
    let [durations] = seen.measured.figures.durations.as_slice() else { panic!("{:?}", seen.measured.figures) };
    let (canary, stable) = (durations.canary.as_ref().unwrap(), durations.stable.as_ref().unwrap());
    assert_eq!((durations.unit, canary.requests(), stable.requests()), ("s", 200.0, 400.0));
    assert_eq!(canary.quantile(0.95, 0.95, 1.0).unwrap().unwrap().value, None, "P95 lies in the last bucket");
    let median = canary.quantile(0.6, 0.95, 1.0).unwrap().unwrap();
    assert!((median.value.unwrap() - 0.125).abs() < 1e-9, "{median:?}");
    assert_eq!(seen.measured.figures.since, None);
    // Without a series there is a reason and no figure.
    let none = looked(&Arc::new(FakeSource::new()), &observed("Bake"), 2..=4, |_, _| {}).await;
    assert!(none.measured.figures.durations[0].canary.is_err());
}

#[tokio::test]
async fn a_store_that_hangs_holds_nothing_up_and_is_not_asked_twice() {
    let mut observed = observed("Bake");
    let (mut ledger, mut asking) = (None, Asking::default());
    let source = Arc::new(FakeSource::new());
    measure::gates(&mut ledger, Ok(Source::Store(source.as_ref())), &mut observed, at(2)).await;
    asking.0.spawn(std::future::pending());
    let before = source.asked().len();
    asking.begin(ledger.as_mut(), Store::new(Arc::clone(&source) as Arc<dyn MetricSource>), &observed, at(4));
    asking.collect(ledger.as_mut());
    tokio::task::yield_now().await;
    assert_eq!((asking.0.len(), source.asked().len()), (1, before));
}

/// A source that takes its time, and sees how many questions it has at once.
#[derive(Debug, Default)]
struct Slow {
    answers: FakeSource,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Slow {
    async fn take_time(&self) {
        let before = self.now.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(before.saturating_add(1), Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl MetricSource for Slow {
    fn name(&self) -> &str {
        self.answers.name()
    }

    fn labels(&self) -> &LabelNames {
        self.answers.labels()
    }

    fn counters<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Series>, FetchError>> {
        Box::pin(async move {
            self.take_time().await;
            self.answers.counters(selector, scope, lookback, at).await
        })
    }

    fn value<'a>(
        &'a self,
        query: &'a str,
        scope: &'a Scope,
        require_pods: bool,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Instant, FetchError>> {
        Box::pin(async move {
            self.take_time().await;
            self.answers.value(query, scope, require_pods, at).await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_is_asked_one_question_at_a_time_for_however_many_releases() {
    let slow = Arc::new(Slow::default());
    of_containers(&slow.answers, 9);
    let store = Store::new(Arc::clone(&slow) as Arc<dyn MetricSource>);
    let mut observed = observed("Bake");
    let mut releases: Vec<(Option<Ledger>, Asking)> = (0..3).map(|_| (None, Asking::default())).collect();
    for (ledger, asking) in &mut releases {
        measure::gates(ledger, Ok(Source::Store(&slow.answers)), &mut observed, at(9)).await;
        asking.begin(ledger.as_mut(), store.clone(), &observed, at(9));
    }
    for (_, asking) in &mut releases {
        let answer = asking.0.join_next().await.unwrap().unwrap().unwrap();
        assert!(answer.resources.is_ok() && answer.queries.len() == 2, "{answer:?}");
    }
    assert_eq!(slow.most.load(Ordering::SeqCst), 1);
}
