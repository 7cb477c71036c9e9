use clap::Parser as _;

use super::*;
use crate::Cli;
use crate::args::Command;

/// Six gates that share the budget, as in the statistics' own tests.
const RELEASE: &str = "
apiVersion: canaryrelease.dev/v1alpha1
kind: CanaryRelease
metadata: {name: orders, namespace: shop}
spec:
  target: {name: orders}
  traffic: {service: orders, routes: [{kind: HTTPRoute, name: orders}], requests: {counter: http_requests_total}}
  stages:
  - {weight: 1%, duration: 5m}
  - {weight: 5%, duration: 5m}
  - {weight: 25%, duration: 5m}
  - {weight: 50%, duration: 5m}
  - {weight: 100%, duration: 5m}
  gates:
  - {name: errors, errorRate: {bad: 'http_requests_total{code=~\"5..\"}', total: http_requests_total, limit: 1%}}
  - {name: conflicts, errorRate: {bad: conflicts_total, total: orders_total, limit: 1%}}
  - {name: latency, latency: {histogram: h, quantile: 95%, limit: 200ms}}
  - {name: slow, latency: {histogram: h, quantile: 99%, limit: 1s}}
  - {name: risk, eventRate: {counter: risk_blocks_total, limit: 0.5/min, scope: Total}}
  - {name: csp, relative: {counter: csp_violations_total, to: Stable, margin: 10%}}
  - {name: staleness, value: {query: 'max(age{pod=~\"$pods\"})', max: 30, unit: s}}
";

fn asked(arguments: &[&str]) -> args::Plan {
    let line = ["kubectl-canary", "plan", "orders.yaml"].iter().chain(arguments);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Plan(plan) => plan,
        other => panic!("{other:?}"),
    }
}

fn reported(text: &str, arguments: &[&str]) -> Report {
    let manifests = manifest::parse("orders.yaml", text).unwrap();
    let plan = asked(arguments);
    known_gates(&manifests, &plan.events_per_minute).unwrap();
    report(&manifests[0], &plan, None, Traffic::of(plan.rps.unwrap()))
}

#[test]
fn a_plan_reads_as_its_figures_say() {
    let report = reported(RELEASE, &["--rps", "100", "--detect", "5%", "--events-per-minute", "csp=80"]);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let text = render(&report, Paint::NONE);
    let first: Vec<&str> = text.lines().take(13).collect();
    assert_eq!(
        first,
        [
            "CanaryRelease shop/orders",
            "  false alarms: 5% of releases at most, 0.167% for each of 6 gates in each of 5 stages",
            "",
            "stage 1/5 at 1% of 100 requests/s for 5m sees 300 requests:",
            "  GATE       LIMIT                DETECTS IN 80%  IN 95%  PROVES",
            "  errors     <= 1%                5.04%           6.17%   nothing below 1.18%; its limit from 358 requests on, none of them bad",
            "  conflicts  <= 1%                5.04%           6.17%   nothing below 1.18%; its limit from 358 requests on, none of them bad",
            "  latency    P95 < 200ms          12.3%           13.9%   its limit",
            "  slow       P99 < 1s             5.04%           6.17%   nothing below 1.18%; its limit from 358 requests on, none of them bad",
            "  risk       <= 0.5/min in total  2.96/min        3.65/min",
            "  csp        <= stable +10%       x 4.81          x 5.78",
            "  staleness  <= 30s               judged by its limit alone, without statistics",
            "",
        ]
    );
    assert!(text.contains("csp        <= stable +10%       left out: at 100% there is no stable side"), "{text}");
    assert!(text.contains("conflicts: reckoned as if orders_total counted every request"), "{text}");
    let last: Vec<&str> = text.lines().rev().take(8).collect();
    assert_eq!(
        last.into_iter().rev().collect::<Vec<_>>(),
        [
            "durations that would suffice (to detect: 5% bad, in 80 of 100 releases)",
            "  STAGE  WEIGHT  NOW  FOR A VERDICT  TO DETECT  TO PROVE",
            "  1/5    1%      5m   50s            5m10s      6m",
            "  2/5    5%      5m   10s            1m10s      1m20s",
            "  3/5    25%     5m   2s             13s        15s",
            "  4/5    50%     5m   1s             7s         8s",
            "  5/5    100%    5m   1s             4s         4s",
            "  5% is within the limit of latency",
        ]
    );
}

#[test]
fn a_relative_gate_without_events_says_what_it_needs() {
    let text = render(&reported(RELEASE, &["--rps", "100"]), Paint::NONE);
    assert!(text.contains("needs the events a minute that stable shows today: --events-per-minute csp=N"), "{text}");
    let each = render(&reported(RELEASE, &["--rps", "100", "--events-per-minute", "80"]), Paint::NONE);
    assert!(!each.contains("needs the events"), "{each}");
    let named = reported(RELEASE, &["--rps", "100", "--events-per-minute", "csp=80", "--events-per-minute", "1"]);
    assert_eq!(render(&named, Paint::NONE), each, "a named rate goes before one for each");
}

#[test]
fn an_event_rate_for_no_gate_is_refused() {
    let manifests = manifest::parse("orders.yaml", RELEASE).unwrap();
    let plan = asked(&["--rps", "1", "--events-per-minute", "cps=3"]);
    let error = known_gates(&manifests, &plan.events_per_minute).unwrap_err();
    assert!(error.to_string().contains("cps") && error.to_string().contains("csp"), "{error}");
}

