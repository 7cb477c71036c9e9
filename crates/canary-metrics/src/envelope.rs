//! The JSON of the Prometheus API, field by field, as strictly as its promise: a known result
//! type, numbers as strings, times as numbers, no warnings. Decides what is a well-formed answer;
//! whether a value can be a counter's is decided by the meter.

use std::collections::BTreeMap;

use canary_counters::{Instant, NativeBucket, NativeSample, NativeSeries, Sample, Series};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Problem;

/// A value's time may differ from the one asked about by rounding, not by more.
const SAME_TIME_MS: i64 = 1000;

#[derive(Deserialize)]
struct Envelope<'a> {
    status: String,
    #[serde(borrow, default)]
    data: Option<Data<'a>>,
    #[serde(rename = "errorType", default)]
    error_type: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
    #[serde(default)]
    infos: Option<Vec<String>>,
    /// VictoriaMetrics says so, in place of a warning.
    #[serde(rename = "isPartial", default)]
    is_partial: Option<bool>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "resultType")]
    result_type: String,
    #[serde(borrow)]
    result: &'a RawValue,
}

#[derive(Deserialize)]
struct Row<'a> {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    value: Option<Point>,
    #[serde(default)]
    values: Option<Vec<Point>>,
    #[serde(borrow, default)]
    histogram: Option<&'a RawValue>,
    #[serde(borrow, default)]
    histograms: Option<&'a RawValue>,
}

/// `[1700000000.123, {"count": "42", "sum": "3.4", "buckets": [[0, "0.25", "0.5", "12"]]}]`
#[derive(Deserialize)]
struct HistogramPoint(f64, HistogramValue);

#[derive(Deserialize)]
struct HistogramValue {
    count: String,
    /// Empty ones are left out; the first field says which boundaries belong to it.
    #[serde(default)]
    buckets: Vec<(u8, String, String, String)>,
}

impl HistogramPoint {
    fn read(&self) -> Result<NativeSample, Problem> {
        let Self(seconds, value) = self;
        let bucket = |(_, lower, upper, count): &(u8, String, String, String)| {
            Ok(NativeBucket { lower: number(lower)?, upper: number(upper)?, count: number(count)? })
        };
        let buckets = value.buckets.iter().map(bucket).collect::<Result<Vec<_>, Problem>>()?;
        Ok(NativeSample { at_ms: time(*seconds)?, count: number(&value.count)?, buckets })
    }
}

/// `[1700000000.123, "42"]`
#[derive(Deserialize)]
struct Point(f64, String);

impl Point {
    fn read(&self) -> Result<Sample, Problem> {
        let Self(seconds, text) = self;
        Ok(Sample { at_ms: time(*seconds)?, value: number(text)? })
    }
}

fn time(seconds: f64) -> Result<i64, Problem> {
    let millis = (seconds * 1000.0).round();
    // The year 10000 in milliseconds; within it the conversion is exact.
    if !(millis.is_finite() && (0.0..253_402_300_800_000.0).contains(&millis)) {
        return Err(Problem::Malformed(format!("{seconds} is not a time")));
    }
    #[allow(clippy::cast_possible_truncation)]
    let at_ms = millis as i64;
    Ok(at_ms)
}

/// Numbers as Prometheus writes them; NaN and infinities are numbers here.
fn number(text: &str) -> Result<f64, Problem> {
    match text {
        "NaN" => Some(f64::NAN),
        "Inf" | "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ if text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| Problem::Malformed(format!("{:?} is not a number", shorten(text))))
}

/// The error that the server states, where the body is its own kind of error.
pub(crate) fn stated_error(body: &[u8]) -> Option<(String, String)> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    (envelope.status == "error").then(|| {
        (envelope.error_type.unwrap_or_else(|| "unknown".to_owned()), shorten(&envelope.error.unwrap_or_default()))
    })
}

/// Opens the envelope.
fn open(body: &[u8]) -> Result<(Envelope<'_>, String), Problem> {
    let envelope: Envelope<'_> =
        serde_json::from_slice(body).map_err(|error| Problem::Malformed(reason(body, &error)))?;
    match envelope.status.as_str() {
        "success" => {}
        "error" => {
            let kind = envelope.error_type.unwrap_or_else(|| "unknown".to_owned());
            return Err(stated(&kind, shorten(&envelope.error.unwrap_or_default()), 200));
        }
        other => return Err(Problem::Malformed(format!("unknown status {:?}", shorten(other)))),
    }
    if envelope.error.is_some() || envelope.error_type.is_some() {
        return Err(Problem::Malformed("it claims success and states an error".to_owned()));
    }
    if envelope.is_partial == Some(true) {
        return Err(Problem::Partial);
    }
    if let Some(warning) = envelope.warnings.iter().flatten().next() {
        return Err(Problem::Warning(shorten(warning)));
    }
    let result_type = match &envelope.data {
        Some(data) => data.result_type.clone(),
        None => return Err(Problem::Malformed("it has no data".to_owned())),
    };
    Ok((envelope, result_type))
}

