//! `watch`: where a release stands, again at every change. It polls nothing, and reads the release's record at each change; on a terminal the time that is left counts
//! down by this machine's clock.

use std::time::Duration;

use canary_api::Phase;
use futures::StreamExt as _;
use jiff::Timestamp;

use super::status::{self, View};
use crate::args;
use crate::cluster::{Cluster, Seen};
use crate::output::{self, Format, Output};
use crate::release::{Release, clock};
use crate::{Error, Exit};

/// Cursor to the top left corner, and the screen empty; what scrolled away before stays.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Runs `watch`, until it is stopped or the CanaryRelease is gone.
///
/// # Errors
/// Where it is not there, or watching it is refused.
pub async fn run(named: &args::Named, cluster: &Cluster, output: &Output) -> Result<Exit, Error> {
    let screen = output.terminal && output.format == Format::Text;
    let mut release = cluster.release(&named.name).await?;
    let mut trends = status::lately(&release, cluster).await;
    let mut changed = true;
    let mut shown = None;
    let mut changes = cluster.watch_release(&named.name);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        if changed || screen {
            let mut view = status::view(&release, Timestamp::now())?;
            view.trends.clone_from(&trends);
            show(&view, screen, &mut shown, output)?;
        }
        changed = false;
        tokio::select! {
            seen = changes.next() => match seen.transpose()? {
                Some(Seen::Object(Some(object))) => {
                    let seen = Release::read(object);
                    changed = seen.text("/metadata/resourceVersion") != release.text("/metadata/resourceVersion");
                    release = seen;
                    if changed {
                        trends = status::lately(&release, cluster).await;
                    }
                }
                Some(Seen::Object(None)) | None => {
                    output::say(&format!("CanaryRelease {}/{} is gone", cluster.namespace, named.name));
                    return Ok(Exit::Done);
                }
                Some(Seen::Trouble(why)) => output::say(&format!("the watch goes on after: {why}")),
            },
            _ = second.tick(), if screen => {}
        }
    }
}

/// Shows what has changed: the whole screen on a terminal, else a line.
fn show(view: &View, screen: bool, shown: &mut Option<String>, output: &Output) -> Result<(), Error> {
    if screen {
        return output.write(&format!("{CLEAR}{}", status::render(view, output.paint)));
    }
    let line = line(view);
    if output.format == Format::Text && shown.as_ref() == Some(&line) {
        return Ok(());
    }
    let stamped = format!("{} {line}", clock(Timestamp::now()));
    *shown = Some(line);
    output.one_of_many(view, |_| stamped)
}

/// What a reader of a log needs.
#[must_use]
pub fn line(view: &View) -> String {
    let doubtful = view.gates.iter().filter(|gate| gate.verdict != "Pass");
    let gates: Vec<String> =
        doubtful.map(|gate| format!("{} {} ({} of {})", gate.gate, gate.verdict, gate.value, gate.limit)).collect();
    let gates =
        if gates.is_empty() || view.phase == Phase::Idle { String::new() } else { format!("; {}", gates.join(", ")) };
    format!("{} {}{gates}", view.phase.as_str(), view.message)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
