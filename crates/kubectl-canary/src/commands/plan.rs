//! `plan`: what each stage of a manifest can detect and prove at the traffic it would get. It asks nothing of a cluster; the
//! traffic is given, or read from a Prometheus.

use canary_api::{CanaryReleaseSpec, Duration, Percent};
use canary_core::know::{self, GateKnowledge, Knows, StageDurations, StageKnowledge, Traffic};
use canary_metrics::MetricSource;
use jiff::Timestamp;
use serde::Serialize;

use crate::args::{self, Events};
use crate::manifest::{self, Manifest};
use crate::output::{Output, Paint, Tone};
use crate::table::Table;
use crate::{Error, Exit, clean, store};

/// What there is to say of one CanaryRelease.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The CanaryRelease's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What is wrong with its spec.
    pub faults: Vec<String>,
    /// The error budget of one gate in one stage; none where no gate takes a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// How many gates share the budget.
    pub gates_with_budget: usize,
    /// In how many stages, the soak being one.
    pub stages_with_budget: usize,
    /// Where a release would go on without knowing.
    pub warnings: Vec<String>,
    /// What each stage can know.
    pub stages: Vec<StageKnowledge>,
    /// The bad share that was asked about, as a fraction of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detect: Option<f64>,
    /// Durations that would suffice.
    pub durations: Vec<StageDurations>,
}

/// Runs `plan`.
///
/// # Errors
/// Where the file cannot be read or has no CanaryRelease, an event rate is for no gate of it, or the traffic cannot be
/// had of the Prometheus.
pub async fn run(plan: &args::Plan, namespace: Option<&str>, output: &Output) -> Result<Exit, Error> {
    let manifests = manifest::read(&plan.file)?;
    known_gates(&manifests, &plan.events_per_minute)?;
    let source = plan.prometheus.as_ref().map(|url| store::prometheus(url, &plan.access)).transpose()?;
    let mut reports = Vec::new();
    for manifest in &manifests {
        let seen = match &source {
            Some(source) => lately(manifest, plan, namespace, source, Timestamp::now()).await?,
            None => Traffic::of(plan.rps.unwrap_or_default()),
        };
        reports.push(report(manifest, plan, namespace, seen));
    }
    output
        .answer(&reports, |paint| reports.iter().map(|report| render(report, paint)).collect::<Vec<_>>().join("\n"))?;
    let sound = reports.iter().all(|report| report.faults.is_empty());
    Ok(if sound { Exit::Done } else { Exit::Wrong })
}

/// A rate for a gate that is nowhere is a slip of the pen.
fn known_gates(manifests: &[Manifest], events: &[Events]) -> Result<(), Error> {
    let specs: Vec<&CanaryReleaseSpec> = manifests.iter().filter_map(|manifest| manifest.spec.as_ref().ok()).collect();
    let relative = || {
        specs.iter().flat_map(|spec| &spec.gates).filter(|gate| gate.relative.is_some()).map(|gate| gate.name.as_str())
    };
    let stray =
        events.iter().filter_map(|events| events.gate.as_deref()).find(|gate| !relative().any(|name| name == *gate));
    match stray {
        Some(gate) if !specs.is_empty() => Err(Error::Usage(format!(
            "--events-per-minute {gate}=...: there is no relative gate of that name; those of the file are: {}",
            relative().collect::<Vec<_>>().join(", ")
        ))),
        _ => Ok(()),
    }
}

/// The traffic that the target's pods counted lately, and the events of gates that compare.
///
/// # Errors
/// Where the metrics cannot be had or counted.
pub async fn lately(
    manifest: &Manifest,
    plan: &args::Plan,
    namespace: Option<&str>,
    source: &dyn MetricSource,
    now: Timestamp,
) -> Result<Traffic, Error> {
    let namespace = manifest.namespace.as_deref().or(namespace).unwrap_or("default");
    let Ok(spec) = &manifest.spec else { return Ok(Traffic::of(0.0)) };
    if !spec.traffic.requests.by.is_pod() {
        let why = "spec.traffic.requests is by Service, of which the plan can't read the traffic: give it with --rps";
        return Err(Error::Usage(why.to_owned()));
    }
    let mut asked = spec.clone();
    asked.gates.retain(|gate| gate.relative.is_some() && gate.by.is_pod());
    let span = store::Span::of(&asked, now, plan.since.0.std());
    let past = store::read(source, &asked, namespace, &span, |_| ()).await?;
    store::counted(&past, spec, namespace, plan.since, &plan.access)?;
    let mut traffic = Traffic::of((past.requests_per_second() * 10.0).round() / 10.0);
    let events = asked.gates.iter().zip(past.events_per_minute());
    traffic.events_per_minute.extend(events.map(|(gate, events)| (gate.name.clone(), events)));
    Ok(traffic)
}

