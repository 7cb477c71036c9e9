//! What a stage can know before it has run: which bad share it would detect, after how many requests, and whether it
//! can prove its limit. Computed, not simulated: the chance of having crossed the boundary of the test is followed from
//! look to look. It decides nothing; it says what a decision will be worth.
//!
//! Approximations. The fault is there from the stage's start. Of the mixture only the test from the start is counted, so
//! that E must reach 2/α. Up to 1000 requests every one is a look (a tick of many requests looks a little less often),
//! then looks are 1 % apart, and from 500 bad requests expected at the limit only the end counts. Rates and ratios are
//! looked at at the end only, and [`detectable_ratio`] takes the stable side's events as their expectation. Simulated
//! stages detect what is said with 80 % in 78 to 90 %, what is said with 95 % in 93 to 97 % (see the tests).

use crate::binomial::{AboveLimit, BelowLimit};
use crate::budget::Alpha;
use crate::counts::count;
use crate::error::StatsError;
use crate::interval::share_where;
use crate::mixture::FIRST;
use crate::poisson::EventRate;
use crate::process::Process;
use crate::relative::Relative;
use crate::special::{ln_lower_tail, poisson_at_most};
use crate::verdict::LEAST_BAD;

/// Requests up to which every one is a look.
const DENSE: f64 = 1000.0;
/// Later looks are so far apart.
const STEP: f64 = 0.01;
/// Bad requests at the limit beyond which only the end of the stage is looked at.
const SLOW: f64 = 500.0;
/// Requests beyond which nothing is searched.
const MOST: f64 = 1e9;
/// Probability that may be lost on the way.
const LOST: f64 = 1e-13;

/// What one share gate can know from so many requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShareKnowledge {
    /// The bad share that is detected in 80 % of releases; `None`: not even a total failure.
    pub detects_80: Option<f64>,
    /// The bad share that is detected in 95 % of releases.
    pub detects_95: Option<f64>,
    /// The least limit that these requests would prove, if none of them were bad.
    pub proves: Option<f64>,
    /// Whether these requests can prove the limit itself, if none of them were bad.
    pub can_prove: bool,
    /// Requests, none of them bad, that prove the limit.
    pub clean_requests_to_prove: f64,
}

/// What a share gate with a limit and a budget knows from `requests`; `proof` is the level of the mirror test.
///
/// # Errors
/// Where the limit is no share or the requests no count.
pub fn share_gate(limit: f64, alpha: Alpha, proof: Alpha, requests: f64) -> Result<ShareKnowledge, StatsError> {
    let test = AboveLimit::new(limit)?;
    let looks = Looks::until(&test, alpha, count(requests)?);
    let clean_requests_to_prove = clean_requests_to_prove(limit, proof)?;
    Ok(ShareKnowledge {
        detects_80: looks.detectable(0.8),
        detects_95: looks.detectable(0.95),
        proves: provable(requests, proof),
        can_prove: requests >= clean_requests_to_prove,
        clean_requests_to_prove,
    })
}

/// The chance that a stage of so many requests calls a true bad share a breach.
///
/// # Errors
/// Where the limit is no share, the share not between 0 and 1, or the requests no count.
pub fn chance_to_detect(limit: f64, alpha: Alpha, requests: f64, share: f64) -> Result<f64, StatsError> {
    let test = AboveLimit::new(limit)?;
    if !(0.0..=1.0).contains(&share) {
        return Err(StatsError::Limit(share));
    }
    let share = share.clamp(1e-12, 1.0 - 1e-9);
    Ok(Looks::until(&test, alpha, count(requests)?).power(share).clamp(0.0, 1.0))
}

