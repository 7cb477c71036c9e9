//! What the admission policies of `deploy/` make of writes by people, tools and the operator, as
//! [`super::differences_in_policy`] asks: the world's stand for them in Rust, a real API server has the policies themselves.

use std::time::{Duration, Instant};

use canary_api::names::{FIELD_MANAGER, OPERATOR_USER};
use http::Method;
use kube::Client;
use serde_json::{Value, json};

use super::{Answer, Asking, JSON, JSON_PATCH, MERGE_PATCH, deployment, release};

/// Writes Deployments, routes, Jobs, records and CanaryReleases; has no verb of ours.
const JANE: &str = "contract:jane";
/// The same, and every verb of ours.
const ANNA: &str = "contract:anna";
/// Writes CanaryReleases and nothing else.
const NORA: &str = "contract:nora";

const VERBS: [&str; 7] = ["abort", "pause", "resume", "approve", "promote", "retry", "override"];

/// Roles in this namespace for the people who write.
fn people(namespace: &str) -> Vec<Value> {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let all = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let releases = rule("canaryrelease.dev", &["canaryreleases", "canaryreleases/status"], &all);
    let rest = [
        rule("canaryrelease.dev", &["releaserecords", "releaserecords/status"], &all),
        rule("apps", &["deployments", "deployments/status"], &all),
        rule("gateway.networking.k8s.io", &["httproutes"], &all),
        rule("batch", &["jobs"], &all),
    ];
    let role = |name: &str, rules: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name, "namespace": namespace}, "rules": rules})
    };
    let bound = |name: &str, users: &[&str]| {
        let subjects: Vec<Value> = users
            .iter()
            .map(|user| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}))
            .collect();
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": namespace}, "subjects": subjects,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}})
    };
    vec![
        role("writer", json!([releases])),
        role("developer", json!(rest)),
        role("releaser", json!([rule("canaryrelease.dev", &["canaryreleases"], &VERBS)])),
        bound("writer", &[JANE, ANNA, NORA]),
        bound("developer", &[JANE, ANNA]),
        bound("releaser", &[ANNA]),
    ]
}

