//! One release of the soak from the change of the template to its end, and what is known of it afterwards. A release
//! that is held without a verdict is resumed, as a person would who finds nothing wrong; a bad one is left to its gates.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::plan::{self, Source};
use super::{Part, expect};
use crate::cluster::text;
use crate::history::Seen;
use crate::scene::{SOON, Scene};

/// Longest time for one release.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// How often the status is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often a release that is held is resumed before it is given up.
const RESUMES: usize = 2;
/// Versions of the shop that only differ in their name.
const VERSIONS: [&str; 5] = ["v1", "v2", "v3", "v4", "v5"];

/// What is to be played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Of which part.
    pub part: Part,
    /// Share of the candidate's answers that are errors, where it is bad.
    pub bad: Option<f64>,
}

/// How a release ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// Promoted.
    Promoted,
    /// Reverted by a gate.
    Reverted {
        /// The stage, from 1.
        stage: usize,
        /// The gate, as the status names it.
        gate: String,
    },
    /// Held without a verdict until it was given up; where.
    Paused(String),
    /// Stopped for another reason, which a person was asked to mend; why.
    Stopped(String),
    /// Something else; what.
    Failed(String),
}

/// One release that was played.
#[derive(Debug, Clone)]
pub struct Release {
    /// Where and the how manieth.
    pub name: String,
    /// What was to be played.
    pub trial: Trial,
    /// Where the counters came from.
    pub source: Source,
    /// How it ended.
    pub end: End,
    /// What the status said at the end.
    pub message: String,
    /// The stages, such as `2/5`, in which it was held without a verdict.
    pub held: Vec<String>,
    /// From the change of the template to the end.
    pub took: Duration,
    /// Requests of the client meanwhile.
    pub sent: u64,
    /// Those that were due and not sent.
    pub skipped: u64,
    /// Answers of the candidate's version.
    pub candidate: u64,
    /// Bad ones among them, as the client saw them.
    pub bad: u64,
    /// Answers that the gate `latency` counted for the canary, and slow ones among them.
    pub slow: (f64, f64),
}

impl Release {
    /// One that could not be played.
    #[must_use]
    pub fn failed(name: &str, source: Source, trial: &Trial, error: &anyhow::Error) -> Self {
        Self {
            name: name.to_owned(),
            trial: *trial,
            source,
            end: End::Failed(format!("{error:#}")),
            message: String::new(),
            held: Vec::new(),
            took: Duration::ZERO,
            sent: 0,
            skipped: 0,
            candidate: 0,
            bad: 0,
            slow: (0.0, 0.0),
        }
    }

    /// What speaks against it, if anything: a healthy one that was reverted, a bad one that was not, or not where it
    /// may be.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        match (&self.end, self.trial.bad) {
            (End::Failed(why), _) => Some(format!("could not be played: {why}")),
            (End::Reverted { .. }, None) => Some(format!("healthy and reverted: {}", self.message)),
            (End::Stopped(why), None) => Some(format!("healthy and stopped: {why}")),
            (End::Promoted | End::Paused(_), None) => None,
            (End::Promoted, Some(share)) => Some(format!("{} bad and promoted", super::page::percent(share))),
            (End::Paused(why) | End::Stopped(why), Some(_)) => Some(format!("bad and not reverted: {why}")),
            (End::Reverted { stage, gate }, Some(share)) => {
                let Ok(prediction) = expect::Prediction::of(share) else {
                    return Some("nothing is predicted for it".to_owned());
                };
                let (first, last) = prediction.possible;
                if !prediction.allows(*stage) {
                    Some(format!("reverted at stage {stage}, where {first} to {last} is possible"))
                } else if gate != "gate errors" {
                    Some(format!("reverted by {gate}: {}", self.message))
                } else {
                    None
                }
            }
        }
    }

    /// Whether it ended as it may.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.broken().is_none()
    }

    /// The part of the requests that were due which was sent.
    #[must_use]
    pub fn rate_kept(&self) -> f64 {
        super::page::part(self.sent, self.sent + self.skipped)
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mark = if self.kept() { "ok  " } else { "FAIL" };
        let end = match &self.end {
            End::Promoted => "promoted".to_owned(),
            End::Reverted { stage, gate } => format!("reverted at stage {stage} by {gate}"),
            End::Paused(why) => format!("held: {why}"),
            End::Stopped(why) => format!("stopped: {why}"),
            End::Failed(why) => format!("failed: {why}"),
        };
        let of = self.trial.bad.map_or(String::new(), |share| format!(" ({} errors)", super::page::percent(share)));
        let held = if self.held.is_empty() { String::new() } else { format!(", held at {}", self.held.join(", ")) };
        let slow = if self.slow.1 > 0.0 { format!(", {} of {} slow", self.slow.1, self.slow.0) } else { String::new() };
        let rate = if self.rate_kept() < super::page::RATE_KEPT { ", THE RATE WAS NOT KEPT" } else { "" };
        format!(
            "{mark} {}{of}, by {}: {end} after {:.0} s{held}; {} requests ({} skipped{rate}), {} of {} of the candidate's bad{slow}",
            self.name,
            self.source.name(),
            self.took.as_secs_f64(),
            self.sent,
            self.skipped,
            self.bad,
            self.candidate,
        )
    }
}

