//! What AKS gives a node: names, provider ids, labels, taints. Data, no behaviour.

use std::collections::BTreeMap;

/// `nodeInfo.kubeletVersion` and server version of the emulated cluster.
pub const KUBERNETES_VERSION: &str = "v1.36.0";
/// Version of the AKS node image that is named in labels.
pub const NODE_IMAGE_VERSION: &str = "AKSUbuntu-2204gen2containerd-202606.01.0";

/// Whether a pool may run system pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// Runs system pods.
    System,
    /// Runs applications only.
    User,
}

impl PoolMode {
    /// As in the label `kubernetes.azure.com/mode`.
    pub fn label(self) -> &'static str {
        match self {
            PoolMode::System => "system",
            PoolMode::User => "user",
        }
    }
}

/// A node pool, as `az aks nodepool show` names its fields.
#[derive(Clone, Debug)]
pub struct NodePool {
    /// Pool name: 1 to 12 lower-case letters and digits.
    pub name: String,
    /// Mode.
    pub mode: PoolMode,
    /// Virtual machine size: `Standard_D4s_v5`.
    pub vm_size: String,
    /// Spot instances: tainted and labelled so.
    pub spot: bool,
    /// Labels of the pool's own.
    pub labels: BTreeMap<String, String>,
    /// Taints of the pool's own: `key=value:Effect`.
    pub taints: Vec<String>,
    /// Availability zones, `1` to `3`; empty for none.
    pub zones: Vec<String>,
}

/// Where a cluster is said to lie in Azure.
#[derive(Clone, Debug)]
pub struct AzureLocation {
    /// Subscription id.
    pub subscription: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Resource group of the cluster.
    pub resource_group: String,
    /// Region: `westeurope`.
    pub region: String,
}

impl AzureLocation {
    /// The group that AKS makes for the nodes: `MC_GROUP_CLUSTER_REGION`.
    pub fn node_resource_group(&self) -> String {
        format!("MC_{}_{}_{}", self.resource_group, self.cluster, self.region)
    }
}

/// Eight digits that AKS derives from the cluster and puts in node names.
pub fn cluster_suffix(location: &AzureLocation) -> String {
    let id = uuid::Uuid::new_v5(
        &uuid::Uuid::NAMESPACE_URL,
        format!("{}/{}/{}", location.subscription, location.resource_group, location.cluster).as_bytes(),
    );
    format!("{:08}", id.as_u128() % 100_000_000)
}

/// Name of the scale set of a pool: `aks-system-12345678-vmss`.
pub fn scale_set(pool: &str, location: &AzureLocation) -> String {
    format!("aks-{pool}-{}-vmss", cluster_suffix(location))
}

/// Name of a node: scale set name and six base-36 digits, as virtual machine scale sets do.
pub fn node_name(pool: &str, location: &AzureLocation, instance: u32) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut tail = [b'0'; 6];
    let mut rest = instance;
    for place in tail.iter_mut().rev() {
        *place = DIGITS[(rest % 36) as usize];
        rest /= 36;
    }
    format!("{}{}", scale_set(pool, location), String::from_utf8_lossy(&tail))
}

/// `spec.providerID` of a node.
pub fn provider_id(pool: &str, location: &AzureLocation, instance: u32) -> String {
    format!(
        "azure:///subscriptions/{}/resourceGroups/{}/providers/Microsoft.Compute/virtualMachineScaleSets/{}/virtualMachines/{instance}",
        location.subscription,
        location.node_resource_group().to_lowercase(),
        scale_set(pool, location),
    )
}

/// Labels of a node of a pool.
pub fn node_labels(pool: &NodePool, location: &AzureLocation, name: &str, instance: u32) -> BTreeMap<String, String> {
    let zone = match pool.zones.len() {
        0 => "0".to_owned(),
        n => format!("{}-{}", location.region, pool.zones[instance as usize % n]),
    };
    let architecture = architecture();
    let mut labels: BTreeMap<String, String> = [
        ("agentpool", pool.name.as_str()),
        ("beta.kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/instance-type", &pool.vm_size),
        ("beta.kubernetes.io/os", "linux"),
        ("failure-domain.beta.kubernetes.io/region", &location.region),
        ("failure-domain.beta.kubernetes.io/zone", &zone),
        ("kubernetes.azure.com/agentpool", &pool.name),
        ("kubernetes.azure.com/cluster", &location.node_resource_group()),
        ("kubernetes.azure.com/mode", pool.mode.label()),
        ("kubernetes.azure.com/node-image-version", NODE_IMAGE_VERSION),
        ("kubernetes.azure.com/os-sku", "Ubuntu"),
        ("kubernetes.azure.com/role", "agent"),
        ("kubernetes.azure.com/storagetier", "Premium_LRS"),
        ("kubernetes.io/arch", architecture),
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/role", "agent"),
        ("node-role.kubernetes.io/agent", ""),
        ("node.kubernetes.io/instance-type", &pool.vm_size),
        ("storageprofile", "managed"),
        ("storagetier", "Premium_LRS"),
        ("topology.disk.csi.azure.com/zone", if pool.zones.is_empty() { "" } else { &zone }),
        ("topology.kubernetes.io/region", &location.region),
        ("topology.kubernetes.io/zone", &zone),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect();
    if pool.spot {
        labels.insert("kubernetes.azure.com/scalesetpriority".into(), "spot".into());
    }
    labels.extend(pool.labels.clone());
    labels
}

/// Taints of a node of a pool, `key=value:Effect`: the pool's own, and AKS's for spot.
pub fn node_taints(pool: &NodePool) -> Vec<String> {
    let mut taints = pool.taints.clone();
    if pool.spot {
        taints.push("kubernetes.azure.com/scalesetpriority=spot:NoSchedule".into());
    }
    taints
}

/// The machine's architecture in Go's names.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> AzureLocation {
        AzureLocation {
            subscription: "00000000-0000-0000-0000-000000000001".into(),
            cluster: "shop".into(),
            resource_group: "shop-rg".into(),
            region: "westeurope".into(),
        }
    }

    #[test]
    fn names_are_those_of_scale_sets() {
        let name = node_name("system", &location(), 37);
        assert!(name.starts_with("aks-system-") && name.ends_with("-vmss000011"), "{name}");
        assert_eq!(name, node_name("system", &location(), 37));
        assert!(provider_id("system", &location(), 3).starts_with("azure:///subscriptions/"));
    }

    #[test]
    fn spot_pools_are_tainted() {
        let pool = NodePool {
            name: "spot".into(),
            mode: PoolMode::User,
            vm_size: "Standard_D2s_v5".into(),
            spot: true,
            labels: BTreeMap::new(),
            taints: vec!["team=a:NoExecute".into()],
            zones: vec!["1".into(), "2".into()],
        };
        assert_eq!(node_taints(&pool).len(), 2);
        let labels = node_labels(&pool, &location(), "n", 1);
        assert_eq!(labels["topology.kubernetes.io/zone"], "westeurope-2");
        assert_eq!(labels["kubernetes.azure.com/scalesetpriority"], "spot");
    }
}
