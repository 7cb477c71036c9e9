//! The numbers in docs/gates.md are what `canary-stats` computes: every table here must stand there, as it is printed.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use canary_stats::know::{
    chance_to_detect, detectable_rate, detectable_ratio, requests_to_detect, requests_to_prove, share_gate,
};
use canary_stats::special::ln_lower_tail;
use canary_stats::{
    AboveLimit, Alpha, BelowLimit, Dispersion, EventCounts, EventRate, Historical, Process, Relative, ShareCounts,
    Starts,
};

/// Six gates that count, five stages: E 600.
fn alpha() -> Alpha {
    Alpha::RELEASE.split(6, 5).unwrap()
}

fn counts(n: f64, k: f64) -> ShareCounts {
    ShareCounts::new(n, k).unwrap()
}

/// Fails with all tables that docs/gates.md does not have.
fn assert_told(tables: &[(&str, String)]) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/gates.md");
    let page = std::fs::read_to_string(page).unwrap();
    let missing: Vec<String> = tables
        .iter()
        .filter(|(_, table)| !page.contains(table.as_str()))
        .map(|(what, table)| format!("{what}:\n{table}"))
        .collect();
    assert!(missing.is_empty(), "docs/gates.md should have\n\n{}", missing.join("\n"));
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule = vec!["---:".to_owned(); head.len()];
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{}|{}|\n{body}", line(&head), rule.join("|"))
}

/// A whole number, with a comma for thousands.
fn whole(number: f64) -> String {
    let digits = format!("{:.0}", number);
    let from_end = digits.chars().rev().enumerate();
    let grouped: String =
        from_end.flat_map(|(at, digit)| [(at > 0 && at % 3 == 0).then_some(','), Some(digit)]).flatten().collect();
    grouped.chars().rev().collect()
}

/// Two digits that count, of at least one.
fn short(number: f64) -> String {
    let step = 10_f64.powf(number.log10().floor() - 1.0);
    format!("{}", ((number / step).round() * step * 1e6).round() / 1e6)
}

fn percent(share: f64) -> String {
    if share < 0.0005 {
        return "<0.1 %".to_owned();
    }
    format!("{} %", short(share * 100.0))
}

/// The whole percent of a chance.
fn chance(part: f64) -> String {
    match part * 100.0 {
        none if none < 0.5 => "0 %".to_owned(),
        all if all > 99.5 => ">99 %".to_owned(),
        some => format!("{some:.0} %"),
    }
}

/// The chance of at least k bad ones.
fn at_least(k: f64, n: f64, share: f64) -> f64 {
    if k > n { 0.0 } else { ln_lower_tail(k, n - k + 1.0, share).exp() }
}

/// Bad requests, all counts since the stage's start, at which the mixture calls a breach at the latest: by half of its
/// weight, which is that of the start.
fn breach_at(test: &AboveLimit, alpha: Alpha, n: f64) -> f64 {
    let enough = |k: &f64| test.log_e(&counts(n, *k)) >= alpha.ln_threshold() + 2.0_f64.ln();
    (3..=n as u32).map(f64::from).find(enough).unwrap()
}

#[test]
fn bad_requests_that_are_a_breach() {
    let test = AboveLimit::new(0.01).unwrap();
    let (one, many) = (Alpha::RELEASE.split(1, 5).unwrap(), Alpha::RELEASE.split(20, 5).unwrap());
    let bursty = test.dispersed(Dispersion::new(3.0).unwrap());
    let row = |n: f64| {
        let cells = [(test, alpha()), (test, one), (test, many), (bursty, alpha())];
        let mut row = vec![whole(n), format!("{}", n / 100.0)];
        row.extend(cells.map(|(test, alpha)| whole(breach_at(&test, alpha, n))));
        row
    };
    let head =
        ["requests", "1 % of them", "breach at, 6 gates", "with 1 gate", "with 20 gates", "6 gates, dispersion 3"];
    let rows = [30.0, 60.0, 150.0, 300.0, 1000.0, 3000.0, 10_000.0].map(row).to_vec();
    assert_told(&[("bad requests that are a breach", table(&head, rows))]);
}

