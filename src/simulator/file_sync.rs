//! Live sync into the containers of the embedded cluster, by the container runtime.

use aksim_devloop::FileSync;
use aksim_model::image_ref::ImageRef;
use aksim_node::runtime::NodeRuntime;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use std::{path::Path, sync::Arc};

/// Writes by [`NodeRuntime::put_file`].
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
            let put = self.runtime.put_file(id, Path::new(path), content).await;
            put.map_err(|e| format!("container {}: {e}", status.name))?;
            written += 1;
        }
        Ok(written)
    }
}
