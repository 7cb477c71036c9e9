//! A request as it came over HTTP, taken apart.

use http::Method;
use http::request::Parts;

use crate::resources::Resource;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// One object.
    Get,
    /// Objects.
    List,
    /// Changes.
    Watch,
    /// A new object.
    Create,
    /// An object in place of another.
    Update,
    /// A change of an object.
    Patch,
    /// An object's end.
    Delete,
}

impl Verb {
    /// As RBAC calls it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    /// Whether nothing is written.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked.
    pub verb: Verb,
    /// Of which kind.
    pub resource: &'static Resource,
    /// In which namespace; empty for all.
    pub namespace: String,
    /// Of which object; empty for a list.
    pub name: String,
    /// Whether only its status.
    pub status: bool,
    /// Whether a pod's log.
    pub log: bool,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
    /// Whether only metadata is wanted.
    pub metadata_only: bool,
    /// `Content-Type`.
    pub content: String,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
}

impl Call {
    /// Takes a request apart; `None` where the server knows no such path.
    #[must_use]
    pub fn parse(parts: &Parts) -> Option<Self> {
        let mut path = parts.uri.path().split('/').filter(|part| !part.is_empty());
        let (group, version) = match path.next()? {
            "api" => ("", path.next()?),
            "apis" => (path.next()?, path.next()?),
            _ => return None,
        };
        let mut rest: Vec<&str> = path.collect();
        let mut namespace = String::new();
        if rest.len() > 2 && rest[0] == "namespaces" {
            namespace = decode(rest[1]);
            rest.drain(..2);
        }
        let (plural, name, sub) = match rest.as_slice() {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, sub] => (*plural, *name, *sub),
            _ => return None,
        };
        let resource = Resource::find(group, version, plural)?;
        let known = match sub {
            "" => true,
            "status" => resource.status,
            "log" => plural == "pods" && parts.method == Method::GET,
            _ => false,
        };
        if !known {
            return None;
        }
        let query: Vec<(String, String)> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (decode(key), decode(value)))
            .collect();
        let of = |wanted: &str| query.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
        let watch = matches!(of("watch"), Some("true" | "1"));
        let verb = match (&parts.method, name.is_empty()) {
            (&Method::GET, _) if watch => Verb::Watch,
            (&Method::GET, true) => Verb::List,
            (&Method::GET, false) => Verb::Get,
            (&Method::POST, true) => Verb::Create,
            (&Method::PUT, false) => Verb::Update,
            (&Method::PATCH, false) => Verb::Patch,
            (&Method::DELETE, false) => Verb::Delete,
            _ => return None,
        };
        let header = |name: http::header::HeaderName| {
            parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        Some(Self {
            verb,
            resource,
            namespace,
            name: decode(name),
            status: sub == "status",
            log: sub == "log",
            dry_run: of("dryRun") == Some("All"),
            metadata_only: header(http::header::ACCEPT).contains("as=PartialObjectMetadata"),
            content: header(http::header::CONTENT_TYPE),
            query,
        })
    }

    /// A parameter of the query, or nothing.
    #[must_use]
    pub fn parameter(&self, wanted: &str) -> &str {
        self.query.iter().find(|(key, _)| key == wanted).map_or("", |(_, value)| value)
    }

    /// Whether it changes something.
    #[must_use]
    pub const fn writes(&self) -> bool {
        !self.verb.reads() && !self.dry_run
    }

    /// Whether it is the tick's, not a watch's, the lease's or an Event's.
    #[must_use]
    pub fn of_a_tick(&self) -> bool {
        self.verb != Verb::Watch && !self.namespace.is_empty() && !matches!(self.resource.plural, "events" | "leases")
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match byte {
            b'%' => {
                let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else { continue };
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
