//! What a spec asks for, checked: the API server's rules stated once more, and what CEL can't say.
//! It never looks at live objects.

use canary_api::{CanaryReleaseSpec, Percent, Scope};
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
            && let names_pods = names_pods
            && rule.scope == Scope::Canary
            && let Err(error) = check_query(&rule.query, namespace, &LabelNames::default(), names_pods)
        {
            faults.push(format!("{}: {error}", field("value.query")));
        }
        if gate.value.is_some() && gate.warm_up.is_some() {
            faults.push(format!("{}: a value gate looks at the newest sample only", field("warmUp")));
        }
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

    #[test]
    fn a_canary_has_the_pods_its_weight_needs() {
        assert_eq!(pods_for(10, 10), 1);
        assert_eq!(pods_for(250, 10), 3);
        assert_eq!(pods_for(1000, 10), 10);
        assert_eq!(pods_for(1, 0), 1);
        assert_eq!(pods_for(1000, i64::MAX), i64::MAX / 1000);
    }
}
