//! A release's way forward, step by step: baseline, then for each stage scale, shift, bake; then the
//! target rolls, traffic is handed back, the canary drains. At every step a breach, a changed target
//! or a canary that fails ends it, whatever the step waits for.

use std::time::Duration;

use canary_api::{Counted, Gate, OnInconclusive, Paused, Step, To, names};
use serde_json::Value;

use super::{arm, beside, jobs, revert, tick::Tick};
use crate::{
    canary, gates,
    gates::{Judged, Measure, Reading, Verdict},
    hpa, know, object,
    observed::Fetched,
    plan::pods_for,
    pods,
    route::{self, Shares, Split},
    serving, template,
};

/// How long a gateway may take to accept a route's edit.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(60);
/// So long after a deadline it is met only by an operator that was away when it passed: it is looked at twice a second.
const ABSENT: Duration = Duration::from_secs(30);
/// How long after the edit the data plane is taken to have switched.
const SWITCH: Duration = Duration::from_millis(2500);
/// Requests that must have been due before a silent canary is one.
const SILENT: f64 = 20.0;
/// Why a weight is not written.
const NOT_CARRIED: &str = "the canary's pods are not all ready behind its Service: its weight is not raised";
/// How long at the most the clock of a soak goes on that nobody can ask.
const UNASKED: Duration = Duration::from_secs(60);
/// Gates times stages above which what they can know is left to the plugin, so that a tick stays short.
const MOST_TO_KNOW: usize = 60;
/// Warnings that the status keeps.
const MOST_WARNINGS: usize = 8;
/// Lost readiness that is borne within one stage.
const MOST_FLAPS: u32 = 3;

pub(super) fn advance(tick: &mut Tick<'_>) {
    if revert::reverting(tick) {
        return revert::advance(tick);
    }
    // The breach first: it needs only the readings, and nothing may stand before it.
    if let Some(cause) = revert::forgotten_breach(tick) {
        return revert::begin(tick, cause);
    }
    // Readings of the window before a resume say nothing of the one after it.
    if carries_traffic(tick) && !tick.resumed {
        // The sooner a sample is judged, the fewer bad answers there are.
        if let Some(look) = tick.seen.measured.next_look {
            tick.wake(look);
        }
        arm::judge(tick);
        let breaches = || tick.judged.iter().filter(|judged| judged.verdict == Verdict::Breach);
        // One that is the candidate's own doing comes before one that may not be.
        if let Some(breach) = breaches().find(|judged| judged.confounded.is_none()).or_else(|| breaches().next()) {
            let breach = breach.clone();
            // What is not known to be the candidate's doing hides no verdict on it.
            if breach.confounded.is_some() && jobs::verdict(tick) {
                return;
            }
            return act_on(tick, &breach);
        }
    }
    if jobs::verdict(tick) || target_left(tick) {
        return;
    }
    beside::watch(tick);
    if canary_changed(tick) || canary_failed(tick) || weight_lost(tick) || canary_silent(tick) || jobs::act(tick) {
        return;
    }
    count_pods(tick);
    if tick.status.current.as_ref().is_some_and(|current| current.paused.is_some()) {
        tick.wake(tick.spec.interval.std());
        return;
    }
    match tick.step() {
        Step::Baseline => baseline(tick),
        Step::Scale => scale(tick),
        Step::Shift => shift(tick),
        Step::Bake => bake(tick),
        Step::Roll => roll(tick),
        Step::HandBack => hand_back(tick),
        Step::Drain => drain(tick),
        Step::Soak => soak(tick),
        Step::Revert | Step::RevertDrain | Step::RevertTarget | Step::Done => {}
    }
}

/// A breach reverts, unless the stable side breaks the same limit at the same time: then nothing is
/// known about the candidate, and traffic waits on stable for a person.
fn act_on(tick: &mut Tick<'_>, breach: &Judged) {
    let early = matches!(tick.step(), Step::Scale | Step::Shift | Step::Bake) && tick.weight() < route::WHOLE;
    let shown = &breach.shown;
    match &breach.confounded {
        Some(why) if early => {
            let why = format!("gate {}: {} where {} is allowed, and {why}", shown.gate, shown.value, shown.limit);
            stop(tick, "Confounded", why);
        }
        _ => revert::breached(tick, shown),
    }
}

/// Whether a route lost the stage's weight: what passes without it is no time of the stage, which begins anew once the
/// weight is back. What was counted stays, so that nobody's hand washes bad answers off.
fn weight_lost(tick: &mut Tick<'_>) -> bool {
    let paused = tick.status.current.as_ref().is_some_and(|current| current.paused.is_some());
    if tick.step() != Step::Bake || paused {
        return false;
    }
    let Some(why) = tick.seen.routes.iter().find_map(|(name, fetched)| without_weight(tick, name, fetched)) else {
        return false;
    };
    jobs::leave_stage(tick, "a route lost the canary's weight; it is run again with the stage");
    tick.enter(Step::Shift);
    tick.waiting = Some(why);
    tick.wake(Duration::from_millis(500));
    true
}

/// Why a route does not give the canary the weight that it is to have. One that could not be read is not known to.
fn without_weight(tick: &Tick<'_>, name: &str, fetched: &Fetched<Value>) -> Option<String> {
    let route = match fetched {
        Fetched::Known(route) => route,
        Fetched::Missing => return Some(format!("HTTPRoute {name} is gone")),
        Fetched::Failed(_) => return None,
    };
    let weight = tick.weight();
    match tick.with_pair(|pair| route::split(route, pair)) {
        Split::Even(share) | Split::Beside(Shares { canary: share, .. }) if share == weight => None,
        _ => Some(format!("HTTPRoute {name} does not give the canary {weight}/1000")),
    }
}

/// Whether the canary counts no requests where it should have counted some: then nothing can be learnt, and traffic
/// waits on stable.
fn canary_silent(tick: &mut Tick<'_>) -> bool {
    let due = tick.seen.measured.due_in_silence;
    let paused = tick.status.current.as_ref().is_some_and(|current| current.paused.is_some());
    if tick.step() != Step::Bake || paused || tick.resumed || due < SILENT {
        return false;
    }
    let weight = tick.status.current.as_ref().map(|current| current.weight.clone()).unwrap_or_default();
    stop(
        tick,
        "CanarySilent",
        format!("the canary counted no request while about {} were due to it at {weight}", due.floor()),
    );
    true
}

