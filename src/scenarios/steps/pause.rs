//! Lets time pass, for what is measured over time.

use super::Action;
use crate::{Period, Run, ScenarioError};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

/// `pause`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Pause {
    /// How long.
    r#for: Period,
}

#[async_trait]
impl Action for Pause {
    async fn perform(&self, _: &Run<'_>) -> Result<String, ScenarioError> {
        tokio::time::sleep(self.r#for.0).await;
        Ok(format!("{} passed", self.r#for))
    }
}
