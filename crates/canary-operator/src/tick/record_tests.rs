//! Records against an API server that refuses, forgets, hangs, and is written to by others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use canary_api::{CanaryReleaseStatus, JobAt, JobState, JobStatus, RevertStatus, Version};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::client::{Body, ClientBuilder};
use tower::BoxError;

use super::*;

/// Records by name, and what is wrong with the server.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    records: BTreeMap<String, Value>,
    version: u64,
    /// Method and what is left of the path.
    calls: Vec<String>,
    /// Every write is answered with this code.
    refuses: Option<u16>,
    /// Every read is refused.
    unreadable: bool,
    /// Nothing is answered.
    hangs: bool,
    /// The Job, its pods, and what its log is.
    job: Option<Value>,
    pods: Vec<Value>,
    log: Option<&'static str>,
    /// How long the longest of its lines is: the last line but two, and the last one.
    long_lines: Option<(usize, usize)>,
    log_hangs: bool,
}

impl State {
    fn of_jobs(&mut self, uri: &str) -> (u16, String) {
        self.calls.push(format!("GET {uri}"));
        let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "code": 404});
        match (uri.contains("/jobs/"), uri.contains("/log?")) {
            (true, _) => self.job.as_ref().map_or((404, gone.to_string()), |job| (200, job.to_string())),
            (false, true) if self.long_lines.is_some() => (200, self.end_of_long_lines(uri)),
            (false, true) => self.log.map_or((404, gone.to_string()), |log| (200, log.to_owned())),
            (false, false) => (200, json!({"kind": "List", "items": self.pods}).to_string()),
        }
    }
}

impl State {
    /// So many lines, and of those the first 64 KiB, as a kubelet gives them.
    fn end_of_long_lines(&self, uri: &str) -> String {
        let (first, last) = self.long_lines.unwrap_or_default();
        let log = format!("{}\nmiddle\nmiddle\n{}the end\n", "a".repeat(first), "b".repeat(last));
        let wanted: usize = uri.split_once("tailLines=").unwrap().1.split('&').next().unwrap().parse().unwrap();
        let lines: Vec<&str> = log.lines().collect();
        let mut text = lines[lines.len().saturating_sub(wanted)..].join("\n");
        text.truncate(65536);
        text
    }
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                if server.0.lock().unwrap().hangs {
                    std::future::pending::<()>().await;
                }
                if parts.uri.path().contains("/jobs/") || parts.uri.path().contains("/pods") {
                    if server.with(|state| state.log_hangs) {
                        std::future::pending::<()>().await;
                    }
                    let (code, answer) = server.with(|state| state.of_jobs(&parts.uri.to_string()));
                    let mut response = Response::new(Full::new(Bytes::from(answer)).map_err(BoxError::from));
                    *response.status_mut() = StatusCode::from_u16(code)?;
                    return Ok::<_, BoxError>(response);
                }
                let (code, answer) = server.answer(&parts.method, parts.uri.path(), &body);
                let mut response = Response::new(Full::new(Bytes::from(answer.to_string())).map_err(BoxError::from));
                *response.status_mut() = StatusCode::from_u16(code)?;
                Ok::<_, BoxError>(response)
            }
        });
        ClientBuilder::new(service, "shop").build()
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let state = &mut *self.0.lock().unwrap();
        let rest = path.strip_prefix("/apis/canaryrelease.dev/v1alpha1/namespaces/shop/releaserecords").unwrap();
        state.calls.push(format!("{method} {rest}"));
        let refuse = |code: u16| {
            (
                code,
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "code": code}),
            )
        };
        let mut parts = rest.trim_start_matches('/').split('/');
        let (name, status) = (parts.next().unwrap_or_default().to_owned(), parts.next() == Some("status"));
        if *method == Method::GET {
            return match state.records.get(&name) {
                _ if state.unreadable => refuse(403),
                _ if name.is_empty() => {
                    (200, json!({"kind": "List", "items": state.records.values().collect::<Vec<_>>()}))
                }
                Some(found) => (200, found.clone()),
                None => refuse(404),
            };
        }
        if let Some(code) = state.refuses {
            return refuse(code);
        }
        let mut sent: Value = serde_json::from_slice(body).unwrap_or_default();
        state.version += 1;
        let version = json!(state.version.to_string());
        match (method, status) {
            (&Method::POST, _) => {
                let name = object::name(&sent).to_owned();
                if state.records.contains_key(&name) {
                    return refuse(409);
                }
                // The server keeps no status of a create.
                sent.as_object_mut().unwrap().remove("status");
                sent["metadata"]["uid"] = json!(format!("uid of {name}"));
                sent["metadata"]["resourceVersion"] = version;
                state.records.insert(name, sent.clone());
                (201, sent)
            }
            (&Method::PUT, true) => {
                let Some(found) = state.records.get_mut(&name) else { return refuse(404) };
                if found["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] {
                    return refuse(409);
                }
                found["status"] = sent["status"].clone();
                found["metadata"]["resourceVersion"] = version;
                (200, found.clone())
            }
            (&Method::DELETE, _) => {
                state.records.remove(&name);
                (200, json!({}))
            }
            other => panic!("{other:?}"),
        }
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn status(&self) -> ReleaseRecordStatus {
        self.with(|state| serde_json::from_value(state.records[&name()]["status"].clone()).unwrap())
    }
}

