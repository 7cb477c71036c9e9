//! Many releases of one spec on sampled traffic: where they end, and how long a fault is in the traffic before it is
//! called.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use canary_api::{CanaryReleaseSpec, Percent};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    error::SimError,
    level::{self, Fault, Healthy, Levels},
    play::{End, Place, Run, Start, play},
    sample::mixed,
    sampled::Sampled,
    tally::{Ends, Part},
};

/// When simulated releases begin.
const BEGAN: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Options {
    /// Releases.
    pub runs: u32,
    /// The seed of all of them.
    pub seed: u64,
    /// Requests a second of the whole service, above 0.
    pub rps: f64,
    /// What is healthy, where it is not what is usual: half of the limit, and for gates that compare one event in a
    /// thousand requests.
    pub healthy: Vec<Healthy>,
    /// What is wrong with the candidate.
    pub faults: Vec<Fault>,
    /// Threads that play; the result does not depend on it.
    pub threads: NonZeroUsize,
}

/// What a gate counts in a healthy version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateLevel {
    /// The gate.
    pub gate: String,
    /// `errors`, `latency`, `events`, `relative` or `value`.
    pub kind: &'static str,
    /// The gate's limit.
    pub limit: String,
    /// How much of it there is, such as `0.5%`.
    pub healthy: String,
}

/// What became of releases at a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageEnds {
    /// The stage, from 1.
    pub stage: usize,
    /// Its weight.
    pub weight: Percent,
    /// How long it is held.
    pub duration: canary_api::Duration,
    /// Releases that came to it.
    pub reached: u32,
    /// Seconds after the beginning at which it got its weight: the median of those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began_after_seconds: Option<f64>,
    /// Releases that were reverted in it.
    pub reverted: u32,
    /// Releases that wait for a person in it.
    pub paused: u32,
    /// Of all releases, those that were reverted by its end.
    pub reverted_by_end: Part,
}

/// How soon the faults were called.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Calls {
    /// Releases in which the candidate had traffic with a fault in it.
    pub runs: u32,
    /// Those that were reverted from then on.
    pub called: u32,
    /// Seconds from the first faulty traffic to the breach, in the middle one of `runs`; none where it was not called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median_seconds: Option<f64>,
    /// The same for four of five of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eighty_percent_seconds: Option<f64>,
}

/// What became of all releases.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Releases that were played.
    pub runs: u32,
    /// Their seed.
    pub seed: u64,
    /// Requests a second of the whole service.
    pub requests_per_second: f64,
    /// What is healthy.
    pub healthy: Vec<GateLevel>,
    /// The candidate's faults.
    pub faults: Vec<String>,
    /// How they ended.
    pub ends: Ends,
    /// Those that were reverted.
    pub reverted: Part,
    /// Of these, those that were reverted before any fault had traffic: false alarms.
    pub reverted_without_fault: Part,
    /// Stage by stage.
    pub stages: Vec<StageEnds>,
    /// How soon the faults were called, where there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<Calls>,
    /// Seconds after the beginning of each revert, ascending.
    pub reverted_after_seconds: Vec<f64>,
    /// Seconds that the longest release took.
    pub longest_seconds: f64,
}

/// Plays the releases.
///
/// # Errors
/// A spec that the operator would refuse, a level that no gate can have, traffic that is none.
pub fn simulate(spec: &CanaryReleaseSpec, options: &Options) -> Result<Summary, SimError> {
    let rps = options.rps;
    if !(rps.is_finite() && rps > 0.0) || options.runs == 0 {
        return Err(SimError::Level("at least one release and some requests a second are needed".to_owned()));
    }
    let start = Start::new(spec)?;
    let levels = Levels::new(spec, rps, &options.healthy, &options.faults)?;
    let mut played = all(&start, &levels, options)?;
    played.sort_by_key(|(number, _, _)| *number);
    let runs: Vec<(Run, Option<Duration>)> = played.into_iter().map(|(_, run, faulty)| (run, faulty)).collect();
    let healthy = spec.gates.iter().zip(&levels.healthy).map(|(gate, amount)| GateLevel {
        gate: gate.name.clone(),
        kind: level::kind(gate),
        limit: canary_core::gates::limit(gate),
        healthy: level::shown(gate, *amount, rps).to_string(),
    });
    Ok(summed(spec, options, healthy.collect(), &runs))
}

type Played = (u32, Run, Option<Duration>);

