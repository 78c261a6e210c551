//! What a pipeline comes to once `${{ }}` and templates are gone. Field names are Azure's.
//!
//! Order is kept everywhere: it is the order of the file. A text may still hold `$( )` macros, and where a
//! field says so `$[ ]`; they are the run's. [`Late`] holds values that are usually plain but may be such a text.

mod deployment;
mod gap;
mod job;
mod resources;
mod step;
mod trigger;

pub use deployment::{Deployment, DeploymentStrategy, Environment, Hook, Hooks};
pub use gap::{Gap, Standing};
pub use job::{ContainerRef, Job, Legs, Pool, Uses, Work};
pub use resources::{Container, OtherResource, Repository, Resources};
pub use step::{Action, Checkout, Step, StepTarget, TaskCall};
pub use trigger::{Filter, Schedule, Trigger};

use crate::error::Location;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A whole pipeline, ready to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Run number format (`$(Date:yyyyMMdd)$(Rev:.r)`); that is also the default when the file names none.
    pub name: String,
    /// The commit's message follows the run number. Azure's default is true.
    pub append_commit_message_to_run_name: bool,
    /// What a push has to look like to start a run.
    pub trigger: Trigger,
    /// The same for pull requests.
    pub pr: Trigger,
    /// Runs by the clock. Named in the plan, started only when asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
    /// What the pipeline uses from elsewhere.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Runtime parameters with the values of this run.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub parameters: IndexMap<String, Json>,
    /// Variables of the pipeline, in order; a later one wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
    /// `sequential` or `runLatest`, for exclusive locks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_behavior: Option<String>,
    /// Stages in order of the file; `Stage::depends_on` says which wait. A file without stages has one,
    /// named `__default`.
    pub stages: Vec<Stage>,
    /// What this pipeline uses that is not done, or done otherwise, here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// A value known when the plan is made, or a text with `$( )` or `$[ ]` that the run evaluates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Late<T> {
    /// Known.
    Known(T),
    /// To be evaluated before it is used.
    Text(String),
}

/// A variable, or a group of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Variable {
    /// One variable.
    Value {
        /// Name, compared without case.
        name: String,
        /// Text; may hold `$( )`, or be one `$[ ]`.
        value: String,
        /// Neither scripts nor the queue may change it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        readonly: bool,
        /// Where it is written.
        location: Location,
    },
    /// A variable group; its values belong to the service, not the file, and may be secret.
    Group {
        /// Name of the group.
        group: String,
        /// Where it is written.
        location: Location,
    },
}

/// A stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// Name, unique in the pipeline; `Stage1`, … where the file gives none.
    pub name: String,
    /// What people see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Names of stages that end first. Resolved: a file that says nothing depends on the stage before.
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// Condition; absent means `succeeded()`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Variables of the stage, over those of the pipeline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
    /// `sequential` or `runLatest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_behavior: Option<String>,
    /// Starts only by hand (`trigger: manual`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub manual: bool,
    /// May not be skipped by hand (`isSkippable: false`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unskippable: bool,
    /// Jobs in order of the file; they run side by side unless [`Job::depends_on`] says otherwise.
    pub jobs: Vec<Job>,
    /// Where it is written.
    pub location: Location,
}
