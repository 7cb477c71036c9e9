//! The split of a route stays, whoever applies what; everything else about the route is its owner's.

use serde_json::{Value, json};

use super::Row;
use crate::case::{Case, Check, at, expect, merge, note};
use crate::world::{ANNA, ARGO, FLUX, JOE, OPERATOR};

const KEPT: &str = "is kept as it is by CanaryRelease";

/// That rule `rule` sends `stable` to `web` and `canary` to `web-canary`, and nothing else there.
pub(super) fn split_is(route: &Value, rule: usize, stable: u32, canary: u32) -> Check {
    backends_are(route, rule, &[("web", stable), ("web-canary", canary)])
}

/// That rule `rule` sends `stable` to `web` and `each` to `web-canary` and `web-baseline`, and nothing else there.
fn thirds_are(route: &Value, rule: usize, stable: u32, each: u32) -> Check {
    backends_are(route, rule, &[("web", stable), ("web-baseline", each), ("web-canary", each)])
}

/// The backends of a rule, by name.
fn backends_are(route: &Value, rule: usize, wanted: &[(&str, u32)]) -> Check {
    let backends = at(route, &format!("/spec/rules/{rule}/backendRefs")).as_array().cloned().unwrap_or_default();
    let mut seen: Vec<(String, u64)> = backends
        .iter()
        .map(|b| (at(b, "/name").as_str().unwrap_or("").to_owned(), at(b, "/weight").as_u64().unwrap_or(u64::MAX)))
        .collect();
    seen.sort();
    let wanted: Vec<_> = wanted.iter().map(|(name, weight)| ((*name).to_owned(), u64::from(*weight))).collect();
    expect(&format!("the split of rule {rule}"), seen, wanted)
}

fn spec_kept(before: &Value, after: &Value) -> Check {
    expect("spec", at(after, "/spec"), at(before, "/spec"))?;
    expect("generation", at(after, "/metadata/generation"), at(before, "/metadata/generation"))?;
    for key in ["uid", "split", "weights-before"] {
        expect(key, note(after, key), note(before, key))?;
    }
    expect("label", at(after, "/metadata/labels"), at(before, "/metadata/labels"))
}

/// The plain route with one more rule, as Git would add it.
fn with_rule(case: &Case<'_>, rule: Value) -> Value {
    let mut route = case.plain_route();
    if let Some(rules) = route.pointer_mut("/spec/rules").and_then(Value::as_array_mut) {
        rules.insert(1, rule);
    }
    route
}

fn weight(rule: usize, backend: usize, weight: u32) -> Value {
    json!({"op": "replace", "path": format!("/spec/rules/{rule}/backendRefs/{backend}/weight"), "value": weight})
}

fn override_op() -> Value {
    json!({"op": "add", "path": "/metadata/annotations/canaryrelease.dev~1override", "value": "INC-42"})
}