fn name() -> String {
    names::record("web-1", "uid-1")
}

fn at(second: i64) -> Timestamp {
    "2026-01-01T10:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
}

fn status(step: Step, stage: i32) -> CanaryReleaseStatus {
    let version = |image: &str| Version {
        images: vec![image.to_owned()],
        digest: "sha256:0f8214e142dd57c0de78".to_owned(),
        ..Version::default()
    };
    let current = ReleaseStatus {
        id: "web-1".to_owned(),
        number: 1,
        step,
        stage_index: stage,
        candidate: version("web:v2"),
        stable: version("web:v1"),
        started: Some(Time(at(0))),
        step_since: Some(Time(at(1))),
        window_since: Some(Time(at(1))),
        split: true,
        ..ReleaseStatus::default()
    };
    CanaryReleaseStatus { current: Some(current), ..CanaryReleaseStatus::default() }
}

fn seen(status: Option<CanaryReleaseStatus>) -> Observed {
    let mut release: canary_api::CanaryRelease = serde_json::from_value(json!({
        "apiVersion": "canaryrelease.dev/v1alpha1", "kind": "CanaryRelease",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-1"},
        "spec": {
            "target": {"name": "web"},
            "stages": [{"weight": "5%", "duration": "1m"}, {"weight": "100%", "duration": "1m"}],
            "gates": [{"name": "errors", "errorRate": {"bad": "b", "total": "t", "limit": "1%"}}],
            "traffic": {"service": "web", "routes": [{"kind": "HTTPRoute", "name": "web"}], "requests": {"counter": "r"}},
        },
    }))
    .unwrap();
    release.status = status;
    Observed::alone(release)
}

struct Bench {
    server: Server,
    client: Client,
    metrics: Metrics,
    journal: Journal,
    status: Option<CanaryReleaseStatus>,
    calm: bool,
}

impl Bench {
    fn new() -> Self {
        let server = Server::default();
        let client = server.client();
        Self { server, client, metrics: Metrics::new(), journal: Journal::default(), status: None, calm: true }
    }

    /// One tick that leads to this status; when it wants to look again, and the calls it made.
    async fn tick(&mut self, to: CanaryReleaseStatus) -> (Option<Duration>, Vec<String>) {
        let seen = seen(self.status.replace(to.clone()));
        let done = Decision {
            status: to,
            decisive: true,
            words: false,
            effects: Vec::new(),
            notes: Vec::new(),
            wake_after: None,
            gone: false,
        };
        let clock = Clock::default();
        let desk =
            Desk { client: &self.client, metrics: &self.metrics, retention: Retention::default(), clock: &clock };
        let again = self.journal.keep(&desk, &seen, &done, self.calm, at(5)).await;
        (again, self.server.calls())
    }

    /// Ticks of a release that is over, from one that wants to look again so: until one does not.
    async fn rest(&mut self, mut again: Option<Duration>) {
        for _ in 0..100 {
            let Some(wait) = again else { return };
            assert!(wait <= LONGEST_DELAY.1);
            tokio::time::advance(wait).await;
            (again, _) = self.tick(status(Step::Done, 1)).await;
        }
        panic!("it never rests");
    }

