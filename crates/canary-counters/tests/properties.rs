//! Properties of the meter: whatever comes in, increases are never negative, nothing panics, and
//! many ticks count what one batch counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use canary_counters::histogram::latency;
use canary_counters::measure::{event_rate, share};
use canary_counters::{Grouping, Meter, PodKnown, Sample, Selector, Series, Tick};
use common::tick;
use proptest::prelude::*;

/// One process's life: increments scrape by scrape; `None` is a restart.
fn life() -> impl Strategy<Value = Vec<Option<u16>>> {
    prop::collection::vec(prop_oneof![8 => (0_u16..500).prop_map(Some), 1 => Just(None)], 1..40)
}

/// The raw counter of a life, scraped every five seconds, and what was truly counted of it: what
/// happens between a restart and the next scrape is in the next value.
fn scraped(life: &[Option<u16>]) -> (Vec<(i64, f64)>, f64) {
    let mut value = 0.0;
    let mut truth = 0.0;
    let mut samples = Vec::new();
    for (index, step) in life.iter().enumerate() {
        match step {
            Some(step) => {
                value += f64::from(*step);
                truth += f64::from(*step);
            }
            None => value = 0.0,
        }
        samples.push(((index as i64 + 1) * 5, value));
    }
    (samples, truth)
}

fn any_series() -> impl Strategy<Value = Vec<Series>> {
    let label = prop::sample::select(vec!["pod", "code", "le", "job", "instance", "__name__", ""]);
    let value = prop::sample::select(vec!["web-a", "web-b", "", "500", "0.2", "+Inf", "NaN", "é\u{0}\""]);
    let labels = prop::collection::btree_map(label.prop_map(str::to_owned), value.prop_map(str::to_owned), 0..4);
    let number = prop_oneof![any::<f64>(), 0.0..1e6_f64, Just(f64::NAN), Just(f64::INFINITY), Just(-0.0)];
    let time = prop_oneof![any::<i64>(), 0_i64..200_000];
    let samples = prop::collection::vec((time, number), 0..5)
        .prop_map(|samples| samples.into_iter().map(|(at_ms, value)| Sample { at_ms, value }).collect::<Vec<_>>());
    prop::collection::vec((labels, samples).prop_map(|(labels, samples)| Series { labels, samples }), 0..4)
}

