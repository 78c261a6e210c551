//! The contract between an environment and the cluster that its workloads run in.
//!
//! What every cluster has is used through its API, and is no part of the contract. What each has its own way
//! to is: how it comes up and goes, how it is reached, and what is done to it from below its API.
//!
//! A provider is a crate in `providers/`, and a line in the simulator's list.

use crate::kubeconfig::Context;
use aksim_config::{Config, home::Home};
use aksim_model::{
    advice::{Advice, ExitClass},
    endpoint::AzureName,
};
use aksim_runtime::{
    net::SharedDialer,
    pki::Pki,
    supervisor::{Supervisor, SupervisorError},
};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use nix::sys::signal::Signal;
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;

/// Audience of the Entra tokens that an AKS cluster accepts: its server application, by id.
pub const AKS_SERVER_APPLICATION: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";

/// A kind of cluster that `[cluster] provider` may name.
#[async_trait]
pub trait ClusterKind: Send + Sync {
    /// What `[cluster] provider` calls it.
    fn name(&self) -> &'static str;

    /// Finds the cluster of an environment with all that an earlier aksim has left running of it, or begins a
    /// new one. Short, for it is not cut off by an interruption.
    ///
    /// # Errors
    /// [`ProviderError::Machine`] where this machine cannot run one; nothing of a new one is left.
    async fn open(&self, place: Place) -> Result<Arc<dyn ClusterProvider>, ProviderError>;

    /// Removes what an environment that is not running has left of such a cluster; most often nothing. Writes no
    /// file: the disk may be full.
    ///
    /// # Errors
    /// What could not be removed.
    async fn clean_up(&self, remains: &Remains) -> Result<(), ProviderError>;
}

/// A cluster of one environment.
///
/// In order of use: [`bind`](Self::bind), [`start`](Self::start), [`start_nodes`](Self::start_nodes), the rest in
/// any order, [`stop`](Self::stop).
#[async_trait]
pub trait ClusterProvider: Send + Sync + 'static {
    /// Takes addresses and looks at the machine, before anything of the environment runs.
    ///
    /// # Errors
    /// [`ProviderError`], where it is known already that it cannot come up.
    async fn bind(&self, wiring: Wiring) -> Result<Bound, ProviderError>;

    /// Brings the API up. Pods that ran before go on; no other runs yet, so that what they need can be put into
    /// the cluster first. Components go to `supervisor`, which stops them.
    ///
    /// # Errors
    /// [`ProviderError`], of the component that failed.
    async fn start(&self, supervisor: &mut Supervisor) -> Result<(), ProviderError>;

    /// Brings controllers and nodes up; the names of the nodes.
    ///
    /// # Errors
    /// As [`ClusterProvider::start`].
    async fn start_nodes(&self, supervisor: &mut Supervisor) -> Result<Vec<String>, ProviderError>;

    /// Ends what outlives the components, which the supervisor has stopped: containers, mounts, networks.
    ///
    /// # Errors
    /// What could not be ended.
    async fn stop(&self, extent: Extent) -> Result<(), ProviderError>;

    /// How the cluster is reached, once it has started.
    ///
    /// # Errors
    /// [`ProviderError::NotStarted`].
    fn access(&self) -> Result<Access, ProviderError>;

    /// Brings an image onto all nodes, from an OCI layout (folder or tar archive), under the names written in it.
    ///
    /// # Errors
    /// When it is no layout with an image for this machine.
    async fn load_image(&self, layout: &Path) -> Result<(), ProviderError>;

    /// Puts `content` at `path` in a running container, or removes the file when `None`; a read-only root does
    /// not hinder it.
    ///
    /// # Errors
    /// When the container is not there, or not such a path in it.
    async fn put_file(
        &self,
        pod: &Pod,
        container: &str,
        path: &Path,
        content: Option<&[u8]>,
    ) -> Result<(), ProviderError>;

    /// Does to the cluster what no API does; for people: what was done.
    ///
    /// # Errors
    /// [`ProviderError::Unknown`] for what is not there.
    async fn intervene(&self, intervention: Intervention) -> Result<String, ProviderError>;
}

/// Where a cluster lives, and whose it is.
#[derive(Clone)]
pub struct Place {
    /// The project.
    pub config: Arc<Config>,
    /// State folder of the environment; a provider's own folders are components of it.
    pub home: Home,
    /// This program, started again for containers.
    pub exe: PathBuf,
    /// Random id of the environment; labels everything.
    pub id: String,
    /// The environment's CA.
    pub pki: Pki,
    /// Name of its kubeconfig context.
    pub context: String,
}