    fn failures(&self) -> bool {
        self.metrics.encode().unwrap().contains("canaryrelease_record_writes_total{result=\"failed\"}")
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_gets_a_record_of_its_own_which_nothing_owns() {
    let mut bench = Bench::new();
    let (again, calls) = bench.tick(status(Step::Baseline, 0)).await;
    let put = vec![format!("PUT /{}/status", name())];
    let first = vec!["GET ".to_owned(), "POST ".to_owned(), put[0].clone(), "GET ".to_owned()];
    assert_eq!((again, calls), (None, first));
    let object = bench.server.with(|state| state.records[&name()].clone());
    assert_eq!(object["metadata"]["labels"]["canaryrelease.dev/record-of"], "web");
    assert_eq!(object["metadata"]["labels"]["canaryrelease.dev/template"], "0f8214e142dd57c0");
    assert!(object["metadata"].get("ownerReferences").is_none() && object["spec"] == json!({}));
    assert_eq!(bench.server.status().id, "web-1");
    // Nothing but sentences: not now.
    assert_eq!(bench.tick(status(Step::Scale, 0)).await.1, Vec::<String>::new());
    assert_eq!(bench.tick(status(Step::Shift, 0)).await.1, Vec::<String>::new());
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(bench.tick(status(Step::Bake, 0)).await.1, put);
    // The stage ended: at once.
    assert_eq!(bench.tick(status(Step::Scale, 1)).await.1, put);
    assert_eq!(bench.tick(status(Step::Bake, 1)).await.1, Vec::<String>::new());
    assert_eq!(bench.tick(status(Step::Roll, 1)).await.1, put);
    assert_eq!(bench.tick(status(Step::Done, 1)).await, (None, put));
    assert!(bench.server.status().frozen && bench.server.status().result == "SUCCESS");
    // At rest nothing is read or written.
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(bench.tick(status(Step::Done, 1)).await, (None, Vec::new()));
    }
    assert!(!bench.failures());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_is_kept_and_written_later_whole() {
    for code in [403, 404, 409, 422, 500] {
        let mut bench = Bench::new();
        bench.server.with(|state| state.refuses = Some(code));
        bench.tick(status(Step::Baseline, 0)).await;
        assert!(bench.failures(), "{code}");
        // It is not asked again at every tick.
        for step in [Step::Scale, Step::Shift, Step::Bake] {
            assert_eq!(bench.tick(status(step, 0)).await, (None, Vec::new()), "{code}");
        }
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!bench.tick(status(Step::Scale, 1)).await.1.is_empty(), "{code}");
        bench.server.with(|state| state.refuses = None);
        tokio::time::advance(Duration::from_secs(60)).await;
        bench.tick(status(Step::Bake, 1)).await;
        let record = bench.server.status();
        assert_eq!(record.stages[0].result, "Passed", "{code}");
        assert_eq!(record.stages[1].result, "Running", "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_a_tick_up_for_two_seconds_and_then_for_none() {
    let mut bench = Bench::new();
    bench.server.with(|state| state.hangs = true);
    let started = Instant::now();
    bench.tick(status(Step::Baseline, 0)).await;
    assert_eq!(started.elapsed(), DEADLINE);
    bench.tick(status(Step::Scale, 0)).await;
    assert_eq!(started.elapsed(), DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn while_traffic_goes_back_no_call_is_made() {
    let mut bench = Bench::new();
    bench.tick(status(Step::Bake, 0)).await;
    let revert = RevertStatus {
        at: Time(at(2)),
        by: "gate errors".to_owned(),
        clear_at: None,
        message: "gate errors: 5%".to_owned(),
        outcome: "RolledBack".to_owned(),
        reason: "GateBreached".to_owned(),
        rejects: true,
        rolled: false,
        stage: "1/2".to_owned(),
    };
    let reverting = |step: Step, clear: Option<i64>| {
        let mut status = status(step, 0);
        let revert = RevertStatus { clear_at: clear.map(|second| Time(at(second))), ..revert.clone() };
        status.current.as_mut().unwrap().revert = Some(revert);
        status
    };
    assert_eq!(bench.tick(reverting(Step::Revert, None)).await, (None, Vec::new()));
    // Nor where the status could not be written, and only traffic was given back.
    bench.calm = false;
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(bench.tick(status(Step::Bake, 0)).await, (None, Vec::new()));
    bench.calm = true;
    // Nor does an operator that takes over in the middle of it read anything.
    let pages = std::mem::take(&mut bench.journal);
    assert_eq!(bench.tick(reverting(Step::Revert, None)).await, (None, Vec::new()));
    bench.journal = pages;
    assert_eq!(bench.tick(reverting(Step::RevertDrain, Some(4))).await.1.len(), 1);
    let record = bench.server.status();
    assert_eq!((record.rollbacks[0].trigger.as_str(), record.stages[0].result.as_str()), ("gate errors", "Failed"));
}

#[tokio::test(start_paused = true)]
async fn texts_of_people_stay_and_a_deleted_record_is_made_again() {
    let mut bench = Bench::new();
    bench.tick(status(Step::Bake, 0)).await;
    bench.server.with(|state| {
        let record = state.records.get_mut(&name()).unwrap();
        record["spec"]["summary"] = json!("by jane");
        record["metadata"]["resourceVersion"] = json!("900");
    });
    bench.tick(status(Step::Scale, 1)).await;
    assert_eq!(bench.server.status().stages[0].result, "Passed");
    assert_eq!(bench.server.with(|state| state.records[&name()]["spec"]["summary"].clone()), "by jane");
    bench.server.with(|state| state.records.clear());
    bench.tick(status(Step::Roll, 1)).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    bench.tick(status(Step::Done, 1)).await;
    assert!(bench.server.status().frozen);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_record_is_taken_up_and_one_that_is_complete_is_left_alone() {
    let mut bench = Bench::new();
    bench.tick(status(Step::Bake, 0)).await;
    bench.journal = Journal::default();
    bench.tick(status(Step::Scale, 1)).await;
    let record = bench.server.status();
    assert_eq!(record.stages[0].result, "Passed");
    assert!(record.timeline.iter().any(|entry| entry.text.starts_with("an operator took the release up again")));
    bench.tick(status(Step::Done, 1)).await;
    let frozen = bench.server.status();
    bench.journal = Journal::default();
    let (again, calls) = bench.tick(status(Step::Done, 1)).await;
    assert_eq!((again, calls.len()), (None, 1));
    assert_eq!(bench.tick(status(Step::Done, 1)).await, (None, Vec::new()));
    assert_eq!(bench.server.status(), frozen);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_was_over_before_there_were_records_gets_none() {
    let mut bench = Bench::new();
    bench.status = Some(status(Step::Done, 1));
    assert_eq!(bench.tick(status(Step::Done, 1)).await, (None, vec![format!("GET /{}", name())]));
    assert_eq!(bench.tick(status(Step::Done, 1)).await, (None, Vec::new()));
    assert!(bench.server.with(|state| state.records.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn the_last_word_is_tried_for_a_while_and_then_rest_is_silent() {
    let mut bench = Bench::new();
    bench.tick(status(Step::Bake, 1)).await;
    bench.server.with(|state| state.refuses = Some(403));
    let (again, _) = bench.tick(status(Step::Done, 1)).await;
    bench.rest(again).await;
    assert_eq!(bench.tick(status(Step::Done, 1)).await, (None, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_can_not_be_read_after_a_restart_gets_its_end_or_is_given_up() {
    for readable_again in [true, false] {
        let mut bench = Bench::new();
        bench.tick(status(Step::Bake, 1)).await;
        bench.journal = Journal::default();
        bench.server.with(|state| state.unreadable = true);
        bench.tick(status(Step::Roll, 1)).await;
        let (again, _) = bench.tick(status(Step::Done, 1)).await;
        assert!(again.is_some());
        bench.server.with(|state| state.unreadable = !readable_again);
        bench.rest(again).await;
        assert_eq!(bench.server.status().frozen, readable_again);
        assert_eq!(bench.tick(status(Step::Done, 1)).await, (None, Vec::new()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_earlier_attempt_at_the_template_stands_in_the_record() {
    let mut bench = Bench::new();
    let before = ReleaseRecordStatus {
        id: "web-0".to_owned(),
        release_uid: "uid-1".to_owned(),
        candidate: status(Step::Done, 0).current.unwrap().candidate,
        rollbacks: vec![canary_api::RollbackRecord { id: "web-0".to_owned(), ..Default::default() }],
        frozen: true,
        ..ReleaseRecordStatus::default()
    };
    let other = ReleaseRecordStatus { release_uid: "another".to_owned(), id: "web-9".to_owned(), ..before.clone() };
    bench.server.with(|state| {
        for record in [&before, &other] {
            let object = json!({"metadata": {"name": record.id}, "status": record});
            state.records.insert(record.id.clone(), object);
        }
    });
    bench.tick(status(Step::Bake, 0)).await;
    let rollbacks: Vec<String> = bench.server.status().rollbacks.into_iter().map(|rollback| rollback.id).collect();
    assert_eq!(rollbacks, ["web-0"]);
}

#[test]
fn the_newest_records_are_kept_and_none_that_is_too_old() {
    let record = |name: &str, created: &str| json!({"metadata": {"name": name, "creationTimestamp": created}});
    let all = [
        record("a", "2026-01-04T00:00:00Z"),
        record("b", "2026-01-03T00:00:00Z"),
        record("c", "2026-01-02T00:00:00Z"),
        record("d", "2024-01-01T00:00:00Z"),
        record("own", "2026-01-05T00:00:00Z"),
    ];
    let now = "2026-01-05T00:00:00Z".parse().unwrap();
    let gone = |keep: u16, days: u16| -> Vec<&str> {
        surplus(&all, "own", Retention { keep, days }, now).into_iter().map(object::name).collect()
    };
    assert_eq!(gone(20, 400), ["d"]);
    assert_eq!(gone(3, 4000), ["c", "d"]);
    assert_eq!(gone(1, 4000), ["a", "b", "c", "d"]);
}

const JOB: &str = "web-1-smoke-s1-1-abcde";

/// A release at stage 1 whose job is so far.
fn with_job(step: Step, stage: i32, state: JobState) -> CanaryReleaseStatus {
    let mut status = status(step, stage);
    let ended = (!state.is_open()).then(|| Time(at(4)));
    let run = JobStatus {
        at: JobAt::Stage,
        attempt: 1,
        ended,
        job: JOB.to_owned(),
        name: "smoke".to_owned(),
        stage: 1,
        started: Some(Time(at(2))),
        state,
        ..JobStatus::default()
    };
    status.current.as_mut().unwrap().jobs = vec![run];
    status
}

fn job_and_pods(state: &mut State) {
    let note = json!({"canaryrelease.dev/uid": "uid-1"});
    state.job = Some(json!({"metadata": {"name": JOB, "uid": "j", "annotations": note}}));
    let owner = |uid: &str| json!([{"uid": uid, "controller": true}]);
    let ended =
        json!([{"name": "check", "state": {"terminated": {"exitCode": 3, "finishedAt": "2026-01-01T10:00:03Z"}}}]);
    let pod = |name: &str, of: &str| {
        json!({"metadata": {"name": name, "ownerReferences": owner(of)}, "spec": {"containers": [{"name": "check"}]},
            "status": {"containerStatuses": ended}})
    };
    state.pods = vec![pod("own", "j"), pod("zz-of-another", "x")];
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_jobs_log_goes_into_the_record_once() {
    let mut bench = Bench::new();
    bench.server.with(job_and_pods);
    bench.server.with(|state| state.log = Some("\u{1b}[31mone\u{1b}[0m\r\ntwo\u{7}\n"));
    bench.tick(with_job(Step::Bake, 0, JobState::Running)).await;
    let (_, calls) = bench.tick(with_job(Step::Bake, 0, JobState::Failed)).await;
    let log = "GET /api/v1/namespaces/shop/pods/own/log?container=check&tailLines=40&limitBytes=65536";
    assert!(calls.iter().any(|call| call == log), "{calls:#?}");
    let record = bench.server.status();
    let [job] = record.jobs.as_slice() else { panic!("{:?}", record.jobs) };
    assert_eq!((job.result.as_str(), job.exit_code, job.log.as_str()), ("Failed", Some(3), "one\ntwo"));
    assert_eq!(job.log_note, "container check of pod own");
    // It is not read again.
    let (_, calls) = bench.tick(with_job(Step::Scale, 1, JobState::Failed)).await;
    assert!(calls.iter().all(|call| call.contains("/status")), "{calls:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_can_not_be_read_is_tried_again_and_then_said() {
    let mut bench = Bench::new();
    bench.server.with(job_and_pods);
    bench.tick(with_job(Step::Bake, 0, JobState::Running)).await;
    for _ in 0..2 {
        bench.tick(with_job(Step::Bake, 0, JobState::Succeeded)).await;
        assert_eq!(bench.server.status().jobs[0].log_note, "");
    }
    bench.tick(with_job(Step::Bake, 0, JobState::Succeeded)).await;
    let note = bench.server.status().jobs[0].log_note.clone();
    assert!(note.starts_with("its log could not be read: "), "{note}");
    let (_, calls) = bench.tick(with_job(Step::Bake, 0, JobState::Succeeded)).await;
    assert_eq!(calls, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_log_with_long_lines_is_its_end_or_is_not_called_so() {
    for (first, last, end) in [(70_000, 0, "the end"), (70_000, 3_000, "bthe end"), (10, 70_000, "bbbb")] {
        let mut bench = Bench::new();
        bench.server.with(job_and_pods);
        bench.server.with(|state| state.long_lines = Some((first, last)));
        bench.tick(with_job(Step::Bake, 0, JobState::Running)).await;
        bench.tick(with_job(Step::Bake, 0, JobState::Failed)).await;
        let job = &bench.server.status().jobs[0];
        assert!(job.log.ends_with(end), "{}", job.log);
        assert_eq!(job.log_note.contains("a piece in the middle"), last == 70_000, "{}", job.log_note);
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_hangs_holds_a_record_up_for_a_moment_and_a_final_one_not_at_all() {
    let mut bench = Bench::new();
    bench.server.with(job_and_pods);
    bench.server.with(|state| state.log_hangs = true);
    bench.tick(with_job(Step::Roll, 1, JobState::Running)).await;
    let before = Instant::now();
    bench.tick(with_job(Step::Done, 1, JobState::Unfinished)).await;
    assert!(before.elapsed() <= Duration::from_secs(1));
    let record = bench.server.status();
    assert!(record.frozen);
    assert_eq!(record.jobs[0].log_note, "its log could not be read: no answer in time");
}

#[tokio::test(start_paused = true)]
async fn the_log_of_anothers_job_is_not_read() {
    let mut bench = Bench::new();
    bench.server.with(job_and_pods);
    bench.server.with(|state| {
        state.job.as_mut().unwrap()["metadata"]["annotations"] = json!({"canaryrelease.dev/uid": "another"});
        state.log = Some("secret");
    });
    bench.tick(with_job(Step::Roll, 1, JobState::Running)).await;
    bench.tick(with_job(Step::Done, 1, JobState::Unfinished)).await;
    let record = bench.server.status();
    assert_eq!(
        (record.jobs[0].log.as_str(), record.jobs[0].log_note.as_str()),
        ("", "its log could not be read: the Job is gone")
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_job_still_runs_after_the_release_is_not_final() {
    let mut bench = Bench::new();
    bench.server.with(job_and_pods);
    bench.server.with(|state| state.log = Some("done"));
    let after = |state: JobState| {
        let mut status = with_job(Step::Done, 1, state);
        let run = &mut status.current.as_mut().unwrap().jobs[0];
        (run.at, run.stage) = (JobAt::AfterPromotion, 0);
        status
    };
    bench.tick(status(Step::Roll, 1)).await;
    let (again, _) = bench.tick(after(JobState::Running)).await;
    assert!(again.is_some(), "it is looked at again");
    let record = bench.server.status();
    assert!(!record.frozen && record.result == "SUCCESS");
    bench.tick(after(JobState::Succeeded)).await;
    let record = bench.server.status();
    assert!(record.frozen && record.jobs[0].log == "done", "{record:?}");
}
