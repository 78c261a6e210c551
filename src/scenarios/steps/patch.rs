//! Changes an object for the time of the scenario.

use super::Action;
use crate::{
    Run, ScenarioError,
    undo::{self, Undo},
};
use async_trait::async_trait;
use kube::api::{Patch, PatchParams};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// `patch`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PatchObject {
    /// `KIND/NAME`.
    object: String,
    /// Namespace.
    #[serde(default = "super::super::checks::default_namespace")]
    namespace: String,
    /// Merge patch (RFC 7386). What it changes is put back at the end.
    merge: serde_json::Map<String, Value>,
}

#[async_trait]
impl Action for PatchObject {
    async fn perform(&self, run: &Run<'_>) -> Result<String, ScenarioError> {
        let (kind, name) = self
            .object
            .split_once('/')
            .ok_or_else(|| ScenarioError::Missing(format!("{:?} is not KIND/NAME", self.object)))?;
        let api = run.environment.objects(kind, &self.namespace).await?;
        let doing = || ScenarioError::cluster(format!("patching {}", self.object));
        let before = serde_json::to_value(api.get(name).await.map_err(doing())?).unwrap_or_default();
        let merge = Value::Object(self.merge.clone());
        api.patch(name, &PatchParams::default(), &Patch::Merge(&merge)).await.map_err(doing())?;
        run.undo_later(Undo::Patch { api, name: name.to_owned(), before: undo::inverse(&before, &merge) });
        Ok(format!("patched {}", self.object))
    }
}
