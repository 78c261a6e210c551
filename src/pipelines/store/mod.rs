//! The runs on disk: `runs/ID/run.json` (written whole, then renamed), logs, artifacts, attachments.
//!
//! What `run.json` says has happened, whatever becomes of the process: a change is on disk before
//! it is told to anybody.

mod log;
pub mod record;

pub use log::{LogLine, RunLog, StepLog};

use aksim_runtime::files::{PRIVATE, create_private_dir, write_atomic};
use jiff::Timestamp;
use parking_lot::Mutex;
use record::{Outcome, RunRecord, RunRequest, State};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such run.
    #[error("there is no run {0}")]
    NoRun(u64),
}

/// An error of a file, with its path.
pub(crate) fn file_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::File { path, source }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counters {
    last_run: u64,
    /// `$(Rev:r)`: last number by pipeline and the rest of the name.
    revisions: BTreeMap<String, u64>,
    /// `counter(prefix, seed)` by pipeline and prefix.
    counters: BTreeMap<String, i64>,
}

/// The runs of an environment; clones share everything.
#[derive(Clone)]
pub struct RunStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    runs: Mutex<BTreeMap<u64, Entry>>,
    counters: Mutex<Counters>,
    /// Counts changes of any run.
    changed: watch::Sender<u64>,
}

struct Entry {
    record: RunRecord,
    log: Arc<RunLog>,
}

impl RunStore {
    /// Opens the store. Jobs that were running when the last process ended are lost, and so are their runs;
    /// the processes that they left behind are named by the returned lookup ids.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn open(root: &Path) -> Result<(Self, Vec<String>), StoreError> {
        let runs_dir = root.join("runs");
        create_private_dir(&runs_dir).map_err(file_error(&runs_dir))?;
        let counters_path = root.join("counters.json");
        let counters = match std::fs::read(&counters_path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|e| file_error(&counters_path)(e.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Counters::default(),
            Err(error) => return Err(file_error(&counters_path)(error)),
        };
        let (mut runs, mut lookups) = (BTreeMap::new(), Vec::new());
        for entry in std::fs::read_dir(&runs_dir).map_err(file_error(&runs_dir))?.flatten() {
            let path = entry.path().join("run.json");
            // A folder whose run was never acknowledged has none.
            let Ok(json) = std::fs::read(&path) else { continue };
            let mut record: RunRecord = serde_json::from_slice(&json).map_err(|e| file_error(&path)(e.into()))?;
            if record.state != State::Completed {
                lookups.extend(mark_lost(&mut record));
                write_record(&path, &record)?;
            }
            let log = Arc::new(RunLog::open(&entry.path()).map_err(file_error(&path))?);
            log.end();
            runs.insert(record.id, Entry { record, log });
        }
        let inner = Inner {
            root: root.to_owned(),
            runs: Mutex::new(runs),
            counters: Mutex::new(counters),
            changed: watch::Sender::new(0),
        };
        Ok((Self { inner: Arc::new(inner) }, lookups))
    }

