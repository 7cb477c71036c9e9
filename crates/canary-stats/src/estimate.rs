//! Figures to be read beside a verdict, each with an interval: a quantile of durations from a histogram's buckets, and
//! the mean of something that is measured tick by tick. They hold for one look at a time fixed before, so they never
//! decide anything here.

use serde::{Deserialize, Serialize};

use crate::counts::count;
use crate::error::StatsError;
use crate::special::{ln_lower_tail, ln_upper_tail};

/// A figure, and where it lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure; none where it is only known to be above `low`.
    pub value: Option<f64>,
    /// The lower end of the interval; none where it is not known.
    pub low: Option<f64>,
    /// The upper end of the interval; none where it has no bound, or is not known.
    pub high: Option<f64>,
}

/// Durations of requests, as a histogram counts them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    /// Finite upper bounds, ascending, each with the requests at or below it.
    upper: Vec<(f64, f64)>,
    all: f64,
}

impl Buckets {
    /// `all` requests, and of each boundary those at or below it. Counts that go back from one boundary to the next, as
    /// samples of two moments may, count as the greater.
    ///
    /// # Errors
    /// A boundary that is not finite, or not above the one before; a number that is no count.
    pub fn new(boundaries: impl IntoIterator<Item = (f64, f64)>, all: f64) -> Result<Self, StatsError> {
        let mut upper: Vec<(f64, f64)> = Vec::new();
        for (le, below) in boundaries {
            let before = upper.last().copied();
            if !le.is_finite() || before.is_some_and(|(last, _)| le <= last) {
                return Err(StatsError::Limit(le));
            }
            upper.push((le, count(below)?.max(before.map_or(0.0, |(_, below)| below))));
        }
        let all = count(all)?.max(upper.last().map_or(0.0, |(_, below)| *below));
        Ok(Self { upper, all })
    }

    /// How many requests there are.
    #[must_use]
    pub const fn requests(&self) -> f64 {
        self.all
    }

    /// The quantile `share` (0 to 1): within its bucket as if that were filled evenly, and its interval from order
    /// statistics, which assumes nothing of how durations are distributed. The number of requests below the true quantile
    /// is binomial; so it lies, with this confidence, between the l-th and the u-th fastest request, l the greatest
    /// with P(B ≤ l-1), u the least with P(B ≥ u) of at most half of what is left of 1 (David and Nagaraja, Order
    /// Statistics, 2003, section 7.1). Of these two requests the buckets tell the lower and the upper boundary. Where
    /// requests come in bursts, `dispersion` (1 or more) divides their number. None without requests or boundaries.
    ///
    /// # Errors
    /// A share or confidence that is not strictly between 0 and 1.
    pub fn quantile(&self, share: f64, confidence: f64, dispersion: f64) -> Result<Option<Estimate>, StatsError> {
        for probability in [share, confidence] {
            if !(probability > 0.0 && probability < 1.0) {
                return Err(StatsError::Probability(probability));
            }
        }
        if self.all < 1.0 || self.upper.is_empty() {
            return Ok(None);
        }
        let n = (self.all / dispersion.clamp(1.0, self.all)).floor().max(1.0);
        let part = self.all / n;
        let tail = ((1.0 - confidence) / 2.0).ln();
        let low = last_where(n, |l| ln_upper_tail(l, n - l + 1.0, share) <= tail);
        // The first rank that is rare enough is one after the last that is not.
        let high = last_where(n, |u| ln_lower_tail(u, n - u + 1.0, share) > tail) + 1.0;
        Ok(Some(Estimate {
            value: self.at(share * self.all),
            low: Some(if low < 1.0 { 0.0 } else { self.lower_bound((low - 1.0) * part) }),
            high: if high > n { None } else { self.upper_bound(high * part) },
        }))
    }

    /// The duration of the request with this rank, within its bucket.
    fn at(&self, rank: f64) -> Option<f64> {
        let mut from = (0.0, 0.0);
        for &(le, below) in &self.upper {
            if below >= rank {
                let within = if below > from.1 { (rank - from.1) / (below - from.1) } else { 1.0 };
                let least = f64::min(from.0, le);
                return Some(least + (le - least) * within);
            }
            from = (le, below);
        }
        None
    }

    /// The boundary below the first request after this rank.
    fn lower_bound(&self, rank: f64) -> f64 {
        let below = self.upper.iter().take_while(|(_, below)| *below <= rank).last();
        below.map_or(0.0, |(le, _)| *le)
    }

    /// The boundary above the request with this rank.
    fn upper_bound(&self, rank: f64) -> Option<f64> {
        self.upper.iter().find(|(_, below)| *below >= rank).map(|(le, _)| *le)
    }
}

/// The last whole number from 1 to `most` for which something holds that holds up to there; 0 where it never does.
fn last_where(most: f64, holds: impl Fn(f64) -> bool) -> f64 {
    let (mut yes, mut no) = (0.0, most + 1.0);
    while no - yes > 1.0 {
        let middle = (0.5 * (yes + no)).floor();
        if holds(middle) { yes = middle } else { no = middle }
    }
    yes
}

