//! One question for all who ask the same at once. While a counter of a namespace is being asked for, whoever else asks
//! for it waits, and all who wait are answered by one question over all their pods. So a busy operator asks once per
//! counter, not once per release; an idle one waits for nobody. It changes no answer: each gets its own pods' samples,
//! up to its own instant.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use canary_counters::{Instant, LabelNames, NativeSeries, Scope, Selector, Series, Subject};
use futures::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::error::{FetchError, Problem};
use crate::source::MetricSource;

/// Pods in one question; more are asked in turn, so that a query keeps a size that servers take.
const MOST_PODS: usize = 500;

/// Questions further back than this are not shared.
const LONG: Duration = Duration::from_secs(600);

/// Namespace and selector.
type Key = (String, String);
type Answer = Result<Vec<Series>, FetchError>;

/// One who waits for an answer.
#[derive(Debug)]
struct Asker {
    pods: BTreeSet<String>,
    lookback: Duration,
    at: Timestamp,
    answer: oneshot::Sender<Answer>,
}

/// A source whose equal questions are asked once.
#[derive(Debug, Clone)]
pub struct Shared {
    inner: Arc<dyn MetricSource>,
    /// Who waits, by what is being asked just now.
    waiting: Arc<Mutex<HashMap<Key, Vec<Asker>>>>,
}

impl Shared {
    /// Shares the questions to a source. Must be used inside a tokio runtime.
    #[must_use]
    pub fn new(inner: Arc<dyn MetricSource>) -> Self {
        Self { inner, waiting: Arc::default() }
    }

    /// Puts an asker in the queue; whether it is the first and somebody must go and ask.
    fn enqueue(&self, key: &Key, asker: Asker) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !waiting.contains_key(key);
        waiting.entry(key.clone()).or_default().push(asker);
        first
    }

    /// The next askers, as many as fit into one question; where there are none the queue is closed.
    fn next(&self, key: &Key) -> Option<Vec<Asker>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = waiting.get_mut(key)?;
        // Whoever gave up meanwhile needs no answer.
        queue.retain(|asker| !asker.answer.is_closed());
        let mut pods = BTreeSet::new();
        let fit = queue.iter().take_while(|asker| {
            let first = pods.is_empty();
            pods.extend(asker.pods.iter());
            first || pods.len() <= MOST_PODS
        });
        let fit = fit.count();
        if fit == 0 {
            waiting.remove(key);
            return None;
        }
        Some(queue.drain(..fit).collect())
    }

    async fn drive(self, key: Key, selector: Selector, labels: LabelNames) {
        let mut open = Open { shared: &self, key: &key, served: false };
        while let Some(askers) = self.next(&key) {
            let answer = self.ask(&key.0, &selector, &labels, &askers).await;
            // What is wrong with one is not to be the others' trouble.
            let alone = answer.is_err() && askers.len() > 1;
            for asker in askers {
                let again;
                let answer = if alone {
                    again = self.ask(&key.0, &selector, &labels, std::slice::from_ref(&asker)).await;
                    &again
                } else {
                    &answer
                };
                let own = answer.as_ref().map(|series| asker.own(series, &labels.pod)).map_err(Clone::clone);
                // An asker that is gone is nobody's loss.
                let _ = asker.answer.send(own);
            }
        }
        open.served = true;
    }

    async fn ask(&self, namespace: &str, selector: &Selector, labels: &LabelNames, askers: &[Asker]) -> Answer {
        let pods = askers.iter().flat_map(|asker| asker.pods.iter().cloned());
        let scope = Scope::pods(namespace, pods, labels).map_err(|error| self.problem(Problem::Query(error.into())))?;
        let latest = askers.iter().map(|asker| asker.at).max().unwrap_or_default();
        let from = askers.iter().filter_map(|asker| asker.at.checked_sub(asker.lookback).ok()).min().unwrap_or(latest);
        let lookback = Duration::try_from(latest.duration_since(from)).unwrap_or_default();
        self.inner.counters(selector, &scope, lookback, latest).await
    }

    fn problem(&self, problem: Problem) -> FetchError {
        FetchError { provider: self.inner.name().to_owned(), problem }
    }
}

