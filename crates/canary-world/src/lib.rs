//! A cluster in memory that drives the operator's own code: its watches, workers, ticks, records and Events, through its
//! own HTTP client. Everything around it is simulated, in virtual time and without chance: one scenario and one list of
//! faults give one run, to the byte.
//!
//! - [`api`], [`server`]: the API server, from a request's path to its answer; [`contract`] holds it against a real one.
//! - [`cluster`]: controllers, pods, gateway, traffic; [`prometheus`]: what is scraped of it.
//! - [`scenario`]: what happens, as text; [`fault`]: what goes wrong, and where; [`run`]: both together.
//! - [`enumerate`]: every fault at every point; [`acts`]: what people do; [`corruption`]: what other users write;
//!   `branches`: what runs have in common is played once; [`walk`]: anything in any order.
//! - [`promises`]: what must hold at every write. It looks at objects and traffic only, never at what the operator
//!   thinks.
//!
//! For tests; no part of the product depends on it. A panic in here is a failed run, so it may index and unwrap.
#![deny(missing_docs)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

pub mod acts;
pub mod admission;
pub mod api;
mod branches;
mod bundle;
pub mod cluster;
pub mod contract;
pub mod corruption;
mod defaults;
pub mod enumerate;
pub mod fault;
mod managed;
mod manifests;
pub mod process;
pub mod prometheus;
pub mod promises;
pub mod refusal;
mod remains;
mod request;
pub mod resources;
pub mod run;
pub mod scenario;
mod selector;
pub mod server;
mod state;
pub mod store;
mod text;
pub mod walk;
pub mod world;

/// Half of what a run does is to make and drop small objects.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
