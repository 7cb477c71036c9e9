//! Every fault at every point of a scenario. The undisturbed run gives the points; each is played as if alone in the world,
//! and must end in the same state, with the same number of writes to each object.

use std::collections::{BTreeMap, BTreeSet};
use std::io::PipeWriter;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::branches::{self, Told, over};
use crate::bundle::bundles;
use crate::fault::{Answer, Fault, Planned, Point, Struck};
use crate::run::{OTHER_END, Outcome, play};
use crate::scenario::{Action, Scenario};
use crate::store::{Change, Store};
use crate::world::{Entry, NAMESPACE};
use crate::{acts, corruption};

/// Groups of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Crash before and after every write; its reply lost.
    Crashes,
    /// Every request answered 409, 404, 403, 429, 500, not at all, refused by admission.
    Answers,
    /// Every read one, two, three versions old.
    Stale,
    /// A second leader beside one that stands still before each write.
    Leaders,
    /// Metrics and API server down for one tick, 10 min, 6 h.
    Outages,
    /// Clocks an hour off, jumping back, at half and double speed.
    Clocks,
    /// Two changes of one object in a row that no watch tells of.
    Watch,
    /// Each field that ties objects together, written by another.
    Corruption,
    /// Each command, a newer template, the one before, a deletion: at each place.
    Acts,
    /// Any two faults together, one at each point, in the core scenarios.
    Pairs,
}

/// The scenarios in which faults are tried in pairs.
const CORE: [&str; 4] = ["good", "breach-at-stage-2", "abort", "breach-while-rolling"];

impl Group {
    /// All groups.
    pub const ALL: [Self; 10] = [
        Self::Crashes,
        Self::Answers,
        Self::Stale,
        Self::Leaders,
        Self::Outages,
        Self::Clocks,
        Self::Watch,
        Self::Corruption,
        Self::Acts,
        Self::Pairs,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Crashes => "crashes",
            Self::Answers => "answers",
            Self::Stale => "stale",
            Self::Leaders => "leaders",
            Self::Outages => "outages",
            Self::Clocks => "clocks",
            Self::Watch => "watch",
            Self::Corruption => "corruption",
            Self::Acts => "acts",
            Self::Pairs => "pairs",
        }
    }
}

/// A point that did not pass.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Of which scenario.
    pub name: String,
    /// The scenario with its fault, as a file that replays it.
    pub file: String,
    /// What went wrong.
    pub wrong: Vec<String>,
}

/// What [`every`] tells of points, and [`walks`](crate::walk::walks) of walks, while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum News<'a> {
    /// One did not pass.
    Failed(&'a Failure),
    /// One was tried.
    Tried {
        /// Tried so far.
        tried: usize,
        /// To be tried.
        all: usize,
        /// Those that did not pass so far.
        failed: usize,
    },
}

/// Which points are tried, and in which order.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// Gives the order.
    pub seed: u64,
    /// How many of the first are left out.
    pub skip: usize,
    /// How many are tried at the most.
    pub most: usize,
    /// Until when.
    pub until: Option<Instant>,
    /// Whether each is played by itself too, and must go the same way.
    pub twice: bool,
}

/// What came of a group.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// How many points there are.
    pub all: usize,
    /// Points tried.
    pub tried: usize,
    /// Those of them that did not pass.
    pub failed: usize,
    /// Writes of other users that admission or the schema refused or undid.
    pub refused: usize,
}

/// How many of the points are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breadth {
    /// All.
    Every,
    /// A failed read in three ways instead of seven: 404, no answer, and one of the others in turn.
    Thin,
}

