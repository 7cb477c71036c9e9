//! The client that reads pods. One kind of request: a GET of the pod's own address. No redirect is
//! followed, no proxy is taken from the environment, no credential is sent, no connection is kept,
//! nothing is retried: the next tick asks again. It decides what is an answer; what the answer
//! counts is decided by the meter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use canary_counters::Selector;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, TRANSFER_ENCODING,
};
use tokio::time::Instant;

use super::endpoint::PodEndpoint;
use super::error::{PodFailure, PodProblem};
use super::exposition::{Exposed, Format, Keep, Parser, Room};
use super::limits::PodLimits;
use super::samples::{Answer, NAME, PodSamples};
use crate::config::ConfigError;
use crate::envelope::shorten;
use crate::error::Problem;
use crate::prometheus::chain;

/// The classic format first: it is the same everywhere.
const ACCEPTED: &str = "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1";

/// Reads pods' metrics endpoints. Lives as long as the operator; clones share its client.
#[derive(Debug, Clone)]
pub struct PodScraper {
    limits: Arc<PodLimits>,
    client: reqwest::Client,
}

impl PodScraper {
    /// A scraper with these limits. The TLS provider of the process should be installed before.
    ///
    /// # Errors
    /// A limit of zero, or a client that can't be made.
    pub fn new(limits: PodLimits) -> Result<Self, ConfigError> {
        limits.check()?;
        let client = reqwest::Client::builder()
            .user_agent(concat!("canaryrelease-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .http1_only()
            // An address may be another pod's tomorrow; a kept connection would not notice.
            .pool_max_idle_per_host(0)
            // Pods are read without TLS, so no certificate of the system is needed.
            .tls_certs_only(Vec::new())
            .build()
            .map_err(|error| ConfigError::Tls { name: NAME.to_owned(), why: chain(&error) })?;
        Ok(Self { limits: Arc::new(limits), client })
    }

    /// Reads every pod once, at `at`, and keeps all its series.
    pub async fn scrape(&self, pods: Vec<PodEndpoint>, at: Timestamp) -> PodSamples {
        self.round(pods, None, at).await
    }

    /// Reads every pod once, at `at`, and keeps only what these selectors ask about, so that large
    /// expositions take little memory. Other counters can't be asked of the result.
    pub async fn scrape_for<'a>(
        &self,
        pods: Vec<PodEndpoint>,
        selectors: impl IntoIterator<Item = &'a Selector>,
        at: Timestamp,
    ) -> PodSamples {
        let names: BTreeSet<String> = selectors.into_iter().map(|selector| selector.metric().to_owned()).collect();
        self.round(pods, Some(Arc::new(names)), at).await
    }

    async fn round(&self, pods: Vec<PodEndpoint>, names: Option<Arc<BTreeSet<String>>>, at: Timestamp) -> PodSamples {
        let begun = Instant::now();
        let limits = &self.limits;
        let mut unique = BTreeMap::new();
        for pod in pods {
            unique.entry((pod.namespace().to_owned(), pod.pod().to_owned())).or_insert(pod);
        }
        let mut samples = PodSamples::new(at, names.clone());
        if unique.len() > limits.max_pods {
            samples.refuse(Problem::TooManyPods { found: unique.len(), max: limits.max_pods });
            return samples;
        }
        let keep = Keep {
            names,
            max_series: limits.max_series,
            max_line_bytes: limits.max_line_bytes,
            room: Room::new(limits.max_kept_bytes),
        };
        let mut answers = stream::iter(unique.into_values())
            .map(|pod| self.turn(pod, keep.clone(), begun))
            .buffer_unordered(limits.max_concurrent);
        while let Some((pod, answer)) = answers.next().await {
            // Our own clock, read at the round's beginning; it can't go back in between.
            let received = at.saturating_add(begun.elapsed()).unwrap_or(at);
            match answer {
                Ok(series) => samples.add(&pod, Answer::new(received.as_millisecond(), series)),
                Err(problem) => samples.fail(PodFailure {
                    namespace: pod.namespace().to_owned(),
                    pod: pod.pod().to_owned(),
                    url: Some(pod.url().to_owned()),
                    problem,
                }),
            }
        }
        samples
    }

    /// One pod's turn, within its own time and the round's.
    async fn turn(
        &self,
        pod: PodEndpoint,
        keep: Keep,
        begun: Instant,
    ) -> (PodEndpoint, Result<Vec<Exposed>, PodProblem>) {
        let round = self.limits.round_timeout;
        let left = round.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return (pod, Err(PodProblem::NotAsked(round.as_millis())));
        }
        let timeout = self.limits.timeout.min(left);
        let answer = tokio::time::timeout(timeout, self.read(&pod, keep)).await;
        (pod, answer.unwrap_or(Err(PodProblem::Timeout(timeout.as_millis()))))
    }

    async fn read(&self, pod: &PodEndpoint, keep: Keep) -> Result<Vec<Exposed>, PodProblem> {
        let mut response =
            self.client.get(pod.address().clone()).headers(headers()).send().await.map_err(|error| failed(&error))?;
        check_status(response.status())?;
        let format = format(response.headers())?;
        let max = self.limits.max_body_bytes;
        let length = response.content_length();
        if length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > max)) {
            return Err(PodProblem::TooLarge(max));
        }
        // With either of the two the HTTP client sees a cut by itself.
        let whole = length.is_some() || response.headers().contains_key(TRANSFER_ENCODING);
        let mut parser = Parser::new(format, keep);
        let mut seen = 0_usize;
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
            seen = seen.saturating_add(chunk.len());
            if seen > max {
                return Err(PodProblem::TooLarge(max));
            }
            parser.feed(&chunk)?;
        }
        Ok(parser.finish(whole)?)
    }
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}

fn check_status(status: StatusCode) -> Result<(), PodProblem> {
    let code = status.as_u16();
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(PodProblem::Denied(code)),
        _ if status.is_redirection() => Err(PodProblem::Redirect(code)),
        _ => Err(PodProblem::Status(code)),
    }
}

/// The dialect by the answer's own type; without one it is the classic format, as ever.
fn format(headers: &HeaderMap) -> Result<Format, PodProblem> {
    let shown = |value: &HeaderValue| shorten(&String::from_utf8_lossy(value.as_bytes()));
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(PodProblem::Encoded(shown(encoding)));
    }
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Format::Text) };
    let text = shown(value);
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "" | "text/plain" => Ok(Format::Text),
        "application/openmetrics-text" => Ok(Format::OpenMetrics),
        _ => Err(PodProblem::ContentType(media)),
    }
}

fn failed(error: &reqwest::Error) -> PodProblem {
    if error.is_body() || error.is_decode() {
        PodProblem::BrokenOff(chain(error))
    } else {
        PodProblem::Unreachable(chain(error))
    }
}
