//! The examples of docs/examples are what the records there come to.

#![allow(clippy::unwrap_used)]

use canary_api::{Changes, ReleaseRecord};
use canary_report::{Style, notes, report};

#[test]
fn the_examples_of_the_docs_are_what_their_records_come_to() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples");
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
    for name in ["promoted", "rolled-back"] {
        let record: ReleaseRecord = serde_norway::from_str(&read(&format!("record-{name}.yaml"))).unwrap();
        let none = Changes::default();
        for (file, text) in [
            (format!("notes-{name}-canary.md"), notes(&record, &none, &Style::Canary)),
            (format!("notes-{name}-guide.md"), notes(&record, &none, &Style::Guide)),
            (format!("report-{name}.html"), report(&record, &none)),
        ] {
            let same = read(&file).trim_end() == text.unwrap().trim_end();
            assert!(same, "docs/examples/{file} is not what its record comes to; docs/notes.md says how it is made");
        }
    }
}
