//! Carries effects out, in the order given. It decides nothing: the first that fails ends the tick,
//! and the next tick decides afresh from what it then sees. Only giving traffic back goes on past a failure, and what
//! a release does without is no failure. Jobs come after all else, all at once, and for a moment only.

use std::time::Duration;

use canary_core::{Effect, Kind, observed::Refusal};
use futures::future::join_all;
use kube::Client;
use tokio::time::timeout;

use super::api::{self, CallError};

/// Longest time for all Jobs that a tick creates: the next one reads the gates.
const DEADLINE_OF_JOBS: Duration = Duration::from_secs(2);

/// Carries those of the effects out that `wanted` says, and adds the positions of those that were done; what ended it,
/// if something did.
pub(super) async fn effects(
    client: &Client,
    namespace: &str,
    effects: &[Effect],
    wanted: impl Fn(&Effect) -> bool,
    done: &mut Vec<usize>,
    refused: impl FnMut(&str, Refusal),
) -> Result<(), CallError> {
    let mut failed = None;
    let (made, rest): (Vec<_>, Vec<_>) =
        effects.iter().enumerate().filter(|(_, effect)| wanted(effect)).partition(|(_, effect)| is_job(effect));
    for (index, effect) in rest {
        if failed.is_some() && !effect.gives_traffic_back() {
            break;
        }
        tracing::info!(kind = effect.kind().as_str(), name = effect.name(), "{}", effect.why());
        match one(client, namespace, effect).await {
            Ok(()) => done.push(index),
            // One route that can't be written keeps no other from giving its traffic back.
            Err(error) if effect.gives_traffic_back() => failed = failed.or(Some(error)),
            // What is wished for and not needed: a refusal must not stop a release.
            Err(error @ (CallError::Forbidden { .. } | CallError::Invalid { .. })) if effect.is_optional() => {
                tracing::warn!("{error}");
            }
            Err(error) if effect.may_fail() => tracing::warn!("{error}"),
            Err(error) => return Err(failed.unwrap_or(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    jobs(client, namespace, &made, done, refused).await;
    Ok(())
}

fn is_job(effect: &Effect) -> bool {
    effect.kind() == Kind::Job
}

/// Creates Jobs. An answer that is lost does no harm: the name says which run it is, and the next tick looks for it.
async fn jobs(
    client: &Client,
    namespace: &str,
    made: &[(usize, &Effect)],
    done: &mut Vec<usize>,
    mut refused: impl FnMut(&str, Refusal),
) {
    let answers = join_all(made.iter().map(|(_, effect)| {
        tracing::info!(kind = effect.kind().as_str(), name = effect.name(), "{}", effect.why());
        timeout(DEADLINE_OF_JOBS, one(client, namespace, effect))
    }));
    for ((index, effect), answer) in made.iter().zip(answers.await) {
        let late = || {
            let (what, why) = (effect.name().to_owned(), "no answer in time".to_owned());
            Err(CallError::Unavailable { what, why })
        };
        match answer.unwrap_or_else(|_| late()) {
            Ok(()) => done.push(*index),
            // It is there already, as a crash or a lost answer left it: the next tick sees whose it is.
            Err(CallError::Conflict { .. }) => {}
            Err(error) => {
                tracing::warn!("{error}");
                let last = matches!(error, CallError::Forbidden { .. } | CallError::Invalid { .. });
                let why = error.to_string().chars().take(400).collect();
                refused(effect.name(), Refusal { why, last, fresh: true });
            }
        }
    }
}

async fn one(client: &Client, namespace: &str, effect: &Effect) -> Result<(), CallError> {
    let folder = api::folder(effect.kind(), namespace);
    match effect {
        Effect::Create { object, .. } => api::create(client, folder, object).await.map(drop),
        Effect::Patch { name, patch, .. } => api::patch(client, folder, name, patch, false).await.map(drop),
        Effect::Delete { name, uid, .. } => match api::delete(client, folder, name, uid).await {
            // Gone is what was wanted.
            Err(CallError::Gone { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
