//! The API server as the operator reaches it: HTTP requests in, HTTP answers out. It numbers what arrives, lets faults
//! strike, carries out, and has every write of the operator checked.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use canary_api::names::{FIELD_MANAGER, OPERATOR_USER};
use canary_core::object;
use futures::Stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use jiff::Timestamp;
use kube::Client;
use kube::client::{Body, ClientBuilder};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tower::BoxError;

use crate::api::{Caller, Deleted, PatchKind};
use crate::branches;
use crate::contract::IMPERSONATE;
use crate::fault::{Answer, Fault, Planned, Point, Struck};
use crate::promises::Write;
use crate::refusal::Refusal;
use crate::request::{Call, Verb};
use crate::selector::Selector;
use crate::store::{Change, Key, Version};
use crate::world::{Entry, Inner, Skew, World};

/// How long a write takes on its way.
const LATENCY: Duration = Duration::from_millis(1);
/// How long a connection stays open without an answer: a little longer than the operator waits for one. Where its calls
/// have no deadline, since a process is to stand still with one under way, that is how long it waits.
const SILENCE: Duration = Duration::from_secs(9);
/// How long a watch stays away that waits for an object to be changed again.
pub(crate) const LONGEST_CUT: Duration = Duration::from_secs(30);

type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

/// A client of this world for one process of the operator, without deadlines of its own.
#[must_use]
pub fn client(
    world: &World,
    process: usize,
) -> ClientBuilder<tower::util::BoxCloneService<Request<Body>, Response<AnyBody>, BoxError>> {
    let world = world.clone();
    let service = tower::service_fn(move |request: Request<Body>| serve(world.clone(), process, request));
    ClientBuilder::new(tower::util::BoxCloneService::new(service), "shop")
}

/// A client of this world that nothing happens to, for people and tests: it is no process of the operator. It may ask as
/// another user, as an administrator may.
#[must_use]
pub fn plain_client(world: &World, user: &str) -> Client {
    let (world, user) = (world.clone(), user.to_owned());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (world, user) = (world.clone(), user.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let taken_for = parts.headers.get(IMPERSONATE).and_then(|user| user.to_str().ok());
            let user = taken_for.unwrap_or(&user);
            let answer = match Call::parse(&parts) {
                None => Err(Refusal::no_such_path()),
                Some(call) if call.verb == Verb::Watch => return Ok(watch(world, &call)),
                Some(call) => world.lock().answer(&call, user, None, &body, 0),
            };
            world.tell();
            Ok::<_, BoxError>(respond(answer))
        }
    });
    ClientBuilder::new(service, "shop").build()
}

/// What happens to a request.
enum Course {
    /// It is carried out.
    Goes,
    /// It is carried out, and nobody hears of it.
    GoesSilently,
    /// The same; and the process is dead.
    GoesAndKills,
    /// It is answered from the past.
    GoesBack(usize),
    /// It is refused.
    Refused(Refusal),
    /// It is lost.
    Lost,
    /// There is no connection.
    Unreachable,
}

async fn serve(world: World, process: usize, request: Request<Body>) -> Result<Response<AnyBody>, BoxError> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let Some(call) = Call::parse(&parts) else { return Ok(respond(Err(Refusal::no_such_path()))) };
    reachable(&world, process).await?;
    if call.verb == Verb::Watch {
        let mut response = watch(world.clone(), &call);
        dated(&world, &mut response);
        return Ok(response);
    }
    if call.writes() {
        sleep(LATENCY).await;
        reachable(&world, process).await?;
    }
    if call.verb == Verb::List && !call.of_a_tick() && world.lock().hidden(call.resource.plural) {
        return Err("connection reset".into());
    }
    let (numbers, course) = world.lock().arrives(process, &call);
    if world.lock().dirty {
        world.tell();
    }
    // A process that stands still does so with the request in its hands.
    let course = match course {
        Arrival::Course(course) => course,
        Arrival::Frozen => {
            world.tell_of_death();
            reachable(&world, process).await?;
            Course::Goes
        }
        Arrival::Killed => {
            world.tell_of_death();
            return std::future::pending().await;
        }
    };
    if matches!(course, Course::Lost | Course::Unreachable) {
        world.lock().lost(process, &call, numbers);
        if matches!(course, Course::Unreachable) {
            return Err("connection refused".into());
        }
        return silence().await;
    }
    let answer = match &course {
        Course::GoesBack(age) => world.lock().answer(&call, OPERATOR_USER, Some(process), &body, *age),
        Course::Refused(refusal) => Err(refusal.clone()),
        _ => world.lock().answer(&call, OPERATOR_USER, Some(process), &body, 0),
    };
    let code = answer.as_ref().map_or_else(|refusal| refusal.code, |answer| answer.code);
    {
        let mut inner = world.lock();
        let what = brief(&call, &body);
        inner.note(process, &call, numbers, code, &what);
        if answer.is_err() && call.verb.reads() && code != 404 {
            inner.processes[process].failed_reads.push((call.resource.plural, asked_for(&call)));
        }
        inner.processes[process].outrun |= code == 409 && call.status && call.resource.plural == "canaryreleases";
        if matches!(course, Course::GoesAndKills) {
            inner.processes[process].dead = true;
        }
    }
    if call.writes() {
        world.tell();
    }
    match course {
        Course::GoesSilently => silence().await,
        Course::GoesAndKills => {
            world.tell_of_death();
            std::future::pending().await
        }
        _ => {
            let mut response = respond(answer);
            dated(&world, &mut response);
            Ok(response)
        }
    }
}

