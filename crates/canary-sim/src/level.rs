//! Healthy traffic and faults as a person writes them (`errors=0.3%`, `errors=5%@stage2`, `latency=x3@600s`), and which
//! of a spec's gates they are of.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use canary_api::{CanaryReleaseSpec, Gate, Percent, Rate};

use crate::error::SimError;

/// A relative gate's events among the requests, where nothing is said of it.
const USUAL_EVENTS: f64 = 0.001;

/// How much of what a gate counts there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Level {
    /// This share of the requests, 0 to 1.
    Share(f64),
    /// So many events a minute, were all of the traffic of this version.
    PerMinute(f64),
    /// The value that a value gate reads.
    Number(f64),
    /// So many times what is healthy.
    Times(f64),
}

impl FromStr for Level {
    type Err = SimError;

    fn from_str(text: &str) -> Result<Self, SimError> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        let level = if text.ends_with('%') {
            text.parse::<Percent>().ok().map(|share| Self::Share(share.fraction()))
        } else if text.contains('/') {
            text.parse::<Rate>().ok().map(|rate| Self::PerMinute(rate.per_minute()))
        } else if let Some(times) = text.strip_prefix('x') {
            number(times).filter(|times| *times >= 0.0).map(Self::Times)
        } else {
            number(text).map(Self::Number)
        };
        let wanted = "a share such as 5%, a rate such as 3/min, a multiple of what is healthy such as x3, or for a value gate a number";
        level.ok_or_else(|| SimError::Level(format!("{text:?} is no level: write {wanted}")))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |number: f64| {
            let text = format!("{number:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        match self {
            Self::Share(share) => write!(f, "{}%", plain(share * 100.0)),
            Self::PerMinute(rate) => write!(f, "{}/min", plain(*rate)),
            Self::Number(number) => f.write_str(&plain(*number)),
            Self::Times(times) => write!(f, "x{}", plain(*times)),
        }
    }
}

/// From when on a fault is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// From the moment at which this stage, from 1, gets its weight.
    Stage(usize),
    /// So long after the release began.
    After(Duration),
}

impl FromStr for Since {
    type Err = SimError;

    fn from_str(text: &str) -> Result<Self, SimError> {
        let stage = text.strip_prefix("stage").and_then(|number| number.parse().ok()).filter(|number| *number > 0);
        let time = || text.parse::<canary_api::Duration>().ok().map(canary_api::Duration::std);
        stage.map(Self::Stage).or_else(|| time().map(Self::After)).ok_or_else(|| {
            SimError::Level(format!(
                "{text:?} is no beginning: write a stage such as stage2, or a time after the release began such as 600s"
            ))
        })
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(stage) => write!(f, "stage{stage}"),
            Self::After(time) => {
                let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                canary_api::Duration::from_millis(millis).fmt(f)
            }
        }
    }
}

/// `errors=0.3%`: what is healthy.
#[derive(Debug, Clone, PartialEq)]
pub struct Healthy {
    /// A gate's name, or a kind of gate.
    pub of: String,
    /// How much of it.
    pub level: Level,
}

impl FromStr for Healthy {
    type Err = SimError;

    fn from_str(text: &str) -> Result<Self, SimError> {
        let (of, level) = text
            .split_once('=')
            .ok_or_else(|| SimError::Level(format!("{text:?} is not NAME=LEVEL, such as errors=0.3%")))?;
        Ok(Self { of: of.to_owned(), level: level.parse()? })
    }
}

/// `errors=5%@stage2`: what is wrong with the candidate, and from when on.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// A gate's name, or a kind of gate.
    pub of: String,
    /// How much of it.
    pub level: Level,
    /// From when on.
    pub since: Since,
}

impl FromStr for Fault {
    type Err = SimError;

    fn from_str(text: &str) -> Result<Self, SimError> {
        let (what, since) = text.split_once('@').unwrap_or((text, "stage1"));
        let Healthy { of, level } = what.parse().map_err(|error: SimError| {
            SimError::Level(format!("{error} (a fault is NAME=LEVEL@BEGINNING, such as errors=5%@stage2)"))
        })?;
        Ok(Self { of, level, since: since.parse()? })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}@{}", self.of, self.level, self.since)
    }
}