#[test]
fn a_blind_stage_is_warned_of() {
    let text = render(&reported(RELEASE, &["--rps", "1"]), Paint::NONE);
    assert!(
        text.contains("  ! stage 1/5 at 1% of 1 requests/s for 5m sees 3 requests: not even a total failure is detected (gate latency)"),
        "{text}"
    );
    assert!(text.contains("sees 3 requests: a verdict wants 50 (gates errors, conflicts, latency, slow, risk, csp)"));
}

#[test]
fn faults_come_first_and_what_can_be_said_all_the_same() {
    let report = reported(&RELEASE.replace("weight: 100%", "weight: 90%"), &["--rps", "100"]);
    let text = render(&report, Paint::NONE);
    assert_eq!(text.lines().nth(1), Some("  wrong: spec.stages: the last stage must have weight 100%"));
    assert!(text.contains("stage 1/5"));
    let unreadable = reported(&RELEASE.replace("limit: 1%", "limit: 1"), &["--rps", "100"]);
    assert_eq!(unreadable.faults, ["spec.gates[0].errorRate.limit: invalid type: integer `1`, expected a string"]);
    assert!(unreadable.stages.is_empty());
}

#[test]
fn a_hostile_name_harms_no_terminal() {
    let report = reported(&RELEASE.replace("name: errors", "name: \"e\\e[2J\""), &["--rps", "1"]);
    assert!(!render(&report, Paint::NONE).contains('\u{1b}'));
}

#[test]
fn the_structure_carries_every_figure() {
    let report = reported(RELEASE, &["--rps", "100", "--detect", "5%"]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["stages"][0]["requests"], 300.0);
    assert_eq!(json["stages"][0]["weight"], "1%");
    let knows = &json["stages"][0]["gates"][0]["knows"];
    assert_eq!((knows["tests"].as_str(), knows["canProve"].as_bool()), (Some("share"), Some(false)));
    assert_eq!(knows["cleanRequestsToProve"], 358.0);
    assert!(knows["detects80"].as_f64().unwrap() < knows["detects95"].as_f64().unwrap());
    assert_eq!(json["durations"][0]["gates"][0]["prove"], "6m");
    assert_eq!(json["faults"], serde_json::json!([]));
}

/// The lines of a text that are indented by four, without the indent.
fn indented(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("    ")).collect()
}

#[test]
fn the_example_of_the_docs_is_what_plan_prints_for_that_of_the_readme() {
    let text = render(&reported(&example_of_the_readme(), &["--rps", "20", "--detect", "5%"]), Paint::NONE);
    shown_in_the_docs("$ kubectl canary plan orders.yaml --rps 20 --detect 5%", &text);
}

/// The first CanaryRelease of the README.
pub(in crate::commands) fn example_of_the_readme() -> String {
    let readme = indented(include_str!("../../../../README.md"));
    let from = readme.iter().position(|line| line.starts_with("apiVersion: canaryrelease.dev")).unwrap();
    let lines: Vec<&str> = readme[from..].iter().take_while(|line| !line.starts_with("kubectl")).copied().collect();
    lines.join("\n")
}

/// Asserts that what the docs show after a command is in what it prints.
pub(in crate::commands) fn shown_in_the_docs(command: &str, text: &str) {
    let docs = indented(include_str!("../../../../docs/kubectl-canary.md"));
    let from = docs.iter().position(|line| *line == command).expect("the docs show the command");
    let shown = docs[from..].iter().skip(1).take_while(|line| !line.starts_with('$'));
    let stale: Vec<&&str> =
        shown.filter(|line| **line != "..." && !text.lines().any(|printed| printed == **line)).collect();
    assert!(stale.is_empty(), "not printed: {stale:#?}\n{text}");
}

#[tokio::test]
async fn the_traffic_is_read_from_the_past_where_it_is_not_given() {
    use crate::store::tests::{NOW, Synthetic};
    let text = RELEASE.replace("counter: csp_violations_total", "counter: 'http_requests_total{code=\"500\"}'");
    let manifests = manifest::parse("orders.yaml", &text).unwrap();
    let plan = asked(&["--prometheus", "http://127.0.0.1:9", "--since", "2h"]);
    let now = Timestamp::from_millisecond(NOW).unwrap();
    let seen = lately(&manifests[0], &plan, None, &Synthetic::default(), now).await.unwrap();
    // Four pods of 25 requests/s, of which 1 in 200 is bad.
    assert!((seen.requests_per_second - 100.0).abs() < 1.0, "{seen:?}");
    assert!((seen.events_per_minute["csp"] - 30.0).abs() < 1.0, "{seen:?}");
    let report = report(&manifests[0], &plan, None, seen);
    assert!(render(&report, Paint::NONE).contains("stage 1/5 at 1% of 99.8 requests/s for 5m"), "{report:?}");
}

#[tokio::test]
async fn a_past_without_requests_says_where_to_look() {
    use crate::store::tests::{NOW, Synthetic};
    let manifests = manifest::parse("orders.yaml", &RELEASE.replace("http_requests_total", "other_total")).unwrap();
    let plan = asked(&["--prometheus", "http://127.0.0.1:9"]);
    let now = Timestamp::from_millisecond(NOW).unwrap();
    let error = lately(&manifests[0], &plan, None, &Synthetic::default(), now).await.unwrap_err();
    assert!(error.to_string().contains("other_total counted no requests"), "{error}");
}