/// No answer; a caller that waits longer than an operator does learns that the connection is gone.
async fn silence() -> Result<Response<AnyBody>, BoxError> {
    sleep(SILENCE).await;
    Err("connection reset".into())
}

/// The server's time, in whole seconds, as every answer of it has it.
fn dated(world: &World, response: &mut Response<AnyBody>) {
    let date = world.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    response.headers_mut().insert(http::header::DATE, http::HeaderValue::from_str(&date).unwrap());
}

/// Waits for as long as the process stands still; a dead one waits for ever.
async fn reachable(world: &World, process: usize) -> Result<(), BoxError> {
    loop {
        let (dead, frozen, down) = {
            let inner = world.lock();
            let now = Instant::now();
            let own = &inner.processes[process];
            (own.dead, own.frozen.filter(|until| *until > now), inner.server_down.is_some_and(|until| until > now))
        };
        if dead {
            return std::future::pending().await;
        }
        match frozen {
            Some(until) => sleep_until(until).await,
            None if down => return Err("connection refused".into()),
            None => return Ok(()),
        }
    }
}

enum Arrival {
    Course(Course),
    Frozen,
    Killed,
}

impl Inner {
    /// Numbers a request, and says what is to become of it.
    fn arrives(&mut self, process: usize, call: &Call) -> ((usize, usize), Arrival) {
        let mut numbers = (0, 0);
        let mut points = Vec::new();
        if call.of_a_tick() {
            self.requests += 1;
            numbers.0 = self.requests;
            points.push(Point::Request(self.requests));
        }
        if call.writes() && call.resource.plural != "leases" {
            self.writes += 1;
            numbers.1 = self.writes;
            points.push(Point::Write(self.writes));
            let words = call.status || matches!(call.resource.plural, "events" | "releaserecords");
            self.acts += usize::from(!words);
        }
        let mut arrival = Arrival::Course(Course::Goes);
        let mut struck: Vec<Fault> =
            self.plan.iter().filter(|planned| points.contains(&planned.at)).map(|planned| planned.fault).collect();
        let as_struck = |fault| Struck { fault, reads: call.verb.reads(), plural: call.resource.plural };
        let before = self.branches.is_some().then(|| self.api.store.revision());
        if let Some(branches) = &mut self.branches {
            struck.extend(branches.part(&points, as_struck));
        }
        let forged = !struck.is_empty() && struck.iter().all(|fault| matches!(fault, Fault::Corrupt(_)));
        let refused = self.refused;
        for fault in struck {
            self.struck.push(as_struck(fault));
            match fault {
                Fault::CrashBefore => {
                    self.processes[process].dead = true;
                    arrival = Arrival::Killed;
                }
                Fault::CrashAfter => arrival = Arrival::Course(Course::GoesAndKills),
                Fault::LostReply => arrival = Arrival::Course(Course::GoesSilently),
                Fault::Answer(Answer::Timeout) => arrival = Arrival::Course(Course::Lost),
                Fault::Answer(answer) => arrival = Arrival::Course(Course::Refused(refusal(answer, call))),
                Fault::Stale(age) if call.verb.reads() => arrival = Arrival::Course(Course::GoesBack(age)),
                Fault::Stale(_) => {}
                Fault::Freeze(time) => {
                    self.processes[process].frozen = Instant::now().checked_add(time);
                    arrival = Arrival::Frozen;
                }
                Fault::MetricsDown(time) => self.metrics_down = Instant::now().checked_add(time),
                Fault::ServerDown(time) => {
                    self.server_down = Instant::now().checked_add(time);
                    arrival = Arrival::Course(Course::Unreachable);
                }
                Fault::ClockJumps(seconds) => {
                    let by = jiff::SignedDuration::from_secs(seconds);
                    self.promises.clocks_off = true;
                    self.set_clock(process, |skew, now| skew.set(now, by, 1.0));
                }
                Fault::ClockRate(hundredths) => {
                    let rate = f64::from(hundredths) / 100.0;
                    self.promises.clocks_off = true;
                    self.set_clock(process, |skew, now| skew.set(now, jiff::SignedDuration::ZERO, rate));
                }
                Fault::Corrupt(corruption) => {
                    let (moved, refused) = match corruption.strike(&mut self.api) {
                        Some(changed) => (usize::from(changed), usize::from(!changed)),
                        None => (0, 0),
                    };
                    self.corrupted += moved;
                    self.promises.meddled |= moved > 0;
                    self.refused += refused;
                    self.dirty |= moved > 0;
                }
                Fault::Act(act) => {
                    let moved = act.strike(self);
                    self.corrupted += usize::from(moved);
                    self.promises.meddled |= moved && act.takes_traffic();
                    self.dirty |= moved;
                    self.promises.moved(&self.api);
                }
                // It strikes at a change, not here.
                Fault::WatchCut => {}
            }
        }
        if forged && before == Some(self.api.store.revision()) {
            branches::give_back(self.refused > refused);
        }
        (numbers, arrival)
    }