/// The points of a group in a run that nothing disturbed.
#[must_use]
pub fn points(base: &Outcome, group: Group, breadth: Breadth) -> Vec<Planned> {
    let writes = || asked(base).iter().filter(|entry| entry.write > 0).map(|entry| Point::Write(entry.write));
    let at = |points: &mut dyn Iterator<Item = Point>, faults: &[Fault]| {
        points.flat_map(|at| faults.iter().map(move |fault| Planned { at, fault: *fault })).collect::<Vec<_>>()
    };
    match group {
        Group::Crashes => at(&mut writes(), &[Fault::CrashBefore, Fault::CrashAfter, Fault::LostReply]),
        Group::Answers => {
            let mut all = at(&mut writes(), &Answer::ALL.map(Fault::Answer));
            for (number, read) in reads(base).into_iter().enumerate() {
                let answers = answers_of_a_read(number, breadth).into_iter().map(Fault::Answer);
                all.extend(answers.map(|fault| Planned { at: read, fault }));
            }
            all
        }
        Group::Stale => at(&mut reads(base).into_iter(), &[Fault::Stale(1), Fault::Stale(2), Fault::Stale(3)]),
        Group::Leaders => at(&mut writes(), &[2, 40, 3600].map(|seconds| Fault::Freeze(Duration::from_secs(seconds)))),
        Group::Outages => {
            let times = [2, 600, 6 * 3600].map(Duration::from_secs);
            let faults: Vec<Fault> =
                times.into_iter().flat_map(|time| [Fault::MetricsDown(time), Fault::ServerDown(time)]).collect();
            at(&mut places(base).into_iter(), &faults)
        }
        Group::Clocks => {
            let faults = [
                Fault::ClockJumps(3600),
                Fault::ClockJumps(-3600),
                Fault::ClockJumps(-90),
                Fault::ClockRate(50),
                Fault::ClockRate(200),
            ];
            at(&mut places(base).into_iter(), &faults)
        }
        Group::Watch => at(&mut pairs_of_changes(base).into_iter(), &[Fault::WatchCut]),
        Group::Corruption => corruption::points(base),
        Group::Acts => acts::points(base),
        // Of these there are too many to be listed.
        Group::Pairs => Vec::new(),
    }
}

/// One fault at each point: those that can strike there take turns. What is answered wrongly, as no API server does, is
/// tried alone: what may come of it is declared for each scenario, and two such ends are no end of any. So are six hours
/// without metrics or API server: beside another fault ten minutes, longer than all the release, say the same.
fn thinned(base: &Outcome) -> Vec<Planned> {
    let mut by_point: BTreeMap<Point, Vec<Planned>> = BTreeMap::new();
    let groups = [Group::Crashes, Group::Answers, Group::Stale, Group::Leaders, Group::Outages, Group::Clocks];
    let paired = |planned: &Planned| match planned.fault {
        Fault::Stale(_) | Fault::Answer(Answer::NotFound) => false,
        Fault::MetricsDown(time) | Fault::ServerDown(time) => time < Duration::from_secs(3600),
        _ => true,
    };
    let all = groups.into_iter().flat_map(|group| points(base, group, Breadth::Thin));
    for planned in all.filter(paired) {
        by_point.entry(planned.at).or_default().push(planned);
    }
    by_point.into_values().enumerate().map(|(number, faults)| faults[number % faults.len()]).collect()
}

/// The first of every two changes in a row of an object that is watched, until the script was done.
fn pairs_of_changes(base: &Outcome) -> Vec<Point> {
    let watched = |change: &&Change| {
        change.key.namespace == NAMESPACE
            && matches!(change.key.plural, "canaryreleases" | "deployments" | "httproutes")
            && change.at <= asked(base).last().map_or(change.at, |entry| entry.at)
    };
    let changes: Vec<&Change> = base.store.since(0).iter().filter(watched).collect();
    let followed = |index: usize| changes[index + 1..].iter().any(|later| later.key == changes[index].key);
    (0..changes.len()).filter(|index| followed(*index)).map(|index| Point::Change(changes[index].revision)).collect()
}

fn answers_of_a_read(number: usize, breadth: Breadth) -> Vec<Answer> {
    if breadth == Breadth::Every {
        return Answer::ALL.to_vec();
    }
    let others = [Answer::Conflict, Answer::Forbidden, Answer::TooMany, Answer::Internal, Answer::Refused];
    vec![Answer::NotFound, Answer::Timeout, others[number % others.len()]]
}

