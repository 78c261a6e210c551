//! Uploads under way: hashed as they stream to disk, continued after a restart.

use super::{Storage, StorageError, io_error, present};
use crate::name::{Digest, RepositoryName};
use aksim_runtime::files::{PRIVATE, create_private_dir, write_atomic};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::Arc,
};
use uuid::Uuid;

/// Id of an upload, in its URL.
pub type UploadId = Uuid;

/// One upload: a file, and the hash of exactly its bytes.
pub struct UploadSession {
    repository: RepositoryName,
    dir: PathBuf,
    file: File,
    hasher: Sha256,
    size: u64,
    /// Cancelled or complete: a request that waited for its turn finds nothing.
    ended: bool,
}

impl UploadSession {
    /// Bytes received.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it was cancelled or completed meanwhile.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Appends and hashes. When writing fails, what the hash does not cover is cut off again.
    ///
    /// # Errors
    /// [`StorageError::Io`], a full disk among them.
    pub fn append(&mut self, chunk: &Bytes) -> Result<(), StorageError> {
        if let Err(error) = self.file.write_all(chunk) {
            // The error that matters is the first; a file left longer is cut when next opened for writing.
            let _ = self.file.set_len(self.size).and_then(|()| self.file.seek(SeekFrom::Start(self.size)));
            return Err(io_error("write upload in", &self.dir)(error));
        }
        self.hasher.update(chunk);
        self.size += chunk.len() as u64;
        Ok(())
    }

    /// Digest of what has been received.
    pub fn digest(&self) -> Digest {
        Digest::from_sha256(self.hasher.clone().finalize())
    }

    fn create(dir: PathBuf, repository: RepositoryName) -> Result<Self, StorageError> {
        create_private_dir(&dir).map_err(io_error("make", &dir))?;
        let file = open_data(&dir)?;
        // Last: an upload exists once its repository is known.
        let path = dir.join("repository");
        write_atomic(&path, repository.as_str().as_bytes(), PRIVATE).map_err(io_error("write", &path))?;
        Ok(Self { repository, dir, file, hasher: Sha256::new(), size: 0, ended: false })
    }

    /// Opens an upload of an earlier run, hashing what it has.
    fn reopen(dir: PathBuf) -> Result<Option<Self>, StorageError> {
        let path = dir.join("repository");
        let Some(name) = present(std::fs::read_to_string(&path)).map_err(io_error("read", &path))? else {
            return Ok(None);
        };
        let repository = name.parse().map_err(|e| StorageError::Corrupt { path, reason: format!("{e}") })?;
        let mut file = open_data(&dir)?;
        let mut hasher = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = file.read(&mut buffer).map_err(io_error("read upload in", &dir))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            size += read as u64;
        }
        Ok(Some(Self { repository, dir, file, hasher, size, ended: false }))
    }

    /// Removes it.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn cancel(&mut self) -> Result<(), StorageError> {
        self.ended = true;
        present(std::fs::remove_dir_all(&self.dir)).map_err(io_error("remove", &self.dir))?;
        Ok(())
    }

    /// Makes it a blob of its repository. The caller has compared `digest` with [`UploadSession::digest`].
    ///
    /// # Errors
    /// [`StorageError::Io`]; the upload is then still there.
    pub fn complete(&mut self, storage: &Storage, digest: &Digest) -> Result<(), StorageError> {
        storage.adopt_blob(&self.repository, digest, &self.dir.join("data"))?;
        self.cancel()
    }
}

fn open_data(dir: &std::path::Path) -> Result<File, StorageError> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = dir.join("data");
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(&path)
        .map_err(io_error("open", &path))
}

/// A session that one request at a time works on.
type SharedSession = Arc<tokio::sync::Mutex<UploadSession>>;

/// The uploads under way.
#[derive(Default)]
pub struct Uploads {
    open: parking_lot::Mutex<HashMap<UploadId, (RepositoryName, SharedSession)>>,
}

impl Uploads {
    /// Begins an upload into a repository.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn begin(
        &self,
        storage: &Storage,
        repository: &RepositoryName,
    ) -> Result<(UploadId, SharedSession), StorageError> {
        let id = Uuid::new_v4();
        let session = UploadSession::create(storage.root.join("uploads").join(id.to_string()), repository.clone())?;
        let session = Arc::new(tokio::sync::Mutex::new(session));
        self.open.lock().insert(id, (repository.clone(), session.clone()));
        Ok((id, session))
    }

    /// An upload into `repository`, of an earlier run too; `None` when there is none such.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn find(
        &self,
        storage: &Storage,
        repository: &RepositoryName,
        id: UploadId,
    ) -> Result<Option<SharedSession>, StorageError> {
        // Held while an old upload is hashed: two requests for it must get one session.
        let mut open = self.open.lock();
        if let Some((owner, session)) = open.get(&id) {
            return Ok((owner == repository).then(|| session.clone()));
        }
        let dir = storage.root.join("uploads").join(id.to_string());
        let Some(session) = UploadSession::reopen(dir)?.filter(|s| s.repository == *repository) else {
            return Ok(None);
        };
        let session = Arc::new(tokio::sync::Mutex::new(session));
        open.insert(id, (repository.clone(), session.clone()));
        Ok(Some(session))
    }

    /// Forgets an upload that has ended.
    pub fn forget(&self, id: UploadId) {
        self.open.lock().remove(&id);
    }
}
