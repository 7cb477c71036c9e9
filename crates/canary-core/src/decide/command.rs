//! Commands by annotation: taken once, bound to the release, answered in the status. Admission has
//! stamped who gave one and checked that he may; here it is only checked whether it fits.

use canary_api::{CommandStatus, Paused, Step, names};
use serde_json::json;
use std::time::Duration;

use super::{arm, jobs, release, revert, tick::Tick};
use crate::{
    Kind,
    object::{self, Patch},
    serving,
};

/// Takes a command that has not been taken, and sees to it that the annotations go.
pub(super) fn take(tick: &mut Tick<'_>) {
    let Some(text) = tick.annotation(names::ANNOTATION_COMMAND).map(str::to_owned) else {
        if let Some(last) = tick.status.last_command.as_mut().filter(|last| last.pending) {
            last.pending = false;
        }
        return;
    };
    let by = tick.annotation(names::ANNOTATION_COMMAND_BY).unwrap_or("someone unknown").to_owned();
    // Only what a status already holds may be taken away, so that no command is lost.
    if tick.before.last_command.as_ref().is_some_and(|last| last.pending && last.command == text && last.by == by) {
        tick.taken = Some(text);
        return;
    }
    let result = match carry_out(tick, &text, &by) {
        Ok(done) => done,
        Err(why) => {
            tick.warn("CommandRefused", format!("{text:?} by {by}: {why}"));
            format!("refused: {why}")
        }
    };
    let at = tick.time();
    tick.status.last_command = Some(CommandStatus { at, by, command: text, pending: true, result });
    tick.wake(Duration::ZERO);
}

/// Takes the annotations of a command away that the status tells of. It is the last write of a tick:
/// nothing waits for it, and it is not guarded by the version that the status write has just moved.
pub(super) fn take_away(tick: &mut Tick<'_>) {
    let Some(text) = tick.taken.take() else { return };
    let metadata = json!({"metadata": {"name": tick.name(), "uid": tick.uid(), "annotations": tick.seen.release.metadata.annotations}});
    let mut patch = Patch::of_whatever_version(&metadata);
    patch.test(&format!("/metadata/annotations/{}", object::escape(names::ANNOTATION_COMMAND)), text);
    patch.remove_entries(&metadata, "annotations", &[names::ANNOTATION_COMMAND, names::ANNOTATION_COMMAND_BY]);
    tick.patch(Kind::CanaryRelease, &metadata, patch, "take the command's annotations away");
}

/// A retry that met an obstacle is refused with it.
pub(super) fn answer_retry(tick: &mut Tick<'_>) {
    if tick.retry.take().is_none() || tick.in_release() {
        return;
    }
    let why = tick
        .obstacle
        .as_ref()
        .map_or_else(|| "the release could not start".to_owned(), |obstacle| obstacle.message.clone());
    tick.warn("CommandRefused", format!("retry: {why}"));
    if let Some(last) = &mut tick.status.last_command {
        last.result = format!("refused: {why}");
    }
}

fn carry_out(tick: &mut Tick<'_>, text: &str, by: &str) -> Result<String, String> {
    let mut words = text.split_whitespace();
    let verb = words.next().unwrap_or_default();
    let (release, stage) = (words.next(), words.next());
    let id = tick.status.current.as_ref().map_or_else(String::new, |current| current.id.clone());
    match release {
        Some(release) if release != id => {
            return Err(format!(
                "it is for release {release}, and the last one is {}",
                if id.is_empty() { "none" } else { &id }
            ));
        }
        None if verb != "abort" => return Err(format!("write `{verb} {id}`, so that it can't hit another release")),
        _ => {}
    }
    match verb {
        "abort" => abort(tick, by),
        "pause" => pause(tick, by),
        "resume" => resume(tick, by),
        "approve" => approve(tick, stage, by),
        "promote" => promote(tick, by),
        "retry" => retry(tick, by),
        _ => Err("the commands are abort, pause, resume, approve, promote, retry".to_owned()),
    }
}

fn under_way(tick: &Tick<'_>) -> Result<(), String> {
    if !tick.in_release() {
        return Err("no release is under way".to_owned());
    }
    if revert::reverting(tick) {
        return Err("the release is being reverted already".to_owned());
    }
    Ok(())
}

