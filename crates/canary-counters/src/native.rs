//! Native histograms: buckets that come with each sample, only those that hold anything, at a resolution that may change
//! from sample to sample. Decides, from sample to sample, how many requests were above a limit for certain and how many
//! possibly; it never interpolates inside a bucket, and never compares two samples at a boundary that one of them
//! does not have.
//!
//! A boundary of one resolution is a boundary of every finer one. So two samples are compared at the boundaries next to
//! the limit that both have; what is new between them adds up to counters that only rise, and these are counted as the
//! buckets of a classic histogram with boundaries around the limit.

use std::collections::BTreeMap;

use crate::counts::{CounterError, Meter, Reading, Tick};
use crate::histogram::{Boundary, HistogramReading};
use crate::measure::exceeds;
use crate::samples::{Sample, Series};
use crate::selector::Selector;

/// How many observations fell between two boundaries. Whether a boundary itself belongs to it is not told: no limit
/// depends on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NativeBucket {
    /// May be -∞.
    pub lower: f64,
    /// May be ∞.
    pub upper: f64,
    /// Since the process started.
    pub count: f64,
}

/// One sample of a native histogram.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NativeSample {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// All observations since the process started.
    pub count: f64,
    /// The buckets that hold any.
    pub buckets: Vec<NativeBucket>,
}

/// One native histogram: a set of labels and its samples, oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NativeSeries {
    /// All labels, `__name__` included where the store gave it.
    pub labels: BTreeMap<String, String>,
    /// The samples, strictly ascending in time.
    pub samples: Vec<NativeSample>,
}

/// A histogram, as a store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub enum Histogram {
    /// As its `_bucket` series.
    Classic(Vec<Series>),
    /// As samples with buckets.
    Native(Vec<NativeSeries>),
}

/// The boundaries next to a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Around {
    /// The highest at or below it.
    lower: f64,
    /// The lowest at or above it.
    upper: f64,
}

impl Around {
    /// The ones that all of these samples have. What has no requests on either side is no boundary that matters, so
    /// without a bucket over it the limit itself is one.
    fn of(limit: f64, samples: &[&NativeSample]) -> Self {
        let mut around = Self { lower: limit, upper: limit };
        loop {
            let before = around;
            for bucket in samples.iter().flat_map(|sample| &sample.buckets) {
                let over = |boundary: f64| bucket.lower < boundary && boundary < bucket.upper;
                if over(around.lower) || over(around.upper) {
                    around.lower = around.lower.min(bucket.lower);
                    around.upper = around.upper.max(bucket.upper);
                }
            }
            if around == before {
                return around;
            }
        }
    }
}

/// Requests by the boundaries next to a limit.
#[derive(Debug, Clone, Copy, Default)]
struct Parts {
    all: f64,
    /// Not above the upper one.
    by_upper: f64,
    /// Not above the lower one.
    by_lower: f64,
}

impl Parts {
    fn of(sample: &NativeSample, around: Around) -> Self {
        let sum =
            |of: &dyn Fn(&&NativeBucket) -> bool| sample.buckets.iter().filter(of).map(|one| one.count).sum::<f64>();
        Self {
            all: sample.count,
            // What is in no bucket (not a number) was not certainly slow.
            by_upper: sample.count - sum(&|bucket| bucket.lower >= around.upper),
            by_lower: sum(&|bucket| bucket.upper <= around.lower),
        }
    }

    /// What a sample has that the one before had not. Where any part went back the process restarted: then all of it.
    fn new(before: Option<&NativeSample>, now: &NativeSample, limit: f64) -> Self {
        let whole = Self::of(now, Around::of(limit, &[now]));
        let Some(before) = before else { return whole };
        let around = Around::of(limit, &[before, now]);
        let (then, now) = (Self::of(before, around), Self::of(now, around));
        let new = Self {
            all: now.all - then.all,
            by_upper: now.by_upper - then.by_upper,
            by_lower: now.by_lower - then.by_lower,
        };
        // Sums of fractions, as a recording rule may make them, are not exact.
        let rounding = 1e-9 * now.all.max(1.0);
        let rises =
            [new.by_lower, new.by_upper - new.by_lower, new.all - new.by_upper].iter().all(|part| *part >= -rounding);
        if !rises {
            return whole;
        }
        let by_lower = new.by_lower.max(0.0);
        let by_upper = new.by_upper.max(by_lower);
        Self { all: new.all.max(by_upper), by_upper, by_lower }
    }
}

/// A series as counters that only rise.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rising {
    last: Option<NativeSample>,
    sum: Parts,
}

/// One answer's new samples, as three counters of each series.
struct Counters {
    all: Vec<Series>,
    by_upper: Vec<Series>,
    by_lower: Vec<Series>,
    around: Around,
}

