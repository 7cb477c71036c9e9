//! One registry over HTTP, by the OCI distribution specification: manifests, blobs, referrers. It only reads, believes
//! nothing whose digest it did not count itself, and is bounded in bytes, time and hops. A password goes to the
//! registry that it belongs to and to no other host, wherever an answer points.
//!
//! Client libraries follow redirects and token addresses wherever they lead, and read answers of any length; so this is
//! the little of the protocol that reading needs, on the HTTP client that is here anyway.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LINK, LOCATION, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::credentials::{Allowed, Login};
use super::reference::{Digest, Reference};

/// Bytes of a manifest, an index or a list of referrers.
const MANIFEST: usize = 4 * 1024 * 1024;
/// Bytes of an attached file.
pub const FILE: usize = 20 * 1024 * 1024;
/// Bytes of an answer of a token server.
const TOKEN: usize = 64 * 1024;
/// Redirects of one request.
const HOPS: usize = 5;
/// Pages of a list of referrers.
const PAGES: usize = 10;
/// How long one answer may take, with its body.
const DEADLINE: Duration = Duration::from_secs(30);

const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// Why something was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The registry can't be reached or refuses: another time, or with other flags, it may be read.
    Unreachable(String),
    /// What it answers can't be used, and never will be.
    Unsound(String),
}

impl Why {
    /// In words.
    #[must_use]
    pub fn words(&self) -> &str {
        match self {
            Self::Unreachable(why) | Self::Unsound(why) => why,
        }
    }
}

/// What an index or a list of referrers says of a manifest, and a manifest of a file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is said to be.
    pub media_type: String,
    /// Its digest; not checked for its form yet.
    pub digest: String,
    /// What an artifact is said to be.
    pub artifact_type: Option<String>,
    /// Notes of whoever made it.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest or an index.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Manifest {
    /// What it says it is.
    pub media_type: String,
    /// What an artifact is.
    pub artifact_type: Option<String>,
    /// Of an index.
    pub manifests: Vec<Descriptor>,
    /// Of a manifest.
    pub layers: Vec<Descriptor>,
    /// As `layers`, in a form that was given up.
    pub blobs: Vec<Descriptor>,
    /// Of a manifest.
    pub config: Option<Descriptor>,
    /// What an artifact is attached to.
    pub subject: Option<Descriptor>,
}

/// What came back of a request.
struct Answer {
    body: Vec<u8>,
    headers: HeaderMap,
}

