//! The local agents: as many jobs at once as there are agents, each with its own work folder.

use aksim_runtime::files::{PUBLIC, create_private_dir, write_atomic};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The agents of an environment.
pub struct AgentPool {
    root: PathBuf,
    permits: Arc<Semaphore>,
    free: Arc<Mutex<BTreeSet<usize>>>,
    /// Work folder number by pipeline (`SourceRootMapping` of the agent).
    numbers: Mutex<BTreeMap<String, usize>>,
    /// Agent that a job had last: its folder there has what the job built.
    last: Mutex<BTreeMap<String, usize>>,
}

/// An agent while a job has it.
pub struct Agent {
    /// From 1.
    pub number: usize,
    /// `aksim-1`.
    pub name: String,
    /// Folder of the agent (`Agent.HomeDirectory`).
    pub home: PathBuf,
    free: Arc<Mutex<BTreeSet<usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.free.lock().insert(self.number);
    }
}

/// Folders of a job.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// `Agent.WorkFolder`: `_work`.
    pub work: PathBuf,
    /// `Pipeline.Workspace`: `_work/1`.
    pub root: PathBuf,
    /// `Build.ArtifactStagingDirectory`: `a`.
    pub artifacts: PathBuf,
    /// `Build.BinariesDirectory`: `b`.
    pub binaries: PathBuf,
    /// `Build.SourcesDirectory`: `s`.
    pub sources: PathBuf,
    /// `Common.TestResultsDirectory`.
    pub test_results: PathBuf,
    /// `Agent.TempDirectory`, empty at the beginning of each job.
    pub temp: PathBuf,
    /// `Agent.ToolsDirectory`.
    pub tools: PathBuf,
}

impl AgentPool {
    /// Agents with their folders below `root`.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn open(root: &Path, agents: usize) -> io::Result<Self> {
        create_private_dir(root)?;
        let numbers = match std::fs::read(root.join("mapping.json")) {
            Ok(json) => serde_json::from_slice(&json).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let agents = agents.max(1);
        Ok(Self {
            root: root.to_owned(),
            permits: Arc::new(Semaphore::new(agents)),
            free: Arc::new(Mutex::new((1..=agents).collect())),
            numbers: Mutex::new(numbers),
            last: Mutex::default(),
        })
    }

    /// Waits for an agent, the one that `job` had last when that is free; `None` when cancelled first.
    pub async fn acquire(&self, job: &str, cancel: &CancellationToken) -> Option<Agent> {
        let permit = tokio::select! {
            biased;
            () = cancel.cancelled() => return None,
            permit = self.permits.clone().acquire_owned() => permit.ok()?,
        };
        let mut last = self.last.lock();
        let mut free = self.free.lock();
        let number = match last.get(job).filter(|number| free.contains(number)) {
            Some(number) => *number,
            // One is free for each permit; best one that no other job would like to have again.
            None => *free.iter().find(|n| !last.values().any(|l| l == *n)).or_else(|| free.first())?,
        };
        free.remove(&number);
        last.insert(job.to_owned(), number);
        let name = format!("aksim-{number}");
        Some(Agent { number, home: self.root.join(&name), name, free: self.free.clone(), _permit: permit })
    }