fn carries_traffic(tick: &Tick<'_>) -> bool {
    tick.weight() > 0 || matches!(tick.step(), Step::HandBack | Step::Drain | Step::Soak)
}

/// A route that bears an override.
pub(super) fn overridden_route<'a>(tick: &Tick<'a>) -> Option<&'a Value> {
    let mut known = tick.seen.routes.iter().filter_map(|(_, route)| route.known());
    known.find(|route| object::annotation(route, names::ANNOTATION_OVERRIDE).is_some())
}

/// Whether the target no longer asks for the candidate, so that the release ends.
fn target_left(tick: &mut Tick<'_>) -> bool {
    let target = match &tick.seen.target {
        Fetched::Known(target) => target,
        Fetched::Failed(why) => {
            tick.waiting = Some(format!("Deployment {} could not be read: {why}", tick.spec.target.name));
            tick.wake(tick.spec.interval.std());
            return false;
        }
        Fetched::Missing => {
            revert::begin(
                tick,
                revert::Cause::gone("TargetDeleted", format!("Deployment {} was deleted", tick.spec.target.name)),
            );
            return true;
        }
    };
    if tick.status.hold.as_ref().is_some_and(|hold| hold.target_uid != object::uid(target)) {
        revert::begin(
            tick,
            revert::Cause::gone(
                "TargetReplaced",
                format!("Deployment {} was deleted and created again", object::name(target)),
            ),
        );
        return true;
    }
    if object::annotation(target, names::ANNOTATION_OVERRIDE).is_some() {
        let by = object::annotation(target, names::ANNOTATION_OVERRIDE_BY).unwrap_or("someone unknown");
        let reason = object::annotation(target, names::ANNOTATION_OVERRIDE).unwrap_or_default();
        revert::begin(tick, revert::Cause::overridden(by, reason, false));
        return true;
    }
    if let Some(route) = overridden_route(tick) {
        let by = object::annotation(route, names::ANNOTATION_OVERRIDE_BY).unwrap_or("someone unknown");
        let reason = object::annotation(route, names::ANNOTATION_OVERRIDE).unwrap_or_default();
        // Whoever takes the candidate out of a route by hand does not want it back in the next minute; one that the
        // target runs already stays.
        let rejects = !revert::rolls(tick);
        revert::begin(tick, revert::Cause::overridden(by, reason, rejects));
        return true;
    }
    // Promoted, or as good as: what comes next is the next release's.
    let over = tick.step() == Step::Soak || (tick.step() == Step::Drain && draining_is_done(tick));
    if over {
        if tick.step() == Step::Soak && !tick.asks_for_candidate() {
            tick.note("SoakCutShort", "a newer template was written during the soak");
            promoted(tick);
        }
        return false;
    }
    if object::integer(target, "/spec/replicas", 1) == 0 {
        revert::begin(
            tick,
            revert::Cause::gone(
                "ScaledToZero",
                format!(
                    "Deployment {} was scaled to zero during the release: the serving version's template is written back, so that it is what comes back",
                    object::name(target)
                ),
            ),
        );
        return true;
    }
    if tick.asks_for_candidate() {
        return false;
    }
    let put_back = tick.serving_template().is_some_and(|served| template::same(&served, serving::template_of(target)));
    let by = object::annotation(target, names::ANNOTATION_CHANGED_BY).unwrap_or("someone unknown").to_owned();
    revert::begin(tick, revert::Cause::superseded(&by, put_back));
    true
}

fn draining_is_done(tick: &Tick<'_>) -> bool {
    tick.status.current.as_ref().is_some_and(|current| current.canary_pods == 0)
}

/// Whether the canary can't become or stay ready, so that the release ends or waits.
fn canary_failed(tick: &mut Tick<'_>) -> bool {
    if !matches!(tick.step(), Step::Scale | Step::Shift | Step::Bake | Step::Roll) {
        return false;
    }
    // While the clock stands nothing is overdue; without weight nothing can be lost.
    let paused = tick.status.current.as_ref().and_then(|current| current.paused.as_ref());
    if paused.is_some_and(|paused| paused.without_weight) {
        return false;
    }
    let clock_stands = paused.is_some();
    let Fetched::Known(all) = &tick.seen.canary_pods else { return false };
    let needed = needed_for_stage(tick);
    let ready = all.iter().filter(|pod| pods::ready(pod)).count();
    // The weight of the stage before stands while the canary is scaled for this one.
    let lost = ready == 0 && tick.weight() > 0;
    if tick.step() == Step::Scale && !lost {
        return !clock_stands && overdue(tick, all);
    }
    if i64::try_from(ready).unwrap_or(i64::MAX) >= needed {
        tick.current().short_since = None;
        return false;
    }
    if ready > 0 {
        return short(tick, all, ready, needed);
    }
    let trouble = pods::trouble(&all.iter().filter(|pod| !replacement(tick, pod)).collect::<Vec<_>>());
    let flaps = tick.status.current.as_ref().map_or(0, |current| current.flaps).saturating_add(1);
    let why = trouble
        .as_ref()
        .map_or_else(|| "no pod of the canary is ready any more".to_owned(), |trouble| trouble.message.clone());
    let fault = trouble.as_ref().is_some_and(|trouble| trouble.rejects);
    let rolling = tick.step() == Step::Roll;
    let crash_loop = trouble.as_ref().is_some_and(|trouble| trouble.reason == "CrashLoop");
    if rolling || crash_loop || (flaps > MOST_FLAPS && fault) {
        let reason = trouble.map_or("NotReady", |trouble| trouble.reason);
        revert::begin(tick, revert::Cause::canary(reason, why, fault));
        return true;
    }
    if flaps > MOST_FLAPS {
        // Nodes that come and go are not the candidate's fault.
        stop(tick, "NotReady", format!("the canary lost its ready pods {flaps} times in this stage: {why}"));
        return true;
    }
    tick.warn("CanaryNotReady", format!("{why}: traffic goes back to stable until the canary is ready again"));
    tick.current().flaps = flaps;
    scale_again(tick, "the canary lost its ready pods; it is run again with the stage");
    true
}

