//! Reads the API server's audit log. It decides what one line says; it never counts or judges.

use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// One request as the API server recorded it when it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Time of the request, RFC 3339 with microseconds.
    pub time: String,
    /// Who asked.
    pub user: String,
    /// `create`, `update`, `patch`, `delete`, `deletecollection`, `get`, `list` or `watch`.
    pub verb: String,
    /// API group, empty for the core group.
    pub group: String,
    /// Plural of the resource.
    pub resource: String,
    /// For example `status`; empty if none.
    pub subresource: String,
    /// Namespace; empty if none.
    pub namespace: String,
    /// Name of the object; empty if none.
    pub name: String,
    /// HTTP status of the answer.
    pub code: u64,
    /// Path and query of the request.
    pub uri: String,
    /// Stage at which it was recorded: `ResponseStarted` (a watch begins), `ResponseComplete` or `Panic`.
    pub stage: String,
}

impl AuditEntry {
    /// Whether the request would change the cluster; dry runs do not.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
            && !self.uri.contains("dryRun=")
    }

    fn parse(line: &str) -> Result<AuditEntry, serde_json::Error> {
        let value: Value = serde_json::from_str(line)?;
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(AuditEntry {
            time: text("/requestReceivedTimestamp"),
            user: text("/user/username"),
            verb: text("/verb"),
            group: text("/objectRef/apiGroup"),
            resource: text("/objectRef/resource"),
            subresource: text("/objectRef/subresource"),
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            code: value.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
            uri: text("/requestURI"),
            stage: text("/stage"),
        })
    }
}

/// The entries of an audit log from a byte offset on, and the offset after the last whole line, for the next call.
///
/// # Errors
/// If the file cannot be read or a whole line is not JSON.
pub fn audit_entries(file: &Path, from: u64) -> Result<(Vec<AuditEntry>, u64)> {
    use std::io::{Read, Seek, SeekFrom};
    let shown = file.display().to_string();
    let mut opened = std::fs::File::open(file).map_err(Error::io(format!("open {shown}")))?;
    opened.seek(SeekFrom::Start(from)).map_err(Error::io(format!("seek in {shown}")))?;
    let mut text = String::new();
    opened.read_to_string(&mut text).map_err(Error::io(format!("read {shown}")))?;
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    let lines = text.get(..whole).unwrap_or_default().lines();
    let entries = lines.map(|line| AuditEntry::parse(line).map_err(|error| Error::malformed(&shown, error)));
    Ok((entries.collect::<Result<_>>()?, from + whole as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const LINE: &str = r#"{"kind":"Event","stage":"ResponseComplete","requestURI":"/apis/apps/v1/namespaces/shop/deployments/orders?fieldManager=x","verb":"patch","user":{"username":"joe"},"objectRef":{"resource":"deployments","namespace":"shop","name":"orders","apiGroup":"apps"},"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-11-21T11:00:00.000000Z"}"#;

    #[test]
    fn a_half_written_line_waits_for_the_next_reading() {
        let file = std::env::temp_dir().join(format!("lab-audit-{}", std::process::id()));
        std::fs::write(&file, format!("{LINE}\n{{\"half")).unwrap();
        let (entries, offset) = audit_entries(&file, 0).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].user.as_str(), entries[0].code, entries[0].is_write()), ("joe", 200, true));
        assert_eq!(offset, LINE.len() as u64 + 1);
        std::fs::write(&file, format!("{LINE}\n{LINE}\n")).unwrap();
        assert_eq!(audit_entries(&file, offset).unwrap().0.len(), 1);
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_dry_run_is_no_write() {
        let entry = AuditEntry::parse(&LINE.replace("fieldManager=x", "dryRun=All")).unwrap();
        assert!(!entry.is_write());
    }
}
