//! What to do next with a release.
//!
//! [`decide`] takes what was observed and the time, and gives the next status, the writes that bring
//! the cluster there, in order, and when to look again. It is pure and deterministic: no I/O, no
//! async, no clock, no randomness, and this crate cannot reach a Kubernetes client.
//!
//! Live objects stay untyped JSON throughout, so that a field which this build does not know is
//! neither dropped nor mistaken for a change.
#![deny(missing_docs)]

pub mod canary;
pub mod decide;
pub mod effect;
pub mod evidence;
pub mod figures;
pub mod gates;
pub mod hpa;
pub mod job;
pub mod know;
pub mod object;
pub mod observed;
pub mod plan;
pub mod pods;
pub mod record;
pub mod route;
pub mod serving;
pub mod template;
pub mod traffic;

pub use decide::{Decision, Note, decide};
pub use effect::{Effect, Kind};
pub use observed::{Fetched, Observed};