    /// Changes at which the watches of a kind broke.
    fn cuts(&self, plural: &'static str) -> impl Iterator<Item = &Change> {
        let at = |planned: &Planned| match (planned.at, planned.fault) {
            (Point::Change(number), Fault::WatchCut) => self.api.store.since(number.saturating_sub(1)).first(),
            _ => None,
        };
        self.plan.iter().filter_map(at).filter(move |change| change.key.plural == plural)
    }

    /// Counts the cuts that came to pass.
    pub(crate) fn strike_cuts(&mut self) {
        let kinds: Vec<&'static str> = ["canaryreleases", "deployments", "httproutes"]
            .into_iter()
            .flat_map(|plural| self.cuts(plural).map(|change| change.key.plural).collect::<Vec<_>>())
            .collect();
        let struck = kinds.into_iter().map(|plural| Struck { fault: Fault::WatchCut, reads: true, plural });
        self.struck.extend(struck);
    }

    /// Whether the watches of a kind can't be taken up again yet.
    fn hidden(&self, plural: &'static str) -> bool {
        self.cuts(plural).any(|change| {
            let again = self.api.store.since(change.revision).iter().any(|later| later.key == change.key);
            !again && self.api.now < change.at + LONGEST_CUT
        })
    }

    fn set_clock(&mut self, process: usize, set: impl Fn(Skew, Timestamp) -> Skew) {
        let skew = self.processes[process].skew;
        self.processes[process].skew = set(skew, self.api.now);
    }

    /// A request that nobody answers.
    fn lost(&mut self, process: usize, call: &Call, numbers: (usize, usize)) {
        self.note(process, call, numbers, 0, "no answer");
        if call.verb.reads() {
            self.processes[process].failed_reads.push((call.resource.plural, asked_for(call)));
        }
    }

    fn note(&mut self, process: usize, call: &Call, numbers: (usize, usize), code: u16, what: &str) {
        let verb = if call.status {
            "status"
        } else if call.log {
            "log"
        } else if call.dry_run {
            "try"
        } else {
            call.verb.word()
        };
        let name = asked_for(call);
        let tick = self.processes[process].ticks;
        let place = self.place();
        let entry = Entry {
            at: self.api.now,
            process,
            tick,
            request: numbers.0,
            write: numbers.1,
            verb,
            plural: call.resource.plural,
            name,
            code,
            what: what.to_owned(),
            place,
        };
        self.journal.push(entry);
    }

