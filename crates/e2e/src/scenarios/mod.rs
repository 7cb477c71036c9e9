//! Every scenario, with the promise that it keeps.

pub mod commands;
pub mod deletion;
pub mod faults;
pub mod gitops;
pub mod hold;
pub mod odd_targets;
pub mod promotion;
pub mod revert;
pub mod starting;

use anyhow::Result;
use futures::future::BoxFuture;

use crate::scene::Scene;

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, also its namespace.
    pub name: &'static str,
    /// The promise it keeps.
    pub promise: &'static str,
    /// Whether `cargo xtask test` plays it.
    pub quick: bool,
    /// Whether it disturbs everything else in the cluster, so that it plays alone.
    pub alone: bool,
    /// Plays it.
    pub run: for<'a> fn(&'a mut Scene) -> BoxFuture<'a, Result<()>>,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! scenario {
    ($name:literal, $promise:literal, $function:path $(, $flag:ident)*) => {
        #[allow(clippy::needless_update)]
        Scenario {
            $($flag: true,)*
            ..Scenario {
                name: $name,
                promise: $promise,
                quick: false,
                alone: false,
                run: |scene| Box::pin($function(scene)),
            }
        }
    };
}

/// All scenarios; those that play alone last.
#[must_use]
pub fn all() -> Vec<Scenario> {
    vec![
        scenario!("good", "good release promoted, the client sees no error", promotion::good_release_promoted, quick),
        scenario!("bad-1", "bad release at stage 1 reverted", revert::bad_release_reverted_at_stage_1, quick),
        scenario!("bad-3", "release that turns bad at stage 3 reverted", revert::turns_bad_at_stage_3_reverted, quick),
    ]
}
