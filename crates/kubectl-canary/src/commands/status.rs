//! `status`: where a release stands, on one screen, from the status of the CanaryRelease; its gates' last figures are the
//! record's. `watch` shows the same.

use canary_api::{Baseline, CanaryReleaseSpec, CanaryReleaseStatus, Duration, GateStatus, Phase, ReleaseStatus, Step};
use jiff::Timestamp;
use serde::Serialize;

use super::list::tone;
use crate::args;
use crate::cluster::Cluster;
use crate::output::{Output, Paint, Tone};
use crate::release::{Release, after, clock, until};
use crate::table::Table;
use crate::trend::{self, Trend};
use crate::{Error, Exit, records};

/// What there is to see.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// The CanaryRelease's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The Deployment under release.
    pub target: String,
    /// Where it stands, in a word.
    pub phase: Phase,
    /// What is going on, in a sentence.
    pub message: String,
    /// The release under way, or the last one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub release: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// How it ended, where it has, and the status still speaks of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// The version that serves.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serving: String,
    /// The version under release.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub candidate: String,
    /// The canary's share of the traffic.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub weight: String,
    /// The stages, in order.
    pub stages: Vec<StageView>,
    /// The gates as they were last judged.
    pub gates: Vec<GateStatus>,
    /// Their last figures, where the release's record holds such.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trends: Vec<Trend>,
    /// Jobs that run, or did not end well, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<String>,
    /// When the clock that runs now ends, at the earliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends: Option<Timestamp>,
    /// The time until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Duration>,
    /// The time until the last stage ends, at the earliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_in_all: Option<Duration>,
    /// The command that waits for the operator.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// What comes next.
    pub next: String,
    /// What a person should do.
    pub what_to_do: String,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageView {
    /// The canary's share of the traffic.
    pub weight: String,
    /// How long it is held.
    pub duration: Duration,
    /// Whether it needs an approval.
    pub approval: bool,
    /// Where it stands.
    pub state: StageState,
    /// How much of its time has passed, 0 to 1.
    pub passed: f64,
}

/// Where a stage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StageState {
    /// It was passed.
    Passed,
    /// It is under way.
    Now,
    /// The release ended here.
    Failed,
    /// It is still to come.
    Ahead,
}

/// Runs `status`.
///
/// # Errors
/// Where it cannot be read.
pub async fn run(named: &args::Named, cluster: &Cluster, output: &Output) -> Result<Exit, Error> {
    let release = cluster.release(&named.name).await?;
    let mut view = view(&release, Timestamp::now())?;
    view.trends = lately(&release, cluster).await;
    output.answer(&view, |paint| render(&view, paint))?;
    Ok(Exit::Done)
}

/// The last figures of the gates, of the release that the status speaks of.
pub(super) async fn lately(release: &Release, cluster: &Cluster) -> Vec<Trend> {
    let Some(id) = release.last_id() else { return Vec::new() };
    let record = cluster.record(id, &release.uid).await.and_then(|object| records::record(object).ok());
    record.and_then(|record| record.status).map_or_else(Vec::new, |status| trend::trends(&status, id))
}

/// What there is to see of a CanaryRelease now.
///
/// # Errors
/// Where this build does not understand its status.
pub fn view(release: &Release, now: Timestamp) -> Result<View, Error> {
    let status = release.status()?;
    let current = status.current.as_ref().filter(|current| !current.id.is_empty());
    let under_way = release.under_way();
    let serving = status.hold.as_ref().and_then(|hold| hold.serving.as_ref());
    let ends = under_way.zip(release.spec.as_ref()).and_then(|(current, spec)| clock_ends(spec, current));
    let left = ends.map(|ends| until(ends, now));
    Ok(View {
        namespace: release.namespace.clone(),
        name: release.name.clone(),
        target: release.target.clone(),
        phase: status.phase,
        message: status.message.clone(),
        release: current.map_or_else(String::new, |current| current.id.clone()),
        started: current.and_then(|current| current.started.as_ref()).map(|started| started.0),
        outcome: current
            .filter(|current| under_way.is_none() && current.candidate.digest == status.observed_template)
            .map_or_else(String::new, |_| status.outcome.clone()),
        serving: serving.map_or_else(String::new, |version| version_text(&version.images, &version.digest, "")),
        candidate: under_way.map_or_else(String::new, |current| {
            version_text(&current.candidate.images, &current.candidate.digest, &current.candidate.changed_by)
        }),
        weight: under_way.map_or_else(String::new, |current| current.weight.clone()),
        stages: release.spec.as_ref().map_or_else(Vec::new, |spec| stages(spec, status, now)),
        gates: status.gates.clone(),
        trends: Vec::new(),
        jobs: status.summary.iter().filter_map(|line| line.strip_prefix("Job ")).map(str::to_owned).collect(),
        ends,
        left,
        left_in_all: under_way.zip(release.spec.as_ref()).and_then(|(current, spec)| in_all(spec, current, left)),
        command: waiting_command(release, status),
        next: next(release, status),
        what_to_do: what_to_do(release, status),
    })
}

