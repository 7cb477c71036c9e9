//! The counters of a release's gates as a Prometheus has them, sample by sample, as files of the evidence folder. The
//! record keeps a few points of each gate; here is all of it, from before the start until after the end, of the
//! pods of both versions. It takes no differences and judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use canary_api::{CanaryReleaseSpec, Gate, ReleaseRecord, ReleaseRecordStatus, names};
use canary_counters::{Scope, Series};
use canary_metrics::MetricSource;
use canary_report::evidence::File;
use canary_sim::past::{countable, questions};
use jiff::Timestamp;

use crate::cluster::Cluster;
use crate::store::{self, Span};
use crate::{Error, clean};

/// How long before the start and after the end is exported too: stable alone, and what followed.
const BEFORE_MS: i64 = 600_000;
const AFTER_MS: i64 = 300_000;
/// The longest time that is exported: a week.
const MOST_MS: i64 = 7 * 24 * 3_600_000;
/// Samples of a release that are kept.
const MOST_SAMPLES: usize = 2_000_000;
/// Bytes of a file.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// The files of a release's gates. What the record's gates are to count stands in the CanaryRelease, as it is now.
///
/// # Errors
/// Where the Prometheus does not answer: a folder without what it has would look complete.
pub async fn gather(
    record: &ReleaseRecord,
    cluster: Option<&Cluster>,
    source: &dyn MetricSource,
    now: Timestamp,
) -> Result<Vec<File>, Error> {
    let Some(status) = &record.status else { return Ok(Vec::new()) };
    let none = |why: &str| status.gates.iter().map(|gate| missing(&gate.gate, why)).collect();
    let Some(cluster) = cluster else {
        return Ok(none("it was written without a cluster, where the gates' counters are named"));
    };
    let release = match cluster.release(&status.release).await {
        Ok(release) if release.uid == status.release_uid => release,
        Ok(_) => return Ok(none("the CanaryRelease was made anew; what this release's gates counted is not known")),
        Err(error) => return Ok(none(&format!("the CanaryRelease names the counters: {error}"))),
    };
    let Some(spec) = &release.spec else {
        return Ok(none("the CanaryRelease's spec can't be read by this version of the plugin"));
    };
    of(status, spec, &cluster.namespace, source, now).await
}

/// The files of a release's gates by this spec.
///
/// # Errors
/// Where the Prometheus does not answer.
pub async fn of(
    status: &ReleaseRecordStatus,
    spec: &CanaryReleaseSpec,
    namespace: &str,
    source: &dyn MetricSource,
    now: Timestamp,
) -> Result<Vec<File>, Error> {
    let (kept, _) = countable(spec);
    let mut files = Vec::new();
    let Some(span) = span(status, now) else { return Ok(files) };
    let mut room = MOST_SAMPLES;
    for plan in &status.gates {
        let file = match kept.gates.iter().find(|gate| gate.name == plan.gate) {
            Some(gate) => of_gate(gate, spec, &status.target, namespace, source, &span, &mut room).await?,
            None => missing(&plan.gate, why_not(spec, &plan.gate)),
        };
        files.push(file);
    }
    Ok(files)
}

fn why_not(spec: &CanaryReleaseSpec, gate: &str) -> &'static str {
    match spec.gates.iter().find(|one| one.name == gate) {
        None => "the CanaryRelease has no such gate any more",
        Some(gate) if gate.value.is_some() => "it reads a value and has no counters",
        Some(_) => "it is counted by Service, not by the pods of both versions",
    }
}

fn missing(gate: &str, why: &str) -> File {
    file(gate, Err(clean::text(why)))
}

fn file(gate: &str, text: Result<String, String>) -> File {
    let sound = |sign: char| if sign.is_ascii_alphanumeric() || sign == '-' { sign } else { '-' };
    let name: String = gate.chars().map(sound).take(60).collect();
    File {
        name: format!("series_{name}.csv"),
        about: format!(
            "every sample of the counters of gate {} and of the requests, by pod, from 10m before the start to 5m after the end",
            clean::text(gate)
        ),
        text,
        of_rollback: false,
    }
}

/// The release's time, and something at both ends.
fn span(status: &ReleaseRecordStatus, now: Timestamp) -> Option<Span> {
    let from = status.started.as_ref()?.0.as_millisecond().saturating_sub(BEFORE_MS);
    let to = status.ended.as_ref().map_or(i64::MAX, |ended| ended.0.as_millisecond().saturating_add(AFTER_MS));
    let to = to.min(now.as_millisecond()).min(from.saturating_add(MOST_MS));
    (to > from).then(|| Span::between(from, to))
}

/// One gate's file.
async fn of_gate(
    gate: &Gate,
    spec: &CanaryReleaseSpec,
    target: &str,
    namespace: &str,
    source: &dyn MetricSource,
    span: &Span,
    room: &mut usize,
) -> Result<File, Error> {
    let only = CanaryReleaseSpec { gates: vec![gate.clone()], ..spec.clone() };
    let asked = questions(&only);
    let mut text = String::from("time,deployment,pod,series,value\n");
    let head = text.len();
    for deployment in [target.to_owned(), names::canary(target), names::baseline(target)] {
        let Ok(scope) = Scope::pods_of(namespace, &deployment, source.labels()) else {
            return Ok(missing(&gate.name, "the record's target is no name of a Deployment"));
        };
        let Some(found) = store::samples(source, &asked, &scope, span, room).await? else {
            let why = format!("the counters of this release have more than {MOST_SAMPLES} samples");
            return Ok(missing(&gate.name, &why));
        };
        rows(&mut text, &deployment, &found, source);
        if text.len() > MOST_BYTES {
            return Ok(missing(&gate.name, &format!("it would be larger than {MOST_BYTES} bytes")));
        }
    }
    let none = "the Prometheus has no samples of these pods and this time, see --pod-label and --namespace-label";
    Ok(if text.len() == head { missing(&gate.name, none) } else { file(&gate.name, Ok(text)) })
}

/// The samples of one Deployment's pods, series by series.
fn rows(text: &mut String, deployment: &str, found: &BTreeMap<String, Vec<Series>>, source: &dyn MetricSource) {
    let labels = source.labels();
    // A gate's bad ones are among all of them.
    let mut written = BTreeSet::new();
    for series in found.values().flatten() {
        if series.labels.contains_key("__name__") && !written.insert(&series.labels) {
            continue;
        }
        let pod = series.label(&labels.pod);
        let named: Vec<String> = series
            .labels
            .iter()
            .filter(|(name, _)| *name != "__name__" && **name != labels.pod && **name != labels.namespace)
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        let name = format!("{}{{{}}}", series.label("__name__"), named.join(","));
        for sample in &series.samples {
            let at = Timestamp::from_millisecond(sample.at_ms).map(|at| at.to_string()).unwrap_or_default();
            let _ = writeln!(text, "{at},{},{},{},{}", cell(deployment), cell(pod), cell(&name), sample.value);
            if text.len() > MOST_BYTES {
                return;
            }
        }
    }
}

/// A text as a field of CSV that no spreadsheet takes for a formula.
fn cell(text: &str) -> String {
    let text = clean::text(text);
    let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text };
    if text.contains(['"', ',']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
