//! `kubectl-canary`, which kubectl calls for `kubectl canary`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use kubectl_canary::{Cli, Exit, clean};

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(said) => {
            let asked = matches!(said.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let printed = said.print();
            // A closed pipe is no wrong usage.
            return if asked || printed.is_err() { Exit::Done } else { Exit::Usage }.into();
        }
    };
    match kubectl_canary::run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // Where standard error is closed the code alone says it.
            let _unheard = writeln!(std::io::stderr(), "kubectl canary: {}", clean::lines(&error.to_string()));
            error.exit().into()
        }
    }
}
