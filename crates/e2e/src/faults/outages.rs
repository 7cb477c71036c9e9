//! What the operator needs is away for a while: the API server, etcd, Prometheus, the network, the node's runtime, its
//! lease. Traffic stays where it was, and each release goes on afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::shop::After;
use super::{Options, Trial, round};
use crate::cluster::{Kind, text};
use crate::scene::SOON;
use crate::soak::Tell;
use crate::world::{OPERATOR, SYSTEM, World};

/// A frozen operator is killed by its liveness probe after 30 s.
const FROZEN: Duration = Duration::from_secs(20);
/// How long anything but the API server is away: longer than a lease, and than a client's call.
const SHORT: Duration = Duration::from_secs(30);
/// How long containerd is away at the most.
const RUNTIME: Duration = Duration::from_secs(10);
/// From so long on a control plane elects a new controller manager.
const LONG: Duration = Duration::from_secs(15);
/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The part of the packets that a slow network loses.
const LOSS: &str = "0.4";

/// What is away, and how it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// The API server is killed.
    Api,
    /// etcd is killed, and started again at once.
    Etcd,
    /// Prometheus is killed.
    Prometheus,
    /// No packet comes through between operator and API server.
    Cut,
    /// Two of five packets are lost.
    Slow,
    /// containerd is killed.
    Runtime,
    /// The leader is frozen while another leads, and the lease is deleted.
    Leaders,
}

const ALL: [Outage; 7] =
    [Outage::Api, Outage::Etcd, Outage::Prometheus, Outage::Cut, Outage::Slow, Outage::Runtime, Outage::Leaders];

impl Outage {
    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Etcd => "etcd",
            Self::Prometheus => "prometheus",
            Self::Cut => "cut",
            Self::Slow => "slow",
            Self::Runtime => "runtime",
            Self::Leaders => "leaders",
        }
    }

    fn sentence(self, long: Duration) -> String {
        let seconds = SHORT.as_secs();
        match self {
            Self::Api => format!("API server killed, away for {} s", long.as_secs()),
            Self::Etcd => "etcd killed and started again".to_owned(),
            Self::Prometheus => format!("Prometheus killed, away for {seconds} s"),
            Self::Cut => format!("no packet between operator and API server for {seconds} s"),
            Self::Slow => format!("two of five packets between operator and API server lost for {seconds} s"),
            Self::Runtime => format!("containerd killed, away for {} s", RUNTIME.as_secs()),
            Self::Leaders => {
                format!("leader frozen for {} s, the lease deleted meanwhile and twice afterwards", FROZEN.as_secs())
            }
        }
    }

    /// Lets it happen for so long, and ends it; etcd and the leader have times of their own.
    ///
    /// # Errors
    /// If it can't be brought about or ended.
    pub async fn happen(self, world: &World, time: Duration) -> Result<()> {
        match self {
            Self::Api => api_server_away(world, time).await,
            Self::Etcd => {
                kill(world, "etcd")?;
                start(world, "etcd")?;
                answers(world).await
            }
            Self::Prometheus => {
                kill(world, "prometheus")?;
                sleep(time).await;
                start(world, "prometheus")
            }
            Self::Cut => network(world, &["DROP"], time).await,
            Self::Slow => {
                network(world, &["DROP", "-m", "statistic", "--mode", "random", "--probability", LOSS], time).await
            }
            Self::Runtime => {
                kill(world, "containerd")?;
                sleep(time.min(RUNTIME)).await;
                start(world, "containerd")
            }
            Self::Leaders => two_leaders(world).await,
        }
    }
}

/// Plays every outage that is wanted, with shops at every moment.
///
/// # Errors
/// If the cluster is none of our labs.
pub async fn run(world: &Arc<World>, options: &Options, tell: &Tell) -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    world.lab()?;
    for outage in ALL.into_iter().filter(|outage| options.wants(outage.name())) {
        let (name, long) = (format!("out-{}", outage.name()), options.outage);
        let time = if outage == Outage::Api { long } else { SHORT };
        let happen = async |world: &World| outage.happen(world, time).await;
        trials.extend(round(world, (&name, &outage.sentence(long)), After::GoesOn, happen, tell).await);
        world.operator_ready().await?;
    }
    Ok(trials)
}

