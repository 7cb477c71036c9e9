//! Decides how answers are counted: by version and status, cumulative and for each second, with the
//! time of the first and last answer of each and of every bad one. It never drops a count; only the log
//! of bad answers has an end, and says what it left out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::handle::End;
use super::latency::{Latency, Percentiles};

/// The version of an answer that carries none: a gateway's own, or no answer at all.
pub const NO_VERSION: &str = "-";
/// Stands for the version of answers beyond [`MOST_VERSIONS`] or with an unusable one.
const OTHER_VERSION: &str = "other";
const MOST_VERSIONS: usize = 64;
const LONGEST_VERSION: usize = 64;
const MOST_BAD_ANSWERS: usize = 10_000;

/// Why there was no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The connection was refused or no route leads there.
    Connect,
    /// The connection was not made in time.
    ConnectTimeout,
    /// Connected, but no whole answer in time.
    Timeout,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the whole answer.
    Closed,
    /// What came is not HTTP.
    Protocol,
    /// The body is larger than the client reads.
    TooLarge,
    /// Anything else.
    Other,
}

impl ErrorKind {
    const ALL: [Self; 8] = [
        Self::Connect,
        Self::ConnectTimeout,
        Self::Timeout,
        Self::Reset,
        Self::Closed,
        Self::Protocol,
        Self::TooLarge,
        Self::Other,
    ];

    /// The kind as one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect-timeout",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::TooLarge => "too-large",
            Self::Other => "other",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// A whole answer with this HTTP code.
    Code(u16),
    /// No whole answer.
    Error(ErrorKind),
}

