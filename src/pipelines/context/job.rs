//! A job under way, as its steps see it.

use super::{RunContext, scope::StepScope, variables::Variables};
use crate::{
    agent::{
        containers::{JobContainers, Needs},
        pool::Workspace,
        process::LOOKUP_VARIABLE,
    },
    store::record::{Outcome, OutputValue, StepRecord},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
};
use tokio_util::sync::CancellationToken;

/// Percent of a canary's round, for the hooks of that round.
pub const INCREMENT: &str = "Strategy.Increment";

/// Separates the hook from the rest of an output's key.
pub const HOOK_MARK: char = '\u{1f}';

/// A cache that was missed and is to be saved.
#[derive(Clone, Debug)]
pub struct PendingCache {
    /// Key of the new entry.
    pub key: String,
    /// Folder that is kept under it.
    pub path: PathBuf,
}

/// What the steps of a job share and change.
pub struct JobState {
    /// Variables.
    pub variables: Variables,
    /// `task.prependpath`, newest first.
    pub prepends: Vec<PathBuf>,
    /// Outputs: `step.variable`.
    pub outputs: BTreeMap<String, OutputValue>,
    /// How the job stands: succeeded, with issues, failed, canceled.
    pub status: Outcome,
    /// Checkout steps that have been done, for the layout of several.
    pub checkouts: usize,
    /// Files that get their old text back when the job ends: git configurations with credentials.
    pub restore: Vec<(PathBuf, String)>,
    /// Caches to save when the job has ended well.
    pub caches: Vec<PendingCache>,
}

/// A job under way.
pub struct JobContext {
    /// Its run.
    pub run: Arc<RunContext>,
    /// Stage.
    pub stage: String,
    /// Name of its record.
    pub name: String,
    /// Number of checkout steps in the job.
    pub checkouts: usize,
    /// Its folders.
    pub workspace: Workspace,
    /// Folder of its agent.
    pub agent_home: PathBuf,
    /// Shared by its steps.
    pub state: Mutex<JobState>,
    /// Cancelled with the run, or when time is over.
    pub cancel: CancellationToken,
    /// Cancelled when the time to end is over too.
    pub hard: CancellationToken,
    /// Marks its processes.
    pub lookup: String,
    /// Which containers its steps run in.
    pub needs: Needs,
    /// Those containers, once they run.
    pub containers: OnceLock<JobContainers>,
}

impl JobContext {
    /// What conditions of steps see now.
    pub fn scope(&self) -> StepScope {
        let state = self.state.lock();
        StepScope { variables: state.variables.context(), status: state.status }
    }

    /// What they would see if the job were cancelled.
    pub fn scope_if_cancelled(&self) -> StepScope {
        StepScope { status: Outcome::Canceled, ..self.scope() }
    }

    /// Changes a step's record.
    pub fn change_step(&self, index: usize, change: impl FnOnce(&mut StepRecord)) {
        self.run.change(|run| {
            let job = run.job_mut(&self.stage, &self.name);
            if let Some(step) = job.and_then(|j| j.steps.get_mut(index)) {
                change(step);
            }
        });
    }

    /// Environment of a process of the job: the service's own, variables, and the mark of the job.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        environment.retain(|key, _| !key.starts_with("AKSIM_") && !key.starts_with("GIT_"));
        environment.extend(self.own_environment());
        let path = environment.get("PATH").cloned().unwrap_or_default();
        environment.insert("PATH".to_owned(), self.prepended(Some(path)).unwrap_or_default());
        environment
    }

    /// What the job itself gives to a process, wherever that runs: variables and the mark of the job.
    pub fn own_environment(&self) -> BTreeMap<String, String> {
        let mut environment = self.state.lock().variables.environment();
        environment.insert(LOOKUP_VARIABLE.to_owned(), self.lookup.clone());
        environment.insert("TF_BUILD".to_owned(), "True".to_owned());
        environment
    }

    /// The folders of `task.prependpath` before `path`; none when there are none of either.
    pub fn prepended(&self, path: Option<String>) -> Option<String> {
        let state = self.state.lock();
        let prepends = state.prepends.iter().map(|p| p.display().to_string());
        let folders: Vec<String> = prepends.chain(path).collect();
        (!folders.is_empty()).then(|| folders.join(":"))
    }
}
