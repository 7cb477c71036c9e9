//! Points of one course, played together: those whose faults strike where a request arrives share what lies before. It
//! decides which are; it never decides how a run goes: that each goes as it does alone is held against runs alone where
//! somebody asks for it.

use std::collections::BTreeMap;
use std::io::PipeWriter;
use std::time::Instant;

use crate::branches::{Branches, Leaf, over, tell};
use crate::enumerate::{Course, Group, judged};
use crate::fault::Point;
use crate::run::{Outcome, play, play_branches, stands_still};

/// How many runs a bundle has at the most: few enough that the last one does not keep one processor busy for long.
const BUNDLE: usize = 256;

/// Runs of a course that begin alike.
pub(crate) struct Bundle<'a> {
    course: &'a Course,
    /// Whether a process stands still in each of them, or in none.
    freezes: bool,
    leaves: Vec<Leaf>,
}

/// The points of a round, by course and place; the id of each is its place in the round.
pub(crate) fn bundles<'a>(round: &[(&'a Course, Group, usize)]) -> Vec<Bundle<'a>> {
    type Placed<'a> = (usize, &'a Course, Leaf);
    let mut alike: BTreeMap<(*const Course, bool), Vec<Placed<'a>>> = BTreeMap::new();
    for (id, (course, _, number)) in round.iter().enumerate() {
        let faults = course.faults(*number);
        let first = faults.iter().map(|planned| course.position(planned.at)).min().unwrap_or_default();
        let leaves = alike.entry((std::ptr::from_ref(*course), stands_still(&faults))).or_default();
        leaves.push((first, course, Leaf { id, faults }));
    }
    let mut bundles = Vec::new();
    for ((_, freezes), mut leaves) in alike {
        leaves.sort_by_key(|(first, ..)| *first);
        bundles.extend(leaves.chunks(BUNDLE).map(|part| Bundle {
            course: part[0].1,
            freezes,
            leaves: part.iter().map(|(.., leaf)| leaf.clone()).collect(),
        }));
    }
    bundles
}

impl Bundle<'_> {
    /// What its runs are called.
    pub(crate) fn ids(&self) -> Vec<usize> {
        self.leaves.iter().map(|leaf| leaf.id).collect()
    }

    /// Plays them all, each as far as it has nothing in common with another.
    pub(crate) fn play(&self, twice: bool, until: Option<Instant>, report: &PipeWriter) {
        // A watch breaks at a change, whoever made it, not where a request arrives: those are played by themselves.
        let at_a_change = |leaf: &&Leaf| leaf.faults.iter().any(|planned| matches!(planned.at, Point::Change(_)));
        let (alone, together) = self.leaves.iter().partition::<Vec<&Leaf>, _>(at_a_change);
        for leaf in alone.into_iter().take_while(|_| !over(until)) {
            let disturbed = self.course.disturbed(&leaf.faults);
            let outcome = play(&disturbed, 3);
            tell(report, leaf.id, &judged(&disturbed, &self.course.base, &outcome), outcome.refused);
        }
        if together.is_empty() || over(until) {
            return;
        }
        let report_of_copies = report.try_clone().expect("a pipe has many ends");
        let branches = Branches::new(together.into_iter().cloned().collect(), until, report_of_copies);
        let (mut outcome, ended, idle) = play_branches(&self.course.scenario, 3, self.freezes, branches);
        for leaf in self.leaves.iter().filter(|leaf| ended.contains(&leaf.id)) {
            let disturbed = self.course.disturbed(&leaf.faults);
            let (struck, refused) = (outcome.struck.len(), outcome.refused);
            for idle in idle.iter().filter(|idle| idle.id == leaf.id) {
                outcome.struck.push(idle.struck);
                outcome.refused += usize::from(idle.refused);
            }
            let mut wrong = judged(&disturbed, &self.course.base, &outcome);
            if twice {
                wrong.extend(otherwise(&outcome, &play(&disturbed, 3)));
            }
            tell(report, leaf.id, &wrong, outcome.refused);
            outcome.struck.truncate(struck);
            outcome.refused = refused;
        }
    }
}

/// Where a run that was played together with others went otherwise than alone.
fn otherwise(together: &Outcome, alone: &Outcome) -> Option<String> {
    let told = |outcome: &Outcome| {
        let Outcome { end, serves, wrong, state, struck, corrupted, refused, told, .. } = outcome;
        format!("{}{end} {serves:?} {struck:?} {corrupted} {refused} {told}\n{wrong:#?}\n{state:#?}", outcome.log())
    };
    let (one, other) = (told(together), told(alone));
    let lines = one.lines().chain(std::iter::once("its end")).zip(other.lines().chain(std::iter::once("its end")));
    let (one, other) = lines.into_iter().find(|(one, other)| one != other)?;
    Some(format!("together it goes otherwise than alone:\n    {one}\n  and not\n    {other}"))
}
