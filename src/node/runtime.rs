//! The container runtime behind a kubelet, in CRI's terms (k8s.io/cri-api `runtime.v1`).

use aksim_model::{
    advice::{Advice, ExitClass},
    image_ref::ImageRef,
};
use aksim_runtime::net::Dialer;
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UdpSocket},
    sync::broadcast,
};

/// Why the runtime could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No such sandbox, container or image.
    #[error("{kind} {id} not found")]
    NotFound {
        /// `sandbox`, `container` or `image`.
        kind: &'static str,
        /// The id asked for.
        id: String,
    },
    /// The image cannot be pulled; `reason` is the kubelet's (`ErrImagePull`, `InvalidImageName`).
    #[error("failed to pull image {image:?}: {message}")]
    Pull {
        /// The reference.
        image: String,
        /// What the registry or the network said.
        message: String,
    },
    /// The container could not be made or started (CRI: `CreateContainerError`, `RunContainerError`).
    #[error("{message}")]
    Start {
        /// What failed, for the pod's status.
        message: String,
    },
    /// The machine lacks something; `hint` says how to get it.
    #[error("{message}")]
    Unsupported {
        /// What is missing.
        message: String,
        /// Next step.
        hint: String,
    },
    /// An operation of the system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was attempted.
        doing: String,
        /// The error.
        #[source]
        source: std::io::Error,
    },
}

impl Advice for RuntimeError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Unsupported { hint, .. } => Some(hint.into()),
            Self::Io { source, .. } => source.hint(),
            _ => None,
        }
    }

    fn class(&self) -> ExitClass {
        match self {
            Self::Unsupported { .. } => ExitClass::Environment,
            Self::Io { source, .. } => source.class(),
            _ => ExitClass::Failure,
        }
    }
}

/// Id of a pod sandbox: 64 hex digits.
pub type SandboxId = String;
/// Id of a container: 64 hex digits.
pub type ContainerId = String;

/// A pod's shared namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Pod's namespace.
    pub namespace: String,
    /// Pod's name.
    pub name: String,
    /// Pod's uid.
    pub uid: String,
    /// Restart counter of the sandbox.
    pub attempt: u32,
    /// Host name in the UTS namespace.
    pub hostname: String,
    /// Address of the pod, from the node's `podCIDR`; the caller allocates it.
    /// Ignored with `host_network`.
    pub ip: IpAddr,
    /// Share the node's network.
    pub host_network: bool,
    /// One PID namespace for the pod's containers.
    pub share_process_namespace: bool,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Folder for the log files of the containers (`NAME/ATTEMPT.log`).
    pub log_directory: PathBuf,
    /// Labels kept with the sandbox.
    pub labels: BTreeMap<String, String>,
}

/// A folder or file mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path on the node.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: PathBuf,
    /// Mounted read-only.
    pub readonly: bool,
    /// Mount a tmpfs of this many bytes (0: no bound) instead of `host_path`.
    pub tmpfs: Option<u64>,
}

/// Limits of a container; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory limit, bytes.
    pub memory_bytes: Option<u64>,
    /// CPU quota, thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// CPU request, thousandths of a core; becomes shares or weight.
    pub cpu_request_millis: Option<u64>,
    /// Largest number of processes.
    pub pids: Option<u64>,
}

/// Security settings of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// User id; the image's when `None`.
    pub run_as_user: Option<u32>,
    /// Group id; the image's when `None`.
    pub run_as_group: Option<u32>,
    /// Supplementary groups.
    pub supplemental_groups: Vec<u32>,
    /// Refuse to run as user id 0.
    pub run_as_non_root: bool,
    /// All capabilities and devices.
    pub privileged: bool,
    /// Root file system read-only.
    pub readonly_root: bool,
    /// `no_new_privs` unless true.
    pub allow_privilege_escalation: bool,
    /// Capabilities added, without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// Capabilities dropped, without `CAP_`; `ALL` drops every one.
    pub drop_capabilities: Vec<String>,
}

