//! Runs that begin alike, played as one until a fault parts them: where one strikes, the process is copied, the copy goes
//! on with the fault and the original without. So what lies before a fault is played once for all faults, and what lies
//! before the second of a pair once for all that have the first. It decides who goes on with which faults; what a fault
//! does is the API server's, how a run is judged [`enumerate`](crate::enumerate)'s.
//!
//! A process that is copied has one thread, and waits for its copy: it never has two that work.

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::time::Instant;

use fork::{Fork, fork, waitpid};
use serde_json::{Value, json};

use crate::fault::{Fault, Planned, Point};

/// A run with its faults, among others that begin as it does.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    /// What it is called in what is reported.
    pub id: usize,
    /// Faults that have not struck yet.
    pub faults: Vec<Planned>,
}

/// What of the runs that begin alike is still ahead.
#[derive(Debug)]
pub struct Branches {
    waiting: Vec<Leaf>,
    whole: Vec<usize>,
    struck: Vec<Planned>,
    until: Option<Instant>,
    report: PipeWriter,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Word {
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
        Self { waiting, whole: Vec::new(), struck: Vec::new(), until, report }
    }

    /// Faults that struck in this process.
    pub(crate) fn struck(&self) -> &[Planned] {
        &self.struck
    }

    /// The runs that this process speaks for at its end: a fault whose point never came is one that did not strike.
    pub(crate) fn own(&self) -> Vec<usize> {
        self.whole.iter().copied().chain(self.waiting.iter().map(|leaf| leaf.id)).collect()
    }

    /// From now on nothing strikes: what was to strike in the release came too late for it.
    pub(crate) fn close(&mut self) {
        self.whole = self.own();
        self.waiting.clear();
    }

    /// Tells what came of one of them.
    pub(crate) fn tell(&self, id: usize, wrong: &[String], refused: usize) {
        say(&self.report, &json!({"id": id, "wrong": wrong, "refused": refused}));
    }

    /// What strikes now, in this process. It is called at points that all runs of it come to, and returns in as many
    /// processes as go on from there.
    pub(crate) fn part(&mut self, points: &[Point]) -> Vec<Fault> {
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
            self.end_if(self.until.is_some_and(|until| Instant::now() > until));
            if self.copied(&leaves) {
                let (whole, waiting) = leaves.into_iter().partition::<Vec<_>, _>(|leaf| leaf.faults.is_empty());
                self.whole = whole.into_iter().map(|leaf| leaf.id).collect();
                self.waiting = waiting;
                self.struck.extend(&faults);
                return faults.into_iter().map(|planned| planned.fault).collect();
            }
        }
        self.end_if(self.waiting.is_empty() && self.whole.is_empty());
        Vec::new()
    }

    /// Whether this is the copy; the original comes back when that has ended.
    fn copied(&mut self, leaves: &[Leaf]) -> bool {
        match fork().expect("a process can be copied") {
            Fork::Child => true,
            Fork::Parent(child) => {
                if !matches!(waitpid(child), Ok(0)) {
                    died(&self.report, leaves.iter().map(|leaf| leaf.id));
                }
                false
            }
        }
    }

    /// Nobody asks how this process goes on.
    fn end_if(&self, unasked: bool) {
        if unasked {
            std::process::exit(0);
        }
    }
}

/// The process of these runs ended without telling of all.
fn died(report: &PipeWriter, ids: impl IntoIterator<Item = usize>) {
    for id in ids {
        say(report, &json!({"id": id}));
    }
}

fn say(mut report: &PipeWriter, word: &Value) {
    let line = format!("{word}\n");
    report.write_all(line.as_bytes()).expect("whoever began the runs hears of them");
}

/// Does so many pieces of work in so many copies of this process at once. `work` has the number of a piece and the pipe
/// that its words go to, and is done in a copy of its own, so that what it leaves behind goes with it. `hear` is called with
/// each word as it comes, and where a copy dies with an empty one for all `of` its piece, those that were told of too.
pub(crate) fn spread(
    copies: usize,
    pieces: usize,
    work: impl Fn(usize, &PipeWriter),
    of: impl Fn(usize) -> Vec<usize>,
    hear: &(dyn Fn(Word) + Sync),
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
        for (child, reader) in running {
            scope.spawn(move || {
                for line in BufReader::new(reader).lines() {
                    hear(word(&line.expect("what a copy tells can be read")));
                }
                assert!(matches!(waitpid(child), Ok(0)), "a copy that hands out work died");
            });
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
    assert!(numbers.len() <= 1 << 16, "they fit in a pipe");
    writer.write_all(&numbers).expect("a pipe takes them");
    reader
}

fn next(mut queue: &PipeReader) -> Option<usize> {
    let mut number = [0; 2];
    queue.read_exact(&mut number).ok()?;
    Some(u16::from_le_bytes(number).into())
}

fn word(line: &str) -> Word {
    let told: Value = serde_json::from_str(line).expect("a copy tells in whole lines");
    let number = |field: &str| told[field].as_u64().map_or(0, |number| number as usize);
    let text = |text: &Value| text.as_str().unwrap_or_default().to_owned();
    let wrong = told["wrong"].as_array().map(|lines| lines.iter().map(text).collect());
    Word { id: number("id"), wrong, refused: number("refused") }
}
