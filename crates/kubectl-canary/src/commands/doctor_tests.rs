use serde_json::json;

use super::*;

#[test]
fn the_server_must_have_mutating_policies() {
    let state = |major: &str, minor: &str| server(&(major.to_owned(), minor.to_owned())).state;
    assert_eq!(state("1", "36"), State::Good);
    assert_eq!(state("1", "37+"), State::Good);
    assert_eq!(state("1", "35"), State::Bad);
    assert_eq!(state("", "x"), State::Unknown);
}

#[test]
fn every_policy_of_the_manifests_is_looked_for() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let mut installed = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        for document in serde_norway::Deserializer::from_str(&std::fs::read_to_string(path).unwrap()) {
            let object = Value::deserialize(document).unwrap();
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            if text("/kind").ends_with("AdmissionPolicy") {
                installed.insert((text("/kind"), text("/metadata/name")));
            }
        }
    }
    let all = |kind: &'static str, names: &[&str]| {
        names.iter().map(|name| (kind.to_owned(), (*name).to_owned())).collect::<BTreeSet<_>>()
    };
    let mut looked_for = all("MutatingAdmissionPolicy", &MUTATING);
    looked_for.extend(all("ValidatingAdmissionPolicy", &VALIDATING));
    assert_eq!(looked_for, installed);
}

#[test]
fn a_role_of_an_older_version_lacks_rights_and_says_which() {
    assert!(wanted().len() > 20, "{:?}", wanted());
    let rule = |(group, resource, verb): (&str, &str, &str)| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
    let mut rules: Vec<Value> = wanted().iter().map(|[group, resource, verb]| rule((group, resource, verb))).collect();
    assert_eq!(role(&json!({"rules": rules})).state, State::Good);
    rules.retain(|rule| rule["resources"][0] != "jobs");
    let old = role(&json!({"rules": rules}));
    assert!(old.state == State::Bad && old.what.contains("create jobs.batch"), "{old:?}");
    let bound =
        |namespace: &str| binding(&json!({"subjects": [{"name": OPERATOR, "namespace": namespace}]}), "ns").state;
    assert_eq!((bound("ns"), bound("other")), (State::Good, State::Bad));
}

#[test]
fn what_may_not_be_read_is_unknown_and_what_is_missing_is_bad() {
    let judge = |_: &Value| Finding::good("x", "there");
    assert_eq!(looked("x", Look::There(json!({})), "gone", "make it", judge).state, State::Good);
    let missing = looked("x", Look::Missing, "gone", "make it", judge);
    assert_eq!((missing.state, missing.mend.as_str()), (State::Bad, "make it"));
    assert!(looked("x", Look::NoKind("HTTPRoute".to_owned()), "gone", "", judge).what.contains("no HTTPRoute"));
    assert_eq!(looked("x", Look::Unknown("forbidden".to_owned()), "gone", "", judge).state, State::Unknown);
}

#[test]
fn the_operator_needs_one_replica_and_should_have_all() {
    let of =
        |there: u64| operator(&json!({"spec": {"replicas": 2}, "status": {"availableReplicas": there}}), "ns").state;
    assert_eq!((of(0), of(1), of(2)), (State::Bad, State::Doubt, State::Good));
    assert_eq!(operator(&json!({}), "ns").state, State::Bad);
}

fn parent(generation: i64, accepted: &str, resolved: &str) -> Value {
    let one = |kind: &str, status: &str| json!({"type": kind, "status": status, "observedGeneration": generation, "message": "why"});
    json!({"metadata": {"generation": 2}, "status": {"parents": [{"conditions": [one("Accepted", accepted), one("ResolvedRefs", resolved)]}]}})
}

#[test]
fn a_route_is_good_when_each_gateway_takes_its_present_generation() {
    assert_eq!(route(&parent(2, "True", "True"), "r").state, State::Good);
    assert!(route(&parent(1, "True", "True"), "r").what.contains("present generation"));
    let broken = route(&parent(2, "True", "False"), "r");
    assert!(broken.state == State::Bad && broken.what.contains("ResolvedRefs: why"), "{broken:?}");
    assert!(route(&json!({}), "r").what.contains("no gateway"));
}

#[test]
fn a_provider_must_be_in_the_operators_configuration() {
    let object = json!({"data": {"config.yaml": "providers:\n- {name: default, url: 'http://p:9090'}\n"}});
    assert!(configured(&object, "ns", "default").what.contains("http://p:9090"));
    assert_eq!(configured(&object, "ns", "other").state, State::Bad);
    assert!(configured(&json!({"data": {"config.yaml": ""}}), "ns", "default").what.contains("pods"));
    assert_eq!(configured(&json!({"data": {"config.yaml": "["}}), "ns", "default").state, State::Bad);
}

#[test]
fn the_hold_is_what_the_operator_says_of_it() {
    let of = |status: Value| {
        hold(&Release::read(
            json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"target": {"name": "a"}}, "status": status}),
        ))
    };
    assert_eq!(of(json!({"observedGeneration": 1, "hold": {"armed": true}})).state, State::Good);
    let broken = of(json!({"observedGeneration": 1, "message": "a changed template would roll out at once"}));
    assert!(
        broken.state == State::Bad && broken.what.contains("roll out at once") && broken.mend.contains("describe"),
        "{broken:?}"
    );
    assert!(of(json!({"observedGeneration": -1})).what.contains("no operator"));
    assert_eq!(of(json!({"phase": "Levitating"})).state, State::Unknown);
}

#[test]
fn each_line_that_is_not_good_says_how_to_mend_it() {
    let found = [
        Finding::good("server", "Kubernetes 1.36"),
        Finding::new("operator", State::Bad, "not there\u{1b}[2J", "apply"),
    ];
    assert_eq!(
        render(&found, Paint::NONE),
        "\
CHECK     STATE  WHAT
server    good   Kubernetes 1.36
operator  bad    not there\u{fffd}[2J
                 to mend: apply
"
    );
}
