//! The commands as they run on the machine: they build, start and stop the lab, and start the part that
//! plays inside its network. They play and measure nothing themselves.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use lab::{Lab, LabOptions, Progress};

use crate::inside::Soaked;
use crate::previous::Previous;
use crate::programs::{self, Programs};

/// Where it is played.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// A context of your kubeconfig: play in that cluster instead of a lab
    ///
    /// It must have Gateway API with a gateway (--gateway) that this machine reaches (--url, for example
    /// by `kubectl port-forward`), a Prometheus that scrapes annotated pods (--prometheus), and the images
    /// docker.io/lab/canary-operator:dev and docker.io/lab/shop:v1 and others (deploy/Dockerfile).
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The gateway in that cluster
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "context")]
    pub(crate) gateway: Option<String>,
    /// Where this machine reaches that gateway; an address of loopback, pods or Services
    #[arg(long, value_name = "URL", requires = "context", default_value = "http://127.0.0.1:8080/")]
    pub(crate) url: String,
    /// Where the operator in that cluster reaches Prometheus
    #[arg(long, value_name = "URL", requires = "context", default_value = "http://prometheus.monitoring.svc:9090")]
    pub(crate) prometheus: String,
    /// Use the lab of that name that is up already, and leave it up
    #[arg(long, value_name = "NAME", conflicts_with = "context")]
    pub(crate) lab: Option<String>,
    /// Use this operator instead of building one
    #[arg(long, value_name = "FILE", requires = "shop")]
    pub(crate) operator: Option<PathBuf>,
    /// Use this demo shop instead of building one
    #[arg(long, value_name = "FILE", requires = "operator")]
    pub(crate) shop: Option<PathBuf>,
}

/// What is played, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct Play {
    /// Only scenarios whose name contains one of these
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,
    /// Scenarios at a time; each has a gateway of its own
    #[arg(long, default_value_t = 3)]
    pub(crate) jobs: usize,
    /// Print each step of each scenario
    #[arg(long)]
    pub(crate) steps: bool,
    /// Leave the namespace of a failed scenario, and the lab with it
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

impl Play {
    /// Whether one of the scenarios begins with another build.
    pub(crate) fn upgrades(&self) -> bool {
        let chosen = |name: &str| self.only.is_empty() || self.only.iter().any(|text| name.contains(text.as_str()));
        e2e::scenarios::all().iter().any(|scenario| scenario.upgrades && chosen(scenario.name))
    }

    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec!["--jobs".into(), self.jobs.to_string().into()];
        for only in &self.only {
            arguments.extend(["--only".into(), only.into()]);
        }
        if self.steps {
            arguments.push("--steps".into());
        }
        if self.keep {
            arguments.push("--keep".into());
        }
        arguments
    }
}

/// A lab, or someone's cluster, and how the part inside is started.
pub(crate) struct Ground {
    programs: Programs,
    place: Place,
    lab: Option<Lab>,
    ours: bool,
}

/// What a lab is to be like.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) scrape_seconds: u64,
    pub(crate) detached: bool,
    /// Whether something in it autoscales.
    pub(crate) metrics_server: bool,
}

impl Wanted<'_> {
    fn options(&self) -> LabOptions {
        LabOptions {
            scrape_interval: std::time::Duration::from_secs(self.scrape_seconds),
            detached: self.detached,
            metrics_server: self.metrics_server,
            ..LabOptions::named(self.name)
        }
    }
}

fn tell(step: &Progress) {
    println!("{step}");
}

/// Builds what is missing and starts the lab, or takes the cluster that was named.
pub(crate) fn prepare(place: &Place, wanted: &Wanted<'_>) -> Result<Ground> {
    if place.context.is_none() && place.lab.is_none() {
        lab::check_host()?;
    }
    let programs = match (&place.operator, &place.shop) {
        (Some(operator), Some(shop)) => Programs { operator: operator.clone(), shop: shop.clone() },
        _ if place.context.is_some() => Programs { operator: PathBuf::new(), shop: PathBuf::new() },
        _ => {
            // Rust uses all cores and so does Go: together they end sooner than in turn.
            let go = place.lab.is_none().then(|| {
                let options = wanted.options();
                std::thread::spawn(move || lab::build(&options, &mut tell))
            });
            let programs = programs::build();
            if let Some(go) = go {
                go.join().map_err(|_| anyhow::anyhow!("the lab's build panicked"))??;
            }
            programs?
        }
    };
    start(programs, place, wanted)
}

