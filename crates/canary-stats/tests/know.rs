//! What a stage is said to know is what simulated stages show.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use canary_stats::know::{
    chance_to_detect, clean_requests_to_prove, detectable_rate, detectable_ratio, requests_to_detect,
    requests_to_prove, share_gate,
};
use canary_stats::{
    AboveLimit, Alpha, BelowLimit, EventCounts, EventRate, Process, Relative, ShareCounts, Starts, Tally,
};
use common::{Traffic, tolerance};

fn alpha() -> Alpha {
    Alpha::RELEASE.split(6, 5).unwrap()
}

/// The share of stages in which the mixture calls a breach.
fn power<P: Process>(process: &P, runs: u32, ticks: u64, mut tick: impl FnMut() -> P::Counts) -> f64 {
    let mut called = 0;
    for _ in 0..runs {
        let mut starts = Starts::new(ticks);
        called += u32::from((0..ticks).any(|index| {
            let counts = tick();
            starts.push(index, &counts);
            counts.bad() > 0.0 && starts.whole().bad() >= 3.0 && starts.log_e(process) >= alpha().ln_threshold()
        }));
    }
    f64::from(called) / f64::from(runs)
}

#[test]
fn what_a_stage_detects_is_what_simulated_stages_detect() {
    const RUNS: u32 = 300;
    for (limit, n, ticks) in
        [(0.01, 300_u64, 300_u64), (0.01, 3000, 100), (0.05, 60, 60), (0.05, 1500, 100), (0.01, 90_000, 60)]
    {
        let known = share_gate(limit, alpha(), Alpha::RELEASE, n as f64).unwrap();
        println!("{n} requests against {limit}: {known:?}");
        for (share, promised) in [(known.detects_80.unwrap(), 0.80), (known.detects_95.unwrap(), 0.95)] {
            let test = AboveLimit::new(limit).unwrap();
            let mut traffic = Traffic::seeded(31);
            let per = n / ticks;
            let is =
                power(&test, RUNS, ticks, || ShareCounts::new(per as f64, traffic.bad(per, share) as f64).unwrap());
            println!("  {share:.5} is detected in {is:.3}, said {promised}");
            assert!(is >= promised - tolerance(promised, RUNS, u32::MAX), "{limit} {n} {share}");
            // Cautious, but not by much.
            assert!(is <= promised + 0.12, "{limit} {n} {share}: {is}");
        }
    }
}

#[test]
fn requests_to_detect_grow_as_the_fault_shrinks_and_agree_with_the_stage() {
    let mut before = 0.0;
    for share in [1.0, 0.5, 0.1, 0.05, 0.03, 0.02, 0.015, 0.0105] {
        let n = requests_to_detect(0.01, alpha(), share, 0.8).unwrap().unwrap();
        println!("{share}: {n}");
        assert!(n > before);
        before = n;
        if share < 0.9 && n < 20_000.0 {
            let known = share_gate(0.01, alpha(), Alpha::RELEASE, n).unwrap().detects_80.unwrap();
            assert!((known / share - 1.0).abs() < 0.02 || n < 20.0, "{share}: {n} detects {known}");
        }
    }
    assert_eq!(requests_to_detect(0.01, alpha(), 0.01, 0.8).unwrap(), None);
    assert_eq!(requests_to_detect(0.01, alpha(), 0.005, 0.8).unwrap(), None);
}

#[test]
fn a_plan_says_by_which_stage_a_fault_is_reverted() {
    // A plan of 1, 5, 25 % of 100 requests/s, 5 minutes each. The reference counts the test from the start in full; here
    // it has half the weight.
    let by_stage = |share: f64| {
        let mut goes_on = 1.0;
        [300.0, 1500.0, 7500.0].map(|n| {
            goes_on *= 1.0 - chance_to_detect(0.01, alpha(), n, share).unwrap();
            1.0 - goes_on
        })
    };
    let (five, three) = (by_stage(0.05), by_stage(0.03));
    println!("reverted by stage: 5 %: {five:?}, 3 %: {three:?}");
    assert!(five[0] > 0.75 && five[0] < 0.84 && five[1] > 0.995);
    assert!(three[0] > 0.15 && three[0] < 0.22 && three[1] > 0.95 && three[2] > 0.995);
    assert!(chance_to_detect(0.01, alpha(), 300.0, 0.003).unwrap() < 1e-4);
    assert!(chance_to_detect(0.01, alpha(), 300.0, 0.0).unwrap() < 1e-12);
}

