//! A CanaryRelease that this build can't read, in the middle of a release and before any: it says so, nothing is done to
//! anything else, and what is put right goes on.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::time::Duration;

use canary_world::run::{Outcome, play};
use canary_world::scenario::Scenario;
use canary_world::world::Entry;

fn played(script: &str) -> Outcome {
    let outcome = play(&script.parse::<Scenario>().unwrap(), 10);
    assert!(outcome.wrong.is_empty(), "{:#?}\n{}", outcome.wrong, outcome.log());
    outcome
}

/// The only write in all the time in which the release could not be read, which was a minute.
fn written_unread(outcome: &Outcome) -> &Entry {
    let of_status = |entry: &&Entry| entry.verb == "status" && entry.what.contains("can't read");
    let said = outcome.journal.iter().find(of_status);
    let said = said.unwrap_or_else(|| panic!("nobody says it:\n{}", outcome.log()));
    let unread = said.at..said.at + Duration::from_secs(50);
    let written: Vec<&Entry> =
        outcome.journal.iter().filter(|entry| entry.write > 0 && unread.contains(&entry.at)).collect();
    assert_eq!(written, [said], "{}", outcome.log());
    said
}

/// A field of a release under way can't be read for a minute.
fn unreadable_under_way(pointer: &str, wrong: &str, right: &str) -> Outcome {
    played(&format!(
        "armed: push v2\n\
         Bake/2 +5s: forge CanaryRelease web {pointer} {wrong}\n\
         then +60s: forge CanaryRelease web {pointer} {right}\n\
         end: Promoted\nserves: v2\n"
    ))
}

#[test]
fn a_spec_that_cant_be_read_under_way_stops_all_writes_until_it_is_put_right() {
    let outcome = unreadable_under_way("/spec/interval", "\"whenever\"", "\"5s\"");
    let said = written_unread(&outcome);
    assert!(said.what.contains("spec.interval"), "{said}");
}

#[test]
fn a_status_that_cant_be_read_under_way_stops_all_writes_until_it_is_put_right() {
    let outcome = unreadable_under_way("/status/current/stageIndex", "\"one\"", "1");
    let said = written_unread(&outcome);
    assert!(said.what.contains("status.current.stageIndex"), "{said}");
}

#[test]
fn one_that_cant_be_read_when_the_operator_starts_is_armed_once_it_is_put_right() {
    let outcome = played(
        "start: forge CanaryRelease web /spec/stages \"all\"\n\
         then +60s: forge CanaryRelease web /spec/stages [{\"weight\": \"100%\", \"duration\": \"20s\"}]\n\
         armed: push v2\n\
         end: Promoted\nserves: v2\n",
    );
    written_unread(&outcome);
    assert!(outcome.journal.iter().any(|entry| entry.plural == "httproutes" && entry.write > 0));
}

#[test]
fn a_breach_that_nobody_could_read_about_is_found_as_soon_as_it_is_put_right() {
    let outcome = played(
        "armed: push v2\n\
         Bake/2 +5s: forge CanaryRelease web /spec/interval \"whenever\"\n\
         then +1s: v2 errors 30%\n\
         then +60s: forge CanaryRelease web /spec/interval \"5s\"\n\
         end: RolledBack\nserves: v1\n",
    );
    let said = written_unread(&outcome).at;
    let taken_back =
        outcome.journal.iter().find(|entry| entry.plural == "httproutes" && entry.write > 0 && entry.at > said);
    let after = taken_back.unwrap().at.duration_since(said).unsigned_abs();
    assert!(after < Duration::from_secs(90), "{after:?}\n{}", outcome.log());
}