impl Meter {
    /// Takes a native histogram in, for one limit in its own unit. `failed` is as for [`Meter::absorb_histogram`]. The
    /// reading has two boundaries, the upper one first: at the limit, or the nearest that the samples have.
    ///
    /// # Errors
    /// As [`Meter::absorb`]; also buckets that make no sense.
    pub fn absorb_native(
        &mut self,
        counter: &str,
        series: &[NativeSeries],
        limit: f64,
        failed: Option<&Selector>,
        tick: &Tick,
    ) -> Result<HistogramReading, CounterError> {
        for one in series {
            check_buckets(counter, one)?;
        }
        let counts: Vec<Series> = series.iter().map(NativeSeries::counts).collect();
        self.check(counter, &counts, tick)?;
        self.witness(&counts, tick);
        let name = format!("{counter} at {limit}");
        let counters = self.rise(&name, series, limit);
        let total = self.absorb(&name, &counters.all, tick)?;
        let tells_failed = failed.is_some_and(|failed| failed.told_by(counts.iter().map(|one| &one.labels)));
        let mut boundaries = Vec::new();
        for (le, series) in [(counters.around.upper, &counters.by_upper), (counters.around.lower, &counters.by_lower)] {
            let side = if boundaries.is_empty() { "above" } else { "below" };
            let name = format!("{name}, boundary {side}");
            let fast = self.absorb(&name, series, tick)?;
            let good = self.not_failed(&name, series, failed, tick)?.filter(|_| tells_failed);
            boundaries.push(Boundary { le, fast, fast_and_not_failed: good });
        }
        // Without a finite one above it nothing is slow for certain, and below it nothing fast.
        boundaries.retain(|boundary| boundary.le.is_finite());
        Ok(HistogramReading {
            total,
            boundaries,
            needs_failed: failed.is_some() && !tells_failed && !series.is_empty(),
            native: true,
        })
    }

    /// The series that did not fail, where a gate tells them from others.
    pub(crate) fn not_failed(
        &mut self,
        name: &str,
        series: &[Series],
        failed: Option<&Selector>,
        tick: &Tick,
    ) -> Result<Option<Reading>, CounterError> {
        let Some(failed) = failed else { return Ok(None) };
        let good: Vec<Series> = series.iter().filter(|one| !failed.matches_labels(&one.labels)).cloned().collect();
        self.absorb(&format!("{name} not failed"), &good, tick).map(Some)
    }

    /// Adds what is new in the samples to what each series has come to.
    fn rise(&mut self, name: &str, series: &[NativeSeries], limit: f64) -> Counters {
        let around = Around { lower: limit, upper: limit };
        let mut counters = Counters { all: Vec::new(), by_upper: Vec::new(), by_lower: Vec::new(), around };
        let known = self.natives.entry(name.to_owned()).or_default();
        for one in series {
            let rising = known.entry(one.labels.clone()).or_default();
            let mut samples = Vec::new();
            for sample in &one.samples {
                if rising.last.as_ref().is_some_and(|last| sample.at_ms <= last.at_ms) {
                    continue;
                }
                let new = Parts::new(rising.last.as_ref(), sample, limit);
                rising.sum.all += new.all;
                rising.sum.by_upper += new.by_upper;
                rising.sum.by_lower += new.by_lower;
                rising.last = Some(sample.clone());
                samples.push((sample.at_ms, rising.sum));
            }
            let counter = |value: fn(&Parts) -> f64| Series {
                labels: one.labels.clone(),
                samples: samples.iter().map(|(at_ms, sum)| Sample { at_ms: *at_ms, value: value(sum) }).collect(),
            };
            counters.all.push(counter(|sum| sum.all));
            counters.by_upper.push(counter(|sum| sum.by_upper));
            counters.by_lower.push(counter(|sum| sum.by_lower));
            let last: Vec<&NativeSample> = rising.last.iter().collect();
            let around = Around::of(limit, &last);
            counters.around.lower = counters.around.lower.min(around.lower);
            counters.around.upper = counters.around.upper.max(around.upper);
        }
        counters
    }
}

impl NativeSeries {
    /// How many observations there were in all, as a plain counter.
    #[must_use]
    pub fn counts(&self) -> Series {
        let samples = self.samples.iter().map(|sample| Sample { at_ms: sample.at_ms, value: sample.count });
        Series { labels: self.labels.clone(), samples: samples.collect() }
    }
}

fn check_buckets(counter: &str, series: &NativeSeries) -> Result<(), CounterError> {
    let describe = || Series { labels: series.labels.clone(), samples: Vec::new() }.describe();
    for sample in &series.samples {
        let mut sum = 0.0;
        for bucket in &sample.buckets {
            // One that only holds zeros has one boundary.
            if bucket.lower.is_nan() || bucket.upper.is_nan() || bucket.lower > bucket.upper {
                return Err(CounterError::Boundary { counter: counter.to_owned(), series: describe() });
            }
            if !(bucket.count >= 0.0 && bucket.count.is_finite()) {
                let value = bucket.count.to_string();
                return Err(CounterError::Value { counter: counter.to_owned(), series: describe(), value });
            }
            sum += bucket.count;
        }
        if exceeds(sum, sample.count) {
            let value = format!("{} with {sum} in its buckets", sample.count);
            return Err(CounterError::Value { counter: counter.to_owned(), series: describe(), value });
        }
    }
    Ok(())
}
