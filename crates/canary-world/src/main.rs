//! `canary-world play FILE`: plays a scenario and prints what was asked and what came of it.
//! `canary-world every [--thin] [--seconds N] [--seed N] GROUP[,GROUP] FILE...`: these groups of faults at every point of
//! these scenarios, or at as many as the time allows, in the order that the seed gives.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use canary_world::enumerate::{Breadth, Course, Failure, Group, every};
use canary_world::run::play;
use canary_world::scenario::Scenario;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            let _unheard = writeln!(std::io::stderr(), "canary-world: {why}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<bool, String> {
    match arguments.split_first().map(|(word, rest)| (word.as_str(), rest)) {
        Some(("play", [file])) => played(&read(file)?),
        Some(("every", rest)) => enumerated(rest),
        _ => Err("say: play FILE, or every [--thin] [--seconds N] [--seed N] GROUP[,GROUP] FILE...".to_owned()),
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

fn enumerated(arguments: &[String]) -> Result<bool, String> {
    let started = Instant::now();
    let (mut breadth, mut until, mut seed) = (Breadth::Every, None, 1);
    let mut words = arguments.iter().map(String::as_str).peekable();
    while let Some(option) = words.next_if(|word| word.starts_with("--")) {
        let mut number = || words.next().and_then(|word| word.parse().ok()).ok_or_else(|| format!("{option} N"));
        match option {
            "--thin" => breadth = Breadth::Thin,
            "--seconds" => until = started.checked_add(Duration::from_secs(number()?)),
            "--seed" => seed = number()?,
            other => return Err(format!("unknown option {other}")),
        }
    }
    let wanted = words.next().ok_or("which groups?")?;
    let chosen = |group: &Group| wanted.split(',').any(|word| word == group.word() || word == "all");
    let groups: Vec<Group> = Group::ALL.into_iter().filter(chosen).collect();
    let say = |text: &str| {
        let _unheard = writeln!(std::io::stdout().lock(), "{text}");
    };
    let mut courses = Vec::new();
    for file in words {
        let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
        let course = Course::new(&name, read(file)?, &groups, breadth)
            .map_err(|wrong| format!("{file}: undisturbed: {}", wrong.join("; ")))?;
        courses.push(course);
    }
    let tell = |failure: &Failure| {
        say(&format!("FAILED {}\n{}  {}\n", failure.name, failure.file, failure.wrong.join("\n  ")));
    };
    let report = every(&courses, seed, until, &tell);
    let tried: usize = report.tried.values().sum();
    let by_group: Vec<String> = report.tried.iter().map(|(group, count)| format!("{count} {group}")).collect();
    say(&format!(
        "{} scenarios: {tried} of {} points tried ({}; seed {seed}), {} failed, {:.0} s",
        courses.len(),
        report.all,
        by_group.join(", "),
        report.failures.len(),
        started.elapsed().as_secs_f64()
    ));
    Ok(tried > 0 && report.failures.is_empty())
}
