//! One run: a scenario with its faults, from an empty cluster to rest. It starts the operator, follows a dead process up
//! with another, lets things happen when they should, and says what came of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Once;
use std::time::Duration;

use canary_api::{Step, names};
use canary_core::object;
use canary_operator::workers::{ObjectKey, Ticker as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::api::{Caller, PatchKind};
use crate::branches::{Branches, Idle};
use crate::cluster::Cluster;
use crate::fault::{Fault, Planned, Point, Struck};
use crate::manifests;
use crate::process::{Options, Process};
use crate::refusal::Refusal;
use crate::resources::{
    AUTOSCALERS, CANARY_RELEASES, CRON_JOBS, DEPLOYMENTS, EVENTS, HTTP_ROUTES, MUTATING_BINDINGS, MUTATING_POLICIES,
    Resource, SERVICES, VALIDATING_BINDINGS, VALIDATING_POLICIES,
};
use crate::scenario::{Action, Kin, Moment, Scenario, Trait, When};
use crate::server::LONGEST_CUT;
use crate::store::{Key, Store};
use crate::world::{Entry, Inner, NAMESPACE, World};

/// How long a dead process takes to be followed by another.
const SUCCESSION: Duration = Duration::from_secs(5);
/// How long a moment is waited for, beside the time in which what went wrong keeps all from going on.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
/// The same where somebody writes what is not his, and in a walk: a release that was told to stand still does so.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1200);
/// How long nothing is done before a release that is paused stays so: it goes on measuring, and nothing ends a pause but a
/// command, a breach or a job that failed.
const LONG: Duration = Duration::from_secs(900);
/// How many re-syncs at rest must write nothing, where the rest is looked at for long.
const LONG_REST: usize = 1000;
/// How the lines begin that tell of another end than the scenario's.
pub const OTHER_END: &str = "the run";
/// A developer.
pub const JANE: &str = "jane";

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How the last release ended, or `gone` where there is no CanaryRelease any more.
    pub end: String,
    /// Versions of the pods that the stable Service selects.
    pub serves: Vec<String>,
    /// Versions of the target's own ready pods.
    pub runs: Vec<String>,
    /// What did not go as it must.
    pub wrong: Vec<String>,
    /// All requests.
    pub journal: Vec<Entry>,
    /// How many of them there were when all was done, and nobody did anything any more.
    pub reached: usize,
    /// Every object as it is at the end, without what differs between runs that are the same.
    pub state: BTreeMap<String, String>,
    /// Writes of the operator that changed something, by object.
    pub writes: BTreeMap<String, usize>,
    /// Steps and stages that the status went through, by release.
    pub trail: Vec<(String, Step, i32)>,
    /// Faults that came to pass.
    pub struck: Vec<Struck>,
    /// How long it took, in the world's time.
    pub took: Duration,
    /// Writes of the operator that are more than words, those that were refused included.
    pub acts: usize,
    /// What the CanaryRelease says where it is not well.
    pub told: String,
    /// Writes that a fault had another user make, and that changed something.
    pub corrupted: usize,
    /// The same, refused or undone by admission.
    pub refused: usize,
    /// All objects, and how they came to be so.
    pub store: Store,
}

impl Outcome {
    /// The journal as text: what two equal runs have in common.
    #[must_use]
    pub fn log(&self) -> String {
        self.journal.iter().fold(String::new(), |mut text, entry| {
            let _ = writeln!(text, "{entry}");
            text
        })
    }
}

/// Plays a scenario to its end and beyond: so many re-syncs at rest must write nothing.
#[must_use]
pub fn play(scenario: &Scenario, resyncs: usize) -> Outcome {
    played(scenario, resyncs, stands_still(&scenario.faults), None).0
}

/// The same of runs that begin alike, of which any freeze or none. It returns in each process that came to an end, with the
/// runs that ended so, and what struck in some of them without a trace.
pub(crate) fn play_branches(
    scenario: &Scenario,
    resyncs: usize,
    freezes: bool,
    branches: Branches,
) -> (Outcome, Vec<usize>, Vec<Idle>) {
    played(scenario, resyncs, freezes, Some(branches))
}

/// Whether a process stands still among these faults: its calls must have no end of their own then.
pub(crate) fn stands_still(faults: &[Planned]) -> bool {
    faults.iter().any(|planned| matches!(planned.fault, Fault::Freeze(_)))
}

