//! What a kubelet is told about its node, and where it keeps things.

use crate::runtime::NodeRuntime;
use aksim_runtime::{pki::Pki, volumes::VolumeFolders};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A range of IPv4 addresses, `10.244.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

/// Why a text is not an IPv4 range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid IPv4 range {0:?}: expected ADDRESS/PREFIX with a prefix up to 32")]
pub struct CidrError(pub String);

impl std::str::FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let fail = || CidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(fail)?;
        let address: Ipv4Addr = address.parse().map_err(|_| fail())?;
        let prefix: u8 = prefix.parse().ok().filter(|p| *p <= 32).ok_or_else(fail)?;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Ok(Self { base: u32::from(address) & mask, prefix })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl Cidr {
    /// Number of addresses.
    pub fn len(&self) -> u64 {
        1 << (32 - u64::from(self.prefix))
    }
    /// Never: a range holds one address at least.
    pub fn is_empty(&self) -> bool {
        false
    }
    /// Address number `index`, if inside.
    pub fn address(&self, index: u64) -> Option<Ipv4Addr> {
        let offset = u32::try_from(index).ok().filter(|_| index < self.len())?;
        Some(Ipv4Addr::from(self.base + offset))
    }
    /// Position of an address, if inside.
    pub fn index(&self, address: IpAddr) -> Option<u64> {
        let IpAddr::V4(address) = address else { return None };
        u32::from(address).checked_sub(self.base).map(u64::from).filter(|i| *i < self.len())
    }
}

/// What a node has.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk for images, logs and emptyDirs.
    pub ephemeral_bytes: u64,
    /// Largest number of pods.
    pub pods: u32,
}

/// One node as the cluster knows it.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Node name: `aks-system-12345678-vmss000000`.
    pub name: String,
    /// Labels, AKS's and the pool's ([`crate::aks::node_labels`]).
    pub labels: BTreeMap<String, String>,
    /// Taints it registers with, `key=value:Effect`.
    pub taints: Vec<String>,
    /// `azure:///subscriptions/…`.
    pub provider_id: String,
    /// Address inside the node network.
    pub internal_ip: IpAddr,
    /// Range its pods get addresses from.
    pub pod_cidr: Cidr,
    /// Capacity.
    pub capacity: Capacity,
}

/// Configuration of a [`super::Kubelet`].
#[derive(Clone)]
pub struct KubeletConfig {
    /// The node.
    pub node: NodeConfig,
    /// Client to the API server, as `system:node:NAME` in group `system:nodes`.
    pub client: kube::Client,
    /// Runs the containers.
    pub runtime: Arc<dyn NodeRuntime>,
    /// Folder for volumes and logs of this node; private to the user.
    pub state_dir: PathBuf,
    /// Disks and file shares that claims are bound to, the same for all nodes.
    pub volumes: VolumeFolders,
    /// The environment's CA: server certificate of the kubelet's own API, and who may call it.
    pub pki: Pki,
    /// Address of cluster DNS, for pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: IpAddr,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// CA bundle (PEM) mounted into every container at the places where images look for one, and
    /// named by `SSL_CERT_FILE`. This differs from AKS, whose nodes leave images alone: here the
    /// Azure names are served with certificates of the environment's own CA.
    pub trust_bundle: Option<PathBuf>,
    /// Port of the kubelet's API on the internal address; AKS uses 10250. 0 takes a free one.
    pub port: u16,
}

/// Paths below the kubelet's folder.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    root: PathBuf,
}

impl Paths {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }
    pub fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(plugin).join(name)
    }
    pub fn hosts_file(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }
    pub fn resolv_conf(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("resolv.conf")
    }
    pub fn hostname_file(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("hostname")
    }
    pub fn termination_log(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod(uid).join("containers").join(container).join(format!("{attempt}.termination-log"))
    }
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs().join(format!("{namespace}_{name}_{uid}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_addresses() {
        let range: Cidr = "10.244.1.7/24".parse().unwrap();
        assert_eq!(range.to_string(), "10.244.1.0/24");
        assert_eq!(range.address(5), Some(Ipv4Addr::new(10, 244, 1, 5)));
        assert_eq!(range.address(256), None);
        assert_eq!(range.index("10.244.1.9".parse().unwrap()), Some(9));
        assert_eq!(range.index("10.244.2.9".parse().unwrap()), None);
        assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().len(), 1 << 32);
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/0"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
