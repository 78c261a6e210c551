//! What is on disk of sandboxes and containers, so that a new daemon finds them.

use super::{launch::overlay::Overlay, shim::ExitRecord};
use crate::runtime::{ContainerSpec, ContainerState, ContainerStatus, SandboxSpec};
use aksim_runtime::files;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io,
    path::{Path, PathBuf},
};

/// `sandboxes/ID/sandbox.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Id.
    pub id: String,
    /// As asked for.
    pub spec: SandboxSpec,
    /// When it was made.
    pub created: Timestamp,
    /// It was stopped; its network is gone.
    pub stopped: bool,
}

/// `containers/ID/container.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Id.
    pub id: String,
    /// Sandbox.
    pub sandbox: String,
    /// As asked for, without its environment (which may hold secrets).
    pub spec: ContainerSpec,
    /// Log file.
    pub log_path: PathBuf,
    /// When it was made.
    pub created: Timestamp,
    /// Signal to stop it with.
    pub stop_signal: i32,
    /// Root file system.
    pub overlay: Overlay,
}

impl ContainerRecord {
    /// Status of the container in a state.
    pub fn status(&self, state: ContainerState) -> ContainerStatus {
        ContainerStatus {
            id: self.id.clone(),
            sandbox: self.sandbox.clone(),
            name: self.spec.name.clone(),
            attempt: self.spec.attempt,
            image: self.spec.image.clone(),
            image_id: self.spec.image_id.clone(),
            state,
            log_path: self.log_path.clone(),
        }
    }
}

impl From<ExitRecord> for ContainerState {
    fn from(exit: ExitRecord) -> Self {
        Self::Exited { started: exit.started, finished: exit.finished, code: exit.code, oom_killed: exit.oom_killed }
    }
}

/// A new id, 64 hex digits.
pub fn new_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// Reads a JSON file.
///
/// # Errors
/// `NotFound`; a file that does not parse.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Writes a JSON file, whole or not at all, readable by the user alone.
///
/// # Errors
/// Errors of the file system.
pub fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    files::write_atomic(path, &serde_json::to_vec(value)?, files::PRIVATE)
}