/// Traffic goes back to stable until the canary is scaled once more, and the stage begins anew.
fn scale_again(tick: &mut Tick<'_>, jobs_end: &str) {
    tick.current().short_since = None;
    jobs::leave_stage(tick, jobs_end);
    tick.set_weight(0);
    tick.enter(Step::Scale);
    tick.wake(Duration::from_millis(500));
}

/// Whether a hand changed what the canary's pods run while they have weight: what they answer says nothing of the
/// candidate, so traffic waits on stable until they are put right.
fn canary_changed(tick: &mut Tick<'_>) -> bool {
    let stage = matches!(tick.step(), Step::Scale | Step::Shift | Step::Bake);
    if !stage || tick.weight() == 0 || tick.target_template().and_then(|wanted| tick.canary_runs(wanted)) != Some(false)
    {
        return false;
    }
    let name = names::canary(&tick.spec.target.name);
    let why = format!("someone changed the template of Deployment {name}, which is the canary's");
    let flaps = tick.status.current.as_ref().map_or(0, |current| current.flaps).saturating_add(1);
    if flaps > MOST_FLAPS {
        stop(tick, "CanaryChanged", format!("{why}, {flaps} times in this stage"));
        return true;
    }
    tick.warn(
        "CanaryChanged",
        format!("{why}: it is put right, and traffic goes back to stable until the candidate's pods are ready again"),
    );
    tick.current().flaps = flaps;
    scale_again(tick, "the canary was changed by a hand; it is run again with the stage");
    true
}

/// Whether a pod came after the stage's weight and merely starts: what it replaces was lost, which
/// is not its version's fault.
fn replacement(tick: &Tick<'_>, pod: &Value) -> bool {
    let since = tick.status.current.as_ref().and_then(|current| current.window_since.as_ref());
    let created = object::text(pod, "/metadata/creationTimestamp").parse::<jiff::Timestamp>();
    let young = since.is_some_and(|since| created.is_ok_and(|created| created > since.0));
    young && pods::trouble(&[pod]).is_some_and(|trouble| trouble.reason == "ProbeFailing")
}

/// Some of the canary's pods are ready and not all that the weight needs: borne for as long as pods
/// may take to become ready, and no stage ends meanwhile.
fn short(tick: &mut Tick<'_>, all: &[Value], ready: usize, needed: i64) -> bool {
    let now = tick.time();
    let since = tick.current().short_since.get_or_insert(now).clone();
    tick.waiting = Some(format!("{ready} of {needed} canary pods are ready"));
    let rolling = tick.step() == Step::Roll && tick.target().is_some_and(let_go);
    if rolling || tick.since(Some(&since)) < tick.spec.ready_deadline.std() {
        return false;
    }
    failed(tick, all, ready, needed);
    true
}

/// Whether the canary's pods took too long to become ready.
fn overdue(tick: &mut Tick<'_>, all: &[Value]) -> bool {
    if beside::waited(tick) < tick.spec.ready_deadline.std() {
        return false;
    }
    let needed = needed_for_stage(tick);
    let ready = all.iter().filter(|pod| pods::ready(pod)).count();
    if i64::try_from(ready).unwrap_or(i64::MAX) >= needed {
        return false;
    }
    if !asked_for(tick, needed) {
        // Pods that were not asked for yet, since a read failed or no operator was there, are not late.
        tick.enter(Step::Scale);
        return false;
    }
    failed(tick, all, ready, needed);
    true
}

/// Whether the canary was made for this release and is asked for so many pods.
fn asked_for(tick: &Tick<'_>, pods: i64) -> bool {
    tick.canary_made().is_some_and(|canary| object::integer(canary, "/spec/replicas", 0) >= pods)
}

/// Ends or stops the release for pods that do not become ready, by whose fault that is.
fn failed(tick: &mut Tick<'_>, all: &[Value], ready: usize, needed: i64) {
    let quota = tick
        .canary()
        .map(|canary| object::condition_reason(canary, "/status/conditions", "ReplicaFailure"))
        .unwrap_or_default();
    match pods::trouble(&all.iter().collect::<Vec<_>>()) {
        Some(trouble) if trouble.rejects => {
            let text = format!("not ready within {}: {}", tick.spec.ready_deadline, trouble.message);
            revert::begin(tick, revert::Cause::canary(trouble.reason, text, true));
        }
        Some(trouble) => {
            stop(tick, "Unschedulable", format!("not ready within {}: {}", tick.spec.ready_deadline, trouble.message))
        }
        None if !quota.is_empty() => {
            stop(tick, "QuotaExceeded", format!("the canary's pods could not be created: {quota}"))
        }
        None => stop(
            tick,
            "NotReady",
            format!("{ready} of {needed} canary pods were ready within {}", tick.spec.ready_deadline),
        ),
    }
}

/// Stops the clock with traffic on stable; the candidate is not rejected.
pub(super) fn stop(tick: &mut Tick<'_>, reason: &str, why: String) {
    jobs::leave_stage(tick, "the release was stopped and traffic is on stable; it is run again with the stage");
    let since = tick.time();
    tick.warn(
        "Paused",
        format!(
            "{why}; traffic is on stable, the candidate is not rejected: mend it and give the command resume, or abort"
        ),
    );
    tick.set_weight(0);
    tick.current().paused = Some(Paused { by: why, reason: reason.to_owned(), since, without_weight: true });
    tick.wake(Duration::from_millis(500));
}

