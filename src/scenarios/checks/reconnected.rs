//! Since its password was rotated a service has connected anew: none of its connections is older.

use super::{Check, Verdict};
use crate::{Run, ScenarioError};
use async_trait::async_trait;
use mysql_async::{Conn, prelude::Queryable};
use schemars::JsonSchema;
use serde::Deserialize;

/// Connections of the account that asks, but its own, up to a number and beyond it.
const QUERY: &str = "SELECT COALESCE(SUM(id <= ?), 0), COALESCE(SUM(id > ?), 0) FROM information_schema.processlist \
     WHERE user = SUBSTRING_INDEX(USER(), '@', 1) AND id <> CONNECTION_ID()";

/// `reconnected`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Reconnected {
    /// Service whose password was rotated.
    service: String,
    /// Namespace of its Secret.
    #[serde(default = "super::default_namespace")]
    namespace: String,
}

#[async_trait]
impl Check for Reconnected {
    fn claim(&self) -> String {
        format!("every connection of {} to its database is by the new password", self.service)
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        let last = run.last_connection(&self.service)?;
        let mut connection = Conn::new(run.environment.database(&self.namespace, &self.service).await?).await?;
        let counts: Option<(u64, u64)> = connection.exec_first(QUERY, (last, last)).await?;
        connection.disconnect().await?;
        let (old, new) = counts.unwrap_or_default();
        Ok(Verdict::new(old == 0 && new > 0, format!("{new} new connections, {old} from before")))
    }
}
