//! The manifests and the code speak of the same names. Needs no cluster.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use canary_api::names;

fn deploy(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name);
    fs::read_to_string(path).unwrap()
}

#[test]
fn policies_know_the_operator_by_the_name_it_is_installed_with() {
    for file in [
        "20-policy-deployment.yaml",
        "21-policy-command.yaml",
        "22-policy-route.yaml",
        "23-policy-writer.yaml",
        "25-policy-job.yaml",
    ] {
        let text = deploy(file);
        let exempt = text.matches("request.userInfo.username != '").count();
        let operator = text.matches(&format!("request.userInfo.username != '{}'", names::OPERATOR_USER)).count();
        assert!(exempt > 0, "{file} exempts nobody");
        assert_eq!(exempt, operator, "{file}");
    }
    assert!(
        deploy("24-policy-record.yaml").contains(&format!("request.userInfo.username == '{}'", names::OPERATOR_USER))
    );
    let account = deploy("10-rbac.yaml");
    assert!(account.contains("name: canaryrelease-operator\n  namespace: canaryrelease-system"));
}

#[test]
fn policies_use_the_names_that_the_code_uses() {
    let deployment = deploy("20-policy-deployment.yaml");
    for name in [
        names::LABEL_RELEASE,
        names::ANNOTATION_ROLLING,
        names::ANNOTATION_CHANGED_BY,
        names::ANNOTATION_OVERRIDE,
        names::ANNOTATION_OVERRIDE_BY,
        names::ANNOTATION_RESTARTED_AT,
    ] {
        assert!(deployment.contains(&format!("'{name}'")), "{name}");
    }
    let command = deploy("21-policy-command.yaml");
    for name in [names::ANNOTATION_COMMAND, names::ANNOTATION_COMMAND_BY] {
        assert!(command.contains(&format!("'{name}'")), "{name}");
    }
    let route = deploy("22-policy-route.yaml");
    for name in [names::LABEL_RELEASE, names::ANNOTATION_SPLIT, names::ANNOTATION_OVERRIDE] {
        assert!(route.contains(&format!("'{name}'")), "{name}");
    }
    assert!(deploy("25-policy-job.yaml").contains(&format!("'{}'", names::ANNOTATION_UID)));
}

#[test]
fn every_annotation_of_ours_is_under_the_prefix_that_the_policies_keep() {
    for name in [names::ANNOTATION_UID, names::ANNOTATION_WEIGHTS, names::ANNOTATION_SPLIT, names::ANNOTATION_ROLLING] {
        assert!(name.starts_with("canaryrelease.dev/"), "{name}");
    }
}

#[test]
fn kustomization_names_every_manifest() {
    let list = deploy("Kustomization");
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".yaml") {
            assert!(list.contains(&format!("- {name}\n")), "{name}");
        }
    }
}
