//! `HelmDeploy@1`: by the helm that is installed.

use super::{
    Task,
    kubectl::{captured, ended, program},
};
use crate::{
    agent::command_line::words,
    context::{StepContext, TaskError},
};
use async_trait::async_trait;

/// `HelmDeploy@0` and `@1`.
pub struct HelmDeploy;

#[async_trait]
impl Task for HelmDeploy {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let helm = program(step, "helm")?;
        let command = step.input("command").unwrap_or("ls").to_owned();
        let mut arguments = vec![command.clone()];
        let path = |name: &str| step.input(name).map(|p| step.path(p).display().to_string());
        let chart = path("chartPath").or_else(|| step.input("chartName").map(str::to_owned));
        match command.as_str() {
            "install" | "upgrade" => {
                // Azure leaves the name to helm where the step has none.
                let unnamed = if command == "install" { "--generate-name" } else { "" };
                let name = step.input("releaseName").unwrap_or(unnamed);
                arguments.extend((!name.is_empty()).then(|| name.to_owned()));
                arguments.push(chart.ok_or_else(|| TaskError::Failed("Input required: chartName".into()))?);
                if command == "upgrade" && step.flag("install", true) {
                    arguments.push("--install".into());
                }
                arguments.extend(path("valueFile").into_iter().flat_map(|v| ["--values".to_owned(), v]));
                for (flag, name) in [("--set", "overrideValues"), ("--version", "chartVersion")] {
                    arguments
                        .extend(step.input(name).into_iter().flat_map(|v| [flag.to_owned(), v.replace('\n', ",")]));
                }
                for (flag, name, default) in [
                    ("--wait", "waitForExecution", true),
                    ("--force", "force", false),
                    ("--reset-values", "resetValues", false),
                ] {
                    arguments.extend(step.flag(name, default).then(|| flag.to_owned()));
                }
            }
            "package" => {
                arguments.extend(chart);
                arguments.extend(path("destination").into_iter().flat_map(|d| ["--destination".to_owned(), d]));
                arguments.extend(step.input("chartVersion").into_iter().flat_map(|v| ["--version".into(), v.into()]));
                arguments.extend(step.flag("updateDependency", false).then(|| "--dependency-update".to_owned()));
            }
            "lint" | "template" => arguments.extend(chart),
            _ => {}
        }
        arguments.extend(words(step.input("arguments").unwrap_or_default())?);
        if let Some(namespace) = step.input("namespace") {
            arguments.extend(["--namespace".into(), namespace.to_owned()]);
        }
        step.log.command(&format!("helm {}", arguments.join(" ")));
        let captured = captured(step, helm, arguments).await?;
        let code = captured.status.code().map_or_else(String::new, |c| c.to_string());
        // Documented as the task's output variables.
        for (name, value) in [("helmExitCode", &code), ("helmOutput", &captured.output)] {
            step.set_variable(name, value, false, true, false).map_err(TaskError::Failed)?;
        }
        ended("helm", captured.status)?;
        match captured.complained && step.flag("failOnStderr", false) {
            true => Err(TaskError::Failed("helm wrote one or more lines to the standard error stream.".into())),
            false => Ok(()),
        }
    }
}
