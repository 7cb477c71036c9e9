//! A CanaryRelease that this build can't read, in the middle of a release and before any: it says so, nothing is done to
//! anything else, and what is put right goes on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use canary_world::run::{Outcome, play};
use canary_world::scenario::Scenario;
use canary_world::world::Entry;

fn played(script: &str) -> Outcome {
    let outcome = play(&script.parse::<Scenario>().unwrap(), 10);
    assert!(outcome.wrong.is_empty(), "{:#?}\n{}", outcome.wrong, outcome.log());
    outcome
}

/// Writes while the release could not be read, which is to be once.
fn written_unread(outcome: &Outcome) -> Vec<&Entry> {
    let said = outcome.journal.iter().position(|entry| entry.verb == "status" && entry.what.contains("can't read"));
    let said = said.unwrap_or_else(|| panic!("nobody says it:\n{}", outcome.log()));
    let again = outcome.journal[said..].iter().position(|entry| entry.write > 0 && !entry.what.contains("can't read"));
    let unread = &outcome.journal[said..said + again.unwrap()];
    unread.iter().filter(|entry| entry.write > 0).collect()
}

#[test]
fn a_spec_that_cant_be_read_under_way_stops_all_writes_until_it_is_put_right() {
    let outcome = played(
        "armed: push v2\n\
         Bake/2 +5s: forge CanaryRelease web /spec/interval \"whenever\"\n\
         then +60s: forge CanaryRelease web /spec/interval \"5s\"\n\
         end: Promoted\nserves: v2\n",
    );
    let written = written_unread(&outcome);
    assert_eq!(written.len(), 1, "{written:#?}");
    assert!(written[0].what.contains("spec.interval"), "{}", written[0]);
}

#[test]
fn a_status_that_cant_be_read_under_way_stops_all_writes_until_it_is_put_right() {
    let outcome = played(
        "armed: push v2\n\
         Bake/2 +5s: forge CanaryRelease web /status/current/stageIndex \"one\"\n\
         then +60s: forge CanaryRelease web /status/current/stageIndex 1\n\
         end: Promoted\nserves: v2\n",
    );
    let written = written_unread(&outcome);
    assert_eq!(written.len(), 1, "{written:#?}");
    assert!(written[0].what.contains("status.current.stageIndex"), "{}", written[0]);
}

#[test]
fn one_that_cant_be_read_when_the_operator_starts_is_armed_once_it_is_put_right() {
    let outcome = played(
        "start: forge CanaryRelease web /spec/stages \"all\"\n\
         then +60s: forge CanaryRelease web /spec/stages [{\"weight\": \"100%\", \"duration\": \"20s\"}]\n\
         armed: push v2\n\
         end: Promoted\nserves: v2\n",
    );
    assert_eq!(written_unread(&outcome).len(), 1);
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
    assert_eq!(written_unread(&outcome).len(), 1);
}
