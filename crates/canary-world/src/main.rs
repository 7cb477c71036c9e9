//! `canary-world play FILE`: plays a scenario, prints what was asked and what came of it, and with faults holds it
//! against the run without.
//! `canary-world every [--thin] [--twice] [--seconds N] [--skip N] [--points N] [--seed N] [--resyncs N] GROUP[,GROUP] FILE...`:
//! these groups of faults at every point of these scenarios, or at as many as the time allows, in the order that the seed
//! gives, the groups in turn. With `--skip` a long one is played in parts. What many have in common is played once; with
//! `--twice` each is played by itself too, and must go the same way.
//! `canary-world walk [--seed N] [--actions N] [--skip N] [--seconds N]`: random walks of 40 actions each, 10,000 actions in
//! all or as many as the time allows; each that fails is printed as a scenario file, as short as it could be made. `--skip`
//! leaves out so many of the first walks.
//! `canary-world contract KUBECONFIG NAMESPACE`: whether a real API server answers as this world's does; the definitions of
//! crds/ and the namespace, empty, must be there, and no policy.
//! `canary-world policies KUBECONFIG NAMESPACE`: the same where the policies of deploy/ are installed and act, of what they
//! make of writes; Gateway API's HTTPRoute must be there, too.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use canary_world::contract::{differences, differences_in_policy, policies};
use canary_world::enumerate::{Breadth, Choice, Course, Failure, Group, News, Tally, every, held_against};
use canary_world::run::play;
use canary_world::scenario::Scenario;
use canary_world::walk::{LENGTH, walks};

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
        Some(("walk", rest)) => walked(rest),
        Some((what @ ("contract" | "policies"), [kubeconfig, namespace])) => contract(what, kubeconfig, namespace),
        _ => Err("say: contract KUBECONFIG NAMESPACE, policies KUBECONFIG NAMESPACE, play FILE, walk [--seed N] [--actions N] [--skip N] [--seconds N], or every [--thin] [--twice] [--seconds N] [--skip N] [--points N] [--seed N] [--resyncs N] GROUP[,GROUP] FILE...".to_owned()),
    }
}

fn read(file: &str) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    text.parse().map_err(|why| format!("{file}: {why}"))
}

fn played(scenario: &Scenario) -> Result<bool, String> {
    let outcome = play(scenario, 10);
    // With faults it is held against the run without.
    let wrong = if scenario.faults.is_empty() { outcome.wrong.clone() } else { held_against(scenario, &outcome) };
    let mut out = std::io::stdout().lock();
    let said = write!(out, "{}", outcome.log()).and_then(|()| {
        for (object, count) in &outcome.writes {
            writeln!(out, "{count:4} writes of {object}")?;
        }
        for line in &wrong {
            writeln!(out, "WRONG {line}")?;
        }
        writeln!(out, "{} serves {:?} after {:?}", outcome.end, outcome.serves, outcome.took)
    });
    said.map_err(|error| error.to_string())?;
    Ok(wrong.is_empty())
}

fn enumerated(arguments: &[String]) -> Result<bool, String> {
    let started = Instant::now();
    let (mut breadth, mut resyncs) = (Breadth::Every, None);
    let mut choice = Choice { seed: 1, skip: 0, most: usize::MAX, until: None, twice: false };
    let mut words = arguments.iter().map(String::as_str).peekable();
    while let Some(option) = words.next_if(|word| word.starts_with("--")) {
        if option == "--twice" {
            choice.twice = true;
            continue;
        }
        let mut number = || words.next().and_then(|word| word.parse().ok()).ok_or_else(|| format!("{option} N"));
        match option {
            "--thin" => breadth = Breadth::Thin,
            "--seconds" => choice.until = started.checked_add(Duration::from_secs(number()?)),
            "--skip" => choice.skip = usize::try_from(number()?).unwrap_or(usize::MAX),
            "--points" => choice.most = usize::try_from(number()?).unwrap_or(usize::MAX),
            "--seed" => choice.seed = number()?,
            "--resyncs" => resyncs = usize::try_from(number()?).ok(),
            other => return Err(format!("unknown option {other}")),
        }
    }
    let wanted = words.next().ok_or("which groups?")?;
    let resyncs = resyncs.unwrap_or(if breadth == Breadth::Every { 1000 } else { 10 });
    let known = |word: &&str| *word == "all" || Group::ALL.iter().any(|group| group.word() == *word);
    if let Some(unknown) = wanted.split(',').find(|word| !known(word)) {
        let words: Vec<&str> = Group::ALL.iter().map(|group| group.word()).collect();
        return Err(format!(
            "no group of faults is called {unknown:?}; say one or more of {}, or all",
            words.join(", ")
        ));
    }
    let chosen = |group: &Group| wanted.split(',').any(|word| word == group.word() || word == "all");
    let groups: Vec<Group> = Group::ALL.into_iter().filter(chosen).collect();
    let course = |file: &str| -> Result<Course, String> {
        let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
        Course::new(&name, read(file)?, &groups, breadth, resyncs)
            .map_err(|wrong| format!("{file}: undisturbed: {}", wrong.join("; ")))
    };
    // Two at a time: each has a thousand re-syncs.
    let files: Vec<&str> = words.collect();
    let (one, other) = files.split_at(files.len() / 2);
    let of = |files: &[&str]| files.iter().map(|file| course(file)).collect::<Result<Vec<_>, _>>();
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| of(one));
        let other = of(other);
        (one.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())), other)
    });
    let mut courses = one?;
    courses.extend(other?);
    let progress = Progress::of("points tried");
    let report = every(&courses, choice, &|news| progress.tell(news));
    let mut sum = Tally::default();
    for (group, Tally { all, tried, failed, refused }) in &report.groups {
        let refused = if *refused > 0 { format!(", {refused} writes refused") } else { String::new() };
        say(&format!("{}: {tried} of {all} points tried, {failed} failed{refused}", group.word()));
        sum.all = sum.all.saturating_add(*all);
        sum.tried = sum.tried.saturating_add(*tried);
        sum.failed = sum.failed.saturating_add(*failed);
    }
    let (scenarios, seconds) = (courses.len(), started.elapsed().as_secs());
    let Tally { all, tried, failed, .. } = sum;
    say(&format!(
        "{scenarios} scenarios: {tried} of {all} points tried (seed {}), {failed} failed, {seconds} s",
        choice.seed
    ));
    if choice.until.is_some() && report.through < all {
        say(&format!("to go on: --seed {} --skip {}", choice.seed, report.through));
    }
    Ok(failed == 0 && report.groups.values().all(|tally| tally.tried > 0))
}

