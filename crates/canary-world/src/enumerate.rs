//! Every fault at every point of a scenario. The undisturbed run gives the points; each is played in a world of its own,
//! and must end in the same state, with the same number of writes to each object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::fault::{Answer, Fault, Planned, Point};
use crate::run::{Outcome, play};
use crate::scenario::Scenario;

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
    /// The scenario with its fault, as a file that replays it.
    pub file: String,
    /// What went wrong.
    pub wrong: Vec<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Points tried, by group.
    pub tried: BTreeMap<&'static str, usize>,
    /// Those that did not pass.
    pub failures: Vec<Failure>,
}

/// The points of a group in a run that nothing disturbed.
#[must_use]
pub fn points(base: &Outcome, group: Group) -> Vec<Planned> {
    let writes = || base.journal.iter().filter(|entry| entry.write > 0).map(|entry| Point::Write(entry.write));
    let at = |points: &mut dyn Iterator<Item = Point>, faults: &[Fault]| {
        points.flat_map(|at| faults.iter().map(move |fault| Planned { at, fault: *fault })).collect::<Vec<_>>()
    };
    match group {
        Group::Crashes => at(&mut writes(), &[Fault::CrashBefore, Fault::CrashAfter, Fault::LostReply]),
        Group::Answers => {
            let answers = Answer::ALL.map(Fault::Answer);
            let mut all = at(&mut writes(), &answers);
            all.extend(at(&mut reads(base).into_iter(), &answers));
            all
        }
        Group::Stale => at(&mut reads(base).into_iter(), &[Fault::Stale(1), Fault::Stale(2), Fault::Stale(3)]),
        Group::Leaders => at(
            &mut writes(),
            &[
                Fault::Freeze(Duration::from_secs(2)),
                Fault::Freeze(Duration::from_secs(40)),
                Fault::Freeze(Duration::from_secs(3600)),
            ],
        ),
        Group::Outages => {
            let times = [Duration::from_secs(2), Duration::from_secs(600), Duration::from_secs(6 * 3600)];
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

/// One of each kind of read at each place of the release: those that differ only in the time are one.
fn reads(base: &Outcome) -> Vec<Point> {
    let mut seen = BTreeSet::new();
    base.journal
        .iter()
        .filter(|entry| entry.request > 0 && entry.write == 0)
        .filter(|entry| seen.insert((entry.place, entry.verb, entry.plural, entry.name.clone())))
        .map(|entry| Point::Request(entry.request))
        .collect()
}

/// The first request, and one in the middle, of each place of the release.
fn places(base: &Outcome) -> Vec<Point> {
    let mut by_place: Vec<(_, Vec<usize>)> = Vec::new();
    for entry in base.journal.iter().filter(|entry| entry.request > 0) {
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

/// Plays every point of these groups, on as many threads as the machine has cores. `tell` hears of each failure.
///
/// # Errors
/// Where the undisturbed run itself goes wrong.
pub fn every(scenario: &Scenario, groups: &[Group], tell: &(dyn Fn(&Failure) + Sync)) -> Result<Report, Vec<String>> {
    let base = play(scenario, 1000);
    if !base.wrong.is_empty() {
        return Err(base.wrong);
    }
    let mut report = Report::default();
    let mut all = Vec::new();
    for group in groups {
        let points = points(&base, *group);
        report.tried.insert(group.word(), points.len());
        all.extend(points);
    }
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(planned) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(failure) = try_one(scenario, &base, *planned) {
                        tell(&failure);
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    report.failures = failures.into_inner().unwrap();
    Ok(report)
}

fn try_one(scenario: &Scenario, base: &Outcome, planned: Planned) -> Option<Failure> {
    let mut disturbed = scenario.clone();
    disturbed.faults.push(planned);
    let outcome = play(&disturbed, 3);
    let wrong = differences(&disturbed, base, &outcome);
    (!wrong.is_empty()).then(|| Failure { file: disturbed.to_string(), wrong })
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
