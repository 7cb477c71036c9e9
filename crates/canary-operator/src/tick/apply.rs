//! Carries effects out, in the order given. It decides nothing: the first that fails ends the tick,
//! and the next tick decides afresh from what it then sees. Only giving traffic back goes on past a failure, and what
//! a release does without is no failure.

use canary_core::{Effect, Kind, observed::Refusal};
use kube::Client;

use super::api::{self, CallError};

/// Carries those of the effects out that `wanted` says, and adds the positions of those that were done; what ended it,
/// if something did.
pub(super) async fn effects(
    client: &Client,
    namespace: &str,
    effects: &[Effect],
    wanted: impl Fn(&Effect) -> bool,
    done: &mut Vec<usize>,
    mut refused: impl FnMut(&str, Refusal),
) -> Result<(), CallError> {
    let mut failed = None;
    for (index, effect) in effects.iter().enumerate().filter(|(_, effect)| wanted(effect)) {
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
            // It is there already, as a crash or a lost answer left it: the next tick sees whose it is.
            Err(CallError::Conflict { .. }) if effect.kind() == Kind::Job => {}
            Err(error) if effect.kind() == Kind::Job => {
                tracing::warn!("{error}");
                let last = matches!(error, CallError::Forbidden { .. } | CallError::Invalid { .. });
                refused(
                    effect.name(),
                    Refusal { why: error.to_string().chars().take(400).collect(), last, fresh: true },
                );
            }
            Err(error) if effect.may_fail() => tracing::warn!("{error}"),
            Err(error) => return Err(failed.unwrap_or(error)),
        }
    }
    failed.map_or(Ok(()), Err)
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