    /// Carries a request out; a read with an `age` as of before so many changes.
    fn answer(
        &mut self,
        call: &Call,
        user: &str,
        process: Option<usize>,
        body: &[u8],
        age: usize,
    ) -> Result<Answered, Refusal> {
        let manager = match call.parameter("fieldManager") {
            "" if user == OPERATOR_USER => FIELD_MANAGER,
            "" => "unknown",
            named => named,
        };
        let caller = Caller { user: user.to_owned(), manager: manager.to_owned(), dry_run: call.dry_run };
        let parsed = || serde_json::from_slice::<Value>(body).map_err(|error| Refusal::bad_request(&error.to_string()));
        let (resource, place) = (call.resource, (call.namespace.as_str(), call.name.as_str()));
        let key = Key::new(resource, place.0, place.1);
        let before = self.api.store.get(&key).cloned();
        let written = |version: Arc<Version>, code: u16| Answered { code, bytes: version.bytes() };
        let answered = match call.verb {
            Verb::Get if call.log => {
                let log = crate::cluster::jobs::log(&self.api.get(resource, place.0, place.1)?.value);
                Answered { code: 200, bytes: Bytes::from(log) }
            }
            Verb::Get => {
                let version = if age == 0 {
                    self.api.get(resource, place.0, place.1)?
                } else {
                    let (_, mut found) = self.api.store.past(|other| *other == key, age);
                    found.remove(&key).ok_or_else(|| Refusal::not_found(resource, place.1))?
                };
                written(version, 200)
            }
            Verb::List => self.list(call, age)?,
            Verb::Watch => return Err(Refusal::bad_request("a watch is no single answer")),
            Verb::Create => written(self.api.create(&caller, resource, place.0, parsed()?)?, 201),
            Verb::Update => {
                written(self.api.replace(&caller, resource, place.0, place.1, call.status, parsed()?)?, 200)
            }
            Verb::Patch => {
                let kind = match call.content.as_str() {
                    "application/json-patch+json" => PatchKind::Json,
                    "application/merge-patch+json" => PatchKind::Merge,
                    other => return Err(Refusal::bad_request(&format!("the world knows no patch {other}"))),
                };
                written(self.api.patch(&caller, resource, place, call.status, kind, &parsed()?)?, 200)
            }
            Verb::Delete => {
                let options = if body.is_empty() { json!({}) } else { parsed()? };
                match self.api.delete(&caller, resource, place.0, place.1, &options)? {
                    Deleted::Marked(version) => written(version, 200),
                    Deleted::Gone(version) => Answered { code: 200, bytes: gone(call, &version.value) },
                }
            }
        };
        if let Some(process) = process.filter(|_| call.writes()) {
            let key = match answered.name() {
                Some(name) if call.verb == Verb::Create => Key::new(resource, place.0, &name),
                _ => key,
            };
            let after = self.api.store.get(&key).cloned();
            let moved = match (&before, &after) {
                (Some(before), Some(after)) => !Arc::ptr_eq(before, after),
                (None, None) => false,
                _ => true,
            };
            if moved {
                self.judge(process, call, body, before.as_deref(), after.as_deref());
            }
        }
        Ok(answered)
    }

    fn judge(&mut self, process: usize, call: &Call, body: &[u8], before: Option<&Version>, after: Option<&Version>) {
        self.cluster.traffic.account(self.api.now);
        let body = serde_json::from_slice(body).unwrap_or_default();
        let write = Write {
            api: &self.api,
            cluster: &self.cluster,
            call,
            body: &body,
            before: before.map(|version| &version.value),
            after: after.map(|version| &version.value),
            failed: &self.processes[process].failed_reads,
            began: self.processes[process].began.unwrap_or(self.api.now),
            began_at: self.processes[process].began_at,
        };
        self.promises.written(&write);
    }

