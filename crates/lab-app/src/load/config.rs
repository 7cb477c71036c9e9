//! Decides what the client may do: which destinations, how fast, how long. Everything is bounded, and
//! a destination outside the lab is refused before a packet is sent.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;

use super::handle::LoadError;
use crate::flags::{Flag, FlagError, Values, invalid};
use crate::net::{is_lab_address, lab_ranges_text};

/// Highest rate, in requests per second.
pub const MAX_RATE: f64 = 2_000.0;
/// Lowest rate, in requests per second.
const MIN_RATE: f64 = 0.1;
/// Longest run.
pub const MAX_DURATION: Duration = Duration::from_secs(6 * 3600);
/// Longest time for one answer.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// Most requests under way.
const MAX_IN_FLIGHT: usize = 4_096;

/// What to send, where, how fast and how long.
#[derive(Debug, Clone)]
pub struct Config {
    /// `http://ADDRESS:PORT/PATH` with an IPv4 address of the lab; names are not resolved.
    pub url: String,
    /// The Host header; the URL's address if not given.
    pub host: Option<String>,
    /// Requests per second, 0.1 to [`MAX_RATE`].
    pub rate: f64,
    /// How long to send, at most [`MAX_DURATION`].
    pub duration: Duration,
    /// Send so many requests at most.
    pub requests: Option<u64>,
    /// Time for one answer from connecting to the last byte, at most a minute.
    pub timeout: Duration,
    /// Connections kept open; used in turn, so that all of them stay in use.
    pub connections: usize,
    /// Requests under way at most, at least `connections`; one that is due beyond it is skipped and
    /// counted as such. Each needs a connection.
    pub in_flight: usize,
    /// Close a connection after so many requests; `None` keeps it. Clients of a Service stay on the pod
    /// that their connection reached.
    pub requests_per_connection: Option<u32>,
    /// Enter this network namespace (a path such as `/proc/PID/ns/net`); needs root.
    pub network_namespace: Option<PathBuf>,
    /// Write a JSON line per second, and the summary as last line, to this file.
    pub out: Option<PathBuf>,
    /// Replace this file with the cumulative figures every second.
    pub stats_file: Option<PathBuf>,
}

impl Config {
    /// 10 requests/s to `url` for [`MAX_DURATION`], with a timeout of 2 s.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            host: None,
            rate: 10.0,
            duration: MAX_DURATION,
            requests: None,
            timeout: Duration::from_secs(2),
            connections: 8,
            in_flight: 512,
            requests_per_connection: None,
            network_namespace: None,
            out: None,
            stats_file: None,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`LoadError::Destination`] or [`LoadError::Bounds`], naming the value and the bound.
    pub fn check(&self) -> Result<Target, LoadError> {
        let target = Target::parse(&self.url, self.host.as_deref())?;
        check_rate(self.rate)?;
        let bounds = |problem: String| Err(LoadError::Bounds(problem));
        if self.duration.is_zero() || self.duration > MAX_DURATION {
            return bounds(format!(
                "duration {:?}: expected more than 0 and at most {} h",
                self.duration,
                MAX_DURATION.as_secs().div_euclid(3600)
            ));
        }
        if self.timeout.is_zero() || self.timeout > MAX_TIMEOUT {
            return bounds(format!("timeout {:?}: expected more than 0 and at most {MAX_TIMEOUT:?}", self.timeout));
        }
        if self.connections == 0 || self.in_flight < self.connections {
            return bounds(format!(
                "{} connections and {} requests under way: expected at least 1 connection, and as \
                 many requests under way as connections",
                self.connections, self.in_flight
            ));
        }
        if self.in_flight > MAX_IN_FLIGHT {
            return bounds(format!("{} requests under way: expected at most {MAX_IN_FLIGHT}", self.in_flight));
        }
        if self.requests == Some(0) || self.requests_per_connection == Some(0) {
            return bounds("0 requests: expected at least 1".to_owned());
        }
        Ok(target)
    }
}

