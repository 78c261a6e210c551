//! Deployment jobs.

use super::{Pool, Step};
use serde::{Deserialize, Serialize};

/// What a deployment job does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Where to.
    pub environment: Environment,
    /// How.
    pub strategy: DeploymentStrategy,
}

/// `environment:` of a deployment job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Environment {
    /// Its name; may hold macros.
    pub name: String,
    /// A resource in it (`name.resource` or `resourceName`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// The same by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// `VirtualMachine` or `Kubernetes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// Comma-separated tags that choose machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
}

/// `strategy:` of a deployment job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeploymentStrategy {
    /// Hooks once.
    RunOnce(Hooks),
    /// Hooks for each target machine, some at once.
    #[serde(rename_all = "camelCase")]
    Rolling {
        /// A number, or a percentage such as `25%`.
        max_parallel: String,
        /// The hooks.
        hooks: Hooks,
    },
    /// `preDeploy` once, then `deploy`, `routeTraffic`, `postRouteTraffic` for each increment and for 100 %.
    Canary {
        /// Percentages, ascending, without the last 100.
        increments: Vec<u32>,
        /// The hooks.
        hooks: Hooks,
    },
}

impl DeploymentStrategy {
    /// Its lifecycle hooks.
    pub fn hooks(&self) -> &Hooks {
        match self {
            Self::RunOnce(hooks) | Self::Rolling { hooks, .. } | Self::Canary { hooks, .. } => hooks,
        }
    }
}

/// Lifecycle hooks, in the order they run. The implicit `download: current` is in `deploy` where the file has no
/// download step in the job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Before anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_deploy: Option<Hook>,
    /// The deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Hook>,
    /// Traffic to the new version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_traffic: Option<Hook>,
    /// After that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_route_traffic: Option<Hook>,
    /// `on: failure`, when a hook above failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Hook>,
    /// `on: success`, when all above succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_success: Option<Hook>,
}

impl Hooks {
    /// All that are written, with their names (`preDeploy`, …, `on.failure`, `on.success`).
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Hook)> {
        [
            ("preDeploy", &self.pre_deploy),
            ("deploy", &self.deploy),
            ("routeTraffic", &self.route_traffic),
            ("postRouteTraffic", &self.post_route_traffic),
            ("on.failure", &self.on_failure),
            ("on.success", &self.on_success),
        ]
        .into_iter()
        .filter_map(|(name, hook)| Some((name, hook.as_ref()?)))
    }
}

/// One lifecycle hook: a job of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Its pool, when not the job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// Its steps.
    pub steps: Vec<Step>,
}