/// Most batches that are kept: two of them are joined to one when there are so many.
const MOST: usize = 32;
/// Fewest of which an interval is made.
const LEAST: usize = 4;

/// Samples in order of time, in parts of equal length (batch means: Law and Kelton, Simulation Modeling and Analysis,
/// section 9.5). Samples of neighbouring ticks depend on each other; means of parts that are long against that do not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batches {
    /// Samples in a part.
    size: u32,
    parts: Vec<f64>,
    open: (f64, u32),
    sum: f64,
    count: u32,
}

impl Batches {
    /// Takes one sample in; what is not finite is none.
    pub fn push(&mut self, sample: f64) {
        if !sample.is_finite() {
            return;
        }
        self.size = self.size.max(1);
        self.sum += sample;
        self.count = self.count.saturating_add(1);
        self.open = (self.open.0 + sample, self.open.1.saturating_add(1));
        if self.open.1 >= self.size {
            self.parts.push(self.open.0 / f64::from(self.open.1));
            self.open = (0.0, 0);
        }
        if self.parts.len() >= MOST {
            self.parts = self.parts.chunks(2).map(|two| two.iter().sum::<f64>() / two.len() as f64).collect();
            self.size = self.size.saturating_mul(2);
        }
    }

    /// How many samples there are.
    #[must_use]
    pub const fn samples(&self) -> u32 {
        self.count
    }

    /// The mean, and Student's interval from the means of the parts; without its ends where there are fewer than four
    /// parts. It assumes that parts do not depend on each other. None without a sample.
    ///
    /// # Errors
    /// A confidence that is not strictly between 0 and 1.
    pub fn mean(&self, confidence: f64) -> Result<Option<Estimate>, StatsError> {
        if !(confidence > 0.0 && confidence < 1.0) {
            return Err(StatsError::Probability(confidence));
        }
        if self.count == 0 {
            return Ok(None);
        }
        let value = self.sum / f64::from(self.count);
        let parts = self.parts.len() as f64;
        if self.parts.len() < LEAST {
            return Ok(Some(Estimate { value: Some(value), low: None, high: None }));
        }
        let middle = self.parts.iter().sum::<f64>() / parts;
        let squares = self.parts.iter().map(|part| (part - middle) * (part - middle)).sum::<f64>();
        let spread = student(parts - 1.0, 1.0 - confidence) * (squares / (parts - 1.0) / parts).sqrt();
        Ok(Some(Estimate { value: Some(value), low: Some(value - spread), high: Some(value + spread) }))
    }
}

