//! `pwsh`, `powershell`, `PowerShell@2`: where PowerShell is installed.

use super::{
    Task,
    script::{interpret, script_file},
};
use crate::context::{StepContext, TaskError, which};
use async_trait::async_trait;

/// `PowerShell@2`.
pub struct PowerShell;

#[async_trait]
impl Task for PowerShell {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let environment = step.environment();
        if step.container().is_none() && which("pwsh", environment.get("PATH").map_or("", String::as_str)).is_none() {
            return Err(TaskError::Failed(
                "Unable to locate executable file: 'pwsh'. Install PowerShell (https://aka.ms/powershell), or use a bash step.".into(),
            ));
        }
        let inline = step.input("targetType").is_none_or(|t| t.eq_ignore_ascii_case("inline"));
        let body = if inline {
            step.required("script")?.to_owned()
        } else {
            let path = step.path(step.required("filePath")?);
            let arguments = step.input("arguments").unwrap_or_default();
            format!(". '{}' {arguments}", path.display().to_string().replace('\'', "''"))
        };
        let preference = step.input("errorActionPreference").unwrap_or("stop");
        let last_code = if step.flag("ignoreLASTEXITCODE", false) {
            ""
        } else {
            "\nif (!(Test-Path -LiteralPath variable:\\LASTEXITCODE)) { exit 0 } else { exit $LASTEXITCODE }\n"
        };
        let text = format!("$ErrorActionPreference = '{preference}'\n{body}\n{last_code}");
        let file = script_file(step, &text, "ps1", false)?;
        let arguments = ["-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Unrestricted", "-File"];
        let arguments: Vec<_> = arguments.map(Into::into).into_iter().chain([file.into_os_string()]).collect();
        interpret(step, "pwsh", &arguments).await
    }
}
