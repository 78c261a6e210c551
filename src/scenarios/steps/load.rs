//! Starts and stops a load that goes on through the following steps.

use super::Action;
use crate::{
    Period, Run, ScenarioError,
    environment::{ClientKind, Door},
    traffic::{Load, LoadSpec},
};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

/// Where requests go: a host of the ingress, or a Service of type LoadBalancer.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    /// Host of an Ingress.
    #[serde(default)]
    ingress: Option<String>,
    /// Service of type LoadBalancer.
    #[serde(default)]
    service: Option<String>,
    /// Namespace of the Service.
    #[serde(default = "super::super::checks::default_namespace")]
    namespace: String,
    /// Path with query.
    path: String,
}

impl Target {
    /// Where that is now.
    ///
    /// # Errors
    /// [`ScenarioError::Missing`] when it is not there.
    pub async fn door(&self, run: &Run<'_>, client: ClientKind) -> Result<Door, ScenarioError> {
        match (&self.ingress, &self.service) {
            (Some(host), None) => run.environment.ingress(host, &self.path, client).await,
            (None, Some(service)) => run.environment.balancer(&self.namespace, service, &self.path, client).await,
            _ => Err(ScenarioError::Missing("a target is an `ingress` or a `service`, one of them".into())),
        }
    }
}

/// `load`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StartLoad {
    /// Names it in checks.
    name: String,
    /// Where to.
    to: Target,
    /// Requests a second, sent whatever becomes of the earlier ones.
    rate: f64,
    /// How long a request may take.
    #[serde(default = "default_timeout")]
    timeout: Period,
    /// A new connection for every request: what a Service spreads is connections.
    #[serde(default)]
    new_connections: bool,
    /// Status that is right.
    #[serde(default = "super::super::checks::default_status")]
    status: u16,
}

fn default_timeout() -> Period {
    Period::seconds(10)
}

#[async_trait]
impl Action for StartLoad {
    async fn perform(&self, run: &Run<'_>) -> Result<String, ScenarioError> {
        if !(self.rate > 0.0 && self.rate <= 10_000.0) {
            return Err(ScenarioError::Missing(format!("rate {} is not between 0 and 10000 a second", self.rate)));
        }
        let client = ClientKind { fresh: self.new_connections, timeout: self.timeout.0 };
        let door = self.to.door(run, client).await?;
        let said = format!("{} requests a second to {}", self.rate, door.url);
        let load = Load::start(LoadSpec { door, rate: self.rate, status: self.status });
        match run.loads.lock().insert(self.name.clone(), load) {
            None => Ok(said),
            Some(_) => Err(ScenarioError::Missing(format!("there is a load {:?} already", self.name))),
        }
    }
}

/// `stop-load`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StopLoad {
    /// Which.
    name: String,
}

#[async_trait]
impl Action for StopLoad {
    async fn perform(&self, run: &Run<'_>) -> Result<String, ScenarioError> {
        let load = run.loads.lock().remove(&self.name);
        let mut load = load.ok_or_else(|| ScenarioError::Missing(format!("there is no load {:?}", self.name)))?;
        load.stop().await;
        let summary = load.record().summary(None);
        run.loads.lock().insert(self.name.clone(), load);
        Ok(format!("{} requests, {} failed", summary.requests, summary.failed))
    }
}
