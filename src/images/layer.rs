//! Layers: sorted entries, fixed times, so that equal content has an equal digest on any machine.

use super::{
    error::{BuildError, io_error},
    store::ImageStore,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::Arc,
};

/// Bytes copied at once.
const COPY_SIZE: usize = 256 << 10;

/// A layer of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Media type.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Digest of the uncompressed content.
    pub diff_id: String,
}

/// Content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A part of a file on disk: the whole of it, or a file inside an archive.
    Disk {
        /// The file.
        path: PathBuf,
        /// First byte.
        offset: u64,
        /// Bytes.
        size: u64,
    },
    /// In memory (heredocs).
    Memory(Arc<[u8]>),
}

impl Content {
    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Content::Disk { size, .. } => *size,
            Content::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// All bytes of content that must be small.
    pub fn read(&self, limit: u64) -> Result<Vec<u8>, BuildError> {
        match self {
            Content::Memory(bytes) => Ok(bytes.to_vec()),
            Content::Disk { path, .. } if self.size() > limit => {
                Err(BuildError::malformed(path.display(), format!("larger than {limit} bytes")))
            }
            Content::Disk { path, .. } => {
                let mut bytes = Vec::new();
                self.reader().and_then(|mut r| r.read_to_end(&mut bytes)).map_err(io_error("read", path))?;
                Ok(bytes)
            }
        }
    }

    /// Reads all of it; a file that is shorter by now is an error.
    pub fn reader(&self) -> std::io::Result<Box<dyn Read + '_>> {
        match self {
            Content::Memory(bytes) => Ok(Box::new(&bytes[..])),
            Content::Disk { path, offset, size } => {
                let mut file = File::open(path)?;
                if *offset > 0 {
                    file.seek(SeekFrom::Start(*offset))?;
                }
                let capacity = COPY_SIZE.min(usize::try_from(*size).unwrap_or(COPY_SIZE)).max(1);
                Ok(Box::new(Exact { file: BufReader::with_capacity(capacity, file), left: *size }))
            }
        }
    }
}

/// Reads exactly `left` bytes.
struct Exact {
    file: BufReader<File>,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut buffer[..want])?;
        if read == 0 && want > 0 {
            return Err(std::io::Error::other("the file became shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A file.
    File(Content),
    /// A symbolic link.
    Symlink(String),
    /// Another name of a file of the same layer.
    HardLink(String),
    /// A device, a pipe: tar's type, major, minor.
    Special(u8, u32, u32),
    /// The path is gone in this layer.
    Whiteout,
}

/// An entry of a layer or a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
}

impl Entry {
    /// A folder of root's, as Docker makes those that are missing.
    pub fn folder() -> Self {
        Self { kind: EntryKind::Folder, mode: 0o755, uid: 0, gid: 0 }
    }
}

/// Entries by path without a slash at begin and end; parents come before their children.
pub type Entries = BTreeMap<String, Entry>;

/// Writes a layer into the store; the layer, and whether the store had it.
///
/// `epoch` is the time of all entries, seconds since 1970.
///
/// # Errors
/// [`BuildError::Io`], also when a file changes while it is read.
pub fn write_layer(store: &ImageStore, entries: &Entries, epoch: u64) -> Result<(Layer, bool), BuildError> {
    let writer = std::io::BufWriter::with_capacity(COPY_SIZE, store.writer()?);
    let mut tar = tar::Builder::new(writer);
    for (path, entry) in entries {
        append(&mut tar, path, entry, epoch)
            .map_err(|source| BuildError::Io { doing: format!("add /{path}"), source })?;
    }
    let failed = |source| BuildError::Io { doing: "write layer".to_owned(), source };
    let writer = tar.into_inner().map_err(failed)?.into_inner().map_err(|e| failed(e.into_error()))?;
    let size = writer.size();
    let (digest, known) = writer.finish()?;
    let media_type = super::manifest::LAYER_TAR.to_owned();
    Ok((Layer { media_type, diff_id: digest.clone(), digest, size }, known))
}

/// Digest of the layer that the entries would make, without writing it.
///
/// # Errors
/// [`BuildError::Io`], also when a file changes while it is read.
pub fn digest_entries(entries: &Entries, epoch: u64) -> Result<String, BuildError> {
    let mut tar = tar::Builder::new(Hashing(Sha256::new()));
    for (path, entry) in entries {
        append(&mut tar, path, entry, epoch)
            .map_err(|source| BuildError::Io { doing: format!("read /{path}"), source })?;
    }
    let hashing = tar.into_inner().map_err(|source| BuildError::Io { doing: "hash files".to_owned(), source })?;
    Ok(format!("sha256:{}", hex::encode(hashing.0.finalize())))
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, content: &[u8]) -> std::io::Result<usize> {
        self.0.update(content);
        Ok(content.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &str, entry: &Entry, epoch: u64) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode & 0o7777);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(epoch);
    header.set_size(0);
    match &entry.kind {
        EntryKind::Folder => {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, format!("{path}/"), std::io::empty())
        }
        EntryKind::File(content) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(content.size());
            tar.append_data(&mut header, path, content.reader()?)
        }
        EntryKind::Symlink(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, target)
        }
        EntryKind::HardLink(target) => {
            header.set_entry_type(tar::EntryType::Link);
            tar.append_link(&mut header, path, target)
        }
        EntryKind::Special(kind, major, minor) => {
            header.set_entry_type(tar::EntryType::new(*kind));
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            tar.append_data(&mut header, path, std::io::empty())
        }
        EntryKind::Whiteout => {
            let (parent, name) = path.rsplit_once('/').map_or(("", path), |(p, n)| (p, n));
            let slash = if parent.is_empty() { "" } else { "/" };
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("{parent}{slash}.wh.{name}"), std::io::empty())
        }
    }
}
