//! What the API server answers, as a list of cases that any API server can be asked: the world's in `cargo test`, a real
//! one in `cargo xtask test`. A case is a request of the kinds that the operator and the people of a scenario make, and
//! what must be in the answer. It decides nothing; where the two differ, the world is wrong.

pub mod policies;

use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// An answer: its code and what it shows.
type Answer = (u16, Value);

const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
/// Who an administrator wants to be taken for.
pub(crate) const IMPERSONATE: &str = "impersonate-user";
const BAD_PATCH: &str = "the server rejected our request due to an error in our request";

/// Asks everything in a namespace that is empty, and says how many answers were looked at, and which were not as they
/// must be.
pub async fn differences(client: &Client, namespace: &str) -> (usize, Vec<String>) {
    let mut asking = Asking::new(client, namespace);
    asking.life_of_an_object().await;
    asking.patches().await;
    asking.generations_and_status().await;
    asking.lists().await;
    asking.deletions().await;
    (asking.asked, asking.wrong)
}

/// The same of the admission policies, which are installed there: where people have their rights by
/// [`policies::let_in`], or by [`policies::lacking`].
pub async fn differences_in_policy(client: &Client, namespace: &str) -> (usize, Vec<String>) {
    let mut asking = Asking::new(client, namespace);
    asking.policies().await;
    (asking.asked, asking.wrong)
}

struct Asking {
    client: Client,
    namespace: String,
    /// Who asks, by impersonation; empty for the client's own user.
    user: String,
    asked: usize,
    wrong: Vec<String>,
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "web:v1"}]}},
    }})
}

fn release(name: &str, target: &str) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {
        "target": {"name": target},
        "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "r_total"}},
        "stages": [{"weight": "100%", "duration": "60s"}],
        "gates": [{"name": "errors", "errorRate": {"bad": "b_total", "total": "r_total", "limit": "1%"}}],
    }});
    object["apiVersion"] = json!("canaryrelease.dev/v1alpha1");
    object["kind"] = json!("CanaryRelease");
    object
}

impl Asking {
    fn new(client: &Client, namespace: &str) -> Self {
        let (client, namespace) = (client.clone(), namespace.to_owned());
        Self { client, namespace, user: String::new(), asked: 0, wrong: Vec::new() }
    }

    fn path(&self, plural: &str, rest: &str) -> String {
        let group = match plural {
            "services" => "/api/v1",
            "canaryreleases" | "releaserecords" => "/apis/canaryrelease.dev/v1alpha1",
            "httproutes" => "/apis/gateway.networking.k8s.io/v1",
            "jobs" => "/apis/batch/v1",
            _ => "/apis/apps/v1",
        };
        format!("{group}/namespaces/{}/{plural}{rest}", self.namespace)
    }

    async fn ask(&mut self, method: Method, path: &str, content: &str, body: Option<&Value>) -> Answer {
        self.ask_for(method, path, content, JSON, body).await
    }

