//! What is kept of a run: a tree of stages, jobs and steps with state and result.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a run, stage, job or step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Not begun.
    #[default]
    Pending,
    /// Waits for an approval.
    Waiting,
    /// Under way.
    InProgress,
    /// Told to end.
    Canceling,
    /// Ended.
    Completed,
}

/// How it ended, as Azure Pipelines' `TaskResult` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Well.
    Succeeded,
    /// With errors that count as warnings.
    SucceededWithIssues,
    /// Its condition was not met.
    Skipped,
    /// Told to end.
    Canceled,
    /// Badly.
    Failed,
    /// The agent went away under it.
    Lost,
}

impl Outcome {
    /// As conditions and logs name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::SucceededWithIssues => "SucceededWithIssues",
            Self::Skipped => "Skipped",
            Self::Canceled => "Canceled",
            Self::Failed => "Failed",
            Self::Lost => "Lost",
        }
    }

    /// Whether it counts as success.
    pub fn good(self) -> bool {
        matches!(self, Self::Succeeded | Self::SucceededWithIssues)
    }

    /// The worse of two, for what is made of both.
    pub fn and(self, other: Self) -> Self {
        let rank = |o: Self| match o {
            Self::Skipped => 0,
            Self::Succeeded => 1,
            Self::SucceededWithIssues => 2,
            Self::Canceled => 3,
            Self::Failed => 4,
            Self::Lost => 5,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// What began a run (`Build.Reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Somebody asked.
    Manual,
    /// A push.
    IndividualCI,
    /// Several pushes while a run was under way.
    BatchedCI,
    /// A pull request.
    PullRequest,
}

impl Reason {
    /// Value of `Build.Reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manual => "Manual",
            Self::IndividualCI => "IndividualCI",
            Self::BatchedCI => "BatchedCI",
            Self::PullRequest => "PullRequest",
        }
    }
}

/// A value that a job gave to later ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputValue {
    /// Its text.
    pub value: String,
    /// Whether it is masked.
    #[serde(default)]
    pub secret: bool,
}

/// An error or warning of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issue {
    /// `error` or `warning`.
    pub kind: String,
    /// Masked text.
    pub message: String,
    /// `sourcepath`, where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `linenumber`, where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

/// A step of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// Reference name; empty when it has none.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// `Docker@2`.
    pub task: String,
    /// State.
    pub state: State,
    /// Result.
    pub result: Option<Outcome>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Number of its log.
    pub log: u32,
    /// Percent, as `task.setprogress` told it.
    #[serde(default)]
    pub percent: u8,
    /// Errors and warnings.
    #[serde(default)]
    pub issues: Vec<Issue>,
}

/// A job, one leg of a matrix, or one lifecycle phase's steps of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobRecord {
    /// `JOB`, `JOB LEG` for a leg.
    pub name: String,
    /// Job of the plan that it is a leg of.
    pub job: String,
    /// Leg of the matrix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leg: Option<String>,
    /// For people.
    pub display_name: String,
    /// State.
    pub state: State,
    /// Result.
    pub result: Option<Outcome>,
    /// From 1; a rerun adds one.
    pub attempt: u32,
    /// Agent that runs it.
    #[serde(default)]
    pub agent: String,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Environment that it deploys to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Why it was skipped or failed before a step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `VSTS_PROCESS_LOOKUP_ID` of its processes.
    #[serde(default)]
    pub lookup: String,
    /// Outputs: `step.variable` (deployments: `HOOK.step.variable` too).
    #[serde(default)]
    pub outputs: BTreeMap<String, OutputValue>,
    /// Steps.
    pub steps: Vec<StepRecord>,
}

/// A stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageRecord {
    /// Name.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// State.
    pub state: State,
    /// Result.
    pub result: Option<Outcome>,
    /// From 1; a rerun adds one.
    pub attempt: u32,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Jobs.
    pub jobs: Vec<JobRecord>,
}

