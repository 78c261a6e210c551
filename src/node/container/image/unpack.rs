//! A layer from its blob to a folder that overlayfs can mount. Runs in a worker of the agent,
//! which has the ids that the files belong to.

use crate::container::{
    launch::{fd_path, open_in},
    wire::IdMapping,
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat},
    sys::{
        stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mkdirat, mknodat, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat},
};
use sha2::{Digest, Sha256};
use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, BufReader, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};
use tar::{Archive, Entry, EntryType};

/// A layer may always unpack to this many bytes.
const SMALL: u64 = 1 << 30;
/// A larger one to this many times its compressed size.
const RATIO: u64 = 200;
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

fn refuse(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// Unpacks `blob` into the new folder `target`, whole or not at all. Returns the bytes of its files.
///
/// # Errors
/// Errors of the file system; a blob that is not what `diff_id` says, is malformed, leads out of
/// the folder, or grows beyond measure.
pub fn layer(blob: &Path, target: &Path, media_type: &str, diff_id: &str, ids: IdMapping) -> io::Result<u64> {
    let partial = target.with_extension(format!("{:08x}.partial", rand::random::<u32>()));
    std::fs::create_dir(&partial)?;
    let result = fill(blob, &partial, media_type, diff_id, ids).and_then(|bytes| {
        match std::fs::rename(&partial, target) {
            // Another environment was faster; layers are equal by digest.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY)) => {
                std::fs::remove_dir_all(&partial)?;
                Ok(bytes)
            }
            other => other.map(|()| bytes),
        }
    });
    if result.is_err() {
        // The first error is the one that matters.
        let _ = std::fs::remove_dir_all(&partial);
    }
    result
}

fn fill(blob: &Path, target: &Path, media_type: &str, diff_id: &str, ids: IdMapping) -> io::Result<u64> {
    let file = File::open(blob)?;
    let bound = file.metadata()?.len().saturating_mul(RATIO).max(SMALL);
    let compressed = BufReader::with_capacity(256 * 1024, file);
    let plain: Box<dyn Read> = match media_type.rsplit(['+', '.']).next().unwrap_or_default() {
        "gzip" => Box::new(flate2::bufread::MultiGzDecoder::new(compressed)),
        "zstd" => Box::new(zstd::stream::read::Decoder::with_buffer(compressed)?),
        "tar" => Box::new(compressed),
        _ => return Err(refuse(format!("unknown media type {media_type}"))),
    };
    let mut archive = Archive::new(Measured { inner: plain, hash: Sha256::new(), left: bound });
    let mut writer = Writer::new(target, ids)?;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        writer.put(&path, &mut entry).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    }
    writer.finish()?;
    let mut measured = archive.into_inner();
    // What follows the end of the archive belongs to the digest.
    io::copy(&mut measured, &mut io::sink())?;
    let found = format!("sha256:{}", hex::encode(measured.hash.finalize()));
    if found != diff_id {
        return Err(refuse(format!("the layer's content is {found}, its image says {diff_id}")));
    }
    Ok(writer.bytes)
}

/// Hashes what passes and ends a stream that grows beyond its bound.
struct Measured<R> {
    inner: R,
    hash: Sha256,
    left: u64,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| refuse("the layer unpacks to far more than its size; refused as a decompression bomb"))?;
        Ok(count)
    }
}

struct Writer {
    root: OwnedFd,
    ids: IdMapping,
    bytes: u64,
    /// Folder of the last entry: entries come folder by folder.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Folders with their times, which writing into them changes.
    folders: Vec<(PathBuf, i64)>,
}

impl Writer {
    fn new(target: &Path, ids: IdMapping) -> io::Result<Self> {
        Ok(Self { root: File::open(target)?.into(), ids, bytes: 0, parent: None, folders: Vec::new() })
    }

