//! Decides what the service is told by its flags and its environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::faults::Faults;
use crate::flags::{Flag, FlagError, Values, invalid};
use crate::random::seed_of;

/// Longest delay that a flag may ask for.
const LONGEST: Duration = Duration::from_secs(3600);

/// The service's flags; each is an environment variable too (`ERROR_RATE`).
pub const FLAGS: [Flag; 18] = [
    flag("version", "TEXT", "reported in x-version and the body (default v1)"),
    flag("pod-name", "NAME", "reported in the body (default HOSTNAME, else local)"),
    flag("port", "PORT", "port (default 8080)"),
    flag("bind", "ADDRESS", "address (default 0.0.0.0 in a pod, else 127.0.0.1)"),
    flag("error-rate", "SHARE", "share of answers that are 500, 0 to 1"),
    flag("slow-rate", "SHARE", "share of answers that take --slow-ms longer"),
    flag("slow-ms", "MS", "what a slow answer takes more (default 300)"),
    flag("latency-ms", "MS", "what every answer takes"),
    flag("conflict-rate", "SHARE", "share of orders that conflict"),
    flag("risk-rate", "SHARE", "share of orders blocked as a risk"),
    flag("csp-rate", "SHARE", "share of answers that bring a CSP report"),
    flag("staleness-seconds", "S", "value of ws_staleness_seconds (default 1)"),
    flag("cpu-us", "US", "CPU time that every answer burns, at most 50000"),
    flag("startup-delay-ms", "MS", "not ready, and 503, for so long"),
    flag("crash-after-ms", "MS", "exit 1 after so long"),
    flag("drain-ms", "MS", "after SIGTERM keep serving for so long (default 5000)"),
    flag("grace-ms", "MS", "then wait so long for answers under way (default 10000)"),
    flag("seed", "N|pod", "seed of the faults' order; pod: from the pod's name (default 1)"),
];

const fn flag(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { name, value, help }
}

/// What the service is told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Reported in the header `x-version` and in the body.
    pub version: String,
    /// Reported in the body; faults addressed to another pod are refused.
    pub pod: String,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Faults at start.
    pub faults: Faults,
    /// Not ready, and 503 on every path, for so long after start.
    pub startup_delay: Duration,
    /// Crash so long after start.
    pub crash_after: Option<Duration>,
    /// After SIGTERM keep serving for so long: the gateway learns late that the pod goes.
    pub drain: Duration,
    /// After the drain wait at most so long for answers under way.
    pub grace: Duration,
    /// Seed of the faults' order, together with the version.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: "v1".to_owned(),
            pod: "local".to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            faults: Faults::default(),
            startup_delay: Duration::ZERO,
            crash_after: None,
            drain: Duration::from_secs(5),
            grace: Duration::from_secs(10),
            seed: 1,
        }
    }
}

impl Config {
    /// Reads flags and environment.
    ///
    /// # Errors
    /// [`FlagError`] naming the flag that cannot be read or is out of range.
    pub fn read(
        arguments: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, FlagError> {
        let values = Values::read(&FLAGS, arguments, &environment)?;
        let mut config = Self::default();
        if let Some(version) = values.text("version") {
            if version.len() > 64 || !version.bytes().all(|byte| byte.is_ascii_graphic()) {
                let problem = "expected 1 to 64 printable ASCII characters without spaces";
                return Err(invalid("version", version, problem));
            }
            version.clone_into(&mut config.version);
        }
        if let Some(pod) = values.text("pod-name").map(ToOwned::to_owned).or_else(|| environment("HOSTNAME")) {
            config.pod = pod;
        }
        // Outside a pod nobody but this machine may reach it unless told so.
        let in_pod = environment("KUBERNETES_SERVICE_HOST").is_some();
        let address = values.parsed::<IpAddr>("bind", "an IP address")?.unwrap_or(IpAddr::V4(if in_pod {
            Ipv4Addr::UNSPECIFIED
        } else {
            Ipv4Addr::LOCALHOST
        }));
        let port = values.parsed("port", "a port, 0 to 65535")?.unwrap_or(8080);
        config.listen = SocketAddr::new(address, port);

        // The fault flags are the parameters of /fault: one reader for both.
        for flag in &FLAGS {
            let parameter = flag.name.replace('-', "_");
            let Some(value) = values.text(flag.name) else {
                continue;
            };
            if Faults::knows(&parameter) {
                config.faults.set(&parameter, value).map_err(|error| invalid(flag.name, value, &error.to_string()))?;
            }
        }

        config.startup_delay = milliseconds(&values, "startup-delay-ms")?.unwrap_or_default();
        config.crash_after = milliseconds(&values, "crash-after-ms")?;
        config.drain = milliseconds(&values, "drain-ms")?.unwrap_or(config.drain);
        config.grace = milliseconds(&values, "grace-ms")?.unwrap_or(config.grace);
        config.seed = match values.text("seed") {
            Some("pod") => seed_of(&config.pod),
            _ => values.parsed("seed", "a whole number, or pod")?.unwrap_or(1),
        };
        Ok(config)
    }
}

fn milliseconds(values: &Values, name: &str) -> Result<Option<Duration>, FlagError> {
    let Some(value) = values.parsed::<u64>(name, "whole milliseconds")? else {
        return Ok(None);
    };
    let duration = Duration::from_millis(value);
    if duration > LONGEST {
        let text = values.text(name).unwrap_or_default();
        return Err(invalid(name, text, "at most 3600000 (an hour)"));
    }
    Ok(Some(duration))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(environment: &[(&str, &str)]) -> Result<Config, FlagError> {
        Config::read([], |name| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_environment_of_a_pod_is_enough() {
        let config = read(&[
            ("VERSION", "v2"),
            ("HOSTNAME", "orders-abc"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("ERROR_RATE", "0.005"),
            ("LATENCY_MS", "20"),
            ("SLOW_RATE", "0.1"),
            ("STARTUP_DELAY_MS", "1500"),
            ("CRASH_AFTER_MS", "9000"),
            ("SEED", "pod"),
        ])
        .unwrap();
        assert_eq!(config.version, "v2");
        assert_eq!(config.pod, "orders-abc");
        assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
        assert_eq!(config.faults.error_rate, 0.005);
        assert_eq!(config.faults.latency_ms, 20);
        assert_eq!(config.faults.slow_rate, 0.1);
        assert_eq!(config.startup_delay, Duration::from_millis(1500));
        assert_eq!(config.crash_after, Some(Duration::from_secs(9)));
        assert_eq!(config.seed, seed_of("orders-abc"));
    }

    #[test]
    fn outside_a_pod_it_listens_on_loopback_only() {
        assert_eq!(read(&[]).unwrap().listen.to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (name, value) in [
            ("ERROR_RATE", "1.5"),
            ("ERROR_RATE", "NaN"),
            ("SLOW_RATE", "-0.1"),
            ("PORT", "70000"),
            ("DRAIN_MS", "3600001"),
            ("CRASH_AFTER_MS", "soon"),
            ("VERSION", "v 1"),
            ("SEED", "x"),
        ] {
            let message = read(&[(name, value)]).unwrap_err().to_string();
            let flag = name.to_ascii_lowercase().replace('_', "-");
            assert!(message.contains(&flag) && message.contains(value), "{message}");
        }
    }
}
