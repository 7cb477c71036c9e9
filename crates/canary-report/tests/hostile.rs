//! Whatever people write into a record, or have written into it through a cluster, stays text: as Markdown, as HTML and
//! on a terminal. Each page made of odd strings must have the very structure of the page made of plain words.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use canary_api::{Changes, ReleaseRecord};
use canary_report::harmless::{harmful, line};
use canary_report::{Style, evidence, notes, report};
use pulldown_cmark::{CowStr, Event, Options, Parser};
use serde_json::Value;

const HOSTILE: [&str; 22] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "x](javascript:alert(1)) [x](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "<https://evil.example> <a@evil.example>",
    "javascript:alert(1)",
    "\u{1b}[31mred\u{1b}[0m\u{9b}2J\u{7}\u{1b}]0;x\u{7}",
    "\u{202e}txt.exe\u{2066}\u{200f}\u{e0041}",
    "one\n\n# heading\n\n- item\n\n1. one\n\n```\ncode\n```\n\n<div>\n",
    "\r\n\r\n---\r\n\r\n***\r\n===",
    "\t\tindented\n    code",
    "a | b | c\n|---|---|",
    "`code` ``` ~~~ ````",
    "{{ 7*7 }} {% raw %} {# x #}",
    "&lt;script&gt; &#60;b&#62; &copy;",
    "***bold*** __x__ _y_ ~~z~~ ~q~ $$a$$ $b$ ^[note] [^1] ^sup^",
    "</style><style>body{display:none}</style><!--",
    "--><svg/onload=alert(1)> ]]> <![CDATA[ <?php ?>",
    "# heading {#id}\\",
    "- [ ] task",
    "> quote\n>> deeper",
];

/// Words that the type of a field prescribes, and moments.
const KEPT: [&str; 14] = [
    "type",
    "likelihood",
    "impact",
    "restored",
    "apiVersion",
    "kind",
    "at",
    "started",
    "ended",
    "clearAt",
    "replicaSet",
    "restoredAt",
    "progress",
    "standing",
];

