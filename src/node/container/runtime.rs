//! [`ContainerRuntime`]: sandboxes and the [`NodeRuntime`] contract.

use super::{
    agent::AgentConfig,
    cgroup::Cgroups,
    client::{AgentClient, io_error},
    config::ContainerRuntimeConfig,
    containers::Container,
    image::store::ImageStore,
    network::ContainerNetwork,
    record::{self, SandboxRecord},
    userns,
    wire::{AgentRequest, IdMapping, Reply, SandboxSetup},
};
use crate::runtime::{
    ContainerSpec, ExecSpec, ImageStatus, NodeNetwork, NodeRuntime, RegistryCredentials, RuntimeError, RuntimeEvent,
    SandboxSpec, SandboxStatus, Session, Usage,
};
use aksim_model::{endpoint::AzureName, image_ref::ImageRef};
use aksim_runtime::files::create_private_dir;
use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::broadcast, task::JoinSet};

/// Runs pods in Linux namespaces.
pub struct ContainerRuntime {
    pub(super) config: ContainerRuntimeConfig,
    pub(super) agent: Arc<AgentClient>,
    pub(super) cgroups: Cgroups,
    pub(super) images: ImageStore,
    pub(super) containers: Mutex<BTreeMap<String, Arc<Container>>>,
    pub(super) sandboxes: Mutex<BTreeMap<String, SandboxRecord>>,
    pub(super) events: broadcast::Sender<RuntimeEvent>,
    pub(super) watchers: Mutex<JoinSet<()>>,
    found_pods: bool,
    network: Arc<ContainerNetwork>,
}

impl ContainerRuntime {
    /// Finds the node of this environment with all its pods, or makes a new one.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] where no namespaces can be had; errors of the state folder.
    pub async fn open(config: ContainerRuntimeConfig) -> Result<Arc<Self>, RuntimeError> {
        for folder in [&config.state_dir, &sandboxes_dir(&config), &containers_dir(&config), &config.cache_dir] {
            create_private_dir(folder).map_err(io_error(&format!("make {}", folder.display())))?;
        }
        let agent_config = AgentConfig {
            gateway: config.pod_network.gateway(),
            pod_prefix: config.pod_network.prefix,
            service_network: config.service_network.address,
            service_prefix: config.service_network.prefix,
        };
        let agent = AgentClient::open(&config.exe, &config.state_dir, agent_config).await?;
        match Self::open_on(config, agent.clone()).await {
            Err(error) if !agent.was_found() => {
                agent.kill().await.map_err(io_error("end the node agent again"))?;
                Err(error)
            }
            opened => opened,
        }
    }

    async fn open_on(config: ContainerRuntimeConfig, agent: Arc<AgentClient>) -> Result<Arc<Self>, RuntimeError> {
        let alive = match agent.call(&AgentRequest::Sandboxes).await {
            Ok((Reply::Sandboxes(ids), _)) => ids.into_iter().collect::<BTreeSet<_>>(),
            Ok(_) => BTreeSet::new(),
            Err(e) => return Err(io_error("list sandboxes")(e)),
        };
        let cgroups = match agent.ids() {
            IdMapping::Root => Cgroups::open(&config.environment_id),
            _ => Cgroups::none("aksim does not run as root"),
        };
        let images = ImageStore::open(&config, agent.clone())?;
        let mut ranges = config.node_networks.clone();
        ranges.extend([config.pod_network, config.service_network]);
        let runtime = Arc::new(Self {
            network: Arc::new(ContainerNetwork::new(agent.clone(), ranges)),
            config,
            agent,
            cgroups,
            images,
            containers: Mutex::default(),
            sandboxes: Mutex::default(),
            events: broadcast::channel(4096).0,
            watchers: Mutex::default(),
            found_pods: !alive.is_empty(),
        });
        runtime.find_again(&alive).await?;
        Ok(runtime)
    }

    /// Whether pods of an earlier aksim ran when this was opened.
    pub fn found_pods(&self) -> bool {
        self.found_pods
    }

    /// Replaces the Azure names by which registries are reached.
    pub fn set_azure_names(&self, names: Vec<AzureName>) {
        self.images.set_azure_names(names);
    }

    /// Replaces the credentials for a registry, used when a pod brings none.
    pub fn set_credentials(&self, registry: &str, credentials: RegistryCredentials) {
        self.images.set_credentials(registry, credentials);
    }

    /// Brings an OCI image layout (folder or tar archive) onto the node under `name`, or under
    /// the names written in it.
    ///
    /// # Errors
    /// [`RuntimeError::Pull`] when it is not a layout with an image for this machine.
    pub async fn import_oci_layout(
        &self,
        path: &Path,
        name: Option<&ImageRef>,
    ) -> Result<Vec<ImageStatus>, RuntimeError> {
        self.images.import(path, name).await
    }

