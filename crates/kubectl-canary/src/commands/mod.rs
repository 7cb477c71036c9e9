//! The commands, one file each.

pub mod completion;
pub mod plan;

use crate::args::{Cli, Command};
use crate::output::Output;
use crate::{Error, Exit};

/// Runs the command of a command line.
///
/// # Errors
/// Where it could not be done.
pub fn run(cli: Cli, output: &Output) -> Result<Exit, Error> {
    let global = cli.global;
    match cli.command {
        Command::Plan(what) => plan::run(&what, global.namespace.as_deref(), output),
        Command::Completion { shell } => output.write(&completion::script(shell)).map(|()| Exit::Done),
        _ => Err(Error::Usage("this command is not there yet".to_owned())),
    }
}
