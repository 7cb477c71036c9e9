//! The Prometheus client. One kind of request: an instant query by POST. No redirect is followed,
//! no proxy is taken from the environment, nothing is retried: the next tick asks again. Every
//! question has one deadline, waiting in line included, and every answer a largest size.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use canary_counters::{Instant, LabelNames, NativeSeries, Scope, Scoped, Selector, Series, scope_query};
use futures::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, DATE, HeaderMap, HeaderName, HeaderValue,
};
use tokio::sync::Semaphore;

use crate::config::{ConfigError, ProviderConfig};
use crate::envelope::{self, shorten};
use crate::error::{FetchError, Problem};
use crate::source::MetricSource;

/// Clocks may differ by this much; the server states its own in whole seconds.
const MAX_SKEW_SECONDS: i64 = 10;
/// No credential is longer.
const MAX_CREDENTIAL_BYTES: u64 = 64 * 1024;
/// How much of an error page is read.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// A Prometheus, or what speaks its API.
#[derive(Debug, Clone)]
pub struct Prometheus {
    config: Arc<ProviderConfig>,
    endpoint: reqwest::Url,
    client: reqwest::Client,
    line: Arc<Semaphore>,
}

impl Prometheus {
    /// A client for one provider. The TLS provider of the process should be installed before.
    ///
    /// # Errors
    /// A configuration that can't be used.
    pub fn new(config: ProviderConfig) -> Result<Self, ConfigError> {
        let endpoint = config.check()?;
        let tls = |why: String| ConfigError::Tls { name: config.name.clone(), why };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("canaryrelease-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(config.connect_timeout)
            .timeout(config.timeout)
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(config.max_concurrent);
        if let Some(path) = &config.ca_file {
            let pem = std::fs::read(path).map_err(|error| tls(format!("{}: {error}", path.display())))?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|_| tls(format!("{}: not a PEM file of certificates", path.display())))?;
            builder = builder.tls_certs_only(authorities);
        } else if endpoint.scheme() == "http" {
            // Without TLS no certificate of the system is needed; an image may have none.
            builder = builder.tls_certs_only(Vec::new());
        }
        let client = builder.build().map_err(|error| tls(chain(&error)))?;
        let line = Arc::new(Semaphore::new(config.max_concurrent));
        Ok(Self { config: Arc::new(config), endpoint, client, line })
    }

    /// The raw samples of a confined selector from `at - lookback` to `at`.
    ///
    /// # Errors
    /// Whatever is not exactly the answer that was asked for.
    pub async fn raw_counters(
        &self,
        selector: &Scoped,
        lookback: Duration,
        at: Timestamp,
    ) -> Result<Vec<Series>, FetchError> {
        let (answer, from_ms) = self.ask_back(selector, lookback, at).await?;
        let read = answer.read(|body| envelope::matrix(body, from_ms, at.as_millisecond()));
        read.map_err(|problem| problem.of(&self.config.name))
    }

    /// The same of native histograms; what is no histogram has none.
    async fn raw_natives(
        &self,
        selector: &Scoped,
        lookback: Duration,
        at: Timestamp,
    ) -> Result<Vec<NativeSeries>, FetchError> {
        let (answer, from_ms) = self.ask_back(selector, lookback, at).await?;
        let read = answer.read(|body| envelope::natives(body, from_ms, at.as_millisecond()));
        read.map_err(|problem| problem.of(&self.config.name))
    }

