//! The search: every state that any order of moves leads to, breadth first, so that the moves to a broken promise are
//! the fewest. A leader reads the CanaryRelease, then the rest, decides, writes the status by compare-and-swap, then
//! effect after effect; between any two of these anything else may happen, and it may die.

use std::{collections::HashMap, fmt};

use canary_api::{CanaryRelease, names};
use canary_core::{
    Decision, Effect, Fetched, Observed,
    gates::{Measure, Reading},
    object,
    observed::{Hold, Measured},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    cluster::{self, EDITS, Edit, Id, NATURE, NOW, Nature, Objects, Slot, Store},
    promises::{self, Ghost},
};

const POLICIES: &str = "policies-1";

/// What the gate says in a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    Pass,
    Breach,
    Unknown,
}

const VERDICTS: [Verdict; 3] = [Verdict::Pass, Verdict::Breach, Verdict::Unknown];

/// Where a leader is in its tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Leader {
    Idle,
    /// It has read the CanaryRelease, nothing else, and will not look at it again.
    HasRead(Id),
    /// It has a plan that can still do something.
    Acts(u32),
}

/// What is left of a tick's writes. What can only conflict is cut off at once.
#[derive(Clone)]
struct Plan {
    /// The status to write first.
    status: Option<Id>,
    /// Whether it must still be seen that the CanaryRelease is as it was read.
    looks_again: bool,
    effects: Vec<Effect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    objects: Objects,
    leaders: [Leader; 2],
    ghost: Ghost,
    /// Edits that people may still make.
    edits: u8,
    /// Mishaps that may still happen.
    mishaps: u8,
}

/// What happens next.
#[derive(Clone, Copy)]
enum Move {
    Nature(Nature),
    Edit(Edit),
    Reads(usize),
    Decides(usize, Verdict),
    Writes(usize),
    /// The write of the status fails, not by a conflict.
    StatusFails(usize),
    Dies(usize),
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nature(what) => write!(f, "{what:?}"),
            Self::Edit(what) => write!(f, "edit: {what:?}"),
            Self::Reads(leader) => write!(f, "leader {leader} reads the CanaryRelease"),
            Self::Decides(leader, verdict) => write!(f, "leader {leader} reads the rest ({verdict:?})"),
            Self::Writes(leader) => write!(f, "leader {leader} makes its next write"),
            Self::StatusFails(leader) => write!(f, "leader {leader} can't write the status"),
            Self::Dies(leader) => write!(f, "leader {leader} dies"),
        }
    }
}

pub type Decide = fn(&Observed, Timestamp) -> Decision;

/// What is searched.
pub struct Model {
    pub decide: Decide,
    /// Edits that people make in one history.
    pub edits: u8,
    /// How often in one history the canary's pods are lost, or the target's rollout is stuck.
    pub mishaps: u8,
    pub leaders: usize,
    /// Whether a tick that writes no status looks again, before its first effect, that the CanaryRelease is as it was
    /// read, as an operator has to.
    pub looks_again: bool,
    /// Whether the write of a status may fail otherwise than by a conflict, so that traffic goes back without it.
    pub status_fails: bool,
    /// No more states than these.
    pub limit: usize,
}

/// What a search came to.
pub struct Found {
    pub states: usize,
    pub moves: usize,
    /// Different objects and statuses.
    pub values: usize,
    /// Whether every state that can be reached was.
    pub complete: bool,
    /// A broken promise, with the moves that lead to it.
    pub broken: Option<String>,
}

pub struct Search {
    model: Model,
    store: Store,
    plans: Vec<Plan>,
    plan_ids: HashMap<String, u32>,
    decided: HashMap<(Id, Objects, Verdict), Result<Option<u32>, String>>,
    written: HashMap<(Objects, u32), Option<Objects>>,
    moved: HashMap<(Objects, u8), Objects>,
    cut: HashMap<(u32, u8, bool), Leader>,
    older: HashMap<u32, Leader>,
}

impl Model {
    pub fn search(self) -> Found {
        let mut search = Search {
            model: self,
            store: Store::new(),
            plans: Vec::new(),
            plan_ids: HashMap::new(),
            decided: HashMap::new(),
            written: HashMap::new(),
            moved: HashMap::new(),
            cut: HashMap::new(),
            older: HashMap::new(),
        };
        search.run()
    }
}