#[test]
fn requests_until_a_fault_is_called() {
    let at = |limit: f64, share: f64, power: f64| requests_to_detect(limit, alpha(), share, power).unwrap().unwrap();
    let row = |limit: f64, share: f64| {
        let (half, most) = (at(limit, share, 0.5), at(limit, share, 0.8));
        let minutes = |rps: f64| {
            let seconds = most / rps;
            if seconds < 90.0 {
                format!("{} s", whole(seconds.ceil()))
            } else {
                format!("{} min", whole((seconds / 60.0).ceil()))
            }
        };
        vec![percent(share), whole(half), whole(most), minutes(1.0), minutes(5.0), minutes(25.0)]
    };
    let head = ["true share", "half of the releases", "80 %", "80 % at 1 request/s", "at 5/s", "at 25/s"];
    let errors = [0.5, 0.1, 0.05, 0.03, 0.02, 0.015].map(|share| row(0.01, share)).to_vec();
    let slow = [0.5, 0.2, 0.15, 0.1, 0.075].map(|share| row(0.05, share)).to_vec();
    assert_told(&[("errors", table(&head, errors)), ("slow requests", table(&head, slow))]);
}

#[test]
fn a_rule_of_thumb() {
    let row = |times: f64| {
        let at = |limit: f64| {
            let n = requests_to_detect(limit, alpha(), times * limit, 0.8).unwrap().unwrap();
            whole(n)
        };
        vec![format!("{times} times"), at(0.001), at(0.005), at(0.01), at(0.05)]
    };
    let head = ["true share", "limit 0.1 %", "limit 0.5 %", "limit 1 %", "limit 5 %"];
    let rows = [10.0, 5.0, 3.0, 2.0, 1.5].map(row).to_vec();
    assert_told(&[("a rule of thumb", table(&head, rows))]);
}

#[test]
fn a_gate_in_the_status() {
    // Five minutes at 1 % of 100 requests/s, a tick every 10 s, a bad request in every sixth.
    let test = AboveLimit::new(0.01).unwrap();
    let mut starts = Starts::new(30);
    for tick in 0..30 {
        starts.push(tick, &counts(10.0, f64::from(u8::from(tick % 6 == 5))));
    }
    let whole = starts.whole();
    let interval = canary_stats::interval::wilson(whole, 0.95).unwrap();
    let text = format!(
        "Evidence:  E {:.2} of {:.0}\n      Gate:      errors\n      Interval:  {:.2}% to {:.2}%\n      Limit:     <= 1%\n      \
         Rests On:  {} of {} in 300s\n      Value:     {:.2}%\n      Verdict:   Inconclusive\n",
        starts.log_e(&test).exp(),
        alpha().threshold(),
        interval.low * 100.0,
        interval.high * 100.0,
        whole.k(),
        whole.n(),
        whole.k() / whole.n() * 100.0,
    );
    assert_told(&[("a gate in the status", text)]);
}

#[test]
fn what_a_stage_knows() {
    let row = |n: f64, from: &str| {
        let known = share_gate(0.01, alpha(), Alpha::RELEASE, n).unwrap();
        let may_be = |share: Option<f64>| share.map_or_else(|| "nothing".to_owned(), percent);
        vec![whole(n), from.to_owned(), may_be(known.detects_80), may_be(known.detects_95), may_be(known.proves)]
    };
    let head = ["requests", "such as", "detects (80 %)", "detects (95 %)", "proves, if none is bad"];
    let rows = vec![
        row(30.0, "1 % of 10/s for 5 min"),
        row(150.0, "5 % of 10/s for 5 min"),
        row(300.0, "1 % of 100/s for 5 min"),
        row(900.0, "1 % of 100/s for 15 min"),
        row(1500.0, "5 % of 100/s for 5 min"),
        row(7500.0, "25 % of 100/s for 5 min"),
        row(30_000.0, "100 % of 100/s for 5 min"),
        row(300_000.0, "100 % of 1,000/s for 5 min"),
    ];
    assert_told(&[("what a stage knows", table(&head, rows))]);
}

