//! Making a sandbox, starting a container, running its postStart hook.

use super::{
    actions::{self, Target},
    env::{self, Addresses},
    etc_files::{self, ClusterDnsInfo},
    events::Kind,
    pod::{self, Role},
    security,
    shared::Shared,
    volumes::{self, Prepared},
};
use crate::runtime::{ContainerSpec, ImageStatus, SandboxSpec};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// A hook without a deadline of its own may take this long.
const HOOK_DEADLINE: Duration = Duration::from_secs(600);

/// Why a container does not run: reason and message of its waiting state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StartFailure {
    pub reason: &'static str,
    pub message: String,
}

impl StartFailure {
    fn config(message: impl std::fmt::Display) -> Self {
        Self { reason: "CreateContainerConfigError", message: message.to_string() }
    }
}

/// A sandbox with its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sandbox {
    pub id: String,
    pub address: IpAddr,
}

/// Makes the pod's sandbox; the message of an error is for the `FailedCreatePodSandBox` event.
pub(super) async fn sandbox(shared: &Shared, pod: &Pod, attempt: u32) -> Result<Sandbox, String> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let address = match host_network {
        true => shared.node.internal_ip,
        false => shared.addresses.lock().allocate(&uid).map_err(|e| e.to_string())?,
    };
    let dns = ClusterDnsInfo { address: shared.cluster_dns, domain: &shared.cluster_domain };
    etc_files::write(&shared.paths, pod, Some(address), dns).map_err(|e| e.to_string())?;
    let log_directory = shared.paths.pod_logs(&namespace, &name, &uid);
    std::fs::create_dir_all(&log_directory).map_err(|e| e.to_string())?;
    let sysctls = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    let sandbox = SandboxSpec {
        namespace,
        name,
        uid,
        attempt,
        hostname: etc_files::hostname(pod),
        ip: address,
        host_network,
        share_process_namespace: spec.share_process_namespace == Some(true),
        sysctls: sysctls.map(|s| (s.name.clone(), s.value.clone())).collect(),
        log_directory,
        labels: pod.metadata.labels.clone().unwrap_or_default(),
    };
    let id = shared.runtime.run_sandbox(sandbox).await.map_err(|e| e.to_string())?;
    Ok(Sandbox { id, address })
}

/// What a start needs.
pub(super) struct Start {
    pub shared: Arc<Shared>,
    pub pod: Arc<Pod>,
    pub role: Role,
    pub container: Arc<Container>,
    pub attempt: u32,
    pub image: ImageStatus,
    pub sandbox: Sandbox,
    pub volumes: HashMap<String, Prepared>,
    /// Id of the container whose processes an ephemeral one is to see.
    pub target: Option<String>,
    /// Cancelled when the pod is to end.
    pub ending: CancellationToken,
}

impl Start {
    /// Starts the container and runs its postStart hook.
    pub async fn run(self) -> Result<(), StartFailure> {
        let path = || Some(self.role.field_path(&self.container.name));
        let events = &self.shared.events;
        let made = tokio::select! {
            () = self.ending.cancelled() => return Ok(()),
            made = self.spec() => made,
        };
        let spec = made.inspect_err(|e| {
            events.pod(&self.pod, path(), Kind::Warning, "Failed", format!("Error: {}", e.message));
        })?;
        if self.ending.is_cancelled() {
            return Ok(());
        }
        let id = self.shared.runtime.start_container(&self.sandbox.id, spec).await.map_err(|error| {
            let message = error.to_string();
            events.pod(&self.pod, path(), Kind::Warning, "Failed", format!("Error: {message}"));
            StartFailure { reason: "RunContainerError", message }
        })?;
        let name = &self.container.name;
        events.pod(&self.pod, path(), Kind::Normal, "Created", format!("Container created: {name}"));
        events.pod(&self.pod, path(), Kind::Normal, "Started", format!("Container started: {name}"));
        let hook = self.container.lifecycle.as_ref().and_then(|l| l.post_start.clone());
        let Some(hook) = hook else { return Ok(()) };
        let target = target(&self.shared, &id, &self.container, self.sandbox.address);
        let outcome = tokio::select! {
            () = self.ending.cancelled() => return Ok(()),
            outcome = run_hook(&target, &hook, HOOK_DEADLINE) => outcome,
        };
        if let Err(message) = outcome {
            events.pod(
                &self.pod,
                path(),
                Kind::Warning,
                "FailedPostStartHook",
                format!("PostStartHook failed: {message}"),
            );
            let told = format!("FailedPostStartHook: container {name} will be killed");
            events.pod(&self.pod, path(), Kind::Normal, "Killing", told);
            let grace = pod::grace(&self.pod);
            let stopped = self.shared.runtime.stop_container(&id, grace).await;
            stopped.map_err(|e| StartFailure { reason: "PostStartHookError", message: e.to_string() })?;
            return Err(StartFailure { reason: "PostStartHookError", message });
        }
        Ok(())
    }

