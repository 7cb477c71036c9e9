//! The split on a route: what it says now, and the edits that set it, keep it and undo it. Only our
//! entry, the stable entries' weights, our label and annotations are ever touched.

use canary_api::names::{
    ANNOTATION_BREACHED, ANNOTATION_OVERRIDE, ANNOTATION_OVERRIDE_BY, ANNOTATION_SPLIT, ANNOTATION_UID,
    ANNOTATION_WEIGHTS, LABEL_RELEASE, label_value,
};
use serde_json::{Value, json};

use crate::object::{self, Patch};

/// Weights of a split sum to this.
pub const WHOLE: u32 = 1000;

/// Who is split, and by whom.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The CanaryRelease's name.
    pub release: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// The stable Service.
    pub stable: &'a str,
    /// The canary Service.
    pub canary: &'a str,
}

/// What a route says of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// No rule names the stable Service.
    Absent,
    /// Every rule that names the stable Service names it alone, and nothing of ours is left.
    Plain,
    /// A rule names the stable Service beside others that are not ours.
    Foreign(String),
    /// Every rule that names the stable Service splits it with the canary; the canary's thousandths.
    Even(u32),
    /// Some rules split otherwise than others, or not at all; the largest share of the canary.
    Uneven(u32),
}

/// The rules that name the stable Service: index of the rule and of its stable and canary entries.
fn places<'a>(route: &'a Value, pair: &Pair<'_>) -> Vec<(usize, &'a [Value], usize, Option<usize>)> {
    let rules = route.pointer("/spec/rules").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    let of_rule = |(index, rule): (usize, &'a Value)| {
        let entries = rule.get("backendRefs").and_then(Value::as_array)?.as_slice();
        let stable = entries.iter().position(|entry| is(entry, pair.stable))?;
        Some((index, entries, stable, entries.iter().position(|entry| is(entry, pair.canary))))
    };
    rules.iter().enumerate().filter_map(of_rule).collect()
}

/// Whether a backend entry names a Service of the route's own namespace.
fn is(entry: &Value, service: &str) -> bool {
    let own = |field: &str, usual: &str| entry.get(field).and_then(Value::as_str).is_none_or(|value| value == usual);
    entry.get("name").and_then(Value::as_str) == Some(service)
        && own("kind", "Service")
        && own("group", "")
        && entry.get("namespace").is_none()
}

fn weight(entries: &[Value], index: usize) -> u64 {
    entries.get(index).map_or(0, |entry| entry.get("weight").and_then(Value::as_u64).unwrap_or(1))
}

/// What the route says of the pair now.
#[must_use]
pub fn split(route: &Value, pair: &Pair<'_>) -> Split {
    let places = places(route, pair);
    if places.is_empty() {
        return Split::Absent;
    }
    let mut shares = Vec::new();
    for (index, entries, stable, canary) in &places {
        let ours = |position: usize| position == *stable || Some(position) == *canary;
        if let Some(other) = entries.iter().enumerate().find(|(position, _)| !ours(*position)) {
            return Split::Foreign(format!("rule {index} also sends traffic to {}", object::text(other.1, "/name")));
        }
        let (s, c) = (weight(entries, *stable), canary.map_or(0, |position| weight(entries, position)));
        let all = s.saturating_add(c).max(1);
        shares
            .push((canary.is_some(), u32::try_from(c.saturating_mul(u64::from(WHOLE)).div_ceil(all)).unwrap_or(WHOLE)));
    }
    let marked = object::annotation(route, ANNOTATION_SPLIT).is_some();
    let most = shares.iter().map(|(_, share)| *share).max().unwrap_or(0);
    if shares.iter().all(|(present, _)| !present) && !marked {
        Split::Plain
    } else if shares.iter().all(|(present, share)| *present && *share == most) {
        Split::Even(most)
    } else {
        Split::Uneven(most)
    }
}

/// Whether no rule gives the canary any weight.
#[must_use]
pub fn none_for_canary(route: &Value, pair: &Pair<'_>) -> bool {
    places(route, pair)
        .iter()
        .all(|(_, entries, _, canary)| canary.is_none_or(|position| weight(entries, position) == 0))
}

