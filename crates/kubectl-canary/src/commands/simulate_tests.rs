use clap::Parser as _;

use super::*;
use crate::Cli;
use crate::args::Command;

const RELEASE: &str = "
apiVersion: canaryrelease.dev/v1alpha1
kind: CanaryRelease
metadata: {name: orders, namespace: shop}
spec:
  target: {name: orders}
  traffic: {service: orders, routes: [{kind: HTTPRoute, name: orders}], requests: {counter: http_requests_total}}
  baseline: {duration: 30s}
  stages:
  - {weight: 5%, duration: 2m}
  - {weight: 50%, duration: 2m}
  - {weight: 100%, duration: 1m}
  gates:
  - {name: failures, errorRate: {bad: 'http_requests_total{code=~\"5..\"}', total: http_requests_total, limit: 1%}}
";

fn asked(arguments: &[&str]) -> args::Simulate {
    let line = ["kubectl-canary", "simulate", "orders.yaml"].iter().chain(arguments);
    match Cli::try_parse_from(line).unwrap().command {
        // Enough for a test, where nothing else is asked for.
        Command::Simulate(what) if what.runs == 200 => args::Simulate { runs: 20, ..what },
        Command::Simulate(what) => what,
        other => panic!("{other:?}"),
    }
}

fn reported(text: &str, arguments: &[&str]) -> Result<Report, Error> {
    report(&manifest::parse("orders.yaml", text).unwrap()[0], &asked(arguments), None)
}

#[test]
fn a_fault_is_shown_with_where_it_was_called_and_how_soon() {
    let found = reported(RELEASE, &["--rps=200", "--fault=errors=20%@stage2"]).unwrap();
    let text = render(&found, Paint::NONE);
    for part in [
        "CanaryRelease shop/orders\n",
        "20 releases at 200 requests/s, seed 1",
        "healthy: failures 0.5%",
        "fault of the candidate: errors=20%@stage2",
        "reverted  20 of 20 (100%; 84% to 100% with 95% confidence)",
        "called    20 of 20 after the fault had traffic: within ",
        "stage 2    50%     2m ",
        "  stage 2      failures  20\n",
        "reverted, of all releases, over time",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("PAUSED AT"), "{text}");
}

#[test]
fn a_healthy_service_has_no_reverts_and_no_plot_of_them() {
    let text = render(&reported(RELEASE, &["--rps=200", "--healthy=failures=0.1%"]).unwrap(), Paint::NONE);
    assert!(text.contains("healthy: failures 0.1%") && text.contains("fault of the candidate: none"), "{text}");
    assert!(text.contains("reverted  0 of 20 (0%;") && !text.contains("over time"), "{text}");
}

#[test]
fn the_structure_holds_what_the_text_says() {
    let found = reported(RELEASE, &["--rps=200", "--fault=failures=20%@stage1"]).unwrap();
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["name"], "orders");
    assert_eq!(json["runs"], 20);
    assert_eq!(json["reverted"]["runs"], 20);
    assert_eq!(json["ends"]["rolledBack"][0]["place"], "stage 1");
    assert_eq!(json["ends"]["rolledBack"][0]["by"], "failures");
    assert_eq!(json["stages"][0]["weight"], "5%");
    assert!(json["calls"]["medianSeconds"].as_f64().unwrap() > 0.0);
    assert_eq!(json["faults"][0], "failures=20%@stage1");
}

#[test]
fn a_wrong_spec_and_a_wrong_fault_are_told_apart() {
    let found = reported(&RELEASE.replace("weight: 100%", "weight: 90%"), &["--rps=1"]).unwrap();
    assert_eq!((found.faults_of_spec.len(), found.summary.is_none()), (1, true));
    assert!(render(&found, Paint::NONE).contains("wrong: spec.stages"));
    let error = reported(RELEASE, &["--rps=1", "--fault=latency=5%"]).unwrap_err();
    assert_eq!(error.exit(), Exit::Usage);
    assert!(error.to_string().contains("failures (errors)"), "{error}");
}

#[test]
fn the_example_of_the_docs_is_what_simulate_prints_for_that_of_the_readme() {
    let example = super::super::plan::tests::example_of_the_readme();
    let found = reported(&example, &["--rps=100", "--fault=errors=5%@stage2", "--runs=40"]).unwrap();
    let command = "$ kubectl canary simulate orders.yaml --rps 100 --fault errors=5%@stage2 --runs 40";
    super::super::plan::tests::shown_in_the_docs(command, &render(&found, Paint::NONE));
}

#[test]
fn the_picture_is_written_where_it_is_asked_for() {
    let folder = std::env::temp_dir().join(format!("canary-simulate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (file, picture) = (folder.join("orders.yaml"), folder.join("orders.svg"));
    std::fs::write(&file, RELEASE).unwrap();
    let what = args::Simulate { file: file.display().to_string(), svg: Some(picture.clone()), ..asked(&["--rps=50"]) };
    let output = Output { format: crate::output::Format::Json, paint: Paint::NONE, terminal: false };
    assert_eq!(run(&what, None, &output).unwrap(), Exit::Done);
    assert!(std::fs::read_to_string(&picture).unwrap().contains("shop/orders: where 20 simulated releases end"));
    std::fs::write(&file, format!("{RELEASE}---{RELEASE}")).unwrap();
    assert_eq!(run(&what, None, &output).unwrap_err().exit(), Exit::Usage);
    let nowhere = args::Simulate { svg: Some(folder.join("no/such.svg")), ..what };
    std::fs::write(&file, RELEASE).unwrap();
    assert!(matches!(run(&nowhere, None, &output), Err(Error::Picture { .. })));
    std::fs::remove_dir_all(&folder).unwrap();
}
