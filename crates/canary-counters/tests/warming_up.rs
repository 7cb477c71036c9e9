//! What a pod counts in its first seconds of traffic: whose, until when, and that it stays out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use canary_counters::histogram::latency;
use canary_counters::measure::{event_rate, share};
use canary_counters::{Measured, Meter, Reading, Series, WarmUp};
use common::{series, tick};

const A: &[(&str, i64)] = &[("web-a", 0)];

/// A counter of a pod, sampled every 5 s from `from` to `to`, with `rate` counts a second from `begin` on.
fn rising(pod: &str, from: i64, to: i64, begin: i64, rate: f64) -> Series {
    let samples: Vec<(i64, f64)> = (from..=to).step_by(5).map(|at| (at, rate * (at - begin).max(0) as f64)).collect();
    series(&format!("pod={pod}"), &samples)
}

/// The judged totals at each of some ticks, 5 s apart, of one pod with 10 requests a second from second 20 on, its
/// counter being read up to `lookback` back.
fn judged_at_ticks(warm_up: i64, lookback: i64) -> Vec<f64> {
    let mut meter = Meter::new(0);
    let mut warm = WarmUp::new(warm_up * 1000);
    let ticks = (20..=120).step_by(5).map(|now| {
        let mut tick = tick(now, A);
        tick.covered_from_ms = (now - lookback) * 1000;
        let answer = [rising("web-a", (now - lookback + 5).max(0), now, 20, 10.0)];
        let reading = meter.absorb("n", &answer, &tick).unwrap();
        warm.judged(&reading, &reading).total()
    });
    ticks.collect()
}

#[test]
fn the_first_seconds_of_traffic_are_left_out_and_nothing_else() {
    // The first request shows in the sample of second 25.
    let judged = judged_at_ticks(30, 60);
    let expected: Vec<f64> = (20..=120).step_by(5).map(|now| 10.0 * f64::from((now - 55).max(0))).collect();
    assert_eq!(judged, expected);
    assert_eq!(judged_at_ticks(30, 10), expected, "also long after the samples can be read no more");
    assert_eq!(judged_at_ticks(0, 60).last(), Some(&1000.0));
}

#[test]
fn each_pod_has_a_time_of_its_own() {
    let pods = &[("web-a", 0), ("web-b", 60)];
    let (mut meter, mut warm) = (Meter::new(0), WarmUp::new(30_000));
    let reading = meter.absorb("n", &[rising("web-a", 0, 60, 0, 10.0)], &tick(60, pods)).unwrap();
    assert_eq!(warm.judged(&reading, &reading).total(), 250.0);
    let both = [rising("web-a", 45, 100, 0, 10.0), rising("web-b", 65, 100, 65, 10.0)];
    let reading = meter.absorb("n", &both, &tick(100, pods)).unwrap();
    let judged = warm.judged(&reading, &reading);
    // The first of web-a shows at 5, of web-b at 70, which is warm at 100 and has counted nothing since.
    assert_eq!((judged.pods["web-a"].total, judged.pods["web-b"].total), (650.0, 0.0));
    assert_eq!(judged.pods["web-a"].state, reading.pods["web-a"].state);
}

#[test]
fn a_pod_that_is_warm_is_not_cold_again_in_the_next_window() {
    let (mut meter, mut warm) = (Meter::new(0), WarmUp::new(30_000));
    let mut at = |meter: &mut Meter, now: i64| {
        let reading = meter.absorb("n", &[rising("web-a", now - 55, now, 0, 10.0)], &tick(now, A)).unwrap();
        warm.judged(&reading, &reading).total()
    };
    assert_eq!(at(&mut meter, 60), 600.0 - 350.0);
    meter.begin_window(60_000);
    assert_eq!(at(&mut meter, 70), 100.0);
    // One whose warm-up goes on in the next window is left out there, too, to its end.
    let (mut meter, mut warm) = (Meter::new(0), WarmUp::new(30_000));
    let mut at = |meter: &mut Meter, now: i64| {
        let reading = meter.absorb("n", &[rising("web-a", now - 55, now, 0, 10.0)], &tick(now, A)).unwrap();
        warm.judged(&reading, &reading).total()
    };
    assert_eq!(at(&mut meter, 20), 0.0);
    meter.begin_window(20_000);
    assert_eq!(at(&mut meter, 50), 150.0);
}

