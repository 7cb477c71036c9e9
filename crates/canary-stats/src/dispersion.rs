//! How bursty events are: the Pearson statistic of counts per tick over its degrees of freedom (McCullagh and Nelder
//! 1989, section 4.5), measured on the stable side pod by pod, since a stable pod's traffic is like a canary pod's. It
//! only measures; [`Dispersion`] says what a test does with it.

use crate::counts::{EventCounts, ShareCounts};
use crate::process::Dispersion;

/// Events below which nothing can be said of bursts.
const LEAST_EVENTS: f64 = 20.0;

/// A measured dispersion and what it rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredDispersion {
    /// What a test should divide by; 1 where too little was seen.
    pub phi: Dispersion,
    /// The statistic itself, before it was brought into bounds; 1 where too little was seen.
    pub statistic: f64,
    /// Events seen.
    pub events: f64,
    /// Pods with at least two ticks of traffic.
    pub pods: u32,
    /// Degrees of freedom: ticks with traffic less one, over all pods.
    pub freedom: f64,
}

impl MeasuredDispersion {
    /// Of shares: for each pod its counts per tick.
    pub fn of_shares<'a, P, T>(pods: P) -> Self
    where
        P: IntoIterator<Item = T>,
        T: IntoIterator<Item = &'a ShareCounts>,
    {
        Self::of(pods.into_iter().map(|ticks| ticks.into_iter().map(|tick| (tick.k(), tick.n())).collect()), true)
    }

    /// Of events: for each pod its counts per tick; `expected` may be any measure of time or traffic.
    pub fn of_events<'a, P, T>(pods: P) -> Self
    where
        P: IntoIterator<Item = T>,
        T: IntoIterator<Item = &'a EventCounts>,
    {
        Self::of(
            pods.into_iter().map(|ticks| ticks.into_iter().map(|tick| (tick.k(), tick.expected())).collect()),
            false,
        )
    }

    fn of(pods: impl Iterator<Item = Vec<(f64, f64)>>, shares: bool) -> Self {
        let (mut statistic, mut freedom, mut events, mut counted) = (0.0, 0.0, 0.0, 0_u32);
        for mut ticks in pods {
            ticks.retain(|(_, exposure)| *exposure > 0.0);
            let k: f64 = ticks.iter().map(|(k, _)| k).sum();
            let all: f64 = ticks.iter().map(|(_, exposure)| exposure).sum();
            events += k;
            let rate = k / all;
            let spread = if shares { rate * (1.0 - rate) } else { rate };
            if ticks.len() < 2 || spread <= 0.0 || !spread.is_finite() {
                continue;
            }
            counted = counted.saturating_add(1);
            freedom += ticks.len() as f64 - 1.0;
            statistic += ticks.iter().map(|(k, n)| (k - n * rate).powi(2) / (n * spread)).sum::<f64>();
        }
        let statistic = if events < LEAST_EVENTS || freedom <= 0.0 { 1.0 } else { statistic / freedom };
        Self { phi: Dispersion::measured(statistic), statistic, events, pods: counted, freedom }
    }
}
