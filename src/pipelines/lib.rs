//! Azure Pipelines: `azure-pipelines.yml` → [`Plan`] → run.
//!
//! [`load`] reads a pipeline and everything it includes, expands `${{ }}` and templates, and gives a
//! [`Plan`]: what the agent has to do, with every name resolved, every step a task, and the places it came
//! from. What is left for the run are conditions, `$[ ]` (`expression::evaluate`) and `$( )`
//! (`expression::expand_macros`). The language is documented at
//! <https://learn.microsoft.com/azure/devops/pipelines/yaml-schema>.

mod agent;
mod artifacts;
mod connections;
mod context;
mod engine;
mod environments;
mod error;
mod expression;
mod logging;
mod plan;
mod run;
mod service;
mod steps;
mod store;
mod template;
mod yaml;

pub use connections::{ClusterConnection, GitHost, RegistryConnection};
pub use context::journey::{first_error, state_name};
pub use engine::{Engine, EngineError, GroupVariable, PipelinesConfig};
pub use environments::{Approval, Checks};
pub use error::{Location, PipelineError};
pub use plan::{Gap, Plan, Standing, fidelity, final_yaml, load, outline, tasks};
pub use service::{ApprovalBody, Pipelines, PipelinesError, QueueBody, ServiceAddress, webhook::hmac};
pub use store::{LogLine, StoreError, record};
pub use template::{RepositoryRef, SourceError, TemplateSource};
