//! The report: one HTML file that needs nothing else. It opens from a disk, runs no script and asks no network, as its
//! content security policy says too.

pub mod over_time;
pub mod plots;
pub mod steps;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use canary_api::{Changes, GateRecord, ReleaseRecord, ReleaseRecordStatus};
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Output, State, UndefinedBehavior};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::facts::{Facts, GateFacts, clock, facts, gate};
use crate::figure::{figure, per_cent};
use crate::harmless::{html, line};
use crate::over_time::{MomentRow, rows, spans};

const PAGE: &str = include_str!("../../templates/report.html");
const STYLE: &str = include_str!("../../templates/report.css");

/// What the page shows beside the facts.
#[derive(Serialize)]
struct Page<'a> {
    #[serde(flatten)]
    facts: &'a Facts,
    tone: &'static str,
    steps: Vec<StepRow>,
    gate_sections: Vec<GateSection>,
    errors: Vec<ErrorRow>,
    counts_errors: bool,
}

#[derive(Serialize)]
struct StepRow {
    at: String,
    share: String,
    why: String,
}

/// A gate through the whole release.
#[derive(Serialize)]
struct GateSection {
    id: String,
    name: String,
    kind: Option<String>,
    limit: Option<String>,
    rows: Vec<GateRow>,
    /// Over time.
    moments: Vec<MomentRow>,
}

/// What is drawn of a gate.
struct Pictures {
    /// Stage by stage.
    stages: Option<String>,
    over_time: Option<String>,
    /// Bad answers among all of the service.
    errors: Option<String>,
}

#[derive(Serialize)]
struct GateRow {
    when: String,
    gate: GateFacts,
}

/// Bad answers of the canary in a stage.
#[derive(Serialize)]
struct ErrorRow {
    stage: String,
    gate: String,
    bad: Option<String>,
    requests: Option<String>,
    /// Of both versions together: bad answers, all answers, and their share.
    of_all: Option<String>,
}

/// The report of a release. `changes` are added to those of the record.
///
/// # Errors
/// Never with the templates that this crate holds; its tests prove it for records full of odd texts.
pub fn report(record: &ReleaseRecord, changes: &Changes) -> Result<String, Error> {
    report_of(record, &facts(record, changes))
}

/// The report of a record, with facts that someone has added to.
///
/// # Errors
/// As [`report`].
pub fn report_of(record: &ReleaseRecord, facts: &Facts) -> Result<String, Error> {
    let empty = ReleaseRecordStatus::default();
    let status = record.status.as_ref().unwrap_or(&empty);
    let steps = steps::steps(status);
    let (gate_sections, pictures): (Vec<GateSection>, Vec<Pictures>) = sections(status).into_iter().unzip();
    let page = Page {
        facts,
        tone: match status.result.as_str() {
            "SUCCESS" => "good",
            "FAILED" => "bad",
            _ => "doubt",
        },
        steps: steps
            .steps
            .iter()
            .map(|step| StepRow { at: clock(step.at), share: format!("{}%", step.share), why: step.why.clone() })
            .collect(),
        gate_sections,
        errors: errors(status),
        counts_errors: status.gates.iter().any(|gate| gate.kind == "errorRate"),
    };
    rendered(&page, plots::weight(&steps), pictures)
}

