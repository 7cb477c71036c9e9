//! Native histograms: limits between boundaries, and resolutions that change from sample to sample.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use canary_counters::histogram::latency;
use canary_counters::{
    CounterError, HistogramReading, Latency, Measured, Meter, NativeBucket, NativeSample, NativeSeries, Selector,
    WarmUp,
};
use common::{series, tick};
use proptest::prelude::*;

const A: &[(&str, i64)] = &[("web-a", 0)];

/// Seconds, and buckets from-to with their counts.
type Seen<'a> = (i64, &'a [(f64, f64, f64)]);

/// Samples of a pod.
fn native(labels: &str, samples: &[Seen<'_>]) -> NativeSeries {
    let sample = |(at, buckets): &Seen<'_>| NativeSample {
        at_ms: at * 1000,
        count: buckets.iter().map(|bucket| bucket.2).sum(),
        buckets: buckets.iter().map(|&(lower, upper, count)| NativeBucket { lower, upper, count }).collect(),
    };
    NativeSeries { labels: series(labels, &[]).labels, samples: samples.iter().map(sample).collect() }
}

fn read(meter: &mut Meter, now: i64, all: &[NativeSeries], limit: f64) -> HistogramReading {
    meter.absorb_native("h", all, limit, None, &tick(now, A)).unwrap()
}

fn counted(latency: &Latency) -> ((f64, f64), (f64, f64)) {
    (latency.breach.counts().unwrap(), latency.proof.counts().unwrap())
}

#[test]
fn a_limit_in_a_bucket_is_judged_at_its_upper_end_and_proved_at_its_lower() {
    let one = native("pod=web-a", &[(10, &[(0.0625, 0.125, 80.0), (0.125, 0.25, 15.0), (0.5, 1.0, 5.0)])]);
    let judged = latency(&read(&mut Meter::new(0), 10, std::slice::from_ref(&one), 0.2), 0.2, None);
    assert_eq!(counted(&judged), ((100.0, 5.0), (100.0, 20.0)));
    assert_eq!((judged.breach_le, judged.proof_le), (Some(0.25), Some(0.125)));
    assert!(judged.note.unwrap().contains("a breach is judged at 0.25, a proof at 0.125"));
    // On a boundary, and where no request is near it, the limit is met in full.
    for limit in [0.25, 0.3, 0.5] {
        let judged = latency(&read(&mut Meter::new(0), 10, std::slice::from_ref(&one), limit), limit, None);
        assert_eq!(counted(&judged), ((100.0, 5.0), (100.0, 5.0)), "{limit}");
        assert_eq!((judged.breach_le, judged.proof_le, judged.note), (Some(limit), Some(limit), None));
    }
}

#[test]
fn buckets_that_appear_and_a_resolution_that_halves_move_no_request() {
    // 10 slow of 100, then 1 slow of 10 more, at half the resolution; then 2 of 20, as fine as before by a restart.
    let samples: &[Seen<'_>] = &[
        (5, &[(0.1, 0.14, 60.0), (0.14, 0.2, 10.0), (0.2, 0.28, 20.0), (0.28, 0.4, 7.0), (0.4, 0.8, 3.0)]),
        (10, &[(0.1, 0.2, 77.0), (0.2, 0.4, 29.0), (0.4, 0.8, 4.0)]),
        (15, &[(0.14, 0.2, 18.0), (0.28, 0.4, 1.0), (0.4, 0.8, 1.0)]),
    ];
    let one = native("pod=web-a", samples);
    let at_once = latency(&read(&mut Meter::new(0), 15, std::slice::from_ref(&one), 0.25), 0.25, None);
    // By the second sample the 20 and 7 around the limit are one bucket, as is what is new.
    assert_eq!(counted(&at_once), ((130.0, 10.0 + 1.0 + 2.0), (130.0, 30.0 + 3.0 + 2.0)));
    // The same whether the samples come in one answer or one by one, read again or not.
    let mut meter = Meter::new(0);
    let mut last = None;
    for (now, from) in [(5, 0), (10, 0), (15, 1)] {
        let part = native("pod=web-a", &samples[from..usize::try_from(now / 5).unwrap()]);
        last = Some(latency(&read(&mut meter, now, &[part], 0.25), 0.25, None));
    }
    assert_eq!(counted(&last.unwrap()), counted(&at_once));
}

