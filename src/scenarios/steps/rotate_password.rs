//! Gives the database user of a service another password.

use super::Action;
use crate::{Run, ScenarioError, checks::secrets::values};
use aksim_model::{command::Command, ids::ServiceName};
use async_trait::async_trait;
use mysql_async::{Conn, prelude::Queryable};
use schemars::JsonSchema;
use serde::Deserialize;

/// `rotate-password`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RotatePassword {
    /// Service.
    service: String,
    /// Namespace of its Secret.
    #[serde(default = "super::super::checks::default_namespace")]
    namespace: String,
}

#[async_trait]
impl Action for RotatePassword {
    async fn perform(&self, run: &Run<'_>) -> Result<String, ScenarioError> {
        // The old value is a secret still: checks look for it too.
        let before = values(&run.environment.client).await?;
        run.remember_secrets(before);
        let options = run.environment.database(&self.namespace, &self.service).await?;
        let mut connection = Conn::new(options).await?;
        let number: Option<u64> = connection.query_first("SELECT CONNECTION_ID()").await?;
        run.remember_connection(&self.service, number.unwrap_or_default());
        connection.disconnect().await?;
        let command = Command::RotateDatabasePassword { service: ServiceName::new(self.service.clone()) };
        Ok(run.environment.control.command(&command).await?.message)
    }
}