/// What may be left of an environment that is not running.
#[derive(Clone)]
pub struct Remains {
    /// State folder of the environment.
    pub home: Home,
    /// This program.
    pub exe: PathBuf,
    /// Random id of the environment, which is on all labels.
    pub id: String,
}

/// What a cluster is connected to.
pub struct Wiring {
    /// The port that its API had, 0 when it had none.
    pub port: u16,
    /// `iss` of the tokens that it takes, [`AKS_SERVER_APPLICATION`] being their audience.
    pub issuer: String,
    /// Reaches the Azure names and trusts the environment's CA.
    pub http: reqwest::Client,
    /// The Azure names that pods look up and images are pulled by.
    pub azure_names: watch::Receiver<Vec<AzureName>>,
    /// The registry that nodes may pull from when a pod brings no secret, as AKS's `--attach-acr` gives.
    pub registry: RegistryLogin,
}

/// Name and administrator of a registry.
#[derive(Clone)]
pub struct RegistryLogin {
    /// `shopacr.azurecr.io`.
    pub host: String,
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

/// What a cluster that is bound knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Port of its API on this machine, to be had again at the next start, where the provider takes one.
    pub port: Option<u16>,
    /// What this machine does not let it do.
    pub reductions: Vec<Reduction>,
}

/// Something that a cluster does on other machines and not on this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduction {
    /// What.
    pub what: String,
    /// The way to get it.
    pub hint: String,
}

/// How a cluster is reached.
#[derive(Clone)]
pub struct Access {
    /// For kubectl and everybody else: as administrator, from this machine.
    pub context: Context,
    /// For aksim itself, as administrator; a cluster in this process is asked without a connection.
    pub client: kube::Client,
    /// Reaches pods, services and nodes, and everything else directly.
    pub dialer: SharedDialer,
}

/// How much [`ClusterProvider::stop`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of the cluster.
    All,
    /// What this start has begun: where pods ran before it, they outlive a start that failed.
    New,
}

/// What is done to a cluster from below its API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intervention {
    /// Cut or restore the power of the machine under a node, and wait until it is down, or runs again.
    Power {
        /// Name of the node.
        node: String,
        /// Whether it has power.
        on: bool,
    },
    /// Kill a container at once, as a crash would.
    KillContainer {
        /// Id, without the scheme that pod statuses put before it.
        id: String,
    },
    /// Send a signal to every process in a container that has a mark, `NAME=value`, in its environment.
    Signal {
        /// The mark.
        mark: String,
        /// The signal.
        signal: Signal,
    },
}

/// Why a cluster does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The machine lacks something.
    #[error("{source}")]
    Machine {
        /// What.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// The way to get it.
        hint: String,
    },
    /// A component of it failed.
    #[error(transparent)]
    Component(#[from] SupervisorError),
    /// Its API refused an object of the system.
    #[error("cluster: {0}")]
    Api(#[source] Box<kube::Error>),
    /// A part of it failed, as its own error says.
    #[error(transparent)]
    Part(Box<dyn std::error::Error + Send + Sync>),
    /// There is no such thing in it.
    #[error("there is no {kind} {name}{}", known_names(kind, known))]
    Unknown {
        /// `node` or `container`.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// The names there are, where they are few.
        known: Vec<String>,
    },
    /// It takes too long.
    #[error("{what} within {seconds} s")]
    Deadline {
        /// What did not happen.
        what: String,
        /// The deadline.
        seconds: u64,
    },
    /// The environment is stopping.
    #[error("the environment is stopping")]
    Stopping,
    /// It was used before it was started, or bound, which is a bug.
    #[error("the cluster has not been started")]
    NotStarted,
}

fn known_names(kind: &str, known: &[String]) -> String {
    match known {
        [] => String::new(),
        names => format!("; {kind}s: {}", names.join(", ")),
    }
}

impl From<kube::Error> for ProviderError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl ProviderError {
    /// Any error of a part.
    pub fn part(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Part(error.into())
    }
}

impl Advice for ProviderError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Machine { hint, .. } => Some(hint.into()),
            _ => None,
        }
    }

    fn class(&self) -> ExitClass {
        match self {
            Self::Machine { .. } => ExitClass::Environment,
            _ => ExitClass::Failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let unknown = |kind, known: &[&str]| ProviderError::Unknown {
            kind,
            name: "x".into(),
            known: known.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(unknown("node", &["a", "b"]).to_string(), "there is no node x; nodes: a, b");
        assert_eq!(unknown("container", &[]).to_string(), "there is no container x");
    }
}
