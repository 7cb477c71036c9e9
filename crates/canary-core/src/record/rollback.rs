//! The release's own rollback: a revert that rejects the candidate or that a person asked for. One that makes way for a
//! newer template, or for an override, is no rollback; the timeline has it.

use canary_api::{ReleaseRecordStatus, ReleaseStatus, RollbackRecord, Step};

use super::{Tick, figures};

pub(super) fn follow(record: &mut ReleaseRecordStatus, tick: &Tick<'_>, is: &ReleaseStatus) {
    let Some(revert) = is.revert.as_ref().filter(|revert| matches!(revert.outcome.as_str(), "RolledBack" | "Aborted"))
    else {
        return;
    };
    let id = record.id.clone();
    let position = record.rollbacks.iter().position(|rollback| rollback.id == id);
    if position.is_none() {
        record.rollbacks.push(RollbackRecord { id, ..RollbackRecord::default() });
    }
    let moved = is.split;
    let Some(rollback) = position.map_or_else(|| record.rollbacks.len().checked_sub(1), Some) else { return };
    let Some(rollback) = record.rollbacks.get_mut(rollback) else { return };
    rollback.at = Some(revert.at.clone());
    rollback.clear_at.clone_from(&revert.clear_at);
    rollback.reason.clone_from(&revert.message);
    rollback.stage.clone_from(&revert.stage);
    rollback.trigger.clone_from(&revert.by);
    if tick.begins_to_revert() {
        rollback.weight = tick.was.map(|was| was.weight.clone()).unwrap_or_default();
    }
    // While it reverts no gate is judged: what the status shows is what stood when it began.
    if rollback.before.is_empty() && moved {
        rollback.before = figures::of_candidate(tick, is);
    }
    if tick.was_in(&[Step::RevertDrain, Step::RevertTarget])
        && let Some((after, verified)) = figures::of_stable_after(tick)
    {
        (rollback.after, rollback.verified) = (after, verified);
    }
    if is.step == Step::Done && rollback.verified.is_empty() {
        rollback.verified = if moved {
            "not known: stable was not measured while the canary's requests ended"
        } else {
            "not needed: the candidate had no traffic"
        }
        .to_owned();
    }
}
