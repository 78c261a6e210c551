//! Runs cycles: all services at `up`, then one for each burst of saves or `trigger`.

use super::{
    cycle::{Cycle, CycleContext, CycleError},
    plan::{Action, Plan},
    watch::{FileWatcher, Method},
};
use aksim_cluster::deploy::DeployError;
use aksim_config::ServiceConfig;
use aksim_model::{
    event::{EventBody, ServiceState},
    ids::ServiceName,
};
use aksim_runtime::component::{Component, ComponentError, RunContext};
use async_trait::async_trait;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How often a container may end while the whole environment comes up: services that need each
/// other may fail once or twice before the other is there.
const RESTARTS_AT_UP: i32 = 3;

/// Work for one service.
#[derive(Debug)]
struct Work {
    action: Option<Action>,
    syncs: Vec<(PathBuf, String)>,
    cause: String,
}

/// The inner loop as a component.
pub struct DevLoop {
    context: CycleContext,
    plan: Arc<Plan>,
    scratch: PathBuf,
    triggers: mpsc::Receiver<ServiceName>,
    watch: bool,
}

impl DevLoop {
    /// A loop over the services of `plan`. `triggers` asks for a service whether or not a file
    /// has changed; `watch` is false where only triggers count.
    pub fn new(
        context: CycleContext,
        plan: Arc<Plan>,
        scratch: PathBuf,
        triggers: mpsc::Receiver<ServiceName>,
        watch: bool,
    ) -> Self {
        Self { context, plan, scratch, triggers, watch }
    }

    /// Deploys every service, those that others depend on first, independent ones side by side.
    ///
    /// # Errors
    /// The services that failed, with why; those that depend on them are not tried.
    pub async fn deploy_all(
        context: &CycleContext,
        plan: &Plan,
        cancel: &CancellationToken,
    ) -> Result<(), Vec<(ServiceName, String)>> {
        let mut done = BTreeSet::new();
        let mut failed: BTreeMap<ServiceName, String> = BTreeMap::new();
        let mut waiting: Vec<ServiceConfig> = plan.services().to_vec();
        for service in &waiting {
            context.recorder.record(pending(&service.name));
        }
        let mut running = JoinSet::new();
        loop {
            let (ready, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|s| s.depends_on.iter().all(|d| done.contains(d)));
            waiting = rest;
            for service in ready {
                let (context, cancel) = (context.clone(), cancel.clone());
                running.spawn(async move {
                    let cycle = Cycle::begin(&context, &service, "up", Timestamp::now(), cancel);
                    let outcome = cycle.deploy(false, RESTARTS_AT_UP).await;
                    (service.name, outcome)
                });
            }
            match running.join_next().await {
                Some(Ok((name, Ok(())))) => {
                    done.insert(name);
                }
                Some(Ok((name, Err(error)))) => {
                    failed.insert(name, error.to_string());
                }
                Some(Err(panic)) => {
                    failed.insert(ServiceName::from("?"), panic.to_string());
                }
                None => break,
            }
        }
        for service in waiting {
            let reason = "a service it depends on has failed".to_owned();
            failed.entry(service.name.clone()).or_insert(reason);
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.into_iter().collect()) }
    }

    async fn watch_files(&self) -> Option<FileWatcher> {
        if !self.watch {
            return None;
        }
        let warn = |message: String, hint: &str| {
            self.context.recorder.record(EventBody::Warning {
                subject: "file watch".into(),
                message,
                hint: Some(hint.to_owned()),
            });
        };
        match FileWatcher::start(&self.plan.watched_folders(), &self.scratch).await {
            Ok(watcher) => {
                if watcher.method() == Method::Polling {
                    warn(
                        "the file system sends no events: folders are polled".into(),
                        "keep the project on a local disk",
                    );
                }
                Some(watcher)
            }
            Err(error) => {
                warn(error.to_string(), "raise fs.inotify.max_user_watches, or use `aksim trigger`");
                None
            }
        }
    }

    /// Adds what a saved file asks for to the work of each service it belongs to.
    fn add(&self, file: &std::path::Path, work: &mut BTreeMap<ServiceName, Work>) {
        let Ok(decisions) = self.plan.decide(file) else { return };
        let cause = file.strip_prefix(&self.context.root).unwrap_or(file).display().to_string();
        for decision in decisions {
            let entry = work.entry(decision.service).or_insert_with(|| Work {
                action: None,
                syncs: Vec::new(),
                cause: cause.clone(),
            });
            match decision.action {
                Action::Sync { from, to } => {
                    if !from.is_dir() {
                        entry.syncs.push((from, to));
                    }
                }
                other => entry.action = entry.action.take().max(Some(other)),
            }
        }
    }
}

