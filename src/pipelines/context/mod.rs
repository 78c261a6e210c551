//! What a run, its jobs and their steps share while they are under way: what tasks work with.

mod commands;
mod job;
pub(crate) mod journey;
pub(crate) mod scope;
mod step;
pub(crate) mod variables;

pub(crate) use job::{HOOK_MARK, INCREMENT, JobContext, JobState, PendingCache};
pub(crate) use journey::RunJourney;
pub(crate) use step::{StepContext, TaskError, Told, issue, which};

use crate::{
    artifacts::{self, ArtifactError},
    engine::Engine,
    logging::mask::SecretMasker,
    plan::Plan,
    store::{
        StoreError,
        record::{Artifact, RunRecord},
    },
};
use std::{path::Path, sync::Arc};
use tokio_util::sync::CancellationToken;
use variables::Variables;

/// What all parts of one run share.
pub struct RunContext {
    /// What every run uses.
    pub engine: Arc<Engine>,
    /// `Build.BuildId`.
    pub id: u64,
    /// What is to be done.
    pub plan: Plan,
    /// Secrets of the run.
    pub masker: Arc<SecretMasker>,
    /// Cancelled when the run is.
    pub cancel: CancellationToken,
    /// Variables of the pipeline, evaluated.
    pub variables: Variables,
    /// The commit's trace.
    pub journey: RunJourney,
}

impl RunContext {
    /// The run as the store has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn record(&self) -> Result<RunRecord, StoreError> {
        self.engine.store.get(self.id)
    }

    /// Changes the run; a failure to write is logged, as nobody above could do more.
    pub fn change(&self, change: impl FnOnce(&mut RunRecord)) {
        if let Err(error) = self.engine.store.change(self.id, change) {
            tracing::error!(%error, run = self.id, "a change of a pipeline run could not be kept");
        }
    }

    /// Tells whoever looks where the run stands.
    pub fn tell(&self) {
        if let Ok(record) = self.record() {
            self.engine.record(journey::event_of(&record));
        }
    }

    /// Publishes a file, or what is in a folder, as an artifact; the number of files.
    ///
    /// # Errors
    /// [`ArtifactError`].
    pub fn publish(&self, name: &str, from: &Path, kind: &str) -> Result<usize, ArtifactError> {
        artifacts::safe_name(name).map_err(|_| ArtifactError::Name(name.to_owned()))?;
        let to = self.engine.store.folder(self.id).join("artifacts").join(name);
        let files = if from.is_dir() {
            artifacts::copy_tree(from, &to, |_| true)?
        } else {
            artifacts::copy_file(from, &to.join(from.file_name().unwrap_or_default()))?;
            1
        };
        let artifact = Artifact { name: name.to_owned(), kind: kind.to_owned(), data: to.display().to_string() };
        self.change(|run| {
            run.artifacts.retain(|a| a.name != artifact.name);
            run.artifacts.push(artifact);
        });
        Ok(files)
    }

    /// Minutes of the pipeline as time.
    pub fn minutes(&self, minutes: u32) -> std::time::Duration {
        self.engine.config.minute * minutes
    }
}
