//! Nodes of the embedded cluster: one container runtime, a kubelet a node, service proxy, DNS.

use super::{
    Options, SimulatorError,
    error::NodeError,
    machines::{Machine, PowerBoard},
};
use crate::objects::CLUSTER_DNS;
use aksim_config::{Config, home::Home};
use aksim_model::endpoint::AzureName;
use aksim_node::{
    aks::{self, AzureLocation, NodePool, PoolMode},
    container::{ContainerRuntime, ContainerRuntimeConfig},
    dns::{ClusterDns, DnsConfig},
    kubelet::{Capacity, Cidr, Kubelet, KubeletConfig, NodeConfig},
    proxy::{ProxyConfig, ServiceProxy},
    runtime::{NodeNetwork, NodeRuntime, RegistryCredentials},
};
use aksim_runtime::{
    net::{Dialer, DirectDialer, SharedDialer},
    pki::Pki,
    supervisor::Supervisor,
    volumes::VolumeFolders,
};
use async_trait::async_trait;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, sync::watch};

/// Port of the kubelet's own API, as in AKS.
const KUBELET_PORT: u16 = 10250;
/// Pods a node takes: AKS's default with overlay networking.
const MAX_PODS: u32 = 250;

/// The node side of a running environment.
pub struct Nodes {
    runtime: Arc<ContainerRuntime>,
    dialer: SharedDialer,
}

impl Nodes {
    /// Opens the container runtime, finding what an earlier aksim has left running.
    pub async fn open(home: &Home, options: &Options, id: &str, pki: &Pki) -> Result<Self, SimulatorError> {
        let mut config =
            ContainerRuntimeConfig::new(options.exe.clone(), home.component("node"), home.cache().join("node"), id);
        config.ca_pem = Some(pki.ca_pem().to_owned());
        let runtime = ContainerRuntime::open(config).await?;
        let dialer = Arc::new(ClusterDialer { network: runtime.network() });
        Ok(Self { runtime, dialer })
    }

    /// The Azure names that images are pulled by, and credentials for pulls from a registry when a
    /// pod brings none, as AKS's `--attach-acr` gives.
    pub fn attach_registry(&self, azure_names: &[AzureName], host: &str, username: &str, password: &str) {
        self.runtime.set_azure_names(azure_names.to_vec());
        let credentials = RegistryCredentials::Basic { username: username.to_owned(), password: password.to_owned() };
        self.runtime.set_credentials(host, credentials);
    }

    /// Reaches pods, services and nodes through the node network, everything else directly.
    pub fn dialer(&self) -> SharedDialer {
        self.dialer.clone()
    }

    /// The container runtime.
    pub fn runtime(&self) -> Arc<dyn NodeRuntime> {
        self.runtime.clone()
    }

    /// What this machine does not let the runtime do, with the way to get it.
    pub fn reductions(&self) -> Vec<(String, String)> {
        self.runtime.reductions()
    }

    /// Takes the addresses of service proxy, DNS and a kubelet for each node of each pool.
    pub async fn bind(
        &self,
        config: &Config,
        home: &Home,
        pki: &Pki,
        api_server: SocketAddr,
        client: impl Fn(&str, &[&str]) -> kube::Client,
        azure_names: watch::Receiver<Vec<AzureName>>,
    ) -> Result<NodeParts, SimulatorError> {
        let dns: IpAddr = CLUSTER_DNS.parse().map_err(NodeError::from)?;
        let network = self.runtime.network();
        let nodes = node_configs(config)?;
        let dns_address = SocketAddr::new(dns, 53);
        let proxy = ServiceProxy::new(ProxyConfig {
            client: client("system:kube-proxy", &["system:masters"]),
            network: network.clone(),
            node_addresses: nodes.iter().map(|n| n.internal_ip).collect(),
            nodes: nodes.iter().map(|n| (n.name.clone(), n.pod_cidr)).collect(),
            reserved: vec![dns_address],
            api_server: Some(api_server),
            azure_names: azure_names.clone(),
        });
        let dns_server = ClusterDns::bind(DnsConfig {
            client: client("system:coredns", &["system:masters"]),
            network,
            address: dns_address,
            domain: "cluster.local".into(),
            azure_names,
            upstream: None,
        })
        .await
        .map_err(NodeError::from)?;
        let (mut machines, mut power) = (Vec::new(), PowerBoard::default());
        for (index, node) in nodes.into_iter().enumerate() {
            let user = format!("system:node:{}", node.name);
            let kubelet_config = KubeletConfig {
                state_dir: home.component("kubelet").join(index.to_string()),
                volumes: VolumeFolders::new(home.component("volumes")),
                client: client(&user, &["system:nodes", "system:masters"]),
                runtime: self.runtime(),
                pki: pki.clone(),
                cluster_dns: dns,
                cluster_domain: "cluster.local".into(),
                trust_bundle: Some(pki.ca_path().to_owned()),
                port: KUBELET_PORT,
                node,
            };
            let kubelet = Kubelet::bind(kubelet_config.clone()).await.map_err(NodeError::from)?;
            machines.push(power.plug(kubelet, kubelet_config));
        }
        Ok(NodeParts { proxy, dns: dns_server, machines, power })
    }

