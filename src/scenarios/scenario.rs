//! A scenario as it runs.

use super::{Period, checks::Check, faults::FaultKind, steps::Action};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// One file.
pub struct Scenario {
    /// Name of the file, without its ending.
    pub name: String,
    /// Title.
    pub title: String,
    /// What it shows.
    pub goal: String,
    /// What the environment must have.
    pub environment: Needs,
    /// Seed of every choice of the faults.
    pub seed: u64,
    /// In order.
    pub steps: Vec<Step>,
    /// By name.
    pub faults: BTreeMap<String, Fault>,
    /// What it may cost.
    pub budgets: Vec<Budget>,
}

/// What the environment must have.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Needs {
    /// Services of the project that must be ready.
    #[serde(default)]
    pub services: Vec<String>,
    /// Nodes that must be there, at least.
    #[serde(default)]
    pub nodes: usize,
}

/// One step.
pub struct Step {
    /// Names it in reports and budgets.
    pub id: String,
    /// What happens, or what is to be done.
    pub text: String,
    /// Done by the scenario.
    pub action: Vec<Box<dyn Action>>,
    /// Done by who takes the lab; by the scenario with `--auto`.
    pub solution: Vec<Box<dyn Action>>,
    /// What must hold in the end.
    pub checks: Vec<Box<dyn Check>>,
    /// How long it may take until they hold.
    pub within: Duration,
    /// From a nudge to nearly the solution.
    pub hints: Vec<String>,
}

/// A fault with its place on the timeline of the step that injects it.
pub struct Fault {
    /// After the step's injection began.
    pub after: Duration,
    /// At most this much later, by the seed.
    pub jitter: Duration,
    /// Name of the kind.
    pub kind: String,
    /// What is broken.
    pub fault: Box<dyn FaultKind>,
}

/// What a step, or the whole, may take.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Budget {
    /// Id of a step, or `scenario`.
    pub of: String,
    /// Time.
    pub at_most: Period,
}
