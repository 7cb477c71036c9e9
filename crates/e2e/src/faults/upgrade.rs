//! A later build takes over from an earlier one, with its definitions, rights and policies, as an upgrade does: releases
//! go on where they are, and where none is under way none is started.

use std::sync::Arc;

use anyhow::Result;

use super::shop::After;
use super::{Trial, round};
use crate::soak::Tell;
use crate::world::World;

/// Installs the previous build, and this one with shops at every moment.
///
/// # Errors
/// If no previous build was named, or it cannot be installed.
pub async fn run(world: &Arc<World>, tell: &Tell) -> Result<Vec<Trial>> {
    let previous = world.install_previous().await?;
    tell(&format!("{} is installed", previous.name));
    let fault = format!("upgrade from {}", previous.name);
    Ok(round(world, ("upgrade", &fault), After::GoesOn, World::upgrade, tell).await)
}