    /// Ends everything on the node and leaves nothing of it: processes, namespaces, mounts,
    /// control groups, writable layers. Images and logs stay.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn teardown(&self) -> Result<(), RuntimeError> {
        let containers: Vec<_> = self.containers.lock().values().cloned().collect();
        // Their shims still write how they ended; only then can the folders go.
        futures::future::join_all(containers.iter().map(|c| c.stop(Duration::ZERO))).await;
        self.watchers.lock().abort_all();
        self.containers.lock().clear();
        for folder in [containers_dir(&self.config), sandboxes_dir(&self.config)] {
            self.remove_tree(&folder).await?;
        }
        self.sandboxes.lock().clear();
        self.network.forget();
        self.agent.kill().await.map_err(io_error("end the node agent"))?;
        self.remove_groups().await
    }

    /// A group is busy for a moment after its last process has been killed.
    async fn remove_groups(&self) -> Result<(), RuntimeError> {
        self.cgroups.remove_all().map_err(io_error("remove control groups"))
    }

    pub(super) async fn remove_tree(&self, path: &Path) -> Result<(), RuntimeError> {
        let request = AgentRequest::RemoveTree { path: path.to_owned() };
        self.agent.call(&request).await.map_err(io_error(&format!("remove {}", path.display())))?;
        Ok(())
    }

    pub(super) fn container_dir(&self, id: &str) -> PathBuf {
        containers_dir(&self.config).join(id)
    }

    fn sandbox_file(&self, id: &str) -> PathBuf {
        sandboxes_dir(&self.config).join(id).join("sandbox.json")
    }

    pub(super) fn sandbox(&self, id: &str) -> Result<SandboxRecord, RuntimeError> {
        let missing = || RuntimeError::NotFound { kind: "sandbox", id: id.to_owned() };
        self.sandboxes.lock().get(id).cloned().ok_or_else(missing)
    }

    /// Tells listeners that something of a sandbox has changed.
    pub(super) fn publish(&self, sandbox: &str, container: Option<&str>) {
        let pod_uid = self.sandboxes.lock().get(sandbox).map(|s| s.spec.uid.clone()).unwrap_or_default();
        let event = RuntimeEvent { pod_uid, sandbox: sandbox.to_owned(), container: container.map(str::to_owned) };
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    /// Takes over what is left of sandboxes and containers; `alive` are the sandboxes that run.
    async fn find_again(self: &Arc<Self>, alive: &BTreeSet<String>) -> Result<(), RuntimeError> {
        for id in names(&sandboxes_dir(&self.config)).map_err(io_error("list sandboxes"))? {
            // A folder without record is a sandbox whose making was cut short.
            let Ok(mut found) = record::read::<SandboxRecord>(&self.sandbox_file(&id)) else {
                self.remove_tree(&sandboxes_dir(&self.config).join(&id)).await?;
                continue;
            };
            found.stopped |= !alive.contains(&id);
            self.sandboxes.lock().insert(id, found);
        }
        let unknown = alive.iter().filter(|id| !self.sandboxes.lock().contains_key(*id)).cloned().collect::<Vec<_>>();
        for id in unknown {
            self.agent.call(&AgentRequest::RemoveSandbox { id }).await.map_err(io_error("remove a sandbox"))?;
        }
        for id in names(&containers_dir(&self.config)).map_err(io_error("list containers"))? {
            self.find_container(&id).await?;
        }
        self.watch_agent();
        Ok(())
    }

    /// When the agent ends, all pods have ended.
    fn watch_agent(self: &Arc<Self>) {
        let (runtime, agent) = (Arc::downgrade(self), self.agent.clone());
        self.watchers.lock().spawn(async move {
            agent.ended().await;
            let Some(runtime) = runtime.upgrade() else { return };
            runtime.network.forget();
            let ids: Vec<String> = {
                let mut sandboxes = runtime.sandboxes.lock();
                sandboxes.values_mut().for_each(|s| s.stopped = true);
                sandboxes.keys().cloned().collect()
            };
            for id in ids {
                runtime.publish(&id, None);
            }
        });
    }

    fn sandbox_status(&self, found: &SandboxRecord) -> SandboxStatus {
        let containers = self.containers.lock();
        SandboxStatus {
            id: found.id.clone(),
            spec: found.spec.clone(),
            ready: !found.stopped,
            created: found.created,
            containers: containers.values().filter(|c| c.record.sandbox == found.id).map(|c| c.status()).collect(),
        }
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.containers.lock().values().filter(|c| c.record.sandbox == sandbox).cloned().collect()
    }
}

fn sandboxes_dir(config: &ContainerRuntimeConfig) -> PathBuf {
    config.state_dir.join("sandboxes")
}

fn containers_dir(config: &ContainerRuntimeConfig) -> PathBuf {
    config.state_dir.join("containers")
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    std::fs::read_dir(folder)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
}

#[async_trait]
impl NodeRuntime for ContainerRuntime {
    fn version(&self) -> String {
        format!("aksim://{}", env!("CARGO_PKG_VERSION"))
    }

