//! Notes of two releases, in both of the house's templates, and in one of one's own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use canary_api::{Changes, ReleaseRecord};
use canary_report::{Error, Style, notes};

fn record(name: &str) -> ReleaseRecord {
    let file = format!("{}/tests/records/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_norway::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn own(record: &ReleaseRecord, text: &str) -> Result<String, Error> {
    let style = Style::Own { name: "own.md".to_owned(), text: text.to_owned() };
    notes(record, &Changes::default(), &style)
}

#[test]
fn notes_of_a_promoted_release_by_the_canary_template() {
    insta::assert_snapshot!(notes(&record("promoted"), &Changes::default(), &Style::Canary).unwrap());
}

#[test]
fn notes_of_a_promoted_release_by_the_guide() {
    let more = Changes { fixes: vec!["from git (c0)".to_owned()], ..Changes::default() };
    insta::assert_snapshot!(notes(&record("promoted"), &more, &Style::Guide).unwrap());
}

#[test]
fn notes_of_a_release_that_was_rolled_back_by_the_canary_template() {
    insta::assert_snapshot!(notes(&record("rolled-back"), &Changes::default(), &Style::Canary).unwrap());
}

#[test]
fn notes_of_a_release_that_was_rolled_back_by_the_guide() {
    insta::assert_snapshot!(notes(&record("rolled-back"), &Changes::default(), &Style::Guide).unwrap());
}

#[test]
fn of_an_empty_record_nothing_is_invented() {
    let empty = ReleaseRecord::default();
    for style in [Style::Canary, Style::Guide] {
        let text = notes(&empty, &Changes::default(), &style).unwrap();
        assert!(text.contains("unknown") && text.contains("the release is not over"), "{text}");
        for claim in ["SUCCESS", "PASS", "STABLE", "✅", "0/0"] {
            assert!(!text.contains(claim), "{claim} in {text}");
        }
    }
}

#[test]
fn root_cause_and_fix_are_asked_for_until_they_are_given() {
    let mut record = record("rolled-back");
    let asked = "`spec.rollback.rootCause` of ReleaseRecord orders-5-1a2b3 in namespace shop";
    for style in [Style::Canary, Style::Guide] {
        assert!(notes(&record, &Changes::default(), &style).unwrap().contains(asked));
    }
    record.spec.rollback.root_cause = "A query without an index".to_owned();
    record.spec.rollback.fix = "The index".to_owned();
    for style in [Style::Canary, Style::Guide] {
        let text = notes(&record, &Changes::default(), &style).unwrap();
        assert!(!text.contains("rootCause") && !text.contains("rollback.fix"), "{text}");
        assert!(text.contains("**Root cause:** A query without an index\n"), "{text}");
    }
}

#[test]
fn the_incident_is_asked_for_until_it_is_given() {
    let mut record = record("rolled-back");
    let fields = ["severity", "impact", "decision", "notified", "retrospective", "actions"];
    let incident = |record: &ReleaseRecord| {
        let files = canary_report::evidence::files(record).into_iter();
        files.filter(|file| file.name.starts_with("incident_")).map(|file| file.text.unwrap()).next_back().unwrap()
    };
    let pages = |record: &ReleaseRecord| {
        let report = canary_report::report(record, &Changes::default()).unwrap();
        [notes(record, &Changes::default(), &Style::Guide).unwrap(), incident(record), report]
    };
    for page in pages(&record) {
        assert!(fields.iter().all(|field| page.contains(&format!("spec.incident.{field}"))), "{page}");
    }
    record.spec.incident = serde_json::from_value(serde_json::json!({
        "severity": "P1", "impact": "Checkout failed for one in four", "decision": "Rollback: the cause was unclear",
        "notified": ["Support at 09.25"], "retrospective": {"date": "2026-11-24"},
        "actions": [{"text": "Add the index", "owner": "Jane", "due": "2026-12-01"}],
        "timeline": [{"at": "2026-11-22 09:23:03", "text": "On call was paged"}, {"at": "later", "text": "Calm"}],
    }))
    .unwrap();
    for page in pages(&record) {
        assert!(!page.contains("spec.incident"), "{page}");
        for said in ["P1", "one in four", "the cause was unclear", "Support at 09.25", "2026-11-24", "owner: Jane"] {
            assert!(page.contains(said), "{said} in {page}");
        }
        let place = |text: &str| page.rfind(text).unwrap();
        assert!(place("On call was paged") < place("serving template again"), "{page}");
        assert!(place("serving template again") < place("Calm"), "{page}");
    }
    assert!(incident(&record).contains("- **2026-11-22 09:23:03 UTC** Written by people: On call was paged"));
}

#[test]
fn a_template_of_ones_own_has_the_same_facts_and_the_same_care() {
    let mut record = record("promoted");
    record.spec.summary = "*bold* <b>x</b>".to_owned();
    let text = own(
        &record,
        "{{ version }} {{ summary }} {{ summary | upper }} {{ summary ~ '!' }} {{ [summary] | join(', ') }}\n\
         {% autoescape false %}{{ summary }}{% endautoescape %}\n\
         {% set kept %}{{ summary }}{% endset %}{{ kept }} {{ lessons.surprises | length }} {{ next_release }}\n",
    );
    let text = text.unwrap();
    assert!(text.starts_with("v2.1.0 \\*bold\\* &lt;b&gt;x&lt;/b&gt; \\*BOLD\\* "), "{text}");
    assert!(!text.contains("<b") && !text.contains("<B"), "{text}");
}

#[test]
fn a_template_that_does_not_fit_is_told_with_its_line() {
    let record = record("promoted");
    for (text, line, says) in [
        ("a\n{{ verison }}", 2, "docs/notes.md"),
        ("a\n\n{% if %}", 3, ""),
        ("{{ summary | safe }}", 1, "safe"),
        ("{{ summary | e }}", 1, "filter"),
        ("{% include 'other' %}", 1, "other"),
    ] {
        match own(&record, text) {
            Err(Error::Template { name, line: at, why }) => {
                assert_eq!((name.as_str(), at), ("own.md", line), "{text}: {why}");
                assert!(why.contains(says), "{text}: {why}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_template_that_loops_or_floods_is_stopped() {
    let record = record("promoted");
    let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
    assert!(own(&record, loops).is_err());
    let calls = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
    assert!(own(&record, calls).is_err());
    let includes = "{% include 'notes' %}";
    assert!(own(&record, includes).is_err());
    let floods = format!("{{% for a in range(9999) %}}{}{{% endfor %}}", "x".repeat(9999));
    assert!(matches!(own(&record, &floods), Err(Error::TooMuch { .. })));
}
