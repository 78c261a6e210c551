//! The embedded cluster: the API server and the controllers in this process, nodes in namespaces of this machine.
//!
//! Its pods outlive aksim: their parent is the node's agent, which the next aksim finds again.

mod cluster;
mod dialer;
mod error;
mod machines;
mod nodes;
mod system;
mod workers;

use aksim_cluster::provider::{ClusterKind, ClusterProvider, Place, ProviderError, Remains};
use aksim_node::container::{ContainerRuntime, ContainerRuntimeConfig};
use async_trait::async_trait;
use cluster::EmbeddedCluster;
use error::of_node;
use std::sync::Arc;

/// Name of the node's folder in the environment's state.
const NODE: &str = "node";

/// `provider = "embedded"`.
pub struct Embedded;

#[async_trait]
impl ClusterKind for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    async fn open(&self, place: Place) -> Result<Arc<dyn ClusterProvider>, ProviderError> {
        let (state, cache) = (place.home.component(NODE), place.home.cache().join(NODE));
        let mut config = ContainerRuntimeConfig::new(place.exe.clone(), state, cache, &place.id);
        config.ca_pem = Some(place.pki.ca_pem().to_owned());
        let runtime = ContainerRuntime::open(config).await.map_err(of_node)?;
        Ok(Arc::new(EmbeddedCluster::new(place, runtime)))
    }

    async fn clean_up(&self, remains: &Remains) -> Result<(), ProviderError> {
        let state = remains.home.component(NODE);
        if !state.exists() {
            return Ok(());
        }
        let cache = remains.home.cache().join(NODE);
        let config = ContainerRuntimeConfig::new(remains.exe.clone(), state, cache, &remains.id);
        let runtime = ContainerRuntime::open(config).await.map_err(of_node)?;
        runtime.teardown().await.map_err(of_node)
    }
}
