//! Dynamic volumes: what Azure's CSI drivers would make of a claim.

use super::plan::{self, PROVISIONED_BY};
use aksim_runtime::volumes::{DISK_DRIVER, FILE_DRIVER};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use serde_json::{Value, json};

/// Finalizer by which the driver removes a volume before its object goes.
pub const PROVISIONER_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// Topology label of managed disks.
const DISK_ZONE: &str = "topology.disk.csi.azure.com/zone";

/// One of the drivers of AKS, by name.
pub fn driver(provisioner: &str) -> Option<&'static str> {
    [DISK_DRIVER, FILE_DRIVER].into_iter().find(|driver| *driver == provisioner)
}

/// Driver and handle of a volume that one of the drivers of AKS serves.
pub fn served(volume: &PersistentVolume) -> Option<(&'static str, &str)> {
    let csi = volume.spec.as_ref()?.csi.as_ref()?;
    Some((driver(&csi.driver)?, &csi.volume_handle))
}

/// Where the cluster is said to lie, for volume handles.
pub struct Place {
    /// Subscription id.
    pub subscription: String,
    /// Resource group of the nodes.
    pub resource_group: String,
}

impl Place {
    /// From a node's provider id, `azure:///subscriptions/S/resourceGroups/G/…`.
    pub fn of_provider_id(id: &str) -> Option<Self> {
        let mut parts = id.strip_prefix("azure:///subscriptions/")?.split('/');
        let (subscription, _, group) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { subscription: subscription.to_owned(), resource_group: group.to_owned() })
    }
}

/// Why a driver refuses a claim; `None` when it takes it.
pub fn refusal(claim: &PersistentVolumeClaim, class: &StorageClass) -> Option<String> {
    let spec = claim.spec.clone().unwrap_or_default();
    let name = class.metadata.name.as_deref().unwrap_or_default();
    if spec.selector.is_some() {
        return Some("claim Selector is not supported".into());
    }
    let block = spec.volume_mode.as_deref() == Some("Block");
    let shared = spec.access_modes.iter().flatten().any(|mode| mode.ends_with("Many"));
    let said = |text: &str| {
        Some(format!(
            "failed to provision volume with StorageClass \"{name}\": rpc error: code = InvalidArgument desc = {text}"
        ))
    };
    if block {
        return said("aksim does not emulate block volumes; use volumeMode: Filesystem");
    }
    if class.provisioner == DISK_DRIVER && shared {
        return said("Volume capability not supported");
    }
    None
}

/// The volume that a driver makes for a claim. `zone` is the chosen node's, for disks.
pub fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, place: &Place, zone: Option<&str>) -> Value {
    let spec = claim.spec.clone().unwrap_or_default();
    let meta = &claim.metadata;
    let name = format!("pvc-{}", meta.uid.as_deref().unwrap_or_default());
    let gibibytes = plan::whole_gibibytes(plan::requested(claim));
    let Place { subscription, resource_group: group } = place;
    let disk = class.provisioner == DISK_DRIVER;
    let handle = match disk {
        true => {
            format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/disks/{name}")
        }
        false => format!("{group}#aksim#{name}###{}", meta.namespace.as_deref().unwrap_or_default()),
    };
    let mut attributes = json!({
        "csi.storage.k8s.io/pv/name": name,
        "csi.storage.k8s.io/pvc/name": meta.name,
        "csi.storage.k8s.io/pvc/namespace": meta.namespace,
        "requestedsizegib": gibibytes.to_string(),
        "storage.kubernetes.io/csiProvisionerIdentity": format!("aksim-{}", class.provisioner),
    });
    for (key, value) in class.parameters.iter().flatten() {
        attributes[key] = value.as_str().into();
    }
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: class.provisioner},
            "finalizers": [PROVISIONER_FINALIZER]},
        "spec": {
            "accessModes": spec.access_modes, "capacity": {"storage": format!("{gibibytes}Gi")},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace,
                "name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version},
            "csi": {"driver": class.provisioner, "volumeHandle": handle, "volumeAttributes": attributes},
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.metadata.name, "volumeMode": "Filesystem",
        },
    });
    if let Some(options) = class.mount_options.as_ref().filter(|options| !options.is_empty()) {
        volume["spec"]["mountOptions"] = json!(options);
    }
    if let Some(zone) = zone.filter(|_| disk) {
        // A disk is reached from the nodes of its zone.
        let expression = json!({"key": DISK_ZONE, "operator": "In", "values": [zone]});
        let terms = json!([{"matchExpressions": [expression]}]);
        volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": terms}});
    }
    volume
}

/// The zone of a node for disks.
pub fn zone(node: &k8s_openapi::api::core::v1::Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(DISK_ZONE).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(mode: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "data", "namespace": "shop", "uid": "u-1"},
            "spec": {"accessModes": [mode], "resources": {"requests": {"storage": "1500Mi"}}}}))
        .unwrap()
    }

    fn class(provisioner: &str) -> StorageClass {
        serde_json::from_value(json!({"metadata": {"name": "c"}, "provisioner": provisioner,
            "parameters": {"skuname": "Premium_LRS"}, "reclaimPolicy": "Delete"}))
        .unwrap()
    }

    #[test]
    fn disks_are_as_azure_makes_them() {
        let place = Place::of_provider_id("azure:///subscriptions/s/resourceGroups/mc_g/providers/x").unwrap();
        let made: PersistentVolume =
            serde_json::from_value(volume(&claim("ReadWriteOnce"), &class(DISK_DRIVER), &place, Some("z-1"))).unwrap();
        let (driver, handle) = served(&made).unwrap();
        assert_eq!(driver, DISK_DRIVER);
        assert_eq!(handle, "/subscriptions/s/resourceGroups/mc_g/providers/Microsoft.Compute/disks/pvc-u-1");
        assert_eq!(plan::capacity(&made).to_string(), "2Gi");
        assert!(made.spec.unwrap().node_affinity.is_some());
        let share = volume(&claim("ReadWriteMany"), &class(FILE_DRIVER), &place, Some("z-1"));
        assert!(share["spec"]["nodeAffinity"].is_null());
        assert_eq!(share["spec"]["csi"]["volumeHandle"], "mc_g#aksim#pvc-u-1###shop");
    }

    #[test]
    fn disks_are_not_shared() {
        assert_eq!(refusal(&claim("ReadWriteOnce"), &class(DISK_DRIVER)), None);
        assert_eq!(refusal(&claim("ReadWriteMany"), &class(FILE_DRIVER)), None);
        let refused = refusal(&claim("ReadWriteMany"), &class(DISK_DRIVER)).unwrap();
        assert!(refused.contains("Volume capability not supported"), "{refused}");
    }
}
