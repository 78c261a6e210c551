//! The kubelet: runs the pods that are bound to its node, and tells the API how they fare.
//!
//! One worker a pod, level-triggered. Containers outlive this process: on start the sandboxes
//! that the runtime still knows are adopted by pod uid; those without a pod are removed.
//!
//! What differs from the kubelet of AKS: the environment's CA is mounted into every container
//! ([`KubeletConfig::trust_bundle`]); volumes of claims, CSI and Azure disks or files are refused
//! with a `FailedMount` event; memory `emptyDir`s are folders on disk without root.

mod actions;
mod backoff;
mod config;
mod downward;
mod env;
mod etc_files;
mod events;
mod images;
mod ipam;
mod log_rotation;
mod node;
mod objects;
mod pod;
mod pods;
mod probes;
mod security;
mod server;
mod services;
mod shared;
mod slot;
mod starting;
mod status;
mod stopping;
mod table;
mod tls;
mod volumes;
mod worker;

pub use config::{Capacity, Cidr, CidrError, KubeletConfig, NodeConfig};

use crate::runtime::{RuntimeError, SandboxStatus};
use aksim_runtime::{
    component::{Component, ComponentError, RunContext},
    files::create_private_dir,
    pki::{Pki, PkiError},
};
use async_trait::async_trait;
use parking_lot::Mutex;
use shared::Shared;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
};

/// Why a kubelet could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// Its folder cannot be made.
    #[error("{path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its address cannot be listened on in the node network.
    #[error("kubelet cannot listen on {address} in the node network: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The runtime does not tell what runs.
    #[error("the container runtime does not answer: {0}")]
    Runtime(#[from] RuntimeError),
    /// The server certificate cannot be issued.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// The kubelet of one node.
pub struct Kubelet {
    shared: Arc<Shared>,
    events: events::EventWriter,
    services: watch::Sender<Option<Arc<Vec<k8s_openapi::api::core::v1::Service>>>>,
    found: Vec<SandboxStatus>,
    listener: TcpListener,
    address: SocketAddr,
    pki: Pki,
}

impl Kubelet {
    /// Takes the kubelet's address in the node network, and finds what runs already.
    ///
    /// # Errors
    /// [`KubeletError`].
    pub async fn bind(config: KubeletConfig) -> Result<Self, KubeletError> {
        let folder = |path: &PathBuf| {
            let path = path.clone();
            move |source| KubeletError::Folder { path, source }
        };
        create_private_dir(&config.state_dir).map_err(folder(&config.state_dir))?;
        let network = config.runtime.network();
        let address = SocketAddr::new(config.node.internal_ip, config.port);
        let listen = |source| KubeletError::Listen { address, source };
        network.add_address(address.ip()).await.map_err(listen)?;
        let listener = network.listen_tcp(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let found = config.runtime.sandboxes().await?;
        // Several nodes may share one runtime; ours are those with an address of our range, and
        // those of the host network that we keep a folder for.
        let mut addresses = ipam::Ipam::new(config.node.pod_cidr);
        let paths = config::Paths::new(&config.state_dir);
        let own = |s: &SandboxStatus| match s.spec.host_network {
            true => paths.pod(&s.spec.uid).exists(),
            false => config.node.pod_cidr.index(s.spec.ip).is_some(),
        };
        let found: Vec<SandboxStatus> = found.into_iter().filter(own).collect();
        for sandbox in found.iter().filter(|s| s.ready && !s.spec.host_network) {
            addresses.adopt(sandbox.spec.ip, &sandbox.spec.uid);
        }
        let (sink, events) = events::events(config.client.clone(), &config.node.name);
        let (services, services_known) = watch::channel(None);
        let shared = Shared {
            config_maps: objects::ObjectCache::new(config.client.clone()),
            secrets: objects::ObjectCache::new(config.client.clone()),
            node: config.node,
            client: config.client,
            runtime: config.runtime,
            network,
            paths,
            volumes: config.volumes,
            cluster_dns: config.cluster_dns,
            cluster_domain: config.cluster_domain,
            trust_bundle: config.trust_bundle,
            events: sink,
            addresses: Mutex::new(addresses),
            pods: table::PodTable::default(),
            services: services_known,
            images_changed: Notify::new(),
        };
        Ok(Self { shared: Arc::new(shared), events, services, found, listener, address, pki: config.pki })
    }

    /// Where its API listens in the node network.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[async_trait]
impl Component for Kubelet {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let Self { shared, events, services, found, listener, address, pki } = *self;
        let stop = context.shutdown.clone();
        let mut tasks: JoinSet<Result<(), ComponentError>> = JoinSet::new();
        let server = server::serve(shared.clone(), listener, &pki, stop.clone())?;
        tasks.spawn(async move { server.await.map_err(Into::into) });
        tasks.spawn(endless(events.run(stop.clone())));
        tasks.spawn(endless(services::follow(shared.client.clone(), services, stop.clone())));
        tasks.spawn(endless(log_rotation::run(shared.clone(), stop.clone())));
        let registered = node::register(&shared, address.port(), &stop).await;
        if !registered {
            tasks.shutdown().await;
            return Ok(());
        }
        tasks.spawn(endless(node::heartbeat(shared.clone(), address.port(), stop.clone())));
        tasks.spawn(endless(pods::run(shared.clone(), found, context.readiness.clone(), stop.clone())));
        while let Some(ended) = tasks.join_next().await {
            if stop.is_cancelled() {
                continue;
            }
            // Nothing in here ends by itself.
            tasks.shutdown().await;
            return match ended {
                Ok(Ok(())) => Err("a part of the kubelet ended".into()),
                Ok(Err(error)) => Err(error),
                Err(panic) => Err(panic.into()),
            };
        }
        Ok(())
    }
}

async fn endless(part: impl Future<Output = ()>) -> Result<(), ComponentError> {
    part.await;
    Ok(())
}

#[cfg(test)]
mod tests;
