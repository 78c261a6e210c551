//! Volumes that are claims: the persistent volume that the claim is bound to, as a folder.

use super::{Prepared, VolumeError, host_path, ownership};
use crate::kubelet::shared::Shared;
use aksim_runtime::volumes::{DISK_DRIVER, FILE_DRIVER};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use std::path::PathBuf;

/// A claim that a pod names.
pub(super) struct Claim<'a> {
    /// Name of the pod's volume.
    pub volume: &'a str,
    /// Name of the claim.
    pub name: String,
    /// Mounted read-only.
    pub readonly: bool,
    /// Made for this pod.
    pub ephemeral: bool,
}

/// Makes the volume of a claim ready for a pod.
pub(super) async fn prepare(shared: &Shared, pod: &Pod, claim: Claim<'_>) -> Result<Prepared, VolumeError> {
    let failed = |message: String| VolumeError::failed(claim.volume, message);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(shared.client.clone(), namespace);
    let found = claims.get_opt(&claim.name).await.map_err(|error| failed(error.to_string()))?;
    let found = found.ok_or_else(|| failed(format!("persistentvolumeclaim \"{}\" not found", claim.name)))?;
    let owned = |uid: &String| found.metadata.owner_references.iter().flatten().any(|owner| owner.uid == *uid);
    if claim.ephemeral && !pod.metadata.uid.as_ref().is_some_and(owned) {
        return Err(failed(format!("PVC {namespace}/{} was not created for the pod", claim.name)));
    }
    let bound = found.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"));
    let name = found.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|_| bound);
    let name = name.ok_or_else(|| failed(format!("PVC {namespace}/{} is not bound", claim.name)))?;
    let volumes: Api<PersistentVolume> = Api::all(shared.client.clone());
    let volume = volumes.get_opt(&name).await.map_err(|error| failed(error.to_string()))?;
    let volume = volume.ok_or_else(|| failed(format!("persistentvolume \"{name}\" not found")))?;
    let for_us = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if for_us.is_none_or(|reference| reference.uid != found.metadata.uid) {
        return Err(failed(format!("persistentvolume \"{name}\" is not bound to PVC {namespace}/{}", claim.name)));
    }
    let Source { path, readonly, ownable } = source(shared, claim.volume, &volume)?;
    let readonly = readonly || claim.readonly;
    let security = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let group = security.and_then(|s| s.fs_group).and_then(|group| u32::try_from(group).ok());
    if let Some(group) = group.filter(|_| ownable && !readonly) {
        let always = security.and_then(|s| s.fs_group_change_policy.as_deref()) != Some("OnRootMismatch");
        let folder = path.clone();
        // A large tree takes a while.
        let given = tokio::task::spawn_blocking(move || ownership::give_tree(&folder, group, always)).await;
        given
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| failed(format!("applyFSGroup failed: {error}")))?;
    }
    Ok(Prepared { path, readonly })
}

/// Where a persistent volume is on this machine.
struct Source {
    path: PathBuf,
    readonly: bool,
    /// Whether `fsGroup` gives its files to the group, as for block devices.
    ownable: bool,
}

fn source(shared: &Shared, name: &str, volume: &PersistentVolume) -> Result<Source, VolumeError> {
    let failed = |message: String| VolumeError::failed(name, message);
    let Some(spec) = &volume.spec else { return Err(failed("the persistent volume has no spec".into())) };
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(VolumeError::unsupported(name, "block"));
    }
    if let Some(csi) = &spec.csi {
        if ![DISK_DRIVER, FILE_DRIVER].contains(&csi.driver.as_str()) {
            let driver = &csi.driver;
            return Err(failed(format!("driver name {driver} not found in the list of registered CSI drivers")));
        }
        let path = shared.volumes.create(&csi.driver, &csi.volume_handle).map_err(|error| failed(error.to_string()))?;
        return Ok(Source { path, readonly: csi.read_only == Some(true), ownable: csi.driver == DISK_DRIVER });
    }
    if let Some(source) = &spec.host_path {
        let Prepared { path, readonly } = host_path(source).map_err(failed)?;
        return Ok(Source { path, readonly, ownable: false });
    }
    if let Some(local) = &spec.local {
        let path = PathBuf::from(&local.path);
        if !path.is_absolute() || path.components().any(|c| c == std::path::Component::ParentDir) {
            return Err(failed(format!("local volume path {} must be absolute and without ..", local.path)));
        }
        if !path.is_dir() {
            return Err(failed(format!("path \"{}\" does not exist", local.path)));
        }
        return Ok(Source { path, readonly: false, ownable: true });
    }
    Err(VolumeError::unsupported(name, "persistent nfs, iscsi and other in-tree"))
}