#[test]
fn a_blind_stage_says_so() {
    let none = share_gate(0.01, alpha(), Alpha::RELEASE, 0.0).unwrap();
    assert_eq!((none.detects_80, none.proves, none.can_prove), (None, None, false));
    let two = share_gate(0.01, alpha(), Alpha::RELEASE, 2.0).unwrap();
    assert_eq!(two.detects_80, None);
    let some = share_gate(0.01, alpha(), Alpha::RELEASE, 300.0).unwrap();
    assert!(!some.can_prove && some.clean_requests_to_prove == 358.0);
    assert!(some.proves.is_some_and(|limit| limit > 0.01 && limit < 0.013));
}

#[test]
fn what_proves_a_limit_is_what_proves_it_in_simulated_stages() {
    assert_eq!(clean_requests_to_prove(0.01, Alpha::RELEASE).unwrap(), 358.0);
    assert_eq!(requests_to_prove(0.01, Alpha::RELEASE, 0.0, 0.8).unwrap(), Some(358.0));
    assert_eq!(requests_to_prove(0.01, Alpha::RELEASE, 0.01, 0.8).unwrap(), None);
    let mirror = BelowLimit::new(0.01).unwrap();
    const RUNS: u32 = 1000;
    for share in [0.001, 0.003, 0.005] {
        let n = requests_to_prove(0.01, Alpha::RELEASE, share, 0.8).unwrap().unwrap();
        let mut traffic = Traffic::seeded(33);
        let proved = (0..RUNS)
            .filter(|_| {
                let bad = traffic.bad(n as u64, share) as f64;
                mirror.log_e(&ShareCounts::new(n, bad).unwrap()) >= 20.0_f64.ln()
            })
            .count();
        let is = proved as f64 / f64::from(RUNS);
        println!("{share}: {n} requests prove 1 % in {is}");
        assert!(is >= 0.8 - tolerance(0.8, RUNS, u32::MAX) && is < 0.93, "{share}");
    }
}

#[test]
fn the_rate_and_the_ratio_that_are_detected() {
    const RUNS: u32 = 300;
    let mut traffic = Traffic::seeded(35);
    for expected in [0.5_f64, 2.5, 20.0] {
        let ratio = detectable_rate(expected, alpha(), 0.8).unwrap().unwrap();
        let is = power(&EventRate::new(), RUNS, 300, || {
            EventCounts::new(traffic.events(ratio * expected / 300.0) as f64, expected / 300.0).unwrap()
        });
        println!("{expected} events allowed: {ratio:.2} times is detected in {is:.3}");
        assert!(is >= 0.8 - tolerance(0.8, RUNS, u32::MAX) && is < 0.95, "{expected}");
    }
    let relative = Relative::new(0.1).unwrap();
    for (share, stable) in [(0.05_f64, 300.0_f64), (0.25, 100.0), (0.5, 60.0)] {
        let ratio = detectable_ratio(0.1, share, stable, alpha(), 0.8).unwrap().unwrap();
        let is = power(&relative, RUNS, 300, || {
            let canary = traffic.events(ratio * stable * share / (1.0 - share) / 300.0) as f64;
            let other = traffic.events(stable / 300.0) as f64;
            relative.tick(canary, canary + other, share).unwrap()
        });
        println!("share {share}, {stable} stable events: {ratio:.2} times is detected in {is:.3}");
        // The stable side's noise is not counted, and moves it a little.
        assert!((is - 0.8).abs() <= tolerance(0.8, RUNS, u32::MAX) + 0.07, "{share}");
    }
    assert_eq!(detectable_rate(0.0, alpha(), 0.8).unwrap(), None);
}
