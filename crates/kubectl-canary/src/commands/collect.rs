//! `evidence --to`: keeps the folders of releases that are over in one place, each once. A folder that is finished is
//! left as it is, also where it holds something else. What goes wrong with one record stops no other.

use canary_api::{Changes, ReleaseRecord};
use serde::Serialize;

use super::evidence::files;
use crate::args::{self, Global};
use crate::cluster::{Cluster, is_name};
use crate::output::{Output, Tone};
use crate::place::{Place, State};
use crate::supply::credentials::Allowed;
use crate::{Error, Exit, clean, records, supply};

/// Records that are in memory at once; each takes at most 64 KiB in the cluster.
const PAGE: u32 = 50;

/// What was done.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The place.
    pub place: String,
    /// Folders that were written.
    pub collected: Vec<Folder>,
    /// How many were there already.
    pub present: usize,
    /// How many releases are not over, or not signed off where that was asked for.
    pub waiting: usize,
    /// Finished folders that hold something else.
    pub other: Vec<Trouble>,
    /// Records that could not be collected.
    pub failed: Vec<Trouble>,
}

/// A folder that was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Folder {
    /// Namespace and record.
    pub folder: String,
    /// Digest of the set.
    pub digest: String,
}

/// A record or folder with which something is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// Namespace and record.
    pub folder: String,
    /// What is wrong, and what to do.
    pub why: String,
}

