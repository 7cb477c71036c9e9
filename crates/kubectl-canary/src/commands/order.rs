//! `abort`, `pause`, `resume`, `approve`, `promote`, `retry`: a command as an annotation, bound to the release that was
//! seen, and the operator's answer. Whether a command fits is the operator's to say; what surely does not is not sent.
//! An abort is always sent.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use canary_api::{CommandStatus, Step, names};
use futures::StreamExt as _;
use serde::Serialize;

use crate::args;
use crate::cluster::{self, Cluster, Seen};
use crate::output::{self, Output, Paint, Tone};
use crate::release::Release;
use crate::{Error, Exit, clean};

/// What is commanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// End the release; the candidate is rejected.
    Abort,
    /// Stop the clock.
    Pause,
    /// Start it again.
    Resume,
    /// Give the stage's approval.
    Approve,
    /// Skip the stages that are left.
    Promote,
    /// Release a rejected template.
    Retry,
}

impl Verb {
    /// The word, which is also the RBAC verb.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Promote => "promote",
            Self::Retry => "retry",
        }
    }
}

/// What a command would do, as far as the status shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It fits; what will happen.
    Will(String),
    /// The operator would refuse it; why, and what to do.
    Refused(String),
}

/// What came of a command.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    namespace: String,
    name: String,
    command: String,
    /// Whether it was done; false also where it was never sent, or not taken in time.
    done: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    by: String,
    result: String,
}

/// Runs a command.
///
/// # Errors
/// Where the cluster does not answer, or there is nobody to ask and no `--yes`.
pub async fn run(verb: Verb, order: &args::Order, cluster: &Cluster, output: &Output) -> Result<Exit, Error> {
    let release = cluster.release(&order.name).await?;
    let text = text(verb, &release);
    let answer = |done: bool, by: &str, result: String| Answer {
        namespace: release.namespace.clone(),
        name: release.name.clone(),
        command: text.clone(),
        done,
        by: by.to_owned(),
        result,
    };
    let give = |answer: Answer, exit: Exit| output.answer(&answer, |paint| render(&answer, paint)).map(|()| exit);
    let will = match expected(verb, &release) {
        Expected::Will(will) => will,
        Expected::Refused(why) => return give(answer(false, "", format!("not sent: {why}")), Exit::Refused),
    };
    if !order.yes && !confirmed(&question(verb, &release, &will))? {
        return give(answer(false, "", "not sent: you did not say yes".to_owned()), Exit::Refused);
    }
    if let Err(error) = cluster.annotate(&release, names::ANNOTATION_COMMAND, &text).await {
        return match refusal(&error, verb, &release) {
            Some(why) => give(answer(false, "", format!("refused: {why}")), Exit::Refused),
            None => Err(Error::Api {
                doing: format!("write the command to CanaryRelease {}", release.place()),
                why: cluster::explain(&error),
            }),
        };
    }
    if order.timeout == canary_api::Duration::ZERO {
        return give(answer(true, "", "sent; kubectl canary status shows what comes of it".to_owned()), Exit::Done);
    }
    let taken = tokio::time::timeout(order.timeout.std(), answered(cluster, &release, &text)).await;
    match taken {
        Err(_) => give(
            answer(
                false,
                "",
                format!(
                    "not taken within {}: it stays, and is taken once the operator runs; see kubectl -n canaryrelease-system get pods",
                    order.timeout
                ),
            ),
            Exit::Timeout,
        ),
        Ok(Err(error)) => Err(error),
        Ok(Ok(Taken::Yes(command))) => {
            let done = !command.result.starts_with("refused");
            give(answer(done, &command.by, command.result), if done { Exit::Done } else { Exit::Refused })
        }
        Ok(Ok(Taken::Lost(why))) => give(answer(false, "", why), Exit::Refused),
        Ok(Ok(Taken::NotYet)) => Err(Error::Api {
            doing: format!("watch CanaryRelease {}", release.place()),
            why: "the watch ended".to_owned(),
        }),
    }
}