/// The edit that gives the canary so many thousandths in every rule that names the stable Service, or
/// `None` where it has them.
#[must_use]
pub fn set(route: &Value, pair: &Pair<'_>, canary_share: u32) -> Option<Value> {
    set_marked(route, pair, canary_share, None)
}

/// As [`set`], with a breach that is remembered on the route.
#[must_use]
pub fn set_marked(route: &Value, pair: &Pair<'_>, canary_share: u32, breached: Option<&str>) -> Option<Value> {
    // A route that another CanaryRelease split is left alone.
    if object::annotation(route, ANNOTATION_UID).is_some_and(|uid| uid != pair.uid) {
        return None;
    }
    let canary_share = canary_share.min(WHOLE);
    let stable_share = WHOLE.saturating_sub(canary_share);
    let places = places(route, pair);
    let mut patch = Patch::guarded(route);
    let before: Vec<String> = places.iter().map(|(_, entries, stable, _)| written(entries, *stable)).collect();
    let mark = format!("{}/{}", pair.stable, pair.canary);
    patch.set_entries(route, "labels", &[(LABEL_RELEASE, &label_value(pair.release))]);
    patch.set_entries(route, "annotations", &[(ANNOTATION_UID, pair.uid), (ANNOTATION_SPLIT, &mark)]);
    if object::annotation(route, ANNOTATION_WEIGHTS).is_none() {
        patch.set_entries(route, "annotations", &[(ANNOTATION_WEIGHTS, &before.join(","))]);
    }
    if let Some(breached) = breached {
        patch.set_entries(route, "annotations", &[(ANNOTATION_BREACHED, breached)]);
    }
    for (rule, entries, stable, canary) in places {
        let base = format!("/spec/rules/{rule}/backendRefs");
        // Others came into the rule meanwhile: their shares are not ours to change. Ours may go to zero.
        if entries.len() > usize::from(canary.is_some()).saturating_add(1) {
            if let Some(position) = canary.filter(|position| canary_share == 0 && weight(entries, *position) != 0) {
                patch.test(&format!("{base}/{position}/name"), pair.canary);
                patch.set(&format!("{base}/{position}/weight"), 0);
            }
            continue;
        }
        let mut guarded = false;
        let mut guard = |patch: &mut Patch| {
            if !std::mem::replace(&mut guarded, true) {
                patch.test(&format!("{base}/{stable}/name"), pair.stable);
            }
        };
        if weight(entries, stable) != u64::from(stable_share) {
            guard(&mut patch);
            patch.set(&format!("{base}/{stable}/weight"), stable_share);
        }
        match canary {
            Some(position) if weight(entries, position) != u64::from(canary_share) => {
                guard(&mut patch);
                patch.test(&format!("{base}/{position}/name"), pair.canary);
                patch.set(&format!("{base}/{position}/weight"), canary_share);
            }
            Some(_) => {}
            None => {
                guard(&mut patch);
                let mut entry = entries.get(stable).cloned().unwrap_or_else(|| json!({}));
                if let Some(fields) = entry.as_object_mut() {
                    fields.insert("name".to_owned(), json!(pair.canary));
                    fields.insert("weight".to_owned(), json!(canary_share));
                }
                patch.set(&format!("{base}/-"), entry);
            }
        }
    }
    (!patch.is_empty()).then(|| patch.into_value())
}

/// How the entry's weight was written: a number, or `-` where it was not.
fn written(entries: &[Value], index: usize) -> String {
    entries.get(index).and_then(|entry| entry.get("weight")).map_or_else(|| "-".to_owned(), Value::to_string)
}

