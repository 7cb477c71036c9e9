//! What an attached file is: SPDX or CycloneDX, plain or as the predicate of an in-toto statement, or SLSA provenance; and
//! whether it speaks of the image. It judges by the file's own words, never by its media type alone, and checks no
//! signature.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::reference::Digest;

/// Which of the template's files it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A software bill of materials.
    Sbom,
    /// How the image was built.
    Provenance,
}

/// What a file is. Plain ones sort before wrapped ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct What {
    /// Which file.
    pub kind: Kind,
    /// What it is wrapped in.
    pub wrapped: Wrapped,
    /// Its format.
    pub format: Format,
}

/// Formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// SPDX as JSON.
    Spdx,
    /// CycloneDX as JSON.
    CycloneDx,
    /// SLSA provenance.
    Slsa,
}

/// What the document stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrapped {
    /// In nothing.
    Plain,
    /// It is the predicate of an in-toto statement.
    Statement,
    /// The statement is the payload of a DSSE envelope.
    Envelope,
    /// The envelope stands in a bundle of sigstore.
    Bundle,
}

impl What {
    /// In a few words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match (self.format, self.wrapped) {
            (Format::Spdx, Wrapped::Plain) => "SPDX",
            (Format::Spdx, Wrapped::Statement) => "SPDX as the predicate of an in-toto statement",
            (Format::Spdx, Wrapped::Envelope) => "SPDX as the predicate of an in-toto statement in a DSSE envelope",
            (Format::Spdx, Wrapped::Bundle) => "SPDX as the predicate of an in-toto statement in a sigstore bundle",
            (Format::CycloneDx, Wrapped::Plain) => "CycloneDX",
            (Format::CycloneDx, Wrapped::Statement) => "CycloneDX as the predicate of an in-toto statement",
            (Format::CycloneDx, Wrapped::Envelope) => {
                "CycloneDX as the predicate of an in-toto statement in a DSSE envelope"
            }
            (Format::CycloneDx, Wrapped::Bundle) => {
                "CycloneDX as the predicate of an in-toto statement in a sigstore bundle"
            }
            (Format::Slsa, Wrapped::Plain | Wrapped::Statement) => "SLSA provenance, an in-toto statement",
            (Format::Slsa, Wrapped::Envelope) => "SLSA provenance, an in-toto statement in a DSSE envelope",
            (Format::Slsa, Wrapped::Bundle) => "SLSA provenance, an in-toto statement in a sigstore bundle",
        }
    }
}

/// Whether files of this type are looked into.
#[must_use]
pub fn of_interest(media_type: &str) -> bool {
    let plain = media_type.split(';').next().unwrap_or_default().trim();
    matches!(
        plain,
        "application/spdx+json"
            | "text/spdx+json"
            | "spdx+json"
            | "application/vnd.cyclonedx+json"
            | "application/vnd.in-toto+json"
            | "application/vnd.dsse.envelope.v1+json"
            | "application/vnd.dsse.envelope+json"
    ) || (plain.starts_with("application/vnd.dev.sigstore.bundle") && plain.ends_with("+json"))
        || plain == "application/vnd.dev.sigstore.bundle+json"
}

