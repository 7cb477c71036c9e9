//! The fold by itself: hostile sizes, ticks that come twice or never, and texts of others.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use canary_api::{CanaryRelease, CanaryReleaseStatus, Counted, GateStatus, ReleaseStatus, RevertStatus, Version};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{Effect, Kind, Note};

const START: &str = "2026-01-01T10:00:00Z";

fn at(second: i64) -> Timestamp {
    START.parse::<Timestamp>().unwrap().checked_add(jiff::SignedDuration::from_secs(second)).unwrap()
}

fn observed(stages: usize, gates: usize, status: CanaryReleaseStatus) -> Observed {
    let weight = |index: usize| format!("{}%", 100 - (stages - index - 1));
    let stages: Vec<_> = (0..stages).map(|index| json!({"weight": weight(index), "duration": "1m"})).collect();
    let rule = json!({"bad": "bad_total", "total": "requests_total", "limit": "1%"});
    let gates: Vec<_> = (0..gates)
        .map(|index| json!({"name": format!("gate-{index}-{}", "x".repeat(50)), "errorRate": rule}))
        .collect();
    let mut release: CanaryRelease = serde_json::from_value(json!({
        "apiVersion": "canaryrelease.dev/v1alpha1", "kind": "CanaryRelease",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-1"},
        "spec": {
            "target": {"name": "web"}, "stages": stages, "gates": gates,
            "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "r"}},
        },
    }))
    .unwrap();
    release.status = Some(status);
    Observed::alone(release)
}

fn version(image: &str) -> Version {
    Version { images: vec![image.to_owned()], digest: format!("sha256:{image}"), ..Version::default() }
}

/// A status at a step of a stage, `second` seconds after the start.
fn status(step: Step, stage: i32, second: i64) -> CanaryReleaseStatus {
    let current = ReleaseStatus {
        id: "web-1".to_owned(),
        number: 1,
        step,
        stage_index: stage,
        candidate: version("web:v1.1.0"),
        stable: version("web:v1.0.0"),
        started: Some(Time(at(0))),
        step_since: Some(Time(at(second))),
        window_since: Some(Time(at(second))),
        weight: "50%".to_owned(),
        split: true,
        ..ReleaseStatus::default()
    };
    CanaryReleaseStatus { current: Some(current), ..CanaryReleaseStatus::default() }
}

fn with_gates(mut status: CanaryReleaseStatus, observed: &Observed, text: &str) -> CanaryReleaseStatus {
    let gates = &observed.release.spec.gates;
    status.gates = gates
        .iter()
        .map(|gate| GateStatus {
            gate: gate.name.clone(),
            value: "0.2%".to_owned(),
            limit: "<= 1%".to_owned(),
            rests_on: text.to_owned(),
            interval: text.to_owned(),
            verdict: "Pass".to_owned(),
            ..GateStatus::default()
        })
        .collect();
    let side = |gate: &canary_api::Gate, side: &str| Counted {
        gate: gate.name.clone(),
        side: side.to_owned(),
        n: 1000.0,
        k: 2.0,
        seconds: 60.0,
        ..Counted::default()
    };
    let counts = gates.iter().flat_map(|gate| [side(gate, "canary"), side(gate, "stable")]).collect();
    if let Some(current) = &mut status.current {
        current.counts = counts;
    }
    status
}

fn decision(status: CanaryReleaseStatus, notes: Vec<Note>, effects: Vec<Effect>) -> Decision {
    Decision { status, decisive: true, words: true, effects, notes, wake_after: None, gone: false }
}

fn note(text: &str) -> Note {
    Note { warning: false, reason: "StageStarted", text: text.to_owned() }
}

fn size(record: &ReleaseRecordStatus) -> usize {
    serde_json::to_vec(record).unwrap().len()
}

