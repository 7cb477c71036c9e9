//! From samples to counts: resets, new pods, late pods, lies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use canary_counters::measure::{event_rate, share};
use canary_counters::{CounterError, Grouping, Measured, Meter, PodState, Tick};
use common::{series, tick};

const A: &[(&str, i64)] = &[("web-a", 0)];

/// A pod from before the meter.
const OLD: &[(&str, i64)] = &[("web-a", -1000)];

fn counted(measured: &Measured) -> (f64, f64) {
    match measured {
        Measured::Counted { n, k } => (*n, *k),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_pods_counter_is_taken_whole() {
    let mut meter = Meter::new(0);
    let reading = meter.absorb("n", &[series("pod=web-a", &[(5, 40.0), (10, 50.0)])], &tick(10, A)).unwrap();
    assert_eq!(reading.total(), 50.0);
    assert_eq!(reading.increase(), 50.0);
    assert_eq!(reading.pods["web-a"].state, PodState::Fresh);
    assert_eq!(reading.interval_ms, Some(5000));
}

#[test]
fn an_older_pods_counter_counts_from_the_windows_beginning() {
    let mut meter = Meter::new(100_000);
    let answer = [series("pod=web-a", &[(90, 1000.0), (95, 1010.0), (100, 1020.0), (105, 1030.0), (110, 1045.0)])];
    let reading = meter.absorb("n", &answer, &tick(110, OLD)).unwrap();
    assert_eq!(reading.total(), 25.0, "the base is the last value at or before the beginning");
    let mut meter = Meter::new(80_000);
    let reading = meter.absorb("n", &answer, &tick(110, OLD)).unwrap();
    assert_eq!(reading.total(), 45.0, "without one, the first value known");
}

#[test]
fn each_sample_counts_once_however_often_it_is_read() {
    let mut meter = Meter::new(0);
    for now in 10..40 {
        let samples: Vec<(i64, f64)> = (1..=now / 5).map(|i| (i * 5, i as f64 * 10.0)).collect();
        let reading = meter.absorb("n", &[series("pod=web-a", &samples)], &tick(now, A)).unwrap();
        assert_eq!(reading.total(), (now / 5) as f64 * 10.0);
        assert_eq!(
            reading.increase(),
            if now == 10 {
                20.0
            } else if now % 5 == 0 {
                10.0
            } else {
                0.0
            }
        );
    }
}

#[test]
fn a_value_lower_than_before_is_a_restart_and_counts_whole() {
    let mut meter = Meter::new(0);
    let answer = [series("pod=web-a", &[(5, 100.0), (10, 110.0), (15, 7.0), (20, 9.0), (25, 2.0)])];
    let reading = meter.absorb("n", &answer, &tick(25, A)).unwrap();
    assert_eq!(reading.total(), 110.0 + 9.0 + 2.0);
    assert_eq!(reading.pods["web-a"].resets, 2);
    let reading = meter.absorb("n", &[series("pod=web-a", &[(25, 2.0), (30, 1.0)])], &tick(30, A)).unwrap();
    assert_eq!(reading.total(), 122.0);
}

#[test]
fn several_series_of_a_pod_are_told_apart_and_summed() {
    let mut meter = Meter::new(0);
    let reading = meter
        .absorb(
            "n",
            &[
                series("pod=web-a,code=200", &[(5, 10.0), (10, 20.0)]),
                series("pod=web-a,code=500", &[(5, 3.0), (10, 1.0)]),
                series("pod=web-b,code=200", &[(6, 5.0)]),
            ],
            &tick(10, &[("web-a", 0), ("web-b", 1)]),
        )
        .unwrap();
    assert_eq!(reading.pods["web-a"].total, 24.0);
    assert_eq!(reading.pods["web-a"].resets, 1);
    assert_eq!(reading.pods["web-b"].total, 5.0);
    assert_eq!(reading.total(), 29.0);
}

#[test]
fn a_label_that_first_appears_later_began_at_zero() {
    // The first 500 of an old pod: its series did not exist at the scrapes before.
    let mut meter = Meter::new(100_000);
    let t1 = tick(110, OLD);
    meter.absorb("n", &[series("pod=web-a,code=200", &[(105, 1000.0), (110, 1010.0)])], &t1).unwrap();
    meter.absorb("k", &[], &t1).unwrap();
    let t2 = tick(115, OLD);
    let n = meter.absorb("n", &[series("pod=web-a,code=200", &[(110, 1010.0), (115, 1020.0)])], &t2).unwrap();
    let k = meter.absorb("k", &[series("pod=web-a,code=500", &[(115, 4.0)])], &t2).unwrap();
    assert_eq!(k.total(), 4.0);
    assert_eq!(counted(&share(&n, &k)), (20.0, 4.0));
}

#[test]
fn a_label_that_was_there_before_us_does_not_count_whole() {
    // The operator restarts: both series are first seen now, and neither began under our eyes.
    for order in [["n", "k"], ["k", "n"]] {
        let mut meter = Meter::new(100_000);
        let t = tick(110, OLD);
        let n = series("pod=web-a,code=200", &[(105, 1000.0), (110, 1010.0)]);
        let k = series("pod=web-a,code=500", &[(105, 70.0), (110, 71.0)]);
        let mut total = 0.0;
        for counter in order {
            let answer = if counter == "n" { &n } else { &k };
            let reading = meter.absorb(counter, std::slice::from_ref(answer), &t).unwrap();
            if counter == "k" {
                total = reading.total();
            }
        }
        assert_eq!(total, 1.0, "{order:?}");
    }
}

#[test]
fn with_witnesses_the_order_of_counters_makes_no_difference() {
    for order in [["n", "k"], ["k", "n"]] {
        let mut meter = Meter::new(100_000);
        let t = tick(120, OLD);
        let n = [series("pod=web-a,code=200", &[(105, 1000.0), (110, 1010.0), (115, 1020.0)])];
        let k = [series("pod=web-a,code=500", &[(115, 6.0)])];
        meter.witness(&n, &t);
        meter.witness(&k, &t);
        let mut readings = std::collections::BTreeMap::new();
        for counter in order {
            let answer = if counter == "n" { &n } else { &k };
            readings.insert(counter, meter.absorb(counter, answer, &t).unwrap());
        }
        assert_eq!(counted(&share(&readings["n"], &readings["k"])), (20.0, 6.0), "{order:?}");
    }
}

#[test]
fn a_series_born_while_prometheus_was_down_is_counted() {
    let mut meter = Meter::new(100_000);
    let t1 = tick(110, OLD);
    meter.absorb("n", &[series("pod=web-a", &[(110, 1000.0)])], &t1).unwrap();
    meter.absorb("k", &[], &t1).unwrap();
    // Ten minutes of nothing.
    let t2 = tick(710, OLD);
    let n = meter.absorb("n", &[series("pod=web-a", &[(705, 1500.0), (710, 1510.0)])], &t2).unwrap();
    let k = meter.absorb("k", &[series("pod=web-a,code=500", &[(705, 30.0), (710, 31.0)])], &t2).unwrap();
    assert_eq!(counted(&share(&n, &k)), (510.0, 31.0));
}

#[test]
fn a_new_window_starts_from_the_last_value_before_it() {
    let mut meter = Meter::new(0);
    meter.absorb("n", &[series("pod=web-a", &[(5, 10.0), (10, 20.0), (15, 30.0)])], &tick(15, A)).unwrap();
    meter.begin_window(12_000);
    let reading = meter.absorb("n", &[series("pod=web-a", &[(15, 30.0), (20, 45.0)])], &tick(20, A)).unwrap();
    assert_eq!(reading.total(), 25.0, "what was sampled after the beginning counts, read before or not");
    assert_eq!(reading.since_ms, 12_000);
    meter.begin_window(30_000);
    let answer = [series("pod=web-a", &[(20, 45.0), (25, 50.0), (30, 60.0), (35, 61.0)])];
    let reading = meter.absorb("n", &answer, &tick(35, A)).unwrap();
    assert_eq!(reading.total(), 1.0, "what was sampled before it and read after it does not");
    assert_eq!(reading.pods["web-a"].resets, 0);
}

#[test]
fn a_pod_born_in_a_later_window_is_taken_whole_there() {
    let mut meter = Meter::new(0);
    meter.absorb("n", &[series("pod=web-a", &[(5, 10.0)])], &tick(5, A)).unwrap();
    meter.begin_window(100_000);
    let both = &[("web-a", 0), ("web-b", 97)];
    let answer = [series("pod=web-a", &[(100, 500.0), (105, 510.0)]), series("pod=web-b", &[(105, 8.0)])];
    let reading = meter.absorb("n", &answer, &tick(105, both)).unwrap();
    assert_eq!(reading.pods["web-a"].total, 10.0);
    assert_eq!(reading.pods["web-b"].total, 8.0, "it came up just before the window, but under our eyes");
}

#[test]
fn a_pod_that_is_gone_keeps_what_it_counted() {
    let mut meter = Meter::new(0);
    let both = &[("web-a", 0), ("web-b", 0)];
    meter.absorb("n", &[series("pod=web-a", &[(5, 10.0)]), series("pod=web-b", &[(5, 7.0)])], &tick(5, both)).unwrap();
    let reading = meter.absorb("n", &[series("pod=web-a", &[(5, 10.0), (10, 11.0)])], &tick(200, A)).unwrap();
    assert_eq!(reading.total(), 18.0);
    assert_eq!(reading.pods["web-b"].state, PodState::Gone);
    // Its last samples may still arrive.
    let answer = [series("pod=web-b", &[(201, 9.0)])];
    assert_eq!(meter.absorb("n", &answer, &tick(202, A)).unwrap().total(), 20.0);
}

#[test]
fn a_series_that_vanishes_and_returns_counts_the_difference() {
    let mut meter = Meter::new(0);
    meter.absorb("n", &[series("pod=web-a", &[(5, 10.0)])], &tick(5, A)).unwrap();
    assert_eq!(meter.absorb("n", &[], &tick(300, A)).unwrap().total(), 10.0);
    let reading = meter.absorb("n", &[series("pod=web-a", &[(600, 90.0)])], &tick(600, A)).unwrap();
    assert_eq!((reading.total(), reading.increase()), (90.0, 80.0));
}

#[test]
fn samples_older_than_two_scrapes_are_stale_and_the_counts_stay() {
    let mut meter = Meter::new(0);
    let answer = [series("pod=web-a", &[(5, 10.0), (10, 20.0)])];
    let n = meter.absorb("n", &answer, &tick(20, A)).unwrap();
    assert_eq!(n.pods["web-a"].state, PodState::Fresh, "exactly two intervals are not older");
    let n = meter.absorb("n", &answer, &tick(21, A)).unwrap();
    assert_eq!(n.pods["web-a"].state, PodState::Stale { age_ms: 11_000 });
    let k = meter.absorb("k", &[series("pod=web-a,code=500", &[(10, 4.0)])], &tick(21, A)).unwrap();
    let measured = share(&n, &k);
    assert!(matches!(&measured, Measured::Stale { n, k, why } if *n == 20.0 && *k == 4.0 && why.contains("web-a")));
    assert_eq!(measured.complete(), None, "never a pass");
    assert_eq!(measured.counts(), Some((20.0, 4.0)), "but what is known may be a breach");
}

#[test]
fn the_configured_interval_outranks_the_estimate() {
    let mut meter = Meter::new(0).with_scrape_interval(Some(15_000));
    let answer = [series("pod=web-a", &[(5, 10.0), (10, 20.0)])];
    let n = meter.absorb("n", &answer, &tick(40, A)).unwrap();
    assert_eq!(n.pods["web-a"].state, PodState::Fresh);
    assert_eq!(n.interval_ms, Some(15_000));
    let n = meter.absorb("n", &answer, &tick(41, A)).unwrap();
    assert!(matches!(n.pods["web-a"].state, PodState::Stale { .. }));
}

#[test]
fn the_interval_is_known_across_ticks_where_each_sees_one_sample() {
    let mut meter = Meter::new(0);
    meter.absorb("n", &[series("pod=web-a", &[(60, 1.0)])], &tick(60, A)).unwrap();
    let n = meter.absorb("n", &[series("pod=web-a", &[(120, 2.0)])], &tick(120, A)).unwrap();
    assert_eq!(n.interval_ms, Some(60_000));
    let n = meter.absorb("n", &[], &tick(235, A)).unwrap();
    assert_eq!(n.pods["web-a"].state, PodState::Fresh);
}

#[test]
fn absent_numerator_is_zero_absent_denominator_is_no_data() {
    let mut meter = Meter::new(0);
    let t = tick(10, A);
    let n = meter.absorb("n", &[series("pod=web-a", &[(5, 10.0), (10, 20.0)])], &t).unwrap();
    let nothing = meter.absorb("k", &[], &t).unwrap();
    assert_eq!(counted(&share(&n, &nothing)), (20.0, 0.0));
    assert!(matches!(share(&nothing, &nothing), Measured::NoData(why) if why.contains("k has no series of web-a")));
    let zero = meter.absorb("z", &[series("pod=web-a", &[(5, 0.0), (10, 0.0)])], &t).unwrap();
    assert!(matches!(share(&zero, &nothing), Measured::NoData(why) if why.contains("nothing yet")));
}

#[test]
fn a_silent_pod_is_no_pass_unless_it_is_just_born() {
    let t = tick(100, &[("web-a", 0), ("web-b", 0)]);
    let mut meter = Meter::new(0);
    let n = meter.absorb("n", &[series("pod=web-a", &[(95, 10.0), (100, 20.0)])], &t).unwrap();
    let k = meter.absorb("k", &[], &t).unwrap();
    assert!(matches!(share(&n, &k), Measured::Stale { why, .. } if why.contains("web-b has no samples")));

    let t = tick(100, &[("web-a", 0), ("web-b", 90)]);
    let mut meter = Meter::new(0);
    let n = meter.absorb("n", &[series("pod=web-a", &[(95, 10.0), (100, 20.0)])], &t).unwrap();
    let k = meter.absorb("k", &[], &t).unwrap();
    assert_eq!(n.pods["web-b"].state, PodState::Young);
    assert_eq!(counted(&share(&n, &k)), (20.0, 0.0));
}

#[test]
fn more_bad_than_all_is_an_error() {
    let mut meter = Meter::new(0);
    let t = tick(10, &[("web-a", 0), ("web-b", 0)]);
    let n = meter.absorb("n", &[series("pod=web-a", &[(10, 20.0)]), series("pod=web-b", &[(10, 100.0)])], &t).unwrap();
    let k = meter.absorb("k", &[series("pod=web-a", &[(10, 21.0)])], &t).unwrap();
    assert!(matches!(share(&n, &k), Measured::Error(why) if why.contains("web-a") && why.contains("21")));
}

#[test]
fn two_answers_that_caught_different_scrapes_speak_of_the_same_requests() {
    let mut meter = Meter::new(0);
    // All requests fail; the answer for bad is one scrape ahead of the one for all.
    let t = tick(16, A);
    let n = meter.absorb("n", &[series("pod=web-a", &[(5, 10.0), (10, 20.0)])], &t).unwrap();
    let k = meter.absorb("k", &[series("pod=web-a", &[(5, 10.0), (10, 20.0), (15, 30.0)])], &t).unwrap();
    assert_eq!(counted(&share(&n, &k)), (20.0, 20.0));
    let t = tick(20, A);
    let n = meter.absorb("n", &[series("pod=web-a", &[(10, 20.0), (15, 30.0), (20, 40.0)])], &t).unwrap();
    let k = meter.absorb("k", &[series("pod=web-a", &[(10, 20.0), (15, 30.0)])], &t).unwrap();
    assert_eq!(counted(&share(&n, &k)), (40.0, 30.0));
}

#[test]
fn impossible_answers_are_errors_and_change_nothing() {
    type Check = fn(&CounterError) -> bool;
    let value: Check = |e| matches!(e, CounterError::Value { .. });
    let table: Vec<(&str, Vec<canary_counters::Series>, Check)> = vec![
        ("NaN", vec![series("pod=web-a", &[(10, f64::NAN)])], value),
        ("+Inf", vec![series("pod=web-a", &[(10, f64::INFINITY)])], value),
        ("-Inf", vec![series("pod=web-a", &[(10, f64::NEG_INFINITY)])], value),
        ("negative", vec![series("pod=web-a", &[(10, -1.0)])], value),
        ("past exactness", vec![series("pod=web-a", &[(10, 1e17)])], value),
        ("good then NaN", vec![series("pod=web-a", &[(10, 99.0), (11, f64::NAN)])], value),
        (
            "good series, bad series",
            vec![series("pod=web-a", &[(10, 99.0)]), series("pod=web-a,x=1", &[(10, -5.0)])],
            value,
        ),
        ("unordered", vec![series("pod=web-a", &[(10, 9.0), (9, 10.0)])], |e| matches!(e, CounterError::Order { .. })),
        ("same time twice", vec![series("pod=web-a", &[(10, 9.0), (10, 9.0)])], |e| {
            matches!(e, CounterError::Order { .. })
        }),
        ("future", vec![series("pod=web-a", &[(10, 9.0), (16, 10.0)])], |e| {
            matches!(e, CounterError::Future { ahead_ms: 1000, .. })
        }),
        ("no pod", vec![series("code=200", &[(10, 9.0)])], |e| matches!(e, CounterError::NoPod { .. })),
        ("empty pod", vec![series("pod=", &[(10, 9.0)])], |e| matches!(e, CounterError::NoPod { .. })),
        ("no labels", vec![series("", &[(10, 9.0)])], |e| matches!(e, CounterError::NoPod { .. })),
        ("stranger", vec![series("pod=web-x", &[(10, 9.0)])], |e| matches!(e, CounterError::UnexpectedPod { .. })),
        ("twice", vec![series("pod=web-a", &[(10, 9.0)]), series("pod=web-a", &[(10, 9.0)])], |e| {
            matches!(e, CounterError::Duplicate { .. })
        }),
        (
            "two jobs",
            vec![series("pod=web-a,job=pods", &[(10, 9.0)]), series("pod=web-a,job=services", &[(10, 9.0)])],
            |e| matches!(e, CounterError::ScrapedTwice { labels, .. } if labels == "job"),
        ),
        (
            "two Prometheus replicas",
            vec![
                series("pod=web-a,prometheus_replica=0", &[(10, 9.0)]),
                series("pod=web-a,prometheus_replica=1", &[(10, 9.0)]),
            ],
            |e| matches!(e, CounterError::ScrapedTwice { .. }),
        ),
    ];
    for (name, answer, expected) in table {
        let mut meter = Meter::new(0);
        meter.absorb("n", &[series("pod=web-a", &[(5, 3.0)])], &tick(5, A)).unwrap();
        let error = meter.absorb("n", &answer, &tick(15, A)).expect_err(name);
        assert!(expected(&error), "{name}: {error:?}");
        assert!(!error.category().is_empty() && error.to_string().contains('n'), "{name}");
        assert!(matches!(Measured::from(error), Measured::Error(_)), "{name}");
        let after = meter.absorb("n", &[series("pod=web-a", &[(5, 3.0), (15, 4.0)])], &tick(15, A)).unwrap();
        assert_eq!(after.total(), 4.0, "{name}: nothing of it was taken");
    }
    // Two containers of a pod are two addresses, and both count.
    let mut meter = Meter::new(0);
    let both = [
        series("pod=web-a,instance=10.0.0.1:80", &[(10, 9.0)]),
        series("pod=web-a,instance=10.0.0.1:81", &[(10, 1.0)]),
    ];
    assert_eq!(meter.absorb("n", &both, &tick(10, A)).unwrap().total(), 10.0);
}

#[test]
fn events_need_a_witness_to_tell_none_from_nothing_known() {
    let mut meter = Meter::new(0);
    let t = tick(120, A);
    let events = meter.absorb("e", &[], &t).unwrap();
    assert!(matches!(event_rate(&events, None), Measured::NoData(_)));
    let requests = meter.absorb("n", &[series("pod=web-a", &[(115, 10.0), (120, 20.0)])], &t).unwrap();
    assert_eq!(counted(&event_rate(&events, Some(&requests))), (2.0, 0.0));
    let t = tick(180, A);
    let events = meter.absorb("e", &[series("pod=web-a", &[(180, 3.0)])], &t).unwrap();
    let requests = meter.absorb("n", &[series("pod=web-a", &[(175, 30.0), (180, 40.0)])], &t).unwrap();
    assert_eq!(counted(&event_rate(&events, Some(&requests))), (3.0, 3.0));
    let t = tick(400, A);
    let events = meter.absorb("e", &[], &t).unwrap();
    let requests = meter.absorb("n", &[], &t).unwrap();
    assert!(matches!(event_rate(&events, Some(&requests)), Measured::Stale { k, .. } if k == 3.0));
}

/// A tick on a gateway's series of some Services.
fn whole(now: i64, services: &[&str]) -> Tick {
    let names = services.iter().map(|name| (*name).to_owned()).collect();
    Tick { grouping: Grouping::Service { label: "service".to_owned(), names }, ..tick(now, &[]) }
}

#[test]
fn a_gateways_series_are_told_apart_by_address() {
    let mut meter = Meter::new(100_000).with_scrape_interval(Some(5000));
    let one = |at: i64, value: f64| series("instance=10.0.0.1:9100,service=orders", &[(at, value)]);
    let two = |at: i64, value: f64| series("instance=10.0.0.2:9100,service=orders", &[(at, value)]);
    let at = |now: i64| whole(now, &["orders"]);
    meter.absorb("n", &[one(100, 1000.0), two(100, 50.0)], &at(100)).unwrap();
    let n = meter.absorb("n", &[one(105, 1010.0), two(105, 3.0)], &at(105)).unwrap();
    assert_eq!(n.total(), 13.0);
    assert_eq!(n.pods["orders at 10.0.0.2:9100"].resets, 1);
    // One gateway pod is replaced: its old address goes silent, and the rest decides.
    let n = meter.absorb("n", &[one(150, 1100.0)], &at(150)).unwrap();
    let k = meter.absorb("k", &[], &at(150)).unwrap();
    assert_eq!(counted(&share(&n, &k)), (103.0, 0.0));
    assert!(n.is_fresh());
    assert_eq!(n.sampled_ms(), [150_000], "the replaced one does not hold the others back");
    let n = meter.absorb("n", &[], &at(900)).unwrap();
    assert!(matches!(share(&n, &k), Measured::Stale { .. }), "all silent");
    assert!(!n.is_fresh() && n.sampled_ms().is_empty());
}

#[test]
fn pods_are_fresh_only_together_and_those_that_are_gone_are_not_waited_for() {
    let mut meter = Meter::new(0);
    let both = &[("web-a", 0), ("web-b", 0)];
    let a = |at: i64| series("pod=web-a", &[(at - 5, 1.0), (at, 2.0)]);
    let n = meter.absorb("n", &[a(10), series("pod=web-b", &[(5, 1.0), (9, 2.0)])], &tick(10, both)).unwrap();
    assert!(n.is_fresh());
    assert_eq!(n.sampled_ms(), [10_000, 9000]);
    let n = meter.absorb("n", &[a(60)], &tick(60, both)).unwrap();
    assert!(!n.is_fresh());
    assert_eq!(n.sampled_ms(), [60_000, 9000], "what is late is not known further");
    let n = meter.absorb("n", &[a(65)], &tick(65, A)).unwrap();
    assert!(n.is_fresh());
    assert_eq!(n.sampled_ms(), [65_000]);
}

#[test]
fn a_service_that_a_known_gateway_had_not_counted_yet_began_at_zero() {
    let mut meter = Meter::new(100_000);
    let other = [series("instance=a,service=orders", &[(100, 1000.0), (105, 1010.0)])];
    let t = whole(105, &["orders-canary"]);
    meter.witness(&other, &t);
    meter.absorb("n", &[], &t).unwrap();
    let t = whole(110, &["orders-canary"]);
    let n = meter.absorb("n", &[series("instance=a,service=orders-canary", &[(110, 7.0)])], &t).unwrap();
    assert_eq!(n.total(), 7.0);
    // On an address that nobody has seen before it may be old: it counts from its first sample on.
    let n = meter.absorb("n", &[series("instance=b,service=orders-canary", &[(110, 500.0)])], &t).unwrap();
    assert_eq!(n.total(), 7.0);
}

#[test]
fn a_service_that_is_asked_about_later_counts_from_then_on() {
    let mut meter = Meter::new(100_000);
    let canary = |at: i64, value: f64| series("instance=a,service=orders-canary", &[(at, value)]);
    meter.absorb("n", &[canary(105, 10.0)], &whole(105, &["orders-canary"])).unwrap();
    let both = whole(200, &["orders-canary", "orders"]);
    let stable = |to: i64| series("instance=a,service=orders", &[(145, 90_000.0), (to, 90_000.0 + to as f64)]);
    let n = meter.absorb("n", &[canary(200, 30.0), stable(200)], &both).unwrap();
    assert_eq!(n.pods["orders at a"].total, 200.0, "what the other version had served before is not counted");
    assert_eq!(n.pods["orders-canary at a"].total, 20.0);
}

#[test]
fn a_series_of_another_service_is_an_error() {
    let mut meter = Meter::new(0);
    let t = whole(10, &["orders"]);
    for labels in ["instance=a,service=payments", "instance=a", "instance=a,service="] {
        let error = meter.absorb("n", &[series(labels, &[(5, 1.0)])], &t).unwrap_err();
        assert!(matches!(&error, CounterError::UnexpectedService { .. }), "{labels}: {error}");
        assert_eq!(error.category(), "unexpected_service");
    }
    // A recorded sum over all gateways has no address.
    let n = meter.absorb("n", &[series("service=orders", &[(5, 1.0), (10, 4.0)])], &t).unwrap();
    assert_eq!((n.total(), n.pods.keys().next().unwrap().as_str()), (3.0, "orders"));
}
