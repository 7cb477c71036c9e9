//! Runs that begin alike, played as one until a fault parts them: where one strikes, the process is copied, the copy goes
//! on with the fault and the original without. So what lies before a fault is played once for all faults, and what lies
//! before the second of a pair once for all that have the first. It decides who goes on with which faults; it never decides
//! what a fault does, which is the API server's, nor how a run is judged, which is [`enumerate`](crate::enumerate)'s.
//!
//! A process that is copied has one thread, and waits for its copy. Whoever can't be copied or heard ends at once and not
//! well, so that its original says so for all runs that it stood for.

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::time::Instant;

use fork::{Fork, WEXITSTATUS, WIFEXITED, fork, waitpid};
use serde_json::{Value, json};

use crate::fault::{Fault, Planned, Point, Struck};

/// A run with its faults, among others that begin as it does.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    /// What it is called in what is reported.
    pub id: usize,
    /// Faults that have not struck yet.
    pub faults: Vec<Planned>,
}

/// The runs that a process stands for.
#[derive(Debug)]
pub(crate) struct Branches {
    /// Those of which a fault is still to strike.
    waiting: Vec<Leaf>,
    /// Those of which all faults struck, or can strike no more.
    complete: Vec<usize>,
    /// Faults of them that moved nothing.
    idle: Vec<Idle>,
    /// Until when others begin.
    until: Option<Instant>,
    /// Where it is told what came of them.
    report: PipeWriter,
}

/// A fault that moved nothing: the run goes on as the one without it, and is played with that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// Of which run.
    pub id: usize,
    /// What struck.
    pub struck: Struck,
    /// Whether it was a write that was refused.
    pub refused: bool,
}

/// How the copy of a process ends that stands for such runs: a write was refused, or there was nothing to write.
const REFUSED: i32 = 3;
const NOTHING: i32 = 4;

/// The process of such runs, which are its original's from now on.
pub(crate) fn give_back(refused: bool) -> ! {
    std::process::exit(if refused { REFUSED } else { NOTHING })
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Told {
    /// Which.
    pub id: usize,
    /// What went wrong; `None` where its process ended without telling.
    pub wrong: Option<Vec<String>>,
    /// Writes of other users that were refused.
    pub refused: usize,
}

impl Branches {
    /// These runs, told of in `report`, of which none begins after `until`.
    pub(crate) const fn new(waiting: Vec<Leaf>, until: Option<Instant>, report: PipeWriter) -> Self {
        Self { waiting, complete: Vec::new(), idle: Vec::new(), until, report }
    }

    /// The runs that end with this process: a fault whose point never came is one that did not strike.
    pub(crate) fn spoken_for(&self) -> Vec<usize> {
        self.complete.iter().copied().chain(self.waiting.iter().map(|leaf| leaf.id)).collect()
    }

    /// What struck in them and moved nothing.
    pub(crate) fn idle(&self) -> Vec<Idle> {
        self.idle.clone()
    }

    /// From now on nothing strikes: what was to strike in the release came too late for it.
    pub(crate) fn close(&mut self) {
        self.complete = self.spoken_for();
        self.waiting.clear();
    }

    /// What strikes now, in this process: `struck` says how each is noted. It is called at points that all runs of it come
    /// to, and returns in as many processes as go on from there. A copy in which nothing moves ends by [`give_back`].
    pub(crate) fn part(&mut self, points: &[Point], struck: impl Fn(Fault) -> Struck) -> Vec<Fault> {
        let meets = |planned: &Planned| points.contains(&planned.at);
        let (met, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition::<Vec<_>, _>(|leaf| leaf.faults.iter().any(meets));
        self.waiting = waiting;
        let mut ways: Vec<(Vec<Planned>, Vec<Leaf>)> = Vec::new();
        for mut leaf in met {
            let now: Vec<Planned> = leaf.faults.extract_if(.., |planned| meets(planned)).collect();
            match ways.iter_mut().find(|(faults, _)| *faults == now) {
                Some((_, leaves)) => leaves.push(leaf),
                None => ways.push((now, vec![leaf])),
            }
        }
        for (faults, leaves) in ways {
            if over(self.until) {
                std::process::exit(0);
            }
            match self.copied(&leaves) {
                Copied::Copy => {
                    self.complete.clear();
                    self.waiting.clear();
                    self.stand_for(leaves);
                    return faults.into_iter().map(|planned| planned.fault).collect();
                }
                Copied::Ended => {}
                Copied::GaveBack { refused } => {
                    for (leaf, planned) in leaves.iter().flat_map(|leaf| faults.iter().map(move |fault| (leaf, fault)))
                    {
                        self.idle.push(Idle { id: leaf.id, struck: struck(planned.fault), refused });
                    }
                    self.stand_for(leaves);
                }
            }
        }
        if self.spoken_for().is_empty() {
            std::process::exit(0);
        }
        Vec::new()
    }

    /// These runs are this process's, too.
    fn stand_for(&mut self, leaves: Vec<Leaf>) {
        let (complete, waiting) = leaves.into_iter().partition::<Vec<_>, _>(|leaf| leaf.faults.is_empty());
        self.complete.extend(complete.into_iter().map(|leaf| leaf.id));
        self.waiting.extend(waiting);
    }

    /// Copies this process for these runs; the original comes back when the copy has ended.
    fn copied(&self, leaves: &[Leaf]) -> Copied {
        let child = match fork() {
            Ok(Fork::Child) => return Copied::Copy,
            Ok(Fork::Parent(child)) => child,
            Err(error) => give_up(&format!("this process can't be copied: {error}")),
        };
        match waitpid(child).ok().filter(|status| WIFEXITED(*status)).map(|status| WEXITSTATUS(status)) {
            Some(0) => {}
            Some(REFUSED) => return Copied::GaveBack { refused: true },
            Some(NOTHING) => return Copied::GaveBack { refused: false },
            _ => died(&self.report, leaves.iter().map(|leaf| leaf.id)),
        }
        Copied::Ended
    }
}

/// Who goes on after a process was copied.
enum Copied {
    /// This is the copy.
    Copy,
    /// The original; the copy's runs are told of.
    Ended,
    /// The original; the copy's runs go as its own.
    GaveBack { refused: bool },
}

/// Whether it is too late for another run.
pub(crate) fn over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() > until)
}

