//! Releases over a synthetic past: a clean one reverts nothing, an incident shows in its own hours and in no other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use canary_api::CanaryReleaseSpec;
use canary_counters::{Sample, Series};
use canary_sim::{
    Place, SimError,
    backtest::{Options, Summary, backtest},
    chart,
    past::{Counting, Past, countable, questions},
    sample,
};

const HOUR: i64 = 3_600_000;
/// 2026-01-01T00:00:00Z.
const FROM: i64 = 1_767_225_600_000;
const SCRAPE: i64 = 15_000;

fn spec(more_gates: &str) -> CanaryReleaseSpec {
    let text = format!(
        "{{target: {{name: web}}, traffic: {{service: web, routes: [{{kind: HTTPRoute, name: web}}], requests: {{counter: requests_total}}}}, \
         interval: 30s, baseline: {{duration: 5m}}, drain: 0s, \
         stages: [{{weight: 5%, duration: 10m}}, {{weight: 25%, duration: 10m}}, {{weight: 100%, duration: 10m}}], \
         gates: [{{name: errors, errorRate: {{bad: 'requests_total{{code=~\"5..\"}}', total: requests_total, limit: 1%}}}}{more_gates}]}}"
    );
    serde_norway::from_str(&text).unwrap()
}

/// One pod's traffic: 25 requests/s, of which a part is bad.
struct Pod {
    name: &'static str,
    /// From when to when it is there, milliseconds.
    life: (i64, i64),
    good: f64,
    bad: f64,
    rng: fastrand::Rng,
}

