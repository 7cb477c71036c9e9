//! Decides when each request is sent and when the run ends. The load has a thread of its own, so that
//! its caller's work does not hold it up and its caller needs no particular runtime. A request is due at
//! a fixed time whatever came back before; one that cannot be sent then is skipped and counted, never
//! sent late without saying so.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval_at, sleep_until};

use super::client::Client;
use super::config::{Config, Target, check_rate};
use super::record::{BadAnswer, Record, Second, Snapshot, Summary, Window};

/// A request overdue by more is skipped: the client was held up, and a burst would measure that.
const OVERDUE: Duration = Duration::from_secs(1);

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It was asked to stop.
    Stopped,
    /// Its duration has passed.
    Duration,
    /// It has sent as many requests as it was told.
    Requests,
    /// Its output could not be written: a run without its record is worth nothing.
    OutputFailed,
}

/// Why a load did not start, or did not come to what was waited for.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The destination is none that load may be sent to.
    #[error("destination {url:?}: {problem}")]
    Destination {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value is out of its bounds.
    #[error("{0}")]
    Bounds(String),
    /// The network namespace cannot be entered.
    #[error("cannot enter the network namespace {path}: {source}; this needs root")]
    Namespace {
        /// The namespace's path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An output file cannot be made.
    #[error("cannot write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The load's thread or its runtime cannot be made.
    #[error("cannot start the load's thread: {0}")]
    Thread(std::io::Error),
    /// What was waited for did not happen in time.
    #[error("not seen within {waited:?}; sent {}, answers {:?}", .snapshot.sent, .snapshot.answers.0)]
    NotSeen {
        /// How long was waited.
        waited: Duration,
        /// The figures at the end of the wait.
        snapshot: Box<Snapshot>,
    },
    /// The load ended before what was waited for happened.
    #[error("the load ended before; sent {}, answers {:?}", .0.sent, .0.answers.0)]
    Ended(Box<Snapshot>),
}

impl LoadError {
    /// A fixed word for this kind of error.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Destination { .. } => "destination",
            Self::Bounds(_) => "bounds",
            Self::Namespace { .. } => "namespace",
            Self::File { .. } => "file",
            Self::Thread(_) => "thread",
            Self::NotSeen { .. } => "not_seen",
            Self::Ended(_) => "ended",
        }
    }
}

#[derive(Debug)]
struct Shared {
    record: Mutex<Record>,
    rate: watch::Sender<f64>,
    stop: watch::Sender<bool>,
    /// Touched after every answer.
    progress: watch::Sender<()>,
    /// Set once, at the end: the summary, or nothing if the thread died.
    ended: watch::Sender<Option<Option<Summary>>>,
}

/// Says that the load has ended when its thread ends, whatever ended it.
struct EndOfThread(Arc<Shared>);

