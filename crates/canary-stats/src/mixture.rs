//! Faults that begin late. One test from the stage's start is diluted by the healthy time before a fault, so every gate
//! runs a mixture of the same test begun at different ticks. Which starts are kept depends on time alone, never on what
//! was counted.
//!
//! With N planned ticks: E = w0 E(0) + Σ wj E(j), w0 = 1/2, wj = 0.4/(N-1) for 0 < j < N (w0 = 0.9 for N = 1), and for
//! the m-th tick beyond the plan 0.1/(m(m+1)). E(j) is 1 until tick j, and the test of the counts from tick j on after
//! it. The weights sum to 1, so the mixture starts at 1, and a convex mixture of e-processes is one: the bound on false
//! alarms is untouched. (Mixtures over the time of a change: Shiryaev 1963, Pollak 1985; as e-detectors: Shin, Ramdas
//! and Rinaldo 2022.)
//!
//! To stay cheap, start j is dropped at an age above 32 · 2^v(j), where 2^v(j) is the largest power of two that divides
//! j; start 0 never is. A start that is gone counts as 0, which is conservative: about 110 of 900 remain.

use crate::counts::Tally;
use crate::process::Process;
use crate::special::ln_sum_exp;

/// Weight of the test from the stage's start.
pub(crate) const FIRST: f64 = 0.5;
/// Weight of all later planned starts.
const LATER: f64 = 0.4;
/// Weight of all starts beyond the plan.
const RESERVE: f64 = 0.1;
/// Ticks for which even the shortest-lived start is kept.
const YOUNG: u64 = 32;

/// One test in the mixture.
#[derive(Debug, Clone, PartialEq)]
struct Start<C> {
    tick: u64,
    weight: f64,
    counts: C,
}

/// The mixture of one gate in one stage: counts since each start that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Starts<C> {
    planned: u64,
    /// Starts before this one have begun, or are lost.
    next: u64,
    kept: Vec<Start<C>>,
    /// Since the stage's start.
    whole: C,
}

impl<C: Tally> Starts<C> {
    /// A stage of so many planned ticks, at least 1, in which nothing was counted yet.
    #[must_use]
    pub fn new(planned: u64) -> Self {
        Self { planned: planned.max(1), next: 0, kept: Vec::new(), whole: C::default() }
    }

    /// After a restart: the test from the stage's start goes on from its sums, and new starts begin at `tick` (the
    /// first one that is counted again). The starts in between are lost, which costs speed, never a false alarm.
    #[must_use]
    pub fn resume(planned: u64, whole: C, tick: u64) -> Self {
        let mut starts = Self::new(planned);
        starts.kept.push(Start { tick: 0, weight: starts.weight(0), counts: whole.clone() });
        starts.whole = whole;
        starts.next = tick.max(1);
        starts
    }

    /// Counts of one tick. Its index is floor(elapsed / interval), from 0; an index that was seen before begins no new
    /// start, and one that was passed over begins together with the next, with the weights of both.
    pub fn push(&mut self, tick: u64, counts: &C) {
        self.whole.add(counts);
        for start in &mut self.kept {
            start.counts.add(counts);
        }
        if tick >= self.next {
            // Of those that begin together, the one that is kept longest gives its name.
            let weight = self.weights(self.next, tick);
            self.kept.push(Start { tick: roundest(self.next, tick), weight, counts: counts.clone() });
            self.next = tick.saturating_add(1);
            self.kept.retain(|start| is_kept(start.tick, tick.saturating_sub(start.tick)));
        }
    }

    /// The logarithm of the mixture; 0 before anything was counted.
    #[must_use]
    pub fn log_e<P: Process<Counts = C>>(&self, process: &P) -> f64 {
        let terms: Vec<f64> = self.kept.iter().map(|start| start.weight.ln() + process.log_e(&start.counts)).collect();
        let waiting = self.waiting();
        ln_sum_exp(terms.iter().copied().chain((waiting > 0.0).then(|| waiting.ln())))
    }

    /// The sums since the stage's start, to be kept for [`Starts::resume`] and shown.
    #[must_use]
    pub const fn whole(&self) -> &C {
        &self.whole
    }

    /// How many starts are kept.
    #[must_use]
    pub const fn kept(&self) -> usize {
        self.kept.len()
    }

    /// The first tick that has not been counted.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Of one start.
    fn weight(&self, tick: u64) -> f64 {
        match tick {
            0 if self.planned == 1 => FIRST + LATER,
            0 => FIRST,
            _ => self.weights(tick, tick),
        }
    }

