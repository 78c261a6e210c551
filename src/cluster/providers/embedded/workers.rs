//! What makes pods of objects: the controllers, and on the nodes kubelets, service proxy and DNS.

use crate::{
    cluster::{DEADLINE, MASTERS},
    error::EmbeddedError,
    machines::{Machine, PowerBoard},
    nodes::node_configs,
    system::CLUSTER_DNS,
};
use aksim_cluster::provider::{Place, ProviderError};
use aksim_controllers::{Controllers, ControllersConfig};
use aksim_kubernetes::ApiServer;
use aksim_model::endpoint::AzureName;
use aksim_node::{
    container::ContainerRuntime,
    dns::{ClusterDns, DnsConfig},
    kubelet::{Kubelet, KubeletConfig, NodeConfig},
    proxy::{ProxyConfig, ServiceProxy},
    runtime::NodeRuntime,
};
use aksim_runtime::{supervisor::Supervisor, volumes::VolumeFolders};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::sync::watch;

/// Port of the kubelet's own API, as in AKS.
const KUBELET_PORT: u16 = 10250;
/// Domain of cluster DNS.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// What the workers are made with.
pub struct WorkersConfig<'a> {
    /// Where the cluster lives.
    pub place: &'a Place,
    /// The containers.
    pub runtime: Arc<ContainerRuntime>,
    /// The API server, which need not run yet.
    pub api_server: &'a ApiServer,
    /// The Azure names that pods look up.
    pub azure_names: watch::Receiver<Vec<AzureName>>,
}

/// Controllers, and the parts of the nodes with their addresses taken.
pub struct Workers {
    controllers: Controllers,
    proxy: ServiceProxy,
    dns: ClusterDns,
    machines: Vec<Machine>,
    power: PowerBoard,
}

impl Workers {
    /// Takes the addresses of service proxy, DNS and a kubelet for each node of each pool.
    pub async fn bind(config: WorkersConfig<'_>) -> Result<Self, EmbeddedError> {
        let nodes = node_configs(&config.place.config)?;
        let dns_address = SocketAddr::new(CLUSTER_DNS.parse()?, 53);
        let controllers = config.controllers();
        let proxy = config.proxy(&nodes, dns_address);
        let dns = config.dns(dns_address).await?;
        let (mut machines, mut power) = (Vec::new(), PowerBoard::default());
        for (index, node) in nodes.into_iter().enumerate() {
            let kubelet = config.kubelet(index, node, dns_address.ip());
            machines.push(power.plug(Kubelet::bind(kubelet.clone()).await?, kubelet));
        }
        Ok(Self { controllers, proxy, dns, machines, power })
    }

    /// Switches of the machines under the nodes.
    pub fn power(&self) -> PowerBoard {
        self.power.clone()
    }

    /// Starts them; the API server runs.
    pub async fn start(self, supervisor: &mut Supervisor) -> Result<(), ProviderError> {
        supervisor.start(self.controllers, vec![], DEADLINE).await?;
        supervisor.start(self.proxy, vec![], DEADLINE).await?;
        supervisor.start(self.dns, vec![], DEADLINE).await?;
        for machine in self.machines {
            supervisor.start(machine, vec![], DEADLINE).await?;
        }
        Ok(())
    }
}

impl WorkersConfig<'_> {
    fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        self.api_server.in_process_client(user, groups)
    }

    fn volumes(&self) -> VolumeFolders {
        VolumeFolders::new(self.place.home.component("volumes"))
    }

    fn controllers(&self) -> Controllers {
        let config = ControllersConfig {
            root_ca_pem: self.place.pki.ca_pem().to_owned(),
            volumes: self.volumes(),
            ..ControllersConfig::default()
        };
        Controllers::new(self.client("system:kube-controller-manager", &[MASTERS]), config)
    }

    fn proxy(&self, nodes: &[NodeConfig], dns: SocketAddr) -> ServiceProxy {
        ServiceProxy::new(ProxyConfig {
            client: self.client("system:kube-proxy", &[MASTERS]),
            network: self.runtime.network(),
            node_addresses: nodes.iter().map(|n| n.internal_ip).collect(),
            nodes: nodes.iter().map(|n| (n.name.clone(), n.pod_cidr)).collect(),
            reserved: vec![dns],
            api_server: Some(self.api_server.address()),
            azure_names: self.azure_names.clone(),
        })
    }

    async fn dns(&self, address: SocketAddr) -> Result<ClusterDns, EmbeddedError> {
        let config = DnsConfig {
            client: self.client("system:coredns", &[MASTERS]),
            network: self.runtime.network(),
            address,
            domain: CLUSTER_DOMAIN.into(),
            azure_names: self.azure_names.clone(),
            upstream: None,
        };
        Ok(ClusterDns::bind(config).await?)
    }

    fn kubelet(&self, index: usize, node: NodeConfig, cluster_dns: IpAddr) -> KubeletConfig {
        let user = format!("system:node:{}", node.name);
        KubeletConfig {
            state_dir: self.place.home.component("kubelet").join(index.to_string()),
            volumes: self.volumes(),
            client: self.client(&user, &["system:nodes", MASTERS]),
            runtime: self.runtime.clone(),
            pki: self.place.pki.clone(),
            cluster_dns,
            cluster_domain: CLUSTER_DOMAIN.into(),
            trust_bundle: Some(self.place.pki.ca_path().to_owned()),
            port: KUBELET_PORT,
            node,
        }
    }
}