/// What is read of a file; the rest is passed over, so that little of it is in memory at once.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    #[serde(rename = "spdxVersion")]
    spdx_version: Option<String>,
    #[serde(rename = "@graph")]
    graph: Option<IgnoredAny>,
    #[serde(rename = "bomFormat")]
    bom_format: Option<String>,
    #[serde(rename = "_type")]
    of_type: Option<String>,
    #[serde(rename = "predicateType")]
    predicate_type: Option<String>,
    subject: Vec<Subject>,
    payload: Option<String>,
    #[serde(rename = "dsseEnvelope")]
    envelope: Option<Envelope>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Subject {
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Envelope {
    payload: String,
}

/// What a file is, of an image with one of these digests. None: nothing that is looked for, such as a signature or the
/// result of a scan.
///
/// # Errors
/// Why it cannot be taken: no JSON, or it speaks of another image.
pub fn recognise(bytes: &[u8], image: &[Digest]) -> Result<Option<What>, String> {
    let (document, wrapped) = unwrapped(read(bytes)?)?;
    if document.spdx_version.is_some() || document.graph.is_some() {
        return Ok(Some(What { kind: Kind::Sbom, wrapped, format: Format::Spdx }));
    }
    if document.bom_format.as_deref() == Some("CycloneDX") {
        return Ok(Some(What { kind: Kind::Sbom, wrapped, format: Format::CycloneDx }));
    }
    if !document.of_type.as_deref().is_some_and(|name| name.starts_with("https://in-toto.io/Statement/")) {
        return Ok(None);
    }
    let Some((kind, format)) = predicate(document.predicate_type.as_deref().unwrap_or_default()) else {
        return Ok(None);
    };
    let mut named = document.subject.iter().filter_map(|subject| subject.digest.get("sha256"));
    if !named.any(|hex| image.iter().any(|digest| digest.hex() == hex)) {
        return Err("it is a statement about something else than this image".to_owned());
    }
    let wrapped = if wrapped == Wrapped::Plain { Wrapped::Statement } else { wrapped };
    Ok(Some(What { kind, wrapped, format }))
}

fn read(bytes: &[u8]) -> Result<Document, String> {
    serde_json::from_slice(bytes)
        .map_err(|error| format!("it is no JSON of a kind that is known here (line {})", error.line()))
}

/// The document inside an envelope, or the one that was given.
fn unwrapped(document: Document) -> Result<(Document, Wrapped), String> {
    let (payload, wrapped) = match (document.envelope, document.payload) {
        (Some(envelope), _) => (envelope.payload, Wrapped::Bundle),
        (None, Some(payload)) => (payload, Wrapped::Envelope),
        (None, None) => return Ok((Document { envelope: None, payload: None, ..document }, Wrapped::Plain)),
    };
    let decoded = STANDARD.decode(&payload).or_else(|_| URL_SAFE.decode(&payload));
    let decoded = decoded.map_err(|_| "the payload of its envelope is no base64".to_owned())?;
    Ok((read(&decoded)?, wrapped))
}

fn predicate(name: &str) -> Option<(Kind, Format)> {
    let is = |known: &str| name == known || name.strip_prefix(known).is_some_and(|rest| rest.starts_with(['/', '#']));
    if is("https://spdx.dev/Document") {
        Some((Kind::Sbom, Format::Spdx))
    } else if is("https://cyclonedx.org/bom") || is("https://cyclonedx.org/schema") {
        Some((Kind::Sbom, Format::CycloneDx))
    } else if is("https://slsa.dev/provenance") {
        Some((Kind::Provenance, Format::Slsa))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn statement(predicate: &str, of: &Digest) -> Vec<u8> {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": {"x": [1, 2]},
            "subject": [{"name": "other"}, {"name": "web", "digest": {"sha256": of.hex()}}],
        });
        statement.to_string().into_bytes()
    }

    fn envelope(inside: &[u8]) -> serde_json::Value {
        json!({"payloadType": "application/vnd.in-toto+json", "payload": STANDARD.encode(inside), "signatures": []})
    }

    fn what(bytes: &[u8]) -> Option<(Kind, Format, Wrapped)> {
        recognise(bytes, &[Digest::of(b"image")]).unwrap().map(|what| (what.kind, what.format, what.wrapped))
    }

    #[test]
    fn files_are_known_by_their_own_words() {
        let image = Digest::of(b"image");
        let slsa = statement("https://slsa.dev/provenance/v1", &image);
        let spdx = statement("https://spdx.dev/Document/v2.3", &image);
        let bundle = json!({"mediaType": "x", "dsseEnvelope": envelope(&slsa)}).to_string();
        for (bytes, found) in [
            (br#"{"spdxVersion": "SPDX-2.3"}"#.to_vec(), Some((Kind::Sbom, Format::Spdx, Wrapped::Plain))),
            (br#"{"@context": "x", "@graph": []}"#.to_vec(), Some((Kind::Sbom, Format::Spdx, Wrapped::Plain))),
            (br#"{"bomFormat": "CycloneDX"}"#.to_vec(), Some((Kind::Sbom, Format::CycloneDx, Wrapped::Plain))),
            (spdx.clone(), Some((Kind::Sbom, Format::Spdx, Wrapped::Statement))),
            (statement("https://cyclonedx.org/bom", &image), Some((Kind::Sbom, Format::CycloneDx, Wrapped::Statement))),
            (slsa.clone(), Some((Kind::Provenance, Format::Slsa, Wrapped::Statement))),
            (envelope(&slsa).to_string().into_bytes(), Some((Kind::Provenance, Format::Slsa, Wrapped::Envelope))),
            (bundle.into_bytes(), Some((Kind::Provenance, Format::Slsa, Wrapped::Bundle))),
            (statement("https://slsa.dev/provenancex", &image), None),
            (statement("https://cosign.sigstore.dev/attestation/vuln/v1", &image), None),
            (br#"{"a": 1}"#.to_vec(), None),
        ] {
            assert_eq!(what(&bytes), found, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn odd_files_and_those_of_other_images_are_refused() {
        let other = statement("https://slsa.dev/provenance/v1", &Digest::of(b"other"));
        let deep = "[".repeat(100_000);
        for (bytes, says) in [
            (b"no json".to_vec(), "no JSON"),
            (b"\xff\xfe".to_vec(), "no JSON"),
            (b"[1, 2]".to_vec(), "no JSON"),
            (deep.into_bytes(), "no JSON"),
            (br#"{"subject": "x"}"#.to_vec(), "no JSON"),
            (br#"{"payload": "%%"}"#.to_vec(), "no base64"),
            (envelope(b"[").to_string().into_bytes(), "no JSON"),
            (other.clone(), "something else"),
            (envelope(&other).to_string().into_bytes(), "something else"),
        ] {
            let error = recognise(&bytes, &[Digest::of(b"image")]).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn types_that_are_looked_into() {
        for good in [
            "application/spdx+json",
            "application/vnd.cyclonedx+json; version=1.5",
            "application/vnd.in-toto+json",
            "application/vnd.dsse.envelope.v1+json",
            "application/vnd.dev.sigstore.bundle.v0.3+json",
            "application/vnd.dev.sigstore.bundle+json;version=0.2",
        ] {
            assert!(of_interest(good), "{good}");
        }
        for other in ["application/vnd.cyclonedx+xml", "application/vnd.oci.image.layer.v1.tar", "text/plain", ""] {
            assert!(!of_interest(other), "{other}");
        }
    }
}
