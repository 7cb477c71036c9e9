#![allow(clippy::arithmetic_side_effects)]

use canary_counters::Sample;

use super::*;

const TICK: i64 = 10_000;

fn spec() -> CanaryReleaseSpec {
    serde_norway::from_str(
        "{target: {name: web}, traffic: {service: web, routes: [{kind: HTTPRoute, name: web}], requests: {counter: requests_total}},
         stages: [{weight: 100%, duration: 1m}],
         gates: [{name: errors, errorRate: {bad: failures_total, total: requests_total, limit: 1%}},
                 {name: p95, latency: {histogram: seconds, quantile: 95%, limit: 150ms}},
                 {name: slow, latency: {histogram: seconds, quantile: 99%, limit: 150ms, failed: failures_total}},
                 {name: restarts, eventRate: {counter: restarts_total, limit: 6/min}},
                 {name: edge, by: Service, errorRate: {bad: edge_failures_total, total: edge_total, limit: 1%}},
                 {name: depth, value: {query: 'max(depth{pod=~\"$pods\"})', max: 3}}]}",
    )
    .unwrap()
}

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Series {
    Series {
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        samples: samples.iter().map(|(tick, value)| Sample { at_ms: tick * TICK, value: *value }).collect(),
    }
}

fn counted(chunks: &[(i64, Vec<(&str, Series)>)]) -> Past {
    let (countable, left_out) = countable(&spec());
    assert_eq!(left_out, ["edge (it is counted by Service)", "depth (it reads a value)"]);
    let mut counting = Counting::new(&countable, 0, "pod", Some(TICK));
    for (to, series) in chunks {
        let mut answers: BTreeMap<String, Vec<Series>> =
            questions(&countable).into_iter().map(|question| (question.key, Vec::new())).collect();
        for (key, one) in series {
            answers.get_mut(*key).unwrap().push(one.clone());
        }
        counting.absorb(&answers, to * TICK).unwrap();
    }
    counting.finish()
}

fn cells(past: &Past, pod: usize) -> Vec<Vec<(f64, f64)>> {
    let pod = &past.all()[pod];
    (0..past.ticks)
        .filter_map(|tick| pod.cell(tick, past.width()))
        .map(|cell| {
            std::iter::once((cell.requests(), 0.0)).chain((0..past.gates()).map(|gate| cell.gate(gate))).collect()
        })
        .collect()
}

#[test]
fn each_question_is_asked_once() {
    let (countable, _) = countable(&spec());
    let keys: Vec<String> = questions(&countable).into_iter().map(|question| question.selector.to_string()).collect();
    assert_eq!(keys, ["seconds_bucket", "failures_total", "requests_total", "restarts_total"]);
}

/// Two chunks of two ticks; the limit of 150 ms is judged at the boundary of 0.2 s.
#[test]
fn every_kind_of_gate_is_counted_tick_by_tick() {
    let a = ("pod", "a");
    let chunk = |ticks: [i64; 2], values: [[f64; 2]; 6]| {
        let of = |key: &'static str, labels: &[(&str, &str)], values: [f64; 2]| {
            (key, series(labels, &[(ticks[0], values[0]), (ticks[1], values[1])]))
        };
        let [requests, failures, restarts, fast, faster, all] = values;
        vec![
            of("requests_total", &[a], requests),
            of("failures_total", &[a], failures),
            of("restarts_total", &[a], restarts),
            of("buckets of seconds", &[a, ("le", "0.2")], fast),
            of("buckets of seconds", &[a, ("le", "0.1")], faster),
            of("buckets of seconds", &[a, ("le", "+Inf")], all),
        ]
    };
    let past = counted(&[
        (2, chunk([1, 2], [[100.0, 110.0], [5.0, 6.0], [0.0, 1.0], [90.0, 97.0], [50.0, 51.0], [100.0, 110.0]])),
        // The pod's process restarts between the ticks 3 and 4.
        (4, chunk([3, 4], [[130.0, 10.0], [6.0, 4.0], [1.0, 1.0], [117.0, 9.0], [60.0, 9.0], [130.0, 10.0]])),
    ]);
    assert_eq!((past.ticks, past.pods(), past.requests(), past.coverage()), (4, 1, 40.0, 1.0));
    let expected = vec![
        // The first sample is what was counted before.
        vec![(0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)],
        vec![(10.0, 0.0), (10.0, 1.0), (10.0, 3.0), (10.0, 3.0), (10.0, 1.0)],
        vec![(20.0, 0.0), (20.0, 0.0), (20.0, 0.0), (20.0, 0.0), (20.0, 0.0)],
        // One slow and four failed: the failed ones count where the gate says so.
        vec![(10.0, 0.0), (10.0, 4.0), (10.0, 1.0), (10.0, 4.0), (10.0, 0.0)],
    ];
    assert_eq!(cells(&past, 0), expected);
}

#[test]
fn a_pod_that_comes_later_began_at_zero_and_one_after_a_gap_did_not() {
    let of = |pod: &'static str, samples: &[(i64, f64)]| ("requests_total", series(&[("pod", pod)], samples));
    let past = counted(&[
        (2, vec![of("a", &[(1, 100.0), (2, 110.0)])]),
        (4, vec![of("a", &[(3, 120.0), (4, 130.0)]), of("b", &[(4, 7.0)])]),
        (400, Vec::new()),
        (402, vec![of("c", &[(401, 1000.0), (402, 1005.0)])]),
    ]);
    let requests = |pod: usize| cells(&past, pod).iter().map(|cell| cell[0].0).collect::<Vec<f64>>();
    assert_eq!(requests(0), [0.0, 10.0, 10.0, 10.0]);
    assert_eq!((past.all()[1].first, requests(1)), (2, vec![0.0, 7.0]));
    assert_eq!((past.all()[2].first, requests(2)), (400, vec![0.0, 5.0]));
    assert!(past.covered(0) && past.covered(3) && !past.covered(10) && past.covered(401) && !past.covered(402));
    assert_eq!(
        (past.tick_after(0), past.tick_after(TICK - 1), past.tick_after(TICK), past.tick_after(-5)),
        (0, 0, 1, 0)
    );
}

#[test]
fn a_limit_that_no_boundary_fits_is_an_error() {
    let (countable, _) = countable(&spec());
    let mut counting = Counting::new(&countable, 0, "pod", None);
    let bucket = |le: &str| series(&[("pod", "a"), ("le", le)], &[(1, 1.0), (2, 2.0)]);
    let answers = [("buckets of seconds".to_owned(), vec![bucket("0.1"), bucket("+Inf")])].into();
    let error = counting.absorb(&answers, 2 * TICK).unwrap_err().to_string();
    assert!(error.contains("gate p95") && error.contains("boundary"), "{error}");
}
