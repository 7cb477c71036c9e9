//! Random counts, drawn exactly: binomial and Poisson, by nothing but a seeded generator of uniform numbers. The time
//! taken grows with the logarithm of the counts, but for small ones.

use fastrand::Rng;

/// Up to so many expected bad ones they are drawn one by one.
const FEW: f64 = 64.0;

/// How many of `requests` are bad, each with the chance `share` (0 to 1), independently: binomial, and exactly so.
///
/// Few are drawn [one by one](one_by_one). Many are halved first: the middle one of as many
/// uniform numbers has a beta distribution, and all of those on one side of it are bad or good (Devroye, Non-Uniform
/// Random Variate Generation, 1986, X.4.3).
#[must_use]
pub fn bad(rng: &mut Rng, requests: u64, share: f64) -> u64 {
    let (mut left, mut share, mut found) = (requests, share, 0_u64);
    loop {
        if share <= 0.0 || share.is_nan() || left == 0 {
            return found;
        }
        if share >= 1.0 {
            return found.saturating_add(left);
        }
        if left as f64 * share.min(1.0 - share) <= FEW {
            let few = if share > 0.5 {
                left.saturating_sub(one_by_one(rng, left, 1.0 - share))
            } else {
                one_by_one(rng, left, share)
            };
            return found.saturating_add(few);
        }
        let below = left / 2;
        let above = left.saturating_sub(below).saturating_sub(1);
        let middle = beta(rng, below.saturating_add(1) as f64, above.saturating_add(1) as f64);
        if middle <= share {
            // The middle one and all below it are bad.
            found = found.saturating_add(below).saturating_add(1);
            (left, share) = (above, (share - middle) / (1.0 - middle));
        } else {
            (left, share) = (below, share / middle);
        }
    }
}

/// As [`bad`], drawn one by one: how many good ones come before the next bad one. Takes time in proportion to the bad
/// ones.
#[must_use]
pub fn one_by_one(rng: &mut Rng, requests: u64, share: f64) -> u64 {
    if share <= 0.0 || share.is_nan() {
        return 0;
    }
    if share >= 1.0 {
        return requests;
    }
    let ln_good = (-share).ln_1p();
    // A float becomes the nearest integer there is, so a gap beyond all integers ends the count too.
    let mut gap = || ((1.0 - rng.f64()).ln() / ln_good) as u64;
    let (mut at, mut bad) = (gap(), 0_u64);
    while at < requests {
        bad = bad.saturating_add(1);
        at = at.saturating_add(1).saturating_add(gap());
    }
    bad
}

/// How many events there are where `mean` are expected: Poisson, and exactly so.
///
/// Few are drawn one by one. Of many, the time of a certain one is drawn first, which has a gamma distribution (Ahrens
/// and Dieter 1974); what remains is Poisson or binomial.
#[must_use]
pub fn events(rng: &mut Rng, mean: f64) -> u64 {
    let (mut mean, mut found) = (mean, 0_u64);
    while mean > FEW {
        let number = (mean * 0.875).floor();
        let time = gamma(rng, number);
        if time > mean {
            return found.saturating_add(bad(rng, (number as u64).saturating_sub(1), mean / time));
        }
        found = found.saturating_add(number as u64);
        mean -= time;
    }
    if mean.is_nan() || mean <= 0.0 {
        return found;
    }
    let mut time = 0.0;
    loop {
        time -= (1.0 - rng.f64()).ln();
        if time > mean {
            return found;
        }
        found = found.saturating_add(1);
    }
}

fn beta(rng: &mut Rng, a: f64, b: f64) -> f64 {
    let (x, y) = (gamma(rng, a), gamma(rng, b));
    x / (x + y)
}

/// Gamma with a shape of at least 1 (Marsaglia and Tsang 2000).
fn gamma(rng: &mut Rng, shape: f64) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.f64()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// Standard normal, by the polar method.
fn normal(rng: &mut Rng) -> f64 {
    loop {
        let (x, y) = (2.0 * rng.f64() - 1.0, 2.0 * rng.f64() - 1.0);
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            return x * (-2.0 * square.ln() / square).sqrt();
        }
    }
}

