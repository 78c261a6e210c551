//! Kills the container of a pod, as a crash would; the kubelet restarts it.

use super::{FaultKind, Victim, target::Pods};
use crate::{Run, ScenarioError};
use aksim_model::command::Command;
use async_trait::async_trait;
use kube::ResourceExt;
use rand::rngs::StdRng;
use schemars::JsonSchema;
use serde::Deserialize;

/// `container-kill`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ContainerKill {
    /// Of these one.
    #[serde(flatten)]
    of: Pods,
    /// Container; the first when absent.
    #[serde(default)]
    container: Option<String>,
}

#[async_trait]
impl FaultKind for ContainerKill {
    async fn choose(&self, run: &Run<'_>, rng: &mut StdRng) -> Result<Victim, ScenarioError> {
        let name = self.of.choose(run, rng).await?.name_any();
        Ok(Victim { what: format!("a container of pod {name}"), name })
    }

    async fn inject(&self, run: &Run<'_>, victim: &Victim) -> Result<(), ScenarioError> {
        let pod = self.of.api(run).get(&victim.name).await.map_err(ScenarioError::cluster(victim.what.clone()))?;
        let mut statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let status = statuses.find(|s| self.container.as_ref().is_none_or(|name| *name == s.name));
        let id = status.and_then(|s| s.container_id.as_deref()?.split_once("://")).map(|(_, id)| id.to_owned());
        let id = id.ok_or_else(|| ScenarioError::Missing(format!("{} does not run", victim.what)))?;
        run.environment.control.command(&Command::KillContainer { id }).await?;
        Ok(())
    }
}
