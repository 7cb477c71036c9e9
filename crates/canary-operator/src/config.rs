//! What the admin decides: flags, each with its environment variable, and the mounted file with the
//! providers. It reads and checks, all at start and before anything runs; it never connects, and it
//! never shows a credential (it holds none: credentials are named by file).

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use canary_api::units;
use canary_metrics::{ProviderConfig, pods::PodLimits};
use clap::{ArgAction, Parser};
use serde::Deserialize;

use crate::lease::Timing;
use crate::telemetry::LogFormat;
use crate::tick::PODS;
use crate::workers::Limits;

/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "/etc/canaryrelease/config.yaml";

const AFTER_HELP: &str = "\
The file (YAML) names the Prometheus servers that a CanaryRelease may refer to:

    providers:
    - name: default                     # what a CanaryRelease means that names none
      url: http://prometheus.monitoring.svc:9090
      bearerTokenFile: /etc/prom/token  # optional; read again for every question
      timeout: 5s                       # optional; for one question
      scrapeInterval: 15s               # optional; how often it scrapes the pods
      labels: {namespace: namespace, pod: pod, service: service}   # optional; its names for them

The default file may be missing. Where it names no provider `default`, that is `pods`: the operator reads the
metrics endpoints of the target's and the canary's pods itself, each tick. Its bounds may be set:

    pods: {timeout: 800ms, maxBodyBytes: 8388608, maxSeries: 50000, maxPods: 500}

Of each CanaryRelease the newest records are kept, for so many days:

    records: {keep: 20, days: 400}

A file named by --config must exist. `--check` reads everything, prints it and exits.

Every flag may be given by the environment variable named beside it; a flag beats its variable.
Exit codes: 0 stopped by a signal, or --check found nothing wrong; 1 it could not run; 2 the
configuration is wrong.";

/// Takes changes of Deployments live in stages, judged by metrics, and back when they are bad.
#[derive(Clone, Debug, Parser)]
#[command(name = "canary-operator", version, about, after_long_help = AFTER_HELP, max_term_width = 100)]
pub struct Args {
    /// File with the providers [default: /etc/canaryrelease/config.yaml, where it exists]
    #[arg(long, env = "CANARYRELEASE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Read the configuration, print it, and exit
    #[arg(long)]
    pub check: bool,

    /// Where /livez, /readyz and /metrics are served
    #[arg(long, env = "CANARYRELEASE_HTTP_ADDRESS", default_value = "0.0.0.0:8080", value_name = "ADDRESS:PORT")]
    pub http_address: SocketAddr,

    /// How log lines look
    #[arg(long, env = "CANARYRELEASE_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace, also by module (`info,canary_operator=debug`)
    #[arg(long, env = "CANARYRELEASE_LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    pub log_level: String,

    /// Namespace of the lease [default: that of the service account or kubeconfig]
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Name of this replica, different for each; a restarted one goes on under its old lease
    /// [default: the host's name and a random number]
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,

    /// Whether replicas agree on one that works; `false` only where there is just one
    #[arg(long, env = "CANARYRELEASE_LEADER_ELECT", default_value = "true", action = ArgAction::Set)]
    pub leader_elect: bool,

    /// Name of the lease
    #[arg(long, env = "CANARYRELEASE_LEASE_NAME", default_value = "canaryrelease-operator", value_name = "NAME")]
    pub lease_name: String,

    /// Longest time for one call of the API server
    #[arg(long, env = "CANARYRELEASE_API_DEADLINE", default_value = "8s", value_parser = duration, value_name = "DURATION")]
    pub api_deadline: Duration,

    /// Ticks at once; a further half as many are kept for releases that revert
    #[arg(long, env = "CANARYRELEASE_TICKS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "NUMBER")]
    pub ticks: u16,

    /// Longest time for one tick; one that takes longer is dropped and tried again
    #[arg(long, env = "CANARYRELEASE_TICK_DEADLINE", default_value = "2m", value_parser = duration, value_name = "DURATION")]
    pub tick_deadline: Duration,

    /// How long ticks in hand may take to end after SIGTERM; keep it below the pod's grace period
    #[arg(long, env = "CANARYRELEASE_SHUTDOWN_GRACE", default_value = "20s", value_parser = duration, value_name = "DURATION")]
    pub shutdown_grace: Duration,
}

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be; the parser's text names line and field.
    #[error("{}: {reason}", file.display())]
    Parse {
        /// Which file.
        file: PathBuf,
        /// Why, with place.
        reason: String,
    },
    /// One provider cannot be used.
    #[error("{}: providers[{index}]: {reason}", file.display())]
    Provider {
        /// Which file.
        file: PathBuf,
        /// Which one, from 0.
        index: usize,
        /// Why.
        reason: String,
    },
}

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    providers: Vec<ProviderConfig>,
    #[serde(default)]
    pods: PodLimits,
    #[serde(default)]
    records: Retention,
}

