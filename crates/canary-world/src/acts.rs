//! What people do to a release: commands, new templates, deletions. A scenario has some of it in its script; here each is
//! done at each place of every scenario as well, and what may come of it then is said. It never writes what is the
//! operator's.

use std::fmt;
use std::str::FromStr;

use canary_api::{Step, names};
use canary_core::template;
use serde_json::{Value, json};

use crate::api::{Caller, PatchKind};
use crate::enumerate::asked;
use crate::fault::{Fault, Planned, Point};
use crate::manifests;
use crate::refusal::Refusal;
use crate::resources::{CANARY_RELEASES, DEPLOYMENTS, Resource};
use crate::run::{JANE, OTHER_END, Outcome};
use crate::scenario::{Action, Line, Scenario};
use crate::text;
use crate::world::{Entry, Inner, NAMESPACE};

/// Something that Jane does at a moment that the scenario does not foresee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The command `abort`.
    Abort,
    /// The command `pause`.
    Pause,
    /// The command `resume`.
    Resume,
    /// The command `approve` for the first stage.
    Approve,
    /// The command `promote`.
    Promote,
    /// The command `retry`.
    Retry,
    /// A newer template.
    PushNewer,
    /// The template that was there at first.
    PutBack,
    /// The CanaryRelease goes.
    DeleteRelease,
    /// The target goes.
    DeleteTarget,
    /// The route goes.
    DeleteRoute,
    /// The stable Service goes.
    DeleteService,
}

impl Act {
    /// Each of them, as a script has it.
    const ALL: [(&'static str, Self); 12] = [
        ("command abort", Self::Abort),
        ("command pause", Self::Pause),
        ("command resume", Self::Resume),
        ("command approve 1", Self::Approve),
        ("command promote", Self::Promote),
        ("command retry", Self::Retry),
        ("push v3", Self::PushNewer),
        ("push v1", Self::PutBack),
        ("delete CanaryRelease web", Self::DeleteRelease),
        ("delete Deployment web", Self::DeleteTarget),
        ("delete HTTPRoute web", Self::DeleteRoute),
        ("delete Service web", Self::DeleteService),
    ];

    fn word(self) -> &'static str {
        text::word(&Self::ALL, &self)
    }

    /// Does it; whether the API server took it.
    pub(crate) fn strike(self, inner: &mut Inner) -> bool {
        let done = match self.word().parse() {
            Ok(Action::Command(command)) => inner.command(&command),
            Ok(Action::Push(version)) => inner.push(&version),
            Ok(Action::Delete(kind, name)) => inner.delete(&kind, &name),
            _ => return false,
        };
        done.is_ok()
    }

    /// Whether requests may find no pod after it, by nobody's fault but Jane's.
    pub(crate) const fn takes_traffic(self) -> bool {
        matches!(self, Self::DeleteTarget | Self::DeleteRoute | Self::DeleteService)
    }

    /// Whether a release may be promoted after it that would not have been.
    const fn may_promote(self) -> bool {
        matches!(self, Self::Promote | Self::Retry | Self::PushNewer | Self::PutBack)
    }

    /// Whether it asks for nothing that a release which is under way without a pause could give.
    const fn is_idle(self) -> bool {
        matches!(self, Self::Resume | Self::Approve | Self::Retry)
    }

