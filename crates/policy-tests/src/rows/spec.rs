//! What the definition refuses by itself: each rule with a spec that breaks it and no other, and the sentence that a
//! person is told.

use serde_json::{Value, json};

use super::Row;
use crate::case::{Case, merge};
use crate::kubectl::Answer;
use crate::world::JOE;

/// A dry run of a CanaryRelease with these fields of its spec.
fn with(case: &Case<'_>, fields: &Value) -> Answer {
    let mut object = case.canary_release();
    merge(&mut object, &json!({"spec": fields}));
    case.kubectl_with(JOE, &["create", "--dry-run=server", "-f", "-"], Some(&object.to_string()))
}

/// The gate that every spec here has, and another.
fn gates(other: &Value) -> Value {
    let errors = json!({"name": "errors", "errorRate": {"bad": "b", "total": "t", "limit": "1%"}});
    json!({"gates": [errors, other]})
}

fn stages(weights: &[&str]) -> Value {
    json!({"stages": weights.iter().map(|weight| json!({"weight": weight, "duration": "1m"})).collect::<Vec<_>>()})
}

/// Compared queries of these names and texts.
fn comparison(queries: &[(&str, &str)]) -> Value {
    json!({"comparison": queries.iter().map(|(name, query)| json!({"name": name, "query": query})).collect::<Vec<_>>()})
}

fn of_fields() -> Vec<(Value, &'static str)> {
    let of_pods = "max(up{pod=~\"$pods\"})";
    vec![
        (comparison(&[("a", of_pods), ("a", of_pods)]), "names of compared queries must be unique"),
        (comparison(&[("DB P95", of_pods)]), "a compared query's name is lower case letters"),
        (comparison(&[("a", "max(up)")]), "a compared query names the pods of one version"),
        (comparison(&[("q", of_pods); 11]), "must have at most 10 items"),
        (json!({"interval": "500ms"}), "interval must be from 1s to 10m"),
        (json!({"drain": "2h"}), "drain must be at most 1h"),
        (json!({"soak": "200h"}), "soak must be at most 168h"),
        (json!({"readyDeadline": "1s"}), "readyDeadline must be from 5s to 24h"),
        (json!({"baseline": {"duration": "25h"}}), "baseline.duration must be at most 24h"),
        (json!({"podMetrics": {"path": "metrics"}}), "path begins with /"),
        (stages(&["10%", "10%", "100%"]), "stage weights must ascend strictly"),
        (stages(&["10%", "50%"]), "the last stage must have weight 100%"),
        (stages(&["0.05%", "100%"]), "a stage's weight is from 0.1% to 100%"),
        (json!({"stages": [{"weight": "100%", "duration": "0s"}]}), "a stage's duration is above 0s"),
    ]
}

fn of_jobs() -> Vec<(Value, &'static str)> {
    let job = |more: Value| {
        let mut job = json!({"name": "smoke", "cronJob": "smoke", "at": "Stage"});
        merge(&mut job, &more);
        job
    };
    let one = |more: Value| json!({"jobs": [job(more)]});
    vec![
        (json!({"jobs": [job(json!({})), job(json!({"at": "BeforeStart"}))]}), "job names must be unique"),
        (one(json!({"name": "Smoke"})), "a job's name is lower case letters, digits and '-'"),
        (one(json!({"at": "BeforeStart", "stages": ["10%"]})), "stages is for a job at Stage"),
        (one(json!({"stages": ["11%"]})), "each of a job's stages must be the weight of a stage"),
        (one(json!({"deadline": "1s"})), "a job's deadline must be from 5s to 24h"),
        (one(json!({"at": "AfterRollback", "onFailure": "Revert"})), "its onFailure can only be Record"),
        (one(json!({"at": "AfterPromotion", "onFailure": "Pause"})), "its onFailure can only be Record"),
    ]
}