/// The annotation's text: bound to the release, and for an approval to the stage, so that it can't hit another. An abort
/// with no release to be seen is for whatever has begun meanwhile.
#[must_use]
pub fn text(verb: Verb, release: &Release) -> String {
    let word = verb.word();
    let id =
        if verb == Verb::Abort { release.under_way().map(|current| current.id.as_str()) } else { release.last_id() };
    match (id, release.under_way()) {
        (Some(id), Some(current)) if verb == Verb::Approve => {
            format!("{word} {id} {}", current.stage_index.saturating_add(1))
        }
        (Some(id), _) => format!("{word} {id}"),
        (None, _) => word.to_owned(),
    }
}

/// What a command would do, by the table of docs/operating.md.
#[must_use]
pub fn expected(verb: Verb, release: &Release) -> Expected {
    let will = |text: &str| Expected::Will(text.to_owned());
    let refused = |text: String| Expected::Refused(text);
    if verb == Verb::Abort {
        return match release.under_way() {
            None => will(
                "no release is under way as far as the status shows; one that has begun meanwhile is reverted, else the operator refuses it",
            ),
            Some(current) if reverting(current.step) => {
                will("the release is being reverted already; the operator refuses it")
            }
            Some(current) if promoting(current.step) => will(
                "all traffic goes back to the version before, which the target gets again; the candidate is rejected",
            ),
            Some(_) => will("all traffic goes back to stable, the canary's pods go, the candidate is rejected"),
        };
    }
    if let Some((pending, by)) = &release.command {
        return refused(format!(
            "the operator has not taken {pending:?} of {by} yet, and only abort may replace it; does the operator run?"
        ));
    }
    let Some(current) = release.under_way() else {
        return match (verb, release.last_id()) {
            (Verb::Retry, Some(_)) => {
                will("the rejection is lifted, and the template that the target holds is released again from stage 1")
            }
            (Verb::Retry, None) => refused("there was no release yet, so nothing was rejected".to_owned()),
            _ => refused("no release is under way".to_owned()),
        };
    };
    if reverting(current.step) {
        return refused(format!("{} is being reverted", current.id));
    }
    let stage = current.stage_index.saturating_add(1);
    match verb {
        Verb::Retry => refused(format!("{} is under way; retry is for a template that was rejected", current.id)),
        Verb::Resume => match &current.paused {
            None => refused(format!("{} is not paused", current.id)),
            Some(paused) if paused.without_weight => will("the release starts again at stage 1"),
            Some(_) => will("the release goes on; the stage's clock starts again"),
        },
        _ if promoting(current.step) => {
            refused(format!("{} is being promoted; abort would still revert it", current.id))
        }
        Verb::Pause if current.paused.is_some() => refused(format!("{} is paused already", current.id)),
        Verb::Pause => will(&format!(
            "the clock stands; {} of the traffic stays on the candidate, and the gates go on: a breach still reverts",
            current.weight
        )),
        Verb::Approve => approvable(release, stage),
        Verb::Abort | Verb::Promote => will(
            "the stages that are left are skipped: the canary is scaled for all of the traffic and gets it, then the target rolls; a breach still reverts; the history says PARTIAL",
        ),
    }
}

fn approvable(release: &Release, stage: i32) -> Expected {
    let asks = usize::try_from(stage.saturating_sub(1))
        .ok()
        .zip(release.spec.as_ref())
        .is_none_or(|(index, spec)| spec.stages.get(index).is_none_or(|stage| stage.approval));
    let judged = release.under_way().is_some_and(|current| current.step == Step::Bake);
    if !asks {
        return Expected::Refused(format!("stage {stage} needs no approval"));
    }
    if !judged {
        return Expected::Refused(format!("stage {stage} has not begun to be judged; approve it when it is Baking"));
    }
    Expected::Will(format!("stage {stage} may end once its time has passed and every gate allows it"))
}

const fn reverting(step: Step) -> bool {
    matches!(step, Step::Revert | Step::RevertDrain | Step::RevertTarget)
}

const fn promoting(step: Step) -> bool {
    matches!(step, Step::Roll | Step::HandBack | Step::Drain | Step::Soak)
}