/// What was asked until all was done; re-syncs are no part of it.
pub(crate) fn asked(base: &Outcome) -> &[Entry] {
    base.journal.get(..base.reached).unwrap_or(&base.journal)
}

/// One of each kind of read at each place of the release: those that differ only in the time are one.
fn reads(base: &Outcome) -> Vec<Point> {
    let mut seen = BTreeSet::new();
    asked(base)
        .iter()
        .filter(|entry| entry.request > 0 && entry.write == 0)
        .filter(|entry| seen.insert((entry.place, entry.verb, entry.plural, entry.name.clone())))
        .map(|entry| Point::Request(entry.request))
        .collect()
}

/// The first request, and one in the middle, of each place of the release.
fn places(base: &Outcome) -> Vec<Point> {
    let mut by_place: Vec<(_, Vec<usize>)> = Vec::new();
    for entry in asked(base).iter().filter(|entry| entry.request > 0) {
        match by_place.last_mut().filter(|(place, _)| *place == entry.place) {
            Some((_, requests)) => requests.push(entry.request),
            None => by_place.push((entry.place, vec![entry.request])),
        }
    }
    let mut points = BTreeSet::new();
    for (_, requests) in by_place {
        points.insert(Point::Request(requests[0]));
        points.insert(Point::Request(requests[requests.len() / 2]));
    }
    points.into_iter().collect()
}

/// A scenario with its undisturbed run and the points that this has.
#[derive(Debug)]
pub struct Course {
    /// What it is called.
    pub name: String,
    pub(crate) scenario: Scenario,
    pub(crate) base: Outcome,
    points: Vec<(Group, Planned)>,
    /// Faults of which any two are a pair.
    singles: Vec<Planned>,
}

impl Course {
    /// Plays a scenario undisturbed, with so many re-syncs at its end.
    ///
    /// # Errors
    /// Where that goes wrong by itself, or has faults of its own, which `play` plays.
    pub fn new(
        name: &str,
        scenario: Scenario,
        groups: &[Group],
        breadth: Breadth,
        resyncs: usize,
    ) -> Result<Self, Vec<String>> {
        let strikes = scenario.script.iter().any(|line| matches!(line.action, Action::Strike(_)));
        if strikes || !scenario.faults.is_empty() {
            return Err(vec!["it has faults of its own".to_owned()]);
        }
        let base = play(&scenario, resyncs);
        if !base.wrong.is_empty() {
            return Err(base.wrong);
        }
        let of = |group: &Group| points(&base, *group, breadth).into_iter().map(|point| (*group, point)).collect();
        let points = groups.iter().flat_map(|group: &Group| -> Vec<_> { of(group) }).collect();
        let paired = groups.contains(&Group::Pairs) && CORE.contains(&name);
        let singles = if paired { thinned(&base) } else { Vec::new() };
        let base = Outcome { store: Store::default(), ..base };
        Ok(Self { name: name.to_owned(), scenario, base, points, singles })
    }

    /// How many points it has.
    #[must_use]
    pub const fn points(&self) -> usize {
        self.points.len() + self.singles.len() * self.singles.len().saturating_sub(1) / 2
    }

    /// The group of the point of this number: those of single faults come first.
    fn group(&self, number: usize) -> Group {
        self.points.get(number).map_or(Group::Pairs, |(group, _)| *group)
    }

    /// The scenario with these faults.
    pub(crate) fn disturbed(&self, faults: &[Planned]) -> Scenario {
        let mut disturbed = self.scenario.clone();
        disturbed.faults.extend(faults);
        disturbed
    }

    /// How much of the undisturbed run lies before a point.
    pub(crate) fn position(&self, at: Point) -> usize {
        let here = |entry: &Entry| match at {
            Point::Request(number) => entry.request == number,
            Point::Write(number) => entry.write == number,
            Point::Change(_) => false,
        };
        self.base.journal.iter().position(here).unwrap_or_default()
    }

    /// What goes wrong at the point of this number.
    pub(crate) fn faults(&self, number: usize) -> Vec<Planned> {
        if let Some((_, planned)) = self.points.get(number) {
            return vec![*planned];
        }
        let (first, second) = pair(number - self.points.len());
        vec![self.singles[first], self.singles[second]]
    }
}

