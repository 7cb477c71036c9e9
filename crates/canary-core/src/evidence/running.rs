//! A gate's test as it runs: what is new in each tick's totals goes into the e-process of the gate's kind, for the
//! canary and for stable. It never looks at a limit's text, a verdict or a status.

use std::fmt::Debug;

use canary_api::{Counted, Gate, Scope, To};
use canary_stats::{
    AboveLimit, Alpha, BelowLimit, Dispersion, EventCounts, EventRate, Historical, PairedCounts, Process, Relative,
    ShareCounts, Starts, StatsError, Tally,
};

use super::{Account, Evidence, Paired, Plan};

/// Requests, bad ones, and the seconds they were counted over.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) n: f64,
    pub(super) k: f64,
    pub(super) seconds: f64,
}

/// One tick's totals since the window began, where there are any.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) index: u64,
    pub(super) canary: Option<Sums>,
    pub(super) stable: Option<Sums>,
    pub(super) proof: Option<Sums>,
    pub(super) paired: Option<(With, Paired)>,
    /// The canary's share of the requests.
    pub(super) share: f64,
}

/// Whom the canary is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    /// All stable pods.
    Stable,
    /// The pods of the serving version beside the canary's.
    BaselinePods,
}

/// A test that takes ticks.
pub(super) trait Running: Debug + Send {
    /// Takes what is new.
    fn absorb(&mut self, look: &Look);
    /// What it proves by now; `None` where it tests nothing. The dispersion is filled in by the caller.
    fn evidence(&self) -> Option<Evidence>;
}

/// The test of a gate.
pub(super) fn of(
    gate: &Gate,
    account: &Account,
    captured: Option<&Counted>,
    plan: Plan,
    share: f64,
) -> Box<dyn Running> {
    build(gate, account, captured, plan, share).unwrap_or_else(|| Box::new(Nothing))
}

fn build(
    gate: &Gate,
    account: &Account,
    captured: Option<&Counted>,
    plan: Plan,
    share: f64,
) -> Option<Box<dyn Running>> {
    let limit = gate
        .error_rate
        .as_ref()
        .map(|rule| rule.limit.fraction())
        .or_else(|| gate.latency.as_ref().map(|rule| 1.0 - rule.quantile.fraction()));
    if let Some(limit) = limit {
        return Some(Box::new(Shares::new(limit, account, plan)?));
    }
    if let Some(rule) = &gate.event_rate {
        return Some(Box::new(Events::new(rule.limit.per_minute(), rule.scope, account, plan, share)?));
    }
    let rule = gate.relative.as_ref()?;
    if rule.to == To::Stable {
        return Some(Box::new(Comparison(Pairs::new(rule.margin.fraction(), account.phi, plan)?)));
    }
    let captured = captured?;
    let margin = rule.margin.fraction();
    let limit = Historical::new(captured.k, captured.n, margin, account.alpha, account.phi).ok()?;
    Some(Box::new(AgainstBaseline::new(limit, account, plan)))
}

/// Tests nothing: a value gate, or one whose limit no test fits.
#[derive(Debug)]
pub(super) struct Nothing;

impl Running for Nothing {
    fn absorb(&mut self, _: &Look) {}

    fn evidence(&self) -> Option<Evidence> {
        None
    }
}

fn evidence(canary: f64, stable: f64, above: bool) -> Evidence {
    Evidence {
        canary,
        stable,
        proved: None,
        candidate: None,
        compared: None,
        above,
        alpha: Alpha::RELEASE,
        dispersion: Dispersion::NONE,
    }
}

/// One side: its totals as far as they were taken, and the mixture over starts.
#[derive(Debug)]
struct Arm<C> {
    starts: Starts<C>,
    taken: Sums,
}

impl<C: Tally> Arm<C> {
    fn new(plan: Plan, whole: Option<C>) -> Self {
        let starts = match plan.from {
            Some(tick) => Starts::resume(plan.ticks, whole.unwrap_or_default(), tick),
            None => Starts::new(plan.ticks),
        };
        Self { starts, taken: Sums::default() }
    }

    /// Takes what is new in a total: never negative; what a share has of bad ones beyond its requests waits for them.
    fn take(&mut self, total: Option<Sums>, bounded: bool) -> Option<Sums> {
        let (total, taken) = (total?, &mut self.taken);
        let n = (total.n - taken.n).max(0.0);
        let k = (total.k - taken.k).max(0.0);
        let new = Sums { n, k: if bounded { k.min(n) } else { k }, seconds: (total.seconds - taken.seconds).max(0.0) };
        *taken = Sums { n: taken.n + new.n, k: taken.k + new.k, seconds: taken.seconds + new.seconds };
        Some(new)
    }

