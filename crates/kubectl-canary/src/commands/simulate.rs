//! `simulate`: many releases of a manifest in virtual time, on sampled traffic, decided by the operator's own code. It
//! asks nothing of a cluster.

use std::fmt::Write as _;
use std::num::NonZeroUsize;

use canary_sim::simulate::{Calls, Options, Summary, simulate};
use canary_sim::tally::Ended;
use canary_sim::{SimError, chart, svg};

use super::Played;
use crate::args;
use crate::manifest::{self, Manifest};
use crate::output::{Output, Paint, Tone};
use crate::table::Table;
use crate::{Error, Exit, clean};

/// What there is to say of the releases of one CanaryRelease.
pub type Report = Played<Summary>;

/// Runs `simulate`.
///
/// # Errors
/// Where the file cannot be read or has no CanaryRelease, a level fits no gate of it, or the picture cannot be written.
pub fn run(what: &args::Simulate, namespace: Option<&str>, output: &Output) -> Result<Exit, Error> {
    let manifests = manifest::read(&what.file)?;
    if what.svg.is_some() && manifests.len() > 1 {
        let names: Vec<&str> = manifests.iter().map(|manifest| manifest.name.as_str()).collect();
        return Err(Error::Usage(format!(
            "--svg takes the picture of one CanaryRelease, and {} has several: {}",
            what.file,
            names.join(", ")
        )));
    }
    let reports: Result<Vec<Report>, Error> =
        manifests.iter().map(|manifest| report(manifest, what, namespace)).collect();
    let reports = reports?;
    if let Some((file, report, summary)) = picture(what, &reports) {
        std::fs::write(file, svg::svg(&report.title(), summary))
            .map_err(|error| Error::Picture { file: file.display().to_string(), why: error })?;
    }
    output
        .answer(&reports, |paint| reports.iter().map(|report| render(report, paint)).collect::<Vec<_>>().join("\n"))?;
    let sound = reports.iter().all(|report| report.faults_of_spec.is_empty());
    Ok(if sound { Exit::Done } else { Exit::Wrong })
}

fn picture<'a>(
    what: &'a args::Simulate,
    reports: &'a [Report],
) -> Option<(&'a std::path::Path, &'a Report, &'a Summary)> {
    let report = reports.first()?;
    Some((what.svg.as_deref()?, report, report.summary.as_ref()?))
}

/// Simulates a manifest's releases.
///
/// # Errors
/// A level that no gate of it can have.
pub fn report(manifest: &Manifest, what: &args::Simulate, namespace: Option<&str>) -> Result<Report, Error> {
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
    let options = Options {
        runs: what.runs,
        seed: what.seed,
        rps: what.rps,
        healthy: what.healthy.clone(),
        faults: what.fault.clone(),
        threads: threads(),
    };
    match simulate(spec, &options) {
        Ok(summary) => report.summary = Some(summary),
        Err(error) => report.faults_of_spec = faults(error)?,
    }
    Ok(report)
}

/// As many as there are processors.
pub(super) fn threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// The faults of a spec that can't be played; any other error is the command's.
pub(super) fn faults(error: SimError) -> Result<Vec<String>, Error> {
    match error {
        SimError::Spec(faults) => Ok(faults),
        SimError::NotArmed(why) => Ok(vec![why]),
        SimError::Level(why) => Err(Error::Usage(why)),
        other @ (SimError::Cluster(_) | SimError::Past(_)) => Err(Error::Simulation(other.to_string())),
    }
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
    let healthy: Vec<String> = summary.healthy.iter().map(|gate| format!("{} {}", gate.gate, gate.healthy)).collect();
    let faults = if summary.faults.is_empty() { "none".to_owned() } else { summary.faults.join(", ") };
    let _ = writeln!(
        text,
        "  {} releases at {} requests/s, seed {}\n  healthy: {}\n  fault of the candidate: {faults}",
        summary.runs,
        summary.requests_per_second,
        summary.seed,
        clean::text(&healthy.join(", "))
    );
    let _ = writeln!(text, "\n  reverted  {}", chart::part(&summary.reverted, summary.runs));
    if !summary.faults.is_empty() && summary.reverted_without_fault.runs > 0 {
        let early = chart::part(&summary.reverted_without_fault, summary.runs);
        let _ = writeln!(text, "            of these before the fault had traffic: {early}");
    }
    if let Some(calls) = &summary.calls {
        let _ = writeln!(text, "  called    {}", called(calls));
    }
    let _ = writeln!(text, "\n{}\n{}", paint.paint(Tone::Title, "where they end"), chart::stages(summary));
    text.push_str(&ends(&summary.ends.rolled_back, "REVERTED AT", "BY", Tone::Bad, paint));
    text.push_str(&ends(&summary.ends.paused, "PAUSED AT", "REASON", Tone::Doubt, paint));
    if summary.ends.unfinished > 0 {
        let _ = writeln!(text, "  {} releases were not over in twice their time", summary.ends.unfinished);
    }
    if summary.reverted.runs > 0 {
        let title = paint.paint(Tone::Title, "reverted, of all releases, over time");
        let _ = writeln!(text, "{title}\n{}", chart::reverted_over_time(summary));
    }
}

/// How soon the fault was called, in a sentence.
fn called(calls: &Calls) -> String {
    if calls.runs == 0 {
        return "never: no release came to the fault".to_owned();
    }
    let within = |seconds: Option<f64>| seconds.map_or_else(|| "never".to_owned(), chart::time);
    format!(
        "{} of {} after the fault had traffic: within {} in 50 of 100, {} in 80 of 100",
        calls.called,
        calls.runs,
        within(calls.median_seconds),
        within(calls.eighty_percent_seconds)
    )
}

/// A table of places and reasons; nothing where there is none.
pub(super) fn ends(ended: &[Ended], place: &'static str, by: &'static str, tone: Tone, paint: Paint) -> String {
    if ended.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[place, by, "RELEASES"]);
    for one in ended {
        let cells = [(Tone::Plain, one.place.to_string()), (tone, clean::text(&one.by))];
        table.row(cells.into_iter().chain([(Tone::Plain, one.runs.to_string())]));
    }
    format!("{}\n", table.render("  ", paint))
}

#[cfg(test)]
#[path = "simulate_tests.rs"]
mod tests;
