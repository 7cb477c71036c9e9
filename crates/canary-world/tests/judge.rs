//! The judge itself: where a status is forged past every rule, what the operator then does wrong is told.
#![allow(clippy::unwrap_used)]

use canary_world::run::play;
use canary_world::scenario::Scenario;

#[track_caller]
fn tells(script: &str, of: &str) {
    let told = play(&script.parse::<Scenario>().unwrap(), 3).wrong;
    assert!(told.iter().any(|line| line.contains(of)), "{told:#?}");
}

#[test]
fn a_candidate_that_is_let_go_without_each_of_its_stages() {
    let script = "armed: push v2\n\
                  Bake/3 +2s: forge CanaryRelease web /status/current/step \"Roll\"\n\
                  end: Promoted\nserves: v2\n";
    tells(script, "web-1 is let go, and stage 3 never passed");
}

#[test]
fn a_promotion_that_nobody_asked_for() {
    let script = "armed: push v2\n\
                  Bake/3 +2s: forge CanaryRelease web /status/current/partial true\n\
                  then +1s: forge CanaryRelease web /status/current/step \"Roll\"\n\
                  end: Promoted\nserves: v2\n";
    tells(script, "web-1 is let go, and stage 3 never passed");
}

#[test]
fn a_candidate_that_answers_badly_and_stays() {
    // A limit that the judge does not ask for: the operator is right to go on, and the judge sees that it does.
    let script = "spec: {\"stages\": [{\"weight\": \"50%\", \"duration\": \"3m\"}, {\"weight\": \"100%\", \"duration\": \"20s\"}], \"gates\": [{\"name\": \"errors\", \
                  \"errorRate\": {\"bad\": \"bad_total\", \"total\": \"requests_total\", \"limit\": \"40%\"}}]}\n\
                  armed: push v2\n\
                  Bake/1 +1s: v2 errors 30%\n\
                  end: Promoted\nserves: v2\n";
    tells(script, "I12 at 00:01:");
}

#[test]
fn a_stage_that_passes_before_its_job_has_ended() {
    let script = "start: cronjob smoke exits 0 after 600s\n\
                  spec: {\"jobs\": [{\"name\": \"smoke\", \"cronJob\": \"smoke\", \"at\": \"Stage\", \"stages\": [\"10%\"]}]}\n\
                  armed: push v2\n\
                  Bake/1 +5s: forge CanaryRelease web /status/current/jobs/0/state \"Succeeded\"\n\
                  end: Promoted\nserves: v2\n";
    tells(script, "job smoke is not done");
}

#[test]
fn weight_before_the_job_before_the_start_has_succeeded() {
    let script = "start: cronjob seed exits 1 after 600s\n\
                  spec: {\"jobs\": [{\"name\": \"seed\", \"cronJob\": \"seed\", \"at\": \"BeforeStart\"}]}\n\
                  armed: push v2\n\
                  Baseline +3s: forge CanaryRelease web /status/current/jobs/0/state \"Succeeded\"\n\
                  end: Promoted\nserves: v2\n";
    tells(script, "job seed is not done");
}

#[test]
fn a_retry_that_is_taken_with_a_template_pushed_after_it_is_that_ones() {
    let script = "spec: {\"stages\": [{\"weight\": \"20%\", \"duration\": \"10s\"}, {\"weight\": \"100%\", \"duration\": \"10s\"}], \"baseline\": {\"duration\": \"5s\"}, \"drain\": \"4s\", \"onRevert\": \"Hold\"}\n\
                  armed: push v3\n\
                  then +6s: command abort\n\
                  then +60s: push v4\n\
                  then +390s: command retry\n\
                  then: push v3\n\
                  end: Promoted\nserves: v3\n";
    assert_eq!(play(&script.parse::<Scenario>().unwrap(), 3).wrong, Vec::<String>::new());
}

#[test]
fn a_retry_that_was_refused_before_is_for_no_template_pushed_after_it() {
    let script = "spec: {\"stages\": [{\"weight\": \"20%\", \"duration\": \"10s\"}, {\"weight\": \"100%\", \"duration\": \"10s\"}], \"baseline\": {\"duration\": \"5s\"}, \"drain\": \"4s\", \"onRevert\": \"Hold\"}\n\
                  armed: push v3\n\
                  then +6s: command abort\n\
                  then +60s: push v4\n\
                  then +390s: command retry\n\
                  then +60s: push v3\n\
                  end: Aborted\nserves: v4\n";
    assert_eq!(play(&script.parse::<Scenario>().unwrap(), 3).wrong, Vec::<String>::new());
}