/// A container to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name in the pod.
    pub name: String,
    /// Restart counter.
    pub attempt: u32,
    /// Image id as [`NodeRuntime::pull_image`] returned it.
    pub image_id: String,
    /// Image as the pod names it, for status.
    pub image: String,
    /// Replaces the image's entry point unless empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments unless empty (or unless `command` is given).
    pub args: Vec<String>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// Environment, added to the image's; a later one wins.
    pub env: Vec<(String, String)>,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Limits.
    pub resources: Resources,
    /// Security settings.
    pub security: Security,
    /// Allocate a terminal.
    pub tty: bool,
    /// Keep standard input open (for attach).
    pub stdin: bool,
    /// Close standard input when the first attach session ends.
    pub stdin_once: bool,
    /// Signal to stop with, `SIGTERM` form; the image's, else SIGTERM, when `None`.
    pub stop_signal: Option<String>,
    /// Running container whose processes it sees (an ephemeral container's target).
    #[serde(default)]
    pub target_container: Option<ContainerId>,
}

/// State of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its process runs.
    Running {
        /// Since when.
        started: Timestamp,
    },
    /// Its process has ended.
    Exited {
        /// When it had started.
        started: Timestamp,
        /// When it ended.
        finished: Timestamp,
        /// Exit code; 128 + signal when killed by one.
        code: i32,
        /// Killed by the kernel because it passed its memory limit.
        oom_killed: bool,
    },
}

/// What the runtime knows of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Id.
    pub id: ContainerId,
    /// Sandbox it belongs to.
    pub sandbox: SandboxId,
    /// Name in the pod.
    pub name: String,
    /// Restart counter.
    pub attempt: u32,
    /// Image as the pod names it.
    pub image: String,
    /// Image id, `sha256:…` of the config.
    pub image_id: String,
    /// State.
    pub state: ContainerState,
    /// Current log file.
    pub log_path: PathBuf,
}

/// What the runtime knows of a sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// Id.
    pub id: SandboxId,
    /// As it was asked for.
    pub spec: SandboxSpec,
    /// Whether its namespaces are alive.
    pub ready: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Its containers, also ended ones not yet removed.
    pub containers: Vec<ContainerStatus>,
}

/// An image on the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageStatus {
    /// Image id, `sha256:…` of the config.
    pub id: String,
    /// `registry/repository@sha256:…` of the manifest.
    pub repo_digests: Vec<String>,
    /// `registry/repository:tag`.
    pub repo_tags: Vec<String>,
    /// Bytes of the unpacked layers.
    pub size: u64,
    /// User of the image config, as written there.
    pub user: String,
}

/// Registry credentials of a pull secret.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryCredentials {
    /// No credentials.
    Anonymous,
    /// User name and password (or ACR's token user and access token).
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
}

/// A process to run in a running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Allocate a terminal; stderr then comes on stdout.
    pub tty: bool,
    /// Connect standard input.
    pub stdin: bool,
}

/// Ends of a process's or container's standard streams.
pub struct Session {
    /// Towards the process; dropping it is end of file.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// From the process.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// From the process; `None` with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Control of the process.
    pub control: Box<dyn SessionControl>,
}

/// Control of an exec or attach session.
#[async_trait]
pub trait SessionControl: Send + Sync {
    /// Sets the terminal's size, character cells.
    async fn resize(&self, columns: u16, rows: u16) -> Result<(), RuntimeError>;
    /// Waits for the process; exit code, 128 + signal when killed by one.
    async fn wait(&self) -> Result<i32, RuntimeError>;
    /// Kills the process.
    async fn kill(&self) -> Result<(), RuntimeError>;
}

/// Use of resources by a container or a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time used since start, nanoseconds.
    pub cpu_nanos: u64,
    /// Memory in use less inactive page cache, bytes.
    pub memory_working_set: u64,
    /// Memory in use, bytes.
    pub memory_usage: u64,
}

/// A change of a container that the runtime saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// Pod's uid.
    pub pod_uid: String,
    /// Sandbox.
    pub sandbox: SandboxId,
    /// Container, or `None` when it is about the sandbox.
    pub container: Option<ContainerId>,
}

