//! What the admin says of one provider. Decides whether it is usable, before anything is asked;
//! credentials are named by file, read again for every question, and never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use canary_counters::{LabelNames, ScopeError};
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use thiserror::Error;

/// One Prometheus, by name, in the operator's configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderConfig {
    /// Unique; a CanaryRelease says `provider: <name>`, default `default`.
    pub name: String,
    /// Base address, without `/api/v1`.
    pub url: String,
    /// File with a bearer token, read again for every question.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// More headers, such as a tenant's.
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderSource>,
    /// File with the certificate authorities (PEM) to trust in place of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// For one question, waiting in line included; default 5 s.
    #[serde(default = "default_timeout", deserialize_with = "duration")]
    pub timeout: Duration,
    /// For the connection alone; default 2 s.
    #[serde(default = "default_connect_timeout", deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// What its labels are called.
    #[serde(default)]
    pub labels: LabelNames,
    /// How often it scrapes the pods; estimated from the samples where not given.
    #[serde(default, deserialize_with = "optional_duration")]
    pub scrape_interval: Option<Duration>,
    /// Largest answer in bytes; default 16 MiB.
    #[serde(default = "default_max_body")]
    pub max_body_bytes: usize,
    /// Most questions at a time; default 8.
    #[serde(default = "default_concurrency")]
    pub max_concurrent: usize,
    /// Whether a query must name the candidate's pods by `$pods`; default true.
    #[serde(default = "default_true")]
    pub require_pods: bool,
}

/// Where a header's value comes from: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderSource {
    /// The value itself, for what is no secret.
    #[serde(default)]
    pub value: Option<Secret>,
    /// A file with the value, read again for every question.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A provider that can't be used as configured.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ConfigError {
    /// The address.
    #[error("provider {name}: {why}")]
    Url {
        /// The provider.
        name: String,
        /// What is wrong with it; never the address itself, which might hold a password.
        why: &'static str,
    },
    /// A header.
    #[error("provider {name}: header {header:?}: {why}")]
    Header {
        /// The provider.
        name: String,
        /// The header's name.
        header: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A number that is zero.
    #[error("provider {name}: {field} must be above zero")]
    Zero {
        /// The provider.
        name: String,
        /// The field.
        field: &'static str,
    },
    /// A label name.
    #[error("provider {name}: {why}")]
    Labels {
        /// The provider.
        name: String,
        /// Which one.
        why: ScopeError,
    },
    /// The certificate authorities.
    #[error("provider {name}: {why}")]
    Tls {
        /// The provider.
        name: String,
        /// What is wrong.
        why: String,
    },
}

impl ConfigError {
    /// A static word for metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Url { .. } => "url",
            Self::Header { .. } => "header",
            Self::Zero { .. } => "zero",
            Self::Labels { .. } => "labels",
            Self::Tls { .. } => "tls",
        }
    }
}

impl ProviderConfig {
    /// A provider with defaults for all but its name and address.
    #[must_use]
    pub fn new(name: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: url.to_owned(),
            bearer_token_file: None,
            headers: BTreeMap::new(),
            ca_file: None,
            timeout: default_timeout(),
            connect_timeout: default_connect_timeout(),
            labels: LabelNames::default(),
            scrape_interval: None,
            max_body_bytes: default_max_body(),
            max_concurrent: default_concurrency(),
            require_pods: true,
        }
    }

    /// Checks everything that can be checked without asking, and returns the address of queries.
    ///
    /// # Errors
    /// What is wrong, without showing it where it might be a secret.
    pub fn check(&self) -> Result<reqwest::Url, ConfigError> {
        let url_error = |why| ConfigError::Url { name: self.name.clone(), why };
        let mut url = reqwest::Url::parse(&self.url)
            .map_err(|_| url_error("url is not an address such as http://prometheus:9090"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(url_error("url must begin with http:// or https:// and name a host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(url_error("url must not hold credentials; name a bearerTokenFile or a header's file"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(url_error("url must not hold a query or a fragment; name a header instead"));
        }
        let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
        url.set_path(&path);
        for (header, source) in &self.headers {
            let error = |why| ConfigError::Header { name: self.name.clone(), header: header.clone(), why };
            HeaderName::from_bytes(header.as_bytes()).map_err(|_| error("not a header's name"))?;
            match (&source.value, &source.file) {
                (Some(value), None) => {
                    HeaderValue::from_str(value.expose()).map_err(|_| error("not a header's value"))?;
                }
                (None, Some(_)) => {}
                _ => return Err(error("give either value or file")),
            }
        }
        let zero = |field| ConfigError::Zero { name: self.name.clone(), field };
        if self.timeout.is_zero() {
            return Err(zero("timeout"));
        }
        if self.connect_timeout.is_zero() {
            return Err(zero("connectTimeout"));
        }
        if self.max_body_bytes == 0 {
            return Err(zero("maxBodyBytes"));
        }
        if self.max_concurrent == 0 {
            return Err(zero("maxConcurrent"));
        }
        if self.scrape_interval.is_some_and(|interval| interval.is_zero()) {
            return Err(zero("scrapeInterval"));
        }
        self.labels.check().map_err(|why| ConfigError::Labels { name: self.name.clone(), why })?;
        Ok(url)
    }
}

fn default_timeout() -> Duration {
    Duration::from_secs(5)
}

fn default_connect_timeout() -> Duration {
    Duration::from_secs(2)
}

fn default_max_body() -> usize {
    16 * 1024 * 1024
}

fn default_concurrency() -> usize {
    8
}

fn default_true() -> bool {
    true
}

/// Whole numbers with `ms`, `s` or `m`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => number,
        "s" => number.checked_mul(1000)?,
        "m" => number.checked_mul(60_000)?,
        _ => return None,
    };
    (millis <= 3_600_000).then(|| Duration::from_millis(millis))
}

pub(crate) fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("{text:?} is not a duration of at most an hour, such as 500ms, 5s or 1m"))
    })
}

fn optional_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}
