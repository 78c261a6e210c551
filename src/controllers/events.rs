//! Records Kubernetes Events, counting repetitions instead of repeating them.

use super::informer::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Client, Resource,
    api::{Api, Patch, PatchParams, PostParams},
};
use std::{collections::HashMap, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Events waiting to be written; more are dropped, as they only inform.
const WAITING: usize = 4096;
/// Objects and messages remembered for counting.
const REMEMBERED: usize = 4096;
/// Different messages of one reason about one object before they are combined.
const SIMILAR: usize = 10;
/// How long similar messages count together.
const SIMILAR_FOR: Duration = Duration::from_secs(600);
/// Events about one object at once.
const BURST: f64 = 25.0;
/// Events about one object a second after the burst.
const REFILL: f64 = 1.0 / 300.0;
/// How long one write may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Importance of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Something a person should look at.
    Warning,
}

impl EventKind {
    fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

struct Occurrence {
    source: &'static str,
    object: ObjectReference,
    kind: EventKind,
    reason: &'static str,
    message: String,
}

/// Handle to record events; clones write to the same place.
#[derive(Clone)]
pub struct EventRecorder(mpsc::Sender<Occurrence>);

/// The writing end, run by the component.
pub struct EventWriter {
    client: Client,
    inbox: mpsc::Receiver<Occurrence>,
    correlator: Correlator,
}

/// A recorder and its writer.
pub fn recorder(client: Client) -> (EventRecorder, EventWriter) {
    let (sender, inbox) = mpsc::channel(WAITING);
    (EventRecorder(sender), EventWriter { client, inbox, correlator: Correlator::default() })
}

/// The reference of an object for its events.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl EventRecorder {
    /// Records that something happened to `object`; never waits.
    pub fn record(
        &self,
        source: &'static str,
        object: ObjectReference,
        kind: EventKind,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let occurrence = Occurrence { source, object, kind, reason, message: message.into() };
        if let Err(error) = self.0.try_send(occurrence) {
            tracing::debug!(%error, reason, "event dropped");
        }
    }
}

impl EventWriter {
    /// Writes events until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let occurrence = tokio::select! {
                () = shutdown.cancelled() => return,
                occurrence = self.inbox.recv() => occurrence,
            };
            let Some(occurrence) = occurrence else { return };
            let Some(verdict) = self.correlator.take(&occurrence, Instant::now()) else { continue };
            let written = tokio::time::timeout(WRITE_DEADLINE, write(&self.client, &occurrence, &verdict)).await;
            match written {
                Ok(Ok(key)) => self.correlator.written(verdict.identity, key),
                Ok(Err(error)) => {
                    // An event whose namespace ends cannot be written: that is no one's problem.
                    tracing::debug!(%error, reason = occurrence.reason, "event not written");
                    self.correlator.forget(&verdict.identity);
                }
                Err(_) => tracing::debug!(reason = occurrence.reason, "event not written in time"),
            }
        }
    }
}

async fn write(client: &Client, occurrence: &Occurrence, verdict: &Verdict) -> Result<ObjectKey, kube::Error> {
    let namespace = occurrence.object.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let now = Timestamp::now();
    if let Some(key) = &verdict.existing {
        let patch = serde_json::json!({
            "count": verdict.count, "lastTimestamp": Time(now), "message": verdict.message,
        });
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(key.clone()),
            // The event has expired: write it anew.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let object_name = occurrence.object.name.as_deref().unwrap_or_default();
    let name = format!("{object_name}.{:016x}", now.as_nanosecond() as u64);
    let event = Event {
        metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace.clone()), ..ObjectMeta::default() },
        involved_object: occurrence.object.clone(),
        reason: Some(occurrence.reason.to_owned()),
        message: Some(verdict.message.clone()),
        source: Some(EventSource { component: Some(occurrence.source.to_owned()), host: None }),
        reporting_component: Some(occurrence.source.to_owned()),
        reporting_instance: Some(String::new()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(verdict.count),
        type_: Some(occurrence.kind.name().to_owned()),
        ..Event::default()
    };
    api.create(&PostParams::default(), &event).await?;
    Ok(ObjectKey::new(namespace, name))
}

/// What makes two events the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    source: &'static str,
    uid: String,
    name: String,
    kind: EventKind,
    reason: &'static str,
    message: String,
}

struct Verdict {
    identity: Identity,
    message: String,
    count: i32,
    existing: Option<ObjectKey>,
}

