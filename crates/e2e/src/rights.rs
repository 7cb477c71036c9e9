//! The operator's rights as they are granted, and as they were used: what was granted and never asked for in a whole
//! run is too much. It reads manifests and the audit log; it grants nothing.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, Result};
use lab::AuditEntry;
use serde::Deserialize as _;
use serde_json::Value;

use crate::cluster::text;
use crate::world::{OPERATOR, OPERATOR_USER};

/// One verb on one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The API group, empty for the core group.
    pub group: String,
    /// Plural of the resource, with the subresource after a slash.
    pub resource: String,
    /// The verb.
    pub verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{} {}{dot}{}", self.verb, self.resource, self.group)
    }
}

/// What the roles called as the operator grant, by a stream of manifests.
///
/// # Errors
/// Where it is no YAML.
pub fn granted(manifests: &str) -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for document in serde_norway::Deserializer::from_str(manifests) {
        let object = Value::deserialize(document).context("manifests of the operator's rights")?;
        if !matches!(text(&object, "/kind"), "ClusterRole" | "Role") || text(&object, "/metadata/name") != OPERATOR {
            continue;
        }
        for rule in object["rules"].as_array().into_iter().flatten() {
            let all = |field: &str| words(&rule[field]);
            for (group, resource) in
                all("apiGroups").iter().flat_map(|g| all("resources").into_iter().map(move |r| (g, r)))
            {
                rights.extend(all("verbs").into_iter().map(|verb| Right {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb,
                }));
            }
        }
    }
    Ok(rights)
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What the operator asked for, and was given.
#[must_use]
pub fn used(entries: &[AuditEntry]) -> BTreeSet<Right> {
    let of_operator = entries.iter().filter(|entry| entry.user == OPERATOR_USER && !matches!(entry.code, 401 | 403));
    of_operator
        .map(|entry| Right {
            group: entry.group.clone(),
            resource: match entry.subresource.as_str() {
                "" => entry.resource.clone(),
                sub => format!("{}/{sub}", entry.resource),
            },
            verb: entry.verb.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Grows only with a reason: each line is a right over everybody's objects.
    const GOLDEN: &str = include_str!("rights.txt");

    #[test]
    fn the_operators_rights_are_those_of_the_list_and_no_more() {
        let granted = granted(include_str!("../../../deploy/10-rbac.yaml")).unwrap();
        let lines: Vec<String> = granted.iter().map(ToString::to_string).collect();
        let golden: Vec<&str> = GOLDEN.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, golden, "deploy/10-rbac.yaml and crates/e2e/src/rights.txt differ");
        assert!(granted.iter().all(|right| right.verb != "*" && right.resource != "*" && right.group != "*"));
        assert!(!lines.iter().any(|line| line.contains("secrets") || line.contains("exec") || line.contains("token")));
    }

    #[test]
    fn only_what_was_answered_is_used() {
        let entry = |verb: &str, subresource: &str, code: u64, user: &str| AuditEntry {
            time: String::new(),
            user: user.to_owned(),
            verb: verb.to_owned(),
            group: "apps".to_owned(),
            resource: "deployments".to_owned(),
            subresource: subresource.to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            code,
            uri: String::new(),
            stage: "ResponseComplete".to_owned(),
        };
        let entries = [
            entry("get", "", 404, OPERATOR_USER),
            entry("update", "status", 200, OPERATOR_USER),
            entry("delete", "", 403, OPERATOR_USER),
            entry("create", "", 201, "joe"),
        ];
        let lines: Vec<String> = used(&entries).iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["get deployments.apps", "update deployments/status.apps"]);
    }
}
