//! Volumes of a pod on the node.

pub(super) mod atomic;
mod claims;
mod mounts;
mod ownership;
mod projected;
mod token;

pub(super) use mounts::{TRUST_FILE, mounts};

use super::shared::Shared;
use claims::Claim;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};
use projected::Projected;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{sync::watch, task::JoinSet};

/// A volume that cannot be had; becomes a `FailedMount` event.
#[derive(Clone, Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
pub(super) struct VolumeError {
    volume: String,
    message: String,
    /// Whether trying again can help.
    pub lasting: bool,
}

impl VolumeError {
    fn failed(volume: &str, message: String) -> Self {
        Self { volume: volume.to_owned(), message, lasting: false }
    }
    fn unsupported(volume: &str, what: &str) -> Self {
        let message = format!(
            "aksim does not emulate {what} volumes yet; use persistentVolumeClaim, emptyDir, hostPath or projected volumes"
        );
        Self { volume: volume.to_owned(), message, lasting: true }
    }
}

/// A volume ready to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    pub path: PathBuf,
    pub readonly: bool,
}

/// The volumes of one pod; dropping it ends their updates.
pub(super) struct Volumes {
    pub prepared: HashMap<String, Prepared>,
    updates: JoinSet<()>,
}

impl Volumes {
    /// Makes all volumes of the pod, and keeps those from the API up to date.
    pub async fn prepare(shared: &Arc<Shared>, pod: watch::Receiver<Arc<Pod>>) -> Result<Self, VolumeError> {
        let now = pod.borrow().clone();
        let spec = now.spec.clone().unwrap_or_default();
        let uid = now.metadata.uid.clone().unwrap_or_default();
        let group = spec.security_context.as_ref().and_then(|s| s.fs_group).and_then(|g| u32::try_from(g).ok());
        let mut volumes = Self { prepared: HashMap::new(), updates: JoinSet::new() };
        for volume in spec.volumes.iter().flatten() {
            let name = &volume.name;
            let ready = if let Some(source) = projected::as_projection(volume) {
                let path = shared.paths.volume(&uid, plugin(volume), name);
                let projected = Projected::new(shared, &now, name, source)?;
                volumes.project(projected, path, group, pod.clone(), name).await?
            } else if let Some(source) = &volume.empty_dir {
                let path = shared.paths.volume(&uid, "kubernetes.io~empty-dir", name);
                empty_dir(&path, source, group).map_err(|e| VolumeError::failed(name, e.to_string()))?;
                Prepared { path, readonly: false }
            } else if let Some(source) = &volume.host_path {
                host_path(source).map_err(|m| VolumeError::failed(name, m))?
            } else if let Some(source) = &volume.persistent_volume_claim {
                let readonly = source.read_only == Some(true);
                let claim = Claim { volume: name, name: source.claim_name.clone(), readonly, ephemeral: false };
                claims::prepare(shared, &now, claim).await?
            } else if volume.ephemeral.is_some() {
                let claim = format!("{}-{name}", now.metadata.name.as_deref().unwrap_or_default());
                let claim = Claim { volume: name, name: claim, readonly: false, ephemeral: true };
                claims::prepare(shared, &now, claim).await?
            } else {
                return Err(VolumeError::unsupported(name, kind(volume)));
            };
            volumes.prepared.insert(name.clone(), ready);
        }
        Ok(volumes)
    }

    async fn project(
        &mut self,
        mut projected: Projected,
        path: PathBuf,
        group: Option<u32>,
        mut pod: watch::Receiver<Arc<Pod>>,
        name: &str,
    ) -> Result<Prepared, VolumeError> {
        let now = pod.borrow_and_update().clone();
        let payload = projected.payload(&now).await?;
        atomic::write(&path, &payload, group).map_err(|e| VolumeError::failed(name, e.to_string()))?;
        let (folder, name) = (path.clone(), name.to_owned());
        self.updates.spawn(async move {
            loop {
                projected.changed(&mut pod).await;
                let now = pod.borrow_and_update().clone();
                // A deleted object leaves the files as they are, as the kubelet does.
                let written = match projected.payload(&now).await {
                    Ok(payload) => atomic::write(&folder, &payload, group).map_err(|e| e.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(error) = written {
                    tracing::warn!(error, volume = name, "volume not updated");
                }
            }
        });
        Ok(Prepared { path, readonly: true })
    }
}

fn plugin(volume: &Volume) -> &'static str {
    match volume {
        Volume { config_map: Some(_), .. } => "kubernetes.io~configmap",
        Volume { secret: Some(_), .. } => "kubernetes.io~secret",
        Volume { downward_api: Some(_), .. } => "kubernetes.io~downward-api",
        _ => "kubernetes.io~projected",
    }
}

/// Name of the first source that is set, for messages.
fn kind(volume: &Volume) -> &'static str {
    match volume {
        Volume { csi: Some(_), .. } => "csi",
        Volume { azure_file: Some(_), .. } => "azureFile",
        Volume { azure_disk: Some(_), .. } => "azureDisk",
        Volume { nfs: Some(_), .. } => "nfs",
        Volume { iscsi: Some(_), .. } => "iscsi",
        Volume { image: Some(_), .. } => "image",
        _ => "such",
    }
}

fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    if source.medium.as_deref() == Some("Memory") {
        let limit = source.size_limit.as_ref().and_then(|q| aksim_model::quantity::parse_units(&q.0).ok());
        mount_memory(path, limit)?;
    }
    ownership::share(path, group)
}

/// A tmpfs shared by the pod's containers. Without root there is none: the folder stays on disk,
/// which differs in speed alone.
fn mount_memory(path: &Path, limit: Option<u64>) -> std::io::Result<()> {
    use nix::mount::{MsFlags, mount};
    if !nix::unistd::geteuid().is_root() || mounted(path)? {
        return Ok(());
    }
    let options = limit.filter(|l| *l > 0).map(|l| format!("size={l}"));
    match mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref()) {
        // A container without CAP_SYS_ADMIN: as without root.
        Ok(()) | Err(nix::errno::Errno::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file system of its own is mounted on the folder.
fn mounted(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let above = path.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(std::fs::metadata(path)?.dev() != std::fs::metadata(above)?.dev())
}

/// Takes down the memory volumes of a pod and removes its folder.
pub(super) fn remove(pod_folder: &Path) -> std::io::Result<()> {
    let empty_dirs = pod_folder.join("volumes").join("kubernetes.io~empty-dir");
    for entry in std::fs::read_dir(&empty_dirs).into_iter().flatten().flatten() {
        if mounted(&entry.path()).unwrap_or(false) {
            nix::mount::umount2(&entry.path(), nix::mount::MntFlags::MNT_DETACH)?;
        }
    }
    match std::fs::remove_dir_all(pod_folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn host_path(source: &HostPathVolumeSource) -> Result<Prepared, String> {
    use std::os::unix::fs::FileTypeExt;
    let path = PathBuf::from(&source.path);
    if !path.is_absolute() || path.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(format!("hostPath {} must be absolute and without ..", source.path));
    }
    let kind = source.type_.as_deref().unwrap_or_default();
    let made = match kind {
        "DirectoryOrCreate" => std::fs::create_dir_all(&path),
        "FileOrCreate" => std::fs::OpenOptions::new().create(true).append(true).open(&path).map(drop),
        _ => Ok(()),
    };
    made.map_err(|e| format!("hostPath {}: {e}", source.path))?;
    let found = std::fs::metadata(&path).map(|m| m.file_type());
    let right = match (kind, found) {
        ("", _) => true,
        ("Directory" | "DirectoryOrCreate", Ok(t)) => t.is_dir(),
        ("File" | "FileOrCreate", Ok(t)) => t.is_file(),
        ("Socket", Ok(t)) => t.is_socket(),
        ("CharDevice", Ok(t)) => t.is_char_device(),
        ("BlockDevice", Ok(t)) => t.is_block_device(),
        _ => false,
    };
    match right {
        true => Ok(Prepared { path, readonly: false }),
        false => Err(format!("hostPath type check failed: {} is not a {}", source.path, kind.to_lowercase())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let source = |tail: &str, kind: &str| HostPathVolumeSource {
            path: dir.path().join(tail).to_string_lossy().into_owned(),
            type_: Some(kind.into()),
        };
        assert!(host_path(&source("no", "Directory")).is_err());
        assert!(host_path(&source("new/dir", "DirectoryOrCreate")).is_ok());
        assert!(host_path(&source("new/dir", "File")).is_err());
        assert!(host_path(&source("file", "FileOrCreate")).is_ok());
        assert!(host_path(&source("../x", "")).is_err());
    }

    #[test]
    fn the_pod_folder_goes_with_its_memory_volumes() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("uid");
        let volume = pod.join("volumes/kubernetes.io~empty-dir/cache");
        let source = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: None };
        empty_dir(&volume, &source, None).unwrap();
        empty_dir(&volume, &source, None).unwrap();
        std::fs::write(volume.join("x"), "y").unwrap();
        remove(&pod).unwrap();
        assert!(!pod.exists());
        remove(&pod).unwrap();
    }
}
