//! The store of the API server: objects as encoded bytes in memory, every write in a log first.
//!
//! One commit thread orders all writes and gives them revisions ([`commit`]). Readers take a
//! snapshot of all tables at one revision ([`state`]), watchers follow a table's events from any
//! revision that is still kept ([`hub`]). A write is acknowledged once write(2) of its log frame
//! returned ([`log`]): it then outlives the process, however it ends.

mod commit;
mod hub;
mod log;
mod object;
mod recovery;
mod state;

pub use commit::{Change, Expect, Write};
pub use hub::{Compacted, Event, EventKind, Subscription};
pub use object::{Draft, Header, Key, Object};
pub use state::{State, TableId};

use commit::{Committer, Queue, Submission};
use hub::Hub;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};
use tokio::sync::oneshot;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has the store open.
    #[error("{path} is in use by another process")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file that must be whole is damaged.
    #[error("{path} is damaged after {good} bytes\nhint: restore it from a copy, or remove the folder to start empty")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Length of the part that is whole.
        good: usize,
    },
}

impl StoreError {
    fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// Why a write did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// [`Expect::Absent`], and the object is there.
    #[error("the object exists already")]
    Exists,
    /// [`Expect::Revision`], and the object is gone or at another revision.
    #[error("the object has been modified")]
    Conflict,
    /// The log cannot be written (disk full); nothing changed.
    #[error("cannot write the store's log: {0}")]
    Log(#[source] Arc<std::io::Error>),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// How a store is opened.
#[derive(Clone)]
pub struct StoreConfig {
    /// Folder of the log and snapshots; made when missing.
    pub dir: PathBuf,
    /// Selectable field paths of a table (`pods` → `spec.nodeName`, …), kept in headers.
    pub fields: fn(&str) -> &'static [&'static str],
    /// Events kept per table for watchers that resume.
    pub history: usize,
    /// Log length, bytes, after which a snapshot is written and the log cut.
    pub segment_limit: u64,
    /// fdatasync before acknowledging: outlives power loss too, at about a fortieth of the speed.
    pub sync: bool,
}

impl StoreConfig {
    /// The usual settings, in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, fields: |_| &[], history: 8192, segment_limit: 64 << 20, sync: false }
    }
}

/// Tables by name and number; only ever added to.
#[derive(Default)]
struct Tables {
    /// Revision of the snapshot that was loaded: history begins after it.
    base: u64,
    ids: HashMap<Arc<str>, TableId>,
    names: Vec<Arc<str>>,
    hubs: Vec<Arc<Hub>>,
}

/// The store. Dropping it commits what was submitted, then closes the log.
pub struct Store {
    current: Arc<RwLock<Arc<State>>>,
    tables: Arc<RwLock<Tables>>,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    config: StoreConfig,
    _lock: std::fs::File,
}

impl Store {
    /// Opens the store in `config.dir`, with everything ever acknowledged.
    ///
    /// # Errors
    /// [`StoreError`] when files cannot be used, are damaged, or another process has them.
    pub fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let recovered = recovery::recover(&config)?;
        let current = Arc::new(RwLock::new(Arc::new(recovered.state)));
        let tables = Arc::new(RwLock::new(recovered.tables));
        let committer = Committer {
            dir: config.dir.clone(),
            current: current.clone(),
            tables: tables.clone(),
            segment: recovered.segment,
            segment_limit: config.segment_limit,
            sync: config.sync,
            snapshot: None,
            snapshot_length: 0,
        };
        let queue = Arc::new(Queue::default());
        let waiting = queue.clone();
        let thread = std::thread::Builder::new()
            .name("store-commit".into())
            .spawn(move || committer.run(&waiting))
            .map_err(StoreError::file(&config.dir))?;
        Ok(Self { current, tables, queue, thread: Mutex::new(Some(thread)), config, _lock: recovered.lock })
    }

    /// The number of the table `name` (`pods`, `deployments.apps`), made when new.
    pub fn table(&self, name: &str) -> TableId {
        if let Some(id) = self.tables.read().ids.get(name) {
            return *id;
        }
        self.tables.write().add(name, self.config.history)
    }

    /// Selectable field paths of a table.
    pub fn fields(&self, table: &str) -> &'static [&'static str] {
        (self.config.fields)(table)
    }

    /// All tables at the last committed revision.
    pub fn snapshot(&self) -> Arc<State> {
        self.current.read().clone()
    }

    /// An object as it is now.
    pub fn get(&self, table: TableId, key: &Key) -> Option<Arc<Object>> {
        self.current.read().table(table).get(key).cloned()
    }

    /// Events of a table after `revision`.
    ///
    /// # Errors
    /// [`Compacted`] when they are not all kept any more.
    pub fn watch(&self, table: TableId, revision: u64) -> Result<Subscription, Compacted> {
        let hub = self.tables.read().hubs[table.0 as usize].clone();
        hub.subscribe(revision)
    }

    /// Commits a write; returns the object as it was written, its last state for a removal.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed then.
    pub async fn commit(&self, write: Write) -> Result<Arc<Object>, CommitError> {
        let (reply, answer) = oneshot::channel();
        let due = self.queue.push(Submission { write, reply })?;
        tokio::task::yield_now().await;
        drop(due);
        answer.await.unwrap_or(Err(CommitError::Closed))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Tables {
    fn add(&mut self, name: &str, history: usize) -> TableId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let name: Arc<str> = name.into();
        // Tables are resources: hundreds at most.
        let id = TableId(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.ids.insert(name.clone(), id);
        self.names.push(name);
        self.hubs.push(Arc::new(Hub::new(self.base, history)));
        id
    }
}

#[cfg(test)]
mod tests;
