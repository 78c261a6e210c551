//! A stage's file system as a folder on disk, for RUN: written from the tree, compared after the command.

use super::{
    error::{BuildError, io_error},
    files::fingerprint,
    layer::{Content, Entries, Entry, EntryKind},
    tree::{Tree, join},
};
use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::{Gid, Uid, fchownat, geteuid},
};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, Permissions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// What the file system was before a command: fingerprint and owner by path.
pub type Snapshot = BTreeMap<String, ([u64; 6], u32, u32, bool)>;

/// Writes a tree into an empty folder. All entries of a tree have real folders above them, so nothing is
/// written through a link.
///
/// As root owners are kept; else everything belongs to the user, who is root inside.
///
/// # Errors
/// [`BuildError::Io`].
pub fn write(tree: &Tree, folder: &Path, epoch: u64) -> Result<(), BuildError> {
    std::fs::create_dir(folder).map_err(io_error("make", folder))?;
    write_entries(tree.entries(), folder, epoch)
}

/// As [`write()`], of entries whose folders are among them.
///
/// # Errors
/// [`BuildError::Io`].
pub fn write_entries(entries: &Entries, folder: &Path, epoch: u64) -> Result<(), BuildError> {
    let root = geteuid().is_root();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(epoch);
    for (path, entry) in entries {
        let target = folder.join(path);
        let failed = || io_error("write", &target);
        match &entry.kind {
            EntryKind::Folder => std::fs::create_dir(&target).map_err(failed())?,
            EntryKind::File(content) => {
                let mut file = File::create_new(&target).map_err(failed())?;
                let mut reader = content.reader().map_err(failed())?;
                io::copy(&mut reader, &mut file).map_err(failed())?;
                file.set_modified(time).map_err(failed())?;
            }
            EntryKind::Symlink(to) => std::os::unix::fs::symlink(to, &target).map_err(failed())?,
            EntryKind::HardLink(to) => std::fs::hard_link(folder.join(to), &target).map_err(failed())?,
            EntryKind::Special(kind, major, minor) => {
                let kind = match tar::EntryType::new(*kind) {
                    tar::EntryType::Fifo => SFlag::S_IFIFO,
                    tar::EntryType::Char => SFlag::S_IFCHR,
                    _ => SFlag::S_IFBLK,
                };
                // Devices need root; a container gets its own in any case.
                if !root && kind != SFlag::S_IFIFO {
                    continue;
                }
                let device = makedev(u64::from(*major), u64::from(*minor));
                mknod(&target, kind, Mode::from_bits_truncate(entry.mode), device).map_err(|e| failed()(e.into()))?;
            }
            EntryKind::Whiteout => continue,
        }
        if root {
            let id = |n: u64| u32::try_from(n).unwrap_or(u32::MAX - 1);
            let (uid, gid) = (Uid::from_raw(id(entry.uid)), Gid::from_raw(id(entry.gid)));
            let flag = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(nix::fcntl::AT_FDCWD, &target, Some(uid), Some(gid), flag).map_err(|e| failed()(e.into()))?;
        }
        // After the owner: changing it clears the set-id bits. Folders stay writable for us until all is in them.
        if let EntryKind::File(_) = entry.kind {
            std::fs::set_permissions(&target, Permissions::from_mode(entry.mode)).map_err(failed())?;
        }
    }
    for (path, entry) in entries.iter().rev().filter(|(_, e)| e.kind == EntryKind::Folder) {
        let target = folder.join(path);
        // The user must be able to walk it for the comparison; as root every mode is.
        let mode = if root { entry.mode } else { entry.mode | 0o700 };
        std::fs::set_permissions(&target, Permissions::from_mode(mode)).map_err(io_error("write", &target))?;
    }
    Ok(())
}

/// Notes what a folder holds.
///
/// # Errors
/// [`BuildError::Io`].
pub fn snapshot(folder: &Path) -> Result<Snapshot, BuildError> {
    let mut snapshot = Snapshot::new();
    for entry in walkdir::WalkDir::new(folder).min_depth(1) {
        let entry = entry.map_err(|e| io_error("walk", folder)(e.into()))?;
        let metadata = entry.path().symlink_metadata().map_err(io_error("stat", entry.path()))?;
        let print = (fingerprint(&metadata), metadata.uid(), metadata.gid(), metadata.is_dir());
        snapshot.insert(relative(folder, entry.path())?, print);
    }
    Ok(snapshot)
}

fn relative(folder: &Path, path: &Path) -> Result<String, BuildError> {
    let relative = path.strip_prefix(folder).unwrap_or(path).to_str();
    relative.map(str::to_owned).ok_or_else(|| BuildError::malformed(path.display(), "the name is not UTF-8"))
}

