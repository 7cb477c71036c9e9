//! Proves the admission policies in `deploy/` against a real API server of Kubernetes 1.36 or later, one
//! row at a time: who writes, what, and what must come of it. Every row has objects of its own, speaks
//! through `kubectl` as a person or a tool would (other users by impersonation) and leaves nothing
//! behind but its namespace, which goes at the end. It never starts a pod: all Deployments want zero.
//!
//! An operator that runs in the same cluster would take the commands that rows give: run this before
//! it is installed, or scaled to zero, or on an API server of its own ([`server::ApiServer`]).

pub mod server;

mod case;
mod kubectl;
mod rows;
mod world;

use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::kubectl::Kubectl;
use crate::rows::Row;
use crate::world::World;

/// What kept the rows from being run at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started or its files not be written.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A fixture could not be put in place.
    #[error("prepare the cluster for the policy rows: {0}")]
    Prepare(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}

/// How one row ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The promise the row keeps.
    pub promise: &'static str,
    /// Who writes.
    pub who: &'static str,
    /// What is written.
    pub what: &'static str,
    /// What must come of it.
    pub expected: &'static str,
    /// What was seen instead, if anything.
    pub seen: Result<(), String>,
    /// How long it took.
    pub took: Duration,
}

/// How all rows ended, in order.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// One a row.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Whether every row ended as it must.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.outcomes.is_empty() && self.outcomes.iter().all(|outcome| outcome.seen.is_ok())
    }

    /// The rows that did not.
    pub fn failures(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.seen.is_err())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Outcome { promise, who, what, expected, seen, .. } in &self.outcomes {
            let mark = if seen.is_ok() { "ok  " } else { "FAIL" };
            writeln!(f, "{mark} {promise}: {who}: {what} -> {expected}")?;
            if let Err(seen) = seen {
                writeln!(f, "       seen: {seen}")?;
            }
        }
        let failed = self.failures().count();
        write!(f, "{} rows, {failed} failed", self.outcomes.len())
    }
}

/// Runs every row that leaves the cluster's policies alone.
///
/// Installs what is missing: the CRDs, and the policies and roles of `deploy/`, as they stand in this
/// repository. `kubeconfig` must be a cluster administrator's.
///
/// # Errors
/// When the cluster cannot be prepared; a row that fails is in the report.
pub fn run(kubeconfig: &Path, kubectl: &Path) -> Result<Report, Error> {
    run_with(kubeconfig, kubectl, false)
}

/// Runs every row, and then, one by one, those that take policies or the CRD away and put them back: only
/// for a cluster that nobody else uses.
///
/// # Errors
/// As [`run`].
pub fn run_alone(kubeconfig: &Path, kubectl: &Path) -> Result<Report, Error> {
    run_with(kubeconfig, kubectl, true)
}

fn run_with(kubeconfig: &Path, kubectl: &Path, alone: bool) -> Result<Report, Error> {
    let world = World::prepare(Kubectl::new(kubeconfig, kubectl)?)?;
    let mut report = Report { outcomes: side_by_side(&world, &rows::all()) };
    if alone {
        for (number, row) in rows::disruptive().iter().enumerate() {
            report.outcomes.push(outcome(&world, row, number.saturating_add(900)));
        }
    }
    world.remove();
    Ok(report)
}

/// Rows are independent and wait mostly for the API server: a few at a time.
fn side_by_side(world: &World, rows: &[Row]) -> Vec<Outcome> {
    const WORKERS: usize = 4;
    let queue = Mutex::new(rows.iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut rows| rows.next());
                    let Some((number, row)) = next else { break };
                    let outcome = outcome(world, row, number);
                    if let Ok(mut done) = done.lock() {
                        done.push((number, outcome));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

fn outcome(world: &World, row: &Row, number: usize) -> Outcome {
    let started = Instant::now();
    let seen = (row.check)(&Case::new(world, number));
    let Row { promise, who, what, expected, .. } = *row;
    Outcome { promise, who, what, expected, seen, took: started.elapsed() }
}
