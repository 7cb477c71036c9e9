//! The demo service as a program: flags or environment in, serves until SIGTERM or SIGINT.

use std::process::ExitCode;

use lab_app::flags::{FlagError, help};
use lab_app::shop::{Config, FLAGS, Outcome, Shop};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = match Config::read(std::env::args().skip(1), |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(FlagError::Help) => {
            let purpose = "a demo HTTP service with metrics and switchable faults (/fault)";
            print!("{}", help("shop", purpose, &FLAGS));
            println!("\nEach flag is an environment variable too: --error-rate is ERROR_RATE.");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("shop: {error}");
            return ExitCode::from(2);
        }
    };
    // Before anything can be asked to stop: as process 1 of a container there is no default handler.
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        eprintln!("shop: cannot listen for SIGTERM");
        return ExitCode::FAILURE;
    };
    let version = config.version.clone();
    let shop = match Shop::bind(config).await {
        Ok(shop) => shop,
        Err(error) => {
            eprintln!("shop: {error}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("shop {version} listens on {}", shop.address());
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        eprintln!("shop {version} drains");
    };
    match shop.run(shutdown).await {
        Outcome::Stopped => ExitCode::SUCCESS,
        Outcome::CutOff => {
            eprintln!("shop {version}: the grace ran out with answers under way");
            ExitCode::SUCCESS
        }
        Outcome::Crashed => {
            eprintln!("shop {version}: crashed as told");
            std::process::exit(1);
        }
    }
}