    fn put(&mut self, path: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let path = normal(path)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root itself: only its attributes.
            let root = self.root.try_clone()?;
            return self.attributes(&root, OsStr::new("."), entry);
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent = self.folder(&parent_path)?;
        let text = name.to_string_lossy();
        if text == OPAQUE {
            return self.opaque(&parent);
        }
        if let Some(hidden) = text.strip_prefix(WHITEOUT) {
            return Ok(mknodat(&parent, hidden, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?);
        }
        if entry.header().entry_type() != EntryType::Directory {
            self.clear(&parent, &name)?;
        }
        self.make(&parent, &name, entry)?;
        self.attributes(&parent, &name, entry)?;
        if entry.header().entry_type() == EntryType::Directory {
            self.folders.push((path, entry.header().mtime().unwrap_or(0).cast_signed()));
        }
        Ok(())
    }

    fn make(&mut self, parent: &OwnedFd, name: &OsStr, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let header = entry.header();
        let device = |h: &tar::Header| -> io::Result<u64> {
            let number = |n: io::Result<Option<u32>>| -> io::Result<u64> { Ok(n?.unwrap_or(0).into()) };
            Ok(makedev(number(h.device_major())?, number(h.device_minor())?))
        };
        match header.entry_type() {
            EntryType::Directory => match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
                Err(Errno::EEXIST) if is_folder(parent, name) => {}
                Err(Errno::EEXIST) => {
                    self.clear(parent, name)?;
                    mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
                }
                other => other?,
            },
            EntryType::Symlink => {
                let to = entry.link_name()?.ok_or_else(|| refuse("a symbolic link to nothing"))?;
                symlinkat(&*to, parent, name)?;
            }
            EntryType::Link => {
                let to = entry.link_name()?.ok_or_else(|| refuse("a hard link to nothing"))?;
                let to = normal(&to)?;
                let (folder, file) = (to.parent().unwrap_or(Path::new("")), to.file_name());
                let folder = open_in(&self.root, folder)?;
                let file = file.ok_or_else(|| refuse("a hard link to a folder"))?;
                linkat(&folder, file, parent, name, LinkatFlags::empty())?;
            }
            EntryType::Char if self.ids == IdMapping::Root => {
                mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), device(header)?)?;
            }
            EntryType::Block if self.ids == IdMapping::Root => {
                mknodat(parent, name, SFlag::S_IFBLK, Mode::empty(), device(header)?)?;
            }
            EntryType::Fifo => mknodat(parent, name, SFlag::S_IFIFO, Mode::empty(), 0)?,
            // A user namespace cannot make device nodes; containers get theirs from the runtime.
            EntryType::Char | EntryType::Block => {}
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let mut file = File::from(openat(parent, name, flags, Mode::from_bits_truncate(0o600))?);
                self.bytes += io::copy(entry, &mut file)?;
            }
            other => return Err(refuse(format!("an entry of unknown kind {other:?}"))),
        }
        Ok(())
    }

    /// Owner, extended attributes, permission bits, time; in this order, as each may reset the next.
    fn attributes(&self, parent: &OwnedFd, name: &OsStr, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        let skipped = matches!(kind, EntryType::Char | EntryType::Block) && self.ids != IdMapping::Root;
        if kind == EntryType::Link || skipped {
            return Ok(());
        }
        if self.ids != IdMapping::Single {
            let id = |n: u64| u32::try_from(n).map_err(|_| refuse("a user id beyond 32 bits"));
            let (uid, gid) = (Uid::from_raw(id(entry.header().uid()?)?), Gid::from_raw(id(entry.header().gid()?)?));
            match fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
                // An id beyond the mapped ones stays with root of the namespace.
                Err(Errno::EINVAL) if self.ids == IdMapping::Mapped => {}
                other => other?,
            }
        }
        if matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::Directory) {
            self.extended(parent, name, entry)?;
        }
        if kind != EntryType::Symlink {
            let mode = Mode::from_bits_truncate(entry.header().mode()? & 0o7777);
            fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)?;
        }
        let time = TimeSpec::new(entry.header().mtime().unwrap_or(0).cast_signed(), 0);
        Ok(utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
    }

    fn extended(&self, parent: &OwnedFd, name: &OsStr, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
        let path = fd_path(parent).join(name);
        for extension in extensions {
            let extension = extension?;
            let Some(key) = extension.key().ok().and_then(|k| k.strip_prefix("SCHILY.xattr.")) else { continue };
            // Overlayfs's own attributes would let a layer hide or reveal what is not its.
            if key.starts_with("trusted.") || key.starts_with("user.overlay.") {
                continue;
            }
            match set_attribute(&path, key, extension.value_bytes()) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTSUP | libc::EPERM)) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn opaque(&self, folder: &OwnedFd) -> io::Result<()> {
        let name = if self.ids == IdMapping::Root { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
        set_attribute(&fd_path(folder), name, b"y")
    }

    /// The folder of an entry, made if no entry did; links inside the layer cannot lead out of it.
    fn folder(&mut self, path: &Path) -> io::Result<OwnedFd> {
        if let Some((last, fd)) = &self.parent
            && last == path
        {
            return fd.try_clone();
        }
        let found = crate::container::launch::make_target(&self.root, path, true)?;
        if !std::fs::metadata(fd_path(&found))?.is_dir() {
            return Err(refuse("an entry below a file"));
        }
        let kept = found.try_clone()?;
        self.parent = Some((path.to_owned(), found));
        Ok(kept)
    }

    /// Removes an earlier entry of the same name.
    fn clear(&mut self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR | Errno::EPERM) => {
                self.parent = None;
                std::fs::remove_dir_all(fd_path(parent).join(name))
            }
            Err(e) => Err(e.into()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        for (path, seconds) in std::mem::take(&mut self.folders).into_iter().rev() {
            // It may have been replaced by a later entry.
            if let Ok(folder) = open_in(&self.root, &path) {
                let time = TimeSpec::new(seconds, 0);
                utimensat(AT_FDCWD, &fd_path(&folder), &time, &time, UtimensatFlags::FollowSymlink)?;
            }
        }
        Ok(())
    }
}

fn is_folder(parent: &OwnedFd, name: &OsStr) -> bool {
    nix::sys::stat::fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|s| SFlag::from_bits_truncate(s.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// The path without leading `/` and `.`; one with `..` is refused.
fn normal(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(refuse(format!("{} leads out of the layer", path.display())));
            }
        }
    }
    Ok(clean)
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let text = |s: &OsStr| CString::new(s.as_bytes()).map_err(io::Error::other);
    let (path, name) = (text(path.as_os_str())?, text(&OsString::from(name))?);
    // SAFETY: the pointers are to strings and bytes that live until the call returns.
    let code = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(code).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
