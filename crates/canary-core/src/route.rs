//! The split on a route: what it says now, and the edits that set it, keep it and undo it. Only our entries (the
//! canary's, and the baseline pods' where they have weight), the stable entries' weights, our label and annotations are
//! ever touched.

use canary_api::names::{
    ANNOTATION_BREACHED, ANNOTATION_OVERRIDE, ANNOTATION_OVERRIDE_BY, ANNOTATION_SPLIT, ANNOTATION_UID,
    ANNOTATION_WEIGHTS, LABEL_RELEASE, baseline, label_value,
};
use serde_json::{Value, json};

use crate::object::{self, Patch};

/// Weights of a split sum to this.
pub const WHOLE: u32 = 1000;

/// The largest weight that a route may have.
const MOST: u32 = 1_000_000;

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
    /// Whether the release has baseline pods, so that an entry of their Service is ours. Else it is only where the
    /// route's mark names it.
    pub beside: bool,
}

/// Shares of a split in thousandths; stable has the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// The canary's.
    pub canary: u32,
    /// The baseline pods'.
    pub baseline: u32,
}

impl From<u32> for Shares {
    fn from(canary: u32) -> Self {
        Self { canary, baseline: 0 }
    }
}

impl Shares {
    /// The same, not more than the whole.
    fn bounded(self) -> Self {
        let canary = self.canary.min(WHOLE);
        Self { canary, baseline: self.baseline.min(WHOLE.saturating_sub(canary)) }
    }

    fn stable(self) -> u32 {
        WHOLE.saturating_sub(self.canary).saturating_sub(self.baseline)
    }
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
    /// Every rule that names the stable Service splits it with the canary, and the baseline pods have no weight; the
    /// canary's thousandths.
    Even(u32),
    /// Every rule that names the stable Service splits it with the canary and the baseline pods.
    Beside(Shares),
    /// Some rules split otherwise than others, or not at all; the largest share of the canary.
    Uneven(u32),
}

/// A rule that names the stable Service, and where its entries stand.
struct Place<'a> {
    /// Index of the rule.
    rule: usize,
    entries: &'a [Value],
    stable: usize,
    canary: Option<usize>,
    baseline: Option<usize>,
}

impl Place<'_> {
    fn weight(&self, index: usize) -> u64 {
        self.entries.get(index).map_or(0, |entry| entry.get("weight").and_then(Value::as_u64).unwrap_or(1))
    }

    /// The weight of an entry that may not be there.
    fn weight_of(&self, index: Option<usize>) -> u64 {
        index.map_or(0, |index| self.weight(index))
    }

    /// An entry that is not ours.
    fn foreign(&self) -> Option<&Value> {
        let ours = [Some(self.stable), self.canary, self.baseline];
        self.entries.iter().enumerate().find(|(index, _)| !ours.contains(&Some(*index))).map(|(_, entry)| entry)
    }

    /// The rule's shares in thousandths, rounded up.
    fn shares(&self) -> Shares {
        let (canary, baseline) = (self.weight_of(self.canary), self.weight_of(self.baseline));
        let all = self.weight(self.stable).saturating_add(canary).saturating_add(baseline).max(1);
        let part = |own: u64| u32::try_from(own.saturating_mul(u64::from(WHOLE)).div_ceil(all)).unwrap_or(WHOLE);
        Shares { canary: part(canary), baseline: part(baseline) }
    }

    fn path(&self, index: usize) -> String {
        format!("/spec/rules/{}/backendRefs/{index}", self.rule)
    }
}

/// The mark of a route whose rules have an entry of the baseline pods.
fn mark(pair: &Pair<'_>, beside: bool) -> String {
    let two = format!("{}/{}", pair.stable, pair.canary);
    if beside { format!("{two}/{}", baseline(pair.stable)) } else { two }
}