impl Status {
    /// Anything but a whole answer with a code from 200 to 299.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        !matches!(self, Self::Code(200..=299))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => code.fmt(f),
            Self::Error(kind) => f.write_str(kind.as_str()),
        }
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(code) = text.parse() {
            return Ok(Self::Code(code));
        }
        ErrorKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .map(Self::Error)
            .ok_or_else(|| format!("unknown status {text:?}"))
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Answers by version, then by status. In JSON: `{"v1":{"200":99,"500":1},"-":{"timeout":1}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts(pub BTreeMap<String, BTreeMap<Status, u64>>);

impl Counts {
    fn add(&mut self, version: &str, status: Status) {
        if !self.0.contains_key(version) {
            self.0.insert(version.to_owned(), BTreeMap::new());
        }
        if let Some(statuses) = self.0.get_mut(version) {
            let count = statuses.entry(status).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Every version, status and count.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Status, u64)> {
        self.0.iter().flat_map(|(version, statuses)| {
            statuses.iter().map(move |(status, count)| (version.as_str(), *status, *count))
        })
    }

    fn sum(&self, wanted: impl Fn(&str, Status) -> bool) -> u64 {
        self.iter().filter(|(version, status, _)| wanted(version, *status)).map(|(_, _, count)| count).sum()
    }

    /// All answers, missing ones included.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.sum(|_, _| true)
    }

    /// Answers of this version, whatever their status.
    #[must_use]
    pub fn version(&self, version: &str) -> u64 {
        self.sum(|found, _| found == version)
    }

    /// Answers with this status, whatever their version.
    #[must_use]
    pub fn status(&self, status: Status) -> u64 {
        self.sum(|_, found| found == status)
    }

    /// Answers of this version with this status.
    #[must_use]
    pub fn of(&self, version: &str, status: Status) -> u64 {
        self.sum(|found, with| found == version && with == status)
    }

    /// Bad answers ([`Status::is_bad`]).
    #[must_use]
    pub fn bad(&self) -> u64 {
        self.sum(|_, status| status.is_bad())
    }

    /// Bad answers of this version.
    #[must_use]
    pub fn bad_of(&self, version: &str) -> u64 {
        self.sum(|found, status| found == version && status.is_bad())
    }

    /// This version's share of the answers that carry a version, 0 to 1; `None` if none does.
    #[must_use]
    pub fn share(&self, version: &str) -> Option<f64> {
        let all = self.sum(|found, _| found != NO_VERSION);
        // Counts stay far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        (all > 0).then(|| self.version(version) as f64 / all as f64)
    }

    /// What was added since `earlier`, an older state of the same counts.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = Self::default();
        for (version, status, count) in self.iter() {
            let count = count.saturating_sub(earlier.of(version, status));
            if count > 0 {
                difference.0.entry(version.to_owned()).or_default().insert(status, count);
            }
        }
        difference
    }
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since the load started, by the monotonic clock.
    pub elapsed_ms: u64,
    /// The same as milliseconds since 1970: the start by the wall clock, plus `elapsed_ms`.
    pub unix_ms: u64,
}

/// When answers of a kind were first and last seen, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The first answer's last byte.
    pub first: Moment,
    /// The last answer's last byte.
    pub last: Moment,
    /// How many.
    pub count: u64,
}

/// One bad answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadAnswer {
    /// When it ended.
    pub at: Moment,
    /// The version that gave it, [`NO_VERSION`] if unknown.
    pub version: String,
    /// What was bad.
    pub status: Status,
    /// Milliseconds from due to ended.
    pub latency_ms: u64,
}

/// One second of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Whole seconds since the start: this one is from `t` to `t + 1`.
    pub t: u64,
    /// Its beginning in milliseconds since 1970.
    pub unix_ms: u64,
    /// Requests sent in it.
    pub sent: u64,
    /// Requests due in it and not sent: too many under way, or the client was held up.
    pub skipped: u64,
    /// Answers that ended in it, whenever their request was sent.
    pub answers: Counts,
    /// Their latencies; `None` without answers.
    pub latency: Option<Percentiles>,
}

/// Everything up to now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken.
    pub at: Moment,
    /// Requests sent.
    pub sent: u64,
    /// Requests due and not sent: too many under way, or the client was held up.
    pub skipped: u64,
    /// Requests under way: `sent` less all answers.
    pub in_flight: u64,
    /// Answers.
    pub answers: Counts,
    /// First and last answer of each version.
    pub versions: BTreeMap<String, Seen>,
}

impl Snapshot {
    /// The last answer of this version, good or bad.
    #[must_use]
    pub fn last_answer(&self, version: &str) -> Option<Moment> {
        self.versions.get(version).map(|seen| seen.last)
    }

    /// The first answer of this version, good or bad.
    #[must_use]
    pub fn first_answer(&self, version: &str) -> Option<Moment> {
        self.versions.get(version).map(|seen| seen.first)
    }

    /// What happened from `earlier`, of the same load, to this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Window {
        Window {
            from: earlier.at,
            to: self.at,
            sent: self.sent.saturating_sub(earlier.sent),
            skipped: self.skipped.saturating_sub(earlier.skipped),
            answers: self.answers.since(&earlier.answers),
        }
    }
}

/// What happened between two snapshots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// The earlier snapshot's time.
    pub from: Moment,
    /// The later snapshot's time.
    pub to: Moment,
    /// Requests sent between.
    pub sent: u64,
    /// Requests due between and not sent.
    pub skipped: u64,
    /// Answers that ended between.
    pub answers: Counts,
}

/// One version in the summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionSummary {
    /// First and last answer, and how many.
    #[serde(flatten)]
    pub seen: Seen,
    /// How many of them were bad.
    pub bad: u64,
    /// Their latencies.
    pub latency: Option<Percentiles>,
}

/// The whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The destination.
    pub url: String,
    /// The Host header.
    pub host: String,
    /// The rate asked for last, in requests per second.
    pub rate: f64,
    /// The start in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// The end, after the last answer.
    pub ended: Moment,
    /// Why it ended.
    pub end: End,
    /// Requests sent; equals all answers, since every one has ended.
    pub sent: u64,
    /// Requests due and not sent.
    pub skipped: u64,
    /// Answers.
    pub answers: Counts,
    /// Bad answers.
    pub bad: u64,
    /// Each version.
    pub versions: BTreeMap<String, VersionSummary>,
    /// Latencies of all.
    pub latency: Option<Percentiles>,
    /// The bad answers in the order they ended, the first 10,000.
    pub bad_answers: Vec<BadAnswer>,
    /// Bad answers beyond those.
    pub bad_answers_left_out: u64,
}

#[derive(Debug)]
struct PerVersion {
    seen: Seen,
    latency: Latency,
}

/// Counts while the load runs.
#[derive(Debug)]
pub(super) struct Record {
    started: Instant,
    started_unix_ms: u64,
    sent: u64,
    skipped: u64,
    answers: Counts,
    versions: BTreeMap<String, PerVersion>,
    latency: Latency,
    bad_answers: Vec<BadAnswer>,
    bad_answers_left_out: u64,
    /// The second under way.
    second: Second,
    second_latency: Latency,
    timeline: Vec<Second>,
    closed: bool,
}

impl Record {
    pub(super) fn new(started: Instant) -> Self {
        // The wall clock at `started`, not now: the two are read apart.
        let wall = SystemTime::now().checked_sub(started.elapsed()).unwrap_or(UNIX_EPOCH);
        let started_unix_ms = wall.duration_since(UNIX_EPOCH).map_or(0, whole_ms);
        Self {
            started,
            started_unix_ms,
            sent: 0,
            skipped: 0,
            answers: Counts::default(),
            versions: BTreeMap::new(),
            latency: Latency::default(),
            bad_answers: Vec::new(),
            bad_answers_left_out: 0,
            second: empty_second(0, started_unix_ms),
            second_latency: Latency::default(),
            timeline: Vec::new(),
            closed: false,
        }
    }

    pub(super) fn moment(&self, at: Instant) -> Moment {
        let elapsed_ms = whole_ms(at.saturating_duration_since(self.started));
        Moment { elapsed_ms, unix_ms: self.started_unix_ms.saturating_add(elapsed_ms) }
    }

    /// Closes the seconds that have passed at `now`, empty ones included.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        let current = now.saturating_duration_since(self.started).as_secs();
        while self.second.t < current {
            let t = self.second.t.saturating_add(1);
            let unix_ms = self.started_unix_ms.saturating_add(t.saturating_mul(1_000));
            let mut ended = std::mem::replace(&mut self.second, empty_second(t, unix_ms));
            ended.latency = std::mem::take(&mut self.second_latency).percentiles();
            self.timeline.push(ended);
        }
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.advance(now);
        self.sent = self.sent.saturating_add(1);
        self.second.sent = self.second.sent.saturating_add(1);
    }

    pub(super) fn skipped(&mut self, now: Instant) {
        self.advance(now);
        self.skipped = self.skipped.saturating_add(1);
        self.second.skipped = self.second.skipped.saturating_add(1);
    }

    pub(super) fn answered(&mut self, due: Instant, now: Instant, version: Option<&str>, status: Status) {
        self.advance(now);
        let version = self.name_of(version).to_owned();
        let latency = now.saturating_duration_since(due);
        let at = self.moment(now);
        self.answers.add(&version, status);
        self.second.answers.add(&version, status);
        self.latency.add(latency);
        self.second_latency.add(latency);
        if status.is_bad() {
            if self.bad_answers.len() < MOST_BAD_ANSWERS {
                self.bad_answers.push(BadAnswer {
                    at,
                    version: version.clone(),
                    status,
                    latency_ms: whole_ms(latency),
                });
            } else {
                self.bad_answers_left_out = self.bad_answers_left_out.saturating_add(1);
            }
        }
        let per_version = self.versions.entry(version).or_insert_with(|| PerVersion {
            seen: Seen { first: at, last: at, count: 0 },
            latency: Latency::default(),
        });
        per_version.seen.last = at;
        per_version.seen.count = per_version.seen.count.saturating_add(1);
        per_version.latency.add(latency);
    }

    /// The name to count under: a header from outside must not grow the tables without bound.
    fn name_of<'a>(&self, version: Option<&'a str>) -> &'a str {
        match version {
            None => NO_VERSION,
            Some(version) if self.versions.contains_key(version) => version,
            Some(version)
                if !version.is_empty() && version.len() <= LONGEST_VERSION && self.versions.len() < MOST_VERSIONS =>
            {
                version
            }
            Some(_) => OTHER_VERSION,
        }
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        Snapshot {
            at: self.moment(now),
            sent: self.sent,
            skipped: self.skipped,
            in_flight: self.sent.saturating_sub(self.answers.total()),
            answers: self.answers.clone(),
            versions: self.versions.iter().map(|(version, found)| (version.clone(), found.seen)).collect(),
        }
    }

    /// The finished seconds from index `from` on.
    pub(super) fn timeline_from(&self, from: usize) -> Vec<Second> {
        self.timeline.get(from..).unwrap_or_default().to_vec()
    }

    pub(super) fn bad_answers(&self) -> Vec<BadAnswer> {
        self.bad_answers.clone()
    }

    /// Ends the timeline, with the second under way although it has not passed.
    pub(super) fn close(&mut self, now: Instant) {
        self.advance(now);
        self.closed = true;
        let mut ended = std::mem::replace(&mut self.second, empty_second(0, 0));
        ended.latency = std::mem::take(&mut self.second_latency).percentiles();
        if ended.sent > 0 || ended.skipped > 0 || ended.answers.total() > 0 {
            self.timeline.push(ended);
        }
    }

    pub(super) fn summary(&self, url: String, host: String, rate: f64, end: End, now: Instant) -> Summary {
        Summary {
            url,
            host,
            rate,
            started_unix_ms: self.started_unix_ms,
            ended: self.moment(now),
            end,
            sent: self.sent,
            skipped: self.skipped,
            bad: self.answers.bad(),
            versions: self
                .versions
                .iter()
                .map(|(version, found)| {
                    let summary = VersionSummary {
                        seen: found.seen,
                        bad: self.answers.bad_of(version),
                        latency: found.latency.percentiles(),
                    };
                    (version.clone(), summary)
                })
                .collect(),
            answers: self.answers.clone(),
            latency: self.latency.percentiles(),
            bad_answers: self.bad_answers.clone(),
            bad_answers_left_out: self.bad_answers_left_out,
        }
    }
}

fn empty_second(t: u64, unix_ms: u64) -> Second {
    Second { t, unix_ms, sent: 0, skipped: 0, answers: Counts::default(), latency: None }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const OK: Status = Status::Code(200);
    const FAILED: Status = Status::Code(500);
    const LATE: Status = Status::Error(ErrorKind::Timeout);

    fn record() -> (Record, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let record = Record::new(start);
        (record, move |ms| start.checked_add(Duration::from_millis(ms)).unwrap())
    }

    #[test]
    fn every_answer_is_counted_in_the_second_it_ended() {
        let (mut record, at) = record();
        record.sent(at(10));
        record.answered(at(10), at(20), Some("v1"), OK);
        record.sent(at(990));
        record.answered(at(990), at(3_010), Some("v2"), FAILED);
        record.skipped(at(3_020));
        record.close(at(3_100));
        let seconds = record.timeline_from(0);
        assert_eq!(seconds.iter().map(|second| second.t).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(seconds[0].sent, 2);
        assert_eq!(seconds[0].answers.of("v1", OK), 1);
        assert_eq!(seconds[1].answers.total(), 0);
        assert_eq!(seconds[1].latency, None);
        assert_eq!(seconds[3].answers.of("v2", FAILED), 1);
        assert_eq!(seconds[3].skipped, 1);
        assert_eq!(seconds[3].unix_ms, seconds[0].unix_ms + 3_000);
        assert_eq!(record.timeline_from(3).len(), 1);
        assert_eq!(record.timeline_from(9).len(), 0);
    }

    #[test]
    fn first_last_and_bad_answers_have_their_time() {
        let (mut record, at) = record();
        for (ms, version, status) in [
            (100, Some("v1"), OK),
            (200, Some("v2"), OK),
            (300, Some("v2"), FAILED),
            (400, None, LATE),
            (500, Some("v1"), OK),
        ] {
            record.sent(at(ms));
            record.answered(at(ms), at(ms + 7), version, status);
        }
        let snapshot = record.snapshot(at(1_000));
        assert_eq!(snapshot.first_answer("v2").unwrap().elapsed_ms, 207);
        assert_eq!(snapshot.last_answer("v2").unwrap().elapsed_ms, 307);
        assert_eq!(snapshot.last_answer("v3"), None);
        assert_eq!(snapshot.in_flight, 0);
        assert_eq!(snapshot.answers.share("v2"), Some(0.5));
        let bad = record.bad_answers();
        assert_eq!(bad.len(), 2);
        assert_eq!((bad[0].at.elapsed_ms, bad[0].status), (307, FAILED));
        assert_eq!((bad[1].version.as_str(), bad[1].latency_ms), (NO_VERSION, 7));
    }

    #[test]
    fn a_window_is_the_exact_difference_of_two_snapshots() {
        let (mut record, at) = record();
        record.sent(at(1));
        record.answered(at(1), at(2), Some("v1"), OK);
        let before = record.snapshot(at(3));
        record.sent(at(4));
        record.sent(at(5));
        record.answered(at(4), at(6), Some("v1"), OK);
        record.answered(at(5), at(7), Some("v2"), OK);
        let window = record.snapshot(at(8)).since(&before);
        assert_eq!(window.sent, 2);
        assert_eq!(window.answers.total(), 2);
        assert_eq!(window.answers.of("v2", OK), 1);
        assert_eq!(window.to.elapsed_ms - window.from.elapsed_ms, 5);
    }

    #[test]
    fn a_server_cannot_grow_the_tables_without_bound() {
        let (mut record, at) = record();
        for n in 0..1_000 {
            record.answered(at(1), at(2), Some(&format!("v{n}")), OK);
        }
        record.answered(at(1), at(2), Some(&"x".repeat(65)), OK);
        let snapshot = record.snapshot(at(3));
        assert!(snapshot.versions.len() <= MOST_VERSIONS + 1);
        assert_eq!(snapshot.answers.total(), 1_001);
        for _ in 0..MOST_BAD_ANSWERS {
            record.answered(at(1), at(2), None, LATE);
            record.answered(at(1), at(2), None, LATE);
        }
        let summary = record.summary(String::new(), String::new(), 1.0, End::Stopped, at(4));
        assert_eq!(summary.bad_answers.len(), MOST_BAD_ANSWERS);
        assert_eq!(summary.bad_answers_left_out, 10_000);
        assert_eq!(summary.bad, 20_000);
    }

    #[test]
    fn counts_survive_json() {
        let mut counts = Counts::default();
        counts.add("v1", OK);
        counts.add(NO_VERSION, LATE);
        let text = serde_json::to_string(&counts).unwrap();
        assert_eq!(text, r#"{"-":{"timeout":1},"v1":{"200":1}}"#);
        assert_eq!(serde_json::from_str::<Counts>(&text).unwrap(), counts);
        for kind in ErrorKind::ALL {
            let status = Status::Error(kind);
            assert_eq!(status.to_string().parse::<Status>().unwrap(), status);
        }
    }
}
