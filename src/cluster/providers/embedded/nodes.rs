//! The nodes of the embedded cluster: what the pools of the project make of them.

use crate::error::EmbeddedError;
use aksim_config::Config;
use aksim_node::{
    aks::{self, AzureLocation, NodePool, PoolMode},
    kubelet::{Capacity, Cidr, NodeConfig},
};
use std::net::{IpAddr, Ipv4Addr};

/// Pods a node takes: AKS's default with overlay networking.
const MAX_PODS: u32 = 250;

/// The nodes of all pools, numbered through: addresses follow the number.
pub fn node_configs(config: &Config) -> Result<Vec<NodeConfig>, EmbeddedError> {
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
            let number = u8::try_from(nodes.len()).ok().filter(|n| *n < 250).ok_or(EmbeddedError::TooMany)?;
            let name = aks::node_name(&pool.name, &location, instance);
            nodes.push(NodeConfig {
                labels: aks::node_labels(&data, &location, &name, instance),
                taints: aks::node_taints(&data),
                provider_id: aks::provider_id(&pool.name, &location, instance),
                internal_ip: IpAddr::V4(Ipv4Addr::new(10, 224, 0, 4 + number)),
                pod_cidr: format!("10.244.{number}.0/24").parse::<Cidr>()?,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_numbered_through_the_pools() {
        let text = "name = \"shop\"\n[[cluster.node-pools]]\nname = \"system\"\ncount = 2\n[[cluster.node-pools]]\nname = \"user\"\nmode = \"User\"\n";
        let config = aksim_config::project::parse(text, std::path::Path::new("/p")).unwrap();
        let nodes = node_configs(&config).unwrap();
        let addresses: Vec<String> = nodes.iter().map(|n| n.internal_ip.to_string()).collect();
        assert_eq!(addresses, ["10.224.0.4", "10.224.0.5", "10.224.0.6"]);
        assert_eq!(nodes[2].pod_cidr.to_string(), "10.244.2.0/24");
        assert!(nodes[0].name.starts_with("aks-system-") && nodes[0].name.ends_with("-vmss000000"));
    }
}
