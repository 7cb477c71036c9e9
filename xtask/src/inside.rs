//! The part that runs where the cluster is reachable: it installs the operator and plays.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use e2e::faults;
use e2e::report::Made;
use e2e::run::{Options, Played, play};
use e2e::setup::Entrance;
use e2e::soak::{self, Part};
use e2e::world::{Install, Previous, World};
use e2e::{bench, demo, examples, report, scenarios};
use lab::Lab;

use crate::programs::root;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    lab: Option<String>,
    #[arg(long)]
    context: Option<String>,
    #[arg(long, default_value = "")]
    gateway: String,
    #[arg(long, default_value = "")]
    url: String,
    #[arg(long, default_value = lab::PROMETHEUS)]
    prometheus: String,
    /// Not with --context: that cluster has its images already
    #[arg(long)]
    operator: Option<PathBuf>,
    #[arg(long)]
    shop: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    scrape_seconds: u64,
    /// The commit of the build that an upgrade begins with
    #[arg(long, global = true, requires = "from_root")]
    from: Option<String>,
    /// Its checkout
    #[arg(long, global = true, requires = "from_operator")]
    from_root: Option<PathBuf>,
    /// Its program
    #[arg(long, global = true, requires = "from")]
    from_operator: Option<PathBuf>,
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    Demo {
        /// Leave a client behind, so that the cluster can be tried further
        #[arg(long)]
        stays: bool,
    },
    Scenarios {
        #[arg(long)]
        quick: bool,
        #[arg(long)]
        only: Vec<String>,
        #[arg(long, default_value_t = 3)]
        jobs: usize,
        #[arg(long)]
        steps: bool,
        #[arg(long)]
        keep: bool,
        /// Where the page goes
        #[arg(long)]
        write: Option<PathBuf>,
        /// Where "passed failed" goes, as two numbers
        #[arg(long)]
        count: Option<PathBuf>,
    },
    Examples {
        /// Where the records go
        #[arg(long)]
        folder: PathBuf,
    },
    Bench {
        #[arg(long)]
        runs: usize,
        #[arg(long)]
        idle: u64,
        #[arg(long)]
        write: Option<PathBuf>,
    },
    Soak {
        #[command(flatten)]
        soaked: Soaked,
        #[arg(long)]
        write: Option<PathBuf>,
    },
    Faults {
        #[command(flatten)]
        faulted: Faulted,
        #[arg(long)]
        write: Option<PathBuf>,
    },
}

/// What of the soak is played, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct Soaked {
    /// Only these parts
    #[arg(long, value_name = "PART")]
    pub(crate) only: Vec<Part>,
    /// Releases of each part; of `bad` those of each share, of `late` rounds [default: 20, bad 5, late 1]
    #[arg(long)]
    pub(crate) runs: Option<usize>,
    /// Shops at a time, each with a client of 100 requests/s that takes an eighth of a core; `late` wants 6
    #[arg(long, default_value_t = 8)]
    pub(crate) jobs: usize,
    /// Healthy seconds before a late fault
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(..=900))]
    pub(crate) calm: u64,
}

impl Soaked {
    /// As arguments that read the same.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> =
            self.only.iter().flat_map(|part| ["--only".to_owned(), part.to_string()]).collect();
        if let Some(runs) = self.runs {
            arguments.extend(["--runs".to_owned(), runs.to_string()]);
        }
        arguments.extend(["--jobs".to_owned(), self.jobs.to_string(), "--calm".to_owned(), self.calm.to_string()]);
        arguments
    }
}

