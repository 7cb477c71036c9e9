//! How much time, memory and attention reading pods may take. The admin's; decides nothing else.

use std::time::Duration;

use serde::Deserialize;

use crate::config::{ConfigError, duration};

/// Bounds of one round, in which every pod is read once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodLimits {
    /// For one pod, connection included; default 800 ms.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// For the whole round; pods whose turn has not come by then are failures. Default 2 s.
    #[serde(deserialize_with = "duration")]
    pub round_timeout: Duration,
    /// Largest answer of a pod in bytes; default 8 MiB.
    pub max_body_bytes: usize,
    /// Longest line in bytes; default 64 KiB.
    pub max_line_bytes: usize,
    /// Most series kept of one pod; default 50,000.
    pub max_series: usize,
    /// Most memory, about, that the kept series of all pods of a round take; default 128 MiB.
    pub max_kept_bytes: usize,
    /// Most pods asked at a time; default 32.
    pub max_concurrent: usize,
    /// Most pods of a round; with more, none is read. Default 500.
    pub max_pods: usize,
}

impl Default for PodLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(800),
            round_timeout: Duration::from_secs(2),
            max_body_bytes: 8 * 1024 * 1024,
            max_line_bytes: 64 * 1024,
            max_series: 50_000,
            max_kept_bytes: 128 * 1024 * 1024,
            max_concurrent: 32,
            max_pods: 500,
        }
    }
}

impl PodLimits {
    /// Checks that nothing is zero.
    ///
    /// # Errors
    /// [`ConfigError::Zero`] names the field.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fields = [
            ("timeout", self.timeout.is_zero()),
            ("roundTimeout", self.round_timeout.is_zero()),
            ("maxBodyBytes", self.max_body_bytes == 0),
            ("maxLineBytes", self.max_line_bytes == 0),
            ("maxSeries", self.max_series == 0),
            ("maxKeptBytes", self.max_kept_bytes == 0),
            ("maxConcurrent", self.max_concurrent == 0),
            ("maxPods", self.max_pods == 0),
        ];
        match fields.into_iter().find(|(_, zero)| *zero) {
            Some((field, _)) => Err(ConfigError::Zero { name: super::samples::NAME.to_owned(), field }),
            None => Ok(()),
        }
    }
}
