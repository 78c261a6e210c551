//! Images on this machine: an OCI layout that other tools can read (`skopeo copy oci:DIR:REFERENCE …`).

use super::{
    error::{BuildError, io_error},
    manifest::{Descriptor, ImageConfig, Index, Manifest},
};
use aksim_model::image_ref::ImageRef;
use aksim_runtime::files::{PUBLIC, create_private_dir, write_atomic};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Annotation that holds an image's full name in `index.json`.
const NAME: &str = "org.opencontainers.image.ref.name";

/// `sha256:` digest of `content`.
pub fn digest_of(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// Full name.
    pub reference: String,
    /// Its manifest.
    pub manifest: Descriptor,
    /// Bytes of config and layers as they are stored.
    pub size: u64,
}

/// What a prune removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Files removed.
    pub files: u64,
    /// Their size, bytes.
    pub bytes: u64,
}

/// An OCI layout.
#[derive(Clone, Debug)]
pub struct ImageStore {
    root: PathBuf,
}

impl ImageStore {
    /// Opens the layout in `root`, made if absent.
    ///
    /// # Errors
    /// [`BuildError::Io`].
    pub fn open(root: &Path) -> Result<Self, BuildError> {
        let blobs = root.join("blobs/sha256");
        create_private_dir(&blobs).map_err(io_error("make", &blobs))?;
        let marker = root.join("oci-layout");
        if !marker.exists() {
            let content = br#"{"imageLayoutVersion":"1.0.0"}"#;
            write_atomic(&marker, content, PUBLIC).map_err(io_error("write", &marker))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Folder of the layout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob lies, or would.
    ///
    /// # Errors
    /// [`BuildError::Malformed`] for a text that is no SHA-256 digest: it must never become a path.
    pub fn blob_path(&self, digest: &str) -> Result<PathBuf, BuildError> {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(BuildError::malformed(format!("digest {digest:?}"), "not sha256 and 64 hex digits"));
        }
        Ok(self.root.join("blobs/sha256").join(hex))
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// As [`ImageStore::blob_path`].
    pub fn has(&self, digest: &str) -> Result<bool, BuildError> {
        Ok(self.blob_path(digest)?.exists())
    }

    /// Stores a small blob.
    ///
    /// # Errors
    /// [`BuildError::Io`].
    pub fn put(&self, content: &[u8], media_type: &str) -> Result<Descriptor, BuildError> {
        let digest = digest_of(content);
        let path = self.blob_path(&digest)?;
        if !path.exists() {
            write_atomic(&path, content, PUBLIC).map_err(io_error("write", &path))?;
        }
        Ok(Descriptor::new(media_type, digest, content.len() as u64))
    }

    /// Reads a JSON blob of at most 4 MiB.
    ///
    /// # Errors
    /// [`BuildError`] when it is absent, too large, or not what it should be.
    pub fn json<T: DeserializeOwned>(&self, digest: &str) -> Result<T, BuildError> {
        let path = self.blob_path(digest)?;
        let size = path.metadata().map_err(io_error("stat", &path))?.len();
        if size > 4 << 20 {
            return Err(BuildError::malformed(digest, "larger than 4 MiB"));
        }
        let content = std::fs::read(&path).map_err(io_error("read", &path))?;
        serde_json::from_slice(&content).map_err(|e| BuildError::malformed(digest, e))
    }

    /// A writer of a blob whose digest is known only at its end.
    ///
    /// # Errors
    /// [`BuildError::Io`].
    pub fn writer(&self) -> Result<BlobWriter, BuildError> {
        let path = self.root.join("blobs").join(format!(".{:016x}.tmp", rand::random::<u64>()));
        let file = File::create_new(&path).map_err(io_error("create", &path))?;
        Ok(BlobWriter { store: self.clone(), path, file, hasher: Sha256::new(), size: 0, kept: false })
    }

    /// Changes `index.json` under a lock.
    fn change_index<T>(&self, change: impl FnOnce(&mut Index) -> T) -> Result<T, BuildError> {
        let lock_path = self.root.join(".lock");
        let lock = File::create(&lock_path).map_err(io_error("open", &lock_path))?;
        lock.lock().map_err(io_error("lock", &lock_path))?;
        let mut index = self.index()?;
        let before = index.clone();
        let outcome = change(&mut index);
        if index != before {
            let path = self.root.join("index.json");
            let json = serde_json::to_vec(&index).map_err(|e| io_error("encode", &path)(e.into()))?;
            write_atomic(&path, &json, PUBLIC).map_err(io_error("write", &path))?;
        }
        Ok(outcome)
    }

    fn index(&self) -> Result<Index, BuildError> {
        let path = self.root.join("index.json");
        match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|e| BuildError::malformed(path.display(), e)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let media_type = Some(super::manifest::INDEX.to_owned());
                Ok(Index { schema_version: 2, media_type, manifests: Vec::new() })
            }
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Names a manifest of the store.
    ///
    /// # Errors
    /// [`BuildError::Io`].
    pub fn tag(&self, reference: &ImageRef, manifest: &Descriptor) -> Result<(), BuildError> {
        let name = reference.to_string();
        let mut entry = manifest.clone();
        entry.annotations.insert(NAME.to_owned(), name.clone());
        self.change_index(|index| {
            index.manifests.retain(|m| m.annotations.get(NAME) != Some(&name));
            index.manifests.push(entry);
        })
    }

    /// Manifest of a name, if the store has it.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn resolve(&self, reference: &ImageRef) -> Result<Option<Descriptor>, BuildError> {
        let name = reference.to_string();
        let found = self.index()?.manifests.into_iter().find(|m| m.annotations.get(NAME) == Some(&name));
        let found = found.map(|mut m| {
            m.annotations.clear();
            m
        });
        // A layout that somebody pruned by hand.
        Ok(match found {
            Some(manifest) if self.has(&manifest.digest)? => Some(manifest),
            _ => None,
        })
    }

    /// Images by name.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn list(&self) -> Result<Vec<StoredImage>, BuildError> {
        let mut images = Vec::new();
        for entry in self.index()?.manifests {
            let Some(reference) = entry.annotations.get(NAME).cloned() else { continue };
            let manifest: Manifest = self.json(&entry.digest)?;
            let size = manifest.config.size + manifest.layers.iter().map(|l| l.size).sum::<u64>();
            images.push(StoredImage { reference, manifest: entry, size });
        }
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(images)
    }

