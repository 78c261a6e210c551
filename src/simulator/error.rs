//! Why an environment does not come up.

use crate::StateError;
use aksim_cluster::{kubeconfig::KubeconfigError, manifests::ManifestError};
use aksim_database::DatabaseError;
use aksim_git::GitError;
use aksim_identity::IdentityError;
use aksim_images::BuildError;
use aksim_ingress::IngressError;
use aksim_kubernetes::ApiServerError;
use aksim_node::runtime::RuntimeError;
use aksim_registry::RegistryError;
use aksim_runtime::{net::HttpClientError, pki::PkiError, supervisor::SupervisorError};
use std::io;

/// Why an environment does not come up, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The event log.
    #[error("event log: {0}")]
    Events(#[source] io::Error),
    /// The certificate authority.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The issuer.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The pipelines.
    #[error(transparent)]
    Pipelines(#[from] aksim_pipelines::PipelinesError),
    /// The Git host.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The database server.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The container runtime.
    #[error("node: {0}")]
    Node(#[from] RuntimeError),
    /// Kubelet, service proxy or DNS.
    #[error(transparent)]
    NodePart(#[from] NodeError),
    /// The API server.
    #[error(transparent)]
    ApiServer(#[from] ApiServerError),
    /// The image builder.
    #[error(transparent)]
    Images(#[from] BuildError),
    /// The front door.
    #[error(transparent)]
    Ingress(#[from] IngressError),
    /// A port that was asked for cannot be had.
    #[error("{what}: {source}")]
    Port {
        /// Whose port.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A component failed.
    #[error(transparent)]
    Component(#[from] SupervisorError),
    /// The cluster refused an object of the system.
    #[error("cluster: {0}")]
    Cluster(#[source] Box<kube::Error>),
    /// A manifest is not right.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// kubeconfig.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// An HTTP client.
    #[error(transparent)]
    HttpClient(#[from] HttpClientError),
    /// The control socket.
    #[error("control socket: {0}")]
    Control(#[source] io::Error),
    /// Somebody asked it to stop before it was up.
    #[error("interrupted")]
    Interrupted,
}

impl From<kube::Error> for SimulatorError {
    fn from(error: kube::Error) -> Self {
        Self::Cluster(Box::new(error))
    }
}

impl SimulatorError {
    /// Next step for the user.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Node(RuntimeError::Unsupported { hint, .. }) => Some(hint.clone()),
            error if is_disk_full(error) => Some(DISK_FULL_HINT.into()),
            Self::State(StateError::Running { .. }) => Some("`aksim status` shows it, `aksim down` stops it".into()),
            Self::Port { .. } => Some("choose another port in aksim.toml, or stop what listens there".into()),
            Self::Database(error) => error.hint().map(str::to_owned),
            Self::Registry(error) => error.hint().map(str::to_owned),
            Self::Git(error) => error.hint().map(str::to_owned),
            Self::Identity(error) => error.hint().map(str::to_owned),
            Self::Manifest(error) => error.hint().map(str::to_owned),
            _ => None,
        }
    }

    /// Whether the machine lacks something, rather than aksim or the project being wrong.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Port { .. } | Self::Node(RuntimeError::Unsupported { .. }) | Self::Events(_) => true,
            error if is_disk_full(error) => true,
            Self::Database(error) => error.is_missing_requirement(),
            Self::Git(error) => error.is_missing_requirement(),
            Self::State(StateError::File { .. }) => true,
            _ => false,
        }
    }
}

/// What to do about a disk that is full.
pub const DISK_FULL_HINT: &str = "free some space, or set AKSIM_HOME to a folder on another disk; \
     `aksim down --purge` removes this environment";

/// Whether a full disk or a used up quota is behind an error.
pub fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.into_iter().any(|error| {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        // Some libraries give the system's error as text only.
        matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
            || error.to_string().contains("No space left on device")
    })
}

/// Why a part of a node does not come up.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The kubelet.
    #[error("kubelet: {0}")]
    Kubelet(#[from] aksim_node::kubelet::KubeletError),
    /// Cluster DNS.
    #[error("cluster DNS: {0}")]
    Dns(#[from] aksim_node::dns::DnsError),
    /// An address of ours is malformed, which is a bug.
    #[error("address: {0}")]
    Address(#[from] std::net::AddrParseError),
    /// A range of ours is malformed, which is a bug.
    #[error(transparent)]
    Range(#[from] aksim_node::kubelet::CidrError),
    /// More nodes than addresses.
    #[error("more than 250 nodes")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_environments_fault_wherever_it_shows() {
        let full = || io::Error::from_raw_os_error(nix::libc::ENOSPC);
        let file = SimulatorError::State(StateError::File { path: "/x".into(), source: full() });
        let events = SimulatorError::Events(io::Error::other(full().to_string()));
        for error in [file, events] {
            assert!(error.is_environment());
            assert_eq!(error.hint().as_deref(), Some(DISK_FULL_HINT));
        }
        let other = SimulatorError::Control(io::ErrorKind::NotFound.into());
        assert!(!other.is_environment() && other.hint().is_none());
    }
}