/// What there is to say of a manifest at this traffic.
#[must_use]
pub fn report(manifest: &Manifest, plan: &args::Plan, namespace: Option<&str>, seen: Traffic) -> Report {
    let namespace = manifest.namespace.as_deref().or(namespace).unwrap_or("default");
    let mut report = Report {
        name: manifest.name.clone(),
        namespace: namespace.to_owned(),
        faults: Vec::new(),
        budget: None,
        gates_with_budget: 0,
        stages_with_budget: 0,
        warnings: Vec::new(),
        stages: Vec::new(),
        detect: plan.detect.map(Percent::fraction),
        durations: Vec::new(),
    };
    let spec = match &manifest.spec {
        Ok(spec) => spec,
        Err(fault) => {
            report.faults.push(fault.clone());
            return report;
        }
    };
    let traffic = traffic(spec, plan, seen);
    report.faults = canary_core::plan::faults(spec, namespace, true);
    report.budget = know::budget(spec).map(|alpha| alpha.get());
    report.gates_with_budget = spec.gates.iter().filter(|gate| gate.value.is_none()).count();
    report.stages_with_budget = spec.stages.len().saturating_add(usize::from(spec.soak > Duration::ZERO));
    report.stages = know::stages_of(spec, &traffic);
    report.warnings = know::warnings(&report.stages);
    report.durations = know::durations(spec, &traffic, report.detect);
    report
}

/// What was seen, and what is given by hand, which goes before it.
fn traffic(spec: &CanaryReleaseSpec, plan: &args::Plan, mut traffic: Traffic) -> Traffic {
    for gate in spec.gates.iter().filter(|gate| gate.relative.is_some()) {
        let named = plan.events_per_minute.iter().rfind(|events| events.gate.as_deref() == Some(&gate.name));
        let each = || plan.events_per_minute.iter().rfind(|events| events.gate.is_none());
        if let Some(events) = named.or_else(each) {
            traffic.events_per_minute.insert(gate.name.clone(), events.per_minute);
        }
    }
    traffic
}

