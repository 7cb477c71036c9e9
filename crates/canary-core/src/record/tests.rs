//! The fold by itself: hostile sizes, ticks that come twice or never, and texts of others.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use canary_api::{CanaryRelease, CanaryReleaseStatus, Counted, GateStatus, ReleaseStatus, RevertStatus, Version};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    Effect, Kind, Note,
    figures::{Durations, Figures, Gauge},
};

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

#[test]
fn a_jobs_result_and_its_log_are_written_at_once_and_what_still_runs_is_not() {
    let of = |result: &str, log_note: &str| {
        let mut record = with_logs(1, result);
        record.jobs[0].log_note = log_note.to_owned();
        record
    };
    let at_once = |before: &ReleaseRecordStatus, after: &ReleaseRecordStatus| due(Some(before), after, Duration::ZERO);
    let (running, failed) = (of("Running", ""), of("Failed", ""));
    assert!(
        at_once(&running, &failed) && at_once(&failed, &of("Succeeded", "")) && at_once(&failed, &of("Failed", "kept"))
    );
    let mut moved = running.clone();
    moved.jobs[0].message = "a minute".to_owned();
    assert!(!at_once(&running, &moved) && due(Some(&running), &moved, Duration::from_secs(60)));
    let mut another = failed.clone();
    another.jobs[0].job = "another".to_owned();
    assert!(at_once(&failed, &another));
}

#[test]
fn rollbacks_of_earlier_attempts_are_those_of_the_same_template_once_and_in_order() {
    let rollback = |id: &str, second: i64| RollbackRecord {
        id: id.to_owned(),
        at: Some(Time(at(second))),
        ..RollbackRecord::default()
    };
    let record = |id: &str, image: &str, rollbacks: Vec<RollbackRecord>| ReleaseRecordStatus {
        id: id.to_owned(),
        candidate: version(image),
        rollbacks,
        ..ReleaseRecordStatus::default()
    };
    let records = [
        record("web-3", "a", vec![rollback("web-3", 30), rollback("web-1", 10)]),
        record("web-1", "a", vec![rollback("web-1", 10)]),
        record("web-2", "b", vec![rollback("web-2", 20)]),
        record("web-4", "a", vec![rollback("web-4", 40)]),
    ];
    let found: Vec<String> = earlier(&records, "web-4", "sha256:a").into_iter().map(|one| one.id).collect();
    assert_eq!(found, ["web-1", "web-3"]);
}

fn estimate(value: f64, low: f64, high: f64) -> Option<canary_stats::Estimate> {
    Some(canary_stats::Estimate { value: Some(value), low: Some(low), high: Some(high) })
}

fn gauge(name: &str, stable: Option<canary_stats::Estimate>, canary: Option<canary_stats::Estimate>) -> Gauge {
    let source = "process_resident_memory_bytes".to_owned();
    Gauge { name: name.to_owned(), unit: "B".to_owned(), source, canary, stable, looks: (9, 9), why: String::new() }
}

/// Half of the requests within 100 ms, nine of ten within 200.
fn took(requests: f64) -> Result<canary_stats::Buckets, String> {
    let bounds = [(0.1, requests * 0.5), (0.2, requests * 0.99), (0.5, requests)];
    canary_stats::Buckets::new(bounds, requests).map_err(|error| error.to_string())
}

/// A release of two stages with a latency gate; the second has all of the traffic.
fn timed(status: CanaryReleaseStatus, figures: Figures) -> Observed {
    let mut seen = observed(2, 1, status);
    let rule = json!({"histogram": "took_seconds", "quantile": "95%", "limit": "200ms"});
    seen.release.spec.gates = vec![serde_json::from_value(json!({"name": "fast", "latency": rule})).unwrap()];
    seen.measured.figures = figures;
    seen
}

fn durations(stable: f64, canary: f64) -> Vec<Durations> {
    vec![Durations { gate: "fast".to_owned(), unit: "s", canary: took(canary), stable: took(stable) }]
}

