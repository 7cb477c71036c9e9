//! The status in words: what is said at each step, at rest and when something is missing, what a reader is advised to
//! do, and what the conditions come to.

use std::time::Duration;

use canary_api::{BaselinePods, CanaryReleaseStatus, JobAt, JobState, JobStatus, Phase, Step};
use canary_core::{Fetched, Observed, decide};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::{
    changes::{reverting, rolled_back},
    world::{Sight, World, current, failed, image, known, pause, status, target},
};

/// Type, status and reason of each condition.
fn conditions(status: &CanaryReleaseStatus) -> Vec<(&str, &str, &str)> {
    let all = status.conditions.iter();
    all.map(|one| (one.type_.as_str(), one.status.as_str(), one.reason.as_str())).collect()
}

fn in_progress(reason: &str) -> [(&str, &str, &str); 4] {
    [
        ("Ready", "False", reason),
        ("Reconciling", "True", reason),
        ("Stalled", "False", reason),
        ("Completed", "False", "InProgress"),
    ]
}

/// What the status advises.
fn advice(status: &CanaryReleaseStatus) -> &str {
    status.summary.last().unwrap().strip_prefix("What to do: ").unwrap()
}

fn command(verb: &str) -> String {
    format!("kubectl annotate crel web -n shop canaryrelease.dev/command='{verb} web-1'")
}

/// A release of v2 in its second stage.
fn baking() -> Sight {
    Sight::of(&World::with_release(json!({}), "v2", (Step::Bake, 1)))
}

#[test]
fn each_step_is_told_with_its_phase_its_stage_and_when_it_ends() {
    let mut world = World::new(json!({"soak": "60s"}));
    world.arm();
    world.apply("v2").unwrap();
    let back = "web-1: traffic goes back to Service web, which is the new version";
    for (place, phase, text, lasts) in [
        ((Step::Baseline, 0), Phase::Baseline, "web-1: the stable version is measured until ", 20),
        ((Step::Scale, 1), Phase::Scaling, "web-1: the canary is scaled to 2 pods for stage 2/3; ", 0),
        ((Step::Shift, 1), Phase::Shifting, "web-1: stage 2/3, 50% is written to the routes; ", 0),
        ((Step::Bake, 1), Phase::Baking, "web-1: stage 2/3 at 50% until ", 30),
        ((Step::Roll, 2), Phase::Promoting, "web-1: every stage has passed, Deployment web rolls; ", 0),
        ((Step::HandBack, 2), Phase::Promoting, back, 0),
        ((Step::Drain, 2), Phase::Promoting, back, 0),
        ((Step::Soak, 2), Phase::Soaking, "web-1: promoted, the gates watch on until ", 60),
    ] {
        world.reach(place);
        let mut seen = world.seen("web");
        let begun = current(&mut seen).step_since.clone().unwrap().0;
        let told = decide(&seen, world.now).status;
        if lasts > 0 {
            assert_eq!(told.message, format!("{text}{}", begun + Duration::from_secs(lasts)), "{place:?}");
        } else {
            assert!(told.message.starts_with(text), "{place:?}: {}", told.message);
        }
        assert_eq!((told.phase, told.stage), (phase, format!("{}/3", place.1 + 1)), "{place:?}");
        assert_eq!(conditions(&decide(&seen, world.now).status), in_progress(phase.as_str()), "{place:?}");
    }
}

#[test]
fn a_revert_is_told_with_its_reason() {
    for step in [Step::Revert, Step::RevertDrain] {
        let world = reverting("Hold", (step, 1));
        let told = world.decide().status;
        let why = world.status().current.unwrap().revert.unwrap().message;
        assert!(told.message.starts_with(&format!("web-1: reverting: {why}; ")), "{}", told.message);
        assert_eq!((told.phase, told.stage.as_str()), (Phase::Reverting, "2/3"));
        assert_eq!(conditions(&told), in_progress("Reverting"));
        assert_eq!(advice(&told), "nothing, stable takes the traffic back");
    }
}

