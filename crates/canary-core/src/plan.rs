//! What a spec asks for, checked: the API server's rules stated once more, and what CEL can't say.
//! It never looks at live objects.

use canary_api::{CanaryReleaseSpec, Gate, Percent, Scope, To};
use canary_counters::{LabelNames, Selector, check_query};

/// Everything that is wrong with a spec in this namespace, each with the field it is in. `names_pods` is whether the
/// provider wants every query to name the candidate's pods.
#[must_use]
pub fn faults(spec: &CanaryReleaseSpec, namespace: &str, names_pods: bool) -> Vec<String> {
    let mut faults = Vec::new();
    stages(spec, &mut faults);
    counter("spec.traffic.requests.counter", &spec.traffic.requests.counter, &mut faults);
    if spec.gates.is_empty() {
        faults.push("spec.gates: at least one gate is needed, or nothing would judge the candidate".to_owned());
    }
    if !spec.gates.is_empty() && !spec.gates.iter().any(|gate| crate::gates::applies(gate, 1.0)) {
        faults.push("spec.gates: at 100% there is no stable side to compare with, so at least one gate must not be relative to Stable".to_owned());
    }
    let compares = |gate: &Gate| gate.relative.as_ref().is_some_and(|rule| rule.to == To::Stable);
    if spec.baseline.pods && !spec.gates.iter().any(compares) {
        faults.push(
            "spec.baseline.pods: a gate relative to Stable is needed: nothing else is compared with them".to_owned(),
        );
    }
    for gate in &spec.gates {
        let field = |name: &str| format!("spec.gates[{}].{name}", gate.name);
        if let Some(rule) = &gate.error_rate {
            counter(&field("errorRate.bad"), &rule.bad, &mut faults);
            counter(&field("errorRate.total"), &rule.total, &mut faults);
        }
        if let Some(rule) = &gate.latency {
            counter(&field("latency.histogram"), &rule.histogram, &mut faults);
            if let Some(failed) = &rule.failed {
                counter(&field("latency.failed"), failed, &mut faults);
            }
        }
        if let Some(rule) = &gate.event_rate {
            counter(&field("eventRate.counter"), &rule.counter, &mut faults);
        }
        if let Some(rule) = &gate.relative {
            counter(&field("relative.counter"), &rule.counter, &mut faults);
        }
        if let Some(rule) = &gate.value
            && let Err(error) =
                check_query(&rule.query, namespace, &LabelNames::default(), names_pods && rule.scope == Scope::Canary)
        {
            faults.push(format!("{}: {error}", field("value.query")));
        }
        by_pod(spec, gate, &field, &mut faults);
        let kinds = [
            gate.error_rate.is_some(),
            gate.latency.is_some(),
            gate.event_rate.is_some(),
            gate.relative.is_some(),
            gate.value.is_some(),
        ];
        if kinds.into_iter().filter(|kind| *kind).count() != 1 {
            faults.push(format!(
                "spec.gates[{}]: a gate has exactly one of errorRate, latency, eventRate, relative, value",
                gate.name
            ));
        }
    }
    faults
}

/// What only the pods' own counters have.
fn by_pod(spec: &CanaryReleaseSpec, gate: &Gate, field: &dyn Fn(&str) -> String, faults: &mut Vec<String>) {
    if gate.value.is_some() && !gate.by.is_pod() {
        faults.push(format!("{}: a value gate has no by: its query names the pods", field("by")));
    }
    let Some(warm_up) = gate.warm_up else { return };
    let per_request = gate.event_rate.is_some() || gate.relative.is_some();
    let refused = [
        (gate.value.is_some(), "a value gate looks at the newest sample only"),
        (!gate.by.is_pod(), "a warm-up is the pods': it needs counters by Pod"),
        (
            per_request && !spec.traffic.requests.by.is_pod(),
            "it begins with a pod's first request: traffic.requests must be by Pod",
        ),
    ];
    let refused = refused.into_iter().filter(|(refused, _)| *refused && !warm_up.std().is_zero());
    faults.extend(refused.map(|(_, why)| format!("{}: {why}", field("warmUp"))));
}