/// The edit that takes our entry, label and annotations away and writes the stable weights as they
/// were, or `None` where nothing of ours is left. Edits that others made meanwhile stay.
#[must_use]
pub fn undo(route: &Value, pair: &Pair<'_>) -> Option<Value> {
    // Only what carries our uid is ours to undo.
    if object::annotation(route, ANNOTATION_UID) != Some(pair.uid) {
        return None;
    }
    let mut patch = Patch::guarded(route);
    let recorded = object::annotation(route, ANNOTATION_WEIGHTS).unwrap_or_default();
    let recorded: Vec<&str> = recorded.split(',').collect();
    let places = places(route, pair);
    let known = recorded.len() == places.len();
    for (nth, (rule, entries, stable, canary)) in places.into_iter().enumerate() {
        let base = format!("/spec/rules/{rule}/backendRefs");
        let before = recorded.get(nth).copied().filter(|_| known).unwrap_or("1");
        if written(entries, stable) != before {
            patch.test(&format!("{base}/{stable}/name"), pair.stable);
            match before.parse::<u32>() {
                Ok(weight) => patch.set(&format!("{base}/{stable}/weight"), weight),
                Err(_) => patch.remove(&format!("{base}/{stable}/weight")),
            };
        }
        if let Some(position) = canary {
            patch.test(&format!("{base}/{position}/name"), pair.canary);
            patch.remove(&format!("{base}/{position}"));
        }
    }
    patch.remove_entries(route, "labels", &[LABEL_RELEASE]);
    patch.remove_entries(
        route,
        "annotations",
        &[
            ANNOTATION_SPLIT,
            ANNOTATION_WEIGHTS,
            ANNOTATION_UID,
            ANNOTATION_BREACHED,
            ANNOTATION_OVERRIDE,
            ANNOTATION_OVERRIDE_BY,
        ],
    );
    Some(patch.into_value())
}