/// Canary requests after which a true bad share has been called in a share `power` of releases; `None` where more than
/// 10^9 would be needed, as for shares at or below the limit.
///
/// # Errors
/// Where the limit or share is no share, or the power no probability.
pub fn requests_to_detect(limit: f64, alpha: Alpha, share: f64, power: f64) -> Result<Option<f64>, StatsError> {
    let test = AboveLimit::new(limit)?;
    if !(share > 0.0 && share <= 1.0) {
        return Err(StatsError::Limit(share));
    }
    if !(power > 0.0 && power < 1.0) {
        return Err(StatsError::Probability(power));
    }
    if share <= limit {
        return Ok(None);
    }
    // A total failure is as sure as the next smaller share.
    let share = share.min(1.0 - 1e-9);
    let exact = exact_until(limit).min(MOST);
    let mut ends = 64.0;
    while ends < exact {
        let looks = Looks::until(&test, alpha, ends);
        if let Some(n) = looks.crossed(share, power) {
            return Ok(Some(n));
        }
        ends *= 4.0;
    }
    let looks = Looks::until(&test, alpha, exact);
    if let Some(n) = looks.crossed(share, power) {
        return Ok(Some(n));
    }
    let (mut low, mut high) = (exact, 2.0 * exact);
    while end_power(&test, alpha, high, share) < power {
        low = high;
        high *= 2.0;
        if high > MOST {
            return Ok(None);
        }
    }
    while high - low > 0.001 * high {
        let middle = 0.5 * (low + high);
        if end_power(&test, alpha, middle, share) < power { low = middle } else { high = middle }
    }
    Ok(Some(high.ceil()))
}

/// Requests, none of them bad, after which the mirror test proves the limit at a level.
///
/// # Errors
/// Where the limit is no share.
pub fn clean_requests_to_prove(limit: f64, proof: Alpha) -> Result<f64, StatsError> {
    let mirror = BelowLimit::new(limit)?;
    let proved = |n: f64| mirror.ln(n, 0.0) >= proof.ln_threshold();
    let mut high = 1.0;
    while !proved(high) && high < 1e15 {
        high *= 2.0;
    }
    let mut low = 0.0;
    while high - low > 1.0 {
        let middle = (0.5 * (low + high)).floor();
        if middle <= low || middle >= high {
            break;
        }
        if proved(middle) { high = middle } else { low = middle }
    }
    Ok(high)
}

/// Requests after which a true bad share below the limit has proved it in a share `power` of releases, by the end of
/// the stage alone; `None` where more than 10^9 would be needed.
///
/// # Errors
/// Where the limit is no share or the power no probability.
pub fn requests_to_prove(limit: f64, proof: Alpha, share: f64, power: f64) -> Result<Option<f64>, StatsError> {
    let mirror = BelowLimit::new(limit)?;
    if !(power > 0.0 && power < 1.0) {
        return Err(StatsError::Probability(power));
    }
    if share >= limit {
        return Ok(None);
    }
    let clean = clean_requests_to_prove(limit, proof)?;
    if share <= 0.0 {
        return Ok(Some(clean));
    }
    // The most bad requests with which n still prove the limit; at least that many or fewer come with what chance?
    let chance = |n: f64| {
        let (mut low, mut high) = (-1.0, (n * limit).ceil());
        while high - low > 1.0 {
            let middle = (0.5 * (low + high)).floor();
            if mirror.ln(n, middle) >= proof.ln_threshold() { low = middle } else { high = middle }
        }
        if low < 0.0 { 0.0 } else { 1.0 - ln_lower_tail(low + 1.0, n - low, share).exp() }
    };
    let mut high = clean;
    while chance(high) < power {
        high *= 1.1;
        if high > MOST {
            return Ok(None);
        }
    }
    Ok(Some(high.ceil()))
}

/// The least limit that so many requests prove, none of them bad.
fn provable(requests: f64, proof: Alpha) -> Option<f64> {
    let falls_short =
        |limit: f64| !BelowLimit::new(limit).is_ok_and(|mirror| mirror.ln(requests, 0.0) >= proof.ln_threshold());
    let limit = share_where(falls_short);
    (requests > 0.0 && limit < 0.999).then_some(limit)
}

/// The least multiple of its limit that an event rate is detected at, with a power, where the limit allows `expected`
/// events in the stage (limit × minutes × share); by the stage's end alone. `None`: beyond a million times.
///
/// # Errors
/// Where the power is no probability or `expected` no count.
pub fn detectable_rate(expected: f64, alpha: Alpha, power: f64) -> Result<Option<f64>, StatsError> {
    let expected = count(expected)?;
    if !(power > 0.0 && power < 1.0) {
        return Err(StatsError::Probability(power));
    }
    let test = EventRate::new();
    let threshold = alpha.ln_threshold() - FIRST.ln();
    Ok(least_count(|k| test.ln(k, expected) >= threshold).and_then(|k| multiple(k, expected, power)))
}

