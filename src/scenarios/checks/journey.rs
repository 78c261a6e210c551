//! The newest journey of a service: it was served, and how long it took.

use super::{Check, Verdict};
use crate::{Period, Run, ScenarioError};
use aksim_model::journey::JourneyOutcome;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

/// `journey`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JourneyTime {
    /// Service.
    service: String,
    /// From its cause to the first request served.
    at_most: Period,
}

#[async_trait]
impl Check for JourneyTime {
    fn claim(&self) -> String {
        format!("the last change of {} was served within {}", self.service, self.at_most)
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        let world = run.environment.control.world().await?;
        let last = world.journeys.iter().rev().find(|j| j.service.as_str() == self.service);
        let Some(journey) = last else { return Ok(Verdict::new(false, "there is no journey")) };
        let took = journey.total_ms();
        let served = journey.outcome == Some(JourneyOutcome::Served);
        let in_time = u128::try_from(took).is_ok_and(|ms| ms <= self.at_most.0.as_millis());
        Ok(Verdict::new(served && in_time, format!("{took} ms, {:?}", journey.outcome)))
    }
}
