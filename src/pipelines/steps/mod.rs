//! Tasks: a file each, and one line each in the table.
//!
//! To add a task: a file with a type that implements [`Task`], its `mod` line, and its row. The contract test
//! below holds every row to the table that the plan is made with.

mod artifact_download;
mod artifact_publish;
pub mod cache;
mod checkout;
mod copy_files;
mod docker;
mod glob;
mod helm;
mod kubectl;
mod kubernetes_manifest;
mod powershell;
mod script;
mod secure_file;
mod test_results;

use super::plan::Action;
use crate::context::{StepContext, TaskError};
use async_trait::async_trait;

/// What a step does.
#[async_trait]
pub trait Task: Send + Sync {
    /// Does it. The step's log, inputs, variables and end are the context's.
    ///
    /// # Errors
    /// [`TaskError`]: the step fails with its text, or is canceled.
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError>;
}

/// A row of the table.
pub struct Row {
    /// Name, compared without case.
    pub name: &'static str,
    /// Major versions that it does.
    pub versions: &'static [&'static str],
    /// What does it.
    pub task: &'static dyn Task,
}

const fn row(name: &'static str, versions: &'static [&'static str], task: &'static dyn Task) -> Row {
    Row { name, versions, task }
}

/// Every task that runs here.
pub static TASKS: &[Row] = &[
    row("CmdLine", &["1", "2"], &script::CmdLine),
    row("Bash", &["3"], &script::Bash),
    row("PowerShell", &["1", "2"], &powershell::PowerShell),
    row("Docker", &["2"], &docker::Docker),
    row("KubernetesManifest", &["0", "1"], &kubernetes_manifest::KubernetesManifest),
    row("Kubernetes", &["0", "1"], &kubectl::Kubernetes),
    row("KubectlInstaller", &["0"], &kubectl::KubectlInstaller),
    row("HelmDeploy", &["0", "1"], &helm::HelmDeploy),
    row("CopyFiles", &["2"], &copy_files::CopyFiles),
    row("PublishBuildArtifacts", &["1"], &artifact_publish::PublishBuildArtifacts),
    row("PublishPipelineArtifact", &["0", "1"], &artifact_publish::PublishPipelineArtifact),
    row("DownloadPipelineArtifact", &["1", "2"], &artifact_download::DownloadArtifact),
    row("DownloadBuildArtifacts", &["0", "1"], &artifact_download::DownloadArtifact),
    row("Cache", &["2"], &cache::Cache),
    row("PublishTestResults", &["1", "2"], &test_results::PublishTestResults),
    row("DownloadSecureFile", &["1"], &secure_file::DownloadSecureFile),
];

/// The row of a task.
pub fn find(name: &str, version: &str) -> Option<&'static Row> {
    let major = version.split('.').next().unwrap_or(version);
    TASKS.iter().find(|r| r.name.eq_ignore_ascii_case(name) && r.versions.contains(&major))
}

/// Runs the step's task.
///
/// # Errors
/// [`TaskError`]; a task that is not in the table is one.
pub async fn run(step: &StepContext<'_>) -> Result<(), TaskError> {
    match (&step.step.action, step.call()) {
        (Action::Checkout(checkout), _) => checkout::run(step, checkout).await,
        (Action::NoDownload {}, _) => Ok(()),
        (Action::Task(_), Some(call)) => match find(&call.name, &call.version) {
            Some(row) => row.task.run(step).await,
            None => {
                // Said before the run, which was told to go on without it.
                step.log
                    .warning(&format!("{} is not supported and was left out (--skip-unsupported).", call.reference()));
                Ok(())
            }
        },
        (Action::Task(_), None) => Err(TaskError::Failed("a task without a call".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_and_found_by_version() {
        for (index, row) in TASKS.iter().enumerate() {
            assert!(!row.versions.is_empty(), "{}", row.name);
            for version in row.versions {
                let first = TASKS.iter().position(|r| r.name == row.name && r.versions.contains(version));
                assert_eq!(first, Some(index), "{}@{version} has two rows", row.name);
            }
        }
        assert_eq!(find("docker", "2.1.0").unwrap().name, "Docker");
        assert!(find("Docker", "9").is_none() && find("Nothing", "1").is_none());
    }
}
