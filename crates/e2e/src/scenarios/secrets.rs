//! Credentials stay where the administrator put them. Each has a text that stands nowhere else; a door before Prometheus
//! asks for them and repeats them in every way in which it can answer, the operator logs all it can, and then the texts
//! are looked for in everything that somebody could read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use canary_report::evidence;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::promotion::{promoted_to, stable_serves};
use crate::cluster::{Cluster, Kind, text};
use crate::history::Seen;
use crate::scene::{RELEASE, SOON, Scene, http_get};
use crate::world::{SYSTEM, World};

/// The Secret with the operator's credentials, and where they are in its pods.
const CREDENTIALS: &str = "prometheus-credentials";
const MOUNTED: &str = "/etc/prometheus";
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// A text that must not be found, and what it is.
struct Canary {
    what: &'static str,
    text: String,
}

/// A release is promoted and one is reverted with credentials that everything around them repeats: none is found in
/// logs, metrics, Events or any object but its Secret, nor in the evidence.
pub async fn credentials_are_found_nowhere(scene: &mut Scene) -> Result<()> {
    let mark = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    let name = |what: &str| format!("c4n4ry-{what}-{mark:x}");
    let (token, tenant, key) = (name("token"), name("tenant"), name("key"));
    let door = Door::open(&scene.world, [token.clone(), tenant.clone()]).await?;
    let world = Arc::clone(&scene.world);
    install(&world, &door, &token, &tenant).await?;
    let played = releases(scene, &door, &key).await;
    let looked = match played {
        Ok(()) => look(scene, &door, [("token", token), ("tenant", tenant), ("key", key)]).await,
        Err(error) => Err(error),
    };
    world.install().await?;
    world.cluster.run(&["delete", "secret", CREDENTIALS, "-n", SYSTEM], None).await?;
    looked
}

/// The operator with credentials by file, logging all it can, asking at the door.
async fn install(world: &World, door: &Door, token: &str, tenant: &str) -> Result<()> {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": CREDENTIALS, "namespace": SYSTEM},
        "stringData": {"token": token, "tenant": tenant}});
    world.cluster.apply(&[&secret]).await?;
    let file = format!(
        "providers:\n- name: default\n  url: http://{}\n  scrapeInterval: 1s\n  bearerTokenFile: {MOUNTED}/token\n  \
         headers: {{X-Scope-OrgID: {{file: {MOUNTED}/tenant}}}}\n",
        door.address
    );
    let change = |operator: &mut Value| {
        let pod = &mut operator["spec"]["template"]["spec"];
        let add = |list: &mut Value, entry: Value| list.as_array_mut().map(|list| list.push(entry));
        add(&mut pod["volumes"], json!({"name": "prometheus", "secret": {"secretName": CREDENTIALS}}));
        let container = &mut pod["containers"][0];
        add(&mut container["volumeMounts"], json!({"name": "prometheus", "mountPath": MOUNTED, "readOnly": true}));
        add(&mut container["env"], json!({"name": "CANARYRELEASE_LOG_LEVEL", "value": "trace"}));
    };
    world.install_with(&file, &change).await
}

/// One release is promoted; the next is reverted, after a time in which every answer repeats the credentials.
async fn releases(scene: &mut Scene, door: &Door, key: &str) -> Result<()> {
    let secret = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "shop", "namespace": scene.namespace}, "stringData": {"key": key}});
    scene.cluster().apply(&[&secret]).await?;
    let mut setup = scene.plain().stages(&[("20%", "15s"), ("100%", "4s")]);
    setup.deployment["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "shop", "key": "key"}}}]);
    scene.open(setup).await?;
    scene.set_image("v2").await?;
    scene.ended("Promoted").await?;
    promoted_to(scene, "v2").await?;

    scene.from_now();
    scene.set_image("v3").await?;
    scene.until("stage 1 is judged", RELEASE, |seen| seen.number() == 2 && seen.baking(1)).await?;
    for echo in 1..=ECHOES.len() {
        door.repeat(echo).await?;
        if echo == 1 {
            let told = |seen: &Seen| seen.object["status"]["gates"].to_string().contains("HTTP 401");
            scene.until("told that Prometheus refuses", SOON, told).await?;
        }
    }
    scene.fault("shop-canary", "error_rate=0.5").await?;
    door.echo.store(0, Ordering::SeqCst);
    scene.until("ended RolledBack", RELEASE, |seen| seen.number() == 2 && seen.ended("RolledBack")).await?;
    stable_serves(scene, "v2").await?;
    let frozen = "--for=jsonpath={.status.frozen}=true";
    scene.kubectl(&["wait", frozen, "--timeout=60s", "releaserecords", "--all"]).await?;
    scene.no_bad_answers_but_of("v3")
}