/// Something published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Name.
    pub name: String,
    /// `PipelineArtifact`, `Container`, or what `artifact.associate` said.
    pub kind: String,
    /// Where it is: a folder of the store, or what was associated.
    pub data: String,
}

/// A test case that was published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TestCase {
    /// Suite.
    pub suite: String,
    /// Class.
    pub class: String,
    /// Name.
    pub name: String,
    /// `passed`, `failed`, `skipped`.
    pub outcome: TestOutcome,
    /// Seconds.
    pub seconds: f64,
    /// Message of the failure.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Job that published it.
    #[serde(default)]
    pub job: String,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TestOutcome {
    /// Well.
    Passed,
    /// Badly.
    Failed,
    /// Not run.
    Skipped,
}

/// What a run is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRequest {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Repository, as the host knows it: `ORG/NAME`.
    pub repository: String,
    /// URL or folder that git clones.
    pub clone_url: String,
    /// `refs/heads/main`.
    pub reference: String,
    /// Commit, 40 or 64 hex digits.
    pub commit: String,
    /// First line of the commit's message.
    #[serde(default)]
    pub message: String,
    /// What began it.
    pub reason: Reason,
    /// Who.
    pub requested_for: String,
    /// File of the pipeline in the repository.
    pub file: String,
    /// Parameters, as given.
    #[serde(default)]
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// Variables set for this run.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Stages to skip.
    #[serde(default)]
    pub stages_to_skip: Vec<String>,
    /// Leave out what is not supported instead of refusing.
    #[serde(default)]
    pub skip_unsupported: bool,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// `Build.BuildId`.
    pub id: u64,
    /// `Build.BuildNumber`.
    pub name: String,
    /// What was asked for.
    pub request: RunRequest,
    /// State.
    pub state: State,
    /// Result.
    pub result: Option<Outcome>,
    /// When it was queued.
    pub queued: Timestamp,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Why it failed before a job.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `build.addbuildtag`.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Stages.
    pub stages: Vec<StageRecord>,
    /// Published things.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// Published tests.
    #[serde(default)]
    pub tests: Vec<TestCase>,
    /// Last number given to a log.
    #[serde(default)]
    pub last_log: u32,
}

impl RunRecord {
    /// Branch without `refs/heads/`.
    pub fn branch(&self) -> &str {
        branch_name(&self.request.reference)
    }

    /// A job's record.
    pub fn job(&self, stage: &str, name: &str) -> Option<&JobRecord> {
        self.stages.iter().find(|s| s.name == stage)?.jobs.iter().find(|j| j.name == name)
    }

    /// The same, to be changed.
    pub fn job_mut(&mut self, stage: &str, name: &str) -> Option<&mut JobRecord> {
        self.stages.iter_mut().find(|s| s.name == stage)?.jobs.iter_mut().find(|j| j.name == name)
    }

    /// Values of secret outputs gone, for whoever looks.
    #[must_use]
    pub fn redacted(mut self) -> Self {
        for job in self.stages.iter_mut().flat_map(|s| &mut s.jobs) {
            for output in job.outputs.values_mut().filter(|o| o.secret) {
                output.value = crate::logging::mask::MASK.to_owned();
            }
        }
        self
    }
}

/// `main` of `refs/heads/main`.
pub fn branch_name(reference: &str) -> &str {
    ["refs/heads/", "refs/tags/"].iter().find_map(|p| reference.strip_prefix(p)).unwrap_or(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_outcome_counts() {
        assert_eq!(Outcome::Skipped.and(Outcome::Succeeded), Outcome::Succeeded);
        assert_eq!(Outcome::Failed.and(Outcome::Canceled), Outcome::Failed);
        assert_eq!(Outcome::SucceededWithIssues.and(Outcome::Succeeded), Outcome::SucceededWithIssues);
    }

    #[test]
    fn branch_names() {
        assert_eq!(branch_name("refs/heads/feature/a"), "feature/a");
        assert_eq!(branch_name("refs/tags/v1"), "v1");
    }
}
