//! The `CanaryRelease` resource: its Rust types, the schema generated from them, the CEL rules for
//! what a schema cannot say, and the units people write (`15m`, `0.5%`, `200ms`, `0.5/min`).
//!
//! This crate never does I/O and depends on no Kubernetes client.
#![deny(missing_docs)]

pub mod names;
pub mod record;
pub mod series;
pub mod spec;
pub mod status;
pub mod units;

pub use record::*;
pub use series::{GateSeries, Point, Points};
pub use spec::*;
pub use status::*;
pub use units::{Duration, Percent, Rate, UnitError};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};

/// The definition of the CanaryRelease resource, as `crds/` holds it.
///
/// Defaults inside `status` are taken away, so that a reader sees only what the operator wrote; a new
/// object says `observedGeneration: -1`, so that no tool takes it for finished.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    use kube::CustomResourceExt as _;
    cleaned(CanaryRelease::crd(), "Takes a Deployment live in stages of traffic and reverts it by itself.", true)
}

/// The definition of the ReleaseRecord resource, as `crds/` holds it.
#[must_use]
pub fn record_crd() -> CustomResourceDefinition {
    use kube::CustomResourceExt as _;
    cleaned(ReleaseRecord::crd(), "The record of one release: status by the operator, spec by people.", false)
}

fn cleaned(mut crd: CustomResourceDefinition, description: &str, observed: bool) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let root = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let Some(root) = root else { continue };
        plain_formats(root);
        root.description = Some(description.to_owned());
        if let Some(status) = root.properties.as_mut().and_then(|fields| fields.get_mut("status")) {
            drop_defaults(status);
            if observed {
                status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
            }
        }
    }
    crd
}

/// Formats that only Rust knows are taken away: the API server warns of each.
fn plain_formats(schema: &mut JSONSchemaProps) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray as Items;
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    for field in schema.properties.iter_mut().flat_map(|fields| fields.values_mut()) {
        plain_formats(field);
    }
    if let Some(Items::Schema(item)) = &mut schema.items {
        plain_formats(item);
    }
}

fn drop_defaults(schema: &mut JSONSchemaProps) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray as Items;
    schema.default = None;
    for field in schema.properties.iter_mut().flat_map(|fields| fields.values_mut()) {
        drop_defaults(field);
    }
    match &mut schema.items {
        Some(Items::Schema(item)) => drop_defaults(item),
        Some(Items::Schemas(items)) => items.iter_mut().for_each(drop_defaults),
        None => {}
    }
}
