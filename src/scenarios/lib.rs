//! Scenarios: one YAML file is a demonstration, a test and a lab.
//!
//! [`load`] reads and checks a file, [`run`] carries it out against a running environment, through what
//! a user has too: the control API, the Kubernetes API, HTTP through the ingress and SQL over TLS.
//! What a step does, what a check looks at and what a fault breaks is a file each in [`steps`],
//! [`checks`] and [`faults`], with a line in the table there.

pub mod checks;
mod environment;
mod error;
pub mod faults;
pub mod library;
pub mod load;
mod period;
mod report;
mod rotation;
mod run;
mod scenario;
pub mod statistics;
pub mod steps;
mod table;
pub mod traffic;
mod undo;

pub use environment::Environment;
pub use error::ScenarioError;
pub use period::Period;
pub use report::{CheckReport, FaultReport, LoadReport, Outcome, Report, StepReport, junit};
pub use run::{Options, Run, run};
pub use scenario::{Budget, Fault, Needs, Scenario, Step};
