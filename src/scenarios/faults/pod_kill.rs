//! Kills a pod: deleted without grace, as Chaos Mesh's `pod-kill`.

use super::{FaultKind, Victim, target::Pods};
use crate::{Run, ScenarioError};
use async_trait::async_trait;
use kube::{ResourceExt, api::DeleteParams};
use rand::rngs::StdRng;
use schemars::JsonSchema;
use serde::Deserialize;

/// `pod-kill`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PodKill {
    /// Of these one.
    #[serde(flatten)]
    of: Pods,
}

#[async_trait]
impl FaultKind for PodKill {
    async fn choose(&self, run: &Run<'_>, rng: &mut StdRng) -> Result<Victim, ScenarioError> {
        let name = self.of.choose(run, rng).await?.name_any();
        Ok(Victim { what: format!("pod {name}"), name })
    }

    async fn inject(&self, run: &Run<'_>, victim: &Victim) -> Result<(), ScenarioError> {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let deleted = self.of.api(run).delete(&victim.name, &now).await;
        deleted.map(drop).map_err(ScenarioError::cluster(format!("killing {}", victim.what)))
    }
}