#[test]
fn a_stage_that_was_extended_ends_later_and_says_so() {
    let mut seen = baking().seen;
    let begun = current(&mut seen).step_since.clone().unwrap().0;
    let told = |seen: &Observed, given: Option<Duration>| {
        let mut seen = seen.clone();
        current(&mut seen).extended_since = given.map(|given| Time(begun + given));
        decide(&seen, begun + Duration::from_secs(5)).status.message
    };
    let until = |seconds| format!("web-1: stage 2/3 at 50% until {}", begun + Duration::from_secs(seconds));
    assert_eq!(told(&seen, None), until(30));
    // From when it is extended, which may be long after its planned end. Times are told in whole seconds.
    for (given, ends) in [(30_000, 60), (30_600, 61), (3_600_000, 3_630)] {
        assert_eq!(told(&seen, Some(Duration::from_millis(given))), format!("{}, extended once", until(ends)));
    }
    // A step whose beginning is not known began now.
    current(&mut seen).step_since = None;
    assert_eq!(told(&seen, None), until(35));
}

#[test]
fn a_pause_says_by_whom_since_when_where_the_traffic_is_and_how_to_go_on() {
    let Sight { mut seen, now } = baking();
    for (without_weight, place) in
        [(false, "50% of the traffic stays on the candidate"), (true, "traffic is on stable")]
    {
        pause(&mut seen, Time(now), "Command", without_weight);
        let told = decide(&seen, now).status;
        assert_eq!(told.message, format!("paused by user jane since {now}: {place}"));
        assert_eq!(advice(&told), format!("{} once it is mended (Command), or abort", command("resume")));
        assert_eq!((told.phase, conditions(&told)), (Phase::Paused, in_progress("Paused").to_vec()));
        seen.service = Fetched::Missing;
        let told = decide(&seen, now).status;
        assert_eq!(told.message, format!("paused by user jane since {now}: {place}; Service web is gone, put it back"));
        seen.service = failed();
        assert_eq!(decide(&seen, now).status.message, format!("paused by user jane since {now}: {place}"));
    }
}

#[test]
fn a_service_that_is_gone_is_said_once_and_what_to_do_about_it() {
    let mut world = World::with_release(json!({"soak": "60s"}), "v2", (Step::Bake, 1));
    let without_service = |world: &World| world.decided(|seen| seen.service = Fetched::Missing).status;
    let told = without_service(&world);
    assert!(told.message.ends_with("Z; Service web is gone, put it back"), "{}", told.message);
    assert_eq!(advice(&told), "put it back: Service web is gone");
    world.reach((Step::Soak, 2));
    let told = without_service(&world);
    assert_eq!(told.message, "web-1: promoted, the gates watch on; Service web is gone: that is no time of the soak");
}

#[test]
fn a_message_is_cut_at_a_thousand_characters_and_a_line_of_the_summary_at_five_hundred() {
    let Sight { mut seen, now } = baking();
    let release = current(&mut seen);
    release.id = "é".repeat(2000);
    release.candidate.images = vec!["é".repeat(2000)];
    let told = decide(&seen, now).status;
    assert_eq!(told.message, "é".repeat(1000));
    assert_eq!(told.summary[1], format!("Candidate: {}", "é".repeat(489)));
}

/// What is said at rest, where nothing is looked at: the ReplicaSets can't be read.
fn at_rest() -> Sight {
    Sight::of(&rolled_back("Hold")).seeing(|seen| seen.replica_sets = failed())
}

fn ended(completed: &str, ready: bool) -> [(&str, &str, &str); 4] {
    let (ready, stalled) = if ready { ("True", "False") } else { ("False", "True") };
    [
        ("Ready", ready, completed),
        ("Reconciling", "False", completed),
        ("Stalled", stalled, completed),
        ("Completed", "True", completed),
    ]
}

