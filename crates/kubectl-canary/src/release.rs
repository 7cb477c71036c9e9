//! A CanaryRelease as the plugin reads it: leniently, so that one which this build does not understand in full is still
//! shown. Nothing here asks a cluster or reads a clock.

use canary_api::{CanaryReleaseSpec, CanaryReleaseStatus, Duration, ReleaseStatus, Step, names};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use crate::{Error, clean};

/// A CanaryRelease, its texts harmless for a terminal.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The command that waits for the operator, and who gave it.
    pub command: Option<(String, String)>,
    /// The target's name.
    pub target: String,
    /// The whole object.
    pub object: Value,
    /// Its spec, where this build understands it.
    pub spec: Option<CanaryReleaseSpec>,
    status: Result<CanaryReleaseStatus, String>,
}

impl Release {
    /// Reads an object as the API server has it.
    #[must_use]
    pub fn read(mut object: Value) -> Self {
        clean::value(&mut object);
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let annotation = |name: &str| object.pointer("/metadata/annotations")?.get(name)?.as_str().map(str::to_owned);
        let command = annotation(names::ANNOTATION_COMMAND)
            .map(|command| (command, annotation(names::ANNOTATION_COMMAND_BY).unwrap_or_else(|| "someone".to_owned())));
        let status = object.get("status").filter(|status| !status.is_null()).cloned();
        let status = status.map_or_else(
            || Ok(CanaryReleaseStatus::default()),
            |status| {
                serde_path_to_error::deserialize(status)
                    .map_err(|error| clean::text(&format!("status.{}: {}", error.path(), error.inner())))
            },
        );
        Self {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
            deleting: object.pointer("/metadata/deletionTimestamp").is_some(),
            command,
            target: text("/spec/target/name"),
            spec: object.get("spec").cloned().and_then(|spec| serde_json::from_value(spec).ok()),
            status,
            object,
        }
    }

    /// Its status.
    ///
    /// # Errors
    /// Where this build does not understand it.
    pub fn status(&self) -> Result<&CanaryReleaseStatus, Error> {
        self.status.as_ref().map_err(|why| Error::Undecodable { object: self.place(), why: why.clone() })
    }

    /// Namespace and name.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// A text of the object, for what this build may not understand in full.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The release under way, if any.
    #[must_use]
    pub fn under_way(&self) -> Option<&ReleaseStatus> {
        let status = self.status.as_ref().ok()?;
        status.current.as_ref().filter(|current| current.step != Step::Done && !current.id.is_empty())
    }

    /// The last release's id.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        let status = self.status.as_ref().ok()?;
        status.current.as_ref().map(|current| current.id.as_str()).filter(|id| !id.is_empty())
    }
}

/// Time until a moment, never negative.
#[must_use]
pub fn until(end: Timestamp, now: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(end.duration_since(now).as_secs()).unwrap_or(0))
}

/// A moment that comes some time after another.
#[must_use]
pub fn after(since: &Time, length: Duration) -> Timestamp {
    let length = jiff::SignedDuration::try_from(length.std()).unwrap_or_default();
    since.0.checked_add(length).unwrap_or(since.0)
}

/// A moment in whole seconds, UTC.
#[must_use]
pub fn clock(moment: Timestamp) -> String {
    moment.round(jiff::Unit::Second).unwrap_or(moment).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_of_another_version_is_still_read_in_part() {
        let release = Release::read(json!({
            "metadata": {"name": "orders", "namespace": "shop", "uid": "u"},
            "spec": {"target": {"name": "orders"}, "field": "of the future"},
            "status": {"phase": "Levitating", "message": "up \u{1b}[2J"},
        }));
        assert!(release.spec.is_none());
        assert_eq!(release.target, "orders");
        assert_eq!(release.text("/status/phase"), "Levitating");
        assert_eq!(release.text("/status/message"), "up \u{fffd}[2J");
        let error = release.status().unwrap_err().to_string();
        assert!(
            error.contains("shop/orders") && error.contains("status.phase") && error.contains("describe"),
            "{error}"
        );
    }

    #[test]
    fn a_new_object_has_a_status_that_nobody_wrote() {
        let release = Release::read(json!({"metadata": {"name": "a", "namespace": "b"}}));
        assert_eq!(release.status().unwrap().observed_generation, -1);
        assert!(release.under_way().is_none() && release.last_id().is_none());
    }
}