/// Which faults are played, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct Faulted {
    /// Only these parts
    #[arg(long, value_name = "PART")]
    pub(crate) only: Vec<faults::Part>,
    /// Of outages and deletions only those whose name contains one of these
    #[arg(long, value_name = "TEXT")]
    pub(crate) fault: Vec<String>,
    /// SIGKILLs of the operator
    #[arg(long, default_value_t = 200)]
    pub(crate) kills: usize,
    /// Seconds for which the API server is away
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub(crate) outage: u64,
    /// CanaryReleases in the part `odd`
    #[arg(long, default_value_t = 50)]
    pub(crate) objects: usize,
    /// Shops at a time in the parts `kills` and `odd`
    #[arg(long, default_value_t = 5)]
    pub(crate) jobs: usize,
    /// Of what is left to chance
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Faulted {
    /// The parts in hand.
    pub(crate) fn parts(&self) -> Vec<faults::Part> {
        if self.only.is_empty() { faults::Part::ALL.to_vec() } else { self.only.clone() }
    }

    /// As arguments that read the same.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { only, fault, kills, outage, objects, jobs, seed } = self;
        let mut arguments: Vec<String> = only.iter().flat_map(|part| ["--only".to_owned(), part.to_string()]).collect();
        arguments.extend(fault.iter().flat_map(|fault| ["--fault".to_owned(), fault.clone()]));
        let numbers = format!("--kills {kills} --outage {outage} --objects {objects} --jobs {jobs} --seed {seed}");
        arguments.extend(numbers.split(' ').map(str::to_owned));
        arguments
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<bool> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?.block_on(act(arguments))
}

