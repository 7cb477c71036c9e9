//! The operator's process, in the order in which it comes to life.

use std::io::Write as _;
use std::process::ExitCode;

use canary_operator::config::{Args, Settings};
use canary_operator::metrics::Metrics;
use canary_operator::{client, http, operator, telemetry, tick};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// It could not run, or could not go on.
const FAILED: u8 = 1;
/// The configuration is wrong. (clap uses the same for flags.)
const MISCONFIGURED: u8 = 2;

fn main() -> ExitCode {
    client::install_crypto();
    let settings = match configure(Args::parse()) {
        Ok(settings) => settings,
        Err(error) => return fail(MISCONFIGURED, &*error),
    };
    if settings.args.check {
        return print(&settings);
    }
    // One thread: ticks wait for the network, and each further thread costs memory.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &error),
    };
    match runtime.block_on(run(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &*error),
    }
}

type AnyError = Box<dyn std::error::Error>;

fn configure(args: Args) -> Result<Settings, AnyError> {
    telemetry::init(args.log_format, &args.log_level)?;
    Ok(Settings::load(args)?)
}

async fn run(settings: &Settings) -> Result<(), AnyError> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    for line in settings.lines() {
        tracing::info!("configuration: {line}");
    }
    let stop = stop_on_signal()?;
    let metrics = Metrics::new();
    let listener = http::bind(settings.args.http_address).await?;
    let clients = client::connect(&metrics, settings.args.api_deadline).await?;
    let sources = tick::Sources::new(&settings.providers, settings.pods.clone())?;
    let ticker = |parts| tick::ReleaseTicker::new(parts, sources, settings.records);
    operator::run(settings, clients, metrics, listener, ticker, stop).await;
    Ok(())
}

/// A token that SIGTERM or SIGINT cancels.
fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(stop)
}

/// `--check`: what the configuration comes to.
fn print(settings: &Settings) -> ExitCode {
    let text = settings.lines().join("\n");
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &error),
    }
}

/// Says on standard error what is wrong; where that is closed, the code says it.
fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let _unheard = writeln!(std::io::stderr(), "canary-operator: {error}");
    ExitCode::from(code)
}