/// Plays one release in a shop at rest, and waits until it is at rest again.
///
/// # Errors
/// If a step of it cannot be done; not by how the release ends.
pub async fn play(scene: &mut Scene, name: &str, source: Source, trial: &Trial) -> Result<Release> {
    let before = latest(scene)?.number();
    let version = next_version(scene, before).await?;
    let (began, client) = (Instant::now(), scene.client());
    let deployment = plan::candidate(scene.objects(), trial.part, version, before + 1, trial.bad);
    scene.cluster().apply(&[&deployment]).await?;
    scene.step(format!("release {}: {version}, {trial:?}", before + 1));
    let mut held = Vec::new();
    let end = until_over(scene, trial, before, began, &mut held).await?;
    let took = began.elapsed();
    let seen = scene.client().since(&client);
    let message = latest(scene)?.message().to_owned();
    let slow = counted(&scene.history().all(), before + 1, "latency");
    scene.tidy().await?;
    at_rest(scene).await?;
    Ok(Release {
        name: name.to_owned(),
        trial: *trial,
        source,
        end,
        message,
        held,
        took,
        sent: seen.sent,
        skipped: seen.skipped,
        candidate: seen.answers.version(version),
        bad: seen.answers.bad_of(version),
        slow,
    })
}

fn latest(scene: &Scene) -> Result<Seen> {
    scene.latest().context("the CanaryRelease has no status")
}

/// A version that does not serve now.
pub(crate) async fn next_version(scene: &Scene, before: i64) -> Result<&'static str> {
    let target = scene.deployment(&scene.target()).await?.context("there is no target")?;
    let serves = text(&target, "/spec/template/spec/containers/0/image").to_owned();
    let from = usize::try_from(before)?;
    let mut others = VERSIONS.iter().cycle().skip(from + 1).filter(|version| crate::setup::image(version) != serves);
    others.next().copied().context("there is no other version")
}

