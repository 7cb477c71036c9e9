//! Series and ticks by hand.
#![allow(dead_code)]

use canary_counters::{Grouping, PodKnown, Sample, Series, Tick};

/// `code=500,pod=web-a` and `[(seconds, value)]`.
pub(crate) fn series(labels: &str, samples: &[(i64, f64)]) -> Series {
    Series {
        labels: labels
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap())
            .collect(),
        samples: samples.iter().map(|(at, value)| Sample { at_ms: at * 1000, value: *value }).collect(),
    }
}

/// At `now` seconds, with a minute of lookback, of pods with their starts in seconds.
pub(crate) fn tick(now: i64, pods: &[(&str, i64)]) -> Tick {
    Tick {
        now_ms: now * 1000,
        covered_from_ms: (now - 60) * 1000,
        pods: pods.iter().map(|(name, at)| PodKnown { name: (*name).to_owned(), started_at_ms: at * 1000 }).collect(),
        grouping: Grouping::Pod("pod".to_owned()),
    }
}
