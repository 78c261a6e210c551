//! The cluster of an environment, of whatever provider: its API with what AKS puts into it, then its nodes.

use crate::{
    SimulatorError, kubeconfig,
    objects::{self, SystemObjects},
    part::{Part, Run},
};
use aksim_cluster::provider::{ClusterProvider, Reduction};
use aksim_model::event::EventBody;
use async_trait::async_trait;
use std::sync::Arc;

/// The API of the cluster.
pub struct ControlPlane {
    /// The cluster.
    pub cluster: Arc<dyn ClusterProvider>,
    /// What every environment has in it.
    pub objects: SystemObjects,
}

#[async_trait]
impl Part for ControlPlane {
    async fn start(self: Box<Self>, run: &mut Run<'_>) -> Result<(), SimulatorError> {
        self.cluster.start(run.supervisor).await?;
        let access = self.cluster.access()?;
        kubeconfig::write(run.ground, &access.context)?;
        objects::apply_system(&access.client, run.ground.state.id(), &self.objects).await?;
        Ok(())
    }
}

/// Controllers and nodes of the cluster.
pub struct Nodes(pub Arc<dyn ClusterProvider>);

#[async_trait]
impl Part for Nodes {
    async fn start(self: Box<Self>, run: &mut Run<'_>) -> Result<(), SimulatorError> {
        let names = self.0.start_nodes(run.supervisor).await?;
        tracing::debug!(nodes = names.join(", "), "nodes run");
        Ok(())
    }
}

/// Says what this machine does not let the cluster do.
pub struct Reductions(pub Vec<Reduction>);

#[async_trait]
impl Part for Reductions {
    async fn start(self: Box<Self>, run: &mut Run<'_>) -> Result<(), SimulatorError> {
        for Reduction { what, hint } in self.0 {
            let subject = "node".into();
            run.ground.recorder.record(EventBody::Warning { subject, message: what, hint: Some(hint) });
        }
        Ok(())
    }
}