/// A queue that is being served. Whatever ends that, the queue does not stay: who waits in it is told, and the next one
/// begins anew.
struct Open<'a> {
    shared: &'a Shared,
    key: &'a Key,
    /// Served to its end, and closed.
    served: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(self.key);
    }
}

impl Asker {
    /// Of a common answer, what this asker asked for.
    fn own(&self, series: &[Series], pod_label: &str) -> Vec<Series> {
        let until = self.at.as_millisecond();
        let from = self.at.checked_sub(self.lookback).map_or(i64::MIN, Timestamp::as_millisecond);
        let mine = series.iter().filter(|one| self.pods.contains(one.label(pod_label)));
        let cut = mine.map(|one| {
            let samples = one.samples.iter().filter(|sample| sample.at_ms > from && sample.at_ms <= until);
            Series { labels: one.labels.clone(), samples: samples.copied().collect() }
        });
        cut.filter(|one| !one.samples.is_empty()).collect()
    }
}

impl MetricSource for Shared {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn labels(&self) -> &LabelNames {
        self.inner.labels()
    }

    fn scrape_interval(&self) -> Option<Duration> {
        self.inner.scrape_interval()
    }

    fn keeps_history(&self) -> bool {
        self.inner.keeps_history()
    }

    fn requires_pods(&self) -> bool {
        self.inner.requires_pods()
    }

    fn counters<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Series>, FetchError>> {
        let Subject::Pods(pods) = scope.subject() else {
            return self.inner.counters(selector, scope, lookback, at);
        };
        // The past is one release's own matter, and long.
        if lookback > LONG {
            return self.inner.counters(selector, scope, lookback, at);
        }
        async move {
            let key = (scope.namespace().to_owned(), selector.to_string());
            let (answer, answered) = oneshot::channel();
            if self.enqueue(&key, Asker { pods: pods.clone(), lookback, at, answer }) {
                // By a task of its own: the one who began may give up, the others still wait.
                tokio::spawn(self.clone().drive(key, selector.clone(), scope.labels().clone()));
            }
            answered
                .await
                .unwrap_or_else(|_| Err(self.problem(Problem::BrokenOff("the question was given up".to_owned()))))
        }
        .boxed()
    }

    fn natives<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<NativeSeries>, FetchError>> {
        // Rarely asked, and answered with much: not worth waiting for each other.
        self.inner.natives(selector, scope, lookback, at)
    }

