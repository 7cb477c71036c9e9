//! Releases in virtual time: what would become of a CanaryRelease's releases, on sampled traffic ([`simulate`]) or on
//! the traffic of the past ([`backtest`]).
//!
//! - [`play()`]: one release, from the change of the template to its end
//! - [`traffic`]: what the gates' counters say, as a thing that goes on with time
//! - [`level`], [`sampled`]: healthy traffic and faults, and counts drawn from them
//! - [`past`]: raw counters of the past, counted by pod and tick
//! - [`simulate`], [`backtest`]: many releases, and what became of them
//! - [`chart`], [`svg`]: that, drawn for a terminal and for a page
//!
//! Every decision is [`canary_core::decide()`]'s on readings of [`canary_core::evidence::Accounts`], the very code that
//! the operator runs; nothing of it is stated here again. The cluster around it is as small and as good as one can
//! be: pods are ready at once, routes are taken over at once, and nothing fails but what is asked to. There is no
//! I/O, no clock and no randomness but a seeded generator: equal arguments, equal results.
#![deny(missing_docs)]

pub mod backtest;
pub mod chart;
mod cluster;
mod error;
pub mod level;
pub mod past;
pub mod play;
mod replay;
pub mod sample;
pub mod sampled;
pub mod simulate;
pub mod svg;
pub mod tally;
pub mod traffic;

pub use error::SimError;
pub use play::{End, Place, Run, Start, play};