/// What is asked before anything is written.
fn question(verb: Verb, release: &Release, will: &str) -> String {
    let what = release.under_way().map_or_else(String::new, |current| {
        format!(" ({}, candidate {})", current.id, current.candidate.images.join(", "))
    });
    let place = release.place();
    let now = release.text("/status/message");
    let now = if now.is_empty() { String::new() } else { format!("  now:  {now}\n") };
    format!("{} {place}{what}\n{now}  then: {will}\nDo it? [y/N] ", verb.word())
}

/// Asks on the terminal.
fn confirmed(question: &str) -> Result<bool, Error> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::Usage("nobody can be asked here: give --yes to do it without asking".to_owned()));
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{}", clean::lines(question)).and_then(|()| stderr.flush())?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// What the API server refused, in words for who gave the command; none where it is another failure.
fn refusal(error: &kube::Error, verb: Verb, release: &Release) -> Option<String> {
    let kube::Error::Api(status) = error else { return None };
    let said = clean::text(&status.message);
    let word = verb.word();
    match status.code {
        409 => Some(format!(
            "CanaryRelease {} was deleted and made anew meanwhile; look at it, then try again",
            release.place()
        )),
        403 | 422 => {
            // Kubernetes puts the names of policy and binding before what the policy says.
            let policy = said.split_once("denied request: ").map(|(_, says)| says);
            Some(match policy {
                Some(says) if says.contains("RBAC verb") => format!(
                    "{says}; ask for ClusterRole canaryrelease-releaser in namespace {}, or for a role with that verb alone: \
                     kubectl -n {} create role canary-{word} --verb={word},get,list,watch,patch --resource=canaryreleases.canaryrelease.dev",
                    release.namespace, release.namespace
                ),
                Some(says) => says.to_owned(),
                None if status.code == 403 => format!(
                    "{said}; giving commands needs patch on canaryreleases.canaryrelease.dev and the verb {word}: ask for ClusterRole canaryrelease-releaser"
                ),
                None => said,
            })
        }
        _ => None,
    }
}

/// Whether a command was taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// It still waits.
    NotYet,
    /// It was, with what came of it.
    Yes(CommandStatus),
    /// It never will be.
    Lost(String),
}

async fn answered(cluster: &Cluster, release: &Release, text: &str) -> Result<Taken, Error> {
    let mut changes = cluster.watch_release(&release.name);
    while let Some(seen) = changes.next().await {
        match seen? {
            Seen::Object(None) => return Ok(Taken::Lost(format!("CanaryRelease {} is gone", release.place()))),
            Seen::Object(Some(object)) => match taken(&Release::read(object), release, text) {
                Taken::NotYet => {}
                other => return Ok(other),
            },
            Seen::Trouble(why) => output::say(&format!("the watch goes on after: {why}")),
        }
    }
    Ok(Taken::NotYet)
}

/// Whether the operator has taken a command that was written to `sent`.
#[must_use]
pub fn taken(now: &Release, sent: &Release, text: &str) -> Taken {
    if now.uid != sent.uid {
        return Taken::Lost(format!("CanaryRelease {} was deleted and made anew", sent.place()));
    }
    let Ok(status) = now.status() else {
        return Taken::Lost("the status cannot be read by this version of the plugin".to_owned());
    };
    let last = status.last_command.as_ref().filter(|last| last.command == text);
    match (&now.command, last) {
        // The operator takes the annotation away only when the status tells of it; then the next command may be given.
        (None, Some(last)) => Taken::Yes(last.clone()),
        (Some((waits, _)), _) if waits == text => Taken::NotYet,
        (Some((waits, _)), _) => Taken::Lost(format!("another command took its place: {waits:?}")),
        (None, None) => Taken::Lost("another command was taken in its place; see kubectl canary status".to_owned()),
    }
}

fn render(answer: &Answer, paint: Paint) -> String {
    let tone = if answer.done { Tone::Good } else { Tone::Bad };
    let by = if answer.by.is_empty() { String::new() } else { format!(" (by {})", answer.by) };
    format!("{}/{}: {}: {}{by}", answer.namespace, answer.name, answer.command, paint.paint(tone, &answer.result))
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
