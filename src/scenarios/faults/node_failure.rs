//! A node's machine loses its power: kubelet and containers are gone at once, nothing says goodbye.

use super::{FaultKind, Victim, target::Pods};
use crate::{Run, ScenarioError};
use aksim_model::command::Command;
use async_trait::async_trait;
use rand::rngs::StdRng;
use schemars::JsonSchema;
use serde::Deserialize;

/// `node-failure`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NodeFailure {
    /// The node of one of these.
    #[serde(flatten)]
    of: Pods,
}

/// The node that one of the pods runs on.
pub async fn choose(of: &Pods, run: &Run<'_>, rng: &mut StdRng) -> Result<Victim, ScenarioError> {
    let pod = of.choose(run, rng).await?;
    let name = pod.spec.and_then(|s| s.node_name).unwrap_or_default();
    Ok(Victim { what: format!("node {name}"), name })
}

#[async_trait]
impl FaultKind for NodeFailure {
    async fn choose(&self, run: &Run<'_>, rng: &mut StdRng) -> Result<Victim, ScenarioError> {
        choose(&self.of, run, rng).await
    }

    async fn inject(&self, run: &Run<'_>, victim: &Victim) -> Result<(), ScenarioError> {
        let command = Command::NodePower { node: victim.name.clone(), on: false };
        run.environment.control.command(&command).await?;
        Ok(())
    }

    async fn heal(&self, run: &Run<'_>, victim: &Victim) -> Result<(), ScenarioError> {
        let command = Command::NodePower { node: victim.name.clone(), on: true };
        run.environment.control.command(&command).await?;
        Ok(())
    }
}
