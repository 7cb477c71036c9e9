//! `kubectl canary`: what a release can know before it runs, where it stands, the commands to it, and
//! what is left of it: notes, report, evidence.
//!
//! One file per command under [`commands`]; each has a part that computes and renders, without I/O, and a part that
//! reads the cluster. It decides nothing about a release: commands are annotations, and the operator answers them.
#![deny(missing_docs)]

pub mod args;
pub mod clean;
pub mod cluster;
pub mod commands;
pub mod error;
pub mod manifest;
pub mod output;
pub mod place;
pub mod records;
pub mod release;
pub mod signature;
pub mod store;
pub mod supply;
pub mod table;
pub mod trend;

pub use args::Cli;
pub use error::{Error, Exit};

/// Runs a command line.
///
/// # Errors
/// Where it could not be done; the error says why and what to do.
pub fn run(cli: Cli) -> Result<Exit, Error> {
    let output = output::Output::new(cli.global.output.format());
    commands::run(cli, &output)
}