/// Checks a rate.
pub(super) fn check_rate(rate: f64) -> Result<(), LoadError> {
    // A NaN is in no range.
    if (MIN_RATE..=MAX_RATE).contains(&rate) {
        Ok(())
    } else {
        Err(LoadError::Bounds(format!("rate {rate}: expected {MIN_RATE} to {MAX_RATE} requests per second")))
    }
}

/// A destination that was found to be in the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Address and port to connect to.
    pub address: SocketAddr,
    /// Path and query.
    pub path: Uri,
    /// The Host header.
    pub host: HeaderValue,
}

impl Target {
    /// Reads a URL; only `http` and only an address of the lab.
    ///
    /// # Errors
    /// [`LoadError::Destination`] saying what is wrong with it.
    pub fn parse(url: &str, host: Option<&str>) -> Result<Self, LoadError> {
        let refuse = |problem: String| LoadError::Destination { url: url.to_owned(), problem };
        let uri: Uri = url.parse().map_err(|error| refuse(format!("not a URL: {error}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(refuse("expected http://ADDRESS[:PORT]/PATH".to_owned()));
        }
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))
            .ok_or_else(|| refuse("expected http://ADDRESS[:PORT]/PATH".to_owned()))?;
        let address: IpAddr = authority.host().parse().map_err(|_| {
            refuse(format!(
                "{:?} is not an IPv4 address; names are not resolved: give the address in the URL \
                 and the name as host",
                authority.host()
            ))
        })?;
        if !is_lab_address(address) {
            return Err(refuse(format!(
                "{address} is outside the lab ({}); load is sent nowhere else",
                lab_ranges_text()
            )));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = path.parse().map_err(|error| refuse(format!("not a path: {error}")))?;
        let host = HeaderValue::from_str(host.unwrap_or(authority.as_str()))
            .map_err(|error| refuse(format!("host: {error}")))?;
        Ok(Self { address: SocketAddr::new(address, authority.port_u16().unwrap_or(80)), path, host })
    }
}

/// The program's flags.
pub const FLAGS: [Flag; 15] = [
    flag("url", "URL", "http://ADDRESS[:PORT]/PATH; an address of the lab"),
    flag("host", "NAME", "Host header (default: the URL's address)"),
    flag("rate", "N", "requests per second, 0.1 to 2000 (default 10)"),
    flag("duration", "TIME", "how long, such as 60s; at most 6h"),
    flag("until-signal", "", "until SIGTERM or SIGINT, at most 6h"),
    flag("requests", "N", "send so many requests at most"),
    flag("timeout", "TIME", "for one answer (default 2s)"),
    flag("connections", "N", "connections kept open (default 8)"),
    flag("in-flight", "N", "requests under way at most (default 512)"),
    flag("requests-per-connection", "N", "close a connection after so many"),
    flag("netns", "PATH", "network namespace to enter, such as /proc/PID/ns/net"),
    flag("out", "FILE", "a JSON line per second, and the summary last"),
    flag("stats-file", "FILE", "replaced with the cumulative figures every second"),
    flag("fail-on-bad", "", "exit 1 if any answer was bad or missing"),
    flag("quiet", "", "do not print the summary"),
];

const fn flag(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { name, value, help }
}

/// What the program is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to send.
    pub config: Config,
    /// Exit 1 if any answer was bad.
    pub fail_on_bad: bool,
    /// Do not print the summary.
    pub quiet: bool,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// [`FlagError`] for flags that cannot be read; bounds are checked by [`Config::check`].
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self, FlagError> {
        let values = Values::read(&FLAGS, arguments, |_| None)?;
        let mut config = Config::new(values.text("url").ok_or(FlagError::Required("url"))?);
        config.host = values.text("host").map(ToOwned::to_owned);
        config.rate = values.parsed("rate", "a number")?.unwrap_or(config.rate);
        let endless = values.is_set("until-signal");
        config.requests = values.parsed("requests", "a whole number")?;
        config.duration = match (values.duration("duration")?, endless) {
            (Some(_), true) => {
                let given = values.text("duration").unwrap_or_default();
                return Err(invalid("duration", given, "not together with --until-signal"));
            }
            (Some(duration), false) => duration,
            (None, _) if endless || config.requests.is_some() => MAX_DURATION,
            (None, _) => return Err(FlagError::Required("duration")),
        };
        config.timeout = values.duration("timeout")?.unwrap_or(config.timeout);
        let count = "a whole number";
        config.connections = values.parsed("connections", count)?.unwrap_or(config.connections);
        config.in_flight = values.parsed("in-flight", count)?.unwrap_or(config.in_flight.max(config.connections));
        config.requests_per_connection = values.parsed("requests-per-connection", count)?;
        config.network_namespace = values.text("netns").map(PathBuf::from);
        config.out = values.text("out").map(PathBuf::from);
        config.stats_file = values.text("stats-file").map(PathBuf::from);
        Ok(Self { config, fail_on_bad: values.is_set("fail-on-bad"), quiet: values.is_set("quiet") })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn destinations_outside_the_lab_are_refused() {
        for url in [
            "http://8.8.8.8/",
            "http://192.168.1.10:8080/",
            "http://10.95.0.1/",
            "http://169.254.169.254/latest",
            "http://0.0.0.0/",
            "http://[::1]/",
            "http://localhost/",
            "http://example.org/",
            "http://127.0.0.1.example.org/",
            "http://127.0.0.1@8.8.8.8/",
            "http://2130706433/",
            "https://127.0.0.1/",
            "127.0.0.1:80",
            "/",
            "",
        ] {
            let error = Target::parse(url, None).unwrap_err();
            assert_eq!(error.category(), "destination", "{url}");
        }
        let message = Target::parse("http://8.8.8.8/", None).unwrap_err().to_string();
        assert!(message.contains("outside the lab") && message.contains("10.244.0.0/16"));
    }

    #[test]
    fn lab_destinations_are_read_whole() {
        let target = Target::parse("http://10.244.0.1/a?b=c", Some("shop.lab")).unwrap();
        assert_eq!(target.address.to_string(), "10.244.0.1:80");
        assert_eq!(target.path.to_string(), "/a?b=c");
        assert_eq!(target.host, "shop.lab");
        let target = Target::parse("http://127.0.0.1:8080", None).unwrap();
        assert_eq!(target.path.to_string(), "/");
        assert_eq!(target.host, "127.0.0.1:8080");
        assert!(Target::parse("http://127.0.0.1/", Some("a\r\nb: c")).is_err());
    }

    #[test]
    fn rate_duration_and_connections_are_bounded() {
        let good = Config::new("http://127.0.0.1/");
        good.check().unwrap();
        let wrong: [fn(&mut Config); 9] = [
            |config| config.rate = 2_000.1,
            |config| config.rate = 0.0,
            |config| config.rate = f64::NAN,
            |config| config.duration = MAX_DURATION + Duration::from_secs(1),
            |config| config.duration = Duration::ZERO,
            |config| config.timeout = Duration::from_secs(61),
            |config| config.connections = 0,
            |config| config.in_flight = 5_000,
            |config| config.requests = Some(0),
        ];
        for change in wrong {
            let mut config = good.clone();
            change(&mut config);
            assert_eq!(config.check().unwrap_err().category(), "bounds", "{config:?}");
        }
    }

    #[test]
    fn the_command_line_needs_an_end() {
        let read = |line: &str| Options::read(line.split_whitespace().map(ToOwned::to_owned));
        let options = read("--url http://127.0.0.1/ --rate 100 --duration 60s --timeout 500ms").unwrap();
        assert_eq!(options.config.duration, Duration::from_secs(60));
        assert_eq!(options.config.timeout, Duration::from_millis(500));
        assert_eq!(read("--url http://127.0.0.1/ --until-signal").unwrap().config.duration, MAX_DURATION);
        assert_eq!(read("--url http://127.0.0.1/").unwrap_err(), FlagError::Required("duration"));
        assert!(read("--url http://127.0.0.1/ --duration 1s --until-signal").is_err());
        assert_eq!(read("--duration 1s").unwrap_err(), FlagError::Required("url"));
    }
}