    /// Manifest and config of an image of the store.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn image(&self, manifest: &Descriptor) -> Result<(Manifest, ImageConfig), BuildError> {
        let manifest: Manifest = self.json(&manifest.digest)?;
        let config: ImageConfig = self.json(&manifest.config.digest)?;
        if manifest.layers.len() != config.rootfs.diff_ids.len() {
            return Err(BuildError::malformed(&manifest.config.digest, "as many layers as diff ids must be there"));
        }
        Ok((manifest, config))
    }

    /// Removes blobs that no named image needs and that are older than `age`.
    ///
    /// # Errors
    /// [`BuildError`]; what was removed until then stays removed.
    pub fn prune(&self, age: Duration) -> Result<Pruned, BuildError> {
        let mut needed = HashSet::new();
        for entry in self.index()?.manifests {
            let manifest: Manifest = self.json(&entry.digest)?;
            needed.insert(entry.digest);
            needed.insert(manifest.config.digest);
            needed.extend(manifest.layers.into_iter().map(|l| l.digest));
        }
        let mut pruned = Pruned::default();
        for entry in walkdir::WalkDir::new(self.root.join("blobs")).into_iter().flatten() {
            let name = entry.file_name().to_string_lossy();
            if !entry.file_type().is_file() || needed.contains(&format!("sha256:{name}")) {
                continue;
            }
            prune_file(entry.path(), age, &mut pruned)?;
        }
        Ok(pruned)
    }
}

/// Removes a file that is older than `age`.
pub(super) fn prune_file(path: &Path, age: Duration, pruned: &mut Pruned) -> Result<(), BuildError> {
    let Ok(metadata) = path.metadata() else { return Ok(()) };
    let old = metadata.modified().ok().and_then(|m| SystemTime::now().duration_since(m).ok()).is_some_and(|a| a >= age);
    if old {
        std::fs::remove_file(path).map_err(io_error("remove", path))?;
        pruned.files += 1;
        pruned.bytes += metadata.len();
    }
    Ok(())
}

/// Writes a blob, hashing as it goes; what is not finished is removed.
pub struct BlobWriter {
    store: ImageStore,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    size: u64,
    kept: bool,
}

impl BlobWriter {
    /// Bytes written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Puts the blob into place; its digest, and whether it was there already.
    ///
    /// # Errors
    /// [`BuildError::Io`].
    pub fn finish(mut self) -> Result<(String, bool), BuildError> {
        let digest = format!("sha256:{}", hex::encode(self.hasher.clone().finalize()));
        let path = self.store.blob_path(&digest)?;
        let known = path.exists();
        if !known {
            std::fs::rename(&self.path, &path).map_err(io_error("move into place", &path))?;
            self.kept = true;
        }
        Ok((digest, known))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let written = self.file.write(content)?;
        self.hasher.update(&content[..written]);
        self.size += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.kept {
            // Already gone is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
