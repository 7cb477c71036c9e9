//! Releases on sampled traffic: what is promised of them, and that they agree with what is known of the gates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::num::NonZeroUsize;

use canary_api::CanaryReleaseSpec;
use canary_sim::{
    Place, SimError, chart,
    simulate::{Options, Summary, simulate},
    svg::svg,
};
use canary_stats::{Alpha, know};

/// Requests of a simulated stage that its first tick does not see in time, and the like: chances agree up to this.
const GRAIN: f64 = 0.03;

fn spec(gates: &str, stages: &str) -> CanaryReleaseSpec {
    let text = format!(
        "{{target: {{name: web}}, traffic: {{service: web, routes: [{{kind: HTTPRoute, name: web}}], requests: {{counter: requests_total}}}}, \
         baseline: {{duration: 1m}}, stages: [{stages}], gates: [{gates}]}}"
    );
    serde_norway::from_str(&text).unwrap()
}

/// The plan of docs/bench-gates.md: one of six gates, of which five never have anything to say.
const ERRORS: &str = "{name: errors, errorRate: {bad: bad_total, total: requests_total, limit: 1%}, dispersion: 1}";
const FIVE: &str = "{weight: 1%, duration: 5m}, {weight: 5%, duration: 5m}, {weight: 25%, duration: 5m}, {weight: 50%, duration: 5m}, {weight: 100%, duration: 5m}";

fn options(runs: u32, rps: f64, faults: &[&str]) -> Options {
    Options {
        runs,
        seed: 1,
        rps,
        healthy: Vec::new(),
        faults: faults.iter().map(|fault| fault.parse().unwrap()).collect(),
        threads: NonZeroUsize::new(2).unwrap(),
    }
}

/// 4.4 standard deviations of a share from so many runs.
fn room(share: f64, runs: u32) -> f64 {
    4.4 * (share * (1.0 - share) / f64::from(runs)).sqrt() + 1.0 / f64::from(runs)
}

fn all_ends(summary: &Summary) -> u32 {
    summary.ends.promoted + summary.ends.reverted() + summary.ends.paused_in_all() + summary.ends.unfinished
}

#[test]
fn the_same_seed_gives_the_same_releases_whatever_the_threads() {
    let spec = spec(ERRORS, FIVE);
    let one = Options { threads: NonZeroUsize::MIN, ..options(12, 100.0, &["errors=3%@stage1"]) };
    let summary = simulate(&spec, &one).unwrap();
    let again = Options { threads: NonZeroUsize::new(3).unwrap(), ..one.clone() };
    assert_eq!(simulate(&spec, &again).unwrap(), summary);
    let other = Options { seed: 2, ..one };
    assert_ne!(simulate(&spec, &other).unwrap().reverted_after_seconds, summary.reverted_after_seconds);
}

/// The budget is 5 % of releases; at half of the limit next to none is reverted. A gate on rare events may lack a verdict
/// in a stage that sees little of them.
#[test]
fn healthy_releases_are_promoted() {
    let gates = format!(
        "{ERRORS}, {{name: p95, latency: {{histogram: seconds, quantile: 95%, limit: 200ms}}}}, \
         {{name: restarts, eventRate: {{counter: restarts_total, limit: 6/min}}}}, \
         {{name: against, relative: {{counter: bad_total, margin: 50%}}}}, \
         {{name: depth, value: {{query: 'max(depth{{pod=~\"$pods\"}})', max: 30}}}}"
    );
    let summary = simulate(&spec(&gates, FIVE), &options(60, 1000.0, &[])).unwrap();
    assert!(summary.reverted.share <= 0.05 + room(0.05, 60), "{:?}", summary.ends);
    assert_eq!(summary.reverted_without_fault, summary.reverted);
    assert!(summary.ends.promoted >= 40, "{:?}", summary.ends);
    let rare = |by: &str| by.contains("restarts") || by.contains("against");
    assert!(summary.ends.paused.iter().all(|ended| rare(&ended.by)), "{:?}", summary.ends);
    assert_eq!((all_ends(&summary), summary.ends.unfinished), (60, 0));
    assert_eq!(summary.calls, None);
    let healthy: Vec<&str> = summary.healthy.iter().map(|gate| gate.healthy.as_str()).collect();
    assert_eq!(healthy, ["0.5%", "2.5%", "3/min", "0.1%", "15"]);
}

/// 3 % against 1 % at 100 requests/s, from stage 2 on: docs/bench-gates.md has it reverted by the end of that stage.
#[test]
fn a_fault_at_stage_2_is_called_at_stage_2() {
    let summary = simulate(&spec(ERRORS, FIVE), &options(100, 100.0, &["errors=3%@stage2"])).unwrap();
    let calls = summary.calls.unwrap();
    assert_eq!(summary.ends.reverted_at(Place::Stage(1)), 0, "{:?}", summary.ends);
    assert_eq!(calls.called, calls.runs, "{calls:?}");
    assert!(f64::from(summary.stages[1].reverted) >= 0.95 * f64::from(calls.runs), "{:?}", summary.ends);
    assert!(summary.ends.rolled_back.iter().all(|ended| ended.by == "errors"));
    // 5 requests/s: 537 of them in the middle (GATES.md has it for six gates) take under two minutes.
    assert!(calls.median_seconds.unwrap() < 120.0 && calls.eighty_percent_seconds > calls.median_seconds);
}

/// A fault that begins late is called as fast as an early one.
#[test]
fn a_fault_by_the_clock_is_called_wherever_the_release_is() {
    let long = "{weight: 5%, duration: 30m}, {weight: 100%, duration: 1m}";
    let summary = simulate(&spec(ERRORS, long), &options(100, 100.0, &["errors=50%@20m"])).unwrap();
    let calls = summary.calls.unwrap();
    assert_eq!((calls.runs, calls.called, summary.ends.reverted_at(Place::Stage(1))), (100, 100, 100));
    assert!(calls.eighty_percent_seconds.unwrap() <= 20.0, "{calls:?}");
    assert!(summary.reverted_after_seconds.iter().all(|seconds| *seconds >= 1200.0));
}

