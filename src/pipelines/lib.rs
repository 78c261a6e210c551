//! Azure Pipelines: `azure-pipelines.yml` → [`plan::Plan`] → run.
//!
//! [`load`] reads a pipeline and everything it includes, expands `${{ }}` and templates, and gives a
//! [`Plan`]: what the agent has to do, with every name resolved, every step a task, and the places it came
//! from. What is left for the run are conditions, `$[ ]` ([`expression::evaluate`]) and `$( )`
//! ([`expression::expand_macros`]). The language is documented at
//! <https://learn.microsoft.com/azure/devops/pipelines/yaml-schema>.

pub mod agent;
pub mod artifacts;
pub mod engine;
pub mod environments;
pub mod error;
pub mod expression;
pub mod fidelity;
pub mod logging;
pub mod plan;
pub mod run;
pub mod service;
pub mod steps;
pub mod store;
mod template;
pub mod yaml;

pub use engine::{ClusterConnection, GitHost, GroupVariable, PipelinesConfig, RegistryConnection};
pub use error::{Location, PipelineError};
pub use plan::{Plan, TemplateSource, load};
pub use service::{Pipelines, ServiceAddress};
