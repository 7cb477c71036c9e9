//! The gates that are compared. Each sees the ticks of a release in their order and says of each whether the release is
//! to be reverted now. None of them sees more than counts.

use std::collections::VecDeque;

use canary_stats::{AboveLimit, Alpha, BelowLimit, Evidence, Process as _, ShareCounts, Starts, StatsError, Verdict};

use crate::traffic::{Plan, Tick};

/// A rule on the share of bad requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// The sequential test, with the mixture over starts and the rule of three bad ones.
    Ours,
    /// The share of bad requests in the last minute above the limit, at so many ticks in a row. In a new stage the window
    /// and the count of failures begin anew, as for an analysis that is run for each step.
    Plain(u32),
    /// The same with a window that goes on from stage to stage, and is judged only when it is a full minute.
    Patient(u32),
}

/// Those of the tables and plots, in the order of legends.
pub const GATES: [Gate; 4] = [Gate::Ours, Gate::Plain(1), Gate::Plain(3), Gate::Plain(5)];
/// The same plain thresholds with full windows only.
pub const PATIENT: [Gate; 3] = [Gate::Patient(1), Gate::Patient(3), Gate::Patient(5)];

impl Gate {
    /// What it is called in tables and legends.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Ours => "this gate".to_owned(),
            Self::Plain(1) | Self::Patient(1) => "plain, 1 failure".to_owned(),
            Self::Plain(failures) | Self::Patient(failures) => format!("plain, {failures} in a row"),
        }
    }
}

/// What the gates are told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// The largest share of bad requests that is still good.
    pub limit: f64,
    /// The budget of false alarms of this gate in one stage.
    pub alpha: Alpha,
}

impl Rule {
    /// A limit of 1 %, with the budget of a release of which this is one gate of `gates`.
    ///
    /// # Errors
    /// Where there is no gate or no stage.
    pub fn one_percent(release: Alpha, gates: u32, plan: &Plan) -> Result<Self, StatsError> {
        let stages = u32::try_from(plan.weights.len()).unwrap_or(u32::MAX);
        Ok(Self { limit: 0.01, alpha: release.split(gates, stages)? })
    }
}

/// A gate at work on one release.
#[derive(Debug)]
pub enum Judge {
    /// See [`Gate::Ours`].
    Ours(Box<Sequential>),
    /// See [`Gate::Plain`] and [`Gate::Patient`].
    Plain(Plain),
}

impl Judge {
    /// A gate before the first tick.
    ///
    /// # Errors
    /// Where the limit is no share.
    pub fn new(gate: Gate, rule: &Rule, plan: &Plan) -> Result<Self, StatsError> {
        Ok(match gate {
            Gate::Ours => Self::Ours(Box::new(Sequential::new(rule, plan)?)),
            Gate::Plain(consecutive) => Self::Plain(Plain::new(rule.limit, consecutive, plan)),
            Gate::Patient(consecutive) => {
                Self::Plain(Plain { patient: true, ..Plain::new(rule.limit, consecutive, plan) })
            }
        })
    }

    /// One tick; whether the release is reverted by it.
    ///
    /// # Errors
    /// Where there are more bad requests than requests.
    pub fn reverts(&mut self, tick: &Tick) -> Result<bool, StatsError> {
        match self {
            Self::Ours(sequential) => sequential.reverts(tick),
            Self::Plain(plain) => Ok(plain.reverts(tick)),
        }
    }
}

/// The test of `canary-stats`, begun anew in each stage.
#[derive(Debug)]
pub struct Sequential {
    test: AboveLimit,
    mirror: BelowLimit,
    alpha: Alpha,
    ticks: u64,
    stage: usize,
    starts: Starts<ShareCounts>,
}

impl Sequential {
    /// Before the first tick.
    ///
    /// # Errors
    /// Where the limit is no share.
    pub fn new(rule: &Rule, plan: &Plan) -> Result<Self, StatsError> {
        Ok(Self {
            test: AboveLimit::new(rule.limit)?,
            mirror: BelowLimit::new(rule.limit)?,
            alpha: rule.alpha,
            ticks: plan.ticks,
            stage: 0,
            starts: Starts::new(plan.ticks),
        })
    }

    pub(crate) fn reverts(&mut self, tick: &Tick) -> Result<bool, StatsError> {
        if tick.stage != self.stage {
            self.stage = tick.stage;
            self.starts = Starts::new(self.ticks);
        }
        self.starts.push(tick.tick, &ShareCounts::new(tick.requests as f64, tick.bad as f64)?);
        Ok(self.evidence().is_breach())
    }

    /// What the stage shows so far.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        let whole = self.starts.whole();
        Evidence {
            ln_e: self.starts.log_e(&self.test),
            alpha: self.alpha,
            bad: whole.k(),
            requests: whole.n(),
            above_limit: self.test.above_limit(whole),
            ln_e_proved: Some(self.mirror.log_e(whole)),
            alpha_proved: Alpha::RELEASE,
        }
    }

    /// The verdict, did the stage end now.
    #[must_use]
    pub fn verdict(&self, min_requests: f64) -> Verdict {
        self.evidence().verdict(min_requests)
    }
}

