//! Plays scenarios and reports them: several at a time where they have a gateway each, alone where
//! they disturb others. It decides the order; it judges nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;

use crate::scenarios::Scenario;
use crate::scene::{ClientView, Scene};
use crate::world::World;

/// Longest time for one scenario.
const SCENARIO_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// How one scenario ended.
#[derive(Debug, Clone)]
pub struct Played {
    /// Which.
    pub scenario: Scenario,
    /// Nothing, or what went wrong and all that is known about it.
    pub failure: Option<(String, String)>,
    /// How long it took.
    pub took: Duration,
    /// What the client saw.
    pub client: ClientView,
}

impl Played {
    /// Whether the promise was kept.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }

    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        let mark = if self.passed() { "ok  " } else { "FAIL" };
        let seconds = self.took.as_secs_f64();
        let Scenario { name, promise, .. } = self.scenario;
        format!("{mark} {name:<14} {seconds:5.0} s  {promise}  [client: {}]", self.client.text())
    }
}

/// How scenarios are played.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many at a time.
    pub jobs: usize,
    /// Whether each step is printed.
    pub talk: bool,
    /// Whether a failed scenario's namespace stays.
    pub keep: bool,
}

/// Plays them, telling of each as it ends.
pub async fn play(
    world: &Arc<World>,
    scenarios: &[Scenario],
    options: Options,
    mut tell: impl FnMut(&Played),
) -> Vec<Played> {
    let (alone, together): (Vec<Scenario>, Vec<Scenario>) = scenarios.iter().partition(|scenario| scenario.alone);
    let mut all = Vec::new();
    let mut playing = futures::stream::iter(together)
        .map(|scenario| one(world, scenario, options))
        .buffer_unordered(options.jobs.max(1));
    while let Some(played) = playing.next().await {
        tell(&played);
        all.push(played);
    }
    for scenario in alone {
        let played = one(world, scenario, options).await;
        tell(&played);
        all.push(played);
    }
    all
}

async fn one(world: &Arc<World>, scenario: Scenario, options: Options) -> Played {
    let started = Instant::now();
    let namespace = format!("e2e-{}", scenario.name);
    let mut scene = match Scene::new(world, &namespace, true, options.talk).await {
        Ok(scene) => scene,
        Err(error) => {
            let failure = Some((format!("{error:#}"), String::new()));
            return Played { scenario, failure, took: started.elapsed(), client: ClientView::default() };
        }
    };
    let ended = match tokio::time::timeout(SCENARIO_DEADLINE, (scenario.run)(&mut scene)).await {
        Ok(ended) => ended,
        Err(_) => Err(anyhow::anyhow!("not over within {SCENARIO_DEADLINE:?}")),
    };
    let took = started.elapsed();
    let failure = match ended {
        Ok(()) => None,
        Err(error) => Some((format!("{error:#}"), scene.story().await)),
    };
    let client = scene.close().await;
    if failure.is_none() || !options.keep {
        scene.take_away().await;
    }
    Played { scenario, failure, took, client }
}
