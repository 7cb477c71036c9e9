//! What the API server says when it does not do what was asked: a `Status` with the words of the real one.

use serde_json::{Value, json};

use crate::resources::Resource;

/// An answer that is not the object.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// HTTP code.
    pub code: u16,
    /// A word, as in `reason`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Machine-readable details, or null.
    pub details: Value,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: String, details: Value) -> Self {
        Self { code, reason, message, details }
    }

    fn about(resource: &Resource, name: &str) -> Value {
        let mut details = json!({"name": name, "kind": resource.plural});
        if !resource.group.is_empty() {
            details["group"] = json!(resource.group);
        }
        details
    }

    /// There is no such object.
    #[must_use]
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.full_name());
        Self::new(404, "NotFound", message, Self::about(resource, name))
    }

    /// There is no such path.
    #[must_use]
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource".to_owned(), json!({}))
    }

    /// The object is there already.
    #[must_use]
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.full_name());
        Self::new(409, "AlreadyExists", message, Self::about(resource, name))
    }

    /// The object changed since it was read.
    #[must_use]
    pub fn conflict(resource: &Resource, name: &str) -> Self {
        Self::conflict_because(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// A conflict with a reason of its own.
    #[must_use]
    pub fn conflict_because(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.full_name());
        Self::new(409, "Conflict", message, Self::about(resource, name))
    }

    /// A JSON patch that can't be applied: a wrong path as much as a `test` that fails.
    #[must_use]
    pub fn patch_does_not_fit() -> Self {
        let message = "the server rejected our request due to an error in our request".to_owned();
        Self::new(422, "Invalid", message, json!({}))
    }

    /// The object breaks a rule.
    #[must_use]
    pub fn invalid(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{}.{} {name:?} is invalid: {why}", resource.kind, resource.group);
        let message =
            if resource.group.is_empty() { format!("{} {name:?} is invalid: {why}", resource.kind) } else { message };
        Self::new(422, "Invalid", message, Self::about(resource, name))
    }

    /// Nonsense.
    #[must_use]
    pub fn bad_request(why: &str) -> Self {
        Self::new(400, "BadRequest", why.to_owned(), json!({}))
    }

    /// Admission says no.
    #[must_use]
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", resource.full_name());
        Self::new(403, "Forbidden", message, Self::about(resource, name))
    }

    /// A resourceVersion that is too old to be watched from.
    #[must_use]
    pub fn expired(from: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {from} ({oldest})"), json!({}))
    }

    /// Too many requests at once.
    #[must_use]
    pub fn too_many() -> Self {
        let message = "the server has received too many requests and has asked us to try again later".to_owned();
        Self::new(429, "TooManyRequests", message, json!({"retryAfterSeconds": 1}))
    }

    /// The server fails.
    #[must_use]
    pub fn internal() -> Self {
        let message = "Internal error occurred: etcdserver: request timed out".to_owned();
        Self::new(500, "InternalError", message, json!({"causes": [{"message": "etcdserver: request timed out"}]}))
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details, "code": self.code,
        });
        if self.details.as_object().is_none_or(serde_json::Map::is_empty) {
            body["details"] = json!({});
        }
        body
    }
}
