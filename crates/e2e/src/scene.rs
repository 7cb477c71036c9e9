//! One scenario's own place: a namespace, a gateway, a shop under a CanaryRelease, and a client at a
//! fixed rate whose every answer is counted. It waits for what must happen, watches that what must not
//! happen does not, and tells all it knows when a scenario fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lab_app::load::{Config, Counts, LoadHandle, Snapshot};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, Kind, Said, number, text};
use crate::history::{History, Seen};
use crate::setup::{Entrance, Setup, host, image};
use crate::world::World;

/// Time for anything that should take a few seconds: generous, because a busy machine proves nothing.
pub const SOON: Duration = Duration::from_secs(60);
/// Time for a whole short release.
pub const RELEASE: Duration = Duration::from_secs(240);

/// What the client saw in a scenario.
#[derive(Debug, Clone, Default)]
pub struct ClientView {
    /// Answers by version and status.
    pub answers: Counts,
    /// Requests due and not sent.
    pub skipped: u64,
}

impl ClientView {
    /// `v1: 200 × 1204; v2: 200 × 310, 500 × 4`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (version, status, count) in self.answers.iter() {
            versions.entry(version).or_default().push(format!("{status} × {count}"));
        }
        versions
            .iter()
            .map(|(version, counts)| format!("{version}: {}", counts.join(", ")))
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// A scenario at play.
#[derive(Debug)]
pub struct Scene {
    /// Where it plays.
    pub world: Arc<World>,
    /// Its namespace.
    pub namespace: String,
    /// The gateway that its client goes through.
    pub entrance: Entrance,
    /// Its objects, once opened.
    pub setup: Option<Setup>,
    own_entrance: bool,
    load: Option<LoadHandle>,
    history: Option<History>,
    started: Instant,
    steps: Vec<String>,
    talk: bool,
}

