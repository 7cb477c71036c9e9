//! Ticks on a source whose answers are set by hand.

use super::*;
use canary_core::{Fetched, gates};
use canary_counters::{NativeBucket, NativeSample, NativeSeries, Sample, Series};
use canary_metrics::fake::FakeSource;
use serde_json::json;

fn release(step: &str, window: &str) -> CanaryRelease {
    serde_json::from_value(json!({
        "apiVersion": "canaryrelease.dev/v1alpha1", "kind": "CanaryRelease",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "target": {"name": "web"}, "interval": "2s",
            "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "requests_total"}},
            "stages": [{"weight": "100%", "duration": "10s"}],
            "gates": [{"name": "errors", "errorRate": {"bad": "bad_total", "total": "requests_total", "limit": "1%"}}],
        },
        "status": {"current": {"id": "web-1", "step": step, "stageIndex": 0, "windowSince": window}},
    }))
    .unwrap()
}

fn observed(release: CanaryRelease) -> Observed {
    let pod = |name: &str| json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}});
    Observed {
        target_pods: Fetched::Known(vec![pod("s")]),
        canary_pods: Fetched::Known(vec![pod("c")]),
        ..Observed::alone(release)
    }
}

/// A counter of one pod, sampled each second, that rises by `rate` from second 0 of the minute on.
fn series(pod: &str, rate: f64, until: i64) -> Series {
    let zero = "2026-01-01T01:00:00Z".parse::<Timestamp>().unwrap().as_millisecond();
    let samples = (0..=until)
        .map(|second| Sample { at_ms: zero.saturating_add(second.saturating_mul(1000)), value: rate * second as f64 })
        .collect();
    Series { labels: [("pod".to_owned(), pod.to_owned()), ("code".to_owned(), "200".to_owned())].into(), samples }
}

fn at(second: i64) -> Timestamp {
    format!("2026-01-01T01:00:{second:02}Z").parse().unwrap()
}

async fn tick(ledger: &mut Option<Ledger>, release: CanaryRelease, second: i64) -> (Measure, Measure) {
    let reading = tick_on(FakeSource::new(), ledger, release, second).await;
    (reading.canary, reading.stable)
}

