//! Which files were saved: inotify (or the system's own way) by `notify`, self-tested at start,
//! polling where events do not come, and that is said.

use notify::{Config, Event, EventKind, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// A burst of events ends when nothing has come for this long.
const QUIET: Duration = Duration::from_millis(15);
/// A burst is cut after this long, so that a busy folder does not hold back a save.
const LONGEST_BURST: Duration = Duration::from_millis(150);
/// How long the self-test waits for its own event.
const SELF_TEST: Duration = Duration::from_secs(2);
/// How often a polled folder is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The system refuses a watch.
    #[error("cannot watch {}: {source}", path.display())]
    Watch {
        /// What was to be watched.
        path: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
    /// The folder of the self-test cannot be written.
    #[error("watch self-test in {}: {source}", path.display())]
    SelfTest {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// How changes are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Events of the system.
    Events,
    /// Looking again and again.
    Polling,
}

/// Watches folders for saved files.
pub struct FileWatcher {
    events: mpsc::UnboundedReceiver<PathBuf>,
    method: Method,
    _watcher: Box<dyn Watcher + Send>,
}

impl FileWatcher {
    /// Watches `folders` and all below. `scratch` is a folder of ours for the self-test.
    ///
    /// # Errors
    /// [`WatchError`].
    pub async fn start(folders: &[PathBuf], scratch: &Path) -> Result<Self, WatchError> {
        let (method, mut watcher, events) = if events_work(scratch).await? {
            let (sender, receiver) = mpsc::unbounded_channel();
            let watcher = RecommendedWatcher::new(handler(sender), Config::default());
            (Method::Events, watcher.map(|w| Box::new(w) as Box<dyn Watcher + Send>), receiver)
        } else {
            let (sender, receiver) = mpsc::unbounded_channel();
            let config = Config::default().with_poll_interval(POLL_INTERVAL);
            let watcher = PollWatcher::new(handler(sender), config);
            (Method::Polling, watcher.map(|w| Box::new(w) as Box<dyn Watcher + Send>), receiver)
        };
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| WatchError::Watch { path, source }
        };
        if let Ok(watcher) = &mut watcher {
            for folder in folders {
                watcher.watch(folder, RecursiveMode::Recursive).map_err(error(folder))?;
            }
        }
        Ok(Self { events, method, _watcher: watcher.map_err(error(scratch))? })
    }

    /// How changes are noticed.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The next burst of saved files. `None` when watching has ended.
    pub async fn next(&mut self) -> Option<BTreeSet<PathBuf>> {
        let mut saved = BTreeSet::from([self.events.recv().await?]);
        let end = Instant::now() + LONGEST_BURST;
        loop {
            let quiet = Instant::now() + QUIET;
            match tokio::time::timeout_at(quiet.min(end), self.events.recv()).await {
                Ok(Some(path)) => {
                    saved.insert(path);
                }
                Ok(None) | Err(_) => return Some(saved),
            }
            if Instant::now() >= end {
                return Some(saved);
            }
        }
    }
}

fn handler(sender: mpsc::UnboundedSender<PathBuf>) -> impl FnMut(notify::Result<Event>) + Send + 'static {
    move |event| match event {
        Ok(event) if matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)) => {
            for path in event.paths {
                // The receiver is gone when aksim stops.
                let _ = sender.send(path);
            }
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "file watch"),
    }
}

/// Whether the system tells of a file written in `scratch`.
async fn events_work(scratch: &Path) -> Result<bool, WatchError> {
    let failed = |source| WatchError::SelfTest { path: scratch.to_owned(), source };
    std::fs::create_dir_all(scratch).map_err(failed)?;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let Ok(mut watcher) = RecommendedWatcher::new(handler(sender), Config::default()) else { return Ok(false) };
    if watcher.watch(scratch, RecursiveMode::NonRecursive).is_err() {
        return Ok(false);
    }
    let probe = scratch.join(format!("watch-{:08x}", rand::random::<u32>()));
    std::fs::write(&probe, b"aksim").map_err(failed)?;
    let seen = tokio::time::timeout(SELF_TEST, receiver.recv()).await;
    std::fs::remove_file(&probe).map_err(failed)?;
    Ok(matches!(seen, Ok(Some(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_of_saves_is_one() {
        let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = dir.path().canonicalize().unwrap();
        let mut watcher = FileWatcher::start(std::slice::from_ref(&folder), scratch.path()).await.unwrap();
        std::fs::write(folder.join("a"), "1").unwrap();
        std::fs::write(folder.join("b"), "2").unwrap();
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            seen.extend(tokio::time::timeout(Duration::from_secs(5), watcher.next()).await.unwrap().unwrap());
        }
        assert_eq!(seen, BTreeSet::from([folder.join("a"), folder.join("b")]));
    }
}
