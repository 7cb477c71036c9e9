//! What changed in a release: the simple text format, and lists from several places put together. It reads texts, and
//! never a file or a repository.

pub mod commits;

use canary_api::Changes;

/// Bytes of a text at most.
pub const MOST_BYTES: usize = 256 * 1024;
/// Characters of an entry at most.
pub const MOST_CHARACTERS: usize = 2000;

/// Why a text is not in the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// The headings, as they are written, and other names for the same.
const HEADINGS: [(&str, &[&str]); 10] = [
    ("Features", &["new features"]),
    ("Fixes", &["bug fixes"]),
    ("Improvements", &[]),
    ("Performance", &["performance improvements"]),
    ("Security", &["security enhancements"]),
    ("Infrastructure", &["infrastructure changes"]),
    ("Breaking changes", &["breaking"]),
    ("Migration", &["migration steps"]),
    ("Known issues", &[]),
    ("Documentation", &["docs"]),
];

/// The list that a heading stands for.
fn list<'a>(changes: &'a mut Changes, heading: &str) -> Option<&'a mut Vec<String>> {
    let wanted = heading.to_lowercase();
    let (name, _) =
        HEADINGS.iter().find(|(name, others)| name.to_lowercase() == wanted || others.contains(&&*wanted))?;
    Some(match *name {
        "Features" => &mut changes.features,
        "Fixes" => &mut changes.fixes,
        "Improvements" => &mut changes.improvements,
        "Performance" => &mut changes.performance,
        "Security" => &mut changes.security,
        "Infrastructure" => &mut changes.infrastructure,
        "Breaking changes" => &mut changes.breaking,
        "Migration" => &mut changes.migration,
        "Known issues" => &mut changes.known_issues,
        _ => &mut changes.documentation,
    })
}

/// Reads the text format: `## <heading>` or `<heading>:` lines, below each `- <entry>` lines. An entry goes on in lines that are
/// indented. Empty lines, and a title that begins with a single `#`, are passed over; anything else is refused.
///
/// # Errors
/// The first line that is not in the format.
pub fn parse(text: &str) -> Result<Changes, ParseError> {
    let fail = |line: usize, why: String| ParseError { line, why };
    if text.len() > MOST_BYTES {
        return Err(fail(1, format!("{} bytes are too many: at most {MOST_BYTES} are read", text.len())));
    }
    let mut changes = Changes::default();
    let mut heading: Option<(String, usize)> = None;
    let mut seen: Vec<(String, usize)> = Vec::new();
    let mut open = false;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_end();
        if trimmed.is_empty() {
            open = false;
        } else if let Some(name) = headline(trimmed) {
            heading = Some((headed(name.trim(), number, &mut seen)?, number));
            open = false;
        } else if trimmed.starts_with("# ") {
            (heading, open) = (None, false);
        } else if let Some(entry) = trimmed.strip_prefix("- ").or_else(|| trimmed.strip_prefix("* ")) {
            let Some((name, _)) = &heading else {
                return Err(fail(
                    number,
                    format!("an entry before any heading; write one above it, such as ## {}", HEADINGS[0].0),
                ));
            };
            let entry = entry.trim();
            if let Some(list) = list(&mut changes, name) {
                list.push(entry.to_owned());
            }
            open = true;
            short(&mut changes, name, number)?;
        } else if open && line.starts_with([' ', '\t']) {
            let name = heading.as_ref().map_or("", |(name, _)| name);
            if let Some(last) = list(&mut changes, name).and_then(|list| list.last_mut()) {
                last.push(' ');
                last.push_str(trimmed.trim_start());
            }
            short(&mut changes, name, number)?;
        } else {
            let shown: String = trimmed.chars().take(40).collect();
            return Err(fail(
                number,
                format!(
                    "{shown:?} is neither a heading (## Features), nor an entry (- text), nor the indented rest of one"
                ),
            ));
        }
    }
    Ok(changes)
}

/// The name in a line that is a heading: `## Features`, or `features:`.
fn headline(line: &str) -> Option<&str> {
    let plain = || line.strip_suffix(':').filter(|name| name.starts_with(char::is_alphabetic));
    line.strip_prefix("## ").or_else(plain)
}