fn kill(world: &World, component: &str) -> Result<()> {
    block_in_place(|| Ok(world.lab()?.kill(component)?))
}

fn start(world: &World, component: &str) -> Result<()> {
    block_in_place(|| Ok(world.lab()?.start(component)?))
}

/// Kills the API server and starts it again so much later.
///
/// # Errors
/// If it cannot be killed, or does not answer again.
pub async fn api_server_away(world: &World, long: Duration) -> Result<()> {
    kill(world, "kube-apiserver")?;
    // Elsewhere one that cannot renew its lease ends. The lab's has none, and on the API server's return it would take
    // the node for dead before the node had a chance to say otherwise.
    if long > LONG {
        kill(world, "kube-controller-manager")?;
    }
    sleep(long).await;
    start(world, "kube-apiserver")?;
    answers(world).await?;
    if long > LONG {
        renewed(world, ("kube-node-lease", "lab")).await?;
        start(world, "kube-controller-manager")?;
    }
    Ok(())
}

/// Waits until the API server is ready.
async fn answers(world: &World) -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        let said = world.cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"], None).await?;
        if said.ok() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the API server does not answer {SOON:?} after its return: {}", said.err.trim());
        sleep(LOOK).await;
    }
}

/// Waits until a lease changes.
async fn renewed(world: &World, (namespace, name): (&str, &str)) -> Result<()> {
    let time = |lease: Option<&serde_json::Value>| lease.map(|lease| text(lease, "/spec/renewTime").to_owned());
    let before = time(world.cluster.get(Kind::Lease, namespace, name).await?.as_ref());
    let changed = |found: Option<&serde_json::Value>| time(found) != before;
    world.cluster.until((Kind::Lease, namespace, name), SOON, "renewed", changed).await.map(drop)
}

/// A rule for every packet between the operator's pods and the API server, for so long.
async fn network(world: &World, rule: &[&str], time: Duration) -> Result<()> {
    let pods = world.cluster.list(Kind::Pod, SYSTEM, "app.kubernetes.io/component=operator").await?;
    let addresses: Vec<&str> = pods.iter().map(|pod| text(pod, "/status/podIP")).filter(|ip| !ip.is_empty()).collect();
    ensure!(!addresses.is_empty(), "the operator has no pod with an address");
    let rules = |verb: &str| -> Result<()> {
        for address in &addresses {
            // The node's own address, which Services lead to.
            for (chain, peer, port) in [("INPUT", "--source", "--dport"), ("OUTPUT", "--destination", "--sport")] {
                let mut arguments =
                    vec!["--wait", verb, chain, peer, address, "--protocol", "tcp", port, "6443", "--jump"];
                arguments.extend(rule);
                world.inside("iptables", &arguments)?;
            }
        }
        Ok(())
    };
    rules("--insert")?;
    sleep(time).await;
    rules("--delete")
}

/// The leader is frozen, another leads, and the old one goes on as if it still did; then the lease goes twice.
async fn two_leaders(world: &World) -> Result<()> {
    let old = world.leader().await?.context("no pod of the operator leads")?;
    world.signal(&old, "SIGSTOP")?;
    delete_lease(world).await?;
    let led = world.cluster.until((Kind::Lease, SYSTEM, OPERATOR), FROZEN, "held by the other", |found| {
        let holder = found.map_or("", |lease| text(lease, "/spec/holderIdentity"));
        !holder.is_empty() && !holder.starts_with(text(&old, "/metadata/name"))
    });
    let frozen = Instant::now();
    let led = led.await;
    sleep(FROZEN.saturating_sub(frozen.elapsed())).await;
    world.signal(&old, "SIGCONT")?;
    led?;
    for _ in 0..2 {
        delete_lease(world).await?;
        world
            .cluster
            .until((Kind::Lease, SYSTEM, OPERATOR), SOON, "held", |found| {
                found.is_some_and(|lease| !text(lease, "/spec/holderIdentity").is_empty())
            })
            .await?;
    }
    Ok(())
}

async fn delete_lease(world: &World) -> Result<()> {
    world.cluster.run(&["delete", "lease", OPERATOR, "-n", SYSTEM, "--ignore-not-found"], None).await.map(drop)
}