/// Tells what came of a run.
pub(crate) fn tell(report: &PipeWriter, id: usize, wrong: &[String], refused: usize) {
    say(report, &json!({"id": id, "wrong": wrong, "refused": refused}));
}

/// A panic would be caught by the operator that is played.
fn give_up(why: &str) -> ! {
    eprintln!("canary-world: {why}");
    std::process::exit(1)
}

/// The process of these runs ended without telling of all.
fn died(report: &PipeWriter, ids: impl IntoIterator<Item = usize>) {
    for id in ids {
        say(report, &json!({"id": id}));
    }
}

fn say(mut report: &PipeWriter, told: &Value) {
    // A line of its own, also after one that a process left unfinished.
    let line = format!("\n{told}\n");
    if let Err(error) = report.write_all(line.as_bytes()) {
        give_up(&format!("nobody hears what came of a run: {error}"));
    }
}

/// Does so many pieces of work in so many copies of this process at once. `work` has the number of a piece and the pipe
/// that its words go to, and is done in a copy of its own, so that what it leaves behind goes with it. `hear` is called with
/// each word as it comes, and where a copy dies with an empty one for all `of` its piece, those that were told of too.
pub(crate) fn spread(
    copies: usize,
    pieces: usize,
    work: impl Fn(usize, &PipeWriter),
    of: impl Fn(usize) -> Vec<usize>,
    hear: &(dyn Fn(Told) + Sync),
) {
    let queue = queue(pieces);
    let mut running: Vec<(i32, PipeReader)> = Vec::new();
    for _ in 0..copies {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let child = copy(|| {
            while let Some(piece) = next(&queue) {
                if !matches!(waitpid(copy(|| work(piece, &writer))), Ok(0)) {
                    died(&writer, of(piece));
                }
            }
        });
        running.push((child, reader));
    }
    std::thread::scope(|scope| {
        let hearing = running.into_iter().map(|(child, reader)| {
            scope.spawn(move || {
                let lines = BufReader::new(reader).lines().map(|line| line.expect("what a copy tells can be read"));
                lines.filter_map(|line| told(&line)).for_each(hear);
                assert!(matches!(waitpid(child), Ok(0)), "a copy that hands out work died");
            })
        });
        // Joined one by one: where the next pieces are given out, none of these threads is still ending.
        for thread in hearing.collect::<Vec<_>>() {
            thread.join().expect("a thread that hears");
        }
    });
}

/// Does `work` in a copy of this process, which has only one thread, and ends it; the copy's id.
fn copy(work: impl FnOnce()) -> i32 {
    match fork().expect("a process can be copied") {
        Fork::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            std::process::exit(i32::from(done.is_err()));
        }
        Fork::Parent(child) => child,
    }
}

/// The numbers of all pieces, for whoever reads next.
fn queue(pieces: usize) -> PipeReader {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let numbers: Vec<u8> = (0..u16::try_from(pieces).expect("few pieces")).flat_map(u16::to_le_bytes).collect();
    assert!(numbers.len() <= 4096, "the smallest pipe takes them all");
    writer.write_all(&numbers).expect("a pipe takes them");
    reader
}

fn next(mut queue: &PipeReader) -> Option<usize> {
    let mut number = [0; 2];
    queue.read_exact(&mut number).ok()?;
    Some(u16::from_le_bytes(number).into())
}

/// What a line tells; nothing where it is not whole.
fn told(line: &str) -> Option<Told> {
    let told: Value = serde_json::from_str(line).ok()?;
    let number = |field: &str| told[field].as_u64().and_then(|number| usize::try_from(number).ok());
    let text = |text: &Value| text.as_str().unwrap_or_default().to_owned();
    let wrong = told["wrong"].as_array().map(|lines| lines.iter().map(text).collect());
    Some(Told { id: number("id")?, wrong, refused: number("refused").unwrap_or_default() })
}