/// The pair of this number: (0, 1), (0, 2), (1, 2), (0, 3), ...
const fn pair(number: usize) -> (usize, usize) {
    let mut second = 1 + (2 * number).isqrt();
    while second * (second - 1) / 2 > number {
        second -= 1;
    }
    (number - second * (second - 1) / 2, second)
}

/// The points of all courses, by number, in an order that `seed` gives, in which the groups take turns.
fn order(courses: &[Course], seed: u64) -> Vec<(&Course, Group, usize)> {
    let mut groups: BTreeMap<Group, Vec<(&Course, Group, usize)>> = BTreeMap::new();
    for course in courses {
        for number in 0..course.points() {
            let group = course.group(number);
            groups.entry(group).or_default().push((course, group, number));
        }
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let mut turns: Vec<_> = groups
        .into_values()
        .flat_map(|mut points| {
            random.shuffle(&mut points);
            points.into_iter().enumerate()
        })
        .collect();
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, point)| point).collect()
}

/// What came of the chosen points.
#[derive(Debug, Default)]
pub struct Report {
    /// By group.
    pub groups: BTreeMap<Group, Tally>,
    /// How many points of the order are behind it, none left out: what to skip to go on.
    pub through: usize,
}

/// How many points are sorted into bundles at once, without an end in time and with one: the more, the more of their runs
/// is played once for all; the fewer, the fewer are played again by who goes on.
const ROUND: (usize, usize) = (131_072, 2_048);

