//! Where the traffic goes, by the requests that both sides counted: the canary's share, whether that is the weight that
//! was asked for, and whether the canary is silent where it should not be. It judges the routing, never the candidate.

use canary_api::{Percent, ReleaseStatus, Step};
use canary_stats::{Alpha, Misrouted, PairedCounts, Process, Routing, Tally};

use crate::gates::percent;

/// Requests of both sides below which a share is not told.
const ENOUGH: f64 = 100.0;
/// How far the odds of the share may be from those of the weight: callers that bypass the route stay on stable, and
/// connections that are kept stay where they are, so only a gross fault is one.
const TOLERANCE: f64 = 2.0;
/// Chance of calling a sound routing a fault, in one window.
const ALPHA: f64 = 0.001;

/// Requests of both sides since the window began. Pods are sampled each at a moment of its own, so that between two
/// looks one side may seem to stand still only because the other was sampled later.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Requests {
    /// The canary's.
    pub canary: f64,
    /// The stable side's, its baseline pods included.
    pub stable: f64,
    /// The earliest of the canary pods' newest samples: all of them are known up to then. Milliseconds.
    pub known_to: i64,
    /// The latest of them.
    pub newest: i64,
    /// The stable side's up to `known_to`.
    pub stable_then: f64,
}

/// Where the traffic of one window goes.
#[derive(Debug)]
pub struct Traffic {
    weight: f64,
    total: Requests,
    /// What was counted before the gateway had switched.
    early: Requests,
    tests: Option<(Routing, Routing)>,
    less: PairedCounts,
    more: PairedCounts,
    silence: Option<Silence>,
}

/// A canary that counts nothing.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// When a pod of the canary was last sampled with a new request counted. Milliseconds.
    since: i64,
    /// Requests of stable by the time that every pod was sampled after that, and since.
    stable: Option<(f64, f64)>,
}

/// The weight that a status asks for, 0 to 1; from the roll on everything is the candidate's.
#[must_use]
pub fn weight(current: &ReleaseStatus) -> f64 {
    if matches!(current.step, Step::Roll | Step::HandBack | Step::Drain | Step::Soak) {
        return 1.0;
    }
    current.weight.parse::<Percent>().map_or(0.0, Percent::fraction)
}

/// The weight of baseline pods that a status asks for, 0 to 1.
#[must_use]
pub fn beside(current: &ReleaseStatus) -> f64 {
    let own = matches!(current.step, Step::Scale | Step::Shift | Step::Bake) && weight(current) > 0.0;
    let beside = current.baseline_pods.as_ref().filter(|_| own);
    beside.and_then(|beside| beside.weight.parse::<Percent>().ok()).map_or(0.0, Percent::fraction)
}

impl Traffic {
    pub(crate) fn new(current: &ReleaseStatus) -> Self {
        let weight = weight(current);
        let tests = Routing::new(weight, TOLERANCE, Misrouted::TooFew)
            .and_then(|less| Ok((less, Routing::new(weight, TOLERANCE, Misrouted::TooMany)?)))
            .ok();
        let (less, more) = (PairedCounts::default(), PairedCounts::default());
        let (total, early) = (Requests::default(), Requests::default());
        Self { weight, total, early, tests, less, more, silence: None }
    }

    /// Takes the requests of one tick. Until the gateway has `switched` they say nothing of the routing.
    pub(crate) fn absorb(&mut self, requests: Option<Requests>, switched: bool) {
        let Some(now) = requests else { return };
        let canary = (now.canary - self.total.canary).max(0.0);
        let stable = (now.stable - self.total.stable).max(0.0);
        self.total = now;
        if !switched {
            // Nor does what went elsewhere while a route had lost the weight.
            (self.early, self.less, self.more) = (now, PairedCounts::default(), PairedCounts::default());
            return;
        }
        self.listen(canary > 0.0, now);
        if let Some((less, more)) = &self.tests {
            for (test, sums) in [(less, &mut self.less), (more, &mut self.more)] {
                if let Ok(counts) = test.tick(canary, canary + stable) {
                    sums.add(&counts);
                }
            }
        }
    }

