use super::*;

const TWO: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: canaryrelease.dev/v1alpha1, kind: ReleaseRecord, metadata: {name: orders-2-abcde},
   status: {id: orders-2, release: orders, started: 2026-11-21T12:00:00Z}}
- {apiVersion: canaryrelease.dev/v1alpha1, kind: ReleaseRecord, metadata: {name: orders-10-abcde},
   status: {id: orders-10, release: orders, started: 2026-11-22T12:00:00Z}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: other}}
---
apiVersion: canaryrelease.dev/v1alpha1
kind: ReleaseRecord
metadata: {name: carts-1-fffff}
status: {id: carts-1, release: carts, started: 2026-11-23T12:00:00Z}
";

fn which(name: Option<&str>, record: Option<&str>) -> OfRecord {
    OfRecord { name: name.map(str::to_owned), record: record.map(str::to_owned), file: None }
}

fn chosen(name: Option<&str>, record: Option<&str>) -> Result<String, String> {
    let all = parse("x.yaml", TWO).unwrap();
    let found = choose(all, &which(name, record), "file x.yaml").map_err(|error| error.to_string())?;
    Ok(found.metadata.name.unwrap())
}

#[test]
fn the_newest_record_is_meant_where_none_is_named() {
    assert_eq!(chosen(Some("orders"), None), Ok("orders-10-abcde".to_owned()));
    assert_eq!(chosen(Some("orders"), Some("orders-2")), Ok("orders-2-abcde".to_owned()));
    assert_eq!(chosen(None, Some("orders-2-abcde")), Ok("orders-2-abcde".to_owned()));
    assert!(chosen(None, None).unwrap_err().contains("records of carts, orders; name one"));
    let error = chosen(Some("orders"), Some("carts-1")).unwrap_err();
    assert!(error.contains("carts-1") && error.contains("file x.yaml") && error.contains("kubectl get"), "{error}");
}

#[test]
fn a_file_without_a_record_or_with_one_of_another_version_says_so() {
    let error = parse("x.yaml", "kind: ConfigMap\n").unwrap_err().to_string();
    assert!(error.contains("x.yaml") && error.contains("no ReleaseRecord"), "{error}");
    let odd = "{apiVersion: canaryrelease.dev/v1alpha1, kind: ReleaseRecord, metadata: {name: a, namespace: b}, spec: {new: 1}}";
    let error = parse("x.yaml", odd).unwrap_err().to_string();
    assert!(error.contains("b/a") && error.contains("new") && error.contains("version of the plugin"), "{error}");
    assert!(parse("x.yaml", "[").unwrap_err().to_string().contains("no YAML"));
}

#[test]
fn a_range_of_commits_must_be_one() {
    for range in ["v1", "..v2", "v1..", "v1...v2", "--output=x..y", "a..-p"] {
        let error = git_log(range).unwrap_err();
        assert!(matches!(&error, Error::Usage(why) if why.contains("v2.0.3..v2.1.0")), "{range}: {error}");
    }
}

#[test]
fn changes_from_a_file_say_where_they_are_wrong() {
    let file = std::env::temp_dir().join(format!("kubectl-canary-changes-{}", std::process::id()));
    std::fs::write(&file, "## Features\n- a\n## Nonsense\n").unwrap();
    let error = more(Changes::default(), file.to_str(), None).unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("Nonsense"), "{error}");
    std::fs::write(&file, "## Features\n- a\n").unwrap();
    let found = Changes { features: vec!["b".to_owned()], ..Changes::default() };
    assert_eq!(more(found, file.to_str(), None).unwrap().features, ["b", "a"]);
    std::fs::remove_file(file).unwrap();
}