/// Whether every gateway the route names has taken its present form over, as far as its status tells.
/// It proves nothing about the data plane.
///
/// # Errors
/// Says which gateway has not.
pub fn accepted(route: &Value) -> Result<(), String> {
    let generation = object::integer(route, "/metadata/generation", 0);
    let mut parents = object::items(route, "/status/parents").peekable();
    if parents.peek().is_none() {
        return Err(format!("no gateway has taken route {} over", object::name(route)));
    }
    for parent in parents {
        for kind in ["Accepted", "ResolvedRefs"] {
            let condition =
                object::items(parent, "/conditions").find(|condition| object::text(condition, "/type") == kind);
            let gateway = object::text(parent, "/parentRef/name");
            let Some(condition) = condition else {
                return Err(format!("gateway {gateway} has not said {kind} of route {}", object::name(route)));
            };
            if object::integer(condition, "/observedGeneration", 0) < generation {
                return Err(format!(
                    "gateway {gateway} has not looked at the present form of route {}",
                    object::name(route)
                ));
            }
            if object::text(condition, "/status") != "True" {
                return Err(format!(
                    "gateway {gateway} says {kind}={} of route {}: {}",
                    object::text(condition, "/status"),
                    object::name(route),
                    object::text(condition, "/message")
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Pair<'_> = Pair { release: "web", uid: "u1", stable: "web", canary: "web-canary" };

    fn plain() -> Value {
        json!({
            "metadata": {"name": "web", "uid": "r", "resourceVersion": "1", "generation": 1, "labels": {"team": "shop"}},
            "spec": {"rules": [
                {"matches": [{"path": {"value": "/a"}}], "backendRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1, "filters": [{"type": "X"}]}]},
                {"backendRefs": [{"name": "other", "port": 80}]},
                {"backendRefs": [{"name": "web", "port": 81}], "timeouts": {"request": "5s"}},
            ]},
        })
    }

    /// What the API server does with our patches; `test` and `-` included.
    fn apply(object: &Value, patch: &Value) -> Value {
        let mut object = object.clone();
        for operation in patch.as_array().unwrap() {
            let path = operation["path"].as_str().unwrap();
            let (parent, key) = path.rsplit_once('/').unwrap();
            let key = key.replace("~1", "/").replace("~0", "~");
            let op = operation["op"].as_str().unwrap();
            if op == "test" {
                assert_eq!(object.pointer(path), Some(&operation["value"]), "{path}");
                continue;
            }
            match object.pointer_mut(parent).unwrap() {
                Value::Object(fields) if op == "remove" => assert!(fields.remove(&key).is_some(), "{path}"),
                Value::Object(fields) => drop(fields.insert(key, operation["value"].clone())),
                Value::Array(list) if op == "remove" => drop(list.remove(key.parse().unwrap())),
                Value::Array(list) if key == "-" => list.push(operation["value"].clone()),
                other => panic!("{path}: {other}"),
            }
        }
        object
    }

    #[test]
    fn a_split_is_set_in_each_rule_that_names_stable_and_undone_to_the_byte() {
        let route = plain();
        assert_eq!(split(&route, &PAIR), Split::Plain);
        let edited = apply(&route, &set(&route, &PAIR, 50).unwrap());
        assert_eq!(split(&edited, &PAIR), Split::Even(50));
        let entry = &edited["spec"]["rules"][0]["backendRefs"][1];
        assert_eq!(
            entry,
            &json!({"group": "", "kind": "Service", "name": "web-canary", "port": 80, "weight": 50, "filters": [{"type": "X"}]})
        );
        assert_eq!(edited["spec"]["rules"][1], route["spec"]["rules"][1]);
        assert_eq!(set(&edited, &PAIR, 50), None);
        let further = apply(&edited, &set(&edited, &PAIR, 1000).unwrap());
        assert_eq!(split(&further, &PAIR), Split::Even(1000));
        let undone = apply(&further, &undo(&further, &PAIR).unwrap());
        let mut expected = route;
        expected["metadata"]["annotations"] = json!({});
        assert_eq!(undone, expected);
        assert_eq!(undo(&undone, &PAIR), None);
    }

    #[test]
    fn a_route_reset_by_a_tool_is_seen_and_split_again() {
        let route = plain();
        let mut edited = apply(&route, &set(&route, &PAIR, 250).unwrap());
        edited["spec"] = route["spec"].clone();
        assert_eq!(split(&edited, &PAIR), Split::Uneven(0));
        let again = apply(&edited, &set(&edited, &PAIR, 250).unwrap());
        assert_eq!(split(&again, &PAIR), Split::Even(250));
    }

    #[test]
    fn other_backends_in_a_rule_are_refused_by_name() {
        let mut route = plain();
        route["spec"]["rules"][0]["backendRefs"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "legacy", "port": 80, "weight": 3}));
        assert!(matches!(split(&route, &PAIR), Split::Foreign(why) if why.contains("legacy")));
        assert_eq!(split(&json!({"spec": {"rules": []}}), &PAIR), Split::Absent);
    }

    #[test]
    fn undo_keeps_rules_that_came_meanwhile() {
        let route = plain();
        let mut edited = apply(&route, &set(&route, &PAIR, 250).unwrap());
        let rule = json!({"backendRefs": [{"name": "web", "port": 82, "weight": 750}, {"name": "web-canary", "port": 82, "weight": 250}]});
        edited["spec"]["rules"].as_array_mut().unwrap().push(rule);
        let undone = apply(&edited, &undo(&edited, &PAIR).unwrap());
        assert_eq!(split(&undone, &PAIR), Split::Plain);
        assert_eq!(undone["spec"]["rules"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn acceptance_speaks_of_the_present_generation() {
        let mut route = plain();
        assert!(accepted(&route).is_err());
        let condition = |kind: &str, status: &str, generation: i64| json!({"type": kind, "status": status, "observedGeneration": generation});
        route["status"] = json!({"parents": [{"parentRef": {"name": "gw"}, "conditions": [condition("Accepted", "True", 1), condition("ResolvedRefs", "True", 1)]}]});
        assert_eq!(accepted(&route), Ok(()));
        route["metadata"]["generation"] = json!(2);
        assert!(accepted(&route).unwrap_err().contains("present form"));
        route["status"]["parents"][0]["conditions"] =
            json!([condition("Accepted", "True", 2), condition("ResolvedRefs", "False", 2)]);
        assert!(accepted(&route).unwrap_err().contains("ResolvedRefs=False"));
    }
}