/// Decides what becomes of an occurrence: a new event, a count on one there is, or nothing.
#[derive(Default)]
struct Correlator {
    seen: HashMap<Identity, (i32, Option<ObjectKey>)>,
    /// Different messages lately, by everything but the message.
    similar: HashMap<Identity, (Instant, Vec<String>)>,
    tokens: HashMap<(&'static str, String), (Instant, f64)>,
}

impl Correlator {
    fn take(&mut self, occurrence: &Occurrence, now: Instant) -> Option<Verdict> {
        self.bound();
        let uid = occurrence.object.uid.clone().unwrap_or_default();
        if !self.allowed((occurrence.source, uid.clone()), now) {
            return None;
        }
        let mut identity = Identity {
            source: occurrence.source,
            uid,
            name: occurrence.object.name.clone().unwrap_or_default(),
            kind: occurrence.kind,
            reason: occurrence.reason,
            message: String::new(),
        };
        let message = if self.too_many_similar(&identity, &occurrence.message, now) {
            // Keyed without the message, so that all of them count on one event.
            format!("(combined from similar events): {}", occurrence.message)
        } else {
            identity.message.clone_from(&occurrence.message);
            occurrence.message.clone()
        };
        let entry = self.seen.entry(identity.clone()).or_insert((0, None));
        entry.0 += 1;
        Some(Verdict { identity, message, count: entry.0, existing: entry.1.clone() })
    }

    fn written(&mut self, identity: Identity, key: ObjectKey) {
        if let Some(entry) = self.seen.get_mut(&identity) {
            entry.1 = Some(key);
        }
    }

    fn forget(&mut self, identity: &Identity) {
        self.seen.remove(identity);
    }

    fn too_many_similar(&mut self, group: &Identity, message: &str, now: Instant) -> bool {
        let entry = self.similar.entry(group.clone()).or_insert((now, Vec::new()));
        if now.duration_since(entry.0) > SIMILAR_FOR {
            entry.1.clear();
        }
        entry.0 = now;
        if entry.1.iter().any(|m| m == message) {
            return false;
        }
        if entry.1.len() >= SIMILAR {
            return true;
        }
        entry.1.push(message.to_owned());
        false
    }

    fn allowed(&mut self, who: (&'static str, String), now: Instant) -> bool {
        let (at, tokens) = self.tokens.entry(who).or_insert((now, BURST));
        *tokens = (*tokens + now.duration_since(*at).as_secs_f64() * REFILL).min(BURST);
        *at = now;
        let allowed = *tokens >= 1.0;
        if allowed {
            *tokens -= 1.0;
        }
        allowed
    }

    /// Keeps memory bounded: forgetting only means that a repetition becomes a new event.
    fn bound(&mut self) {
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        if self.similar.len() >= REMEMBERED {
            self.similar.clear();
        }
        if self.tokens.len() >= REMEMBERED {
            self.tokens.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(uid: &str, message: &str) -> Occurrence {
        let object = ObjectReference { uid: Some(uid.into()), name: Some("web".into()), ..ObjectReference::default() };
        Occurrence { source: "test", object, kind: EventKind::Normal, reason: "Reason", message: message.into() }
    }

    #[test]
    fn repetitions_count_on_the_same_event() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let first = correlator.take(&occurrence("u", "same"), now).unwrap();
        assert_eq!((first.count, first.existing.is_some()), (1, false));
        correlator.written(first.identity, ObjectKey::new("default", "web.1"));
        let second = correlator.take(&occurrence("u", "same"), now).unwrap();
        assert_eq!((second.count, second.existing.unwrap().name.as_ref()), (2, "web.1"));
    }

    #[test]
    fn the_eleventh_different_message_is_combined() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let messages: Vec<_> =
            (0..12).map(|i| correlator.take(&occurrence("u", &format!("pod {i}")), now).unwrap()).collect();
        assert_eq!(messages[9].message, "pod 9");
        assert_eq!(messages[10].message, "(combined from similar events): pod 10");
        assert_eq!((messages[10].count, messages[11].count), (1, 2));
    }

    #[test]
    fn a_noisy_object_is_silenced_and_others_are_not() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let taken = (0..40).filter(|_| correlator.take(&occurrence("noisy", "x"), now).is_some()).count();
        assert_eq!(taken, 25);
        assert!(correlator.take(&occurrence("other", "x"), now).is_some());
        assert!(correlator.take(&occurrence("noisy", "x"), now + Duration::from_secs(301)).is_some());
    }
}
