//! Many releases: for each traffic and each bad share, how many of them a gate reverts and in which stage, and how they
//! end under ours. All gates judge the same releases. It counts; what the counts mean is for a reader to say.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use canary_sim::sample::mixed;
use canary_stats::{StatsError, Verdict};

use crate::judge::{Gate, Judge, Rule, Sequential};
use crate::traffic::{Plan, Release};

/// Requests a second to both sides together.
pub const TRAFFIC: [u32; 4] = [10, 100, 1_000, 10_000];
/// Bad shares of the canary's requests: a healthy service, a worse one, one on the limit, and bad ones.
pub const SHARES: [f64; 9] = [0.003, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.5];
/// Requests below which a stage that ends has no verdict, as where a gate says nothing else.
pub const MIN_REQUESTS: f64 = 50.0;

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Releases of each traffic and bad share.
    pub runs: u32,
    /// The seed of all of them.
    pub seed: u64,
    /// The stages.
    pub plan: Plan,
    /// Limit and budget.
    pub rule: Rule,
    /// Who judges them.
    pub gates: &'a [Gate],
    /// Threads that play; the counts do not depend on it.
    pub threads: NonZeroUsize,
}

impl Options<'_> {
    /// One of the releases.
    fn release(&self, rps: u32, share: f64, run: u32) -> Release {
        Release::new(self.plan, rps, share, mixed(&[self.seed, u64::from(run)]))
    }
}

/// How releases ended under our gate, a stage without a verdict being extended once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Endings {
    /// A breach, at whatever tick.
    pub reverted: u32,
    /// A stage still had no verdict after its extension: a person decides.
    pub paused: u32,
    /// Every stage passed.
    pub promoted: u32,
}

/// What became of the releases of one traffic and bad share.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Requests a second.
    pub rps: u32,
    /// The bad share.
    pub share: f64,
    /// Releases.
    pub runs: u32,
    /// For each gate and each stage, the releases that it reverted in that stage.
    pub reverted: Vec<(Gate, Vec<u32>)>,
    /// How they ended.
    pub endings: Endings,
}

impl Cell {
    /// The part, 0 to 1, of the releases that a gate had reverted by the end of each stage.
    #[must_use]
    pub fn by_stage(&self, gate: Gate) -> Vec<f64> {
        let stages = self.reverted.iter().find(|(one, _)| *one == gate).map(|(_, stages)| stages);
        let runs = f64::from(self.runs.max(1));
        let mut sum = 0_u32;
        let add = |count: &u32| {
            sum = sum.saturating_add(*count);
            f64::from(sum) / runs
        };
        stages.into_iter().flatten().map(add).collect()
    }

    /// The part that a gate had reverted by the end of a stage, counted from 0; the last one for any beyond it.
    #[must_use]
    pub fn part_by(&self, gate: Gate, stage: usize) -> f64 {
        let by_stage = self.by_stage(gate);
        by_stage.get(stage).or(by_stage.last()).copied().unwrap_or_default()
    }

    /// The part that a gate reverted at all.
    #[must_use]
    pub fn part(&self, gate: Gate) -> f64 {
        self.part_by(gate, usize::MAX)
    }
}