/// Which records of releases are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// The newest so many of each CanaryRelease, 1 to 1000.
    pub keep: u16,
    /// For so many days, 1 to 36500.
    pub days: u16,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: 20, days: 400 }
    }
}

/// Everything that was decided.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The flags.
    pub args: Args,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Where metrics come from, by unique name.
    pub providers: Vec<ProviderConfig>,
    /// Bounds on reading pods' own metrics.
    pub pods: PodLimits,
    /// Which records are kept.
    pub records: Retention,
}

impl Settings {
    /// Reads the file that the flags name and checks it.
    ///
    /// # Errors
    /// Where it cannot be read or used; the text names file and field.
    pub fn load(args: Args) -> Result<Self, ConfigError> {
        let named = args.config.is_some();
        let file = args.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                let File { providers, pods, records } = parse(&file, &text)?;
                Ok(Self { args, file: Some(file), providers, pods, records })
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !named => {
                let (providers, pods, records) = Default::default();
                Ok(Self { args, file: None, providers, pods, records })
            }
            Err(source) => Err(ConfigError::Read { file, source }),
        }
    }

    /// The bounds on the workers.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let ticks = usize::from(self.args.ticks);
        Limits { ticks, urgent_ticks: (ticks / 2).max(1), tick_deadline: self.args.tick_deadline, ..Limits::default() }
    }

    /// The times of the election.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing::default()
    }

    /// The whole configuration in one line a part, for the log. It shows no header's value.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let args = &self.args;
        let file = self
            .file
            .as_ref()
            .map_or_else(|| format!("none ({DEFAULT_FILE} does not exist)"), |file| file.display().to_string());
        let mut lines = vec![
            format!("file {file}"),
            format!(
                "http {}, log {} {:?}, API deadline {:?}, {} ticks at once, tick deadline {:?}, shutdown grace {:?}",
                args.http_address,
                args.log_level,
                args.log_format,
                args.api_deadline,
                args.ticks,
                args.tick_deadline,
                args.shutdown_grace
            ),
            if args.leader_elect {
                format!("lease {}, {:?}", args.lease_name, self.timing().duration)
            } else {
                "no leader election: this must be the only replica".to_owned()
            },
        ];
        lines.push(format!("records: the newest {}, for {} days", self.records.keep, self.records.days));
        if self.providers.is_empty() {
            lines.push("no provider: the pods' own metrics are read".to_owned());
        }
        for provider in &self.providers {
            let token = provider.bearer_token_file.as_ref();
            let headers: Vec<&str> = provider.headers.keys().map(String::as_str).collect();
            lines.push(format!(
                "provider {}: {}, timeout {:?}, scrape interval {}, token {}, headers [{}], labels {}/{}/{} of {}",
                provider.name,
                provider.url,
                provider.timeout,
                provider.scrape_interval.map_or_else(|| "estimated".to_owned(), |interval| format!("{interval:?}")),
                token.map_or_else(|| "none".to_owned(), |file| format!("from {}", file.display())),
                headers.join(", "),
                provider.labels.namespace,
                provider.labels.pod,
                provider.labels.service,
                provider.labels.of_services()
            ));
        }
        lines
    }
}

fn parse(file: &Path, text: &str) -> Result<File, ConfigError> {
    // A file of nothing but comments says nothing.
    let empty = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    let parsed: File = if empty {
        File::default()
    } else {
        serde_saphyr::from_str(text)
            .map_err(|error| ConfigError::Parse { file: file.to_owned(), reason: reason(&error) })?
    };
    let mut names = HashSet::new();
    for (index, provider) in parsed.providers.iter().enumerate() {
        let wrong = |reason: String| ConfigError::Provider { file: file.to_owned(), index, reason };
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if provider.name.is_empty() || provider.name.len() > 63 || !provider.name.chars().all(legal) {
            return Err(wrong(format!(
                "name: {:?} must be 1 to 63 lower-case letters, digits or dashes",
                provider.name
            )));
        }
        if !names.insert(provider.name.as_str()) {
            return Err(wrong(format!("name: {:?} is there twice", provider.name)));
        }
        if provider.name == PODS {
            return Err(wrong(format!("name: {PODS:?} means the pods' own metrics; choose another")));
        }
        provider.check().map_err(|error| wrong(error.to_string()))?;
    }
    let wrong = |error: canary_metrics::ConfigError| ConfigError::Parse {
        file: file.to_owned(),
        reason: format!("pods: {error}"),
    };
    parsed.pods.check().map_err(wrong)?;
    let Retention { keep, days } = parsed.records;
    if !(1..=1000).contains(&keep) || !(1..=36_500).contains(&days) {
        let reason = format!("records: keep must be 1 to 1000 and days 1 to 36500, not {keep} and {days}");
        return Err(ConfigError::Parse { file: file.to_owned(), reason });
    }
    Ok(parsed)
}

