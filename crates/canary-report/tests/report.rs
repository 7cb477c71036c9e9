//! Reports of two releases.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use canary_api::{Changes, ReleaseRecord};
use canary_report::report;

fn record(name: &str) -> ReleaseRecord {
    let file = format!("{}/tests/records/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_norway::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn page(record: &ReleaseRecord) -> String {
    report(record, &Changes::default()).unwrap()
}

#[test]
fn report_of_a_promoted_release() {
    insta::assert_snapshot!(page(&record("promoted")));
}

#[test]
fn report_of_a_release_that_was_rolled_back() {
    insta::assert_snapshot!(page(&record("rolled-back")));
}

#[test]
fn it_needs_nothing_else_and_runs_nothing() {
    for name in ["promoted", "rolled-back"] {
        let page = page(&record(name));
        assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"), "{}", &page[..80]);
        for part in ["<script", "<link", "<img", "<iframe", "@import", "url(", " style=\"", " onload", "javascript:"] {
            assert!(!page.contains(part), "{part}");
        }
        assert!(page.contains("default-src 'none'; style-src 'sha256-"));
    }
}

#[test]
fn each_picture_has_a_title_a_description_and_a_table() {
    let page = page(&record("rolled-back"));
    // The weight, three gates, one of these over time, and the bad answers among all.
    assert_eq!(page.matches("<svg").count(), 6);
    assert_eq!(page.matches("<desc").count(), 6);
    assert_eq!(page.matches(" over time</caption>").count(), 1);
    assert_eq!(page.matches(" through the release</caption>").count(), 3);
    assert!(page.contains("<caption id=\"steps-caption\">"));
    assert_eq!(page.matches("<table>").count(), page.matches("<caption").count());
}

#[test]
fn of_an_empty_record_nothing_is_invented() {
    let page = page(&ReleaseRecord::default());
    assert!(page.contains("Not over") && page.contains("Nothing was compared."));
    for claim in ["SUCCESS", "PASS", "STABLE", "<svg"] {
        assert!(!page.contains(claim), "{claim}");
    }
}

#[test]
fn the_policy_lets_through_the_style_that_is_there() {
    use base64::Engine as _;
    use sha2::Digest as _;
    let page = page(&record("promoted"));
    let style = page.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).unwrap();
    let digest = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(style.as_bytes()));
    assert!(page.contains(&format!("style-src 'sha256-{digest}'")));
}

#[test]
fn a_limit_at_the_canarys_share_is_drawn_as_it_applied_in_each_stage() {
    let page = page(&record("promoted"));
    for limit in [">limit 0.025/min<", ">limit 0.125/min<", ">limit 0.5/min<", ">limit 4.4/1000<", ">limit 30s<"] {
        assert!(page.contains(limit), "{limit}");
    }
}
