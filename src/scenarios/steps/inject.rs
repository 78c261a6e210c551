//! Breaks things by the scenario's timeline, and makes them whole again.

use super::Action;
use crate::{Run, ScenarioError};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

/// `inject`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Inject {
    /// Names of faults of the scenario; each comes after its time, with the jitter that the seed gives.
    faults: Vec<String>,
}

#[async_trait]
impl Action for Inject {
    async fn perform(&self, run: &Run<'_>) -> Result<String, ScenarioError> {
        let mut timeline = Vec::new();
        for name in &self.faults {
            timeline.push((run.delay(run.fault(name)?), name));
        }
        timeline.sort();
        let begun = tokio::time::Instant::now();
        let mut said = Vec::new();
        for (after, name) in timeline {
            tokio::time::sleep_until(begun + after).await;
            said.push(run.inject(name).await?);
        }
        Ok(said.join("; "))
    }
}

/// `heal`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Heal {
    /// Name of a fault that was injected.
    fault: String,
}

#[async_trait]
impl Action for Heal {
    async fn perform(&self, run: &Run<'_>) -> Result<String, ScenarioError> {
        run.heal(&self.fault).await
    }
}
