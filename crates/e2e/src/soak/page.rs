//! What is said of a soak: whether every promise was kept, and the page for docs/. It formats and adds up; it measures
//! nothing.

use std::fmt::Write as _;

use super::late::{Called, Late};
use super::release::{End, Release};
use super::{BAD, Figures, Part, expect, late, plan};
use crate::report::Made;

/// A client that sends a smaller part of what is due has not kept its rate.
pub const RATE_KEPT: f64 = 0.98;
/// That more of the late faults than this are called beyond their 95 % is a chance of less than 1 in 200.
const UNLIKELY: f64 = 0.005;
/// The chance of one of them.
const BEYOND: f64 = 0.05;

/// A count, which is far below 2^53.
#[allow(clippy::cast_precision_loss)]
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}

/// The part of a whole; 1 of nothing.
pub(super) fn part(of: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { float(of) / float(whole) }
}

/// A share in percent: `0.5 %`, `50 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Of so many late faults at most that many may be called beyond their 95 %.
fn late_ones_allowed(faults: usize) -> usize {
    let (mut chance, mut sum, mut allowed) = ((1.0 - BEYOND).powi(i32::try_from(faults).unwrap_or(i32::MAX)), 0.0, 0);
    for count in 0..=faults {
        sum += chance;
        allowed = count;
        if 1.0 - sum < UNLIKELY {
            break;
        }
        let (count, faults) = (float(count as u64), float(faults as u64));
        chance *= (faults - count) / (count + 1.0) * BEYOND / (1.0 - BEYOND);
    }
    allowed
}