fn both() -> Vec<Value> {
    let read = |name: &str| -> Value {
        let file = format!("{}/tests/records/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        serde_norway::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    };
    let (mut promoted, rolled_back) = (read("promoted"), read("rolled-back"));
    promoted["spec"]["rollback"] = serde_json::json!({
        "rootCause": "a", "fix": "b", "restored": "Both", "lsnBefore": "c", "lsnAfter": "d",
    });
    promoted["spec"]["lessons"]["surprises"] = serde_json::json!(["e"]);
    promoted["spec"]["changes"]["breaking"] = serde_json::json!(["f"]);
    promoted["spec"]["changes"]["improvements"] = serde_json::json!(["g"]);
    promoted["spec"]["version"] = "h".into();
    promoted["status"]["jobs"] = rolled_back["status"]["jobs"].clone();
    promoted["status"]["rollbacks"] = rolled_back["status"]["rollbacks"].clone();
    vec![promoted, rolled_back]
}

/// Puts a text into every string that is free.
fn fill(value: &mut Value, key: &str, text: &str) {
    match value {
        Value::String(old) => {
            let prescribed = ["InProgress", "Stable", "Done"].contains(&old.as_str());
            if !KEPT.contains(&key) && !prescribed {
                text.clone_into(old);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| fill(value, key, text)),
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| fill(value, key, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn filled(plain: &Value, text: &str) -> ReleaseRecord {
    let mut record = plain.clone();
    fill(&mut record["spec"], "", text);
    fill(&mut record["status"], "", text);
    fill(&mut record["metadata"], "labels", text);
    // What is written of moments are numbers; which gate they are of, and in which unit, are words.
    let moments = |series: &mut Value, from: &Value| {
        for part in ["whole", "around"] {
            if let Some(points) = from.get(part) {
                series[part] = points.clone();
            }
        }
    };
    let (filled, kept) = (record["status"]["series"].as_array_mut(), plain["status"]["series"].as_array());
    filled.into_iter().flatten().zip(kept.into_iter().flatten()).for_each(|(series, from)| moments(series, from));
    // Two rollbacks of one id are both this release's own.
    record["status"]["id"] = text.into();
    serde_json::from_value(record).unwrap()
}

/// What a Markdown page is made of, but for its words.
fn structure(markdown: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for event in Parser::new_ext(markdown, Options::all()) {
        let part = match event {
            Event::Text(_) | Event::SoftBreak => "text".to_owned(),
            Event::Code(_) => "code".to_owned(),
            Event::Html(html) | Event::InlineHtml(html) => panic!("HTML: {html:?}"),
            Event::Start(tag) => format!("{:?}", tag.into_owned_kind()),
            other => format!("{other:?}"),
        };
        if part != "text" || found.last().is_none_or(|last| last != "text") {
            found.push(part);
        }
    }
    found
}

trait Kind {
    fn into_owned_kind(self) -> Self;
}

impl Kind for pulldown_cmark::Tag<'_> {
    /// An identifier of a heading follows from its words; a link's address does not.
    fn into_owned_kind(self) -> Self {
        match self {
            Self::Heading { level, .. } => {
                Self::Heading { level, id: None, classes: Vec::<CowStr<'_>>::new(), attrs: Vec::new() }
            }
            other => other,
        }
    }
}

#[test]
fn odd_strings_in_every_field_leave_the_notes_as_they_are() {
    for record in both() {
        for style in [Style::Canary, Style::Guide] {
            let plain = structure(&notes(&filled(&record, "word"), &Changes::default(), &style).unwrap());
            for text in HOSTILE {
                let page = notes(&filled(&record, text), &Changes::default(), &style).unwrap();
                assert!(!page.chars().any(|sign| harmful(sign) && sign != '\n'), "{text:?}: {page}");
                let odd = structure(&page);
                let differs = plain.iter().zip(&odd).position(|(a, b)| a != b);
                assert!(
                    odd == plain,
                    "{text:?} {style:?}: {:?} is {:?}\n{page}",
                    differs.map(|at| &plain[at.saturating_sub(3)..(at + 2).min(plain.len())]),
                    differs.map(|at| &odd[at.saturating_sub(3)..(at + 2).min(odd.len())]),
                );
            }
        }
    }
}

/// The tags of a page, with the names of their attributes.
fn tags(page: &str) -> Vec<String> {
    page.split('<')
        .skip(1)
        .map(|rest| {
            let tag = rest.split('>').next().unwrap_or_default();
            // What stands in quotes is a value.
            tag.split('"').step_by(2).collect::<Vec<_>>().join("\"")
        })
        .collect()
}

#[test]
fn odd_strings_in_every_field_leave_the_report_as_it_is() {
    for record in both() {
        let plain = tags(&report(&filled(&record, "word"), &Changes::default()).unwrap());
        for text in HOSTILE {
            let page = report(&filled(&record, text), &Changes::default()).unwrap();
            assert!(!page.chars().any(|sign| harmful(sign) && sign != '\n'), "{text:?}");
            let odd = tags(&page);
            let differs = plain.iter().zip(&odd).find(|(a, b)| a != b);
            assert!(odd == plain, "{text:?}: {differs:?}");
        }
    }
}

#[test]
fn addresses_that_are_links_lead_nowhere_else() {
    let mut record = both().remove(0);
    let odd = "https://a.example/x\"onclick=\"alert(1))[y](javascript:alert(1)";
    record["spec"]["links"] =
        serde_json::json!([{"name": "a](x) <b>", "to": odd}, {"name": "", "to": "HTTPS://b.example"}]);
    let record: ReleaseRecord = serde_json::from_value(record).unwrap();
    let page = report(&record, &Changes::default()).unwrap();
    assert!(
        page.contains("href=\"https://a.example/x%22onclick=%22alert%281%29%29%5By%5D%28javascript:alert%281%29\""),
        "{page}"
    );
    let text = notes(&record, &Changes::default(), &Style::Canary).unwrap();
    let linked: Vec<String> = Parser::new_ext(&text, Options::all())
        .filter_map(|event| match event {
            Event::Start(pulldown_cmark::Tag::Link { dest_url, .. }) => Some(dest_url.into_string()),
            _ => None,
        })
        .collect();
    assert!(linked.contains(&"HTTPS://b.example".to_owned()), "{linked:?}");
    assert!(linked.iter().all(|to| to.to_lowercase().starts_with("http") || to.starts_with("mailto:")), "{linked:?}");
}

#[test]
fn odd_strings_add_no_line_and_no_path_to_the_evidence() {
    for record in both() {
        let plain = evidence::files(&filled(&record, "word"));
        for text in HOSTILE {
            let mut record = filled(&record, text);
            // A log has lines of its own; see below.
            for job in record.status.iter_mut().flat_map(|status| &mut status.jobs) {
                job.log = line(&job.log);
            }
            let odd = evidence::files(&record);
            assert_eq!(odd.len(), plain.len(), "{text:?}");
            for (odd, plain) in odd.iter().zip(&plain) {
                let fits = |sign: char| sign.is_ascii_alphanumeric() || "._-".contains(sign);
                assert!(
                    odd.name.chars().all(fits) && !odd.name.starts_with('.') && odd.name.len() < 120,
                    "{}",
                    odd.name
                );
                let (Ok(odd), Ok(plain)) = (&odd.text, &plain.text) else {
                    assert_eq!(odd.text.is_ok(), plain.text.is_ok());
                    continue;
                };
                assert!(!odd.chars().any(|sign| harmful(sign) && sign != '\n'), "{text:?}: {odd}");
                assert_eq!(odd.lines().count(), plain.lines().count(), "{text:?}: {odd}");
            }
            let manifest = evidence::manifest(&record, &odd);
            assert!(!manifest.chars().any(|sign| harmful(sign) && sign != '\n'));
        }
    }
}

#[test]
fn whatever_a_job_prints_is_set_off_in_its_file_and_in_the_incident() {
    for record in both() {
        for text in HOSTILE {
            let forged = format!("Job x, before the start\n\nResult           succeeded\n{text}");
            let record = filled(&record, &forged);
            let files = evidence::files(&record);
            for file in files.iter().filter(|file| file.name.starts_with("job_")) {
                let told = file.text.as_ref().unwrap();
                assert!(!told.chars().any(|sign| harmful(sign) && sign != '\n'), "{text:?}: {told}");
                assert!(!told.lines().any(|line| line.starts_with("Result           succeeded")), "{text:?}: {told}");
            }
            let incident = files.iter().find(|file| file.name.starts_with("incident_")).unwrap();
            structure(incident.text.as_ref().unwrap());
        }
    }
}

#[test]
fn the_sums_of_a_folder_show_what_was_changed() {
    let files: [(&str, &[u8]); 2] = [("b.txt", b"two"), ("a.txt", b"one")];
    let sums = evidence::sums(files);
    assert!(sums.ends_with("  b.txt\n") && sums.lines().count() == 2);
    assert_eq!(evidence::differences(&sums, files), Ok(Vec::new()));
    let changed: [(&str, &[u8]); 2] = [("b.txt", b"2"), ("c.txt", b"three")];
    let said = evidence::differences(&sums, changed).unwrap();
    assert_eq!(said, ["a.txt is missing", "b.txt was changed", "c.txt is not listed"]);
    for list in ["", "x  a.txt\n", &sums.replace("a.txt", "../a"), &format!("{sums}{sums}"), &sums.replace("  ", " ")] {
        assert!(evidence::differences(list, files).is_err(), "{list}");
    }
}
