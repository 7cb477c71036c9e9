//! What every test promises: it starts at 1, more bad requests never look better, it is a number for any counts, it
//! calls no more false alarms than its budget, and one batch says what many ticks say.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use canary_stats::interval::{clopper_pearson, wilson};
use canary_stats::{
    AboveLimit, Alpha, BelowLimit, ChangeDetector, Consecutive, Dispersion, EventCounts, EventRate, Evidence,
    Historical, MeasuredDispersion, Misrouted, PairedCounts, Process, Relative, Routing, ShareCounts, Starts,
    StatsError, Tally, ValueGate, Verdict, WholeService, whole_service,
};
use common::{Traffic, at_least, at_most};
use proptest::prelude::*;

fn counts(n: f64, k: f64) -> ShareCounts {
    ShareCounts::new(n, k).unwrap()
}

fn dispersions() -> impl Strategy<Value = Dispersion> {
    prop_oneof![Just(Dispersion::NONE), (1.0..10.0).prop_map(|phi| Dispersion::new(phi).unwrap())]
}

/// Limits over all magnitudes.
fn limits() -> impl Strategy<Value = f64> {
    prop_oneof![(-13.0..0.0).prop_map(|ln: f64| ln.exp()), Just(0.01), Just(0.05), (0.5..0.9999)]
}

/// Up to a billion, all magnitudes alike; bad ones anywhere, also near the limit.
fn shares() -> impl Strategy<Value = (f64, f64, f64)> {
    (limits(), 0.0..20.723_f64, 0.0..1.0_f64, -8.0..8.0_f64, any::<bool>()).prop_map(|(limit, ln_n, part, z, near)| {
        let n = ln_n.exp().floor();
        let sd = (n * limit * (1.0 - limit)).sqrt();
        let k = if near { n * limit + z * sd } else { n * part.powi(4) };
        (limit, n, k.floor().clamp(0.0, n))
    })
}

