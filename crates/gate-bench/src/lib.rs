//! Releases in simulation: which of them a gate reverts, and by which stage, ours and plain thresholds judging the very
//! same sampled requests. And how long an evaluation takes.
//!
//! - [`traffic`]: a plan of stages, and the canary's requests in it, tick by tick
//! - [`judge`]: the gates, of which each sees one tick after another
//! - [`play`]: many releases of a grid of traffic and bad share
//! - [`speed`]: the time of an evaluation
//! - [`page`], [`plot`]: what is written into docs/
//!
//! It needs no cluster and decides nothing about a real release: the test is that of `canary-stats`, through the
//! interface that the operator uses. It asserts nothing either; its tests do.
#![deny(missing_docs)]

pub mod judge;
pub mod page;
pub mod play;
pub mod plot;
pub mod speed;
pub mod traffic;