    /// The answer to a question about a time before `at`, and when that begins.
    async fn ask_back(
        &self,
        selector: &Scoped,
        lookback: Duration,
        at: Timestamp,
    ) -> Result<(Answer, i64), FetchError> {
        let millis = i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX).max(1);
        let answer = self.ask(&format!("{selector}[{millis}ms]"), None, at).await?;
        Ok((answer, at.as_millisecond().saturating_sub(millis)))
    }

    /// The value of a confined query at `at`. Samples older than two scrape intervals, where the
    /// interval is configured, and than five minutes at most, are not looked at.
    ///
    /// # Errors
    /// Whatever is not exactly the answer that was asked for.
    pub async fn instant(&self, query: &Scoped, at: Timestamp) -> Result<Instant, FetchError> {
        let lookback = self.config.scrape_interval.map(|interval| interval.saturating_mul(2));
        let answer = self.ask(query.as_str(), lookback, at).await?;
        let read = answer.read(|body| envelope::instant(body, at.as_millisecond()));
        read.map_err(|problem| problem.of(&self.config.name))
    }

    fn confine(&self, selector: &Selector, scope: &Scope) -> Result<Scoped, FetchError> {
        selector.scoped(scope).map_err(|error| Problem::from(error).of(&self.config.name))
    }

    async fn ask(&self, query: &str, lookback: Option<Duration>, at: Timestamp) -> Result<Answer, FetchError> {
        let deadline = self.config.timeout;
        let asked = tokio::time::timeout(deadline, self.ask_in_line(query, lookback, at)).await;
        asked.unwrap_or(Err(Problem::Timeout(deadline.as_millis()))).map_err(|problem| problem.of(&self.config.name))
    }

    async fn ask_in_line(&self, query: &str, lookback: Option<Duration>, at: Timestamp) -> Result<Answer, Problem> {
        let _turn =
            self.line.acquire().await.map_err(|_| Problem::Unreachable("the client is shutting down".to_owned()))?;
        let millis = at.as_millisecond();
        let time = format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000));
        let timeout = format!("{}ms", self.config.timeout.as_millis());
        // Thanos answers from the stores it can reach, unless told not to.
        let mut form = vec![("query", query), ("time", &time), ("timeout", &timeout), ("partial_response", "false")];
        let lookback = lookback.map(|lookback| format!("{}ms", lookback.as_millis()));
        if let Some(lookback) = &lookback {
            form.push(("lookback_delta", lookback));
        }
        let headers = self.headers().await?;
        let sent = credentials(&headers);
        let response = self
            .client
            .post(self.endpoint.clone())
            .headers(headers)
            .form(&form)
            .send()
            .await
            .map_err(|error| self.failed(&error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(Problem::Redirect(status.as_u16()));
        }
        if let Some(encoding) = response.headers().get(CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            return Err(Problem::Encoded(shorten(&without(&sent, &String::from_utf8_lossy(encoding.as_bytes())))));
        }
        if status != StatusCode::OK {
            let body = self.body(response, MAX_ERROR_BYTES).await.unwrap_or_default();
            let problem = refused(status, without(&sent, &String::from_utf8_lossy(&body)).as_bytes());
            return Err(hidden(&sent, problem));
        }
        same_clock(response.headers())?;
        let body = self.body(response, self.config.max_body_bytes).await?;
        Ok(Answer { body, sent })
    }

    async fn body(&self, mut response: reqwest::Response, max: usize) -> Result<Vec<u8>, Problem> {
        let too_large = Problem::TooLarge(max);
        if response.content_length().is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > max)) {
            return Err(too_large);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&error))? {
            if body.len().saturating_add(chunk.len()) > max {
                return Err(too_large);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn headers(&self) -> Result<HeaderMap, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for (name, source) in &self.config.headers {
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else { continue };
            let text = match (&source.value, &source.file) {
                (Some(value), _) => value.expose().to_owned(),
                (None, Some(path)) => credential(path).await?,
                (None, None) => continue,
            };
            headers.insert(header, secret(&text, &format!("header {name}"))?);
        }
        if let Some(path) = &self.config.bearer_token_file {
            let token = credential(path).await?;
            let value = secret(&format!("Bearer {token}"), &path.display().to_string())?;
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }

    fn failed(&self, error: &reqwest::Error) -> Problem {
        if error.is_timeout() {
            Problem::Timeout(self.config.timeout.as_millis())
        } else if error.is_connect() {
            Problem::Unreachable(chain(error))
        } else if error.is_body() || error.is_decode() {
            Problem::BrokenOff(chain(error))
        } else {
            Problem::Unreachable(chain(error))
        }
    }
}

impl MetricSource for Prometheus {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn labels(&self) -> &LabelNames {
        &self.config.labels
    }

    fn scrape_interval(&self) -> Option<Duration> {
        self.config.scrape_interval
    }

    fn keeps_history(&self) -> bool {
        true
    }

    fn requires_pods(&self) -> bool {
        self.config.require_pods
    }

    fn counters<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Series>, FetchError>> {
        async move {
            let scoped = self.confine(selector, scope)?;
            self.raw_counters(&scoped, lookback, at).await
        }
        .boxed()
    }

    fn natives<'a>(
        &'a self,
        selector: &'a Selector,
        scope: &'a Scope,
        lookback: Duration,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<NativeSeries>, FetchError>> {
        async move { self.raw_natives(&self.confine(selector, scope)?, lookback, at).await }.boxed()
    }

    fn value<'a>(
        &'a self,
        query: &'a str,
        scope: &'a Scope,
        require_pods: bool,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Instant, FetchError>> {
        async move {
            let require = require_pods && self.config.require_pods;
            let scoped =
                scope_query(query, scope, require).map_err(|error| Problem::from(error).of(&self.config.name))?;
            self.instant(&scoped, at).await
        }
        .boxed()
    }
}

/// An answer, with the credentials that its question carried: what comes of it must not show them, whoever echoes them.
struct Answer {
    body: Vec<u8>,
    sent: Vec<String>,
}

impl Answer {
    /// What the answer says. One that can't be read is read again without the credentials, so that no message quotes
    /// them; one that can is taken as it is, a label's value may be the same word.
    fn read<T>(&self, parse: impl Fn(&[u8]) -> Result<T, Problem>) -> Result<T, Problem> {
        parse(&self.body)
            .or_else(|problem| {
                let text = String::from_utf8_lossy(&self.body);
                if !self.sent.iter().any(|secret| text.contains(secret.as_str())) {
                    return Err(problem);
                }
                parse(without(&self.sent, &text).as_bytes())
            })
            .map_err(|problem| hidden(&self.sent, problem))
    }
}

/// The values that no message may show, the longest first.
fn credentials(headers: &HeaderMap) -> Vec<String> {
    let secret = headers.values().filter(|value| value.is_sensitive()).filter_map(|value| value.to_str().ok());
    let mut all: Vec<String> = secret.map(|value| value.strip_prefix("Bearer ").unwrap_or(value).to_owned()).collect();
    all.sort_by_key(|value| std::cmp::Reverse(value.len()));
    all
}

/// The problem, where its text shows none of the credentials; JSON has more than one way to write one.
fn hidden(sent: &[String], problem: Problem) -> Problem {
    let text = format!("{problem} {problem:?}");
    if sent.iter().any(|secret| text.contains(secret.as_str())) {
        return Problem::Malformed("it quotes a credential that it was sent".to_owned());
    }
    problem
}

/// The text without the credentials.
fn without(sent: &[String], text: &str) -> String {
    sent.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "<credential>"))
}

