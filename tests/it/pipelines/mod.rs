//! Azure pipelines: planned from their files, and run for real with git repositories, processes, a registry and
//! environments.

mod command_line;
mod delivery;
mod deployments;
mod golden;
mod hosts;
mod limits;
mod plan;
mod runs;
mod support;
mod tasks;