    fn value<'a>(
        &'a self,
        query: &'a str,
        scope: &'a Scope,
        require_pods: bool,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Instant, FetchError>> {
        self.inner.value(query, scope, require_pods, at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

    use canary_counters::Sample;
    use tokio::sync::Semaphore;

    use super::*;

    /// Answers each question, once it is let, with one sample a second for each pod that was asked about.
    #[derive(Debug)]
    struct Slow {
        labels: LabelNames,
        asked: Mutex<Vec<BTreeSet<String>>>,
        lets: Semaphore,
    }

    impl Slow {
        fn new() -> Arc<Self> {
            Arc::new(Self { labels: LabelNames::default(), asked: Mutex::default(), lets: Semaphore::new(0) })
        }

        fn asked(&self) -> Vec<BTreeSet<String>> {
            self.asked.lock().unwrap().clone()
        }
    }

    impl MetricSource for Slow {
        fn name(&self) -> &str {
            "slow"
        }

        fn labels(&self) -> &LabelNames {
            &self.labels
        }

        fn counters<'a>(
            &'a self,
            _: &'a Selector,
            scope: &'a Scope,
            lookback: Duration,
            at: Timestamp,
        ) -> BoxFuture<'a, Answer> {
            async move {
                let Subject::Pods(pods) = scope.subject() else { return Ok(Vec::new()) };
                self.asked.lock().unwrap().push(pods.clone());
                self.lets.acquire().await.unwrap().forget();
                assert!(!pods.contains("fatal"), "asked about a fatal pod");
                if pods.contains("refused") {
                    return Err(FetchError { provider: "slow".to_owned(), problem: Problem::Partial });
                }
                let from = at.checked_sub(lookback).unwrap().as_second();
                let samples: Vec<Sample> = (from + 1..=at.as_second())
                    .map(|second| Sample { at_ms: second * 1000, value: second as f64 })
                    .collect();
                let series = |pod: &String| Series {
                    labels: [("pod".to_owned(), pod.clone())].into(),
                    samples: samples.clone(),
                };
                Ok(pods.iter().map(series).collect())
            }
            .boxed()
        }

        fn value<'a>(
            &'a self,
            _: &'a str,
            _: &'a Scope,
            _: bool,
            _: Timestamp,
        ) -> BoxFuture<'a, Result<Instant, FetchError>> {
            async move { Ok(Instant::Scalar(0.0)) }.boxed()
        }
    }

    fn asking(shared: &Shared, pods: &[&str], second: i64) -> tokio::task::JoinHandle<Vec<Series>> {
        let answer = trying(shared, pods, second);
        tokio::spawn(async move { answer.await.unwrap().unwrap() })
    }

    fn trying(shared: &Shared, pods: &[&str], second: i64) -> tokio::task::JoinHandle<Answer> {
        let (shared, pods) = (shared.clone(), pods.iter().map(|pod| (*pod).to_owned()).collect::<Vec<_>>());
        tokio::spawn(async move {
            let scope = Scope::pods("shop", pods, shared.labels()).unwrap();
            let selector = Selector::parse("requests_total").unwrap();
            let at = Timestamp::from_second(second).unwrap();
            shared.counters(&selector, &scope, Duration::from_secs(3), at).await
        })
    }

    fn seen(series: &[Series]) -> Vec<(String, Vec<i64>)> {
        let samples = |one: &Series| one.samples.iter().map(|sample| sample.at_ms / 1000).collect();
        series.iter().map(|one| (one.label("pod").to_owned(), samples(one))).collect()
    }

    /// Until everything that can go on without an answer has.
    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_asks_while_a_question_is_out_shares_the_next_one() {
        let slow = Slow::new();
        let shared = Shared::new(slow.clone());
        let first = asking(&shared, &["a"], 100);
        settle().await;
        let second = asking(&shared, &["b"], 101);
        let third = asking(&shared, &["c", "b"], 102);
        settle().await;
        assert_eq!(slow.asked().len(), 1);
        slow.lets.add_permits(2);
        assert_eq!(seen(&first.await.unwrap()), [("a".to_owned(), vec![98, 99, 100])]);
        assert_eq!(seen(&second.await.unwrap()), [("b".to_owned(), vec![99, 100, 101])]);
        let third = seen(&third.await.unwrap());
        assert_eq!(third, [("b".to_owned(), vec![100, 101, 102]), ("c".to_owned(), vec![100, 101, 102])]);
        let asked: Vec<usize> = slow.asked().iter().map(BTreeSet::len).collect();
        assert_eq!(asked, [1, 2]);
    }

    #[tokio::test]
    async fn one_who_gives_up_takes_nobodys_answer_and_the_queue_is_closed_after_all() {
        let slow = Slow::new();
        let shared = Shared::new(slow.clone());
        let gone = asking(&shared, &["a"], 100);
        settle().await;
        let waits = asking(&shared, &["b"], 100);
        settle().await;
        gone.abort();
        slow.lets.add_permits(2);
        assert_eq!(seen(&waits.await.unwrap()).len(), 1);
        settle().await;
        assert!(shared.waiting.lock().unwrap().is_empty());
        slow.lets.add_permits(1);
        assert_eq!(seen(&asking(&shared, &["c"], 100).await.unwrap()).len(), 1);
    }

    #[tokio::test]
    async fn what_is_wrong_with_one_askers_pods_is_not_the_others_trouble() {
        let slow = Slow::new();
        let shared = Shared::new(slow.clone());
        let first = asking(&shared, &["a"], 100);
        settle().await;
        let (good, bad) = (asking(&shared, &["b"], 100), trying(&shared, &["refused"], 100));
        settle().await;
        // The first, both together, and each of them alone.
        slow.lets.add_permits(4);
        assert_eq!(seen(&first.await.unwrap()).len(), 1);
        assert_eq!(seen(&good.await.unwrap()).len(), 1);
        assert!(matches!(bad.await.unwrap(), Err(FetchError { problem: Problem::Partial, .. })));
        assert_eq!(slow.asked().iter().map(BTreeSet::len).collect::<Vec<_>>(), [1, 2, 1, 1]);
    }

    #[tokio::test]
    async fn a_question_that_dies_leaves_nobody_waiting() {
        let slow = Slow::new();
        let shared = Shared::new(slow.clone());
        let dies = trying(&shared, &["fatal"], 100);
        settle().await;
        let behind = trying(&shared, &["b"], 100);
        settle().await;
        slow.lets.add_permits(2);
        for asker in [dies, behind] {
            assert!(matches!(asker.await.unwrap(), Err(FetchError { problem: Problem::BrokenOff(_), .. })));
        }
        assert_eq!(seen(&asking(&shared, &["c"], 100).await.unwrap()).len(), 1);
    }

    #[tokio::test]
    async fn a_service_and_a_native_histogram_are_asked_about_as_they_are() {
        let source = Arc::new(crate::fake::FakeSource::new());
        let sample = |at_ms: i64| canary_counters::NativeSample { at_ms, count: 1.0, buckets: Vec::new() };
        let labels = [("pod".to_owned(), "a".to_owned())];
        let native = NativeSeries { labels: labels.into(), samples: vec![sample(99_000)] };
        source.set_native("latency_seconds", vec![native.clone()]);
        let labels = [("service".to_owned(), "web".to_owned())];
        let counted = Series { labels: labels.into(), samples: vec![Sample { at_ms: 99_000, value: 1.0 }] };
        source.set_counter("requests_total", Ok(vec![counted.clone()]));
        let shared = Shared::new(source);
        let (at, back) = (Timestamp::from_second(100).unwrap(), Duration::from_secs(60));
        let histogram = Selector::parse("latency_seconds").unwrap();
        let pods = Scope::pods("shop", ["a"], shared.labels()).unwrap();
        let answer = shared.histogram(&histogram, &pods, back, at).await;
        assert_eq!(answer, Ok(canary_counters::Histogram::Native(vec![native])));
        let requests = Selector::parse("requests_total").unwrap();
        let service = Scope::service("shop", "web", shared.labels()).unwrap();
        assert_eq!(shared.counters(&requests, &service, back, at).await, Ok(vec![counted]));
    }

    #[tokio::test]
    async fn a_question_has_a_bounded_number_of_pods() {
        let slow = Slow::new();
        let shared = Shared::new(slow.clone());
        let names: Vec<Vec<String>> =
            (0..3).map(|part| (0..300).map(|pod| format!("p{part}-{pod}")).collect()).collect();
        let all: Vec<_> = names
            .iter()
            .map(|names| asking(&shared, &names.iter().map(String::as_str).collect::<Vec<_>>(), 100))
            .collect();
        settle().await;
        slow.lets.add_permits(3);
        for one in all {
            assert_eq!(one.await.unwrap().len(), 300);
        }
        assert!(slow.asked().iter().all(|pods| pods.len() <= MOST_PODS));
    }
}