    fn push(&mut self, tick: u64, counts: Option<Result<C, StatsError>>) {
        if let Some(Ok(counts)) = counts {
            self.starts.push(tick, &counts);
        }
    }
}

/// `errorRate` and `latency`.
#[derive(Debug)]
struct Shares {
    test: AboveLimit,
    mirror: BelowLimit,
    canary: Arm<ShareCounts>,
    stable: Arm<ShareCounts>,
    proof: Arm<ShareCounts>,
}

impl Shares {
    fn new(limit: f64, account: &Account, plan: Plan) -> Option<Self> {
        let arm = |side: &str| {
            let Sums { n, k, .. } = account.sums(side);
            Arm::new(plan, ShareCounts::new(n, k).ok())
        };
        let proof = if account.before.iter().any(|sums| sums.side == "proof") { "proof" } else { "canary" };
        Some(Self {
            test: AboveLimit::new(limit).ok()?.dispersed(account.phi),
            mirror: BelowLimit::new(limit).ok()?.dispersed(account.phi),
            canary: arm("canary"),
            stable: arm("stable"),
            proof: arm(proof),
        })
    }
}

impl Running for Shares {
    fn absorb(&mut self, look: &Look) {
        let shares = |new: Option<Sums>| new.map(|new| ShareCounts::new(new.n, new.k));
        for (arm, total) in [(&mut self.stable, look.stable), (&mut self.proof, look.proof)] {
            let new = shares(arm.take(total, true));
            arm.push(look.index, new);
        }
        let new = shares(self.canary.take(look.canary, true));
        self.canary.push(look.index, new);
    }

    fn evidence(&self) -> Option<Evidence> {
        let (canary, stable) = (self.canary.starts.log_e(&self.test), self.stable.starts.log_e(&self.test));
        let proved = Some(self.mirror.log_e(self.proof.starts.whole()));
        let above = self.test.above_limit(self.canary.starts.whole());
        Some(Evidence { proved, ..evidence(canary, stable, above) })
    }
}

/// The sides compared at common times.
#[derive(Debug)]
struct Pairs {
    test: Relative,
    starts: Starts<PairedCounts>,
    taken: Paired,
    /// Whom `taken` speaks of.
    with: Option<With>,
    /// Requests of both sides that were compared.
    compared: (f64, f64),
}

impl Pairs {
    fn new(margin: f64, phi: Dispersion, plan: Plan) -> Option<Self> {
        let test = Relative::new(margin).ok()?.dispersed(phi);
        // What each tick's share made of its events is not in the status: after a restart the comparison begins
        // anew, which is late and never false.
        let starts = match plan.from {
            Some(tick) => Starts::resume(plan.ticks, PairedCounts::default(), tick),
            None => Starts::new(plan.ticks),
        };
        Some(Self { test, starts, taken: Paired::default(), with: None, compared: (0.0, 0.0) })
    }

    fn absorb(&mut self, tick: u64, paired: Option<(With, Paired)>) {
        let Some((with, now)) = paired else { return };
        // From here on others are compared with: what they counted before was not at the same time.
        if self.with.replace(with).is_some_and(|before| before != with) {
            self.taken = now;
            return;
        }
        let new = |now: f64, taken: f64| (now - taken).max(0.0);
        let canary = new(now.canary_events, self.taken.canary_events);
        let stable = new(now.stable_events, self.taken.stable_events);
        let requests = new(now.canary_requests, self.taken.canary_requests);
        let all = requests + new(now.stable_requests, self.taken.stable_requests);
        // A time in which one side got nothing compares nothing: it counts together with the next.
        let Ok(counts) = self.test.tick(canary, canary + stable, requests / all) else { return };
        self.starts.push(tick, &counts);
        self.compared = (self.compared.0 + requests, self.compared.1 + (all - requests));
        self.taken = now;
    }

    fn log_e(&self) -> f64 {
        self.starts.log_e(&self.test)
    }
}

/// `relative` to the stable side.
#[derive(Debug)]
struct Comparison(Pairs);

impl Running for Comparison {
    fn absorb(&mut self, look: &Look) {
        self.0.absorb(look.index, look.paired);
    }

    fn evidence(&self) -> Option<Evidence> {
        let above = self.0.test.above_limit(self.0.starts.whole());
        Some(Evidence { compared: Some(self.0.compared), ..evidence(self.0.log_e(), 0.0, above) })
    }
}

/// `eventRate`.
#[derive(Debug)]
struct Events {
    per_minute: f64,
    scope: Scope,
    test: EventRate,
    canary: Arm<EventCounts>,
    stable: Arm<EventCounts>,
    /// Whether the candidate has more than its part of the whole service's events.
    candidate: Pairs,
}

