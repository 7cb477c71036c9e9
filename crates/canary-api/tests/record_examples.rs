//! The records in docs/examples are what a cluster had, and what this build reads.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use canary_api::ReleaseRecord;

fn example(name: &str) -> (ReleaseRecord, usize) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples").join(name);
    let record: ReleaseRecord = serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let size = serde_json::to_vec(&record).unwrap().len();
    (record, size)
}

#[test]
fn the_examples_are_whole_records_and_small() {
    for (name, result, rollbacks) in [("record-promoted.yaml", "SUCCESS", 0), ("record-rolled-back.yaml", "FAILED", 1)]
    {
        let (record, size) = example(name);
        let status = record.status.unwrap();
        assert!(status.frozen && !status.timeline.is_empty() && status.stages.len() == 4, "{name}");
        assert_eq!((status.result.as_str(), status.rollbacks.len()), (result, rollbacks), "{name}");
        assert!(!record.spec.summary.is_empty(), "{name}");
        assert!(size < 44 * 1024, "{name}: {size} bytes");
    }
}