/// What a command changed since `before`, as the entries of a layer.
///
/// # Errors
/// [`BuildError::Io`].
pub fn changes(folder: &Path, before: &Snapshot, ids: &Ids) -> Result<Entries, BuildError> {
    let after = snapshot(folder)?;
    let mut entries = Entries::new();
    let mut links: HashMap<(u64, u64), String> = HashMap::new();
    for (path, now) in &after {
        let same = before.get(path).is_some_and(|then| {
            // A folder's times change with what is in it; its mode and owner are what counts.
            let (own, other) = (now.0, then.0);
            (now.1, now.2, now.3) == (then.1, then.2, then.3) && if now.3 { own[3] == other[3] } else { own == other }
        });
        if !same {
            entries.insert(path.clone(), entry(folder, path, ids, &mut links)?);
        }
    }
    let mut gone: Option<&String> = None;
    for path in before.keys().filter(|p| !after.contains_key(*p)) {
        // What lies in a folder that is gone is gone with it.
        if gone.is_some_and(|g| path.strip_prefix(g.as_str()).is_some_and(|rest| rest.starts_with('/'))) {
            continue;
        }
        gone = Some(path);
        // Under something new that is no folder nothing can be whited out, and need not.
        let parent = path.rsplit_once('/').map_or("", |(p, _)| p);
        if parent.is_empty() || after.get(parent).is_some_and(|p| p.3) {
            entries.insert(path.clone(), Entry { kind: EntryKind::Whiteout, ..Entry::folder() });
        }
    }
    Ok(entries)
}

fn entry(folder: &Path, path: &str, ids: &Ids, links: &mut HashMap<(u64, u64), String>) -> Result<Entry, BuildError> {
    let target = folder.join(path);
    let metadata = target.symlink_metadata().map_err(io_error("stat", &target))?;
    let file_type = metadata.file_type();
    let device = || {
        let device = metadata.rdev();
        let number = |n: u64| u32::try_from(n).unwrap_or(0);
        (number(nix::sys::stat::major(device)), number(nix::sys::stat::minor(device)))
    };
    let special = |kind: tar::EntryType| {
        let (major, minor) = device();
        EntryKind::Special(kind.as_byte(), major, minor)
    };
    let kind = if file_type.is_dir() {
        EntryKind::Folder
    } else if file_type.is_symlink() {
        let to = std::fs::read_link(&target).map_err(io_error("read link", &target))?;
        EntryKind::Symlink(to.to_string_lossy().into_owned())
    } else if file_type.is_file() {
        match links.get(&(metadata.dev(), metadata.ino())) {
            Some(first) => EntryKind::HardLink(first.clone()),
            None => {
                if metadata.nlink() > 1 {
                    links.insert((metadata.dev(), metadata.ino()), path.to_owned());
                }
                EntryKind::File(Content::Disk { path: target, offset: 0, size: metadata.len() })
            }
        }
    } else if file_type.is_fifo() {
        special(tar::EntryType::Fifo)
    } else if file_type.is_char_device() {
        special(tar::EntryType::Char)
    } else if file_type.is_block_device() {
        special(tar::EntryType::Block)
    } else {
        // A socket means nothing without the process that listens on it.
        EntryKind::Whiteout
    };
    let (uid, gid) = ids.inside(metadata.uid(), metadata.gid());
    Ok(Entry { kind, mode: metadata.permissions().mode() & 0o7777, uid, gid })
}

/// Ids of the user namespace that a command ran in.
pub struct Ids {
    root: bool,
    own: (u32, u32),
    first: (Option<u32>, Option<u32>),
}

impl Ids {
    /// As `__container-run` maps them: none as root; else the user is root inside, and subordinate ids follow from 1.
    pub fn of_this_process() -> Self {
        let (uid, gid) = (geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let name = nix::unistd::User::from_uid(geteuid()).ok().flatten().map(|u| u.name).unwrap_or_default();
        let first = |file: &str| {
            let text = std::fs::read_to_string(file).ok()?;
            text.lines().find_map(|line| {
                let mut fields = line.split(':');
                let owner = fields.next()?;
                (owner == name || owner.parse() == Ok(uid)).then(|| fields.next()?.parse().ok())?
            })
        };
        Self { root: uid == 0, own: (uid, gid), first: (first("/etc/subuid"), first("/etc/subgid")) }
    }

    fn inside(&self, uid: u32, gid: u32) -> (u64, u64) {
        let one = |outside: u32, own: u32, first: Option<u32>| match first {
            _ if self.root => u64::from(outside),
            _ if outside == own => 0,
            Some(first) if outside >= first => u64::from(outside - first) + 1,
            _ => u64::from(outside),
        };
        (one(uid, self.own.0, self.first.0), one(gid, self.own.1, self.first.1))
    }
}

/// Removes what the container runtime made in the root only to mount something on it.
pub fn remove_mount_points(folder: &Path, before: &Snapshot, targets: &[String]) {
    for target in targets {
        let mut path = target.clone();
        while !path.is_empty() && !before.contains_key(&path) {
            let place: PathBuf = folder.join(&path);
            let gone = match place.symlink_metadata() {
                Ok(m) if m.is_dir() => std::fs::remove_dir(&place).is_ok(),
                Ok(m) if m.is_file() && m.len() == 0 => std::fs::remove_file(&place).is_ok(),
                Ok(_) => false,
                Err(_) => true,
            };
            // Not empty: the command put something there, which is then part of the image.
            if !gone {
                break;
            }
            path = path.rsplit_once('/').map_or(String::new(), |(p, _)| p.to_owned());
        }
    }
}

/// A path below the root as the tree resolves it, for a mount.
pub fn mount_point(tree: &Tree, target: &str) -> String {
    let (parent, name) = target.rsplit_once('/').map_or(("", target), |(p, n)| (p, n));
    join(&tree.resolve(parent, true), name)
}
