//! `completion`: the script for a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::Cli;

/// The script that teaches a shell the command `kubectl-canary`.
#[must_use]
pub fn script(shell: Shell) -> String {
    let mut command = Cli::command().bin_name("kubectl-canary");
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "kubectl-canary", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
