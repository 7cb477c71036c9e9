//! What the numbers allow: at which stage a bad candidate should be reverted, and how long a late fault should take to
//! be called. Computed and simulated with the operator's own tests, before a release is played. It sees no release.

use anyhow::{Context as _, Result};
use canary_core::know::{Knows, StageKnowledge};
use canary_stats::know::chance_to_detect;
use canary_stats::{AboveLimit, Alpha, LEAST_BAD, Process as _, ShareCounts, Starts};
use lab_app::random::Random;

use super::plan::{self, LIMIT, RATE, Stage};
use super::{Part, page};

/// A stage is possible where that many are reverted by its end, and fewer than [`SURE`] by the end of the one before.
const POSSIBLE: f64 = 0.01;
const SURE: f64 = 0.999;
/// Simulated faults of one kind.
pub const FAULTS: usize = 1_000;
/// Simulated bad releases of one kind.
const RELEASES: u32 = 300;
/// So long a stage that is held is followed.
const HELD_SECONDS: u64 = 900;
/// The status may be that old when the operator dies: what was counted since is lost where it can't be read again.
const STATUS_SECONDS: u64 = 60;

/// The budget of one gate in one stage of a part.
///
/// # Errors
/// Never: every part has gates and stages.
pub fn alpha(part: Part) -> Result<Alpha> {
    canary_core::know::budget(&plan::spec(part)?).context("there is no gate that claims a probability")
}

/// Where a candidate that is bad from the start should be reverted.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The chance to be reverted by the end of each stage, extensions and what is held not counted.
    pub by_stage: Vec<f64>,
    /// The first stage, from 1, that detects the share, as `kubectl canary plan` says.
    pub predicted: usize,
    /// The stages, first and last, that are possible.
    pub possible: (usize, usize),
}

impl Prediction {
    /// For a true share of bad requests in the part `bad`.
    ///
    /// # Errors
    /// If no stage would do: a mistake in the plan.
    pub fn of(share: f64) -> Result<Self> {
        let spec = plan::spec(Part::Bad)?;
        let stages = canary_core::know::stages(&spec, RATE);
        let detects = |stage: &StageKnowledge| {
            let errors = stage.gates.iter().find(|gate| gate.gate == "errors");
            matches!(errors.map(|gate| &gate.knows), Some(Knows::Share { detects80: Some(least), .. }) if *least <= share)
        };
        let predicted =
            stages.iter().find(|stage| detects(stage)).context("no stage of the plan detects this share")?;
        let (mut left, mut by_stage, alpha) = (1.0, Vec::new(), alpha(Part::Bad)?);
        for stage in &stages {
            left *= 1.0 - chance_to_detect(LIMIT, alpha, stage.requests, share)?;
            by_stage.push(1.0 - left);
        }
        let first = |least: f64| by_stage.iter().position(|chance| *chance >= least).map(|index| index + 1);
        let possible = (first(POSSIBLE).unwrap_or(predicted.stage), first(SURE).unwrap_or(stages.len()));
        Ok(Self { predicted: predicted.stage, possible, by_stage })
    }

    /// Whether a revert at this stage, from 1, is one that may happen.
    #[must_use]
    pub fn allows(&self, stage: usize) -> bool {
        (self.possible.0..=self.possible.1).contains(&stage)
    }
}

/// The share of bad releases that is reverted in each stage of the part `bad`, simulated as the operator plays them: a
/// stage ends at a tick at which the estimate is within the limit, is extended once, and then held and judged on.
///
/// # Errors
/// Never with a share between 0 and 1.
pub fn reverted_in(share: f64) -> Result<Vec<f64>> {
    let mut counts = vec![0_u32; plan::BAD.len()];
    for seed in 0..RELEASES {
        if let Some(stage) = reverted_once(share, &mut Random::new(share.to_bits() ^ u64::from(seed)))? {
            counts[stage] += 1;
        }
    }
    Ok(counts.into_iter().map(|count| f64::from(count) / f64::from(RELEASES)).collect())
}