fn row<'a>(record: &'a ReleaseRecordStatus, name: &str) -> &'a canary_api::Compared {
    record.comparison.iter().find(|row| row.metric.starts_with(name)).unwrap_or_else(|| panic!("{name}: {record:#?}"))
}

fn folded(
    record: &ReleaseRecordStatus,
    step: Step,
    stage: i32,
    weight: &str,
    second: i64,
    figures: Figures,
) -> ReleaseRecordStatus {
    let mut before = status(step, stage, second);
    if let Some(current) = &mut before.current {
        current.weight = weight.to_owned();
        current.split = step != Step::Baseline;
    }
    let seen = timed(before.clone(), figures);
    let done = decision(with_gates(before, &seen, "words"), vec![], vec![]);
    let once = next(record, &seen, &done, at(second + 1));
    assert_eq!(next(&once, &seen, &done, at(second + 1)), once, "a tick twice changes nothing");
    once
}

#[test]
fn a_named_query_of_the_baseline_rests_on_its_looks_alone() {
    let named = Gauge { source: String::new(), ..gauge("staleness", estimate(1.0, 1.0, 1.0), None) };
    let figures = Figures { since: None, durations: vec![], gauges: vec![named] };
    let record = folded(&ReleaseRecordStatus::default(), Step::Baseline, 0, "0%", 10, figures);
    assert_eq!(record.baseline_figures[0].rests_on, "9 looks");
}

#[test]
fn durations_and_memory_stand_side_by_side_with_their_change_and_its_interval() {
    let figures = |gauges| Figures { since: None, durations: durations(9000.0, 1000.0), gauges };
    let memory = gauge("Memory per pod", estimate(20e6, 19e6, 21e6), estimate(25e6, 24e6, 26e6));
    let record = folded(&ReleaseRecordStatus::default(), Step::Bake, 0, "50%", 10, figures(vec![memory]));
    let p95 = row(&record, "fast P95");
    assert_eq!(p95.metric, "fast P95 (at the same time, stage 1, 99%)");
    assert_eq!((p95.before.as_str(), p95.after.as_str()), ("0.192s (0.1s to 0.2s)", "0.192s (0.1s to 0.2s)"));
    assert_eq!(p95.change, "+0.0% (-50.0% to +100.0%)");
    assert!(row(&record, "fast P99").after.starts_with("0.2s (0.1s to 0.5s)"), "{record:?}");
    let memory = row(&record, "Memory per pod");
    assert_eq!(memory.metric, "Memory per pod (process_resident_memory_bytes, at the same time, stage 1, 99%)");
    assert_eq!(
        (memory.before.as_str(), memory.after.as_str()),
        ("19.1MiB (18.1MiB to 20MiB)", "23.8MiB (22.9MiB to 24.8MiB)")
    );
    assert_eq!(memory.change, "+25.0% (+14.3% to +36.8%)");
    let names: Vec<&str> = record.comparison.iter().map(|row| row.metric.split(" (").next().unwrap()).collect();
    assert_eq!(names, ["fast: share of requests slower than 200ms", "fast P95", "fast P99", "Memory per pod"]);
    // In a stage without a stable side the row of the stage before stays.
    let alone = folded(
        &record,
        Step::Bake,
        1,
        "100%",
        80,
        figures(vec![gauge("Memory per pod", estimate(1.0, 1.0, 1.0), estimate(9.0, 9.0, 9.0))]),
    );
    assert_eq!(row(&alone, "Memory per pod"), memory);
    assert_eq!(row(&alone, "fast P95"), p95);
}

