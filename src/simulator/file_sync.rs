//! Live sync into the containers of the embedded cluster, through their root file systems.

use crate::{
    devloop::FileSync,
    model::image_ref::ImageRef,
    node::runtime::NodeRuntime,
    runtime::files::{PUBLIC, write_atomic},
};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// Writes through [`NodeRuntime::root_path`].
pub struct ContainerSync {
    runtime: Arc<dyn NodeRuntime>,
}

impl ContainerSync {
    /// Into containers of `runtime`.
    pub fn new(runtime: Arc<dyn NodeRuntime>) -> Self {
        Self { runtime }
    }
}

#[async_trait]
impl FileSync for ContainerSync {
    async fn put(&self, pod: &Pod, image: &ImageRef, path: &str, content: Option<&[u8]>) -> Result<usize, String> {
        let of_image = |reference: &str| {
            reference
                .parse::<ImageRef>()
                .is_ok_and(|r| r.registry == image.registry && r.repository == image.repository)
        };
        let uid = pod.uid().unwrap_or_default();
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let mut written = 0;
        for status in statuses.filter(|s| of_image(&s.image)) {
            let running = status.state.as_ref().is_some_and(|s| s.running.is_some());
            let Some(id) = status.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id) else {
                continue;
            };
            if !running {
                continue;
            }
            let root = self.runtime.root_path(id).await.map_err(|e| e.to_string())?;
            let target = below(&root, path).ok_or_else(|| format!("{path} leaves the container"))?;
            write(&target, content).map_err(|e| format!("container {} of {uid}: {e}", status.name))?;
            written += 1;
        }
        Ok(written)
    }
}

/// `path` below `root`; links in the container are not followed out of it.
fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let mut target = root.to_owned();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => {
                target.push(part);
                let link = std::fs::symlink_metadata(&target).is_ok_and(|m| m.file_type().is_symlink());
                if link {
                    return None;
                }
            }
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(target)
}

fn write(target: &Path, content: Option<&[u8]>) -> io::Result<()> {
    match content {
        Some(content) => {
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent)?;
            }
            write_atomic(target, content, PUBLIC)
        }
        None => match std::fs::remove_file(target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_the_container() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("evil")).unwrap();
        assert_eq!(below(dir.path(), "/../etc/passwd"), None);
        assert_eq!(below(dir.path(), "/evil/passwd"), None);
        assert_eq!(below(dir.path(), "/srv/a"), Some(dir.path().join("srv/a")));
    }
}
