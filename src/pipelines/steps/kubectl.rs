//! `Kubernetes@1` and `KubectlInstaller@0`: by the kubectl that is installed.

use super::Task;
use crate::{
    agent::{
        command_line::words,
        process::{self, ProcessSpec, Source},
    },
    context::{StepContext, TaskError, which},
};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitStatus,
};

/// `KubectlInstaller@0`: nothing is downloaded; what is there is told.
pub struct KubectlInstaller;

#[async_trait]
impl Task for KubectlInstaller {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let kubectl = program(step, "kubectl")?;
        step.log.write(&format!("Using {} (this machine's; nothing is downloaded)", kubectl.display()));
        let status = step.exec(kubectl, ["version", "--client"], &step.sources()).await?;
        ended("kubectl", status)
    }
}

/// `Kubernetes@1`.
pub struct Kubernetes;

#[async_trait]
impl Task for Kubernetes {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let command = step.required("command")?.to_owned();
        if command == "login" || command == "logout" {
            let path = kubeconfig(step)?.display().to_string();
            step.log.write("The local cluster's kubeconfig is in KUBECONFIG for later steps.");
            let value = if command == "login" { path.as_str() } else { "" };
            return step.set_variable("KUBECONFIG", value, false, false, false).map_err(TaskError::Failed);
        }
        let kubectl = program(step, "kubectl")?;
        let mut arguments = vec![command];
        if step.flag("useConfigurationFile", false) {
            if step.input("configurationType").is_some_and(|t| t == "inline") {
                let file = step.job.workspace.temp.join(format!("{}.yaml", uuid::Uuid::new_v4()));
                let text = step.required("inline")?;
                std::fs::write(&file, text).map_err(|e| TaskError::file("write", &file, &e))?;
                arguments.extend(["-f".into(), file.display().to_string()]);
            } else {
                arguments.extend(["-f".into(), step.path(step.required("configuration")?).display().to_string()]);
            }
        }
        arguments.extend(words(step.input("arguments").unwrap_or_default())?);
        if let Some(namespace) = step.input("namespace") {
            arguments.extend(["--namespace".into(), namespace.to_owned()]);
        }
        if let Some(format) = step.input("outputFormat").filter(|f| *f != "none" && arguments[0] == "get") {
            arguments.extend(["-o".into(), format.to_owned()]);
        }
        step.log.command(&format!("kubectl {}", arguments.join(" ")));
        let captured = captured(step, kubectl, arguments).await?;
        // Documented as the task's output variable.
        step.set_variable("KubectlOutput", &captured.output, false, true, false).map_err(TaskError::Failed)?;
        ended("kubectl", captured.status)
    }
}

/// What a program that talked to the cluster said.
pub(super) struct Captured {
    pub status: ExitStatus,
    /// Lines of its standard output.
    pub output: String,
    /// Whether it wrote to its standard error.
    pub complained: bool,
}

/// Runs a program against the cluster, its output in the log and kept.
pub(super) async fn captured(
    step: &StepContext<'_>,
    program: PathBuf,
    arguments: Vec<String>,
) -> Result<Captured, TaskError> {
    let mut environment = step.environment();
    environment.extend(cluster(step)?);
    let arguments = arguments.into_iter().map(Into::into).collect();
    let spec = ProcessSpec { program, arguments, folder: step.sources(), environment, input: None };
    let (mut output, mut complained) = (Vec::new(), false);
    let status = process::run(spec, step.log.masker(), &step.cancel, |source, line| {
        match source {
            Source::Stdout => output.push(line.to_owned()),
            Source::Stderr => complained = true,
        }
        step.line(line);
    });
    let status = status.await?;
    Ok(Captured { status, output: output.join("\n"), complained })
}

pub(super) fn program(step: &StepContext<'_>, name: &str) -> Result<PathBuf, TaskError> {
    let environment = step.environment();
    which(name, environment.get("PATH").map_or("", String::as_str)).ok_or_else(|| {
        TaskError::Failed(format!(
            "Unable to locate executable file: '{name}'. Install it, or run `aksim doctor --fix`."
        ))
    })
}

pub(super) fn ended(name: &str, status: ExitStatus) -> Result<(), TaskError> {
    match status.success() {
        true => Ok(()),
        false => Err(TaskError::Failed(format!("{name} failed: {status}"))),
    }
}

fn kubeconfig<'a>(step: &'a StepContext<'_>) -> Result<&'a Path, TaskError> {
    let cluster = step.job.run.engine.config.cluster.as_ref();
    cluster
        .and_then(|c| c.kubeconfig.as_deref())
        .ok_or_else(|| TaskError::Failed("there is no cluster in this environment".into()))
}

/// Environment of programs that talk to the cluster.
fn cluster(step: &StepContext<'_>) -> Result<BTreeMap<String, String>, TaskError> {
    let path = kubeconfig(step)?.display().to_string();
    for input in
        ["kubernetesServiceEndpoint", "kubernetesServiceConnection", "azureSubscription", "azureSubscriptionEndpoint"]
    {
        if let Some(name) = step.input(input) {
            step.log.write(&format!("Service connection '{name}' stands for the local cluster."));
        }
    }
    Ok(BTreeMap::from([("KUBECONFIG".to_owned(), path)]))
}
