//! `script`, `bash`, `CmdLine@2`, `Bash@3`.

use super::Task;
use crate::context::{StepContext, TaskError};
use async_trait::async_trait;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// `CmdLine@2`: on Linux and macOS a script for bash.
pub struct CmdLine;

#[async_trait]
impl Task for CmdLine {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let script = step.required("script")?;
        let file = script_file(step, script, "sh", true)?;
        let arguments = ["--noprofile".into(), "--norc".into(), file.into_os_string()];
        interpret(step, "bash", &arguments).await
    }
}

/// `Bash@3`: inline, or a file of the repository.
pub struct Bash;

#[async_trait]
impl Task for Bash {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let inline = step.input("targetType").is_some_and(|t| t.eq_ignore_ascii_case("inline"))
            || (step.input("targetType").is_none() && step.input("filePath").is_none());
        let text = if inline {
            step.required("script")?.to_owned()
        } else {
            let path = step.path(step.required("filePath")?);
            if !path.is_file() {
                return Err(TaskError::Failed(format!("Invalid file path '{}'.", path.display())));
            }
            let arguments = step.input("arguments").unwrap_or_default();
            // The task's own words: arguments are text of a command line, which bash reads.
            format!("exec bash {} {arguments}", quoted(&path))
        };
        let file = script_file(step, &text, "sh", inline)?;
        let environment = step.input("bashEnvValue").map(str::to_owned);
        if let Some(value) = environment {
            step.log.warning(&format!("bashEnvValue '{value}' is not used."));
        }
        interpret(step, "bash", &[file.into_os_string()]).await
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Writes a script to the temporary folder, for its owner alone: it may hold secrets. As in Azure one of a single line is
/// `shown`, unless that would be a command to the agent.
pub(super) fn script_file(
    step: &StepContext<'_>,
    text: &str,
    extension: &str,
    shown: bool,
) -> Result<PathBuf, TaskError> {
    let path = step.job.workspace.temp.join(format!("{}.{extension}", uuid::Uuid::new_v4()));
    let text = text.replace("\r\n", "\n");
    aksim_runtime::files::write_atomic(&path, text.as_bytes(), aksim_runtime::files::PRIVATE)
        .map_err(|e| TaskError::file("write", &path, &e))?;
    step.log.write("Generating script.");
    let line = text.trim_end();
    if shown && !line.contains('\n') && !line.contains("##vso[") {
        step.log.write("Script contents:");
        step.log.write(line);
    }
    step.log.write("========================== Starting Command Output ===========================");
    Ok(path)
}

/// Runs an interpreter as the script tasks do: working folder, exit code, `failOnStderr`.
pub(super) async fn interpret(step: &StepContext<'_>, program: &str, arguments: &[OsString]) -> Result<(), TaskError> {
    let folder = step.input("workingDirectory").map_or_else(|| step.sources(), |f| step.path(f));
    if !folder.is_dir() {
        return Err(TaskError::Failed(format!("Not found workingDirectory: {}", folder.display())));
    }
    let shown: Vec<_> = arguments.iter().map(|a| a.to_string_lossy()).collect();
    step.log.command(&format!("{program} {}", shown.join(" ")));
    let mut complaints = 0usize;
    let status = step.exec_in_target(program, arguments.to_vec(), &folder, |_| complaints += 1).await?;
    if !status.success() {
        let code = status.code().map_or_else(|| status.to_string(), |c| c.to_string());
        return Err(TaskError::Failed(format!("Bash exited with code '{code}'.").replace("Bash", title(program))));
    }
    if complaints > 0 && step.flag("failOnStderr", false) {
        return Err(TaskError::Failed(format!(
            "{} wrote one or more lines to the standard error stream.",
            title(program)
        )));
    }
    Ok(())
}

fn title(program: &str) -> &'static str {
    if program == "bash" { "Bash" } else { "PowerShell" }
}
