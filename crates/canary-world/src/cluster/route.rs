//! The gateway: it takes an edited route over after a while, says so in the route's status, and learns late which pods
//! are ready.

use std::collections::BTreeMap;

use canary_core::object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::traffic::Flow;
use super::{Cluster, image, keys, selected};
use crate::api::{Api, seconds};
use crate::resources::{HTTP_ROUTES, SERVICES};
use crate::store::Key;

impl Cluster {
    /// Takes edited routes over; a deleted one at once.
    pub(super) fn gateway(&mut self, api: &mut Api, due: &mut Timestamp) {
        let routes = keys(api, HTTP_ROUTES);
        self.plane.retain(|key, _| routes.contains(key));
        if !self.gateway_works {
            return;
        }
        for key in routes {
            let Some(version) = api.store.get(&key).cloned() else { continue };
            let route = &version.value;
            let generation = object::integer(route, "/metadata/generation", 1);
            let (seen, since) = *self.edits.entry(key.clone()).or_insert((0, api.now));
            let since = if seen == generation { since } else { api.now };
            self.edits.insert(key.clone(), (generation, since));
            let obeyed = since + self.gateway_lag;
            if obeyed > api.now {
                *due = (*due).min(obeyed);
                continue;
            }
            if self.plane.get(&key) != Some(&route["spec"]["rules"]) {
                self.plane.insert(key, route["spec"]["rules"].clone());
            }
            let known = object::integer(route, "/status/parents/0/conditions/0/observedGeneration", 0);
            if known != generation {
                let condition = |kind: &str, reason: &str| {
                    json!({
                        "type": kind, "status": "True", "reason": reason, "message": "",
                        "observedGeneration": generation, "lastTransitionTime": seconds(api.now),
                    })
                };
                let parents: Vec<Value> = object::items(route, "/spec/parentRefs")
                    .map(|parent| {
                        json!({
                            "parentRef": parent, "controllerName": "world/gateway",
                            "conditions": [condition("Accepted", "Accepted"), condition("ResolvedRefs", "ResolvedRefs")],
                        })
                    })
                    .collect();
                api.controller_says(HTTP_ROUTES, &version, json!({"parents": parents}));
            }
        }
    }

    /// Where the data plane sends each second's requests.
    pub(super) fn find_flow(&mut self, api: &Api, due: &mut Timestamp) {
        let mut services: BTreeMap<(String, String), f64> = BTreeMap::new();
        let mut shares: Vec<(&Key, &Value)> = Vec::new();
        for (key, rules) in &self.plane {
            // The requests of a route are those of its rules that name a Service of the scenario.
            let named = |rule: &&Value| {
                object::items(rule, "/backendRefs").any(|entry| object::text(entry, "/name") != "assets")
            };
            shares.extend(object::items(rules, "").filter(named).map(|rule| (key, rule)));
        }
        let count = shares.len().max(1);
        for (key, rule) in &shares {
            let part = self.traffic.rate / f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            let weight = |entry: &Value| entry["weight"].as_f64().unwrap_or(1.0);
            let all: f64 = object::items(rule, "/backendRefs").map(weight).sum();
            if all <= 0.0 {
                continue;
            }
            for entry in object::items(rule, "/backendRefs").filter(|entry| weight(entry) > 0.0) {
                let service = (key.namespace.clone(), object::text(entry, "/name").to_owned());
                *services.entry(service).or_default() += part * weight(entry) / all;
            }
        }
        let mut flow = Vec::new();
        for ((namespace, service), rate) in services {
            let found = api.store.get(&Key::new(SERVICES, &namespace, &service));
            let labels = found.map(|found| object::strings(&found.value, "/spec/selector")).unwrap_or_default();
            let pods =
                selected(&api.store, &namespace, &labels).into_iter().filter(|pod| canary_core::pods::ready(pod));
            let mut known = Vec::new();
            for pod in pods {
                let since = object::items(pod, "/status/conditions")
                    .find(|condition| object::text(condition, "/type") == "Ready")
                    .and_then(|condition| object::text(condition, "/lastTransitionTime").parse::<Timestamp>().ok())
                    .unwrap_or(api.now);
                if since + self.gateway_lag * 2 <= api.now {
                    known.push(pod);
                } else {
                    *due = (*due).min(since + self.gateway_lag * 2);
                }
            }
            if known.is_empty() {
                flow.push(Flow { service, pod: None, rate, errors: 1.0 });
                continue;
            }
            let each = rate / f64::from(u32::try_from(known.len()).unwrap_or(u32::MAX));
            for pod in known {
                let version = self.behaviour(image(pod));
                let to = Some((object::name(pod).to_owned(), image(pod).to_owned()));
                flow.push(Flow { service: service.clone(), pod: to, rate: each, errors: version.errors });
            }
        }
        let alive: Vec<(String, String)> = api
            .store
            .all(crate::resources::PODS.plural, "")
            .filter(|(_, pod)| object::text(&pod.value, "/status/phase") == "Running")
            .map(|(key, pod)| (key.name.clone(), image(&pod.value).to_owned()))
            .collect();
        let counts = |image: &str| self.versions.get(image).is_none_or(|version| version.counts);
        let alive = alive.into_iter().filter(|(_, image)| counts(image)).collect();
        self.traffic.set(flow, alive, api.now);
    }
}