async fn act(arguments: Arguments) -> Result<bool> {
    let install = Install {
        root: root(),
        operator: arguments.operator.unwrap_or_default(),
        shop: arguments.shop.unwrap_or_default(),
        scrape_interval: Duration::from_secs(arguments.scrape_seconds),
        prometheus: arguments.prometheus,
        previous: match (arguments.from, arguments.from_root, arguments.from_operator) {
            (Some(name), Some(root), Some(operator)) => Some(Previous { name, root, operator }),
            _ => None,
        },
    };
    let upgrades = install.previous.is_some();
    let world = match (&arguments.lab, &arguments.context) {
        (Some(lab), _) => World::in_lab(Lab::find(lab)?, install).await?,
        (None, Some(context)) => {
            let (namespace, name) = arguments.gateway.split_once('/').context("--gateway is NAMESPACE/NAME")?;
            let entrance = Entrance { namespace: namespace.to_owned(), name: name.to_owned(), url: arguments.url };
            World::in_context(context, entrance, install).await?
        }
        (None, None) => bail!("this needs --lab or --context"),
    };
    let started = Instant::now();
    let made = made("");
    println!("install the operator ...");
    world.import_images()?;
    world.install().await?;
    println!("install the operator: {:.1} s", started.elapsed().as_secs_f64());
    // Now: the checkout may move on while this runs.
    let made = |command: &str| Made { command: command.to_owned(), ..made.clone() };
    match arguments.act {
        Act::Demo { stays } => demo::play(&world, stays).await.map(|()| true),
        Act::Scenarios { quick, only, jobs, steps, keep, write, count } => {
            let chosen: Vec<_> = scenarios::all()
                .into_iter()
                .filter(|scenario| !quick || scenario.quick)
                .filter(|scenario| upgrades || !scenario.upgrades)
                .filter(|scenario| only.is_empty() || only.iter().any(|text| scenario.name.contains(text.as_str())))
                .collect();
            if chosen.is_empty() {
                bail!(
                    "no scenario is called so; there are: {}",
                    scenarios::all().iter().map(|one| one.name).collect::<Vec<_>>().join(", ")
                );
            }
            println!("{} scenarios, {jobs} at a time", chosen.len());
            let mut played = play(&world, &chosen, Options { jobs, talk: steps, keep }, tell).await;
            played.sort_by_key(|one| chosen.iter().position(|scenario| scenario.name == one.scenario.name));
            let failed = played.iter().filter(|one| !one.passed()).count();
            let passed = played.len().saturating_sub(failed);
            for one in played.iter().filter(|one| !one.passed()) {
                println!("{}: {}", one.scenario.name, one.failure.as_ref().map_or("", |(why, _)| why.as_str()));
            }
            // Only a run of all of them can tell what is never used.
            let unused = if quick || !only.is_empty() { Vec::new() } else { world.unused_rights()? };
            for right in &unused {
                println!("UNUSED  the operator may {right}, and never did");
            }
            println!("scenarios: {passed} passed, {failed} failed, {:.0} s", started.elapsed().as_secs_f64());
            if let Some(file) = count {
                fs::write(file, format!("{passed} {failed}"))?;
            }
            if let Some(file) = write {
                save(&file, &report::proof(&played, &made("cargo xtask proof --write")))?;
            }
            Ok(failed == 0 && unused.is_empty())
        }
        Act::Examples { folder } => examples::write(&world, &folder).await.map(|()| true),
        Act::Bench { runs, idle, write } => {
            let options = bench::Options { runs, idle: Duration::from_secs(idle) };
            let figures = bench::measure(&world, options, |line| println!("{line}")).await?;
            let page = figures.page(&made(&format!("cargo xtask bench --runs {runs} --idle {idle}")));
            println!("\n{page}");
            if let Some(file) = write {
                save(&file, &page)?;
            }
            Ok(true)
        }
        Act::Soak { soaked, write } => {
            let parts = if soaked.only.is_empty() { Part::ALL.to_vec() } else { soaked.only.clone() };
            let calm = Duration::from_secs(soaked.calm);
            let options = soak::Options { parts, runs: soaked.runs, jobs: soaked.jobs, calm };
            let tell = move |line: &str| println!("{:6.0} s  {line}", started.elapsed().as_secs_f64());
            let figures = soak::run(&world, &options, std::sync::Arc::new(tell)).await?;
            let page = figures.page(&made(&format!("cargo xtask soak {}", soaked.arguments().join(" "))));
            println!("\n{page}");
            if let Some(file) = write {
                save(&file, &page)?;
            }
            let broken = figures.broken();
            for one in &broken {
                println!("BROKEN  {one}");
            }
            println!("soak: {} promises broken, {:.0} s", broken.len(), started.elapsed().as_secs_f64());
            Ok(broken.is_empty())
        }
        Act::Faults { faulted, write } => {
            let options = faults::Options {
                parts: faulted.parts(),
                faults: faulted.fault.clone(),
                kills: faulted.kills,
                outage: Duration::from_secs(faulted.outage),
                objects: faulted.objects,
                jobs: faulted.jobs,
                seed: faulted.seed,
            };
            let tell = move |line: &str| println!("{:6.0} s  {line}", started.elapsed().as_secs_f64());
            let figures = faults::run(&world, &options, std::sync::Arc::new(tell)).await?;
            let command = format!("cargo xtask soak faults {}", faulted.arguments().join(" "));
            let sections = figures.sections(&made(&command));
            println!("\n{}", sections.join("\n"));
            if let Some(file) = write {
                let before = fs::read_to_string(&file).unwrap_or_default();
                save(&file, &faults::page::page(&before, &sections))?;
            }
            let broken = figures.broken();
            println!("faults: {} promises broken, {:.0} s", broken.len(), started.elapsed().as_secs_f64());
            Ok(broken.is_empty())
        }
    }
}

fn tell(played: &Played) {
    println!("{}", played.line());
    if let Some((why, story)) = &played.failure {
        println!("  {why}\n{story}");
    }
}

fn save(file: &std::path::Path, page: &str) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, page).with_context(|| format!("writing {}", file.display()))?;
    println!("wrote {}", file.display());
    Ok(())
}

/// By what, when and where figures are made.
pub(crate) fn made(command: &str) -> Made {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(root()).output().ok();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    Made {
        command: command.to_owned(),
        commit: said("git", &["rev-parse", "--short", "HEAD"]),
        date: said("date", &["-u", "+%Y-%m-%d"]),
        machine: format!("{cores} cores, Linux {}", said("uname", &["-r"])),
    }
}
