//! Garbage collection by owner references: background, foreground, orphan.
//!
//! Every kind that can be listed, watched and deleted is watched, metadata only. The graph says
//! what to look at; before anything is deleted the object and its owners are asked for at the
//! server.

pub mod graph;

use super::{
    Context,
    error::ControllerError,
    informer::ObjectKey,
    queue::{Requeue, WorkQueue},
};
use futures::StreamExt;
use graph::{FOREGROUND, Graph, GroupKind, Node, ORPHAN, Task};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{
    api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::{ApiResource, PartialObjectMeta},
    discovery::{Discovery, Scope, verbs},
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Groups whose objects nobody owns and that come and go too often to be watched for it.
const NOT_WATCHED: [&str; 1] = ["events"];
/// After a failed discovery.
const DISCOVER_AGAIN: Duration = Duration::from_secs(1);
/// Objects looked at at a time.
const WORKERS: usize = 16;

/// A kind that is collected.
#[derive(Clone, Debug)]
struct Monitored {
    resource: ApiResource,
    namespaced: bool,
}

/// What watches and workers share.
struct Collector {
    context: Arc<Context>,
    graph: Mutex<Graph>,
    kinds: Mutex<HashMap<GroupKind, Monitored>>,
    queue: WorkQueue<Task>,
    /// A kind may have come or gone.
    rediscover: Notify,
}

/// Collects until `shutdown`.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let collector = Arc::new(Collector {
        context,
        graph: Mutex::default(),
        kinds: Mutex::default(),
        queue: WorkQueue::default(),
        rediscover: Notify::new(),
    });
    let mut watches = JoinSet::new();
    let (synced, mut all_synced) = tokio::sync::watch::channel(0_usize);
    let expected = loop {
        match collector.discover(&mut watches, &synced, &shutdown).await {
            Ok(count) => break count,
            Err(error) => tracing::debug!(%error, "garbage collector: discovery failed, tried again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(DISCOVER_AGAIN) => {}
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => return,
        // Nothing is deleted before every kind is known.
        _ = all_synced.wait_for(|n| *n >= expected) => {}
    }
    let reconcile = |task| {
        let collector = collector.clone();
        async move { collector.work(task).await }
    };
    let work = collector.queue.clone().run("garbage-collector", WORKERS, shutdown.clone(), reconcile);
    let discovery = async {
        loop {
            collector.rediscover.notified().await;
            // A new kind is served a moment after its definition is written.
            tokio::time::sleep(DISCOVER_AGAIN).await;
            if let Err(error) = collector.discover(&mut watches, &synced, &shutdown).await {
                tracing::debug!(%error, "garbage collector: discovery failed");
                collector.rediscover.notify_one();
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = discovery => {}
    }
    watches.shutdown().await;
}

fn forget(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    meta.annotations = None;
    meta.labels = None;
}

impl Collector {
    /// Starts watching the kinds not watched yet; how many are watched.
    async fn discover(
        self: &Arc<Self>,
        watches: &mut JoinSet<()>,
        synced: &tokio::sync::watch::Sender<usize>,
        shutdown: &CancellationToken,
    ) -> Result<usize, ControllerError> {
        let discovery = Discovery::new(self.context.client.clone()).run().await;
        let discovery = discovery.map_err(ControllerError::api("discover resources"))?;
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                let needed = [verbs::LIST, verbs::WATCH, verbs::DELETE];
                let usable = needed.iter().all(|verb| capabilities.supports_operation(verb));
                let kind: GroupKind = (resource.group.as_str().into(), resource.kind.as_str().into());
                if !usable || NOT_WATCHED.contains(&resource.plural.as_str()) {
                    continue;
                }
                let namespaced = capabilities.scope == Scope::Namespaced;
                let monitored = Monitored { resource: resource.clone(), namespaced };
                if self.kinds.lock().insert(kind.clone(), monitored).is_none() {
                    watches.spawn(self.clone().watch(kind, resource, synced.clone(), shutdown.clone()));
                }
            }
        }
        Ok(self.kinds.lock().len())
    }

    async fn watch(
        self: Arc<Self>,
        kind: GroupKind,
        resource: ApiResource,
        synced: tokio::sync::watch::Sender<usize>,
        shutdown: CancellationToken,
    ) {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.context.client.clone(), &resource);
        let stream = watcher(api, watcher::Config::default()).default_backoff();
        futures::pin_mut!(stream);
        let (mut listed, mut first) = (HashSet::new(), true);
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                Some(Ok(event)) => {
                    let done = matches!(event, watcher::Event::InitDone);
                    self.take(&kind, event, &mut listed);
                    if done && std::mem::take(&mut first) {
                        synced.send_modify(|n| *n += 1);
                    }
                }
                Some(Err(error)) => tracing::debug!(kind = %resource.kind, %error, "watch failed, tried again"),
                None => return,
            }
        }
    }

    fn take(
        &self,
        kind: &GroupKind,
        event: watcher::Event<PartialObjectMeta<DynamicObject>>,
        listed: &mut HashSet<String>,
    ) {
        let tasks = match event {
            watcher::Event::Init => {
                listed.clear();
                Vec::new()
            }
            watcher::Event::InitApply(mut object) => {
                listed.extend(object.metadata.uid.clone());
                forget(&mut object.metadata);
                self.graph.lock().apply(kind, &object.metadata)
            }
            watcher::Event::InitDone => {
                let mut graph = self.graph.lock();
                let gone: Vec<String> = graph.of_kind(kind).into_iter().filter(|u| !listed.contains(u)).collect();
                listed.clear();
                gone.iter().flat_map(|uid| graph.remove(uid)).collect()
            }
            watcher::Event::Apply(mut object) => {
                self.notice_definition(kind);
                self.context.content_changed(object.metadata.namespace.as_deref().unwrap_or_default());
                forget(&mut object.metadata);
                self.graph.lock().apply(kind, &object.metadata)
            }
            watcher::Event::Delete(object) => {
                self.notice_definition(kind);
                self.context.content_changed(object.metadata.namespace.as_deref().unwrap_or_default());
                self.context.content_removed(object.metadata.namespace.as_deref().unwrap_or_default());
                self.graph.lock().remove(object.metadata.uid.as_deref().unwrap_or_default())
            }
        };
        tasks.into_iter().for_each(|task| self.queue.add(task));
    }

    fn notice_definition(&self, kind: &GroupKind) {
        if &*kind.1 == "CustomResourceDefinition" || &*kind.1 == "APIService" {
            self.rediscover.notify_one();
        }
    }

    async fn work(&self, task: Task) -> Result<Requeue, ControllerError> {
        match task {
            Task::Delete(uid) => self.attempt_delete(&uid).await,
            Task::Orphan(uid) => self.attempt_orphan(&uid).await,
        }
    }

    fn api(&self, kind: &GroupKind, namespace: &str) -> Result<Api<DynamicObject>, ControllerError> {
        let monitored = self.kinds.lock().get(kind).cloned();
        let Some(Monitored { resource, namespaced }) = monitored else {
            self.rediscover.notify_one();
            return Err(ControllerError::NotYet(format!("kind {} of group {:?} is not served", kind.1, kind.0)));
        };
        let client = self.context.client.clone();
        Ok(match namespaced {
            true => Api::namespaced_with(client, namespace, &resource),
            false => Api::all_with(client, &resource),
        })
    }

    async fn live(&self, kind: &GroupKind, namespace: &str, name: &str) -> Result<Option<ObjectMeta>, ControllerError> {
        let found = self.api(kind, namespace)?.get_metadata_opt(name).await;
        let found = found.map_err(ControllerError::api(format!("get {} {namespace}/{name}", kind.1)))?;
        Ok(found.map(|f| f.metadata))
    }

    /// Deletes an object if all its owners are gone (or wait for it), or moves its own foreground
    /// deletion on.
    async fn attempt_delete(&self, uid: &str) -> Result<Requeue, ControllerError> {
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(None) };
        if node.deleting && !node.foreground {
            return Ok(None);
        }
        let live = match self.live(&node.kind, &node.namespace, &node.name).await? {
            Some(live) if live.uid.as_deref() == Some(uid) => live,
            _ => {
                // It never was, or is gone and its event is on the way.
                let tasks = self.graph.lock().remove(uid);
                tasks.into_iter().for_each(|task| self.queue.add(task));
                return Ok(None);
            }
        };
        if node.foreground {
            return self.advance_foreground(uid, &node, &live).await;
        }
        let owners = live.owner_references.clone().unwrap_or_default();
        if owners.is_empty() {
            return Ok(None);
        }
        let mut standing = Standing::default();
        for owner in owners {
            let state = self.owner_state(&owner, &node.namespace).await?;
            match state {
                OwnerState::Solid => standing.solid.push(owner),
                OwnerState::Gone => standing.gone.push(owner),
                OwnerState::Waiting => standing.waiting.push(owner),
            }
        }
        self.settle(uid, &node, &live, standing).await
    }

    async fn owner_state(&self, owner: &OwnerReference, namespace: &str) -> Result<OwnerState, ControllerError> {
        if self.graph.lock().is_absent(&owner.uid) {
            return Ok(OwnerState::Gone);
        }
        let kind: GroupKind = (graph::group(&owner.api_version).into(), owner.kind.as_str().into());
        match self.live(&kind, namespace, &owner.name).await? {
            Some(live) if live.uid.as_ref() == Some(&owner.uid) => {
                let foreground = live.finalizers.iter().flatten().any(|f| f == FOREGROUND);
                let waiting = live.deletion_timestamp.is_some() && foreground;
                Ok(if waiting { OwnerState::Waiting } else { OwnerState::Solid })
            }
            _ => {
                self.graph.lock().set_absent(&owner.uid);
                Ok(OwnerState::Gone)
            }
        }
    }

    async fn settle(
        &self,
        uid: &str,
        node: &Node,
        live: &ObjectMeta,
        standing: Standing,
    ) -> Result<Requeue, ControllerError> {
        if !standing.solid.is_empty() {
            if standing.gone.is_empty() && standing.waiting.is_empty() {
                return Ok(None);
            }
            return self.set_owners(node, live, standing.solid).await;
        }
        let has = |finalizer: &str| live.finalizers.iter().flatten().any(|f| f == finalizer);
        let dependents = self.graph.lock().dependents(uid);
        let policy = if !standing.waiting.is_empty() && !dependents.is_empty() {
            // The owner waits; so do we for ours. In a circle someone has to go first.
            for (dependent, _) in dependents.iter().filter(|(_, d)| d.foreground) {
                self.unblock(dependent, uid).await?;
            }
            PropagationPolicy::Foreground
        } else if has(ORPHAN) {
            PropagationPolicy::Orphan
        } else if has(FOREGROUND) {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: live.uid.clone(),
                resource_version: live.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let doing = format!("delete {} {}/{}", node.kind.1, node.namespace, node.name);
        let result = self.api(&node.kind, &node.namespace)?.delete(&node.name, &params).await;
        ignore_gone(result.map_err(ControllerError::api(doing)))
    }

    /// Takes blocking away from a dependent that is deleted in the foreground itself.
    async fn unblock(&self, dependent: &str, owner: &str) -> Result<(), ControllerError> {
        let Some(node) = self.graph.lock().get(dependent).cloned() else { return Ok(()) };
        let Some(live) = self.live(&node.kind, &node.namespace, &node.name).await? else { return Ok(()) };
        let mut owners = live.owner_references.clone().unwrap_or_default();
        for reference in owners.iter_mut().filter(|o| o.uid == owner) {
            reference.block_owner_deletion = Some(false);
        }
        self.set_owners(&node, &live, owners).await.map(|_| ())
    }

    async fn advance_foreground(&self, uid: &str, node: &Node, live: &ObjectMeta) -> Result<Requeue, ControllerError> {
        let blocks = |d: &Node| d.owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true));
        let blocking: Vec<_> =
            self.graph.lock().dependents(uid).into_iter().filter(|(_, d)| !d.is_virtual && blocks(d)).collect();
        if blocking.is_empty() {
            return self.remove_finalizer(node, live, FOREGROUND).await;
        }
        for (dependent, _) in blocking.into_iter().filter(|(_, d)| !d.foreground && !d.deleting) {
            self.queue.add(Task::Delete(dependent));
        }
        Ok(None)
    }

    async fn attempt_orphan(&self, uid: &str) -> Result<Requeue, ControllerError> {
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(None) };
        let dependents = self.graph.lock().dependents(uid);
        for (_, dependent) in dependents {
            let Some(live) = self.live(&dependent.kind, &dependent.namespace, &dependent.name).await? else { continue };
            let owners = live.owner_references.clone().unwrap_or_default();
            let kept: Vec<_> = owners.iter().filter(|o| o.uid != uid).cloned().collect();
            if kept.len() != owners.len() {
                self.set_owners(&dependent, &live, kept).await?;
            }
        }
        match self.live(&node.kind, &node.namespace, &node.name).await? {
            Some(live) if live.uid.as_deref() == Some(uid) => self.remove_finalizer(&node, &live, ORPHAN).await,
            _ => Ok(None),
        }
    }

    async fn set_owners(
        &self,
        node: &Node,
        live: &ObjectMeta,
        owners: Vec<OwnerReference>,
    ) -> Result<Requeue, ControllerError> {
        let owners = if owners.is_empty() { json!(null) } else { json!(owners) };
        self.patch_metadata(node, live, json!({"ownerReferences": owners})).await
    }

    async fn remove_finalizer(
        &self,
        node: &Node,
        live: &ObjectMeta,
        finalizer: &str,
    ) -> Result<Requeue, ControllerError> {
        let kept: Vec<&String> = live.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
        let kept = if kept.is_empty() { json!(null) } else { json!(kept) };
        self.patch_metadata(node, live, json!({"finalizers": kept})).await
    }

    async fn patch_metadata(
        &self,
        node: &Node,
        live: &ObjectMeta,
        mut metadata: serde_json::Value,
    ) -> Result<Requeue, ControllerError> {
        metadata["uid"] = json!(live.uid);
        metadata["resourceVersion"] = json!(live.resource_version);
        let doing = format!("patch {} {}/{}", node.kind.1, node.namespace, node.name);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let result = self.api(&node.kind, &node.namespace)?.patch(&node.name, &PatchParams::default(), &patch).await;
        ignore_gone(result.map_err(ControllerError::api(doing)))
    }
}

fn ignore_gone<T>(result: Result<T, ControllerError>) -> Result<Requeue, ControllerError> {
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(None),
    }
}

enum OwnerState {
    /// It exists.
    Solid,
    /// It does not.
    Gone,
    /// It is being deleted and waits for its dependents.
    Waiting,
}

#[derive(Default)]
struct Standing {
    solid: Vec<OwnerReference>,
    gone: Vec<OwnerReference>,
    waiting: Vec<OwnerReference>,
}

impl Context {
    /// Something in a namespace is gone: one that is being deleted may now be empty.
    pub(super) fn content_removed(&self, namespace: &str) {
        let key = ObjectKey::new("", namespace);
        if self.namespaces.get(&key).is_some_and(|n| n.metadata.deletion_timestamp.is_some()) {
            self.ending.add(key);
        }
    }
}