/// Each gate of the release in the order of its plan, then what else was measured; with its picture.
fn sections(status: &ReleaseRecordStatus) -> Vec<(GateSection, Pictures)> {
    let mut names: Vec<&str> = Vec::new();
    let measured = status.baseline.iter().chain(status.stages.iter().flat_map(|stage| &stage.gates));
    for name in status.gates.iter().map(|gate| gate.gate.as_str()).chain(measured.map(|gate| gate.gate.as_str())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (0..).zip(names).map(|(index, name)| section(status, index, name)).collect()
}

fn section(status: &ReleaseRecordStatus, index: usize, name: &str) -> (GateSection, Pictures) {
    let before = status.baseline.iter().map(|gate| ("before, stable".to_owned(), 1.0, gate));
    let stages = status.stages.iter().flat_map(|stage| {
        let when = format!("stage {}, {}", stage.number, line(&stage.weight));
        let share = per_cent(&stage.weight).unwrap_or(100.0) / 100.0;
        stage.gates.iter().map(move |gate| (when.clone(), share, gate))
    });
    let found: Vec<(String, f64, &GateRecord)> =
        before.chain(stages).filter(|(_, _, gate)| gate.gate == name).collect();
    let id = format!("gate-{index}");
    let drawn: Vec<plots::Row> = found
        .iter()
        .filter_map(|(when, share, record)| {
            let shown = gate(record);
            Some(plots::Row {
                name: when.clone(),
                value: shown.value,
                verdict: shown.verdict,
                figure: figure(record, *share)?,
            })
        })
        .collect();
    let same_unit = drawn.windows(2).all(|pair| matches!(pair, [a, b] if a.figure.unit == b.figure.unit));
    let picture = same_unit.then(|| plots::gate(&id, &line(name), &drawn)).flatten();
    let plan = status.gates.iter().find(|gate| gate.gate == name);
    let series = status.series.iter().find(|series| series.gate == name);
    let points = series.map(|series| series.whole.read()).unwrap_or_default();
    let counts_errors = plan.is_some_and(|plan| plan.kind == "errorRate");
    let pictures = Pictures {
        stages: picture,
        over_time: series.and_then(|series| over_time::gate(&format!("{id}-time"), name, status, series, &points)),
        errors: counts_errors
            .then(|| over_time::errors(&format!("{id}-errors"), name, status, &spans(&points)))
            .flatten(),
    };
    let section = GateSection {
        id,
        name: line(name),
        kind: plan.map(|plan| line(&plan.kind)),
        limit: plan.map(|plan| line(&plan.limit)),
        rows: found.into_iter().map(|(when, _, record)| GateRow { when, gate: gate(record) }).collect(),
        moments: series.map(|series| rows(status, series, &points)).unwrap_or_default(),
    };
    (section, pictures)
}

/// What gates on errors counted of the canary, stage by stage.
fn errors(status: &ReleaseRecordStatus) -> Vec<ErrorRow> {
    let counts = |name: &str| status.gates.iter().any(|gate| gate.gate == name && gate.kind == "errorRate");
    let number = |number: Option<f64>| number.map(|number| number.to_string());
    let rows = status.stages.iter().flat_map(|stage| stage.gates.iter().map(move |gate| (stage, gate)));
    rows.filter(|(_, gate)| counts(&gate.gate))
        .map(|(stage, gate)| ErrorRow {
            stage: format!("{}, {}", stage.number, line(&stage.weight)),
            gate: line(&gate.gate),
            bad: number(gate.events),
            requests: number(gate.requests),
            of_all: of_all(status, stage.number, &gate.gate),
        })
        .collect()
}

/// Bad answers of both versions together at the end of a stage, as the series has them.
fn of_all(status: &ReleaseRecordStatus, stage: i32, name: &str) -> Option<String> {
    let series = status.series.iter().find(|series| series.gate == name)?;
    let points = series.whole.read();
    let own = |point: &&canary_api::Point| i32::try_from(point.stage) == Ok(stage) && point.verdict != Some('s');
    let last = points.iter().rfind(own)?;
    let all = last.requests? + last.stable_requests.unwrap_or(0.0);
    let bad = last.events? + last.stable_events.unwrap_or(0.0);
    let share = (bad / all * 10_000.0).round() / 100.0;
    (all > 0.0 && share.is_finite()).then(|| format!("{} of {} ({share}%)", bad.round(), all.round()))
}

/// Nothing is loaded or run; of styles only the page's own is taken, by its digest.
fn policy() -> String {
    let digest = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'")
}

fn rendered(page: &Page<'_>, weight: Option<String>, pictures: Vec<Pictures>) -> Result<String, Error> {
    let fail = |error: minijinja::Error| Error::Template {
        name: "report".to_owned(),
        line: error.line().unwrap_or(0),
        why: error.to_string(),
    };
    let mut environment = Environment::new();
    let mut syntax = minijinja::syntax::SyntaxConfig::builder();
    environment.set_syntax(syntax.trim_blocks(true).lstrip_blocks(true).build().map_err(fail)?);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_formatter(format);
    environment.add_global("policy", Value::from_safe_string(policy()));
    environment.add_global("style", Value::from_safe_string(STYLE.to_owned()));
    environment.add_global("weight_picture", weight.map(Value::from_safe_string));
    let drawn = |of: fn(&Pictures) -> &Option<String>| -> Vec<Option<Value>> {
        pictures.iter().map(|one| of(one).clone().map(Value::from_safe_string)).collect()
    };
    environment.add_global("pictures", drawn(|one| &one.stages));
    environment.add_global("over_time", drawn(|one| &one.over_time));
    environment.add_global("errors_over_time", drawn(|one| &one.errors));
    environment.add_template("report", PAGE).map_err(fail)?;
    let template = environment.get_template("report").map_err(fail)?;
    template.render(Value::from(Serde(page))).map_err(fail)
}

/// Every value is escaped; `none` is unknown.
fn format(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    let written = match value.as_str() {
        Some(text) if value.is_safe() => out.write_str(text),
        Some(text) => out.write_str(&crate::harmless::lines(text).split('\n').map(html).collect::<Vec<_>>().join("\n")),
        None if value.is_none() => out.write_str("unknown"),
        None => out.write_str(&html(&value.to_string())),
    };
    written.map_err(minijinja::Error::from)
}
