//! Classic histograms: how many requests were slower than a limit. Decides which bucket boundary
//! speaks for a limit, and how failed requests count. It never interpolates inside a bucket.

use std::collections::BTreeMap;

use crate::counts::{CounterError, Meter, Reading, Tick};
use crate::measure::{Measured, conclude, exceeds, more_bad_than_all};
use crate::samples::Series;
use crate::selector::Selector;

/// The unit of a histogram's boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistogramUnit {
    /// As Prometheus' conventions ask.
    Seconds,
    /// Such as Istio's `istio_request_duration_milliseconds`.
    Milliseconds,
}

impl HistogramUnit {
    /// By the metric's name: milliseconds where it says so, and for Envoy's request times, which don't; else seconds.
    #[must_use]
    pub fn of(metric: &str) -> Self {
        let base = metric.strip_suffix("_bucket").or_else(|| metric.strip_suffix("_count")).unwrap_or(metric);
        let envoys = base.starts_with("envoy_") && base.ends_with("_rq_time");
        if envoys || base.ends_with("_milliseconds") || base.ends_with("_ms") || base.ends_with("_millis") {
            Self::Milliseconds
        } else {
            Self::Seconds
        }
    }

    /// A limit in this unit.
    #[must_use]
    pub fn limit(self, limit_ms: u32) -> f64 {
        match self {
            Self::Seconds => f64::from(limit_ms) / 1000.0,
            Self::Milliseconds => f64::from(limit_ms),
        }
    }
}

/// One boundary of a histogram at one tick.
#[derive(Debug, Clone, PartialEq)]
pub struct Boundary {
    /// The upper bound, in the histogram's unit.
    pub le: f64,
    /// Requests at or below it.
    pub fast: Reading,
    /// Of these, the ones that did not fail; only where the histogram's own labels can tell.
    pub fast_and_not_failed: Option<Reading>,
}

/// A histogram at one tick.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramReading {
    /// All requests: the bucket `+Inf`.
    pub total: Reading,
    /// The finite boundaries that all series have, ascending; of a native histogram the two next to the limit, the
    /// upper one first.
    pub boundaries: Vec<Boundary>,
    /// The gate names failed requests, and the buckets' labels can't tell them: [`latency`] needs
    /// the reading of their own counter.
    pub needs_failed: bool,
    /// Of a native histogram: there are no other boundaries than those next to the limit.
    pub native: bool,
}

/// A latency gate's figures, for the two questions that are asked of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Latency {
    /// Slow requests, for the question whether the limit is broken: by the lowest boundary at or
    /// above the limit.
    pub breach: Measured,
    /// That boundary, in the histogram's unit.
    pub breach_le: Option<f64>,
    /// Slow requests, for the question whether the limit is proved to be kept: by the highest
    /// boundary at or below the limit.
    pub proof: Measured,
    /// That boundary, in the histogram's unit.
    pub proof_le: Option<f64>,
    /// What a reader should know about these figures.
    pub note: Option<String>,
}

impl Meter {
    /// Takes a histogram's buckets in: one answer with all `_bucket` series of all boundaries.
    /// `failed` is the gate's selector of failed requests; its name is not looked at here, only
    /// whether the buckets carry its labels.
    ///
    /// # Errors
    /// As [`Meter::absorb`]; also a boundary that is no number, or buckets without `+Inf`.
    pub fn absorb_histogram(
        &mut self,
        counter: &str,
        series: &[Series],
        failed: Option<&Selector>,
        tick: &Tick,
    ) -> Result<HistogramReading, CounterError> {
        let mut by_boundary: BTreeMap<Le, Vec<Series>> = BTreeMap::new();
        let mut shapes: BTreeMap<BTreeMap<String, String>, Vec<Le>> = BTreeMap::new();
        for one in series {
            let le = Le::parse(one.label("le"))
                .ok_or_else(|| CounterError::Boundary { counter: counter.to_owned(), series: one.describe() })?;
            // "0.2" and "0.20" are one boundary, also across a change of spelling.
            let mut labels = one.labels.clone();
            labels.remove("le");
            shapes.entry(labels.clone()).or_default().push(le);
            labels.insert("le".to_owned(), le.to_string());
            by_boundary.entry(le).or_default().push(Series { labels, samples: one.samples.clone() });
        }
        for (labels, boundaries) in &shapes {
            if !boundaries.contains(&Le::INFINITE) {
                return Err(CounterError::Boundary {
                    counter: format!("{counter} (no bucket le=\"+Inf\")"),
                    series: Series { labels: labels.clone(), samples: Vec::new() }.describe(),
                });
            }
        }
        for series in by_boundary.values() {
            self.check(counter, series, tick)?;
        }
        self.witness(series, tick);
        let tells_failed = failed.is_some_and(|failed| failed.told_by(series.iter().map(|one| &one.labels)));
        let infinite = by_boundary.remove(&Le::INFINITE).unwrap_or_default();
        let total = self.absorb(counter, &infinite, tick)?;
        let mut boundaries = Vec::new();
        for (le, series) in &by_boundary {
            let name = format!("{counter}{{le=\"{le}\"}}");
            let fast = self.absorb(&name, series, tick)?;
            let fast_and_not_failed = self.not_failed(&name, series, failed, tick)?.filter(|_| tells_failed);
            // A boundary that only some pods have says nothing about the others.
            if shapes.values().all(|shape| shape.contains(le)) {
                boundaries.push(Boundary { le: le.0, fast, fast_and_not_failed });
            }
        }
        Ok(HistogramReading {
            total,
            boundaries,
            needs_failed: failed.is_some() && !tells_failed && !series.is_empty(),
            native: false,
        })
    }
}