/// The deviate that Student's t exceeds on both sides together with this probability.
fn student(freedom: f64, probability: f64) -> f64 {
    let level = probability.ln();
    let (mut low, mut high) = (0.0_f64, 1e6_f64);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        let x = freedom / (freedom + middle * middle);
        // P(|T| > t) is the incomplete Beta function at x.
        let exceeded = if middle <= 0.0 { 0.0 } else { ln_lower_tail(0.5 * freedom, 0.5, x) };
        if exceeded > level { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buckets(bounds: &[f64], durations: &[f64]) -> Buckets {
        let below = |le: &f64| (*le, durations.iter().filter(|one| *one <= le).count() as f64);
        Buckets::new(bounds.iter().map(below), durations.len() as f64).unwrap()
    }

    #[test]
    fn a_quantile_lies_in_its_bucket_and_its_interval_is_that_of_the_ranks() {
        // 1, 2, .. 100, each a bucket of its own. The 95% interval of the median of 100 is from the 40th to the 61st.
        let bounds: Vec<f64> = (1..=100).map(f64::from).collect();
        let all = buckets(&bounds, &bounds);
        let median = all.quantile(0.5, 0.95, 1.0).unwrap().unwrap();
        assert_eq!(median, Estimate { value: Some(50.0), low: Some(39.0), high: Some(61.0) });
        let wide = all.quantile(0.5, 0.95, 4.0).unwrap().unwrap();
        assert!(wide.low < median.low && wide.high > median.high, "bursts make it wider: {wide:?}");
        // Of 20 requests nothing bounds P95 from above: the slowest may be faster than it.
        let few = buckets(&bounds, &bounds[..20]);
        assert_eq!(few.quantile(0.95, 0.95, 1.0).unwrap().unwrap().high, None);
    }

    #[test]
    fn what_lies_in_the_last_bucket_is_above_the_last_boundary() {
        let slow = buckets(&[0.1, 0.25], &[0.05, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]);
        let p95 = slow.quantile(0.95, 0.95, 1.0).unwrap().unwrap();
        assert_eq!((p95.value, p95.low, p95.high), (None, Some(0.25), None));
        let within = buckets(&[0.1, 0.2], &[0.15; 10]);
        assert!((within.quantile(0.5, 0.95, 1.0).unwrap().unwrap().value.unwrap() - 0.15).abs() < 1e-9);
    }

    #[test]
    fn what_makes_no_sense_is_no_histogram() {
        assert!(Buckets::new([(f64::INFINITY, 1.0)], 1.0).is_err());
        assert_eq!(Buckets::new([(0.1, 5.0)], 8.0).unwrap().requests(), 8.0);
        // Never fewer than stand below a boundary.
        assert_eq!(Buckets::new([(0.1, 5.0)], 3.0).unwrap().requests(), 5.0);
        assert!(Buckets::new([(0.2, 1.0), (0.1, 1.0)], 1.0).is_err());
        assert!(Buckets::new([(0.1, -1.0)], 1.0).is_err());
        assert_eq!(Buckets::new([(0.1, 0.0)], 0.0).unwrap().quantile(0.5, 0.95, 1.0), Ok(None));
        assert_eq!(Buckets::new([], 10.0).unwrap().quantile(0.5, 0.95, 1.0), Ok(None));
        assert!(Buckets::new([(0.1, 5.0)], 5.0).unwrap().quantile(1.0, 0.95, 1.0).is_err());
    }

    /// An exponential duration of mean 1.
    fn exponential(random: &mut fastrand::Rng) -> f64 {
        -(1.0 - random.f64()).ln()
    }

    #[test]
    fn the_interval_of_a_quantile_holds_it_as_often_as_it_says() {
        let bounds: Vec<f64> = (1..=400).map(|step| f64::from(step) * 0.02).collect();
        for (share, requests, seed) in [(0.95, 60, 1), (0.95, 1000, 2), (0.99, 3000, 3), (0.5, 30, 4)] {
            let mut random = fastrand::Rng::with_seed(seed);
            let truth = -f64::ln(1.0 - share);
            let held = (0..800).filter(|_| {
                let durations: Vec<f64> = (0..requests).map(|_| exponential(&mut random)).collect();
                let found = buckets(&bounds, &durations).quantile(share, 0.95, 1.0).unwrap().unwrap();
                found.low.unwrap() <= truth && found.high.is_none_or(|high| truth <= high)
            });
            let held = held.count();
            // 95% of 800 is 760, less three standard errors.
            assert!(held >= 741, "P{} of {requests}: {held} of 800", share * 100.0);
        }
    }

    #[test]
    fn the_interval_of_a_mean_holds_it_also_where_neighbours_are_alike() {
        let mut random = fastrand::Rng::with_seed(7);
        for (alike, least) in [(0.0, 560), (0.7, 520)] {
            let held = (0..600).filter(|_| {
                let (mut batches, mut now) = (Batches::default(), 0.0);
                for _ in 0..400 {
                    now = alike * now + exponential(&mut random) - 1.0;
                    batches.push(10.0 + now);
                }
                let found = batches.mean(0.95).unwrap().unwrap();
                found.low.unwrap() <= 10.0 && 10.0 <= found.high.unwrap()
            });
            let held = held.count();
            assert!(held >= least, "{held} of 600 at {alike}");
        }
    }

    #[test]
    fn few_samples_have_a_mean_and_no_interval() {
        let mut batches = Batches::default();
        assert_eq!(batches.mean(0.95), Ok(None));
        [1.0, 2.0, f64::NAN, 3.0].into_iter().for_each(|sample| batches.push(sample));
        assert_eq!(batches.mean(0.95), Ok(Some(Estimate { value: Some(2.0), low: None, high: None })));
        batches.push(2.0);
        // Student's t of three degrees of freedom is 3.182.
        let spread = 3.182_446 * (2.0_f64 / 3.0 / 4.0).sqrt();
        let found = batches.mean(0.95).unwrap().unwrap();
        assert!((found.high.unwrap() - 2.0 - spread).abs() < 1e-5, "{found:?}");
    }

    proptest! {
        #[test]
        fn the_figure_lies_within_its_interval(
            counts in proptest::collection::vec(0_u32..500, 1..12), more in 0_u32..50, share in 0.01..0.99_f64,
        ) {
            let mut below = 0.0;
            let bounds: Vec<(f64, f64)> = counts.iter().enumerate().map(|(index, count)| {
                below += f64::from(*count);
                (0.1 * (index as f64 + 1.0), below)
            }).collect();
            let buckets = Buckets::new(bounds, below + f64::from(more)).unwrap();
            if let Some(found) = buckets.quantile(share, 0.95, 1.0).unwrap() {
                let low = found.low.unwrap();
                prop_assert!(found.value.is_none_or(|value| low <= value + 1e-12));
                prop_assert!(found.high.is_none_or(|high| low <= high && found.value.is_some_and(|value| value <= high + 1e-12)));
            }
        }

        #[test]
        fn however_many_samples_there_are_few_parts_are_kept(samples in 0_usize..5000) {
            let mut batches = Batches::default();
            (0..samples).for_each(|sample| batches.push(sample as f64));
            prop_assert!(batches.parts.len() < MOST);
            let mean = batches.mean(0.95).unwrap().and_then(|found| found.value);
            prop_assert_eq!(mean, (samples > 0).then(|| (samples as f64 - 1.0) / 2.0));
        }
    }
}
