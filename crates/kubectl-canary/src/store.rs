//! The past of a metrics store, read chunk by chunk and counted at once, so that samples are kept of one chunk only. A
//! chunk that the store finds too large is asked for in halves. It judges nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use canary_api::CanaryReleaseSpec;
use canary_counters::{LabelNames, Scope, Series};
use canary_metrics::{FetchError, MetricSource, Problem, Prometheus, ProviderConfig};
use canary_sim::past::{Counting, Past, Question, countable, questions};
use futures::future::join_all;
use jiff::Timestamp;

use crate::Error;
use crate::args::{Access, Days};

/// Asked for at once, where the store does not mind.
const CHUNK_MS: i64 = 3_600_000;
/// What was sampled just now may not be stored yet.
const LATE_MS: i64 = 30_000;

/// From when to when, in whole ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    from_ms: i64,
    to_ms: i64,
    tick_ms: i64,
}

impl Span {
    /// So long up to now, in ticks of the spec's interval.
    #[must_use]
    pub fn of(spec: &CanaryReleaseSpec, now: Timestamp, long: Duration) -> Self {
        let tick_ms = i64::try_from(spec.interval.millis()).unwrap_or(i64::MAX).max(1);
        let ticks = |millis: i64| millis.checked_div(tick_ms).unwrap_or(0).saturating_mul(tick_ms);
        let to_ms = ticks(now.as_millisecond().saturating_sub(LATE_MS));
        let long = ticks(i64::try_from(long.as_millis()).unwrap_or(i64::MAX)).max(tick_ms);
        Self { from_ms: to_ms.saturating_sub(long), to_ms, tick_ms }
    }

    /// From one time to another, in milliseconds since the Unix epoch; a chunk has at least a second.
    #[must_use]
    pub const fn between(from_ms: i64, to_ms: i64) -> Self {
        Self { from_ms, to_ms, tick_ms: 1000 }
    }
}

/// A Prometheus, asked questions that may be large.
///
/// # Errors
/// Where it can't be asked in this way.
pub fn prometheus(url: &str, access: &Access) -> Result<Prometheus, Error> {
    // An error means that a provider is there already, which is what we want.
    let _present = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = ProviderConfig {
        name: "the Prometheus".to_owned(),
        url: url.to_owned(),
        bearer_token_file: access.bearer_token_file.clone(),
        headers: BTreeMap::new(),
        ca_file: access.ca_file.clone(),
        timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(5),
        labels: LabelNames {
            namespace: access.namespace_label.clone(),
            pod: access.pod_label.clone(),
            ..LabelNames::default()
        },
        scrape_interval: None,
        max_body_bytes: 64 * 1024 * 1024,
        max_concurrent: 2,
        require_pods: true,
    };
    Prometheus::new(config).map_err(|error| Error::Metrics(error.to_string()))
}

/// Whether anything was counted.
///
/// # Errors
/// Where there were no requests, with where to look.
pub fn counted(
    past: &Past,
    spec: &CanaryReleaseSpec,
    namespace: &str,
    since: Days,
    access: &Access,
) -> Result<(), Error> {
    if past.requests() > 0.0 {
        return Ok(());
    }
    Err(Error::Metrics(format!(
        "{} counted no requests of the pods of Deployment {} in namespace {namespace} since {}; see whether the counter has the labels {} and {}, and give --namespace-label and --pod-label where they are called otherwise",
        spec.traffic.requests.counter,
        spec.target.name,
        since.text(),
        access.namespace_label,
        access.pod_label
    )))
}

