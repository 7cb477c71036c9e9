//! Sequential tests on counts: what a gate may conclude from n requests of which k were bad, at any tick, without more
//! false alarms than its budget. Every test is an e-process ([`Process`]): while the limit holds, the chance of it
//! ever reaching 1/α is at most α, so looking at every tick costs nothing.
//!
//! - [`AboveLimit`], [`BelowLimit`]: a share of bad requests (error rate, latency), and its mirror, "proved good"
//! - [`EventRate`]: events per minute; [`Historical`]: against a baseline captured before
//! - [`Relative`]: canary against the stable side; [`Routing`]: requests against the configured weight
//! - [`ValueGate`]: a number outside bounds for some ticks in a row
//! - [`Starts`]: the mixture over starts that all of them run in, so that a late fault is called as fast as an early one
//! - [`Alpha`], [`Dispersion`], [`MeasuredDispersion`], [`Evidence`], [`Verdict`]: budget, bursts, and the verdict
//! - [`ChangeDetector`]: the watch after a promotion
//! - [`know`]: what a stage can know at all
//! - [`Buckets`], [`Batches`]: figures to be read, with intervals; they decide nothing
//!
//! ```
//! use canary_stats::{AboveLimit, Alpha, ShareCounts, Starts};
//!
//! # fn main() -> Result<(), canary_stats::StatsError> {
//! let test = AboveLimit::new(0.01)?; // at most 1 % bad
//! let alpha = Alpha::RELEASE.split(6, 5)?; // six gates, five stages
//! let mut starts = Starts::new(300); // five minutes of ticks of a second
//! for tick in 0..200 {
//!     starts.push(tick, &ShareCounts::new(10.0, 0.0)?);
//! }
//! assert!(starts.log_e(&test) < 0.0);
//! starts.push(200, &ShareCounts::new(10.0, 5.0)?); // a late fault,
//! starts.push(201, &ShareCounts::new(10.0, 5.0)?); // called in two seconds
//! assert!(starts.log_e(&test) >= alpha.ln_threshold());
//! # Ok(())
//! # }
//! ```
//!
//! It never does I/O, reads a clock or draws a random number, and never takes a number that makes no sense for
//! evidence: those are a [`StatsError`] at the door.
#![deny(missing_docs)]

mod binomial;
mod budget;
mod counts;
mod dispersion;
mod error;
mod estimate;
pub mod interval;
pub mod know;
mod mixture;
mod poisson;
mod process;
mod relative;
mod soak;
pub mod special;
mod value;
mod verdict;

pub use binomial::{AboveLimit, BelowLimit, Prior};
pub use budget::Alpha;
pub use counts::{EventCounts, ShareCounts, Tally};
pub use dispersion::MeasuredDispersion;
pub use error::StatsError;
pub use estimate::{Batches, Buckets, Estimate};
pub use mixture::Starts;
pub use poisson::{EventRate, Historical, upper_mean};
pub use process::{Dispersion, Process};
pub use relative::{Misrouted, PairedCounts, Relative, Routing};
pub use soak::ChangeDetector;
pub use value::{Consecutive, ValueGate};
pub use verdict::{Evidence, LEAST_BAD, Verdict, WholeService, whole_service};
