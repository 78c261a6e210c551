//! An Event of the cluster since the scenario began.

use super::{Check, Verdict};
use crate::{Run, ScenarioError};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Event;
use kube::{Api, api::ListParams};
use schemars::JsonSchema;
use serde::Deserialize;

/// `event`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EventSeen {
    /// Reason, such as `SuccessfulRescale`.
    reason: String,
    /// Kind of the object it is about.
    #[serde(default)]
    kind: Option<String>,
    /// What the object's name begins with.
    #[serde(default)]
    name: Option<String>,
    /// What the message contains.
    #[serde(default)]
    contains: Option<String>,
    /// Namespace.
    #[serde(default = "super::default_namespace")]
    namespace: String,
}

#[async_trait]
impl Check for EventSeen {
    fn claim(&self) -> String {
        format!("there is an event {} of {}", self.reason, self.kind.as_deref().unwrap_or("an object"))
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        let api: Api<Event> = Api::namespaced(run.environment.client.clone(), &self.namespace);
        let all = api.list(&ListParams::default()).await.map_err(ScenarioError::cluster("events"))?;
        let found = all.iter().find(|e| self.fits(e) && when(e).is_some_and(|at| at >= run.begun_at.as_second()));
        Ok(match found {
            Some(event) => Verdict::new(true, event.message.clone().unwrap_or_default()),
            None => Verdict::new(false, format!("none of {} events", all.items.len())),
        })
    }
}

impl EventSeen {
    fn fits(&self, event: &Event) -> bool {
        let (kind, name) = (event.involved_object.kind.as_deref(), event.involved_object.name.as_deref());
        event.reason.as_deref() == Some(&self.reason)
            && self.kind.as_deref().is_none_or(|k| kind == Some(k))
            && self.name.as_deref().is_none_or(|n| name.is_some_and(|found| found.starts_with(n)))
            && self.contains.as_deref().is_none_or(|c| event.message.as_deref().is_some_and(|m| m.contains(c)))
    }
}

/// Second of the last time it happened.
fn when(event: &Event) -> Option<i64> {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
    let time = series.or(event.last_timestamp.as_ref().map(|t| t.0)).or(event.event_time.as_ref().map(|t| t.0));
    time.map(jiff::Timestamp::as_second)
}
