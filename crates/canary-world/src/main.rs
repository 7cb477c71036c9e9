//! `canary-world play FILE`: plays a scenario and prints what was asked and what came of it.
//! `canary-world every GROUP[,GROUP] FILE...`: every fault of these groups at every point.

use std::io::Write as _;
use std::process::ExitCode;

use canary_world::enumerate::{Failure, Group, every};
use canary_world::run::play;
use canary_world::scenario::Scenario;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            let _unheard = writeln!(std::io::stderr(), "canary-world: {why}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["play", file] => played(&read(file)?),
        ["bench", file] => Ok((0..20).all(|_| play(&read(file).unwrap_or_default(), 3).wrong.is_empty())),
        ["every", groups, files @ ..] => {
            let chosen: Vec<Group> = Group::ALL
                .into_iter()
                .filter(|group| groups.split(',').any(|word| word == group.word() || word == "all"))
                .collect();
            let mut good = true;
            for file in files {
                good &= enumerated(file, &read(file)?, &chosen)?;
            }
            Ok(good)
        }
        _ => Err("say: play FILE, or every GROUP[,GROUP] FILE...".to_owned()),
    }
}

fn read(file: &str) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    text.parse().map_err(|why| format!("{file}: {why}"))
}

fn played(scenario: &Scenario) -> Result<bool, String> {
    let outcome = play(scenario, 10);
    let mut out = std::io::stdout().lock();
    let said = write!(out, "{}", outcome.log()).and_then(|()| {
        for (object, count) in &outcome.writes {
            writeln!(out, "{count:4} writes of {object}")?;
        }
        for line in &outcome.wrong {
            writeln!(out, "WRONG {line}")?;
        }
        writeln!(out, "{} serves {:?} after {:?}", outcome.end, outcome.serves, outcome.took)
    });
    said.map_err(|error| error.to_string())?;
    Ok(outcome.wrong.is_empty())
}

fn enumerated(file: &str, scenario: &Scenario, groups: &[Group]) -> Result<bool, String> {
    let started = std::time::Instant::now();
    let say = |text: &str| {
        let _unheard = writeln!(std::io::stdout().lock(), "{text}");
    };
    let tell = |failure: &Failure| say(&format!("FAILED\n{}  {}\n", failure.file, failure.wrong.join("\n  ")));
    let report =
        every(scenario, groups, &tell).map_err(|wrong| format!("{file}: undisturbed: {}", wrong.join("; ")))?;
    let points: usize = report.tried.values().sum();
    say(&format!(
        "{file}: {points} points ({:?}), {} failed, {:.1} s",
        report.tried,
        report.failures.len(),
        started.elapsed().as_secs_f64()
    ));
    Ok(report.failures.is_empty())
}
