//! Records of the host as JSON files that are whole or absent, readable by the user alone.

use super::GitError;
use aksim_runtime::files::{PRIVATE, create_private_dir, write_atomic};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// The record in a file; `None` when there is no file.
///
/// # Errors
/// [`GitError::File`] when it cannot be read or is not such a record.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, GitError> {
    match std::fs::read(path) {
        Ok(json) => {
            let record = serde_json::from_slice(&json).map_err(io::Error::from);
            record.map(Some).map_err(GitError::file(path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(GitError::file(path)(error)),
    }
}

/// Replaces the record in a file, making its folder if there is none.
///
/// # Errors
/// [`GitError::File`].
pub(super) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), GitError> {
    let json = serde_json::to_vec_pretty(record).map_err(io::Error::from).map_err(GitError::file(path))?;
    if let Some(parent) = path.parent() {
        create_private_dir(parent).map_err(GitError::file(parent))?;
    }
    write_atomic(path, &json, PRIVATE).map_err(GitError::file(path))
}

/// Removes a file; one that is not there is removed already.
pub(super) fn remove(path: &Path) -> Result<(), GitError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(GitError::file(path)(error)),
        _ => Ok(()),
    }
}

/// Ids that grow, also across restarts: milliseconds since 1970, or one more than the last.
#[derive(Debug, Default)]
pub(super) struct Ids(AtomicU64);

impl Ids {
    /// An id that was not given before.
    pub(super) fn next(&self) -> u64 {
        let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        let next = |last: u64| Some(now.max(last + 1));
        // The function never refuses.
        let last = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or(0);
        now.max(last + 1)
    }
}
