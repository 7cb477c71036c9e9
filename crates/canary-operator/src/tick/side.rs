//! One side's counters at one tick, gate by gate: requests and bad ones, pod by pod where that is asked for, and both
//! sides at a common time where they are compared, the stable one by its baseline pods where these have traffic. What a gate's warm-up leaves out is taken away here, and told. It
//! counts; it never judges.

use std::collections::BTreeMap;

use canary_api::{By, CanaryRelease, Gate, Scope, To};
use canary_core::{
    evidence::{LeftOut, Paired, Totals},
    gates::Measure,
    traffic::Requests,
};
use canary_counters::{
    HistogramReading, HistogramUnit, LabelNames, Latency, Measured, Meter, Reading, Selector, Tick, WarmUp, histogram,
    measure,
};
use canary_stats::Buckets;
use jiff::Timestamp;

use super::questions::{Answer, Answers, Found, Question, Subject};

/// The gates' warm-ups on one side, by gate.
pub(super) type WarmUps = BTreeMap<String, WarmUp>;

/// What one tick's answers are read by.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) answers: &'a Answers,
    pub(super) labels: &'a LabelNames,
    /// The answers hold every sample from then on.
    pub(super) covered_from: Timestamp,
    pub(super) at: Timestamp,
}

impl Look<'_> {
    fn tick(&self, side: &Subject, by: By) -> Tick {
        Tick {
            now_ms: self.at.as_millisecond(),
            covered_from_ms: self.covered_from.as_millisecond(),
            pods: if by.is_pod() { side.pods.clone() } else { Vec::new() },
            grouping: side.grouping(by, self.labels),
        }
    }
}

/// One side's counters at this tick.
pub(super) struct Side {
    /// The requests of `traffic.requests`, all of them.
    requests: Result<Reading, Measured>,
    gates: BTreeMap<String, Counted>,
}

/// What a canary is held against.
#[derive(Clone, Copy)]
pub(super) struct Others<'a> {
    /// The target's pods.
    pub(super) stable: &'a Side,
    /// The pods of the serving version beside the canary's, where the release has such.
    pub(super) baseline: Option<&'a Side>,
    /// Whether those have traffic.
    pub(super) beside: bool,
}

/// What one gate counts on this side.
struct Counted {
    judged: Counts,
    /// Requests and bad ones that its warm-up leaves out.
    left_out: (f64, f64),
    /// The part of the requests that is judged, 0 to 1.
    part: f64,
}

/// A gate's counters.
enum Counts {
    /// `errorRate`.
    Share { total: Reading, bad: Reading },
    /// `latency`; with the failed requests' own counter, where it has one.
    Slow { histogram: HistogramReading, failed: Option<Reading>, latency: Latency },
    /// `eventRate` and `relative`.
    Events { requests: Reading, events: Reading },
    /// They can't be told; why.
    Nothing(Measured),
}

impl Side {
    /// Takes a tick's answers into the side's meter.
    pub(super) fn read(
        meter: &mut Meter,
        warm_ups: &mut WarmUps,
        look: Look<'_>,
        side: &Subject,
        release: &CanaryRelease,
    ) -> Self {
        let mut taken = Taken::new(meter, look, side);
        let requests = taken.reading(&Question::requests(release));
        let mut gates = BTreeMap::new();
        for gate in release.spec.gates.iter().filter(|gate| gate.value.is_none()) {
            let all = taken.counts(gate, &requests);
            let warm_up = warm_ups.entry(gate.name.clone()).or_default();
            let length = gate.warm_up.map_or(0, canary_api::Duration::millis);
            warm_up.set_length(i64::try_from(length).unwrap_or(i64::MAX));
            gates.insert(gate.name.clone(), Counted::new(gate, all, warm_up));
        }
        Self { requests, gates }
    }