/// What is wrong, milliseconds after the beginning: from, to, the bad share, of which pod (none: all).
type Incident = (i64, i64, f64, Option<&'static str>);

fn pods() -> Vec<Pod> {
    let pod = |(seed, name)| Pod {
        name,
        life: (i64::MIN, i64::MAX),
        good: 1e6,
        bad: 5e3,
        rng: fastrand::Rng::with_seed(seed),
    };
    (1..).zip(["web-5d9c7b-aaaaa", "web-5d9c7b-bbbbb", "web-5d9c7b-ccccc", "web-5d9c7b-ddddd"]).map(pod).collect()
}

/// The past of so many hours, fed hour by hour.
fn past(spec: &CanaryReleaseSpec, hours: i64, mut pods: Vec<Pod>, incidents: &[Incident], gap: (i64, i64)) -> Past {
    let (playable, _) = countable(spec);
    let mut counting = Counting::new(&playable, FROM, "pod", None);
    for hour in 0..hours {
        let (from, to) = (hour * HOUR, (hour + 1) * HOUR);
        let mut good: Vec<Series> = Vec::new();
        let mut bad: Vec<Series> = Vec::new();
        for (offset, pod) in (0..).zip(&mut pods) {
            let series = |code: &str| {
                let labels = [("__name__", "requests_total"), ("pod", pod.name), ("code", code)];
                Series {
                    labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                    samples: Vec::new(),
                }
            };
            let (mut ok, mut failed) = (series("200"), series("500"));
            let mut at = from + SCRAPE - 1000 * offset;
            while at <= to {
                if at >= pod.life.0 && at <= pod.life.1 {
                    let here = |(from, to, _, name): &&Incident| {
                        at > *from && at <= *to && name.is_none_or(|name| name == pod.name)
                    };
                    let share = incidents.iter().find(here).map_or(0.003, |incident| incident.2);
                    let k = sample::bad(&mut pod.rng, 25 * 15, share) as f64;
                    pod.good += 375.0 - k;
                    pod.bad += k;
                    if at < gap.0 || at >= gap.1 {
                        ok.samples.push(Sample { at_ms: FROM + at, value: pod.good });
                        failed.samples.push(Sample { at_ms: FROM + at, value: pod.bad });
                    }
                }
                at += SCRAPE;
            }
            good.extend([ok].into_iter().filter(|one| !one.samples.is_empty()));
            bad.extend([failed].into_iter().filter(|one| !one.samples.is_empty()));
        }
        let answers: BTreeMap<String, Vec<Series>> = questions(&playable)
            .into_iter()
            .map(|question| {
                let all = good.iter().chain(&bad).filter(|one| question.selector.matches(one)).cloned();
                (question.key, all.collect())
            })
            .collect();
        counting.absorb(&answers, FROM + to).unwrap();
    }
    counting.finish()
}

fn options() -> Options {
    Options { every: Duration::from_secs(3600), seed: 1, threads: NonZeroUsize::new(2).unwrap() }
}

const NO_GAP: (i64, i64) = (0, 0);

fn minutes(number: i64) -> i64 {
    number * 60_000
}

fn outcomes(summary: &Summary) -> Vec<(i64, &'static str, Option<Place>)> {
    let hour = |began: jiff::Timestamp| (began.as_millisecond() - FROM) / HOUR;
    let ended = |release: &&canary_sim::backtest::Release| release.outcome != "Promoted";
    summary.releases.iter().filter(ended).map(|release| (hour(release.began), release.outcome, release.place)).collect()
}

#[test]
fn a_clean_past_reverts_nothing_and_is_counted_whole() {
    let spec = spec("");
    let past = past(&spec, 24, pods(), &[], NO_GAP);
    assert_eq!((past.pods(), past.from_ms(), past.to_ms()), (4, FROM, FROM + 24 * HOUR));
    // But for the first sample of each pod, which is its base.
    assert!((past.requests() - 100.0 * 24.0 * 3600.0).abs() <= 4.0 * 375.0, "{}", past.requests());
    assert!(past.coverage() > 0.999);
    let summary = backtest(&spec, &past, &options()).unwrap();
    // A release takes 35 minutes, so the last hour has one too.
    assert_eq!((summary.runs, summary.ends.promoted), (24, 24), "{:?}", summary.ends);
    assert_eq!(outcomes(&summary), []);
    // 5 % of four pods is no pod; 25 % is one.
    assert_eq!((summary.method.stages_thinned, summary.method.stages_of_whole_pods), (24, 24));
    assert_eq!(summary.releases[0].began.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(backtest(&spec, &past, &options()).unwrap(), summary);
    let calendar = chart::calendar(&summary);
    assert!(
        calendar.starts_with("              0     6     12    18\n  2026-01-01  ························\n"),
        "{calendar}"
    );
}

/// In the 100 % stage a breach has no control and reverts. While both sides are there, what is wrong with both is no
/// fault of a candidate: the release waits for a person. Before that, nothing begins.
#[test]
fn an_incident_ends_the_releases_of_its_own_hours_and_no_others() {
    let spec = spec("");
    let incidents = [
        (3 * HOUR + minutes(28), 3 * HOUR + minutes(33), 0.1, None),
        (7 * HOUR + minutes(8), 7 * HOUR + minutes(12), 0.1, None),
        (9 * HOUR + minutes(1), 9 * HOUR + minutes(4), 0.1, None),
        // After the release of that hour.
        (11 * HOUR + minutes(45), 11 * HOUR + minutes(55), 0.5, None),
    ];
    let past = past(&spec, 14, pods(), &incidents, NO_GAP);
    let summary = backtest(&spec, &past, &options()).unwrap();
    let expected = [
        (3, "RolledBack", Some(Place::Stage(3))),
        (7, "Paused", Some(Place::Stage(1))),
        (9, "Paused", Some(Place::Baseline)),
    ];
    assert_eq!(outcomes(&summary), expected);
    let reasons: Vec<&str> = summary.releases.iter().filter_map(|release| release.by.as_deref()).collect();
    assert_eq!(reasons, ["errors", "Confounded", "StableInBreach"]);
    assert_eq!((summary.reverted.runs, summary.paused.runs, summary.ends.promoted), (1, 2, 11));
    let calendar = chart::calendar(&summary);
    assert!(calendar.contains("\n  2026-01-01  ···█···▒·▒····\n"), "{calendar}");
}

/// One pod of four is bad for an hour: where it stands for the canary, the release is reverted.
#[test]
fn a_bad_pod_reverts_where_it_stands_for_the_canary() {
    let spec = spec("");
    let past = past(&spec, 12, pods(), &[(2 * HOUR, 10 * HOUR, 0.05, Some("web-5d9c7b-bbbbb"))], NO_GAP);
    let summary = backtest(&spec, &past, &options()).unwrap();
    let outside = |(hour, _, _): &(i64, &str, Option<Place>)| !(2..10).contains(hour);
    assert!(!outcomes(&summary).iter().any(outside), "{:?}", outcomes(&summary));
    assert!(summary.ends.reverted() + summary.ends.paused_in_all() > 0, "{:?}", summary.ends);
}

/// A new pod's counts are taken whole and a pod that goes is no silence.
#[test]
fn pods_come_and_go() {
    let spec = spec("");
    let mut pods = pods();
    pods[0].life.1 = 3 * HOUR + minutes(20);
    pods[3].life.0 = 3 * HOUR + minutes(21);
    (pods[3].good, pods[3].bad) = (0.0, 0.0);
    let past = past(&spec, 8, pods, &[], NO_GAP);
    let summary = backtest(&spec, &past, &options()).unwrap();
    assert_eq!(summary.ends.promoted, 8, "{:?}", summary.releases);
    assert!((past.requests() - (75.0 * 8.0 * 3600.0)).abs() < 90.0 * 100.0, "{}", past.requests());
}

/// Without samples nothing passes.
#[test]
fn a_gap_in_the_past_passes_nothing() {
    let spec = spec("");
    let past = past(&spec, 8, pods(), &[], (3 * HOUR, 4 * HOUR));
    assert!((past.coverage() - 7.0 / 8.0).abs() < 0.01, "{}", past.coverage());
    let summary = backtest(&spec, &past, &options()).unwrap();
    assert_eq!(outcomes(&summary), [(3, "Paused", Some(Place::Stage(1)))]);
}

#[test]
fn what_has_no_counts_is_left_out_and_said() {
    let with_value = spec(", {name: depth, value: {query: 'max(depth{pod=~\"$pods\"})', max: 3}}");
    let past_of = past(&with_value, 2, pods(), &[], NO_GAP);
    let summary = backtest(&with_value, &past_of, &options()).unwrap();
    assert_eq!((summary.not_replayed, summary.ends.promoted), (vec!["depth (it reads a value)".to_owned()], 2));
    let mut only = with_value.clone();
    only.gates.remove(0);
    assert!(matches!(backtest(&only, &past_of, &options()), Err(SimError::Past(_))));
    let short = Options { every: Duration::from_secs(86_400 * 365), ..options() };
    let error = backtest(&spec(""), &past_of, &short).unwrap_err();
    assert!(error.to_string().contains("too short"), "{error}");
}

#[test]
fn an_answer_that_is_none_is_an_error() {
    let spec = spec("");
    let mut counting = Counting::new(&spec, FROM, "pod", None);
    let labels = [("pod".to_owned(), "web-1".to_owned())].into();
    let bad = Series { labels, samples: vec![Sample { at_ms: FROM + 1, value: f64::NAN }] };
    let answers = [("requests_total".to_owned(), vec![bad])].into();
    assert!(counting.absorb(&answers, FROM + HOUR).unwrap_err().to_string().contains("NaN"));
    assert!(counting.absorb(&BTreeMap::new(), FROM + 1).is_err());
}