    /// Of the starts of an interval of ticks, both ends included.
    fn weights(&self, from: u64, to: u64) -> f64 {
        let first = if from == 0 { self.weight(0) } else { 0.0 };
        let planned = self.planned;
        let later = (to.saturating_add(1).min(planned)).saturating_sub(from.max(1));
        let later = if later == 0 { 0.0 } else { LATER * later as f64 / planned.saturating_sub(1) as f64 };
        // Σ 1/(m(m+1)) telescopes to 1/from - 1/(to+1).
        let beyond = |tick: u64| RESERVE / tick.saturating_sub(planned).saturating_add(1) as f64;
        let reserve = if to >= planned { beyond(from.max(planned)) - beyond(to.saturating_add(1)) } else { 0.0 };
        first + later + reserve
    }

    /// Of the starts that have not begun; each counts as 1.
    fn waiting(&self) -> f64 {
        if self.next < self.planned {
            self.weights(self.next, self.planned.saturating_sub(1)) + RESERVE
        } else {
            RESERVE / self.next.saturating_sub(self.planned).saturating_add(1) as f64
        }
    }
}

/// Whether a start of an age in ticks is still kept.
const fn is_kept(start: u64, age: u64) -> bool {
    if start == 0 || age <= YOUNG {
        return true;
    }
    let power = 1_u64 << start.trailing_zeros();
    YOUNG.saturating_mul(power) >= age
}

/// The tick of an interval, both ends included, that the greatest power of two divides; 0 before all.
const fn roundest(from: u64, to: u64) -> u64 {
    if from == 0 {
        return 0;
    }
    // Above the highest bit in which from - 1 and to differ both agree; at that bit only `to` has a one.
    let differ = from.saturating_sub(1) ^ to;
    let shift = 63_u32.saturating_sub(differ.leading_zeros());
    (to >> shift) << shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binomial::AboveLimit;
    use crate::counts::ShareCounts;

    #[test]
    fn the_weights_of_all_starts_sum_to_one() {
        for planned in [1_u64, 2, 3, 10, 900] {
            let starts = Starts::<ShareCounts>::new(planned);
            assert!((starts.waiting() - 1.0).abs() < 1e-12);
            for next in [1_u64, 2, 5, 899, 900, 901, 5000] {
                let mut later = starts.clone();
                later.next = next;
                let begun: f64 = (0..next).map(|tick| starts.weight(tick)).sum();
                assert!((begun + later.waiting() - 1.0).abs() < 1e-9, "{planned} {next}");
                assert!((begun - starts.weights(0, next - 1)).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn the_roundest_tick_is_the_one_that_is_kept_longest() {
        for from in 1_u64..70 {
            for to in from..140 {
                let best = (from..=to).max_by_key(|tick| tick.trailing_zeros()).unwrap();
                assert_eq!(roundest(from, to), best, "{from} {to}");
            }
        }
    }

    #[test]
    fn about_110_of_900_starts_remain_and_which_is_decided_by_age_alone() {
        let mut starts = Starts::new(900);
        for tick in 0..900 {
            starts.push(tick, &ShareCounts::new(5.0, f64::from(u8::from(tick % 7 == 0))).unwrap());
        }
        assert!((100..=120).contains(&starts.kept()), "{}", starts.kept());
        let now = 899;
        for tick in 0..900_u64 {
            assert_eq!(starts.kept.iter().any(|start| start.tick == tick), is_kept(tick, now - tick), "{tick}");
        }
    }

    #[test]
    fn a_tick_passed_over_begins_with_the_next_and_none_begins_twice() {
        let test = AboveLimit::new(0.01).unwrap();
        let one = ShareCounts::new(10.0, 0.0).unwrap();
        let mut starts = Starts::new(10);
        starts.push(0, &one);
        starts.push(0, &one);
        assert_eq!(starts.kept(), 1);
        starts.push(4, &one);
        assert_eq!((starts.kept(), starts.next()), (2, 5));
        assert!((starts.kept[1].weight - 4.0 * 0.4 / 9.0).abs() < 1e-12);
        starts.push(3, &one);
        assert_eq!((starts.kept(), starts.next()), (2, 5));
        assert!(starts.log_e(&test) < 0.0);
        assert_eq!(starts.whole().n(), 40.0);
    }

    #[test]
    fn after_a_restart_lost_starts_do_not_begin_again() {
        let whole = ShareCounts::new(1000.0, 3.0).unwrap();
        let mut starts = Starts::resume(100, whole, 50);
        let test = AboveLimit::new(0.01).unwrap();
        let waiting = 0.5 * test.ln(1000.0, 3.0).exp() + 50.0 * 0.4 / 99.0 + 0.1;
        assert!((starts.log_e(&test) - waiting.ln()).abs() < 1e-12);
        starts.push(50, &ShareCounts::new(10.0, 5.0).unwrap());
        assert_eq!((starts.kept(), starts.whole().k()), (2, 8.0));
        assert!((starts.kept[1].weight - 0.4 / 99.0).abs() < 1e-12);
    }
}