    /// Keeps a new run; `build_number` is made from its id.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn create(&self, request: RunRequest) -> Result<RunRecord, StoreError> {
        let id = self.count(|counters| {
            counters.last_run += 1;
            counters.last_run
        })?;
        let record = RunRecord {
            id,
            name: id.to_string(),
            request,
            state: State::Pending,
            result: None,
            queued: Timestamp::now(),
            started: None,
            finished: None,
            message: String::new(),
            tags: Vec::new(),
            stages: Vec::new(),
            artifacts: Vec::new(),
            tests: Vec::new(),
            last_log: 0,
        };
        let folder = self.folder(id);
        create_private_dir(&folder.join("logs")).map_err(file_error(&folder))?;
        let log = Arc::new(RunLog::open(&folder).map_err(file_error(&folder))?);
        write_record(&folder.join("run.json"), &record)?;
        self.inner.runs.lock().insert(id, Entry { record: record.clone(), log });
        self.tell();
        Ok(record)
    }

    /// Changes a run, on disk first.
    ///
    /// # Errors
    /// [`StoreError`]; the change is then not made.
    pub fn change<T>(&self, id: u64, change: impl FnOnce(&mut RunRecord) -> T) -> Result<T, StoreError> {
        let mut runs = self.inner.runs.lock();
        let entry = runs.get_mut(&id).ok_or(StoreError::NoRun(id))?;
        let mut record = entry.record.clone();
        let result = change(&mut record);
        if record != entry.record {
            write_record(&self.folder(id).join("run.json"), &record)?;
            if record.state == State::Completed {
                entry.log.end();
            } else {
                entry.log.reopen();
            }
            entry.record = record;
            drop(runs);
            self.tell();
        }
        Ok(result)
    }

    /// A run.
    ///
    /// # Errors
    /// [`StoreError::NoRun`].
    pub fn get(&self, id: u64) -> Result<RunRecord, StoreError> {
        self.inner.runs.lock().get(&id).map(|e| e.record.clone()).ok_or(StoreError::NoRun(id))
    }

    /// All runs, newest first.
    pub fn list(&self) -> Vec<RunRecord> {
        self.inner.runs.lock().values().rev().map(|e| e.record.clone()).collect()
    }

    /// The log of a run.
    ///
    /// # Errors
    /// [`StoreError::NoRun`].
    pub fn log(&self, id: u64) -> Result<Arc<RunLog>, StoreError> {
        self.inner.runs.lock().get(&id).map(|e| e.log.clone()).ok_or(StoreError::NoRun(id))
    }

    /// Told at each change of any run.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Folder of a run.
    pub fn folder(&self, id: u64) -> PathBuf {
        self.inner.root.join("runs").join(id.to_string())
    }

    /// Folder of the store.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Next revision of a build number of a pipeline (`$(Rev:r)`), from 1.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn next_revision(&self, pipeline: &str, rest: &str) -> Result<u64, StoreError> {
        self.count(|counters| {
            let revision = counters.revisions.entry(format!("{pipeline}\n{rest}")).or_insert(0);
            *revision += 1;
            *revision
        })
    }

    /// Next value of `counter(prefix, seed)` of a pipeline.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn next_counter(&self, pipeline: &str, prefix: &str, seed: i64) -> Result<i64, StoreError> {
        self.count(|counters| {
            let key = format!("{pipeline}\n{prefix}");
            let next = counters.counters.get(&key).map_or(seed, |last| last.saturating_add(1).max(seed));
            counters.counters.insert(key, next);
            next
        })
    }

    /// Removes the oldest completed runs beyond `keep`; their ids.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn retain(&self, keep: usize) -> Result<Vec<u64>, StoreError> {
        let old: Vec<u64> = {
            let runs = self.inner.runs.lock();
            let completed = runs.values().rev().filter(|e| e.record.state == State::Completed);
            completed.skip(keep).map(|e| e.record.id).collect()
        };
        for id in &old {
            let folder = self.folder(*id);
            std::fs::remove_dir_all(&folder).map_err(file_error(&folder))?;
            self.inner.runs.lock().remove(id);
        }
        if !old.is_empty() {
            self.tell();
        }
        Ok(old)
    }

    fn count<T>(&self, change: impl FnOnce(&mut Counters) -> T) -> Result<T, StoreError> {
        let path = self.inner.root.join("counters.json");
        let mut counters = self.inner.counters.lock();
        let mut next = counters.clone();
        let result = change(&mut next);
        // A struct of numbers and maps of them always has a JSON form.
        let json = serde_json::to_vec(&next).unwrap_or_default();
        write_atomic(&path, &json, PRIVATE).map_err(file_error(&path))?;
        *counters = next;
        Ok(result)
    }

    fn tell(&self) {
        self.inner.changed.send_modify(|count| *count += 1);
    }
}

