//! Why the embedded cluster does not come up.

use aksim_cluster::provider::ProviderError;
use aksim_node::runtime::RuntimeError;

/// Why a part of the embedded cluster does not come up.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The container runtime.
    #[error("node: {0}")]
    Node(#[from] RuntimeError),
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

impl From<EmbeddedError> for ProviderError {
    fn from(error: EmbeddedError) -> Self {
        match &error {
            EmbeddedError::Node(RuntimeError::Unsupported { hint, .. }) => {
                let hint = hint.clone();
                Self::Machine { source: error.into(), hint }
            }
            _ => Self::part(error),
        }
    }
}

/// An error of the container runtime.
pub fn of_node(error: RuntimeError) -> ProviderError {
    EmbeddedError::Node(error).into()
}
