//! The promises of the model check: on each decision, from what it rested on; on each write, from the cluster as it
//! truly is at that moment. The numbers are those of docs/reliability.md.

use canary_api::{CanaryReleaseStatus, Percent, ReleaseStatus, Step};
use canary_core::{Decision, Effect, Kind, Observed, object, plan::pods_for};
use serde_json::Value;

use super::{
    cluster::{self, Edit, Objects, Slot, Store},
    search::Verdict,
};

const STAGES: [i64; 3] = [100, 500, 1000];

/// What must be remembered to judge a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ghost {
    /// Whether the canary had weight within the drain.
    undrained: bool,
    /// Whether traffic was given back in the release under way.
    given_back: bool,
    /// Versions that were rejected, a bit each.
    rejected: u8,
    /// The release whose roll was begun.
    rolled: i8,
}

/// The canary's weight on the route, in thousandths.
pub fn weight(route: &Value) -> i64 {
    let entries: Vec<&Value> = object::items(route, "/spec/rules/0/backendRefs").collect();
    let of = |name: &str| -> i64 {
        let named = entries.iter().filter(|entry| object::text(entry, "/name") == name);
        named.map(|entry| object::integer(entry, "/weight", 1)).sum()
    };
    let (stable, canary) = (of("web"), of("web-canary"));
    if stable + canary == 0 { 0 } else { canary * 1000 / (stable + canary) }
}

fn asked(release: &ReleaseStatus) -> i64 {
    release.weight.parse::<Percent>().map_or(0, |weight| i64::from(weight.permille()))
}

fn reverting(step: Step) -> bool {
    matches!(step, Step::Revert | Step::RevertDrain | Step::RevertTarget)
}

fn current(status: &Value) -> ReleaseStatus {
    let status: CanaryReleaseStatus = serde_json::from_value(status.clone()).unwrap_or_default();
    status.current.unwrap_or_else(|| ReleaseStatus { step: Step::Done, ..ReleaseStatus::default() })
}

fn bit(release: &ReleaseStatus) -> u8 {
    let image = release.candidate.images.first().map_or("", String::as_str);
    1 << image.trim_start_matches("web:v").parse::<u8>().unwrap_or(0)
}

fn keeps(promise: &str, so: bool) -> Result<(), String> {
    if so { Ok(()) } else { Err(promise.to_owned()) }
}

/// Judges a decision by what it rested on.
pub fn decided(
    before: &CanaryReleaseStatus,
    decision: &Decision,
    observed: &Observed,
    verdict: Verdict,
) -> Result<(), String> {
    let (Some(was), Some(now)) = (before.current.as_ref(), decision.status.current.as_ref()) else { return Ok(()) };
    if was.id != now.id || was.step == Step::Done {
        return Ok(());
    }
    keeps("I2: a revert is never taken back", was.revert.is_none() || now.revert.is_some())?;
    let commanded = now.partial && !was.partial;
    let up = now.stage_index - was.stage_index;
    // What was not handed back yet may stay with the canary after all.
    let rolls = now.step == Step::Roll && !matches!(was.step, Step::Roll | Step::HandBack);
    let on_evidence = (up > 0 && !commanded) || (rolls && !now.partial);
    let baked = was.step == Step::Bake && was.paused.is_none() && verdict == Verdict::Pass;
    keeps("I1: a stage passes only on each gate's pass, baked", !on_evidence || baked)?;
    keeps("I6: one stage at most in a tick", up <= 1 || commanded)?;
    let canary_has_traffic = asked(was) > 0 || matches!(was.step, Step::HandBack | Step::Drain | Step::Soak);
    let has_command = observed.release.metadata.annotations.is_some();
    let acts = verdict != Verdict::Breach || !canary_has_traffic || has_command || now.revert.is_some();
    keeps("I12: the tick that sees a breach acts on it", acts)?;
    let ready = observed.canary_pods.list().iter().filter(|pod| canary_core::pods::ready(pod)).count();
    let enough = i64::try_from(ready).unwrap() >= pods_for(u32::try_from(asked(now)).unwrap(), 2);
    keeps("I3: weight is asked for only where pods are ready", asked(now) <= asked(was) || enough)?;
    let route = observed.routes[0].1.known().unwrap();
    // What changes between a tick's reads and its writes is the next tick's; a breach is seen on the route.
    let takes_over = |effect: &Effect| effect.why() == "let the target take the candidate over";
    let all_of_it = !decision.effects.iter().any(takes_over) || weight(route) == 1000;
    keeps("I1: the target takes over only without traffic", all_of_it)?;
    let begins = reverting(now.step) && !reverting(was.step) && weight(route) > asked(now);
    let first = decision.effects.first().is_some_and(|effect| effect.kind() == Kind::HttpRoute);
    keeps("I8: a revert's first write is the route", !begins || first)
}