/// The report as text.
#[must_use]
pub fn render(report: &Report, paint: Paint) -> String {
    let mut text = String::new();
    let title = clean::text(&format!("CanaryRelease {}/{}", report.namespace, report.name));
    line(&mut text, &paint.paint(Tone::Title, &title));
    for fault in &report.faults {
        line(&mut text, &format!("  {} {}", paint.paint(Tone::Bad, "wrong:"), clean::text(fault)));
    }
    if let Some(budget) = report.budget {
        line(
            &mut text,
            &format!(
                "  false alarms: 5% of releases at most, {} for each of {} in each of {}",
                know::per_cent(budget),
                count(report.gates_with_budget, "gate"),
                count(report.stages_with_budget, "stage")
            ),
        );
    }
    for stage in &report.stages {
        text.push('\n');
        line(&mut text, &format!("{}:", paint.paint(Tone::Title, &stage.sees())));
        text.push_str(&stage_table(stage).render("  ", paint));
    }
    if !report.warnings.is_empty() {
        line(&mut text, &format!("\n{}", paint.paint(Tone::Title, "warnings")));
        for warning in &report.warnings {
            line(&mut text, &format!("  {} {}", paint.paint(Tone::Doubt, "!"), clean::text(warning)));
        }
    }
    let notes = report.stages.first().map(|stage| stage.gates.as_slice()).unwrap_or_default();
    let notes: Vec<_> = notes.iter().filter_map(|gate| Some((&gate.gate, gate.note.as_ref()?))).collect();
    if !notes.is_empty() {
        line(&mut text, &format!("\n{}", paint.paint(Tone::Title, "notes")));
        for (gate, note) in notes {
            line(&mut text, &clean::text(&format!("  {gate}: {note}")));
        }
    }
    text.push_str(&suggestions(report, paint));
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn stage_table(stage: &StageKnowledge) -> Table {
    let mut table = Table::new(&["GATE", "LIMIT", "DETECTS IN 80%", "IN 95%", "PROVES"]);
    for gate in &stage.gates {
        let tone = if stage.blind(gate).is_empty() { Tone::Plain } else { Tone::Doubt };
        let name = [(tone, clean::text(&gate.gate)), (Tone::Plain, clean::text(&gate.limit))];
        table.row(name.into_iter().chain(cells(gate).into_iter().map(|cell| (tone, cell))));
    }
    table
}

/// What stands beside gate and limit: three columns, or one sentence.
fn cells(gate: &GateKnowledge) -> Vec<String> {
    let or_nothing =
        |found: Option<f64>, unit: &dyn Fn(f64) -> String| found.map_or_else(|| "nothing".to_owned(), unit);
    match &gate.knows {
        Knows::Share { detects80, detects95, proves, can_prove, clean_requests_to_prove, .. } => {
            let wants = format!("its limit from {clean_requests_to_prove} requests on, none of them bad");
            let proves = match proves {
                _ if *can_prove => "its limit".to_owned(),
                Some(limit) => format!("nothing below {}; {wants}", know::per_cent(*limit)),
                None => format!("nothing; {wants}"),
            };
            vec![or_nothing(*detects80, &know::per_cent), or_nothing(*detects95, &know::per_cent), proves]
        }
        Knows::Rate { detects80, detects95, .. } => {
            let per_minute = |rate| format!("{}/min", know::figures(rate));
            vec![or_nothing(*detects80, &per_minute), or_nothing(*detects95, &per_minute)]
        }
        Knows::Ratio { detects80: Some(often), detects95: Some(nearly), .. } => {
            let times = |ratio: f64| format!("x {}", know::figures(ratio));
            vec![times(*often), times(*nearly)]
        }
        Knows::Unknown { why } if why.starts_with("needs the events") => {
            vec![format!("{}: --events-per-minute {}=N", clean::text(why), clean::text(&gate.gate))]
        }
        _ => vec![clean::text(&gate.sentence())],
    }
}

/// Per stage the longest duration that any of its gates wants.
fn suggestions(report: &Report, paint: Paint) -> String {
    let shares = |stage: &StageKnowledge| {
        let limit = |gate: &GateKnowledge| match gate.knows {
            Knows::Share { limit, .. } => Some((gate.gate.clone(), limit)),
            _ => None,
        };
        stage.gates.iter().filter_map(limit).collect::<Vec<_>>()
    };
    let Some(limits) = report.stages.first().map(shares).filter(|limits| !limits.is_empty()) else {
        return String::new();
    };
    let mut table = if report.detect.is_some() {
        Table::new(&["STAGE", "WEIGHT", "NOW", "FOR A VERDICT", "TO DETECT", "TO PROVE"])
    } else {
        Table::new(&["STAGE", "WEIGHT", "NOW", "FOR A VERDICT", "TO PROVE"])
    };
    for (stage, wanted) in report.stages.iter().zip(&report.durations) {
        let now = stage.duration;
        let cell = |longest: Option<Option<Duration>>| match longest {
            None => (Tone::Quiet, "-".to_owned()),
            Some(None) => (Tone::Doubt, "over 168h".to_owned()),
            Some(Some(long)) if long > now => (Tone::Doubt, long.to_string()),
            Some(Some(long)) => (Tone::Good, long.to_string()),
        };
        let above = |gate: &str| limits.iter().any(|(name, limit)| name == gate && Some(*limit) < report.detect);
        let mut row = vec![
            (Tone::Plain, format!("{}/{}", stage.stage, stage.stages)),
            (Tone::Plain, stage.weight.to_string()),
            (Tone::Plain, now.to_string()),
            cell(longest(wanted.gates.iter().map(|gate| gate.verdict))),
        ];
        if report.detect.is_some() {
            row.push(cell(longest(wanted.gates.iter().filter(|gate| above(&gate.gate)).map(|gate| gate.detect))));
        }
        row.push(cell(longest(wanted.gates.iter().map(|gate| gate.prove))));
        table.row(row);
    }
    let mut text = String::new();
    let what = report.detect.map_or_else(String::new, |share| {
        format!(" (to detect: {} bad, in 80 of 100 releases)", know::per_cent(share))
    });
    line(&mut text, &format!("\n{}{what}", paint.paint(Tone::Title, "durations that would suffice")));
    text.push_str(&table.render("  ", paint));
    if let Some(share) = report.detect {
        let within = |(name, limit): &(String, f64)| {
            (*limit >= share)
                .then(|| format!("  {} is within the limit of {}\n", know::per_cent(share), clean::text(name)))
        };
        limits.iter().filter_map(within).for_each(|note| text.push_str(&note));
    }
    text
}

/// `None`: nothing asks for one. `Some(None)`: one of them asks for more than a stage may have.
fn longest(mut durations: impl Iterator<Item = Option<Duration>>) -> Option<Option<Duration>> {
    let first = durations.next()?;
    Some(durations.fold(first, |longest, next| Some(longest?.max(next?))))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(super) mod tests;