fn before_promotion(tick: &Tick<'_>) -> Result<(), String> {
    under_way(tick)?;
    match tick.step() {
        Step::Baseline | Step::Scale | Step::Shift | Step::Bake => Ok(()),
        _ => Err("the candidate is being promoted; abort would still revert it".to_owned()),
    }
}

fn abort(tick: &mut Tick<'_>, by: &str) -> Result<String, String> {
    under_way(tick)?;
    revert::begin(tick, revert::Cause::command(by));
    Ok("the release is being reverted".to_owned())
}

fn pause(tick: &mut Tick<'_>, by: &str) -> Result<String, String> {
    before_promotion(tick)?;
    if tick.current().paused.is_some() {
        return Err("the release is paused already".to_owned());
    }
    let since = tick.time();
    tick.current().paused =
        Some(Paused { by: format!("user {by}"), reason: "Command".to_owned(), since, without_weight: false });
    tick.note("Paused", format!("by {by}: the weight stays, the gates go on, the clock stands"));
    Ok("paused: the weight stays, the gates go on".to_owned())
}

fn resume(tick: &mut Tick<'_>, by: &str) -> Result<String, String> {
    under_way(tick)?;
    let Some(paused) = tick.current().paused.take() else { return Err("the release is not paused".to_owned()) };
    tick.note("Resumed", format!("by {by}"));
    tick.resumed = true;
    let now = tick.time();
    if paused.without_weight {
        let owed = jobs::start_is_owed(tick);
        release::go_to_stage(tick, 0);
        let current = tick.current();
        current.partial = false;
        current.counts.clear();
        current.window_since = Some(now);
        // Whoever promoted past the jobs before the start skipped them for that once.
        let baseline = current.step == Step::Baseline || owed;
        tick.enter(if baseline { Step::Baseline } else { Step::Scale });
        jobs::resumed(tick);
        return Ok("the release starts again at stage 1".to_owned());
    }
    let step = tick.step();
    let current = tick.current();
    current.extended_since = None;
    if step == Step::Bake {
        current.window_since = Some(now);
        current.counts.clear();
    }
    tick.enter(step);
    jobs::resumed(tick);
    Ok("the stage's clock starts again".to_owned())
}

fn approve(tick: &mut Tick<'_>, stage: Option<&str>, by: &str) -> Result<String, String> {
    before_promotion(tick)?;
    let number = tick.current().stage_index.saturating_add(1).to_string();
    if stage.is_some_and(|stage| stage != number) {
        return Err(format!("it is for stage {}, and the release is at stage {number}", stage.unwrap_or_default()));
    }
    if !tick.stage().is_some_and(|stage| stage.approval) {
        return Err(format!("stage {number} needs no approval"));
    }
    if tick.step() != Step::Bake {
        return Err(format!("stage {number} has not begun to be judged"));
    }
    tick.current().approved = true;
    tick.note("Approved", format!("stage {number} by {by}"));
    Ok(format!("stage {number} is approved"))
}

fn promote(tick: &mut Tick<'_>, by: &str) -> Result<String, String> {
    before_promotion(tick)?;
    let last = i32::try_from(tick.spec.stages.len()).unwrap_or(1).saturating_sub(1);
    let current = tick.current();
    current.paused = None;
    current.partial = true;
    release::go_to_stage(tick, last);
    tick.enter(Step::Scale);
    tick.note(
        "PromoteCommanded",
        format!("by {by}: the stages that are left are skipped; the canary is scaled for all of the traffic first"),
    );
    Ok("the stages that are left are skipped; the record says PARTIAL".to_owned())
}

fn retry(tick: &mut Tick<'_>, by: &str) -> Result<String, String> {
    if tick.in_release() {
        return Err("a release is under way".to_owned());
    }
    let (Some(target), Some(wanted)) = (tick.target(), tick.target_template()) else {
        return Err("the target could not be read".to_owned());
    };
    if !object::truth(target, "/spec/paused") || arm::rejection(tick, wanted).is_none() {
        return Err("the target holds no rejected template: apply it again, then retry".to_owned());
    }
    if tick.serving_template().is_some_and(|served| crate::template::same(&served, serving::template_of(target))) {
        return Err("the target already asks for the serving version".to_owned());
    }
    tick.retry = Some(by.to_owned());
    Ok("the rejection is lifted and a release started".to_owned())
}
