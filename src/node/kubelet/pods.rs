//! Pods bound to this node: a worker for each.

use super::{
    shared::Shared,
    status,
    worker::{Desired, Worker},
};
use crate::runtime::{RuntimeEvent, SandboxStatus};
use aksim_model::pod::is_ready;
use aksim_runtime::component::Readiness;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::{
    sync::{Notify, broadcast::error::RecvError, watch},
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;

struct Handle {
    desired: watch::Sender<Desired>,
    woken: Arc<Notify>,
    task: Id,
}

struct Pods {
    shared: Arc<Shared>,
    found: HashMap<String, SandboxStatus>,
    handles: HashMap<String, Handle>,
    workers: JoinSet<()>,
    cleaning: JoinSet<()>,
    shutdown: CancellationToken,
    listing: Vec<Pod>,
}

/// Watches the node's pods and runs their workers until told to stop.
pub(super) async fn run(
    shared: Arc<Shared>,
    found: Vec<SandboxStatus>,
    readiness: Readiness,
    shutdown: CancellationToken,
) {
    let mut events = shared.runtime.events();
    let api: Api<Pod> = Api::all(shared.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", shared.node.name));
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
    let mut pods = Pods::new(shared, found, shutdown.clone());
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            event = stream.next() => match event {
                Some(Ok(event)) => {
                    let listed = matches!(event, watcher::Event::InitDone);
                    if listed {
                        pods.settle().await;
                    }
                    pods.take(event);
                    if listed {
                        readiness.ready();
                    }
                }
                Some(Err(error)) => tracing::warn!(%error, "watching pods"),
                None => break,
            },
            event = events.recv() => match event {
                Ok(event) => pods.wake(&event),
                Err(RecvError::Lagged(_)) => pods.handles.values().for_each(|h| h.woken.notify_one()),
                Err(RecvError::Closed) => break,
            },
            Some(ended) = pods.workers.join_next_with_id() => pods.ended(ended),
            Some(_) = pods.cleaning.join_next() => {}
        }
    }
    // Containers go on without us; workers only stop looking after them.
    pods.workers.shutdown().await;
    pods.cleaning.shutdown().await;
}

impl Pods {
    fn new(shared: Arc<Shared>, found: Vec<SandboxStatus>, shutdown: CancellationToken) -> Self {
        let mut newest: HashMap<String, SandboxStatus> = HashMap::new();
        let mut old = Vec::new();
        for sandbox in found {
            match newest.get(&sandbox.spec.uid) {
                Some(known) if known.spec.attempt >= sandbox.spec.attempt => old.push(sandbox),
                _ => old.extend(newest.insert(sandbox.spec.uid.clone(), sandbox)),
            }
        }
        let mut pods = Self {
            shared,
            found: newest,
            handles: HashMap::new(),
            workers: JoinSet::new(),
            cleaning: JoinSet::new(),
            shutdown,
            listing: Vec::new(),
        };
        old.into_iter().for_each(|sandbox| pods.clean(sandbox.id, None));
        pods
    }

    fn take(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(pod) => self.listing.push(pod),
            watcher::Event::InitDone => self.listed(),
            watcher::Event::Apply(pod) => self.apply(pod),
            watcher::Event::Delete(pod) => self.gone(pod),
        }
    }

    /// Says of pods that do not run any more that they are not ready, before anybody is told that
    /// this kubelet is: their last status is of a time when they did, and may name an address that
    /// another pod has by now.
    async fn settle(&mut self) {
        let (handles, found) = (&self.handles, &self.found);
        let runs = |uid: &String| handles.contains_key(uid) || found.get(uid).is_some_and(|sandbox| sandbox.ready);
        for pod in &mut self.listing {
            if pod.metadata.uid.as_ref().is_none_or(runs) || !is_ready(pod) {
                continue;
            }
            let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &pod.namespace().unwrap_or_default());
            let patch = Patch::Strategic(status::nothing_runs(pod, jiff::Timestamp::now()));
            match api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
                Ok(patched) => *pod = patched,
                // Its end is the next event.
                Err(kube::Error::Api(error)) if error.code == 404 => {}
                Err(error) => {
                    tracing::warn!(%error, pod = pod.name_any(), "status of a pod that does not run any more")
                }
            }
        }
    }

    fn listed(&mut self) {
        let pods = std::mem::take(&mut self.listing);
        let uids: HashSet<String> = pods.iter().filter_map(|p| p.metadata.uid.clone()).collect();
        pods.into_iter().for_each(|pod| self.apply(pod));
        for (_, handle) in self.handles.iter().filter(|(uid, _)| !uids.contains(*uid)) {
            handle.desired.send_modify(|desired| desired.gone = true);
        }
        // What is left belongs to pods that are no more.
        for (uid, sandbox) in std::mem::take(&mut self.found) {
            self.clean(sandbox.id, Some(uid));
        }
        self.clean_folders(&uids);
    }

    fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let desired = Desired { pod: Arc::new(pod), gone: false };
        if let Some(handle) = self.handles.get(&uid) {
            handle.desired.send_replace(desired);
            return;
        }
        let found = self.found.remove(&uid);
        let (sender, receiver) = watch::channel(desired);
        let woken = Arc::new(Notify::new());
        let worker = Worker::new(self.shared.clone(), receiver, woken.clone(), found.as_ref());
        let task = self.workers.spawn(worker.run(self.shutdown.clone())).id();
        self.handles.insert(uid, Handle { desired: sender, woken, task });
    }

    fn gone(&mut self, pod: Pod) {
        let Some(handle) = pod.metadata.uid.as_ref().and_then(|uid| self.handles.get(uid)) else { return };
        handle.desired.send_replace(Desired { pod: Arc::new(pod), gone: true });
    }

    fn wake(&self, event: &RuntimeEvent) {
        if let Some(handle) = self.handles.get(&event.pod_uid) {
            handle.woken.notify_one();
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => {
                tracing::error!(%error, "pod worker panicked");
                error.id()
            }
        };
        self.handles.retain(|_, handle| handle.task != id);
    }

    /// Removes a sandbox that belongs to nothing, and the pod's folder if given its uid.
    fn clean(&mut self, sandbox: String, uid: Option<String>) {
        let shared = self.shared.clone();
        self.cleaning.spawn(async move {
            let outcome = async {
                shared.runtime.stop_sandbox(&sandbox).await?;
                shared.runtime.remove_sandbox(&sandbox).await
            };
            if let Err(error) = outcome.await {
                tracing::warn!(%error, sandbox, "orphaned sandbox not removed");
            }
            if let Some(uid) = uid {
                shared.addresses.lock().release(&uid);
                if let Err(error) = super::volumes::remove(&shared.paths.pod(&uid)) {
                    tracing::warn!(%error, uid, "folder of an orphaned pod not removed");
                }
            }
        });
    }

    /// Folders of pods that ended while nobody looked and whose sandbox is gone already.
    fn clean_folders(&mut self, uids: &HashSet<String>) {
        for entry in std::fs::read_dir(self.shared.paths.pods()).into_iter().flatten().flatten() {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if !uids.contains(&uid)
                && !self.handles.contains_key(&uid)
                && let Err(error) = super::volumes::remove(&entry.path())
            {
                tracing::warn!(%error, uid, "folder of a pod that is gone not removed");
            }
        }
    }
}