#[expect(clippy::too_many_lines, reason = "one table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            promise: "a tool that syncs the plain route sees no difference",
            who: "a GitOps tool",
            what: "forced server-side apply of the plain route, again and again; kubectl diff --server-side",
            expected: "split and generation as they were, silent from the second time on, diff rc 0",
            check: |case| {
                let before = case.split_route(950, 50)?;
                let args = ["diff", "--server-side", "--force-conflicts", "--field-manager=sync", "-f", "-"];
                let diff = case.kubectl_with(FLUX, &args, Some(&case.plain_route().to_string()));
                if diff.code != 0 {
                    return Err(format!("kubectl diff before the sync: rc {}: {}{}", diff.code, diff.out, diff.err));
                }
                let answer = case.sync(FLUX, &case.plain_route()).accepted()?;
                expect("warnings", answer.err.as_str(), "")?;
                let first = answer.object()?;
                spec_kept(&before, &first)?;
                let second = case.sync(FLUX, &case.plain_route()).object()?;
                expect(
                    "resourceVersion",
                    at(&second, "/metadata/resourceVersion"),
                    at(&first, "/metadata/resourceVersion"),
                )?;
                let diff = case.kubectl_with(FLUX, &args, Some(&case.plain_route().to_string()));
                expect("rc of kubectl diff --server-side after the sync", diff.code, 0)
            },
        },
        Row {
            promise: "every way to write the plain route leaves the split",
            who: "joe, GitOps tools",
            what: "client-side apply, full replace, forced apply as v1beta1, merge patch of rules",
            expected: "split and generation as they were",
            check: |case| {
                let before = case.split_route(950, 50)?;
                spec_kept(&before, &case.apply(JOE, &case.plain_route()).object()?)?;
                let replace = ["replace", "-f", "-", "-o", "json", "--field-manager=argocd-controller"];
                let seen = case.kubectl_with(ARGO, &replace, Some(&case.plain_route().to_string())).object()?;
                expect("spec", at(&seen, "/spec"), at(&before, "/spec"))?;
                let mut older = case.plain_route();
                merge(&mut older, &json!({"apiVersion": "gateway.networking.k8s.io/v1beta1"}));
                let seen = case.sync(FLUX, &older).object()?;
                expect("spec by v1beta1", at(&seen, "/spec"), at(&before, "/spec"))?;
                let rules = json!({"spec": {"rules": at(&case.plain_route(), "/spec/rules")}});
                spec_kept(&before, &case.patch_by(JOE, "ci", "httproute", "merge", &rules, &[]).object()?)
            },
        },
        Row {
            promise: "a rule that Git adds gets the split",
            who: "a GitOps tool",
            what: "another rule with the stable Service on another port, with filters; one for another Service",
            expected: "split like the rest, port and filters copied; the other rule untouched",
            check: |case| {
                case.split_route(950, 50)?;
                let filters = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-a", "value": "b"}]}}]);
                let rule = json!({"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}],
                    "backendRefs": [{"name": "web", "port": 8080, "filters": filters}]});
                let seen = case.sync(FLUX, &with_rule(case, rule)).object()?;
                split_is(&seen, 0, 950, 50)?;
                split_is(&seen, 1, 950, 50)?;
                for backend in [0, 1] {
                    expect("port", at(&seen, &format!("/spec/rules/1/backendRefs/{backend}/port")), &json!(8080))?;
                    expect("filters", at(&seen, &format!("/spec/rules/1/backendRefs/{backend}/filters")), &filters)?;
                    expect("kind", at(&seen, &format!("/spec/rules/1/backendRefs/{backend}/kind")), &json!("Service"))?;
                }
                expect("rules", at(&seen, "/spec/rules").as_array().map(Vec::len), Some(3))?;
                expect("other rule", at(&seen, "/spec/rules/2/backendRefs/0/name"), &json!("files"))?;
                expect(
                    "other rule's backends",
                    at(&seen, "/spec/rules/2/backendRefs").as_array().map(Vec::len),
                    Some(1),
                )
            },
        },
        Row {
            promise: "what Git changes beside the split passes",
            who: "a GitOps tool",
            what: "hostname, match, a rule's own filters, the port of the stable backend",
            expected: "as written, both backends with it, split as it was",
            check: |case| {
                case.split_route(900, 100)?;
                let mut route = case.plain_route();
                merge(&mut route, &json!({"spec": {"hostnames": ["new.example"]}}));
                if let Some(rule) = route.pointer_mut("/spec/rules/0") {
                    merge(
                        rule,
                        &json!({"matches": [{"path": {"type": "Exact", "value": "/new"}}],
                        "backendRefs": [{"name": "web", "port": 8080}]}),
                    );
                }
                let seen = case.sync(FLUX, &route).object()?;
                split_is(&seen, 0, 900, 100)?;
                expect("hostnames", at(&seen, "/spec/hostnames"), &json!(["new.example"]))?;
                expect("match", at(&seen, "/spec/rules/0/matches/0/path/value"), &json!("/new"))?;
                expect("the canary's port", at(&seen, "/spec/rules/0/backendRefs/1/port"), &json!(8080))
            },
        },
        Row {
            promise: "a hand edit of the weights is put back and said",
            who: "joe",
            what: "kubectl patch, kubectl edit, kubectl replace with other weights",
            expected: "split as it was; warning: use abort",
            check: |case| {
                let before = case.split_route(950, 50)?;
                let words = |answer: &crate::kubectl::Answer| {
                    if answer.err.contains(KEPT) && answer.err.contains("command=abort") {
                        Ok(())
                    } else {
                        Err(format!("no warning: {}", answer.err))
                    }
                };
                let answer =
                    case.patch(JOE, "httproute", "json", &json!([weight(0, 1, 500), weight(0, 0, 500)])).accepted()?;
                words(&answer)?;
                spec_kept(&before, &answer.object()?)?;
                let answer = case.edit(JOE, "httproute", "s/weight: 50/weight: 0/").accepted()?;
                words(&answer)?;
                spec_kept(&before, &case.now("httproute")?)?;
                let answer = case.replace(JOE, &case.plain_route()).accepted()?;
                words(&answer)?;
                expect("spec", at(&answer.object()?, "/spec"), at(&before, "/spec"))
            },
        },
        Row {
            promise: "a backend taken out by hand is put back",
            who: "joe",
            what: "the canary's entry removed; the stable one removed, which would send all to the canary",
            expected: "both there, weights as they were",
            check: |case| {
                case.split_route(950, 50)?;
                for backend in [1, 0] {
                    let patch = json!([{"op": "remove", "path": format!("/spec/rules/0/backendRefs/{backend}")}]);
                    split_is(&case.patch(JOE, "httproute", "json", &patch).object()?, 0, 950, 50)?;
                }
                Ok(())
            },
        },
        Row {
            promise: "a split in three stays, whoever writes",
            who: "GitOps tools, joe",
            what: "the plain route by forced apply, client-side apply, full replace; each weight edited; each backend removed",
            expected: "all three there, weights as they were; generation too where nothing was removed",
            check: |case| {
                let before = case.split_in_three(600, 200)?;
                spec_kept(&before, &case.sync(FLUX, &case.plain_route()).object()?)?;
                spec_kept(&before, &case.apply(JOE, &case.plain_route()).object()?)?;
                thirds_are(&case.replace(ARGO, &case.plain_route()).object()?, 0, 600, 200)?;
                for backend in [0, 1, 2] {
                    let patch = json!([weight(0, backend, 7)]);
                    thirds_are(&case.patch(JOE, "httproute", "json", &patch).object()?, 0, 600, 200)?;
                    let patch = json!([{"op": "remove", "path": format!("/spec/rules/0/backendRefs/{backend}")}]);
                    thirds_are(&case.patch(JOE, "httproute", "json", &patch).object()?, 0, 600, 200)?;
                }
                let patch = json!([{"op": "remove", "path": "/spec/rules/0/backendRefs/2"}, {"op": "remove", "path": "/spec/rules/0/backendRefs/1"}]);
                thirds_are(&case.patch(JOE, "httproute", "json", &patch).object()?, 0, 600, 200)
            },
        },
        Row {
            promise: "a rule that Git adds gets the split in three",
            who: "a GitOps tool",
            what: "another rule with the stable Service alone; one that shares its traffic",
            expected: "split like the rest; as written",
            check: |case| {
                case.split_in_three(900, 50)?;
                let rule = json!({"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}], "backendRefs": [{"name": "web", "port": 8080}]});
                let seen = case.sync(FLUX, &with_rule(case, rule)).object()?;
                thirds_are(&seen, 0, 900, 50)?;
                thirds_are(&seen, 1, 900, 50)?;
                expect("port", at(&seen, "/spec/rules/1/backendRefs/2/port"), &json!(8080))?;
                let shared =
                    json!([{"name": "web", "port": 80, "weight": 1}, {"name": "legacy", "port": 80, "weight": 1}]);
                let seen = case.sync(FLUX, &with_rule(case, json!({"backendRefs": shared}))).object()?;
                backends_are(&seen, 1, &[("legacy", 1), ("web", 1)])
            },
        },
        Row {
            promise: "the operator moves all three weights, and takes the third away",
            who: "the operator, then a GitOps tool",
            what: "weights of the third to zero in one patch; then its entry and name out of the mark; an undo",
            expected: "as written and kept so; the split in two kept; plain again",
            check: |case| {
                case.split_in_three(600, 200)?;
                let operator =
                    |patch: &Value| case.patch_by(OPERATOR, "canaryrelease-operator", "httproute", "json", patch, &[]);
                let three = |s: u32, c: u32, b: u32| [("web", s), ("web-baseline", b), ("web-canary", c)];
                let off = json!([weight(0, 0, 800), weight(0, 2, 0)]);
                backends_are(&operator(&off).object()?, 0, &three(800, 200, 0))?;
                backends_are(&case.sync(FLUX, &case.plain_route()).object()?, 0, &three(800, 200, 0))?;
                let all = json!([weight(0, 0, 1000), weight(0, 1, 0)]);
                backends_are(&operator(&all).object()?, 0, &three(1000, 0, 0))?;
                backends_are(&case.sync(FLUX, &case.plain_route()).object()?, 0, &three(1000, 0, 0))?;
                let two = json!([{"op": "remove", "path": "/spec/rules/0/backendRefs/2"},
                    {"op": "add", "path": "/metadata/annotations/canaryrelease.dev~1split", "value": "web/web-canary"}]);
                split_is(&operator(&two).object()?, 0, 1000, 0)?;
                split_is(&case.sync(FLUX, &case.plain_route()).object()?, 0, 1000, 0)
            },
        },
        Row {
            promise: "a backend of the baseline's name that the mark does not name is its owner's",
            who: "a GitOps tool",
            what: "a rule that shares its traffic with web-baseline, while the split is in two",
            expected: "as written",
            check: |case| {
                case.split_route(950, 50)?;
                let shared = json!([{"name": "web", "port": 80, "weight": 1}, {"name": "web-baseline", "port": 80, "weight": 3}]);
                let seen = case.sync(FLUX, &with_rule(case, json!({"backendRefs": shared}))).object()?;
                split_is(&seen, 0, 950, 50)?;
                backends_are(&seen, 1, &[("web", 1), ("web-baseline", 3)])
            },
        },
        Row {
            promise: "label and annotations of a route stay in place",
            who: "joe, a GitOps tool",
            what: "label and annotations removed, altered, dropped by PUT and by null; one of ours added",
            expected: "put back, taken off",
            check: |case| {
                let before = case.split_route(950, 50)?;
                let removed = case.annotate(
                    JOE,
                    "httproute",
                    &["canaryrelease.dev/split-", "canaryrelease.dev/uid-", "canaryrelease.dev/x=y"],
                );
                spec_kept(&before, &removed.object()?)?;
                let altered = case.annotate(
                    JOE,
                    "httproute",
                    &["canaryrelease.dev/split=web/evil", "canaryrelease.dev/weights-before=[9]"],
                );
                spec_kept(&before, &altered.object()?)?;
                case.kubectl(JOE, &["label", "httproute", &case.name, "canaryrelease.dev/release-"]).accepted()?;
                spec_kept(&before, &case.now("httproute")?)?;
                spec_kept(&before, &case.replace(ARGO, &case.plain_route()).object()?)?;
                let none = json!({"metadata": {"labels": null, "annotations": null}});
                let seen = case.patch(JOE, "httproute", "merge", &none).object()?;
                spec_kept(&before, &seen)?;
                expect("x", note(&seen, "x"), None)
            },
        },
        Row {
            promise: "tools and other writes hear no warning",
            who: "GitOps tools, joe, the operator",
            what: "forced apply, client-side apply, kubectl annotate, a patch of labels, the operator's weights",
            expected: "silent",
            check: |case| {
                case.split_route(950, 50)?;
                let answers = [
                    case.sync(FLUX, &case.plain_route()),
                    case.apply(ARGO, &case.plain_route()),
                    case.annotate(JOE, "httproute", &["note=x"]),
                    case.patch(JOE, "httproute", "merge", &json!({"metadata": {"labels": {"team": "a"}}})),
                    case.patch(OPERATOR, "httproute", "json", &json!([weight(0, 0, 900), weight(0, 1, 100)])),
                ];
                for answer in answers {
                    let answer = answer.accepted()?;
                    if answer.err.contains(KEPT) {
                        return Err(format!("warned: {}", answer.err));
                    }
                }
                Ok(())
            },
        },
        Row {
            promise: "the operator moves the weights",
            who: "the operator",
            what: "weights by JSON patch with the read resourceVersion; the same with a stale one; undo of the split",
            expected: "as written; 409; plain again, and the next apply is not split",
            check: |case| {
                let read = case.split_route(950, 50)?;
                let version = at(&read, "/metadata/resourceVersion");
                let patch = json!([{"op": "test", "path": "/spec/rules/0/backendRefs/1/name", "value": "web-canary"},
                    {"op": "replace", "path": "/metadata/resourceVersion", "value": version}, weight(0, 0, 0), weight(0, 1, 1000)]);
                let operator =
                    |patch: &Value| case.patch_by(OPERATOR, "canaryrelease-operator", "httproute", "json", patch, &[]);
                split_is(&operator(&patch).object()?, 0, 0, 1000)?;
                operator(&patch)
                    .refused(&["Conflict"])
                    .or_else(|_| operator(&patch).refused(&["the object has been modified"]))?;
                split_is(&case.sync(FLUX, &case.plain_route()).object()?, 0, 0, 1000)?;
                let undo = json!([{"op": "remove", "path": "/spec/rules/0/backendRefs/1"}, weight(0, 0, 1),
                    {"op": "remove", "path": "/metadata/labels/canaryrelease.dev~1release"},
                    {"op": "remove", "path": "/metadata/annotations/canaryrelease.dev~1split"},
                    {"op": "remove", "path": "/metadata/annotations/canaryrelease.dev~1weights-before"},
                    {"op": "remove", "path": "/metadata/annotations/canaryrelease.dev~1uid"}]);
                operator(&undo).accepted()?;
                let seen = case.sync(FLUX, &case.plain_route()).object()?;
                expect("backends", at(&seen, "/spec/rules/0/backendRefs").as_array().map(Vec::len), Some(1))
            },
        },
        Row {
            promise: "the operator proves the route policy by a dry run",
            who: "the operator",
            what: "server-side dry run of other weights",
            expected: "comes back with the weights in force; a real write is as written",
            check: |case| {
                case.split_route(950, 50)?;
                let patch = json!([weight(0, 0, 1), weight(0, 1, 999)]);
                let dry = ["--dry-run=server"];
                let seen =
                    case.patch_by(OPERATOR, "canaryrelease-operator", "httproute", "json", &patch, &dry).object()?;
                split_is(&seen, 0, 950, 50)?;
                let seen =
                    case.patch_by(OPERATOR, "canaryrelease-operator", "httproute", "json", &patch, &[]).object()?;
                split_is(&seen, 0, 1, 999)
            },
        },
        Row {
            promise: "weights 0 and 1000 are kept like any other",
            who: "a GitOps tool",
            what: "apply of the plain route at 0 % and at 100 %",
            expected: "as they were",
            check: |case| {
                case.split_route(1000, 0)?;
                split_is(&case.sync(FLUX, &case.plain_route()).object()?, 0, 1000, 0)?;
                let full = Case::named(case.world(), format!("{}-full", case.name));
                full.split_route(0, 1000)?;
                split_is(&full.sync(FLUX, &full.plain_route()).object()?, 0, 0, 1000)
            },
        },
        Row {
            promise: "weights are kept rule by rule",
            who: "a GitOps tool",
            what: "a route whose two rules are split differently",
            expected: "each keeps its own; a rule added takes the first's",
            check: |case| {
                let rule = json!({"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}], "backendRefs": [{"name": "web", "port": 80}]});
                case.sync(FLUX, &with_rule(case, rule.clone())).accepted()?;
                case.split(950, 50)?;
                let second = json!([{"op": "add", "path": "/spec/rules/1/backendRefs/0/weight", "value": 1000},
                    {"op": "add", "path": "/spec/rules/1/backendRefs/-", "value": {"name": "web-canary", "port": 80, "weight": 0}}]);
                case.patch(OPERATOR, "httproute", "json", &second).accepted()?;
                let mut route = with_rule(case, rule.clone());
                if let Some(rules) = route.pointer_mut("/spec/rules").and_then(Value::as_array_mut) {
                    rules.push(rule);
                }
                let seen = case.sync(FLUX, &route).object()?;
                split_is(&seen, 0, 950, 50)?;
                split_is(&seen, 1, 1000, 0)?;
                split_is(&seen, 3, 950, 50)
            },
        },
        Row {
            promise: "a rule pointed elsewhere is its owner's",
            who: "joe",
            what: "a rule's backends replaced by another Service; a backend of another kind that bears the name",
            expected: "as written",
            check: |case| {
                case.split_route(950, 50)?;
                let other = json!([{"op": "replace", "path": "/spec/rules/0/backendRefs", "value": [{"name": "files", "port": 80}]}]);
                let seen = case.patch(JOE, "httproute", "json", &other).object()?;
                expect("backends", at(&seen, "/spec/rules/0/backendRefs").as_array().map(Vec::len), Some(1))?;
                expect("name", at(&seen, "/spec/rules/0/backendRefs/0/name"), &json!("files"))?;
                let case = Case::named(case.world(), format!("{}-kind", case.name));
                let before = case.split_route(950, 50)?;
                let rule = json!({"backendRefs": [{"group": "traefik.io", "kind": "TraefikService", "name": "web"}]});
                let seen = case.sync(FLUX, &with_rule(&case, rule)).object()?;
                expect("backends", at(&seen, "/spec/rules/1/backendRefs").as_array().map(Vec::len), Some(1))?;
                expect("rule 0", at(&seen, "/spec/rules/0"), at(&before, "/spec/rules/0"))
            },
        },
        Row {
            promise: "a rule that shares its traffic is left as it is",
            who: "a GitOps tool",
            what: "a rule added with the stable Service and another one, weights 1 and 1; with 16 backends",
            expected: "as written: our weights would take the other's away",
            check: |case| {
                case.split_route(950, 50)?;
                let shared =
                    json!([{"name": "web", "port": 80, "weight": 1}, {"name": "legacy", "port": 80, "weight": 1}]);
                let seen = case.sync(FLUX, &with_rule(case, json!({"backendRefs": shared}))).object()?;
                split_is(&seen, 0, 950, 50)?;
                expect("backends", at(&seen, "/spec/rules/1/backendRefs").as_array().map(Vec::len), Some(2))?;
                expect("weight", at(&seen, "/spec/rules/1/backendRefs/0/weight"), &json!(1))?;
                let many: Vec<Value> = (0..16)
                    .map(|i| json!({"name": if i == 3 { "web".into() } else { format!("s{i}") }, "port": 80}))
                    .collect();
                let seen = case.sync(FLUX, &with_rule(case, json!({"backendRefs": many}))).object()?;
                split_is(&seen, 0, 950, 50)?;
                expect("backends", at(&seen, "/spec/rules/1/backendRefs").as_array().map(Vec::len), Some(16))
            },
        },
        Row {
            promise: "a route that is not ours is not touched",
            who: "joe",
            what: "weights of a plain route; of a labelled route that is not split",
            expected: "as written, no warning",
            check: |case| {
                let mut route = case.plain_route();
                case.create(&route)?;
                let answer = case
                    .patch(
                        JOE,
                        "httproute",
                        "json",
                        &json!([{"op": "add", "path": "/spec/rules/0/backendRefs/0/weight", "value": 7}]),
                    )
                    .accepted()?;
                expect("warnings", answer.err.as_str(), "")?;
                expect("weight", at(&answer.object()?, "/spec/rules/0/backendRefs/0/weight"), &json!(7))?;
                let case = Case::named(case.world(), format!("{}-label", case.name));
                merge(
                    &mut route,
                    &json!({"metadata": {"name": case.name, "labels": {"canaryrelease.dev/release": case.name}}}),
                );
                case.create(&route)?;
                let answer = case
                    .patch(
                        JOE,
                        "httproute",
                        "json",
                        &json!([{"op": "add", "path": "/spec/rules/0/backendRefs/0/weight", "value": 7}]),
                    )
                    .accepted()?;
                expect("warnings", answer.err.as_str(), "")?;
                expect("weight", at(&answer.object()?, "/spec/rules/0/backendRefs/0/weight"), &json!(7))
            },
        },
        Row {
            promise: "an override lets a person edit the split",
            who: "anna with the verb, joe without",
            what: "weights and override in one write; in two steps; then a GitOps sync",
            expected: "as written, stamped, no warning; refused for joe; the sync keeps anna's weights",
            check: |case| {
                case.split_route(950, 50)?;
                let patch = json!([override_op(), weight(0, 0, 1000), weight(0, 1, 0)]);
                case.patch(JOE, "httproute", "json", &patch)
                    .refused(&["policy-tests:joe may not override CanaryRelease"])?;
                let answer = case.patch(ANNA, "httproute", "json", &patch).accepted()?;
                expect("warnings", answer.err.as_str(), "")?;
                let seen = answer.object()?;
                split_is(&seen, 0, 1000, 0)?;
                expect("override-by", note(&seen, "override-by"), Some(ANNA))?;
                split_is(&case.sync(FLUX, &case.plain_route()).object()?, 0, 1000, 0)?;
                let answer =
                    case.edit(ANNA, "httproute", "s/weight: 1000/weight: 990/;s/weight: 0$/weight: 10/").accepted()?;
                if answer.err.contains(KEPT) {
                    return Err(format!("warned: {}", answer.err));
                }
                split_is(&case.now("httproute")?, 0, 990, 10)?;
                let answer =
                    case.patch(JOE, "httproute", "json", &json!([weight(0, 0, 0), weight(0, 1, 1000)])).accepted()?;
                split_is(&answer.object()?, 0, 990, 10)
            },
        },
    ]
}
