//! One process of the operator: the real watches, workers, Events and ticks, wired as the operator wires them, with a
//! client that reaches this world only. It can be ended at any moment without a last word.

use std::sync::Arc;
use std::time::Duration;

use canary_metrics::MetricSource;
use canary_metrics::pods::{PodLimits, PodScraper};
use canary_operator::client::BoundLayer;
use canary_operator::clock::Clock;
use canary_operator::config::Retention;
use canary_operator::events;
use canary_operator::metrics::Metrics;
use canary_operator::operator::Parts;
use canary_operator::tick::{ReleaseTicker, Sources};
use canary_operator::watches::Watches;
use canary_operator::workers::{Limits, Next, ObjectKey, Ticker, Workers};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::prometheus::Prometheus;
use crate::server;
use crate::world::World;

/// How long a call of the API server may take.
const DEADLINE: Duration = Duration::from_secs(8);

/// A running process.
pub struct Process {
    /// Its number, from 0.
    pub number: usize,
    /// Its ticker, to be called by hand at rest.
    pub ticker: Arc<Told>,
    workers: Workers<Told>,
    watches: Watches,
    ending: CancellationToken,
    background: TaskTracker,
}

/// The operator's ticker, with the world told when a tick begins and ends.
pub struct Told {
    world: World,
    number: usize,
    inner: ReleaseTicker,
}

impl Ticker for Told {
    async fn tick(&self, key: ObjectKey) -> Next {
        {
            let mut inner = self.world.lock();
            let (now, revision) = (inner.api.now, inner.api.store.revision());
            let own = &mut inner.processes[self.number];
            (own.began, own.began_at) = (Some(now), revision);
            own.ticks += 1;
            own.in_tick = true;
            own.idle = false;
            own.failed_reads.clear();
            own.outrun = false;
        }
        let next = self.inner.tick(key).await;
        let mut guard = self.world.lock();
        let inner = &mut *guard;
        let own = &mut inner.processes[self.number];
        own.in_tick = false;
        own.idle = matches!(next, Next::Idle | Next::Gone);
        if let Some(began) = own.began.filter(|_| own.failed_reads.is_empty() && !own.outrun)
            && !matches!(next, Next::Failed(_) | Next::UrgentlyFailed(_))
        {
            inner.promises.ticked(&inner.api, &inner.cluster, began);
        }
        drop(guard);
        self.world.tell();
        next
    }
}

/// How a process is started.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Deadline of its calls; without one a process that stands still finds its answer when it goes on.
    pub deadline: Duration,
    /// Deadline of its ticks.
    pub tick_deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: DEADLINE, tick_deadline: Limits::default().tick_deadline }
    }
}

impl Process {
    /// Starts a process; its ticks begin once its watches have their lists.
    #[must_use]
    pub fn start(world: &World, options: Options) -> Self {
        let number = {
            let mut inner = world.lock();
            inner.processes.push(crate::world::Process::default());
            inner.processes.len() - 1
        };
        let metrics = Metrics::new();
        let clock = {
            let world = world.clone();
            Clock::new(move || {
                let now = world.now();
                world.lock().processes[number].skew.shows(now)
            })
        };
        let bound = BoundLayer::new(metrics.clone(), options.deadline).setting(clock.clone());
        let client = server::client(world, number).with_layer(&bound).build();
        let (background, ending) = (TaskTracker::new(), CancellationToken::new());
        let (watches, policy_generation) = Watches::start(&client, metrics.clone(), &background, &ending);
        let (sink, writer) = events::channel(client.clone(), metrics.clone(), "canaryrelease-system/operator");
        background.spawn(ending.clone().run_until_cancelled_owned(writer.run(ending.clone())));
        let store: Arc<dyn MetricSource> = Arc::new(Prometheus::new(world));
        let parts = Parts {
            client,
            events: sink,
            providers: Vec::new(),
            policy_generation,
            watches: watches.clone(),
            metrics: metrics.clone(),
            clock,
        };
        let ticker = ReleaseTicker::new(parts, Sources::with([store], scraper()), Retention::default());
        let ticker = Arc::new(Told { world: world.clone(), number, inner: ticker });
        let limits = Limits { tick_deadline: options.tick_deadline, ..Limits::default() };
        let workers = Workers::new(ticker.clone(), limits, metrics);
        let starting = {
            let (watches, workers) = (watches.clone(), workers.clone());
            async move {
                let _all = watches.synced(Duration::from_secs(10)).await;
                watches.attach(workers.waker());
            }
        };
        background.spawn(ending.clone().run_until_cancelled_owned(starting));
        background.close();
        Self { number, ticker, workers, watches, ending, background }
    }

    /// Ends it at once: every task of it is dropped where it waits.
    pub async fn kill(self, world: &World) {
        world.lock().processes[self.number].dead = true;
        self.ending.cancel();
        self.workers.drop_all().await;
        self.background.wait().await;
        // They wake the workers, whose ticks read from them: none of these would ever be freed.
        self.watches.detach();
    }
}

/// No pod of this world has an address; nothing is ever read by it.
fn scraper() -> PodScraper {
    thread_local! {
        static SCRAPER: PodScraper = {
            canary_operator::client::install_crypto();
            PodScraper::new(PodLimits::default()).unwrap()
        };
    }
    SCRAPER.with(Clone::clone)
}
