//! The operator's rights as they are granted, and as they were used: what was granted and never asked for in a whole
//! run is too much. It reads manifests and the audit log; it grants nothing.

use std::collections::{BTreeMap, BTreeSet};
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

/// Rights that are for cases which no scenario brings about, and those cases.
const SELDOM: [(&str, &str); 2] = [
    ("delete releaserecords.canaryrelease.dev", "more records than are kept"),
    ("patch services", "the canary's Service was edited by hand"),
];

/// Whether a right is for a case that no scenario brings about.
#[must_use]
pub fn seldom(right: &Right) -> bool {
    SELDOM.iter().any(|(known, _)| *known == right.to_string())
}

/// What the roles called as the operator grant, by a stream of manifests, and where: everywhere, in one namespace, or for
/// objects of some names alone.
///
/// # Errors
/// Where it is no YAML.
pub fn granted(manifests: &str) -> Result<BTreeMap<Right, BTreeSet<String>>> {
    let mut rights: BTreeMap<Right, BTreeSet<String>> = BTreeMap::new();
    for object in documents(manifests)? {
        let kind = text(&object, "/kind");
        if !matches!(kind, "ClusterRole" | "Role") || text(&object, "/metadata/name") != OPERATOR {
            continue;
        }
        let place = if kind == "Role" { format!("in {}", text(&object, "/metadata/namespace")) } else { String::new() };
        for rule in object["rules"].as_array().into_iter().flatten() {
            let all = |field: &str| words(&rule[field]);
            let named = all("resourceNames").join(", ");
            let named = if named.is_empty() { named } else { format!("named {named}") };
            let reach =
                [place.as_str(), &named].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
            for (group, resource) in
                all("apiGroups").iter().flat_map(|g| all("resources").into_iter().map(move |r| (g, r)))
            {
                for verb in all("verbs") {
                    let right = Right { group: group.clone(), resource: resource.clone(), verb };
                    rights.entry(right).or_default().insert(reach.clone());
                }
            }
        }
    }
    Ok(rights)
}

fn documents(manifests: &str) -> Result<Vec<Value>> {
    let all = serde_norway::Deserializer::from_str(manifests).map(Value::deserialize);
    all.collect::<Result<_, _>>().context("manifests of the operator's rights")
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
        let reaches = granted.iter().flat_map(|(right, reaches)| reaches.iter().map(move |reach| (right, reach)));
        let lines: Vec<String> =
            reaches.map(|(right, reach)| format!("{right} {reach}").trim_end().to_owned()).collect();
        let golden: Vec<&str> = GOLDEN.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, golden, "deploy/10-rbac.yaml and crates/e2e/src/rights.txt differ");
        assert_eq!(
            granted.keys().filter(|right| seldom(right)).count(),
            SELDOM.len(),
            "a seldom right that is not granted"
        );
        assert!(granted.keys().all(|right| right.verb != "*" && right.resource != "*" && right.group != "*"));
        assert!(!lines.iter().any(|line| line.contains("secrets") || line.contains("exec") || line.contains("token")));
    }

    #[test]
    fn no_other_role_is_given_to_the_operator() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        let mut given = BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            for object in documents(&std::fs::read_to_string(&path).unwrap()).unwrap() {
                let kind = text(&object, "/kind");
                let role = matches!(kind, "ClusterRole" | "Role");
                assert!(!role || object.get("aggregationRule").is_none(), "a role that others add to: {object}");
                let of_operator = object["subjects"].as_array().into_iter().flatten().any(|subject| {
                    // A group or a user may be the operator, too.
                    text(subject, "/kind") != "ServiceAccount" || text(subject, "/name") == OPERATOR
                });
                if of_operator {
                    given.insert((kind.to_owned(), text(&object, "/roleRef/name").to_owned()));
                }
            }
        }
        let expected = ["ClusterRoleBinding", "RoleBinding"].map(|kind| (kind.to_owned(), OPERATOR.to_owned()));
        assert_eq!(given, BTreeSet::from(expected));
    }

    #[test]
    fn a_right_says_where_it_reaches() {
        let role = |kind: &str, names: &str| {
            format!(
                "kind: {kind}\nmetadata: {{name: {OPERATOR}, namespace: home}}\nrules: [{{apiGroups: [\"\"], resources: [pods], verbs: [get]{names}}}]"
            )
        };
        let reach = |manifest: String| granted(&manifest).unwrap().into_values().flatten().collect::<Vec<_>>();
        assert_eq!(reach(role("ClusterRole", "")), [""]);
        assert_eq!(reach(role("ClusterRole", ", resourceNames: [a, b]")), ["named a, b"]);
        assert_eq!(reach(role("Role", ", resourceNames: [a]")), ["in home named a"]);
        assert_eq!(reach(format!("{}\n---\n{}", role("ClusterRole", ""), role("Role", ""))), ["", "in home"]);
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