    fn listen(&mut self, heard: bool, now: Requests) {
        let silence = match self.silence.filter(|_| !heard) {
            None => Silence { since: now.newest, stable: None },
            // Only where every pod was sampled again and still says nothing is there silence.
            Some(silence) if now.known_to > silence.since => {
                let from = silence.stable.map_or(now.stable_then, |(from, _)| from);
                Silence { stable: Some((from, now.stable_then)), ..silence }
            }
            Some(silence) => silence,
        };
        self.silence = Some(silence);
    }

    /// The canary's share of the requests since the gateway had switched, where enough were counted to say.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let canary = (self.total.canary - self.early.canary).max(0.0);
        let all = canary + (self.total.stable - self.early.stable).max(0.0);
        (all >= ENOUGH).then(|| canary / all)
    }

    /// The share as counted, or, where too little was, as asked for.
    #[must_use]
    pub fn share_or_weight(&self) -> f64 {
        if self.weight >= 1.0 { 1.0 } else { self.share().unwrap_or(self.weight) }
    }

    /// What is wrong with the routing, in words. It is asked of all of the window at once: over a few samples the
    /// sides differ by when they were sampled.
    #[must_use]
    pub fn misrouted(&self) -> Option<String> {
        let (less, more) = self.tests.as_ref()?;
        let threshold = Alpha::new(ALPHA).ok()?.ln_threshold();
        let shown = percent(self.share()?);
        if less.log_e(&self.less) >= threshold || more.log_e(&self.more) >= threshold {
            let asked = percent(self.weight);
            return Some(format!("the canary gets {shown} of the requests where {asked} was asked for"));
        }
        None
    }

    /// Requests that were due to the canary since it last counted one.
    #[must_use]
    pub fn due_in_silence(&self) -> f64 {
        let Some((from, to)) = self.silence.and_then(|silence| silence.stable) else { return 0.0 };
        if self.weight >= 1.0 || self.weight <= 0.0 {
            return 0.0;
        }
        (to - from).max(0.0) * self.weight / (1.0 - self.weight)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects)]

    use super::*;

    fn baking(weight: &str) -> Traffic {
        Traffic::new(&ReleaseStatus { step: Step::Bake, weight: weight.to_owned(), ..ReleaseStatus::default() })
    }

    #[test]
    fn requests_that_came_without_the_weight_speak_against_no_routing_once_it_is_back() {
        let mut traffic = baking("20%");
        let mut all = Requests::default();
        let mut add = |canary: f64, stable: f64, switched: bool| {
            (all.canary, all.stable) = (all.canary + canary, all.stable + stable);
            traffic.absorb(Some(all), switched);
            traffic.misrouted()
        };
        assert_eq!(add(20.0, 80.0, true), None);
        assert!(add(0.0, 2_000_000.0, true).is_some(), "nothing goes to the canary");
        let _split_anew = add(0.0, 100.0, false);
        assert_eq!(add(40.0, 160.0, true), None);
        assert!(add(0.0, 100_000.0, true).is_some(), "nor does it then");
    }

    /// 100 requests/s at 50 %, two pods of the canary of which only the first gets requests; each pod is sampled once
    /// a second at a moment of its own, and looked at every 100 ms.
    fn looks(silent_from: i64) -> f64 {
        let mut traffic = baking("50%");
        let sampled = |now: i64, offset: i64| (now - offset).div_euclid(1000) * 1000 + offset;
        let mut most = 0.0_f64;
        for look in 20..100 {
            let now = look * 100;
            let (first, second, stable) = (sampled(now, 0), sampled(now, 300), sampled(now, 700));
            let known_to = first.min(second);
            traffic.absorb(
                Some(Requests {
                    canary: 0.05 * first.min(silent_from) as f64,
                    stable: 0.05 * stable as f64,
                    known_to,
                    newest: first.max(second),
                    stable_then: 0.05 * sampled(known_to, 700) as f64,
                }),
                true,
            );
            most = most.max(traffic.due_in_silence());
        }
        most
    }

    #[test]
    fn pods_that_are_sampled_at_different_moments_are_not_silent() {
        assert!(looks(i64::MAX) <= 0.0, "{}", looks(i64::MAX));
    }

    #[test]
    fn a_canary_that_stands_still_from_a_moment_on_is_silent() {
        let due = looks(5000);
        assert!((100.0..=250.0).contains(&due), "{due}");
    }
}
