//! Which names an expression may use depends on where it is written.

use super::{Scope, Value};
use std::ops::RangeInclusive;

/// A place for runtime expressions. As a [`Scope`] it knows names and nothing else, to check a text before the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `condition:` of a stage or job.
    Condition,
    /// `condition:` of a step.
    StepCondition,
    /// `$[ ]` in a variable of the pipeline.
    PipelineVariable,
    /// `$[ ]` in a variable of a stage or job, and in a job's settings.
    JobVariable,
}

/// How many arguments a job status function takes: in a step's condition none; in a job's or stage's condition
/// `succeeded`, `failed` and `succeededOrFailed` take names. `None` when it is no status function.
pub fn status_function(name: &str, in_step: bool) -> Option<RangeInclusive<usize>> {
    let most = match name.to_ascii_lowercase().as_str() {
        "always" | "canceled" => 0,
        "succeeded" | "failed" | "succeededorfailed" if in_step => 0,
        "succeeded" | "failed" | "succeededorfailed" => usize::MAX,
        _ => return None,
    };
    Some(0..=most)
}

impl Scope for Slot {
    fn context(&self, name: &str) -> Option<Value> {
        let names: &[&str] = match self {
            Self::Condition => &["variables", "pipeline", "dependencies", "stageDependencies"],
            Self::StepCondition => &["variables", "pipeline"],
            Self::PipelineVariable => &["variables", "pipeline", "resources"],
            Self::JobVariable => &["variables", "pipeline", "resources", "dependencies", "stageDependencies"],
        };
        names.iter().any(|known| known.eq_ignore_ascii_case(name)).then_some(Value::Null)
    }

    fn function(&self, name: &str) -> Option<RangeInclusive<usize>> {
        match self {
            Self::Condition => status_function(name, false),
            Self::StepCondition => status_function(name, true),
            Self::PipelineVariable | Self::JobVariable => name.eq_ignore_ascii_case("counter").then_some(1..=2),
        }
    }
}