/// Keeps the most pods that the target wanted, and with it what the canary needs; never lowered.
pub(super) fn count_pods(tick: &mut Tick<'_>) {
    let Some(target) = tick.target() else { return };
    let wanted = i32::try_from(object::integer(target, "/spec/replicas", 1)).unwrap_or(i32::MAX);
    if matches!(tick.step(), Step::Baseline | Step::Scale | Step::Shift | Step::Bake) {
        let current = tick.current();
        current.target_pods = current.target_pods.max(wanted);
    }
    if matches!(tick.step(), Step::Scale | Step::Shift | Step::Bake) {
        let needed = i32::try_from(needed_for_stage(tick)).unwrap_or(i32::MAX);
        let current = tick.current();
        current.canary_pods = current.canary_pods.max(needed);
        beside::count(tick, needed);
    }
}

pub(super) fn needed_for_stage(tick: &Tick<'_>) -> i64 {
    needed(tick, tick.stage().map_or(0, |stage| stage.weight.permille()))
}

/// Pods that so many thousandths of the traffic need.
fn needed(tick: &Tick<'_>, permille: u32) -> i64 {
    pods_for(permille, tick.status.current.as_ref().map_or(1, |current| i64::from(current.target_pods)))
}

/// Whether so many of the canary's pods are ready, behind its Service, as this weight needs. No more weight is given else,
/// whatever the status asks for: it may be the word of another hand.
pub(super) fn carries(tick: &Tick<'_>, permille: u32) -> bool {
    let (Fetched::Known(all), Fetched::Known(_)) = (&tick.seen.canary_pods, &tick.seen.canary_service) else {
        return false;
    };
    let ready = all.iter().filter(|pod| pods::ready(pod)).count();
    i64::try_from(ready).unwrap_or(i64::MAX) >= needed(tick, permille)
}

fn baseline(tick: &mut Tick<'_>) {
    tick.wake(tick.spec.interval.std());
    let seen = |gate: &Gate| tick.seen.measured.of(&gate.name);
    let shown = |gate: &Gate| seen(gate).and_then(|reading| gates::stable_shown(gate, reading));
    tick.status.gates = tick.spec.gates.iter().filter_map(shown).collect();
    let broken = |gate: &Gate| seen(gate).and_then(|reading| gates::stable_in_breach(gate, reading));
    let due = tick.spec.baseline.duration.std();
    // Without a baseline only jobs are waited for here.
    let judges = !tick.resumed && due > Duration::ZERO;
    let breach = tick.spec.gates.iter().find_map(|gate| Some((gate, broken(gate)?))).filter(|_| judges);
    if let Some((gate, value)) = breach {
        let limit = gates::limit(gate);
        let why = format!("the stable version itself breaks gate {}: {value} where {limit} is allowed", gate.name);
        return stop(tick, "StableInBreach", why);
    }
    if tick.in_step() < due {
        tick.wake(due.saturating_sub(tick.in_step()));
        tick.waiting = jobs::awaited(tick);
        return;
    }
    if let Some(why) = jobs::awaited(tick) {
        tick.waiting = Some(why);
        return;
    }
    // What is late just now may be there in a moment: a baseline is taken once, and holds for the whole release.
    let late = tick.spec.gates.iter().find(|gate| seen(gate).is_some_and(|reading| not_yet(gate, reading)));
    if let Some(gate) = late.filter(|_| tick.in_step() < due.saturating_mul(2)) {
        let why = format!("the stable version's figures for gate {} are not all there yet", gate.name);
        tick.waiting = Some(why);
        return;
    }
    let measured = tick.spec.gates.iter().filter(|_| due > Duration::ZERO);
    let counts: Vec<_> = measured.filter_map(|gate| captured(seen(gate)?)).collect();
    tick.current().baseline = counts;
    say_what_stages_can_know(tick);
    tick.current().counts.clear();
    tick.enter(Step::Scale);
    count_pods(tick);
    tick.wake(Duration::ZERO);
}

/// Tells, once the traffic is known, which stages will learn too little to judge.
fn say_what_stages_can_know(tick: &mut Tick<'_>) {
    let work = tick.spec.gates.len().saturating_mul(tick.spec.stages.len());
    let Some(rate) = tick.seen.measured.stable_rate.filter(|_| work <= MOST_TO_KNOW) else { return };
    let mut blind = know::warnings(&know::stages(tick.spec, rate));
    let more = blind.len().saturating_sub(MOST_WARNINGS);
    blind.truncate(MOST_WARNINGS);
    if more > 0 {
        blind.push(format!("and {more} more: `kubectl canary plan` shows all"));
    }
    if let Some(first) = blind.first() {
        let id = tick.status.current.as_ref().map(|current| current.id.clone()).unwrap_or_default();
        tick.warn("BlindStage", format!("{id}: {first}; see status.current.blind"));
    }
    tick.current().blind = blind;
}

/// Whether a gate's figures of the stable side are late, could not be read, or are needed and missing. From them comes
/// how bursty stable is, too, which each gate is judged by.
fn not_yet(gate: &Gate, reading: &Reading) -> bool {
    let compares = gate.relative.as_ref().is_some_and(|rule| rule.to == To::Baseline);
    match reading.stable {
        Measure::Partial { .. } | Measure::Error(_) => true,
        Measure::NoData(_) => compares,
        Measure::Counted { .. } | Measure::Number { .. } => false,
    }
}

/// What the baseline keeps of a gate.
fn captured(reading: &Reading) -> Option<Counted> {
    let (Measure::Counted { n, k, seconds } | Measure::Partial { n, k, seconds, .. }) = reading.stable else {
        return None;
    };
    let dispersion = reading.bursts.map(|bursts| bursts.phi.get()).filter(|phi| *phi > 1.0);
    Some(Counted {
        gate: reading.gate.clone(),
        side: "stable".to_owned(),
        n,
        k,
        seconds,
        dispersion,
        ..Counted::default()
    })
}