/// Looks for each of the texts, first where they must be found.
async fn look(scene: &mut Scene, door: &Door, given: [(&'static str, String); 3]) -> Result<()> {
    let world = Arc::clone(&scene.world);
    let pods = world.cluster.list(Kind::Pod, SYSTEM, "app.kubernetes.io/component=operator").await?;
    let mut canaries: Vec<Canary> = given.into_iter().map(|(what, text)| Canary { what, text }).collect();
    for pod in &pods {
        let text = file_of(&world, pod, SERVICE_ACCOUNT)?;
        canaries.push(Canary { what: "the operator's own token", text });
        let mounted = file_of(&world, pod, &format!("{MOUNTED}/token"))?;
        ensure!(found(&canaries, &mounted) == ["token"], "the mounted token is not found where it is: {mounted:?}");
    }
    let secrets = world.cluster.run(&["get", "secrets", "-A", "-o", "json"], None).await?;
    ensure!(found(&canaries, &secrets) == ["token", "tenant", "key"], "not found in the Secrets");
    let (open, refused) = (door.open.load(Ordering::SeqCst), door.refused.load(Ordering::SeqCst));
    ensure!(open > 0 && !door.stranger.load(Ordering::SeqCst), "the credentials did not come to the door");

    let mut places = objects(&world.cluster).await?;
    for pod in &pods {
        let (name, address) = (text(pod, "/metadata/name"), text(pod, "/status/podIP"));
        places.push((format!("{name}'s log"), log_of(&world, name)?));
        let (code, metrics) = http_get(&format!("{address}:8080"), "operator", "/metrics").await?;
        ensure!(code == 200 && metrics.contains("canaryrelease_"), "{name} shows no metrics");
        places.push((format!("{name}'s metrics"), metrics));
    }
    places.extend(evidence_of(scene).await?);
    let leaks: Vec<String> = places
        .iter()
        .flat_map(|(place, text)| found(&canaries, text).into_iter().map(move |what| format!("{what} in {place}")))
        .collect();
    ensure!(leaks.is_empty(), "found: {}", leaks.join("; "));
    let bytes: usize = places.iter().map(|(_, text)| text.len()).sum();
    scene.step(format!(
        "{} texts not found in {} places of {bytes} bytes; {open} questions let in, {refused} refused with an echo",
        canaries.len(),
        places.len()
    ));
    Ok(())
}

/// Which of the texts stand there, as they are or as a Secret holds them.
fn found(canaries: &[Canary], place: &str) -> Vec<&'static str> {
    let encoded = |text: &str| json!(ByteString(text.as_bytes().to_vec())).as_str().unwrap_or_default().to_owned();
    let there = |canary: &&Canary| place.contains(&canary.text) || place.contains(&encoded(&canary.text));
    canaries.iter().filter(there).map(|canary| canary.what).collect()
}

/// A file as a pod's first container sees it.
fn file_of(world: &World, pod: &Value, path: &str) -> Result<String> {
    let process = world.process_of(pod)?;
    Ok(world.inside("cat", &[&format!("/proc/{process}/root{path}")])?.trim().to_owned())
}

/// All that a pod of the operator logged, from its first line, rotated files included.
fn log_of(world: &World, pod: &str) -> Result<String> {
    let all = format!("zcat -f $(ls -tr {}/{SYSTEM}_{pod}_*/*/*)", lab::POD_LOGS);
    let log = world.inside("sh", &["-c", &all])?;
    ensure!(log.contains("provider default: "), "the first lines of {pod}'s log are lost");
    ensure!(log.contains("TRACE"), "{pod} does not log all it can");
    Ok(log)
}

/// Every object of the cluster but Secrets, by kind.
async fn objects(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let kinds = cluster.run(&["api-resources", "--verbs=list", "-o", "name"], None).await?;
    let mut all = Vec::new();
    for kind in kinds.split_whitespace().filter(|kind| *kind != "secrets") {
        let listed = cluster.run(&["get", kind, "-A", "-o", "json", "--show-managed-fields"], None).await?;
        all.push((kind.to_owned(), listed));
    }
    for kind in ["releaserecords", "events", "controllerrevisions", "httproutes"] {
        let seen = |(name, listed): &(String, String)| name.starts_with(kind) && listed.contains("\"shop");
        ensure!(all.iter().any(seen), "no {kind} of the release among the objects");
    }
    Ok(all)
}

/// The evidence folder of each release.
async fn evidence_of(scene: &Scene) -> Result<Vec<(String, String)>> {
    let records = scene.cluster().list(Kind::Record, &scene.namespace, "").await?;
    ensure!(records.len() == 2, "{} records", records.len());
    let mut all = Vec::new();
    for record in records {
        let record: canary_api::ReleaseRecord = serde_json::from_value(record)?;
        let files = evidence::files(&record);
        ensure!(files.iter().any(|file| file.text.is_ok()), "a record without evidence");
        let text = |file: evidence::File| (format!("evidence {}", file.name), file.text.unwrap_or_else(|why| why));
        all.extend(files.into_iter().map(text));
    }
    Ok(all)
}

/// Stands before Prometheus and lets in whoever shows both credentials; or repeats them instead.
struct Door {
    address: SocketAddr,
    /// Which of the echoes answers, counted from 1; 0 is open.
    echo: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    /// Whether somebody came without them.
    stranger: Arc<AtomicBool>,
}

/// Answers that repeat `CANARY`, each as status line with headers, and body.
const ECHOES: [(&str, &str); 6] = [
    (
        "401 Unauthorized\r\nX-Echo: CANARY",
        r#"{"status":"error","errorType":"unauthorized","error":"you sent CANARY"}"#,
    ),
    ("403 Forbidden", "no such user: CANARY"),
    ("200 OK", r#"{"status":"success","warnings":["CANARY"],"data":{"resultType":"matrix","result":[]}}"#),
    (
        "200 OK",
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"pod":"CANARY"},"values":[[1,"CANARY"]]}]}}"#,
    ),
    ("302 Found\r\nLocation: http://CANARY@elsewhere/CANARY", ""),
    ("500 Internal Server Error", "<html>CANARY</html>"),
];

