//! Names of images, as a pod's spec has them: registry, repository, tag, digest. A name that is not of the usual shape is
//! none, so that it can lead a request nowhere else.

use std::fmt;

use canary_report::evidence::sha256;

/// Where names without a registry belong.
const HUB: &str = "docker.io";

/// A SHA-256 as registries write it. Other algorithms are not known here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", sha256(bytes)))
    }

    /// From `sha256:` and 64 digits of lower-case hex; anything else is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let sound = hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        sound.then(|| Self(text.to_owned()))
    }

    /// The digits alone.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or_default()
    }

    /// With its algorithm.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// An image by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry, such as `registry.example.com:5000`, in lower case.
    pub host: String,
    /// The repository, such as `shop/web`.
    pub repository: String,
    /// The tag; `latest` where the name has neither tag nor digest.
    pub tag: Option<String>,
    /// The digest.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Reads a name as container runtimes do.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(name: &str) -> Result<Self, String> {
        let (rest, digest) = match name.split_once('@') {
            None => (name, None),
            Some((rest, digest)) => {
                (rest, Some(Digest::parse(digest).ok_or("its digest is no sha256 of 64 hexadecimal digits")?))
            }
        };
        // A colon before the last slash is a port.
        let tagged = rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
        let (path, tag) = tagged.map_or((rest, None), |(path, tag)| (path, Some(tag)));
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err("its tag is none that a registry can have".to_owned());
        }
        let (host, repository) = match path.split_once('/') {
            Some((host, repository)) if host.contains(['.', ':']) || host == "localhost" => {
                (host.to_ascii_lowercase(), repository.to_owned())
            }
            Some(_) => (HUB.to_owned(), path.to_owned()),
            None => (HUB.to_owned(), format!("library/{path}")),
        };
        let host = host_name(&host)?;
        if !is_repository(&repository) {
            return Err("its repository is none that a registry can have".to_owned());
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { host, repository, tag, digest })
    }

    /// The last part of the repository, such as `web`.
    #[must_use]
    pub fn short(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }
}

/// A registry's host, with a port where it has one; `index.docker.io` and the like become `docker.io`.
///
/// # Errors
/// Where it is no host.
pub fn host_name(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let (name, port) = lower.split_once(':').map_or((lower.as_str(), None), |(name, port)| (name, Some(port)));
    let sound = |sign: u8| sign.is_ascii_lowercase() || sign.is_ascii_digit() || matches!(sign, b'-' | b'.');
    let named = !name.is_empty() && name.len() <= 253 && name.bytes().all(sound) && !name.starts_with(['-', '.']);
    if !named || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(format!("{text:?} is no host of a registry, such as registry.example.com or 10.0.0.5:5000"));
    }
    let hub = matches!(lower.as_str(), "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com");
    Ok(if hub { HUB.to_owned() } else { lower })
}

fn is_tag(text: &str) -> bool {
    let sound = |sign: u8| sign.is_ascii_alphanumeric() || matches!(sign, b'_' | b'-' | b'.');
    !text.is_empty() && text.len() <= 128 && text.bytes().all(sound) && !text.starts_with(['-', '.'])
}

fn is_repository(text: &str) -> bool {
    let sound = |sign: u8| sign.is_ascii_lowercase() || sign.is_ascii_digit() || matches!(sign, b'_' | b'-' | b'.');
    let ends = |part: &str| part.starts_with(['.', '-', '_']) || part.ends_with(['.', '-', '_']);
    text.len() <= 255
        && text
            .split('/')
            .all(|part| !part.is_empty() && part.bytes().all(sound) && !ends(part) && !part.contains(".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(name: &str) -> (String, String, Option<String>, bool) {
        let read = Reference::parse(name).unwrap();
        (read.host, read.repository, read.tag, read.digest.is_some())
    }

    #[test]
    fn names_are_read_as_container_runtimes_do() {
        let text = |text: &str| Some(text.to_owned());
        let digest = Digest::of(b"x");
        assert_eq!(parts("nginx"), ("docker.io".into(), "library/nginx".into(), text("latest"), false));
        assert_eq!(parts("shop/web:2"), ("docker.io".into(), "shop/web".into(), text("2"), false));
        assert_eq!(parts("index.docker.io/shop/web:2"), ("docker.io".into(), "shop/web".into(), text("2"), false));
        assert_eq!(parts("localhost/web:v1"), ("localhost".into(), "web".into(), text("v1"), false));
        assert_eq!(parts("R.Example.com:5000/a/b"), ("r.example.com:5000".into(), "a/b".into(), text("latest"), false));
        assert_eq!(
            parts(&format!("r.example.com/a/b:v1@{digest}")),
            ("r.example.com".into(), "a/b".into(), text("v1"), true)
        );
        assert_eq!(parts(&format!("r.example.com/a@{digest}")), ("r.example.com".into(), "a".into(), None, true));
        assert_eq!(Reference::parse("r.example.com/a/web:1").unwrap().short(), "web");
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_name() {
        for name in [
            "",
            "r.example.com/../secret:1",
            "r.example.com/a/..:1",
            "r.example.com/a//b",
            "r.example.com/a?b:1",
            "r.example.com/a#b:1",
            "r.example.com/a%2fb:1",
            "user@r.example.com/a",
            "r.example.com:port/a",
            "r.example.com:5000:1/a",
            "-r.example.com/a",
            "r.example.com/a:v1/..",
            "r.example.com/a:.",
            "r.example.com/a:v1…",
            "r.example.com/A:1",
            "r.example.com/a@sha256:12",
            "r.example.com/a@sha512:00",
            "r.example.com\\x/a",
        ] {
            assert!(Reference::parse(name).is_err(), "{name}");
        }
        assert!(Digest::parse(&format!("sha256:{}", "A".repeat(64))).is_none());
        assert_eq!(Digest::parse(Digest::of(b"x").as_str()), Some(Digest::of(b"x")));
    }
}
