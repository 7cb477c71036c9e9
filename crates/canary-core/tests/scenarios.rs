//! Whole releases, in a small cluster in memory: each test is a promise kept. The promises that hold
//! at every write are checked by the world itself, in every test.
// A test that overflows or indexes wrongly panics, as it should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod world;

#[path = "scenarios/arming.rs"]
mod arming;
#[path = "scenarios/asked.rs"]
mod asked;
#[path = "scenarios/beside.rs"]
mod beside;
#[path = "scenarios/beside_lost.rs"]
mod beside_lost;
#[path = "scenarios/breaches.rs"]
mod breaches;
#[path = "scenarios/canary_pods.rs"]
mod canary_pods;
#[path = "scenarios/changes.rs"]
mod changes;
#[path = "scenarios/commands.rs"]
mod commands;
#[path = "scenarios/crashes.rs"]
mod crashes;
#[path = "scenarios/going_back.rs"]
mod going_back;
#[path = "scenarios/good.rs"]
mod good;
#[path = "scenarios/jobs.rs"]
mod jobs;
#[path = "scenarios/jobs_awaited.rs"]
mod jobs_awaited;
#[path = "scenarios/kept.rs"]
mod kept;
#[path = "scenarios/meddling.rs"]
mod meddling;
#[path = "scenarios/odd.rs"]
mod odd;
#[path = "scenarios/pods.rs"]
mod pods;
#[path = "scenarios/promoting.rs"]
mod promoting;
#[path = "scenarios/put_back.rs"]
mod put_back;
#[path = "scenarios/reasons.rs"]
mod reasons;
#[path = "scenarios/records.rs"]
mod records;
#[path = "scenarios/stages.rs"]
mod stages;
#[path = "scenarios/surroundings.rs"]
mod surroundings;
#[path = "scenarios/taken_down.rs"]
mod taken_down;
#[path = "scenarios/ticks.rs"]
mod ticks;
#[path = "scenarios/told.rs"]
mod told;
#[path = "scenarios/weighing.rs"]
mod weighing;
