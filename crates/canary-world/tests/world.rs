//! The world by itself: a run ends as it should, and the same run is the same to the byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use canary_api::Step;
use canary_world::contract;
use canary_world::enumerate::held_against;
use canary_world::run::play;
use canary_world::scenario::Scenario;
use canary_world::server::plain_client;
use canary_world::walk::{LENGTH, walk, walks};
use canary_world::world::{Entry, World};

fn scenario(name: &str) -> Scenario {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.txt"));
    std::fs::read_to_string(file).unwrap().parse().unwrap()
}

#[test]
fn a_good_release_is_promoted_by_the_operators_own_code() {
    let outcome = play(&scenario("good"), 10);
    assert!(outcome.wrong.is_empty(), "{:#?}\n{}", outcome.wrong, outcome.log());
    assert_eq!((outcome.end.as_str(), outcome.serves.as_slice()), ("Promoted", ["v2".to_owned()].as_slice()));
}

#[test]
fn a_target_that_was_gone_for_a_moment_is_held_and_no_release_is_told_of() {
    let breach = scenario("breach-while-shifting");
    let base = play(&breach, 3);
    let over = |entry: &Entry| entry.place.is_some_and(|(step, _)| step == Step::Done);
    let of_target = |entry: &&Entry| (entry.verb, entry.plural, entry.name.as_str()) == ("get", "deployments", "web");
    let read = base.journal[..base.reached].iter().filter(of_target).rfind(|entry| over(entry));
    let read = read.expect("the target is read when all is over");
    let faults = format!("fault request {}: answer 404\n", read.request);
    let outcome = play(&format!("{breach}{faults}").parse().unwrap(), 3);
    let said =
        outcome.journal.iter().rfind(|entry| entry.verb == "status" && entry.plural == "canaryreleases").unwrap();
    let held = "Deployment web is held: the next change of its template starts a release";
    assert!(said.what.ends_with(held), "{said}");
}

#[test]
fn the_same_run_is_the_same_to_the_byte() {
    let (a, b) = (play(&scenario("good"), 10), play(&scenario("good"), 10));
    assert_eq!(a.log(), b.log());
    assert_eq!(a.state, b.state);
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn read(file: &Path) -> Scenario {
    std::fs::read_to_string(file).unwrap().parse().unwrap_or_else(|why| panic!("{}: {why}", file.display()))
}

#[test]
fn a_scenario_reads_as_it_is_written() {
    for file in [files("scenarios"), files("tests/found")].concat() {
        let scenario = read(&file);
        assert_eq!(scenario.to_string().parse::<Scenario>().unwrap(), scenario, "{}", file.display());
    }
}

#[test]
fn walks_that_are_cut_off_go_on_with_the_one_that_comes_next() {
    let rest = walks(7, 3 * LENGTH, 2, None, &|_| ());
    assert_eq!((rest.walks, rest.actions, rest.next), (1, LENGTH, 3), "{:?}", rest.failures);
    let cut = walks(7, 3 * LENGTH, 2, Some(Instant::now()), &|_| ());
    assert_eq!((cut.walks, cut.next), (0, 2));
}

#[test]
fn a_walk_reads_as_it_is_written_and_its_seed_gives_it_again() {
    for seed in 0..50 {
        let scenario = walk(seed);
        assert_eq!(scenario.to_string().parse::<Scenario>().unwrap(), scenario, "{seed}");
        assert_eq!(walk(seed), scenario);
    }
}

#[test]
fn every_scenario_ends_as_it_says_where_nothing_goes_wrong() {
    let files = files("scenarios");
    assert!(files.len() >= 24, "{}", files.len());
    for file in files {
        let outcome = play(&read(&file), 10);
        assert!(outcome.wrong.is_empty(), "{}: {:#?}", file.display(), outcome.wrong);
    }
}

#[test]
fn the_api_server_answers_as_the_contract_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (asked, wrong) = runtime.block_on(async {
        let world = World::new();
        // A real one is asked before the policies are there.
        world.lock().api.admission.status = false;
        contract::differences(&plain_client(&world, "system:admin"), "contract").await
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(asked > 40, "{asked}");
}

#[test]
fn the_policies_do_as_the_contract_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (asked, wrong) = runtime.block_on(async {
        let world = World::new();
        world.lock().api.admission.lacking = contract::policies::lacking();
        contract::differences_in_policy(&plain_client(&world, "system:admin"), "contract").await
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(asked > 150, "{asked}");
}

/// What once went wrong, each as the run that showed it.
#[test]
fn what_was_found_stays_mended() {
    let files = files("tests/found");
    assert!(!files.is_empty());
    for file in files {
        let scenario = read(&file);
        assert!(!scenario.faults.is_empty(), "{}: no fault", file.display());
        let wrong = held_against(&scenario, &play(&scenario, 3));
        assert!(wrong.is_empty(), "{}: {wrong:#?}", file.display());
    }
}

#[test]
fn runs_that_are_played_together_go_as_they_do_alone() {
    let all = "crashes,answers,stale,leaders,outages,clocks,watch,corruption,acts,pairs";
    let files = files("scenarios").into_iter().filter(|file| file.ends_with("good.txt") || file.ends_with("abort.txt"));
    let done = Command::new(env!("CARGO_BIN_EXE_canary-world"))
        .args(["every", "--twice", "--resyncs", "1", "--points", "30", all])
        .args(files)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let summary = said.lines().find(|line| line.starts_with("2 scenarios: 30 of ")).unwrap_or_default();
    assert!(summary.contains(", 0 failed"), "{said}");
    assert!(done.status.success(), "{}: {said}", done.status);
}
