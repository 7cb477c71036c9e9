//! What is attached to one image: found by the referrers API or its fallback tag, in the image's own index as buildkit
//! puts it there, and under the tags of cosign. How much is looked at is bounded.

use std::time::Duration;

use super::attached::{What, of_interest, recognise};
use super::credentials::Allowed;
use super::reference::{Digest, Reference};
use super::registry::{Descriptor, Manifest, Registry, Why};
use crate::clean;

/// Platforms of one image that are looked at.
const PLATFORMS: usize = 8;
/// Artifacts of one image that are looked at.
const ARTIFACTS: usize = 64;
/// Files that are taken of one image.
const FILES: usize = 16;
/// Words of what was passed over.
const WORDS: usize = 40;
/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// What was found of an image.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Its name, as the record has it.
    pub name: String,
    /// Its name in the names of files.
    pub short: String,
    /// Its digest.
    pub digest: Option<Digest>,
    /// The tag that was asked for the digest, since the name has none.
    pub asked_tag: Option<String>,
    /// Files that are taken.
    pub found: Vec<Attached>,
    /// What else is attached, or why something was not taken.
    pub passed_over: Vec<String>,
    /// Why nothing could be looked at.
    pub not_read: Option<String>,
}

/// An attached file.
#[derive(Debug, Clone)]
pub struct Attached {
    /// What it is.
    pub what: What,
    /// Its content, byte for byte.
    pub text: String,
    /// Its digest.
    pub digest: Digest,
    /// What it is attached to: the image's index, or one of its platforms.
    pub to: Digest,
    /// How it was found.
    pub by: &'static str,
}

/// An artifact that is to be looked at.
struct Candidate {
    to: Digest,
    by: &'static str,
    manifest: Manifest,
}

/// Looks at an image. Once it has given `room` bytes no more of its files are taken.
///
/// # Errors
/// Where its registry may be asked and does not answer, so that it is not known what there is.
pub async fn look(name: &str, allowed: &Allowed, room: usize) -> Result<Image, Why> {
    let mut image = Image { name: clean::text(name), ..Image::default() };
    let reference = match Reference::parse(name) {
        Ok(reference) => reference,
        Err(why) => {
            image.not_read = Some(format!("its name is not whole: {why}"));
            return Ok(image);
        }
    };
    image.short = reference.short().chars().take(60).collect();
    let registry = match Registry::of(&reference, allowed) {
        Ok(Some(registry)) => registry,
        Ok(None) => {
            image.not_read = Some(format!("its registry was not to be asked; --registry {} allows it", reference.host));
            return Ok(image);
        }
        Err(Why::Unsound(why)) => {
            image.not_read = Some(why);
            return Ok(image);
        }
        Err(why) => return Err(why),
    };
    let looked = tokio::time::timeout(DEADLINE, read(&reference, &registry, room, &mut image)).await;
    match looked.unwrap_or_else(|_| Err(Why::Unreachable(format!("{} takes too long", reference.host)))) {
        Ok(()) => Ok(image),
        Err(Why::Unsound(why)) => {
            image.not_read = Some(clean::text(&why));
            Ok(image)
        }
        Err(Why::Unreachable(why)) => Err(Why::Unreachable(format!("{}: {}", image.name, clean::text(&why)))),
    }
}

async fn read(reference: &Reference, registry: &Registry<'_>, room: usize, image: &mut Image) -> Result<(), Why> {
    let wanted = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => {
            image.asked_tag.clone_from(tag);
            tag.clone().unwrap_or_default()
        }
    };
    let Some((manifest, digest)) = registry.manifest(&wanted).await? else {
        image.not_read = Some("its registry has no such image (any more)".to_owned());
        return Ok(());
    };
    image.digest = Some(digest.clone());
    let (platforms, built_in) = split(&manifest.manifests);
    let mut digests = vec![digest];
    digests.extend(platforms);
    let candidates = candidates(registry, image, &digests, built_in).await?;
    for candidate in candidates {
        take(registry, image, &digests, room, candidate).await?;
    }
    // The image's own before those of its platforms; plain files before wrapped ones.
    let order = |one: &Attached| digests.iter().position(|digest| *digest == one.to);
    image.found.sort_by(|one, other| {
        (one.what.kind, order(one), one.what, &one.digest).cmp(&(
            other.what.kind,
            order(other),
            other.what,
            &other.digest,
        ))
    });
    Ok(())
}

/// Of an index: the platforms, and with them what buildkit put beside them, each with the platform that it is about.
fn split(manifests: &[Descriptor]) -> (Vec<Digest>, Vec<(Digest, Digest)>) {
    let mut platforms = Vec::new();
    let mut built_in = Vec::new();
    for one in manifests {
        let Some(digest) = Digest::parse(&one.digest) else { continue };
        let kind = one.annotations.get("vnd.docker.reference.type").map(String::as_str);
        let about = one.annotations.get("vnd.docker.reference.digest").and_then(|digest| Digest::parse(digest));
        match (kind, about) {
            (Some("attestation-manifest"), Some(about)) => built_in.push((digest, about)),
            (Some("attestation-manifest"), None) => {}
            _ if platforms.len() < PLATFORMS => platforms.push(digest),
            _ => {}
        }
    }
    built_in.truncate(PLATFORMS);
    (platforms, built_in)
}

