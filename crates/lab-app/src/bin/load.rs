//! The fixed-rate client as a program: sends until its end or a signal, then prints its summary.

use std::process::ExitCode;

use lab_app::flags::{FlagError, help};
use lab_app::load::{End, FLAGS, LoadHandle, Options};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(FlagError::Help) => {
            let purpose = "sends at a fixed rate and counts every answer by version and status";
            print!("{}", help("load", purpose, &FLAGS));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("load: {error}");
            return ExitCode::from(2);
        }
    };
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        eprintln!("load: cannot listen for SIGTERM");
        return ExitCode::FAILURE;
    };
    let load = match LoadHandle::start(options.config) {
        Ok(load) => load,
        Err(error) => {
            eprintln!("load: {error}");
            return ExitCode::from(2);
        }
    };
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = load.finished() => Some(ended),
    };
    let summary = match ended {
        Some(summary) => summary,
        None => load.stop().await,
    };
    match summary {
        Ok(summary) => {
            if !options.quiet {
                // Numbers and texts only: this cannot fail.
                println!("{}", serde_json::to_string(&summary).unwrap_or_default());
            }
            let bad = options.fail_on_bad && (summary.bad > 0 || summary.answers.total() == 0);
            if summary.end == End::OutputFailed {
                eprintln!("load: the output could not be written; the run is cut short");
            }
            if bad || summary.end == End::OutputFailed {
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