/// What one stage can detect is known without a simulation; the two must agree.
#[test]
fn stages_detect_what_is_known_of_them() {
    const RUNS: u32 = 300;
    // 600 requests to the canary in the first stage, and a second stage that has no say.
    let stages = "{weight: 2%, duration: 5m}, {weight: 100%, duration: 1s}";
    let spec = spec(ERRORS, stages);
    let alpha = Alpha::RELEASE.split(1, 2).unwrap();
    for share in [0.02, 0.03, 0.04] {
        let fault = format!("errors={}%@stage1", share * 100.0);
        let summary = simulate(&spec, &options(RUNS, 100.0, &[&fault])).unwrap();
        // A stage without a verdict goes on once: what is reverted until then was detected in time.
        let in_time = summary.stages[0].began_after_seconds.unwrap() + 305.0;
        let reverted = summary.reverted_after_seconds.iter().filter(|seconds| **seconds <= in_time).count();
        let found = reverted as f64 / f64::from(RUNS);
        let known = know::chance_to_detect(0.01, alpha, 600.0, share).unwrap();
        assert!((found - known).abs() < room(known, RUNS) + GRAIN, "{share}: {found} for {known}");
    }
}

#[test]
fn events_and_values_and_comparisons_are_called_too() {
    let stages = "{weight: 20%, duration: 5m}, {weight: 100%, duration: 1m}";
    for (gate, fault) in [
        ("{name: restarts, eventRate: {counter: restarts_total, limit: 6/min}}", "restarts=30/min@stage1"),
        ("{name: orders, eventRate: {counter: failures_total, limit: 6/min, scope: Total}}", "orders=x40@stage1"),
        (&format!("{{name: against, relative: {{counter: bad_total, margin: 50%}}}}, {ERRORS}"), "against=x5@stage1"),
        ("{name: depth, value: {query: 'max(depth{pod=~\"$pods\"})', max: 30}}", "value=31@stage1"),
        ("{name: p95, latency: {histogram: seconds, quantile: 95%, limit: 200ms}}", "latency=15%@stage1"),
    ] {
        let summary = simulate(&spec(gate, stages), &options(20, 200.0, &[fault])).unwrap();
        // Events of the whole service may break the limit before they tell whose they are: then it is Confounded.
        assert!(summary.ends.reverted_at(Place::Stage(1)) >= 18, "{fault}: {:?}", summary.ends);
        assert_eq!(summary.ends.promoted, 0, "{fault}: {:?}", summary.ends);
    }
}

/// A stage that sees too few requests has no verdict, and a person decides.
#[test]
fn too_little_traffic_pauses() {
    let summary = simulate(&spec(ERRORS, FIVE), &options(10, 2.0, &[])).unwrap();
    assert_eq!(summary.ends.paused_at(Place::Stage(1)), 10, "{:?}", summary.ends);
    assert_eq!(summary.ends.paused[0].by, "Inconclusive (errors)");
}

/// The stable version above the limit: nothing begins.
#[test]
fn an_unhealthy_service_does_not_get_past_its_baseline() {
    let options = Options { healthy: vec!["errors=5%".parse().unwrap()], ..options(10, 500.0, &[]) };
    let summary = simulate(&spec(ERRORS, FIVE), &options).unwrap();
    assert_eq!(summary.ends.paused_at(Place::Baseline), 10, "{:?}", summary.ends);
    assert_eq!(summary.ends.paused[0].by, "StableInBreach");
}

#[test]
fn a_spec_that_the_operator_would_refuse_is_refused() {
    let short = spec(ERRORS, "{weight: 10%, duration: 5m}");
    assert!(matches!(simulate(&short, &options(1, 1.0, &[])), Err(SimError::Spec(faults)) if faults.len() == 1));
    let none = spec(ERRORS, FIVE);
    assert!(matches!(simulate(&none, &options(1, 0.0, &[])), Err(SimError::Level(_))));
    assert!(matches!(simulate(&none, &options(1, 1.0, &["errors=3/min"])), Err(SimError::Level(_))));
}

#[test]
fn an_approval_is_taken_to_be_given() {
    let stages = "{weight: 50%, duration: 1m, approval: true}, {weight: 100%, duration: 1m}";
    let summary = simulate(&spec(ERRORS, stages), &options(5, 100.0, &[])).unwrap();
    assert_eq!(summary.ends.promoted, 5, "{:?}", summary.ends);
}

#[test]
fn the_pictures_show_every_stage_and_only_what_is_there() {
    let summary = simulate(&spec(ERRORS, FIVE), &options(20, 100.0, &["errors=5%@stage2"])).unwrap();
    let bars = chart::stages(&summary);
    assert_eq!(bars.lines().count(), 7, "{bars}");
    assert!(bars.contains("20 reverted") || bars.contains("19 reverted"), "{bars}");
    assert!(bars.lines().all(|line| line.chars().count() <= 100), "{bars}");
    let plot = chart::reverted_over_time(&summary);
    assert!(plot.contains('█') && plot.contains("100%") && plot.contains('2'), "{plot}");
    let drawn = svg("shop/web <&>", &summary);
    assert!(drawn.contains("shop/web &lt;&amp;&gt;") && drawn.contains("prefers-color-scheme:dark"));
    assert!(drawn.contains("stage 5: 100% for 5m") && drawn.ends_with("</svg>\n"));
    assert_eq!(drawn.matches("<svg").count(), 1);
}
