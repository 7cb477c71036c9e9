//! CanaryReleases in a file of YAML or JSON, of one or more documents. What is not a CanaryRelease is passed over; one
//! that cannot be read is kept, with why. It never looks at a cluster.

use std::io::Read as _;

use canary_api::CanaryReleaseSpec;
use canary_api::names::GROUP;
use serde::Deserialize as _;
use serde_json::Value;

use crate::{Error, clean};

/// Bytes of a file that are read at most.
const MOST: u64 = 16 * 1024 * 1024;

/// A CanaryRelease as a file has it.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Its namespace, where the file names one.
    pub namespace: Option<String>,
    /// Its spec, or why that cannot be read.
    pub spec: Result<CanaryReleaseSpec, String>,
}

/// Reads a file, or standard input for `-`.
///
/// # Errors
/// Where it cannot be read, is no YAML, or holds no CanaryRelease.
pub fn read(file: &str) -> Result<Vec<Manifest>, Error> {
    let fail = |why| Error::File { file: file.to_owned(), why };
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().lock().take(MOST).read_to_string(&mut text).map_err(fail)?;
    } else {
        std::fs::File::open(file).map_err(fail)?.take(MOST).read_to_string(&mut text).map_err(fail)?;
    }
    parse(file, &text)
}

/// Reads the text of a file.
///
/// # Errors
/// Where it is no YAML, or holds no CanaryRelease.
pub fn parse(file: &str, text: &str) -> Result<Vec<Manifest>, Error> {
    let fail = |why| Error::Manifest { file: file.to_owned(), why };
    let mut found = Vec::new();
    let mut others = Vec::new();
    for (index, document) in serde_norway::Deserializer::from_str(text).enumerate() {
        let number = index.saturating_add(1);
        let object = Value::deserialize(document)
            .map_err(|error| fail(format!("document {number} is no YAML that can be read: {error}")))?;
        collect(object, &mut found, &mut others);
    }
    if found.is_empty() {
        let others = if others.is_empty() { "nothing".to_owned() } else { others.join(", ") };
        return Err(fail(format!(
            "holds no CanaryRelease, but {others}; give a file with kind: CanaryRelease of apiVersion: {GROUP}/v1alpha1"
        )));
    }
    Ok(found)
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn collect(mut object: Value, found: &mut Vec<Manifest>, others: &mut Vec<String>) {
    let (kind, group) = (text(&object, "/kind"), text(&object, "/apiVersion"));
    if kind.ends_with("List")
        && let Some(items) = object.get_mut("items").and_then(Value::as_array_mut)
    {
        std::mem::take(items).into_iter().for_each(|item| collect(item, found, others));
        return;
    }
    if kind != "CanaryRelease" || group.split('/').next() != Some(GROUP) {
        if !object.is_null() {
            others.push(if kind.is_empty() { "an object without kind".to_owned() } else { clean::text(&kind) });
        }
        return;
    }
    let namespace = text(&object, "/metadata/namespace");
    let name = clean::text(&text(&object, "/metadata/name"));
    let spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
    found.push(Manifest {
        name: if name.is_empty() { "(no name)".to_owned() } else { name },
        namespace: (!namespace.is_empty()).then(|| clean::text(&namespace)),
        spec: serde_path_to_error::deserialize(spec).map_err(|error| clean::text(&fault(&error))),
    });
}

/// Where in the spec it is wrong, and how.
fn fault(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = error.path().to_string();
    let place = if path == "." { "spec".to_owned() } else { format!("spec.{path}") };
    format!("{place}: {}", error.inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "
apiVersion: canaryrelease.dev/v1alpha1
kind: CanaryRelease
metadata: {name: orders, namespace: shop}
spec:
  target: {name: orders}
  traffic: {service: orders, routes: [{kind: HTTPRoute, name: orders}], requests: {counter: http_requests_total}}
  stages: [{weight: 100%, duration: 5m}]
  gates: [{name: errors, errorRate: {bad: b, total: t, limit: 1%}}]
";

    #[test]
    fn canary_releases_are_picked_among_other_documents_and_lists() {
        let text = format!("---\nkind: Service\napiVersion: v1\n---{ONE}---\n---{}", ONE.replace("orders", "carts"));
        let found = parse("x.yaml", &text).unwrap();
        assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["orders", "carts"]);
        assert_eq!(found[0].namespace.as_deref(), Some("shop"));
        assert_eq!(found[0].spec.as_ref().unwrap().stages[0].duration.to_string(), "5m");
        let list = format!(
            "{{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": [{}]}}",
            serde_json::to_string(&serde_norway::from_str::<Value>(ONE).unwrap()).unwrap()
        );
        assert_eq!(parse("x.json", &list).unwrap().len(), 1);
    }

    #[test]
    fn a_spec_that_cannot_be_read_is_kept_with_the_reason() {
        let found = parse("x.yaml", &ONE.replace("weight: 100%", "wait: 100%")).unwrap();
        assert!(found[0].spec.as_ref().unwrap_err().contains("wait"), "{:?}", found[0].spec);
    }

    #[test]
    fn a_file_without_one_says_what_it_holds() {
        for (text, says) in
            [("", "nothing"), ("kind: Service\n", "Service"), ("a: 1\n", "without kind"), ("[", "no YAML")]
        {
            let error = parse("x.yaml", text).unwrap_err().to_string();
            assert!(error.starts_with("x.yaml: ") && error.contains(says), "{text:?}: {error}");
        }
        let other = ONE.replace("canaryrelease.dev", "flagger.app");
        assert!(parse("x.yaml", &other).unwrap_err().to_string().contains("no CanaryRelease"));
    }
}
