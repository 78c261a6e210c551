//! Live sync into the containers of the cluster, by its provider.

use aksim_cluster::provider::ClusterProvider;
use aksim_devloop::FileSync;
use aksim_model::image_ref::ImageRef;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use std::{path::Path, sync::Arc};

/// Writes by [`ClusterProvider::put_file`].
pub struct ContainerSync {
    cluster: Arc<dyn ClusterProvider>,
}

impl ContainerSync {
    /// Into containers of `cluster`.
    pub fn new(cluster: Arc<dyn ClusterProvider>) -> Self {
        Self { cluster }
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
            if !running || status.container_id.is_none() {
                continue;
            }
            let put = self.cluster.put_file(pod, &status.name, Path::new(path), content).await;
            put.map_err(|e| format!("container {}: {e}", status.name))?;
            written += 1;
        }
        Ok(written)
    }
}