fn scale(tick: &mut Tick<'_>) {
    tick.wake(Duration::from_secs(2));
    let needed = needed_for_stage(tick);
    let seen = tick.seen;
    if tick.unread("the canary's pods", &seen.canary_pods)
        || tick.unread("the canary", &seen.canary)
        || tick.unread("the canary's Service", &seen.canary_service)
    {
        return;
    }
    let ready = tick.seen.canary_pods.list().iter().filter(|pod| pods::ready(pod)).count();
    let settled = tick.canary().is_some_and(|canary| rolled_out(canary, needed));
    if !settled || i64::try_from(ready).unwrap_or(i64::MAX) < needed {
        let deadline = tick.spec.ready_deadline;
        tick.waiting =
            Some(format!("{ready} of {needed} canary pods are ready; the deadline is {deadline} after the step began"));
        return;
    }
    if seen.canary_service.missing() {
        tick.waiting = Some("the canary's pods are ready, and its Service is not there yet".to_owned());
        return;
    }
    let known = tick.seen.canary_pods.list().iter().filter(|pod| pods::settled(pod, tick.now)).count();
    if i64::try_from(known).unwrap_or(i64::MAX) < needed {
        tick.wake(Duration::from_secs(1));
        tick.waiting = Some("the canary's pods are ready; gateways are given a moment to learn of them".to_owned());
        return;
    }
    if tick.unread("the target", &tick.seen.target) || tick.unread("the target's pods", &tick.seen.target_pods) {
        return;
    }
    if let Some(why) = stable_too_small(tick) {
        if beside::waited(tick) > tick.spec.ready_deadline.std() {
            let since = tick.time();
            tick.warn("Paused", format!("{why}; the weight stays: mend it and give the command resume, or abort"));
            tick.current().paused =
                Some(Paused { by: why, reason: "StableTooSmall".to_owned(), since, without_weight: false });
            return;
        }
        tick.waiting = Some(why);
        return;
    }
    if !beside::settled(tick) || unmeasured(tick) {
        return;
    }
    let Some(stage) = tick.stage() else { return };
    let (weight, now) = (stage.weight.permille(), tick.time());
    tick.set_weight(weight);
    beside::give(tick);
    tick.current().window_since = Some(now);
    tick.current().counts.clear();
    tick.current().split = true;
    tick.enter(Step::Shift);
    tick.note(
        "StageStarted",
        format!("stage {}: {} of the traffic for {}", tick.stage_text(), stage.weight, stage.duration),
    );
    tick.wake(Duration::ZERO);
}

/// Whether nothing is known of the candidate just now, whose weight is to be raised. A person who promotes it knows.
fn unmeasured(tick: &mut Tick<'_>) -> bool {
    let promoted = tick.status.current.as_ref().is_some_and(|current| current.partial);
    let gates = without_data(tick);
    if gates.is_empty() || promoted || tick.weight() == 0 {
        return false;
    }
    let gates = gates.join(", ");
    if beside::waited(tick) > tick.spec.ready_deadline.std() {
        inconclusive(tick, &gates);
    } else {
        tick.waiting = Some(format!("no data of {gates}: the weight is not raised before there are"));
    }
    true
}

/// Whether all pods of one of our Deployments are of its template, and enough of them available.
pub(super) fn rolled_out(own: &Value, needed: i64) -> bool {
    object::integer(own, "/status/observedGeneration", 0) >= object::integer(own, "/metadata/generation", 1)
        && object::integer(own, "/status/updatedReplicas", 0) == object::integer(own, "/status/replicas", -1)
        && object::integer(own, "/status/availableReplicas", 0) >= needed
}

/// Why traffic could not go back to stable at once, should it have to.
fn stable_too_small(tick: &Tick<'_>) -> Option<String> {
    let target = tick.target()?;
    let recorded = i64::from(tick.status.current.as_ref()?.target_pods);
    let wanted = object::integer(target, "/spec/replicas", 1);
    if wanted < recorded {
        let owner = hpa::of(tick.seen.autoscalers.list(), object::name(target)).map_or_else(
            || scaled_by(target),
            |hpa| {
                format!(
                    "HorizontalPodAutoscaler {} (its scale-down belongs to {})",
                    object::name(hpa),
                    hpa::owner(hpa).unwrap_or_else(|| "us".to_owned())
                )
            },
        );
        return Some(format!(
            "Deployment {} was scaled from {recorded} to {wanted} pods by {owner}: no more traffic is moved until it has {recorded} again",
            object::name(target)
        ));
    }
    let ready = tick.seen.target_pods.known()?.iter().filter(|pod| pods::ready(pod)).count();
    (i64::try_from(ready).unwrap_or(i64::MAX) < recorded)
        .then(|| format!("{ready} of {recorded} stable pods are ready: no more traffic is moved until all are"))
}

fn scaled_by(target: &Value) -> String {
    object::items(target, "/metadata/managedFields")
        .filter(|entry| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some())
        .max_by_key(|entry| object::text(entry, "/time").to_owned())
        .map_or_else(|| "someone".to_owned(), |entry| object::text(entry, "/manager").to_owned())
}

/// Why a weight is not in force yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotSwitched {
    /// A route does not have it.
    Unwritten(String),
    /// A route could not be read.
    Unread(String),
    /// The routes have it, and a gateway has not taken it over.
    Unaccepted(String),
}

impl NotSwitched {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Unwritten(text) | Self::Unread(text) | Self::Unaccepted(text) => text,
        }
    }
}

/// Whether every route has the weight and its gateways accepted it. On the way back a route that is
/// gone has no traffic to give, and what others added to it is theirs.
pub(super) fn switched(tick: &Tick<'_>) -> Result<(), NotSwitched> {
    let (weight, shares) = (tick.weight(), tick.shares());
    for (name, fetched) in &tick.seen.routes {
        let route = match fetched {
            Fetched::Known(route) => route,
            Fetched::Missing if weight == 0 => continue,
            Fetched::Missing => return Err(NotSwitched::Unwritten(format!("HTTPRoute {name} is gone"))),
            Fetched::Failed(why) => {
                return Err(NotSwitched::Unread(format!("HTTPRoute {name} could not be read: {why}")));
            }
        };
        match tick.with_pair(|pair| route::split(route, pair)) {
            Split::Even(share) if Shares::from(share) == shares => accepted(route)?,
            Split::Beside(present) if present == shares => accepted(route)?,
            Split::Plain | Split::Absent if weight == 0 => {}
            Split::Foreign(_) if weight == 0 && tick.with_pair(|pair| route::none_for_ours(route, pair)) => {}
            _ => {
                let text = match shares.baseline {
                    0 => format!("HTTPRoute {name} does not have weight {weight}/1000 yet"),
                    _ => {
                        format!("HTTPRoute {name} does not have weight {weight}/1000 for canary and baseline pods yet")
                    }
                };
                return Err(NotSwitched::Unwritten(text));
            }
        }
    }
    Ok(())
}

