//! The pipeline service: webhooks in, runs started, a REST API for the command line.

mod api;
mod receive;
pub mod webhook;

use crate::{
    agent::{containers, git::Mirrors, pool::AgentPool, process},
    context::RunJourney,
    engine::{Engine, EngineError, PipelinesConfig, Start},
    environments::Environments,
    run,
    store::{
        RunStore, StoreError,
        record::{RunRecord, RunRequest, State},
    },
};
use aksim_model::{event::FlowRow, journey::Hop};
use aksim_runtime::{
    component::{Component, ComponentError, RunContext as ComponentContext},
    files::{PRIVATE, create_private_dir, write_atomic},
    http::serve,
    net::listen_loopback,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

/// Why the service cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PipelinesError {
    /// A file or folder of its state cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or folder of its state cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its port cannot be had.
    #[error("pipelines: {0}")]
    Listen(#[source] io::Error),
    /// Its certificate cannot be made.
    #[error(transparent)]
    Pki(#[from] aksim_runtime::pki::PkiError),
}

pub use api::{ApprovalBody, QueueBody};

/// Where the service of an environment is found: `address.json` in its state folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// Organization.
    pub organization: String,
    /// Project.
    pub project: String,
}

impl ServiceAddress {
    /// Reads it from the state folder of the pipelines.
    ///
    /// # Errors
    /// Any error of reading, or of a malformed file.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(state_dir.join("address.json"))?)?)
    }

    /// Base of the REST API.
    pub fn api(&self) -> String {
        format!("{}/{}/{}/_apis", self.url, self.organization, self.project)
    }
}

/// The pipeline service with its listener taken.
pub struct Pipelines {
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    engine: Arc<Engine>,
    starts: mpsc::UnboundedReceiver<Start>,
    /// Jobs of these marks were running when the last process ended.
    orphans: Vec<String>,
}

impl Pipelines {
    /// Takes the listener and opens the store; what was running when the last process ended is lost.
    ///
    /// # Errors
    /// [`PipelinesError`].
    pub async fn bind(config: PipelinesConfig) -> Result<Self, PipelinesError> {
        let dir = config.state_dir.clone();
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| PipelinesError::File { path, source }
        };
        create_private_dir(&dir).map_err(file(&dir))?;
        for folder in ["secure-files", "inbox", "caches", "mirrors"] {
            create_private_dir(&dir.join(folder)).map_err(file(&dir.join(folder)))?;
        }
        let secret = |name: &str| kept_secret(&dir.join(name)).map_err(file(&dir.join(name)));
        let access_token = secret("access-token")?;
        let webhook_secret = match &config.webhook_secret {
            Some(secret) => secret.clone(),
            None => secret("webhook-secret")?,
        };
        let (store, orphans) = RunStore::open(&dir)?;
        let agents = AgentPool::open(&dir.join("agents"), config.agents).map_err(file(&dir.join("agents")))?;
        let environments = Environments::open(&dir.join("environments.json"))?;
        let tls = config.pki.server_config(&["localhost", "127.0.0.1", "dev.azure.com"], false)?;
        let listener = listen_loopback(config.port).await.map_err(PipelinesError::Listen)?;
        let address = listener.local_addr().map_err(PipelinesError::Listen)?;
        let place = ServiceAddress {
            url: format!("https://{address}"),
            organization: config.organization.clone(),
            project: config.project.clone(),
        };
        let path = dir.join("address.json");
        // A struct of strings always has a JSON form.
        write_atomic(&path, &serde_json::to_vec(&place).unwrap_or_default(), PRIVATE).map_err(file(&path))?;
        let (sender, starts) = mpsc::unbounded_channel();
        let engine = Engine {
            url: format!("https://{address}"),
            config,
            store,
            agents,
            environments,
            recorder: OnceLock::new(),
            access_token,
            webhook_secret,
            locks: parking_lot::Mutex::new(HashMap::new()),
            starts: sender,
            active: parking_lot::Mutex::new(HashMap::new()),
        };
        Ok(Self { listener, address, tls, engine: Arc::new(engine), starts, orphans })
    }

    /// Where it listens, on loopback.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT/webhooks/github`.
    pub fn webhook_url(&self) -> String {
        format!("{}/webhooks/github", self.engine.url)
    }

    /// Secret with which webhooks are signed.
    pub fn webhook_secret(&self) -> &str {
        &self.engine.webhook_secret
    }

    /// What its runs use: for tests, and for the composition root.
    pub fn engine(&self) -> Arc<Engine> {
        self.engine.clone()
    }
}

/// A random text, made once and kept 0600.
fn kept_secret(path: &Path) -> io::Result<String> {
    if !path.exists() {
        write_atomic(path, hex::encode(rand::random::<[u8; 32]>()).as_bytes(), PRIVATE)?;
    }
    std::fs::read_to_string(path)
}