fn pending(service: &ServiceName) -> EventBody {
    EventBody::Service {
        service: service.clone(),
        state: ServiceState::Pending,
        version: None,
        message: String::new(),
        endpoints: Vec::new(),
    }
}

async fn run_cycle(
    context: CycleContext,
    service: ServiceConfig,
    work: Work,
    saved: Timestamp,
    cancel: CancellationToken,
) {
    let cycle = Cycle::begin(&context, &service, &work.cause, saved, cancel);
    let outcome = match work.action {
        Some(Action::Apply) => cycle.apply().await,
        Some(_) => cycle.deploy(true, 0).await,
        None => cycle.sync(&work.syncs).await,
    };
    if let Err(error) = outcome
        && !matches!(&error, CycleError::Deploy(DeployError::Rollout(_)) | CycleError::BuildCommand(_))
    {
        tracing::debug!(%error, service = %service.name, "cycle");
    }
}

#[async_trait]
impl Component for DevLoop {
    fn name(&self) -> &'static str {
        "devloop"
    }

    async fn run(mut self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let mut files = self.watch_files().await;
        context.readiness.ready();
        let mut cycles: JoinSet<()> = JoinSet::new();
        let mut running: BTreeMap<ServiceName, CancellationToken> = BTreeMap::new();
        loop {
            let mut work = BTreeMap::new();
            let saved;
            tokio::select! {
                () = context.shutdown.cancelled() => break,
                Some(_) = cycles.join_next(), if !cycles.is_empty() => continue,
                Some(burst) = next_burst(&mut files) => {
                    saved = save_time(&burst);
                    for file in burst {
                        self.add(&file, &mut work);
                    }
                }
                Some(service) = self.triggers.recv() => {
                    saved = Timestamp::now();
                    let forced = Work { action: Some(Action::Rebuild), syncs: Vec::new(), cause: "trigger".into() };
                    work.insert(service, forced);
                }
            }
            for (name, work) in work {
                let Some(service) = self.plan.service(&name).cloned() else { continue };
                if work.action.is_none() && work.syncs.is_empty() {
                    continue;
                }
                let cancel = context.shutdown.child_token();
                // A sync disturbs nothing; a newer build takes over from an older one.
                if work.action.is_some()
                    && let Some(older) = running.insert(name, cancel.clone())
                {
                    older.cancel();
                }
                cycles.spawn(run_cycle(self.context.clone(), service, work, saved, cancel));
            }
        }
        cycles.shutdown().await;
        Ok(())
    }
}

async fn next_burst(files: &mut Option<FileWatcher>) -> Option<BTreeSet<PathBuf>> {
    match files {
        Some(watcher) => watcher.next().await,
        None => std::future::pending().await,
    }
}

/// When the newest file of a burst was written; now, when that cannot be told or is not recent.
fn save_time(burst: &BTreeSet<PathBuf>) -> Timestamp {
    let now = Timestamp::now();
    let newest = burst.iter().filter_map(|f| std::fs::metadata(f).ok()?.modified().ok()).max();
    let newest = newest.and_then(|t| Timestamp::try_from(t).ok());
    newest.filter(|t| *t <= now && now.as_millisecond() - t.as_millisecond() < 2_000).unwrap_or(now)
}
