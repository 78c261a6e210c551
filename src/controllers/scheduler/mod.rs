//! Scheduler: gives each waiting pod a node.
//!
//! One loop owns a compact cache of nodes and pods, fed by the shared watches. A decision is made
//! on the cache alone; the pod counts as placed at once, while the binding is on its way to the API
//! server. Preemption of pods of lower priority is not done.

mod cache;
mod decide;
pub mod filter;
mod queue;
mod score;
pub mod shape;
mod volumes;

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
    pod::Pod,
    queue::WorkQueue,
};
use cache::Cache;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Binding, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Resource, api::PostParams, core::Request};
use queue::{SchedulingQueue, WaitsFor};
use serde_json::json;
use shape::Shape;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Name of this scheduler in `spec.schedulerName`.
pub const NAME: &str = "default-scheduler";
/// Bindings and status writes on their way at a time.
const WRITES: usize = 64;
/// Decisions between two looks at what changed.
const BATCH: usize = 64;
/// How long a binding may take.
const BIND_DEADLINE: Duration = Duration::from_secs(30);
/// Sleeping pods are tried again after this time though nothing happened.
const FLUSH_EVERY: Duration = Duration::from_secs(300);

/// Something to look at again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Changed {
    /// A node, by name.
    Node(Arc<str>),
    /// A pod.
    Pod(ObjectKey),
    /// A namespace, by name.
    Namespace(Arc<str>),
    /// A claim, a volume or a class.
    Storage,
}

/// Queue of what changed, fed by nodes, pods, namespaces and storage.
pub fn register(context: &Arc<Context>) -> WorkQueue<Changed> {
    let queue = WorkQueue::default();
    let nodes = queue.clone();
    context.nodes.on_change(move |old, new| {
        if let Some(node) = new.or(old) {
            nodes.add(Changed::Node(ObjectKey::of(node.as_ref()).name));
        }
    });
    let namespaces = queue.clone();
    context.namespaces.on_change(move |old, new| {
        if let Some(namespace) = new.or(old) {
            namespaces.add(Changed::Namespace(ObjectKey::of(namespace.as_ref()).name));
        }
    });
    let (claims, volumes, classes) = (queue.clone(), queue.clone(), queue.clone());
    context.claims.on_change(move |_, _| claims.add(Changed::Storage));
    context.volumes.on_change(move |_, _| volumes.add(Changed::Storage));
    context.storage_classes.on_change(move |_, _| classes.add(Changed::Storage));
    let pods = queue.clone();
    context.pods.on_change(move |old, new| {
        if let (Some(old), Some(new)) = (old, new)
            && same_to_scheduler(old, new)
        {
            return;
        }
        if let Some(pod) = new.or(old) {
            pods.add(Changed::Pod(ObjectKey::of(pod.as_ref())));
        }
    });
    queue
}

/// Whether a change of a pod is of no concern here, such as our own note that it waits.
fn same_to_scheduler(old: &Pod, new: &Pod) -> bool {
    let facts = |p: &Pod| (p.node().map(str::to_owned), p.is_finished(), p.is_terminating(), p.uid().to_owned());
    facts(old) == facts(new)
        && old.metadata.labels == new.metadata.labels
        && old.spec.tolerations == new.spec.tolerations
        && old.spec.scheduling_gates.len() == new.spec.scheduling_gates.len()
        && old.spec.affinity == new.spec.affinity
        && old.spec.node_selector == new.spec.node_selector
        && old.requests() == new.requests()
}

/// How a write ended.
enum Written {
    Bound,
    NotBound { key: ObjectKey, uid: String, error: ControllerError },
    NotChosen { key: ObjectKey, uid: String, error: ControllerError },
    Noted,
}

struct Scheduler {
    context: Arc<Context>,
    cache: Cache,
    waiting: SchedulingQueue,
    uids: HashMap<ObjectKey, String>,
    /// Pods placed in the cache whose binding is not yet seen.
    assumed: HashSet<String>,
    start: usize,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
}