    fn list(&self, call: &Call, age: usize) -> Result<Answered, Refusal> {
        let selector = Selector::parse(call.parameter("labelSelector"), call.parameter("fieldSelector"), call.resource)
            .map_err(|why| Refusal::bad_request(&why))?;
        let inside = |key: &Key| {
            key.plural == call.resource.plural && (call.namespace.is_empty() || key.namespace == call.namespace)
        };
        let (revision, found): (u64, Vec<Arc<Version>>) = if age == 0 {
            let all = self.api.store.all(call.resource.plural, &call.namespace);
            (self.api.store.revision(), all.map(|(_, version)| version.clone()).collect())
        } else {
            let (revision, found) = self.api.store.past(inside, age);
            (revision, found.into_values().collect())
        };
        let found = found.iter().filter(|version| selector.selects(&version.value));
        let (kind, version) = if call.metadata_only {
            ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
        } else {
            (format!("{}List", call.resource.kind), call.resource.api_version())
        };
        let mut bytes = BytesMut::with_capacity(4096);
        bytes.put_slice(
            format!(
                r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{{"resourceVersion":"{revision}"}},"items":["#
            )
            .as_bytes(),
        );
        for (index, version) in found.enumerate() {
            if index > 0 {
                bytes.put_u8(b',');
            }
            if call.metadata_only {
                bytes.put_slice(partial(&version.value).to_string().as_bytes());
            } else if call.resource.custom {
                bytes.put_slice(&version.bytes());
            } else {
                bytes.put_slice(&version.item_bytes());
            }
        }
        bytes.put_slice(b"]}");
        Ok(Answered { code: 200, bytes: bytes.freeze() })
    }
}

/// An answer.
struct Answered {
    code: u16,
    bytes: Bytes,
}

impl Answered {
    /// The name of the object that it shows.
    fn name(&self) -> Option<String> {
        let value: Value = serde_json::from_slice(&self.bytes).ok()?;
        Some(object::name(&value).to_owned())
    }
}

fn respond(answer: Result<Answered, Refusal>) -> Response<AnyBody> {
    let (code, bytes) = match answer {
        Ok(answer) => (answer.code, answer.bytes),
        Err(refusal) => (refusal.code, Bytes::from(refusal.body().to_string())),
    };
    let mut response = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// What a deletion that is done answers.
fn gone(call: &Call, object: &Value) -> Bytes {
    let mut details = json!({"name": call.name, "kind": call.resource.plural, "uid": object::uid(object)});
    if !call.resource.group.is_empty() {
        details["group"] = json!(call.resource.group);
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Bytes::from(status.to_string())
}

fn refusal(answer: Answer, call: &Call) -> Refusal {
    match answer {
        Answer::Conflict if call.verb == Verb::Create => Refusal::already_exists(call.resource, &call.name),
        Answer::Conflict => Refusal::conflict(call.resource, &call.name),
        Answer::NotFound => Refusal::not_found(call.resource, &call.name),
        Answer::Forbidden => {
            let why = format!(
                "User {OPERATOR_USER:?} cannot {} resource {:?} in API group {:?} in the namespace {:?}",
                call.verb.word(),
                call.resource.plural,
                call.resource.group,
                call.namespace
            );
            Refusal::forbidden(call.resource, &call.name, &why)
        }
        Answer::TooMany => Refusal::too_many(),
        Answer::Internal | Answer::Timeout => Refusal::internal(),
        Answer::Refused => {
            let why =
                "ValidatingAdmissionPolicy 'another' with binding 'another' denied request: failed expression: false";
            Refusal::forbidden(call.resource, &call.name, why)
        }
    }
}

/// The name, or a list's selectors.
fn asked_for(call: &Call) -> String {
    if !call.name.is_empty() {
        return call.name.clone();
    }
    [call.parameter("labelSelector"), call.parameter("fieldSelector")]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("&")
}

/// What is written, in a few words, for the journal.
fn brief(call: &Call, body: &[u8]) -> String {
    if call.verb.reads() {
        return String::new();
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return String::new() };
    match call.verb {
        Verb::Patch => {
            let told = |operation: &Value| {
                let path = object::text(operation, "/path");
                let guard = object::text(operation, "/op") == "test" || path.starts_with("/metadata/resourceVersion");
                (!guard).then(|| {
                    let value = operation.get("value").map(Value::to_string).unwrap_or_default();
                    let shown: String = value.chars().take(60).collect();
                    format!("{} {path} {shown}", object::text(operation, "/op"))
                })
            };
            object::items(&body, "").filter_map(told).collect::<Vec<_>>().join("; ")
        }
        Verb::Update if call.status => {
            let text = |pointer: &str| object::text(&body, pointer).to_owned();
            format!("{} {} {}", text("/status/current/step"), text("/status/phase"), text("/status/message"))
        }
        Verb::Create => object::text(&body, "/reason").to_owned() + " " + object::text(&body, "/metadata/name"),
        _ => String::new(),
    }
}

fn partial(value: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"]})
}

/// A watch's place.
struct Following {
    world: World,
    /// The server's revision when it began.
    opened: u64,
    cursor: u64,
    selector: Selector,
    plural: &'static str,
    namespace: String,
    metadata_only: bool,
    end: Instant,
    over: bool,
}

/// Answers a watch: a line for each change after the version that was asked for.
fn watch(world: World, call: &Call) -> Response<AnyBody> {
    let selector = Selector::parse(call.parameter("labelSelector"), call.parameter("fieldSelector"), call.resource);
    let selector = match selector {
        Ok(selector) => selector,
        Err(why) => return respond(Err(Refusal::bad_request(&why))),
    };
    let seconds: u64 = call.parameter("timeoutSeconds").parse().unwrap_or(290);
    let opened = world.lock().api.store.revision();
    let cursor = call.parameter("resourceVersion").parse().unwrap_or(opened);
    let end = Instant::now().checked_add(Duration::from_secs(seconds)).unwrap_or_else(Instant::now);
    let following = Following {
        world,
        opened,
        cursor,
        selector,
        plural: call.resource.plural,
        namespace: call.namespace.clone(),
        metadata_only: call.metadata_only,
        end,
        over: false,
    };
    let body = StreamBody::new(lines(following));
    Response::new(body.boxed_unsync())
}

fn lines(following: Following) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> {
    futures::stream::unfold(following, |mut following| async move {
        loop {
            if following.over {
                return None;
            }
            let shared = following.world.clone();
            let changed = shared.changes();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match following.next() {
                Next::Line(line) => {
                    let mut text = line.to_string();
                    text.push('\n');
                    return Some((Ok(Frame::data(Bytes::from(text))), following));
                }
                Next::Last(line) => {
                    following.over = true;
                    let mut text = line.to_string();
                    text.push('\n');
                    return Some((Ok(Frame::data(Bytes::from(text))), following));
                }
                Next::Broken => {
                    following.over = true;
                    return Some((Err("connection reset".into()), following));
                }
                Next::At(due) => sleep_until(due).await,
                Next::Later => {
                    tokio::select! {
                        biased;
                        () = &mut changed => {}
                        () = sleep_until(following.end) => return None,
                    }
                }
            }
        }
    })
}

enum Next {
    Line(Value),
    Last(Value),
    Broken,
    At(Instant),
    Later,
}

impl Following {
    fn next(&mut self) -> Next {
        let inner = self.world.lock();
        if inner.server_down.is_some_and(|until| until > Instant::now()) {
            return Next::Broken;
        }
        let store = &inner.api.store;
        let cut = inner.cuts(self.plural).filter(|change| self.cursor < change.revision).last();
        if let Some(change) = cut
            && (self.opened < change.revision || inner.hidden(self.plural))
        {
            return Next::Broken;
        }
        let forgotten = cut.map_or(0, |change| change.revision).max(store.compacted);
        if self.cursor < forgotten {
            return Next::Last(json!({"type": "ERROR", "object": Refusal::expired(self.cursor, forgotten).body()}));
        }
        for change in store.since(self.cursor) {
            let fits = change.key.plural == self.plural
                && (self.namespace.is_empty() || change.key.namespace == self.namespace);
            let of = |version: &Option<Arc<Version>>| {
                version.as_ref().filter(|version| self.selector.selects(&version.value)).cloned()
            };
            let (was, is) = if fits { (of(&change.before), of(&change.after)) } else { (None, None) };
            let told = !inner.untold.contains(&change.revision);
            let (kind, version) = match (was, is) {
                (None, Some(is)) if told => ("ADDED", is),
                (Some(_), Some(is)) if told => ("MODIFIED", is),
                (Some(was), None) if told => ("DELETED", was),
                _ => {
                    self.cursor = change.revision;
                    continue;
                }
            };
            let due = self.world.instant(change.at) + inner.watch_lag;
            if due > Instant::now() {
                return Next::At(due);
            }
            self.cursor = change.revision;
            let mut object = if self.metadata_only { partial(&version.value) } else { version.value.clone() };
            object["metadata"]["resourceVersion"] = json!(change.revision.to_string());
            return Next::Line(json!({"type": kind, "object": object}));
        }
        Next::Later
    }
}
