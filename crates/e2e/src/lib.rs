//! Releases played from end to end on a real Kubernetes: shops under a CanaryRelease, changed as people
//! and tools change them, with a client at a fixed rate through a real gateway that counts every answer
//! by version and status. The same scenes serve the demo, the tests, the proof and the figures.
//!
//! A process that plays in a lab must run inside the lab's network (`Lab::command`).

#![deny(missing_docs)]
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod examples;
pub mod faults;
pub mod history;
pub mod live;
pub mod report;
pub mod rights;
pub mod run;
pub mod scenarios;
pub mod scene;
pub mod setup;
pub mod soak;
pub mod world;
