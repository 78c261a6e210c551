//! The answer of a service's database, asked over TLS as the service asks.

use super::{Check, Verdict, expected::Expected};
use crate::{Run, ScenarioError};
use async_trait::async_trait;
use mysql_async::{Conn, Row, Value, prelude::Queryable};
use schemars::JsonSchema;
use serde::Deserialize;

/// `sql`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SqlAnswer {
    /// Service whose account is used, as its Secret has it now.
    service: String,
    /// Namespace of the Secret.
    #[serde(default = "super::default_namespace")]
    namespace: String,
    /// One statement; the first column of the first row is looked at.
    query: String,
    /// What it must be.
    #[serde(flatten)]
    expected: Expected,
}

#[async_trait]
impl Check for SqlAnswer {
    fn claim(&self) -> String {
        format!("{:?} in the database of {} {}", self.query, self.service, self.expected.words())
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        let options = run.environment.database(&self.namespace, &self.service).await?;
        let mut connection = Conn::new(options).await?;
        let row: Option<Row> = connection.query_first(&self.query).await?;
        connection.disconnect().await?;
        let found = row.and_then(|row| row.as_ref(0).map(text)).unwrap_or_else(|| "no row".into());
        Ok(Verdict::new(self.expected.holds(&found), found))
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.as_sql(true).trim_matches('\'').to_owned(),
    }
}
