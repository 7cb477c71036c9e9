use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;

const RECORD: &str = include_str!("../../../canary-report/tests/records/rolled-back.yaml");

fn record() -> ReleaseRecord {
    records::parse("x", RECORD).unwrap().remove(0)
}

async fn came(record: &ReleaseRecord, place: &Place) -> Came {
    one(record, More::Of(None), &Allowed::default(), place).await.unwrap()
}

#[tokio::test]
async fn a_folder_is_collected_once_and_never_written_over() {
    let place = Place::of(Arc::new(InMemory::new()));
    let mut record = record();
    let first = came(&record, &place).await;
    assert!(matches!(&first, Came::Collected(digest) if digest.len() == 64), "{first:?}");
    assert_eq!(came(&record, &place).await, Came::Present);
    // What changes with every write of the object is no other content.
    record.metadata.resource_version = Some("999999".to_owned());
    record.metadata.managed_fields = Some(Vec::new());
    assert_eq!(came(&record, &place).await, Came::Present);
    record.spec.summary = "edited".to_owned();
    assert!(matches!(came(&record, &place).await, Came::Other(why) if why.contains("edited")));
    record.metadata.uid = Some("another".to_owned());
    assert!(matches!(came(&record, &place).await, Came::Other(why) if why.contains("another release")));
}

#[tokio::test]
async fn one_record_that_fails_stops_no_other() {
    let place = Place::of(Arc::new(InMemory::new()));
    let mut kept = Kept::default();
    let mut bad = record();
    bad.metadata.name = Some("../../etc".to_owned());
    let mut open = record();
    open.status.as_mut().unwrap().frozen = false;
    let what = args::Evidence { all: true, ..args::Evidence::default() };
    for record in [&bad, &open, &record()] {
        each(record, None, &what, &Allowed::default(), &place, &mut kept).await;
    }
    assert_eq!((kept.collected.len(), kept.failed.len(), kept.waiting), (1, 1, 1), "{kept:?}");
    assert_eq!(kept.exit(), Exit::Failed);
    let folder = format!("{}/{}", record().metadata.namespace.unwrap(), record().metadata.name.unwrap());
    assert_eq!(kept.collected[0].folder, folder);
    let signed = args::Evidence { all: true, signed_off: true, ..args::Evidence::default() };
    let mut unsigned = record();
    unsigned.spec.sign_off = None;
    each(&unsigned, None, &signed, &Allowed::default(), &place, &mut kept).await;
    assert_eq!(kept.waiting, 2);
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let trouble = || vec![Trouble { folder: "a/b".to_owned(), why: "x".to_owned() }];
    assert_eq!(Kept { other: trouble(), ..Kept::default() }.exit(), Exit::Refused);
    assert_eq!(Kept { other: trouble(), failed: trouble(), ..Kept::default() }.exit(), Exit::Failed);
    assert_eq!(Kept { present: 3, ..Kept::default() }.exit(), Exit::Done);
}