/// The least ratio of the canary's rate to the stable side's that [`Relative`] detects with a power, where the canary
/// takes `share` of the requests and stable shows `stable_events` in the stage; by the stage's end alone. `None`:
/// beyond a million times.
///
/// # Errors
/// Where the margin, share or power is none, or the events no count.
pub fn detectable_ratio(
    margin: f64,
    share: f64,
    stable_events: f64,
    alpha: Alpha,
    power: f64,
) -> Result<Option<f64>, StatsError> {
    let test = Relative::new(margin)?;
    let stable = count(stable_events)?;
    test.tick(0.0, 0.0, share)?;
    if !(power > 0.0 && power < 1.0) {
        return Err(StatsError::Probability(power));
    }
    let threshold = alpha.ln_threshold() - FIRST.ln();
    let reached = |k: f64| test.tick(k, k + stable, share).is_ok_and(|counts| test.log_e(&counts) >= threshold);
    let same = stable * share / (1.0 - share);
    Ok(least_count(reached).and_then(|k| multiple(k, same, power)))
}

/// The least count, at least 3, for which something holds that goes on holding.
fn least_count(holds: impl Fn(f64) -> bool) -> Option<f64> {
    let mut high = LEAST_BAD;
    while !holds(high) {
        high *= 2.0;
        if high > MOST {
            return None;
        }
    }
    let mut low = if high > LEAST_BAD { 0.5 * high } else { high - 1.0 };
    while high - low > 1.0 {
        let middle = (0.5 * (low + high)).floor();
        if holds(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

/// The multiple of a Poisson mean at which at least k events come with a probability.
fn multiple(k: f64, mean: f64, power: f64) -> Option<f64> {
    if mean <= 0.0 {
        return None;
    }
    let chance = |ratio: f64| 1.0 - poisson_at_most(k - 1.0, ratio * mean);
    let (mut low, mut high) = (0.0, 1.0);
    while chance(high) < power {
        low = high;
        high *= 2.0;
        if high > 1e6 {
            return None;
        }
    }
    while high - low > 1e-4 * high {
        let middle = 0.5 * (low + high);
        if chance(middle) < power { low = middle } else { high = middle }
    }
    Some(high)
}

/// Requests up to which exact steps are quick.
fn exact_until(limit: f64) -> f64 {
    (SLOW / limit).max(DENSE)
}

/// The least number of bad requests that is a breach, by requests; asked for ever more requests.
struct Boundary<'a> {
    test: &'a AboveLimit,
    threshold: f64,
    bad: f64,
}

impl<'a> Boundary<'a> {
    fn new(test: &'a AboveLimit, alpha: Alpha) -> Self {
        Self { test, threshold: alpha.ln_threshold() - FIRST.ln(), bad: LEAST_BAD }
    }

    fn breach(&self, n: f64, bad: f64) -> bool {
        self.test.ln(n, bad.min(n)) >= self.threshold
    }

    /// At n requests, not fewer than asked before; more than n where none suffices.
    fn at(&mut self, n: f64) -> f64 {
        let mut step = 1.0;
        let mut low = self.bad - 1.0;
        while self.bad <= n && !self.breach(n, self.bad) {
            low = self.bad;
            self.bad += step;
            step *= 2.0;
        }
        let mut high = self.bad;
        while high - low > 1.0 {
            let middle = (0.5 * (low + high)).floor();
            if middle <= n && !self.breach(n, middle) { low = middle } else { high = middle }
        }
        self.bad = high;
        high
    }
}

/// The chance of being beyond the boundary at n, whatever was before.
fn end_power(test: &AboveLimit, alpha: Alpha, n: f64, share: f64) -> f64 {
    let bad = Boundary::new(test, alpha).at(n);
    if bad > n { 0.0 } else { ln_lower_tail(bad, n - bad + 1.0, share).exp() }
}

/// One look: requests until then, and the bad ones that make a breach.
#[derive(Debug, Clone, Copy)]
struct Look {
    n: f64,
    bad: f64,
}

/// The looks of a stage.
struct Looks<'a> {
    test: &'a AboveLimit,
    alpha: Alpha,
    looks: Vec<Look>,
    end: f64,
}

impl<'a> Looks<'a> {
    fn until(test: &'a AboveLimit, alpha: Alpha, requests: f64) -> Self {
        let end = requests.floor();
        let mut boundary = Boundary::new(test, alpha);
        let mut looks = Vec::new();
        if end <= exact_until(test.limit()) {
            let mut n = 0.0;
            while n < end {
                n = if n < DENSE { n + 1.0 } else { (n * (1.0 + STEP)).ceil() };
                n = n.min(end);
                looks.push(Look { n, bad: boundary.at(n) });
            }
        }
        Self { test, alpha, looks, end }
    }

    /// The chance of a breach by the end.
    fn power(&self, share: f64) -> f64 {
        if self.looks.is_empty() {
            return end_power(self.test, self.alpha, self.end, share);
        }
        let mut crossed = 0.0;
        self.follow(share, |_, sum| {
            crossed = sum;
            true
        });
        crossed
    }

    /// The requests after which a breach has come with a chance.
    fn crossed(&self, share: f64, power: f64) -> Option<f64> {
        let mut found = None;
        self.follow(share, |n, sum| {
            if sum >= power {
                found = Some(n);
            }
            found.is_none()
        });
        found
    }

    /// Follows the distribution of the bad requests among releases without breach, from look to look.
    fn follow(&self, share: f64, mut see: impl FnMut(f64, f64) -> bool) {
        let mut states = vec![1.0_f64];
        let mut least = 0.0_f64;
        let (mut before, mut crossed) = (0.0, 0.0);
        let mut steps: Vec<f64> = Vec::new();
        let (mut steps_from, mut steps_of) = (0.0, 0.0);
        for look in &self.looks {
            let more = look.n - before;
            before = look.n;
            if more != steps_of {
                (steps_from, steps) = binomial(more, share);
                steps_of = more;
            }
            let mut next = vec![0.0; states.len().saturating_add(steps.len()).saturating_sub(1)];
            for (at, state) in states.iter().enumerate() {
                for (slot, step) in next.iter_mut().skip(at).zip(&steps) {
                    *slot += state * step;
                }
            }
            least += steps_from;
            let room = (look.bad - least).max(0.0) as usize;
            crossed += next.iter().skip(room).sum::<f64>();
            next.truncate(room);
            let empty = next.iter().take_while(|state| **state < LOST * 1e-3).count();
            states = next.split_off(empty);
            least += empty as f64;
            if !see(look.n, crossed) || states.is_empty() {
                return;
            }
        }
    }

    fn detectable(&self, power: f64) -> Option<f64> {
        if self.power(1.0 - 1e-9) < power {
            return None;
        }
        let limit = self.test.limit();
        // The end of the stage alone is weaker, and quick: it bounds the search.
        let bad = Boundary::new(self.test, self.alpha).at(self.end);
        let short = |share| ln_lower_tail(bad, self.end - bad + 1.0, share).exp() < power;
        let (mut low, mut high) = (limit, share_where(short));
        if self.looks.is_empty() {
            return Some(high);
        }
        if !(high > limit && self.power(high) >= power) {
            high = 1.0 - 1e-9;
        }
        while high - low > 2e-3 * high {
            let middle = 0.5 * (low + high);
            if self.power(middle) < power { low = middle } else { high = middle }
        }
        Some(high)
    }
}

/// The probabilities of a binomial distribution, but for its farthest ends, and where they begin.
fn binomial(n: f64, share: f64) -> (f64, Vec<f64>) {
    let odds = share / (1.0 - share);
    let mode = ((n + 1.0) * share).floor().min(n);
    let (mut below, mut above) = (Vec::new(), vec![1.0]);
    let mut probability = 1.0;
    let mut k = mode;
    while k < n {
        probability *= odds * (n - k) / (k + 1.0);
        if probability < LOST {
            break;
        }
        above.push(probability);
        k += 1.0;
    }
    probability = 1.0;
    k = mode;
    while k > 0.0 {
        probability *= k / (odds * (n - k + 1.0));
        if probability < LOST {
            break;
        }
        below.push(probability);
        k -= 1.0;
    }
    below.reverse();
    below.append(&mut above);
    let sum: f64 = below.iter().sum();
    for probability in &mut below {
        *probability /= sum;
    }
    (k, below)
}
