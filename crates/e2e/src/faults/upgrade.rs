//! A later build takes over from an earlier one, with its definitions, rights and policies, as an upgrade does, and the
//! earlier one from the later, as whoever regrets it does: releases go on where they are, and where none is under way none
//! is started.

use std::sync::Arc;

use anyhow::Result;

use super::shop::After;
use super::{Trial, round};
use crate::soak::Tell;
use crate::world::World;

/// Installs the previous build, this one with shops at every moment, and the previous one again with other shops; this one
/// stays.
///
/// # Errors
/// If no previous build was named, or it cannot be installed.
pub async fn run(world: &Arc<World>, tell: &Tell) -> Result<Vec<Trial>> {
    let previous = world.install_previous().await?;
    tell(&format!("{} is installed", previous.name));
    let (fault, undone) = (format!("upgrade from {}", previous.name), format!("back to {}", previous.name));
    let mut trials = round(world, ("upgrade", &fault), After::GoesOn, World::upgrade, tell).await;
    let back = async |world: &World| world.install_previous().await.map(drop);
    trials.extend(round(world, ("back", &undone), After::GoesOn, back, tell).await);
    world.upgrade().await?;
    Ok(trials)
}
