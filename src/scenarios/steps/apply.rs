//! Puts an object into the cluster for the time of the scenario.

use super::Action;
use crate::{Run, ScenarioError, undo::Undo};
use async_trait::async_trait;
use kube::{
    ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// `apply`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Apply {
    /// A manifest. Removed at the end if the scenario has made it.
    manifest: serde_json::Map<String, Value>,
}

#[async_trait]
impl Action for Apply {
    async fn perform(&self, run: &Run<'_>) -> Result<String, ScenarioError> {
        let object: DynamicObject = serde_json::from_value(Value::Object(self.manifest.clone()))
            .map_err(|e| ScenarioError::Missing(format!("the manifest is no object: {e}")))?;
        let api = run.environment.objects_of(&object).await?;
        let name = object.name_any();
        let doing = || ScenarioError::cluster(format!("applying {name}"));
        let there = api.get_opt(&name).await.map_err(doing())?;
        let parameters = PatchParams::apply("aksim-scenario").force();
        api.patch(&name, &parameters, &Patch::Apply(&object)).await.map_err(doing())?;
        if there.is_none() {
            run.undo_later(Undo::Delete { api, name: name.clone() });
        }
        Ok(format!("applied {name}"))
    }
}
