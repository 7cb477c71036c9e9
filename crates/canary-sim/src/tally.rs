//! How many releases ended where, with the share of them and its interval. It counts; it judges nothing.

use std::collections::BTreeMap;

use canary_stats::{ShareCounts, interval};
use serde::Serialize;

use crate::play::{End, Place};

/// Of the intervals that are shown.
const CONFIDENCE: f64 = 0.95;

/// A part of all releases.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// So many of them.
    pub runs: u32,
    /// As a share, 0 to 1.
    pub share: f64,
    /// Where the true share lies with 95% confidence (Wilson): the lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Part {
    /// So many of all.
    #[must_use]
    pub fn of(runs: u32, all: u32) -> Self {
        let counts = ShareCounts::new(f64::from(all), f64::from(runs.min(all)));
        let interval = counts.and_then(|counts| interval::wilson(&counts, CONFIDENCE));
        let (low, high) = interval.map_or((0.0, 1.0), |interval| (interval.low, interval.high));
        Self { runs, share: f64::from(runs) / f64::from(all.max(1)), low, high }
    }
}

/// Releases that ended alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Where.
    pub place: Place,
    /// The gate that broke, or the reason.
    pub by: String,
    /// So many.
    pub runs: u32,
}

/// How releases ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ends {
    /// The candidate went live.
    pub promoted: u32,
    /// Reverted, by place and gate.
    pub rolled_back: Vec<Ended>,
    /// Waiting for a person, by place and reason.
    pub paused: Vec<Ended>,
    /// Not over when they should have been.
    pub unfinished: u32,
}

impl Ends {
    /// Counts ends.
    #[must_use]
    pub fn of<'a>(ends: impl IntoIterator<Item = &'a End>) -> Self {
        let mut all = Self::default();
        let (mut rolled_back, mut paused) = (BTreeMap::new(), BTreeMap::new());
        for end in ends {
            let count = match end {
                End::Promoted => &mut all.promoted,
                End::Unfinished => &mut all.unfinished,
                End::RolledBack { place, by } => rolled_back.entry((*place, by.clone())).or_default(),
                End::Paused { place, reason } => paused.entry((*place, reason.clone())).or_default(),
            };
            *count = count.saturating_add(1);
        }
        let listed = |counts: BTreeMap<(Place, String), u32>| {
            counts.into_iter().map(|((place, by), runs)| Ended { place, by, runs }).collect()
        };
        all.rolled_back = listed(rolled_back);
        all.paused = listed(paused);
        all
    }

    /// All that were reverted.
    #[must_use]
    pub fn reverted(&self) -> u32 {
        sum(&self.rolled_back)
    }

    /// Those that were reverted at a place.
    #[must_use]
    pub fn reverted_at(&self, place: Place) -> u32 {
        self.rolled_back
            .iter()
            .filter(|ended| ended.place == place)
            .fold(0, |all, ended| all.saturating_add(ended.runs))
    }

    /// Those that wait for a person at a place.
    #[must_use]
    pub fn paused_at(&self, place: Place) -> u32 {
        self.paused.iter().filter(|ended| ended.place == place).fold(0, |all, ended| all.saturating_add(ended.runs))
    }

    /// All that wait for a person.
    #[must_use]
    pub fn paused_in_all(&self) -> u32 {
        sum(&self.paused)
    }
}

fn sum(ended: &[Ended]) -> u32 {
    ended.iter().fold(0, |all, ended| all.saturating_add(ended.runs))
}