impl Search {
    fn run(&mut self) -> Found {
        let objects = cluster::initial(&mut self.store);
        let start = State {
            objects,
            leaders: [Leader::Idle; 2],
            ghost: Ghost::default(),
            edits: self.model.edits,
            mishaps: self.model.mishaps,
        };
        let mut index: HashMap<State, u32> = HashMap::from([(start, 0)]);
        let mut states = vec![start];
        let mut parents: Vec<(u32, Option<Move>)> = vec![(0, None)];
        let (mut at, mut moves) = (0, 0);
        let mut broken = None;
        while at < states.len() && broken.is_none() && states.len() < self.model.limit {
            let number = u32::try_from(at).unwrap();
            for (what, next) in self.moves(&states[at]) {
                moves += 1;
                match next {
                    Ok(next) if index.contains_key(&next) => {}
                    Ok(next) => {
                        index.insert(next, u32::try_from(states.len()).unwrap());
                        states.push(next);
                        parents.push((number, Some(what)));
                    }
                    Err(why) => {
                        let path = self.path(&states, &parents, at);
                        broken = Some(format!("{why}\nafter:\n{path}then: {what}"));
                        break;
                    }
                }
            }
            at += 1;
        }
        let complete = broken.is_none() && at == states.len();
        Found { states: states.len(), moves, values: self.store.len(), complete, broken }
    }

    /// The moves that led to a state, each with what came of it.
    fn path(&self, states: &[State], parents: &[(u32, Option<Move>)], to: usize) -> String {
        let mut steps = vec![to];
        while let (before, Some(_)) = parents[*steps.last().unwrap()] {
            steps.push(usize::try_from(before).unwrap());
        }
        let lines = steps.iter().rev().filter_map(|at| {
            let [release, target, canary, _, route, ..] = states[*at].objects.map(|id| self.store.get(id));
            let current = &release["status"]["current"];
            Some(format!(
                "  {:<40} {} {} stage {} asks {}; route {}, canary {}, target v{}{}\n",
                parents[*at].1?.to_string(),
                object::text(current, "/id"),
                object::text(current, "/step"),
                current["stageIndex"],
                object::text(current, "/weight"),
                promises::weight(&route),
                object::integer(&canary, "/spec/replicas", 0),
                cluster::version(&target["spec"]["template"]),
                if object::truth(&target, "/spec/paused") { " paused" } else { "" },
            ))
        });
        lines.collect()
    }

    fn moves(&mut self, state: &State) -> Vec<(Move, Result<State, String>)> {
        let mut all = Vec::new();
        for what in NATURE {
            let mishap = u8::from(matches!(what, Nature::CanaryPodsLost | Nature::RollStuck));
            if mishap > state.mishaps {
                continue;
            }
            let mut next = self.nature(state, what);
            if next != *state {
                next.mishaps -= mishap;
                all.push((Move::Nature(what), Ok(next)));
            }
        }
        for what in EDITS.into_iter().filter(|_| state.edits > 0) {
            if let Some(objects) = cluster::edit(&mut self.store, &state.objects, what) {
                let mut next = self.changed(state, objects, None);
                next.edits -= 1;
                next.ghost.edited(&self.store, &objects, what);
                all.push((Move::Edit(what), Ok(next)));
            }
        }
        for leader in 0..self.model.leaders {
            match state.leaders[leader] {
                // What is looked at again before it is acted on is as good as read now.
                Leader::Idle if self.model.looks_again => {
                    self.decides_each(&mut all, state, leader, state.objects[Slot::Release as usize]);
                }
                Leader::Idle => {
                    let read = Leader::HasRead(state.objects[Slot::Release as usize]);
                    all.push((Move::Reads(leader), Ok(with(state, leader, read))));
                }
                Leader::HasRead(release) => self.decides_each(&mut all, state, leader, release),
                Leader::Acts(plan) => {
                    all.push((Move::Dies(leader), Ok(with(state, leader, Leader::Idle))));
                    all.push((Move::Writes(leader), self.writes(state, leader, plan)));
                    if let Some(left) = self.despite(plan).filter(|_| self.model.status_fails) {
                        all.push((Move::StatusFails(leader), Ok(with(state, leader, Leader::Acts(left)))));
                    }
                }
            }
        }
        for next in all.iter_mut().filter_map(|(_, next)| next.as_mut().ok()) {
            next.leaders[..self.model.leaders].sort_unstable();
        }
        all
    }

    fn decides_each(
        &mut self,
        all: &mut Vec<(Move, Result<State, String>)>,
        state: &State,
        leader: usize,
        release: Id,
    ) {
        for verdict in VERDICTS {
            let mut plan = self.decides(release, &state.objects, verdict);
            // A status that rests on an older one conflicts, and ends the tick.
            let stale = release != state.objects[Slot::Release as usize];
            if let Ok(Some(number)) = plan
                && stale
                && self.plans[usize::try_from(number).unwrap()].status.is_some()
            {
                plan = Ok(None);
            }
            let next = plan.map(|plan| with(state, leader, plan.map_or(Leader::Idle, Leader::Acts)));
            all.push((Move::Decides(leader, verdict), next));
        }
    }