#[test]
fn at_rest_the_message_tells_how_the_last_release_ended() {
    let Sight { seen: ready, now } = at_rest();
    let idle =
        |last: &str| format!("Deployment web is held: the next change of its template starts a release (last: {last})");
    let rejected = "the template of Deployment web was rejected before: it is held and not released";
    for (outcome, reverted, same, phase, said) in [
        ("RolledBack", true, true, Phase::RolledBack, "web-1 RolledBack at stage 2/3: why".to_owned()),
        ("Aborted", true, true, Phase::Aborted, "web-1 Aborted at stage 2/3: why".to_owned()),
        ("RolledBack", true, false, Phase::RolledBack, rejected.to_owned()),
        ("Aborted", false, true, Phase::Aborted, rejected.to_owned()),
        ("RolledBack", false, false, Phase::RolledBack, rejected.to_owned()),
        ("Superseded", true, true, Phase::Idle, idle("Superseded")),
        ("Promoted", true, true, Phase::Promoted, idle("Promoted")),
        ("Promoted", false, true, Phase::Promoted, "web-1 promoted: web:v2, side:v2 is live".to_owned()),
        ("Promoted", false, false, Phase::Promoted, "web-1 promoted: web:v2, side:v2 is live".to_owned()),
        ("Ungated", false, true, Phase::Idle, idle("Ungated")),
    ] {
        let mut seen = ready.clone();
        let release = current(&mut seen);
        release.candidate.images = vec!["web:v2".to_owned(), "side:v2".to_owned()];
        release.revert.as_mut().unwrap().message = "why".to_owned();
        let of = release.candidate.digest.clone();
        if !reverted {
            release.revert = None;
        }
        let status = status(&mut seen);
        status.outcome = outcome.to_owned();
        status.observed_template = if same { of } else { "sha256:another".to_owned() };
        let told = decide(&seen, now).status;
        let what = format!("{outcome}, reverted {reverted}, of the same template {same}");
        assert_eq!((told.message.as_str(), told.phase), (said.as_str(), phase), "{what}");
        let good = !matches!(phase, Phase::RolledBack | Phase::Aborted);
        assert_eq!((conditions(&told), told.stage.as_str()), (ended(outcome, good).to_vec(), "2/3"), "{what}");
    }
}

#[test]
fn at_rest_a_reader_is_advised_by_how_the_last_release_ended_and_whether_it_is_held() {
    let ready = at_rest();
    let retry = format!(
        "write a template that mends it, or put the serving one back; to release the same again: {}",
        command("retry")
    );
    let apply = "apply a template that mends it; the rejected one would be held".to_owned();
    let nothing = "nothing; change the Deployment's template to start a release".to_owned();
    for (outcome, held, expected) in [
        ("RolledBack", true, &retry),
        ("Aborted", true, &retry),
        ("RolledBack", false, &apply),
        ("Aborted", false, &apply),
        ("Promoted", true, &nothing),
        ("Superseded", false, &nothing),
    ] {
        let done = ready.decided(|seen| {
            status(seen).outcome = outcome.to_owned();
            target(seen)["spec"]["paused"] = json!(held);
        });
        assert_eq!(advice(&done.status), expected, "{outcome}, held {held}");
    }
}

#[test]
fn before_the_first_release_the_hold_is_told() {
    let world = World::armed();
    let mut seen = world.seen("web");
    let told = decide(&seen, world.now).status;
    assert_eq!(told.message, "Deployment web is held: the next change of its template starts a release");
    assert_eq!((told.phase, told.stage.as_str(), told.observed_generation), (Phase::Idle, "", 1));
    let armed = [
        ("Ready", "True", "Armed"),
        ("Reconciling", "False", "Armed"),
        ("Stalled", "False", "Armed"),
        ("Completed", "False", "NoRelease"),
    ];
    assert_eq!(conditions(&told), armed);
    let digest: String = status(&mut seen).hold.clone().unwrap().serving.unwrap().digest.chars().take(19).collect();
    let nothing = "What to do: nothing; change the Deployment's template to start a release".to_owned();
    assert_eq!(told.summary, [format!("Serving: web:v1 ({digest})"), nothing]);
    for condition in &told.conditions {
        assert_eq!((condition.message.as_str(), condition.observed_generation), (told.message.as_str(), Some(1)));
    }
}

#[test]
fn an_obstacle_is_the_message_and_says_whether_a_person_has_to_mend_it() {
    let world = World::armed();
    let mend = "mend what the message names; it is looked at again by itself";
    for (service, message, reason, stalled, what_to_do) in [
        (Fetched::Missing, "there is no Service web in namespace shop", "ServiceNotFound", true, mend),
        (
            failed(),
            "Service web could not be read: timeout",
            "ServiceUnreadable",
            false,
            "nothing, this passes by itself",
        ),
    ] {
        let told = world.decided(|seen| seen.service = service).status;
        assert_eq!((told.message.as_str(), told.phase, advice(&told)), (message, Phase::Pending, what_to_do));
        let text = |truth: bool| if truth { "True" } else { "False" };
        let expected = [
            ("Ready", "False", reason),
            ("Reconciling", text(!stalled), reason),
            ("Stalled", text(stalled), reason),
            ("Completed", "False", "NoRelease"),
        ];
        assert_eq!(conditions(&told), expected);
    }
}