    /// All requests, where the samples of all pods that have traffic are fresh.
    pub(super) fn requests_beside(&self, others: Others<'_>) -> Option<Requests> {
        let (own, of_stable) = (self.fresh_requests()?, others.stable.fresh_requests()?);
        let beside = match others.baseline {
            Some(baseline) if others.beside => Some(baseline.fresh_requests()?),
            // What they counted before stays counted.
            Some(baseline) => baseline.requests.as_ref().ok(),
            None => None,
        };
        let sampled = own.sampled_ms();
        let known_to = *sampled.iter().min()?;
        Some(Requests {
            canary: own.total(),
            stable: of_stable.total() + beside.map_or(0.0, Reading::total),
            known_to,
            newest: *sampled.iter().max()?,
            stable_then: of_stable.total_at(known_to) + beside.map_or(0.0, |beside| beside.total_at(known_to)),
        })
    }

    /// The requests, where all pods' samples are fresh.
    pub(super) fn fresh_requests(&self) -> Option<&Reading> {
        let requests = self.requests.as_ref().ok()?;
        // None counted is an answer too, where all the counters are there and fresh.
        requests.is_fresh().then_some(requests)
    }

    /// How long the requests of a latency gate took, or why that is not known.
    pub(super) fn durations(&self, gate: &Gate) -> Result<Buckets, String> {
        let counted = self.gates.get(&gate.name).map(|counted| &counted.judged);
        let histogram = match counted {
            Some(Counts::Slow { histogram, .. }) => histogram,
            Some(Counts::Nothing(why)) => return Err(why.why().unwrap_or_default().to_owned()),
            _ => return Err("the gate has no histogram".to_owned()),
        };
        if histogram.native {
            return Err("of a native histogram only the buckets around the limit are counted".to_owned());
        }
        if !histogram.total.has_series() {
            return Err(format!("{} has no series", histogram.total.counter));
        }
        let boundaries = histogram.boundaries.iter().map(|boundary| (boundary.le, boundary.fast.total()));
        Buckets::new(boundaries, histogram.total.total()).map_err(|error| error.to_string())
    }

    /// The unit of a latency gate's histogram.
    pub(super) fn unit(gate: &Gate) -> &'static str {
        match gate.latency.as_ref().map(unit) {
            Some(HistogramUnit::Milliseconds) => "ms",
            Some(HistogramUnit::Seconds) | None => "s",
        }
    }

    /// A gate's totals on this side and the others, `seconds` into the window; with `by_pod` the stable pods one by
    /// one.
    pub(super) fn totals(&self, others: Others<'_>, gate: &Gate, seconds: f64, by_pod: bool) -> Totals {
        let (Some(own), Some(stable)) = (self.gates.get(&gate.name), others.stable.gates.get(&gate.name)) else {
            let nothing = Measure::Error("the gate has no counter".to_owned());
            return Totals::new(&gate.name, nothing.clone(), nothing);
        };
        let baseline = others.baseline.and_then(|side| side.gates.get(&gate.name));
        let (mut of_stable, mut compared, mut baseline_pods) = (stable.measure(gate, seconds), vec![stable], None);
        match baseline {
            // Like with like.
            Some(baseline) if others.beside && to_stable(gate) => {
                baseline_pods = Some(baseline.measure(gate, seconds));
                compared = vec![baseline];
            }
            // A limit on events is the whole service's, and these are a part of it.
            Some(baseline) if gate.event_rate.is_some() => {
                of_stable = together(of_stable, baseline.measure(gate, seconds), others.beside);
                compared.push(baseline);
            }
            _ => {}
        }
        let paired = compares(gate).then(|| own.judged.paired(&compared, others.beside)).flatten();
        Totals {
            proof: own.judged.proof(gate).map(|proof| as_measure(proof, seconds)),
            paired,
            baseline_pods,
            stable_pods: if by_pod { stable.judged.pods() } else { BTreeMap::new() },
            left_out: LeftOut { canary: own.left_out, stable: stable.left_out },
            ..Totals::new(&gate.name, own.measure(gate, seconds), of_stable)
        }
    }
}

fn to_stable(gate: &Gate) -> bool {
    gate.relative.as_ref().is_some_and(|rule| rule.to == To::Stable)
}

/// Whether a gate holds both sides against each other.
fn compares(gate: &Gate) -> bool {
    to_stable(gate) || gate.event_rate.as_ref().is_some_and(|rule| rule.scope == Scope::Total)
}

