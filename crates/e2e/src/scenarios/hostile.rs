//! Users who may write CanaryReleases and little else try to gain what they may not have: another's Deployment or
//! route, a Secret, another namespace, a request of the operator's to a place of their choice, an answer that is not
//! theirs to read. Each try is refused, by RBAC, schema or policy before it is stored, or by the operator before it acts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::audit_entries;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::cluster::{Cluster, Kind, Said};
use crate::scene::{SOON, Scene};
use crate::world::OPERATOR_USER;

/// Another team's namespace, with a shop of its own.
const OTHER: &str = "hostile-other";
/// Tries that the issue asks for at least.
const AT_LEAST: usize = 25;

/// One try that the API server must refuse.
struct Try {
    what: &'static str,
    arguments: Vec<String>,
    input: Option<Value>,
    /// Each must stand in what `kubectl` says.
    says: &'static [&'static str],
}

impl Try {
    fn new(what: &'static str, arguments: &[&str], says: &'static [&'static str]) -> Self {
        Self { what, arguments: arguments.iter().map(|&word| word.to_owned()).collect(), input: None, says }
    }

    fn of(what: &'static str, arguments: &[&str], input: Value, says: &'static [&'static str]) -> Self {
        Self { input: Some(input), ..Self::new(what, arguments, says) }
    }

    fn merge(what: &'static str, patch: &Value, says: &'static [&'static str]) -> Self {
        Self::new(what, &["patch", "canaryrelease", "shop", "--type=merge", "-p", &patch.to_string()], says)
    }
}

/// Who may write CanaryReleases and nothing that they name gains nothing; who may also update one Deployment and one
/// route reaches nothing beyond them.
pub async fn whoever_writes_canaryreleases_gains_nothing_by_them(scene: &mut Scene) -> Result<()> {
    let setup = scene.plain().stages(&[("20%", "300s"), ("100%", "10s")]);
    scene.open(setup).await?;
    let lure = Lure::open().await?;
    surroundings(scene).await?;
    let from = std::fs::metadata(scene.world.lab()?.audit_log())?.len();
    scene.set_image("v2").await?;
    scene.until("stage 1 is judged", SOON, |seen| seen.baking(1)).await?;

    let mallory = user(scene, "mallory", &["canaryrelease-editor", "canaryrelease-record-editor"], &[]).await?;
    let mut tried = refuse(scene, &mallory, &refused_outright(scene)).await?;
    let tess = user(scene, "tess", &["canaryrelease-editor", "canaryrelease-record-editor"], &own_rights()).await?;
    tried += refuse(scene, &tess, &refused_to_tess(scene)).await?;
    tried += stored_and_not_acted_on(scene, &tess, &lure).await?;
    ensure!(tried >= AT_LEAST, "only {tried} tries");

    untouched(scene, &lure, from).await?;
    scene.cluster().run(&["delete", "namespace", OTHER, "--wait=false"], None).await?;
    scene.step(format!("{tried} tries, none of which gained anything"));
    scene.command("abort").await?;
    scene.ended("Aborted").await?;
    scene.no_bad_answers()
}

/// A place that nobody has a reason to speak to.
struct Lure {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
}

impl Lure {
    async fn open() -> Result<Self> {
        let listener = TcpListener::bind("10.244.0.1:0").await.context("a port on the node's own address")?;
        let (address, calls) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&calls);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(Self { address, calls })
    }
}

/// What must stay out of reach, and what the second user may have.
async fn surroundings(scene: &mut Scene) -> Result<()> {
    let namespace = scene.namespace.clone();
    let named = |kind: &str, namespace: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}});
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OTHER}});
    let mut secret = named("Secret", &namespace, "treasure");
    secret["stringData"] = json!({"key": "a-secret-that-nobody-asked-for"});
    let mut papers = named("ConfigMap", &namespace, "papers");
    papers["data"] = json!({"changes": "features:\n- not yours to read"});
    let shop = scene.objects().deployment.clone();
    let copy = |namespace: &str, name: &str| {
        let mut deployment = shop.clone();
        deployment["metadata"] = json!({"name": name, "namespace": namespace});
        deployment["spec"]["replicas"] = 1.into();
        deployment["spec"]["selector"]["matchLabels"] = json!({"app": name});
        deployment["spec"]["template"]["metadata"]["labels"] = json!({"app": name});
        deployment
    };
    let (own, pay, others) = (copy(&namespace, "own"), copy(&namespace, "pay"), copy(OTHER, "theirs"));
    let service = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}})
    };
    let route = |name: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"parentRefs": scene.objects().route["spec"]["parentRefs"], "hostnames": [format!("{name}.hostile.lab")],
                "rules": [{"backendRefs": [{"name": name, "port": 80}]}]}})
    };
    let all = [&space, &secret, &papers, &own, &pay, &others];
    scene.cluster().apply(&all).await?;
    scene.cluster().apply(&[&service("own"), &service("pay"), &route("own"), &route("pay")]).await
}

