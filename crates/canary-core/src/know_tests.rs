use canary_api::CanaryReleaseSpec;
use canary_stats::Alpha;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn spec(stages: &[(&str, &str)], gates: Value) -> CanaryReleaseSpec {
    let stages: Vec<Value> =
        stages.iter().map(|(weight, duration)| json!({"weight": weight, "duration": duration})).collect();
    serde_json::from_value(json!({
        "target": {"name": "web"},
        "traffic": {
            "service": "web",
            "routes": [{"kind": "HTTPRoute", "name": "web"}],
            "requests": {"counter": "http_requests_total"},
        },
        "stages": stages,
        "gates": gates,
    }))
    .unwrap()
}

fn errors(limit: &str) -> Value {
    json!({"name": "errors", "errorRate": {"bad": "b", "total": "http_requests_total", "limit": limit}})
}

fn five() -> [(&'static str, &'static str); 5] {
    [("1%", "5m"), ("5%", "5m"), ("25%", "5m"), ("50%", "5m"), ("100%", "5m")]
}

/// Six gates that take a share of the budget, and one that takes none.
fn six() -> CanaryReleaseSpec {
    let mut gates: Vec<Value> = (0..6)
        .map(|n| {
            let mut gate = errors("1%");
            gate["name"] = json!(format!("errors-{n}"));
            gate
        })
        .collect();
    gates.push(json!({"name": "age", "value": {"query": "x", "max": 30, "unit": "s"}}));
    spec(&five(), Value::Array(gates))
}

#[test]
fn the_budget_is_split_over_gates_that_claim_one_and_stages_with_the_soak() {
    let mut spec = six();
    assert_eq!(budget(&spec), Some(Alpha::RELEASE.split(6, 5).unwrap()));
    spec.soak = Duration::from_secs(60);
    assert_eq!(budget(&spec), Some(Alpha::RELEASE.split(6, 6).unwrap()));
    spec.gates.retain(|gate| gate.value.is_some());
    assert_eq!(budget(&spec), None);
}

/// The figures are those of the statistics' own tests for six gates and five stages.
#[test]
fn a_first_stage_of_one_per_cent_detects_catastrophes_and_proves_nothing() {
    let known = stages(&six(), 100.0);
    let first = &known[0];
    assert_eq!(first.sees(), "stage 1/5 at 1% of 100 requests/s for 5m sees 300 requests");
    let alpha = Alpha::RELEASE.split(6, 5).unwrap();
    let of = know::share_gate(0.01, alpha, Alpha::RELEASE, 300.0).unwrap();
    let Knows::Share { detects80, detects95, proves, can_prove, clean_requests_to_prove, .. } = first.gates[0].knows
    else {
        panic!("no share")
    };
    assert_eq!((detects80, detects95, proves), (of.detects_80, of.detects_95, of.proves));
    assert_eq!((can_prove, clean_requests_to_prove), (false, 358.0));
    assert!(detects80.unwrap() > 0.05 && detects80.unwrap() < 0.06, "{detects80:?}");
    assert!(proves.unwrap() > 0.01 && proves.unwrap() < 0.013, "{proves:?}");
    assert_eq!(first.gates[0].sentence(), "detects 5.04% and worse; proves nothing below 1.18%");
    assert_eq!(known[1].requests, 1500.0);
    assert!(known[1].gates[0].sentence().ends_with("can prove its limit"));
    assert_eq!(first.gates[6].knows, Knows::NoStatistics);
    assert!(warnings(&known).is_empty(), "{:?}", warnings(&known));
}

#[test]
fn a_latency_gate_tests_the_share_above_its_quantile() {
    let latency = json!({"name": "latency", "latency": {"histogram": "h", "quantile": "99%", "limit": "200ms"}});
    let known = stages(&spec(&five(), json!([latency, errors("1%")])), 100.0);
    let gates = &known[2].gates;
    assert_eq!(gates[0].limit, "P99 < 200ms");
    assert_eq!(gates[0].knows, gates[1].knows, "1% slow is 1% bad");
}

#[test]
fn limits_are_shown_as_a_reader_wants_them() {
    let known = |gate: Value| stages(&spec(&five(), json!([gate])), 100.0)[0].gates[0].clone();
    let events = |scope: &str| json!({"name": "g", "eventRate": {"counter": "c", "limit": "0.5/min", "scope": scope}});
    assert!(known(events("Total")).limit.ends_with(" in total"), "{}", known(events("Total")).limit);
    assert!(known(events("Canary")).limit.ends_with(" at the canary's share"));
    let other = json!({"name": "g", "errorRate": {"bad": "b", "total": "jobs_total", "limit": "1%"}});
    assert!(known(other).note.unwrap().contains("jobs_total"));
    assert_eq!(known(errors("1%")).note, None);
}

#[test]
fn a_stage_with_as_many_requests_as_a_verdict_wants_is_not_blind() {
    let known = stages(&spec(&[("1%", "5m")], json!([errors("1%")])), 50.0 / 3.0);
    assert_eq!(known[0].requests, 50.0);
    assert!(known[0].blind(&known[0].gates[0]).is_empty());
}

