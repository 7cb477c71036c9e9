//! What people delete while releases are under way: CanaryReleases, their definition, the operator, namespaces. Traffic
//! goes to stable first, a plain Deployment is left, and no answer fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use tokio::time::sleep;

use super::moment::Moment;
use super::shop::After;
use super::{Options, Trial, round};
use crate::soak::Tell;
use crate::world::{SYSTEM, World};

/// Longest time until all CanaryReleases are gone: rolls are completed and drains waited for.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// How long traffic goes on without operator, policies and rights.
const WITHOUT: Duration = Duration::from_secs(20);
/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deletion {
    Release,
    Uninstall,
    Definition,
    Files,
    Namespace,
}

const ALL: [Deletion; 5] =
    [Deletion::Release, Deletion::Uninstall, Deletion::Definition, Deletion::Files, Deletion::Namespace];

impl Deletion {
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Uninstall => "uninstall",
            Self::Definition => "definition",
            Self::Files => "files",
            Self::Namespace => "namespace",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Release => "CanaryRelease deleted in the foreground",
            Self::Uninstall => "uninstalled as docs/install.md says",
            Self::Definition => "the CRDs deleted",
            Self::Files => "`kubectl delete -k deploy` without warning, installed again 20 s later",
            Self::Namespace => "the namespace deleted",
        }
    }

    const fn after(self) -> After {
        match self {
            Self::Release | Self::Uninstall | Self::Definition => After::Plain,
            Self::Files => After::GoesOn,
            Self::Namespace => After::Gone,
        }
    }

    async fn happen(self, world: &World) -> Result<()> {
        match self {
            Self::Release => {
                each(world, self, |namespace| {
                    vec!["delete", "canaryrelease", "shop", "-n", namespace, "--cascade=foreground", "--wait=false"]
                })
                .await
            }
            Self::Namespace => {
                each(world, self, |namespace| vec!["delete", "namespace", namespace, "--wait=false"]).await
            }
            Self::Uninstall => uninstall(world).await,
            Self::Definition => delete_definitions(world).await,
            Self::Files => {
                let folder = world.root().join("deploy").display().to_string();
                world.cluster.run(&["delete", "-k", &folder, "--wait=false"], None).await?;
                gone(world, &["get", "namespace", SYSTEM, "--ignore-not-found", "-o", "name"]).await?;
                sleep(WITHOUT).await;
                world.install().await
            }
        }
    }
}

/// Plays every deletion that is wanted, with shops at every moment.
///
/// # Errors
/// If the operator cannot be installed again.
pub async fn run(world: &Arc<World>, options: &Options, tell: &Tell) -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    for deletion in ALL.into_iter().filter(|deletion| options.wants(deletion.name())) {
        let name = deletion.round();
        let happen = async |world: &World| deletion.happen(world).await;
        trials.extend(round(world, (&name, deletion.sentence()), deletion.after(), happen, tell).await);
        if matches!(deletion, Deletion::Uninstall | Deletion::Definition) {
            world.install().await?;
        }
    }
    Ok(trials)
}

impl Deletion {
    /// What its shops' namespaces begin with.
    fn round(self) -> String {
        format!("del-{}", self.name())
    }
}

/// One `kubectl` for the namespace of each moment, all at once.
async fn each(world: &World, deletion: Deletion, arguments: impl Fn(&str) -> Vec<&str>) -> Result<()> {
    let namespaces = Moment::ALL.map(|moment| format!("{}-{}", deletion.round(), moment.name()));
    try_join_all(namespaces.iter().map(|namespace| {
        let arguments = arguments(namespace);
        async move { world.cluster.run(&arguments, None).await }
    }))
    .await
    .map(drop)
}

/// Deletes the CRDs, and waits until no CanaryRelease is left.
///
/// # Errors
/// With what `kubectl` said, or if one is left.
pub async fn delete_definitions(world: &World) -> Result<()> {
    let folder = world.root().join("crds").display().to_string();
    world.cluster.run(&["delete", "-f", &folder, "--wait=false"], None).await?;
    no_releases(world).await
}

/// docs/install.md, "Uninstalling".
///
/// # Errors
/// With what `kubectl` said, or if a CanaryRelease is left.
pub async fn uninstall(world: &World) -> Result<()> {
    let of = |path: &str| world.root().join(path).display().to_string();
    let (operator, definitions, all) = (of("deploy/40-operator.yaml"), of("crds"), of("deploy"));
    world
        .cluster
        .run(&["delete", "canaryreleases", "--all", "--all-namespaces", "--wait=false", "--ignore-not-found"], None)
        .await?;
    no_releases(world).await?;
    for arguments in [
        &["delete", "-f", operator.as_str(), "--timeout=50s"][..],
        &["delete", "-f", &definitions, "--timeout=50s"],
        &["delete", "--ignore-not-found", "-f", &all, "--timeout=50s"],
    ] {
        world.cluster.run(arguments, None).await?;
    }
    Ok(())
}

/// Waits until there is no CanaryRelease, or not even the kind.
async fn no_releases(world: &World) -> Result<()> {
    gone(world, &["get", "canaryreleases", "--all-namespaces", "-o", "name"]).await
}

/// Waits until `kubectl` finds nothing, or does not know what that should be.
async fn gone(world: &World, arguments: &[&str]) -> Result<()> {
    let end = Instant::now() + LONGEST;
    loop {
        let said = world.cluster.kubectl(arguments, None).await?;
        // As kubectl says it of a kind that it never heard of, and of one that it remembers.
        let unknown = ["doesn't have a resource type", "could not find the requested resource"];
        if said.out.trim().is_empty() && (said.ok() || unknown.iter().any(|text| said.err.contains(text))) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "still there after {LONGEST:?}: {}{}", said.out.trim(), said.err.trim());
        sleep(LOOK).await;
    }
}