fn accepted(route: &Value) -> Result<(), NotSwitched> {
    route::accepted(route).map_err(NotSwitched::Unaccepted)
}

fn shift(tick: &mut Tick<'_>) {
    tick.wake(Duration::from_millis(500));
    if let Err(why) = switched(tick) {
        let lacking = !carries(tick, tick.weight());
        let first = tick.status.current.as_ref().is_some_and(|current| current.window_since == current.step_since);
        let absent = tick.in_step() > ACCEPT_DEADLINE.saturating_add(ABSENT);
        match why {
            _ if tick.in_step() <= ACCEPT_DEADLINE => {}
            // A route that was not written, since no operator was there, is not refused: once more.
            NotSwitched::Unwritten(_) | NotSwitched::Unread(_) if first || absent => tick.enter(Step::Shift),
            _ if lacking => return stop(tick, "NotReady", NOT_CARRIED.to_owned()),
            _ => return stop(tick, "RouteNotAccepted", why.into_text()),
        }
        tick.waiting = Some(if lacking { NOT_CARRIED.to_owned() } else { why.into_text() });
        return;
    }
    if tick.in_step() < SWITCH {
        tick.wake(SWITCH.saturating_sub(tick.in_step()));
        tick.waiting = Some("the gateway takes the weight over".to_owned());
        return;
    }
    if tick.status.current.as_ref().is_some_and(|current| current.partial) {
        return finish_stages(tick);
    }
    tick.current().extended_since = None;
    tick.current().approved = false;
    tick.enter(Step::Bake);
    jobs::stage_begins(tick);
    tick.wake(tick.spec.interval.std());
}

fn bake(tick: &mut Tick<'_>) {
    tick.wake(tick.spec.interval.std());
    let Some(stage) = tick.stage() else { return };
    if let Some(left) = left_of(tick, stage.duration.std()) {
        return tick.wake(left);
    }
    if tick.judged.iter().any(open) {
        return unproved(tick, stage.duration);
    }
    if tick.waiting.is_some() {
        return;
    }
    if let Err(why) = switched(tick) {
        tick.waiting = Some(why.into_text());
        return;
    }
    if let Some(why) = jobs::awaited(tick) {
        tick.waiting = Some(why);
        return;
    }
    if stage.approval && !tick.status.current.as_ref().is_some_and(|current| current.approved) {
        tick.waiting = Some(format!("stage {} has passed and waits for approval", tick.stage_text()));
        return;
    }
    tick.note("StagePassed", format!("stage {}: every gate passed", tick.stage_text()));
    let next = tick.status.current.as_ref().map_or(0, |current| current.stage_index).saturating_add(1);
    if usize::try_from(next).unwrap_or(usize::MAX) >= tick.spec.stages.len() {
        return finish_stages(tick);
    }
    go_to_stage(tick, next);
    tick.enter(Step::Scale);
    count_pods(tick);
    tick.wake(Duration::ZERO);
}

/// Goes to a stage: what befell the one before is past.
pub(super) fn go_to_stage(tick: &mut Tick<'_>, index: i32) {
    let current = tick.current();
    current.stage_index = index;
    current.flaps = 0;
    current.extended_since = None;
    beside::next_stage(tick);
}

/// What the stage has left of its time. An extension counts from when it is given, since nobody may have looked until
/// long after the planned end; with twice the planned time behind it the stage goes on once every gate passes. A gate
/// without data at the end is looked at once more, an interval later: what can't be read in one tick ends nothing.
fn left_of(tick: &mut Tick<'_>, planned: Duration) -> Option<Duration> {
    let in_step = tick.in_step();
    let extension = tick.status.current.as_ref().and_then(|current| current.extended_since.as_ref());
    let extension = extension.filter(|_| tick.judged.iter().any(open) || in_step < planned.saturating_mul(2));
    let held = extension.map_or(in_step, |since| tick.since(Some(since)).min(in_step));
    if held < planned {
        return Some(planned.saturating_sub(held));
    }
    let once_more = planned.saturating_add(tick.spec.interval.std());
    let blind = without_data(tick);
    if blind.is_empty() || held >= once_more {
        return None;
    }
    tick.waiting.get_or_insert_with(|| format!("no data of {}: looked at once more", blind.join(", ")));
    Some(once_more.saturating_sub(held))
}

fn open(judged: &Judged) -> bool {
    judged.verdict != Verdict::Pass
}

/// The gates that nothing is known of just now.
fn without_data(tick: &Tick<'_>) -> Vec<String> {
    let blind = tick.judged.iter().filter(|judged| judged.verdict == Verdict::NoData);
    blind.map(|judged| judged.shown.gate.clone()).collect()
}

/// The stage's time is over, and gates have no verdict: it is extended once.
fn unproved(tick: &mut Tick<'_>, planned: canary_api::Duration) {
    let open = tick.judged.iter().filter(|judged| open(judged));
    let open: Vec<_> = open.map(|judged| format!("{} ({})", judged.shown.gate, judged.shown.verdict)).collect();
    let open = open.join(", ");
    let extended = tick.status.current.as_ref().is_some_and(|current| current.extended_since.is_some());
    let without_baseline_pods = beside::unmeasured(tick, extended);
    if !extended {
        tick.current().extended_since = Some(tick.time());
        return tick.warn(
            "StageExtended",
            format!("stage {} goes on for at most {planned} more: no verdict from {open}", tick.stage_text()),
        );
    }
    if without_baseline_pods {
        // That is not the candidate's doing: the stage has its time again, compared with stable.
        tick.current().extended_since = None;
        return tick.enter(Step::Bake);
    }
    inconclusive(tick, &open);
}

