//! Configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A Prometheus that the admin lets CanaryReleases refer to by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Unique; CanaryReleases say `provider: <name>`, default `default`.
    pub name: String,
    /// Base address, without `/api/v1`.
    pub url: String,
    /// File with a bearer token, read again when it changes.
    pub bearer_token_file: Option<PathBuf>,
    /// For one query.
    pub timeout: Duration,
    /// How this provider names the labels we need.
    pub labels: BTreeMap<String, String>,
    /// How often it scrapes the pods.
    pub scrape_interval: Duration,
}