/// Events of the stable pods and of the baseline pods. Of those with traffic nothing may be missing.
fn together(stable: Measure, baseline: Measure, beside: bool) -> Measure {
    let (why, more_n, more_k) = match baseline {
        Measure::Counted { n, k, .. } => (None, n, k),
        Measure::Partial { n, k, why, .. } => (Some(why).filter(|_| beside), n, k),
        missing if beside => return missing,
        _ => return stable,
    };
    match (stable, why) {
        (Measure::Counted { n, k, seconds }, None) => Measure::Counted { n: n + more_n, k: k + more_k, seconds },
        (Measure::Counted { n, k, seconds }, Some(why)) | (Measure::Partial { n, k, seconds, why }, _) => {
            Measure::Partial { n: n + more_n, k: k + more_k, seconds, why }
        }
        (missing, _) => missing,
    }
}

impl Counted {
    fn new(gate: &Gate, all: Counts, warm_up: &mut WarmUp) -> Self {
        if warm_up.is_none() {
            return Self { judged: all, left_out: (0.0, 0.0), part: 1.0 };
        }
        let judged = all.warm(gate, warm_up);
        let (n, k) = all.measured().counts().unwrap_or_default();
        let (judged_n, judged_k) = judged.measured().counts().unwrap_or_default();
        let left_out = ((n - judged_n).max(0.0), (k - judged_k).max(0.0));
        Self { judged, left_out, part: if n > 0.0 { judged_n / n } else { 1.0 } }
    }

    fn measure(&self, gate: &Gate, seconds: f64) -> Measure {
        // Events are held against the time in which they were counted, less what is not judged of it.
        let seconds = match &self.judged {
            Counts::Events { requests, .. } if gate.event_rate.is_some() => {
                covered(requests).unwrap_or(seconds) * self.part
            }
            _ => seconds,
        };
        as_measure(self.judged.measured(), seconds)
    }
}

/// Seconds that a counter's samples cover: from the window's beginning to the newest sample, in the mean of the pods
/// that are there; and one interval more, since a window's first sample also counts what came just before it. A look
/// that brings no sample brings no time either.
fn covered(reading: &Reading) -> Option<f64> {
    let newest: Vec<f64> =
        reading.sampled_ms().into_iter().map(|newest| newest.saturating_sub(reading.since_ms).max(0) as f64).collect();
    if newest.is_empty() {
        return None;
    }
    let mean = newest.iter().sum::<f64>() / newest.len() as f64;
    Some((mean + reading.interval_ms.unwrap_or(0) as f64) / 1000.0)
}

impl Counts {
    fn slow(gate: &Gate, histogram: HistogramReading, failed: Option<Reading>) -> Self {
        let Some(rule) = &gate.latency else { return Self::none() };
        let latency = histogram::latency(&histogram, limit(rule), failed.as_ref());
        Self::Slow { histogram, failed, latency }
    }

    fn none() -> Self {
        Self::Nothing(Measured::Error("the gate has no counter".to_owned()))
    }

    /// The same without what its pods counted while they warmed up.
    fn warm(&self, gate: &Gate, warm_up: &mut WarmUp) -> Self {
        match self {
            Self::Share { total, bad } => {
                Self::Share { bad: warm_up.judged(total, bad), total: warm_up.judged(total, total) }
            }
            Self::Slow { histogram, failed, .. } => {
                let failed = failed.as_ref().map(|failed| warm_up.judged(&histogram.total, failed));
                Self::slow(gate, warm_up.judged_histogram(histogram), failed)
            }
            Self::Events { requests, events } => {
                Self::Events { events: warm_up.judged(requests, events), requests: warm_up.judged(requests, requests) }
            }
            Self::Nothing(why) => Self::Nothing(why.clone()),
        }
    }

    /// k of n, over a time that the caller knows.
    fn measured(&self) -> Measured {
        match self {
            Self::Share { total, bad } => measure::share(total, bad),
            Self::Slow { latency, .. } => latency.breach.clone(),
            // Events are compared per request; their time is the window's.
            Self::Events { requests, events } => with_n(measure::event_rate(events, Some(requests)), requests.total()),
            Self::Nothing(why) => why.clone(),
        }
    }

