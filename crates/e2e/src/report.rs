//! What is written into docs/: the proof's table and the figures, with date, commit and command. It
//! formats; it measures nothing.

use std::fmt::Write as _;

use crate::run::Played;

/// Where and when figures were made.
#[derive(Debug, Clone)]
pub struct Made {
    /// The command that made them.
    pub command: String,
    /// The commit.
    pub commit: String,
    /// The day.
    pub date: String,
    /// The machine, in a few words.
    pub machine: String,
}

impl Made {
    /// As a paragraph.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { command, commit, date, machine } = self;
        format!("Made by `{command}` on {date} at commit {commit}, {machine}.")
    }
}

/// The page of the proof.
#[must_use]
pub fn proof(played: &[Played], made: &Made) -> String {
    let passed = played.iter().filter(|played| played.passed()).count();
    let mut page = String::from("# Proof: every scenario on a real Kubernetes\n\n");
    let _ = writeln!(page, "{}\n", made.text());
    let _ = writeln!(
        page,
        "{passed} of {} promises kept. Each scenario has a gateway, a namespace and a client of its own; the client sends\n\
         at a fixed rate through the gateway, and every answer is counted by version and status. A bad answer is a\n\
         5xx or none at all; in every scenario only the faulty candidate's own may be bad.\n",
        played.len()
    );
    page.push_str("| scenario | promise | result | seconds | bad answers | answers by version and status |\n|---|---|---|---:|---:|---|\n");
    for one in played {
        let result =
            one.failure.as_ref().map_or_else(|| "kept".to_owned(), |(why, _)| format!("**broken**: {}", cell(why)));
        let _ = writeln!(
            page,
            "| {} | {} | {result} | {:.0} | {} | {} |",
            one.scenario.name,
            cell(one.scenario.promise),
            one.took.as_secs_f64(),
            one.client.answers.bad(),
            cell(&one.client.text())
        );
    }
    page
}

fn cell(text: &str) -> String {
    text.lines().next().unwrap_or_default().replace('|', "\\|").chars().take(300).collect()
}
