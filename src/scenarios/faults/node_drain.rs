//! A node is cordoned and its pods are evicted, as `az aks` does before it takes a machine away.

use super::{FaultKind, Victim, node_failure, target::Pods};
use crate::{Run, ScenarioError};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt,
    api::{EvictParams, ListParams},
};
use rand::rngs::StdRng;
use schemars::JsonSchema;
use serde::Deserialize;

/// `node-drain`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NodeDrain {
    /// The node of one of these.
    #[serde(flatten)]
    of: Pods,
}

#[async_trait]
impl FaultKind for NodeDrain {
    async fn choose(&self, run: &Run<'_>, rng: &mut StdRng) -> Result<Victim, ScenarioError> {
        node_failure::choose(&self.of, run, rng).await
    }

    async fn inject(&self, run: &Run<'_>, victim: &Victim) -> Result<(), ScenarioError> {
        let client = &run.environment.client;
        let nodes: Api<Node> = Api::all(client.clone());
        let doing = || ScenarioError::cluster(format!("draining {}", victim.what));
        nodes.cordon(&victim.name).await.map_err(doing())?;
        let all: Api<Pod> = Api::all(client.clone());
        let on_node = ListParams::default().fields(&format!("spec.nodeName={}", victim.name));
        for pod in all.list(&on_node).await.map_err(doing())? {
            let by_daemon_set = pod.owner_references().iter().any(|o| o.kind == "DaemonSet");
            if by_daemon_set || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
            api.evict(&pod.name_any(), &EvictParams::default()).await.map_err(doing())?;
        }
        Ok(())
    }

    async fn heal(&self, run: &Run<'_>, victim: &Victim) -> Result<(), ScenarioError> {
        let nodes: Api<Node> = Api::all(run.environment.client.clone());
        let uncordoned = nodes.uncordon(&victim.name).await;
        uncordoned.map(drop).map_err(ScenarioError::cluster(format!("uncordoning {}", victim.what)))
    }
}
