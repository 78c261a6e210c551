//! The registry on disk: content by digest, shared by all repositories, and links from each.
//!
//! ```text
//! blobs/HH/HEX                       content; HH are the first two hex digits
//! repositories/NAME/_layers/HEX      this repository has the blob
//! repositories/NAME/_manifests/HEX   record of a manifest, JSON; its content is a blob
//! repositories/NAME/_tags/TAG        digest that the tag names
//! repositories/NAME/_referrers/SUBJECT/HEX   the manifest HEX has this subject
//! uploads/ID/{repository,data}       an upload under way
//! ```
//!
//! A repository's name never has a component that begins with `_` or `.`, so links and
//! nested repositories do not meet. Every file is written whole and renamed into place, content before the
//! links to it: `kill -9` leaves at most content that nothing links to, which garbage collection takes.

mod garbage;
mod manifests;
mod uploads;

pub use garbage::Collected;
pub use manifests::{ManifestRecord, StoredManifest, TagRecord};
pub use uploads::{UploadId, UploadSession, Uploads};

use super::name::{Digest, RepositoryName};
use aksim_runtime::files::{PRIVATE, create_private_dir, write_atomic};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Why the storage could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// An operation of the file system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was attempted.
        doing: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file of the registry does not hold what it should.
    #[error("{path}: {reason}")]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

pub(crate) fn io_error(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> StorageError + use<> {
    let doing = format!("{doing} {}", path.display());
    move |source| StorageError::Io { doing, source }
}

/// `None` in place of "not found".
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file; whether it was there.
fn remove(path: &Path) -> Result<bool, StorageError> {
    Ok(present(std::fs::remove_file(path)).map_err(io_error("remove", path))?.is_some())
}

/// Names in a folder, sorted, without temporary files; empty when there is no such folder.
fn names_in(dir: &Path) -> Result<Vec<String>, StorageError> {
    let Some(entries) = present(std::fs::read_dir(dir)).map_err(io_error("list", dir))? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", dir))?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Content and links. All methods block on the file system, so servers call them off the async threads.
pub struct Storage {
    root: PathBuf,
    /// Shared by everything that makes content needed (links it), exclusive to the sweep.
    sweep: parking_lot::RwLock<()>,
}

impl Storage {
    /// Opens the storage in `root`, made if absent.
    ///
    /// # Errors
    /// [`StorageError::Io`] when folders cannot be made.
    pub fn open(root: &Path) -> Result<Self, StorageError> {
        for folder in ["blobs", "repositories", "uploads"] {
            let path = root.join(folder);
            create_private_dir(&path).map_err(io_error("make", &path))?;
        }
        Ok(Self { root: root.to_owned(), sweep: parking_lot::RwLock::new(()) })
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(&digest.hex()[..2]).join(digest.hex())
    }

    fn repository(&self, name: &RepositoryName) -> PathBuf {
        self.root.join("repositories").join(name.as_str())
    }

    fn link_path(&self, name: &RepositoryName, digest: &Digest) -> PathBuf {
        self.repository(name).join("_layers").join(digest.hex())
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<(), StorageError> {
        if let Some(parent) = path.parent() {
            create_private_dir(parent).map_err(io_error("make", parent))?;
        }
        write_atomic(path, content, PRIVATE).map_err(io_error("write", path))
    }

    /// Size of a blob of this repository in bytes, `None` when it has none such.
    ///
    /// A blob that is asked for may be about to be used by a manifest: its age for garbage
    /// collection begins anew.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<u64>, StorageError> {
        let _linking = self.sweep.read();
        if !self.link_path(name, digest).exists() {
            return Ok(None);
        }
        self.renew(digest)
    }

    /// Renews a blob's age and tells its size.
    fn renew(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        let path = self.blob_path(digest);
        let Some(file) = present(File::open(&path)).map_err(io_error("open", &path))? else { return Ok(None) };
        file.set_modified(SystemTime::now()).map_err(io_error("touch", &path))?;
        Ok(Some(file.metadata().map_err(io_error("stat", &path))?.len()))
    }

    /// Opens a blob of this repository; with its size in bytes.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn open_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<(File, u64)>, StorageError> {
        if !self.link_path(name, digest).exists() {
            return Ok(None);
        }
        let path = self.blob_path(digest);
        let Some(file) = present(File::open(&path)).map_err(io_error("open", &path))? else { return Ok(None) };
        let size = file.metadata().map_err(io_error("stat", &path))?.len();
        Ok(Some((file, size)))
    }

    /// Takes a complete, verified file as content and links it to the repository.
    fn adopt_blob(&self, name: &RepositoryName, digest: &Digest, data: &Path) -> Result<(), StorageError> {
        let _linking = self.sweep.read();
        let path = self.blob_path(digest);
        if self.renew(digest)?.is_some() {
            remove(data)?;
        } else {
            if let Some(parent) = path.parent() {
                create_private_dir(parent).map_err(io_error("make", parent))?;
            }
            std::fs::rename(data, &path).map_err(io_error("move into place", &path))?;
            self.renew(digest)?;
        }
        self.write(&self.link_path(name, digest), b"")
    }

    /// Links a blob of `from` to `into`; `false` when `from` has none such.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn mount_blob(
        &self,
        from: &RepositoryName,
        into: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StorageError> {
        let _linking = self.sweep.read();
        if !self.link_path(from, digest).exists() || self.renew(digest)?.is_none() {
            return Ok(false);
        }
        self.write(&self.link_path(into, digest), b"")?;
        Ok(true)
    }

    /// Takes a blob out of a repository; whether it was there. Content goes at garbage collection.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn unlink_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, StorageError> {
        remove(&self.link_path(name, digest))
    }
}