fn inconclusive(tick: &mut Tick<'_>, open: &str) {
    let at = if tick.step() == Step::Bake { "ended" } else { "does not begin" };
    let why = format!("stage {} {at} without a verdict from {open}", tick.stage_text());
    if tick.spec.on_inconclusive == OnInconclusive::Revert {
        return revert::begin(tick, revert::Cause::inconclusive(why));
    }
    let since = tick.time();
    tick.warn(
        "Paused",
        format!(
            "{why}: the weight stays; give the command resume to judge the stage again, promote to go on, or abort"
        ),
    );
    tick.current().paused = Some(Paused { by: why, reason: "Inconclusive".to_owned(), since, without_weight: false });
}

fn finish_stages(tick: &mut Tick<'_>) {
    // Stages that were edited meanwhile can end short of all of the traffic.
    if tick.weight() != route::WHOLE {
        tick.current().stage_index = i32::try_from(tick.spec.stages.len()).unwrap_or(1).saturating_sub(1);
        tick.enter(Step::Scale);
        count_pods(tick);
        tick.wake(Duration::ZERO);
        return;
    }
    tick.enter(Step::Roll);
    tick.note(
        "Promoting",
        format!(
            "Deployment {} takes the candidate over; traffic stays on the canary's pods until it has",
            tick.spec.target.name
        ),
    );
    tick.wake(Duration::ZERO);
}

/// Whether the target was let go on to the candidate.
fn let_go(target: &Value) -> bool {
    !object::truth(target, "/spec/paused") && object::annotation(target, names::ANNOTATION_ROLLING).is_some()
}

/// Whether the target, held so far, is not let go: the canary's pods could not carry all of the traffic meanwhile.
pub(super) fn kept_from_rolling(tick: &Tick<'_>, target: &Value) -> bool {
    object::truth(target, "/spec/paused") && !carries(tick, route::WHOLE)
}

fn roll(tick: &mut Tick<'_>) {
    tick.wake(Duration::from_secs(1));
    let Some(target) = tick.target() else { return };
    let started = let_go(target);
    if !started && tick.waiting.is_some() {
        // Not before all of the canary's pods carry the traffic.
        return;
    }
    if kept_from_rolling(tick, target) {
        let seen = tick.seen;
        if tick.unread("the canary's pods", &seen.canary_pods)
            || tick.unread("the canary's Service", &seen.canary_service)
        {
            return;
        }
        let name = object::name(target);
        tick.waiting =
            Some(format!("Deployment {name} waits until all of the canary's pods are ready behind its Service"));
        return;
    }
    if !started || !serving::rolled_out(target) {
        let reason = object::condition_reason(target, "/status/conditions", "Progressing");
        if started && reason == "ProgressDeadlineExceeded" {
            let why = format!(
                "Deployment {} did not finish its rollout within its progressDeadlineSeconds",
                object::name(target)
            );
            let own: Vec<_> = tick.seen.target_pods.list().iter().collect();
            let fault = pods::trouble(&own).is_none_or(|trouble| trouble.rejects);
            return revert::begin(tick, revert::Cause::canary("RolloutFailed", why, fault));
        }
        let (done, all) =
            (object::integer(target, "/status/updatedReplicas", 0), object::integer(target, "/spec/replicas", 1));
        tick.waiting = Some(format!("{done} of {all} pods of Deployment {} run the candidate", object::name(target)));
        return;
    }
    if target_unread(tick) {
        return;
    }
    if let Some(why) = not_carried_by_target(tick) {
        tick.waiting = Some(why);
        return;
    }
    tick.set_weight(0);
    tick.enter(Step::HandBack);
    tick.wake(Duration::ZERO);
}

/// Whether it can't be known that the target's pods could carry the traffic.
fn target_unread(tick: &mut Tick<'_>) -> bool {
    let seen = tick.seen;
    tick.unread("the target's pods", &seen.target_pods) || tick.unread("the stable Service", &seen.service)
}

/// Why traffic can't go to the target's pods, behind the stable Service.
fn not_carried_by_target(tick: &Tick<'_>) -> Option<String> {
    let settled = |pod: &Value| object::deleting(pod) || pods::settled(pod, tick.now);
    let unsettled = || {
        (!tick.seen.target_pods.list().iter().all(settled))
            .then(|| "the new pods are ready; gateways are given a moment to learn of them".to_owned())
    };
    let stays = |why| format!("{why}: traffic stays on the canary's pods until that is mended");
    astray(tick).map(stays).or_else(|| stable_too_small(tick)).or_else(unsettled)
}

/// Why the stable Service leads to no pod of the target.
fn astray(tick: &Tick<'_>) -> Option<String> {
    let (service, target) = (&tick.spec.traffic.service, &tick.spec.target.name);
    match (tick.seen.service.missing(), tick.selecting_service()) {
        (true, _) => Some(format!("Service {service} is gone")),
        (false, None) => Some(format!("Service {service} does not select the pods of Deployment {target}")),
        (false, Some(_)) => None,
    }
}

fn hand_back(tick: &mut Tick<'_>) {
    tick.wake(Duration::from_millis(500));
    if taken_by_nobody(tick) {
        tick.set_weight(route::WHOLE);
        tick.enter(Step::Roll);
        return;
    }
    if let Err(why) = switched(tick) {
        tick.waiting = Some(why.into_text());
        return;
    }
    if tick.in_step() < SWITCH {
        tick.wake(SWITCH.saturating_sub(tick.in_step()));
        return;
    }
    tick.enter(Step::Drain);
}