/// Reads and counts the past of a spec's counters, by the pods that its target has had. `tell` hears from time to time
/// how much is read, in per cent.
///
/// # Errors
/// Where the store does not answer, or what it answers can't be counted.
pub async fn read(
    source: &dyn MetricSource,
    spec: &CanaryReleaseSpec,
    namespace: &str,
    span: &Span,
    mut tell: impl FnMut(i64),
) -> Result<Past, Error> {
    let (countable, _) = countable(spec);
    let scope = Scope::pods_of(namespace, &spec.target.name, source.labels());
    let scope = scope.map_err(|error| Error::Metrics(error.to_string()))?;
    let questions = questions(&countable);
    let scrape_ms = source.scrape_interval().and_then(|interval| i64::try_from(interval.as_millis()).ok());
    let mut counting = Counting::new(&countable, span.from_ms, &source.labels().pod, scrape_ms);
    let whole_ticks = |millis: i64| millis.checked_div(span.tick_ms).unwrap_or(1).max(1).saturating_mul(span.tick_ms);
    let (mut at, mut chunk) = (span.from_ms, whole_ticks(CHUNK_MS));
    let mut silent: Vec<&Question> = questions.iter().collect();
    while at < span.to_ms {
        let to = at.saturating_add(chunk).min(span.to_ms);
        match ask(source, &questions, &scope, at, to).await {
            Ok(answers) => {
                silent.retain(|question| answers.get(&question.key).is_none_or(Vec::is_empty));
                counting.absorb(&answers, to).map_err(|error| Error::Simulation(error.to_string()))?;
                at = to;
                let done = at.saturating_sub(span.from_ms).saturating_mul(100);
                tell(done.checked_div(span.to_ms.saturating_sub(span.from_ms)).unwrap_or(100));
            }
            Err(error) if too_much(&error) && chunk > span.tick_ms => chunk = whole_ticks(chunk / 2),
            Err(error) => return Err(Error::Metrics(error.to_string())),
        }
    }
    // Without requests there is nothing to say of buckets.
    let served = !silent.iter().any(|question| question.key == spec.traffic.requests.counter);
    match silent.iter().find(|question| served && question.selector.metric().ends_with("_bucket")) {
        Some(question) => Err(Error::Metrics(format!(
            "{} has no series in this past: correct the gate's histogram, or leave the gate out of the file where it is a native histogram, which a backtest does not read",
            question.selector
        ))),
        None => Ok(counting.finish()),
    }
}

/// All samples of a span, by question and series; none where they are more than there is `room` for, which shrinks.
///
/// # Errors
/// Where the store does not answer.
pub async fn samples(
    source: &dyn MetricSource,
    questions: &[Question],
    scope: &Scope,
    span: &Span,
    room: &mut usize,
) -> Result<Option<BTreeMap<String, Vec<Series>>>, Error> {
    let mut found: BTreeMap<String, BTreeMap<BTreeMap<String, String>, Series>> = BTreeMap::new();
    let (mut at, mut chunk) = (span.from_ms, CHUNK_MS);
    while at < span.to_ms {
        let to = at.saturating_add(chunk).min(span.to_ms);
        let answers = match ask(source, questions, scope, at, to).await {
            Ok(answers) => answers,
            Err(error) if too_much(&error) && chunk > span.tick_ms => {
                chunk = (chunk / 2).max(span.tick_ms);
                continue;
            }
            Err(error) => return Err(Error::Metrics(error.to_string())),
        };
        for (key, series) in answers {
            let known = found.entry(key).or_default();
            for one in series {
                let Some(left) = room.checked_sub(one.samples.len()) else { return Ok(None) };
                *room = left;
                match known.get_mut(&one.labels) {
                    Some(before) => before.samples.extend(one.samples),
                    None => drop(known.insert(one.labels.clone(), one)),
                }
            }
        }
        at = to;
    }
    Ok(Some(found.into_iter().map(|(key, series)| (key, series.into_values().collect())).collect()))
}

/// All samples after one time, up to and with another, of every question.
async fn ask(
    source: &dyn MetricSource,
    questions: &[Question],
    scope: &Scope,
    from_ms: i64,
    to_ms: i64,
) -> Result<BTreeMap<String, Vec<Series>>, FetchError> {
    let long = Duration::from_millis(u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0));
    let at = Timestamp::from_millisecond(to_ms).unwrap_or(Timestamp::MAX);
    let asked = questions.iter().map(async |question| {
        let mut series = source.counters(&question.selector, scope, long, at).await?;
        for one in &mut series {
            one.samples.retain(|sample| sample.at_ms > from_ms && sample.at_ms <= to_ms);
        }
        series.retain(|one| !one.samples.is_empty());
        Ok((question.key.clone(), series))
    });
    join_all(asked).await.into_iter().collect()
}

/// Whether less may be answered.
fn too_much(error: &FetchError) -> bool {
    match &error.problem {
        Problem::TooLarge(_) | Problem::Timeout(_) | Problem::BrokenOff(_) => true,
        // As Prometheus says that a query would load more samples than it may.
        Problem::Rejected { message, .. } | Problem::Unavailable { message, .. } => {
            message.contains("too many samples")
        }
        _ => false,
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
pub(crate) mod tests;