#[async_trait]
impl Component for Pipelines {
    fn name(&self) -> &'static str {
        "pipelines"
    }

    async fn run(mut self: Box<Self>, context: ComponentContext) -> Result<(), ComponentError> {
        let engine = self.engine;
        // Set once: a component runs once.
        let _ = engine.recorder.set(context.recorder.clone());
        for lookup in &self.orphans {
            for (id, name) in process::end_orphans(lookup).await {
                tracing::info!(id, name, "ended a process that a lost pipeline job left behind");
            }
        }
        let inbox = webhook::Inbox::open(&engine.config.state_dir)?;
        let inbox = Arc::new(inbox);
        let router = api::router(engine.clone(), inbox.clone());
        let serving = serve(self.listener, Some(self.tls), router, context.shutdown.clone());
        tokio::pin!(serving);
        let mut runs = JoinSet::new();
        let mut deliveries = inbox.deliveries();
        for waiting in inbox.waiting() {
            runs.spawn(receive::take(engine.clone(), inbox.clone(), waiting));
        }
        if let Some(cluster) = engine.config.cluster.clone() {
            runs.spawn(async move {
                if let Err(error) = containers::remove_left(&cluster.client).await {
                    tracing::warn!(error, "containers of lost pipeline jobs");
                }
            });
        }
        context.readiness.ready();
        loop {
            tokio::select! {
                served = &mut serving => {
                    served?;
                    break;
                }
                Some(start) = self.starts.recv() => {
                    let cancel = engine.active.lock().get(&start.run).cloned().unwrap_or_default();
                    runs.spawn(run_one(engine.clone(), inbox.clone(), start.run, cancel));
                }
                Some(delivery) = deliveries.recv() => {
                    runs.spawn(receive::take(engine.clone(), inbox.clone(), delivery));
                }
                Some(_) = runs.join_next(), if !runs.is_empty() => {}
            }
        }
        // Jobs that are under way are lost, as with an agent that is switched off: their processes go with them, and the
        // store says so at the next start.
        runs.shutdown().await;
        let running = engine.store.list().into_iter().flat_map(|r| r.stages).flat_map(|s| s.jobs);
        for job in running.filter(|j| j.state != State::Completed && !j.lookup.is_empty()) {
            process::end_orphans(&job.lookup).await;
        }
        Ok(())
    }
}

async fn run_one(
    engine: Arc<Engine>,
    inbox: Arc<webhook::Inbox>,
    id: u64,
    cancel: tokio_util::sync::CancellationToken,
) {
    run::execute(engine.clone(), id, cancel).await;
    receive::release(&engine, &inbox);
}

impl Engine {
    /// Queues a run.
    ///
    /// # Errors
    /// [`EngineError`]: what is asked for cannot be run. Nothing is queued then.
    pub async fn queue(self: &Arc<Self>, mut request: RunRequest) -> Result<RunRecord, EngineError> {
        let mirrors = Mirrors::new(self.config.state_dir.join("mirrors"), self.config.git.clone());
        let wanted = if request.commit.is_empty() { &request.reference } else { &request.commit };
        if request.commit.is_empty() || request.message.is_empty() {
            let found = match mirrors.fetch(&request.clone_url, wanted).await {
                Ok(found) => found,
                Err(_) if !request.commit.is_empty() => mirrors.fetch(&request.clone_url, &request.reference).await?,
                Err(error) => return Err(error.into()),
            };
            if request.commit.is_empty() {
                request.commit.clone_from(&found.commit);
            }
            request.message = found.subject().await.unwrap_or_default();
        }
        let plan = run::plan_of(self, &request).await?;
        let gaps = run::refused(&plan);
        if !gaps.is_empty() && !request.skip_unsupported {
            return Err(EngineError::Unsupported(gaps));
        }
        self.queue_unchecked(request)
    }

    /// Queues a run whose pipeline may be wrong: the run then fails with what is wrong.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn queue_unchecked(self: &Arc<Self>, request: RunRequest) -> Result<RunRecord, EngineError> {
        let record = self.store.create(request)?;
        let journey = RunJourney::begin(self, &record);
        journey.hop(self, Hop::Queued, &format!("run {} of {}", record.id, record.request.pipeline));
        let commit: String = record.request.commit.chars().take(8).collect();
        let message =
            format!("run {} of {} queued for {commit} on {}", record.id, record.request.pipeline, record.branch());
        journey.flow(self, FlowRow::Trigger, true, message);
        self.start(record.id)?;
        Ok(record)
    }

    /// Runs again what has not ended well.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when there is nothing to run again.
    pub fn rerun(self: &Arc<Self>, id: u64) -> Result<RunRecord, EngineError> {
        let reset = self.store.change(id, run::reset_failed)?;
        if !reset {
            return Err(EngineError::Refused(format!(
                "run {id} is under way, or has succeeded: there is nothing to run again"
            )));
        }
        self.start(id)?;
        Ok(self.store.get(id)?)
    }
}