/// One Deployment and one route, by name.
fn own_rights() -> [Value; 2] {
    [
        json!({"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["own"], "verbs": ["get", "update", "patch"]}),
        json!({"apiGroups": ["gateway.networking.k8s.io"], "resources": ["httproutes"], "resourceNames": ["own"], "verbs": ["get", "update", "patch"]}),
    ]
}

/// A user with these cluster roles in the scene's namespace, and these rules.
async fn user(scene: &mut Scene, name: &str, roles: &[&str], rules: &[Value]) -> Result<Cluster> {
    let namespace = scene.namespace.clone();
    let bind = |kind: &str, role: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("{name}-{role}"), "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]})
    };
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": name, "namespace": namespace}, "rules": rules});
    let mut objects = vec![role, bind("Role", name)];
    objects.extend(roles.iter().map(|role| bind("ClusterRole", role)));
    scene.cluster().apply(&objects.iter().collect::<Vec<_>>()).await?;
    let lab = scene.world.lab()?;
    let cluster = Cluster::by_file(&lab.kubeconfig_for(name, &[])?, &lab.dir().join("bin/kubectl")).await?;
    let mut ask = vec!["auth can-i update canaryreleases -n", &namespace];
    if !rules.is_empty() {
        ask = vec!["auth can-i update deployments.apps/own -n", &namespace];
    }
    let words: Vec<&str> = ask.iter().flat_map(|part| part.split(' ')).collect();
    let end = tokio::time::Instant::now() + SOON;
    // The API server learns of a new role within half a second.
    while !cluster.kubectl(&words, None).await?.ok() {
        ensure!(tokio::time::Instant::now() < end, "{name} has not got the rights");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    scene.step(format!("{name} has {}", roles.join(" and ")));
    Ok(cluster)
}

/// A CanaryRelease for a target and its namesakes, with the scene's own stages and gates.
fn release(scene: &Scene, name: &str, namespace: &str) -> Value {
    let mut object = scene.objects().release.clone();
    object["metadata"] = json!({"name": name, "namespace": namespace});
    object["spec"]["target"]["name"] = name.into();
    object["spec"]["traffic"]["service"] = name.into();
    object["spec"]["traffic"]["routes"] = json!([{"kind": "HTTPRoute", "name": name}]);
    object
}

const NO_DEPLOYMENT: &[&str] = &["may not write CanaryRelease", "deployments.apps"];
const NO_RBAC: &[&str] = &["orbidden"];

/// What a user without the Deployment and the route tries.
fn refused_outright(scene: &Scene) -> Vec<Try> {
    let namespace = scene.namespace.as_str();
    let create = &["create", "-f", "-"];
    let with = |change: &dyn Fn(&mut Value)| {
        let mut object = release(scene, "pay", namespace);
        change(&mut object);
        object
    };
    let mut changed = scene.objects().release.clone();
    changed["spec"]["stages"] = json!([{"weight": "100%", "duration": "1s"}]);
    let status = json!({"status": {"current": {"weight": "100%", "step": "Roll"}}}).to_string();
    let command = |verb: &str| format!("canaryrelease.dev/command={verb}");
    let abort = command("abort");
    let (approve, promote, retry) = (command("approve shop-1 1"), command("promote shop-1"), command("retry shop-1"));
    let annotate =
        |what, note: &str, says| Try::new(what, &["annotate", "canaryrelease", "shop", note, "--overwrite"], says);
    let record = json!({"apiVersion": "canaryrelease.dev/v1alpha1", "kind": "ReleaseRecord",
        "metadata": {"name": "forged", "namespace": namespace}, "spec": {}, "status": {"result": "SUCCESS"}});
    vec![
        Try::of("a release of a Deployment that is not his", create, with(&|_| {}), NO_DEPLOYMENT),
        Try::of(
            "a release of a Deployment that is not there yet",
            create,
            with(&|object| object["spec"]["target"]["name"] = "later".into()),
            NO_DEPLOYMENT,
        ),
        Try::of(
            "a target in another namespace",
            create,
            with(&|object| object["spec"]["target"]["namespace"] = OTHER.into()),
            &["unknown field"],
        ),
        Try::of(
            "the same without validation by kubectl",
            &["create", "--validate=false", "-f", "-"],
            with(&|object| object["spec"]["target"] = json!({"name": "theirs", "namespace": OTHER})),
            NO_DEPLOYMENT,
        ),
        Try::of(
            "a route in another namespace",
            create,
            with(&|object| object["spec"]["traffic"]["routes"][0]["namespace"] = OTHER.into()),
            &["unknown field"],
        ),
        Try::of(
            "a release in another namespace",
            &["create", "--namespace", OTHER, "-f", "-"],
            release(scene, "theirs", OTHER),
            NO_RBAC,
        ),
        Try::merge(
            "shorter stages",
            &json!({"spec": {"stages": [{"weight": "100%", "duration": "1s"}]}}),
            NO_DEPLOYMENT,
        ),
        Try::merge(
            "no gate that could break",
            &json!({"spec": {"gates": [{"name": "errors", "errorRate": {"bad": "none", "total": "http_requests_total", "limit": "99%"}}]}}),
            NO_DEPLOYMENT,
        ),
        Try::merge("another target", &json!({"spec": {"target": {"name": "pay"}}}), &["the target can't be changed"]),
        Try::merge(
            "another Service",
            &json!({"spec": {"traffic": {"service": "pay"}}}),
            &["traffic.service can't be changed"],
        ),
        Try::merge(
            "one more route",
            &json!({"spec": {"traffic": {"routes": [{"kind": "HTTPRoute", "name": "shop"}, {"kind": "HTTPRoute", "name": "pay"}]}}}),
            &["traffic.routes can't be changed"],
        ),
        Try::merge(
            "labels that let the canary's pods be another's",
            &json!({"spec": {"canary": {"labels": {"app": "pay"}}}}),
            NO_DEPLOYMENT,
        ),
        Try::of(
            "server-side apply with force",
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            changed.clone(),
            NO_DEPLOYMENT,
        ),
        Try::of("replace", &["replace", "-f", "-"], changed, NO_DEPLOYMENT),
        Try::new(
            "a status that says promoted",
            &["patch", "canaryrelease", "shop", "--subresource=status", "--type=merge", "-p", &status],
            NO_RBAC,
        ),
        annotate("abort", &abort, &["may not abort"]),
        annotate("promote", &promote, &["may not promote"]),
        annotate("approve", &approve, &["may not approve"]),
        annotate("retry", &retry, &["may not retry"]),
        Try::new(
            "a command in another's name",
            &["annotate", "canaryrelease", "shop", &abort, "canaryrelease.dev/command-by=system:admin", "--overwrite"],
            &["mallory may not abort"],
        ),
        Try::of("a record of a release that never was", create, record, NO_RBAC),
        Try::new(
            "breaking the glass on the Deployment",
            &["annotate", "deployment", "shop", "canaryrelease.dev/override=now"],
            NO_RBAC,
        ),
        Try::new("the operator's identity", &["get", "secrets", "--as", OPERATOR_USER], NO_RBAC),
        Try::new(
            "the operator's token",
            &["create", "token", "canaryrelease-operator", "--namespace", "canaryrelease-system"],
            NO_RBAC,
        ),
        Try::new(
            "more rights",
            &["create", "rolebinding", "more", "--clusterrole=canaryrelease-releaser", "--user=mallory"],
            NO_RBAC,
        ),
        Try::new("the policies", &["delete", "validatingadmissionpolicybinding", "canaryrelease-writer"], NO_RBAC),
        Try::new(
            "a record's status",
            &[
                "patch",
                "releaserecord",
                "any",
                "--subresource=status",
                "--type=merge",
                "-p",
                "{\"status\":{\"result\":\"SUCCESS\"}}",
            ],
            NO_RBAC,
        ),
    ]
}

/// What a user who may update one Deployment and one route tries with others.
fn refused_to_tess(scene: &Scene) -> Vec<Try> {
    let create = &["create", "-f", "-"];
    let with = |change: &dyn Fn(&mut Value)| {
        let mut object = release(scene, "own", &scene.namespace);
        change(&mut object);
        object
    };
    vec![
        Try::of(
            "another's route beside her own",
            create,
            with(&|object| {
                object["spec"]["traffic"]["routes"] =
                    json!([{"kind": "HTTPRoute", "name": "own"}, {"kind": "HTTPRoute", "name": "pay"}])
            }),
            &["httproutes.gateway.networking.k8s.io \"pay\""],
        ),
        Try::of(
            "another's Deployment behind her own route",
            create,
            with(&|object| object["spec"]["target"]["name"] = "pay".into()),
            NO_DEPLOYMENT,
        ),
        Try::of(
            "a Service by address",
            create,
            with(&|object| object["spec"]["traffic"]["service"] = "theirs.hostile-other.svc".into()),
            &["spec.traffic.service"],
        ),
        Try::of(
            "a route of a kind that no policy knows",
            create,
            with(&|object| object["spec"]["traffic"]["routes"][0]["kind"] = "Ingress".into()),
            &["Ingress"],
        ),
    ]
}

/// Tries all; the number of tries, or which were not refused as they must be.
async fn refuse(scene: &mut Scene, user: &Cluster, tries: &[Try]) -> Result<usize> {
    let mut wrong = Vec::new();
    for one in tries {
        let namespace = scene.namespace.clone();
        let mut arguments: Vec<&str> = vec!["--namespace", namespace.as_str()];
        arguments.extend(one.arguments.iter().map(String::as_str));
        let input = one.input.as_ref().map(Value::to_string);
        let said: Said = user.kubectl(&arguments, input.as_deref()).await?;
        let lacks = one.says.iter().find(|word| !said.err.contains(**word));
        match (said.ok(), lacks) {
            (true, _) => wrong.push(format!("{}: accepted: {}{}", one.what, said.out, said.err)),
            (false, Some(lacks)) => wrong.push(format!("{}: refused, but not for {lacks:?}: {}", one.what, said.err)),
            (false, None) => scene.step(format!("refused: {}", one.what)),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(tries.len())
}

/// Specs of a user's own Deployment and route that the API server can't judge: the operator says what is wrong with
/// each and does nothing. The number of tries.
async fn stored_and_not_acted_on(scene: &mut Scene, tess: &Cluster, lure: &Lure) -> Result<usize> {
    let value = |query: &str| json!({"gates": [{"name": "spy", "value": {"query": query, "max": 1}}]});
    let counter = |text: &str| json!({"traffic": {"requests": {"counter": text}}});
    let url = format!("http://{}/", lure.address);
    let tries: Vec<(&str, Value, &str)> = vec![
        ("a provider by address", json!({"provider": url}), "no metrics provider"),
        ("a provider that is not configured", json!({"provider": "treasure"}), "no metrics provider"),
        (
            "another namespace's metric",
            value("max(http_requests_total{namespace=\"hostile-other\", pod=~\"$pods\"})"),
            "may only read its own namespace",
        ),
        (
            "another namespace's metric by a pattern",
            value("max(http_requests_total{namespace=~\".+\", pod=~\"$pods\"})"),
            "may only read its own namespace",
        ),
        (
            "another namespace's metric beside its own",
            value("max(up{pod=~\"$pods\"}) + on() count(http_requests_total{namespace=\"hostile-other\"})"),
            "may only read its own namespace",
        ),
        (
            "another namespace's metric in total",
            json!({"gates": [{"name": "spy", "value": {"scope": "Total", "query": "sum(http_requests_total{namespace=\"hostile-other\"})", "max": 1}}]}),
            "may only read its own namespace",
        ),
        ("a query of no pods of its own", value("max(http_requests_total)"), "does not name the candidate's pods"),
        (
            "a counter of another namespace",
            counter("http_requests_total{namespace=\"hostile-other\"}"),
            "is set by the operator",
        ),
        ("a counter of another's pods", counter("http_requests_total{pod=~\"theirs.*\"}"), "is set by the operator"),
        ("an expression for a counter", counter("http_requests_total or vector(0)"), "is an arithmetic expression"),
        (
            "a selector that ends early",
            counter("http_requests_total{code=\"500\"}} or {a=\"\""),
            "is not a counter selector",
        ),
    ];
    let namespace = scene.namespace.clone();
    for (what, change, says) in &tries {
        let mut object = release(scene, "own", &namespace);
        merge(&mut object["spec"], change);
        let said =
            tess.kubectl(&["--namespace", namespace.as_str(), "apply", "-f", "-"], Some(&object.to_string())).await?;
        if said.ok() {
            let (kind, name) = (Kind::CanaryRelease, "own");
            let found = scene
                .cluster()
                .until((kind, &namespace, name), SOON, &format!("told {says:?} for {what}"), |found| {
                    found.is_some_and(|found| {
                        found["status"]["observedGeneration"] == found["metadata"]["generation"]
                            && found["status"].to_string().contains(says)
                    })
                })
                .await?
                .context("gone")?;
            let armed = found.pointer("/status/hold/armed").and_then(Value::as_bool).unwrap_or_default();
            ensure!(!armed, "{what}: the target was armed all the same");
        } else {
            ensure!(said.err.contains(says), "{what}: refused, but not for {says:?}: {}", said.err);
        }
        scene.step(format!("not acted on: {what}"));
    }
    Ok(tries.len() + led_away(scene, tess, lure).await?)
}

/// Ports and paths for the pods' metrics that would be another host or another program, were they taken as they are: a
/// release begins under each, and its pods are read, or not, on their own addresses and ports only.
async fn led_away(scene: &mut Scene, tess: &Cluster, lure: &Lure) -> Result<usize> {
    let namespace = scene.namespace.clone();
    let path = |path: String| json!({"port": 8080, "path": path});
    let tries = [
        (json!({"port": 10250}), "declares no port 10250"),
        (path(format!("//{}/metrics", lure.address)), "path"),
        (path(format!("/@{}/", lure.address)), "not metrics as text"),
        (path(format!("http://{}/", lure.address)), "path"),
        (path("/../../metrics?x=http://10.244.0.1/".to_owned()), "path"),
    ];
    for (number, (change, says)) in tries.iter().enumerate() {
        let mut object = release(scene, "own", &namespace);
        merge(&mut object["spec"], &json!({"provider": "pods", "podMetrics": change}));
        let arguments = ["--namespace", namespace.as_str(), "apply", "-f", "-"];
        let said = tess.kubectl(&arguments, Some(&object.to_string())).await?;
        if said.ok() {
            let own = (Kind::CanaryRelease, namespace.as_str(), "own");
            let armed = |found: Option<&Value>| {
                found.is_some_and(|found| {
                    found["status"]["observedGeneration"] == found["metadata"]["generation"]
                        && found["status"]["hold"]["armed"] == true
                })
            };
            scene.cluster().until(own, SOON, "armed", armed).await?;
            scene.set_image_of("own", if number % 2 == 0 { "v2" } else { "v3" }).await?;
            scene
                .cluster()
                .until(
                    (Kind::CanaryRelease, &namespace, "own"),
                    SOON,
                    &format!("told {says:?} for {change}"),
                    |found| {
                        found.is_some_and(|found| {
                            found["status"]["observedGeneration"] == found["metadata"]["generation"]
                                && found["status"]["gates"].to_string().contains(says)
                        })
                    },
                )
                .await?;
        } else {
            ensure!(said.err.contains(says), "{change}: refused, but not for {says:?}: {}", said.err);
        }
        scene.step(format!("leads nowhere: {change}"));
    }
    Ok(tries.len())
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

/// Nothing came of it: the release under way goes on as it was, nobody called the lure, and the operator never asked the
/// API server for a Secret or a ConfigMap, nor for anything in the other namespace.
async fn untouched(scene: &mut Scene, lure: &Lure, from: u64) -> Result<()> {
    let seen = scene.latest().context("no status")?;
    ensure!(seen.baking(1) && seen.weight() == "20%", "the release moved: {}", seen.line());
    ensure!(lure.calls.load(Ordering::SeqCst) == 0, "somebody called {}", lure.address);
    let other = scene.cluster().get(Kind::Deployment, OTHER, "theirs").await?.context("theirs is gone")?;
    ensure!(!other.to_string().contains("canaryrelease.dev"), "the other namespace's Deployment was touched: {other}");
    let (entries, _) = audit_entries(&scene.world.lab()?.audit_log(), from)?;
    let operators: Vec<_> = entries.iter().filter(|entry| entry.user == OPERATOR_USER).collect();
    ensure!(!operators.is_empty(), "the audit log does not show the operator");
    let strayed = operators
        .iter()
        .find(|entry| matches!(entry.resource.as_str(), "secrets" | "configmaps") || entry.namespace == OTHER);
    ensure!(strayed.is_none(), "the operator asked for {strayed:?}");
    Ok(())
}
