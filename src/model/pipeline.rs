//! Pipeline runs, as whoever looks at an environment sees them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A run of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineRun {
    /// `Build.BuildId`.
    pub id: u64,
    /// `Build.BuildNumber`.
    pub name: String,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Branch, without `refs/heads/`.
    pub branch: String,
    /// Commit.
    pub commit: String,
    /// First line of the commit's message.
    #[serde(default)]
    pub message: String,
    /// `Build.Reason`.
    pub reason: String,
    /// `notStarted`, `waiting`, `inProgress`, `cancelling`, `completed`.
    pub state: String,
    /// `Succeeded`, `SucceededWithIssues`, `Failed`, `Canceled`, `Skipped`, `Lost`; absent until it ends.
    pub result: Option<String>,
    /// When it was queued.
    pub queued: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Stages in order of the file.
    pub stages: Vec<PipelineStage>,
}

/// A stage of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineStage {
    /// For people.
    pub name: String,
    /// As of the run; `waiting` means for an approval.
    pub state: String,
    /// As of the run.
    pub result: Option<String>,
}