impl Drop for EndOfThread {
    fn drop(&mut self) {
        self.0.ended.send_if_modified(|ended| {
            let died = ended.is_none();
            ended.get_or_insert(None);
            died
        });
        self.0.progress.send_replace(());
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A load that runs. Dropping it asks it to stop.
#[derive(Debug)]
pub struct LoadHandle {
    shared: Arc<Shared>,
}

impl LoadHandle {
    /// Starts to send at once.
    ///
    /// # Errors
    /// [`LoadError`] if the configuration is out of bounds, the destination outside the lab, or the
    /// namespace, the output files or the thread not to be had; then nothing was sent.
    pub fn start(config: Config) -> Result<Self, LoadError> {
        let target = config.check()?;
        let shared = Arc::new(Shared {
            record: Mutex::new(Record::new(Instant::now())),
            rate: watch::Sender::new(config.rate),
            stop: watch::Sender::new(false),
            progress: watch::Sender::new(()),
            ended: watch::Sender::new(None),
        });
        let outputs = Outputs::create(&config)?;
        let (told, answer) = std::sync::mpsc::sync_channel(1);
        let end = EndOfThread(Arc::clone(&shared));
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                // A namespace belongs to a thread, so this is the one that enters.
                let runtime = match prepare(&config) {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = told.send(Err(error));
                        return;
                    }
                };
                // The caller waits for this, or has gone with the handle: the stop will tell.
                let _ = told.send(Ok(()));
                let summary = runtime.block_on(drive(&config, target, &end.0, outputs));
                end.0.ended.send_replace(Some(Some(summary)));
            })
            .map_err(LoadError::Thread)?;
        match answer.recv() {
            Ok(Ok(())) => Ok(Self { shared }),
            Ok(Err(error)) => Err(error),
            Err(gone) => Err(LoadError::Thread(std::io::Error::other(gone))),
        }
    }

    /// Everything up to now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.record().snapshot(Instant::now())
    }

    /// What happened since `earlier`, a snapshot of this load.
    #[must_use]
    pub fn window(&self, earlier: &Snapshot) -> Window {
        self.snapshot().since(earlier)
    }

    /// The seconds that have passed, in order.
    #[must_use]
    pub fn timeline(&self) -> Vec<Second> {
        let mut record = self.shared.record();
        record.advance(Instant::now());
        record.timeline_from(0)
    }

    /// The bad answers so far, in the order they ended, the first 10,000.
    #[must_use]
    pub fn bad_answers(&self) -> Vec<BadAnswer> {
        self.shared.record().bad_answers()
    }

    /// Changes the rate from now on.
    ///
    /// # Errors
    /// [`LoadError::Bounds`] if it is out of bounds.
    pub fn set_rate(&self, rate: f64) -> Result<(), LoadError> {
        check_rate(rate)?;
        self.shared.rate.send_replace(rate);
        Ok(())
    }

    /// Waits until `seen` holds; asked after every answer. For any runtime with a timer of tokio's.
    ///
    /// # Errors
    /// [`LoadError::NotSeen`] after `deadline`; [`LoadError::Ended`] if the load has ended and it still
    /// does not hold.
    pub async fn wait_for(
        &self,
        deadline: Duration,
        mut seen: impl FnMut(&Snapshot) -> bool,
    ) -> Result<Snapshot, LoadError> {
        let mut progress = self.shared.progress.subscribe();
        let waiting = async {
            loop {
                // Before the snapshot, or an end between the two would go unnoticed.
                let ended = self.shared.ended.borrow().is_some();
                let snapshot = self.snapshot();
                if seen(&snapshot) {
                    return Ok(snapshot);
                }
                // The sender lives as long as this handle.
                if ended || progress.changed().await.is_err() {
                    return Err(LoadError::Ended(Box::new(snapshot)));
                }
            }
        };
        match tokio::time::timeout(deadline, waiting).await {
            Ok(ended) => ended,
            Err(_) => Err(LoadError::NotSeen { waited: deadline, snapshot: Box::new(self.snapshot()) }),
        }
    }

    /// Asks the load to stop; [`LoadHandle::finished`] waits for it.
    pub fn ask_to_stop(&self) {
        self.shared.stop.send_replace(true);
    }

    /// Stops sending, waits for the answers under way (at most the timeout of one), and sums up.
    ///
    /// # Errors
    /// [`LoadError::Ended`] if the load's thread is gone without a summary.
    pub async fn stop(self) -> Result<Summary, LoadError> {
        self.ask_to_stop();
        self.finished().await
    }

    /// Waits for the run's own end, and sums up.
    ///
    /// # Errors
    /// [`LoadError::Ended`] if the load's thread is gone without a summary.
    pub async fn finished(&self) -> Result<Summary, LoadError> {
        let mut ended = self.shared.ended.subscribe();
        let summary = match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Some(summary))) => Some(summary.clone()),
            _ => None,
        };
        match summary {
            Some(summary) => Ok(summary),
            None => Err(LoadError::Ended(Box::new(self.snapshot()))),
        }
    }
}