/// Schedules until `shutdown`.
pub async fn run(context: Arc<Context>, changed: WorkQueue<Changed>, shutdown: CancellationToken) {
    let mut scheduler = Scheduler {
        context,
        cache: Cache::default(),
        waiting: SchedulingQueue::default(),
        uids: HashMap::new(),
        assumed: HashSet::new(),
        start: 0,
        writes: FuturesUnordered::new(),
    };
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    loop {
        for change in changed.drain() {
            scheduler.take(change);
        }
        for _ in 0..BATCH {
            if scheduler.writes.len() >= WRITES {
                break;
            }
            let Some(key) = scheduler.waiting.pop(Instant::now()) else { break };
            scheduler.schedule(key);
        }
        let due = scheduler.waiting.next_due();
        let more = scheduler.waiting.has_active() && scheduler.writes.len() < WRITES;
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(written) = scheduler.writes.next(), if !scheduler.writes.is_empty() => scheduler.written(written),
            () = changed.wait() => {}
            _ = flush.tick() => scheduler.waiting.wake_all(Instant::now()),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            () = tokio::task::yield_now(), if more => {}
        }
    }
}

impl Scheduler {
    fn take(&mut self, change: Changed) {
        match change {
            Changed::Node(name) => {
                let node = self.context.nodes.get(&ObjectKey::new("", name.clone()));
                if self.cache.set_node(&name, node.as_deref()) {
                    self.waiting.wake_all(Instant::now());
                }
            }
            Changed::Namespace(name) => {
                let namespace = self.context.namespaces.get(&ObjectKey::new("", name.clone()));
                let labels = namespace.map(|n| n.metadata.labels.clone().unwrap_or_default());
                self.cache.set_namespace(&name, labels);
            }
            Changed::Storage => self.waiting.wake_claims(Instant::now()),
            Changed::Pod(key) => self.take_pod(key),
        }
    }

    fn take_pod(&mut self, key: ObjectKey) {
        let now = Instant::now();
        let pod = self.context.pods.get(&key);
        let uid = pod.as_ref().map(|p| p.uid().to_owned());
        if let Some(before) = self.uids.get(&key).filter(|b| Some(*b) != uid.as_ref()).cloned() {
            self.uids.remove(&key);
            self.waiting.remove(&key);
            self.release(&before, now);
        }
        let (Some(pod), Some(uid)) = (pod, uid) else { return };
        self.uids.insert(key.clone(), uid.clone());
        match pod.node() {
            _ if pod.is_finished() => {
                self.waiting.remove(&key);
                self.release(&uid, now);
            }
            Some(node) => {
                self.waiting.remove(&key);
                self.assumed.remove(&uid);
                self.cache.place(&pod, node);
                self.waiting.wake_company(now);
            }
            None if self.assumed.contains(&uid) => {}
            None if is_ours(&pod) => self.waiting.add(key, pod.spec.priority.unwrap_or(0), now),
            None => self.waiting.remove(&key),
        }
    }

    /// Takes a pod off its node; whoever waits for room may have it.
    fn release(&mut self, uid: &str, now: Instant) {
        self.assumed.remove(uid);
        if self.cache.take_back(uid) {
            self.waiting.wake_all(now);
        }
    }

    fn schedule(&mut self, key: ObjectKey) {
        let Some(pod) = self.context.pods.get(&key).filter(|p| is_ours(p) && p.node().is_none()) else {
            return self.waiting.remove(&key);
        };
        let claims = match volumes::of(&self.context, &pod) {
            Ok(claims) => claims,
            Err(why) => {
                self.waiting.sleep(&key, WaitsFor::Claims);
                let message = format!("0/{} nodes are available: {why}.", self.cache.nodes().len());
                return self.writes.push(note(self.context.clone(), key, pod, message).boxed());
            }
        };
        let mut shape = Shape::of(&pod, self.cache.namespace_labels(pod.namespace()));
        shape.claims = claims.needs;
        match decide::decide(&mut self.cache, &shape, &mut self.start) {
            Ok(node) if !claims.open.is_empty() => {
                self.waiting.sleep(&key, WaitsFor::Claims);
                self.writes.push(choose(self.context.clone(), key, pod, claims.open, node).boxed());
            }
            Ok(node) => {
                self.cache.place(&pod, &node);
                self.assumed.insert(pod.uid().to_owned());
                self.writes.push(bind(self.context.clone(), key, pod, node).boxed());
            }
            Err(unschedulable) => {
                let waits = match () {
                    () if !shape.claims.is_empty() => WaitsFor::Claims,
                    () if !(shape.affinity.is_empty() && shape.spread.is_empty()) => WaitsFor::Company,
                    () => WaitsFor::Room,
                };
                self.waiting.sleep(&key, waits);
                self.writes.push(note(self.context.clone(), key, pod, unschedulable.to_string()).boxed());
            }
        }
    }

