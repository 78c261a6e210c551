//! A git repository with a pipeline, and a running pipeline service.

use crate::support::text;
use aksim::{
    pipelines::{
        Engine, Pipelines, PipelinesConfig,
        record::{Outcome, Reason, RunRecord, RunRequest, State},
    },
    runtime::{
        component::{Component, RunContext},
        net::azure_http_client,
        pki::Pki,
        recorder::Recorder,
    },
};
use std::{collections::BTreeMap, path::PathBuf, process::Command, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far beyond what a run takes on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// A git repository with a pipeline.
pub struct Repository {
    folder: TempDir,
}

impl Repository {
    pub fn new(pipeline: &str, files: &[(&str, &str)]) -> Self {
        let repository = Self { folder: TempDir::new().unwrap() };
        repository.git(&["init", "--quiet", "--initial-branch=main", "."]);
        repository.commit(pipeline, files);
        repository
    }

    pub fn commit(&self, pipeline: &str, files: &[(&str, &str)]) -> String {
        for (name, content) in files.iter().chain([&("azure-pipelines.yml", pipeline)]) {
            let path = self.folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "a change"]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=Ada", "-c", "user.email=ada@contoso.example"];
        let output =
            Command::new("git").args(identity).args(arguments).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn url(&self) -> String {
        self.folder.path().display().to_string()
    }

    pub fn request(&self) -> RunRequest {
        RunRequest {
            pipeline: "shop".into(),
            repository: "contoso/shop".into(),
            clone_url: self.url(),
            reference: "refs/heads/main".into(),
            commit: String::new(),
            message: String::new(),
            reason: Reason::Manual,
            requested_for: "ada".into(),
            file: "azure-pipelines.yml".into(),
            parameters: BTreeMap::new(),
            variables: BTreeMap::new(),
            stages_to_skip: Vec::new(),
            skip_unsupported: false,
        }
    }
}

/// A running pipeline service.
pub struct Service {
    _dir: TempDir,
    pub engine: Arc<Engine>,
    pub pki: Pki,
    pub webhook: String,
    pub secret: String,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Service {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut PipelinesConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
        let http = azure_http_client(&pki, &[]).unwrap();
        let mut config = PipelinesConfig::new(dir.path().join("state"), pki.clone(), http);
        change(&mut config);
        let pipelines = Pipelines::bind(config).await.unwrap();
        let (engine, webhook) = (pipelines.engine(), pipelines.webhook_url());
        let secret = pipelines.webhook_secret().to_owned();
        let context = RunContext::detached(Recorder::in_memory());
        let shutdown = context.shutdown.clone();
        let task = tokio::spawn(async move { Box::new(pipelines).run(context).await.unwrap() });
        Self { _dir: dir, engine, pki, webhook, secret, shutdown, task }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    /// Queues a run of a repository and waits for its end.
    pub async fn run(&self, repository: &Repository) -> RunRecord {
        let queued = self.engine.queue(repository.request()).await.unwrap();
        self.ended(queued.id).await
    }

    pub async fn ended(&self, id: u64) -> RunRecord {
        self.when(id, |run| run.state == State::Completed).await
    }

    pub async fn when(&self, id: u64, wanted: impl Fn(&RunRecord) -> bool) -> RunRecord {
        let mut changes = self.engine.store.changes();
        let waited = tokio::time::timeout(DEADLINE, async {
            loop {
                changes.borrow_and_update();
                let run = self.engine.store.get(id).unwrap();
                if wanted(&run) {
                    return run;
                }
                changes.changed().await.unwrap();
            }
        });
        match waited.await {
            Ok(run) => run,
            Err(_) => panic!("run {id} did not get there: {:#?}\n{}", self.engine.store.get(id), self.log(id)),
        }
    }

    /// All text of a run's log.
    pub fn log(&self, id: u64) -> String {
        let folder = self.engine.store.folder(id).join("logs");
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "log"))
            .collect();
        files.sort();
        files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect()
    }
}

pub fn succeeded(run: &RunRecord, service: &Service) {
    assert_eq!(run.result, Some(Outcome::Succeeded), "{run:#?}\n{}", service.log(run.id));
}

pub fn stage_result(run: &RunRecord, name: &str) -> Option<Outcome> {
    run.stages.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no stage {name}")).result
}

pub fn step_results(run: &RunRecord, stage: &str, job: &str) -> Vec<(String, Option<Outcome>)> {
    let job = run.job(stage, job).unwrap_or_else(|| panic!("no job {job}: {run:#?}"));
    job.steps.iter().map(|s| (s.display_name.clone(), s.result)).collect()
}

/// Living processes that have a mark in their environment.
pub fn processes_with(mark: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&environment).contains(mark).then(|| String::from_utf8_lossy(&line).replace('\0', " "))
    });
    processes.collect()
}

/// A file that steps write lines to, in the order they run.
pub struct Marks {
    pub folder: TempDir,
}

impl Marks {
    pub fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A hook of one step that writes its name, the strategy's, and the increment.
    pub fn hook(&self, name: &str, more: &str) -> String {
        let file = self.path("marks").display().to_string();
        format!(
            "{{steps: [{{bash: 'echo \"{name} $(strategy.name) ${{STRATEGY_INCREMENT:-none}}\" >> {file}; {more}'}}]}}"
        )
    }

    pub fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("marks")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
