//! One hostile CanaryRelease among many: its annotations, its marks on other objects, its spec and its status take every
//! shape that the API server lets through, and some that only an older definition would. The others must go on beside it,
//! and it must work again once it is mended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use canary_api::names::OPERATOR_USER;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{Options, Trial};
use crate::cluster::{Said, text};
use crate::history::Seen;
use crate::scenarios::promotion::promoted_to;
use crate::scene::{RELEASE, SOON, Scene};
use crate::soak::Tell;
use crate::world::World;

/// From one shape to the next: some ticks.
const BETWEEN: Duration = Duration::from_secs(5);
/// How often the API server is asked whether it has a changed definition.
const LOOK: Duration = Duration::from_millis(500);

/// A shape that the hostile object takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As large annotations as may be, and commands that are none.
    Annotations,
    /// Nonsense in our marks on target and route.
    Marks,
    /// A spec of the largest size.
    Spec,
    /// A status that is legal and untrue.
    Status,
    /// A status of wrong types.
    StatusTypes,
    /// A spec of wrong types.
    SpecTypes,
}

impl Shape {
    /// All of them; those after which the object cannot be read last.
    pub const ALL: [Self; 6] =
        [Self::Annotations, Self::Marks, Self::Spec, Self::Status, Self::StatusTypes, Self::SpecTypes];

    /// In the page.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Annotations => "annotations of 200 KiB with odd Unicode, and commands that are none",
            Self::Marks => "nonsense in our marks on target and route",
            Self::Spec => "20 stages and 20 gates, each name and selector as long as may be",
            Self::Status => "a status that is legal and untrue: numbers, times and names of nothing",
            Self::StatusTypes => "a status of wrong types, as after a downgrade of the definition",
            Self::SpecTypes => "a spec of wrong types, as after a downgrade of the definition",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Each shape: how many writes were taken, how many refused.
    pub shapes: Vec<(Shape, usize, usize)>,
    /// What the hostile object said of itself when it could not be read.
    pub said: String,
    /// The others.
    pub others: Vec<Trial>,
    /// What went wrong with the hostile one itself, if anything: it must work again once it is mended.
    pub wrong: Option<String>,
}