fn stages(spec: &CanaryReleaseSpec, faults: &mut Vec<String>) {
    let mut last = Percent::ZERO;
    for stage in &spec.stages {
        if stage.weight <= last {
            faults.push(format!("spec.stages: weight {} does not rise above {last}", stage.weight));
        }
        if stage.weight.permille() == 0 || stage.weight != Percent::from_permille(stage.weight.permille()) {
            faults.push(format!("spec.stages: weight {} is not a multiple of 0.1%", stage.weight));
        }
        last = stage.weight;
    }
    if last != Percent::HUNDRED {
        faults.push("spec.stages: the last stage must have weight 100%".to_owned());
    }
}

fn counter(field: &str, text: &str, faults: &mut Vec<String>) {
    if let Err(error) = Selector::parse(text) {
        faults.push(format!("{field}: {error}"));
    }
}

/// Pods that carry so many thousandths of the traffic, of a service of `whole` pods: at least one.
#[must_use]
pub fn pods_for(permille: u32, whole: i64) -> i64 {
    i64::from(permille).saturating_mul(whole.max(0)).saturating_add(999).checked_div(1000).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults of a spec with this gate, and requests counted in this way.
    fn faults_of(gate: serde_json::Value, requests: &str) -> Vec<String> {
        let spec = serde_json::json!({
            "target": {"name": "web"}, "stages": [{"weight": "100%", "duration": "1m"}], "gates": [gate],
            "traffic": {
                "service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}],
                "requests": {"counter": "r", "by": requests},
            },
        });
        faults(&serde_json::from_value(spec).unwrap(), "shop", true)
    }

    #[test]
    fn a_warm_up_needs_the_pods_own_counters() {
        let errors = serde_json::json!({"bad": "b", "total": "t", "limit": "1%"});
        let events = serde_json::json!({"counter": "b", "limit": "1/min"});
        let value = serde_json::json!({"query": "max(x{pod=~\"$pods\"})", "max": 1.0});
        let gate = |kind: &str, rule: &serde_json::Value, by: &str, warm_up: &str| serde_json::json!({"name": "g", kind: rule, "by": by, "warmUp": warm_up});
        for (gate, requests, word) in [
            (gate("errorRate", &errors, "Pod", "30s"), "Service", None),
            (gate("errorRate", &errors, "Service", "30s"), "Pod", Some("by Pod")),
            (gate("errorRate", &errors, "Service", "0s"), "Service", None),
            (gate("eventRate", &events, "Pod", "30s"), "Pod", None),
            (gate("eventRate", &events, "Pod", "30s"), "Service", Some("traffic.requests")),
            (gate("value", &value, "Pod", "30s"), "Pod", Some("newest sample")),
            (gate("value", &value, "Service", "0s"), "Pod", Some("spec.gates[g].by")),
        ] {
            let said = faults_of(gate.clone(), requests);
            assert_eq!(said.len(), usize::from(word.is_some()), "{gate} {said:?}");
            assert!(said.iter().all(|said| said.contains(word.unwrap_or_default())), "{gate} {said:?}");
        }
    }

    #[test]
    fn a_query_of_the_whole_namespace_asks_for_no_other() {
        let total =
            |query: &str| serde_json::json!({"name": "g", "value": {"query": query, "scope": "Total", "max": 1.0}});
        assert_eq!(faults_of(total("sum(x)"), "Pod"), Vec::<String>::new());
        let said = faults_of(total("sum(x{namespace=\"theirs\"})"), "Pod").join("; ");
        assert!(
            said.starts_with("spec.gates[g].value.query: ") && said.contains("its own namespace \"shop\""),
            "{said}"
        );
    }

    #[test]
    fn a_canary_has_the_pods_its_weight_needs() {
        assert_eq!(pods_for(10, 10), 1);
        assert_eq!(pods_for(250, 10), 3);
        assert_eq!(pods_for(1000, 10), 10);
        assert_eq!(pods_for(1, 0), 1);
        assert_eq!(pods_for(1000, i64::MAX), i64::MAX / 1000);
    }
}
