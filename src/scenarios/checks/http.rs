//! An answer over HTTP.

use super::{Check, Verdict};
use crate::{Run, ScenarioError, environment::ClientKind, steps::load::Target};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `http`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HttpAnswer {
    /// Where to.
    to: Target,
    /// Status that is right.
    #[serde(default = "super::default_status")]
    status: u16,
    /// The body contains this.
    #[serde(default)]
    contains: Option<String>,
}

#[async_trait]
impl Check for HttpAnswer {
    fn claim(&self) -> String {
        let body = self.contains.as_ref().map_or_else(String::new, |c| format!(" with {c:?}"));
        format!("the answer is {}{body}", self.status)
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        let door = self.to.door(run, ClientKind { fresh: true, timeout: TIMEOUT }).await?;
        let answer = door.client.get(door.url.clone()).send().await?;
        let status = answer.status().as_u16();
        let body = answer.text().await?;
        let has = self.contains.as_ref().is_none_or(|c| body.contains(c.as_str()));
        let without = if has { "" } else { " without it" };
        Ok(Verdict::new(status == self.status && has, format!("{} answered {status}{without}", door.url)))
    }
}
