//! The incident of a release as people saw it, and the timeline in which their entries stand among the operator's.

use canary_api::{Incident, Moment, Severity, TimelineEntry};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::Serialize;

use crate::facts::{EntryFacts, clock, known};
use crate::harmless::line;

/// The kind of an entry that people wrote down.
const PEOPLE: &str = "People";

/// An incident, as people saw it.
#[derive(Debug, Clone, Serialize)]
pub struct IncidentFacts {
    /// P0 to P3.
    pub severity: Option<&'static str>,
    /// Who was affected, and how.
    pub impact: Option<String>,
    /// Rollback or fix forward, and why.
    pub decision: Option<String>,
    /// Who was told, and when.
    pub notified: Vec<String>,
    /// The meeting that looks back on it.
    pub retrospective: RetrospectiveFacts,
    /// What is to be done.
    pub actions: Vec<ActionFacts>,
}

/// A meeting that looks back on an incident.
#[derive(Debug, Clone, Serialize)]
pub struct RetrospectiveFacts {
    /// When.
    pub date: Option<String>,
    /// Whether it was held.
    pub done: bool,
}

/// Something that is to be done.
#[derive(Debug, Clone, Serialize)]
pub struct ActionFacts {
    /// What.
    pub text: Option<String>,
    /// Who does it.
    pub owner: Option<String>,
    /// By when.
    pub due: Option<String>,
}

pub(crate) fn facts(incident: &Incident) -> IncidentFacts {
    let action = |action: &canary_api::Action| ActionFacts {
        text: known(&action.text),
        owner: known(&action.owner),
        due: known(&action.due),
    };
    IncidentFacts {
        severity: incident.severity.map(|severity| match severity {
            Severity::P0 => "P0",
            Severity::P1 => "P1",
            Severity::P2 => "P2",
            Severity::P3 => "P3",
        }),
        impact: known(&incident.impact),
        decision: known(&incident.decision),
        notified: incident.notified.iter().filter_map(|text| known(text)).collect(),
        retrospective: RetrospectiveFacts {
            date: known(&incident.retrospective.date),
            done: incident.retrospective.done,
        },
        actions: incident.actions.iter().map(action).collect(),
    }
}

/// Both lists in order of time, at one moment the operator's first; entries without a moment that can be read are last.
pub(crate) fn timeline(operator: &[TimelineEntry], people: &[Moment]) -> Vec<EntryFacts> {
    let theirs = people.iter().map(|told| {
        let at = moment(&told.at);
        let shown = at.map(clock).or_else(|| known(&told.at)).unwrap_or_else(|| "time not given".to_owned());
        (at, EntryFacts { at: shown, kind: PEOPLE.to_owned(), by: None, text: line(&told.text), people: true })
    });
    let mut all: Vec<(Option<Timestamp>, EntryFacts)> =
        operator.iter().map(|seen| (Some(seen.at.0), entry(seen))).chain(theirs).collect();
    all.sort_by_key(|(at, _)| (at.is_none(), *at));
    all.into_iter().map(|(_, entry)| entry).collect()
}

fn entry(entry: &TimelineEntry) -> EntryFacts {
    EntryFacts {
        at: clock(entry.at.0),
        kind: line(&entry.kind),
        by: known(&entry.by),
        text: line(&entry.text),
        people: false,
    }
}

/// A moment as people write it; without a zone it is UTC.
fn moment(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse::<Timestamp>().ok().or_else(|| {
        let plain = text.strip_suffix("UTC").unwrap_or(text).trim_end();
        let at: DateTime = plain.parse().ok()?;
        TimeZone::UTC.to_timestamp(at).ok()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn people_and_operator_stand_in_order_of_time() {
        let seen = |at: &str, text: &str| -> TimelineEntry {
            serde_json::from_value(serde_json::json!({"at": at, "kind": "Decision", "text": text})).unwrap()
        };
        let told = |at: &str, text: &str| Moment { at: at.to_owned(), text: text.to_owned() };
        let operator = [seen("2026-11-21T12:00:00Z", "a"), seen("2026-11-21T12:10:00Z", "d")];
        let people = [
            told("soon after", "f"),
            told("2026-11-21 12:00", "b"),
            told("2026-11-21 12:11 UTC", "e"),
            told("2026-11-21T13:05:00+01:00", "c"),
            told("", "g"),
        ];
        let all = timeline(&operator, &people);
        assert_eq!(all.iter().map(|entry| entry.text.as_str()).collect::<String>(), "abcdefg");
        assert_eq!(all[1].at, "2026-11-21 12:00:00 UTC");
        assert_eq!((all[2].at.as_str(), all[2].people, all[3].people), ("2026-11-21 12:05:00 UTC", true, false));
        assert_eq!((all[5].at.as_str(), all[6].at.as_str()), ("soon after", "time not given"));
    }
}