/// The command that the operator has not taken; one that the status tells of it has, and takes away in a moment.
fn waiting_command(release: &Release, status: &CanaryReleaseStatus) -> String {
    let told = |text: &String| status.last_command.as_ref().is_some_and(|last| last.pending && last.command == *text);
    let waits = release.command.as_ref().filter(|(text, _)| !told(text));
    waits.map_or_else(String::new, |(text, by)| format!("{text} by {by}"))
}

fn version_text(images: &[String], digest: &str, by: &str) -> String {
    let short: String = digest.chars().take("sha256:".len().saturating_add(12)).collect();
    let by = if by.is_empty() { String::new() } else { format!(", changed by {by}") };
    format!("{} ({short}){by}", images.join(", "))
}

/// The stage that the release is at, from 0.
fn stage_index(current: &ReleaseStatus) -> usize {
    usize::try_from(current.stage_index).unwrap_or(0)
}

/// When the stage that is judged has had its time. An extension is as long as the stage, and counts from when it was
/// given.
fn stage_ends(spec: &CanaryReleaseSpec, current: &ReleaseStatus) -> Option<Timestamp> {
    let stage = spec.stages.get(stage_index(current))?;
    Some(after(current.extended_since.as_ref().or(current.step_since.as_ref())?, stage.duration))
}

/// When the clock that runs now ends, at the earliest; none while it stands, or nothing is timed.
fn clock_ends(spec: &CanaryReleaseSpec, current: &ReleaseStatus) -> Option<Timestamp> {
    if current.paused.is_some() {
        return None;
    }
    let Baseline { duration: baseline, .. } = spec.baseline;
    let length = match current.step {
        Step::Baseline => baseline,
        Step::Bake => return stage_ends(spec, current),
        Step::Soak => spec.soak,
        _ => return None,
    };
    current.step_since.as_ref().map(|since| after(since, length))
}

/// What is left of this clock, and all stages that are to come.
fn in_all(spec: &CanaryReleaseSpec, current: &ReleaseStatus, left: Option<Duration>) -> Option<Duration> {
    let from = match current.step {
        Step::Baseline => 0,
        Step::Bake => stage_index(current).saturating_add(1),
        _ => return None,
    };
    let ahead = spec.stages.iter().skip(from).map(|stage| stage.duration.millis());
    Some(Duration::from_millis(ahead.fold(left?.millis(), u64::saturating_add)))
}

fn stages(spec: &CanaryReleaseSpec, status: &CanaryReleaseStatus, now: Timestamp) -> Vec<StageView> {
    let current = status.current.as_ref().filter(|current| !current.id.is_empty());
    let view = |(index, stage): (usize, &canary_api::Stage)| {
        let state = current.map_or(StageState::Ahead, |current| stage_state(current, index));
        let passed = match (state, current) {
            (StageState::Passed, _) => 1.0,
            (StageState::Now, Some(current)) => share_passed(spec, current, now),
            _ => 0.0,
        };
        StageView {
            weight: stage.weight.to_string(),
            duration: stage.duration,
            approval: stage.approval,
            state,
            passed,
        }
    };
    spec.stages.iter().enumerate().map(view).collect()
}

fn stage_state(current: &ReleaseStatus, index: usize) -> StageState {
    let at = stage_index(current);
    match current.step {
        Step::Baseline => StageState::Ahead,
        Step::Roll | Step::HandBack | Step::Drain | Step::Soak => StageState::Passed,
        Step::Done if current.revert.is_none() => StageState::Passed,
        _ if index < at => StageState::Passed,
        _ if index > at => StageState::Ahead,
        Step::Scale | Step::Shift | Step::Bake => StageState::Now,
        Step::Revert | Step::RevertDrain | Step::RevertTarget | Step::Done => StageState::Failed,
    }
}