fn played(
    scenario: &Scenario,
    resyncs: usize,
    freezes: bool,
    branches: Option<Branches>,
) -> (Outcome, Vec<usize>, Vec<Idle>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    listen_to_panics();
    runtime.block_on(async {
        let mut run = Run::begin(scenario, freezes);
        run.world.lock().branches = branches;
        let mut wrong = Vec::new();
        if let Err(why) = run.script(scenario).await {
            wrong.push(why);
        }
        if wrong.iter().all(|line| line.starts_with(OTHER_END))
            && let Err(why) = run.rest(resyncs).await
        {
            wrong.push(why);
        }
        let outcome = run.outcome(wrong, scenario);
        for own in std::mem::take(&mut run.processes) {
            own.kill(&run.world).await;
        }
        let branches = run.world.lock().branches.take();
        let (ended, idle) = branches.map(|branches| (branches.spoken_for(), branches.idle())).unwrap_or_default();
        (outcome, ended, idle)
    })
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on the panics of this thread are noted, those too that the operator catches.
fn listen_to_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ended = PANICS.try_with(|panics| panics.borrow_mut().push(panic.to_string()));
            usual(panic);
        }));
    });
    panics();
}

/// The panics of this thread since the last call.
fn panics() -> Vec<String> {
    PANICS.with(RefCell::take)
}

/// The versions of ready pods with these labels.
fn versions(store: &Store, labels: &BTreeMap<String, String>) -> Vec<String> {
    let ready =
        crate::cluster::selected(store, NAMESPACE, labels).into_iter().filter(|pod| canary_core::pods::ready(pod));
    let mut versions: Vec<String> =
        ready.map(|pod| crate::cluster::image(pod).trim_start_matches("web:").to_owned()).collect();
    versions.sort();
    versions.dedup();
    versions
}

/// Whether only another's finalizer keeps it from going: for us it is gone.
fn is_left(release: &Value) -> bool {
    let ours = object::items(release, "/metadata/finalizers").any(|own| own == names::FINALIZER);
    object::deleting(release) && !ours
}

/// A refusal in its words.
fn said(done: Result<(), Refusal>) -> Result<(), String> {
    done.map_err(|refusal| refusal.message)
}

/// For how long a count has stood still.
struct Quiet {
    count: usize,
    since: Instant,
}

impl Quiet {
    fn new() -> Self {
        Self { count: 0, since: Instant::now() }
    }

    /// How long nothing was counted; where something `stirs` that need not be counted, none of the time is.
    fn lasts(&mut self, count: usize, stirs: bool) -> Duration {
        if count != self.count || stirs {
            *self = Self { count, since: Instant::now() };
        }
        self.since.elapsed()
    }
}

struct Run {
    world: World,
    processes: Vec<Process>,
    options: Options,
    /// No end is foreseen.
    walk: bool,
    began: Instant,
    /// Requests until it was at rest.
    reached: usize,
}

