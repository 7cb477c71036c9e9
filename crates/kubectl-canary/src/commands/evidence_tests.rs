use super::*;

const RECORD: &str = include_str!("../../../canary-report/tests/records/rolled-back.yaml");

fn folder(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("kubectl-canary-{name}-{}", std::process::id()))
}

#[test]
fn the_folder_has_the_files_of_the_template_and_their_digests() {
    let record = records::parse("x", RECORD).unwrap().remove(0);
    let (files, missing) = files(&record, &Changes::default(), &[], Timestamp::UNIX_EPOCH).unwrap();
    let folder = folder("evidence");
    let digest = write(&folder, &files).unwrap();
    let mut names: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "MANIFEST.txt",
            "SHA256SUMS",
            "blind_spots_scan_v2.1.2.txt",
            "canary_plan_v2.1.2.txt",
            "db_health_stage_5.txt",
            "db_restore_20261122T092302Z.txt",
            "incident_20261122T081000Z.md",
            "incident_20261122T092302Z.md",
            "job_smoke_stage_5.txt",
            "metrics_after_rollback_20261122T092302Z.txt",
            "metrics_before_rollback_20261122T092302Z.txt",
            "pitr_lsn_after.txt",
            "record.yaml",
            "release_notes_v2.1.2.md",
            "release_tag.txt",
            "report.html",
            "rollback_20261122T081000Z.txt",
            "rollback_20261122T092302Z.txt",
            "rollout_stage_25.txt",
            "rollout_stage_5.txt",
        ]
    );
    let list = fs::read_to_string(folder.join(SUMS)).unwrap();
    assert_eq!((digest, list.lines().count()), (sha256(list.as_bytes()), names.len() - 1));
    let manifest = fs::read_to_string(folder.join(MANIFEST)).unwrap();
    for name in ["rollout_stage_100.txt", "sbom_v2.1.2.json", "go_nogo_signed_v2.1.2.txt", "db_health_stage_25.txt"] {
        assert!(missing.iter().any(|one| one.name == name), "{name}");
        assert!(manifest.lines().any(|line| line.contains(name) && line.contains(": ")), "{name}: {manifest}");
    }
    assert!(matches!(free(&folder), Err(Error::Usage(why)) if why.contains("not empty")));
    let again = records::read(folder.join("record.yaml").to_str().unwrap()).unwrap();
    assert_eq!(again, [record]);
    fs::remove_dir_all(&folder).unwrap();
    assert!(free(&folder).is_ok());
}
