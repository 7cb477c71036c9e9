//! Label and field selectors, as they stand in a query.

use std::collections::BTreeMap;

use canary_core::object;
use serde_json::Value;

use crate::resources::Resource;

/// One requirement on labels.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Equals(String, String),
    Differs(String, String),
    Exists(String),
    Missing(String),
}

/// What a list or a watch asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, String)>,
}

impl Selector {
    /// Reads the two texts of a query.
    ///
    /// # Errors
    /// What the server would say of a selector that it does not take.
    pub fn parse(labels: &str, fields: &str, resource: &Resource) -> Result<Self, String> {
        let parts = |text: &str| {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let labels = parts(labels).iter().map(|part| requirement(part)).collect();
        let mut known = vec!["metadata.name", "metadata.namespace"];
        known.extend(resource.fields);
        let mut asked = Vec::new();
        for part in parts(fields) {
            let (field, value) = part.split_once('=').ok_or_else(|| format!("invalid selector: '{part}'"))?;
            let value = value.trim_start_matches('=');
            if !known.contains(&field) {
                return Err(format!("field label not supported: {field}"));
            }
            asked.push((field.to_owned(), value.to_owned()));
        }
        Ok(Self { labels, fields: asked })
    }

    /// Whether it selects the object.
    #[must_use]
    pub fn selects(&self, value: &Value) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return true;
        }
        let labels: BTreeMap<String, String> = object::strings(value, "/metadata/labels");
        let field = |path: &str| object::text(value, &format!("/{}", path.replace('.', "/")));
        self.labels.iter().all(|requirement| match requirement {
            Requirement::Equals(key, wanted) => labels.get(key) == Some(wanted),
            Requirement::Differs(key, unwanted) => labels.get(key) != Some(unwanted),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Missing(key) => !labels.contains_key(key),
        }) && self.fields.iter().all(|(path, wanted)| field(path) == wanted)
    }
}

fn requirement(part: &str) -> Requirement {
    if let Some((key, value)) = part.split_once("!=") {
        return Requirement::Differs(key.to_owned(), value.to_owned());
    }
    if let Some((key, value)) = part.split_once('=') {
        return Requirement::Equals(key.to_owned(), value.trim_start_matches('=').to_owned());
    }
    match part.strip_prefix('!') {
        Some(key) => Requirement::Missing(key.to_owned()),
        None => Requirement::Exists(part.to_owned()),
    }
}