#[test]
fn a_stage_with_too_little_traffic_is_called_blind() {
    let latency = json!({"name": "latency", "latency": {"histogram": "h", "quantile": "95%", "limit": "200ms"}});
    let warned = warnings(&stages(&spec(&five(), json!([errors("1%"), latency])), 1.0));
    assert_eq!(
        warned,
        [
            "stage 1/5 at 1% of 1 requests/s for 5m sees 3 requests: a verdict wants 50 (gates errors, latency)",
            "stage 1/5 at 1% of 1 requests/s for 5m sees 3 requests: not even a total failure is detected (gate latency)",
            "stage 2/5 at 5% of 1 requests/s for 5m sees 15 requests: a verdict wants 50 (gates errors, latency)",
        ]
    );
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let known = stages(&spec(&five(), json!([errors("1%")])), rate);
        assert_eq!(known[0].requests, 0.0, "{rate}");
        assert_eq!(warnings(&known).len(), 10, "{rate}");
    }
}

#[test]
fn an_event_rate_is_scaled_by_the_share_where_it_speaks_of_the_canary() {
    let gate = |scope: &str| json!({"name": "risk", "eventRate": {"counter": "c", "limit": "0.5/min", "scope": scope}});
    let detected =
        |scope: &str, stage: usize| match stages(&spec(&five(), json!([gate(scope)])), 100.0)[stage].gates[0].knows {
            Knows::Rate { detects80: Some(rate), detects95: Some(higher), .. } => {
                assert!(higher > rate);
                rate
            }
            ref other => panic!("{other:?}"),
        };
    let alpha = Alpha::RELEASE.split(1, 5).unwrap();
    let ratio = |expected| know::detectable_rate(expected, alpha, 0.8).unwrap().unwrap();
    assert!((detected("Total", 0) - 0.5 * ratio(2.5)).abs() < 1e-9);
    assert!((detected("Canary", 0) - 0.5 * ratio(0.025)).abs() < 1e-9);
    assert!((detected("Canary", 4) - detected("Total", 4)).abs() < 1e-9);
    assert!(detected("Canary", 0) > detected("Canary", 4));
}

#[test]
fn a_relative_gate_asks_for_the_events_it_compares_with() {
    let gate = |to: &str| json!({"name": "csp", "relative": {"counter": "c", "to": to, "margin": "10%"}});
    let spec = spec(&five(), json!([gate("Stable"), errors("1%")]));
    let unknown = stages(&spec, 100.0);
    assert!(unknown[0].gates[0].sentence().contains("events a minute"), "{}", unknown[0].gates[0].sentence());
    assert_eq!(unknown[4].gates[0].knows, Knows::LeftOut);

    let mut traffic = Traffic::of(100.0);
    traffic.events_per_minute.insert("csp".to_owned(), 80.0);
    let known = stages_of(&spec, &traffic);
    let alpha = Alpha::RELEASE.split(2, 5).unwrap();
    let Knows::Ratio { detects80, limit, .. } = known[2].gates[0].knows else { panic!("no ratio") };
    assert_eq!(detects80, know::detectable_ratio(0.1, 0.25, 300.0, alpha, 0.8).unwrap());
    assert!((limit - 1.1).abs() < 1e-12);
}

#[test]
fn with_baseline_pods_a_comparison_rests_on_what_those_get() {
    let gate = json!({"name": "csp", "relative": {"counter": "c", "to": "Stable", "margin": "10%"}});
    let mut spec = spec(&five(), json!([gate, errors("1%")]));
    spec.baseline.pods = true;
    let mut traffic = Traffic::of(100.0);
    traffic.events_per_minute.insert("csp".to_owned(), 80.0);
    let known = stages_of(&spec, &traffic);
    let alpha = Alpha::RELEASE.split(2, 5).unwrap();
    let detects = |stage: usize| match known[stage].gates[0].knows {
        Knows::Ratio { detects80, .. } => detects80,
        _ => panic!("no ratio"),
    };
    // 25 % for the canary and 25 % for them; at 50 % there is nothing for them, and all of stable is compared with.
    assert_eq!(detects(2), know::detectable_ratio(0.1, 0.5, 100.0, alpha, 0.8).unwrap());
    assert_eq!(detects(3), know::detectable_ratio(0.1, 0.5, 200.0, alpha, 0.8).unwrap());
}

