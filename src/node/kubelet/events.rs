//! Events about pods and the node, counted up instead of repeated (core/v1).

use k8s_openapi::{
    api::core::v1::{Event, EventSource, Node, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events waiting to be written; beyond that the newest are dropped, as client-go does.
const QUEUE: usize = 1024;
/// Distinct events remembered for counting.
const REMEMBERED: usize = 4096;

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Normal,
    Warning,
}

struct Record {
    object: ObjectReference,
    kind: Kind,
    reason: &'static str,
    message: String,
    at: jiff::Timestamp,
}

/// Takes events; never waits.
#[derive(Clone)]
pub(super) struct EventSink {
    queue: mpsc::Sender<Record>,
}

/// Writes the events of a sink.
pub(super) struct EventWriter {
    queue: mpsc::Receiver<Record>,
    client: Client,
    node: String,
    seen: HashMap<(String, String, &'static str, String), Seen>,
}

struct Seen {
    name: String,
    count: i32,
}

/// A sink and its writer.
pub(super) fn events(client: Client, node: &str) -> (EventSink, EventWriter) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let writer = EventWriter { queue: receiver, client, node: node.to_owned(), seen: HashMap::new() };
    (EventSink { queue: sender }, writer)
}

impl EventSink {
    /// An event about a pod, or about one of its containers (`spec.containers{NAME}`).
    pub fn pod(&self, pod: &Pod, container: Option<String>, kind: Kind, reason: &'static str, message: String) {
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: pod.namespace(),
            name: Some(pod.name_any()),
            uid: pod.uid(),
            resource_version: pod.resource_version(),
            field_path: container,
        };
        self.send(object, kind, reason, message);
    }

    /// An event about the node.
    pub fn node(&self, node: &str, kind: Kind, reason: &'static str, message: String) {
        let object = ObjectReference {
            kind: Some(<Node as k8s_openapi::Resource>::KIND.into()),
            name: Some(node.to_owned()),
            // The real kubelet puts the node's name here; kubectl describe node relies on it.
            uid: Some(node.to_owned()),
            ..Default::default()
        };
        self.send(object, kind, reason, message);
    }

    fn send(&self, object: ObjectReference, kind: Kind, reason: &'static str, message: String) {
        let record = Record { object, kind, reason, message, at: jiff::Timestamp::now() };
        if self.queue.try_send(record).is_err() {
            tracing::debug!(reason, "event queue full");
        }
    }
}

impl EventWriter {
    /// Writes events until told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let record = tokio::select! {
                () = shutdown.cancelled() => return,
                record = self.queue.recv() => match record {
                    Some(record) => record,
                    None => return,
                },
            };
            let reason = record.reason;
            if let Err(error) = self.write(record).await {
                tracing::debug!(%error, reason, "event not written");
            }
        }
    }

    async fn write(&mut self, record: Record) -> Result<(), kube::Error> {
        let namespace = record.object.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let subject = format!(
            "{}/{}",
            record.object.uid.as_deref().unwrap_or_default(),
            record.object.field_path.as_deref().unwrap_or_default()
        );
        let key = (namespace.clone(), subject, record.reason, record.message.clone());
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.count += 1;
            let patch = serde_json::json!({ "count": seen.count, "lastTimestamp": Time(record.at) });
            match api.patch(&seen.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => return Ok(()),
                // It expired: write it anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let event = self.event(&namespace, record);
        let name = event.name_any();
        api.create(&PostParams::default(), &event).await?;
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        self.seen.insert(key, Seen { name, count: 1 });
        Ok(())
    }

    fn event(&self, namespace: &str, record: Record) -> Event {
        let subject = record.object.name.clone().unwrap_or_default();
        let nanos = u64::try_from(record.at.as_nanosecond()).unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{subject}.{nanos:x}")),
                namespace: Some(namespace.to_owned()),
                ..Default::default()
            },
            involved_object: record.object,
            reason: Some(record.reason.to_owned()),
            message: Some(record.message),
            type_: Some(if record.kind == Kind::Normal { "Normal" } else { "Warning" }.to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(record.at)),
            last_timestamp: Some(Time(record.at)),
            source: Some(EventSource { component: Some("kubelet".into()), host: Some(self.node.clone()) }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.node.clone()),
            ..Default::default()
        }
    }
}