    /// For the question whether a limit is proved to be kept, where that counts otherwise.
    fn proof(&self, gate: &Gate) -> Option<Measured> {
        match self {
            Self::Slow { latency, .. } => Some(latency.proof.clone()),
            Self::Nothing(why) if gate.latency.is_some() => Some(why.clone()),
            Self::Share { .. } | Self::Events { .. } | Self::Nothing(_) => None,
        }
    }

    /// Requests and events, of a gate that counts those.
    fn events(&self) -> Option<(&Reading, &Reading)> {
        match self {
            Self::Events { requests, events } => Some((requests, events)),
            Self::Share { .. } | Self::Slow { .. } | Self::Nothing(_) => None,
        }
    }

    /// Both sides up to the same time: events of one side must not be held against requests that the other has not been
    /// asked about. The stable one may be of two groups of pods, of which the second is waited for where it has traffic.
    fn paired(&self, stable: &[&Counted], beside: bool) -> Option<Paired> {
        let own = self.events()?;
        let groups = stable.iter().map(|group| group.judged.events()).collect::<Option<Vec<_>>>()?;
        let mut at = own.0.newest_ms()?;
        for (requests, _) in groups.iter().take(if beside { groups.len() } else { 1 }) {
            at = at.min(requests.newest_ms()?);
        }
        Some(Paired {
            canary_events: own.1.total_at(at),
            stable_events: groups.iter().map(|(_, events)| events.total_at(at)).sum(),
            canary_requests: own.0.total_at(at),
            stable_requests: groups.iter().map(|(requests, _)| requests.total_at(at)).sum(),
        })
    }

    /// Requests and bad ones, pod by pod.
    fn pods(&self) -> BTreeMap<String, (f64, f64)> {
        let of = |reading: &Reading, name: &str| reading.pods.get(name).map_or(0.0, |pod| pod.total);
        let paired = |all: &Reading, bad: &dyn Fn(&str) -> f64| -> BTreeMap<String, (f64, f64)> {
            all.pods.iter().map(|(name, pod)| (name.clone(), (pod.total, bad(name)))).collect()
        };
        match self {
            Self::Share { total, bad } => paired(total, &|name| of(bad, name)),
            Self::Slow { histogram, latency, .. } => {
                let limit = latency.breach_le;
                let fast = histogram.boundaries.iter().find(|boundary| Some(boundary.le) == limit);
                let Some(fast) = fast else { return BTreeMap::new() };
                paired(&histogram.total, &|name| of(&histogram.total, name) - of(&fast.fast, name))
            }
            Self::Events { requests, events } if !told_apart_alike(requests, events) => BTreeMap::new(),
            Self::Events { requests, events } => paired(requests, &|name| of(events, name)),
            Self::Nothing(_) => BTreeMap::new(),
        }
    }
}

/// Whether two counters have pods, or a gateway's addresses, in common; one without series has all.
fn told_apart_alike(requests: &Reading, events: &Reading) -> bool {
    !events.has_series() || events.pods.keys().any(|name| requests.pods.contains_key(name))
}

/// A tick's answers as this side's meter has taken them.
struct Taken<'a> {
    meter: &'a mut Meter,
    by_pod: Tick,
    by_service: Tick,
    answers: BTreeMap<&'a Question, Answer>,
    readings: BTreeMap<&'a Question, Result<Reading, String>>,
}

impl<'a> Taken<'a> {
    fn new(meter: &'a mut Meter, look: Look<'a>, side: &Subject) -> Self {
        let (by_pod, by_service) = (look.tick(side, By::Pod), look.tick(side, By::Service));
        let answers = look.answers.of(side, look.labels);
        for (_, answer) in answers.iter().filter(|(question, _)| question.by().is_pod()) {
            answer.iter().for_each(|found| meter.witness(&found.counts(), &by_pod));
        }
        // A gateway that was seen to count the one Service would have shown the other, had that had a request.
        look.answers.of_gateways().for_each(|found| meter.witness(&found.counts(), &by_service));
        let mut taken = Self { meter, by_pod, by_service, answers, readings: BTreeMap::new() };
        taken.absorb();
        taken
    }