/// The stage, from 0, in which each gate reverts a release; `None`: in none.
///
/// # Errors
/// Where the rule's limit is no share.
pub fn reverted_in(
    release: Release,
    gates: &[Gate],
    rule: &Rule,
    plan: &Plan,
) -> Result<Vec<Option<usize>>, StatsError> {
    let mut ends = vec![None; gates.len()];
    let judges: Result<Vec<Judge>, StatsError> = gates.iter().map(|gate| Judge::new(*gate, rule, plan)).collect();
    let mut judges = judges?;
    for tick in release {
        for (end, judge) in ends.iter_mut().zip(&mut judges).filter(|(end, _)| end.is_none()) {
            if judge.reverts(&tick)? {
                *end = Some(tick.stage);
            }
        }
        if ends.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(ends)
}

/// How a release ends under our gate: judged at every tick, and at the end of each stage once more for what allows it
/// to end; without that, the stage goes on once for as long again.
///
/// # Errors
/// Where the rule's limit is no share.
pub fn ending(mut release: Release, rule: &Rule, plan: &Plan) -> Result<Verdict, StatsError> {
    let mut gate = Sequential::new(rule, plan)?;
    while let Some(tick) = release.next() {
        if gate.reverts(&tick)? {
            return Ok(Verdict::Breach);
        }
        let last = tick.tick.saturating_add(1);
        let verdict = gate.verdict(MIN_REQUESTS);
        if matches!(verdict, Verdict::Pass { .. }) || last.checked_rem(plan.ticks) != Some(0) {
            continue;
        }
        if last > plan.ticks {
            return Ok(verdict);
        }
        release.extend();
    }
    Ok(gate.verdict(MIN_REQUESTS))
}

/// The releases of one traffic and bad share.
///
/// # Errors
/// Where the rule's limit is no share.
pub fn cell(rps: u32, share: f64, options: &Options<'_>) -> Result<Cell, StatsError> {
    let Options { runs, plan, rule, gates, .. } = options;
    let mut reverted: Vec<_> = gates.iter().map(|gate| (*gate, vec![0_u32; plan.weights.len()])).collect();
    let mut endings = Endings::default();
    let add = |count: &mut u32| *count = count.saturating_add(1);
    for run in 0..*runs {
        let one = options.release(rps, share, run);
        match ending(one.clone(), rule, plan)? {
            Verdict::Breach => add(&mut endings.reverted),
            Verdict::Pass { .. } => add(&mut endings.promoted),
            Verdict::NoData | Verdict::Inconclusive => add(&mut endings.paused),
        }
        for ((_, stages), end) in reverted.iter_mut().zip(reverted_in(one, gates, rule, plan)?) {
            if let Some(count) = end.and_then(|stage| stages.get_mut(stage)) {
                add(count);
            }
        }
    }
    Ok(Cell { rps, share, runs: *runs, reverted, endings })
}

/// The releases of all of [`TRAFFIC`] and [`SHARES`], traffic by traffic; `tell` hears of each cell when it is done.
///
/// # Errors
/// Where the rule's limit is no share.
pub fn grid(options: &Options<'_>, mut tell: impl FnMut(&Cell)) -> Result<Vec<Cell>, StatsError> {
    let wanted: Vec<(u32, f64)> = TRAFFIC.iter().flat_map(|rps| SHARES.map(|share| (*rps, share))).collect();
    let next = AtomicUsize::new(0);
    let (done, played) = mpsc::channel();
    let mut cells = Vec::new();
    thread::scope(|scope| {
        for _ in 0..options.threads.get() {
            let (done, next, wanted) = (done.clone(), &next, &wanted);
            scope.spawn(move || {
                while let Some((rps, share)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Nobody listens any more after an error.
                    if done.send(cell(*rps, *share, options)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        for cell in played {
            let cell = cell?;
            tell(&cell);
            cells.push(cell);
        }
        Ok(())
    })?;
    cells.sort_by(|one, other| one.rps.cmp(&other.rps).then(one.share.total_cmp(&other.share)));
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use canary_stats::Alpha;

    use super::*;
    use crate::judge::GATES;

    fn options(threads: usize) -> Options<'static> {
        let plan = Plan { ticks: 6, ..Plan::USUAL };
        let rule = Rule::one_percent(Alpha::RELEASE, 6, &plan).unwrap();
        Options { runs: 3, seed: 9, plan, rule, gates: &GATES, threads: NonZeroUsize::new(threads).unwrap() }
    }

    #[test]
    fn the_counts_do_not_depend_on_the_threads() {
        let mut told = 0;
        let one = grid(&options(1), |_| told += 1).unwrap();
        assert_eq!(told, TRAFFIC.len() * SHARES.len());
        assert_eq!(one, grid(&options(3), |_| ()).unwrap());
    }

    #[test]
    fn parts_add_up_over_the_stages() {
        let reverted = vec![(Gate::Ours, vec![0, 2, 4]), (Gate::Plain(1), vec![8, 0, 0])];
        let cell = Cell { rps: 10, share: 0.1, runs: 8, reverted, endings: Endings::default() };
        assert_eq!(cell.by_stage(Gate::Ours), [0.0, 0.25, 0.75]);
        assert_eq!((cell.part_by(Gate::Ours, 1), cell.part(Gate::Ours), cell.part(Gate::Plain(1))), (0.25, 0.75, 1.0));
    }

    #[test]
    fn a_total_failure_is_reverted_in_the_first_stage_by_all() {
        let options = options(1);
        let ends = reverted_in(options.release(1000, 1.0, 0), &GATES, &options.rule, &options.plan).unwrap();
        assert_eq!(ends, [Some(0); 4]);
        assert_eq!(ending(options.release(1000, 1.0, 0), &options.rule, &options.plan).unwrap(), Verdict::Breach);
    }

    #[test]
    fn a_release_without_a_bad_request_is_promoted_and_one_with_too_few_requests_paused() {
        let options = options(1);
        let end = |rps| ending(options.release(rps, 0.0, 0), &options.rule, &options.plan).unwrap();
        assert!(matches!(end(1000), Verdict::Pass { proved: true }));
        // A minute at 1 % of 10 requests/s: 6, and 12 with the extension.
        assert_eq!(end(10), Verdict::Inconclusive);
    }
}