async fn tick_on(source: FakeSource, ledger: &mut Option<Ledger>, release: CanaryRelease, second: i64) -> Reading {
    source.set_counter("requests_total", Ok(vec![series("s", 10.0, second), series("c", 1.0, second)]));
    source.set_counter("bad_total", Ok(Vec::new()));
    let mut observed = observed(release);
    gates(ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
    observed.measured.readings.remove(0)
}

#[tokio::test]
async fn each_window_counts_from_its_own_beginning_on_both_sides() {
    let mut ledger = None;
    let since = "2026-01-01T01:00:10Z";
    let (canary, stable) = tick(&mut ledger, release("Baseline", since), 20).await;
    assert_eq!(canary, Measure::Counted { n: 10.0, k: 0.0, seconds: 10.0 });
    assert_eq!(stable, Measure::Counted { n: 100.0, k: 0.0, seconds: 10.0 });
    let next = "2026-01-01T01:00:22Z";
    let (canary, _) = tick(&mut ledger, release("Shift", next), 24).await;
    assert_eq!(canary, Measure::Counted { n: 2.0, k: 0.0, seconds: 2.0 });
    let (canary, _) = tick(&mut ledger, release("Bake", next), 30).await;
    assert_eq!(canary, Measure::Counted { n: 8.0, k: 0.0, seconds: 8.0 });
}

#[tokio::test]
async fn requests_a_second_are_told_by_two_samples_and_not_before() {
    let mut ledger = None;
    let mut rate = async |samples: &[i64], second: i64| {
        let source = FakeSource::new();
        let mut counted = series("s", 10.0, 60);
        let zero = at(0).as_millisecond();
        counted.samples.retain(|sample| samples.contains(&((sample.at_ms - zero) / 1000)));
        source.set_counter("requests_total", Ok(vec![counted, series("c", 0.0, second)]));
        source.set_counter("bad_total", Ok(Vec::new()));
        let mut observed = observed(release("Baseline", "2026-01-01T01:00:10Z"));
        gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
        observed.measured.stable_rate
    };
    // Sampled each 15 s: the window has seen none of it, then once, then twice.
    assert_eq!(rate(&[1], 12).await, None);
    assert_eq!(rate(&[1, 16], 18).await, None);
    assert_eq!(rate(&[1, 16], 20).await, None);
    assert_eq!(rate(&[1, 16, 31], 32).await, Some(10.0));
}

#[tokio::test]
async fn after_a_restart_the_sums_of_the_status_are_gone_on_from() {
    let mut restarted = release("Bake", "2026-01-01T01:00:10Z");
    let sums = canary_api::Counted {
        gate: "errors".into(),
        side: "canary".into(),
        n: 7.0,
        k: 1.0,
        seconds: 9.0,
        ..Default::default()
    };
    restarted.status.as_mut().unwrap().current.as_mut().unwrap().counts = vec![sums];
    let mut ledger = None;
    let (canary, _) = tick(&mut ledger, restarted.clone(), 20).await;
    assert_eq!(canary, Measure::NoData("requests_total counted nothing yet".into()));
    let (canary, _) = tick(&mut ledger, restarted, 25).await;
    assert_eq!(canary, Measure::Counted { n: 12.0, k: 1.0, seconds: 14.0 });
}

#[tokio::test]
async fn after_a_restart_a_store_that_keeps_the_past_gives_back_every_tick() {
    let mut whole = None;
    let running = release("Bake", "2026-01-01T01:00:10Z");
    let mut all = None;
    for second in (12..=30).step_by(2) {
        all = Some(tick_on(FakeSource::new(), &mut whole, running.clone(), second).await);
    }
    let mut restarted = running;
    let sums = canary_api::Counted {
        gate: "errors".into(),
        side: "canary".into(),
        n: 15.0,
        seconds: 15.0,
        ..Default::default()
    };
    restarted.status.as_mut().unwrap().current.as_mut().unwrap().counts = vec![sums];
    let mut replayed = None;
    let again = tick_on(FakeSource::new().with_history(), &mut replayed, restarted, 30).await;
    assert_eq!(Some(again), all);
}

/// The same reverted, all traffic back on stable in second 30.
fn reverted(step: &str) -> CanaryRelease {
    let mut release = release(step, "2026-01-01T01:00:10Z");
    let current = release.status.as_mut().unwrap().current.as_mut().unwrap();
    let sums = |side: &str| canary_api::Counted {
        gate: "errors".into(),
        side: side.into(),
        n: 5000.0,
        k: 500.0,
        seconds: 20.0,
        ..Default::default()
    };
    current.counts = vec![sums("canary"), sums("stable")];
    let revert = json!({
        "at": "2026-01-01T01:00:28Z", "by": "gate errors", "clearAt": "2026-01-01T01:00:30Z", "message": "m",
        "outcome": "RolledBack", "reason": "GateBreached", "rejects": true, "stage": "1/1",
    });
    current.revert = Some(serde_json::from_value(revert).unwrap());
    release
}

#[tokio::test]
async fn after_a_revert_stable_is_counted_from_when_all_traffic_was_back() {
    // With what was counted before, and by an operator that comes to it just then.
    for begun in [true, false] {
        let mut ledger = None;
        if begun {
            tick(&mut ledger, release("Bake", "2026-01-01T01:00:10Z"), 28).await;
        }
        let (_, stable) = tick(&mut ledger, reverted("RevertDrain"), 40).await;
        assert_eq!(stable, Measure::Counted { n: 100.0, k: 0.0, seconds: 10.0 }, "begun {begun}");
    }
}

#[tokio::test]
async fn while_traffic_goes_back_nothing_is_asked() {
    let mut ledger = None;
    tick(&mut ledger, release("Bake", "2026-01-01T01:00:10Z"), 28).await;
    for step in ["Revert", "RevertTarget"] {
        let mut observed = observed(reverted(step));
        let source = FakeSource::new();
        source.set_counter("requests_total", Ok(vec![series("s", 10.0, 29)]));
        gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(29)).await;
        assert_eq!((observed.measured.readings.len(), ledger.is_some()), (0, step == "Revert"), "{step}");
    }
}

/// The same with a warm-up, a stable pod that has long served, and a canary that gets its first request in second 4.
fn warming(step: &str, window: &str, warm_up: &str) -> CanaryRelease {
    let mut release = release(step, window);
    release.spec.gates[0].warm_up = Some(warm_up.parse().unwrap());
    release
}

