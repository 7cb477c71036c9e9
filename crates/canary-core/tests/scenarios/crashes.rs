//! Die anywhere: after every single write, and with every read failing for a while.

use canary_api::Step;
use serde_json::json;

use crate::world::{Metrics, Read, World};

fn release(bad: bool, soak: &str, dies_after: Option<usize>) -> World {
    let mut world = World::new(json!({"soak": soak}));
    world.dies_after = dies_after;
    world.arm();
    if bad {
        world.faulty("v2", 0.2);
    }
    world.apply("v2").unwrap();
    world.finish();
    world
}

fn dies_after_every_write(bad: bool, soak: &str) {
    let whole = release(bad, soak, None);
    let writes = whole.written;
    assert!(writes > 15);
    for after in 1..=writes {
        let mut world = release(bad, soak, Some(after));
        assert_eq!(world.deaths, 1, "after {after} of {writes} writes");
        assert_eq!(world.outcome(), whole.outcome(), "dead after {after}: {}", world.describe());
        assert_eq!(world.trail, whole.trail, "dead after {after}: a step is repeated or skipped");
        assert_eq!(world.served(), whole.served());
        assert_eq!((world.image(), world.paused(), world.canary_pods()), (whole.image(), whole.paused(), 0));
        assert_eq!(world.unanswered, 0.0);
        world.assert_plain_route();
        if after % 5 == 0 {
            world.assert_rest();
        }
    }
}

#[test]
fn the_operator_may_die_after_every_write_of_a_good_release() {
    dies_after_every_write(false, "0s");
}

#[test]
fn the_operator_may_die_after_every_write_of_a_bad_release() {
    dies_after_every_write(true, "0s");
}

#[test]
fn an_operator_that_was_away_for_long_goes_on_where_it_was() {
    for after in 8..26 {
        let mut world = World::new(json!({}));
        world.arm();
        world.apply("v2").unwrap();
        world.dies_after = Some(after);
        world.until("it is dead", |world| world.deaths == 1);
        // Nobody follows for half an hour.
        let end = world.now + std::time::Duration::from_secs(1800);
        while world.now < end {
            world.step(std::time::Duration::from_secs(10));
        }
        let paused = |world: &World| world.status().current.is_some_and(|current| current.paused.is_some());
        world.until("it goes on", |world| paused(world) || world.place().0 == Step::Done);
        assert!(!paused(&world), "dead after {after}: {}", world.describe());
        assert_eq!(world.finish(), "Promoted", "dead after {after}: {}", world.describe());
        let trail: Vec<_> = world.trail.iter().map(|(_, step, stage)| (*step, *stage)).collect();
        assert_eq!(trail, crate::good::WHOLE, "dead after {after}");
        world.assert_plain_route();
    }
}

/// Goes through a whole release, the read failing for some ticks at every step; where it ends.
fn with_failing(read: Read, seconds: u64, bad: bool) -> World {
    let mut world = World::new(json!({"soak": "20s"}));
    world.arm();
    world.apply("v2").unwrap();
    let mut last = None;
    let mut bad_since = false;
    for _ in 0..4000 {
        if world.is_over() {
            break;
        }
        if bad && !bad_since && world.place().1 >= 1 && world.place().0 < Step::Roll {
            world.faulty("v2", 0.5);
            bad_since = true;
        }
        let place = world.place();
        if last != Some(place) {
            last = Some(place);
            world.unreadable.insert(read);
            let end = world.now + std::time::Duration::from_secs(seconds);
            while world.now < end && !world.is_over() {
                world.advance(end);
            }
            world.unreadable.clear();
        }
        // A stage that could not be judged for that long has no verdict.
        let paused = world.status().current.and_then(|current| current.paused);
        if let Some(paused) = paused {
            let reasons = ["Inconclusive", "RouteNotAccepted"];
            assert!(
                seconds >= 30 && reasons.contains(&paused.reason.as_str()),
                "{read:?} for {seconds}s: {}",
                world.describe()
            );
            world.command(&format!("resume {}", world.id()));
            world.run(2);
        }
        let end = world.now + std::time::Duration::from_secs(1);
        world.advance(end);
    }
    world.run(60);
    world
}

