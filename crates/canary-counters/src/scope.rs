//! Whose series a question may see: one namespace, and within it some pods, one Service, or all.
//! A [`Scope`] is checked when it is made, so that no empty list and no odd name can widen a
//! question. It never looks at what is asked.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::promql::{is_label_name, quote};

/// What a provider's labels are called. The admin's, per provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelNames {
    /// The label that holds the namespace; default `namespace`.
    pub namespace: String,
    /// The label that holds the pod's name; default `pod`.
    pub pod: String,
    /// The label that holds the Service's name, for `by: Service`; default `service`.
    pub service: String,
    /// The label that holds the Service's namespace, for `by: Service`, where it is not that of the pods: a gateway's
    /// metrics carry its own `namespace`, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_namespace: Option<String>,
}

impl Default for LabelNames {
    fn default() -> Self {
        Self {
            namespace: "namespace".to_owned(),
            pod: "pod".to_owned(),
            service: "service".to_owned(),
            service_namespace: None,
        }
    }
}

impl LabelNames {
    /// The labels that a question about pods sets.
    #[must_use]
    pub fn set_for_pods(&self) -> [&str; 3] {
        [&self.namespace, &self.pod, &self.pod]
    }

    /// The labels that a question about a Service sets.
    #[must_use]
    pub fn set_for_services(&self) -> [&str; 3] {
        [self.of_services(), &self.pod, &self.service]
    }

    /// The label that confines a question about a Service to its namespace.
    #[must_use]
    pub fn of_services(&self) -> &str {
        self.service_namespace.as_ref().unwrap_or(&self.namespace)
    }

    /// Checks that all are label names, and different ones.
    ///
    /// # Errors
    /// [`ScopeError::LabelName`] names the one that is not.
    pub fn check(&self) -> Result<(), ScopeError> {
        for name in [&self.namespace, &self.pod, &self.service].into_iter().chain(&self.service_namespace) {
            if !is_label_name(name) || name.starts_with("__") {
                return Err(ScopeError::LabelName(name.clone()));
            }
        }
        let namespaces = [self.namespace.as_str(), self.of_services()];
        if namespaces.iter().any(|label| *label == self.pod || *label == self.service) || self.pod == self.service {
            return Err(ScopeError::LabelsEqual);
        }
        Ok(())
    }
}

/// Of whom, inside the namespace, the question is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// These pods, by name. Never empty in a [`Scope`].
    Pods(BTreeSet<String>),
    /// The pods that a Deployment of this name has had, by the shape of their names.
    PodsOf(String),
    /// One Service, in a gateway's own metrics.
    Service(String),
    /// Everything in the namespace.
    Total,
}

/// One namespace, a subject, and the provider's label names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    namespace: String,
    subject: Subject,
    labels: LabelNames,
}

/// A scope that would see nothing or too much.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScopeError {
    /// No pod to ask about: an empty matcher would match series without a pod.
    #[error("no pods to ask about: nothing can be measured until one exists")]
    NoPods,
    /// Not the name of a Kubernetes object.
    #[error("{what} {name:?} is not a name that Kubernetes would give; refusing to put it in a query")]
    Name {
        /// `namespace`, `pod`, `deployment` or `service`.
        what: &'static str,
        /// What was given.
        name: String,
    },
    /// Not a label name.
    #[error("{0:?} is not a usable label name; correct the provider's labels in the configuration")]
    LabelName(String),
    /// Two of the three label names are the same.
    #[error("the provider's labels for namespace, pod and service must be different names")]
    LabelsEqual,
}

impl ScopeError {
    /// A static word for metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NoPods => "no_pods",
            Self::Name { .. } => "bad_name",
            Self::LabelName(_) | Self::LabelsEqual => "bad_configuration",
        }
    }
}