impl Events {
    fn new(per_minute: f64, scope: Scope, account: &Account, plan: Plan, share: f64) -> Option<Self> {
        let (canary, stable) = (account.sums("canary"), account.sums("stable"));
        let of_canary = EventCounts::new(canary.k, allowed(per_minute, share, canary));
        let of_stable = EventCounts::new(stable.k, allowed(per_minute, 1.0 - share, stable));
        let whole = match scope {
            Scope::Canary => (of_canary, of_stable),
            Scope::Total => {
                let both = allowed(per_minute, share, canary) + allowed(per_minute, 1.0 - share, stable);
                (EventCounts::new(canary.k + stable.k, both), EventCounts::new(0.0, 0.0))
            }
        };
        Some(Self {
            per_minute,
            scope,
            test: EventRate::new().dispersed(account.phi),
            canary: Arm::new(plan, whole.0.ok()),
            stable: Arm::new(plan, whole.1.ok()),
            candidate: Pairs::new(0.0, account.phi, plan)?,
        })
    }
}

/// What a part of the limit allows in the time that something was counted over.
fn allowed(per_minute: f64, part: f64, sums: Sums) -> f64 {
    per_minute * part * sums.seconds / 60.0
}

impl Running for Events {
    fn absorb(&mut self, look: &Look) {
        let (of_canary, of_stable) = (look.share, 1.0 - look.share);
        let counts = |new: Sums, part: f64| EventCounts::new(new.k, allowed(self.per_minute, part, new));
        if self.scope == Scope::Canary {
            let stable = self.stable.take(look.stable, false);
            self.stable.push(look.index, stable.map(|new| counts(new, of_stable)));
            let canary = self.canary.take(look.canary, false);
            self.canary.push(look.index, canary.map(|new| counts(new, of_canary)));
            return;
        }
        self.candidate.absorb(look.index, look.paired);
        // The whole service is known only where both sides are, or where there is only one.
        let stable = look.stable.or_else(|| (look.share >= 1.0).then(Sums::default));
        let Some((canary, stable)) = look.canary.zip(stable) else {
            if look.canary.is_none() {
                // Before the release stable is the whole service.
                let new = self.stable.take(look.stable, false);
                self.stable
                    .push(look.index, new.map(|new| EventCounts::new(new.k, allowed(self.per_minute, 1.0, new))));
            }
            return;
        };
        let canary = self.canary.take(Some(canary), false).unwrap_or_default();
        let stable = self.stable.take(Some(stable), false).unwrap_or_default();
        let both = allowed(self.per_minute, of_canary, canary) + allowed(self.per_minute, of_stable, stable);
        self.canary.push(look.index, Some(EventCounts::new(canary.k + stable.k, both)));
    }

    fn evidence(&self) -> Option<Evidence> {
        let (canary, stable) = (self.canary.starts.log_e(&self.test), self.stable.starts.log_e(&self.test));
        let candidate = (self.scope == Scope::Total).then(|| self.candidate.log_e());
        let above = self.test.above_limit(self.canary.starts.whole());
        Some(Evidence { candidate, ..evidence(canary, stable, above) })
    }
}

/// `relative` to the baseline captured before the start.
#[derive(Debug)]
struct AgainstBaseline {
    limit: Historical,
    test: EventRate,
    canary: Arm<EventCounts>,
    stable: Arm<EventCounts>,
}

impl AgainstBaseline {
    fn new(limit: Historical, account: &Account, plan: Plan) -> Self {
        let arm = |side: &str| {
            let Sums { n, k, .. } = account.sums(side);
            Arm::new(plan, limit.tick(k, n).ok())
        };
        let test = EventRate::new().dispersed(account.phi);
        Self { limit, test, canary: arm("canary"), stable: arm("stable") }
    }
}

impl Running for AgainstBaseline {
    fn absorb(&mut self, look: &Look) {
        let stable = self.stable.take(look.stable, false);
        self.stable.push(look.index, stable.map(|new| self.limit.tick(new.k, new.n)));
        let canary = self.canary.take(look.canary, false);
        self.canary.push(look.index, canary.map(|new| self.limit.tick(new.k, new.n)));
    }

    fn evidence(&self) -> Option<Evidence> {
        let (canary, stable) = (self.canary.starts.log_e(&self.test), self.stable.starts.log_e(&self.test));
        let above = self.test.above_limit(self.canary.starts.whole());
        // Half of the budget went to the baseline's own noise.
        Some(Evidence { alpha: self.limit.alpha(), ..evidence(canary, stable, above) })
    }
}
