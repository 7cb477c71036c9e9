//! Records of releases: from the cluster or from a file, and which of them is meant. What is said of them is
//! `canary-report`'s.

use std::io::Read as _;

use canary_api::names::{GROUP, LABEL_RECORD_OF, label_value};
use canary_api::{Changes, ReleaseRecord};
use canary_report::changes::{self, commits, together};
use serde::Deserialize as _;
use serde_json::Value;

use crate::args::{Global, OfRecord};
use crate::cluster::Cluster;
use crate::output::say;
use crate::{Error, clean};

/// Bytes of a file that are read at most.
const MOST: u64 = 16 * 1024 * 1024;
/// The key of a ConfigMap that holds changes.
const KEY: &str = "changes";

/// The record that is meant, and the changes that stand elsewhere.
///
/// # Errors
/// Where there is no such record, or what it names cannot be read.
pub async fn find(which: &OfRecord, global: &Global) -> Result<(ReleaseRecord, Changes), Error> {
    let (record, cluster) = match &which.file {
        Some(file) => (choose(read(file)?, which, &format!("file {file}"))?, None),
        None => {
            let cluster = Cluster::connect(global).await?;
            let found = cluster.records(which.name.as_deref().map(label).as_deref()).await?;
            let found: Result<Vec<ReleaseRecord>, Error> = found.into_iter().map(record).collect();
            (choose(found?, which, &format!("namespace {}", cluster.namespace))?, Some(cluster))
        }
    };
    let changes = elsewhere(&record, cluster.as_ref()).await?;
    Ok((record, changes))
}

/// Selects the records of a CanaryRelease.
#[must_use]
pub fn label(name: &str) -> String {
    format!("{LABEL_RECORD_OF}={}", label_value(name))
}

/// An object as a record.
///
/// # Errors
/// Where this build does not understand it.
pub fn record(mut object: Value) -> Result<ReleaseRecord, Error> {
    // Nobody may have written one yet.
    if let Some(fields) = object.as_object_mut() {
        fields.entry("spec").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let place = clean::text(&format!("{}/{}", text("/metadata/namespace"), text("/metadata/name")));
    serde_path_to_error::deserialize(object).map_err(|error| Error::UndecodableRecord {
        object: place,
        why: clean::text(&format!("{}: {}", error.path(), error.inner())),
    })
}

/// The records of a file of YAML or JSON, or of standard input for `-`.
///
/// # Errors
/// Where it cannot be read or has none.
pub fn read(file: &str) -> Result<Vec<ReleaseRecord>, Error> {
    parse(file, &text_of(file)?)
}

/// The text of a file, or of standard input for `-`.
///
/// # Errors
/// Where it cannot be read.
pub fn text_of(file: &str) -> Result<String, Error> {
    let fail = |why| Error::Unreadable { file: clean::text(file), why };
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().lock().take(MOST).read_to_string(&mut text).map_err(fail)?;
    } else {
        std::fs::File::open(file).map_err(fail)?.take(MOST).read_to_string(&mut text).map_err(fail)?;
    }
    Ok(text)
}

/// The records in a text; lists are looked into, other kinds passed over.
///
/// # Errors
/// Where it is no YAML, or holds none.
pub fn parse(file: &str, text: &str) -> Result<Vec<ReleaseRecord>, Error> {
    let fail = |why: String| Error::Manifest { file: clean::text(file), why: clean::text(&why) };
    let mut found = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let object =
            Value::deserialize(document).map_err(|error| fail(format!("no YAML that can be read: {error}")))?;
        collect(object, &mut found)?;
    }
    if found.is_empty() {
        return Err(fail(format!(
            "holds no ReleaseRecord; give a file with kind: ReleaseRecord of apiVersion: {GROUP}/v1alpha1"
        )));
    }
    Ok(found)
}

fn collect(mut object: Value, found: &mut Vec<ReleaseRecord>) -> Result<(), Error> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, group) = (text("/kind"), text("/apiVersion"));
    if kind.ends_with("List")
        && let Some(items) = object.get_mut("items").and_then(Value::as_array_mut)
    {
        return std::mem::take(items).into_iter().try_for_each(|item| collect(item, found));
    }
    if kind == "ReleaseRecord" && group.split('/').next() == Some(GROUP) {
        found.push(record(object)?);
    }
    Ok(())
}