fn any_tick() -> impl Strategy<Value = Tick> {
    let time = prop_oneof![any::<i64>(), 0_i64..200_000];
    (time.clone(), time.clone(), time, any::<bool>()).prop_map(|(now_ms, covered_from_ms, started_at_ms, whole)| Tick {
        now_ms,
        covered_from_ms,
        pods: vec![PodKnown { name: "web-a".to_owned(), started_at_ms }],
        grouping: if whole {
            Grouping::Service { label: "pod".to_owned(), names: vec!["web-a".to_owned()] }
        } else {
            Grouping::Pod("pod".to_owned())
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn many_ticks_count_what_one_batch_counts(
        lives in prop::collection::vec(life(), 1..4),
        gaps in prop::collection::vec(1_i64..55, 1..20),
    ) {
        let pods = &[("web-a", 0)];
        let histories: Vec<(Vec<(i64, f64)>, f64)> = lives.iter().map(|life| scraped(life)).collect();
        let answer = |from: i64, to: i64| -> Vec<Series> {
            histories
                .iter()
                .enumerate()
                .map(|(index, (samples, _))| {
                    let inside: Vec<(i64, f64)> =
                        samples.iter().copied().filter(|(at, _)| *at > from && *at <= to).collect();
                    common::series(&format!("pod=web-a,code={index}"), &inside)
                })
                .filter(|series| !series.samples.is_empty())
                .collect()
        };
        let end = 300;
        let batch = Meter::new(0).absorb("n", &answer(-1, end), &tick(end, pods)).unwrap();

        let mut meter = Meter::new(0);
        let mut increases = 0.0;
        let mut now = 0;
        for gap in gaps.iter().chain(std::iter::repeat(&50)) {
            now = (now + gap).min(end);
            // The lookback reaches beyond the last tick, as it does in operation.
            let reading = meter.absorb("n", &answer(now - 60, now), &tick(now, pods)).unwrap();
            prop_assert!(reading.increase() >= 0.0);
            increases += reading.increase();
            prop_assert_eq!(increases, reading.total());
            prop_assert_eq!(reading.total(), reading.total_at(now * 1000));
            if now == end {
                break;
            }
        }
        let last = meter.absorb("n", &[], &tick(end, pods)).unwrap();
        prop_assert_eq!(batch.total(), last.total());
        // Without restarts that is the truth; with them never more than it.
        let truth: f64 = histories.iter().map(|(_, truth)| truth).sum();
        prop_assert!(last.total() <= truth);
        if lives.iter().flatten().all(Option::is_some) {
            prop_assert_eq!(last.total(), truth);
        }
    }

    #[test]
    fn a_part_never_counts_more_than_the_whole(
        steps in prop::collection::vec((0_u16..100, 0_u16..100, any::<bool>()), 1..40),
        windows in prop::collection::vec(1_usize..40, 0..4),
        births in 0_i64..200,
        bad_lag in 0_i64..2,
    ) {
        // Good and bad requests of one pod, with restarts; bad only appears with its first event.
        let pods = &[("web-a", births - 100)];
        let (mut good, mut bad, mut seen) = (0.0, 0.0, false);
        let mut all_samples = Vec::new();
        let mut bad_samples = Vec::new();
        let mut meter = Meter::new(0);
        for (index, (g, b, restart)) in steps.iter().enumerate() {
            if *restart && index % 7 == 3 {
                (good, bad, seen) = (0.0, 0.0, false);
            }
            good += f64::from(*g);
            bad += f64::from(*b);
            seen |= *b > 0;
            let at = (index as i64 + 1) * 5;
            all_samples.push((at, good + bad));
            if seen {
                bad_samples.push((at, bad));
            }
            if windows.contains(&index) {
                meter.begin_window(at * 1000 - 2500);
            }
            let inside = |samples: &[(i64, f64)], to: i64| -> Vec<(i64, f64)> {
                samples.iter().copied().filter(|(t, _)| *t > at - 60 && *t <= to).collect()
            };
            // The answer for all may lag one scrape behind the answer for bad.
            let n = vec![common::series("pod=web-a", &inside(&all_samples, at - bad_lag * 5))];
            let k = vec![common::series("pod=web-a,code=500", &inside(&bad_samples, at))];
            let keep = |mut series: Vec<Series>| { series.retain(|one| !one.samples.is_empty()); series };
            let (n, k) = (keep(n), keep(k));
            let t = tick(at, pods);
            meter.witness(&n, &t);
            meter.witness(&k, &t);
            let n = meter.absorb("n", &n, &t).unwrap();
            let k = meter.absorb("k", &k, &t).unwrap();
            if let Some((n, k)) = share(&n, &k).counts() {
                prop_assert!(k <= n, "{} of {}", k, n);
                prop_assert!(k >= 0.0);
            }
        }
    }

    #[test]
    fn nothing_that_comes_in_panics_or_counts_backwards(
        answers in prop::collection::vec((any_series(), any_tick()), 1..6),
        window in any::<i64>(),
    ) {
        let failed = Selector::parse(r#"x{code=~"5.."}"#).unwrap();
        let mut meter = Meter::new(0);
        for (series, tick) in &answers {
            let n = meter.absorb("n", series, tick);
            let h = meter.absorb_histogram("h", series, Some(&failed), tick);
            if let Ok(n) = &n {
                prop_assert!(n.increase() >= 0.0 && n.total() >= 0.0 && n.total().is_finite());
                if let Ok(h) = &h {
                    let _ = latency(h, 0.2, Some(n));
                    let _ = latency(h, f64::NAN, None);
                }
                let _ = (share(n, n), event_rate(n, None), event_rate(n, Some(n)));
            }
            meter.begin_window(window);
        }
    }
}
