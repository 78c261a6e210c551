//! Cells of volumes, claims and storage drivers.

use super::{Compute, Row, none_if_empty, plain};
use serde_json::Value;

/// Cells by name.
pub(super) fn compute(name: &str) -> Option<Compute> {
    Some(match name {
        "claim_status" => |row| terminating_or(row, "/status/phase"),
        "claim_capacity" => |row| if bound(row) { row.text("/status/capacity/storage").into() } else { "".into() },
        "claim_access_modes" => {
            |row| if bound(row) { access_modes(row.list("/status/accessModes")) } else { "".into() }
        }
        "claim_class" => |row| {
            let annotation = row.text("/metadata/annotations/volume.beta.kubernetes.io~1storage-class");
            row.text_or("/spec/storageClassName", annotation).into()
        },
        "claim_attributes_class" => |row| match row.text("/spec/volumeAttributesClassName") {
            "" => "<unset>".into(),
            name => name.into(),
        },
        "volume_mode" => |row| match row.text("/spec/volumeMode") {
            "" => "<unset>".into(),
            mode => mode.into(),
        },
        "volume_access_modes" => |row| access_modes(row.list("/spec/accessModes")),
        "volume_status" => |row| terminating_or(row, "/status/phase"),
        "volume_claim" => |row| match (row.text("/spec/claimRef/namespace"), row.text("/spec/claimRef/name")) {
            (_, "") => "".into(),
            (namespace, name) => format!("{namespace}/{name}").into(),
        },
        "class_name" => class_name,
        "class_reclaim_policy" => |row| row.text_or("/reclaimPolicy", "Delete").into(),
        "class_binding_mode" => |row| row.text_or("/volumeBindingMode", "<unset>").into(),
        "class_expansion" => |row| (*row.at("/allowVolumeExpansion") == true).to_string().into(),
        "attachment_attached" => |row| (*row.at("/status/attached") == true).into(),
        "csi_attach_required" => |row| (*row.at("/spec/attachRequired") != false).into(),
        "csi_pod_info" => |row| (*row.at("/spec/podInfoOnMount") == true).into(),
        "csi_storage_capacity" => |row| (*row.at("/spec/storageCapacity") == true).into(),
        "csi_republish" => |row| (*row.at("/spec/requiresRepublish") == true).into(),
        "csi_token_requests" => |row| {
            let audiences = row.list("/spec/tokenRequests").iter().map(|t| plain(&t["audience"])).collect::<Vec<_>>();
            if audiences.is_empty() { "<unset>".into() } else { audiences.join(",").into() }
        },
        "csi_modes" => |row| {
            none_if_empty(row.list("/spec/volumeLifecycleModes").iter().map(plain).collect::<Vec<_>>().join(",")).into()
        },
        "csi_driver_count" => |row| row.count("/spec/drivers").into(),
        _ => return None,
    })
}

fn bound(row: &Row<'_>) -> bool {
    !row.text("/spec/volumeName").is_empty()
}

fn terminating_or(row: &Row<'_>, pointer: &str) -> Value {
    if row.at("/metadata/deletionTimestamp").is_null() { row.text(pointer).into() } else { "Terminating".into() }
}

/// `RWO,ROX,RWX,RWOP`
fn access_modes(modes: &[Value]) -> Value {
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |name: &str| modes.iter().any(|mode| mode == name);
    known.iter().filter(|(name, _)| has(name)).map(|(_, short)| *short).collect::<Vec<_>>().join(",").into()
}

fn class_name(row: &Row<'_>) -> Value {
    let annotations = row.at("/metadata/annotations");
    let default = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let name = row.text("/metadata/name");
    if default.iter().any(|key| annotations.get(key).is_some_and(|value| value == "true")) {
        format!("{name} (default)").into()
    } else {
        name.into()
    }
}