async fn warming_tick(source: FakeSource, ledger: &mut Option<Ledger>, release: CanaryRelease, second: i64) -> Reading {
    let late = |rate: f64| {
        let mut series = series("c", rate, second);
        series.samples.iter_mut().for_each(|sample| sample.value = (sample.value - 3.0 * rate).max(0.0));
        series
    };
    let mut stable = series("s", 10.0, second);
    stable.samples.iter_mut().for_each(|sample| sample.value += 5000.0);
    source.set_counter("requests_total", Ok(vec![stable, late(10.0)]));
    source.set_counter("bad_total", Ok(vec![late(1.0)]));
    let mut observed = observed(release);
    gates(ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
    observed.measured.readings.remove(0)
}

#[tokio::test]
async fn the_canarys_first_seconds_of_traffic_are_shown_and_not_judged() {
    let mut ledger = None;
    let window = "2026-01-01T01:00:02Z";
    let first = warming_tick(FakeSource::new(), &mut ledger, warming("Bake", window, "10s"), 10).await;
    assert_eq!(first.canary, Measure::NoData("requests_total counted nothing yet".into()));
    assert_eq!(first.left_out.canary, (70.0, 7.0));
    // The stable pod is an hour old.
    assert_eq!((first.stable, first.left_out.stable), (Measure::Counted { n: 80.0, k: 0.0, seconds: 8.0 }, (0.0, 0.0)));
    let later = warming_tick(FakeSource::new(), &mut ledger, warming("Bake", window, "10s"), 30).await;
    assert_eq!(later.canary, Measure::Counted { n: 160.0, k: 16.0, seconds: 28.0 });
    assert_eq!(later.left_out.canary, (110.0, 11.0));
    let gate = &warming("Bake", window, "10s").spec.gates[0];
    let shown = gates::judge(gate, Some(&later), 0.5).shown;
    assert_eq!(shown.rests_on, "16 of 160 in 28s; 11 of 110 in warm-up not judged");
    // The next stage's window: nobody is cold again.
    let next = warming("Bake", "2026-01-01T01:00:31Z", "10s");
    let next = warming_tick(FakeSource::new(), &mut ledger, next, 36).await;
    assert_eq!((next.canary, next.left_out.canary), (Measure::Counted { n: 50.0, k: 5.0, seconds: 5.0 }, (0.0, 0.0)));
}

#[tokio::test]
async fn a_warm_up_is_replayed_as_it_was() {
    let running = warming("Bake", "2026-01-01T01:00:02Z", "10s");
    let (mut whole, mut all) = (None, None);
    for second in (4..=30).step_by(2) {
        all = Some(warming_tick(FakeSource::new().with_history(), &mut whole, running.clone(), second).await);
    }
    let mut restarted = running;
    let sums = canary_api::Counted { gate: "errors".into(), side: "canary".into(), n: 150.0, ..Default::default() };
    restarted.status.as_mut().unwrap().current.as_mut().unwrap().counts = vec![sums];
    let mut replayed = None;
    let again = warming_tick(FakeSource::new().with_history(), &mut replayed, restarted.clone(), 30).await;
    assert_eq!(Some(again), all);
    // Without a past to read, the canary goes on as warm: it served before.
    let mut resumed = None;
    warming_tick(FakeSource::new(), &mut resumed, restarted.clone(), 30).await;
    let resumed = warming_tick(FakeSource::new(), &mut resumed, restarted, 35).await;
    assert_eq!(resumed.canary, Measure::Counted { n: 200.0, k: 5.0, seconds: 5.0 });
}

/// A gateway's counter of one Service's requests: `base` from before, and `rate` a second from second 0 on.
fn of_gateway(service: &str, base: f64, rate: f64, from: i64, until: i64) -> Series {
    let mut series = series("", rate, until);
    let labels = [("service", service), ("namespace", "shop"), ("instance", "10.0.0.9:9100")];
    series.labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    series.samples.iter_mut().for_each(|sample| sample.value += base);
    series.samples.drain(..usize::try_from(from).unwrap());
    series
}

fn by_service(step: &str, window: &str) -> CanaryRelease {
    let mut release = release(step, window);
    release.spec.traffic.requests.by = canary_api::By::Service;
    release.spec.gates[0].by = canary_api::By::Service;
    // A breach would be told as it was at its first tick.
    release.spec.gates[0].error_rate.as_mut().unwrap().limit = "50%".parse().unwrap();
    release
}

/// The gateway has long served stable, and the canary from second 4 on: of ten requests a second one is bad.
async fn gateway_tick(
    source: &FakeSource,
    ledger: &mut Option<Ledger>,
    release: CanaryRelease,
    second: i64,
) -> Observed {
    let mut requests = vec![of_gateway("web", 90_000.0, 30.0, 0, second)];
    let mut bad = vec![of_gateway("web", 700.0, 0.0, 0, second)];
    if second >= 4 {
        requests.push(of_gateway("web-canary", -30.0, 10.0, 4, second));
        bad.push(of_gateway("web-canary", -3.0, 1.0, 4, second));
    }
    source.set_counter("requests_total", Ok(requests));
    source.set_counter("bad_total", Ok(bad));
    let mut observed = observed(release);
    gates(ledger, Ok(Source::Store(source)), &mut observed, at(second)).await;
    observed
}

#[tokio::test]
async fn by_service_each_side_is_asked_about_for_itself() {
    let (mut ledger, source) = (None, FakeSource::new());
    let seen = gateway_tick(&source, &mut ledger, by_service("Bake", "2026-01-01T01:00:02Z"), 22).await;
    let reading = &seen.measured.readings[0];
    // The canary's first requests count whole: the gateway was there, and had not seen it.
    assert_eq!(reading.canary, Measure::Counted { n: 190.0, k: 19.0, seconds: 20.0 });
    assert_eq!(reading.stable, Measure::Counted { n: 600.0, k: 0.0, seconds: 20.0 });
    assert_eq!(seen.measured.share, Some(190.0 / 790.0));
    let asked: BTreeSet<String> = source.asked().into_iter().collect();
    let expected = ["bad_total", "requests_total"].into_iter().flat_map(|name| {
        ["web", "web-canary"].map(|service| format!("{name}{{namespace=\"shop\",service=\"{service}\"}}"))
    });
    assert_eq!(asked, expected.collect());
    assert_eq!(source.asked().len(), 4);
}

#[tokio::test]
async fn by_service_the_handed_back_traffic_is_the_candidates_and_what_was_before_is_not() {
    let (mut ledger, source) = (None, FakeSource::new());
    gateway_tick(&source, &mut ledger, by_service("Roll", "2026-01-01T01:00:02Z"), 20).await;
    let seen = gateway_tick(&source, &mut ledger, by_service("HandBack", "2026-01-01T01:00:02Z"), 30).await;
    let reading = &seen.measured.readings[0];
    // Both Services count now, since the window's beginning; the 90,000 of the version before do not.
    assert_eq!(reading.canary, Measure::Counted { n: 270.0 + 840.0, k: 27.0, seconds: 28.0 });
    assert_eq!(reading.stable, Measure::Counted { n: 540.0, k: 0.0, seconds: 28.0 }, "nobody is stable any more");
}

#[tokio::test]
async fn by_service_the_past_is_replayed_too() {
    let running = by_service("Bake", "2026-01-01T01:00:02Z");
    let (mut whole, mut all) = (None, None);
    for second in (4..=30).step_by(2) {
        let source = FakeSource::new().with_history();
        all = Some(gateway_tick(&source, &mut whole, running.clone(), second).await.measured.readings);
    }
    let mut restarted = running;
    let sums = canary_api::Counted { gate: "errors".into(), side: "canary".into(), n: 250.0, ..Default::default() };
    restarted.status.as_mut().unwrap().current.as_mut().unwrap().counts = vec![sums];
    let again =
        gateway_tick(&FakeSource::new().with_history(), &mut None, restarted.clone(), 30).await.measured.readings;
    assert_eq!(Some(again), all);
    // Not where the Services have changed hands since: then the sums are gone on from.
    restarted.status.as_mut().unwrap().current.as_mut().unwrap().step = Step::HandBack;
    let mut ledger = None;
    gateway_tick(&FakeSource::new().with_history(), &mut ledger, restarted.clone(), 30).await;
    let seen = gateway_tick(&FakeSource::new().with_history(), &mut ledger, restarted, 32).await;
    assert!(
        matches!(seen.measured.readings[0].canary, Measure::Counted { n: 330.0, .. }),
        "{:?}",
        seen.measured.readings[0]
    );
}

#[tokio::test]
async fn by_service_silence_of_the_gateway_is_no_pass() {
    let (mut ledger, source) = (None, FakeSource::new());
    gateway_tick(&source, &mut ledger, by_service("Bake", "2026-01-01T01:00:02Z"), 20).await;
    let mut observed = observed(by_service("Bake", "2026-01-01T01:00:02Z"));
    gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(40)).await;
    let silent = &observed.measured.readings[0].canary;
    assert!(
        matches!(silent, Measure::Partial { n: 170.0, why, .. } if why.contains("web-canary at 10.0.0.9:9100 is 20 s old")),
        "{silent:?}"
    );
    // No share is told by it either.
    source.set_counter("requests_total", Ok(vec![of_gateway("web", 90_000.0, 30.0, 0, 44)]));
    gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(44)).await;
    assert!(matches!(observed.measured.readings[0].canary, Measure::Partial { .. }));
    assert_eq!(observed.measured.due_in_silence, 0.0);
}