    fn nature(&mut self, state: &State, what: Nature) -> State {
        let key = (state.objects, what as u8);
        let objects = match self.moved.get(&key) {
            Some(objects) => *objects,
            None => {
                let objects = cluster::nature(&mut self.store, &state.objects, what);
                self.moved.insert(key, objects);
                objects
            }
        };
        let mut next = *state;
        next.objects = objects;
        if what == Nature::TimePasses {
            // Nobody wrote anything: what was read is as good as before, and an age older.
            next.ghost.time_passed(&self.store, &objects);
            for leader in &mut next.leaders {
                *leader = self.aged(*leader);
            }
            return next;
        }
        self.changed(state, objects, None)
    }

    fn aged(&mut self, leader: Leader) -> Leader {
        let mut older = |id: Id| {
            let alone = [id, 0, 0, 0, 0, 0, 0];
            cluster::nature(&mut self.store, &alone, Nature::TimePasses)[0]
        };
        match leader {
            Leader::Idle => Leader::Idle,
            Leader::HasRead(release) => Leader::HasRead(older(release)),
            Leader::Acts(number) => {
                if let Some(known) = self.older.get(&number) {
                    return *known;
                }
                let mut plan = self.plans[usize::try_from(number).unwrap()].clone();
                plan.status = plan.status.map(older);
                let older = Leader::Acts(self.plan(plan).unwrap());
                self.older.insert(number, older);
                older
            }
        }
    }

    /// The state with other objects; plans of others (and what is left of the writer's own) lose the writes that can
    /// only conflict from now on.
    fn changed(&mut self, state: &State, objects: Objects, writer: Option<(usize, Option<u32>)>) -> State {
        let mut next = *state;
        next.objects = objects;
        if let Some((leader, left)) = writer {
            next.leaders[leader] = left.map_or(Leader::Idle, Leader::Acts);
        }
        let touched = (0..cluster::SLOTS).filter(|slot| objects[*slot] != state.objects[*slot]);
        let touched: u8 = touched.map(|slot| 1 << slot).sum();
        for number in 0..next.leaders.len() {
            let own = writer.is_some_and(|(writer, _)| writer == number);
            next.leaders[number] = self.cut(next.leaders[number], touched, own);
        }
        next
    }

    /// What is left of a leader's tick when objects were written, by itself or by another.
    fn cut(&mut self, leader: Leader, touched: u8, own: bool) -> Leader {
        let moved = touched & (1 << Slot::Release as u8) != 0 && !own;
        let number = match leader {
            Leader::Acts(plan) => plan,
            Leader::Idle | Leader::HasRead(_) => return leader,
        };
        if let Some(known) = self.cut.get(&(number, touched, own)) {
            return *known;
        }
        let mut plan = self.plans[usize::try_from(number).unwrap()].clone();
        let left = if moved && (plan.status.is_some() || plan.looks_again) {
            Leader::Idle
        } else {
            let stale = |effect: &Effect| {
                let slot = cluster::slot(effect);
                // A command's annotations go by their text.
                slot != Slot::Release && touched & (1 << slot as u8) != 0
            };
            let good = plan.effects.iter().position(stale).unwrap_or(plan.effects.len());
            plan.effects.truncate(good);
            self.plan(plan).map_or(Leader::Idle, Leader::Acts)
        };
        self.cut.insert((number, touched, own), left);
        left
    }

    /// The number of a plan, where it does anything.
    fn plan(&mut self, plan: Plan) -> Option<u32> {
        if plan.status.is_none() && plan.effects.is_empty() {
            return None;
        }
        let key = format!("{:?} {} {:?}", plan.status, plan.looks_again, plan.effects);
        let next = u32::try_from(self.plans.len()).unwrap();
        let id = *self.plan_ids.entry(key).or_insert(next);
        if id == next {
            self.plans.push(plan);
        }
        Some(id)
    }

    /// One tick's decision on a CanaryRelease that was read before, and the rest as it is now.
    fn decides(&mut self, release: Id, objects: &Objects, verdict: Verdict) -> Result<Option<u32>, String> {
        let key = (release, *objects, verdict);
        if let Some(known) = self.decided.get(&key) {
            return known.clone();
        }
        let raw = self.store.get(release);
        let seen = objects.map(|id| self.store.get(id));
        let observed = observe(&raw, &seen.each_ref().map(|value| &**value), verdict);
        let mut decision = (self.model.decide)(&observed, NOW.parse().unwrap());
        let before = observed.release.status.clone().unwrap_or_default();
        let result = promises::decided(&before, &decision, &observed, verdict).map(|()| {
            let status = json!({"status": cluster::canonical(&json!(decision.status))});
            let status = decision.decisive.then(|| self.store.id(status));
            let effects = std::mem::take(&mut decision.effects);
            self.plan(Plan { status, looks_again: status.is_none() && self.model.looks_again, effects })
        });
        self.decided.insert(key, result.clone());
        result
    }

