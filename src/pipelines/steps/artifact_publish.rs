//! `publish`, `PublishPipelineArtifact@1`, `PublishBuildArtifacts@1`.

use super::Task;
use crate::context::{StepContext, TaskError};
use async_trait::async_trait;

/// `PublishPipelineArtifact@1`.
pub struct PublishPipelineArtifact;

#[async_trait]
impl Task for PublishPipelineArtifact {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let path =
            step.input("targetPath").or_else(|| step.input("path")).unwrap_or("$(Pipeline.Workspace)").to_owned();
        let path = step.job.state.lock().variables.expand(&path);
        let name = step.input("artifact").or_else(|| step.input("artifactName"));
        // Azure names it by the job when the file does not.
        let default = format!("{}.{}", step.job.stage, step.job.name);
        publish(step, &path, name.unwrap_or(&default), "PipelineArtifact")
    }
}

/// `PublishBuildArtifacts@1`.
pub struct PublishBuildArtifacts;

#[async_trait]
impl Task for PublishBuildArtifacts {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        if step.input("publishLocation").is_some_and(|l| l.eq_ignore_ascii_case("FilePath")) {
            return Err(TaskError::Failed(
                "publishLocation: FilePath is not supported; publish to the pipeline.".into(),
            ));
        }
        let staging = step.job.workspace.artifacts.display().to_string();
        let path = step.input("PathtoPublish").unwrap_or(&staging).to_owned();
        publish(step, &path, step.input("ArtifactName").unwrap_or("drop"), "Container")
    }
}

fn publish(step: &StepContext<'_>, path: &str, name: &str, kind: &str) -> Result<(), TaskError> {
    let path = step.path(path);
    if !path.exists() {
        return Err(TaskError::Failed(format!("Path does not exist: {}", path.display())));
    }
    let files = step.job.run.publish(name, &path, kind).map_err(|e| TaskError::Failed(e.to_string()))?;
    step.log.write(&format!("Uploaded {files} file(s) of {} as artifact {name}", path.display()));
    Ok(())
}