/// The stage, from 0, that one is reverted in.
fn reverted_once(share: f64, random: &mut Random) -> Result<Option<usize>> {
    let (test, alpha) = (AboveLimit::new(LIMIT)?, alpha(Part::Bad)?);
    for (index, stage) in plan::BAD.iter().enumerate() {
        let mut starts = Starts::new(stage.seconds);
        let mut passed = false;
        for second in 0..HELD_SECONDS {
            starts.push(second, &tick(random, *stage, share)?);
            let whole = starts.whole();
            if starts.log_e(&test) >= alpha.ln_threshold() && whole.k() >= LEAST_BAD {
                return Ok(Some(index));
            }
            let ends = (stage.seconds..=2 * stage.seconds).contains(&(second + 1));
            passed = ends && !test.above_limit(whole);
            if passed {
                break;
            }
        }
        if !passed {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Seconds until a late fault is called, as simulated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delay {
    /// In half of the releases.
    pub median: f64,
    /// In 80 %.
    pub eighty: f64,
    /// In 95 %.
    pub most: f64,
    /// In 99.9 %.
    pub longest: f64,
}

/// A fault in a long stage, a tick each second.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The true share of bad requests from then on.
    pub share: f64,
    /// Healthy seconds before.
    pub calm: u64,
    /// The operator dies so many seconds after the fault, comes back, and knows only the sums of its status. The delay
    /// is then counted from its return.
    pub dies_after: Option<u64>,
}

impl Fault {
    /// Simulates it as the part `late` plays it.
    ///
    /// # Errors
    /// Never with a share between 0 and 1.
    pub fn simulate(self) -> Result<Delay> {
        let mut delays = Vec::with_capacity(FAULTS);
        for seed in 0..FAULTS {
            let seed =
                u64::try_from(seed)? ^ self.share.to_bits() ^ self.dies_after.map_or(0, |after| (after + 1) << 32);
            delays.push(page::float(self.once(&mut Random::new(seed))?));
        }
        delays.sort_by(f64::total_cmp);
        let at = |part: f64| {
            // At most the number of faults.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let index = (part * delays.len() as f64).ceil() as usize;
            delays.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        Ok(Delay { median: at(0.5), eighty: at(0.8), most: at(0.95), longest: at(0.999) })
    }

    /// The ticks that one takes. A release that is called before its fault is not told apart: it is one in a thousand or
    /// fewer.
    fn once(self, random: &mut Random) -> Result<u64> {
        let (test, alpha) = (AboveLimit::new(LIMIT)?, alpha(Part::Late)?);
        let stage = plan::LATE[0];
        let planned = stage.seconds;
        let from = self.calm + self.dies_after.unwrap_or(0);
        let known = from - self.dies_after.map_or(0, |_| random.next_u64() % (STATUS_SECONDS + 1)).min(from);
        let mut starts = Starts::new(planned);
        for now in 0..known {
            starts.push(now, &tick(random, stage, if now < self.calm { plan::LATE_ERRORS } else { self.share })?);
        }
        if self.dies_after.is_some() {
            starts = Starts::resume(planned, *starts.whole(), from);
        }
        for passed in 1..=planned {
            starts.push(from + passed - 1, &tick(random, stage, self.share)?);
            if starts.log_e(&test) >= alpha.ln_threshold() && starts.whole().k() >= LEAST_BAD {
                return Ok(passed);
            }
        }
        Ok(planned)
    }
}

/// The canary's requests of one second: a whole number of them, each bad with the same chance.
fn tick(random: &mut Random, stage: Stage, share: f64) -> Result<ShareCounts> {
    let requests = (RATE * f64::from(stage.percent) / 100.0).round();
    let (mut sent, mut bad) = (0.0, 0.0);
    while sent < requests {
        sent += 1.0;
        bad += if random.happens(share) { 1.0 } else { 0.0 };
    }
    Ok(ShareCounts::new(sent, bad)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn late_faults_take_as_long_as_the_reference_says() {
        // 5 requests/s, ten healthy minutes, E >= 600: median and 80 % of an independent simulation of 60 runs.
        assert!((alpha(Part::Late).unwrap().threshold() - 600.0).abs() < 1e-9);
        for (share, median, eighty) in [(0.5, 3.0, 3.0), (0.1, 17.0, 23.0), (0.05, 58.0, 86.0)] {
            let delay = Fault { share, calm: 600, dies_after: None }.simulate().unwrap();
            let near = |seconds: f64, reference: f64| (seconds - reference).abs() <= 1.0_f64.max(0.3 * reference);
            assert!(near(delay.median, median) && near(delay.eighty, eighty), "{share}: {delay:?}");
            assert!(delay.eighty <= delay.most && delay.most <= delay.longest, "{share}: {delay:?}");
        }
    }

    #[test]
    fn a_restart_that_loses_the_late_starts_costs_time() {
        let fault = Fault { share: 0.1, calm: 600, dies_after: None };
        let (plain, killed) = (fault.simulate().unwrap(), Fault { dies_after: Some(5), ..fault }.simulate().unwrap());
        // Counted from its return, with nothing lost but what was in hand.
        assert!(killed.median >= plain.median - 5.0 && killed.median < 2.0 * plain.median, "{plain:?} {killed:?}");
    }

    #[test]
    fn each_bad_share_is_predicted_at_a_stage_that_is_possible() {
        let mut before = usize::MAX;
        for share in super::super::BAD {
            let prediction = Prediction::of(share).unwrap();
            assert!(prediction.allows(prediction.predicted), "{share}: {prediction:?}");
            assert!(prediction.by_stage.is_sorted(), "{share}: {prediction:?}");
            assert!(prediction.predicted <= before, "worse ones are found no later: {share}: {prediction:?}");
            let reverted = reverted_in(share).unwrap();
            assert!(reverted.iter().sum::<f64>() > 0.99, "{share}: {reverted:?}");
            let by_then: f64 = reverted.iter().take(prediction.predicted).sum();
            assert!(by_then >= 0.8, "no later than predicted: {share}: {reverted:?} {prediction:?}");
            before = prediction.predicted;
        }
        assert_eq!(before, 1, "half of the answers bad is found in the first stage");
    }
}
