//! SBOMs and build provenance that are attached to the images of a release, as files of the evidence folder. It asks only
//! registries that it was told to ask, writes what is attached byte for byte, and checks digests, not signatures.
//!
//! What is taken: SPDX and CycloneDX as JSON, and SLSA provenance, plain, as in-toto statements, in DSSE envelopes and in
//! sigstore bundles. Where from: the referrers API or its fallback tag, the attestation manifests that buildkit
//! puts into the image's index, and cosign's tags `sha256-<digest>.att` and `.sbom`.

pub mod attached;
pub mod credentials;
pub mod image;
pub mod reference;
pub mod registry;

use std::fmt::Write as _;

use canary_api::ReleaseRecord;
use canary_report::evidence::{File, version_part};
use canary_report::facts::clock;
use jiff::Timestamp;

use self::attached::Kind;
use self::credentials::Allowed;
use self::image::{Image, look};
use self::registry::Why;
use crate::Error;

/// Images of a release that are looked at.
const IMAGES: usize = 10;
/// Bytes of attached files after which no more of a release are taken.
const BYTES: usize = 64 * 1024 * 1024;

/// The images of the candidate: those that the release changed before the others, in the order of the containers.
#[must_use]
pub fn images(record: &ReleaseRecord) -> Vec<String> {
    let Some(status) = &record.status else { return Vec::new() };
    let before = &status.stable.images;
    let (changed, same): (Vec<_>, Vec<_>) =
        status.candidate.images.iter().enumerate().partition(|(index, image)| before.get(*index) != Some(*image));
    let mut images: Vec<String> = Vec::new();
    for (_, image) in changed.into_iter().chain(same) {
        if !images.contains(image) {
            images.push(image.clone());
        }
    }
    images.truncate(IMAGES);
    images
}

/// Looks at the images of a release.
///
/// # Errors
/// Where a registry that may be asked does not answer: a folder without what it has would look complete.
pub async fn gather(record: &ReleaseRecord, allowed: &Allowed) -> Result<Vec<Image>, Error> {
    within(record, allowed, BYTES).await
}

async fn within(record: &ReleaseRecord, allowed: &Allowed, bytes: usize) -> Result<Vec<Image>, Error> {
    let mut found = Vec::new();
    if allowed.is_empty() {
        return Ok(found);
    }
    let mut room = bytes;
    for name in images(record) {
        let image = look(&name, allowed, room).await.map_err(|why: Why| Error::Registry(why.words().to_owned()))?;
        room = image.found.iter().fold(room, |room, file| room.saturating_sub(file.text.len()));
        found.push(image);
    }
    Ok(found)
}

/// Puts what was found into the list of the folder's files: the SBOM and the provenance of the first image under the
/// names of the template, others behind them, and a text that says where all of it is from.
pub fn lay(record: &ReleaseRecord, images: &[Image], now: Timestamp, files: &mut Vec<File>) {
    if images.is_empty() {
        return;
    }
    let version = version_part(record);
    let mut names: Vec<Vec<String>> = images.iter().map(|image| vec![String::new(); image.found.len()]).collect();
    for kind in [Kind::Sbom, Kind::Provenance] {
        let (stem, about) = match kind {
            Kind::Sbom => (format!("sbom_{version}"), "software bill of materials"),
            Kind::Provenance => (format!("build_provenance_{version}"), "build provenance"),
        };
        let place = files.iter().position(|file| file.name == format!("{stem}.json"));
        let mut at = place.unwrap_or(files.len());
        let why = place.and_then(|place| files.get(place)).and_then(|file| file.text.clone().err());
        let mut new: Vec<File> = Vec::new();
        for ((index, image), names) in images.iter().enumerate().zip(&mut names) {
            for (one, name) in image.found.iter().zip(names).filter(|(one, _)| one.what.kind == kind) {
                *name = free_name(&stem, (index > 0).then_some(image.short.as_str()), &new, files);
                new.push(File {
                    name: name.clone(),
                    about: format!("{about} of {}: {}", image.name, one.what.words()),
                    text: Ok(one.text.clone()),
                    of_rollback: false,
                });
            }
        }
        let first = new.iter().any(|file| file.name == format!("{stem}.json"));
        if first {
            files.retain(|file| file.name != format!("{stem}.json"));
        } else if let Some(file) = files.get_mut(at) {
            at = at.saturating_add(1);
            file.text = Err(missing(images, why.as_deref().unwrap_or_default()));
        }
        let at = at.min(files.len());
        files.splice(at..at, new);
    }
    let beside = File {
        name: format!("attached_{version}.txt"),
        about: "where SBOM and provenance are from, and what else is attached to the images".to_owned(),
        text: Ok(told(images, &names, now)),
        of_rollback: false,
    };
    let last = files.iter().rposition(|file| file.name.starts_with("build_provenance_"));
    let at = last.map_or(files.len(), |last| last.saturating_add(1));
    files.insert(at, beside);
}

/// A name that no other file has: of the first image that of the template, of others with the image's name.
fn free_name(stem: &str, image: Option<&str>, new: &[File], files: &[File]) -> String {
    let stem = image.map_or_else(|| stem.to_owned(), |image| format!("{stem}_{image}"));
    // The template's own entry is the one that is being filled.
    let taken = |name: &str| {
        new.iter().any(|file| file.name == name) || files.iter().any(|file| file.name == name && file.text.is_ok())
    };
    let mut name = format!("{stem}.json");
    let mut number: u32 = 1;
    while taken(&name) {
        number = number.saturating_add(1);
        name = format!("{stem}.{number}.json");
    }
    name
}

/// Why there is none of the first image.
fn missing(images: &[Image], record_says: &str) -> String {
    let first = images.first();
    let name = first.map(|image| image.name.as_str()).unwrap_or_default();
    let why = match first.and_then(|image| image.not_read.as_deref()) {
        Some(why) => format!("{name} could not be looked at: {why}"),
        None => format!("none is attached to {name}"),
    };
    format!("{why}; {record_says}")
}

/// The text beside the files.
fn told(images: &[Image], names: &[Vec<String>], now: Timestamp) -> String {
    let mut text = String::from("SBOM and provenance of the release's images\n\n");
    let _ = writeln!(text, "Asked on {}. Digests were checked, signatures were not.", clock(now));
    for (image, names) in images.iter().zip(names) {
        let _ = writeln!(text, "\n{}", image.name);
        if let Some(digest) = &image.digest {
            let _ = writeln!(text, "  digest: {digest}");
        }
        if let (Some(tag), Some(_)) = (&image.asked_tag, &image.digest) {
            let _ = writeln!(
                text,
                "  The record has no digest of it: this is what tag {tag} meant when it was asked. A tag can be moved after a release."
            );
        }
        if let Some(why) = &image.not_read {
            let _ = writeln!(text, "  not looked at: {why}");
        }
        for (one, name) in image.found.iter().zip(names) {
            let _ = writeln!(text, "  {name}");
            let _ = writeln!(text, "    {}", one.what.words());
            let _ = writeln!(text, "    {} bytes, {}", one.text.len(), one.digest);
            let _ = writeln!(text, "    attached to {}, found by {}", one.to, one.by);
        }
        if image.found.is_empty() && image.not_read.is_none() {
            let _ = writeln!(text, "  neither SBOM nor provenance is attached");
        }
        for other in &image.passed_over {
            let _ = writeln!(text, "  not taken: {other}");
        }
    }
    text
}

#[cfg(test)]
#[path = "../supply_tests.rs"]
mod tests;
