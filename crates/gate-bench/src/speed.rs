//! How long a gate's evaluation takes: the counts of one tick taken in, and ln E of all starts that are kept. It
//! measures on the machine at hand and asserts nothing.

use std::hint::black_box;
use std::time::Instant;

use canary_stats::{AboveLimit, Process as _, ShareCounts, Starts, StatsError};

/// Requests in the stage, in all.
const REQUESTS: [f64; 4] = [300.0, 30_000.0, 1e6, 1e9];
/// Planned ticks of the stage; the last of them is measured.
const TICKS: [u64; 2] = [90, 900];
/// Bad shares: a healthy service, and one on its limit.
const SHARES: [f64; 2] = [0.003, 0.01];
const LIMIT: f64 = 0.01;
/// Evaluations that are timed together, and how often.
const TOGETHER: u32 = 100;
const RUNS: usize = 25;

/// The time of one evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Ticks of the stage, the evaluated one being the last.
    pub ticks: u64,
    /// Requests of the stage.
    pub requests: f64,
    /// Bad ones among them, as a share.
    pub share: f64,
    /// Starts that are kept.
    pub starts: usize,
    /// Seconds, the median of several runs.
    pub evaluation: f64,
    /// Seconds of ln E from the stage's start alone, the median of several runs.
    pub one: f64,
}

/// Measures every case.
///
/// # Errors
/// Never with the numbers above.
pub fn measure() -> Result<Vec<Speed>, StatsError> {
    let mut speeds = Vec::new();
    for ticks in TICKS {
        for share in SHARES {
            for requests in REQUESTS {
                speeds.push(case(ticks, requests, share)?);
            }
        }
    }
    Ok(speeds)
}

fn case(ticks: u64, requests: f64, share: f64) -> Result<Speed, StatsError> {
    let test = AboveLimit::new(LIMIT)?;
    let mut starts = Starts::new(ticks);
    let (mut due, mut due_bad) = (0.0, 0.0);
    let mut last = ShareCounts::default();
    for tick in 0..ticks {
        due += requests / ticks as f64;
        let n = due.floor();
        due -= n;
        due_bad += n * share;
        let k = due_bad.floor().min(n);
        due_bad -= k;
        last = ShareCounts::new(n, k)?;
        if tick.saturating_add(1) < ticks {
            starts.push(tick, &last);
        }
    }
    let tick = ticks.saturating_sub(1);
    let evaluation = median(|| {
        let mut copies = vec![starts.clone(); TOGETHER as usize];
        let begin = Instant::now();
        for copy in &mut copies {
            copy.push(black_box(tick), black_box(&last));
            black_box(copy.log_e(&test));
        }
        begin.elapsed().as_secs_f64() / f64::from(TOGETHER)
    });
    starts.push(tick, &last);
    let whole = *starts.whole();
    let one = median(|| {
        let begin = Instant::now();
        for _ in 0..TOGETHER {
            black_box(test.log_e(black_box(&whole)));
        }
        begin.elapsed().as_secs_f64() / f64::from(TOGETHER)
    });
    Ok(Speed { ticks, requests, share, starts: starts.kept(), evaluation, one })
}

fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut times: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    times.sort_by(f64::total_cmp);
    times.get(RUNS / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_timed_is_the_last_tick_of_the_stage_with_all_its_requests() {
        let speed = case(90, 300.0, 0.01).unwrap();
        assert!(speed.starts > 40 && speed.evaluation > 0.0 && speed.one > 0.0, "{speed:?}");
        assert_eq!((speed.ticks, speed.requests), (90, 300.0));
    }
}
