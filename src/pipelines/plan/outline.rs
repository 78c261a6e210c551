//! A plan on one screen.

use super::{Action, Late, Legs, Plan, Step, Work};
use std::fmt::Write;

/// Stages, jobs and steps, a line each.
pub fn outline(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for stage in &plan.stages {
        let _ = writeln!(text, "stage {}{}", stage.name, after(&stage.depends_on));
        for job in &stage.jobs {
            let legs = match &job.legs {
                Legs::Single => String::new(),
                Legs::Matrix { legs, .. } => format!(" × {}", legs.len()),
                Legs::MatrixExpression { .. } => " × matrix of the run".to_owned(),
                Legs::Parallel { count: Late::Known(count), .. } => format!(" × {count}"),
                Legs::Parallel { count: Late::Text(count), .. } => format!(" × {count}"),
            };
            match &job.work {
                Work::Steps(steps) => {
                    let _ = writeln!(text, "  job {}{legs}{}", job.name, after(&job.depends_on));
                    outline_steps(&mut text, "    ", steps);
                }
                Work::Deployment(deployment) => {
                    let environment = &deployment.environment.name;
                    let after = after(&job.depends_on);
                    let _ = writeln!(text, "  deployment {} to {environment}{after}", job.name);
                    for (name, hook) in deployment.strategy.hooks().all() {
                        let _ = writeln!(text, "    {name}");
                        outline_steps(&mut text, "      ", &hook.steps);
                    }
                }
            }
        }
    }
    text
}

fn after(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" after {}", names.join(", ")) }
}

fn outline_steps(text: &mut String, indent: &str, steps: &[Step]) {
    for step in steps {
        let what = match &step.action {
            Action::Task(task) => task.reference(),
            Action::Checkout(checkout) => format!("checkout {}", checkout.repository),
            Action::NoDownload {} => "download none".to_owned(),
        };
        let name = step.display_name.as_ref().map(|name| format!("  {name}")).unwrap_or_default();
        let off = if step.enabled { "" } else { "  (disabled)" };
        let _ = writeln!(text, "{indent}{what}{name}{off}");
    }
}
