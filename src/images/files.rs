//! Where COPY and ADD take files from: the build context, or the file system of a stage or image.

use super::{
    error::{BuildError, io_error},
    ignore_file::{IgnoreFile, to_regex},
    layer::{Content, Entry, EntryKind},
    tree::{Tree, clean, join},
};
use regex::Regex;
use std::{
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Files by clean paths.
pub trait Files {
    /// What is at a path, itself not followed if it is a link; `None` when nothing, or nothing the build may see.
    fn entry(&self, path: &str) -> Result<Option<Entry>, BuildError>;
    /// Names in a folder, sorted.
    fn children(&self, folder: &str) -> Result<Vec<String>, BuildError>;
    /// The path with links followed, never out of the root.
    fn resolve(&self, path: &str) -> Result<String, BuildError>;
}

/// The folder a build may copy from, as `.dockerignore` leaves it.
#[derive(Debug)]
pub struct Context {
    root: PathBuf,
    ignore: IgnoreFile,
}

impl Context {
    /// Opens a folder; `DOCKERFILE.dockerignore` goes before `.dockerignore`.
    ///
    /// # Errors
    /// [`BuildError`] when it is no folder or the ignore file cannot be read.
    pub fn open(root: &Path, dockerfile: &Path) -> Result<Self, BuildError> {
        let root = root.canonicalize().map_err(io_error("open the build context", root))?;
        if !root.is_dir() {
            return Err(BuildError::malformed(root.display(), "the build context is not a folder"));
        }
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        let mut ignore = IgnoreFile::default();
        for path in [PathBuf::from(own), root.join(".dockerignore")] {
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    ignore = IgnoreFile::parse(&text).map_err(|e| BuildError::malformed(path.display(), e))?;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("read", &path)(error)),
            }
        }
        Ok(Self { root, ignore })
    }

    /// Whether `.dockerignore` is why a path is not there.
    pub fn ignored(&self, path: &str) -> bool {
        self.ignore.ignores(&clean(path)) && self.root.join(clean(path)).exists()
    }
}

impl Files for Context {
    fn entry(&self, path: &str) -> Result<Option<Entry>, BuildError> {
        let on_disk = self.root.join(path);
        let metadata = match on_disk.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(io_error("stat", &on_disk)(error)),
        };
        let kind = metadata.file_type();
        if !path.is_empty() && self.ignore.ignores(path) && !(kind.is_dir() && self.ignore.has_exceptions()) {
            return Ok(None);
        }
        let entry_kind = if kind.is_dir() {
            EntryKind::Folder
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&on_disk).map_err(io_error("read link", &on_disk))?;
            EntryKind::Symlink(target.to_string_lossy().into_owned())
        } else if kind.is_file() {
            EntryKind::File(Content::Disk { path: on_disk, offset: 0, size: metadata.len() })
        } else if kind.is_fifo() {
            EntryKind::Special(tar::EntryType::Fifo.as_byte(), 0, 0)
        } else {
            // Sockets and devices of the host have no place in an image.
            return Ok(None);
        };
        // Docker: files of the context belong to root.
        Ok(Some(Entry { kind: entry_kind, mode: metadata.permissions().mode() & 0o7777, uid: 0, gid: 0 }))
    }

    fn children(&self, folder: &str) -> Result<Vec<String>, BuildError> {
        let dir = self.root.join(folder);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(io_error("list", &dir))? {
            let entry = entry.map_err(io_error("list", &dir))?;
            let name = entry.file_name().into_string();
            names.push(name.map_err(|n| BuildError::malformed(dir.join(n).display(), "the name is not UTF-8"))?);
        }
        names.sort_unstable();
        Ok(names)
    }

    fn resolve(&self, path: &str) -> Result<String, BuildError> {
        let on_disk = self.root.join(path);
        match on_disk.canonicalize() {
            Ok(real) => match real.strip_prefix(&self.root) {
                Ok(inside) => Ok(inside.to_string_lossy().into_owned()),
                Err(_) => Err(BuildError::malformed(path, "is a link that leads out of the build context")),
            },
            Err(_) => Ok(path.to_owned()),
        }
    }
}

impl Files for Tree {
    fn entry(&self, path: &str) -> Result<Option<Entry>, BuildError> {
        Ok(if path.is_empty() { Some(Entry::folder()) } else { self.get(path).cloned() })
    }
    fn children(&self, folder: &str) -> Result<Vec<String>, BuildError> {
        Ok(Tree::children(self, folder).map(str::to_owned).collect())
    }
    fn resolve(&self, path: &str) -> Result<String, BuildError> {
        Ok(Tree::resolve(self, path, true))
    }
}

/// Paths that a source of COPY means: itself, or what its wildcards fit, sorted.
///
/// # Errors
/// [`BuildError`] of reading folders, or for a pattern that is none.
pub fn matches(files: &dyn Files, pattern: &str) -> Result<Vec<String>, BuildError> {
    let pattern = clean(pattern);
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|p| !p.is_empty()) {
        let wild = part.contains(['*', '?', '[', '\\']);
        let regex = match wild {
            true => Some(Regex::new(&to_regex(part)).map_err(|e| BuildError::malformed(&pattern, e))?),
            false => None,
        };
        let mut next = Vec::new();
        for folder in found {
            match &regex {
                None => {
                    let path = join(&folder, part);
                    if files.entry(&files.resolve(&path)?)?.is_some() {
                        next.push(path);
                    }
                }
                Some(regex) => {
                    let real = files.resolve(&folder)?;
                    if !matches!(files.entry(&real)?, Some(Entry { kind: EntryKind::Folder, .. })) {
                        continue;
                    }
                    for name in files.children(&real)?.into_iter().filter(|n| regex.is_match(n)) {
                        let path = join(&folder, &name);
                        if files.entry(&join(&real, &name))?.is_some() {
                            next.push(path);
                        }
                    }
                }
            }
        }
        found = next;
    }
    Ok(found)
}

/// Extended metadata that tells one moment of a file from another without reading it.
pub fn fingerprint(metadata: &std::fs::Metadata) -> [u64; 6] {
    let seconds = |s: i64, n: i64| (s as u64).wrapping_mul(1_000_000_000).wrapping_add(n as u64);
    [
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        u64::from(metadata.mode()),
        seconds(metadata.mtime(), metadata.mtime_nsec()),
        seconds(metadata.ctime(), metadata.ctime_nsec()),
    ]
}