#[test]
fn every_test_starts_at_1() {
    let none = ShareCounts::default();
    assert_eq!(AboveLimit::new(0.01).unwrap().log_e(&none), 0.0);
    assert_eq!(BelowLimit::new(0.01).unwrap().log_e(&none), 0.0);
    assert_eq!(EventRate::new().log_e(&EventCounts::default()), 0.0);
    let relative = Relative::new(0.1).unwrap();
    assert_eq!(relative.log_e(&relative.tick(0.0, 0.0, 0.05).unwrap()), 0.0);
    let routing = Routing::new(0.05, 0.5, Misrouted::TooFew).unwrap();
    assert_eq!(routing.log_e(&routing.tick(0.0, 0.0).unwrap()), 0.0);
    for planned in [0, 1, 2, 900] {
        let starts = Starts::<ShareCounts>::new(planned);
        assert!(starts.log_e(&AboveLimit::new(0.01).unwrap()).abs() < 1e-12);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn e_is_a_number_for_up_to_a_billion_requests((limit, n, k) in shares(), phi in dispersions()) {
        let counts = counts(n, k);
        let above = AboveLimit::new(limit).unwrap().dispersed(phi).log_e(&counts);
        let below = BelowLimit::new(limit).unwrap().dispersed(phi).log_e(&counts);
        prop_assert!(above.is_finite() && below.is_finite(), "{} {}", above, below);
        let events = EventRate::new().dispersed(phi).log_e(&EventCounts::new(k, n * limit).unwrap());
        prop_assert!(events.is_finite());
        let share = limit.clamp(1e-6, 0.999);
        let relative = Relative::new(0.1).unwrap().dispersed(phi);
        prop_assert!(relative.log_e(&relative.tick(k, n, share).unwrap()).is_finite());
    }

    #[test]
    fn one_more_bad_request_never_looks_better((limit, n, k) in shares(), phi in dispersions()) {
        prop_assume!(k < n);
        let (less, more) = (counts(n, k), counts(n, k + 1.0));
        // A unit in the last place of a large logarithm is not a difference.
        let slack = |ln: f64| 1e-14 * ln.abs().max(1.0);
        let above = AboveLimit::new(limit).unwrap().dispersed(phi);
        let (a, b) = (above.log_e(&less), above.log_e(&more));
        prop_assert!(b >= a - slack(a), "{} {}", a, b);
        let below = BelowLimit::new(limit).unwrap().dispersed(phi);
        let (a, b) = (below.log_e(&less), below.log_e(&more));
        prop_assert!(b <= a + slack(a), "{} {}", a, b);
        let rate = |k: f64| EventRate::new().dispersed(phi).log_e(&EventCounts::new(k, n * limit).unwrap());
        prop_assert!(rate(k + 1.0) >= rate(k));
        let relative = Relative::new(0.1).unwrap().dispersed(phi);
        let ratio = |k: f64| relative.log_e(&relative.tick(k, n, limit.min(0.9)).unwrap());
        prop_assert!(ratio(k + 1.0) >= ratio(k));
    }

    #[test]
    fn one_more_good_request_never_looks_worse((limit, n, k) in shares()) {
        let slack = |ln: f64| 1e-14 * ln.abs().max(1.0);
        let above = AboveLimit::new(limit).unwrap();
        let (a, b) = (above.log_e(&counts(n, k)), above.log_e(&counts(n + 1.0, k)));
        prop_assert!(b <= a + slack(a), "{} {}", a, b);
    }

    #[test]
    fn one_batch_says_what_many_ticks_say(ticks in prop::collection::vec((0_u32..100, 0_u32..100), 1..40)) {
        let above = AboveLimit::new(0.01).unwrap();
        let relative = Relative::new(0.1).unwrap();
        let (mut many, mut pairs) = (ShareCounts::default(), relative.tick(0.0, 0.0, 0.05).unwrap());
        let (mut n, mut k) = (0.0, 0.0);
        for (good, bad) in ticks {
            let (all, bad) = (f64::from(good + bad), f64::from(bad));
            many.add(&counts(all, bad));
            pairs.add(&relative.tick(bad, all, 0.05).unwrap());
            n += all;
            k += bad;
        }
        prop_assert_eq!(above.log_e(&many), above.log_e(&counts(n, k)));
        let once = relative.log_e(&relative.tick(k, n, 0.05).unwrap());
        prop_assert!((relative.log_e(&pairs) - once).abs() <= 1e-9 * once.abs().max(1.0));
    }

    #[test]
    fn no_number_is_accepted_that_is_no_count(n in proptest::num::f64::ANY, k in proptest::num::f64::ANY) {
        match ShareCounts::new(n, k) {
            Ok(counts) => {
                prop_assert!(n.is_finite() && k >= 0.0 && k <= n);
                prop_assert!(AboveLimit::new(0.01).unwrap().log_e(&counts).is_finite());
            }
            Err(_) => prop_assert!(!(k >= 0.0 && k <= n && n < 9e15)),
        }
        let _ = EventCounts::new(n, k);
        let _ = Relative::new(0.1).unwrap().tick(k, n, 0.5);
        if let Ok(limit) = AboveLimit::new(n) {
            prop_assert!(n > 0.0 && n < 1.0 && limit.log_e(&counts(100.0, 3.0)).is_finite());
        }
    }

    #[test]
    fn the_intervals_contain_the_estimate((_, n, k) in shares()) {
        prop_assume!(n > 0.0);
        for interval in [wilson(&counts(n, k), 0.95).unwrap(), clopper_pearson(&counts(n, k), 0.95).unwrap()] {
            prop_assert!(0.0 <= interval.low && interval.high <= 1.0);
            let slack = 1e-9 * k / n;
            prop_assert!(interval.low <= k / n + slack && k / n <= interval.high + slack, "{:?} {}", interval, k / n);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_mixture_is_a_number_and_more_bad_requests_in_any_tick_never_look_better(
        planned in 1_u64..200,
        ticks in prop::collection::vec((1_u32..30, 0_u32..4, 1_u64..4), 1..150),
        at in any::<prop::sample::Index>(),
    ) {
        let above = AboveLimit::new(0.01).unwrap();
        let (mut less, mut more) = (Starts::new(planned), Starts::new(planned));
        let mut index = 0;
        let one = at.index(ticks.len());
        for (position, (n, k, step)) in ticks.iter().enumerate() {
            let (n, k) = (f64::from(*n) + 5.0, f64::from(*k));
            less.push(index, &counts(n, k));
            more.push(index, &counts(n, if position == one { k + 1.0 } else { k }));
            index += step;
            let (a, b) = (less.log_e(&above), more.log_e(&above));
            prop_assert!(a.is_finite() && b >= a - 1e-12 * a.abs().max(1.0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_a_restart_there_is_never_more_evidence_than_without_one(
        planned in 1_u64..150,
        bad in prop::collection::vec(prop_oneof![4 => Just(0_u32), 1 => 0_u32..5], 2..150),
        restart in any::<prop::sample::Index>(),
    ) {
        let above = AboveLimit::new(0.01).unwrap();
        let restart = 1 + restart.index(bad.len() - 1);
        let (mut one, mut other) = (Starts::new(planned), Starts::new(planned));
        for (index, k) in bad.iter().enumerate() {
            if index == restart {
                other = Starts::resume(planned, *other.whole(), index as u64);
            }
            let tick = counts(10.0, f64::from(*k));
            one.push(index as u64, &tick);
            other.push(index as u64, &tick);
            let (without, with) = (one.log_e(&above), other.log_e(&above));
            prop_assert!(with <= without + 1e-12 * without.abs().max(1.0), "{} {}", with, without);
            prop_assert_eq!(one.whole(), other.whole());
        }
    }
}

#[test]
fn more_bad_than_all_is_an_error_and_what_is_kept_is_read_back() {
    assert_eq!(ShareCounts::new(3.0, 4.0), Err(StatsError::MoreBadThanAll { bad: 4.0, all: 3.0 }));
    assert!(serde_json::from_str::<ShareCounts>(r#"{"n": 3.0, "k": 4.0}"#).is_err());
    let pairs = Relative::new(0.1).unwrap().tick(3.0, 40.0, 0.05).unwrap();
    let kept = serde_json::to_string(&pairs).unwrap();
    assert_eq!(serde_json::from_str::<PairedCounts>(&kept).unwrap(), pairs);
    assert!(serde_json::from_str::<PairedCounts>(&kept.replace("40.0", "2.0")).is_err());
    let kept = serde_json::to_string(&counts(7.0, 2.0)).unwrap();
    assert_eq!(serde_json::from_str::<ShareCounts>(&kept).unwrap(), counts(7.0, 2.0));
    let events = EventCounts::new(7.0, 2.5).unwrap();
    assert_eq!(serde_json::from_str::<EventCounts>(&serde_json::to_string(&events).unwrap()).unwrap(), events);
    assert!(serde_json::from_str::<EventCounts>(r#"{"k": -1.0, "expected": 2.0}"#).is_err());
}

const RUNS: u32 = 500;

/// Runs in which a test reaches 1/alpha within 300 ticks.
fn alarms<P: Process>(process: &P, alpha: f64, mixture: bool, mut tick: impl FnMut(u64) -> P::Counts) -> u32 {
    let mut alarms = 0;
    for _ in 0..RUNS {
        let mut starts = Starts::new(300);
        for index in 0..300 {
            let counts = tick(index);
            let quiet = counts.bad() <= 0.0;
            starts.push(index, &counts);
            if quiet {
                continue;
            }
            let e = if mixture { starts.log_e(process) } else { process.log_e(starts.whole()) };
            if e >= -alpha.ln() {
                alarms += 1;
                break;
            }
        }
    }
    alarms
}

/// Takes minutes: `cargo test --release -p canary-stats -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn false_alarms_over_limits_rates_and_budgets() {
    for limit in [0.001, 0.01, 0.05, 0.3] {
        let test = AboveLimit::new(limit).unwrap();
        for (rate, runs) in [(1, 2000), (30, 2000), (300, 200)] {
            for alpha in [0.05, 0.01] {
                let mut traffic = Traffic::seeded(101);
                let mut alarms = 0;
                for _ in 0..runs {
                    let mut starts = Starts::new(300);
                    alarms += u32::from((0..400).any(|index| {
                        let bad = traffic.bad(rate, limit);
                        starts.push(index, &counts(rate as f64, bad as f64));
                        bad > 0 && starts.log_e(&test) >= -f64::ln(alpha)
                    }));
                }
                println!("limit {limit}, {rate} a tick, alpha {alpha}: {alarms} of {runs}");
                assert!(alarms <= at_most(runs, alpha), "{limit} {rate} {alpha}: {alarms}");
            }
        }
    }
}

/// A share by tick.
type ByTick = Box<dyn Fn(u64) -> f64>;

/// Shares of bad requests that never exceed the limit.
fn healthy(limit: f64) -> [(&'static str, ByTick); 4] {
    [
        ("on the limit", Box::new(move |_| limit)),
        ("below it", Box::new(move |_| 0.5 * limit)),
        ("rising to it", Box::new(move |tick| limit * (tick as f64 / 300.0))),
        ("jumping to it", Box::new(move |tick| if tick % 100 < 60 { 0.1 * limit } else { limit })),
    ]
}

#[test]
fn a_share_within_its_limit_is_rejected_no_oftener_than_the_budget_allows() {
    for (limit, rate) in [(0.01, 10), (0.05, 3)] {
        for (name, share) in healthy(limit) {
            for mixture in [false, true] {
                let mut traffic = Traffic::seeded(3);
                let test = AboveLimit::new(limit).unwrap();
                let is =
                    alarms(&test, 0.05, mixture, |tick| counts(rate as f64, traffic.bad(rate, share(tick)) as f64));
                println!("share {name} {limit}, mixture {mixture}: {is} of {RUNS}");
                assert!(is <= at_most(RUNS, 0.05), "{name} {limit} {mixture}: {is}");
            }
        }
    }
}

#[test]
fn a_share_above_its_limit_is_proved_good_no_oftener_than_its_level_allows() {
    let mirror = BelowLimit::new(0.05).unwrap();
    let mut proved = 0;
    let mut traffic = Traffic::seeded(5);
    for _ in 0..RUNS {
        let (mut n, mut k) = (0, 0);
        proved += u32::from((0..200).any(|_| {
            n += 5;
            k += traffic.bad(5, 0.05);
            mirror.log_e(&counts(n as f64, k as f64)) >= 20.0_f64.ln()
        }));
    }
    println!("proved good on the limit: {proved} of {RUNS}");
    assert!(proved <= at_most(RUNS, 0.05), "{proved}");
}

#[test]
fn a_rate_within_its_limit_is_rejected_no_oftener_than_the_budget_allows() {
    for (name, share) in healthy(0.2) {
        for mixture in [false, true] {
            let mut traffic = Traffic::seeded(7);
            let is = alarms(&EventRate::new(), 0.05, mixture, |tick| {
                EventCounts::new(traffic.events(share(tick)) as f64, 0.2).unwrap()
            });
            println!("rate {name}, mixture {mixture}: {is} of {RUNS}");
            assert!(is <= at_most(RUNS, 0.05), "{name} {mixture}: {is}");
        }
    }
}

/// Both arms' events of a tick: common rate and share of the canary move together, the case in which a pooled share
/// invents evidence.
fn paired(tick: u64, ratio: f64, traffic: &mut Traffic) -> (f64, f64, f64) {
    let rush = (tick / 30) % 2 == 1;
    let (share, rate) = if rush { (0.4, 3.0) } else { (0.05, 0.3) };
    let canary = traffic.events(rate * share * ratio) as f64;
    let stable = traffic.events(rate * (1.0 - share)) as f64;
    (canary, canary + stable, share)
}

#[test]
fn a_ratio_within_its_margin_is_rejected_no_oftener_than_the_budget_allows() {
    let relative = Relative::new(0.1).unwrap();
    for ratio in [1.0, 1.1] {
        for mixture in [false, true] {
            let mut traffic = Traffic::seeded(9);
            let is = alarms(&relative, 0.05, mixture, |tick| {
                let (canary, all, share) = paired(tick, ratio, &mut traffic);
                relative.tick(canary, all, share).unwrap()
            });
            println!("ratio {ratio}, mixture {mixture}: {is} of {RUNS}");
            assert!(is <= at_most(RUNS, 0.05), "{ratio} {mixture}: {is}");
        }
    }
    // One pooled share, by requests: far too many.
    let mut traffic = Traffic::seeded(9);
    let pooled = alarms(&relative, 0.05, false, |tick| {
        let (canary, all, _) = paired(tick, 1.1, &mut traffic);
        relative.tick(canary, all, 0.225).unwrap()
    });
    println!("pooled share: {pooled} of {RUNS}");
    assert!(pooled >= at_least(RUNS, 0.3));
}

#[test]
fn a_ratio_far_above_its_margin_is_found_also_where_stable_has_none() {
    let relative = Relative::new(0.1).unwrap();
    let mut traffic = Traffic::seeded(15);
    let is = alarms(&relative, 0.05 / 30.0, true, |tick| {
        let (canary, all, share) = paired(tick, 5.0, &mut traffic);
        relative.tick(canary, all, share).unwrap()
    });
    assert!(is >= at_least(RUNS, 0.99), "{is}");
    let mut sum = relative.tick(0.0, 0.0, 0.05).unwrap();
    for _ in 0..8 {
        sum.add(&relative.tick(1.0, 1.0, 0.05).unwrap());
    }
    assert!(relative.log_e(&sum) > 600.0_f64.ln());
}

/// Whether a canary as good as the baseline is rejected, the baseline being a short window before.
fn historical(before: f64, alpha: Alpha, exact: bool, traffic: &mut Traffic) -> bool {
    let events = traffic.events(before) as f64;
    let limit = Historical::new(events, 300.0, 0.1, alpha, Dispersion::NONE).unwrap();
    let test = EventRate::new();
    let (mut sum, mut naive) = (EventCounts::default(), EventCounts::default());
    (0..300).any(|_| {
        let k = traffic.events(before / 300.0) as f64;
        sum.add(&limit.tick(k, 1.0).unwrap());
        naive.add(&EventCounts::new(k, 1.1 * events / 300.0).unwrap());
        let (sum, alpha) = if exact { (&naive, alpha) } else { (&sum, limit.alpha()) };
        test.log_e(sum) >= alpha.ln_threshold() && sum.bad() >= 3.0
    })
}

#[test]
fn a_baseline_from_before_is_not_taken_as_exact() {
    let alpha = Alpha::new(0.01).unwrap();
    for before in [3.0, 10.0, 40.0] {
        let mut traffic = Traffic::seeded(21);
        let is = (0..RUNS).filter(|_| historical(before, alpha, false, &mut traffic)).count() as u32;
        let exact = (0..RUNS).filter(|_| historical(before, alpha, true, &mut traffic)).count();
        println!("baseline of {before} events: {is} of {RUNS} rejected, {exact} were it exact");
        assert!(is <= at_most(RUNS, 0.01), "{before}: {is}");
    }
    let none = Historical::new(0.0, 300.0, 0.1, alpha, Dispersion::NONE).unwrap();
    assert!(EventRate::new().log_e(&none.tick(4.0, 300.0).unwrap()) < alpha.ln_threshold());
}

#[test]
fn a_canary_that_gets_a_thousandth_of_its_weight_is_misrouted() {
    let few = Routing::new(0.05, 0.5, Misrouted::TooFew).unwrap();
    let many = Routing::new(0.05, 0.5, Misrouted::TooMany).unwrap();
    let threshold = 600.0_f64.ln();
    let seen = few.tick(1.0, 1000.0).unwrap();
    assert!(few.log_e(&seen) > threshold && few.above_limit(&seen));
    assert!(many.log_e(&many.tick(1.0, 1000.0).unwrap()) < 0.0);
    assert!(many.log_e(&many.tick(500.0, 1000.0).unwrap()) > threshold);
    // A share that is off by less than the tolerance stays fine for any number of requests.
    for share in [0.04, 0.05, 0.06] {
        let canary = (1e9_f64 * share).floor();
        assert!(few.log_e(&few.tick(canary, 1e9).unwrap()) < threshold);
        assert!(many.log_e(&many.tick(canary, 1e9).unwrap()) < threshold);
    }
}

/// Bad requests in bursts of five on average (geometric), at a healthy 0.3 %.
fn bursts(phi: f64) -> u32 {
    let test = AboveLimit::new(0.01).unwrap().dispersed(Dispersion::new(phi).unwrap());
    let mut traffic = Traffic::seeded(25);
    alarms(&test, 0.01, false, |_| {
        let mut bad = 0;
        for _ in 0..traffic.bad(50, 0.003 / 5.0) {
            bad += 1 + traffic.gap(0.2);
        }
        counts(50.0, bad.min(50) as f64)
    })
}

#[test]
fn a_dispersion_brings_bursts_back_to_the_budget() {
    let (without, three, five) = (bursts(1.0), bursts(3.0), bursts(5.0));
    println!("bursts of 5: {without}, {three} with phi 3, {five} with phi 5, of {RUNS}");
    assert!(without > at_most(RUNS, 0.01), "{without}");
    assert!(five <= at_most(RUNS, 0.01), "{five}");
}

#[test]
fn the_dispersion_is_measured_pod_by_pod() {
    let mut traffic = Traffic::seeded(27);
    // Pods with different rates, each as independent as can be.
    let calm: Vec<Vec<ShareCounts>> = [0.001, 0.02, 0.1]
        .iter()
        .map(|share| (0..300).map(|_| counts(50.0, traffic.bad(50, *share) as f64)).collect())
        .collect();
    let measured = MeasuredDispersion::of_shares(&calm);
    assert!(measured.phi.get() < 1.25 && measured.pods == 3, "{measured:?}");
    let bursty: Vec<EventCounts> =
        (0..300).map(|_| EventCounts::new(5.0 * traffic.events(0.5) as f64, 1.0).unwrap()).collect();
    let measured = MeasuredDispersion::of_events([&bursty]);
    assert!((4.0..6.0).contains(&measured.phi.get()), "{measured:?}");
    assert!(!measured.phi.guaranteed());
    let wild: Vec<EventCounts> =
        (0..300).map(|i| EventCounts::new(f64::from(i % 50 / 49) * 400.0, 1.0).unwrap()).collect();
    assert_eq!(MeasuredDispersion::of_events([&wild]).phi, Dispersion::MOST);
    // Below 20 events there is nothing to measure.
    let few = vec![counts(50.0, 9.0), counts(50.0, 0.0), counts(50.0, 9.0)];
    assert_eq!(MeasuredDispersion::of_shares([&few]).phi, Dispersion::NONE);
    assert_eq!(MeasuredDispersion::of_shares(Vec::<Vec<&ShareCounts>>::new()).phi, Dispersion::NONE);
}

#[test]
fn the_budget_of_a_release_is_never_exceeded_by_its_parts() {
    let part = Alpha::RELEASE.split(6, 5).unwrap();
    assert!((part.threshold() - 600.0).abs() < 1e-9);
    assert!((30.0 * part.get() - 0.05).abs() < 1e-15);
    assert_eq!(Alpha::RELEASE.split(0, 5), Err(StatsError::NothingToSplit));
    assert!(Alpha::new(0.0).is_err() && Alpha::new(1.0).is_err() && Alpha::new(f64::NAN).is_err());
}

fn evidence(n: f64, k: f64) -> Evidence {
    let (above, below) = (AboveLimit::new(0.01).unwrap(), BelowLimit::new(0.01).unwrap());
    let counts = counts(n, k);
    Evidence {
        ln_e: above.log_e(&counts),
        alpha: Alpha::RELEASE.split(6, 5).unwrap(),
        bad: k,
        requests: n,
        above_limit: above.above_limit(&counts),
        ln_e_proved: Some(below.log_e(&counts)),
        alpha_proved: Alpha::RELEASE,
    }
}

#[test]
fn the_four_verdicts() {
    let verdict = |n, k| evidence(n, k).verdict(50.0);
    assert_eq!(verdict(0.0, 0.0), Verdict::NoData);
    assert_eq!(verdict(49.0, 0.0), Verdict::Inconclusive);
    assert_eq!(verdict(300.0, 0.0), Verdict::Pass { proved: false });
    assert_eq!(verdict(358.0, 0.0), Verdict::Pass { proved: true });
    assert_eq!(verdict(300.0, 4.0), Verdict::Inconclusive);
    assert_eq!(verdict(300.0, 12.0), Verdict::Breach);
    // A breach needs three bad events, however few requests there were; and it needs no minimum of requests.
    assert_eq!(verdict(2.0, 2.0), Verdict::Inconclusive);
    assert_eq!(verdict(4.0, 4.0), Verdict::Breach);
    let nan = Evidence { ln_e: f64::NAN, ..evidence(300.0, 0.0) };
    assert_eq!(nan.verdict(50.0), Verdict::Inconclusive);
    assert_eq!(Evidence { requests: f64::NAN, ..evidence(300.0, 0.0) }.verdict(50.0), Verdict::NoData);
}

#[test]
fn a_service_above_its_limit_rejects_only_a_candidate_that_did_it() {
    let breach = evidence(300.0, 30.0);
    assert_eq!(whole_service(&evidence(300.0, 1.0), 100.0), WholeService::Within);
    assert_eq!(whole_service(&breach, 0.0), WholeService::Confounded);
    assert_eq!(whole_service(&breach, 100.0), WholeService::Candidate);
    assert_eq!(whole_service(&breach, f64::NAN), WholeService::Confounded);
}

#[test]
fn a_value_breaches_after_its_ticks_in_a_row_by_its_worst_pod() {
    let mut gate = ValueGate::new(None, Some(30.0), ValueGate::DEFAULT_CONSECUTIVE).unwrap();
    assert_eq!(gate.push([1.0, 2.0]), Consecutive::Inside);
    assert_eq!(gate.push([1.0, 31.0]), Consecutive::Outside(1));
    assert_eq!(gate.push([30.0]), Consecutive::Inside);
    assert_eq!(gate.push([31.0]), Consecutive::Outside(1));
    assert_eq!(gate.push([f64::NAN, 1.0]), Consecutive::NoData);
    assert_eq!(gate.push([]), Consecutive::NoData);
    assert_eq!(gate.push([31.0, 1.0]), Consecutive::Breach(2));
    assert_eq!(gate.resumed(5).push([40.0]), Consecutive::Breach(6));
    let below = ValueGate::new(Some(1.0), None, 1).unwrap();
    assert!(below.outside(0.5) && !below.outside(1.0));
}

#[test]
fn the_intervals_are_the_textbook_ones() {
    let close = |is: f64, should: f64| assert!((is - should).abs() < 5e-7, "{is} {should}");
    // 14 of 312; computed with mpmath.
    let (w, c) = (wilson(&counts(312.0, 14.0), 0.95).unwrap(), clopper_pearson(&counts(312.0, 14.0), 0.95).unwrap());
    close(w.low, 0.0269145456);
    close(w.high, 0.0739001446);
    close(c.low, 0.0247457536);
    close(c.high, 0.0741418393);
    // None of 299: 1 - 0.025^(1/299).
    let none = clopper_pearson(&counts(299.0, 0.0), 0.95).unwrap();
    assert_eq!(none.low, 0.0);
    close(none.high, 1.0 - 0.025_f64.powf(1.0 / 299.0));
    let empty = wilson(&ShareCounts::default(), 0.95).unwrap();
    assert_eq!((empty.low, empty.high), (0.0, 1.0));
}

/// Ticks until the alarm of a watch, at most so many.
fn ticks_to_alarm(alarm: f64, share: f64, most: u64, traffic: &mut Traffic) -> u64 {
    let mut watch = ChangeDetector::new(alarm, Dispersion::NONE).unwrap();
    (1..=most).find(|_| watch.push_share(&counts(10.0, traffic.bad(10, share) as f64), 0.01).unwrap()).unwrap_or(most)
}

#[test]
fn a_watch_alarms_no_oftener_than_asked_and_soon_after_a_change() {
    const ALARM: f64 = 500.0;
    let mut traffic = Traffic::seeded(37);
    let mean = |share: f64, traffic: &mut Traffic| {
        let sum: u64 = (0..RUNS).map(|_| ticks_to_alarm(ALARM, share, 20_000, traffic)).sum();
        sum as f64 / f64::from(RUNS)
    };
    let (healthy, faulty) = (mean(0.01, &mut traffic), mean(0.1, &mut traffic));
    println!("ticks to an alarm: {healthy} on the limit, {faulty} at ten times it");
    assert!(healthy >= ALARM && faulty < 12.0);
    let mut events = ChangeDetector::new(ALARM, Dispersion::NONE).unwrap();
    assert!(!events.push_events(&EventCounts::new(0.0, 1e9).unwrap()) && events.ln_level().is_finite());
    assert!(events.push_events(&EventCounts::new(1e9, 1.0).unwrap()) && events.ln_level().is_finite());
}
