//! The operator around the tick: what it is configured with, what wakes it, who may run, how often,
//! and what it says about itself.
//!
//! One release is driven by its *tick* (observe, decide, apply, record). This crate gives every
//! CanaryRelease one actor that runs its ticks one after another ([`workers`]), wakes them from
//! watches that do nothing else ([`watches`]), runs them only while this replica leads ([`lease`]),
//! and reports on all of it ([`http`], [`metrics`], [`telemetry`], [`events`]). No module here decides
//! anything about a release, and none is needed for safety: that rests on the compare-and-swap of
//! the status inside the tick.

pub mod client;
pub mod clock;
pub mod config;
pub mod events;
pub mod health;
pub mod http;
pub mod lease;
pub mod metrics;
pub mod operator;
pub mod telemetry;
pub mod tick;
pub mod watches;
pub mod workers;