impl Scope {
    /// A scope of the pods with these names.
    ///
    /// # Errors
    /// No pod, or a name that is not a Kubernetes name.
    pub fn pods<I, S>(namespace: &str, pods: I, labels: &LabelNames) -> Result<Self, ScopeError>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let pods: BTreeSet<String> = pods.into_iter().map(Into::into).collect();
        if pods.is_empty() {
            return Err(ScopeError::NoPods);
        }
        for pod in &pods {
            check_name("pod", pod)?;
        }
        Self::new(namespace, Subject::Pods(pods), labels)
    }

    /// A scope of the pods that a Deployment of this name has had, those that are long gone included: of a past, no
    /// list of pods is kept anywhere. They are told by the shape of their names.
    ///
    /// # Errors
    /// A name that is not a Kubernetes name.
    pub fn pods_of(namespace: &str, deployment: &str, labels: &LabelNames) -> Result<Self, ScopeError> {
        check_name("deployment", deployment)?;
        Self::new(namespace, Subject::PodsOf(deployment.to_owned()), labels)
    }

    /// A scope of one Service, for a gateway's own metrics.
    ///
    /// # Errors
    /// A name that is not a Kubernetes name.
    pub fn service(namespace: &str, service: &str, labels: &LabelNames) -> Result<Self, ScopeError> {
        check_name("service", service)?;
        Self::new(namespace, Subject::Service(service.to_owned()), labels)
    }

    /// A scope of the whole namespace.
    ///
    /// # Errors
    /// A name that is not a Kubernetes name.
    pub fn total(namespace: &str, labels: &LabelNames) -> Result<Self, ScopeError> {
        Self::new(namespace, Subject::Total, labels)
    }

    fn new(namespace: &str, subject: Subject, labels: &LabelNames) -> Result<Self, ScopeError> {
        check_name("namespace", namespace)?;
        labels.check()?;
        Ok(Self { namespace: namespace.to_owned(), subject, labels: labels.clone() })
    }

    /// The namespace that every question is confined to.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Of whom the question is.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The provider's label names.
    #[must_use]
    pub fn labels(&self) -> &LabelNames {
        &self.labels
    }

    /// The forced matchers, as PromQL.
    pub(crate) fn matchers(&self) -> Vec<String> {
        let namespace = match &self.subject {
            Subject::Service(_) => self.labels.of_services(),
            Subject::Pods(_) | Subject::PodsOf(_) | Subject::Total => &self.labels.namespace,
        };
        let mut out = vec![matcher(namespace, "=", &self.namespace)];
        match &self.subject {
            Subject::Pods(_) | Subject::PodsOf(_) => {
                let pods = self.pods_regex().unwrap_or_default();
                out.push(matcher(&self.labels.pod, "=~", &pods));
            }
            Subject::Service(service) => {
                out.push(matcher(&self.labels.service, "=", service));
            }
            Subject::Total => {}
        }
        out
    }

    /// The names of the pods as one regular expression, or nothing where the subject isn't pods.
    #[must_use]
    pub fn pods_regex(&self) -> Option<String> {
        // Only dots and hyphens can occur. A hyphen outside a class is itself; RE2 refuses no
        // escaped punctuation, but the plain form is what people expect to read.
        let escaped = |name: &String| regex::escape(name).replace("\\-", "-");
        match &self.subject {
            Subject::Pods(pods) => Some(pods.iter().map(escaped).collect::<Vec<_>>().join("|")),
            // The ReplicaSet's hash, and five characters of the pod's own.
            Subject::PodsOf(deployment) => Some(format!("{}-[a-z0-9]{{1,16}}-[a-z0-9]{{5}}", escaped(deployment))),
            Subject::Service(_) | Subject::Total => None,
        }
    }
}

fn matcher(label: &str, operator: &str, value: &str) -> String {
    let mut out = String::from(label);
    out.push_str(operator);
    quote(value, &mut out);
    out
}

/// Names as Kubernetes gives them: lower-case letters, digits, `-` and `.`; up to 253.
fn check_name(what: &'static str, name: &str) -> Result<(), ScopeError> {
    let fits = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
    if fits { Ok(()) } else { Err(ScopeError::Name { what, name: name.chars().take(64).collect() }) }
}

/// PromQL that has been confined to a [`Scope`]. Only this crate makes one, so a question that
/// was not confined can't be sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scoped(String);

impl Scoped {
    pub(crate) fn new(promql: String) -> Self {
        Self(promql)
    }

    /// The PromQL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Scoped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