    /// The folders of a job of a pipeline on an agent, made and cleaned as the agent does: `a`, `b`'s test results
    /// and the temporary folder are empty, sources stay unless `clean` says otherwise
    /// (`outputs`, `resources`, `all`).
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn prepare(&self, agent: &Agent, pipeline: &str, clean: Option<&str>) -> io::Result<Workspace> {
        let number = self.number(pipeline)?;
        let work = agent.home.join("_work");
        let root = work.join(number.to_string());
        let workspace = Workspace {
            artifacts: root.join("a"),
            binaries: root.join("b"),
            sources: root.join("s"),
            test_results: root.join("TestResults"),
            temp: work.join("_temp"),
            tools: work.join("_tool"),
            root,
            work,
        };
        let mut empty = vec![&workspace.artifacts, &workspace.test_results, &workspace.temp];
        match clean {
            Some("outputs") => empty.push(&workspace.binaries),
            Some("resources") => empty.push(&workspace.sources),
            Some("all") => empty.push(&workspace.root),
            _ => {}
        }
        for folder in empty {
            remove_tree(folder)?;
        }
        for folder in [
            &workspace.artifacts,
            &workspace.binaries,
            &workspace.sources,
            &workspace.test_results,
            &workspace.temp,
            &workspace.tools,
        ] {
            create_private_dir(folder)?;
        }
        Ok(workspace)
    }

    fn number(&self, pipeline: &str) -> io::Result<usize> {
        let mut numbers = self.numbers.lock();
        if let Some(number) = numbers.get(pipeline) {
            return Ok(*number);
        }
        let number = numbers.values().max().map_or(1, |n| n + 1);
        let mut next = numbers.clone();
        next.insert(pipeline.to_owned(), number);
        write_atomic(&self.root.join("mapping.json"), &serde_json::to_vec(&next)?, PUBLIC)?;
        *numbers = next;
        Ok(number)
    }
}

/// Removes a folder with all that is in it, read-only folders too (a build may make them).
///
/// # Errors
/// Any error of the file system; that it is not there is none.
pub fn remove_tree(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            use std::os::unix::fs::PermissionsExt;
            for entry in walkdir::WalkDir::new(folder).into_iter().flatten().filter(|e| e.file_type().is_dir()) {
                std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o700))?;
            }
            std::fs::remove_dir_all(folder)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn agents_are_given_once_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let pool = AgentPool::open(dir.path(), 2).unwrap();
        let cancel = CancellationToken::new();
        let first = pool.acquire("test", &cancel).await.unwrap();
        let second = pool.acquire("build", &cancel).await.unwrap();
        assert_eq!((first.name.as_str(), second.name.as_str()), ("aksim-1", "aksim-2"));
        drop(first);
        assert_eq!(pool.acquire("test", &cancel).await.unwrap().number, 1);
        cancel.cancel();
        assert!(pool.acquire("test", &cancel).await.is_none());
    }

    /// What a job built lies in the folder of its agent.
    #[tokio::test]
    async fn a_job_has_the_agent_that_it_had_before() {
        let dir = tempfile::tempdir().unwrap();
        let pool = AgentPool::open(dir.path(), 3).unwrap();
        let cancel = CancellationToken::new();
        let number = async |job: &str| pool.acquire(job, &cancel).await.unwrap().number;
        assert_eq!((number("test").await, number("build").await, number("pack").await), (1, 2, 3));
        assert_eq!((number("build").await, number("test").await), (2, 1));
        let taken = pool.acquire("build", &cancel).await.unwrap();
        assert_eq!(taken.number, 2);
        assert_eq!(number("build").await, 1, "any other rather than none");
    }

    #[tokio::test]
    async fn folders_are_as_the_agent_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let pool = AgentPool::open(dir.path(), 1).unwrap();
        let agent = pool.acquire("job", &CancellationToken::new()).await.unwrap();
        let workspace = pool.prepare(&agent, "shop", None).unwrap();
        assert!(workspace.sources.ends_with("_work/1/s"));
        std::fs::write(workspace.sources.join("kept"), "").unwrap();
        std::fs::write(workspace.artifacts.join("gone"), "").unwrap();
        let again = pool.prepare(&agent, "shop", None).unwrap();
        assert!(again.sources.join("kept").exists() && !again.artifacts.join("gone").exists());
        let clean = pool.prepare(&agent, "shop", Some("all")).unwrap();
        assert!(!clean.sources.join("kept").exists());
        assert!(pool.prepare(&agent, "other", None).unwrap().root.ends_with("_work/2"));
    }
}