    fn reductions(&self) -> Vec<(String, String)> {
        let mut all = vec![(
            "pods have no way out of the node network except to this environment's own servers".to_owned(),
            "nothing to do: the environment is offline by design".to_owned(),
        )];
        all.push((
            "containers run without a seccomp profile".to_owned(),
            "do not run untrusted images; the profile RuntimeDefault is accepted and ignored".to_owned(),
        ));
        if let Some(reason) = self.cgroups.missing() {
            all.push((
                format!("limits of memory, CPU and processes are not enforced: {reason}"),
                "run aksim as root, with control groups mounted".to_owned(),
            ));
        }
        if !self.agent.overlay() {
            all.push((
                "image layers are copied for every container, because overlayfs cannot be mounted".to_owned(),
                "use Linux 5.11 or newer and a state folder on ext4, xfs, btrfs or tmpfs".to_owned(),
            ));
        }
        if self.agent.ids() == IdMapping::Single {
            all.push((
                "a container has one user id; files of other users belong to it, supplementary groups are not set"
                    .to_owned(),
                userns::subordinate_hint(),
            ));
        }
        all
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let records: Vec<SandboxRecord> = self.sandboxes.lock().values().cloned().collect();
        Ok(records.iter().map(|r| self.sandbox_status(r)).collect())
    }

    async fn run_sandbox(&self, spec: SandboxSpec) -> Result<String, RuntimeError> {
        let id = record::new_id();
        let setup = SandboxSetup {
            id: id.clone(),
            hostname: spec.hostname.clone(),
            ip: spec.ip,
            host_network: spec.host_network,
            share_pid: spec.share_process_namespace,
            sysctls: spec.sysctls.clone(),
        };
        let record = SandboxRecord { id: id.clone(), spec, created: Timestamp::now(), stopped: false };
        let file = self.sandbox_file(&id);
        create_private_dir(file.parent().unwrap_or(&self.config.state_dir)).map_err(io_error("make the sandbox"))?;
        record::write(&file, &record).map_err(io_error("write the sandbox"))?;
        if let Err(e) = self.agent.call(&AgentRequest::CreateSandbox(setup)).await {
            self.remove_tree(&sandboxes_dir(&self.config).join(&id)).await?;
            return Err(RuntimeError::Start { message: format!("failed to create pod sandbox: {e}") });
        }
        self.sandboxes.lock().insert(id.clone(), record);
        self.publish(&id, None);
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let Ok(mut record) = self.sandbox(id) else { return Ok(()) };
        for container in self.containers_of(id) {
            container.stop(Duration::ZERO).await?;
        }
        if !record.stopped {
            let request = AgentRequest::RemoveSandbox { id: id.to_owned() };
            self.agent.call(&request).await.map_err(io_error("remove the pod's network"))?;
            record.stopped = true;
            record::write(&self.sandbox_file(id), &record).map_err(io_error("write the sandbox"))?;
            self.sandboxes.lock().insert(id.to_owned(), record);
            self.publish(id, None);
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.stop_sandbox(id).await?;
        for container in self.containers_of(id) {
            self.remove_container(&container.record.id).await?;
        }
        self.remove_tree(&sandboxes_dir(&self.config).join(id)).await?;
        self.publish(id, None);
        self.sandboxes.lock().remove(id);
        Ok(())
    }

    async fn start_container(&self, sandbox: &str, spec: ContainerSpec) -> Result<String, RuntimeError> {
        self.start(sandbox, spec).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        match self.container(id) {
            Ok(container) => container.stop(grace).await,
            Err(_) => Ok(()),
        }
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.remove(id).await
    }

    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        self.container(id)?.reopen_log().await
    }

    async fn exec(&self, id: &str, spec: ExecSpec) -> Result<Session, RuntimeError> {
        self.container(id)?.exec(spec).await
    }

    async fn attach(&self, id: &str) -> Result<Session, RuntimeError> {
        self.container(id)?.attach().await
    }

    async fn root_path(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        self.container(id)?.root_path()
    }

    async fn put_file(&self, id: &str, path: &Path, content: Option<&[u8]>) -> Result<(), RuntimeError> {
        self.container(id)?.put_file(&self.config.exe, path, content).await
    }

    async fn pull_image(
        &self,
        image: &ImageRef,
        credentials: &RegistryCredentials,
    ) -> Result<ImageStatus, RuntimeError> {
        self.images.pull(image, credentials).await
    }

    async fn image(&self, image: &ImageRef) -> Result<Option<ImageStatus>, RuntimeError> {
        Ok(self.images.find(image))
    }

    async fn images(&self) -> Result<Vec<ImageStatus>, RuntimeError> {
        Ok(self.images.list())
    }

    async fn usage(&self, id: &str) -> Result<Usage, RuntimeError> {
        self.usage_of(id)
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }

    fn network(&self) -> Arc<dyn NodeNetwork> {
        self.network.clone()
    }
}
