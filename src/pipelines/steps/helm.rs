//! `HelmDeploy@1`: by the helm that is installed.

use super::{
    Task,
    docker::words,
    kubectl::{cluster, ended, program},
};
use crate::pipelines::run::{StepContext, TaskError};
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
                arguments.extend(step.input("releaseName").map(str::to_owned));
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
            "package" | "lint" | "template" => arguments.extend(chart),
            _ => {}
        }
        arguments.extend(words(step.input("arguments").unwrap_or_default())?);
        if let Some(namespace) = step.input("namespace") {
            arguments.extend(["--namespace".into(), namespace.to_owned()]);
        }
        step.log.command(&format!("helm {}", arguments.join(" ")));
        let status = step.exec_with(helm, arguments, &step.sources(), cluster(step)?, |_| {}).await?;
        ended("helm", status)
    }
}
