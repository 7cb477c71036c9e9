//! `canary-world play <file>`: plays a scenario and prints what was asked and what came of it.

use std::io::Write as _;
use std::process::ExitCode;

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
    let ["play", file] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        return Err("say: play FILE".to_owned());
    };
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let scenario: Scenario = text.parse().map_err(|why| format!("{file}: {why}"))?;
    let outcome = play(&scenario, 10);
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
