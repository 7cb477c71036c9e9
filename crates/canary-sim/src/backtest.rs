//! Releases of one spec over the past: as if a healthy release had begun at every hour, how often would it have been
//! reverted, and by which gate. A past that was healthy makes each of them a false alarm.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use canary_api::CanaryReleaseSpec;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    error::SimError,
    past::{Past, countable},
    play::{End, Place, Run, Start, play},
    replay::{Replay, Taken},
    sample::mixed,
    tally::{Ends, Part},
};

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A release begins each time so long has passed, counted from the Unix epoch; at least a second.
    pub every: Duration,
    /// The seed of all that is drawn.
    pub seed: u64,
    /// Threads that play; the result does not depend on it.
    pub threads: NonZeroUsize,
}

/// One release that would have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// When it would have begun.
    pub began: Timestamp,
    /// How it would have ended: Promoted, RolledBack, Paused or Unfinished.
    pub outcome: &'static str,
    /// Where, unless it was promoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The gate that broke, or the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Seconds after it began.
    pub after_seconds: u64,
}

/// How the canary's part was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Method {
    /// Stages below 100 % in which whole pods stood for the canary.
    pub stages_of_whole_pods: u32,
    /// Stages below 100 % in which the service's counts were thinned.
    pub stages_thinned: u32,
}

/// What would have become of all releases.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// When the past that was looked at begins.
    pub from: Timestamp,
    /// When it ends.
    pub to: Timestamp,
    /// Seconds from one release's beginning to the next one's.
    pub every_seconds: u64,
    /// Pods that were seen.
    pub pods: usize,
    /// Requests a second of the service, on average.
    pub requests_per_second: f64,
    /// The part of the time for which there were samples, 0 to 1.
    pub coverage: f64,
    /// Gates that read a value, which has no counts and was not replayed.
    pub not_replayed: Vec<String>,
    /// How the canary's part was taken.
    pub method: Method,
    /// Releases that were played.
    pub runs: u32,
    /// How they ended.
    pub ends: Ends,
    /// Those that were reverted.
    pub reverted: Part,
    /// Those that wait for a person.
    pub paused: Part,
    /// Each of them, in order of time.
    pub releases: Vec<Release>,
}

/// Plays a release from each hour of the past that has one wholly after it.
///
/// # Errors
/// A spec that the operator would refuse or that has only gates on values; a past that is too short for one release.
pub fn backtest(spec: &CanaryReleaseSpec, past: &Past, options: &Options) -> Result<Summary, SimError> {
    let (playable, not_replayed) = countable(spec);
    if playable.gates.is_empty() {
        return Err(SimError::Past("all gates read values; only counts can be taken apart".to_owned()));
    }
    if past.gates() != playable.gates.len() {
        return Err(SimError::Past("it was counted for another spec".to_owned()));
    }
    let start = Start::new(&playable)?;
    let times = beginnings(past, options.every, shortest(&playable))?;
    let mut played = all(&start, past, &times, options)?;
    played.sort_by_key(|(index, _, _)| *index);
    let taken = played.iter().fold(Method::default(), |sum, (_, _, taken)| Method {
        stages_of_whole_pods: sum.stages_of_whole_pods.saturating_add(taken.whole_pods),
        stages_thinned: sum.stages_thinned.saturating_add(taken.thinned),
    });
    let releases: Vec<Release> = times.iter().zip(&played).map(|(began, (_, run, _))| release(*began, run)).collect();
    let runs = u32::try_from(played.len()).unwrap_or(u32::MAX);
    let ends = Ends::of(played.iter().map(|(_, run, _)| &run.end));
    let seconds = past.to_ms().saturating_sub(past.from_ms()) as f64 / 1000.0;
    Ok(Summary {
        from: time(past.from_ms())?,
        to: time(past.to_ms())?,
        every_seconds: options.every.as_secs(),
        pods: past.pods(),
        requests_per_second: past.requests() / seconds.max(1.0),
        coverage: past.coverage(),
        not_replayed,
        method: taken,
        runs,
        reverted: Part::of(ends.reverted(), runs),
        paused: Part::of(ends.paused_in_all(), runs),
        ends,
        releases,
    })
}

fn time(ms: i64) -> Result<Timestamp, SimError> {
    Timestamp::from_millisecond(ms).map_err(|error| SimError::Past(error.to_string()))
}

/// How long a release takes that nothing extends.
fn shortest(spec: &CanaryReleaseSpec) -> Duration {
    let stages = spec.stages.iter().map(|stage| stage.duration.std().saturating_add(Duration::from_secs(5)));
    let ends = [spec.baseline.duration.std(), spec.drain.std(), spec.soak.std(), Duration::from_secs(10)];
    stages.chain(ends).fold(Duration::ZERO, Duration::saturating_add)
}

/// The times at which releases begin: full hours, as long as one fits in wholly.
fn beginnings(past: &Past, every: Duration, length: Duration) -> Result<Vec<Timestamp>, SimError> {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let (every, length) = (millis(every).max(1000), millis(length));
    let first = past.from_ms().saturating_add(every).saturating_sub(1).div_euclid(every).saturating_mul(every);
    let last = past.to_ms().saturating_sub(length);
    let times: Result<Vec<_>, _> = (0..)
        .map_while(|number: i64| first.checked_add(number.checked_mul(every)?))
        .take_while(|at| *at <= last)
        .map(time)
        .collect();
    let times = times?;
    if times.is_empty() {
        let one = canary_api::Duration::from_millis(u64::try_from(length).unwrap_or(u64::MAX));
        return Err(SimError::Past(format!("it is too short: one release takes {one}; look further back")));
    }
    Ok(times)
}

type Played = (usize, Run, Taken);

fn all(start: &Start, past: &Past, times: &[Timestamp], options: &Options) -> Result<Vec<Played>, SimError> {
    let (next, (done, played)) = (AtomicUsize::new(0), mpsc::channel());
    thread::scope(|scope| {
        for _ in 0..options.threads.get() {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(at) = times.get(index) else { break };
                    let seed = mixed(&[options.seed, u64::try_from(index).unwrap_or(0)]);
                    let mut replay = Replay::new(past, start.spec(), seed);
                    let run = play(start, &mut replay, *at);
                    // Nobody listens any more after an error.
                    if done.send(run.map(|run| (index, run, replay.taken()))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        played.into_iter().collect()
    })
}

fn release(began: Timestamp, run: &Run) -> Release {
    let (outcome, place, by) = match &run.end {
        End::Promoted => ("Promoted", None, None),
        End::RolledBack { place, by } => ("RolledBack", Some(*place), Some(by.clone())),
        End::Paused { place, reason } => ("Paused", Some(*place), Some(reason.clone())),
        End::Unfinished => ("Unfinished", None, None),
    };
    Release { began, outcome, place, by, after_seconds: run.took.as_secs() }
}