/// Starts the lab with programs that are built.
pub(crate) fn start(programs: Programs, place: &Place, wanted: &Wanted<'_>) -> Result<Ground> {
    let (lab, ours) = match (&place.context, &place.lab) {
        (Some(_), _) => (None, false),
        (None, Some(name)) => (Some(Lab::find(name)?), false),
        (None, None) => {
            let options = wanted.options();
            lab::build(&options, &mut |step| {
                if step.state != lab::ProgressState::Present {
                    tell(step);
                }
            })?;
            if wanted.detached && Lab::find(wanted.name).is_ok() {
                println!("the lab {} of before is taken down", wanted.name);
                Lab::take_down(wanted.name)?;
            }
            (Some(programs::timed("start the lab", || Ok(Lab::up(&options, &mut tell)?))?), true)
        }
    };
    Ok(Ground { programs, place: place.clone(), lab, ours })
}

impl Ground {
    /// Runs the part inside, with these arguments, to its end: whether it went well.
    pub(crate) fn inside(&self, scrape_seconds: u64, arguments: &[OsString]) -> Result<bool> {
        // By process, not by path: cargo may have replaced the file meanwhile.
        let program = format!("/proc/{}/exe", std::process::id());
        let mut command = match &self.lab {
            Some(lab) => lab.command(program),
            None => Command::new(program),
        };
        command.args(["inside", "--scrape-seconds", &scrape_seconds.to_string()]);
        if self.place.context.is_none() {
            command.arg("--operator").arg(&self.programs.operator).arg("--shop").arg(&self.programs.shop);
        }
        match (&self.lab, &self.place.context) {
            (Some(lab), _) => {
                command.args(["--lab", &lab.info().name]);
            }
            (None, Some(context)) => {
                let gateway = self.place.gateway.as_deref().context("--context needs --gateway NAMESPACE/NAME")?;
                command.args([
                    "--context",
                    context,
                    "--gateway",
                    gateway,
                    "--url",
                    &self.place.url,
                    "--prometheus",
                    &self.place.prometheus,
                ]);
            }
            (None, None) => bail!("neither a lab nor a context"),
        }
        command.args(arguments);
        Ok(command.status().context("start the part inside the lab")?.success())
    }

    /// Takes the lab down, if it is ours.
    pub(crate) fn end(self) -> Result<()> {
        match self.lab {
            Some(lab) if self.ours => Ok(lab.down()?),
            _ => Ok(()),
        }
    }

    fn name(&self) -> Option<&str> {
        self.lab.as_ref().map(|lab| lab.info().name.as_str())
    }
}

/// A name for a lab that lives as long as this process.
pub(crate) fn own_name(what: &str) -> String {
    format!("{what}-{}", std::process::id())
}

pub(crate) fn demo(once: bool, place: &Place) -> Result<bool> {
    let name = if once { own_name("demo") } else { "demo".to_owned() };
    let ground = prepare(place, &Wanted { name: &name, scrape_seconds: 1, detached: !once, metrics_server: true })?;
    let mut arguments: Vec<OsString> = vec!["demo".into()];
    if !once && ground.lab.is_some() {
        arguments.push("--stays".into());
    }
    let good = ground.inside(1, &arguments)?;
    if once {
        ground.end()?;
        println!(
            "{}",
            if good { "Both releases ended as they should." } else { "A release did not end as it should." }
        );
        return Ok(good);
    }
    match (ground.name(), &place.context) {
        (Some(name), _) => {
            println!("\nThe cluster is still up. To look around and to stop it:");
            println!("  cargo xtask lab kubectl {name} -- get canaryreleases -A");
            println!(
                "  cargo xtask lab kubectl {name} -- -n demo-good set image deployment/orders shop=docker.io/lab/shop:v3"
            );
            println!("  cargo xtask lab kubectl {name} -- -n demo-good get canaryrelease orders -w");
            println!("  cargo xtask lab down {name}");
        }
        (None, Some(context)) => {
            println!("\nTo look around and to clean up:");
            println!("  kubectl --context {context} get canaryreleases -A");
            println!("  kubectl --context {context} delete namespace demo-good demo-bad");
        }
        (None, None) => {}
    }
    Ok(good)
}

