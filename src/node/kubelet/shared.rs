//! What the workers of a kubelet share.

use super::{
    config::{NodeConfig, Paths},
    events::EventSink,
    ipam::Ipam,
    objects::ObjectCache,
    table::PodTable,
};
use crate::runtime::{NodeNetwork, NodeRuntime};
use aksim_runtime::volumes::VolumeFolders;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::Client;
use parking_lot::Mutex;
use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};

/// How long a pod's start waits for the list of services before it goes on without.
const SERVICES_DEADLINE: Duration = Duration::from_secs(5);

pub(super) struct Shared {
    pub node: NodeConfig,
    pub client: Client,
    pub runtime: Arc<dyn NodeRuntime>,
    pub network: Arc<dyn NodeNetwork>,
    pub paths: Paths,
    pub volumes: VolumeFolders,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    pub trust_bundle: Option<PathBuf>,
    pub config_maps: ObjectCache<ConfigMap>,
    pub secrets: ObjectCache<Secret>,
    pub events: EventSink,
    pub addresses: Mutex<Ipam>,
    pub pods: PodTable,
    /// Services of the cluster, `None` before the first list.
    pub services: watch::Receiver<Option<Arc<Vec<Service>>>>,
    /// Told when an image was pulled, so that the Node lists it.
    pub images_changed: Notify,
}

impl Shared {
    /// Services for environment variables.
    pub async fn services(&self) -> Arc<Vec<Service>> {
        let mut receiver = self.services.clone();
        let known = tokio::time::timeout(SERVICES_DEADLINE, receiver.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(services)) => services.clone().unwrap_or_default(),
            _ => Arc::default(),
        }
    }
}
