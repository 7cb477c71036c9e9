//! Reads the metrics endpoints of the pods of one release: of the own ReplicaSets of target, canary and baseline pods,
//! as the API server listed them, and of no other. A CanaryRelease may say port and path, but no port that the pod does not
//! declare; it never says an address.

use canary_api::PodMetrics;
use canary_core::{
    Observed,
    gates::{Measure, Reading},
    object,
};
use canary_counters::Selector;
use canary_metrics::pods::{EndpointError, PodEndpoint, PodFailure, PodSamples, PodScraper, endpoint};
use jiff::Timestamp;
use serde_json::Value;

/// Reads every pod once and keeps what the selectors ask about.
pub(super) async fn scrape(
    scraper: &PodScraper,
    observed: &Observed,
    selectors: &[Selector],
    now: Timestamp,
) -> PodSamples {
    let named = observed.release.spec.pod_metrics.as_ref();
    let mut endpoints = Vec::new();
    let mut refused = Vec::new();
    let all = [&observed.canary_pods, &observed.target_pods, &observed.baseline.pods];
    for pod in all.into_iter().flat_map(|pods| pods.list()) {
        match of(pod, named) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(why) => {
                refused.push((object::text(pod, "/metadata/namespace").to_owned(), object::name(pod).to_owned(), why));
            }
        }
    }
    let interval = observed.release.spec.interval.std();
    scraper.scrape_for(endpoints, selectors.iter(), now).await.with_interval(interval).with_refused(refused)
}

fn of(pod: &Value, named: Option<&PodMetrics>) -> Result<PodEndpoint, EndpointError> {
    let port = named.and_then(|named| named.port);
    if let Some(port) = port.filter(|port| !declared(pod, *port)) {
        return Err(EndpointError::Undeclared { port });
    }
    endpoint(pod, port, named.and_then(|named| named.path.as_deref()))
}

fn declared(pod: &Value, port: u16) -> bool {
    let containers = object::items(pod, "/spec/containers");
    let mut ports = containers.flat_map(|container| object::items(container, "/ports"));
    ports.any(|declared| object::integer(declared, "/containerPort", 0) == i64::from(port))
}

/// Says in the readings which pods could not be read.
pub(super) fn explain(readings: &mut [Reading], failures: &[PodFailure]) {
    let Some(first) = failures.first() else { return };
    let more = failures.len().saturating_sub(1);
    let text = if more == 0 { first.to_string() } else { format!("{first} (and {more} more)") };
    for reading in readings {
        for measure in [&mut reading.canary, &mut reading.stable].into_iter().chain(&mut reading.baseline_pods) {
            if let Measure::NoData(why) | Measure::Partial { why, .. } = measure {
                *why = format!("{why}; {text}");
            }
        }
    }
}