impl Run {
    fn begin(scenario: &Scenario, freezes: bool) -> Self {
        let world = World::new();
        {
            let mut inner = world.lock();
            inner.plan.clone_from(&scenario.faults);
            let admin = Caller::new("system:admin", "kubectl");
            let policies = [
                (
                    MUTATING_POLICIES,
                    &["canaryrelease-hold", "canaryrelease-override", "canaryrelease-command", "canaryrelease-route"][..],
                ),
                (
                    MUTATING_BINDINGS,
                    &["canaryrelease-hold", "canaryrelease-override", "canaryrelease-command", "canaryrelease-route"][..],
                ),
                (
                    VALIDATING_POLICIES,
                    &[
                        "canaryrelease-guard",
                        "canaryrelease-command-check",
                        "canaryrelease-writer",
                        "canaryrelease-record",
                        "canaryrelease-status",
                    ][..],
                ),
                (
                    VALIDATING_BINDINGS,
                    &[
                        "canaryrelease-guard",
                        "canaryrelease-command-check",
                        "canaryrelease-writer",
                        "canaryrelease-record",
                        "canaryrelease-status",
                    ][..],
                ),
            ];
            for (resource, names) in policies {
                for name in names {
                    let object = json!({"metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "canaryrelease"}}, "spec": {}});
                    inner.api.create(&admin, resource, "", object).unwrap();
                }
            }
            let jane = Caller::new(JANE, "kubectl-client-side-apply");
            for (resource, object) in [
                (DEPLOYMENTS, manifests::target("v1")),
                (SERVICES, manifests::service()),
                (HTTP_ROUTES, manifests::route()),
            ] {
                inner.api.create(&jane, resource, NAMESPACE, object).unwrap();
            }
            inner.api.create(&jane, CANARY_RELEASES, NAMESPACE, manifests::release(&scenario.spec)).unwrap();
        }
        let day = Duration::from_secs(24 * 3600);
        let options = if freezes { Options { deadline: day, tick_deadline: day } } else { Options::default() };
        let walk = scenario.ends.is_empty();
        Self { world, processes: Vec::new(), options, walk, began: Instant::now(), reached: 0 }
    }

    /// How long a moment is waited for, after what went wrong so far.
    fn patience(&self) -> Duration {
        let inner = self.world.lock();
        let faults = || inner.struck.iter().map(|struck| struck.fault);
        let meddled = inner.corrupted > 0;
        let away = |fault: Fault| match fault {
            Fault::ServerDown(time) | Fault::MetricsDown(time) | Fault::Freeze(time) => time,
            Fault::ClockJumps(seconds) => Duration::from_secs(seconds.unsigned_abs()),
            _ => Duration::ZERO,
        };
        let patience = if meddled || self.walk { LITTLE_PATIENCE } else { PATIENCE };
        patience + faults().map(away).sum::<Duration>()
    }

    async fn script(&mut self, scenario: &Scenario) -> Result<(), String> {
        tokio::spawn(self.world.clone().run_cluster());
        let first = scenario.script.iter().take_while(|line| line.when.moment == Moment::Start).count();
        for line in &scenario.script[..first] {
            self.act(&line.action).await?;
        }
        sleep(Duration::from_secs(10)).await;
        self.world.lock().cluster.traffic.unanswered.clear();
        self.processes.push(Process::start(&self.world, self.options));
        for line in &scenario.script[first..] {
            self.until(&line.when).await?;
            match self.act(&line.action).await {
                // What another wrote meanwhile may leave nothing to do it to.
                Err(why) if !scenario.refusals && self.world.lock().corrupted == 0 => return Err(why),
                _ => {}
            }
        }
        // Whoever is to react has heard of it by then, also where a watch was broken.
        let broken = scenario.faults.iter().any(|planned| planned.fault == Fault::WatchCut);
        sleep(Duration::from_secs(5) + if broken { LONGEST_CUT } else { Duration::ZERO }).await;
        self.until(&When { moment: Moment::Over, after: Duration::ZERO }).await
    }

    /// Waits for a moment, and follows dead processes up meanwhile.
    async fn until(&mut self, when: &When) -> Result<(), String> {
        let since = Instant::now();
        let mut acts = Quiet::new();
        while !self.is(&when.moment) {
            let stirs = self.is_away() || !self.is(&Moment::Paused);
            let done = self.world.lock().acts;
            if acts.lasts(done, stirs) >= LONG {
                return Err(format!("{OTHER_END} never came to {when}: it is paused"));
            }
            let patience = self.patience();
            if since.elapsed() > patience {
                return Err(format!("{OTHER_END} never came to {when}, within {} min", patience.as_secs() / 60));
            }
            self.pass(Duration::from_secs(60)).await;
        }
        let end = Instant::now() + when.after;
        while Instant::now() < end {
            self.pass(end - Instant::now()).await;
        }
        Ok(())
    }

    /// Lets the time pass until something changes, at most for so long.
    async fn pass(&mut self, most: Duration) {
        let world = self.world.clone();
        let changed = world.changes();
        tokio::pin!(changed);
        changed.as_mut().enable();
        self.succeed().await;
        let _ = timeout(most, changed).await;
    }

    /// Ends the tasks of dead processes and starts others in their place; one that stands still gets company.
    async fn succeed(&mut self) {
        let (dead, frozen): (Vec<usize>, Vec<usize>) = {
            let inner = self.world.lock();
            let now = Instant::now();
            let numbers = |of: &dyn Fn(&crate::world::Process) -> bool| {
                self.processes.iter().map(|own| own.number).filter(|number| of(&inner.processes[*number])).collect()
            };
            (numbers(&|own| own.dead), numbers(&|own| own.frozen.is_some_and(|until| until > now)))
        };
        for number in dead {
            let Some(index) = self.processes.iter().position(|own| own.number == number) else { continue };
            let own = self.processes.remove(index);
            own.kill(&self.world).await;
            sleep(SUCCESSION).await;
            if self.processes.is_empty() {
                self.processes.push(Process::start(&self.world, self.options));
            }
        }
        if !frozen.is_empty() && self.processes.len() == frozen.len() {
            self.processes.push(Process::start(&self.world, self.options));
        }
    }

    /// Whether a process stands still, or nobody reaches the API server or the metrics: what is to be done is done later.
    fn is_away(&self) -> bool {
        let inner = self.world.lock();
        let now = Instant::now();
        let still = |own: &Process| inner.processes[own.number].frozen.is_some_and(|until| until > now);
        let down = |until: Option<Instant>| until.is_some_and(|until| until > now);
        down(inner.server_down) || down(inner.metrics_down) || self.processes.iter().any(still)
    }

    fn is(&self, moment: &Moment) -> bool {
        let inner = self.world.lock();
        let place = inner.place();
        let release = inner.get(CANARY_RELEASES, "web");
        match moment {
            Moment::Start | Moment::Then => true,
            Moment::Armed => release.is_some_and(|release| object::truth(release, "/status/hold/armed")),
            Moment::Place(step, stage) => {
                place.is_some_and(|(now, at)| now == *step && stage.is_none_or(|stage| stage == at.saturating_add(1)))
            }
            Moment::Paused => release.is_some_and(|release| release.pointer("/status/current/paused").is_some()),
            Moment::Over => {
                let Some(release) = release else { return true };
                let over = place.is_some_and(|(step, _)| step == Step::Done);
                let idle = |own: &Process| inner.processes[own.number].idle && !inner.processes[own.number].in_tick;
                let nothing = place.is_none() && !object::text(release, "/status/message").is_empty();
                let paused = release.pointer("/status/current/paused").is_some() && !over;
                paused
                    || (over && !object::text(release, "/status/outcome").is_empty())
                    || (nothing && self.processes.iter().all(idle))
            }
        }
    }

    async fn act(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Version(version, of) => self.version(version, *of),
            Action::Push(version) => said(self.world.lock().push(version))?,
            Action::Command(command) => said(self.world.lock().command(command))?,
            Action::Scale(pods) => {
                let patch = json!({"spec": {"replicas": pods}});
                said(self.world.lock().merge(JANE, "kubectl", DEPLOYMENTS, "web", &patch))?;
            }
            Action::Autoscaler(least, most) => self.create(AUTOSCALERS, manifests::autoscaler(*least, *most))?,
            Action::CronJob(name, code, after) => {
                let manifest = manifests::cron_job(name, *code, *after);
                if self.world.lock().get(CRON_JOBS, name).is_some() {
                    said(self.world.lock().merge(JANE, "kubectl", CRON_JOBS, name, &manifest))?;
                } else {
                    self.create(CRON_JOBS, manifest)?;
                }
            }
            Action::Load(pods) => {
                self.world.lock().cluster.load.insert("web".to_owned(), *pods);
            }
            Action::Delete(kind, name) => said(self.world.lock().delete(kind, name))?,
            Action::Restore(kind, _) => match kind.as_str() {
                "Deployment" => self.create(DEPLOYMENTS, manifests::target("v1"))?,
                "Service" => self.create(SERVICES, manifests::service())?,
                "HTTPRoute" => self.create(HTTP_ROUTES, manifests::route())?,
                "CanaryRelease" => self.create(CANARY_RELEASES, manifests::release(&serde_json::Map::new()))?,
                other => return Err(format!("the scenario has no {other} to make again")),
            },
            Action::Gateway(works) => self.world.lock().cluster.gateway_works = *works,
            Action::Restart => {
                for own in std::mem::take(&mut self.processes) {
                    own.kill(&self.world).await;
                }
                self.processes.push(Process::start(&self.world, self.options));
            }
            Action::Patch(user, kind, name, operations) => {
                let resource = Resource::of_kind(kind).ok_or_else(|| format!("unknown kind {kind}"))?;
                let caller = Caller::new(user, "tool");
                let mut inner = self.world.lock();
                let done = inner.api.patch(&caller, resource, (NAMESPACE, name), false, PatchKind::Json, operations);
                drop(inner);
                done.map(drop).map_err(|refusal| refusal.message)?;
            }
            Action::Forge(kind, name, pointer, value) => {
                let resource = Resource::of_kind(kind).ok_or_else(|| format!("unknown kind {kind}"))?;
                let mut inner = self.world.lock();
                let (key, now) = (Key::new(resource, NAMESPACE, name), inner.api.now);
                let stored = inner.api.store.get(&key).ok_or_else(|| format!("there is no {kind} {name}"))?;
                let mut forged = stored.value.clone();
                crate::corruption::set(&mut forged, pointer, Some(value.clone()));
                if pointer.starts_with("/spec") {
                    let generation = object::integer(&forged, "/metadata/generation", 1) + 1;
                    forged["metadata"]["generation"] = json!(generation);
                }
                inner.api.store.put(key, forged, now);
            }
            Action::Strike(fault) => {
                let mut inner = self.world.lock();
                let writes =
                    matches!(fault, Fault::CrashBefore | Fault::CrashAfter | Fault::LostReply | Fault::Freeze(_));
                let at = if writes { Point::Write(inner.writes + 1) } else { Point::Request(inner.requests + 1) };
                inner.plan.push(Planned { at, fault: *fault });
            }
            Action::Sync(what) => {
                let (resource, manifest) = match what.as_str() {
                    "HTTPRoute" => (HTTP_ROUTES, manifests::route()),
                    version => (DEPLOYMENTS, manifests::target(version)),
                };
                let user = "system:serviceaccount:flux-system:kustomize-controller";
                said(self.world.lock().merge(user, "flux", resource, "web", &manifest))?;
            }
        }
        {
            let mut guard = self.world.lock();
            let inner = &mut *guard;
            inner.dirty = true;
            inner.promises.moved(&inner.api);
        }
        self.world.tell();
        Ok(())
    }

    fn version(&self, version: &str, of: Trait) {
        let (now, image) = (self.world.now(), manifests::image(version));
        let mut inner = self.world.lock();
        let Cluster { traffic, versions, .. } = &mut inner.cluster;
        let behaviour = versions.entry(image.clone()).or_default();
        match of {
            Trait::Errors(thousandths) => {
                traffic.account(now);
                let bad = traffic.answered.get(&image).map_or(0.0, |(_, bad)| *bad);
                traffic.turned.insert(image, (now, bad));
                behaviour.errors = f64::from(thousandths) / 1000.0;
            }
            Trait::Gauge(value) => (behaviour.gauge, behaviour.gauge_since) = (f64::from(value), Some(now)),
            Trait::Fate(fate) => behaviour.fate = fate,
            Trait::Silent => behaviour.counts = false,
        }
    }

    fn create(&self, resource: &'static Resource, object: Value) -> Result<(), String> {
        let caller = Caller::new(JANE, "kubectl-create");
        let done = self.world.lock().api.create(&caller, resource, NAMESPACE, object);
        done.map(drop).map_err(|refusal| refusal.message)
    }

    /// Waits until nobody does anything, then re-syncs.
    async fn rest(&mut self, resyncs: usize) -> Result<(), String> {
        const QUIET: Duration = Duration::from_secs(30);
        let began = Instant::now();
        // Of one that goes on measuring the rest has no end.
        self.reached = self.world.lock().journal.len();
        let (mut writes, mut acts) = (Quiet::new(), Quiet::new());
        let mut looked = false;
        loop {
            let away = self.is_away();
            let (written, done, idle) = {
                let inner = self.world.lock();
                let idle = |own: &Process| inner.processes[own.number].idle && !inner.processes[own.number].in_tick;
                let rests = self.processes.iter().all(idle) && !self.processes.is_empty();
                (inner.writes, inner.acts, rests)
            };
            let (unwritten, undone) = (writes.lasts(written, away), acts.lasts(done, away));
            if idle && unwritten >= QUIET {
                // What another did last, and of which no watch tells, is seen by the next who looks; so is what was read
                // wrongly by the last one.
                let misread = |struck: &Struck| Kin::Absent.has(struck) || Kin::Stale.has(struck);
                let unseen = |inner: &Inner| inner.corrupted > 0 || inner.struck.iter().any(misread);
                if looked || !unseen(&self.world.lock()) {
                    break;
                }
                looked = true;
                self.resync().await;
                continue;
            }
            if undone >= LONG {
                return Ok(());
            }
            if began.elapsed() > self.patience() {
                return Err("it does not come to rest".to_owned());
            }
            self.pass(Duration::from_secs(5)).await;
        }
        let before = {
            let mut inner = self.world.lock();
            let left = inner.get(CANARY_RELEASES, "web").is_some_and(is_left);
            if let Some((step, _)) = inner.place().filter(|(step, _)| *step != Step::Done && !left) {
                return Err(format!("nobody looks again at a release that is in {step:?}"));
            }
            // What was to strike in the release, and came too late for it, is no part of its rest; a watch that was cut
            // stays so.
            inner.plan.retain(|planned| planned.fault == Fault::WatchCut);
            if let Some(branches) = &mut inner.branches {
                branches.close();
            }
            self.reached = inner.journal.len();
            inner.writes
        };
        // One run in a hundred, by how much was asked in it, rests as long as an undisturbed one.
        let resyncs = if self.reached.is_multiple_of(100) { resyncs.max(LONG_REST) } else { resyncs };
        for number in 0..resyncs {
            sleep(Duration::from_secs(60)).await;
            self.resync().await;
            let inner = self.world.lock();
            if inner.writes != before {
                let last = inner.journal.iter().rev().find(|entry| entry.write > 0).map(ToString::to_string);
                return Err(format!("re-sync {} writes: {}", number + 1, last.unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// Each process looks at the CanaryRelease once.
    async fn resync(&self) {
        for own in &self.processes {
            let _ = own.ticker.tick(ObjectKey::new(NAMESPACE, "web")).await;
        }
    }

    fn outcome(&self, mut wrong: Vec<String>, scenario: &Scenario) -> Outcome {
        let now = self.world.now();
        let mut guard = self.world.lock();
        let inner = &mut *guard;
        inner.cluster.traffic.account(now);
        let release = inner.get(CANARY_RELEASES, "web");
        let paused =
            inner.status().current.is_some_and(|current| current.paused.is_some() && current.step != Step::Done);
        let end = match release.filter(|release| !is_left(release)) {
            None => "gone",
            Some(_) if paused => "Paused",
            Some(release) => match object::text(release, "/status/outcome") {
                "" => "underway",
                outcome => outcome,
            },
        };
        let end = end.to_owned();
        let stable = inner.get(SERVICES, "web").map(|service| object::strings(service, "/spec/selector"));
        let serves = versions(&inner.api.store, &stable.unwrap_or_default());
        let runs = versions(&inner.api.store, &BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        wrong.extend(inner.promises.broken.iter().cloned());
        // Of marks that another took away or wrote nobody knows whose the rest is; and what one that stood still makes
        // when the CanaryRelease is gone nobody sees.
        let nobodys = |fault: Fault| match fault {
            Fault::Corrupt(_) => inner.corrupted > 0,
            Fault::Freeze(_) => end == "gone",
            _ => false,
        };
        if !inner.struck.iter().any(|struck| nobodys(struck.fault)) {
            wrong.extend(
                crate::remains::of(&inner.api, &end).into_iter().map(|left| format!("it ends {end:?}, and {left}")),
            );
        }
        let unanswered: f64 = inner.cluster.traffic.unanswered.values().sum();
        if unanswered > 0.0 && !scenario.outage {
            wrong.push(format!("{unanswered:.1} requests found no pod: {:?}", inner.cluster.traffic.unanswered));
        }
        wrong.extend(panics().into_iter().map(|panic| format!("a panic: {panic}")));
        inner.strike_cuts();
        let told = {
            let events = inner.api.store.all(EVENTS.plural, NAMESPACE).map(|(_, event)| &event.value);
            crate::corruption::told(inner.get(CANARY_RELEASES, "web"), events)
        };
        let served = serves.join("+");
        if !scenario.ends.is_empty() && !scenario.ends.contains(&end) {
            wrong.push(format!("{OTHER_END} ends {end:?}, not {}", scenario.ends.join(" or ")));
        }
        if !scenario.serves.is_empty() && !scenario.serves.contains(&served) {
            wrong.push(format!("{OTHER_END} leaves {served:?} serving, not {}", scenario.serves.join(" or ")));
        }
        let mut writes: BTreeMap<String, usize> = BTreeMap::new();
        for entry in inner.journal.iter().filter(|entry| entry.write > 0 && (200..300).contains(&entry.code)) {
            let status = if entry.verb == "status" { "/status" } else { "" };
            *writes.entry(format!("{} {}{status}", entry.plural, entry.name)).or_default() += 1;
        }
        Outcome {
            end,
            serves,
            runs,
            wrong,
            state: crate::state::of(&inner.api),
            writes,
            trail: inner.promises.trail.clone(),
            struck: inner.struck.clone(),
            took: self.began.elapsed(),
            acts: inner.acts,
            told,
            corrupted: inner.corrupted,
            refused: inner.refused,
            store: std::mem::take(&mut inner.api.store),
            journal: std::mem::take(&mut inner.journal),
            reached: self.reached,
        }
    }
}
