//! The kinds that the world serves, and how each behaves: its group, whether it counts generations, what may be
//! selected by field. It holds no object.

/// A kind that the API server serves.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core's.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// As in a path.
    pub plural: &'static str,
    /// As in an object.
    pub kind: &'static str,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
    /// Whether a change of its spec counts a generation.
    pub generation: bool,
    /// Whether `/status` is written apart from the rest.
    pub status: bool,
    /// Whether it is defined by a CustomResourceDefinition: then lists name the kind of each item.
    pub custom: bool,
    /// Fields, beside name and namespace, that a field selector may ask for.
    pub fields: &'static [&'static str],
}

const NONE: &[&str] = &[];

const fn built_in(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    generation: bool,
    status: bool,
) -> Resource {
    Resource { group, version, plural, kind, namespaced: true, generation, status, custom: false, fields: NONE }
}

const fn custom(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    fields: &'static [&'static str],
) -> Resource {
    Resource { group, version, plural, kind, namespaced: true, generation: true, status: true, custom: true, fields }
}

const fn cluster_wide(plural: &'static str, kind: &'static str) -> Resource {
    Resource {
        group: "admissionregistration.k8s.io",
        version: "v1",
        plural,
        kind,
        namespaced: false,
        generation: true,
        status: false,
        custom: false,
        fields: NONE,
    }
}

/// CanaryReleases.
pub const CANARY_RELEASES: &Resource =
    &custom("canaryrelease.dev", "v1alpha1", "canaryreleases", "CanaryRelease", &["spec.target.name"]);
/// Records of releases.
pub const RELEASE_RECORDS: &Resource =
    &custom("canaryrelease.dev", "v1alpha1", "releaserecords", "ReleaseRecord", NONE);
/// Routes.
pub const HTTP_ROUTES: &Resource = &custom("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute", NONE);
/// Deployments.
pub const DEPLOYMENTS: &Resource = &built_in("apps", "v1", "deployments", "Deployment", true, true);
/// ReplicaSets.
pub const REPLICA_SETS: &Resource = &built_in("apps", "v1", "replicasets", "ReplicaSet", true, true);
/// ControllerRevisions.
pub const CONTROLLER_REVISIONS: &Resource =
    &built_in("apps", "v1", "controllerrevisions", "ControllerRevision", false, false);
/// Pods.
pub const PODS: &Resource = &built_in("", "v1", "pods", "Pod", true, true);
/// Jobs.
pub const JOBS: &Resource = &built_in("batch", "v1", "jobs", "Job", true, true);
/// CronJobs.
pub const CRON_JOBS: &Resource = &built_in("batch", "v1", "cronjobs", "CronJob", true, true);
/// Services.
pub const SERVICES: &Resource = &built_in("", "v1", "services", "Service", false, true);
/// Autoscalers.
pub const AUTOSCALERS: &Resource =
    &built_in("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", false, true);
/// Disruption budgets.
pub const BUDGETS: &Resource = &built_in("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true, true);
/// Network policies.
pub const NETWORK_POLICIES: &Resource =
    &built_in("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true, false);
/// Events.
pub const EVENTS: &Resource = &built_in("events.k8s.io", "v1", "events", "Event", false, false);
/// Leases.
pub const LEASES: &Resource = &built_in("coordination.k8s.io", "v1", "leases", "Lease", false, false);
/// Policies that change.
pub const MUTATING_POLICIES: &Resource = &cluster_wide("mutatingadmissionpolicies", "MutatingAdmissionPolicy");
/// Their bindings.
pub const MUTATING_BINDINGS: &Resource =
    &cluster_wide("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding");
/// Policies that refuse.
pub const VALIDATING_POLICIES: &Resource = &cluster_wide("validatingadmissionpolicies", "ValidatingAdmissionPolicy");
/// Their bindings.
pub const VALIDATING_BINDINGS: &Resource =
    &cluster_wide("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding");

/// All of them.
pub const ALL: &[&Resource] = &[
    CANARY_RELEASES,
    RELEASE_RECORDS,
    HTTP_ROUTES,
    DEPLOYMENTS,
    REPLICA_SETS,
    CONTROLLER_REVISIONS,
    PODS,
    JOBS,
    CRON_JOBS,
    SERVICES,
    AUTOSCALERS,
    BUDGETS,
    NETWORK_POLICIES,
    EVENTS,
    LEASES,
    MUTATING_POLICIES,
    MUTATING_BINDINGS,
    VALIDATING_POLICIES,
    VALIDATING_BINDINGS,
];

impl Resource {
    /// The resource at this place of the API, if it is served.
    #[must_use]
    pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|known| (known.group, known.version, known.plural) == (group, version, plural))
    }

    /// The resource of this kind.
    #[must_use]
    pub fn of_kind(kind: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|known| known.kind == kind)
    }

    /// `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// As messages name it: `deployments.apps`, `services`.
    #[must_use]
    pub fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}
