//! The special functions against values of an independent implementation (tests/data/reference.py).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use canary_stats::special::{ln_beta, ln_lower_tail, ln_upper_tail};
use canary_stats::{AboveLimit, Alpha, BelowLimit, Prior, Process, ShareCounts, upper_mean};

struct Row {
    n: f64,
    k: f64,
    a: f64,
    b: f64,
    p: f64,
    lower: f64,
    upper: f64,
    beta: f64,
    above: f64,
    below: f64,
}

fn rows() -> Vec<Row> {
    include_str!("data/incomplete-beta.csv")
        .lines()
        .skip(1)
        .map(|line| {
            let values: Vec<f64> = line.split(',').map(|field| field.parse().unwrap()).collect();
            let [n, k, a, b, p, lower, upper, beta, above, below] = values[..] else { panic!("{line}") };
            Row { n, k, a, b, p, lower, upper, beta, above, below }
        })
        .collect()
}

/// The difference, of the larger of 1 and the value: a logarithm near 0 is known to its absolute, a large one to
/// its relative error.
fn error(is: f64, should: f64) -> f64 {
    (is - should).abs() / should.abs().max(1.0)
}

#[test]
fn both_tails_agree_with_high_precision_values_for_counts_up_to_a_billion() {
    let (mut lower, mut upper, mut whole) = (0.0_f64, 0.0_f64, 0.0_f64);
    for row in rows() {
        let (x, y) = (row.a + row.k, row.b + row.n - row.k);
        let allowed = if row.n > 1e6 { 1e-9 } else { 1e-11 };
        let errors = (error(ln_lower_tail(x, y, row.p), row.lower), error(ln_upper_tail(x, y, row.p), row.upper));
        assert!(errors.0 < allowed && errors.1 < allowed, "{x} {y} {}: {errors:?}", row.p);
        lower = lower.max(errors.0);
        upper = upper.max(errors.1);
        whole = whole.max(error(ln_beta(x, y), row.beta));
    }
    println!("worst errors: ln I {lower:e}, ln(1-I) {upper:e}, ln B {whole:e}");
    assert!(whole < 1e-14);
}

#[test]
fn evidence_agrees_with_high_precision_values_for_counts_up_to_a_billion() {
    let (mut few, mut many) = (0.0_f64, 0.0_f64);
    for row in rows() {
        let counts = ShareCounts::new(row.n, row.k).unwrap();
        let prior = Prior::new(row.a, row.b).unwrap();
        let above = AboveLimit::with_prior(row.p, prior).unwrap().log_e(&counts);
        let below = BelowLimit::with_prior(row.p, prior).unwrap().log_e(&counts);
        let worst = error(above, row.above).max(error(below, row.below));
        let allowed = if row.n > 1e6 { 1e-9 } else { 1e-11 };
        assert!(worst < allowed, "{} of {} against {}: {above} {below}: {worst:e}", row.k, row.n, row.p);
        if row.n > 1e6 { many = many.max(worst) } else { few = few.max(worst) }
    }
    println!("worst errors of ln E: {few:e} up to a million requests, {many:e} at a billion");
}

#[test]
fn the_survival_that_is_0_in_a_double_is_finite_in_log_space() {
    let (x, y) = (0.5 + 3000.0, 10.0 + 997_000.0);
    let ln = ln_upper_tail(x, y, 0.01);
    assert!((-5000.0..-3000.0).contains(&ln), "{ln}");
    assert_eq!(ln.exp(), 0.0);
}

#[test]
fn upper_poisson_bounds_are_the_known_ones() {
    // Half the 0.95 quantile of chi-squared with 2(k+1) degrees of freedom; computed with mpmath.
    let alpha = Alpha::new(0.05).unwrap();
    for (events, bound) in [
        (0.0, 2.995732273553991),
        (1.0, 4.743864518390579),
        (4.0, 9.153519026637573),
        (20.0, 29.062018840434014),
        (300.0, 330.09424906170517),
        (100000.0, 100521.71888230444),
    ] {
        let is = upper_mean(events, alpha).unwrap();
        assert!(error(is, bound) < 1e-11 * bound.max(1.0), "{events}: {is}");
    }
}
