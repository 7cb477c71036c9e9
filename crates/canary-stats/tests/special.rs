//! The special functions against values of an independent implementation (tests/data/reference.py).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use canary_stats::special::{ln_beta, ln_lower_tail, ln_upper_tail};
use canary_stats::{Alpha, upper_mean};

struct Row {
    x: f64,
    y: f64,
    p: f64,
    lower: f64,
    upper: f64,
    beta: f64,
}

fn rows() -> Vec<Row> {
    include_str!("data/incomplete-beta.csv")
        .lines()
        .skip(1)
        .map(|line| {
            let v: Vec<f64> = line.split(',').map(|field| field.parse().unwrap()).collect();
            Row { x: v[0], y: v[1], p: v[2], lower: v[3], upper: v[4], beta: v[5] }
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
    let mut worst = (0.0_f64, 0.0_f64, 0.0_f64);
    for row in rows() {
        let lower = error(ln_lower_tail(row.x, row.y, row.p), row.lower);
        let upper = error(ln_upper_tail(row.x, row.y, row.p), row.upper);
        let whole = error(ln_beta(row.x, row.y), row.beta);
        // 1 - p is not a double: at n = 10^9 half a unit in its last place moves the tail by this much.
        let allowed = 2e-12 + 4e-17 * (row.x + row.y);
        assert!(lower < allowed && upper < allowed, "{} {} {}: {lower:e} {upper:e}", row.x, row.y, row.p);
        worst = (worst.0.max(lower), worst.1.max(upper), worst.2.max(whole));
    }
    println!("worst errors: ln I {:e}, ln(1-I) {:e}, ln B {:e}", worst.0, worst.1, worst.2);
    assert!(worst.2 < 1e-13);
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