#[test]
fn while_it_can_not_be_held_the_last_releases_stage_is_not_told() {
    let Sight { mut seen, now } = at_rest();
    assert_eq!(decide(&seen, now).status.stage, "2/3");
    seen.service = Fetched::Missing;
    let told = decide(&seen, now).status;
    assert_eq!((told.phase, told.stage.as_str()), (Phase::Pending, ""));
    // A release that a status of before has no name of has no stage either.
    let Sight { mut seen, now } = at_rest();
    current(&mut seen).id.clear();
    assert_eq!(decide(&seen, now).status.stage, "");
}

#[test]
fn a_target_that_runs_what_was_not_released_is_pending_until_it_is_held_again() {
    let world = World::armed();
    let done = world.decided(|seen| {
        image(target(seen), "web:v3");
        known(&mut seen.replica_sets).iter_mut().for_each(|set| image(set, "web:v3"));
        let served = status(seen).hold.as_mut().unwrap().serving.as_mut().unwrap();
        served.replica_set = "gone".to_owned();
    });
    assert_eq!((done.status.outcome.as_str(), done.status.hold.unwrap().armed), ("Ungated", false));
    assert_eq!(done.status.phase, Phase::Pending);
}

#[test]
fn the_summary_of_a_release_tells_versions_traffic_blind_stages_and_pods() {
    let Sight { mut seen, now } = baking();
    let short = |digest: &str| digest.chars().take("sha256:".len() + 12).collect::<String>();
    let serving = short(&status(&mut seen).hold.clone().unwrap().serving.unwrap().digest);
    let release = current(&mut seen);
    let digest = short(&release.candidate.digest);
    release.blind = ["one", "two", "three"].map(str::to_owned).to_vec();
    release.canary_labels = [("app".to_owned(), "web-canary".to_owned())].into();
    let mut expected = vec![
        format!("Serving: web:v1 ({serving})"),
        format!("Candidate: web:v2 ({digest}), changed by jane"),
        "Traffic: 50% to the candidate; callers that bypass the route stay on stable until promotion".to_owned(),
        "Blind: one".to_owned(),
        "Blind: two".to_owned(),
        "Canary: 2 pods, labelled app=web-canary".to_owned(),
        format!("What to do: nothing; to end it: {}", command("abort")),
    ];
    assert_eq!(decide(&seen, now).status.summary, expected);
    current(&mut seen).candidate.changed_by.clear();
    expected[1] = format!("Candidate: web:v2 ({digest})");
    assert_eq!(decide(&seen, now).status.summary, expected);
    // At rest only what serves, and what to do.
    let Sight { seen: mut rest, now } = at_rest();
    current(&mut rest).blind = vec!["one".to_owned()];
    current(&mut rest).baseline_pods = Some(BaselinePods::default());
    let told = decide(&rest, now).status.summary;
    assert_eq!((told.len(), &told[0]), (2, &expected[0]), "{told:?}");
    status(&mut rest).hold.as_mut().unwrap().serving = None;
    let told = decide(&rest, now).status.summary;
    assert!(told.len() == 1 && told[0].starts_with("What to do: "), "{told:?}");
}

#[test]
fn before_the_canary_has_labels_it_is_not_told_of() {
    let world = World::with_release(json!({}), "v2", (Step::Baseline, 0));
    let told = world.decided(|seen| current(seen).canary_labels.clear()).status.summary;
    assert!(told.iter().all(|line| !line.starts_with("Canary: ")), "{told:?}");
}