fn say(text: &str) {
    let _unheard = writeln!(std::io::stdout().lock(), "{text}");
}

/// How far it is, each half minute, where a person or a log reads errors.
struct Progress {
    what: &'static str,
    told: Mutex<Instant>,
}

impl Progress {
    fn of(what: &'static str) -> Self {
        Self { what, told: Mutex::new(Instant::now()) }
    }

    fn tell(&self, news: News<'_>) {
        match news {
            News::Failed(failure) => tell(failure),
            News::Tried { tried, all, failed } => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.elapsed() > Duration::from_secs(30) {
                    *told = Instant::now();
                    let what = self.what;
                    let _unheard = writeln!(std::io::stderr(), "{tried} of {all} {what}, {failed} failed");
                }
            }
        }
    }
}

fn tell(failure: &Failure) {
    say(&format!("FAILED {}\n{}  {}\n", failure.name, failure.file, failure.wrong.join("\n  ")));
}

fn walked(arguments: &[String]) -> Result<bool, String> {
    let started = Instant::now();
    let (mut seed, mut actions, mut skip, mut until) = (1, 10_000, 0, None);
    let mut words = arguments.iter();
    while let Some(option) = words.next() {
        let number: u64 = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| format!("{option} N"))?;
        match option.as_str() {
            "--seed" => seed = number,
            "--actions" => actions = usize::try_from(number).unwrap_or(usize::MAX),
            "--skip" => skip = usize::try_from(number).unwrap_or(usize::MAX),
            "--seconds" => until = started.checked_add(Duration::from_secs(number)),
            other => return Err(format!("unknown option {other}")),
        }
    }
    let progress = Progress::of("walks walked");
    let report = walks(seed, actions, skip, until, &|news| progress.tell(news));
    say(&format!(
        "{} actions in {} walks (seed {seed}), {} failed, {:.0} s",
        report.actions,
        report.walks,
        report.failures.len(),
        started.elapsed().as_secs_f64()
    ));
    if report.next < actions.div_ceil(LENGTH) {
        say(&format!("to go on: --seed {seed} --skip {}", report.next));
    }
    Ok(report.walks > 0 && report.failures.is_empty())
}

fn contract(what: &str, kubeconfig: &str, namespace: &str) -> Result<bool, String> {
    canary_operator::client::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = async {
        let options = kube::config::KubeConfigOptions::default();
        let file = kube::config::Kubeconfig::read_from(kubeconfig).map_err(|error| error.to_string())?;
        let config = kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| error.to_string())?;
        let client = kube::Client::try_from(config).map_err(|error| error.to_string())?;
        if what == "contract" {
            return Ok::<_, String>(differences(&client, namespace).await);
        }
        policies::let_in(&client, namespace).await?;
        Ok(differences_in_policy(&client, namespace).await)
    };
    let (asked, wrong) = runtime.map_err(|error| error.to_string())?.block_on(asked)?;
    let mut out = std::io::stdout().lock();
    for line in &wrong {
        writeln!(out, "DIFFERS {line}").map_err(|error| error.to_string())?;
    }
    writeln!(out, "{asked} answers of the API server looked at, {} differ", wrong.len())
        .map_err(|error| error.to_string())?;
    Ok(wrong.is_empty())
}
