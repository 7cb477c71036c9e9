//! The time of day that ticks decide by. It begins with this machine's, goes on by the monotonic clock, and is set where
//! the API server's own time, the `Date` of its answers, says otherwise: what a tick compares it with, in the status and
//! in pods, are times of the cluster. So a machine whose clock is wrong, or is set while a release runs, neither cuts a
//! stage short nor lets a deadline pass. Deadlines and delays of calls never ask here; they follow the monotonic clock.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// How far off the clock may seem before it is set: the clocks of a cluster's machines are never quite the same.
const TOLERANCE: Duration = Duration::from_secs(1);
/// A `Date` is cut to whole seconds.
const CUT: Duration = Duration::from_secs(1);

/// A clock; clones share the time.
#[derive(Clone)]
pub struct Clock {
    source: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// What is added to it.
    set: Arc<Mutex<SignedDuration>>,
}

impl Clock {
    /// A clock that says what `source` says, until it is set.
    pub fn new(source: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { source: Arc::new(source), set: Arc::default() }
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let set = *self.set.lock().unwrap_or_else(PoisonError::into_inner);
        (self.source)().checked_add(set).unwrap_or(Timestamp::MAX)
    }

    /// Takes in the `Date` of an answer to what was asked at `asked`. An answer that was long on its way says less.
    pub fn heard(&self, date: &str, asked: Instant) {
        let Ok(date) = DateTimeParser::new().parse_timestamp(date) else { return };
        // It was `date` somewhere between question and answer, so that it is at most so much later now.
        let late = CUT.saturating_add(asked.elapsed());
        let shown = self.now();
        let (Ok(least), Ok(most)) = (date.checked_sub(TOLERANCE), date.checked_add(late.saturating_add(TOLERANCE)))
        else {
            return;
        };
        if shown >= least && shown <= most {
            return;
        }
        let time = date.checked_add(late.checked_div(2).unwrap_or_default()).unwrap_or(date);
        tracing::warn!(%shown, set = %time, "this machine's clock differs from the API server's, which is followed");
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        *set = set.saturating_add(time.duration_since(shown));
    }
}

impl Default for Clock {
    /// This machine's time of now, going on by the monotonic clock.
    fn default() -> Self {
        let (began, time) = (Instant::now(), Timestamp::now());
        Self::new(move || time.checked_add(began.elapsed()).unwrap_or(Timestamp::MAX))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn at(text: &str) -> Clock {
        let (began, time) = (Instant::now(), time(text));
        Clock::new(move || time.checked_add(began.elapsed()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_right_is_left_alone() {
        let clock = at("2026-01-01T00:00:10.9Z");
        let asked = Instant::now();
        for date in ["Thu, 01 Jan 2026 00:00:10 GMT", "Thu, 01 Jan 2026 00:00:11 GMT", "nonsense", ""] {
            clock.heard(date, asked);
            assert_eq!(clock.now(), time("2026-01-01T00:00:10.9Z"), "{date}");
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(clock.now(), time("2026-01-01T00:00:12.4Z"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_long_on_its_way_sets_nothing_that_it_does_not_refute() {
        let clock = at("2026-01-01T00:00:00Z");
        let asked = Instant::now();
        tokio::time::sleep(Duration::from_secs(30)).await;
        clock.heard("Thu, 01 Jan 2026 00:00:01 GMT", asked);
        assert_eq!(clock.now(), time("2026-01-01T00:00:30Z"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_off_follows_the_api_server() {
        for off in ["2026-01-01T01:00:00Z", "2025-12-31T23:00:00Z", "1970-01-01T00:00:00Z", "2026-01-01T00:00:03Z"] {
            let clock = at(off);
            clock.heard("Thu, 01 Jan 2026 00:00:00 GMT", Instant::now());
            assert_eq!(clock.now(), time("2026-01-01T00:00:00.5Z"), "{off}");
        }
    }
}
