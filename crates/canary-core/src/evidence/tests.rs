use canary_api::{CanaryRelease, CanaryReleaseSpec, Counted, ReleaseStatus, Step};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::gates::{Judged, Verdict, judge};

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// So many seconds into the window.
fn at(seconds: i64) -> Timestamp {
    start().checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

fn spec(gates: serde_json::Value, interval: &str, stage: &str) -> CanaryReleaseSpec {
    let release: CanaryRelease = serde_json::from_value(json!({
        "apiVersion": "canaryrelease.dev/v1alpha1", "kind": "CanaryRelease", "metadata": {"name": "web"},
        "spec": {
            "target": {"name": "web"}, "interval": interval,
            "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "r"}},
            "stages": [{"weight": "5%", "duration": stage}, {"weight": "100%", "duration": stage}],
            "gates": gates,
        },
    }))
    .unwrap();
    release.spec
}

fn errors() -> serde_json::Value {
    json!([{"name": "g", "errorRate": {"bad": "b", "total": "r", "limit": "1%"}}])
}

fn baking() -> ReleaseStatus {
    ReleaseStatus { step: Step::Bake, weight: "5%".to_owned(), ..ReleaseStatus::default() }
}

fn requests(canary: f64, stable: f64, now: Timestamp) -> Requests {
    let now = now.as_millisecond();
    Requests { canary, stable, known_to: now, newest: now, stable_then: stable }
}

/// A window that is fed with cumulative totals tick by tick.
struct Fed {
    spec: CanaryReleaseSpec,
    accounts: Accounts,
    at: Timestamp,
    from: Timestamp,
    canary: (f64, f64),
    stable: (f64, f64),
}

impl Fed {
    fn new(spec: CanaryReleaseSpec, current: &ReleaseStatus) -> Self {
        let accounts = Accounts::new(&spec, current, start(), None);
        Self { spec, accounts, at: start(), from: start(), canary: (0.0, 0.0), stable: (0.0, 0.0) }
    }

    fn resumed(spec: CanaryReleaseSpec, current: &ReleaseStatus, at: Timestamp) -> Self {
        let accounts = Accounts::new(&spec, current, start(), Some(at));
        Self { spec, accounts, at, from: at, canary: (0.0, 0.0), stable: (0.0, 0.0) }
    }

    fn tick(&mut self, canary: (f64, f64), stable: (f64, f64)) -> Judged {
        self.at = self.at.checked_add(self.spec.interval.std()).unwrap();
        for (sums, new) in [(&mut self.canary, canary), (&mut self.stable, stable)] {
            *sums = (sums.0 + new.0, sums.1 + new.1);
        }
        let seconds = self.at.duration_since(self.from).as_secs_f64();
        let measure = |(n, k): (f64, f64)| Measure::Counted { n, k, seconds };
        let paired = Paired {
            canary_events: self.canary.1,
            stable_events: self.stable.1,
            canary_requests: self.canary.0,
            stable_requests: self.stable.0,
        };
        let totals = Totals { paired: Some(paired), ..Totals::new("g", measure(self.canary), measure(self.stable)) };
        let requests = requests(self.canary.0, self.stable.0, self.at);
        let readings = self.accounts.absorb(&self.spec, Step::Bake, &[totals], Some(requests), self.at);
        judge(&self.spec.gates[0], readings.first(), self.accounts.traffic().share_or_weight())
    }

    fn ticks_to_breach(&mut self, canary: (f64, f64), stable: (f64, f64)) -> Option<u32> {
        (1..=200).find(|_| self.tick(canary, stable).verdict == Verdict::Breach)
    }
}

#[test]
fn a_fault_after_ten_healthy_minutes_is_called_as_fast_as_one_at_the_start() {
    let bad = (5.0, 2.5);
    let early = Fed::new(spec(errors(), "1s", "15m"), &baking()).ticks_to_breach(bad, (95.0, 0.0));
    let mut late = Fed::new(spec(errors(), "1s", "15m"), &baking());
    for _ in 0..600 {
        assert_ne!(late.tick((5.0, 0.0), (95.0, 0.0)).verdict, Verdict::Breach);
    }
    let late = late.ticks_to_breach(bad, (95.0, 0.0));
    assert!(early.unwrap() <= 4 && late.unwrap() <= 6, "{early:?} {late:?}");
}

#[test]
fn a_healthy_side_passes_and_is_proved_only_by_enough_requests() {
    let mut window = Fed::new(spec(errors(), "10s", "15m"), &baking());
    let first = window.tick((100.0, 0.0), (1900.0, 3.0));
    assert_eq!((first.verdict, first.shown.proved), (Verdict::Pass, false));
    let mut last = first;
    for _ in 0..5 {
        last = window.tick((100.0, 0.0), (1900.0, 3.0));
    }
    assert_eq!((last.verdict, last.shown.proved), (Verdict::Pass, true), "{last:?}");
}

#[test]
fn both_sides_bad_is_confounded_and_not_the_candidates_fault() {
    let mut window = Fed::new(spec(errors(), "10s", "15m"), &baking());
    let judged = window.tick((50.0, 10.0), (950.0, 190.0));
    assert_eq!(judged.verdict, Verdict::Breach);
    assert!(judged.confounded.unwrap().contains("both sides are bad"));
    let mut alone = Fed::new(spec(errors(), "10s", "15m"), &baking());
    assert_eq!(alone.tick((50.0, 10.0), (950.0, 3.0)).confounded, None);
}

fn compared() -> serde_json::Value {
    json!([{"name": "g", "relative": {"counter": "b", "to": "Stable", "margin": "50%"}, "minRequests": 50}])
}

/// A window whose canary is compared with baseline pods, in ticks of ten seconds, until these are lost.
fn beside(ticks: i64, lost_after: i64, bad: f64) -> Judged {
    let spec = spec(compared(), "10s", "15m");
    let mut accounts = Accounts::new(&spec, &baking(), start(), None);
    let mut last = None;
    for tick in 1..=ticks {
        let now = at(tick.saturating_mul(10));
        let seconds = tick as f64 * 10.0;
        let measure = |n: f64, k: f64| Measure::Counted { n: n * tick as f64, k: k * tick as f64, seconds };
        let with = tick <= lost_after;
        let (requests, events) = if with { (100.0, 1.0) } else { (1800.0, 18.0) };
        let paired = Paired {
            canary_events: bad * tick as f64,
            stable_events: events * tick as f64,
            canary_requests: 100.0 * tick as f64,
            stable_requests: requests * tick as f64,
        };
        let baseline_pods = with.then(|| measure(100.0, 1.0));
        let totals = Totals {
            paired: Some(paired),
            baseline_pods,
            ..Totals::new("g", measure(100.0, bad), measure(1800.0, 18.0))
        };
        let readings = accounts.absorb(&spec, Step::Bake, &[totals], None, now);
        last = Some(judge(&spec.gates[0], readings.first(), 0.05));
    }
    last.unwrap()
}

#[test]
fn the_canary_is_compared_with_the_pods_beside_it_request_for_request() {
    let good = beside(40, 40, 1.0);
    assert_eq!((good.verdict, good.shown.value.as_str()), (Verdict::Pass, "10 against 10 per 1000 requests"));
    assert_eq!(beside(40, 40, 4.0).verdict, Verdict::Breach);
}

#[test]
fn where_they_are_lost_stable_is_compared_with_from_then_on() {
    // What all of stable counted before is not held against the canary's next tick.
    for lost_after in [1, 5, 20] {
        assert_eq!(beside(40, lost_after, 1.0).verdict, Verdict::Pass, "{lost_after}");
        assert_eq!(beside(40, lost_after, 4.0).verdict, Verdict::Breach, "{lost_after}");
    }
}

#[test]
fn a_breach_stays_one_whatever_is_counted_after_it() {
    let mut window = Fed::new(spec(errors(), "1s", "15m"), &baking());
    assert!(window.ticks_to_breach((5.0, 4.0), (95.0, 0.0)).is_some());
    let later = window.tick((1_000_000.0, 0.0), (95.0, 0.0));
    assert_eq!(later.verdict, Verdict::Breach);
}

#[test]
fn a_comparison_with_nobody_passes_nothing() {
    let gates = json!([{"name": "g", "relative": {"counter": "b", "margin": "10%"}}]);
    let mut window = Fed::new(spec(gates, "10s", "15m"), &baking());
    assert_eq!(window.tick((500.0, 0.0), (0.0, 0.0)).verdict, Verdict::NoData);
    assert_eq!(window.tick((500.0, 0.0), (10.0, 0.0)).verdict, Verdict::Pass);
}

#[test]
fn events_of_the_whole_service_are_judged_where_there_is_only_one_side() {
    let gates =
        json!([{"name": "g", "eventRate": {"counter": "b", "limit": "6/min", "scope": "Total"}, "minRequests": 1}]);
    let mut soak = ReleaseStatus { step: Step::Soak, weight: "100%".to_owned(), ..ReleaseStatus::default() };
    let spec = spec(gates, "10s", "15m");
    let mut accounts = Accounts::new(&spec, &soak, start(), None);
    let mut verdict = None;
    for tick in 1..=10_u32 {
        let (n, seconds) = (100.0 * f64::from(tick), 10.0 * f64::from(tick));
        let canary = Measure::Counted { n, k: n / 5.0, seconds };
        let totals = Totals::new("g", canary, Measure::NoData("no pods".to_owned()));
        let readings = accounts.absorb(&spec, Step::Soak, &[totals], None, at(i64::from(tick) * 10));
        verdict = Some(judge(&spec.gates[0], readings.first(), 1.0).verdict);
    }
    assert_eq!(verdict, Some(Verdict::Breach));
    // Before the release it is stable that is the whole service.
    soak.step = Step::Baseline;
    let mut accounts = Accounts::new(&spec, &soak, start(), None);
    let stable = Measure::Counted { n: 1000.0, k: 100.0, seconds: 60.0 };
    let totals = Totals::new("g", Measure::NoData("no pods".to_owned()), stable);
    let readings = accounts.absorb(&spec, Step::Baseline, &[totals], None, at(60));
    assert!(crate::gates::stable_in_breach(&spec.gates[0], &readings[0]).is_some());
}

#[test]
fn a_window_is_planned_for_as_long_as_its_step_takes() {
    let mut spec = spec(errors(), "10s", "90s");
    spec.baseline.duration = canary_api::Duration::from_secs(300);
    spec.soak = canary_api::Duration::from_secs(600);
    let planned = |step, stage_index| planned_ticks(&spec, &ReleaseStatus { step, stage_index, ..baking() });
    assert_eq!((planned(Step::Baseline, 0), planned(Step::Bake, 0), planned(Step::Soak, 1)), (30, 9, 60));
}

#[test]
fn an_account_is_in_breach_once_it_broke_and_not_before() {
    let mut window = Fed::new(spec(errors(), "1s", "15m"), &baking());
    window.tick((5.0, 0.0), (95.0, 0.0));
    assert!(!window.accounts.breached("g"));
    assert!(window.ticks_to_breach((5.0, 2.5), (95.0, 0.0)).is_some());
    assert!(window.accounts.breached("g") && !window.accounts.breached("another"));
}

#[test]
fn counts_of_which_some_are_late_go_on_from_the_sums_of_a_status() {
    let before = Counted {
        gate: "g".to_owned(),
        side: "canary".to_owned(),
        n: 100.0,
        k: 2.0,
        seconds: 30.0,
        ..Counted::default()
    };
    let current = ReleaseStatus { counts: vec![before], ..baking() };
    let mut accounts = Accounts::new(&spec(errors(), "1s", "15m"), &current, start(), Some(at(30)));
    let partial = Measure::Partial { n: 10.0, k: 1.0, seconds: 5.0, why: "late".to_owned() };
    let totals = Totals::new("g", partial, measure_of(1.0, 0.0));
    let read = accounts.absorb(&spec(errors(), "1s", "15m"), Step::Bake, &[totals], None, at(35));
    assert_eq!(read[0].canary, Measure::Partial { n: 110.0, k: 3.0, seconds: 35.0, why: "late".to_owned() });
}

#[test]
fn the_budget_is_split_over_gates_that_claim_a_probability_and_stages() {
    let gates = json!([
        {"name": "a", "errorRate": {"bad": "b", "total": "r", "limit": "1%"}},
        {"name": "b", "eventRate": {"counter": "b", "limit": "1/min"}},
        {"name": "c", "value": {"query": "q", "max": 1.0}},
    ]);
    let mut spec = spec(gates, "10s", "5m");
    assert!((budget(&spec).get() - 0.05 / 4.0).abs() < 1e-12);
    spec.soak = canary_api::Duration::from_secs(60);
    assert!((budget(&spec).get() - 0.05 / 6.0).abs() < 1e-12);
}

#[test]
fn after_a_restart_the_sums_go_on_and_a_fault_is_still_called() {
    let counted = |side: &str, n: f64, k: f64| Counted {
        gate: "g".to_owned(),
        side: side.to_owned(),
        n,
        k,
        seconds: 600.0,
        ..Counted::default()
    };
    let current =
        ReleaseStatus { counts: vec![counted("canary", 3000.0, 9.0), counted("stable", 57000.0, 171.0)], ..baking() };
    let mut window = Fed::resumed(spec(errors(), "1s", "15m"), &current, at(600));
    let first = window.tick((5.0, 0.0), (95.0, 0.0));
    assert_eq!(first.shown.rests_on, "9 of 3005 in 601s");
    assert_eq!(first.verdict, Verdict::Pass);
    assert!(window.ticks_to_breach((5.0, 2.5), (95.0, 0.0)).unwrap() <= 6);
}

#[test]
fn events_are_held_against_the_canarys_share_of_the_limit() {
    let gates = json!([{"name": "g", "eventRate": {"counter": "b", "limit": "60/min"}, "minRequests": 1}]);
    let mut window = Fed::new(spec(gates.clone(), "10s", "15m"), &baking());
    // 10 in 10 s is the limit of the whole service; the canary has a twentieth of the requests.
    assert!(window.ticks_to_breach((5.0, 5.0), (95.0, 5.0)).unwrap() <= 2);
    let mut fair = Fed::new(spec(gates, "10s", "15m"), &baking());
    assert_eq!(fair.ticks_to_breach((50.0, 0.4), (950.0, 9.6)), None);
}

#[test]
fn events_of_the_whole_service_are_the_candidates_only_beyond_its_part() {
    let gates =
        json!([{"name": "g", "eventRate": {"counter": "b", "limit": "6/min", "scope": "Total"}, "minRequests": 1}]);
    let mut common = Fed::new(spec(gates.clone(), "10s", "15m"), &baking());
    let judged =
        (0..20).map(|_| common.tick((50.0, 0.5), (950.0, 9.5))).find(|judged| judged.verdict == Verdict::Breach);
    assert!(judged.unwrap().confounded.unwrap().contains("whole service"));
    let mut own = Fed::new(spec(gates, "10s", "15m"), &baking());
    let judged = (0..20).map(|_| own.tick((50.0, 10.0), (950.0, 0.0))).find(|judged| judged.verdict == Verdict::Breach);
    assert_eq!(judged.unwrap().confounded, None);
}

#[test]
fn each_sides_events_are_held_against_the_time_they_were_counted_over() {
    let gates = json!([{"name": "g", "eventRate": {"counter": "b", "limit": "60/min"}, "minRequests": 1}]);
    let spec = spec(gates, "10s", "15m");
    let evidence = |seconds: f64| {
        let mut accounts = Accounts::new(&spec, &baking(), start(), None);
        let canary = Measure::Counted { n: 5.0, k: 5.0, seconds };
        let totals = Totals::new("g", canary, Measure::Counted { n: 95.0, k: 9.0, seconds: 10.0 });
        accounts.absorb(&spec, Step::Bake, &[totals], None, at(10)).remove(0).evidence.unwrap()
    };
    let (whole, half) = (evidence(10.0), evidence(5.0));
    assert!(half.canary > whole.canary + 0.1, "{half:?} {whole:?}");
    assert!((half.stable - whole.stable).abs() < 1e-12);
}

#[test]
fn what_a_warm_up_leaves_out_is_shown_whatever_the_verdict() {
    let spec = spec(errors(), "10s", "15m");
    let shown = |canary: Measure| {
        let left_out = LeftOut { canary: (42.0, 3.0), stable: (7.0, 0.0) };
        let totals = Totals { left_out, ..Totals::new("g", canary, measure_of(950.0, 3.0)) };
        let mut accounts = Accounts::new(&spec, &baking(), start(), None);
        accounts.absorb(&spec, Step::Bake, &[totals], None, at(10)).remove(0)
    };
    let judged = judge(&spec.gates[0], Some(&shown(measure_of(50.0, 0.0))), 0.05);
    assert_eq!(judged.shown.rests_on, "0 of 50 in 10s; 3 of 42 in warm-up not judged");
    let reading = shown(Measure::NoData("r counted nothing yet".to_owned()));
    let judged = judge(&spec.gates[0], Some(&reading), 0.05);
    assert_eq!(judged.verdict, Verdict::NoData);
    assert_eq!(judged.shown.rests_on, "r counted nothing yet; 3 of 42 in warm-up not judged");
    let stable = gates::stable_shown(&spec.gates[0], &reading).unwrap();
    assert_eq!(stable.rests_on, "3 of 950 in 10s; 0 of 7 in warm-up not judged");
}

fn measure_of(n: f64, k: f64) -> Measure {
    Measure::Counted { n, k, seconds: 10.0 }
}

#[test]
fn a_relative_gate_finds_a_worse_canary_whatever_the_common_rate_does() {
    let gates = json!([{"name": "g", "relative": {"counter": "b", "margin": "10%"}}]);
    let mut equal = Fed::new(spec(gates.clone(), "10s", "15m"), &baking());
    for tick in 0..90 {
        let rate = if tick % 20 < 10 { 0.01 } else { 0.2 };
        assert_ne!(equal.tick((50.0, 50.0 * rate), (950.0, 950.0 * rate)).verdict, Verdict::Breach, "{tick}");
    }
    let mut worse = Fed::new(spec(gates, "10s", "15m"), &baking());
    assert!(worse.ticks_to_breach((50.0, 5.0), (950.0, 19.0)).is_some());
}

#[test]
fn a_baseline_without_events_rejects_no_candidate_with_a_few() {
    let gates = json!([{"name": "g", "relative": {"counter": "b", "to": "Baseline", "margin": "10%"}}]);
    let captured =
        Counted { gate: "g".to_owned(), side: "stable".to_owned(), n: 30_000.0, seconds: 300.0, ..Counted::default() };
    let current = ReleaseStatus { baseline: vec![captured], ..baking() };
    let mut few = Fed::new(spec(gates.clone(), "10s", "15m"), &current);
    few.tick((500.0, 3.0), (9500.0, 0.0));
    assert_ne!(few.tick((30_000.0, 1.0), (0.0, 0.0)).verdict, Verdict::Breach);
    let mut many = Fed::new(spec(gates.clone(), "10s", "15m"), &current);
    assert_eq!(many.tick((500.0, 50.0), (9500.0, 0.0)).verdict, Verdict::Breach);
    let mut without = Fed::new(spec(gates, "10s", "15m"), &baking());
    assert_eq!(without.tick((500.0, 50.0), (9500.0, 0.0)).verdict, Verdict::NoData);
}

#[test]
fn a_canary_that_gets_a_fiftieth_of_its_weight_is_told() {
    let mut window = Fed::new(spec(errors(), "10s", "15m"), &baking());
    for _ in 0..30 {
        window.tick((1.0, 0.0), (999.0, 3.0));
    }
    let said = window.accounts.traffic().misrouted().unwrap();
    assert_eq!(said, "the canary gets 0.1% of the requests where 5% was asked for");
    let mut right = Fed::new(spec(errors(), "10s", "15m"), &baking());
    for _ in 0..90 {
        right.tick((40.0, 0.0), (960.0, 3.0));
        assert_eq!(right.accounts.traffic().misrouted(), None);
    }
}

#[test]
fn silence_is_measured_by_what_was_due() {
    let mut window = Fed::new(spec(errors(), "10s", "15m"), &baking());
    window.tick((50.0, 0.0), (950.0, 0.0));
    assert!(window.accounts.traffic().due_in_silence() < 1e-9);
    // From when the canary was known to be silent on, that is, from the second sample.
    window.tick((0.0, 0.0), (500.0, 0.0));
    window.tick((0.0, 0.0), (190.0, 0.0));
    assert!((window.accounts.traffic().due_in_silence() - 10.0).abs() < 1e-9);
    window.tick((1.0, 0.0), (190.0, 0.0));
    assert!(window.accounts.traffic().due_in_silence() < 1e-9);
}

#[test]
fn bursts_on_stable_are_measured_pod_by_pod() {
    let spec = spec(errors(), "10s", "15m");
    let current = ReleaseStatus::default();
    let measured = |bad: &dyn Fn(u32) -> f64| {
        let mut accounts = Accounts::new(&spec, &current, start(), None);
        let (mut n, mut k, mut reading) = (0.0, 0.0, None);
        for tick in 1..=60_u32 {
            (n, k) = (n + 100.0, k + bad(tick));
            let measure = Measure::Counted { n, k, seconds: 10.0 * f64::from(tick) };
            let totals = Totals {
                stable_pods: [("a".to_owned(), (n, k))].into(),
                ..Totals::new("g", Measure::NoData(String::new()), measure)
            };
            reading = accounts.absorb(&spec, Step::Baseline, &[totals], None, at(10 * i64::from(tick))).pop();
        }
        reading.unwrap().bursts.unwrap().phi.get()
    };
    assert!(measured(&|tick| f64::from(tick % 2)) <= 1.0);
    assert!(measured(&|tick| if tick % 20 == 0 { 20.0 } else { 0.0 }) > 5.0);
}

proptest! {
    #[test]
    fn no_totals_make_the_accounts_panic_or_pass_on_nonsense(
        ticks in prop::collection::vec((prop::num::f64::ANY, prop::num::f64::ANY), 1..20),
    ) {
        let spec = spec(errors(), "1s", "15m");
        let mut accounts = Accounts::new(&spec, &baking(), start(), None);
        for (second, (n, k)) in ticks.into_iter().enumerate() {
            let measure = Measure::Counted { n, k, seconds: 1.0 };
            let totals = Totals::new("g", measure.clone(), measure);
            let now = at(i64::try_from(second).unwrap());
            let broken = accounts.breached("g");
            let readings = accounts.absorb(&spec, Step::Bake, &[totals], Some(requests(n, k, now)), now);
            let judged = judge(&spec.gates[0], readings.first(), 0.05);
            if !(n.is_finite() && k.is_finite() && k >= 0.0 && k <= n) {
                // Nonsense does not wash off a breach that came before it.
                prop_assert_eq!(judged.verdict, if broken { Verdict::Breach } else { Verdict::NoData });
            }
        }
    }

    #[test]
    fn one_batch_and_many_looks_within_one_tick_prove_the_same(parts in prop::collection::vec((1u32..50, 0u32..5), 1..10)) {
        let spec = spec(errors(), "60s", "15m");
        let measure = |n: f64, k: f64| Measure::Counted { n, k, seconds: 30.0 };
        let (mut n, mut k, mut many) = (0.0, 0.0, Accounts::new(&spec, &baking(), start(), None));
        let mut last = None;
        for (new_n, new_k) in parts {
            (n, k) = (n + f64::from(new_n), k + f64::from(new_k.min(new_n)));
            last = many.absorb(&spec, Step::Bake, &[Totals::new("g", measure(n, k), measure(n, k))], None, at(30)).pop();
        }
        let mut one = Accounts::new(&spec, &baking(), start(), None);
        let at_once = one.absorb(&spec, Step::Bake, &[Totals::new("g", measure(n, k), measure(n, k))], None, at(30)).pop();
        let (a, b) = (last.unwrap().evidence.unwrap(), at_once.unwrap().evidence.unwrap());
        // From a breach on it is that what is told.
        if a.canary < a.alpha.ln_threshold() {
            prop_assert!((a.canary - b.canary).abs() < 1e-9 && (a.stable - b.stable).abs() < 1e-9);
        }
    }
}