/// Waits for the end, resumes what is held, and moves the load.
async fn until_over(
    scene: &mut Scene,
    trial: &Trial,
    before: i64,
    began: Instant,
    held: &mut Vec<String>,
) -> Result<End> {
    let (mut rate, mut since) = (plan::RATE, String::new());
    loop {
        if trial.part == Part::Load {
            let wanted = rate_at(began.elapsed());
            if wanted.to_bits() != rate.to_bits() {
                scene.rate(wanted)?;
                rate = wanted;
            }
        }
        let seen = latest(scene)?;
        if seen.number() > before {
            if let Some(end) = ended(&seen) {
                return Ok(end);
            }
            let paused = text(&seen.object, "/status/current/paused/since");
            if !paused.is_empty() && paused != since {
                since = paused.to_owned();
                let reason = text(&seen.object, "/status/current/paused/reason").to_owned();
                if reason != "Inconclusive" {
                    return give_up(scene, &seen).await.map(End::Stopped);
                }
                held.push(text(&seen.object, "/status/stage").to_owned());
                if trial.bad.is_none() && held.len() > RESUMES {
                    return give_up(scene, &seen).await.map(End::Paused);
                }
                if trial.bad.is_none() {
                    scene.command("resume").await?;
                }
            }
        }
        if began.elapsed() > LONGEST {
            let line = give_up(scene, &seen).await?;
            return Ok(End::Stopped(format!("not over within {LONGEST:?}: {line}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn ended(seen: &Seen) -> Option<End> {
    if seen.outcome().is_empty() || seen.condition("Completed") != (seen.outcome(), "True") {
        return None;
    }
    Some(match seen.outcome() {
        "Promoted" => End::Promoted,
        "RolledBack" if text(&seen.object, "/status/current/revert/reason").contains("Breach") => End::Reverted {
            stage: usize::try_from(seen.stage()).unwrap_or_default(),
            gate: text(&seen.object, "/status/current/revert/by").to_owned(),
        },
        _ => End::Failed(seen.line()),
    })
}

/// Ends a release that nothing else ends, so that the next one can begin; what it said before.
async fn give_up(scene: &mut Scene, seen: &Seen) -> Result<String> {
    scene.from_now();
    scene.command("abort").await?;
    scene.until("ended Aborted", SOON, |seen| seen.ended("Aborted")).await?;
    Ok(format!("stage {}: {}", text(&seen.object, "/status/stage"), seen.message()))
}

/// The rate of the load that rises and falls.
fn rate_at(elapsed: Duration) -> f64 {
    let step = usize::try_from(elapsed.as_secs() / plan::STEP_SECONDS).unwrap_or_default() % plan::RATES.len();
    plan::RATES[step]
}

/// Waits until the operator has nothing more to do.
pub(crate) async fn at_rest(scene: &Scene) -> Result<()> {
    let end = Instant::now() + SOON;
    while latest(scene)?.condition("Reconciling").1 != "False" {
        if Instant::now() > end {
            bail!("not at rest within {SOON:?}: {}", latest(scene)?.line());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// What a gate counted on the canary in all windows of a release, up to the last status of each: all, and bad ones.
pub(super) fn counted(seen: &[Seen], release: i64, gate: &str) -> (f64, f64) {
    let mut windows: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for one in seen.iter().filter(|one| one.number() == release) {
        let counts = one.object.pointer("/status/current/counts").and_then(Value::as_array);
        let of_gate = |count: &&Value| text(count, "/gate") == gate && text(count, "/side") == "canary";
        if let Some(count) = counts.into_iter().flatten().find(of_gate) {
            let figure = |name: &str| count.pointer(name).and_then(Value::as_f64).unwrap_or_default();
            windows.insert(text(&one.object, "/status/current/windowSince"), (figure("/requests"), figure("/events")));
        }
    }
    windows.values().fold((0.0, 0.0), |(n, k), window| (n + window.0, k + window.1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn seen(release: i64, window: &str, counts: &Value) -> Seen {
        let object = json!({"status": {"current": {"number": release, "windowSince": window, "counts": counts}}});
        Seen { at: Instant::now(), unix_ms: 0, object }
    }

    #[test]
    fn a_gates_counts_are_added_up_over_windows_and_taken_once_in_each() {
        let of = |side: &str, n: f64, k: f64| json!([{"gate": "latency", "side": side, "requests": n, "events": k}]);
        let history = [
            seen(1, "a", &of("canary", 900.0, 90.0)),
            seen(2, "a", &of("canary", 10.0, 1.0)),
            seen(2, "a", &of("canary", 40.0, 2.0)),
            seen(2, "b", &of("stable", 800.0, 30.0)),
            seen(2, "b", &of("canary", 60.0, 3.0)),
        ];
        assert_eq!(counted(&history, 2, "latency"), (100.0, 5.0));
        assert_eq!(counted(&history, 2, "errors"), (0.0, 0.0));
    }

    #[test]
    fn the_load_rises_and_falls_about_its_mean() {
        let seconds = plan::STEP_SECONDS * 8;
        let rates: Vec<f64> = (0..seconds).map(|second| rate_at(Duration::from_secs(second))).collect();
        assert_eq!(rates.iter().sum::<f64>() / rates.len() as f64, plan::RATE);
        assert_eq!(
            (rates.iter().copied().fold(f64::MAX, f64::min), rates.iter().copied().fold(0.0, f64::max)),
            (50.0, 150.0)
        );
    }

    #[test]
    fn a_revert_is_right_only_for_a_bad_one_and_at_a_stage_that_is_possible() {
        let with = |bad, end| {
            let trial = Trial { part: Part::Bad, bad };
            Release { end, ..Release::failed("x", Source::Pods, &trial, &anyhow::anyhow!("")) }.kept()
        };
        let reverted = |stage| End::Reverted { stage, gate: "gate errors".to_owned() };
        assert!(with(Some(0.5), reverted(1)) && !with(Some(0.5), reverted(3)) && !with(None, reverted(1)));
        assert!(!with(Some(0.5), End::Promoted) && !with(Some(0.5), End::Paused(String::new())));
        assert!(with(None, End::Promoted) && with(None, End::Paused(String::new())));
        assert!(!with(None, End::Stopped(String::new())) && !with(Some(0.5), End::Stopped(String::new())));
        let other = End::Reverted { stage: 1, gate: "gate latency".to_owned() };
        assert!(!with(Some(0.5), other));
    }
}