/// `latency`: how many of `n` requests were slower than `limit` (in the histogram's unit) or
/// failed. Where the buckets carry the labels of the failed requests, k = n − (fast and not
/// failed). Where they don't, `failed` is their own counter, and how many of the failed were slow
/// as well is not known: a breach counts the certain ones, max(slow, failed), a proof all that
/// could be, min(n, slow + failed), and the note says so.
#[must_use]
pub fn latency(histogram: &HistogramReading, limit: f64, failed: Option<&Reading>) -> Latency {
    let tolerance = limit.abs() * 1e-9;
    let above = histogram.boundaries.iter().find(|boundary| boundary.le >= limit - tolerance);
    let below = histogram.boundaries.iter().rev().find(|boundary| boundary.le <= limit + tolerance);
    let total = &histogram.total;
    let none = |where_: &str| {
        let checked = conclude(total, total.total(), 0.0, total.total());
        match checked {
            Measured::NoData(_) | Measured::Error(_) => checked,
            _ => Measured::NoData(format!(
                "{} has no boundary at or {where_} {limit}; add one to the histogram, or choose a limit that is a boundary",
                total.counter
            )),
        }
    };
    if histogram.needs_failed && failed.is_none() {
        let error = Measured::Error(format!(
            "{} does not carry the labels of the failed requests, and their own counter was not read",
            total.counter
        ));
        return Latency { breach: error.clone(), breach_le: None, proof: error, proof_le: None, note: None };
    }
    let mut notes = Vec::new();
    let guessed = histogram.needs_failed && failed.is_some();
    if guessed {
        notes.push(format!(
            "{} does not carry the labels of the failed requests: a breach counts the greater of slow and failed, a proof their sum",
            total.counter
        ));
    }
    if let (Some(above), Some(below)) = (above, below)
        && above.le > below.le
    {
        notes.push(format!("no boundary at {limit}: a breach is judged at {}, a proof at {}", above.le, below.le));
    }
    Latency {
        breach: above.map_or_else(|| none("above"), |boundary| slow(total, boundary, failed, f64::max)),
        breach_le: above.map(|boundary| boundary.le),
        proof: below
            .map_or_else(|| none("below"), |boundary| slow(total, boundary, failed, |slow, failed| slow + failed)),
        proof_le: below.map(|boundary| boundary.le),
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

/// Slow or failed requests by one boundary, pod by pod, at the newest time that both counters of
/// the pod have.
fn slow(total: &Reading, boundary: &Boundary, failed: Option<&Reading>, join: fn(f64, f64) -> f64) -> Measured {
    let fast = boundary.fast_and_not_failed.as_ref().unwrap_or(&boundary.fast);
    let mut n = 0.0;
    let mut k = 0.0;
    for (name, pod) in &total.pods {
        let Some(newest) = pod.newest_ms else { continue };
        // The bucket without failed requests may have no series at all; the plain one always has.
        let common =
            boundary.fast.pods.get(name).and_then(|fast| fast.newest_ms).map_or(newest, |fast| fast.min(newest));
        let pod_n = pod.total_at(common);
        let pod_fast = fast.pods.get(name).map_or(0.0, |fast| fast.total_at(common));
        if exceeds(pod_fast, pod_n) {
            return Measured::Error(more_bad_than_all(fast, total, name, pod_fast, pod_n));
        }
        let mut pod_k = (pod_n - pod_fast).max(0.0);
        if let (None, Some(failed)) = (&boundary.fast_and_not_failed, failed) {
            let pod_failed = failed.pods.get(name).map_or(0.0, |failed| failed.total_at(common));
            if exceeds(pod_failed, pod_n) {
                return Measured::Error(more_bad_than_all(failed, total, name, pod_failed, pod_n));
            }
            pod_k = join(pod_k, pod_failed).min(pod_n);
        }
        n += pod_n;
        k += pod_k;
    }
    conclude(total, n, k, n)
}

/// A boundary, ordered; never NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Le(f64);

impl Le {
    const INFINITE: Self = Self(f64::INFINITY);

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if matches!(text, "+Inf" | "Inf" | "inf" | "+inf") {
            return Some(Self::INFINITE);
        }
        let value: f64 = text.parse().ok()?;
        // -0 and 0 are one boundary.
        value.is_finite().then_some(Self(value + 0.0))
    }
}

impl Eq for Le {}

impl PartialOrd for Le {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Le {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl std::fmt::Display for Le {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_infinite() { f.write_str("+Inf") } else { write!(f, "{}", self.0) }
    }
}