#[test]
fn only_what_is_new_in_a_window_counts() {
    let mut meter = Meter::new(100_000);
    let old = native(
        "pod=web-a",
        &[(95, &[(0.1, 0.2, 900.0), (0.4, 0.8, 90.0)]), (105, &[(0.1, 0.2, 950.0), (0.4, 0.8, 91.0)])],
    );
    let reading = meter.absorb_native("h", &[old], 0.3, None, &tick(105, &[("web-a", -1000)])).unwrap();
    assert_eq!(latency(&reading, 0.3, None).breach.complete(), Some((51.0, 1.0)));
}

#[test]
fn beyond_its_last_boundary_nothing_is_known_to_be_slow() {
    // Custom buckets, as converted from a classic histogram.
    let one =
        native("pod=web-a", &[(10, &[(f64::NEG_INFINITY, 0.1, 80.0), (0.1, 0.5, 15.0), (0.5, f64::INFINITY, 5.0)])]);
    let at = |limit: f64| latency(&read(&mut Meter::new(0), 10, std::slice::from_ref(&one), limit), limit, None);
    assert!(matches!(at(2.0).breach, Measured::NoData(why) if why.contains("no boundary at or above 2")));
    assert_eq!(at(2.0).proof.complete(), Some((100.0, 5.0)));
    assert_eq!(at(0.05).breach.complete(), Some((100.0, 20.0)));
    assert!(matches!(at(0.05).proof, Measured::NoData(why) if why.contains("no boundary at or below")));
}