fn write_record(path: &Path, record: &RunRecord) -> Result<(), StoreError> {
    let json = serde_json::to_vec(record).map_err(|e| file_error(path)(e.into()))?;
    // Outputs may be secret.
    write_atomic(path, &json, PRIVATE).map_err(file_error(path))
}

/// What was under way when the process ended is lost. Lookup ids of its processes.
fn mark_lost(record: &mut RunRecord) -> Vec<String> {
    let now = Timestamp::now();
    let mut lookups = Vec::new();
    for stage in &mut record.stages {
        for job in stage.jobs.iter_mut().filter(|j| j.state != State::Completed) {
            if job.state == State::InProgress || job.state == State::Canceling {
                lookups.push(job.lookup.clone());
                job.message = format!("We stopped hearing from agent {}: aksim was ended.", job.agent);
            }
            for step in job.steps.iter_mut().filter(|s| s.state == State::InProgress) {
                (step.state, step.result, step.finished) = (State::Completed, Some(Outcome::Lost), Some(now));
            }
            (job.state, job.result, job.finished) = (State::Completed, Some(Outcome::Lost), Some(now));
        }
        if stage.state != State::Completed {
            (stage.state, stage.result, stage.finished) = (State::Completed, Some(Outcome::Lost), Some(now));
        }
    }
    (record.state, record.result, record.finished) = (State::Completed, Some(Outcome::Lost), Some(now));
    lookups.retain(|l| !l.is_empty());
    lookups
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{record::*, *};

    /// A request that names no real repository.
    pub fn request() -> RunRequest {
        RunRequest {
            pipeline: "shop".into(),
            repository: "contoso/shop".into(),
            clone_url: "/nowhere".into(),
            reference: "refs/heads/main".into(),
            commit: "0".repeat(40),
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

    #[test]
    fn what_was_running_is_lost_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let (store, lost) = RunStore::open(dir.path()).unwrap();
        assert!(lost.is_empty());
        let run = store.create(request()).unwrap();
        store
            .change(run.id, |r| {
                r.state = State::InProgress;
                let job = JobRecord { state: State::InProgress, lookup: "vsts_1".into(), ..JobRecord::default() };
                r.stages.push(StageRecord { state: State::InProgress, jobs: vec![job], ..StageRecord::default() });
            })
            .unwrap();
        drop(store);
        let (store, lost) = RunStore::open(dir.path()).unwrap();
        assert_eq!(lost, ["vsts_1"]);
        let run = store.get(run.id).unwrap();
        assert_eq!((run.state, run.result), (State::Completed, Some(Outcome::Lost)));
        assert_eq!(run.stages[0].jobs[0].result, Some(Outcome::Lost));
        assert_eq!(store.create(request()).unwrap().id, run.id + 1);
    }

    #[test]
    fn the_oldest_completed_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = RunStore::open(dir.path()).unwrap();
        for _ in 0..4 {
            store.create(request()).unwrap();
        }
        for id in 1..=3 {
            store.change(id, |r| r.state = State::Completed).unwrap();
        }
        assert_eq!(store.retain(1).unwrap(), [2, 1]);
        assert_eq!(store.list().iter().map(|r| r.id).collect::<Vec<_>>(), [4, 3]);
        assert!(!store.folder(1).exists() && store.folder(3).exists());
    }

    #[test]
    fn counters_count_by_pipeline() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = RunStore::open(dir.path()).unwrap();
        assert_eq!(store.next_revision("a", "20260101").unwrap(), 1);
        assert_eq!(store.next_revision("a", "20260101").unwrap(), 2);
        assert_eq!(store.next_revision("a", "20260102").unwrap(), 1);
        assert_eq!(store.next_counter("a", "1.0", 100).unwrap(), 100);
        assert_eq!(store.next_counter("a", "1.0", 100).unwrap(), 101);
    }
}