/// Gives them their rights on a real API server, and waits until it knows.
///
/// # Errors
/// When a role is refused, or half a minute later a right is still not there.
pub async fn let_in(client: &Client, namespace: &str) -> Result<(), String> {
    let mut asking = Asking::new(client, namespace);
    for object in people(namespace) {
        let plural = if object["kind"] == "Role" { "roles" } else { "rolebindings" };
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{plural}");
        let (code, said) = asking.ask(Method::POST, &path, JSON, Some(&object)).await;
        if code != 201 {
            return Err(format!("create {plural} {}: {code}: {said}", object["metadata"]["name"]));
        }
    }
    let rights = [
        (JANE, "update", "canaryrelease.dev", "canaryreleases"),
        (NORA, "update", "canaryrelease.dev", "canaryreleases"),
        (JANE, "update", "apps", "deployments"),
        (ANNA, "update", "apps", "deployments"),
        (ANNA, "override", "canaryrelease.dev", "canaryreleases"),
    ];
    let started = Instant::now();
    for (user, verb, group, resource) in rights {
        let wanted = json!({"namespace": namespace, "verb": verb, "group": group, "resource": resource});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": wanted}});
        while !asking.may(&review).await {
            if started.elapsed() > Duration::from_secs(30) {
                return Err(format!("{user} may still not {verb} {resource} in {namespace}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// The same for the world, which knows rights only as what a user has not: user, verb and resource.
#[must_use]
pub fn lacking() -> Vec<(String, &'static str, &'static str)> {
    let mut lacking: Vec<_> =
        VERBS.iter().flat_map(|verb| [JANE, NORA].map(|user| (user.to_owned(), *verb, "canaryreleases"))).collect();
    lacking.extend(["deployments", "httproutes"].map(|resource| (NORA.to_owned(), "update", resource)));
    lacking
}

const RELEASE: &str = "/metadata/labels/canaryrelease.dev~1release";
const PAUSED: &str = "/spec/paused";
const IMAGE: &str = "/spec/template/spec/containers/0/image";

/// Where one of our annotations stands.
fn note(key: &str) -> String {
    format!("/metadata/annotations/canaryrelease.dev~1{key}")
}

fn notes(pairs: &[(&str, Value)]) -> Value {
    let notes = pairs.iter().map(|(key, value)| (format!("canaryrelease.dev/{key}"), value.clone()));
    json!({"metadata": {"annotations": notes.collect::<serde_json::Map<_, _>>()}})
}

/// Two merge patches in one; what either takes off is taken off.
fn and(mut one: Value, other: &Value) -> Value {
    match (one.as_object_mut(), other.as_object()) {
        (Some(fields), Some(more)) => {
            for (key, value) in more {
                let merged = and(fields.remove(key).unwrap_or_default(), value);
                fields.insert(key.clone(), merged);
            }
            one
        }
        _ => other.clone(),
    }
}

/// The label by which an object is the release's.
fn armed() -> Value {
    json!({"metadata": {"labels": {"canaryrelease.dev/release": "web"}}})
}

/// A weight of the first rule, as an operation of a JSON patch.
fn weight(at: usize, weight: u32) -> Value {
    json!({"op": "add", "path": format!("/spec/rules/0/backendRefs/{at}/weight"), "value": weight})
}

fn pushed(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}})
}

fn pause(on: bool) -> Value {
    json!({"spec": {"paused": on}})
}

/// A write, by whom and how.
struct By<'a> {
    user: &'a str,
    manager: &'a str,
    plural: &'a str,
    name: &'a str,
}

impl<'a> By<'a> {
    fn new(user: &'a str, manager: &'a str, plural: &'a str, name: &'a str) -> Self {
        Self { user, manager, plural, name }
    }

    fn operator(plural: &'a str, name: &'a str) -> Self {
        Self::new(OPERATOR_USER, FIELD_MANAGER, plural, name)
    }
}

impl Asking {
    async fn may(&mut self, review: &Value) -> bool {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        self.ask(Method::POST, path, JSON, Some(review)).await.1["status"]["allowed"] == true
    }

    pub(super) async fn policies(&mut self) {
        self.the_hold().await;
        self.what_is_ours_on_a_deployment().await;
        self.while_it_is_rolled().await;
        self.an_override().await;
        self.a_split_route().await;
        self.rules_of_a_split_route().await;
        self.a_route_that_is_overridden().await;
        self.commands().await;
        self.commands_that_are_pending().await;
        self.writers().await;
        self.records_and_jobs().await;
    }

    /// Asks for an object as that user, with what is added to its path, such as `/status`, and to its query.
    async fn send(
        &mut self,
        method: Method,
        by: &By<'_>,
        (rest, query): (&str, &str),
        content: &str,
        body: &Value,
    ) -> Answer {
        let path = self.path(by.plural, &format!("/{}{rest}?fieldManager={}{query}", by.name, by.manager));
        by.user.clone_into(&mut self.user);
        self.ask(method, &path, content, Some(body)).await
    }

    async fn merge(&mut self, by: &By<'_>, patch: &Value) -> Answer {
        self.send(Method::PATCH, by, ("", ""), MERGE_PATCH, patch).await
    }

    async fn dry(&mut self, by: &By<'_>, patch: &Value) -> Answer {
        self.send(Method::PATCH, by, ("", "&dryRun=All"), MERGE_PATCH, patch).await
    }

    async fn operations(&mut self, by: &By<'_>, patch: &Value) -> Answer {
        self.send(Method::PATCH, by, ("", ""), JSON_PATCH, patch).await
    }

    async fn state(&mut self, by: &By<'_>, patch: &Value) -> Answer {
        self.send(Method::PATCH, by, ("/status", ""), MERGE_PATCH, patch).await
    }

    /// The object as it stands, read by an administrator.
    async fn now(&mut self, by: &By<'_>) -> Value {
        self.user.clear();
        let path = self.path(by.plural, &format!("/{}", by.name));
        self.get(&path).await.1
    }

    /// The operator's way to write a status: all of it, on the version that was read.
    async fn put_status(&mut self, by: &By<'_>, patch: &Value) -> Answer {
        let mut object = self.now(by).await;
        json_patch::merge(&mut object, patch);
        self.send(Method::PUT, by, ("/status", ""), JSON, &object).await
    }

    /// A tool's full replace by what is in Git, which has no version.
    async fn put(&mut self, by: &By<'_>, object: &Value) -> Answer {
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = self.now(by).await["metadata"]["resourceVersion"].clone();
        self.send(Method::PUT, by, ("", ""), JSON, &object).await
    }

    async fn make(&mut self, user: &str, plural: &str, object: &Value) -> Answer {
        let path = self.path(plural, "");
        user.clone_into(&mut self.user);
        self.ask(Method::POST, &path, JSON, Some(object)).await
    }

    /// That a policy refused it.
    fn refused(&mut self, what: &str, answer: &Answer, policy: &str) {
        self.expect(what, answer, 403, &[("/reason", json!("Forbidden"))]);
        self.asked += 1;
        let words = format!("ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: ");
        let said = answer.1["message"].as_str().unwrap_or_default();
        if !said.contains(&words) {
            self.wrong.push(format!("{what}: refused with {said:?} and not by {policy}"));
        }
    }

    /// That an answer has these values at these places, given as text.
    fn shows(&mut self, what: &str, answer: &Answer, shown: &[(String, Value)]) {
        let shown: Vec<(&str, Value)> = shown.iter().map(|(place, value)| (place.as_str(), value.clone())).collect();
        self.expect(what, answer, 200, &shown);
    }

    /// A Deployment that is taken over, made as it then stands.
    async fn target(&mut self, name: &str) {
        let object = and(and(deployment(name), &armed()), &notes(&[("uid", json!("uid-1"))]));
        let made = self.make("", "deployments", &object).await;
        self.expect("create a target", &made, 201, &[(PAUSED, Value::Null), (RELEASE, json!("web"))]);
    }

    async fn the_hold(&mut self) {
        self.target("held").await;
        let (jane, anna) = (By::new(JANE, "ci", "deployments", "held"), By::new(ANNA, "ci", "deployments", "held"));
        let operator = By::operator("deployments", "held");
        let idle = [(PAUSED.to_owned(), Value::Null), (note("changed-by"), Value::Null)];
        let noted = self.merge(&jane, &json!({"metadata": {"annotations": {"note": "x"}}})).await;
        self.shows("a note on a target", &noted, &idle);
        let scaled = self.merge(&jane, &json!({"spec": {"replicas": 3}})).await;
        self.shows("a scale of a target", &scaled, &idle);
        let restart = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
        let restarted = json!({"spec": {"template": {"metadata": {"annotations": restart}}}});
        let restarted = self.merge(&jane, &restarted).await;
        self.shows("a restart of a target", &restarted, &idle);

        let held = |by: &str| [(PAUSED.to_owned(), json!(true)), (note("changed-by"), json!(by))];
        let dry = self.dry(&operator, &pushed("web:v2")).await;
        self.shows("the operator's dry run of a new template", &dry, &held(OPERATOR_USER));
        let push = self.merge(&jane, &pushed("web:v2")).await;
        self.shows("a new template", &push, &held(JANE));
        self.shows("a new template", &push, &[(IMAGE.to_owned(), json!("web:v2"))]);
        for manager in ["kubectl-rollout", "kubectl-patch", "kubectl-edit"] {
            let answer = self.merge(&By::new(ANNA, manager, "deployments", "held"), &pause(false)).await;
            self.refused("a person's resume of what is held", &answer, "canaryrelease-guard");
        }
        let silent = self.merge(&jane, &pause(false)).await;
        self.shows("a tool's resume of what is held", &silent, &held(JANE));
        self.same("a tool's resume of what is held", "/metadata/generation", &push, &silent, true);
        let mut git = deployment("held");
        git["spec"]["replicas"] = json!(3);
        git["spec"]["template"] = push.1["spec"]["template"].clone();
        let put = self.put(&anna, &git).await;
        self.shows("a replace without our marks", &put, &held(JANE));
        self.shows(
            "a replace without our marks",
            &put,
            &[(RELEASE.into(), json!("web")), (note("uid"), json!("uid-1"))],
        );
        self.same("a replace without our marks", "/spec", &silent, &put, true);

        let both = self.merge(&anna, &and(pushed("web:v3"), &pause(false))).await;
        self.shows("a new template and a resume in one", &both, &held(ANNA));
        let back = self.merge(&jane, &pushed("web:v1")).await;
        self.shows("the old template put back", &back, &held(JANE));
        let undo = and(and(pushed("web:v1"), &pause(false)), &notes(&[("changed-by", Value::Null)]));
        let undone = self.merge(&operator, &undo).await;
        let done = [(PAUSED.to_owned(), Value::Null), (note("changed-by"), Value::Null)];
        self.shows("the operator lets go", &undone, &done);
        let own = self.merge(&By::new(JANE, "kubectl-rollout", "deployments", "held"), &pause(true)).await;
        self.shows(
            "a person's own pause",
            &own,
            &[(PAUSED.to_owned(), json!(true)), (note("changed-by"), Value::Null)],
        );
        let own = self.merge(&By::new(JANE, "kubectl-rollout", "deployments", "held"), &pause(false)).await;
        self.shows("the end of a person's own pause", &own, &done);
    }

    async fn what_is_ours_on_a_deployment(&mut self) {
        self.target("marked").await;
        let jane = By::new(JANE, "kubectl-patch", "deployments", "marked");
        let forged: Vec<(&str, Value)> =
            ["changed-by", "uid", "rolling", "override-by", "mine"].map(|key| (key, json!("x"))).into();
        let kept = [
            (RELEASE.to_owned(), json!("web")),
            (note("uid"), json!("uid-1")),
            (note("changed-by"), Value::Null),
            (note("rolling"), Value::Null),
            (note("override-by"), Value::Null),
            (note("mine"), Value::Null),
            (PAUSED.to_owned(), Value::Null),
        ];
        let answer = self.merge(&jane, &notes(&forged)).await;
        self.shows("forged marks", &answer, &kept);
        let answer = self.merge(&jane, &json!({"metadata": {"annotations": null, "labels": null}})).await;
        self.shows("marks that are taken off", &answer, &kept);
        let answer = self.merge(&jane, &json!({"metadata": {"labels": {"canaryrelease.dev/release": "other"}}})).await;
        self.shows("another's label", &answer, &kept);
        let status = and(notes(&forged), &json!({"status": {"observedGeneration": 1}}));
        let answer = self.state(&jane, &status).await;
        self.shows("forged marks through the status", &answer, &kept);
        let plain = self.make("", "deployments", &deployment("plain")).await;
        self.expect("create a Deployment of nobody's", &plain, 201, &[]);
        let answer = self.merge(&By::new(JANE, "ci", "deployments", "plain"), &and(pushed("web:v2"), &armed())).await;
        self.shows(
            "a write that arms",
            &answer,
            &[(PAUSED.to_owned(), Value::Null), (note("changed-by"), Value::Null)],
        );
    }

    async fn while_it_is_rolled(&mut self) {
        self.target("rolled").await;
        let (jane, anna) = (By::new(JANE, "ci", "deployments", "rolled"), By::new(ANNA, "ci", "deployments", "rolled"));
        let operator = By::operator("deployments", "rolled");
        let rolling = self.merge(&operator, &and(pushed("web:v2"), &notes(&[("rolling", json!("web-3"))]))).await;
        let shown =
            [(PAUSED.to_owned(), Value::Null), (note("rolling"), json!("web-3")), (note("changed-by"), Value::Null)];
        self.shows("the operator rolls it", &rolling, &shown);
        let other = self.merge(&jane, &pushed("web:v3")).await;
        self.refused("a new template while it is rolled", &other, "canaryrelease-guard");
        let noted = self.merge(&jane, &json!({"metadata": {"annotations": {"note": "x"}}})).await;
        self.shows("a note while it is rolled", &noted, &shown);
        let paused = self.merge(&jane, &pause(true)).await;
        self.shows("a pause while it is rolled", &paused, &[(PAUSED.to_owned(), json!(true))]);
        let resumed = self.merge(&By::new(JANE, "kubectl-rollout", "deployments", "rolled"), &pause(false)).await;
        self.shows("its end", &resumed, &[(PAUSED.to_owned(), Value::Null)]);
        let reason = notes(&[("override", json!("INC-1"))]);
        let broken = self.merge(&anna, &and(pushed("web:v4"), &reason)).await;
        let shown =
            [(PAUSED.to_owned(), Value::Null), (note("override-by"), json!(ANNA)), (note("changed-by"), json!(ANNA))];
        self.shows("break-glass while it is rolled", &broken, &shown);
    }

    async fn an_override(&mut self) {
        self.target("broken").await;
        let by = |user| By::new(user, "kubectl-patch", "deployments", "broken");
        let (jane, anna) = (by(JANE), by(ANNA));
        let reason = |reason: &str| notes(&[("override", json!(reason))]);
        let answer = self.merge(&jane, &reason("INC-1")).await;
        self.refused("an override without the verb", &answer, "canaryrelease-guard");
        for blank in ["", "  "] {
            let answer = self.merge(&anna, &reason(blank)).await;
            self.refused("an override without a reason", &answer, "canaryrelease-guard");
        }
        let push = self.merge(&jane, &pushed("web:v2")).await;
        self.shows("a new template", &push, &[(PAUSED.to_owned(), json!(true))]);
        let through = self.merge(&anna, &and(pause(false), &reason("INC-1"))).await;
        let stamped = [(note("override"), json!("INC-1")), (note("override-by"), json!(ANNA))];
        self.shows("break-glass on what is held", &through, &stamped);
        self.shows("break-glass on what is held", &through, &[(PAUSED.to_owned(), Value::Null)]);
        let dropped = self.merge(&jane, &notes(&[("override", Value::Null), ("override-by", Value::Null)])).await;
        self.shows("an override that another takes off", &dropped, &stamped);
        let forged = self.merge(&jane, &notes(&[("override-by", json!(JANE))])).await;
        self.shows("an override that another takes for his", &forged, &stamped);
        let other = self.merge(&jane, &pushed("web:v3")).await;
        self.shows(
            "another's new template under an override",
            &other,
            &[(PAUSED.to_owned(), json!(true)), (note("changed-by"), json!(JANE))],
        );
        let again = self.merge(&anna, &pause(false)).await;
        self.shows("a resume under one's own override", &again, &[(PAUSED.to_owned(), Value::Null)]);
        let push = self.merge(&jane, &pushed("web:v4")).await;
        self.shows("another's new template under an override", &push, &[(PAUSED.to_owned(), json!(true))]);
        let off = and(pause(false), &notes(&[("override", Value::Null)]));
        let off = self.merge(&anna, &off).await;
        self.shows("a resume that takes one's own override off", &off, &stamped);
        self.shows("a resume that takes one's own override off", &off, &[(PAUSED.to_owned(), Value::Null)]);
        let free = notes(&[("override", Value::Null), ("override-by", Value::Null)]);
        let free = self.merge(&By::operator("deployments", "broken"), &free).await;
        self.shows(
            "the operator takes an override",
            &free,
            &[(note("override"), Value::Null), (note("override-by"), Value::Null)],
        );
    }

    fn plain_route(&self, name: &str) -> Value {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"parentRefs": [{"name": "gateway"}], "rules": [
                {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": [{"name": "web", "port": 80}]},
                {"matches": [{"path": {"type": "PathPrefix", "value": "/static"}}], "backendRefs": [{"name": "files", "port": 80}]}]}})
    }

    /// A route that the operator has split, made as it then stands.
    async fn split(&mut self, name: &str, services: &[(&str, u32)]) -> Answer {
        let names: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
        let marks =
            notes(&[("uid", json!("uid-1")), ("split", json!(names.join("/"))), ("weights-before", json!("[1]"))]);
        let mut route = and(and(self.plain_route(name), &marks), &armed());
        let backends = services.iter().map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight}));
        route["spec"]["rules"][0]["backendRefs"] = backends.collect();
        let made = self.make("", "httproutes", &route).await;
        self.expect("create a split route", &made, 201, &[]);
        made
    }

    /// That a rule has these backends, in this order.
    fn backends(&mut self, what: &str, answer: &Answer, rule: usize, wanted: &[(&str, u32)]) {
        let mut shown = Vec::new();
        for (at, (name, weight)) in wanted.iter().enumerate() {
            let place = format!("/spec/rules/{rule}/backendRefs/{at}");
            shown.push((format!("{place}/name"), json!(name)));
            shown.push((format!("{place}/weight"), json!(weight)));
        }
        shown.push((format!("/spec/rules/{rule}/backendRefs/{}", wanted.len()), Value::Null));
        self.shows(what, answer, &shown);
    }

    async fn a_split_route(&mut self) {
        const SPLIT: [(&str, u32); 2] = [("web", 950), ("web-canary", 50)];
        let made = self.split("two", &SPLIT).await;
        let jane = By::new(JANE, "ci", "httproutes", "two");
        let git = self.plain_route("two");
        let put = self.put(&jane, &git).await;
        self.shows(
            "a replace by the plain route",
            &put,
            &[(RELEASE.into(), json!("web")), (note("split"), json!("web/web-canary"))],
        );
        self.same("a replace by the plain route", "/spec", &made, &put, true);
        self.same("a replace by the plain route", "/metadata/generation", &made, &put, true);
        let edit = self.operations(&jane, &json!([weight(0, 0), weight(1, 1000)])).await;
        self.backends("an edit of the weights", &edit, 0, &SPLIT);
        let remove = |at: usize| json!([{"op": "remove", "path": format!("/spec/rules/0/backendRefs/{at}")}]);
        let edit = self.operations(&jane, &remove(1)).await;
        self.backends("the canary's Service taken out", &edit, 0, &SPLIT);
        let edit = self.operations(&jane, &remove(0)).await;
        self.backends("the stable Service taken out", &edit, 0, &[SPLIT[1], SPLIT[0]]);
        let edit = self.merge(&jane, &json!({"metadata": {"labels": null, "annotations": null}})).await;
        let marks = [
            (RELEASE.into(), json!("web")),
            (note("split"), json!("web/web-canary")),
            (note("weights-before"), json!("[1]")),
        ];
        self.shows("marks taken off a route", &edit, &marks);
        let edit = self.merge(&jane, &notes(&[("split", json!("files/web")), ("mine", json!("x"))])).await;
        self.shows("marks of a route forged", &edit, &marks);
        self.shows("marks of a route forged", &edit, &[(note("mine"), Value::Null)]);
        let operator = By::operator("httproutes", "two");
        // What is at the first place by now is the canary's.
        let moved = json!({"spec": {"rules": [{"backendRefs": [
            {"name": "web", "port": 80, "weight": 1}, {"name": "web-canary", "port": 80, "weight": 999}]}]}});
        let dry = self.dry(&operator, &moved).await;
        self.backends("the operator's dry run of other weights", &dry, 0, &SPLIT);
        let done = self.merge(&operator, &moved).await;
        self.backends("the operator's weights", &done, 0, &[("web", 1), ("web-canary", 999)]);
        let undo = json!({"metadata": {"labels": null, "annotations": null}, "spec": {"rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}});
        let undone = self.merge(&operator, &undo).await;
        self.backends("the operator gives the route back", &undone, 0, &[("web", 1)]);
        let put = self.put(&jane, &git).await;
        self.backends("a replace of a route that is nobody's", &put, 0, &[("web", 1)]);
    }

    async fn rules_of_a_split_route(&mut self) {
        const SPLIT: [(&str, u32); 3] = [("web", 600), ("web-canary", 200), ("web-baseline", 200)];
        self.split("three", &SPLIT).await;
        let jane = By::new(JANE, "ci", "httproutes", "three");
        let git = self.plain_route("three");
        let with = |backends: Value| {
            let mut route = git.clone();
            let rule = json!({"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}], "backendRefs": backends});
            route["spec"]["rules"].as_array_mut().unwrap().insert(1, rule);
            route
        };
        let put = self.put(&jane, &git).await;
        self.backends("the plain route over a split in three", &put, 0, &SPLIT);
        let put = self.put(&jane, &with(json!([{"name": "web", "port": 8080}]))).await;
        self.backends("a rule that is added", &put, 1, &SPLIT);
        self.shows("a rule that is added", &put, &[("/spec/rules/1/backendRefs/2/port".to_owned(), json!(8080))]);
        self.backends("a rule of another's beside it", &put, 2, &[("files", 1)]);
        let put = self.put(&jane, &with(json!([{"name": "web", "port": 80}, {"name": "legacy", "port": 80}]))).await;
        self.backends("a rule that shares its traffic", &put, 1, &[("web", 1), ("legacy", 1)]);
        self.backends("a rule beside one that shares its traffic", &put, 0, &SPLIT);
        let foreign = json!([{"group": "example.com", "kind": "Other", "name": "web"}]);
        let put = self.put(&jane, &with(foreign)).await;
        self.backends("a backend of another kind", &put, 1, &[("web", 1)]);
        let foreign = json!([{"name": "web", "namespace": "elsewhere", "port": 80}]);
        let put = self.put(&jane, &with(foreign)).await;
        self.backends("a backend in another namespace", &put, 1, &[("web", 1)]);
        let put = self.put(&jane, &with(json!([{"name": "web-canary", "port": 80, "weight": 7}]))).await;
        self.backends(
            "a rule to the canary alone",
            &put,
            1,
            &[("web-canary", 200), ("web", 600), ("web-baseline", 200)],
        );
        let other =
            json!([{"op": "replace", "path": "/spec/rules/0/backendRefs", "value": [{"name": "files", "port": 80}]}]);
        let answer = self.operations(&jane, &other).await;
        self.backends("a rule pointed elsewhere", &answer, 0, &[("files", 1)]);
    }

    async fn a_route_that_is_overridden(&mut self) {
        self.split("glass", &[("web", 950), ("web-canary", 50)]).await;
        let by = |user| By::new(user, "ci", "httproutes", "glass");
        let edit = |stable: u32, canary: u32, reason: bool| {
            let mut all = vec![weight(0, stable), weight(1, canary)];
            if reason {
                all.push(json!({"op": "add", "path": note("override"), "value": "INC-2"}));
            }
            json!(all)
        };
        let answer = self.operations(&by(JANE), &edit(1000, 0, true)).await;
        self.refused("an override of a route without the verb", &answer, "canaryrelease-guard");
        let answer = self.operations(&by(ANNA), &edit(1000, 0, true)).await;
        self.backends("break-glass on a route", &answer, 0, &[("web", 1000), ("web-canary", 0)]);
        self.shows("break-glass on a route", &answer, &[(note("override-by"), json!(ANNA))]);
        let put = self.plain_route("glass");
        let put = self.put(&by(JANE), &put).await;
        self.backends("a sync over it", &put, 0, &[("web", 1000), ("web-canary", 0)]);
        let answer = self.operations(&by(ANNA), &edit(990, 10, false)).await;
        self.backends("one's own edit under it", &answer, 0, &[("web", 990), ("web-canary", 10)]);
        let answer = self.operations(&by(JANE), &edit(1, 2, false)).await;
        self.backends("another's edit under it", &answer, 0, &[("web", 990), ("web-canary", 10)]);
    }

    async fn commands(&mut self) {
        let made = self.make("", "canaryreleases", &release("commanded", "web")).await;
        self.expect("create", &made, 201, &[]);
        let by = |user| By::new(user, "kubectl-annotate", "canaryreleases", "commanded");
        let give = |command: &str| notes(&[("command", json!(command))]);
        let answer = self.merge(&by(JANE), &give("abort")).await;
        self.refused("a command without the verb", &answer, "canaryrelease-command-check");
        let unknown = ["rollback", "", " abort", "Abort", "abort\nx"];
        let malformed = [
            "promote",
            "pause ",
            "promote  web-1",
            "promote web",
            "promote web-x",
            "promote web-1 0",
            "promote web-1 21",
            "promote web-1 2 3",
            "promote Web-1",
            "promote web-1 ",
            "retry web-1 2/5",
            "promote -web-1",
            "promote web-",
            "approve web-1 02",
        ];
        for command in unknown.into_iter().chain(malformed) {
            let answer = self.merge(&by(ANNA), &give(command)).await;
            self.refused(&format!("the command {command:?}"), &answer, "canaryrelease-command-check");
        }
        let forged = self.merge(&by(JANE), &notes(&[("command-by", json!("boss"))])).await;
        self.shows("a stamp without a command", &forged, &[(note("command-by"), Value::Null)]);
        for command in [
            "abort",
            "abort web-1",
            "promote web-12",
            "approve shop.web-1 20",
            "retry w-1 1",
            "resume 1-1",
            "pause web-1",
        ] {
            let answer = self.merge(&by(ANNA), &and(give(command), &notes(&[("command-by", json!("boss"))]))).await;
            let stamped = [(note("command"), json!(command)), (note("command-by"), json!(ANNA))];
            self.shows(&format!("the command {command:?}"), &answer, &stamped);
            let off = notes(&[("command", Value::Null), ("command-by", Value::Null)]);
            let taken = self.merge(&By::operator("canaryreleases", "commanded"), &off).await;
            self.shows(
                "a command that is taken",
                &taken,
                &[(note("command"), Value::Null), (note("command-by"), Value::Null)],
            );
        }
        for (user, name) in [(JANE, "born-a"), (ANNA, "born-b")] {
            let born = and(release(name, "web"), &notes(&[("command", json!("abort")), ("command-by", json!("boss"))]));
            let answer = self.make(user, "canaryreleases", &born).await;
            if user == JANE {
                self.refused("a command at birth without the verb", &answer, "canaryrelease-command-check");
            } else {
                let (command, by) = (note("command"), note("command-by"));
                self.expect("a command at birth", &answer, 201, &[(&command, json!("abort")), (&by, json!(ANNA))]);
            }
        }
        let born = and(release("born-c", "web"), &notes(&[("command-by", json!("boss"))]));
        let answer = self.make(JANE, "canaryreleases", &born).await;
        let by = note("command-by");
        self.expect("a stamp at birth", &answer, 201, &[(&by, Value::Null)]);
    }

    async fn commands_that_are_pending(&mut self) {
        let made = self.make("", "canaryreleases", &release("pending", "web")).await;
        self.expect("create", &made, 201, &[]);
        let by = |user| By::new(user, "kubectl-annotate", "canaryreleases", "pending");
        let give = |command: &str| notes(&[("command", json!(command))]);
        let there = |command: &str| [(note("command"), json!(command)), (note("command-by"), json!(ANNA))];
        let answer = self.merge(&by(ANNA), &give("promote web-1")).await;
        self.shows("a command", &answer, &there("promote web-1"));
        let answer = self.merge(&by(ANNA), &give("pause web-1")).await;
        self.refused("a command while one is pending", &answer, "canaryrelease-command-check");
        let off: [(&str, Value); 5] = [
            ("taken off", notes(&[("command", Value::Null), ("command-by", Value::Null)])),
            ("emptied", notes(&[("command", json!(""))])),
            ("taken off with all annotations", json!({"metadata": {"annotations": null}})),
            ("whose stamp is forged", notes(&[("command-by", json!(JANE))])),
            ("whose stamp is taken off", notes(&[("command-by", Value::Null)])),
        ];
        for (what, patch) in off {
            let answer = self.merge(&by(JANE), &patch).await;
            self.shows(&format!("a pending command {what}"), &answer, &there("promote web-1"));
        }
        let put = self.put(&by(JANE), &release("pending", "web")).await;
        self.shows("a pending command after a replace", &put, &there("promote web-1"));
        let answer = self.merge(&by(ANNA), &give("abort")).await;
        self.shows("abort in its place", &answer, &there("abort"));
        let answer = self.merge(&by(ANNA), &give("promote web-1")).await;
        self.refused("a command while abort is pending", &answer, "canaryrelease-command-check");
        let answer = self.merge(&by(JANE), &give("abort")).await;
        self.shows("the same command by another", &answer, &there("abort"));
    }

    async fn writers(&mut self) {
        let answer = self.make(NORA, "canaryreleases", &release("gained", "web")).await;
        self.refused("a CanaryRelease by who may not update its target", &answer, "canaryrelease-writer");
        let made = self.make(JANE, "canaryreleases", &release("written", "web")).await;
        self.expect("a CanaryRelease", &made, 201, &[]);
        let nora = By::new(NORA, "ci", "canaryreleases", "written");
        let answer = self.merge(&nora, &json!({"spec": {"drain": "9s"}})).await;
        self.refused("a spec by who may not update its target", &answer, "canaryrelease-writer");
        let answer = self.merge(&nora, &json!({"metadata": {"annotations": {"note": "x"}}})).await;
        self.shows(
            "a note by who may not update its target",
            &answer,
            &[("/metadata/annotations/note".to_owned(), json!("x"))],
        );
        let status = json!({"status": {"message": "mine"}});
        for user in ["", JANE] {
            let answer = self.state(&By::new(user, "ci", "canaryreleases", "written"), &status).await;
            self.refused("a status by anybody", &answer, "canaryrelease-status");
        }
        let operator = By::operator("canaryreleases", "written");
        let answer = self.put_status(&operator, &status).await;
        self.shows("a status by the operator", &answer, &[("/status/message".to_owned(), json!("mine"))]);
    }

    async fn records_and_jobs(&mut self) {
        let record = json!({"apiVersion": "canaryrelease.dev/v1alpha1", "kind": "ReleaseRecord", "metadata": {"name": "web-1"}, "spec": {}});
        let made = self.make(OPERATOR_USER, "releaserecords", &record).await;
        self.expect("create a record", &made, 201, &[]);
        let jane = By::new(JANE, "ci", "releaserecords", "web-1");
        let operator = By::operator("releaserecords", "web-1");
        let status = |message: &str, frozen: bool| json!({"status": {"message": message, "frozen": frozen}});
        let answer = self.state(&jane, &status("mine", false)).await;
        self.refused("a record's status by anybody", &answer, "canaryrelease-record");
        let answer = self.put_status(&operator, &status("under way", false)).await;
        self.shows("a record's status by the operator", &answer, &[("/status/message".to_owned(), json!("under way"))]);
        let answer = self.put_status(&operator, &status("over", true)).await;
        self.shows("a record is frozen", &answer, &[("/status/frozen".to_owned(), json!(true))]);
        let answer = self.put_status(&operator, &status("otherwise", true)).await;
        self.refused("a frozen record by the operator", &answer, "canaryrelease-record");
        let answer = self.merge(&jane, &json!({"spec": {"summary": "what it is for"}})).await;
        self.shows("a frozen record's spec", &answer, &[("/spec/summary".to_owned(), json!("what it is for"))]);

        let job = |name: &str| {
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"suspend": true,
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "job", "image": "job:1"}]}}}})
        };
        let mark = |uid: &str| notes(&[("uid", json!(uid))]);
        for user in ["", JANE] {
            let answer = self.make(user, "jobs", &and(job("forged"), &mark("uid-1"))).await;
            self.refused("a Job with our mark", &answer, "canaryrelease-job");
        }
        let answer = self.make(JANE, "jobs", &job("theirs")).await;
        self.expect("a Job without our mark", &answer, 201, &[]);
        let answer = self.merge(&By::new(JANE, "ci", "jobs", "theirs"), &mark("uid-1")).await;
        self.refused("our mark on a Job", &answer, "canaryrelease-job");
        let answer = self.make(OPERATOR_USER, "jobs", &and(job("ours"), &mark("uid-1"))).await;
        self.expect("a Job by the operator", &answer, 201, &[]);
        let jane = By::new(JANE, "ci", "jobs", "ours");
        let answer = self.merge(&jane, &mark("uid-2")).await;
        self.refused("another mark on a Job of ours", &answer, "canaryrelease-job");
        let answer = self.merge(&jane, &json!({"metadata": {"annotations": {"note": "x"}}})).await;
        self.shows("a note on a Job of ours", &answer, &[(note("uid"), json!("uid-1"))]);
        let answer = self.merge(&jane, &notes(&[("uid", Value::Null)])).await;
        self.shows("our mark taken off a Job", &answer, &[(note("uid"), Value::Null)]);
    }
}
