//! Events of the API `events.k8s.io/v1`. It writes what it is told, each note once; it never
//! merges two, never delays a tick and never fails one: an Event that cannot be written is
//! counted and forgotten, because nothing rests on it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::client::brief;
use crate::metrics::Metrics;

/// Longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;
/// Longest reason, action and reporting instance, in bytes.
const LONGEST_WORD: usize = 128;
/// Notes that may wait to be written; one more is dropped.
const WAITING: usize = 256;
/// Least time from one Event to the next when many wait: about ten a second.
const PACE: Duration = Duration::from_millis(100);
/// Notes that may be written without any pause.
const BURST: u32 = 50;
/// Time for one write.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// Time for what waits when the operator stops.
pub const LAST_WRITES: Duration = Duration::from_secs(3);
/// Who reports: the name of our field manager.
const CONTROLLER: &str = canary_api::names::FIELD_MANAGER;

/// Whether an Event is news or trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As planned.
    Normal,
    /// Someone should look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One Event to write.
///
/// Its name follows from its content and from the resourceVersion in `regarding`: a tick that is
/// repeated after a crash from the same version of the object writes the same Event, not a second
/// one, and the same news at a later version is a new Event.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// The object it is shown at. Name, namespace, kind, apiVersion and uid must be set for
    /// `kubectl describe` to find it.
    pub regarding: ObjectReference,
    /// News or trouble.
    pub type_: EventType,
    /// Why, one CamelCase word: `GateBreached`.
    pub reason: String,
    /// What the operator did, one CamelCase word: `Reverting`.
    pub action: String,
    /// One sentence for people; cut to 1 KiB.
    pub note: String,
}

/// Takes Events from the ticks. Cheap to clone.
#[derive(Clone)]
pub struct EventSink {
    queue: mpsc::Sender<(Note, Timestamp)>,
    metrics: Metrics,
}

/// Writes what the sink took.
pub struct EventWriter {
    queue: mpsc::Receiver<(Note, Timestamp)>,
    client: Client,
    metrics: Metrics,
    instance: String,
}

/// A sink and the writer behind it. `instance` is this replica's name, `namespace/pod`.
#[must_use]
pub fn channel(client: Client, metrics: Metrics, instance: &str) -> (EventSink, EventWriter) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let sink = EventSink { queue: sender, metrics: metrics.clone() };
    let writer = EventWriter { queue: receiver, client, metrics, instance: cut(instance, LONGEST_WORD) };
    (sink, writer)
}

impl EventSink {
    /// Hands a note over and returns at once. Where too many wait already, it is dropped and counted.
    pub fn publish(&self, note: &Note) {
        if self.queue.try_send((note.clone(), Timestamp::now())).is_err() {
            self.metrics.event("dropped");
        }
    }
}

impl EventWriter {
    /// Writes until every sink is gone, or until `stop`; then what waits already, for at most
    /// [`LAST_WRITES`].
    pub async fn run(mut self, stop: CancellationToken) {
        let mut burst = BURST;
        let mut refill = Instant::now();
        while let Some(Some((note, at))) = stop.run_until_cancelled(self.queue.recv()).await {
            let paces = refill.elapsed().as_millis().checked_div(PACE.as_millis()).unwrap_or_default();
            let due = u32::try_from(paces).unwrap_or(BURST);
            if due > 0 {
                burst = burst.saturating_add(due).min(BURST);
                refill = Instant::now();
            }
            if burst == 0 {
                tokio::time::sleep(PACE).await;
            }
            burst = burst.saturating_sub(1);
            self.write(&note, at).await;
        }
        self.queue.close();
        let rest = async {
            while let Some((note, at)) = self.queue.recv().await {
                self.write(&note, at).await;
            }
        };
        // What is left when the time is over is lost, as any Event may be.
        let _ended = timeout(LAST_WRITES, rest).await;
    }

    async fn write(&self, note: &Note, at: Timestamp) {
        let result = self.try_write(note, at).await;
        self.metrics.event(result);
    }

    async fn try_write(&self, note: &Note, at: Timestamp) -> &'static str {
        let event = build(note, at, &self.instance);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        match timeout(WRITE_DEADLINE, api.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => "written",
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => "repeated",
            // The namespace ends, or has ended: nobody is left to read it.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 403 | 404) => {
                tracing::debug!(
                    namespace,
                    reason = note.reason,
                    "an Event was refused: {} {}",
                    status.code,
                    status.message
                );
                "refused"
            }
            Ok(Err(error)) => {
                tracing::warn!(namespace, reason = note.reason, "an Event was not written: {}", brief(&error));
                "failed"
            }
            Err(_elapsed) => {
                tracing::warn!(namespace, reason = note.reason, "an Event was not written in time");
                "failed"
            }
        }
    }
}

/// The Event as the API server takes it.
fn build(note: &Note, at: Timestamp, instance: &str) -> Event {
    let namespace = note.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
    Event {
        metadata: ObjectMeta { name: Some(name(note)), namespace: Some(namespace), ..ObjectMeta::default() },
        action: Some(cut(&note.action, LONGEST_WORD)),
        event_time: Some(MicroTime(at)),
        note: Some(cut(&note.note, LONGEST_NOTE)),
        reason: Some(cut(&note.reason, LONGEST_WORD)),
        regarding: Some(note.regarding.clone()),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some(note.type_.as_str().to_owned()),
        ..Event::default()
    }
}

