//! Whom a fault meets.

use crate::{Run, ScenarioError};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use rand::{Rng, RngExt as _, rngs::StdRng};
use schemars::JsonSchema;
use serde::Deserialize;

/// Pods by labels.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Pods {
    /// Label selector.
    pub pods: String,
    /// Namespace.
    #[serde(default = "super::super::checks::default_namespace")]
    pub namespace: String,
}

impl Pods {
    /// One that runs, chosen by `rng` from those there are, by name.
    ///
    /// # Errors
    /// [`ScenarioError::Missing`] when none runs.
    pub async fn choose(&self, run: &Run<'_>, rng: &mut StdRng) -> Result<Pod, ScenarioError> {
        let mut running: Vec<Pod> = self.running(run).await?;
        running.sort_by_key(ResourceExt::name_any);
        if running.is_empty() {
            return Err(ScenarioError::Missing(format!("no running pod has {}", self.pods)));
        }
        Ok(running.swap_remove(pick(rng, running.len())))
    }

    /// The API of their namespace.
    pub fn api(&self, run: &Run<'_>) -> Api<Pod> {
        Api::namespaced(run.environment.client.clone(), &self.namespace)
    }

    async fn running(&self, run: &Run<'_>) -> Result<Vec<Pod>, ScenarioError> {
        let list = self.api(run).list(&ListParams::default().labels(&self.pods)).await;
        let list = list.map_err(ScenarioError::cluster("pods"))?;
        let runs = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
            phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        };
        Ok(list.into_iter().filter(runs).collect())
    }
}

fn pick(rng: &mut impl Rng, count: usize) -> usize {
    rng.random_range(0..count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_seed_makes_the_same_choices() {
        let choices = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (0..20).map(|_| pick(&mut rng, 5)).collect::<Vec<_>>()
        };
        assert_eq!(choices(7), choices(7));
        assert_ne!(choices(7), choices(8));
        assert!(choices(7).iter().all(|c| *c < 5));
    }
}