#[test]
fn what_proves_a_limit() {
    let row = |share: f64| {
        let n = |limit: f64| {
            let n = requests_to_prove(limit, Alpha::RELEASE, share, 0.8).unwrap();
            n.map_or_else(|| "never".to_owned(), whole)
        };
        let share = if share > 0.0 { percent(share) } else { "0".to_owned() };
        vec![share, n(0.005), n(0.01), n(0.05)]
    };
    let head = ["true share", "limit 0.5 %", "limit 1 %", "limit 5 %"];
    let rows = [0.0, 0.001, 0.003, 0.005, 0.008].map(row).to_vec();
    assert_told(&[("what proves a limit", table(&head, rows))]);
}

#[test]
fn how_often_a_healthy_stage_ends_above_its_limit() {
    let row = |share: f64| {
        let above = |n: f64| chance(at_least((0.01 * n).floor() + 1.0, n, share));
        let mut row = vec![percent(share)];
        row.extend([50.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0].map(above));
        row
    };
    let head = ["true share", "50 requests", "100", "300", "1,000", "3,000", "10,000"];
    let rows = [0.001, 0.003, 0.005, 0.008].map(row).to_vec();
    assert_told(&[("estimates above the limit", table(&head, rows))]);
}

#[test]
fn a_plan_by_stage() {
    // Of those that go on, one test from each stage's start, without the later starts.
    let row = |share: f64| {
        let mut goes_on = 1.0;
        let mut row = vec![percent(share)];
        row.extend([300.0, 1500.0, 7500.0, 15_000.0].map(|n| {
            goes_on *= 1.0 - chance_to_detect(0.01, alpha(), n, share).unwrap();
            chance(1.0 - goes_on)
        }));
        row
    };
    let head = ["true share", "stage 1 (1 %)", "stage 2 (5 %)", "stage 3 (25 %)", "stage 4 (50 %)"];
    let rows = [0.1, 0.05, 0.03, 0.02, 0.015].map(row).to_vec();
    assert_told(&[("a plan", table(&head, rows))]);
}

/// Ticks of `n` requests of which `bad` are bad, from the fault on, until the breach; before it, so many healthy ones.
fn ticks_to_breach(healthy: u64, planned: u64, n: f64, bad: f64, mixture: bool) -> Option<u64> {
    let test = AboveLimit::new(0.01).unwrap();
    let mut starts = Starts::new(planned);
    (0..planned)
        .find(|tick| {
            // Three of a thousand are bad while all is well.
            let before = (*tick as f64 * n * 0.003).floor();
            let usual = ((*tick + 1) as f64 * n * 0.003).floor() - before;
            let k = if *tick >= healthy { bad } else { usual };
            starts.push(*tick, &counts(n, k));
            let e = if mixture { starts.log_e(&test) } else { test.log_e(starts.whole()) };
            *tick >= healthy && starts.whole().k() >= 3.0 && e >= alpha().ln_threshold()
        })
        .map(|tick| tick - healthy + 1)
}

#[test]
fn a_fault_that_begins_late() {
    // 15 minutes planned, ticks of 10 s, 5 canary requests/s.
    let row = |(bad, share): (f64, &str)| {
        let after = |minutes: u64, mixture: bool| {
            let ticks = ticks_to_breach(minutes * 6, 90, 50.0, bad, mixture);
            ticks.map_or_else(|| "not in this stage".to_owned(), |ticks| format!("{} s", ticks * 10))
        };
        vec![share.to_owned(), after(0, true), after(10, true), after(10, false)]
    };
    let head = ["true share", "from the start", "after 10 healthy minutes", "so, by one test from the start"];
    let rows = [(25.0, "50 %"), (5.0, "10 %"), (3.0, "6 %"), (2.0, "4 %")].map(row).to_vec();
    assert_told(&[("late faults", table(&head, rows))]);
}