    /// Versions that may serve after it, beside the first one and the scenario's.
    fn may_serve(self, served: &str) -> bool {
        match self {
            Self::Promote | Self::Retry => served == "v2",
            Self::PushNewer => served == "v3",
            Self::DeleteTarget => served.is_empty(),
            _ => false,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Act {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text::named(&Self::ALL, text).ok_or_else(|| format!("nobody does {text:?} at any moment"))
    }
}

/// Each act in the middle of each place of the run.
pub(crate) fn points(base: &Outcome) -> Vec<Planned> {
    let middles = middles(base).into_iter().map(|entry| Point::Request(entry.request));
    middles.flat_map(|at| Act::ALL.map(|(_, act)| Planned { at, fault: Fault::Act(act) })).collect()
}

/// The request in the middle of each place of the run, while the script goes on.
pub(crate) fn middles(base: &Outcome) -> Vec<&Entry> {
    let mut places: Vec<(_, Vec<&Entry>)> = Vec::new();
    for entry in asked(base).iter().filter(|entry| entry.request > 0) {
        match places.last_mut().filter(|(place, _)| *place == entry.place) {
            Some((_, entries)) => entries.push(entry),
            None => places.push((entry.place, vec![entry])),
        }
    }
    places.into_iter().map(|(_, entries)| entries[entries.len() / 2]).collect()
}

/// The act among the faults of a scenario.
pub(crate) fn of(scenario: &Scenario) -> Option<Act> {
    scenario.faults.iter().find_map(|planned| match planned.fault {
        Fault::Act(act) => Some(act),
        _ => None,
    })
}

/// What is wrong with a run in which somebody did that: a promise broken, a panic, writes without end, an end that nothing
/// says, a version that serves and that nobody asked for.
pub(crate) fn wrong(scenario: &Scenario, act: Act, base: &Outcome, outcome: &Outcome) -> Vec<String> {
    const PATIENCE: usize = 60;
    const WORDS: usize = 200;
    // After it the script's moments need not come.
    let excused =
        |line: &&String| line.starts_with(OTHER_END) || (act.takes_traffic() && line.contains("requests found no pod"));
    let mut wrong: Vec<String> = outcome.wrong.iter().filter(|line| !excused(line)).cloned().collect();
    if outcome.acts > base.acts * 2 + PATIENCE {
        wrong.push(format!("{} writes where the undisturbed run has {}", outcome.acts, base.acts));
    }
    let told = |of: &Outcome| of.writes.get("canaryreleases web/status").copied().unwrap_or_default();
    if told(outcome) > told(base) * 2 + WORDS {
        wrong.push(format!("the status is written {} times, and {} undisturbed", told(outcome), told(base)));
    }
    let done = Done::new(scenario, act, outcome);
    wrong.extend(done.wrong_end());
    wrong.extend(done.wrong_version());
    wrong.extend(done.not_heeded());
    wrong
}

/// What was done, when, and what came of it.
struct Done<'a> {
    scenario: &'a Scenario,
    act: Act,
    outcome: &'a Outcome,
    /// The versions that serve; those of the target's pods where no Service is there to ask.
    served: String,
    /// The release's step as it was done.
    step: Option<Step>,
    /// Whether the target was on its way to the candidate, or had it.
    rolled: bool,
    /// Templates that the script applies.
    pushes: usize,
}

impl<'a> Done<'a> {
    fn new(scenario: &'a Scenario, act: Act, outcome: &'a Outcome) -> Self {
        let at = |entry: &&Entry| scenario.faults.iter().any(|planned| planned.at == Point::Request(entry.request));
        let step = outcome.journal.iter().find(at).and_then(|entry| entry.place).map(|(step, _)| step);
        let rolled = matches!(step, Some(Step::Roll | Step::HandBack | Step::Drain | Step::Soak));
        let pushes = scenario.script.iter().filter(|line| matches!(line.action, Action::Push(_))).count();
        let serves = if act == Act::DeleteService { &outcome.runs } else { &outcome.serves };
        Self { scenario, act, outcome, served: serves.join("+"), step, rolled, pushes }
    }

    fn usual_end(&self) -> bool {
        self.scenario.ends.contains(&self.outcome.end)
    }

    /// Whether the new version turned bad where nobody could ask it any more. Where there is a soak, this waits.
    fn unseen(&self) -> bool {
        matches!(self.act, Act::DeleteRoute | Act::DeleteService)
            && self.rolled
            && !self.scenario.spec.contains_key("soak")
    }

    fn wrong_end(&self) -> Option<String> {
        let (end, served) = (self.outcome.end.as_str(), &self.served);
        let again = |line: &Line| matches!(&line.action, Action::Restore(kind, _) if kind == "CanaryRelease");
        if self.act == Act::DeleteRelease && end != "gone" && !self.scenario.script.iter().any(again) {
            return Some(format!("it was deleted, and ends {end:?}"));
        }
        if self.usual_end() || (end == "gone" && self.act == Act::DeleteRelease) {
            return None;
        }
        if end == "Promoted" {
            let wrong = !self.act.may_promote() && !self.unseen();
            return wrong.then(|| format!("it ends Promoted, and not {}", self.scenario.ends.join(" or ")));
        }
        // A release under way has a message at all times: it must be about what is gone, or a person's turn.
        let told = &self.outcome.told;
        let said = match (end, self.step) {
            ("underway", Some(_)) => told.contains("is gone") || told.contains("waits for approval"),
            _ => !told.is_empty(),
        };
        (!said).then(|| format!("it ends {end:?} with {served:?} serving, and nothing says so"))
    }