/// Place and reason, without the lines of the file that the parser would quote: they may hold a
/// header's value.
fn reason(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: units::Duration = text.parse().map_err(|error: units::UnitError| error.to_string())?;
    match parsed.std() {
        Duration::ZERO => Err("must be above zero".to_owned()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use clap::CommandFactory as _;

    use super::*;

    fn providers(text: &str) -> Result<Vec<ProviderConfig>, String> {
        parse(Path::new("/etc/c.yaml"), text).map(|file| file.providers).map_err(|error| error.to_string())
    }

    #[test]
    fn a_short_provider_gets_its_defaults() {
        let read = providers("providers:\n- name: default\n  url: http://prometheus:9090\n").unwrap();
        assert_eq!(read, [ProviderConfig::new("default", "http://prometheus:9090")]);
    }

    #[test]
    fn records_are_kept_as_the_file_says() {
        let read = |text: &str| parse(Path::new("c.yaml"), text).unwrap().records;
        assert_eq!(read("# nothing\n"), Retention { keep: 20, days: 400 });
        assert_eq!(read("records: {keep: 5}\n"), Retention { keep: 5, days: 400 });
    }

    #[test]
    fn a_file_without_providers_is_fine() {
        assert_eq!(providers("# nothing yet\n").unwrap(), []);
        assert_eq!(providers("").unwrap(), []);
        assert_eq!(providers("providers: []\n").unwrap(), []);
    }

    #[test]
    fn mistakes_name_the_file_and_the_field() {
        let cases = [
            ("provider: []\n", "provider"),
            ("providers:\n- name: default\n", "url"),
            ("providers:\n- {name: default, url: 'http://a', bearerToken: x}\n", "bearerToken"),
            ("providers:\n- {name: default, url: 'http://a', timeout: soon}\n", "soon"),
            ("providers:\n- {name: default, url: 'ftp://a'}\n", "providers[0]"),
            ("providers:\n- {name: a, url: 'http://a'}\n- {name: a, url: 'http://b'}\n", "providers[1]: name"),
            ("records: {keep: 0}\n", "records: keep"),
            ("records: {keep: 5, months: 3}\n", "months"),
            ("providers:\n- {name: 'A b', url: 'http://a'}\n", "name: \"A b\""),
        ];
        for (text, field) in cases {
            let error = providers(text).unwrap_err();
            assert!(error.starts_with("/etc/c.yaml: "), "{error}");
            assert!(error.contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn a_named_file_must_exist_and_the_default_one_need_not() {
        let args = Args::parse_from(["canary-operator", "--config", "/nowhere/config.yaml"]);
        let error = Settings::load(args).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/config.yaml: cannot be read"), "{error}");
    }

    #[test]
    fn what_is_printed_shows_no_secret() {
        let text = "providers:\n- {name: default, url: 'http://a', headers: {X-Scope: {value: s3cr3t}}}\n";
        let mut settings = Settings {
            args: Args::parse_from(["canary-operator"]),
            file: None,
            providers: vec![],
            pods: PodLimits::default(),
            records: Retention::default(),
        };
        settings.providers = providers(text).unwrap();
        let lines = settings.lines().join("\n");
        assert!(lines.contains("X-Scope") && !lines.contains("s3cr3t"), "{lines}");
    }

    #[test]
    fn a_mistake_beside_a_secret_does_not_show_it() {
        let text =
            "providers:\n- name: default\n  url: http://a\n  headers: {X-Scope: {value: s3cr3t}}\n  timeout: 3\n";
        let error = providers(text).unwrap_err();
        assert!(error.contains("line 5") && !error.contains("s3cr3t"), "{error}");
    }

    #[test]
    fn every_flag_explains_itself() {
        let command = Args::command();
        command.clone().debug_assert();
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{}", argument.get_id());
        }
    }

    #[test]
    fn durations_are_written_as_everywhere_else() {
        let args = Args::try_parse_from(["canary-operator", "--api-deadline", "1m30s"]).unwrap();
        assert_eq!(args.api_deadline, Duration::from_secs(90));
        for wrong in ["0s", "8", "soon", "-1s"] {
            assert!(Args::try_parse_from(["canary-operator", "--api-deadline", wrong]).is_err(), "{wrong}");
        }
    }
}