/// A heading that is known and stands for the first time.
fn headed(name: &str, number: usize, seen: &mut Vec<(String, usize)>) -> Result<String, ParseError> {
    let mut probe = Changes::default();
    let known = HEADINGS.iter().find(|(known, others)| {
        known.eq_ignore_ascii_case(name) || others.iter().any(|other| other.eq_ignore_ascii_case(name))
    });
    let Some((known, _)) = known.filter(|_| list(&mut probe, name).is_some()) else {
        let names: Vec<&str> = HEADINGS.iter().map(|(name, _)| *name).collect();
        let shown: String = name.chars().take(40).collect();
        return Err(ParseError {
            line: number,
            why: format!("{shown:?} is no heading; they are: {}", names.join(", ")),
        });
    };
    if let Some((_, first)) = seen.iter().find(|(seen, _)| seen == known) {
        return Err(ParseError {
            line: number,
            why: format!("{known} again; put these under the one of line {first}"),
        });
    }
    seen.push(((*known).to_owned(), number));
    Ok((*known).to_owned())
}

fn short(changes: &mut Changes, name: &str, number: usize) -> Result<(), ParseError> {
    let long = list(changes, name).and_then(|list| list.last()).map_or(0, |entry| entry.chars().count());
    if long > MOST_CHARACTERS {
        return Err(ParseError {
            line: number,
            why: format!("an entry of more than {MOST_CHARACTERS} characters; write two"),
        });
    }
    Ok(())
}

/// The entries of both, in order; one that is there already is not repeated.
#[must_use]
pub fn together(first: &Changes, second: &Changes) -> Changes {
    let mut all = first.clone();
    let mut more = second.clone();
    for (name, _) in HEADINGS {
        let Some(added) = list(&mut more, name).map(std::mem::take) else { continue };
        let Some(there) = list(&mut all, name) else { continue };
        for entry in added {
            if !there.contains(&entry) {
                there.push(entry);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_and_entries_are_read_and_entries_may_go_on() {
        let text = "\u{feff}# Orders 2.1\n\n## Features\n- cart: gifts\n  in any paper\n* wishes\n\n## bug fixes\n\n- none twice\n## Known Issues\n";
        let read = parse(text).unwrap();
        assert_eq!(read.features, ["cart: gifts in any paper", "wishes"]);
        assert_eq!(read.fixes, ["none twice"]);
        assert!(read.known_issues.is_empty());
        let plain = parse("features:\n- a\nknown issues:\n- b: c\n").unwrap();
        assert_eq!((plain.features, plain.known_issues), (vec!["a".to_owned()], vec!["b: c".to_owned()]));
        let all = HEADINGS.map(|(name, _)| format!("## {name}\n- {name}\n")).concat();
        let read = parse(&all.replace('\n', "\r\n")).unwrap();
        assert_eq!(
            (read.breaking, read.documentation),
            (vec!["Breaking changes".into()], vec!["Documentation".into()])
        );
        assert_eq!((read.migration.len(), read.security.len(), read.infrastructure.len()), (1, 1, 1));
    }

    #[test]
    fn what_is_not_in_the_format_is_refused_with_its_line() {
        for (text, line, says) in [
            ("- early", 1, "before any heading"),
            ("features:\n- a\nothers:\n", 3, "\"others\" is no heading"),
            ("## Features\n- a\n\n## Feature\n", 4, "\"Feature\" is no heading"),
            ("## Features\n- a\n## Fixes\n- b\n## New features\n- c", 5, "line 1"),
            ("## Features\n-\u{20}\n", 2, "neither"),
            ("## Features\ntext\n", 2, "neither a heading"),
            ("## Features\n  text\n", 2, "neither a heading"),
            ("## Features\n- a\n\n  after a gap\n", 4, "neither a heading"),
            ("### Features\n", 1, "neither"),
            ("# title\n- a\n", 2, "before any heading"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.to_string().contains(says), "{text:?}: {error}");
        }
        let long = format!("## Fixes\n- {}\n", "x".repeat(MOST_CHARACTERS + 1));
        assert_eq!(parse(&long).unwrap_err().line, 2);
        assert!(parse(&" ".repeat(MOST_BYTES + 1)).is_err());
    }

    #[test]
    fn lists_from_two_places_are_put_together_without_repeating() {
        let of = |fixes: &[&str]| Changes {
            fixes: fixes.iter().map(|fix| (*fix).to_owned()).collect(),
            ..Changes::default()
        };
        assert_eq!(together(&of(&["a", "b"]), &of(&["b", "c"])).fixes, ["a", "b", "c"]);
    }
}
