//! Release notes in Markdown, by the house's two templates or by one of your own. A template says where things stand;
//! it can't make a text of the record into Markdown or HTML.

use std::io::Write;

use canary_api::{Changes, ReleaseRecord};
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, UndefinedBehavior};

use crate::Error;
use crate::facts::{Facts, facts};
use crate::harmless;

/// Steps that a template may take; the house's take about a hundredth.
const FUEL: u64 = 2_000_000;
/// Bytes that a template may write.
pub const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Depth of macros and the like.
const DEPTH: usize = 50;

const CANARY: &str = include_str!("../templates/canary.md");
const GUIDE: &str = include_str!("../templates/guide.md");
const INCIDENT: &str = include_str!("../templates/incident.md");
/// Pieces that the house's templates share.
const PIECES: &str = include_str!("../templates/pieces.md");

/// The template of notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Style {
    /// The one-page template of canary releases.
    Canary,
    /// The notes of the release guide.
    Guide,
    /// A template of your own.
    Own {
        /// Its name, for errors.
        name: String,
        /// Its text.
        text: String,
    },
}

/// The notes of a release. `changes` are added to those of the record.
///
/// # Errors
/// Where a template of your own can't be read, names what there is not, or takes too long. The house's never do.
pub fn notes(record: &ReleaseRecord, changes: &Changes, style: &Style) -> Result<String, Error> {
    notes_of(&facts(record, changes), style)
}

/// The notes of facts that someone has added to.
///
/// # Errors
/// As [`notes`].
pub fn notes_of(facts: &Facts, style: &Style) -> Result<String, Error> {
    match style {
        Style::Canary => rendered("canary", CANARY, facts),
        Style::Guide => rendered("guide", GUIDE, facts),
        Style::Own { name, text } => rendered(name, text, facts),
    }
}

/// The report of an incident, of the rollbacks that are left in `facts`.
pub(crate) fn incident(facts: &Facts) -> Result<String, Error> {
    rendered("incident", INCIDENT, facts)
}

fn rendered(name: &str, text: &str, facts: &Facts) -> Result<String, Error> {
    let fail = |error: minijinja::Error| wrong(name, &error);
    let mut environment = environment().map_err(fail)?;
    environment.add_template("pieces", PIECES).map_err(fail)?;
    // The house's pieces are macros: a template imports them by name.
    environment.add_template_owned("notes".to_owned(), text.to_owned()).map_err(fail)?;
    let template = environment.get_template("notes").map_err(fail)?;
    let mut out = Bounded(Vec::new());
    let context = Value::from(minijinja::value::Serde(facts));
    if let Err(error) = template.render_captured_to(context, &mut out) {
        return Err(if error.kind() == ErrorKind::WriteFailure {
            Error::TooMuch { name: name.to_owned(), most: MOST_BYTES }
        } else {
            fail(error)
        });
    }
    let text = String::from_utf8_lossy(&out.0);
    Ok(tidy(&text))
}

fn wrong(name: &str, error: &minijinja::Error) -> Error {
    let why = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too many steps; does it loop?".to_owned(),
        ErrorKind::UndefinedError => {
            format!(
                "{}; docs/notes.md lists what there is",
                error.detail().unwrap_or("it names something that there is not")
            )
        }
        kind => error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}")),
    };
    Error::Template { name: harmless::line(name), line: error.line().unwrap_or(0), why: harmless::line(&why) }
}

fn environment<'source>() -> Result<Environment<'source>, minijinja::Error> {
    let mut environment = Environment::new();
    let mut syntax = minijinja::syntax::SyntaxConfig::builder();
    environment.set_syntax(syntax.trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH);
    environment.set_auto_escape_callback(|_| AutoEscape::Custom("markdown".into()));
    environment.set_formatter(format);
    // With these a template could let text through as it is, or escape it for another language.
    for filter in ["safe", "escape", "e", "pprint"] {
        environment.remove_filter(filter);
    }
    environment.remove_global("debug");
    environment.add_filter("code", |text: &Value| filtered(text, harmless::code));
    environment.add_filter("code_block", |text: &Value, language: Option<&str>| {
        let language: String = language.unwrap_or("").chars().filter(char::is_ascii_alphanumeric).collect();
        filtered(text, |text| harmless::code_block(text, &language))
    });
    environment.add_filter("link", link);
    Ok(environment)
}

fn filtered(value: &Value, filter: impl Fn(&str) -> String) -> Value {
    match value.as_str() {
        Some(text) => Value::from_safe_string(filter(text)),
        None if value.is_none() => value.clone(),
        None => Value::from_safe_string(filter(&value.to_string())),
    }
}

/// `{{ one.to | link(one.name) }}`: a link where it leads to the web or to mail, else `name: to`.
fn link(to: &str, name: Option<&str>) -> Value {
    let name = name.map(harmless::markdown).filter(|name| !name.is_empty());
    let shown = match (harmless::address(to), name) {
        (Some(address), name) => {
            // An entity in an address would be read as the sign that it stands for.
            let address = address.replace('&', "&amp;");
            format!("[{}]({address})", name.unwrap_or_else(|| harmless::markdown(to)))
        }
        (None, Some(name)) => format!("{name}: {}", harmless::markdown(to)),
        (None, None) => harmless::markdown(to),
    };
    Value::from_safe_string(shown)
}

/// Every value is escaped, whatever a template says; `none` is unknown.
fn format(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    if value.is_undefined() {
        return Err(minijinja::Error::new(ErrorKind::UndefinedError, "it shows something that there is not"));
    }
    let written = match value.as_str() {
        Some(text) if value.is_safe() => out.write_str(text),
        Some(text) => out.write_str(&harmless::markdown(text)),
        None if value.is_none() => out.write_str("unknown"),
        None => out.write_str(&harmless::markdown(&value.to_string())),
    };
    written.map_err(minijinja::Error::from)
}

/// At most one empty line in a row, none at the beginning, one line break at the end. Blocks of code stay as they are.
fn tidy(text: &str) -> String {
    let mut out = String::new();
    let mut empty = true;
    let mut fence: Option<usize> = None;
    for row in text.lines() {
        let ticks = row.trim_start().bytes().take_while(|byte| *byte == b'`').count();
        match fence {
            Some(open) if ticks >= open && row.trim_start().len() == ticks => fence = None,
            None if ticks >= 3 => fence = Some(ticks),
            _ => {}
        }
        let blank = row.trim().is_empty();
        if !(blank && empty && fence.is_none()) {
            out.push_str(if blank { "" } else { row });
            out.push('\n');
        }
        empty = blank;
    }
    format!("{}\n", out.trim_end())
}

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > MOST_BYTES {
            return Err(std::io::Error::other("too much"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
