//! What every run uses: store, agents, environments, connections to Git host, registry and cluster.

use crate::{
    agent::{git::GitError, pool::AgentPool},
    connections::{ClusterConnection, GitHost, RegistryConnection},
    environments::{Environments, lock::EnvironmentLock},
    error::PipelineError,
    plan::Gap,
    store::{RunStore, StoreError},
};
use aksim_images::ImageBuilder;
use aksim_model::advice::Advice;
use aksim_runtime::{pki::Pki, recorder::Recorder};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A variable of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupVariable {
    /// Text.
    pub value: String,
    /// Whether it is masked.
    #[serde(default)]
    pub secret: bool,
}

/// What the pipelines are made from.
pub struct PipelinesConfig {
    /// Runs, agents, mirrors, environments, secure files, the access token.
    pub state_dir: PathBuf,
    /// Loopback port; 0 for a free one.
    pub port: u16,
    /// For the server's certificate.
    pub pki: Pki,
    /// `System.CollectionUri` ends in it.
    pub organization: String,
    /// `System.TeamProject`.
    pub project: String,
    /// Secret of the webhook's signature; kept in the state folder when absent.
    pub webhook_secret: Option<String>,
    /// Path of the pipeline in its repository.
    pub file: String,
    /// Jobs at once.
    pub agents: usize,
    /// Completed runs that are kept.
    pub keep_runs: usize,
    /// Git host; absent when runs name folders.
    pub git: Option<GitHost>,
    /// Client that reaches the Git host.
    pub http: reqwest::Client,
    /// Image builder for `Docker@2`.
    pub images: Option<ImageBuilder>,
    /// Registries by the name of their service connection; `*` is any other name.
    pub registries: BTreeMap<String, RegistryConnection>,
    /// Cluster of every Kubernetes service connection.
    pub cluster: Option<ClusterConnection>,
    /// Variable groups.
    pub groups: BTreeMap<String, BTreeMap<String, GroupVariable>>,
    /// Length of a minute of `timeoutInMinutes`: 60 s, tests have shorter ones.
    pub minute: Duration,
}

impl PipelinesConfig {
    /// A configuration without connections.
    pub fn new(state_dir: impl Into<PathBuf>, pki: Pki, http: reqwest::Client) -> Self {
        Self {
            state_dir: state_dir.into(),
            port: 0,
            pki,
            organization: "contoso".into(),
            project: "shop".into(),
            webhook_secret: None,
            file: "azure-pipelines.yml".into(),
            agents: 2,
            keep_runs: 50,
            git: None,
            http,
            images: None,
            registries: BTreeMap::new(),
            cluster: None,
            groups: BTreeMap::new(),
            minute: Duration::from_secs(60),
        }
    }
}

/// Why a run cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The repository cannot be read.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The pipeline is wrong.
    #[error("{}", listed(.0))]
    Invalid(Vec<PipelineError>),
    /// The pipeline uses what is not supported.
    #[error("{}", gaps(.0))]
    Unsupported(Vec<Gap>),
    /// The request means nothing.
    #[error("{0}")]
    Refused(String),
    /// The service is stopping.
    #[error("the pipelines are stopping")]
    Stopping,
}

impl Advice for EngineError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: Option<&str> = match self {
            Self::Unsupported(_) => Some("leave them out with --skip-unsupported"),
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }
}

fn listed(errors: &[PipelineError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn gaps(gaps: &[Gap]) -> String {
    let lines: Vec<String> =
        gaps.iter().map(|g| format!("{}: {} is not supported: {}", g.location, g.what, g.consequence)).collect();
    lines.join("\n")
}

/// Start of a run that the store has.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Which.
    pub run: u64,
}

/// What every run uses.
pub struct Engine {
    /// Configuration.
    pub config: PipelinesConfig,
    /// Runs.
    pub store: RunStore,
    /// Agents.
    pub agents: AgentPool,
    /// Environments and their approvals.
    pub environments: Environments,
    /// Facts go here; set once when the component runs.
    pub recorder: OnceLock<Recorder>,
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// Bearer of the REST API.
    pub access_token: String,
    /// Secret of the webhook.
    pub webhook_secret: String,
    /// Locks of environments (`lockBehavior`): who asks first has it first.
    pub(super) locks: Mutex<HashMap<String, Arc<EnvironmentLock>>>,
    pub(super) starts: mpsc::UnboundedSender<Start>,
    pub(super) active: Mutex<HashMap<u64, CancellationToken>>,
}

impl Engine {
    /// Records a fact, once there is a recorder.
    pub fn record(&self, body: aksim_model::event::EventBody) {
        if let Some(recorder) = self.recorder.get() {
            recorder.record(body);
        }
    }

    /// Cancels a run; `false` when it is not under way.
    pub fn cancel(&self, run: u64) -> bool {
        match self.active.lock().get(&run) {
            Some(token) => {
                token.cancel();
                true
            }
            None => false,
        }
    }

    pub(super) fn start(self: &Arc<Self>, run: u64) -> Result<(), EngineError> {
        self.active.lock().insert(run, CancellationToken::new());
        self.starts.send(Start { run }).map_err(|_| EngineError::Stopping)
    }

    /// `https://127.0.0.1:PORT/ORG/PROJECT/_build/results?buildId=ID`.
    pub fn run_url(&self, run: u64) -> String {
        format!("{}/{}/{}/_build/results?buildId={run}", self.url, self.config.organization, self.config.project)
    }
}
