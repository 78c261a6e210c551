//! Jobs.

use super::{Container, Deployment, Late, Step, Variable};
use crate::error::Location;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Name, unique in its stage; `Job1`, … where the file gives none.
    pub name: String,
    /// What people see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Names of jobs of the same stage that end first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// Condition; absent means `succeeded()`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// A failure counts as partial success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continue_on_error: Option<Late<bool>>,
    /// Minutes before the job is cancelled; 0 means no limit, absent means 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_in_minutes: Option<Late<u32>>,
    /// Minutes a cancelled job has to end; absent means 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_timeout_in_minutes: Option<Late<u32>>,
    /// Where it runs, already inherited from stage and pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// Container the steps run in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerRef>,
    /// Containers beside it, by the host name they answer to.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub services: IndexMap<String, ContainerRef>,
    /// What is cleaned before the job: `outputs`, `resources` or `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_clean: Option<String>,
    /// Resources the job uses without naming them in a step (`uses:`).
    #[serde(default, skip_serializing_if = "Uses::is_empty")]
    pub uses: Uses,
    /// Variables of the job, over those of stage and pipeline. May hold `$[ ]` with `dependencies`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
    /// How often it runs, and with what.
    #[serde(default, skip_serializing_if = "Legs::is_single")]
    pub legs: Legs,
    /// Template context of the job (`templateContext:`), as written; the agent has no use for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_context: Option<Json>,
    /// What it does.
    pub work: Work,
    /// Where it is written.
    pub location: Location,
}

/// `uses:` of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uses {
    /// Repository aliases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
    /// Pool names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
}

impl Uses {
    /// Nothing is named.
    pub fn is_empty(&self) -> bool {
        self.repositories.is_empty() && self.pools.is_empty()
    }
}

/// `strategy: matrix` and `strategy: parallel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Legs {
    /// Once.
    #[default]
    Single,
    /// Once for each leg, with the leg's variables.
    #[serde(rename_all = "camelCase")]
    Matrix {
        /// Leg name → variables.
        legs: IndexMap<String, IndexMap<String, String>>,
        /// How many at once; absent means all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_parallel: Option<Late<u32>>,
    },
    /// Legs computed by the run: `$[ ]` that gives a JSON text of leg name → variables.
    #[serde(rename_all = "camelCase")]
    MatrixExpression {
        /// The `$[ ]` text.
        matrix: String,
        /// How many at once; absent means all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_parallel: Option<Late<u32>>,
    },
    /// `count` times, as `System.JobPositionInPhase` of `System.TotalJobsInPhase`.
    #[serde(rename_all = "camelCase")]
    Parallel {
        /// How often.
        count: Late<u32>,
        /// How many at once; absent means all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_parallel: Option<Late<u32>>,
    },
}

impl Legs {
    /// The job runs once.
    pub fn is_single(&self) -> bool {
        matches!(self, Self::Single)
    }
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// `job:`. The implicit `checkout: self` is in the list where the file has no checkout.
    Steps(Vec<Step>),
    /// `deployment:`.
    Deployment(Box<Deployment>),
}

/// `pool:`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pool {
    /// Name of a pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Image of a hosted agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm_image: Option<String>,
    /// `Agent.OS -equals Linux`, or a capability's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub demands: Vec<String>,
    /// `pool: server`: no agent (Azure's server tasks only).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub server: bool,
}

/// A container where it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerRef {
    /// Alias of `resources: containers`.
    Alias(String),
    /// Written in place, or a bare image. A text with macros (`$[ variables['image'] ]`) is in `image`, and may
    /// turn out to be an alias.
    Inline(Box<Container>),
}