impl Kept {
    /// How the command ends.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        if !self.failed.is_empty() {
            Exit::Failed
        } else if !self.other.is_empty() {
            Exit::Refused
        } else {
            Exit::Done
        }
    }

    /// Counts what became of a record.
    fn count(&mut self, folder: String, came: Result<Came, Error>) {
        match came {
            Ok(Came::Collected(digest)) => self.collected.push(Folder { folder, digest: format!("sha256:{digest}") }),
            Ok(Came::Present) => self.present = self.present.saturating_add(1),
            Ok(Came::Other(why)) => self.other.push(Trouble { folder, why: why.to_owned() }),
            Err(error) => self.failed.push(Trouble { folder, why: clean::text(&error.to_string()) }),
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Came {
    /// It was collected; the digest of the set.
    Collected(String),
    /// It had been.
    Present,
    /// A finished folder holds something else; what.
    Other(&'static str),
}

/// Runs `evidence --to`.
///
/// # Errors
/// Where the place can't be opened, or the records can't be listed.
pub async fn run(what: &args::Evidence, global: &Global, allowed: &Allowed, output: &Output) -> Result<Exit, Error> {
    let place = Place::open(what.to.as_deref().unwrap_or_default(), what.s3_endpoint.as_deref())?;
    let mut kept = Kept { place: place.name.clone(), ..Kept::default() };
    if !what.all {
        let (record, found) = records::find(&what.of, global).await?;
        if !frozen(&record) {
            return Err(Error::Usage(format!(
                "the release of record {} is not over; evidence -d FOLDER writes what there is so far",
                clean::text(record.metadata.name.as_deref().unwrap_or_default())
            )));
        }
        let changes = records::more(found, what.changes.changes.as_deref(), what.changes.git.as_deref())?;
        kept.count(title(&record), one(&record, More::Given(changes), allowed, &place).await);
    } else if let Some(file) = &what.of.file {
        for record in records::read(file)? {
            each(&record, None, what, allowed, &place, &mut kept).await;
        }
    } else {
        let cluster = Cluster::connect(global).await?;
        let mut next = None;
        loop {
            let (page, more) = cluster.records_page(what.all_namespaces, PAGE, next).await?;
            for object in page {
                match records::record(object) {
                    Ok(record) => each(&record, Some(&cluster), what, allowed, &place, &mut kept).await,
                    Err(error) => kept.count("a record".to_owned(), Err(error)),
                }
            }
            if more.is_none() {
                break;
            }
            next = more;
        }
    }
    output.answer(&kept, |paint| {
        let mut lines = Vec::new();
        for folder in &kept.collected {
            lines.push(format!("{} {}  {}", paint.paint(Tone::Good, "collected"), folder.folder, folder.digest));
        }
        for trouble in &kept.other {
            lines.push(format!("{} {}: {}", paint.paint(Tone::Doubt, "left as it is"), trouble.folder, trouble.why));
        }
        for trouble in &kept.failed {
            lines.push(format!("{} {}: {}", paint.paint(Tone::Bad, "failed"), trouble.folder, trouble.why));
        }
        lines.push(format!(
            "{}: {} collected, {} there already, {} not ready, {} left as they are, {} failed",
            clean::text(&kept.place),
            kept.collected.len(),
            kept.present,
            kept.waiting,
            kept.other.len(),
            kept.failed.len()
        ));
        lines.join("\n")
    })?;
    Ok(kept.exit())
}

/// A record of many.
async fn each(
    record: &ReleaseRecord,
    cluster: Option<&Cluster>,
    what: &args::Evidence,
    allowed: &Allowed,
    place: &Place,
    kept: &mut Kept,
) {
    if !frozen(record) || (what.signed_off && !signed_off(record)) {
        kept.waiting = kept.waiting.saturating_add(1);
        return;
    }
    let namespace = record.metadata.namespace.as_deref().unwrap_or_default();
    let changes = More::Of(cluster.map(|cluster| cluster.of_namespace(namespace)));
    kept.count(title(record), one(record, changes, allowed, place).await);
}

/// Changes that stand elsewhere than in the record.
enum More {
    /// These.
    Given(Changes),
    /// Those of the ConfigMap that the record names; it is read only where a folder is to be written.
    Of(Option<Cluster>),
}

/// Collects one record, where that was not done yet.
async fn one(record: &ReleaseRecord, changes: More, allowed: &Allowed, place: &Place) -> Result<Came, Error> {
    let folder = folder(record)?;
    if let State::Finished { record: written, sound } = place.state(&folder).await? {
        return Ok(compared(record, &written, sound));
    }
    let changes = match changes {
        More::Given(changes) => changes,
        More::Of(cluster) => records::elsewhere(record, cluster.as_ref()).await?,
    };
    let images = supply::gather(record, allowed).await?;
    let (files, _) = files(record, &changes, &images, jiff::Timestamp::now())?;
    match place.write(&folder, &files).await? {
        Some(digest) => Ok(Came::Collected(digest)),
        None => match place.state(&folder).await? {
            State::Finished { record: written, sound } => Ok(compared(record, &written, sound)),
            State::Open => Ok(Came::Other("somebody else writes it at the same time")),
        },
    }
}

/// What a finished folder holds, beside this record.
fn compared(record: &ReleaseRecord, written: &str, sound: bool) -> Came {
    if !sound {
        return Came::Other("its record.yaml is not what its list of digests says; kubectl canary verify tells more");
    }
    let Some(then) = records::parse("record.yaml", written).ok().and_then(|mut found| found.pop()) else {
        return Came::Other("its record.yaml can't be read by this version of the plugin");
    };
    if then.metadata.uid != record.metadata.uid || then.status != record.status {
        Came::Other("it is of another release; move it away")
    } else if then.spec == record.spec {
        Came::Present
    } else {
        Came::Other("the record's spec was edited after it was written; move it away and it is collected anew")
    }
}

/// Namespace and name: the release's id and five characters that tell two CanaryReleases of one name apart.
fn folder(record: &ReleaseRecord) -> Result<String, Error> {
    let namespace = record.metadata.namespace.as_deref().unwrap_or_default();
    let name = record.metadata.name.as_deref().unwrap_or_default();
    if is_name(namespace) && is_name(name) {
        return Ok(format!("{namespace}/{name}"));
    }
    Err(Error::Usage("a record without namespace and name has no folder of its own there; use -d FOLDER".to_owned()))
}

fn title(record: &ReleaseRecord) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "(none)".to_owned());
    clean::text(&format!("{}/{}", part(&record.metadata.namespace), part(&record.metadata.name)))
}

fn frozen(record: &ReleaseRecord) -> bool {
    record.status.as_ref().is_some_and(|status| status.frozen)
}

fn signed_off(record: &ReleaseRecord) -> bool {
    record.spec.sign_off.as_ref().is_some_and(|sign_off| !sign_off.manager.is_empty())
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