fn share_passed(spec: &CanaryReleaseSpec, current: &ReleaseStatus, now: Timestamp) -> f64 {
    let (Step::Bake, Some(since), Some(ends)) = (current.step, &current.step_since, stage_ends(spec, current)) else {
        return 0.0;
    };
    let stands = current.paused.as_ref().map(|paused| paused.since.0);
    let spent = stands.unwrap_or(now).duration_since(since.0).as_secs_f64();
    (spent / ends.duration_since(since.0).as_secs_f64()).clamp(0.0, 1.0)
}

/// What comes next, if nothing goes wrong.
fn next(release: &Release, status: &CanaryReleaseStatus) -> String {
    if release.deleting {
        return "what is ours is taken away, then the CanaryRelease goes".to_owned();
    }
    let Some(current) = release.under_way() else {
        return match status.phase {
            Phase::Pending => "the target is armed once nothing is missing".to_owned(),
            _ => format!("the next change of Deployment {} starts a release", release.target),
        };
    };
    let stage = |index: usize| {
        let found = release.spec.as_ref().and_then(|spec| Some((spec.stages.get(index)?, spec.stages.len())));
        found.map(|(stage, of)| format!("stage {}/{of} at {}", index.saturating_add(1), stage.weight))
    };
    let at = stage_index(current);
    if let Some(paused) = &current.paused {
        return if paused.without_weight {
            "resume starts again at stage 1".to_owned()
        } else {
            "resume starts the stage's clock again".to_owned()
        };
    }
    match current.step {
        Step::Baseline => stage(0).unwrap_or_else(|| "stage 1".to_owned()),
        Step::Scale | Step::Shift => {
            format!("{} is judged", stage(at).unwrap_or_else(|| "the stage".to_owned()))
        }
        Step::Bake => {
            let ahead = stage(at.saturating_add(1))
                .unwrap_or_else(|| format!("Deployment {} rolls to the new version", release.target));
            if waits_for_approval(release, current) { format!("an approval, then {ahead}") } else { ahead }
        }
        Step::Roll => "traffic goes back to the stable Service, which is then the new version".to_owned(),
        Step::HandBack => "the canary's last requests end".to_owned(),
        Step::Drain | Step::Soak => "the release is Promoted".to_owned(),
        Step::Revert => "the canary's last requests end".to_owned(),
        Step::RevertDrain => "the canary's pods go, and the target is held or restored".to_owned(),
        Step::RevertTarget | Step::Done => "the release is over".to_owned(),
    }
}

fn waits_for_approval(release: &Release, current: &ReleaseStatus) -> bool {
    let stage = release.spec.as_ref().and_then(|spec| spec.stages.get(stage_index(current)));
    !current.approved && stage.is_some_and(|stage| stage.approval)
}

/// The operator's advice, in commands of this plugin.
fn what_to_do(release: &Release, status: &CanaryReleaseStatus) -> String {
    let advice = status.summary.iter().find_map(|line| line.strip_prefix("What to do: ")).unwrap_or_default();
    let advice = if advice.is_empty() {
        match status.observed_generation {
            -1 => "nothing; if this stays, see whether the operator runs",
            _ => "nothing",
        }
    } else {
        advice
    };
    in_our_words(advice, release)
}

/// `kubectl annotate crel orders -n shop canaryrelease.dev/command='resume orders-3'` is `kubectl canary resume orders
/// -n shop`. Anything else stays as it is.
fn in_our_words(advice: &str, release: &Release) -> String {
    let (name, namespace) = (&release.name, &release.namespace);
    let start = format!("kubectl annotate crel {name} -n {namespace} canaryrelease.dev/command='");
    let parts = advice.split_once(&start).and_then(|(before, rest)| Some((before, rest.split_once('\'')?)));
    let Some((before, (command, rest))) = parts else { return advice.to_owned() };
    let verb = command.split(' ').next().unwrap_or_default();
    format!("{before}kubectl canary {verb} {name} -n {namespace}{rest}")
}

