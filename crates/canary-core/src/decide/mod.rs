//! One tick's decision: from what was observed to the next status, the writes in order, and when to
//! look again. Transitions change only the status ([`release`], [`revert`], [`arm`], [`command`]);
//! the writes follow from the status and what is there ([`converge`]), so that a tick after a crash,
//! a conflict or a lost reply comes to the same writes; [`tell`] puts it into words.

mod arm;
mod beside;
mod command;
mod converge;
mod jobs;
mod release;
mod revert;
mod teardown;
mod tell;
#[cfg(test)]
mod tests;
mod tick;

use std::time::Duration;

use canary_api::CanaryReleaseStatus;
use jiff::Timestamp;

use crate::{Effect, Observed};
pub use tick::Note;
use tick::Tick;

/// What one tick decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The status to write, by compare-and-swap, before any effect.
    pub status: CanaryReleaseStatus,
    /// Whether the status differs in more than figures and sentences, so that it must be written now.
    pub decisive: bool,
    /// Whether its sentences differ: to be written soon, but not at each change while something is waited for.
    pub words: bool,
    /// The writes, in order; the first that fails ends the tick.
    pub effects: Vec<Effect>,
    /// What to tell as Events, once the status is written.
    pub notes: Vec<Note>,
    /// When to look again without being woken; `None`, and never while a release is under way: only when something changes.
    pub wake_after: Option<Duration>,
    /// Whether the object may go: our finalizer is taken away, or it never had one.
    pub gone: bool,
}

/// Decides one tick.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Decision {
    let mut tick = Tick::new(observed, now);
    if tick.has_finalizer() {
        revert::take_back_unknown(&mut tick);
    }
    if tick.deleting() {
        // Abort stops a promotion that a deletion would complete.
        if tick.in_release() {
            command::take(&mut tick);
        }
        teardown::advance(&mut tick);
    } else if !tick.has_finalizer() {
        // Before the first side effect, so that nothing of ours can outlive the object.
        return tick.only_finalizer();
    } else {
        jobs::look(&mut tick);
        command::take(&mut tick);
        if tick.in_release() {
            release::advance(&mut tick);
        }
        // Before another release takes this one's place.
        jobs::plan(&mut tick);
        if !tick.in_release() {
            arm::advance(&mut tick);
            command::answer_retry(&mut tick);
        }
        converge::effects(&mut tick);
        jobs::effects(&mut tick);
    }
    command::take_away(&mut tick);
    tell::status(&mut tick);
    tick.finish()
}
