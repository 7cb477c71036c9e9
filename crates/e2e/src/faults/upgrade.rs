//! A later build takes over from an earlier one, with its definitions, rights and policies, as an upgrade does: releases
//! go on where they are, and where none is under way none is started.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::shop::After;
use super::{Options, Trial, round};
use crate::soak::Tell;
use crate::world::World;

/// Installs the previous build, and this one with shops at every moment.
///
/// # Errors
/// If no previous build was named, or it cannot be installed.
pub async fn run(world: &Arc<World>, options: &Options, tell: &Tell) -> Result<Vec<Trial>> {
    let previous = options.previous.as_ref().context("the part upgrade needs a previous build")?;
    world.import_operator(&previous.operator)?;
    world.install_from(&previous.root).await?;
    tell(&format!("{} is installed", previous.name));
    let fault = format!("upgrade from {}", previous.name);
    let happen = async |world: &World| {
        world.import_images()?;
        world.install().await
    };
    Ok(round(world, ("upgrade", &fault), After::GoesOn, happen, tell).await)
}
