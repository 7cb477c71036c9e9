//! `completion`: the script for a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::Cli;

/// The script that teaches a shell the command `kubectl-canary`.
#[must_use]
pub fn script(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kubectl-canary", &mut text);
    // For bash a hyphen in the program's name comes out in two ways, and nothing after a subcommand would be completed:
    // https://github.com/clap-rs/clap/issues/6421. Once that is mended there is nothing to replace.
    String::from_utf8_lossy(&text).replace("kubectl__subcmd__canary", "kubectl__canary")
}
