//! A model check of `decide`: two leaders, three stages, and any order of verdicts, edits, deaths, delays and failing
//! writes of the status, in a finite cluster ([`cluster`]), searched whole ([`search`]). What is
//! abstracted: time has three ages, the verdict of each tick is free, what a tick reads beside the CanaryRelease it reads
//! at one instant, and people make a bounded number of edits. That the search can fail is shown by breaking what it
//! checks.
// A test that overflows or indexes wrongly panics, as it should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

#[path = "model/cluster.rs"]
mod cluster;
#[path = "model/promises.rs"]
mod promises;
#[path = "model/search.rs"]
mod search;

use canary_core::{Decision, Observed, decide, gates::Measure};
use jiff::Timestamp;
use search::{Found, Model};

fn model() -> Model {
    Model { decide, edits: 1, mishaps: 1, leaders: 2, looks_again: true, status_fails: false, limit: usize::MAX }
}

/// The figures, which `--nocapture` shows; all that was promised holds, and nothing was left out.
fn holds(found: &Found) {
    println!("{} states, {} moves, {} different objects", found.states, found.moves, found.values);
    if let Some(broken) = &found.broken {
        panic!("{broken}");
    }
    assert!(found.complete);
}

/// The promise that is broken, with the fewest moves.
fn breaks(model: Model, promise: &str) {
    let found = Model { limit: 300_000, ..model }.search();
    let broken = found.broken.unwrap_or_else(|| panic!("{promise} is not broken in {} states", found.states));
    assert!(broken.starts_with(promise), "{broken}");
}

#[test]
fn one_leader_keeps_the_promises_also_where_no_status_can_be_written() {
    holds(&Model { leaders: 1, status_fails: true, ..model() }.search());
}

#[test]
fn two_leaders_keep_the_promises_whatever_dies_or_is_late() {
    holds(&Model { mishaps: 0, status_fails: true, ..model() }.search());
}

/// With more edits and mishaps (environment variables EDITS and MISHAPS), by hand:
/// `cargo test -p canary-core --test model -- --ignored --nocapture`.
#[test]
#[ignore = "takes long"]
fn two_leaders_keep_the_promises_through_edits_and_mishaps() {
    let number = |name: &str, usual: u8| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    holds(&Model { edits: number("EDITS", 2), mishaps: number("MISHAPS", 1), ..model() }.search());
}

/// That a tick looks again before it acts is not all that keeps pods under traffic: those of a release that it does not
/// know of it drains. The beginning of the search alone; whole it takes long.
#[test]
fn a_tick_that_does_not_look_again_takes_no_pods_away_under_traffic_either() {
    let found = Model { looks_again: false, status_fails: true, edits: 2, limit: 100_000, ..model() }.search();
    assert_eq!(found.broken, None);
    assert!(found.states >= 100_000);
}

#[test]
fn a_stage_that_passes_without_a_verdict_is_found() {
    fn blind(observed: &Observed, now: Timestamp) -> Decision {
        let mut observed = observed.clone();
        for reading in &mut observed.measured.readings {
            if let Measure::NoData(_) = reading.canary {
                reading.canary = Measure::Number { value: 1.0, streak: 0 };
            }
        }
        decide(&observed, now)
    }
    breaks(Model { decide: blind, leaders: 1, ..model() }, "I1");
}

#[test]
fn a_skipped_stage_is_found() {
    fn hasty(observed: &Observed, now: Timestamp) -> Decision {
        let mut decision = decide(observed, now);
        let was = observed.release.status.as_ref().and_then(|status| status.current.as_ref());
        let now = decision.status.current.as_mut();
        if let (Some(was), Some(now)) = (was, now)
            && now.stage_index == was.stage_index + 1
        {
            now.stage_index += 1;
        }
        decision
    }
    breaks(Model { decide: hasty, leaders: 1, ..model() }, "I6: one stage at most");
}

#[test]
fn pods_that_go_before_their_drain_are_found() {
    fn careless(observed: &Observed, now: Timestamp) -> Decision {
        let mut observed = observed.clone();
        observed.release.spec.drain = canary_api::Duration::from_secs(0);
        decide(&observed, now)
    }
    breaks(Model { decide: careless, leaders: 1, ..model() }, "I4");
}

#[test]
fn a_forgotten_breach_is_found() {
    fn forgetful(observed: &Observed, now: Timestamp) -> Decision {
        let mut observed = observed.clone();
        let current = observed.release.status.as_mut().and_then(|status| status.current.as_mut());
        if let Some(current) = current
            && current.revert.take().is_some()
        {
            current.step = canary_api::Step::Bake;
        }
        decide(&observed, now)
    }
    breaks(Model { decide: forgetful, leaders: 1, ..model() }, "I2");
}
