//! Carries effects out, in the order given. It decides nothing: the first that fails ends the tick,
//! and the next tick decides afresh from what it then sees.

use canary_core::Effect;
use kube::Client;

use super::api::{self, CallError};

/// Carries the effects out; how many, and what ended it, if something did.
pub(super) async fn effects(client: &Client, namespace: &str, effects: &[Effect]) -> Result<(), CallError> {
    for effect in effects {
        tracing::info!(kind = effect.kind().as_str(), name = effect.name(), "{}", effect.why());
        one(client, namespace, effect).await?;
    }
    Ok(())
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
