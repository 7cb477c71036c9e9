//! `evidence`: a record as a folder of files under the names of the house's template, with a list of them, of what is
//! not there, and of their digests. Here it writes one folder, which must be empty or new; [`super::collect`] keeps those
//! of many releases.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use canary_api::{Changes, ReleaseRecord};
use canary_report::evidence::{self, File, MANIFEST, SUMS, sha256, sums};
use canary_report::facts::{FileFacts, facts};
use canary_report::{Style, notes_of, report_of};
use jiff::Timestamp;
use serde::Serialize;

use super::collect;
use crate::args::{self, Global};
use crate::output::{Output, Tone};
use crate::supply::credentials::Allowed;
use crate::supply::image::Image;
use crate::{Error, Exit, records, supply};

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// The folder.
    pub folder: String,
    /// The digest of the set: the SHA-256 of its list of digests.
    pub digest: String,
    /// Its files.
    pub files: Vec<Named>,
    /// What is not in it.
    pub missing: Vec<Missing>,
}

/// A file and its digest.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// Its name.
    pub name: String,
    /// SHA-256, as hex.
    pub sha256: String,
}

/// A file that is not there.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// Runs `evidence`.
///
/// # Errors
/// Where the record cannot be read, or the folder is not empty or cannot be written.
pub async fn run(what: &args::Evidence, global: &Global, output: &Output) -> Result<Exit, Error> {
    let allowed = Allowed::new(&what.registry, &what.insecure_registry)?;
    let Some(to) = &what.folder else { return collect::run(what, global, &allowed, output).await };
    let folder = Path::new(to);
    free(folder)?;
    let (record, found) = records::find(&what.of, global).await?;
    let changes = records::more(found, what.changes.changes.as_deref(), what.changes.git.as_deref())?;
    let images = supply::gather(&record, &allowed).await?;
    let (files, missing) = files(&record, &changes, &images, Timestamp::now())?;
    let digest = write(folder, &files)?;
    let collected = Collected {
        folder: to.clone(),
        digest: format!("sha256:{digest}"),
        files: files.iter().map(|(name, text)| Named { name: name.clone(), sha256: sha256(text.as_bytes()) }).collect(),
        missing,
    };
    output.answer(&collected, |paint| {
        let count = collected.files.len();
        let left = collected.missing.len();
        format!(
            "{} {count} files in {}, {left} not collected ({MANIFEST} says why)\ndigest of the set: {}",
            paint.paint(Tone::Good, "wrote"),
            collected.folder,
            collected.digest
        )
    })?;
    Ok(Exit::Done)
}

/// Refuses a folder that holds something.
fn free(folder: &Path) -> Result<(), Error> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(Error::Usage(format!(
            "{} is not empty; give a new folder, so that nothing of another release is in the set",
            folder.display()
        ))),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(Error::Unreadable { file: folder.display().to_string(), why }),
    }
}

/// Names and texts of files.
pub type Texts = Vec<(String, String)>;

/// The texts of the folder by name, and what is missing. `images` is what was found in registries, `now` when.
///
/// # Errors
/// Where they cannot be rendered.
pub fn files(
    record: &ReleaseRecord,
    changes: &Changes,
    images: &[Image],
    now: Timestamp,
) -> Result<(Texts, Vec<Missing>), Error> {
    let rendering = |error: canary_report::Error| Error::Rendering(error.to_string());
    let version = evidence::version_part(record);
    let own = |name: String, about: &str, text: String| File {
        name,
        about: about.to_owned(),
        text: Ok(text),
        of_rollback: false,
    };
    let mut listed = evidence::files(record);
    supply::lay(record, images, now, &mut listed);
    let mut facts = facts(record, changes);
    // Notes and report speak of the folder that they lie in.
    facts.evidence = listed.iter().map(in_notes).collect();
    let object = serde_norway::to_string(record).map_err(|error| Error::Encode(error.to_string()))?;
    let mut all = vec![
        own("record.yaml".to_owned(), "the ReleaseRecord that all of this was written from", object),
        own(
            format!("release_notes_{version}.md"),
            "release notes",
            notes_of(&facts, &Style::Canary).map_err(rendering)?,
        ),
        own("report.html".to_owned(), "report", report_of(record, &facts).map_err(rendering)?),
    ];
    all.extend(listed);
    let manifest = evidence::manifest(record, &all);
    let mut files = Vec::new();
    let mut missing = Vec::new();
    for file in all {
        match file.text {
            Ok(text) => files.push((file.name, text)),
            Err(why) => missing.push(Missing { name: file.name, why }),
        }
    }
    files.push((MANIFEST.to_owned(), manifest));
    Ok((files, missing))
}

fn in_notes(file: &File) -> FileFacts {
    FileFacts {
        name: file.name.clone(),
        about: file.about.clone(),
        missing: file.text.as_ref().err().cloned(),
        of_rollback: file.of_rollback,
    }
}

/// Writes the files, then their digests; returns the digest of the set.
fn write(folder: &Path, files: &[(String, String)]) -> Result<String, Error> {
    let fail = |file: &Path, why| Error::Unwritable { file: file.display().to_string(), why };
    fs::create_dir_all(folder).map_err(|why| fail(folder, why))?;
    let list = sums(files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())));
    // The list comes last: a folder without it was not finished.
    for (name, text) in files.iter().map(|(name, text)| (name.as_str(), text)).chain([(SUMS, &list)]) {
        let path = folder.join(name);
        let written = fs::File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|why| fail(&path, why))?;
    }
    Ok(sha256(list.as_bytes()))
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