/// `<object>.<reason>.<hash>`: readable, the same for the same note, a DNS name of at most 253.
fn name(note: &Note) -> String {
    let mut hash = Sha256::new();
    let of = &note.regarding;
    for part in [&of.uid, &of.resource_version, &of.field_path] {
        hash.update(part.as_deref().unwrap_or_default());
        hash.update([0]);
    }
    for part in [note.type_.as_str(), &note.reason, &note.action, &note.note] {
        hash.update(part);
        hash.update([0]);
    }
    let hash: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let word = |text: &str| -> String {
        text.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).take(40).collect()
    };
    let object = cut(of.name.as_deref().unwrap_or("object"), 190);
    let object = object.trim_end_matches(['-', '.']);
    match word(&note.reason).as_str() {
        "" => format!("{object}.{hash}"),
        reason => format!("{object}.{reason}.{hash}"),
    }
}

/// The text, cut to `longest` bytes with a mark where something is missing.
fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let mut end = longest.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let (kept, _) = text.split_at(end);
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use http::{Request, Response, StatusCode};
    use http_body_util::{BodyExt as _, Full};
    use kube::client::{Body, ClientBuilder};
    use tower::BoxError;

    use super::*;

    fn note(text: &str) -> Note {
        Note {
            regarding: ObjectReference {
                api_version: Some("canaryrelease.dev/v1alpha1".into()),
                kind: Some("CanaryRelease".into()),
                name: Some("orders".into()),
                namespace: Some("shop".into()),
                uid: Some("u-1".into()),
                resource_version: Some("7".into()),
                field_path: None,
            },
            type_: EventType::Warning,
            reason: "GateBreached".into(),
            action: "Reverting".into(),
            note: text.into(),
        }
    }

    #[test]
    fn the_same_note_has_the_same_name_and_a_later_one_another() {
        let first = note("errors 7 % over 1 %");
        assert_eq!(name(&first), name(&first.clone()));
        assert!(name(&first).starts_with("orders.gatebreached."), "{}", name(&first));
        assert_ne!(name(&first), name(&note("errors 8 % over 1 %")));
        let mut later = first.clone();
        later.regarding.resource_version = Some("8".into());
        assert_ne!(name(&first), name(&later));
    }

    #[test]
    fn names_and_notes_fit_whatever_comes_in() {
        let mut long = note(&"ß".repeat(2000));
        long.regarding.name = Some("a".repeat(253));
        long.reason = "Ü".repeat(300);
        let event = build(&long, Timestamp::UNIX_EPOCH, "ns/pod");
        assert!(event.metadata.name.unwrap().len() <= 253);
        assert!(event.note.as_ref().unwrap().len() <= 1024);
        assert!(event.note.unwrap().ends_with('…'));
        assert!(event.reason.unwrap().len() <= 128);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_events_harm_nothing_and_none_is_merged() {
        let seen: Arc<Mutex<Vec<serde_json::Value>>> = Arc::default();
        let answers = seen.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let seen = answers.clone();
            async move {
                assert_eq!(request.uri().path(), "/apis/events.k8s.io/v1/namespaces/shop/events");
                let bytes = request.into_body().collect().await?.to_bytes();
                seen.lock().unwrap().push(serde_json::from_slice(&bytes)?);
                let refusal = r#"{"kind":"Status","status":"Failure","reason":"Forbidden","message":"being terminated","code":403}"#;
                let mut response = Response::new(Full::new(Bytes::from_static(refusal.as_bytes())));
                *response.status_mut() = StatusCode::FORBIDDEN;
                Ok::<_, BoxError>(response)
            }
        });
        let client = ClientBuilder::new(service, "default").build();
        let metrics = Metrics::new();
        let (sink, writer) = channel(client, metrics.clone(), "canaryrelease-system/pod-1");
        for weight in [5, 25, 50] {
            sink.publish(&note(&format!("weight {weight} %")));
        }
        drop(sink);
        writer.run(CancellationToken::new()).await;
        let notes: Vec<String> =
            seen.lock().unwrap().iter().map(|event| event["note"].as_str().unwrap().to_owned()).collect();
        assert_eq!(notes, ["weight 5 %", "weight 25 %", "weight 50 %"]);
        assert!(metrics.encode().unwrap().contains("canaryrelease_events_total{result=\"refused\"} 3"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_api_server_never_blocks_the_tick_that_publishes() {
        let service =
            tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Full<Bytes>>, BoxError>>());
        let metrics = Metrics::new();
        let (sink, writer) = channel(ClientBuilder::new(service, "default").build(), metrics.clone(), "a");
        for number in 0..1000 {
            sink.publish(&note(&number.to_string()));
        }
        assert!(metrics.encode().unwrap().contains("canaryrelease_events_total{result=\"dropped\"} 744"));
        let start = Instant::now();
        let stop = CancellationToken::new();
        stop.cancel();
        writer.run(stop).await;
        assert_eq!(start.elapsed(), LAST_WRITES);
    }
}