/// Seconds that a plain threshold looks back.
pub const WINDOW_SECONDS: u64 = 60;

/// A threshold on the last minute.
#[derive(Debug)]
pub struct Plain {
    limit: f64,
    /// Whether only full windows are judged, and a new stage changes nothing.
    patient: bool,
    consecutive: u32,
    window: usize,
    stage: usize,
    failures: u32,
    /// Requests and bad ones of the last ticks, newest last.
    recent: VecDeque<(u64, u64)>,
}

impl Plain {
    /// Before the first tick; so many failures in a row revert.
    #[must_use]
    pub fn new(limit: f64, consecutive: u32, plan: &Plan) -> Self {
        let window = WINDOW_SECONDS.checked_div(plan.tick_seconds).unwrap_or(1).max(1);
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        Self { limit, patient: false, consecutive, window, stage: 0, failures: 0, recent: VecDeque::new() }
    }

    fn reverts(&mut self, tick: &Tick) -> bool {
        if tick.stage != self.stage && !self.patient {
            self.stage = tick.stage;
            self.failures = 0;
            self.recent.clear();
        }
        if self.recent.len() == self.window {
            self.recent.pop_front();
        }
        self.recent.push_back((tick.requests, tick.bad));
        let requests: u64 = self.recent.iter().map(|(requests, _)| requests).sum();
        let bad: u64 = self.recent.iter().map(|(_, bad)| bad).sum();
        let judged = !self.patient || self.recent.len() == self.window;
        let fails = judged && bad as f64 > self.limit * requests as f64;
        self.failures = if fails { self.failures.saturating_add(1) } else { 0 };
        self.failures >= self.consecutive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(counts: &[(u64, u64)]) -> Vec<Tick> {
        (0_u64..)
            .zip(counts)
            .map(|(tick, (requests, bad))| Tick { stage: 0, tick, requests: *requests, bad: *bad })
            .collect()
    }

    fn reverted_at(gate: Gate, ticks: &[Tick]) -> Option<usize> {
        let rule = Rule::one_percent(Alpha::RELEASE, 6, &Plan::USUAL).unwrap();
        let mut judge = Judge::new(gate, &rule, &Plan::USUAL).unwrap();
        ticks.iter().position(|tick| judge.reverts(tick).unwrap())
    }

    #[test]
    fn a_plain_threshold_fails_while_a_bad_request_is_in_its_window_of_a_minute() {
        // One bad of 10 a tick, then clean: the window of six ticks shows it for six ticks.
        let mut counts = vec![(10, 1)];
        counts.extend([(10, 0); 20]);
        let ticks = ticks(&counts);
        assert_eq!(reverted_at(Gate::Plain(1), &ticks), Some(0));
        assert_eq!(reverted_at(Gate::Plain(6), &ticks), Some(5));
        assert_eq!(reverted_at(Gate::Plain(7), &ticks), None);
    }

    #[test]
    fn a_patient_threshold_waits_for_a_full_minute_and_looks_back_over_the_stages() {
        let mut ticks = ticks(&[(10, 1), (10, 0), (10, 0), (10, 0), (10, 0), (10, 0), (10, 0)]);
        assert_eq!(reverted_at(Gate::Patient(1), &ticks), Some(5));
        for tick in &mut ticks[3..] {
            tick.stage = 1;
        }
        assert_eq!(reverted_at(Gate::Patient(1), &ticks), Some(5));
        assert_eq!(reverted_at(Gate::Patient(2), &ticks), None);
    }

    #[test]
    fn a_share_on_the_limit_is_no_failure() {
        assert_eq!(reverted_at(Gate::Plain(1), &ticks(&[(100, 1), (100, 1)])), None);
        assert_eq!(reverted_at(Gate::Plain(1), &ticks(&[(100, 1), (100, 2)])), Some(1));
    }

    #[test]
    fn two_bad_requests_never_revert_by_ours_and_a_catastrophe_does_at_once() {
        assert_eq!(reverted_at(Gate::Ours, &ticks(&[(1, 1), (1, 1), (1, 0), (1, 0)])), None);
        assert_eq!(reverted_at(Gate::Ours, &ticks(&[(10, 0), (10, 5)])), Some(1));
    }

    #[test]
    fn a_new_stage_begins_anew_for_all() {
        let mut ticks = ticks(&[(100, 2), (100, 0)]);
        ticks[1].stage = 1;
        ticks[1].tick = 0;
        assert_eq!(reverted_at(Gate::Plain(2), &ticks), None);
        let rule = Rule::one_percent(Alpha::RELEASE, 6, &Plan::USUAL).unwrap();
        let mut ours = Sequential::new(&rule, &Plan::USUAL).unwrap();
        for tick in &ticks {
            assert!(!ours.reverts(tick).unwrap());
        }
        assert_eq!((ours.evidence().requests, ours.evidence().bad), (100.0, 0.0));
        assert_eq!(ours.verdict(50.0), Verdict::Pass { proved: false });
        assert_eq!(ours.verdict(200.0), Verdict::Inconclusive);
    }
}
