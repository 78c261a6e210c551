//! Rolls a Deployment out again and again.

use super::Action;
use crate::{Period, Run, ScenarioError};
use async_trait::async_trait;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::wait::await_condition,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// `rollouts`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Rollouts {
    /// Deployment.
    deployment: String,
    /// Namespace.
    #[serde(default = "super::super::checks::default_namespace")]
    namespace: String,
    /// How often.
    times: u32,
    /// How long one may take.
    #[serde(default = "default_each")]
    each: Period,
}

fn default_each() -> Period {
    Period::seconds(90)
}

#[async_trait]
impl Action for Rollouts {
    async fn perform(&self, run: &Run<'_>) -> Result<String, ScenarioError> {
        let api: Api<Deployment> = Api::namespaced(run.environment.client.clone(), &self.namespace);
        let doing = || ScenarioError::cluster(format!("rolling out {}", self.deployment));
        for round in 1..=self.times {
            // As `kubectl rollout restart`, whose annotation has whole seconds and so is too coarse.
            let moment = format!("{round} {}", jiff::Timestamp::now());
            let patch =
                json!({"spec": {"template": {"metadata": {"annotations": {"aksim.dev/restarted-at": moment}}}}});
            let patched = api.patch(&self.deployment, &PatchParams::default(), &Patch::Merge(&patch)).await;
            let generation = patched.map_err(doing())?.metadata.generation;
            let whole = await_condition(api.clone(), &self.deployment, move |d: Option<&Deployment>| {
                d.is_some_and(|d| complete(d, generation))
            });
            match tokio::time::timeout(self.each.0, whole).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(ScenarioError::Missing(error.to_string())),
                Err(_) => {
                    let what = format!("rollout {round} of {} has not ended", self.deployment);
                    return Err(ScenarioError::Deadline { what, seconds: self.each.0.as_secs() });
                }
            }
        }
        Ok(format!("{} rollouts of {}", self.times, self.deployment))
    }
}

/// Whether every replica is of the newest template and available, and none is left of others.
fn complete(deployment: &Deployment, generation: Option<i64>) -> bool {
    let Some(status) = &deployment.status else { return false };
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    status.observed_generation >= generation
        && [status.replicas, status.updated_replicas, status.available_replicas]
            .iter()
            .all(|n| n.unwrap_or(0) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_complete_with_the_last_old_pod() {
        let with = |generation: i64, replicas: i32, updated: i32, available: i32| -> Deployment {
            serde_json::from_value(json!({"metadata": {}, "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": {
                "observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available
            }}))
            .unwrap()
        };
        assert!(complete(&with(5, 2, 2, 2), Some(5)));
        assert!(!complete(&with(4, 2, 2, 2), Some(5)));
        assert!(!complete(&with(5, 3, 2, 3), Some(5)));
        assert!(!complete(&with(5, 2, 2, 1), Some(5)));
    }
}
