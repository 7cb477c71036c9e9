//! What happened, in order: commands, decisions, writes. An entry stands once, however often its tick is folded in.

use canary_api::{ReleaseRecordStatus, Step, TimelineEntry};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Tick, bound::cut};

pub(super) const COMMAND: &str = "Command";
const DECISION: &str = "Decision";
const NOTIFICATION: &str = "Notification";
const WRITE: &str = "Write";

/// Entries of one kind that one tick may add; a tick has a handful.
const MOST: usize = 24;
/// Characters of an entry.
const LONGEST: usize = 400;
/// Events that only tell something and follow from no decision about the release.
const TOLD: [&str; 4] = ["BlindStage", "CommandRefused", "CanaryNotSelected", "RouteDrifted"];

pub(super) fn append(record: &mut ReleaseRecordStatus, tick: &Tick<'_>) {
    command(record, tick);
    let notes = tick.decision.notes.iter();
    // One tick may end a release and begin the next.
    let begins = tick.decision.notes.iter().position(|note| note.reason == "ReleaseStarted");
    let whose = |index: usize| match begins {
        Some(begins) if tick.is.is_none() => index < begins,
        Some(begins) if another_ends(tick) => index >= begins,
        _ => true,
    };
    for (_, note) in notes.enumerate().filter(|(index, _)| whose(*index)).take(MOST) {
        let kind = if TOLD.contains(&note.reason) { NOTIFICATION } else { DECISION };
        say(record, tick, kind, &format!("{}: {}", note.reason, note.text));
    }
    if tick.is.is_none() {
        return;
    }
    for effect in tick.decision.effects.iter().take(MOST) {
        say(record, tick, WRITE, &format!("{} {}: {}", effect.kind().as_str(), effect.name(), effect.why()));
    }
    let clear = tick.is.and_then(|is| is.revert.as_ref()).and_then(|revert| revert.clear_at.clone());
    if let Some(at) = clear {
        add(record, entry(at, "", DECISION, "all traffic is on the stable version"));
    }
}

/// Whether the tick ends another release, as it begins this record's.
fn another_ends(tick: &Tick<'_>) -> bool {
    let was = tick.seen.release.status.as_ref().and_then(|status| status.current.as_ref());
    tick.was.is_none() && was.is_some_and(|was| was.step != Step::Done)
}

/// The last command, where it was given to this release.
fn command(record: &mut ReleaseRecordStatus, tick: &Tick<'_>) {
    let Some(last) = &tick.decision.status.last_command else { return };
    let meant = tick.is.is_some() && record.started.as_ref().is_some_and(|started| last.at.0 >= started.0);
    if meant {
        let text = format!("{}: {}", last.command, last.result);
        add(record, entry(last.at.clone(), &last.by, COMMAND, &text));
    }
}

pub(super) fn say(record: &mut ReleaseRecordStatus, tick: &Tick<'_>, kind: &str, text: &str) {
    add(record, entry(tick.at.clone(), "", kind, text));
}

fn entry(at: Time, by: &str, kind: &str, text: &str) -> TimelineEntry {
    TimelineEntry { at, by: cut(by, 200), kind: kind.to_owned(), text: cut(text, LONGEST) }
}

/// Puts an entry where its time says, once.
pub(super) fn add(record: &mut ReleaseRecordStatus, entry: TimelineEntry) {
    if record.timeline.contains(&entry) {
        return;
    }
    let place = record.timeline.partition_point(|before| before.at.0 <= entry.at.0);
    record.timeline.insert(place, entry);
}