#[tokio::test]
async fn by_service_a_silent_canary_is_told_though_an_address_of_the_gateway_is_gone() {
    let (mut ledger, source) = (None, FakeSource::new());
    let mut observed = observed(by_service("Bake", "2026-01-01T01:00:02Z"));
    observed.release.status.as_mut().unwrap().current.as_mut().unwrap().weight = "50%".to_owned();
    for second in (6..=40).step_by(2) {
        // Until second 10 a second address counts, too; from second 12 on the canary gets nothing more.
        let mut gone = of_gateway("web-canary", 0.0, 3.0, 0, second.min(10));
        gone.labels.insert("instance".into(), "10.0.0.8:9100".into());
        let mut canary = of_gateway("web-canary", 0.0, 3.0, 0, second);
        canary.samples.iter_mut().for_each(|sample| sample.value = sample.value.min(36.0));
        source.set_counter("requests_total", Ok(vec![of_gateway("web", 0.0, 3.0, 0, second), canary, gone]));
        source.set_counter("bad_total", Ok(Vec::new()));
        gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
    }
    assert!((70.0..=84.0).contains(&observed.measured.due_in_silence), "{}", observed.measured.due_in_silence);
}

#[tokio::test]
async fn one_gate_may_ask_the_gateway_and_another_the_pods() {
    let mut mixed = by_service("Bake", "2026-01-01T01:00:02Z");
    mixed.spec.traffic.requests.by = canary_api::By::Pod;
    let mut own = mixed.spec.gates[0].clone();
    (own.name, own.by) = ("own".into(), canary_api::By::Pod);
    mixed.spec.gates.push(own);
    let (mut ledger, source) = (None, FakeSource::new());
    source.set_counter(
        "requests_total",
        Ok(vec![of_gateway("web-canary", 5.0, 10.0, 0, 20), series("c", 3.0, 20), series("s", 9.0, 20)]),
    );
    source.set_counter("bad_total", Ok(Vec::new()));
    let mut observed = observed(mixed);
    gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(20)).await;
    let counted: Vec<&Measure> = observed.measured.readings.iter().map(|reading| &reading.canary).collect();
    let of = |n: f64| Measure::Counted { n, k: 0.0, seconds: 18.0 };
    assert_eq!(counted, [&of(180.0), &of(54.0)]);
    // Without pods the gateway can still be asked.
    (observed.canary_pods, observed.target_pods) = (Fetched::Missing, Fetched::Missing);
    source.set_counter("requests_total", Ok(vec![of_gateway("web-canary", 5.0, 10.0, 0, 24)]));
    gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(24)).await;
    assert_eq!(observed.measured.readings[0].canary, Measure::Counted { n: 220.0, k: 0.0, seconds: 22.0 });
    assert!(
        matches!(&observed.measured.readings[1].canary, Measure::Error(why) if why.contains("could not be listed"))
    );
}