#[test]
fn where_stable_never_had_traffic_beside_it_the_baseline_is_compared_with() {
    let of = |gauges| Figures { since: Some(at(3)), durations: durations(9000.0, 1000.0), gauges };
    let before = of(vec![gauge("Memory per pod", estimate(20e6, 19e6, 21e6), None)]);
    // The tick that sees a baseline is the one in which the release is at it.
    let began = folded(&ReleaseRecordStatus::default(), Step::Baseline, 0, "", 1, before);
    assert_eq!(began.baseline_figures.len(), 3, "{:?}", began.baseline_figures);
    assert_eq!(began.baseline_figures[0].rests_on, "9000 requests");
    let alone =
        folded(&began, Step::Bake, 1, "100%", 20, of(vec![gauge("Memory per pod", None, estimate(25e6, 24e6, 26e6))]));
    assert!(row(&alone, "Memory per pod").metric.ends_with("against the baseline, stage 2, 100%, since 10:00:03 UTC)"));
    assert_eq!(row(&alone, "Memory per pod").change, "+25.0% (+14.3% to +36.8%)");
    assert!(row(&alone, "fast P95").metric.contains("against the baseline"));
    // Without one it is said, and nothing is made up.
    let unknown = folded(&ReleaseRecordStatus::default(), Step::Bake, 1, "100%", 20, of(vec![]));
    assert_eq!(row(&unknown, "fast P95").before, "not measured");
}

#[test]
fn what_is_not_measured_says_why_in_one_row_and_only_while_that_is_so() {
    let why = |name: &str| Gauge { name: name.to_owned(), why: "no series".to_owned(), ..Gauge::default() };
    let broken = Figures {
        durations: vec![Durations { canary: Err("no buckets".to_owned()), ..durations(1.0, 1.0).remove(0) }],
        gauges: vec![why("CPU and memory per pod"), why("db-p95")],
        ..Figures::default()
    };
    let record = folded(&ReleaseRecordStatus::default(), Step::Bake, 0, "50%", 10, broken.clone());
    assert_eq!(row(&record, "CPU and memory per pod").change, "not known: no series");
    assert_eq!(row(&record, "fast P95 and P99").change, "not known: no buckets");
    assert_eq!(record.comparison.len(), 4, "{record:#?}");
    let memory = gauge("Memory per pod", estimate(20e6, 19e6, 21e6), estimate(25e6, 24e6, 26e6));
    let measured = Figures { durations: durations(900.0, 900.0), gauges: vec![memory, why("db-p95")], since: None };
    let mended = folded(&record, Step::Bake, 0, "50%", 12, measured);
    let names: Vec<&str> = mended.comparison.iter().map(|row| row.metric.split(" (").next().unwrap()).collect();
    assert_eq!(
        names,
        ["fast: share of requests slower than 200ms", "fast P95", "fast P99", "Memory per pod", "db-p95"]
    );
    // What was measured stays when it fails later.
    let again = folded(&mended, Step::Bake, 0, "50%", 14, broken);
    assert_eq!(row(&again, "fast P95").metric, row(&mended, "fast P95").metric);
    assert_eq!(row(&again, "Memory per pod"), row(&mended, "Memory per pod"));
}

/// A release of one endless stage, told tick by tick, with gates that count this.
fn told(ticks: u32, gates: usize, interval: u32) -> ReleaseRecordStatus {
    let mut record = ReleaseRecordStatus::default();
    for tick in 0..ticks {
        let second = i64::from(tick * interval);
        let mut now = status(Step::Bake, 0, 1);
        now.current.as_mut().unwrap().window_since = Some(Time(at(0)));
        let mut seen = observed(2, gates, now.clone());
        seen.release.spec.interval = canary_api::Duration::from_secs(u64::from(interval));
        seen.measured.readings = seen
            .release
            .spec
            .gates
            .iter()
            .map(|gate| {
                let (n, k) = (100.0 + f64::from(tick) * 20.0, f64::from(tick / 7));
                let measure = crate::gates::Measure::Counted { n, k, seconds: 60.0 };
                crate::gates::Reading::new(&gate.name, measure.clone(), measure)
            })
            .collect();
        let done = decision(with_gates(now, &seen, ""), vec![], vec![]);
        record = next(&record, &seen, &done, at(second));
        assert_eq!(next(&record, &seen, &done, at(second)), record, "a tick twice changes nothing");
    }
    record
}