/// The rules that name the stable Service.
fn places<'a>(route: &'a Value, pair: &Pair<'_>) -> Vec<Place<'a>> {
    let rules = route.pointer("/spec/rules").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    let beside = pair.beside || object::annotation(route, ANNOTATION_SPLIT) == Some(&mark(pair, true));
    let third = Some(baseline(pair.stable)).filter(|_| beside);
    let of_rule = |(rule, value): (usize, &'a Value)| {
        let entries = value.get("backendRefs").and_then(Value::as_array)?.as_slice();
        let stable = entries.iter().position(|entry| is(entry, pair.stable))?;
        let canary = entries.iter().position(|entry| is(entry, pair.canary));
        let baseline = third.as_deref().and_then(|third| entries.iter().position(|entry| is(entry, third)));
        Some(Place { rule, entries, stable, canary, baseline })
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

/// What the route says of the pair now.
#[must_use]
pub fn split(route: &Value, pair: &Pair<'_>) -> Split {
    let places = places(route, pair);
    if places.is_empty() {
        return Split::Absent;
    }
    if let Some((place, other)) = places.iter().find_map(|place| Some((place, place.foreign()?))) {
        return Split::Foreign(format!("rule {} also sends traffic to {}", place.rule, object::text(other, "/name")));
    }
    let marked = object::annotation(route, ANNOTATION_SPLIT).is_some();
    if places.iter().all(|place| place.canary.is_none() && place.baseline.is_none()) && !marked {
        return Split::Plain;
    }
    let shares: Vec<Shares> = places.iter().map(Place::shares).collect();
    let most = shares.iter().map(|shares| shares.canary).max().unwrap_or(0);
    let first = shares.first().copied().unwrap_or(Shares::from(0));
    if places.iter().any(|place| place.canary.is_none()) || shares.iter().any(|shares| *shares != first) {
        Split::Uneven(most)
    } else if first.baseline > 0 {
        Split::Beside(first)
    } else {
        Split::Even(most)
    }
}

/// Whether no rule gives our pods any weight, the canary's or those beside it.
#[must_use]
pub fn none_for_ours(route: &Value, pair: &Pair<'_>) -> bool {
    places(route, pair).iter().all(|place| place.weight_of(place.canary) == 0 && place.weight_of(place.baseline) == 0)
}

/// The least share that a rule gives the canary, in thousandths; 0 where no rule names it.
#[must_use]
pub fn least(route: &Value, pair: &Pair<'_>) -> u32 {
    places(route, pair).iter().map(|place| place.shares().canary).min().unwrap_or(0)
}

/// The edit that gives the canary, and the baseline pods, so many thousandths in every rule that names the stable
/// Service, or `None` where they have them.
#[must_use]
pub fn set(route: &Value, pair: &Pair<'_>, shares: impl Into<Shares>) -> Option<Value> {
    set_marked(route, pair, shares, None)
}

/// As [`set`], with a breach that is remembered on the route.
#[must_use]
pub fn set_marked(route: &Value, pair: &Pair<'_>, shares: impl Into<Shares>, breached: Option<&str>) -> Option<Value> {
    // A route that another CanaryRelease split is left alone.
    if object::annotation(route, ANNOTATION_UID).is_some_and(|uid| uid != pair.uid) {
        return None;
    }
    let shares = shares.into().bounded();
    let places = places(route, pair);
    let mut patch = Patch::guarded(route);
    let before: Vec<String> = places.iter().map(|place| written(place.entries, place.stable)).collect();
    // An entry stays, without weight, until the split is undone: a gateway may end the requests of one that goes.
    let beside = shares.baseline > 0 || places.iter().any(|place| place.baseline.is_some());
    patch.set_entries(route, "labels", &[(LABEL_RELEASE, &label_value(pair.release))]);
    let marks = [(ANNOTATION_UID, pair.uid), (ANNOTATION_SPLIT, &mark(pair, beside))];
    patch.set_entries(route, "annotations", &marks);
    if object::annotation(route, ANNOTATION_WEIGHTS).is_none() {
        patch.set_entries(route, "annotations", &[(ANNOTATION_WEIGHTS, &before.join(","))]);
    }
    if let Some(breached) = breached {
        patch.set_entries(route, "annotations", &[(ANNOTATION_BREACHED, breached)]);
    }
    for place in &places {
        // Others came into the rule meanwhile: their shares are not ours to change. Ours may go to zero.
        if place.foreign().is_some() {
            take_away(&mut patch, place, pair, shares);
        } else {
            share_out(&mut patch, place, pair, shares);
        }
    }
    (!patch.is_empty()).then(|| patch.into_value())
}

/// Our entries of a rule, with what they are to have.
fn wanted(place: &Place<'_>, pair: &Pair<'_>, shares: Shares) -> [(Option<usize>, String, u32); 2] {
    [(place.canary, pair.canary.to_owned(), shares.canary), (place.baseline, baseline(pair.stable), shares.baseline)]
}

/// Takes the weight of those of our entries that are to have none, and changes nothing else.
fn take_away(patch: &mut Patch, place: &Place<'_>, pair: &Pair<'_>, shares: Shares) {
    for (position, name, share) in wanted(place, pair, shares) {
        if let Some(position) = position.filter(|position| share == 0 && place.weight(*position) != 0) {
            patch.test(&format!("{}/name", place.path(position)), name);
            patch.set(&format!("{}/weight", place.path(position)), 0);
        }
    }
}

/// Gives the entries of a rule their weights; an entry that is missing is a copy of stable's.
fn share_out(patch: &mut Patch, place: &Place<'_>, pair: &Pair<'_>, shares: Shares) {
    let mut guarded = false;
    let mut guard = |patch: &mut Patch| {
        if !std::mem::replace(&mut guarded, true) {
            patch.test(&format!("{}/name", place.path(place.stable)), pair.stable);
        }
    };
    if place.weight(place.stable) != u64::from(shares.stable()) {
        guard(patch);
        patch.set(&format!("{}/weight", place.path(place.stable)), shares.stable());
    }
    for (position, name, share) in wanted(place, pair, shares) {
        match position {
            Some(position) if place.weight(position) != u64::from(share) => {
                guard(patch);
                patch.test(&format!("{}/name", place.path(position)), name);
                patch.set(&format!("{}/weight", place.path(position)), share);
            }
            Some(_) => {}
            // Baseline pods have an entry only once they have weight.
            None if share == 0 && name != pair.canary => {}
            None => {
                guard(patch);
                let mut entry = place.entries.get(place.stable).cloned().unwrap_or_else(|| json!({}));
                if let Some(fields) = entry.as_object_mut() {
                    fields.insert("name".to_owned(), json!(name));
                    fields.insert("weight".to_owned(), json!(share));
                }
                patch.set(&format!("/spec/rules/{}/backendRefs/-", place.rule), entry);
            }
        }
    }
}

/// How the entry's weight was written: a number, or `-` where it was not.
fn written(entries: &[Value], index: usize) -> String {
    entries.get(index).and_then(|entry| entry.get("weight")).map_or_else(|| "-".to_owned(), Value::to_string)
}

/// The edit that takes our entries, label and annotations away and writes the stable weights as they
/// were, or `None` where nothing of ours is left. Edits that others made meanwhile stay. Of a route that no
/// CanaryRelease has, an override goes that was left there.
#[must_use]
pub fn undo(route: &Value, pair: &Pair<'_>) -> Option<Value> {
    // Only what carries our uid is ours to undo.
    match object::annotation(route, ANNOTATION_UID) {
        Some(uid) if uid == pair.uid => {}
        Some(_) => return None,
        None => return without_override(route),
    }
    let mut patch = Patch::guarded(route);
    let recorded = object::annotation(route, ANNOTATION_WEIGHTS).unwrap_or_default();
    let recorded: Vec<&str> = recorded.split(',').collect();
    let places = places(route, pair);
    let known = recorded.len() == places.len();
    for (nth, place) in places.iter().enumerate() {
        let before = recorded.get(nth).copied().filter(|_| known).unwrap_or("1");
        let stable = place.path(place.stable);
        if written(place.entries, place.stable) != before {
            patch.test(&format!("{stable}/name"), pair.stable);
            match before.parse::<u32>().ok().filter(|weight| *weight <= MOST) {
                Some(weight) => patch.set(&format!("{stable}/weight"), weight),
                None => patch.remove(&format!("{stable}/weight")),
            };
        }
        let mut ours: Vec<(usize, String)> = wanted(place, pair, Shares::from(0))
            .into_iter()
            .filter_map(|(position, name, _)| Some((position?, name)))
            .collect();
        // The last first: what is taken away moves what comes after it.
        ours.sort_by(|a, b| b.cmp(a));
        for (position, name) in ours {
            patch.test(&format!("{}/name", place.path(position)), name);
            patch.remove(&place.path(position));
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

fn without_override(route: &Value) -> Option<Value> {
    object::annotation(route, ANNOTATION_OVERRIDE)?;
    let mut patch = Patch::guarded(route);
    patch.remove_entries(route, "annotations", &[ANNOTATION_OVERRIDE, ANNOTATION_OVERRIDE_BY]);
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

    const PAIR: Pair<'_> = Pair { release: "web", uid: "u1", stable: "web", canary: "web-canary", beside: false };
    const WITH_BASELINE: Pair<'_> = Pair { beside: true, ..PAIR };

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
    fn the_least_share_is_the_lowest_of_all_rules() {
        let edited = apply(&plain(), &set(&plain(), &PAIR, 50).unwrap());
        assert_eq!((least(&plain(), &PAIR), least(&edited, &PAIR)), (0, 50));
        let mut uneven = edited;
        let refs = &mut uneven["spec"]["rules"][2]["backendRefs"];
        (refs[0]["weight"], refs[1]["weight"]) = (json!(700), json!(300));
        assert_eq!(least(&uneven, &PAIR), 50);
        uneven["spec"]["rules"][0]["backendRefs"][0]["weight"] = json!(550);
        uneven["spec"]["rules"][0]["backendRefs"][1]["weight"] = json!(450);
        assert_eq!(least(&uneven, &PAIR), 300);
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

    fn thirds(canary: u32, baseline: u32) -> Shares {
        Shares { canary, baseline }
    }

    fn weights_of(route: &Value, rule: usize) -> Vec<(String, u64)> {
        object::items(&route["spec"]["rules"][rule], "/backendRefs")
            .map(|entry| (object::text(entry, "/name").to_owned(), entry["weight"].as_u64().unwrap_or(1)))
            .collect()
    }

    #[test]
    fn three_weights_are_set_in_one_edit_and_undone_to_the_byte() {
        let route = plain();
        let three = apply(&route, &set(&route, &WITH_BASELINE, thirds(200, 200)).unwrap());
        for rule in [0, 2] {
            let expected = [("web", 600), ("web-canary", 200), ("web-baseline", 200)];
            let expected: Vec<_> = expected.into_iter().map(|(name, weight)| (name.to_owned(), weight)).collect();
            assert_eq!(weights_of(&three, rule), expected);
        }
        assert_eq!(three["metadata"]["annotations"][ANNOTATION_SPLIT], "web/web-canary/web-baseline");
        assert_eq!(split(&three, &WITH_BASELINE), Split::Beside(thirds(200, 200)));
        assert_eq!(set(&three, &WITH_BASELINE, thirds(200, 200)), None);
        // One write takes the traffic from both; the entry stays for the requests under way.
        let back = apply(&three, &set(&three, &WITH_BASELINE, 0).unwrap());
        assert_eq!((split(&back, &WITH_BASELINE), none_for_ours(&back, &WITH_BASELINE)), (Split::Even(0), true));
        assert_eq!(weights_of(&back, 0).iter().map(|(_, weight)| *weight).collect::<Vec<_>>(), [1000, 0, 0]);
        for last in [three, back] {
            // At rest the mark alone says whose the third entry is.
            let undone = apply(&last, &undo(&last, &PAIR).unwrap());
            let mut expected = route.clone();
            expected["metadata"]["annotations"] = json!({});
            assert_eq!(undone, expected);
        }
    }

    #[test]
    fn baseline_pods_that_leave_give_their_share_to_stable_in_one_edit() {
        let three = apply(&plain(), &set(&plain(), &WITH_BASELINE, thirds(50, 50)).unwrap());
        let two = apply(&three, &set(&three, &WITH_BASELINE, 50).unwrap());
        assert_eq!(split(&two, &WITH_BASELINE), Split::Even(50));
        assert_eq!(weights_of(&two, 2).iter().map(|(_, weight)| *weight).collect::<Vec<_>>(), [950, 50, 0]);
        let mut uneven = three;
        uneven["spec"]["rules"][2]["backendRefs"][2]["weight"] = json!(0);
        assert_eq!(split(&uneven, &WITH_BASELINE), Split::Uneven(53));
    }

    #[test]
    fn an_entry_that_bears_the_baselines_name_without_the_mark_is_anothers() {
        let mut route = apply(&plain(), &set(&plain(), &PAIR, 50).unwrap());
        let entry = json!({"name": "web-baseline", "port": 80, "weight": 7});
        route["spec"]["rules"][0]["backendRefs"].as_array_mut().unwrap().push(entry);
        assert!(matches!(split(&route, &PAIR), Split::Foreign(why) if why.contains("web-baseline")));
        let undone = apply(&route, &undo(&route, &PAIR).unwrap());
        assert!(weights_of(&undone, 0).contains(&("web-baseline".to_owned(), 7)));
        route["metadata"]["annotations"][ANNOTATION_SPLIT] = json!("web/web-canary/web-baseline");
        assert_eq!(split(&route, &PAIR), Split::Uneven(50));
    }

    #[test]
    fn others_in_a_rule_keep_their_shares_while_ours_go_to_zero() {
        let mut route = apply(&plain(), &set(&plain(), &WITH_BASELINE, thirds(100, 100)).unwrap());
        let other = json!({"name": "legacy", "port": 80, "weight": 500});
        route["spec"]["rules"][0]["backendRefs"].as_array_mut().unwrap().push(other);
        let back = apply(&route, &set(&route, &WITH_BASELINE, 0).unwrap());
        assert_eq!(weights_of(&back, 0).iter().map(|(_, weight)| *weight).collect::<Vec<_>>(), [800, 0, 0, 500]);
        assert!(none_for_ours(&back, &WITH_BASELINE));
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