#[test]
fn baseline_pods_are_told_of_with_their_share_or_why_they_are_left_out() {
    let Sight { mut seen, now } = baking();
    seen.release.spec.baseline.pods = true;
    let line = |seen: &Observed| {
        let told = decide(seen, now).status.summary;
        told.iter().filter(|line| line.starts_with("Baseline: ")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(line(&seen), Vec::<String>::new());
    pause(&mut seen, Time(now), "Command", true);
    current(&mut seen).baseline_pods = Some(BaselinePods {
        labels: [("app".to_owned(), "web-baseline".to_owned())].into(),
        left_out: "there is no room".to_owned(),
        pods: 2,
        weight: "0%".to_owned(),
        ..BaselinePods::default()
    });
    assert_eq!(line(&seen), ["Baseline: left out of stage 2/3: there is no room"]);
    current(&mut seen).baseline_pods.as_mut().unwrap().left_out.clear();
    assert_eq!(line(&seen), ["Baseline: 2 pods of the serving version at 0%, labelled app=web-baseline"]);
}

#[test]
fn of_jobs_the_newest_are_told_that_have_not_ended_well() {
    let Sight { mut seen, now } = at_rest();
    let run = |name: &str, state: JobState, message: &str| JobStatus {
        at: JobAt::AfterRollback,
        attempt: 1,
        job: format!("web-1-{name}"),
        message: message.to_owned(),
        name: name.to_owned(),
        state,
        ..JobStatus::default()
    };
    let mut long_ago = run("long-ago", JobState::Failed, "");
    long_ago.job.clear();
    let failed = run("clean", JobState::Failed, "exit code 3");
    let good = run("good", JobState::Succeeded, "");
    let open = run("restore", JobState::Unfinished, "");
    current(&mut seen).jobs = vec![failed.clone(), good, long_ago, open];
    let lines = |seen: &Observed| {
        let told = decide(seen, now).status.summary;
        told.iter().filter(|line| line.starts_with("Job ")).cloned().collect::<Vec<_>>()
    };
    let expected = [
        "Job restore after the rollback: Unfinished (web-1-restore)",
        "Job clean after the rollback: Failed: exit code 3 (web-1-clean)",
    ];
    assert_eq!(lines(&seen), expected);
    current(&mut seen).jobs = vec![failed; 7];
    assert_eq!(lines(&seen).len(), 5);
}

#[test]
fn an_approval_is_asked_for_where_a_stage_wants_one_and_has_none() {
    let stages = json!([{"weight": "10%", "duration": "30s", "approval": true}, {"weight": "100%", "duration": "30s"}]);
    let mut world = World::with_release(json!({"stages": stages}), "v2", (Step::Scale, 0));
    let nothing = format!("nothing; to end it: {}", command("abort"));
    assert_eq!(advice(&world.decide().status), nothing);
    world.reach((Step::Bake, 0));
    let mut seen = world.seen("web");
    assert_eq!(advice(&decide(&seen, world.now).status), command("approve"));
    current(&mut seen).approved = true;
    assert_eq!(advice(&decide(&seen, world.now).status), nothing);
    current(&mut seen).approved = false;
    current(&mut seen).stage_index = 1;
    assert_eq!(advice(&decide(&seen, world.now).status), nothing);
}

#[test]
fn a_condition_keeps_the_time_since_when_it_is_so_and_gets_a_new_one_when_it_turns() {
    let Sight { mut seen, now } = baking();
    let at = |seconds: i64| Time(Timestamp::from_second(1_000_000_000 + seconds).unwrap());
    for (seconds, condition) in (0..).zip(&mut status(&mut seen).conditions) {
        condition.last_transition_time = at(seconds);
    }
    let times = |seen: &Observed| {
        let told = decide(seen, now).status.conditions;
        told.into_iter().map(|one| one.last_transition_time).collect::<Vec<_>>()
    };
    assert_eq!(times(&seen), [at(0), at(1), at(2), at(3)]);
    for turned in 0..4 {
        let mut seen = seen.clone();
        let condition = &mut status(&mut seen).conditions[turned];
        condition.status = if condition.status == "True" { "False" } else { "True" }.to_owned();
        let mut expected = [at(0), at(1), at(2), at(3)];
        expected[turned] = Time(now);
        assert_eq!(times(&seen), expected);
    }
    seen.release.metadata.generation = Some(7);
    let told = decide(&seen, now).status;
    assert_eq!((told.observed_generation, told.conditions[0].observed_generation), (7, Some(7)));
}