#[test]
fn series_stay_short_however_long_a_release_takes_and_end_with_its_newest_tick() {
    for (ticks, gates, most) in [(10, 1, 10), (2000, 1, 60), (400, 6, 50), (300, 20, 24)] {
        let record = told(ticks, gates, 2);
        assert_eq!(record.series.len(), gates);
        for series in &record.series {
            let (whole, around) = (series.whole.read(), series.around.read());
            assert!(whole.len() <= most && whole.len() >= (ticks as usize).min(most) / 3, "{} of {most}", whole.len());
            assert!(around.len() <= 30, "{}", around.len());
            let last = Some(2 * (ticks - 1));
            assert_eq!((whole.last().map(|point| point.at), around.last().map(|point| point.at)), (last, last));
            assert!(whole.is_sorted_by_key(|point| point.at) && around.is_sorted_by_key(|point| point.at));
            assert_eq!(
                canary_api::Points::written(&whole, series.whole.every),
                series.whole,
                "what is read is written alike"
            );
        }
        assert!(size(&record) <= LIMIT && (gates == 20 || record.left_out.is_empty()), "{}", size(&record));
    }
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

/// Ticks in which so many jobs of a stage end, each after a run that failed; only the last job fails again.
fn with_runs(jobs: u32) -> ReleaseRecordStatus {
    use canary_api::{JobAt, JobState, JobStatus};
    let run = |number: u32, attempt: u32, state: JobState| JobStatus {
        at: JobAt::Stage,
        attempt,
        stage: 1,
        name: format!("job-{number}"),
        job: format!("web-1-job-{number}-{attempt}"),
        state,
        started: Some(Time(at(i64::from(number)))),
        ended: (!state.is_open()).then(|| Time(at(i64::from(number) + 1))),
        ..JobStatus::default()
    };
    let mut record = ReleaseRecordStatus::default();
    let mut after = status(Step::Bake, 0, 1);
    let seen = observed(2, 1, after.clone());
    for number in 0..jobs {
        let last = if number + 1 == jobs { JobState::Failed } else { JobState::Succeeded };
        for (attempt, state) in [(1, JobState::Running), (1, JobState::Failed), (2, JobState::Running), (2, last)] {
            let runs = &mut after.current.as_mut().unwrap().jobs;
            runs.retain(|one| one.name != format!("job-{number}"));
            runs.push(run(number, attempt, state));
            record = next(&record, &seen, &decision(after.clone(), Vec::new(), Vec::new()), at(2));
        }
    }
    let again = next(&record, &seen, &decision(after, Vec::new(), Vec::new()), at(2));
    assert_eq!(again, record, "{jobs}: what was left out comes back");
    record
}

#[test]
fn of_many_runs_of_jobs_those_stay_that_decide_and_what_was_left_out_is_said() {
    for (jobs, entries) in [(3, 6), (30, 60), (31, 60), (200, 60)] {
        let record = with_runs(jobs);
        assert_eq!(record.jobs.len(), entries, "{jobs}");
        let said = vec!["runs of jobs that succeeded or were run again".to_owned()];
        assert_eq!(record.left_out, if jobs > 30 { said } else { Vec::new() }, "{jobs}");
        let (short, _) = jobs::shortcomings(&record);
        assert_eq!(short, [format!("job job-{} at stage 1: Failed", jobs - 1)], "{jobs}");
    }
}

#[test]
fn runs_of_jobs_taken_out_for_want_of_room_do_not_come_back() {
    let mut record = with_runs(40);
    jobs::keep(&mut record, 12);
    assert!(record.jobs.iter().any(|one| one.job == "web-1-job-39-2"), "{:?}", record.jobs);
    record.jobs.iter_mut().for_each(|one| one.result = "Failed".to_owned());
    jobs::keep(&mut record, 2);
    assert_eq!(record.left_out.len(), 2, "{:?}", record.left_out);
}
