#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;

use tokio::time::sleep;

use super::*;

/// What a scripted tick does.
#[derive(Clone, Copy)]
enum Act {
    Return(Next),
    /// Takes this long first.
    Slow(Duration, Next),
    Panic,
    Hang,
}

/// Plays a script for each object; when it is over, the last act is repeated.
#[derive(Default)]
struct Script {
    acts: Mutex<HashMap<String, VecDeque<Act>>>,
    log: Mutex<Vec<(String, Instant)>>,
    running: Mutex<HashMap<String, u32>>,
    finished: Mutex<u32>,
}

struct Running<'a>(&'a Script, String);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap().get_mut(&self.1).unwrap() -= 1;
    }
}

impl Script {
    fn of(acts: &[(&str, &[Act])]) -> Arc<Self> {
        let acts = acts.iter().map(|(name, acts)| ((*name).to_owned(), acts.iter().copied().collect())).collect();
        Arc::new(Self { acts: Mutex::new(acts), ..Self::default() })
    }

    fn starts(&self, name: &str) -> Vec<Instant> {
        self.log.lock().unwrap().iter().filter(|(of, _)| of == name).map(|(_, at)| *at).collect()
    }
}

impl Ticker for Script {
    async fn tick(&self, key: ObjectKey) -> Next {
        let act = {
            let mut acts = self.acts.lock().unwrap();
            let acts = acts.get_mut(&key.name).unwrap();
            if acts.len() > 1 { acts.pop_front().unwrap() } else { acts[0] }
        };
        self.log.lock().unwrap().push((key.name.clone(), Instant::now()));
        let count = {
            let mut running = self.running.lock().unwrap();
            let count = running.entry(key.name.clone()).or_default();
            *count += 1;
            *count
        };
        assert_eq!(count, 1, "two ticks of one object at once");
        let _running = Running(self, key.name);
        let next = match act {
            Act::Return(next) => next,
            Act::Slow(time, next) => {
                sleep(time).await;
                next
            }
            Act::Panic => panic!("on purpose"),
            Act::Hang => std::future::pending().await,
        };
        *self.finished.lock().unwrap() += 1;
        next
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn workers(script: &Arc<Script>) -> Workers<Script> {
    Workers::new(script.clone(), Limits::default(), Metrics::new())
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn an_object_ticks_at_its_interval_whatever_a_tick_takes() {
    let script = Script::of(&[("web", &[Act::Slow(secs(3), Next::WakeAfter(secs(10)))])]);
    let workers = workers(&script);
    let begin = Instant::now();
    workers.wake(&key("web"));
    sleep(secs(35)).await;
    let starts: Vec<_> = script.starts("web").iter().map(|at| (*at - begin).as_secs()).collect();
    assert_eq!(starts, [0, 10, 20, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_wake_runs_a_tick_at_once() {
    let script = Script::of(&[("web", &[Act::Return(Next::Idle)])]);
    let workers = workers(&script);
    workers.wake(&key("web"));
    sleep(secs(3600)).await;
    assert_eq!(script.starts("web").len(), 1, "at rest nothing happens");
    let woken = Instant::now();
    workers.wake(&key("web"));
    sleep(secs(1)).await;
    assert_eq!(script.starts("web")[1], woken);
}

#[tokio::test(start_paused = true)]
async fn wakes_during_a_tick_are_kept_as_one() {
    let script = Script::of(&[("web", &[Act::Slow(secs(2), Next::Idle)])]);
    let workers = workers(&script);
    for _ in 0..20 {
        workers.wake(&key("web"));
        sleep(Duration::from_millis(50)).await;
    }
    sleep(secs(60)).await;
    assert_eq!(script.starts("web").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn churn_neither_starves_a_tick_nor_makes_a_storm() {
    let script = Script::of(&[
        ("busy", &[Act::Return(Next::WakeAfter(secs(10)))]),
        ("calm", &[Act::Return(Next::WakeAfter(secs(10)))]),
    ]);
    let workers = workers(&script);
    workers.wake(&key("calm"));
    for _ in 0..6000 {
        workers.wake(&key("busy"));
        sleep(Duration::from_millis(10)).await;
    }
    let busy = script.starts("busy");
    let gaps: Vec<_> = busy.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= Limits::default().spacing), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= Limits::default().spacing + Duration::from_millis(10)), "{gaps:?}");
    assert_eq!(script.starts("calm").len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_delays_that_object_alone() {
    let script = Script::of(&[("bad", &[Act::Panic]), ("good", &[Act::Return(Next::WakeAfter(secs(1)))])]);
    let metrics = Metrics::new();
    let workers = Workers::new(script.clone(), Limits::default(), metrics.clone());
    let begin = Instant::now();
    workers.wake(&key("bad"));
    workers.wake(&key("good"));
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        workers.wake(&key("bad"));
    }
    let starts: Vec<_> = script.starts("bad").iter().map(|at| (*at - begin).as_secs()).collect();
    assert_eq!(starts, [0, 1, 3, 7, 15, 31]);
    assert!(script.starts("good").len() >= 60);
    assert!(metrics.encode().unwrap().contains("canaryrelease_tick_panics_total 6"));
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_one_success_forgets_them() {
    let failed = Act::Return(Next::Failed(Failure { step: "observe", category: "timeout" }));
    let fine = Act::Return(Next::WakeAfter(secs(10)));
    let script = Script::of(&[("web", &[failed, failed, failed, fine, failed, fine])]);
    let metrics = Metrics::new();
    let workers = Workers::new(script.clone(), Limits::default(), metrics.clone());
    let begin = Instant::now();
    workers.wake(&key("web"));
    sleep(secs(20)).await;
    let starts: Vec<_> = script.starts("web").iter().map(|at| (*at - begin).as_secs()).collect();
    assert_eq!(starts, [0, 1, 3, 7, 17, 18]);
    assert!(metrics.encode().unwrap().contains("canaryrelease_errors_total{step=\"observe\",category=\"timeout\"} 4"));
}

#[tokio::test(start_paused = true)]
async fn a_revert_that_fails_is_repeated_within_two_seconds_for_ever() {
    let failed = Act::Return(Next::Failed(Failure { step: "apply", category: "timeout" }));
    let script = Script::of(&[("web", &[Act::Return(Next::Urgent(Duration::ZERO)), failed])]);
    let workers = workers(&script);
    workers.wake(&key("web"));
    sleep(secs(600)).await;
    let starts = script.starts("web");
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] <= Limits::default().short_delay));
    assert!(starts.len() > 290);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_tick_is_dropped_at_its_deadline_and_tried_again() {
    let script = Script::of(&[("web", &[Act::Hang, Act::Return(Next::Idle)])]);
    let workers = workers(&script);
    let begin = Instant::now();
    workers.wake(&key("web"));
    sleep(secs(300)).await;
    let starts: Vec<_> = script.starts("web").iter().map(|at| (*at - begin).as_secs()).collect();
    assert_eq!(starts, [0, 121]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_reverts_finds_a_place_when_all_are_taken() {
    let mut acts: Vec<(String, Vec<Act>)> =
        (0..100).map(|n| (format!("slow-{n}"), vec![Act::Slow(secs(100), Next::WakeAfter(secs(1)))])).collect();
    acts.push(("web".into(), vec![Act::Return(Next::Urgent(secs(5)))]));
    let acts: Vec<(&str, &[Act])> = acts.iter().map(|(name, acts)| (name.as_str(), acts.as_slice())).collect();
    let script = Script::of(&acts);
    let workers = workers(&script);
    workers.wake(&key("web"));
    sleep(Duration::from_millis(1)).await;
    for n in 0..100 {
        workers.wake(&key(&format!("slow-{n}")));
    }
    sleep(secs(58)).await;
    assert_eq!(script.starts("web").len(), 12, "every five seconds");
}

#[tokio::test(start_paused = true)]
async fn more_objects_than_places_all_get_their_turn() {
    let acts: Vec<(String, Vec<Act>)> =
        (0..200).map(|n| (format!("o-{n}"), vec![Act::Slow(secs(1), Next::WakeAfter(secs(10)))])).collect();
    let acts: Vec<(&str, &[Act])> = acts.iter().map(|(name, acts)| (name.as_str(), acts.as_slice())).collect();
    let script = Script::of(&acts);
    let workers = workers(&script);
    for n in 0..200 {
        workers.wake(&key(&format!("o-{n}")));
    }
    sleep(secs(130)).await;
    let counts: Vec<_> = (0..200).map(|n| script.starts(&format!("o-{n}")).len()).collect();
    // 200 objects of one second on 16 places: a round takes 12.5 s.
    assert!(counts.iter().all(|count| (9..=12).contains(count)), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_gone_costs_nothing_and_may_come_back() {
    let script = Script::of(&[("web", &[Act::Slow(secs(1), Next::Gone)])]);
    let workers = workers(&script);
    workers.wake(&key("web"));
    sleep(secs(2)).await;
    assert!(workers.shared.slots().is_empty());
    workers.wake(&key("web"));
    sleep(Duration::from_millis(500)).await;
    // It is created again while the tick that saw it gone still runs.
    workers.wake(&key("web"));
    sleep(secs(10)).await;
    assert_eq!(script.starts("web").len(), 3);
    assert!(workers.shared.slots().is_empty());
}

#[tokio::test(start_paused = true)]
async fn shutdown_finishes_the_tick_in_hand_and_takes_no_new_one() {
    let script = Script::of(&[
        ("web", &[Act::Slow(secs(3), Next::WakeAfter(Duration::ZERO))]),
        ("late", &[Act::Return(Next::Idle)]),
    ]);
    let workers = workers(&script);
    workers.wake(&key("web"));
    sleep(secs(1)).await;
    let begin = Instant::now();
    let (dropped, ()) = tokio::join!(workers.finish(secs(20)), async {
        sleep(secs(1)).await;
        workers.wake(&key("late"));
        workers.wake(&key("web"));
    });
    assert_eq!((dropped, begin.elapsed().as_secs()), (0, 2));
    assert_eq!(*script.finished.lock().unwrap(), 1);
    assert_eq!(script.log.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_no_longer_than_its_bound() {
    let script = Script::of(&[("web", &[Act::Hang])]);
    let workers = workers(&script);
    workers.wake(&key("web"));
    sleep(secs(1)).await;
    let begin = Instant::now();
    assert_eq!(workers.finish(secs(20)).await, 1);
    assert_eq!(begin.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_stops_every_tick_at_once() {
    let script = Script::of(&[("web", &[Act::Slow(secs(3), Next::Idle)])]);
    let workers = workers(&script);
    workers.wake(&key("web"));
    sleep(secs(1)).await;
    let begin = Instant::now();
    workers.drop_all().await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    workers.wake(&key("web"));
    sleep(secs(60)).await;
    assert_eq!(*script.finished.lock().unwrap(), 0);
    assert_eq!(script.starts("web").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_does_not_yield_to_its_deadline_is_reported_as_stuck() {
    let script = Script::of(&[("web", &[Act::Return(Next::Idle)])]);
    let workers = workers(&script);
    workers.wake(&key("web"));
    sleep(secs(1)).await;
    assert_eq!(workers.stuck(), None);
    let slot = workers.shared.slots().get(&key("web")).unwrap().clone();
    slot.state().running = Some(Instant::now());
    sleep(secs(239)).await;
    assert_eq!(workers.stuck(), None);
    sleep(secs(2)).await;
    assert_eq!(workers.stuck().unwrap().reason, "its tick does not end");
}