/// The newest record that was asked for.
///
/// # Errors
/// Where there is none, or it is not clear of which CanaryRelease.
pub fn choose(mut all: Vec<ReleaseRecord>, which: &OfRecord, place: &str) -> Result<ReleaseRecord, Error> {
    let id = |record: &ReleaseRecord| record.status.as_ref().map(|status| status.id.clone()).unwrap_or_default();
    let release =
        |record: &ReleaseRecord| record.status.as_ref().map(|status| status.release.clone()).unwrap_or_default();
    if let Some(name) = &which.name {
        all.retain(|record| release(record) == *name);
    }
    if let Some(wanted) = &which.record {
        all.retain(|record| id(record) == *wanted || record.metadata.name.as_ref() == Some(wanted));
    } else {
        let mut releases: Vec<String> = all.iter().map(release).map(|name| clean::text(&name)).collect();
        releases.sort();
        releases.dedup();
        if releases.len() > 1 {
            return Err(Error::Usage(format!(
                "{place} has records of {}; name one of them, or a record by --record",
                releases.join(", ")
            )));
        }
    }
    let began =
        |record: &ReleaseRecord| record.status.as_ref().and_then(|status| status.started.as_ref()).map(|at| at.0);
    all.sort_by_key(|record| (began(record), record.metadata.creation_timestamp.as_ref().map(|at| at.0)));
    all.pop().ok_or_else(|| {
        let of = which.name.as_ref().map_or_else(String::new, |name| format!(" of CanaryRelease {name}"));
        let named = which.record.as_ref().map_or_else(String::new, |record| format!(" {record}"));
        Error::NotFound {
            object: format!("a ReleaseRecord{named}{of} in {place}"),
            hint: "kubectl get releaserecords shows those that do; the operator writes one for each release".to_owned(),
        }
    })
}

/// The changes of the ConfigMap that a record names.
///
/// # Errors
/// Where it is not there or cannot be read.
pub async fn elsewhere(record: &ReleaseRecord, cluster: Option<&Cluster>) -> Result<Changes, Error> {
    let Some(name) = &record.spec.changes.config_map else { return Ok(Changes::default()) };
    let Some(cluster) = cluster else {
        say(&format!(
            "ConfigMap {name}, which the record names for changes, is not read without a cluster; give its text by --changes"
        ));
        return Ok(Changes::default());
    };
    let object = format!("ConfigMap {}/{name}", cluster.namespace);
    let data = cluster.config_map(name).await?.ok_or_else(|| Error::NotFound {
        object: clean::text(&object),
        hint: "the record's spec.changes.configMap names it; make it, or take the name away".to_owned(),
    })?;
    let text = data
        .get(KEY)
        .ok_or_else(|| Error::Changes { place: clean::text(&object), why: format!("it has no key {KEY}") })?;
    changes::parse(text).map_err(|error| Error::Changes {
        place: clean::text(&format!("{object}, key {KEY}")),
        why: clean::text(&error.to_string()),
    })
}

/// Adds the changes of `--changes` and `--git`.
///
/// # Errors
/// Where they cannot be read.
pub fn more(found: Changes, file: Option<&str>, range: Option<&str>) -> Result<Changes, Error> {
    let mut all = found;
    if let Some(file) = file {
        let read = changes::parse(&text_of(file)?)
            .map_err(|error| Error::Changes { place: clean::text(file), why: clean::text(&error.to_string()) })?;
        all = together(&all, &read);
    }
    if let Some(range) = range {
        let read = commits::read(&git_log(range)?);
        tell(range, &read);
        all = together(&all, &read.changes);
    }
    Ok(all)
}

/// What of a range of commits is not in the notes.
fn tell(range: &str, read: &commits::Commits) {
    let shown = 5;
    if read.left_out > 0 {
        say(&format!("{range}: {} commits of types that notes do not list, such as test and refactor", read.left_out));
    }
    if !read.others.is_empty() {
        let first: Vec<&str> = read.others.iter().take(shown).map(String::as_str).collect();
        let and = if read.others.len() > shown { "; ..." } else { "" };
        say(&format!("{range}: {} commits are not Conventional Commits: {}{and}", read.others.len(), first.join("; ")));
    }
}

fn git_log(range: &str) -> Result<String, Error> {
    let sound = range.split_once("..").is_some_and(|(old, new)| {
        !old.is_empty() && !new.is_empty() && !new.starts_with('.') && !old.starts_with('-') && !new.starts_with('-')
    });
    if !sound {
        return Err(Error::Usage("--git takes two tags or commits, such as v2.0.3..v2.1.0".to_owned()));
    }
    let fail = |why: String| Error::Git { range: clean::text(range), why: clean::text(&why) };
    let log = std::process::Command::new("git")
        .args(["log", "-z", "--no-merges", "--no-color", "--no-show-signature"])
        .arg(format!("--format={}", commits::FORMAT))
        .args([range, "--"])
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| fail(format!("git could not be started: {error}")))?;
    if !log.status.success() {
        return Err(fail(String::from_utf8_lossy(&log.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&log.stdout).into_owned())
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