fn all(start: &Start, levels: &Levels, options: &Options) -> Result<Vec<Played>, SimError> {
    let (next, (done, played)) = (AtomicUsize::new(0), mpsc::channel());
    thread::scope(|scope| {
        for _ in 0..options.threads.get() {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                while let Some(number) =
                    u32::try_from(next.fetch_add(1, Ordering::Relaxed)).ok().filter(|number| *number < options.runs)
                {
                    let seed = mixed(&[options.seed, u64::from(number)]);
                    let mut traffic = Sampled::new(levels.clone(), options.rps, seed, BEGAN);
                    let run = play(start, &mut traffic, BEGAN);
                    // Nobody listens any more after an error.
                    if done.send(run.map(|run| (number, run, traffic.faulty_since()))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        played.into_iter().collect()
    })
}

fn summed(
    spec: &CanaryReleaseSpec,
    options: &Options,
    healthy: Vec<GateLevel>,
    runs: &[(Run, Option<Duration>)],
) -> Summary {
    let all = options.runs;
    let ends = Ends::of(runs.iter().map(|(run, _)| &run.end));
    let reverted = || runs.iter().filter(|(run, _)| matches!(run.end, End::RolledBack { .. }));
    let without_fault = reverted().filter(|(_, faulty)| faulty.is_none()).count();
    let mut reverted_after: Vec<f64> = reverted().map(|(run, _)| run.took.as_secs_f64()).collect();
    reverted_after.sort_by(f64::total_cmp);
    Summary {
        runs: all,
        seed: options.seed,
        requests_per_second: options.rps,
        healthy,
        faults: options.faults.iter().map(ToString::to_string).collect(),
        reverted: Part::of(ends.reverted(), all),
        reverted_without_fault: Part::of(u32::try_from(without_fault).unwrap_or(u32::MAX), all),
        stages: stages(spec, all, &ends, runs),
        calls: (!options.faults.is_empty()).then(|| calls(runs)),
        reverted_after_seconds: reverted_after,
        longest_seconds: runs.iter().map(|(run, _)| run.took.as_secs_f64()).fold(0.0, f64::max),
        ends,
    }
}

fn stages(spec: &CanaryReleaseSpec, all: u32, ends: &Ends, runs: &[(Run, Option<Duration>)]) -> Vec<StageEnds> {
    let mut by_end = ends.reverted_at(Place::Baseline);
    let mut stages = Vec::new();
    for (index, stage) in spec.stages.iter().enumerate() {
        let number = index.saturating_add(1);
        let mut began: Vec<f64> =
            runs.iter().filter_map(|(run, _)| run.stages.get(index)).map(Duration::as_secs_f64).collect();
        began.sort_by(f64::total_cmp);
        let place = Place::Stage(number);
        by_end = by_end.saturating_add(ends.reverted_at(place));
        stages.push(StageEnds {
            stage: number,
            weight: stage.weight,
            duration: stage.duration,
            reached: u32::try_from(began.len()).unwrap_or(u32::MAX),
            began_after_seconds: quantile(&began, began.len(), 0.5),
            reverted: ends.reverted_at(place),
            paused: ends.paused_at(place),
            reverted_by_end: Part::of(by_end, all),
        });
    }
    stages
}

fn calls(runs: &[(Run, Option<Duration>)]) -> Calls {
    let faulty = || runs.iter().filter_map(|(run, faulty)| Some((run, (*faulty)?)));
    let called = faulty().filter(|(run, _)| matches!(run.end, End::RolledBack { .. }));
    let mut times: Vec<f64> = called.map(|(run, since)| run.took.saturating_sub(since).as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let count = faulty().count();
    Calls {
        runs: u32::try_from(count).unwrap_or(u32::MAX),
        called: u32::try_from(times.len()).unwrap_or(u32::MAX),
        median_seconds: quantile(&times, count, 0.5),
        eighty_percent_seconds: quantile(&times, count, 0.8),
    }
}

/// The time within which so many of `all` came, where that many did.
fn quantile(times: &[f64], all: usize, part: f64) -> Option<f64> {
    let place = (part * all as f64).ceil().max(1.0) as usize;
    times.get(place.saturating_sub(1)).copied()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec() -> CanaryReleaseSpec {
        serde_norway::from_str(
            "{target: {name: web}, traffic: {service: web, routes: [{kind: HTTPRoute, name: web}], requests: {counter: http_requests_total}},
             stages: [{weight: 1%, duration: 5m}, {weight: 5%, duration: 5m}, {weight: 25%, duration: 5m}, {weight: 50%, duration: 5m}, {weight: 100%, duration: 5m}],
             gates: [{name: errors, errorRate: {bad: 'http_requests_total{code=~\"5..\"}', total: http_requests_total, limit: 1%}},
                     {name: p95, latency: {histogram: http_request_duration_seconds, quantile: 95%, limit: 200ms}}]}",
        )
        .unwrap()
    }

    #[test]
    fn a_quantile_that_was_not_reached_is_none() {
        let times = [1.0, 2.0, 3.0];
        assert_eq!(quantile(&times, 3, 0.5), Some(2.0));
        assert_eq!(quantile(&times, 3, 0.8), Some(3.0));
        assert_eq!(quantile(&times, 6, 0.5), Some(3.0));
        assert_eq!(quantile(&times, 6, 0.8), None);
        assert_eq!(quantile(&[], 0, 0.5), None);
    }
}