    async fn ask_for(
        &mut self,
        method: Method,
        path: &str,
        content: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Answer {
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = Request::builder().method(method).uri(path);
        let mut request = request.header(http::header::CONTENT_TYPE, content).header(http::header::ACCEPT, accept);
        if !self.user.is_empty() {
            request = request.header(IMPERSONATE, &self.user);
        }
        let response = self.client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.ask(Method::GET, path, JSON, None).await
    }

    async fn patch(&mut self, path: &str, operations: Value) -> Answer {
        self.ask(Method::PATCH, path, JSON_PATCH, Some(&operations)).await
    }

    /// That an answer has this code, and these values at these places.
    fn expect(&mut self, what: &str, answer: &Answer, code: u16, shown: &[(&str, Value)]) {
        self.asked += 1;
        if answer.0 != code {
            let why = answer.1["message"].as_str().unwrap_or_default();
            self.wrong.push(format!("{what}: answered {} and not {code}: {why}", answer.0));
            return;
        }
        for (pointer, must) in shown {
            let seen = answer.1.pointer(pointer).unwrap_or(&Value::Null);
            if seen != must {
                self.wrong.push(format!("{what}: {pointer} is {seen} and not {must}"));
            }
        }
    }

    fn same(&mut self, what: &str, pointer: &str, one: &Answer, other: &Answer, same: bool) {
        self.asked += 1;
        let (one, other) = (one.1.pointer(pointer), other.1.pointer(pointer));
        if (one == other) != same || one.is_none() {
            let must = if same { "the same" } else { "another" };
            self.wrong.push(format!("{what}: {pointer} is {one:?}, then {other:?}: must be {must}"));
        }
    }

    async fn life_of_an_object(&mut self) {
        let (all, one) = (self.path("deployments", ""), self.path("deployments", "/life"));
        let missing = self.get(&one).await;
        let details = ("/details", json!({"name": "life", "group": "apps", "kind": "deployments"}));
        let words = ("/message", json!("deployments.apps \"life\" not found"));
        self.expect("get what is not there", &missing, 404, &[("/reason", json!("NotFound")), details, words]);
        let nothing = self.patch(&one, json!([{"op": "remove", "path": "/spec/paused"}])).await;
        self.expect("patch what is not there", &nothing, 404, &[("/reason", json!("NotFound"))]);

        let made = self.ask(Method::POST, &all, JSON, Some(&deployment("life"))).await;
        let defaults = [
            ("/metadata/generation", json!(1)),
            ("/spec/progressDeadlineSeconds", json!(600)),
            ("/spec/revisionHistoryLimit", json!(10)),
            ("/spec/strategy/rollingUpdate/maxSurge", json!("25%")),
            ("/spec/template/spec/containers/0/imagePullPolicy", json!("IfNotPresent")),
            ("/spec/paused", Value::Null),
        ];
        self.expect("create", &made, 201, &defaults);
        let again = self.ask(Method::POST, &all, JSON, Some(&deployment("life"))).await;
        let words = ("/message", json!("deployments.apps \"life\" already exists"));
        self.expect("create it again", &again, 409, &[("/reason", json!("AlreadyExists")), words]);
        let read = self.get(&one).await;
        self.expect("get", &read, 200, &[("/kind", json!("Deployment")), ("/metadata/name", json!("life"))]);
        self.same("get", "/metadata/uid", &made, &read, true);
        self.same("get", "/metadata/resourceVersion", &made, &read, true);

        let mut old = read.1.clone();
        old["spec"]["replicas"] = json!(3);
        let put = self.ask(Method::PUT, &one, JSON, Some(&old)).await;
        self.expect("put", &put, 200, &[("/metadata/generation", json!(2)), ("/spec/replicas", json!(3))]);
        let put = self.ask(Method::PUT, &one, JSON, Some(&old)).await;
        let words = "Operation cannot be fulfilled on deployments.apps \"life\": the object has been modified; please \
                     apply your changes to the latest version and try again";
        self.expect("put an old version", &put, 409, &[("/reason", json!("Conflict")), ("/message", json!(words))]);
    }

    async fn patches(&mut self) {
        let all = self.path("deployments", "");
        let one = self.path("deployments", "/patched");
        let made = self.ask(Method::POST, &all, JSON, Some(&deployment("patched"))).await;
        self.expect("create", &made, 201, &[]);
        let (uid, version) = (made.1["metadata"]["uid"].clone(), made.1["metadata"]["resourceVersion"].clone());
        let other_uid = json!([{"op": "test", "path": "/metadata/uid", "value": "another"}]);
        let answer = self.patch(&one, other_uid).await;
        let refused = [("/reason", json!("Invalid")), ("/message", json!(BAD_PATCH))];
        self.expect("patch with a test that fails", &answer, 422, &refused);
        let answer = self.patch(&one, json!([{"op": "remove", "path": "/metadata/annotations/none"}])).await;
        self.expect("patch away what is not there", &answer, 422, &refused);

        let guard = json!({"op": "test", "path": "/metadata/uid", "value": uid});
        let at = json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version});
        let pause = json!({"op": "add", "path": "/spec/paused", "value": true});
        let dry = self.patch(&format!("{one}?dryRun=All"), json!([guard, at, pause])).await;
        self.expect("patch as a dry run", &dry, 200, &[("/spec/paused", json!(true))]);
        let read = self.get(&one).await;
        self.expect("get after a dry run", &read, 200, &[("/spec/paused", Value::Null)]);
        self.same("get after a dry run", "/metadata/resourceVersion", &made, &read, true);

