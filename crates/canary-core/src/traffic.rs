//! Where the traffic goes, by the requests that both sides counted: the canary's share, whether that is the weight that
//! was asked for, and whether the canary is silent where it should not be. It judges the routing, never the candidate.

use canary_api::{CanaryReleaseSpec, Percent, ReleaseStatus, Step};
use canary_stats::{Alpha, Misrouted, PairedCounts, Routing, Starts};

use crate::gates::percent;

/// Requests of both sides below which a share is not told.
const ENOUGH: f64 = 100.0;
/// How far the odds of the share may be from those of the weight: callers that bypass the route stay on stable, and
/// connections that are kept stay where they are, so only a gross fault is one.
const TOLERANCE: f64 = 2.0;
/// Chance of calling a sound routing a fault, in one window.
const ALPHA: f64 = 0.001;

/// Requests of both sides since the window began.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Requests {
    /// The canary's.
    pub canary: f64,
    /// The stable side's.
    pub stable: f64,
}

/// Where the traffic of one window goes.
#[derive(Debug)]
pub struct Traffic {
    weight: f64,
    total: Requests,
    tests: Option<(Routing, Routing)>,
    less: Starts<PairedCounts>,
    more: Starts<PairedCounts>,
    /// Requests of stable since the canary last counted one.
    since_silent: f64,
}

/// The weight that a status asks for, 0 to 1; from the roll on everything is the candidate's.
#[must_use]
pub fn weight(current: &ReleaseStatus) -> f64 {
    if matches!(current.step, Step::Roll | Step::HandBack | Step::Drain | Step::Soak) {
        return 1.0;
    }
    current.weight.parse::<Percent>().map_or(0.0, Percent::fraction)
}

impl Traffic {
    pub(crate) fn new(spec: &CanaryReleaseSpec, current: &ReleaseStatus) -> Self {
        let weight = weight(current);
        let tests = Routing::new(weight, TOLERANCE, Misrouted::TooFew)
            .and_then(|less| Ok((less, Routing::new(weight, TOLERANCE, Misrouted::TooMany)?)))
            .ok();
        let planned = super::evidence::planned_ticks(spec, current);
        let starts = || Starts::new(planned);
        Self { weight, total: Requests::default(), tests, less: starts(), more: starts(), since_silent: 0.0 }
    }

    /// Takes the requests of one tick. Until the gateway has `switched` they say nothing of the routing.
    pub(crate) fn absorb(&mut self, tick: u64, requests: Option<Requests>, switched: bool) {
        let Some(now) = requests else { return };
        let canary = (now.canary - self.total.canary).max(0.0);
        let stable = (now.stable - self.total.stable).max(0.0);
        self.total = now;
        if !switched {
            return;
        }
        self.since_silent = if canary > 0.0 { 0.0 } else { self.since_silent + stable };
        if let Some((less, more)) = &self.tests {
            for (test, starts) in [(less, &mut self.less), (more, &mut self.more)] {
                if let Ok(counts) = test.tick(canary, canary + stable) {
                    starts.push(tick, &counts);
                }
            }
        }
    }

    /// The canary's share of the requests, where enough were counted to say.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let all = self.total.canary + self.total.stable;
        (all >= ENOUGH).then(|| self.total.canary / all)
    }

    /// The share as counted, or, where too little was, as asked for.
    #[must_use]
    pub fn share_or_weight(&self) -> f64 {
        if self.weight >= 1.0 { 1.0 } else { self.share().unwrap_or(self.weight) }
    }

    /// What is wrong with the routing, in words.
    #[must_use]
    pub fn misrouted(&self) -> Option<String> {
        let (less, more) = self.tests.as_ref()?;
        let threshold = Alpha::new(ALPHA).ok()?.ln_threshold();
        let shown = percent(self.share()?);
        if self.less.log_e(less) >= threshold || self.more.log_e(more) >= threshold {
            let asked = percent(self.weight);
            return Some(format!("the canary gets {shown} of the requests where {asked} was asked for"));
        }
        None
    }

    /// Requests that were due to the canary since it last counted one.
    #[must_use]
    pub fn due_in_silence(&self) -> f64 {
        if self.weight >= 1.0 || self.weight <= 0.0 {
            0.0
        } else {
            self.since_silent * self.weight / (1.0 - self.weight)
        }
    }
}