impl Ghost {
    pub fn time_passed(&mut self, store: &Store, objects: &Objects) {
        self.undrained = self.undrained && weight(&store.get(objects[Slot::Route as usize])) > 0;
    }

    pub fn edited(&mut self, store: &Store, objects: &Objects, what: Edit) {
        if what == Edit::Retry {
            self.rejected = 0;
        }
        self.undrained |= weight(&store.get(objects[Slot::Route as usize])) > 0;
    }

    pub fn status_written(&mut self, before: &Value, after: &Value) -> Result<(), String> {
        let (was, now) = (current(before), current(after));
        if was.id != now.id {
            keeps("I2: a rejected version is not released again without a retry", self.rejected & bit(&now) == 0)?;
            self.given_back = false;
        } else if was.revert.is_some() {
            // Where a route gave the canary weight again, the drain begins again.
            let again = was.step == Step::RevertTarget && now.step == Step::RevertDrain;
            keeps("I2: a revert only goes on", now.revert.is_some() && (now.step >= was.step || again))?;
        }
        if now.revert.as_ref().is_some_and(|revert| revert.rejects) && now.step != Step::Done {
            self.rejected |= bit(&now);
        }
        Ok(())
    }

    pub fn written(&mut self, store: &Store, before: &Objects, after: &Objects, effect: &Effect) -> Result<(), String> {
        let slot = cluster::slot(effect);
        let (was, now) = (store.get(before[slot as usize]), store.get(after[slot as usize]));
        let release = current(&store.get(before[Slot::Release as usize])["status"]);
        match slot {
            Slot::Route => self.route_written(&release, &was, &now),
            Slot::Canary => {
                let pods = |own: &Value| object::integer(own, "/spec/replicas", 0);
                let less =
                    pods(&was) > 0 && (pods(&now) < pods(&was) || now["spec"]["template"] != was["spec"]["template"]);
                let route = store.get(before[Slot::Route as usize]);
                keeps(
                    "I4: pods go only without weight, after the drain",
                    !less || (weight(&route) == 0 && !self.undrained),
                )
            }
            Slot::Target => self.target_written(&release, &was, &now),
            _ => Ok(()),
        }
    }

    fn route_written(&mut self, release: &ReleaseStatus, was: &Value, now: &Value) -> Result<(), String> {
        let sum: i64 =
            object::items(now, "/spec/rules/0/backendRefs").map(|entry| object::integer(entry, "/weight", 1)).sum();
        let split = object::items(now, "/spec/rules/0/backendRefs").count() > 1;
        keeps("I5: the weights of a split sum to 1000", !split || sum == 1000)?;
        let (was, now) = (weight(was), weight(now));
        if now > was {
            // In a hand-back the target runs the candidate, too.
            let forward = !matches!(release.step, Step::Done | Step::Baseline | Step::RevertDrain | Step::RevertTarget)
                && !matches!(release.step, Step::Drain | Step::Soak);
            keeps("I2: no weight but on the way forward", forward)?;
            keeps("I2: weight that was given back does not return", !self.given_back)?;
            let stage = STAGES[usize::try_from(release.stage_index).unwrap()];
            keeps("I6: no more weight than the stage's", now <= stage)?;
        }
        self.undrained |= now > 0 || was > 0;
        self.given_back |= reverting(release.step) && now == 0;
        Ok(())
    }

    fn target_written(&mut self, release: &ReleaseStatus, was: &Value, now: &Value) -> Result<(), String> {
        let un_paused = object::truth(was, "/spec/paused") && !object::truth(now, "/spec/paused");
        let candidate = object::text(&now["spec"]["template"], "/spec/containers/0/image");
        let to_candidate = release.candidate.images.first().is_some_and(|image| image == candidate);
        if un_paused && to_candidate && release.revert.is_none() {
            let number = i8::try_from(release.number).unwrap();
            keeps("I7: the target takes the candidate over only in its turn", release.step == Step::Roll)?;
            keeps("I7: one promotion of a candidate", self.rolled != number)?;
            self.rolled = number;
        }
        Ok(())
    }
}