impl Door {
    async fn open(world: &World, credentials: [String; 2]) -> Result<Self> {
        world.lab()?;
        let listener = TcpListener::bind("10.244.0.1:0").await.context("a port on the node's own address")?;
        let door = Self {
            address: listener.local_addr()?,
            echo: Arc::default(),
            open: Arc::default(),
            refused: Arc::default(),
            stranger: Arc::default(),
        };
        let (echo, open) = (Arc::clone(&door.echo), Arc::clone(&door.open));
        let (refused, stranger) = (Arc::clone(&door.refused), Arc::clone(&door.stranger));
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let asked = Asked {
                    echo: echo.load(Ordering::SeqCst),
                    credentials: credentials.clone(),
                    open: Arc::clone(&open),
                    refused: Arc::clone(&refused),
                    stranger: Arc::clone(&stranger),
                };
                // Who hangs up before the answer shows it by asking again.
                tokio::spawn(async move { asked.answer(caller).await });
            }
        });
        Ok(door)
    }

    /// Answers with an echo until two ticks have had it.
    async fn repeat(&self, echo: usize) -> Result<()> {
        let before = self.refused.load(Ordering::SeqCst);
        self.echo.store(echo, Ordering::SeqCst);
        let end = tokio::time::Instant::now() + SOON;
        while self.refused.load(Ordering::SeqCst) < before + 12 {
            ensure!(tokio::time::Instant::now() < end, "the operator does not ask at the door");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}

/// One question at the door.
struct Asked {
    echo: usize,
    credentials: [String; 2],
    open: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    stranger: Arc<AtomicBool>,
}

impl Asked {
    async fn answer(self, mut caller: TcpStream) -> Result<()> {
        let question = whole(&mut caller).await?;
        let text = String::from_utf8_lossy(&question);
        if !self.credentials.iter().all(|credential| text.contains(credential)) {
            self.stranger.store(true, Ordering::SeqCst);
        } else if let Some((head, body)) = self.echo.checked_sub(1).and_then(|echo| ECHOES.get(echo)) {
            let body = body.replace("CANARY", &self.credentials.join(" "));
            let head = head.replace("CANARY", &self.credentials.join("-"));
            let answer = format!(
                "HTTP/1.1 {head}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            caller.write_all(answer.as_bytes()).await?;
            self.refused.fetch_add(1, Ordering::SeqCst);
        } else {
            self.open.fetch_add(1, Ordering::SeqCst);
            let mut prometheus = TcpStream::connect(lab::PROMETHEUS.trim_start_matches("http://")).await?;
            // One question a connection: the next one must show its credentials too.
            let once = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            prometheus.write_all(once.as_bytes()).await?;
            tokio::io::copy(&mut prometheus, &mut caller).await?;
        }
        Ok(())
    }
}

/// A request with its body.
async fn whole(caller: &mut TcpStream) -> Result<Vec<u8>> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0_usize) {
                return Ok(read);
            }
        }
        ensure!(caller.read_buf(&mut read).await? > 0, "the question broke off");
    }
}