/// A repository of a registry that may be asked.
pub struct Registry<'a> {
    allowed: &'a Allowed,
    host: &'a str,
    repository: &'a str,
    plain: bool,
    base: Url,
    client: reqwest::Client,
    /// What the registry wants to see, once it has asked for it.
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Registry<'a> {
    /// Asks nothing yet. None where the image's registry may not be asked.
    ///
    /// # Errors
    /// Where there is no HTTP client to be had.
    pub fn of(image: &'a Reference, allowed: &'a Allowed) -> Result<Option<Self>, Why> {
        let Some(plain) = allowed.plain(&image.host) else { return Ok(None) };
        // An error means that a provider is there already, which is what we want.
        let _present = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let scheme = if plain { "http" } else { "https" };
        let api = if image.host == "docker.io" { "registry-1.docker.io" } else { &image.host };
        let base = Url::parse(&format!("{scheme}://{api}/v2/{}/", image.repository));
        let base = base.map_err(|error| Why::Unsound(format!("{} is no address: {error}", image.host)))?;
        let built = client(plain).build();
        // Without TLS no certificate of the system is needed, but for redirects; an image may have none.
        let built = if plain { built.or_else(|_| client(plain).tls_certs_only([]).build()) } else { built };
        let client = built.map_err(|error| Why::Unreachable(format!("no HTTP client: {error}")))?;
        let authorization = Mutex::new(None);
        let (host, repository) = (image.host.as_str(), image.repository.as_str());
        Ok(Some(Self { allowed, host, repository, plain, base, client, authorization }))
    }

    /// A manifest or an index by tag or digest, and its digest. None: there is none.
    ///
    /// # Errors
    /// Where it can't be read, or is not what its digest says.
    pub async fn manifest(&self, reference: &str) -> Result<Option<(Manifest, Digest)>, Why> {
        let accept = [INDEX_TYPES, MANIFEST_TYPES].concat().join(", ");
        let Some(answer) = self.get(&format!("manifests/{reference}"), &accept, MANIFEST).await? else {
            return Ok(None);
        };
        let counted = Digest::of(&answer.body);
        if Digest::parse(reference).is_some_and(|wanted| wanted != counted) {
            return Err(Why::Unsound(format!("the manifest {reference} has the digest {counted}")));
        }
        let manifest = serde_json::from_slice(&answer.body)
            .map_err(|_| Why::Unsound(format!("the manifest {reference} is no JSON of a manifest")))?;
        Ok(Some((manifest, counted)))
    }

    /// The content of a file, by its digest. None: there is none.
    ///
    /// # Errors
    /// Where it can't be read, is too large, or is not what its digest says.
    pub async fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Why> {
        let Some(answer) = self.get(&format!("blobs/{digest}"), "*/*", FILE).await? else { return Ok(None) };
        let counted = Digest::of(&answer.body);
        if counted != *digest {
            return Err(Why::Unsound(format!("the file {digest} has the digest {counted}")));
        }
        Ok(Some(answer.body))
    }

    /// What is attached to a manifest; by the tag that stands for the list where the registry has no such API.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn referrers(&self, digest: &Digest) -> Result<(Vec<Descriptor>, &'static str), Why> {
        let mut found = Vec::new();
        let mut next = format!("referrers/{digest}");
        for page in 0..PAGES {
            let Some(answer) = self.get(&next, INDEX_TYPES.first().copied().unwrap_or_default(), MANIFEST).await?
            else {
                if page > 0 {
                    break;
                }
                let tagged = self.manifest(&format!("sha256-{}", digest.hex())).await?;
                return Ok((tagged.map_or_else(Vec::new, |(index, _)| index.manifests), "the fallback tag"));
            };
            let index: Manifest = serde_json::from_slice(&answer.body)
                .map_err(|_| Why::Unsound("the list of referrers is no JSON of an index".to_owned()))?;
            found.extend(index.manifests);
            match self.next_page(&answer.headers)? {
                Some(more) => next = more,
                None => break,
            }
        }
        Ok((found, "the referrers API"))
    }

    /// The address of the next page, which must be of this repository.
    fn next_page(&self, headers: &HeaderMap) -> Result<Option<String>, Why> {
        let link = headers.get(LINK).and_then(|link| link.to_str().ok()).unwrap_or_default();
        let Some((target, rest)) = link.strip_prefix('<').and_then(|link| link.split_once('>')) else {
            return Ok(None);
        };
        if !rest.contains("next") {
            return Ok(None);
        }
        let url = self.base.join(target).ok().filter(|url| url.as_str().starts_with(self.base.as_str()));
        url.map(|url| Some(url.to_string()))
            .ok_or_else(|| Why::Unsound("the next page of the referrers is not of this repository".to_owned()))
    }

    /// An answer of the registry; none where it has no such thing.
    async fn get(&self, path: &str, accept: &str, most: usize) -> Result<Option<Answer>, Why> {
        let url = self.base.join(path).ok().filter(|url| url.as_str().starts_with(self.base.as_str()));
        let url = url.ok_or_else(|| Why::Unsound(format!("{path} is no address of this repository")))?;
        let mut answer = self.send(&url, accept).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.authorize(answer.headers()).await?;
            answer = self.send(&url, accept).await?;
        }
        let mut at = url;
        for _ in 0..HOPS {
            if !answer.status().is_redirection() {
                break;
            }
            at = self.hop(&at, answer.headers())?;
            answer = self.send(&at, accept).await?;
        }
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Why::Unreachable(format!(
                    "{} lets us not read {} ({}); docker login writes the password that is used",
                    self.host,
                    self.repository,
                    answer.status()
                )));
            }
            status if status.is_redirection() => {
                return Err(Why::Unsound(format!("{} redirects more than {HOPS} times", self.host)));
            }
            status => return Err(Why::Unreachable(format!("{} answers {status}", self.host))),
        }
        let headers = answer.headers().clone();
        Ok(Some(Answer { body: self.body(answer, most).await?, headers }))
    }

    /// Where a redirect leads: to TLS, or where no TLS was asked for to a host of which that was said.
    fn hop(&self, at: &Url, headers: &HeaderMap) -> Result<Url, Why> {
        let target = headers.get(LOCATION).and_then(|target| target.to_str().ok()).unwrap_or_default();
        let url = at.join(target).map_err(|_| Why::Unsound(format!("{} redirects to no address", self.host)))?;
        let sound =
            url.scheme() == "https" || (url.scheme() == "http" && self.allowed.plain(&place(&url)) == Some(true));
        if sound { Ok(url) } else { Err(Why::Unsound(format!("{} redirects to a place without TLS", self.host))) }
    }

    /// The password goes along to the registry's own address alone.
    async fn send(&self, url: &Url, accept: &str) -> Result<reqwest::Response, Why> {
        let mut request = self.client.get(url.clone()).header(ACCEPT, accept);
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let (Some(authorization), true) = (authorization, url.origin() == self.base.origin()) {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| self.unreachable(error))
    }

    /// Without the address: a redirect's may hold a signature.
    fn unreachable(&self, error: reqwest::Error) -> Why {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(deeper) = cause {
            text = format!("{text}: {deeper}");
            cause = deeper.source();
        }
        Why::Unreachable(format!("{} does not answer: {text}", self.host))
    }

    async fn body(&self, mut answer: reqwest::Response, most: usize) -> Result<Vec<u8>, Why> {
        let too_large = || Why::Unsound(format!("an answer of {} is larger than {most} bytes", self.host));
        if answer.content_length().is_some_and(|length| length > most as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len().saturating_add(chunk.len()) > most {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Gets what the registry wants to see.
    async fn authorize(&self, headers: &HeaderMap) -> Result<(), Why> {
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let login = self.allowed.login(self.host);
        let mut got = None;
        for challenge in challenges {
            let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                got = Some(format!("Bearer {}", self.token(&parameters(rest), login).await?));
                break;
            }
            if let (true, Some(login)) = (scheme.eq_ignore_ascii_case("basic"), login) {
                got = Some(basic(login));
            }
        }
        let Some(got) = got else {
            return Err(Why::Unreachable(format!(
                "{} wants a password and there is none; docker login writes it (credential helpers are not asked)",
                self.host
            )));
        };
        let mut value =
            HeaderValue::from_str(&got).map_err(|_| Why::Unsound(format!("the token of {} is none", self.host)))?;
        value.set_sensitive(true);
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// A token for this repository. The password goes along only where the token server is the registry's own host, or
    /// another one that may be asked.
    async fn token(&self, said: &BTreeMap<String, String>, login: Option<&Login>) -> Result<String, Why> {
        let unsound = |why: &str| Why::Unsound(format!("{} {why}", self.host));
        let realm = said.get("realm").and_then(|realm| Url::parse(realm).ok());
        let mut realm = realm.ok_or_else(|| unsound("names no place where tokens are to be had"))?;
        let at = place(&realm);
        let plain = realm.scheme() == "http"
            && (self.plain && at == place(&self.base) || self.allowed.plain(&at) == Some(true));
        if realm.scheme() != "https" && !plain {
            return Err(unsound("names a place for tokens without TLS"));
        }
        realm.query_pairs_mut().append_pair("scope", &format!("repository:{}:pull", self.repository));
        if let Some(service) = said.get("service") {
            realm.query_pairs_mut().append_pair("service", service);
        }
        let hub = self.host == "docker.io" && at == "auth.docker.io";
        let ours = at == place(&self.base) || hub || self.allowed.plain(&at).is_some();
        let mut request = self.client.get(realm);
        if let (Some(login), true) = (login, ours) {
            request = request.basic_auth(&login.user, Some(&login.password));
        }
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        if answer.status() != StatusCode::OK {
            let hint = if login.is_some() && !ours {
                format!("; the password is not sent to {at}, give --registry {at} where it may be")
            } else {
                String::new()
            };
            return Err(Why::Unreachable(format!(
                "{} gives no token: {at} answers {}{hint}",
                self.host,
                answer.status()
            )));
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let body = self.body(answer, TOKEN).await?;
        let read: Token = serde_json::from_slice(&body).map_err(|_| unsound("gives a token that is none"))?;
        read.token.or(read.access_token).ok_or_else(|| unsound("gives a token that is none"))
    }
}

fn client(plain: bool) -> reqwest::ClientBuilder {
    let client = reqwest::Client::builder()
        .user_agent(concat!("kubectl-canary/", env!("CARGO_PKG_VERSION")))
        // Each hop is looked at here.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .timeout(DEADLINE)
        .connect_timeout(Duration::from_secs(10));
    if plain { client.no_proxy() } else { client }
}

fn basic(login: &Login) -> String {
    use base64::Engine as _;
    let both = format!("{}:{}", login.user, login.password);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both))
}

/// Host and port, as `--registry` names them.
fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// `key="value"` pairs of a challenge.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, more) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.entry(key).or_insert_with(|| value.to_owned());
        rest = more;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_commas_inside_of_quotes() {
        let read = parameters(r#"realm="https://auth.example.com/token",service=r.example.com, scope="a:b:pull,push""#);
        let pairs: Vec<(&str, &str)> = read.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(
            pairs,
            [("realm", "https://auth.example.com/token"), ("scope", "a:b:pull,push"), ("service", "r.example.com")]
        );
        assert!(parameters("").is_empty() && parameters("=\"").len() == 1);
    }
}
