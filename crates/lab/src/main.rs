//! The command `lab`: a thin hand on the library of the same name.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use lab::{Lab, LabOptions, Progress};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::Duration;

/// A real Kubernetes on this machine, in namespaces of its own
///
/// Needs Linux, root, Go and the programs of some Debian packages, which are installed where possible.
/// Nothing of a lab is reachable from outside its network; `lab exec` and `lab kubectl` go inside.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build what is missing: about 14 minutes from nothing, no time when all is there
    Build,
    /// Start a lab and wait until the cluster is ready
    Up {
        /// Name of the lab
        #[arg(default_value = "lab")]
        name: String,
        /// Seconds between two scrapes of a pod by Prometheus
        #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
        scrape_interval: f64,
        /// Leave metrics-server out: no `kubectl top`, no autoscaling
        #[arg(long)]
        no_metrics_server: bool,
    },
    /// Take a lab down, or clean what a crashed one left
    Down {
        /// Name of the lab
        #[arg(default_value = "lab")]
        name: String,
    },
    /// List the running labs, or the components of one
    List {
        /// Name of the lab whose components to show
        name: Option<String>,
    },
    /// Run a command inside a lab's network
    Exec {
        /// Name of the lab
        #[arg(default_value = "lab")]
        name: String,
        /// Run in all namespaces of the lab, with its processes and its /run
        #[arg(long)]
        inside: bool,
        /// The command, after `--`
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Run kubectl as administrator of a lab
    Kubectl {
        /// Name of the lab
        #[arg(default_value = "lab")]
        name: String,
        /// Arguments of kubectl, after `--`
        #[arg(last = true, required = true)]
        arguments: Vec<OsString>,
    },
    /// Print the path of a kubeconfig, usable inside the lab's network
    Kubeconfig {
        /// Name of the lab
        #[arg(default_value = "lab")]
        name: String,
        /// Make one for this user instead of the administrator
        #[arg(long)]
        user: Option<String>,
        /// A group of that user (at most two)
        #[arg(long = "group", requires = "user")]
        groups: Vec<String>,
    },
    /// Print a component's log
    Logs {
        /// The component, as `lab list NAME` shows it
        component: String,
        /// Name of the lab
        #[arg(default_value = "lab")]
        name: String,
    },
    /// Make programs of this machine an image that pods can name with imagePullPolicy: Never
    Image {
        /// Full tag, for example docker.io/lab/shop:1
        tag: String,
        /// The programs; the first is the entry point
        #[arg(required = true)]
        programs: Vec<std::path::PathBuf>,
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
    },
    /// Add a gateway with an address of its own that serves some namespaces only, or remove one
    Gateway {
        /// Name of the gateway
        gateway: String,
        /// The namespaces it serves; its Gateway object stands in the first
        #[arg(long = "namespace", required_unless_present = "remove")]
        namespaces: Vec<String>,
        /// Remove it
        #[arg(long, conflicts_with = "namespaces")]
        remove: bool,
        /// Name of the lab
        #[arg(default_value = "lab")]
        name: String,
    },
    /// Stop, kill, start, freeze or thaw a component
    #[command(name = "component")]
    Component {
        /// What to do with it
        #[arg(value_enum)]
        act: Act,
        /// The component, as `lab list NAME` shows it
        component: String,
        /// Name of the lab
        #[arg(default_value = "lab")]
        name: String,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Act {
    Start,
    Stop,
    Kill,
    Freeze,
    Thaw,
}

fn main() -> ExitCode {
    lab::hook();
    match run(Arguments::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> lab::Result<ExitCode> {
    let mut progress = |step: &Progress| println!("{step}");
    match verb {
        Verb::Build => drop(lab::build(&LabOptions::default(), &mut progress)?),
        Verb::Up { name, scrape_interval, no_metrics_server } => {
            let scrape_interval = Duration::try_from_secs_f64(scrape_interval)
                .map_err(|_| lab::Error::Usage(format!("{scrape_interval} is no number of seconds")))?;
            let options =
                LabOptions { scrape_interval, metrics_server: !no_metrics_server, ..LabOptions::named(&name) };
            let lab = Lab::up(&options, &mut progress)?;
            println!("lab {name} is up: `lab kubectl {name} -- get pods -A`, `lab down {name}`");
            println!("its files are in {}", lab.dir().display());
        }
        Verb::Down { name } => {
            let was = Lab::take_down(&name)?;
            println!("{}", if was { format!("lab {name} is gone") } else { format!("there was no lab {name}") });
        }
        Verb::List { name: None } => {
            for lab in Lab::list()? {
                println!("{:<24} process {:<8} {}", lab.name, lab.init_pid, lab.dir.display());
            }
        }
        Verb::List { name: Some(name) } => {
            for component in Lab::find(&name)?.components()? {
                let state = format!("{:?}", component.state).to_lowercase();
                println!("{:<26} {state:<10} {:>7} ms", component.name, component.ready_after_ms);
            }
        }
        Verb::Exec { name, inside, command } => {
            let lab = Lab::find(&name)?;
            let mut words = command.into_iter();
            let program = words.next().unwrap_or_default();
            let mut command = if inside { lab.command_inside(program) } else { lab.command(program) };
            return Err(become_it(command.args(words)));
        }
        Verb::Kubectl { name, arguments } => return Err(become_it(Lab::find(&name)?.kubectl().args(arguments))),
        Verb::Kubeconfig { name, user, groups } => {
            let lab = Lab::find(&name)?;
            let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            let file = match user {
                Some(user) => lab.kubeconfig_for(&user, &groups)?,
                None => lab.kubeconfig(),
            };
            println!("{}", file.display());
        }
        Verb::Logs { component, name } => {
            let file = Lab::find(&name)?.log_file(&component);
            let doing = format!("read {}", file.display());
            let mut log =
                std::fs::File::open(&file).map_err(|source| lab::Error::Io { doing: doing.clone(), source })?;
            std::io::copy(&mut log, &mut std::io::stdout()).map_err(|source| lab::Error::Io { doing, source })?;
        }
        Verb::Image { tag, programs, name } => {
            let programs: Vec<&std::path::Path> = programs.iter().map(std::path::PathBuf::as_path).collect();
            Lab::find(&name)?.import_image(&tag, &lab::Image::programs(&programs)?)?;
        }
        Verb::Gateway { gateway, remove: true, name, .. } => Lab::find(&name)?.remove_gateway(&gateway)?,
        Verb::Gateway { gateway, namespaces, name, .. } => {
            let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
            let made = Lab::find(&name)?.add_gateway(&gateway, &namespaces)?;
            println!("gateway {}/{} answers at http://{}/", made.namespace, made.name, made.address);
        }
        Verb::Component { act, component, name } => {
            let lab = Lab::find(&name)?;
            match act {
                Act::Start => lab.start(&component),
                Act::Stop => lab.stop(&component),
                Act::Kill => lab.kill(&component),
                Act::Freeze => lab.freeze(&component),
                Act::Thaw => lab.thaw(&component),
            }?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces this process by the command, so that signals and the terminal are its own.
fn become_it(command: &mut std::process::Command) -> lab::Error {
    let program = command.get_program().to_string_lossy().into_owned();
    lab::Error::Io { doing: format!("run {program}"), source: command.exec() }
}