    async fn spec(&self) -> Result<ContainerSpec, StartFailure> {
        let (shared, pod, container) = (&self.shared, &self.pod, &self.container);
        let pod_spec = pod.spec.clone().unwrap_or_default();
        let security = security::security(&pod_spec, container, &self.image).map_err(StartFailure::config)?;
        let addresses = Addresses { pod: Some(self.sandbox.address), host: shared.node.internal_ip };
        let services = shared.services().await;
        let mut environment =
            env::environment(shared, pod, container, addresses, &services).await.map_err(StartFailure::config)?;
        let mounts = volumes::mounts(shared, pod, container, self.attempt, &self.volumes, &environment)
            .map_err(StartFailure::config)?;
        let known = environment.iter().cloned().collect();
        let expand = |list: &Option<Vec<String>>| -> Vec<String> {
            list.iter().flatten().map(|text| env::expand(text, &known)).collect()
        };
        let (command, args) = (expand(&container.command), expand(&container.args));
        if !environment.iter().any(|(k, _)| k == "HOSTNAME") {
            environment.insert(0, ("HOSTNAME".into(), etc_files::hostname(pod)));
        }
        if shared.trust_bundle.is_some() && !environment.iter().any(|(k, _)| k == "SSL_CERT_FILE") {
            environment.insert(0, ("SSL_CERT_FILE".into(), volumes::TRUST_FILE.into()));
        }
        Ok(ContainerSpec {
            name: container.name.clone(),
            attempt: self.attempt,
            image_id: self.image.id.clone(),
            image: container.image.clone().unwrap_or_default(),
            command,
            args,
            working_dir: container.working_dir.clone().filter(|d| !d.is_empty()),
            env: environment,
            mounts,
            resources: pod::resources(container),
            security,
            tty: container.tty == Some(true),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            stop_signal: container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()),
            target_container: self.target.clone(),
        })
    }
}

/// Where the actions of a container go.
pub(super) fn target(shared: &Shared, id: &str, container: &Arc<Container>, address: IpAddr) -> Target {
    Target {
        runtime: shared.runtime.clone(),
        network: shared.network.clone(),
        container_id: id.to_owned(),
        container: container.clone(),
        address,
    }
}

/// Runs a lifecycle hook, at most until `deadline`.
pub(super) async fn run_hook(target: &Target, hook: &LifecycleHandler, deadline: Duration) -> Result<(), String> {
    let run = async {
        if let Some(action) = &hook.exec {
            actions::exec(target, action, deadline).await
        } else if let Some(action) = &hook.http_get {
            actions::http_get(target, action).await
        } else if let Some(action) = &hook.tcp_socket {
            actions::tcp(target, action).await
        } else if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            Ok(())
        } else {
            Err("invalid handler: no action".into())
        }
    };
    // A second over what exec gets, so that exec can kill its process first.
    let outer = deadline.saturating_add(Duration::from_secs(1));
    tokio::time::timeout(outer, run).await.unwrap_or_else(|_| Err("the hook did not end in time".into()))
}