#[test]
fn a_gate_against_the_baseline_is_weaker_than_one_that_takes_it_as_exact() {
    let gate = json!({"name": "csp", "relative": {"counter": "c", "to": "Baseline", "margin": "10%"}});
    let spec = spec(&five(), json!([gate]));
    let mut traffic = Traffic::of(100.0);
    traffic.events_per_minute.insert("csp".to_owned(), 20.0);
    let known = stages_of(&spec, &traffic);
    let Knows::Ratio { detects80: Some(ratio), .. } = known[4].gates[0].knows else { panic!("no ratio") };
    let alpha = budget(&spec).unwrap();
    let exact = 1.1 * know::detectable_rate(1.1 * 100.0, alpha.half(), 0.8).unwrap().unwrap();
    assert!(ratio > exact, "{ratio} {exact}");
    // A quarter of the traffic for five minutes has a quarter of the events; the multiple is of what was captured.
    let Knows::Ratio { detects80: Some(ratio), .. } = known[2].gates[0].knows else { panic!("no ratio") };
    let minutes = spec.baseline.duration.secs_f64() / 60.0;
    let before = Historical::new(20.0 * minutes, minutes, 0.1, alpha, Dispersion::NONE).unwrap();
    let multiple = know::detectable_rate(before.rate() * 1.25, before.alpha(), 0.8).unwrap().unwrap();
    assert!((ratio - multiple * before.rate() / 20.0).abs() < 1e-9, "{ratio}");
    traffic.events_per_minute.insert("csp".to_owned(), 0.0);
    let none = stages_of(&spec, &traffic);
    assert!(matches!(none[4].gates[0].knows, Knows::Ratio { detects80: None, .. }));
    assert!(warnings(&none).is_empty());
}

#[test]
fn durations_that_suffice_do() {
    let spec = six();
    let enough = durations(&spec, &Traffic::of(100.0), Some(0.05));
    let first = &enough[0].gates[0];
    assert_eq!(first.prove.unwrap().to_string(), "6m");
    assert_eq!(first.verdict.unwrap().to_string(), "50s");
    assert_eq!(enough[0].gates.len(), 6, "value gates test no share");
    let mut longer = spec.clone();
    longer.stages[0].duration = first.detect.unwrap();
    let Knows::Share { detects80: Some(share), .. } = stages(&longer, 100.0)[0].gates[0].knows else {
        panic!("no share")
    };
    assert!(share <= 0.05 * 1.02, "{share}");

    let within = durations(&spec, &Traffic::of(100.0), Some(0.01));
    assert_eq!(within[0].gates[0].detect, None, "a share within the limit is not detected");
    let silent = durations(&spec, &Traffic::of(0.0), Some(0.05));
    assert_eq!((silent[0].gates[0].detect, silent[0].gates[0].prove), (None, None));
}

#[test]
fn a_limit_that_is_none_is_said_and_nothing_panics() {
    let known = stages(&spec(&five(), json!([errors("0%")])), 100.0);
    assert!(known[0].gates[0].sentence().contains("limit 0"), "{}", known[0].gates[0].sentence());
    assert_eq!(durations(&spec(&five(), json!([errors("0%")])), &Traffic::of(1.0), Some(0.5))[0].gates[0].prove, None);
    for rate in [1e9, f64::MAX] {
        assert_eq!(stages(&spec(&five(), json!([errors("1%")])), rate).len(), 5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any numbers are answered, and more traffic never knows less.
    #[test]
    fn more_traffic_knows_more(limit in 1u32..999_999, weight in 1u32..1000, seconds in 1u64..3600, rate in 0.0..5000.0_f64) {
        let mut spec = spec(&[("100%", "1s")], json!([errors("1%")]));
        spec.gates[0].error_rate.as_mut().unwrap().limit = format!("{}.{:04}%", limit / 10_000, limit % 10_000).parse().unwrap();
        spec.stages[0].weight = Percent::from_permille(weight);
        spec.stages[0].duration = Duration::from_secs(seconds);
        let known = |rate| {
            let stage = stages(&spec, rate).remove(0);
            let gate = stage.gates[0].clone();
            prop_assert!(!gate.sentence().is_empty() && !stage.sees().is_empty());
            let Knows::Share { limit, detects80, detects95, proves, .. } = gate.knows else {
                return Err(TestCaseError::fail("no share"));
            };
            let often = detects80.unwrap_or(1.0);
            prop_assert!(often > limit && often <= detects95.unwrap_or(1.0) * 1.005, "{often} {detects95:?} {limit}");
            Ok((often, proves.unwrap_or(1.0)))
        };
        let ((less, proves_less), (more, proves_more)) = (known(rate)?, known(2.0 * rate)?);
        // Where only the stage's end is looked at, what is computed is a little weaker.
        prop_assert!(more <= less * 1.05 && proves_more <= proves_less * 1.0001, "{less} {more} {proves_less} {proves_more}");
    }
}

#[test]
fn figures_are_rounded_up_to_three() {
    for (value, text) in [
        (0.0508, "0.0508"),
        (5.0801, "5.09"),
        (5.0, "5"),
        (12.345, "12.4"),
        (99.95, "100"),
        (1234.0, "1240"),
        (0.0, "0"),
        (f64::NAN, "0"),
    ] {
        assert_eq!(figures(value), text, "{value}");
    }
    assert_eq!(per_cent(0.01), "1%");
    assert_eq!(per_cent(1.0 - 1e-9), "100%");
}