    fn absorb(&mut self) {
        for (question, answer) in self.answers.iter().filter(|(question, _)| !question.is_histogram()) {
            let tick = if question.by().is_pod() { &self.by_pod } else { &self.by_service };
            let reading = answer.as_ref().map_err(Clone::clone).and_then(|found| {
                self.meter.absorb(&question.name(), &found.counts(), tick).map_err(|error| error.to_string())
            });
            self.readings.insert(question, reading);
        }
    }

    fn reading(&self, question: &Question) -> Result<Reading, Measured> {
        match self.readings.get(question) {
            Some(Ok(reading)) => Ok(reading.clone()),
            Some(Err(why)) => Err(Measured::Error(why.clone())),
            None => Err(Measured::Error(format!("{} is not a counter selector", question.name()))),
        }
    }

    fn counts(&mut self, gate: &Gate, requests: &Result<Reading, Measured>) -> Counts {
        self.try_counts(gate, requests).unwrap_or_else(Counts::Nothing)
    }

    fn try_counts(&mut self, gate: &Gate, requests: &Result<Reading, Measured>) -> Result<Counts, Measured> {
        let reading = |text: &String| self.reading(&Question::counter(text, gate.by));
        if let Some(rule) = &gate.error_rate {
            return Ok(Counts::Share { total: reading(&rule.total)?, bad: reading(&rule.bad)? });
        }
        if let Some(rule) = &gate.latency {
            let failed = rule.failed.as_ref().and_then(|text| reading(text).ok());
            return Ok(Counts::slow(gate, self.histogram(gate, rule)?, failed));
        }
        let rate = gate.event_rate.as_ref().map(|rule| &rule.counter);
        let Some(counter) = rate.or_else(|| gate.relative.as_ref().map(|rule| &rule.counter)) else {
            return Ok(Counts::none());
        };
        Ok(Counts::Events { requests: requests.clone()?, events: reading(counter)? })
    }

    /// A histogram's figures are taken for each gate by itself: which requests failed is the gate's to say.
    fn histogram(&mut self, gate: &Gate, rule: &canary_api::Latency) -> Result<HistogramReading, Measured> {
        let question = Question::histogram(&rule.histogram, gate.by);
        let not_good = rule.failed.as_deref().and_then(|text| Selector::parse(text).ok());
        let name = format!("{} ({})", question.name(), gate.name);
        let tick = if gate.by.is_pod() { &self.by_pod } else { &self.by_service };
        let reading = match self.answers.get(&question) {
            Some(Ok(Found::Series(buckets))) => self.meter.absorb_histogram(&name, buckets, not_good.as_ref(), tick),
            Some(Ok(Found::Natives(natives))) => {
                self.meter.absorb_native(&name, natives, limit(rule), not_good.as_ref(), tick)
            }
            Some(Err(why)) => return Err(Measured::Error(why.clone())),
            None => return Err(Measured::Error(format!("{} is not a histogram's name", rule.histogram))),
        };
        Ok(reading?)
    }
}

fn unit(rule: &canary_api::Latency) -> HistogramUnit {
    Selector::parse(&rule.histogram).map_or(HistogramUnit::Seconds, |selector| HistogramUnit::of(selector.metric()))
}

/// A gate's limit in its histogram's unit.
fn limit(rule: &canary_api::Latency) -> f64 {
    unit(rule).limit(u32::try_from(rule.limit.millis()).unwrap_or(u32::MAX))
}

fn with_n(measured: Measured, requests: f64) -> Measured {
    match measured {
        Measured::Counted { k, .. } => Measured::Counted { n: requests, k },
        Measured::Stale { why, k, .. } => Measured::Stale { why, n: requests, k },
        other => other,
    }
}

fn as_measure(measured: Measured, seconds: f64) -> Measure {
    match measured {
        Measured::Counted { n, k } => Measure::Counted { n, k, seconds },
        Measured::Stale { why, n, k } => Measure::Partial { n, k, seconds, why },
        Measured::NoData(why) => Measure::NoData(why),
        Measured::Error(why) => Measure::Error(why),
    }
}