        let done = self.patch(&one, json!([guard, at, pause])).await;
        let shown = [("/spec/paused", json!(true)), ("/metadata/generation", json!(2))];
        self.expect("patch of the version that is there", &done, 200, &shown);
        let late = self.patch(&one, json!([guard, at, pause])).await;
        self.expect("patch of a version that is old", &late, 409, &[("/reason", json!("Conflict"))]);
        let same = self.patch(&one, json!([guard, pause])).await;
        self.expect("patch that changes nothing", &same, 200, &[("/metadata/generation", json!(2))]);
        self.same("patch that changes nothing", "/metadata/resourceVersion", &done, &same, true);

        let merge = json!({"metadata": {"annotations": {"a": "1"}}, "spec": {"paused": null}});
        let merged = self.ask(Method::PATCH, &one, MERGE_PATCH, Some(&merge)).await;
        let shown = [("/metadata/annotations/a", json!("1")), ("/spec/paused", Value::Null)];
        self.expect("merge patch", &merged, 200, &shown);
        let noted = json!({"metadata": {"annotations": {"a": "2"}}});
        let noted = self.ask(Method::PATCH, &one, MERGE_PATCH, Some(&noted)).await;
        self.expect("patch of an annotation", &noted, 200, &[("/metadata/annotations/a", json!("2"))]);
        // The one kind that counts it.
        self.same("patch of an annotation", "/metadata/generation", &merged, &noted, false);
        self.same("patch of an annotation", "/metadata/resourceVersion", &merged, &noted, false);
    }

    async fn generations_and_status(&mut self) {
        let all = self.path("canaryreleases", "");
        let one = self.path("canaryreleases", "/status");
        let status = self.path("canaryreleases", "/status/status");
        let mut object = release("status", "web");
        object["status"] = json!({"message": "made with it"});
        let made = self.ask(Method::POST, &all, JSON, Some(&object)).await;
        let shown = [("/metadata/generation", json!(1)), ("/status", json!({"observedGeneration": -1}))];
        self.expect("create with a status", &made, 201, &shown);

        let mut object = made.1.clone();
        object["status"] = json!({"message": "said"});
        object["spec"]["target"]["name"] = json!("another");
        let put = self.ask(Method::PUT, &status, JSON, Some(&object)).await;
        let shown = [
            ("/status/message", json!("said")),
            ("/spec/target/name", json!("web")),
            ("/metadata/generation", json!(1)),
        ];
        self.expect("put of the status", &put, 200, &shown);
        self.same("put of the status", "/metadata/resourceVersion", &made, &put, false);
        let late = self.ask(Method::PUT, &status, JSON, Some(&object)).await;
        self.expect("put of a status on an old version", &late, 409, &[("/reason", json!("Conflict"))]);

        let mut object = put.1.clone();
        object["status"] = json!({"message": "unsaid"});
        object["spec"]["drain"] = json!("7s");
        let put = self.ask(Method::PUT, &one, JSON, Some(&object)).await;
        let shown =
            [("/status/message", json!("said")), ("/spec/drain", json!("7s")), ("/metadata/generation", json!(2))];
        self.expect("put of the spec with another status", &put, 200, &shown);
    }

    async fn lists(&mut self) {
        for name in ["list-a", "list-b"] {
            let all = self.path("deployments", "");
            let made = self.ask(Method::POST, &all, JSON, Some(&deployment(name))).await;
            self.expect("create", &made, 201, &[]);
        }
        let all = self.path("canaryreleases", "");
        let made = self.ask(Method::POST, &all, JSON, Some(&release("listed", "list-a"))).await;
        self.expect("create", &made, 201, &[]);

        let path = self.path("deployments", "?labelSelector=app%3Dlist-a");
        let list = self.get(&path).await;
        let shown = [
            ("/kind", json!("DeploymentList")),
            ("/items/0/metadata/name", json!("list-a")),
            ("/items/0/kind", Value::Null),
            ("/items/1", Value::Null),
        ];
        self.expect("list by label", &list, 200, &shown);
        let path = self.path("deployments", "?labelSelector=nothing%3Dlike-it");
        let none = self.get(&path).await;
        self.expect("list nothing", &none, 200, &[("/items", json!([]))]);
        let path = self.path("canaryreleases", "?fieldSelector=spec.target.name%3Dlist-a");
        let list = self.get(&path).await;
        let shown = [
            ("/items/0/metadata/name", json!("listed")),
            ("/items/0/kind", json!("CanaryRelease")),
            ("/items/1", Value::Null),
        ];
        self.expect("list by field", &list, 200, &shown);
        let path = self.path("canaryreleases", "?fieldSelector=spec.drain%3D7s");
        let refused = self.get(&path).await;
        self.expect("list by a field that can't be selected", &refused, 400, &[("/reason", json!("BadRequest"))]);
        let path = self.path("deployments", "?labelSelector=app%3Dlist-a");
        let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let list = self.ask_for(Method::GET, &path, JSON, accept, None).await;
        let shown = [
            ("/kind", json!("PartialObjectMetadataList")),
            ("/items/0/metadata/labels/app", json!("list-a")),
            ("/items/0/spec", Value::Null),
        ];
        self.expect("list metadata", &list, 200, &shown);
    }

    async fn deletions(&mut self) {
        let all = self.path("canaryreleases", "");
        let one = self.path("canaryreleases", "/kept");
        let mut kept = release("kept", "kept");
        kept["metadata"]["finalizers"] = json!(["canaryrelease.dev/finalizer"]);
        let made = self.ask(Method::POST, &all, JSON, Some(&kept)).await;
        self.expect("create with a finalizer", &made, 201, &[]);
        let uid = made.1["metadata"]["uid"].clone();
        let other = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "another"}});
        let refused = self.ask(Method::DELETE, &one, JSON, Some(&other)).await;
        self.expect("delete another uid", &refused, 409, &[("/reason", json!("Conflict"))]);
        let own = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": uid}});
        let marked = self.ask(Method::DELETE, &one, JSON, Some(&own)).await;
        self.expect("delete what has a finalizer", &marked, 200, &[("/kind", json!("CanaryRelease"))]);
        let read = self.get(&one).await;
        self.expect("get what is being deleted", &read, 200, &[("/metadata/deletionGracePeriodSeconds", json!(0))]);
        self.same("get what is being deleted", "/metadata/deletionTimestamp", &marked, &read, true);
        let added = self.patch(&one, json!([{"op": "add", "path": "/metadata/finalizers/-", "value": "x/y"}])).await;
        self.expect("add a finalizer to what is being deleted", &added, 422, &[("/reason", json!("Invalid"))]);
        let freed = self.patch(&one, json!([{"op": "remove", "path": "/metadata/finalizers"}])).await;
        self.expect("take the last finalizer away", &freed, 200, &[]);
        let read = self.get(&one).await;
        self.expect("get what is gone", &read, 404, &[("/reason", json!("NotFound"))]);
        let again = self.ask(Method::DELETE, &one, JSON, None).await;
        self.expect("delete what is gone", &again, 404, &[("/reason", json!("NotFound"))]);

        let path = self.path("deployments", "/list-a");
        let gone = self.ask(Method::DELETE, &path, JSON, Some(&json!({"propagationPolicy": "Background"}))).await;
        let shown = [
            ("/kind", json!("Status")),
            ("/status", json!("Success")),
            ("/details/name", json!("list-a")),
            ("/details/kind", json!("deployments")),
        ];
        self.expect("delete", &gone, 200, &shown);
        let read = self.get(&path).await;
        self.expect("get after the deletion", &read, 404, &[]);
        let path = format!("/apis/canaryrelease.dev/v1alpha1/namespaces/{}/nothings", self.namespace);
        let unknown = self.get(&path).await;
        self.expect("a kind that is not served", &unknown, 404, &[]);
    }
}
