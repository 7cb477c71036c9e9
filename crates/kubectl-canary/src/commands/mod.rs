//! The commands, one file each; the six that the operator takes share one.

pub mod backtest;
pub mod collect;
pub mod completion;
pub mod doctor;
pub mod evidence;
pub mod history;
pub mod list;
pub mod notes;
pub mod order;
pub mod plan;
pub mod report;
pub mod sign;
pub mod simulate;
pub mod status;
pub mod wait;
pub mod watch;

use order::Verb;
use serde::Serialize;

use crate::args::{Cli, Command};
use crate::cluster::Cluster;
use crate::output::Output;
use crate::{Error, Exit, clean};

/// What became of releases that were played, of one CanaryRelease.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Played<S> {
    /// The CanaryRelease's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What is wrong with its spec.
    pub faults_of_spec: Vec<String>,
    /// How its releases ended; none where its spec is wrong.
    #[serde(flatten)]
    pub summary: Option<S>,
}

impl<S> Played<S> {
    /// Namespace and name.
    fn title(&self) -> String {
        clean::text(&format!("{}/{}", self.namespace, self.name))
    }
}

/// Runs the command of a command line.
///
/// # Errors
/// Where it could not be done.
pub fn run(cli: Cli, output: &Output) -> Result<Exit, Error> {
    let file = cli.global.output.file();
    if let (Some(file), false) = (file, matches!(cli.command, Command::Report(_))) {
        let file = file.display();
        return Err(Error::Usage(format!(
            "-o takes text, json or yaml here, not {file}; only report writes to a file"
        )));
    }
    match &cli.command {
        Command::Notes(what) => runtime()?.block_on(notes::run(what, &cli.global, output)),
        Command::Report(what) => runtime()?.block_on(report::run(what, &cli.global, file, output)),
        Command::Evidence(what) => runtime()?.block_on(evidence::run(what, &cli.global, output)),
        Command::Sign(what) => sign::sign(what, output),
        Command::Verify(what) => sign::verify(what, output),
        Command::Plan(what) => runtime()?.block_on(plan::run(what, cli.global.namespace.as_deref(), output)),
        Command::Simulate(what) => simulate::run(what, cli.global.namespace.as_deref(), output),
        Command::Completion { shell } => output.write(&completion::script(*shell)).map(|()| Exit::Done),
        Command::Backtest(what) => runtime()?.block_on(backtest::run(what, cli.global.namespace.as_deref(), output)),
        _ => runtime()?.block_on(in_cluster(cli, output)),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn in_cluster(cli: Cli, output: &Output) -> Result<Exit, Error> {
    let cluster = Cluster::connect(&cli.global).await?;
    let order = async |verb, what| order::run(verb, what, &cluster, output).await;
    match &cli.command {
        Command::List(what) => list::run(what, &cluster, output).await,
        Command::Status(what) => status::run(what, &cluster, output).await,
        Command::Watch(what) => watch::run(what, &cluster, output).await,
        Command::Doctor(what) => doctor::run(what, &cluster, output).await,
        Command::History(what) => history::run(what, &cluster, output).await,
        Command::Wait(what) => wait::run(what, &cluster, output).await,
        Command::Abort(what) => order(Verb::Abort, what).await,
        Command::Pause(what) => order(Verb::Pause, what).await,
        Command::Resume(what) => order(Verb::Resume, what).await,
        Command::Approve(what) => order(Verb::Approve, what).await,
        Command::Promote(what) => order(Verb::Promote, what).await,
        Command::Retry(what) => order(Verb::Retry, what).await,
        Command::Plan(_)
        | Command::Simulate(_)
        | Command::Backtest(_)
        | Command::Notes(_)
        | Command::Report(_)
        | Command::Evidence(_)
        | Command::Sign(_)
        | Command::Verify(_)
        | Command::Completion { .. } => Err(Error::Usage("this command asks no cluster".to_owned())),
    }
}