    /// Stops containers and takes the node's namespaces, mounts and control groups down.
    pub async fn teardown(&self) -> Result<(), SimulatorError> {
        Ok(self.runtime.teardown().await?)
    }

    /// The same after a start that failed, but for pods that ran before it: they outlive aksim.
    pub async fn teardown_new(&self) -> Result<(), SimulatorError> {
        if self.runtime.found_pods() { Ok(()) } else { self.teardown().await }
    }
}

/// Parts of the nodes with their addresses taken.
pub struct NodeParts {
    proxy: ServiceProxy,
    dns: ClusterDns,
    machines: Vec<Machine>,
    power: PowerBoard,
}

impl NodeParts {
    /// Switches of the machines under the nodes.
    pub fn power(&self) -> PowerBoard {
        self.power.clone()
    }

    /// Starts them; the API server runs.
    pub async fn start(self, supervisor: &mut Supervisor, deadline: Duration) -> Result<(), SimulatorError> {
        supervisor.start(self.proxy, vec![], deadline).await?;
        supervisor.start(self.dns, vec![], deadline).await?;
        for machine in self.machines {
            supervisor.start(machine, vec![], deadline).await?;
        }
        Ok(())
    }
}

/// Takes down what an environment that is not running has left.
pub async fn teardown(home: &Home, exe: &Path, id: &str) -> Result<(), SimulatorError> {
    let state = home.component("node");
    if !state.exists() {
        return Ok(());
    }
    let config = ContainerRuntimeConfig::new(exe.to_owned(), state, home.cache().join("node"), id);
    Ok(ContainerRuntime::open(config).await?.teardown().await?)
}

/// The nodes of all pools, numbered through: addresses follow the number.
fn node_configs(config: &Config) -> Result<Vec<NodeConfig>, SimulatorError> {
    let location = AzureLocation {
        subscription: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, config.tenant.as_bytes()).to_string(),
        cluster: config.name.to_string(),
        resource_group: format!("rg-{}", config.name),
        region: "westeurope".into(),
    };
    let mut nodes = Vec::new();
    for pool in &config.node_pools {
        let data = NodePool {
            name: pool.name.clone(),
            mode: if pool.mode == "System" { PoolMode::System } else { PoolMode::User },
            vm_size: pool.vm_size.clone(),
            spot: false,
            labels: pool.labels.clone(),
            taints: pool.taints.clone(),
            zones: pool.zones.clone(),
        };
        for instance in 0..pool.count {
            let number = u8::try_from(nodes.len()).ok().filter(|n| *n < 250).ok_or(NodeError::TooMany)?;
            let name = aks::node_name(&pool.name, &location, instance);
            nodes.push(NodeConfig {
                labels: aks::node_labels(&data, &location, &name, instance),
                taints: aks::node_taints(&data),
                provider_id: aks::provider_id(&pool.name, &location, instance),
                internal_ip: IpAddr::V4(Ipv4Addr::new(10, 224, 0, 4 + number)),
                pod_cidr: format!("10.244.{number}.0/24").parse::<Cidr>().map_err(NodeError::from)?,
                capacity: capacity(),
                name,
            });
        }
    }
    Ok(nodes)
}

/// What this machine has; every node claims all of it.
fn capacity() -> Capacity {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let disk = nix::sys::statvfs::statvfs("/").map_or(0, |s| s.blocks() * s.fragment_size());
    Capacity {
        cpu_millis: cpus * 1000,
        memory_bytes: memory.unwrap_or(4 << 20) * 1024,
        ephemeral_bytes: disk,
        pods: MAX_PODS,
    }
}

/// Sends what belongs to the cluster's ranges through the node network.
struct ClusterDialer {
    network: Arc<dyn NodeNetwork>,
}

fn in_cluster(ip: IpAddr) -> bool {
    match ip {
        // 10.0 services, 10.224 nodes, 10.225 Azure names, 10.244 pods.
        IpAddr::V4(ip) => matches!(ip.octets(), [10, 0 | 224 | 225 | 244, ..]),
        IpAddr::V6(_) => false,
    }
}

#[async_trait]
impl Dialer for ClusterDialer {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        if in_cluster(address.ip()) { self.network.dial(address).await } else { DirectDialer.dial(address).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_numbered_through_the_pools() {
        let text = "name = \"shop\"\n[[cluster.node-pools]]\nname = \"system\"\ncount = 2\n[[cluster.node-pools]]\nname = \"user\"\nmode = \"User\"\n";
        let config = aksim_config::project::parse(text, Path::new("/p")).unwrap();
        let nodes = node_configs(&config).unwrap();
        let addresses: Vec<String> = nodes.iter().map(|n| n.internal_ip.to_string()).collect();
        assert_eq!(addresses, ["10.224.0.4", "10.224.0.5", "10.224.0.6"]);
        assert_eq!(nodes[2].pod_cidr.to_string(), "10.244.2.0/24");
        assert!(nodes[0].name.starts_with("aks-system-") && nodes[0].name.ends_with("-vmss000000"));
    }
}