impl Figures {
    /// Every promise that was not kept, one sentence each.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let releases = self.releases.iter().filter_map(|one| Some(format!("{}: {}", one.name, one.broken()?)));
        let late = self.late.iter().filter_map(|one| match &one.called {
            Err(why) => Some(format!("{}: {why}", one.name)),
            Ok(called) if called.is_too_late() => Some(format!("{}: later than chance explains", one.name)),
            Ok(_) => None,
        });
        let mut broken: Vec<String> = releases.chain(late).collect();
        let called: Vec<&Called> = self.called().collect();
        let beyond = called.iter().filter(|called| called.is_late()).count();
        if beyond > late_ones_allowed(called.len()) {
            broken.push(format!("{beyond} of {} late faults took longer than 95 of 100 should", called.len()));
        }
        broken
    }

    fn called(&self) -> impl Iterator<Item = &Called> {
        self.late.iter().filter_map(|late| late.called.as_ref().ok())
    }

    fn of(&self, part: Part) -> impl Iterator<Item = &Release> {
        self.releases.iter().filter(move |release| release.trial.part == part)
    }

    /// The page for docs/.
    #[must_use]
    pub fn page(&self, made: &Made) -> String {
        let mut page = String::from("# Soak: gates on a real Kubernetes\n\n");
        let broken = self.broken();
        let _ = writeln!(page, "{} It took {:.0} minutes.\n", made.text(), self.took.as_secs_f64() / 60.0);
        let _ = writeln!(
            page,
            "On the lab. Each shop has a namespace, a gateway (Traefik), 2 pods and a client of its own that sends {} requests/s\n\
             through the gateway, and gets one release after the other; a tick every second. Every other shop is read through\n\
             Prometheus, which scrapes every second, the others by the pods' own metrics. Requests are bad independently of\n\
             each other, by the pod's own seed.\n",
            plan::RATE
        );
        if broken.is_empty() {
            page.push_str("Every promise was kept.\n");
        } else {
            let _ = writeln!(page, "**{} promises were broken:**\n", broken.len());
            for one in &broken {
                let _ = writeln!(page, "- {one}");
            }
        }
        self.healthy_page(&mut page);
        self.bad_page(&mut page);
        self.late_page(&mut page);
        self.rates(&mut page);
        page
    }

    fn healthy_page(&self, page: &mut String) {
        let parts = [Part::Healthy, Part::Latency, Part::Load];
        if parts.iter().all(|part| self.of(*part).next().is_none()) {
            return;
        }
        let _ = writeln!(
            page,
            "\n## Healthy releases\n\n\
             Gates: errors at most {}, P95 below 200 ms. Stages: {}. Both sides have {} errors; in `latency` {} of the\n\
             answers of both sides take 300 ms (the limit is {}); in `load` the client goes from {} to {} requests/s and\n\
             back in {} s. None may be reverted, or stopped for another reason. A stage of few requests often ends with an estimate above the limit, which\n\
             is no verdict: it is extended, then held. A held release was resumed, which judges its stage again.\n",
            percent(plan::LIMIT),
            plan::in_words(&plan::HEALTHY),
            percent(plan::ERRORS),
            percent(plan::SLOW),
            percent(plan::SLOW_LIMIT),
            plan::RATES.iter().copied().fold(f64::MAX, f64::min),
            plan::RATES.iter().copied().fold(0.0, f64::max),
            plan::STEP_SECONDS * plan::RATES.len() as u64,
        );
        page.push_str(
            "| part | releases | promoted | reverted | held, then promoted | held to the end | stopped or not played | client's requests | candidate's answers | errors of them | slow, as the gate counted |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        let mut all = (0, 0);
        for one in parts {
            let releases: Vec<&Release> = self.of(one).collect();
            if releases.is_empty() {
                continue;
            }
            let count = |holds: &dyn Fn(&Release) -> bool| releases.iter().filter(|one| holds(one)).count();
            let reverted = count(&|one| matches!(one.end, End::Reverted { .. }));
            let sum = |figure: &dyn Fn(&Release) -> u64| releases.iter().map(|one| figure(one)).sum::<u64>();
            let (answers, bad) = (sum(&|one| one.candidate), sum(&|one| one.bad));
            let slow = releases.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.slow.0, sum.1 + one.slow.1));
            let _ = writeln!(
                page,
                "| {one} | {} | {} | {reverted} | {} | {} | {} | {} | {answers} | {} | {} |",
                releases.len(),
                count(&|one| one.end == End::Promoted),
                count(&|one| one.end == End::Promoted && !one.held.is_empty()),
                count(&|one| matches!(one.end, End::Paused(_))),
                count(&|one| matches!(one.end, End::Stopped(_) | End::Failed(_))),
                sum(&|one| one.sent),
                percent(part(bad, answers)),
                if slow.0 > 0.0 { percent(slow.1 / slow.0) } else { String::new() },
            );
            all = (all.0 + releases.len(), all.1 + reverted);
        }
        if all.1 == 0 && all.0 > 0 {
            // None of n: the share whose n-th power of good ones is 5 %.
            let most = 1.0 - 0.05_f64.powf(1.0 / float(all.0 as u64));
            let _ = writeln!(
                page,
                "\n0 of {} reverted: with 95 % confidence fewer than {} of such releases are. The budget is 5 %.",
                all.0,
                percent(most)
            );
        }
    }

    fn bad_page(&self, page: &mut String) {
        if self.of(Part::Bad).next().is_none() {
            return;
        }
        let _ = writeln!(
            page,
            "\n## Bad releases\n\n\
             The same gates. Stages: {}. Stable has {} errors, the candidate more from its start. Predicted is the\n\
             first stage that detects the share in 80 % of releases, as `kubectl canary plan` says; possible is every stage\n\
             by whose end from 1 % to 99.9 % should be reverted, by their requests alone. A stage does not end while the estimate is above the limit: it is extended\n\
             and then held, with its weight, and goes on being judged. So a bad candidate is often reverted before the\n\
             stage that its plan predicts; simulated says where, with extensions and holds.\n",
            plan::in_words(&plan::BAD),
            percent(plan::ERRORS),
        );
        page.push_str(
            "| true share | releases | reverted | at stage | predicted | possible | reverted by the end of stage, computed | reverted in stage, simulated | held first | seconds to the revert | errors of the candidate's answers | bad answers |\n\
             |---:|---:|---:|---|---:|---|---|---|---:|---|---:|---|\n",
        );
        for share in BAD {
            let releases: Vec<&Release> = self.of(Part::Bad).filter(|one| one.trial.bad == Some(share)).collect();
            let (false, Ok(prediction)) = (releases.is_empty(), expect::Prediction::of(share)) else { continue };
            let stages: Vec<String> = releases
                .iter()
                .filter_map(
                    |one| if let End::Reverted { stage, .. } = one.end { Some(stage.to_string()) } else { None },
                )
                .collect();
            let shares = |shares: &[f64]| shares.iter().map(|share| percent(*share)).collect::<Vec<_>>().join(", ");
            let simulated = expect::reverted_in(share).unwrap_or_default();
            let (first, last) = prediction.possible;
            let list = |figure: &dyn Fn(&Release) -> String| {
                releases.iter().map(|one| figure(one)).collect::<Vec<_>>().join(", ")
            };
            let answers: u64 = releases.iter().map(|one| one.candidate).sum();
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} | {first} to {last} | {} | {} | {} | {} | {} | {} |",
                percent(share),
                releases.len(),
                stages.len(),
                stages.join(", "),
                prediction.predicted,
                shares(&prediction.by_stage),
                shares(&simulated),
                releases.iter().filter(|one| !one.held.is_empty()).count(),
                list(&|one| format!("{:.0}", one.took.as_secs_f64())),
                percent(part(releases.iter().map(|one| one.bad).sum(), answers)),
                list(&|one| one.bad.to_string()),
            );
        }
    }

    fn late_page(&self, page: &mut String) {
        if self.late.is_empty() {
            return;
        }
        let calm = self.called().map(|called| called.calm).fold(f64::MAX, f64::min);
        let stage = plan::LATE[0];
        let budget = expect::alpha(Part::Late).map(|alpha| (percent(alpha.get()), alpha.threshold()));
        let (alpha, threshold) = budget.unwrap_or_default();
        let _ = writeln!(
            page,
            "\n## Faults that begin late\n\n\
             Six gates and five stages, so {alpha} for a gate in a stage (E >= {threshold:.0}); the first stage is {} % of {}\n\
             requests/s for {} minutes. Both sides have {} errors. After {:.0} healthy seconds and more the candidate turns\n\
             bad. Expected: the same fault simulated with the operator's own test, median, 80 %, 95 % of {}. To that comes\n\
             the way of the numbers (through Prometheus 4 s, from the pods 3 s). Where the operator is killed (SIGKILL; {} s\n\
             after the fault, for {} just before it) also its absence and 4 s: through Prometheus it reads the past again and is\n\
             expected as ever; from the pods it knows the sums of its status, at most a minute old, and is expected to begin\n\
             anew on its return.\n",
            stage.percent,
            plan::RATE,
            stage.seconds / 60,
            percent(plan::LATE_ERRORS),
            if calm < f64::MAX { calm.floor() } else { 0.0 },
            expect::FAULTS,
            late::KILLED_AFTER.as_secs(),
            percent(late::SHARES[0]),
        );
        page.push_str(
            "| true share | read from | operator | fault to breach | operator back after | expected, simulated | at most, 95 of 100 | bad answers |\n\
             |---:|---|---|---:|---:|---|---:|---:|\n",
        );
        for one in &self.late {
            let Late { source, share, killed, called, .. } = one;
            let head =
                format!("| {} | {} | {} |", percent(*share), source.name(), if *killed { "killed" } else { "alive" });
            let _ = match called {
                Err(why) => writeln!(page, "{head} **{}** | | | | |", why.lines().next().unwrap_or_default()),
                Ok(called) => writeln!(
                    page,
                    "{head} {:.1} s{} | {} | {:.0} / {:.0} / {:.0} s | {:.0} s | {} |",
                    called.seconds,
                    if called.is_late() { " (late)" } else { "" },
                    called.back.map_or(String::new(), |back| format!("{back:.1} s")),
                    called.expected.median,
                    called.expected.eighty,
                    called.expected.most,
                    called.expected.most + called.more,
                    called.bad,
                ),
            };
        }
        for killed in [false, true] {
            let medians: Vec<String> = late::SHARES.iter().filter_map(|share| self.median(*share, killed)).collect();
            if !medians.is_empty() {
                let _ = writeln!(
                    page,
                    "\nMedian, operator {}: {}.",
                    if killed { "killed" } else { "alive" },
                    medians.join(", ")
                );
            }
        }
    }

    fn median(&self, share: f64, killed: bool) -> Option<String> {
        let of = |late: &&Late| late.share.to_bits() == share.to_bits() && late.killed == killed;
        let mut seconds: Vec<f64> =
            self.late.iter().filter(of).filter_map(|late| Some(late.called.as_ref().ok()?.seconds)).collect();
        seconds.sort_by(f64::total_cmp);
        let (low, high) = (seconds.get((seconds.len().checked_sub(1)?) / 2)?, seconds.get(seconds.len() / 2)?);
        Some(format!("{} bad after {:.1} s", percent(share), (low + high) / 2.0))
    }

    /// Whether the clients kept their rates.
    fn rates(&self, page: &mut String) {
        let mut kept: Vec<(f64, &str)> = self
            .releases
            .iter()
            .filter(|one| !matches!(one.end, End::Failed(_)))
            .map(|one| (one.rate_kept(), one.name.as_str()))
            .collect();
        kept.extend(self.late.iter().filter_map(|one| Some((one.called.as_ref().ok()?.rate_kept, one.name.as_str()))));
        kept.sort_by(|one, other| one.0.total_cmp(&other.0));
        let Some((least, _)) = kept.first() else { return };
        let _ = writeln!(page, "\nEvery client sent {} or more of what was due.", percent(*least));
        let not: Vec<&str> = kept.iter().filter(|(kept, _)| *kept < RATE_KEPT).map(|(_, name)| *name).collect();
        if !not.is_empty() {
            let _ = writeln!(page, "The rate was not kept (below {}) in: {}.", percent(RATE_KEPT), not.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_faults_may_be_late_as_chance_explains() {
        // P(more than k of 12 at 5 %): k = 2: 2 %, k = 3: 0.22 %.
        assert_eq!([0, 1, 6, 12].map(late_ones_allowed), [0, 1, 2, 3]);
    }

    #[test]
    fn shares_are_written_as_people_do() {
        assert_eq!([0.005, 0.5, 1.0, 0.03, 0.00167].map(percent), ["0.5 %", "50 %", "100 %", "3 %", "0.17 %"]);
    }
}