#[test]
fn a_container_that_restarts_is_judged_at_once() {
    let (mut meter, mut warm) = (Meter::new(0), WarmUp::new(30_000));
    let samples = [(5, 10.0), (40, 90.0), (45, 100.0), (50, 7.0), (55, 17.0)];
    let reading = meter.absorb("n", &[series("pod=web-a", &samples)], &tick(55, A)).unwrap();
    assert_eq!(reading.pods["web-a"].resets, 1);
    assert_eq!(warm.judged(&reading, &reading).total(), 107.0, "the 10 of the first sample are left out");
}

#[test]
fn a_pod_that_served_before_anyone_looked_is_warm_by_its_age() {
    let look = |created: i64, warm_up: i64| {
        let mut meter = Meter::new(100_000);
        let pods = &[("web-a", created)];
        let reading = meter.absorb("n", &[rising("web-a", 55, 110, 0, 10.0)], &tick(110, pods)).unwrap();
        WarmUp::new(warm_up * 1000).judged(&reading, &reading).total()
    };
    assert_eq!(look(-1000, 60), 100.0);
    assert_eq!(look(50, 55), 50.0, "created at 50, so warm from 105 on at the latest");
}

#[test]
fn where_the_past_is_known_its_first_sample_tells_when_a_pod_began() {
    let look = |history: bool| {
        let mut meter = Meter::new(100_000).with_history(history);
        // Two minutes back: scraped from 65 on, and nothing before.
        let mut tick = tick(110, &[("web-a", -1000)]);
        tick.covered_from_ms = -10_000;
        let reading = meter.absorb("n", &[rising("web-a", 65, 110, 60, 10.0)], &tick).unwrap();
        WarmUp::new(40_000).judged(&reading, &reading).total()
    };
    assert_eq!(look(true), 50.0, "begun at 65, warm at 105");
    assert_eq!(look(false), 100.0);
}

/// Requests and bad ones of one pod at a tick, all and judged.
fn of_gate(now: i64, warm_up: i64, bad: &[(i64, f64)]) -> (Measured, Measured) {
    let (mut meter, mut warm) = (Meter::new(0), WarmUp::new(warm_up * 1000));
    let t = tick(now, A);
    let total = meter.absorb("n", &[rising("web-a", 0, now, 0, 10.0)], &t).unwrap();
    let bad = meter.absorb("k", &[series("pod=web-a,code=500", bad)], &t).unwrap();
    let (judged, judged_bad) = (warm.judged(&total, &total), warm.judged(&total, &bad));
    (share(&total, &bad), share(&judged, &judged_bad))
}

#[test]
fn bad_requests_are_left_out_with_the_good_ones_and_no_others() {
    let (all, judged) = of_gate(60, 30, &[(10, 4.0), (35, 9.0), (40, 30.0), (60, 31.0)]);
    assert_eq!(all, Measured::Counted { n: 600.0, k: 31.0 });
    assert_eq!(judged, Measured::Counted { n: 250.0, k: 22.0 });
    let (_, judged) = of_gate(30, 30, &[(10, 4.0), (30, 5.0)]);
    assert!(matches!(judged, Measured::NoData(why) if why == "n counted nothing yet"), "a breach needs judged ones");
}