    fn wrong_version(&self) -> Option<String> {
        let served = &self.served;
        let stays = match self.act {
            // Of a Deployment that nobody gates any more what is pushed goes live, and what it runs already stays.
            Act::DeleteRelease => self.pushes > 1 || self.rolled,
            // A newer template ends the soak, and what was in it is stable then.
            Act::PushNewer | Act::PutBack => self.step == Some(Step::Soak),
            _ => self.unseen() || (self.act.takes_traffic() && self.outcome.end == "underway"),
        } && served == "v2";
        let right = self.scenario.serves.contains(served) || served == "v1" || stays || self.act.may_serve(served);
        (!right).then(|| format!("it leaves {served:?} serving"))
    }

    /// Where people do nothing else, what was asked for in a stage or before is what is done.
    fn not_heeded(&self) -> Option<String> {
        // Who promotes may still abort.
        let heard = |command: &str| self.act == Act::Abort && command == "promote";
        let else_done = |action: &Action| match action {
            Action::Command(command) => !heard(command),
            Action::Restore(..) | Action::Sync(_) => true,
            _ => false,
        };
        if self.pushes > 1 || self.scenario.script.iter().any(|line| else_done(&line.action)) {
            return None;
        }
        let (end, served) = (&self.outcome.end, &self.served);
        if self.act.is_idle() {
            let same = self.usual_end() && self.scenario.serves.contains(served);
            return (!same)
                .then(|| format!("it ends {end:?} with {served:?} serving, after what was to change nothing"));
        }
        let promised = match self.act {
            Act::Abort => self.step.is_some_and(|step| step != Step::Done),
            // It asks for no other version.
            Act::Promote | Act::DeleteService => false,
            _ => matches!(self.step, Some(Step::Baseline | Step::Scale | Step::Shift | Step::Bake)),
        };
        (promised && served == "v2").then(|| format!("it ends {end:?} with v2 serving all the same"))
    }
}

impl Inner {
    /// Jane applies a version.
    pub(crate) fn push(&mut self, version: &str) -> Result<(), Refusal> {
        let patch = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "app", "image": manifests::image(version), "ports": [{"containerPort": 8080}]},
        ]}}}});
        self.merge(JANE, "kubectl-client-side-apply", DEPLOYMENTS, "web", &patch)
    }

    /// Jane gives a command to the release that is there.
    pub(crate) fn command(&mut self, command: &str) -> Result<(), Refusal> {
        let id = self.status().current.map_or_else(|| "web-1".to_owned(), |current| current.id);
        let (verb, stage) = command.split_once(' ').unwrap_or((command, ""));
        let text = format!("{verb} {id} {stage}").trim_end().to_owned();
        let patch = json!({"metadata": {"annotations": {names::ANNOTATION_COMMAND: text}}});
        self.merge(JANE, "kubectl-annotate", CANARY_RELEASES, "web", &patch)?;
        let target = self.get(DEPLOYMENTS, "web").map(|target| template::digest(&target["spec"]["template"]));
        self.promises.commanded(verb, &id, &target.unwrap_or_default());
        Ok(())
    }

    /// Jane deletes an object.
    pub(crate) fn delete(&mut self, kind: &str, name: &str) -> Result<(), Refusal> {
        let resource = Resource::of_kind(kind).ok_or_else(Refusal::no_such_path)?;
        let options = json!({"propagationPolicy": "Background"});
        self.api.delete(&Caller::new(JANE, "kubectl"), resource, NAMESPACE, name, &options).map(drop)
    }

    /// Somebody lays some fields over an object.
    pub(crate) fn merge(
        &mut self,
        user: &str,
        manager: &str,
        resource: &'static Resource,
        name: &str,
        patch: &Value,
    ) -> Result<(), Refusal> {
        let caller = Caller::new(user, manager);
        self.api.patch(&caller, resource, (NAMESPACE, name), false, PatchKind::Merge, patch).map(drop)
    }
}
