//! How long a pod that was broken still was in a Service's rotation.

use super::{Check, Verdict};
use crate::{Period, Run, ScenarioError};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

/// `leaves-rotation`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LeavesRotation {
    /// Service.
    service: String,
    /// Namespace.
    #[serde(default = "super::default_namespace")]
    namespace: String,
    /// Fault that broke the pod.
    fault: String,
    /// From the fault until the pod's endpoint was not ready, or gone.
    at_most: Period,
}

#[async_trait]
impl Check for LeavesRotation {
    fn claim(&self) -> String {
        format!("{}'s pod leaves the rotation of {} within {}", self.fault, self.service, self.at_most)
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        let (pod, since) = run.victim(&self.fault)?;
        let service = format!("{}/{}", self.namespace, self.service);
        Ok(match run.rotation.left(&service, &pod, since) {
            Some(at) => {
                let took = at - since;
                Verdict::final_(took <= self.at_most.0, format!("{pod} left after {} ms", took.as_millis()))
            }
            None => Verdict::new(false, format!("{pod} has not left")),
        })
    }

    async fn changed(&self, run: &Run<'_>) {
        // The pause is for a change between the look and the wait.
        tokio::select! {
            () = run.rotation.changed() => {}
            () = tokio::time::sleep(super::PAUSE) => {}
        }
    }
}
