//! Requests as rates that change only at known times, and what each pod has counted of them at any time. So counters can
//! be scraped at any interval without a step for each scrape.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// Requests of one Service to one pod, or to nobody.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    /// The Service.
    pub service: String,
    /// Name and image of the pod; none where no pod is there to answer.
    pub pod: Option<(String, String)>,
    /// Requests a second.
    pub rate: f64,
    /// The share of bad answers.
    pub errors: f64,
}

/// What a pod had counted at a time, and how it counts on from there.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Mark {
    at: Timestamp,
    all: f64,
    bad: f64,
    rate: f64,
    errors: f64,
}

impl Mark {
    fn until(&self, at: Timestamp) -> (f64, f64) {
        let seconds = at.duration_since(self.at).as_secs_f64().max(0.0);
        (self.all + self.rate * seconds, self.bad + self.rate * self.errors * seconds)
    }
}

/// One pod's counters.
#[derive(Debug, Clone)]
pub struct Counter {
    /// The pod's image.
    pub image: String,
    marks: Vec<Mark>,
    /// From when it could be scraped.
    began: Timestamp,
    ended: Option<Timestamp>,
}

impl Counter {
    /// Requests and bad answers up to then, where the pod ran then.
    #[must_use]
    pub fn at(&self, at: Timestamp) -> Option<(f64, f64)> {
        if at < self.began || self.ended.is_some_and(|ended| at >= ended) {
            return None;
        }
        let index = self.marks.partition_point(|mark| mark.at <= at);
        Some(self.marks.get(index.checked_sub(1)?)?.until(at))
    }
}

/// All traffic.
#[derive(Debug)]
pub struct Traffic {
    /// Requests a second that arrive at the gateway.
    pub rate: f64,
    /// Counters by pod, of pods that are gone too.
    pub counters: BTreeMap<String, Counter>,
    /// Requests that found no pod, by Service.
    pub unanswered: BTreeMap<String, f64>,
    /// Answers by image: all, and bad ones.
    pub answered: BTreeMap<String, (f64, f64)>,
    /// By image: since when it has its share of bad answers, and how many it had given by then.
    pub turned: BTreeMap<String, (Timestamp, f64)>,
    flow: Vec<Flow>,
    since: Timestamp,
}

impl Traffic {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            rate: 100.0,
            counters: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            answered: BTreeMap::new(),
            turned: BTreeMap::new(),
            flow: Vec::new(),
            since: now,
        }
    }

    /// Where requests go from now on, and which pods count.
    pub(super) fn set(&mut self, flow: Vec<Flow>, alive: Vec<(String, String)>, now: Timestamp) {
        self.account(now);
        for (pod, image) in alive {
            self.counters.entry(pod).or_insert_with(|| Counter {
                image,
                marks: vec![Mark { at: now, all: 0.0, bad: 0.0, rate: 0.0, errors: 0.0 }],
                began: now,
                ended: None,
            });
        }
        if flow == self.flow {
            return;
        }
        let mut rates: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for one in &flow {
            if let Some((pod, _)) = &one.pod {
                let (rate, bad) = rates.entry(pod).or_default();
                *rate += one.rate;
                *bad += one.rate * one.errors;
            }
        }
        for (pod, counter) in &mut self.counters {
            let (rate, bad) = rates.get(pod.as_str()).copied().unwrap_or_default();
            let errors = if rate > 0.0 { bad / rate } else { 0.0 };
            let Some(last) = counter.marks.last().copied() else { continue };
            if (last.rate, last.errors) != (rate, errors) {
                let (all, bad) = last.until(now);
                counter.marks.push(Mark { at: now, all, bad, rate, errors });
            }
        }
        self.flow = flow;
    }

    /// A pod is gone.
    pub(super) fn ended(&mut self, pod: &str, now: Timestamp) {
        if let Some(counter) = self.counters.get_mut(pod) {
            counter.ended.get_or_insert(now);
        }
    }

    /// Adds up what was answered, and what was not, until now.
    pub fn account(&mut self, now: Timestamp) {
        let seconds = now.duration_since(self.since).as_secs_f64();
        self.since = now;
        for one in &self.flow {
            match &one.pod {
                Some((_, image)) => {
                    let (all, bad) = self.answered.entry(image.clone()).or_default();
                    *all += one.rate * seconds;
                    *bad += one.rate * one.errors * seconds;
                }
                None => *self.unanswered.entry(one.service.clone()).or_default() += one.rate * seconds,
            }
        }
    }

    /// The share of the requests that a version's pods get now.
    #[must_use]
    pub fn share(&self, image: &str) -> f64 {
        let all: f64 = self.flow.iter().map(|one| one.rate).sum();
        let own = |one: &&Flow| one.pod.as_ref().is_some_and(|(_, of)| of == image);
        if all > 0.0 { self.flow.iter().filter(own).map(|one| one.rate).sum::<f64>() / all } else { 0.0 }
    }

    /// Requests a second that a Service gets now.
    #[must_use]
    pub fn flows_to(&self, service: &str) -> f64 {
        self.flow.iter().filter(|one| one.service == service).map(|one| one.rate).sum()
    }

    /// The times at which a pod was scraped, oldest first, after `from` and until `until`. Each pod has its own rhythm.
    #[must_use]
    pub fn scrapes(&self, pod: &str, every: Duration, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
        let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
        let offset = pod.bytes().fold(7_i64, |sum, byte| (sum * 31 + i64::from(byte)) % every);
        let first = (from.as_millisecond() - offset).div_euclid(every) + 1;
        let last = (until.as_millisecond() - offset).div_euclid(every);
        (first..=last).filter_map(|number| Timestamp::from_millisecond(number * every + offset).ok()).collect()
    }
}