/// A server that speaks of another time than we do can't say what is fresh.
fn same_clock(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(date) = headers.get(DATE).and_then(|date| date.to_str().ok()) else {
        return Ok(());
    };
    let Ok(theirs) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date) else {
        return Ok(());
    };
    let off = theirs.as_second().saturating_sub(Timestamp::now().as_second());
    if off.saturating_abs() > MAX_SKEW_SECONDS { Err(Problem::ClockSkew(off)) } else { Ok(()) }
}

/// What an answer other than 200 means.
fn refused(status: StatusCode, body: &[u8]) -> Problem {
    let code = status.as_u16();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Problem::Denied(code);
    }
    if let Some((kind, message)) = envelope::stated_error(body) {
        return match envelope::stated(&kind, message, code) {
            Problem::Rejected { kind, message } if status.is_server_error() => {
                Problem::Unavailable { status: code, message: format!("{kind}: {message}") }
            }
            problem => problem,
        };
    }
    let message = shorten(&String::from_utf8_lossy(body));
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT {
        Problem::Unavailable { status: code, message }
    } else {
        Problem::Status { status: code, message }
    }
}

/// Reads a credential; the message names the file, never its contents.
async fn credential(path: &Path) -> Result<String, Problem> {
    use tokio::io::AsyncReadExt;
    let shown = path.display();
    let read = async {
        let file = tokio::fs::File::open(path).await?;
        let mut text = String::new();
        file.take(MAX_CREDENTIAL_BYTES).read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read.await.map_err(|error| Problem::Credential(format!("can't read {shown}: {}", error.kind())))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(Problem::Credential(format!("{shown} is empty")));
    }
    Ok(text.to_owned())
}

fn secret(text: &str, shown: &str) -> Result<HeaderValue, Problem> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Problem::Credential(format!("{shown} holds characters that no header may have")))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An error with its causes; without the address, which the admin knows.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut out = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        if !out.is_empty() {
            out.push_str(": ");
        }
        out.push_str(&error.to_string());
        cause = error.source();
    }
    if out.is_empty() { "the request failed".to_owned() } else { shorten(&out) }
}