/// The word for a gate's kind, by which all gates of it can be named.
#[must_use]
pub fn kind(gate: &Gate) -> &'static str {
    match gate {
        Gate { error_rate: Some(_), .. } => "errors",
        Gate { latency: Some(_), .. } => "latency",
        Gate { event_rate: Some(_), .. } => "events",
        Gate { relative: Some(_), .. } => "relative",
        _ => "value",
    }
}

/// The gates that a name is of: the one of that name, else all of that kind.
fn named<'a>(spec: &'a CanaryReleaseSpec, name: &str) -> Result<Vec<(usize, &'a Gate)>, SimError> {
    let gates = || spec.gates.iter().enumerate();
    let one: Vec<_> = gates().filter(|(_, gate)| gate.name == name).collect();
    let all = if one.is_empty() { gates().filter(|(_, gate)| kind(gate) == name).collect() } else { one };
    if all.is_empty() {
        let has: Vec<String> = spec.gates.iter().map(|gate| format!("{} ({})", gate.name, kind(gate))).collect();
        return Err(SimError::Level(format!(
            "no gate is called {name}, and none is of that kind; there are: {}",
            has.join(", ")
        )));
    }
    Ok(all)
}

/// A level in the form in which it is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Amount {
    Share(f64),
    PerSecond(f64),
    Number(f64),
}

/// How much there is of what a gate counts, at so many requests a second.
pub(crate) fn amount(gate: &Gate, level: Level, healthy: Option<Amount>, rps: f64) -> Result<Amount, SimError> {
    let share = gate.error_rate.is_some() || gate.latency.is_some();
    let events = gate.event_rate.is_some() || gate.relative.is_some();
    match level {
        Level::Share(part) if share => Ok(Amount::Share(part)),
        Level::Share(part) if gate.relative.is_some() => Ok(Amount::PerSecond(part * rps)),
        Level::PerMinute(rate) if events => Ok(Amount::PerSecond(rate / 60.0)),
        Level::Number(number) if gate.value.is_some() => Ok(Amount::Number(number)),
        Level::Times(times) => Ok(match healthy {
            Some(Amount::Share(part)) => Amount::Share((part * times).min(1.0)),
            Some(Amount::PerSecond(rate)) => Amount::PerSecond(rate * times),
            Some(Amount::Number(number)) => Amount::Number(number * times),
            None => {
                return Err(SimError::Level(format!(
                    "{level} of gate {}: times what? give a share, a rate or a number",
                    gate.name
                )));
            }
        }),
        _ => {
            let wanted = match kind(gate) {
                "errors" | "latency" => "a share such as 5%",
                "events" => "a rate such as 3/min",
                "relative" => "a share of the requests such as 0.5%, or a rate such as 3/min",
                _ => "a number such as 40",
            };
            Err(SimError::Level(format!(
                "gate {} ({}) can't have the level {level}: write {wanted}",
                gate.name,
                kind(gate)
            )))
        }
    }
}

/// Half of what the limit allows; where there is no limit, one event in a thousand requests.
pub(crate) fn usual(gate: &Gate, rps: f64) -> Amount {
    if let Some(rule) = &gate.error_rate {
        return Amount::Share(rule.limit.fraction() / 2.0);
    }
    if let Some(rule) = &gate.latency {
        return Amount::Share((1.0 - rule.quantile.fraction()) / 2.0);
    }
    if let Some(rule) = &gate.event_rate {
        return Amount::PerSecond(rule.limit.per_minute() / 60.0 / 2.0);
    }
    let Some(rule) = &gate.value else { return Amount::PerSecond(USUAL_EVENTS * rps) };
    Amount::Number(match (rule.min, rule.max) {
        (Some(min), Some(max)) => f64::midpoint(min, max),
        (None, Some(max)) => max - max.abs() / 2.0,
        (Some(min), None) => min + min.abs() / 2.0,
        (None, None) => 0.0,
    })
}

