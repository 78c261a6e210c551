//! What the runtime is told by the simulator.

use crate::runtime::RegistryCredentials;
use aksim_model::endpoint::AzureName;
use std::{collections::BTreeMap, fmt, net::Ipv4Addr, path::PathBuf, str::FromStr};

/// An IPv4 range: `10.244.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Network {
    /// First address.
    pub address: Ipv4Addr,
    /// Prefix length, bits.
    pub prefix: u8,
}

/// Why a text is not an IPv4 range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an IPv4 range such as 10.244.0.0/16")]
pub struct Ipv4NetworkError(String);

impl Ipv4Network {
    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// Whether an address is in the range.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) & self.mask() == 0
    }

    /// First address that a host may have: the gateway of a pod network.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits((self.address.to_bits() & self.mask()) + 1)
    }
}

impl FromStr for Ipv4Network {
    type Err = Ipv4NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
            (prefix <= 32).then_some(Self { address, prefix })
        };
        parse().ok_or_else(|| Ipv4NetworkError(text.to_owned()))
    }
}

impl fmt::Display for Ipv4Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Configuration of a [`super::ContainerRuntime`].
#[derive(Clone)]
pub struct ContainerRuntimeConfig {
    /// This program, which the runtime starts again as its agent.
    pub exe: PathBuf,
    /// State of this environment's node: `HOME/node`.
    pub state_dir: PathBuf,
    /// Cache of blobs and layers, shared by all environments.
    pub cache_dir: PathBuf,
    /// Random id of the environment; names its control groups.
    pub environment_id: String,
    /// Network of all pods of all nodes; its first address is the bridge's.
    pub pod_network: Ipv4Network,
    /// Network of the services.
    pub service_network: Ipv4Network,
    /// Further ranges that exist only in the node network: node addresses, virtual addresses.
    pub node_networks: Vec<Ipv4Network>,
    /// Azure names of this environment: registries are reached at their targets.
    pub azure_names: Vec<AzureName>,
    /// The environment's CA, PEM; trusted beside the public ones.
    pub ca_pem: Option<String>,
    /// Credentials used for a registry when the pod brings none.
    pub credentials: BTreeMap<String, RegistryCredentials>,
}

impl ContainerRuntimeConfig {
    /// A configuration with AKS's default networks and no registry of its own.
    pub fn new(exe: PathBuf, state_dir: PathBuf, cache_dir: PathBuf, environment_id: &str) -> Self {
        let network = |a, b, prefix| Ipv4Network { address: Ipv4Addr::new(10, a, b, 0), prefix };
        Self {
            exe,
            state_dir,
            cache_dir,
            environment_id: environment_id.to_owned(),
            pod_network: network(244, 0, 16),
            service_network: network(0, 0, 16),
            node_networks: vec![network(224, 0, 16), network(225, 0, 16)],
            azure_names: vec![],
            ca_pem: None,
            credentials: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let pods: Ipv4Network = "10.244.0.0/16".parse().unwrap();
        assert!(pods.contains(Ipv4Addr::new(10, 244, 9, 9)) && !pods.contains(Ipv4Addr::new(10, 245, 0, 1)));
        assert_eq!(pods.gateway(), Ipv4Addr::new(10, 244, 0, 1));
        assert!("0.0.0.0/0".parse::<Ipv4Network>().unwrap().contains(Ipv4Addr::LOCALHOST));
        assert!("10.0.0.0/33".parse::<Ipv4Network>().is_err());
    }
}
