//! Counts of the past as if a release had been there: a part of what the service counted, as large as the stage's
//! weight, stands for the canary, the rest for the stable side. It makes nothing up and knows no limit.
//!
//! At each stage whole pods are taken where some have together the weight's share of the requests, up to a fifth of
//! it: so bursts and differences between pods stay as they were. Where no pods have it, each tick's counts of the
//! service are thinned: each request, and each bad one, is the canary's with the weight as its chance.

use std::collections::BTreeSet;

use canary_api::CanaryReleaseSpec;
use fastrand::Rng;
use jiff::Timestamp;

use crate::{
    past::{Cell, Past},
    sample,
    traffic::{AllTotals, GateTotals, Split, Traffic},
};

/// How far from the weight the share of whole pods may be, as a part of the weight.
const NEAR: f64 = 0.2;

/// What stands for the canary.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Canary {
    /// These pods, by their place in the past.
    Pods(BTreeSet<usize>),
    /// A random part of every pod's requests.
    Part,
}

/// A release on the counts of the past.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    past: &'a Past,
    rng: Rng,
    /// Ticks of each stage.
    stages: Vec<usize>,
    canary: Option<(usize, Canary)>,
    totals: AllTotals,
    /// Stages that were played with whole pods, and with parts of all.
    taken: Taken,
}

/// How many stages were played in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) whole_pods: u32,
    pub(crate) thinned: u32,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(past: &'a Past, spec: &CanaryReleaseSpec, seed: u64) -> Self {
        let ticks = |stage: &canary_api::Stage| {
            let millis = i64::try_from(stage.duration.millis()).unwrap_or(i64::MAX);
            usize::try_from(millis.checked_div(past.tick_ms()).unwrap_or(1)).unwrap_or(1)
        };
        let gates = vec![GateTotals::default(); past.gates()];
        Self {
            past,
            rng: Rng::with_seed(seed),
            stages: spec.stages.iter().map(ticks).collect(),
            canary: None,
            totals: AllTotals { gates, ..AllTotals::default() },
            taken: Taken::default(),
        }
    }

    pub(crate) const fn taken(&self) -> Taken {
        self.taken
    }

    /// Chooses what stands for the canary from a tick on.
    fn choose(&mut self, tick: usize, split: &Split) {
        if split.share <= 0.0
            || split.share >= 1.0
            || self.canary.as_ref().is_some_and(|(stage, _)| *stage == split.stage)
        {
            return;
        }
        let ticks = self.stages.get(split.stage).copied().unwrap_or(1).max(1);
        let pods = self.whole_pods(tick, tick.saturating_add(ticks), split.share);
        let count = if pods.is_some() { &mut self.taken.whole_pods } else { &mut self.taken.thinned };
        *count = count.saturating_add(1);
        self.canary = Some((split.stage, pods.map_or(Canary::Part, Canary::Pods)));
    }

    /// Pods that are there all the time and have together about this share of the requests.
    fn whole_pods(&mut self, from: usize, to: usize, share: f64) -> Option<BTreeSet<usize>> {
        let width = self.past.width();
        let requests = |index: usize| -> f64 {
            let pod = self.past.all().get(index);
            pod.into_iter()
                .flat_map(|pod| (from..to).filter_map(|tick| pod.cell(tick, width)))
                .map(|cell| cell.requests())
                .sum()
        };
        let counts: Vec<f64> = (0..self.past.pods()).map(requests).collect();
        let all: f64 = counts.iter().sum();
        let stays =
            |index: &usize| self.past.all().get(*index).is_some_and(|pod| pod.first <= from && pod.end(width) >= to);
        let mut candidates: Vec<usize> = (0..self.past.pods()).filter(stays).collect();
        self.rng.shuffle(&mut candidates);
        let (mut chosen, mut sum) = (BTreeSet::new(), 0.0);
        for index in candidates {
            let requests = counts.get(index).copied().unwrap_or(0.0);
            if requests > 0.0 && sum + requests <= share * (1.0 + NEAR) * all {
                chosen.insert(index);
                sum += requests;
            }
            if sum >= share * (1.0 - NEAR) * all && sum > 0.0 {
                return Some(chosen);
            }
        }
        None
    }

    fn tick(&mut self, tick: usize, split: &Split) {
        let width = self.past.width();
        let past = self.past;
        let cells =
            past.all().iter().enumerate().filter_map(|(index, pod)| Some((index, &pod.name, pod.cell(tick, width)?)));
        let mut service = vec![0.0; width];
        for (index, name, cell) in cells {
            let own = match (&self.canary, split.share) {
                (_, share) if share <= 0.0 => Some(false),
                (_, share) if share >= 1.0 => Some(true),
                (Some((_, Canary::Pods(pods))), _) => Some(pods.contains(&index)),
                _ => None,
            };
            match own {
                Some(canary) => {
                    self.give(&cell, canary);
                    if split.baseline {
                        self.keep_apart(name, &cell);
                    }
                }
                None => {
                    let figures = std::iter::once(cell.requests())
                        .chain((0..past.gates()).flat_map(|gate| <[f64; 2]>::from(cell.gate(gate))));
                    service.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
                }
            }
        }
        self.thin(&service, split.share);
        self.totals.incomplete =
            (!past.covered(tick)).then(|| "the metrics store has no samples of that time".to_owned());
    }

    /// A pod's counts are one side's.
    fn give(&mut self, cell: &Cell<'_>, canary: bool) {
        let requests = if canary { &mut self.totals.canary_requests } else { &mut self.totals.stable_requests };
        *requests += cell.requests();
        for (index, gate) in self.totals.gates.iter_mut().enumerate() {
            let (n, k) = cell.gate(index);
            if canary { gate.canary.add(n, k) } else { gate.stable.add(n, k) }
        }
    }

    fn keep_apart(&mut self, name: &str, cell: &Cell<'_>) {
        for (index, gate) in self.totals.gates.iter_mut().enumerate() {
            let (n, k) = cell.gate(index);
            gate.stable_pods.entry(name.to_owned()).or_default().add(n, k);
        }
    }

    /// The service's counts, parted at random.
    fn thin(&mut self, service: &[f64], share: f64) {
        let rng = &mut self.rng;
        let mut part = |count: f64| {
            let whole = count.round().max(0.0) as u64;
            let own = sample::bad(rng, whole, share) as f64;
            (own, whole as f64 - own)
        };
        let mut figures = service.iter().copied();
        let (canary, stable) = part(figures.next().unwrap_or(0.0));
        self.totals.canary_requests += canary;
        self.totals.stable_requests += stable;
        for gate in &mut self.totals.gates {
            let (n, k) = (figures.next().unwrap_or(0.0), figures.next().unwrap_or(0.0));
            let (bad, stable_bad) = part(k);
            let (good, stable_good) = part(n - k);
            gate.canary.add(good + bad, bad);
            gate.stable.add(stable_good + stable_bad, stable_bad);
        }
    }
}

impl Traffic for Replay<'_> {
    fn advance(&mut self, from: Timestamp, to: Timestamp, split: &Split) {
        let (first, end) = (self.past.tick_after(from.as_millisecond()), self.past.tick_after(to.as_millisecond()));
        if end > first {
            self.choose(first, split);
        }
        for tick in first..end {
            self.tick(tick, split);
        }
    }

    fn totals(&self) -> &AllTotals {
        &self.totals
    }
}