    /// What is left to do where the status could not be written: traffic goes back all the same.
    fn despite(&mut self, plan: u32) -> Option<u32> {
        let mut plan = self.plans[usize::try_from(plan).unwrap()].clone();
        plan.status.take()?;
        plan.effects.retain(Effect::gives_traffic_back);
        self.plan(plan)
    }

    fn writes(&mut self, state: &State, leader: usize, plan: u32) -> Result<State, String> {
        let number = plan;
        let mut plan = self.plans[usize::try_from(plan).unwrap()].clone();
        if let Some(status) = plan.status.take() {
            let mut release = (*self.store.get(state.objects[Slot::Release as usize])).clone();
            let before = release["status"].clone();
            release["status"] = self.store.get(status)["status"].clone();
            let mut ghost = state.ghost;
            ghost.status_written(&before, &release["status"])?;
            let mut objects = state.objects;
            objects[Slot::Release as usize] = self.store.id(release);
            let left = self.plan(plan);
            let mut next = self.changed(state, objects, Some((leader, left)));
            next.ghost = ghost;
            return Ok(next);
        }
        if std::mem::take(&mut plan.looks_again) {
            let left = self.plan(plan);
            return Ok(with(state, leader, left.map_or(Leader::Idle, Leader::Acts)));
        }
        let effect = plan.effects.remove(0);
        let key = (state.objects, number);
        let written = match self.written.get(&key) {
            Some(written) => *written,
            None => {
                let written = cluster::write(&mut self.store, &state.objects, &effect);
                self.written.insert(key, written);
                written
            }
        };
        // A conflict ends the tick.
        let Some(objects) = written else { return Ok(with(state, leader, Leader::Idle)) };
        let mut ghost = state.ghost;
        ghost.written(&self.store, &state.objects, &objects, &effect)?;
        let left = self.plan(plan);
        let mut next = self.changed(state, objects, Some((leader, left)));
        next.ghost = ghost;
        Ok(next)
    }
}

fn with(state: &State, leader: usize, now: Leader) -> State {
    let mut next = *state;
    next.leaders[leader] = now;
    next
}

/// What a tick sees.
fn observe(raw: &Value, seen: &[&Value; cluster::SLOTS], verdict: Verdict) -> Observed {
    let mut whole = raw.clone();
    whole["apiVersion"] = json!("canaryrelease.dev/v1alpha1");
    whole["kind"] = json!("CanaryRelease");
    whole["spec"] = cluster::spec();
    let release: CanaryRelease = serde_json::from_value(whole).expect("a CanaryRelease");
    let [_, target, canary, service, route, records, sets] = seen;
    let fetched = |value: &Value| if value.is_null() { Fetched::Missing } else { Fetched::Known(value.clone()) };
    let list = |value: &Value| Fetched::Known(value.as_array().cloned().unwrap_or_default());
    let canary_says = match verdict {
        Verdict::Pass => Measure::Number { value: 1.0, streak: 0 },
        Verdict::Breach => Measure::Number { value: 99.0, streak: 99 },
        Verdict::Unknown => Measure::NoData("no series".to_owned()),
    };
    let reading = Reading {
        gate: "errors".to_owned(),
        canary: canary_says,
        stable: Measure::NoData("a value gate".to_owned()),
        proof: None,
        baseline_pods: None,
        baseline: None,
        evidence: None,
        bursts: None,
        left_out: Default::default(),
    };
    let status = release.status.as_ref();
    let armed = status.and_then(|status| status.hold.as_ref()).is_some_and(|hold| hold.armed);
    let labelled = object::label(target, names::LABEL_RELEASE).is_some();
    let hold = if labelled && !armed { Hold::Works(POLICIES.to_owned()) } else { Hold::NotTried };
    Observed {
        rivals: Fetched::Known(Vec::new()),
        target: fetched(target),
        canary: fetched(canary),
        replica_sets: list(sets),
        target_pods: Fetched::Known(cluster::pods(sets, "uid-target")),
        canary_pods: Fetched::Known(cluster::pods(sets, "uid-web-canary")),
        service: Fetched::Known(cluster::stable_service()),
        canary_service: fetched(service),
        routes: vec![("web".to_owned(), fetched(route))],
        autoscalers: Fetched::Known(Vec::new()),
        budgets: Fetched::Known(Vec::new()),
        network_policies: Fetched::Known(Vec::new()),
        serving_records: list(records),
        hold,
        policies: POLICIES.to_owned(),
        measured: Measured { readings: vec![reading], ..Measured::default() },
        ..Observed::alone(release)
    }
}
