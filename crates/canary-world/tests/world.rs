//! The world by itself: a run ends as it should, and the same run is the same to the byte.

use std::path::Path;

use canary_world::enumerate::replay;
use canary_world::run::play;
use canary_world::scenario::Scenario;

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
fn the_same_run_is_the_same_to_the_byte() {
    let (a, b) = (play(&scenario("good"), 10), play(&scenario("good"), 10));
    assert_eq!(a.log(), b.log());
    assert_eq!(a.state, b.state);
}

#[test]
fn a_scenario_reads_as_it_is_written() {
    for name in ["good", "breach-at-stage-2"] {
        let scenario = scenario(name);
        assert_eq!(scenario.to_string().parse::<Scenario>().unwrap(), scenario);
    }
}

/// What once went wrong, each as the run that showed it.
#[test]
fn what_was_found_stays_mended() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/found");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let scenario: Scenario = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        assert!(!scenario.faults.is_empty(), "{}: no fault", file.display());
        let wrong = replay(&scenario);
        assert!(wrong.is_empty(), "{}: {wrong:#?}", file.display());
    }
}