/// A server's own error, by its type.
pub(crate) fn stated(kind: &str, message: String, status: u16) -> Problem {
    match kind {
        "timeout" | "canceled" | "unavailable" | "internal" | "too_many_requests" => {
            Problem::Unavailable { status, message: format!("{kind}: {message}") }
        }
        _ => Problem::Rejected { kind: shorten(kind), message },
    }
}

/// Raw samples of a range of `[from, at]`.
pub(crate) fn matrix(body: &[u8], from_ms: i64, at_ms: i64) -> Result<Vec<Series>, Problem> {
    open_matrix(body)?.into_iter().map(|row| plain(row, from_ms, at_ms)).collect()
}

/// The same of native histograms; rows of plain numbers are none.
pub(crate) fn natives(body: &[u8], from_ms: i64, at_ms: i64) -> Result<Vec<NativeSeries>, Problem> {
    let mut all = Vec::new();
    for row in open_matrix(body)? {
        let Some(raw) = row.histograms else {
            plain(row, from_ms, at_ms)?;
            continue;
        };
        if row.values.is_some_and(|values| !values.is_empty()) {
            let why = format!("{} is partly a native histogram and partly not", name(&row.metric));
            return Err(Problem::Malformed(why));
        }
        let points: Vec<HistogramPoint> =
            serde_json::from_str(raw.get()).map_err(|error| Problem::Malformed(error.to_string()))?;
        let samples = points.iter().map(HistogramPoint::read).collect::<Result<Vec<_>, _>>()?;
        if samples.is_empty() {
            return Err(Problem::Malformed(format!("{} has no samples", name(&row.metric))));
        }
        samples.iter().try_for_each(|sample| in_time(sample.at_ms, from_ms, at_ms))?;
        all.push(NativeSeries { labels: row.metric, samples });
    }
    Ok(all)
}

fn open_matrix(body: &[u8]) -> Result<Vec<Row<'_>>, Problem> {
    let (envelope, result_type) = open(body)?;
    if let Some(info) = envelope.infos.iter().flatten().next() {
        return Err(Problem::Warning(shorten(info)));
    }
    if result_type != "matrix" {
        return Err(Problem::WrongType { found: article(&result_type), expected: "a matrix" });
    }
    rows(&envelope)
}

/// A row of plain numbers.
fn plain(row: Row<'_>, from_ms: i64, at_ms: i64) -> Result<Series, Problem> {
    if row.histogram.is_some() || row.histograms.is_some() {
        return Err(Problem::NativeHistogram(name(&row.metric)));
    }
    if row.value.is_some() {
        return Err(Problem::Malformed("a matrix with a single value".to_owned()));
    }
    let Some(points) = row.values.filter(|points| !points.is_empty()) else {
        return Err(Problem::Malformed(format!("{} has no samples", name(&row.metric))));
    };
    let samples = points.iter().map(Point::read).collect::<Result<Vec<_>, _>>()?;
    samples.iter().try_for_each(|sample| in_time(sample.at_ms, from_ms, at_ms))?;
    Ok(Series { labels: row.metric, samples })
}

fn in_time(sample_ms: i64, from_ms: i64, at_ms: i64) -> Result<(), Problem> {
    let off = from_ms.saturating_sub(sample_ms).max(sample_ms.saturating_sub(at_ms));
    if off > SAME_TIME_MS { Err(Problem::WrongTime(off)) } else { Ok(()) }
}

/// One number, or series with one number each.
pub(crate) fn instant(body: &[u8], at_ms: i64) -> Result<Instant, Problem> {
    let (envelope, result_type) = open(body)?;
    // Some infos only doubt a metric's name; any other may mean that data was left out.
    if let Some(info) = envelope.infos.iter().flatten().find(|info| !info.contains("metric might not be a counter")) {
        return Err(Problem::Warning(shorten(info)));
    }
    let same_time = |sample: &Sample| {
        let off = sample.at_ms.saturating_sub(at_ms);
        if off.saturating_abs() > SAME_TIME_MS { Err(Problem::WrongTime(off)) } else { Ok(()) }
    };
    match result_type.as_str() {
        "scalar" => {
            let raw = result(&envelope)?;
            let point: Point =
                serde_json::from_str(raw.get()).map_err(|error| Problem::Malformed(error.to_string()))?;
            let sample = point.read()?;
            same_time(&sample)?;
            Ok(Instant::Scalar(sample.value))
        }
        "vector" => {
            let mut all = Vec::new();
            for row in rows(&envelope)? {
                if row.histogram.is_some() || row.histograms.is_some() {
                    return Err(Problem::NativeHistogram(name(&row.metric)));
                }
                let (Some(point), None) = (row.value, row.values) else {
                    return Err(Problem::Malformed(format!("{} has not exactly one value", name(&row.metric))));
                };
                let sample = point.read()?;
                same_time(&sample)?;
                if all.iter().any(|(labels, _)| *labels == row.metric) {
                    return Err(Problem::Malformed(format!("{} occurs twice", name(&row.metric))));
                }
                all.push((row.metric, sample.value));
            }
            Ok(Instant::Vector(all))
        }
        other => Err(Problem::WrongType { found: article(other), expected: "a number for each pod, or one" }),
    }
}

