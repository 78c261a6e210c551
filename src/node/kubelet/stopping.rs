//! Stopping a container with its preStop hook, and the end of a pod.

use super::{
    events::Kind,
    pod::Role,
    shared::Shared,
    starting::{run_hook, target},
    status, volumes,
};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// What a container gets to stop after a preStop hook that used up the grace period.
const AFTER_HOOK: Duration = Duration::from_secs(2);
/// Longest wait between attempts to report a pod's end.
const MAX_RETRY: Duration = Duration::from_secs(10);

/// A container to stop.
pub(super) struct Stop {
    pub shared: Arc<Shared>,
    pub pod: Arc<Pod>,
    pub role: Role,
    pub container: Arc<Container>,
    pub id: String,
    pub address: IpAddr,
    pub grace: Duration,
    /// Text of the `Killing` event; `None` when it was told already (and the hook has run).
    pub message: Option<String>,
}

impl Stop {
    /// preStop hook, stop signal, grace period, kill. Returns when the container has ended.
    pub async fn run(self) {
        let begun = Instant::now();
        let mut grace = self.grace;
        let path = || Some(self.role.field_path(&self.container.name));
        if let Some(message) = &self.message {
            self.shared.events.pod(&self.pod, path(), Kind::Normal, "Killing", message.clone());
            let hook = self.container.lifecycle.as_ref().and_then(|l| l.pre_stop.clone());
            if let Some(hook) = hook.filter(|_| !grace.is_zero()) {
                let target = target(&self.shared, &self.id, &self.container, self.address);
                if let Err(message) = run_hook(&target, &hook, grace).await {
                    let told = format!("PreStopHook failed: {message}");
                    self.shared.events.pod(&self.pod, path(), Kind::Warning, "FailedPreStopHook", told);
                }
                grace = grace.saturating_sub(begun.elapsed()).max(AFTER_HOOK);
            }
        }
        if let Err(error) = self.shared.runtime.stop_container(&self.id, grace).await {
            let told =
                format!("error killing pod: failed to \"KillContainer\" for \"{}\": {error}", self.container.name);
            self.shared.events.pod(&self.pod, path(), Kind::Warning, "FailedKillPod", told);
        }
    }
}

/// What is left to do when all containers of a deleted pod have ended.
pub(super) struct Finish {
    pub shared: Arc<Shared>,
    pub pod: Arc<Pod>,
    pub sandbox: Option<String>,
    pub status: PodStatus,
    /// Becomes true when the pod is no longer in the API.
    pub gone: watch::Receiver<bool>,
}

impl Finish {
    /// Takes the sandbox down, reports the end, deletes the pod, removes what it left on the node.
    pub async fn run(mut self) {
        let mut wait = Duration::from_millis(100);
        while let Err(error) = self.attempt().await {
            tracing::warn!(error, pod = self.pod.metadata.name, "pod not cleaned up; trying again");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_RETRY);
        }
    }

    async fn attempt(&mut self) -> Result<(), String> {
        let uid = self.pod.metadata.uid.clone().unwrap_or_default();
        if let Some(sandbox) = &self.sandbox {
            self.shared.runtime.stop_sandbox(sandbox).await.map_err(|e| e.to_string())?;
        }
        if !*self.gone.borrow() {
            write(&self.shared, &self.pod, &self.status).await?;
        }
        if let Some(sandbox) = self.sandbox.clone() {
            self.shared.runtime.remove_sandbox(&sandbox).await.map_err(|e| e.to_string())?;
            self.sandbox = None;
        }
        volumes::remove(&self.shared.paths.pod(&uid)).map_err(|e| e.to_string())?;
        self.shared.addresses.lock().release(&uid);
        if !*self.gone.borrow() {
            self.delete(&uid).await?;
        }
        let (namespace, name) = (&self.pod.metadata.namespace, &self.pod.metadata.name);
        let logs = self.shared.paths.pod_logs(
            namespace.as_deref().unwrap_or_default(),
            name.as_deref().unwrap_or_default(),
            &uid,
        );
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    async fn delete(&self, uid: &str) -> Result<(), String> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), namespace);
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params =
            DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
        match api.delete(self.pod.metadata.name.as_deref().unwrap_or_default(), &params).await {
            // Gone, or another pod of the same name: ours is gone.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => Ok(()),
        }
    }
}

/// Writes a pod's status; a pod that is gone is no error.
pub(super) async fn write(shared: &Shared, pod: &Pod, to: &PodStatus) -> Result<(), String> {
    let patch = status::patch(pod, to).map_err(|e| e.to_string())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), namespace);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(_) => Ok(()),
    }
}