pub(crate) fn proof(write: bool, play: &Play) -> Result<bool> {
    let previous = Previous::of_scenarios(play)?;
    let ground = prepare(
        &play.place,
        &Wanted { name: &own_name("proof"), scrape_seconds: 1, detached: play.keep, metrics_server: true },
    )?;
    let mut arguments: Vec<OsString> = vec!["scenarios".into()];
    arguments.extend(play.arguments());
    arguments.extend(previous.iter().flat_map(Previous::arguments));
    if write {
        arguments.extend(["--write".into(), programs::root().join("docs/proof.md").into()]);
    }
    let good = ground.inside(1, &arguments)?;
    leave(ground, play.keep && !good)?;
    Ok(good)
}

pub(crate) fn bench(runs: usize, idle: u64, write: bool, place: &Place) -> Result<bool> {
    if place.context.is_some() {
        bail!("the figures need a lab: its audit log and its processes");
    }
    let ground =
        prepare(place, &Wanted { name: &own_name("bench"), scrape_seconds: 5, detached: false, metrics_server: true })?;
    let mut arguments: Vec<OsString> =
        ["bench", "--runs", &runs.to_string(), "--idle", &idle.to_string()].map(OsString::from).to_vec();
    if write {
        arguments.extend(["--write".into(), programs::root().join("docs/bench.md").into()]);
    }
    let good = ground.inside(5, &arguments)?;
    ground.end()?;
    Ok(good)
}

pub(crate) fn examples(place: &Place) -> Result<bool> {
    let ground = prepare(
        place,
        &Wanted { name: &own_name("examples"), scrape_seconds: 2, detached: false, metrics_server: true },
    )?;
    let folder = programs::root().join("docs/examples");
    let good = ground.inside(2, &["examples".into(), "--folder".into(), folder.into()])?;
    ground.end()?;
    Ok(good)
}

pub(crate) fn soak(soaked: &Soaked, write: bool, place: &Place) -> Result<bool> {
    if place.context.is_some() {
        bail!("the soak needs a lab: gateways of its own, and an operator that it may kill");
    }
    let ground =
        prepare(place, &Wanted { name: &own_name("soak"), scrape_seconds: 1, detached: false, metrics_server: true })?;
    let mut arguments: Vec<OsString> = vec!["soak".into()];
    arguments.extend(soaked.arguments().into_iter().map(OsString::from));
    if write {
        arguments.extend(["--write".into(), programs::root().join("docs/soak.md").into()]);
    }
    let good = ground.inside(1, &arguments)?;
    ground.end()?;
    Ok(good)
}

pub(crate) fn leave(ground: Ground, stays: bool) -> Result<()> {
    match ground.name() {
        Some(name) if stays => {
            println!("lab {name} stays: cargo xtask lab kubectl {name} -- get pods -A; cargo xtask lab down {name}");
            // A lab that was started for this stays only if it is detached, which --keep makes it.
            std::mem::forget(ground);
            Ok(())
        }
        _ => ground.end(),
    }
}

/// The command `lab`, built when needed.
pub(crate) fn lab(arguments: &[OsString]) -> Result<bool> {
    let mut command = programs::cargo();
    command.current_dir(std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_path_buf()));
    command.arg("run").arg("--quiet").arg("--manifest-path").arg(programs::root().join("Cargo.toml"));
    command.args(["--release", "--package", "lab", "--bin", "lab", "--"]).args(arguments);
    Ok(command.status().context("start cargo")?.success())
}