/// Plays releases in all shops but one, in waves, while that one takes its shapes.
///
/// # Errors
/// If the hostile shop cannot be opened.
pub async fn run(world: &Arc<World>, options: &Options, tell: &Tell) -> Result<Tally> {
    let jobs = options.jobs.max(1);
    let mut hostile = open(world, "odd-hostile").await?;
    let mut others = Vec::new();
    for wave in (1..options.objects).collect::<Vec<_>>().chunks(jobs) {
        let names: Vec<String> = wave.iter().map(|number| format!("odd-{number}")).collect();
        others.extend(join_all(names.iter().map(|name| Other::open(world, name))).await);
        tell(&format!("{} of {} shops are open", others.len() + 1, options.objects));
    }
    let waves = others.len().div_ceil(jobs).max(1);
    let mut tally = Tally::default();
    let mut wrong = Vec::new();
    let mut shapes = Shape::ALL.chunks(Shape::ALL.len().div_ceil(waves));
    for wave in others.chunks_mut(jobs) {
        let taken = takes(&mut hostile, shapes.next().unwrap_or_default(), tell);
        let (_, taken) = tokio::join!(join_all(wave.iter_mut().map(Other::play)), taken);
        match taken {
            Ok(taken) => tally.shapes.extend(taken),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    if let Some(seen) = hostile.latest() {
        seen.message().clone_into(&mut tally.said);
    }
    if let Err(error) = mend(&mut hostile).await {
        wrong.push(format!("not mended: {error:#}"));
        tell(&hostile.story().await);
    }
    tally.wrong = (!wrong.is_empty()).then(|| wrong.join("; "));
    hostile.close().await;
    hostile.take_away().await;
    for wave in others.chunks_mut(jobs) {
        tally.others.extend(join_all(wave.iter_mut().map(|other| other.close(tell))).await);
    }
    Ok(tally)
}

/// A small shop at the lab's first gateway.
async fn open(world: &Arc<World>, name: &str) -> Result<Scene> {
    let mut scene = Scene::new(world, name, false, false).await?;
    let setup = scene.plain().replicas(1).rate(6.0).stages(&[("50%", "6s"), ("100%", "6s")]);
    scene.open(setup).await?;
    Ok(scene)
}

/// One of the others.
struct Other {
    name: String,
    scene: Option<Scene>,
    began: Instant,
    wrong: Option<String>,
}

impl Other {
    async fn open(world: &Arc<World>, name: &str) -> Self {
        let (name, began) = (name.to_owned(), Instant::now());
        match open(world, &name).await {
            Ok(scene) => Self { name, scene: Some(scene), began, wrong: None },
            Err(error) => Self { name, scene: None, began, wrong: Some(format!("not opened: {error:#}")) },
        }
    }

    async fn play(&mut self) {
        let Some(scene) = &mut self.scene else { return };
        let playing = async {
            scene.set_image("v2").await?;
            scene.ended("Promoted").await?;
            promoted_to(scene, "v2").await?;
            scene.stages_were(1, &[1, 2])?;
            scene.no_bad_answers()
        };
        if let Err(error) = playing.await {
            self.wrong = Some(format!("{error:#}"));
        }
    }

    async fn close(&mut self, tell: &Tell) -> Trial {
        let mut trial = Trial {
            fault: "a hostile CanaryRelease beside it".to_owned(),
            moment: self.name.clone(),
            met: String::new(),
            missed: false,
            resumed: 0,
            wrong: self.wrong.take(),
            requests: 0,
            own: 0,
            lost: 0,
            took: self.began.elapsed(),
        };
        if let Some(scene) = &mut self.scene {
            let story = if trial.wrong.is_some() { scene.story().await } else { String::new() };
            trial.count(&scene.close().await, "v2");
            tell(&trial.line());
            if !story.is_empty() {
                tell(&story);
            }
            scene.take_away().await;
        }
        trial
    }
}

async fn takes(scene: &mut Scene, shapes: &[Shape], tell: &Tell) -> Result<Vec<(Shape, usize, usize)>> {
    let mut all = Vec::new();
    for shape in shapes {
        let (taken, refused) = take(scene, *shape).await.with_context(|| shape.name())?;
        tell(&format!("hostile: {}: {taken} writes taken, {refused} refused", shape.name()));
        all.push((*shape, taken, refused));
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(all)
}

/// Takes a shape: how many writes were taken, how many refused.
///
/// # Errors
/// If nothing can be written at all.
pub async fn take(scene: &mut Scene, shape: Shape) -> Result<(usize, usize)> {
    let writes = match shape {
        Shape::Annotations => annotations(),
        Shape::Marks => marks(),
        Shape::Spec => vec![("canaryrelease", largest_spec())],
        Shape::Status => {
            untrue_statuses().into_iter().map(|status| ("canaryrelease/status", json!({"status": status}))).collect()
        }
        Shape::StatusTypes | Shape::SpecTypes => return take_wrong_types(scene, shape).await,
    };
    let (mut taken, mut refused) = (0, 0);
    for (kind, patch) in writes {
        let said = write(scene, kind, &patch).await?;
        if said.ok() { taken += 1 } else { refused += 1 }
    }
    Ok((taken, refused))
}

async fn write(scene: &mut Scene, kind: &str, patch: &Value) -> Result<Said> {
    let (kind, subresource) = kind.split_once('/').unwrap_or((kind, ""));
    let namespace = scene.namespace.clone();
    let mut arguments = vec!["patch", kind, "shop", "-n", &namespace, "--type=merge", "--patch-file=/dev/stdin"];
    if !subresource.is_empty() {
        // A policy lets nobody else write a status; the group, since the operator's own role has no patch of it.
        arguments.extend(["--subresource", subresource, "--as", OPERATOR_USER, "--as-group", "system:masters"]);
    }
    scene.cluster().kubectl(&arguments, Some(&patch.to_string())).await
}

/// Text that reads backwards, ends lines, is no letter, or is none at all.
const ODD: &str = "\u{202e}\u{0}\u{7}\n\r\t\u{feff}\u{1f4a5}\u{e0001}\u{10ffff}a\u{301}{{$x}}\"'\\<script>%s..";

fn annotations() -> Vec<(&'static str, Value)> {
    let large = ODD.repeat(200 * 1024 / ODD.len());
    let of = |name: &str, value: Value| ("canaryrelease", json!({"metadata": {"annotations": {name: value}}}));
    vec![
        of("example.com/large", large.into()),
        of("canaryrelease.dev/command", ODD.into()),
        of("canaryrelease.dev/command", format!("abort {}", "x".repeat(10_000)).into()),
        of("canaryrelease.dev/command", "promote odd-1 99999999999999999999".into()),
        of("canaryrelease.dev/command", json!(7)),
        of("canaryrelease.dev/command-by", ODD.into()),
    ]
}

/// Our marks on target and route that a person may write.
const MARKS: [&str; 8] =
    ["uid", "changed-by", "split", "weights-before", "breached", "overlay", "behavior-before", "made-for"];
const MARKED: [&str; 2] = ["deployment", "httproute"];

fn marks() -> Vec<(&'static str, Value)> {
    let mut writes = Vec::new();
    for kind in MARKED {
        for name in MARKS {
            let name = format!("canaryrelease.dev/{name}");
            writes.push((kind, json!({"metadata": {"annotations": {name: ODD}}})));
        }
        writes.push((kind, json!({"metadata": {"labels": {"canaryrelease.dev/release": "another"}}})));
    }
    writes
}

fn largest_spec() -> Value {
    let stages: Vec<Value> =
        (1..=20).map(|number| json!({"weight": format!("{}%", number * 5), "duration": "24h"})).collect();
    let gates: Vec<Value> = (0..20)
        .map(|number| {
            let name = format!("{}{number:02}", "g".repeat(28));
            let selector = format!("a{}{{x=\"{}\"}}", "b".repeat(200), "\u{1f4a5}".repeat(60));
            json!({"name": name, "errorRate": {"bad": selector, "total": selector, "limit": "0.001%"}})
        })
        .collect();
    json!({"spec": {"stages": stages, "gates": gates, "interval": "1s"}})
}

fn untrue_statuses() -> Vec<Value> {
    let text = ODD.repeat(20);
    vec![
        json!({"observedGeneration": i64::MAX, "message": text, "phase": "Promoting", "outcome": "Promoted"}),
        json!({"current": {"number": i64::MAX, "id": text, "step": "Roll", "stageIndex": 4_000_000_000_u32, "weight": "100%"}}),
        json!({"current": {"number": -1, "step": "Revert", "stepSince": "9999-12-31T23:59:59Z", "windowSince": "0001-01-01T00:00:00Z"}}),
        json!({"hold": {"armed": true, "servingRecord": "../../secrets/x", "uid": text}}),
        json!({"conditions": [{"type": "Ready", "status": "True", "reason": "X", "message": text, "lastTransitionTime": "9999-12-31T23:59:59Z"}]}),
    ]
}

/// The definition lets anything through for a moment.
async fn take_wrong_types(scene: &mut Scene, shape: Shape) -> Result<(usize, usize)> {
    let (field, kind, patch) = if shape == Shape::StatusTypes {
        let status =
            json!({"current": "a release", "history": 7, "hold": [], "conditions": {"Ready": ODD}, "phase": {}});
        ("status", "canaryrelease/status", json!({"status": status}))
    } else {
        ("spec", "canaryrelease", json!({"spec": {"stages": 7, "gates": {"a": ODD}, "interval": -1, "unknown": [[]]}}))
    };
    let definitions = scene.world.definitions()?;
    let loose: Vec<Value> = definitions.iter().map(|definition| loosen(definition, field)).collect();
    scene.cluster().apply(&loose.iter().collect::<Vec<_>>()).await?;
    let end = Instant::now() + SOON;
    let written = loop {
        let said = write(scene, kind, &patch).await?;
        if said.ok() {
            break Ok((1, 0));
        }
        if Instant::now() > end {
            break Err(anyhow::anyhow!("refused although the definition allows it: {}", said.err.trim()));
        }
        tokio::time::sleep(LOOK).await;
    };
    scene.cluster().apply(&definitions.iter().collect::<Vec<_>>()).await?;
    written
}

/// The definition with no word about what a field holds, but for what objects can be selected by.
fn loosen(definition: &Value, field: &str) -> Value {
    let mut loose = definition.clone();
    if text(&loose, "/spec/names/kind") == "CanaryRelease" {
        let version = "/spec/versions/0/schema/openAPIV3Schema/properties";
        if let Some(Value::Object(properties)) = loose.pointer_mut(version) {
            let mut anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            if let Some(target) = properties.get(field).and_then(|field| field.pointer("/properties/target")) {
                anything["properties"] = json!({"target": target});
            }
            properties.insert(field.to_owned(), anything);
        }
    }
    loose
}

/// Corrects what was written, as a person would: the object must be armed again, as if it were new.
///
/// # Errors
/// If it is not.
pub async fn mend(scene: &mut Scene) -> Result<()> {
    let mut spec = scene.objects().release["spec"].clone();
    spec["unknown"] = Value::Null;
    let large = json!({"example.com/large": null});
    // The spec first: a write of the status is refused while the spec is of wrong types, and not the other way round.
    let mut writes = vec![
        ("canaryrelease", json!({"metadata": {"annotations": large}, "spec": spec})),
        ("canaryrelease/status", json!({"status": null})),
    ];
    for kind in MARKED {
        // Break-glass for the label, without which the marks are anyone's.
        let label = json!({"canaryrelease.dev/release": null});
        let reason = json!({"canaryrelease.dev/override": "nonsense"});
        if kind == "httproute" {
            writes.push((kind, json!({"metadata": {"annotations": reason, "labels": label}})));
        }
        let none: serde_json::Map<String, Value> =
            MARKS.iter().map(|name| (format!("canaryrelease.dev/{name}"), Value::Null)).collect();
        writes.push((kind, json!({"metadata": {"annotations": none}})));
    }
    let end = Instant::now() + SOON;
    for (kind, patch) in writes {
        loop {
            let said = write(scene, kind, &patch).await?;
            if said.ok() {
                break;
            }
            // The API server may not have the definition back yet.
            ensure!(Instant::now() < end, "{kind} cannot be corrected: {}", said.err.trim());
            tokio::time::sleep(LOOK).await;
        }
        scene.step(format!("{kind} is corrected"));
    }
    let now = scene.client();
    scene.from_now();
    scene.until("armed again", RELEASE, Seen::armed).await?;
    ensure!(scene.client().since(&now).answers.bad() == 0, "answers failed meanwhile");
    Ok(())
}
