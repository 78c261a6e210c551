//! Steps.

use super::Late;
use crate::error::Location;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// One step: always a task, whatever shortcut the file uses, except checkout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
    /// Name for output variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What people see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Condition; absent means `succeeded()`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// A failure is a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continue_on_error: Option<Late<bool>>,
    /// `enabled: false` leaves it out.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub enabled: bool,
    /// Minutes before it is ended; 0 or absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_in_minutes: Option<Late<u32>>,
    /// How often a failure is tried again, at most 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_count_on_task_failure: Option<Late<u32>>,
    /// Where it runs, when not where the job runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<StepTarget>,
    /// Environment variables; values may hold macros. Secrets reach scripts only this way.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// Where it is written; for an implicit step, the job.
    pub location: Location,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_true(value: &bool) -> bool {
    *value
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// A task. Shortcuts are tasks: `script` CmdLine@2; `bash` Bash@3; `pwsh` and `powershell` PowerShell@2
    /// (`pwsh: true`); `publish` PublishPipelineArtifact@1; `download` DownloadPipelineArtifact@2;
    /// `downloadBuild` DownloadBuildArtifacts@0; `getPackage` DownloadPackage@1; `reviewApp` ReviewApp@0.
    Task(TaskCall),
    /// `checkout:`.
    Checkout(Checkout),
    /// `download: none`: nothing is downloaded by itself.
    NoDownload {},
}

/// A task with its inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCall {
    /// Name as the task's table spells it (`Docker`); as written when unknown.
    pub name: String,
    /// Major version (`2`); a file may pin `2.1.0`, kept whole.
    pub version: String,
    /// Inputs by the task's own spelling, aliases resolved, and defaults of the task's table filled in where the
    /// file gives nothing. Values may hold macros.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub inputs: IndexMap<String, String>,
}

impl TaskCall {
    /// An input by name, without case.
    pub fn input(&self, name: &str) -> Option<&str> {
        self.inputs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// `Docker@2`.
    pub fn reference(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// `checkout:`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Checkout {
    /// `self`, `none`, an alias of `resources: repositories`, or `git://PROJECT/REPO@REF` and alike in place.
    pub repository: String,
    /// `true`: `git clean -ffdx` first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean: Option<Late<bool>>,
    /// Commits of history; 0 means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_depth: Option<Late<u32>>,
    /// Tags too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_tags: Option<Late<bool>>,
    /// Partial clone filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_filter: Option<String>,
    /// Large files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lfs: Option<Late<bool>>,
    /// `true` or `recursive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submodules: Option<String>,
    /// Folder below `$(Pipeline.Workspace)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The token stays in git's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist_credentials: Option<Late<bool>>,
    /// Sparse checkout, folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparse_checkout_directories: Option<String>,
    /// Sparse checkout, patterns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparse_checkout_patterns: Option<String>,
    /// It is the folder `Build.SourcesDirectory` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_repo: Option<Late<bool>>,
}

/// `target:` of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StepTarget {
    /// `host`, or an alias of `resources: containers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// `any` or `restricted`: which logging commands count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<String>,
    /// Which variables may be set: absent means any, empty means none (`settableVariables: none`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settable_variables: Option<Vec<String>>,
}