/// Whether traffic that was to go back stays with the canary's pods: its write was lost, and what it stood on has gone
/// since. A route that has it back is not turned round for what may only have dipped, or could not be read, and no traffic
/// stays on pods that can't carry it while others may.
fn taken_by_nobody(tick: &mut Tick<'_>) -> bool {
    let (mut kept, mut back) = (false, false);
    for (_, route) in &tick.seen.routes {
        match route {
            Fetched::Known(route) => {
                match tick.with_pair(|pair| (route::split(route, pair), route::least(route, pair))) {
                    (Split::Absent, _) => {}
                    (_, route::WHOLE) => kept = true,
                    _ => back = true,
                }
            }
            Fetched::Missing => {}
            Fetched::Failed(_) => back = true,
        }
    }
    if !kept {
        return false;
    }
    let carried = carries(tick, route::WHOLE);
    if target_unread(tick) {
        return carried && !back;
    }
    let dead = tick.seen.canary_pods.known().is_some_and(|all| !all.iter().any(pods::ready));
    let why = if carried && !back { not_carried_by_target(tick) } else { astray(tick).filter(|_| !dead) };
    let stays = why.is_some();
    if stays {
        tick.waiting = why;
    }
    stays
}

/// Whether the canary's pods may get requests still: a route gives them weight, or could not be read. Then they stay,
/// and drain from when that is over.
pub(super) fn may_get_requests(tick: &mut Tick<'_>) -> bool {
    let why = match switched(tick) {
        Ok(()) | Err(NotSwitched::Unaccepted(_)) => return false,
        Err(NotSwitched::Unread(why)) => why,
        Err(NotSwitched::Unwritten(why)) => {
            let step = tick.step();
            tick.enter(step);
            why
        }
    };
    tick.waiting = Some(why);
    tick.wake(Duration::from_millis(500));
    true
}

/// Whether a route gives pods of ours any weight. A route that another CanaryRelease split is not ours to judge.
pub(super) fn weighted(tick: &Tick<'_>) -> bool {
    let ours = |route: &&Value| object::annotation(route, names::ANNOTATION_UID).is_none_or(|uid| uid == tick.uid());
    let mut known = tick.seen.routes.iter().filter_map(|(_, route)| route.known()).filter(ours);
    known.any(|route| !tick.with_pair(|pair| route::none_for_ours(route, pair)))
}

fn drain(tick: &mut Tick<'_>) {
    let pods = tick.canary().map_or(0, |canary| object::integer(canary, "/spec/replicas", 0));
    if draining_is_done(tick) && pods > 0 && weighted(tick) {
        // By a hand, or by a write that was under way: its requests have to end once more.
        tick.current().canary_pods = i32::try_from(pods).unwrap_or(i32::MAX);
    }
    if !draining_is_done(tick) && may_get_requests(tick) {
        return;
    }
    let due = tick.spec.drain.std();
    if tick.in_step() < due {
        tick.wake(due.saturating_sub(tick.in_step()));
        tick.waiting = Some(format!("the canary's requests end ({})", tick.spec.drain));
        return;
    }
    tick.wake(Duration::from_millis(500));
    tick.current().canary_pods = 0;
    let Some(target) = tick.target() else { return };
    if !super::converge::tidy(tick) || object::annotation(target, names::ANNOTATION_ROLLING).is_some() {
        tick.waiting = Some("the canary is taken away and the routes are put back as they were".to_owned());
        return;
    }
    // Which ReplicaSet serves now must be known, or no later release could be told from it.
    let serving::Serving::One(set) = serving::serving(tick.seen.replica_sets.list(), object::uid(target)) else {
        tick.waiting = Some("the ReplicaSet of the new version is not to be found yet".to_owned());
        return;
    };
    take_over(tick, object::name(set));
    if tick.spec.soak.millis() > 0 {
        let now = tick.time();
        tick.current().window_since = Some(now);
        tick.current().counts.clear();
        tick.enter(Step::Soak);
        return;
    }
    promoted(tick);
}

/// The candidate is now what serves.
fn take_over(tick: &mut Tick<'_>, replica_set: &str) {
    let mut version = tick.current().candidate.clone();
    version.replica_set = replica_set.to_owned();
    let record = arm::record_name(tick.name(), &version);
    if let Some(hold) = &mut tick.status.hold {
        hold.serving = Some(version);
        hold.serving_record = record;
    }
}

fn soak(tick: &mut Tick<'_>) {
    tick.wake(tick.spec.interval.std());
    let (seen, due) = (tick.seen, tick.spec.soak.std());
    if tick.unread("the target", &seen.target) || tick.unread("the stable Service", &seen.service) {
        return;
    }
    if let Some(why) = astray(tick).or_else(|| routes_gone(tick)) {
        // What nobody can ask shows nothing. Its clock is not set at every tick: each time the status is written.
        if tick.in_step() >= due.checked_div(4).unwrap_or(due).min(UNASKED) {
            tick.enter(Step::Soak);
        }
        tick.waiting = Some(format!("{why}: that is no time of the soak"));
        return;
    }
    if tick.in_step() < due {
        tick.wake(due.saturating_sub(tick.in_step()));
        return;
    }
    promoted(tick);
}

/// That no route is there which could give the new version a request.
fn routes_gone(tick: &Tick<'_>) -> Option<String> {
    let routes = &tick.seen.routes;
    let gone = !routes.is_empty() && routes.iter().all(|(_, route)| route.missing());
    let names: Vec<&str> = routes.iter().map(|(name, _)| name.as_str()).collect();
    gone.then(|| format!("HTTPRoute {} is gone", names.join(" and ")))
}

fn promoted(tick: &mut Tick<'_>) {
    let current = tick.current();
    let how = if current.partial { " (PARTIAL: stages were skipped by command)" } else { "" };
    let text = format!("{}: {} is live{how}", current.id, current.candidate.images.join(", "));
    tick.note("Promoted", text.clone());
    tick.enter(Step::Done);
    tick.status.outcome = "Promoted".to_owned();
    arm::remember(tick, format!("Promoted {text}"));
    tick.wake(Duration::ZERO);
}

/// Labels of the canary, should they be needed before `arm` has looked.
pub(super) fn overlay_or_chosen(tick: &mut Tick<'_>) -> bool {
    if !tick.overlay.is_empty() {
        return true;
    }
    let (Some(target), Some(service)) = (tick.target(), tick.seen.service.known()) else { return false };
    match canary::overlay(target, service, &tick.spec.canary.labels) {
        Ok(overlay) => {
            tick.overlay = overlay;
            true
        }
        Err(why) => {
            tick.waiting = Some(why);
            false
        }
    }
}
