//! The Node object and its lease.

use super::{config::NodeConfig, events::Kind, shared::Shared};
use crate::aks;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{
            ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
            NodeStatus, NodeSystemInfo, Taint,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time},
    },
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
const LEASE_RENEWAL: Duration = Duration::from_secs(10);
const STATUS_RENEWAL: Duration = Duration::from_secs(300);
/// Most images that a node lists, as the kubelet's default.
const MAX_IMAGES: usize = 50;

/// Registers the node, trying until it works; false when told to stop first.
pub(super) async fn register(shared: &Shared, port: u16, shutdown: &CancellationToken) -> bool {
    let mut wait = Duration::from_millis(100);
    loop {
        match register_once(shared, port).await {
            Ok(()) => return true,
            Err(error) => tracing::warn!(%error, node = shared.node.name, "node not registered; trying again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return false,
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(7)),
        }
    }
}

async fn register_once(shared: &Shared, port: u16) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(shared.client.clone());
    let node = node(&shared.node);
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => {
            shared.events.node(&shared.node.name, Kind::Normal, "Starting", "Starting kubelet.".into());
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            // Taints and what else people changed stays; our labels and annotations are renewed.
            let patch = serde_json::json!({ "metadata": {
                "labels": node.metadata.labels, "annotations": node.metadata.annotations
            } });
            api.patch(&shared.node.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
        Err(error) => return Err(error),
    }
    write_status(shared, port).await?;
    renew_lease(shared).await
}

/// Renews the lease, and the status when images changed or it has aged.
pub(super) async fn heartbeat(shared: Arc<Shared>, port: u16, shutdown: CancellationToken) {
    let mut lease = tokio::time::interval(LEASE_RENEWAL);
    let mut status = tokio::time::interval_at(tokio::time::Instant::now() + STATUS_RENEWAL, STATUS_RENEWAL);
    loop {
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = lease.tick() => renew_lease(&shared).await,
            _ = status.tick() => write_status(&shared, port).await,
            () = shared.images_changed.notified() => write_status(&shared, port).await,
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, node = shared.node.name, "heartbeat failed");
        }
    }
}

