//! The status in words: phase, stage, message, summary and conditions, for whoever has only `kubectl
//! describe`. It decides nothing. Times are absolute, so that time alone changes no status.

use canary_api::{JobState, JobStatus, Phase, Step};
use jiff::{Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{jobs, revert, tick::Tick};
use crate::canary;

/// Jobs that the summary names.
const MOST_JOBS: usize = 5;

pub(super) fn status(tick: &mut Tick<'_>) {
    tick.status.observed_generation = tick.seen.release.metadata.generation.unwrap_or_default();
    tick.status.phase = phase(tick);
    tick.status.stage = match &tick.status.current {
        Some(current) if !matches!(tick.status.phase, Phase::Pending) && !current.id.is_empty() => tick.stage_text(),
        _ => String::new(),
    };
    tick.status.message = message(tick);
    tick.status.summary = summary(tick);
    conditions(tick);
}

fn phase(tick: &Tick<'_>) -> Phase {
    if tick.deleting() && !tick.in_release() {
        return Phase::Terminating;
    }
    if !tick.in_release() {
        return at_rest(tick);
    }
    if tick.status.current.as_ref().is_some_and(|current| current.paused.is_some()) {
        return Phase::Paused;
    }
    match tick.step() {
        Step::Baseline => Phase::Baseline,
        Step::Scale => Phase::Scaling,
        Step::Shift => Phase::Shifting,
        Step::Bake => Phase::Baking,
        Step::Roll | Step::HandBack | Step::Drain => Phase::Promoting,
        Step::Soak => Phase::Soaking,
        Step::Revert | Step::RevertDrain | Step::RevertTarget => Phase::Reverting,
        Step::Done => Phase::Idle,
    }
}

fn at_rest(tick: &Tick<'_>) -> Phase {
    let armed = tick.status.hold.as_ref().is_some_and(|hold| hold.armed);
    if tick.obstacle.is_some() || !armed {
        return Phase::Pending;
    }
    match tick.status.outcome.as_str() {
        "Promoted" => Phase::Promoted,
        "RolledBack" => Phase::RolledBack,
        "Aborted" => Phase::Aborted,
        _ => Phase::Idle,
    }
}

fn message(tick: &Tick<'_>) -> String {
    let text = message_at_length(tick);
    text.chars().take(1000).collect()
}

fn message_at_length(tick: &Tick<'_>) -> String {
    if let Some(obstacle) = &tick.obstacle {
        return obstacle.message.clone();
    }
    if tick.deleting() && !tick.in_release() {
        let waiting = tick.waiting.as_ref().map_or_else(String::new, |why| format!("; {why}"));
        return format!("being deleted: traffic is on stable, what is ours is taken away{waiting}");
    }
    let Some(current) = tick.status.current.as_ref() else {
        return format!(
            "Deployment {} is held: the next change of its template starts a release",
            tick.spec.target.name
        );
    };
    if let Some(paused) = &current.paused {
        let place = if paused.without_weight {
            "traffic is on stable".to_owned()
        } else {
            format!("{} of the traffic stays on the candidate", current.weight)
        };
        let waiting = waiting(tick);
        return format!("paused by {} since {}: {place}{waiting}", paused.by, clock(&paused.since));
    }
    let waiting = waiting(tick);
    let stage = tick.stage_text();
    match tick.step() {
        Step::Baseline => format!(
            "{}: the stable version is measured until {}{waiting}",
            current.id,
            ends(tick, tick.spec.baseline.duration.std())
        ),
        Step::Scale => {
            format!("{}: the canary is scaled to {} pods for stage {stage}{waiting}", current.id, current.canary_pods)
        }
        Step::Shift => format!("{}: stage {stage}, {} is written to the routes{waiting}", current.id, current.weight),
        Step::Bake => baking(tick, &waiting),
        Step::Roll => {
            format!("{}: every stage has passed, Deployment {} rolls{waiting}", current.id, tick.spec.target.name)
        }
        Step::HandBack | Step::Drain => format!(
            "{}: traffic goes back to Service {}, which is the new version{waiting}",
            current.id, tick.spec.traffic.service
        ),
        Step::Soak if tick.waiting.is_some() => format!("{}: promoted, the gates watch on{waiting}", current.id),
        Step::Soak => {
            format!("{}: promoted, the gates watch on until {}", current.id, ends(tick, tick.spec.soak.std()))
        }
        Step::Revert | Step::RevertDrain | Step::RevertTarget => {
            format!(
                "{}: reverting: {}{waiting}",
                current.id,
                current.revert.as_ref().map_or("", |revert| revert.message.as_str())
            )
        }
        Step::Done => done(tick),
    }
}

/// What is waited for, and that stable's Service is gone, which whoever looks wants to know at any step.
fn waiting(tick: &Tick<'_>) -> String {
    let said = tick.waiting.as_ref().map_or_else(String::new, |why| format!("; {why}"));
    match without_stable(tick) {
        Some(gone) if !said.contains(&gone) => format!("{said}; {gone}, put it back"),
        _ => said,
    }
}

fn without_stable(tick: &Tick<'_>) -> Option<String> {
    let gone = tick.in_release() && tick.seen.service.missing();
    gone.then(|| format!("Service {} is gone", tick.spec.traffic.service))
}

fn baking(tick: &Tick<'_>, waiting: &str) -> String {
    let Some(current) = &tick.status.current else { return String::new() };
    let length = tick.stage().map(|stage| stage.duration.std()).unwrap_or_default();
    let (until, extended) = match &current.extended_since {
        Some(since) => (later(since, length), ", extended once"),
        None => (ends(tick, length), ""),
    };
    format!("{}: stage {} at {} until {until}{extended}{waiting}", current.id, tick.stage_text(), current.weight)
}

fn done(tick: &Tick<'_>) -> String {
    let Some(current) = &tick.status.current else { return String::new() };
    let outcome = tick.status.outcome.as_str();
    match &current.revert {
        Some(revert)
            if matches!(outcome, "RolledBack" | "Aborted")
                && tick.status.observed_template == current.candidate.digest =>
        {
            format!("{} {outcome} at stage {}: {}", current.id, revert.stage, revert.message)
        }
        _ if matches!(outcome, "RolledBack" | "Aborted") => format!(
            "the template of Deployment {} was rejected before: it is held and not released",
            tick.spec.target.name
        ),
        None if outcome == "Promoted" => {
            format!("{} promoted: {} is live", current.id, current.candidate.images.join(", "))
        }
        _ => {
            let last = if outcome.is_empty() { String::new() } else { format!(" (last: {outcome})") };
            format!(
                "Deployment {} is held: the next change of its template starts a release{last}",
                tick.spec.target.name
            )
        }
    }
}

fn summary(tick: &Tick<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let serving = tick.status.hold.as_ref().and_then(|hold| hold.serving.as_ref());
    if let Some(serving) = serving {
        lines.push(format!("Serving: {} ({})", serving.images.join(", "), short(&serving.digest)));
    }
    if tick.in_release()
        && let Some(current) = &tick.status.current
    {
        let by = if current.candidate.changed_by.is_empty() {
            String::new()
        } else {
            format!(", changed by {}", current.candidate.changed_by)
        };
        lines.push(format!(
            "Candidate: {} ({}){by}",
            current.candidate.images.join(", "),
            short(&current.candidate.digest)
        ));
        lines.push(format!(
            "Traffic: {} to the candidate; callers that bypass the route stay on stable until promotion",
            current.weight
        ));
    }
    let blind = tick.status.current.iter().filter(|_| tick.in_release()).flat_map(|current| &current.blind);
    lines.extend(blind.take(2).map(|stage| format!("Blind: {stage}")));
    if !tick.overlay.is_empty() && tick.in_release() {
        lines.push(format!(
            "Canary: {} pods, labelled {}",
            tick.status.current.as_ref().map_or(0, |current| current.canary_pods),
            canary::show(&tick.overlay)
        ));
    }
    lines.extend(baseline_pods(tick));
    lines.extend(jobs(tick));
    lines.push(format!("What to do: {}", what_to_do(tick)));
    lines.into_iter().map(|line| line.chars().take(500).collect()).collect()
}

/// What a reader wants to know of the pods beside the canary's.
fn baseline_pods(tick: &Tick<'_>) -> Option<String> {
    let beside = tick.status.current.as_ref().filter(|_| tick.in_release())?.baseline_pods.as_ref()?;
    let labels = canary::show(&beside.labels);
    Some(match beside.left_out.as_str() {
        "" => format!("Baseline: {} pods of the serving version at {}, labelled {labels}", beside.pods, beside.weight),
        why => format!("Baseline: left out of stage {}: {why}", tick.stage_text()),
    })
}

/// Jobs that have not ended, or not well.
fn jobs(tick: &Tick<'_>) -> Vec<String> {
    let runs = tick.status.current.iter().flat_map(|current| &current.jobs);
    let shown = runs.rev().filter(|run| run.state != JobState::Succeeded && !run.job.is_empty()).take(MOST_JOBS);
    let one = |run: &JobStatus| {
        let why = if run.message.is_empty() { String::new() } else { format!(": {}", run.message) };
        format!("Job {} {}: {}{why} ({})", run.name, jobs::place(tick, run), run.state.as_str(), run.job)
    };
    shown.map(one).collect()
}

fn what_to_do(tick: &Tick<'_>) -> String {
    if let Some(obstacle) = &tick.obstacle {
        return if obstacle.stalled {
            "mend what the message names; it is looked at again by itself".to_owned()
        } else {
            "nothing, this passes by itself".to_owned()
        };
    }
    let Some(current) = &tick.status.current else {
        return "nothing; change the Deployment's template to start a release".to_owned();
    };
    let command = |verb: &str| {
        format!(
            "kubectl annotate crel {} -n {} canaryrelease.dev/command='{verb} {}'",
            tick.name(),
            tick.namespace(),
            current.id
        )
    };
    if let Some(paused) = &current.paused {
        return format!("{} once it is mended ({}), or abort", command("resume"), paused.reason);
    }
    if tick.in_release() {
        let approval =
            tick.step() == Step::Bake && tick.stage().is_some_and(|stage| stage.approval) && !current.approved;
        if let Some(gone) = without_stable(tick) {
            return format!("put it back: {gone}");
        }
        return match (revert::reverting(tick), approval) {
            (true, _) => "nothing, stable takes the traffic back".to_owned(),
            (false, true) => command("approve"),
            (false, false) => format!("nothing; to end it: {}", command("abort")),
        };
    }
    match tick.status.outcome.as_str() {
        "RolledBack" | "Aborted" if tick.held() => format!(
            "write a template that mends it, or put the serving one back; to release the same again: {}",
            command("retry")
        ),
        "RolledBack" | "Aborted" => "apply a template that mends it; the rejected one would be held".to_owned(),
        _ => "nothing; change the Deployment's template to start a release".to_owned(),
    }
}

fn conditions(tick: &mut Tick<'_>) {
    let message = tick.status.message.clone();
    let phase = tick.status.phase;
    let (outcome, active) = (tick.status.outcome.clone(), tick.in_release());
    let obstacle = tick.obstacle.clone();
    let ended_badly = matches!(phase, Phase::RolledBack | Phase::Aborted);
    let (ready, reconciling, stalled, reason) = match &obstacle {
        Some(obstacle) => (false, !obstacle.stalled, obstacle.stalled, obstacle.reason.to_owned()),
        None if active || phase == Phase::Terminating => (false, true, false, phase.as_str().to_owned()),
        None if ended_badly => (false, false, true, outcome.clone()),
        None => (true, false, false, if outcome.is_empty() { "Armed".to_owned() } else { outcome.clone() }),
    };
    let completed = !active && !outcome.is_empty();
    let completed_reason = if completed {
        outcome
    } else if active {
        "InProgress".to_owned()
    } else {
        "NoRelease".to_owned()
    };
    let wanted = [
        ("Ready", ready, reason.clone()),
        ("Reconciling", reconciling, reason.clone()),
        ("Stalled", stalled, reason),
        ("Completed", completed, completed_reason),
    ];
    let generation = tick.seen.release.metadata.generation;
    let now = tick.time();
    tick.status.conditions = wanted
        .into_iter()
        .map(|(kind, truth, reason)| {
            condition(&tick.before.conditions, kind, truth, reason, &message, generation, &now)
        })
        .collect();
}

fn condition(
    before: &[Condition],
    kind: &str,
    truth: bool,
    reason: String,
    message: &str,
    generation: Option<i64>,
    now: &Time,
) -> Condition {
    let status = if truth { "True" } else { "False" };
    let same = before.iter().find(|condition| condition.type_ == kind && condition.status == status);
    Condition {
        last_transition_time: same.map_or_else(|| now.clone(), |condition| condition.last_transition_time.clone()),
        message: message.to_owned(),
        observed_generation: generation,
        reason,
        status: status.to_owned(),
        type_: kind.to_owned(),
    }
}

fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len().saturating_add(12)).collect()
}

/// When the step ends at the earliest.
fn ends(tick: &Tick<'_>, length: std::time::Duration) -> String {
    let since = tick.status.current.as_ref().and_then(|current| current.step_since.as_ref());
    later(since.unwrap_or(&Time(tick.now)), length)
}

fn later(since: &Time, length: std::time::Duration) -> String {
    let length = jiff::SignedDuration::try_from(length).unwrap_or_default();
    clock(&Time(since.0.checked_add(length).unwrap_or(since.0)))
}

fn clock(time: &Time) -> String {
    let rounded: Timestamp = time.0.round(Unit::Second).unwrap_or(time.0);
    rounded.to_string()
}
