//! The rules that keep people's texts small: read off the schema, so that no field of a spec is left out. What they count
//! is what a text takes as JSON. They say nothing of a status, nor of labels and annotations.

use schemars::Schema;
use serde_json::{Map, Value, json};

/// The most that all texts and entries of a record's spec come to, as [`rules`] counts them.
pub const MOST: usize = 12_000;

/// Signs that take two bytes as JSON, and six: the API server writes the latter as `\u003c`.
const TWICE: &str = r#"["\\\n\r\t]"#;
const SIX: &str = r"[<>&\x{2028}\x{2029}]";
/// Control characters, but for line breaks and tabs.
const CONTROL: &str = r"[^\P{Cc}\n\r\t]";

/// Adds the rules to the schema of a record's spec.
pub(crate) fn rules(schema: &mut Schema) {
    let mut found = Found::default();
    read(schema.as_object(), "self", &mut found);
    let weight = format!("[{}].sum() <= {MOST}", found.weights.join(", "));
    let rules = json!([
        {
            "rule": weight,
            "message": format!("the texts of a record come to at most {MOST} bytes, with what JSON needs for each entry: \
                put long lists of changes into a ConfigMap, see changes.configMap"),
        },
        {
            "rule": found.controls.join(" && "),
            "message": "a text holds a control character that is neither a line break nor a tab",
        },
    ]);
    schema.insert("x-kubernetes-validations".to_owned(), rules);
}

/// What an object's fields come to: numbers to be summed up, and conditions that all hold.
#[derive(Default)]
struct Found {
    weights: Vec<String>,
    controls: Vec<String>,
}

fn read(schema: Option<&Map<String, Value>>, of: &str, found: &mut Found) {
    let fields = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    for (name, field) in fields.into_iter().flatten() {
        let path = format!("{of}.{name}");
        let field = present(field);
        let mut own = Found::default();
        match kind(field) {
            "string" if field.get("enum").is_none() => text(&path, &mut own),
            "object" => read(field.as_object(), &path, &mut own),
            "array" => list(field, &path, &mut own),
            _ => {}
        }
        // What has a default is there.
        if field.get("default").is_some() || fields.and_then(|all| all.get(name)?.get("default")).is_some() {
            found.weights.append(&mut own.weights);
            found.controls.append(&mut own.controls);
        } else if !own.weights.is_empty() {
            found.weights.push(format!("has({path}) ? [{}].sum() : 0", own.weights.join(", ")));
            found.controls.push(format!("(!has({path}) || {})", own.controls.join(" && ")));
        }
    }
}

/// The schema of what is there, of a field that may be null.
fn present(field: &Value) -> &Value {
    let null = |one: &&Value| one.get("type").is_some_and(|kind| kind == "null");
    let choices = field.get("anyOf").and_then(Value::as_array);
    choices.and_then(|all| all.iter().find(|one| !null(one))).unwrap_or(field)
}

fn kind(field: &Value) -> &str {
    match field.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or(""),
        _ => "",
    }
}

fn text(path: &str, found: &mut Found) {
    found
        .weights
        .push(format!("size(bytes({path})) + size({path}.findAll(r'{TWICE}')) + 5 * size({path}.findAll(r'{SIX}'))"));
    found.controls.push(format!("!{path}.matches(r'{CONTROL}')"));
}

fn list(field: &Value, path: &str, found: &mut Found) {
    let Some(items) = field.get("items") else { return };
    // Lists within lists have a variable of their own.
    let name = if path.starts_with("self.") { "o" } else { "t" };
    let mut of_one = Found::default();
    if kind(items) == "string" {
        text(name, &mut of_one);
    } else {
        read(items.as_object(), name, &mut of_one);
    }
    of_one.weights.push(frame(items).to_string());
    found.weights.push(format!("{path}.map({name}, [{}].sum()).sum()", of_one.weights.join(", ")));
    found.controls.push(format!("{path}.all({name}, {})", of_one.controls.join(" && ")));
}

/// Bytes of an entry beside its texts: brackets, names of fields, the longest words and a comma.
fn frame(items: &Value) -> usize {
    let fields = items.get("properties").and_then(Value::as_object);
    let own = |(name, field): (&String, &Value)| {
        let word = |word: &Value| word.as_str().map_or(0, str::len);
        let words = present(field).get("enum").and_then(Value::as_array);
        let longest = words.into_iter().flatten().map(word).max().unwrap_or(5);
        name.len().saturating_add(longest).saturating_add(6)
    };
    fields.into_iter().flatten().map(own).fold(3, usize::saturating_add)
}

/// What the rules count of a spec, at most: as the API server does, in bytes.
#[must_use]
pub fn weight(spec: &crate::ReleaseRecordSpec) -> usize {
    let schema = schemars::generate::SchemaSettings::openapi3()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<crate::ReleaseRecordSpec>();
    serde_json::to_value(spec).map_or(usize::MAX, |value| weigh(schema.as_value(), &value))
}

fn weigh(schema: &Value, value: &Value) -> usize {
    let schema = present(schema);
    match value {
        Value::String(text) if schema.get("enum").is_none() => taken(text),
        Value::Array(entries) => {
            let Some(items) = schema.get("items") else { return 0 };
            let one = |entry| weigh(items, entry).saturating_add(frame(items));
            entries.iter().map(one).fold(0, usize::saturating_add)
        }
        Value::Object(fields) => {
            let own = |(name, field): (&String, &Value)| {
                schema.get("properties").and_then(|all| all.get(name)).map_or(0, |schema| weigh(schema, field))
            };
            fields.iter().map(own).fold(0, usize::saturating_add)
        }
        _ => 0,
    }
}

fn taken(text: &str) -> usize {
    let more = |sign: char| match sign {
        '"' | '\\' | '\n' | '\r' | '\t' => 1_usize,
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => 5,
        _ => 0,
    };
    text.len().saturating_add(text.chars().map(more).fold(0, usize::saturating_add))
}