#[test]
fn failed_requests_are_told_by_its_labels() {
    let failed = Selector::parse(r#"requests_total{code=~"5.."}"#).unwrap();
    let good = native("pod=web-a,code=200", &[(10, &[(0.1, 0.2, 90.0), (0.4, 0.8, 5.0)])]);
    let bad = native("pod=web-a,code=500", &[(10, &[(0.1, 0.2, 4.0), (0.4, 0.8, 1.0)])]);
    let reading = Meter::new(0).absorb_native("h", &[good, bad], 0.3, Some(&failed), &tick(10, A)).unwrap();
    assert!(!reading.needs_failed);
    assert_eq!(latency(&reading, 0.3, None).breach.complete(), Some((100.0, 10.0)));
    let untold = native("pod=web-a", &[(10, &[(0.1, 0.2, 90.0)])]);
    assert!(Meter::new(0).absorb_native("h", &[untold], 0.3, Some(&failed), &tick(10, A)).unwrap().needs_failed);
}

#[test]
fn a_warm_up_is_left_out_of_it() {
    let (mut meter, mut warm) = (Meter::new(0), WarmUp::new(30_000));
    let one = native(
        "pod=web-a",
        &[
            (5, &[(0.4, 0.8, 50.0)]),
            (35, &[(0.1, 0.2, 50.0), (0.4, 0.8, 60.0)]),
            (60, &[(0.1, 0.2, 149.0), (0.4, 0.8, 61.0)]),
        ],
    );
    let reading = warm.judged_histogram(&read(&mut meter, 60, &[one], 0.3));
    assert_eq!(latency(&reading, 0.3, None).breach.complete(), Some((100.0, 1.0)));
}

#[test]
fn lying_native_histograms_are_errors_and_change_nothing() {
    let mut meter = Meter::new(0);
    let good = |at: i64, n: f64| native("pod=web-a", &[(at, &[(0.1, 0.2, n), (0.4, 0.8, 1.0)])]);
    read(&mut meter, 5, &[good(5, 9.0)], 0.3);
    let mut short = good(10, 10.0);
    short.samples[0].count = 5.0;
    let with = |lower: f64, upper: f64, count: f64| {
        let mut one = good(10, 10.0);
        one.samples[0].buckets[0] = NativeBucket { lower, upper, count };
        one.samples[0].count = 11.0;
        one
    };
    let value = |error: &CounterError| matches!(error, CounterError::Value { .. });
    let boundary = |error: &CounterError| matches!(error, CounterError::Boundary { .. });
    for (name, answer, expected) in [
        ("more in buckets than in all", vec![short], &value as &dyn Fn(&CounterError) -> bool),
        ("NaN in a bucket", vec![with(0.1, 0.2, f64::NAN)], &value),
        ("negative bucket", vec![with(0.1, 0.2, -1.0)], &value),
        ("infinite bucket", vec![with(0.1, 0.2, f64::INFINITY)], &value),
        ("boundary NaN", vec![with(f64::NAN, 0.2, 1.0)], &boundary),
        ("turned round", vec![with(0.2, 0.1, 1.0)], &boundary),
        ("twice", vec![good(10, 10.0), good(10, 10.0)], &|error| matches!(error, CounterError::Duplicate { .. })),
        ("no pod", vec![native("code=200", &[(10, &[])])], &|error| matches!(error, CounterError::NoPod { .. })),
        ("future", vec![good(16, 10.0)], &|error| matches!(error, CounterError::Future { .. })),
    ] {
        let error = meter.absorb_native("h", &answer, 0.3, None, &tick(15, A)).expect_err(name);
        assert!(expected(&error), "{name}: {error:?}");
    }
    let after = latency(&read(&mut meter, 15, &[good(15, 19.0)], 0.3), 0.3, None);
    assert_eq!(after.breach.complete(), Some((20.0, 1.0)), "nothing of it was taken");
    assert!(matches!(latency(&read(&mut Meter::new(0), 15, &[], 0.3), 0.3, None).breach, Measured::NoData(_)));
}

/// Requests at powers of two, as seen by a histogram whose boundaries are every so many of these.
fn seen(requests: &[u32; 16], every: usize) -> Vec<NativeBucket> {
    requests
        .chunks(every)
        .enumerate()
        .map(|(index, part)| NativeBucket {
            lower: 2_f64.powi(i32::try_from(index * every).unwrap() - 8),
            upper: 2_f64.powi(i32::try_from((index + 1) * every).unwrap() - 8),
            count: part.iter().map(|one| f64::from(*one)).sum(),
        })
        .filter(|bucket| bucket.count > 0.0)
        .collect()
}

proptest! {
    /// Whatever the resolutions and restarts: slow for certain is never more than slow, slow possibly never less.
    #[test]
    fn the_two_counts_always_hold_the_true_one_between_them(
        steps in prop::collection::vec((prop::array::uniform16(0_u32..9), 0_u32..3, prop::bool::weighted(0.1)), 1..12),
        at in 1_usize..15,
    ) {
        let limit = 2_f64.powi(i32::try_from(at).unwrap() - 8) * 1.3;
        let (mut total, mut slow, mut now) = (0.0, 0.0, [0_u32; 16]);
        let mut one = native("pod=web-a", &[]);
        for (index, (new, coarse, restart)) in steps.into_iter().enumerate() {
            if restart {
                now = [0; 16];
            }
            for (slot, (sum, more)) in now.iter_mut().zip(new).enumerate() {
                // None in the limit's own bucket, so that the truth is known.
                let more = if slot == at { 0 } else { more };
                *sum += more;
                total += f64::from(more);
                slow += if slot > at { f64::from(more) } else { 0.0 };
            }
            let buckets = seen(&now, 1 << coarse);
            let count = buckets.iter().map(|bucket| bucket.count).sum();
            one.samples.push(NativeSample { at_ms: (i64::try_from(index).unwrap() + 1) * 1000, count, buckets });
        }
        let reading = read(&mut Meter::new(0), 20, &[one], limit);
        prop_assume!(total > 0.0);
        let judged = latency(&reading, limit, None);
        let ((n, certain), (_, possible)) = counted(&judged);
        // A restart that nothing shows is not counted; then less is, on both sides.
        prop_assert!(n <= total && certain <= slow);
        if n == total {
            prop_assert!(possible >= slow - 1e-9, "{possible} {slow}");
        }
    }
}