impl Scene {
    /// A namespace and a gateway; nothing else yet.
    ///
    /// # Errors
    /// If they cannot be made.
    pub async fn new(world: &Arc<World>, name: &str, own_entrance: bool, talk: bool) -> Result<Self> {
        let namespace = name.to_owned();
        world
            .cluster
            .apply(&[&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})])
            .await?;
        let entrance = if own_entrance { world.own_entrance(&namespace)? } else { world.entrance().clone() };
        let world = Arc::clone(world);
        Ok(Self {
            world,
            namespace,
            entrance,
            setup: None,
            own_entrance,
            load: None,
            history: None,
            started: Instant::now(),
            steps: Vec::new(),
            talk,
        })
    }

    /// The usual objects of this scene.
    #[must_use]
    pub fn plain(&self) -> Setup {
        Setup::new(&self.namespace, "shop", &self.entrance)
    }

    /// The cluster, as administrator.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.world.cluster
    }

    /// Notes what is done, for the report of a failure.
    pub fn step(&mut self, text: impl Into<String>) {
        let line = format!("{:6.1} s  {}", self.started.elapsed().as_secs_f64(), text.into());
        if self.talk {
            println!("    {}: {line}", self.namespace);
        }
        self.steps.push(line);
    }

    /// Puts everything in place: the shop answers, the CanaryRelease is armed, the client runs.
    ///
    /// # Errors
    /// If one of them does not come about.
    pub async fn open(&mut self, setup: Setup) -> Result<()> {
        self.open_unreleased(setup).await?;
        self.apply_release().await?;
        self.until("armed", SOON, Seen::armed).await?;
        self.step("armed");
        Ok(())
    }

    /// The shop and the client, without the CanaryRelease.
    ///
    /// # Errors
    /// If one of them does not come about.
    pub async fn open_unreleased(&mut self, setup: Setup) -> Result<()> {
        let name = setup.name();
        self.world.cluster.apply(&[&setup.deployment, &setup.service, &setup.route]).await?;
        let target = text(&setup.deployment, "/metadata/name").to_owned();
        self.world
            .cluster
            .until((Kind::Deployment, &self.namespace, &target), SOON, "available", |found| {
                found.is_some_and(rolled_out)
            })
            .await?;
        self.history = Some(History::watch(&self.world.cluster, &self.namespace, &name));
        let rate = setup.rate;
        self.setup = Some(setup);
        self.answering().await?;
        let mut config = Config::new(self.entrance.url.clone());
        config.host = Some(host(&self.namespace));
        config.rate = rate;
        config.timeout = Duration::from_secs(5);
        self.load = Some(LoadHandle::start(config)?);
        self.step(format!("the shop answers, the client sends {rate} requests/s"));
        Ok(())
    }

    /// Applies the CanaryRelease.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn apply_release(&self) -> Result<()> {
        self.world.cluster.apply(&[&self.objects().release]).await
    }

    /// Waits until the gateway serves the route.
    async fn answering(&self) -> Result<()> {
        let address = self.entrance.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let end = Instant::now() + SOON;
        loop {
            let answer = http_get(&address, &host(&self.namespace), "/").await;
            match answer {
                Ok((200, _)) => return Ok(()),
                other if Instant::now() > end => bail!("the gateway does not serve the route: {other:?}"),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// The objects.
    ///
    /// # Panics
    /// Before they are opened: a mistake in the scenario.
    #[must_use]
    pub fn objects(&self) -> &Setup {
        #[allow(clippy::expect_used)]
        self.setup.as_ref().expect("the scene is open")
    }

    /// The name that everything has.
    #[must_use]
    pub fn name(&self) -> String {
        self.objects().name()
    }

    fn load(&self) -> &LoadHandle {
        #[allow(clippy::expect_used)]
        self.load.as_ref().expect("the scene is open")
    }

    /// The history of the CanaryRelease.
    ///
    /// # Panics
    /// Before it is opened: a mistake in the scenario.
    #[must_use]
    pub fn history(&self) -> &History {
        #[allow(clippy::expect_used)]
        self.history.as_ref().expect("the scene is open")
    }

    /// The client's figures up to now.
    #[must_use]
    pub fn client(&self) -> Snapshot {
        self.load().snapshot()
    }

    /// Changes the client's rate.
    ///
    /// # Errors
    /// If it is out of bounds.
    pub fn rate(&self, rate: f64) -> Result<()> {
        Ok(self.load().set_rate(rate)?)
    }

    // What people and tools do.

    /// `kubectl` as administrator in this namespace, which must succeed.
    ///
    /// # Errors
    /// With what it said.
    pub async fn kubectl(&mut self, arguments: &[&str]) -> Result<String> {
        let said = self.try_kubectl(arguments).await?;
        ensure!(said.ok(), "kubectl {} failed: {}", arguments.join(" "), said.err.trim());
        Ok(said.out)
    }

    /// `kubectl` as administrator in this namespace, whatever comes of it.
    ///
    /// # Errors
    /// If it cannot be run.
    pub async fn try_kubectl(&mut self, arguments: &[&str]) -> Result<Said> {
        self.step(format!("kubectl {}", arguments.join(" ")));
        let mut all = vec!["--namespace", self.namespace.as_str()];
        all.extend(arguments);
        self.world.cluster.kubectl(&all, None).await
    }

    /// `kubectl set image` of the target's first container.
    ///
    /// # Errors
    /// If it fails.
    pub async fn set_image(&mut self, version: &str) -> Result<()> {
        let target = self.target();
        self.set_image_of(&target, version).await
    }

    /// `kubectl set image` of a Deployment's first container.
    ///
    /// # Errors
    /// If it fails.
    pub async fn set_image_of(&mut self, deployment: &str, version: &str) -> Result<()> {
        let target = format!("deployment/{deployment}");
        let pair = format!("shop={}", image(version));
        self.kubectl(&["set", "image", &target, &pair]).await.map(drop)
    }

    /// Gives a command, bound to the release in hand.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn command(&mut self, verb: &str) -> Result<()> {
        let id = self.latest().map(|seen| seen.release().to_owned()).unwrap_or_default();
        let annotation = format!("canaryrelease.dev/command={verb} {id}");
        let name = self.name();
        self.kubectl(&["annotate", "canaryrelease", &name, annotation.trim_end(), "--overwrite"]).await.map(drop)
    }

    /// Name of the target.
    #[must_use]
    pub fn target(&self) -> String {
        text(&self.objects().deployment, "/metadata/name").to_owned()
    }

    /// Switches a fault in every pod of a Deployment, and says when the first had it.
    ///
    /// # Errors
    /// If there is no pod or one refuses.
    pub async fn fault(&mut self, deployment: &str, fault: &str) -> Result<u64> {
        let pods = self.pods_of(deployment).await?;
        ensure!(!pods.is_empty(), "Deployment {deployment} has no pods to switch {fault} in");
        let mut first = u64::MAX;
        for pod in &pods {
            let address = format!("{}:8080", text(pod, "/status/podIP"));
            let (code, body) = http_get(&address, "pod", &format!("/fault?{fault}"))
                .await
                .with_context(|| format!("switching {fault} at {address}"))?;
            ensure!(code == 200, "switching {fault} at {address}: {code} {body}");
            let told: Value = serde_json::from_str(&body).unwrap_or_default();
            first = first.min(told.pointer("/unix_ms").and_then(Value::as_u64).unwrap_or(u64::MAX));
        }
        self.step(format!("{fault} in {} pods of {deployment}", pods.len()));
        Ok(first)
    }

    /// The running pods of a Deployment.
    ///
    /// # Errors
    /// If there is no such Deployment.
    pub async fn pods_of(&self, deployment: &str) -> Result<Vec<Value>> {
        let found =
            self.deployment(deployment).await?.with_context(|| format!("there is no Deployment {deployment}"))?;
        let labels =
            found.pointer("/spec/selector/matchLabels").and_then(Value::as_object).cloned().unwrap_or_default();
        let selector = labels
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(",");
        let pods = self.world.cluster.list(Kind::Pod, &self.namespace, &selector).await?;
        Ok(pods
            .into_iter()
            .filter(|pod| {
                pod.pointer("/metadata/deletionTimestamp").is_none() && !text(pod, "/status/podIP").is_empty()
            })
            .collect())
    }

    /// A Deployment of this namespace.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn deployment(&self, name: &str) -> Result<Option<Value>> {
        self.world.cluster.get(Kind::Deployment, &self.namespace, name).await
    }

    /// The weights of the route's first rule: stable's, and the canary's where it has an entry.
    ///
    /// # Errors
    /// If there is no route.
    pub async fn weights(&self) -> Result<(i64, Option<i64>)> {
        let route = self
            .world
            .cluster
            .get(Kind::HttpRoute, &self.namespace, &self.name())
            .await?
            .context("there is no route")?;
        let refs = route.pointer("/spec/rules/0/backendRefs").and_then(Value::as_array).cloned().unwrap_or_default();
        let weight =
            |index: usize| refs.get(index).map(|entry| entry.pointer("/weight").and_then(Value::as_i64).unwrap_or(1));
        Ok((weight(0).unwrap_or(0), weight(1)))
    }

    /// The Services of the route's first rule, with their weights.
    ///
    /// # Errors
    /// If there is no route.
    pub async fn split(&self) -> Result<Vec<(String, i64)>> {
        let (namespace, name) = (&self.namespace, self.name());
        let route = self.world.cluster.get(Kind::HttpRoute, namespace, &name).await?.context("there is no route")?;
        let entries = route.pointer("/spec/rules/0/backendRefs").and_then(Value::as_array).cloned().unwrap_or_default();
        let weight = |entry: &Value| entry.pointer("/weight").and_then(Value::as_i64).unwrap_or(1);
        Ok(entries.iter().map(|entry| (text(entry, "/name").to_owned(), weight(entry))).collect())
    }

    /// Requests that the running pods of a Deployment have answered.
    ///
    /// # Errors
    /// If one of them does not tell.
    pub async fn requests_of(&self, deployment: &str) -> Result<f64> {
        let mut all = 0.0;
        for pod in self.pods_of(deployment).await? {
            let address = format!("{}:8080", text(&pod, "/status/podIP"));
            let (_, body) = http_get(&address, "pod", "/metrics").await?;
            let counted = body.lines().filter(|line| line.starts_with("http_requests_total{"));
            all += counted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(all)
    }

    // What must happen.

    /// The latest status.
    #[must_use]
    pub fn latest(&self) -> Option<Seen> {
        self.history().latest()
    }

    /// Goes on to the first status that is as asked.
    ///
    /// # Errors
    /// After the deadline, with the statuses that came instead.
    pub async fn until(&mut self, what: &str, deadline: Duration, holds: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let Some(history) = &mut self.history else { bail!("the scene is not open") };
        let seen = history.until(what, deadline, holds).await?;
        self.step(format!("{what} ({})", seen.line()));
        Ok(seen)
    }

    /// Takes only statuses that come from now on.
    pub fn from_now(&mut self) {
        if let Some(history) = &mut self.history {
            history.forget();
        }
    }

    /// Waits until a release ended so.
    ///
    /// # Errors
    /// After the deadline of a release.
    pub async fn ended(&mut self, outcome: &str) -> Result<Seen> {
        self.until(&format!("ended {outcome}"), RELEASE, |seen| seen.ended(outcome)).await
    }

    /// Waits until the client has an answer of a version, counted from now.
    ///
    /// # Errors
    /// After the deadline.
    pub async fn answered_by(&mut self, version: &str, deadline: Duration) -> Result<()> {
        let before = self.client().answers.version(version);
        self.load()
            .wait_for(deadline, |snapshot| snapshot.answers.version(version) > before)
            .await
            .with_context(|| format!("the client waits for an answer of {version}"))?;
        self.step(format!("the client has an answer of {version}"));
        Ok(())
    }

    /// Watches for so long that the client has no answer of a version.
    ///
    /// # Errors
    /// At the first one, or if the client stops.
    pub async fn no_answer_by(&mut self, version: &str, window: Duration) -> Result<()> {
        let before = self.client();
        let came = self
            .load()
            .wait_for(window, |snapshot| snapshot.answers.version(version) > before.answers.version(version))
            .await;
        let seen = self.client().since(&before);
        ensure!(came.is_err(), "an answer of {version} came: {:?}", seen.answers);
        ensure!(seen.answers.total() > 0, "the client had no answer at all for {window:?}");
        self.step(format!("no answer of {version} for {window:?}, {} of others", seen.answers.total()));
        Ok(())
    }

    /// Waits until a version has given no answer for so long: after an edit that nobody announces, a
    /// gateway takes up to two seconds.
    ///
    /// # Errors
    /// If it still answers after a minute.
    pub async fn no_answer_by_soon(&mut self, version: &str, window: Duration) -> Result<()> {
        let end = Instant::now() + SOON;
        loop {
            match self.no_answer_by(version, window).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Watches for so long that no status is as asked.
    ///
    /// # Errors
    /// At the first one.
    pub async fn never(&mut self, what: &str, window: Duration, holds: impl Fn(&Seen) -> bool) -> Result<()> {
        let Some(history) = &mut self.history else { bail!("the scene is not open") };
        if let Ok(seen) = history.until(what, window, holds).await {
            bail!("must not happen: {what} ({})", seen.line());
        }
        self.step(format!("not {what} for {window:?}"));
        Ok(())
    }

    /// Checks that no answer was bad so far, whoever gave it.
    ///
    /// # Errors
    /// With the bad answers.
    pub fn no_bad_answers(&self) -> Result<()> {
        let snapshot = self.client();
        let bad: Vec<_> = self.load().bad_answers().into_iter().take(10).collect();
        ensure!(snapshot.answers.bad() == 0, "{} bad answers, such as {bad:?}", snapshot.answers.bad());
        ensure!(snapshot.answers.total() > 0, "the client had no answers");
        Ok(())
    }

    /// Checks that every bad answer so far is a version's own fault.
    ///
    /// # Errors
    /// With the bad answers of others.
    pub fn no_bad_answers_but_of(&self, version: &str) -> Result<()> {
        let answers = self.client().answers;
        let others = answers.bad().saturating_sub(answers.bad_of(version));
        let bad: Vec<_> = self.load().bad_answers().into_iter().filter(|bad| bad.version != version).take(10).collect();
        ensure!(others == 0, "{others} bad answers that are not of {version}, such as {bad:?}");
        Ok(())
    }

    /// Checks the stages that a release was judged at.
    ///
    /// # Errors
    /// If one was skipped or began twice.
    pub fn stages_were(&self, release: i64, stages: &[i64]) -> Result<()> {
        let were = self.history().stages(release);
        ensure!(
            were == stages,
            "release {release} was judged at stages {were:?}, not {stages:?}: one was skipped or began again"
        );
        Ok(())
    }

    /// Waits until nothing of a release is left: the route plain, no canary or baseline pod.
    ///
    /// # Errors
    /// After the deadline.
    pub async fn tidy(&mut self) -> Result<()> {
        let (namespace, name) = (self.namespace.clone(), self.name());
        let cluster = self.world.cluster.clone();
        cluster
            .until((Kind::HttpRoute, &namespace, &name), SOON, "as it was before the release", |found| {
                found.is_some_and(|route| {
                    route
                        .pointer("/spec/rules")
                        .and_then(Value::as_array)
                        .is_some_and(|rules| rules.iter().all(one_backend))
                })
            })
            .await?;
        for own in [canary_api::names::canary(&self.target()), canary_api::names::baseline(&self.target())] {
            cluster
                .until((Kind::Deployment, &namespace, &own), SOON, "without pods", |found| {
                    found.is_none_or(|own| number(own, "/spec/replicas") == 0 && number(own, "/status/replicas") == 0)
                })
                .await?;
        }
        Ok(())
    }

    /// Ends the client and says what it saw.
    pub async fn close(&mut self) -> ClientView {
        let Some(load) = self.load.take() else { return ClientView::default() };
        load.stop()
            .await
            .map(|summary| ClientView { answers: summary.answers, skipped: summary.skipped })
            .unwrap_or_default()
    }

    /// Takes everything away. The namespace goes in the background.
    pub async fn take_away(&mut self) {
        let namespace = self.namespace.clone();
        let cluster = self.world.cluster.clone();
        // The release first, so that the operator sees a plain deletion.
        let _ = cluster
            .kubectl(
                &["delete", "canaryrelease", "--all", "-n", &namespace, "--timeout=40s", "--ignore-not-found"],
                None,
            )
            .await;
        let _ = cluster.kubectl(&["delete", "namespace", &namespace, "--wait=false", "--ignore-not-found"], None).await;
        if self.own_entrance {
            // A gateway whose namespace went may be gone already.
            let _ = self.world.remove_entrance(&self.entrance);
        }
    }

    /// All that is known, for the report of a failure.
    pub async fn story(&mut self) -> String {
        let mut story = String::from("  steps:\n");
        for step in &self.steps {
            let _ = writeln!(story, "    {step}");
        }
        if let Some(history) = &self.history {
            story.push_str("  statuses:\n");
            let all = history.all();
            for seen in all.iter().rev().take(30).rev() {
                let _ = writeln!(
                    story,
                    "    {:6.1} s  {}",
                    seen.at.saturating_duration_since(self.started).as_secs_f64(),
                    seen.line()
                );
            }
        }
        if let Some(load) = &self.load {
            story.push_str("  client, last seconds:\n");
            let timeline = load.timeline();
            for second in timeline.iter().rev().take(20).rev() {
                let view = ClientView { answers: second.answers.clone(), skipped: second.skipped };
                let _ = writeln!(story, "    {:4} s  sent {:4}  {}", second.t, second.sent, view.text());
            }
        }
        for arguments in [
            vec!["describe", "canaryrelease"],
            vec!["get", "deployments,replicasets,pods,httproutes", "-o", "wide"],
            vec![
                "get",
                "httproutes",
                "-o",
                "jsonpath={range .items[*]}{.metadata.labels}{.metadata.annotations}{.spec}{end}",
            ],
            vec!["get", "events", "--sort-by=.lastTimestamp"],
        ] {
            let mut all = vec!["--namespace", self.namespace.as_str()];
            all.extend(&arguments);
            let said = self.world.cluster.kubectl(&all, None).await;
            let text = said.map_or_else(|error| error.to_string(), |said| said.out + &said.err);
            let _ = writeln!(story, "  kubectl {}:", arguments.join(" "));
            let lines: Vec<&str> = text.lines().collect();
            for line in lines.iter().rev().take(120).rev() {
                let _ = writeln!(story, "    {line}");
            }
        }
        let logs = self.world.operator_logs(&self.namespace).await;
        let _ = writeln!(story, "  operator's log of {}:", self.namespace);
        for line in logs.lines() {
            let _ = writeln!(story, "    {line}");
        }
        story
    }
}

fn one_backend(rule: &Value) -> bool {
    rule.pointer("/backendRefs").and_then(Value::as_array).is_some_and(|refs| refs.len() == 1)
}

/// Whether a Deployment runs its template, whole and available, and is not paused.
#[must_use]
pub fn rolled_out(deployment: &Value) -> bool {
    let wanted = number(deployment, "/spec/replicas");
    number(deployment, "/status/observedGeneration") == number(deployment, "/metadata/generation")
        && number(deployment, "/status/updatedReplicas") == wanted
        && number(deployment, "/status/availableReplicas") == wanted
        && number(deployment, "/status/replicas") == wanted
}

/// One GET: status code and body.
///
/// # Errors
/// If there is no answer within 5 s.
pub async fn http_get(address: &str, host: &str, path: &str) -> Result<(u16, String)> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        let message = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(message.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), asking).await.context("no answer within 5 s")??;
    let code = answer
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("no HTTP answer from {address}"))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((code, body))
}