/// Twenty stages with twenty gates, each told at length, and notes without end.
fn hostile(notes: usize, text: &str) -> ReleaseRecordStatus {
    let mut record = ReleaseRecordStatus::default();
    let mut before = CanaryReleaseStatus::default();
    for stage in 0..20_i32 {
        for (index, step) in [Step::Scale, Step::Shift, Step::Bake].into_iter().enumerate() {
            let second = i64::from(stage) * 30 + i64::try_from(index).unwrap();
            let seen = observed(20, 20, before.clone());
            let next_status = with_gates(status(step, stage, second), &seen, text);
            let notes = (0..notes / 60).map(|number| note(&format!("{stage} {index} {number} {text}"))).collect();
            let effect = Effect::Delete { kind: Kind::Service, name: text.to_owned(), uid: String::new(), why: "x" };
            let done = decision(next_status.clone(), notes, vec![effect; 100]);
            record = next(&record, &seen, &done, at(second));
            assert!(size(&record) <= LIMIT, "{} bytes at stage {stage}", size(&record));
            before = next_status;
        }
    }
    record
}

#[test]
fn a_record_stays_small_whatever_goes_into_it() {
    for text in ["short", &"long ".repeat(400), &"\u{1F600}\u{0}\"\\".repeat(200)] {
        let record = hostile(10_000, text);
        assert_eq!(record.stages.len(), 20);
        assert!(record.stages.iter().take(19).all(|stage| stage.result == "Passed" && stage.passed == "20/20"));
        assert!(record.timeline_dropped > 0 && record.timeline.len() >= 6, "{}", record.timeline.len());
        assert!(!record.left_out.is_empty(), "what is left out is said");
        assert_eq!(bound(record.clone()), record, "what is small stays as it is");
        let first = record.timeline.first().unwrap();
        assert_eq!(first.at.0, at(0), "how it began is kept");
        assert!(record.timeline.last().unwrap().at.0 >= at(19 * 30), "so is how it ended");
    }
}

#[test]
fn even_names_without_end_make_no_large_record() {
    let mut before = status(Step::Bake, 0, 60);
    if let Some(current) = &mut before.current {
        current.candidate.images = vec![format!("web:{}", "v".repeat(5000)); 200];
        current.candidate.changed_by = "m".repeat(50_000);
        current.revert = Some(RevertStatus {
            at: Time(at(61)),
            by: "b".repeat(50_000),
            clear_at: None,
            message: "m".repeat(50_000),
            outcome: "RolledBack".to_owned(),
            reason: "GateBreached".to_owned(),
            rejects: true,
            rolled: false,
            stage: "1/1".to_owned(),
        });
    }
    let seen = observed(1, 1, before.clone());
    let record = next(&ReleaseRecordStatus::default(), &seen, &decision(before, Vec::new(), Vec::new()), at(62));
    assert!(size(&record) <= LIMIT, "{}", size(&record));
    assert_eq!(record.rollbacks.len(), 1);
}

#[test]
fn a_write_that_was_lost_is_caught_up_from_the_status() {
    let seen = observed(3, 1, status(Step::Bake, 0, 10));
    let first =
        next(&ReleaseRecordStatus::default(), &seen, &decision(status(Step::Bake, 0, 10), vec![], vec![]), at(11));
    assert_eq!(first.stages[0].result, "Running");
    // The end of stage 1 was not seen by whoever goes on.
    let seen = observed(3, 1, status(Step::Bake, 1, 90));
    let later = with_gates(status(Step::Bake, 1, 90), &seen, "2 of 1000");
    let second = next(&first, &seen, &decision(later, vec![], vec![]), at(91));
    assert_eq!((second.stages[0].result.as_str(), second.stages[0].ended.clone()), ("Unknown", None));
    assert_eq!((second.stages[1].result.as_str(), second.stages[1].started.clone()), ("Running", Some(Time(at(90)))));
    assert_eq!(second.stages[1].gates[0].requests, Some(1000.0));
    // And nothing of a release that is over and of which nothing tells.
    let mut other = status(Step::Bake, 0, 500);
    other.current.as_mut().unwrap().id = "web-2".to_owned();
    let gone = next(&second, &observed(3, 1, other.clone()), &decision(other, vec![], vec![]), at(501));
    assert!(gone.frozen);
    assert_eq!((gone.outcome.as_str(), gone.result.as_str()), ("Unknown", ""));
    assert_eq!(gone.stages[1].result, "Unknown");
}