/// All artifacts of an image, as far as they are looked at.
async fn candidates(
    registry: &Registry<'_>,
    image: &mut Image,
    digests: &[Digest],
    built_in: Vec<(Digest, Digest)>,
) -> Result<Vec<Candidate>, Why> {
    let mut found = Vec::new();
    for to in digests {
        let (referrers, by) = match registry.referrers(to).await {
            Ok(found) => found,
            Err(why) => {
                pass(image, why)?;
                continue;
            }
        };
        for one in referrers.iter().take(ARTIFACTS.saturating_sub(found.len())) {
            let Some(digest) = Digest::parse(&one.digest) else {
                note(image, "an artifact whose digest is no sha256");
                continue;
            };
            match registry.manifest(digest.as_str()).await {
                Ok(Some((manifest, _))) => {
                    let about = manifest.subject.as_ref().and_then(|subject| Digest::parse(&subject.digest));
                    if about.as_ref() == Some(to) {
                        found.push(Candidate { to: to.clone(), by, manifest });
                    } else {
                        note(image, &format!("{digest}: it says that it is attached to something else"));
                    }
                }
                Ok(None) => note(image, &format!("{digest}: listed, and not there")),
                Err(why) => pass(image, why)?,
            }
        }
        for (ending, by) in [("att", "cosign's tag of attestations"), ("sbom", "cosign's tag of SBOMs")] {
            match registry.manifest(&format!("sha256-{}.{ending}", to.hex())).await {
                Ok(Some((manifest, _))) => found.push(Candidate { to: to.clone(), by, manifest }),
                Ok(None) => {}
                Err(why) => pass(image, why)?,
            }
        }
    }
    for (digest, to) in built_in {
        match registry.manifest(digest.as_str()).await {
            Ok(Some((manifest, _))) => found.push(Candidate { to, by: "the image's own index", manifest }),
            Ok(None) => note(image, &format!("{digest}: listed, and not there")),
            Err(why) => pass(image, why)?,
        }
    }
    Ok(found)
}

/// Takes the files of an artifact that are SBOMs or provenance of the image.
async fn take(
    registry: &Registry<'_>,
    image: &mut Image,
    digests: &[Digest],
    room: usize,
    candidate: Candidate,
) -> Result<(), Why> {
    let Candidate { to, by, manifest } = candidate;
    let said = manifest.artifact_type.or(manifest.config.map(|config| config.media_type)).unwrap_or_default();
    let files = if manifest.layers.is_empty() { manifest.blobs } else { manifest.layers };
    // A single file may be said to be what the whole artifact is.
    let alone = files.len() == 1 && of_interest(&said);
    let mut wanted = files.iter().filter(|file| alone || of_interest(&file.media_type)).peekable();
    if wanted.peek().is_none() {
        note(image, if said.is_empty() { "an artifact of no type" } else { &said });
    }
    for file in wanted {
        let Some(digest) = Digest::parse(&file.digest) else {
            note(image, "a file whose digest is no sha256");
            continue;
        };
        if image.found.iter().any(|one| one.digest == digest) {
            continue;
        }
        let taken: usize = image.found.iter().map(|one| one.text.len()).sum();
        if image.found.len() >= FILES || taken >= room {
            note(image, &format!("{digest}: more than {FILES} files of the image, or too many bytes of the release"));
            return Ok(());
        }
        let bytes = match registry.blob(&digest).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                note(image, &format!("{digest}: listed, and not there"));
                continue;
            }
            Err(why) => {
                pass(image, why)?;
                continue;
            }
        };
        match recognise(&bytes, digests).and_then(|what| Ok(what.zip(Some(text(bytes)?)))) {
            Ok(Some((what, text))) => image.found.push(Attached { what, text, digest, to: to.clone(), by }),
            Ok(None) => note(image, &format!("{digest}: {}, neither SBOM nor provenance", file.media_type)),
            Err(why) => note(image, &format!("{digest}: {why}")),
        }
    }
    Ok(())
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| "it is no text".to_owned())
}

/// Goes on after what will never be read; stops at what may be another time.
fn pass(image: &mut Image, why: Why) -> Result<(), Why> {
    match why {
        Why::Unsound(why) => {
            note(image, &why);
            Ok(())
        }
        Why::Unreachable(_) => Err(why),
    }
}

fn note(image: &mut Image, why: &str) {
    if image.passed_over.len() < WORDS {
        image.passed_over.push(clean::text(why).chars().take(300).collect());
    }
}