/// One seed of several numbers.
#[must_use]
pub fn mixed(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |seed, part| Rng::with_seed(seed ^ part).u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: u32 = 20_000;

    /// Mean and variance within 4.4 standard deviations of such from so many runs.
    fn fits(name: &str, true_mean: f64, true_variance: f64, kurtosis: f64, mut draw: impl FnMut() -> u64) {
        let counts: Vec<f64> = (0..RUNS).map(|_| draw() as f64).collect();
        let runs = f64::from(RUNS);
        let mean = counts.iter().sum::<f64>() / runs;
        let variance = counts.iter().map(|k| (k - mean).powi(2)).sum::<f64>() / runs;
        assert!((mean - true_mean).abs() < 4.4 * (true_variance / runs).sqrt(), "{name}: {mean} for {true_mean}");
        let room = 4.4 * true_variance * ((kurtosis - 1.0) / runs).sqrt();
        assert!((variance - true_variance).abs() < room, "{name}: {variance} for {true_variance}");
    }

    #[test]
    fn bad_requests_have_the_mean_and_the_variance_of_a_binomial_distribution() {
        let cases = [
            (1_u64, 0.3),
            (30, 0.01),
            (500, 0.02),
            (40, 0.5),
            (200, 0.9),
            (1000, 0.3),
            (100_000, 0.01),
            (5_000_000, 0.6),
        ];
        for (requests, share) in cases {
            let mut rng = Rng::with_seed(5);
            let variance = requests as f64 * share * (1.0 - share);
            let kurtosis = 3.0 + (1.0 - 6.0 * share * (1.0 - share)) / variance;
            let name = format!("{requests} {share}");
            fits(&name, requests as f64 * share, variance, kurtosis, || bad(&mut rng, requests, share));
            if requests < 1000 {
                fits(&name, requests as f64 * share, variance, kurtosis, || one_by_one(&mut rng, requests, share));
            }
        }
    }

    /// Chances of single counts, where the many are halved: 4.4 standard deviations again.
    #[test]
    fn halving_leaves_each_count_its_chance() {
        let (requests, share) = (600_u64, 0.2_f64);
        let mut rng = Rng::with_seed(7);
        let mut seen = vec![0_u32; 601];
        for _ in 0..RUNS {
            seen[usize::try_from(bad(&mut rng, requests, share)).unwrap()] += 1;
        }
        let mut chance = (1.0 - share).powi(600);
        for (k, seen) in (0_u32..=600).zip(seen) {
            let expected = chance * f64::from(RUNS);
            assert!((f64::from(seen) - expected).abs() < 4.4 * expected.sqrt() + 2.0, "{k}: {seen} for {expected}");
            chance *= (600.0 - f64::from(k)) / (f64::from(k) + 1.0) * share / (1.0 - share);
        }
    }

    #[test]
    fn events_have_the_mean_and_the_variance_of_a_poisson_distribution() {
        for mean in [0.01, 0.7, 12.0, 63.0, 65.0, 400.0, 250_000.0] {
            let mut rng = Rng::with_seed(11);
            fits(&format!("{mean}"), mean, mean, 3.0 + 1.0 / mean, || events(&mut rng, mean));
        }
    }

    #[test]
    fn none_or_all_are_bad_at_the_ends_and_nothing_is_made_of_nonsense() {
        let mut rng = Rng::with_seed(5);
        assert_eq!((bad(&mut rng, 1000, 0.0), bad(&mut rng, 1000, 1.0), bad(&mut rng, 0, 0.5)), (0, 1000, 0));
        assert_eq!(bad(&mut rng, 1000, 1e-300), 0);
        assert_eq!((bad(&mut rng, 1000, f64::NAN), events(&mut rng, f64::NAN), events(&mut rng, 0.0)), (0, 0, 0));
    }
}