#[test]
fn what_is_frozen_stays() {
    let mut promoted = status(Step::Done, 0, 60);
    promoted.outcome = "Promoted".to_owned();
    let seen = observed(1, 1, status(Step::Drain, 0, 50));
    let record = next(&ReleaseRecordStatus::default(), &seen, &decision(promoted, vec![], vec![]), at(60));
    assert!(record.frozen);
    let other = decision(status(Step::Bake, 0, 70), vec![note("later")], vec![]);
    assert_eq!(next(&record, &seen, &other, at(70)), record);
}

#[test]
fn only_what_was_carried_out_is_recorded() {
    let seen = observed(1, 1, status(Step::Bake, 0, 10));
    let effect =
        |name: &str| Effect::Delete { kind: Kind::Service, name: name.to_owned(), uid: String::new(), why: "x" };
    let wanted = || decision(status(Step::Revert, 0, 20), vec![note("told")], vec![effect("a"), effect("b")]);
    assert_eq!(carried_out(&seen, wanted(), &Carried::default()), None);
    let done = carried_out(&seen, wanted(), &Carried { effects: vec![1], ..Carried::default() }).unwrap();
    assert_eq!((done.effects.len(), done.effects[0].name(), done.notes.len()), (1, "b", 0));
    assert_eq!(done.status, seen.release.status.clone().unwrap(), "a status that was not written is not recorded");
    let all = carried_out(&seen, wanted(), &Carried { status: true, told: true, effects: vec![0, 1] }).unwrap();
    assert_eq!(all, wanted());
}

#[test]
fn bones_are_written_at_once_and_figures_once_a_minute() {
    let seen = observed(2, 1, status(Step::Bake, 0, 10));
    let fold = |record: &ReleaseRecordStatus, status: CanaryReleaseStatus| {
        next(record, &seen, &decision(status, vec![], vec![]), at(20))
    };
    let first = fold(&ReleaseRecordStatus::default(), status(Step::Bake, 0, 10));
    assert!(due(None, &first, Duration::ZERO));
    let mut figures = with_gates(status(Step::Bake, 0, 10), &seen, "2 of 1000");
    figures.message = "goes on".to_owned();
    let second = fold(&first, figures);
    assert_ne!(first, second);
    assert!(
        !due(Some(&first), &second, Duration::from_secs(59)) && due(Some(&first), &second, Duration::from_secs(60))
    );
    assert!(!due(Some(&second), &second, Duration::from_secs(3600)));
    let told = next(&second, &seen, &decision(status(Step::Bake, 0, 10), vec![note("told")], vec![]), at(20));
    assert!(!due(Some(&second), &told, Duration::from_secs(9)) && due(Some(&second), &told, Duration::from_secs(10)));
    let third = fold(&second, status(Step::Scale, 1, 30));
    assert_eq!(third.stages[0].result, "Passed");
    assert!(due(Some(&second), &third, Duration::ZERO));
}

