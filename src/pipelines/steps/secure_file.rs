//! `DownloadSecureFile@1`: from the folder `secure-files` of the pipelines' state.

use super::{Task, glob::inside};
use crate::context::{StepContext, TaskError};
use aksim_runtime::files::{PRIVATE, write_atomic};
use async_trait::async_trait;

/// `DownloadSecureFile@1`.
pub struct DownloadSecureFile;

#[async_trait]
impl Task for DownloadSecureFile {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let name = step.required("secureFile")?.to_owned();
        let from = inside(&step.job.run.engine.config.state_dir.join("secure-files"), &name)?;
        let content = std::fs::read(&from).map_err(|_| {
            TaskError::Failed(format!(
                "File not found: there is no secure file '{name}'. Put it at {}.",
                from.display()
            ))
        })?;
        let to = inside(&step.job.workspace.temp, &name)?;
        write_atomic(&to, &content, PRIVATE).map_err(|e| TaskError::file("write", &to, &e))?;
        step.log.write(&format!("Downloaded secure file {name}"));
        let path = to.display().to_string();
        step.set_variable("secureFilePath", &path, false, true, false).map_err(TaskError::Failed)
    }
}