/// The view as text.
#[must_use]
pub fn render(view: &View, paint: Paint) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {}{value}\n", paint.paint(Tone::Quiet, &format!("{label:<12}"))));
        }
    };
    line("target", &format!("Deployment {}", view.target));
    line("serving", &view.serving);
    line("candidate", &view.candidate);
    let started = view.started.map_or_else(String::new, |started| format!(", started {}", clock(started)));
    if !view.release.is_empty() {
        let ended = if view.outcome.is_empty() { String::new() } else { format!(", {}", view.outcome) };
        line("release", &format!("{}{started}{ended}", view.release));
    }
    for (index, row) in bar(&view.stages, paint).iter().enumerate() {
        line(if index == 0 { "stages" } else { "" }, row);
    }
    line("weight", &view.weight);
    let mut head = format!(
        "{}  {}\n",
        paint.paint(Tone::Title, &format!("{}/{}", view.namespace, view.name)),
        paint.paint(tone(view.phase.as_str()), view.phase.as_str())
    );
    head.push_str(&text);
    if !view.gates.is_empty() {
        head.push_str(&format!("\n{}\n", gates(view, paint)));
    }
    head.push('\n');
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {}{value}\n", paint.paint(Tone::Quiet, &format!("{label:<12}"))));
        }
    };
    line("now", &view.message);
    for (index, job) in view.jobs.iter().enumerate() {
        line(if index == 0 { "jobs" } else { "" }, job);
    }
    line("time left", &time_left(view));
    line("next", &view.next);
    if !view.command.is_empty() {
        line("command", &format!("{}, which the operator has not taken yet", view.command));
    }
    line("what to do", &view.what_to_do);
    head + &text
}

fn time_left(view: &View) -> String {
    let (Some(left), Some(ends)) = (view.left, view.ends) else { return String::new() };
    let here = if left == Duration::ZERO {
        format!("none since {}", clock(ends))
    } else {
        format!("{left}, until {}", clock(ends))
    };
    match view.left_in_all {
        Some(all) if all > left => format!("{here}; {all} to the end of the last stage, at the earliest"),
        _ => here,
    }
}

fn gates(view: &View, paint: Paint) -> String {
    let all = ["GATE", "VALUE", "LIMIT", "VERDICT", "LATELY", "RESTS ON"];
    let trends = !view.trends.is_empty();
    let head: Vec<&'static str> = all.into_iter().filter(|head| trends || *head != "LATELY").collect();
    let mut table = Table::new(&head);
    for gate in &view.gates {
        let verdict = match gate.verdict.as_str() {
            "Pass" => Tone::Good,
            "Breach" => Tone::Bad,
            _ => Tone::Doubt,
        };
        let plain = |text: &String| (Tone::Plain, text.clone());
        let lately = view.trends.iter().find(|trend| trend.gate == gate.gate).map(Trend::line).unwrap_or_default();
        let first = [plain(&gate.gate), plain(&gate.value), plain(&gate.limit), (verdict, gate.verdict.clone())];
        table.row(first.into_iter().chain(trends.then_some((Tone::Plain, lately))).chain([plain(&gate.rests_on)]));
    }
    table.render("  ", paint).trim_end().to_owned()
}

/// Columns of one stage in the bar.
const CELL: usize = 8;
/// Where there are many stages.
const NARROW: usize = 5;
/// From so many stages on.
const MANY: usize = 9;

/// The stages as a bar, and their weights below.
fn bar(stages: &[StageView], paint: Paint) -> Vec<String> {
    if stages.is_empty() {
        return Vec::new();
    }
    let cell = if stages.len() >= MANY { NARROW } else { CELL };
    let mut bar = "[".to_owned();
    let mut weights = " ".to_owned();
    for (index, stage) in stages.iter().enumerate() {
        if index > 0 {
            bar.push('|');
            weights.push(' ');
        }
        // At most as many columns as the cell has.
        let full = ((stage.passed * cell as f64).floor().max(0.0) as usize).min(cell);
        let (tone, filled, rest) = match stage.state {
            StageState::Passed => (Tone::Good, "#", "."),
            StageState::Now => (Tone::Doubt, "#", "."),
            StageState::Failed => (Tone::Bad, "#", "x"),
            StageState::Ahead => (Tone::Quiet, "#", "."),
        };
        bar.push_str(&paint.paint(tone, &format!("{}{}", filled.repeat(full), rest.repeat(cell.saturating_sub(full)))));
        let mark = match stage.state {
            StageState::Now => ">",
            _ => "",
        };
        weights.push_str(&format!("{:<cell$}", format!("{mark}{}", stage.weight)));
    }
    bar.push(']');
    vec![bar, weights.trim_end().to_owned()]
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