#[test]
fn a_breach_of_what_is_judged_stays_there_at_every_later_tick() {
    let (mut meter, mut warm) = (Meter::new(0), WarmUp::new(30_000));
    let mut last = 0.0;
    for now in (10..=300).step_by(10) {
        let mut t = tick(now, A);
        t.covered_from_ms = (now - 15) * 1000;
        let total = meter.absorb("n", &[rising("web-a", (now - 10).max(0), now, 0, 10.0)], &t).unwrap();
        let bad = meter.absorb("k", &[rising("web-a", (now - 10).max(0), now, 0, 5.0)], &t).unwrap();
        let judged = share(&warm.judged(&total, &total), &warm.judged(&total, &bad));
        let (n, k) = judged.counts().unwrap_or_default();
        assert!(k >= last && k == n / 2.0, "at {now}: {k} of {n} after {last}");
        last = k;
    }
    assert_eq!(last, (300.0 - 35.0) * 5.0);
}

#[test]
fn bad_ones_without_any_request_are_not_hidden() {
    let (mut meter, mut warm) = (Meter::new(0), WarmUp::new(30_000));
    let t = tick(60, &[("web-a", 0), ("web-b", 0)]);
    let total = meter.absorb("n", &[rising("web-a", 0, 60, 0, 10.0), rising("web-b", 0, 60, 0, 0.0)], &t).unwrap();
    let bad = meter.absorb("k", &[rising("web-b", 0, 60, 0, 1.0)], &t).unwrap();
    let judged = share(&warm.judged(&total, &total), &warm.judged(&total, &bad));
    assert!(matches!(judged, Measured::Error(_)), "{judged:?}");
}

#[test]
fn events_before_the_first_request_are_judged() {
    let (mut meter, mut warm) = (Meter::new(0), WarmUp::new(30_000));
    let t = tick(90, A);
    let requests = meter.absorb("n", &[rising("web-a", 35, 90, 40, 10.0)], &t).unwrap();
    let events = [series("pod=web-a", &[(35, 2.0), (40, 2.0), (50, 5.0), (75, 5.0), (80, 6.0), (90, 6.0)])];
    let events = meter.absorb("e", &events, &t).unwrap();
    let judged = event_rate(&warm.judged(&requests, &events), Some(&warm.judged(&requests, &requests)));
    assert!(matches!(judged, Measured::Counted { k: 3.0, .. }), "2 before, 3 while it warmed up, 1 after: {judged:?}");
}

#[test]
fn slow_requests_of_the_first_seconds_are_left_out() {
    let (mut meter, mut warm) = (Meter::new(0), WarmUp::new(30_000));
    let bucket = |le: &str, samples: &[(i64, f64)]| series(&format!("pod=web-a,le={le}"), samples);
    let answer =
        [bucket("0.2", &[(5, 0.0), (35, 100.0), (60, 345.0)]), bucket("+Inf", &[(5, 50.0), (35, 350.0), (60, 600.0)])];
    let reading = meter.absorb_histogram("h", &answer, None, &tick(60, A)).unwrap();
    let judged = warm.judged_histogram(&reading);
    assert_eq!(latency(&reading, 0.2, None).breach, Measured::Counted { n: 600.0, k: 255.0 });
    let shown = latency(&judged, 0.2, None);
    assert_eq!(shown.breach, Measured::Counted { n: 250.0, k: 5.0 });
    assert_eq!(shown.proof, Measured::Counted { n: 250.0, k: 5.0 });
}

#[test]
fn totals_at_a_common_time_are_of_what_is_judged() {
    let (mut meter, mut warm) = (Meter::new(0), WarmUp::new(30_000));
    let reading = meter.absorb("n", &[rising("web-a", 0, 60, 0, 10.0)], &tick(60, A)).unwrap();
    let judged: Reading = warm.judged(&reading, &reading);
    let at: Vec<f64> = [0, 30, 35, 40, 60].map(|at| judged.total_at(at * 1000)).to_vec();
    assert_eq!(at, [0.0, 0.0, 0.0, 50.0, 250.0]);
}
