//! The project's own commands.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod generate;

/// CanaryRelease: build, try and prove it.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the generated files: crds/.
    Gen {
        /// Change nothing; fail when a file is not what would be written.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Gen { check } => generate::run(check),
    }
}
