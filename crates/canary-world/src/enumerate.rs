//! Every fault at every point of a scenario. The undisturbed run gives the points; each is played in a world of its own,
//! and must end in the same state, with the same number of writes to each object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::fault::{Answer, Fault, Planned, Point};
use crate::run::{OTHER_END, Outcome, play};
use crate::scenario::Scenario;
use crate::world::Entry;

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
}

impl Group {
    /// All groups.
    pub const ALL: [Self; 6] = [Self::Crashes, Self::Answers, Self::Stale, Self::Leaders, Self::Outages, Self::Clocks];

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

/// What came of a group.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// How many points there are.
    pub all: usize,
    /// Points tried.
    pub tried: usize,
    /// Those of them that did not pass.
    pub failed: usize,
}

/// How many of the points are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breadth {
    /// All; a thousand re-syncs of a run without a fault.
    Every,
    /// A failed read in three ways instead of seven: 404, no answer, and one of the others in turn. Ten re-syncs of a run
    /// without a fault.
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
    }
}

fn answers_of_a_read(number: usize, breadth: Breadth) -> Vec<Answer> {
    if breadth == Breadth::Every {
        return Answer::ALL.to_vec();
    }
    let others = [Answer::Conflict, Answer::Forbidden, Answer::TooMany, Answer::Internal, Answer::Refused];
    vec![Answer::NotFound, Answer::Timeout, others[number % others.len()]]
}

/// What was asked until the script was done; re-syncs are no part of it.
fn asked(base: &Outcome) -> &[Entry] {
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
    scenario: Scenario,
    base: Outcome,
    points: Vec<(Group, Planned)>,
}

impl Course {
    /// Plays a scenario undisturbed, with a thousand re-syncs at its end, or ten where not all is tried.
    ///
    /// # Errors
    /// Where that goes wrong by itself.
    pub fn new(name: &str, scenario: Scenario, groups: &[Group], breadth: Breadth) -> Result<Self, Vec<String>> {
        let base = play(&scenario, if breadth == Breadth::Every { 1000 } else { 10 });
        if !base.wrong.is_empty() {
            return Err(base.wrong);
        }
        let of = |group: &Group| points(&base, *group, breadth).into_iter().map(|point| (*group, point)).collect();
        let points = groups.iter().flat_map(|group: &Group| -> Vec<_> { of(group) }).collect();
        Ok(Self { name: name.to_owned(), scenario, base, points })
    }

    /// How many points it has.
    #[must_use]
    pub const fn points(&self) -> usize {
        self.points.len()
    }
}

/// The points of all courses in an order that `seed` gives, in which the groups take turns.
fn order(courses: &[Course], seed: u64) -> Vec<(&Course, Group, Planned)> {
    let mut groups: BTreeMap<Group, Vec<(&Course, Group, Planned)>> = BTreeMap::new();
    for course in courses {
        for (group, planned) in &course.points {
            groups.entry(*group).or_default().push((course, *group, *planned));
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

/// Plays the first `most` points of these courses in an order that `seed` gives, on as many threads as the machine has
/// cores, until `until` has come. `tell` hears of each failure.
#[must_use]
pub fn every(
    courses: &[Course],
    seed: u64,
    most: usize,
    until: Option<Instant>,
    tell: &(dyn Fn(&Failure) + Sync),
) -> BTreeMap<Group, Tally> {
    let mut all = order(courses, seed);
    let mut report: BTreeMap<Group, Tally> = BTreeMap::new();
    for (_, group, _) in &all {
        report.entry(*group).or_default().all += 1;
    }
    let (next, report) = (AtomicUsize::new(0), Mutex::new(report));
    all.truncate(most);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while until.is_none_or(|until| Instant::now() < until)
                    && let Some((course, group, planned)) = all.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let failure = try_one(course, *planned);
                    let mut report = report.lock().unwrap();
                    let tally = report.entry(*group).or_default();
                    tally.tried += 1;
                    if let Some(failure) = failure {
                        tell(&failure);
                        tally.failed += 1;
                    }
                }
            });
        }
    });
    report.into_inner().unwrap()
}

fn try_one(course: &Course, planned: Planned) -> Option<Failure> {
    let mut disturbed = course.scenario.clone();
    disturbed.faults.push(planned);
    let wrong = differences(&disturbed, &course.base, &play(&disturbed, 3));
    (!wrong.is_empty()).then(|| Failure { name: course.name.clone(), file: disturbed.to_string(), wrong })
}

/// Plays a scenario that has its faults in it, and says what it has that the undisturbed run has not.
#[must_use]
pub fn replay(disturbed: &Scenario) -> Vec<String> {
    let base = play(&Scenario { faults: Vec::new(), ..disturbed.clone() }, 3);
    if !base.wrong.is_empty() {
        return base.wrong.into_iter().map(|wrong| format!("undisturbed: {wrong}")).collect();
    }
    differences(disturbed, &base, &play(disturbed, 3))
}

/// What a disturbed run has that the other has not.
#[must_use]
pub fn differences(scenario: &Scenario, base: &Outcome, outcome: &Outcome) -> Vec<String> {
    let mut wrong = outcome.wrong.clone();
    if scenario.allows(outcome) {
        wrong.retain(|line| !line.starts_with(OTHER_END));
        return wrong;
    }
    if outcome.struck.len() < scenario.faults.len() {
        let struck = outcome.struck.len();
        wrong.push(format!("{struck} of {} faults struck", scenario.faults.len()));
    }
    let objects: BTreeSet<&String> = base.state.keys().chain(outcome.state.keys()).collect();
    for object in objects {
        let (a, b) = (base.state.get(object), outcome.state.get(object));
        if a != b && !scenario.differs.iter().any(|free| object.starts_with(free.as_str())) {
            let show = |state: Option<&String>| state.map_or("nothing", String::as_str).to_owned();
            wrong.push(format!("{object} ends as\n    {}\n  and not as\n    {}", show(b), show(a)));
        }
    }
    for (object, count) in counted(base, outcome) {
        let (a, b) = count;
        if a != b && !scenario.differs.iter().any(|free| object.starts_with(free.as_str())) {
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