fn taint(text: &str) -> Option<Taint> {
    let (pair, effect) = text.rsplit_once(':')?;
    let (key, value) = pair.split_once('=').map_or((pair, None), |(k, v)| (k, Some(v.to_owned())));
    Some(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

fn node(config: &NodeConfig) -> Node {
    let annotations =
        [("node.alpha.kubernetes.io/ttl", "0"), ("volumes.kubernetes.io/controller-managed-attach-detach", "true")];
    let taints: Vec<Taint> = config.taints.iter().filter_map(|t| taint(t)).collect();
    Node {
        metadata: ObjectMeta {
            name: Some(config.name.clone()),
            labels: Some(config.labels.clone()),
            annotations: Some(annotations.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: Some(config.pod_cidr.to_string()),
            pod_cidrs: Some(vec![config.pod_cidr.to_string()]),
            provider_id: Some(config.provider_id.clone()),
            taints: (!taints.is_empty()).then_some(taints),
            ..Default::default()
        }),
        status: None,
    }
}

async fn write_status(shared: &Shared, port: u16) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(shared.client.clone());
    let known = api.get(&shared.node.name).await?;
    let before = known.status.and_then(|s| s.conditions).unwrap_or_default();
    let images = shared.runtime.images().await.unwrap_or_default();
    let mut images: Vec<ContainerImage> = images
        .into_iter()
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.into_iter().chain(image.repo_tags).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect();
    images.sort_by_key(|i| std::cmp::Reverse(i.size_bytes));
    images.truncate(MAX_IMAGES);
    let config = &shared.node;
    let status = NodeStatus {
        capacity: Some(quantities(config)),
        allocatable: Some(quantities(config)),
        addresses: Some(vec![
            NodeAddress { type_: "InternalIP".into(), address: config.internal_ip.to_string() },
            NodeAddress { type_: "Hostname".into(), address: config.name.clone() },
        ]),
        conditions: Some(conditions(shared, &before)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        images: Some(images),
        node_info: Some(system_info(shared)),
        ..Default::default()
    };
    let patch = serde_json::json!({ "status": status });
    api.patch_status(&config.name, &PatchParams::default(), &Patch::Strategic(&patch)).await.map(drop)
}

fn quantities(config: &NodeConfig) -> BTreeMap<String, Quantity> {
    let capacity = config.capacity;
    [
        ("cpu", format!("{}m", capacity.cpu_millis)),
        ("memory", format!("{}Ki", capacity.memory_bytes / 1024)),
        ("ephemeral-storage", capacity.ephemeral_bytes.to_string()),
        ("hugepages-1Gi", "0".into()),
        ("hugepages-2Mi", "0".into()),
        ("pods", capacity.pods.to_string()),
    ]
    .into_iter()
    .map(|(name, amount)| {
        let whole_cores = name == "cpu" && capacity.cpu_millis.is_multiple_of(1000);
        let amount = if whole_cores { (capacity.cpu_millis / 1000).to_string() } else { amount };
        (name.to_owned(), Quantity(amount))
    })
    .collect()
}

fn conditions(shared: &Shared, before: &[NodeCondition]) -> Vec<NodeCondition> {
    let now = Time(jiff::Timestamp::now());
    let reductions = shared.runtime.reductions();
    let ready = match reductions.is_empty() {
        true => "kubelet is posting ready status".to_owned(),
        // The node is honest about what this machine does not give it.
        false => {
            let what: Vec<String> = reductions.into_iter().map(|(what, _)| what).collect();
            format!("kubelet is posting ready status; reduced: {}", what.join("; "))
        }
    };
    [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available".to_owned()),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure".to_owned()),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available".to_owned()),
        ("Ready", "True", "KubeletReady", ready),
    ]
    .into_iter()
    .map(|(name, status, reason, message)| {
        let old = before.iter().find(|c| c.type_ == name && c.status == status);
        NodeCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: old.and_then(|o| o.last_transition_time.clone()).or_else(|| Some(now.clone())),
        }
    })
    .collect()
}

fn system_info(shared: &Shared) -> NodeSystemInfo {
    let read = |path: &str| std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
    let release = read("/etc/os-release");
    let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
    let identity = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, shared.node.name.as_bytes());
    NodeSystemInfo {
        architecture: aks::architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: shared.runtime.version(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: aks::KUBERNETES_VERSION.to_owned(),
        machine_id: identity.simple().to_string(),
        operating_system: "linux".to_owned(),
        os_image: pretty.to_owned(),
        system_uuid: identity.to_string(),
        ..Default::default()
    }
}

async fn renew_lease(shared: &Shared) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(shared.client.clone(), LEASE_NAMESPACE);
    let name = &shared.node.name;
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(jiff::Timestamp::now())),
        ..Default::default()
    };
    let patch = serde_json::json!({ "spec": spec });
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        outcome => return outcome.map(drop),
    }
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let uid = nodes.get(name).await?.metadata.uid.unwrap_or_default();
    let owner =
        OwnerReference { api_version: "v1".into(), kind: "Node".into(), name: name.clone(), uid, ..Default::default() };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(LEASE_NAMESPACE.into()),
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: Some(spec),
    };
    match api.create(&PostParams::default(), &lease).await {
        // The namespace is made by the control plane, maybe a moment later; the next beat tries again.
        Err(kube::Error::Api(status)) if status.code == 404 => {
            tracing::debug!(namespace = LEASE_NAMESPACE, "no namespace for leases yet");
            Ok(())
        }
        outcome => outcome.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_read() {
        let one = taint("kubernetes.azure.com/scalesetpriority=spot:NoSchedule").unwrap();
        assert_eq!(one.key, "kubernetes.azure.com/scalesetpriority");
        assert_eq!((one.value.as_deref(), one.effect.as_str()), (Some("spot"), "NoSchedule"));
        assert_eq!(taint("CriticalAddonsOnly:NoSchedule").unwrap().value, None);
        assert!(taint("nonsense").is_none());
    }
}