fn result<'a>(envelope: &Envelope<'a>) -> Result<&'a RawValue, Problem> {
    envelope.data.as_ref().map(|data| data.result).ok_or_else(|| Problem::Malformed("it has no data".to_owned()))
}

fn rows<'a>(envelope: &Envelope<'a>) -> Result<Vec<Row<'a>>, Problem> {
    serde_json::from_str(result(envelope)?.get()).map_err(|error| Problem::Malformed(error.to_string()))
}

fn name(labels: &BTreeMap<String, String>) -> String {
    shorten(&Series { labels: labels.clone(), samples: Vec::new() }.describe())
}

fn article(result_type: &str) -> String {
    format!("a {}", shorten(result_type))
}

fn reason(body: &[u8], error: &serde_json::Error) -> String {
    match body.iter().find(|b| !b.is_ascii_whitespace()) {
        None => "it is empty".to_owned(),
        Some(b'<') => "it is a web page, not JSON; is the address right, or is a login in between?".to_owned(),
        Some(_) => error.to_string(),
    }
}

/// At most 200 characters on one line, for messages.
pub(crate) fn shorten(text: &str) -> String {
    let mut out: String = text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(200).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const AT: i64 = 1_700_000_000_000;

    /// JSON that could be a part of an answer, or of none.
    fn odd() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            Just(json!(1_700_000_000)),
            "[0-9.eE+-]{0,6}|NaN|[+]Inf|\\PC{0,6}".prop_map(Value::from),
        ];
        let key = prop::sample::select(vec![
            "status",
            "data",
            "resultType",
            "result",
            "metric",
            "value",
            "values",
            "histogram",
            "histograms",
            "count",
            "buckets",
            "warnings",
            "infos",
            "error",
            "errorType",
            "isPartial",
            "pod",
        ]);
        leaf.prop_recursive(5, 40, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..5)
                    .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ]
        })
    }

    fn answer(result_type: &str, result: &Value) -> Vec<u8> {
        json!({"status": "success", "data": {"resultType": result_type, "result": result}}).to_string().into_bytes()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn no_json_makes_an_answer_panic_or_lie_about_its_time(
            whole in odd(), kind in prop::sample::select(vec!["matrix", "vector", "scalar", "string"]), inside in any::<bool>()
        ) {
            let body = if inside { answer(kind, &whole) } else { whole.to_string().into_bytes() };
            let (from, to) = (AT - 60_000, AT);
            for series in matrix(&body, from, to).unwrap_or_default() {
                prop_assert!(series.samples.iter().all(|sample| (from - 1000..=to + 1000).contains(&sample.at_ms)));
            }
            let _ = (natives(&body, from, to), instant(&body, AT), stated_error(&body));
        }

        #[test]
        fn no_bytes_make_an_answer_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), cut in 0_usize..120) {
            let mut body = answer("matrix", &json!([{"metric": {"pod": "a"}, "values": [[AT / 1000, "1"]]}]));
            body.truncate(cut);
            body.extend(bytes);
            let _ = (matrix(&body, 0, AT), natives(&body, 0, AT), instant(&body, AT), stated_error(&body));
        }

        #[test]
        fn what_prometheus_writes_is_read_to_the_bit(
            rows in prop::collection::btree_map("[a-z]{1,4}", prop::collection::vec(any::<f64>(), 1..4), 0..4)
        ) {
            let text = |value: f64| match value {
                value if value.is_nan() => "NaN".to_owned(),
                value if value == f64::INFINITY => "+Inf".to_owned(),
                value if value == f64::NEG_INFINITY => "-Inf".to_owned(),
                value => value.to_string(),
            };
            let row = |(pod, values): (&String, &Vec<f64>)| {
                let points: Vec<Value> = values.iter().map(|value| json!([AT / 1000, text(*value)])).collect();
                json!({"metric": {"pod": pod}, "values": points})
            };
            let body = answer("matrix", &rows.iter().map(row).collect());
            let read = matrix(&body, AT - 1000, AT).unwrap();
            prop_assert_eq!(read.len(), rows.len());
            for (series, values) in read.iter().zip(rows.values()) {
                for (sample, value) in series.samples.iter().zip(values) {
                    prop_assert!(sample.value == *value || (sample.value.is_nan() && value.is_nan()));
                }
                prop_assert_eq!(series.samples.len(), values.len());
            }
        }
    }
}