proptest! {
    #[test]
    fn the_same_tick_twice_changes_nothing(
        ticks in proptest::collection::vec((0_usize..12, 0_i32..4, any::<bool>(), 0_u8..4), 1..12),
    ) {
        let steps = [
            Step::Baseline, Step::Scale, Step::Shift, Step::Bake, Step::Roll, Step::HandBack, Step::Drain, Step::Soak,
            Step::Revert, Step::RevertDrain, Step::RevertTarget, Step::Done,
        ];
        let mut record = ReleaseRecordStatus::default();
        let mut before = CanaryReleaseStatus::default();
        for (index, (step, stage, partial, kind)) in ticks.into_iter().enumerate() {
            let second = i64::try_from(index).unwrap() * 10;
            let seen = observed(3, 2, before.clone());
            let mut after = with_gates(status(steps[step], stage, second), &seen, "2 of 1000");
            if let Some(current) = &mut after.current {
                current.partial = partial;
                current.paused = (kind == 1).then(|| canary_api::Paused {
                    by: "x".to_owned(), reason: "NotReady".to_owned(), since: Time(at(second)), without_weight: true,
                });
                if kind == 2 {
                    current.id = "web-2".to_owned();
                }
            }
            let done = decision(after.clone(), vec![note("something")], Vec::new());
            let once = next(&record, &seen, &done, at(second));
            prop_assert_eq!(&next(&once, &seen, &done, at(second)), &once);
            prop_assert!(once.timeline.is_sorted_by_key(|entry| entry.at.0));
            prop_assert!(size(&once) <= LIMIT);
            (record, before) = (once, after);
        }
    }
}

/// A record with so many runs of jobs, each with as long a log as there may be.
fn with_logs(runs: usize, result: &str) -> ReleaseRecordStatus {
    let one = |number: usize| canary_api::JobRecord {
        name: format!("job-{number}"),
        at: "Stage".to_owned(),
        attempt: 1,
        job: format!("web-1-job-{number}"),
        result: result.to_owned(),
        log: format!("{}\nthe end", "\u{1F600}\"\\ ".repeat(290)),
        log_note: "container c of pod p".to_owned(),
        ..canary_api::JobRecord::default()
    };
    ReleaseRecordStatus { id: "web-1".to_owned(), jobs: (0..runs).map(one).collect(), ..ReleaseRecordStatus::default() }
}

#[test]
fn logs_of_jobs_make_no_record_too_large_and_their_ends_stay_longest_where_they_failed() {
    for runs in [5, 25, 60, 500] {
        let good = bound(with_logs(runs, "Succeeded"));
        assert!(size(&good) <= LIMIT, "{runs}: {}", size(&good));
        let bad = bound(with_logs(runs, "Failed"));
        assert!(size(&bad) <= LIMIT, "{runs}: {}", size(&bad));
        assert_eq!(bound(bad.clone()), bad);
        let cut = |record: &ReleaseRecordStatus| record.jobs.iter().any(|one| one.log.len() < 1000);
        assert_eq!(!good.left_out.is_empty(), cut(&good) || good.jobs.len() < runs, "{runs}: {:?}", good.left_out);
        let longest = |record: &ReleaseRecordStatus| record.jobs.iter().map(|one| one.log.len()).max();
        assert!(longest(&bad) >= longest(&good), "{runs}");
    }
    let some = bound(with_logs(25, "Succeeded"));
    assert!(some.jobs.iter().all(|one| one.log.ends_with("the end") && one.log.len() <= 512), "{some:?}");
}

#[test]
fn a_log_is_noted_once_and_never_for_a_job_that_did_not_run() {
    let mut record = with_logs(2, "Succeeded");
    record.jobs[0].log.clear();
    record.jobs[0].log_note.clear();
    record.jobs[1] =
        canary_api::JobRecord { job: "web-1-other".to_owned(), result: "NotRun".to_owned(), ..record.jobs[0].clone() };
    assert_eq!(logs_to_read(&record), ["web-1-job-0"]);
    let log = JobLog { exit_code: Some(0), text: "fine".to_owned(), note: "container c".to_owned() };
    let record = note_log(record, "web-1-job-0", &log);
    assert_eq!((record.jobs[0].log.as_str(), record.jobs[0].exit_code), ("fine", Some(0)));
    assert!(logs_to_read(&record).is_empty());
    let other = JobLog { text: "other".to_owned(), ..log };
    assert_eq!(note_log(record.clone(), "web-1-job-0", &other), record);
}
