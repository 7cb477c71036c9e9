//! The client that measures: sends at a fixed rate whatever comes back (an open loop), repeats no
//! request, and counts every answer, good or not, by version and status. It never reads a meaning into
//! the figures; that is its caller's part.
//!
//! ```no_run
//! # async fn example() -> Result<(), lab_app::load::LoadError> {
//! use std::time::Duration;
//! use lab_app::load::{Config, LoadHandle};
//!
//! let mut config = Config::new("http://10.244.0.1:80/");
//! config.host = Some("shop.lab".to_owned());
//! config.rate = 100.0;
//! let load = LoadHandle::start(config)?;
//! let before = load.snapshot();
//! load.wait_for(Duration::from_secs(30), |now| now.answers.version("v2") > 0).await?;
//! let share = load.window(&before).answers.share("v2");
//! let summary = load.stop().await?;
//! assert_eq!(summary.bad, 0, "{:?} {share:?}", summary.bad_answers);
//! # Ok(()) }
//! ```

mod client;
mod config;
mod handle;
mod latency;
mod record;

pub use config::{Config, FLAGS, MAX_DURATION, MAX_RATE, Options, Target};
pub use handle::{End, LoadError, LoadHandle};
pub use latency::{Latency, Percentiles};
pub use record::{
    BadAnswer, Counts, ErrorKind, Moment, NO_VERSION, Second, Seen, Snapshot, Status, Summary, VersionSummary, Window,
};