fn of_gates() -> Vec<(Value, &'static str)> {
    let baseline = json!({"name": "r", "relative": {"counter": "c", "to": "Baseline", "margin": "10%"}});
    let relative = json!({"name": "r", "relative": {"counter": "c", "to": "Stable", "margin": "10%"}, "warmUp": "30s"});
    let value = |more: Value| {
        let mut gate = json!({"name": "v", "value": {"query": "max(up{pod=~\"$pods\"})", "max": 1.0}});
        merge(&mut gate, &more);
        gates(&gate)
    };
    let both = |mut gates: Value, more: &Value| {
        merge(&mut gates, more);
        gates
    };
    let by_service = json!({"traffic": {"requests": {"counter": "r", "by": "Service"}}});
    let errors = |name: &str, more: Value| {
        let mut gate = json!({"name": name, "errorRate": {"bad": "b", "total": "t", "limit": "1%"}});
        merge(&mut gate, &more);
        gates(&gate)
    };
    let quantile = json!({"name": "l", "latency": {"histogram": "h", "quantile": "100%", "limit": "1s"}});
    let unlimited = json!({"name": "v", "value": {"query": "max(up{pod=~\"$pods\"})"}});
    vec![
        (both(gates(&baseline), &json!({"baseline": {"duration": "0s"}})), "needs baseline.duration above 0s"),
        (json!({"baseline": {"pods": true}}), "baseline.pods needs a gate relative to Stable"),
        (both(gates(&baseline), &json!({"baseline": {"pods": true}})), "baseline.pods needs a gate relative to Stable"),
        (both(gates(&relative), &by_service), "traffic.requests must be by Pod"),
        (errors("errors", json!({})), "gate names must be unique"),
        (errors("Errors", json!({})), "a gate's name is lower case letters"),
        (errors("e", json!({"value": {"query": "q", "max": 1.0}})), "a gate has exactly one of"),
        (gates(&json!({"name": "none"})), "a gate has exactly one of"),
        (value(json!({"warmUp": "30s"})), "a value gate has no warmUp"),
        (value(json!({"by": "Service"})), "a value gate has no by"),
        (errors("e", json!({"by": "Service", "warmUp": "30s"})), "warmUp is the pods'"),
        (errors("e", json!({"warmUp": "2h"})), "warmUp must be at most 1h"),
        (gates(&quantile), "quantile is above 0% and below 100%"),
        (gates(&unlimited), "a value gate needs max or min"),
    ]
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            promise: "a spec that can't be right is refused when it is written",
            who: "joe",
            what: "creation with one rule of the definition broken, rule by rule",
            expected: "refused, with the rule's own sentence",
            check: |case| {
                with(case, &json!({})).accepted()?;
                of_fields().iter().chain(&of_gates()).chain(&of_jobs()).try_for_each(|(fields, words)| {
                    with(case, fields).refused(&[words]).map_err(|error| format!("{fields}: {error}"))
                })
            },
        },
        Row {
            promise: "what is right is not refused",
            who: "joe",
            what: "creation with baseline pods and a gate relative to Stable; a gate by Service; a warm-up; compared queries; jobs at each place",
            expected: "accepted",
            check: |case| {
                let relative = json!({"name": "r", "relative": {"counter": "c", "margin": "10%"}, "warmUp": "30s"});
                let mut beside = gates(&relative);
                merge(&mut beside, &json!({"baseline": {"pods": true}}));
                let edge =
                    json!({"name": "e", "by": "Service", "errorRate": {"bad": "b", "total": "t", "limit": "1%"}});
                let compared = comparison(&[
                    ("db-p95", "max by (pod) (up{pod=~\"$pods\"})"),
                    ("other", "sum(up{pod=~\"$pods\"})"),
                ]);
                let job = |name: &str, more: Value| {
                    let mut job = json!({"name": name, "cronJob": "smoke"});
                    merge(&mut job, &more);
                    job
                };
                let jobs = json!({"jobs": [
                    job("a", json!({"at": "BeforeStart", "onFailure": "Revert"})),
                    job("b", json!({"at": "Stage", "stages": ["10.0%", "100%"], "evidence": "DatabaseHealth"})),
                    job("c", json!({"at": "AfterRollback", "onFailure": "Record"})),
                    job("d", json!({"at": "AfterPromotion", "deadline": "24h"})),
                ]});
                for fields in [compared, jobs, beside, gates(&edge), stages(&["0.1%", "99.9%", "100%"])] {
                    with(case, &fields).accepted()?;
                }
                Ok(())
            },
        },
        Row {
            promise: "what names the objects of a release stays as it is",
            who: "joe",
            what: "an edit of target, Service and routes",
            expected: "refused, with what to do instead",
            check: |case| {
                case.release()?;
                let route = json!([{"kind": "HTTPRoute", "name": "other"}]);
                for (fields, words) in [
                    (json!({"target": {"name": "other"}}), "the target can't be changed"),
                    (json!({"traffic": {"service": "other"}}), "traffic.service can't be changed"),
                    (json!({"traffic": {"routes": route}}), "traffic.routes can't be changed"),
                ] {
                    case.patch(JOE, "canaryrelease", "merge", &json!({"spec": fields}))
                        .refused(&[words, "delete this CanaryRelease"])?;
                }
                Ok(())
            },
        },
    ]
}
