//! Logs: JSON or text on standard output, one span per tick. It formats; it decides nothing, and
//! nothing that goes through it may hold a credential.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing::Span;
use tracing::field::Empty;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::workers::ObjectKey;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// A log filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "--log-level: {filter:?} is no log filter ({reason}); write for example `info` or `info,canary_operator=debug`"
)]
pub struct FilterError {
    filter: String,
    reason: String,
}

/// Starts logging, and sends panics through it.
///
/// # Errors
/// Where the filter cannot be read.
pub fn init(format: LogFormat, filter: &str) -> Result<(), FilterError> {
    // kube logs the whole of an answer that it cannot decode, and objects may hold what is secret.
    let quiet = if filter.contains("kube") { filter.to_owned() } else { format!("{filter},kube_client=error") };
    let parsed = EnvFilter::try_new(quiet)
        .map_err(|error| FilterError { filter: filter.to_owned(), reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_span_events(FmtSpan::NONE)
        .with_writer(io::stdout)
        .with_ansi(io::stdout().is_terminal());
    // A second call finds a subscriber in place and keeps it.
    let _already = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
        LogFormat::Text => builder.with_target(false).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic: {}", panic.payload_as_str().unwrap_or("without a message"));
    }));
    Ok(())
}

/// The span of one tick. The tick fills in `release`, `phase` and `stage` once it knows them, with
/// [`describe`].
pub(crate) fn tick_span(key: &ObjectKey) -> Span {
    tracing::info_span!("tick", object = %key, release = Empty, phase = Empty, stage = Empty)
}

/// Says in the running tick's span which release it is about and where that stands.
pub fn describe(release: &str, phase: &str, stage: &str) {
    let span = Span::current();
    span.record("release", release);
    span.record("phase", phase);
    span.record("stage", stage);
}
