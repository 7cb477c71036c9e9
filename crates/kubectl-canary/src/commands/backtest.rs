//! `backtest`: a manifest's releases over the past of a Prometheus, decided by the operator's own code, as if a healthy
//! one had begun at every hour. It asks the Prometheus and no cluster, and writes nothing.

use std::fmt::Write as _;

use canary_metrics::MetricSource;
use canary_sim::backtest::{Options, Summary, backtest};
use canary_sim::{SimError, chart};
use jiff::Timestamp;

use super::Played;
use super::simulate::{ends, faults, threads};
use crate::manifest::{self, Manifest};
use crate::output::{Output, Paint, Tone, say};
use crate::{Error, Exit, args, clean, store};

/// Releases that are listed in text; all of them are in JSON and YAML.
const LISTED: usize = 20;

/// What there is to say of the past of one CanaryRelease.
pub type Report = Played<Summary>;

/// Runs `backtest`.
///
/// # Errors
/// Where the file cannot be read or has no CanaryRelease, or the metrics cannot be had or counted.
pub async fn run(what: &args::Backtest, namespace: Option<&str>, output: &Output) -> Result<Exit, Error> {
    let manifests = manifest::read(&what.file)?;
    let source = store::prometheus(&what.prometheus, &what.access)?;
    let mut reports = Vec::new();
    for manifest in &manifests {
        reports.push(report(manifest, what, namespace, &source, Timestamp::now(), output.terminal).await?);
    }
    output
        .answer(&reports, |paint| reports.iter().map(|report| render(report, paint)).collect::<Vec<_>>().join("\n"))?;
    let sound = reports.iter().all(|report| report.faults_of_spec.is_empty());
    Ok(if sound { Exit::Done } else { Exit::Wrong })
}

/// Reads a manifest's past and plays its releases over it.
///
/// # Errors
/// Where the metrics cannot be had or counted.
pub async fn report(
    manifest: &Manifest,
    what: &args::Backtest,
    namespace: Option<&str>,
    source: &dyn MetricSource,
    now: Timestamp,
    tell: bool,
) -> Result<Report, Error> {
    let namespace = manifest.namespace.as_deref().or(namespace).unwrap_or("default");
    let mut report = Report {
        name: manifest.name.clone(),
        namespace: namespace.to_owned(),
        faults_of_spec: Vec::new(),
        summary: None,
    };
    let spec = match &manifest.spec {
        Ok(spec) => spec,
        Err(fault) => {
            report.faults_of_spec.push(fault.clone());
            return Ok(report);
        }
    };
    report.faults_of_spec = canary_core::plan::faults(spec, namespace, true);
    if !spec.traffic.requests.by.is_pod() {
        let why = "spec.traffic.requests: counted by Service no pods can stand for the canary; a backtest needs a counter by Pod";
        report.faults_of_spec.push(why.to_owned());
    }
    if !report.faults_of_spec.is_empty() {
        return Ok(report);
    }
    let span = store::Span::of(spec, now, what.since.0.std());
    let mut told = 0;
    let past = store::read(source, spec, namespace, &span, |percent| {
        if tell && percent >= told {
            say(&format!("read {percent}% of the past of {namespace}/{}", manifest.name));
            told = percent.saturating_add(10);
        }
    });
    let past = past.await?;
    store::counted(&past, spec, namespace, what.since, &what.access)?;
    let options = Options { every: what.every.std(), seed: what.seed, threads: threads() };
    match backtest(spec, &past, &options) {
        Ok(summary) => report.summary = Some(summary),
        Err(SimError::Past(why)) => return Err(Error::Simulation(why)),
        Err(error) => report.faults_of_spec = faults(error)?,
    }
    Ok(report)
}

/// The report as text.
#[must_use]
pub fn render(report: &Report, paint: Paint) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", paint.paint(Tone::Title, &format!("CanaryRelease {}", report.title())));
    for fault in &report.faults_of_spec {
        let _ = writeln!(text, "  {} {}", paint.paint(Tone::Bad, "wrong:"), clean::text(fault));
    }
    if let Some(summary) = &report.summary {
        told(&mut text, summary, paint);
    }
    text
}

fn told(text: &mut String, summary: &Summary, paint: Paint) {
    let every = canary_api::Duration::from_secs(summary.every_seconds);
    let _ = writeln!(
        text,
        "  {} releases, one every {every}, from {} to {}\n  {} pods, {} requests/s on average, samples for {} of the time",
        summary.runs,
        summary.from,
        summary.to,
        summary.pods,
        canary_core::gates::trimmed(summary.requests_per_second),
        chart::per_cent(summary.coverage)
    );
    let method = summary.method;
    let _ = writeln!(
        text,
        "  the canary: whole pods in {} stages, a random part of all requests in {}",
        method.stages_of_whole_pods, method.stages_thinned
    );
    if !summary.not_replayed.is_empty() {
        let gates = clean::text(&summary.not_replayed.join(", "));
        let _ = writeln!(text, "  {} not replayed: {gates}", paint.paint(Tone::Doubt, "!"));
    }
    let _ = writeln!(text, "\n  would have been reverted  {}", chart::part(&summary.reverted, summary.runs));
    let _ = writeln!(text, "  would have been paused    {}", chart::part(&summary.paused, summary.runs));
    let _ = writeln!(text, "\n{}\n{}", paint.paint(Tone::Title, "hour by hour (UTC)"), chart::calendar(summary));
    text.push_str(&ends(&summary.ends.rolled_back, "REVERTED AT", "BY", Tone::Bad, paint));
    text.push_str(&ends(&summary.ends.paused, "PAUSED AT", "REASON", Tone::Doubt, paint));
    let not_promoted = || summary.releases.iter().filter(|release| release.outcome != "Promoted");
    for release in not_promoted().take(LISTED) {
        let place = release.place.map(|place| format!(" at {place}")).unwrap_or_default();
        let by = release.by.as_deref().map(|by| format!(": {by}")).unwrap_or_default();
        let after = chart::time(release.after_seconds as f64);
        let _ = writeln!(text, "  {}  {} after {after}{place}{}", release.began, release.outcome, clean::text(&by));
    }
    let more = not_promoted().count().saturating_sub(LISTED);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more: -o json lists all");
    }
}

#[cfg(test)]
#[path = "backtest_tests.rs"]
pub(crate) mod tests;
