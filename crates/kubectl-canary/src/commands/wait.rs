//! `wait`: until the status speaks of the template that the Deployment has, and says how that ended. By watches of both;
//! it decides from one pair of them at a time and remembers nothing else.

use canary_api::CanaryReleaseStatus;
use canary_core::template;
use futures::StreamExt as _;
use serde::Serialize;
use serde_json::Value;

use super::list::tone;
use crate::args;
use crate::cluster::{Cluster, Seen};
use crate::output::{self, Output};
use crate::release::Release;
use crate::{Error, Exit};

/// How waiting ended, or that it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waited {
    /// Not yet; what is going on.
    NotYet(String),
    /// The template is live.
    Promoted(String),
    /// It was rolled back, and is held.
    RolledBack(String),
    /// A person or the target ended the release, or another template took its place.
    Ended(String),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    namespace: String,
    name: String,
    /// The template that was waited for.
    digest: String,
    /// Promoted, RolledBack, Ended or Timeout.
    result: &'static str,
    what: String,
}

/// Runs `wait`.
///
/// # Errors
/// Where CanaryRelease or Deployment are not there, or may not be watched.
pub async fn run(wait: &args::Wait, cluster: &Cluster, output: &Output) -> Result<Exit, Error> {
    let mut pair = Pair { wanted: wait.digest.clone(), deployment: None, release: None };
    let target = cluster.release(&wait.name).await?.target;
    let ended = tokio::time::timeout(wait.timeout.std(), until_ended(&mut pair, wait, &target, cluster)).await;
    let (result, exit, what) = match ended {
        Ok(ended) => match ended? {
            Waited::Promoted(what) => ("Promoted", Exit::Done, what),
            Waited::RolledBack(what) => ("RolledBack", Exit::Refused, what),
            Waited::Ended(what) | Waited::NotYet(what) => ("Ended", Exit::Wrong, what),
        },
        Err(_) => {
            let now = pair.release.as_ref().map_or("", |release| release.text("/status/message"));
            ("Timeout", Exit::Timeout, format!("neither live nor over within {}; now: {now}", wait.timeout))
        }
    };
    let answer = Answer {
        namespace: cluster.namespace.clone(),
        name: wait.name.clone(),
        digest: pair.wanted.unwrap_or_default(),
        result,
        what,
    };
    output.answer(&answer, |paint| {
        let word = paint.paint(tone(if result == "Ended" { "Aborted" } else { result }), result);
        format!("{}/{}: {word}: {}", answer.namespace, answer.name, answer.what)
    })?;
    Ok(exit)
}

/// What is known so far.
struct Pair {
    wanted: Option<String>,
    /// The digest of the Deployment's template; none inside: it is gone.
    deployment: Option<Option<String>>,
    release: Option<Release>,
}

async fn until_ended(pair: &mut Pair, wait: &args::Wait, target: &str, cluster: &Cluster) -> Result<Waited, Error> {
    let mut releases = cluster.watch_release(&wait.name);
    let mut deployments = cluster.watch_deployment(target);
    let mut said = String::new();
    loop {
        tokio::select! {
            seen = releases.next() => match seen.transpose()? {
                Some(Seen::Object(Some(object))) => pair.release = Some(Release::read(object)),
                Some(Seen::Trouble(why)) => output::say(&format!("the watch goes on after: {why}")),
                Some(Seen::Object(None)) | None => return Ok(Waited::Ended("the CanaryRelease was deleted".to_owned())),
            },
            seen = deployments.next() => match seen.transpose()? {
                Some(Seen::Object(Some(object))) => pair.deployment = Some(Some(digest(&object))),
                Some(Seen::Trouble(why)) => output::say(&format!("the watch goes on after: {why}")),
                Some(Seen::Object(None)) | None if pair.deployment.is_none() && pair.wanted.is_none() => {
                    return Err(Error::NotFound {
                        object: format!("Deployment {}/{target}", cluster.namespace),
                        hint: "apply it first: its template is what is waited for".to_owned(),
                    });
                }
                Some(Seen::Object(None)) | None => pair.deployment = Some(None),
            },
        }
        let (Some(deployment), Some(release)) = (&pair.deployment, &pair.release) else { continue };
        let Some(wanted) = pair.wanted.as_ref().or(deployment.as_ref()).cloned() else { continue };
        pair.wanted = Some(wanted.clone());
        match decide(&wanted, deployment.as_deref(), release.status()?) {
            Waited::NotYet(what) => {
                if what != said {
                    output::say(&what);
                    said = what;
                }
            }
            ended => return Ok(ended),
        }
    }
}

/// The digest of a Deployment's template.
#[must_use]
pub fn digest(deployment: &Value) -> String {
    template::digest(deployment.pointer("/spec/template").unwrap_or(&Value::Null))
}

/// Whether a template is live, from the digest of the Deployment's template now (none: it is gone) and the status.
///
/// An edit of the Deployment does not move the CanaryRelease's generation, so only digests say what a status speaks of.
#[must_use]
pub fn decide(wanted: &str, deployment: Option<&str>, status: &CanaryReleaseStatus) -> Waited {
    let at_rest =
        status.conditions.iter().any(|condition| condition.type_ == "Reconciling" && condition.status == "False");
    let serving = status.hold.as_ref().and_then(|hold| hold.serving.as_ref()).map(|version| version.digest.as_str());
    let message = || status.message.clone();
    if at_rest && serving == Some(wanted) {
        return Waited::Promoted(message());
    }
    if at_rest && status.observed_template == wanted {
        match status.outcome.as_str() {
            "" => {}
            "Promoted" => return Waited::Promoted(message()),
            "RolledBack" => return Waited::RolledBack(message()),
            // The operator takes stock of what runs; then it serves.
            "Ungated" | "Overridden" if serving.is_none() => {}
            outcome => return Waited::Ended(format!("{outcome}: {}", status.message)),
        }
    }
    let Some(asked) = deployment else {
        return Waited::Ended("the Deployment was deleted".to_owned());
    };
    // A target that was restored after a revert asks for what serves too, but then the status still speaks of the
    // wanted template.
    let of_another = status.observed_template == asked || (at_rest && serving == Some(asked));
    if asked != wanted && status.observed_template != wanted && of_another {
        return Waited::Ended(format!("superseded by a newer template ({asked}): {}", status.message));
    }
    Waited::NotYet(if status.message.is_empty() {
        "the operator has not looked at it yet".to_owned()
    } else {
        message()
    })
}

#[cfg(test)]
#[path = "wait_tests.rs"]
mod tests;