/// Plays the chosen points of these courses in as many processes as the machine has cores; the caller has no other thread.
/// `tell` hears how it goes.
#[must_use]
pub fn every(courses: &[Course], choice: Choice, tell: &(dyn Fn(News<'_>) + Sync)) -> Report {
    let Choice { seed, skip, most, until, .. } = choice;
    let mut all = order(courses, seed);
    let mut groups: BTreeMap<Group, Tally> = BTreeMap::new();
    for (_, group, _) in &all {
        groups.entry(*group).or_default().all += 1;
    }
    let skipped = all.drain(..skip.min(all.len())).len();
    all.truncate(most);
    let groups = Mutex::new(groups);
    let mut through = skipped;
    for round in all.chunks(if until.is_none() { ROUND.0 } else { ROUND.1 }) {
        if !every_of(round, all.len(), choice, &groups, tell) {
            break;
        }
        through += round.len();
    }
    Report { groups: groups.into_inner().unwrap(), through }
}

/// Plays the points of a round of so many in all; whether none was left out for want of time.
fn every_of(
    round: &[(&Course, Group, usize)],
    all: usize,
    Choice { until, twice, .. }: Choice,
    groups: &Mutex<BTreeMap<Group, Tally>>,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> bool {
    let heard = Mutex::new(BTreeSet::new());
    let hear = |told: Told| {
        if heard.lock().unwrap().insert(told.id) {
            let mut groups = groups.lock().unwrap();
            note(&mut groups, round[told.id], told, tell);
            let sum = |of: &dyn Fn(&Tally) -> usize| groups.values().map(of).sum();
            let (tried, failed) = (sum(&|tally| tally.tried), sum(&|tally| tally.failed));
            tell(News::Tried { tried, all, failed });
        }
    };
    let bundles = bundles(round);
    let play = |number: usize, report: &PipeWriter| bundles[number].play(twice, until, report);
    let copies = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    branches::spread(copies, bundles.len(), play, |number| bundles[number].ids(), &hear);
    let silent: Vec<usize> = (0..round.len()).filter(|id| !heard.lock().unwrap().contains(id)).collect();
    let in_time = !over(until);
    if in_time {
        silent.iter().for_each(|id| hear(Told { id: *id, wrong: None, refused: 0 }));
    }
    in_time || silent.is_empty()
}

/// Counts what came of a point, and tells where it did not pass.
fn note(
    report: &mut BTreeMap<Group, Tally>,
    (course, group, number): (&Course, Group, usize),
    told: Told,
    tell: &(dyn Fn(News<'_>) + Sync),
) {
    let wrong = told.wrong.unwrap_or_else(|| vec!["its process ended without a word of it".to_owned()]);
    let tally = report.entry(group).or_default();
    tally.tried += 1;
    tally.refused += told.refused;
    if !wrong.is_empty() {
        tally.failed += 1;
        let file = course.disturbed(&course.faults(number)).to_string();
        tell(News::Failed(&Failure { name: course.name.clone(), file, wrong }));
    }
}

/// What is wrong with a disturbed run: where another user's write was stored it need not end as the other.
pub(crate) fn judged(scenario: &Scenario, base: &Outcome, outcome: &Outcome) -> Vec<String> {
    match acts::of(scenario) {
        Some(act) if outcome.corrupted > 0 => acts::wrong(scenario, act, base, outcome),
        None if outcome.corrupted > 0 => corruption::wrong(scenario, base, outcome),
        _ => differences(scenario, base, outcome),
    }
}

/// Plays a scenario undisturbed, and says what the run with its faults, `outcome`, has that this has not.
#[must_use]
pub fn held_against(disturbed: &Scenario, outcome: &Outcome) -> Vec<String> {
    let base = play(&Scenario { faults: Vec::new(), ..disturbed.clone() }, 3);
    if !base.wrong.is_empty() {
        return base.wrong.into_iter().map(|wrong| format!("undisturbed: {wrong}")).collect();
    }
    judged(disturbed, &base, outcome)
}

/// What a disturbed run has that the other has not.
#[must_use]
pub fn differences(scenario: &Scenario, base: &Outcome, outcome: &Outcome) -> Vec<String> {
    let mut wrong = outcome.wrong.clone();
    if scenario.allows(outcome) {
        wrong.retain(|line| !line.starts_with(OTHER_END));
        return wrong;
    }
    // After a first fault the point of another need not come.
    let several = scenario.faults.len() > 1;
    if outcome.struck.len() < scenario.faults.len() && !several {
        let struck = outcome.struck.len();
        wrong.push(format!("{struck} of {} faults struck", scenario.faults.len()));
    }
    let objects: BTreeSet<&String> = base.state.keys().chain(outcome.state.keys()).collect();
    for object in objects {
        let (a, b) = (base.state.get(object), outcome.state.get(object));
        if a != b {
            let show = |state: Option<&String>| state.map_or("nothing", String::as_str).to_owned();
            wrong.push(format!("{object} ends as\n    {}\n  and not as\n    {}", show(b), show(a)));
        }
    }
    for (object, count) in counted(base, outcome) {
        let (a, b) = count;
        // What one that stood still creates when it goes on is taken back: a write more, and one that takes it back.
        let late = |struck: &Struck| matches!(struck.fault, Fault::Freeze(_)) && object.starts_with(struck.plural);
        let once_more = b == a + 1 && outcome.struck.iter().any(late);
        let declared = a.abs_diff(b) == 1 && scenario.once_more_or_less.contains(&object);
        if a != b && !several && !once_more && !declared {
            wrong.push(format!("{b} writes of {object} where the undisturbed run has {a}"));
        }
    }
    wrong
}

/// Writes by object that must be the same; status, records and Events tell of the disturbance itself.
fn counted(base: &Outcome, outcome: &Outcome) -> BTreeMap<String, (usize, usize)> {
    let mut counted: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let told = |object: &str| {
        object.ends_with("/status") || object.starts_with("events") || object.starts_with("releaserecords")
    };
    for (object, count) in base.writes.iter().filter(|(object, _)| !told(object)) {
        counted.entry(object.clone()).or_default().0 = *count;
    }
    for (object, count) in outcome.writes.iter().filter(|(object, _)| !told(object)) {
        counted.entry(object.clone()).or_default().1 = *count;
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_two_of_many_are_a_pair_once() {
        let all: BTreeSet<(usize, usize)> = (0..100 * 99 / 2).map(pair).collect();
        let wanted = (0..100).flat_map(|second| (0..second).map(move |first| (first, second))).collect();
        assert_eq!(all, wanted);
    }
}