    fn written(&mut self, written: Written) {
        if let Written::NotChosen { key, uid, error } = &written {
            tracing::debug!(pod = %key, uid, %error, "no node chosen for the claims of a pod");
            self.waiting.retry(key);
        }
        if let Written::NotBound { key, uid, error } = written {
            tracing::debug!(pod = %key, %error, "pod not bound");
            self.assumed.remove(&uid);
            self.cache.take_back(&uid);
            self.waiting.wake_all(Instant::now());
            if error.is_not_found() { self.waiting.remove(&key) } else { self.waiting.retry(&key) }
        }
    }
}

fn is_ours(pod: &Pod) -> bool {
    pod.spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME
        && pod.spec.scheduling_gates.is_empty()
        && pod.is_active()
}

async fn bind(context: Arc<Context>, key: ObjectKey, pod: Arc<Pod>, node: Arc<str>) -> Written {
    let result = tokio::time::timeout(BIND_DEADLINE, post_binding(&context, &key, &pod, &node)).await;
    match result.unwrap_or(Err(ControllerError::Deadline(BIND_DEADLINE))) {
        Ok(()) => {
            let message = format!("Successfully assigned {key} to {node}");
            context.events.record(NAME, reference(pod.as_ref()), EventKind::Normal, "Scheduled", message);
            Written::Bound
        }
        Err(error) => Written::NotBound { key, uid: pod.uid().to_owned(), error },
    }
}

/// Chooses a node for the claims of a pod; it is scheduled when they are bound.
async fn choose(context: Arc<Context>, key: ObjectKey, pod: Arc<Pod>, open: Vec<ObjectKey>, node: Arc<str>) -> Written {
    let result = tokio::time::timeout(BIND_DEADLINE, volumes::choose(&context, &open, &node)).await;
    match result.unwrap_or(Err(ControllerError::Deadline(BIND_DEADLINE))) {
        Ok(()) => Written::Noted,
        // A claim or volume that changed meanwhile: the pod is tried again.
        Err(error) => Written::NotChosen { key, uid: pod.uid().to_owned(), error },
    }
}

async fn post_binding(context: &Context, key: &ObjectKey, pod: &Pod, node: &str) -> Result<(), ControllerError> {
    let doing = format!("bind pod {key} to {node}");
    let binding = Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let body =
        serde_json::to_vec(&binding).map_err(|source| ControllerError::Encode { what: doing.clone(), source })?;
    let request = Request::new(Pod::url_path(&(), Some(&key.namespace)))
        .create_subresource("binding", &key.name, &PostParams::default(), body)
        .map_err(|error| ControllerError::api(doing.clone())(kube::Error::BuildRequest(error)))?;
    context.client.request::<serde_json::Value>(request).await.map_err(ControllerError::api(doing))?;
    Ok(())
}

/// Says on the pod, and as an event, why it waits.
async fn note(context: Arc<Context>, key: ObjectKey, pod: Arc<Pod>, message: String) -> Written {
    context.events.record(NAME, reference(pod.as_ref()), EventKind::Warning, "FailedScheduling", message.clone());
    let current = pod.condition("PodScheduled");
    let known = current.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message.as_str()));
    if !known {
        let since = current.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": since.unwrap_or(Time(Timestamp::now())),
        });
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
        let written = context.pods.patch_strategic(Some("status"), &key, patch);
        if let Ok(Err(error)) = tokio::time::timeout(BIND_DEADLINE, written).await {
            tracing::debug!(pod = %key, %error, "condition PodScheduled not written");
        }
    }
    Written::Noted
}
