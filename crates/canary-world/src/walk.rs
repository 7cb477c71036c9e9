//! Random walks: people, Git, an autoscaler, the cluster and faults, in an order that a seed gives. What comes of it is
//! not known beforehand; every promise holds at every write all the same, and in the end the release rests.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::json;

use crate::cluster::Fate;
use crate::enumerate::{Failure, News};
use crate::fault::{Answer, Fault};
use crate::run::play;
use crate::scenario::{Action, Line, Moment, Scenario, Trait, When};

/// Actions of one walk.
pub const LENGTH: usize = 40;
/// Pods that the target is ever scaled to.
const MOST_PODS: i64 = 6;
/// Lines at a walk's end that bring back what is gone.
const LAST: usize = 10;
/// The versions that somebody applies.
const VERSIONS: std::ops::Range<u8> = 1..6;
/// Runs that may be spent on making a walk shorter.
const SHRINKING: usize = 80;

/// What came of many walks.
#[derive(Debug, Default)]
pub struct Report {
    /// Walks that were walked.
    pub walks: usize,
    /// Their actions.
    pub actions: usize,
    /// The number of the first that was not walked: `skip` of another call that goes on.
    pub next: usize,
    /// Those in which something went wrong, made as short as they could be.
    pub failures: Vec<Failure>,
}

/// Walks until there were so many actions or `until` has come, on as many threads as the machine has cores. Of the walks
/// the first `skip` are left out. `tell` hears how it goes, in walks.
#[must_use]
pub fn walks(
    seed: u64,
    actions: usize,
    skip: usize,
    until: Option<Instant>,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Report {
    let next = AtomicUsize::new(skip);
    let report = Mutex::new(Report::default());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let many = actions.div_ceil(LENGTH);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while until.is_none_or(|until| Instant::now() < until) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= many {
                        break;
                    }
                    let (scenario, wrong) = walked(seed.wrapping_mul(1_000_000_007).wrapping_add(number as u64));
                    let mut report = report.lock().unwrap();
                    report.walks += 1;
                    report.actions += LENGTH;
                    if !wrong.is_empty() {
                        let failure = Failure { name: format!("walk {number}"), file: scenario.to_string(), wrong };
                        tell(News::Failed(&failure));
                        report.failures.push(failure);
                    }
                    let all = many.saturating_sub(skip);
                    tell(News::Tried { tried: report.walks, all, failed: report.failures.len() });
                }
            });
        }
    });
    // Whatever was begun was walked to its end.
    Report { next: next.into_inner().min(many), ..report.into_inner().unwrap() }
}

/// One walk and what went wrong in it, if anything made as short as it could be.
fn walked(seed: u64) -> (Scenario, Vec<String>) {
    let mut scenario = walk(seed);
    let mut wrong = play(&scenario, 3).wrong;
    let kind = |wrong: &[String]| wrong.first().map(|line| line.chars().take(3).collect::<String>());
    let (mut spent, mut chunk) = (0, scenario.script.len() / 2);
    while !wrong.is_empty() && chunk > 0 {
        let mut start = 1;
        while start + LAST < scenario.script.len() && spent < SHRINKING {
            let mut shorter = scenario.clone();
            let end = (start + chunk).min(shorter.script.len() - LAST);
            // What is left happens when it did.
            let passed: Duration = shorter.script.drain(start..end).map(|line| line.when.after).sum();
            if let Some(line) = shorter.script.get_mut(start) {
                line.when.after += passed;
            }
            let outcome = play(&shorter, 3);
            spent += 1;
            if kind(&outcome.wrong) == kind(&wrong) {
                (scenario, wrong) = (shorter, outcome.wrong);
            } else {
                start += chunk;
            }
        }
        chunk /= 2;
    }
    (scenario, wrong)
}