/// An amount as a person writes it.
pub(crate) fn shown(gate: &Gate, amount: Amount, rps: f64) -> Level {
    match amount {
        Amount::Share(part) => Level::Share(part),
        Amount::PerSecond(rate) if gate.relative.is_some() && rps > 0.0 => Level::Share(rate / rps),
        Amount::PerSecond(rate) => Level::PerMinute(rate * 60.0),
        Amount::Number(number) => Level::Number(number),
    }
}

/// What each gate counts, in the order of the spec.
#[derive(Debug, Clone)]
pub(crate) struct Levels {
    /// Of healthy versions.
    pub(crate) healthy: Vec<Amount>,
    /// Of the candidate, by gate: from when on it has how much. The last that has begun counts.
    pub(crate) faults: Vec<Vec<(Since, Amount)>>,
}

impl Levels {
    pub(crate) fn new(
        spec: &CanaryReleaseSpec,
        rps: f64,
        healthy: &[Healthy],
        faults: &[Fault],
    ) -> Result<Self, SimError> {
        let mut levels = Self {
            healthy: spec.gates.iter().map(|gate| usual(gate, rps)).collect(),
            faults: vec![Vec::new(); spec.gates.len()],
        };
        for given in healthy {
            for (index, gate) in named(spec, &given.of)? {
                if let Some(slot) = levels.healthy.get_mut(index) {
                    *slot = amount(gate, given.level, Some(*slot), rps)?;
                }
            }
        }
        for fault in faults {
            if let Since::Stage(stage) = fault.since
                && stage > spec.stages.len()
            {
                let last = spec.stages.len();
                return Err(SimError::Level(format!("fault {fault}: there are only {last} stages")));
            }
            for (index, gate) in named(spec, &fault.of)? {
                let healthy = levels.healthy.get(index).copied();
                let amount = amount(gate, fault.level, healthy, rps)?;
                if let Some(slot) = levels.faults.get_mut(index) {
                    slot.push((fault.since, amount));
                }
            }
        }
        Ok(levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> CanaryReleaseSpec {
        crate::simulate::tests::spec()
    }

    #[test]
    fn faults_read_as_they_are_written() {
        for text in ["errors=5%@stage2", "latency=10%@stage1", "errors=50%@10m", "depth=40@stage1", "events=x3@1h"] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        assert_eq!("errors=50%@600s".parse::<Fault>().unwrap().since, Since::After(Duration::from_secs(600)));
        assert_eq!("errors=5%".parse::<Fault>().unwrap().since, Since::Stage(1));
        for text in [
            "errors",
            "errors=",
            "errors=5",
            "errors=5%@",
            "errors=5%@stage0",
            "errors=5%@stage",
            "errors=101%",
            "errors=xNaN",
        ] {
            let read = text.parse::<Fault>();
            assert!(read.is_err() || Levels::new(&spec(), 100.0, &[], &[read.unwrap()]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_gates_name_stands_before_a_kind_and_what_fits_no_gate_is_refused() {
        let levels = |healthy: &str| Levels::new(&spec(), 100.0, &[healthy.parse().unwrap()], &[]);
        assert_eq!(levels("errors=0.3%").unwrap().healthy[0], Amount::Share(0.003));
        assert_eq!(levels("latency=1%").unwrap().healthy[1], Amount::Share(0.01));
        assert_eq!(levels("p95=1%").unwrap().healthy[1], Amount::Share(0.01));
        for (text, says) in
            [("jam=1%", "no gate is called jam"), ("errors=3/min", "write a share"), ("errors=7", "write a share")]
        {
            let error = levels(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let late: Fault = "errors=5%@stage9".parse().unwrap();
        assert!(Levels::new(&spec(), 100.0, &[], &[late]).unwrap_err().to_string().contains("only 5 stages"));
    }

    #[test]
    fn what_is_usual_is_half_of_the_limit() {
        let levels = Levels::new(&spec(), 100.0, &[], &["errors=x3".parse().unwrap()]).unwrap();
        assert_eq!(levels.healthy[0], Amount::Share(0.005));
        assert_eq!(levels.faults[0], [(Since::Stage(1), Amount::Share(0.015))]);
    }
}