#[test]
fn a_read_that_fails_at_every_step_of_a_good_release_only_delays_it() {
    let whole = release(false, "20s", None);
    for read in Read::ALL {
        for seconds in [6, 40] {
            let mut world = with_failing(read, seconds, false);
            assert_eq!(world.outcome(), "Promoted", "{read:?} for {seconds}s: {}", world.describe());
            assert!(seconds > 30 || world.trail == whole.trail, "{read:?} for {seconds}s: {:?}", world.trail);
            assert_eq!((world.served(), world.unanswered), (vec!["web:v2".to_owned()], 0.0), "{read:?} for {seconds}s");
            world.assert_plain_route();
            world.assert_rest();
        }
    }
}

#[test]
fn a_read_that_fails_at_every_step_of_a_bad_release_lets_it_revert() {
    for read in Read::ALL {
        let mut world = with_failing(read, 6, true);
        assert_eq!(world.outcome(), "RolledBack", "{read:?}: {}", world.describe());
        assert_eq!((world.served(), world.unanswered), (vec!["web:v1".to_owned()], 0.0), "{read:?}");
        world.assert_plain_route();
        world.assert_rest();
    }
}

#[test]
fn traffic_goes_back_while_every_other_read_fails() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.faulty("v2", 0.5);
    world.unreadable.extend(Read::ALL.into_iter().filter(|read| {
        *read != Read::Routes && *read != Read::CanaryPods && *read != Read::Canary && *read != Read::ReplicaSets
    }));
    world.until("no traffic on the candidate", |world| world.weight() == 0);
    world.run(60);
    world.unreadable.clear();
    assert_eq!(world.finish(), "RolledBack", "{}", world.describe());
    world.assert_rest();
}

#[test]
fn an_outage_of_everything_keeps_the_traffic_where_it_is() {
    for place in [(Step::Bake, 0), (Step::Bake, 1), (Step::Bake, 2), (Step::Roll, 2)] {
        let mut world = World::with_release(json!({}), "v2", place);
        let weight = world.weight();
        world.unreadable.extend(Read::ALL);
        world.status_refused = true;
        world.run(1800);
        assert_eq!(world.weight(), weight, "{place:?}");
        world.unreadable.clear();
        world.status_refused = false;
        let paused = |world: &World| world.status().current.is_some_and(|current| current.paused.is_some());
        world.until("it goes on", |world| paused(world) || world.place().0 == Step::Done);
        if paused(&world) {
            world.command(&format!("resume {}", world.id()));
        }
        assert_eq!(world.finish(), "Promoted", "{place:?}: {}", world.describe());
        world.assert_rest();
    }
}

/// No metric from now on, and none was read lately when the next stage's pods are ready.
fn without_metrics_and_pods(world: &mut World) {
    world.block_new_pods("v2");
    world.metrics = Metrics::Down;
    world.run(30);
    world.unblock_pods();
}

#[test]
fn no_weight_is_raised_while_no_metric_can_be_read() {
    for stage in [1, 2] {
        let mut world = World::with_release(json!({"readyDeadline": "120s"}), "v2", (Step::Scale, stage));
        let weight = world.weight();
        without_metrics_and_pods(&mut world);
        world.run(60);
        assert_eq!((world.weight(), world.place().0), (weight, Step::Scale), "{}", world.describe());
        world.metrics = Metrics::Fine;
        assert_eq!(world.finish(), "Promoted", "{}", world.describe());

        let mut world = World::with_release(json!({"readyDeadline": "60s"}), "v2", (Step::Scale, stage));
        without_metrics_and_pods(&mut world);
        world.run(600);
        let paused = world.status().current.and_then(|current| current.paused).map(|paused| paused.reason);
        assert_eq!((world.weight(), paused.as_deref()), (weight, Some("Inconclusive")), "{}", world.describe());
        world.metrics = Metrics::Fine;
        world.command(&format!("resume {}", world.id()));
        assert_eq!(world.finish(), "Promoted", "{}", world.describe());
    }
}

#[test]
fn a_route_that_lost_its_weight_is_not_late_for_an_operator_that_was_away() {
    let mut world = World::with_release(json!({}), "v2", (Step::Bake, 1));
    world.delete("HTTPRoute", "web");
    world.until("the weight is gone", |world| world.place().0 == Step::Shift);
    world.unreadable.extend(Read::ALL);
    world.status_refused = true;
    world.create_route();
    world.run(3600);
    world.unreadable.clear();
    world.status_refused = false;
    assert_eq!(world.finish(), "Promoted", "{}", world.describe());
}