/// The walk of a seed.
#[must_use]
pub fn walk(seed: u64) -> Scenario {
    let mut random = Rng::with_seed(seed);
    let mut scenario = Scenario {
        about: vec![format!("The walk of seed {seed}.")],
        outage: true,
        refusals: true,
        ..Scenario::default()
    };
    let spec = json!({
        "stages": [{"weight": "20%", "duration": "10s"}, {"weight": "100%", "duration": "10s"}],
        "baseline": {"duration": "5s"}, "drain": "4s", "readyDeadline": "20s",
        "soak": if random.bool() { "0s" } else { "20s" },
        "onRevert": if random.bool() { "Restore" } else { "Hold" },
    });
    scenario.spec = spec.as_object().cloned().unwrap_or_default();
    scenario
        .script
        .push(Line { when: When { moment: Moment::Armed, after: Duration::ZERO }, action: push(&mut random) });
    for _ in 0..LENGTH {
        let after = match random.u8(0..10) {
            0..4 => random.u64(0..6),
            4..8 => random.u64(6..25),
            8 => random.u64(25..90),
            _ => random.u64(90..400),
        };
        line(&mut scenario, after, action(&mut random));
    }
    // What is gone comes back, what crashed is mended, the target has all its pods again, and the release may come to its
    // end.
    let web = || "web".to_owned();
    line(&mut scenario, 5, Action::Gateway(true));
    line(&mut scenario, 0, Action::Restore("Service".to_owned(), web()));
    line(&mut scenario, 0, Action::Restore("HTTPRoute".to_owned(), web()));
    for version in VERSIONS {
        line(&mut scenario, 0, Action::Version(format!("v{version}"), Trait::Fate(Fate::Ready)));
    }
    line(&mut scenario, 0, Action::Load(MOST_PODS));
    line(&mut scenario, 0, Action::Scale(MOST_PODS));
    scenario
}

fn line(scenario: &mut Scenario, after: u64, action: Action) {
    scenario.script.push(Line { when: When { moment: Moment::Then, after: Duration::from_secs(after) }, action });
}

fn version(random: &mut Rng) -> String {
    format!("v{}", random.u8(VERSIONS))
}

fn push(random: &mut Rng) -> Action {
    Action::Push(version(random))
}

fn action(random: &mut Rng) -> Action {
    let web = || "web".to_owned();
    match random.u8(0..100) {
        0..18 => push(random),
        18..40 => command(random),
        40..50 => Action::Version(version(random), nature(random)),
        50..54 => Action::Scale(random.i64(1..=MOST_PODS)),
        54..57 => Action::Autoscaler(2, MOST_PODS),
        57..61 => Action::Load(random.i64(1..=MOST_PODS)),
        61..63 => Action::Delete(one(random, &["Service", "HTTPRoute"]), web()),
        63..68 => Action::Restore(one(random, &["Service", "HTTPRoute"]), web()),
        68..70 => Action::Gateway(false),
        70..73 => Action::Gateway(true),
        73..76 => Action::Restart,
        76..80 => Action::Sync("HTTPRoute".to_owned()),
        80..83 => Action::Sync(version(random)),
        83..86 => {
            let weight = random.u16(0..1001);
            let path = "/spec/rules/1/backendRefs/0/weight";
            let operations = json!([{"op": "replace", "path": path, "value": weight}]);
            Action::Patch("jane".to_owned(), "HTTPRoute".to_owned(), web(), operations)
        }
        _ => Action::Strike(fault(random)),
    }
}

fn command(random: &mut Rng) -> Action {
    let verb = one(random, &["abort", "pause", "pause", "resume", "resume", "approve", "promote", "retry", "retry"]);
    let stage = if verb == "approve" { format!(" {}", random.u8(1..3)) } else { String::new() };
    Action::Command(format!("{verb}{stage}"))
}

fn nature(random: &mut Rng) -> Trait {
    match random.u8(0..8) {
        0..2 => Trait::Errors(0),
        2..4 => Trait::Errors(500),
        4 => Trait::Errors(30),
        5 => Trait::Fate(Fate::CrashLoop),
        6 => Trait::Gauge(if random.bool() { 90 } else { 1 }),
        _ => Trait::Fate(Fate::Ready),
    }
}

fn fault(random: &mut Rng) -> Fault {
    let time = Duration::from_secs([2, 40, 600][random.usize(0..3)]);
    match random.u8(0..10) {
        0 => Fault::CrashBefore,
        1 => Fault::CrashAfter,
        2 => Fault::LostReply,
        // A 404 for what is there can't be told from the truth.
        3..6 => {
            let answers = [Answer::Conflict, Answer::TooMany, Answer::Internal, Answer::Timeout, Answer::Refused];
            Fault::Answer(answers[random.usize(0..answers.len())])
        }
        6 => Fault::Freeze(Duration::from_secs([2, 40][random.usize(0..2)])),
        7 => Fault::MetricsDown(time),
        8 => Fault::ServerDown(time),
        _ => Fault::ClockJumps([3600, -3600, -90][random.usize(0..3)]),
    }
}

fn one(random: &mut Rng, words: &[&str]) -> String {
    words[random.usize(0..words.len())].to_owned()
}
