//! Decides how the service misbehaves. All values have bounds; a change is taken whole or not at all.

use serde::Serialize;

/// Longest time that one fault may add to an answer, in milliseconds.
const LONGEST_MS: u64 = 60_000;
/// Most CPU time that an answer may burn, in microseconds: the service has one thread.
const MOST_CPU_US: u64 = 50_000;
/// Largest staleness, in seconds.
const STALEST: f64 = 1e9;

/// How the service misbehaves; all zero is a healthy one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Faults {
    /// Share of answers that are 500, 0 to 1.
    pub error_rate: f64,
    /// Share of answers that take `slow_ms` longer, 0 to 1.
    pub slow_rate: f64,
    /// What a slow answer takes more, in milliseconds.
    pub slow_ms: u64,
    /// What every answer takes, in milliseconds.
    pub latency_ms: u64,
    /// Share of orders counted in `idempotency_conflicts_total`, 0 to 1.
    pub conflict_rate: f64,
    /// Share of orders counted in `risk_blocks_total`, 0 to 1.
    pub risk_rate: f64,
    /// Share of answers counted in `csp_violations_total`, 0 to 1.
    pub csp_rate: f64,
    /// Value of `ws_staleness_seconds`.
    pub staleness_seconds: f64,
    /// CPU time that every answer burns, in microseconds.
    pub cpu_us: u64,
    /// What `/readyz` says once the service has started.
    pub ready: bool,
    /// What `/healthz` says.
    pub live: bool,
    /// Exit 1, as a crash does, at the next request to any path.
    pub crash: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            error_rate: 0.0,
            slow_rate: 0.0,
            slow_ms: 300,
            latency_ms: 0,
            conflict_rate: 0.0,
            risk_rate: 0.0,
            csp_rate: 0.0,
            staleness_seconds: 1.0,
            cpu_us: 0,
            ready: true,
            live: true,
            crash: false,
        }
    }
}

/// Why a fault was not switched.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FaultError {
    /// No such fault.
    #[error(
        "unknown fault {0:?}; known: error_rate slow_rate slow_ms latency_ms conflict_rate \
         risk_rate csp_rate staleness_seconds cpu_us ready live crash, and pod, version, reset"
    )]
    Unknown(String),
    /// The value cannot be read or is out of range.
    #[error("{name}={value:?}: expected {expected}")]
    Value {
        /// The fault's name.
        name: String,
        /// The value as given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The fault is addressed to another pod or version.
    #[error("this is pod {pod} of version {version}, not {name}={value}; nothing was changed")]
    NotForThisPod {
        /// This pod's name.
        pod: String,
        /// This pod's version.
        version: String,
        /// `pod` or `version`.
        name: &'static str,
        /// Who was meant.
        value: String,
    },
    /// The request came through a gateway without saying which pod it means.
    #[error(
        "this request came through a gateway, so any pod might have got it; say pod=NAME, or ask the \
         pod's own address; nothing was changed"
    )]
    ThroughGateway,
    /// The request came from outside the lab.
    #[error("faults are switched only from {0}; nothing was changed")]
    OutsideLab(String),
}

impl FaultError {
    /// A fixed word for this kind of error.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown",
            Self::Value { .. } => "value",
            Self::NotForThisPod { .. } => "not_for_this_pod",
            Self::ThroughGateway => "through_gateway",
            Self::OutsideLab(_) => "outside_lab",
        }
    }
}

impl Faults {
    /// Whether `name` is a fault.
    #[must_use]
    pub fn knows(name: &str) -> bool {
        // An empty value fits no fault, so nothing but an unknown name is `Unknown`.
        !matches!(Self::default().set(name, ""), Err(FaultError::Unknown(_)))
    }

    /// Sets one fault from text.
    ///
    /// # Errors
    /// [`FaultError`] if the name is unknown or the value out of range; then nothing has changed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), FaultError> {
        match name {
            "error_rate" => self.error_rate = share(name, value)?,
            "slow_rate" => self.slow_rate = share(name, value)?,
            "slow_ms" => self.slow_ms = whole(name, value, LONGEST_MS, MS)?,
            "latency_ms" => self.latency_ms = whole(name, value, LONGEST_MS, MS)?,
            "conflict_rate" => self.conflict_rate = share(name, value)?,
            "risk_rate" => self.risk_rate = share(name, value)?,
            "csp_rate" => self.csp_rate = share(name, value)?,
            "staleness_seconds" => {
                self.staleness_seconds = number(name, value, STALEST, "seconds, 0 to 1e9")?;
            }
            "cpu_us" => {
                self.cpu_us = whole(name, value, MOST_CPU_US, "microseconds, 0 to 50000")?;
            }
            "ready" => self.ready = truth(name, value)?,
            "live" => self.live = truth(name, value)?,
            "crash" => self.crash = truth(name, value)?,
            _ => return Err(FaultError::Unknown(name.to_owned())),
        }
        Ok(())
    }
}

const MS: &str = "whole milliseconds, 0 to 60000";

fn wrong(name: &str, value: &str, expected: &'static str) -> FaultError {
    FaultError::Value { name: name.to_owned(), value: value.to_owned(), expected }
}

fn share(name: &str, value: &str) -> Result<f64, FaultError> {
    number(name, value, 1.0, "a share from 0 to 1, such as 0.005")
}

fn number(name: &str, value: &str, most: f64, expected: &'static str) -> Result<f64, FaultError> {
    let number: f64 = value.parse().map_err(|_| wrong(name, value, expected))?;
    // A NaN is in no range.
    if (0.0..=most).contains(&number) { Ok(number) } else { Err(wrong(name, value, expected)) }
}

fn whole(name: &str, value: &str, most: u64, expected: &'static str) -> Result<u64, FaultError> {
    value.parse().ok().filter(|number| *number <= most).ok_or_else(|| wrong(name, value, expected))
}

fn truth(name: &str, value: &str) -> Result<bool, FaultError> {
    value.parse().map_err(|_| wrong(name, value, "true or false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_changes_nothing() {
        for (name, value) in [
            ("error_rate", "1.1"),
            ("error_rate", "nan"),
            ("error_rate", ""),
            ("slow_ms", "60001"),
            ("slow_ms", "-1"),
            ("staleness_seconds", "inf"),
            ("cpu_us", "50001"),
            ("ready", "no"),
            ("colour", "red"),
        ] {
            let mut faults = Faults::default();
            assert!(faults.set(name, value).is_err(), "{name}={value}");
            assert_eq!(faults, Faults::default());
        }
    }

    #[test]
    fn every_field_can_be_set_and_shown() {
        let text = serde_json::to_value(Faults::default()).unwrap_or_default();
        for name in text.as_object().into_iter().flat_map(|fields| fields.keys()) {
            assert!(Faults::knows(name), "{name}");
        }
        assert!(!Faults::knows("port"));
    }
}
