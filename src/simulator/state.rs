//! State of an environment that no component owns: lock, id, ports, kubeconfig before ours.

use aksim_config::home::Home;
use aksim_model::advice::{Advice, ExitClass};
use aksim_runtime::{
    control::ControlClient,
    files::{PRIVATE, create_private_dir, write_atomic},
};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{File, TryLockError},
    io,
    path::PathBuf,
    time::Duration,
};
use tokio::sync::oneshot;

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another aksim runs this environment.
    #[error("the environment is running already ({} is locked)", lock.display())]
    Running {
        /// The lock file.
        lock: PathBuf,
    },
    /// A file or folder cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Advice for StateError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Running { .. } => Some("`aksim status` shows it, `aksim down` stops it".into()),
            Self::File { source, .. } => source.hint(),
        }
    }

    fn class(&self) -> ExitClass {
        match self {
            Self::Running { .. } => ExitClass::Failure,
            Self::File { .. } => ExitClass::Environment,
        }
    }
}

/// What is kept between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Random id of the environment.
    pub id: String,
    /// Ports by component, so that addresses stay.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// kubeconfig that our context was merged into, with the context that was current before.
    #[serde(default)]
    pub kubeconfig: Option<(PathBuf, Option<String>)>,
}

/// How long an aksim that does not answer may take to let go of the lock.
const DYING: Duration = Duration::from_secs(10);

/// Waits for a lock that somebody holds. A killed aksim holds it, and seems to listen, until its last
/// thread has ended, and with it a child that was about to become another program. `None` when the
/// holder answers, or does not let go in time.
async fn wait_for(lock: File, holder: &ControlClient) -> Option<File> {
    let (sender, locked) = oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "flock has no other wait; it ends with the lock or the process")]
    std::thread::spawn(move || lock.lock().map(|()| sender.send(lock)));
    let answered = async {
        if holder.info().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        locked = locked => locked.ok(),
        () = answered => None,
        () = tokio::time::sleep(DYING) => None,
    }
}

/// The state folder of a running environment; locked while this lives.
pub struct State {
    home: Home,
    kept: Kept,
    new: bool,
    _lock: File,
}

impl State {
    /// Makes the folder if needed and locks it.
    ///
    /// # Errors
    /// [`StateError::Running`] when another process holds the lock.
    pub async fn open(home: &Home) -> Result<Self, StateError> {
        let state = Self::lock(home).await?;
        match state.store() {
            Ok(()) => Ok(state),
            Err(error) => {
                state.forget_new();
                Err(error)
            }
        }
    }

    /// The same without writing down anything, for an environment that is about to go.
    ///
    /// # Errors
    /// As [`State::open`].
    pub async fn lock(home: &Home) -> Result<Self, StateError> {
        let file = |path: PathBuf| move |source| StateError::File { path, source };
        create_private_dir(home.root()).map_err(file(home.root().to_owned()))?;
        let path = home.lock();
        let lock = File::options().create(true).write(true).truncate(false).open(&path).map_err(file(path.clone()))?;
        let lock = match lock.try_lock() {
            Ok(()) => lock,
            Err(TryLockError::WouldBlock) => {
                let waited = wait_for(lock, &ControlClient::new(&home.control_socket())).await;
                waited.ok_or_else(|| StateError::Running { lock: path.clone() })?
            }
            Err(TryLockError::Error(source)) => return Err(StateError::File { path, source }),
        };
        let mut kept = load(home)?;
        let new = kept.id.is_empty();
        if new {
            kept.id = format!("{:016x}", rand::random::<u64>());
        }
        Ok(Self { home: home.clone(), kept, new, _lock: lock })
    }

    /// Removes the folder of an environment whose very first start failed: there is nothing in it
    /// that anybody would miss. Others are left alone.
    pub fn forget_new(self) {
        if !self.new {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(self.home.root()) {
            tracing::warn!(folder = %self.home.root().display(), %error, "could not be removed");
        }
    }

    /// Random id of the environment.
    pub fn id(&self) -> &str {
        &self.kept.id
    }

    /// The port that a component had, 0 when it had none.
    pub fn port(&self, component: &str) -> u16 {
        self.kept.ports.get(component).copied().unwrap_or(0)
    }

    /// Keeps a component's port for the next run.
    ///
    /// # Errors
    /// Any error of writing.
    pub fn keep_port(&mut self, component: &str, port: u16) -> Result<(), StateError> {
        if self.kept.ports.insert(component.to_owned(), port) != Some(port) {
            self.store()?;
        }
        Ok(())
    }

    /// Keeps which kubeconfig was changed.
    ///
    /// # Errors
    /// Any error of writing.
    pub fn keep_kubeconfig(&mut self, kubeconfig: Option<(PathBuf, Option<String>)>) -> Result<(), StateError> {
        self.kept.kubeconfig = kubeconfig;
        self.store()
    }

    /// The kubeconfig that was changed, and its context before.
    pub fn kubeconfig(&self) -> Option<&(PathBuf, Option<String>)> {
        self.kept.kubeconfig.as_ref()
    }

    fn store(&self) -> Result<(), StateError> {
        let path = path(&self.home);
        // A struct of strings and numbers always has a JSON form.
        let json = serde_json::to_vec_pretty(&self.kept).unwrap_or_default();
        write_atomic(&path, &json, PRIVATE).map_err(|source| StateError::File { path, source })
    }
}

fn path(home: &Home) -> PathBuf {
    home.root().join("environment.json")
}

/// What an environment keeps, without locking it; nothing when it has never run.
///
/// # Errors
/// Any error of reading, or of a malformed file.
pub fn load(home: &Home) -> Result<Kept, StateError> {
    let path = path(home);
    match std::fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json).map_err(|e| StateError::File { path, source: e.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(source) => Err(StateError::File { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_what_is_kept_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("shop"), dir.path().join("cache"));
        let mut state = State::open(&home).await.unwrap();
        state.keep_port("registry", 4711).unwrap();
        let id = state.id().to_owned();
        assert!(matches!(State::open(&home).await, Err(StateError::Running { .. })));
        // The kernel takes connections in the name of one that dies.
        let _listener = std::os::unix::net::UnixListener::bind(home.control_socket()).unwrap();
        let going = async {
            tokio::task::yield_now().await;
            drop(state);
        };
        let (next, ()) = tokio::join!(State::open(&home), going);
        drop(next.unwrap());
        let again = State::open(&home).await.unwrap();
        assert_eq!((again.id(), again.port("registry")), (id.as_str(), 4711));
    }
}