/// A tick on a native histogram: ten requests a second of each pod, of which the canary's are slow from second 20 on.
/// From second 16 on its buckets are twice as wide.
async fn native_tick(source: FakeSource, ledger: &mut Option<Ledger>, release: CanaryRelease, second: i64) -> Reading {
    let bucket = |lower: f64, upper: f64, count: f64| NativeBucket { lower, upper, count };
    let of = |pod: &str, slow_from: i64| {
        let samples = (0..=second).map(|seconds| {
            let (all, slow) = (10.0 * seconds as f64, 10.0 * seconds.saturating_sub(slow_from).max(0) as f64);
            let fine = [bucket(0.1, 0.14, all - slow), bucket(0.28, 0.4, slow)];
            let wide = [bucket(0.1, 0.2, all - slow), bucket(0.2, 0.4, slow)];
            let mut buckets = if seconds < 16 { fine.to_vec() } else { wide.to_vec() };
            buckets.retain(|bucket| bucket.count > 0.0);
            NativeSample { at_ms: at(seconds).as_millisecond(), count: all, buckets }
        });
        NativeSeries { labels: series(pod, 0.0, 0).labels, samples: samples.collect() }
    };
    source.set_native("latency_seconds", vec![of("c", 20), of("s", 99)]);
    source.set_counter("requests_total", Ok(vec![series("s", 10.0, second), series("c", 10.0, second)]));
    let mut observed = observed(release);
    gates(ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
    observed.measured.readings.remove(0)
}

#[tokio::test]
async fn a_native_histogram_is_judged_at_the_boundaries_next_to_the_limit_and_replayed() {
    let mut running = release("Bake", "2026-01-01T01:00:02Z");
    let rule = json!({"histogram": "latency_seconds", "quantile": "1%", "limit": "200ms"});
    running.spec.gates[0].error_rate = None;
    running.spec.gates[0].latency = Some(serde_json::from_value(rule).unwrap());
    let (mut whole, mut all) = (None, None);
    for second in (4..=30).step_by(2) {
        all = Some(native_tick(FakeSource::new().with_history(), &mut whole, running.clone(), second).await);
    }
    let all = all.unwrap();
    assert_eq!(all.canary, Measure::Counted { n: 280.0, k: 100.0, seconds: 28.0 });
    assert_eq!(all.proof, Some(all.canary.clone()));
    assert_eq!(all.stable, Measure::Counted { n: 280.0, k: 0.0, seconds: 28.0 });
    assert_eq!(gates::judge(&running.spec.gates[0], Some(&all), 0.5).shown.value, "35.71%");
    let sums = canary_api::Counted { gate: "errors".into(), side: "canary".into(), n: 270.0, ..Default::default() };
    running.status.as_mut().unwrap().current.as_mut().unwrap().counts = vec![sums];
    let again = native_tick(FakeSource::new().with_history(), &mut None, running, 30).await;
    assert_eq!(again, all);
}

#[tokio::test]
async fn events_are_held_against_the_time_that_is_judged() {
    let mut release = warming("Bake", "2026-01-01T01:00:02Z", "10s");
    let rule = json!({"counter": "bad_total", "limit": "1/min"});
    release.spec.gates[0].error_rate = None;
    release.spec.gates[0].event_rate = Some(serde_json::from_value(rule).unwrap());
    let mut ledger = None;
    let reading = warming_tick(FakeSource::new(), &mut ledger, release, 30).await;
    // 16 of the canary's 27 seconds of traffic, of 28 seconds in all,
    // and a second more, for what the window's first sample counts of the time before.
    let judged = 29.0 * (16.0 / 27.0);
    assert_eq!(reading.canary, Measure::Counted { n: 160.0, k: 16.0, seconds: judged });
    assert!(matches!(reading.stable, Measure::Counted { seconds, .. } if seconds == 29.0));
}

#[tokio::test]
async fn an_edited_gate_is_judged_by_its_new_limit_at_once() {
    let tick = async |ledger: &mut Option<Ledger>, limit: &str, second: i64| {
        let mut release = release("Bake", "2026-01-01T01:00:10Z");
        release.spec.gates[0].error_rate.as_mut().unwrap().limit = limit.parse().unwrap();
        let source = FakeSource::new().with_history();
        source.set_counter("requests_total", Ok(vec![series("s", 10.0, second), series("c", 10.0, second)]));
        source.set_counter("bad_total", Ok(vec![series("s", 0.0, second), series("c", 0.2, second)]));
        let mut observed = observed(release);
        gates(ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
        observed.measured.readings.remove(0)
    };
    let mut ledger = None;
    let loose = tick(&mut ledger, "5%", 40).await;
    assert!(!loose.evidence.unwrap().above);
    let tight = tick(&mut ledger, "1%", 40).await;
    assert!(tight.evidence.unwrap().above);
    assert_eq!(tight.canary, loose.canary);
}

#[tokio::test]
async fn a_canary_that_counts_nothing_from_the_start_is_heard_to_be_silent() {
    let mut ledger = None;
    let mut due = 0.0;
    for second in (12..=40).step_by(2) {
        let mut release = release("Bake", "2026-01-01T01:00:10Z");
        release.status.as_mut().unwrap().current.as_mut().unwrap().weight = "50%".to_owned();
        let source = FakeSource::new();
        source.set_counter("requests_total", Ok(vec![series("s", 10.0, second), series("c", 0.0, second)]));
        let mut observed = observed(release);
        gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
        due = observed.measured.due_in_silence;
    }
    assert!(due >= 200.0, "{due}");
}

#[tokio::test]
async fn pods_that_could_not_be_listed_pass_nothing() {
    let mut ledger = None;
    let source = FakeSource::new();
    source.set_counter("requests_total", Ok(vec![series("s", 10.0, 20), series("c", 10.0, 20)]));
    let mut observed = observed(release("Bake", "2026-01-01T01:00:10Z"));
    observed.canary_pods = Fetched::Failed("the server fails".to_owned());
    gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(20)).await;
    assert_eq!(
        observed.measured.readings[0].canary,
        Measure::Error("the canary's pods could not be listed".to_owned())
    );
    assert!(matches!(observed.measured.readings[0].stable, Measure::Counted { .. }));
}

#[tokio::test]
async fn events_are_held_against_the_time_that_their_samples_cover() {
    let mut ledger = None;
    let mut most = f64::NEG_INFINITY;
    // Sampled every 15 s, looked at every 2 s; one event a second on the canary, the limit is 60/min for it.
    for second in (12..=58).step_by(2) {
        let mut release = release("Bake", "2026-01-01T01:00:10Z");
        release.status.as_mut().unwrap().current.as_mut().unwrap().weight = "50%".to_owned();
        release.spec.gates[0] = serde_json::from_value(
            json!({"name": "events", "eventRate": {"counter": "events_total", "limit": "120/min"}}),
        )
        .unwrap();
        let every_15 = |pod: &str, rate: f64| {
            let mut series = series(pod, rate, second);
            series.samples.retain(|sample| (sample.at_ms / 1000).rem_euclid(15) == 14);
            series
        };
        let source = FakeSource::new();
        source.set_counter("requests_total", Ok(vec![every_15("s", 10.0), every_15("c", 10.0)]));
        source.set_counter("events_total", Ok(vec![every_15("s", 1.0), every_15("c", 1.0)]));
        let mut observed = observed(release);
        gates(&mut ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
        most = most.max(observed.measured.readings[0].evidence.map_or(0.0, |evidence| evidence.canary));
    }
    assert!(most < 0.5, "{most}");
}

#[test]
fn the_next_look_is_right_after_the_last_sample_of_the_interval() {
    // Samples every 5 s, the newest at 100 s, stored 0.3 s later; one tick is 5 s.
    assert_eq!(next_look(100_300, 5_000, 100_400, 5_000), Some(105_300));
    assert_eq!(next_look(100_300, 5_000, 103_000, 5_000), Some(105_300));
    assert_eq!(next_look(100_300, 1_000, 100_400, 10_000), Some(110_300));
    // Rarer than ticks: sometimes there is none to wait for.
    assert_eq!(next_look(100_300, 15_000, 100_400, 10_000), None);
    assert_eq!(next_look(100_300, 15_000, 110_400, 10_000), Some(115_300));
    assert_eq!(next_look(100_300, 0, 110_400, 10_000), None);
}

/// A release at 20 % with one baseline pod, which gets as much as the canary.
fn beside(weight: &str, gate: serde_json::Value) -> CanaryRelease {
    let mut release = release("Bake", "2026-01-01T01:00:02Z");
    release.spec.gates = serde_json::from_value(json!([gate])).unwrap();
    release.spec.baseline.pods = true;
    let current = release.status.as_mut().unwrap().current.as_mut().unwrap();
    current.weight = "20%".to_owned();
    current.baseline_pods = Some(canary_api::BaselinePods { weight: weight.to_owned(), pods: 1, ..Default::default() });
    release
}

fn relative() -> serde_json::Value {
    json!({"name": "as-stable", "relative": {"counter": "bad_total", "to": "Stable", "margin": "10%"}})
}

/// Stable has 30 requests/s and 3 bad, canary and baseline pod 10 each, and 1 and 2 bad.
fn beside_now(release: CanaryRelease, pods: Fetched<Vec<Json>>) -> Observed {
    let mut observed = observed(release);
    observed.baseline.pods = pods;
    observed
}

fn baseline_pod() -> Fetched<Vec<Json>> {
    Fetched::Known(vec![json!({"metadata": {"name": "b", "creationTimestamp": "2026-01-01T00:00:00Z"}})])
}

fn three(source: &FakeSource, second: i64) {
    let all = |stable: f64, canary: f64, baseline: f64| {
        vec![series("s", stable, second), series("c", canary, second), series("b", baseline, second)]
    };
    source.set_counter("requests_total", Ok(all(30.0, 10.0, 10.0)));
    source.set_counter("bad_total", Ok(all(3.0, 1.0, 2.0)));
}

async fn three_tick(ledger: &mut Option<Ledger>, mut observed: Observed, second: i64) -> Observed {
    let source = FakeSource::new();
    three(&source, second);
    gates(ledger, Ok(Source::Store(&source)), &mut observed, at(second)).await;
    observed
}

#[tokio::test]
async fn a_relative_gate_compares_with_the_pods_beside_the_canary_and_the_share_is_of_all() {
    let mut ledger = None;
    three_tick(&mut ledger, beside_now(beside("20%", relative()), baseline_pod()), 4).await;
    let seen = three_tick(&mut ledger, beside_now(beside("20%", relative()), baseline_pod()), 32).await;
    let reading = &seen.measured.readings[0];
    assert_eq!(reading.baseline_pods, Some(Measure::Counted { n: 300.0, k: 60.0, seconds: 30.0 }));
    assert_eq!(reading.evidence.unwrap().compared, Some((300.0, 300.0)));
    assert_eq!(reading.stable, Measure::Counted { n: 900.0, k: 90.0, seconds: 30.0 }, "stable stays the target's pods");
    assert_eq!(seen.measured.share, Some(0.2));
}

#[tokio::test]
async fn without_weight_the_stable_pods_are_compared_with_and_nothing_counted_is_lost() {
    let mut ledger = None;
    three_tick(&mut ledger, beside_now(beside("20%", relative()), baseline_pod()), 12).await;
    let lost = || beside_now(beside("0%", relative()), Fetched::Known(Vec::new()));
    // From here on its requests stand still: it is gone.
    let source = FakeSource::new();
    let all = |second: i64| vec![series("s", 30.0, second), series("c", 10.0, second)];
    for second in [14, 32] {
        source.set_counter("requests_total", Ok(all(second)));
        source.set_counter("bad_total", Ok(Vec::new()));
        let mut seen = lost();
        gates(&mut ledger, Ok(Source::Store(&source)), &mut seen, at(second)).await;
        let reading = &seen.measured.readings[0];
        assert_eq!(reading.baseline_pods, None);
        if second == 32 {
            // 10 s with the pods beside it, and the 18 s after the tick that saw them gone.
            assert_eq!(reading.evidence.unwrap().compared, Some((280.0, 100.0 + 540.0)));
            assert_eq!(seen.measured.share, Some(300.0 / 1300.0));
        }
    }
}

#[tokio::test]
async fn a_list_of_baseline_pods_that_fails_changes_nothing() {
    let (mut ledger, mut other) = (None, None);
    for second in [4, 10] {
        three_tick(&mut ledger, beside_now(beside("20%", relative()), baseline_pod()), second).await;
        three_tick(&mut other, beside_now(beside("20%", relative()), baseline_pod()), second).await;
    }
    let failed = || Fetched::Failed("the server fails".to_owned());
    let seen = three_tick(&mut ledger, beside_now(beside("20%", relative()), failed()), 20).await;
    let expected = three_tick(&mut other, beside_now(beside("20%", relative()), baseline_pod()), 20).await;
    assert_eq!((seen.measured.readings, seen.measured.share), (expected.measured.readings, expected.measured.share));
}

#[tokio::test]
async fn a_limit_on_events_is_the_whole_services() {
    let gate = json!({"name": "events", "eventRate": {"counter": "bad_total", "limit": "1000/min", "scope": "Total"}});
    let mut ledger = None;
    three_tick(&mut ledger, beside_now(beside("20%", gate.clone()), baseline_pod()), 4).await;
    let seen = three_tick(&mut ledger, beside_now(beside("20%", gate), baseline_pod()), 32).await;
    let Measure::Counted { n, k, .. } = seen.measured.readings[0].stable else {
        panic!("{:?}", seen.measured.readings[0])
    };
    assert_eq!((n, k), (1200.0, 150.0));
}

#[tokio::test]
async fn after_a_restart_the_comparison_is_replayed() {
    let running = beside("20%", relative());
    let (mut whole, mut all) = (None, None);
    for second in (4..=30).step_by(2) {
        let source = FakeSource::new().with_history();
        three(&source, second);
        let mut seen = beside_now(running.clone(), baseline_pod());
        gates(&mut whole, Ok(Source::Store(&source)), &mut seen, at(second)).await;
        all = Some(seen.measured.readings);
    }
    let mut restarted = running;
    let sums = canary_api::Counted { gate: "as-stable".into(), side: "canary".into(), n: 250.0, ..Default::default() };
    restarted.status.as_mut().unwrap().current.as_mut().unwrap().counts = vec![sums];
    let source = FakeSource::new().with_history();
    three(&source, 30);
    let mut seen = beside_now(restarted, baseline_pod());
    gates(&mut None, Ok(Source::Store(&source)), &mut seen, at(30)).await;
    assert_eq!(Some(seen.measured.readings), all);
}

#[tokio::test]
async fn by_service_the_baselines_is_asked_about_too() {
    let mut release = beside(
        "20%",
        json!({"name": "as-stable", "by": "Service", "relative": {"counter": "bad_total", "margin": "10%"}}),
    );
    release.spec.traffic.requests.by = canary_api::By::Service;
    let source = FakeSource::new();
    let all = |stable: f64, each: f64, second: i64| {
        let side = |service: &str, rate: f64| of_gateway(service, 0.0, rate, 0, second);
        vec![side("web", stable), side("web-canary", each), side("web-baseline", each)]
    };
    let mut ledger = None;
    for second in [4, 32] {
        source.set_counter("requests_total", Ok(all(30.0, 10.0, second)));
        source.set_counter("bad_total", Ok(all(3.0, 1.0, second)));
        let mut seen = beside_now(release.clone(), Fetched::Known(Vec::new()));
        gates(&mut ledger, Ok(Source::Store(&source)), &mut seen, at(second)).await;
        if second == 32 {
            let baseline = seen.measured.readings[0].baseline_pods.clone();
            assert_eq!(baseline, Some(Measure::Counted { n: 300.0, k: 30.0, seconds: 30.0 }));
            assert_eq!(seen.measured.share, Some(0.2));
        }
    }
    assert!(source.asked().iter().any(|asked| asked.contains("web-baseline")), "{:?}", source.asked());
}