/// Runs pods on a node: containers on Linux namespaces, or a simulation.
///
/// Every method may be called again after a crash of the caller: what exists is found by
/// [`NodeRuntime::sandboxes`], and removing what is gone is not an error.
#[async_trait]
pub trait NodeRuntime: Send + Sync + 'static {
    /// Name and version for `node.status.nodeInfo.containerRuntimeVersion`: `aksim://0.1.0`.
    fn version(&self) -> String;
    /// What this runtime cannot do here (no cgroup, no overlayfs, rootless), each with its hint.
    fn reductions(&self) -> Vec<(String, String)>;

    /// All sandboxes with their containers, found again after a restart too.
    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError>;
    /// One sandbox with its containers, or `None`. A runtime that can look up one does so.
    async fn sandbox(&self, id: &str) -> Result<Option<SandboxStatus>, RuntimeError> {
        Ok(self.sandboxes().await?.into_iter().find(|s| s.id == id))
    }
    /// Makes namespaces and network of a pod.
    async fn run_sandbox(&self, spec: SandboxSpec) -> Result<SandboxId, RuntimeError>;
    /// Kills what runs in the sandbox, takes its network down. Idempotent.
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Removes the sandbox, its containers and their writable layers (logs stay). Idempotent.
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError>;

    /// Makes a container and starts it.
    async fn start_container(&self, sandbox: &str, spec: ContainerSpec) -> Result<ContainerId, RuntimeError>;
    /// Sends the stop signal, waits `grace`, kills. Returns when it has ended. Idempotent.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;
    /// Removes an ended container and its writable layer. Idempotent.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Starts a new log file (the old one was renamed by the caller).
    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError>;

    /// Runs a process in a running container.
    async fn exec(&self, id: &str, spec: ExecSpec) -> Result<Session, RuntimeError>;
    /// Connects to a running container's own streams (its stdin only if it was made with `stdin`).
    async fn attach(&self, id: &str) -> Result<Session, RuntimeError>;
    /// Path of a running container's root file system as seen from the host, for file copies.
    async fn root_path(&self, id: &str) -> Result<PathBuf, RuntimeError>;
    /// Puts `content` at `path` in a running container, or removes the file when `None`; links are
    /// the container's, and a read-only root does not hinder it.
    async fn put_file(&self, id: &str, path: &std::path::Path, content: Option<&[u8]>) -> Result<(), RuntimeError>;

    /// Makes an image available on the node.
    async fn pull_image(
        &self,
        image: &ImageRef,
        credentials: &RegistryCredentials,
    ) -> Result<ImageStatus, RuntimeError>;
    /// An image by reference, if it is on the node.
    async fn image(&self, image: &ImageRef) -> Result<Option<ImageStatus>, RuntimeError>;
    /// Images on the node.
    async fn images(&self) -> Result<Vec<ImageStatus>, RuntimeError>;

    /// Use of resources by a container.
    async fn usage(&self, id: &str) -> Result<Usage, RuntimeError>;
    /// Changes from now on. A reader told that it lagged lists [`NodeRuntime::sandboxes`].
    fn events(&self) -> broadcast::Receiver<RuntimeEvent>;

    /// The node network: dials pods, listens on the addresses of node and services.
    fn network(&self) -> std::sync::Arc<dyn NodeNetwork>;
}

/// The network that a node's pods live in, apart from the host's.
#[async_trait]
pub trait NodeNetwork: Dialer {
    /// Connects to a port in a pod's own network namespace, its loopback included (port-forward).
    async fn dial_sandbox(&self, sandbox: &str, port: u16) -> std::io::Result<tokio::net::TcpStream>;
    /// Adds an address of the node itself (node IP, virtual IP), so that it can be listened on.
    /// Idempotent.
    async fn add_address(&self, address: IpAddr) -> std::io::Result<()>;
    /// Listens inside the node network. ClusterIP and other service addresses need no
    /// [`NodeNetwork::add_address`]: the whole service range is local there.
    async fn listen_tcp(&self, address: SocketAddr) -> std::io::Result<TcpListener>;
    /// As [`NodeNetwork::listen_tcp`], for UDP (cluster DNS).
    async fn listen_udp(&self, address: SocketAddr) -> std::io::Result<UdpSocket>;
}