#[test]
fn events_per_minute() {
    // At the latest: by half of the mixture's weight.
    let enough = |allowed: f64| {
        let test = EventRate::new();
        let e = |k: &f64| test.log_e(&EventCounts::new(*k, allowed).unwrap());
        (3..1000).map(f64::from).find(|k| e(k) >= alpha().ln_threshold() + 2.0_f64.ln()).unwrap()
    };
    let row = |allowed: f64, from: &str| {
        let times = detectable_rate(allowed, alpha(), 0.8).unwrap().unwrap();
        vec![format!("{allowed}"), from.to_owned(), whole(enough(allowed)), format!("{} times", short(times))]
    };
    let head = ["events allowed", "such as", "breach at", "detects (80 %)"];
    let rows = vec![
        row(0.125, "0.5/min for 5 min, canary at 5 %"),
        row(0.625, "canary at 25 %"),
        row(2.5, "`scope: Total`, or canary at 100 %"),
        row(7.5, "the same for 15 min"),
        row(60.0, "2/min for 30 min"),
    ];
    assert_told(&[("events", table(&head, rows))]);
}

#[test]
fn against_the_stable_side() {
    let row = |share: f64, stable: f64| {
        let ratio = |margin: f64| short(detectable_ratio(margin, share, stable, alpha(), 0.8).unwrap().unwrap());
        vec![format!("{} %", share * 100.0), whole(stable), ratio(0.1), ratio(0.5)]
    };
    let head = ["canary's share", "events of stable", "detects, margin 10 %", "detects, margin 50 %"];
    let rows =
        vec![row(0.01, 300.0), row(0.05, 30.0), row(0.05, 300.0), row(0.05, 3000.0), row(0.5, 30.0), row(0.5, 300.0)];
    assert_told(&[("against stable", table(&head, rows))]);
}

#[test]
fn a_historical_baseline() {
    // Five minutes of 100 requests/s.
    let row = |events: f64| {
        let limit = Historical::new(events, 30_000.0, 0.1, alpha(), Dispersion::NONE).unwrap();
        let per_thousand = |rate: f64| format!("{}", (rate * 1e6).round() / 1e3);
        vec![
            whole(events),
            per_thousand(events / 30_000.0),
            per_thousand(1.1 * events / 30_000.0),
            per_thousand(limit.rate()),
        ]
    };
    let head = ["events in 30,000 requests", "per 1000", "plus 10 %", "the limit that is tested, per 1000"];
    let rows = [0.0, 3.0, 30.0, 300.0].map(row).to_vec();
    assert_told(&[("historical baseline", table(&head, rows))]);
}

/// The numbers that stand in sentences.
#[test]
fn numbers_in_the_text() {
    let known = share_gate(0.01, alpha(), Alpha::RELEASE, 300.0).unwrap();
    println!("{known:?}");
    assert_eq!(known.clean_requests_to_prove, 358.0);
    let mirror = BelowLimit::new(0.01).unwrap();
    assert!(mirror.log_e(&counts(300.0, 0.0)) < 20.0_f64.ln());
    assert_eq!(alpha().threshold().round(), 600.0);
    assert_eq!(Relative::new(0.1).unwrap().ratio(), 1.1);
    let told = [
        format!("detects {} and worse", percent(known.detects_80.unwrap())),
        format!("proves nothing below {}", percent(known.proves.unwrap())),
        "358".to_owned(),
    ];
    assert_told(&told.map(|text| ("a sentence", text)));
}