impl Drop for LoadHandle {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

fn prepare(config: &Config) -> Result<tokio::runtime::Runtime, LoadError> {
    if let Some(path) = &config.network_namespace {
        let failed = |source| LoadError::Namespace { path: path.clone(), source };
        let namespace = File::open(path).map_err(failed)?;
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Thread)
}

async fn drive(config: &Config, target: Target, shared: &Arc<Shared>, mut outputs: Outputs) -> Summary {
    let host = String::from_utf8_lossy(target.host.as_bytes()).into_owned();
    let client = Arc::new(Client::new(config, target));
    let most = u32::try_from(config.in_flight).unwrap_or(u32::MAX);
    let permits = Arc::new(Semaphore::new(config.in_flight));
    let started = tokio::time::Instant::now();
    *shared.record() = Record::new(started.into_std());

    let end = sleep_until(later(started, config.duration));
    let mut tick = interval_at(later(started, SECOND), SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut stop = shared.stop.subscribe();
    let mut rate = shared.rate.subscribe();
    let mut between = Duration::from_secs_f64(1.0 / *rate.borrow_and_update());
    let mut due = started;
    let mut left = config.requests.unwrap_or(u64::MAX);
    tokio::pin!(end);

    let mut why = loop {
        if left == 0 {
            break End::Requests;
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break End::Stopped,
            () = &mut end => break End::Duration,
            _ = tick.tick() => if outputs.write(shared).is_err() {
                break End::OutputFailed;
            },
            // The sender lives in `shared`, so this is a change.
            _ = rate.changed() => {
                between = Duration::from_secs_f64(1.0 / *rate.borrow_and_update());
                due = due.min(later(tokio::time::Instant::now(), between));
            }
            () = sleep_until(due) => {
                let now = Instant::now();
                let overdue = now.saturating_duration_since(due.into_std());
                let permit = Arc::clone(&permits).try_acquire_owned().ok();
                match permit {
                    Some(permit) if overdue <= OVERDUE => {
                        left = left.saturating_sub(1);
                        shared.record().sent(now);
                        let (client, shared) = (Arc::clone(&client), Arc::clone(shared));
                        let due = due.into_std();
                        tokio::spawn(async move {
                            let (version, status) = client.request().await;
                            let now = Instant::now();
                            shared.record().answered(due, now, version.as_deref(), status);
                            shared.progress.send_replace(());
                            drop(permit);
                        });
                    }
                    _ => shared.record().skipped(now),
                }
                due = later(due, between);
            }
        }
    };
    // Every request has a deadline, so this ends; the semaphore is never closed.
    let _ = permits.acquire_many(most).await;
    let now = Instant::now();
    shared.record().close(now);
    let rate = *rate.borrow();
    let url = config.url.clone();
    let summary = shared.record().summary(url, host, rate, why, now);
    if outputs.finish(shared, &summary).is_err() {
        why = End::OutputFailed;
    }
    Summary { end: why, ..summary }
}

const SECOND: Duration = Duration::from_secs(1);

fn later(from: tokio::time::Instant, by: Duration) -> tokio::time::Instant {
    // Both are bounded by the longest run; a clock that far on is the end anyway.
    from.checked_add(by).unwrap_or(from)
}

/// The files that are written while the load runs.
#[derive(Debug)]
struct Outputs {
    lines: Option<BufWriter<File>>,
    written: usize,
    stats_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    summary: &'a Summary,
}

impl Outputs {
    fn create(config: &Config) -> Result<Self, LoadError> {
        let lines = match &config.out {
            Some(path) => Some(BufWriter::new(
                File::create(path).map_err(|source| LoadError::File { path: path.clone(), source })?,
            )),
            None => None,
        };
        Ok(Self { lines, written: 0, stats_file: config.stats_file.clone() })
    }

    /// Writes the seconds that have passed since the last time.
    fn write(&mut self, shared: &Shared) -> std::io::Result<()> {
        let (seconds, snapshot) = {
            let now = Instant::now();
            let mut record = shared.record();
            record.advance(now);
            (record.timeline_from(self.written), record.snapshot(now))
        };
        self.written = self.written.saturating_add(seconds.len());
        if let Some(lines) = &mut self.lines {
            for second in &seconds {
                serde_json::to_writer(&mut *lines, second)?;
                lines.write_all(b"\n")?;
            }
            lines.flush()?;
        }
        if let Some(path) = &self.stats_file {
            // Readers see the old or the new figures, never half of them.
            let new = path.with_extension("new");
            std::fs::write(&new, serde_json::to_vec(&snapshot)?)?;
            std::fs::rename(&new, path)?;
        }
        Ok(())
    }

    fn finish(&mut self, shared: &Shared, summary: &Summary) -> std::io::Result<()> {
        self.write(shared)?;
        if let Some(lines) = &mut self.lines {
            serde_json::to_writer(&mut *lines, &SummaryLine { summary })?;
            lines.write_all(b"\n")?;
            lines.flush()?;
        }
        Ok(())
    }
}
